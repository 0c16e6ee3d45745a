/* SPDX-License-Identifier: MIT */
/*
 * Unreliable datagrams, to one queue pair or to a multicast group. What the receiver would drop
 * (no such queue pair, wrong Q_Key, no receive, too small a receive) is dropped: the sender's
 * completion says it was sent (IBTA 9.8.3).
 */
#define _GNU_SOURCE
#include <string.h>

#include "core/requester.h"
#include "link/roce/roce.h"
#include "link/shm/grh.h"
#include "link/shm/shm.h"

enum { GROUP_WAIT_NS = 900000000 }; /* less than a datagram waits at all */

/* One datagram, put together: GRH and data as the receiver gets them. */
struct datagram {
    struct qp *qp;
    const struct ibv_send_wr *wr;
    const struct ah *ah;
    uint32_t length; /* with the GRH */
    uint32_t qkey;
    bool unreached;     /* some member of the group is being connected to */
    enum stall stopped; /* what some member makes us wait for */
    uint32_t visited;   /* members seen in this pass */
    uint8_t bytes[GRH_BYTES + LIMIT_MTU];
};

static bool is_group(const struct ah *ah, uint32_t qpn)
{
    return qpn == 0xffffff &&
           (ah->dgid[0] == 0xff || (gid_is_ipv4(ah->dgid) && (ah->dgid[12] & 0xf0) == 0xe0));
}

static bool gather(struct datagram *datagram, enum ibv_wc_status *status)
{
    struct qp *qp = datagram->qp;
    struct local local;
    uint8_t *to = datagram->bytes + GRH_BYTES;

    if (!local_check(qp, datagram->wr, 0, &local, status))
        return false;
    if (local.length > qp->context->path_mtu) {
        *status = IBV_WC_LOC_LEN_ERR;
        return false;
    }
    for (int i = 0; i < datagram->wr->num_sge; i++) {
        const struct ibv_sge *sge = &datagram->wr->sg_list[i];
        const void *from = sge->length ? local_memory(qp, datagram->wr, sge, 0) : NULL;

        if (from)
            memcpy(to, from, sge->length);
        to += sge->length;
    }
    const struct nic *nic = qp->context->nic;
    grh_build(datagram->bytes, datagram->ah, nic->gids[datagram->ah->sgid_index].raw,
              (uint32_t)local.length);
    datagram->length = GRH_BYTES + (uint32_t)local.length;
    return true;
}

/*
 * Place it into the receive's elements; what wqe_done_bytes covers is there already. FAULT: a bad
 * key, and the receive completes in error.
 */
static enum move place(struct datagram *datagram, struct target *target, const struct pub_sge *sges)
{
    struct qp *qp = datagram->qp;
    uint32_t at = 0;

    for (uint32_t i = 0; i < target->rq_sge && at < datagram->length; i++) {
        uint32_t left = datagram->length - at;
        uint32_t part = sges[i].length < left ? sges[i].length : left;
        uint32_t skip = qp->wqe_done_bytes > at ? (uint32_t)qp->wqe_done_bytes - at : 0;

        if (part > skip) {
            uint64_t there = target_mr(target, target->rq_pd, sges[i].lkey, sges[i].addr, part,
                                       IBV_ACCESS_LOCAL_WRITE);
            qp->remote_key = sges[i].lkey;
            enum move moved = there ? move_out(qp, target->peer, there + skip,
                                               datagram->bytes + at + skip, part - skip)
                                    : MOVE_FAULT;
            if (moved != MOVE_DONE)
                return moved;
        }
        at += part;
    }
    return MOVE_DONE;
}

static uint32_t room(const struct target *target)
{
    uint32_t head = (uint32_t)atomic_load_explicit(target->claim, memory_order_acquire);
    const struct pub_sge *sges = &target->sges[(size_t)(head & target->rq_mask) * target->rq_sge];
    uint32_t length = 0;

    for (uint32_t i = 0; i < target->rq_sge; i++)
        length += sges[i].length;
    return length;
}

/* False: the lane is full; the data is in place and the receive stays claimed. */
static bool complete_receive(struct datagram *datagram, struct target *target, uint32_t slot,
                             bool placed)
{
    const struct ibv_send_wr *wr = datagram->wr;
    bool ipv4 = gid_is_ipv4(datagram->ah->dgid);
    struct delivery delivery = {
        .opcode = IBV_WC_RECV,
        .status = placed ? IBV_WC_SUCCESS : IBV_WC_LOC_PROT_ERR,
        .flags = CQE_GRH | (wr->send_flags & IBV_SEND_SOLICITED ? CQE_SOLICITED : 0),
        .byte_len = datagram->length,
        .slot = slot,
        .sl = ipv4 ? 2 : 1, /* the network header's type, where RoCE NICs report it */
    };

    if (wr->opcode == IBV_WR_SEND_WITH_IMM) {
        delivery.flags |= CQE_IMM;
        delivery.imm = wr->imm_data;
    }
    return deliver(datagram->qp, target, &delivery);
}

/* True: there is a receive for it, claimed. */
static bool accepted(struct datagram *datagram, struct target *target, const struct pub_sge **sges,
                     uint32_t *slot)
{
    if (datagram->qp->claimed.valid)
        return receive_next(datagram->qp, target, sges, slot);
    return target->qkey == datagram->qkey && target->claim && room(target) >= datagram->length &&
           receive_next(datagram->qp, target, sges, slot);
}

/* STALL: to be called again, with the receive still claimed. */
static enum move send_to(struct datagram *datagram, struct target *target)
{
    struct qp *qp = datagram->qp;
    const struct pub_sge *sges;
    uint32_t slot;

    if (!target_reach(qp, target))
        return MOVE_STALL;
    if (!accepted(datagram, target, &sges, &slot))
        return MOVE_DONE;
    enum move moved = place(datagram, target, sges);
    if (moved == MOVE_STALL || !complete_receive(datagram, target, slot, moved == MOVE_DONE))
        return MOVE_STALL;
    receive_taken(qp, target);
    qp->pub->tx_bytes += datagram->length - GRH_BYTES;
    qp->pub->sends++;
    qp->wqe_done_bytes = 0;
    return MOVE_DONE;
}

/* ---- groups ---- */

static void for_members(struct peer *peer, struct datagram *datagram,
                        void (*act)(struct datagram *, struct peer *, struct target *))
{
    const struct pub_mcast *members =
        peer_ptr(peer, PUB_MCAST_OFFSET, sizeof(*members) * PUB_MCAST_COUNT);
    uint32_t high = atomic_load(&peer_header(peer)->mcast_high);
    struct ah member = *datagram->ah;

    for (uint32_t i = 0; i < high && i < PUB_MCAST_COUNT; i++) {
        uint32_t qpn = atomic_load_explicit(&members[i].used, memory_order_acquire);
        uint32_t nic = members[i].nic % CONFIG_NICS_MAX;

        if (!qpn || qpn >> LIMIT_QP_BITS != peer->slot ||
            memcmp(members[i].mgid, datagram->ah->dgid, 16))
            continue;
        memcpy(member.dgid, peer_header(peer)->nics[nic].gids[0].raw, 16);
        act(datagram, peer, target_of_many(datagram->qp, member.dgid, qpn));
    }
}

static void check_reach(struct datagram *datagram, struct peer *peer, struct target *target)
{
    (void)peer;
    if (!target_reach(datagram->qp, target) && datagram->qp->stall == STALL_CONNECT)
        datagram->unreached = true;
}

/*
 * A copy for one member; those before were served before a stall. A member that could not be
 * reached in time, or whose engine would have to help, misses this one: the others are not to wait.
 */
static void send_copy(struct datagram *datagram, struct peer *peer, struct target *target)
{
    struct qp *qp = datagram->qp;

    if (datagram->stopped || datagram->visited++ < qp->group_done)
        return;
    if (target_reach(qp, target) && (peer->self || !atomic_load(&peer->no_process_vm)) &&
        send_to(datagram, target) == MOVE_STALL &&
        (qp->stall == STALL_PAGES || qp->stall == STALL_LANE)) {
        datagram->stopped = qp->stall; /* its engine is about to help: come again */
        return;
    }
    qp->group_done++;
    requester_drop_remote(qp);
    receive_abandon(qp);
    qp->wqe_done_bytes = 0;
}

static void check_members(struct peer *peer, void *argument)
{
    for_members(peer, argument, check_reach);
}

static void send_to_members(struct peer *peer, void *argument)
{
    for_members(peer, argument, send_copy);
}

/* Everybody is connected to, or has had the time to be. */
static bool group_is_reached(struct datagram *datagram)
{
    struct qp *qp = datagram->qp;

    datagram->unreached = false;
    if (peer_each(check_members, datagram) && !datagram->unreached)
        return true;
    uint64_t now = now_ns();
    if (!qp->group_since_ns)
        qp->group_since_ns = now;
    return now - qp->group_since_ns >= GROUP_WAIT_NS;
}

/* Reach everybody first, then send, so that nobody gets it twice. */
static bool send_to_group(struct datagram *datagram)
{
    struct qp *qp = datagram->qp;

    if (!qp->group_done && !group_is_reached(datagram)) {
        qp->stall = STALL_CONNECT;
        return false;
    }
    datagram->visited = 0;
    datagram->stopped = STALL_NONE;
    peer_each(send_to_members, datagram);
    if (datagram->stopped) {
        qp->stall = datagram->stopped;
        return false;
    }
    qp->group_since_ns = 0;
    qp->group_done = 0;
    return true;
}

static enum verdict verdict_of(struct qp *qp, bool done)
{
    if (!done)
        return VERDICT_STALL;
    qp->stall = STALL_NONE;
    return VERDICT_DONE;
}

/* A copy for the members of other hosts; what is left is for those of this one. */
static bool is_for_wire(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah,
                        enum ibv_wc_status *status)
{
    uint32_t qpn = wr->wr.ud.remote_qpn & 0xffffff;

    if (!is_group(ah, qpn)) {
        if (__builtin_expect(!target_of_many(qp, ah->dgid, qpn)->wire, 1))
            return false;
        *status = roce_datagram(qp, wr, ah);
        return true;
    }
    if (config_get()->link == CONFIG_LINK_SHM || qp->group_out)
        return false;
    qp->group_out = true; /* once, however often the members here make it wait */
    enum ibv_wc_status sent = roce_datagram(qp, wr, ah);
    if (config_get()->link != CONFIG_LINK_ROCE)
        return false;
    *status = sent;
    return true;
}

bool datagram_is_out(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah)
{
    uint32_t qpn = wr->wr.ud.remote_qpn & 0xffffff;

    return is_group(ah, qpn) ? qp->group_out : target_of_many(qp, ah->dgid, qpn)->wire;
}

enum verdict shm_datagram(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah,
                          enum ibv_wc_status *status)
{
    uint32_t qpn = wr->wr.ud.remote_qpn & 0xffffff;
    struct datagram datagram;

    if (is_for_wire(qp, wr, ah, status))
        return VERDICT_DONE;

    datagram.qp = qp;
    datagram.wr = wr;
    datagram.ah = ah;
    /* IBTA 10.2.5: a Q_Key with the high bit set stands for the queue pair's own */
    datagram.qkey = wr->wr.ud.remote_qkey >> 31 ? qp->attr.qkey : wr->wr.ud.remote_qkey;
    if (!gather(&datagram, status))
        return VERDICT_DONE;
    if (!is_group(ah, qpn))
        return verdict_of(qp, send_to(&datagram, target_of_many(qp, ah->dgid, qpn)) == MOVE_DONE);
    return verdict_of(qp, send_to_group(&datagram));
}
