/* SPDX-License-Identifier: MIT */
/*
 * Posting by command. The provider rings its doorbell with POST_SEND and no requests in it, which
 * is nothing to do here; programs that bring requests along get them posted for real.
 *
 *   core request | wr_count requests of wqe_size bytes each | sge_count scatter/gather elements
 */
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdlib.h>
#include <string.h>

#include "uapi/cmd.h"

/* The three commands are alike up to the first request. */
_Static_assert(sizeof(struct ib_uverbs_post_send) == sizeof(struct ib_uverbs_post_recv) &&
                   sizeof(struct ib_uverbs_post_send) == sizeof(struct ib_uverbs_post_srq_recv) &&
                   offsetof(struct ib_uverbs_post_send, wqe_size) ==
                       offsetof(struct ib_uverbs_post_srq_recv, wqe_size),
               "one header for all");
_Static_assert(sizeof(struct ibv_sge) == sizeof(struct ib_uverbs_sge), "one element for both");

/* The tail of a posting command, bounds checked; nothing in it is aligned. */
struct tail {
    uint32_t wr_count, wr_size, sge_count;
    const uint8_t *wrs;
    const uint8_t *sges;
};

static int tail_parse(const struct cmd *cmd, size_t wr_min, struct tail *tail_out)
{
    struct ib_uverbs_post_send req;
    uint64_t wrs, sges, used;
    const uint8_t *at = cmd->req;

    memcpy(&req, at, sizeof(req));
    wrs = (uint64_t)req.wr_count * req.wqe_size;
    sges = (uint64_t)req.sge_count * sizeof(struct ibv_sge);
    if (req.wqe_size < wr_min)
        return -EINVAL;
    if (wrs > cmd->req_len || sges > cmd->req_len || sizeof(req) + wrs + sges > cmd->req_len)
        return -ENOSPC;
    used = sizeof(req) + wrs + sges;
    for (uint64_t i = used; i < cmd->req_len; i++) {
        if (at[i])
            return -EOPNOTSUPP;
    }
    *tail_out = (struct tail){req.wr_count, req.wqe_size, req.sge_count, at + sizeof(req),
                              at + sizeof(req) + wrs};
    return 0;
}

/* A copy of the elements, with room for at least one; NULL: no memory. */
static struct ibv_sge *sges_copy(const struct tail *tail)
{
    struct ibv_sge *sges = calloc(tail->sge_count + 1, sizeof(*sges));

    if (sges)
        memcpy(sges, tail->sges, tail->sge_count * sizeof(*sges));
    return sges;
}

/* Hand out the elements in order: false if there are fewer than the request claims. */
static bool sges_take(const struct tail *tail, uint32_t count, uint32_t *used)
{
    if (count > tail->sge_count - *used)
        return false;
    *used += count;
    return true;
}

/* ---- sends ---- */

struct send {
    struct ibv_send_wr wr;
    struct ibv_ah ah; /* the core looks at its handle only */
};

static int send_unpack_ud(const struct cmd *cmd, const struct ib_uverbs_send_wr *from,
                          struct send *to)
{
    if (from->opcode != IBV_WR_SEND && from->opcode != IBV_WR_SEND_WITH_IMM)
        return -EINVAL;
    if (!cmd_ah(cmd, from->wr.ud.ah))
        return -EINVAL;
    to->ah.handle = from->wr.ud.ah;
    to->wr.wr.ud.ah = &to->ah;
    to->wr.wr.ud.remote_qpn = from->wr.ud.remote_qpn;
    to->wr.wr.ud.remote_qkey = from->wr.ud.remote_qkey;
    return 0;
}

static int send_unpack_connected(const struct ib_uverbs_send_wr *from, struct send *to)
{
    switch (from->opcode) {
    case IBV_WR_SEND:
    case IBV_WR_SEND_WITH_IMM:
    case IBV_WR_SEND_WITH_INV:
        return 0;
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_WRITE_WITH_IMM:
    case IBV_WR_RDMA_READ:
        to->wr.wr.rdma.remote_addr = from->wr.rdma.remote_addr;
        to->wr.wr.rdma.rkey = from->wr.rdma.rkey;
        return 0;
    case IBV_WR_ATOMIC_CMP_AND_SWP:
    case IBV_WR_ATOMIC_FETCH_AND_ADD:
        to->wr.wr.atomic.remote_addr = from->wr.atomic.remote_addr;
        to->wr.wr.atomic.compare_add = from->wr.atomic.compare_add;
        to->wr.wr.atomic.swap = from->wr.atomic.swap;
        to->wr.wr.atomic.rkey = from->wr.atomic.rkey;
        return 0;
    default:
        return -EINVAL;
    }
}

/* Inline data would be read through a pointer of the program's, so it is refused. */
static int sends_unpack(const struct cmd *cmd, const struct tail *tail, enum ibv_qp_type type,
                        struct ibv_sge *sges, struct send *sends)
{
    uint32_t used = 0;

    for (uint32_t i = 0; i < tail->wr_count; i++) {
        struct ibv_send_wr *wr = &sends[i].wr;
        struct ib_uverbs_send_wr from;
        int err;

        memcpy(&from, tail->wrs + (size_t)i * tail->wr_size, sizeof(from));
        *wr = (struct ibv_send_wr){
            .wr_id = from.wr_id,
            .next = i + 1 < tail->wr_count ? &sends[i + 1].wr : NULL,
            .sg_list = sges + used,
            .num_sge = (int)from.num_sge,
            .opcode = from.opcode,
            .send_flags = from.send_flags,
            .imm_data = from.ex.imm_data,
        };
        if (!sges_take(tail, from.num_sge, &used) || from.send_flags & IBV_SEND_INLINE)
            return -EINVAL;
        err = type == IBV_QPT_UD ? send_unpack_ud(cmd, &from, &sends[i])
                                 : send_unpack_connected(&from, &sends[i]);
        if (err)
            return err;
    }
    return 0;
}

int cmd_post_send(struct cmd *cmd)
{
    const struct ib_uverbs_post_send *req = cmd->req;
    struct ib_uverbs_post_send_resp *resp = (void *)cmd->resp;
    struct ibv_qp_init_attr init = {0};
    struct ibv_qp_attr attr = {0};
    struct ibv_send_wr *bad = NULL;
    struct ibv_sge *sges = NULL;
    struct send *sends = NULL;
    struct tail tail;
    struct qp *qp;
    int err = tail_parse(cmd, sizeof(struct ib_uverbs_send_wr), &tail);

    if (err)
        return err;
    sges = sges_copy(&tail);
    sends = calloc(tail.wr_count + 1, sizeof(*sends));
    err = sges && sends ? 0 : -ENOMEM;
    core_lock();
    qp = cmd_qp(cmd, req->qp_handle);
    if (qp)
        qp_query(qp, &attr, &init);
    if (!err)
        err = qp ? sends_unpack(cmd, &tail, init.qp_type, sges, sends) : -EINVAL;
    core_unlock();
    if (!err && tail.wr_count > 0) {
        err = -qp_post_send(qp, &sends[0].wr, &bad);
        if (err && bad)
            resp->bad_wr = (uint32_t)((struct send *)bad - sends) + 1;
        cmd->respond_on_error = true;
    }
    free(sends);
    free(sges);
    return err;
}

/* ---- receives ---- */

/* An array of wr_count chained requests and their elements, in one allocation each. */
static int recvs_unpack(const struct tail *tail, struct ibv_sge *sges, struct ibv_recv_wr *wrs)
{
    uint32_t used = 0;

    for (uint32_t i = 0; i < tail->wr_count; i++) {
        struct ib_uverbs_recv_wr from;

        memcpy(&from, tail->wrs + (size_t)i * tail->wr_size, sizeof(from));
        wrs[i] = (struct ibv_recv_wr){
            .wr_id = from.wr_id,
            .next = i + 1 < tail->wr_count ? &wrs[i + 1] : NULL,
            .sg_list = sges + used,
            .num_sge = (int)from.num_sge,
        };
        if (!sges_take(tail, from.num_sge, &used))
            return -EINVAL;
    }
    return 0;
}

/* To one of the two kinds of queue; the other is NULL. */
static int recvs_post(struct cmd *cmd, const struct tail *tail, struct qp *qp, struct srq *srq)
{
    struct ib_uverbs_post_recv_resp *resp = (void *)cmd->resp;
    struct ibv_recv_wr *wrs = calloc(tail->wr_count + 1, sizeof(*wrs)), *bad = NULL;
    struct ibv_sge *sges = sges_copy(tail);
    int err = wrs && sges ? recvs_unpack(tail, sges, wrs) : -ENOMEM;

    if (!err && tail->wr_count > 0) {
        err = qp ? -qp_post_recv(qp, wrs, &bad) : -srq_post_recv(srq, wrs, &bad);
        if (err && bad)
            resp->bad_wr = (uint32_t)(bad - wrs) + 1;
        cmd->respond_on_error = true;
    }
    free(sges);
    free(wrs);
    return err;
}

int cmd_post_recv(struct cmd *cmd)
{
    const struct ib_uverbs_post_recv *req = cmd->req;
    struct tail tail;
    struct qp *qp;
    int err = tail_parse(cmd, sizeof(struct ib_uverbs_recv_wr), &tail);

    if (err)
        return err;
    core_lock();
    qp = cmd_qp(cmd, req->qp_handle);
    core_unlock();
    return qp ? recvs_post(cmd, &tail, qp, NULL) : -EINVAL;
}

int cmd_post_srq_recv(struct cmd *cmd)
{
    const struct ib_uverbs_post_srq_recv *req = cmd->req;
    struct tail tail;
    struct srq *srq;
    int err = tail_parse(cmd, sizeof(struct ib_uverbs_recv_wr), &tail);

    if (err)
        return err;
    core_lock();
    srq = cmd_srq(cmd, req->srq_handle);
    core_unlock();
    return srq ? recvs_post(cmd, &tail, NULL, srq) : -EINVAL;
}
