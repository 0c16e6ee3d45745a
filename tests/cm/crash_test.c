/* SPDX-License-Identifier: MIT */
/* Parties that are killed: the other hears of it within SOON_MS, in each state. */
#include "node.h"

T_TEST(cm_crash, passive_before_it_accepts)
{
    /* Shows that a request to a process that dies is rejected. */
    struct node *b = node_start(T_PROCESS), *a = node_start(T_INLINE);
    struct call call = {.port = node_listen(b, 0, 1)};

    node_connect(a, &call);
    node_expect(b, RDMA_CM_EVENT_CONNECT_REQUEST);
    node_kill(b);
    node_expect(a, RDMA_CM_EVENT_REJECTED);
    node_stop(a);
    t_end();
}

static void killed_while_connected(bool active_dies)
{
    struct node *b = node_start(T_PROCESS), *a = node_start(T_INLINE);
    struct node *active = active_dies ? b : a, *passive = active_dies ? a : b;

    nodes_connect(active, passive, node_listen(passive, 0, 1));
    node_kill(b);
    node_expect(a, RDMA_CM_EVENT_DISCONNECTED);
    node_stop(a);
    t_end();
}

T_TEST(cm_crash, connected_active)
{
    /* Shows that the passive side of a connection hears of the other's death. */
    killed_while_connected(true);
}

T_TEST(cm_crash, connected_passive)
{
    /* Shows that the active side does too. */
    killed_while_connected(false);
}

T_TEST(cm_crash, active_before_its_answer)
{
    /* Shows that a request whose sender died can't be accepted into a connection. */
    struct node *b = node_start(T_PROCESS), *a = node_start(T_INLINE);
    struct call call = {.port = node_listen(a, 0, 1)};

    node_connect(b, &call);
    node_expect(a, RDMA_CM_EVENT_CONNECT_REQUEST);
    node_kill(b);
    /* Who answers at once may be faster than the news of the death. */
    if (node_accept(a, NULL) == 0)
        node_expect(a, RDMA_CM_EVENT_REJECTED);
    node_stop(a);
    t_end();
}

T_TEST(cm_crash, passive_while_disconnecting)
{
    /* Shows that a disconnection ends although nobody is there to answer. */
    struct node *b = node_start(T_PROCESS), *a = node_start(T_INLINE);

    nodes_connect(a, b, node_listen(b, 0, 1));
    T_EQ(node_disconnect(a), 0);
    node_kill(b);
    node_expect(a, RDMA_CM_EVENT_DISCONNECTED);
    node_stop(a);
    t_end();
}
