/* SPDX-License-Identifier: MIT */
/*
 * The same-host link inside.
 *
 *   this process (initiator)                     another process (target)
 *   struct peer  ---- socket: requests ---->     struct guest
 *      |  its arena, read-only                      |  our arena, read-only
 *      |  its shared pages, read-write              `- lanes we write, its CQs poll
 *      `- lanes (in our arena)
 *
 * A process that wants to send to another connects to that one's socket; each direction has its own
 * connection. The engine threads do the talking; the data path only reads what they have set up:
 * peer pointers are published once ready and freed only when no queue pair can hold them.
 */
#ifndef VIADUCT_LINK_SHM_SHM_H
#define VIADUCT_LINK_SHM_SHM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/state.h"
#include "core/thread.h"
#include "link/link.h"
#include "link/shm/share.h"

enum { SHM_PAYLOAD_MAX = 32768 };

enum shm_type {
    SHM_HELLO = 1,  /* both ways, with descriptors: arena, mem */
    SHM_LANE_OPEN,  /* initiator: cq, gen; offset, entries of the ring; value: offset of the tail */
    SHM_LANE_READY, /* target: cq, gen; offset of the head; status */
    SHM_EVENT,      /* initiator: cq, gen; the arming `key`, op: enum shm_event */
    SHM_CHANNEL,    /* target: cq, gen; with the descriptor of its channel */
    SHM_DRAIN,      /* initiator: my lane to the CQ is full */
    SHM_QP_ERROR,   /* initiator: your queue pair must go to error; value: ibv_event_type + 1 */
    SHM_SRQ_LIMIT,  /* initiator: some SRQ fell below its limit */
    SHM_RECLAIM,    /* initiator: I gave up a receive that I had claimed */
    SHM_SHARE,      /* initiator: I keep reaching these pages: share them */
    SHM_EXECUTE,    /* initiator: move or compute this for me; payload with writes */
    SHM_EXECUTED,   /* target: status, value; payload with reads */
    SHM_FIRST,      /* initiator: your queue pair, which is in RTR, hears from me */
    SHM_MAD,        /* both: a connection management datagram, as payload */
    SHM_LOOK,       /* anybody: may I see your arena? the same back, with its descriptor (look.h) */
    SHM_REMOVED,    /* anybody: a NIC went or came, look; the same back when done (removal.h) */
};

/*
 * TOLD: a completion asks for the arming's event. CLAIMED: I have claimed it, but could not write
 * it; FIRST: because I lack the channel's descriptor.
 */
enum shm_event { SHM_EVENT_TOLD, SHM_EVENT_CLAIMED, SHM_EVENT_FIRST };

enum shm_op { SHM_OP_WRITE, SHM_OP_READ, SHM_OP_CAS, SHM_OP_ADD };

/* Every message is one of these, then its payload, in one SOCK_SEQPACKET record. */
struct shm_msg {
    uint32_t type;
    uint32_t index; /* CQ or queue pair */
    uint32_t gen;   /* CQ gen, queue pair cookie, or flags of HELLO */
    int32_t status;
    uint64_t id;
    uint64_t offset; /* or address */
    uint64_t length;
    uint64_t value[2];
    uint32_t key;
    uint32_t op;
};

/* Messages that have to wait for room in another process's socket. */
struct outbox {
    struct spin lock;
    size_t bytes;
    struct letter *first;
};

/* A process we send to. Engine thread writes; the data path reads after `ready` (acquire). */
struct peer {
    struct watch watch; /* .fd: our connection */
    uint32_t slot;
    _Atomic bool ready;
    _Atomic bool dead;
    bool self;
    int pid;
    char *arena;
    uint64_t arena_size;
    struct share_view view;
    struct outbox outbox;
    _Atomic(struct shm_lane *) lanes;
    _Atomic uint32_t asked;     /* share requests so far, to space them */
    _Atomic bool no_process_vm; /* the kernel refuses: the target must execute */
};

struct shm_lane {
    struct lane_out out;
    _Atomic(struct shm_lane *) next;
    struct shm_lane *gone_next;
    struct lane_tail *tail;
    _Atomic uint64_t announced; /* bell.armed that we have told of, without claiming it */
    _Atomic int channel;        /* descriptor of the CQ's channel, or enum lane_channel */
    _Atomic int state;          /* enum lane_state */
};

enum lane_channel { CHANNEL_NONE = -1, CHANNEL_REFUSED = -2 };

enum lane_state { LANE_WANTED, LANE_ASKED, LANE_READY, LANE_REFUSED };

/* ---- peer.c: processes we send to ---- */
/* Data path: the peer if it is ready; else NULL, and the engine has been asked to connect. */
struct peer *peer_get(uint32_t slot);
/* Data path: the engine has just tried, and there is no such process. */
bool peer_is_absent(uint32_t slot);
/* Data path: false if the socket is full or gone (try later, or let it be). Never waits. */
bool peer_send(struct peer *peer, const struct shm_msg *msg, const void *payload, size_t length);
/* core_lock held: connect now, so that its end is heard of from here on. */
void peer_reach(uint32_t slot);
void peer_progress(void);
void peer_flush(void); /* engine: what waits in outboxes */
int peer_open(void);
void peer_after_fork(void);
/*
 * Data path: visit every process of the user that is there; false: some are not connected yet, and
 * the engine has been asked to.
 */
bool peer_each(void (*visit)(struct peer *peer, void *argument), void *argument);
void peer_announce_member(void);

/* ---- lane.c: our lanes to a peer's CQs ---- */
/* Data path: the lane to its CQ if it is ready; else NULL, and it has been asked for. */
struct shm_lane *peer_lane(struct peer *peer, uint32_t cq, uint32_t gen);
/* Engine: are some wanted? Then ask each peer for what it owes, and let go of those to dead CQs. */
bool lanes_due(void);
void lanes_ask(struct peer *peer);
void lane_on_ready(struct peer *peer, const struct shm_msg *msg);
void lane_on_channel(struct peer *peer, const struct shm_msg *msg, int fd);
void lanes_free(struct peer *peer);
void lanes_after_fork(const struct peer *peer);

/* ---- outbox.c: messages that must arrive ---- */
/*
 * Data path: at once, or when there is room again. Never waits. False: far too much waits already,
 * or there is no memory; the message is lost.
 */
bool outbox_send(struct outbox *outbox, int fd, const struct shm_msg *msg, const void *payload,
                 size_t length);
/* The same; true: it is sent, and does not need us any more. */
bool peer_tell(struct peer *peer, const struct shm_msg *msg);
/* Engine: is anything left over? Then try again. */
bool outbox_due(void);
void outbox_flush(struct outbox *outbox, int fd);
void outbox_free(struct outbox *outbox);

/* A checked pointer into the peer's arena: NULL if [offset, offset + size) is not inside. */
static inline void *peer_ptr(const struct peer *peer, uint64_t offset, uint64_t size)
{
    if (offset % 8 || offset >= peer->arena_size || size > peer->arena_size - offset)
        return NULL;
    return peer->arena + offset;
}

static inline const struct pub_header *peer_header(const struct peer *peer)
{
    return (const struct pub_header *)(const void *)peer->arena;
}

/* ---- guest.c: processes that send to us ---- */
int guest_open(void);
void guest_after_fork(void);
void guest_flush(void); /* engine: what waits in outboxes */
/* Pass over the busy words of what every guest (or the one of a slot) has, until all were seen
 * free. */
bool guest_quiesce(uint32_t qpn); /* false: somebody was busy all the time */
/* Visit the queue pairs of every guest, and our own, as initiators. */
void guest_each_initiator(void (*visit)(const struct pub_qp *qp));

/* ---- mad.c: connection management datagrams, over whichever socket there is ---- */
void mad_send(uint64_t to, const uint8_t mad[256]);
void mad_receive(const char *arena, const void *payload, size_t length);
void mad_progress(void);
void mad_after_fork(void);
/* The process at the other end of a socket of ours, by its arena. */
uint64_t mad_name_of(const char *arena);
/*
 * The socket of that very process. -ESRCH: there is none; -EAGAIN: not yet. Only the engine thread
 * may ask to connect.
 */
int peer_socket(uint64_t name, bool connect);
int guest_socket(uint64_t name); /* -ESRCH: it has not called us */

/* ---- reclaim.c: receives of shared rings that were claimed and will never be completed ---- */
void shm_reclaim(void);      /* core_lock held */
void shm_reclaim_soon(void); /* any thread: the engine will do it */
void shm_reclaim_due(void);  /* engine */
/* Our shared ring that a queue pair's claim_ring names, or NULL. */
struct rq *shm_claimed_ring(uint32_t ring);

/* A process is gone: our queue pairs that were connected to a live one of it fail. died.c */
void shm_process_died(uint32_t slot, const char *arena, const struct peer *peer);
/* The same for one that was there, but did not live to let us in. */
void shm_process_vanished(uint32_t slot);

/* ---- shm.c ---- */
int shm_open_link(void);
void shm_progress(void); /* engine, core_lock held */
void shm_after_fork(void);
/* Engine, core_lock held: a process let us in; our queue pairs ask for their lanes. */
void shm_peer_came(uint32_t slot);

/* ---- message.c ---- */
/* Never waits: -EAGAIN or -ENOBUFS if the socket is full. */
int msg_send(int fd, const struct shm_msg *msg, const void *payload, size_t length, const int *fds,
             unsigned fd_count);
/* Bytes of payload, or negative errno; -ENOTCONN: the other end is gone. fds_out gets -1 or fds. */
ssize_t msg_receive(int fd, struct shm_msg *msg, void *payload, size_t room, int fds_out[2]);
void close_fds(const int fds[2]);
int map_arena_of(int fd, char **arena_out, uint64_t *size_out);

/* ---- execute_here.c: what a guest may ask us to do for it ---- */
/* from: the guest's queue pair that the request is for. */
void execute_here(const struct pub_qp *from, uint32_t from_qpn, const struct shm_msg *ask,
                  const void *payload, struct shm_msg *answer, void *reply_payload,
                  size_t *reply_length);

/* ---- target.c ---- */
/* Data path, busy held: make qp's target good, or say why not yet (qp->stall). */
bool target_reach(struct qp *qp, struct target *target);
/* Of a queue pair with many: one of them, to be reached. */
struct target *target_of_many(struct qp *qp, const uint8_t dgid[16], uint32_t qpn);
/* The owner's address behind a key, or 0 if the access is refused (IBTA 9.7.4.1.3). */
uint64_t target_mr(const struct target *target, uint32_t pd, uint32_t key, uint64_t addr,
                   uint64_t length, unsigned access);
/* IBTA 10.6.5.1.4: only a window (or region) that the target may invalidate; else it refuses. */
bool target_may_invalidate(const struct target *target, uint32_t rkey);

/* ---- move.c ---- */
enum move { MOVE_DONE, MOVE_STALL, MOVE_FAULT };

/* The target's range as memory of ours, if all of it is: in our own process, or shared pages. */
static inline char *move_direct(struct peer *peer, uint64_t addr, uint64_t length)
{
    if (peer->self)
        return (char *)addr;
    return length ? share_translate(&peer->view, addr, length) : NULL;
}

/* One contiguous piece between our memory and the peer's. STALL: qp->stall says for what. */
enum move move_out(struct qp *qp, struct peer *peer, uint64_t to, const void *from,
                   uint64_t length);
enum move move_in(struct qp *qp, struct peer *peer, void *to, uint64_t from, uint64_t length);
enum move move_atomic(struct qp *qp, struct peer *peer, uint64_t at, const struct ibv_send_wr *wr,
                      uint64_t *before_out);

/* Fetch-and-add, or compare-and-swap; the value before. */
uint64_t move_atomic_here(uint64_t *at, bool add, uint64_t operand, uint64_t swap);

/* ---- ring.c: waking the target's program ---- */
/*
 * Data path, busy held: completion `at` has just been stored in the lane to another process, whose
 * CQ was then found armed.
 */
void ring(struct target *target, uint64_t armed, uint32_t at, bool loud);

/* ---- deliver.c: receive completions at the target ---- */
struct delivery {
    uint8_t opcode, status, flags, sl;
    uint32_t byte_len, imm, slot;
    const void *inline_data; /* or NULL */
    uint32_t inline_length;
};
/* False: the lane is full; qp->stall says so. */
bool deliver(struct qp *qp, struct target *target, const struct delivery *delivery);
/* The target's queue pair must go to error; it raises event - 1, or nothing. */
void tell_error(struct target *target, int event);
void tell_srq(struct target *target);
/* Something came for a queue pair in RTR: IBV_EVENT_COMM_EST. */
void tell_first(struct target *target);

/* ---- datagram.c ---- */
/* Went it to the wire? When it is done. */
bool datagram_is_out(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah);
enum verdict shm_datagram(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah,
                          enum ibv_wc_status *status);
/* Our side of a WQE: its total length, and where it lies if it is one element. */
struct local {
    uint64_t length;
    char *whole;
};

/* Check the WQE's elements against our keys: false, *status says why. */
bool local_check(const struct qp *qp, const struct ibv_send_wr *wr, unsigned access,
                 struct local *local_out, enum ibv_wc_status *status);
/* Our memory behind one element; good after local_check(). */
void *local_memory(const struct qp *qp, const struct ibv_send_wr *wr, const struct ibv_sge *sge,
                   unsigned access);
/* The next receive of the target: its elements and slot; false: there is none. Shared rings are
 * claimed for good (qp->claimed); an exclusive one moves with receive_taken(). */
bool receive_next(struct qp *qp, struct target *target, const struct pub_sge **sges_out,
                  uint32_t *slot_out);
void receive_taken(struct qp *qp, struct target *target);
/*
 * After a message of a few KiB: have the memory of the next receive fetched while its reader is
 * busy with this one. Programs post thousands of them, more than a cache holds.
 */
void receive_warm(struct target *target, uint64_t length);
/* Give a claimed receive back to its owner, if there is one. */
void receive_abandon(struct qp *qp);

#endif
