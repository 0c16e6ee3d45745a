/* SPDX-License-Identifier: MIT */
/*
 * The seam between the verbs objects and what carries their work to a target.
 *
 *   core/requester.c --shm_execute--> the target's memory    one request after the other, at once
 *          `--------- qp->link -----> link_roce --> packets  the link keeps the send queue
 *
 * Shared memory is called directly: that is the fast path, and the send queue of its queue pairs is
 * the requester's. A link that keeps the send queue itself stands in qp->link with this table.
 */
#ifndef VIADUCT_LINK_LINK_H
#define VIADUCT_LINK_LINK_H

#include "core/state.h"

/* ---- links that keep the send queue ---- */
struct link_ops {
    const char *name;

    /*
     * At the move to RTR, with the attributes it will have: 0, and qp->link is set, or why it can't
     * be reached by this link. In SQD, when the address vector changes: the same for the new path.
     * core_lock held, busy not.
     */
    int (*attach)(struct qp *qp, const struct ibv_qp_attr *attr);

    /* qp->state and qp->attr have changed: go on accordingly. Busy held. */
    void (*modified)(struct qp *qp, enum ibv_qp_state before);

    /* Reset or destroyed: nothing of it is left here, qp->link is NULL. core_lock held, busy not.
     */
    void (*detach)(struct qp *qp);

    /*
     * Busy held, these all. Keep a copy of a request; false: no memory. It goes out with posted(),
     * which follows the last of a list, or soon after.
     */
    bool (*post)(struct qp *qp, const struct ibv_send_wr *wr);
    void (*posted)(struct qp *qp);

    /* Send what there is to be sent. */
    void (*push)(struct qp *qp);

    /* Complete all that is posted as flushed; nothing goes out any more. */
    void (*flush)(struct qp *qp);

    /* In SQD: nothing is under way any more. */
    bool (*is_drained)(const struct qp *qp);
};

/* ---- shared memory: pub->busy held, unless they say otherwise; they never wait ---- */
/* What became of a WQE. */
enum verdict {
    VERDICT_DONE,  /* finished: the status says how */
    VERDICT_STALL, /* try again: qp->stall says why; nothing is lost, progress is remembered */
};

/*
 * Carry out one WQE. DONE: *status is IBV_WC_SUCCESS or what the completion must say, and the
 * target (if any) has been told. STALL: qp->stall and, for STALL_RNR, the target's timer.
 */
enum verdict shm_execute(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah,
                         enum ibv_wc_status *status);

/*
 * Begin to find the target of a connected queue pair (at the moves to RTR and RTS), so that the
 * first send need not wait and the end of its process is heard of. core_lock held, busy not.
 */
void shm_prepare(struct qp *qp);

/* The queue pair leaves its target (reset, error, destroy), or gives up what it began there. */
void shm_detach(struct qp *qp);

/*
 * Wait until no initiator touches anything of this queue pair (or, with NULL, of this process)
 * that it looked up before now. core_lock held, busy not. Bounded by what one WQE takes.
 */
void shm_quiesce(struct qp *qp);

/* ---- all links; core_lock held, busy not, unless they say otherwise ---- */
/* Once a process, after the arena is there: 0 or negative errno. */
int link_open(void);
/* The engine thread: what fell due. */
void link_progress(void);
/* No context is open any more: what comes from elsewhere is for nobody here. */
void link_rest(void);
/* The child of a fork, or when opening failed: close everything. */
void link_after_fork(void);

/*
 * At the move to RTR it is known where the other end is: qp->link is set, or left to shared memory.
 * What takes datagrams will take them from every link. 0 or negative errno.
 */
int link_choose(struct qp *qp, const struct ibv_qp_attr *attr);
/* It is in no table any more: wait until nobody holds a pointer that was looked up before. */
void link_settle(void);
/* A receive that was taken for a datagram, and not used, completes as flushed. */
void link_release_held(struct qp *qp);
/* A queue pair joined a multicast group: senders everywhere must come to know. */
void link_join(const struct nic *nic, const uint8_t mgid[16]);
void link_leave(const struct nic *nic, const uint8_t mgid[16]);

/* Is there anything to poll? Then a polling thread does; no lock held. */
extern _Atomic uint32_t link_to_poll;
void link_poll(void);

/* The largest path MTU that the NIC's interface carries, in bytes: 256 .. 4096. Asks the kernel. */
unsigned link_path_mtu(const struct nic *nic);

/* ---- which way; any thread ---- */
/* Is this an address of another host, or are all to be treated as such? */
bool link_is_elsewhere(const struct nic *nic, const uint8_t gid[16]);
/* Does the way to this queue pair lead over the wire? */
bool link_leads_out(const struct nic *nic, const uint8_t dgid[16], uint32_t qpn);
/* The local address that the host's routes give for this one; false: none leads there. */
bool link_source_for(const uint8_t dgid[16], uint8_t source_out[16]);

/* ---- connection management; core_lock held ---- */
/*
 * Watch for the end of what our queue pair is connected to, though nothing is sent there; or don't
 * any more. It fails then, and conn_lost_peer() follows. In shared memory that is so anyway.
 */
void link_watch(uint32_t qpn, uint32_t peer_qpn, bool on);
/* A program is going to ask for connections, or to be asked: 0 or negative errno. */
int link_open_nic(const struct nic *nic);
/* What a route's `via` is for who is reached at this address of another host. */
uint64_t link_via(const uint8_t gid[16]);
/* That is another host, which does not see us end. */
bool link_leads_away(uint64_t via);
/*
 * Take a connection management datagram to a process of this host (core/process.h), which may be
 * our own, or to another host: it gets conn_receive(), never before this returns. It may be lost;
 * if the process is gone, conn_lost() follows.
 */
void link_send_mad(uint64_t via, const uint8_t sgid[16], const uint8_t dgid[16],
                   const uint8_t mad[256]);

#endif
