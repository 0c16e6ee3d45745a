/* SPDX-License-Identifier: MIT */
/* What work request opcodes are allowed to do and how they complete (IBTA tables 59, 91). */
#ifndef VIADUCT_CORE_WR_H
#define VIADUCT_CORE_WR_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

bool wr_opcode_allowed(enum ibv_qp_type type, enum ibv_wr_opcode opcode);
bool wr_may_inline(enum ibv_wr_opcode opcode);
enum ibv_wc_opcode wr_completion_opcode(enum ibv_wr_opcode opcode);
/* What the sender's completion reports: bytes read, 8 for atomics, else 0. */
uint32_t wr_byte_len(const struct ibv_send_wr *wr);
/* The RNR NAK timer's 5-bit code in time (IBTA table 45). */
uint64_t wr_rnr_time_ns(uint32_t code);

#endif
