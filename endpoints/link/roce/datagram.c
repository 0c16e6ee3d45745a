/* SPDX-License-Identifier: MIT */
/* Unreliable datagrams over the wire, to one queue pair or to a multicast group of IP. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/config_host.h"
#include "link/roce/roce_impl.h"
#include "engine/datagram.h"
#include "link/shm/grh.h"

/* ---- sending ---- */

static bool is_group(const uint8_t gid[16])
{
    return address_is_v4(gid) ? (gid[12] & 0xf0) == 0xe0 : gid[0] == 0xff;
}

static void translate(const struct ibv_send_wr *wr, struct transport_wr *to)
{
    to->op = (enum transport_op)wr->opcode;
    to->flags = (wr->send_flags & IBV_SEND_SOLICITED ? TRANSPORT_SOLICITED : 0) |
                (wr->send_flags & IBV_SEND_INLINE ? TRANSPORT_INLINE : 0);
    to->imm = wr->imm_data;
    to->sge_count = (uint32_t)wr->num_sge;
    to->sges = (const struct transport_sge *)(const void *)wr->sg_list;
}

static bool make_path(const struct qp *qp, const struct ah *ah, struct roce_path *path)
{
    const struct nic *nic = qp->context->nic;
    const uint8_t *sgid = nic->gids[ah->sgid_index].raw;
    struct roce_port *port =
        is_group(ah->dgid) ? udp_group_port(nic, sgid, ah->dgid) : udp_port_find(sgid);

    if (!port || udp_path(port, ah->dgid, qp->qpn, path))
        return false;
    path->traffic_class = ah->traffic_class;
    path->hop_limit = ah->hop_limit;
    return true;
}

enum ibv_wc_status roce_datagram(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah)
{
    struct transport_packet packet;
    struct transport_wr request = {0};
    struct roce_path path;
    bool there = make_path(qp, ah, &path);
    struct datagram_to to = {
        .qpn = is_group(ah->dgid) ? WIRE_QPN_MULTICAST : wr->wr.ud.remote_qpn & 0xffffff,
        .qkey = wr->wr.ud.remote_qkey,
        .src_qpn = qp->qpn,
        .own_qkey = qp->attr.qkey,
        .pkey = DEFAULT_PKEY,
        .mtu = there ? udp_path_mtu(path.port->mtu) : LIMIT_MTU,
        .psn = qp->sq_psn,
    };

    translate(wr, &request);
    enum transport_status status = datagram_make(&roce_calls, qp, &request, &to, &packet);
    if (status != TRANSPORT_SUCCESS)
        return (enum ibv_wc_status)status;
    qp->sq_psn = (qp->sq_psn + 1) & 0xffffff;
    if (!there)
        return IBV_WC_SUCCESS; /* there is no way: as lost as on any other */
    struct roce_batch *batch = batch_take();
    batch_add(batch, &path, &packet);
    batch_send(batch);
    roce_use_datagrams();
    return IBV_WC_SUCCESS;
}

/* ---- receiving ---- */

int roce_receive_datagrams(struct qp *qp)
{
    int error = roce_open_nic(qp->context->nic);

    if (!qp->hold)
        qp->hold = calloc(1, sizeof(*qp->hold));
    if (!qp->hold)
        return -ENOMEM;
    if (config_get()->link != CONFIG_LINK_ROCE)
        return 0; /* who is on this host reaches it all the same */
    roce_use_datagrams();
    return error;
}

void roce_join(const struct nic *nic, const uint8_t mgid[16])
{
    if (config_get()->link == CONFIG_LINK_SHM)
        return;
    roce_open_nic(nic);
    udp_group_join(nic, mgid);
}

/* Where the member listens: 0 if nowhere. */
static uint32_t interface_of(const struct pub_mcast *member)
{
    const struct nic *nic = &config_get()->nics[member->nic];
    const struct roce_port *way = udp_group_port(nic, nic->gids[0].raw, member->mgid);

    return way ? way->interface : 0;
}

/* The n-th entry is a member of this group by this interface. */
static bool is_member(uint32_t n, const uint8_t mgid[16], uint32_t interface)
{
    const struct pub_mcast *member = &arena_mcast()[n];

    return atomic_load_explicit(&member->used, memory_order_acquire) &&
           !memcmp(member->mgid, mgid, 16) && interface_of(member) == interface;
}

void roce_leave(const struct nic *nic, const uint8_t mgid[16])
{
    const struct roce_port *way = udp_group_port(nic, nic->gids[0].raw, mgid);
    uint32_t high = atomic_load(&arena_header()->mcast_high);

    for (uint32_t i = 0; way && i < high; i++)
        if (is_member(i, mgid, way->interface))
            return;
    if (way)
        udp_group_leave(way->interface, mgid);
}

void roce_release_held(struct qp *qp)
{
    struct transport_arrival arrival = {.status = TRANSPORT_FLUSH_ERR};

    if (!qp->hold || !qp->hold->taken)
        return;
    arrival.slot = qp->hold->recv.slot;
    qp->hold->taken = false;
    roce_calls.deliver(qp, &arrival);
}

static void make_grh(const struct roce_from *from, const struct wire_packet *packet,
                     uint8_t grh[GRH_BYTES])
{
    struct ah to = {.traffic_class = from->traffic_class, .hop_limit = from->hop_limit};

    memcpy(to.dgid, from->icrc.target, 16);
    grh_build(grh, &to, from->icrc.source, packet->payload_length);
}

void roce_datagram_receive(struct qp *qp, const struct roce_from *from,
                           const struct wire_packet *packet)
{
    uint8_t grh[GRH_BYTES];

    if (!wire_pkey_matches(packet->pkey, DEFAULT_PKEY))
        return;
    make_grh(from, packet, grh);
    roce_use_datagrams();
    spin_lock_word(&qp->pub->busy);
    enum ibv_qp_state state = qp_state(qp);
    if (qp->hold && (state == IBV_QPS_RTR || state == IBV_QPS_RTS || state == IBV_QPS_SQD ||
                     state == IBV_QPS_SQE)) {
        qp->datagram_v4 = from->port->v4;
        if (datagram_receive(&roce_calls, qp, qp->attr.qkey, qp->hold, grh, packet) ==
            DATAGRAM_BROKEN)
            qp_fail(qp, 0);
    }
    spin_unlock_word(&qp->pub->busy);
}

/* Members of this host have had theirs in shared memory, but a network may bring a copy back. */
static bool is_our_own(const struct roce_from *from)
{
    return config_get()->link != CONFIG_LINK_ROCE && udp_port_find(from->icrc.source);
}

void roce_group_receive(const struct roce_from *from, const struct wire_packet *packet)
{
    const struct pub_mcast *members = arena_mcast();
    uint32_t high = atomic_load(&arena_header()->mcast_high);

    if (is_our_own(from))
        return;
    for (uint32_t i = 0; i < high; i++) {
        uint32_t qpn = atomic_load_explicit(&members[i].used, memory_order_acquire);
        struct qp *qp = qpn ? qp_get(qpn & (LIMIT_QP - 1)) : NULL;

        if (qp && qp->type == IBV_QPT_UD && is_member(i, from->icrc.target, from->port->interface))
            roce_datagram_receive(qp, from, packet);
    }
}
