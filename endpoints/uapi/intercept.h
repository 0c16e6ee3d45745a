/* SPDX-License-Identifier: MIT */
/*
 * What the intercept files share. Each of them defines functions under the names of libc's, so that
 * the program and its libraries call ours:
 *
 *   intercept.c       finding libc's own functions, fork
 *   intercept_open.c  open and its aliases
 *   intercept_stat.c  stat and its aliases
 *   intercept_path.c  access, readlink, realpath, chdir, extended attributes
 *   intercept_dir.c   opendir, scandir, glob, fopen
 *   intercept_walk.c  ftw, nftw
 *   intercept_change.c  inotify_add_watch, chmod, chown, mkdir, statfs
 *   intercept_fd.c    close, write, dup, fcntl, socket, madvise, mremap
 *
 * A function is called via_NAME here and NAME to the linker. That keeps libc's declarations away,
 * whose attributes would let the compiler drop the checks for NULL that the kernel's answer
 * (EFAULT) needs. None calls another by its exported name, because another preloaded library (or a
 * sanitizer) may stand before us under that name; and each goes on to libc's function of its own
 * name where another library is known to lead one name to another. All of them keep errno when they
 * succeed, and take a path that is not ours to libc without a system call of their own.
 */
#ifndef VIADUCT_UAPI_INTERCEPT_H
#define VIADUCT_UAPI_INTERCEPT_H

#include "uapi/uapi.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/vfs.h>

_Static_assert(sizeof(off_t) == 8 && sizeof(struct stat) == sizeof(struct stat64),
               "the 64-bit names are aliases only where long has 64 bits");

/* Declares via_NAME; its definition follows. */
#define EXPORTED(type, name, params)                                                               \
    type via_##name params __asm__(#name) __attribute__((visibility("default")))

/* A second name for an exported function of the same file. */
#define EXPORTED_ALIAS(type, name, params, target)                                                 \
    type via_##name params __asm__(#name) __attribute__((visibility("default"), alias(#target)))

typedef int real_filter(const struct dirent *);
typedef int real_order(const struct dirent **, const struct dirent **);
struct FTW;
typedef int real_nftw_visit(const char *, const struct stat *, int, struct FTW *);
typedef int real_ftw_visit(const char *, const struct stat *, int);

/*
 * libc's own functions. Before our constructor has looked them up, those in the first list are the
 * bare system calls, and the others look first: libraries that are loaded before us may call.
 */
#define REAL_SYSTEM_CALLS(X)                                                                       \
    X(int, open, (const char *path, int flags, ...))                                               \
    X(int, openat, (int dirfd, const char *path, int flags, ...))                                  \
    X(int, close, (int fd))                                                                        \
    X(ssize_t, write, (int fd, const void *buf, size_t len))                                       \
    X(ssize_t, writev, (int fd, const struct iovec *iov, int count))                               \
    X(int, fcntl, (int fd, int cmd, ...))                                                          \
    X(int, dup, (int fd))                                                                          \
    X(int, dup2, (int fd, int to))                                                                 \
    X(int, dup3, (int fd, int to, int flags))                                                      \
    X(int, close_range, (unsigned first, unsigned last, int flags))                                \
    X(int, socket, (int domain, int type, int protocol))                                           \
    X(int, madvise, (void *addr, size_t len, int advice))                                          \
    X(int, access, (const char *path, int mode))                                                   \
    X(int, faccessat, (int dirfd, const char *path, int mode, int flags))                          \
    X(int, euidaccess, (const char *path, int mode))                                               \
    X(int, stat, (const char *path, struct stat *st))                                              \
    X(int, lstat, (const char *path, struct stat *st))                                             \
    X(int, fstat, (int fd, struct stat *st))                                                       \
    X(int, fstatat, (int dirfd, const char *path, struct stat *st, int flags))                     \
    X(int, __xstat, (int version, const char *path, struct stat *st))                              \
    X(int, __lxstat, (int version, const char *path, struct stat *st))                             \
    X(int, __fxstat, (int version, int fd, struct stat *st))                                       \
    X(int, __fxstatat, (int version, int dirfd, const char *path, struct stat *st, int flags))     \
    X(int, statx, (int dirfd, const char *path, int flags, unsigned mask, struct statx *stx))      \
    X(ssize_t, readlinkat, (int dirfd, const char *path, char *buf, size_t size))                  \
    X(int, chdir, (const char *path))                                                              \
    X(int, inotify_add_watch, (int fd, const char *path, uint32_t mask))                           \
    X(int, chmod, (const char *path, mode_t mode))                                                 \
    X(int, fchmodat, (int dirfd, const char *path, mode_t mode, int flags))                        \
    X(int, chown, (const char *path, uid_t owner, gid_t group))                                    \
    X(int, lchown, (const char *path, uid_t owner, gid_t group))                                   \
    X(int, fchownat, (int dirfd, const char *path, uid_t owner, gid_t group, int flags))           \
    X(int, utimensat, (int dirfd, const char *path, const struct timespec *times, int flags))      \
    X(int, mkdir, (const char *path, mode_t mode))                                                 \
    X(int, mkdirat, (int dirfd, const char *path, mode_t mode))                                    \
    X(int, statfs, (const char *path, struct statfs *out))                                         \
    X(ssize_t, getxattr, (const char *path, const char *name, void *value, size_t size))           \
    X(ssize_t, lgetxattr, (const char *path, const char *name, void *value, size_t size))          \
    X(ssize_t, listxattr, (const char *path, char *list, size_t size))                             \
    X(ssize_t, llistxattr, (const char *path, char *list, size_t size))

#define REAL_LIBRARY_CALLS(X)                                                                      \
    X(int, fclose, (FILE * file), (file))                                                          \
    X(FILE *, fopen, (const char *path, const char *mode), (path, mode))                           \
    X(FILE *, freopen, (const char *path, const char *mode, FILE *file), (path, mode, file))       \
    X(DIR *, opendir, (const char *path), (path))                                                  \
    X(int, scandir,                                                                                \
      (const char *path, struct dirent ***list, real_filter *filter, real_order *order),           \
      (path, list, filter, order))                                                                 \
    X(int, scandirat,                                                                              \
      (int dirfd, const char *path, struct dirent ***list, real_filter *filter,                    \
       real_order *order),                                                                         \
      (dirfd, path, list, filter, order))                                                          \
    X(int, glob, (const char *pattern, int flags, int (*failed)(const char *, int), glob_t *out),  \
      (pattern, flags, failed, out))                                                               \
    X(int, nftw, (const char *path, real_nftw_visit *visit, int descriptors, int flags),           \
      (path, visit, descriptors, flags))                                                           \
    X(int, ftw, (const char *path, real_ftw_visit *visit, int descriptors),                        \
      (path, visit, descriptors))                                                                  \
    X(int, statvfs, (const char *path, struct statvfs *out), (path, out))                          \
    X(char *, realpath, (const char *path, char *out), (path, out))                                \
    X(char *, getcwd, (char *buf, size_t size), (buf, size))

struct real_calls {
#define MEMBER(type, name, params, ...) type(*name) params;
    REAL_SYSTEM_CALLS(MEMBER)
    REAL_LIBRARY_CALLS(MEMBER)
#undef MEMBER
};

extern struct real_calls real;

/* Where to look the path up: in `out` if we have a say, else where it always was. */
static inline const char *route_at(int dirfd, const char *path, char out[SYSFS_PATH_MAX])
{
    return sysfs_may_be_ours(path) && sysfs_redirect(dirfd, path, out) ? out : path;
}

static inline const char *route(const char *path, char out[SYSFS_PATH_MAX])
{
    return route_at(AT_FDCWD, path, out);
}

/*
 * intercept_stat.c. After a successful stat of a path: a file that stands for a device node is
 * described as the node. False if it is none.
 */
bool node_fix(struct stat *st);

/* -errno as the kernel gives it to what libc returns. */
static inline int failed_with(int error)
{
    errno = error;
    return -1;
}

#endif
