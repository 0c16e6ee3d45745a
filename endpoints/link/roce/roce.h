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

/* Connected queue pairs. */
extern const struct link_ops link_roce;
/* core_lock held. It is in no table any more: wait until nobody holds a pointer to it. */
void roce_settle(void);
/* core_lock held: as link_watch(). */
void roce_watch(struct qp *qp, uint32_t peer_qpn, bool on);

/* ---- datagrams ---- */
/* The queue pair may receive from now on: from the wire too, if it can be opened. core_lock held.
 */
int roce_receive_datagrams(struct qp *qp);
/* A receive that was taken for a datagram, and not used, completes as flushed. */
void roce_release_held(struct qp *qp);
/* A queue pair joined a group: its datagrams come over the wire, too. core_lock held. */
void roce_join(const struct nic *nic, const uint8_t mgid[16]);
/* One has left it. core_lock held. */
void roce_leave(const struct nic *nic, const uint8_t mgid[16]);
/* busy held: send it; what can't be sent is lost. The status is what its completion says. */
enum ibv_wc_status roce_datagram(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah);

/* ---- connection management ---- */
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
/* A polling thread: whatever has come in or fallen due. No lock held. */
void roce_poll(void);
/* The engine thread, core_lock held. */
void roce_progress(void);
void roce_after_fork(void);
/* core_lock held: as link_rest(). */
void roce_rest(void);

#endif
