/* SPDX-License-Identifier: MIT */
/* XRC domains, and the queue pairs and SRQs that only exist with one. */
#include <errno.h>
#include <infiniband/verbs.h>

#include "core/xrcd.h"
#include "uapi/cmd.h"
#include "uapi/fastpath.h"

struct xrcd *cmd_xrcd(const struct cmd *cmd, uint32_t handle)
{
    struct xrcd *xrcd = xrcd_get(handle);

    return xrcd && xrcd->context == cmd->context ? xrcd : NULL;
}

int cmd_open_xrcd(struct cmd *cmd)
{
    const struct ib_uverbs_open_xrcd *req = cmd->req;
    struct ib_uverbs_open_xrcd_resp *resp = (void *)cmd->resp;
    struct xrcd *xrcd;
    int err = xrcd_open(cmd->context, (int)req->fd, (int)req->oflags, &xrcd);

    if (err)
        return err;
    resp->xrcd_handle = xrcd->handle;
    return 0;
}

int cmd_close_xrcd(struct cmd *cmd)
{
    const struct ib_uverbs_close_xrcd *req = cmd->req;
    struct xrcd *xrcd = cmd_xrcd(cmd, req->xrcd_handle);

    return xrcd ? xrcd_close(xrcd) : -EINVAL;
}

int cmd_open_qp(struct cmd *cmd)
{
    const struct ib_uverbs_open_qp *req = cmd->req;
    struct ib_uverbs_create_qp_resp *resp = (void *)cmd->resp;
    struct xrcd *xrcd = cmd_xrcd(cmd, req->pd_handle);
    struct qp *qp;

    if (!xrcd || req->qp_type != IBV_QPT_XRC_RECV)
        return -EINVAL;
    int err = qp_open(xrcd, req->qpn, req->user_handle, &qp);
    if (err)
        return err;
    resp->qp_handle = qp_handle(qp);
    resp->qpn = qp_number(qp);
    fastpath_qp_created(qp);
    return 0;
}
