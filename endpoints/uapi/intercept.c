/* SPDX-License-Identifier: MIT */
/*
 * Finding libc's own functions, and fork.
 *
 * The constructor does only look-ups, a few microseconds: nothing is read or made until the program
 * looks for RDMA devices.
 */
#include "uapi/intercept.h"

#include "core/sys.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- bare system calls, for callers that are earlier than our constructor ---- */

static int raw_open(const char *path, int flags, ...)
{
    va_list args;

    va_start(args, flags);
    mode_t mode = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(args, mode_t) : 0;
    va_end(args);
    return sys_open(path, flags, mode);
}

static int raw_openat(int dirfd, const char *path, int flags, ...)
{
    va_list args;

    va_start(args, flags);
    mode_t mode = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(args, mode_t) : 0;
    va_end(args);
    return sys_openat(dirfd, path, flags, mode);
}

static int raw_fcntl(int fd, int cmd, ...)
{
    va_list args;

    va_start(args, cmd);
    void *arg = va_arg(args, void *);
    va_end(args);
    return (int)syscall(SYS_fcntl, fd, cmd, arg);
}

static int raw_close(int fd)
{
    return sys_close(fd);
}

static ssize_t raw_write(int fd, const void *buf, size_t len)
{
    return sys_write(fd, buf, len);
}

static int raw_dup2(int fd, int to)
{
    /* dup3 refuses equal numbers; dup2 returns them if they are open. */
    if (fd == to)
        return raw_fcntl(fd, F_GETFD) < 0 ? -1 : to;
    return (int)syscall(SYS_dup3, fd, to, 0);
}

#define RAW(type, name, params, ...)                                                               \
    static type raw_##name params                                                                  \
    {                                                                                              \
        return (type)syscall(__VA_ARGS__);                                                         \
    }
RAW(ssize_t, writev, (int fd, const struct iovec *iov, int count), SYS_writev, fd, iov, count)
RAW(int, dup, (int fd), SYS_dup, fd)
RAW(int, dup3, (int fd, int to, int flags), SYS_dup3, fd, to, flags)
RAW(int, close_range, (unsigned first, unsigned last, int flags), SYS_close_range, first, last,
    flags)
RAW(int, socket, (int domain, int type, int protocol), SYS_socket, domain, type, protocol)
RAW(int, madvise, (void *addr, size_t len, int advice), SYS_madvise, addr, len, advice)
RAW(int, access, (const char *path, int mode), SYS_faccessat, AT_FDCWD, path, mode)
RAW(int, euidaccess, (const char *path, int mode), SYS_faccessat, AT_FDCWD, path, mode)
RAW(int, faccessat, (int dirfd, const char *path, int mode, int flags __attribute__((unused))),
    SYS_faccessat, dirfd, path, mode)
RAW(int, stat, (const char *path, struct stat *st), SYS_newfstatat, AT_FDCWD, path, st, 0)
RAW(int, lstat, (const char *path, struct stat *st), SYS_newfstatat, AT_FDCWD, path, st,
    AT_SYMLINK_NOFOLLOW)
RAW(int, fstat, (int fd, struct stat *st), SYS_fstat, fd, st)
RAW(int, fstatat, (int dirfd, const char *path, struct stat *st, int flags), SYS_newfstatat, dirfd,
    path, st, flags)
/* The version is a matter between program and libc: there is one struct stat. */
#define VERSION int version __attribute__((unused))
RAW(int, __xstat, (VERSION, const char *path, struct stat *st), SYS_newfstatat, AT_FDCWD, path, st,
    0)
RAW(int, __lxstat, (VERSION, const char *path, struct stat *st), SYS_newfstatat, AT_FDCWD, path, st,
    AT_SYMLINK_NOFOLLOW)
RAW(int, __fxstat, (VERSION, int fd, struct stat *st), SYS_fstat, fd, st)
RAW(int, __fxstatat, (VERSION, int dirfd, const char *path, struct stat *st, int flags),
    SYS_newfstatat, dirfd, path, st, flags)
#undef VERSION
RAW(int, statx, (int dirfd, const char *path, int flags, unsigned mask, struct statx *stx),
    SYS_statx, dirfd, path, flags, mask, stx)
RAW(ssize_t, readlinkat, (int dirfd, const char *path, char *buf, size_t size), SYS_readlinkat,
    dirfd, path, buf, size)
RAW(int, chdir, (const char *path), SYS_chdir, path)
RAW(int, inotify_add_watch, (int fd, const char *path, uint32_t mask), SYS_inotify_add_watch, fd,
    path, mask)
RAW(int, chmod, (const char *path, mode_t mode), SYS_fchmodat, AT_FDCWD, path, mode)
RAW(int, fchmodat, (int dirfd, const char *path, mode_t mode, int flags __attribute__((unused))),
    SYS_fchmodat, dirfd, path, mode)
RAW(int, chown, (const char *path, uid_t owner, gid_t group), SYS_fchownat, AT_FDCWD, path, owner,
    group, 0)
RAW(int, lchown, (const char *path, uid_t owner, gid_t group), SYS_fchownat, AT_FDCWD, path, owner,
    group, AT_SYMLINK_NOFOLLOW)
RAW(int, fchownat, (int dirfd, const char *path, uid_t owner, gid_t group, int flags), SYS_fchownat,
    dirfd, path, owner, group, flags)
RAW(int, utimensat, (int dirfd, const char *path, const struct timespec *times, int flags),
    SYS_utimensat, dirfd, path, times, flags)
RAW(int, mkdir, (const char *path, mode_t mode), SYS_mkdirat, AT_FDCWD, path, mode)
RAW(int, mkdirat, (int dirfd, const char *path, mode_t mode), SYS_mkdirat, dirfd, path, mode)
RAW(int, statfs, (const char *path, struct statfs *out), SYS_statfs, path, out)
RAW(ssize_t, getxattr, (const char *path, const char *name, void *value, size_t size), SYS_getxattr,
    path, name, value, size)
RAW(ssize_t, lgetxattr, (const char *path, const char *name, void *value, size_t size),
    SYS_lgetxattr, path, name, value, size)
RAW(ssize_t, listxattr, (const char *path, char *list, size_t size), SYS_listxattr, path, list,
    size)
RAW(ssize_t, llistxattr, (const char *path, char *list, size_t size), SYS_llistxattr, path, list,
    size)
#undef RAW

/* ---- library functions: looked up at the first call, if that is before our constructor ---- */

static void real_resolve(void);

#define LATE(type, name, params, args)                                                             \
    static type late_##name params                                                                 \
    {                                                                                              \
        real_resolve();                                                                            \
        return real.name args;                                                                     \
    }
REAL_LIBRARY_CALLS(LATE)
#undef LATE

struct real_calls real = {
#define SYSTEM_CALL(type, name, params) .name = raw_##name,
#define LIBRARY_CALL(type, name, params, args) .name = late_##name,
    REAL_SYSTEM_CALLS(SYSTEM_CALL) REAL_LIBRARY_CALLS(LIBRARY_CALL)
#undef SYSTEM_CALL
#undef LIBRARY_CALL
};

/* A name that this libc lacks (it is older than the name) stays as it was. */
static void real_find(const char *name, void *slot, size_t size)
{
    void *symbol = dlsym(RTLD_NEXT, name);

    if (symbol)
        memcpy(slot, &symbol, size);
}

static void real_resolve(void)
{
#define FIND(type, name, ...) real_find(#name, &real.name, sizeof real.name);
    REAL_SYSTEM_CALLS(FIND)
    REAL_LIBRARY_CALLS(FIND)
#undef FIND
}

/* In the child of fork(): the contexts are the parent's. vfork() does not come here. */
static void child_after_fork(void)
{
    fdtab_after_fork();
    sysfs_after_fork();
    ucma_after_fork();
    uverbs_after_fork();
}

__attribute__((constructor)) static void intercept_start(void)
{
    real_resolve();
    pthread_atfork(NULL, NULL, child_after_fork);
}
