/* SPDX-License-Identifier: MIT */
/*
 * Queue pairs: creation, the state machine with its attribute rules (IBTA 10.3, 11.2.5), posting.
 *
 *   RESET -> INIT -> RTR -> RTS <-> SQD        any -> ERR, any -> RESET
 *                            |-> SQE (UC, UD) -> RTS
 *
 * Locks as in core/objects.h: control functions under core_lock(), "data path" ones without.
 */
#ifndef VIADUCT_CORE_QP_H
#define VIADUCT_CORE_QP_H

#include "core/objects.h"

struct qp_init {
    enum ibv_qp_type type; /* RC, UC, UD, XRC_SEND, XRC_RECV */
    struct pd *pd;         /* not XRC_RECV */
    struct xrcd *xrcd;     /* XRC_RECV only */
    struct cq *send_cq;    /* not XRC_RECV */
    struct cq *recv_cq;    /* neither XRC_SEND nor XRC_RECV */
    struct srq *srq;       /* or NULL */
    struct ibv_qp_cap cap;
    bool sq_sig_all;
    uint64_t user_handle; /* struct ibv_qp * of the program */
};

struct qp;

/* -EINVAL: a capability beyond the device's limits, other context's CQ ... ; -EOPNOTSUPP: type */
int qp_create(const struct qp_init *init, struct qp **qp_out, struct ibv_qp_cap *granted_out);
int qp_destroy(struct qp *qp, uint32_t *events_out); /* -EBUSY: in a multicast group */
/*
 * Another handle of an XRC_RECV queue pair of the domain, by its number: the queue pair lives until
 * all its handles are destroyed. -EINVAL: this process has no such queue pair.
 */
int qp_open(struct xrcd *xrcd, uint32_t qpn, uint64_t user_handle, struct qp **qp_out);
struct qp *qp_get(uint32_t handle); /* data path: handle = index; NULL if free */
struct context *qp_context(struct qp *qp);
uint32_t qp_number(struct qp *qp);
uint32_t qp_handle(struct qp *qp);
/* False: it has no handle that a program may use. */
bool qp_is_for_programs(struct qp *qp);
uint64_t qp_user_handle(struct qp *qp);
/* Datagrams wait for their receivers' processes: to be connected to, or to help. */
bool qp_has_datagrams_to_send(struct qp *qp);
/* NULL where the type has none. */
struct cq *qp_send_cq(struct qp *qp);
struct cq *qp_recv_cq(struct qp *qp);

/* ibv_modify_qp(3): checks mask and values first and changes nothing on error (-EINVAL). */
int qp_modify(struct qp *qp, const struct ibv_qp_attr *attr, int mask);
void qp_query(struct qp *qp, struct ibv_qp_attr *attr_out, struct ibv_qp_init_attr *init_out);

/* core/qp_attr.c: is this change legal? Pure: no locks, no state of its own. 0 or -EINVAL. */
int qp_attr_check(enum ibv_qp_type type, enum ibv_qp_state from, enum ibv_qp_state to, int mask);
/*
 * Are the values that mask names in range? gid_count: entries of the NIC's GID table. PSNs are not
 * judged: like every device, the caller uses their low 24 bits.
 */
int qp_attr_values_check(const struct ibv_qp_attr *attr, int mask,
                         const struct ibv_device_attr *limits, unsigned gid_count);

/* data path: 0 or positive errno with *bad_wr, as ibv_post_send(3), ibv_post_recv(3) */
int qp_post_send(struct qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad_wr);
int qp_post_recv(struct qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr);
/* data path: all of the list, or nothing of it and a positive errno, as ibv_wr_complete(3) */
int qp_post_batch(struct qp *qp, struct ibv_send_wr *wr);
/* ibv_bind_mw(3), type 1: posts the bind and updates mw->rkey */
int qp_bind_mw(struct qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind);

#endif
