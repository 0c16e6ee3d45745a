/* SPDX-License-Identifier: MIT */
/* What the connection manager knows that a queue pair must be told (IBTA 12.9.8, rdma_cm(7)). */
#include <errno.h>
#include <string.h>

#include "core/cma_impl.h"

enum { RNR_TIMER_MIN = 0 };

/* A queue pair may be made before there is a connection: it begins without rights. */
static int init_alone(struct cma_id *id, struct ibv_qp_attr *attr)
{
    int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT;

    attr->port_num = 1;
    if (cma_is_datagram(id)) {
        attr->qkey = id->qkey;
        return mask | IBV_QP_QKEY;
    }
    attr->qp_access_flags = 0;
    return mask | IBV_QP_ACCESS_FLAGS;
}

static int init_connected(struct cma_id *id, struct ibv_qp_attr *attr)
{
    int mask = init_alone(id, attr);

    attr->qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
    if (id->wants_reads)
        attr->qp_access_flags |= IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
    return mask;
}

static int ready_to_receive(struct cma_id *id, struct ibv_qp_attr *attr)
{
    int mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;

    cma_path(id, &attr->ah_attr);
    attr->path_mtu = id->mtu;
    attr->dest_qp_num = id->remote_qpn;
    attr->rq_psn = id->psn; /* IBTA 12.6.6.8: the number that the other end is to begin with */
    if (id->qp_type != IBV_QPT_RC && id->qp_type != IBV_QPT_XRC_RECV)
        return mask;
    attr->max_dest_rd_atomic = id->responder_resources;
    attr->min_rnr_timer = RNR_TIMER_MIN;
    return mask | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
}

static int ready_to_send(struct cma_id *id, struct ibv_qp_attr *attr)
{
    int mask = IBV_QP_STATE | IBV_QP_SQ_PSN;

    attr->sq_psn = id->remote_psn;
    attr->timeout = cma_ack_timeout_of(id);
    attr->retry_cnt = id->retry_count;
    attr->rnr_retry = id->rnr_retry;
    attr->max_rd_atomic = id->initiator_depth;
    if (id->qp_type == IBV_QPT_RC || id->qp_type == IBV_QPT_XRC_SEND)
        mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
    else if (id->qp_type == IBV_QPT_XRC_RECV)
        mask |= IBV_QP_TIMEOUT;
    return mask;
}

/* The peer's numbers are known. */
static bool knows_peer(const struct cma_id *id)
{
    switch (id->conn ? cm_state_of(id->conn) : CM_IDLE) {
    case CM_REQ_RCVD:
    case CM_REP_SENT:
    case CM_REP_RCVD:
    case CM_ESTABLISHED:
        return true;
    default:
        return false;
    }
}

int cma_init_qp_attr(struct cma_id *id, struct ibv_qp_attr *attr, int *mask_out)
{
    bool connected = !cma_is_datagram(id) && id->conn;

    if (!id->nic)
        return -EINVAL;
    switch (attr->qp_state) {
    case IBV_QPS_INIT:
        *mask_out = connected ? init_connected(id, attr) : init_alone(id, attr);
        return 0;
    case IBV_QPS_RTR:
        if (!connected || !knows_peer(id))
            return -EINVAL;
        *mask_out = ready_to_receive(id, attr);
        return 0;
    case IBV_QPS_RTS:
        if (!connected || !knows_peer(id))
            return -EINVAL;
        *mask_out = ready_to_send(id, attr);
        return 0;
    default:
        return -EINVAL;
    }
}
