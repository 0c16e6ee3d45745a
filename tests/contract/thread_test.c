/* SPDX-License-Identifier: MIT */
/* Verbs may be called from any thread at any time: several threads on one object, at once. */
#include "side.h"

#include <pthread.h>

enum { THREADS = 3, EACH = 300 };

struct worker {
    struct side *s;
    int number, failed;
    pthread_t thread;
};

static void run_all(struct side *s, void *(*fn)(void *))
{
    struct worker worker[THREADS];

    for (int i = 0; i < THREADS; i++) {
        worker[i] = (struct worker){.s = s, .number = i};
        T_EQ(pthread_create(&worker[i].thread, NULL, fn, &worker[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        T_EQ(pthread_join(worker[i].thread, NULL), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        T_CHECK(worker[i].failed == 0, "thread %d: %d calls failed", i, worker[i].failed);
    }
}

static struct side *self_side(const struct side_opt *opt)
{
    struct side *s = side_open(opt, NULL);

    for (int q = 0; q < SIDE_QPS && s->qp[q]; q++) {
        side_connect(s, q, &s->info, q);
    }
    return s;
}

/* Each thread fetches and adds to the same word, by requests on the same queue pair. */
static void *post_atomics(void *arg)
{
    struct worker *worker = arg;
    struct side *s = worker->s;

    for (int i = 0; i < EACH; i++) {
        struct ibv_sge sge = {s->info.addr + 4096 + (uint64_t)worker->number * 8, 8, s->info.lkey};
        struct ibv_send_wr *bad,
            wr = {
                .wr_id = (uint64_t)worker->number,
                .sg_list = &sge,
                .num_sge = 1,
                .opcode = IBV_WR_ATOMIC_FETCH_AND_ADD,
                .send_flags = IBV_SEND_SIGNALED,
                .wr.atomic = {.remote_addr = s->info.addr, .rkey = s->info.rkey, .compare_add = 1},
            };

        worker->failed += ibv_post_send(s->qp[0], &wr, &bad) != 0;
    }
    return NULL;
}

T_TEST(threads, post_to_one_queue_pair)
{
    /* Requests of several threads are all taken, carried out once, and completed once each. */
    struct side *s =
        self_side(&(struct side_opt){.send_wr = THREADS * EACH, .cqe = THREADS * EACH});
    int count[THREADS] = {0};
    uint64_t *word = (uint64_t *)(void *)s->buf;

    *word = 0;
    run_all(s, post_atomics);
    for (int i = 0; i < THREADS * EACH; i++) {
        struct ibv_wc wc = cq_wait(s->send_cq);

        T_EQ(wc.status, IBV_WC_SUCCESS);
        T_ASSERT(wc.wr_id < THREADS);
        count[wc.wr_id]++;
    }
    for (int i = 0; i < THREADS; i++) {
        T_EQ(count[i], EACH);
    }
    T_EQ(*word, THREADS * EACH);
    side_close(s, true);
}

static void *post_receives(void *arg)
{
    struct worker *worker = arg;

    for (int i = 0; i < EACH; i++) {
        struct ibv_recv_wr *bad, wr = {.wr_id = (uint64_t)(worker->number * EACH + i)};

        worker->failed += ibv_post_srq_recv(worker->s->srq, &wr, &bad) != 0;
    }
    return NULL;
}

T_TEST(threads, post_to_one_shared_receive_queue)
{
    /* Receives of several threads are all taken; each serves one message; a thread's own in order.
     */
    struct side *s = self_side(&(struct side_opt){.use_srq = true,
                                                  .srq_wr = THREADS * EACH,
                                                  .send_wr = THREADS * EACH,
                                                  .cqe = THREADS * EACH});
    uint64_t next[THREADS] = {0};

    run_all(s, post_receives);
    for (int i = 0; i < THREADS * EACH; i++) {
        struct ibv_send_wr *bad, wr = {.opcode = IBV_WR_SEND};

        T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
    }
    for (int i = 0; i < THREADS * EACH; i++) {
        struct ibv_wc wc = cq_wait(s->recv_cq);

        T_EQ(wc.status, IBV_WC_SUCCESS);
        T_EQ(wc.wr_id % EACH, next[wc.wr_id / EACH]);
        next[wc.wr_id / EACH]++;
    }
    side_close(s, true);
}

/* Makes and destroys one of everything, over and over. */
static void *make_and_destroy(void *arg)
{
    struct worker *worker = arg;
    struct side *s = worker->s;

    for (int i = 0; i < EACH / 3; i++) {
        struct ibv_qp_init_attr init = {.cap = {4, 4, 1, 1, 0}, .qp_type = IBV_QPT_RC};
        struct ibv_pd *pd = ibv_alloc_pd(s->ctx);
        struct ibv_cq *cq = ibv_create_cq(s->ctx, 8, NULL, NULL, 0);
        struct ibv_mr *mr = pd ? ibv_reg_mr(pd, s->buf, 4096, ACCESS_ALL) : NULL;
        struct ibv_ah_attr ah_attr = side_ah_attr(&s->info);
        struct ibv_ah *ah = pd ? ibv_create_ah(pd, &ah_attr) : NULL;
        struct ibv_qp_attr attr;
        struct ibv_qp *qp;
        int mask = side_init_attr(s, &attr);

        init.send_cq = init.recv_cq = cq;
        qp = pd && cq ? ibv_create_qp(pd, &init) : NULL;
        worker->failed += !mr || !ah || !qp || ibv_modify_qp(qp, &attr, mask) != 0;
        worker->failed += (qp && ibv_destroy_qp(qp)) + (ah && ibv_destroy_ah(ah)) +
                          (mr && ibv_dereg_mr(mr)) + (cq && ibv_destroy_cq(cq)) +
                          (pd && ibv_dealloc_pd(pd));
    }
    return NULL;
}

T_TEST(threads, make_and_destroy)
{
    /* Objects are made and destroyed by several threads of one context at once. */
    struct side *s = self_side(NULL);

    run_all(s, make_and_destroy);
    T_EQ(qp_state(s->qp[0]), IBV_QPS_RTS);
    side_close(s, true);
}

/* Opens the device, uses it, and closes it, over and over. */
static void *open_and_close(void *arg)
{
    struct worker *worker = arg;

    for (int i = 0; i < 20; i++) {
        struct ibv_context *ctx = ibv_open_device(worker->s->ctx->device);
        struct ibv_port_attr port;
        struct ibv_pd *pd = ctx ? ibv_alloc_pd(ctx) : NULL;

        worker->failed += !pd || ibv_query_port(ctx, 1, &port) != 0 || ibv_dealloc_pd(pd) != 0;
        worker->failed += ctx && ibv_close_device(ctx) != 0;
    }
    return NULL;
}

T_TEST(threads, open_and_close)
{
    /* Contexts are opened and closed by several threads while another one is in use. */
    struct side *s = self_side(NULL);

    run_all(s, open_and_close);
    T_EQ(qp_state(s->qp[0]), IBV_QPS_RTS);
    side_close(s, true);
}

struct flusher {
    struct side *s;
    int stop;
};

static void *post_while_stopping(void *arg)
{
    struct flusher *flusher = arg;
    struct ibv_wc wc;

    while (!__atomic_load_n(&flusher->stop, __ATOMIC_ACQUIRE)) {
        struct ibv_send_wr *bad,
            wr = {.opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED};

        ibv_post_send(flusher->s->qp[0], &wr, &bad);
        ibv_poll_cq(flusher->s->send_cq, 1, &wc);
    }
    return NULL;
}

T_TEST(threads, modify_under_load)
{
    /* A queue pair is put into error, reset and connected again while another thread posts to it.
     */
    struct side *s = self_side(NULL);
    struct flusher flusher = {.s = s};
    pthread_t thread;

    T_EQ(pthread_create(&thread, NULL, post_while_stopping, &flusher), 0);
    for (int i = 0; i < 100; i++) {
        T_CHECK_EQ(qp_to_state(s->qp[0], IBV_QPS_ERR), 0);
        T_CHECK_EQ(qp_to_state(s->qp[0], IBV_QPS_RESET), 0);
        side_connect(s, 0, &s->info, 0);
    }
    __atomic_store_n(&flusher.stop, 1, __ATOMIC_RELEASE);
    T_EQ(pthread_join(thread, NULL), 0);
    T_EQ(qp_state(s->qp[0]), IBV_QPS_RTS);
    side_close(s, false);
    t_end();
}
