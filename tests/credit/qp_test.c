/* SPDX-License-Identifier: MIT */
/*
 * Credits around queue pairs: two ends in processes, threads, or one thread. The queue pairs never
 * wait for a receive (rnr_retry 0), so a single message too many would break the connection.
 */
#include "credit.h"
#include "ends.h"

#include <arpa/inet.h>
#include <stdlib.h>

enum { MESSAGE = 64, MESSAGES = 1000 };

/* What an end has: in side.extra[0]. */
struct flow {
    struct credit_qp q;
    struct side *side;
    uint64_t seen, updates; /* messages with data, without */
    uint64_t own;           /* sends of ours that are complete */
    bool hold;              /* keep the receives that messages have taken */
    int error;              /* the last one that credit_qp_seen returned */
};

struct ask {
    unsigned window, reserve;
    bool block;
    uint32_t hello;
    uint64_t count;
    int result;
    bool hold;
    uint64_t expect; /* messages from the other side */
    struct credit credit;
};

static struct flow *flow_of(struct side *s)
{
    return s->extra[0];
}

static int post_receive(struct flow *f, uint64_t index)
{
    struct side *s = f->side;
    struct ibv_sge sge = {s->info.addr + s->opt.size / 2 + index * MESSAGE, MESSAGE, s->info.lkey};
    struct ibv_recv_wr wr = {.wr_id = index, .sg_list = &sge, .num_sge = 1};

    return credit_qp_recv(&f->q, &wr);
}

/* Hands in what completed, and posts the receives again. */
static void take(struct flow *f, struct ibv_cq *cq)
{
    struct ibv_wc wc;

    while (ibv_poll_cq(cq, 1, &wc) > 0) {
        int kind = credit_qp_seen(&f->q, &wc);

        f->seen += kind == CREDIT_DATA;
        f->updates += kind == CREDIT_UPDATE;
        f->own += kind == CREDIT_SENT;
        if (kind < 0 && kind != -EALREADY) {
            f->error = kind;
        } else if (kind == CREDIT_UPDATE || (kind == CREDIT_DATA && !f->hold)) {
            T_EQ(post_receive(f, wc.wr_id), 0);
        }
    }
}

static int progress(void *arg)
{
    struct flow *f = arg;

    take(f, f->side->recv_cq);
    take(f, f->side->send_cq);
    t_relax();
    return f->error;
}

static void flow_open(struct side *s, void *arg)
{
    struct ask *ask = arg;
    struct flow *f = calloc(1, sizeof(*f));

    T_ASSERT(f != NULL);
    s->extra[0] = f;
    f->side = s;
    f->hold = ask->hold;
    T_EQ(credit_qp_init(&f->q, s->qp[0], ask->reserve, ask->block ? progress : NULL, f), 0);
    for (unsigned i = 0; i < ask->window + ask->reserve; i++) {
        T_EQ(post_receive(f, i), 0);
    }
    T_EQ(credit_hello(&f->q.credit, &ask->hello), 0);
}

static void flow_meet(struct side *s, void *arg)
{
    T_EQ(credit_meet(&flow_of(s)->q.credit, ((struct ask *)arg)->hello), 0);
}

static void flow_close(struct side *s, void *arg)
{
    (void)arg;
    free(flow_of(s));
    s->extra[0] = NULL;
}

static int send_one(struct flow *f, enum ibv_wr_opcode opcode)
{
    struct side *s = f->side;
    struct ibv_sge sge = {s->info.addr, MESSAGE, s->info.lkey};
    struct ibv_send_wr wr = {
        .sg_list = &sge, .num_sge = 1, .opcode = opcode, .send_flags = IBV_SEND_SIGNALED};

    return credit_qp_send(&f->q, &wr);
}

/* Sends until it has sent `count`, or something is in the way. */
static void flow_send(struct side *s, void *arg)
{
    struct ask *ask = arg;
    uint64_t sent = 0;

    ask->result = 0;
    while (sent < ask->count && (ask->result = send_one(flow_of(s), IBV_WR_SEND_WITH_IMM)) == 0) {
        sent++;
    }
    ask->count = sent;
}

static void flow_pump(struct side *s, void *arg)
{
    struct ask *ask = arg;
    struct flow *f = flow_of(s);

    ask->result = progress(f);
    f->error = 0;
    ask->credit = f->q.credit;
}

/* --- the script's words --- */

static struct pair *open_flow(enum topology topology, const struct ask *wanted)
{
    struct side_opt opt = {.rnr_retry = ZERO};
    struct pair *p = pair_open(topology, &opt);
    struct ask ask[2] = {*wanted, *wanted};

    e_run(p->a, flow_open, &ask[0], sizeof(ask[0]));
    e_run(p->b, flow_open, &ask[1], sizeof(ask[1]));
    e_run(p->a, flow_meet, &ask[1], sizeof(ask[1]));
    e_run(p->b, flow_meet, &ask[0], sizeof(ask[0]));
    return p;
}

/* What is left in the completion queues is the test's own business. */
static void close_flow(struct pair *p)
{
    struct ask nothing = {0};

    e_run(p->a, flow_close, &nothing, sizeof(nothing));
    e_run(p->b, flow_close, &nothing, sizeof(nothing));
    pair_close_loose(p);
}

static int send_some(struct end *e, uint64_t count, uint64_t *sent_out)
{
    struct ask ask = {.count = count};

    e_run(e, flow_send, &ask, sizeof(ask));
    *sent_out = ask.count;
    return ask.result;
}

static struct ask pump(struct end *e)
{
    struct ask ask = {0};

    e_run(e, flow_pump, &ask, sizeof(ask));
    return ask;
}

static unsigned credits_of(struct end *e)
{
    struct ask seen = pump(e);

    return credit_available(&seen.credit);
}

static const struct ask four = {.window = 4, .reserve = 1};
static const struct ask holding = {.window = 4, .reserve = 1, .hold = true};

/* --- one step after the other --- */

T_CONTRACT(credit_qp, spent_credits_return)
{
    /* A window's worth goes out, then -EAGAIN; when B has posted again, more can go. */
    struct pair *p = open_flow(topology, &four);
    uint64_t sent, total = 0;

    for (int round = 0; round < 20; round++) {
        T_UNTIL(credits_of(p->a) > 0, 10000);
        T_EQ(send_some(p->a, 100, &sent), -EAGAIN);
        T_CHECK(round > 0 || sent == 4);
        total += sent;
        T_UNTIL(pump(p->b).credit.count[CREDIT_DATA].arrived == total, 10000);
    }
    close_flow(p);
}

T_CONTRACT(credit_qp, held_receives_give_no_credit)
{
    /* B keeps its messages: A gets no more than B has room for, and nothing breaks. */
    struct pair *p = open_flow(topology, &holding);
    uint64_t sent;

    T_EQ(send_some(p->a, 100, &sent), -EAGAIN);
    T_UNTIL(pump(p->b).credit.count[CREDIT_DATA].arrived == 4, 10000);
    T_EQ(pump(p->a).result, 0);
    T_EQ(send_some(p->a, 1, &sent), -EAGAIN);
    T_EQ(e_state(p->a, 0), IBV_QPS_RTS);
    close_flow(p);
}

T_CONTRACT(credit_qp, both_ways_without_updates)
{
    /* In a dialogue every return rides on data. */
    struct pair *p = open_flow(topology, &four);
    uint64_t sent;

    for (unsigned i = 1; i <= 50; i++) {
        T_EQ(send_some(p->a, 1, &sent), 0);
        T_UNTIL(pump(p->b).credit.count[CREDIT_DATA].arrived == i, 10000);
        T_EQ(send_some(p->b, 1, &sent), 0);
        T_UNTIL(pump(p->a).credit.count[CREDIT_DATA].arrived == i, 10000);
    }
    T_EQ(pump(p->a).credit.count[CREDIT_UPDATE].arrived, 0);
    T_EQ(pump(p->b).credit.count[CREDIT_UPDATE].arrived, 0);
    close_flow(p);
}

static void write_with_word(struct side *s, void *arg)
{
    struct flow *f = flow_of(s);
    const struct side_info *to = arg;
    struct ibv_sge sge = {s->info.addr, MESSAGE, s->info.lkey};
    struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .send_flags = IBV_SEND_SIGNALED};

    wr.wr.rdma.remote_addr = to->addr;
    wr.wr.rdma.rkey = to->rkey;
    for (int i = 0; i < 10; i++) {
        wr.opcode = IBV_WR_RDMA_WRITE;
        T_EQ(credit_qp_send(&f->q, &wr), 0);
        wr.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
        T_EQ(credit_qp_send(&f->q, &wr), i < 4 ? 0 : -EAGAIN);
    }
}

T_CONTRACT(credit_qp, writes)
{
    /* An RDMA write with immediate data takes a credit, one without takes none. */
    struct pair *p = open_flow(topology, &four);

    e_run(p->a, write_with_word, &p->b->info, sizeof(p->b->info));
    T_UNTIL(pump(p->b).credit.count[CREDIT_DATA].arrived == 4, 10000);
    close_flow(p);
}

static void bad_posts(struct side *s, void *arg)
{
    struct flow *f = flow_of(s);
    struct ibv_recv_wr receives[2] = {{.next = &receives[1]}, {0}};
    struct ibv_send_wr sends[2] = {{.next = &sends[1], .opcode = IBV_WR_SEND_WITH_IMM}, {0}};

    (void)arg;
    T_EQ(send_one(f, IBV_WR_SEND), -EINVAL);
    T_EQ(send_one(f, IBV_WR_SEND_WITH_INV), -EINVAL);
    T_EQ(credit_qp_recv(&f->q, receives), -EINVAL);
    T_EQ(credit_qp_send(&f->q, sends), -EINVAL);
    T_EQ(credit_qp_init(&f->q, s->qp[0], 0, NULL, NULL), -EINVAL);
    T_EQ(f->q.credit.count[CREDIT_DATA].sent, 0);
}

T_CONTRACT(credit_qp, bad_posts)
{
    /* Lists, sends that can't carry a word, a reserve of nothing. */
    struct pair *p = open_flow(topology, &four);
    struct ask nothing = {0};

    e_run(p->a, bad_posts, &nothing, sizeof(nothing));
    close_flow(p);
}

/* --- a peer that breaks the rules, on a connection that would bear it --- */

static void caught(struct pair *p, uint32_t word, int wanted)
{
    struct ask seen;

    e_send(p->a, &(struct post){.op = IBV_WR_SEND_WITH_IMM, .len = 8, .imm = word});
    T_UNTIL((seen = pump(p->b)).result != 0, 10000);
    T_EQ(seen.result, wanted);
    close_flow(p);
}

T_CONTRACT(credit_qp, over_sending_is_caught)
{
    /* A message into the reserve, by the hand of a cheat: no error of the NIC's, but ours. */
    struct pair *p = open_flow(topology, &holding);
    uint64_t sent;

    T_EQ(send_some(p->a, 4, &sent), 0);
    caught(p, 0x04010004, -EOVERFLOW);
}

T_CONTRACT(credit_qp, foreign_message_is_caught)
{
    /* Immediate data that is no word. */
    caught(open_flow(topology, &four), 0x12345678, -EPROTO);
}

T_CONTRACT(credit_qp, message_without_word_is_caught)
{
    /* No immediate data at all. */
    struct pair *p = open_flow(topology, &four);
    struct ask seen;

    e_send(p->a, &(struct post){.op = IBV_WR_SEND, .len = 8});
    T_UNTIL((seen = pump(p->b)).result != 0, 10000);
    T_EQ(seen.result, -EPROTO);
    close_flow(p);
}

T_CONTRACT(credit_qp, failure_is_told)
{
    /* The other side is gone: completions of failure are -EIO. */
    struct pair *p = open_flow(topology, &four);
    struct ask seen;

    T_EQ(e_to_state(p->a, 0, IBV_QPS_ERR), 0);
    T_UNTIL((seen = pump(p->a)).result != 0, 10000);
    T_EQ(seen.result, -EIO);
    close_flow(p);
}

/* --- both ends at once --- */

/* Sends `count` messages and receives `expect`, blocking where there is no credit. */
static void stream(struct side *s, void *arg)
{
    struct ask *ask = arg;
    struct flow *f = flow_of(s);
    int64_t deadline = t_deadline(60000);

    for (uint64_t i = 0; i < ask->count; i++) {
        T_EQ(send_one(f, IBV_WR_SEND_WITH_IMM), 0);
        while (i - f->own > 32) {
            T_EQ(progress(f), 0);
        }
    }
    while (f->seen < ask->expect || f->own < ask->count) {
        T_EQ(progress(f), 0);
        T_ASSERT(!t_expired(deadline), "stuck at %lu", (unsigned long)f->seen);
    }
}

static void run_stream(enum topology topology, unsigned window, unsigned reserve, bool one_way)
{
    struct ask wanted = {.window = window, .reserve = reserve, .block = true};
    struct pair *p = open_flow(topology, &wanted);
    struct ask a = {.count = MESSAGES, .expect = one_way ? 0 : MESSAGES};
    struct ask b = {.count = a.expect, .expect = MESSAGES};

    /* b first: a may live in this thread, and then runs to its end here. */
    e_begin(p->b, stream, &b, sizeof(b));
    e_begin(p->a, stream, &a, sizeof(a));
    e_finish(p->a);
    e_finish(p->b);
    close_flow(p);
}

T_CONTRACT_CONCURRENT(credit_stream, one_way)
{
    /* All returns are updates, with windows down to one. */
    run_stream(topology, 1, 1, true);
    run_stream(topology, 2, 1, true);
    run_stream(topology, 16, 2, true);
}

T_CONTRACT_CONCURRENT(credit_stream, both_ways)
{
    /* Both senders block, each inside its own send, and still serve the other. */
    run_stream(topology, 1, 1, false);
    run_stream(topology, 2, 1, false);
    run_stream(topology, 16, 2, false);
}
