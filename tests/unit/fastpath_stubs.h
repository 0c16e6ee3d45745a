/* SPDX-License-Identifier: MIT */
/*
 * Stand-ins for what the fast path sits between: a verbs library (its context, a provider's
 * functions that are never to be called once ours are in) and the core (objects that note what they
 * are told). Included once by each test program.
 */
#ifndef FASTPATH_STUBS_H
#define FASTPATH_STUBS_H

#include <stdlib.h>

#include "core/limits.h"
#include "core/objects.h"
#include "core/qp.h"
#include "t.h"
#include "uapi/fastpath.h"
#include "uapi/uapi.h"

enum { STUB_CMD_FD = 70, STUB_ASYNC_FD = 71, STUB_HANDLE = 5, STUB_WCS = 4, STUB_SRQN = 77 };

struct cq {
    struct context *context;
    uint64_t user_handle;
    int locked, stamped, polls, arms;
    int ready; /* completions to come; negative: an errno */
    struct completion completions[STUB_WCS];
};

struct qp {
    struct context *context;
    uint64_t user_handle;
    struct cq *send_cq, *recv_cq;
    struct ibv_qp_cap cap;
    int sends, recvs, binds, result;
    struct ibv_send_wr *wr; /* of the last post */
};

struct srq {
    struct context *context;
    int recvs;
};

static int core_locks;
static struct context stub_context = {.async_fd = STUB_ASYNC_FD};
static struct uapi_file stub_file;
static struct cq stub_cq;
static struct qp stub_qp;
static struct srq stub_srq;
static struct verbs_context stub_verbs;
static bool stub_gone; /* the queue pair, as after a fork */

/* ---- the core ---- */

void core_lock(void)
{
    core_locks++;
}

void core_unlock(void)
{
    core_locks--;
}

struct uapi_file *fdtab_get(int fd)
{
    return fd == STUB_CMD_FD ? &stub_file : NULL;
}

struct context *uverbs_file_context(const struct uapi_file *file)
{
    T_EQ(core_locks, 1);
    return file == &stub_file ? &stub_context : NULL;
}

struct cq *cq_get(uint32_t handle)
{
    return handle == STUB_HANDLE ? &stub_cq : NULL;
}

uint32_t cq_handle(struct cq *cq)
{
    T_ASSERT(cq == &stub_cq);
    return STUB_HANDLE;
}

struct context *cq_context(struct cq *cq)
{
    return cq->context;
}

uint64_t cq_user_handle(struct cq *cq)
{
    return cq->user_handle;
}

void cq_stamp(struct cq *cq)
{
    cq->stamped++;
}

int cq_poll(struct cq *cq, int n, struct ibv_wc *wc)
{
    cq->polls++;
    wc->wr_id = (uint64_t)n;
    return n;
}

int cq_arm(struct cq *cq, bool solicited_only)
{
    cq->arms += solicited_only ? 100 : 1;
    return cq->arms > 200 ? -ENOMEM : 0;
}

void cq_poll_lock(struct cq *cq)
{
    cq->locked++;
}

void cq_poll_unlock(struct cq *cq)
{
    cq->locked--;
}

void cq_session(struct cq *cq, bool open)
{
    (void)cq;
    (void)open;
}

int cq_poll_one(struct cq *cq, struct completion *out)
{
    T_EQ(cq->locked, 1);
    if (cq->ready <= 0)
        return cq->ready;
    *out = cq->completions[(STUB_WCS * 10000 - cq->ready--) % STUB_WCS];
    return 1;
}

struct qp *qp_get(uint32_t handle)
{
    return handle == STUB_HANDLE && !stub_gone ? &stub_qp : NULL;
}

uint32_t qp_number(struct qp *qp)
{
    T_ASSERT(qp == &stub_qp);
    return 3u << LIMIT_QP_BITS | STUB_HANDLE;
}

struct context *qp_context(struct qp *qp)
{
    return qp->context;
}

uint64_t qp_user_handle(struct qp *qp)
{
    return qp->user_handle;
}

struct cq *qp_send_cq(struct qp *qp)
{
    return qp->send_cq;
}

struct cq *qp_recv_cq(struct qp *qp)
{
    return qp->recv_cq;
}

void qp_query(struct qp *qp, struct ibv_qp_attr *attr_out, struct ibv_qp_init_attr *init_out)
{
    *attr_out = (struct ibv_qp_attr){.cap = qp->cap};
    *init_out = (struct ibv_qp_init_attr){.cap = qp->cap};
}

int qp_post_send(struct qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad_wr)
{
    qp->sends++;
    qp->wr = wr;
    if (qp->result)
        *bad_wr = wr;
    return qp->result;
}

int qp_post_batch(struct qp *qp, struct ibv_send_wr *wr)
{
    qp->sends++;
    qp->wr = wr;
    return qp->result;
}

int qp_post_recv(struct qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
    (void)wr, (void)bad_wr;
    qp->recvs++;
    return 0;
}

int qp_bind_mw(struct qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
    (void)mw, (void)bind;
    qp->binds++;
    return 0;
}

struct srq *srq_get(uint32_t handle)
{
    return handle == STUB_HANDLE ? &stub_srq : NULL;
}

struct context *srq_context(struct srq *srq)
{
    return srq->context;
}

struct pd *pd_get(uint32_t handle)
{
    (void)handle;
    return NULL;
}

int pd_alloc_parent(struct pd *pd, struct td *td, struct pd **pd_out)
{
    (void)pd, (void)td, (void)pd_out;
    return -ENOMEM;
}

uint32_t srq_number(struct srq *srq)
{
    (void)srq;
    return STUB_SRQN;
}

int srq_post_recv(struct srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
    (void)wr, (void)bad_wr;
    srq->recvs++;
    return 0;
}

/* ---- the verbs library ---- */

/* In every slot of the provider's: must have been replaced before it is called. */
static int stock(void)
{
    T_FAIL("a function of the provider was called");
}

static struct ibv_cq_ex stock_cq_ex;
static uint64_t stock_wc_flags;

static struct ibv_cq_ex *stock_create_cq_ex(struct ibv_context *ibv,
                                            struct ibv_cq_init_attr_ex *attr)
{
    T_ASSERT(ibv == &stub_verbs.context);
    T_EQ(core_locks, 0);
    stock_wc_flags = attr->wc_flags;
    if (attr->wc_flags & IBV_WC_EX_WITH_FLOW_TAG) {
        errno = EOPNOTSUPP;
        return NULL;
    }
    return &stock_cq_ex;
}

static struct ibv_qp_ex stock_qp_ex;

static struct ibv_qp *stock_create_qp_ex(struct ibv_context *ibv, struct ibv_qp_init_attr_ex *attr)
{
    (void)attr;
    T_ASSERT(ibv == &stub_verbs.context);
    T_EQ(core_locks, 0);
    return &stock_qp_ex.qp_base;
}

/* Fill function pointers from `first` up to the end of the struct. */
static inline void stock_fill(void *object, size_t first, size_t end)
{
    for (size_t at = first; at < end; at += sizeof(void *)) {
        int (*function)(void) = stock;

        memcpy((char *)object + at, &function, sizeof(function));
    }
}

static inline void stub_reset(void)
{
    stub_verbs = (struct verbs_context){
        .sz = sizeof(stub_verbs),
        .create_cq_ex = stock_create_cq_ex,
        .create_qp_ex = stock_create_qp_ex,
        .context = {.cmd_fd = STUB_CMD_FD,
                    .async_fd = STUB_ASYNC_FD,
                    .abi_compat = __VERBS_ABI_IS_EXTENDED},
    };
    stock_fill(&stub_verbs.context.ops, 0, sizeof(stub_verbs.context.ops));
    fastpath_context_closed(&stub_context);
    stub_context.ibv = NULL;
    stub_cq = (struct cq){.context = &stub_context};
    stub_qp = (struct qp){.context = &stub_context, .send_cq = &stub_cq, .recv_cq = &stub_cq};
    stub_srq = (struct srq){.context = &stub_context};
    stock_cq_ex = (struct ibv_cq_ex){.context = &stub_verbs.context, .handle = STUB_HANDLE};
    stock_fill(&stock_cq_ex, offsetof(struct ibv_cq_ex, start_poll),
               offsetof(struct ibv_cq_ex, read_completion_ts));
    stock_qp_ex =
        (struct ibv_qp_ex){.qp_base = {.context = &stub_verbs.context, .handle = STUB_HANDLE}};
    stock_fill(&stock_qp_ex, offsetof(struct ibv_qp_ex, wr_atomic_cmp_swp), sizeof(stock_qp_ex));
}

static inline bool stub_is_patched(void)
{
    return (uintptr_t)stub_verbs.context.ops.poll_cq != (uintptr_t)stock;
}

#endif
