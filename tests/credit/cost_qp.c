/* SPDX-License-Identifier: MIT */
/*
 * Shows that credits around a queue pair cost either end at most 5 ns a message: the same stream
 * with them and without, taking turns in one thread, updates included. The ends of a stream work at
 * the same time, so the dearer one says what it costs the rate. The best turn of each counts,
 * because whatever else the machine does can only add.
 */
#include "credit.h"
#include "side.h"

#include <stdio.h>
#include <time.h>

enum {
    WINDOW = 254,
    RESERVE = 2,
    MESSAGE = 8,
    BURST = 32,
    MESSAGES = 3200,
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
    long best_ps[2]; /* a message: sending, receiving */
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

static void send_burst(struct stream *s)
{
    struct ibv_send_wr *bad;
    struct ibv_wc wc[BURST];

    for (int i = 0; i < BURST; i++) {
        if (s->credits)
            send_with(s);
        else
            need(ibv_post_send(s->a->qp[0], &s->send, &bad) == 0);
    }
    need(ibv_poll_cq(s->a->send_cq, BURST, wc) == BURST);
    for (int i = 0; i < BURST; i++)
        need(s->credits ? credit_qp_seen(&s->from, &wc[i]) == CREDIT_SENT
                        : wc[i].status == IBV_WC_SUCCESS);
}

static void receive_burst(struct stream *s)
{
    struct ibv_recv_wr *bad;
    struct ibv_wc wc[BURST];

    need(ibv_poll_cq(s->b->recv_cq, BURST, wc) == BURST);
    for (int i = 0; i < BURST; i++) {
        if (s->credits) {
            need(credit_qp_seen(&s->to, &wc[i]) == CREDIT_DATA);
            need(credit_qp_recv(&s->to, &s->recv) == 0);
        } else {
            need(wc[i].status == IBV_WC_SUCCESS);
            need(ibv_post_recv(s->b->qp[0], &s->recv, &bad) == 0);
        }
    }
}

static long now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

/* What a message takes at each end, if it is less than before. */
static void turn(struct stream *s)
{
    long ns[2] = {0};

    for (int i = 0; i < MESSAGES; i += BURST) {
        long began = now_ns(), between;

        send_burst(s);
        between = now_ns();
        receive_burst(s);
        ns[0] += between - began;
        ns[1] += now_ns() - between;
    }
    for (int end = 0; end < 2; end++) {
        long ps = ns[end] * 1000 / MESSAGES;

        if (s->best_ps[end] == 0 || ps < s->best_ps[end])
            s->best_ps[end] = ps;
    }
}

static void close_stream(struct stream *s)
{
    side_close(s->b, false);
    side_close(s->a, false);
}

T_TEST(credit_cost, over_a_queue_pair)
{
    /* A stream of 8-byte messages, with credits and without. */
    static const char *const names[] = {"sending", "receiving"};
    struct stream with, without;

    open_stream(&with, true);
    open_stream(&without, false);
    meet(&with);
    for (int i = 0; i < WINDOW; i++)
        post_receive(&without);
    for (int i = 0; i < TURNS; i++) {
        turn(&without);
        turn(&with);
    }
    for (int end = 0; end < 2; end++) {
        long more = with.best_ps[end] - without.best_ps[end];

        printf("%s: %ld ps a message, %+ld with credits\n", names[end], without.best_ps[end], more);
        T_CHECK(more <= LIMIT_PS);
    }
    close_stream(&with);
    close_stream(&without);
}
