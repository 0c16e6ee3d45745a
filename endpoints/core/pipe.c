/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "core/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/sys.h"

enum { PIPE_BYTES = 1 << 20 };

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
    *wr_out = own_fd(ends[1]);
    *peek_out = own_fd(peek);
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

/* Room for all that is unread now; NULL: none is, or there is no memory. */
static char *alloc_for_unread(int peek, size_t *room_out)
{
    int unread = 0;

    if (sys_ioctl(peek, FIONREAD, &unread) || unread <= 0)
        return NULL;
    *room_out = (size_t)unread;
    return malloc((size_t)unread);
}

unsigned pipe_withdraw(int wr, int peek, size_t record_size,
                       bool (*drop)(const void *record, uint64_t element), uint64_t element)
{
    size_t room, used = 0;
    unsigned dropped = 0;
    char *records = alloc_for_unread(peek, &room);

    if (!records)
        return 0; /* without memory the program gets them all: it was told how many */
    while (room - used >= record_size &&
           sys_read(peek, records + used, record_size) == (ssize_t)record_size) {
        if (drop(records + used, element))
            dropped++;
        else
            used += record_size;
    }
    for (size_t at = 0; at < used; at += record_size)
        pipe_write(wr, records + at, record_size);
    free(records);
    return dropped;
}
