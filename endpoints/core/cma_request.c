/* SPDX-License-Identifier: MIT */
/* A request came: who listens for it, and the identifier it becomes. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/cma_impl.h"
#include "core/thread.h"

/* What is asked for, and by whom. */
struct asked {
    uint16_t space, port;
    enum ibv_qp_type qp_type;
    struct cm_ip ip;
};

static enum ibv_qp_type qp_type_of(const struct cm_mad *mad)
{
    if (mad->xrc)
        return IBV_QPT_XRC_RECV;
    return mad->transport == CM_TRANSPORT_UC ? IBV_QPT_UC : IBV_QPT_RC;
}

static bool understand(const struct cm_mad *mad, bool datagram, struct asked *asked)
{
    asked->space = (uint16_t)(mad->service_id >> 16);
    asked->port = (uint16_t)mad->service_id;
    asked->qp_type = datagram ? IBV_QPT_UD : qp_type_of(mad);
    return mad->service_id >> 32 == 0 && cm_ip_decode(mad->private_data, &asked->ip);
}

static bool listens(const struct cma_id *id, const struct asked *asked)
{
    return id->space == asked->space && id->src.port == asked->port &&
           id->qp_type == asked->qp_type && address_serves(id->src.ip, id->v6_only, asked->ip.dst);
}

/* Who is bound to the very address goes first. */
static struct cma_id *find_listener(const struct asked *asked)
{
    struct cma_id *found = NULL;

    for (struct cma_id *id = cma_listeners(); id; id = id->next) {
        if (listens(id, asked) && (!found || !cma_is_any(&id->src)))
            found = id;
    }
    return found;
}

static void set_address(struct cma_addr *addr, const uint8_t ip[16], uint16_t port)
{
    addr->family = address_is_mapped(ip) ? AF_INET : AF_INET6;
    addr->port = port;
    memcpy(addr->ip, ip, 16);
}

/* The new identifier knows both ends; the program's choices come with its accept. */
static struct cma_id *make_id(const struct cma_id *listener, const struct asked *asked,
                              const struct cm_mad *mad)
{
    struct cma_id *id = cma_new(listener->space, listener->qp_type, NULL);

    if (!id)
        return NULL;
    if (!cma_find_gid(asked->ip.dst, &id->nic, &id->sgid_index)) {
        free(id);
        return NULL;
    }
    set_address(&id->src, asked->ip.dst, asked->port);
    set_address(&id->dst, asked->ip.src, asked->ip.port);
    id->tos = listener->tos ? listener->tos : mad->traffic_class;
    id->has_ack_timeout = listener->has_ack_timeout;
    id->ack_timeout = listener->ack_timeout;
    id->remote_qpn = mad->qpn;
    id->remote_psn = mad->psn;
    id->responder_resources = mad->initiator_depth;
    id->initiator_depth = mad->responder_resources;
    id->wants_reads = mad->initiator_depth != 0;
    id->retry_count = mad->retry_count;
    id->rnr_retry = mad->rnr_retry;
    if (mad->mtu >= IBV_MTU_256 && mad->mtu < IBV_MTU_4096)
        id->mtu = mad->mtu;
    cma_limit_mtu(id);
    id->state = CMA_CONNECT;
    return id;
}

static void describe(const struct cma_id *id, const struct cm_mad *mad, bool datagram,
                     struct cma_event *event)
{
    struct cma_params *params = &event->params;

    event->type = CMA_CONNECT_REQUEST;
    event->datagram = datagram;
    params->qpn = mad->qpn;
    params->responder_resources = id->responder_resources;
    params->initiator_depth = id->initiator_depth;
    params->flow_control = mad->flow_control;
    params->retry_count = mad->retry_count;
    params->rnr_retry = mad->rnr_retry;
    params->srq = mad->srq;
    params->private_len = (uint8_t)(mad->private_len - CM_IP_SIZE);
    memcpy(params->private_data, mad->private_data + CM_IP_SIZE, params->private_len);
}

static void refuse(struct cm_conn *conn, const struct cm_mad *mad, bool datagram)
{
    if (datagram)
        cm_sidr_reply(conn, &(struct cm_mad){.sidr_status = CM_SIDR_UNSUPPORTED,
                                             .service_id = mad->service_id});
    else
        cm_reject(conn, now_ns(), CM_REASON_INVALID_SERVICE, NULL, 0);
    cm_destroy(conn, now_ns());
}

void cma_on_request(struct cm_conn *conn, const struct cm_mad *mad, bool datagram)
{
    struct cma_event event = {0};
    struct asked asked = {0};
    struct cma_id *listener = understand(mad, datagram, &asked) ? find_listener(&asked) : NULL;

    if (!listener) {
        refuse(conn, mad, datagram);
        return;
    }
    /* The program is busy: the request is asked again, and answered when there is room. */
    if (listener->pending >= listener->backlog) {
        cm_forget(conn);
        return;
    }
    struct cma_id *id = make_id(listener, &asked, mad);
    if (!id) {
        refuse(conn, mad, datagram);
        return;
    }
    id->conn = conn;
    cm_set_user(conn, id);
    describe(id, mad, datagram, &event);
    if (cma_hand_over(listener, id, &event))
        return;
    id->conn = NULL;
    cm_forget(conn);
    cma_destroy(id);
}
