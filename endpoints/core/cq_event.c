/* SPDX-License-Identifier: MIT */
/*
 * Completion events: arming, and who is owed one.
 *
 *   cq_arm() counts armings up in pub_cq.armed. A pusher that finds the CQ armed tells of the
 * arming it saw and of its completion's place in its lane: cq_notify(). Each arming fires once, for
 * a completion that came after it, whether that was polled meanwhile or not (IBTA 11.4.2.2).
 */
#define _GNU_SOURCE
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cq_impl.h"
#include "core/state.h"

bool cq_can_fence(void)
{
    long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);

    return commands > 0 && commands & MEMBARRIER_CMD_GLOBAL_EXPEDITED;
}

/*
 * From here on what every thread of every process on the machine stored before is seen. If the
 * kernel can't do that, initiators fence themselves; if it has just begun to refuse (a system call
 * filter), the engine looks for what one of them was storing right now.
 */
static void fence_everyone(struct cq *cq)
{
    fence(memory_order_seq_cst);
    if (atomic_load(&cq->pub->fence) ||
        syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0)
        return;
    atomic_store(&cq->pub->fence, 1);
    atomic_store(&cq->event_due, true);
    cq_due_later();
}

static uint32_t lane_stop(const struct lane_in *lane)
{
    uint32_t end = lane->head;

    while (end - lane->head <= lane->mask &&
           atomic_load_explicit(&lane->ring[end & lane->mask].seq, memory_order_acquire) == end + 1)
        end++;
    return end;
}

int cq_arm(struct cq *cq, bool solicited_only)
{
    spin_lock(&cq->lock);
    uint32_t armed = atomic_load(&cq->pub->armed);
    uint32_t kind =
        solicited_only && (armed & CQ_ARMED_MASK) != CQ_ARMED ? CQ_ARMED_SOLICITED : CQ_ARMED;
    for (unsigned i = 0; i < cq->lane_count; i++)
        cq->lanes[i]->armed_from = lane_stop(cq->lanes[i]);
    cq->spill_armed_from = cq->spill.total;
    atomic_store(&cq->pub->armed, ((armed & ~(uint32_t)CQ_ARMED_MASK) + CQ_ARMED_STEP) | kind);
    spin_unlock(&cq->lock);
    /*
     * Pairs with pushers, which store seq and then load armed without a fence: after this either we
     * see their completion (the program polls after arming), or they see that we are armed.
     */
    fence_everyone(cq);
    return 0;
}

static bool qualifies(const struct cqe *cqe, uint32_t kind)
{
    return kind == CQ_ARMED || cqe_is_loud(cqe);
}

/* Is there anything that came since the CQ was armed, qualifies, and still waits to be polled? */
static bool lane_has_news(const struct lane_in *lane, uint32_t kind)
{
    uint32_t end = lane_stop(lane);
    uint32_t at = (int32_t)(lane->armed_from - lane->head) > 0 ? lane->armed_from : lane->head;

    for (; (int32_t)(end - at) > 0; at++) {
        if (qualifies(&lane->ring[at & lane->mask], kind))
            return true;
    }
    return false;
}

static bool has_news(struct cq *cq, uint32_t kind)
{
    /* What was spilled may have been solicited or not: announce, an extra event does no harm. */
    if (cq->spill.count && cq->spill.total > cq->spill_armed_from)
        return true;
    for (unsigned i = 0; i < cq->lane_count; i++) {
        if (lane_has_news(cq->lanes[i], kind))
            return true;
    }
    return false;
}

/* cq->lock held: write what is owed, as far as the channel has room and nobody is in a session. */
static void pay(struct cq *cq)
{
    while (cq->owed && !atomic_load(&cq->in_session)) {
        if (cq->channel && !channel_write(cq->channel, cq->user_handle, &cq->comp_events)) {
            atomic_store(&cq->event_due, true); /* the channel is full */
            cq_due_later();
            return;
        }
        cq->owed--;
        cq->unread = true;
    }
}

/* cq->lock held: the arming has its event, or had it before. */
static void fire(struct cq *cq, uint32_t arming)
{
    uint32_t armed = atomic_load(&cq->pub->armed);

    if ((int32_t)(arming - cq->fired) <= 0)
        return;
    cq->fired = arming;
    if (cq_arming(armed) == arming) {
        cq->fired_kind = armed & CQ_ARMED_MASK;
        atomic_store(&cq->pub->armed, arming);
    }
    cq->owed++;
    pay(cq);
}

/*
 * cq->lock held: fire the present arming if something that it asks for can be seen. True: nothing
 * is left to be told of.
 */
static bool look(struct cq *cq)
{
    uint32_t armed = atomic_load(&cq->pub->armed);

    if (!(armed & CQ_ARMED_MASK))
        return true;
    if (atomic_load(&cq->in_session)) {
        atomic_store(&cq->event_due, true);
        return true;
    }
    if (!has_news(cq, armed & CQ_ARMED_MASK))
        return false;
    fire(cq, cq_arming(armed));
    return true;
}

void cq_announce(struct cq *cq)
{
    spin_lock(&cq->lock);
    pay(cq);
    look(cq);
    spin_unlock(&cq->lock);
}

/*
 * A pusher tells of an arming once. If that came to nothing the CQ is armed anew, so that the next
 * completion is told of; who came between the two is looked for.
 */
static void arm_anew(struct cq *cq)
{
    atomic_fetch_add(&cq->pub->armed, CQ_ARMED_STEP);
    fence_everyone(cq);
    cq_announce(cq);
}

/*
 * cq->lock held. An arming that has been overtaken by another can't be compared with any more: the
 * pusher saw it after its completion was stored, so the completion counts as coming after it.
 */
static bool came_before(const struct cq *cq, const void *guest, uint32_t arming, uint32_t at)
{
    const struct lane_in *lane = cq_lane_of(cq, guest);

    return arming == cq_arming(atomic_load(&cq->pub->armed)) && lane &&
           (int32_t)(at - lane->armed_from) < 0;
}

/*
 * cq->lock held. Programs that poll in sessions take an event for the promise that the next session
 * finds something, and arm before they poll: what was polled by now makes none for them.
 */
static bool take_notice(struct cq *cq, const void *guest, uint32_t arming, uint32_t at)
{
    if ((int32_t)(cq_arming(atomic_load(&cq->pub->armed)) - arming) < 0)
        return true;
    if (cq->has_sessions)
        return look(cq);
    if (came_before(cq, guest, arming, at))
        return false;
    fire(cq, arming);
    return true;
}

void cq_notify(struct cq *cq, const void *guest, uint32_t arming, uint32_t at)
{
    spin_lock(&cq->lock);
    bool told = take_notice(cq, guest, arming, at);
    spin_unlock(&cq->lock);
    if (!told)
        arm_anew(cq);
}

void cq_notify_own(struct cq *cq, uint32_t armed, uint32_t at, bool loud)
{
    if (loud || (armed & CQ_ARMED_MASK) == CQ_ARMED)
        cq_notify(cq, NULL, cq_arming(armed), at);
}

void cq_notify_flushed(struct cq *cq)
{
    spin_lock(&cq->lock);
    uint32_t armed = atomic_load(&cq->pub->armed);
    if (armed & CQ_ARMED_MASK)
        fire(cq, cq_arming(armed));
    spin_unlock(&cq->lock);
}

/*
 * cq->lock held. What an unread event tells of, the session that begins is going to poll: the event
 * is taken back, and the CQ is armed as before.
 */
static void take_back_event(struct cq *cq)
{
    uint32_t armed = atomic_load(&cq->pub->armed), before = cq->comp_events.reported;

    cq->unread = false;
    channel_withdraw(cq->channel, cq->user_handle, &cq->comp_events);
    if (cq->comp_events.reported == before)
        return;
    if (!(armed & CQ_ARMED_MASK))
        atomic_store(&cq->pub->armed, (armed + CQ_ARMED_STEP) | cq->fired_kind);
    atomic_store(&cq->event_due, true);
}

void cq_session(struct cq *cq, bool open)
{
    bool told = true;

    spin_lock(&cq->lock);
    cq->has_sessions = true;
    if (open && cq->unread && cq->channel)
        take_back_event(cq);
    atomic_store_explicit(&cq->in_session, open, memory_order_relaxed);
    pay(cq);
    if (!open && atomic_exchange(&cq->event_due, false))
        told = look(cq);
    spin_unlock(&cq->lock);
    if (!told)
        arm_anew(cq);
}
