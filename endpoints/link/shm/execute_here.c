/* SPDX-License-Identifier: MIT */
/* What a guest asks us to do because it can't reach our memory: checked again, then done here. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "link/shm/shm.h"

static unsigned access_for(uint32_t op)
{
    switch (op) {
    case SHM_OP_WRITE:
        return IBV_ACCESS_REMOTE_WRITE;
    case SHM_OP_READ:
        return IBV_ACCESS_REMOTE_READ;
    default:
        return IBV_ACCESS_REMOTE_ATOMIC;
    }
}

/*
 * The message names our virtual address and the key that the initiator checked. A receive buffer's
 * region need not allow remote writes: then local write is what counts.
 */
static bool allowed(const struct shm_msg *ask)
{
    struct mr *mr = mr_get(ask->key >> 8);
    struct mw *mw = mw_get(ask->key >> 8);

    if (mw && mw->key == ask->key)
        mr = mw->mr;
    else if (!mr || mr->key != ask->key)
        return false;
    unsigned access = access_for(ask->op);
    if (!mr || (!mw && !(mr->access & access) &&
                !(ask->op == SHM_OP_WRITE && (mr->access & IBV_ACCESS_LOCAL_WRITE))))
        return false;
    return ask->offset >= mr->addr && ask->length <= mr->length &&
           ask->offset - mr->addr <= mr->length - ask->length;
}

void execute_here(const struct shm_msg *ask, const void *payload, struct shm_msg *answer,
                  void *reply_payload, size_t *reply_length)
{
    void *at = (void *)ask->offset;

    if (ask->length > SHM_PAYLOAD_MAX || !allowed(ask)) {
        answer->status = -EACCES;
        return;
    }
    if (ask->op == SHM_OP_WRITE) {
        memcpy(at, payload, ask->length);
    } else if (ask->op == SHM_OP_READ) {
        memcpy(reply_payload, at, ask->length);
        *reply_length = ask->length;
    } else if (ask->offset % 8 == 0 && ask->length == 8) {
        answer->value[0] =
            move_atomic_here(at, ask->op == SHM_OP_ADD, ask->value[0], ask->value[1]);
    } else {
        answer->status = -EINVAL;
    }
}
