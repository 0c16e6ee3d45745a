/* SPDX-License-Identifier: MIT */
/*
 * The engine thread: one a process, asleep unless needed (a polling watchdog). It serves peers'
 * control messages, timers of queue pairs that wait, completion events, and what the data path
 * leaves for later. The thread that posts or polls does everything else itself.
 */
#ifndef VIADUCT_CORE_THREAD_H
#define VIADUCT_CORE_THREAD_H

#include <stdbool.h>
#include <stdint.h>

struct watch {
    int fd;
    void (*ready)(struct watch *watch); /* on the engine thread, core_lock held */
};

/* First the descriptors, then the thread. Negative errno if the kernel refuses. */
int thread_prepare(void);
int thread_start(void);
int thread_watch(struct watch *watch); /* readable or hung up: ready() */
void thread_unwatch(struct watch *watch);

/* Make the engine thread look at everything that is due, soon. One system call at most; any thread.
 */
void thread_wake(void);
/* Also at this time (CLOCK_MONOTONIC ns), if it would sleep longer. Engine thread or any other. */
void thread_wake_at(uint64_t when_ns);

/* A region went: give back, within seconds, what memory nobody maps any more. */
void thread_collect_later(void);

bool thread_is_current(void);
/* The child of a fork has no engine thread (or it could not be started): close its descriptors. */
void thread_after_fork(void);

uint64_t now_ns(void); /* CLOCK_MONOTONIC */

#endif
