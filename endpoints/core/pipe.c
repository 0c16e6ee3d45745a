/* SPDX-License-Identifier: MIT */
/* Pipes of fixed-size records, and taking back what was not read (core/pipe.h). */
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
int pipe_reopen(int fd)
{
    struct stat status;
    char path[32];

    if (sys_fstat(fd, &status) || !S_ISFIFO(status.st_mode))
        return -1;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return own_fd(sys_open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC, 0));
}

int pipe_open(int *fd_out, int *ours_out)
{
    int ends[2];

    if (sys_pipe2(ends, O_CLOEXEC))
        return -errno;
    int ours = pipe_reopen(ends[0]);
    int error = ours < 0 ? -errno : 0;
    sys_close(ends[1]);
    if (error) {
        sys_close(ends[0]);
        return error;
    }
    fcntl(ours, F_SETPIPE_SZ, PIPE_BYTES); /* best effort: the default holds thousands too */
    *fd_out = ends[0];
    *ours_out = ours;
    return 0;
}

bool pipe_write(int ours, const void *record, size_t size)
{
    return sys_write(ours, record, size) == (ssize_t)size;
}

/* Room for all that is unread now; NULL: none is, or there is no memory. */
static char *alloc_for_unread(int ours, size_t *room_out)
{
    int unread = 0;

    if (sys_ioctl(ours, FIONREAD, &unread) || unread <= 0)
        return NULL;
    *room_out = (size_t)unread;
    return malloc((size_t)unread);
}

unsigned pipe_withdraw(int ours, size_t record_size,
                       bool (*drop)(const void *record, uint64_t element), uint64_t element)
{
    size_t room, used = 0;
    unsigned dropped = 0;
    char *records = alloc_for_unread(ours, &room);

    if (!records)
        return 0; /* without memory the program gets them all: it was told how many */
    while (room - used >= record_size &&
           sys_read(ours, records + used, record_size) == (ssize_t)record_size) {
        if (drop(records + used, element))
            dropped++;
        else
            used += record_size;
    }
    for (size_t at = 0; at < used; at += record_size)
        pipe_write(ours, records + at, record_size);
    free(records);
    return dropped;
}
