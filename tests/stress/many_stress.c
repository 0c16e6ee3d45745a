/* SPDX-License-Identifier: MIT */
/* Usage: many_stress CASE. The cases are listed in many.h. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "many.h"

enum { STUCK_NS_S = 60 };

void duo_start(struct duo *duo)
{
    pid_t parent = getpid();
    int pair[2];

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    duo->second = pid == 0;
    duo->fd = pair[duo->second];
    close(pair[!duo->second]);
    if (!duo->second)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

static void read_all(int fd, char *to, size_t size)
{
    for (size_t got = 0; got < size;) {
        ssize_t part = read(fd, to + got, size - got);

        CHECK(part > 0, "the partner is gone");
        got += (size_t)part;
    }
}

/* One after the other: what they say may be more than the socket holds. */
void duo_exchange(const struct duo *duo, const void *ours, void *theirs, size_t size)
{
    char *heard = malloc(size);

    CHECK(heard != NULL);
    if (duo->second)
        read_all(duo->fd, heard, size);
    CHECK(write(duo->fd, ours, size) == (ssize_t)size);
    if (!duo->second)
        read_all(duo->fd, heard, size);
    memcpy(theirs, heard, size);
    free(heard);
}

void duo_meet(const struct duo *duo)
{
    char byte = 1;

    duo_exchange(duo, &byte, &byte, 1);
}

void duo_end(struct duo *duo)
{
    int status;

    duo_meet(duo);
    if (duo->second) {
        fflush(stdout);
        _exit(0);
    }
    CHECK(wait(&status) > 0 && status == 0, "the partner ended with status %x", status);
}

struct ibv_wc rig_wait(struct ibv_cq *cq)
{
    uint64_t limit = rig_now_ns() + STUCK_NS_S * 1000000000ull;
    struct ibv_wc wc;
    int got;

    for (unsigned tries = 1; (got = ibv_poll_cq(cq, 1, &wc)) == 0; tries++) {
        if (tries % 1024 == 0) {
            CHECK(rig_now_ns() < limit, "no completion for %d s", STUCK_NS_S);
            sched_yield();
        }
    }
    CHECK(got == 1);
    return wc;
}

void rig_wait_good(struct ibv_cq *cq, unsigned count)
{
    for (; count; count--) {
        struct ibv_wc wc = rig_wait(cq);

        CHECK(wc.status == IBV_WC_SUCCESS, "%s", ibv_wc_status_str(wc.status));
    }
}

void rig_post_receive(struct ibv_qp *qp, const struct ibv_mr *mr, uint64_t at, uint32_t length)
{
    struct ibv_sge sge = {(uintptr_t)mr->addr + at, length, mr->lkey};
    struct ibv_recv_wr *bad, wr = {.wr_id = at, .sg_list = &sge, .num_sge = 1};

    CHECK(ibv_post_recv(qp, &wr, &bad) == 0);
}

static void post(struct ibv_qp *qp, struct ibv_send_wr *wr)
{
    struct ibv_send_wr *bad;
    int error = ibv_post_send(qp, wr, &bad);

    CHECK(error == 0, "%s", strerror(error));
}

void rig_post_send(struct ibv_qp *qp, const struct ibv_mr *mr, uint64_t at, uint32_t length)
{
    struct ibv_sge sge = {(uintptr_t)mr->addr + at, length, mr->lkey};
    struct ibv_send_wr wr = {
        .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};

    post(qp, &wr);
}

void rig_post_write(struct ibv_qp *qp, const struct ibv_mr *mr, uint32_t length,
                    const struct rig_address *to, uint64_t there)
{
    struct ibv_sge sge = {(uintptr_t)mr->addr, length, mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge,
                             .num_sge = 1,
                             .opcode = IBV_WR_RDMA_WRITE,
                             .send_flags = IBV_SEND_SIGNALED};

    wr.wr.rdma.remote_addr = to->addr + there;
    wr.wr.rdma.rkey = to->rkey;
    post(qp, &wr);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"qps", many_qps},         {"processes", many_processes},
    {"threads", many_threads}, {"connections", many_connections},
    {"regions", many_regions}, {"blocked", many_blocked},
    {"idle", many_idle},       {"unpolled", many_unpolled},
    {"overrun", many_overrun}, {"fair", many_fair},
};

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (argc == 2 && !strcmp(argv[1], cases[i].name)) {
            cases[i].run();
            return 0;
        }
    }
    fprintf(stderr, "usage: many_stress CASE\n");
    return 2;
}
