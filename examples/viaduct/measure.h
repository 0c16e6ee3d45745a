/* SPDX-License-Identifier: MIT */
/*
 * The timed loops, both sides of them. A case is one test of one operation at one size:
 *
 *   lat   one message at a time. send and write: to and fro; the receiver of a write polls the
 *         last byte of memory (with events: it waits for the completion of a write with
 *         immediate). read and atomic: the client alone.
 *   bw    as many in flight as the queue allows, counted in bytes.
 *   rate  the same, counted in messages, and posted in chains.
 *
 * A case is run in passes of a number of messages that the client announces over the channel;
 * 0 ends it. Passes are what makes "for 2 seconds" possible without a clock at the server.
 */
#ifndef VIADUCT_MEASURE_H
#define VIADUCT_MEASURE_H

#include "hist.h"
#include "rig.h"

enum measure_test { TEST_LAT, TEST_BW, TEST_RATE, TEST_COUNT };
enum measure_op { OP_SEND, OP_WRITE, OP_READ, OP_ATOMIC, OP_COUNT };
enum measure_api { API_VERBS, API_VIPL, API_COUNT };

#define MEASURE_BATCH_MAX 256u
#define MEASURE_ROUNDS_MAX 99u
#define MEASURE_ALL_APIS ((1u << API_COUNT) - 1)

/* NULL at the end. */
extern const char *const measure_test_names[];
extern const char *const measure_op_names[];
extern const char *const measure_api_names[];

struct measure_case {
    enum measure_test test;
    enum measure_op op;
    enum measure_api api;
    size_t size;
    unsigned batch; /* work requests in one post: bw and rate */
    bool single;    /* verbs used as VIPL has to be: a call and a completion for each message */
    uint64_t iters; /* 0: by time */
    double seconds;
};

struct measure_result {
    struct measure_case which;
    uint64_t count;
    double seconds;
    /* lat: round trips, or the whole operation of reads and atomics */
    double min_ns, p50_ns, p90_ns, p99_ns, p999_ns, max_ns;
    double middle_ns; /* mean of the middle half */
    /* bw and rate */
    double bytes_per_s, messages_per_s;
};

/* "send", "single send", or "vipl send". */
const char *measure_case_name(const struct measure_case *which);

/* Whether the interface has such an operation: VIA has no atomics. */
bool measure_api_has(enum measure_api api, enum measure_op op);

/* Post every receive that the tests count on. Once, before the first case. Enum cmd_exit. */
int measure_prepare(struct rig *rig);

struct pass;
typedef int pass_fn(struct pass *pass, uint64_t iters);

/* Run passes with the server's half until the case has what it asks for, or until the client ends
 * it. Enum cmd_exit. */
int measure_passes_client(struct pass *pass, pass_fn *run, struct measure_result *result_out);
int measure_passes_server(struct pass *pass, pass_fn *run);

/* Each returns enum cmd_exit, after one line to stderr if it is not CMD_OK. */
int measure_client(struct rig *rig, const struct measure_case *which,
                   struct measure_result *result_out);
int measure_server(struct rig *rig, const struct measure_case *which);

/*
 * Move `rounds` messages whose every byte is known, and compare them at the receiver. The two
 * sides call it with equal arguments. CMD_FAILED if a byte was wrong.
 */
int check_run(struct rig *rig, bool client, enum measure_op op, size_t size, unsigned rounds);

#endif
