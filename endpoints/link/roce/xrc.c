/* SPDX-License-Identifier: MIT */
/*
 * XRC from the wire: a queue pair receives, and each request names the SRQ that it is for, which
 * may be another process's of this host. There we do as one who sends to it over shared memory
 * would: take its receive, look its keys up, move the bytes, write into our lane to its CQ.
 *
 *   packet -> transport --aim--> struct target of the SRQ (link/shm/target.c) -> local(), far() ...
 *
 * What has to wait for that process counts as a packet that was lost: its sender sends it again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/requester.h"
#include "link/roce/roce_impl.h"
#include "link/shm/shm.h"

enum { AGAIN_NS = 1000000 };

struct roce_xrc {
    struct target *target; /* whom aim() has found */
    /* far(): moves of one packet, of which qp->wqe_done_bytes are done */
    uint64_t at;          /* bytes that this packet's moves so far are of */
    uint64_t addr;        /* of its first */
    bool unfinished;      /* the last one is to be tried again */
    bool answer, atomic;  /* and it was a READ's, or can't be done twice */
    struct delivery owed; /* a completion that found its lane full */
    uint32_t owed_srqn;   /* 0: none */
    uint8_t read[WIRE_PAYLOAD_MAX];
};

static _Atomic bool owed_by_some;

/* ---- whose it is ---- */

/* NULL: qp->stall says whether it is to be reached later. */
static struct target *reach(struct qp *qp, uint32_t srqn)
{
    const uint8_t *own = qp->context->nic->gids[qp->attr.ah_attr.grh.sgid_index].raw;
    struct target *target = target_of_many(qp, own, srqn);

    qp->stall = STALL_NONE;
    return target_reach(qp, target) ? target : NULL;
}

/* Write the completion that is owed. False: its lane is full still. */
static bool pay(struct qp *qp, struct roce_xrc *xrc)
{
    if (!qp->claimed.valid)
        xrc->owed_srqn = 0; /* its receive went back, or went with its owner */
    if (!xrc->owed_srqn)
        return true;
    struct target *target = reach(qp, xrc->owed_srqn);
    bool gone = qp->stall == STALL_ATTACH;
    bool paid = target && deliver(qp, target, &xrc->owed);
    qp->stall = STALL_NONE;
    if (!paid && !gone) {
        atomic_store(&owed_by_some, true);
        thread_wake_at(now_ns() + AGAIN_NS);
        return false;
    }
    xrc->owed_srqn = 0;
    if (paid)
        receive_taken(qp, target);
    else
        receive_abandon(qp);
    return true;
}

static enum transport_aim aim(void *owner, uint32_t srqn)
{
    struct qp *qp = owner;
    struct roce_xrc *xrc = roce_qp_xrc(qp);

    xrc->at = 0;
    if (!pay(qp, xrc))
        return AIM_LATER;
    xrc->target = reach(qp, srqn);
    bool absent = qp->stall == STALL_ATTACH;
    qp->stall = STALL_NONE;
    if (!xrc->target)
        return absent ? AIM_NONE : AIM_LATER;
    return xrc->target->peer->self ? AIM_HERE : AIM_FAR;
}

/* ---- memory ---- */

static uint64_t find(const struct target *target, enum transport_far_op op, uint32_t key,
                     uint64_t addr, uint64_t length)
{
    static const unsigned access[] = {[FAR_PLACE] = IBV_ACCESS_LOCAL_WRITE,
                                      [FAR_WRITE] = IBV_ACCESS_REMOTE_WRITE,
                                      [FAR_READ] = IBV_ACCESS_REMOTE_READ,
                                      [FAR_FETCH_ADD] = IBV_ACCESS_REMOTE_ATOMIC,
                                      [FAR_COMPARE_SWAP] = IBV_ACCESS_REMOTE_ATOMIC};

    return target_mr(target, op == FAR_PLACE ? target->rq_pd : target->pd, key, addr, length,
                     access[op]);
}

static void *local(void *owner, uint32_t key, uint64_t addr, uint64_t length, bool write)
{
    (void)write; /* there is nothing to send */
    return (void *)find(roce_qp_xrc(owner)->target, FAR_PLACE, key, addr, length);
}

static void *remote(void *owner, uint32_t key, uint64_t addr, uint64_t length,
                    enum transport_access access)
{
    enum transport_far_op op = access == TRANSPORT_REMOTE_WRITE  ? FAR_WRITE
                               : access == TRANSPORT_REMOTE_READ ? FAR_READ
                                                                 : FAR_FETCH_ADD;

    return (void *)find(roce_qp_xrc(owner)->target, op, key, addr, length);
}

static bool may_invalidate(void *owner, uint32_t key)
{
    return target_may_invalidate(roce_qp_xrc(owner)->target, key);
}

/* ---- memory of another process ---- */

static enum move move_atomic_far(struct qp *qp, struct peer *peer, uint64_t there,
                                 struct transport_far *what)
{
    bool add = what->op == FAR_FETCH_ADD;
    struct ibv_send_wr wr = {.opcode =
                                 add ? IBV_WR_ATOMIC_FETCH_AND_ADD : IBV_WR_ATOMIC_CMP_AND_SWP};

    wr.wr.atomic.compare_add = add ? what->swap_add : what->compare;
    wr.wr.atomic.swap = what->swap_add;
    enum move moved = move_atomic(qp, peer, there, &wr, &what->before);
    if (moved == MOVE_DONE)
        qp->wqe_done_bytes += what->length;
    return moved;
}

static enum move move_far(struct qp *qp, struct roce_xrc *xrc, uint64_t there, uint64_t skip,
                          struct transport_far *what)
{
    struct peer *peer = xrc->target->peer;
    uint64_t length = what->length - skip;

    qp->remote_key = what->key;
    switch (what->op) {
    case FAR_PLACE:
    case FAR_WRITE:
        return move_out(qp, peer, there + skip, what->bytes + skip, length);
    case FAR_READ:
        what->bytes = xrc->read;
        return move_in(qp, peer, xrc->read + skip, there + skip, length);
    default:
        return move_atomic_far(qp, peer, there, what);
    }
}

/*
 * Another packet's moves begin, an answer's perhaps, while one is unfinished: its rest is dropped,
 * to be done from the start when it comes again. False: not while that process is at it, nor if
 * it must not be done twice.
 */
static bool may_begin(struct qp *qp, struct roce_xrc *xrc, const struct transport_far *what)
{
    bool same = xrc->answer == (what->op == FAR_READ) && (xrc->at || xrc->addr == what->addr);

    if (xrc->unfinished && !same) {
        if (qp->remote_op && (xrc->atomic || qp->remote_status == -EINPROGRESS))
            return false;
        requester_drop_remote(qp);
        xrc->unfinished = false;
    }
    if (!xrc->unfinished && !xrc->at)
        qp->wqe_done_bytes = 0;
    if (!xrc->at)
        xrc->addr = what->addr;
    return true;
}

static enum transport_far_result far(void *owner, struct transport_far *what)
{
    struct qp *qp = owner;
    struct roce_xrc *xrc = roce_qp_xrc(qp);
    uint64_t there = find(xrc->target, what->op, what->key, what->addr, what->length);
    uint64_t end = xrc->at + what->length;

    if (!there)
        return FAR_REFUSED;
    if (!may_begin(qp, xrc, what))
        return FAR_LATER;
    uint64_t skip = qp->wqe_done_bytes > xrc->at ? qp->wqe_done_bytes - xrc->at : 0;
    enum move moved = skip < what->length ? move_far(qp, xrc, there, skip, what) : MOVE_DONE;
    qp->stall = STALL_NONE;
    xrc->unfinished = moved == MOVE_STALL || qp->wqe_done_bytes > end;
    xrc->answer = what->op == FAR_READ;
    xrc->atomic = what->op == FAR_FETCH_ADD || what->op == FAR_COMPARE_SWAP;
    if (moved != MOVE_DONE)
        return moved == MOVE_STALL ? FAR_LATER : FAR_REFUSED;
    xrc->at = end;
    return FAR_DONE;
}

/* ---- receives ---- */

static bool take(void *owner, struct transport_recv *recv_out)
{
    struct qp *qp = owner;
    struct target *target = roce_qp_xrc(qp)->target;
    const struct pub_sge *sges;

    if (!receive_next(qp, target, &sges, &recv_out->slot))
        return false;
    roce_copy_receive(recv_out, sges, target->rq_sge);
    return true;
}

static uint32_t receives(void *owner)
{
    (void)owner;
    return UINT32_MAX;
}

static void deliver_arrival(void *owner, const struct transport_arrival *arrival)
{
    struct qp *qp = owner;
    struct roce_xrc *xrc = roce_qp_xrc(qp);

    xrc->owed = (struct delivery){
        .opcode = arrival->flags & ARRIVAL_WRITE ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV,
        .status = (uint8_t)arrival->status,
        .flags = (uint8_t)(arrival->flags & (CQE_IMM | CQE_INV | CQE_SOLICITED)),
        .byte_len = arrival->byte_len,
        .imm = arrival->imm,
        .slot = arrival->slot,
    };
    xrc->owed_srqn = arrival->xrc_srqn;
    pay(qp, xrc);
}

static void fail(void *owner, enum transport_failure failure)
{
    roce_calls.fail(owner, failure);
}

const struct transport_calls roce_xrc_calls = {
    .local = local,
    .remote = remote,
    .may_invalidate = may_invalidate,
    .take = take,
    .receives = receives,
    .deliver = deliver_arrival,
    .aim = aim,
    .far = far,
    .fail = fail,
};

/* ---- life ---- */

int roce_xrc_new(struct qp *qp, struct roce_xrc **xrc_out)
{
    if (!qp->ud)
        qp->ud = calloc(UD_TARGETS, sizeof(*qp->ud));
    *xrc_out = qp->ud ? calloc(1, sizeof(**xrc_out)) : NULL;
    return *xrc_out ? 0 : -ENOMEM;
}

void roce_xrc_progress(void)
{
    if (!atomic_exchange(&owed_by_some, false))
        return;
    for (uint32_t i = 1; i < qp_high(); i++) {
        struct qp *qp = qp_at(i);

        if (!qp || qp->type != IBV_QPT_XRC_RECV)
            continue;
        spin_lock_word(&qp->pub->busy);
        if (qp->wire)
            pay(qp, roce_qp_xrc(qp));
        spin_unlock_word(&qp->pub->busy);
    }
}
