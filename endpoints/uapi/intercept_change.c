/* SPDX-License-Identifier: MIT */
/*
 * Calls that watch, change or describe what a path names: owners and modes of device nodes may be
 * changed as the files that stand for them let their owner; nothing new can be made in sysfs.
 */
#include "uapi/intercept.h"

#include "core/sys.h"

#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { SYSFS_TYPE = 0x62656572 }; /* SYSFS_MAGIC in <linux/magic.h> */

EXPORTED(int, inotify_add_watch, (int fd, const char *path, uint32_t mask));
int via_inotify_add_watch(int fd, const char *path, uint32_t mask)
{
    char out[SYSFS_PATH_MAX];

    return real.inotify_add_watch(fd, route(path, out), mask);
}

EXPORTED(int, chmod, (const char *path, mode_t mode));
int via_chmod(const char *path, mode_t mode)
{
    char out[SYSFS_PATH_MAX];

    return real.chmod(route(path, out), mode);
}

EXPORTED(int, fchmodat, (int dirfd, const char *path, mode_t mode, int flags));
int via_fchmodat(int dirfd, const char *path, mode_t mode, int flags)
{
    char out[SYSFS_PATH_MAX];

    return real.fchmodat(dirfd, route_at(dirfd, path, out), mode, flags);
}

EXPORTED(int, chown, (const char *path, uid_t owner, gid_t group));
int via_chown(const char *path, uid_t owner, gid_t group)
{
    char out[SYSFS_PATH_MAX];

    return real.chown(route(path, out), owner, group);
}

EXPORTED(int, lchown, (const char *path, uid_t owner, gid_t group));
int via_lchown(const char *path, uid_t owner, gid_t group)
{
    char out[SYSFS_PATH_MAX];

    return real.lchown(route(path, out), owner, group);
}

EXPORTED(int, fchownat, (int dirfd, const char *path, uid_t owner, gid_t group, int flags));
int via_fchownat(int dirfd, const char *path, uid_t owner, gid_t group, int flags)
{
    char out[SYSFS_PATH_MAX];

    return real.fchownat(dirfd, route_at(dirfd, path, out), owner, group, flags);
}

EXPORTED(int, utimensat, (int dirfd, const char *path, const struct timespec *times, int flags));
int via_utimensat(int dirfd, const char *path, const struct timespec *times, int flags)
{
    char out[SYSFS_PATH_MAX];

    return real.utimensat(dirfd, route_at(dirfd, path, out), times, flags);
}

/* A directory of ours that is there, or can't be made. */
static int made_already(const char *where)
{
    return failed_with(sys_access(where, F_OK) == 0 ? EEXIST : EPERM);
}

EXPORTED(int, mkdir, (const char *path, mode_t mode));
int via_mkdir(const char *path, mode_t mode)
{
    char out[SYSFS_PATH_MAX];
    const char *where = route(path, out);

    return where == path || !sysfs_is_in_tree(where) ? real.mkdir(where, mode)
                                                     : made_already(where);
}

EXPORTED(int, mkdirat, (int dirfd, const char *path, mode_t mode));
int via_mkdirat(int dirfd, const char *path, mode_t mode)
{
    char out[SYSFS_PATH_MAX];
    const char *where = route_at(dirfd, path, out);

    return where == path || !sysfs_is_in_tree(where) ? real.mkdirat(dirfd, where, mode)
                                                     : made_already(where);
}

EXPORTED(int, statfs, (const char *path, struct statfs *out));
int via_statfs(const char *path, struct statfs *fs)
{
    char out[SYSFS_PATH_MAX];
    const char *where = route(path, out);
    int result = real.statfs(where, fs);

    if (where != path && result == 0 && sysfs_is_in_tree(where)) {
        sysfs_unmap(out, strlen(out));
        if (strncmp(out, "/sys/", 5) == 0)
            fs->f_type = SYSFS_TYPE;
    }
    return result;
}
EXPORTED_ALIAS(int, statfs64, (const char *path, struct statfs *out), statfs);

EXPORTED(int, statvfs, (const char *path, struct statvfs *fs));
int via_statvfs(const char *path, struct statvfs *fs)
{
    char out[SYSFS_PATH_MAX];

    return real.statvfs(route(path, out), fs);
}
EXPORTED_ALIAS(int, statvfs64, (const char *path, struct statvfs *fs), statvfs);
