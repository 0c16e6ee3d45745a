/* SPDX-License-Identifier: MIT */
/*
 * open() and its aliases. A path of ours is opened where it really is; if that turns out to be the
 * empty file that stands for a device node, the device is opened instead.
 */
#include "uapi/intercept.h"

#include "core/sys.h"

#include <stdarg.h>

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

/* `fd` is a file of our tree. Returns what the program shall have. */
static int open_node(int fd, int flags)
{
    struct stat st;
    int device;

    if (fd < 0 || (flags & O_PATH) || real.fstat(fd, &st) != 0)
        return fd;
    const struct nic *nic = sysfs_node(st.st_dev, st.st_ino);
    if (!nic && !sysfs_is_cm_node(st.st_dev, st.st_ino))
        return fd;
    sys_close(fd);
    int failed =
        nic ? uverbs_open(nic, flags | O_CLOEXEC, &device) : ucma_open(flags | O_CLOEXEC, &device);
    if (failed)
        return failed_with(-failed);
    struct uapi_file *file = fdtab_get(device);
    if (file)
        name_device(file, nic);
    return device;
}

/* A path that looks as if it were ours. */
static __attribute__((noinline)) int open_candidate(int dirfd, const char *path, int flags,
                                                    mode_t mode)
{
    char out[SYSFS_PATH_MAX];
    int saved = errno;

    if (!sysfs_redirect(dirfd, path, out))
        return opened(real.openat(dirfd, path, flags, mode));
    sysfs_refresh(out);
    int fd = open_node(opened(sys_open(out, flags, mode)), flags);
    if (fd >= 0)
        errno = saved;
    return fd;
}

static mode_t mode_of(int flags, va_list *args)
{
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(*args, mode_t) : 0;
}

static int open_any(const char *path, int flags, mode_t mode)
{
    if (sysfs_may_be_ours(path))
        return open_candidate(AT_FDCWD, path, flags, mode);
    return opened(real.open(path, flags, mode));
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
