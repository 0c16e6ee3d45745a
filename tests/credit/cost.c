/* SPDX-License-Identifier: MIT */
/*
 * Shows that credits cost at most 5 ns a message, both ends together: a stream of messages whose
 * words go from one end to the other by hand, updates included. The best of many short runs
 * counts, because whatever else the machine does can only add.
 */
#include "credit.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MESSAGES = 4000, RUNS = 3000, WINDOW = 64, LIMIT_PS = 5000 };

static void need(int good)
{
    if (!good) {
        fprintf(stderr, "the protocol failed\n");
        exit(1);
    }
}

static void meet(struct credit *a, struct credit *b)
{
    struct credit *ends[2] = {a, b};
    uint32_t hello[2];

    for (int i = 0; i < 2; i++) {
        need(credit_init(ends[i], 2) == 0);
        for (int n = 0; n < WINDOW + 2; n++) {
            credit_posted(ends[i]);
        }
        need(credit_hello(ends[i], &hello[i]) == 0);
    }
    need(credit_meet(a, hello[1]) == 0 && credit_meet(b, hello[0]) == 0);
}

/* One message from a to b, and the update that b may send for it. */
static void message(struct credit *a, struct credit *b)
{
    uint32_t word;

    need(credit_take(a, &word) == 0);
    credit_sent(a, word);
    need(credit_arrived(b, word) == CREDIT_DATA);
    credit_posted(b);
    if (credit_update(b, &word) == 0) {
        credit_sent(b, word);
        need(credit_arrived(a, word) == CREDIT_UPDATE);
        credit_posted(a);
    }
}

static long run_ps(void)
{
    struct credit a, b;
    struct timespec from, to;

    meet(&a, &b);
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < MESSAGES; i++) {
        message(&a, &b);
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    return ((to.tv_sec - from.tv_sec) * 1000000000L + (to.tv_nsec - from.tv_nsec)) * 1000 /
           MESSAGES;
}

int main(void)
{
    long best = run_ps();

    for (int i = 1; i < RUNS; i++) {
        long ps = run_ps();

        best = ps < best ? ps : best;
    }
    printf("%ld ps a message\n", best);
    return best > LIMIT_PS;
}
