/* SPDX-License-Identifier: MIT */
/*
 * The data path without commands. Programs reach poll, post and arm through public function tables
 * that the stock library fills with the provider's functions; here ours are put in their place.
 *
 *   ibv_context.ops          poll_cq req_notify_cq post_send post_recv post_srq_recv bind_mw
 *   verbs_context            create_cq_ex create_qp_ex query_rt_values
 *                            open_xrcd close_xrcd open_qp get_srq_num (xrc.c)
 *                            alloc_td dealloc_td alloc_parent_domain (domain.c)
 *   ibv_cq_ex (cqex.c)       start_poll ... read_completion_wallclock_ns
 *   ibv_qp_ex (qpex.c)       wr_start ... wr_abort
 *
 * A table is found in one of two ways. ibv_open_device() is ours where the dynamic linker lets us
 * stand before the library's. Everywhere else (libibverbs linked statically, or loaded by dlopen) a
 * command that creates an object names the program's struct (user_handle), and its first word is
 * the struct ibv_context. That word is the program's: it is read through the kernel, which says
 * EFAULT where a load would be a crash, and believed only if everything around it fits. Providers
 * of rdma-core 17 to 21 set it after the command: then the next command finds it.
 *
 * Changes are single pointer-size atomic stores, made once a context, while other threads may call
 * through the tables: before and after, a call works. uverbs.c calls the functions below.
 */
#ifndef VIADUCT_UAPI_FASTPATH_H
#define VIADUCT_UAPI_FASTPATH_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct context;
struct cq;
struct qp;
struct srq;
struct uapi_file;

/*
 * Provided by uverbs.c: the context behind an open file, NULL if the file is another kind of
 * device. Called with core_lock() held.
 */
struct context *uverbs_file_context(const struct uapi_file *file);

/* ---- called by uverbs.c with core_lock() held, when the command has succeeded ---- */
void fastpath_cq_created(struct cq *cq);
void fastpath_srq_created(struct srq *srq, uint64_t user_handle);
void fastpath_qp_created(struct qp *qp);
/* `to` is the new state (the old one if the command did not move it). */
void fastpath_qp_modified(struct qp *qp, enum ibv_qp_state to);
/* The queue pair of that number is gone; the number may come back with another. */
void fastpath_qp_destroyed(uint32_t qpn);
void fastpath_context_closed(struct context *context);

/* ---- for the interposed symbols, core_lock() not held ---- */
/* The library has just opened this context; does nothing if it is not one of ours. */
void fastpath_context_opened(struct ibv_context *ibv);

/* ---- probing memory of the program: never faults ---- */
bool fastpath_read(uint64_t addr, void *out, size_t size);
/*
 * Do `count` pointers at addr look like a table of functions: are `required` of them set, from
 * number required_from on, and do all that are set point to code of one and the same loaded object?
 */
bool fastpath_is_table(uint64_t addr, size_t count, size_t required_from, size_t required);

/* ---- cqex.c ---- */
/* Completion fields that we can deliver, beyond what the stock provider knows. */
#define CQEX_OWN_FLAGS                                                                             \
    ((uint64_t)IBV_WC_EX_WITH_COMPLETION_TIMESTAMP |                                               \
     (uint64_t)IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK)
/*
 * Put our functions into an extended CQ, where the provider has put its own; own_flags: what the
 * program asked for of the above. core_lock() held.
 */
void cqex_patch(struct ibv_cq_ex *ex, struct cq *cq, uint64_t own_flags, bool single_threaded);
/* A new CQ. settled: should it be an extended one, then cqex_patch() follows; no need to probe. */
void cqex_created(struct cq *cq, bool settled);
/* For a CQ that may or may not be an extended one: look, once, and patch. core_lock() held. */
void cqex_probe(struct cq *cq);

/* ---- qpex.c ---- */
/* Operations of ibv_qp_ex that work on this type of queue pair (enum ibv_qp_create_send_ops_flags).
 */
uint64_t qpex_supported(enum ibv_qp_type type);
/*
 * Put our functions into an extended queue pair, where the provider has put its own. Without memory
 * for the batch, every batch fails with ENOMEM. core_lock() held.
 */
void qpex_patch(struct ibv_qp_ex *ex, struct qp *qp);
bool qpex_is_patched(const struct ibv_qp_ex *ex);
/* As for CQs. The object's state goes with qpex_destroyed(). */
void qpex_created(struct qp *qp, bool settled);
void qpex_probe(struct qp *qp);
void qpex_destroyed(uint32_t qpn);

/* Replace the pointer in a slot that is in use; an empty one stays empty. */
#define FASTPATH_SWAP(table, slot, function)                                                       \
    do {                                                                                           \
        if (__atomic_load_n(&(table)->slot, __ATOMIC_RELAXED))                                     \
            __atomic_store_n(&(table)->slot, (function), __ATOMIC_RELEASE);                        \
    } while (0)

#endif
