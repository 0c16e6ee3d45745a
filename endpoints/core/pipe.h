/* SPDX-License-Identifier: MIT */
/*
 * The pipes that carry events to the program: it reads fixed-size records from its end with plain
 * read() and poll(); we hold a descriptor for both directions, to write, to take back what is
 * unread, and so that there is always a reader: no write ever raises SIGPIPE.
 */
#ifndef VIADUCT_CORE_PIPE_H
#define VIADUCT_CORE_PIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int pipe_open(int *fd_out, int *ours_out);
/* Another descriptor of ours for a pipe, with flags of its own; -1: it is none. */
int pipe_reopen(int fd);
/* False: the pipe is full; try again when the program has read. Never blocks. */
bool pipe_write(int ours, const void *record, size_t size);
/*
 * Drop the unread records for which drop() says so, keep the others in order. Returns how many
 * went.
 */
unsigned pipe_withdraw(int ours, size_t record_size,
                       bool (*drop)(const void *record, uint64_t element), uint64_t element);

#endif
