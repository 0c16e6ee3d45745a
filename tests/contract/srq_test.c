/* SPDX-License-Identifier: MIT */
/* Shared receive queues: sharing, limits and their event, last WQE reached, accounts, errors. */
#include "ends.h"

static const struct side_opt with_srq = {.use_srq = true, .qps = 3};

T_CONTRACT(srq, shared_by_queue_pairs)
{
    /* Receives are taken in order by whichever queue pair gets a message; the completion names it.
     */
    struct pair *p = pair_open(topology, &with_srq);

    e_recv_many(p->b, 0, 100, 30, p->rx, 64);
    for (uint64_t i = 0; i < 30; i++) {
        int q = (int)(i * 7 % 3);
        struct ibv_wc wc;

        e_send(p->a, &(struct post){.q = q, .id = i, .op = IBV_WR_SEND, .off = i * 10, .len = 50});
        e_done(p->a, i, IBV_WC_SEND);
        wc = e_got(p->b, 100 + i, IBV_WC_RECV, 50);
        T_EQ(wc.qp_num, p->b->info.qpn[q]);
        e_same(p->b, p->rx + i * 64, 50, p->a, i * 10);
    }
    pair_close(p);
}

T_CONTRACT(srq, write_with_immediate_takes_one)
{
    /* A write with immediate takes a receive from the shared queue, and only one. */
    struct pair *p = pair_open(topology, &with_srq);

    e_recv_many(p->b, 0, 1, 2, p->rx, 64);
    e_send(p->a, &(struct post){.q = 1,
                                .id = 5,
                                .op = IBV_WR_RDMA_WRITE_WITH_IMM,
                                .len = 9,
                                .roff = (int64_t)p->rx + 1000,
                                .imm = 7});
    e_done(p->a, 5, IBV_WC_RDMA_WRITE);
    e_got(p->b, 1, IBV_WC_RECV_RDMA_WITH_IMM, 9);
    e_send(p->a, &(struct post){.q = 2, .id = 6, .op = IBV_WR_SEND, .len = 8});
    e_done(p->a, 6, IBV_WC_SEND);
    e_got(p->b, 2, IBV_WC_RECV, 8);
    pair_close(p);
}

T_CONTRACT(srq, empty_means_not_ready)
{
    /* An empty shared queue is "receiver not ready": the sender waits, and goes on when one is
     * posted. */
    struct pair *p = pair_open(topology, &with_srq);

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8});
    e_quiet(p->a, SEND_CQ);
    e_recv_many(p->b, 0, 2, 1, p->rx, 64);
    e_done(p->a, 1, IBV_WC_SEND);
    e_got(p->b, 2, IBV_WC_RECV, 8);
    pair_close(p);
}

T_CONTRACT(srq, datagrams)
{
    /* UD queue pairs may share a receive queue, too. */
    struct pair *p =
        pair_open(topology, &(struct side_opt){.type = IBV_QPT_UD, .use_srq = true, .qps = 2});

    e_recv_many(p->b, 0, 1, 2, p->rx, 128);
    for (int q = 1; q >= 0; q--) {
        struct ibv_wc wc;

        e_send(p->a, &(struct post){.q = q, .id = 9, .op = IBV_WR_SEND, .off = 64, .len = 20});
        e_done(p->a, 9, IBV_WC_SEND);
        wc = e_got(p->b, 2 - (uint64_t)q, IBV_WC_RECV, 60);
        T_EQ(wc.qp_num, p->b->info.qpn[q]);
    }
    pair_close(p);
}

/* --- the limit
 * ------------------------------------------------------------------------------------- */

static void set_limit(struct side *s, void *arg)
{
    struct ibv_srq_attr attr = {.srq_limit = *(uint32_t *)arg};

    T_EQ(ibv_modify_srq(s->srq, &attr, IBV_SRQ_LIMIT), 0);
    T_EQ(ibv_query_srq(s->srq, &attr), 0);
    T_EQ(attr.srq_limit, *(uint32_t *)arg);
}

static void expect_limit_event(struct side *s, void *arg)
{
    bool *expected = arg;
    struct ibv_srq_attr attr;

    if (*expected) {
        side_wait_event(s, IBV_EVENT_SRQ_LIMIT_REACHED, s->srq);
        T_EQ(ibv_query_srq(s->srq, &attr), 0);
        T_EQ(attr.srq_limit, 0);
    } else {
        T_ASSERT(!side_has_event(s, IBV_EVENT_SRQ_LIMIT_REACHED, s->srq, QUIET_MS));
    }
}

static void limit_event(struct end *e, bool expected)
{
    e_run(e, expect_limit_event, &expected, sizeof(expected));
}

static void consume(struct pair *p, uint64_t id, int count)
{
    for (int i = 0; i < count; i++) {
        e_send(p->a, &(struct post){.q = i % 3, .id = 1, .op = IBV_WR_SEND, .len = 4});
        e_done(p->a, 1, IBV_WC_SEND);
        e_got(p->b, id++, IBV_WC_RECV, 4);
    }
}

T_CONTRACT(srq, limit_event)
{
    /*
     * The event comes when fewer receives than the limit are left (ibv_modify_srq(3)), not before,
     * once; the limit is then 0, and can be armed anew.
     */
    struct pair *p = pair_open(topology, &with_srq);
    uint32_t limit = 5;

    e_recv_many(p->b, 0, 0, 8, p->rx, 64);
    e_run(p->b, set_limit, &limit, sizeof(limit));
    consume(p, 0, 3);
    limit_event(p->b, false);
    consume(p, 3, 1);
    limit_event(p->b, true);
    consume(p, 4, 1);
    limit_event(p->b, false);
    e_recv_many(p->b, 0, 8, 8, p->rx, 64);
    e_run(p->b, set_limit, &limit, sizeof(limit));
    consume(p, 5, 7);
    limit_event(p->b, true);
    pair_close(p);
}

static struct side *plain_side(void)
{
    return side_open(&(struct side_opt){.qps = ZERO, .use_srq = true, .srq_wr = 8}, NULL);
}

T_TEST(srq_modify, limit_beyond_the_queue)
{
    /* A limit greater than the queue is EINVAL and changes nothing. */
    struct side *s = plain_side();
    struct ibv_srq_attr attr, before;

    T_EQ(ibv_query_srq(s->srq, &before), 0);
    attr = (struct ibv_srq_attr){.srq_limit = before.max_wr + 1};
    T_EQ(ibv_modify_srq(s->srq, &attr, IBV_SRQ_LIMIT), EINVAL);
    T_EQ(ibv_query_srq(s->srq, &attr), 0);
    T_EQ(attr.srq_limit, before.srq_limit);
    side_close(s, true);
}

T_TEST(srq_modify, resize)
{
    /* Where the device can resize shared queues it does, with receives inside; else it says so. */
    struct side *s = plain_side();
    struct ibv_srq_attr attr = {.max_wr = 100};
    struct ibv_device_attr device;
    struct ibv_recv_wr *bad, wr = {.wr_id = 1};
    int rc;

    T_EQ(ibv_query_device(s->ctx, &device), 0);
    T_EQ(ibv_post_srq_recv(s->srq, &wr, &bad), 0);
    rc = ibv_modify_srq(s->srq, &attr, IBV_SRQ_MAX_WR);
    if (!(device.device_cap_flags & IBV_DEVICE_SRQ_RESIZE)) {
        T_IN(rc, EINVAL, EOPNOTSUPP, ENOSYS);
    } else {
        T_EQ(rc, 0);
        T_EQ(ibv_query_srq(s->srq, &attr), 0);
        T_ASSERT(attr.max_wr >= 100);
        for (uint64_t i = 0; i < 90; i++) {
            T_EQ(ibv_post_srq_recv(s->srq, &wr, &bad), 0);
        }
        attr.max_wr = (uint32_t)device.max_srq_wr + 1;
        T_IN(ibv_modify_srq(s->srq, &attr, IBV_SRQ_MAX_WR), EINVAL, ENOMEM);
    }
    side_close(s, false);
    t_end();
}

T_TEST(srq, query_returns_what_was_made)
{
    /* Sizes asked for are there, in the attributes returned and in the query. */
    struct side *s = plain_side();
    struct ibv_srq_init_attr init = {.attr = {.max_wr = 33, .max_sge = 3}};
    struct ibv_srq *srq = ibv_create_srq(s->pd, &init);
    struct ibv_srq_attr attr;

    T_ASSERT(srq != NULL);
    T_ASSERT(init.attr.max_wr >= 33 && init.attr.max_sge >= 3);
    T_EQ(ibv_query_srq(srq, &attr), 0);
    T_ASSERT(attr.max_wr >= init.attr.max_wr && attr.max_sge >= init.attr.max_sge);
    T_EQ(attr.srq_limit, 0);
    T_EQ(ibv_destroy_srq(srq), 0);
    side_close(s, true);
}

T_TEST(srq, full)
{
    /* A full queue says ENOMEM, and bad_wr names the request that did not fit. */
    struct side *s = plain_side();
    struct ibv_recv_wr wr = {.wr_id = 1}, *bad = NULL;
    struct ibv_srq_attr attr;
    uint32_t taken = 0;
    int rc;

    T_EQ(ibv_query_srq(s->srq, &attr), 0);
    while ((rc = ibv_post_srq_recv(s->srq, &wr, &bad)) == 0) {
        T_ASSERT(++taken <= 4 * attr.max_wr + 64);
    }
    T_EQ(rc, ENOMEM);
    T_ASSERT(bad == &wr && taken >= attr.max_wr);
    side_close(s, true);
}

T_TEST(srq, too_many_elements)
{
    /* More elements than the queue has are EINVAL (or ENOMEM); earlier ones of the list are posted.
     */
    struct side *s = plain_side();
    struct ibv_sge sge[POST_SGE] = {{.length = 0}};
    struct ibv_recv_wr wr[2], *bad = NULL;
    struct ibv_srq_attr attr;

    T_EQ(ibv_query_srq(s->srq, &attr), 0);
    T_ASSERT(attr.max_sge < POST_SGE);
    wr[0] = (struct ibv_recv_wr){.wr_id = 1, .next = &wr[1]};
    wr[1] = (struct ibv_recv_wr){.wr_id = 2, .sg_list = sge, .num_sge = (int)attr.max_sge + 1};
    T_IN(ibv_post_srq_recv(s->srq, wr, &bad), EINVAL, ENOMEM);
    T_ASSERT(bad == &wr[1]);
    side_close(s, true);
}

T_TEST(srq, queue_pair_has_no_queue_of_its_own)
{
    /* ibv_post_recv on a queue pair with an SRQ is refused (ibv_post_recv(3)). */
    struct side *s = side_open(&with_srq, NULL);
    struct ibv_recv_wr wr = {.wr_id = 1}, *bad = NULL;

    side_connect(s, 0, &s->info, 0);
    T_EQ(ibv_post_recv(s->qp[0], &wr, &bad), EINVAL);
    T_ASSERT(bad == &wr);
    side_close(s, true);
}

T_TEST(srq, not_for_unreliable_connections)
{
    /* UC with an SRQ is refused (ibv_create_qp(3), NOTES). */
    struct side *s = plain_side();
    struct side_opt opt = side_options(&(struct side_opt){.type = IBV_QPT_UC, .use_srq = true});

    errno = 0;
    T_ASSERT(side_create_qp(s, &opt) == NULL);
    T_IN(errno, EINVAL, EOPNOTSUPP);
    side_close(s, true);
}

/* --- the end of a queue pair
 * ------------------------------------------------------------------------ */

T_CONTRACT(srq, last_wqe_reached)
{
    /*
     * A queue pair that goes to error takes nothing more from the shared queue, and says so by the
     * event "last WQE reached" (IBTA 11.6.3.1); the others go on.
     */
    struct pair *p = pair_open(topology, &with_srq);

    e_recv_many(p->b, 0, 0, 3, p->rx, 64);
    T_EQ(e_to_state(p->b, 0, IBV_QPS_ERR), 0);
    e_event(p->b, IBV_EVENT_QP_LAST_WQE_REACHED, 0);
    /* The shared receives are not flushed: they belong to no queue pair yet. */
    e_none(p->b, RECV_CQ);
    e_send(p->a, &(struct post){.q = 1, .id = 1, .op = IBV_WR_SEND, .len = 4});
    e_done(p->a, 1, IBV_WC_SEND);
    e_got(p->b, 0, IBV_WC_RECV, 4);
    pair_close(p);
}

T_CONTRACT(srq, error_takes_one_receive_only)
{
    /* A message too long for its receive spoils that one; the queue and the other pairs go on. */
    struct pair *p = pair_open(topology, &with_srq);

    e_recv_many(p->b, 0, 0, 2, p->rx, 16);
    e_send(p->a, &(struct post){.q = 0, .id = 1, .op = IBV_WR_SEND, .len = 17});
    e_expect(p->a, SEND_CQ, 1, IBV_WC_REM_INV_REQ_ERR);
    e_expect(p->b, RECV_CQ, 0, IBV_WC_LOC_LEN_ERR);
    e_wait_state(p->b, 0, IBV_QPS_ERR);
    e_event(p->b, IBV_EVENT_QP_LAST_WQE_REACHED, 0);
    e_send(p->a, &(struct post){.q = 2, .id = 2, .op = IBV_WR_SEND, .len = 16});
    e_done(p->a, 2, IBV_WC_SEND);
    e_got(p->b, 1, IBV_WC_RECV, 16);
    e_same(p->b, p->rx + 16, 16, p->a, 0);
    e_untouched(p->b, p->rx + 16 + 16, 100);
    pair_close(p);
}
