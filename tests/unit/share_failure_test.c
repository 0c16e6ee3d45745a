/* SPDX-License-Identifier: MIT */
/*
 * Exchanges that fail. A seccomp filter of the sharing thread makes one of its system calls fail;
 * whatever it was, the program's data stay in place, no writer waits for ever or loses an update,
 * and a later attempt succeeds.
 */
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "share_rig.h"

enum { SIZE = 1 << 20, BLOCK = 128 << 10, ANY = -1 };

/* System calls of this number whose argument has these bits fail with this error. */
struct fault {
    const char *name;
    unsigned nr;
    int arg; /* ANY: all of them */
    uint32_t mask, value;
    unsigned error;
    int64_t want; /* of share_range() */
};

#define SCAN_PAGES 0xc0606610u
#define QUERY_VMA 0xc0686611u

static const struct fault faults[] = {
    {"userfaultfd", SYS_userfaultfd, ANY, 0, 0, EPERM, -EPERM},
    {"open", SYS_openat, ANY, 0, 0, EMFILE, -EMFILE},
    {"register", SYS_ioctl, 1, ~0u, UFFDIO_REGISTER, EBUSY, 0},
    {"protect", SYS_ioctl, 1, ~0u, UFFDIO_WRITEPROTECT, ENOMEM, -ENOMEM},
    {"scan", SYS_ioctl, 1, ~0u, SCAN_PAGES, EACCES, -EACCES},
    {"write", SYS_pwrite64, ANY, 0, 0, ENOSPC, -ENOSPC},
    {"write nothing", SYS_pwrite64, ANY, 0, 0, 0, -ENOSPC},
    {"map", SYS_mmap, 3, MAP_SHARED | MAP_FIXED, MAP_SHARED | MAP_FIXED, ENOMEM, -ENOMEM},
    {"grow", SYS_ftruncate, ANY, 0, 0, ENOSPC, -ENOSPC},
    {"no query", SYS_ioctl, 1, ~0u, QUERY_VMA, ENOTTY, SIZE},
    {"no scan", SYS_ioctl, 1, ~0u, SCAN_PAGES, ENOTTY, SIZE},
    {"populate", SYS_madvise, ANY, 0, 0, EINVAL, SIZE},
    {"locked?", SYS_msync, ANY, 0, 0, ENOMEM, SIZE},
};

/* A filter for this thread alone. Returns the listener, if the action is to ask one. */
static int install(const struct fault *fault, uint32_t action)
{
    uint32_t at = (uint32_t)offsetof(struct seccomp_data, args);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, fault->nr, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at + (fault->arg > 0 ? 8u * (uint32_t)fault->arg : 0)),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, fault->mask),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, fault->value, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
    unsigned flags = action == SECCOMP_RET_USER_NOTIF ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0;

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

/* ---- a program that writes all the while ---- */

struct writer {
    char *at;
    _Atomic bool stop;
    _Atomic uint64_t count;
    pthread_t thread;
};

static void *write_on(void *arg)
{
    struct writer *writer = arg;

    while (!atomic_load(&writer->stop)) {
        for (int page = 0; page < 8; page++) /* in several blocks */
            ++*(volatile uint64_t *)(writer->at + page * (SIZE / 8));
        atomic_fetch_add(&writer->count, 1);
    }
    return NULL;
}

static void writer_start(struct writer *writer, char *at)
{
    writer->at = at;
    T_EQ(pthread_create(&writer->thread, NULL, write_on, writer), 0);
    T_UNTIL(atomic_load(&writer->count) > 0, 10000);
}

static void writer_check(struct writer *writer)
{
    atomic_store(&writer->stop, true);
    pthread_join(writer->thread, NULL);
    for (int page = 0; page < 8; page++)
        T_CHECK_EQ(*(uint64_t *)(writer->at + page * (SIZE / 8)), writer->count);
}

/* Zeroes where the writer writes, the pattern elsewhere. */
static char *prepare(void)
{
    char *at = pages(SIZE);

    t_fill(at, 0, SIZE, 1);
    for (int page = 0; page < 8; page++)
        memset(at + page * (SIZE / 8), 0, 8);
    return at;
}

static void check_data(const char *at)
{
    for (int page = 0; page < 8; page++)
        T_CHECK_EQ(
            t_compare(at + page * (SIZE / 8) + 8, (size_t)(page * (SIZE / 8) + 8), SIZE / 8 - 8, 1),
            -1);
}

/* ---- faults ---- */

struct attempt {
    const struct fault *fault;
    char *at;
    int64_t got;
    bool filtered;
};

static void *share_under(void *arg)
{
    struct attempt *attempt = arg;

    attempt->filtered = install(attempt->fault, SECCOMP_RET_ERRNO | attempt->fault->error) == 0;
    attempt->got = share(attempt->at, SIZE);
    return NULL;
}

/* The memfd grows only for a new window, so that fault may have no occasion. */
static void try_fault(const struct fault *fault)
{
    struct writer writer = {0};
    struct attempt attempt = {.fault = fault, .at = prepare()};
    pthread_t thread;

    writer_start(&writer, attempt.at);
    T_EQ(pthread_create(&thread, NULL, share_under, &attempt), 0);
    pthread_join(thread, NULL);
    if (!attempt.filtered)
        T_SKIP("no seccomp here");
    T_CHECK(attempt.got == fault->want || (fault->nr == SYS_ftruncate && attempt.got == SIZE),
            "%s: got %lld, want %lld", fault->name, (long long)attempt.got, (long long)fault->want);
    T_CHECK((peer(attempt.at, 1) != NULL) == (attempt.got > 0), "%s", fault->name);
    T_CHECK_EQ(share(attempt.at, SIZE), SIZE);
    writer_check(&writer);
    check_data(attempt.at);
    check_data(peer(attempt.at, SIZE));
    drop(attempt.at, SIZE);
    share_collect();
}

T_TEST(share_failure, each_call)
{
    /* Shows that after any failing call the data are there and the next attempt succeeds. */
    setup();
    int fds = t_fd_count();
    uint64_t before = mem_bytes();
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        try_fault(&faults[i]);
    T_EQ(t_fd_count(), fds);
    T_EQ(mem_bytes(), before);
    t_end();
}

T_TEST(share_failure, older_kernel)
{
    /* Shows that without the newer ioctls untouched pages are skipped too, over several mappings.
     */
    setup();
    const struct fault old = {"old", SYS_ioctl, 1, 0xff00, 0x6600, ENOTTY, SIZE};
    struct attempt attempt = {.fault = &old, .at = pages(SIZE)};
    pthread_t thread;
    uint64_t before = mem_bytes();
    attempt.at[SIZE / 2] = 1;
    attempt.at[SIZE - 1] = 2;
    T_EQ(mprotect(attempt.at + SIZE / 4, PAGE, PROT_READ), 0);
    T_EQ(pthread_create(&thread, NULL, share_under, &attempt), 0);
    pthread_join(thread, NULL);
    if (!attempt.filtered)
        T_SKIP("no seccomp here");
    T_EQ(attempt.got, SIZE / 4);
    T_CHECK_EQ(mem_bytes() - before, 2 * PAGE);
    T_CHECK(peer(attempt.at + SIZE / 4 + PAGE, 3 * SIZE / 4 - PAGE) &&
            !peer(attempt.at + SIZE / 4, 1));
    T_CHECK_EQ(*peer(attempt.at + SIZE / 2, 1), 1);
    T_CHECK_EQ(attempt.at[SIZE - 1], 2);
    drop(attempt.at, SIZE);
    share_collect();
    t_end();
}

/* ---- a kernel that has unmapped the old pages when mmap() fails ---- */

/*
 * A supervisor answers the sharing thread's mmap() calls: the first one has unmapped what it was to
 * replace, and failed; later ones fail as well, or are let through.
 */
struct supervisor {
    int listener, asked, fails;
    _Atomic int *listener_in;
    _Atomic bool over;
};

static void answer(struct supervisor *supervisor)
{
    struct seccomp_notif call = {0};
    struct seccomp_notif_resp reply = {0};

    if (ioctl(supervisor->listener, SECCOMP_IOCTL_NOTIF_RECV, &call))
        return;
    reply.id = call.id;
    if (supervisor->asked == 0)
        munmap((void *)(uintptr_t)call.data.args[0], call.data.args[1]);
    if (supervisor->asked++ < supervisor->fails)
        reply.error = -ENOMEM;
    else
        reply.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    ioctl(supervisor->listener, SECCOMP_IOCTL_NOTIF_SEND, &reply);
}

static void *supervise(void *arg)
{
    struct supervisor *supervisor = arg;

    while ((supervisor->listener = atomic_load(supervisor->listener_in)) == 0)
        t_relax();
    while (!atomic_load(&supervisor->over))
        if (t_readable(supervisor->listener, 10))
            answer(supervisor);
    return NULL;
}

struct watched {
    char *at;
    _Atomic int listener;
    int64_t got;
};

static void *share_watched(void *arg)
{
    static const struct fault map_fixed = {
        "map", SYS_mmap, 3, MAP_SHARED | MAP_FIXED, MAP_SHARED | MAP_FIXED, 0, 0};
    struct watched *watched = arg;
    int listener = install(&map_fixed, SECCOMP_RET_USER_NOTIF);

    atomic_store(&watched->listener, listener);
    if (listener > 0)
        watched->got = share(watched->at, BLOCK);
    return NULL;
}

static int64_t share_while_failing(char *at, int fails)
{
    struct watched watched = {.at = at};
    struct supervisor supervisor = {.fails = fails, .listener_in = &watched.listener};
    pthread_t threads[2];

    T_EQ(pthread_create(&threads[0], NULL, supervise, &supervisor), 0);
    T_EQ(pthread_create(&threads[1], NULL, share_watched, &watched), 0);
    pthread_join(threads[1], NULL);
    atomic_store(&supervisor.over, true);
    pthread_join(threads[0], NULL);
    if (watched.listener < 0)
        T_SKIP("no seccomp listener here");
    close(watched.listener);
    T_CHECK(supervisor.asked > fails || fails > 2);
    return watched.got;
}

T_TEST(share_failure, unmapped_and_no_mapping)
{
    /* Shows that even when the kernel has thrown the old pages away, the data come back. */
    setup();
    char *at = aligned_alloc(BLOCK, 2 * BLOCK);
    T_ASSERT(at);
    t_fill(at, 0, BLOCK, 1);
    T_EQ(share_while_failing(at, 1), BLOCK); /* the second attempt maps it */
    T_EQ(t_compare(at, 0, BLOCK, 1), -1);
    T_EQ(t_compare(peer(at, BLOCK), 0, BLOCK, 1), -1);
    forget(at, BLOCK);
    char *other = pages(2 * BLOCK);
    t_fill(other, 0, 2 * BLOCK, 2);
    T_EQ(share_while_failing(other, 99), -ENOMEM); /* back to private memory */
    T_CHECK(!peer(other, 1));
    T_EQ(t_compare(other, 0, 2 * BLOCK, 2), -1);
    drop(other, 2 * BLOCK);
    free(at);
    t_end();
}
