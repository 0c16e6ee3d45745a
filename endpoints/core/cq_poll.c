/* SPDX-License-Identifier: MIT */
/* Completion queues, data path: spilling, pushing and polling. cq_event.c has the events. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/cq_impl.h"
#include "core/mr_bind.h"
#include "core/state.h"
#include "core/requester.h"

static uint64_t wall_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

void cqe_stamp(struct cqe *cqe)
{
    uint64_t now = wall_clock_ns();

    memcpy(cqe->data + CQE_STAMP_AT, &now, sizeof(now));
}

/* ---- from a completion line to struct ibv_wc ---- */

static unsigned wc_flags(const struct cqe *cqe)
{
    unsigned flags = 0;

    if (cqe->flags & CQE_IMM)
        flags |= IBV_WC_WITH_IMM;
    if (cqe->flags & CQE_INV)
        flags |= IBV_WC_WITH_INV;
    if (cqe->flags & CQE_GRH)
        flags |= IBV_WC_GRH;
    return flags;
}

/*
 * In RTR: what came first on a connection; and all that an XRC SRQ receives, for the queue pair
 * that the initiator is connected to.
 */
static void first_receive(struct qp *qp, struct ibv_wc *wc)
{
    if (qp->type == QPT_XRC_SRQ)
        wc->qp_num = wc->src_qp;
    else if (qp_is_connected_type(qp))
        qp_established(qp);
}

/* An initiator may be hostile: every number is checked before it is used. */
static bool resolve_recv(struct qp *qp, const struct cqe *cqe, bool hold, struct ibv_wc *wc)
{
    struct rq *rq = qp_rq(qp);
    uint32_t slot = cqe->wqe, inline_len = cqe->inline_len;

    if (!rq->wr_ids)
        return false;
    /* Whoever posted it did so before; the initiator saw that, and this thread by this load. */
    (void)atomic_load_explicit(&rq->pub->tail, memory_order_acquire);
    if (__builtin_expect(qp_state(qp) == IBV_QPS_RTR, 0))
        first_receive(qp, wc);
    if (cqe->flags & CQE_INV)
        mw_invalidate(qp->qpn, qp->pd, cqe->imm);
    if (inline_len && inline_len <= CQE_INLINE_MAX && wc->status == IBV_WC_SUCCESS &&
        !rq_place(rq, slot, cqe->data, inline_len)) {
        wc->status = IBV_WC_LOC_PROT_ERR;
        qp_fail(qp, 0);
    }
    return rq_complete(rq, slot, hold, &wc->wr_id);
}

/* Whose it is, or NULL: of a queue pair that is gone or was reset since, or not this lane's to say.
 */
static inline struct qp *owner(const struct cq *cq, const struct lane_in *lane,
                               const struct cqe *cqe)
{
    struct qp *qp = qp_get(cqe->qp & (LIMIT_QP - 1));

    if (!qp || qp->pub->cookie != cqe->qp)
        return NULL;
    if (cqe->kind == CQE_RECV)
        return qp->recv_cq == cq ? qp : NULL;
    return qp->send_cq == cq && !lane->guest ? qp : NULL;
}

/*
 * What the program gets. Its place in the receive queue, or in the send queue with those of the
 * unsignalled ones before it, is free with that; or (hold) it is freed with release_place().
 */
static inline bool resolve(struct qp *qp, const struct cqe *cqe, bool hold, struct ibv_wc *wc)
{
    wc->status = cqe->status;
    wc->opcode = cqe->opcode;
    wc->vendor_err = 0;
    wc->byte_len = cqe->byte_len;
    wc->imm_data = cqe->imm;
    wc->qp_num = qp->qpn;
    wc->src_qp = cqe->src_qp;
    wc->wc_flags = wc_flags(cqe);
    wc->pkey_index = 0;
    wc->slid = 0;
    wc->sl = cqe->sl;
    wc->dlid_path_bits = 0;
    if (cqe->kind == CQE_RECV)
        return resolve_recv(qp, cqe, hold, wc);
    wc->wr_id = cqe->wr_id;
    if (!hold)
        atomic_store_explicit(&qp->sq_freed, cqe->wqe, memory_order_release);
    return true;
}

static inline const struct cqe *lane_next(const struct lane_in *lane)
{
    const struct cqe *cqe = &lane->ring[lane->head & lane->mask];

    return atomic_load_explicit(&cqe->seq, memory_order_acquire) == lane->head + 1 ? cqe : NULL;
}

static inline void lane_advance(struct lane_in *lane)
{
    atomic_store_explicit(&lane->pub->head, ++lane->head, memory_order_release);
}

/* ---- the spill ---- */

static bool spill_grow(struct spill *spill)
{
    uint32_t room = spill->room ? 2 * spill->room : 256;
    struct spilled *ring = malloc(room * sizeof(*ring));

    if (!ring)
        return false;
    for (uint32_t i = 0; i < spill->count; i++)
        ring[i] = spill->ring[(spill->head + i) % spill->room];
    free(spill->ring);
    spill->ring = ring;
    spill->head = 0;
    spill->room = room;
    return true;
}

static bool spill_has_room(struct spill *spill)
{
    return spill->count < spill->room || spill_grow(spill);
}

static struct spilled *spill_at(struct spill *spill, uint32_t i)
{
    return &spill->ring[(spill->head + i) % spill->room];
}

static void spill_add(struct spill *spill)
{
    spill->count++;
    spill->total++;
}

static void release_place(const struct spilled *spilled)
{
    struct qp *qp = qp_get(spilled->qp & (LIMIT_QP - 1));

    if (qp && spilled->frees == FREES_RECV)
        rq_release(qp_rq(qp), spilled->place);
    else if (qp && spilled->frees == FREES_SEND)
        atomic_store_explicit(&qp->sq_freed, spilled->place, memory_order_release);
}

static void spill_get(struct spill *spill, struct completion *completion_out)
{
    struct spilled *spilled = spill_at(spill, 0);

    *completion_out = spilled->completion;
    release_place(spilled);
    spill->head = (spill->head + 1) % spill->room;
    spill->count--;
}

static uint64_t timestamp(const struct cq *cq, const struct cqe *cqe)
{
    uint64_t stamp = 0;

    if (cq->stamp)
        memcpy(&stamp, cqe->data + CQE_STAMP_AT, sizeof(stamp));
    return stamp;
}

/* Where there is room in the spill. */
static void spill_cqe(struct cq *cq, const struct lane_in *lane, const struct cqe *cqe)
{
    struct spilled *spilled = spill_at(&cq->spill, cq->spill.count);
    struct qp *qp = owner(cq, lane, cqe);

    if (!qp)
        return;
    spilled->qp = qp->pub->cookie;
    spilled->place = cqe->wqe;
    spilled->frees = cqe->kind == CQE_RECV ? FREES_RECV : FREES_SEND;
    spilled->completion.timestamp_ns = timestamp(cq, cqe);
    if (resolve(qp, cqe, true, &spilled->completion.wc))
        spill_add(&cq->spill);
}

/* Up to so many in the spill, however fast the lanes fill. True: something is left behind. */
static bool drain_within(struct cq *cq, uint32_t limit)
{
    for (unsigned i = 0; i < cq->lane_count; i++) {
        struct lane_in *lane = cq->lanes[i];

        for (const struct cqe *cqe; (cqe = lane_next(lane)); lane_advance(lane)) {
            if (cq->spill.count >= limit && owner(cq, lane, cqe))
                return true;
            if (!spill_has_room(&cq->spill))
                return false;
            spill_cqe(cq, lane, cqe);
        }
    }
    return false;
}

void cq_drain_locked(struct cq *cq)
{
    drain_within(cq, UINT32_MAX);
}

void cq_drain(struct cq *cq)
{
    spin_lock(&cq->lock);
    cq_drain_locked(cq);
    spin_unlock(&cq->lock);
}

void cq_set_overrun(struct cq *cq)
{
    if (atomic_exchange(&cq->overrun, true))
        return;
    atomic_store(&cq->overrun_due, true);
    cq_due();
}

void cq_make_room(struct cq *cq)
{
    spin_lock(&cq->lock);
    bool full = drain_within(cq, cq->cqe) || cq->spill.count >= cq->cqe;
    spin_unlock(&cq->lock);
    if (full)
        cq_set_overrun(cq);
}

static bool still_waits(const struct cq *cq, const void *guest, uint32_t tail)
{
    const struct lane_in *lane = cq_lane_of(cq, guest);

    return lane && lane->head == tail;
}

void cq_make_room_for(struct cq *cq, const void *guest, uint32_t tail)
{
    spin_lock(&cq->lock);
    bool full =
        drain_within(cq, cq->cqe) || (cq->spill.count >= cq->cqe && still_waits(cq, guest, tail));
    spin_unlock(&cq->lock);
    if (full)
        cq_set_overrun(cq);
}

/* ---- pushing ---- */

void cq_push_last(struct cq *cq, const struct qp *qp, const struct completion *completion)
{
    spin_lock(&cq->lock);
    cq_drain_locked(cq);
    bool fits = cq->spill.count < cq->cqe && !cq->overrun && spill_has_room(&cq->spill);
    if (fits) {
        *spill_at(&cq->spill, cq->spill.count) =
            (struct spilled){.completion = *completion, .qp = qp->pub->cookie};
        spill_add(&cq->spill);
    }
    spin_unlock(&cq->lock);
    if (fits)
        cq_notify_flushed(cq);
    else
        cq_set_overrun(cq);
}

/* ---- polling ---- */

static inline int poll_lane(struct cq *cq, struct lane_in *lane, int n, struct ibv_wc *wc)
{
    const struct cqe *cqe;
    int got = 0;

    while (got < n && (cqe = lane_next(lane))) {
        struct qp *qp = owner(cq, lane, cqe);

        if (qp && resolve(qp, cqe, false, &wc[got]))
            got++;
        lane_advance(lane);
    }
    return got;
}

static int poll_spill(struct cq *cq, int n, struct ibv_wc *wc)
{
    struct completion completion;
    int got = 0;

    while (got < n && cq->spill.count) {
        spill_get(&cq->spill, &completion);
        wc[got++] = completion.wc;
    }
    return got;
}

/* Each lane has its turn: one that is never empty must not keep the others from being polled. */
static inline struct lane_in *next_lane(struct cq *cq)
{
    if (cq->turn >= cq->lane_count)
        cq->turn = 0;
    return cq->lanes[cq->turn++];
}

int cq_poll(struct cq *cq, int n, struct ibv_wc *wc)
{
    requester_poll();
    spin_lock(&cq->lock);
    int got = cq->spill.count ? poll_spill(cq, n, wc) : 0;
    for (unsigned i = 0; i < cq->lane_count && got < n; i++)
        got += poll_lane(cq, next_lane(cq), n - got, wc + got);
    spin_unlock(&cq->lock);
    return got;
}

void cq_poll_lock(struct cq *cq)
{
    requester_poll();
    spin_lock(&cq->lock);
}

void cq_poll_unlock(struct cq *cq)
{
    spin_unlock(&cq->lock);
}

int cq_poll_one(struct cq *cq, struct completion *completion_out)
{
    if (cq->spill.count) {
        spill_get(&cq->spill, completion_out);
        return 1;
    }
    for (unsigned i = 0; i < cq->lane_count; i++) {
        struct lane_in *lane = next_lane(cq);

        for (const struct cqe *cqe; (cqe = lane_next(lane));) {
            completion_out->timestamp_ns = timestamp(cq, cqe);
            struct qp *qp = owner(cq, lane, cqe);
            bool good = qp && resolve(qp, cqe, false, &completion_out->wc);
            lane_advance(lane);
            if (good)
                return 1;
        }
    }
    return 0;
}

/* Completions of a queue pair that goes: lanes drop theirs by the cookie, the spill here. */
void cq_forget_qp(struct cq *cq, uint32_t cookie)
{
    struct spill *spill = &cq->spill;
    uint32_t kept = 0;

    spin_lock(&cq->lock);
    for (uint32_t i = 0; i < spill->count; i++) {
        struct spilled *spilled = spill_at(spill, i);

        if (spilled->qp == cookie)
            release_place(spilled);
        else
            *spill_at(spill, kept++) = *spilled;
    }
    spill->count = kept;
    spin_unlock(&cq->lock);
}
