/* SPDX-License-Identifier: MIT */
/* VIs: making and ending them, their attributes, and the way to the states error and idle. */
#include <stdlib.h>

#include "vip.h"

/* ---- attributes ---- */

static bool is_one_level(VIP_RELIABILITY_LEVEL level)
{
    return level && !(level & (level - 1));
}

VIP_RETURN attributes_check(struct vip_nic *nic, const VIP_VI_ATTRIBUTES *attributes)
{
    const VIP_NIC_ATTRIBUTES *limits = &nic->attributes;
    VIP_RELIABILITY_LEVEL level = attributes->ReliabilityLevel;

    if (!is_one_level(level) || !(limits->ReliabilityLevelSupport & level))
        return VIP_INVALID_RELIABILITY_LEVEL;
    if (!attributes->MaxTransferSize || attributes->MaxTransferSize > limits->MaxTransferSize)
        return VIP_INVALID_MTU;
    if (attributes->QoS)
        return VIP_INVALID_QOS;
    if (!ptag_of(nic, attributes->Ptag))
        return VIP_INVALID_PTAG;
    if (attributes->EnableRdmaRead && !(limits->RDMAReadSupport & level))
        return VIP_INVALID_RDMAREAD;
    return VIP_SUCCESS;
}

/* ---- the queue pair ---- */

static struct ibv_qp *qp_new(struct vi *vi, const VIP_VI_ATTRIBUTES *attributes)
{
    const VIP_NIC_ATTRIBUTES *limits = &vi->head.nic->attributes;
    bool confirms = attributes->ReliabilityLevel == VIP_SERVICE_RELIABLE_RECEPTION;
    uint32_t depth = (uint32_t)limits->MaxDescriptorsPerQueue;
    uint32_t segments = (uint32_t)limits->MaxSegmentsPerDesc;
    struct ibv_qp_init_attr init = {
        .send_cq = vi->send.cq->verbs,
        .recv_cq = vi->recv.cq->verbs,
        .cap = {confirms ? 2 * depth : depth, depth, segments, segments, LIMIT_INLINE},
        .qp_type = attributes->ReliabilityLevel == VIP_SERVICE_UNRELIABLE ? IBV_QPT_UC : IBV_QPT_RC,
        .qp_context = vi,
    };

    struct ibv_qp *qp = ibv_create_qp(((struct ptag *)attributes->Ptag)->pd, &init);
    if (!qp) {
        init.cap.max_inline_data = 0;
        qp = ibv_create_qp(((struct ptag *)attributes->Ptag)->pd, &init);
    }
    if (qp)
        vi->max_inline = init.cap.max_inline_data;
    return qp;
}

static int qp_rights(const VIP_VI_ATTRIBUTES *attributes)
{
    int rights = 0;

    if (attributes->EnableRdmaWrite)
        rights |= IBV_ACCESS_REMOTE_WRITE;
    /* The peer's confirmations are reads; its library keeps it from reading more. */
    if (attributes->EnableRdmaRead ||
        attributes->ReliabilityLevel == VIP_SERVICE_RELIABLE_RECEPTION)
        rights |= IBV_ACCESS_REMOTE_READ;
    return rights;
}

static int qp_init(struct ibv_qp *qp, const struct vip_nic *nic,
                   const VIP_VI_ATTRIBUTES *attributes)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT,
                               .port_num = nic->port,
                               .qp_access_flags = (unsigned)qp_rights(attributes)};

    return ibv_modify_qp(qp, &attr,
                         IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
}

/* What needs the NIC's lock, before those that can't be held together with it. */
static bool prepare(const VIP_VI_ATTRIBUTES *attributes)
{
    return attributes->ReliabilityLevel != VIP_SERVICE_RELIABLE_RECEPTION ||
           ptag_confirms(attributes->Ptag);
}

/* A queue pair as the attributes want it; the VI takes it over from the one it had. */
static VIP_RETURN vi_adopt(struct vi *vi, const VIP_VI_ATTRIBUTES *attributes)
{
    struct ptag *ptag = attributes->Ptag;
    bool confirms = attributes->ReliabilityLevel == VIP_SERVICE_RELIABLE_RECEPTION;

    struct ibv_qp *qp = qp_new(vi, attributes);
    if (!qp)
        return VIP_ERROR_RESOURCE;
    if (qp_init(qp, vi->head.nic, attributes)) {
        ibv_destroy_qp(qp);
        return VIP_ERROR_RESOURCE;
    }
    if (vi->qp)
        ibv_destroy_qp(vi->qp);
    vi->qp = qp;
    vi->ptag = ptag;
    vi->attributes = *attributes;
    vi->reliable = attributes->ReliabilityLevel != VIP_SERVICE_UNRELIABLE;
    vi->confirms = confirms;
    vi->max_transfer = (uint32_t)attributes->MaxTransferSize;
    vi->max_plain = confirms ? 0 : vi->max_transfer;
    return VIP_SUCCESS;
}

/* ---- making and ending ---- */

static VIP_RETURN cq_use(struct vip_nic *nic, VIP_CQ_HANDLE handle, int change)
{
    struct cq *cq = cq_of(handle);

    if (!handle)
        return VIP_SUCCESS;
    if (!cq || cq->head.nic != nic)
        return VIP_INVALID_PARAMETER;
    pthread_mutex_lock(&nic->lock);
    cq->users += (unsigned)change;
    pthread_mutex_unlock(&nic->lock);
    return VIP_SUCCESS;
}

static VIP_RETURN vi_make(struct vi *vi, const VIP_VI_ATTRIBUTES *attributes, struct cq *send,
                          struct cq *recv)
{
    pthread_mutex_init(&vi->lock, NULL);
    if (!prepare(attributes) || queue_init(&vi->send, vi, send, false) ||
        queue_init(&vi->recv, vi, recv, true))
        return VIP_ERROR_RESOURCE;
    return vi_adopt(vi, attributes);
}

static void vi_unmake(struct vi *vi)
{
    if (vi->qp)
        ibv_destroy_qp(vi->qp);
    queue_fini(&vi->send);
    queue_fini(&vi->recv);
    pthread_mutex_destroy(&vi->lock);
    pool_give(vi);
}

/* Counted before it is made, so that two threads can't both have the last one. */
static struct vi *vi_new(struct vip_nic *nic)
{
    struct vi *vi = NULL;

    pthread_mutex_lock(&nic->lock);
    if (nic->vi_count < nic->attributes.MaxVI)
        vi = pool_take(KIND_VI, nic);
    if (vi)
        nic->vi_count++;
    pthread_mutex_unlock(&nic->lock);
    return vi;
}

static VIP_RETURN vi_create(struct vip_nic *nic, const VIP_VI_ATTRIBUTES *attributes,
                            struct cq *send, struct cq *recv, VIP_VI_HANDLE *vi_out)
{
    struct vi *vi = vi_new(nic);

    if (!vi)
        return VIP_ERROR_RESOURCE;
    VIP_RETURN result = vi_make(vi, attributes, send, recv);
    if (result)
        vi_unmake(vi);
    pthread_mutex_lock(&nic->lock);
    if (result) {
        nic->vi_count--;
    } else {
        list_add(&nic->vis, &vi->head);
        vi->ptag->users++;
    }
    pthread_mutex_unlock(&nic->lock);
    if (!result)
        *vi_out = vi;
    return result;
}

VIP_RETURN VipCreateVi(VIP_NIC_HANDLE NicHandle, VIP_VI_ATTRIBUTES *ViAttribs,
                       VIP_CQ_HANDLE SendCQHandle, VIP_CQ_HANDLE RecvCQHandle,
                       VIP_VI_HANDLE *ViHandle)
{
    struct vip_nic *nic = nic_of(NicHandle);

    if (!nic || !ViAttribs || !ViHandle)
        return VIP_INVALID_PARAMETER;
    VIP_RETURN result = attributes_check(nic, ViAttribs);
    if (result)
        return result;
    if (cq_use(nic, SendCQHandle, 1))
        return VIP_INVALID_PARAMETER;
    if (cq_use(nic, RecvCQHandle, 1)) {
        cq_use(nic, SendCQHandle, -1);
        return VIP_INVALID_PARAMETER;
    }
    result = vi_create(nic, ViAttribs, SendCQHandle, RecvCQHandle, ViHandle);
    if (result) {
        cq_use(nic, SendCQHandle, -1);
        cq_use(nic, RecvCQHandle, -1);
    }
    return result;
}

static bool queue_is_empty(struct queue *queue)
{
    lock_take(&queue->cq->lock);
    cq_poll(queue->cq, INT32_MAX);
    bool empty = atomic_load(&queue->taken) == atomic_load(&queue->posted);
    bool more = queue_has_more(queue);
    lock_give(&queue->cq->lock);
    if (more)
        wait_share(queue->cq);
    return empty;
}

/* Out of the NIC's lists first, so that no event finds it any more. */
void vi_close(struct vi *vi)
{
    struct vip_nic *nic = vi->head.nic;
    struct cq *send = vi->send.cq, *recv = vi->recv.cq;

    pthread_mutex_lock(&nic->lock);
    list_remove(&nic->vis, &vi->head);
    nic->vi_count--;
    vi->ptag->users--;
    pthread_mutex_unlock(&nic->lock);
    vi_unmake(vi);
    if (!send->only)
        cq_use(nic, send, -1);
    if (!recv->only)
        cq_use(nic, recv, -1);
}

VIP_RETURN VipDestroyVi(VIP_VI_HANDLE ViHandle)
{
    struct vi *vi = vi_of(ViHandle);

    if (!vi)
        return VIP_INVALID_PARAMETER;
    pthread_mutex_lock(&vi->lock);
    VIP_RETURN result = VIP_SUCCESS;
    if (vi_state(vi) != VIP_STATE_IDLE)
        result = VIP_INVALID_STATE;
    else if (!queue_is_empty(&vi->send) || !queue_is_empty(&vi->recv))
        result = VIP_ERROR_RESOURCE;
    pthread_mutex_unlock(&vi->lock);
    if (result)
        return result;
    struct conn *conn = conn_detach(vi);
    if (conn)
        conn_end(conn);
    vi_close(vi);
    return VIP_SUCCESS;
}

VIP_RETURN VipQueryVi(VIP_VI_HANDLE ViHandle, VIP_VI_STATE *State, VIP_VI_ATTRIBUTES *ViAttribs,
                      VIP_BOOLEAN *SendQueueEmpty, VIP_BOOLEAN *RecvQueueEmpty)
{
    struct vi *vi = vi_of(ViHandle);

    if (!vi)
        return VIP_INVALID_PARAMETER;
    /* What the queues find out may change the state, so they come first. */
    bool send_empty = queue_is_empty(&vi->send), recv_empty = queue_is_empty(&vi->recv);
    if (SendQueueEmpty)
        *SendQueueEmpty = send_empty ? VIP_TRUE : VIP_FALSE;
    if (RecvQueueEmpty)
        *RecvQueueEmpty = recv_empty ? VIP_TRUE : VIP_FALSE;
    if (State)
        *State = vi_state(vi);
    pthread_mutex_lock(&vi->lock);
    if (ViAttribs)
        *ViAttribs = vi->attributes;
    pthread_mutex_unlock(&vi->lock);
    return VIP_SUCCESS;
}

/* ---- changing attributes ---- */

/* Receives that were posted before go to the new queue pair, checked again by the new tag. */
static void repost(struct queue *queue)
{
    uint32_t posted = atomic_load(&queue->posted);

    for (uint32_t at = queue->done; at != posted; at++)
        receive_again(queue, at);
    queue_settle_now(queue);
}

static VIP_RETURN change_attributes(struct vi *vi, const VIP_VI_ATTRIBUTES *attributes)
{
    struct ptag *old = vi->ptag;

    if (!prepare(attributes))
        return VIP_ERROR_RESOURCE;
    lock_take(&vi->send.post_lock);
    lock_take(&vi->recv.post_lock);
    VIP_RETURN result = vi_adopt(vi, attributes);
    if (!result)
        repost(&vi->recv);
    lock_give(&vi->recv.post_lock);
    lock_give(&vi->send.post_lock);
    if (!result && vi->ptag != old) {
        ptag_use(vi->ptag, 1);
        ptag_use(old, -1);
    }
    return result;
}

VIP_RETURN VipSetViAttributes(VIP_VI_HANDLE ViHandle, VIP_VI_ATTRIBUTES *ViAttribs)
{
    struct vi *vi = vi_of(ViHandle);

    if (!vi || !ViAttribs)
        return VIP_INVALID_PARAMETER;
    pthread_mutex_lock(&vi->lock);
    VIP_RETURN result = VIP_INVALID_STATE;
    if (vi_state(vi) == VIP_STATE_IDLE)
        result = attributes_check(vi->head.nic, ViAttribs);
    if (!result)
        result = change_attributes(vi, ViAttribs);
    pthread_mutex_unlock(&vi->lock);
    return result;
}

/* ---- states ---- */

static int qp_to(struct vi *vi, enum ibv_qp_state state)
{
    return ibv_modify_qp(vi->qp, &(struct ibv_qp_attr){.qp_state = state}, IBV_QP_STATE);
}

void vi_set_state(struct vi *vi, VIP_VI_STATE state)
{
    spin_lock(&vi->break_lock);
    atomic_store(&vi->state, (uint32_t)state);
    spin_unlock(&vi->break_lock);
}

bool vi_break(struct vi *vi, uint8_t report)
{
    spin_lock(&vi->break_lock);
    bool first = vi_state(vi) == VIP_STATE_CONNECTED;
    if (first) {
        atomic_store(&vi->state, VIP_STATE_ERROR);
        qp_to(vi, IBV_QPS_ERR);
    }
    /* The reason may come after the news. */
    bool tells = report && !vi->report_what && vi_state(vi) == VIP_STATE_ERROR;
    if (tells)
        vi->report_what = report;
    if (first || tells)
        atomic_store(&vi->broken, true);
    spin_unlock(&vi->break_lock);
    if (first)
        raise_error(vi->head.nic, VIP_ERROR_CONN_LOST, vi, NULL, NULL, 0);
    if (first || tells)
        cm_wake(vi->head.nic);
    return first;
}

void vi_reset(struct vi *vi)
{
    lock_take(&vi->send.post_lock);
    lock_take(&vi->recv.post_lock);
    bool posted = vi->send.done != atomic_load(&vi->send.posted) ||
                  vi->recv.done != atomic_load(&vi->recv.posted);
    vi_set_state(vi, VIP_STATE_ERROR);
    bool flushes = !qp_to(vi, IBV_QPS_ERR);
    queue_flush(&vi->send, flushes && posted);
    queue_flush(&vi->recv, flushes && posted);
    qp_to(vi, IBV_QPS_RESET);
    qp_init(vi->qp, vi->head.nic, &vi->attributes);
    vi->send.stopped = vi->recv.stopped = false;
    vi->report_what = 0;
    atomic_store(&vi->broken, false);
    vi_set_state(vi, VIP_STATE_IDLE);
    lock_give(&vi->recv.post_lock);
    lock_give(&vi->send.post_lock);
    wait_wake(vi->head.nic);
}

/* The queue pair may have come to know a peer; then what is posted goes to it once more. */
void vi_rewind(struct vi *vi)
{
    if (vi->qp->state != IBV_QPS_INIT) {
        lock_take(&vi->send.post_lock);
        lock_take(&vi->recv.post_lock);
        queue_is_empty(&vi->recv);
        qp_to(vi, IBV_QPS_RESET);
        qp_init(vi->qp, vi->head.nic, &vi->attributes);
        repost(&vi->recv);
        lock_give(&vi->recv.post_lock);
        lock_give(&vi->send.post_lock);
    }
    vi_set_state(vi, VIP_STATE_IDLE);
}

/* ---- a vendor's extension ---- */

VIP_RETURN VipSetUserData(VIP_VI_HANDLE ViHandle, VIP_PVOID UserData)
{
    struct vi *vi = vi_of(ViHandle);

    if (!vi)
        return VIP_INVALID_PARAMETER;
    vi->user_data = UserData;
    return VIP_SUCCESS;
}

VIP_PVOID VipGetUserData(VIP_VI_HANDLE ViHandle)
{
    struct vi *vi = vi_of(ViHandle);

    return vi ? vi->user_data : NULL;
}
