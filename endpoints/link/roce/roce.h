/* SPDX-License-Identifier: MIT */
/*
 * The wire, for whoever is not a process of the same user on this host: RoCEv2 in UDP datagrams.
 * What core calls; the inside is in roce_impl.h.
 *
 *   struct qp --wire--> struct roce_qp --> engine/transport.h --> packets --> batch --> socket
 *                            ^                                                             |
 *                            '------ roce_poll(): receive, judge, find the queue pair <----'
 *
 * Locks: core_lock -> the receive lock -> a queue pair's busy -> a CQ's, a receive queue's.
 */
#ifndef VIADUCT_LINK_ROCE_ROCE_H
#define VIADUCT_LINK_ROCE_ROCE_H

#include "core/state.h"
#include "link/link.h"

struct roce_qp;

/* ---- connected queue pairs; core_lock held, busy not, unless it says otherwise ---- */
/*
 * At the move to RTR, with the attributes it will have: does its path lead over the wire? 0: yes,
 * and qp->wire is set; -ENOENT: no, it is shm's; else why the wire can't be used.
 */
int roce_attach(struct qp *qp, const struct ibv_qp_attr *attr);
/* Extended reliable connections go by shm only. 0 or -EOPNOTSUPP. */
int roce_refuse_xrc(const struct qp *qp, const struct ibv_qp_attr *attr);
/* busy held: qp->state and qp->attr have changed; go on accordingly. */
void roce_modified(struct qp *qp, enum ibv_qp_state before);
/* The queue pair is reset or goes: nothing of it is left here. */
void roce_detach(struct qp *qp);
/* It is in no table any more: wait until nobody holds a pointer that was looked up before. */
void roce_settle(void);

/* ---- the data path; busy held ---- */
/* False: full. What is posted goes out with roce_posted(), or soon after. */
bool roce_post(struct qp *qp, const struct ibv_send_wr *wr);
void roce_posted(struct qp *qp);
/* Send what there is to be sent. */
void roce_push(struct qp *qp);
/* Complete all that is posted as flushed; nothing goes out any more. */
void roce_flush(struct qp *qp);
bool roce_is_drained(const struct qp *qp);

/* ---- datagrams ---- */
/* The queue pair may receive from now on: from the wire too, if it can be opened. core_lock held.
 */
int roce_receive_datagrams(struct qp *qp);
/* A receive that was taken for a datagram, and not used, completes as flushed. */
void roce_release_held(struct qp *qp);
/* A queue pair joined a group: its datagrams come over the wire, too. core_lock held. */
void roce_join(const struct nic *nic, const uint8_t mgid[16]);
/* Does the way to this address lead over the wire? Any thread. */
bool roce_leads_to(const struct nic *nic, const uint8_t dgid[16], uint32_t qpn);
/* busy held: send it; what can't be sent is lost. The status is what its completion says. */
enum ibv_wc_status roce_datagram(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah);

/* ---- connection management ---- */
/* Is this an address of another host, or are all to be treated as such? */
bool roce_is_elsewhere(const struct nic *nic, const uint8_t gid[16]);
/* What a route's `via` is for who is reached at this address. */
uint64_t roce_via(const uint8_t gid[16]);
static inline bool roce_is_via(uint64_t via)
{
    return (via & (LIMIT_SLOTS - 1)) == 0; /* no process has slot 0 */
}
/* The local address that the host's routes give for this one; false: none leads there. */
bool roce_source_for(const uint8_t dgid[16], uint8_t source_out[16]);
/* core_lock held. A program is going to ask for connections, or to be asked. */
int roce_open_nic(const struct nic *nic);
void roce_send_mad(const uint8_t sgid[16], const uint8_t dgid[16], const uint8_t mad[256]);

/* ---- the device ---- */
/* The largest path MTU that the NIC's interface carries, in bytes: 256 .. 4096. Asks the kernel. */
unsigned roce_path_mtu(const struct nic *nic);

/* Once a process, before anything else: 0 or negative errno. */
int roce_open(void);

/* ---- progress ---- */
/* Is there anything to poll? For requester_poll(). */
extern _Atomic uint32_t roce_in_use;
/* A polling thread: whatever has come in or fallen due. No lock held. */
void roce_poll(void);
/* The engine thread, core_lock held. */
void roce_progress(void);
void roce_after_fork(void);

#endif
