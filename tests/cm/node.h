/* SPDX-License-Identifier: MIT */
/*
 * One party of a connection manager test, in a process of its own (or this one): an event channel,
 * one identifier that listens and one that is connected. Functions run in the party by node_run().
 *
 *   struct node *a = node_start(T_INLINE), *b = node_start(T_PROCESS);   the process first
 *   uint16_t port = node_listen(b, "127.0.0.1", 0);
 *   node_connect(a, &(struct call){.port = port});
 *   node_expect(b, RDMA_CM_EVENT_CONNECT_REQUEST);
 */
#ifndef TESTS_CM_NODE_H
#define TESTS_CM_NODE_H

#include <rdma/rdma_cma.h>

#include "t.h"

enum { SOON_MS = 10000, DATA_MAX = 256 };

/* What to do, and what came of it: travels to the party and back. */
struct call {
    char host[64]; /* "": 127.0.0.1 */
    uint16_t port;
    int space; /* 0: RDMA_PS_TCP */
    int backlog;
    int result; /* 0 or errno */
    int type;   /* event */
    int status;
    bool reuse, wildcard;
    unsigned char data_len;
    char data[DATA_MAX];
    uint32_t qpn, qkey;
    int responder_resources, initiator_depth;
};

struct node;

struct node *node_start(enum t_peer_kind kind);
void node_stop(struct node *node); /* identifiers and channel, in order */
void node_kill(struct node *node);

void node_run(struct node *node, t_peer_fn *fn, struct call *call);

/* Create and bind an identifier; the result may be an errno. The port is filled in. */
void node_bind(struct node *node, struct call *call);
/* Bind and listen; must succeed. */
uint16_t node_listen(struct node *node, int space, int backlog);
/* Create, resolve address and route, make a queue pair, connect; each step must succeed. */
void node_connect(struct node *node, struct call *call);
/* Create and resolve: what event came is in the call. */
void node_resolve(struct node *node, struct call *call);
/*
 * Address and link of the party's NIC, before it has done anything else: VIADUCT_NICS,
 * VIADUCT_LINK.
 */
void node_place(struct node *node, const char *nics, const char *link);
/* The next event within SOON_MS must be of this type; the call says more. */
struct call node_expect(struct node *node, enum rdma_cm_event_type type);
/* Whatever comes within SOON_MS; its type is -1 if nothing does. */
struct call node_next(struct node *node);
/* There is none. */
void node_quiet(struct node *node);
/* On the connected identifier; results are errnos. */
int node_accept(struct node *node, const char *data);
int node_reject(struct node *node, const char *data);
int node_disconnect(struct node *node);
/* Post a message of no bytes; how it, and a receive that make_qp() has posted, completed. */
void node_send(struct node *node);
enum ibv_wc_status node_sent(struct node *node);
enum ibv_wc_status node_received(struct node *node);
void node_destroy(struct node *node);
void node_destroy_listener(struct node *node);
/* Established on both sides. */
void nodes_connect(struct node *active, struct node *passive, uint16_t port);

#endif
