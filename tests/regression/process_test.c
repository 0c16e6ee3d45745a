/* SPDX-License-Identifier: MIT */
/* What a process has, keeps and leaves behind. */
#include "ends.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

static int exit_code(pid_t child)
{
    int status = 0;

    T_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* Some objects that come and go, and messages to itself: 0 if all is well. For children. */
static int use_device(void)
{
    for (int i = 0; i < 20; i++) {
        struct side *s = side_open(NULL, NULL);
        struct ibv_sge sge = {s->info.addr, 64, s->info.lkey};
        struct ibv_sge to = {s->info.addr + 8192, 64, s->info.lkey};
        struct ibv_recv_wr *bad_recv, recv = {.sg_list = &to, .num_sge = 1};
        struct ibv_send_wr *bad, send = {.sg_list = &sge,
                                         .num_sge = 1,
                                         .opcode = IBV_WR_SEND,
                                         .send_flags = IBV_SEND_SIGNALED};

        side_connect(s, 0, &s->info, 0);
        for (int k = 0; k < 20; k++) {
            if (ibv_post_recv(s->qp[0], &recv, &bad_recv) || ibv_post_send(s->qp[0], &send, &bad) ||
                cq_wait(s->recv_cq).status || cq_wait(s->send_cq).status) {
                return 1;
            }
        }
        side_close(s, true);
    }
    return 0;
}

T_TEST(process, child_opens_the_device_anew)
{
    /* After its parent used it; and so does the child's child. */
    struct side *s;

    T_EQ(use_device(), 0);
    s = side_open(NULL, NULL);
    pid_t child = fork();
    if (child == 0) {
        int failed = use_device();
        pid_t grandchild = fork();

        if (grandchild == 0) {
            _exit(use_device());
        }
        _exit(failed + exit_code(grandchild));
    }
    T_EQ(exit_code(child), 0);
    side_close(s, true);
}

/* Under a limit: 0: works, 2: refused as it should be, else a code of what went wrong. */
static int open_under(int resource, rlim_t bytes)
{
    struct rlimit limit = {bytes, bytes};
    int fds = t_fd_count(), count;
    struct ibv_device **list = ibv_get_device_list(&count);

    if (!list || setrlimit((__rlimit_resource_t)resource, &limit)) {
        return 3;
    }
    for (int i = 0; i < count; i++) {
        for (int tries = 0; tries < 3 && !strcmp(ibv_get_device_name(list[i]), device_name());
             tries++) {
            struct ibv_context *ctx = ibv_open_device(list[i]);

            if (ctx) {
                ibv_close_device(ctx);
                return use_device();
            }
        }
    }
    ibv_free_device_list(list);
    return t_fd_count() <= fds ? 2 : 4;
}

static int in_child(int resource, rlim_t bytes)
{
    pid_t child = fork();

    if (child == 0) {
        _exit(open_under(resource, bytes));
    }
    return exit_code(child);
}

T_TEST(process, limits_on_memory_and_files)
{
    /* A narrow limit is no obstacle; one that is too narrow is an error that leaves nothing. */
    if (SANITIZED) {
        T_SKIP("a sanitizer needs terabytes of address space");
    }
    T_EQ(in_child(RLIMIT_AS, (rlim_t)4 << 30), 0);
    T_EQ(in_child(RLIMIT_AS, (rlim_t)300 << 20), 2);
    T_EQ(in_child(RLIMIT_FSIZE, (rlim_t)1 << 30), 0);
    T_EQ(in_child(RLIMIT_FSIZE, (rlim_t)1 << 20), 2);
}

T_TEST(process, dead_peers_leave_no_descriptors)
{
    int before = 0;

    for (int i = 0; i < 4; i++) {
        struct pair *p = pair_open(TWO_PROCESSES, NULL);

        pair_works(p, 0);
        pair_kill_b(p);
        e_wait_state(p->a, 0, IBV_QPS_ERR);
        pair_close_loose(p);
        if (i == 0) {
            before = t_fd_count();
        }
    }
    T_UNTIL(t_fd_count() <= before, WAIT_MS);
}

static int64_t cpu_us(void)
{
    struct rusage used;

    T_EQ(getrusage(RUSAGE_SELF, &used), 0);
    return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * INT64_C(1000000) +
           used.ru_utime.tv_usec + used.ru_stime.tv_usec;
}

T_TEST(process, waiting_for_nobody_costs_nothing)
{
    /* A request to a process that is not there, without a time-out: the engine sleeps meanwhile. */
    enum { FOR_MS = 300 };
    struct side *s = side_open(NULL, NULL);
    struct side_info nobody = s->info;
    struct ibv_send_wr *bad, wr = {.opcode = IBV_WR_SEND};

    nobody.qpn[0] = 900 << 14 | 5;
    side_connect(s, 0, &nobody, 0);
    T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
    int64_t before = cpu_us();
    t_readable(s->ctx->async_fd, FOR_MS);
    T_ASSERT(cpu_us() - before < FOR_MS * 1000 / 3, "%d us of CPU", (int)(cpu_us() - before));
    side_close(s, false);
}

enum { FILES = 40 };

/* For a child: how many of the files it opens hold what it has not written. */
static int close_all_and_look(void)
{
    struct side *s = side_open(NULL, NULL);
    struct side_info nobody = s->info;
    struct ibv_send_wr *bad, wr = {.opcode = IBV_WR_SEND};
    FILE *files[FILES];
    int strange = 0;

    nobody.qpn[0] = 900 << 14 | 5;
    side_connect(s, 0, &nobody, 0);
    for (int fd = 3; fd < 256; fd++) {
        if (fd != s->ctx->cmd_fd && fd != s->ctx->async_fd) {
            close(fd);
        }
    }
    for (int i = 0; i < FILES; i++) {
        files[i] = tmpfile();
    }
    strange += ibv_post_send(s->qp[0], &wr, &bad) != 0; /* wakes the engine */
    t_readable(s->ctx->async_fd, QUIET_MS);
    for (int i = 0; i < FILES; i++) {
        strange += !files[i] || fseek(files[i], 0, SEEK_END) || ftell(files[i]) != 0;
    }
    return strange;
}

T_TEST(process, closing_all_descriptors_spares_ours)
{
    /*
     * A program that closes every number it does not know, and gets them again for files, finds
     * nothing in these; the device goes on.
     */
    pid_t child = fork();

    if (child == 0) {
        _exit(close_all_and_look());
    }
    T_EQ(exit_code(child), 0);
}
