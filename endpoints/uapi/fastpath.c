/* SPDX-License-Identifier: MIT */
/* Finding the program's function tables and putting our functions in (fastpath.h). */
#include "uapi/fastpath.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "core/objects.h"
#include "core/qp.h"
#include "core/sys.h"
#include "uapi/domain.h"
#include "uapi/uapi.h"
#include "uapi/xrc.h"

typedef struct ibv_cq_ex *create_cq_ex_fn(struct ibv_context *, struct ibv_cq_init_attr_ex *);

/* A context whose tables are ours, and what was in them. The list is guarded by core_lock(). */
struct patched {
    struct context *context;
    struct ibv_context *ibv;
    create_cq_ex_fn *create_cq_ex;
    create_qp_ex_fn *create_qp_ex;
    struct patched *next;
};

static struct patched *patched_list;

/* ---- our functions: handle, object, call ---- */

static int fast_poll_cq(struct ibv_cq *ibv, int count, struct ibv_wc *wc)
{
    struct cq *cq = cq_get(ibv->handle);

    return cq ? cq_poll(cq, count, wc) : -EIO;
}

static int fast_req_notify_cq(struct ibv_cq *ibv, int solicited_only)
{
    struct cq *cq = cq_get(ibv->handle);

    return cq ? -cq_arm(cq, solicited_only != 0) : EIO;
}

static int fast_post_send(struct ibv_qp *ibv, struct ibv_send_wr *wr, struct ibv_send_wr **bad_wr)
{
    struct qp *qp = qp_get(ibv->handle);

    if (qp)
        return qp_post_send(qp, wr, bad_wr);
    *bad_wr = wr;
    return EIO;
}

static int fast_post_recv(struct ibv_qp *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
    struct qp *qp = qp_get(ibv->handle);

    if (qp)
        return qp_post_recv(qp, wr, bad_wr);
    *bad_wr = wr;
    return EIO;
}

static int fast_post_srq_recv(struct ibv_srq *ibv, struct ibv_recv_wr *wr,
                              struct ibv_recv_wr **bad_wr)
{
    struct srq *srq = srq_get(ibv->handle);

    if (srq)
        return srq_post_recv(srq, wr, bad_wr);
    *bad_wr = wr;
    return EIO;
}

static int fast_bind_mw(struct ibv_qp *ibv, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
    struct qp *qp = qp_get(ibv->handle);

    return qp ? qp_bind_mw(qp, mw, bind) : EIO;
}

/* ---- our functions: creation ---- */

static struct patched *patched_of(const struct ibv_context *ibv)
{
    for (struct patched *p = patched_list; p; p = p->next) {
        if (p->ibv == ibv)
            return p;
    }
    return NULL;
}

/* A program built with an old header passes a shorter struct: it ends before parent_domain. */
static struct ibv_cq_init_attr_ex copy_attr(const struct ibv_cq_init_attr_ex *attr)
{
    struct ibv_cq_init_attr_ex copy = {0};
    size_t size = sizeof(copy);

    if (!(attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD))
        size = offsetof(struct ibv_cq_init_attr_ex, parent_domain);
    memcpy(&copy, attr, size);
    return copy;
}

/* The stock provider refuses the fields that it can't deliver; those that we can, it never sees. */
static struct ibv_cq_ex *fast_create_cq_ex(struct ibv_context *ibv,
                                           struct ibv_cq_init_attr_ex *attr)
{
    struct ibv_cq_init_attr_ex copy = copy_attr(attr);
    bool single_threaded = copy.comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS &&
                           copy.flags & IBV_CREATE_CQ_ATTR_SINGLE_THREADED;

    core_lock();
    struct patched *patched = patched_of(ibv);
    create_cq_ex_fn *original = patched ? patched->create_cq_ex : NULL;
    core_unlock();
    if (!original) {
        errno = EIO;
        return NULL;
    }
    copy.wc_flags &= ~CQEX_OWN_FLAGS;
    copy.comp_mask &= ~(uint32_t)IBV_CQ_INIT_ATTR_MASK_PD; /* a parent domain changes nothing */
    struct ibv_cq_ex *ex = original(ibv, &copy);
    if (!ex)
        return NULL;
    core_lock();
    struct cq *cq = cq_get(ex->handle);
    if (cq)
        cqex_patch(ex, cq, attr->wc_flags & CQEX_OWN_FLAGS, single_threaded);
    core_unlock();
    return ex;
}

static create_qp_ex_fn *original_create_qp_ex(const struct ibv_context *ibv)
{
    core_lock();
    struct patched *patched = patched_of(ibv);
    create_qp_ex_fn *original = patched ? patched->create_qp_ex : NULL;
    core_unlock();
    if (!original)
        errno = EIO;
    return original;
}

static bool is_xrc(enum ibv_qp_type type)
{
    return type == IBV_QPT_XRC_SEND || type == IBV_QPT_XRC_RECV;
}

static struct ibv_qp *fast_create_qp_ex(struct ibv_context *ibv, struct ibv_qp_init_attr_ex *attr)
{
    bool extended = attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
    create_qp_ex_fn *original = original_create_qp_ex(ibv);

    if (!original)
        return NULL;
    if (extended && attr->send_ops_flags & ~qpex_supported(attr->qp_type)) {
        errno = EOPNOTSUPP;
        return NULL;
    }
    struct ibv_qp *ibv_qp =
        is_xrc(attr->qp_type) ? xrc_create_qp(original, ibv, attr) : original(ibv, attr);
    if (!ibv_qp || !extended)
        return ibv_qp;
    core_lock();
    struct qp *qp = qp_get(ibv_qp->handle);
    if (qp)
        qpex_patch((struct ibv_qp_ex *)ibv_qp, qp);
    core_unlock();
    return ibv_qp;
}

static struct ibv_qp *fast_open_qp(struct ibv_context *ibv, struct ibv_qp_open_attr *attr)
{
    create_qp_ex_fn *original = original_create_qp_ex(ibv);

    return original ? xrc_open_qp(original, ibv, attr) : NULL;
}

/* The NIC's clock, which completion timestamps are read from: the wall clock in nanoseconds. */
static int fast_query_rt_values(struct ibv_context *ibv, struct ibv_values_ex *values)
{
    struct timespec now;

    (void)ibv;
    if (values->comp_mask & ~(uint32_t)IBV_VALUES_MASK_RAW_CLOCK)
        return EINVAL;
    if (values->comp_mask & IBV_VALUES_MASK_RAW_CLOCK) {
        clock_gettime(CLOCK_REALTIME, &now);
        /* as adapters do: ticks in tv_nsec, however many */
        values->raw_clock.tv_sec = 0;
        values->raw_clock.tv_nsec = now.tv_sec * 1000000000L + now.tv_nsec;
    }
    return 0;
}

/* ---- patching a context ---- */

/* Does this context, as its library built it, have that slot? */
#define HAS_SLOT(size, slot)                                                                       \
    ((size) >= sizeof(struct verbs_context) - offsetof(struct verbs_context, slot))

static struct verbs_context *verbs_of(struct ibv_context *ibv)
{
    return (struct verbs_context *)((char *)ibv - offsetof(struct verbs_context, context));
}

static void patch_ops(struct ibv_context_ops *ops)
{
    __atomic_store_n(&ops->poll_cq, fast_poll_cq, __ATOMIC_RELEASE);
    __atomic_store_n(&ops->req_notify_cq, fast_req_notify_cq, __ATOMIC_RELEASE);
    __atomic_store_n(&ops->post_send, fast_post_send, __ATOMIC_RELEASE);
    __atomic_store_n(&ops->post_recv, fast_post_recv, __ATOMIC_RELEASE);
    __atomic_store_n(&ops->post_srq_recv, fast_post_srq_recv, __ATOMIC_RELEASE);
    __atomic_store_n(&ops->bind_mw, fast_bind_mw, __ATOMIC_RELEASE);
}

static void patch_slots(struct verbs_context *verbs, struct patched *patched)
{
    if (HAS_SLOT(verbs->sz, create_qp_ex)) {
        patched->create_qp_ex = verbs->create_qp_ex;
        FASTPATH_SWAP(verbs, create_qp_ex, fast_create_qp_ex);
    }
    if (HAS_SLOT(verbs->sz, create_cq_ex)) {
        patched->create_cq_ex = verbs->create_cq_ex;
        FASTPATH_SWAP(verbs, create_cq_ex, fast_create_cq_ex);
    }
    if (HAS_SLOT(verbs->sz, open_xrcd)) {
        __atomic_store_n(&verbs->open_xrcd, xrc_open_domain, __ATOMIC_RELEASE);
        __atomic_store_n(&verbs->close_xrcd, xrc_close_domain, __ATOMIC_RELEASE);
        __atomic_store_n(&verbs->get_srq_num, xrc_srq_number, __ATOMIC_RELEASE);
    }
    if (HAS_SLOT(verbs->sz, open_qp))
        __atomic_store_n(&verbs->open_qp, fast_open_qp, __ATOMIC_RELEASE);
    if (HAS_SLOT(verbs->sz, alloc_parent_domain)) {
        __atomic_store_n(&verbs->alloc_td, domain_alloc_td, __ATOMIC_RELEASE);
        __atomic_store_n(&verbs->dealloc_td, domain_dealloc_td, __ATOMIC_RELEASE);
        __atomic_store_n(&verbs->alloc_parent_domain, domain_alloc_parent, __ATOMIC_RELEASE);
    }
    if (HAS_SLOT(verbs->sz, query_rt_values))
        __atomic_store_n(&verbs->query_rt_values, fast_query_rt_values, __ATOMIC_RELEASE);
}

/* Without memory nothing is patched: the next command tries again. */
static void patch_context(struct context *context, struct ibv_context *ibv)
{
    struct patched *patched = calloc(1, sizeof(*patched));

    if (!patched)
        return;
    patched->context = context;
    patched->ibv = ibv;
    patched->next = patched_list;
    patched_list = patched;
    patch_slots(verbs_of(ibv), patched);
    patch_ops(&ibv->ops);
    context->ibv = ibv;
}

/* ---- is it a context, and that of this file? ---- */

/* Where the call below is forbidden: a pipe takes what can be read, and refuses the rest. */
static bool read_by_pipe(uint64_t addr, void *out, size_t size)
{
    int ends[2];

    if (size > PIPE_BUF || pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return false;
    bool good = sys_write(ends[1], (const void *)(uintptr_t)addr, size) == (ssize_t)size &&
                read(ends[0], out, size) == (ssize_t)size;
    sys_close(ends[0]);
    sys_close(ends[1]);
    return good;
}

bool fastpath_read(uint64_t addr, void *out, size_t size)
{
    struct iovec local = {.iov_base = out, .iov_len = size};
    struct iovec remote = {.iov_base = (void *)(uintptr_t)addr, .iov_len = size};
    ssize_t got = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

    if (got >= 0 || errno == EFAULT)
        return got == (ssize_t)size;
    return read_by_pipe(addr, out, size);
}

struct code_search {
    uintptr_t addr;
    uintptr_t object; /* where the object that holds addr is loaded, + 1 */
};

static int search_object(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct code_search *search = arg;

    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + segment->p_vaddr;

        if (segment->p_type == PT_LOAD && segment->p_flags & PF_X && search->addr >= start &&
            search->addr - start < segment->p_memsz) {
            search->object = info->dlpi_addr + 1;
            return 1;
        }
    }
    return 0;
}

/*
 * The loaded object whose code is at addr, as a number, or 0. Not dladdr(): its lock is held while
 * constructors run, and those may wait for core_lock().
 */
static uintptr_t code_object(uintptr_t addr)
{
    struct code_search search = {.addr = addr};

    dl_iterate_phdr(search_object, &search);
    return search.object;
}

bool fastpath_is_table(uint64_t addr, size_t count, size_t required_from, size_t required)
{
    uintptr_t table[32];
    uintptr_t object = 0;

    if (count > sizeof(table) / sizeof(table[0]) || addr % sizeof(void *) ||
        !fastpath_read(addr, table, count * sizeof(table[0])))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!table[i] && i >= required_from && i < required_from + required)
            return false;
        if (!table[i])
            continue;
        uintptr_t found = code_object(table[i]);
        if (!found || (object && found != object))
            return false;
        object = found;
    }
    return object != 0;
}

static bool is_context_of(uint64_t addr, const struct context *context)
{
    /* the end of struct verbs_context, which only grows at its start */
    struct {
        size_t sz;
        struct ibv_context ibv;
    } seen;

    if (addr % sizeof(void *) || !fastpath_read(addr - sizeof(seen.sz), &seen, sizeof(seen)))
        return false;
    if ((uintptr_t)seen.ibv.abi_compat != UINTPTR_MAX || seen.sz < sizeof(seen) ||
        seen.sz > 65536 || seen.ibv.cmd_fd < 0 || seen.ibv.async_fd != context->async_fd)
        return false;
    const struct uapi_file *file = fdtab_get(seen.ibv.cmd_fd);
    return file && uverbs_file_context(file) == context &&
           code_object((uintptr_t)seen.ibv.ops.poll_cq) &&
           code_object((uintptr_t)seen.ibv.ops.post_send);
}

/* An object of the program tells its context, if it is patched already or now. */
static void learn(struct context *context, uint64_t user_handle)
{
    uint64_t addr;

    if (context->ibv || !fastpath_read(user_handle, &addr, sizeof(addr)))
        return;
    if (is_context_of(addr, context))
        patch_context(context, (struct ibv_context *)(uintptr_t)addr);
}

void fastpath_context_opened(struct ibv_context *ibv)
{
    struct uapi_file *file = ibv->cmd_fd >= 0 ? fdtab_get(ibv->cmd_fd) : NULL;

    if (!file)
        return;
    core_lock();
    struct context *context = uverbs_file_context(file);
    if (context && !context->ibv && is_context_of((uintptr_t)ibv, context))
        patch_context(context, ibv);
    core_unlock();
}

void fastpath_context_closed(struct context *context)
{
    struct patched **link = &patched_list;

    while (*link && (*link)->context != context)
        link = &(*link)->next;
    struct patched *patched = *link;
    if (patched)
        *link = patched->next;
    free(patched);
}

/* ---- what commands tell ---- */

void fastpath_cq_created(struct cq *cq)
{
    cqex_created(cq, cq_context(cq)->ibv != NULL);
    learn(cq_context(cq), cq_user_handle(cq));
}

void fastpath_srq_created(struct srq *srq, uint64_t user_handle)
{
    learn(srq_context(srq), user_handle);
}

/* Each side of a queue pair is another chance; and now a CQ's functions are in place. */
static void qp_uses_cq(struct qp *qp, struct cq *cq)
{
    if (!cq)
        return;
    learn(qp_context(qp), cq_user_handle(cq));
    cqex_probe(cq);
}

void fastpath_qp_created(struct qp *qp)
{
    struct context *context = qp_context(qp);

    qpex_created(qp, context->ibv != NULL);
    learn(context, qp_user_handle(qp));
    qp_uses_cq(qp, qp_send_cq(qp));
    qp_uses_cq(qp, qp_recv_cq(qp));
}

static void complain(void)
{
    static bool said;

    if (!said) {
        fprintf(stderr,
                "viaduct: this program's verbs library keeps its queues out of reach (is it "
                "very old?): what it posts and polls will not get to the device\n");
    }
    said = true;
}

void fastpath_qp_modified(struct qp *qp, enum ibv_qp_state to)
{
    learn(qp_context(qp), qp_user_handle(qp));
    if (to == IBV_QPS_INIT || to == IBV_QPS_RTR)
        qpex_probe(qp);
    if (to == IBV_QPS_RTR && !qp_context(qp)->ibv)
        complain();
}

void fastpath_qp_destroyed(uint32_t qpn)
{
    qpex_destroyed(qpn);
}
