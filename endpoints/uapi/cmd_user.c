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

#include "core/sys.h"
#include "uapi/cmd.h"

enum direction { FROM_USER, TO_USER };

enum { PARTS_MAX = 2 };

static _Atomic bool forbidden; /* process_vm_readv() and its twin */

/* Bytes copied, or -1 and errno. */
static ssize_t copy_by_call(enum direction direction, const struct user_part *parts, size_t count)
{
    struct iovec ours[PARTS_MAX], theirs[PARTS_MAX];

    for (size_t i = 0; i < count; i++) {
        ours[i] = (struct iovec){parts[i].ours, parts[i].len};
        theirs[i] = (struct iovec){(void *)(uintptr_t)parts[i].theirs, parts[i].len};
    }
    if (direction == FROM_USER)
        return process_vm_readv(getpid(), ours, count, theirs, count, 0);
    return process_vm_writev(getpid(), ours, count, theirs, count, 0);
}

static ssize_t copy_by_file(enum direction direction, const struct user_part *part)
{
    int mode = direction == FROM_USER ? O_RDONLY : O_RDWR;
    int fd = sys_open("/proc/self/mem", mode | O_CLOEXEC, 0);
    void *theirs = (void *)(uintptr_t)part->theirs;
    ssize_t done;

    if (fd < 0) {
        memmove(direction == FROM_USER ? part->ours : theirs,
                direction == FROM_USER ? theirs : part->ours, part->len);
        return (ssize_t)part->len;
    }
    if (direction == FROM_USER)
        done = pread(fd, part->ours, part->len, (off_t)part->theirs);
    else
        done = pwrite(fd, part->ours, part->len, (off_t)part->theirs);
    sys_close(fd);
    return done;
}

static int copy(enum direction direction, const struct user_part *parts, size_t count)
{
    size_t len = 0;

    for (size_t i = 0; i < count; i++)
        len += parts[i].len;
    if (len == 0)
        return 0;
    if (!atomic_load_explicit(&forbidden, memory_order_relaxed)) {
        ssize_t done = copy_by_call(direction, parts, count);

        if (done >= 0 || (errno != EPERM && errno != ENOSYS))
            return done == (ssize_t)len ? 0 : -EFAULT;
        atomic_store_explicit(&forbidden, true, memory_order_relaxed);
    }
    for (size_t i = 0; i < count; i++) {
        if (parts[i].len && copy_by_file(direction, &parts[i]) != (ssize_t)parts[i].len)
            return -EFAULT;
    }
    return 0;
}

int user_read(void *to, uint64_t from, size_t len)
{
    return copy(FROM_USER, &(struct user_part){from, to, len}, 1);
}

int user_write(uint64_t to, const void *from, size_t len)
{
    return copy(TO_USER, &(struct user_part){to, (void *)(uintptr_t)from, len}, 1);
}

int user_write_two(const struct user_part parts[2])
{
    return copy(TO_USER, parts, 2);
}

/* What is there is written over itself: one call finds memory that can't be read or written. */
int user_probe_two(const struct user_part parts[2])
{
    struct user_part same[2];

    for (int i = 0; i < 2; i++) {
        void *there = (void *)(uintptr_t)parts[i].theirs;

        same[i] = (struct user_part){parts[i].theirs, there, parts[i].len};
    }
    return copy(TO_USER, same, 2);
}

int user_probe_write(uint64_t to, size_t len)
{
    return user_probe_two((struct user_part[2]){{.theirs = to, .len = len}});
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
