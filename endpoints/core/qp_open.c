/* SPDX-License-Identifier: MIT */
/*
 * XRC_RECV queue pairs with several handles (ibv_open_qp(3)): each handle is a struct qp of its
 * own, in whichever context it was opened, that passes all on to the one that is connected. When
 * the creator's handle goes first, the next one takes the queue pair over.
 */
#include "core/state.h"
#include "core/xrcd.h"

void qp_enter(struct qp *qp, struct qp *real)
{
    qp->real = real;
    qp->opener_next = real->openers;
    real->openers = qp;
}

/* The queue pair is that opener's now: its context, its domain. */
static void adopt(struct qp *real, const struct qp *opener)
{
    real->xrcd->users--;
    real->xrcd = opener->xrcd;
    real->xrcd->users++;
    real->context = opener->context;
}

void qp_leave(struct qp *qp)
{
    struct qp *real = qp->real, **at = &real->openers;

    while (*at != qp)
        at = &(*at)->opener_next;
    *at = qp->opener_next;
    if (real->disowned && real->openers)
        adopt(real, real->openers);
}

void qp_disown(struct qp *qp)
{
    qp->disowned = true;
    adopt(qp, qp->openers);
}

void qp_event(struct qp *qp, enum ibv_event_type type)
{
    if (!qp->disowned)
        event_async(qp->context, type, qp->user_handle, &qp->events);
    for (struct qp *each = qp->openers; each; each = each->opener_next)
        event_async(each->context, type, each->user_handle, &each->events);
}
