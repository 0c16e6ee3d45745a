/* SPDX-License-Identifier: MIT */
/* Unreliable datagrams: one packet out, one packet in. */
#include "engine/datagram.h"

#include "engine/scatter.h"

enum { QKEY_PRIVILEGED = 31 };

/* ---- out ---- */

static void *element(const struct transport_calls *calls, void *owner,
                     const struct transport_wr *wr, const struct transport_sge *sge)
{
    if (wr->flags & TRANSPORT_INLINE)
        return (void *)(uintptr_t)sge->addr;
    return calls->local(owner, sge->key, sge->addr, sge->length, false);
}

static enum transport_status gather(const struct transport_calls *calls, void *owner,
                                    const struct transport_wr *wr, struct transport_packet *out)
{
    uint64_t length = 0;

    for (uint32_t i = 0; i < wr->sge_count; i++) {
        const struct transport_sge *sge = &wr->sges[i];

        if (!sge->length)
            continue;
        void *base = element(calls, owner, wr, sge);
        if (!base)
            return TRANSPORT_LOC_PROT_ERR;
        out->parts[out->part_count++] = (struct iovec){base, sge->length};
        length += sge->length;
    }
    out->headers.payload_length = length < UINT32_MAX ? (uint32_t)length : UINT32_MAX;
    return TRANSPORT_SUCCESS;
}

enum transport_status datagram_make(const struct transport_calls *calls, void *owner,
                                    const struct transport_wr *wr, const struct datagram_to *to,
                                    struct transport_packet *packet_out)
{
    bool immediate = wr->op == TRANSPORT_SEND_IMM;

    if (!immediate && wr->op != TRANSPORT_SEND)
        return TRANSPORT_LOC_QP_OP_ERR;
    packet_out->headers = (struct wire_packet){
        .opcode = WIRE_UD | (immediate ? WIRE_SEND_ONLY_IMM : WIRE_SEND_ONLY),
        .solicited = wr->flags & TRANSPORT_SOLICITED,
        .migrated = true,
        .pkey = to->pkey,
        .dest_qpn = to->qpn,
        .psn = to->psn,
        .imm = wr->imm,
        .qkey = to->qkey >> QKEY_PRIVILEGED ? to->own_qkey : to->qkey, /* IBTA 10.2.5 */
        .src_qpn = to->src_qpn,
    };
    packet_out->part_count = 0;
    enum transport_status status = gather(calls, owner, wr, packet_out);
    if (status)
        return status;
    return packet_out->headers.payload_length > to->mtu ? TRANSPORT_LOC_LEN_ERR : TRANSPORT_SUCCESS;
}

/* ---- in ---- */

static struct transport_arrival describe(const struct transport_recv *recv,
                                         const struct wire_packet *packet)
{
    bool immediate = (packet->opcode & ~WIRE_SERVICE_MASK) == WIRE_SEND_ONLY_IMM;

    return (struct transport_arrival){
        .slot = recv->slot,
        .flags = ARRIVAL_GRH | (immediate ? ARRIVAL_IMM : 0u) |
                 (packet->solicited ? ARRIVAL_SOLICITED : 0u),
        .byte_len = DATAGRAM_GRH_SIZE + packet->payload_length,
        .imm = packet->imm,
        .src_qpn = packet->src_qpn,
    };
}

static bool place_all(const struct transport_calls *calls, void *owner,
                      const struct transport_recv *recv, const uint8_t *grh,
                      const struct wire_packet *packet)
{
    return scatter(calls, owner, recv->sges, recv->sge_count, 0, grh, DATAGRAM_GRH_SIZE) &&
           scatter(calls, owner, recv->sges, recv->sge_count, DATAGRAM_GRH_SIZE, packet->payload,
                   packet->payload_length);
}

enum datagram_verdict datagram_receive(const struct transport_calls *calls, void *owner,
                                       uint32_t qkey, struct datagram_hold *hold,
                                       const uint8_t grh[DATAGRAM_GRH_SIZE],
                                       const struct wire_packet *packet)
{
    if (packet->qkey != qkey)
        return DATAGRAM_DROPPED;
    hold->taken = hold->taken || calls->take(owner, &hold->recv);
    if (!hold->taken)
        return DATAGRAM_DROPPED;
    struct transport_arrival arrival = describe(&hold->recv, packet);
    if (arrival.byte_len > receive_capacity(&hold->recv))
        return DATAGRAM_DROPPED;
    if (!place_all(calls, owner, &hold->recv, grh, packet)) {
        arrival.status = TRANSPORT_LOC_PROT_ERR;
        arrival.byte_len = 0;
    }
    hold->taken = false;
    calls->deliver(owner, &arrival);
    return arrival.status ? DATAGRAM_BROKEN : DATAGRAM_TAKEN;
}
