/* SPDX-License-Identifier: MIT */
/* The two sides of a measurement: how a client gets its server, and a server its clients. */
#ifndef VIADUCT_SIDES_H
#define VIADUCT_SIDES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Do what the client at the other end of channel orders, until it ends. Enum cmd_exit. */
typedef int serve_fn(int channel, const void *options, int cpu);

/* All return an enum cmd_exit, and complain of what is wrong. */

/*
 * A server of the client's own, in a child, and the channel to it. Before a device or a NIC is
 * opened: none survives a fork.
 */
int side_start(serve_fn *serve, const void *options, int cpu, int *channel_out, pid_t *pid_out);

/* A server that waits on a host. */
int side_reach(const char *host, uint16_t port, int *channel_out);

/* The child has been told to end, if code is CMD_OK; else it is made to. pid 0: there is none. */
int side_end(pid_t pid, int code);

/* Wait for clients and serve them, one after the other, or only the first one. */
int side_listen(uint16_t port, bool once, serve_fn *serve, const void *options, int cpu);

#endif
