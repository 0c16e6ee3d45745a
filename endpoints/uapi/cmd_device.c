/* SPDX-License-Identifier: MIT */
/* Commands about the device as a whole: open a context, ask for limits and for the port. */
#include <errno.h>
#include <stdio.h>

#include "core/limits.h"
#include "uapi/cmd.h"

int cmd_get_context(struct cmd *cmd)
{
    struct ib_uverbs_get_context_resp *resp = (void *)cmd->resp;
    struct context *context;
    int err;

    if (cmd->context)
        return -EINVAL;
    err = context_open(cmd->file->nic, &context);
    if (err)
        return err == -ENODEV ? -EIO : err; /* it went after the program had opened the file */
    atomic_store_explicit(&cmd->file->context, context, memory_order_release);
    resp->async_fd = (uint32_t)context->async_fd;
    resp->num_comp_vectors = LIMIT_COMP_VECTORS;
    return 0;
}

/* "1.2.3" as the provider takes it apart again: 16 bits each, above the lowest 16 of them. */
static uint64_t version_pack(const char *version)
{
    unsigned major = 0, minor = 0, patch = 0;

    sscanf(version, "%u.%u.%u", &major, &minor, &patch);
    return (uint64_t)(major & 0xffff) << 32 | (minor & 0xffff) << 16 | (patch & 0xffff);
}

static void device_pack(const struct ibv_device_attr *attr,
                        struct ib_uverbs_query_device_resp *resp)
{
    *resp = (struct ib_uverbs_query_device_resp){
        .fw_ver = version_pack(attr->fw_ver),
        .node_guid = attr->node_guid,
        .sys_image_guid = attr->sys_image_guid,
        .max_mr_size = attr->max_mr_size,
        .page_size_cap = attr->page_size_cap,
        .vendor_id = attr->vendor_id,
        .vendor_part_id = attr->vendor_part_id,
        .hw_ver = attr->hw_ver,
        .max_qp = (uint32_t)attr->max_qp,
        .max_qp_wr = (uint32_t)attr->max_qp_wr,
        .device_cap_flags = attr->device_cap_flags,
        .max_sge = (uint32_t)attr->max_sge,
        .max_sge_rd = (uint32_t)attr->max_sge_rd,
        .max_cq = (uint32_t)attr->max_cq,
        .max_cqe = (uint32_t)attr->max_cqe,
        .max_mr = (uint32_t)attr->max_mr,
        .max_pd = (uint32_t)attr->max_pd,
        .max_qp_rd_atom = (uint32_t)attr->max_qp_rd_atom,
        .max_ee_rd_atom = (uint32_t)attr->max_ee_rd_atom,
        .max_res_rd_atom = (uint32_t)attr->max_res_rd_atom,
        .max_qp_init_rd_atom = (uint32_t)attr->max_qp_init_rd_atom,
        .max_ee_init_rd_atom = (uint32_t)attr->max_ee_init_rd_atom,
        .atomic_cap = attr->atomic_cap,
        .max_ee = (uint32_t)attr->max_ee,
        .max_rdd = (uint32_t)attr->max_rdd,
        .max_mw = (uint32_t)attr->max_mw,
        .max_raw_ipv6_qp = (uint32_t)attr->max_raw_ipv6_qp,
        .max_raw_ethy_qp = (uint32_t)attr->max_raw_ethy_qp,
        .max_mcast_grp = (uint32_t)attr->max_mcast_grp,
        .max_mcast_qp_attach = (uint32_t)attr->max_mcast_qp_attach,
        .max_total_mcast_qp_attach = (uint32_t)attr->max_total_mcast_qp_attach,
        .max_ah = (uint32_t)attr->max_ah,
        .max_fmr = (uint32_t)attr->max_fmr,
        .max_map_per_fmr = (uint32_t)attr->max_map_per_fmr,
        .max_srq = (uint32_t)attr->max_srq,
        .max_srq_wr = (uint32_t)attr->max_srq_wr,
        .max_srq_sge = (uint32_t)attr->max_srq_sge,
        .max_pkeys = attr->max_pkeys,
        .local_ca_ack_delay = attr->local_ca_ack_delay,
        .phys_port_cnt = attr->phys_port_cnt,
    };
}

int cmd_query_device(struct cmd *cmd)
{
    struct ibv_device_attr attr = {0};

    device_query(cmd->file->nic, &attr);
    device_pack(&attr, (void *)cmd->resp);
    return 0;
}

/*
 * Zero stands for what we don't have: on-demand paging, receive side scaling, tag matching, raw
 * packets, CQ moderation, device memory.
 */
int cmd_query_device_ex(struct cmd *cmd)
{
    const struct ib_uverbs_ex_query_device *req = cmd->req;
    struct ib_uverbs_ex_query_device_resp *resp = (void *)cmd->resp;
    struct ibv_device_attr attr = {0};

    if (req->comp_mask || req->reserved)
        return -EINVAL;
    device_query(cmd->file->nic, &attr);
    device_pack(&attr, &resp->base);
    resp->response_length = cmd_response_length(cmd, sizeof(*resp));
    /* completions are stamped in nanoseconds: a clock of 10^6 kHz that uses all 64 bits */
    resp->timestamp_mask = UINT64_MAX;
    resp->hca_core_clock = 1000000;
    resp->device_cap_flags_ex = attr.device_cap_flags;
    return 0;
}

int cmd_query_port(struct cmd *cmd)
{
    const struct ib_uverbs_query_port *req = cmd->req;
    struct ib_uverbs_query_port_resp *resp = (void *)cmd->resp;
    struct ibv_port_attr attr = {0};
    int err = port_query(cmd->file->nic, req->port_num, &attr);

    if (err)
        return err;
    *resp = (struct ib_uverbs_query_port_resp){
        .port_cap_flags = attr.port_cap_flags,
        .max_msg_sz = attr.max_msg_sz,
        .bad_pkey_cntr = attr.bad_pkey_cntr,
        .qkey_viol_cntr = attr.qkey_viol_cntr,
        .gid_tbl_len = (uint32_t)attr.gid_tbl_len,
        .pkey_tbl_len = attr.pkey_tbl_len,
        .lid = attr.lid,
        .sm_lid = attr.sm_lid,
        .state = (uint8_t)attr.state,
        .max_mtu = (uint8_t)attr.max_mtu,
        .active_mtu = (uint8_t)attr.active_mtu,
        .lmc = attr.lmc,
        .max_vl_num = attr.max_vl_num,
        .sm_sl = attr.sm_sl,
        .subnet_timeout = attr.subnet_timeout,
        .init_type_reply = attr.init_type_reply,
        .active_width = attr.active_width,
        .active_speed = attr.active_speed,
        .phys_state = attr.phys_state,
        .link_layer = attr.link_layer,
        .flags = attr.flags,
    };
    return 0;
}
