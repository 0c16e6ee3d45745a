/* SPDX-License-Identifier: MIT */
/*
 * What an unreliable connection promises on a bad wire: a message arrives whole or not at all, once
 * and in its turn, and what was sent is over for the sender. And datagrams: one packet, or nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/datagram.h"
#include "sim.h"
#include "t.h"

enum { MESSAGES = 200, SEEDS = 20, SLOT = 8192, SLOTS = 16, RECVS_AT = 512 << 10 };

struct stream {
    uint32_t arrived, completed, posted_recvs;
    uint32_t last;
};

/* Message n: its number, then bytes that depend on it. */
static uint32_t length_of(uint32_t n)
{
    return 4 + n * 2654435761u % (SLOT - 4);
}

static void fill(uint8_t *to, uint32_t n)
{
    memcpy(to, &n, sizeof(n));
    t_fill(to + 4, 0, length_of(n) - 4, n);
}

static void post_recv(struct sim_node *node, struct stream *stream)
{
    uint32_t slot = stream->posted_recvs++ % SLOTS;

    sim_recv(node, slot, RECVS_AT + slot * SLOT, SLOT);
}

static void on_arrival(struct sim_node *node, const struct sim_entry *entry)
{
    struct stream *stream = node->user;
    const uint8_t *at = node->memory + RECVS_AT + entry->cookie * SLOT;
    uint32_t n;

    memcpy(&n, at, sizeof(n));
    T_EQ(entry->status, TRANSPORT_SUCCESS);
    T_ASSERT(n < MESSAGES && entry->byte_len == length_of(n), "message %u of %u bytes", n,
             entry->byte_len);
    T_EQ(t_compare(at + 4, 0, entry->byte_len - 4, n), -1);
    T_ASSERT(stream->arrived == 0 || n > stream->last, "message %u after %u", n, stream->last);
    stream->last = n;
    stream->arrived++;
    post_recv(node, stream);
}

static void on_entry(struct sim_node *node, const struct sim_entry *entry)
{
    struct stream *stream = node->user;

    node->logged = 0;
    T_ASSERT(entry->kind != LOG_FAIL);
    if (entry->kind == LOG_RECV) {
        on_arrival(node, entry);
    } else {
        T_EQ(entry->status, TRANSPORT_SUCCESS);
        T_EQ(entry->cookie, stream->completed++);
    }
}

static struct stream run(uint64_t seed, const struct sim_faults *faults)
{
    struct sim *sim = sim_new(seed, TRANSPORT_UC);
    struct stream stream = {0};

    sim->faults = *faults;
    for (unsigned i = 0; i < 2; i++) {
        sim->nodes[i].config.mtu = 256u << seed % 5;
        sim->nodes[i].on_entry = on_entry;
        sim->nodes[i].user = &stream;
    }
    sim_start(sim);
    while (stream.posted_recvs < SLOTS)
        post_recv(&sim->nodes[1], &stream);
    for (uint32_t n = 0; n < MESSAGES; n++) {
        struct transport_wr wr = sim_wr(TRANSPORT_SEND, n, 0, length_of(n), 0);

        fill(sim->nodes[0].memory, n);
        T_ASSERT(sim_post(&sim->nodes[0], &wr));
        sim_run(sim, 1000000);
    }
    sim_run(sim, 1000000000);
    T_EQ(stream.completed, MESSAGES);
    sim_free(sim);
    return stream;
}

T_TEST(sim, uc_messages_whole)
{
    static const struct sim_faults wires[] = {
        {0},
        {.loss = 100000},
        {.loss = 10000, .burst = 10},
        {.dup = 100000},
        {.reorder = 100000},
        {.corrupt = 100000},
        {.loss = 50000, .dup = 50000, .reorder = 50000, .corrupt = 50000},
    };

    for (unsigned i = 0; i < sizeof(wires) / sizeof(wires[0]); i++) {
        uint64_t arrived = 0;

        for (uint64_t seed = 1; seed <= SEEDS; seed++)
            arrived += run(seed, &wires[i]).arrived;
        T_ASSERT(arrived > MESSAGES, "only %llu on wire %u", (unsigned long long)arrived, i);
        if (i == 0)
            T_EQ(arrived, MESSAGES * SEEDS);
    }
}

/* ---- datagrams ---- */

struct mail {
    struct sim *sim;
    struct sim_node *node;
    struct datagram_hold hold;
};

static enum datagram_verdict mail(struct mail *m, uint32_t qkey, uint32_t length)
{
    static const uint8_t grh[DATAGRAM_GRH_SIZE] = {0x60}, payload[4096] = {7};
    struct wire_packet packet = {
        .opcode = WIRE_UD | WIRE_SEND_ONLY_IMM,
        .qkey = qkey,
        .src_qpn = 77,
        .imm = 5,
        .payload = payload,
        .payload_length = length,
    };

    return datagram_receive(&sim_calls, m->node, 0x1234, &m->hold, grh, &packet);
}

T_TEST(sim, datagram_in)
{
    /* Shows what a datagram needs to arrive, and that one dropped leaves its receive to the next.
     */
    struct mail m = {.sim = sim_new(1, TRANSPORT_RC)};

    m.node = &m.sim->nodes[0];
    T_EQ(mail(&m, 0x1234, 100), DATAGRAM_DROPPED);
    sim_recv(m.node, 9, 1000, 140);
    T_EQ(mail(&m, 0x1235, 100), DATAGRAM_DROPPED);
    T_EQ(mail(&m, 0x1234, 101), DATAGRAM_DROPPED);
    T_EQ(m.node->logged, 0);
    T_EQ(mail(&m, 0x1234, 100), DATAGRAM_TAKEN);
    const struct sim_entry *entry = sim_nth(m.node, LOG_RECV, 0);
    T_EQ(entry->cookie, 9);
    T_EQ(entry->byte_len, 140);
    T_EQ(entry->imm, 5);
    T_EQ(entry->flags, ARRIVAL_GRH | ARRIVAL_IMM);
    T_EQ(m.node->memory[1000], 0x60);
    T_EQ(m.node->memory[1040], 7);
    sim_recv(m.node, 10, 1000, 140);
    m.node->recvs[1].sges[0].key = SIM_KEY_GONE;
    T_EQ(mail(&m, 0x1234, 0), DATAGRAM_BROKEN);
    T_EQ(sim_nth(m.node, LOG_RECV, 1)->status, TRANSPORT_LOC_PROT_ERR);
    sim_free(m.sim);
}

T_TEST(sim, datagram_out)
{
    /* Shows the packet made of a request, its errors, and whose Q_Key it carries. */
    struct sim *sim = sim_new(1, TRANSPORT_RC);
    struct datagram_to to = {.qpn = 5,
                             .qkey = 0x1111,
                             .own_qkey = 0x2222,
                             .src_qpn = 6,
                             .pkey = 0xffff,
                             .mtu = 1024,
                             .psn = 9};
    struct transport_packet packet;
    struct transport_wr wr = sim_wr(TRANSPORT_SEND, 0, 0, 1024, 0);

    T_EQ(datagram_make(&sim_calls, &sim->nodes[0], &wr, &to, &packet), TRANSPORT_SUCCESS);
    T_EQ(packet.headers.opcode, WIRE_UD | WIRE_SEND_ONLY);
    T_EQ(packet.headers.payload_length, 1024);
    T_EQ(packet.headers.qkey, 0x1111);
    T_EQ(packet.headers.src_qpn, 6);
    to.qkey = 0x80000000;
    T_EQ(datagram_make(&sim_calls, &sim->nodes[0], &wr, &to, &packet), TRANSPORT_SUCCESS);
    T_EQ(packet.headers.qkey, 0x2222);
    wr = sim_wr(TRANSPORT_SEND, 0, 0, 1025, 0);
    T_EQ(datagram_make(&sim_calls, &sim->nodes[0], &wr, &to, &packet), TRANSPORT_LOC_LEN_ERR);
    wr = sim_wr(TRANSPORT_SEND, 0, SIM_MEMORY - 1, 2, 0);
    T_EQ(datagram_make(&sim_calls, &sim->nodes[0], &wr, &to, &packet), TRANSPORT_LOC_PROT_ERR);
    wr.op = TRANSPORT_WRITE;
    T_EQ(datagram_make(&sim_calls, &sim->nodes[0], &wr, &to, &packet), TRANSPORT_LOC_QP_OP_ERR);
    sim_free(sim);
}
