/* SPDX-License-Identifier: MIT */
/*
 * A histogram of tick counts: exact below 512, within 0.4 % above, any number of samples in
 * fixed memory. Adding one is a few instructions, so it can stand inside a timed loop.
 */
#ifndef VIADUCT_HIST_H
#define VIADUCT_HIST_H

#include <stdint.h>

#define HIST_EXACT 512u /* values below have a bucket each */
#define HIST_HALF 256u  /* buckets for each doubling above */
#define HIST_BUCKETS (HIST_EXACT + 55u * HIST_HALF)

struct hist {
    uint64_t count;
    uint64_t min;
    uint64_t max;
    uint64_t buckets[HIST_BUCKETS];
};

void hist_reset(struct hist *hist);

/* The value below or at which the given part of the samples lies: 0.5 is the median. */
uint64_t hist_quantile(const struct hist *hist, double part);

/*
 * The mean of the middle half: as steady as the median, and finer than the clock's own steps,
 * which on some machines are ten nanoseconds.
 */
double hist_middle(const struct hist *hist);

static inline unsigned hist_index(uint64_t value)
{
    unsigned shift;

    if (value < HIST_EXACT)
        return (unsigned)value;
    shift = 55u - (unsigned)__builtin_clzll(value); /* 512..1023 is shifted by one */
    return HIST_EXACT + (shift - 1) * HIST_HALF + (unsigned)((value >> shift) - HIST_HALF);
}

static inline void hist_add(struct hist *hist, uint64_t value)
{
    hist->count++;
    if (value < hist->min)
        hist->min = value;
    if (value > hist->max)
        hist->max = value;
    hist->buckets[hist_index(value)]++;
}

#endif
