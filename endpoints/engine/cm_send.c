/* SPDX-License-Identifier: MIT */
/* What the owner asks for, and the messages that say it. */
#include "engine/cm_impl.h"

#include <errno.h>
#include <string.h>

/* ---- messages ---- */

static void transmit(struct cm_conn *conn, const uint8_t *bytes)
{
    conn->cm->stats.sent++;
    conn->cm->calls->send(conn->cm->owner, &conn->route, bytes);
}

static void encode(const struct cm_conn *conn, const struct cm_mad *mad, uint8_t *out)
{
    struct cm_mad full = *mad;

    full.tid = conn->tid;
    full.local_id = conn->local_id;
    full.remote_id = conn->remote_id;
    cm_mad_encode(&full, out);
}

void cm_send(struct cm_conn *conn, const struct cm_mad *mad)
{
    uint8_t bytes[CM_MAD_SIZE];

    encode(conn, mad, bytes);
    transmit(conn, bytes);
}

void cm_ask(struct cm_conn *conn, uint64_t now_ns, struct cm_mad *mad)
{
    encode(conn, mad, conn->last);
    conn->tries_left = CM_RETRIES;
    conn->refusals = 0;
    cm_arm(conn, now_ns + cm_timeout_ns(conn->answer_timeout));
    transmit(conn, conn->last);
}

void cm_resend(struct cm_conn *conn)
{
    conn->cm->stats.resent++;
    transmit(conn, conn->last);
}

void cm_send_plain(struct cm_conn *conn, enum cm_attribute attribute)
{
    cm_send(conn, &(struct cm_mad){.attribute = (uint16_t)attribute});
}

void cm_send_mra(struct cm_conn *conn, enum cm_about about)
{
    cm_send(conn, &(struct cm_mad){.attribute = CM_MRA,
                                   .about = (uint8_t)about,
                                   .service_timeout = CM_SERVICE_TIMEOUT});
}

/* Who gives up waiting does not know the peer's id yet: it names itself (IBTA 12.6.7.2). */
static void name_ourselves(const struct cm_conn *conn, struct cm_mad *rej)
{
    rej->ari_len = sizeof(conn->ca_guid);
    for (unsigned i = 0; i < sizeof(conn->ca_guid); i++)
        rej->ari[i] = (uint8_t)(conn->ca_guid >> (56 - 8 * i));
}

void cm_send_rej(struct cm_conn *conn, enum cm_reason reason, const void *data, uint8_t len)
{
    struct cm_mad rej = {.attribute = CM_REJ, .reason = (uint16_t)reason, .private_len = len};

    switch (conn->state) {
    case CM_REQ_RCVD:
        rej.about = CM_ABOUT_REQ;
        break;
    case CM_REP_RCVD:
        rej.about = CM_ABOUT_REP;
        break;
    default:
        rej.about = CM_ABOUT_OTHER;
        break;
    }
    if (reason == CM_REASON_TIMEOUT)
        name_ourselves(conn, &rej);
    if (len)
        memcpy(rej.private_data, data, len);
    cm_send(conn, &rej);
}

void cm_enter_timewait(struct cm_conn *conn, uint64_t now_ns)
{
    conn->state = CM_TIMEWAIT;
    cm_arm(conn, now_ns + cm_timeout_ns(conn->ack_timeout));
}

/* ---- the active side ---- */

static struct cm_conn *begin(struct cm *cm, const struct cm_route *route, void *user)
{
    struct cm_conn *conn = cm_conn_new(cm, route, user);

    if (!conn)
        return NULL;
    conn->tid = conn->local_id;
    conn->answer_timeout = CM_RESPONSE_TIMEOUT;
    return conn;
}

int cm_connect(struct cm *cm, uint64_t now_ns, const struct cm_route *route,
               const struct cm_mad *req, void *user, struct cm_conn **conn_out)
{
    struct cm_conn *conn = begin(cm, route, user);
    struct cm_mad mad = *req;

    if (!conn)
        return -ENOMEM;
    conn->ca_guid = req->ca_guid;
    conn->ack_timeout = req->ack_timeout;
    conn->state = CM_REQ_SENT;
    mad.attribute = CM_REQ;
    mad.remote_timeout = mad.local_timeout = CM_RESPONSE_TIMEOUT;
    mad.max_retries = CM_RETRIES;
    *conn_out = conn;
    cm_ask(conn, now_ns, &mad);
    return 0;
}

int cm_sidr_connect(struct cm *cm, uint64_t now_ns, const struct cm_route *route,
                    const struct cm_mad *req, void *user, struct cm_conn **conn_out)
{
    struct cm_conn *conn = begin(cm, route, user);
    struct cm_mad mad = *req;

    if (!conn)
        return -ENOMEM;
    conn->state = CM_SIDR_REQ_SENT;
    mad.attribute = CM_SIDR_REQ;
    *conn_out = conn;
    cm_ask(conn, now_ns, &mad);
    return 0;
}

int cm_confirm(struct cm_conn *conn, uint64_t now_ns)
{
    (void)now_ns;
    if (conn->state != CM_REP_RCVD)
        return -EINVAL;
    conn->state = CM_ESTABLISHED;
    cm_arm(conn, CM_NEVER);
    encode(conn, &(struct cm_mad){.attribute = CM_RTU}, conn->last);
    transmit(conn, conn->last);
    return 0;
}

/* ---- the passive side ---- */

int cm_accept(struct cm_conn *conn, uint64_t now_ns, const struct cm_mad *rep)
{
    struct cm_mad mad = *rep;

    if (conn->state != CM_REQ_RCVD)
        return -EINVAL;
    conn->ca_guid = rep->ca_guid;
    conn->state = CM_REP_SENT;
    mad.attribute = CM_REP;
    cm_ask(conn, now_ns, &mad);
    return 0;
}

int cm_established(struct cm_conn *conn, uint64_t now_ns)
{
    (void)now_ns;
    if (conn->state != CM_REP_SENT)
        return -EINVAL;
    conn->state = CM_ESTABLISHED;
    cm_arm(conn, CM_NEVER);
    cm_tell(conn, CM_EVENT_RTU, NULL);
    return 0;
}

int cm_sidr_reply(struct cm_conn *conn, const struct cm_mad *rep)
{
    struct cm_mad mad = *rep;

    if (conn->state != CM_SIDR_REQ_RCVD)
        return -EINVAL;
    /* The id on the wire is the request's, not one of ours. */
    mad.attribute = CM_SIDR_REP;
    mad.tid = conn->tid;
    mad.local_id = conn->remote_id;
    cm_mad_encode(&mad, conn->last);
    conn->state = CM_IDLE;
    transmit(conn, conn->last);
    return 0;
}

/* ---- either side ---- */

int cm_reject(struct cm_conn *conn, uint64_t now_ns, enum cm_reason reason, const void *data,
              uint8_t len)
{
    (void)now_ns;
    if (conn->state != CM_REQ_RCVD && conn->state != CM_REP_RCVD && conn->state != CM_REQ_SENT &&
        conn->state != CM_REP_SENT)
        return -EINVAL;
    cm_send_rej(conn, reason, data, len);
    conn->state = CM_IDLE;
    cm_arm(conn, CM_NEVER);
    return 0;
}

int cm_disconnect(struct cm_conn *conn, uint64_t now_ns)
{
    if (conn->state == CM_DREQ_RCVD) {
        cm_send_plain(conn, CM_DREP);
        cm_enter_timewait(conn, now_ns);
        return 0;
    }
    if (conn->state != CM_ESTABLISHED && conn->state != CM_REP_SENT)
        return -EINVAL;
    conn->state = CM_DREQ_SENT;
    cm_ask(conn, now_ns, &(struct cm_mad){.attribute = CM_DREQ, .qpn = conn->remote_qpn});
    return 0;
}

/* As the state asks for. What is being disconnected, or was never begun, stays as it is. */
static void conclude(struct cm_conn *conn, uint64_t now_ns)
{
    switch (conn->state) {
    case CM_REQ_SENT:
    case CM_REP_SENT:
        cm_reject(conn, now_ns, CM_REASON_TIMEOUT, NULL, 0);
        break;
    case CM_REQ_RCVD:
    case CM_REP_RCVD:
        cm_reject(conn, now_ns, CM_REASON_CONSUMER, NULL, 0);
        break;
    default:
        cm_disconnect(conn, now_ns);
        break;
    }
}

void cm_destroy(struct cm_conn *conn, uint64_t now_ns)
{
    conn->orphan = true;
    if (conn->state == CM_SIDR_REQ_RCVD)
        cm_sidr_reply(conn, &(struct cm_mad){.sidr_status = CM_SIDR_REJECTED});
    else
        conclude(conn, now_ns);
    if (conn->state != CM_DREQ_SENT)
        cm_forget(conn);
}

/* ---- the end of the process ---- */

static void quit(struct cm_conn *conn, uint64_t now_ns)
{
    conn->quits = true;
    conn->answer_timeout = CM_QUIT_TIMEOUT;
    if (conn->state == CM_DREQ_SENT) {
        conn->tries_left = CM_RETRIES;
        cm_arm(conn, now_ns);
    } else {
        conclude(conn, now_ns);
    }
}

unsigned cm_quit(struct cm *cm, uint64_t now_ns, bool (*leads_out)(uint64_t via))
{
    unsigned left = 0;

    for (uint32_t i = 1; i < cm->high; i++) {
        struct cm_conn *conn = cm->conns[i];

        if (!conn || !leads_out(conn->route.via))
            continue;
        if (!conn->quits)
            quit(conn, now_ns);
        left += conn->state == CM_DREQ_SENT;
    }
    return left;
}
