/* SPDX-License-Identifier: MIT */
/*
 * Connection management datagrams between processes: in the order they were sent, over the socket
 * either of the two has opened to the other. What can't go yet (no socket so far, or it is full)
 * waits here; what is for our own process is delivered by the engine thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/conn.h"
#include "core/process.h"
#include "core/sys.h"
#include "link/shm/shm.h"

enum { MAD_SIZE = 256, WAITING_MAX = 16384, FULL_NS = 200000 };

struct waiting {
    struct waiting *next;
    uint64_t to;
    uint8_t mad[MAD_SIZE];
};

static struct waiting *first, **last = &first;
static unsigned count;

uint64_t mad_name_of(const char *arena)
{
    const struct pub_header *header = (const void *)arena;

    return process_name_of(header->slot % LIMIT_SLOTS, header->generation);
}

void mad_receive(const char *arena, const void *payload, size_t length)
{
    conn_receive(mad_name_of(arena), payload, length);
}

static int socket_to(uint64_t to, bool connect)
{
    int fd = guest_socket(to);

    return fd >= 0 ? fd : peer_socket(to, connect);
}

/* 0: it is on its way, or lost for good; -EAGAIN: later; -ESRCH: the process is gone. */
static int deliver_one(const struct waiting *waiting)
{
    struct shm_msg msg = {.type = SHM_MAD, .length = MAD_SIZE};

    if (waiting->to == process_name()) {
        conn_receive(waiting->to, waiting->mad, MAD_SIZE);
        return 0;
    }
    int fd = socket_to(waiting->to, true);
    if (fd < 0)
        return fd;
    int error = msg_send(fd, &msg, waiting->mad, MAD_SIZE, NULL, 0);
    if (error != -EAGAIN && error != -ENOBUFS)
        return 0;
    thread_wake_at(now_ns() + FULL_NS);
    return -EAGAIN;
}

static void append(struct waiting *waiting)
{
    waiting->next = NULL;
    *last = waiting;
    last = &waiting->next;
    count++;
}

/* Those of a process that must wait stay, in order; others may pass them. */
void mad_progress(void)
{
    uint64_t blocked[LIMIT_SLOTS / 64] = {0};
    struct waiting *next = first;

    first = NULL;
    last = &first;
    count = 0;
    for (struct waiting *waiting; (waiting = next);) {
        uint32_t slot = process_name_slot(waiting->to);
        uint64_t bit = 1ull << slot % 64;

        next = waiting->next;
        int error = blocked[slot / 64] & bit ? -EAGAIN : deliver_one(waiting);
        if (error == -EAGAIN) {
            blocked[slot / 64] |= bit;
            append(waiting);
            continue;
        }
        if (error == -ESRCH)
            conn_lost(waiting->to);
        free(waiting);
    }
}

/* Straight away if nothing waits and a socket is there; connecting is the engine thread's. */
static bool send_now(uint64_t to, const uint8_t *mad)
{
    struct shm_msg msg = {.type = SHM_MAD, .length = MAD_SIZE};
    int fd = first || to == process_name() ? -EAGAIN : socket_to(to, false);

    return fd >= 0 && msg_send(fd, &msg, mad, MAD_SIZE, NULL, 0) == 0;
}

void mad_send(uint64_t to, const uint8_t mad[MAD_SIZE])
{
    if (send_now(to, mad) || count >= WAITING_MAX)
        return;
    struct waiting *waiting = malloc(sizeof(*waiting));
    if (!waiting)
        return;
    waiting->to = to;
    memcpy(waiting->mad, mad, MAD_SIZE);
    append(waiting);
    thread_wake();
}

void mad_after_fork(void)
{
    while (first) {
        struct waiting *next = first->next;

        free(first);
        first = next;
    }
    last = &first;
    count = 0;
}
