/* SPDX-License-Identifier: MIT */
/* A NIC that is taken away: what identifiers hear of it, and that they are good for nothing else.
 */
#include "node.h"
#include "removal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int change(const char *function)
{
    return change_nic(function, "via0");
}

static struct rdma_cm_event *next_of(struct rdma_event_channel *channel,
                                     enum rdma_cm_event_type type)
{
    struct rdma_cm_event *event;

    T_EQ(rdma_get_cm_event(channel, &event), 0);
    T_EQ(event->event, type);
    return event;
}

static struct rdma_cm_id *bound(struct rdma_event_channel *channel, const char *host)
{
    struct rdma_addrinfo hints = {.ai_flags = RAI_PASSIVE | RAI_NUMERICHOST,
                                  .ai_port_space = RDMA_PS_TCP};
    struct rdma_addrinfo *info;
    struct rdma_cm_id *id;

    T_EQ(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), 0);
    if (!host)
        return id;
    T_EQ(rdma_getaddrinfo(host, NULL, &hints, &info), 0);
    int error = rdma_bind_addr(id, info->ai_src_addr) ? errno : 0;
    rdma_freeaddrinfo(info);
    errno = error;
    return id;
}

T_TEST(cm_removal, of_each_bound_identifier)
{
    /* One event each, then ENXIO; those that are bound to no device go on. */
    be_alone();
    struct rdma_event_channel *channel = rdma_create_event_channel();
    T_ASSERT(channel);
    struct rdma_cm_id *listener = bound(channel, "127.0.0.1"), *idle = bound(channel, NULL);

    T_EQ(rdma_listen(listener, 1), 0);
    T_CHECK(change("viaduct_remove") >= 1);
    struct rdma_cm_event *event = next_of(channel, RDMA_CM_EVENT_DEVICE_REMOVAL);
    T_EQ(event->id, listener);
    T_EQ(rdma_ack_cm_event(event), 0);
    T_CHECK(rdma_listen(listener, 1) < 0 && errno == ENXIO, "%s", strerror(errno));
    T_EQ(rdma_destroy_id(listener), 0);
    T_EQ(rdma_destroy_id(idle), 0);

    struct rdma_cm_id *late = bound(channel, "127.0.0.1");
    T_EQ(errno, ENODEV);
    T_EQ(rdma_destroy_id(late), 0);
    T_CHECK(change("viaduct_add") >= 1);
    late = bound(channel, "127.0.0.1");
    T_EQ(errno, 0);
    T_EQ(rdma_listen(late, 1), 0);
    T_EQ(rdma_destroy_id(late), 0);
    rdma_destroy_event_channel(channel);
}

/* A side that goes first says good-bye to the other. */
static void expect_removal(struct node *node)
{
    struct call heard = {.type = -1};

    while (heard.type != RDMA_CM_EVENT_DEVICE_REMOVAL) {
        heard = node_next(node);
        T_ASSERT(heard.type == RDMA_CM_EVENT_DEVICE_REMOVAL ||
                     heard.type == RDMA_CM_EVENT_DISCONNECTED,
                 "%s", rdma_event_str((enum rdma_cm_event_type)heard.type));
    }
}

T_TEST(cm_removal, of_connections)
{
    /* Both sides hear of it; an identifier that listens at every address serves the NIC again. */
    be_alone();
    struct node *b = node_start(T_PROCESS), *a = node_start(T_INLINE);
    struct call any = {.wildcard = true, .backlog = 4};

    node_bind(b, &any);
    T_EQ(any.result, 0);
    nodes_connect(a, b, any.port);
    T_CHECK(change("viaduct_remove") >= 2);
    expect_removal(a);
    expect_removal(b);
    T_CHECK(change("viaduct_add") >= 2);
    node_destroy(a);
    node_destroy(b);
    nodes_connect(a, b, any.port);
    node_destroy(a);
    node_expect(b, RDMA_CM_EVENT_DISCONNECTED);
    node_stop(a);
    node_stop(b);
}
