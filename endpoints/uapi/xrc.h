/* SPDX-License-Identifier: MIT */
/*
 * XRC for programs whose provider knows nothing of it. The slots of verbs_context that make and use
 * domains are ours. Queue pairs have to be the provider's own objects, because it will destroy
 * them: so it is asked for a plain RC one, and the command that it then writes is taken for what
 * the program meant.
 *
 *   ibv_create_qp_ex(XRC) --> xrc_create_qp() --> provider: create_qp_ex(RC) --write()--> cmd_qp.c
 *                                   `------------- xrc_meant() ------------------------------^
 */
#ifndef VIADUCT_UAPI_XRC_H
#define VIADUCT_UAPI_XRC_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ibv_qp *create_qp_ex_fn(struct ibv_context *, struct ibv_qp_init_attr_ex *);

/* What this thread's next CREATE_QP is to make; NULL: what it says. */
struct xrc_meant {
    enum ibv_qp_type type;
    uint32_t xrcd; /* XRC_RECV: the domain's handle */
    bool open;     /* not a new one: another handle of qpn */
    uint32_t qpn;
};
const struct xrc_meant *xrc_meant(void);

/* The calls of <infiniband/verbs.h>, with the provider's function. NULL and errno on failure. */
struct ibv_qp *xrc_create_qp(create_qp_ex_fn *original, struct ibv_context *ibv,
                             struct ibv_qp_init_attr_ex *attr);
struct ibv_qp *xrc_open_qp(create_qp_ex_fn *original, struct ibv_context *ibv,
                           const struct ibv_qp_open_attr *attr);
struct ibv_xrcd *xrc_open_domain(struct ibv_context *ibv, struct ibv_xrcd_init_attr *attr);
int xrc_close_domain(struct ibv_xrcd *xrcd);
int xrc_srq_number(struct ibv_srq *srq, uint32_t *number_out);

#endif
