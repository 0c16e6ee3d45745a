/* SPDX-License-Identifier: MIT */
/* XRC domains and queue pairs, as the program calls for them (xrc.h). */
#include "uapi/xrc.h"

#include <errno.h>
#include <rdma/ib_user_verbs.h>
#include <stdlib.h>

#include "core/objects.h"
#include "uapi/uapi.h"

/*
 * What the program holds. Providers that make SRQs for a domain look for its handle here: this is
 * the layout of the library's own.
 */
struct domain {
    struct ibv_xrcd ibv;
    uint32_t comp_mask;
    uint32_t handle;
};

static _Thread_local const struct xrc_meant *meant;

const struct xrc_meant *xrc_meant(void)
{
    return meant;
}

static uint32_t handle_of(const struct ibv_xrcd *xrcd)
{
    return ((const struct domain *)xrcd)->handle;
}

/* ---- domains ---- */

static int command(struct ibv_context *ibv, const void *cmd, size_t size)
{
    struct uapi_file *file = fdtab_get(ibv->cmd_fd);
    ssize_t done = file ? file->ops->write(file, cmd, size) : -EIO;

    return done < 0 ? (int)-done : 0;
}

static int open_command(struct ibv_context *ibv, const struct ibv_xrcd_init_attr *attr,
                        uint32_t *handle_out)
{
    struct ib_uverbs_open_xrcd_resp resp;
    struct {
        struct ib_uverbs_cmd_hdr hdr;
        struct ib_uverbs_open_xrcd req;
    } cmd = {
        .hdr = {.command = IB_USER_VERBS_CMD_OPEN_XRCD,
                .in_words = sizeof(cmd) / 4,
                .out_words = sizeof(resp) / 4},
        .req = {.response = (uintptr_t)&resp,
                .fd = (uint32_t)attr->fd,
                .oflags = (uint32_t)attr->oflags},
    };
    int error = command(ibv, &cmd, sizeof(cmd));

    if (!error)
        *handle_out = resp.xrcd_handle;
    return error;
}

struct ibv_xrcd *xrc_open_domain(struct ibv_context *ibv, struct ibv_xrcd_init_attr *attr)
{
    uint32_t needed = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS;
    struct domain *domain = calloc(1, sizeof(*domain));
    int error = !domain                      ? ENOMEM
                : attr->comp_mask & ~needed  ? ENOSYS
                : (attr->comp_mask ^ needed) ? EINVAL
                                             : 0;

    if (!error)
        error = open_command(ibv, attr, &domain->handle);
    if (error) {
        free(domain);
        errno = error;
        return NULL;
    }
    domain->ibv.context = ibv;
    return &domain->ibv;
}

int xrc_close_domain(struct ibv_xrcd *xrcd)
{
    struct {
        struct ib_uverbs_cmd_hdr hdr;
        struct ib_uverbs_close_xrcd req;
    } cmd = {
        .hdr = {.command = IB_USER_VERBS_CMD_CLOSE_XRCD, .in_words = sizeof(cmd) / 4},
        .req = {.xrcd_handle = handle_of(xrcd)},
    };
    int error = command(xrcd->context, &cmd, sizeof(cmd));

    if (!error)
        free(xrcd);
    return error;
}

int xrc_srq_number(struct ibv_srq *ibv, uint32_t *number_out)
{
    core_lock();
    struct srq *srq = srq_get(ibv->handle);
    if (srq)
        *number_out = srq_number(srq);
    core_unlock();
    return srq ? 0 : EINVAL;
}

/* ---- queue pairs ---- */

static struct ibv_qp *create_as(create_qp_ex_fn *original, struct ibv_context *ibv,
                                struct ibv_qp_init_attr_ex *shell, const struct xrc_meant *what)
{
    meant = what;
    struct ibv_qp *qp = original(ibv, shell);
    meant = NULL;
    if (!qp)
        return NULL;
    qp->qp_type = what->type;
    return qp;
}

/* What was asked for, useful or not: librdmacm takes the protection domain from here. */
static void keep_attr(struct ibv_qp *qp, const struct ibv_qp_init_attr_ex *attr)
{
    qp->pd = attr->comp_mask & IBV_QP_INIT_ATTR_PD ? attr->pd : NULL;
    qp->send_cq = attr->send_cq;
    qp->recv_cq = attr->recv_cq;
    qp->srq = attr->srq;
}

static struct ibv_qp *create_sender(create_qp_ex_fn *original, struct ibv_context *ibv,
                                    struct ibv_qp_init_attr_ex *attr)
{
    struct xrc_meant what = {.type = IBV_QPT_XRC_SEND};
    struct ibv_qp_init_attr_ex shell = {
        .qp_context = attr->qp_context,
        .send_cq = attr->send_cq,
        .recv_cq = attr->send_cq,
        .cap = attr->cap,
        .qp_type = IBV_QPT_RC,
        .sq_sig_all = attr->sq_sig_all,
        .comp_mask = attr->comp_mask,
        .pd = attr->pd,
    };

    if (!(attr->comp_mask & IBV_QP_INIT_ATTR_PD) || !attr->pd || !attr->send_cq) {
        errno = EINVAL;
        return NULL;
    }
    if (attr->comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS)
        shell.create_flags = attr->create_flags;
    if (attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)
        shell.send_ops_flags = attr->send_ops_flags;
    struct ibv_qp *qp = create_as(original, ibv, &shell, &what);
    if (!qp)
        return NULL;
    attr->cap = shell.cap;
    keep_attr(qp, attr);
    return qp;
}

/* The provider wants to see queues and a protection domain: it gets some that are good for that. */
static struct ibv_qp *create_receiver(create_qp_ex_fn *original, struct ibv_context *ibv,
                                      const struct ibv_xrcd *xrcd, void *qp_context,
                                      struct xrc_meant *what)
{
    struct ibv_cq cq = {.context = ibv};
    struct ibv_pd pd = {.context = ibv};
    struct ibv_qp_init_attr_ex shell = {
        .qp_context = qp_context,
        .send_cq = &cq,
        .recv_cq = &cq,
        .qp_type = IBV_QPT_RC,
        .comp_mask = IBV_QP_INIT_ATTR_PD,
        .pd = &pd,
    };

    what->type = IBV_QPT_XRC_RECV;
    what->xrcd = handle_of(xrcd);
    return create_as(original, ibv, &shell, what);
}

struct ibv_qp *xrc_create_qp(create_qp_ex_fn *original, struct ibv_context *ibv,
                             struct ibv_qp_init_attr_ex *attr)
{
    struct xrc_meant what = {.open = false};

    if (attr->qp_type == IBV_QPT_XRC_SEND)
        return create_sender(original, ibv, attr);
    if (!(attr->comp_mask & IBV_QP_INIT_ATTR_XRCD) || !attr->xrcd) {
        errno = EINVAL;
        return NULL;
    }
    struct ibv_qp *qp = create_receiver(original, ibv, attr->xrcd, attr->qp_context, &what);
    if (qp)
        keep_attr(qp, attr);
    return qp;
}

struct ibv_qp *xrc_open_qp(create_qp_ex_fn *original, struct ibv_context *ibv,
                           const struct ibv_qp_open_attr *attr)
{
    struct xrc_meant what = {.open = true, .qpn = attr->qp_num};
    uint32_t needed = IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_XRCD | IBV_QP_OPEN_ATTR_TYPE;
    uint32_t known = needed | IBV_QP_OPEN_ATTR_CONTEXT;
    bool has_context = attr->comp_mask & IBV_QP_OPEN_ATTR_CONTEXT;
    const struct ibv_qp_init_attr_ex none = {.comp_mask = 0};
    struct ibv_qp *qp = NULL;

    if (attr->comp_mask & ~known)
        errno = ENOSYS;
    else if ((attr->comp_mask & needed) != needed || attr->qp_type != IBV_QPT_XRC_RECV)
        errno = EINVAL;
    else
        qp = create_receiver(original, ibv, attr->xrcd, has_context ? attr->qp_context : NULL,
                             &what);
    if (qp)
        keep_attr(qp, &none);
    return qp;
}
