/* SPDX-License-Identifier: MIT */
/* Work requests of the timed loops. */
#include "pass.h"

#include "cmd.h"

#include <string.h>

#define RECV_CHAIN_MAX 64

static enum ibv_wr_opcode opcode_of(const struct pass *pass)
{
    switch (pass->which.op) {
    case OP_WRITE:
        /* Memory can't be waited for in the kernel, so with events a completion must come. */
        if (pass->which.test == TEST_LAT && pass->rig->comp_channel != NULL)
            return IBV_WR_RDMA_WRITE_WITH_IMM;
        return IBV_WR_RDMA_WRITE;
    case OP_READ:
        return IBV_WR_RDMA_READ;
    case OP_ATOMIC:
        return IBV_WR_ATOMIC_FETCH_AND_ADD;
    default:
        return IBV_WR_SEND;
    }
}

static bool can_inline(const struct pass *pass)
{
    return (pass->which.op == OP_SEND || pass->which.op == OP_WRITE) &&
           pass->which.size <= pass->rig->max_inline;
}

void pass_request(const struct pass *pass, struct ibv_sge *sge, struct ibv_send_wr *wr)
{
    const struct rig *rig = pass->rig;

    *sge = (struct ibv_sge){.addr = (uintptr_t)rig->send_part,
                            .length = (uint32_t)pass->which.size,
                            .lkey = rig->mr->lkey};
    memset(wr, 0, sizeof(*wr));
    wr->sg_list = sge;
    wr->num_sge = 1;
    wr->opcode = opcode_of(pass);
    wr->send_flags = can_inline(pass) ? IBV_SEND_INLINE : 0;
    if (pass->which.op == OP_ATOMIC) {
        wr->wr.atomic.remote_addr = rig->remote_addr;
        wr->wr.atomic.rkey = rig->remote_rkey;
        wr->wr.atomic.compare_add = 1;
    } else {
        wr->wr.rdma.remote_addr = rig->remote_addr;
        wr->wr.rdma.rkey = rig->remote_rkey;
    }
}

int pass_post(struct ibv_qp *qp, struct ibv_send_wr *wr)
{
    struct ibv_send_wr *bad;
    int error = ibv_post_send(qp, wr, &bad);

    if (error == 0)
        return CMD_OK;
    complain("ibv_post_send failed: %s", strerror(error));
    return CMD_FAILED;
}

/* Post count receives, at most RECV_CHAIN_MAX in a chain. */
int pass_post_recvs(const struct pass *pass, unsigned index, unsigned count)
{
    const struct rig *rig = pass->rig;
    struct ibv_recv_wr chain[RECV_CHAIN_MAX], *bad;
    struct ibv_sge sge = {.addr = (uintptr_t)rig->recv_part,
                          .length = (uint32_t)rig->config.message_bytes,
                          .lkey = rig->mr->lkey};
    int error = 0;

    while (count > 0 && error == 0) {
        unsigned n = count < RECV_CHAIN_MAX ? count : RECV_CHAIN_MAX;

        for (unsigned i = 0; i < n; i++) {
            chain[i] = (struct ibv_recv_wr){.wr_id = index,
                                            .sg_list = &sge,
                                            .num_sge = 1,
                                            .next = i + 1 < n ? &chain[i + 1] : NULL};
        }
        error = ibv_post_recv(rig->qps[index], chain, &bad);
        count -= n;
    }
    if (error == 0)
        return CMD_OK;
    complain("ibv_post_recv failed: %s", strerror(error));
    return CMD_FAILED;
}
