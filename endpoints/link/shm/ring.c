/* SPDX-License-Identifier: MIT */
/*
 * Waking the target's program: who completes something for an armed CQ of another process writes
 * the event into that one's channel, a pipe, himself. Its engine sleeps on, but for the first event
 * of a lane, which asks for the descriptor, for what the pipe has no room for, and for CQs that are
 * polled in sessions, whose owner decides.
 */
#include "core/cq_impl.h"
#include "core/pipe.h"
#include "link/shm/shm.h"

/* False: it waits for room, here. */
static bool tell(struct peer *peer, const struct shm_lane *lane, uint64_t armed, uint32_t how)
{
    struct shm_msg msg = {.type = SHM_EVENT,
                          .index = lane->out.cq_index,
                          .gen = lane->out.cq_gen,
                          .key = cq_arming(armed),
                          .op = how};

    return peer_tell(peer, &msg);
}

/* For cq_destroy(), unless the CQ is another by now. */
static void count(const struct shm_lane *lane)
{
    uint64_t rung = atomic_load(&lane->out.bell->rung), next;

    do {
        if (rung >> 32 != lane->out.cq_gen)
            return;
        next = rung >> 32 << 32 | (uint32_t)(rung + 1);
    } while (!atomic_compare_exchange_weak(&lane->out.bell->rung, &rung, next));
}

/* False: the event has not left us. */
static bool pass_on(struct peer *peer, const struct shm_lane *lane, uint64_t armed)
{
    uint64_t record = PUB_READ(lane->out.cq->event);
    int channel = atomic_load_explicit(&lane->channel, memory_order_acquire);

    if (channel < 0)
        return tell(peer, lane, armed,
                    channel == CHANNEL_NONE ? SHM_EVENT_FIRST : SHM_EVENT_CLAIMED);
    if (!pipe_write(channel, &record, sizeof(record)))
        return tell(peer, lane, armed, SHM_EVENT_CLAIMED);
    count(lane);
    return true;
}

/*
 * If we die in the middle of this, the target finds the tail's word set. So it does if the event
 * waits in our outbox, from then on: it makes one up then, and its account is in doubt.
 */
static void claim(struct peer *peer, struct shm_lane *lane, uint64_t armed)
{
    atomic_fetch_add(&lane->tail->ringing, 1);
    if (!bell_claim(lane->out.bell, armed) || pass_on(peer, lane, armed))
        atomic_fetch_sub(&lane->tail->ringing, 1);
}

void ring(struct target *target, uint64_t armed, uint32_t at, bool loud)
{
    struct shm_lane *lane = (struct shm_lane *)target->lane; /* its first member */

    if (!lane_rings(&lane->out, armed, at, loud))
        return;
    if (atomic_load_explicit(&lane->out.cq->direct, memory_order_relaxed))
        claim(target->peer, lane, armed);
    else if (atomic_exchange(&lane->announced, armed) != armed) /* once an arming is enough */
        tell(target->peer, lane, armed, SHM_EVENT_TOLD);
}
