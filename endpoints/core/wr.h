/* SPDX-License-Identifier: MIT */
/* What work request opcodes are allowed to do and how they complete (IBTA tables 59, 91). */
#ifndef VIADUCT_CORE_WR_H
#define VIADUCT_CORE_WR_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

bool wr_opcode_allowed(enum ibv_qp_type type, enum ibv_wr_opcode opcode);
bool wr_may_inline(enum ibv_wr_opcode opcode);
/* The RNR NAK timer's 5-bit code in time (IBTA table 45). */
uint64_t wr_rnr_time_ns(uint32_t code);

static inline enum ibv_wc_opcode wr_completion_opcode(enum ibv_wr_opcode opcode)
{
    switch (opcode) {
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_WRITE_WITH_IMM:
        return IBV_WC_RDMA_WRITE;
    case IBV_WR_RDMA_READ:
        return IBV_WC_RDMA_READ;
    case IBV_WR_ATOMIC_CMP_AND_SWP:
        return IBV_WC_COMP_SWAP;
    case IBV_WR_ATOMIC_FETCH_AND_ADD:
        return IBV_WC_FETCH_ADD;
    case IBV_WR_LOCAL_INV:
        return IBV_WC_LOCAL_INV;
    case IBV_WR_BIND_MW:
        return IBV_WC_BIND_MW;
    default:
        return IBV_WC_SEND;
    }
}

/* What the sender's completion reports: bytes read, 8 for atomics, else 0. */
static inline uint32_t wr_byte_len(const struct ibv_send_wr *wr)
{
    uint32_t length = 0;

    if (wr->opcode == IBV_WR_ATOMIC_CMP_AND_SWP || wr->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD)
        return sizeof(uint64_t);
    if (wr->opcode != IBV_WR_RDMA_READ)
        return 0;
    for (int i = 0; i < wr->num_sge; i++)
        length += wr->sg_list[i].length;
    return length;
}

#endif
