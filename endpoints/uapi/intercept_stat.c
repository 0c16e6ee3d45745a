/* SPDX-License-Identifier: MIT */
/*
 * stat() and its aliases. A device node is known by the inode of the empty file that stands for it,
 * however it was reached (by a relative path, a link, a descriptor), and an open device by its
 * descriptor. Both are reported as the character device they would be.
 */
#include "uapi/intercept.h"

#include <sys/sysmacros.h>

bool node_fix(struct stat *st)
{
    if (!(S_ISREG(st->st_mode) && st->st_size == 0) && !(S_ISCHR(st->st_mode) && st->st_rdev == 0))
        return false;
    const struct nic *nic = sysfs_node(st->st_dev, st->st_ino);
    if (nic)
        sysfs_fill_node(sysfs_rdev(nic), st);
    else if (sysfs_is_cm_node(st->st_dev, st->st_ino))
        sysfs_fill_node(sysfs_cm_rdev(), st);
    else
        return false;
    return true;
}

/* After a successful stat of a descriptor. */
static bool fix_fd(int fd, struct stat *st)
{
    struct uapi_file *file = fdtab_hold(fd);

    if (!file)
        return node_fix(st);
    dev_t rdev = file->rdev;
    if (rdev)
        sysfs_fill_node(rdev, st);
    fdtab_put(file);
    return rdev != 0;
}

static bool is_fd_itself(const char *path, int flags)
{
    return (flags & AT_EMPTY_PATH) && (!path || !path[0]);
}

/* What all forms do when the call is done. */
static int fixed(int result, struct stat *st)
{
    if (result == 0)
        node_fix(st);
    return result;
}

static int fixed_fd(int result, int fd, struct stat *st)
{
    if (result == 0)
        fix_fd(fd, st);
    return result;
}

static int fixed_at(int result, int dirfd, const char *path, struct stat *st, int flags)
{
    return is_fd_itself(path, flags) ? fixed_fd(result, dirfd, st) : fixed(result, st);
}

EXPORTED(int, stat, (const char *path, struct stat *st));
int via_stat(const char *path, struct stat *st)
{
    char out[SYSFS_PATH_MAX];

    return fixed(real.stat(route(path, out), st), st);
}
EXPORTED_ALIAS(int, stat64, (const char *path, struct stat *st), stat);

EXPORTED(int, lstat, (const char *path, struct stat *st));
int via_lstat(const char *path, struct stat *st)
{
    char out[SYSFS_PATH_MAX];

    return fixed(real.lstat(route(path, out), st), st);
}
EXPORTED_ALIAS(int, lstat64, (const char *path, struct stat *st), lstat);

EXPORTED(int, fstat, (int fd, struct stat *st));
int via_fstat(int fd, struct stat *st)
{
    return fixed_fd(real.fstat(fd, st), fd, st);
}
EXPORTED_ALIAS(int, fstat64, (int fd, struct stat *st), fstat);

EXPORTED(int, fstatat, (int dirfd, const char *path, struct stat *st, int flags));
int via_fstatat(int dirfd, const char *path, struct stat *st, int flags)
{
    char out[SYSFS_PATH_MAX];
    const char *where = route_at(dirfd, path, out);

    return fixed_at(real.fstatat(dirfd, where, st, flags), dirfd, path, st, flags);
}
EXPORTED_ALIAS(int, fstatat64, (int dirfd, const char *path, struct stat *st, int flags), fstatat);

/* ---- programs linked before glibc 2.33 call these ---- */

EXPORTED(int, __xstat, (int version, const char *path, struct stat *st));
int via___xstat(int version, const char *path, struct stat *st)
{
    char out[SYSFS_PATH_MAX];

    return fixed(real.__xstat(version, route(path, out), st), st);
}
EXPORTED_ALIAS(int, __xstat64, (int version, const char *path, struct stat *st), __xstat);

EXPORTED(int, __lxstat, (int version, const char *path, struct stat *st));
int via___lxstat(int version, const char *path, struct stat *st)
{
    char out[SYSFS_PATH_MAX];

    return fixed(real.__lxstat(version, route(path, out), st), st);
}
EXPORTED_ALIAS(int, __lxstat64, (int version, const char *path, struct stat *st), __lxstat);

EXPORTED(int, __fxstat, (int version, int fd, struct stat *st));
int via___fxstat(int version, int fd, struct stat *st)
{
    return fixed_fd(real.__fxstat(version, fd, st), fd, st);
}
EXPORTED_ALIAS(int, __fxstat64, (int version, int fd, struct stat *st), __fxstat);

EXPORTED(int, __fxstatat, (int version, int dirfd, const char *path, struct stat *st, int flags));
int via___fxstatat(int version, int dirfd, const char *path, struct stat *st, int flags)
{
    char out[SYSFS_PATH_MAX];
    const char *where = route_at(dirfd, path, out);

    return fixed_at(real.__fxstatat(version, dirfd, where, st, flags), dirfd, path, st, flags);
}
EXPORTED_ALIAS(int, __fxstatat64,
               (int version, int dirfd, const char *path, struct stat *st, int flags), __fxstatat);

/* ---- statx ---- */

/* The fields that node_fix() and fix_fd() look at and write, there and back. */
static void fix_statx(int fd, bool is_fd, struct statx *stx)
{
    struct stat st = {.st_mode = stx->stx_mode, .st_size = (off_t)stx->stx_size};

    st.st_dev = makedev(stx->stx_dev_major, stx->stx_dev_minor);
    st.st_rdev = makedev(stx->stx_rdev_major, stx->stx_rdev_minor);
    st.st_ino = stx->stx_ino;
    if (!(is_fd ? fix_fd(fd, &st) : node_fix(&st)))
        return;
    stx->stx_mode = (uint16_t)st.st_mode;
    stx->stx_nlink = 1;
    stx->stx_size = 0;
    stx->stx_blocks = 0;
    stx->stx_ino = st.st_ino;
    stx->stx_dev_major = major(st.st_dev);
    stx->stx_dev_minor = minor(st.st_dev);
    stx->stx_rdev_major = major(st.st_rdev);
    stx->stx_rdev_minor = minor(st.st_rdev);
}

EXPORTED(int, statx, (int dirfd, const char *path, int flags, unsigned mask, struct statx *stx));
int via_statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *stx)
{
    char out[SYSFS_PATH_MAX];
    int result = real.statx(dirfd, route_at(dirfd, path, out), flags, mask, stx);

    /* The kernel gives type and inode always, asked or not. */
    if (result == 0)
        fix_statx(dirfd, is_fd_itself(path, flags), stx);
    return result;
}
