/* SPDX-License-Identifier: MIT */
/* Every limit of the NIC, in one place. What query_device reports is made from these. */
#ifndef VIADUCT_CORE_LIMITS_H
#define VIADUCT_CORE_LIMITS_H

enum {
    /* a queue pair number is slot << LIMIT_QP_BITS | index */
    LIMIT_SLOT_BITS = 10,
    LIMIT_QP_BITS = 14,
    LIMIT_SLOTS = 1 << LIMIT_SLOT_BITS, /* slot 0 is never used */
    LIMIT_QP = 1 << LIMIT_QP_BITS,      /* per process; index 0 is never used */
    LIMIT_CQ = 1 << 16,
    LIMIT_SRQ = 1 << 14,
    LIMIT_MR_BITS = 20,
    LIMIT_MR = 1 << LIMIT_MR_BITS, /* regions and windows together; index 0 is never used */
    LIMIT_PD = 1 << 16,
    LIMIT_AH = 1 << 18,
    LIMIT_XRCD = 1 << 10,
    LIMIT_CHANNEL = 1 << 14,
    LIMIT_MCAST_GROUPS = 1024,
    LIMIT_MCAST_QPS = 256, /* of one process, in one group */

    LIMIT_QP_WR = 1 << 15,
    LIMIT_SRQ_WR = 1 << 16,
    LIMIT_SGE = 32,
    LIMIT_INLINE = 1024,
    LIMIT_CQE = 1 << 22,
    LIMIT_RD_ATOMIC = 128, /* incoming and outgoing, of one queue pair */
    LIMIT_COMP_VECTORS = 4,
    LIMIT_PKEYS = 1,
    LIMIT_MTU = 4096,
};

#define LIMIT_MSG_BYTES (1u << 31)
#define LIMIT_MR_BYTES (1ull << 46)
#define DEFAULT_PKEY 0xffff

#endif
