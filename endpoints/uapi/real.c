/* SPDX-License-Identifier: MIT */
/*
 * The system calls themselves, for the library's own use: they work before any constructor has
 * run, and never come back to our own interposed functions.
 */
#include "uapi/uapi.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

int real_openat(int dirfd, const char *path, int flags, mode_t mode)
{
    return (int)syscall(SYS_openat, dirfd, path, flags, mode);
}

int real_open(const char *path, int flags, mode_t mode)
{
    return real_openat(AT_FDCWD, path, flags, mode);
}

int real_close(int fd)
{
    return (int)syscall(SYS_close, fd);
}

ssize_t real_write(int fd, const void *buf, size_t len)
{
    return syscall(SYS_write, fd, buf, len);
}

ssize_t real_readlink(const char *path, char *buf, size_t size)
{
    return syscall(SYS_readlinkat, AT_FDCWD, path, buf, size);
}
