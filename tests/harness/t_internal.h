/* SPDX-License-Identifier: MIT */
/* What the harness's own files share. */
#ifndef T_INTERNAL_H
#define T_INTERNAL_H

#include "t.h"

#include <setjmp.h>

enum { T_MESSAGE_MAX = 4096 };

/* Where a failed check goes: it fills this and, if fatal, jumps back to `env`. */
struct t_catch {
    sigjmp_buf env;
    int failures;
    bool skipped;
    char message[T_MESSAGE_MAX];
};

/* What a peer tells its caller after a call. */
struct t_report {
    int failures;
    bool skipped, thrown;
    char message[T_MESSAGE_MAX];
};

/* Makes `c` the place where this thread's failures go; returns the former one. */
struct t_catch *t_catch_set(struct t_catch *c);

/* Adds a peer's failures to ours, and jumps if the peer did. */
void t_take_over(const struct t_report *theirs, const char *who);

/* Gives a new process random numbers of its own: streams differ by `stream`, the seed stays. */
void t_rand_split(uint64_t stream);

/*
 * Tests that are known to fail on a device. Each line of the file is a pattern of "suite/name" and
 * the reason; # begins a comment. t_known() is the reason, NULL for a test that should pass.
 */
void t_known_read(const char *path);
const char *t_known(const char *name);

/* The plain runner's command line; returns the program's exit status. */
int t_plain_main(char **argv);

/* The factor by which all deadlines are stretched. */
double t_slow(void);

#endif
