/* SPDX-License-Identifier: MIT */
/* The ibv_wr_* calls: every builder and setter, lists, inline data, batches, aborting, mistakes. */
#include "ends.h"
#include "keys.h"

#include <arpa/inet.h>

enum {
    CONNECTED_OPS = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM |
                    IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM | IBV_QP_EX_WITH_RDMA_READ |
                    IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD |
                    IBV_QP_EX_WITH_LOCAL_INV | IBV_QP_EX_WITH_BIND_MW |
                    IBV_QP_EX_WITH_SEND_WITH_INV,
    DATAGRAM_OPS = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM,
};

static const struct side_opt connected = {
    .send_ops = CONNECTED_OPS,
    .inline_size = 64,
    .mr_access = ACCESS_ALL | IBV_ACCESS_MW_BIND,
};

static const struct side_opt datagram = {
    .type = IBV_QPT_UD,
    .send_ops = DATAGRAM_OPS,
    .inline_size = 64,
};

/* What a builder needs; each test's function runs at an end with this as its argument. */
struct task {
    struct side_info to;
    uint64_t rx;
    uint32_t key;
    int rc;
};

static struct ibv_qp_ex *begin(struct side *s, uint64_t id)
{
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(s->qp[0]);

    T_ASSERT(qp != NULL, "no ibv_qp_ex");
    ibv_wr_start(qp);
    qp->wr_id = id;
    qp->wr_flags = IBV_SEND_SIGNALED;
    return qp;
}

static struct task run(struct pair *p, end_fn *fn)
{
    struct task task = {.to = p->b->info, .rx = p->rx};

    e_run(p->a, fn, &task, sizeof(task));
    return task;
}

/* --- builders
 * -------------------------------------------------------------------------------------- */

static void build_send(struct side *s, void *arg)
{
    struct ibv_qp_ex *qp = begin(s, 1);

    ibv_wr_send(qp);
    ibv_wr_set_sge(qp, s->info.lkey, s->info.addr + 5, 100);
    ((struct task *)arg)->rc = ibv_wr_complete(qp);
}

T_CONTRACT_SELF(wr, send)
{
    /* ibv_wr_send with one element. */
    struct pair *p = pair_open(topology, &connected);

    e_recv(p->b, &(struct post){.id = 9, .off = p->rx, .len = 128});
    T_EQ(run(p, build_send).rc, 0);
    e_done(p->a, 1, IBV_WC_SEND);
    e_got(p->b, 9, IBV_WC_RECV, 100);
    e_same(p->b, p->rx, 100, p->a, 5);
    pair_close(p);
}

static void build_send_imm(struct side *s, void *arg)
{
    struct ibv_qp_ex *qp = begin(s, 1);

    ibv_wr_send_imm(qp, htonl(0x01020304));
    ibv_wr_set_sge(qp, s->info.lkey, s->info.addr, 10);
    ((struct task *)arg)->rc = ibv_wr_complete(qp);
}

T_CONTRACT(wr, send_imm)
{
    /* ibv_wr_send_imm: immediate data in network order. */
    struct pair *p = pair_open(topology, &connected);
    struct ibv_wc wc;

    e_recv(p->b, &(struct post){.id = 9, .off = p->rx, .len = 128});
    T_EQ(run(p, build_send_imm).rc, 0);
    e_done(p->a, 1, IBV_WC_SEND);
    wc = e_got(p->b, 9, IBV_WC_RECV, 10);
    T_ASSERT(wc.wc_flags & IBV_WC_WITH_IMM);
    T_EQ(ntohl(wc.imm_data), 0x01020304);
    pair_close(p);
}

static void build_write(struct side *s, void *arg)
{
    struct task *task = arg;
    struct ibv_qp_ex *qp = begin(s, 1);

    ibv_wr_rdma_write(qp, task->to.rkey, task->to.addr + task->rx);
    ibv_wr_set_sge(qp, s->info.lkey, s->info.addr, 1000);
    task->rc = ibv_wr_complete(qp);
}

T_CONTRACT_SELF(wr, rdma_write)
{
    /* ibv_wr_rdma_write. */
    struct pair *p = pair_open(topology, &connected);

    T_EQ(run(p, build_write).rc, 0);
    e_done(p->a, 1, IBV_WC_RDMA_WRITE);
    e_same(p->b, p->rx, 1000, p->a, 0);
    e_untouched_but(p->b, p->rx, 1000);
    pair_close(p);
}

static void build_write_imm(struct side *s, void *arg)
{
    struct task *task = arg;
    struct ibv_qp_ex *qp = begin(s, 1);

    ibv_wr_rdma_write_imm(qp, task->to.rkey, task->to.addr + task->rx, htonl(77));
    ibv_wr_set_sge(qp, s->info.lkey, s->info.addr, 20);
    task->rc = ibv_wr_complete(qp);
}

T_CONTRACT(wr, rdma_write_imm)
{
    /* ibv_wr_rdma_write_imm. */
    struct pair *p = pair_open(topology, &connected);

    e_recv(p->b, &(struct post){.id = 9});
    T_EQ(run(p, build_write_imm).rc, 0);
    e_done(p->a, 1, IBV_WC_RDMA_WRITE);
    T_EQ(ntohl(e_got(p->b, 9, IBV_WC_RECV_RDMA_WITH_IMM, 20).imm_data), 77);
    e_same(p->b, p->rx, 20, p->a, 0);
    pair_close(p);
}

static void build_read(struct side *s, void *arg)
{
    struct task *task = arg;
    struct ibv_qp_ex *qp = begin(s, 1);

    ibv_wr_rdma_read(qp, task->to.rkey, task->to.addr + 8);
    ibv_wr_set_sge(qp, s->info.lkey, s->info.addr + task->rx, 300);
    task->rc = ibv_wr_complete(qp);
}

T_CONTRACT_SELF(wr, rdma_read)
{
    /* ibv_wr_rdma_read. */
    struct pair *p = pair_open(topology, &connected);

    T_EQ(run(p, build_read).rc, 0);
    e_done(p->a, 1, IBV_WC_RDMA_READ);
    e_same(p->a, p->rx, 300, p->b, 8);
    pair_close(p);
}

static void build_atomics(struct side *s, void *arg)
{
    struct task *task = arg;
    struct ibv_qp_ex *qp = begin(s, 1);

    ibv_wr_atomic_fetch_add(qp, task->to.rkey, task->to.addr, 5);
    ibv_wr_set_sge(qp, s->info.lkey, s->info.addr + task->rx, 8);
    qp->wr_id = 2;
    ibv_wr_atomic_cmp_swp(qp, task->to.rkey, task->to.addr, 105, 900);
    ibv_wr_set_sge(qp, s->info.lkey, s->info.addr + task->rx + 8, 8);
    task->rc = ibv_wr_complete(qp);
}

T_CONTRACT(wr, atomics)
{
    /* ibv_wr_atomic_fetch_add and ibv_wr_atomic_cmp_swp in one batch, in order. */
    struct pair *p = pair_open(topology, &connected);
    uint64_t word = 100, got[2];

    e_poke(p->b, 0, &word, sizeof(word));
    T_EQ(run(p, build_atomics).rc, 0);
    e_done(p->a, 1, IBV_WC_FETCH_ADD);
    e_done(p->a, 2, IBV_WC_COMP_SWAP);
    e_peek(p->a, p->rx, got, sizeof(got));
    T_EQ(got[0], 100);
    T_EQ(got[1], 105);
    e_peek(p->b, 0, &word, sizeof(word));
    T_EQ(word, 900);
    pair_close(p);
}

static void build_bind(struct side *s, void *arg)
{
    struct task *task = arg;
    struct ibv_mw *mw = s->mw[0];
    struct ibv_mw_bind_info info = {.mr = s->mr,
                                    .addr = s->info.addr + task->rx,
                                    .length = 64,
                                    .mw_access_flags = ACCESS_REMOTE};
    struct ibv_qp_ex *qp = begin(s, 1);

    task->key = ibv_inc_rkey(mw->rkey);
    ibv_wr_bind_mw(qp, mw, task->key, &info);
    task->rc = ibv_wr_complete(qp);
}

static void build_send_inv(struct side *s, void *arg)
{
    struct task *task = arg;
    struct ibv_qp_ex *qp = begin(s, 2);

    ibv_wr_send_inv(qp, task->key);
    ibv_wr_set_sge(qp, s->info.lkey, s->info.addr, 16);
    task->rc = ibv_wr_complete(qp);
}

static void build_local_inv(struct side *s, void *arg)
{
    struct task *task = arg;
    struct ibv_qp_ex *qp = begin(s, 3);

    ibv_wr_local_inv(qp, task->key);
    task->rc = ibv_wr_complete(qp);
}

T_CONTRACT(wr, bind_and_send_inv)
{
    /* ibv_wr_bind_mw opens a window, ibv_wr_send_inv of the other side closes it. */
    struct pair *p = pair_open(topology, &connected);
    struct task task = {.rx = p->rx};
    struct ibv_wc wc;

    e_mw(p->b, 0, IBV_MW_TYPE_2);
    e_run(p->b, build_bind, &task, sizeof(task));
    T_EQ(task.rc, 0);
    e_done(p->b, 1, IBV_WC_BIND_MW);
    e_send(
        p->a,
        &(struct post){
            .id = 5, .op = IBV_WR_RDMA_WRITE, .len = 64, .roff = (int64_t)p->rx, .rkey = task.key});
    e_done(p->a, 5, IBV_WC_RDMA_WRITE);
    e_recv(p->b, &(struct post){.id = 9, .off = p->rx + 512, .len = 64});
    e_run(p->a, build_send_inv, &task, sizeof(task));
    T_EQ(task.rc, 0);
    e_done(p->a, 2, IBV_WC_SEND);
    wc = e_got(p->b, 9, IBV_WC_RECV, 16);
    T_ASSERT(wc.wc_flags & IBV_WC_WITH_INV);
    T_EQ(wc.invalidated_rkey, task.key);
    pair_close(p);
}

T_CONTRACT(wr, local_inv)
{
    /* ibv_wr_local_inv closes one's own window. */
    struct pair *p = pair_open(topology, &connected);
    struct task task = {.rx = p->rx};

    e_mw(p->b, 0, IBV_MW_TYPE_2);
    e_run(p->b, build_bind, &task, sizeof(task));
    e_done(p->b, 1, IBV_WC_BIND_MW);
    e_run(p->b, build_local_inv, &task, sizeof(task));
    T_EQ(task.rc, 0);
    e_done(p->b, 3, IBV_WC_LOCAL_INV);
    e_send(
        p->a,
        &(struct post){
            .id = 5, .op = IBV_WR_RDMA_WRITE, .len = 64, .roff = (int64_t)p->rx, .rkey = task.key});
    e_expect(p->a, SEND_CQ, 5, IBV_WC_REM_ACCESS_ERR);
    e_untouched_but(p->b, 0, 0);
    pair_close_loose(p);
}

static void build_ud(struct side *s, void *arg)
{
    struct task *task = arg;
    struct ibv_qp_ex *qp = begin(s, 1);

    ibv_wr_send(qp);
    ibv_wr_set_ud_addr(qp, s->ah, task->to.qpn[0], s->opt.qkey);
    ibv_wr_set_sge(qp, s->info.lkey, s->info.addr, 30);
    qp->wr_id = 2;
    ibv_wr_send_imm(qp, htonl(4));
    ibv_wr_set_ud_addr(qp, s->ah, task->to.qpn[0], s->opt.qkey);
    ibv_wr_set_sge(qp, s->info.lkey, s->info.addr + 50, 31);
    task->rc = ibv_wr_complete(qp);
}

T_CONTRACT_SELF(wr, datagrams)
{
    /* ibv_wr_set_ud_addr names the destination of each datagram of a batch. */
    struct pair *p = pair_open(topology, &datagram);

    e_recv_many(p->b, 0, 8, 2, p->rx, 128);
    T_EQ(run(p, build_ud).rc, 0);
    e_done(p->a, 1, IBV_WC_SEND);
    e_done(p->a, 2, IBV_WC_SEND);
    e_got(p->b, 8, IBV_WC_RECV, 70);
    T_EQ(ntohl(e_got(p->b, 9, IBV_WC_RECV, 71).imm_data), 4);
    e_same(p->b, p->rx + 40, 30, p->a, 0);
    e_same(p->b, p->rx + 128 + 40, 31, p->a, 50);
    pair_close(p);
}

/* --- data setters
 * ------------------------------------------------------------------------------------- */

static void build_sge_list(struct side *s, void *arg)
{
    struct task *task = arg;
    struct ibv_sge list[4] = {
        {s->info.addr + 100, 10, s->info.lkey},
        {s->info.addr, 0, s->info.lkey},
        {s->info.addr + 7, 300, s->info.lkey},
        {s->info.addr + 50, 1, s->info.lkey},
    };
    struct ibv_qp_ex *qp = begin(s, 1);

    ibv_wr_rdma_write(qp, task->to.rkey, task->to.addr + task->rx);
    ibv_wr_set_sge_list(qp, 4, list);
    task->rc = ibv_wr_complete(qp);
}

T_CONTRACT(wr, sge_list)
{
    /* ibv_wr_set_sge_list gathers several elements. */
    struct pair *p = pair_open(topology, &connected);

    T_EQ(run(p, build_sge_list).rc, 0);
    e_done(p->a, 1, IBV_WC_RDMA_WRITE);
    e_same(p->b, p->rx, 10, p->a, 100);
    e_same(p->b, p->rx + 10, 300, p->a, 7);
    e_same(p->b, p->rx + 310, 1, p->a, 50);
    e_untouched_but(p->b, p->rx, 311);
    pair_close(p);
}

static void build_inline(struct side *s, void *arg)
{
    char data[40];
    struct ibv_qp_ex *qp = begin(s, 1);

    t_fill(data, 0, sizeof(data), 3);
    ibv_wr_send(qp);
    ibv_wr_set_inline_data(qp, data, sizeof(data));
    memset(data, 0, sizeof(data));
    ((struct task *)arg)->rc = ibv_wr_complete(qp);
}

static void build_inline_list(struct side *s, void *arg)
{
    char one[10], two[20];
    struct ibv_data_buf list[3] = {{one, sizeof(one)}, {one, 0}, {two, sizeof(two)}};
    struct ibv_qp_ex *qp = begin(s, 1);

    t_fill(one, 0, sizeof(one), 3);
    t_fill(two, sizeof(one), sizeof(two), 3);
    ibv_wr_send(qp);
    ibv_wr_set_inline_data_list(qp, 3, list);
    memset(one, 0, sizeof(one));
    memset(two, 0, sizeof(two));
    ((struct task *)arg)->rc = ibv_wr_complete(qp);
}

static void inline_arrives(enum topology topology, end_fn *fn, uint32_t len)
{
    struct pair *p = pair_open(topology, &connected);
    char got[64];

    e_recv(p->b, &(struct post){.id = 9, .off = p->rx, .len = 64});
    T_EQ(run(p, fn).rc, 0);
    e_done(p->a, 1, IBV_WC_SEND);
    e_got(p->b, 9, IBV_WC_RECV, len);
    e_peek(p->b, p->rx, got, len);
    T_EQ(t_compare(got, 0, len, 3), -1);
    pair_close(p);
}

T_CONTRACT(wr, inline_data)
{
    /* ibv_wr_set_inline_data takes the bytes at once. */
    inline_arrives(topology, build_inline, 40);
}

T_CONTRACT(wr, inline_data_list)
{
    /* ibv_wr_set_inline_data_list takes them from several places. */
    inline_arrives(topology, build_inline_list, 30);
}

static void build_empty(struct side *s, void *arg)
{
    struct ibv_qp_ex *qp = begin(s, 1);

    ibv_wr_send(qp);
    ibv_wr_set_sge_list(qp, 0, NULL);
    ((struct task *)arg)->rc = ibv_wr_complete(qp);
}

T_CONTRACT(wr, empty_message)
{
    /* A list of no elements is a message of no bytes. */
    struct pair *p = pair_open(topology, &connected);

    e_recv(p->b, &(struct post){.id = 9, .off = p->rx, .len = 64});
    T_EQ(run(p, build_empty).rc, 0);
    e_done(p->a, 1, IBV_WC_SEND);
    e_got(p->b, 9, IBV_WC_RECV, 0);
    pair_close(p);
}

/* --- batches
 * ------------------------------------------------------------------------------------------- */

static void build_batch(struct side *s, void *arg)
{
    struct task *task = arg;
    struct ibv_qp_ex *qp = begin(s, 0);

    for (uint64_t i = 0; i < 20; i++) {
        qp->wr_id = i;
        qp->wr_flags = i % 5 == 4 ? IBV_SEND_SIGNALED : 0;
        ibv_wr_rdma_write(qp, task->to.rkey, task->to.addr + task->rx + i * 16);
        ibv_wr_set_sge(qp, s->info.lkey, s->info.addr + i * 3, 16);
    }
    task->rc = ibv_wr_complete(qp);
}

T_CONTRACT(wr, batch)
{
    /* Many requests in one region, each with its own id and flags. */
    struct pair *p = pair_open(topology, &connected);

    T_EQ(run(p, build_batch).rc, 0);
    for (uint64_t i = 4; i < 20; i += 5) {
        e_done(p->a, i, IBV_WC_RDMA_WRITE);
    }
    for (uint64_t i = 0; i < 20; i++) {
        e_same(p->b, p->rx + i * 16, 16, p->a, i * 3);
    }
    pair_close(p);
}

static void build_and_abort(struct side *s, void *arg)
{
    struct task *task = arg;
    struct ibv_qp_ex *qp = begin(s, 1);

    for (int i = 0; i < 10; i++) {
        ibv_wr_rdma_write(qp, task->to.rkey, task->to.addr + task->rx);
        ibv_wr_set_sge(qp, s->info.lkey, s->info.addr, 64);
    }
    ibv_wr_abort(qp);
}

T_CONTRACT(wr, abort)
{
    /* What is aborted never happens, leaves no completion and takes no slot. */
    struct pair *p = pair_open(topology, &connected);

    for (int i = 0; i < 50; i++) {
        run(p, build_and_abort);
    }
    e_quiet(p->a, SEND_CQ);
    e_untouched_but(p->b, 0, 0);
    T_EQ(run(p, build_batch).rc, 0);
    for (uint64_t i = 4; i < 20; i += 5) {
        e_done(p->a, i, IBV_WC_RDMA_WRITE);
    }
    pair_close(p);
}

static void build_nothing(struct side *s, void *arg)
{
    ((struct task *)arg)->rc = ibv_wr_complete(begin(s, 1));
}

T_CONTRACT(wr, mixed_with_post_send)
{
    /* Both ways of posting may alternate on one queue pair; an empty region is allowed. */
    struct pair *p = pair_open(topology, &connected);

    T_EQ(run(p, build_nothing).rc, 0);
    e_recv_many(p->b, 0, 50, 3, p->rx, 128);
    T_EQ(run(p, build_send).rc, 0);
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 20});
    T_EQ(run(p, build_send).rc, 0);
    e_done(p->a, 1, IBV_WC_SEND);
    e_done(p->a, 2, IBV_WC_SEND);
    e_done(p->a, 1, IBV_WC_SEND);
    e_got(p->b, 50, IBV_WC_RECV, 100);
    e_got(p->b, 51, IBV_WC_RECV, 20);
    e_got(p->b, 52, IBV_WC_RECV, 100);
    pair_close(p);
}

/* --- mistakes
 * ------------------------------------------------------------------------------------------ */

static void build_too_many(struct side *s, void *arg)
{
    struct task *task = arg;
    struct ibv_qp_ex *qp = begin(s, 1);

    for (uint32_t i = 0; i < 4 * s->info.cap.max_send_wr + 64; i++) {
        ibv_wr_rdma_write(qp, task->to.rkey, task->to.addr + task->rx);
        ibv_wr_set_sge(qp, s->info.lkey, s->info.addr, 8);
    }
    task->rc = ibv_wr_complete(qp);
}

T_CONTRACT(wr, too_many)
{
    /* More than the queue holds: ibv_wr_complete fails, and the whole batch is gone. */
    struct pair *p = pair_open(topology, &connected);

    T_IN(run(p, build_too_many).rc, ENOMEM, ENOSPC);
    e_quiet(p->a, SEND_CQ);
    e_untouched_but(p->b, 0, 0);
    T_EQ(run(p, build_write).rc, 0);
    e_done(p->a, 1, IBV_WC_RDMA_WRITE);
    pair_close(p);
}

static void build_bad_list(struct side *s, void *arg)
{
    struct task *task = arg;
    struct ibv_sge list[POST_SGE] = {{.length = 0}};
    struct ibv_qp_ex *qp = begin(s, 1);

    ibv_wr_rdma_write(qp, task->to.rkey, task->to.addr + task->rx);
    ibv_wr_set_sge(qp, s->info.lkey, s->info.addr, 8);
    ibv_wr_rdma_write(qp, task->to.rkey, task->to.addr + task->rx);
    ibv_wr_set_sge_list(qp, s->info.cap.max_send_sge + 1, list);
    task->rc = ibv_wr_complete(qp);
}

static void build_bad_inline(struct side *s, void *arg)
{
    struct task *task = arg;
    char data[4096] = "";
    struct ibv_qp_ex *qp = begin(s, 1);

    ibv_wr_rdma_write(qp, task->to.rkey, task->to.addr + task->rx);
    ibv_wr_set_inline_data(qp, data, s->info.cap.max_inline_data + 1);
    task->rc = ibv_wr_complete(qp);
}

T_CONTRACT(wr, bad_data)
{
    /* Too many elements, or too much inline data: the whole batch is refused (ibv_wr_post(3)). */
    struct pair *p = pair_open(topology, &connected);

    T_IN(run(p, build_bad_list).rc, EINVAL, ENOMEM, ENOSPC);
    T_IN(run(p, build_bad_inline).rc, EINVAL, ENOMEM, ENOSPC);
    e_quiet(p->a, SEND_CQ);
    e_untouched_but(p->b, 0, 0);
    T_EQ(run(p, build_write).rc, 0);
    e_done(p->a, 1, IBV_WC_RDMA_WRITE);
    pair_close(p);
}

T_TEST(wr_create, operations_of_another_service)
{
    /* Asking for operations that the service type does not have fails at creation. */
    struct side *s = side_open(&(struct side_opt){.qps = ZERO}, NULL);
    struct side_opt opt =
        side_options(&(struct side_opt){.type = IBV_QPT_UD, .send_ops = CONNECTED_OPS});

    errno = 0;
    T_ASSERT(side_create_qp(s, &opt) == NULL);
    T_IN(errno, EINVAL, EOPNOTSUPP);
    opt.type = IBV_QPT_UC;
    opt.send_ops = IBV_QP_EX_WITH_RDMA_READ;
    errno = 0;
    T_ASSERT(side_create_qp(s, &opt) == NULL);
    T_IN(errno, EINVAL, EOPNOTSUPP);
    side_close(s, true);
}
