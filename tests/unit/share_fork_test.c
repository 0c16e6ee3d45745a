/* SPDX-License-Identifier: MIT */
/* fork() and shared memory: the child gets copies, the parent waits for them but not for ever. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "share_rig.h"

/* Runs check in a forked child, which ends with its result; 0 is good. */
static int in_child(int (*check)(void *), void *arg)
{
    int status = 0;
    pid_t child = fork();

    T_ASSERT(child >= 0);
    if (child == 0)
        _exit(check(arg));
    T_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

struct region {
    char *at;
    uint64_t len;
    int go[2];
};

static int check_copy(void *arg)
{
    struct region *region = arg;
    char byte;

    if (read(region->go[0], &byte, 1) != 1) /* until the parent has changed its own */
        return 1;
    if (t_compare(region->at, 0, region->len, 1) != -1)
        return 2;
    memset(region->at, 0xcc, region->len);
    return share_mem_fd() == -1 && share_words() == NULL ? 0 : 3;
}

T_TEST(share_fork, child_has_a_copy)
{
    /* Shows that the child sees what was there at the fork, and neither sees the other's writes. */
    setup();
    struct region region = {.at = pages(MIB), .len = MIB};
    T_EQ(pipe(region.go), 0);
    t_fill(region.at, 0, MIB, 1);
    T_EQ(share(region.at, MIB), MIB);
    int fds = t_fd_count();
    pid_t child = fork();
    T_ASSERT(child >= 0);
    if (child == 0)
        _exit(check_copy(&region));
    t_fill(peer(region.at, MIB), 0, MIB, 2);
    T_EQ(write(region.go[1], "", 1), 1);
    int status = -1;
    T_EQ(waitpid(child, &status, 0), child);
    T_EQ(status, 0);
    T_EQ(t_compare(region.at, 0, MIB, 2), -1);
    T_EQ(t_compare(peer(region.at, MIB), 0, MIB, 2), -1);
    T_EQ(t_fd_count(), fds);
    drop(region.at, MIB);
    t_end();
}

static int check_sparse(void *arg)
{
    struct region *region = arg;
    unsigned char in_memory[16];

    if (region->at[5 * PAGE] != 1 || region->at[region->len - 1] != 2)
        return 1;
    if (mincore(region->at, 16 * PAGE, in_memory))
        return 2;
    return in_memory[5] & 1 && !(in_memory[6] & 1) && region->at[6 * PAGE] == 0 ? 0 : 3;
}

T_TEST(share_fork, copy_is_sparse)
{
    /* Shows that untouched pages are not made by copying, and unmapped ones not either. */
    setup();
    struct region region = {.at = pages(256 * MIB), .len = 256 * MIB};
    region.at[5 * PAGE] = 1;
    region.at[region.len - 1] = 2;
    T_EQ(share(region.at, region.len), region.len);
    T_EQ(in_child(check_sparse, &region), 0);
    drop(region.at, region.len);
    t_end();
}

static int check_dontfork(void *arg)
{
    struct region *region = arg;

    /* The kernel says whether there is memory, without a signal. */
    if (write(region->go[1], region->at + PAGE, 1) != -1 || errno != EFAULT)
        return 1;
    return region->at[0] == 1 && region->at[3 * PAGE] == 1 ? 0 : 2;
}

T_TEST(share_fork, dontfork_is_kept)
{
    /* Shows that pages which the program withholds from children are still withheld. */
    setup();
    struct region region = {.at = pages(4 * PAGE), .len = 4 * PAGE};
    int result;
    T_EQ(pipe(region.go), 0);
    memset(region.at, 1, 4 * PAGE);
    T_CHECK(!share_madvise(region.at + PAGE, 2 * PAGE, MADV_DONTFORK, &result));
    T_EQ(madvise(region.at + PAGE, 2 * PAGE, MADV_DONTFORK), 0);
    T_EQ(share(region.at, 4 * PAGE), 4 * PAGE);
    T_EQ(in_child(check_dontfork, &region), 0);
    T_CHECK(!share_madvise(region.at + PAGE, 2 * PAGE, MADV_DOFORK, &result));
    T_EQ(madvise(region.at + PAGE, 2 * PAGE, MADV_DOFORK), 0);
    T_EQ(in_child(check_dontfork, &region), 1);
    drop(region.at, 4 * PAGE);
    t_end();
}

static int check_pattern(void *arg)
{
    struct region *region = arg;

    return t_compare(region->at, 0, region->len, 1) == -1 ? 0 : 1;
}

static int share_anew(void *arg)
{
    struct region *region = arg;
    struct share_map *own = mmap(NULL, sizeof(*own), PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct share_view other;

    if (own == MAP_FAILED || share_range((uintptr_t)region->at, 8) != -ENODEV || share_init(own))
        return 1;
    if (share(region->at, region->len) != (int64_t)region->len)
        return 2;
    if (share_view_open(&other, own, share_mem_fd()))
        return 3;
    char *seen = share_translate(&other, (uintptr_t)region->at, region->len);
    if (!seen || t_compare(seen, 0, region->len, 1) != -1)
        return 4;
    return in_child(check_pattern, region) == 0 ? 0 : 5;
}

T_TEST(share_fork, child_may_share_too)
{
    /* Shows that a child can begin anew, on its copies, and fork itself. */
    setup();
    struct region region = {.at = pages(MIB), .len = MIB};
    t_fill(region.at, 0, MIB, 1);
    T_EQ(share(region.at, MIB), MIB);
    T_EQ(in_child(share_anew, &region), 0);
    T_EQ(t_compare(region.at, 0, MIB, 1), -1);
    drop(region.at, MIB);
    t_end();
}

/* A child without our handler in it, as one that was killed or stopped before it ran. */
static int64_t wait_for(void (*live)(void))
{
    char *at = pages(PAGE);
    int status;

    at[0] = 1;
    T_EQ(share(at, PAGE), PAGE);
    share_fork_prepare();
    int64_t start = t_now_ns();
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0) {
        live();
        syscall(SYS_exit_group, 0);
    }
    share_fork_parent();
    int64_t took = t_now_ns() - start;
    T_ASSERT(child > 0);
    kill(child, SIGKILL);
    T_EQ(waitpid(child, &status, 0), child);
    drop(at, PAGE);
    return took;
}

static void die(void)
{
}

static void hang(void)
{
    syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0);
}

T_TEST(share_fork, dead_child)
{
    /* Shows that the parent notices a child that died before it had copied. */
    setup();
    T_CHECK(wait_for(die) < 900000000);
    t_end();
}

T_TEST(share_fork, hanging_child)
{
    /* Shows that the parent gives up on a child that does not come to copying. */
    setup();
    int64_t took = wait_for(hang);
    T_CHECK(took > 900000000 && took < 30000000000);
    t_end();
}
