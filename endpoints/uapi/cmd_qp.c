/* SPDX-License-Identifier: MIT */
/* Queue pairs, their multicast groups, and address handles. */
#include <errno.h>
#include <infiniband/verbs.h>
#include <string.h>
#include <time.h>

#include "core/limits.h"
#include "uapi/cmd.h"
#include "core/xrcd.h"
#include "uapi/fastpath.h"
#include "uapi/xrc.h"

enum { LEAVE_PAUSES = 2000 }; /* of 0.1 ms */

struct qp *cmd_qp(const struct cmd *cmd, uint32_t handle)
{
    struct qp *qp = qp_get(handle);

    return qp && qp_context(qp) == cmd->context && qp_is_for_programs(qp) ? qp : NULL;
}

/* 0, or which of the two ways there is not to have a type. */
static int type_check(uint8_t type)
{
    switch (type) {
    case IBV_QPT_RC:
    case IBV_QPT_UC:
    case IBV_QPT_UD:
    case IBV_QPT_XRC_SEND:
    case IBV_QPT_XRC_RECV:
        return 0;
    case IBV_QPT_RAW_PACKET:
    case IBV_QPT_DRIVER:
        return -EOPNOTSUPP;
    default:
        return -EINVAL;
    }
}

/* Neither end of XRC has a receive queue; the receiving one has a domain instead of all else. */
static int init_unpack(const struct cmd *cmd, const struct ib_uverbs_ex_create_qp *req,
                       struct qp_init *init_out)
{
    bool receives = req->qp_type != IBV_QPT_XRC_SEND;

    *init_out = (struct qp_init){
        .type = req->qp_type,
        .sq_sig_all = req->sq_sig_all,
        .user_handle = req->user_handle,
    };
    if (req->qp_type == IBV_QPT_XRC_RECV) {
        init_out->xrcd = cmd_xrcd(cmd, req->pd_handle);
        return init_out->xrcd ? 0 : -EINVAL;
    }
    init_out->pd = cmd_pd(cmd, req->pd_handle);
    init_out->send_cq = cmd_cq(cmd, req->send_cq_handle);
    init_out->recv_cq = receives ? cmd_cq(cmd, req->recv_cq_handle) : NULL;
    init_out->srq = receives && req->is_srq ? cmd_srq(cmd, req->srq_handle) : NULL;
    init_out->cap = (struct ibv_qp_cap){req->max_send_wr, req->max_recv_wr, req->max_send_sge,
                                        req->max_recv_sge, req->max_inline_data};
    if (!init_out->pd || !init_out->send_cq || (receives && !init_out->recv_cq))
        return -EINVAL;
    return receives && req->is_srq && !init_out->srq ? -EINVAL : 0;
}

static int qp_make(struct cmd *cmd, const struct ib_uverbs_ex_create_qp *req,
                   struct ib_uverbs_create_qp_resp *resp)
{
    struct rxe_create_qp_resp *driver = cmd_driver_resp(cmd, sizeof(*driver));
    const struct xrc_meant *meant = xrc_meant();
    struct ib_uverbs_ex_create_qp real = *req;
    struct ibv_qp_cap cap = {0};
    struct qp_init init;
    struct qp *qp;

    if (meant) {
        real.qp_type = (uint8_t)meant->type;
        real.pd_handle = meant->type == IBV_QPT_XRC_RECV ? meant->xrcd : req->pd_handle;
    }
    int err = type_check(real.qp_type);
    if (!err)
        err = driver ? init_unpack(cmd, &real, &init) : -EINVAL;
    if (!err)
        err = meant && meant->open ? qp_open(init.xrcd, meant->qpn, init.user_handle, &qp)
                                   : qp_create(&init, &qp, &cap);
    if (err)
        return err;
    *resp = (struct ib_uverbs_create_qp_resp){
        .qp_handle = qp_handle(qp),
        .qpn = qp_number(qp),
        .max_send_wr = cap.max_send_wr,
        .max_recv_wr = cap.max_recv_wr,
        .max_send_sge = cap.max_send_sge,
        .max_recv_sge = cap.max_recv_sge,
        .max_inline_data = cap.max_inline_data,
    };
    driver->rq_mi = cmd_ring_info();
    driver->sq_mi = cmd_ring_info();
    fastpath_qp_created(qp);
    return 0;
}

int cmd_create_qp(struct cmd *cmd)
{
    const struct ib_uverbs_create_qp *req = cmd->req;
    struct ib_uverbs_ex_create_qp ex = {
        .user_handle = req->user_handle,
        .pd_handle = req->pd_handle,
        .send_cq_handle = req->send_cq_handle,
        .recv_cq_handle = req->recv_cq_handle,
        .srq_handle = req->srq_handle,
        .max_send_wr = req->max_send_wr,
        .max_recv_wr = req->max_recv_wr,
        .max_send_sge = req->max_send_sge,
        .max_recv_sge = req->max_recv_sge,
        .max_inline_data = req->max_inline_data,
        .sq_sig_all = req->sq_sig_all,
        .qp_type = req->qp_type,
        .is_srq = req->is_srq,
    };

    return qp_make(cmd, &ex, (void *)cmd->resp);
}

int cmd_create_qp_ex(struct cmd *cmd)
{
    const struct ib_uverbs_ex_create_qp *req = cmd->req;
    struct ib_uverbs_ex_create_qp_resp *resp = (void *)cmd->resp;

    if (req->comp_mask & ~(uint32_t)IB_UVERBS_CREATE_QP_SUP_COMP_MASK || req->reserved)
        return -EINVAL;
    /* what is left needs receive side scaling or raw packets */
    if (req->comp_mask || req->create_flags || req->source_qpn)
        return -EOPNOTSUPP;
    resp->response_length = cmd_response_length(cmd, sizeof(*resp));
    return qp_make(cmd, req, &resp->base);
}

/*
 * Datagrams that were posted have left as on a wire, though the program does not wait for their
 * completions: those whose receiver is still being connected to get the time for that.
 */
static struct qp *destroyable_qp(struct cmd *cmd, uint32_t handle)
{
    static const struct timespec pause = {.tv_nsec = 100000};
    struct qp *qp = cmd_qp(cmd, handle);

    for (int i = 0; i < LEAVE_PAUSES && qp && qp_has_datagrams_to_send(qp); i++) {
        core_unlock();
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        core_lock();
        qp = cmd_qp(cmd, handle); /* somebody else may have destroyed it */
    }
    return qp;
}

int cmd_destroy_qp(struct cmd *cmd)
{
    const struct ib_uverbs_destroy_qp *req = cmd->req;
    struct ib_uverbs_destroy_qp_resp *resp = (void *)cmd->resp;
    struct qp *qp = destroyable_qp(cmd, req->qp_handle);

    if (!qp)
        return -EINVAL;
    uint32_t qpn = qp_number(qp);
    int err = qp_destroy(qp, &resp->events_reported);
    if (!err)
        fastpath_qp_destroyed(qpn);
    return err;
}

/* ---- multicast: attach and detach have the same layout ---- */

int cmd_attach_mcast(struct cmd *cmd)
{
    const struct ib_uverbs_attach_mcast *req = cmd->req;
    struct qp *qp = cmd_qp(cmd, req->qp_handle);

    return qp ? mcast_attach(qp, req->gid) : -EINVAL;
}

int cmd_detach_mcast(struct cmd *cmd)
{
    const struct ib_uverbs_detach_mcast *req = cmd->req;
    struct qp *qp = cmd_qp(cmd, req->qp_handle);

    return qp ? mcast_detach(qp, req->gid) : -EINVAL;
}

/* ---- address handles ---- */

struct ah *cmd_ah(const struct cmd *cmd, uint32_t handle)
{
    struct ah *ah = ah_get(handle);

    return ah && ah->context == cmd->context ? ah : NULL;
}

int cmd_create_ah(struct cmd *cmd)
{
    const struct ib_uverbs_create_ah *req = cmd->req;
    struct ib_uverbs_create_ah_resp *resp = (void *)cmd->resp;
    const struct ib_uverbs_global_route *grh = &req->attr.grh;
    struct pd *pd = cmd_pd(cmd, req->pd_handle);
    struct ibv_ah_attr attr = {
        .grh = {.flow_label = grh->flow_label,
                .sgid_index = grh->sgid_index,
                .hop_limit = grh->hop_limit,
                .traffic_class = grh->traffic_class},
        .dlid = req->attr.dlid,
        .sl = req->attr.sl,
        .src_path_bits = req->attr.src_path_bits,
        .static_rate = req->attr.static_rate,
        .is_global = req->attr.is_global,
        .port_num = req->attr.port_num,
    };
    struct rxe_create_ah_resp *driver;
    struct ah *ah;
    int err;

    if (!pd)
        return -EINVAL;
    memcpy(attr.grh.dgid.raw, grh->dgid, sizeof(grh->dgid));
    err = ah_create(pd, &attr, &ah);
    if (err)
        return err;
    resp->ah_handle = ah->handle;
    /* Only newer providers ask; with a number they don't try to resolve the neighbour. */
    driver = cmd_driver_resp(cmd, sizeof(*driver));
    if (driver)
        driver->ah_num = ah->handle;
    return 0;
}

int cmd_destroy_ah(struct cmd *cmd)
{
    const struct ib_uverbs_destroy_ah *req = cmd->req;
    struct ah *ah = cmd_ah(cmd, req->ah_handle);

    return ah ? ah_destroy(ah) : -EINVAL;
}
