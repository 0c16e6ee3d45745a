/* SPDX-License-Identifier: MIT */
/* Asynchronous errors: which one, when, about what, and to whom. */
#include "end.h"

#include <stdio.h>
#include <unistd.h>

static struct ends connect_with(struct order open, struct order *there_out)
{
    struct ends e = {.b = t_peer_start(ELSEWHERE)};

    e.a = t_peer_start(T_INLINE);
    *there_out = order_run(e.b, do_open, open);
    T_EQ(order_run(e.a, do_open, open).result, VIP_SUCCESS);
    ends_join(e);
    return e;
}

static void recvq_empty_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that a message without a receive breaks the connection, and the receiver learns why. */
    struct ends e = ends_connect(level);

    post_send(e.a, 0, 8);
    expect_done(e.a, SEND, 0, VIP_STATUS_OP_SEND | VIP_STATUS_TRANSPORT_ERROR, 0);
    expect_state(e.a, VIP_STATE_ERROR);
    expect_error(e.a, VIP_ERROR_CONN_LOST);
    expect_error(e.b, VIP_ERROR_RECVQ_EMPTY);
    expect_error(e.b, VIP_ERROR_CONN_LOST);
    expect_state(e.b, VIP_STATE_ERROR);
    ends_close(e);
    t_end();
}
T_RELIABLE_LEVELS(vipl_error, recvq_empty)

/* The first end asks for what the second one's memory or VI does not allow. */
static void refused(struct order open, uint16_t control, bool bad_handle, VIP_ERROR_CODE code)
{
    struct order there;
    struct ends e = connect_with(open, &there);
    uint32_t operation =
        control == VIP_CONTROL_OP_RDMAREAD ? VIP_STATUS_OP_RDMA_READ : VIP_STATUS_OP_RDMA_WRITE;
    struct order order = {.len = 8,
                          .control = control,
                          .there = there.area + SLOTS * DESCRIPTOR_ROOM,
                          .there_handle = bad_handle ? there.handle + 0x1000 : there.handle};

    post_recv(e.b, 1, 8);
    T_EQ(order_run(e.a, do_post, order).result, VIP_SUCCESS);
    expect_done(e.a, SEND, 0, operation | VIP_STATUS_RDMA_PROT_ERROR, 0);
    expect_state(e.a, VIP_STATE_ERROR);
    expect_error(e.b, code);
    expect_state(e.b, VIP_STATE_ERROR);
    /* Some devices take a receive for immediate data before they look at the rest. */
    bool taken = control & VIP_CONTROL_IMMEDIATE;
    struct order receive = order_run(e.b, do_take, (struct order){.which = RECV});
    T_EQ(receive.found, 1);
    T_IN(receive.status & VIP_STATUS_ERROR_MASK, VIP_STATUS_DESC_FLUSHED_ERROR,
         taken ? VIP_STATUS_RDMA_PROT_ERROR : VIP_STATUS_DESC_FLUSHED_ERROR);
    ends_close(e);
    t_end();
}

static void write_handle_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that an RDMA write to a handle that isn't there is refused, and told of. */
    refused((struct order){.level = level}, VIP_CONTROL_OP_RDMAWRITE, true, VIP_ERROR_RDMAW_PROT);
}
T_RELIABLE_LEVELS(vipl_error, write_handle)

static void write_immediate_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that one with immediate data delivers nothing, and is told of in the same way. */
    refused((struct order){.level = level}, VIP_CONTROL_OP_RDMAWRITE | VIP_CONTROL_IMMEDIATE, true,
            VIP_ERROR_RDMAW_PROT);
}
T_RELIABLE_LEVELS(vipl_error, write_immediate)

static void write_right_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that a VI without EnableRdmaWrite refuses, although the memory allows it. */
    refused((struct order){.level = level, .no_write = true}, VIP_CONTROL_OP_RDMAWRITE, false,
            VIP_ERROR_RDMAW_PROT);
}
T_RELIABLE_LEVELS(vipl_error, write_right)

static void read_handle_at(VIP_RELIABILITY_LEVEL level)
{
    /* The same, RDMA read. */
    refused((struct order){.level = level, .read = true}, VIP_CONTROL_OP_RDMAREAD, true,
            VIP_ERROR_RDMAR_PROT);
}
T_RELIABLE_LEVELS(vipl_error, read_handle)

static void read_right_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that a VI without EnableRdmaRead refuses. */
    refused((struct order){.level = level}, VIP_CONTROL_OP_RDMAREAD, false, VIP_ERROR_RDMAR_PROT);
}
T_RELIABLE_LEVELS(vipl_error, read_right)

/* ---- a region's own rights ---- */

/* Registers slot 5's data once more, with the rights in the order; again: changes them. */
static void do_region(void **state, void *arg)
{
    struct order *order = arg;
    struct end *end = *state;
    VIP_MEM_ATTRIBUTES attributes = {end->ptag, !order->no_write, order->read};

    if (order->handle) {
        order->result = VipSetMemAttributes(end->nic, end_data(end, 5), order->handle, &attributes);
        return;
    }
    order->result = VipRegisterMem(end->nic, end_data(end, 5), 64, &attributes, &order->handle);
    order->area = (uintptr_t)end_data(end, 5);
}

static void do_other_tag(void **state, void *arg)
{
    struct order *order = arg;
    struct end *end = *state;
    VIP_MEM_ATTRIBUTES attributes = {NULL, VIP_TRUE, VIP_TRUE};

    T_EQ(VipCreatePtag(end->nic, &attributes.Ptag), VIP_SUCCESS);
    if (order->handle) {
        order->result = VipSetMemAttributes(end->nic, end_data(end, 5), order->handle, &attributes);
        return;
    }
    order->result = VipRegisterMem(end->nic, end_data(end, 5), 64, &attributes, &order->handle);
    order->area = (uintptr_t)end_data(end, 5);
}

#define NOT_REFUSED VIP_ERROR_CATASTROPHIC /* which never comes here */

/* An RDMA operation on the region: done, or refused with this error at the other end. */
static void on_region(struct ends e, struct order region, uint16_t operation, VIP_ERROR_CODE error)
{
    struct order order = {.len = 16,
                          .seed = 3,
                          .control = operation,
                          .there = region.area,
                          .there_handle = region.handle};
    bool refused = error != NOT_REFUSED;
    uint32_t status =
        operation == VIP_CONTROL_OP_RDMAREAD ? VIP_STATUS_OP_RDMA_READ : VIP_STATUS_OP_RDMA_WRITE;

    T_EQ(region.result, VIP_SUCCESS);
    T_EQ(order_run(e.a, do_post, order).result, VIP_SUCCESS);
    expect_done(e.a, SEND, 0, status | (refused ? VIP_STATUS_RDMA_PROT_ERROR : 0),
                refused ? 0 : 16);
    if (!refused)
        return;
    expect_error(e.b, error);
    expect_state(e.b, VIP_STATE_ERROR);
}

static void region_write_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that a region without EnableRdmaWrite can be read, and not written. */
    struct order there;
    struct ends e = connect_with((struct order){.level = level, .read = true}, &there);
    struct order region = order_run(e.b, do_region, (struct order){.no_write = true, .read = true});

    on_region(e, region, VIP_CONTROL_OP_RDMAREAD, NOT_REFUSED);
    on_region(e, region, VIP_CONTROL_OP_RDMAWRITE, VIP_ERROR_RDMAW_PROT);
    ends_close(e);
    t_end();
}
T_RELIABLE_LEVELS(vipl_error, region_write)

static void region_read_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that one without EnableRdmaRead can be written, and not read. */
    struct order there;
    struct ends e = connect_with((struct order){.level = level, .read = true}, &there);
    struct order region = order_run(e.b, do_region, (struct order){0});

    on_region(e, region, VIP_CONTROL_OP_RDMAWRITE, NOT_REFUSED);
    on_region(e, region, VIP_CONTROL_OP_RDMAREAD, VIP_ERROR_RDMAR_PROT);
    ends_close(e);
    t_end();
}
T_RELIABLE_LEVELS(vipl_error, region_read)

static void region_tag_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that a region with a tag that isn't the VI's can't be reached, whatever its rights. */
    struct order there;
    struct ends e = connect_with((struct order){.level = level, .read = true}, &there);

    on_region(e, order_run(e.b, do_other_tag, (struct order){0}), VIP_CONTROL_OP_RDMAREAD,
              VIP_ERROR_RDMAR_PROT);
    ends_close(e);
    t_end();
}
T_RELIABLE_LEVELS(vipl_error, region_tag)

static void rights_change_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that rights of a region can be given later, under the same handle, and taken away. */
    struct order there;
    struct ends e = connect_with((struct order){.level = level, .read = true}, &there);
    struct order region = order_run(e.b, do_region, (struct order){.no_write = true});

    T_EQ(region.result, VIP_SUCCESS);
    region.no_write = false;
    region = order_run(e.b, do_region, region);
    on_region(e, region, VIP_CONTROL_OP_RDMAWRITE, NOT_REFUSED);
    region.no_write = region.read = true;
    region = order_run(e.b, do_region, region);
    on_region(e, region, VIP_CONTROL_OP_RDMAREAD, NOT_REFUSED);
    on_region(e, region, VIP_CONTROL_OP_RDMAWRITE, VIP_ERROR_RDMAW_PROT);
    ends_close(e);
    t_end();
}
T_RELIABLE_LEVELS(vipl_error, rights_change)

static void tag_change_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that a region whose tag was changed can't be reached any more. */
    struct order there;
    struct ends e = connect_with((struct order){.level = level, .read = true}, &there);
    struct order region = order_run(e.b, do_region, (struct order){.read = true});

    on_region(e, region, VIP_CONTROL_OP_RDMAREAD, NOT_REFUSED);
    on_region(e, order_run(e.b, do_other_tag, region), VIP_CONTROL_OP_RDMAREAD,
              VIP_ERROR_RDMAR_PROT);
    ends_close(e);
    t_end();
}
T_RELIABLE_LEVELS(vipl_error, tag_change)

T_TEST(vipl_error, write_dropped)
{
    /* Shows that an unreliable VI drops such a write without a word, and goes on. */
    struct ends e = ends_connect(VIP_SERVICE_UNRELIABLE);
    struct order order = {
        .len = 8, .control = VIP_CONTROL_OP_RDMAWRITE, .there = 4096, .there_handle = 77};

    T_EQ(order_run(e.a, do_post, order).result, VIP_SUCCESS);
    expect_done(e.a, SEND, 0, VIP_STATUS_OP_RDMA_WRITE, 8);
    post_recv(e.b, 0, 8);
    post_send(e.a, 1, 8);
    expect_done(e.b, RECV, 0, VIP_STATUS_OP_RECEIVE, 8);
    order_run(e.b, do_quiet, (struct order){0});
    ends_close(e);
    t_end();
}

static void conn_lost_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that the end that is left hears of it once, and everything it posted is flushed. */
    struct ends e = ends_connect(level);
    struct end *a = end_of(e.a);

    post_recv(e.a, 0, 8);
    post_recv(e.a, 1, 8);
    T_EQ(order_run(e.b, do_disconnect, (struct order){0}).result, VIP_SUCCESS);
    expect_state(e.b, VIP_STATE_IDLE);
    const VIP_ERROR_DESCRIPTOR *error = end_error(a, VIP_ERROR_CONN_LOST);
    T_ASSERT(error && error->ViHandle == a->vi && error->NicHandle == a->nic);
    T_ASSERT(!error->CQHandle && !error->DescriptorPtr);
    T_EQ(error->ResourceCode, VIP_RESOURCE_VI);
    expect_state(e.a, VIP_STATE_ERROR);
    for (int i = 0; i < 2; i++)
        expect_done(e.a, RECV, i, VIP_STATUS_OP_RECEIVE | VIP_STATUS_DESC_FLUSHED_ERROR, 0);
    T_EQ(end_error_count(a, VIP_ERROR_CONN_LOST), 1);
    ends_close(e);
    t_end();
}
T_LEVELS(vipl_error, conn_lost)

T_TEST(vipl_error, two_handles)
{
    /* Shows that an error goes to the handler of its NIC handle only. */
    struct end a, b;
    VIP_DESCRIPTOR *descriptor;

    end_open(&a);
    end_open(&b);
    T_EQ(end_create_vi(&a, VIP_SERVICE_RELIABLE_DELIVERY, &a.vi), VIP_SUCCESS);
    descriptor = end_prepare(&a, 0, 8);
    T_EQ(VipPostRecv(a.vi, descriptor, 0), VIP_SUCCESS);
    T_ASSERT(end_error(&a, VIP_ERROR_POST_DESC));
    T_EQ(b.error_count, 0);
    end_close(&a);
    end_close(&b);
    t_end();
}

T_TEST(vipl_error, default_handler)
{
    /* Shows that without a handler an error is a line on stderr, also after one was taken back. */
    struct end a;
    int pipes[2], saved;
    char line[256] = "";

    end_open(&a);
    T_EQ(VipErrorCallback(a.nic, NULL, NULL), VIP_SUCCESS);
    T_EQ(end_create_vi(&a, VIP_SERVICE_RELIABLE_DELIVERY, &a.vi), VIP_SUCCESS);
    T_EQ(pipe(pipes), 0);
    fflush(stderr);
    saved = dup(STDERR_FILENO);
    dup2(pipes[1], STDERR_FILENO);
    T_EQ(VipPostRecv(a.vi, end_prepare(&a, 0, 8), 0), VIP_SUCCESS);
    bool came = t_readable(pipes[0], SOON_MS);
    ssize_t len = came ? read(pipes[0], line, sizeof(line) - 1) : 0;
    dup2(saved, STDERR_FILENO);
    T_ASSERT(len > 0 && !strncmp(line, "vipl: ", 6) && strchr(line, '\n'), "\"%s\"", line);
    T_EQ(a.error_count, 0);
    close(saved);
    close(pipes[0]);
    close(pipes[1]);
    T_EQ(VipErrorCallback(NULL, NULL, NULL), VIP_INVALID_PARAMETER);
    end_close(&a);
    t_end();
}

/* ---- a handler that calls the library ---- */

struct helper {
    struct end *end;
    VIP_RETURN disconnected, closed;
    _Atomic bool called;
};

static void disconnect_in_handler(VIP_PVOID context, VIP_ERROR_DESCRIPTOR *what)
{
    struct helper *helper = context;

    helper->disconnected = VipDisconnect(what->ViHandle);
    helper->closed = VipCloseNic(what->NicHandle);
    atomic_store(&helper->called, true);
}

T_TEST(vipl_error, handler_calls)
{
    /* Shows that a handler may disconnect the VI it hears of, but not close the NIC. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);
    struct helper helper = {.end = end_of(e.a)};

    T_EQ(VipErrorCallback(helper.end->nic, &helper, disconnect_in_handler), VIP_SUCCESS);
    T_EQ(order_run(e.b, do_disconnect, (struct order){0}).result, VIP_SUCCESS);
    T_UNTIL(atomic_load(&helper.called), SOON_MS);
    T_EQ(helper.disconnected, VIP_SUCCESS);
    T_EQ(helper.closed, VIP_ERROR_RESOURCE);
    expect_state(e.a, VIP_STATE_IDLE);
    ends_close(e);
    t_end();
}
