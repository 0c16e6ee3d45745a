/* SPDX-License-Identifier: MIT */
/*
 * A connected queue pair on the wire: between the verbs' queues and keys (struct qp) and the
 * transport (engine/transport.h). Everything of a transport happens under its queue pair's busy
 * word, which deregistration waits for too, so memory stays good while it is used.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/counters.h"
#include "core/cq_impl.h"
#include "core/mr_bind.h"
#include "core/mr_find.h"
#include "core/process.h"
#include "core/requester.h"
#include "core/rq_claim.h"
#include "link/roce/roce_qp.h"

_Static_assert(sizeof(struct transport_sge) == sizeof(struct ibv_sge) &&
                   offsetof(struct transport_sge, length) == offsetof(struct ibv_sge, length) &&
                   offsetof(struct transport_sge, key) == offsetof(struct ibv_sge, lkey),
               "elements are passed on as they are");
_Static_assert((int)TRANSPORT_SGE_MAX == (int)LIMIT_SGE, "and in the same number");

static struct roce_qp *all, *touched;
static _Atomic bool drain_due;

struct roce_qp *roce_qp_all(void)
{
    return all;
}

/* ---- memory ---- */

static void *local(void *owner, uint32_t key, uint64_t addr, uint64_t length, bool write)
{
    const struct qp *qp = owner;
    unsigned access = write ? IBV_ACCESS_LOCAL_WRITE : 0;
    void *memory = mr_local(qp->pd, key, addr, length, access);

    /* Receives of a shared queue belong to its domain. */
    if (!memory && qp->srq)
        memory = mr_local(qp->srq->pd->handle, key, addr, length, access);
    return memory;
}

static unsigned access_of(enum transport_access access)
{
    switch (access) {
    case TRANSPORT_REMOTE_WRITE:
        return IBV_ACCESS_REMOTE_WRITE;
    case TRANSPORT_REMOTE_READ:
        return IBV_ACCESS_REMOTE_READ;
    default:
        return IBV_ACCESS_REMOTE_ATOMIC;
    }
}

static void *remote(void *owner, uint32_t key, uint64_t addr, uint64_t length,
                    enum transport_access access)
{
    const struct qp *qp = owner;
    struct mr_ask ask = {qp->pd, qp->qpn, key, access_of(access), addr, length};

    return (void *)mr_find(arena_mr(0), &ask);
}

static bool may_invalidate(void *owner, uint32_t key)
{
    const struct qp *qp = owner;
    uint32_t index = key >> 8;

    if (index >= LIMIT_MR || !key)
        return false;
    const struct pub_mr *mr = arena_mr(index);
    return atomic_load(&mr->key) == key && mr->qpn == qp->qpn && mr->pd == qp->pd;
}

/* ---- receives ---- */

void roce_copy_receive(struct transport_recv *to, const struct pub_sge *sges, uint32_t count)
{
    to->sge_count = 0;
    for (uint32_t i = 0; i < count; i++)
        if (sges[i].length)
            to->sges[to->sge_count++] =
                (struct transport_sge){sges[i].addr, sges[i].length, sges[i].lkey};
}

static bool take_exclusive(struct qp *qp, struct transport_recv *recv_out)
{
    struct rq *rq = &qp->rq;
    uint32_t head = qp->wire->rq_head;

    if (head == atomic_load_explicit(&rq->pub->tail, memory_order_acquire))
        return false;
    recv_out->slot = head & rq->mask;
    roce_copy_receive(recv_out, &rq->sges[(size_t)(head & rq->mask) * rq->max_sge], rq->max_sge);
    qp->wire->rq_head++;
    return true;
}

static bool take_shared(struct qp *qp, struct rq *rq, struct transport_recv *recv_out)
{
    struct rq_view ring = {rq->pub, rq->sges, rq->slot_ring, rq->claim, rq->mask, rq->max_sge};
    struct pub_sge sges[LIMIT_SGE];
    bool low;

    if (!rq_claim(&ring, sges, &recv_out->slot, &low))
        return false;
    roce_copy_receive(recv_out, sges, rq->max_sge);
    if (qp->type != IBV_QPT_UD)
        rq_note_claim(qp->pub, pub_ring_id(process_slot(), rq->claim_index + 1), recv_out->slot);
    if (low)
        thread_wake();
    return true;
}

static bool take(void *owner, struct transport_recv *recv_out)
{
    struct qp *qp = owner;
    struct rq *rq = qp_rq(qp);

    if (!rq->pub)
        return false;
    return rq->claim ? take_shared(qp, rq, recv_out) : take_exclusive(qp, recv_out);
}

static uint32_t receives(void *owner)
{
    struct qp *qp = owner;

    if (qp_rq(qp)->claim)
        return UINT32_MAX;
    return atomic_load_explicit(&qp->rq.pub->tail, memory_order_acquire) - qp->wire->rq_head;
}

static void deliver(void *owner, const struct transport_arrival *arrival)
{
    struct qp *qp = owner;
    struct cqe *cqe = cq_push_begin(qp->recv_cq);

    if (qp->type != IBV_QPT_UD && qp_rq(qp)->claim)
        atomic_store_explicit(&qp->pub->claim_ring, 0, memory_order_relaxed);
    if (!cqe)
        return; /* the CQ is overrun, the completion lost */
    cqe->kind = CQE_RECV;
    cqe->opcode = arrival->flags & ARRIVAL_WRITE ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV;
    cqe->status = (uint8_t)arrival->status;
    cqe->flags = arrival->flags & (CQE_IMM | CQE_INV | CQE_SOLICITED | CQE_GRH);
    cqe->qp = qp->pub->cookie;
    cqe->wqe = arrival->slot;
    cqe->byte_len = arrival->byte_len;
    cqe->imm = arrival->imm;
    cqe->src_qp = arrival->src_qpn;
    cqe->inline_len = 0;
    cqe->sl = qp->type != IBV_QPT_UD ? 0 : qp->datagram_v4 ? 2 : 1; /* the network header's type */
    cq_push_end(qp->recv_cq, cqe);
}

_Static_assert((int)ARRIVAL_IMM == CQE_IMM && (int)ARRIVAL_INV == CQE_INV &&
                   (int)ARRIVAL_SOLICITED == CQE_SOLICITED && (int)ARRIVAL_GRH == CQE_GRH,
               "flags of arrivals are those of completions");

/* ---- requests ---- */

static enum transport_status execute(void *owner, const struct transport_wr *wr)
{
    struct qp *qp = owner;

    if (wr->op == TRANSPORT_LOCAL_INV)
        return mw_invalidate(qp->qpn, qp->pd, wr->imm) ? TRANSPORT_SUCCESS : TRANSPORT_BIND_ERR;
    const struct ibv_send_wr *bind = wr->local;
    const struct ibv_mr *mr = bind->bind_mw.bind_info.mr;
    return (enum transport_status)mw_bind(qp->qpn, qp->pd, bind->bind_mw.mw->handle,
                                          bind->bind_mw.rkey, mr ? mr->handle : 0,
                                          &bind->bind_mw.bind_info);
}

/* What the counters of the device and `viaduct top` are made of. */
static void count(struct pub_qp *pub, const struct transport_wr *wr)
{
    uint64_t length = 0;

    for (uint32_t i = 0; i < wr->sge_count; i++)
        length += wr->sges[i].length;
    pub->messages++;
    switch (wr->op) {
    case TRANSPORT_READ:
    case TRANSPORT_COMPARE_SWAP:
    case TRANSPORT_FETCH_ADD:
        pub->read_bytes += length;
        break;
    case TRANSPORT_WRITE:
        pub->tx_bytes += length;
        break;
    default:
        pub->tx_bytes += length;
        pub->sends += wr->op != TRANSPORT_LOCAL_INV && wr->op != TRANSPORT_BIND;
        break;
    }
}

static void count_tries(struct roce_qp *wire)
{
    struct transport_stats stats;

    transport_get_stats(wire->transport, &stats);
    uint64_t retries = stats.go_backs + stats.probes + stats.timeouts;
    if (__builtin_expect(stats.timeouts != wire->counted_timeouts, 0) && wire->path.outlet)
        outlet_doubt(wire->path.outlet);
    wire->counted_timeouts = stats.timeouts;
    if (__builtin_expect(stats.dropped != wire->counted_dropped, 0))
        counters_add(wire->path.port->nic, COUNTER_DROPPED, stats.dropped - wire->counted_dropped);
    wire->counted_dropped = stats.dropped;
    if (__builtin_expect(stats.timeouts + stats.probes != wire->counted_silences, 0) &&
        wire->path.outlet)
        refusal_suspect(wire->path.outlet);
    wire->counted_silences = stats.timeouts + stats.probes;
    wire->qp->pub->rnr_waits += (uint32_t)(stats.rnrs_received - wire->counted_rnrs);
    wire->qp->pub->retries += (uint32_t)(retries - wire->counted_retries);
    wire->counted_rnrs = stats.rnrs_received;
    wire->counted_retries = retries;
}

static void complete(void *owner, const struct transport_wr *wr, enum transport_status status,
                     uint32_t byte_len)
{
    struct qp *qp = owner;
    uint32_t position = qp->sq_head++;

    free(wr->local);
    if (status == TRANSPORT_SUCCESS)
        count(qp->pub, wr);
    else if (status != TRANSPORT_FLUSH_ERR)
        requester_count_error(qp, (enum ibv_wc_status)status);
    if (status != TRANSPORT_SUCCESS || (wr->flags & TRANSPORT_SIGNALED))
        requester_push(qp, wr->cookie, (enum ibv_wr_opcode)wr->op, byte_len, position,
                       (enum ibv_wc_status)status);
}

static void fail(void *owner, enum transport_failure failure)
{
    static const int events[] = {
        [FAILED_REQUEST] = IBV_EVENT_QP_REQ_ERR + 1,
        [FAILED_ACCESS] = IBV_EVENT_QP_ACCESS_ERR + 1,
        [FAILED_RECEIVE] = 0,
        [FAILED_PEER] = IBV_EVENT_QP_FATAL + 1,
    };
    struct qp *qp = owner;

    if (failure == FAILED_SENDING)
        requester_fail(qp);
    else if (failure != FAILED_PEER || qp->reliable)
        qp_fail(qp, events[failure]);
    /* Last: who hears of the end of the connection finds the queue pair in error. */
    if (failure == FAILED_PEER || transport_is_refused(qp->wire->transport))
        peer_lost(qp->wire);
}

const struct transport_calls roce_calls = {
    .local = local,
    .remote = remote,
    .may_invalidate = may_invalidate,
    .take = take,
    .receives = receives,
    .deliver = deliver,
    .execute = execute,
    .complete = complete,
    .fail = fail,
};

/* ---- life ---- */

static unsigned access_flags(unsigned access)
{
    return (access & IBV_ACCESS_REMOTE_WRITE ? TRANSPORT_REMOTE_WRITE : 0) |
           (access & IBV_ACCESS_REMOTE_READ ? TRANSPORT_REMOTE_READ : 0) |
           (access & IBV_ACCESS_REMOTE_ATOMIC ? TRANSPORT_REMOTE_ATOMIC : 0);
}

struct roce_xrc *roce_qp_xrc(const struct qp *qp)
{
    return qp->wire->xrc;
}

static enum transport_type type_of(const struct qp *qp)
{
    if (qp->type == IBV_QPT_RC)
        return TRANSPORT_RC;
    return qp->type == IBV_QPT_UC ? TRANSPORT_UC : TRANSPORT_XRC;
}

static struct transport_config config_of(const struct qp *qp, const struct ibv_qp_attr *attr)
{
    return (struct transport_config){
        .type = type_of(qp),
        .max_wr = qp->sq_mask + 1,
        .max_sge = qp->cap.max_send_sge,
        .max_inline = qp->cap.max_inline_data,
        .max_dest_rd_atomic = attr->max_dest_rd_atomic,
        .dest_qpn = attr->dest_qp_num & 0xffffff,
        .pkey = DEFAULT_PKEY,
        .mtu = 128u << attr->path_mtu,
        .timeout = attr->timeout,
        .retry_count = attr->retry_cnt,
        .rnr_retry = attr->rnr_retry,
        .min_rnr_timer = attr->min_rnr_timer,
        .max_rd_atomic = attr->max_rd_atomic,
        .access = access_flags((unsigned)qp->attr.qp_access_flags),
    };
}

static int make_path(const struct qp *qp, const struct ibv_ah_attr *to, struct roce_path *path)
{
    const struct nic *nic = qp->context->nic;
    struct roce_port *port;
    int error = udp_port_open(nic, nic->gids[to->grh.sgid_index].raw, &port);

    if (!error)
        error = udp_path(port, to->grh.dgid.raw, qp->qpn, path);
    if (error)
        return error;
    path->outlet = outlet_find(port, to->grh.dgid.raw, path->sender);
    path->traffic_class = to->grh.traffic_class;
    path->hop_limit = to->grh.hop_limit;
    return 0;
}

static void list_add(struct roce_qp *wire)
{
    roce_lock();
    wire->next = all;
    wire->place = &all;
    if (all)
        all->place = &wire->next;
    all = wire;
    roce_unlock();
    atomic_fetch_add(&link_to_poll, 1);
}

static void release(struct roce_qp *wire)
{
    if (!wire)
        return;
    transport_free(wire->transport);
    free(wire->xrc);
    free(wire);
}

/* Drained, or at least not sending: what is under way goes on by the new path. */
static int move(struct qp *qp, const struct ibv_qp_attr *attr)
{
    struct roce_qp *wire = qp->wire;
    struct roce_path path;
    int error = make_path(qp, &attr->ah_attr, &path);

    if (error)
        return error;
    roce_lock();
    spin_lock_word(&qp->pub->busy);
    if (wire->sending)
        atomic_fetch_sub(&wire->path.port->sending, 1);
    wire->sending = false;
    wire->path = path;
    spin_unlock_word(&qp->pub->busy);
    roce_unlock();
    return 0;
}

/* A packet must fit the interface; in shared memory any path MTU will do. */
static int attach(struct qp *qp, const struct ibv_qp_attr *attr)
{
    if (qp->wire)
        return move(qp, attr);
    struct transport_config config = config_of(qp, attr);
    struct roce_qp *wire = calloc(1, sizeof(*wire));
    bool fits = config.mtu <= qp->context->path_mtu;
    int error = !fits ? -EINVAL : wire ? make_path(qp, &attr->ah_attr, &wire->path) : -ENOMEM;

    bool xrc = qp->type == IBV_QPT_XRC_RECV;
    if (!error && xrc)
        error = roce_xrc_new(qp, &wire->xrc);
    if (!error) {
        wire->transport = transport_new(&config, xrc ? &roce_xrc_calls : &roce_calls, qp);
        error = wire->transport ? 0 : -ENOMEM;
    }
    if (error) {
        release(wire);
        return error;
    }
    wire->qp = qp;
    atomic_store(&wire->deadline_ns, TRANSPORT_NEVER);
    spin_lock_word(&qp->pub->busy);
    qp->wire = wire;
    qp->link = &link_roce;
    spin_unlock_word(&qp->pub->busy);
    list_add(wire);
    return 0;
}

static void modified(struct qp *qp, enum ibv_qp_state before)
{
    struct transport_config config = config_of(qp, &qp->attr);
    struct transport *transport = qp->wire->transport;
    enum ibv_qp_state now = qp_state(qp);

    transport_modify(transport, &config);
    if (now == IBV_QPS_RTR && before != IBV_QPS_RTR && qp->type != IBV_QPT_XRC_SEND)
        transport_start_receiving(transport, qp->attr.rq_psn);
    else if (now == IBV_QPS_RTS && (before == IBV_QPS_RTR || before == IBV_QPS_SQE))
        transport_start_sending(transport, qp->attr.sq_psn);
    if (now == IBV_QPS_SQD || before == IBV_QPS_SQD)
        transport_hold(transport, now == IBV_QPS_SQD);
}

static void untouch(struct roce_qp *wire)
{
    for (struct roce_qp **at = &touched; *at; at = &(*at)->touched_next) {
        if (*at == wire) {
            *at = wire->touched_next;
            return;
        }
    }
}

static void detach(struct qp *qp)
{
    struct roce_qp *wire = qp->wire;

    roce_lock();
    roce_receive_all(); /* what has come is this life's, not the next one's */
    spin_lock_word(&qp->pub->busy);
    *wire->place = wire->next;
    if (wire->next)
        wire->next->place = wire->place;
    untouch(wire);
    peer_forget(wire);
    if (wire->sending)
        atomic_fetch_sub(&wire->path.port->sending, 1);
    qp->wire = NULL;
    qp->link = NULL;
    spin_unlock_word(&qp->pub->busy);
    roce_unlock();
    release(wire);
    atomic_fetch_sub(&link_to_poll, 1);
}

/* ---- sending ---- */

static void translate(const struct ibv_send_wr *wr, bool signalled, struct transport_wr *to)
{
    to->cookie = wr->wr_id;
    to->op = (enum transport_op)wr->opcode;
    to->flags = (wr->send_flags & IBV_SEND_SOLICITED ? TRANSPORT_SOLICITED : 0) |
                (wr->send_flags & IBV_SEND_FENCE ? TRANSPORT_FENCE : 0) |
                (wr->send_flags & IBV_SEND_INLINE ? TRANSPORT_INLINE : 0) |
                (signalled ? TRANSPORT_SIGNALED : 0);
    to->imm = wr->imm_data;
    to->sge_count = (uint32_t)wr->num_sge;
    to->sges = (const struct transport_sge *)(const void *)wr->sg_list;
    to->local = NULL;
    if (wr->opcode == IBV_WR_ATOMIC_CMP_AND_SWP || wr->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        bool swap = wr->opcode == IBV_WR_ATOMIC_CMP_AND_SWP;

        to->remote_addr = wr->wr.atomic.remote_addr;
        to->rkey = wr->wr.atomic.rkey;
        to->swap_add = swap ? wr->wr.atomic.swap : wr->wr.atomic.compare_add;
        to->compare = swap ? wr->wr.atomic.compare_add : 0;
    } else {
        to->remote_addr = wr->wr.rdma.remote_addr;
        to->rkey = wr->wr.rdma.rkey;
    }
}

/* A bind is carried out in its turn, and its request is the program's only until it is posted. */
static bool keep_bind(const struct ibv_send_wr *wr, struct transport_wr *to)
{
    if (wr->opcode != IBV_WR_BIND_MW)
        return true;
    to->sge_count = 0;
    to->local = malloc(sizeof(*wr));
    if (to->local)
        memcpy(to->local, wr, sizeof(*wr));
    return to->local;
}

static bool post(struct qp *qp, const struct ibv_send_wr *wr)
{
    struct transport_wr request = {0};

    translate(wr, qp->sq_sig_all || (wr->send_flags & IBV_SEND_SIGNALED), &request);
    if (qp->type == IBV_QPT_XRC_SEND)
        request.xrc_srqn = wr->qp_type.xrc.remote_srqn & 0xffffff;
    if (!keep_bind(wr, &request))
        return false;
    if (transport_post(qp->wire->transport, &request))
        return true;
    free(request.local);
    return false;
}

/*
 * Who sends from the same port most often sends to the same host, whose sockets hold as much as
 * ours: all have equal shares of that.
 */
static void take_share(struct roce_qp *wire)
{
    struct roce_port *port = wire->path.port;
    bool sending = transport_is_sending(wire->transport);

    if (sending != wire->sending) {
        atomic_fetch_add(&port->sending, sending ? 1 : -1);
        wire->sending = sending;
    }
    int all_sending = atomic_load_explicit(&port->sending, memory_order_relaxed);
    transport_set_share(wire->transport,
                        all_sending > 1 ? port->room / (unsigned)all_sending : port->room);
}

void roce_qp_push(struct roce_qp *wire, uint64_t now)
{
    struct transport_packet packet;

    take_share(wire);
    if (transport_next(wire->transport, now, &packet)) {
        struct roce_batch *batch = batch_take();

        do {
            batch_add(batch, &wire->path, &packet);
        } while (transport_next(wire->transport, now, &packet));
        batch_send(batch);
    }
    uint64_t deadline = transport_deadline(wire->transport);
    atomic_store_explicit(&wire->deadline_ns, deadline, memory_order_relaxed);
    if (deadline != TRANSPORT_NEVER)
        roce_due_at(deadline);
}

static void push_now(struct qp *qp)
{
    roce_qp_push(qp->wire, now_ns());
}

static void posted(struct qp *qp)
{
    if (!transport_may_wait(qp->wire->transport))
        push_now(qp);
}

static void flush(struct qp *qp)
{
    if (qp_state(qp) != IBV_QPS_SQE) /* where an unreliable one still receives */
        transport_stop(qp->wire->transport);
    transport_flush(qp->wire->transport);
    push_now(qp);
}

static bool is_drained(const struct qp *qp)
{
    return transport_is_drained(qp->wire->transport);
}

const struct link_ops link_roce = {
    .name = "roce",
    .attach = attach,
    .modified = modified,
    .detach = detach,
    .post = post,
    .posted = posted,
    .push = push_now,
    .flush = flush,
    .is_drained = is_drained,
};

/* ---- receiving ---- */

static void note_drained(struct qp *qp)
{
    if (qp_state(qp) == IBV_QPS_SQD && qp->sq_drained_due && is_drained(qp) &&
        !atomic_exchange(&drain_due, true))
        thread_wake();
}

static bool is_from_peer(const struct roce_qp *wire, const struct roce_from *from)
{
    return memcmp(wire->path.icrc.target, from->icrc.source, 16) == 0 &&
           wire->path.port == from->port;
}

/* A request that asks for nothing changes nothing that goes out. */
static bool has_something_to_say(const struct roce_qp *wire, uint64_t now,
                                 const struct wire_packet *packet)
{
    return (wire_traits(packet->opcode) & WIRE_IS_RESPONSE) ||
           transport_has_next(wire->transport, now);
}

bool roce_qp_receive(struct qp *qp, const struct roce_from *from, const struct wire_packet *packet)
{
    spin_lock_word(&qp->pub->busy);
    struct roce_qp *wire = qp->wire;
    bool known = wire && is_from_peer(wire, from);
    if (known) {
        transport_receive(wire->transport, from->now_ns, packet, (from->traffic_class & 3) == 3);
        if (__builtin_expect(qp_state(qp) == IBV_QPS_RTR, 0))
            qp_established(qp);
        if (!wire->touched && has_something_to_say(wire, from->now_ns, packet)) {
            wire->touched = true;
            wire->touched_next = touched;
            touched = wire;
        }
    }
    spin_unlock_word(&qp->pub->busy);
    return known;
}

static void answer(struct roce_qp *wire, uint64_t now)
{
    struct qp *qp = wire->qp;

    spin_lock_word(&qp->pub->busy);
    roce_qp_push(wire, now);
    count_tries(wire);
    note_drained(qp);
    spin_unlock_word(&qp->pub->busy);
}

bool roce_qp_waits(void)
{
    return touched;
}

bool roce_qp_answer_urgent(uint64_t now)
{
    struct roce_qp **at = &touched;

    while (*at) {
        struct roce_qp *wire = *at;

        spin_lock_word(&wire->qp->pub->busy);
        bool urgent = transport_is_urgent(wire->transport, now);
        spin_unlock_word(&wire->qp->pub->busy);
        if (!urgent) {
            at = &wire->touched_next;
            continue;
        }
        *at = wire->touched_next;
        wire->touched = false;
        answer(wire, now);
    }
    return touched;
}

void roce_qp_answer(uint64_t now)
{
    while (touched) {
        struct roce_qp *wire = touched;

        touched = wire->touched_next;
        wire->touched = false;
        answer(wire, now);
    }
}

/* ---- time ---- */

uint64_t roce_qp_expire(uint64_t now)
{
    uint64_t next = TRANSPORT_NEVER;

    for (struct roce_qp *wire = all; wire; wire = wire->next) {
        uint64_t deadline = atomic_load_explicit(&wire->deadline_ns, memory_order_relaxed);

        if (deadline <= now) {
            spin_lock_word(&wire->qp->pub->busy);
            transport_expire(wire->transport, now);
            spin_unlock_word(&wire->qp->pub->busy);
            answer(wire, now);
            deadline = atomic_load_explicit(&wire->deadline_ns, memory_order_relaxed);
        }
        next = deadline < next ? deadline : next;
    }
    return next;
}

/* core_lock keeps the list as it is, too. */
void roce_qp_progress(void)
{
    if (!atomic_exchange(&drain_due, false))
        return;
    for (struct roce_qp *wire = all; wire; wire = wire->next)
        requester_drained(wire->qp);
}

/* Queue pairs are the parent's, and with it their places in our lists. */
void roce_qp_after_fork(void)
{
    all = touched = NULL;
    atomic_store(&drain_due, false);
}
