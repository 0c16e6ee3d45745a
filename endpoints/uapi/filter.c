/* SPDX-License-Identifier: MIT */
/*
 * The first look at a path. It stands alone because every call comes by here, also those that are
 * earlier than any constructor: a build for ThreadSanitizer leaves this file and the interposers
 * uninstrumented, as its runtime calls them before it is ready.
 */
#include "uapi/uapi.h"

#include <string.h>

bool sysfs_may_be_ours(const char *path)
{
    if (!path)
        return false;
    if (path[0] == '/') {
        /* "//sys", "/./sys" and "/etc/../sys" are allowed to be slow. */
        if (strncmp(path, "/sys/", 5) != 0 && strncmp(path, "/dev/", 5) != 0 && path[1] != '/' &&
            path[1] != '.' && strncmp(path, "/proc/", 6) != 0 && !strstr(path, "/../"))
            return false;
        return strstr(path, "infiniband") || strstr(path, "char/231:") ||
               strstr(path, "misc/rdma_cm") || strstr(path, "virtual/viaduct");
    }
    return strstr(path, "infiniband") || strstr(path, "uverbs") || strstr(path, "rdma_cm") ||
           strncmp(path, "..", 2) == 0;
}
