/* SPDX-License-Identifier: MIT */
/* What arrives, and what the descriptors say: each operation at each reliability level. */
#include "end.h"

/* ---- send and receive ---- */

static void sizes_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that messages of all sizes arrive, and that both descriptors say how long they are. */
    static const uint32_t sizes[] = {0, 1, 7, 8, 32, 33, 64, 65, 1000, 1024, 4096, 4097, MTS};
    struct ends e = ends_connect(level);

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct order order = {.slot = 1, .len = sizes[i], .seed = t_rand() | 1};

        post_recv(e.b, 0, sizes[i]);
        T_EQ(order_run(e.a, do_post, order).result, VIP_SUCCESS);
        expect_done(e.a, SEND, 1, VIP_STATUS_OP_SEND, sizes[i]);
        expect_done(e.b, RECV, 0, VIP_STATUS_OP_RECEIVE, sizes[i]);
        order.slot = 0;
        order_run(e.b, do_compare, order);
    }
    order_run(e.a, do_quiet, (struct order){0});
    order_run(e.b, do_quiet, (struct order){0});
    ends_close(e);
    t_end();
}

T_LEVELS(vipl_transfer, sizes)

static void immediate_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that immediate data comes along, unchanged, with a message and alone. */
    struct ends e = ends_connect(level);

    for (uint32_t len = 0; len <= 16; len += 16) {
        struct order order = {
            .slot = 1, .len = len, .control = VIP_CONTROL_IMMEDIATE, .immediate = 0x12345678 + len};

        post_recv(e.b, 0, 64);
        T_EQ(order_run(e.a, do_post, order).result, VIP_SUCCESS);
        struct order got = order_run(e.b, do_take, (struct order){.which = RECV});
        T_EQ(got.status, VIP_STATUS_DONE | VIP_STATUS_OP_RECEIVE | VIP_STATUS_IMMEDIATE);
        T_EQ(got.immediate, 0x12345678 + len);
        T_EQ(got.length, len);
        expect_done(e.a, SEND, 1, VIP_STATUS_OP_SEND, len);
    }
    ends_close(e);
    t_end();
}

T_LEVELS(vipl_transfer, immediate)

static void order_kept_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that receives are taken, and both queues complete, in the order posted. */
    struct ends e = ends_connect(level);

    for (int i = 0; i < SLOTS / 2; i++)
        post_recv(e.b, i, 64);
    for (int i = 0; i < SLOTS / 2; i++)
        post_send(e.a, i, (uint32_t)i);
    for (int i = 0; i < SLOTS / 2; i++)
        expect_done(e.b, RECV, i, VIP_STATUS_OP_RECEIVE, (uint32_t)i);
    for (int i = 0; i < SLOTS / 2; i++)
        expect_done(e.a, SEND, i, VIP_STATUS_OP_SEND, (uint32_t)i);
    expect_empty(e.a, SEND);
    expect_empty(e.b, RECV);
    ends_close(e);
    t_end();
}

T_LEVELS(vipl_transfer, order_kept)

/* Takes a message and disconnects, as soon as ever it can. */
static void take_and_leave(void **state, void *arg)
{
    struct order *order = arg;
    struct end *end = *state;
    VIP_DESCRIPTOR *descriptor;
    int64_t deadline = t_deadline(SOON_MS);

    do {
        order->result = VipRecvDone(end->vi, &descriptor);
    } while (order->result == VIP_NOT_DONE && !t_expired(deadline));
    VipDisconnect(end->vi);
}

static void last_word_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that a message that was received was sent, though the receiver has left since. */
    struct ends e = ends_connect(level);

    for (int i = 0; i < 40; i++) {
        struct order leave = {0};

        post_recv(e.b, 0, 64);
        t_peer_begin(e.b, take_and_leave, &leave, sizeof(leave));
        post_send(e.a, 1, 64);
        expect_done(e.a, SEND, 1, VIP_STATUS_OP_SEND, 64);
        t_peer_finish(e.b);
        T_EQ(leave.result, VIP_SUCCESS);
        expect_state(e.a, VIP_STATE_ERROR);
        T_EQ(order_run(e.a, do_disconnect, (struct order){0}).result, VIP_SUCCESS);
        ends_join(e);
    }
    ends_close(e);
    t_end();
}
T_RELIABLE_LEVELS(vipl_transfer, last_word)

T_TEST(vipl_transfer, segments)
{
    /* Shows that as many segments as the NIC says are gathered, and scattered, in order. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);
    struct end *a = end_of(e.a);
    unsigned count = (unsigned)a->limits.MaxSegmentsPerDesc;
    VIP_DESCRIPTOR *descriptor = end_prepare(a, 1, 0);

    count = count > 60 ? 60 : count;
    t_fill(end_data(a, 1), 0, count * 10, 77);
    for (unsigned i = 0; i < count; i++)
        (&descriptor->DS[0])[i].Local =
            (VIP_DATA_SEGMENT){{.Address = end_data(a, 1) + i * 10}, a->handle, 10};
    descriptor->CS.SegCount = (VIP_UINT16)count;
    descriptor->CS.Length = count * 10;
    post_recv(e.b, 0, count * 10);
    T_EQ(VipPostSend(a->vi, descriptor, a->handle), VIP_SUCCESS);
    expect_done(e.a, SEND, 1, VIP_STATUS_OP_SEND, count * 10);
    expect_done(e.b, RECV, 0, VIP_STATUS_OP_RECEIVE, count * 10);
    order_run(e.b, do_compare, (struct order){.len = count * 10, .seed = 77});

    memset(end_data(a, 1), 0, count * 10);
    T_EQ(VipPostRecv(a->vi, descriptor, a->handle), VIP_SUCCESS);
    T_EQ(order_run(e.b, do_post, (struct order){.slot = 2, .len = count * 10, .seed = 78}).result,
         VIP_SUCCESS);
    expect_done(e.a, RECV, 1, VIP_STATUS_OP_RECEIVE, count * 10);
    T_EQ(t_compare(end_data(a, 1), 0, count * 10, 78), -1);
    ends_close(e);
    t_end();
}

T_TEST(vipl_transfer, no_segments)
{
    /* Shows that descriptors without a segment carry empty messages. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);
    struct end *a = end_of(e.a);
    VIP_DESCRIPTOR *descriptor = end_prepare(a, 1, 0);

    descriptor->CS.SegCount = 0;
    post_recv(e.b, 0, 0);
    T_EQ(VipPostSend(a->vi, descriptor, a->handle), VIP_SUCCESS);
    expect_done(e.a, SEND, 1, VIP_STATUS_OP_SEND, 0);
    expect_done(e.b, RECV, 0, VIP_STATUS_OP_RECEIVE, 0);
    ends_close(e);
    t_end();
}

T_TEST(vipl_transfer, largest)
{
    /* Shows that a message of exactly the VI's MaxTransferSize passes: 1 MiB. */
    struct t_peer *b = t_peer_start(ELSEWHERE);
    struct ends e = {t_peer_start(T_INLINE), b};
    struct order open = {.level = VIP_SERVICE_RELIABLE_DELIVERY, .mts = SLOTS / 2 * SLOT_DATA};

    T_EQ(order_run(e.b, do_open, open).result, VIP_SUCCESS);
    T_EQ(order_run(e.a, do_open, open).result, VIP_SUCCESS);
    ends_join(e);
    post_recv(e.b, 0, SLOTS / 2 * SLOT_DATA);
    struct order order = {.len = SLOTS / 2 * SLOT_DATA, .seed = 5};
    T_EQ(order_run(e.a, do_post, order).result, VIP_SUCCESS);
    expect_done(e.a, SEND, 0, VIP_STATUS_OP_SEND, order.len);
    expect_done(e.b, RECV, 0, VIP_STATUS_OP_RECEIVE, order.len);
    order_run(e.b, do_compare, order);
    ends_close(e);
    t_end();
}

/* ---- RDMA ---- */

/* Where a slot of the other end's area is, for an order of the first. */
static struct order remote_slot(struct order there, int slot, struct order order)
{
    order.there = there.area + SLOTS * DESCRIPTOR_ROOM + (uint64_t)slot * SLOT_DATA;
    order.there_handle = there.handle;
    return order;
}

static struct ends connect_rdma(VIP_RELIABILITY_LEVEL level, struct order *there_out)
{
    struct ends e = {.b = t_peer_start(ELSEWHERE)};
    struct order open = {.level = level, .read = level != VIP_SERVICE_UNRELIABLE};

    e.a = t_peer_start(T_INLINE);
    *there_out = order_run(e.b, do_open, open);
    T_EQ(there_out->result, VIP_SUCCESS);
    T_EQ(order_run(e.a, do_open, open).result, VIP_SUCCESS);
    ends_join(e);
    return e;
}

static void rdma_write_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that an RDMA write lands where it should and takes no receive. */
    struct order there;
    struct ends e = connect_rdma(level, &there);

    post_recv(e.b, 1, 64);
    for (uint32_t len = 0; len <= 9000; len = len * 3 + 1) {
        struct order order = {.len = len, .seed = len + 3, .control = VIP_CONTROL_OP_RDMAWRITE};

        order = remote_slot(there, 3, order);
        T_EQ(order_run(e.a, do_post, order).result, VIP_SUCCESS);
        expect_done(e.a, SEND, 0, VIP_STATUS_OP_RDMA_WRITE, len);
    }
    /* What follows on the same VI is proof that the writes before it have arrived. */
    post_send(e.a, 1, 4);
    expect_done(e.b, RECV, 1, VIP_STATUS_OP_RECEIVE, 4);
    order_run(e.b, do_compare, (struct order){.slot = 3, .len = 3280, .seed = 3283});
    expect_empty(e.b, RECV);
    ends_close(e);
    t_end();
}

T_LEVELS(vipl_transfer, rdma_write)

static void rdma_write_immediate_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that one with immediate data takes a receive, whose data it leaves alone. */
    struct order there;
    struct ends e = connect_rdma(level, &there);
    struct order order = {.len = 500,
                          .seed = 9,
                          .control = VIP_CONTROL_OP_RDMAWRITE | VIP_CONTROL_IMMEDIATE,
                          .immediate = 0xfeedbeef};

    order_run(e.b, do_fill, (struct order){.slot = 1, .len = 500, .seed = 1});
    post_recv(e.b, 1, 500);
    T_EQ(order_run(e.a, do_post, remote_slot(there, 3, order)).result, VIP_SUCCESS);
    struct order got = order_run(e.b, do_take, (struct order){.which = RECV});
    T_EQ(got.status, VIP_STATUS_DONE | VIP_STATUS_OP_REMOTE_RDMA_WRITE | VIP_STATUS_IMMEDIATE);
    T_EQ(got.immediate, 0xfeedbeef);
    T_EQ(got.length, 500);
    order_run(e.b, do_compare, (struct order){.slot = 3, .len = 500, .seed = 9});
    order_run(e.b, do_compare, (struct order){.slot = 1, .len = 500, .seed = 1});
    expect_done(e.a, SEND, 0, VIP_STATUS_OP_RDMA_WRITE, 500);
    ends_close(e);
    t_end();
}

T_LEVELS(vipl_transfer, rdma_write_immediate)

static void rdma_read_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that an RDMA read brings the data, fenced sends wait for it, and no receive is taken.
     */
    struct order there;
    struct ends e = connect_rdma(level, &there);
    struct order order = {.len = 3000, .control = VIP_CONTROL_OP_RDMAREAD};

    order_run(e.b, do_fill, (struct order){.slot = 3, .len = 3000, .seed = 21});
    post_recv(e.b, 1, 3000);
    T_EQ(order_run(e.a, do_post, remote_slot(there, 3, order)).result, VIP_SUCCESS);
    struct end *a = end_of(e.a);
    VIP_DESCRIPTOR *fenced = end_prepare(a, 1, 3000);
    fenced->CS.Control = VIP_CONTROL_QFENCE;
    fenced->DS[0].Local.Data.Address = end_data(a, 0); /* what the read brings */
    T_EQ(VipPostSend(a->vi, fenced, a->handle), VIP_SUCCESS);
    expect_done(e.a, SEND, 0, VIP_STATUS_OP_RDMA_READ, 3000);
    expect_done(e.a, SEND, 1, VIP_STATUS_OP_SEND, 3000);
    expect_done(e.b, RECV, 1, VIP_STATUS_OP_RECEIVE, 3000);
    order_run(e.b, do_compare, (struct order){.slot = 1, .len = 3000, .seed = 21});
    ends_close(e);
    t_end();
}

T_RELIABLE_LEVELS(vipl_transfer, rdma_read)

/* ---- volume ---- */

T_TEST(vipl_transfer, ring_wraps)
{
    /* Shows that a queue goes round: more than twice as many as it holds, in batches. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);
    int rounds = (int)end_of(e.a)->limits.MaxDescriptorsPerQueue * 2 / 8 + 3;

    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 8; i++)
            post_recv(e.b, i, 16);
        for (int i = 0; i < 8; i++)
            post_send(e.a, i, 16);
        for (int i = 0; i < 8; i++) {
            expect_done(e.a, SEND, i, VIP_STATUS_OP_SEND, 16);
            expect_done(e.b, RECV, i, VIP_STATUS_OP_RECEIVE, 16);
        }
    }
    ends_close(e);
    t_end();
}

/* Waits for what the other end writes into the slot. */
static void do_await(void **state, void *arg)
{
    struct order *order = arg;
    const char *data = end_data(*state, order->slot);

    T_UNTIL(t_compare(data, 0, order->len, order->seed) == -1, SOON_MS);
}

T_TEST(vipl_transfer, unreliable_drops)
{
    /* Shows that what finds no receive is lost, silently, and that the VI goes on. */
    struct order there,
        order = {.slot = 1, .len = 8, .seed = 4, .control = VIP_CONTROL_OP_RDMAWRITE};
    struct ends e = connect_rdma(VIP_SERVICE_UNRELIABLE, &there);

    post_send(e.a, 0, 8);
    expect_done(e.a, SEND, 0, VIP_STATUS_OP_SEND, 8);
    /* A send is complete when it has left; what follows it tells that it has been there. */
    T_EQ(order_run(e.a, do_post, remote_slot(there, 3, order)).result, VIP_SUCCESS);
    expect_done(e.a, SEND, 1, VIP_STATUS_OP_RDMA_WRITE, 8);
    order.slot = 3;
    order_run(e.b, do_await, order);
    post_recv(e.b, 1, 8);
    post_send(e.a, 2, 5);
    expect_done(e.a, SEND, 2, VIP_STATUS_OP_SEND, 5);
    expect_done(e.b, RECV, 1, VIP_STATUS_OP_RECEIVE, 5);
    expect_state(e.a, VIP_STATE_CONNECTED);
    expect_state(e.b, VIP_STATE_CONNECTED);
    order_run(e.b, do_quiet, (struct order){0});
    ends_close(e);
    t_end();
}
