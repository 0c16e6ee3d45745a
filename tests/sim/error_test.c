/* SPDX-License-Identifier: MIT */
/*
 * What goes wrong, opcode by opcode: who is told what, which request or receive completes with
 * which status, and that the rest is flushed (IBTA 9.7 and 9.9).
 */
#include <string.h>

#include "sim.h"
#include "t.h"

enum { MS = 1000000, SECOND = 1000 * MS, TARGET = 0x8000 };

/* ---- a request that the responder refuses ---- */

struct refusal {
    const char *name;
    enum transport_op op;
    uint32_t length, remote, rkey;
    uint32_t recv;   /* length of the receive, 0: none is posted */
    unsigned access; /* that the responder grants */
    uint8_t resources;
    enum transport_status status, recv_status;
    enum transport_failure failure;
};

enum { ALL = TRANSPORT_REMOTE_WRITE | TRANSPORT_REMOTE_READ | TRANSPORT_REMOTE_ATOMIC };

static const struct refusal refusals[] = {
    {"write, bad key", TRANSPORT_WRITE, 100, TARGET, SIM_KEY_GONE, 0, ALL, 16,
     TRANSPORT_REM_ACCESS_ERR, 0, FAILED_ACCESS},
    {"write, key for reading", TRANSPORT_WRITE, 5000, TARGET, SIM_KEY_READ_ONLY, 0, ALL, 16,
     TRANSPORT_REM_ACCESS_ERR, 0, FAILED_ACCESS},
    {"write, beyond the end", TRANSPORT_WRITE, 5000, SIM_MEMORY - 4999, SIM_KEY_REMOTE, 0, ALL, 16,
     TRANSPORT_REM_ACCESS_ERR, 0, FAILED_ACCESS},
    {"write, no right", TRANSPORT_WRITE, 100, TARGET, SIM_KEY_REMOTE, 0, TRANSPORT_REMOTE_READ, 16,
     TRANSPORT_REM_INV_REQ_ERR, 0, FAILED_REQUEST},
    {"write with immediate, bad key", TRANSPORT_WRITE_IMM, 100, TARGET, SIM_KEY_GONE, 64, ALL, 16,
     TRANSPORT_REM_ACCESS_ERR, TRANSPORT_FLUSH_ERR, FAILED_ACCESS},
    {"read, bad key", TRANSPORT_READ, 100, TARGET, SIM_KEY_GONE, 0, ALL, 16,
     TRANSPORT_REM_ACCESS_ERR, 0, FAILED_ACCESS},
    {"read, beyond the end", TRANSPORT_READ, 9000, SIM_MEMORY - 10, SIM_KEY_REMOTE, 0, ALL, 16,
     TRANSPORT_REM_ACCESS_ERR, 0, FAILED_ACCESS},
    {"read, no right", TRANSPORT_READ, 100, TARGET, SIM_KEY_REMOTE, 0, TRANSPORT_REMOTE_WRITE, 16,
     TRANSPORT_REM_INV_REQ_ERR, 0, FAILED_REQUEST},
    {"read, no resources", TRANSPORT_READ, 100, TARGET, SIM_KEY_REMOTE, 0, ALL, 0,
     TRANSPORT_REM_INV_REQ_ERR, 0, FAILED_REQUEST},
    {"atomic, bad key", TRANSPORT_FETCH_ADD, 8, TARGET, SIM_KEY_GONE, 0, ALL, 16,
     TRANSPORT_REM_ACCESS_ERR, 0, FAILED_ACCESS},
    {"atomic, not aligned", TRANSPORT_COMPARE_SWAP, 8, TARGET + 4, SIM_KEY_REMOTE, 0, ALL, 16,
     TRANSPORT_REM_INV_REQ_ERR, 0, FAILED_REQUEST},
    {"atomic, no right", TRANSPORT_COMPARE_SWAP, 8, TARGET, SIM_KEY_REMOTE, 0,
     TRANSPORT_REMOTE_READ | TRANSPORT_REMOTE_WRITE, 16, TRANSPORT_REM_INV_REQ_ERR, 0,
     FAILED_REQUEST},
    {"send, too long by one", TRANSPORT_SEND, 101, 0, 0, 100, ALL, 16, TRANSPORT_REM_INV_REQ_ERR,
     TRANSPORT_LOC_LEN_ERR, FAILED_RECEIVE},
    {"send of packets, too long", TRANSPORT_SEND, 5000, 0, 0, 4096, ALL, 16,
     TRANSPORT_REM_INV_REQ_ERR, TRANSPORT_LOC_LEN_ERR, FAILED_RECEIVE},
    {"send with invalidate, not a window", TRANSPORT_SEND_INV, 100, 0, 0, 100, ALL, 16,
     TRANSPORT_REM_ACCESS_ERR, TRANSPORT_FLUSH_ERR, FAILED_ACCESS},
};

static void check_flushed(const struct sim_node *node, unsigned from, unsigned count)
{
    for (unsigned i = from; i < count; i++)
        T_EQ(sim_nth(node, LOG_SEND, i)->status, TRANSPORT_FLUSH_ERR);
    T_EQ(sim_count(node, LOG_SEND), count);
}

static void refuse(const struct refusal *refusal)
{
    struct sim *sim = sim_new(1, TRANSPORT_RC);
    struct sim_node *a = &sim->nodes[0], *b = &sim->nodes[1];
    struct transport_wr good = sim_wr(TRANSPORT_WRITE, 0, 0, 10, 0);
    struct transport_wr bad = sim_wr(refusal->op, 1, 0, refusal->length, refusal->remote);

    b->config.access = refusal->access;
    if (refusal->op != TRANSPORT_WRITE)
        b->config.access |= TRANSPORT_REMOTE_WRITE;
    b->config.max_dest_rd_atomic = refusal->resources;
    b->memory[TARGET] = 7;
    sim_start(sim);
    if (refusal->recv)
        sim_recv(b, 9, 0, refusal->recv);
    bad.rkey = refusal->rkey;
    bad.imm = SIM_KEY_GONE;
    if (refusal->op != TRANSPORT_WRITE)
        sim_post(a, &good);
    sim_post(a, &bad);
    sim_post(a, &good);
    sim_run(sim, SECOND);
    unsigned at = refusal->op != TRANSPORT_WRITE;
    T_CHECK_EQ(sim_nth(a, LOG_SEND, at)->status, refusal->status);
    check_flushed(a, at + 1, at + 2);
    T_CHECK_EQ(sim_nth(a, LOG_FAIL, 0)->failure, FAILED_SENDING);
    T_CHECK_EQ(sim_nth(b, LOG_FAIL, 0)->failure, refusal->failure);
    T_CHECK_EQ(sim_count(b, LOG_RECV), refusal->recv_status != 0);
    if (refusal->recv_status)
        T_CHECK_EQ(sim_nth(b, LOG_RECV, 0)->status, refusal->recv_status);
    T_CHECK_EQ(b->memory[TARGET], 7);
    T_ASSERT(!t_failures(), "in: %s", refusal->name);
    sim_free(sim);
}

T_TEST(sim, refusals)
{
    /* Shows each NAK: what the requester's completion says, the responder's state, the flush. */
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
        refuse(&refusals[i]);
}

T_TEST(sim, bad_receive_key)
{
    /* Shows that a receive with a bad key of its own is the responder's operational error. */
    struct sim *sim = sim_new(1, TRANSPORT_RC);
    struct sim_node *a = &sim->nodes[0], *b = &sim->nodes[1];
    struct transport_wr wr = sim_wr(TRANSPORT_SEND, 1, 0, 100, 0);

    sim_start(sim);
    sim_recv(b, 9, 0, 100);
    b->recvs[0].sges[0].key = SIM_KEY_GONE;
    sim_post(a, &wr);
    sim_run(sim, SECOND);
    T_EQ(sim_nth(a, LOG_SEND, 0)->status, TRANSPORT_REM_OP_ERR);
    T_EQ(sim_nth(b, LOG_RECV, 0)->status, TRANSPORT_LOC_PROT_ERR);
    T_EQ(sim_nth(b, LOG_FAIL, 0)->failure, FAILED_RECEIVE);
    sim_free(sim);
}

/* ---- a request that fails before it is sent ---- */

struct local_error {
    const char *name;
    enum transport_op op;
    uint32_t length, key;
    enum transport_status status;
    uint8_t reads;
};

static const struct local_error local_errors[] = {
    {"bad key", TRANSPORT_SEND, 100, SIM_KEY_GONE, TRANSPORT_LOC_PROT_ERR, 16},
    {"bad key, read", TRANSPORT_READ, 100, SIM_KEY_GONE, TRANSPORT_LOC_PROT_ERR, 16},
    {"beyond the end", TRANSPORT_WRITE, SIM_MEMORY + 1, SIM_KEY_LOCAL, TRANSPORT_LOC_PROT_ERR, 16},
    {"atomic of four bytes", TRANSPORT_FETCH_ADD, 4, SIM_KEY_LOCAL, TRANSPORT_LOC_LEN_ERR, 16},
    {"no reads allowed", TRANSPORT_READ, 8, SIM_KEY_LOCAL, TRANSPORT_LOC_QP_OP_ERR, 0},
    {"bind refused", TRANSPORT_BIND, 0, SIM_KEY_LOCAL, TRANSPORT_BIND_ERR, 16},
};

T_TEST(sim, local_errors)
{
    /* Shows that what is wrong here fails here, behind what was posted before it. */
    for (size_t i = 0; i < sizeof(local_errors) / sizeof(local_errors[0]); i++) {
        const struct local_error *error = &local_errors[i];
        struct sim *sim = sim_new(1, TRANSPORT_RC);
        struct sim_node *a = &sim->nodes[0];
        struct transport_sge sge = {0, error->length, error->key};
        struct transport_wr good = sim_wr(TRANSPORT_WRITE, 0, 0, 50000, 0);
        struct transport_wr bad = {
            .op = error->op, .imm = SIM_KEY_GONE, .sge_count = 1, .sges = &sge};

        a->config.max_rd_atomic = error->reads;
        sim_start(sim);
        sim_post(a, &good);
        sim_post(a, &bad);
        sim_post(a, &good);
        sim_run(sim, SECOND);
        T_CHECK_EQ(sim_nth(a, LOG_SEND, 0)->status, TRANSPORT_SUCCESS);
        T_CHECK_EQ(sim_nth(a, LOG_SEND, 1)->status, error->status);
        check_flushed(a, 2, 3);
        T_CHECK_EQ(sim_nth(a, LOG_FAIL, 0)->failure, FAILED_SENDING);
        T_CHECK_EQ(sim_count(&sim->nodes[1], LOG_FAIL), 0);
        T_ASSERT(!t_failures(), "in: %s", error->name);
        sim_free(sim);
    }
}

/* ---- patience ---- */

static uint64_t time_to_fail(uint8_t timeout, uint8_t retries, enum transport_status status)
{
    struct sim *sim = sim_new(3, TRANSPORT_RC);
    struct sim_node *a = &sim->nodes[0];
    struct transport_wr wr = sim_wr(TRANSPORT_SEND, 1, 0, 3000, 0);

    sim->faults = (struct sim_faults){.dark_until_ns = UINT64_MAX};
    a->config.timeout = timeout;
    a->config.retry_count = retries;
    sim_start(sim);
    sim_post(a, &wr);
    while (!sim_count(a, LOG_SEND) && sim_step(sim))
        T_ASSERT(sim->now_ns < 1000ull * SECOND);
    T_EQ(sim_nth(a, LOG_SEND, 0)->status, status);
    uint64_t took = sim->now_ns;
    sim_free(sim);
    return took;
}

T_TEST(sim, retry_exceeded)
{
    /* Shows that silence is fatal after (retries + 1) ACK timeouts: not sooner, not later. */
    T_EQ(time_to_fail(16, 0, TRANSPORT_RETRY_EXC_ERR), 4096ull << 16);
    T_EQ(time_to_fail(16, 7, TRANSPORT_RETRY_EXC_ERR), 8 * (4096ull << 16));
    T_EQ(time_to_fail(14, 3, TRANSPORT_RETRY_EXC_ERR), 4 * 250000000ull); /* the patient one */
    T_EQ(time_to_fail(12, 3, TRANSPORT_RETRY_EXC_ERR), 4 * 4 * (4096ull << 12));
    T_EQ(time_to_fail(1, 3, TRANSPORT_RETRY_EXC_ERR), 4 * 10000000); /* the least */
}

T_TEST(sim, refused)
{
    /* Shows that a peer whose host says it is gone is given up soon; one that answers is not. */
    struct sim *sim = sim_new(3, TRANSPORT_RC);
    struct sim_node *a = &sim->nodes[0];
    struct transport_wr wr = sim_wr(TRANSPORT_WRITE, 1, 0, 3000, 0);

    sim->faults = (struct sim_faults){.dark_until_ns = 5 * MS};
    a->config.timeout = 20;
    a->config.retry_count = 7;
    sim_start(sim);
    sim_post(a, &wr);
    while (sim->now_ns < MS && sim_step(sim))
        continue;
    T_CHECK(transport_is_in_flight(a->transport, a->psn));
    T_CHECK(!transport_is_in_flight(a->transport, a->psn + 100));
    T_CHECK(!transport_is_in_flight(a->transport, a->psn - 1));
    transport_refused(a->transport, sim->now_ns);
    while (!sim_count(a, LOG_SEND) && sim_step(sim))
        continue;
    T_EQ(sim_nth(a, LOG_SEND, 0)->status, TRANSPORT_SUCCESS);
    sim->faults = (struct sim_faults){.dark_until_ns = UINT64_MAX};
    uint64_t begin = sim->now_ns;
    sim_post(a, &wr);
    while (sim->now_ns < begin + MS && sim_step(sim))
        continue;
    transport_refused(a->transport, sim->now_ns);
    while (sim_count(a, LOG_SEND) < 2 && sim_step(sim))
        continue;
    T_EQ(sim_nth(a, LOG_SEND, 1)->status, TRANSPORT_RETRY_EXC_ERR);
    T_CHECK(sim->now_ns - begin < SECOND / 4);
    sim_free(sim);
    t_end();
}

T_TEST(sim, timeout_for_ever)
{
    /* Shows that a timeout of 0 waits for ever, and that what was lost goes through in the end. */
    struct sim *sim = sim_new(3, TRANSPORT_RC);
    struct transport_wr wr = sim_wr(TRANSPORT_WRITE, 1, 0, 3000, 0);

    sim->faults = (struct sim_faults){.dark_until_ns = 100ull * SECOND};
    sim->nodes[0].config.timeout = 0;
    sim_start(sim);
    sim_post(&sim->nodes[0], &wr);
    sim_run(sim, 200ull * SECOND);
    T_EQ(sim_nth(&sim->nodes[0], LOG_SEND, 0)->status, TRANSPORT_SUCCESS);
    T_ASSERT(sim->now_ns < 102ull * SECOND);
    sim_free(sim);
}

static struct sim *rnr_pair(uint8_t retries, uint8_t timer, enum transport_op op)
{
    struct sim *sim = sim_new(3, TRANSPORT_RC);
    struct transport_wr wr = sim_wr(op, 1, 0, 3000, 0);

    sim->nodes[0].config.rnr_retry = retries;
    sim->nodes[1].config.min_rnr_timer = timer;
    sim_start(sim);
    sim_post(&sim->nodes[0], &wr);
    return sim;
}

T_TEST(sim, rnr_exceeded)
{
    /* Shows that each RNR NAK costs the responder's timer and one retry, and the last the rest. */
    static const enum transport_op ops[] = {TRANSPORT_SEND, TRANSPORT_WRITE_IMM};

    for (unsigned i = 0; i < 2; i++) {
        for (uint8_t retries = 0; retries < 7; retries++) {
            struct sim *sim = rnr_pair(retries, 14, ops[i]);

            while (!sim_count(&sim->nodes[0], LOG_SEND))
                T_ASSERT(sim_step(sim));
            T_EQ(sim_nth(&sim->nodes[0], LOG_SEND, 0)->status, TRANSPORT_RNR_RETRY_EXC_ERR);
            T_ASSERT(sim->now_ns >= retries * 1280000ull);
            T_ASSERT(sim->now_ns < retries * 1280000ull + 1000000);
            T_EQ(sim_count(&sim->nodes[1], LOG_FAIL), 0);
            sim_free(sim);
        }
    }
}

T_TEST(sim, rnr_for_ever)
{
    /* Shows that seven RNR retries are no limit, and the timer's code 0 is the longest wait. */
    struct sim *sim = rnr_pair(7, 0, TRANSPORT_SEND);

    sim_run(sim, 60ull * SECOND);
    T_EQ(sim_count(&sim->nodes[0], LOG_SEND), 0);
    struct transport_stats stats;
    transport_get_stats(sim->nodes[0].transport, &stats);
    T_IN(stats.rnrs_received, 91, 92, 93);
    sim_recv(&sim->nodes[1], 9, 0, 3000);
    sim_run(sim, SECOND);
    T_EQ(sim_nth(&sim->nodes[0], LOG_SEND, 0)->status, TRANSPORT_SUCCESS);
    T_EQ(sim_nth(&sim->nodes[1], LOG_RECV, 0)->byte_len, 3000);
    sim_free(sim);
}

/* ---- stopping ---- */

T_TEST(sim, stopped_midway)
{
    /* Shows that a receive half filled completes as flushed when its queue pair is stopped. */
    struct sim *sim = sim_new(3, TRANSPORT_RC);
    struct sim_node *a = &sim->nodes[0], *b = &sim->nodes[1];
    struct transport_wr wr = sim_wr(TRANSPORT_SEND, 1, 0, 100000, 0);
    struct transport_stats stats;

    sim->ns_per_kib = 1000;
    sim_start(sim);
    sim_recv(b, 9, 0, 200000);
    sim_post(a, &wr);
    do {
        T_ASSERT(sim_step(sim));
        transport_get_stats(b->transport, &stats);
    } while (stats.received < 10);
    transport_stop(b->transport);
    T_EQ(sim_nth(b, LOG_RECV, 0)->status, TRANSPORT_FLUSH_ERR);
    sim_run(sim, 60ull * SECOND);
    T_EQ(sim_nth(a, LOG_SEND, 0)->status, TRANSPORT_RETRY_EXC_ERR);
    T_EQ(sim_count(b, LOG_RECV), 1);
    sim_free(sim);
}

T_TEST(sim, drained)
{
    /* Shows that a held send queue finishes what has begun, and begins nothing. */
    struct sim *sim = sim_new(3, TRANSPORT_RC);
    struct sim_node *a = &sim->nodes[0];
    struct transport_wr wr = sim_wr(TRANSPORT_WRITE, 1, 0, 100000, 0);

    sim->ns_per_kib = 1000;
    sim_start(sim);
    sim_post(a, &wr);
    sim_post(a, &wr);
    sim_run(sim, 50000);
    transport_hold(a->transport, true);
    T_ASSERT(!transport_is_drained(a->transport));
    sim_run(sim, SECOND);
    T_ASSERT(transport_is_drained(a->transport));
    T_EQ(sim_count(a, LOG_SEND), 1);
    transport_hold(a->transport, false);
    sim_run(sim, SECOND);
    T_EQ(sim_count(a, LOG_SEND), 2);
    sim_free(sim);
}
