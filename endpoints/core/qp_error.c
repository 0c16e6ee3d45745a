/* SPDX-License-Identifier: MIT */
/*
 * The error state (IBTA 10.3.1.8, 9.9.3): the send queue is flushed where the error is found; the
 * receive queue once no initiator can take from it any more, behind what was received before.
 *
 *   data path finds an error --> qp_fail(): state ERR, send queue flushed, engine woken
 *                                   |
 *   engine or modify_qp --> qp_enter_error(): quiesce initiators, flush receives, events
 */
#define _GNU_SOURCE
#include "core/requester.h"
#include "core/state.h"
#include "core/thread.h"
#include "link/link.h"

static _Atomic bool due;

void qp_fail(struct qp *qp, int event)
{
    int none = 0;

    if (qp->type == QPT_XRC_SRQ) /* is none that could fail */
        return;
    if (event)
        atomic_compare_exchange_strong(&qp->error_event, &none, event);
    atomic_store(&qp->error_due, true);
    atomic_store(&due, true);
    thread_wake();
}

void qp_established(struct qp *qp)
{
    if (atomic_exchange(&qp->established, true))
        return;
    atomic_store(&qp->established_due, true);
    atomic_store(&due, true);
    thread_wake();
}

static void flush_receives(struct qp *qp)
{
    struct completion completion = {0};
    uint64_t wr_id;

    if (!qp_has_rq(qp))
        return;
    link_release_held(qp);
    cq_drain(qp->recv_cq);
    while (rq_take_next(&qp->rq, &wr_id)) {
        completion.wc.wr_id = wr_id;
        completion.wc.status = IBV_WC_WR_FLUSH_ERR;
        completion.wc.opcode = IBV_WC_RECV;
        completion.wc.qp_num = qp->qpn;
        cq_push_last(qp->recv_cq, qp, &completion);
    }
}

/* IBTA 11.6.3.4: no receive of the SRQ will be taken for this queue pair any more. */
static void last_wqe(struct qp *qp)
{
    if (!qp->srq || qp->last_wqe_sent)
        return;
    qp->last_wqe_sent = true;
    event_async(qp->context, IBV_EVENT_QP_LAST_WQE_REACHED, qp->user_handle, &qp->events);
}

void qp_enter_error(struct qp *qp)
{
    spin_lock_word(&qp->pub->busy);
    atomic_store(&qp->state, IBV_QPS_ERR);
    qp->attr.qp_state = IBV_QPS_ERR;
    qp_publish(qp);
    requester_flush(qp);
    shm_detach(qp);
    spin_unlock_word(&qp->pub->busy);
    shm_quiesce(qp);
    flush_receives(qp);
    last_wqe(qp);
}

static void finish(struct qp *qp)
{
    int event = atomic_exchange(&qp->error_event, 0);

    if (qp_state(qp) == IBV_QPS_RESET)
        return;
    qp_enter_error(qp);
    if (event)
        qp_event(qp, (enum ibv_event_type)(event - 1));
}

void qp_fail_all(struct context *context)
{
    for (uint32_t i = 1; i < qp_high(); i++) {
        struct qp *qp = qp_at(i);

        if (!qp || qp->context != context || qp->type == QPT_XRC_SRQ)
            continue;
        if (qp_state(qp) != IBV_QPS_RESET && qp_state(qp) != IBV_QPS_ERR)
            qp_enter_error(qp);
    }
}

void qp_finish_errors(void)
{
    if (!atomic_exchange(&due, false))
        return;
    for (uint32_t i = 1; i < qp_high(); i++) {
        struct qp *qp = qp_at(i);

        if (!qp)
            continue;
        if (atomic_exchange(&qp->established_due, false))
            qp_event(qp, IBV_EVENT_COMM_EST);
        if (atomic_exchange(&qp->error_due, false))
            finish(qp);
    }
}
