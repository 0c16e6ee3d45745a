/* SPDX-License-Identifier: MIT */
/*
 * Extended queue pairs: struct ibv_qp_ex, whose functions build a batch of work requests between
 * wr_start and wr_complete.
 *
 *   wr_start        takes the batch's lock
 *   wr_<operation>  adds a work request
 *   wr_set_<what>   adds its data or address to the one added last
 *   wr_complete     posts all of them, or none and returns the first error of any call above
 *   wr_abort        forgets them
 *
 * The batch is a list of ordinary work requests in memory of its own, handed to qp_post_batch().
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/limits.h"
#include "core/qp.h"
#include "core/spin.h"
#include "uapi/fastpath.h"

/* The batch of one queue pair. Everything is guarded by lock, but for settled: core_lock(). */
struct qpex {
    struct spin lock;
    int error;      /* the first one since wr_start */
    uint32_t count; /* requests built */
    uint32_t room;  /* for so many: the size of the send queue */
    uint32_t max_sge, max_inline;
    struct ibv_send_wr *wrs; /* the one allocation; sges and payload lie behind */
    struct ibv_sge *sges;    /* max_sge each */
    char *payload;           /* max_inline bytes each */
    bool settled;            /* known to be plain, or patched: not to be probed */
};

static struct qpex states[LIMIT_QP];
_Static_assert((LIMIT_QP & (LIMIT_QP - 1)) == 0, "a handle is masked, not checked");

static inline struct qpex *qpex_of(const struct ibv_qp_ex *ex)
{
    return &states[ex->qp_base.handle % LIMIT_QP];
}

static void fail(struct qpex *batch, int error)
{
    if (!batch->error)
        batch->error = error;
}

static void wr_start(struct ibv_qp_ex *ex)
{
    struct qpex *batch = qpex_of(ex);

    spin_lock(&batch->lock);
    batch->error = 0;
    batch->count = 0;
}

static int wr_complete(struct ibv_qp_ex *ex)
{
    struct qpex *batch = qpex_of(ex);
    struct qp *qp = qp_get(ex->qp_base.handle);
    int error = qp ? batch->error : EIO;

    if (!error && batch->count)
        error = qp_post_batch(qp, batch->wrs);
    spin_unlock(&batch->lock);
    return error;
}

static void wr_abort(struct ibv_qp_ex *ex)
{
    spin_unlock(&qpex_of(ex)->lock);
}

/* A new request at the end of the batch, or NULL: the batch has failed. */
static struct ibv_send_wr *add(struct ibv_qp_ex *ex, enum ibv_wr_opcode opcode)
{
    struct qpex *batch = qpex_of(ex);
    uint32_t n = batch->count;

    if (n == batch->room)
        fail(batch, ENOMEM);
    if (batch->error)
        return NULL;
    batch->wrs[n] = (struct ibv_send_wr){
        .wr_id = ex->wr_id,
        .sg_list = &batch->sges[(size_t)n * batch->max_sge],
        .opcode = opcode,
        .send_flags = ex->wr_flags & ~(unsigned)IBV_SEND_INLINE,
    };
    if (n)
        batch->wrs[n - 1].next = &batch->wrs[n];
    batch->count = n + 1;
    return &batch->wrs[n];
}

/* The request that a setter completes, or NULL: there is none, or the batch has failed. */
static struct ibv_send_wr *last(struct qpex *batch)
{
    if (!batch->count)
        fail(batch, EINVAL);
    return batch->error ? NULL : &batch->wrs[batch->count - 1];
}

static void wr_send(struct ibv_qp_ex *ex)
{
    add(ex, IBV_WR_SEND);
}

static void wr_send_imm(struct ibv_qp_ex *ex, __be32 imm_data)
{
    struct ibv_send_wr *wr = add(ex, IBV_WR_SEND_WITH_IMM);

    if (wr)
        wr->imm_data = imm_data;
}

static void wr_send_inv(struct ibv_qp_ex *ex, uint32_t invalidate_rkey)
{
    struct ibv_send_wr *wr = add(ex, IBV_WR_SEND_WITH_INV);

    if (wr)
        wr->invalidate_rkey = invalidate_rkey;
}

static void wr_local_inv(struct ibv_qp_ex *ex, uint32_t invalidate_rkey)
{
    struct ibv_send_wr *wr = add(ex, IBV_WR_LOCAL_INV);

    if (wr)
        wr->invalidate_rkey = invalidate_rkey;
}

static struct ibv_send_wr *add_rdma(struct ibv_qp_ex *ex, enum ibv_wr_opcode opcode, uint32_t rkey,
                                    uint64_t remote_addr)
{
    struct ibv_send_wr *wr = add(ex, opcode);

    if (wr) {
        wr->wr.rdma.remote_addr = remote_addr;
        wr->wr.rdma.rkey = rkey;
    }
    return wr;
}

static void wr_rdma_read(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr)
{
    add_rdma(ex, IBV_WR_RDMA_READ, rkey, remote_addr);
}

static void wr_rdma_write(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr)
{
    add_rdma(ex, IBV_WR_RDMA_WRITE, rkey, remote_addr);
}

static void wr_rdma_write_imm(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr,
                              __be32 imm_data)
{
    struct ibv_send_wr *wr = add_rdma(ex, IBV_WR_RDMA_WRITE_WITH_IMM, rkey, remote_addr);

    if (wr)
        wr->imm_data = imm_data;
}

static void add_atomic(struct ibv_qp_ex *ex, enum ibv_wr_opcode opcode, uint32_t rkey,
                       uint64_t remote_addr, uint64_t compare_add, uint64_t swap)
{
    struct ibv_send_wr *wr = add(ex, opcode);

    if (!wr)
        return;
    wr->wr.atomic.remote_addr = remote_addr;
    wr->wr.atomic.rkey = rkey;
    wr->wr.atomic.compare_add = compare_add;
    wr->wr.atomic.swap = swap;
}

static void wr_atomic_cmp_swp(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr,
                              uint64_t compare, uint64_t swap)
{
    add_atomic(ex, IBV_WR_ATOMIC_CMP_AND_SWP, rkey, remote_addr, compare, swap);
}

static void wr_atomic_fetch_add(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr,
                                uint64_t summand)
{
    add_atomic(ex, IBV_WR_ATOMIC_FETCH_AND_ADD, rkey, remote_addr, summand, 0);
}

static void wr_bind_mw(struct ibv_qp_ex *ex, struct ibv_mw *mw, uint32_t rkey,
                       const struct ibv_mw_bind_info *info)
{
    struct ibv_send_wr *wr = add(ex, IBV_WR_BIND_MW);

    if (!wr)
        return;
    wr->bind_mw.mw = mw;
    wr->bind_mw.rkey = rkey;
    wr->bind_mw.bind_info = *info;
}

/* Refused when the queue pair is made; a program that asks nevertheless learns it here. */
static void wr_send_tso(struct ibv_qp_ex *ex, void *hdr, uint16_t hdr_sz, uint16_t mss)
{
    (void)hdr, (void)hdr_sz, (void)mss;
    fail(qpex_of(ex), EOPNOTSUPP);
}

static void wr_atomic_write(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr,
                            const void *value)
{
    (void)rkey, (void)remote_addr, (void)value;
    fail(qpex_of(ex), EOPNOTSUPP);
}

static void wr_set_ud_addr(struct ibv_qp_ex *ex, struct ibv_ah *ah, uint32_t remote_qpn,
                           uint32_t remote_qkey)
{
    struct ibv_send_wr *wr = last(qpex_of(ex));

    if (!wr)
        return;
    wr->wr.ud.ah = ah;
    wr->wr.ud.remote_qpn = remote_qpn;
    wr->wr.ud.remote_qkey = remote_qkey;
}

static void wr_set_xrc_srqn(struct ibv_qp_ex *ex, uint32_t remote_srqn)
{
    struct ibv_send_wr *wr = last(qpex_of(ex));

    if (wr)
        wr->qp_type.xrc.remote_srqn = remote_srqn;
}

static void wr_set_sge_list(struct ibv_qp_ex *ex, size_t num_sge, const struct ibv_sge *sg_list)
{
    struct qpex *batch = qpex_of(ex);
    struct ibv_send_wr *wr = last(batch);

    if (!wr)
        return;
    if (num_sge > batch->max_sge) {
        fail(batch, EINVAL);
        return;
    }
    if (num_sge)
        memcpy(wr->sg_list, sg_list, num_sge * sizeof(*sg_list));
    wr->num_sge = (int)num_sge;
}

/* No bytes, no element: an empty message may be sent without any key. */
static void wr_set_sge(struct ibv_qp_ex *ex, uint32_t lkey, uint64_t addr, uint32_t length)
{
    struct ibv_sge sge = {.addr = addr, .length = length, .lkey = lkey};

    wr_set_sge_list(ex, length ? 1 : 0, &sge);
}

static void wr_set_inline_data_list(struct ibv_qp_ex *ex, size_t num_buf,
                                    const struct ibv_data_buf *buf_list)
{
    struct qpex *batch = qpex_of(ex);
    struct ibv_send_wr *wr = last(batch);
    size_t total = 0;

    if (!wr)
        return;
    char *payload = batch->payload + (size_t)(wr - batch->wrs) * batch->max_inline;
    for (size_t i = 0; i < num_buf; i++) {
        if (buf_list[i].length > batch->max_inline - total) {
            fail(batch, EINVAL);
            return;
        }
        if (buf_list[i].length)
            memcpy(payload + total, buf_list[i].addr, buf_list[i].length);
        total += buf_list[i].length;
    }
    wr->send_flags |= IBV_SEND_INLINE;
    wr->sg_list[0] = (struct ibv_sge){.addr = (uintptr_t)payload, .length = (uint32_t)total};
    wr->num_sge = total ? 1 : 0;
}

static void wr_set_inline_data(struct ibv_qp_ex *ex, void *addr, size_t length)
{
    struct ibv_data_buf buf = {.addr = addr, .length = length};

    wr_set_inline_data_list(ex, 1, &buf);
}

/* Room for a whole send queue. Untouched memory is free, so large queues cost what they use. */
static void make_room(struct qpex *batch, const struct ibv_qp_cap *cap)
{
    size_t max_sge = cap->max_send_sge ? cap->max_send_sge : 1;
    size_t each =
        sizeof(struct ibv_send_wr) + max_sge * sizeof(struct ibv_sge) + cap->max_inline_data;

    batch->wrs = malloc(cap->max_send_wr * each);
    if (!batch->wrs)
        return;
    batch->room = cap->max_send_wr;
    batch->max_sge = (uint32_t)max_sge;
    batch->max_inline = cap->max_inline_data;
    batch->sges = (struct ibv_sge *)(batch->wrs + batch->room);
    batch->payload = (char *)(batch->sges + batch->room * max_sge);
}

static void swap_slots(struct ibv_qp_ex *ex)
{
    FASTPATH_SWAP(ex, wr_atomic_cmp_swp, wr_atomic_cmp_swp);
    FASTPATH_SWAP(ex, wr_atomic_fetch_add, wr_atomic_fetch_add);
    FASTPATH_SWAP(ex, wr_bind_mw, wr_bind_mw);
    FASTPATH_SWAP(ex, wr_local_inv, wr_local_inv);
    FASTPATH_SWAP(ex, wr_rdma_read, wr_rdma_read);
    FASTPATH_SWAP(ex, wr_rdma_write, wr_rdma_write);
    FASTPATH_SWAP(ex, wr_rdma_write_imm, wr_rdma_write_imm);
    FASTPATH_SWAP(ex, wr_send, wr_send);
    FASTPATH_SWAP(ex, wr_send_imm, wr_send_imm);
    FASTPATH_SWAP(ex, wr_send_inv, wr_send_inv);
    FASTPATH_SWAP(ex, wr_send_tso, wr_send_tso);
    FASTPATH_SWAP(ex, wr_set_ud_addr, wr_set_ud_addr);
    /* one that no provider of ours knows */
    __atomic_store_n(&ex->wr_set_xrc_srqn, wr_set_xrc_srqn, __ATOMIC_RELEASE);
    FASTPATH_SWAP(ex, wr_set_inline_data, wr_set_inline_data);
    FASTPATH_SWAP(ex, wr_set_inline_data_list, wr_set_inline_data_list);
    FASTPATH_SWAP(ex, wr_set_sge, wr_set_sge);
    FASTPATH_SWAP(ex, wr_set_sge_list, wr_set_sge_list);
    FASTPATH_SWAP(ex, wr_complete, wr_complete);
    FASTPATH_SWAP(ex, wr_abort, wr_abort);
    FASTPATH_SWAP(ex, wr_start, wr_start);
    /* Libraries before version 44 end the structure here and keep something else in this place. */
    if (fastpath_is_table((uintptr_t)&ex->wr_atomic_write, 1, 0, 1))
        FASTPATH_SWAP(ex, wr_atomic_write, wr_atomic_write);
}

static struct qpex *state_at(uint32_t qpn)
{
    return &states[qpn % LIMIT_QP];
}

static struct qpex *state_of(struct qp *qp)
{
    return state_at(qp_number(qp));
}

void qpex_patch(struct ibv_qp_ex *ex, struct qp *qp)
{
    struct qpex *batch = state_of(qp);
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;

    batch->settled = true;
    if (!batch->wrs) {
        qp_query(qp, &attr, &init);
        make_room(batch, &init.cap);
    }
    swap_slots(ex);
}

bool qpex_is_patched(const struct ibv_qp_ex *ex)
{
    return __atomic_load_n(&ex->wr_start, __ATOMIC_ACQUIRE) == wr_start;
}

/* What the index's last queue pair left is dropped: closing a context destroys without a word. */
void qpex_created(struct qp *qp, bool settled)
{
    qpex_destroyed(qp_number(qp));
    state_of(qp)->settled = settled;
}

void qpex_probe(struct qp *qp)
{
    struct qpex *batch = state_of(qp);
    uint64_t ex = qp_user_handle(qp);
    size_t first = offsetof(struct ibv_qp_ex, wr_atomic_cmp_swp);
    size_t start = offsetof(struct ibv_qp_ex, wr_start);
    size_t end = offsetof(struct ibv_qp_ex, wr_atomic_write); /* younger than the others */
    size_t count = (end - first) / sizeof(void *);

    if (batch->settled)
        return;
    batch->settled = true;
    if (fastpath_is_table(ex + first, count, (start - first) / sizeof(void *), 3))
        qpex_patch((struct ibv_qp_ex *)(uintptr_t)ex, qp);
}

void qpex_destroyed(uint32_t qpn)
{
    struct qpex *batch = state_at(qpn);

    free(batch->wrs);
    *batch = (struct qpex){.settled = false};
}

uint64_t qpex_supported(enum ibv_qp_type type)
{
    uint64_t send = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
    uint64_t connected = send | IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM |
                         IBV_QP_EX_WITH_SEND_WITH_INV | IBV_QP_EX_WITH_LOCAL_INV |
                         IBV_QP_EX_WITH_BIND_MW;

    switch (type) {
    case IBV_QPT_UD:
        return send;
    case IBV_QPT_UC:
        return connected;
    case IBV_QPT_RC:
    case IBV_QPT_XRC_SEND:
        return connected | IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP |
               IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD;
    default:
        return 0;
    }
}
