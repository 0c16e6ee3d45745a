/* SPDX-License-Identifier: MIT */
/* Tables that all processes of the user share (shared_table.h). */
#define _GNU_SOURCE
#include "core/shared_table.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "core/own_fd.h"
#include "core/process.h"
#include "core/sys.h"
#include "core/thread.h"

enum { PATIENCE_NS = 1000000000, PAUSE_NS = 50000 };

static int open_table(struct shared_table *table)
{
    if (table->map)
        return 0;
    int fd = sys_openat(process_runtime_dirfd(), table->name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    void *map = ftruncate(fd, (off_t)table->size)
                    ? MAP_FAILED
                    : mmap(NULL, table->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        int error = -errno;

        sys_close(fd);
        return error;
    }
    table->map = map;
    table->fd = own_fd(fd);
    return 0;
}

/* Held for microseconds, unless its holder is stopped: nobody waits for that for ever. */
int shared_table_lock(struct shared_table *table)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    uint64_t until = now_ns() + PATIENCE_NS;
    int error = open_table(table);

    if (error)
        return error;
    while (flock(table->fd, LOCK_EX | LOCK_NB)) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        if (now_ns() > until)
            return -EAGAIN;
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
    return 0;
}

void shared_table_unlock(struct shared_table *table)
{
    flock(table->fd, LOCK_UN);
}

void shared_table_after_fork(struct shared_table *table)
{
    if (!table->map)
        return;
    munmap(table->map, table->size);
    sys_close(table->fd);
    table->map = NULL;
    table->fd = -1;
}
