/* SPDX-License-Identifier: MIT */
/*
 * Messages that must arrive, though the peer's socket may be full: its engine has not run for a
 * while, or it is stopped. The data path does not wait for it; the engine tries again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>

#include "link/shm/shm.h"

enum { AGAIN_NS = 1000000 };

struct letter {
    struct letter *next;
    struct shm_msg msg;
};

static _Atomic bool due;

static bool is_full(int error)
{
    return error == -EAGAIN || error == -ENOBUFS;
}

static void come_again(void)
{
    atomic_store(&due, true);
    thread_wake_at(now_ns() + AGAIN_NS);
}

/* Without memory the message is lost. */
static void put(struct outbox *outbox, const struct shm_msg *msg)
{
    struct letter **at = &outbox->first;
    struct letter *letter = malloc(sizeof(*letter));

    if (!letter)
        return;
    *letter = (struct letter){.msg = *msg};
    while (*at)
        at = &(*at)->next;
    *at = letter;
}

void peer_tell(struct peer *peer, const struct shm_msg *msg)
{
    struct outbox *outbox = &peer->outbox;

    spin_lock(&outbox->lock);
    bool later = outbox->first || is_full(msg_send(peer->watch.fd, msg, NULL, 0, NULL, 0, false));
    if (later)
        put(outbox, msg);
    spin_unlock(&outbox->lock);
    if (later)
        come_again();
}

bool outbox_due(void)
{
    return atomic_exchange(&due, false);
}

void outbox_flush(struct peer *peer)
{
    struct outbox *outbox = &peer->outbox;

    spin_lock(&outbox->lock);
    for (struct letter *letter; (letter = outbox->first);) {
        if (is_full(msg_send(peer->watch.fd, &letter->msg, NULL, 0, NULL, 0, false)))
            break;
        outbox->first = letter->next;
        free(letter);
    }
    bool again = outbox->first;
    spin_unlock(&outbox->lock);
    if (again)
        come_again();
}

void outbox_free(struct outbox *outbox)
{
    for (struct letter *letter = outbox->first, *next; letter; letter = next) {
        next = letter->next;
        free(letter);
    }
}
