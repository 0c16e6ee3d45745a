/* SPDX-License-Identifier: MIT */
/* Queue pairs: creation, destruction, the state machine, query. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/counters.h"
#include "core/cq_impl.h"
#include "core/process.h"
#include "core/requester.h"
#include "core/state.h"
#include "core/table.h"
#include "core/thread.h"
#include "core/xrcd.h"
#include "engine/datagram.h"
#include "link/link.h"

TABLE(qps, LIMIT_QP);

struct qp *qp_get(uint32_t handle)
{
    return table_get(&qps, handle);
}

struct qp *qp_at(uint32_t index)
{
    return table_get(&qps, index);
}

uint32_t qp_high(void)
{
    return qps.high;
}

struct context *qp_context(struct qp *qp)
{
    return qp->context;
}

uint32_t qp_number(struct qp *qp)
{
    return qp->qpn;
}

uint32_t qp_handle(struct qp *qp)
{
    return qp->index;
}

bool qp_is_for_programs(struct qp *qp)
{
    return qp->type != QPT_XRC_SRQ && !qp->disowned;
}

uint64_t qp_user_handle(struct qp *qp)
{
    return qp->user_handle;
}

struct cq *qp_send_cq(struct qp *qp)
{
    return qp->send_cq;
}

bool qp_has_datagrams_to_send(struct qp *qp)
{
    spin_lock_word(&qp->pub->busy);
    bool some = qp->type == IBV_QPT_UD && qp_state(qp) == IBV_QPS_RTS && qp->stall != STALL_NONE &&
                qp->sq_head != qp->sq_tail;
    spin_unlock_word(&qp->pub->busy);
    return some;
}

struct cq *qp_recv_cq(struct qp *qp)
{
    return qp->recv_cq;
}

static int check_init(const struct qp_init *init)
{
    const struct ibv_qp_cap *cap = &init->cap;

    if (init->type == IBV_QPT_XRC_RECV)
        return init->xrcd ? 0 : -EINVAL;
    if (init->type != IBV_QPT_RC && init->type != IBV_QPT_UC && init->type != IBV_QPT_UD &&
        init->type != IBV_QPT_XRC_SEND)
        return -EOPNOTSUPP;
    if (cap->max_send_wr > LIMIT_QP_WR || cap->max_send_sge > LIMIT_SGE ||
        cap->max_inline_data > LIMIT_INLINE)
        return -EINVAL;
    if (!init->srq && (cap->max_recv_wr > LIMIT_QP_WR || cap->max_recv_sge > LIMIT_SGE))
        return -EINVAL;
    if (!init->pd || !init->send_cq || (!init->recv_cq && init->type != IBV_QPT_XRC_SEND))
        return -EINVAL;
    if (init->srq && (init->type == IBV_QPT_UC || init->srq->xrc)) /* IBTA 10.2.9, A14 */
        return -EINVAL;
    return 0;
}

/* Publish what initiators need; a new gen makes them look again. pub->busy held or not yet shared.
 */
void qp_publish(struct qp *qp)
{
    struct pub_qp *pub = qp->pub;
    enum ibv_qp_state state = qp_state(qp);
    bool receives = !qp->peer_gone && (state == IBV_QPS_RTR || state == IBV_QPS_RTS ||
                                       state == IBV_QPS_SQD || state == IBV_QPS_SQE);
    uint32_t gen = atomic_load_explicit(&pub->gen, memory_order_relaxed);

    if (receives != qp->marked && qp_is_connected_type(qp)) {
        qp->marked = receives;
        process_mark_qp(qp->index, receives);
    }
    pub->state = (uint8_t)state;
    pub->min_rnr_timer = qp->attr.min_rnr_timer;
    pub->dest_qpn = qp->attr.dest_qp_num;
    pub->qkey = qp->attr.qkey;
    pub->access = (uint32_t)qp->attr.qp_access_flags;
    pub->rq_psn = qp->attr.rq_psn;
    pub->path_mtu = 128u << qp->attr.path_mtu;
    pub->rd_atomic = qp->attr.max_dest_rd_atomic;
    /* Pairs with initiators, who hold their busy word when they load gen: see quiesce(). */
    atomic_store_explicit(&pub->gen, ((gen + 2) & ~1u) | receives, memory_order_seq_cst);
}

static void publish_fixed(struct qp *qp)
{
    struct pub_qp *pub = qp->pub;
    struct rq *rq = qp_rq(qp);

    pub->type = (uint8_t)qp->type;
    pub->nic = (uint8_t)qp->context->nic->index;
    pub->pd = qp->pd;
    pub->domain = qp->xrcd ? qp->xrcd->number : 0;
    pub->recv_cq = qp->recv_cq ? qp->recv_cq->handle : 0;
    pub->srq = qp->srq ? qp->srq->handle + 1 : 0;
    pub->rq_ring = rq->pub ? arena_offset(rq->pub) : 0;
}

/* A new life: completions of the one before are recognised by the old cookie and dropped. */
static void renew_cookie(struct qp *qp)
{
    qp->pub->cookie = (((qp->pub->cookie >> LIMIT_QP_BITS) + 1) << LIMIT_QP_BITS) | qp->index;
}

/* A receive queue of its own, and room for the targets of one that has many. */
static int alloc_receive(struct qp *qp, const struct qp_init *init)
{
    bool xrc = init->type == IBV_QPT_XRC_SEND, ud = init->type == IBV_QPT_UD;
    int error = 0;

    if (init->srq || xrc) {
        qp->cap.max_recv_wr = qp->cap.max_recv_sge = 0;
    } else {
        error =
            rq_init(&qp->rq, init->cap.max_recv_wr, init->cap.max_recv_sge, init->pd->handle, ud);
        qp->cap.max_recv_sge = qp->rq.max_sge;
    }
    if (error || !(ud || xrc))
        return error;
    qp->ud = calloc(UD_TARGETS, sizeof(*qp->ud));
    return qp->ud ? 0 : -ENOMEM;
}

static int alloc_queues(struct qp *qp, const struct qp_init *init)
{
    uint32_t places = 1;

    if (init->type == IBV_QPT_XRC_RECV || init->type == QPT_XRC_SRQ)
        return 0; /* neither queue */

    while (places < init->cap.max_send_wr)
        places *= 2;
    qp->sq_mask = places - 1;
    qp->cap = init->cap;
    if (!qp->cap.max_send_sge)
        qp->cap.max_send_sge = 1;
    /* As much as the elements take: what soft-RoCE grants, and some programs use unasked. */
    if (qp->cap.max_inline_data < qp->cap.max_send_sge * sizeof(struct ibv_sge))
        qp->cap.max_inline_data = qp->cap.max_send_sge * (uint32_t)sizeof(struct ibv_sge);
    qp->sq_entry_size = (sizeof(struct sq_entry) + qp->cap.max_send_sge * sizeof(struct ibv_sge) +
                         qp->cap.max_inline_data + 15) &
                        ~(size_t)15;
    return alloc_receive(qp, init);
}

static void qp_free(struct qp *qp)
{
    rq_fini(&qp->rq);
    free(qp->ud);
    free(qp->hold);
    free(qp->capture);
    free(qp->sq_entries);
    free(qp);
}

static enum detour detour_of(enum ibv_qp_type type)
{
    if (config_get()->pcap[0])
        return DETOUR_CAPTURE;
    if (type == IBV_QPT_UD)
        return DETOUR_DATAGRAM;
    return type == IBV_QPT_RC || type == IBV_QPT_UC ? DETOUR_NONE : DETOUR_XRC;
}

static struct qp *qp_new(const struct qp_init *init)
{
    struct qp *qp = aligned_alloc(64, (sizeof(*qp) + 63) / 64 * 64);

    if (!qp)
        return NULL;
    memset(qp, 0, sizeof(*qp));
    qp->type = init->type;
    qp->reliable = init->type != IBV_QPT_UC && init->type != IBV_QPT_UD;
    qp->sq_sig_all = init->sq_sig_all;
    qp->detour = (uint8_t)detour_of(init->type);
    qp->pd = init->pd ? init->pd->handle : 0;
    qp->pd_object = init->pd;
    qp->xrcd = init->xrcd;
    qp->context = init->pd ? init->pd->context : init->xrcd->context;
    qp->send_cq = init->send_cq;
    qp->recv_cq = init->recv_cq;
    qp->srq = init->srq;
    qp->user_handle = init->user_handle;
    if (alloc_queues(qp, init) == 0 && (qp->index = table_take(&qps)))
        return qp;
    qp_free(qp);
    return NULL;
}

static void count_users(const struct qp *qp, int step)
{
    if (qp->pd_object)
        qp->pd_object->users += (unsigned)step;
    if (qp->xrcd)
        qp->xrcd->users += (unsigned)step;
    if (qp->send_cq)
        qp->send_cq->users += (unsigned)step;
    if (qp->recv_cq)
        qp->recv_cq->users += (unsigned)step;
    if (qp->srq && !qp->srq->xrc)
        qp->srq->users += (unsigned)step;
}

/* From now on it is found by its handle, and by its number. */
static void introduce(struct qp *qp, enum ibv_qp_state state)
{
    qp->pub = arena_qp(qp->index);
    qp->qpn = qp->shown_qpn = process_slot() << LIMIT_QP_BITS | qp->index;
    atomic_store(&qp->state, (uint8_t)state);
    qp->attr.qp_state = state;
    qp->attr.path_mtu = IBV_MTU_1024;
    renew_cookie(qp);
    publish_fixed(qp);
    qp_publish(qp);
    count_users(qp, 1);
    if (atomic_load(&arena_header()->qp_high) < qps.high)
        atomic_store(&arena_header()->qp_high, qps.high);
    table_set(&qps, qp->index, qp);
}

int qp_create(const struct qp_init *init, struct qp **qp_out, struct ibv_qp_cap *granted_out)
{
    int error = check_init(init);

    if (error)
        return error;
    struct qp *qp = qp_new(init);
    if (!qp)
        return -ENOMEM;
    introduce(qp, IBV_QPS_RESET);
    *granted_out = qp->cap;
    *qp_out = qp;
    return 0;
}

int qp_create_for_srq(struct srq *srq, struct cq *cq, struct xrcd *xrcd, struct qp **qp_out)
{
    struct qp_init init = {
        .type = QPT_XRC_SRQ, .pd = srq->pd, .xrcd = xrcd, .recv_cq = cq, .srq = srq};
    struct qp *qp = qp_new(&init);

    if (!qp)
        return -ENOMEM;
    srq->xrc = qp;
    introduce(qp, IBV_QPS_RTR);
    *qp_out = qp;
    return 0;
}

static void each_cq(struct qp *qp, void (*act)(struct cq *cq))
{
    if (qp->send_cq)
        act(qp->send_cq);
    if (qp->recv_cq)
        act(qp->recv_cq);
}

/* Stop everything: no initiator reaches it, no completion of it is left. */
static void stop(struct qp *qp)
{
    spin_lock_word(&qp->pub->busy);
    atomic_store(&qp->state, IBV_QPS_RESET);
    qp_publish(qp);
    requester_reset(qp);
    shm_detach(qp);
    spin_unlock_word(&qp->pub->busy);
    if (qp->link)
        qp->link->detach(qp);
    requester_leave_list(qp);
    shm_quiesce(qp);
    each_cq(qp, cq_drain);
    uint32_t cookie = qp->pub->cookie;
    renew_cookie(qp);
    if (qp->send_cq)
        cq_forget_qp(qp->send_cq, cookie);
    if (qp->recv_cq)
        cq_forget_qp(qp->recv_cq, cookie);
}

/* Pollers that found something are inside their CQ's lock. */
static void pass_through(struct cq *cq)
{
    spin_lock(&cq->lock);
    spin_unlock(&cq->lock);
}

/* Its handle is no more: unread events of it are withdrawn, the others counted. */
static uint32_t end_events(struct qp *qp)
{
    event_withdraw(qp->context, qp->user_handle, &qp->events);
    return qp->events.reported;
}

static void destroy(struct qp *qp, uint32_t *events_out)
{
    stop(qp);
    counters_retire(qp->pub);
    qp->pub->type = 0;
    *events_out = end_events(qp);
    table_set(&qps, qp->index, NULL);
    link_settle();
    each_cq(qp, pass_through);
    count_users(qp, -1);
    table_release(&qps, qp->index);
    qp_free(qp);
}

void qp_destroy_for_srq(struct qp *qp)
{
    uint32_t none;

    destroy(qp, &none);
}

int qp_destroy(struct qp *qp, uint32_t *events_out)
{
    struct qp *real = qp->real;
    uint32_t none;

    if (qp->mcast_count)
        return -EBUSY;
    if (qp->openers) {
        *events_out = end_events(qp);
        qp_disown(qp);
        return 0;
    }
    if (real)
        qp_leave(qp);
    destroy(qp, events_out);
    if (real && real->disowned && !real->openers)
        destroy(real, &none);
    return 0;
}

int qp_open(struct xrcd *xrcd, uint32_t qpn, uint64_t user_handle, struct qp **qp_out)
{
    struct qp *real = qpn >> LIMIT_QP_BITS == process_slot() ? qp_at(qpn & (LIMIT_QP - 1)) : NULL;
    struct qp_init init = {.type = IBV_QPT_XRC_RECV, .xrcd = xrcd, .user_handle = user_handle};

    if (!real || real->type != IBV_QPT_XRC_RECV || real->real || real->xrcd->number != xrcd->number)
        return -EINVAL;
    struct qp *qp = qp_new(&init);
    if (!qp)
        return -ENOMEM;
    introduce(qp, IBV_QPS_RESET);
    qp->qpn = real->qpn;
    qp_enter(qp, real);
    *qp_out = qp;
    return 0;
}

void qp_close_all(struct context *context)
{
    uint32_t events;

    for (uint32_t i = 1; i < qps.high; i++) {
        struct qp *qp = qp_at(i);

        if (!qp || qp->context != context || !qp_is_for_programs(qp))
            continue;
        mcast_detach_all(qp);
        qp_destroy(qp, &events);
    }
}

void qp_after_fork(void)
{
    table_clear(&qps);
}

/* ---- modify ---- */

static void take_connection(struct ibv_qp_attr *to, const struct ibv_qp_attr *from, int mask)
{
    if (mask & IBV_QP_AV)
        to->ah_attr = from->ah_attr;
    if (mask & IBV_QP_PATH_MTU)
        to->path_mtu = from->path_mtu;
    if (mask & IBV_QP_DEST_QPN)
        to->dest_qp_num = from->dest_qp_num & 0xffffff;
    if (mask & IBV_QP_RQ_PSN)
        to->rq_psn = from->rq_psn & 0xffffff;
    if (mask & IBV_QP_SQ_PSN)
        to->sq_psn = from->sq_psn & 0xffffff;
    if (mask & IBV_QP_MAX_QP_RD_ATOMIC)
        to->max_rd_atomic = from->max_rd_atomic;
    if (mask & IBV_QP_MAX_DEST_RD_ATOMIC)
        to->max_dest_rd_atomic = from->max_dest_rd_atomic;
    if (mask & IBV_QP_MIN_RNR_TIMER)
        to->min_rnr_timer = from->min_rnr_timer;
}

static void take_attr(struct ibv_qp_attr *to, const struct ibv_qp_attr *from, int mask)
{
    if (mask & IBV_QP_PKEY_INDEX)
        to->pkey_index = from->pkey_index;
    if (mask & IBV_QP_PORT)
        to->port_num = from->port_num;
    if (mask & IBV_QP_ACCESS_FLAGS)
        to->qp_access_flags = from->qp_access_flags;
    if (mask & IBV_QP_QKEY)
        to->qkey = from->qkey;
    if (mask & IBV_QP_TIMEOUT)
        to->timeout = from->timeout;
    if (mask & IBV_QP_RETRY_CNT)
        to->retry_cnt = from->retry_cnt;
    if (mask & IBV_QP_RNR_RETRY)
        to->rnr_retry = from->rnr_retry;
    if (mask & IBV_QP_EN_SQD_ASYNC_NOTIFY)
        to->en_sqd_async_notify = from->en_sqd_async_notify;
    take_connection(to, from, mask);
}

static int check_modify(struct qp *qp, const struct ibv_qp_attr *attr, int mask,
                        enum ibv_qp_state *next_out)
{
    enum ibv_qp_state now = qp_state(qp);
    struct ibv_device_attr limits;

    if ((mask & IBV_QP_CUR_STATE) && attr->cur_qp_state != now)
        return -EINVAL;
    enum ibv_qp_state next = mask & IBV_QP_STATE ? attr->qp_state : now;
    int error = qp_attr_check(qp->type, now, next, mask);
    if (error)
        return error;
    /* IBTA 10.3.1.5: what was begun ends before the queue goes on. */
    if (now == IBV_QPS_SQD && next == IBV_QPS_RTS && qp->sq_drained_due)
        return -EINVAL;
    device_query(qp->context->nic, &limits);
    *next_out = next;
    return qp_attr_values_check(attr, mask, &limits, qp->context->nic->gid_count);
}

static void to_reset(struct qp *qp)
{
    stop(qp);
    /* Threads that post meanwhile are refused, but they look at all this first. */
    spin_lock_word(&qp->pub->busy);
    if (qp_has_rq(qp))
        rq_reset(&qp->rq);
    if (qp->hold)
        qp->hold->taken = false;
    memset(&qp->attr, 0, sizeof(qp->attr));
    qp->attr.path_mtu = IBV_MTU_1024;
    qp->sq_tail = qp->sq_head = 0;
    atomic_store(&qp->sq_freed, 0);
    atomic_store(&qp->error_due, false);
    atomic_store(&qp->error_event, 0);
    qp->last_wqe_sent = false;
    qp->peer_gone = false;
    atomic_store(&qp->established, false);
    atomic_store(&qp->established_due, false);
    qp_publish(qp);
    spin_unlock_word(&qp->pub->busy);
}

/* Within and between the working states. The requester may go on at once afterwards. */
static void to_working(struct qp *qp, const struct ibv_qp_attr *attr, int mask,
                       enum ibv_qp_state next)
{
    spin_lock_word(&qp->pub->busy);
    enum ibv_qp_state before = qp_state(qp);
    take_attr(&qp->attr, attr, mask);
    if (qp->type == IBV_QPT_XRC_SEND) /* the receiver knows the queue pair at its end */
        qp->shown_qpn = qp->attr.dest_qp_num;
    atomic_store(&qp->state, (uint8_t)next);
    if (mask & IBV_QP_SQ_PSN)
        qp->sq_psn = qp->attr.sq_psn;
    if (next != before) {
        qp->sq_drained_due = next == IBV_QPS_SQD;
        /* It is asked for with each transition, not once for all. */
        if (!(mask & IBV_QP_EN_SQD_ASYNC_NOTIFY))
            qp->attr.en_sqd_async_notify = 0;
    }
    qp_publish(qp);
    if (qp->link)
        qp->link->modified(qp, before);
    spin_unlock_word(&qp->pub->busy);
    if ((next == IBV_QPS_RTR || before == IBV_QPS_RTR) && qp_is_connected_type(qp) &&
        qp->type != IBV_QPT_XRC_RECV && !qp->link)
        shm_prepare(qp);
    requester_start(qp);
}

int qp_modify(struct qp *qp, const struct ibv_qp_attr *attr, int mask)
{
    enum ibv_qp_state next;

    if (qp->real)
        qp = qp->real;
    int error = check_modify(qp, attr, mask, &next);
    if (!error && next == IBV_QPS_RTR && qp_state(qp) == IBV_QPS_INIT)
        error = link_choose(qp, attr);
    else if (!error && (mask & IBV_QP_AV) && qp->link)
        error = qp->link->attach(qp, attr);
    if (error)
        return error;
    if (next == IBV_QPS_RESET)
        to_reset(qp);
    else if (next == IBV_QPS_ERR)
        qp_enter_error(qp);
    else
        to_working(qp, attr, mask, next);
    return 0;
}

void qp_query(struct qp *qp, struct ibv_qp_attr *attr_out, struct ibv_qp_init_attr *init_out)
{
    if (qp->real)
        qp = qp->real;
    spin_lock_word(&qp->pub->busy);
    *attr_out = qp->attr;
    attr_out->qp_state = attr_out->cur_qp_state = qp_state(qp);
    attr_out->sq_psn = qp->sq_psn;
    attr_out->sq_draining = qp_state(qp) == IBV_QPS_SQD && qp->sq_drained_due;
    attr_out->path_mig_state = IBV_MIG_MIGRATED;
    attr_out->cap = qp->cap;
    spin_unlock_word(&qp->pub->busy);
    memset(init_out, 0, sizeof(*init_out));
    init_out->cap = qp->cap;
    init_out->qp_type = qp->type;
    init_out->sq_sig_all = qp->sq_sig_all;
}

/* ---- posting receives ---- */

int qp_post_recv(struct qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
    int error = 0;

    spin_lock(&qp->rq.lock);
    bool refused = !qp_has_rq(qp) || qp_state(qp) == IBV_QPS_RESET;
    for (; wr; wr = wr->next) {
        error = refused ? EINVAL : rq_post(&qp->rq, wr);
        if (error) {
            *bad_wr = wr;
            break;
        }
    }
    spin_unlock(&qp->rq.lock);
    if (qp_state(qp) == IBV_QPS_ERR)
        qp_fail(qp, 0); /* flushed behind what is being flushed already */
    return error;
}
