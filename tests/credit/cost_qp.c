/* SPDX-License-Identifier: MIT */
/*
 * Shows that credits around a queue pair cost at most 5 ns a message, both ends together: the same
 * stream with them and without, taking turns in one thread, updates included. The best turn of each
 * counts, because whatever else the machine does can only add.
 */
#include "credit.h"
#include "side.h"

#include <stdio.h>
#include <time.h>

enum {
    WINDOW = 128,
    RESERVE = 2,
    MESSAGE = 8,
    BURST = 16,
    MESSAGES = 4000,
    TURNS = 500,
    LIMIT_PS = 5000
};

/* One way from a to b. */
struct stream {
    struct side *a, *b;
    struct credit_qp from, to;
    struct ibv_sge send_sge, recv_sge;
    struct ibv_send_wr send;
    struct ibv_recv_wr recv, update_recv;
    bool credits;
};

static void open_stream(struct stream *s, bool credits)
{
    struct side_opt opt = {
        .send_wr = 256, .recv_wr = 256, .cqe = 512, .inline_size = MESSAGE, .rnr_retry = ZERO};

    memset(s, 0, sizeof(*s));
    s->credits = credits;
    s->a = side_open(&opt, NULL);
    s->b = side_open(&opt, s->a);
    side_connect(s->a, 0, &s->b->info, 0);
    side_connect(s->b, 0, &s->a->info, 0);
    s->send_sge = (struct ibv_sge){s->a->info.addr, MESSAGE, s->a->info.lkey};
    s->recv_sge = (struct ibv_sge){s->b->info.addr, MESSAGE, s->b->info.lkey};
    s->send = (struct ibv_send_wr){.sg_list = &s->send_sge,
                                   .num_sge = 1,
                                   .opcode = IBV_WR_SEND_WITH_IMM,
                                   .send_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE};
    s->recv = (struct ibv_recv_wr){.sg_list = &s->recv_sge, .num_sge = 1};
}

static void post_receive(struct stream *s)
{
    struct ibv_recv_wr *bad;

    T_EQ(s->credits ? -credit_qp_recv(&s->to, &s->recv)
                    : ibv_post_recv(s->b->qp[0], &s->recv, &bad),
         0);
}

static void meet(struct stream *s)
{
    uint32_t hello[2];

    T_EQ(credit_qp_init(&s->from, s->a->qp[0], RESERVE, NULL, NULL), 0);
    T_EQ(credit_qp_init(&s->to, s->b->qp[0], RESERVE, NULL, NULL), 0);
    for (int i = 0; i < WINDOW + RESERVE; i++)
        post_receive(s);
    for (int i = 0; i < RESERVE; i++)
        T_EQ(credit_qp_recv(&s->from, &s->update_recv), 0);
    T_EQ(credit_hello(&s->from.credit, &hello[0]), 0);
    T_EQ(credit_hello(&s->to.credit, &hello[1]), 0);
    T_EQ(credit_meet(&s->from.credit, hello[1]), 0);
    T_EQ(credit_meet(&s->to.credit, hello[0]), 0);
}

static inline void need(bool good)
{
    if (__builtin_expect(!good, 0))
        T_EQ(good, true);
}

/* Credits come back by updates; the one that leaves must be taken from its queue, too. */
static void take_update(struct stream *s)
{
    struct ibv_wc wc;

    need(ibv_poll_cq(s->a->recv_cq, 1, &wc) == 1);
    need(credit_qp_seen(&s->from, &wc) == CREDIT_UPDATE);
    need(credit_qp_recv(&s->from, &s->update_recv) == 0);
    need(ibv_poll_cq(s->b->send_cq, 1, &wc) == 1);
    need(credit_qp_seen(&s->to, &wc) == -EALREADY);
}

static void send_with(struct stream *s)
{
    int sent = credit_qp_send(&s->from, &s->send);

    if (__builtin_expect(sent == -EAGAIN, 0)) {
        take_update(s);
        sent = credit_qp_send(&s->from, &s->send);
    }
    need(sent == 0);
}

static void burst_with(struct stream *s)
{
    struct ibv_wc wc[BURST];

    for (int i = 0; i < BURST; i++)
        send_with(s);
    need(ibv_poll_cq(s->b->recv_cq, BURST, wc) == BURST);
    for (int i = 0; i < BURST; i++) {
        need(credit_qp_seen(&s->to, &wc[i]) == CREDIT_DATA);
        need(credit_qp_recv(&s->to, &s->recv) == 0);
    }
    need(ibv_poll_cq(s->a->send_cq, BURST, wc) == BURST);
    for (int i = 0; i < BURST; i++)
        need(credit_qp_seen(&s->from, &wc[i]) == CREDIT_SENT);
}

static void burst_without(struct stream *s)
{
    struct ibv_send_wr *bad_send;
    struct ibv_recv_wr *bad;
    struct ibv_wc wc[BURST];

    for (int i = 0; i < BURST; i++)
        need(ibv_post_send(s->a->qp[0], &s->send, &bad_send) == 0);
    need(ibv_poll_cq(s->b->recv_cq, BURST, wc) == BURST);
    for (int i = 0; i < BURST; i++) {
        need(wc[i].status == IBV_WC_SUCCESS);
        need(ibv_post_recv(s->b->qp[0], &s->recv, &bad) == 0);
    }
    need(ibv_poll_cq(s->a->send_cq, BURST, wc) == BURST);
    for (int i = 0; i < BURST; i++)
        need(wc[i].status == IBV_WC_SUCCESS);
}

static long turn_ps(struct stream *s)
{
    struct timespec from, to;

    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < MESSAGES; i += BURST) {
        if (s->credits)
            burst_with(s);
        else
            burst_without(s);
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    return ((to.tv_sec - from.tv_sec) * 1000000000L + (to.tv_nsec - from.tv_nsec)) * 1000 /
           MESSAGES;
}

static void close_stream(struct stream *s)
{
    side_close(s->b, false);
    side_close(s->a, false);
}

T_TEST(credit_cost, over_a_queue_pair)
{
    /* A stream of 8-byte messages, with credits and without. */
    struct stream with, without;
    long best[2] = {0};

    open_stream(&with, true);
    open_stream(&without, false);
    meet(&with);
    for (int i = 0; i < WINDOW; i++)
        post_receive(&without);
    for (int turn = 0; turn < 2 * TURNS; turn++) {
        long ps = turn_ps(turn % 2 ? &with : &without);

        if (turn < 2 || ps < best[turn % 2])
            best[turn % 2] = ps;
    }
    printf("%ld ps a message without credits, %+ld with\n", best[0], best[1] - best[0]);
    T_CHECK(best[1] - best[0] <= LIMIT_PS);
    close_stream(&with);
    close_stream(&without);
}
