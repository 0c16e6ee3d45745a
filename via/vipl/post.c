/* SPDX-License-Identifier: MIT */
/*
 * Posting: a descriptor becomes a work request. Everything that a device would refuse is refused
 * here, because a refusal there would take more with it than the one descriptor.
 */
#include <arpa/inet.h>

#include "vip.h"

/* The longest descriptor that the short ways are for: one address segment, one data segment. */
enum { PLAIN_BYTES = sizeof(VIP_CONTROL_SEGMENT) + 2 * sizeof(VIP_DESCRIPTOR_SEGMENT) };

/* What a request is made of; prepared ones are used again and again. */
struct work {
    struct ibv_send_wr wr, confirm;
    struct ibv_sge confirm_sge;
    struct ibv_sge sge[LIMIT_SEGMENTS];
};

/* Where the descriptor lies, if the NIC may read and write all of it there; else NULL. */
static const struct region *home_of(const struct vi *vi, const VIP_DESCRIPTOR *descriptor,
                                    VIP_MEM_HANDLE handle)
{
    uintptr_t at = (uintptr_t)descriptor;
    const struct region *region = region_find(vi->head.nic, handle);

    if (unlikely(at % VIP_DESCRIPTOR_ALIGNMENT || !region || region->ptag != vi->ptag))
        return NULL;
    uint64_t left = region->length - (at - region->base);
    if (unlikely(at - region->base > region->length || left < sizeof(VIP_CONTROL_SEGMENT)))
        return NULL;
    left -= sizeof(VIP_CONTROL_SEGMENT);
    return likely(left >= descriptor->CS.SegCount * sizeof(VIP_DESCRIPTOR_SEGMENT)) ? region : NULL;
}

/* The data segments; empty ones are left out. Returns error bits. */
HOT uint32_t take_segments(const struct vi *vi, const VIP_DESCRIPTOR_SEGMENT *segment,
                           unsigned count, struct ibv_sge *sge, int *sges_out, uint64_t *total_out)
{
    uint64_t total = 0;
    int sges = 0;

    for (unsigned i = 0; i < count; i++) {
        const VIP_DATA_SEGMENT *data = &segment[i].Local;

        if (!data->Length)
            continue;
        const struct region *region = region_find(vi->head.nic, data->Handle);
        if (unlikely(!region ||
                     !region_covers(region, vi->ptag, data->Data.AddressBits, data->Length)))
            return VIP_STATUS_PROTECTION_ERROR;
        sge[sges++] = (struct ibv_sge){data->Data.AddressBits, data->Length, region->lkey};
        total += data->Length;
    }
    *sges_out = sges;
    *total_out = total;
    return 0;
}

/* ---- what a send descriptor says ---- */

HOT uint32_t operation_of(uint16_t control)
{
    switch (control & VIP_CONTROL_OP_MASK) {
    case VIP_CONTROL_OP_RDMAWRITE:
        return VIP_STATUS_OP_RDMA_WRITE;
    case VIP_CONTROL_OP_RDMAREAD:
        return VIP_STATUS_OP_RDMA_READ;
    default:
        return VIP_STATUS_OP_SEND;
    }
}

HOT bool well_formed(const struct vi *vi, const VIP_DESCRIPTOR *descriptor)
{
    unsigned control = descriptor->CS.Control, op = control & VIP_CONTROL_OP_MASK;
    unsigned addresses = op == VIP_CONTROL_OP_SENDRECV ? 0 : 1;

    if (control & VIP_CONTROL_RESERVED || op == VIP_CONTROL_OP_RESERVED)
        return false;
    if (op == VIP_CONTROL_OP_RDMAREAD && (control & VIP_CONTROL_IMMEDIATE || !vi->reliable))
        return false;
    return descriptor->CS.SegCount >= addresses &&
           descriptor->CS.SegCount - addresses <= vi->head.nic->attributes.MaxSegmentsPerDesc;
}

HOT uint32_t check_length(const struct vi *vi, const VIP_DESCRIPTOR *descriptor, uint64_t total)
{
    return likely(total == descriptor->CS.Length && total <= vi->max_transfer)
               ? 0
               : VIP_STATUS_LENGTH_ERROR;
}

/* The operation, and what it names at the other side. */
HOT void take_operation(const VIP_DESCRIPTOR *descriptor, struct ibv_send_wr *wr)
{
    bool immediate = descriptor->CS.Control & VIP_CONTROL_IMMEDIATE;

    if (immediate)
        wr->imm_data = htonl(descriptor->CS.ImmediateData);
    switch (descriptor->CS.Control & VIP_CONTROL_OP_MASK) {
    case VIP_CONTROL_OP_SENDRECV:
        wr->opcode = immediate ? IBV_WR_SEND_WITH_IMM : IBV_WR_SEND;
        return;
    case VIP_CONTROL_OP_RDMAWRITE:
        wr->opcode = immediate ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE;
        break;
    default:
        wr->opcode = IBV_WR_RDMA_READ;
    }
    wr->wr.rdma.remote_addr = descriptor->DS[0].Remote.Data.AddressBits;
    wr->wr.rdma.rkey = descriptor->DS[0].Remote.Handle;
}

/*
 * A read of the peer's word: when it is answered, what was sent before it is in memory. The request
 * itself completes only if it fails, which its mark tells from a failure of the read.
 */
static void add_confirmation(const struct vi *vi, struct work *work)
{
    work->confirm_sge = (struct ibv_sge){(uintptr_t)&vi->head.nic->confirm_words[1],
                                         sizeof(uint64_t), vi->ptag->confirm->lkey};
    work->confirm = (struct ibv_send_wr){.wr_id = work->wr.wr_id,
                                         .sg_list = &work->confirm_sge,
                                         .num_sge = 1,
                                         .opcode = IBV_WR_RDMA_READ,
                                         .send_flags = IBV_SEND_SIGNALED};
    work->confirm.wr.rdma.remote_addr = vi->confirm_address;
    work->confirm.wr.rdma.rkey = vi->confirm_rkey;
    work->wr.next = &work->confirm;
    work->wr.wr_id |= UNCONFIRMED;
    work->wr.send_flags &= ~(unsigned)IBV_SEND_SIGNALED;
}

/* Returns error bits; the length goes to the entry. */
HOT uint32_t make_send(const struct vi *vi, const VIP_DESCRIPTOR *descriptor, uint64_t id,
                       struct work *work, uint32_t *length_out)
{
    unsigned first = descriptor->CS.Control & VIP_CONTROL_OP_MASK ? 1 : 0;
    struct ibv_send_wr *wr = &work->wr;
    uint64_t total;

    *length_out = 0;
    if (unlikely(!well_formed(vi, descriptor)))
        return VIP_STATUS_FORMAT_ERROR;
    wr->wr_id = id;
    wr->next = NULL;
    wr->sg_list = work->sge;
    wr->send_flags = IBV_SEND_SIGNALED;
    uint32_t error = take_segments(vi, &descriptor->DS[first], descriptor->CS.SegCount - first,
                                   work->sge, &wr->num_sge, &total);
    if (likely(!error))
        error = check_length(vi, descriptor, total);
    if (unlikely(error))
        return error;
    take_operation(descriptor, wr);
    if (unlikely(wr->opcode == IBV_WR_RDMA_READ && vi->confirms && !vi->may_read))
        return VIP_STATUS_RDMA_PROT_ERROR;
    if (total <= vi->max_inline && wr->opcode != IBV_WR_RDMA_READ)
        wr->send_flags |= IBV_SEND_INLINE;
    if (unlikely(descriptor->CS.Control & VIP_CONTROL_QFENCE && vi->reliable))
        wr->send_flags |= IBV_SEND_FENCE;
    if (unlikely(vi->confirms) && wr->opcode != IBV_WR_RDMA_READ)
        add_confirmation(vi, work);
    *length_out = (uint32_t)total;
    return 0;
}

/* ---- both queues; with the post lock held ---- */

/* What fails at once, by the state: nothing is sent but on a connection. */
HOT uint32_t refused_by_state(const struct queue *queue, VIP_VI_STATE state)
{
    if (likely(state == VIP_STATE_CONNECTED))
        return queue->stopped ? VIP_STATUS_DESC_FLUSHED_ERROR : 0;
    return state == VIP_STATE_ERROR || !queue->receives ? VIP_STATUS_DESC_FLUSHED_ERROR : 0;
}

/* The next place of the ring is this descriptor's. */
HOT void add_entry(const struct vi *vi, struct queue *queue, VIP_DESCRIPTOR *descriptor,
                   VIP_MEM_HANDLE handle, uint32_t flags, uint32_t length)
{
    uint32_t posted = atomic_load_explicit(&queue->posted, memory_order_relaxed);
    struct entry *entry = &queue->ring[posted & queue->mask];

    descriptor->CS.Next.AddressBits = 0;
    descriptor->CS.NextHandle = 0;
    entry->descriptor = descriptor;
    entry->handle = handle;
    entry->length = length;
    entry->removals = atomic_load_explicit(&vi->head.nic->removals, memory_order_relaxed);
    atomic_store_explicit(&entry->flags, flags, memory_order_relaxed);
    /* Who takes completions reads the entry after this. */
    atomic_store_explicit(&queue->posted, posted + 1, memory_order_release);
}

/* It fails in its turn; on a reliable connection nothing behind it may begin. */
static void add_failure(struct queue *queue, VIP_DESCRIPTOR *descriptor, VIP_MEM_HANDLE handle,
                        uint32_t flags)
{
    if (queue->vi->reliable && vi_state(queue->vi) == VIP_STATE_CONNECTED)
        queue->stopped = true;
    add_entry(queue->vi, queue, descriptor, handle, flags | ENTRY_SOFT, 0);
    queue_settle_now(queue);
}

/* The one posted last. */
static COLD void refused_by_device(struct queue *queue)
{
    uint32_t place = atomic_load_explicit(&queue->posted, memory_order_relaxed) - 1;

    atomic_fetch_or(&queue->ring[place & queue->mask].flags,
                    ENTRY_SOFT | VIP_STATUS_TRANSPORT_ERROR);
    queue_settle_now(queue);
}

/*
 * Room, and a descriptor that may be looked at; VIP_NOT_DONE: it may not, and the call is over.
 */
static VIP_RETURN admit(struct vi *vi, struct queue *queue, VIP_DESCRIPTOR *descriptor,
                        VIP_MEM_HANDLE handle)
{
    uint32_t posted = atomic_load_explicit(&queue->posted, memory_order_relaxed);
    uint32_t taken = atomic_load_explicit(&queue->taken, memory_order_acquire);

    if (posted - taken > queue->mask) {
        raise_error(vi->head.nic, VIP_ERROR_VI_OVERRUN, vi, NULL, descriptor,
                    queue->receives ? VIP_STATUS_OP_RECEIVE : VIP_STATUS_OP_SEND);
        return VIP_ERROR_RESOURCE;
    }
    if (home_of(vi, descriptor, handle))
        return VIP_SUCCESS;
    raise_error(vi->head.nic, VIP_ERROR_POST_DESC, vi, NULL, descriptor,
                queue->receives ? VIP_STATUS_OP_RECEIVE : VIP_STATUS_OP_SEND);
    if (vi->reliable)
        vi_break(vi, 0);
    return VIP_NOT_DONE;
}

/* Identifies the request that goes to the next place of the ring. */
HOT uint64_t next_id(const struct queue *queue)
{
    return queue_id(queue, atomic_load_explicit(&queue->posted, memory_order_relaxed));
}

/* ---- the short way of both queues: as nearly always; the long way does all that is not so ---- */

/*
 * As two words: a device that copies it so would otherwise read, with one load, what two stores
 * have only just written, and wait for both.
 */
HOT void set_piece(struct ibv_sge *piece, uint64_t address, uint32_t length, uint32_t lkey)
{
    bool little = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
    uint64_t rest = little ? (uint64_t)lkey << 32 | length : (uint64_t)length << 32 | lkey;

    piece->addr = address;
    memcpy((char *)piece + offsetof(struct ibv_sge, length), &rest, sizeof(rest));
}

/*
 * The region that the descriptor lies in, with an address segment and a data segment at least, on a
 * VI that is well and has room. NULL: the long way finds out what it is.
 */
HOT const struct region *plain_home(struct vi *vi, struct queue *queue,
                                    const VIP_DESCRIPTOR *descriptor, VIP_MEM_HANDLE handle)
{
    uint32_t posted = atomic_load_explicit(&queue->posted, memory_order_relaxed);
    uint32_t taken = atomic_load_explicit(&queue->taken, memory_order_acquire);
    uintptr_t at = (uintptr_t)descriptor;
    const struct region *region = region_first(vi->head.nic, handle);

    if (unlikely(vi_state(vi) != VIP_STATE_CONNECTED || queue->stopped ||
                 posted - taken > queue->mask))
        return NULL;
    if (unlikely(at % VIP_DESCRIPTOR_ALIGNMENT || !region ||
                 !region_covers(region, vi->ptag, at, PLAIN_BYTES)))
        return NULL;
    return region;
}

/*
 * One piece of data that is all right, behind `first` address segments: it needs no table if it
 * lies in the region that the descriptor lies in. Its length; 0: the long way finds out.
 */
HOT uint32_t plain_piece(const struct vi *vi, struct queue *queue, const VIP_DESCRIPTOR *descriptor,
                         unsigned first, VIP_MEM_HANDLE handle, const struct region *home)
{
    const VIP_DATA_SEGMENT *data = &descriptor->DS[first].Local;
    uint64_t address = data->Data.AddressBits;
    uint32_t length = data->Length;

    if (data->Handle != handle)
        home = region_first(vi->head.nic, data->Handle);
    if (unlikely(descriptor->CS.SegCount != first + 1 || !home ||
                 !region_covers(home, vi->ptag, address, length)))
        return 0;
    set_piece(&queue->piece, address, length, home->lkey);
    return length;
}

/* ---- sends ---- */

static COLD VIP_RETURN send_any(struct vi *vi, VIP_DESCRIPTOR *descriptor, VIP_MEM_HANDLE handle)
{
    struct queue *queue = &vi->send;
    struct ibv_send_wr *bad;
    struct work work;
    uint32_t length;
    VIP_RETURN result = admit(vi, queue, descriptor, handle);

    if (result)
        return result;
    uint32_t operation = operation_of(descriptor->CS.Control);
    uint32_t error = refused_by_state(queue, vi_state(vi));
    if (!error)
        error = make_send(vi, descriptor, next_id(queue), &work, &length);
    if (error) {
        add_failure(queue, descriptor, handle, operation | error);
        return VIP_SUCCESS;
    }
    add_entry(vi, queue, descriptor, handle, operation, length);
    if (ibv_post_send(vi->qp, &work.wr, &bad))
        refused_by_device(queue);
    return VIP_SUCCESS;
}

/* Nothing about the operation needs a closer look. */
HOT bool is_plain(const struct vi *vi, unsigned control)
{
    if (likely(!(control & ~(unsigned)(VIP_CONTROL_OP_RDMAWRITE | VIP_CONTROL_IMMEDIATE))))
        return true;
    return control == VIP_CONTROL_OP_RDMAREAD && vi->reliable;
}

/* The request that lies ready, for this operation. Returns the operation's status bits. */
HOT uint32_t plain_request(const VIP_DESCRIPTOR *descriptor, struct ibv_send_wr *wr)
{
    unsigned control = descriptor->CS.Control;

    if (control & VIP_CONTROL_IMMEDIATE)
        wr->imm_data = htonl(descriptor->CS.ImmediateData);
    if (likely(!(control & VIP_CONTROL_OP_MASK))) {
        wr->opcode = control ? IBV_WR_SEND_WITH_IMM : IBV_WR_SEND;
        return VIP_STATUS_OP_SEND;
    }
    wr->wr.rdma.remote_addr = descriptor->DS[0].Remote.Data.AddressBits;
    wr->wr.rdma.rkey = descriptor->DS[0].Remote.Handle;
    if (control == VIP_CONTROL_OP_RDMAREAD) {
        wr->opcode = IBV_WR_RDMA_READ;
        return VIP_STATUS_OP_RDMA_READ;
    }
    wr->opcode = control & VIP_CONTROL_IMMEDIATE ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE;
    return VIP_STATUS_OP_RDMA_WRITE;
}

/* A message of one piece. False: it is not so simple, nothing is done. */
HOT bool send_plain(struct vi *vi, VIP_DESCRIPTOR *descriptor, VIP_MEM_HANDLE handle)
{
    struct queue *queue = &vi->send;
    struct ibv_send_wr *wr = &queue->plain.send, *bad;
    const struct region *home = plain_home(vi, queue, descriptor, handle);

    if (unlikely(!home || !is_plain(vi, descriptor->CS.Control)))
        return false;
    unsigned first = descriptor->CS.Control & VIP_CONTROL_OP_MASK ? 1 : 0;
    uint32_t length = plain_piece(vi, queue, descriptor, first, handle, home);
    if (unlikely(!length || length != descriptor->CS.Length || length > vi->max_plain))
        return false;
    wr->wr_id = next_id(queue);
    uint32_t operation = plain_request(descriptor, wr);
    wr->send_flags = IBV_SEND_SIGNALED;
    if (length <= vi->max_inline && operation != VIP_STATUS_OP_RDMA_READ)
        wr->send_flags |= IBV_SEND_INLINE;
    add_entry(vi, queue, descriptor, handle, operation, length);
    if (unlikely(ibv_post_send(vi->qp, wr, &bad)))
        refused_by_device(queue);
    return true;
}

/* ---- receives ---- */

/* Returns error bits. */
HOT uint32_t make_recv(const struct vi *vi, const VIP_DESCRIPTOR *descriptor,
                       struct ibv_recv_wr *wr)
{
    uint64_t total;

    if (unlikely(descriptor->CS.SegCount > vi->head.nic->attributes.MaxSegmentsPerDesc))
        return VIP_STATUS_FORMAT_ERROR;
    return take_segments(vi, descriptor->DS, descriptor->CS.SegCount, wr->sg_list, &wr->num_sge,
                         &total);
}

static COLD VIP_RETURN recv_any(struct vi *vi, VIP_DESCRIPTOR *descriptor, VIP_MEM_HANDLE handle)
{
    struct queue *queue = &vi->recv;
    struct ibv_sge sge[LIMIT_SEGMENTS];
    struct ibv_recv_wr wr = {.wr_id = next_id(queue), .sg_list = sge}, *bad;
    VIP_RETURN result = admit(vi, queue, descriptor, handle);

    if (result)
        return result;
    uint32_t error = refused_by_state(queue, vi_state(vi));
    if (!error)
        error = make_recv(vi, descriptor, &wr);
    if (error) {
        add_failure(queue, descriptor, handle, VIP_STATUS_OP_RECEIVE | error);
        return VIP_SUCCESS;
    }
    add_entry(vi, queue, descriptor, handle, VIP_STATUS_OP_RECEIVE, 0);
    if (ibv_post_recv(vi->qp, &wr, &bad))
        refused_by_device(queue);
    return VIP_SUCCESS;
}

HOT bool recv_plain(struct vi *vi, VIP_DESCRIPTOR *descriptor, VIP_MEM_HANDLE handle)
{
    struct queue *queue = &vi->recv;
    struct ibv_recv_wr *wr = &queue->plain.recv, *bad;
    const struct region *home = plain_home(vi, queue, descriptor, handle);

    if (unlikely(!home || !plain_piece(vi, queue, descriptor, 0, handle, home)))
        return false;
    wr->wr_id = next_id(queue);
    add_entry(vi, queue, descriptor, handle, VIP_STATUS_OP_RECEIVE, 0);
    if (unlikely(ibv_post_recv(vi->qp, wr, &bad)))
        refused_by_device(queue);
    return true;
}

bool receive_is_good(const struct vi *vi, const VIP_DESCRIPTOR *descriptor)
{
    struct ibv_sge sge[LIMIT_SEGMENTS];
    struct ibv_recv_wr wr = {.sg_list = sge};

    return !make_recv(vi, descriptor, &wr);
}

void receive_again(struct queue *queue, uint32_t place)
{
    struct entry *entry = &queue->ring[place & queue->mask];
    struct ibv_sge sge[LIMIT_SEGMENTS];
    struct ibv_recv_wr wr = {.wr_id = queue_id(queue, place), .sg_list = sge}, *bad;
    uint32_t error = VIP_STATUS_PROTECTION_ERROR;

    if (atomic_load(&entry->flags) & ENTRY_SOFT)
        return;
    if (home_of(queue->vi, entry->descriptor, entry->handle))
        error = make_recv(queue->vi, entry->descriptor, &wr);
    if (!error && ibv_post_recv(queue->vi->qp, &wr, &bad))
        error = VIP_STATUS_TRANSPORT_ERROR;
    if (error)
        atomic_fetch_or(&entry->flags, ENTRY_SOFT | error);
}

VIP_RETURN VipPostSend(VIP_VI_HANDLE ViHandle, VIP_DESCRIPTOR *DescriptorPtr,
                       VIP_MEM_HANDLE MemoryHandle)
{
    struct vi *vi = vi_of(ViHandle);

    if (unlikely(!vi || !DescriptorPtr))
        return VIP_INVALID_PARAMETER;
    VIP_RETURN result = VIP_SUCCESS;
    lock_take(&vi->send.post_lock);
    if (unlikely(!send_plain(vi, DescriptorPtr, MemoryHandle)))
        result = send_any(vi, DescriptorPtr, MemoryHandle);
    lock_give(&vi->send.post_lock);
    return unlikely(result == VIP_NOT_DONE) ? VIP_SUCCESS : result;
}

VIP_RETURN VipPostRecv(VIP_VI_HANDLE ViHandle, VIP_DESCRIPTOR *DescriptorPtr,
                       VIP_MEM_HANDLE MemoryHandle)
{
    struct vi *vi = vi_of(ViHandle);

    if (unlikely(!vi || !DescriptorPtr))
        return VIP_INVALID_PARAMETER;
    VIP_RETURN result = VIP_SUCCESS;
    lock_take(&vi->recv.post_lock);
    if (unlikely(!recv_plain(vi, DescriptorPtr, MemoryHandle)))
        result = recv_any(vi, DescriptorPtr, MemoryHandle);
    lock_give(&vi->recv.post_lock);
    return unlikely(result == VIP_NOT_DONE) ? VIP_SUCCESS : result;
}

/* VIP_SERVICE_DFC, where it existed, put sends off until there was room. */
VIP_RETURN VipPostDeferredSends(VIP_VI_HANDLE ViHandle, VIP_BOOLEAN EnableInterrupt,
                                VIP_BOOLEAN *SendsDeferred)
{
    (void)EnableInterrupt;
    if (!vi_of(ViHandle) || !SendsDeferred)
        return VIP_INVALID_PARAMETER;
    *SendsDeferred = VIP_FALSE;
    return VIP_SUCCESS;
}
