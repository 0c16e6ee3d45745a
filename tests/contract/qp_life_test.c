/* SPDX-License-Identifier: MIT */
/*
 * What queue pairs do in their states: making them, posting in each state, flushing in order,
 * draining, the send queue error of unreliable services, and what a reset clears.
 */
#include "ends.h"

/* --- making
 * --------------------------------------------------------------------------------------- */

static struct ibv_qp *make(struct side *s, struct ibv_qp_init_attr attr)
{
    errno = 0;
    return ibv_create_qp(s->pd, &attr);
}

T_TEST(qp_create, is_in_reset)
{
    /* A new queue pair is in RESET, names its context, and knows what it was made of. */
    struct side *s = side_open(NULL, NULL);
    struct ibv_qp *qp = s->qp[0];

    T_EQ(qp_state(qp), IBV_QPS_RESET);
    T_EQ(qp->qp_type, IBV_QPT_RC);
    T_ASSERT(qp->context == s->ctx && qp->pd == s->pd && qp->qp_context == s);
    T_ASSERT(qp->send_cq == s->send_cq && qp->recv_cq == s->recv_cq && qp->srq == NULL);
    side_close(s, true);
}

T_TEST(qp_create, needs_its_parts)
{
    /* Without a CQ, or of a type that does not exist, there is no queue pair. */
    struct side *s = side_open(NULL, NULL);
    struct ibv_qp_init_attr good = {.send_cq = s->send_cq,
                                    .recv_cq = s->recv_cq,
                                    .cap = {1, 1, 1, 1, 0},
                                    .qp_type = IBV_QPT_RC};
    struct ibv_qp_init_attr bad = good;

    bad.qp_type = (enum ibv_qp_type)77;
    T_ASSERT(make(s, bad) == NULL);
    T_IN(errno, EINVAL, EOPNOTSUPP);
    bad = good;
    bad.qp_type = (enum ibv_qp_type)0;
    T_ASSERT(make(s, bad) == NULL);
    T_IN(errno, EINVAL, EOPNOTSUPP);
    side_close(s, true);
}

T_TEST(qp_create, numbers_are_not_reused_at_once)
{
    /* A number that was just given back does not name a new queue pair at once: late packets. */
    struct side *s = side_open(&(struct side_opt){.qps = ZERO}, NULL);
    struct side_opt opt = side_options(NULL);
    uint32_t last = 0;

    for (int i = 0; i < 20; i++) {
        struct ibv_qp *qp = side_create_qp(s, &opt);

        T_ASSERT(qp != NULL);
        T_ASSERT(qp->qp_num != last, "number 0x%x again", last);
        last = qp->qp_num;
        T_EQ(ibv_destroy_qp(qp), 0);
    }
    side_close(s, true);
}

/* --- posting in each state
 * -------------------------------------------------------------------------- */

static int post_send(struct side *s, uint64_t id)
{
    struct ibv_send_wr *bad = NULL,
                       wr = {.wr_id = id, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};

    wr.wr.ud.ah = s->ah;
    wr.wr.ud.remote_qpn = s->info.qpn[0];
    wr.wr.ud.remote_qkey = s->opt.qkey;
    return ibv_post_send(s->qp[0], &wr, &bad);
}

static int post_recv(struct side *s, uint64_t id)
{
    struct ibv_recv_wr *bad = NULL, wr = {.wr_id = id};

    return ibv_post_recv(s->qp[0], &wr, &bad);
}

static void step(struct side *s, enum ibv_qp_state to)
{
    struct ibv_qp_attr attr;
    int mask = to == IBV_QPS_INIT  ? side_init_attr(s, &attr)
               : to == IBV_QPS_RTR ? side_rtr_attr(s, &s->info, 0, &attr)
                                   : side_rts_attr(s, 0, &attr);

    T_EQ(ibv_modify_qp(s->qp[0], &attr, mask), 0);
}

T_TEST(qp_post, sends_before_rts)
{
    /* Sends before RTS are refused at once (IBTA C10-96), and leave no trace. */
    struct side *s = side_open(NULL, NULL);
    struct ibv_wc wc;

    T_CHECK(post_send(s, 1) != 0, "RESET");
    step(s, IBV_QPS_INIT);
    T_CHECK(post_send(s, 2) != 0, "INIT");
    step(s, IBV_QPS_RTR);
    T_CHECK(post_send(s, 3) != 0, "RTR");
    step(s, IBV_QPS_RTS);
    T_EQ(ibv_poll_cq(s->send_cq, 1, &wc), 0);
    T_EQ(post_recv(s, 8), 0);
    T_EQ(post_send(s, 4), 0);
    T_EQ(cq_wait(s->send_cq).wr_id, 4);
    T_EQ(cq_wait(s->recv_cq).wr_id, 8);
    side_close(s, true);
}

T_TEST(qp_post, receives_from_init_on)
{
    /* Receives are refused in RESET (IBTA C10-97), and taken from INIT on; they wait for RTR. */
    struct side *s = side_open(NULL, NULL);

    T_CHECK(post_recv(s, 1) != 0, "RESET");
    step(s, IBV_QPS_INIT);
    T_EQ(post_recv(s, 2), 0);
    step(s, IBV_QPS_RTR);
    T_EQ(post_recv(s, 3), 0);
    step(s, IBV_QPS_RTS);
    T_EQ(post_recv(s, 4), 0);
    for (uint64_t i = 2; i <= 4; i++) {
        T_EQ(post_send(s, i), 0);
        T_EQ(cq_wait(s->send_cq).status, IBV_WC_SUCCESS);
        T_EQ(cq_wait(s->recv_cq).wr_id, i);
    }
    side_close(s, true);
}

T_CONTRACT(qp_post, received_in_rtr)
{
    /* A queue pair in RTR receives, though it can't send yet. */
    struct side_opt opt = {.unconnected = true};
    struct pair *p = pair_open(topology, &opt);
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTS};
    int mask = IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
               IBV_QP_MAX_QP_RD_ATOMIC;

    pair_connect(p);
    T_EQ(e_to_state(p->b, 0, IBV_QPS_RESET), 0);
    attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_INIT, .port_num = 1};
    T_EQ(e_modify(p->b, 0, &attr,
                  IBV_QP_STATE | IBV_QP_PORT | IBV_QP_PKEY_INDEX | IBV_QP_ACCESS_FLAGS),
         0);
    attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTR,
                                .path_mtu = IBV_MTU_1024,
                                .dest_qp_num = p->a->info.qpn[0],
                                .rq_psn = p->a->info.psn[0],
                                .min_rnr_timer = 1,
                                .ah_attr = side_ah_attr(&p->a->info)};
    T_EQ(e_modify(p->b, 0, &attr,
                  IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                      IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER),
         0);
    pair_works(p, 0);
    T_EQ(e_state(p->b, 0), IBV_QPS_RTR);
    attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS,
                                .timeout = 14,
                                .retry_cnt = 6,
                                .rnr_retry = 7,
                                .sq_psn = p->b->info.psn[0]};
    T_EQ(e_modify(p->b, 0, &attr, mask), 0);
    pair_works(p, 0);
    pair_close(p);
}

/* --- flushing
 * --------------------------------------------------------------------------------------- */

T_CONTRACT(qp_error, flushes_in_order)
{
    /*
     * In ERR everything outstanding is flushed, in order, unsignalled requests too; nothing of it
     * is carried out at the other side.
     */
    struct pair *p = pair_open(topology, NULL);

    e_recv_many(p->a, 0, 100, 10, p->rx, 64);
    /* The first send waits for a receive that is not there, so all are outstanding. */
    for (uint64_t i = 0; i < 10; i++) {
        e_send(p->a, &(struct post){.id = i,
                                    .op = i == 0 ? IBV_WR_SEND : IBV_WR_RDMA_WRITE,
                                    .len = 64,
                                    .roff = (int64_t)p->rx,
                                    .quiet = i % 2 == 1});
    }
    T_EQ(e_to_state(p->a, 0, IBV_QPS_ERR), 0);
    e_flushed(p->a, SEND_CQ, 0, 10);
    e_flushed(p->a, RECV_CQ, 100, 10);
    e_untouched_but(p->b, 0, 0);
    T_EQ(e_state(p->a, 0), IBV_QPS_ERR);
    pair_close(p);
}

T_CONTRACT(qp_error, flushes_what_comes_later)
{
    /* Posting in ERR is allowed, and each request is flushed (IBTA 10.3.1.7). */
    struct pair *p = pair_open(topology, NULL);

    T_EQ(e_to_state(p->a, 0, IBV_QPS_ERR), 0);
    for (uint64_t i = 0; i < 200; i++) {
        e_send(p->a, &(struct post){.id = i, .op = IBV_WR_RDMA_WRITE, .len = 8});
        e_recv(p->a, &(struct post){.id = 1000 + i, .off = p->rx, .len = 8});
        e_flushed(p->a, SEND_CQ, i, 1);
        e_flushed(p->a, RECV_CQ, 1000 + i, 1);
    }
    e_untouched_but(p->b, 0, 0);
    pair_close(p);
}

T_CONTRACT(qp_error, completed_before_stays_completed)
{
    /* What had completed before the error keeps its status, though it is polled after. */
    struct pair *p = pair_open(topology, NULL);

    e_recv_many(p->b, 0, 50, 3, p->rx, 64);
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    e_done(p->a, 1, IBV_WC_SEND);
    T_EQ(e_to_state(p->b, 0, IBV_QPS_ERR), 0);
    e_got(p->b, 50, IBV_WC_RECV, 64);
    e_flushed(p->b, RECV_CQ, 51, 2);
    pair_close(p);
}

T_CONTRACT(qp_error, other_queue_pairs_go_on)
{
    /* An error on one queue pair leaves its neighbours on the same CQs alone. */
    struct pair *p = pair_open(topology, &(struct side_opt){.qps = 3});

    e_recv(p->b, &(struct post){.q = 1, .id = 7, .off = p->rx, .len = 64});
    T_EQ(e_to_state(p->b, 1, IBV_QPS_ERR), 0);
    e_flushed(p->b, RECV_CQ, 7, 1);
    pair_works(p, 0);
    pair_works(p, 2);
    pair_close(p);
}

/* --- reset
 * ------------------------------------------------------------------------------------------ */

T_CONTRACT(qp_reset, clears_the_queues)
{
    /* What was posted is forgotten without completions; connected again, it starts empty. */
    struct pair *p = pair_open(topology, NULL);

    e_recv_many(p->a, 0, 100, 5, p->rx, 64);
    e_recv_many(p->b, 0, 200, 5, p->rx, 64);
    for (int i = 0; i < 2; i++) {
        T_EQ(e_to_state(p->a, 0, IBV_QPS_RESET), 0);
        T_EQ(e_to_state(p->b, 0, IBV_QPS_RESET), 0);
        pair_connect(p);
        e_none(p->a, RECV_CQ);
        e_none(p->b, RECV_CQ);
        pair_works(p, 0);
    }
    pair_close(p);
}

T_CONTRACT(qp_reset, after_error)
{
    /* ERR, RESET and the whole way again: as good as new, a hundred times. */
    struct pair *p = pair_open(topology, NULL);

    for (int i = 0; i < 100; i++) {
        T_EQ(e_to_state(p->a, 0, IBV_QPS_ERR), 0);
        T_EQ(e_to_state(p->b, 0, IBV_QPS_ERR), 0);
        T_EQ(e_to_state(p->a, 0, IBV_QPS_RESET), 0);
        T_EQ(e_to_state(p->b, 0, IBV_QPS_RESET), 0);
        pair_connect(p);
        pair_works(p, 0);
    }
    pair_close(p);
}

T_CONTRACT(qp_reset, with_work_outstanding)
{
    /* A reset in the middle of a wait for a receive drops the request; nothing of it comes later.
     */
    struct pair *p = pair_open(topology, NULL);

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    T_EQ(e_to_state(p->a, 0, IBV_QPS_RESET), 0);
    T_EQ(e_to_state(p->b, 0, IBV_QPS_RESET), 0);
    pair_connect(p);
    e_recv(p->b, &(struct post){.id = 10, .off = p->rx, .len = 64});
    e_quiet(p->b, RECV_CQ);
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .off = 100, .len = 32});
    e_done(p->a, 2, IBV_WC_SEND);
    e_got(p->b, 10, IBV_WC_RECV, 32);
    pair_close(p);
}

T_CONTRACT(qp_reset, old_completions_are_gone_or_old)
{
    /*
     * Completions of before the reset that were not polled are dropped or still there, in order;
     * they do not come after newer ones.
     */
    struct pair *p = pair_open(topology, NULL);
    struct ibv_wc wc;
    uint64_t expected = 0;

    for (uint64_t i = 0; i < 5; i++) {
        e_send(p->a, &(struct post){.id = i, .op = IBV_WR_RDMA_WRITE, .len = 8});
    }
    T_EQ(e_to_state(p->a, 0, IBV_QPS_RESET), 0);
    T_EQ(e_to_state(p->b, 0, IBV_QPS_RESET), 0);
    pair_connect(p);
    e_send(p->a, &(struct post){.id = 99, .op = IBV_WR_RDMA_WRITE, .len = 8});
    while ((wc = e_wait(p->a, SEND_CQ)).wr_id != 99) {
        T_EQ(wc.wr_id, expected++);
    }
    T_EQ(wc.status, IBV_WC_SUCCESS);
    e_none(p->a, SEND_CQ);
    pair_close(p);
}

/* --- the first message
 * -------------------------------------------------------------------------------------- */

static void wait_in_rtr(struct side *s, void *arg)
{
    struct ibv_qp_attr attr;
    int mask = side_init_attr(s, &attr);

    T_EQ(ibv_modify_qp(s->qp[0], &attr, mask), 0);
    mask = side_rtr_attr(s, arg, 0, &attr);
    T_EQ(ibv_modify_qp(s->qp[0], &attr, mask), 0);
}

static void connect_to(struct side *s, void *arg)
{
    side_connect(s, 0, arg, 0);
}

T_CONTRACT(qp_first, message_in_rtr_is_told)
{
    /* IBTA 11.6.3.2: whatever comes first in RTR raises the event, polled or not; later ones not.
     */
    static const enum ibv_wr_opcode ops[] = {IBV_WR_SEND, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ};

    for (int i = 0; i < 3; i++) {
        struct pair *p = pair_open(topology, &(struct side_opt){.unconnected = true});
        struct side_info a = p->a->info, b = p->b->info;

        e_run(p->b, wait_in_rtr, &a, sizeof(a));
        e_run(p->a, connect_to, &b, sizeof(b));
        e_recv_many(p->b, 0, 0, 2, p->rx, 64);
        for (uint64_t n = 0; n < 2; n++) {
            e_send(p->a, &(struct post){.id = n, .op = ops[i], .len = 64});
            T_EQ(e_wait(p->a, SEND_CQ).status, IBV_WC_SUCCESS);
        }
        e_event(p->b, IBV_EVENT_COMM_EST, 0);
        T_ASSERT(!e_has_event(p->b, IBV_EVENT_COMM_EST, 0, 0));
        T_EQ(e_state(p->b, 0), IBV_QPS_RTR);
        pair_close_loose(p);
    }
}

/* --- draining the send queue
 * -------------------------------------------------------------------------- */

static int drain(struct end *e, bool notify)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_SQD, .en_sqd_async_notify = notify};

    return e_modify(e, 0, &attr, IBV_QP_STATE | IBV_QP_EN_SQD_ASYNC_NOTIFY);
}

T_CONTRACT(qp_drain, stops_and_goes_on)
{
    /* In SQD new requests wait; they are carried out when the queue pair is back in RTS. */
    struct pair *p = pair_open(topology, NULL);

    T_EQ(drain(p->a, true), 0);
    e_event(p->a, IBV_EVENT_SQ_DRAINED, 0);
    T_EQ(e_state(p->a, 0), IBV_QPS_SQD);
    e_send(p->a,
           &(struct post){.id = 1, .op = IBV_WR_RDMA_WRITE, .len = 64, .roff = (int64_t)p->rx});
    e_quiet(p->a, SEND_CQ);
    e_untouched_but(p->b, 0, 0);
    T_EQ(e_to_state(p->a, 0, IBV_QPS_RTS), 0);
    e_done(p->a, 1, IBV_WC_RDMA_WRITE);
    e_same(p->b, p->rx, 64, p->a, 0);
    pair_close(p);
}

T_CONTRACT(qp_drain, event_when_all_is_acknowledged)
{
    /* The event comes when what had begun is done (IBTA 10.3.1.5), here when its receive is posted.
     */
    struct pair *p = pair_open(topology, NULL);
    struct ibv_qp_attr attr;

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    /* It has begun once the target has been asked in vain. */
    e_quiet(p->a, SEND_CQ);
    T_EQ(drain(p->a, true), 0);
    T_ASSERT(!e_has_event(p->a, IBV_EVENT_SQ_DRAINED, 0, QUIET_MS));
    e_query(p->a, 0, &attr, NULL);
    T_EQ(attr.qp_state, IBV_QPS_SQD);
    T_EQ(attr.sq_draining, 1);
    /* Until then the queue can't go on; other attributes may change, and the event still comes. */
    T_EQ(e_to_state(p->a, 0, IBV_QPS_RTS), EINVAL);
    attr.min_rnr_timer = 5;
    T_EQ(e_modify(p->a, 0, &attr, IBV_QP_MIN_RNR_TIMER), 0);
    e_recv(p->b, &(struct post){.id = 2, .off = p->rx, .len = 64});
    e_done(p->a, 1, IBV_WC_SEND);
    e_got(p->b, 2, IBV_WC_RECV, 64);
    e_event(p->a, IBV_EVENT_SQ_DRAINED, 0);
    e_query(p->a, 0, &attr, NULL);
    T_EQ(attr.sq_draining, 0);
    pair_close(p);
}

T_CONTRACT(qp_drain, no_event_unless_asked)
{
    /* Without en_sqd_async_notify the queue drains in silence. */
    struct pair *p = pair_open(topology, NULL);

    T_EQ(drain(p->a, false), 0);
    T_ASSERT(!e_has_event(p->a, IBV_EVENT_SQ_DRAINED, 0, QUIET_MS));
    T_EQ(e_state(p->a, 0), IBV_QPS_SQD);
    T_EQ(e_to_state(p->a, 0, IBV_QPS_RTS), 0);
    pair_works(p, 0);
    pair_close(p);
}

T_CONTRACT(qp_drain, event_is_asked_for_each_time)
{
    struct pair *p = pair_open(topology, NULL);

    T_EQ(drain(p->a, true), 0);
    e_event(p->a, IBV_EVENT_SQ_DRAINED, 0);
    T_EQ(e_to_state(p->a, 0, IBV_QPS_RTS), 0);
    T_EQ(e_to_state(p->a, 0, IBV_QPS_SQD), 0);
    T_ASSERT(!e_has_event(p->a, IBV_EVENT_SQ_DRAINED, 0, QUIET_MS));
    pair_close(p);
}

T_CONTRACT(qp_drain, receives_meanwhile)
{
    /* Only the send queue stops: the queue pair receives in SQD. */
    struct pair *p = pair_open(topology, NULL);

    T_EQ(drain(p->b, false), 0);
    pair_works(p, 0);
    T_EQ(e_to_state(p->b, 0, IBV_QPS_RTS), 0);
    pair_close(p);
}

/* --- send queue error
 * ----------------------------------------------------------------------------------- */

static void send_queue_error(enum topology topology, enum ibv_qp_type type)
{
    struct pair *p = pair_open(topology, &(struct side_opt){.type = type});
    uint32_t grh = type == IBV_QPT_UD ? 40 : 0;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTS, .cur_qp_state = IBV_QPS_SQE};

    e_recv(p->a, &(struct post){.id = 10, .off = p->rx, .len = 128});
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8, .lkey = 0x00dead00});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 8});
    e_expect(p->a, SEND_CQ, 1, IBV_WC_LOC_PROT_ERR);
    e_expect(p->a, SEND_CQ, 2, IBV_WC_WR_FLUSH_ERR);
    e_wait_state(p->a, 0, IBV_QPS_SQE);
    /* What is posted in SQE is flushed; the receive queue lives on. */
    e_send(p->a, &(struct post){.id = 3, .op = IBV_WR_SEND, .len = 8});
    e_flushed(p->a, SEND_CQ, 3, 1);
    e_send(p->b, &(struct post){.id = 4, .op = IBV_WR_SEND, .len = 16});
    e_done(p->b, 4, IBV_WC_SEND);
    e_got(p->a, 10, IBV_WC_RECV, grh + 16);
    /* Back in RTS it sends again. */
    T_EQ(e_modify(p->a, 0, &attr, IBV_QP_STATE | IBV_QP_CUR_STATE), 0);
    T_EQ(e_state(p->a, 0), IBV_QPS_RTS);
    e_recv(p->b, &(struct post){.id = 11, .off = p->rx, .len = 128});
    e_send(p->a, &(struct post){.id = 5, .op = IBV_WR_SEND, .len = 24});
    e_done(p->a, 5, IBV_WC_SEND);
    e_got(p->b, 11, IBV_WC_RECV, grh + 24);
    pair_close(p);
}

T_CONTRACT(qp_sqe, uc)
{
    /* A local error on an unreliable connection stops the send queue only (IBTA 10.3.1.6). */
    send_queue_error(topology, IBV_QPT_UC);
}

T_CONTRACT(qp_sqe, ud)
{
    /* The same for datagrams. */
    send_queue_error(topology, IBV_QPT_UD);
}

T_CONTRACT(qp_sqe, illegal_ways_out)
{
    /* From SQE there is RTS, RESET and ERR; all else is EINVAL. */
    static const enum ibv_qp_state no[] = {IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_SQD};
    struct pair *p = pair_open(topology, &(struct side_opt){.type = IBV_QPT_UD});

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8, .lkey = 0x00dead00});
    T_ASSERT(e_wait(p->a, SEND_CQ).status != IBV_WC_SUCCESS);
    e_wait_state(p->a, 0, IBV_QPS_SQE);
    for (int i = 0; i < 3; i++) {
        T_EQ(e_to_state(p->a, 0, no[i]), EINVAL);
        T_EQ(e_state(p->a, 0), IBV_QPS_SQE);
    }
    T_EQ(e_to_state(p->a, 0, IBV_QPS_ERR), 0);
    T_EQ(e_to_state(p->a, 0, IBV_QPS_RESET), 0);
    pair_close(p);
}
