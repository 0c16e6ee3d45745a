/* SPDX-License-Identifier: MIT */
/*
 * Connections between peers: both ask. The one with the greater address sends the request, again
 * and again until the other is there; the one with the smaller listens. Nobody does both at a time:
 * a connection manager takes an answer for a leftover if it knows the queue pair by a request of
 * its own.
 *
 * If the addresses are the same, the places where the two listen are in order: two NICs can't
 * listen at one port, so one of them has come later in the row of ports that the address stands
 * for, and asks at the ports before. Within a NIC the greater queue pair number asks.
 */
#include "vip.h"

enum { AGAIN_FIRST_MS = 1, AGAIN_MOST_MS = 32 };

static bool is_waiting(const struct conn *conn)
{
    return conn->role == ROLE_PEER && !conn->over && !conn->answered && conn->vi;
}

/* ---- peers at one address ---- */

static bool same_address(const struct conn *conn)
{
    return address_equal(&conn->local, &conn->remote);
}

static bool ranks_below(const struct conn *conn, const struct conn *other)
{
    return conn->listens < other->listens ||
           (conn->listens == other->listens && conn->my_qpn < other->my_qpn);
}

/* Whether somebody is there to be asked on one's own NIC. */
static bool has_partner(const struct conn *conn)
{
    for (struct head *head = conn->head.nic->conns; head; head = head->next) {
        const struct conn *other = (const struct conn *)head;

        if (is_waiting(other) && ranks_below(other, conn) && same_address(other) &&
            address_equal(&other->local, &conn->local))
            return true;
    }
    return false;
}

/* A request from the same NIC is for those below; one from elsewhere comes from above. */
static bool from_above(const struct conn *conn, uint32_t their_qpn)
{
    for (struct head *head = conn->head.nic->conns; head; head = head->next) {
        const struct conn *other = (const struct conn *)head;

        if (other->role == ROLE_PEER && other->my_qpn == their_qpn)
            return ranks_below(conn, other);
    }
    return true;
}

/* At how many of the ports one has to ask. */
static int ports_to_ask(const struct conn *conn)
{
    int order = address_compare(&conn->local, &conn->remote);

    if (order)
        return order > 0 ? PROBES : 0;
    return conn->listens + has_partner(conn);
}

/* ---- a request came ---- */

/* Whether this one is who is asked for, and has to answer. */
static bool answers(const struct conn *conn, const struct conn *fresh)
{
    if (!address_equal(&conn->local, &fresh->local) ||
        !address_equal(&conn->remote, &fresh->remote))
        return false;
    if (same_address(conn))
        return !conn->id && from_above(conn, fresh->their_qpn);
    return address_compare(&conn->local, &conn->remote) < 0;
}

VIP_RETURN peer_offer(struct vip_nic *nic, struct conn *fresh, struct conn **for_out)
{
    VIP_RETURN code = VIP_NO_MATCH;

    for (struct head *head = nic->conns; head; head = head->next) {
        struct conn *conn = (struct conn *)head;

        if (!is_waiting(conn))
            continue;
        if (answers(conn, fresh)) {
            *for_out = conn;
            return conn_compare(fresh, conn->vi);
        }
        if (address_equal(&conn->local, &fresh->local) &&
            !address_equal(&conn->remote, &fresh->remote))
            code = VIP_REJECT;
    }
    return code;
}

/* ---- ours was refused ---- */

void peer_refused(struct conn *conn, VIP_RETURN code)
{
    if (code != VIP_NO_MATCH && code != VIP_REJECT) {
        conn_finish(conn, code);
        return;
    }
    conn->mismatch |= code == VIP_REJECT;
    if (++conn->probe < ports_to_ask(conn)) {
        conn->again = 0;
        return;
    }
    if (conn->mismatch) {
        conn_finish(conn, VIP_NO_MATCH);
        return;
    }
    conn->probe = 0;
    conn->pause_ms = conn->pause_ms < AGAIN_MOST_MS ? conn->pause_ms * 2 : AGAIN_MOST_MS;
    conn->again = clock_ns() + (int64_t)conn->pause_ms * 1000000;
}

static int64_t peer_progress(struct conn *conn, int64_t now)
{
    if (now >= conn->deadline) {
        conn_finish(conn, VIP_TIMEOUT);
        return INT64_MAX;
    }
    if (conn->id || conn->answered || !ports_to_ask(conn))
        return conn->deadline;
    if (now >= conn->again) {
        if (cm_ask(conn))
            conn_finish(conn, VIP_NOT_REACHABLE);
        return conn->deadline;
    }
    return conn->again < conn->deadline ? conn->again : conn->deadline;
}

int64_t peers_progress(struct vip_nic *nic, int64_t now)
{
    int64_t next = INT64_MAX;

    for (struct head *head = nic->conns; head; head = head->next) {
        struct conn *conn = (struct conn *)head;

        if (conn->role != ROLE_PEER || conn->over)
            continue;
        int64_t due = peer_progress(conn, now);
        next = due < next ? due : next;
    }
    return next;
}

/* ---- the calls ---- */

VIP_RETURN VipConnectPeerRequest(VIP_VI_HANDLE ViHandle, VIP_NET_ADDRESS *LocalAddr,
                                 VIP_NET_ADDRESS *RemoteAddr, VIP_ULONG Timeout)
{
    struct vi *vi = vi_of(ViHandle);
    VIP_RETURN result;

    if (!vi || !LocalAddr)
        return VIP_INVALID_PARAMETER;
    struct vip_nic *nic = vi->head.nic;
    pthread_mutex_lock(&vi->lock);
    pthread_mutex_lock(&nic->lock);
    struct conn *conn = conn_begin(vi, ROLE_PEER, LocalAddr, RemoteAddr, Timeout, &result);
    int error = conn ? cm_listen(nic, &conn->local, &conn->listens) : 0;
    if (error) {
        vi->conn = NULL;
        vi_set_state(vi, VIP_STATE_IDLE);
        result = error == -EADDRNOTAVAIL ? VIP_INVALID_PARAMETER : VIP_ERROR_RESOURCE;
    } else if (conn) {
        conn->pause_ms = AGAIN_FIRST_MS;
        cm_wake(nic);
    }
    pthread_mutex_unlock(&nic->lock);
    if (error)
        conn_end(conn);
    pthread_mutex_unlock(&vi->lock);
    return result;
}

/* An attempt without success leaves nothing behind; vi->lock held. */
static void peer_end(struct vi *vi)
{
    struct conn *conn = conn_detach(vi);

    if (conn)
        conn_end(conn);
    vi_rewind(vi);
}

static VIP_RETURN peer_result(struct vi *vi, struct conn *conn, VIP_VI_ATTRIBUTES *theirs_out)
{
    struct vip_nic *nic = vi->head.nic;

    pthread_mutex_lock(&vi->lock);
    pthread_mutex_lock(&nic->lock);
    bool ours = vi->conn == conn && conn->over && !conn->taken;
    VIP_RETURN result = ours ? conn->result : VIP_INVALID_STATE;
    if (ours) {
        conn->taken = true;
        if (!result)
            conn_remote_attributes(conn, theirs_out);
    }
    pthread_mutex_unlock(&nic->lock);
    if (ours && result)
        peer_end(vi);
    pthread_mutex_unlock(&vi->lock);
    return result;
}

/* Only VipDisconnect takes the connection away meanwhile. */
static VIP_RETURN peer_done(struct vi *vi, VIP_VI_ATTRIBUTES *theirs_out, bool wait)
{
    struct vip_nic *nic = vi->head.nic;

    pthread_mutex_lock(&nic->lock);
    struct conn *conn = vi->conn;
    if (!conn || conn->role != ROLE_PEER || conn->taken) {
        pthread_mutex_unlock(&nic->lock);
        return VIP_INVALID_STATE;
    }
    while (wait && vi->conn == conn && !conn->over)
        pthread_cond_wait(&nic->changed, &nic->lock);
    bool over = vi->conn != conn || conn->over;
    pthread_mutex_unlock(&nic->lock);
    return over ? peer_result(vi, conn, theirs_out) : VIP_NOT_DONE;
}

VIP_RETURN VipConnectPeerDone(VIP_VI_HANDLE ViHandle, VIP_VI_ATTRIBUTES *RemoteViAttribs)
{
    struct vi *vi = vi_of(ViHandle);

    return vi && RemoteViAttribs ? peer_done(vi, RemoteViAttribs, false) : VIP_INVALID_PARAMETER;
}

VIP_RETURN VipConnectPeerWait(VIP_VI_HANDLE ViHandle, VIP_VI_ATTRIBUTES *RemoteViAttribs)
{
    struct vi *vi = vi_of(ViHandle);

    return vi && RemoteViAttribs ? peer_done(vi, RemoteViAttribs, true) : VIP_INVALID_PARAMETER;
}
