/* SPDX-License-Identifier: MIT */
/* Completion queues: sizes, polling, resizing with entries inside, overrun, destroying. */
#include "ends.h"

#include <pthread.h>

static struct side *self_side(const struct side_opt *opt)
{
    struct side *s = side_open(opt, NULL);

    for (int q = 0; q < SIDE_QPS && s->qp[q]; q++) {
        side_connect(s, q, &s->info, q);
    }
    return s;
}

/* Empty RDMA writes to itself: the cheapest way to a completion. */
static void make_completions(struct side *s, uint64_t first_id, int count)
{
    for (int i = 0; i < count; i++) {
        struct ibv_send_wr *bad, wr = {.wr_id = first_id + (uint64_t)i,
                                       .opcode = IBV_WR_RDMA_WRITE,
                                       .send_flags = IBV_SEND_SIGNALED};

        T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
    }
}

static void take_ids(struct side *s, uint64_t first_id, int count)
{
    for (int i = 0; i < count; i++) {
        struct ibv_wc wc = cq_wait(s->send_cq);

        T_EQ(wc.status, IBV_WC_SUCCESS);
        T_EQ(wc.wr_id, first_id + (uint64_t)i);
    }
}

T_TEST(cq, has_the_size_asked_for)
{
    /* cq->cqe is at least what was asked for, and that many completions fit without a loss. */
    static const int sizes[] = {1, 2, 3, 7, 16, 100, 255, 1000};

    for (int i = 0; i < 8; i++) {
        struct side *s = self_side(&(struct side_opt){.cqe = sizes[i], .send_wr = 1000});

        T_ASSERT(s->send_cq->cqe >= sizes[i]);
        make_completions(s, 10, sizes[i]);
        take_ids(s, 10, sizes[i]);
        make_completions(s, 20, sizes[i]);
        take_ids(s, 20, sizes[i]);
        side_close(s, true);
    }
}

T_TEST(cq, bad_sizes_and_vectors)
{
    /* A negative size and a completion vector that does not exist are EINVAL. */
    struct ibv_context *ctx = device_open();

    errno = 0;
    T_ASSERT(ibv_create_cq(ctx, -1, NULL, NULL, 0) == NULL);
    T_IN(errno, EINVAL, ENOMEM);
    errno = 0;
    T_ASSERT(ibv_create_cq(ctx, 10, NULL, NULL, -1) == NULL);
    T_EQ(errno, EINVAL);
    errno = 0;
    T_ASSERT(ibv_create_cq(ctx, 10, NULL, NULL, ctx->num_comp_vectors) == NULL);
    T_EQ(errno, EINVAL);
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(cq, every_vector)
{
    /* Every completion vector that the context announces can be used, with and without a channel.
     */
    struct ibv_context *ctx = device_open();
    struct ibv_comp_channel *channel = ibv_create_comp_channel(ctx);

    T_ASSERT(channel != NULL);
    for (int i = 0; i < ctx->num_comp_vectors; i++) {
        struct ibv_cq *cq = ibv_create_cq(ctx, 10, NULL, channel, i);

        T_ASSERT(cq != NULL, "vector %d: %s", i, strerror(errno));
        T_EQ(ibv_req_notify_cq(cq, 0), 0);
        T_EQ(ibv_destroy_cq(cq), 0);
    }
    T_EQ(ibv_destroy_comp_channel(channel), 0);
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(cq, keeps_its_context)
{
    /* The queue names its context, its channel, and the pointer that the program gave. */
    struct ibv_context *ctx = device_open();
    struct ibv_comp_channel *channel = ibv_create_comp_channel(ctx);
    int mine;
    struct ibv_cq *cq = ibv_create_cq(ctx, 10, &mine, channel, 0);

    T_ASSERT(cq != NULL);
    T_ASSERT(cq->context == ctx && cq->channel == channel && cq->cq_context == &mine);
    T_EQ(ibv_destroy_cq(cq), 0);
    T_EQ(ibv_destroy_comp_channel(channel), 0);
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(cq, poll_takes_as_many_as_asked)
{
    /* ibv_poll_cq gives at most num_entries, in order, each once; 0 entries are 0. */
    struct side *s = self_side(NULL);
    struct ibv_wc wc[16];
    int got = 0, n;

    T_EQ(ibv_poll_cq(s->send_cq, 1, wc), 0);
    make_completions(s, 0, 10);
    /* The tenth being there proves that all are: one queue pair completes in order. */
    T_EQ(ibv_poll_cq(s->send_cq, 0, wc), 0);
    T_UNTIL((got += n = ibv_poll_cq(s->send_cq, 3, wc + got)) >= 9 && n <= 3, WAIT_MS);
    while (got < 10) {
        wc[got++] = cq_wait(s->send_cq);
    }
    T_EQ(ibv_poll_cq(s->send_cq, 1, wc + 10), 0);
    for (uint64_t i = 0; i < 10; i++) {
        T_EQ(wc[i].wr_id, i);
        T_EQ(wc[i].status, IBV_WC_SUCCESS);
        T_EQ(wc[i].opcode, IBV_WC_RDMA_WRITE);
        T_EQ(wc[i].qp_num, s->qp[0]->qp_num);
    }
    side_close(s, true);
}

T_TEST(cq, one_queue_for_both_directions)
{
    /* One CQ may serve both queues of a queue pair; requests and receives are told apart. */
    struct side *s = self_side(&(struct side_opt){.one_cq = true});
    struct ibv_recv_wr *bad_recv, recv = {.wr_id = 1};
    struct ibv_send_wr *bad,
        send = {.wr_id = 2, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    int sends = 0, receives = 0;

    T_EQ(ibv_post_recv(s->qp[0], &recv, &bad_recv), 0);
    T_EQ(ibv_post_send(s->qp[0], &send, &bad), 0);
    for (int i = 0; i < 2; i++) {
        struct ibv_wc wc = cq_wait(s->send_cq);

        T_EQ(wc.status, IBV_WC_SUCCESS);
        sends += wc.wr_id == 2 && wc.opcode == IBV_WC_SEND;
        receives += wc.wr_id == 1 && wc.opcode == IBV_WC_RECV;
    }
    T_EQ(sends, 1);
    T_EQ(receives, 1);
    side_close(s, true);
}

/* --- resizing
 * -------------------------------------------------------------------------------------- */

T_TEST(cq_resize, grows_with_entries_inside)
{
    /* Entries survive growing, in order, and the new room is real. */
    struct side *s = self_side(&(struct side_opt){.cqe = 16, .send_wr = 200});

    make_completions(s, 0, 10);
    T_EQ(ibv_resize_cq(s->send_cq, 150), 0);
    T_ASSERT(s->send_cq->cqe >= 150);
    make_completions(s, 10, 130);
    take_ids(s, 0, 140);
    side_close(s, true);
}

T_TEST(cq_resize, shrinks_with_entries_inside)
{
    /* Shrinking to what is inside keeps it; the queue need not become smaller (ibv_resize_cq(3)).
     */
    struct side *s = self_side(&(struct side_opt){.cqe = 256, .send_wr = 64});

    make_completions(s, 0, 20);
    /* All twenty are inside once one can wait for the last: a loop-back write completes in order.
     */
    take_ids(s, 0, 10);
    T_EQ(ibv_resize_cq(s->send_cq, 20), 0);
    T_ASSERT(s->send_cq->cqe >= 20);
    take_ids(s, 10, 10);
    make_completions(s, 20, 15);
    take_ids(s, 20, 15);
    side_close(s, true);
}

T_TEST(cq_resize, wraps_correctly)
{
    /* Resizing while the ring has wrapped round keeps order. */
    struct side *s = self_side(&(struct side_opt){.cqe = 7, .send_wr = 64});
    uint64_t next = 0;

    for (int round = 0; round < 12; round++) {
        make_completions(s, next, 5);
        take_ids(s, next, 3);
        T_EQ(ibv_resize_cq(s->send_cq, 7 + round * 3), 0);
        take_ids(s, next + 3, 2);
        next += 5;
    }
    side_close(s, true);
}

T_TEST(cq_resize, bad_sizes)
{
    /* A size beyond max_cqe, negative, or below what is inside is refused; the queue stays as it
     * was. */
    struct side *s = self_side(&(struct side_opt){.cqe = 64});
    struct ibv_device_attr attr;
    int before = s->send_cq->cqe, rc;

    T_EQ(ibv_query_device(s->ctx, &attr), 0);
    T_IN(ibv_resize_cq(s->send_cq, attr.max_cqe + 1), EINVAL, ENOMEM);
    T_IN(ibv_resize_cq(s->send_cq, -1), EINVAL, ENOMEM);
    T_EQ(s->send_cq->cqe, before);
    make_completions(s, 0, 30);
    take_ids(s, 0, 10);
    /* "Must be at least the number of unpolled entries": refused, or it stays large enough. */
    rc = ibv_resize_cq(s->send_cq, 1);
    T_IN(rc, 0, EINVAL);
    T_ASSERT(s->send_cq->cqe >= 20);
    take_ids(s, 10, 20);
    side_close(s, true);
}

/* --- overrun
 * --------------------------------------------------------------------------------------- */

T_TEST(cq, overrun)
{
    /*
     * More completions than entries: IBV_EVENT_CQ_ERR on this queue (ibv_poll_cq(3)).
     * The program does not hang or crash, and everything can be destroyed.
     */
    struct side *s = self_side(&(struct side_opt){.cqe = 4, .send_wr = 1000});
    struct ibv_wc wc;
    int count = s->send_cq->cqe + 20, got = 0;

    T_ASSERT(count < 900);
    make_completions(s, 0, count);
    side_wait_event(s, IBV_EVENT_CQ_ERR, s->send_cq);
    /* What is left in the queue is not specified, but there is an end to it. */
    while (ibv_poll_cq(s->send_cq, 1, &wc) > 0) {
        T_ASSERT(++got <= count);
    }
    side_close(s, false);
    t_end();
}

T_CONTRACT(cq, overrun_by_receives)
{
    /* The same when it is the other side's messages that overrun the receive CQ. */
    struct side_opt b = {.cqe = 4, .recv_wr = 600};
    struct pair *p = pair_open2(topology, &(struct side_opt){.cqe = 1000, .send_wr = 600}, &b);
    struct ibv_wc wc[64];
    int count = p->b->info.cqe + 20, got = 0, n;
    bool event;

    T_ASSERT(count < 500);
    e_recv_many(p->b, 0, 0, count, 0, 0);
    for (int i = 0; i < count; i++) {
        e_send(p->a, &(struct post){.id = (uint64_t)i, .op = IBV_WR_SEND});
    }
    /* A device may notice when the entry is written or when the queue is next looked at. */
    event = e_has_event(p->b, IBV_EVENT_CQ_ERR, -1, EVENT_MS / 2);
    while ((n = e_poll(p->b, RECV_CQ, 16, wc)) > 0) {
        got += n;
        T_ASSERT(got <= count);
    }
    T_ASSERT(event || e_has_event(p->b, IBV_EVENT_CQ_ERR, -1, EVENT_MS), "no CQ_ERR, %d of %d read",
             got, count);
    pair_close_loose(p);
}

T_TEST(cq, destroyed_with_entries_unread)
{
    /* Unread completions do not keep a queue alive, nor do they appear elsewhere. */
    struct side *s = self_side(NULL);
    struct ibv_cq *fresh;
    struct ibv_wc wc;

    make_completions(s, 0, 5);
    T_EQ(ibv_destroy_qp(s->qp[0]), 0);
    s->qp[0] = NULL;
    T_EQ(ibv_destroy_cq(s->send_cq), 0);
    fresh = ibv_create_cq(s->ctx, 64, NULL, NULL, 0);
    T_ASSERT(fresh != NULL);
    s->send_cq = fresh;
    T_EQ(ibv_poll_cq(fresh, 1, &wc), 0);
    side_close(s, true);
}

T_TEST(cq, completions_of_a_destroyed_queue_pair)
{
    /*
     * Destroying a queue pair may drop its unread completions or leave them (IBTA 10.2.4.4): those
     * that are left are the oldest ones, in order, and other queue pairs' completions are all
     * there.
     */
    struct side *s = self_side(&(struct side_opt){.qps = 2});
    struct ibv_send_wr *bad,
        wr = {.wr_id = 100, .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED};
    uint32_t gone = s->qp[0]->qp_num;
    uint64_t expected = 0;
    struct ibv_wc wc;

    make_completions(s, 0, 5);
    T_EQ(ibv_post_send(s->qp[1], &wr, &bad), 0);
    T_EQ(ibv_destroy_qp(s->qp[0]), 0);
    s->qp[0] = NULL;
    do {
        wc = cq_wait(s->send_cq);
        T_EQ(wc.status, IBV_WC_SUCCESS);
        if (wc.wr_id != 100) {
            T_EQ(wc.wr_id, expected++);
            T_EQ(wc.qp_num, gone);
        }
    } while (wc.wr_id != 100);
    side_close(s, false);
    t_end();
}

/* --- threads
 * --------------------------------------------------------------------------------------- */

enum { POLLERS = 3, ENTRIES = 600 };

struct poller {
    struct ibv_cq *cq;
    int *seen; /* by wr_id, shared */
    int *total;
};

static void *poll_thread(void *arg)
{
    struct poller *poller = arg;
    int64_t deadline = t_deadline(WAIT_MS);
    struct ibv_wc wc[4];

    while (__atomic_load_n(poller->total, __ATOMIC_RELAXED) < ENTRIES && !t_expired(deadline)) {
        int got = ibv_poll_cq(poller->cq, 4, wc);

        for (int i = 0; i < got; i++) {
            __atomic_fetch_add(&poller->seen[wc[i].wr_id], 1, __ATOMIC_RELAXED);
        }
        if (got > 0) {
            __atomic_fetch_add(poller->total, got, __ATOMIC_RELAXED);
        } else {
            t_relax();
        }
    }
    return NULL;
}

T_TEST(cq, polled_by_several_threads)
{
    /* Verbs are safe to call from any thread: each completion goes to exactly one poller. */
    struct side *s = self_side(&(struct side_opt){.cqe = ENTRIES, .send_wr = ENTRIES});
    static int seen[ENTRIES];
    int total = 0;
    struct poller poller = {s->send_cq, seen, &total};
    pthread_t thread[POLLERS];

    memset(seen, 0, sizeof(seen));
    for (int i = 0; i < POLLERS; i++) {
        T_EQ(pthread_create(&thread[i], NULL, poll_thread, &poller), 0);
    }
    make_completions(s, 0, ENTRIES);
    for (int i = 0; i < POLLERS; i++) {
        T_EQ(pthread_join(thread[i], NULL), 0);
    }
    for (int i = 0; i < ENTRIES; i++) {
        T_ASSERT(seen[i] == 1, "completion %d was seen %d times", i, seen[i]);
    }
    side_close(s, true);
}
