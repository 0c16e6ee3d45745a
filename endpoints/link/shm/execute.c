/* SPDX-License-Identifier: MIT */
/*
 * Carrying out WQEs of connected queue pairs: the initiator is requester and responder in one. The
 * order of checks is the responder's (IBTA 9.7.4.1); what it would have NAKed becomes our status,
 * and the target's queue pair is told to go to error.
 */
#define _GNU_SOURCE
#include <string.h>

#include "core/copy.h"
#include "link/shm/capture.h"
#include "link/shm/shm.h"

/* What is seldom called must not keep the compiler from making one piece of what always is. */
#define COLD __attribute__((cold, noinline))
#define STRAIGHT __attribute__((always_inline)) inline

/* ---- our side of the WQE ---- */

void *local_memory(const struct qp *qp, const struct ibv_send_wr *wr, const struct ibv_sge *sge,
                   unsigned access)
{
    if (wr->send_flags & IBV_SEND_INLINE)
        return (void *)(uintptr_t)sge->addr;
    return mr_local(qp->pd, sge->lkey, sge->addr, sge->length, access);
}

bool local_check(const struct qp *qp, const struct ibv_send_wr *wr, unsigned access,
                 struct local *local_out, enum ibv_wc_status *status)
{
    uint64_t length = 0;
    char *memory = NULL;

    for (int i = 0; i < wr->num_sge; i++) {
        const struct ibv_sge *sge = &wr->sg_list[i];

        memory = sge->length ? local_memory(qp, wr, sge, access) : memory;
        if (sge->length && !memory) {
            *status = IBV_WC_LOC_PROT_ERR;
            return false;
        }
        length += sge->length;
    }
    if (length > LIMIT_MSG_BYTES) {
        *status = IBV_WC_LOC_LEN_ERR;
        return false;
    }
    local_out->length = length;
    local_out->whole = wr->num_sge == 1 ? memory : NULL;
    return true;
}

/* ---- verdicts ---- */

/* The responder refuses: RC breaks at both ends; UC drops silently (IBTA 9.8.3.2). */
static enum verdict refuse(struct qp *qp, enum ibv_wc_status says, int event,
                           enum ibv_wc_status *status)
{
    if (!qp->reliable) {
        *status = IBV_WC_SUCCESS;
        return VERDICT_DONE;
    }
    tell_error(&qp->target, event);
    *status = says;
    return VERDICT_DONE;
}

static enum verdict refuse_access(struct qp *qp, enum ibv_wc_status *status)
{
    return refuse(qp, IBV_WC_REM_ACCESS_ERR, IBV_EVENT_QP_ACCESS_ERR + 1, status);
}

static enum verdict refuse_request(struct qp *qp, enum ibv_wc_status *status)
{
    return refuse(qp, IBV_WC_REM_INV_REQ_ERR, IBV_EVENT_QP_REQ_ERR + 1, status);
}

/* No receive is posted. */
static enum verdict not_ready(struct qp *qp)
{
    if (!qp->reliable)
        return VERDICT_DONE;
    qp->stall = STALL_RNR;
    return VERDICT_STALL;
}

/*
 * The receive itself is at fault: it completes with `theirs`, the sender with `ours`. What is too
 * long for an unreliable receive is dropped; a bad key of the owner's own breaks its queue pair all
 * the same, only the sender does not learn of it.
 */
static enum verdict refuse_receive(struct qp *qp, struct target *target, struct delivery *delivery,
                                   enum ibv_wc_status theirs, enum ibv_wc_status ours,
                                   enum ibv_wc_status *status)
{
    if (!qp->reliable && theirs == IBV_WC_LOC_LEN_ERR)
        return VERDICT_DONE;
    delivery->status = (uint8_t)theirs;
    delivery->byte_len = delivery->inline_length = 0;
    if (!deliver(qp, target, delivery))
        return VERDICT_STALL;
    receive_taken(qp, target);
    tell_error(&qp->target, 0);
    *status = qp->reliable ? ours : IBV_WC_SUCCESS;
    return VERDICT_DONE;
}

/* ---- gathering ours, scattering theirs ---- */

/* False: a key has gone since local_check() looked. */
static bool gather(const struct qp *qp, const struct ibv_send_wr *wr, char *to)
{
    for (int i = 0; i < wr->num_sge; i++) {
        const struct ibv_sge *sge = &wr->sg_list[i];
        const char *from = sge->length ? local_memory(qp, wr, sge, 0) : NULL;

        if (!from && sge->length)
            return false;
        copy_any(to, from, sge->length);
        to += sge->length;
    }
    return true;
}

/*
 * Move between the WQE's elements and [remote, remote + length) of the target, whose first `base`
 * bytes of message were moved by earlier calls. What wqe_done_bytes covers is skipped.
 */
static enum move move_span(struct qp *qp, struct target *target, const struct ibv_send_wr *wr,
                           bool out, uint64_t base, uint64_t remote, uint64_t length)
{
    uint64_t at = 0, end = base + length;

    for (int i = 0; i < wr->num_sge && at < end; i++) {
        const struct ibv_sge *sge = &wr->sg_list[i];
        uint64_t from = at > base ? at : base, to = at + sge->length < end ? at + sge->length : end;

        from = from > qp->wqe_done_bytes ? from : qp->wqe_done_bytes;
        if (from < to) {
            char *here = local_memory(qp, wr, sge, out ? 0 : IBV_ACCESS_LOCAL_WRITE);
            if (!here)
                return MOVE_FAULT;
            here += from - at;
            enum move result =
                out ? move_out(qp, target->peer, remote + (from - base), here, to - from)
                    : move_in(qp, target->peer, here, remote + (from - base), to - from);
            if (result != MOVE_DONE)
                return result;
        }
        at += sge->length;
    }
    return MOVE_DONE;
}

/* ---- SEND ---- */

/* Looks no further than it must: each cache line of the ring comes from the other side's core. */
static bool has_room(const struct target *target, const struct pub_sge *sges, uint64_t length)
{
    uint64_t room = 0;

    for (uint32_t i = 0; i < target->rq_sge && room < length; i++)
        room += sges[i].length;
    return room >= length;
}

/* Their keys, before anything is placed (IBTA 9.7.4.1.8). */
static bool receive_keys_good(const struct target *target, const struct pub_sge *sges,
                              uint64_t length)
{
    for (uint32_t i = 0; i < target->rq_sge && length; i++) {
        uint64_t part = sges[i].length < length ? sges[i].length : length;

        if (part && !target_mr(target, target->rq_pd, sges[i].lkey, sges[i].addr, part,
                               IBV_ACCESS_LOCAL_WRITE))
            return false;
        length -= part;
    }
    return true;
}

static enum move scatter(struct qp *qp, struct target *target, const struct ibv_send_wr *wr,
                         const struct pub_sge *sges, uint64_t length)
{
    uint64_t base = 0;

    for (uint32_t i = 0; i < target->rq_sge && base < length; i++) {
        uint64_t part = sges[i].length < length - base ? sges[i].length : length - base;
        uint64_t there = part ? target_mr(target, target->rq_pd, sges[i].lkey, sges[i].addr, part,
                                          IBV_ACCESS_LOCAL_WRITE)
                              : 0;

        if (part && !there)
            return MOVE_FAULT;
        qp->remote_key = sges[i].lkey;
        enum move result = part ? move_span(qp, target, wr, true, base, there, part) : MOVE_DONE;
        if (result != MOVE_DONE)
            return result;
        base += part;
    }
    return MOVE_DONE;
}

static uint64_t inline_room(const struct target *target)
{
    return target->lane->cq->stamp ? CQE_STAMP_AT : CQE_INLINE_MAX;
}

static void describe_send(struct delivery *delivery, const struct ibv_send_wr *wr, uint64_t length)
{
    delivery->opcode = IBV_WC_RECV;
    delivery->status = IBV_WC_SUCCESS;
    delivery->flags = wr->send_flags & IBV_SEND_SOLICITED ? CQE_SOLICITED : 0;
    delivery->byte_len = (uint32_t)length;
    if (wr->opcode == IBV_WR_SEND_WITH_IMM || wr->opcode == IBV_WR_RDMA_WRITE_WITH_IMM) {
        delivery->flags |= CQE_IMM;
        delivery->imm = wr->imm_data;
    } else if (wr->opcode == IBV_WR_SEND_WITH_INV) {
        delivery->flags |= CQE_INV;
        delivery->imm = wr->invalidate_rkey;
    }
}

/* What fits rides in the completion line; the rest goes to where the receive says. */
static enum move transfer(struct qp *qp, struct target *target, const struct ibv_send_wr *wr,
                          const struct local *local, const struct pub_sge *sges,
                          struct delivery *delivery, char small[CQE_INLINE_MAX])
{
    if (local->length > inline_room(target))
        return scatter(qp, target, wr, sges, local->length);
    delivery->inline_data = local->whole;
    delivery->inline_length = (uint32_t)local->length;
    if (local->whole)
        return MOVE_DONE;
    delivery->inline_data = small;
    return gather(qp, wr, small) ? MOVE_DONE : MOVE_FAULT;
}

static enum verdict do_send(struct qp *qp, struct target *target, const struct ibv_send_wr *wr,
                            enum ibv_wc_status *status)
{
    struct delivery delivery = {0};
    const struct pub_sge *sges;
    char small[CQE_INLINE_MAX];
    struct local local;

    if (!local_check(qp, wr, 0, &local, status))
        return VERDICT_DONE;
    if (wr->opcode == IBV_WR_SEND_WITH_INV && !target_may_invalidate(target, wr->invalidate_rkey))
        return refuse_access(qp, status);
    if (!receive_next(qp, target, &sges, &delivery.slot))
        return not_ready(qp);
    describe_send(&delivery, wr, local.length);
    if (!has_room(target, sges, local.length))
        return refuse_receive(qp, target, &delivery, IBV_WC_LOC_LEN_ERR, IBV_WC_REM_INV_REQ_ERR,
                              status);
    enum move moved = receive_keys_good(target, sges, local.length)
                          ? transfer(qp, target, wr, &local, sges, &delivery, small)
                          : MOVE_FAULT;
    if (moved == MOVE_STALL)
        return VERDICT_STALL;
    if (moved == MOVE_FAULT)
        return refuse_receive(qp, target, &delivery, IBV_WC_LOC_PROT_ERR, IBV_WC_REM_OP_ERR,
                              status);
    if (!deliver(qp, target, &delivery))
        return VERDICT_STALL;
    receive_taken(qp, target);
    receive_warm(target, local.length);
    qp->pub->tx_bytes += local.length;
    qp->pub->sends++;
    return VERDICT_DONE;
}

/* ---- RDMA ---- */

/*
 * What the queue pair was not given the right to is an invalid request; what a key does not allow
 * is an access error (IBTA 9.7.4.1.2, 9.7.4.1.3).
 */
static bool may(struct qp *qp, struct target *target, unsigned access, enum ibv_wc_status *status)
{
    if (target->access & access)
        return true;
    refuse_request(qp, status);
    return false;
}

static enum verdict notify_write(struct qp *qp, struct target *target, const struct ibv_send_wr *wr,
                                 uint64_t length)
{
    struct delivery delivery = {0};
    const struct pub_sge *unused;

    if (!receive_next(qp, target, &unused, &delivery.slot))
        return not_ready(qp);
    describe_send(&delivery, wr, length);
    delivery.opcode = IBV_WC_RECV_RDMA_WITH_IMM;
    if (!deliver(qp, target, &delivery))
        return VERDICT_STALL;
    receive_taken(qp, target);
    qp->pub->sends++;
    return VERDICT_DONE;
}

/* All of it, in one copy where that is possible. */
static enum move move_whole(struct qp *qp, struct target *target, const struct ibv_send_wr *wr,
                            const struct local *local, bool out, uint64_t there)
{
    /* Not while the target's engine is at it: its answer would come on top. */
    char *direct =
        local->whole && !qp->remote_op ? move_direct(target->peer, there, local->length) : NULL;

    if (__builtin_expect(!direct, 0)) {
        qp->remote_key = wr->wr.rdma.rkey;
        return move_span(qp, target, wr, out, 0, there, local->length);
    }
    copy_any(out ? direct : local->whole, out ? local->whole : direct, local->length);
    qp->wqe_done_bytes = local->length;
    return MOVE_DONE;
}

static enum verdict do_write(struct qp *qp, struct target *target, const struct ibv_send_wr *wr,
                             enum ibv_wc_status *status)
{
    struct local local;
    uint64_t there = 0;

    if (!local_check(qp, wr, 0, &local, status) ||
        !may(qp, target, IBV_ACCESS_REMOTE_WRITE, status))
        return VERDICT_DONE;
    /* IBTA 9.7.4.1.3: a request of no length has its key unchecked */
    if (local.length) {
        there = target_mr(target, target->pd, wr->wr.rdma.rkey, wr->wr.rdma.remote_addr,
                          local.length, IBV_ACCESS_REMOTE_WRITE);
        if (!there)
            return refuse_access(qp, status);
    }
    enum move moved = move_whole(qp, target, wr, &local, true, there);
    if (moved == MOVE_STALL)
        return VERDICT_STALL;
    if (moved == MOVE_FAULT)
        return refuse(qp, IBV_WC_REM_OP_ERR, IBV_EVENT_QP_FATAL + 1, status);
    if (wr->opcode == IBV_WR_RDMA_WRITE_WITH_IMM) {
        enum verdict verdict = notify_write(qp, target, wr, local.length);

        if (verdict != VERDICT_DONE)
            return verdict;
    }
    qp->pub->tx_bytes += local.length;
    return VERDICT_DONE;
}

/* A responder without resources for reads and atomics takes none. */
static bool may_read(struct qp *qp, struct target *target, unsigned access,
                     enum ibv_wc_status *status)
{
    if (!qp->attr.max_rd_atomic) {
        *status = IBV_WC_LOC_QP_OP_ERR;
        return false;
    }
    if (target->rd_atomic)
        return may(qp, target, access, status);
    refuse_request(qp, status);
    return false;
}

static enum verdict do_read(struct qp *qp, struct target *target, const struct ibv_send_wr *wr,
                            enum ibv_wc_status *status)
{
    struct local local;
    uint64_t there = 0;

    if (!local_check(qp, wr, IBV_ACCESS_LOCAL_WRITE, &local, status) ||
        !may_read(qp, target, IBV_ACCESS_REMOTE_READ, status))
        return VERDICT_DONE;
    if (local.length) {
        there = target_mr(target, target->pd, wr->wr.rdma.rkey, wr->wr.rdma.remote_addr,
                          local.length, IBV_ACCESS_REMOTE_READ);
        if (!there)
            return refuse_access(qp, status);
    }
    enum move moved = move_whole(qp, target, wr, &local, false, there);
    if (moved == MOVE_STALL)
        return VERDICT_STALL;
    if (moved == MOVE_FAULT)
        return refuse(qp, IBV_WC_REM_OP_ERR, IBV_EVENT_QP_FATAL + 1, status);
    qp->pub->read_bytes += local.length;
    return VERDICT_DONE;
}

static void scatter_value(const struct qp *qp, const struct ibv_send_wr *wr, uint64_t value)
{
    const char *from = (const char *)&value;
    uint32_t left = sizeof(value);

    for (int i = 0; i < wr->num_sge && left; i++) {
        const struct ibv_sge *sge = &wr->sg_list[i];
        uint32_t part = sge->length < left ? sge->length : left;

        char *to = part ? local_memory(qp, wr, sge, IBV_ACCESS_LOCAL_WRITE) : NULL;
        if (to)
            copy_small(to, from, part);
        from += part;
        left -= part;
    }
}

static enum verdict do_atomic(struct qp *qp, struct target *target, const struct ibv_send_wr *wr,
                              enum ibv_wc_status *status)
{
    uint64_t before, at = wr->wr.atomic.remote_addr;
    struct local local;

    if (!local_check(qp, wr, IBV_ACCESS_LOCAL_WRITE, &local, status))
        return VERDICT_DONE;
    if (local.length != sizeof(uint64_t)) {
        *status = IBV_WC_LOC_LEN_ERR;
        return VERDICT_DONE;
    }
    if (!may_read(qp, target, IBV_ACCESS_REMOTE_ATOMIC, status))
        return VERDICT_DONE;
    if (at % sizeof(uint64_t)) /* IBTA 9.4.5 */
        return refuse_request(qp, status);
    uint64_t there = target_mr(target, target->pd, wr->wr.atomic.rkey, at, sizeof(uint64_t),
                               IBV_ACCESS_REMOTE_ATOMIC);
    if (!there)
        return refuse_access(qp, status);
    qp->remote_key = wr->wr.atomic.rkey;
    enum move moved = move_atomic(qp, target->peer, there, wr, &before);
    if (moved == MOVE_STALL)
        return VERDICT_STALL;
    if (moved == MOVE_FAULT)
        return refuse(qp, IBV_WC_REM_OP_ERR, IBV_EVENT_QP_FATAL + 1, status);
    scatter_value(qp, wr, before);
    return VERDICT_DONE;
}

static enum verdict execute(struct qp *qp, struct target *target, const struct ibv_send_wr *wr,
                            enum ibv_wc_status *status)
{
    switch (wr->opcode) {
    case IBV_WR_SEND:
    case IBV_WR_SEND_WITH_IMM:
    case IBV_WR_SEND_WITH_INV:
        return do_send(qp, target, wr, status);
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_WRITE_WITH_IMM:
        return do_write(qp, target, wr, status);
    case IBV_WR_RDMA_READ:
        return do_read(qp, target, wr, status);
    default:
        return do_atomic(qp, target, wr, status);
    }
}

/*
 * XRC (IBTA annex A14): the queue pair at the other end says who may send and what rights there
 * are; the SRQ that the request names has the receives, the domain of the keys and the completion
 * queue. One that is not there, or of another domain, is an invalid request.
 */
static enum verdict execute_xrc(struct qp *qp, const struct ibv_send_wr *wr,
                                enum ibv_wc_status *status)
{
    struct target *connected = &qp->target;

    if (!target_reach(qp, connected))
        return VERDICT_STALL;
    struct target *srq =
        target_of_many(qp, connected->dgid, wr->qp_type.xrc.remote_srqn & 0xffffff);
    if (!target_reach(qp, srq)) {
        if (qp->stall != STALL_ATTACH)
            return VERDICT_STALL;
        qp->stall = STALL_NONE;
        return refuse_request(qp, status);
    }
    srq->access = connected->access;
    srq->rd_atomic = connected->rd_atomic;
    return execute(qp, srq, wr, status);
}

STRAIGHT static enum verdict execute_connected(struct qp *qp, const struct ibv_send_wr *wr,
                                               enum ibv_wc_status *status)
{
    if (!target_reach(qp, &qp->target))
        return VERDICT_STALL;
    if (__builtin_expect(qp->target.in_rtr, 0))
        tell_first(&qp->target);
    return execute(qp, &qp->target, wr, status);
}

/* The same, and what the wire would have carried is written down. */
COLD static enum verdict execute_captured(struct qp *qp, const struct ibv_send_wr *wr,
                                          const struct ah *ah, enum ibv_wc_status *status)
{
    enum verdict verdict;

    if (qp->type == IBV_QPT_UD) {
        verdict = shm_datagram(qp, wr, ah, status);
        if (verdict == VERDICT_DONE && *status == IBV_WC_SUCCESS && !datagram_is_out(qp, wr, ah))
            capture_datagram(qp, wr, ah);
        return verdict;
    }
    verdict = qp->type == IBV_QPT_XRC_SEND ? execute_xrc(qp, wr, status)
                                           : execute_connected(qp, wr, status);
    if (verdict == VERDICT_DONE)
        capture_request(qp, wr, *status);
    else if (qp->stall == STALL_RNR)
        capture_not_ready(qp, wr);
    return verdict;
}

enum verdict shm_execute(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah,
                         enum ibv_wc_status *status)
{
    if (__builtin_expect(qp->detour == DETOUR_NONE, 1))
        return execute_connected(qp, wr, status);
    if (qp->detour == DETOUR_DATAGRAM)
        return shm_datagram(qp, wr, ah, status);
    return qp->detour == DETOUR_XRC ? execute_xrc(qp, wr, status)
                                    : execute_captured(qp, wr, ah, status);
}
