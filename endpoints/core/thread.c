/* SPDX-License-Identifier: MIT */
/* The engine thread's loop: wait for descriptors, a wake-up or the next time, then do what is due.
 */
#define _GNU_SOURCE
#include "core/thread.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/conn.h"
#include "core/state.h"
#include "core/sys.h"
#include "core/requester.h"
#include "link/link.h"
#include "link/shm/share.h"

enum { EVENTS = 64, COLLECT_AFTER_NS = 2000000000 };

static int epoll_fd = -1;
static struct watch wake = {.fd = -1};
static _Atomic bool woken;
static _Atomic uint64_t next_ns = UINT64_MAX; /* when to look again without being woken */
static _Atomic uint64_t collect_at_ns;        /* 0: nothing to collect */
static _Thread_local bool is_engine;

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

bool thread_is_current(void)
{
    return is_engine;
}

void thread_wake(void)
{
    uint64_t one = 1;

    /* Pairs with the exchange in on_wake(): whoever sets it first writes, the rest is included. */
    if (wake.fd >= 0 && !atomic_exchange(&woken, true))
        (void)!sys_write(wake.fd, &one, sizeof(one));
}

void thread_wake_at(uint64_t when_ns)
{
    uint64_t seen = atomic_load(&next_ns);

    while (when_ns < seen) {
        if (!atomic_compare_exchange_weak(&next_ns, &seen, when_ns))
            continue;
        if (!is_engine)
            thread_wake();
        return;
    }
}

static void on_wake(struct watch *watch)
{
    uint64_t count;

    (void)!sys_read(watch->fd, &count, sizeof(count));
    atomic_exchange(&woken, false);
}

int thread_watch(struct watch *watch)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = watch};

    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, watch->fd, &event) ? -errno : 0;
}

void thread_unwatch(struct watch *watch)
{
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
}

void thread_collect_later(void)
{
    uint64_t none = 0, when = now_ns() + COLLECT_AFTER_NS;

    if (share_is_used() && atomic_compare_exchange_strong(&collect_at_ns, &none, when))
        thread_wake_at(when);
}

static void collect(void)
{
    uint64_t when = atomic_load(&collect_at_ns);

    if (!when)
        return;
    if (now_ns() < when) {
        thread_wake_at(when);
        return;
    }
    atomic_store(&collect_at_ns, 0);
    share_collect();
}

/* Everything that may have fallen due; each part is cheap when it has nothing to do. */
static void work(void)
{
    core_lock();
    conn_progress();
    link_progress();
    requester_progress_all();
    qp_finish_errors();
    srq_check_limits();
    cq_announce_all();
    core_unlock();
    collect();
}

/* Sleep until something happens. Short waits use the nanosecond clock of epoll_pwait2. */
static int wait_events(struct epoll_event *events)
{
    uint64_t when = atomic_load(&next_ns);
    uint64_t now = when == UINT64_MAX ? 0 : now_ns();
    uint64_t left = when > now ? when - now : 0;
    struct timespec timeout = {(time_t)(left / 1000000000), (long)(left % 1000000000)};
    int count = epoll_pwait2(epoll_fd, events, EVENTS, when == UINT64_MAX ? NULL : &timeout, NULL);

    if (count < 0 && (errno == ENOSYS || errno == EPERM))
        count = epoll_wait(epoll_fd, events, EVENTS,
                           when == UINT64_MAX ? -1 : (int)(left / 1000000 + 1));
    if (count < 0)
        count = errno == EINTR ? 0 : -errno;
    if (when != UINT64_MAX && now_ns() >= when)
        atomic_compare_exchange_strong(&next_ns, &when, UINT64_MAX);
    return count;
}

/*
 * Leave our mark where peers look before each request: as the process ends the kernel strikes it
 * out, before anybody can reap us. So nothing that is posted to a dead process succeeds, though
 * its memory is still mapped and the news of its death on the way.
 */
static void sign_in(void)
{
    static struct robust_list_head marks;
    static struct robust_list mark;
    _Atomic uint32_t *owner = &arena_header()->owner;

    atomic_store(owner, (uint32_t)gettid());
    mark.next = &marks.list;
    marks.list.next = &mark;
    marks.futex_offset = (char *)owner - (char *)&mark;
    syscall(SYS_set_robust_list, &marks, sizeof(marks));
}

static void *thread_main(void *argument)
{
    struct epoll_event events[EVENTS];

    (void)argument;
    is_engine = true;
    sign_in();
    pthread_setname_np(pthread_self(), "viaduct");
    for (;;) {
        int count = wait_events(events);

        if (count < 0)
            return NULL; /* the program has closed our descriptors: the NIC is off */
        for (int i = 0; i < count; i++) {
            struct watch *watch = events[i].data.ptr;

            core_lock();
            watch->ready(watch);
            core_unlock();
        }
        work();
    }
}

/* The program's signals are not ours to take. */
int thread_start(void)
{
    sigset_t all, before;
    pthread_attr_t attr;
    pthread_t thread;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int error = pthread_create(&thread, &attr, thread_main, NULL);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -error;
}

int thread_prepare(void)
{
    epoll_fd = own_fd(epoll_create1(EPOLL_CLOEXEC));
    if (epoll_fd < 0)
        return -errno;
    wake.fd = own_fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (wake.fd < 0)
        return -errno;
    wake.ready = on_wake;
    return thread_watch(&wake);
}

void thread_after_fork(void)
{
    if (epoll_fd >= 0)
        sys_close(epoll_fd);
    if (wake.fd >= 0)
        sys_close(wake.fd);
    epoll_fd = wake.fd = -1;
    /* Of the parent's engine; ours would never be woken if it seemed to be. */
    atomic_store(&woken, false);
    atomic_store(&next_ns, UINT64_MAX);
    atomic_store(&collect_at_ns, 0);
}
