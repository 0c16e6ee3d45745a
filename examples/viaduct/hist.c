/* SPDX-License-Identifier: MIT */
/* A histogram of tick counts, read out. */
#include "hist.h"

#include <string.h>

void hist_reset(struct hist *hist)
{
    memset(hist, 0, sizeof(*hist));
    hist->min = UINT64_MAX;
}

/* The middle of a bucket. */
static uint64_t bucket_value(unsigned index)
{
    unsigned shift, mantissa;

    if (index < HIST_EXACT)
        return index;
    shift = (index - HIST_EXACT) / HIST_HALF + 1;
    mantissa = (index - HIST_EXACT) % HIST_HALF + HIST_HALF;
    return ((uint64_t)mantissa << shift) + (UINT64_C(1) << (shift - 1));
}

uint64_t hist_quantile(const struct hist *hist, double part)
{
    uint64_t rank = (uint64_t)((double)hist->count * part);
    uint64_t seen = 0;
    uint64_t value;

    if (hist->count == 0)
        return 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += hist->buckets[i];
        if (seen > rank) {
            value = bucket_value(i);
            value = value < hist->min ? hist->min : value;
            return value > hist->max ? hist->max : value;
        }
    }
    return hist->max;
}

double hist_middle(const struct hist *hist)
{
    uint64_t low = hist->count / 4;
    uint64_t high = hist->count - low;
    uint64_t seen = 0;
    double sum = 0;

    for (unsigned i = 0; i < HIST_BUCKETS && seen < high; i++) {
        uint64_t from = seen > low ? seen : low;
        uint64_t to = seen + hist->buckets[i] < high ? seen + hist->buckets[i] : high;

        if (to > from)
            sum += (double)(to - from) * (double)bucket_value(i);
        seen += hist->buckets[i];
    }
    return hist->count > 0 ? sum / (double)(high - low) : 0;
}
