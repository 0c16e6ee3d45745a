/* SPDX-License-Identifier: MIT */
/*
 * Posting: a descriptor becomes a work request. Everything that a device would refuse is refused
 * here, because a refusal there would take more with it than the one descriptor.
 */
#include <arpa/inet.h>

#include "vip.h"

/* What a request is made of; prepared ones are used again and again. */
struct work {
    struct ibv_send_wr wr, confirm;
    struct ibv_sge confirm_sge;
    struct ibv_sge sge[LIMIT_SEGMENTS];
};

/* Where the descriptor lies, if the NIC may read and write all of it there; else NULL. */
HOT const struct region *home_of(const struct vi *vi, const VIP_DESCRIPTOR *descriptor,
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

HOT struct entry *add_entry(const struct vi *vi, struct queue *queue, VIP_DESCRIPTOR *descriptor,
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
    return entry;
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

static void refused_by_device(struct queue *queue, struct entry *entry)
{
    atomic_fetch_or(&entry->flags, ENTRY_SOFT | VIP_STATUS_TRANSPORT_ERROR);
    queue_settle_now(queue);
}

/*
 * Room, and a descriptor to look at, which lies in `home`; VIP_NOT_DONE: neither, but the call is
 * over.
 */
HOT VIP_RETURN admit(struct vi *vi, struct queue *queue, VIP_DESCRIPTOR *descriptor,
                     VIP_MEM_HANDLE handle, const struct region **home_out, uint64_t *id_out)
{
    uint32_t posted = atomic_load_explicit(&queue->posted, memory_order_relaxed);
    uint32_t taken = atomic_load_explicit(&queue->taken, memory_order_acquire);

    *id_out = queue_id(queue, posted);
    if (unlikely(posted - taken > queue->mask)) {
        raise_error(vi->head.nic, VIP_ERROR_VI_OVERRUN, vi, NULL, descriptor,
                    queue->receives ? VIP_STATUS_OP_RECEIVE : VIP_STATUS_OP_SEND);
        return VIP_ERROR_RESOURCE;
    }
    *home_out = home_of(vi, descriptor, handle);
    if (unlikely(!*home_out)) {
        raise_error(vi->head.nic, VIP_ERROR_POST_DESC, vi, NULL, descriptor,
                    queue->receives ? VIP_STATUS_OP_RECEIVE : VIP_STATUS_OP_SEND);
        if (vi->reliable)
            vi_break(vi, 0);
        return VIP_NOT_DONE;
    }
    return VIP_SUCCESS;
}

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
 * One piece of data that is all right, as nearly always, behind `first` address segments: it needs
 * no table if it lies in the region that the descriptor lies in. False: the long way finds out what
 * it is.
 */
HOT bool take_piece(const struct vi *vi, struct queue *queue, const VIP_DESCRIPTOR *descriptor,
                    unsigned first, VIP_MEM_HANDLE handle, const struct region *home,
                    uint32_t *length_out)
{
    const VIP_DATA_SEGMENT *data = &descriptor->DS[first].Local;
    uint64_t address = data->Data.AddressBits;
    uint32_t length = data->Length;

    if (unlikely(descriptor->CS.SegCount != first + 1 || !length))
        return false;
    if (data->Handle != handle)
        home = region_find(vi->head.nic, data->Handle);
    if (unlikely(!home || !region_covers(home, vi->ptag, address, length)))
        return false;
    set_piece(&queue->piece, address, length, home->lkey);
    *length_out = length;
    return true;
}

/* ---- sends ---- */

static COLD void send_any(struct queue *queue, VIP_DESCRIPTOR *descriptor, VIP_MEM_HANDLE handle,
                          uint64_t id)
{
    struct vi *vi = queue->vi;
    struct ibv_send_wr *bad;
    struct work work;
    uint32_t length;

    uint32_t operation = operation_of(descriptor->CS.Control);
    uint32_t error = refused_by_state(queue, vi_state(vi));
    if (!error)
        error = make_send(vi, descriptor, id, &work, &length);
    if (unlikely(error)) {
        add_failure(queue, descriptor, handle, operation | error);
        return;
    }
    struct entry *entry = add_entry(vi, queue, descriptor, handle, operation, length);
    if (unlikely(ibv_post_send(vi->qp, &work.wr, &bad)))
        refused_by_device(queue, entry);
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

/* A message of one piece, with immediate data or without, on a connection that is well. */
HOT bool send_plain(struct vi *vi, VIP_DESCRIPTOR *descriptor, VIP_MEM_HANDLE handle,
                    const struct region *home, uint64_t id)
{
    struct queue *queue = &vi->send;
    struct ibv_send_wr *wr = &queue->plain.send, *bad;
    unsigned control = descriptor->CS.Control, first = control & VIP_CONTROL_OP_MASK ? 1 : 0;
    uint32_t length;

    if (unlikely(!is_plain(vi, control) || vi_state(vi) != VIP_STATE_CONNECTED || queue->stopped) ||
        unlikely(!take_piece(vi, queue, descriptor, first, handle, home, &length)) ||
        unlikely(length != descriptor->CS.Length || length > vi->max_plain))
        return false;
    wr->wr_id = id;
    uint32_t operation = plain_request(descriptor, wr);
    wr->send_flags = IBV_SEND_SIGNALED;
    if (length <= vi->max_inline && operation != VIP_STATUS_OP_RDMA_READ)
        wr->send_flags |= IBV_SEND_INLINE;
    struct entry *entry = add_entry(vi, queue, descriptor, handle, operation, length);
    if (unlikely(ibv_post_send(vi->qp, wr, &bad)))
        refused_by_device(queue, entry);
    return true;
}

HOT VIP_RETURN post_send(struct vi *vi, VIP_DESCRIPTOR *descriptor, VIP_MEM_HANDLE handle)
{
    const struct region *home;
    uint64_t id;
    VIP_RETURN result = admit(vi, &vi->send, descriptor, handle, &home, &id);

    if (likely(!result) && unlikely(!send_plain(vi, descriptor, handle, home, id)))
        send_any(&vi->send, descriptor, handle, id);
    return result;
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

static COLD void recv_any(struct queue *queue, VIP_DESCRIPTOR *descriptor, VIP_MEM_HANDLE handle,
                          uint64_t id)
{
    struct vi *vi = queue->vi;
    struct ibv_sge sge[LIMIT_SEGMENTS];
    struct ibv_recv_wr wr = {.wr_id = id, .sg_list = sge}, *bad;
    uint32_t error = refused_by_state(queue, vi_state(vi));

    if (!error)
        error = make_recv(vi, descriptor, &wr);
    if (unlikely(error)) {
        add_failure(queue, descriptor, handle, VIP_STATUS_OP_RECEIVE | error);
        return;
    }
    struct entry *entry = add_entry(vi, queue, descriptor, handle, VIP_STATUS_OP_RECEIVE, 0);
    if (unlikely(ibv_post_recv(vi->qp, &wr, &bad)))
        refused_by_device(queue, entry);
}

HOT bool recv_plain(struct vi *vi, VIP_DESCRIPTOR *descriptor, VIP_MEM_HANDLE handle,
                    const struct region *home, uint64_t id)
{
    struct queue *queue = &vi->recv;
    struct ibv_recv_wr *wr = &queue->plain.recv, *bad;
    uint32_t length;

    if (unlikely(vi_state(vi) != VIP_STATE_CONNECTED || queue->stopped) ||
        unlikely(!take_piece(vi, queue, descriptor, 0, handle, home, &length)))
        return false;
    wr->wr_id = id;
    struct entry *entry = add_entry(vi, queue, descriptor, handle, VIP_STATUS_OP_RECEIVE, 0);
    if (unlikely(ibv_post_recv(vi->qp, wr, &bad)))
        refused_by_device(queue, entry);
    return true;
}

HOT VIP_RETURN post_recv(struct vi *vi, VIP_DESCRIPTOR *descriptor, VIP_MEM_HANDLE handle)
{
    const struct region *home;
    uint64_t id;
    VIP_RETURN result = admit(vi, &vi->recv, descriptor, handle, &home, &id);

    if (likely(!result) && unlikely(!recv_plain(vi, descriptor, handle, home, id)))
        recv_any(&vi->recv, descriptor, handle, id);
    return result;
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
    lock_take(&vi->send.post_lock);
    VIP_RETURN result = post_send(vi, DescriptorPtr, MemoryHandle);
    lock_give(&vi->send.post_lock);
    return unlikely(result == VIP_NOT_DONE) ? VIP_SUCCESS : result;
}

VIP_RETURN VipPostRecv(VIP_VI_HANDLE ViHandle, VIP_DESCRIPTOR *DescriptorPtr,
                       VIP_MEM_HANDLE MemoryHandle)
{
    struct vi *vi = vi_of(ViHandle);

    if (unlikely(!vi || !DescriptorPtr))
        return VIP_INVALID_PARAMETER;
    lock_take(&vi->recv.post_lock);
    VIP_RETURN result = post_recv(vi, DescriptorPtr, MemoryHandle);
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
