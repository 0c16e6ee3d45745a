/* SPDX-License-Identifier: MIT */
/*
 * What goes over shared memory, captured as the packets that the wire would have carried. Whoever
 * carries a request out writes them once it is done: the request's, then the answer's.
 *
 *   shm_execute() --DETOUR_CAPTURE--> carry out --> capture_request()   requests "sent"
 *                                                                   answers  "received"
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "link/shm/capture.h"
#include "trace/pcapng.h"
#include "wire/icrc.h"
#include "wire/packet.h"
#include "wire/psn.h"

enum { SOURCE_PORT_FIRST = 0xc000, HOP_LIMIT = 64 };

struct shm_capture {
    uint32_t life; /* of the queue pair, by its cookie */
    uint32_t psn, msn;
    bool told; /* that the target has no receive for the request at the head */
    uint8_t traffic_class, hop_limit;
    struct icrc_path to, from;
};

/* One request, as it is put into packets. */
struct talk {
    const struct qp *qp;
    struct shm_capture *capture;
    const struct ibv_send_wr *wr;
    uint32_t length, mtu, count; /* count: PSNs that it takes */
    uint8_t service;
};

/* ---- whence and whither ---- */

static void make_paths(struct shm_capture *capture, const struct qp *qp, const uint8_t sgid[16],
                       const uint8_t dgid[16], uint32_t peer_qpn)
{
    uint32_t ports = (uint32_t)(UINT16_MAX - SOURCE_PORT_FIRST);

    memcpy(capture->to.source, sgid, 16);
    memcpy(capture->to.target, dgid, 16);
    memcpy(capture->from.source, dgid, 16);
    memcpy(capture->from.target, sgid, 16);
    capture->to.source_port = (uint16_t)(SOURCE_PORT_FIRST + qp->qpn % ports);
    capture->from.source_port = (uint16_t)(SOURCE_PORT_FIRST + peer_qpn % ports);
    capture->to.target_port = capture->from.target_port = WIRE_UDP_PORT;
}

static void take_class(struct shm_capture *capture, uint8_t traffic_class, uint8_t hop_limit)
{
    capture->traffic_class = traffic_class;
    capture->hop_limit = hop_limit ? hop_limit : HOP_LIMIT;
}

/* The queue pair's, made at its first request of a life. NULL: no memory, and nothing captured. */
static struct shm_capture *capture_of(struct qp *qp)
{
    struct shm_capture *capture = qp->capture;

    if (!capture)
        capture = qp->capture = calloc(1, sizeof(*capture));
    if (!capture || capture->life == qp->pub->cookie)
        return capture;
    *capture = (struct shm_capture){.life = qp->pub->cookie, .psn = qp->attr.sq_psn & PSN_MASK};
    return capture;
}

static void aim(struct shm_capture *capture, const struct qp *qp)
{
    const struct ibv_global_route *route = &qp->attr.ah_attr.grh;

    make_paths(capture, qp, qp->context->nic->gids[route->sgid_index].raw, route->dgid.raw,
               qp->attr.dest_qp_num);
    take_class(capture, route->traffic_class, route->hop_limit);
}

/* ---- a packet ---- */

static void write_packet(const struct shm_capture *capture, bool answer,
                         const struct wire_packet *packet)
{
    const struct icrc_path *path = answer ? &capture->from : &capture->to;
    uint8_t bytes[WIRE_PACKET_MAX + 3];
    size_t headers = wire_emit(packet, bytes), payload = packet->payload_length;
    size_t size = headers + payload + wire_pad((uint32_t)payload) + WIRE_ICRC_SIZE;

    if (payload)
        memcpy(bytes + headers, packet->payload, payload);
    memset(bytes + headers + payload, 0, size - headers - payload);
    uint32_t crc = icrc_begin(path, size, 0);
    icrc_put(bytes + size - WIRE_ICRC_SIZE, icrc_add_headers(crc, bytes, size - WIRE_ICRC_SIZE));
    pcapng_write(answer ? PCAPNG_RECEIVED : PCAPNG_SENT, path, capture->traffic_class,
                 capture->hop_limit, 0, bytes, size);
}

static struct wire_packet request_packet(const struct talk *talk, uint8_t operation, uint32_t index)
{
    return (struct wire_packet){
        .opcode = talk->service | operation,
        .migrated = true,
        .pkey = DEFAULT_PKEY,
        .dest_qpn = talk->qp->attr.dest_qp_num,
        .psn = psn_add(talk->capture->psn, index),
        .xrc_srqn = talk->service == WIRE_XRC ? talk->wr->qp_type.xrc.remote_srqn & 0xffffff : 0,
    };
}

/* Credits: as the wire's responder would grant them. */
static uint8_t credit_code(const struct qp *qp)
{
    const struct target *target = &qp->target;

    if (!target->peer || !target->rq || target->claim || qp->type != IBV_QPT_RC)
        return AETH_CREDIT_NONE;
    return aeth_credit_code(atomic_load(&target->rq->tail) - target->head);
}

static struct wire_packet answer_packet(const struct talk *talk, uint8_t operation, uint32_t index)
{
    struct wire_packet packet = request_packet(talk, operation, index);

    packet.dest_qpn = talk->qp->qpn;
    packet.syndrome = AETH_ACK | credit_code(talk->qp);
    packet.msn = talk->capture->msn;
    return packet;
}

/* Of the request's memory here: what it sends, or what was read. */
static void copy_local(const struct talk *talk, uint32_t offset, uint32_t length, uint8_t *to)
{
    const struct ibv_send_wr *wr = talk->wr;

    memset(to, 0, length);
    for (int i = 0; i < wr->num_sge && length; i++) {
        const struct ibv_sge *sge = &wr->sg_list[i];

        if (offset >= sge->length) {
            offset -= sge->length;
            continue;
        }
        uint32_t part = sge->length - offset < length ? sge->length - offset : length;
        const char *from = local_memory(talk->qp, wr, sge, 0);
        if (from)
            memcpy(to, from + offset, part);
        to += part;
        length -= part;
        offset = 0;
    }
}

/* Give the packet its share of the message, the index-th, and write it. */
static void write_share(const struct talk *talk, bool answer, uint32_t index,
                        struct wire_packet *packet)
{
    uint8_t payload[WIRE_PAYLOAD_MAX];
    uint32_t offset = index * talk->mtu, left = talk->length - offset;

    packet->payload_length = left < talk->mtu ? left : talk->mtu;
    packet->payload = payload;
    copy_local(talk, offset, packet->payload_length, payload);
    write_packet(talk->capture, answer, packet);
}

/* ---- requests ---- */

static enum wire_message message_of(enum ibv_wr_opcode opcode)
{
    switch (opcode) {
    case IBV_WR_SEND_WITH_IMM:
        return WIRE_MESSAGE_SEND_IMM;
    case IBV_WR_SEND_WITH_INV:
        return WIRE_MESSAGE_SEND_INV;
    case IBV_WR_RDMA_WRITE:
        return WIRE_MESSAGE_WRITE;
    case IBV_WR_RDMA_WRITE_WITH_IMM:
        return WIRE_MESSAGE_WRITE_IMM;
    default:
        return WIRE_MESSAGE_SEND;
    }
}

static void write_message(const struct talk *talk)
{
    const struct ibv_send_wr *wr = talk->wr;
    bool loud = (wr->send_flags & IBV_SEND_SOLICITED) && wr->opcode != IBV_WR_RDMA_WRITE;

    for (uint32_t i = 0; i < talk->count; i++) {
        bool last = i == talk->count - 1;
        struct wire_packet packet =
            request_packet(talk, wire_message_operation(message_of(wr->opcode), i == 0, last), i);

        packet.solicited = last && loud;
        packet.ack_request = last && talk->qp->reliable;
        packet.va = wr->wr.rdma.remote_addr;
        packet.rkey = wr->wr.rdma.rkey;
        packet.dma_length = talk->length;
        packet.imm = packet.invalidate_rkey = wr->imm_data;
        write_share(talk, false, i, &packet);
    }
}

static void write_read(const struct talk *talk)
{
    struct wire_packet packet = request_packet(talk, WIRE_READ_REQUEST, 0);

    packet.ack_request = true;
    packet.va = talk->wr->wr.rdma.remote_addr;
    packet.rkey = talk->wr->wr.rdma.rkey;
    packet.dma_length = talk->length;
    write_packet(talk->capture, false, &packet);
}

static void write_atomic(const struct talk *talk)
{
    const struct ibv_send_wr *wr = talk->wr;
    bool add = wr->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
    struct wire_packet packet = request_packet(talk, add ? WIRE_FETCH_ADD : WIRE_COMPARE_SWAP, 0);

    packet.ack_request = true;
    packet.va = wr->wr.atomic.remote_addr;
    packet.rkey = wr->wr.atomic.rkey;
    packet.swap_add = add ? wr->wr.atomic.compare_add : wr->wr.atomic.swap;
    packet.compare = add ? 0 : wr->wr.atomic.compare_add;
    write_packet(talk->capture, false, &packet);
}

static bool is_atomic(enum ibv_wr_opcode opcode)
{
    return opcode == IBV_WR_ATOMIC_FETCH_AND_ADD || opcode == IBV_WR_ATOMIC_CMP_AND_SWP;
}

static void write_request(const struct talk *talk)
{
    if (talk->wr->opcode == IBV_WR_RDMA_READ)
        write_read(talk);
    else if (is_atomic(talk->wr->opcode))
        write_atomic(talk);
    else
        write_message(talk);
}

/* ---- answers ---- */

static void write_read_answer(const struct talk *talk)
{
    for (uint32_t i = 0; i < talk->count; i++) {
        uint8_t operation =
            wire_message_operation(WIRE_MESSAGE_READ_ANSWER, i == 0, i == talk->count - 1);
        struct wire_packet packet = answer_packet(talk, operation, i);

        write_share(talk, true, i, &packet);
    }
}

static void write_atomic_answer(const struct talk *talk)
{
    struct wire_packet packet = answer_packet(talk, WIRE_ATOMIC_ACK, 0);

    copy_local(talk, 0, sizeof(packet.original), (uint8_t *)&packet.original);
    write_packet(talk->capture, true, &packet);
}

static void write_ack(const struct talk *talk, uint8_t syndrome, uint32_t index)
{
    struct wire_packet packet = answer_packet(talk, WIRE_ACK, index);

    if (syndrome)
        packet.syndrome = syndrome;
    write_packet(talk->capture, true, &packet);
}

static void write_answer(const struct talk *talk)
{
    talk->capture->msn = psn_add(talk->capture->msn, 1);
    if (talk->wr->opcode == IBV_WR_RDMA_READ)
        write_read_answer(talk);
    else if (is_atomic(talk->wr->opcode))
        write_atomic_answer(talk);
    else
        write_ack(talk, 0, talk->count - 1);
}

/* ---- connected queue pairs ---- */

static uint8_t service_of(const struct qp *qp)
{
    if (qp->type == IBV_QPT_RC)
        return WIRE_RC;
    return qp->type == IBV_QPT_UC ? WIRE_UC : WIRE_XRC;
}

static bool begin(struct qp *qp, const struct ibv_send_wr *wr, struct talk *talk)
{
    *talk = (struct talk){.qp = qp,
                          .capture = capture_of(qp),
                          .wr = wr,
                          .mtu = 128u << qp->attr.path_mtu,
                          .service = service_of(qp)};
    if (!talk->capture)
        return false;
    aim(talk->capture, qp);
    for (int i = 0; i < wr->num_sge; i++)
        talk->length += wr->sg_list[i].length;
    talk->count = talk->length ? (talk->length + talk->mtu - 1) / talk->mtu : 1;
    return true;
}

/* 0: none of the target's */
static uint8_t refusal_of(enum ibv_wc_status status)
{
    switch (status) {
    case IBV_WC_REM_INV_REQ_ERR:
        return AETH_NAK | NAK_INVALID_REQUEST;
    case IBV_WC_REM_ACCESS_ERR:
        return AETH_NAK | NAK_REMOTE_ACCESS;
    case IBV_WC_REM_OP_ERR:
        return AETH_NAK | NAK_REMOTE_OPERATIONAL;
    default:
        return 0;
    }
}

void capture_request(struct qp *qp, const struct ibv_send_wr *wr, enum ibv_wc_status status)
{
    uint8_t refusal = refusal_of(status);
    struct talk talk;

    if ((status != IBV_WC_SUCCESS && !refusal) || !begin(qp, wr, &talk))
        return;
    write_request(&talk);
    if (refusal)
        write_ack(&talk, refusal, 0);
    else if (qp->reliable)
        write_answer(&talk);
    talk.capture->psn = psn_add(talk.capture->psn, talk.count);
    talk.capture->told = false;
}

void capture_not_ready(struct qp *qp, const struct ibv_send_wr *wr)
{
    struct talk talk;

    if (!begin(qp, wr, &talk) || talk.capture->told)
        return;
    write_request(&talk);
    write_ack(&talk, (uint8_t)(AETH_RNR | (qp->target.rnr_timer & AETH_VALUE_MASK)), 0);
    talk.capture->told = true;
}

/* ---- datagrams ---- */

void capture_datagram(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah)
{
    struct shm_capture *capture = capture_of(qp);
    bool immediate = wr->opcode == IBV_WR_SEND_WITH_IMM;
    uint32_t to = wr->wr.ud.remote_qpn & 0xffffff, qkey = wr->wr.ud.remote_qkey;
    struct talk talk = {
        .qp = qp, .capture = capture, .wr = wr, .mtu = LIMIT_MTU, .count = 1, .service = WIRE_UD};

    if (!capture)
        return;
    make_paths(capture, qp, qp->context->nic->gids[ah->sgid_index].raw, ah->dgid, to);
    take_class(capture, ah->traffic_class, ah->hop_limit);
    for (int i = 0; i < wr->num_sge; i++)
        talk.length += wr->sg_list[i].length;
    struct wire_packet packet =
        request_packet(&talk, immediate ? WIRE_SEND_ONLY_IMM : WIRE_SEND_ONLY, 0);
    packet.dest_qpn = to;
    packet.src_qpn = qp->qpn;
    packet.qkey = qkey >> 31 ? qp->attr.qkey : qkey; /* IBTA 10.2.5 */
    packet.imm = wr->imm_data;
    packet.solicited = wr->send_flags & IBV_SEND_SOLICITED;
    write_share(&talk, false, 0, &packet);
    capture->psn = psn_add(capture->psn, 1);
}
