/* SPDX-License-Identifier: MIT */
/*
 * Waking the target's program: who completes something for an armed CQ of another process writes
 * the event into that one's channel, a pipe, himself. Its engine sleeps on, but for the first event
 * of a lane, which asks for the descriptor, and for what the pipe has no room for.
 */
#include "core/cq_impl.h"
#include "core/pipe.h"
#include "link/shm/shm.h"

static void tell(struct peer *peer, const struct shm_lane *lane, uint64_t armed, uint32_t how)
{
    struct shm_msg msg = {.type = SHM_EVENT,
                          .index = lane->out.cq_index,
                          .gen = lane->out.cq_gen,
                          .key = cq_arming(armed),
                          .op = how};

    peer_tell(peer, &msg);
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

/* If we die in the middle of this, the target finds the tail's word set. */
static void ring_myself(struct peer *peer, struct shm_lane *lane, uint64_t armed, int channel)
{
    uint64_t record = PUB_READ(lane->out.cq->event);

    atomic_fetch_add(&lane->tail->ringing, 1);
    if (bell_claim(lane->out.bell, armed)) {
        if (pipe_write(channel, &record, sizeof(record)))
            count(lane);
        else
            tell(peer, lane, armed, SHM_EVENT_CLAIMED);
    }
    atomic_fetch_sub(&lane->tail->ringing, 1);
}

void ring(struct target *target, uint64_t armed, uint32_t at, bool loud)
{
    struct shm_lane *lane = (struct shm_lane *)target->lane; /* its first member */
    int channel = atomic_load_explicit(&lane->channel, memory_order_acquire);
    bool direct = atomic_load_explicit(&lane->out.cq->direct, memory_order_relaxed);

    if (!lane_rings(&lane->out, armed, at, loud))
        return;
    if (direct && channel >= 0) {
        ring_myself(target->peer, lane, armed, channel);
        return;
    }
    /* Once an arming is enough: it fires once. */
    if (atomic_exchange(&lane->announced, armed) != armed)
        tell(target->peer, lane, armed,
             direct && channel == CHANNEL_NONE ? SHM_EVENT_WANT : SHM_EVENT_TOLD);
}
