/* SPDX-License-Identifier: MIT */
/* Protection domains, memory regions, memory windows. */
#include <errno.h>
#include <infiniband/verbs.h>
#include <unistd.h>

#include "uapi/cmd.h"

/* Flags that a device may ignore, by definition (relaxed ordering and what comes after it). */
#define ACCESS_OPTIONAL 0x3ff00000u

static struct pd *pd_named(const struct cmd *cmd, uint32_t handle)
{
    struct pd *pd = pd_get(handle);

    return pd && pd->context == cmd->context ? pd : NULL;
}

/* A parent domain is as good as the protection domain that it stands for. */
struct pd *cmd_pd(const struct cmd *cmd, uint32_t handle)
{
    struct pd *pd = pd_named(cmd, handle);

    return pd && pd->real ? pd->real : pd;
}

static struct mr *mr_find(const struct cmd *cmd, uint32_t handle)
{
    struct mr *mr = mr_get(handle);

    return mr && mr->context == cmd->context ? mr : NULL;
}

int cmd_alloc_pd(struct cmd *cmd)
{
    struct ib_uverbs_alloc_pd_resp *resp = (void *)cmd->resp;
    struct pd *pd;
    int err = pd_alloc(cmd->context, &pd);

    if (err)
        return err;
    resp->pd_handle = pd->handle;
    return 0;
}

int cmd_dealloc_pd(struct cmd *cmd)
{
    const struct ib_uverbs_dealloc_pd *req = cmd->req;
    struct pd *pd = pd_named(cmd, req->pd_handle);

    return pd ? pd_dealloc(pd) : -EINVAL;
}

/* A region's address and the one the wire uses must agree within a page. */
static bool same_offset_in_page(uint64_t start, uint64_t iova)
{
    return ((start ^ iova) & ((uint64_t)sysconf(_SC_PAGESIZE) - 1)) == 0;
}

int cmd_reg_mr(struct cmd *cmd)
{
    const struct ib_uverbs_reg_mr *req = cmd->req;
    struct ib_uverbs_reg_mr_resp *resp = (void *)cmd->resp;
    struct pd *pd = cmd_pd(cmd, req->pd_handle);
    struct mr *mr;
    int err;

    if (!pd || !same_offset_in_page(req->start, req->hca_va))
        return -EINVAL;
    err =
        mr_reg(pd, req->start, req->length, req->hca_va, req->access_flags & ~ACCESS_OPTIONAL, &mr);
    if (err)
        return err;
    resp->mr_handle = mr->handle;
    resp->lkey = mr->key;
    resp->rkey = mr->key;
    return 0;
}

int cmd_rereg_mr(struct cmd *cmd)
{
    const struct ib_uverbs_rereg_mr *req = cmd->req;
    struct ib_uverbs_rereg_mr_resp *resp = (void *)cmd->resp;
    struct mr *mr = mr_find(cmd, req->mr_handle);
    struct pd *pd = NULL;
    int err;

    if (req->flags & ~(uint32_t)IBV_REREG_MR_FLAGS_SUPPORTED)
        return -EOPNOTSUPP;
    if (!req->flags || !mr)
        return -EINVAL;
    if (req->flags & IBV_REREG_MR_CHANGE_TRANSLATION &&
        !same_offset_in_page(req->start, req->hca_va))
        return -EINVAL;
    if (req->flags & IBV_REREG_MR_CHANGE_PD) {
        pd = cmd_pd(cmd, req->pd_handle);
        if (!pd)
            return -EINVAL;
    }
    err = mr_rereg(mr, req->flags, pd, req->start, req->length, req->hca_va,
                   req->access_flags & ~ACCESS_OPTIONAL);
    if (err)
        return err;
    resp->lkey = mr->key;
    resp->rkey = mr->key;
    return 0;
}

int cmd_dereg_mr(struct cmd *cmd)
{
    const struct ib_uverbs_dereg_mr *req = cmd->req;
    struct mr *mr = mr_find(cmd, req->mr_handle);

    return mr ? mr_dereg(mr) : -EINVAL;
}

int cmd_alloc_mw(struct cmd *cmd)
{
    const struct ib_uverbs_alloc_mw *req = cmd->req;
    struct ib_uverbs_alloc_mw_resp *resp = (void *)cmd->resp;
    struct pd *pd = cmd_pd(cmd, req->pd_handle);
    struct mw *mw;
    int err;

    if (!pd || (req->mw_type != IBV_MW_TYPE_1 && req->mw_type != IBV_MW_TYPE_2))
        return -EINVAL;
    err = mw_alloc(pd, req->mw_type, &mw);
    if (err)
        return err;
    resp->mw_handle = mw->handle;
    resp->rkey = mw->key;
    return 0;
}

int cmd_dealloc_mw(struct cmd *cmd)
{
    const struct ib_uverbs_dealloc_mw *req = cmd->req;
    struct mw *mw = mw_get(req->mw_handle);

    return mw && mw->context == cmd->context ? mw_dealloc(mw) : -EINVAL;
}
