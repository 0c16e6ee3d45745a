/* SPDX-License-Identifier: MIT */
/*
 * The commands about the device, memory, completion queues, shared receive queues, address handles
 * and multicast: what reaches the core, what comes back, and whose handles are accepted. The core
 * is a fake.
 */
#include "uverbs_fake.h"

/* ---- device ---- */

T_TEST(uverbs_cmd, tells_the_limits)
{
    /* Shows that each attribute of the device arrives in its own field, in both commands. */
    u_reset();
    int fd = u_open();
    struct ib_uverbs_query_device_resp resp;
    struct ib_uverbs_ex_query_device_resp ex;
    struct ibv_device_attr attr;

    device_query(&fake_nic, &attr);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_QUERY_DEVICE, U_REQ(ib_uverbs_query_device, 0), &resp,
                sizeof(resp)),
         0);
    T_EQ(resp.fw_ver, 3ull << 32 | 44 << 16 | 555);
    T_EQ(resp.node_guid, attr.node_guid);
    T_EQ(resp.sys_image_guid, attr.sys_image_guid);
    T_EQ(resp.max_mr_size, attr.max_mr_size);
    T_EQ(resp.page_size_cap, attr.page_size_cap);
    T_EQ(resp.vendor_id, attr.vendor_id);
    T_EQ(resp.vendor_part_id, attr.vendor_part_id);
    T_EQ(resp.hw_ver, attr.hw_ver);
    T_EQ(resp.atomic_cap, attr.atomic_cap);
    /* from here on the two structures run in parallel, 32 bits a field */
    T_MEMEQ(&resp.max_qp, &attr.max_qp,
            offsetof(struct ib_uverbs_query_device_resp, atomic_cap) -
                offsetof(struct ib_uverbs_query_device_resp, max_qp));
    T_MEMEQ(&resp.max_ee, &attr.max_ee,
            offsetof(struct ib_uverbs_query_device_resp, max_pkeys) -
                offsetof(struct ib_uverbs_query_device_resp, max_ee));
    T_EQ(resp.max_pkeys, attr.max_pkeys);
    T_EQ(resp.local_ca_ack_delay, attr.local_ca_ack_delay);
    T_EQ(resp.phys_port_cnt, attr.phys_port_cnt);

    T_EQ(u_call_ex(fd, IB_USER_VERBS_EX_CMD_QUERY_DEVICE, U_REQ(ib_uverbs_ex_query_device, 0), &ex,
                   sizeof(ex), 0),
         0);
    T_MEMEQ(&ex.base, &resp, sizeof(resp));
    T_EQ(ex.response_length, sizeof(ex));
    T_EQ(ex.comp_mask, 0);
    T_EQ(ex.odp_caps.general_caps, 0);
    T_EQ(ex.timestamp_mask, UINT64_MAX);
    T_EQ(ex.hca_core_clock, 1000000);
    T_EQ(ex.device_cap_flags_ex, attr.device_cap_flags);
    T_EQ(ex.raw_packet_caps, 0);
    T_EQ(ex.max_dm_size, 0);
    T_EQ(u_call_ex(fd, IB_USER_VERBS_EX_CMD_QUERY_DEVICE,
                   U_REQ(ib_uverbs_ex_query_device, .comp_mask = 1), &ex, sizeof(ex), 0),
         -EINVAL);
    u_close(fd);
}

T_TEST(uverbs_cmd, tells_the_port)
{
    /* Shows that each attribute of the port arrives in its own field; other ports are EINVAL. */
    u_reset();
    int fd = u_open();
    struct ib_uverbs_query_port_resp resp;
    struct ibv_port_attr attr;

    port_query(&fake_nic, 1, &attr);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_QUERY_PORT, U_REQ(ib_uverbs_query_port, .port_num = 1), &resp,
                sizeof(resp)),
         0);
    T_EQ(resp.state, attr.state);
    T_EQ(resp.max_mtu, attr.max_mtu);
    T_EQ(resp.active_mtu, attr.active_mtu);
    T_EQ(resp.gid_tbl_len, attr.gid_tbl_len);
    T_EQ(resp.port_cap_flags, attr.port_cap_flags);
    T_EQ(resp.max_msg_sz, attr.max_msg_sz);
    T_EQ(resp.bad_pkey_cntr, attr.bad_pkey_cntr);
    T_EQ(resp.qkey_viol_cntr, attr.qkey_viol_cntr);
    T_EQ(resp.pkey_tbl_len, attr.pkey_tbl_len);
    T_EQ(resp.lid, attr.lid);
    T_EQ(resp.sm_lid, attr.sm_lid);
    T_EQ(resp.lmc, attr.lmc);
    T_EQ(resp.max_vl_num, attr.max_vl_num);
    T_EQ(resp.sm_sl, attr.sm_sl);
    T_EQ(resp.subnet_timeout, attr.subnet_timeout);
    T_EQ(resp.init_type_reply, attr.init_type_reply);
    T_EQ(resp.active_width, attr.active_width);
    T_EQ(resp.active_speed, attr.active_speed);
    T_EQ(resp.phys_state, attr.phys_state);
    T_EQ(resp.link_layer, attr.link_layer);
    T_EQ(resp.flags, attr.flags);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_QUERY_PORT, U_REQ(ib_uverbs_query_port, .port_num = 2), &resp,
                sizeof(resp)),
         -EINVAL);
    u_close(fd);
}

/* ---- handles ---- */

T_TEST(uverbs_cmd, keeps_contexts_apart)
{
    /* Shows that a handle of another context, a stale one and a wild one are all EINVAL. */
    u_reset();
    int fd = u_open(), other = u_open();
    struct ib_uverbs_reg_mr_resp mr;
    uint32_t pd = u_pd(fd), cq = u_cq(fd), qp = u_qp(fd, IBV_QPT_RC);
    struct ib_uverbs_destroy_qp_resp gone;
    uint32_t bad[] = {0, UINT32_MAX, FAKE_OBJECTS, 31};

    T_EQ(u_call(other, IB_USER_VERBS_CMD_REG_MR, U_REQ(ib_uverbs_reg_mr, .pd_handle = pd), &mr,
                sizeof(mr)),
         -EINVAL);
    T_EQ(u_call(other, IB_USER_VERBS_CMD_DEALLOC_PD, U_REQ(ib_uverbs_dealloc_pd, pd), U_NO_RESP),
         -EINVAL);
    T_EQ(u_call(other, IB_USER_VERBS_CMD_REQ_NOTIFY_CQ, U_REQ(ib_uverbs_req_notify_cq, cq, 0),
                U_NO_RESP),
         -EINVAL);
    T_EQ(u_call(other, IB_USER_VERBS_CMD_DESTROY_QP, U_REQ(ib_uverbs_destroy_qp, .qp_handle = qp),
                &gone, sizeof(gone)),
         -EINVAL);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        T_EQ(u_call(fd, IB_USER_VERBS_CMD_DEALLOC_PD, U_REQ(ib_uverbs_dealloc_pd, bad[i]),
                    U_NO_RESP),
             -EINVAL);
        T_EQ(u_call(fd, IB_USER_VERBS_CMD_DEREG_MR, U_REQ(ib_uverbs_dereg_mr, bad[i]), U_NO_RESP),
             -EINVAL);
    }
    fake.fail = -EBUSY;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_DESTROY_QP, U_REQ(ib_uverbs_destroy_qp, .qp_handle = qp),
                &gone, sizeof(gone)),
         -EBUSY);
    T_EQ(fake.destroy_hooks, 0);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_DESTROY_QP, U_REQ(ib_uverbs_destroy_qp, .qp_handle = qp),
                &gone, sizeof(gone)),
         0);
    T_EQ(gone.events_reported, 44);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_DESTROY_QP, U_REQ(ib_uverbs_destroy_qp, .qp_handle = qp),
                &gone, sizeof(gone)),
         -EINVAL);
    T_EQ(fake.destroy_hooks, 1);
    u_close(fd);
    u_close(other);
}

/* ---- memory ---- */

T_TEST(uverbs_cmd, registers_memory)
{
    /* Shows what of REG_MR and REREG_MR reaches the core, and that optional flags do not. */
    u_reset();
    int fd = u_open();
    uint32_t pd = u_pd(fd), second = u_pd(fd);
    struct ib_uverbs_reg_mr_resp resp;
    struct ib_uverbs_rereg_mr_resp again;
    struct ib_uverbs_reg_mr reg = {.start = 0x7001234,
                                   .length = 100,
                                   .hca_va = 0x9234,
                                   .pd_handle = pd,
                                   .access_flags = IBV_ACCESS_REMOTE_READ | 1u << 20};
    struct ib_uverbs_rereg_mr rereg = {.flags = IBV_REREG_MR_CHANGE_PD, .pd_handle = second};

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_REG_MR, &reg, sizeof(reg), &resp, sizeof(resp)), 0);
    T_EQ(fake.mr.addr, 0x7001234);
    T_EQ(fake.mr.length, 100);
    T_EQ(fake.mr.iova, 0x9234);
    T_EQ(fake.mr.access, IBV_ACCESS_REMOTE_READ);
    T_EQ(resp.mr_handle, fake.mr.handle);
    T_EQ(resp.lkey, fake.mr.key);
    T_EQ(resp.rkey, fake.mr.key);
    reg.hca_va = 0x9235;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_REG_MR, &reg, sizeof(reg), &resp, sizeof(resp)), -EINVAL);

    rereg.mr_handle = resp.mr_handle;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_REREG_MR, &rereg, sizeof(rereg), &again, sizeof(again)), 0);
    T_EQ(fake.rereg_flags, IBV_REREG_MR_CHANGE_PD);
    T_EQ(fake.mr.pd->handle, second);
    T_EQ(again.lkey, resp.lkey + 1);
    rereg.flags = 0;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_REREG_MR, &rereg, sizeof(rereg), &again, sizeof(again)),
         -EINVAL);
    rereg.flags = 8;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_REREG_MR, &rereg, sizeof(rereg), &again, sizeof(again)),
         -EOPNOTSUPP);
    rereg.flags = IBV_REREG_MR_CHANGE_PD;
    rereg.pd_handle = 30;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_REREG_MR, &rereg, sizeof(rereg), &again, sizeof(again)),
         -EINVAL);

    fake.fail = -EBUSY;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_DEREG_MR, U_REQ(ib_uverbs_dereg_mr, resp.mr_handle),
                U_NO_RESP),
         -EBUSY);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_DEREG_MR, U_REQ(ib_uverbs_dereg_mr, resp.mr_handle),
                U_NO_RESP),
         0);
    u_close(fd);
}

T_TEST(uverbs_cmd, makes_windows)
{
    /* Shows both types of memory windows, and that there is no third. */
    u_reset();
    int fd = u_open();
    uint32_t pd = u_pd(fd);
    struct ib_uverbs_alloc_mw_resp resp;

    for (uint8_t type = 0; type < 4; type++) {
        int expected = type == 1 || type == 2 ? 0 : -EINVAL;

        T_EQ(u_call(fd, IB_USER_VERBS_CMD_ALLOC_MW,
                    U_REQ(ib_uverbs_alloc_mw, .pd_handle = pd, .mw_type = type), &resp,
                    sizeof(resp)),
             expected);
    }
    T_EQ(resp.rkey, resp.mw_handle << 8);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_DEALLOC_MW, U_REQ(ib_uverbs_dealloc_mw, resp.mw_handle),
                U_NO_RESP),
         0);
    u_close(fd);
}

/* ---- completion queues ---- */

struct cq_resp {
    struct ib_uverbs_create_cq_resp core;
    struct rxe_create_cq_resp driver;
};

T_TEST(uverbs_cmd, makes_completion_queues)
{
    /* Shows creation in both forms, with the driver's answer right behind the core's. */
    u_reset();
    int fd = u_open();
    struct cq_resp resp;
    struct {
        struct ib_uverbs_ex_create_cq_resp core;
        struct rxe_create_cq_resp driver;
    } ex;
    struct ib_uverbs_create_cq req = {.cqe = 100, .comp_vector = 2, .comp_channel = -1};
    struct ib_uverbs_ex_create_cq req_ex = {
        .cqe = 50, .comp_channel = -1, .flags = IB_UVERBS_CQ_FLAGS_TIMESTAMP_COMPLETION};

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_CQ, &req, sizeof(req), &resp, sizeof(resp)), 0);
    T_EQ(resp.core.cqe, 101);
    T_EQ(resp.driver.mi.offset, 0);
    T_EQ(resp.driver.mi.size, 4096);
    T_EQ(fake.cq_vector, 2);
    T_ASSERT(!fake.cq_stamp && !fake.cq_channel);
    T_EQ(fake.cq_hooks, 1);
    T_EQ(u_call_ex(fd, IB_USER_VERBS_EX_CMD_CREATE_CQ, &req_ex, sizeof(req_ex), &ex, sizeof(ex),
                   sizeof(ex.driver)),
         0);
    T_EQ(ex.core.base.cqe, 51);
    T_EQ(ex.core.response_length, sizeof(ex.core));
    T_EQ(ex.driver.mi.size, 4096);
    T_ASSERT(fake.cq_stamp);
    T_EQ(fake.cq_hooks, 2);

    /* and what is refused */
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_CQ, &req, sizeof(req), &resp, sizeof(resp) - 8),
         -EINVAL);
    req.comp_vector = LIMIT_COMP_VECTORS;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_CQ, &req, sizeof(req), &resp, sizeof(resp)), -EINVAL);
    req = (struct ib_uverbs_create_cq){.cqe = 0, .comp_channel = -1};
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_CQ, &req, sizeof(req), &resp, sizeof(resp)), -EINVAL);
    req.cqe = LIMIT_CQE + 1;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_CQ, &req, sizeof(req), &resp, sizeof(resp)), -EINVAL);
    req_ex.flags = IB_UVERBS_CQ_FLAGS_IGNORE_OVERRUN;
    T_EQ(u_call_ex(fd, IB_USER_VERBS_EX_CMD_CREATE_CQ, &req_ex, sizeof(req_ex), &ex, sizeof(ex),
                   sizeof(ex.driver)),
         -EOPNOTSUPP);
    req_ex.comp_mask = 1;
    T_EQ(u_call_ex(fd, IB_USER_VERBS_EX_CMD_CREATE_CQ, &req_ex, sizeof(req_ex), &ex, sizeof(ex),
                   sizeof(ex.driver)),
         -EINVAL);
    T_EQ(fake.objects, 2);
    u_close(fd);
}

T_TEST(uverbs_cmd, finds_channels_by_descriptor)
{
    /* Shows that a CQ takes the channel a descriptor names, of its own context, until closed. */
    u_reset();
    int fd = u_open(), other = u_open();
    struct ib_uverbs_create_comp_channel_resp channel;
    struct cq_resp resp;
    struct ib_uverbs_create_cq req = {.cqe = 1};

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_COMP_CHANNEL, U_REQ(ib_uverbs_create_comp_channel, 0),
                &channel, sizeof(channel)),
         0);
    req.comp_channel = (int32_t)channel.fd;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_CQ, &req, sizeof(req), &resp, sizeof(resp)), 0);
    T_ASSERT(fake.cq_channel == fake_channel);
    int again = dup((int)channel.fd);
    fdtab_dup((int)channel.fd, again);
    fake.cq_channel = NULL;
    req.comp_channel = again;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_CQ, &req, sizeof(req), &resp, sizeof(resp)), 0);
    T_ASSERT(fake.cq_channel == fake_channel);
    u_close(again);
    req.comp_channel = (int32_t)channel.fd;
    T_EQ(u_call(other, IB_USER_VERBS_CMD_CREATE_CQ, &req, sizeof(req), &resp, sizeof(resp)),
         -EINVAL);
    req.comp_channel = 0;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_CQ, &req, sizeof(req), &resp, sizeof(resp)), -EINVAL);
    u_close((int)channel.fd);
    T_ASSERT(!fake_channel);
    req.comp_channel = (int32_t)channel.fd;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_CQ, &req, sizeof(req), &resp, sizeof(resp)), -EBADF);
    u_close(fd);
    u_close(other);
}

T_TEST(uverbs_cmd, resizes_arms_and_destroys)
{
    /* Shows the rest of a completion queue's life. */
    u_reset();
    int fd = u_open();
    uint32_t cq = u_cq(fd);
    struct {
        uint32_t cqe, reserved;
        struct rxe_resize_cq_resp driver;
    } resized;
    struct ib_uverbs_destroy_cq_resp gone;
    struct ib_uverbs_resize_cq resize = {.cq_handle = cq, .cqe = 200};

    T_EQ(
        u_call(fd, IB_USER_VERBS_CMD_RESIZE_CQ, &resize, sizeof(resize), &resized, sizeof(resized)),
        0);
    T_EQ(resized.cqe, 201);
    T_EQ(resized.driver.mi.size, 4096);
    resize.cqe = 0;
    T_EQ(
        u_call(fd, IB_USER_VERBS_CMD_RESIZE_CQ, &resize, sizeof(resize), &resized, sizeof(resized)),
        -EINVAL);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_REQ_NOTIFY_CQ, U_REQ(ib_uverbs_req_notify_cq, cq, 0),
                U_NO_RESP),
         0);
    T_EQ(fake.cq_armed, 1);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_REQ_NOTIFY_CQ, U_REQ(ib_uverbs_req_notify_cq, cq, 1),
                U_NO_RESP),
         0);
    T_EQ(fake.cq_armed, 2);
    fake.fail = -EBUSY;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_DESTROY_CQ, U_REQ(ib_uverbs_destroy_cq, .cq_handle = cq),
                &gone, sizeof(gone)),
         -EBUSY);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_DESTROY_CQ, U_REQ(ib_uverbs_destroy_cq, .cq_handle = cq),
                &gone, sizeof(gone)),
         0);
    T_EQ(gone.comp_events_reported, 11);
    T_EQ(gone.async_events_reported, 22);
    u_close(fd);
}

T_TEST(uverbs_cmd, polls)
{
    /* Shows that POLL_CQ takes no more completions than there is room for, and packs them. */
    u_reset();
    int fd = u_open();
    uint32_t cq = u_cq(fd);
    struct {
        uint32_t count, reserved;
        struct ib_uverbs_wc wc[3];
    } resp;
    struct ib_uverbs_poll_cq req = {.cq_handle = cq, .ne = 1000};

    for (int i = 0; i < 4; i++)
        fake.wc[i] = (struct ibv_wc){.wr_id = (uint64_t)i + 1,
                                     .status = IBV_WC_LOC_LEN_ERR,
                                     .opcode = IBV_WC_RECV,
                                     .byte_len = 5,
                                     .imm_data = 6,
                                     .qp_num = 7,
                                     .src_qp = 8,
                                     .wc_flags = IBV_WC_GRH,
                                     .sl = 9};
    fake.wc_count = 4;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POLL_CQ, &req, sizeof(req), &resp, sizeof(resp)), 0);
    T_EQ(resp.count, 3);
    T_EQ(resp.wc[2].wr_id, 3);
    T_EQ(resp.wc[0].status, IBV_WC_LOC_LEN_ERR);
    T_EQ(resp.wc[0].opcode, IBV_WC_RECV);
    T_EQ(resp.wc[0].byte_len, 5);
    T_EQ(resp.wc[0].ex.imm_data, 6);
    T_EQ(resp.wc[0].qp_num, 7);
    T_EQ(resp.wc[0].src_qp, 8);
    T_EQ(resp.wc[0].wc_flags, IBV_WC_GRH);
    T_EQ(resp.wc[0].sl, 9);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POLL_CQ, &req, sizeof(req), &resp, sizeof(resp)), 0);
    T_EQ(resp.count, 1);
    T_EQ(resp.wc[0].wr_id, 4);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_POLL_CQ, &req, sizeof(req), &resp, sizeof(resp)), 0);
    T_EQ(resp.count, 0);
    u_close(fd);
}

/* ---- shared receive queues ---- */

T_TEST(uverbs_cmd, runs_shared_receive_queues)
{
    /* Shows creation by both commands, the resize answer by its own pointer, query, destroy. */
    u_reset();
    int fd = u_open();
    struct u_srq_resp resp;
    struct {
        uint32_t handle, attr_mask, max_wr, srq_limit;
        struct rxe_modify_srq_cmd driver;
    } modify;
    struct ib_uverbs_query_srq_resp attr;
    struct ib_uverbs_destroy_srq_resp gone;
    struct mminfo info = {0};
    struct ib_uverbs_create_srq req = {
        .user_handle = 99, .pd_handle = u_pd(fd), .max_wr = 10, .max_sge = 2, .srq_limit = 3};
    struct ib_uverbs_create_xsrq xsrq = {.pd_handle = req.pd_handle, .max_wr = 1};

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_SRQ, &req, sizeof(req), &resp, sizeof(resp)), 0);
    T_EQ(fake.srq_attr.max_wr, 10);
    T_EQ(fake.srq_attr.max_sge, 2);
    T_EQ(fake.srq_attr.limit, 3);
    T_EQ(resp.max_wr, 11);
    T_EQ(resp.max_sge, 3);
    T_EQ(resp.driver.mi.size, 4096);
    T_EQ(resp.driver.srq_num, FAKE_SLOT << LIMIT_QP_BITS | resp.handle);
    T_EQ(fake.srq_hooks, 1);

    modify.handle = resp.handle;
    modify.attr_mask = IBV_SRQ_MAX_WR;
    modify.max_wr = 20;
    modify.driver.mmap_info_addr = (uintptr_t)&info;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_MODIFY_SRQ, &modify, sizeof(modify), U_NO_RESP), 0);
    T_EQ(fake.srq_attr.max_wr, 20);
    T_EQ(info.size, 4096);
    modify.driver.mmap_info_addr = 8;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_MODIFY_SRQ, &modify, sizeof(modify), U_NO_RESP), -EFAULT);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_MODIFY_SRQ, &modify, sizeof(struct ib_uverbs_modify_srq),
                U_NO_RESP),
         -EINVAL);
    modify.attr_mask = IBV_SRQ_LIMIT;
    modify.srq_limit = 4;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_MODIFY_SRQ, &modify, sizeof(modify), U_NO_RESP), 0);
    T_EQ(fake.srq_mask, IBV_SRQ_LIMIT);
    T_EQ(fake.srq_attr.limit, 4);
    modify.attr_mask = 4;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_MODIFY_SRQ, &modify, sizeof(modify), U_NO_RESP), -EINVAL);

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_QUERY_SRQ,
                U_REQ(ib_uverbs_query_srq, .srq_handle = resp.handle), &attr, sizeof(attr)),
         0);
    T_EQ(attr.max_wr, 100);
    T_EQ(attr.max_sge, 4);
    T_EQ(attr.srq_limit, 7);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_DESTROY_SRQ,
                U_REQ(ib_uverbs_destroy_srq, .srq_handle = resp.handle), &gone, sizeof(gone)),
         0);
    T_EQ(gone.events_reported, 33);

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_XSRQ, &xsrq, sizeof(xsrq), &resp, sizeof(resp)), 0);
    xsrq.srq_type = IBV_SRQT_TM;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_XSRQ, &xsrq, sizeof(xsrq), &resp, sizeof(resp)),
         -EOPNOTSUPP);
    xsrq.srq_type = 7;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_XSRQ, &xsrq, sizeof(xsrq), &resp, sizeof(resp)),
         -EINVAL);
    u_close(fd);
}

/* ---- XRC ---- */

static uint32_t open_xrcd(int fd)
{
    struct ib_uverbs_open_xrcd_resp resp;

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_OPEN_XRCD,
                U_REQ(ib_uverbs_open_xrcd, .fd = (uint32_t)-1, .oflags = O_CREAT), &resp,
                sizeof(resp)),
         0);
    T_EQ(fake.xrcd_fd, -1);
    T_EQ(fake.xrcd_oflags, O_CREAT);
    return resp.xrcd_handle;
}

T_TEST(uverbs_cmd, makes_what_belongs_to_an_xrc_domain)
{
    /* Shows that domains, their SRQs and their queue pairs reach the core with each other. */
    u_reset();
    int fd = u_open(), other = u_open();
    uint32_t xrcd = open_xrcd(fd);
    struct ib_uverbs_create_xsrq xsrq = {.pd_handle = u_pd(fd),
                                         .max_wr = 8,
                                         .srq_type = IBV_SRQT_XRC,
                                         .xrcd_handle = xrcd,
                                         .cq_handle = u_cq(fd)};
    struct ib_uverbs_open_qp open_qp = {
        .pd_handle = xrcd, .qpn = 0x4007, .qp_type = IBV_QPT_XRC_RECV};
    struct ib_uverbs_create_qp_resp qp;
    struct u_srq_resp srq;

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_XSRQ, &xsrq, sizeof(xsrq), &srq, sizeof(srq)), 0);
    T_EQ(fake.xrcd->handle, xrcd);
    T_EQ(fake.srq_cq->o.handle, xsrq.cq_handle);
    xsrq.xrcd_handle = 30;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_XSRQ, &xsrq, sizeof(xsrq), &srq, sizeof(srq)),
         -EINVAL);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_OPEN_QP, &open_qp, sizeof(open_qp), &qp, sizeof(qp)), 0);
    T_EQ(fake.opened, 0x4007);
    open_qp.qp_type = IBV_QPT_RC;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_OPEN_QP, &open_qp, sizeof(open_qp), &qp, sizeof(qp)),
         -EINVAL);
    /* it is this file's alone */
    T_EQ(u_call(other, IB_USER_VERBS_CMD_CLOSE_XRCD,
                U_REQ(ib_uverbs_close_xrcd, .xrcd_handle = xrcd), U_NO_RESP),
         -EINVAL);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CLOSE_XRCD, U_REQ(ib_uverbs_close_xrcd, .xrcd_handle = xrcd),
                U_NO_RESP),
         0);
    u_close(other);
    u_close(fd);
}

/* ---- address handles and multicast ---- */

T_TEST(uverbs_cmd, makes_address_handles)
{
    /* Shows the conversion of an address, and the driver's number for providers that ask. */
    u_reset();
    int fd = u_open();
    struct {
        uint32_t handle;
        struct rxe_create_ah_resp driver;
    } resp;
    struct ib_uverbs_create_ah req = {.pd_handle = u_pd(fd),
                                      .attr = {.grh = {.flow_label = 0x12345,
                                                       .sgid_index = 2,
                                                       .hop_limit = 3,
                                                       .traffic_class = 4,
                                                       .dgid = {[15] = 5}},
                                               .dlid = 6,
                                               .sl = 7,
                                               .src_path_bits = 8,
                                               .static_rate = 9,
                                               .is_global = 1,
                                               .port_num = 10}};

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_AH, &req, sizeof(req), &resp, sizeof(resp)), 0);
    T_ASSERT(resp.driver.ah_num != 0);
    T_EQ(resp.driver.ah_num, resp.handle);
    T_EQ(fake.ah_attr.grh.flow_label, 0x12345);
    T_EQ(fake.ah_attr.grh.sgid_index, 2);
    T_EQ(fake.ah_attr.grh.hop_limit, 3);
    T_EQ(fake.ah_attr.grh.traffic_class, 4);
    T_EQ(fake.ah_attr.grh.dgid.raw[15], 5);
    T_EQ(fake.ah_attr.dlid, 6);
    T_EQ(fake.ah_attr.sl, 7);
    T_EQ(fake.ah_attr.src_path_bits, 8);
    T_EQ(fake.ah_attr.static_rate, 9);
    T_EQ(fake.ah_attr.is_global, 1);
    T_EQ(fake.ah_attr.port_num, 10);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_AH, &req, sizeof(req), &resp, sizeof(resp.handle)), 0);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_DESTROY_AH, U_REQ(ib_uverbs_destroy_ah, resp.handle),
                U_NO_RESP),
         0);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_DESTROY_AH, U_REQ(ib_uverbs_destroy_ah, resp.handle),
                U_NO_RESP),
         -EINVAL);
    u_close(fd);
}

T_TEST(uverbs_cmd, joins_groups)
{
    /* Shows that attach and detach hand over the group and need a queue pair. */
    u_reset();
    int fd = u_open();
    struct ib_uverbs_attach_mcast req = {.gid = {0xff, 0x0e}, .qp_handle = u_qp(fd, IBV_QPT_UD)};

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_ATTACH_MCAST, &req, sizeof(req), U_NO_RESP), 0);
    T_EQ(fake.mgid[1], 0x0e);
    fake.fail = -EINVAL;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_DETACH_MCAST, &req, sizeof(req), U_NO_RESP), -EINVAL);
    req.qp_handle = 30;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_ATTACH_MCAST, &req, sizeof(req), U_NO_RESP), -EINVAL);
    u_close(fd);
}
