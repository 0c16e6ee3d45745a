/* SPDX-License-Identifier: MIT */
/*
 * Descriptors that are wrong: what their status says, when, and what becomes of the VI. A wrong one
 * stands between two good ones: on an unreliable VI it alone fails, on a reliable one the rest is
 * flushed and the connection is broken.
 */
#include "end.h"

#include <stdlib.h>

typedef void spoil_fn(struct end *a, VIP_DESCRIPTOR *descriptor);

/* Slots 0 and 2 are good, 1 is spoiled; the other end has three receives. */
static void spoiled_send(VIP_RELIABILITY_LEVEL level, spoil_fn *spoil, uint32_t status)
{
    struct ends e = ends_connect(level);
    struct end *a = end_of(e.a);
    bool reliable = level != VIP_SERVICE_UNRELIABLE;

    for (int i = 0; i < 3; i++)
        post_recv(e.b, i, 64);
    post_send(e.a, 0, 10);
    VIP_DESCRIPTOR *descriptor = end_prepare(a, 1, 11);
    spoil(a, descriptor);
    T_EQ(VipPostSend(a->vi, descriptor, a->handle), VIP_SUCCESS);
    post_send(e.a, 2, 12);

    expect_done(e.a, SEND, 0, VIP_STATUS_OP_SEND, 10);
    expect_done(e.a, SEND, 1, status, 0);
    expect_done(e.b, RECV, 0, VIP_STATUS_OP_RECEIVE, 10);
    if (reliable) {
        uint32_t flushed = VIP_STATUS_DESC_FLUSHED_ERROR;

        expect_done(e.a, SEND, 2, VIP_STATUS_OP_SEND | flushed, 0);
        expect_state(e.a, VIP_STATE_ERROR);
        expect_state(e.b, VIP_STATE_ERROR);
        expect_error(e.a, VIP_ERROR_CONN_LOST);
        expect_error(e.b, VIP_ERROR_CONN_LOST);
        expect_done(e.b, RECV, 1, VIP_STATUS_OP_RECEIVE | flushed, 0);
        expect_done(e.b, RECV, 2, VIP_STATUS_OP_RECEIVE | flushed, 0);
    } else {
        expect_done(e.a, SEND, 2, VIP_STATUS_OP_SEND, 12);
        expect_done(e.b, RECV, 1, VIP_STATUS_OP_RECEIVE, 12);
        expect_state(e.a, VIP_STATE_CONNECTED);
        order_run(e.a, do_quiet, (struct order){0});
    }
    expect_empty(e.a, SEND);
    ends_close(e);
    t_end();
}

/* A test of one fault at each level. */
#define T_SPOILED(name_, status_)                                                                  \
    static void name_##_at(VIP_RELIABILITY_LEVEL level)                                            \
    {                                                                                              \
        spoiled_send(level, name_, status_);                                                       \
    }                                                                                              \
    T_LEVELS(vipl_descriptor, name_)

/* ---- format ---- */

static void reserved_bits(struct end *a, VIP_DESCRIPTOR *descriptor)
{
    (void)a;
    descriptor->CS.Control = 0x8000;
}
T_SPOILED(reserved_bits, VIP_STATUS_FORMAT_ERROR)

static void reserved_operation(struct end *a, VIP_DESCRIPTOR *descriptor)
{
    (void)a;
    descriptor->CS.Control = VIP_CONTROL_OP_RESERVED;
}
T_SPOILED(reserved_operation, VIP_STATUS_FORMAT_ERROR)

static void too_many_segments(struct end *a, VIP_DESCRIPTOR *descriptor)
{
    descriptor->CS.SegCount = (VIP_UINT16)(a->limits.MaxSegmentsPerDesc + 1);
}
T_SPOILED(too_many_segments, VIP_STATUS_FORMAT_ERROR)

static void write_without_address(struct end *a, VIP_DESCRIPTOR *descriptor)
{
    (void)a;
    descriptor->CS.Control = VIP_CONTROL_OP_RDMAWRITE;
    descriptor->CS.SegCount = 0;
    descriptor->CS.Length = 0;
}
T_SPOILED(write_without_address, VIP_STATUS_OP_RDMA_WRITE | VIP_STATUS_FORMAT_ERROR)

static void read_with_immediate(struct end *a, VIP_DESCRIPTOR *descriptor)
{
    (void)a;
    descriptor->CS.Control = VIP_CONTROL_OP_RDMAREAD | VIP_CONTROL_IMMEDIATE;
}
T_SPOILED(read_with_immediate, VIP_STATUS_OP_RDMA_READ | VIP_STATUS_FORMAT_ERROR)

static void plain_read(struct end *a, VIP_DESCRIPTOR *descriptor)
{
    descriptor->CS.Control = VIP_CONTROL_OP_RDMAREAD;
    descriptor->CS.SegCount = 2;
    descriptor->DS[1] = descriptor->DS[0];
    (void)a;
}

T_TEST(vipl_descriptor, read_on_unreliable)
{
    /* Shows that an unreliable VI can't read. */
    spoiled_send(VIP_SERVICE_UNRELIABLE, plain_read,
                 VIP_STATUS_OP_RDMA_READ | VIP_STATUS_FORMAT_ERROR);
}

T_TEST(vipl_descriptor, failures_among_many)
{
    /* Shows that what fails by itself keeps its turn among many that complete together. */
    struct ends e = ends_connect(VIP_SERVICE_UNRELIABLE);
    struct end *a = end_of(e.a);

    for (int round = 0; round < 8; round++) {
        for (int i = 0; i < SLOTS; i++) {
            VIP_DESCRIPTOR *descriptor = end_prepare(a, i, (uint32_t)i + 1);

            if (i % 8 == round)
                reserved_bits(a, descriptor);
            T_EQ(VipPostSend(a->vi, descriptor, a->handle), VIP_SUCCESS);
        }
        for (int i = 0; i < SLOTS; i++) {
            bool fails = i % 8 == round;

            expect_done(e.a, SEND, i, fails ? VIP_STATUS_FORMAT_ERROR : VIP_STATUS_OP_SEND,
                        fails ? 0 : (uint32_t)i + 1);
        }
        expect_empty(e.a, SEND);
    }
    expect_state(e.a, VIP_STATE_CONNECTED);
    ends_close(e);
    t_end();
}

/* ---- length ---- */

static void not_the_sum(struct end *a, VIP_DESCRIPTOR *descriptor)
{
    (void)a;
    descriptor->CS.Length++;
}
T_SPOILED(not_the_sum, VIP_STATUS_LENGTH_ERROR)

static void over_transfer_size(struct end *a, VIP_DESCRIPTOR *descriptor)
{
    (void)a;
    descriptor->CS.Length = descriptor->DS[0].Local.Length = MTS + 1;
}
T_SPOILED(over_transfer_size, VIP_STATUS_LENGTH_ERROR)

/* ---- protection ---- */

static void no_such_handle(struct end *a, VIP_DESCRIPTOR *descriptor)
{
    descriptor->DS[0].Local.Handle = a->handle ^ 0x5a5a5a5a;
}
T_SPOILED(no_such_handle, VIP_STATUS_PROTECTION_ERROR)

static void handle_zero(struct end *a, VIP_DESCRIPTOR *descriptor)
{
    (void)a;
    descriptor->DS[0].Local.Handle = 0;
}
T_SPOILED(handle_zero, VIP_STATUS_PROTECTION_ERROR)

static void before_region(struct end *a, VIP_DESCRIPTOR *descriptor)
{
    descriptor->DS[0].Local.Data.Address = a->area - 1;
}
T_SPOILED(before_region, VIP_STATUS_PROTECTION_ERROR)

static void over_the_end(struct end *a, VIP_DESCRIPTOR *descriptor)
{
    descriptor->DS[0].Local.Data.Address =
        a->area + SLOTS * (DESCRIPTOR_ROOM + SLOT_DATA) - descriptor->CS.Length + 1;
}
T_SPOILED(over_the_end, VIP_STATUS_PROTECTION_ERROR)

static void round_the_world(struct end *a, VIP_DESCRIPTOR *descriptor)
{
    (void)a;
    descriptor->DS[0].Local.Data.AddressBits = UINT64_MAX - 4;
}
T_SPOILED(round_the_world, VIP_STATUS_PROTECTION_ERROR)

static void wrong_tag(struct end *a, VIP_DESCRIPTOR *descriptor)
{
    VIP_MEM_ATTRIBUTES attributes = {NULL, VIP_FALSE, VIP_FALSE};

    T_EQ(VipCreatePtag(a->nic, &attributes.Ptag), VIP_SUCCESS);
    T_EQ(VipRegisterMem(a->nic, end_data(a, 1), 64, &attributes, &descriptor->DS[0].Local.Handle),
         VIP_SUCCESS);
}
T_SPOILED(wrong_tag, VIP_STATUS_PROTECTION_ERROR)

/* ---- receives ---- */

static void spoiled_receive(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that a bad receive fails in its turn, and a reliable connection with it. */
    struct ends e = ends_connect(level);
    struct end *a = end_of(e.a);
    VIP_DESCRIPTOR *descriptor = end_prepare(a, 1, 64);

    post_recv(e.a, 0, 64);
    descriptor->DS[0].Local.Handle = 0;
    T_EQ(VipPostRecv(a->vi, descriptor, a->handle), VIP_SUCCESS);
    post_recv(e.a, 2, 64);
    VIP_DESCRIPTOR *none;
    T_EQ(VipRecvDone(a->vi, &none), VIP_NOT_DONE);
    post_send(e.b, 0, 8);
    expect_done(e.a, RECV, 0, VIP_STATUS_OP_RECEIVE, 8);
    expect_done(e.a, RECV, 1, VIP_STATUS_OP_RECEIVE | VIP_STATUS_PROTECTION_ERROR, 0);
    if (level == VIP_SERVICE_UNRELIABLE) {
        post_send(e.b, 1, 9);
        expect_done(e.a, RECV, 2, VIP_STATUS_OP_RECEIVE, 9);
    } else {
        expect_done(e.a, RECV, 2, VIP_STATUS_OP_RECEIVE | VIP_STATUS_DESC_FLUSHED_ERROR, 0);
        expect_state(e.a, VIP_STATE_ERROR);
        expect_error(e.b, VIP_ERROR_CONN_LOST);
    }
    ends_close(e);
    t_end();
}

static void receive_at(VIP_RELIABILITY_LEVEL level)
{
    spoiled_receive(level);
}
T_LEVELS(vipl_descriptor, receive)

T_TEST(vipl_descriptor, receive_format)
{
    /* Shows that a receive with too many segments is a format error, also on an idle VI. */
    struct end a;

    end_open(&a);
    T_EQ(end_create_vi(&a, VIP_SERVICE_RELIABLE_DELIVERY, &a.vi), VIP_SUCCESS);
    VIP_DESCRIPTOR *descriptor = end_prepare(&a, 0, 8), *done;
    descriptor->CS.SegCount = (VIP_UINT16)(a.limits.MaxSegmentsPerDesc + 1);
    T_EQ(VipPostRecv(a.vi, descriptor, a.handle), VIP_SUCCESS);
    T_EQ(VipRecvDone(a.vi, &done), VIP_DESCRIPTOR_ERROR);
    T_ASSERT(done == descriptor);
    T_EQ(done->CS.Status, VIP_STATUS_DONE | VIP_STATUS_OP_RECEIVE | VIP_STATUS_FORMAT_ERROR);
    end_close(&a);
    t_end();
}

static void too_long_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that a message longer than the receive breaks a reliable connection, at both ends. */
    struct ends e = ends_connect(level);

    post_recv(e.b, 0, 16);
    post_recv(e.b, 1, 64);
    post_send(e.a, 0, 17);
    expect_done(e.a, SEND, 0, VIP_STATUS_OP_SEND | VIP_STATUS_REMOTE_DESC_ERROR, 0);
    expect_done(e.b, RECV, 0, VIP_STATUS_OP_RECEIVE | VIP_STATUS_LENGTH_ERROR, 0);
    expect_done(e.b, RECV, 1, VIP_STATUS_OP_RECEIVE | VIP_STATUS_DESC_FLUSHED_ERROR, 0);
    expect_state(e.a, VIP_STATE_ERROR);
    expect_state(e.b, VIP_STATE_ERROR);
    ends_close(e);
    t_end();
}
T_RELIABLE_LEVELS(vipl_descriptor, too_long)

T_TEST(vipl_descriptor, too_long_unreliable)
{
    /* Shows that an unreliable VI loses such a message, and goes on with the same receive. */
    struct ends e = ends_connect(VIP_SERVICE_UNRELIABLE);

    post_recv(e.b, 0, 16);
    post_send(e.a, 0, 17);
    expect_done(e.a, SEND, 0, VIP_STATUS_OP_SEND, 17);
    post_send(e.a, 1, 5);
    expect_done(e.b, RECV, 0, VIP_STATUS_OP_RECEIVE, 5);
    expect_state(e.a, VIP_STATE_CONNECTED);
    ends_close(e);
    t_end();
}

/* ---- what has no status ---- */

static void post_desc_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that a descriptor that can't be read is reported, and breaks a reliable connection. */
    struct ends e = ends_connect(level);
    struct end *a = end_of(e.a);
    VIP_DESCRIPTOR *descriptor = (VIP_DESCRIPTOR *)(void *)((char *)end_prepare(a, 0, 8) + 32);

    T_EQ(VipPostSend(a->vi, descriptor, a->handle), VIP_SUCCESS);
    const VIP_ERROR_DESCRIPTOR *error = end_error(a, VIP_ERROR_POST_DESC);
    T_ASSERT(error);
    T_ASSERT(error->DescriptorPtr == descriptor && error->ViHandle == a->vi &&
             error->NicHandle == a->nic);
    T_EQ(error->ResourceCode, VIP_RESOURCE_DESCRIPTOR);
    expect_empty(e.a, SEND);
    expect_state(e.a, level == VIP_SERVICE_UNRELIABLE ? VIP_STATE_CONNECTED : VIP_STATE_ERROR);
    ends_close(e);
    t_end();
}
T_LEVELS(vipl_descriptor, post_desc)

/* One that isn't in memory of the VI's, on an idle one. */
static void not_readable(struct end *a, VIP_DESCRIPTOR *descriptor, VIP_MEM_HANDLE handle)
{
    int before = end_error_count(a, VIP_ERROR_POST_DESC);

    T_EQ(VipPostRecv(a->vi, descriptor, handle), VIP_SUCCESS);
    T_UNTIL(end_error_count(a, VIP_ERROR_POST_DESC) == before + 1, SOON_MS);
    VIP_DESCRIPTOR *none;
    T_EQ(VipRecvDone(a->vi, &none), VIP_DESCRIPTOR_ERROR);
    T_ASSERT(!none);
}

T_TEST(vipl_descriptor, post_desc_memory)
{
    /* Shows each way of posting a descriptor that can't be read. */
    struct end a;
    VIP_MEM_ATTRIBUTES attributes = {NULL, VIP_FALSE, VIP_FALSE};
    VIP_MEM_HANDLE other, part;

    end_open(&a);
    T_EQ(end_create_vi(&a, VIP_SERVICE_RELIABLE_DELIVERY, &a.vi), VIP_SUCCESS);
    VIP_DESCRIPTOR *descriptor = end_prepare(&a, 1, 8);
    T_EQ(VipCreatePtag(a.nic, &attributes.Ptag), VIP_SUCCESS);
    T_EQ(VipRegisterMem(a.nic, descriptor, 64, &attributes, &other), VIP_SUCCESS);
    attributes.Ptag = a.ptag;
    T_EQ(VipRegisterMem(a.nic, descriptor, 47, &attributes, &part), VIP_SUCCESS);
    not_readable(&a, descriptor, 0);
    not_readable(&a, descriptor, a.handle + 1);
    not_readable(&a, descriptor, other);
    not_readable(&a, descriptor, part);
    not_readable(&a, (VIP_DESCRIPTOR *)(void *)(a.area - 64), a.handle);
    not_readable(&a, (VIP_DESCRIPTOR *)(void *)((char *)descriptor + 1), a.handle);
    end_close(&a);
    t_end();
}

T_TEST(vipl_descriptor, next_changed)
{
    /* Shows that writing Next or NextHandle of a posted descriptor is reported. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);
    struct end *a = end_of(e.a);

    post_recv(e.a, 0, 8);
    post_recv(e.a, 1, 8);
    end_descriptor(a, 0)->CS.Next.Address = a;
    end_descriptor(a, 1)->CS.NextHandle = 1;
    post_send(e.b, 0, 8);
    post_send(e.b, 1, 8);
    expect_done(e.a, RECV, 0, VIP_STATUS_OP_RECEIVE, 8);
    expect_done(e.a, RECV, 1, VIP_STATUS_OP_RECEIVE, 8);
    T_UNTIL(end_error_count(a, VIP_ERROR_POST_DESC) == 2, SOON_MS);
    ends_close(e);
    t_end();
}

T_TEST(vipl_descriptor, overrun)
{
    /* Shows that exactly MaxDescriptorsPerQueue fit, on both queues, and what one more does. */
    struct end a;
    VIP_DESCRIPTOR *done;

    end_open(&a);
    T_EQ(end_create_vi(&a, VIP_SERVICE_RELIABLE_DELIVERY, &a.vi), VIP_SUCCESS);
    VIP_DESCRIPTOR *descriptor = end_prepare(&a, 0, 8);
    for (VIP_ULONG i = 0; i < a.limits.MaxDescriptorsPerQueue; i++) {
        T_EQ(VipPostRecv(a.vi, descriptor, a.handle), VIP_SUCCESS);
        T_EQ(VipPostSend(a.vi, descriptor, a.handle), VIP_SUCCESS);
    }
    T_EQ(VipPostRecv(a.vi, descriptor, a.handle), VIP_ERROR_RESOURCE);
    T_EQ(VipPostSend(a.vi, descriptor, a.handle), VIP_ERROR_RESOURCE);
    T_UNTIL(end_error_count(&a, VIP_ERROR_VI_OVERRUN) == 2, SOON_MS);
    T_ASSERT(a.errors[0].ViHandle == a.vi);
    T_EQ(VipSendDone(a.vi, &done), VIP_DESCRIPTOR_ERROR);
    T_EQ(VipPostSend(a.vi, descriptor, a.handle), VIP_SUCCESS);
    T_EQ(VipPostSend(a.vi, descriptor, a.handle), VIP_ERROR_RESOURCE);
    end_close(&a);
    t_end();
}

T_TEST(vipl_descriptor, memory_gone)
{
    /* Shows that a descriptor whose memory was deregistered is not written, and what is raised. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);
    struct end *a = end_of(e.a);
    VIP_DESCRIPTOR *descriptor = aligned_alloc(64, 64), *none;
    VIP_MEM_ATTRIBUTES attributes = {a->ptag, VIP_FALSE, VIP_FALSE};
    VIP_MEM_HANDLE handle;

    *descriptor = *end_prepare(a, 0, 8);
    T_EQ(VipRegisterMem(a->nic, descriptor, 64, &attributes, &handle), VIP_SUCCESS);
    T_EQ(VipPostRecv(a->vi, descriptor, handle), VIP_SUCCESS);
    T_EQ(VipDeregisterMem(a->nic, descriptor, handle), VIP_SUCCESS);
    memset(descriptor, 0x55, 64);
    post_send(e.b, 0, 8);
    T_EQ(end_take(a->vi, RECV, &none), VIP_DESCRIPTOR_ERROR);
    T_ASSERT(!none);
    T_EQ(descriptor->CS.Status, 0x55555555);
    const VIP_ERROR_DESCRIPTOR *error = end_error(a, VIP_ERROR_COMP_PROT);
    T_ASSERT(error && error->DescriptorPtr == descriptor);
    expect_state(e.a, VIP_STATE_ERROR);
    ends_close(e);
    free(descriptor);
    t_end();
}
