/* SPDX-License-Identifier: MIT */
/* The watcher: seccomp's user notifications for system calls, interposition for allocations. */
#include "watch.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct job {
    void (*fn)(void *arg, struct watch_counts *counts);
    void *arg;
    struct watch_counts *counts;
    _Atomic int listener; /* -1: not yet there; -2: refused */
};

/* ---- allocations ---- */

/* glibc's own names for what we stand before. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

static _Thread_local struct watch_counts *counted;

static void count_one(void)
{
    if (counted)
        atomic_fetch_add(&counted->allocations, 1);
}

void *malloc(size_t size)
{
    count_one();
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    count_one();
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    count_one();
    return __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    count_one();
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    count_one();
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : ENOMEM;
}

void free(void *memory)
{
    count_one();
    __libc_free(memory);
}

/* ---- system calls ---- */

static int install(void)
{
    struct sock_filter notify = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog program = {.len = 1, .filter = &notify};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -2;
    long fd =
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    return fd < 0 ? -2 : (int)fd;
}

static void *run(void *argument)
{
    struct job *job = argument;
    int listener = install();

    atomic_store(&job->listener, listener);
    if (listener < 0)
        return NULL;
    counted = job->counts;
    job->fn(job->arg, job->counts);
    counted = NULL;
    return NULL;
}

static void note(struct watch_counts *counts, int number)
{
    unsigned before = atomic_load(&counts->calls);

    atomic_store(&counts->numbers[before % WATCH_NUMBERS], number);
    atomic_store(&counts->calls, before + 1);
}

/* Until the last watched thread is gone, which hangs the listener up. */
static void *watch(void *argument)
{
    struct job *job = argument;
    int fd;

    while ((fd = atomic_load(&job->listener)) == -1)
        sched_yield();
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        struct seccomp_notif asked = {0};

        if (fd < 0 || (poll(&ready, 1, -1) < 0 && errno != EINTR) || (ready.revents & POLLHUP))
            return NULL;
        if (!(ready.revents & POLLIN) || ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &asked))
            continue;
        struct seccomp_notif_resp answer = {.id = asked.id,
                                            .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        note(job->counts, asked.data.nr);
        ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
}

bool watch_run(void (*fn)(void *arg, struct watch_counts *counts), void *arg,
               struct watch_counts *counts)
{
    struct job job = {.fn = fn, .arg = arg, .counts = counts, .listener = -1};
    pthread_t watcher, watched;

    if (pthread_create(&watcher, NULL, watch, &job))
        return false;
    if (pthread_create(&watched, NULL, run, &job)) {
        atomic_store(&job.listener, -2);
        pthread_join(watcher, NULL);
        return false;
    }
    pthread_join(watched, NULL);
    pthread_join(watcher, NULL);
    if (job.listener < 0)
        return false;
    close(job.listener);
    return true;
}
