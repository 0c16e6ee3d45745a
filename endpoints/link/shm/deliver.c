/* SPDX-License-Identifier: MIT */
/* Delivering: taking the target's next receive, and the one line that completes it. */
#define _GNU_SOURCE
#include "core/copy.h"
#include "core/cq_impl.h"
#include "core/rq_claim.h"
#include "link/shm/shm.h"

enum { RECEIVE_LOOKS = 64, CACHE_LINE = 64, WARM_MIN = 1024, WARM_MAX = 8192, WARM_POOL = 2 << 20 };

/* ---- taking a receive ---- */

static bool exclusive_next(struct target *target, const struct pub_sge **sges_out,
                           uint32_t *slot_out)
{
    uint32_t head = target->head;

    if (head == target->tail_seen) {
        /* Pairs with rq_post(): the WQE is there once the tail has passed it. */
        target->tail_seen = atomic_load_explicit(&target->rq->tail, memory_order_acquire);
        if (head == target->tail_seen)
            return false;
    }
    *sges_out = &target->sges[(size_t)(head & target->rq_mask) * target->rq_sge];
    *slot_out = head & target->rq_mask;
    return true;
}

static bool shared_claim(struct qp *qp, struct target *target)
{
    struct claimed *claimed = &qp->claimed;
    struct rq_view ring = {target->rq,    target->sges,    target->slots,
                           target->claim, target->rq_mask, target->rq_sge};
    bool low;

    if (!rq_claim(&ring, claimed->sges, &claimed->slot, &low))
        return false;
    claimed->valid = true;
    rq_note_claim(qp->pub, target->ring, claimed->slot);
    if (low)
        tell_srq(target);
    return true;
}

/*
 * A receiver that keeps up posts the next receive within a microsecond: a look is cheaper than a
 * stall. One that did not is not waited for again until it has posted some.
 */
static bool wait_a_moment(struct qp *qp, struct target *target, const struct pub_sge **sges_out,
                          uint32_t *slot_out)
{
    if (qp->rnr_hurried || qp->rnr_tries || !qp->reliable || target->peer->self)
        return false;
    for (unsigned i = 0; i < RECEIVE_LOOKS; i++) {
        cpu_relax();
        if (exclusive_next(target, sges_out, slot_out))
            return true;
    }
    qp->rnr_hurried = true;
    return false;
}

bool receive_next(struct qp *qp, struct target *target, const struct pub_sge **sges_out,
                  uint32_t *slot_out)
{
    if (__builtin_expect(!target->claim, 1)) {
        if (__builtin_expect(!exclusive_next(target, sges_out, slot_out), 0))
            return wait_a_moment(qp, target, sges_out, slot_out);
        qp->rnr_hurried = false;
        return true;
    }
    if (!qp->claimed.valid && !shared_claim(qp, target))
        return false;
    *sges_out = qp->claimed.sges;
    *slot_out = qp->claimed.slot;
    return true;
}

void receive_taken(struct qp *qp, struct target *target)
{
    if (__builtin_expect(target->claim == NULL, 1)) {
        qp->pub->rq_head = ++target->head;
        return;
    }
    qp->claimed.valid = false;
    atomic_store_explicit(&qp->pub->claim_ring, 0, memory_order_relaxed);
}

/* The next receive, if so many are posted that their memory can't be in the cache. */
static const struct pub_sge *next_of_many(const struct target *target, uint64_t length)
{
    uint32_t head = target->claim
                        ? (uint32_t)atomic_load_explicit(target->claim, memory_order_relaxed)
                        : target->head;
    uint32_t posted = atomic_load_explicit(&target->rq->tail, memory_order_acquire) - head;

    if (posted * length < WARM_POOL)
        return NULL;
    return &target->sges[(size_t)(head & target->rq_mask) * target->rq_sge];
}

void receive_warm(struct target *target, uint64_t length)
{
    if (__builtin_expect(length < WARM_MIN || length > WARM_MAX, 1))
        return;
    const struct pub_sge *sge = next_of_many(target, length);
    if (!sge || sge->length < length)
        return;
    uint64_t there =
        target_mr(target, target->rq_pd, sge->lkey, sge->addr, length, IBV_ACCESS_LOCAL_WRITE);
    const char *memory = there ? move_direct(target->peer, there, length) : NULL;
    for (uint64_t at = 0; memory && at < length; at += CACHE_LINE)
        __builtin_prefetch(memory + at, 1);
}

void receive_abandon(struct qp *qp)
{
    struct shm_msg msg = {.type = SHM_RECLAIM};
    uint32_t slot = pub_ring_slot(atomic_load(&qp->pub->claim_ring));

    if (!qp->claimed.valid)
        return;
    qp->claimed.valid = false;
    atomic_store(&qp->pub->claim_ring, 0);
    struct peer *peer = peer_get(slot);
    if (peer && peer->self)
        shm_reclaim_soon();
    else if (peer)
        peer_tell(peer, &msg);
}

/* ---- completing it ---- */

static void fill(struct cqe *slot, const struct qp *qp, const struct target *target,
                 const struct delivery *delivery)
{
    slot->kind = CQE_RECV;
    slot->opcode = delivery->opcode;
    slot->status = delivery->status;
    slot->flags = delivery->flags;
    slot->qp = target->cookie;
    slot->wqe = delivery->slot;
    slot->byte_len = delivery->byte_len;
    slot->imm = delivery->imm;
    slot->src_qp = qp->shown_qpn;
    slot->sl = delivery->sl;
    slot->inline_len = (uint8_t)delivery->inline_length;
    if (delivery->inline_length)
        copy_small(slot->data, delivery->inline_data, delivery->inline_length);
}

static void announce(struct target *target, const struct delivery *delivery, uint32_t at)
{
    uint64_t armed = atomic_load_explicit(&target->lane->bell->armed, memory_order_acquire);
    bool loud = delivery->flags & CQE_SOLICITED || delivery->status != IBV_WC_SUCCESS;

    if (__builtin_expect(!(armed & CQ_ARMED_MASK), 1))
        return;
    if (target->peer->self)
        cq_notify_own(cq_get(target->pub->recv_cq), armed, at, loud);
    else
        ring(target, armed, at, loud);
}

/* Ask the target's engine to make room, once for each position at which the lane was full. */
static void ask_drain(struct target *target)
{
    struct lane_out *lane = target->lane;
    struct shm_msg msg = {.type = SHM_DRAIN, .index = lane->cq_index};

    spin_lock(&lane->lock);
    msg.id = lane->tail;
    if (lane->drain_asked != lane->tail + 1 && peer_send(target->peer, &msg, NULL, 0))
        lane->drain_asked = lane->tail + 1;
    spin_unlock(&lane->lock);
}

static bool push(struct qp *qp, struct target *target, const struct delivery *delivery)
{
    struct cqe *slot = lane_begin(target->lane);

    if (!slot)
        return false;
    fill(slot, qp, target, delivery);
    announce(target, delivery, lane_end(target->lane, slot));
    return true;
}

/* Our own process makes room itself. */
static void push_own(struct qp *qp, struct target *target, const struct delivery *delivery)
{
    struct cq *cq = cq_get(target->pub->recv_cq);
    struct cqe *slot = cq_push_begin(cq);

    if (!slot)
        return; /* the CQ is overrun, the completion lost */
    fill(slot, qp, target, delivery);
    cq_push_end(cq, slot);
}

bool deliver(struct qp *qp, struct target *target, const struct delivery *delivery)
{
    if (__builtin_expect(push(qp, target, delivery), 1))
        return true;
    if (target->peer->self) {
        push_own(qp, target, delivery);
        return true;
    }
    ask_drain(target);
    qp->stall = STALL_LANE;
    return false;
}

/* ---- telling the target's engine ---- */

void tell_error(struct target *target, int event)
{
    struct shm_msg msg = {
        .type = SHM_QP_ERROR, .index = target->qpn, .gen = target->cookie, .status = event};

    if (target->peer->self) {
        struct qp *qp = qp_get(target->qpn & (LIMIT_QP - 1));

        if (qp && qp->pub->cookie == target->cookie)
            qp_fail(qp, event);
        return;
    }
    peer_tell(target->peer, &msg);
}

void tell_first(struct target *target)
{
    struct shm_msg msg = {.type = SHM_FIRST, .index = target->qpn, .gen = target->cookie};

    target->in_rtr = false;
    if (!target->peer->self) {
        peer_tell(target->peer, &msg);
        return;
    }
    struct qp *qp = qp_get(target->qpn & (LIMIT_QP - 1));

    if (qp && qp->pub->cookie == target->cookie)
        qp_established(qp);
}

void tell_srq(struct target *target)
{
    struct shm_msg msg = {.type = SHM_SRQ_LIMIT};

    if (target->peer->self)
        thread_wake();
    else
        msg_send(target->peer->watch.fd, &msg, NULL, 0, NULL, 0);
}
