/* SPDX-License-Identifier: MIT */
/*
 * The cm thread: events of rdma_cm and of the device, requests that arrive, peers that ask again.
 * An event is taken and handled under nic->lock before it is acknowledged, and identifiers are
 * destroyed without the lock, after they were taken out of their connection: so an event always
 * finds the connection it is for, or none.
 */
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vip.h"

enum { BACKLOG = 64, RESOLVE_MS = 2000, REPORT_MS = 2000, RETRIES = 7, GRACE_MS = 20 };

/* ---- connections ---- */

struct conn *conn_new(struct vip_nic *nic, enum conn_role role, struct vi *vi)
{
    struct conn *conn = pool_take(KIND_CONN, nic);

    if (!conn)
        return NULL;
    conn->role = role;
    conn->vi = vi;
    list_add(&nic->conns, &conn->head);
    return conn;
}

void conn_end(struct conn *conn)
{
    struct vip_nic *nic = conn->head.nic;

    pthread_mutex_lock(&nic->lock);
    struct rdma_cm_id *id = conn->id;
    conn->id = NULL;
    list_remove(&nic->conns, &conn->head);
    pthread_mutex_unlock(&nic->lock);
    if (id)
        rdma_destroy_id(id);
    pool_give(conn);
}

struct conn *conn_detach(struct vi *vi)
{
    struct vip_nic *nic = vi->head.nic;

    pthread_mutex_lock(&nic->lock);
    struct conn *conn = vi->conn;
    vi->conn = NULL;
    if (conn)
        conn->vi = NULL;
    pthread_mutex_unlock(&nic->lock);
    return conn;
}

void conn_finish(struct conn *conn, VIP_RETURN result)
{
    if (conn->over)
        return;
    conn->over = true;
    conn->result = result;
    pthread_cond_broadcast(&conn->head.nic->changed);
}

void conn_remote_attributes(const struct conn *conn, VIP_VI_ATTRIBUTES *to)
{
    *to = (VIP_VI_ATTRIBUTES){.ReliabilityLevel = conn->theirs.level,
                              .MaxTransferSize = conn->theirs.max_transfer,
                              .EnableRdmaWrite = conn->theirs.write,
                              .EnableRdmaRead = conn->theirs.read};
}

VIP_RETURN conn_compare(const struct conn *conn, const struct vi *vi)
{
    if (conn->theirs.level != vi->attributes.ReliabilityLevel)
        return VIP_INVALID_RELIABILITY_LEVEL;
    return conn->theirs.max_transfer == vi->attributes.MaxTransferSize ? VIP_SUCCESS
                                                                       : VIP_INVALID_MTU;
}

/* ---- what the other side is told ---- */

/* Where it can tell us what our NIC won't; 0: it can't. */
static uint16_t report_port(struct vip_nic *nic)
{
    struct sockaddr_storage at;

    if (nic->report_id || rdma_create_id(nic->cm, &nic->report_id, NULL, RDMA_PS_TCP))
        return nic->report_port;
    address_socket(&nic->address, 0, &at);
    if (rdma_bind_addr(nic->report_id, (struct sockaddr *)&at) ||
        rdma_listen(nic->report_id, BACKLOG))
        return 0;
    nic->report_port = ntohs(rdma_get_src_port(nic->report_id));
    return nic->report_port;
}

static enum message_type type_of(enum conn_role role)
{
    switch (role) {
    case ROLE_CLIENT:
        return MESSAGE_CLIENT;
    case ROLE_PEER:
        return MESSAGE_PEER;
    default:
        return MESSAGE_ANSWER;
    }
}

void conn_describe(struct conn *conn)
{
    const struct vi *vi = conn->vi;
    const VIP_VI_ATTRIBUTES *attributes = &vi->attributes;

    conn->mine = (struct message){.type = type_of(conn->role),
                                  .level = attributes->ReliabilityLevel,
                                  .write = attributes->EnableRdmaWrite,
                                  .read = attributes->EnableRdmaRead,
                                  .reads = (uint8_t)vi->head.nic->max_reads,
                                  .max_transfer = vi->max_transfer,
                                  .from = conn->local,
                                  .to = conn->remote};
    conn->my_qpn = vi->qp->qp_num;
    if (vi->reliable)
        conn->mine.report_port = report_port(vi->head.nic);
    if (vi->confirms) {
        conn->mine.confirm_address = (uintptr_t)&vi->head.nic->confirm_words[0];
        conn->mine.confirm_rkey = vi->ptag->confirm->rkey;
    }
}

static struct rdma_conn_param params_of(const struct conn *conn, uint8_t data[MESSAGE_MAX])
{
    uint8_t reads = (uint8_t)conn->head.nic->max_reads;

    return (struct rdma_conn_param){.private_data = data,
                                    .private_data_len = (uint8_t)message_put(&conn->mine, data),
                                    .responder_resources = reads,
                                    .initiator_depth = reads,
                                    .retry_count = RETRIES,
                                    .rnr_retry_count = 0,
                                    .qp_num = conn->my_qpn};
}

void conn_refuse(struct rdma_cm_id *id, VIP_RETURN code)
{
    uint8_t data[MESSAGE_MAX];
    size_t len =
        message_put(&(struct message){.type = MESSAGE_REFUSAL, .code = (uint8_t)code}, data);

    rdma_reject(id, data, (uint8_t)len);
}

/* ---- the queue pair ---- */

/* rdma_cm takes every connection for a reliable one; the difference is left out here. */
static int mask_for(const struct vi *vi, int mask)
{
    if (vi->reliable)
        return mask;
    return mask & ~(IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER | IBV_QP_TIMEOUT |
                    IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC);
}

int conn_move_qp(struct conn *conn, enum ibv_qp_state state)
{
    struct ibv_qp_attr attr = {.qp_state = state};
    int mask;

    if (rdma_init_qp_attr(conn->id, &attr, &mask))
        return -errno;
    attr.max_dest_rd_atomic = conn->mine.reads;
    attr.max_rd_atomic =
        conn->theirs.reads < conn->mine.reads ? conn->theirs.reads : conn->mine.reads;
    attr.rnr_retry = 0; /* nobody has posted a receive: that breaks the connection at once */
    return -ibv_modify_qp(conn->vi->qp, &attr, mask_for(conn->vi, mask));
}

static int ready_qp(struct conn *conn)
{
    int error = conn_move_qp(conn, IBV_QPS_RTR);

    return error ? error : conn_move_qp(conn, IBV_QPS_RTS);
}

int conn_accept(struct conn *conn)
{
    uint8_t data[MESSAGE_MAX];

    conn_describe(conn);
    conn->mine.type = MESSAGE_ANSWER;
    conn->mine.from.name_len = conn->mine.to.name_len = 0;
    int error = ready_qp(conn);
    if (error)
        return error;
    struct rdma_conn_param params = params_of(conn, data);
    return rdma_accept(conn->id, &params) ? -errno : 0;
}

/* Both sides have agreed. */
static void connected(struct conn *conn)
{
    struct vi *vi = conn->vi;

    if (!vi || conn->over)
        return;
    vi->confirm_address = conn->theirs.confirm_address;
    vi->confirm_rkey = conn->theirs.confirm_rkey;
    vi->may_read = conn->theirs.read;
    vi->left = false;
    vi_set_state(vi, VIP_STATE_CONNECTED);
    conn_finish(conn, VIP_SUCCESS);
}

/* ---- asking ---- */

int cm_ask(struct conn *conn)
{
    struct vip_nic *nic = conn->head.nic;
    struct sockaddr_storage from, to;
    uint16_t port = conn->role == ROLE_REPORT ? conn->theirs.report_port
                                              : address_port(&conn->remote, conn->probe);
    bool bound = nic->address.host_len == conn->remote.host_len &&
                 address_is_loopback(&conn->remote) == address_is_loopback(&nic->address);

    if (rdma_create_id(nic->cm, &conn->id, conn, RDMA_PS_TCP)) {
        conn->id = NULL;
        return -errno;
    }
    address_socket(&nic->address, 0, &from);
    address_socket(&conn->remote, port, &to);
    return rdma_resolve_addr(conn->id, bound ? (struct sockaddr *)&from : NULL,
                             (struct sockaddr *)&to, RESOLVE_MS)
               ? -errno
               : 0;
}

static bool is_our_device(const struct vip_nic *nic, const struct rdma_cm_id *id)
{
    return !id->verbs || !strcmp(ibv_get_device_name(id->verbs->device), nic->attributes.Name);
}

static void connect_now(struct conn *conn)
{
    uint8_t data[MESSAGE_MAX];
    struct rdma_conn_param params = params_of(conn, data);

    if (!is_our_device(conn->head.nic, conn->id))
        conn_finish(conn, VIP_NOT_REACHABLE);
    else if (rdma_connect(conn->id, &params))
        conn_finish(conn, VIP_ERROR_RESOURCE);
}

static void on_response(struct conn *conn, const struct rdma_cm_event *event)
{
    const struct rdma_conn_param *params = &event->param.conn;

    if (!conn->vi || conn->over)
        return;
    conn->their_qpn = params->qp_num;
    if (!message_get(params->private_data, params->private_data_len, &conn->theirs) ||
        conn->theirs.type != MESSAGE_ANSWER || ready_qp(conn) || rdma_establish(conn->id))
        conn_finish(conn, VIP_ERROR_RESOURCE);
    else
        connected(conn);
}

enum { NOBODY_LISTENS = 8, STALE_CONNECTION = 10, STALE_TRIES = 8 }; /* of the CM's REJ */

/* A refusal says why. One without words comes from where nobody listens, or from a process's end.
 */
static VIP_RETURN reason_of(const struct rdma_cm_event *event)
{
    const struct rdma_conn_param *params = &event->param.conn;
    struct message message;

    if (params->private_data &&
        message_get(params->private_data, params->private_data_len, &message) &&
        message.type == MESSAGE_REFUSAL)
        return (VIP_RETURN)message.code;
    return event->status == NOBODY_LISTENS ? VIP_NO_MATCH : VIP_TIMEOUT;
}

/*
 * The other side has not heard of the end of this queue pair's last connection, and takes the
 * request for a part of that. Now it ends it.
 */
static bool comes_too_early(struct conn *conn, const struct rdma_cm_event *event)
{
    return event->status == STALE_CONNECTION && conn->stale++ < STALE_TRIES;
}

/* Returns the identifier, which can't be used again. */
static struct rdma_cm_id *on_rejected(struct conn *conn, const struct rdma_cm_event *event)
{
    struct rdma_cm_id *used = conn->id;
    VIP_RETURN reason = reason_of(event);
    bool again = comes_too_early(conn, event);

    if (conn->role == ROLE_SERVER || (conn->role == ROLE_REPORT && !again) || conn->answered ||
        conn->over) {
        conn_finish(conn, VIP_TIMEOUT);
        return NULL;
    }
    conn->id = NULL;
    if (!again && conn->role == ROLE_PEER)
        peer_refused(conn, reason);
    else if (!again && (reason != VIP_NO_MATCH || ++conn->probe == PROBES))
        conn_finish(conn, reason);
    else if (cm_ask(conn))
        conn_finish(conn, VIP_NOT_REACHABLE);
    return used;
}

/* ---- requests that arrive ---- */

static void fill_request(struct conn *conn, const struct rdma_cm_event *event)
{
    conn->id = event->id;
    conn->their_qpn = event->param.conn.qp_num;
    address_host(rdma_get_local_addr(event->id), &conn->local);
    address_host(rdma_get_peer_addr(event->id), &conn->remote);
    conn->local.name_len = conn->theirs.to.name_len;
    memcpy(conn->local.name, conn->theirs.to.name, DISCRIMINATOR_MAX);
    conn->remote.name_len = conn->theirs.from.name_len;
    memcpy(conn->remote.name, conn->theirs.from.name, DISCRIMINATOR_MAX);
}

/* Another side was refused something by our NIC, and says what. */
static void on_report(struct vip_nic *nic, const struct message *message)
{
    for (struct head *head = nic->vis; head; head = head->next) {
        struct vi *vi = (struct vi *)head;

        if (vi->qp->qp_num == message->max_transfer && message->code <= VIP_ERROR_CATASTROPHIC)
            raise_error(nic, (VIP_ERROR_CODE)message->code, vi, NULL, NULL, 0);
    }
}

/* The peer that was asked for goes on with the identifier of the request. */
static void take_over(struct conn *conn, struct conn *fresh)
{
    conn->id = fresh->id;
    conn->id->context = conn;
    conn->theirs = fresh->theirs;
    conn->their_qpn = fresh->their_qpn;
    conn->answered = true;
    if (conn_accept(conn))
        conn_finish(conn, VIP_ERROR_RESOURCE);
}

/* Returns the identifier, if nobody wants it. */
static struct rdma_cm_id *on_peer(struct vip_nic *nic, struct conn *fresh)
{
    struct conn *conn = NULL;
    struct rdma_cm_id *id = fresh->id;
    VIP_RETURN code = peer_offer(nic, fresh, &conn);

    if (code) {
        conn_refuse(id, code);
        if (conn)
            conn_finish(conn, code);
    } else {
        take_over(conn, fresh);
        id = NULL;
    }
    list_remove(&nic->conns, &fresh->head);
    pool_give(fresh);
    return id;
}

static struct rdma_cm_id *on_request(struct vip_nic *nic, const struct rdma_cm_event *event)
{
    const struct rdma_conn_param *params = &event->param.conn;
    struct message message = {0};
    struct conn *conn = NULL;

    if (message_get(params->private_data, params->private_data_len, &message) &&
        (message.type == MESSAGE_CLIENT || message.type == MESSAGE_PEER))
        conn = conn_new(nic, ROLE_SERVER, NULL);
    else if (message.type == MESSAGE_REPORT)
        on_report(nic, &message);
    if (!conn) {
        conn_refuse(event->id, VIP_NO_MATCH);
        return event->id;
    }
    conn->theirs = message;
    fill_request(conn, event);
    event->id->context = conn;
    if (message.type == MESSAGE_PEER)
        return on_peer(nic, conn);
    if (server_offer(nic, conn))
        return NULL;
    conn_refuse(event->id, VIP_NO_MATCH);
    list_remove(&nic->conns, &conn->head);
    pool_give(conn);
    return event->id;
}

/*
 * Its last acknowledgement may come behind the news that it left, by another way: what is under
 * way has a moment to be found complete.
 */
static void peer_left(struct conn *conn)
{
    struct vi *vi = conn->vi;

    if (!vi)
        return;
    vi->left = true;
    if (vi->reliable && !queue_is_done(&vi->send))
        conn->leave_at = clock_ns() + (int64_t)GRACE_MS * 1000000;
    else
        vi_break(vi, 0);
}

/* ---- events ---- */

static struct rdma_cm_id *on_conn_event(struct conn *conn, const struct rdma_cm_event *event)
{
    switch (event->event) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
        if (rdma_resolve_route(conn->id, RESOLVE_MS))
            conn_finish(conn, VIP_NOT_REACHABLE);
        break;
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
        connect_now(conn);
        break;
    case RDMA_CM_EVENT_ADDR_ERROR:
    case RDMA_CM_EVENT_ROUTE_ERROR:
        conn_finish(conn, VIP_NOT_REACHABLE);
        break;
    case RDMA_CM_EVENT_CONNECT_RESPONSE:
        on_response(conn, event);
        break;
    case RDMA_CM_EVENT_ESTABLISHED:
        connected(conn);
        break;
    case RDMA_CM_EVENT_REJECTED:
        return on_rejected(conn, event);
    case RDMA_CM_EVENT_UNREACHABLE:
    case RDMA_CM_EVENT_CONNECT_ERROR:
        conn_finish(conn,
                    event->event == RDMA_CM_EVENT_UNREACHABLE ? VIP_TIMEOUT : VIP_ERROR_RESOURCE);
        break;
    case RDMA_CM_EVENT_DISCONNECTED:
        conn_finish(conn, VIP_TIMEOUT);
        peer_left(conn);
        break;
    default:
        break;
    }
    return NULL;
}

/* What must be destroyed afterwards. */
static struct rdma_cm_id *on_event(struct vip_nic *nic, const struct rdma_cm_event *event)
{
    if (event->event == RDMA_CM_EVENT_CONNECT_REQUEST)
        return on_request(nic, event);
    if (event->event == RDMA_CM_EVENT_DEVICE_REMOVAL)
        raise_error(nic, VIP_ERROR_CATASTROPHIC, NULL, NULL, NULL, 0);
    struct conn *conn = event->id->context;
    return conn && conn->id == event->id ? on_conn_event(conn, event) : NULL;
}

/* librdmacm notes in an identifier what was asked for when the answer may be there already. */
static void read_cm(struct vip_nic *nic)
{
    struct rdma_cm_event *event;

    pthread_mutex_lock(&nic->lock);
    if (rdma_get_cm_event(nic->cm, &event)) {
        pthread_mutex_unlock(&nic->lock);
        return;
    }
    struct rdma_cm_id *used = on_event(nic, event);
    pthread_mutex_unlock(&nic->lock);
    rdma_ack_cm_event(event);
    if (used)
        rdma_destroy_id(used);
}

/* ---- the device's own events ---- */

static struct vi *vi_with(struct vip_nic *nic, const struct ibv_qp *qp)
{
    for (struct head *head = nic->vis; head; head = head->next) {
        if (((struct vi *)head)->qp == qp)
            return (struct vi *)head;
    }
    return NULL;
}

static void on_qp_event(struct vip_nic *nic, const struct ibv_async_event *event)
{
    struct vi *vi = vi_with(nic, event->element.qp);

    if (!vi)
        return;
    vi_break(vi, 0);
    /* The connection manager may have heard of it before. */
    if (event->event_type == IBV_EVENT_QP_FATAL && vi_state(vi) == VIP_STATE_ERROR)
        raise_error(nic, VIP_ERROR_RDMA_TRANSPORT, vi, NULL, NULL, 0);
}

static void on_async_event(struct vip_nic *nic, const struct ibv_async_event *event)
{
    struct cq *cq;

    switch (event->event_type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
        on_qp_event(nic, event);
        break;
    case IBV_EVENT_CQ_ERR:
        cq = event->element.cq->cq_context;
        raise_error(nic, VIP_ERROR_CATASTROPHIC, cq->only ? cq->only->vi : NULL,
                    cq->only ? NULL : cq, NULL, 0);
        break;
    case IBV_EVENT_DEVICE_FATAL:
        raise_error(nic, VIP_ERROR_CATASTROPHIC, NULL, NULL, NULL, 0);
        break;
    default:
        break;
    }
}

static void read_async(struct vip_nic *nic)
{
    struct ibv_async_event event;

    while (!ibv_get_async_event(nic->verbs, &event)) {
        pthread_mutex_lock(&nic->lock);
        on_async_event(nic, &event);
        pthread_mutex_unlock(&nic->lock);
        ibv_ack_async_event(&event);
    }
}

/* ---- VIs that broke ---- */

/* Tells the other side what its own NIC keeps to itself. */
static void send_report(struct vip_nic *nic, const struct conn *to, uint8_t what)
{
    struct conn *conn = to->theirs.report_port ? conn_new(nic, ROLE_REPORT, NULL) : NULL;

    if (!conn)
        return;
    conn->remote = to->remote;
    conn->theirs.report_port = to->theirs.report_port;
    conn->my_qpn = to->my_qpn;
    conn->mine = (struct message){
        .type = MESSAGE_REPORT, .code = (uint8_t)(what - 1), .max_transfer = to->their_qpn};
    conn->deadline = clock_ns() + (int64_t)REPORT_MS * 1000000;
    if (cm_ask(conn))
        conn_finish(conn, VIP_NOT_REACHABLE);
}

static void deal_with_broken(struct vip_nic *nic)
{
    for (struct head *head = nic->vis; head; head = head->next) {
        struct vi *vi = (struct vi *)head;

        if (!atomic_exchange(&vi->broken, false) || !vi->conn)
            continue;
        if (vi->report_what && vi->report_what != REPORTED) {
            send_report(nic, vi->conn, vi->report_what);
            vi->report_what = REPORTED;
        }
        rdma_disconnect(vi->conn->id);
    }
}

static struct conn *spent_report(struct vip_nic *nic, int64_t now)
{
    for (struct head *head = nic->conns; head; head = head->next) {
        struct conn *conn = (struct conn *)head;

        if (conn->role == ROLE_REPORT && (conn->over || now > conn->deadline))
            return conn;
    }
    return NULL;
}

/* Where the other side left some time ago. When to come again. */
static int64_t follow_those_who_left(struct vip_nic *nic, int64_t now)
{
    int64_t next = INT64_MAX;

    for (struct head *head = nic->conns; head; head = head->next) {
        struct conn *conn = (struct conn *)head;

        if (!conn->vi || !conn->leave_at)
            continue;
        if (now >= conn->leave_at) {
            conn->leave_at = 0;
            vi_break(conn->vi, 0);
        } else if (conn->leave_at < next) {
            next = conn->leave_at;
        }
    }
    return next;
}

/* When to come again. */
static int64_t housekeeping(struct vip_nic *nic)
{
    int64_t now = clock_ns();

    for (;;) {
        pthread_mutex_lock(&nic->lock);
        int64_t leave = follow_those_who_left(nic, now);
        deal_with_broken(nic);
        int64_t next = peers_progress(nic, now);
        next = leave < next ? leave : next;
        struct conn *spent = spent_report(nic, now);
        pthread_mutex_unlock(&nic->lock);
        if (!spent)
            return next;
        conn_end(spent);
    }
}

static void *run(void *arg)
{
    struct vip_nic *nic = arg;
    uint64_t count;

    while (!atomic_load(&nic->closing)) {
        struct pollfd fds[] = {{.fd = nic->cm->fd, .events = POLLIN},
                               {.fd = nic->verbs->async_fd, .events = POLLIN},
                               {.fd = nic->cm_wake, .events = POLLIN}};

        if (poll(fds, 3, remaining_ms(housekeeping(nic))) <= 0)
            continue;
        if (fds[2].revents)
            (void)!read(nic->cm_wake, &count, sizeof(count));
        if (fds[1].revents)
            read_async(nic);
        if (fds[0].revents)
            read_cm(nic);
    }
    return NULL;
}

void cm_wake(struct vip_nic *nic)
{
    uint64_t one = 1;

    (void)!write(nic->cm_wake, &one, sizeof(one));
}

/* ---- listening ---- */

static int listen_at(struct vip_nic *nic, const struct address *at, uint16_t port)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    struct sockaddr_storage where;
    int error = -ENOMEM;

    if (!listener || rdma_create_id(nic->cm, &listener->id, NULL, RDMA_PS_TCP))
        goto no_id;
    address_socket(at, port, &where);
    if (rdma_bind_addr(listener->id, (struct sockaddr *)&where))
        error = -errno;
    else if (!is_our_device(nic, listener->id))
        error = -EADDRNOTAVAIL;
    else
        error = rdma_listen(listener->id, BACKLOG) ? -errno : 0;
    if (error) {
        rdma_destroy_id(listener->id);
        goto no_id;
    }
    listener->at = *at;
    listener->port = port;
    listener->next = nic->listeners;
    nic->listeners = listener;
    return 0;
no_id:
    free(listener);
    return error;
}

/* Listeners stay: who asks while nobody waits gets an answer. */
int cm_listen(struct vip_nic *nic, const struct address *at, int *probe_out)
{
    int error = -EADDRINUSE;

    for (int probe = 0; probe < PROBES && error == -EADDRINUSE; probe++) {
        uint16_t port = address_port(at, probe);

        *probe_out = probe;
        for (struct listener *listener = nic->listeners; listener; listener = listener->next) {
            if (listener->port == port && address_same_host(&listener->at, at))
                return 0;
        }
        error = listen_at(nic, at, port);
    }
    return error;
}

/* ---- with the NIC ---- */

int cm_init(struct vip_nic *nic)
{
    nic->cm_wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    nic->cm = rdma_create_event_channel();
    int error = nic->cm_wake < 0 || !nic->cm ? -ENOMEM : 0;
    /* An event that poll() has seen goes with its identifier, if that is destroyed first. */
    if (!error)
        error = set_nonblocking(nic->cm->fd);
    if (!error)
        error = thread_start(&nic->cm_thread, run, nic);
    if (!error)
        return 0;
    if (nic->cm)
        rdma_destroy_event_channel(nic->cm);
    if (nic->cm_wake >= 0)
        close(nic->cm_wake);
    return error;
}

void cm_stop(struct vip_nic *nic)
{
    atomic_store(&nic->closing, true);
    cm_wake(nic);
    pthread_join(nic->cm_thread, NULL);
}

void cm_fini(struct vip_nic *nic)
{
    while (nic->listeners) {
        struct listener *listener = nic->listeners;

        nic->listeners = listener->next;
        rdma_destroy_id(listener->id);
        free(listener);
    }
    if (nic->report_id)
        rdma_destroy_id(nic->report_id);
    rdma_destroy_event_channel(nic->cm);
    close(nic->cm_wake);
}
