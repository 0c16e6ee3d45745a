/* SPDX-License-Identifier: MIT */
/* What bench.c, which measures, and bench_report.c, which shows, have in common. */
#ifndef VIADUCT_BENCH_H
#define VIADUCT_BENCH_H

#include "rival.h"
#include "session.h"

struct bench_options {
    struct session_options session;
    unsigned tests;
    unsigned ops;
    unsigned apis;
    struct sizes sizes; /* from 0: each test's own default */
    uint64_t iters;     /* 0: by time */
    double seconds;
    uint64_t qps;
    uint64_t depth;
    uint64_t batch; /* 0: 1 for bw, 16 for rate */
    uint64_t inline_bytes;
    uint64_t check;
    uint64_t rounds;
    unsigned against;
    bool half;
    bool json;
    bool csv;
    bool quiet;
    const char *plot;
};

/* Medians over the rounds; the others' values are 0 where they took no part. */
struct bench_entry {
    struct measure_result result;
    double value;
    double verbs;  /* over VIPL: the same without it */
    double single; /* and with a call and a completion for each message */
    double rivals[RIVAL_COUNT];
};

struct bench_results {
    struct bench_entry *entries;
    unsigned count;
};

/* What a case is judged by: the middle, in ns one way (lat), bytes a second (bw), messages a second
 * (rate). */
double bench_value(const struct measure_result *result);

/* Everything in the form the options ask for. Enum cmd_exit. */
int bench_report(const struct bench_options *opts, const struct option_set *set,
                 const struct session *session, const struct bench_results *results, int argc,
                 char **argv);

#endif
