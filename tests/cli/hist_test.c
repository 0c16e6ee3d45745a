/* SPDX-License-Identifier: MIT */
/* The histogram that every latency goes through, against a sorted list of the same samples. */
#include "hist.h"

#include "t.h"

#include <math.h>
#include <stdlib.h>

#define SAMPLES 20000u

static struct hist hist;
static uint64_t samples[SAMPLES];

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* Numbers of every magnitude up to the given number of bits, the same in each run. */
static void take_samples(unsigned bits)
{
    uint64_t state = 42;

    hist_reset(&hist);
    for (unsigned i = 0; i < SAMPLES; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        samples[i] = (state >> (64 - bits)) >> (i % bits);
        hist_add(&hist, samples[i]);
    }
    qsort(samples, SAMPLES, sizeof(samples[0]), by_value);
}

static void compare(double part, double error_max)
{
    double wanted = (double)samples[(size_t)(part * SAMPLES)];
    double got = (double)hist_quantile(&hist, part);

    T_CHECK(fabs(got - wanted) <= wanted * error_max, "%g: got %g, wanted %g", part, got, wanted);
}

T_TEST(hist, small_values_are_exact)
{
    // Shows that quantiles of values below 512 are those of the sorted list.
    take_samples(9);
    for (double part = 0; part < 1; part += 0.001)
        compare(part, 0);
}

T_TEST(hist, large_values_are_near)
{
    // Shows that quantiles are within 0.4 percent at every magnitude, up to the largest number.
    take_samples(63);
    for (double part = 0; part < 1; part += 0.001)
        compare(part, 0.004);
    hist_reset(&hist);
    hist_add(&hist, UINT64_MAX);
    T_CHECK(hist_quantile(&hist, 0.5) == UINT64_MAX);
}

T_TEST(hist, ends_are_exact)
{
    // Shows that no quantile lies outside minimum and maximum, and that these are exact.
    take_samples(40);
    T_CHECK_EQ(hist.min, samples[0]);
    T_CHECK_EQ(hist.max, samples[SAMPLES - 1]);
    T_CHECK_EQ(hist_quantile(&hist, 0), samples[0]);
    T_CHECK(hist_quantile(&hist, 0.99999999) <= hist.max);
    T_CHECK_EQ(hist.count, SAMPLES);
}

T_TEST(hist, middle_is_finer_than_its_steps)
{
    // Shows that the middle leaves out both outer quarters, and lies between the clock's steps.
    hist_reset(&hist);
    for (unsigned i = 0; i < 100; i++)
        hist_add(&hist, i < 25 ? 1 : i < 75 ? 100 + i % 2 * 10 : 400);
    T_CHECK(fabs(hist_middle(&hist) - 105) < 1e-9, "%g", hist_middle(&hist));
    hist_reset(&hist);
    T_CHECK(hist_middle(&hist) == 0);
    T_CHECK_EQ(hist_quantile(&hist, 0.5), 0);
}
