/* SPDX-License-Identifier: MIT */
/*
 * fork(): the child inherits the mappings of the memfd, so before anything else runs in it, it
 * replaces them by private copies. The forking thread of the parent waits for that, so what this
 * thread owns is the same in both; other threads of the parent run on (see docs/caveats.md).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <time.h>

#include "core/sys.h"
#include "link/shm/share_internal.h"

/* What the handlers of one fork keep; guarded by the owner's lock. */
static struct {
    sigset_t signals;
    int ends[2]; /* the child says "copied" into [1], or dies and so closes it */
} fork_state = {.ends = {-1, -1}};

void share_fork_prepare(void)
{
    sigset_t all;
    sigset_t before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_mutex_lock(&share_owner.lock);
    fork_state.signals = before;
    fork_state.ends[0] = fork_state.ends[1] = -1;
    /* Without descriptors left the parent just does not wait. */
    if (atomic_load(&share_owner.pages) && syscall(SYS_pipe2, fork_state.ends, O_CLOEXEC))
        fork_state.ends[0] = fork_state.ends[1] = -1;
}

/* Ten times as long as copying takes; afterwards the child's copy may show newer data. */
static struct timespec patience(void)
{
    uint64_t ms = 1000 + atomic_load(&share_owner.pages) / 100;

    return (struct timespec){(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
}

void share_fork_parent(void)
{
    sigset_t before = fork_state.signals;

    if (fork_state.ends[0] >= 0) {
        struct pollfd wait = {.fd = fork_state.ends[0], .events = POLLIN};
        struct timespec timeout = patience();

        sys_close(fork_state.ends[1]);
        syscall(SYS_ppoll, &wait, 1, &timeout, NULL, 0);
        sys_close(fork_state.ends[0]);
    }
    pthread_mutex_unlock(&share_owner.lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Where the memfd has data. Kept between calls: to find the end of a long run takes long. */
struct data_run {
    uint64_t start, end;
};

/* The first run of data that ends above pos, as far as it is known; none: beyond everything. */
static int find_data(struct data_run *run, uint64_t pos)
{
    if (run->start <= pos && pos < run->end)
        return 0;
    off_t data = syscall(SYS_lseek, share_owner.mem_fd, pos, SEEK_DATA);
    off_t hole = data < 0 ? -1 : syscall(SYS_lseek, share_owner.mem_fd, data, SEEK_HOLE);

    if (hole < 0) {
        *run = (struct data_run){UINT64_MAX, UINT64_MAX};
        return errno == ENXIO ? 0 : -errno;
    }
    *run = (struct data_run){(uint64_t)data, (uint64_t)hole};
    return 0;
}

/* Read the memfd's data of [at, at + len) to `to`; holes stay untouched. */
static int read_sparse(struct data_run *run, uint64_t at, uint64_t len, char *to)
{
    uint64_t pos = at, end = at + len;

    for (;;) {
        int error = pos < end ? find_data(run, pos) : 0;

        if (error)
            return error;
        if (pos < run->start)
            pos = run->start;
        if (pos >= end)
            return 0;
        uint64_t stop = run->end < end ? run->end : end;
        ssize_t got = sys_pread(share_owner.mem_fd, to + (pos - at), stop - pos, (off_t)pos);
        if (got <= 0)
            return got < 0 ? -errno : -EIO;
        pos += (uint64_t)got;
    }
}

/* Private memory with the same content takes the place of a mapping of the memfd. */
static int replace(struct data_run *run, const struct maps_vma *vma)
{
    size_t len = vma->end - vma->start;
    char *copy = sys_mmap(NULL, len, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (copy == MAP_FAILED)
        return -errno;
    int error = read_sparse(run, vma->offset, len, copy);
    if (!error && vma->prot != (PROT_READ | PROT_WRITE) && sys_mprotect(copy, len, vma->prot))
        error = -errno;
    if (!error && sys_mremap(copy, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
                             (void *)(uintptr_t)vma->start) == MAP_FAILED)
        error = -errno;
    if (error)
        sys_munmap(copy, len);
    return error;
}

static void replace_all(void)
{
    struct maps_reader reader;
    struct maps_vma vma;
    struct data_run run = {0, 0};
    uint64_t pos = 0;
    int fd = sys_open("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);

    maps_start(&reader, fd);
    while (maps_find(&reader, pos, &vma)) {
        pos = vma.end;
        if (!share_is_ours(&vma))
            continue;
        /* A child without these pages beats one that writes to its parent's. */
        if (replace(&run, &vma))
            sys_munmap((void *)(uintptr_t)vma.start, vma.end - vma.start);
    }
    if (fd >= 0)
        sys_close(fd);
}

void share_fork_child(void)
{
    sigset_t before = fork_state.signals;

    if (atomic_load(&share_owner.pages))
        replace_all();
    if (fork_state.ends[1] >= 0) {
        (void)!sys_write(fork_state.ends[1], "", 1);
        sys_close(fork_state.ends[0]);
        sys_close(fork_state.ends[1]);
    }
    share_tools_close(&share_owner.tools);
    share_reset();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}
