/* SPDX-License-Identifier: MIT */
/*
 * Work queues: what the device completed becomes the status of descriptors, in the order posted;
 * what the library refused fails when everything before it is complete.
 */
#include <arpa/inet.h>
#include <stdlib.h>

#include "vip.h"

enum { FLUSH_MS = 500, POLL_BATCH = 8 };

int queue_init(struct queue *queue, struct vi *vi, struct cq *cq, bool receives)
{
    uint32_t depth = (uint32_t)vi->head.nic->attributes.MaxDescriptorsPerQueue;
    int error = 0;

    queue->vi = vi;
    queue->receives = receives;
    queue->mask = depth - 1;
    queue->ring = calloc(depth, sizeof(*queue->ring));
    queue->cq = cq ? cq : &queue->own;
    queue->own.streak = cq ? STREAK : 0;
    if (receives)
        queue->plain.recv = (struct ibv_recv_wr){.sg_list = &queue->piece, .num_sge = 1};
    else
        queue->plain.send = (struct ibv_send_wr){.sg_list = &queue->piece, .num_sge = 1};
    if (!queue->ring)
        return -ENOMEM;
    if (!cq)
        error = cq_init(&queue->own, vi->head.nic, queue, 2 * depth);
    if (error) {
        free(queue->ring);
        queue->ring = NULL;
    }
    return error;
}

/* Forgets that a CQ tells of this queue. */
static void purge(struct cq *cq, const struct queue *queue)
{
    lock_take(&cq->lock);
    uint32_t kept = cq->got;
    for (uint32_t at = cq->got; at != cq->put; at++) {
        struct queue *waiting = cq->waiting[at & cq->mask];

        if (waiting != queue)
            cq->waiting[kept++ & cq->mask] = waiting;
    }
    cq->put = kept;
    lock_give(&cq->lock);
}

void queue_fini(struct queue *queue)
{
    if (!queue->ring)
        return;
    if (queue->cq->only)
        cq_fini(&queue->own);
    else
        purge(queue->cq, queue);
    free(queue->ring);
    queue->ring = NULL;
}

/* ---- a descriptor is complete ---- */

static uint32_t error_of(enum ibv_wc_status status)
{
    switch (status) {
    case IBV_WC_SUCCESS:
        return 0;
    case IBV_WC_LOC_LEN_ERR:
        return VIP_STATUS_LENGTH_ERROR;
    case IBV_WC_LOC_PROT_ERR:
        return VIP_STATUS_PROTECTION_ERROR;
    case IBV_WC_LOC_QP_OP_ERR:
    case IBV_WC_BAD_RESP_ERR:
        return VIP_STATUS_FORMAT_ERROR;
    case IBV_WC_WR_FLUSH_ERR:
        return VIP_STATUS_DESC_FLUSHED_ERROR;
    case IBV_WC_REM_ACCESS_ERR:
    case IBV_WC_LOC_ACCESS_ERR:
        return VIP_STATUS_RDMA_PROT_ERROR;
    case IBV_WC_REM_INV_REQ_ERR:
    case IBV_WC_REM_OP_ERR:
        return VIP_STATUS_REMOTE_DESC_ERROR;
    case IBV_WC_REM_ABORT_ERR:
        return VIP_STATUS_PARTIAL_ERROR;
    default:
        return VIP_STATUS_TRANSPORT_ERROR;
    }
}

/* What the other side should raise, because nobody tells it. */
static uint8_t report_of(enum ibv_wc_status status, uint32_t error, uint32_t operation)
{
    if (status == IBV_WC_RNR_RETRY_EXC_ERR)
        return VIP_ERROR_RECVQ_EMPTY + 1;
    if (error != VIP_STATUS_RDMA_PROT_ERROR || operation == VIP_STATUS_OP_RECEIVE)
        return 0;
    return operation == VIP_STATUS_OP_RDMA_READ ? VIP_ERROR_RDMAR_PROT + 1
                                                : VIP_ERROR_RDMAW_PROT + 1;
}

/* A queue pair without the right refuses the request as invalid, one with it the memory's key. */
static bool is_rdma(uint32_t operation)
{
    return operation == VIP_STATUS_OP_RDMA_WRITE || operation == VIP_STATUS_OP_RDMA_READ;
}

/* Deregistered since it was posted: then nobody may write there. Rare, so a count says if to look.
 */
HOT bool memory_gone(const struct queue *queue, const struct entry *entry)
{
    if (likely(!removed_since(queue->vi, entry)))
        return false;
    const struct region *region = region_find(queue->vi->head.nic, entry->handle);
    return !region || !region_covers(region, queue->vi->ptag, (uintptr_t)entry->descriptor,
                                     sizeof(VIP_CONTROL_SEGMENT));
}

static void tell(struct cq *cq, struct queue *queue)
{
    if (unlikely(cq->put - cq->got == cq->entries)) {
        raise_error(cq->head.nic, VIP_ERROR_CATASTROPHIC, NULL, cq, NULL, 0);
        return;
    }
    cq->waiting[cq->put++ & cq->mask] = queue;
}

HOT void write_back(struct queue *queue, VIP_DESCRIPTOR *descriptor, uint32_t status,
                    uint32_t length)
{
    if (unlikely(was_relinked(descriptor)))
        raise_error(queue->vi->head.nic, VIP_ERROR_POST_DESC, queue->vi, NULL, descriptor, status);
    descriptor->CS.Length = length;
    descriptor->CS.Status = status | VIP_STATUS_DONE;
}

/* The oldest that is not done. Error bits on a reliable VI break it. */
HOT void complete(struct queue *queue, uint32_t status, uint32_t length, uint8_t report)
{
    struct entry *entry = &queue->ring[queue->done & queue->mask];
    bool fails = status & VIP_STATUS_ERROR_MASK & ~(uint32_t)VIP_STATUS_DESC_FLUSHED_ERROR;

    if (unlikely(memory_gone(queue, entry))) {
        raise_error(queue->vi->head.nic, VIP_ERROR_COMP_PROT, queue->vi, NULL, entry->descriptor,
                    status);
        entry->descriptor = NULL;
        fails = true;
    } else {
        write_back(queue, entry->descriptor, status, length);
    }
    queue->done++;
    if (!queue->cq->only && entry->descriptor)
        tell(queue->cq, queue);
    if (unlikely(fails) && queue->vi->reliable)
        vi_break(queue->vi, report);
}

void queue_settle(struct queue *queue)
{
    while (queue->done != atomic_load_explicit(&queue->posted, memory_order_acquire)) {
        struct entry *entry = &queue->ring[queue->done & queue->mask];
        uint32_t flags = atomic_load_explicit(&entry->flags, memory_order_acquire);

        if (likely(!(flags & ENTRY_SOFT)))
            return;
        uint32_t status = flags & (VIP_STATUS_ERROR_MASK | VIP_STATUS_OP_MASK);
        /* Only what the peer's VI does not allow is refused on its behalf. */
        bool theirs = status & VIP_STATUS_RDMA_PROT_ERROR;
        complete(queue, status, 0, theirs ? VIP_ERROR_RDMAR_PROT + 1 : 0);
    }
}

void queue_settle_now(struct queue *queue)
{
    lock_take(&queue->cq->lock);
    queue_settle(queue);
    lock_give(&queue->cq->lock);
    wait_wake(queue->vi->head.nic);
}

VIP_DESCRIPTOR *queue_take(struct queue *queue)
{
    uint32_t taken = atomic_load_explicit(&queue->taken, memory_order_relaxed);

    while (taken != queue->done) {
        VIP_DESCRIPTOR *descriptor = queue->ring[taken++ & queue->mask].descriptor;

        atomic_store_explicit(&queue->taken, taken, memory_order_release);
        if (likely(descriptor != NULL))
            return descriptor;
    }
    return NULL;
}

bool queue_has_more(const struct queue *queue)
{
    const struct cq *cq = queue->cq;

    return atomic_load_explicit(&queue->taken, memory_order_relaxed) != queue->done ||
           cq->put != cq->got;
}

/* ---- what the device says ---- */

HOT uint32_t received(const struct ibv_wc *wc, VIP_DESCRIPTOR *descriptor)
{
    uint32_t status = VIP_STATUS_OP_RECEIVE;

    if (wc->opcode == IBV_WC_RECV_RDMA_WITH_IMM)
        status = VIP_STATUS_OP_REMOTE_RDMA_WRITE;
    if (wc->wc_flags & IBV_WC_WITH_IMM) {
        status |= VIP_STATUS_IMMEDIATE;
        descriptor->CS.ImmediateData = ntohl(wc->imm_data);
    }
    return status;
}

/*
 * A device that says of a receive that its form is bad means something else, because the form has
 * been looked at: it is too short, or its memory has gone.
 */
static uint32_t error_of_receive(const struct queue *queue)
{
    const struct entry *entry = &queue->ring[queue->done & queue->mask];

    if (memory_gone(queue, entry) || receive_is_good(queue->vi, entry->descriptor))
        return VIP_STATUS_LENGTH_ERROR;
    return VIP_STATUS_PROTECTION_ERROR;
}

/*
 * The data has arrived, and the other side ended the connection before it could confirm that. Its
 * NIC works: what it acknowledged is in memory.
 */
static bool was_received(const struct queue *queue, const struct ibv_wc *wc, uint32_t operation)
{
    const struct vi *vi = queue->vi;

    return vi->confirms && !queue->receives && operation != VIP_STATUS_OP_RDMA_READ &&
           wc->status == IBV_WC_WR_FLUSH_ERR && !(wc->wr_id & UNCONFIRMED) && vi->left;
}

static void consume_failed(struct queue *queue, const struct ibv_wc *wc, uint32_t flags)
{
    uint32_t operation = flags & VIP_STATUS_OP_MASK, error = error_of(wc->status);

    if (was_received(queue, wc, operation)) {
        complete(queue, operation, queue->ring[queue->done & queue->mask].length, 0);
        return;
    }
    if (error == VIP_STATUS_FORMAT_ERROR && queue->receives)
        error = error_of_receive(queue);
    if (error == VIP_STATUS_REMOTE_DESC_ERROR && is_rdma(operation))
        error = VIP_STATUS_RDMA_PROT_ERROR;
    complete(queue, operation | error, 0, report_of(wc->status, error, operation));
    /* A device that gives up an unreliable queue pair leaves nothing to go on with. */
    if (wc->status != IBV_WC_WR_FLUSH_ERR && !queue->vi->reliable)
        vi_break(queue->vi, 0);
}

/*
 * The identifier is queue << 16 | place. One that isn't the oldest's comes from a connection that
 * has gone, or is the second that a confirmed request gets when it fails.
 */
HOT void consume(const struct ibv_wc *wc)
{
    struct queue *queue = (struct queue *)(uintptr_t)((wc->wr_id & ~UNCONFIRMED) >> 16);
    struct entry *entry = &queue->ring[queue->done & queue->mask];
    uint32_t flags = atomic_load_explicit(&entry->flags, memory_order_relaxed);

    if (unlikely((uint16_t)queue->done != (uint16_t)wc->wr_id) ||
        queue->done == atomic_load_explicit(&queue->posted, memory_order_acquire))
        return;
    if (unlikely(wc->status != IBV_WC_SUCCESS))
        consume_failed(queue, wc, flags);
    else if (queue->receives && likely(!memory_gone(queue, entry)))
        complete(queue, received(wc, entry->descriptor), wc->byte_len, 0);
    else
        complete(queue, flags & VIP_STATUS_OP_MASK, entry->length, 0);
    queue_settle(queue);
}

void cq_consume(const struct ibv_wc *wc)
{
    consume(wc);
}

int cq_poll(struct cq *cq, int most)
{
    struct ibv_wc wc[POLL_BATCH];
    int total = 0;

    while (total < most) {
        int ask = most - total < POLL_BATCH ? most - total : POLL_BATCH;
        int count = ibv_poll_cq(cq->verbs, ask, wc);

        for (int i = 0; i < count; i++)
            consume(&wc[i]);
        total += count > 0 ? count : 0;
        if (count < ask)
            break;
    }
    return total;
}

struct queue *cq_next(struct cq *cq)
{
    if (cq->put == cq->got && !cq_poll(cq, 1))
        return NULL;
    return cq->put == cq->got ? NULL : cq->waiting[cq->got++ & cq->mask];
}

/* ---- the end of a connection ---- */

static void fail_rest(struct queue *queue)
{
    uint32_t posted = atomic_load(&queue->posted);

    for (uint32_t at = queue->done; at != posted; at++) {
        struct entry *entry = &queue->ring[at & queue->mask];
        uint32_t flags = atomic_load(&entry->flags);

        if (!(flags & ENTRY_SOFT))
            atomic_store(&entry->flags, flags | ENTRY_SOFT | VIP_STATUS_DESC_FLUSHED_ERROR);
    }
    queue_settle(queue);
}

bool queue_is_done(struct queue *queue)
{
    lock_take(&queue->cq->lock);
    bool is = queue->done == atomic_load(&queue->posted);
    lock_give(&queue->cq->lock);
    return is;
}

void queue_flush(struct queue *queue, bool at_device)
{
    struct cq *cq = queue->cq;
    int64_t deadline = clock_ns() + (int64_t)FLUSH_MS * 1000000;

    for (bool over = false; !over;) {
        lock_take(&cq->lock);
        if (at_device)
            cq_poll(cq, INT32_MAX);
        queue_settle(queue);
        if (!at_device || clock_ns() > deadline)
            fail_rest(queue);
        over = queue->done == atomic_load(&queue->posted);
        lock_give(&cq->lock);
        if (!over)
            sched_yield();
    }
}
