/* SPDX-License-Identifier: MIT */
/* Completion queues inside: what cq.c, cq_poll.c and the shm link share. */
#ifndef VIADUCT_CORE_CQ_IMPL_H
#define VIADUCT_CORE_CQ_IMPL_H

#include "core/process.h"
#include "core/state.h"

enum {
    LANE_ENTRIES_MIN = 16,
    /* Small enough to stay in the first-level cache; what does not fit is spilled. */
    LANE_ENTRIES_MAX = 256,
};

/* core_lock held */
int lane_out_init(struct lane_out *lane, uint32_t cqe);
void lane_out_fini(struct lane_out *lane);
struct lane_in *lane_in_new(const struct cqe *ring, uint32_t mask, void *guest);
void lane_in_free(struct lane_in *lane);
void cq_drop_guest(const void *guest);

/* cq->lock held: the lane of a guest (NULL: our own), if it has one; it has no more than one. */
const struct lane_in *cq_lane_of(const struct cq *cq, const void *guest);

/* cq->lock held */
void cq_drain_locked(struct cq *cq);

/*
 * Our own lane, or one of a queue pair of ours, is full and another completion is waiting: move the
 * lanes to the spill, or, if the CQ as a whole is full, declare it overrun.
 */
void cq_make_room(struct cq *cq);
/* The same for a guest that waits with its lane's tail at `tail`; it may have moved on since. */
void cq_make_room_for(struct cq *cq, const void *guest, uint32_t tail);

/* ---- events: cq_event.c ---- */

/* Can cq_arm() have the kernel fence initiators? */
bool cq_can_fence(void);

/* An arming, by the count of them in bell.armed. */
static inline uint32_t cq_arming(uint64_t armed)
{
    return (uint32_t)armed & ~(uint32_t)CQ_ARMED_MASK;
}

/* The arming's event is claimed: true for one caller only, among all processes. */
static inline bool bell_claim(struct bell *bell, uint64_t armed)
{
    return atomic_compare_exchange_strong(&bell->armed, &armed, armed & ~(uint64_t)CQ_ARMED_MASK);
}

/* Does a CQ that is armed for solicited events only want to know of it? */
static inline bool cqe_is_loud(const struct cqe *cqe)
{
    return (cqe->flags & CQE_SOLICITED) || cqe->status != IBV_WC_SUCCESS;
}

/*
 * Who has stored completion number `at` and then found the CQ armed: does the arming ask for an
 * event? If it is overtaken by another while we look, the armer polls after that: no event is due.
 */
static inline bool lane_rings(const struct lane_out *lane, uint64_t armed, uint32_t at, bool loud)
{
    uint32_t from = atomic_load_explicit(&lane->head->armed_from, memory_order_acquire);

    return armed >> 32 == lane->cq_gen && (loud || (armed & CQ_ARMED_MASK) == CQ_ARMED) &&
           (int32_t)(at - from) >= 0;
}

/* Somebody's completion asks for the arming's event, which may have been claimed meanwhile. */
void cq_notify(struct cq *cq, uint32_t arming);
/* The same for our own lane, if its completion `at` asks for it. */
void cq_notify_own(struct cq *cq, uint64_t armed, uint32_t at, bool loud);
/* For a completion that was flushed, straight to the spill. */
void cq_notify_flushed(struct cq *cq);
/* A peer has claimed an event, and could not write it. */
void cq_owe(struct cq *cq);
/* cq->lock held: the lane's initiator is dead; what it did not tell of is made up for. */
void cq_lane_died(struct cq *cq, const struct lane_in *lane);

/* Write the time into the completion's last eight bytes. */
void cqe_stamp(struct cqe *cqe);

/* The engine has something to do for a CQ, now or in a while. */
void cq_due(void);
void cq_due_later(void);

/* The lane has room for one more, as far as its owner can tell. lane->lock held. */
static inline bool lane_has_room(struct lane_out *lane)
{
    uint32_t cqe = atomic_load_explicit(&lane->cq->cqe, memory_order_relaxed);
    uint32_t limit = cqe <= lane->mask ? cqe : lane->mask + 1;

    if (lane->tail - lane->head_seen < limit)
        return true;
    lane->head_seen = atomic_load_explicit(&lane->head->head, memory_order_acquire);
    return lane->tail - lane->head_seen < limit;
}

/* The place for the next completion; lane_publish() makes it visible. lane->lock held. */
static inline struct cqe *lane_slot(struct lane_out *lane)
{
    return &lane->ring[lane->tail & lane->mask];
}

/* lane_slot() under the lane's lock, or NULL (and no lock) if it is full. */
static inline struct cqe *lane_begin(struct lane_out *lane)
{
    spin_lock(&lane->lock);
    if (__builtin_expect(lane_has_room(lane), 1))
        return lane_slot(lane);
    spin_unlock(&lane->lock);
    return NULL;
}

static inline void lane_publish(struct lane_out *lane, struct cqe *slot)
{
    /* Pairs with the poller's acquire of seq: everything written before becomes visible with it. */
    atomic_store_explicit(&slot->seq, ++lane->tail, memory_order_release);
}

/* Make what lane_begin() gave visible to the poller; its number in the lane. */
static inline uint32_t lane_end(struct lane_out *lane, struct cqe *slot)
{
    uint32_t at = lane->tail;

    if (__builtin_expect(lane->cq->stamp, 0))
        cqe_stamp(slot);
    lane_publish(lane, slot);
    spin_unlock(&lane->lock);
    /*
     * What the caller looks up next (whether the CQ is armed) is looked up after the completion is
     * stored; that the processor may still swap the two is cq_arm()'s concern, if it can.
     */
    if (__builtin_expect(
            atomic_load_explicit(&lane->cq->fence, memory_order_relaxed) || process_must_fence, 0))
        fence(memory_order_seq_cst);
    else
        atomic_signal_fence(memory_order_seq_cst);
    return at;
}

/*
 * A place in our own lane of the CQ, however full it was; NULL: the CQ is overrun and the
 * completion lost. Fill it, then cq_push_end().
 */
static inline struct cqe *cq_push_begin(struct cq *cq)
{
    struct cqe *slot;

    while (__builtin_expect(!(slot = lane_begin(&cq->own)), 0)) {
        cq_make_room(cq);
        if (atomic_load_explicit(&cq->overrun, memory_order_relaxed))
            return NULL;
    }
    return slot;
}

static inline void cq_push_end(struct cq *cq, struct cqe *slot)
{
    bool loud = cqe_is_loud(slot);
    uint32_t at = lane_end(&cq->own, slot);
    uint64_t armed = atomic_load_explicit(&cq->bell->armed, memory_order_acquire);

    if (__builtin_expect(armed & CQ_ARMED_MASK, 0))
        cq_notify_own(cq, armed, at, loud);
}

#endif
