/* SPDX-License-Identifier: MIT */
/* Connections between a client and a server, and their end. */
#include "vip.h"

enum { ACCEPT_MS = 5000 };

/* ---- the server waits ---- */

bool server_offer(struct vip_nic *nic, struct conn *conn)
{
    for (struct waiter *waiter = nic->waiters; waiter; waiter = waiter->next) {
        if (waiter->conn || !address_equal(waiter->at, &conn->local))
            continue;
        waiter->conn = conn;
        conn->handed_out = true;
        pthread_cond_broadcast(&nic->changed);
        return true;
    }
    return false;
}

/* At the end, so that who waits longest is served first; with nic->lock held. */
static void waiter_add(struct vip_nic *nic, struct waiter *waiter)
{
    struct waiter **at = &nic->waiters;

    while (*at)
        at = &(*at)->next;
    *at = waiter;
}

static void waiter_remove(struct vip_nic *nic, struct waiter *waiter)
{
    struct waiter **at = &nic->waiters;

    while (*at != waiter)
        at = &(*at)->next;
    *at = waiter->next;
}

static VIP_RETURN wait_for_request(struct vip_nic *nic, const struct address *at, int64_t deadline,
                                   struct conn **conn_out)
{
    struct waiter waiter = {.at = at};
    int probe;

    pthread_mutex_lock(&nic->lock);
    int error = cm_listen(nic, at, &probe);
    if (error) {
        pthread_mutex_unlock(&nic->lock);
        return error == -EADDRNOTAVAIL ? VIP_INVALID_PARAMETER : VIP_ERROR_RESOURCE;
    }
    waiter_add(nic, &waiter);
    while (!waiter.conn && cond_wait_until(&nic->changed, &nic->lock, deadline))
        ;
    waiter_remove(nic, &waiter);
    pthread_mutex_unlock(&nic->lock);
    if (!waiter.conn)
        return VIP_TIMEOUT;
    *conn_out = waiter.conn;
    return VIP_SUCCESS;
}

VIP_RETURN VipConnectWait(VIP_NIC_HANDLE NicHandle, VIP_NET_ADDRESS *LocalAddr, VIP_ULONG Timeout,
                          VIP_NET_ADDRESS *RemoteAddr, VIP_VI_ATTRIBUTES *RemoteViAttribs,
                          VIP_CONN_HANDLE *ConnHandle)
{
    struct vip_nic *nic = nic_of(NicHandle);
    struct address at;
    struct conn *conn;

    if (!nic || !RemoteAddr || !RemoteViAttribs || !ConnHandle || !address_take(LocalAddr, &at))
        return VIP_INVALID_PARAMETER;
    VIP_RETURN result = wait_for_request(nic, &at, deadline_of(Timeout), &conn);
    if (result)
        return result;
    address_give(&conn->remote, RemoteAddr);
    conn_remote_attributes(conn, RemoteViAttribs);
    *ConnHandle = conn;
    return VIP_SUCCESS;
}

/* ---- the server answers ---- */

/* Takes the handle away from the program; NULL: it has been. */
static struct conn *handle_end(VIP_CONN_HANDLE handle)
{
    struct conn *conn = handle_of(handle, KIND_CONN);

    if (!conn)
        return NULL;
    pthread_mutex_lock(&conn->head.nic->lock);
    bool there = conn->handed_out;
    conn->handed_out = false;
    pthread_mutex_unlock(&conn->head.nic->lock);
    return there ? conn : NULL;
}

static void handle_keep(struct conn *conn)
{
    pthread_mutex_lock(&conn->head.nic->lock);
    conn->handed_out = true;
    pthread_mutex_unlock(&conn->head.nic->lock);
}

/* The VI and the connection belong together from now on; vi->lock held. */
static VIP_RETURN attach(struct vi *vi, struct conn *conn)
{
    struct vip_nic *nic = vi->head.nic;
    VIP_RETURN result = VIP_TIMEOUT;

    pthread_mutex_lock(&nic->lock);
    if (!conn->over) {
        conn->vi = vi;
        vi->conn = conn;
        vi_set_state(vi, VIP_STATE_CONNECT_PENDING);
        /* What can't be accepted any more was withdrawn. */
        int error = conn_accept(conn);
        result = error == -ENOMEM ? VIP_ERROR_RESOURCE : VIP_TIMEOUT;
        result = error ? result : VIP_SUCCESS;
    }
    pthread_mutex_unlock(&nic->lock);
    return result;
}

/* Waits for what the cm thread makes of it. */
static VIP_RETURN wait_until_over(struct conn *conn, int64_t deadline)
{
    struct vip_nic *nic = conn->head.nic;

    pthread_mutex_lock(&nic->lock);
    while (!conn->over && cond_wait_until(&nic->changed, &nic->lock, deadline))
        ;
    if (!conn->over)
        conn_finish(conn, VIP_TIMEOUT);
    VIP_RETURN result = conn->result;
    pthread_mutex_unlock(&nic->lock);
    return result;
}

/* No connection came of it: the VI is idle again, unless VipDisconnect has seen to that. */
static void give_up(struct vi *vi, struct conn *conn)
{
    struct vip_nic *nic = vi->head.nic;

    pthread_mutex_lock(&vi->lock);
    pthread_mutex_lock(&nic->lock);
    bool ours = conn->vi == vi;
    if (ours)
        vi->conn = NULL;
    conn->vi = NULL;
    pthread_mutex_unlock(&nic->lock);
    conn_end(conn);
    if (ours)
        vi_rewind(vi);
    pthread_mutex_unlock(&vi->lock);
}

VIP_RETURN VipConnectAccept(VIP_CONN_HANDLE ConnHandle, VIP_VI_HANDLE ViHandle)
{
    struct vi *vi = vi_of(ViHandle);
    struct conn *conn = vi ? handle_end(ConnHandle) : NULL;

    if (!conn)
        return VIP_INVALID_PARAMETER;
    if (conn->head.nic != vi->head.nic) {
        handle_keep(conn);
        return VIP_INVALID_PARAMETER;
    }
    pthread_mutex_lock(&vi->lock);
    VIP_RETURN result = vi_state(vi) == VIP_STATE_IDLE ? conn_compare(conn, vi) : VIP_INVALID_STATE;
    if (result) {
        handle_keep(conn);
        pthread_mutex_unlock(&vi->lock);
        return result;
    }
    result = attach(vi, conn);
    pthread_mutex_unlock(&vi->lock);
    if (!result)
        result = wait_until_over(conn, clock_ns() + (int64_t)ACCEPT_MS * 1000000);
    if (result)
        give_up(vi, conn);
    return result;
}

VIP_RETURN VipConnectReject(VIP_CONN_HANDLE ConnHandle)
{
    struct conn *conn = handle_end(ConnHandle);

    if (!conn)
        return VIP_INVALID_PARAMETER;
    pthread_mutex_lock(&conn->head.nic->lock);
    if (!conn->over)
        conn_refuse(conn->id, VIP_REJECT);
    pthread_mutex_unlock(&conn->head.nic->lock);
    conn_end(conn);
    return VIP_SUCCESS;
}

/* ---- the client asks ---- */

/* The address of the VI's own end: that of the NIC, if the program does not say. */
static bool local_address(struct vip_nic *nic, const VIP_NET_ADDRESS *from, struct address *to_out)
{
    if (from)
        return address_take(from, to_out);
    *to_out = nic->address;
    return true;
}

struct conn *conn_begin(struct vi *vi, enum conn_role role, const VIP_NET_ADDRESS *local,
                        const VIP_NET_ADDRESS *remote, VIP_ULONG timeout, VIP_RETURN *result_out)
{
    struct vip_nic *nic = vi->head.nic;
    struct address from, to;

    *result_out = VIP_INVALID_PARAMETER;
    if (!timeout || !local_address(nic, local, &from) || !address_take(remote, &to))
        return NULL;
    *result_out = VIP_INVALID_STATE;
    if (vi_state(vi) != VIP_STATE_IDLE || vi->conn)
        return NULL;
    struct conn *conn = conn_new(nic, role, vi);
    *result_out = conn ? VIP_SUCCESS : VIP_ERROR_RESOURCE;
    if (!conn)
        return NULL;
    conn->local = from;
    conn->remote = to;
    conn->deadline = deadline_of(timeout);
    conn_describe(conn);
    vi->conn = conn;
    vi_set_state(vi, VIP_STATE_CONNECT_PENDING);
    return conn;
}

VIP_RETURN VipConnectRequest(VIP_VI_HANDLE ViHandle, VIP_NET_ADDRESS *LocalAddr,
                             VIP_NET_ADDRESS *RemoteAddr, VIP_ULONG Timeout,
                             VIP_VI_ATTRIBUTES *RemoteViAttribs)
{
    struct vi *vi = vi_of(ViHandle);
    VIP_RETURN result;

    if (!vi || !RemoteViAttribs)
        return VIP_INVALID_PARAMETER;
    pthread_mutex_lock(&vi->lock);
    pthread_mutex_lock(&vi->head.nic->lock);
    struct conn *conn = conn_begin(vi, ROLE_CLIENT, LocalAddr, RemoteAddr, Timeout, &result);
    if (conn && cm_ask(conn))
        conn_finish(conn, VIP_NOT_REACHABLE);
    pthread_mutex_unlock(&vi->head.nic->lock);
    pthread_mutex_unlock(&vi->lock);
    if (!conn)
        return result;
    result = wait_until_over(conn, conn->deadline);
    if (result)
        give_up(vi, conn);
    else
        conn_remote_attributes(conn, RemoteViAttribs);
    return result;
}

/* ---- the end ---- */

/*
 * Who waits for an attempt ends it himself; everything else is ours to end. True: it was a
 * connection.
 */
static struct conn *take_conn(struct vi *vi)
{
    struct vip_nic *nic = vi->head.nic;

    pthread_mutex_lock(&nic->lock);
    struct conn *conn = vi->conn;
    vi->conn = NULL;
    if (conn) {
        conn->vi = NULL;
        bool pending = !conn->over;
        if (pending)
            conn_finish(conn, VIP_INVALID_STATE);
        else if (conn->result == VIP_SUCCESS)
            rdma_disconnect(conn->id);
        if (conn->role != ROLE_PEER && (pending || conn->result != VIP_SUCCESS))
            conn = NULL;
    }
    pthread_mutex_unlock(&nic->lock);
    return conn;
}

VIP_RETURN VipDisconnect(VIP_VI_HANDLE ViHandle)
{
    struct vi *vi = vi_of(ViHandle);

    if (!vi)
        return VIP_INVALID_PARAMETER;
    pthread_mutex_lock(&vi->lock);
    struct conn *conn = take_conn(vi);
    if (conn)
        conn_end(conn);
    vi_reset(vi);
    pthread_mutex_unlock(&vi->lock);
    return VIP_SUCCESS;
}
