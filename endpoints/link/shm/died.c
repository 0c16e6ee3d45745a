/* SPDX-License-Identifier: MIT */
/*
 * A process is gone (its socket hung up): killed, or ended without destroying its queue pairs. Ours
 * that were connected to a live one of it fail at once; a remote queue pair that was destroyed in
 * order before is treated as on a wire: only who sends to it finds out, after its retries.
 */
#include "core/arena.h"
#include "core/conn.h"
#include "core/process.h"
#include "core/requester.h"
#include "link/shm/shm.h"

static bool was_live(const struct qp *qp, const char *arena)
{
    const struct pub_qp *qps = (const void *)(arena + PUB_QPS_OFFSET);
    const struct pub_qp *other = &qps[qp->attr.dest_qp_num & (LIMIT_QP - 1)];

    return (atomic_load(&other->gen) & 1) && other->dest_qpn == qp->qpn;
}

static const struct pub_header *header_of(const char *arena)
{
    return (const void *)arena;
}

/* Connected anew, to the process that has the slot now: the news of the old one came late. */
static bool is_past(const struct qp *qp, const char *arena)
{
    const struct peer *peer = qp->target.peer;

    return peer && header_of(peer->arena)->generation != header_of(arena)->generation;
}

static void forget_target(struct target *target, const struct peer *peer)
{
    if (!peer || target->peer != peer)
        return;
    target->peer = NULL;
    target->pub = NULL;
}

/* pub->busy held. */
static void forget_peer(struct qp *qp, const struct peer *peer)
{
    forget_target(&qp->target, peer);
    for (unsigned i = 0; qp->ud && i < UD_TARGETS; i++)
        forget_target(&qp->ud[i], peer);
    if (peer && pub_ring_slot(atomic_load(&qp->pub->claim_ring)) == peer->slot) {
        qp->claimed.valid = false; /* the ring went with its owner */
        atomic_store(&qp->pub->claim_ring, 0);
    }
    if (!peer || qp->remote_peer != peer)
        return;
    if (qp->stall == STALL_REMOTE)
        qp->stall = STALL_CONNECT;
    requester_drop_remote(qp);
}

/*
 * pub->busy held. Nothing tells a UC queue pair's owner that its peer is gone. But whoever gets
 * that number next must not take it for his, with receives that he would count from the first.
 */
static void shut(struct qp *qp)
{
    qp->peer_gone = true;
    qp_publish(qp);
}

/* pub->busy held. */
static bool is_aimed_at(const struct qp *qp, uint32_t slot)
{
    enum ibv_qp_state state = qp_state((struct qp *)qp);

    return qp_is_connected_type(qp) && !qp->link && state != IBV_QPS_RESET &&
           state != IBV_QPS_INIT && state != IBV_QPS_ERR &&
           qp->attr.dest_qp_num >> LIMIT_QP_BITS == slot;
}

/* pub->busy held. */
static bool is_connected(const struct qp *qp, uint32_t slot, const char *arena)
{
    return is_aimed_at(qp, slot) && was_live(qp, arena) && !is_past(qp, arena);
}

static void lose(struct qp *qp)
{
    requester_give_up(qp);
    if (qp->reliable)
        qp_fail(qp, IBV_EVENT_QP_FATAL + 1);
}

void shm_process_died(uint32_t slot, const char *arena, const struct peer *peer)
{
    conn_lost(mad_name_of(arena));
    for (uint32_t i = 1; i < qp_high(); i++) {
        struct qp *qp = qp_at(i);

        if (!qp)
            continue;
        spin_lock_word(&qp->pub->busy);
        bool connected = is_connected(qp, slot, arena);
        forget_peer(qp, peer);
        if (connected && !qp->reliable)
            shut(qp);
        spin_unlock_word(&qp->pub->busy);
        if (connected)
            lose(qp);
    }
}

/* Its arena was never ours to look at; what it has left in its lock file is. */
void shm_process_vanished(uint32_t slot)
{
    for (uint32_t i = 1; i < qp_high(); i++) {
        struct qp *qp = qp_at(i);

        if (!qp)
            continue;
        spin_lock_word(&qp->pub->busy);
        bool aimed = is_aimed_at(qp, slot) && !qp->target.peer;
        uint32_t qpn = qp->attr.dest_qp_num;
        spin_unlock_word(&qp->pub->busy);
        if (aimed && process_left_qp(qpn))
            lose(qp);
    }
}
