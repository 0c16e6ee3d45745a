/* SPDX-License-Identifier: MIT */
/*
 * Connection identifiers with IP addresses, as rdma_cm(7) describes them: binding, resolving,
 * connecting, multicast. uapi/ucma*.c gives them to programs; engine/cm.h speaks for them.
 *
 *   IDLE --bind--> BOUND --resolve_addr--> ADDR --resolve_route--> ROUTE --connect--> CONNECT
 *                    `----listen--> LISTEN ==request==> a new identifier in CONNECT
 *
 * Locks: core_lock held everywhere; the handler is called with it held. Errors: negative errno;
 * -EINVAL where the state does not fit. Output arguments are written on success only.
 */
#ifndef VIADUCT_CORE_CMA_H
#define VIADUCT_CORE_CMA_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"
#include "core/ports.h"

enum cma_space {
    CMA_SPACE_IPOIB = 0x0002,
    CMA_SPACE_TCP = 0x0106,
    CMA_SPACE_UDP = 0x0111,
    CMA_SPACE_IB = 0x013f,
};

/* The values of enum rdma_cm_event_type. */
enum cma_event_type {
    CMA_ADDR_RESOLVED,
    CMA_ADDR_ERROR,
    CMA_ROUTE_RESOLVED,
    CMA_ROUTE_ERROR,
    CMA_CONNECT_REQUEST,
    CMA_CONNECT_RESPONSE,
    CMA_CONNECT_ERROR,
    CMA_UNREACHABLE,
    CMA_REJECTED,
    CMA_ESTABLISHED,
    CMA_DISCONNECTED,
    CMA_DEVICE_REMOVAL,
    CMA_MULTICAST_JOIN,
    CMA_MULTICAST_ERROR,
    CMA_ADDR_CHANGE,
    CMA_TIMEWAIT_EXIT,
};

enum { CMA_UDP_QKEY = 0x01234567, CMA_PRIVATE_MAX = 255, CMA_MULTICAST_QPN = 0xffffff };

enum cma_state { CMA_IDLE, CMA_BOUND, CMA_ADDR, CMA_ROUTE, CMA_LISTEN, CMA_CONNECT };

/* An address of a program: family AF_INET, AF_INET6, AF_IB (the wildcard only), or 0: none. */
struct cma_addr {
    uint16_t family;
    uint16_t port;
    uint8_t ip[16]; /* IPv4: mapped */
    uint32_t scope_id;
};

/* Of a connection, or of a datagram service: what either side tells the other. */
struct cma_params {
    uint32_t qpn, qkey;
    uint8_t responder_resources, initiator_depth, flow_control, retry_count, rnr_retry, srq;
    uint8_t private_len;
    uint8_t private_data[CMA_PRIVATE_MAX];
};

struct cma_event {
    enum cma_event_type type;
    int status;
    bool datagram; /* ah and the queue pair's number and key mean something */
    struct cma_params params;
    struct ibv_ah_attr ah;
};

struct cma_id {
    void *owner; /* the handler's */
    uint16_t space;
    enum ibv_qp_type qp_type;
    enum cma_state state;
    struct cma_addr src, dst;
    const struct nic *nic; /* NULL: not bound to a device */
    uint8_t sgid_index;
    uint8_t tos;
    bool reuse, v6_only, has_ack_timeout;
    uint8_t ack_timeout;
    struct port_binding port;
    struct cm_conn *conn;
    uint32_t qpn, qkey, psn; /* ours */
    uint32_t remote_qpn, remote_psn;
    uint8_t responder_resources, initiator_depth, retry_count, rnr_retry;
    bool srq, wants_reads; /* wants_reads: responder_resources are known */
    enum ibv_mtu mtu;
    unsigned backlog, pending; /* listening: requests the program has not taken yet */
    struct cma_id *next;       /* listening ones */
};

/*
 * What happened to `id`. With CMA_CONNECT_REQUEST `fresh` is the new identifier, which the handler
 * takes over; false: it doesn't want it, and the request is asked again later.
 */
typedef bool cma_handler(struct cma_id *id, struct cma_id *fresh, const struct cma_event *event);
void cma_set_handler(cma_handler *handler);

/* -EINVAL: no such port space; -ENOMEM; or what process_open() says. */
int cma_create(uint16_t space, enum ibv_qp_type qp_type, void *owner, struct cma_id **id_out);
/* Ends what it has: connection, listening, port. No event comes afterwards. */
void cma_destroy(struct cma_id *id);

/* -EADDRNOTAVAIL: not an address of ours; -EADDRINUSE. */
int cma_bind(struct cma_id *id, const struct cma_addr *addr);
/* 0: an event follows. `src` may be NULL. */
int cma_resolve_addr(struct cma_id *id, const struct cma_addr *src, const struct cma_addr *dst);
int cma_resolve_route(struct cma_id *id);
int cma_listen(struct cma_id *id, unsigned backlog);
int cma_connect(struct cma_id *id, const struct cma_params *params);
int cma_accept(struct cma_id *id, const struct cma_params *params); /* NULL: confirm a response */
int cma_reject(struct cma_id *id, uint8_t reason, const void *data, uint8_t len);
int cma_disconnect(struct cma_id *id);
int cma_notify_established(struct cma_id *id);
/* What a queue pair of this connection must be told for the move to attr->qp_state. */
int cma_init_qp_attr(struct cma_id *id, struct ibv_qp_attr *attr, int *mask_out);
/* The group behind the address, and how to send to it. */
int cma_join(struct cma_id *id, const struct cma_addr *addr, struct cma_event *event_out);

/* ---- cma_addr.c ---- */
/* The NIC that has the address and its place in the table; false: none of ours. */
bool cma_find_gid(const uint8_t ip[16], const struct nic **nic_out, uint8_t *index_out);
bool cma_is_any(const struct cma_addr *addr);
/* Bind to a free port, if it is not bound yet. */
int cma_bind_any(struct cma_id *id, uint16_t family);
void cma_path(const struct cma_id *id, struct ibv_ah_attr *ah_out);
void cma_tell(struct cma_id *id, const struct cma_event *event);

static inline bool cma_is_datagram(const struct cma_id *id)
{
    return id->qp_type == IBV_QPT_UD;
}

#endif
