/* SPDX-License-Identifier: MIT */
/*
 * The pipes that carry events to the program: it reads fixed-size records from its end with plain
 * read() and poll(); we hold the writing end and a second reading end, to take back what is unread.
 */
#ifndef VIADUCT_CORE_PIPE_H
#define VIADUCT_CORE_PIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int pipe_open(int *fd_out, int *wr_out, int *peek_out);
void pipe_close_ours(int wr, int peek);
/* False: the pipe is full; try again when the program has read. Never blocks. */
bool pipe_write(int wr, const void *record, size_t size);
/*
 * Drop the unread records for which drop() says so, keep the others in order. Returns how many
 * went.
 */
unsigned pipe_withdraw(int wr, int peek, size_t record_size,
                       bool (*drop)(const void *record, uint64_t element), uint64_t element);

#endif
