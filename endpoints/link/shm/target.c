/* SPDX-License-Identifier: MIT */
/*
 * Targets: finding the queue pair at the other end and keeping what is known of it. A target is
 * good as long as its gen is the one seen and its process lives; every WQE checks that with two
 * loads.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <string.h>

#include "core/mr_find.h"
#include "link/shm/shm.h"

static bool knows_gid(const struct peer *peer, uint32_t nic, const uint8_t dgid[16])
{
    const struct pub_header *header = peer_header(peer);

    if (nic >= CONFIG_NICS_MAX)
        return false;
    uint32_t count = PUB_READ(header->nics[nic].gid_count);
    for (uint32_t i = 0; i < count && i < CONFIG_GIDS_MAX; i++) {
        if (!memcmp(header->nics[nic].gids[i].raw, dgid, 16))
            return true;
    }
    return false;
}

/* IBTA 9.7.1: a responder takes only the packet it expects; the first one of a life decides. */
static bool psn_fits(const struct qp *qp, const struct pub_qp *pub)
{
    return !qp->reliable || qp->sq_head || pub->rq_psn == qp->attr.sq_psn;
}

/* XRC: of the queue pair that receives, which is the other end's or, on the wire, our own. */
static uint32_t domain_of(const struct qp *qp)
{
    return qp->type == IBV_QPT_XRC_RECV ? qp->pub->domain : qp->target.domain;
}

static bool is_for_us(const struct qp *qp, const struct target *target, const struct pub_qp *pub)
{
    if (!knows_gid(target->peer, pub->nic, target->dgid))
        return false;
    if (target != &qp->target && qp->type != IBV_QPT_UD)
        return pub->type == QPT_XRC_SRQ && pub->domain == domain_of(qp);
    if (pub->type != (qp->type == IBV_QPT_XRC_SEND ? IBV_QPT_XRC_RECV : qp->type))
        return false;
    return qp->type == IBV_QPT_UD || (pub->dest_qpn == qp->qpn && psn_fits(qp, pub));
}

/* The receive ring: every offset checked, mask and size kept in our own memory. */
static bool take_ring(struct target *target, const struct pub_qp *pub)
{
    struct peer *peer = target->peer;
    uint64_t ring = PUB_READ(pub->rq_ring);
    const struct pub_rq *rq = peer_ptr(peer, ring, sizeof(*rq));

    if (!ring || ring % _Alignof(struct pub_rq) || !rq)
        return false;
    uint32_t mask = PUB_READ(rq->mask), sge = PUB_READ(rq->max_sge), claim = PUB_READ(rq->claim);
    uint64_t entries = (uint64_t)mask + 1;
    if ((entries & mask) || entries > 4ull * LIMIT_SRQ_WR || sge == 0 || sge > LIMIT_SGE ||
        claim > SHARE_HEADS_SIZE / sizeof(uint64_t))
        return false;
    target->sges = peer_ptr(peer, rq->sges, entries * sge * sizeof(struct pub_sge));
    target->slots = claim ? peer_ptr(peer, rq->slots, entries * sizeof(uint32_t)) : NULL;
    if (!target->sges || (claim && !target->slots))
        return false;
    char *words = peer->self ? share_words() : peer->view.words;
    target->claim = claim ? (_Atomic uint64_t *)(void *)words + (claim - 1) : NULL;
    target->ring = pub_ring_id(peer->slot, claim);
    target->rq = rq;
    target->rq_mask = mask;
    target->rq_sge = sge;
    target->rq_pd = rq->pd;
    return true;
}

static bool take_lane(struct target *target, const struct pub_qp *pub)
{
    const struct pub_cq *cqs = peer_ptr(target->peer, PUB_CQS_OFFSET, sizeof(*cqs) * LIMIT_CQ);
    uint32_t index = PUB_READ(pub->recv_cq);

    if (index >= LIMIT_CQ)
        return false;
    if (target->peer->self) {
        struct cq *cq = cq_get(index);

        target->lane = cq ? &cq->own : NULL;
        return cq;
    }
    struct shm_lane *lane = peer_lane(target->peer, index, atomic_load(&cqs[index].gen));
    target->lane = lane ? &lane->out : NULL;
    return lane;
}

/* Its process has ended. Of our own we don't ask: we are here. */
static bool is_orphan(const struct target *target)
{
    return (atomic_load_explicit(target->owner, memory_order_relaxed) & FUTEX_OWNER_DIED) &&
           !target->peer->self;
}

static void take_values(struct target *target, const struct pub_qp *pub, bool first)
{
    target->pub = pub;
    target->pd = pub->pd;
    target->access = pub->access;
    target->cookie = pub->cookie;
    target->qkey = pub->qkey;
    target->rd_atomic = pub->rd_atomic;
    target->rnr_timer = pub->min_rnr_timer;
    target->domain = pub->domain;
    target->in_rtr = pub->state == IBV_QPS_RTR;
    if (first)
        target->head = target->tail_seen = 0;
}

/*
 * Look at the queue pair anew. The head of an exclusive ring is ours and goes on counting, unless
 * this is another life of the target.
 */
static enum stall look(struct qp *qp, struct target *target)
{
    const struct pub_qp *pubs = peer_ptr(target->peer, PUB_QPS_OFFSET, sizeof(*pubs) * LIMIT_QP);
    const struct pub_qp *pub = &pubs[target->qpn & (LIMIT_QP - 1)];
    uint32_t gen = atomic_load_explicit(&pub->gen, memory_order_acquire);

    target->owner = &peer_header(target->peer)->owner;
    if (!(gen & 1) || is_orphan(target) || !is_for_us(qp, target, pub))
        return STALL_ATTACH;
    bool first = target->pub != pub || target->cookie != pub->cookie;
    bool receives = pub->type != IBV_QPT_XRC_RECV; /* its SRQs do */
    if (receives && !take_ring(target, pub))
        return STALL_ATTACH;
    if (receives && !take_lane(target, pub))
        return STALL_CONNECT;
    take_values(target, pub, first);
    if (first && target == &qp->target)
        qp->pub->rq_head = 0;
    target->gen_seen = gen;
    return STALL_NONE;
}

static void aim(struct qp *qp)
{
    struct target *target = &qp->target;

    target->qpn = qp->attr.dest_qp_num;
    memcpy(target->dgid, qp->attr.ah_attr.grh.dgid.raw, 16);
}

bool target_reach(struct qp *qp, struct target *target)
{
    if (__builtin_expect(target->peer != NULL, 1) &&
        atomic_load_explicit(&target->pub->gen, memory_order_acquire) == target->gen_seen &&
        __builtin_expect(!is_orphan(target), 1))
        return true;
    if (target == &qp->target)
        aim(qp);
    uint32_t slot = target->qpn >> LIMIT_QP_BITS;
    target->peer = peer_get(slot);
    enum stall stall = target->peer           ? look(qp, target)
                       : peer_is_absent(slot) ? STALL_ATTACH
                                              : STALL_CONNECT;
    if (stall == STALL_NONE)
        return true;
    target->peer = NULL;
    qp->stall = stall;
    return false;
}

struct target *target_of_many(struct qp *qp, const uint8_t dgid[16], uint32_t qpn)
{
    struct target *target = &qp->ud[qpn % UD_TARGETS];

    if (target->qpn != qpn || memcmp(target->dgid, dgid, 16)) {
        memset(target, 0, sizeof(*target));
        target->qpn = qpn;
        memcpy(target->dgid, dgid, 16);
        target->wire = qp->type == IBV_QPT_UD && link_leads_out(qp->context->nic, dgid, qpn);
    }
    return target;
}

uint64_t target_mr(const struct target *target, uint32_t pd, uint32_t key, uint64_t addr,
                   uint64_t length, unsigned access)
{
    const struct pub_mr *table = (const void *)(target->peer->arena + PUB_MRS_OFFSET);

    return mr_find(table, &(struct mr_ask){pd, target->qpn, key, access, addr, length});
}

bool target_may_invalidate(const struct target *target, uint32_t rkey)
{
    const struct pub_mr *mrs = (const void *)(target->peer->arena + PUB_MRS_OFFSET);
    uint32_t index = rkey >> 8;

    return index < LIMIT_MR && rkey && atomic_load(&mrs[index].key) == rkey &&
           mrs[index].qpn == target->qpn && mrs[index].pd == target->pd;
}
