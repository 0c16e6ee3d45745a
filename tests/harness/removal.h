/* SPDX-License-Identifier: MIT */
/* Taking a NIC away from within a test, and giving it back. */
#ifndef VIADUCT_HARNESS_REMOVAL_H
#define VIADUCT_HARNESS_REMOVAL_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "t.h"

/* Tests of a file run side by side, and the NIC goes for all: until this process ends. */
static inline void be_alone(void)
{
    const char *dir = getenv("VIADUCT_RUNTIME_DIR");

    T_ASSERT(!mkdir(dir, 0700) || errno == EEXIST, "%s: %s", dir, strerror(errno));
    int fd = open(dir, O_RDONLY | O_DIRECTORY);

    T_ASSERT(fd >= 0 && flock(fd, LOCK_EX) == 0, "%s", strerror(errno));
}

/* A function of libviaduct, which stands under this program as under any, on this NIC. */
static inline int change_nic(const char *function, const char *nic)
{
    int (*act)(const char *);
    void *symbol = dlsym(RTLD_DEFAULT, function);

    T_ASSERT(symbol, "%s", function);
    memcpy(&act, &symbol, sizeof(act));
    return act(nic);
}

#endif
