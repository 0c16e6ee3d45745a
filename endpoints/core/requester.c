/* SPDX-License-Identifier: MIT */
/*
 * The send queue. A WQE runs where it is posted; one that can't be finished is stored with all that
 * follow it, and the queue pair goes on the stall list:
 *
 *   post --run--> DONE: complete
 *          `----> STALL: store --> list --> retried by posts, polls and the engine thread, until it
 *                                           is done or its deadline passes
 */
#define _GNU_SOURCE
#include "core/requester.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/counters.h"
#include "core/cq_impl.h"
#include "core/mr_bind.h"
#include "core/thread.h"
#include "core/wr.h"
#include "link/link.h"

/* On the way of every message. */
#define STRAIGHT static inline __attribute__((always_inline))
/* And what is not stays out of its way. */
#define COLD static __attribute__((cold, noinline))

enum {
    ATTACH_FLOOR_NS = 100000000,   /* a peer on a busy machine gets this long to answer */
    CONNECT_FLOOR_NS = 2000000000, /* one that is known to live gets longer to let us in */
    DATAGRAM_WAIT_NS = 1000000000, /* UD, UC, while connecting: then the message counts as lost */
    RETRY_MIN_NS = 200000,         /* the program polls before that, or sleeps */
    RETRY_MAX_NS = 5000000,
};

/* Newly stalled queue pairs, pushed by any thread; the list behind it needs core_lock. */
static _Atomic(struct qp *) newly_stalled;
static struct qp *stalled;
static _Atomic uint32_t stalled_count;

/* ---- completing ---- */

STRAIGHT bool is_signalled(const struct qp *qp, const struct ibv_send_wr *wr)
{
    return qp->sq_sig_all || (wr->send_flags & IBV_SEND_SIGNALED);
}

STRAIGHT void push(struct qp *qp, uint64_t wr_id, enum ibv_wr_opcode opcode, uint32_t byte_len,
                   uint32_t position, enum ibv_wc_status status)
{
    struct cqe *cqe = cq_push_begin(qp->send_cq);

    if (!cqe)
        return;
    cqe->kind = CQE_SEND;
    cqe->opcode = (uint8_t)wr_completion_opcode(opcode);
    cqe->status = (uint8_t)status;
    cqe->flags = 0;
    cqe->qp = qp->pub->cookie;
    cqe->wqe = position + 1;
    cqe->byte_len = byte_len;
    cqe->imm = 0;
    cqe->src_qp = 0;
    cqe->inline_len = 0;
    cqe->sl = 0;
    cqe->wr_id = wr_id;
    cq_push_end(qp->send_cq, cqe);
}

void requester_push(struct qp *qp, uint64_t wr_id, enum ibv_wr_opcode opcode, uint32_t byte_len,
                    uint32_t position, enum ibv_wc_status status)
{
    push(qp, wr_id, opcode, byte_len, position, status);
}

static void push_completion(struct qp *qp, const struct ibv_send_wr *wr, uint32_t position,
                            enum ibv_wc_status status)
{
    push(qp, wr->wr_id, wr->opcode, wr_byte_len(wr), position, status);
}

/* IBTA 10.3.1: an error in the send queue of a connected RC moves to ERR, of UC and UD to SQE. */
void requester_fail(struct qp *qp)
{
    bool rc = qp->reliable;

    atomic_store(&qp->state, rc ? IBV_QPS_ERR : IBV_QPS_SQE);
    qp->attr.qp_state = rc ? IBV_QPS_ERR : IBV_QPS_SQE;
    qp_publish(qp);
    requester_flush(qp);
    if (rc)
        qp_fail(qp, 0);
}

void requester_drop_remote(struct qp *qp)
{
    free(qp->remote_reply);
    qp->remote_reply = NULL;
    qp->remote_op = 0;
}

/* What was done of the WQE at the head does not concern the next one. */
STRAIGHT void forget_progress(struct qp *qp)
{
    if (__builtin_expect(qp->remote_op != 0, 0))
        requester_drop_remote(qp);
    qp->wqe_done_bytes = 0;
    qp->rnr_tries = 0;
    if (__builtin_expect(qp->claimed.valid, 0))
        shm_detach(qp);
    qp->fault_since_ns = 0;
    qp->group_since_ns = 0;
    qp->group_done = 0;
    qp->group_out = false;
}

static enum counter counter_of(enum ibv_wc_status status)
{
    switch (status) {
    case IBV_WC_RNR_RETRY_EXC_ERR:
        return COUNTER_RNR_EXCEEDED;
    case IBV_WC_RETRY_EXC_ERR:
        return COUNTER_RETRY_EXCEEDED;
    default:
        return COUNTER_ERRORS;
    }
}

void requester_count_error(const struct qp *qp, enum ibv_wc_status status)
{
    counters_add(qp->pub->nic, counter_of(status), 1);
}

COLD void complete_failed(struct qp *qp, const struct ibv_send_wr *wr, uint32_t position,
                          enum ibv_wc_status status)
{
    qp->stall = STALL_NONE;
    requester_count_error(qp, status);
    push_completion(qp, wr, position, status);
    requester_fail(qp);
}

/* The WQE at the head is over. */
STRAIGHT void complete_now(struct qp *qp, const struct ibv_send_wr *wr, enum ibv_wc_status status)
{
    uint32_t position = qp->sq_head++;

    forget_progress(qp);
    if (__builtin_expect(status != IBV_WC_SUCCESS, 0)) {
        complete_failed(qp, wr, position, status);
        return;
    }
    qp->pub->messages++;
    if (is_signalled(qp, wr))
        push(qp, wr->wr_id, wr->opcode, wr_byte_len(wr), position, IBV_WC_SUCCESS);
}

static void complete(struct qp *qp, const struct ibv_send_wr *wr, enum ibv_wc_status status)
{
    complete_now(qp, wr, status);
}

/* ---- running ---- */

static enum ibv_wc_status run_bind(struct qp *qp, const struct ibv_send_wr *wr)
{
    const struct ibv_mr *mr = wr->bind_mw.bind_info.mr;

    return mw_bind(qp->qpn, qp->pd, wr->bind_mw.mw->handle, wr->bind_mw.rkey, mr ? mr->handle : 0,
                   &wr->bind_mw.bind_info);
}

STRAIGHT enum verdict run(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah,
                          enum ibv_wc_status *status)
{
    switch (wr->opcode) {
    case IBV_WR_BIND_MW:
        *status = run_bind(qp, wr);
        return VERDICT_DONE;
    case IBV_WR_LOCAL_INV:
        *status = mw_invalidate(qp->qpn, qp->pd, wr->invalidate_rkey) ? IBV_WC_SUCCESS
                                                                      : IBV_WC_MW_BIND_ERR;
        return VERDICT_DONE;
    default:
        return shm_execute(qp, wr, ah, status);
    }
}

/* ---- stalling ---- */

/* A peer that is there may be slow to let us in, for want of a core: hardware never is. */
static uint64_t ack_time_ns(const struct qp *qp, enum stall stall)
{
    /* IBTA 9.7.6.1.3: 4.096 us * 2^timeout, once and retry_cnt times again; 0 waits for ever */
    uint64_t once = qp->attr.timeout ? 4096ull << qp->attr.timeout : 0;
    uint64_t all = once * (qp->attr.retry_cnt + 1u);
    uint64_t floor = stall == STALL_CONNECT ? CONNECT_FLOOR_NS : ATTACH_FLOOR_NS;

    return once && all < floor ? floor : all;
}

static bool is_reaching(enum stall stall)
{
    return stall == STALL_ATTACH || stall == STALL_CONNECT;
}

/* 0: without end */
static uint64_t patience_ns(const struct qp *qp, enum stall stall)
{
    if (!qp->reliable)
        return DATAGRAM_WAIT_NS;
    if (is_reaching(stall))
        return ack_time_ns(qp, stall);
    if (stall == STALL_RNR && qp->attr.rnr_retry != 7)
        return wr_rnr_time_ns(qp->target.rnr_timer) * qp->attr.rnr_retry;
    return 0;
}

static void list_push(struct qp *qp)
{
    if (atomic_exchange(&qp->on_stall_list, true))
        return;
    atomic_fetch_add(&stalled_count, 1);
    qp->stall_next = atomic_load(&newly_stalled);
    while (!atomic_compare_exchange_weak(&newly_stalled, &qp->stall_next, qp))
        ;
}

static uint64_t retry_after_ns(const struct qp *qp)
{
    uint64_t shift = qp->rnr_tries < 10 ? qp->rnr_tries : 10;
    uint64_t wait = (uint64_t)RETRY_MIN_NS << shift;

    return wait < RETRY_MAX_NS ? wait : RETRY_MAX_NS;
}

/* The clock starts anew with a new reason; finding and connecting to the target are one. */
static void begin_wait(struct qp *qp, enum stall before)
{
    if (qp->stall == before)
        return;
    uint64_t now = now_ns(), patience = patience_ns(qp, qp->stall);

    if (is_reaching(qp->stall) && is_reaching(before)) {
        if (patience)
            qp->deadline_ns += patience - patience_ns(qp, before);
        return;
    }
    qp->retry_at_ns = now;
    qp->rnr_tries = 0;
    qp->deadline_ns = patience ? now + patience : UINT64_MAX;
    if (qp->stall == STALL_RNR)
        qp->pub->rnr_waits++;
}

/* Waiting makes no sense at all: nobody there to take an unreliable message, or no RNR retries. */
static bool is_hopeless(const struct qp *qp)
{
    if (!qp->reliable)
        return qp->stall == STALL_ATTACH;
    return qp->stall == STALL_RNR && qp->attr.rnr_retry == 0;
}

/* Note why and since when the head waits; true if it has waited long enough to give up. */
static bool stall_expired(struct qp *qp, enum stall before)
{
    begin_wait(qp, before);
    uint64_t now = now_ns();
    if (is_hopeless(qp) || now >= qp->deadline_ns)
        return true;
    if (now >= qp->retry_at_ns) {
        qp->retry_at_ns = now + retry_after_ns(qp);
        qp->rnr_tries++;
        qp->pub->retries++;
    }
    if (qp->retry_at_ns > qp->deadline_ns)
        qp->retry_at_ns = qp->deadline_ns;
    return false;
}

static enum ibv_wc_status give_up_status(const struct qp *qp)
{
    if (!qp->reliable)
        return IBV_WC_SUCCESS; /* unreliable: sent and lost */
    return qp->stall == STALL_RNR ? IBV_WC_RNR_RETRY_EXC_ERR : IBV_WC_RETRY_EXC_ERR;
}

/* Run the head WQE. True: it is over. */
static bool run_head(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah)
{
    enum ibv_wc_status status = IBV_WC_SUCCESS;
    enum stall before = qp->stall;

    qp->stall = STALL_NONE;
    if (run(qp, wr, ah, &status) == VERDICT_STALL) {
        if (!stall_expired(qp, before))
            return false;
        status = give_up_status(qp);
        qp->stall = STALL_NONE;
    }
    complete(qp, wr, status);
    return true;
}

/* ---- the stored queue ---- */

static struct sq_entry *entry_at(struct qp *qp, uint32_t position)
{
    size_t at = (position & qp->sq_mask) * qp->sq_entry_size;

    return (struct sq_entry *)(void *)(qp->sq_entries + at);
}

static char *entry_inline(const struct qp *qp, struct sq_entry *entry)
{
    return (char *)(entry->sges + qp->cap.max_send_sge);
}

static bool has_entries(struct qp *qp)
{
    if (!qp->sq_entries)
        qp->sq_entries = calloc(qp->sq_mask + 1, qp->sq_entry_size);
    return qp->sq_entries;
}

static void copy_inline(const struct qp *qp, struct sq_entry *entry, const struct ibv_send_wr *wr)
{
    char *to = entry_inline(qp, entry);
    uint32_t length = 0;

    for (int i = 0; i < wr->num_sge; i++) {
        const struct ibv_sge *sge = &wr->sg_list[i];

        if (sge->length)
            memcpy(to + length, (const void *)(uintptr_t)sge->addr, sge->length);
        length += sge->length;
    }
    entry->sges[0] = (struct ibv_sge){.addr = (uintptr_t)to, .length = length};
    entry->wr.num_sge = 1;
}

static void copy_bind(struct sq_entry *entry, const struct ibv_send_wr *wr)
{
    entry->bind.mw = *wr->bind_mw.mw;
    entry->wr.bind_mw.mw = &entry->bind.mw;
    if (!wr->bind_mw.bind_info.mr)
        return;
    entry->bind.mr = *wr->bind_mw.bind_info.mr;
    entry->wr.bind_mw.bind_info.mr = &entry->bind.mr;
}

static void store(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah,
                  uint32_t position)
{
    struct sq_entry *entry = entry_at(qp, position);

    entry->wr = *wr;
    entry->wr.next = NULL;
    entry->wr.sg_list = entry->sges;
    if (ah)
        entry->ah = *ah;
    if (wr->opcode == IBV_WR_BIND_MW)
        copy_bind(entry, wr);
    if (wr->send_flags & IBV_SEND_INLINE)
        copy_inline(qp, entry, wr);
    else if (wr->num_sge)
        memcpy(entry->sges, wr->sg_list, (size_t)wr->num_sge * sizeof(struct ibv_sge));
}

/* IBTA 10.3.1.5: in SQD only the WQE that has begun goes on. */
static bool may_run(const struct qp *qp)
{
    enum ibv_qp_state state = qp_state((struct qp *)qp);

    return state == IBV_QPS_RTS || (state == IBV_QPS_SQD && qp->stall != STALL_NONE);
}

void requester_drained(struct qp *qp)
{
    if (!qp->sq_drained_due || qp_state(qp) != IBV_QPS_SQD || qp->stall != STALL_NONE ||
        (qp->link && !qp->link->is_drained(qp)))
        return;
    qp->sq_drained_due = false;
    if (qp->attr.en_sqd_async_notify)
        event_async(qp->context, IBV_EVENT_SQ_DRAINED, qp->user_handle, &qp->events);
}

static void note_waiting(struct qp *qp)
{
    qp->pub->waiting = qp->sq_tail - qp->sq_head;
}

static void run_queue(struct qp *qp)
{
    while (qp->sq_head != qp->sq_tail && may_run(qp)) {
        struct sq_entry *entry = entry_at(qp, qp->sq_head);

        if (!run_head(qp, &entry->wr, qp->type == IBV_QPT_UD ? &entry->ah : NULL)) {
            list_push(qp);
            thread_wake_at(qp->retry_at_ns);
            break;
        }
    }
    note_waiting(qp);
}

void requester_start(struct qp *qp)
{
    spin_lock_word(&qp->pub->busy);
    if (qp->link)
        qp->link->push(qp);
    else
        run_queue(qp);
    spin_unlock_word(&qp->pub->busy);
    requester_drained(qp);
}

/* A listed one: true if it still waits. It leaves the list under busy, as it came. */
static bool progress_listed(struct qp *qp)
{
    if (!spin_try_word(&qp->pub->busy)) {
        thread_wake_at(now_ns() + RETRY_MIN_NS); /* its holder only stores what it posts */
        return true;
    }
    run_queue(qp);
    bool waits = qp->stall != STALL_NONE;
    if (!waits)
        atomic_store(&qp->on_stall_list, false);
    spin_unlock_word(&qp->pub->busy);
    requester_drained(qp);
    return waits;
}

/* core_lock held. Bring the newly stalled into the list, try all, keep those that still wait. */
static void progress_list(void)
{
    for (struct qp *qp = atomic_exchange(&newly_stalled, NULL), *after; qp; qp = after) {
        after = qp->stall_next;
        qp->stall_next = stalled;
        stalled = qp;
    }
    for (struct qp **at = &stalled, *qp; (qp = *at);) {
        struct qp *after = qp->stall_next;

        if (progress_listed(qp)) {
            at = &qp->stall_next;
        } else {
            *at = after; /* it may be on newly_stalled again by now */
            atomic_fetch_sub(&stalled_count, 1);
        }
    }
}

void requester_progress_all(void)
{
    if (atomic_load(&stalled_count))
        progress_list();
}

/*
 * A program that polls in vain may be preempted in here, and the engine, which needs the lock to
 * get on with what is waited for, then waits as long. So polls hold it an eighth of the time only.
 */
void requester_poll(void)
{
    static _Atomic uint64_t again_ns;

    if (__builtin_expect((atomic_load_explicit(&stalled_count, memory_order_relaxed) |
                          atomic_load_explicit(&link_to_poll, memory_order_relaxed)) == 0,
                         1))
        return;
    if (atomic_load_explicit(&link_to_poll, memory_order_relaxed))
        link_poll();
    if (!atomic_load_explicit(&stalled_count, memory_order_relaxed))
        return;
    uint64_t begin = now_ns();
    if (begin < atomic_load_explicit(&again_ns, memory_order_relaxed) || !core_try_lock())
        return;
    progress_list();
    core_unlock();
    uint64_t end = now_ns(), pause = 8 * (end - begin);
    atomic_store_explicit(&again_ns, end + (pause < RETRY_MIN_NS ? pause : RETRY_MIN_NS),
                          memory_order_relaxed);
}

void requester_after_fork(void)
{
    atomic_store(&newly_stalled, NULL);
    stalled = NULL;
    atomic_store(&stalled_count, 0);
}

/* ---- flushing ---- */

void requester_flush(struct qp *qp)
{
    qp->stall = STALL_NONE;
    if (qp->link) {
        qp->link->flush(qp);
        return;
    }
    while (qp->sq_head != qp->sq_tail) {
        struct sq_entry *entry = entry_at(qp, qp->sq_head);

        push_completion(qp, &entry->wr, qp->sq_head++, IBV_WC_WR_FLUSH_ERR);
    }
    forget_progress(qp);
    note_waiting(qp);
}

void requester_reset(struct qp *qp)
{
    qp->stall = STALL_NONE;
    qp->sq_head = qp->sq_tail;
    forget_progress(qp);
    qp->sq_drained_due = false;
    note_waiting(qp);
}

void requester_leave_list(struct qp *qp)
{
    /* Its queue is empty, so it leaves; but not while somebody posts to it even now. */
    while (atomic_load(&qp->on_stall_list))
        progress_list();
}

void requester_give_up(struct qp *qp)
{
    spin_lock_word(&qp->pub->busy);
    if (qp->sq_head != qp->sq_tail && !qp->link) {
        struct sq_entry *entry = entry_at(qp, qp->sq_head);
        bool rc = qp->reliable;

        qp->stall = STALL_NONE;
        complete(qp, &entry->wr, rc ? IBV_WC_RETRY_EXC_ERR : IBV_WC_SUCCESS);
    }
    spin_unlock_word(&qp->pub->busy);
}

/* ---- posting ---- */

STRAIGHT int check_inline(const struct qp *qp, const struct ibv_send_wr *wr)
{
    uint64_t length = 0;

    if (!(wr->send_flags & IBV_SEND_INLINE))
        return 0;
    for (int i = 0; i < wr->num_sge; i++)
        length += wr->sg_list[i].length;
    return length > qp->cap.max_inline_data || !wr_may_inline(wr->opcode) ? EINVAL : 0;
}

STRAIGHT int check_post(struct qp *qp, const struct ibv_send_wr *wr)
{
    if (wr->num_sge < 0 || (uint32_t)wr->num_sge > qp->cap.max_send_sge ||
        !wr_opcode_allowed(qp->type, wr->opcode))
        return EINVAL;
    if (qp->sq_tail - atomic_load_explicit(&qp->sq_freed, memory_order_acquire) >=
        qp->cap.max_send_wr)
        return ENOMEM;
    return check_inline(qp, wr);
}

static const struct ah *wr_ah(const struct qp *qp, const struct ibv_send_wr *wr)
{
    return qp->type == IBV_QPT_UD && wr->wr.ud.ah ? ah_get(wr->wr.ud.ah->handle) : NULL;
}

/* Behind others that wait, or it waits itself. */
static int post_stored(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah,
                       bool stalled_now)
{
    if (!has_entries(qp)) {
        if (stalled_now) {
            qp->stall = STALL_NONE;
            forget_progress(qp);
        }
        return ENOMEM;
    }
    store(qp, wr, ah, qp->sq_tail++);
    note_waiting(qp);
    if (stalled_now) {
        list_push(qp);
        thread_wake_at(qp->retry_at_ns);
    }
    return 0;
}

COLD int post_stalled(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah)
{
    if (!stall_expired(qp, STALL_NONE))
        return post_stored(qp, wr, ah, true);
    enum ibv_wc_status status = give_up_status(qp);
    qp->sq_tail++;
    qp->stall = STALL_NONE;
    complete(qp, wr, status);
    return 0;
}

STRAIGHT int post_running(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah)
{
    enum ibv_wc_status status = IBV_WC_SUCCESS;

    if (__builtin_expect(run(qp, wr, ah, &status) != VERDICT_DONE, 0))
        return post_stalled(qp, wr, ah);
    qp->sq_tail++;
    complete_now(qp, wr, status);
    return 0;
}

COLD int post_flushed(struct qp *qp, const struct ibv_send_wr *wr)
{
    push_completion(qp, wr, qp->sq_tail++, IBV_WC_WR_FLUSH_ERR);
    qp->sq_head = qp->sq_tail;
    return 0;
}

STRAIGHT int post_one(struct qp *qp, const struct ibv_send_wr *wr)
{
    int error = check_post(qp, wr);

    if (error)
        return error;
    const struct ah *ah = wr_ah(qp, wr);
    if (qp->type == IBV_QPT_UD && !ah)
        return EINVAL;
    enum ibv_qp_state state = qp_state(qp);
    if (__builtin_expect(state == IBV_QPS_RTS && qp->sq_head == qp->sq_tail, 1))
        return post_running(qp, wr, ah);
    if (state == IBV_QPS_RTS || state == IBV_QPS_SQD)
        return post_stored(qp, wr, ah, false);
    if (state != IBV_QPS_ERR && state != IBV_QPS_SQE)
        return EINVAL;
    return post_flushed(qp, wr);
}

/* The link keeps what is posted; it goes out with posted(). */
COLD int post_to_link(struct qp *qp, const struct ibv_send_wr *wr)
{
    int error = check_post(qp, wr);
    enum ibv_qp_state state = qp_state(qp);

    if (error)
        return error;
    if (state == IBV_QPS_ERR || state == IBV_QPS_SQE)
        return post_flushed(qp, wr);
    if (state != IBV_QPS_RTS && state != IBV_QPS_SQD)
        return EINVAL;
    qp->sq_tail++;
    if (qp->link->post(qp, wr))
        return 0;
    qp->sq_tail--;
    return ENOMEM;
}

STRAIGHT int post_any(struct qp *qp, const struct ibv_send_wr *wr)
{
    return __builtin_expect(qp->link != NULL, 0) ? post_to_link(qp, wr) : post_one(qp, wr);
}

static void posted(struct qp *qp)
{
    if (__builtin_expect(qp->link != NULL, 0))
        qp->link->posted(qp);
}

int qp_post_send(struct qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad_wr)
{
    int error = 0;

    spin_lock_word(&qp->pub->busy);
    for (; wr; wr = wr->next) {
        error = post_any(qp, wr);
        if (__builtin_expect(error, 0)) {
            *bad_wr = wr;
            break;
        }
    }
    posted(qp);
    spin_unlock_word(&qp->pub->busy);
    return error;
}

int qp_post_batch(struct qp *qp, struct ibv_send_wr *wr)
{
    int error = 0;

    spin_lock_word(&qp->pub->busy);
    uint32_t used = qp->sq_tail - atomic_load_explicit(&qp->sq_freed, memory_order_acquire);
    for (const struct ibv_send_wr *each = wr; each && !error; each = each->next, used++) {
        error = used >= qp->cap.max_send_wr ? ENOMEM : check_post(qp, each);
        if (!error && qp->type == IBV_QPT_UD && !wr_ah(qp, each))
            error = EINVAL;
    }
    for (; wr && !error; wr = wr->next)
        error = post_any(qp, wr);
    posted(qp);
    spin_unlock_word(&qp->pub->busy);
    return error;
}

/* Type 1: the new rkey is the old one with the next variant, as hardware drivers do. */
int qp_bind_mw(struct qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
    uint32_t key = (mw->rkey & ~0xffu) | ((mw->rkey + 1) & 0xff);
    struct ibv_send_wr wr = {
        .wr_id = bind->wr_id,
        .opcode = IBV_WR_BIND_MW,
        .send_flags = bind->send_flags,
        .bind_mw = {.mw = mw, .rkey = key, .bind_info = bind->bind_info},
    };
    struct ibv_send_wr *bad;

    if (mw->type != IBV_MW_TYPE_1)
        return EINVAL;
    int error = qp_post_send(qp, &wr, &bad);
    if (!error)
        mw->rkey = key;
    return error;
}
