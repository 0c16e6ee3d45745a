/* SPDX-License-Identifier: MIT */
/* The calls that take what is complete: from a work queue, and from a completion queue. */
#include <arpa/inet.h>

#include "vip.h"

enum { BATCH = 16 };

/* ---- what the device completes, if it is as nearly always: the oldest descriptor, and well ----
 */

/* What fails by itself does so when its turn has come: before the next, or after the last. */
static COLD void complete_crooked(struct queue *queue, const struct ibv_wc *wc)
{
    queue_settle(queue);
    if (wc)
        cq_consume(wc);
}

/* False: it is not so simple, nothing is done. */
HOT bool complete_straight(const struct queue *queue, const struct entry *entry,
                           const struct ibv_wc *wc, uint32_t removals)
{
    uint32_t flags = atomic_load_explicit(&entry->flags, memory_order_relaxed),
             length = entry->length;
    VIP_DESCRIPTOR *descriptor = entry->descriptor;

    if (unlikely(wc->status != IBV_WC_SUCCESS || flags & ENTRY_SOFT ||
                 entry->removals != removals || was_relinked(descriptor)))
        return false;
    if (queue->receives) {
        if (unlikely(wc->opcode != IBV_WC_RECV))
            return false;
        length = wc->byte_len;
        if (wc->wc_flags & IBV_WC_WITH_IMM) {
            flags |= VIP_STATUS_IMMEDIATE;
            descriptor->CS.ImmediateData = ntohl(wc->imm_data);
        }
    }
    descriptor->CS.Length = length;
    descriptor->CS.Status = flags | VIP_STATUS_DONE;
    return true;
}

HOT void complete_all(const struct vi *vi, struct queue *queue, const struct ibv_wc *wc,
                      unsigned count)
{
    uint32_t removals = atomic_load_explicit(&vi->head.nic->removals, memory_order_relaxed);
    uint32_t posted = atomic_load_explicit(&queue->posted, memory_order_acquire);
    const struct entry *entry = &queue->ring[queue->done & queue->mask];

    for (const struct ibv_wc *end = wc + count; wc < end; wc++) {
        if (likely(wc->wr_id == queue_id(queue, queue->done) && queue->done != posted) &&
            likely(complete_straight(queue, entry, wc, removals)))
            queue->done++;
        else
            complete_crooked(queue, wc);
        entry = &queue->ring[queue->done & queue->mask];
    }
    if (queue->done != posted &&
        unlikely(atomic_load_explicit(&entry->flags, memory_order_relaxed) & ENTRY_SOFT))
        complete_crooked(queue, NULL);
}

/*
 * Ask the device for the completions of a queue that has a CQ of its own. One that comes alone is
 * taken alone, that is fastest. When some were there at the first look, one after the other,
 * several are asked for, and again as long as several come.
 */
static APART void poll_many(const struct vi *vi, struct queue *queue)
{
    struct ibv_wc wc[BATCH];
    int count = ibv_poll_cq(queue->own.verbs, BATCH, wc);

    queue->own.streak = count > 1 ? STREAK : 0;
    if (count > 0)
        complete_all(vi, queue, wc, (unsigned)count);
}

HOT void poll_own(const struct vi *vi, struct queue *queue)
{
    struct ibv_wc wc;

    if (queue->own.streak >= STREAK) {
        poll_many(vi, queue);
    } else if (ibv_poll_cq(queue->own.verbs, 1, &wc) > 0) {
        queue->own.streak++;
        complete_all(vi, queue, &wc, 1);
    } else {
        queue->own.streak = 0;
    }
}

/* ---- taking one; the lock is held, and let go of at the end ---- */

/* Who waits for what is left behind is told of it. */
HOT VIP_RETURN finish(struct queue *queue, VIP_DESCRIPTOR *descriptor, VIP_DESCRIPTOR **out)
{
    struct cq *cq = queue->cq;
    bool share =
        unlikely(atomic_load_explicit(&cq->armed, memory_order_relaxed)) && queue_has_more(queue);

    lock_give(&cq->lock);
    if (unlikely(share))
        wait_share(cq);
    if (unlikely(!descriptor))
        return VIP_NOT_DONE;
    *out = descriptor;
    return unlikely(descriptor->CS.Status & VIP_STATUS_ERROR_MASK) ? VIP_DESCRIPTOR_ERROR
                                                                   : VIP_SUCCESS;
}

/* The memory of a descriptor is gone, or nothing is posted. */
static COLD VIP_RETURN done_at_length(struct queue *queue, VIP_DESCRIPTOR **out)
{
    VIP_DESCRIPTOR *descriptor = queue_take(queue);

    if (descriptor || queue->done != atomic_load_explicit(&queue->posted, memory_order_acquire))
        return finish(queue, descriptor, out);
    lock_give(&queue->cq->lock);
    *out = NULL;
    return VIP_DESCRIPTOR_ERROR;
}

HOT VIP_RETURN hand_out(struct queue *queue, uint32_t taken, VIP_DESCRIPTOR **out)
{
    VIP_DESCRIPTOR *descriptor = queue->ring[taken & queue->mask].descriptor;

    if (unlikely(!descriptor))
        return done_at_length(queue, out);
    atomic_store_explicit(&queue->taken, taken + 1, memory_order_release);
    return finish(queue, descriptor, out);
}

/* Nothing is complete. Apart, so that handing out is no more than it must be. */
static APART VIP_RETURN done_by_asking(const struct vi *vi, struct queue *queue,
                                       VIP_DESCRIPTOR **out)
{
    uint32_t taken = queue->done;

    if (unlikely(taken == atomic_load_explicit(&queue->posted, memory_order_acquire)))
        return done_at_length(queue, out);
    if (likely(queue->cq == &queue->own))
        poll_own(vi, queue);
    else
        cq_poll(queue->cq, INT32_MAX);
    if (taken != queue->done)
        return hand_out(queue, taken, out);
    lock_give(&queue->cq->lock);
    return VIP_NOT_DONE;
}

/* What came together is handed out one by one, and the device is not asked again meanwhile. */
HOT VIP_RETURN queue_done(const struct vi *vi, struct queue *queue, VIP_DESCRIPTOR **out)
{
    lock_take(&queue->cq->lock);
    uint32_t taken = atomic_load_explicit(&queue->taken, memory_order_relaxed);

    if (taken == queue->done)
        return done_by_asking(vi, queue, out);
    return hand_out(queue, taken, out);
}

VIP_RETURN VipSendDone(VIP_VI_HANDLE ViHandle, VIP_DESCRIPTOR **DescriptorPtr)
{
    struct vi *vi = vi_of(ViHandle);

    return likely(vi && DescriptorPtr) ? queue_done(vi, &vi->send, DescriptorPtr)
                                       : VIP_INVALID_PARAMETER;
}

VIP_RETURN VipRecvDone(VIP_VI_HANDLE ViHandle, VIP_DESCRIPTOR **DescriptorPtr)
{
    struct vi *vi = vi_of(ViHandle);

    return likely(vi && DescriptorPtr) ? queue_done(vi, &vi->recv, DescriptorPtr)
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
        VIP_RETURN result = queue_done(queue->vi, queue, out);

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
