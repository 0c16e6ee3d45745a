/* SPDX-License-Identifier: MIT */
/* Waiting for completions politely: by polling, by yielding, or in the kernel. */
#ifndef VIADUCT_WAIT_H
#define VIADUCT_WAIT_H

#include "rig.h"

/* How often an idle poller looks whether the other side is still there. */
#define WAIT_LOOK_INTERVAL (1u << 20)

/* Whether idle pollers must yield: set once, when both sides share one CPU. */
extern bool wait_yields;

/*
 * Called after `idle` polls in vain, idle from 1. Returns 0 to go on, or CMD_FAILED, after a
 * line, when the other side is gone or nothing came for 30 seconds.
 */
int wait_look(const struct rig *rig, uint64_t idle);

/* Ask for an event; poll once more before waiting for it. Both return enum cmd_exit. */
int wait_arm(struct ibv_cq *cq);
int wait_event(const struct rig *rig);

/* Say why polling or a work request failed (wc NULL: polling). Returns CMD_FAILED. */
int wait_bad(const struct ibv_wc *wc);

static inline int wait_idle(const struct rig *rig, uint64_t idle)
{
    if (!wait_yields && idle % WAIT_LOOK_INTERVAL != 0)
        return 0;
    return wait_look(rig, idle);
}

/* One step of waiting on cq after a poll in vain. armed is false before the first. */
static inline int wait_step(const struct rig *rig, struct ibv_cq *cq, uint64_t idle, bool *armed)
{
    if (rig->comp_channel == NULL)
        return wait_idle(rig, idle);
    *armed = !*armed;
    return *armed ? wait_arm(cq) : wait_event(rig);
}

/* Up to max completions, at least one, all of them successful; -CMD_FAILED otherwise. */
static inline int wait_completions(const struct rig *rig, struct ibv_cq *cq, int max,
                                   struct ibv_wc *wc)
{
    bool armed = false;

    for (uint64_t idle = 1;; idle++) {
        int n = ibv_poll_cq(cq, max, wc);

        if (__builtin_expect(n < 0, 0))
            return -wait_bad(NULL);
        for (int i = 0; i < n; i++) {
            if (__builtin_expect(wc[i].status != IBV_WC_SUCCESS, 0))
                return -wait_bad(&wc[i]);
        }
        if (__builtin_expect(n > 0, 1))
            return n;
        if (wait_step(rig, cq, idle, &armed) != 0)
            return -1;
    }
}

#endif
