/* SPDX-License-Identifier: MIT */
/* A clock that costs a few nanoseconds to read: the CPU's own counter where it has a steady one. */
#ifndef VIADUCT_CLOCK_H
#define VIADUCT_CLOCK_H

#include <stdint.h>
#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

static inline uint64_t clock_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

/* Not serialising: the two reads around a round trip are ordered by the data they wait for. */
static inline uint64_t clock_ticks(void)
{
#if defined(__x86_64__)
    return __rdtsc();
#else
    return clock_ns();
#endif
}

/* Measured once, over 20 ms. */
double clock_ns_per_tick(void);

#endif
