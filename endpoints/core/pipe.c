/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "core/pipe.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/sys.h"

enum { RECORD_MAX = 16, PIPE_BYTES = 1 << 20 };

/* Opened anew, so that our O_NONBLOCK is not the program's. */
static int reopen_for_peek(int fd)
{
    char path[32];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int peek = sys_open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0);
    return peek;
}

int pipe_open(int *fd_out, int *wr_out, int *peek_out)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    int peek = reopen_for_peek(ends[0]);
    if (peek < 0) {
        int error = -errno;

        sys_close(ends[0]);
        sys_close(ends[1]);
        return error;
    }
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES); /* best effort: the default holds thousands too */
    *fd_out = ends[0];
    *wr_out = ends[1];
    *peek_out = peek;
    return 0;
}

void pipe_close_ours(int wr, int peek)
{
    sys_close(wr);
    sys_close(peek);
}

bool pipe_write(int wr, const void *record, size_t size)
{
    return sys_write(wr, record, size) == (ssize_t)size;
}

unsigned pipe_withdraw(int wr, int peek, size_t record_size,
                       bool (*drop)(const void *record, uint64_t element), uint64_t element)
{
    char record[RECORD_MAX];
    char *kept = NULL;
    size_t count = 0, dropped = 0;

    assert(record_size <= RECORD_MAX);
    while (sys_read(peek, record, record_size) == (ssize_t)record_size) {
        if (drop(record, element)) {
            dropped++;
            continue;
        }
        char *more = realloc(kept, (count + 1) * record_size);
        if (!more)
            break;
        kept = more;
        memcpy(kept + count++ * record_size, record, record_size);
    }
    for (size_t i = 0; i < count; i++)
        pipe_write(wr, kept + i * record_size, record_size);
    free(kept);
    return (unsigned)dropped;
}
