/* SPDX-License-Identifier: MIT */
/* Queues and their accounts. */
#include "ends.h"

#include <stdio.h>
#include <unistd.h>

enum { DEEP = 2000 };

/* Signalled writes to the side's own buffer until the queue is full; how many it took. */
static int fill_up(struct side *s, int max)
{
    struct ibv_sge sge = {s->info.addr, 8, s->info.lkey};
    struct ibv_send_wr *bad, wr = {.sg_list = &sge,
                                   .num_sge = 1,
                                   .opcode = IBV_WR_RDMA_WRITE,
                                   .send_flags = IBV_SEND_SIGNALED,
                                   .wr.rdma = {s->info.addr + 4096, s->info.rkey}};

    while ((int)wr.wr_id < max && ibv_post_send(s->qp[0], &wr, &bad) == 0) {
        wr.wr_id++;
    }
    return (int)wr.wr_id;
}

T_TEST(queue, is_full_until_polled)
{
    /* A send queue takes what it was made for and no more until its completions are polled. */
    struct side *s =
        side_open(&(struct side_opt){.send_wr = DEEP, .cqe = DEEP, .one_cq = true}, NULL);

    side_connect(s, 0, &s->info, 0);
    for (int round = 0; round < 3; round++) {
        T_EQ(fill_up(s, 10 * DEEP), s->info.cap.max_send_wr);
        for (uint32_t i = 0; i < s->info.cap.max_send_wr; i++) {
            struct ibv_wc wc = cq_wait(s->send_cq);

            T_EQ(wc.status, IBV_WC_SUCCESS);
            T_EQ(wc.wr_id, i);
        }
    }
    side_close(s, true);
}

static void poll_between_sends(struct side *s, void *arg)
{
    int sends = 0;

    (void)arg;
    fill_up(s, 8);
    for (struct ibv_wc wc = {0}; !(wc.opcode & IBV_WC_RECV); sends++) {
        T_ASSERT(sends < 100, "the receive waits behind our own sends");
        T_EQ(fill_up(s, 1), 1);
        wc = cq_wait(s->send_cq);
    }
    while (sends + 8 > 0 && ibv_poll_cq(s->send_cq, 1, &(struct ibv_wc){0}) == 1) {
        sends--;
    }
}

static void connect_second_to_itself(struct side *s, void *arg)
{
    struct ibv_qp *first = s->qp[0];

    (void)arg;
    side_connect(s, 1, &s->info, 1);
    s->qp[0] = s->qp[1];
    s->qp[1] = first;
}

T_TEST(queue, nobody_starves)
{
    /* One who sends all the time and polls one completion a time still sees what it receives. */
    struct side_opt opt = {.qps = 2, .one_cq = true, .unconnected = true};
    struct pair *p = pair_open(TWO_PROCESSES, &opt);
    int nothing = 0;

    end_connect(p->a, 0, p->b, 0);
    end_connect(p->b, 0, p->a, 0);
    e_recv(p->a, &(struct post){.id = 7, .off = p->rx, .len = 64});
    e_send(p->b, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    e_done(p->b, 1, IBV_WC_SEND);
    e_run(p->a, connect_second_to_itself, &nothing, sizeof(nothing));
    e_run(p->a, poll_between_sends, &nothing, sizeof(nothing));
    pair_close_loose(p);
}

static long resident_kib(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    long size = 0, resident = 0;

    T_ASSERT(file != NULL);
    T_EQ(fscanf(file, "%ld %ld", &size, &resident), 2);
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

T_TEST(queue, a_big_one_that_goes_costs_nothing)
{
    /* Destroying the largest shared receive queue touches none of its memory. */
    struct side *s = side_open(&(struct side_opt){.qps = ZERO}, NULL);
    long before = resident_kib();

    for (int i = 0; i < 3; i++) {
        struct ibv_srq *srq = ibv_create_srq(
            s->pd, &(struct ibv_srq_init_attr){.attr = {.max_wr = 65536, .max_sge = 32}});

        T_ASSERT(srq != NULL);
        T_EQ(ibv_destroy_srq(srq), 0);
    }
    T_ASSERT(resident_kib() - before < 32768, "%ld KiB more", resident_kib() - before);
    side_close(s, true);
}
