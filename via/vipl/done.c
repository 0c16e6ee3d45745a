/* SPDX-License-Identifier: MIT */
/* The calls that take what is complete: from a work queue, and from a completion queue. */
#include <arpa/inet.h>

#include "vip.h"

enum { BATCH = 8 };

/*
 * One completion that comes alone is taken alone, that is fastest. When some were there at the
 * first look, one after the other, several are asked for, and again as long as several come.
 */
static int poll_some(struct cq *cq)
{
    bool many = cq->streak >= STREAK;
    int count = cq_poll(cq, many ? BATCH : 1);

    if (many)
        cq->streak = count > 1 ? STREAK : 0;
    else
        cq->streak = count ? cq->streak + 1 : 0;
    return count;
}

/* ---- taking one; the lock is held, and let go of at the end ---- */

static VIP_RETURN finish(struct queue *queue, VIP_DESCRIPTOR *descriptor, VIP_DESCRIPTOR **out)
{
    struct cq *cq = queue->cq;
    bool more = queue_has_more(queue);

    lock_give(&cq->lock);
    if (unlikely(more) && unlikely(atomic_load_explicit(&cq->armed, memory_order_relaxed)))
        wait_share(cq);
    if (!descriptor)
        return VIP_NOT_DONE;
    *out = descriptor;
    return descriptor->CS.Status & VIP_STATUS_ERROR_MASK ? VIP_DESCRIPTOR_ERROR : VIP_SUCCESS;
}

static COLD VIP_RETURN done_at_length(struct queue *queue, VIP_DESCRIPTOR **out)
{
    struct cq *cq = queue->cq;
    VIP_DESCRIPTOR *descriptor = queue_take(queue);

    if (!descriptor) {
        if (queue->done == atomic_load_explicit(&queue->posted, memory_order_acquire)) {
            lock_give(&cq->lock);
            *out = NULL;
            return VIP_DESCRIPTOR_ERROR;
        }
        if (cq->only ? poll_some(cq) : cq_poll(cq, INT32_MAX))
            descriptor = queue_take(queue);
    }
    return finish(queue, descriptor, out);
}

/* A completion that needs a closer look, or that others follow from. */
static COLD VIP_RETURN done_crooked(struct queue *queue, const struct ibv_wc *wc,
                                    VIP_DESCRIPTOR *descriptor, VIP_DESCRIPTOR **out)
{
    if (descriptor) {
        queue_settle(queue);
    } else {
        cq_consume(wc);
        descriptor = queue_take(queue);
    }
    return finish(queue, descriptor, out);
}

/* It has its own CQ, and takes one completion at a time; nothing waits to be taken. */
HOT bool is_straight(const struct queue *queue, uint32_t posted)
{
    return queue->own.streak < STREAK && queue->done != posted &&
           atomic_load_explicit(&queue->taken, memory_order_relaxed) == queue->done;
}

/*
 * What the device completed is the oldest descriptor, and all is well. NULL: it is not so simple,
 * and done the long way.
 */
HOT VIP_DESCRIPTOR *take_straight(const struct vi *vi, struct queue *queue, const struct ibv_wc *wc,
                                  bool receives)
{
    uint32_t done = queue->done;
    const struct entry *entry = &queue->ring[done & queue->mask];
    uint32_t flags = atomic_load_explicit(&entry->flags, memory_order_relaxed);
    uint32_t status = receives ? VIP_STATUS_OP_RECEIVE : flags & VIP_STATUS_OP_MASK;
    VIP_DESCRIPTOR *descriptor = entry->descriptor;

    if (unlikely(wc->wr_id != queue_id(queue, done) || wc->status != IBV_WC_SUCCESS ||
                 (receives && wc->opcode != IBV_WC_RECV) || removed_since(vi, entry)) ||
        unlikely(was_relinked(descriptor)))
        return NULL;
    if (receives && wc->wc_flags & IBV_WC_WITH_IMM) {
        status |= VIP_STATUS_IMMEDIATE;
        descriptor->CS.ImmediateData = ntohl(wc->imm_data);
    }
    descriptor->CS.Length = receives ? wc->byte_len : entry->length;
    descriptor->CS.Status = status | VIP_STATUS_DONE;
    queue->done = done + 1;
    atomic_store_explicit(&queue->taken, done + 1, memory_order_release);
    return descriptor;
}

/* The next one fails by itself, and its turn has come. */
HOT bool must_settle(const struct queue *queue, uint32_t done, uint32_t posted)
{
    const struct entry *next = &queue->ring[done & queue->mask];

    return done != posted && atomic_load_explicit(&next->flags, memory_order_relaxed) & ENTRY_SOFT;
}

/* The straight way is that of nearly every message, and does no more than it must. */
HOT VIP_RETURN queue_done(const struct vi *vi, struct queue *queue, bool receives,
                          VIP_DESCRIPTOR **out)
{
    struct cq *cq = &queue->own;
    struct ibv_wc wc;

    lock_take(&queue->cq->lock);
    uint32_t done = queue->done;
    uint32_t posted = atomic_load_explicit(&queue->posted, memory_order_acquire);
    if (unlikely(!is_straight(queue, posted)))
        return done_at_length(queue, out);
    if (ibv_poll_cq(cq->verbs, 1, &wc) <= 0) {
        cq->streak = 0;
        lock_give(&cq->lock);
        return VIP_NOT_DONE;
    }
    cq->streak++;
    VIP_DESCRIPTOR *descriptor = take_straight(vi, queue, &wc, receives);
    if (unlikely(!descriptor || must_settle(queue, done + 1, posted)))
        return done_crooked(queue, &wc, descriptor, out);
    lock_give(&cq->lock);
    *out = descriptor;
    return VIP_SUCCESS;
}

VIP_RETURN VipSendDone(VIP_VI_HANDLE ViHandle, VIP_DESCRIPTOR **DescriptorPtr)
{
    struct vi *vi = vi_of(ViHandle);

    return likely(vi && DescriptorPtr) ? queue_done(vi, &vi->send, false, DescriptorPtr)
                                       : VIP_INVALID_PARAMETER;
}

VIP_RETURN VipRecvDone(VIP_VI_HANDLE ViHandle, VIP_DESCRIPTOR **DescriptorPtr)
{
    struct vi *vi = vi_of(ViHandle);

    return likely(vi && DescriptorPtr) ? queue_done(vi, &vi->recv, true, DescriptorPtr)
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
        VIP_RETURN result = queue_done(queue->vi, queue, queue->receives, out);

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
