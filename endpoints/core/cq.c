/* SPDX-License-Identifier: MIT */
/*
 * Completion queues: creation and the control path. cq_poll.c has the data path.
 *
 *   initiators' lanes --.
 *   our own lane -------+--> poll          spill: what came out of the lanes early, in order;
 *   spill --------------'                  always polled first
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/cq_impl.h"
#include "core/state.h"
#include "core/table.h"
#include "core/thread.h"
#include "link/shm/share.h"

TABLE(cqs, LIMIT_CQ);
enum { LATER_NS = 1000000 };

static struct cq *all_cqs;
static _Atomic bool due; /* some CQ has event_due or overrun_due */

struct cq *cq_get(uint32_t handle)
{
    return table_get(&cqs, handle);
}

struct cq *cq_list(void)
{
    return all_cqs;
}

static uint32_t lane_entries(uint32_t cqe)
{
    uint32_t entries = LANE_ENTRIES_MIN;

    while (entries < cqe && entries < LANE_ENTRIES_MAX)
        entries *= 2;
    return entries;
}

int lane_out_init(struct lane_out *lane, uint32_t cqe)
{
    uint32_t entries = lane_entries(cqe);

    lane->ring = arena_alloc(entries * sizeof(struct cqe));
    if (!lane->ring)
        return -ENOMEM;
    lane->mask = entries - 1;
    return 0;
}

void lane_out_fini(struct lane_out *lane)
{
    arena_free(lane->ring, (lane->mask + 1) * sizeof(struct cqe));
    lane->ring = NULL;
}

struct lane_in *lane_in_new(const struct cqe *ring, uint32_t mask, void *guest)
{
    struct lane_in *lane = calloc(1, sizeof(*lane));

    if (!lane)
        return NULL;
    lane->pub = arena_alloc(sizeof(*lane->pub));
    if (!lane->pub) {
        free(lane);
        return NULL;
    }
    lane->ring = ring;
    lane->mask = mask;
    lane->guest = guest;
    return lane;
}

void lane_in_free(struct lane_in *lane)
{
    arena_free(lane->pub, sizeof(*lane->pub));
    free(lane);
}

int cq_add_lane(struct cq *cq, struct lane_in *lane)
{
    struct lane_in **lanes = malloc((cq->lane_count + 1) * sizeof(struct lane_in *));

    if (!lanes)
        return -ENOMEM;
    spin_lock(&cq->lock);
    struct lane_in **old = cq->lanes;
    if (cq->lane_count)
        memcpy(lanes, old, cq->lane_count * sizeof(struct lane_in *));
    lanes[cq->lane_count++] = lane;
    cq->lanes = lanes;
    spin_unlock(&cq->lock);
    free(old);
    return 0;
}

const struct lane_in *cq_lane_of(const struct cq *cq, const void *guest)
{
    for (unsigned i = 0; i < cq->lane_count; i++) {
        if (cq->lanes[i]->guest == guest)
            return cq->lanes[i];
    }
    return NULL;
}

bool cq_has_lane(struct cq *cq, const void *guest)
{
    spin_lock(&cq->lock);
    bool has = cq_lane_of(cq, guest);
    spin_unlock(&cq->lock);
    return has;
}

void cq_drop_lanes(struct cq *cq, const void *guest)
{
    spin_lock(&cq->lock);
    cq_drain_locked(cq);
    unsigned kept = 0;
    for (unsigned i = 0; i < cq->lane_count; i++) {
        if (i && cq->lanes[i]->guest == guest) {
            cq_lane_died(cq, cq->lanes[i]);
            lane_in_free(cq->lanes[i]);
        } else {
            cq->lanes[kept++] = cq->lanes[i];
        }
    }
    cq->lane_count = kept;
    spin_unlock(&cq->lock);
}

static int open_own_lane(struct cq *cq)
{
    int error = lane_out_init(&cq->own, cq->cqe);

    if (error)
        return error;
    struct lane_in *lane = lane_in_new(cq->own.ring, cq->own.mask, NULL);
    if (!lane) {
        lane_out_fini(&cq->own);
        return -ENOMEM;
    }
    cq->own.head = lane->pub;
    cq->own.cq = cq->pub;
    cq->own.bell = cq->bell;
    error = cq_add_lane(cq, lane);
    if (error) {
        lane_in_free(lane);
        lane_out_fini(&cq->own);
    }
    return error;
}

static void publish(struct cq *cq)
{
    uint32_t gen = atomic_load(&cq->pub->gen) | 1;

    /* Who was stopped in the middle of a life of this place before finds it another. */
    atomic_store(&cq->bell->armed, (uint64_t)gen << 32);
    atomic_store(&cq->bell->rung, (uint64_t)gen << 32);
    atomic_store(&cq->pub->cqe, cq->cqe);
    cq->pub->stamp = cq->stamp;
    cq->kernel_fences = cq_can_fence();
    atomic_store(&cq->pub->fence, !cq->kernel_fences);
    atomic_store(&cq->pub->direct, cq->channel != NULL);
    cq->pub->event = cq->user_handle;
    cq->own.cq_gen = gen;
    atomic_store_explicit(&cq->pub->gen, gen, memory_order_release);
}

static struct cq *cq_new(uint32_t cqe, bool wallclock)
{
    struct cq *cq = aligned_alloc(64, (sizeof(*cq) + 63) / 64 * 64);

    if (!cq)
        return NULL;
    memset(cq, 0, sizeof(*cq));
    cq->cqe = cqe;
    cq->stamp = wallclock;
    cq->handle = table_take(&cqs);
    if (cq->handle) {
        cq->pub = arena_cq(cq->handle);
        cq->bell = share_bells(share_words()) + cq->handle;
        if (open_own_lane(cq) == 0)
            return cq;
        table_release(&cqs, cq->handle);
    }
    free(cq);
    return NULL;
}

int cq_create(struct context *context, uint32_t cqe, struct channel *channel, uint32_t comp_vector,
              bool wallclock, uint64_t user_handle, struct cq **cq_out)
{
    if (cqe == 0 || cqe > LIMIT_CQE || comp_vector >= LIMIT_COMP_VECTORS)
        return -EINVAL;
    struct cq *cq = cq_new(cqe, wallclock);
    if (!cq)
        return -ENOMEM;
    cq->context = context;
    cq->channel = channel;
    cq->user_handle = user_handle;
    if (channel)
        channel->users++;
    publish(cq);
    cq->next = all_cqs;
    all_cqs = cq;
    table_set(&cqs, cq->handle, cq);
    *cq_out = cq;
    return 0;
}

int cq_resize(struct cq *cq, uint32_t cqe)
{
    int error = 0;

    if (cqe == 0 || cqe > LIMIT_CQE)
        return -EINVAL;
    spin_lock(&cq->lock);
    cq_drain_locked(cq);
    if (cq->spill.count > cqe) {
        error = -EINVAL;
    } else {
        cq->cqe = cqe;
        atomic_store(&cq->pub->cqe, cqe);
    }
    spin_unlock(&cq->lock);
    return error;
}

uint32_t cq_capacity(struct cq *cq)
{
    return cq->cqe;
}

uint32_t cq_handle(struct cq *cq)
{
    return cq->handle;
}

struct context *cq_context(struct cq *cq)
{
    return cq->context;
}

uint64_t cq_user_handle(struct cq *cq)
{
    return cq->user_handle;
}

void cq_stamp(struct cq *cq)
{
    cq->stamp = true;
    cq->pub->stamp = 1;
}

bool cq_is_in_doubt(struct cq *cq)
{
    bool doubt = cq->in_doubt;

    for (unsigned i = 1; i < cq->lane_count; i++)
        doubt = doubt || atomic_load(&cq->lanes[i]->tail->ringing);
    return doubt;
}

static void unlink_cq(struct cq *cq)
{
    struct cq **at = &all_cqs;

    while (*at != cq)
        at = &(*at)->next;
    *at = cq->next;
}

int cq_destroy(struct cq *cq, uint32_t *comp_events_out, uint32_t *async_events_out)
{
    if (cq->users)
        return -EBUSY;
    atomic_store(&cq->pub->gen, (atomic_load(&cq->pub->gen) + 1) & ~1u);
    table_release(&cqs, cq->handle);
    unlink_cq(cq);
    /* A poller that found the CQ before this has it locked: wait it out. */
    spin_lock(&cq->lock);
    spin_unlock(&cq->lock);
    if (cq->channel) {
        channel_withdraw(cq->channel, cq->user_handle, &cq->comp_events);
        cq->channel->users--;
    }
    event_withdraw(cq->context, cq->user_handle, &cq->async_events);
    *comp_events_out = cq->comp_events.reported + (uint32_t)atomic_load(&cq->bell->rung);
    *async_events_out = cq->async_events.reported;
    for (unsigned i = 0; i < cq->lane_count; i++)
        lane_in_free(cq->lanes[i]);
    lane_out_fini(&cq->own);
    free(cq->lanes);
    free(cq->spill.ring);
    free(cq);
    return 0;
}

void cq_close_all(struct context *context)
{
    uint32_t comp, async;

    for (struct cq *cq = all_cqs, *next; cq; cq = next) {
        next = cq->next;
        if (cq->context == context)
            cq_destroy(cq, &comp, &async);
    }
}

void cq_after_fork(void)
{
    table_clear(&cqs);
    all_cqs = NULL;
}

void cq_detach_channel(struct channel *channel)
{
    for (struct cq *cq = all_cqs; cq; cq = cq->next) {
        spin_lock(&cq->lock);
        if (cq->channel == channel)
            cq->channel = NULL;
        spin_unlock(&cq->lock);
    }
}

void cq_drop_guest(const void *guest)
{
    for (struct cq *cq = all_cqs; cq; cq = cq->next)
        cq_drop_lanes(cq, guest);
}

void cq_quiesce(void)
{
    for (struct cq *cq = all_cqs; cq; cq = cq->next) {
        spin_lock(&cq->lock);
        spin_unlock(&cq->lock);
    }
}

void cq_due(void)
{
    atomic_store(&due, true);
    thread_wake();
}

void cq_due_later(void)
{
    atomic_store(&due, true);
    thread_wake_at(now_ns() + LATER_NS);
}

static void fail_users(struct cq *cq)
{
    for (uint32_t i = 1; i < qp_high(); i++) {
        struct qp *qp = qp_at(i);

        if (!qp || (qp->send_cq != cq && qp->recv_cq != cq) || qp_state(qp) == IBV_QPS_RESET)
            continue;
        qp_enter_error(qp);
        event_async(qp->context, IBV_EVENT_QP_FATAL, qp->user_handle, &qp->events);
    }
}

/* The engine's share: what a pusher found no place or no right to do. */
void cq_announce_all(void)
{
    if (!atomic_exchange(&due, false))
        return;
    for (struct cq *cq = all_cqs; cq; cq = cq->next) {
        if (atomic_exchange(&cq->event_due, false))
            cq_announce(cq); /* may be due again */
        if (!atomic_exchange(&cq->overrun_due, false))
            continue;
        event_async(cq->context, IBV_EVENT_CQ_ERR, cq->user_handle, &cq->async_events);
        fail_users(cq);
    }
}
