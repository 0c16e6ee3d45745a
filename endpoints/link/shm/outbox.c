/* SPDX-License-Identifier: MIT */
/*
 * Messages that must arrive, though the other process's socket may be full: its engine has not run
 * for a while, or it is stopped. Nobody waits for it; the engine tries again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "link/shm/shm.h"

enum {
    AGAIN_NS = 1000000,
    /* Far more than one who asks and listens can be owed: this one only asks. */
    OUTBOX_BYTES_MAX = 1 << 26,
};

struct letter {
    struct letter *next;
    struct shm_msg msg;
    size_t length;
    char payload[];
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

static bool put(struct outbox *outbox, const struct shm_msg *msg, const void *payload,
                size_t length)
{
    struct letter **at = &outbox->first;
    size_t size = sizeof(struct letter) + length;
    struct letter *letter = outbox->bytes + size <= OUTBOX_BYTES_MAX ? malloc(size) : NULL;

    if (!letter)
        return false;
    *letter = (struct letter){.msg = *msg, .length = length};
    if (length)
        memcpy(letter->payload, payload, length);
    while (*at)
        at = &(*at)->next;
    *at = letter;
    outbox->bytes += size;
    return true;
}

/* *sent_out: at once. */
static bool deliver_letter(struct outbox *outbox, int fd, const struct shm_msg *msg,
                           const void *payload, size_t length, bool *sent_out)
{
    bool kept = true;

    spin_lock(&outbox->lock);
    bool later = outbox->first || is_full(msg_send(fd, msg, payload, length, NULL, 0));
    if (later)
        kept = put(outbox, msg, payload, length);
    spin_unlock(&outbox->lock);
    if (later)
        come_again();
    *sent_out = !later;
    return kept;
}

bool outbox_send(struct outbox *outbox, int fd, const struct shm_msg *msg, const void *payload,
                 size_t length)
{
    bool sent;

    return deliver_letter(outbox, fd, msg, payload, length, &sent);
}

bool peer_tell(struct peer *peer, const struct shm_msg *msg)
{
    bool sent;

    deliver_letter(&peer->outbox, peer->watch.fd, msg, NULL, 0, &sent);
    return sent;
}

bool outbox_due(void)
{
    return atomic_exchange(&due, false);
}

void outbox_flush(struct outbox *outbox, int fd)
{
    spin_lock(&outbox->lock);
    for (struct letter *letter; (letter = outbox->first);) {
        if (is_full(msg_send(fd, &letter->msg, letter->payload, letter->length, NULL, 0)))
            break;
        outbox->first = letter->next;
        outbox->bytes -= sizeof(*letter) + letter->length;
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
