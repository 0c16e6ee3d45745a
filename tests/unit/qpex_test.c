/* SPDX-License-Identifier: MIT */
/* Extended queue pairs: what a batch of ibv_wr_*() calls becomes, and how it fails. */
#include "fastpath_stubs.h"

/* The header's inline function names it, for queue pairs that are not extended. */
struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
    (void)pd, (void)attr;
    return NULL;
}

static struct ibv_qp_ex *make_qp_ex(void)
{
    struct ibv_qp_init_attr_ex attr = {
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .qp_type = IBV_QPT_RC,
        .send_ops_flags = qpex_supported(IBV_QPT_RC),
    };

    stub_reset();
    qpex_destroyed(qp_number(&stub_qp));
    stub_qp.cap = (struct ibv_qp_cap){.max_send_wr = 4, .max_send_sge = 2, .max_inline_data = 16};
    fastpath_context_opened(&stub_verbs.context);
    struct ibv_qp *qp = ibv_create_qp_ex(&stub_verbs.context, &attr);
    T_ASSERT(qp == &stock_qp_ex.qp_base && qpex_is_patched(&stock_qp_ex));
    stock_qp_ex.wr_id = 77;
    stock_qp_ex.wr_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE;
    return &stock_qp_ex;
}

/* Build and post one request; returns it as the core got it. */
#define POSTED(ex, ...)                                                                            \
    ({                                                                                             \
        int before_ = stub_qp.sends;                                                               \
        ibv_wr_start(ex);                                                                          \
        __VA_ARGS__;                                                                               \
        T_EQ(ibv_wr_complete(ex), 0);                                                              \
        T_EQ(stub_qp.sends, before_ + 1);                                                          \
        T_ASSERT(!stub_qp.wr->next);                                                               \
        T_EQ(stub_qp.wr->wr_id, 77);                                                               \
        stub_qp.wr;                                                                                \
    })

T_TEST(qpex, send_operations)
{
    /* Shows the request that each kind of send, and local invalidation, becomes. */
    struct ibv_qp_ex *ex = make_qp_ex();
    struct ibv_send_wr *wr = POSTED(ex, ibv_wr_send(ex));

    T_EQ(wr->opcode, IBV_WR_SEND);
    T_EQ(wr->send_flags, IBV_SEND_SIGNALED);
    T_EQ(wr->num_sge, 0);
    wr = POSTED(ex, ibv_wr_send_imm(ex, 5));
    T_EQ(wr->opcode, IBV_WR_SEND_WITH_IMM);
    T_EQ(wr->imm_data, 5);
    wr = POSTED(ex, ibv_wr_send_inv(ex, 6));
    T_EQ(wr->opcode, IBV_WR_SEND_WITH_INV);
    T_EQ(wr->invalidate_rkey, 6);
    wr = POSTED(ex, ibv_wr_local_inv(ex, 7));
    T_EQ(wr->opcode, IBV_WR_LOCAL_INV);
    T_EQ(wr->invalidate_rkey, 7);
    qpex_destroyed(qp_number(&stub_qp));
}

T_TEST(qpex, remote_operations)
{
    /* Shows the same for RDMA, atomics and binding a window. */
    struct ibv_mw mw = {.rkey = 9};
    struct ibv_mw_bind_info info = {.addr = 0x5000, .length = 64, .mw_access_flags = 2};
    struct ibv_qp_ex *ex = make_qp_ex();
    struct ibv_send_wr *wr = POSTED(ex, ibv_wr_rdma_write(ex, 1, 0x1000));

    T_EQ(wr->opcode, IBV_WR_RDMA_WRITE);
    T_ASSERT(wr->wr.rdma.rkey == 1 && wr->wr.rdma.remote_addr == 0x1000);
    wr = POSTED(ex, ibv_wr_rdma_read(ex, 2, 0x2000));
    T_EQ(wr->opcode, IBV_WR_RDMA_READ);
    T_ASSERT(wr->wr.rdma.rkey == 2 && wr->wr.rdma.remote_addr == 0x2000);
    wr = POSTED(ex, ibv_wr_rdma_write_imm(ex, 3, 0x3000, 8));
    T_EQ(wr->opcode, IBV_WR_RDMA_WRITE_WITH_IMM);
    T_ASSERT(wr->wr.rdma.rkey == 3 && wr->wr.rdma.remote_addr == 0x3000 && wr->imm_data == 8);
    wr = POSTED(ex, ibv_wr_atomic_cmp_swp(ex, 4, 0x4000, 10, 11));
    T_EQ(wr->opcode, IBV_WR_ATOMIC_CMP_AND_SWP);
    T_ASSERT(wr->wr.atomic.rkey == 4 && wr->wr.atomic.remote_addr == 0x4000);
    T_ASSERT(wr->wr.atomic.compare_add == 10 && wr->wr.atomic.swap == 11);
    wr = POSTED(ex, ibv_wr_atomic_fetch_add(ex, 4, 0x4000, 12));
    T_EQ(wr->opcode, IBV_WR_ATOMIC_FETCH_AND_ADD);
    T_EQ(wr->wr.atomic.compare_add, 12);
    wr = POSTED(ex, ibv_wr_bind_mw(ex, &mw, 13, &info));
    T_EQ(wr->opcode, IBV_WR_BIND_MW);
    T_ASSERT(wr->bind_mw.mw == &mw && wr->bind_mw.rkey == 13);
    T_MEMEQ(&wr->bind_mw.bind_info, &info, sizeof(info));
    qpex_destroyed(qp_number(&stub_qp));
}

T_TEST(qpex, data)
{
    /* Shows elements, payload that is copied at once, and a datagram's address. */
    char text[] = "sixteen letters!";
    struct ibv_data_buf bufs[] = {{.addr = text, .length = 7}, {.length = 0}, {text + 8, 8}};
    struct ibv_sge list[] = {{.addr = 1, .length = 2, .lkey = 3}, {.addr = 4, .length = 5}};
    struct ibv_ah ah = {.handle = 1};
    struct ibv_qp_ex *ex = make_qp_ex();
    struct ibv_send_wr *wr = POSTED(ex, ibv_wr_send(ex), ibv_wr_set_sge(ex, 3, 0x1234, 99));

    T_EQ(wr->num_sge, 1);
    T_ASSERT(wr->sg_list->lkey == 3 && wr->sg_list->addr == 0x1234 && wr->sg_list->length == 99);
    wr = POSTED(ex, ibv_wr_send(ex), ibv_wr_set_sge(ex, 3, 0x1234, 0));
    T_EQ(wr->num_sge, 0);
    wr = POSTED(ex, ibv_wr_send(ex), ibv_wr_set_sge_list(ex, 2, list));
    T_EQ(wr->num_sge, 2);
    T_MEMEQ(wr->sg_list, list, sizeof(list));
    wr = POSTED(ex, ibv_wr_send(ex), ibv_wr_set_inline_data(ex, text, 16), text[0] = 'S');
    T_EQ(wr->send_flags, IBV_SEND_SIGNALED | IBV_SEND_INLINE);
    T_EQ(wr->sg_list->length, 16);
    T_MEMEQ((char *)(uintptr_t)wr->sg_list->addr, "sixteen letters!", 16);
    wr = POSTED(ex, ibv_wr_send(ex), ibv_wr_set_inline_data_list(ex, 3, bufs));
    T_EQ(wr->sg_list->length, 15);
    T_MEMEQ((char *)(uintptr_t)wr->sg_list->addr, "Sixteenletters!", 15);
    wr = POSTED(ex, ibv_wr_send(ex), ibv_wr_set_ud_addr(ex, &ah, 21, 22));
    T_ASSERT(wr->wr.ud.ah == &ah && wr->wr.ud.remote_qpn == 21 && wr->wr.ud.remote_qkey == 22);
    qpex_destroyed(qp_number(&stub_qp));
}

T_TEST(qpex, batch)
{
    /* Shows that a full queue's worth goes out as one list, in order, each with its own data. */
    struct ibv_qp_ex *ex = make_qp_ex();
    struct ibv_send_wr *wr;
    uint64_t i;

    ibv_wr_start(ex);
    for (i = 0; i < 4; i++) {
        ex->wr_id = 200 + i;
        ibv_wr_send(ex);
        ibv_wr_set_inline_data(ex, &i, sizeof(i));
    }
    T_EQ(stub_qp.sends, 0);
    T_EQ(ibv_wr_complete(ex), 0);
    T_EQ(stub_qp.sends, 1);
    for (i = 0, wr = stub_qp.wr; wr; wr = wr->next, i++) {
        T_EQ(wr->wr_id, 200 + i);
        T_MEMEQ((char *)(uintptr_t)wr->sg_list->addr, &i, sizeof(i));
    }
    T_EQ(i, 4);
    ibv_wr_start(ex);
    T_EQ(ibv_wr_complete(ex), 0);
    T_EQ(stub_qp.sends, 1);
    qpex_destroyed(qp_number(&stub_qp));
}

/* Build, expect complete to fail with `error` and nothing to be posted, and the next batch to work.
 */
#define FAILS(ex, error, ...)                                                                      \
    do {                                                                                           \
        int sends_ = stub_qp.sends;                                                                \
        ibv_wr_start(ex);                                                                          \
        __VA_ARGS__;                                                                               \
        T_EQ(ibv_wr_complete(ex), error);                                                          \
        T_EQ(stub_qp.sends, sends_);                                                               \
        POSTED(ex, ibv_wr_send(ex));                                                               \
    } while (0)

T_TEST(qpex, errors)
{
    /* Shows that the first error of a batch is what complete returns, and nothing is posted. */
    char big[17] = {0};
    struct ibv_data_buf bufs[] = {{big, 10}, {big, 10}};
    struct ibv_sge list[3] = {{0}};
    struct ibv_qp_ex *ex = make_qp_ex();

    FAILS(ex, EINVAL, ibv_wr_set_sge(ex, 1, 2, 3));
    FAILS(ex, EINVAL, ibv_wr_send(ex), ibv_wr_set_sge_list(ex, 3, list));
    FAILS(ex, EINVAL, ibv_wr_send(ex), ibv_wr_set_inline_data(ex, big, 17));
    FAILS(ex, EINVAL, ibv_wr_send(ex), ibv_wr_set_inline_data_list(ex, 2, bufs),
          ibv_wr_rdma_read(ex, 1, 2), ibv_wr_set_sge(ex, 1, 2, 3));
    FAILS(ex, ENOMEM, for (int i = 0; i < 5; i++) ibv_wr_send(ex); ibv_wr_set_ud_addr(ex, 0, 0, 0));
    FAILS(ex, EOPNOTSUPP, ibv_wr_send(ex), ibv_wr_atomic_write(ex, 1, 8, big),
          ibv_wr_set_sge_list(ex, 3, list));
    FAILS(ex, EOPNOTSUPP, ibv_wr_send_tso(ex, big, 1, 1));
    stub_qp.result = ENOMEM;
    ibv_wr_start(ex);
    ibv_wr_send(ex);
    T_EQ(ibv_wr_complete(ex), ENOMEM);
    stub_qp.result = 0;
    ibv_wr_start(ex);
    ibv_wr_send(ex);
    ibv_wr_abort(ex);
    stub_gone = true;
    ibv_wr_start(ex);
    ibv_wr_send(ex);
    T_EQ(ibv_wr_complete(ex), EIO);
    stub_gone = false;
    qpex_destroyed(qp_number(&stub_qp));
}

T_TEST(qpex, what_is_not_supported)
{
    /* Shows that operations the NIC lacks are refused when the queue pair is made. */
    struct ibv_qp_init_attr_ex attr = {
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .qp_type = IBV_QPT_UD,
        .send_ops_flags = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_WRITE,
    };

    make_qp_ex();
    stub_reset();
    fastpath_context_opened(&stub_verbs.context);
    T_ASSERT(!ibv_create_qp_ex(&stub_verbs.context, &attr));
    T_EQ(errno, EOPNOTSUPP);
    attr.qp_type = IBV_QPT_RC;
    attr.send_ops_flags = IBV_QP_EX_WITH_ATOMIC_WRITE;
    T_ASSERT(!ibv_create_qp_ex(&stub_verbs.context, &attr));
    attr.send_ops_flags = 1ull << 40;
    T_ASSERT(!ibv_create_qp_ex(&stub_verbs.context, &attr));
    attr.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_CREATE_FLAGS;
    T_ASSERT(ibv_create_qp_ex(&stub_verbs.context, &attr));
    T_ASSERT(!qpex_is_patched(&stock_qp_ex));
    qpex_destroyed(qp_number(&stub_qp));
}

T_TEST(qpex, found_when_it_becomes_ready)
{
    /* Shows that one made before its context was known is patched by RESET to INIT, once. */
    struct ibv_qp_ex *ex;

    make_qp_ex();
    stub_reset();
    qpex_destroyed(qp_number(&stub_qp));
    ex = &stock_qp_ex;
    stub_qp.user_handle = (uintptr_t)ex;
    core_lock();
    fastpath_qp_created(&stub_qp);
    T_ASSERT(stub_is_patched() && !qpex_is_patched(ex));
    fastpath_qp_modified(&stub_qp, IBV_QPS_INIT);
    T_ASSERT(qpex_is_patched(ex));
    fastpath_qp_destroyed(qp_number(&stub_qp));

    stub_reset();
    ex->wr_abort = NULL; /* not a whole table: something else lies there */
    stub_qp.user_handle = (uintptr_t)ex;
    fastpath_qp_created(&stub_qp);
    fastpath_qp_modified(&stub_qp, IBV_QPS_INIT);
    T_ASSERT(!qpex_is_patched(ex));
    fastpath_qp_destroyed(qp_number(&stub_qp));
    core_unlock();
}
