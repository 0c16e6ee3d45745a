/* SPDX-License-Identifier: MIT */
/*
 * Queue pairs by command: creation, every attribute in both directions, posting. The core is a
 * fake.
 */
#include "uverbs_fake.h"

struct qp_resp {
    struct ib_uverbs_create_qp_resp core;
    struct rxe_create_qp_resp driver;
};

struct qp_resp_ex {
    struct ib_uverbs_ex_create_qp_resp core;
    struct rxe_create_qp_resp driver;
};

T_TEST(uverbs_qp, is_created)
{
    /* Shows which parts of CREATE_QP reach the core, and what comes back. */
    u_reset();
    int fd = u_open();
    struct qp_resp resp;
    struct ib_uverbs_create_qp req = {.user_handle = 0xabc,
                                      .pd_handle = u_pd(fd),
                                      .send_cq_handle = u_cq(fd),
                                      .recv_cq_handle = u_cq(fd),
                                      .max_send_wr = 10,
                                      .max_recv_wr = 20,
                                      .max_send_sge = 30,
                                      .max_recv_sge = 40,
                                      .max_inline_data = 50,
                                      .sq_sig_all = 1,
                                      .qp_type = IBV_QPT_UC};

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_QP, &req, sizeof(req), &resp, sizeof(resp)), 0);
    T_EQ(fake.qp_init.type, IBV_QPT_UC);
    T_EQ(fake.qp_init.pd->handle, req.pd_handle);
    T_EQ(cq_handle(fake.qp_init.send_cq), req.send_cq_handle);
    T_EQ(cq_handle(fake.qp_init.recv_cq), req.recv_cq_handle);
    T_ASSERT(!fake.qp_init.srq && fake.qp_init.sq_sig_all);
    T_EQ(fake.qp_init.user_handle, 0xabc);
    T_EQ(resp.core.qpn, FAKE_SLOT << LIMIT_QP_BITS | resp.core.qp_handle);
    T_EQ(resp.core.max_send_wr, 11);
    T_EQ(resp.core.max_recv_wr, 22);
    T_EQ(resp.core.max_send_sge, 33);
    T_EQ(resp.core.max_recv_sge, 44);
    T_EQ(resp.core.max_inline_data, 55);
    T_EQ(resp.driver.sq_mi.size, 4096);
    T_EQ(resp.driver.rq_mi.size, 4096);
    T_EQ(fake.qp_hooks, 1);
    u_close(fd);
}

T_TEST(uverbs_qp, needs_its_parts)
{
    /* Shows what CREATE_QP refuses: types we don't have, handles that are not there. */
    u_reset();
    int fd = u_open();
    struct qp_resp resp;
    const struct ib_uverbs_create_qp good = {.pd_handle = u_pd(fd),
                                             .send_cq_handle = u_cq(fd),
                                             .recv_cq_handle = u_cq(fd),
                                             .qp_type = IBV_QPT_RC};
    struct ib_uverbs_create_qp req = good;
    static const uint8_t absent[] = {IBV_QPT_RAW_PACKET, IBV_QPT_DRIVER};
    static const uint8_t wrong[] = {0, 77};

    for (size_t i = 0; i < sizeof(absent); i++) {
        req.qp_type = absent[i];
        T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_QP, &req, sizeof(req), &resp, sizeof(resp)),
             -EOPNOTSUPP);
        req.qp_type = wrong[i];
        T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_QP, &req, sizeof(req), &resp, sizeof(resp)),
             -EINVAL);
    }
    req = good;
    req.pd_handle = 30;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_QP, &req, sizeof(req), &resp, sizeof(resp)), -EINVAL);
    req = good;
    req.recv_cq_handle = 30;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_QP, &req, sizeof(req), &resp, sizeof(resp)), -EINVAL);
    req = good;
    req.is_srq = 1;
    req.srq_handle = 30;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_QP, &req, sizeof(req), &resp, sizeof(resp)), -EINVAL);
    req = good;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_QP, &req, sizeof(req), &resp, sizeof(resp) - 8),
         -EINVAL);
    T_EQ(fake.objects, 3);
    u_close(fd);
}

T_TEST(uverbs_qp, is_created_extended)
{
    /* Shows the extended form, also with the short request of the first version. */
    u_reset();
    int fd = u_open();
    struct qp_resp_ex resp;
    struct ib_uverbs_ex_create_qp req = {.pd_handle = u_pd(fd),
                                         .send_cq_handle = u_cq(fd),
                                         .recv_cq_handle = u_cq(fd),
                                         .qp_type = IBV_QPT_RC};
    size_t first = offsetof(struct ib_uverbs_ex_create_qp, rwq_ind_tbl_handle);

    T_EQ(u_call_ex(fd, IB_USER_VERBS_EX_CMD_CREATE_QP, &req, sizeof(req), &resp, sizeof(resp),
                   sizeof(resp.driver)),
         0);
    T_EQ(resp.core.base.qpn, FAKE_SLOT << LIMIT_QP_BITS | resp.core.base.qp_handle);
    T_EQ(resp.core.response_length, sizeof(resp.core));
    T_EQ(resp.driver.sq_mi.size, 4096);
    T_EQ(u_call_ex(fd, IB_USER_VERBS_EX_CMD_CREATE_QP, &req, first, &resp, sizeof(resp),
                   sizeof(resp.driver)),
         0);
    req.create_flags = IBV_QP_CREATE_SCATTER_FCS;
    T_EQ(u_call_ex(fd, IB_USER_VERBS_EX_CMD_CREATE_QP, &req, sizeof(req), &resp, sizeof(resp),
                   sizeof(resp.driver)),
         -EOPNOTSUPP);
    req.create_flags = 0;
    req.comp_mask = IB_UVERBS_CREATE_QP_MASK_IND_TABLE;
    T_EQ(u_call_ex(fd, IB_USER_VERBS_EX_CMD_CREATE_QP, &req, sizeof(req), &resp, sizeof(resp),
                   sizeof(resp.driver)),
         -EOPNOTSUPP);
    req.comp_mask = 2;
    T_EQ(u_call_ex(fd, IB_USER_VERBS_EX_CMD_CREATE_QP, &req, sizeof(req), &resp, sizeof(resp),
                   sizeof(resp.driver)),
         -EINVAL);
    u_close(fd);
}

T_TEST(uverbs_qp, keeps_every_attribute)
{
    /* Shows that each attribute survives MODIFY_QP and QUERY_QP, in its own field, untruncated. */
    u_reset();
    int fd = u_open();
    uint32_t qp = u_qp(fd, IBV_QPT_RC);
    struct ib_uverbs_modify_qp req;
    struct ib_uverbs_query_qp_resp resp;
    uint8_t *bytes = (uint8_t *)&req;

    for (size_t i = 0; i < sizeof(req); i++)
        bytes[i] = (uint8_t)(0xff - i);
    req.qp_handle = qp;
    req.attr_mask = IBV_QP_STATE | IBV_QP_PATH_MTU;
    req.qp_state = IBV_QPS_RTR;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_MODIFY_QP, &req, sizeof(req), U_NO_RESP), 0);
    T_EQ(fake.qp_mask, IBV_QP_STATE | IBV_QP_PATH_MTU);
    T_EQ(fake.qp_attr.path_mtu, req.path_mtu); /* far beyond the enumeration */
    T_EQ(fake.qp_attr.en_sqd_async_notify, req.en_sqd_async_notify);
    T_EQ(fake.modify_hooks, 1);

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_QUERY_QP, U_REQ(ib_uverbs_query_qp, .qp_handle = qp), &resp,
                sizeof(resp)),
         0);
    req.dest.reserved = req.alt_dest.reserved = 0;
    T_MEMEQ(&resp.dest, &req.dest, sizeof(req.dest));
    T_MEMEQ(&resp.alt_dest, &req.alt_dest, sizeof(req.alt_dest));
    T_EQ(resp.qkey, req.qkey);
    T_EQ(resp.rq_psn, req.rq_psn);
    T_EQ(resp.sq_psn, req.sq_psn);
    T_EQ(resp.dest_qp_num, req.dest_qp_num);
    T_EQ(resp.qp_access_flags, req.qp_access_flags);
    T_EQ(resp.pkey_index, req.pkey_index);
    T_EQ(resp.alt_pkey_index, req.alt_pkey_index);
    T_EQ(resp.qp_state, req.qp_state);
    T_EQ(resp.cur_qp_state, req.cur_qp_state);
    T_EQ(resp.path_mtu, req.path_mtu);
    T_EQ(resp.path_mig_state, req.path_mig_state);
    T_EQ(resp.max_rd_atomic, req.max_rd_atomic);
    T_EQ(resp.max_dest_rd_atomic, req.max_dest_rd_atomic);
    T_EQ(resp.min_rnr_timer, req.min_rnr_timer);
    T_EQ(resp.port_num, req.port_num);
    T_EQ(resp.timeout, req.timeout);
    T_EQ(resp.retry_cnt, req.retry_cnt);
    T_EQ(resp.rnr_retry, req.rnr_retry);
    T_EQ(resp.alt_port_num, req.alt_port_num);
    T_EQ(resp.alt_timeout, req.alt_timeout);
    u_close(fd);
}

T_TEST(uverbs_qp, tells_what_it_was_made_with)
{
    /* Shows the parts of QUERY_QP that MODIFY_QP can't set. */
    u_reset();
    int fd = u_open();
    uint32_t qp = u_qp(fd, IBV_QPT_RC);
    struct ib_uverbs_query_qp_resp resp;

    fake.qp_attr.cap = (struct ibv_qp_cap){1, 2, 3, 4, 5};
    fake.qp_attr.sq_draining = 1;
    fake.qp_init.sq_sig_all = true;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_QUERY_QP, U_REQ(ib_uverbs_query_qp, .qp_handle = qp), &resp,
                sizeof(resp)),
         0);
    T_EQ(resp.max_send_wr, 1);
    T_EQ(resp.max_recv_wr, 2);
    T_EQ(resp.max_send_sge, 3);
    T_EQ(resp.max_recv_sge, 4);
    T_EQ(resp.max_inline_data, 5);
    T_EQ(resp.sq_draining, 1);
    T_EQ(resp.sq_sig_all, 1);
    u_close(fd);
}

T_TEST(uverbs_qp, refuses_bad_changes)
{
    /* Shows masks and states that never get to the core, and that its errors come back. */
    u_reset();
    int fd = u_open();
    struct ib_uverbs_ex_modify_qp_resp resp;
    struct ib_uverbs_ex_modify_qp req = {.base = {.qp_handle = u_qp(fd, IBV_QPT_RC),
                                                  .attr_mask = IBV_QP_STATE,
                                                  .qp_state = IBV_QPS_ERR + 1}};

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_MODIFY_QP, &req.base, sizeof(req.base), U_NO_RESP), -EINVAL);
    req.base.qp_state = IBV_QPS_INIT;
    fake.fail = -EINVAL;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_MODIFY_QP, &req.base, sizeof(req.base), U_NO_RESP), -EINVAL);
    T_EQ(fake.modify_hooks, 0);
    req.base.attr_mask |= IBV_QP_CUR_STATE;
    req.base.cur_qp_state = 255;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_MODIFY_QP, &req.base, sizeof(req.base), U_NO_RESP), -EINVAL);
    req.base.cur_qp_state = IBV_QPS_RESET;
    T_EQ(u_call_ex(fd, IB_USER_VERBS_EX_CMD_MODIFY_QP, &req, sizeof(req), &resp, sizeof(resp), 0),
         0);
    T_EQ(resp.response_length, sizeof(resp));
    T_EQ(fake.modify_hooks, 1);
    req.base.attr_mask = IBV_QP_RATE_LIMIT;
    req.rate_limit = 1000;
    T_EQ(u_call_ex(fd, IB_USER_VERBS_EX_CMD_MODIFY_QP, &req, sizeof(req), &resp, sizeof(resp), 0),
         -EOPNOTSUPP);
    req.base.attr_mask = 1u << 31;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_MODIFY_QP, &req.base, sizeof(req.base), U_NO_RESP),
         -EOPNOTSUPP);
    u_close(fd);
}

/* ---- posting ---- */

/* What the three posting commands begin with; their own structures end in an open array. */
struct post_head {
    uint64_t response;
    uint32_t handle, wr_count, sge_count, wqe_size;
};
_Static_assert(sizeof(struct post_head) == sizeof(struct ib_uverbs_post_send), "the same");

struct post {
    struct post_head core;
    struct ib_uverbs_send_wr wr[2];
    struct ib_uverbs_sge sge[3];
};

static struct post post_of(uint32_t qp)
{
    return (struct post){
        .core = {.handle = qp,
                 .wr_count = 2,
                 .sge_count = 3,
                 .wqe_size = sizeof(struct ib_uverbs_send_wr)},
        .wr = {{.wr_id = 1,
                .num_sge = 1,
                .opcode = IBV_WR_RDMA_WRITE,
                .send_flags = 2,
                .wr.rdma = {.remote_addr = 0x1000, .rkey = 17}},
               {.wr_id = 2, .num_sge = 2, .opcode = IBV_WR_SEND_WITH_IMM, .ex.imm_data = 33}},
        .sge = {{0x10, 1, 101}, {0x20, 2, 102}, {0x30, 3, 103}}};
}

T_TEST(uverbs_qp, ignores_the_doorbell)
{
    /* Shows that POST_SEND without requests, as the provider sends it, does nothing and succeeds.
     */
    u_reset();
    int fd = u_open();
    struct ib_uverbs_post_send_resp resp = {7};
    struct ib_uverbs_post_send req = {.qp_handle = u_qp(fd, IBV_QPT_RC),
                                      .wqe_size = sizeof(struct ibv_send_wr)};

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)), 0);
    T_EQ(resp.bad_wr, 0);
    T_EQ(fake.posted, 0);
    u_close(fd);
}

T_TEST(uverbs_qp, posts_sends)
{
    /* Shows the layout of requests and elements, and which request is named when one is refused. */
    u_reset();
    int fd = u_open();
    struct ib_uverbs_post_send_resp resp;
    struct post req = post_of(u_qp(fd, IBV_QPT_RC));

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)), 0);
    T_EQ(resp.bad_wr, 0);
    T_EQ(fake.posted, 2);
    T_EQ(fake.sends[0].wr_id, 1);
    T_EQ(fake.sends[0].opcode, IBV_WR_RDMA_WRITE);
    T_EQ(fake.sends[0].send_flags, 2);
    T_EQ(fake.sends[0].wr.rdma.remote_addr, 0x1000);
    T_EQ(fake.sends[0].wr.rdma.rkey, 17);
    T_EQ(fake.sends[1].num_sge, 2);
    T_EQ(fake.sends[1].imm_data, 33);
    T_MEMEQ(fake.sges, req.sge, sizeof(req.sge));

    fake.post_limit = 1;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)), -ENOMEM);
    T_EQ(resp.bad_wr, 2);
    u_close(fd);
}

T_TEST(uverbs_qp, checks_what_it_posts)
{
    /* Shows that no count or opcode of a posting command is believed. */
    u_reset();
    int fd = u_open();
    struct ib_uverbs_post_send_resp resp;
    const struct post good = post_of(u_qp(fd, IBV_QPT_RC));
    struct post req = good;

    req.core.wr_count = 3;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)), -ENOSPC);
    req.core.wr_count = UINT32_MAX;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)), -ENOSPC);
    req = good;
    req.core.sge_count = UINT32_MAX;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)), -ENOSPC);
    req = good;
    req.core.wqe_size = sizeof(struct ib_uverbs_send_wr) - 4;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)), -EINVAL);
    req = good;
    req.wr[1].num_sge = 3;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)), -EINVAL);
    req.wr[1].num_sge = UINT32_MAX;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)), -EINVAL);
    req = good;
    req.wr[0].opcode = IBV_WR_BIND_MW;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)), -EINVAL);
    req = good;
    req.wr[0].send_flags = IBV_SEND_INLINE;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)), -EINVAL);
    req = good;
    req.core.sge_count = 2;
    req.wr[1].num_sge = 1;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)),
         -EOPNOTSUPP); /* something that is not zero behind the last element */
    req = good;
    req.core.handle = 30;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)), -EINVAL);
    T_EQ(fake.posted, 0);
    u_close(fd);
}

T_TEST(uverbs_qp, posts_datagrams)
{
    /* Shows that a datagram's address handle is looked up, and only sends go out. */
    u_reset();
    int fd = u_open();
    struct ib_uverbs_post_send_resp resp;
    struct ib_uverbs_create_ah_resp ah;
    struct post req = post_of(u_qp(fd, IBV_QPT_UD));

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_AH, U_REQ(ib_uverbs_create_ah, .pd_handle = u_pd(fd)),
                &ah, sizeof(ah)),
         0);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)), -EINVAL);
    for (int i = 0; i < 2; i++) {
        req.wr[i].opcode = IBV_WR_SEND;
        req.wr[i].wr.ud.ah = ah.ah_handle;
        req.wr[i].wr.ud.remote_qpn = 5;
        req.wr[i].wr.ud.remote_qkey = 6;
    }
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)), 0);
    T_EQ(fake.send_ah[1], ah.ah_handle);
    T_EQ(fake.sends[1].wr.ud.remote_qpn, 5);
    T_EQ(fake.sends[1].wr.ud.remote_qkey, 6);
    req.wr[1].wr.ud.ah = 30;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SEND, &req, sizeof(req), &resp, sizeof(resp)), -EINVAL);
    u_close(fd);
}

T_TEST(uverbs_qp, posts_receives)
{
    /* Shows the same for both kinds of receive queues. */
    u_reset();
    int fd = u_open();
    struct u_srq_resp srq;
    struct ib_uverbs_post_recv_resp resp;
    struct {
        struct post_head core;
        struct ib_uverbs_recv_wr wr[2];
        struct ib_uverbs_sge sge[2];
    } req = {{.handle = u_qp(fd, IBV_QPT_RC),
              .wr_count = 2,
              .sge_count = 2,
              .wqe_size = sizeof(struct ib_uverbs_recv_wr)},
             {{.wr_id = 8, .num_sge = 0}, {.wr_id = 9, .num_sge = 2}},
             {{0x10, 1, 101}, {0x20, 2, 102}}};

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_RECV, &req, sizeof(req), &resp, sizeof(resp)), 0);
    T_EQ(fake.posted, 2);
    T_EQ(fake.sends[1].wr_id, 9);
    T_EQ(fake.sends[1].num_sge, 2);
    T_MEMEQ(fake.sges, req.sge, sizeof(req.sge));
    fake.post_limit = 0;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_RECV, &req, sizeof(req), &resp, sizeof(resp)), -ENOMEM);
    T_EQ(resp.bad_wr, 1);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_SRQ,
                U_REQ(ib_uverbs_create_srq, .pd_handle = u_pd(fd), .max_wr = 1), &srq, sizeof(srq)),
         0);
    req.core.handle = srq.handle;
    fake.post_limit = UINT32_MAX;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SRQ_RECV, &req, sizeof(req), &resp, sizeof(resp)), 0);
    T_EQ(fake.posted, 2);
    req.wr[0].num_sge = 1;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POST_SRQ_RECV, &req, sizeof(req), &resp, sizeof(resp)),
         -EINVAL);
    u_close(fd);
}
