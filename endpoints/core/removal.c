/* SPDX-License-Identifier: MIT */
/* The files that say which NICs are out (removal.h). What that means for a process: context.c. */
#include "core/removal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "core/sys.h"

enum { PATH_BYTES = CONFIG_PATH_MAX + CONFIG_NAME_MAX + 16 };

static const char *mark_path(const char *runtime_dir, const char *name, char out[PATH_BYTES])
{
    snprintf(out, PATH_BYTES, "%s/removed-%s", runtime_dir, name);
    return out;
}

bool removal_is_marked(const char *runtime_dir, const char *name)
{
    char path[PATH_BYTES];
    int saved = errno;
    bool is = sys_access(mark_path(runtime_dir, name, path), F_OK) == 0;

    errno = saved;
    return is;
}

int removal_mark(const char *runtime_dir, const char *name, bool out)
{
    char path[PATH_BYTES];

    mark_path(runtime_dir, name, path);
    if (!out)
        return unlink(path) ? -errno : 0;
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    sys_close(fd);
    return 0;
}
