/* SPDX-License-Identifier: MIT */
/*
 * Counters of a NIC, over all processes of the user. What queue pairs count as they work lies in
 * their pub_qp, a line that the data path writes anyway; when one is destroyed, or its process
 * ends, that is added to totals in a file that all processes share. Rare things are counted in the
 * totals at once. A process that is killed takes along what it had not added.
 *
 *   a NIC's counter = its total + the sum over the queue pairs there are (link/shm/look.h)
 */
#ifndef VIADUCT_CORE_COUNTERS_H
#define VIADUCT_CORE_COUNTERS_H

#include <stdint.h>

#include "core/config.h"
#include "core/pub.h"

enum counter {
    COUNTER_MESSAGES,       /* requests carried out: one is as good as a packet on this link */
    COUNTER_BYTES,          /* moved by them, either way */
    COUNTER_SENDS,          /* of these requests, those that took a receive */
    COUNTER_RNR,            /* times one began to wait for a receive */
    COUNTER_RETRIES,        /* tries that were in vain */
    COUNTER_RETRY_EXCEEDED, /* given up: nobody there */
    COUNTER_RNR_EXCEEDED,   /* given up: no receive */
    COUNTER_ERRORS,         /* refused, here or there */
    COUNTER_DROPPED,        /* packets of the wire that made no sense, or were for nobody */
    COUNTERS,
};

struct counter_values {
    uint64_t of[COUNTERS];
};

/* core_lock held, once a process. Without memory or room for the file nothing is counted. */
void counters_open(const struct config *config);
/* Any thread, any lock. nic: its index. */
void counters_add(unsigned nic, enum counter counter, uint64_t count);
/* core_lock held, nobody posts: the queue pair's own are added to the totals, and are 0 then. */
void counters_retire(struct pub_qp *qp);
void counters_after_fork(void);

/* What the queue pair has counted so far, added to values. */
void counters_sum(const struct pub_qp *qp, struct counter_values *values);
/* The totals of a NIC by its name; zeroes if there are none. Any process, any thread. */
void counters_totals(const char *runtime_dir, const char *nic, struct counter_values *values_out);

#endif
