/* SPDX-License-Identifier: MIT */
/* Shared receive queues. */
#include <errno.h>
#include <infiniband/verbs.h>
#include <string.h>

#include "core/xrcd.h"
#include "uapi/cmd.h"
#include "uapi/fastpath.h"

struct srq *cmd_srq(const struct cmd *cmd, uint32_t handle)
{
    struct srq *srq = srq_get(handle);

    return srq && srq_context(srq) == cmd->context ? srq : NULL;
}

/* xrc: the rest of the request if the type is XRC, else NULL. */
static int srq_make(struct cmd *cmd, const struct ib_uverbs_create_srq *req,
                    const struct ib_uverbs_create_xsrq *xrc)
{
    struct ib_uverbs_create_srq_resp *resp = (void *)cmd->resp;
    struct rxe_create_srq_resp *driver = cmd_driver_resp(cmd, sizeof(*driver));
    struct srq_attr attr = {req->max_wr, req->max_sge, req->srq_limit}, granted;
    struct xrcd *xrcd = xrc ? cmd_xrcd(cmd, xrc->xrcd_handle) : NULL;
    struct cq *cq = xrc ? cmd_cq(cmd, xrc->cq_handle) : NULL;
    struct pd *pd = cmd_pd(cmd, req->pd_handle);
    struct srq *srq;

    if (!driver || !pd || (xrc && (!xrcd || !cq)))
        return -EINVAL;
    int err = xrc ? srq_create_xrc(pd, &attr, xrcd, cq, req->user_handle, &srq, &granted)
                  : srq_create(pd, &attr, req->user_handle, &srq, &granted);
    if (err)
        return err;
    resp->srq_handle = srq_handle(srq);
    resp->max_wr = granted.max_wr;
    resp->max_sge = granted.max_sge;
    resp->srqn = srq_number(srq);
    driver->mi = cmd_ring_info();
    driver->srq_num = srq_number(srq);
    fastpath_srq_created(srq, req->user_handle);
    return 0;
}

int cmd_create_srq(struct cmd *cmd)
{
    return srq_make(cmd, cmd->req, NULL);
}

/* The command of typed queues. Tag matching needs hardware that does it. */
int cmd_create_xsrq(struct cmd *cmd)
{
    const struct ib_uverbs_create_xsrq *req = cmd->req;
    struct ib_uverbs_create_srq plain = {
        .user_handle = req->user_handle,
        .pd_handle = req->pd_handle,
        .max_wr = req->max_wr,
        .max_sge = req->max_sge,
        .srq_limit = req->srq_limit,
    };

    if (req->srq_type > IBV_SRQT_TM)
        return -EINVAL;
    if (req->srq_type == IBV_SRQT_TM)
        return -EOPNOTSUPP;
    return srq_make(cmd, &plain, req->srq_type == IBV_SRQT_XRC ? req : NULL);
}

/*
 * After a change of size the provider maps "the new ring": where that is goes to an address of its
 * own in the driver data. It is written first, because the change can't be taken back; on an error
 * the provider does not look.
 */
int cmd_modify_srq(struct cmd *cmd)
{
    const struct ib_uverbs_modify_srq *req = cmd->req;
    struct srq_attr attr = {.max_wr = req->max_wr, .limit = req->srq_limit};
    struct srq *srq = cmd_srq(cmd, req->srq_handle);
    struct rxe_modify_srq_cmd driver;
    struct mminfo info = cmd_ring_info();
    int err;

    if (!srq || req->attr_mask & ~(uint32_t)(IBV_SRQ_MAX_WR | IBV_SRQ_LIMIT))
        return -EINVAL;
    if (req->attr_mask & IBV_SRQ_MAX_WR) {
        if (cmd->driver_req_len < sizeof(driver))
            return -EINVAL;
        memcpy(&driver, cmd->driver_req, sizeof(driver));
        err = user_write(driver.mmap_info_addr, &info, sizeof(info));
        if (err)
            return err;
    }
    return srq_modify(srq, req->attr_mask, &attr);
}

int cmd_query_srq(struct cmd *cmd)
{
    const struct ib_uverbs_query_srq *req = cmd->req;
    struct ib_uverbs_query_srq_resp *resp = (void *)cmd->resp;
    struct srq *srq = cmd_srq(cmd, req->srq_handle);
    struct srq_attr attr;

    if (!srq)
        return -EINVAL;
    srq_query(srq, &attr);
    resp->max_wr = attr.max_wr;
    resp->max_sge = attr.max_sge;
    resp->srq_limit = attr.limit;
    return 0;
}

int cmd_destroy_srq(struct cmd *cmd)
{
    const struct ib_uverbs_destroy_srq *req = cmd->req;
    struct ib_uverbs_destroy_srq_resp *resp = (void *)cmd->resp;
    struct srq *srq = cmd_srq(cmd, req->srq_handle);

    return srq ? srq_destroy(srq, &resp->events_reported) : -EINVAL;
}
