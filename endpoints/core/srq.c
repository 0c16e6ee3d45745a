/* SPDX-License-Identifier: MIT */
/* Shared receive queues (IBTA 10.2.9): a shared ring, a limit, and the events that go with it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/state.h"
#include "core/table.h"
#include "core/xrcd.h"

TABLE(srqs, LIMIT_SRQ);
static struct srq *list;

struct srq *srq_get(uint32_t handle)
{
    return table_get(&srqs, handle);
}

struct context *srq_context(struct srq *srq)
{
    return srq->context;
}

uint32_t srq_number(struct srq *srq)
{
    return srq->xrc ? srq->xrc->qpn : process_slot() << LIMIT_QP_BITS | srq->handle;
}

uint32_t srq_handle(struct srq *srq)
{
    return srq->handle;
}

struct srq *srq_list(void)
{
    return list;
}

static struct srq *srq_new(struct pd *pd, const struct srq_attr *attr)
{
    struct srq *srq = calloc(1, sizeof(*srq));

    if (!srq)
        return NULL;
    srq->handle = table_take(&srqs);
    if (srq->handle) {
        if (rq_init(&srq->rq, attr->max_wr, attr->max_sge, pd->handle, true) == 0)
            return srq;
        table_release(&srqs, srq->handle);
    }
    free(srq);
    return NULL;
}

int srq_create(struct pd *pd, const struct srq_attr *attr, uint64_t user_handle,
               struct srq **srq_out, struct srq_attr *granted_out)
{
    if (attr->max_wr == 0 || attr->max_wr > LIMIT_SRQ_WR || attr->max_sge > LIMIT_SGE)
        return -EINVAL;
    struct srq *srq = srq_new(pd, attr);
    if (!srq)
        return -ENOMEM;
    srq->pd = pd;
    srq->context = pd->context;
    srq->user_handle = user_handle;
    srq->max_wr = attr->max_wr;
    srq->max_sge = srq->rq.max_sge;
    pd->users++;
    srq->next = list;
    list = srq;
    table_set(&srqs, srq->handle, srq);
    *granted_out = (struct srq_attr){srq->max_wr, srq->max_sge, 0};
    *srq_out = srq;
    return 0;
}

int srq_create_xrc(struct pd *pd, const struct srq_attr *attr, struct xrcd *xrcd, struct cq *cq,
                   uint64_t user_handle, struct srq **srq_out, struct srq_attr *granted_out)
{
    struct srq *srq;
    uint32_t events;
    int error = srq_create(pd, attr, user_handle, &srq, granted_out);

    if (error)
        return error;
    error = qp_create_for_srq(srq, cq, xrcd, &srq->xrc);
    if (error)
        srq_destroy(srq, &events);
    else
        *srq_out = srq;
    return error;
}

/* Resizing keeps what is posted; growing beyond the room the ring was made with is refused
 * (-ENOMEM). */
static int resize(struct srq *srq, uint32_t max_wr)
{
    struct rq *rq = &srq->rq;
    int error = 0;

    if (max_wr == 0 || max_wr > LIMIT_SRQ_WR)
        return -EINVAL;
    spin_lock(&rq->lock);
    if (max_wr < rq_outstanding(rq))
        error = -EINVAL;
    else if (max_wr > rq->mask + 1)
        error = -ENOMEM;
    else
        srq->max_wr = rq->max_wr = max_wr;
    spin_unlock(&rq->lock);
    return error;
}

int srq_modify(struct srq *srq, unsigned mask, const struct srq_attr *attr)
{
    if (mask & ~(unsigned)(IBV_SRQ_MAX_WR | IBV_SRQ_LIMIT))
        return -EINVAL;
    uint32_t max_wr = mask & IBV_SRQ_MAX_WR ? attr->max_wr : srq->max_wr;
    if ((mask & IBV_SRQ_LIMIT) && attr->limit > max_wr)
        return -EINVAL;
    int error = mask & IBV_SRQ_MAX_WR ? resize(srq, max_wr) : 0;
    if (!error && (mask & IBV_SRQ_LIMIT)) {
        atomic_store(&srq->rq.pub->limit, attr->limit);
        srq_check_limits();
    }
    return error;
}

void srq_query(struct srq *srq, struct srq_attr *attr_out)
{
    attr_out->max_wr = srq->max_wr;
    attr_out->max_sge = srq->max_sge;
    attr_out->limit = atomic_load(&srq->rq.pub->limit);
}

/* IBTA 10.2.9.2: once the queue falls below the limit, one event, and the limit is disarmed. */
static void check_limit(struct srq *srq)
{
    struct rq *rq = &srq->rq;
    uint32_t limit = atomic_load(&rq->pub->limit);

    if (!limit || (uint32_t)(rq->tail - (uint32_t)atomic_load(rq->claim)) >= limit)
        return;
    atomic_store(&rq->pub->limit, 0);
    event_async(srq->context, IBV_EVENT_SRQ_LIMIT_REACHED, srq->user_handle, &srq->events);
}

void srq_check_limits(void)
{
    for (struct srq *srq = list; srq; srq = srq->next)
        check_limit(srq);
}

int srq_destroy(struct srq *srq, uint32_t *events_out)
{
    if (srq->users)
        return -EBUSY;
    if (srq->xrc)
        qp_destroy_for_srq(srq->xrc);
    struct srq **at = &list;
    while (*at != srq)
        at = &(*at)->next;
    *at = srq->next;
    event_withdraw(srq->context, srq->user_handle, &srq->events);
    *events_out = srq->events.reported;
    table_release(&srqs, srq->handle);
    rq_fini(&srq->rq);
    srq->pd->users--;
    free(srq);
    return 0;
}

void srq_close_all(struct context *context)
{
    uint32_t events;

    for (struct srq *srq = list, *next; srq; srq = next) {
        next = srq->next;
        if (srq->context == context)
            srq_destroy(srq, &events);
    }
}

void srq_after_fork(void)
{
    table_clear(&srqs);
    list = NULL;
}

int srq_post_recv(struct srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
    int error = 0;

    spin_lock(&srq->rq.lock);
    for (; wr; wr = wr->next) {
        error = rq_post(&srq->rq, wr);
        if (error) {
            *bad_wr = wr;
            break;
        }
    }
    spin_unlock(&srq->rq.lock);
    return error;
}
