/* SPDX-License-Identifier: MIT */
/*
 * Watching one thread: which system calls it makes, and how often it asks for memory.
 *
 *   thread --any system call--> seccomp --notification--> watcher: count it, let it go on
 *
 * The kernel itself stops the thread at each call until the watcher has seen it, so none escapes.
 * Only the thread that runs the function is watched; other threads of the process are not.
 */
#ifndef DATAPATH_WATCH_H
#define DATAPATH_WATCH_H

#include <stdatomic.h>
#include <stdbool.h>

enum { WATCH_NUMBERS = 8 };

struct watch_counts {
    _Atomic unsigned calls;             /* system calls so far */
    _Atomic int numbers[WATCH_NUMBERS]; /* the latest of them */
    _Atomic unsigned allocations;       /* calls of malloc and its kin, and of free */
};

/*
 * Runs fn(arg) in a thread of its own, watched, and waits for it. The counts move while it runs,
 * and it may read them. False: this kernel or sandbox can't do it.
 */
bool watch_run(void (*fn)(void *arg, struct watch_counts *counts), void *arg,
               struct watch_counts *counts);

#endif
