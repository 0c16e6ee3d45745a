/* SPDX-License-Identifier: MIT */
/* The same-host link's table of operations. */
#include "core/process.h"
#include "link/link.h"
#include "link/shm/shm.h"

static int shm_open_link(void)
{
    int error = peer_open();

    return error ? error : guest_open();
}

/* Ask for the connection and the lane early; the first send looks again. */
static void shm_prepare(struct qp *qp)
{
    spin_lock_word(&qp->pub->busy);
    enum stall before = qp->stall;
    target_reach(qp, &qp->target);
    qp->stall = before;
    spin_unlock_word(&qp->pub->busy);
}

/* What it has taken of the target's receives it still knows, should it come back to the same life.
 */
static void shm_detach(struct qp *qp)
{
    receive_abandon(qp);
    qp->target.peer = NULL;
}

static void shm_quiesce(struct qp *qp)
{
    /* Many may send to a UD queue pair or to an SRQ's; one to a connected one. */
    guest_quiesce(qp && qp_is_connected_type(qp) && !qp->srq ? qp->attr.dest_qp_num : 0);
}

static void shm_progress(void)
{
    peer_progress();
    if (outbox_due()) {
        peer_flush();
        guest_flush();
    }
    mad_progress();
    shm_reclaim_due();
}

static void shm_after_fork(void)
{
    guest_after_fork();
    peer_after_fork();
    mad_after_fork();
}

const struct link_ops link_shm = {
    .name = "shm",
    .open = shm_open_link,
    .execute = shm_execute,
    .prepare = shm_prepare,
    .detach = shm_detach,
    .quiesce = shm_quiesce,
    .announce_member = peer_announce_member,
    .progress = shm_progress,
    .send_mad = mad_send,
    .after_fork = shm_after_fork,
};
