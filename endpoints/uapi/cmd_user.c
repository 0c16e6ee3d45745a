/* SPDX-License-Identifier: MIT */
/*
 * Copies from and to memory the program named: a bad pointer is an errno, as in a kernel.
 *
 * process_vm_readv() on ourselves lets the kernel do the copy and find the bad page; a process may
 * always do that to itself, in any thread, without a descriptor (whose number the program might
 * close and reuse under us) and without a signal handler (which would be the program's to set). It
 * costs some hundred nanoseconds, which a command can spend. Only a system call filter can forbid
 * it: then /proc/self/mem does the same, slower. Where that is missing as well, pointers are
 * trusted, and a bad one ends the program as it would in any library.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "uapi/cmd.h"

enum direction { FROM_USER, TO_USER };

static _Atomic bool forbidden; /* process_vm_readv() and its twin */

/* Bytes copied, or -1 and errno. */
static ssize_t copy_by_call(enum direction direction, void *ours, uint64_t theirs, size_t len)
{
    struct iovec local = {.iov_base = ours, .iov_len = len};
    struct iovec remote = {.iov_base = (void *)(uintptr_t)theirs, .iov_len = len};

    if (direction == FROM_USER)
        return process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    return process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
}

static ssize_t copy_by_file(enum direction direction, void *ours, uint64_t theirs, size_t len)
{
    int fd =
        real_open("/proc/self/mem", (direction == FROM_USER ? O_RDONLY : O_RDWR) | O_CLOEXEC, 0);
    ssize_t done;

    if (fd < 0) {
        if (direction == FROM_USER)
            memcpy(ours, (const void *)(uintptr_t)theirs, len);
        else
            memcpy((void *)(uintptr_t)theirs, ours, len);
        return (ssize_t)len;
    }
    if (direction == FROM_USER)
        done = pread(fd, ours, len, (off_t)theirs);
    else
        done = pwrite(fd, ours, len, (off_t)theirs);
    real_close(fd);
    return done;
}

static int copy(enum direction direction, void *ours, uint64_t theirs, size_t len)
{
    ssize_t done;

    if (len == 0)
        return 0;
    if (!atomic_load_explicit(&forbidden, memory_order_relaxed)) {
        done = copy_by_call(direction, ours, theirs, len);
        if (done >= 0 || (errno != EPERM && errno != ENOSYS))
            return done == (ssize_t)len ? 0 : -EFAULT;
        atomic_store_explicit(&forbidden, true, memory_order_relaxed);
    }
    return copy_by_file(direction, ours, theirs, len) == (ssize_t)len ? 0 : -EFAULT;
}

int user_read(void *to, uint64_t from, size_t len)
{
    return copy(FROM_USER, to, from, len);
}

int user_write(uint64_t to, const void *from, size_t len)
{
    return copy(TO_USER, (void *)(uintptr_t)from, to, len);
}

int user_zero(uint64_t to, size_t len)
{
    static const uint8_t zeros[256];

    while (len > 0) {
        size_t part = len < sizeof(zeros) ? len : sizeof(zeros);
        int err = user_write(to, zeros, part);

        if (err)
            return err;
        to += part;
        len -= part;
    }
    return 0;
}

int user_probe_write(uint64_t to, size_t len)
{
    uint8_t there[256];

    while (len > 0) {
        size_t part = len < sizeof(there) ? len : sizeof(there);
        int err = user_read(there, to, part);

        if (err == 0)
            err = user_write(to, there, part);
        if (err)
            return err;
        to += part;
        len -= part;
    }
    return 0;
}
