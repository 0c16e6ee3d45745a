/* SPDX-License-Identifier: MIT */
/*
 * What a process publishes: the layout of its arena, one memfd that peers map read-only.
 *
 *   +--------+---------+---------+---------+-----------+--------------------------------------+
 *   | header | QP pubs | MR pubs | CQ pubs | share map | heap: receive rings, lanes, heads ... |
 *   +--------+---------+---------+---------+-----------+--------------------------------------+
 *
 * Only the owner writes. A reader trusts nothing: every offset and index it takes from here is
 * checked against the arena's size (peer_ptr()) and kept in memory of its own. Offsets count from
 * the arena's start. No pointers.
 */
#ifndef VIADUCT_CORE_PUB_H
#define VIADUCT_CORE_PUB_H

#include <stdatomic.h>
#include <stdint.h>

#include "core/config.h"
#include "core/limits.h"

#define PUB_MAGIC 0x7669616475637431ull /* "viaduct1" */
#define PUB_VERSION 3u

/* One load of what its owner may change meanwhile: what was checked is what is used. */
#define PUB_READ(field) (*(const volatile __typeof__(field) *)&(field))

struct pub_gid {
    uint8_t raw[16];
};

struct pub_header {
    uint64_t magic;
    uint32_t version;
    uint32_t slot;
    uint64_t generation; /* random: tells one life of a slot from the next */
    uint32_t pid;
    uint32_t nic_count;
    /* The engine thread; when it ends the kernel sets FUTEX_OWNER_DIED (set_robust_list(2)). */
    _Atomic uint32_t owner;
    struct {
        char name[CONFIG_NAME_MAX];
        uint32_t gid_count;
        uint32_t pad;
        struct pub_gid gids[CONFIG_GIDS_MAX];
    } nics[CONFIG_NICS_MAX];
    _Atomic uint32_t qp_high;    /* queue pairs ever used: indices below this */
    _Atomic uint32_t mcast_high; /* multicast entries ever used */
    _Atomic uint32_t mr_high;    /* and keys */
    char comm[16];
};

/*
 * One queue pair. Line 0 changes with modify_qp only, so readers keep it cached; `gen` moves
 * whenever a reader must look again. Lines 1 and 2 move with traffic.
 */
struct pub_qp {
    /* line 0: written by the owner under its QP lock, published by gen (release) */
    _Atomic uint32_t gen; /* 0: no such queue pair; else odd = may receive, even = may not */
    uint8_t type;         /* enum ibv_qp_type, or QPT_XRC_SRQ; 0: there is none */
    uint8_t state;        /* enum ibv_qp_state */
    uint8_t min_rnr_timer;
    uint8_t nic;
    uint32_t dest_qpn;
    uint32_t qkey;
    uint32_t pd;
    uint32_t access;    /* IBV_ACCESS_REMOTE_* bits */
    uint32_t recv_cq;   /* index of the CQ pub */
    uint32_t srq;       /* 1 + index if receives come from a shared receive queue */
    uint32_t rq_psn;    /* expected first, IBTA 9.7.1 */
    uint32_t path_mtu;  /* bytes */
    uint32_t rd_atomic; /* max_dest_rd_atomic: 0 refuses reads and atomics */
    uint64_t rq_ring;   /* offset of struct pub_rq */
    uint32_t cookie;    /* what completions for it carry: index | life << LIMIT_QP_BITS */
    uint32_t domain;    /* XRC: the number of its domain */
    /* line 1: the initiator's side */
    _Alignas(
        64) _Atomic uint32_t busy; /* lock of the send queue: 1 while a peer's memory is touched */
    uint32_t rq_head;              /* receives of the target taken by this queue pair */
    /* the receive of a shared ring that is claimed and not completed yet; 0: none */
    _Atomic uint32_t claim_ring, claim_slot;
    /* counters of what it has initiated (core/counters.h) */
    uint64_t messages, tx_bytes, read_bytes, sends;
    uint32_t rnr_waits, retries;
    uint32_t waiting; /* requests that could not be finished yet */
    uint32_t pad1;
};
_Static_assert(sizeof(struct pub_qp) == 128, "two cache lines");

/* One receive element as an initiator reads it. Unused elements of a WQE are zero. */
struct pub_sge {
    uint64_t addr;
    uint32_t length;
    uint32_t lkey;
};

/*
 * A receive ring. WQE n lies at sges[(n & mask) * max_sge]. An exclusive ring has one initiator,
 * which keeps the head itself; a shared one (SRQ, UD) is claimed through the head word in the
 * owner's words (share.h), and then slots[n & mask] names the owner's slot of that WQE.
 */
struct pub_rq {
    _Alignas(64) _Atomic uint32_t tail; /* posted so far */
    uint32_t mask;
    uint32_t max_sge;
    uint32_t claim;         /* 0: exclusive; else 1 + index of the head word (uint64_t) */
    _Atomic uint32_t limit; /* SRQ limit armed, 0: not */
    uint32_t pd;
    uint64_t sges;  /* offset */
    uint64_t slots; /* offset, shared rings only */
};

/* A shared ring among all processes: what pub_qp.claim_ring holds. `claim` is that of the pub_rq.
 */
static inline uint32_t pub_ring_id(uint32_t slot, uint32_t claim)
{
    return slot << 18 | claim;
}

static inline uint32_t pub_ring_slot(uint32_t id)
{
    return id >> 18;
}

/* One memory region or window, by key index. `key` 0: invalid. Fields are stable while key is set.
 */
struct pub_mr {
    _Atomic uint32_t key; /* index << 8 | variant: lkey and rkey are the same */
    uint32_t pd;
    uint64_t iova;
    uint64_t length;
    uint64_t addr; /* owner's virtual address that iova stands for */
    uint32_t access;
    uint32_t qpn;    /* type 2 window: the only queue pair that may use it; 0: any of the PD */
    uint32_t window; /* 1: a window, good as rkey only */
    uint32_t pad[5];
};
_Static_assert(sizeof(struct pub_mr) == 64, "one cache line");

struct pub_cq {
    _Atomic uint32_t gen; /* 0: no such CQ */
    _Atomic uint32_t cqe;
    uint32_t stamp;          /* completions carry the wall clock in data[24..31] */
    _Atomic uint32_t fence;  /* initiators must fence: nobody does it for us when we arm */
    _Atomic uint32_t direct; /* initiators may write events into the channel themselves */
    uint32_t pad0;
    uint64_t event; /* the record that they write */
    uint32_t pad[8];
};
_Static_assert(sizeof(struct pub_cq) == 64, "one cache line");

/* What a CQ is armed for: the low bits of bell.armed. */
enum cq_armed { CQ_IDLE, CQ_ARMED_SOLICITED, CQ_ARMED, CQ_ARMED_MASK = 3, CQ_ARMED_STEP = 4 };

/*
 * The bell of a CQ: one line in the memory that peers may write (share.h). Its owner arms it; who
 * changes an armed word to CQ_IDLE, leaving the rest, has claimed that arming's event.
 */
struct bell {
    _Alignas(64) _Atomic uint64_t armed; /* gen << 32 | count of armings, from bit 2 | cq_armed */
    _Atomic uint64_t rung; /* gen << 32 | events that peers have written into the channel */
};
_Static_assert(sizeof(struct bell) == 64, "one cache line");

enum cqe_kind { CQE_SEND, CQE_RECV };

enum cqe_flags {
    CQE_IMM = 1,
    CQE_INV = 2,
    CQE_SOLICITED = 4,
    CQE_GRH = 8,
};

#define CQE_INLINE_MAX 32u
#define CQE_STAMP_AT 24u /* where a stamped completion has its time; inline stops there */

/*
 * One completion, one cache line: written by the initiator into its lane, read by the poller.
 * `seq` = position + 1 (release) makes the rest visible.
 */
struct cqe {
    _Atomic uint32_t seq;
    uint8_t kind;   /* enum cqe_kind */
    uint8_t opcode; /* enum ibv_wc_opcode */
    uint8_t status; /* enum ibv_wc_status */
    uint8_t flags;  /* enum cqe_flags */
    uint32_t qp;    /* poller's queue pair: pub_qp.cookie */
    uint32_t wqe;   /* CQE_SEND: send queue position after this WQE; CQE_RECV: slot */
    uint32_t byte_len;
    uint32_t imm; /* network order, or the invalidated rkey */
    uint32_t src_qp;
    uint8_t inline_len; /* payload bytes in data[], to be placed by the poller */
    uint8_t sl;
    uint8_t pad[2];
    union {
        uint64_t wr_id;               /* CQE_SEND */
        uint8_t data[CQE_INLINE_MAX]; /* CQE_RECV */
    };
};
_Static_assert(sizeof(struct cqe) == 64, "one cache line");

/* The poller's side of a lane, in the poller's arena. */
struct lane_head {
    _Alignas(64) _Atomic uint32_t head; /* its position: for who finds the lane full */
    /* completions from here on came after the CQ was armed: for who finds it armed */
    _Atomic uint32_t armed_from;
};

/* The initiator's side, in its arena: what the CQ's owner looks at when the initiator has died. */
struct lane_tail {
    _Alignas(64) _Atomic uint32_t ringing; /* threads between claiming an event and counting it */
};

/* Multicast membership, in the arena: a sender reads every process's table. */
struct pub_mcast {
    _Atomic uint32_t used; /* 0: free; else the member's queue pair number */
    uint32_t nic;
    uint8_t mgid[16];
};

/* Fixed places in the arena. */
#define PUB_QPS_OFFSET 65536ull
#define PUB_CQS_OFFSET (PUB_QPS_OFFSET + sizeof(struct pub_qp) * LIMIT_QP)
#define PUB_MCAST_OFFSET (PUB_CQS_OFFSET + sizeof(struct pub_cq) * LIMIT_CQ)
#define PUB_MCAST_COUNT 4096u
#define PUB_MRS_OFFSET (PUB_MCAST_OFFSET + sizeof(struct pub_mcast) * PUB_MCAST_COUNT)
#define PUB_SHARE_OFFSET (PUB_MRS_OFFSET + sizeof(struct pub_mr) * LIMIT_MR)
#define PUB_HEAP_OFFSET (PUB_SHARE_OFFSET + (64ull << 20))
/* An arena is a power of two between these; how much the file says. */
#define PUB_ARENA_MIN (256ull << 20)
#define PUB_ARENA_MAX (16ull << 30)

#endif
