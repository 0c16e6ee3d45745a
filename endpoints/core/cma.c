/* SPDX-License-Identifier: MIT */
/* Connection identifiers: life, listening, connecting, and what queue pairs are told. */
#include "core/cma.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "core/cma_impl.h"
#include "core/objects.h"
#include "core/process.h"
#include "core/thread.h"
#include "link/link.h"

enum { BACKLOG_MAX = 1024 };

/* ---- life ---- */

static uint32_t random_psn(void)
{
    uint32_t psn = 0;

    (void)!getrandom(&psn, sizeof(psn), 0);
    return psn & 0xffffff;
}

struct cma_id *cma_new(uint16_t space, enum ibv_qp_type qp_type, void *owner)
{
    struct cma_id *id = calloc(1, sizeof(*id));

    if (!id)
        return NULL;
    id->owner = owner;
    id->space = space;
    id->qp_type = qp_type;
    id->qkey = CMA_UDP_QKEY;
    id->psn = random_psn();
    id->mtu = IBV_MTU_4096;
    return id;
}

static bool is_space(uint16_t space)
{
    return space == CMA_SPACE_IPOIB || space == CMA_SPACE_TCP || space == CMA_SPACE_UDP ||
           space == CMA_SPACE_IB;
}

int cma_create(uint16_t space, enum ibv_qp_type qp_type, void *owner, struct cma_id **id_out)
{
    int error = is_space(space) ? process_open() : -EINVAL;

    if (error)
        return error;
    struct cma_id *id = cma_machine() ? cma_new(space, qp_type, owner) : NULL;
    if (!id)
        return -ENOMEM;
    *id_out = id;
    return 0;
}

void cma_destroy(struct cma_id *id)
{
    if (id->conn) {
        cma_watch(id, false);
        cm_destroy(id->conn, now_ns());
    }
    if (id->state == CMA_LISTEN)
        cma_set_listening(id, false);
    port_release(&id->port);
    free(id);
}

/* ---- listening ---- */

/* Requests may come over the wire too, if it can be opened: to one address, or to all. */
static void open_wire(const struct cma_id *id)
{
    const struct config *config = config_get();

    for (unsigned i = 0; i < config->nic_count; i++)
        if (!id->nic || id->nic == &config->nics[i])
            link_open_nic(&config->nics[i]);
}

int cma_listen(struct cma_id *id, unsigned backlog)
{
    int error = cma_bind_any(id, AF_INET);

    if (error || id->state != CMA_BOUND)
        return error ? error : -EINVAL;
    error = port_listen(&id->port);
    if (error)
        return error;
    open_wire(id);
    id->backlog = backlog && backlog < BACKLOG_MAX ? backlog : BACKLOG_MAX;
    id->state = CMA_LISTEN;
    cma_set_listening(id, true);
    return 0;
}

/* ---- messages ---- */

/* Both addresses, then the program's own data. */
static int put_private(const struct cma_id *id, const struct cma_params *params, size_t room,
                       struct cm_mad *mad)
{
    struct cm_ip ip = {.v4 = address_is_mapped(id->dst.ip), .port = id->src.port};

    if ((size_t)CM_IP_SIZE + params->private_len > room)
        return -EINVAL;
    memcpy(ip.src, id->src.ip, 16);
    memcpy(ip.dst, id->dst.ip, 16);
    cm_ip_encode(&ip, mad->private_data);
    memcpy(mad->private_data + CM_IP_SIZE, params->private_data, params->private_len);
    mad->private_len = (uint8_t)(CM_IP_SIZE + params->private_len);
    return 0;
}

/* Where the request goes. With nobody there we ask ourselves, and say no. */
static void find_route(const struct cma_id *id, struct cm_route *route)
{
    if (link_is_elsewhere(id->nic, id->dst.ip))
        route->via = link_via(id->dst.ip);
    else
        route->via = port_find(id->space, id->dst.port, id->dst.ip);
    if (!route->via)
        route->via = process_name();
    memcpy(route->sgid, id->src.ip, 16);
    memcpy(route->dgid, id->dst.ip, 16);
}

static void take_params(struct cma_id *id, const struct cma_params *params)
{
    id->qpn = params->qpn;
    id->srq = params->srq != 0;
    id->responder_resources = params->responder_resources;
    id->initiator_depth = params->initiator_depth;
    id->wants_reads = params->responder_resources != 0;
    id->retry_count = params->retry_count < 7 ? params->retry_count : 7;
    id->rnr_retry = params->rnr_retry < 7 ? params->rnr_retry : 7;
}

static enum cm_transport transport_of(const struct cma_id *id)
{
    if (id->qp_type == IBV_QPT_XRC_SEND || id->qp_type == IBV_QPT_XRC_RECV)
        return CM_TRANSPORT_EXTENDED;
    return id->qp_type == IBV_QPT_UC ? CM_TRANSPORT_UC : CM_TRANSPORT_RC;
}

static void fill_req(const struct cma_id *id, const struct cma_params *params, struct cm_mad *req)
{
    req->service_id = cm_service_id(id->space, id->dst.port);
    req->ca_guid = id->nic->guid;
    req->qpn = id->qpn;
    req->psn = id->psn;
    req->responder_resources = id->responder_resources;
    req->initiator_depth = id->initiator_depth;
    req->transport = (uint8_t)transport_of(id);
    req->xrc = req->transport == CM_TRANSPORT_EXTENDED;
    req->flow_control = params->flow_control & 1;
    req->srq = id->srq;
    req->retry_count = id->retry_count;
    req->rnr_retry = id->rnr_retry;
    req->ack_timeout = cma_ack_timeout_of(id);
    req->mtu = (uint8_t)id->mtu;
    req->pkey = 0xffff;
    memcpy(req->sgid, id->src.ip, 16);
    memcpy(req->dgid, id->dst.ip, 16);
    req->traffic_class = id->tos;
    req->hop_limit = CMA_HOP_LIMIT;
}

int cma_connect(struct cma_id *id, const struct cma_params *params)
{
    struct cm_mad req = {0};
    struct cm_route route;
    bool datagram = cma_is_datagram(id);

    if (id->state != CMA_ROUTE)
        return -EINVAL;
    int error = put_private(id, params, datagram ? CM_SIDR_REQ_PRIVATE : CM_REQ_PRIVATE, &req);
    if (error)
        return error;
    take_params(id, params);
    fill_req(id, params, &req);
    find_route(id, &route);
    error = (datagram ? cm_sidr_connect : cm_connect)(cma_machine(), now_ns(), &route, &req, id,
                                                      &id->conn);
    if (error)
        return error;
    id->state = CMA_CONNECT;
    cma_wake();
    return 0;
}

/* ---- answers ---- */

static int accept_datagram(struct cma_id *id, const struct cma_params *params)
{
    struct cm_mad rep = {.qpn = params->qpn, .private_len = params->private_len};

    if (params->private_len > CM_SIDR_REP_PRIVATE || (params->qkey && params->qkey != id->qkey))
        return -EINVAL;
    rep.qkey = id->qkey;
    rep.service_id = cm_service_id(id->space, id->src.port);
    memcpy(rep.private_data, params->private_data, params->private_len);
    return cm_sidr_reply(id->conn, &rep);
}

static int accept_connection(struct cma_id *id, const struct cma_params *params)
{
    struct cm_mad rep = {.qpn = params->qpn, .private_len = params->private_len};

    if (params->private_len > CM_REP_PRIVATE || cm_state_of(id->conn) != CM_REQ_RCVD)
        return -EINVAL;
    id->qpn = params->qpn;
    id->responder_resources = params->responder_resources;
    id->initiator_depth = params->initiator_depth;
    id->rnr_retry = params->rnr_retry < 7 ? params->rnr_retry : 7;
    rep.psn = id->psn;
    rep.responder_resources = params->responder_resources;
    rep.initiator_depth = params->initiator_depth;
    rep.flow_control = params->flow_control & 1;
    rep.rnr_retry = id->rnr_retry;
    rep.srq = params->srq != 0;
    rep.ca_guid = id->nic->guid;
    memcpy(rep.private_data, params->private_data, params->private_len);
    return cm_accept(id->conn, now_ns(), &rep);
}

static int confirm(struct cma_id *id)
{
    int error = cm_confirm(id->conn, now_ns());

    if (!error)
        cma_watch(id, true);
    return error;
}

int cma_accept(struct cma_id *id, const struct cma_params *params)
{
    static const struct cma_params none;
    int error;

    if (id->state != CMA_CONNECT || !id->conn)
        return -EINVAL;
    if (cma_is_datagram(id))
        error = accept_datagram(id, params ? params : &none);
    else if (params && cm_state_of(id->conn) != CM_REP_RCVD)
        error = accept_connection(id, params);
    else
        error = confirm(id);
    cma_wake();
    return error;
}

int cma_reject(struct cma_id *id, uint8_t reason, const void *data, uint8_t len)
{
    struct cm_mad rep = {.sidr_status = CM_SIDR_REJECTED, .private_len = len};
    bool datagram = cma_is_datagram(id);

    if (!id->conn || len > (datagram ? CM_SIDR_REP_PRIVATE : CM_REJ_PRIVATE))
        return -EINVAL;
    if (!datagram)
        return cm_reject(id->conn, now_ns(), reason ? reason : CM_REASON_CONSUMER, data, len);
    memcpy(rep.private_data, data, len);
    rep.service_id = cm_service_id(id->space, id->src.port);
    return cm_sidr_reply(id->conn, &rep);
}

/* That it is over already is no error. */
int cma_disconnect(struct cma_id *id)
{
    if (!id->conn)
        return -EINVAL;
    cma_watch(id, false);
    cm_disconnect(id->conn, now_ns());
    cma_wake();
    return 0;
}

int cma_notify_established(struct cma_id *id)
{
    return id->conn ? cm_established(id->conn, now_ns()) : -EINVAL;
}
