/* SPDX-License-Identifier: MIT */
/*
 * XRC domains (IBTA annex A14): what XRC target queue pairs and XRC shared receive queues have in
 * common, though they may be different processes'. A domain that is opened with a descriptor
 * belongs to that file (its inode): everybody who opens it with the same file and device gets the
 * same one, for as long as anybody has it open. One without a descriptor is its opener's alone.
 *
 *   XRC_SEND queue pair --connected--> XRC_RECV queue pair (says who may, and what)
 *            `------ each request names ------> XRC SRQ (receives, keys, completion queue)
 *                                               of the same domain
 *
 * Functions are called with core_lock() held.
 */
#ifndef VIADUCT_CORE_XRCD_H
#define VIADUCT_CORE_XRCD_H

#include "core/objects.h"
#include "core/qp.h"

struct xrcd {
    uint32_t handle;
    uint32_t number; /* the same for everybody who has it; never 0 */
    uint32_t entry;  /* in the table of all processes */
    struct context *context;
    unsigned users; /* queue pairs and SRQs */
};

/*
 * fd -1: a new one. Else -EBADF; -EAGAIN: the file has none, and oflags lack O_CREAT; -EINVAL: it
 * has one, and oflags say O_EXCL; -ENOMEM: too many are open; or what opening the table says.
 */
int xrcd_open(struct context *context, int fd, int oflags, struct xrcd **xrcd_out);
int xrcd_close(struct xrcd *xrcd); /* -EBUSY */
struct xrcd *xrcd_get(uint32_t handle);
void xrcd_close_all(struct context *context);
void xrcd_after_fork(void);

/*
 * An SRQ of a domain: its number, which requests name, is that of a queue pair without a send side
 * that stands for it, so that initiators find it as they find any target.
 */
int srq_create_xrc(struct pd *pd, const struct srq_attr *attr, struct xrcd *xrcd, struct cq *cq,
                   uint64_t user_handle, struct srq **srq_out, struct srq_attr *granted_out);
int qp_create_for_srq(struct srq *srq, struct cq *cq, struct xrcd *xrcd, struct qp **qp_out);
void qp_destroy_for_srq(struct qp *qp);

#endif
