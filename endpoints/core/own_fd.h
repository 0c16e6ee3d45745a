/* SPDX-License-Identifier: MIT */
/*
 * Descriptors that the library keeps for itself. A program may close numbers it does not know (a
 * loop over all, closefrom()), and get them again for files of its own: then our wake-ups would be
 * written to these. So the interposed close() leaves alone what is marked here. No locks; a mark is
 * set by who opened, and goes with sys_close().
 */
#ifndef VIADUCT_CORE_OWN_FD_H
#define VIADUCT_CORE_OWN_FD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { OWN_FDS = 1 << 16 }; /* higher numbers are not protected */

extern _Atomic uint8_t own_fds[OWN_FDS];

/* Mark it; a failed open's -1 stays what it is. */
static inline int own_fd(int fd)
{
    if ((unsigned)fd < OWN_FDS)
        atomic_store(&own_fds[fd], 1);
    return fd;
}

static inline bool own_fd_has(int fd)
{
    return (unsigned)fd < OWN_FDS && atomic_load_explicit(&own_fds[fd], memory_order_relaxed);
}

static inline void own_fd_forget(int fd)
{
    if (own_fd_has(fd))
        atomic_store(&own_fds[fd], 0);
}

/* The first one in [first, last], or last + 1. */
uint64_t own_fd_next(uint64_t first, uint64_t last);

#endif
