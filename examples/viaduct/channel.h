/* SPDX-License-Identifier: MIT */
/*
 * The channel beside the RDMA connection: a stream socket over which the two sides agree on
 * what to measure and exchange queue pair addresses. Messages are a 4-byte length and that
 * many bytes. All calls block; functions return 0 or a negative errno, -ECONNRESET when the
 * other side is gone.
 */
#ifndef VIADUCT_CHANNEL_H
#define VIADUCT_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHANNEL_MESSAGE_MAX (1u << 20)

/* A listening socket on all addresses. port 0: any; port_out tells which. */
int channel_listen(uint16_t port, int *fd_out, uint16_t *port_out);
int channel_accept(int listen_fd, int *fd_out);
int channel_connect(const char *host, uint16_t port, int *fd_out);

int channel_put(int fd, const void *data, size_t length);

/* length_out is at most size; a longer message is -EMSGSIZE. */
int channel_get(int fd, void *data, size_t size, size_t *length_out);

/* Numbers, for counts and flags. */
int channel_put_number(int fd, uint64_t number);
int channel_get_number(int fd, uint64_t *number_out);

/* Both sides have arrived here. */
int channel_sync(int fd);

/* How long a read may wait, in seconds; 0: for ever. Then it fails with -EAGAIN. */
void channel_patience(int fd, unsigned seconds);

/* Whether the other side still holds its end. Never blocks. */
bool channel_alive(int fd);

#endif
