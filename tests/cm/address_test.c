/* SPDX-License-Identifier: MIT */
/* Addresses and ports: unique per address as with sockets, free again when their owner is gone. */
#include "node.h"

#include <errno.h>

static int bind_result(struct node *node, struct call call)
{
    node_bind(node, &call);
    if (!call.result)
        node_destroy_listener(node);
    return call.result;
}

T_TEST(cm_address, in_use)
{
    /* Shows that a port is refused to others of the address, and given on another one. */
    struct node *b = node_start(T_PROCESS), *a = node_start(T_INLINE);
    uint16_t port = node_listen(b, 0, 1);

    T_EQ(bind_result(a, (struct call){.port = port}), EADDRINUSE);
    T_EQ(bind_result(a, (struct call){.port = port, .wildcard = true}), EADDRINUSE);
    T_EQ(bind_result(a, (struct call){.port = port, .reuse = true}), EADDRINUSE);
    T_EQ(bind_result(a, (struct call){.port = port, .space = RDMA_PS_UDP}), 0);
    T_EQ(bind_result(a, (struct call){.port = port, .host = "::1"}), 0);
    node_destroy_listener(b);
    T_EQ(bind_result(a, (struct call){.port = port}), 0);
    node_stop(a);
    node_stop(b);
    t_end();
}

T_TEST(cm_address, reused)
{
    /* Shows that two who agree share a port, and that one of them listens. */
    struct node *b = node_start(T_PROCESS), *a = node_start(T_INLINE);
    struct call first = {.reuse = true}, second = {.reuse = true, .backlog = 1};

    node_bind(b, &first);
    T_EQ(first.result, 0);
    second.port = first.port;
    node_bind(a, &second);
    T_EQ(second.result, 0);
    T_EQ(bind_result(b, (struct call){.port = first.port}), EADDRINUSE);
    node_stop(a);
    node_stop(b);
    t_end();
}

T_TEST(cm_address, free_after_a_kill)
{
    /* Shows that a port is free the moment its owner was killed. */
    struct node *b = node_start(T_PROCESS), *a = node_start(T_INLINE);
    uint16_t port = node_listen(b, 0, 1);

    node_kill(b);
    T_EQ(bind_result(a, (struct call){.port = port}), 0);
    node_stop(a);
    t_end();
}

T_TEST(cm_address, not_ours)
{
    /*
     * Shows what an address that is not ours gives: an error to bind; to resolve, an event that
     * says whether any route leads there.
     */
    struct node *a = node_start(T_INLINE);
    struct call call = {.host = "198.51.100.7", .port = 1};

    T_EQ(bind_result(a, call), EADDRNOTAVAIL);
    node_resolve(a, &call);
    T_IN(call.type, RDMA_CM_EVENT_ADDR_ERROR, RDMA_CM_EVENT_ADDR_RESOLVED);
    T_EQ(call.status, call.type == RDMA_CM_EVENT_ADDR_ERROR ? -ENODEV : 0);
    node_stop(a);
    t_end();
}

T_TEST(cm_address, by_wildcard_and_v6)
{
    /* Shows that a wildcard is reached by every address, and that IPv6 connects. */
    struct node *b = node_start(T_PROCESS), *a = node_start(T_INLINE);
    struct call any = {.wildcard = true, .backlog = 1};

    node_bind(b, &any);
    T_EQ(any.result, 0);
    nodes_connect(a, b, any.port);
    node_destroy(a);
    node_expect(b, RDMA_CM_EVENT_DISCONNECTED);
    node_destroy(b);
    node_destroy_listener(b);
    struct call v6 = {.host = "::1", .backlog = 1};
    node_bind(b, &v6);
    T_EQ(v6.result, 0);
    struct call call = {.host = "::1", .port = v6.port};
    node_connect(a, &call);
    node_expect(b, RDMA_CM_EVENT_CONNECT_REQUEST);
    T_EQ(node_accept(b, NULL), 0);
    node_expect(a, RDMA_CM_EVENT_ESTABLISHED);
    node_stop(a);
    node_stop(b);
    t_end();
}
