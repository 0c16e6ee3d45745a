/* SPDX-License-Identifier: MIT */
/*
 * The seam between the transport and what carries it: how a queue pair's work reaches its target.
 * One table of operations a link; today there is one link, shm (same host, same user).
 *
 *   core/requester.c --execute--> link --moves data, takes the receive, completes--> target
 *
 * All run with qp->pub->busy held unless they say otherwise, never wait for another process, and
 * allocate nothing once a target is attached.
 */
#ifndef VIADUCT_LINK_LINK_H
#define VIADUCT_LINK_LINK_H

#include "core/state.h"

/* What became of a WQE. */
enum verdict {
    VERDICT_DONE,  /* finished: the status says how */
    VERDICT_STALL, /* try again: qp->stall says why; nothing is lost, progress is remembered */
};

struct link_ops {
    const char *name;

    /* Once a process, after the arena is there. Not under busy. */
    int (*open)(void);

    /*
     * Carry out one WQE. DONE: *status is IBV_WC_SUCCESS or what the completion must say, and the
     * target (if any) has been told. STALL: qp->stall and, for STALL_RNR, the target's timer.
     */
    enum verdict (*execute)(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah,
                            enum ibv_wc_status *status);

    /*
     * Begin to find the target of a connected queue pair (at the moves to RTR and RTS), so that the
     * first send need not wait and the end of its process is heard of. core_lock held, busy not.
     */
    void (*prepare)(struct qp *qp);

    /* The queue pair leaves its target (reset, error, destroy), or gives up what it began there. */
    void (*detach)(struct qp *qp);

    /*
     * Wait until no initiator touches anything of this queue pair (or, with NULL, of this process)
     * that it looked up before now. core_lock held, busy not. Bounded by what one WQE takes.
     */
    void (*quiesce)(struct qp *qp);

    /* A queue pair joined a multicast group: senders elsewhere must come to know this process. */
    void (*announce_member)(void);

    /* Engine thread, core_lock held: what fell due (handshakes, deferred messages). */
    void (*progress)(void);

    /*
     * Take a connection management datagram to the process so named (core/process.h), which may be
     * our own: it gets conn_receive(), never before this returns. It may be lost; if the process is
     * gone, conn_lost() follows. core_lock held.
     */
    void (*send_mad)(uint64_t to, const uint8_t mad[256]);

    /* The child of a fork, or when opening failed: close everything. */
    void (*after_fork)(void);
};

extern const struct link_ops link_shm;

#endif
