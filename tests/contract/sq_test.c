/* SPDX-License-Identifier: MIT */
/* The accounts of the queues: when a slot is taken, when it returns, and what bad_wr points to. */
#include "ends.h"

static int post_send_n(struct side *s, int n, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
    for (int i = 0; i < n; i++) {
        wr[i] = (struct ibv_send_wr){
            .wr_id = (uint64_t)i,
            .next = i + 1 < n ? &wr[i + 1] : NULL,
            .opcode = IBV_WR_RDMA_WRITE,
            .send_flags = IBV_SEND_SIGNALED,
        };
    }
    return ibv_post_send(s->qp[0], wr, bad);
}

/* The tests here look at one side only, which talks to itself. */
static struct side *self_side(const struct side_opt *opt)
{
    struct side *s = side_open(opt, NULL);

    for (int q = 0; q < SIDE_QPS && s->qp[q]; q++) {
        side_connect(s, q, &s->info, q);
    }
    return s;
}

static void take_done(struct side *s, uint64_t id)
{
    struct ibv_wc wc = cq_wait(s->send_cq);

    T_EQ(wc.status, IBV_WC_SUCCESS);
    T_EQ(wc.wr_id, id);
}

static struct ibv_send_wr write_wr(uint64_t id, unsigned flags)
{
    return (struct ibv_send_wr){.wr_id = id, .opcode = IBV_WR_RDMA_WRITE, .send_flags = flags};
}

static int post_one(struct side *s, uint64_t id, unsigned flags)
{
    struct ibv_send_wr *bad = NULL, wr = write_wr(id, flags);
    int rc = ibv_post_send(s->qp[0], &wr, &bad);

    T_ASSERT(rc == 0 || bad == &wr);
    return rc;
}

/* Posts until the queue is full, which may be a little later than it said; gives how many it took.
 */
static uint64_t fill_sq(struct side *s, unsigned flags)
{
    uint64_t depth = s->info.cap.max_send_wr, taken = 0;
    int rc;

    while ((rc = post_one(s, taken, flags)) == 0) {
        taken++;
        T_ASSERT(taken <= 4 * depth + 64, "a queue of %llu never gets full",
                 (unsigned long long)depth);
    }
    T_EQ(rc, ENOMEM);
    T_ASSERT(taken >= depth, "only %llu of %llu", (unsigned long long)taken,
             (unsigned long long)depth);
    return taken;
}

T_TEST(sq, holds_what_it_says)
{
    /*
     * max_send_wr requests are taken without a poll; then ENOMEM. The completion being there is not
     * enough for a new one: it must be polled (IBTA 10.8.5: the slot returns with the completion).
     */
    struct side *s = self_side(&(struct side_opt){.send_wr = 8});
    uint64_t taken = fill_sq(s, IBV_SEND_SIGNALED);

    take_done(s, 0);
    T_EQ(post_one(s, taken, IBV_SEND_SIGNALED), 0);
    T_EQ(post_one(s, 999, IBV_SEND_SIGNALED), ENOMEM);
    for (uint64_t i = 1; i <= taken; i++) {
        take_done(s, i);
    }
    side_close(s, true);
}

T_TEST(sq, unsignalled_slots_return_with_the_next_signalled)
{
    /* Unsignalled requests have no completion; their slots return when a later one is polled. */
    struct side *s = self_side(&(struct side_opt){.send_wr = 8});
    uint64_t depth = s->info.cap.max_send_wr;

    for (int round = 0; round < 20; round++) {
        for (uint64_t i = 0; i + 1 < depth; i++) {
            T_EQ(post_one(s, i, 0), 0);
        }
        T_EQ(post_one(s, 77, IBV_SEND_SIGNALED), 0);
        take_done(s, 77);
    }
    side_close(s, true);
}

T_TEST(sq, full_of_unsignalled_is_full)
{
    /* A queue filled with unsignalled requests refuses more: nothing can free their slots. */
    struct side *s = self_side(&(struct side_opt){.send_wr = 8});

    fill_sq(s, 0);
    T_EQ(post_one(s, 1, IBV_SEND_SIGNALED), ENOMEM);
    side_close(s, true);
}

T_TEST(sq, sig_all_signals_all)
{
    /* With sq_sig_all every request completes, flag or not. */
    struct side *s = self_side(&(struct side_opt){.sig_all = true});

    T_EQ(post_one(s, 1, 0), 0);
    T_EQ(post_one(s, 2, IBV_SEND_SIGNALED), 0);
    take_done(s, 1);
    take_done(s, 2);
    side_close(s, true);
}

T_TEST(sq, unsignalled_does_not_complete)
{
    /* Without sq_sig_all only flagged requests complete, in their order. */
    struct side *s = self_side(NULL);

    T_EQ(post_one(s, 1, 0), 0);
    T_EQ(post_one(s, 2, IBV_SEND_SIGNALED), 0);
    T_EQ(post_one(s, 3, 0), 0);
    T_EQ(post_one(s, 4, IBV_SEND_SIGNALED), 0);
    take_done(s, 2);
    take_done(s, 4);
    side_close(s, true);
}

T_TEST(sq, list_is_taken_in_order)
{
    /* A list of requests is posted by one call, and carried out in order. */
    struct side *s = self_side(&(struct side_opt){.send_wr = 16});
    struct ibv_send_wr wr[16], *bad = NULL;

    T_EQ(post_send_n(s, 16, wr, &bad), 0);
    for (uint64_t i = 0; i < 16; i++) {
        take_done(s, i);
    }
    side_close(s, true);
}

T_TEST(sq, list_longer_than_the_queue)
{
    /* The requests that fit are taken, bad_wr names the first that did not, and its call fails. */
    struct side *s = self_side(&(struct side_opt){.send_wr = 8});
    struct ibv_send_wr wr[1024], *bad = NULL;
    int depth = (int)s->info.cap.max_send_wr;

    T_ASSERT(depth < 240);
    T_EQ(post_send_n(s, 4 * depth + 64, wr, &bad), ENOMEM);
    T_ASSERT(bad >= &wr[depth], "bad_wr is number %td", bad - wr);
    for (int i = 0; i < bad - wr; i++) {
        take_done(s, (uint64_t)i);
    }
    side_close(s, true);
}

T_TEST(sq, bad_request_in_the_middle)
{
    /* What stands before a bad request is done, what stands behind it is not posted. */
    struct side *s = self_side(&(struct side_opt){.send_wr = 16});
    struct ibv_send_wr wr[5], *bad = NULL;
    struct ibv_sge sge[POST_SGE] = {{.length = 0}};

    for (int i = 0; i < 5; i++) {
        wr[i] = write_wr((uint64_t)i, IBV_SEND_SIGNALED);
        wr[i].next = i < 4 ? &wr[i + 1] : NULL;
    }
    T_ASSERT(s->info.cap.max_send_sge < POST_SGE && s->info.cap.max_recv_sge < POST_SGE);
    wr[2].sg_list = sge;
    wr[2].num_sge = (int)s->info.cap.max_send_sge + 1;
    T_IN(ibv_post_send(s->qp[0], wr, &bad), EINVAL, ENOMEM);
    T_ASSERT(bad == &wr[2]);
    take_done(s, 0);
    take_done(s, 1);
    /* The queue pair is not hurt. */
    T_EQ(post_one(s, 9, IBV_SEND_SIGNALED), 0);
    take_done(s, 9);
    side_close(s, true);
}

static int try_opcode(struct side *s, enum ibv_wr_opcode op)
{
    struct ibv_send_wr *bad = NULL, wr = {.opcode = op, .send_flags = IBV_SEND_SIGNALED};

    return ibv_post_send(s->qp[0], &wr, &bad);
}

T_TEST(sq, opcode_of_another_service)
{
    /*
     * An operation that the service type does not have (ibv_post_send(3), table) is refused at
     * once, or completes with an error; it is never carried out.
     */
    static const enum ibv_wr_opcode not_uc[] = {IBV_WR_RDMA_READ, IBV_WR_ATOMIC_CMP_AND_SWP,
                                                IBV_WR_ATOMIC_FETCH_AND_ADD};

    for (int i = 0; i < 3; i++) {
        struct side *s = self_side(&(struct side_opt){.type = IBV_QPT_UC});
        int rc = try_opcode(s, not_uc[i]);

        T_IN(rc, 0, EINVAL, EOPNOTSUPP);
        if (rc == 0) {
            T_ASSERT(cq_wait(s->send_cq).status != IBV_WC_SUCCESS);
        }
        side_close(s, true);
    }
}

T_TEST(sq, opcode_that_does_not_exist)
{
    /* A number that is no operation is refused, at once or by an error completion. */
    struct side *s = self_side(NULL);

    int rc = try_opcode(s, (enum ibv_wr_opcode)200);

    T_IN(rc, 0, EINVAL, EOPNOTSUPP);
    if (rc == 0) {
        T_ASSERT(cq_wait(s->send_cq).status != IBV_WC_SUCCESS);
    }
    side_close(s, true);
}

/* --- the receive queue
 * ----------------------------------------------------------------------------- */

static int recv_one(struct side *s, uint64_t id)
{
    struct ibv_recv_wr *bad = NULL, wr = {.wr_id = id};
    int rc = ibv_post_recv(s->qp[0], &wr, &bad);

    T_ASSERT(rc == 0 || bad == &wr);
    return rc;
}

static int send_empty(struct side *s, uint64_t id)
{
    struct ibv_send_wr *bad, wr = {.wr_id = id, .opcode = IBV_WR_SEND};

    return ibv_post_send(s->qp[0], &wr, &bad);
}

T_TEST(rq, holds_what_it_says)
{
    /* max_recv_wr receives are taken, then ENOMEM; one that has completed makes room again. */
    struct side *s = self_side(&(struct side_opt){.recv_wr = 8});
    uint64_t depth = s->info.cap.max_recv_wr, taken = 0;
    int rc;

    while ((rc = recv_one(s, taken)) == 0) {
        taken++;
        T_ASSERT(taken <= 4 * depth + 64);
    }
    T_EQ(rc, ENOMEM);
    T_ASSERT(depth >= 8 && taken >= depth);
    T_EQ(send_empty(s, 1), 0);
    T_EQ(cq_wait(s->recv_cq).wr_id, 0);
    T_EQ(recv_one(s, taken), 0);
    T_EQ(recv_one(s, 999), ENOMEM);
    side_close(s, true);
}

T_TEST(rq, list_and_bad_request)
{
    /* A list of receives: those before the bad one are posted, bad_wr names it. */
    struct side *s = self_side(&(struct side_opt){.recv_wr = 16});
    struct ibv_recv_wr wr[4], *bad = NULL;
    struct ibv_sge sge[POST_SGE] = {{.length = 0}};

    for (int i = 0; i < 4; i++) {
        wr[i] = (struct ibv_recv_wr){.wr_id = (uint64_t)i, .next = i < 3 ? &wr[i + 1] : NULL};
    }
    T_ASSERT(s->info.cap.max_recv_sge < POST_SGE);
    wr[2].sg_list = sge;
    wr[2].num_sge = (int)s->info.cap.max_recv_sge + 1;
    T_IN(ibv_post_recv(s->qp[0], wr, &bad), EINVAL, ENOMEM);
    T_ASSERT(bad == &wr[2]);
    T_EQ(send_empty(s, 1), 0);
    T_EQ(send_empty(s, 1), 0);
    T_EQ(cq_wait(s->recv_cq).wr_id, 0);
    T_EQ(cq_wait(s->recv_cq).wr_id, 1);
    side_close(s, true);
}

T_TEST(rq, wraps_many_times)
{
    /* Many more messages than slots, with the queue never empty nor full: ids come in order. */
    struct side *s = self_side(&(struct side_opt){.recv_wr = 5, .send_wr = 7});
    uint64_t next = 0;

    for (; next < 3; next++) {
        T_EQ(recv_one(s, next), 0);
    }
    for (uint64_t i = 0; i < 500; i++) {
        struct ibv_send_wr *bad,
            wr = {.wr_id = i, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};

        T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
        take_done(s, i);
        T_EQ(cq_wait(s->recv_cq).wr_id, i);
        T_EQ(recv_one(s, next++), 0);
    }
    side_close(s, true);
}

T_TEST(rq, a_queue_pair_may_have_none)
{
    /* A queue pair without receive slots, or without send slots, can be made; its posts say ENOMEM.
     */
    struct side *s = side_open(&(struct side_opt){.qps = ZERO}, NULL);
    struct ibv_qp_init_attr attr = {
        .send_cq = s->send_cq,
        .recv_cq = s->recv_cq,
        .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = 4, .max_send_sge = 1},
    };
    struct ibv_recv_wr *bad, wr = {.wr_id = 1};
    struct ibv_qp *qp = ibv_create_qp(s->pd, &attr);

    T_ASSERT(qp != NULL, "%s", strerror(errno));
    s->qp[0] = qp;
    s->info.qpn[0] = qp->qp_num;
    side_connect(s, 0, &s->info, 0);
    if (attr.cap.max_recv_wr == 0) {
        T_IN(ibv_post_recv(qp, &wr, &bad), ENOMEM, EINVAL);
    }
    T_EQ(post_one(s, 5, IBV_SEND_SIGNALED), 0);
    take_done(s, 5);
    side_close(s, true);
}
