/* SPDX-License-Identifier: MIT */
/* Which descriptors are the library's own. */
#include "core/own_fd.h"

_Atomic uint8_t own_fds[OWN_FDS];

uint64_t own_fd_next(uint64_t first, uint64_t last)
{
    for (uint64_t fd = first; fd <= last && fd < OWN_FDS; fd++) {
        if (own_fd_has((int)fd))
            return fd;
    }
    return last + 1;
}
