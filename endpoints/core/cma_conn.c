/* SPDX-License-Identifier: MIT */
/* Between the machine that speaks, the link that carries, and the identifiers that listen. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>

#include "core/cma_impl.h"
#include "core/objects.h"
#include "core/process.h"
#include "core/thread.h"
#include "link/link.h"

static struct cm *machine;
static struct cma_id *listening;
static cma_handler *handler;

void cma_set_handler(cma_handler *function)
{
    handler = function;
}

void cma_tell(struct cma_id *id, const struct cma_event *event)
{
    handler(id, NULL, event);
}

bool cma_hand_over(struct cma_id *listener, struct cma_id *fresh, const struct cma_event *event)
{
    return handler(listener, fresh, event);
}

struct cma_id *cma_listeners(void)
{
    return listening;
}

void cma_set_listening(struct cma_id *id, bool on)
{
    struct cma_id **at = &listening;

    if (on) {
        id->next = listening;
        listening = id;
        return;
    }
    while (*at != id)
        at = &(*at)->next;
    *at = id->next;
}

/* While it is connected, the end of its peer is to be heard of though nothing is sent. */
void cma_watch(const struct cma_id *id, bool on)
{
    if (!cma_is_datagram(id))
        link_watch(id->qpn, id->remote_qpn, on);
}

uint8_t cma_ack_timeout_of(const struct cma_id *id)
{
    return id->has_ack_timeout ? id->ack_timeout : CMA_ACK_TIMEOUT;
}

void cma_limit_mtu(struct cma_id *id)
{
    struct ibv_port_attr port;

    if (port_query(id->nic, 1, &port) == 0 && id->mtu > port.active_mtu)
        id->mtu = port.active_mtu;
}

/* ---- what the machine has to say ---- */

static void take_private(const struct cm_mad *mad, struct cma_event *event)
{
    event->params.private_len = mad->private_len;
    memcpy(event->params.private_data, mad->private_data, mad->private_len);
}

/* The peer's offer, seen from our side: what it can be asked is what we may ask. */
static void on_response(struct cma_id *id, const struct cm_mad *mad, struct cma_event *event)
{
    struct cma_params *params = &event->params;

    event->type = CMA_CONNECT_RESPONSE;
    params->qpn = id->remote_qpn = mad->qpn;
    id->remote_psn = mad->psn;
    params->responder_resources = id->responder_resources = mad->initiator_depth;
    params->initiator_depth = id->initiator_depth = mad->responder_resources;
    params->flow_control = mad->flow_control;
    params->rnr_retry = id->rnr_retry = mad->rnr_retry;
    params->srq = mad->srq;
    take_private(mad, event);
}

static void on_service(struct cma_id *id, const struct cm_mad *mad, struct cma_event *event)
{
    event->datagram = true;
    event->status = mad->sidr_status;
    event->type = mad->sidr_status == CM_SIDR_OK ? CMA_ESTABLISHED : CMA_UNREACHABLE;
    event->params.qpn = mad->qpn;
    event->params.qkey = mad->qkey;
    cma_path(id, &event->ah);
    take_private(mad, event);
}

static void on_rejected(const struct cm_mad *mad, struct cma_event *event)
{
    event->type = CMA_REJECTED;
    event->status = mad ? mad->reason : CM_REASON_CONSUMER;
    if (mad)
        take_private(mad, event);
}

static void describe(struct cma_id *id, enum cm_event what, const struct cm_mad *mad,
                     struct cma_event *event)
{
    switch (what) {
    case CM_EVENT_REP:
        on_response(id, mad, event);
        break;
    case CM_EVENT_SIDR_REP:
        on_service(id, mad, event);
        break;
    case CM_EVENT_RTU:
        event->type = CMA_ESTABLISHED;
        break;
    case CM_EVENT_REJ:
        on_rejected(mad, event);
        break;
    case CM_EVENT_DREQ:
    case CM_EVENT_DREP:
        event->type = CMA_DISCONNECTED;
        if (mad)
            take_private(mad, event);
        break;
    case CM_EVENT_TIMEWAIT_EXIT:
        event->type = CMA_TIMEWAIT_EXIT;
        break;
    default:
        event->type = CMA_UNREACHABLE;
        event->status = -ETIMEDOUT;
        event->datagram = cma_is_datagram(id);
        break;
    }
}

static void on_event(void *owner, struct cm_conn *conn, enum cm_event what,
                     const struct cm_mad *mad)
{
    struct cma_id *id = cm_user(conn);
    struct cma_event event = {0};

    (void)owner;
    if (what == CM_EVENT_REQ || what == CM_EVENT_SIDR_REQ) {
        cma_on_request(conn, mad, what == CM_EVENT_SIDR_REQ);
        return;
    }
    if (!id)
        return;
    if (what == CM_EVENT_RTU)
        cma_watch(id, true);
    else if (what != CM_EVENT_REP)
        cma_watch(id, false);
    describe(id, what, mad, &event);
    cma_tell(id, &event);
}

static void on_send(void *owner, const struct cm_route *route, const uint8_t mad[CM_MAD_SIZE])
{
    (void)owner;
    link_send_mad(route->via, route->sgid, route->dgid, mad);
}

struct cm *cma_machine(void)
{
    static const struct cm_owner calls = {.send = on_send, .event = on_event};
    uint64_t seed = now_ns();

    (void)!getrandom(&seed, sizeof(seed), 0);
    if (!machine)
        machine = cm_new(&calls, NULL, seed);
    if (machine)
        cm_set_mark(machine, process_slot());
    return machine;
}

/* ---- the link and the clock ---- */

void cma_wake(void)
{
    uint64_t deadline = cm_deadline(machine);

    if (deadline != UINT64_MAX)
        thread_wake_at(deadline);
}

/* A process that never used the connection manager answers too: nobody listens here. */
static void receive(const struct cm_route *route, const void *bytes, size_t len)
{
    if (!cma_machine())
        return;
    cm_receive(machine, now_ns(), route, bytes, len);
    cma_wake();
}

void conn_receive(uint64_t from, const void *bytes, size_t len)
{
    struct cm_route route = {.via = from};

    receive(&route, bytes, len);
}

void conn_receive_wire(uint64_t via, const uint8_t own[16], const uint8_t peer[16],
                       const void *bytes, size_t len)
{
    struct cm_route route = {.via = via};

    memcpy(route.sgid, own, 16);
    memcpy(route.dgid, peer, 16);
    receive(&route, bytes, len);
}

/* Who listens is asked for by service; all else names a conversation, which names its slot. */
uint32_t conn_slot_of(const void *bytes, size_t len, const uint8_t own[16])
{
    struct cm_mad mad;

    if (!cm_mad_decode(bytes, len, &mad))
        return process_slot();
    if (mad.attribute == CM_REQ || mad.attribute == CM_SIDR_REQ)
        return process_name_slot(
            port_find((uint16_t)(mad.service_id >> 16), (uint16_t)mad.service_id, own));
    uint32_t id = mad.attribute == CM_SIDR_REP ? mad.local_id : mad.remote_id;
    return cm_mark_of(id);
}

void conn_lost(uint64_t name)
{
    if (!machine)
        return;
    cm_lost(machine, now_ns(), name);
    cma_wake();
}

void conn_refused(uint64_t via, const void *bytes, size_t len)
{
    if (!machine)
        return;
    cm_refused(machine, now_ns(), via, bytes, len);
    cma_wake();
}

void conn_lost_peer(uint64_t via, uint32_t qpn)
{
    if (!machine)
        return;
    cm_lost_peer(machine, now_ns(), via, qpn);
    cma_wake();
}

bool conn_is_used(void)
{
    return machine;
}

void conn_progress(void)
{
    if (!machine || cm_deadline(machine) == UINT64_MAX)
        return;
    cm_expire(machine, now_ns());
    cma_wake();
}

static bool are_left(void)
{
    if (!machine || !core_try_lock())
        return machine;
    unsigned left = cm_quit(machine, now_ns(), link_leads_away);
    cma_wake();
    core_unlock();
    return left;
}

/*
 * Peers in shared memory see that a process ends. Who is reached by the wire is told, and because
 * nobody will be here to tell it again, we wait until it has heard.
 */
__attribute__((destructor)) static void take_leave(void)
{
    uint64_t end = now_ns() + CM_QUIT_NS;

    while (are_left() && now_ns() < end)
        (void)poll(NULL, 0, 1);
}

/* Identifiers are the parent's, and stay where its files' entries hold them. */
void conn_after_fork(void)
{
    if (machine)
        cm_free(machine);
    machine = NULL;
    listening = NULL;
    ports_after_fork();
}
