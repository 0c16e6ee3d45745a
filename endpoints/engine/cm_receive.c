/* SPDX-License-Identifier: MIT */
/* What comes in: messages, the passing of time, and the end of a peer. */
#include "engine/cm_impl.h"

#include <stdlib.h>
#include <string.h>

static void unexpected(struct cm *cm)
{
    cm->stats.unexpected++;
}

/* ---- requests ---- */

/* The same request again: the same answer again, or a word that it is being thought about. */
static void on_req_again(struct cm_conn *conn)
{
    conn->cm->stats.duplicates++;
    if (conn->state == CM_REQ_RCVD)
        cm_send_mra(conn, CM_ABOUT_REQ);
    else if (conn->state == CM_REP_SENT)
        cm_resend(conn);
}

static bool is_same_request(const struct cm_conn *conn, const struct cm_mad *mad)
{
    return conn->passive && conn->tid == mad->tid && conn->remote_qpn == mad->qpn &&
           conn->remote_psn == mad->psn;
}

static void lose(struct cm_conn *conn, uint64_t now_ns);

/* The peer has begun anew, with an id that means something else here: that is over. */
static void supersede(struct cm_conn *conn, uint64_t now_ns)
{
    cm_unhash(conn);
    lose(conn, now_ns);
}

static void on_req(struct cm *cm, uint64_t now_ns, const struct cm_route *from,
                   const struct cm_mad *mad)
{
    struct cm_conn *conn = cm_by_remote(cm, mad->local_id, mad->ca_guid, from->via);

    if (conn && conn->datagram) {
        unexpected(cm);
        return;
    }
    if (conn && is_same_request(conn, mad)) {
        on_req_again(conn);
        return;
    }
    if (conn)
        supersede(conn, now_ns);
    conn = cm_conn_new(cm, from, NULL);
    if (!conn)
        return; /* it will ask again */
    memcpy(conn->route.sgid, mad->dgid, 16);
    memcpy(conn->route.dgid, mad->sgid, 16);
    conn->passive = true;
    conn->tid = mad->tid;
    conn->remote_qpn = mad->qpn;
    conn->remote_psn = mad->psn;
    conn->ack_timeout = mad->ack_timeout;
    conn->answer_timeout = mad->remote_timeout < CM_RESPONSE_TIMEOUT + 3 ? mad->remote_timeout
                                                                         : CM_RESPONSE_TIMEOUT + 3;
    conn->state = CM_REQ_RCVD;
    cm_set_remote(conn, mad->local_id, mad->ca_guid);
    cm_tell(conn, CM_EVENT_REQ, mad);
}

static void on_sidr_req(struct cm *cm, const struct cm_route *from, const struct cm_mad *mad)
{
    struct cm_conn *conn = cm_by_remote(cm, mad->local_id, 0, from->via);

    if (conn) {
        cm->stats.duplicates++;
        if (conn->datagram && conn->state == CM_IDLE)
            cm_resend(conn);
        return;
    }
    conn = cm_conn_new(cm, from, NULL);
    if (!conn)
        return;
    conn->passive = conn->datagram = true;
    conn->tid = mad->tid;
    conn->state = CM_SIDR_REQ_RCVD;
    cm_set_remote(conn, mad->local_id, 0);
    cm_tell(conn, CM_EVENT_SIDR_REQ, mad);
}

/* ---- answers ---- */

static void on_rep(struct cm_conn *conn, const struct cm_mad *mad)
{
    bool again = conn->hashed && conn->remote_id == mad->local_id && !conn->passive;

    if (conn->state == CM_REQ_SENT) {
        conn->remote_qpn = mad->qpn;
        conn->state = CM_REP_RCVD;
        cm_set_remote(conn, mad->local_id, mad->ca_guid);
        cm_arm(conn, CM_NEVER);
        cm_tell(conn, CM_EVENT_REP, mad);
    } else if (again && conn->state == CM_REP_RCVD) {
        conn->cm->stats.duplicates++;
        cm_send_mra(conn, CM_ABOUT_REP);
    } else if (again && conn->state == CM_ESTABLISHED) {
        conn->cm->stats.duplicates++;
        cm_resend(conn); /* the RTU */
    } else {
        unexpected(conn->cm);
    }
}

static void on_rtu(struct cm_conn *conn, const struct cm_mad *mad)
{
    if (conn->state != CM_REP_SENT) {
        unexpected(conn->cm);
        return;
    }
    conn->state = CM_ESTABLISHED;
    cm_arm(conn, CM_NEVER);
    cm_tell(conn, CM_EVENT_RTU, mad);
}

static void on_mra(struct cm_conn *conn, uint64_t now_ns, const struct cm_mad *mad)
{
    bool fits = (conn->state == CM_REQ_SENT && mad->about == CM_ABOUT_REQ) ||
                (conn->state == CM_REP_SENT && mad->about == CM_ABOUT_REP);

    if (!fits) {
        unexpected(conn->cm);
        return;
    }
    /* Whoever is alive then says so again; of one that is not we hear in time. */
    uint8_t patience = mad->service_timeout < CM_PATIENCE ? mad->service_timeout : CM_PATIENCE;
    if (conn->pleas++ < CM_PLEAS)
        conn->tries_left = CM_RETRIES;
    cm_arm(conn, now_ns + cm_timeout_ns(patience) + cm_timeout_ns(conn->answer_timeout));
}

static void on_rej(struct cm_conn *conn, const struct cm_mad *mad)
{
    switch (conn->state) {
    case CM_REQ_SENT:
    case CM_REQ_RCVD:
    case CM_REP_SENT:
    case CM_REP_RCVD:
        conn->state = CM_IDLE;
        cm_arm(conn, CM_NEVER);
        cm_tell(conn, CM_EVENT_REJ, mad);
        break;
    default:
        unexpected(conn->cm);
        break;
    }
}

/* A request that was given up: its sender never learned our id. */
static struct cm_conn *rejected_by(struct cm *cm, const struct cm_route *from,
                                   const struct cm_mad *mad)
{
    uint64_t guid = 0;

    if (mad->remote_id || mad->reason != CM_REASON_TIMEOUT || mad->ari_len != sizeof(guid))
        return cm_by_local(cm, mad->remote_id, from->via);
    for (unsigned i = 0; i < sizeof(guid); i++)
        guid = guid << 8 | mad->ari[i];
    return cm_by_remote(cm, mad->local_id, guid, from->via);
}

/* ---- the end ---- */

static void on_dreq(struct cm_conn *conn, uint64_t now_ns, const struct cm_mad *mad)
{
    switch (conn->state) {
    case CM_REP_SENT: /* the RTU was lost, or is still under way */
    case CM_ESTABLISHED:
        conn->state = CM_DREQ_RCVD;
        conn->tid = mad ? mad->tid : conn->tid;
        cm_arm(conn, CM_NEVER);
        cm_tell(conn, CM_EVENT_DREQ, mad);
        break;
    case CM_DREQ_SENT: /* both at once: each answers, and is answered by the other's wish */
        cm_send_plain(conn, CM_DREP);
        cm_enter_timewait(conn, now_ns);
        cm_tell(conn, CM_EVENT_DREP, NULL);
        break;
    case CM_TIMEWAIT:
    case CM_IDLE: /* our answer was lost, and it is long over here */
        conn->cm->stats.duplicates++;
        cm_send_plain(conn, CM_DREP);
        break;
    default:
        unexpected(conn->cm);
        break;
    }
}

static void on_drep(struct cm_conn *conn, uint64_t now_ns, const struct cm_mad *mad)
{
    if (conn->state != CM_DREQ_SENT) {
        unexpected(conn->cm);
        return;
    }
    cm_enter_timewait(conn, now_ns);
    cm_tell(conn, CM_EVENT_DREP, mad);
}

/*
 * Who disconnects from a conversation we have forgotten must not wait for us, nor who accepts a
 * request of one who is no more (IBTA 12.6.7).
 */
static void answer_stranger(struct cm *cm, const struct cm_route *from, const struct cm_mad *mad)
{
    struct cm_mad answer = {.attribute = CM_DREP,
                            .tid = mad->tid,
                            .local_id = mad->remote_id,
                            .remote_id = mad->local_id};
    uint8_t bytes[CM_MAD_SIZE];

    unexpected(cm);
    if (mad->attribute != CM_DREQ && mad->attribute != CM_REP)
        return;
    if (mad->attribute == CM_REP) {
        answer.attribute = CM_REJ;
        answer.about = CM_ABOUT_REP;
        answer.reason = CM_REASON_INVALID_COMM;
    }
    cm_mad_encode(&answer, bytes);
    cm->stats.sent++;
    cm->calls->send(cm->owner, from, bytes);
}

static void on_sidr_rep(struct cm *cm, const struct cm_route *from, const struct cm_mad *mad)
{
    struct cm_conn *conn = cm_by_local(cm, mad->local_id, from->via);

    if (!conn || conn->state != CM_SIDR_REQ_SENT) {
        unexpected(cm);
        return;
    }
    conn->state = CM_IDLE;
    cm_arm(conn, CM_NEVER);
    cm_tell(conn, CM_EVENT_SIDR_REP, mad);
}

/* ---- the way in ---- */

static void on_connected(struct cm *cm, uint64_t now_ns, const struct cm_route *from,
                         const struct cm_mad *mad)
{
    struct cm_conn *conn = mad->attribute == CM_REJ ? rejected_by(cm, from, mad)
                                                    : cm_by_local(cm, mad->remote_id, from->via);

    /* Once the peer's id is known, its messages must carry it. */
    if (!conn || (conn->hashed && conn->remote_id != mad->local_id)) {
        answer_stranger(cm, from, mad);
        return;
    }
    switch (mad->attribute) {
    case CM_REP:
        on_rep(conn, mad);
        break;
    case CM_RTU:
        on_rtu(conn, mad);
        break;
    case CM_MRA:
        on_mra(conn, now_ns, mad);
        break;
    case CM_REJ:
        on_rej(conn, mad);
        break;
    case CM_DREQ:
        on_dreq(conn, now_ns, mad);
        break;
    default:
        on_drep(conn, now_ns, mad);
        break;
    }
}

void cm_receive(struct cm *cm, uint64_t now_ns, const struct cm_route *from, const uint8_t *bytes,
                size_t len)
{
    struct cm_mad mad;

    cm->stats.received++;
    if (!cm_mad_decode(bytes, len, &mad)) {
        cm->stats.malformed++;
        return;
    }
    if (mad.attribute == CM_REQ)
        on_req(cm, now_ns, from, &mad);
    else if (mad.attribute == CM_SIDR_REQ)
        on_sidr_req(cm, from, &mad);
    else if (mad.attribute == CM_SIDR_REP)
        on_sidr_rep(cm, from, &mad);
    else
        on_connected(cm, now_ns, from, &mad);
}

/* ---- time ---- */

static void give_up(struct cm_conn *conn, uint64_t now_ns)
{
    if (conn->state == CM_DREQ_SENT) {
        cm_enter_timewait(conn, now_ns);
        cm_tell(conn, CM_EVENT_DREP, NULL);
        return;
    }
    if (conn->state == CM_REQ_SENT || conn->state == CM_REP_SENT)
        cm_send_rej(conn, CM_REASON_TIMEOUT, NULL, 0);
    conn->state = CM_IDLE;
    cm_arm(conn, CM_NEVER);
    cm_tell(conn, CM_EVENT_UNREACHABLE, NULL);
}

static void expire(struct cm_conn *conn, uint64_t now_ns)
{
    if (conn->state == CM_TIMEWAIT) {
        conn->state = CM_IDLE;
        cm_arm(conn, CM_NEVER);
        cm_tell(conn, CM_EVENT_TIMEWAIT_EXIT, NULL);
    } else if (conn->tries_left) {
        conn->tries_left--;
        cm_arm(conn, now_ns + cm_timeout_ns(conn->answer_timeout));
        cm_resend(conn);
    } else {
        give_up(conn, now_ns);
    }
}

void cm_expire(struct cm *cm, uint64_t now_ns)
{
    while (cm->heap_count && cm->heap[1]->deadline_ns <= now_ns)
        expire(cm->heap[1], now_ns);
}

/* ---- a peer's end ---- */

static void lose(struct cm_conn *conn, uint64_t now_ns)
{
    switch (conn->state) {
    case CM_REQ_SENT:
    case CM_REQ_RCVD:
    case CM_REP_SENT:
    case CM_REP_RCVD:
        on_rej(conn, NULL);
        break;
    case CM_ESTABLISHED:
        on_dreq(conn, now_ns, NULL);
        break;
    case CM_DREQ_SENT:
        on_drep(conn, now_ns, NULL);
        break;
    case CM_SIDR_REQ_SENT:
        conn->state = CM_IDLE;
        cm_arm(conn, CM_NEVER);
        cm_tell(conn, CM_EVENT_UNREACHABLE, NULL);
        break;
    default:
        break;
    }
}

void cm_lost_peer(struct cm *cm, uint64_t now_ns, uint64_t via, uint32_t qpn)
{
    for (uint32_t i = 1; i < cm->high; i++) {
        struct cm_conn *conn = cm->conns[i];

        if (conn && !conn->datagram && conn->route.via == via && conn->remote_qpn == qpn)
            lose(conn, now_ns);
    }
}

/* Is this the message that the conversation has said last? */
static bool is_last_word(const struct cm_conn *conn, uint16_t attribute)
{
    switch (conn->state) {
    case CM_REQ_SENT:
        return attribute == CM_REQ;
    case CM_REP_SENT:
        return attribute == CM_REP;
    case CM_ESTABLISHED:
        return attribute == CM_RTU;
    case CM_DREQ_SENT:
        return attribute == CM_DREQ;
    case CM_SIDR_REQ_SENT:
        return attribute == CM_SIDR_REQ;
    default:
        return false;
    }
}

/* One that begins: has nobody been there yet? Then each time that we asked was refused. */
static bool may_come_yet(struct cm_conn *conn)
{
    unsigned asked = CM_RETRIES - conn->tries_left + 1;

    if (conn->state != CM_REQ_SENT && conn->state != CM_SIDR_REQ_SENT)
        return false;
    return ++conn->refusals >= asked && !conn->pleas;
}

void cm_refused(struct cm *cm, uint64_t now_ns, uint64_t via, const uint8_t *bytes, size_t len)
{
    struct cm_mad mad;
    struct cm_conn *conn =
        cm_mad_decode(bytes, len, &mad) ? cm_by_local(cm, mad.local_id, via) : NULL;

    if (conn && is_last_word(conn, mad.attribute) && !may_come_yet(conn))
        lose(conn, now_ns);
}

void cm_lost(struct cm *cm, uint64_t now_ns, uint64_t via)
{
    for (uint32_t i = 1; i < cm->high; i++) {
        if (cm->conns[i] && cm->conns[i]->route.via == via)
            lose(cm->conns[i], now_ns);
    }
}
