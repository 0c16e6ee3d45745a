/* SPDX-License-Identifier: MIT */
/* Completion channels and completion queues. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "core/limits.h"
#include "core/sys.h"
#include "uapi/cmd.h"
#include "uapi/fastpath.h"

/* ---- channels ---- */

/* A channel's descriptor: its close must be seen. It may come after its context's. */
struct channel_file {
    struct uapi_file file;
    struct channel *channel;
};

static void channel_release(struct uapi_file *base)
{
    struct channel_file *file = (struct channel_file *)base;

    core_lock();
    channel_destroy(file->channel);
    core_unlock();
    free(file);
}

static const struct uapi_file_ops channel_ops = {.release = channel_release};

int cmd_create_comp_channel(struct cmd *cmd)
{
    struct ib_uverbs_create_comp_channel_resp *resp = (void *)cmd->resp;
    struct channel_file *file = calloc(1, sizeof(*file));
    int err, fd;

    if (!file)
        return -ENOMEM;
    err = channel_create(cmd->context, &file->channel);
    if (err)
        goto no_channel;
    fd = file->channel->fd;
    file->file.ops = &channel_ops;
    err = fdtab_set(fd, &file->file);
    if (err)
        goto no_entry;
    resp->fd = (uint32_t)fd;
    return 0;

no_entry:
    channel_destroy(file->channel);
    sys_close(fd);
no_channel:
    free(file);
    return err;
}

/*
 * The channel a command names by descriptor, or by any duplicate of it; -1 is none. Its file can't
 * go while we look: channel_release() waits for core_lock().
 */
static int channel_find(const struct cmd *cmd, int32_t fd, struct channel **channel_out)
{
    const struct uapi_file *file = fd < 0 ? NULL : fdtab_get(fd);

    *channel_out = NULL;
    if (fd < 0)
        return 0;
    if (!file || file->ops != &channel_ops)
        return fcntl(fd, F_GETFD) < 0 ? -EBADF : -EINVAL;
    *channel_out = ((const struct channel_file *)file)->channel;
    return (*channel_out)->context == cmd->context ? 0 : -EINVAL;
}

/* ---- queues ---- */

struct cq *cmd_cq(const struct cmd *cmd, uint32_t handle)
{
    struct cq *cq = cq_get(handle);

    return cq && cq_context(cq) == cmd->context ? cq : NULL;
}

/* The look-up of a data path command, which does not hold core_lock(). */
static struct cq *cq_find_unlocked(const struct cmd *cmd, uint32_t handle)
{
    struct cq *cq;

    core_lock();
    cq = cmd_cq(cmd, handle);
    core_unlock();
    return cq;
}

static bool cqe_is_good(uint32_t cqe)
{
    return cqe > 0 && cqe <= LIMIT_CQE;
}

/* Both commands carry the same, in this order. */
static int cq_make(struct cmd *cmd, const struct ib_uverbs_ex_create_cq *req,
                   struct ib_uverbs_create_cq_resp *resp)
{
    struct rxe_create_cq_resp *driver = cmd_driver_resp(cmd, sizeof(*driver));
    bool stamp = req->flags & IB_UVERBS_CQ_FLAGS_TIMESTAMP_COMPLETION;
    struct channel *channel;
    struct cq *cq;
    int err;

    if (!driver || !cqe_is_good(req->cqe) || req->comp_vector >= LIMIT_COMP_VECTORS)
        return -EINVAL;
    err = channel_find(cmd, req->comp_channel, &channel);
    if (!err)
        err = cq_create(cmd->context, req->cqe, channel, req->comp_vector, stamp, req->user_handle,
                        &cq);
    if (err)
        return err;
    resp->cq_handle = cq_handle(cq);
    resp->cqe = cq_capacity(cq);
    driver->mi = cmd_ring_info();
    fastpath_cq_created(cq);
    return 0;
}

int cmd_create_cq(struct cmd *cmd)
{
    const struct ib_uverbs_create_cq *req = cmd->req;
    struct ib_uverbs_ex_create_cq ex = {
        .user_handle = req->user_handle,
        .cqe = req->cqe,
        .comp_vector = req->comp_vector,
        .comp_channel = req->comp_channel,
    };

    return cq_make(cmd, &ex, (void *)cmd->resp);
}

int cmd_create_cq_ex(struct cmd *cmd)
{
    const struct ib_uverbs_ex_create_cq *req = cmd->req;
    struct ib_uverbs_ex_create_cq_resp *resp = (void *)cmd->resp;

    if (req->comp_mask || req->reserved)
        return -EINVAL;
    if (req->flags & ~(uint32_t)IB_UVERBS_CQ_FLAGS_TIMESTAMP_COMPLETION)
        return -EOPNOTSUPP;
    resp->response_length = cmd_response_length(cmd, sizeof(*resp));
    return cq_make(cmd, req, &resp->base);
}

int cmd_resize_cq(struct cmd *cmd)
{
    const struct ib_uverbs_resize_cq *req = cmd->req;
    struct ib_uverbs_resize_cq_resp *resp = (void *)cmd->resp;
    struct rxe_resize_cq_resp *driver = cmd_driver_resp(cmd, sizeof(*driver));
    struct cq *cq = cmd_cq(cmd, req->cq_handle);
    int err;

    if (!driver || !cq || !cqe_is_good(req->cqe))
        return -EINVAL;
    err = cq_resize(cq, req->cqe);
    if (err)
        return err;
    resp->cqe = cq_capacity(cq);
    driver->mi = cmd_ring_info();
    return 0;
}

int cmd_destroy_cq(struct cmd *cmd)
{
    const struct ib_uverbs_destroy_cq *req = cmd->req;
    struct ib_uverbs_destroy_cq_resp *resp = (void *)cmd->resp;
    struct cq *cq = cmd_cq(cmd, req->cq_handle);

    if (!cq)
        return -EINVAL;
    /* The library waits until as many events were acknowledged: in doubt, for none. */
    const struct ibv_cq *verbs = (const void *)(uintptr_t)cq_user_handle(cq);
    bool doubt = cq_is_in_doubt(cq);
    int err = cq_destroy(cq, &resp->comp_events_reported, &resp->async_events_reported);
    if (!err && doubt)
        resp->comp_events_reported = verbs->comp_events_completed;
    return err;
}

int cmd_req_notify_cq(struct cmd *cmd)
{
    const struct ib_uverbs_req_notify_cq *req = cmd->req;
    struct cq *cq = cq_find_unlocked(cmd, req->cq_handle);

    return cq ? cq_arm(cq, req->solicited_only) : -EINVAL;
}

/* ---- polling by command, which no provider of ours does ---- */

static struct ib_uverbs_wc wc_pack(const struct ibv_wc *wc)
{
    return (struct ib_uverbs_wc){
        .wr_id = wc->wr_id,
        .status = wc->status,
        .opcode = wc->opcode,
        .vendor_err = wc->vendor_err,
        .byte_len = wc->byte_len,
        .ex.imm_data = wc->imm_data,
        .qp_num = wc->qp_num,
        .src_qp = wc->src_qp,
        .wc_flags = wc->wc_flags,
        .pkey_index = wc->pkey_index,
        .slid = wc->slid,
        .sl = wc->sl,
        .dlid_path_bits = wc->dlid_path_bits,
        .port_num = 1,
    };
}

/* Completions in steps, because a polled one is gone: first see that it can be delivered. */
int cmd_poll_cq(struct cmd *cmd)
{
    enum { STEP = 16 };
    const struct ib_uverbs_poll_cq *req = cmd->req;
    struct ib_uverbs_poll_cq_resp *resp = (void *)cmd->resp;
    struct cq *cq = cq_find_unlocked(cmd, req->cq_handle);
    size_t room = (cmd->out_len - sizeof(*resp)) / sizeof(struct ib_uverbs_wc);
    size_t wanted = req->ne < room ? req->ne : room, done = 0;

    if (!cq)
        return -EINVAL;
    while (done < wanted) {
        uint64_t to = cmd->out + sizeof(*resp) + done * sizeof(struct ib_uverbs_wc);
        int step = wanted - done < STEP ? (int)(wanted - done) : STEP;
        struct ib_uverbs_wc packed[STEP];
        struct ibv_wc wc[STEP];
        int got, err = user_probe_write(to, (size_t)step * sizeof(packed[0]));

        got = err ? err : cq_poll(cq, step, wc);
        for (int i = 0; i < got; i++)
            packed[i] = wc_pack(&wc[i]);
        if (got > 0)
            err = user_write(to, packed, (size_t)got * sizeof(packed[0]));
        if (got < 0 || err)
            return done ? 0 : (err ? err : got);
        done += (size_t)got;
        resp->count = (uint32_t)done;
        if (got < step)
            break;
    }
    return 0;
}
