/* SPDX-License-Identifier: MIT */
/* What a reliable transport answers to each packet, and does with each answer (IBTA 9.7). */
#include <string.h>

#include "bench.h"
#include "t.h"

/* ---- responder: order ---- */

T_TEST(sim, one_nak_a_gap)
{
    /* Shows that a gap is told once, and closes at PSN 0 after 0xffffff as anywhere. */
    struct bench bench = bench_new(TRANSPORT_RC);

    bench_give(&bench, WIRE_WRITE_ONLY, 10);
    bench_expect_ack(&bench, START, 1);
    for (unsigned i = 0; i < 4; i++) {
        bench.psn = psn_add(START, 2 + i);
        bench_give(&bench, WIRE_WRITE_ONLY, 10);
        if (i == 0)
            bench_expect_nak(&bench, START + 1, AETH_NAK | NAK_SEQUENCE);
        bench_expect_none(&bench);
    }
    bench.psn = START + 1;
    for (unsigned i = 1; i < 5; i++) {
        bench_give(&bench, WIRE_WRITE_ONLY, 10);
        bench_expect_ack(&bench, START + i, 1 + i);
    }
    bench.psn = psn_add(bench.psn, 1);
    bench_give(&bench, WIRE_WRITE_ONLY, 10);
    bench_expect_nak(&bench, START + 5, AETH_NAK | NAK_SEQUENCE);
    bench_end(&bench);
}

T_TEST(sim, one_ack_a_batch)
{
    /* Shows that packets that came together are acknowledged together, and only if asked. */
    struct bench bench = bench_new(TRANSPORT_RC);

    for (unsigned i = 0; i < 10; i++)
        bench_give(&bench, WIRE_WRITE_ONLY, 10);
    bench_expect_ack(&bench, START + 9, 10);
    struct wire_packet quiet = bench_make(&bench, WIRE_WRITE_ONLY, 10);
    quiet.ack_request = false;
    bench_give_packet(&bench, &quiet);
    bench_expect_none(&bench);
    bench_end(&bench);
}

T_TEST(sim, stopped_and_still_polite)
{
    /* Shows that what was taken is acknowledged, even if the queue pair is stopped at once. */
    struct bench bench = bench_new(TRANSPORT_RC);

    bench_give(&bench, WIRE_WRITE_ONLY, 10);
    transport_stop(bench.t);
    bench_expect_ack(&bench, START, 1);
    bench_give(&bench, WIRE_WRITE_ONLY, 10);
    bench_expect_none(&bench);
    bench_end(&bench);
}

struct order {
    const char *name;
    uint8_t operations[3];
    uint32_t lengths[3];
    uint32_t dma_length;
    unsigned count;
};

static const struct order orders[] = {
    {"send middle alone", {WIRE_SEND_MIDDLE}, {MTU}, 0, 1},
    {"send last alone", {WIRE_SEND_LAST}, {1}, 0, 1},
    {"write middle alone", {WIRE_WRITE_MIDDLE}, {MTU}, 0, 1},
    {"write last alone", {WIRE_WRITE_LAST}, {1}, 0, 1},
    {"send within send", {WIRE_SEND_FIRST, WIRE_SEND_ONLY}, {MTU, 1}, 0, 2},
    {"send first twice", {WIRE_SEND_FIRST, WIRE_SEND_FIRST}, {MTU, MTU}, 0, 2},
    {"write within send", {WIRE_SEND_FIRST, WIRE_WRITE_LAST}, {MTU, 1}, 0, 2},
    {"send within write", {WIRE_WRITE_FIRST, WIRE_SEND_LAST}, {MTU, 1}, 2 * MTU, 2},
    {"read within write", {WIRE_WRITE_FIRST, WIRE_READ_REQUEST}, {MTU, 0}, 2 * MTU, 2},
    {"atomic within send", {WIRE_SEND_FIRST, WIRE_FETCH_ADD}, {MTU, 0}, 0, 2},
    {"send first too short", {WIRE_SEND_FIRST}, {MTU - 1}, 0, 1},
    {"send first too long", {WIRE_SEND_FIRST}, {MTU + 4}, 0, 1},
    {"send middle too short", {WIRE_SEND_FIRST, WIRE_SEND_MIDDLE}, {MTU, 4}, 0, 2},
    {"send last empty", {WIRE_SEND_FIRST, WIRE_SEND_LAST}, {MTU, 0}, 0, 2},
    {"send last too long", {WIRE_SEND_FIRST, WIRE_SEND_LAST}, {MTU, MTU + 4}, 0, 2},
    {"send only too long", {WIRE_SEND_ONLY}, {MTU + 4}, 0, 1},
    {"write only, less than it says", {WIRE_WRITE_ONLY}, {10}, 11, 1},
    {"write only, more than it says", {WIRE_WRITE_ONLY}, {10}, 9, 1},
    {"write first that is all", {WIRE_WRITE_FIRST}, {MTU}, MTU, 1},
    {"write that ends early", {WIRE_WRITE_FIRST, WIRE_WRITE_LAST}, {MTU, 4}, 2 * MTU, 2},
    {"write that does not end", {WIRE_WRITE_FIRST, WIRE_WRITE_MIDDLE}, {MTU, MTU}, 2 * MTU, 2},
    {"write too large", {WIRE_WRITE_FIRST}, {MTU}, 0x80000001, 1},
    {"read too large", {WIRE_READ_REQUEST}, {0}, 0x80000001, 1},
};

T_TEST(sim, invalid_requests)
{
    /* Shows that wrong order and wrong lengths are invalid requests, and end the queue pair. */
    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        const struct order *order = &orders[i];
        struct bench bench = bench_new(TRANSPORT_RC);
        struct transport_packet packet;

        sim_recv(bench.node, 1, 0, 8192);
        for (unsigned k = 0; k < order->count; k++) {
            struct wire_packet bad = bench_make(&bench, order->operations[k], order->lengths[k]);

            while (bench_next(&bench, &packet))
                ;
            bad.dma_length = order->dma_length;
            bench_give_packet(&bench, &bad);
            bench.psn = psn_add(bench.psn, 1);
        }
        bench_expect_nak(&bench, START + order->count - 1, AETH_NAK | NAK_INVALID_REQUEST);
        T_EQ(sim_nth(bench.node, LOG_FAIL, 0)->failure, FAILED_REQUEST);
        bench_give(&bench, WIRE_WRITE_ONLY, 10);
        bench_expect_none(&bench);
        /* The NAK may have been lost. */
        bench.psn = START + order->count - 1;
        bench_give(&bench, WIRE_WRITE_ONLY, 10);
        bench_expect_nak(&bench, START + order->count - 1, AETH_NAK | NAK_INVALID_REQUEST);
        T_ASSERT(!t_failures(), "in: %s", order->name);
        bench_end(&bench);
    }
}

/* ---- responder: duplicates ---- */

T_TEST(sim, duplicate_message)
{
    /* Shows that a SEND or WRITE that comes again is acknowledged again, and not done again. */
    struct bench bench = bench_new(TRANSPORT_RC);

    sim_recv(bench.node, 1, 0, 100);
    bench_give(&bench, WIRE_SEND_ONLY, 10);
    bench_give(&bench, WIRE_WRITE_ONLY, 10);
    bench_expect_ack(&bench, START + 1, 2);
    bench.node->memory[0] = 1;
    bench.psn = START;
    bench_give(&bench, WIRE_SEND_ONLY, 10);
    bench_expect_ack(&bench, START + 1, 2);
    bench_give(&bench, WIRE_WRITE_ONLY, 10);
    bench_expect_ack(&bench, START + 1, 2);
    T_EQ(bench.node->memory[0], 1);
    T_EQ(sim_count(bench.node, LOG_RECV), 1);
    bench_end(&bench);
}

static struct wire_packet atomic_at(struct bench *bench, uint32_t psn)
{
    struct wire_packet packet = bench_make(bench, WIRE_FETCH_ADD, 0);

    packet.psn = psn & PSN_MASK;
    packet.va = 64;
    packet.swap_add = 5;
    return packet;
}

T_TEST(sim, duplicate_atomic)
{
    /* Shows that an atomic is done once: again, it brings the first result; forgotten, nothing. */
    struct bench bench = bench_new(TRANSPORT_RC);

    for (uint32_t i = 0; i < 6; i++) {
        struct wire_packet packet = atomic_at(&bench, START + i);

        bench_give_packet(&bench, &packet);
        T_EQ(bench_expect(&bench, WIRE_ATOMIC_ACK, START + i).headers.original, 5 * i);
    }
    for (uint32_t i = 0; i < 6; i++) {
        struct wire_packet packet = atomic_at(&bench, START + i);

        bench_give_packet(&bench, &packet);
        if (i < 2) {
            bench_expect_none(&bench);
            continue;
        }
        T_EQ(bench_expect(&bench, WIRE_ATOMIC_ACK, START + i).headers.original, 5 * i);
        bench_expect_none(&bench);
        packet.va += 8;
        bench_give_packet(&bench, &packet);
        bench_expect_none(&bench);
    }
    T_EQ(bench.node->memory[64], 30);
    bench_end(&bench);
}

static struct wire_packet read_of(struct bench *bench, uint32_t psn, uint32_t at, uint32_t length)
{
    struct wire_packet packet = bench_make(bench, WIRE_READ_REQUEST, 0);

    packet.psn = psn & PSN_MASK;
    packet.va = at;
    packet.dma_length = length;
    return packet;
}

static void expect_read(struct bench *bench, uint32_t psn, uint32_t count, uint32_t last_length)
{
    for (uint32_t i = 0; i < count; i++) {
        bool first = i == 0, last = i == count - 1;
        uint8_t operation = first ? (last ? WIRE_READ_ONLY : WIRE_READ_FIRST)
                                  : (last ? WIRE_READ_LAST : WIRE_READ_MIDDLE);
        struct transport_packet packet = bench_expect(bench, operation, psn + i);

        T_EQ(packet.headers.payload_length, last ? last_length : MTU);
    }
}

T_TEST(sim, duplicate_read)
{
    /* Shows that a READ or its rest is answered again, and what it never asked for is not. */
    struct bench bench = bench_new(TRANSPORT_RC);
    struct wire_packet whole = read_of(&bench, START, 0, 4 * MTU + 100);
    struct wire_packet rest = read_of(&bench, START + 2, 2 * MTU, 2 * MTU + 100);
    struct wire_packet other = read_of(&bench, START + 2, 3 * MTU, 2 * MTU + 100);
    struct wire_packet more = read_of(&bench, START + 2, 2 * MTU, 2 * MTU + 101);

    bench_give_packet(&bench, &whole);
    expect_read(&bench, START, 5, 100);
    bench_give_packet(&bench, &whole);
    expect_read(&bench, START, 5, 100);
    bench_give_packet(&bench, &rest);
    expect_read(&bench, START + 2, 3, 100);
    bench_give_packet(&bench, &rest);
    bench_expect(&bench, WIRE_READ_FIRST, START + 2);
    bench_give_packet(&bench, &rest);
    expect_read(&bench, START + 2, 3, 100);
    bench_give_packet(&bench, &other);
    bench_give_packet(&bench, &more);
    bench_expect_none(&bench);
    bench.psn = START + 5;
    bench.psn &= PSN_MASK;
    bench_give(&bench, WIRE_WRITE_ONLY, 1);
    bench_expect_ack(&bench, START + 5, 2);
    bench_end(&bench);
}

T_TEST(sim, answers_in_order)
{
    /* Shows that answers go out by PSN, and an ACK for what came after them behind them. */
    struct bench bench = bench_new(TRANSPORT_RC);
    struct wire_packet read = read_of(&bench, START, 0, 2 * MTU);

    bench_give_packet(&bench, &read);
    struct wire_packet atomic = atomic_at(&bench, START + 2);
    bench_give_packet(&bench, &atomic);
    bench.psn = psn_add(START, 3);
    bench_give(&bench, WIRE_WRITE_ONLY, 1);
    expect_read(&bench, START, 2, MTU);
    bench_expect(&bench, WIRE_ATOMIC_ACK, START + 2);
    bench_expect_ack(&bench, START + 3, 3);
    bench_end(&bench);
}

T_TEST(sim, too_many_reads)
{
    /* Shows that one READ more than can be remembered is an invalid request. */
    struct bench bench = bench_new(TRANSPORT_RC);

    for (uint32_t i = 0; i < 5; i++) {
        struct wire_packet read = read_of(&bench, START + i, 0, 10);

        bench_give_packet(&bench, &read);
    }
    for (uint32_t i = 0; i < 4; i++)
        bench_expect(&bench, WIRE_READ_ONLY, START + i);
    bench_expect_nak(&bench, START + 4, AETH_NAK | NAK_INVALID_REQUEST);
    bench_end(&bench);
}

T_TEST(sim, key_gone_while_answering)
{
    /* Shows that memory that is deregistered is read no more, and that the reader is told. */
    struct bench bench = bench_new(TRANSPORT_RC);
    struct wire_packet read = read_of(&bench, START, 0, 4 * MTU);

    bench_give_packet(&bench, &read);
    bench_expect(&bench, WIRE_READ_FIRST, START);
    bench.node->key_gone = true;
    bench_expect_nak(&bench, START + 1, AETH_NAK | NAK_REMOTE_ACCESS);
    T_EQ(sim_nth(bench.node, LOG_FAIL, 0)->failure, FAILED_ACCESS);
    bench_end(&bench);
}

T_TEST(sim, nothing_of_no_length)
{
    /* Shows that a READ or WRITE of no bytes looks at no key. */
    struct bench bench = bench_new(TRANSPORT_RC);
    struct wire_packet write = bench_make(&bench, WIRE_WRITE_ONLY, 0);
    struct wire_packet read = read_of(&bench, START + 1, 0, 0);

    write.rkey = read.rkey = SIM_KEY_GONE;
    write.va = read.va = UINT64_MAX;
    bench_give_packet(&bench, &write);
    bench_expect_ack(&bench, START, 1);
    bench_give_packet(&bench, &read);
    expect_read(&bench, START + 1, 1, 0);
    bench_end(&bench);
}

T_TEST(sim, another_try_another_nak)
{
    /* Shows that a missing packet that is lost again is told again: what follows begins anew. */
    struct bench bench = bench_new(TRANSPORT_RC);

    bench.psn = START + 1;
    bench_give(&bench, WIRE_WRITE_ONLY, 10);
    bench_expect_nak(&bench, START, AETH_NAK | NAK_SEQUENCE);
    bench_give(&bench, WIRE_WRITE_ONLY, 10);
    bench_expect_none(&bench);
    bench.psn = START + 1;
    bench_give(&bench, WIRE_WRITE_ONLY, 10);
    bench_expect_nak(&bench, START, AETH_NAK | NAK_SEQUENCE);
    bench_give(&bench, WIRE_WRITE_ONLY, 10);
    bench_expect_none(&bench);
    bench_end(&bench);
}

/* ---- RNR and credits, as a responder ---- */

T_TEST(sim, rnr_nak)
{
    /* Shows that without a receive nothing is taken until it comes again and there is one. */
    struct bench bench = bench_new(TRANSPORT_RC);

    bench.node->config.min_rnr_timer = 9;
    transport_modify(bench.t, &bench.node->config);
    bench_give(&bench, WIRE_SEND_ONLY, 10);
    bench_give(&bench, WIRE_SEND_ONLY, 10);
    bench_expect_nak(&bench, START, AETH_RNR | 9);
    sim_recv(bench.node, 1, 0, 100);
    bench.psn = START + 1;
    bench_give(&bench, WIRE_SEND_ONLY, 10);
    bench_expect_none(&bench);
    bench.psn = START;
    bench_give(&bench, WIRE_SEND_ONLY, 10);
    bench_expect_ack(&bench, START, 1);
    bench_end(&bench);
}

T_TEST(sim, credits_granted)
{
    /* Shows that each ACK grants what is posted, rounded down to what a code can say. */
    static const struct {
        uint32_t posted;
        uint8_t code;
    } steps[] = {{0, 0x00}, {1, 0x01}, {3, 0x03}, {5, 0x04}, {12, 0x07}, {100, 0x0d}};
    struct bench bench = bench_new(TRANSPORT_RC);

    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        while (bench.node->recv_tail - bench.node->recv_head < steps[i].posted)
            sim_recv(bench.node, 1, 0, 100);
        bench_give(&bench, WIRE_WRITE_ONLY, 10);
        T_EQ(bench_expect(&bench, WIRE_ACK, START + i).headers.syndrome, steps[i].code);
    }
    bench.node->shared_receives = true;
    bench_give(&bench, WIRE_WRITE_ONLY, 10);
    T_EQ(bench_expect(&bench, WIRE_ACK, START + 6).headers.syndrome, AETH_CREDIT_NONE);
    bench_end(&bench);
}

/* ---- requester ---- */

static void answer_with(struct bench *bench, uint8_t operation, uint32_t psn, uint8_t syndrome,
                        uint32_t msn)
{
    struct wire_packet packet = bench_make(bench, operation, 0);

    packet.psn = psn & PSN_MASK;
    packet.syndrome = syndrome;
    packet.msn = msn;
    bench_give_packet(bench, &packet);
}

T_TEST(sim, credits_honoured)
{
    /* Shows that SENDs go as far as credits reach and one beyond, and that WRITEs need none. */
    struct bench bench = bench_new(TRANSPORT_RC);

    for (unsigned i = 0; i < 8; i++)
        bench_post(&bench, TRANSPORT_SEND, 10);
    bench_expect(&bench, WIRE_SEND_ONLY, SENT_FIRST);
    bench_expect_none(&bench);
    answer_with(&bench, WIRE_ACK, SENT_FIRST, 0x02, 1);
    for (unsigned i = 1; i < 4; i++)
        bench_expect(&bench, WIRE_SEND_ONLY, SENT_FIRST + i);
    bench_expect_none(&bench);
    answer_with(&bench, WIRE_ACK, SENT_FIRST + 1, 0x00, 2);
    bench_expect_none(&bench);
    answer_with(&bench, WIRE_ACK, SENT_FIRST + 3, 0x00, 4);
    bench_expect(&bench, WIRE_SEND_ONLY, SENT_FIRST + 4);
    bench_expect_none(&bench);
    answer_with(&bench, WIRE_ACK, SENT_FIRST + 4, AETH_CREDIT_NONE, 5);
    for (unsigned i = 5; i < 8; i++)
        bench_expect(&bench, WIRE_SEND_ONLY, SENT_FIRST + i);
    bench_expect_none(&bench);
    T_EQ(sim_count(bench.node, LOG_SEND), 5);
    bench_end(&bench);
}

T_TEST(sim, writes_need_no_credit)
{
    struct bench bench = bench_new(TRANSPORT_RC);

    for (unsigned i = 0; i < 4; i++)
        bench_post(&bench, TRANSPORT_WRITE, 10);
    bench_post(&bench, TRANSPORT_WRITE_IMM, 10);
    for (unsigned i = 0; i < 4; i++)
        bench_expect(&bench, WIRE_WRITE_ONLY, SENT_FIRST + i);
    bench_expect_none(&bench);
    answer_with(&bench, WIRE_ACK, SENT_FIRST + 3, 0, 4);
    bench_expect(&bench, WIRE_WRITE_ONLY_IMM, SENT_FIRST + 4);
    bench_end(&bench);
}

T_TEST(sim, answers_that_are_none)
{
    /* Shows that answers to what was not sent, or is over, change nothing. */
    struct bench bench = bench_new(TRANSPORT_RC);

    bench_post(&bench, TRANSPORT_WRITE, 3 * MTU);
    for (unsigned i = 0; i < 3; i++)
        bench_expect(&bench,
                     i == 0   ? WIRE_WRITE_FIRST
                     : i == 1 ? WIRE_WRITE_MIDDLE
                              : WIRE_WRITE_LAST,
                     SENT_FIRST + i);
    static const uint32_t psns[] = {SENT_FIRST - 1, SENT_FIRST + 3, SENT_FIRST + 0x800000, 0};
    static const uint8_t syndromes[] = {0x1f, 0x60, 0x61, 0x62, 0x63, 0x2f, 0x5f, 0xff};
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned k = 0; k < sizeof(syndromes); k++)
            answer_with(&bench, WIRE_ACK, psns[i], syndromes[k], 1);
        answer_with(&bench, WIRE_READ_ONLY, psns[i], 0x1f, 1);
        answer_with(&bench, WIRE_ATOMIC_ACK, psns[i], 0x1f, 1);
    }
    answer_with(&bench, WIRE_READ_ONLY, SENT_FIRST, 0x1f, 1);
    answer_with(&bench, WIRE_ATOMIC_ACK, SENT_FIRST + 1, 0x1f, 1);
    bench_expect_none(&bench);
    T_EQ(bench.node->logged, 0);
    answer_with(&bench, WIRE_ACK, SENT_FIRST + 2, 0x1f, 1);
    T_EQ(sim_nth(bench.node, LOG_SEND, 0)->status, TRANSPORT_SUCCESS);
    bench_end(&bench);
}

T_TEST(sim, other_partitions)
{
    /* Shows that other partitions, services and transports of our own are not heard. */
    struct bench bench = bench_new(TRANSPORT_RC);
    static const uint16_t pkeys[] = {0x0000, 0x8000, 0x7ffe, 0xfffe};

    for (unsigned i = 0; i < 4; i++) {
        struct wire_packet packet = bench_make(&bench, WIRE_WRITE_ONLY, 10);

        packet.pkey = pkeys[i];
        bench_give_packet(&bench, &packet);
    }
    struct wire_packet packet = bench_make(&bench, WIRE_WRITE_ONLY, 10);
    packet.opcode |= WIRE_UC;
    bench_give_packet(&bench, &packet);
    packet.opcode = 0x15;
    bench_give_packet(&bench, &packet);
    bench_expect_none(&bench);
    packet = bench_make(&bench, WIRE_WRITE_ONLY, 10);
    packet.pkey = 0x7fff; /* a limited member talks to a full one */
    bench_give_packet(&bench, &packet);
    bench_expect_ack(&bench, START, 1);
    bench_end(&bench);
}

T_TEST(sim, resend_asks_again)
{
    /* Shows that after a lost ACK the oldest packet is sent again, early, and asks for an ACK. */
    struct bench bench = bench_new(TRANSPORT_RC);

    bench_post(&bench, TRANSPORT_WRITE, 10);
    bench_expect(&bench, WIRE_WRITE_ONLY, SENT_FIRST);
    T_ASSERT(transport_deadline(bench.t) < RTO_NS);
    bench.sim->now_ns = transport_deadline(bench.t);
    transport_expire(bench.t, bench.sim->now_ns);
    T_ASSERT(bench_expect(&bench, WIRE_WRITE_ONLY, SENT_FIRST).headers.ack_request);
    answer_with(&bench, WIRE_ACK, SENT_FIRST, 0x1f, 1);
    T_EQ(transport_deadline(bench.t), TRANSPORT_NEVER);
    bench_end(&bench);
}

/* Small messages that nobody waits for, in a window that an ACK has opened. */
static void post_quiet(struct bench *bench, unsigned count)
{
    struct transport_packet packet;

    bench_post(bench, TRANSPORT_WRITE, 10);
    T_ASSERT(bench_expect(bench, WIRE_WRITE_ONLY, SENT_FIRST).headers.ack_request);
    answer_with(bench, WIRE_ACK, SENT_FIRST, 0x1f, 1);
    for (unsigned i = 0; i < count; i++) {
        bench_post(bench, TRANSPORT_WRITE, 10);
        packet = bench_expect(bench, WIRE_WRITE_ONLY, SENT_FIRST + 1 + i);
        T_ASSERT(!packet.headers.ack_request);
    }
}

T_TEST(sim, quiet_messages_are_asked_about_later)
{
    /* Shows that small unsignalled messages ask for no ACK at first, and the last one for all. */
    struct bench bench = bench_new(TRANSPORT_RC);

    bench.sim->now_ns = 1000000;
    post_quiet(&bench, 3);
    bench_expect_none(&bench);
    bench.sim->now_ns = transport_deadline(bench.t);
    transport_expire(bench.t, bench.sim->now_ns);
    T_ASSERT(bench_expect(&bench, WIRE_WRITE_ONLY, SENT_FIRST + 3).headers.ack_request);
    bench_expect_none(&bench);
    T_EQ(sim_count(bench.node, LOG_SEND), 1);
    answer_with(&bench, WIRE_ACK, SENT_FIRST + 3, 0x1f, 4);
    T_EQ(sim_count(bench.node, LOG_SEND), 4);
    T_EQ(transport_deadline(bench.t), TRANSPORT_NEVER);
    bench_end(&bench);
}

T_TEST(sim, quiet_messages_asked_about_now_and_then)
{
    /* Shows that a completion the program waits for is asked for, and so is a while's silence. */
    struct bench bench = bench_new(TRANSPORT_RC);
    struct transport_wr wr = sim_wr(TRANSPORT_WRITE, 9, 0, 10, 0);

    bench.sim->now_ns = 1000000;
    post_quiet(&bench, 2);
    wr.flags |= TRANSPORT_SIGNALED;
    T_ASSERT(sim_post(bench.node, &wr));
    T_ASSERT(bench_expect(&bench, WIRE_WRITE_ONLY, SENT_FIRST + 3).headers.ack_request);
    bench_post(&bench, TRANSPORT_WRITE, 10);
    T_ASSERT(!bench_expect(&bench, WIRE_WRITE_ONLY, SENT_FIRST + 4).headers.ack_request);
    bench.sim->now_ns += 50000;
    bench_post(&bench, TRANSPORT_WRITE, 10);
    T_ASSERT(bench_expect(&bench, WIRE_WRITE_ONLY, SENT_FIRST + 5).headers.ack_request);
    bench_end(&bench);
}

T_TEST(sim, nak_goes_back_once)
{
    /* Shows that a NAK resends from its PSN, and that the same one again does not. */
    struct bench bench = bench_new(TRANSPORT_RC);

    bench_post(&bench, TRANSPORT_WRITE, 4 * MTU);
    struct transport_packet packet;
    while (bench_next(&bench, &packet))
        ;
    answer_with(&bench, WIRE_ACK, SENT_FIRST + 1, AETH_NAK | NAK_SEQUENCE, 0);
    bench_expect(&bench, WIRE_WRITE_MIDDLE, SENT_FIRST + 1);
    answer_with(&bench, WIRE_ACK, SENT_FIRST + 1, AETH_NAK | NAK_SEQUENCE, 0);
    bench_expect(&bench, WIRE_WRITE_MIDDLE, SENT_FIRST + 2);
    bench_expect(&bench, WIRE_WRITE_LAST, SENT_FIRST + 3);
    bench_expect_none(&bench);
    bench_end(&bench);
}

T_TEST(sim, answer_of_wrong_length)
{
    /* Shows that a READ's answer of another length than it must have is fatal (IBTA 9.9.2). */
    struct bench bench = bench_new(TRANSPORT_RC);

    bench_post(&bench, TRANSPORT_READ, 100);
    bench_expect(&bench, WIRE_READ_REQUEST, SENT_FIRST);
    struct wire_packet answer = bench_make(&bench, WIRE_READ_ONLY, 99);
    answer.psn = SENT_FIRST;
    answer.syndrome = 0x1f;
    bench_give_packet(&bench, &answer);
    T_EQ(sim_nth(bench.node, LOG_SEND, 0)->status, TRANSPORT_BAD_RESP_ERR);
    bench_end(&bench);
}

T_TEST(sim, congestion)
{
    /* Shows that marked packets bring a CNP, not too often, and a CNP a smaller window. */
    struct bench bench = bench_new(TRANSPORT_RC);
    struct transport_packet packet;
    unsigned before = 0, after = 0;

    for (unsigned i = 0; i < 3; i++) {
        struct wire_packet marked = bench_make(&bench, WIRE_WRITE_ONLY, 10);

        marked.psn = psn_add(START, i);
        transport_receive(bench.t, 1000, &marked, true);
    }
    T_ASSERT(bench_next(&bench, &packet));
    T_EQ(packet.headers.opcode, WIRE_CNP);
    T_ASSERT(packet.headers.becn);
    bench_expect_ack(&bench, START + 2, 3);
    bench_post(&bench, TRANSPORT_WRITE, 100 * MTU);
    while (bench_next(&bench, &packet))
        before++;
    struct wire_packet cnp = {.opcode = WIRE_CNP, .becn = true, .pkey = 0xffff};
    bench_give_packet(&bench, &cnp);
    answer_with(&bench, WIRE_ACK, SENT_FIRST + before - 1, 0x1f, 0);
    while (bench_next(&bench, &packet))
        after++;
    T_ASSERT(after < before, "%u, then %u", before, after);
    bench_end(&bench);
}
