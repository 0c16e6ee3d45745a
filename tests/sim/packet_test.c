/* SPDX-License-Identifier: MIT */
/*
 * One transport, and packets made by hand: what it answers to each, in the words of IBTA 9.7 and
 * 9.8. Node 1 of a simulation stands for the transport, its wire is not used.
 */
#include <string.h>

#include "sim.h"
#include "t.h"
#include "wire/psn.h"

enum { START = 0xfffffe, RTO_NS = 10000000, MTU = 1024, SENT_FIRST = 0x700 };

static uint8_t payload[4096];

struct bench {
    struct sim *sim;
    struct sim_node *node;
    struct transport *t;
    uint32_t psn; /* of the next packet given */
};

static struct bench bench_new(enum transport_type type)
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

static void bench_end(struct bench *bench)
{
    sim_free(bench->sim);
}

static struct wire_packet make(const struct bench *bench, uint8_t operation, uint32_t length)
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

static void give_packet(struct bench *bench, const struct wire_packet *packet)
{
    transport_receive(bench->t, bench->sim->now_ns, packet, false);
}

/* A request in its turn. */
static void give(struct bench *bench, uint8_t operation, uint32_t length)
{
    struct wire_packet packet = make(bench, operation, length);

    give_packet(bench, &packet);
    bench->psn = psn_add(bench->psn, 1);
}

static bool next(struct bench *bench, struct transport_packet *out)
{
    return transport_next(bench->t, bench->sim->now_ns, out);
}

static void expect_none(struct bench *bench)
{
    struct transport_packet packet;

    T_ASSERT(!transport_has_next(bench->t, bench->sim->now_ns));
    T_ASSERT(!next(bench, &packet), "an unexpected %s", wire_opcode_name(packet.headers.opcode));
}

static struct transport_packet expect(struct bench *bench, uint8_t operation, uint32_t psn)
{
    struct transport_packet packet;

    T_ASSERT(transport_has_next(bench->t, bench->sim->now_ns));
    T_ASSERT(next(bench, &packet), "no %s", wire_opcode_name(operation));
    T_EQ(packet.headers.opcode & ~WIRE_SERVICE_MASK, operation);
    T_EQ(packet.headers.psn, psn & PSN_MASK);
    T_EQ(packet.headers.dest_qpn, bench->node->config.dest_qpn);
    return packet;
}

static void expect_ack(struct bench *bench, uint32_t psn, uint32_t msn)
{
    struct transport_packet packet = expect(bench, WIRE_ACK, psn);

    T_EQ(packet.headers.syndrome & AETH_TYPE_MASK, AETH_ACK);
    T_EQ(packet.headers.msn, msn);
    expect_none(bench);
}

static void expect_nak(struct bench *bench, uint32_t psn, uint8_t syndrome)
{
    struct transport_packet packet = expect(bench, WIRE_ACK, psn);

    T_EQ(packet.headers.syndrome, syndrome);
    expect_none(bench);
}

/* ---- responder: order ---- */

T_TEST(sim, one_nak_a_gap)
{
    /* Shows that a gap is told once, and closes at PSN 0 after 0xffffff as anywhere. */
    struct bench bench = bench_new(TRANSPORT_RC);

    give(&bench, WIRE_WRITE_ONLY, 10);
    expect_ack(&bench, START, 1);
    for (unsigned i = 0; i < 4; i++) {
        bench.psn = psn_add(START, 2 + i);
        give(&bench, WIRE_WRITE_ONLY, 10);
        if (i == 0)
            expect_nak(&bench, START + 1, AETH_NAK | NAK_SEQUENCE);
        expect_none(&bench);
    }
    bench.psn = START + 1;
    for (unsigned i = 1; i < 5; i++) {
        give(&bench, WIRE_WRITE_ONLY, 10);
        expect_ack(&bench, START + i, 1 + i);
    }
    bench.psn = psn_add(bench.psn, 1);
    give(&bench, WIRE_WRITE_ONLY, 10);
    expect_nak(&bench, START + 5, AETH_NAK | NAK_SEQUENCE);
    bench_end(&bench);
}

T_TEST(sim, one_ack_a_batch)
{
    /* Shows that packets that came together are acknowledged together, and only if asked. */
    struct bench bench = bench_new(TRANSPORT_RC);

    for (unsigned i = 0; i < 10; i++)
        give(&bench, WIRE_WRITE_ONLY, 10);
    expect_ack(&bench, START + 9, 10);
    struct wire_packet quiet = make(&bench, WIRE_WRITE_ONLY, 10);
    quiet.ack_request = false;
    give_packet(&bench, &quiet);
    expect_none(&bench);
    bench_end(&bench);
}

T_TEST(sim, stopped_and_still_polite)
{
    /* Shows that what was taken is acknowledged, even if the queue pair is stopped at once. */
    struct bench bench = bench_new(TRANSPORT_RC);

    give(&bench, WIRE_WRITE_ONLY, 10);
    transport_stop(bench.t);
    expect_ack(&bench, START, 1);
    give(&bench, WIRE_WRITE_ONLY, 10);
    expect_none(&bench);
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
            struct wire_packet bad = make(&bench, order->operations[k], order->lengths[k]);

            while (next(&bench, &packet))
                ;
            bad.dma_length = order->dma_length;
            give_packet(&bench, &bad);
            bench.psn = psn_add(bench.psn, 1);
        }
        expect_nak(&bench, START + order->count - 1, AETH_NAK | NAK_INVALID_REQUEST);
        T_EQ(sim_nth(bench.node, LOG_FAIL, 0)->failure, FAILED_REQUEST);
        give(&bench, WIRE_WRITE_ONLY, 10);
        expect_none(&bench);
        /* The NAK may have been lost. */
        bench.psn = START + order->count - 1;
        give(&bench, WIRE_WRITE_ONLY, 10);
        expect_nak(&bench, START + order->count - 1, AETH_NAK | NAK_INVALID_REQUEST);
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
    give(&bench, WIRE_SEND_ONLY, 10);
    give(&bench, WIRE_WRITE_ONLY, 10);
    expect_ack(&bench, START + 1, 2);
    bench.node->memory[0] = 1;
    bench.psn = START;
    give(&bench, WIRE_SEND_ONLY, 10);
    expect_ack(&bench, START + 1, 2);
    give(&bench, WIRE_WRITE_ONLY, 10);
    expect_ack(&bench, START + 1, 2);
    T_EQ(bench.node->memory[0], 1);
    T_EQ(sim_count(bench.node, LOG_RECV), 1);
    bench_end(&bench);
}

static struct wire_packet atomic_at(struct bench *bench, uint32_t psn)
{
    struct wire_packet packet = make(bench, WIRE_FETCH_ADD, 0);

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

        give_packet(&bench, &packet);
        T_EQ(expect(&bench, WIRE_ATOMIC_ACK, START + i).headers.original, 5 * i);
    }
    for (uint32_t i = 0; i < 6; i++) {
        struct wire_packet packet = atomic_at(&bench, START + i);

        give_packet(&bench, &packet);
        if (i < 2) {
            expect_none(&bench);
            continue;
        }
        T_EQ(expect(&bench, WIRE_ATOMIC_ACK, START + i).headers.original, 5 * i);
        expect_none(&bench);
        packet.va += 8;
        give_packet(&bench, &packet);
        expect_none(&bench);
    }
    T_EQ(bench.node->memory[64], 30);
    bench_end(&bench);
}

static struct wire_packet read_of(struct bench *bench, uint32_t psn, uint32_t at, uint32_t length)
{
    struct wire_packet packet = make(bench, WIRE_READ_REQUEST, 0);

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
        struct transport_packet packet = expect(bench, operation, psn + i);

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

    give_packet(&bench, &whole);
    expect_read(&bench, START, 5, 100);
    give_packet(&bench, &whole);
    expect_read(&bench, START, 5, 100);
    give_packet(&bench, &rest);
    expect_read(&bench, START + 2, 3, 100);
    give_packet(&bench, &rest);
    expect(&bench, WIRE_READ_FIRST, START + 2);
    give_packet(&bench, &rest);
    expect_read(&bench, START + 2, 3, 100);
    give_packet(&bench, &other);
    give_packet(&bench, &more);
    expect_none(&bench);
    bench.psn = START + 5;
    bench.psn &= PSN_MASK;
    give(&bench, WIRE_WRITE_ONLY, 1);
    expect_ack(&bench, START + 5, 2);
    bench_end(&bench);
}

T_TEST(sim, answers_in_order)
{
    /* Shows that answers go out by PSN, and an ACK for what came after them behind them. */
    struct bench bench = bench_new(TRANSPORT_RC);
    struct wire_packet read = read_of(&bench, START, 0, 2 * MTU);

    give_packet(&bench, &read);
    struct wire_packet atomic = atomic_at(&bench, START + 2);
    give_packet(&bench, &atomic);
    bench.psn = psn_add(START, 3);
    give(&bench, WIRE_WRITE_ONLY, 1);
    expect_read(&bench, START, 2, MTU);
    expect(&bench, WIRE_ATOMIC_ACK, START + 2);
    expect_ack(&bench, START + 3, 3);
    bench_end(&bench);
}

T_TEST(sim, too_many_reads)
{
    /* Shows that one READ more than can be remembered is an invalid request. */
    struct bench bench = bench_new(TRANSPORT_RC);

    for (uint32_t i = 0; i < 5; i++) {
        struct wire_packet read = read_of(&bench, START + i, 0, 10);

        give_packet(&bench, &read);
    }
    for (uint32_t i = 0; i < 4; i++)
        expect(&bench, WIRE_READ_ONLY, START + i);
    expect_nak(&bench, START + 4, AETH_NAK | NAK_INVALID_REQUEST);
    bench_end(&bench);
}

T_TEST(sim, key_gone_while_answering)
{
    /* Shows that memory that is deregistered is read no more, and that the reader is told. */
    struct bench bench = bench_new(TRANSPORT_RC);
    struct wire_packet read = read_of(&bench, START, 0, 4 * MTU);

    give_packet(&bench, &read);
    expect(&bench, WIRE_READ_FIRST, START);
    bench.node->key_gone = true;
    expect_nak(&bench, START + 1, AETH_NAK | NAK_REMOTE_ACCESS);
    T_EQ(sim_nth(bench.node, LOG_FAIL, 0)->failure, FAILED_ACCESS);
    bench_end(&bench);
}

T_TEST(sim, nothing_of_no_length)
{
    /* Shows that a READ or WRITE of no bytes looks at no key. */
    struct bench bench = bench_new(TRANSPORT_RC);
    struct wire_packet write = make(&bench, WIRE_WRITE_ONLY, 0);
    struct wire_packet read = read_of(&bench, START + 1, 0, 0);

    write.rkey = read.rkey = SIM_KEY_GONE;
    write.va = read.va = UINT64_MAX;
    give_packet(&bench, &write);
    expect_ack(&bench, START, 1);
    give_packet(&bench, &read);
    expect_read(&bench, START + 1, 1, 0);
    bench_end(&bench);
}

T_TEST(sim, another_try_another_nak)
{
    /* Shows that a missing packet that is lost again is told again: what follows begins anew. */
    struct bench bench = bench_new(TRANSPORT_RC);

    bench.psn = START + 1;
    give(&bench, WIRE_WRITE_ONLY, 10);
    expect_nak(&bench, START, AETH_NAK | NAK_SEQUENCE);
    give(&bench, WIRE_WRITE_ONLY, 10);
    expect_none(&bench);
    bench.psn = START + 1;
    give(&bench, WIRE_WRITE_ONLY, 10);
    expect_nak(&bench, START, AETH_NAK | NAK_SEQUENCE);
    give(&bench, WIRE_WRITE_ONLY, 10);
    expect_none(&bench);
    bench_end(&bench);
}

/* ---- RNR and credits, as a responder ---- */

T_TEST(sim, rnr_nak)
{
    /* Shows that without a receive nothing is taken until it comes again and there is one. */
    struct bench bench = bench_new(TRANSPORT_RC);

    bench.node->config.min_rnr_timer = 9;
    transport_modify(bench.t, &bench.node->config);
    give(&bench, WIRE_SEND_ONLY, 10);
    give(&bench, WIRE_SEND_ONLY, 10);
    expect_nak(&bench, START, AETH_RNR | 9);
    sim_recv(bench.node, 1, 0, 100);
    bench.psn = START + 1;
    give(&bench, WIRE_SEND_ONLY, 10);
    expect_none(&bench);
    bench.psn = START;
    give(&bench, WIRE_SEND_ONLY, 10);
    expect_ack(&bench, START, 1);
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
        give(&bench, WIRE_WRITE_ONLY, 10);
        T_EQ(expect(&bench, WIRE_ACK, START + i).headers.syndrome, steps[i].code);
    }
    bench.node->shared_receives = true;
    give(&bench, WIRE_WRITE_ONLY, 10);
    T_EQ(expect(&bench, WIRE_ACK, START + 6).headers.syndrome, AETH_CREDIT_NONE);
    bench_end(&bench);
}

/* ---- requester ---- */

static void answer_with(struct bench *bench, uint8_t operation, uint32_t psn, uint8_t syndrome,
                        uint32_t msn)
{
    struct wire_packet packet = make(bench, operation, 0);

    packet.psn = psn & PSN_MASK;
    packet.syndrome = syndrome;
    packet.msn = msn;
    give_packet(bench, &packet);
}

static void post(struct bench *bench, enum transport_op op, uint32_t length)
{
    struct transport_wr wr = sim_wr(op, 0, 0, length, 0);

    T_ASSERT(sim_post(bench->node, &wr));
}

T_TEST(sim, credits_honoured)
{
    /* Shows that SENDs go as far as credits reach and one beyond, and that WRITEs need none. */
    struct bench bench = bench_new(TRANSPORT_RC);

    for (unsigned i = 0; i < 8; i++)
        post(&bench, TRANSPORT_SEND, 10);
    expect(&bench, WIRE_SEND_ONLY, SENT_FIRST);
    expect_none(&bench);
    answer_with(&bench, WIRE_ACK, SENT_FIRST, 0x02, 1);
    for (unsigned i = 1; i < 4; i++)
        expect(&bench, WIRE_SEND_ONLY, SENT_FIRST + i);
    expect_none(&bench);
    answer_with(&bench, WIRE_ACK, SENT_FIRST + 1, 0x00, 2);
    expect_none(&bench);
    answer_with(&bench, WIRE_ACK, SENT_FIRST + 3, 0x00, 4);
    expect(&bench, WIRE_SEND_ONLY, SENT_FIRST + 4);
    expect_none(&bench);
    answer_with(&bench, WIRE_ACK, SENT_FIRST + 4, AETH_CREDIT_NONE, 5);
    for (unsigned i = 5; i < 8; i++)
        expect(&bench, WIRE_SEND_ONLY, SENT_FIRST + i);
    expect_none(&bench);
    T_EQ(sim_count(bench.node, LOG_SEND), 5);
    bench_end(&bench);
}

T_TEST(sim, writes_need_no_credit)
{
    struct bench bench = bench_new(TRANSPORT_RC);

    for (unsigned i = 0; i < 4; i++)
        post(&bench, TRANSPORT_WRITE, 10);
    post(&bench, TRANSPORT_WRITE_IMM, 10);
    for (unsigned i = 0; i < 4; i++)
        expect(&bench, WIRE_WRITE_ONLY, SENT_FIRST + i);
    expect_none(&bench);
    answer_with(&bench, WIRE_ACK, SENT_FIRST + 3, 0, 4);
    expect(&bench, WIRE_WRITE_ONLY_IMM, SENT_FIRST + 4);
    bench_end(&bench);
}

T_TEST(sim, answers_that_are_none)
{
    /* Shows that answers to what was not sent, or is over, change nothing. */
    struct bench bench = bench_new(TRANSPORT_RC);

    post(&bench, TRANSPORT_WRITE, 3 * MTU);
    for (unsigned i = 0; i < 3; i++)
        expect(&bench,
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
    expect_none(&bench);
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
        struct wire_packet packet = make(&bench, WIRE_WRITE_ONLY, 10);

        packet.pkey = pkeys[i];
        give_packet(&bench, &packet);
    }
    struct wire_packet packet = make(&bench, WIRE_WRITE_ONLY, 10);
    packet.opcode |= WIRE_UC;
    give_packet(&bench, &packet);
    packet.opcode = 0x15;
    give_packet(&bench, &packet);
    expect_none(&bench);
    packet = make(&bench, WIRE_WRITE_ONLY, 10);
    packet.pkey = 0x7fff; /* a limited member talks to a full one */
    give_packet(&bench, &packet);
    expect_ack(&bench, START, 1);
    bench_end(&bench);
}

T_TEST(sim, resend_asks_again)
{
    /* Shows that after a lost ACK the oldest packet is sent again, early, and asks for an ACK. */
    struct bench bench = bench_new(TRANSPORT_RC);

    post(&bench, TRANSPORT_WRITE, 10);
    expect(&bench, WIRE_WRITE_ONLY, SENT_FIRST);
    T_ASSERT(transport_deadline(bench.t) < RTO_NS);
    bench.sim->now_ns = transport_deadline(bench.t);
    transport_expire(bench.t, bench.sim->now_ns);
    T_ASSERT(expect(&bench, WIRE_WRITE_ONLY, SENT_FIRST).headers.ack_request);
    answer_with(&bench, WIRE_ACK, SENT_FIRST, 0x1f, 1);
    T_EQ(transport_deadline(bench.t), TRANSPORT_NEVER);
    bench_end(&bench);
}

/* Small messages that nobody waits for, in a window that an ACK has opened. */
static void post_quiet(struct bench *bench, unsigned count)
{
    struct transport_packet packet;

    post(bench, TRANSPORT_WRITE, 10);
    T_ASSERT(expect(bench, WIRE_WRITE_ONLY, SENT_FIRST).headers.ack_request);
    answer_with(bench, WIRE_ACK, SENT_FIRST, 0x1f, 1);
    for (unsigned i = 0; i < count; i++) {
        post(bench, TRANSPORT_WRITE, 10);
        packet = expect(bench, WIRE_WRITE_ONLY, SENT_FIRST + 1 + i);
        T_ASSERT(!packet.headers.ack_request);
    }
}

T_TEST(sim, quiet_messages_are_asked_about_later)
{
    /* Shows that small unsignalled messages ask for no ACK at first, and the last one for all. */
    struct bench bench = bench_new(TRANSPORT_RC);

    bench.sim->now_ns = 1000000;
    post_quiet(&bench, 3);
    expect_none(&bench);
    bench.sim->now_ns = transport_deadline(bench.t);
    transport_expire(bench.t, bench.sim->now_ns);
    T_ASSERT(expect(&bench, WIRE_WRITE_ONLY, SENT_FIRST + 3).headers.ack_request);
    expect_none(&bench);
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
    T_ASSERT(expect(&bench, WIRE_WRITE_ONLY, SENT_FIRST + 3).headers.ack_request);
    post(&bench, TRANSPORT_WRITE, 10);
    T_ASSERT(!expect(&bench, WIRE_WRITE_ONLY, SENT_FIRST + 4).headers.ack_request);
    bench.sim->now_ns += 50000;
    post(&bench, TRANSPORT_WRITE, 10);
    T_ASSERT(expect(&bench, WIRE_WRITE_ONLY, SENT_FIRST + 5).headers.ack_request);
    bench_end(&bench);
}

T_TEST(sim, nak_goes_back_once)
{
    /* Shows that a NAK resends from its PSN, and that the same one again does not. */
    struct bench bench = bench_new(TRANSPORT_RC);

    post(&bench, TRANSPORT_WRITE, 4 * MTU);
    struct transport_packet packet;
    while (next(&bench, &packet))
        ;
    answer_with(&bench, WIRE_ACK, SENT_FIRST + 1, AETH_NAK | NAK_SEQUENCE, 0);
    expect(&bench, WIRE_WRITE_MIDDLE, SENT_FIRST + 1);
    answer_with(&bench, WIRE_ACK, SENT_FIRST + 1, AETH_NAK | NAK_SEQUENCE, 0);
    expect(&bench, WIRE_WRITE_MIDDLE, SENT_FIRST + 2);
    expect(&bench, WIRE_WRITE_LAST, SENT_FIRST + 3);
    expect_none(&bench);
    bench_end(&bench);
}

T_TEST(sim, answer_of_wrong_length)
{
    /* Shows that a READ's answer of another length than it must have is fatal (IBTA 9.9.2). */
    struct bench bench = bench_new(TRANSPORT_RC);

    post(&bench, TRANSPORT_READ, 100);
    expect(&bench, WIRE_READ_REQUEST, SENT_FIRST);
    struct wire_packet answer = make(&bench, WIRE_READ_ONLY, 99);
    answer.psn = SENT_FIRST;
    answer.syndrome = 0x1f;
    give_packet(&bench, &answer);
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
        struct wire_packet marked = make(&bench, WIRE_WRITE_ONLY, 10);

        marked.psn = psn_add(START, i);
        transport_receive(bench.t, 1000, &marked, true);
    }
    T_ASSERT(next(&bench, &packet));
    T_EQ(packet.headers.opcode, WIRE_CNP);
    T_ASSERT(packet.headers.becn);
    expect_ack(&bench, START + 2, 3);
    post(&bench, TRANSPORT_WRITE, 100 * MTU);
    while (next(&bench, &packet))
        before++;
    struct wire_packet cnp = {.opcode = WIRE_CNP, .becn = true, .pkey = 0xffff};
    give_packet(&bench, &cnp);
    answer_with(&bench, WIRE_ACK, SENT_FIRST + before - 1, 0x1f, 0);
    while (next(&bench, &packet))
        after++;
    T_ASSERT(after < before, "%u, then %u", before, after);
    bench_end(&bench);
}

/* ---- UC ---- */

static void give_uc(struct bench *bench, uint8_t operation, uint32_t psn, uint32_t length,
                    uint32_t dma_length)
{
    struct wire_packet packet = make(bench, operation, length);

    packet.psn = psn & PSN_MASK;
    packet.ack_request = false;
    packet.dma_length = dma_length;
    give_packet(bench, &packet);
    expect_none(bench);
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

    post(&bench, TRANSPORT_SEND, 2 * MTU + 1);
    post(&bench, TRANSPORT_WRITE_IMM, 10);
    post(&bench, TRANSPORT_READ, 10);
    T_ASSERT(!expect(&bench, WIRE_SEND_FIRST, SENT_FIRST).headers.ack_request);
    expect(&bench, WIRE_SEND_MIDDLE, SENT_FIRST + 1);
    T_EQ(sim_count(bench.node, LOG_SEND), 0);
    T_ASSERT(!expect(&bench, WIRE_SEND_LAST, SENT_FIRST + 2).headers.ack_request);
    expect(&bench, WIRE_WRITE_ONLY_IMM, SENT_FIRST + 3);
    T_EQ(sim_count(bench.node, LOG_SEND), 1);
    struct transport_packet packet;
    T_ASSERT(!next(&bench, &packet));
    T_EQ(sim_nth(bench.node, LOG_SEND, 2)->status, TRANSPORT_LOC_QP_OP_ERR);
    T_EQ(transport_deadline(bench.t), TRANSPORT_NEVER);
    bench_end(&bench);
}
