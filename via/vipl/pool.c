/* SPDX-License-Identifier: MIT */
/*
 * Handles: addresses of slots in one range that is reserved once and never given back. A slot whose
 * object has gone says so, and waits for its turn behind all others before it is used again.
 */
#include <sys/mman.h>

#include "vip.h"

enum { SLOTS = 16384 };

struct pool pool;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct head *first_free, *last_free;
static unsigned fresh; /* slots from here on were never used */

static bool pool_ready(void)
{
    if (pool.size)
        return true;
    void *base = mmap(NULL, (size_t)SLOTS * SLOT_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return false;
    pool.base = (uintptr_t)base;
    pool.size = (size_t)SLOTS * SLOT_BYTES;
    return true;
}

static struct head *slot_take(void)
{
    if (fresh < SLOTS)
        return (struct head *)(pool.base + (uintptr_t)fresh++ * SLOT_BYTES);
    struct head *head = first_free;
    if (head)
        first_free = head->next;
    if (!first_free)
        last_free = NULL;
    return head;
}

void *pool_take(enum kind kind, struct vip_nic *nic)
{
    pthread_mutex_lock(&lock);
    struct head *head = pool_ready() ? slot_take() : NULL;
    pthread_mutex_unlock(&lock);
    if (!head)
        return NULL;
    memset(head, 0, SLOT_BYTES);
    head->nic = nic;
    atomic_store_explicit(&head->kind, kind, memory_order_release);
    return head;
}

void pool_give(void *object)
{
    struct head *head = object;

    atomic_store(&head->kind, KIND_FREE);
    pthread_mutex_lock(&lock);
    head->next = NULL;
    if (last_free)
        last_free->next = head;
    else
        first_free = head;
    last_free = head;
    pthread_mutex_unlock(&lock);
}
