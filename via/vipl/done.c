/* SPDX-License-Identifier: MIT */
/* The calls that take what is complete: from a work queue, and from a completion queue. */
#include "vip.h"

enum { STREAK = 4, BATCH = 8 };

/*
 * One completion that comes alone is taken alone, that is fastest; when they come one upon the
 * other several are taken at a time.
 */
HOT int poll_some(struct cq *cq)
{
    int count = cq_poll(cq, cq->streak < STREAK ? 1 : BATCH);

    cq->streak = count ? cq->streak + 1 : 0;
    return count;
}

HOT VIP_RETURN queue_done(struct queue *queue, VIP_DESCRIPTOR **out)
{
    struct cq *cq = queue->cq;

    lock_take(&cq->lock);
    VIP_DESCRIPTOR *descriptor = queue_take(queue);
    if (!descriptor) {
        if (queue->done == atomic_load_explicit(&queue->posted, memory_order_acquire)) {
            lock_give(&cq->lock);
            *out = NULL;
            return VIP_DESCRIPTOR_ERROR;
        }
        if (likely(cq->only != NULL) ? poll_some(cq) : cq_poll(cq, INT32_MAX))
            descriptor = queue_take(queue);
    }
    bool more = queue_has_more(queue);
    lock_give(&cq->lock);
    if (unlikely(more) && unlikely(atomic_load_explicit(&cq->armed, memory_order_relaxed)))
        wait_share(cq);
    if (!descriptor)
        return VIP_NOT_DONE;
    *out = descriptor;
    return descriptor->CS.Status & VIP_STATUS_ERROR_MASK ? VIP_DESCRIPTOR_ERROR : VIP_SUCCESS;
}

VIP_RETURN VipSendDone(VIP_VI_HANDLE ViHandle, VIP_DESCRIPTOR **DescriptorPtr)
{
    struct vi *vi = vi_of(ViHandle);

    return likely(vi && DescriptorPtr) ? queue_done(&vi->send, DescriptorPtr)
                                       : VIP_INVALID_PARAMETER;
}

VIP_RETURN VipRecvDone(VIP_VI_HANDLE ViHandle, VIP_DESCRIPTOR **DescriptorPtr)
{
    struct vi *vi = vi_of(ViHandle);

    return likely(vi && DescriptorPtr) ? queue_done(&vi->recv, DescriptorPtr)
                                       : VIP_INVALID_PARAMETER;
}

/*
 * The turn is read before looking: what comes after the look either finds the queue armed and makes
 * a new turn, or is found by the look after arming.
 */
static VIP_RETURN queue_wait(struct queue *queue, VIP_ULONG timeout, VIP_DESCRIPTOR **out)
{
    struct vip_nic *nic = queue->vi->head.nic;
    int64_t deadline = 0;

    for (bool in_time = true;;) {
        uint32_t turn = atomic_load(&nic->wait.turn);
        VIP_RETURN result = queue_done(queue, out);

        if (result != VIP_NOT_DONE)
            return result;
        if (!in_time || !timeout)
            return VIP_TIMEOUT;
        if (!deadline)
            deadline = deadline_of(timeout);
        if (!wait_arm(queue->cq))
            in_time = wait_turn(nic, turn, deadline);
    }
}

VIP_RETURN VipSendWait(VIP_VI_HANDLE ViHandle, VIP_ULONG Timeout, VIP_DESCRIPTOR **DescriptorPtr)
{
    struct vi *vi = vi_of(ViHandle);

    if (!vi || !DescriptorPtr || !vi->send.cq->only)
        return VIP_INVALID_PARAMETER;
    return queue_wait(&vi->send, Timeout, DescriptorPtr);
}

VIP_RETURN VipRecvWait(VIP_VI_HANDLE ViHandle, VIP_ULONG Timeout, VIP_DESCRIPTOR **DescriptorPtr)
{
    struct vi *vi = vi_of(ViHandle);

    if (!vi || !DescriptorPtr || !vi->recv.cq->only)
        return VIP_INVALID_PARAMETER;
    return queue_wait(&vi->recv, Timeout, DescriptorPtr);
}

/* ---- completion queues ---- */

static VIP_RETURN cq_done(struct cq *cq, VIP_VI_HANDLE *vi_out, VIP_BOOLEAN *receives_out)
{
    lock_take(&cq->lock);
    struct queue *queue = cq_next(cq);
    bool more = cq->put != cq->got;
    lock_give(&cq->lock);
    if (unlikely(more) && unlikely(atomic_load_explicit(&cq->armed, memory_order_relaxed)))
        wait_share(cq);
    if (!queue)
        return VIP_NOT_DONE;
    *vi_out = queue->vi;
    *receives_out = queue->receives ? VIP_TRUE : VIP_FALSE;
    return VIP_SUCCESS;
}

VIP_RETURN VipCQDone(VIP_CQ_HANDLE CQHandle, VIP_VI_HANDLE *ViHandle, VIP_BOOLEAN *RecvQueue)
{
    struct cq *cq = cq_of(CQHandle);

    return likely(cq && ViHandle && RecvQueue) ? cq_done(cq, ViHandle, RecvQueue)
                                               : VIP_INVALID_PARAMETER;
}

VIP_RETURN VipCQWait(VIP_CQ_HANDLE CQHandle, VIP_ULONG Timeout, VIP_VI_HANDLE *ViHandle,
                     VIP_BOOLEAN *RecvQueue)
{
    struct cq *cq = cq_of(CQHandle);
    int64_t deadline = 0;

    if (!cq || !ViHandle || !RecvQueue)
        return VIP_INVALID_PARAMETER;
    for (bool in_time = true;;) {
        uint32_t turn = atomic_load(&cq->head.nic->wait.turn);

        if (!cq_done(cq, ViHandle, RecvQueue))
            return VIP_SUCCESS;
        if (!in_time || !Timeout)
            return VIP_TIMEOUT;
        if (!deadline)
            deadline = deadline_of(Timeout);
        if (!wait_arm(cq))
            in_time = wait_turn(cq->head.nic, turn, deadline);
    }
}

VIP_RETURN VipCQNotify(VIP_CQ_HANDLE CQHandle, VIP_PVOID Context, VIP_CQ_CALLBACK Handler)
{
    struct cq *cq = cq_of(CQHandle);

    if (!cq || !Handler)
        return VIP_INVALID_PARAMETER;
    return notice_add(cq, &(struct notice){.context = Context, .cq_handler = Handler});
}

static VIP_RETURN queue_notify(struct queue *queue, VIP_PVOID context, VIP_VI_CALLBACK handler)
{
    if (!queue->cq->only)
        return VIP_INVALID_PARAMETER;
    return notice_add(queue->cq, &(struct notice){.context = context, .vi_handler = handler});
}

VIP_RETURN VipSendNotify(VIP_VI_HANDLE ViHandle, VIP_PVOID Context, VIP_VI_CALLBACK Handler)
{
    struct vi *vi = vi_of(ViHandle);

    return vi && Handler ? queue_notify(&vi->send, Context, Handler) : VIP_INVALID_PARAMETER;
}

VIP_RETURN VipRecvNotify(VIP_VI_HANDLE ViHandle, VIP_PVOID Context, VIP_VI_CALLBACK Handler)
{
    struct vi *vi = vi_of(ViHandle);

    return vi && Handler ? queue_notify(&vi->recv, Context, Handler) : VIP_INVALID_PARAMETER;
}
