/* SPDX-License-Identifier: MIT */
/*
 * VIBe, the VIA micro-benchmark suite: what an operation costs that moves no data, what moving
 * data costs by each of the choices that VIA leaves, and what a client and a server make of it.
 *
 *   cost      open, tag, CQ, VI, connect, register, and the reverse
 *   base      polling, blocking and handlers: latency, bandwidth, use of the processor
 *   segments  1, 4 and 16 of them in a descriptor
 *   cq        receives found by way of a completion queue
 *   reuse     100 to 0 % of the messages from the same buffer
 *   vis       1 to 64 VIs, used in turn
 *   rdma      write and read beside send
 *   level     unreliable, reliable delivery, reliable reception
 *   pipeline  1 to 64 messages under way: bandwidth
 *   server    a short question, answers of all sizes
 */
#ifndef VIADUCT_VIBE_H
#define VIADUCT_VIBE_H

#include "session.h"
#include "vicase.h"

enum vibe_test {
    VIBE_COST,
    VIBE_BASE,
    VIBE_SEGMENTS,
    VIBE_CQ,
    VIBE_REUSE,
    VIBE_VIS,
    VIBE_RDMA,
    VIBE_LEVEL,
    VIBE_PIPELINE,
    VIBE_SERVER,
    VIBE_COUNT
};

/* NULL at the end. */
extern const char *const vibe_test_names[];

struct vibe_options {
    struct session_options session;
    unsigned tests;
    struct sizes sizes;
    uint64_t iters; /* 0: by time */
    double seconds;
    uint64_t repeat; /* of what moves no data */
    bool json;
    bool csv;
    bool quiet;
    const char *plot; /* a folder */
};

/* One operation that moves no data. */
struct vibe_cost {
    const char *what;
    size_t size; /* of a region; 0: it has none */
    double median_ns, min_ns;
};

/* One variant of one test at one size. Values are 0 where they were not measured. */
struct vibe_line {
    enum vibe_test test;
    char variant[24];
    size_t size;
    double one_way_ns, lat_cpu;
    double bytes_per_s, flow_cpu;
    double per_s; /* questions answered */
};

enum { VIBE_COSTS_MAX = 64, VIBE_LINES_MAX = 1024 };

struct vibe_results {
    struct vibe_cost costs[VIBE_COSTS_MAX];
    struct vibe_line lines[VIBE_LINES_MAX];
    unsigned cost_count, line_count;
};

/* What the client orders before each piece of work. */
enum vibe_order { VIBE_END, VIBE_CASE, VIBE_CONNECT };

/* Both halves of each; enum cmd_exit, after one line. */
int vibe_costs(const struct vibe_options *opts, int channel, struct vibe_results *results);
int vibe_serve_connect(int channel, const char *device);
int vibe_transfers(const struct vibe_options *opts, int channel, struct vibe_results *results);

int vibe_report(const struct vibe_options *opts, const struct option_set *set,
                const struct vibe_results *results, int argc, char **argv);

#endif
