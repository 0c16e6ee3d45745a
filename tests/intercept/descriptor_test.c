/* SPDX-License-Identifier: MIT */
/*
 * Calls on descriptors: ours are followed through every duplicate until the last one is closed, and
 * a number that was ours is nothing special afterwards. Signals and cancellation stay as they were.
 */
#include "device.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

static bool is_closed(int fd)
{
    struct stat st;

    return fstat(fd, &st) < 0 && errno == EBADF;
}

T_TEST(descriptor, duplicates)
{
    /* Shows that every duplicate is the device, whichever call made it. */
    int fd = device_open();
    int copies[6];

    copies[0] = dup(fd);
    copies[1] = dup2(fd, 200);
    copies[2] = dup3(fd, 201, O_CLOEXEC);
    copies[3] = fcntl(fd, F_DUPFD, 202);
    copies[4] = fcntl(fd, F_DUPFD_CLOEXEC, 203);
    copies[5] = dup2(copies[0], copies[0]);
    for (int i = 0; i < 6; i++)
        T_CHECK(is_device(copies[i]), "copy %d", i);
    T_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC); /* other commands go through */
    close(fd);
    for (int i = 0; i < 5; i++) {
        T_CHECK(is_device(copies[i]), "copy %d", i);
        T_EQ(close(copies[i]), 0);
        T_CHECK(is_closed(copies[i]));
    }
    t_end();
}

T_TEST(descriptor, number_used_again)
{
    /* Shows that a number is forgotten when something else takes it. */
    int fd = device_open();
    int null = open("/dev/null", O_RDWR);

    T_EQ(dup2(null, fd), fd);
    T_CHECK(!is_device(fd));
    T_EQ(write(fd, "x", 1), 1);
    close(fd);
    fd = device_open();
    close(fd);
    int next = open("/dev/null", O_RDWR);
    T_EQ(next, fd);
    T_EQ(write(next, "x", 1), 1);
    close(next);
    close(null);
    t_end();
}

T_TEST(descriptor, ranges)
{
    /* Shows that close_range and closefrom close devices too. */
    int fd = dup2(device_open(), 300);

    T_EQ(fd, 300);
    T_EQ(close_range(300, 310, 0), 0);
    T_CHECK(is_closed(fd));
    T_EQ(dup2(open("/dev/null", O_RDWR), 300), 300);
    T_EQ(write(300, "x", 1), 1);
    T_EQ(dup2(device_open(), 301), 301);
    closefrom(300);
    T_CHECK(is_closed(300) && is_closed(301));
    T_CHECK(close_range(5, 4, 0) < 0 && errno == EINVAL);
    t_end();
}

T_TEST(descriptor, stream)
{
    /* Shows that a stream over a device gives it back. */
    int fd = device_open();
    FILE *file = fdopen(fd, "r+");

    T_ASSERT(file);
    T_EQ(fclose(file), 0);
    int null = open("/dev/null", O_RDWR);
    T_EQ(null, fd);
    T_CHECK(!is_device(null));
    close(null);
    t_end();
}

T_TEST(descriptor, write)
{
    /* Shows that what is written reaches the device, which does not take rubbish for a command. */
    int fd = device_open();
    char rubbish[64];
    struct iovec parts[2] = {{rubbish, 32}, {rubbish + 32, 32}};

    memset(rubbish, 0xff, sizeof rubbish);
    T_CHECK(write(fd, rubbish, sizeof rubbish) < 0);
    T_CHECK(writev(fd, parts, 2) < 0);
    T_CHECK(writev(fd, parts, 0) == 0);
    close(fd);
    T_CHECK(write(fd, rubbish, 1) < 0 && errno == EBADF);
    T_CHECK(write(-1, rubbish, 1) < 0 && errno == EBADF);
    T_CHECK(close(-1) < 0 && errno == EBADF);
    T_CHECK(close(1 << 20) < 0 && errno == EBADF);
    t_end();
}

T_TEST(descriptor, netlink)
{
    /* Shows that the kernel's own device list can't be asked, and that other sockets can. */
    T_CHECK(socket(AF_NETLINK, SOCK_RAW, NETLINK_RDMA) < 0 && errno == EPROTONOSUPPORT);
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    T_ASSERT(fd >= 0);
    close(fd);
    t_end();
}

T_TEST(descriptor, madvise)
{
    /* Shows that advice about ordinary memory and moving it are the kernel's business. */
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    T_ASSERT(page != MAP_FAILED);
    page[0] = 1;
    T_EQ(madvise(page, 4096, MADV_DONTNEED), 0);
    T_EQ(page[0], 0);
    T_CHECK(madvise(page + 1, 4096, MADV_DONTNEED) < 0 && errno == EINVAL);
    page[0] = 2;
    char *more = mremap(page, 4096, 1 << 20, MREMAP_MAYMOVE);
    T_ASSERT(more != MAP_FAILED);
    T_CHECK(more[0] == 2 && more[4096] == 0);
    T_CHECK(mremap(more, 1 << 20, 4096, MREMAP_FIXED, NULL) == MAP_FAILED && errno == EINVAL);
    /* To where nothing of the process's own is, which it would replace. */
    char *to = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    T_ASSERT(to != MAP_FAILED);
    T_ASSERT(mremap(more, 1 << 20, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
    T_EQ(to[0], 2);
    munmap(to, 4096);
    t_end();
}

/* ---- signals ---- */

static volatile sig_atomic_t handled, handler_failed;

static void handler(int signal)
{
    int saved = errno;
    int fd = open("/dev/null", O_WRONLY);
    struct stat st;

    (void)signal;
    if (fd < 0 || write(fd, "x", 1) != 1 || stat("/dev/null", &st) != 0 || close(fd) != 0)
        handler_failed = 1;
    handled = handled + 1;
    errno = saved;
}

T_TEST(descriptor, signals)
{
    /* Shows that a handler may open, write and close at any moment, on a small stack. */
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_RESTART};
    struct itimerval every = {.it_interval = {.tv_usec = 100}, .it_value = {.tv_usec = 100}};
    struct itimerval never = {0};
    stack_t stack = {.ss_size = (size_t)SIGSTKSZ};
    int64_t deadline = t_deadline(10000);

    stack.ss_sp = malloc(stack.ss_size);
    T_ASSERT(stack.ss_sp);
    T_EQ(sigaltstack(&stack, NULL), 0);
    T_EQ(sigaction(SIGALRM, &action, NULL), 0);
    T_EQ(setitimer(ITIMER_REAL, &every, NULL), 0);
    while (handled < 200 && !t_expired(deadline)) {
        int fd = device_open();
        int copy = dup(fd);

        close(fd);
        close(copy);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    signal(SIGALRM, SIG_IGN);
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, NULL);
    free(stack.ss_sp);
    T_CHECK(handled >= 200);
    T_CHECK(!handler_failed);
    t_end();
}

/* ---- cancellation ---- */

static void *write_for_ever(void *arg)
{
    static char block[65536];

    for (;;)
        if (write(*(int *)arg, block, sizeof block) < 0)
            return NULL;
}

T_TEST(descriptor, cancellation)
{
    /* Shows that a thread that waits in write() can still be cancelled. */
    int ends[2];
    pthread_t thread;
    void *result = NULL;

    T_EQ(pipe(ends), 0);
    T_EQ(pthread_create(&thread, NULL, write_for_ever, &ends[1]), 0);
    T_ASSERT(t_readable(ends[0], 10000));
    T_EQ(pthread_cancel(thread), 0);
    T_EQ(pthread_join(thread, &result), 0);
    T_CHECK(result == PTHREAD_CANCELED);
    close(ends[0]);
    close(ends[1]);
    t_end();
}
