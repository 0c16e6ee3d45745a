/* SPDX-License-Identifier: MIT */
/*
 * One transport, and packets made by hand: what it answers to each, in the words of IBTA 9.7 and
 * 9.8. Node 1 of a simulation stands for the transport, its wire is not used.
 */
#ifndef SIM_BENCH_H
#define SIM_BENCH_H

#include "sim.h"
#include "wire/psn.h"

enum { START = 0xfffffe, RTO_NS = 10000000, MTU = 1024, SENT_FIRST = 0x700 };

struct bench {
    struct sim *sim;
    struct sim_node *node;
    struct transport *t;
    uint32_t psn; /* of the next packet given */
};

struct bench bench_new(enum transport_type type);
void bench_end(struct bench *bench);

/* ---- packets in ---- */
struct wire_packet bench_make(const struct bench *bench, uint8_t operation, uint32_t length);
void bench_give_packet(struct bench *bench, const struct wire_packet *packet);
/* A request in its turn. */
void bench_give(struct bench *bench, uint8_t operation, uint32_t length);

/* ---- packets out ---- */
bool bench_next(struct bench *bench, struct transport_packet *out);
void bench_expect_none(struct bench *bench);
struct transport_packet bench_expect(struct bench *bench, uint8_t operation, uint32_t psn);
/* These come last. */
void bench_expect_ack(struct bench *bench, uint32_t psn, uint32_t msn);
void bench_expect_nak(struct bench *bench, uint32_t psn, uint8_t syndrome);

/* ---- requests ---- */
void bench_post(struct bench *bench, enum transport_op op, uint32_t length);

#endif
