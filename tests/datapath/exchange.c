/* SPDX-License-Identifier: MIT */
/* The operations, and the turns that two ends take with them. */
#include "exchange.h"

#include <time.h>

enum {
    RECEIVES = 8,
    RECEIVE_SIZE = 2048,
    RECEIVE_AT = 32768, /* the half of the buffer that receives land in */
    GIVE_UP_S = 20,
};

const struct side_opt link_options[LINKS] = {
    [LINK_RC] = {.type = IBV_QPT_RC,
                 .cq_ex = true,
                 .wc_flags = IBV_WC_STANDARD_FLAGS,
                 .inline_size = 128,
                 .send_ops = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_WRITE},
    [LINK_SRQ] = {.type = IBV_QPT_RC, .use_srq = true},
    [LINK_UC] = {.type = IBV_QPT_UC},
    [LINK_UD] = {.type = IBV_QPT_UD},
};

static bool wrong(struct exchange *x, int line, int status)
{
    x->failed_line = line;
    x->status = status;
    return false;
}

#define FAIL(x, status) wrong((x), __LINE__, (int)(status))

/* ---- completions ---- */

/* The clock is read without a system call, and seldom. */
static bool too_long(time_t *since, unsigned tries)
{
    struct timespec now;

    if (tries % 1000000)
        return false;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (!*since)
        *since = now.tv_sec;
    return now.tv_sec - *since > GIVE_UP_S;
}

static bool take(struct exchange *x, struct ibv_cq *cq, struct ibv_wc *wc)
{
    time_t since = 0;
    int got = 0;

    for (unsigned tries = 1; got == 0; tries++) {
        got = ibv_poll_cq(cq, 1, wc);
        if (too_long(&since, tries))
            return FAIL(x, 0);
    }
    if (got != 1)
        return FAIL(x, got);
    return wc->status == IBV_WC_SUCCESS || FAIL(x, wc->status);
}

/* The same by the extended calls. */
static bool take_ex(struct exchange *x, struct ibv_cq *cq, enum ibv_wc_opcode *opcode_out)
{
    struct ibv_cq_ex *ex = (struct ibv_cq_ex *)(void *)cq;
    struct ibv_poll_cq_attr attr = {0};
    time_t since = 0;
    int error = ENOENT;

    for (unsigned tries = 1; error == ENOENT; tries++) {
        error = ibv_start_poll(ex, &attr);
        if (too_long(&since, tries))
            return FAIL(x, 0);
    }
    if (error)
        return FAIL(x, error);
    enum ibv_wc_status status = ex->status;
    *opcode_out = ibv_wc_read_opcode(ex);
    ibv_end_poll(ex);
    return status == IBV_WC_SUCCESS || FAIL(x, status);
}

/* ---- receiving ---- */

static bool post_receive(struct exchange *x, enum link_kind link, uint64_t id)
{
    struct side *s = x->side[link];
    struct ibv_sge sge[2] = {
        {s->info.addr + RECEIVE_AT + id * RECEIVE_SIZE, RECEIVE_SIZE / 2, s->info.lkey},
        {s->info.addr + RECEIVE_AT + id * RECEIVE_SIZE + RECEIVE_SIZE / 2, RECEIVE_SIZE / 2,
         s->info.lkey},
    };
    struct ibv_recv_wr wr = {.wr_id = id, .sg_list = sge, .num_sge = 2}, *bad;
    int error = s->srq ? ibv_post_srq_recv(s->srq, &wr, &bad) : ibv_post_recv(s->qp[0], &wr, &bad);

    return error == 0 || FAIL(x, error);
}

static bool wait_message(struct exchange *x, enum link_kind link)
{
    struct ibv_wc wc;

    return take(x, x->side[link]->recv_cq, &wc) && post_receive(x, link, wc.wr_id);
}

bool exchange_begin(struct exchange *x)
{
    for (int link = 0; link < LINKS; link++) {
        for (uint64_t id = 0; id < RECEIVES; id++) {
            if (!post_receive(x, (enum link_kind)link, id))
                return false;
        }
    }
    return true;
}

/* ---- sending ---- */

static bool post(struct exchange *x, enum link_kind link, struct ibv_send_wr *wr)
{
    struct ibv_send_wr *bad;
    int error = ibv_post_send(x->side[link]->qp[0], wr, &bad);

    return error == 0 || FAIL(x, error);
}

static bool sent(struct exchange *x, enum link_kind link)
{
    struct ibv_wc wc;

    return take(x, x->side[link]->send_cq, &wc);
}

/* A message of `count` elements of `each` bytes. */
static bool send_message(struct exchange *x, enum link_kind link, uint32_t each, int count,
                         unsigned flags)
{
    struct side *s = x->side[link];
    struct ibv_sge sge[4];
    struct ibv_send_wr wr = {
        .sg_list = sge,
        .num_sge = count,
        .opcode = IBV_WR_SEND,
        .send_flags = IBV_SEND_SIGNALED | flags,
    };

    for (int i = 0; i < count; i++)
        sge[i] = (struct ibv_sge){s->info.addr + (uint64_t)i * 1500, each, s->info.lkey};
    if (link == LINK_UD) {
        wr.wr.ud.ah = s->ah;
        wr.wr.ud.remote_qpn = x->to[link].qpn[0];
        wr.wr.ud.remote_qkey = s->opt.qkey;
    }
    return post(x, link, &wr) && sent(x, link);
}

static struct ibv_send_wr remote_wr(struct exchange *x, enum ibv_wr_opcode opcode,
                                    struct ibv_sge *sge, uint64_t at)
{
    struct ibv_send_wr wr = {
        .sg_list = sge,
        .num_sge = 1,
        .opcode = opcode,
        .send_flags = IBV_SEND_SIGNALED,
        .imm_data = 7,
    };

    wr.wr.rdma.remote_addr = x->to[LINK_RC].addr + at;
    wr.wr.rdma.rkey = x->to[LINK_RC].rkey;
    return wr;
}

static struct ibv_sge local(struct exchange *x, uint64_t at, uint32_t length)
{
    struct side *s = x->side[LINK_RC];

    return (struct ibv_sge){s->info.addr + at, length, s->info.lkey};
}

/* ---- the operations ---- */

static bool op_inline(struct exchange *x)
{
    return send_message(x, LINK_RC, 8, 2, IBV_SEND_INLINE);
}

static bool op_list(struct exchange *x)
{
    return send_message(x, LINK_RC, 400, 4, 0);
}

static bool op_write(struct exchange *x)
{
    struct ibv_sge sge = local(x, 100, 4000);
    struct ibv_send_wr wr = remote_wr(x, IBV_WR_RDMA_WRITE_WITH_IMM, &sge, 8192);

    return post(x, LINK_RC, &wr) && sent(x, LINK_RC);
}

static bool op_read(struct exchange *x)
{
    struct ibv_sge sge = local(x, 16384, 8000);
    struct ibv_send_wr wr = remote_wr(x, IBV_WR_RDMA_READ, &sge, 4096);

    return post(x, LINK_RC, &wr) && sent(x, LINK_RC) && op_inline(x);
}

static bool op_atomics(struct exchange *x)
{
    struct ibv_sge sge = local(x, 24584, 8);
    struct ibv_send_wr wr = remote_wr(x, IBV_WR_ATOMIC_FETCH_AND_ADD, &sge, 0);

    wr.wr.atomic.remote_addr = x->to[LINK_RC].addr + 24576;
    wr.wr.atomic.compare_add = 1;
    wr.wr.atomic.rkey = x->to[LINK_RC].rkey;
    if (!post(x, LINK_RC, &wr) || !sent(x, LINK_RC))
        return false;
    wr.opcode = IBV_WR_ATOMIC_CMP_AND_SWP;
    return post(x, LINK_RC, &wr) && sent(x, LINK_RC) && op_inline(x);
}

/* Three quiet writes and a signalled message in one call. */
static bool op_batch(struct exchange *x)
{
    struct ibv_sge sge = local(x, 0, 300);
    struct ibv_send_wr wr[4];

    for (int i = 0; i < 4; i++) {
        wr[i] = remote_wr(x, i < 3 ? IBV_WR_RDMA_WRITE : IBV_WR_SEND, &sge, 8192);
        wr[i].send_flags = i < 3 ? IBV_SEND_FENCE : IBV_SEND_SIGNALED;
        wr[i].next = i < 3 ? &wr[i + 1] : NULL;
    }
    return post(x, LINK_RC, wr) && sent(x, LINK_RC);
}

/* The extended calls, and extended polling. */
static bool op_extended(struct exchange *x)
{
    struct side *s = x->side[LINK_RC];
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(s->qp[0]);
    enum ibv_wc_opcode opcode;

    ibv_wr_start(qp);
    qp->wr_id = 1;
    qp->wr_flags = 0;
    ibv_wr_rdma_write(qp, x->to[LINK_RC].rkey, x->to[LINK_RC].addr + 8192);
    ibv_wr_set_sge(qp, s->info.lkey, s->info.addr, 64);
    qp->wr_id = 2;
    qp->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_send(qp);
    ibv_wr_set_inline_data(qp, s->buf, 24);
    int error = ibv_wr_complete(qp);
    if (error)
        return FAIL(x, error);
    return take_ex(x, s->send_cq, &opcode) && (opcode == IBV_WC_SEND || FAIL(x, opcode));
}

static bool op_shared(struct exchange *x)
{
    return send_message(x, LINK_SRQ, 300, 1, 0);
}

static bool op_unreliable(struct exchange *x)
{
    return send_message(x, LINK_UC, 700, 2, 0);
}

static bool op_datagram(struct exchange *x)
{
    return send_message(x, LINK_UD, 200, 3, 0);
}

static const struct {
    bool (*run)(struct exchange *x);
    enum link_kind link; /* where its last message arrives */
    unsigned posts;      /* calls of a post function; as many polls, at least */
} operations[OPERATIONS] = {
    {op_inline, LINK_RC, 1},   {op_list, LINK_RC, 1},    {op_write, LINK_RC, 1},
    {op_read, LINK_RC, 2},     {op_atomics, LINK_RC, 3}, {op_batch, LINK_RC, 1},
    {op_extended, LINK_RC, 1}, {op_shared, LINK_SRQ, 1}, {op_unreliable, LINK_UC, 1},
    {op_datagram, LINK_UD, 1},
};

unsigned exchange_calls(void)
{
    unsigned calls = 0;

    for (int i = 0; i < OPERATIONS; i++)
        calls += 2 * operations[i].posts + 2; /* and one receive polled, one posted */
    return calls;
}

bool exchange_round(struct exchange *x)
{
    for (int i = 0; i < OPERATIONS; i++) {
        bool good = x->first ? operations[i].run(x) && wait_message(x, operations[i].link)
                             : wait_message(x, operations[i].link) && operations[i].run(x);

        if (!good)
            return false;
    }
    return true;
}
