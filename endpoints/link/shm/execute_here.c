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

/* ---- receives: their regions need not allow remote writes ---- */

/* The elements of the receive that the initiator has taken: claimed, or next in its own ring. */
static const struct pub_sge *receive_of(const struct pub_qp *from, uint32_t from_qpn,
                                        uint32_t *count_out)
{
    struct rq *rq = shm_claimed_ring(atomic_load(&from->claim_ring));
    uint32_t slot = atomic_load(&from->claim_slot), dest = PUB_READ(from->dest_qpn);

    if (!rq) {
        struct qp *qp =
            dest >> LIMIT_QP_BITS == process_slot() ? qp_at(dest & (LIMIT_QP - 1)) : NULL;

        if (!qp || !qp_has_rq(qp) || qp->rq.claim || qp->attr.dest_qp_num != from_qpn)
            return NULL;
        rq = &qp->rq;
        slot = PUB_READ(from->rq_head);
        if (slot == atomic_load(&rq->pub->tail))
            return NULL;
    }
    *count_out = rq->max_sge;
    return (rq->claim ? rq->slot_sges : rq->sges) + (size_t)(slot & rq->mask) * rq->max_sge;
}

/* Does what is asked lie in one element of that receive? Those have addresses as the region's. */
static bool is_receive(const struct pub_qp *from, uint32_t from_qpn, const struct shm_msg *ask,
                       const struct mr *mr)
{
    uint64_t at = ask->offset - mr->addr + mr->iova;
    uint32_t count = 0;
    const struct pub_sge *sges = receive_of(from, from_qpn, &count);

    for (uint32_t i = 0; sges && i < count; i++) {
        if (sges[i].lkey == ask->key && at >= sges[i].addr && ask->length <= sges[i].length &&
            at - sges[i].addr <= sges[i].length - ask->length)
            return true;
    }
    return false;
}

/* ---- keys ---- */

/* The message names our virtual address and the key that the initiator checked. */
static bool allowed(const struct pub_qp *from, uint32_t from_qpn, const struct shm_msg *ask)
{
    struct mr *mr = mr_get(ask->key >> 8);
    struct mw *mw = mw_get(ask->key >> 8);

    if (mw && mw->key == ask->key)
        mr = mw->mr;
    else if (!mr || mr->key != ask->key)
        return false;
    unsigned access = access_for(ask->op);
    if (!mr || ask->offset < mr->addr || ask->length > mr->length ||
        ask->offset - mr->addr > mr->length - ask->length)
        return false;
    return mw || (mr->access & access) ||
           (ask->op == SHM_OP_WRITE && (mr->access & IBV_ACCESS_LOCAL_WRITE) &&
            is_receive(from, from_qpn, ask, mr));
}

void execute_here(const struct pub_qp *from, uint32_t from_qpn, const struct shm_msg *ask,
                  const void *payload, struct shm_msg *answer, void *reply_payload,
                  size_t *reply_length)
{
    void *at = (void *)ask->offset;

    if (ask->length > SHM_PAYLOAD_MAX || !allowed(from, from_qpn, ask)) {
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
