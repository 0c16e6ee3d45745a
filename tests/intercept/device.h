/* SPDX-License-Identifier: MIT */
/* Finding our first device as libibverbs does: the host may have real ones beside it. */
#ifndef TESTS_INTERCEPT_DEVICE_H
#define TESTS_INTERCEPT_DEVICE_H

#include "t.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* "/dev/infiniband/uverbsN" of via0; "" if there is none. */
static inline const char *device_node(void)
{
    static char path[64];

    for (unsigned number = 0; number < 64; number++) {
        char name[96];
        char ibdev[32] = "";

        snprintf(name, sizeof name, "/sys/class/infiniband_verbs/uverbs%u/ibdev", number);
        FILE *file = fopen(name, "re");
        if (!file)
            continue;
        bool ours = fgets(ibdev, sizeof ibdev, file) && strcmp(ibdev, "via0\n") == 0;
        fclose(file);
        snprintf(path, sizeof path, "/dev/infiniband/uverbs%u", number);
        if (ours)
            return path;
    }
    return "";
}

static inline int device_open(void)
{
    return open(device_node(), O_RDWR | O_CLOEXEC);
}

static inline bool is_device(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && major(st.st_rdev) == 231;
}

#endif
