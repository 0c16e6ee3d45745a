/* SPDX-License-Identifier: MIT */
/* The same-host link as a whole: what core and link.c ask of it. */
#include "core/process.h"
#include "link/link.h"
#include "link/shm/shm.h"

int shm_open_link(void)
{
    int error = peer_open();

    return error ? error : guest_open();
}

/* Ask for what a send will need; the first one looks again. pub->busy held. */
static void ask_early(struct qp *qp)
{
    enum stall before = qp->stall;

    target_reach(qp, &qp->target);
    qp->stall = before;
}

void shm_prepare(struct qp *qp)
{
    peer_reach(qp->attr.dest_qp_num >> LIMIT_QP_BITS);
    spin_lock_word(&qp->pub->busy);
    ask_early(qp);
    spin_unlock_word(&qp->pub->busy);
}

void shm_peer_came(uint32_t slot)
{
    for (uint32_t i = 1; i < qp_high(); i++) {
        struct qp *qp = qp_at(i);

        if (!qp || !qp_is_connected_type(qp) || qp->type == IBV_QPT_XRC_RECV || qp->link)
            continue;
        spin_lock_word(&qp->pub->busy);
        enum ibv_qp_state state = qp_state(qp);
        if ((state == IBV_QPS_RTR || state == IBV_QPS_RTS) &&
            qp->attr.dest_qp_num >> LIMIT_QP_BITS == slot)
            ask_early(qp);
        spin_unlock_word(&qp->pub->busy);
    }
}

/* What it has taken of the target's receives it still knows, should it come back to the same life.
 */
void shm_detach(struct qp *qp)
{
    receive_abandon(qp);
    qp->target.peer = NULL;
}

void shm_quiesce(struct qp *qp)
{
    /* Many may send to a UD queue pair or to an SRQ's; one to a connected one. */
    guest_quiesce(qp && qp_is_connected_type(qp) && !qp->srq ? qp->attr.dest_qp_num : 0);
}

void shm_progress(void)
{
    peer_progress();
    if (outbox_due()) {
        peer_flush();
        guest_flush();
    }
    mad_progress();
    shm_reclaim_due();
}

void shm_after_fork(void)
{
    guest_after_fork();
    peer_after_fork();
    mad_after_fork();
}
