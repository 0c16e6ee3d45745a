/* SPDX-License-Identifier: MIT */
#include "end.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PAGE = 4096, AREA = SLOTS * (DESCRIPTOR_ROOM + SLOT_DATA) };

const char *test_device(void)
{
    const char *name = getenv("VIPL_TEST_DEVICE");

    return name ? name : "via0";
}

void fresh_name(char name[NAME_BYTES])
{
    static unsigned count;

    memset(name, 0, NAME_BYTES);
    snprintf(name, NAME_BYTES, "%x-%x", (unsigned)getpid(), ++count);
}

/* ---- in this process ---- */

static void note_error(VIP_PVOID context, VIP_ERROR_DESCRIPTOR *what)
{
    struct end *end = context;
    int count = atomic_load(&end->error_count);

    if (count == ERRORS_MAX)
        return;
    end->errors[count] = *what;
    atomic_store(&end->error_count, count + 1);
}

void end_open(struct end *end)
{
    memset(end, 0, sizeof(*end));
    T_ASSERT(!VipOpenNic(test_device(), &end->nic), "is %s there?", test_device());
    T_EQ(VipErrorCallback(end->nic, end, note_error), VIP_SUCCESS);
    T_EQ(VipQueryNic(end->nic, &end->limits), VIP_SUCCESS);
    T_EQ(VipCreatePtag(end->nic, &end->ptag), VIP_SUCCESS);
    end->area = aligned_alloc(PAGE, AREA);
    T_ASSERT(end->area);
    memset(end->area, 0, AREA);
    VIP_MEM_ATTRIBUTES attributes = {end->ptag, VIP_TRUE, VIP_TRUE};
    T_EQ(VipRegisterMem(end->nic, end->area, AREA, &attributes, &end->handle), VIP_SUCCESS);
}

void end_close(struct end *end)
{
    T_EQ(VipCloseNic(end->nic), VIP_SUCCESS);
    free(end->area);
}

VIP_VI_ATTRIBUTES end_attributes(const struct end *end, VIP_RELIABILITY_LEVEL level)
{
    return (VIP_VI_ATTRIBUTES){level,     MTS,      NULL,
                               end->ptag, VIP_TRUE, level != VIP_SERVICE_UNRELIABLE};
}

VIP_RETURN end_create_vi(struct end *end, VIP_RELIABILITY_LEVEL level, VIP_VI_HANDLE *vi_out)
{
    VIP_VI_ATTRIBUTES attributes = end_attributes(end, level);

    return VipCreateVi(end->nic, &attributes, NULL, NULL, vi_out);
}

VIP_NET_ADDRESS *host_address(const void *host, const char *name, void *room)
{
    const VIP_NET_ADDRESS *from = host;
    VIP_NET_ADDRESS *address = room;
    size_t len = strlen(name);
    char *bytes = (char *)room + offsetof(VIP_NET_ADDRESS, HostAddress);

    memcpy(address, from, offsetof(VIP_NET_ADDRESS, HostAddress) + from->HostAddressLen);
    address->DiscriminatorLen = (VIP_UINT16)len;
    memcpy(bytes + from->HostAddressLen, name, len);
    return address;
}

VIP_NET_ADDRESS *end_address(const struct end *end, const char *name, void *room)
{
    _Alignas(8) char host[ADDRESS_ROOM] = {0};
    VIP_NET_ADDRESS *address = (VIP_NET_ADDRESS *)host;

    address->HostAddressLen = end->limits.NicAddressLen;
    memcpy(host + offsetof(VIP_NET_ADDRESS, HostAddress), end->limits.LocalNicAddress,
           end->limits.NicAddressLen);
    return host_address(host, name, room);
}

VIP_DESCRIPTOR *end_descriptor(const struct end *end, int slot)
{
    return (VIP_DESCRIPTOR *)(end->area + slot * DESCRIPTOR_ROOM);
}

char *end_data(const struct end *end, int slot)
{
    return end->area + SLOTS * DESCRIPTOR_ROOM + slot * SLOT_DATA;
}

VIP_DESCRIPTOR *end_prepare(const struct end *end, int slot, uint32_t len)
{
    VIP_DESCRIPTOR *descriptor = end_descriptor(end, slot);

    memset(descriptor, 0, sizeof(*descriptor));
    descriptor->CS.SegCount = 1;
    descriptor->CS.Length = len;
    descriptor->CS.Status = UINT32_MAX; /* nothing that was there stays */
    descriptor->DS[0].Local =
        (VIP_DATA_SEGMENT){{.Address = end_data(end, slot)}, end->handle, len};
    return descriptor;
}

int end_error_count(struct end *end, VIP_ERROR_CODE code)
{
    int found = 0;

    for (int i = 0; i < atomic_load(&end->error_count); i++)
        found += end->errors[i].ErrorCode == code;
    return found;
}

const VIP_ERROR_DESCRIPTOR *end_error(struct end *end, VIP_ERROR_CODE code)
{
    int64_t deadline = t_deadline(SOON_MS);

    do {
        for (int i = 0; i < atomic_load(&end->error_count); i++) {
            if (end->errors[i].ErrorCode == code)
                return &end->errors[i];
        }
        t_relax();
    } while (!t_expired(deadline));
    return NULL;
}

VIP_RETURN end_take(VIP_VI_HANDLE vi, enum which which, VIP_DESCRIPTOR **out)
{
    int64_t deadline = t_deadline(SOON_MS);
    VIP_RETURN result;

    for (;;) {
        result = which == RECV ? VipRecvDone(vi, out) : VipSendDone(vi, out);
        if (result != VIP_NOT_DONE || t_expired(deadline))
            return result;
        t_relax();
    }
}

struct end *end_of(struct t_peer *peer)
{
    return t_peer_state(peer);
}

/* ---- orders ---- */

void do_open(void **state, void *arg)
{
    struct order *order = arg;
    struct end *end = calloc(1, sizeof(*end));

    T_ASSERT(end);
    *state = end;
    end_open(end);
    end_address(end, "", order->host);
    order->area = (uintptr_t)end->area;
    order->handle = end->handle;
    if (order->send_cq || order->recv_cq)
        T_EQ(VipCreateCQ(end->nic, 256, &end->cq), VIP_SUCCESS);
    VIP_VI_ATTRIBUTES attributes = end_attributes(end, order->level);
    attributes.MaxTransferSize = order->mts ? order->mts : MTS;
    attributes.EnableRdmaWrite = !order->no_write;
    attributes.EnableRdmaRead = order->read;
    order->result = VipCreateVi(end->nic, &attributes, order->send_cq ? end->cq : NULL,
                                order->recv_cq ? end->cq : NULL, &end->vi);
}

/* Waits for one who asks, and accepts him. */
void do_serve(void **state, void *arg)
{
    struct order *order = arg;
    struct end *end = *state;
    _Alignas(8) char room[ADDRESS_ROOM];

    order->result = VipConnectWait(end->nic, end_address(end, order->name, room), SOON_MS,
                                   (VIP_NET_ADDRESS *)order->remote, &order->theirs, &end->conn);
    if (!order->result)
        order->result = VipConnectAccept(end->conn, end->vi);
}

/* Asks until somebody waits there. */
void do_request(void **state, void *arg)
{
    struct order *order = arg;
    struct end *end = *state;
    _Alignas(8) char here[ADDRESS_ROOM], there[ADDRESS_ROOM];
    int64_t deadline = t_deadline(SOON_MS);

    for (;;) {
        order->result = VipConnectRequest(end->vi, end_address(end, order->other, here),
                                          host_address(order->host, order->name, there), SOON_MS,
                                          &order->theirs);
        if (order->result != VIP_NO_MATCH || t_expired(deadline))
            return;
        t_relax();
    }
}

void do_post(void **state, void *arg)
{
    struct order *order = arg;
    struct end *end = *state;
    VIP_DESCRIPTOR *descriptor = end_prepare(end, order->slot, order->len);
    unsigned op = order->control & VIP_CONTROL_OP_MASK;

    descriptor->CS.Control = order->control;
    descriptor->CS.ImmediateData = order->immediate;
    if (op) {
        descriptor->DS[1] = descriptor->DS[0];
        descriptor->DS[0].Remote =
            (VIP_ADDRESS_SEGMENT){{.AddressBits = order->there}, order->there_handle, 0};
        descriptor->CS.SegCount = 2;
    }
    if (order->seed && order->which == SEND)
        t_fill(end_data(end, order->slot), 0, order->len, order->seed);
    order->result = order->which == SEND ? VipPostSend(end->vi, descriptor, end->handle)
                                         : VipPostRecv(end->vi, descriptor, end->handle);
}

void do_take(void **state, void *arg)
{
    struct order *order = arg;
    struct end *end = *state;
    VIP_DESCRIPTOR *descriptor = NULL;

    order->result = end_take(end->vi, order->which, &descriptor);
    order->found = -1;
    if (!descriptor)
        return;
    order->found = (int)(((char *)descriptor - end->area) / DESCRIPTOR_ROOM);
    order->status = descriptor->CS.Status;
    order->length = descriptor->CS.Length;
    order->immediate = descriptor->CS.ImmediateData;
}

void do_disconnect(void **state, void *arg)
{
    ((struct order *)arg)->result = VipDisconnect(((struct end *)*state)->vi);
}

void do_query(void **state, void *arg)
{
    struct order *order = arg;
    struct end *end = *state;
    VIP_BOOLEAN send_empty, recv_empty;

    order->result = VipQueryVi(end->vi, &order->state, NULL, &send_empty, &recv_empty);
    order->send_empty = send_empty;
    order->recv_empty = recv_empty;
}

void do_error(void **state, void *arg)
{
    struct order *order = arg;
    struct end *end = *state;

    const VIP_ERROR_DESCRIPTOR *error = end_error(end, order->code);

    order->result = error ? VIP_SUCCESS : VIP_TIMEOUT;
    order->count = error ? end_error_count(end, order->code) : atomic_load(&end->error_count);
    if (!error)
        return;
    T_ASSERT(error->NicHandle == end->nic && error->ViHandle == end->vi && !error->CQHandle);
    T_EQ(error->ResourceCode, error->DescriptorPtr ? VIP_RESOURCE_DESCRIPTOR : VIP_RESOURCE_VI);
}

void do_fill(void **state, void *arg)
{
    struct order *order = arg;

    t_fill(end_data(*state, order->slot), 0, order->len, order->seed);
}

void do_compare(void **state, void *arg)
{
    struct order *order = arg;

    T_EQ(t_compare(end_data(*state, order->slot), 0, order->len, order->seed), -1);
}

/* No error has been raised at all. */
void do_quiet(void **state, void *arg)
{
    struct end *end = *state;

    (void)arg;
    T_ASSERT(!atomic_load(&end->error_count), "error %d", end->errors[0].ErrorCode);
}

void do_close(void **state, void *arg)
{
    (void)arg;
    end_close(*state);
    free(*state);
    *state = NULL;
}

/* ---- the test's side ---- */

struct order order_run(struct t_peer *peer, t_peer_fn *fn, struct order order)
{
    t_peer_call(peer, fn, &order, sizeof(order));
    return order;
}

static void open_one(struct t_peer *peer, struct order order)
{
    T_EQ(order_run(peer, do_open, order).result, VIP_SUCCESS);
}

struct ends ends_open(struct order order)
{
    struct ends ends = {.b = t_peer_start(ELSEWHERE)};

    ends.a = t_peer_start(T_INLINE);
    open_one(ends.b, order);
    open_one(ends.a, order);
    return ends;
}

void ends_join(struct ends ends)
{
    struct order serve = {0}, ask = {0};

    fresh_name(serve.name);
    memcpy(ask.name, serve.name, sizeof(ask.name));
    end_address(end_of(ends.a), "", ask.host);
    t_peer_begin(ends.b, do_serve, &serve, sizeof(serve));
    ask = order_run(ends.a, do_request, ask);
    t_peer_finish(ends.b);
    T_EQ(ask.result, VIP_SUCCESS);
    T_EQ(serve.result, VIP_SUCCESS);
}

struct ends ends_connect_as(struct order order)
{
    struct ends ends = ends_open(order);

    ends_join(ends);
    return ends;
}

struct ends ends_connect(VIP_RELIABILITY_LEVEL level)
{
    return ends_connect_as((struct order){.level = level, .read = level != VIP_SERVICE_UNRELIABLE});
}

void ends_close(struct ends ends)
{
    order_run(ends.a, do_close, (struct order){0});
    order_run(ends.b, do_close, (struct order){0});
    t_peer_stop(ends.a);
    t_peer_stop(ends.b);
}

void post_recv(struct t_peer *end, int slot, uint32_t len)
{
    struct order order = {.which = RECV, .slot = slot, .len = len};

    T_EQ(order_run(end, do_post, order).result, VIP_SUCCESS);
}

void post_send(struct t_peer *end, int slot, uint32_t len)
{
    struct order order = {.which = SEND, .slot = slot, .len = len};

    T_EQ(order_run(end, do_post, order).result, VIP_SUCCESS);
}

void expect_done(struct t_peer *end, enum which which, int slot, uint32_t status, uint32_t length)
{
    struct order order = order_run(end, do_take, (struct order){.which = which});

    T_EQ(order.found, slot);
    T_EQ(order.status, status | VIP_STATUS_DONE);
    T_EQ(order.length, length);
    T_EQ(order.result, status & VIP_STATUS_ERROR_MASK ? VIP_DESCRIPTOR_ERROR : VIP_SUCCESS);
}

void expect_empty(struct t_peer *end, enum which which)
{
    struct order order = order_run(end, do_take, (struct order){.which = which});

    T_EQ(order.result, VIP_DESCRIPTOR_ERROR);
    T_EQ(order.found, -1);
}

void expect_state(struct t_peer *end, VIP_VI_STATE state)
{
    int64_t deadline = t_deadline(SOON_MS);
    struct order order;

    for (;;) {
        order = order_run(end, do_query, (struct order){0});
        T_EQ(order.result, VIP_SUCCESS);
        if (order.state == state || t_expired(deadline))
            break;
        t_relax();
    }
    T_EQ(order.state, state);
}

void expect_error(struct t_peer *end, VIP_ERROR_CODE code)
{
    struct order order = order_run(end, do_error, (struct order){.code = code});

    T_ASSERT(order.result == VIP_SUCCESS, "error %d was not raised, but %d others", code,
             order.count);
}
