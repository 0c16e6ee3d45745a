/* SPDX-License-Identifier: MIT */
/* What the machine itself can do: nothing that moves data between two processes is faster. */
#ifndef VIADUCT_FLOOR_H
#define VIADUCT_FLOOR_H

#include <stddef.h>

/*
 * One way of a cache line between two processes on two CPUs: half of the middle round trip. Each
 * direction has a line of its own, as two queues do.
 * Returns enum cmd_exit.
 */
int floor_cache_line(int cpu, int other_cpu, double *one_way_ns_out);

/* memcpy() from one buffer to another of this size, in bytes a second. Enum cmd_exit. */
int floor_memcpy(size_t size, double *bytes_per_s_out);

/* A datagram to and fro between two connected sockets on the loopback interface, both polled. */
int floor_udp(size_t size, int cpu, int other_cpu, double *one_way_ns_out);

#endif
