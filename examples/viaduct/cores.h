/* SPDX-License-Identifier: MIT */
/* Which CPU each side of a measurement runs on. */
#ifndef VIADUCT_CORES_H
#define VIADUCT_CORES_H

#include <stdbool.h>
#include <sys/types.h>

/* How many CPUs this process may use. */
unsigned cores_allowed(void);

/* Whether this process may use the CPU. */
bool cores_may_use(int cpu);

/*
 * The n-th CPU to use, n from 0. CPUs of different cores come first, hyperthreads of a core
 * already named come last. With fewer than n+1 CPUs the last one is shared.
 */
int cores_pick(unsigned n);

/* Bind the calling thread. Negative errno if the CPU may not be used. */
int cores_pin(int cpu);

/*
 * A child on this CPU that runs run(arg) and ends; the caller waits for it. -1: it was complained
 * that there is none.
 */
pid_t cores_start(int cpu, void (*run)(void *arg), void *arg);

/* Let the calling thread run on every CPU again that the process was started with. */
void cores_unpin(void);

#endif
