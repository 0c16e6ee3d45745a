/* SPDX-License-Identifier: MIT */
/*
 * open() and its aliases. A path of ours is opened where it really is; if that turns out to be the
 * file that stands for a device node, the device is opened instead.
 */
#include "uapi/intercept.h"

#include "core/sys.h"

#include <stdarg.h>
#include <string.h>

/* The descriptor number may have been ours before somebody closed it behind our back. */
static inline int opened(int fd)
{
    if (__builtin_expect(fdtab_has(fd), 0) && fdtab_is_owner())
        fdtab_clear(fd);
    return fd;
}

static void name_device(struct uapi_file *file, const struct nic *nic)
{
    if (nic) {
        file->rdev = sysfs_rdev(nic);
        sysfs_node_path(nic, file->path, sizeof file->path);
    } else {
        file->rdev = sysfs_cm_rdev();
        snprintf(file->path, sizeof file->path, "/dev/infiniband/rdma_cm");
    }
}

/* What is there, without opening it. */
static bool look(const char *where, int flags, struct stat *st_out)
{
    int fd = sys_open(where, O_PATH | O_CLOEXEC | (flags & O_NOFOLLOW), 0);

    if (fd < 0)
        return false;
    bool known = sys_fstat(fd, st_out) == 0;
    sys_close(fd);
    return known;
}

/* The device whose node it is: of a NIC, or (NULL) the connection manager's. */
static int open_device(const struct nic *nic, int flags)
{
    int device;

    if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
        return failed_with(EEXIST);
    if (flags & O_DIRECTORY)
        return failed_with(ENOTDIR);
    int failed =
        nic ? uverbs_open(nic, flags | O_CLOEXEC, &device) : ucma_open(flags | O_CLOEXEC, &device);
    if (failed)
        return failed_with(-failed);
    struct uapi_file *file = fdtab_get(device);
    if (file)
        name_device(file, nic);
    return device;
}

/* sysfs has no new files, and attributes that can't be written are not, by root either. */
static bool is_refused(const struct stat *st, int flags)
{
    bool write = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);

    return st ? write && S_ISREG(st->st_mode) && !(st->st_mode & 0222) : flags & O_CREAT;
}

/* A path that leads to our tree, or from there to the host's. */
static int open_redirected(const char *where, int flags, mode_t mode)
{
    struct stat st;
    bool known = look(where, flags, &st);

    if (known && !(flags & O_PATH)) {
        const struct nic *nic = sysfs_node(st.st_dev, st.st_ino);

        if (nic || sysfs_is_cm_node(st.st_dev, st.st_ino))
            return open_device(nic, flags);
    }
    if (!(flags & O_PATH) && sysfs_is_in_tree(where) && is_refused(known ? &st : NULL, flags))
        return failed_with(EACCES);
    sysfs_refresh(where);
    return opened(sys_open(where, flags, mode));
}

/* A path that looks as if it were ours. */
static __attribute__((noinline)) int open_candidate(int dirfd, const char *path, int flags,
                                                    mode_t mode)
{
    char out[SYSFS_PATH_MAX];
    int saved = errno;

    if (!sysfs_redirect(dirfd, path, out))
        return opened(real.openat(dirfd, path, flags, mode));
    int fd = open_redirected(out, flags, mode);
    if (fd >= 0)
        errno = saved;
    return fd;
}

/*
 * A descriptor of a node (O_PATH) opened again by its name in /proc: the kernel finds the file that
 * stands for it, and no driver behind that. It has failed; errno says how.
 */
static __attribute__((noinline)) int open_again(const char *path, int flags, mode_t mode)
{
    char where[SYSFS_PATH_MAX];
    int error = errno;

    if ((error == ENXIO || error == EACCES) && path &&
        (strncmp(path, "/proc/", 6) == 0 || strncmp(path, "/dev/fd/", 8) == 0)) {
        ssize_t len = sys_readlink(path, where, sizeof where - 1);

        where[len > 0 ? len : 0] = '\0';
        if (sysfs_is_in_tree(where))
            return open_redirected(where, flags, mode);
    }
    return failed_with(error);
}

static mode_t mode_of(int flags, va_list *args)
{
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(*args, mode_t) : 0;
}

static int open_any(const char *path, int flags, mode_t mode)
{
    if (sysfs_may_be_ours(path))
        return open_candidate(AT_FDCWD, path, flags, mode);
    int fd = opened(real.open(path, flags, mode));
    return __builtin_expect(fd < 0, 0) ? open_again(path, flags, mode) : fd;
}

static int openat_any(int dirfd, const char *path, int flags, mode_t mode)
{
    if (sysfs_may_be_ours(path))
        return open_candidate(dirfd, path, flags, mode);
    return opened(real.openat(dirfd, path, flags, mode));
}

EXPORTED(int, open, (const char *path, int flags, ...));
int via_open(const char *path, int flags, ...)
{
    va_list args;

    va_start(args, flags);
    mode_t mode = mode_of(flags, &args);
    va_end(args);
    return open_any(path, flags, mode);
}
EXPORTED_ALIAS(int, open64, (const char *path, int flags, ...), open);
EXPORTED_ALIAS(int, __open, (const char *path, int flags, ...), open);
EXPORTED_ALIAS(int, __open64, (const char *path, int flags, ...), open);

EXPORTED(int, openat, (int dirfd, const char *path, int flags, ...));
int via_openat(int dirfd, const char *path, int flags, ...)
{
    va_list args;

    va_start(args, flags);
    mode_t mode = mode_of(flags, &args);
    va_end(args);
    return openat_any(dirfd, path, flags, mode);
}
EXPORTED_ALIAS(int, openat64, (int dirfd, const char *path, int flags, ...), openat);

/* What a program compiled with -D_FORTIFY_SOURCE calls when it gives no mode. */
EXPORTED(int, __open_2, (const char *path, int flags));
int via___open_2(const char *path, int flags)
{
    return open_any(path, flags, 0);
}
EXPORTED_ALIAS(int, __open64_2, (const char *path, int flags), __open_2);

EXPORTED(int, __openat_2, (int dirfd, const char *path, int flags));
int via___openat_2(int dirfd, const char *path, int flags)
{
    return openat_any(dirfd, path, flags, 0);
}
EXPORTED_ALIAS(int, __openat64_2, (int dirfd, const char *path, int flags), __openat_2);

EXPORTED(int, creat, (const char *path, mode_t mode));
int via_creat(const char *path, mode_t mode)
{
    return open_any(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}
EXPORTED_ALIAS(int, creat64, (const char *path, mode_t mode), creat);
