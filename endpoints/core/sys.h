/* SPDX-License-Identifier: MIT */
/*
 * System calls of the library's own. The library interposes open, close, write, madvise and others
 * of the program, so its own calls must not go through these names. Conventions of libc: -1 and
 * errno on failure. None is a cancellation point.
 */
#ifndef VIADUCT_CORE_SYS_H
#define VIADUCT_CORE_SYS_H

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "core/own_fd.h"

static inline int sys_open(const char *path, int flags, mode_t mode)
{
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static inline int sys_openat(int dir_fd, const char *path, int flags, mode_t mode)
{
    return (int)syscall(SYS_openat, dir_fd, path, flags, mode);
}

/* By the real user and group, as access() does. */
static inline int sys_access(const char *path, int mode)
{
    return (int)syscall(SYS_faccessat, AT_FDCWD, path, mode);
}

static inline ssize_t sys_readlink(const char *path, char *buf, size_t size)
{
    return syscall(SYS_readlinkat, AT_FDCWD, path, buf, size);
}

static inline int sys_close(int fd)
{
    own_fd_forget(fd);
    return (int)syscall(SYS_close, fd);
}

/*
 * What is closed by sys_close() is made by these: who watches libc's calls, as ThreadSanitizer
 * does, sees both or neither.
 */
static inline int sys_socket(int domain, int type, int protocol)
{
    return (int)syscall(SYS_socket, domain, type, protocol);
}

static inline int sys_pipe2(int ends_out[2], int flags)
{
    return (int)syscall(SYS_pipe2, ends_out, flags);
}

static inline ssize_t sys_read(int fd, void *buf, size_t len)
{
    return syscall(SYS_read, fd, buf, len);
}

static inline ssize_t sys_write(int fd, const void *buf, size_t len)
{
    return syscall(SYS_write, fd, buf, len);
}

static inline ssize_t sys_pread(int fd, void *buf, size_t len, off_t at)
{
    return syscall(SYS_pread64, fd, buf, len, at);
}

static inline ssize_t sys_pwrite(int fd, const void *buf, size_t len, off_t at)
{
    return syscall(SYS_pwrite64, fd, buf, len, at);
}

/* The kernel's struct stat is libc's, on 64-bit machines. */
static inline int sys_fstat(int fd, struct stat *out)
{
    return (int)syscall(SYS_fstat, fd, out);
}

static inline int sys_ioctl(int fd, unsigned long request, void *arg)
{
    return (int)syscall(SYS_ioctl, fd, request, arg);
}

/* MAP_FAILED on failure. */
static inline void *sys_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t at)
{
    return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, at);
}

static inline int sys_munmap(void *addr, size_t len)
{
    return (int)syscall(SYS_munmap, addr, len);
}

static inline void *sys_mremap(void *addr, size_t old_len, size_t new_len, int flags, void *to)
{
    return (void *)syscall(SYS_mremap, addr, old_len, new_len, flags, to);
}

static inline int sys_mprotect(void *addr, size_t len, int prot)
{
    return (int)syscall(SYS_mprotect, addr, len, prot);
}

static inline int sys_madvise(void *addr, size_t len, int advice)
{
    return (int)syscall(SYS_madvise, addr, len, advice);
}

static inline int sys_fallocate(int fd, int mode, off_t at, off_t len)
{
    return (int)syscall(SYS_fallocate, fd, mode, at, len);
}

#endif
