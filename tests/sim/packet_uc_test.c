/* SPDX-License-Identifier: MIT */
/* What an unreliable transport makes of each packet (IBTA 9.8). */
#include "bench.h"
#include "t.h"

static void give_uc(struct bench *bench, uint8_t operation, uint32_t psn, uint32_t length,
                    uint32_t dma_length)
{
    struct wire_packet packet = bench_make(bench, operation, length);

    packet.psn = psn & PSN_MASK;
    packet.ack_request = false;
    packet.dma_length = dma_length;
    bench_give_packet(bench, &packet);
    bench_expect_none(bench);
}

T_TEST(sim, uc_resynchronises)
{
    /* Shows that a gap costs the message it is in, and the next one is taken at any PSN. */
    struct bench bench = bench_new(TRANSPORT_UC);

    sim_recv(bench.node, 1, 0, 4096);
    sim_recv(bench.node, 2, 8192, 4096);
    give_uc(&bench, WIRE_SEND_FIRST, START, MTU, 0);
    give_uc(&bench, WIRE_SEND_LAST, START + 2, 10, 0);
    T_EQ(bench.node->logged, 0);
    give_uc(&bench, WIRE_SEND_MIDDLE, START + 3, MTU, 0);
    give_uc(&bench, WIRE_SEND_FIRST, START + 70, MTU, 0);
    give_uc(&bench, WIRE_SEND_MIDDLE, START + 71, MTU, 0);
    give_uc(&bench, WIRE_SEND_LAST, START + 72, 10, 0);
    T_EQ(sim_nth(bench.node, LOG_RECV, 0)->byte_len, 2 * MTU + 10);
    T_EQ(sim_nth(bench.node, LOG_RECV, 0)->cookie, 1);
    give_uc(&bench, WIRE_SEND_FIRST, START + 73, MTU, 0);
    give_uc(&bench, WIRE_SEND_ONLY, START + 74, 7, 0);
    T_EQ(sim_nth(bench.node, LOG_RECV, 1)->byte_len, 7);
    T_EQ(sim_nth(bench.node, LOG_RECV, 1)->cookie, 2);
    bench_end(&bench);
}

T_TEST(sim, uc_takes_nothing_twice)
{
    /* Shows that what comes again, or too late, is dropped; what was never before is taken. */
    struct bench bench = bench_new(TRANSPORT_UC);

    for (uint32_t i = 0; i < 4; i++)
        sim_recv(bench.node, i, 4096 * i, 4096);
    give_uc(&bench, WIRE_SEND_ONLY, START - 3, 1, 0);
    give_uc(&bench, WIRE_SEND_FIRST, START, MTU, 0);
    give_uc(&bench, WIRE_SEND_ONLY, START - 3, 1, 0);
    give_uc(&bench, WIRE_SEND_FIRST, START, MTU, 0);
    give_uc(&bench, WIRE_SEND_LAST, START + 1, 2, 0);
    give_uc(&bench, WIRE_SEND_ONLY, START + 9, 3, 0);
    give_uc(&bench, WIRE_SEND_ONLY, START + 8, 4, 0);
    give_uc(&bench, WIRE_SEND_ONLY, START - 70000, 5, 0);
    T_EQ(sim_count(bench.node, LOG_RECV), 4);
    T_EQ(sim_nth(bench.node, LOG_RECV, 0)->byte_len, 1);
    T_EQ(sim_nth(bench.node, LOG_RECV, 1)->byte_len, MTU + 2);
    T_EQ(sim_nth(bench.node, LOG_RECV, 2)->byte_len, 3);
    T_EQ(sim_nth(bench.node, LOG_RECV, 3)->byte_len, 5);
    bench_end(&bench);
}

T_TEST(sim, uc_drops)
{
    /* Shows that what has no receive, no right, no room or no sense is dropped without a word. */
    struct bench bench = bench_new(TRANSPORT_UC);

    give_uc(&bench, WIRE_SEND_ONLY, START, 10, 0);
    sim_recv(bench.node, 1, 0, 100);
    give_uc(&bench, WIRE_SEND_ONLY, START + 1, 101, 0);
    give_uc(&bench, WIRE_WRITE_ONLY, START + 2, 10, 11);
    give_uc(&bench, WIRE_WRITE_ONLY_IMM, START + 3, 10, SIM_MEMORY + 10);
    give_uc(&bench, WIRE_WRITE_FIRST, START + 4, MTU, 2 * MTU);
    give_uc(&bench, WIRE_SEND_LAST, START + 5, 10, 0);
    give_uc(&bench, WIRE_WRITE_LAST, START + 6, 10, 0);
    T_EQ(bench.node->logged, 0);
    bench.node->config.access = 0;
    transport_modify(bench.t, &bench.node->config);
    bench.node->memory[0] = 1;
    give_uc(&bench, WIRE_WRITE_ONLY, START + 7, 10, 10);
    T_EQ(bench.node->memory[0], 1);
    give_uc(&bench, WIRE_SEND_ONLY, START + 8, 100, 0);
    T_EQ(sim_nth(bench.node, LOG_RECV, 0)->byte_len, 100);
    T_EQ(sim_count(bench.node, LOG_FAIL), 0);
    bench_end(&bench);
}

T_TEST(sim, uc_sends)
{
    /* Shows that a UC request is over when its last packet was fetched, and sends no READ. */
    struct bench bench = bench_new(TRANSPORT_UC);

    bench_post(&bench, TRANSPORT_SEND, 2 * MTU + 1);
    bench_post(&bench, TRANSPORT_WRITE_IMM, 10);
    bench_post(&bench, TRANSPORT_READ, 10);
    T_ASSERT(!bench_expect(&bench, WIRE_SEND_FIRST, SENT_FIRST).headers.ack_request);
    bench_expect(&bench, WIRE_SEND_MIDDLE, SENT_FIRST + 1);
    T_EQ(sim_count(bench.node, LOG_SEND), 0);
    T_ASSERT(!bench_expect(&bench, WIRE_SEND_LAST, SENT_FIRST + 2).headers.ack_request);
    bench_expect(&bench, WIRE_WRITE_ONLY_IMM, SENT_FIRST + 3);
    T_EQ(sim_count(bench.node, LOG_SEND), 1);
    struct transport_packet packet;
    T_ASSERT(!bench_next(&bench, &packet));
    T_EQ(sim_nth(bench.node, LOG_SEND, 2)->status, TRANSPORT_LOC_QP_OP_ERR);
    T_EQ(transport_deadline(bench.t), TRANSPORT_NEVER);
    bench_end(&bench);
}
