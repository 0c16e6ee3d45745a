/* SPDX-License-Identifier: MIT */
#include "node.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct node {
    struct t_peer *peer;
};

/* What the party keeps. */
struct state {
    struct rdma_event_channel *channel;
    struct rdma_cm_id *listener, *id;
};

/* ---- in the party ---- */

static struct state *state_of(void **state)
{
    if (*state)
        return *state;
    struct state *own = calloc(1, sizeof(*own));
    T_ASSERT(own);
    own->channel = rdma_create_event_channel();
    T_ASSERT(own->channel, "%s", strerror(errno));
    fcntl(own->channel->fd, F_SETFL, O_NONBLOCK);
    *state = own;
    return own;
}

static struct sockaddr_storage address_of(const struct call *call)
{
    struct sockaddr_storage storage = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&storage;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&storage;
    const char *host = call->wildcard ? "0.0.0.0" : call->host[0] ? call->host : "127.0.0.1";

    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(call->port);
    } else {
        T_EQ(inet_pton(AF_INET6, host, &v6->sin6_addr), 1);
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(call->port);
    }
    return storage;
}

static enum rdma_port_space space_of(const struct call *call)
{
    return call->space ? (enum rdma_port_space)call->space : RDMA_PS_TCP;
}

static void describe(const struct rdma_cm_event *event, struct call *call)
{
    bool datagram = event->id->qp_type == IBV_QPT_UD;
    const void *data = datagram ? event->param.ud.private_data : event->param.conn.private_data;
    unsigned char len =
        datagram ? event->param.ud.private_data_len : event->param.conn.private_data_len;

    call->type = (int)event->event;
    call->status = event->status;
    call->data_len = data ? len : 0;
    if (data)
        memcpy(call->data, data, len);
    call->qpn = datagram ? event->param.ud.qp_num : event->param.conn.qp_num;
    call->qkey = datagram ? event->param.ud.qkey : 0;
    call->responder_resources = event->param.conn.responder_resources;
    call->initiator_depth = event->param.conn.initiator_depth;
}

static void make_qp(struct rdma_cm_id *id)
{
    struct ibv_qp_init_attr attr = {.cap = {4, 4, 1, 1, 0}, .qp_type = id->qp_type};
    struct ibv_recv_wr *bad;

    T_EQ(rdma_create_qp(id, NULL, &attr), 0);
    if (id->qp_type == IBV_QPT_RC)
        T_EQ(ibv_post_recv(id->qp, &(struct ibv_recv_wr){0}, &bad), 0);
}

static void next_event(struct state *state, struct call *call)
{
    struct rdma_cm_event *event;

    call->type = -1;
    if (!t_readable(state->channel->fd, SOON_MS))
        return;
    T_EQ(rdma_get_cm_event(state->channel, &event), 0);
    describe(event, call);
    if (event->event == RDMA_CM_EVENT_CONNECT_REQUEST) {
        T_ASSERT(!state->id);
        state->id = event->id;
        make_qp(state->id);
    }
    T_EQ(rdma_ack_cm_event(event), 0);
}

static void do_event(void **state, void *arg)
{
    next_event(state_of(state), arg);
}

static void do_quiet(void **state, void *arg)
{
    (void)arg;
    T_CHECK(!t_readable(state_of(state)->channel->fd, 20), "an event nobody expects");
}

static void set_reuse(struct rdma_cm_id *id, int on)
{
    T_EQ(rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &on, sizeof(on)), 0);
}

static void do_bind(void **where, void *arg)
{
    struct state *state = state_of(where);
    struct call *call = arg;
    struct sockaddr_storage address = address_of(call);

    T_EQ(rdma_create_id(state->channel, &state->listener, NULL, space_of(call)), 0);
    if (call->reuse)
        set_reuse(state->listener, 1);
    int failed = rdma_bind_addr(state->listener, (struct sockaddr *)&address);
    call->result = failed ? errno : 0;
    call->port = ntohs(rdma_get_src_port(state->listener));
    if (failed) {
        T_EQ(rdma_destroy_id(state->listener), 0);
        state->listener = NULL;
    } else if (call->backlog) {
        call->result = rdma_listen(state->listener, call->backlog) ? errno : 0;
    }
}

static void do_resolve(void **where, void *arg)
{
    struct state *state = state_of(where);
    struct call *call = arg;
    struct sockaddr_storage address = address_of(call);

    T_EQ(rdma_create_id(state->channel, &state->id, NULL, space_of(call)), 0);
    if (rdma_resolve_addr(state->id, NULL, (struct sockaddr *)&address, 1000))
        call->result = errno;
    else
        next_event(state, call);
}

static struct rdma_conn_param params_of(const struct call *call)
{
    return (struct rdma_conn_param){.private_data = call->data,
                                    .private_data_len = call->data_len,
                                    .responder_resources = 1,
                                    .initiator_depth = 2,
                                    .retry_count = 7,
                                    .rnr_retry_count = 7};
}

static void do_connect(void **where, void *arg)
{
    struct state *state = state_of(where);
    struct call *call = arg, event;
    struct rdma_conn_param params = params_of(call);

    do_resolve(where, call);
    T_EQ(call->type, RDMA_CM_EVENT_ADDR_RESOLVED);
    T_EQ(rdma_resolve_route(state->id, 1000), 0);
    next_event(state, &event);
    T_EQ(event.type, RDMA_CM_EVENT_ROUTE_RESOLVED);
    make_qp(state->id);
    call->result = rdma_connect(state->id, &params) ? errno : 0;
}

static void do_accept(void **where, void *arg)
{
    struct state *state = state_of(where);
    struct call *call = arg;
    struct rdma_conn_param params = params_of(call);

    call->result = rdma_accept(state->id, &params) ? errno : 0;
}

static void do_reject(void **where, void *arg)
{
    struct call *call = arg;

    call->result = rdma_reject(state_of(where)->id, call->data, call->data_len) ? errno : 0;
}

static void do_disconnect(void **where, void *arg)
{
    ((struct call *)arg)->result = rdma_disconnect(state_of(where)->id) ? errno : 0;
}

struct place {
    char nics[64], link[16];
};

static void do_place(void **where, void *arg)
{
    const struct place *place = arg;

    (void)where;
    T_EQ(setenv("VIADUCT_NICS", place->nics, 1), 0);
    T_EQ(setenv("VIADUCT_LINK", place->link, 1), 0);
}

static void do_send(void **where, void *arg)
{
    struct ibv_send_wr empty = {.opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED}, *bad;

    (void)arg;
    T_EQ(ibv_post_send(state_of(where)->id->qp, &empty, &bad), 0);
}

static void take_completion(struct ibv_cq *cq, struct call *call)
{
    struct ibv_wc wc;

    T_UNTIL(ibv_poll_cq(cq, 1, &wc) == 1, SOON_MS);
    call->status = (int)wc.status;
}

static void do_sent(void **where, void *arg)
{
    take_completion(state_of(where)->id->send_cq, arg);
}

static void do_received(void **where, void *arg)
{
    take_completion(state_of(where)->id->recv_cq, arg);
}

static void do_destroy(void **where, void *arg)
{
    struct state *state = state_of(where);

    (void)arg;
    if (!state->id)
        return;
    if (state->id->qp)
        rdma_destroy_qp(state->id);
    T_EQ(rdma_destroy_id(state->id), 0);
    state->id = NULL;
}

static void do_destroy_listener(void **where, void *arg)
{
    struct state *state = state_of(where);

    (void)arg;
    if (state->listener)
        T_EQ(rdma_destroy_id(state->listener), 0);
    state->listener = NULL;
}

static void do_close(void **where, void *arg)
{
    struct state *state = state_of(where);

    do_destroy(where, arg);
    do_destroy_listener(where, arg);
    rdma_destroy_event_channel(state->channel);
    free(state);
    *where = NULL;
}

/* ---- in the test ---- */

struct node *node_start(enum t_peer_kind kind)
{
    struct node *node = calloc(1, sizeof(*node));

    T_ASSERT(node);
    node->peer = t_peer_start(kind);
    return node;
}

void node_run(struct node *node, t_peer_fn *fn, struct call *call)
{
    t_peer_call(node->peer, fn, call, sizeof(*call));
}

static struct call run_plain(struct node *node, t_peer_fn *fn)
{
    struct call call = {0};

    node_run(node, fn, &call);
    return call;
}

static int run_with(struct node *node, t_peer_fn *fn, const char *data)
{
    struct call call = {0};

    if (data) {
        call.data_len = (unsigned char)(strlen(data) + 1);
        memcpy(call.data, data, call.data_len);
    }
    node_run(node, fn, &call);
    return call.result;
}

void node_stop(struct node *node)
{
    run_plain(node, do_close);
    t_peer_stop(node->peer);
    free(node);
}

void node_kill(struct node *node)
{
    t_peer_kill(node->peer);
    free(node);
}

void node_place(struct node *node, const char *nics, const char *link)
{
    struct place place;

    snprintf(place.nics, sizeof(place.nics), "%s", nics);
    snprintf(place.link, sizeof(place.link), "%s", link);
    t_peer_call(node->peer, do_place, &place, sizeof(place));
}

void node_bind(struct node *node, struct call *call)
{
    node_run(node, do_bind, call);
}

uint16_t node_listen(struct node *node, int space, int backlog)
{
    struct call call = {.space = space, .backlog = backlog};

    node_bind(node, &call);
    T_EQ(call.result, 0);
    T_ASSERT(call.port);
    return call.port;
}

void node_connect(struct node *node, struct call *call)
{
    node_run(node, do_connect, call);
}

void node_resolve(struct node *node, struct call *call)
{
    node_run(node, do_resolve, call);
}

struct call node_next(struct node *node)
{
    return run_plain(node, do_event);
}

struct call node_expect(struct node *node, enum rdma_cm_event_type type)
{
    struct call call = run_plain(node, do_event);

    T_ASSERT(call.type >= 0, "no %s within %d ms", rdma_event_str(type), SOON_MS);
    T_ASSERT(call.type == (int)type, "%s (status %d), not %s",
             rdma_event_str((enum rdma_cm_event_type)call.type), call.status, rdma_event_str(type));
    return call;
}

void node_quiet(struct node *node)
{
    run_plain(node, do_quiet);
}

int node_accept(struct node *node, const char *data)
{
    return run_with(node, do_accept, data);
}

int node_reject(struct node *node, const char *data)
{
    return run_with(node, do_reject, data);
}

int node_disconnect(struct node *node)
{
    return run_with(node, do_disconnect, NULL);
}

void node_send(struct node *node)
{
    run_plain(node, do_send);
}

enum ibv_wc_status node_sent(struct node *node)
{
    return (enum ibv_wc_status)run_plain(node, do_sent).status;
}

enum ibv_wc_status node_received(struct node *node)
{
    return (enum ibv_wc_status)run_plain(node, do_received).status;
}

void node_destroy(struct node *node)
{
    run_plain(node, do_destroy);
}

void node_destroy_listener(struct node *node)
{
    run_plain(node, do_destroy_listener);
}

void nodes_connect(struct node *active, struct node *passive, uint16_t port)
{
    struct call call = {.port = port};

    node_connect(active, &call);
    T_EQ(call.result, 0);
    node_expect(passive, RDMA_CM_EVENT_CONNECT_REQUEST);
    T_EQ(node_accept(passive, NULL), 0);
    node_expect(active, RDMA_CM_EVENT_ESTABLISHED);
    node_expect(passive, RDMA_CM_EVENT_ESTABLISHED);
}
