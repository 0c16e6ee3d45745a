/* SPDX-License-Identifier: MIT */
/* Connections: made, refused, ended; what either side is told; what is an error. */
#include "node.h"

#include <errno.h>

/* Active in this process, passive in another one, or both here. */
struct two {
    struct node *a, *b;
    uint16_t port;
};

static struct two start(enum t_peer_kind kind, int space)
{
    struct two two = {.b = node_start(kind)};

    two.a = node_start(T_INLINE);
    two.port = node_listen(two.b, space, 10);
    return two;
}

static void stop(struct two *two)
{
    node_stop(two->a);
    node_stop(two->b);
    t_end();
}

static void connect_and_part(enum t_peer_kind kind)
{
    struct two two = start(kind, 0);
    struct call call = {.port = two.port, .data_len = 6, .data = "hello"};

    node_connect(two.a, &call);
    T_EQ(call.result, 0);
    struct call asked = node_expect(two.b, RDMA_CM_EVENT_CONNECT_REQUEST);
    T_EQ(asked.status, 0);
    T_EQ(asked.data_len, 56); /* all there is room for */
    T_STREQ(asked.data, "hello");
    /* seen from the other end */
    T_EQ(asked.responder_resources, 2);
    T_EQ(asked.initiator_depth, 1);
    T_EQ(node_accept(two.b, "welcome"), 0);
    struct call answer = node_expect(two.a, RDMA_CM_EVENT_ESTABLISHED);
    T_EQ(answer.data_len, 196);
    T_STREQ(answer.data, "welcome");
    node_expect(two.b, RDMA_CM_EVENT_ESTABLISHED);
    T_EQ(node_disconnect(two.a), 0);
    node_expect(two.b, RDMA_CM_EVENT_DISCONNECTED);
    T_EQ(node_disconnect(two.b), 0);
    node_expect(two.a, RDMA_CM_EVENT_DISCONNECTED);
    node_expect(two.a, RDMA_CM_EVENT_TIMEWAIT_EXIT);
    node_expect(two.b, RDMA_CM_EVENT_TIMEWAIT_EXIT);
    node_quiet(two.a);
    T_EQ(node_disconnect(two.a), 0); /* over already: no error */
    stop(&two);
}

T_TEST(cm_connect, two_processes)
{
    /* Shows the life of a connection, and the data that goes with each step. */
    connect_and_part(T_PROCESS);
}

T_TEST(cm_connect, one_process)
{
    /* Shows the same with both ends in one process. */
    connect_and_part(T_INLINE);
}

T_TEST(cm_connect, again_and_again)
{
    /* Shows that a listener serves one connection after the other. */
    struct two two = start(T_PROCESS, 0);

    for (int i = 0; i < 20; i++) {
        nodes_connect(two.a, two.b, two.port);
        T_EQ(node_disconnect(two.b), 0);
        node_expect(two.a, RDMA_CM_EVENT_DISCONNECTED);
        node_destroy(two.a);
        node_expect(two.b, RDMA_CM_EVENT_DISCONNECTED);
        node_destroy(two.b);
    }
    stop(&two);
}

T_TEST(cm_connect, rejected)
{
    /* Shows that a rejection arrives with its reason and data. */
    struct two two = start(T_PROCESS, 0);
    struct call call = {.port = two.port};

    node_connect(two.a, &call);
    node_expect(two.b, RDMA_CM_EVENT_CONNECT_REQUEST);
    T_EQ(node_reject(two.b, "sorry"), 0);
    struct call refused = node_expect(two.a, RDMA_CM_EVENT_REJECTED);
    T_EQ(refused.status, 28);
    T_EQ(refused.data_len, 148);
    T_STREQ(refused.data, "sorry");
    T_EQ(node_accept(two.b, NULL), EINVAL);
    stop(&two);
}

T_TEST(cm_connect, nobody_listens)
{
    /* Shows that a port without a listener says so at once. */
    struct two two = start(T_PROCESS, 0);
    struct call call = {.port = (uint16_t)(two.port ^ 1)};

    node_connect(two.a, &call);
    T_EQ(node_expect(two.a, RDMA_CM_EVENT_REJECTED).status, 8);
    stop(&two);
}

T_TEST(cm_connect, bound_but_deaf)
{
    /* Shows that a bound port does not answer before it listens. */
    struct node *a = node_start(T_INLINE), *b = node_start(T_INLINE);
    struct call bound = {0};

    node_bind(b, &bound);
    T_EQ(bound.result, 0);
    struct call call = {.port = bound.port};
    node_connect(a, &call);
    T_EQ(node_expect(a, RDMA_CM_EVENT_REJECTED).status, 8);
    node_stop(a);
    node_stop(b);
    t_end();
}

T_TEST(cm_connect, too_much_data)
{
    /* Shows the limits of private data: 56 bytes of a request, 196 of an answer. */
    struct two two = start(T_PROCESS, 0);
    struct call call = {.port = two.port, .data_len = 57};

    node_connect(two.a, &call);
    T_EQ(call.result, EINVAL);
    node_destroy(two.a);
    call.data_len = 56;
    node_connect(two.a, &call);
    T_EQ(call.result, 0);
    node_expect(two.b, RDMA_CM_EVENT_CONNECT_REQUEST);
    char data[198];
    memset(data, 'x', 197);
    data[197] = '\0';
    T_EQ(node_accept(two.b, data), EINVAL);
    T_EQ(node_reject(two.b, NULL), 0);
    node_expect(two.a, RDMA_CM_EVENT_REJECTED);
    stop(&two);
}

T_TEST(cm_connect, listener_destroyed)
{
    /* Shows that requests nobody has taken end with their listener. */
    struct two two = start(T_PROCESS, 0);
    struct call call = {.port = two.port};

    node_connect(two.a, &call);
    node_quiet(two.a);
    node_destroy_listener(two.b);
    T_EQ(node_expect(two.a, RDMA_CM_EVENT_REJECTED).status, 28);
    stop(&two);
}

T_TEST(cm_connect, destroyed_while_connected)
{
    /* Shows that destroying an identifier disconnects it. */
    struct two two = start(T_PROCESS, 0);

    nodes_connect(two.a, two.b, two.port);
    node_destroy(two.a);
    node_expect(two.b, RDMA_CM_EVENT_DISCONNECTED);
    stop(&two);
}

T_TEST(cm_connect, datagram_service)
{
    /* Shows that a datagram service is found with its number and key, or says no. */
    struct two two = start(T_PROCESS, RDMA_PS_UDP);
    struct call call = {.port = two.port, .space = RDMA_PS_UDP, .data_len = 3, .data = "hi"};

    node_connect(two.a, &call);
    T_EQ(call.result, 0);
    struct call asked = node_expect(two.b, RDMA_CM_EVENT_CONNECT_REQUEST);
    T_EQ(asked.data_len, 180);
    T_STREQ(asked.data, "hi");
    T_EQ(node_accept(two.b, "here"), 0);
    struct call found = node_expect(two.a, RDMA_CM_EVENT_ESTABLISHED);
    T_EQ(found.qkey, RDMA_UDP_QKEY);
    T_ASSERT(found.qpn);
    T_STREQ(found.data, "here");
    node_destroy(two.a);
    node_destroy(two.b);
    node_connect(two.a, &call);
    node_expect(two.b, RDMA_CM_EVENT_CONNECT_REQUEST);
    T_EQ(node_reject(two.b, NULL), 0);
    T_EQ(node_expect(two.a, RDMA_CM_EVENT_UNREACHABLE).status, 2);
    node_destroy(two.a);
    call.port ^= 1;
    node_connect(two.a, &call);
    T_EQ(node_expect(two.a, RDMA_CM_EVENT_UNREACHABLE).status, 1);
    stop(&two);
}
