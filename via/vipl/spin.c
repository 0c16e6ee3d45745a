/* SPDX-License-Identifier: MIT */
/* Waiting: for a lock that is held for a moment, and by the clock. */
#include <linux/membarrier.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "vip.h"

enum { SPINS_BEFORE_YIELD = 256 };

void spin_wait(struct spin *spin)
{
    for (unsigned turn = 1;; turn++) {
        if (!atomic_load_explicit(&spin->taken, memory_order_relaxed) &&
            !atomic_exchange_explicit(&spin->taken, 1, memory_order_acquire))
            return;
        if (turn % SPINS_BEFORE_YIELD == 0)
            sched_yield();
    }
}

/* ---- locks with an owner ---- */

__thread char lock_self __attribute__((tls_model("initial-exec")));
static bool can_revoke;

void lock_prepare(void)
{
#ifndef __SANITIZE_THREAD__
    can_revoke = !syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
#endif
}

/* With the ordinary lock held: nobody else does this. */
static void lock_revoke(struct lock *lock)
{
    if (atomic_exchange(&lock->owner, LOCK_SHARED) == NULL)
        return;
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    for (unsigned turn = 1; atomic_load_explicit(&lock->inside, memory_order_acquire); turn++) {
        if (turn % SPINS_BEFORE_YIELD == 0)
            sched_yield();
    }
}

/* Owners come and go with the ordinary lock held. */
void lock_slowly(struct lock *lock)
{
    spin_lock(&lock->spin);
    const void *owner = atomic_load_explicit(&lock->owner, memory_order_relaxed);
    if (!owner && can_revoke) {
        atomic_store(&lock->inside, 1);
        atomic_store(&lock->owner, &lock_self);
        spin_unlock(&lock->spin);
        return;
    }
    if (owner != LOCK_SHARED)
        lock_revoke(lock);
    lock->held_shared = true;
}

/* ---- the clock ---- */

int64_t clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A 32-bit program's idea of for ever is for ever, too. */
int64_t deadline_of(VIP_ULONG timeout)
{
    return timeout >= 0xffffffff ? INT64_MAX : clock_ns() + (int64_t)timeout * 1000000;
}

int remaining_ms(int64_t deadline)
{
    if (deadline == INT64_MAX)
        return -1;
    int64_t left = deadline - clock_ns();
    if (left <= 0)
        return 0;
    left = (left + 999999) / 1000000;
    return left < INT32_MAX ? (int)left : INT32_MAX;
}

void cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

bool cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline)
{
    struct timespec at = {.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000};

    if (deadline == INT64_MAX)
        return !pthread_cond_wait(cond, lock);
    return pthread_cond_timedwait(cond, lock, &at) != ETIMEDOUT;
}

void list_add(struct head **list, struct head *item)
{
    item->next = *list;
    *list = item;
}

void list_remove(struct head **list, struct head *item)
{
    while (*list && *list != item)
        list = &(*list)->next;
    if (*list)
        *list = item->next;
}

int thread_start(pthread_t *thread_out, void *(*run)(void *), void *arg)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(thread_out, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -error;
}
