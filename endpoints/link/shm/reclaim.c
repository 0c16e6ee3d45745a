/* SPDX-License-Identifier: MIT */
/*
 * Giving back what the dead had claimed. An initiator takes a receive of a shared ring by moving
 * the head; if it is killed before it has completed it, nobody ever will. So when a process dies,
 * its targets look at every receive that is claimed and not yet polled:
 *
 *   suspect all of them --quiesce--> acquit who is in a lane, or held by a queue pair that waits
 *                                      `--> the rest goes back to the end of the ring
 *
 * Quiescing makes it exact: each initiator was between two WQEs once, where all that it had claimed
 * until then is in a lane, or noted in its pub_qp. What is claimed later is not suspect.
 */
#include "core/cq_impl.h"
#include "link/shm/shm.h"

enum { AGAIN_NS = 1000000000 };

static _Atomic bool due;

/* True if act() was for any. */
static bool each_shared(bool (*act)(struct rq *rq, bool argument), bool argument)
{
    bool any = false;

    for (struct srq *srq = srq_list(); srq; srq = srq->next)
        any = act(&srq->rq, argument) || any;
    for (uint32_t i = 1; i < qp_high(); i++) {
        struct qp *qp = qp_at(i);

        if (qp && qp->rq.claim)
            any = act(&qp->rq, argument) || any;
    }
    return any;
}

static bool suspect(struct rq *rq, bool unused)
{
    (void)unused;
    return rq_suspect(rq);
}

struct rq *shm_claimed_ring(uint32_t ring)
{
    if (!ring || pub_ring_slot(ring) != process_slot())
        return NULL;
    for (struct srq *srq = srq_list(); srq; srq = srq->next) {
        if (pub_ring_id(process_slot(), srq->rq.pub->claim) == ring)
            return &srq->rq;
    }
    for (uint32_t i = 1; i < qp_high(); i++) {
        struct qp *qp = qp_at(i);

        if (qp && qp->rq.claim && pub_ring_id(process_slot(), qp->rq.pub->claim) == ring)
            return &qp->rq;
    }
    return NULL;
}

static void acquit_held(const struct pub_qp *qp)
{
    uint32_t ring = atomic_load_explicit(&qp->claim_ring, memory_order_acquire);
    struct rq *rq = shm_claimed_ring(ring);

    if (rq)
        rq_acquit(rq, atomic_load_explicit(&qp->claim_slot, memory_order_relaxed));
}

static void acquit_in_lane(const struct lane_in *lane)
{
    for (uint32_t at = lane->head; at - lane->head <= lane->mask; at++) {
        const struct cqe *cqe = &lane->ring[at & lane->mask];

        if (atomic_load_explicit(&cqe->seq, memory_order_acquire) != at + 1)
            return;
        struct qp *qp = qp_at(cqe->qp & (LIMIT_QP - 1));
        if (cqe->kind == CQE_RECV && qp && qp_rq(qp)->claim)
            rq_acquit(qp_rq(qp), cqe->wqe);
    }
}

static void acquit_completed(struct cq *cq)
{
    spin_lock(&cq->lock);
    for (unsigned i = 0; i < cq->lane_count; i++)
        acquit_in_lane(cq->lanes[i]);
    spin_unlock(&cq->lock);
}

/* A UD queue pair in the error state flushes what comes back. */
static void flush_reclaimed(void)
{
    for (uint32_t i = 1; i < qp_high(); i++) {
        struct qp *qp = qp_at(i);

        if (qp && qp->rq.claim && qp_state(qp) == IBV_QPS_ERR)
            qp_fail(qp, 0);
    }
}

void shm_reclaim(void)
{
    if (!each_shared(suspect, false))
        return;
    bool sure = guest_quiesce(0);
    /* In this order: what a queue pair lets go of after we looked is in a lane. */
    guest_each_initiator(acquit_held);
    for (struct cq *cq = cq_list(); cq; cq = cq->next)
        acquit_completed(cq);
    if (!each_shared(rq_reclaim, sure))
        return;
    if (sure) {
        flush_reclaimed();
    } else {
        atomic_store(&due, true); /* a stopped process may hold it: see later */
        thread_wake_at(now_ns() + AGAIN_NS);
    }
}

void shm_reclaim_soon(void)
{
    atomic_store(&due, true);
    thread_wake();
}

void shm_reclaim_due(void)
{
    if (atomic_exchange(&due, false))
        shm_reclaim();
}
