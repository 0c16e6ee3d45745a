/* SPDX-License-Identifier: MIT */
/*
 * What a result is compared with, measured in the same run: the machine's own floor, and other
 * people's programs where they are installed.
 */
#ifndef VIADUCT_RIVAL_H
#define VIADUCT_RIVAL_H

#include "measure.h"

enum rival {
    RIVAL_FLOOR,
    RIVAL_MEMCPY,
    RIVAL_UCX,
    RIVAL_LIBFABRIC,
    RIVAL_UDP,
    RIVAL_IPERF3,
    RIVAL_COUNT,
};

/* NULL at the end. */
extern const char *const rival_names[];

/* Why this rival can't take part at all (a program is missing); NULL if it can. */
const char *rival_missing(enum rival rival);

/* Whether the rival has something like this case. */
bool rival_plays(enum rival rival, const struct measure_case *which);

/*
 * Measure once, on the two CPUs. value_out: lat, nanoseconds one way; bw, bytes a second;
 * rate, messages a second. Enum cmd_exit, after one line.
 */
int rival_measure(enum rival rival, const struct measure_case *which, int cpu, int other_cpu,
                  double *value_out);

#endif
