/* SPDX-License-Identifier: MIT */
/* The commands that connect: listen, connect, accept, reject, disconnect, groups, queue pairs. */
#include <errno.h>
#include <rdma/ib_user_verbs.h>
#include <string.h>

#include "uapi/ucma.h"

static void take_params(const struct rdma_ucm_conn_param *from, struct cma_params *params_out)
{
    *params_out = (struct cma_params){
        .qpn = from->qp_num & 0xffffff,
        .qkey = from->qkey,
        .responder_resources = from->responder_resources,
        .initiator_depth = from->initiator_depth,
        .flow_control = from->flow_control,
        .retry_count = from->retry_count,
        .rnr_retry = from->rnr_retry_count,
        .srq = from->srq,
        .private_len = from->private_data_len,
    };
    memcpy(params_out->private_data, from->private_data, from->private_data_len);
}

int ucma_listen(struct ucma_call *call)
{
    const struct rdma_ucm_listen *req = (const void *)call->req;
    struct ucma_id *id;
    int error = ucma_find(call->file, req->id, &id);

    return error ? error : cma_listen(id->cma, req->backlog);
}

int ucma_connect(struct ucma_call *call)
{
    const struct rdma_ucm_connect *req = (const void *)call->req;
    struct cma_params params;
    struct ucma_id *id;
    int error = ucma_find(call->file, req->id, &id);

    if (error || !req->conn_param.valid)
        return error ? error : -EINVAL;
    take_params(&req->conn_param, &params);
    return cma_connect(id->cma, &params);
}

/* From now on the identifier is the program's: events bear its name for it. */
int ucma_accept(struct ucma_call *call)
{
    const struct rdma_ucm_accept *req = (const void *)call->req;
    struct cma_params params;
    struct ucma_id *id;
    int error = ucma_find(call->file, req->id, &id);

    if (error)
        return error;
    if (!req->conn_param.valid)
        return cma_accept(id->cma, NULL);
    take_params(&req->conn_param, &params);
    error = cma_accept(id->cma, &params);
    if (!error)
        id->uid = req->uid;
    return error;
}

int ucma_reject(struct ucma_call *call)
{
    const struct rdma_ucm_reject *req = (const void *)call->req;
    struct ucma_id *id;
    int error = ucma_find(call->file, req->id, &id);

    return error ? error
                 : cma_reject(id->cma, req->reason, req->private_data, req->private_data_len);
}

int ucma_disconnect(struct ucma_call *call)
{
    const struct rdma_ucm_disconnect *req = (const void *)call->req;
    struct ucma_id *id;
    int error = ucma_find(call->file, req->id, &id);

    return error ? error : cma_disconnect(id->cma);
}

int ucma_notify(struct ucma_call *call)
{
    const struct rdma_ucm_notify *req = (const void *)call->req;
    struct ucma_id *id;
    int error = ucma_find(call->file, req->id, &id);

    if (error)
        return error;
    return req->event == IBV_EVENT_COMM_EST ? cma_notify_established(id->cma) : -EINVAL;
}

/* ---- queue pairs ---- */

static void put_attr(const struct ibv_qp_attr *attr, struct ib_uverbs_qp_attr *out)
{
    out->qp_state = attr->qp_state;
    out->cur_qp_state = attr->cur_qp_state;
    out->path_mtu = attr->path_mtu;
    out->qkey = attr->qkey;
    out->rq_psn = attr->rq_psn;
    out->sq_psn = attr->sq_psn;
    out->dest_qp_num = attr->dest_qp_num;
    out->qp_access_flags = (uint32_t)attr->qp_access_flags;
    memcpy(out->ah_attr.grh.dgid, attr->ah_attr.grh.dgid.raw, 16);
    out->ah_attr.grh.sgid_index = attr->ah_attr.grh.sgid_index;
    out->ah_attr.grh.hop_limit = attr->ah_attr.grh.hop_limit;
    out->ah_attr.grh.traffic_class = attr->ah_attr.grh.traffic_class;
    out->ah_attr.is_global = attr->ah_attr.is_global;
    out->ah_attr.port_num = attr->ah_attr.port_num;
    out->pkey_index = attr->pkey_index;
    out->max_rd_atomic = attr->max_rd_atomic;
    out->max_dest_rd_atomic = attr->max_dest_rd_atomic;
    out->min_rnr_timer = attr->min_rnr_timer;
    out->port_num = attr->port_num;
    out->timeout = attr->timeout;
    out->retry_cnt = attr->retry_cnt;
    out->rnr_retry = attr->rnr_retry;
}

int ucma_init_qp_attr(struct ucma_call *call)
{
    const struct rdma_ucm_init_qp_attr *req = (const void *)call->req;
    struct ib_uverbs_qp_attr *resp = (void *)call->resp;
    struct ibv_qp_attr attr = {0};
    struct ucma_id *id;
    int mask, error = ucma_find(call->file, req->id, &id);

    if (error || req->qp_state > IBV_QPS_ERR)
        return error ? error : -EINVAL;
    attr.qp_state = req->qp_state;
    error = cma_init_qp_attr(id->cma, &attr, &mask);
    if (error)
        return error;
    put_attr(&attr, resp);
    resp->qp_attr_mask = (uint32_t)mask;
    call->resp_len = sizeof(*resp);
    return 0;
}

/* ---- groups ---- */

static int join(struct ucma_call *call, uint32_t handle, uint64_t uid, const struct cma_addr *addr)
{
    struct rdma_ucm_create_id_resp *resp = (void *)call->resp;
    struct cma_event event;
    struct ucma_id *id;
    int error = ucma_find(call->file, handle, &id);

    if (!error)
        error = cma_join(id->cma, addr, &event);
    if (error)
        return error;
    struct ucma_mcast *mcast = ucma_mcast_new(id, uid);
    if (!mcast)
        return -ENOMEM;
    if (!ucma_post(id, mcast, NULL, &event)) {
        ucma_mcast_free(mcast);
        return -ENOMEM;
    }
    resp->id = mcast->handle;
    call->resp_len = sizeof(*resp);
    return 0;
}

int ucma_join_ip_mcast(struct ucma_call *call)
{
    const struct rdma_ucm_join_ip_mcast *req = (const void *)call->req;
    struct cma_addr addr;
    int error = ucma_addr_in(&req->addr, sizeof(req->addr), &addr);

    return error ? error : join(call, req->id, req->uid, &addr);
}

int ucma_join_mcast(struct ucma_call *call)
{
    const struct rdma_ucm_join_mcast *req = (const void *)call->req;
    struct cma_addr addr;

    if (!req->addr_size || req->addr_size > sizeof(req->addr) ||
        req->join_flags >= RDMA_MC_JOIN_FLAG_RESERVED)
        return -EINVAL;
    int error = ucma_addr_in(&req->addr, req->addr_size, &addr);
    return error ? error : join(call, req->id, req->uid, &addr);
}

int ucma_leave_mcast(struct ucma_call *call)
{
    const struct rdma_ucm_destroy_id *req = (const void *)call->req;
    struct rdma_ucm_destroy_id_resp *resp = (void *)call->resp;
    struct ucma_mcast *mcast;
    int error = ucma_mcast_find(call->file, req->id, &mcast);

    if (error)
        return error;
    resp->events_reported = mcast->events_reported;
    call->resp_len = sizeof(*resp);
    ucma_mcast_free(mcast);
    return 0;
}
