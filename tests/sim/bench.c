/* SPDX-License-Identifier: MIT */
#include "bench.h"

#include <string.h>

#include "t.h"

static uint8_t payload[4096];

struct bench bench_new(enum transport_type type)
{
    struct bench bench = {.sim = sim_new(1, type), .psn = START};

    bench.node = &bench.sim->nodes[1];
    bench.node->psn = SENT_FIRST;
    bench.sim->nodes[0].psn = START;
    bench.node->config.max_dest_rd_atomic = 4;
    sim_start(bench.sim);
    bench.t = bench.node->transport;
    memset(payload, 0xa5, sizeof(payload));
    return bench;
}

void bench_end(struct bench *bench)
{
    sim_free(bench->sim);
}

struct wire_packet bench_make(const struct bench *bench, uint8_t operation, uint32_t length)
{
    uint8_t service = bench->node->config.type == TRANSPORT_UC ? WIRE_UC : WIRE_RC;

    return (struct wire_packet){
        .opcode = service | operation,
        .pkey = 0xffff,
        .psn = bench->psn,
        .payload = payload,
        .payload_length = length,
        .ack_request = true,
        .rkey = SIM_KEY_REMOTE,
        .dma_length = length,
    };
}

void bench_give_packet(struct bench *bench, const struct wire_packet *packet)
{
    transport_receive(bench->t, bench->sim->now_ns, packet, false);
}

void bench_give(struct bench *bench, uint8_t operation, uint32_t length)
{
    struct wire_packet packet = bench_make(bench, operation, length);

    bench_give_packet(bench, &packet);
    bench->psn = psn_add(bench->psn, 1);
}

bool bench_next(struct bench *bench, struct transport_packet *out)
{
    return transport_next(bench->t, bench->sim->now_ns, out);
}

void bench_expect_none(struct bench *bench)
{
    struct transport_packet packet;

    T_ASSERT(!transport_has_next(bench->t, bench->sim->now_ns));
    T_ASSERT(!bench_next(bench, &packet), "an unexpected %s",
             wire_opcode_name(packet.headers.opcode));
}

struct transport_packet bench_expect(struct bench *bench, uint8_t operation, uint32_t psn)
{
    struct transport_packet packet;

    T_ASSERT(transport_has_next(bench->t, bench->sim->now_ns));
    T_ASSERT(bench_next(bench, &packet), "no %s", wire_opcode_name(operation));
    T_EQ(packet.headers.opcode & ~WIRE_SERVICE_MASK, operation);
    T_EQ(packet.headers.psn, psn & PSN_MASK);
    T_EQ(packet.headers.dest_qpn, bench->node->config.dest_qpn);
    return packet;
}

void bench_expect_ack(struct bench *bench, uint32_t psn, uint32_t msn)
{
    struct transport_packet packet = bench_expect(bench, WIRE_ACK, psn);

    T_EQ(packet.headers.syndrome & AETH_TYPE_MASK, AETH_ACK);
    T_EQ(packet.headers.msn, msn);
    bench_expect_none(bench);
}

void bench_expect_nak(struct bench *bench, uint32_t psn, uint8_t syndrome)
{
    struct transport_packet packet = bench_expect(bench, WIRE_ACK, psn);

    T_EQ(packet.headers.syndrome, syndrome);
    bench_expect_none(bench);
}

void bench_post(struct bench *bench, enum transport_op op, uint32_t length)
{
    struct transport_wr wr = sim_wr(op, 0, 0, length, 0);

    T_ASSERT(sim_post(bench->node, &wr));
}
