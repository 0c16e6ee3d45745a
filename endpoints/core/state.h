/* SPDX-License-Identifier: MIT */
/*
 * The objects of the data path as core, engine and link see them: receive queues, completion
 * queues, queue pairs. uapi/ never includes this.
 *
 *   struct qp --send queue--> core/requester.c --link--> target's receive queue and CQ lane
 *      |--- rq or srq <-- posted by the program, taken by the initiator
 *      `--- cqs: lanes (one an initiating process), spill (overflow, flushes)
 *
 * Lock order: core_lock, then a queue pair's `pub->busy` (its send queue), then a CQ's lock, then a
 * receive queue's lock or a lane's. A thread that holds any of these but core_lock never waits for
 * another process.
 */
#ifndef VIADUCT_CORE_STATE_H
#define VIADUCT_CORE_STATE_H

#include <infiniband/verbs.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/objects.h"
#include "core/pub.h"
#include "core/qp.h"
#include "core/spin.h"

/*
 * A slot of a shared ring. HELD: completed, and waits in a spill to be polled. SUSPECT: claimed,
 * and nobody is known yet who will complete it.
 */
enum slot_state { SLOT_FREE, SLOT_POSTED, SLOT_HELD, SLOT_SUSPECT };

/* A ring of posted receives. The ring itself lies in the arena (pub), the rest is ours alone. */
struct rq {
    struct spin lock; /* posting */
    struct pub_rq *pub;
    struct pub_sge *sges;
    _Atomic uint32_t *slot_ring; /* shared rings: the slot of each posted WQE */
    _Atomic uint64_t *claim;     /* shared rings: head word */
    uint32_t tail;               /* posted */
    _Atomic uint32_t done;       /* exclusive rings: completed or flushed, in order */
    _Atomic uint32_t held;       /* of these, the ones that wait in a spill to be polled */
    uint32_t mask, max_wr, max_sge;
    uint64_t *wr_ids;          /* by slot */
    uint8_t *used;             /* by place: elements that are not zero, at most */
    uint32_t *free_slots;      /* shared rings: stack of free slots */
    struct pub_sge *slot_sges; /* shared rings: the elements, by slot */
    uint8_t *slot_states;      /* shared rings: enum slot_state, by slot */
    uint32_t *posted_at;       /* shared rings: the position, by slot */
    uint32_t free_count;
    size_t ring_size, slots_size;
    uint32_t claim_index;
};

struct srq {
    struct rq rq;
    uint32_t handle;
    struct qp *xrc; /* what stands for it among queue pairs, NULL: not an XRC one */
    struct pd *pd;
    struct context *context;
    uint64_t user_handle;
    unsigned users;
    struct event_counts events;
    uint32_t max_wr, max_sge;
    struct srq *next; /* all of the process, for the engine's limit check */
};

/* The initiator's end of a lane: a ring of completions in our arena. */
struct lane_out {
    struct spin lock;
    bool dead; /* the process at the other end is gone */
    struct cqe *ring;
    uint32_t mask, tail, head_seen;
    const struct lane_head *head; /* in the target's arena */
    const struct pub_cq *cq;      /* the target's */
    struct bell *bell;            /* in the memory that it shares */
    uint32_t drain_asked;         /* tail + 1 for which room was asked for, 0: none */
    uint32_t cq_index, cq_gen;
    struct lane_out *next; /* of the peer */
};

/* The poller's end. */
struct lane_in {
    const struct cqe *ring;
    uint32_t mask, head;
    uint32_t armed_from; /* as in lane_head, which peers read */
    struct lane_head *pub;
    const struct lane_tail *tail; /* in the guest's arena */
    void *guest;                  /* NULL: our own lane, without a tail */
};

/* A completion out of a lane: resolved, but what it frees is still taken until it is polled. */
struct spilled {
    struct completion completion;
    uint32_t qp;    /* pub_qp.cookie */
    uint32_t place; /* as cqe.wqe */
    uint8_t frees;  /* enum spill_frees */
};

enum spill_frees { FREES_NOTHING, FREES_SEND, FREES_RECV };

/* In order. Grows up to the capacity. */
struct spill {
    struct spilled *ring;
    uint32_t head, count, room;
    uint64_t total; /* ever appended */
};

struct cq {
    struct spin lock; /* the lanes' heads and the spill */
    uint32_t handle;
    uint32_t cqe;
    bool stamp;
    _Atomic bool overrun;
    _Atomic bool overrun_due; /* the engine must raise IBV_EVENT_CQ_ERR */
    _Atomic bool event_due;   /* the engine must call cq_announce() */
    _Atomic bool in_session;  /* extended polling: events wait for its end */
    bool has_sessions;
    bool unread;               /* an event may have been written since the last session began */
    bool kernel_fences;        /* the kernel fences initiators when we ask it to */
    bool in_doubt;             /* a peer died, maybe after an event that it did not count */
    uint32_t kind;             /* enum cq_armed of the last arming */
    unsigned lane_count, turn; /* turn: the lane to be polled next */
    struct lane_in **lanes;    /* [0] is our own */
    struct spill spill;
    uint64_t spill_armed_from; /* spilled completions beyond this total came after arming */
    uint32_t fired;            /* the last arming that is known to have its event */
    uint32_t owed;             /* events still to be written to the channel */
    struct lane_out own;
    struct pub_cq *pub;
    struct bell *bell;
    /* ---- control path ---- */
    struct context *context;
    struct channel *channel;
    uint64_t user_handle;
    unsigned users;
    struct event_counts comp_events, async_events;
    struct cq *next; /* all of the process */
};

enum { UD_TARGETS = 64 }; /* destinations a UD queue pair remembers */

/* What an initiator knows of the queue pair it sends to; good while *gen == gen_seen. */
struct target {
    struct peer *peer; /* NULL: not attached */
    uint32_t qpn;
    uint8_t dgid[16];
    const struct pub_qp *pub;
    const _Atomic uint32_t *owner; /* its process's pub_header.owner */
    uint32_t gen_seen;
    uint32_t pd, access, cookie, qkey, rd_atomic, rnr_timer, domain;
    const struct pub_rq *rq;
    const struct pub_sge *sges;
    const _Atomic uint32_t *slots;
    uint32_t ring;           /* its pub_ring_id() */
    _Atomic uint64_t *claim; /* NULL: exclusive, we keep the head */
    uint32_t rq_mask, rq_sge, rq_pd;
    uint32_t head, tail_seen;
    bool in_rtr; /* and has not been told that it hears from us */
    struct lane_out *lane;
    bool wire; /* UD: it is reached over the wire, and nothing above is used */
};

/* A posted send, copied: only WQEs that can't be finished at once are stored. */
struct sq_entry {
    struct ibv_send_wr wr; /* sg_list points to sges below */
    /* copies: the program may destroy these, once it has posted */
    union {
        struct ah ah; /* UD */
        struct {
            struct ibv_mw mw;
            struct ibv_mr mr;
        } bind; /* IBV_WR_BIND_MW: their handles count */
    };
    struct ibv_sge sges[]; /* max_send_sge, then max_inline bytes */
};

enum stall {
    STALL_NONE,
    STALL_ATTACH,  /* the target is not there, or not ready to receive */
    STALL_CONNECT, /* its process or its lane is being connected to */
    STALL_RNR,     /* it has no receive posted */
    STALL_LANE,    /* its engine must make room in our lane */
    STALL_REMOTE,  /* its engine is executing a request */
    STALL_PAGES,   /* its pages are just being shared */
};

/* A receive of a shared ring that a stalled WQE has claimed. */
struct claimed {
    bool valid;
    uint32_t slot;
    struct pub_sge sges[LIMIT_SGE];
};

struct link_ops;
struct roce_qp;
struct shm_capture;
struct datagram_hold;

/*
 * Beside the types that programs know: what stands for an XRC SRQ (core/xrcd.h). It is always
 * ready to receive, has no send side, and no program gets its handle.
 */
#define QPT_XRC_SRQ ((enum ibv_qp_type)15)

/* How a request is carried out in shared memory. */
enum detour {
    DETOUR_NONE, /* RC, UC */
    DETOUR_DATAGRAM,
    DETOUR_XRC,
    DETOUR_CAPTURE, /* any of them, with VIADUCT_PCAP */
};

struct qp {
    /* ---- data path; guarded by pub->busy ---- */
    struct pub_qp *pub;
    enum ibv_qp_type type;
    bool reliable;         /* RC, XRC: what is lost is an error */
    _Atomic uint8_t state; /* enum ibv_qp_state; changed under pub->busy */
    bool sq_sig_all;
    uint8_t detour;   /* enum detour; never changes */
    bool datagram_v4; /* the datagram that is being received from the wire came by IPv4 */
    uint32_t index, qpn, pd;
    struct datagram_hold *hold;  /* UD: a receive taken for a datagram from the wire */
    const struct link_ops *link; /* who keeps the send queue; NULL: we do, and shm carries it out */
    struct roce_qp *wire;        /* that link's */
    uint32_t shown_qpn;          /* what the receiver's completion says */
    uint32_t sq_tail;            /* posted */
    uint32_t sq_head;            /* finished: completed or unsignalled */
    _Atomic uint32_t sq_freed;   /* places the program may use again: moves when it polls */
    uint32_t sq_mask;
    struct target target; /* RC, UC: the connected one */
    struct target *ud;    /* UD, XRC: a small cache, by destination or SRQ */
    struct cq *send_cq, *recv_cq;
    struct ibv_qp_cap cap;
    char *sq_entries; /* made at the first stall, kept */
    size_t sq_entry_size;
    /* the WQE at the head that could not be finished yet */
    enum stall stall;
    uint64_t retry_at_ns, deadline_ns;
    uint64_t wqe_done_bytes;
    uint64_t fault_since_ns; /* the target's memory seems gone since, 0: it does not */
    uint64_t group_since_ns; /* UD: members of a group are being connected to since */
    bool group_out;          /* UD: other hosts have their copy of the WQE at the head */
    uint32_t group_done;     /* UD: members that have their copy of the WQE at the head */
    uint32_t rnr_tries;
    bool rnr_hurried; /* a short wait for a receive was in vain */
    uint32_t sq_psn;
    uint64_t remote_op; /* id of the request the target's engine is executing, 0: none */
    const struct peer *remote_peer; /* who executes it */
    int remote_status;              /* its result once it is there; -EINPROGRESS before */
    uint64_t remote_value;
    void *remote_reply;     /* what was read, on the heap, until it is put in its place */
    uint32_t remote_length; /* that it must have */
    uint32_t remote_key;
    /* ---- receive side ---- */
    struct rq rq;
    struct srq *srq;
    /* ---- control path ---- */
    struct context *context;
    struct pd *pd_object; /* NULL: XRC_RECV */
    struct xrcd *xrcd;
    struct qp *real;    /* this is only another handle of that one */
    struct qp *openers; /* the other handles of this one */
    struct qp *opener_next;
    bool disowned; /* its own handle is gone: it lives for its openers */
    uint64_t user_handle;
    struct event_counts events;
    struct ibv_qp_attr attr; /* as set; query answers from it */
    unsigned mcast_count;
    _Atomic bool established, established_due; /* IBV_EVENT_COMM_EST: happened, to be raised */
    _Atomic bool error_due;  /* the engine must finish the move to the error state */
    _Atomic int error_event; /* ibv_event_type + 1 to raise with it */
    bool sq_drained_due, last_wqe_sent;
    bool peer_gone; /* UC: nobody is to send to it until it is connected anew */
    bool marked;    /* process_mark_qp() was last told so */
    _Atomic bool on_stall_list;
    struct qp *stall_next;
    struct claimed claimed;
    struct shm_capture *capture; /* NULL: nothing was captured */
};

/* ---- core/rq.c ---- */
int rq_init(struct rq *rq, uint32_t max_wr, uint32_t max_sge, uint32_t pd, bool shared);
void rq_fini(struct rq *rq);
void rq_reset(struct rq *rq);
/*
 * A completion says that a slot's receive is over: its wr_id, and its place is free, or (hold) only
 * when rq_release() follows. False: that slot can't be.
 */
bool rq_complete(struct rq *rq, uint32_t slot, bool hold, uint64_t *wr_id_out);
void rq_release(struct rq *rq, uint32_t slot);
/* Place payload into the receive's buffers; false: a local key is no longer good. */
bool rq_place(struct rq *rq, uint32_t slot, const void *data, uint32_t length);
/* Wr_ids of every receive that is posted and not taken, oldest first; each is released. */
bool rq_take_next(struct rq *rq, uint64_t *wr_id_out);
int rq_post(struct rq *rq, const struct ibv_recv_wr *wr);
/*
 * Receives of a shared ring whose initiator died between claim and completion: suspect what is
 * claimed, acquit what somebody still holds or has completed, post the rest again. The first and
 * the last tell whether there were any.
 */
bool rq_suspect(struct rq *rq);
void rq_acquit(struct rq *rq, uint32_t slot);
bool rq_reclaim(struct rq *rq, bool sure);
/* Shared rings, rq->lock held: posted and not yet polled. */
static inline uint32_t rq_outstanding(const struct rq *rq)
{
    return rq->mask + 1 - rq->free_count;
}

/* ---- core/mr.c, data path ---- */
/* Our own memory behind [addr, addr+length) of a key: the pointer, or NULL if not allowed. */
void *mr_local(uint32_t pd, uint32_t lkey, uint64_t addr, uint64_t length, unsigned access);

/* ---- core/cq.c ---- */
/* Append behind everything that is in the CQ, however full its lanes are: the queue pair's flush.
 */
void cq_push_last(struct cq *cq, const struct qp *qp, const struct completion *completion);
/* core_lock held: wait until no poller is at anything that it looked up before now. */
void cq_quiesce(void);
/* Move all lanes' completions to the spill, so that later pushes come behind them. */
void cq_drain(struct cq *cq);
int cq_add_lane(struct cq *cq, struct lane_in *lane);
bool cq_has_lane(struct cq *cq, const void *guest);
void cq_drop_lanes(struct cq *cq, const void *guest);
/* Drop what was spilled for the queue pair's life so far (destroy, reset); pollers are past it. */
void cq_forget_qp(struct cq *cq, uint32_t cookie);
/* Engine: write the events that are owed, and those that nobody told of. */
void cq_announce_all(void);
void cq_announce(struct cq *cq);
void cq_set_overrun(struct cq *cq);

/* ---- core/qp.c ---- */
/* pub->busy held: what initiators see; they look again. */
void qp_publish(struct qp *qp);

/* ---- core/qp_open.c: XRC_RECV queue pairs with several handles ---- */
void qp_enter(struct qp *qp, struct qp *real); /* becomes a handle of it */
void qp_leave(struct qp *qp);
void qp_disown(struct qp *qp);
/* Raise an event of the queue pair, for each handle. */
void qp_event(struct qp *qp, enum ibv_event_type type);

/* ---- core/qp_error.c ---- */
/*
 * Any thread, any lock: the queue pair can no longer work; the engine moves it to the error state.
 * event: enum ibv_event_type + 1 to raise with it, or 0.
 */
void qp_fail(struct qp *qp, int event);
/* Data path: a message came while in RTR (IBTA 11.6.3.2). The engine raises the event, once. */
void qp_established(struct qp *qp);
/* core_lock held, busy not: move to ERR, quiesce initiators, flush both queues in order. */
void qp_enter_error(struct qp *qp);
void qp_finish_errors(void);               /* engine */
void qp_fail_all(struct context *context); /* its NIC has gone */

/* ---- core/event.c ---- */
bool channel_write(struct channel *channel, uint64_t cq_handle, struct event_counts *counts);
void channel_withdraw(struct channel *channel, uint64_t cq_handle, struct event_counts *counts);
void cq_detach_channel(struct channel *channel);

/* ---- a context closes: what it still owns ---- */
void qp_close_all(struct context *context);
void srq_close_all(struct context *context);
void cq_close_all(struct context *context);
void ah_close_all(struct context *context);
void mr_close_all(struct context *context);
void channel_close_all(struct context *context);

/* ---- the child of a fork: forget every object, touch nothing shared ---- */
void rq_after_fork(void);
void qp_after_fork(void);
void srq_after_fork(void);
void cq_after_fork(void);
void mr_after_fork(void);
void ah_after_fork(void);

/* ---- iteration, core_lock ---- */
uint32_t qp_high(void);
struct cq *cq_list(void);
struct qp *qp_at(uint32_t index);
struct srq *srq_list(void);
void srq_check_limits(void); /* engine: raise limit events that fell due */

static inline enum ibv_qp_state qp_state(struct qp *qp)
{
    return (enum ibv_qp_state)atomic_load_explicit(&qp->state, memory_order_acquire);
}

static inline bool qp_is_connected_type(const struct qp *qp)
{
    return qp->type != IBV_QPT_UD;
}

/* Are receives posted to the queue pair itself? Not to the two kinds of XRC, nor with an SRQ. */
static inline bool qp_has_rq(const struct qp *qp)
{
    return qp->rq.pub != NULL;
}

/* The queue a receive completion's slot belongs to. */
static inline struct rq *qp_rq(struct qp *qp)
{
    return qp->srq ? &qp->srq->rq : &qp->rq;
}

#endif
