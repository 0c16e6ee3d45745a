/* SPDX-License-Identifier: MIT */
/*
 * Completion events: arming, and who is owed one.
 *
 *   cq_arm() counts armings up in the CQ's bell. A pusher that finds it armed, and its completion
 * not older than that, claims the arming's event by one compare-and-swap and writes it, in
 * whichever process it is (link/shm/ring.c); or it tells the engine: cq_notify(). Each arming fires
 * once, for a completion that came after it, whether that was polled meanwhile or not (IBTA
 * 11.4.2.2).
 */
#define _GNU_SOURCE
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cq_impl.h"
#include "core/state.h"

/*
 * A fence for each completion costs initiators up to 60 ns, having the kernel fence everyone costs
 * who arms some microseconds. Whoever arms after fewer completions than this has them fence.
 */
enum { FENCE_WORTH = 64 };

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
static void fence_by_kernel(struct cq *cq)
{
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0)
        return;
    cq->kernel_fences = false;
    atomic_store(&cq->pub->fence, 1);
    atomic_store(&cq->event_due, true);
    cq_due_later();
}

static void fence_everyone(struct cq *cq)
{
    fence(memory_order_seq_cst);
    if (!atomic_load(&cq->pub->fence))
        fence_by_kernel(cq);
}

/*
 * cq->lock held; so many completions came between this arming and the last one. Who did not see the
 * order to fence yet has its completions seen by the kernel's fence.
 */
static void choose_fences(struct cq *cq, uint32_t came)
{
    bool often = came < FENCE_WORTH;

    if (!cq->kernel_fences || often == atomic_load(&cq->pub->fence))
        return;
    atomic_store(&cq->pub->fence, often);
    if (often)
        fence_by_kernel(cq);
}

static uint32_t lane_stop(const struct lane_in *lane)
{
    uint32_t end = lane->head;

    while (end - lane->head <= lane->mask &&
           atomic_load_explicit(&lane->ring[end & lane->mask].seq, memory_order_acquire) == end + 1)
        end++;
    return end;
}

/* cq->lock held: where each lane ends now; how many have come since the last arming. */
static uint32_t note_ends(struct cq *cq)
{
    uint32_t came = 0;

    for (unsigned i = 0; i < cq->lane_count; i++) {
        struct lane_in *lane = cq->lanes[i];
        uint32_t end = lane_stop(lane);

        if (end == lane->armed_from)
            continue;
        came += end - lane->armed_from;
        lane->armed_from = end;
        atomic_store_explicit(&lane->pub->armed_from, end, memory_order_release);
    }
    cq->spill_armed_from = cq->spill.total;
    return came;
}

/* cq->lock held: the next arming; one before it that has no event yet goes without. */
static void next_arming(struct cq *cq, bool solicited_only)
{
    uint64_t armed = atomic_load(&cq->bell->armed), next;

    do {
        cq->kind =
            solicited_only && (armed & CQ_ARMED_MASK) != CQ_ARMED ? CQ_ARMED_SOLICITED : CQ_ARMED;
        next = (uint32_t)(cq_arming(armed) + CQ_ARMED_STEP) | cq->kind;
        next |= armed >> 32 << 32;
    } while (!atomic_compare_exchange_weak(&cq->bell->armed, &armed, next));
    if (!(armed & CQ_ARMED_MASK))
        cq->fired = cq_arming(armed);
}

int cq_arm(struct cq *cq, bool solicited_only)
{
    spin_lock(&cq->lock);
    uint32_t came = note_ends(cq);
    next_arming(cq, solicited_only);
    choose_fences(cq, came);
    spin_unlock(&cq->lock);
    /*
     * Pairs with pushers, which store seq and then load armed, mostly without a fence: after this
     * either we see their completion (the program polls after arming), or they see that we are
     * armed.
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

/* cq->lock held: the arming has its event, unless it had it before. */
static void fire(struct cq *cq, uint32_t arming)
{
    uint64_t armed = atomic_load(&cq->bell->armed);

    if ((int32_t)(arming - cq->fired) <= 0 || (int32_t)(cq_arming(armed) - arming) < 0)
        return;
    cq->fired = arming;
    if (cq_arming(armed) == arming && (!(armed & CQ_ARMED_MASK) || !bell_claim(cq->bell, armed)))
        return; /* a peer has claimed it */
    cq->owed++;
    pay(cq);
}

/*
 * cq->lock held: fire the present arming if something that it asks for can be seen. True: nothing
 * is left to be told of.
 */
static bool look(struct cq *cq)
{
    uint64_t armed = atomic_load(&cq->bell->armed);

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
static void arm_anew(struct cq *cq, bool claimed)
{
    spin_lock(&cq->lock);
    if (claimed || atomic_load(&cq->bell->armed) & CQ_ARMED_MASK)
        next_arming(cq, cq->kind == CQ_ARMED_SOLICITED);
    spin_unlock(&cq->lock);
    fence_everyone(cq);
    cq_announce(cq);
}

/*
 * Programs that poll in sessions take an event for the promise that the next session finds
 * something, and arm before they poll: what was polled by now makes none for them.
 */
void cq_notify(struct cq *cq, uint32_t arming)
{
    bool told = true;

    spin_lock(&cq->lock);
    if (cq->has_sessions)
        told = look(cq);
    else
        fire(cq, arming);
    spin_unlock(&cq->lock);
    if (!told)
        arm_anew(cq, false);
}

void cq_notify_own(struct cq *cq, uint64_t armed, uint32_t at, bool loud)
{
    if (lane_rings(&cq->own, armed, at, loud))
        cq_notify(cq, cq_arming(armed));
}

void cq_notify_flushed(struct cq *cq)
{
    spin_lock(&cq->lock);
    uint64_t armed = atomic_load(&cq->bell->armed);
    if (armed & CQ_ARMED_MASK)
        fire(cq, cq_arming(armed));
    spin_unlock(&cq->lock);
}

void cq_owe(struct cq *cq)
{
    spin_lock(&cq->lock);
    bool sessions = cq->has_sessions;
    if (!sessions) {
        cq->owed++;
        pay(cq);
    }
    spin_unlock(&cq->lock);
    if (sessions) /* they have begun since: as if it had not been claimed */
        arm_anew(cq, true);
}

/*
 * Killed between claiming an event and counting it: whether it wrote it can't be known. One too
 * many does no harm, but for cq_destroy()'s count. And killed before that, it left a completion.
 */
void cq_lane_died(struct cq *cq, const struct lane_in *lane)
{
    if (atomic_load(&lane->tail->ringing)) {
        cq->in_doubt = true;
        cq->owed++;
        pay(cq);
    }
    look(cq);
}

/*
 * cq->lock held. What an unread event tells of, the session that begins is going to poll: the event
 * is taken back, and the CQ is armed as before.
 */
static void take_back_event(struct cq *cq)
{
    uint32_t before = cq->comp_events.reported;

    cq->unread = false;
    channel_withdraw(cq->channel, cq->user_handle, &cq->comp_events);
    if (cq->comp_events.reported == before)
        return;
    if (!(atomic_load(&cq->bell->armed) & CQ_ARMED_MASK))
        next_arming(cq, cq->kind == CQ_ARMED_SOLICITED);
    atomic_store(&cq->event_due, true);
}

/* cq->lock held: peers write no events any more, but may have until now. */
static void begin_sessions(struct cq *cq)
{
    cq->has_sessions = true;
    cq->unread = true;
    atomic_store(&cq->pub->direct, 0);
}

void cq_session(struct cq *cq, bool open)
{
    bool told = true;

    spin_lock(&cq->lock);
    if (!cq->has_sessions)
        begin_sessions(cq);
    if (open && cq->unread && cq->channel)
        take_back_event(cq);
    atomic_store_explicit(&cq->in_session, open, memory_order_relaxed);
    pay(cq);
    if (!open && atomic_exchange(&cq->event_due, false))
        told = look(cq);
    spin_unlock(&cq->lock);
    if (!told)
        arm_anew(cq, false);
}
