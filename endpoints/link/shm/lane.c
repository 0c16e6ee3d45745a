/* SPDX-License-Identifier: MIT */
/*
 * Our ends of the lanes to peers' completion queues: rings in our arena, one for each CQ there that
 * we send to. The data path wants one, the engine asks the peer to poll it.
 *
 *   WANTED --LANE_OPEN--> ASKED --LANE_READY--> READY    (or REFUSED)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "core/arena.h"
#include "core/cq_impl.h"
#include "core/pipe.h"
#include "core/sys.h"
#include "link/shm/shm.h"

enum {
    AGAIN_NS = 1000000,
    LATER_NS = 100000000,
    CHANNELS_SHARE = 8, /* of the descriptors that the process may have: one in so many */
};

static _Atomic bool due;  /* some lane is wanted */
static unsigned channels; /* descriptors of channels that we hold; engine */

/* ---- data path ---- */

static struct shm_lane *find_lane(struct peer *peer, uint32_t cq, uint32_t gen)
{
    struct shm_lane *lane = atomic_load_explicit(&peer->lanes, memory_order_acquire);

    while (lane && (lane->out.cq_index != cq || lane->out.cq_gen != gen))
        lane = atomic_load_explicit(&lane->next, memory_order_acquire);
    return lane;
}

/* Several threads may want the same one: there is one lane to a CQ, or what goes in is not seen. */
static struct shm_lane *want_lane(struct peer *peer, uint32_t cq, uint32_t gen)
{
    struct shm_lane *lane = calloc(1, sizeof(*lane));

    if (!lane)
        return NULL;
    lane->out.cq_index = cq;
    lane->out.cq_gen = gen;
    atomic_store(&lane->channel, CHANNEL_NONE);
    struct shm_lane *first = atomic_load(&peer->lanes), *other;
    do {
        other = find_lane(peer, cq, gen);
        if (other) {
            free(lane);
            return other;
        }
        atomic_store(&lane->next, first);
    } while (!atomic_compare_exchange_strong(&peer->lanes, &first, lane));
    atomic_store(&due, true);
    thread_wake();
    return lane;
}

struct shm_lane *peer_lane(struct peer *peer, uint32_t cq, uint32_t gen)
{
    struct shm_lane *lane = find_lane(peer, cq, gen);

    if (!lane)
        lane = want_lane(peer, cq, gen);
    if (lane && atomic_load_explicit(&lane->state, memory_order_acquire) == LANE_READY)
        return lane;
    return NULL;
}

/* ---- engine: lanes to CQs that are gone ---- */

static void close_channel(struct shm_lane *lane)
{
    int fd = atomic_exchange(&lane->channel, CHANNEL_REFUSED);

    if (fd < 0)
        return;
    sys_close(fd);
    channels--;
}

static void free_rings(struct shm_lane *lane)
{
    if (lane->out.ring)
        lane_out_fini(&lane->out);
    arena_free(lane->tail, sizeof(*lane->tail));
    lane->tail = NULL;
}

static void free_lane(struct shm_lane *lane)
{
    free_rings(lane);
    close_channel(lane);
    free(lane);
}

static bool is_gone(const struct shm_lane *lane)
{
    int state = atomic_load(&lane->state);

    return (state == LANE_READY || state == LANE_REFUSED) &&
           atomic_load(&lane->out.cq->gen) != lane->out.cq_gen;
}

/* Unlinked, and chained by gone_next. New ones are pushed in front meanwhile. */
static struct shm_lane *unlink_gone(struct peer *peer)
{
    struct shm_lane *gone = NULL;

    for (_Atomic(struct shm_lane *) *at = &peer->lanes; atomic_load(at);) {
        struct shm_lane *lane = atomic_load(at), *expected = lane;

        if (!is_gone(lane)) {
            at = &lane->next;
            continue;
        }
        if (!atomic_compare_exchange_strong(at, &expected, atomic_load(&lane->next)))
            break; /* the rest next time */
        lane->out.dead = true;
        lane->gone_next = gone;
        gone = lane;
    }
    return gone;
}

static void leave_lane(struct target *target, const struct peer *peer)
{
    if (target->peer == peer && target->lane && target->lane->dead)
        target->peer = NULL;
}

/* Under each busy word, so that afterwards nobody holds a dead lane. */
static void leave_dead_lanes(const struct peer *peer)
{
    for (uint32_t i = 1; i < qp_high(); i++) {
        struct qp *qp = qp_at(i);

        if (!qp)
            continue;
        spin_lock_word(&qp->pub->busy);
        leave_lane(&qp->target, peer);
        for (unsigned k = 0; qp->ud && k < UD_TARGETS; k++)
            leave_lane(&qp->ud[k], peer);
        spin_unlock_word(&qp->pub->busy);
    }
}

static void collect(struct peer *peer)
{
    struct shm_lane *gone = unlink_gone(peer);

    if (gone)
        leave_dead_lanes(peer);
    for (struct shm_lane *next; gone; gone = next) {
        next = gone->gone_next;
        free_lane(gone);
    }
}

void lanes_free(struct peer *peer)
{
    for (struct shm_lane *lane = atomic_load(&peer->lanes), *next; lane; lane = next) {
        next = atomic_load(&lane->next);
        free_lane(lane);
    }
}

/* ---- engine: asking ---- */

static int prepare(const struct peer *peer, struct shm_lane *lane)
{
    const struct pub_cq *cq = peer_ptr(peer, PUB_CQS_OFFSET, sizeof(*cq) * LIMIT_CQ);
    struct lane_out *out = &lane->out;

    out->cq = &cq[out->cq_index];
    out->bell = share_bells(peer->view.words) + out->cq_index;
    lane->tail = arena_alloc(sizeof(*lane->tail));
    return lane->tail ? lane_out_init(out, atomic_load(&out->cq->cqe)) : -ENOMEM;
}

static void want_again(struct shm_lane *lane, uint64_t after_ns)
{
    atomic_store(&lane->state, LANE_WANTED);
    atomic_store(&due, true);
    thread_wake_at(now_ns() + after_ns);
}

/* Memory may come back; a CQ that is gone does not. */
static void no_memory(struct shm_lane *lane)
{
    if (atomic_load(&lane->out.cq->gen) == lane->out.cq_gen)
        want_again(lane, LATER_NS);
    else
        atomic_store(&lane->state, LANE_REFUSED);
}

static void ask(struct peer *peer, struct shm_lane *lane)
{
    struct lane_out *out = &lane->out;
    struct shm_msg msg = {.type = SHM_LANE_OPEN, .index = out->cq_index, .gen = out->cq_gen};

    if (prepare(peer, lane)) {
        free_rings(lane);
        no_memory(lane);
        return;
    }
    msg.offset = arena_offset(out->ring);
    msg.length = out->mask + 1;
    msg.value[0] = arena_offset(lane->tail);
    atomic_store(&lane->state, LANE_ASKED);
    if (peer_send(peer, &msg, NULL, 0))
        return;
    free_rings(lane);
    want_again(lane, AGAIN_NS);
}

bool lanes_due(void)
{
    return atomic_exchange(&due, false);
}

void lanes_ask(struct peer *peer)
{
    collect(peer);
    for (struct shm_lane *lane = atomic_load(&peer->lanes); lane; lane = atomic_load(&lane->next)) {
        if (atomic_load(&lane->state) == LANE_WANTED)
            ask(peer, lane);
    }
}

void lane_on_ready(struct peer *peer, const struct shm_msg *msg)
{
    struct shm_lane *lane = find_lane(peer, msg->index, msg->gen);

    if (!lane || atomic_load(&lane->state) != LANE_ASKED)
        return;
    lane->out.head = peer_ptr(peer, msg->offset, sizeof(struct lane_head));
    if (msg->status || !lane->out.head) {
        free_rings(lane);
        if (msg->status == -ENOMEM)
            no_memory(lane);
        else
            atomic_store(&lane->state, LANE_REFUSED);
        return;
    }
    atomic_store_explicit(&lane->state, LANE_READY, memory_order_release);
}

/* ---- engine: the channel of a lane's CQ ---- */

/* Programs run out of descriptors by what they open themselves, not by us. */
static bool may_hold_one_more(void)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_NOFILE, &limit) == 0 && channels < limit.rlim_cur / CHANNELS_SHARE;
}

/*
 * A lane without a descriptor goes on asking the target's engine. Opened anew, so that nobody can
 * make us wait in it.
 */
void lane_on_channel(struct peer *peer, const struct shm_msg *msg, int fd)
{
    struct shm_lane *lane = find_lane(peer, msg->index, msg->gen);

    if (!lane || atomic_load(&lane->channel) != CHANNEL_NONE)
        return;
    int ours = fd >= 0 && may_hold_one_more() ? pipe_reopen(fd) : -1;
    if (ours >= 0)
        channels++;
    atomic_store_explicit(&lane->channel, ours >= 0 ? ours : CHANNEL_REFUSED, memory_order_release);
}

void lanes_after_fork(const struct peer *peer)
{
    for (struct shm_lane *lane = atomic_load(&peer->lanes); lane; lane = atomic_load(&lane->next))
        close_channel(lane);
}
