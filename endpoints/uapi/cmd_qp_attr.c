/* SPDX-License-Identifier: MIT */
/*
 * MODIFY_QP and QUERY_QP: every attribute between the command's layout and the core's. Values pass
 * as they are, good or bad: what they may be is core's to say.
 */
#include <errno.h>
#include <infiniband/verbs.h>
#include <string.h>

#include "uapi/cmd.h"
#include "uapi/fastpath.h"

/* All but rate limits, which need hardware that paces: rxe refuses them, and so do we. */
#define ATTR_KNOWN ((uint32_t)IBV_QP_RATE_LIMIT - 1)

static void path_unpack(const struct ib_uverbs_qp_dest *dest, struct ibv_ah_attr *attr_out)
{
    *attr_out = (struct ibv_ah_attr){
        .grh = {.flow_label = dest->flow_label,
                .sgid_index = dest->sgid_index,
                .hop_limit = dest->hop_limit,
                .traffic_class = dest->traffic_class},
        .dlid = dest->dlid,
        .sl = dest->sl,
        .src_path_bits = dest->src_path_bits,
        .static_rate = dest->static_rate,
        .is_global = dest->is_global,
        .port_num = dest->port_num,
    };
    memcpy(attr_out->grh.dgid.raw, dest->dgid, sizeof(dest->dgid));
}

static void path_pack(const struct ibv_ah_attr *attr, struct ib_uverbs_qp_dest *dest_out)
{
    *dest_out = (struct ib_uverbs_qp_dest){
        .flow_label = attr->grh.flow_label,
        .dlid = attr->dlid,
        .sgid_index = attr->grh.sgid_index,
        .hop_limit = attr->grh.hop_limit,
        .traffic_class = attr->grh.traffic_class,
        .sl = attr->sl,
        .src_path_bits = attr->src_path_bits,
        .static_rate = attr->static_rate,
        .is_global = attr->is_global,
        .port_num = attr->port_num,
    };
    memcpy(dest_out->dgid, attr->grh.dgid.raw, sizeof(dest_out->dgid));
}

static void attr_unpack(const struct ib_uverbs_modify_qp *req, struct ibv_qp_attr *attr_out)
{
    *attr_out = (struct ibv_qp_attr){
        .qp_state = req->qp_state,
        .cur_qp_state = req->cur_qp_state,
        .path_mtu = req->path_mtu,
        .path_mig_state = req->path_mig_state,
        .qkey = req->qkey,
        .rq_psn = req->rq_psn,
        .sq_psn = req->sq_psn,
        .dest_qp_num = req->dest_qp_num,
        .qp_access_flags = req->qp_access_flags,
        .pkey_index = req->pkey_index,
        .alt_pkey_index = req->alt_pkey_index,
        .en_sqd_async_notify = req->en_sqd_async_notify,
        .max_rd_atomic = req->max_rd_atomic,
        .max_dest_rd_atomic = req->max_dest_rd_atomic,
        .min_rnr_timer = req->min_rnr_timer,
        .port_num = req->port_num,
        .timeout = req->timeout,
        .retry_cnt = req->retry_cnt,
        .rnr_retry = req->rnr_retry,
        .alt_port_num = req->alt_port_num,
        .alt_timeout = req->alt_timeout,
    };
    path_unpack(&req->dest, &attr_out->ah_attr);
    path_unpack(&req->alt_dest, &attr_out->alt_ah_attr);
}

static int qp_change(struct cmd *cmd, const struct ib_uverbs_modify_qp *req)
{
    struct qp *qp = cmd_qp(cmd, req->qp_handle);
    struct ibv_qp_init_attr init;
    struct ibv_qp_attr attr;
    int err;

    if (req->attr_mask & ~ATTR_KNOWN)
        return -EOPNOTSUPP;
    if (!qp || (req->attr_mask & IBV_QP_STATE && req->qp_state > IBV_QPS_ERR) ||
        (req->attr_mask & IBV_QP_CUR_STATE && req->cur_qp_state > IBV_QPS_ERR))
        return -EINVAL;
    attr_unpack(req, &attr);
    err = qp_modify(qp, &attr, (int)req->attr_mask);
    if (err)
        return err;
    qp_query(qp, &attr, &init);
    fastpath_qp_modified(qp, attr.qp_state);
    return 0;
}

int cmd_modify_qp(struct cmd *cmd)
{
    return qp_change(cmd, cmd->req);
}

int cmd_modify_qp_ex(struct cmd *cmd)
{
    const struct ib_uverbs_ex_modify_qp *req = cmd->req;
    struct ib_uverbs_ex_modify_qp_resp *resp = (void *)cmd->resp;

    resp->response_length = cmd_response_length(cmd, sizeof(*resp));
    return qp_change(cmd, &req->base);
}

int cmd_query_qp(struct cmd *cmd)
{
    const struct ib_uverbs_query_qp *req = cmd->req;
    struct ib_uverbs_query_qp_resp *resp = (void *)cmd->resp;
    struct qp *qp = cmd_qp(cmd, req->qp_handle);
    struct ibv_qp_init_attr init = {0};
    struct ibv_qp_attr attr = {0};

    if (!qp)
        return -EINVAL;
    qp_query(qp, &attr, &init);
    *resp = (struct ib_uverbs_query_qp_resp){
        .max_send_wr = attr.cap.max_send_wr,
        .max_recv_wr = attr.cap.max_recv_wr,
        .max_send_sge = attr.cap.max_send_sge,
        .max_recv_sge = attr.cap.max_recv_sge,
        .max_inline_data = attr.cap.max_inline_data,
        .qkey = attr.qkey,
        .rq_psn = attr.rq_psn,
        .sq_psn = attr.sq_psn,
        .dest_qp_num = attr.dest_qp_num,
        .qp_access_flags = attr.qp_access_flags,
        .pkey_index = attr.pkey_index,
        .alt_pkey_index = attr.alt_pkey_index,
        .qp_state = (uint8_t)attr.qp_state,
        .cur_qp_state = (uint8_t)attr.cur_qp_state,
        .path_mtu = (uint8_t)attr.path_mtu,
        .path_mig_state = (uint8_t)attr.path_mig_state,
        .sq_draining = attr.sq_draining,
        .max_rd_atomic = attr.max_rd_atomic,
        .max_dest_rd_atomic = attr.max_dest_rd_atomic,
        .min_rnr_timer = attr.min_rnr_timer,
        .port_num = attr.port_num,
        .timeout = attr.timeout,
        .retry_cnt = attr.retry_cnt,
        .rnr_retry = attr.rnr_retry,
        .alt_port_num = attr.alt_port_num,
        .alt_timeout = attr.alt_timeout,
        .sq_sig_all = (uint8_t)(init.sq_sig_all != 0),
    };
    path_pack(&attr.ah_attr, &resp->dest);
    path_pack(&attr.alt_ah_attr, &resp->alt_dest);
    return 0;
}
