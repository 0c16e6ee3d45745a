/* SPDX-License-Identifier: MIT */
/*
 * The IBTA transport of one queue pair (IBTA 9.7 and 9.8; RC, UC and XRC) without clock and I/O:
 * packets and the time go in, packets and the next time come out. Its owner has the sockets, the
 * memory, the queues of the verbs.
 *
 *   transport_post ----> +-----------+ --transport_next--> packet
 *                        | transport |
 *   transport_receive -> +-----------+ --calls--> memory, receives, completions
 *   (packet, now)             ^
 *   transport_expire ---------'  when transport_deadline() has passed
 *
 * After any call that takes `now`, and after a post, the owner asks transport_next() for packets
 * until there is none or its own room is used up, and looks at transport_deadline(). Nothing is
 * lost by asking late: what is due is remembered, and acknowledgements of one batch become one.
 *
 * Not locked: the owner lets one thread in at a time. Allocates in transport_new() only. What is
 * wrong in a packet is counted and dropped, or answered as the specification says; nothing in a
 * packet is trusted.
 */
#ifndef VIADUCT_ENGINE_TRANSPORT_H
#define VIADUCT_ENGINE_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "wire/packet.h"

enum {
    TRANSPORT_SGE_MAX = 32,
    TRANSPORT_WINDOW_MAX = 1024, /* packets in flight, at most */
};

#define TRANSPORT_NEVER UINT64_MAX

/* An XRC one sends or receives; which shared receive queue, each request says. */
enum transport_type { TRANSPORT_RC, TRANSPORT_UC, TRANSPORT_XRC };

/* The numbers are those of enum ibv_wr_opcode. */
enum transport_op {
    TRANSPORT_WRITE,
    TRANSPORT_WRITE_IMM,
    TRANSPORT_SEND,
    TRANSPORT_SEND_IMM,
    TRANSPORT_READ,
    TRANSPORT_COMPARE_SWAP,
    TRANSPORT_FETCH_ADD,
    TRANSPORT_LOCAL_INV,
    TRANSPORT_BIND,
    TRANSPORT_SEND_INV,
};

/* The numbers are those of enum ibv_wc_status. */
enum transport_status {
    TRANSPORT_SUCCESS = 0,
    TRANSPORT_LOC_LEN_ERR = 1,
    TRANSPORT_LOC_QP_OP_ERR = 2,
    TRANSPORT_LOC_PROT_ERR = 4,
    TRANSPORT_FLUSH_ERR = 5,
    TRANSPORT_BIND_ERR = 6,
    TRANSPORT_BAD_RESP_ERR = 7,
    TRANSPORT_REM_INV_REQ_ERR = 9,
    TRANSPORT_REM_ACCESS_ERR = 10,
    TRANSPORT_REM_OP_ERR = 11,
    TRANSPORT_RETRY_EXC_ERR = 12,
    TRANSPORT_RNR_RETRY_EXC_ERR = 13,
};

enum transport_access {
    TRANSPORT_REMOTE_WRITE = 1,
    TRANSPORT_REMOTE_READ = 2,
    TRANSPORT_REMOTE_ATOMIC = 4,
};

struct transport_sge {
    uint64_t addr;
    uint32_t length, key;
};

enum transport_flags {
    TRANSPORT_SOLICITED = 1,
    TRANSPORT_FENCE = 2,
    TRANSPORT_INLINE = 4, /* the elements' bytes are copied at once, their keys are not looked at */
    TRANSPORT_SIGNALED = 8, /* the program waits for it: others may be acknowledged later */
};

/* A work request. The elements belong to the caller until transport_post() returns. */
struct transport_wr {
    uint64_t cookie;
    enum transport_op op;
    unsigned flags;
    uint32_t imm; /* immediate data in network order, or the key to invalidate */
    uint32_t rkey;
    uint64_t remote_addr;
    uint64_t swap_add, compare;
    uint32_t xrc_srqn;
    uint32_t sge_count;
    const struct transport_sge *sges;
    void *local; /* TRANSPORT_BIND: what the owner needs to do it */
};

/* A posted receive, taken. */
struct transport_recv {
    uint32_t xrc_srqn; /* set before take(): whose receive */
    uint32_t slot;
    uint32_t sge_count;
    struct transport_sge sges[TRANSPORT_SGE_MAX];
};

enum transport_arrival_flags {
    ARRIVAL_IMM = 1,
    ARRIVAL_INV = 2,
    ARRIVAL_SOLICITED = 4,
    ARRIVAL_GRH = 8,
    ARRIVAL_WRITE = 16, /* of a WRITE with immediate; else a SEND */
};

/* What completes a receive. */
struct transport_arrival {
    uint32_t slot;
    enum transport_status status;
    unsigned flags;
    uint32_t byte_len;
    uint32_t imm; /* immediate data in network order, or the invalidated key */
    uint32_t src_qpn;
    uint32_t xrc_srqn;
};

/* XRC: where the memory is that goes with a shared receive queue. */
enum transport_aim {
    AIM_HERE,  /* in our process: local() and remote() are its pointers */
    AIM_FAR,   /* in another one: local() and remote() are good to be tested only; far() moves */
    AIM_LATER, /* it can't be reached yet: what asks for it is as good as lost */
    AIM_NONE,  /* there is no such shared receive queue in our domain */
};

enum transport_far_op { FAR_PLACE, FAR_WRITE, FAR_READ, FAR_COMPARE_SWAP, FAR_FETCH_ADD };

/* Bytes to be moved between us and a process that a shared receive queue is of. */
struct transport_far {
    enum transport_far_op op; /* PLACE: the key is a receive's own; else the peer's */
    uint32_t key;
    uint64_t addr;
    uint32_t length;
    const uint8_t *bytes; /* to be written; READ: what was read, good until the next call */
    uint64_t swap_add, compare;
    uint64_t before; /* atomics: what was there */
};

enum transport_far_result {
    FAR_DONE,
    FAR_LATER, /* as AIM_LATER; what was moved already is remembered for the next try */
    FAR_REFUSED,
};

/* Why a queue pair can't go on: what the owner's state machine and events need. */
enum transport_failure {
    FAILED_SENDING, /* a request failed here: RC to ERR, UC to SQE */
    FAILED_REQUEST, /* the peer's request was invalid: ERR, IBV_EVENT_QP_REQ_ERR */
    FAILED_ACCESS,  /* the peer's request violated access: ERR, IBV_EVENT_QP_ACCESS_ERR */
    FAILED_RECEIVE, /* a receive of ours was at fault: ERR */
    FAILED_PEER,    /* it is gone: ERR, IBV_EVENT_QP_FATAL; a UC goes on as it is */
};

/*
 * What a transport asks of its owner. Memory that local() and remote() give is used before the call
 * into the transport returns, or, in a packet of transport_next(), until the next call.
 */
struct transport_calls {
    /* Our own memory behind a local key, to be read or written; NULL: not allowed. */
    void *(*local)(void *owner, uint32_t key, uint64_t addr, uint64_t length, bool write);
    /* What the peer may reach by this key; NULL: not allowed. length is never 0. */
    void *(*remote)(void *owner, uint32_t key, uint64_t addr, uint64_t length,
                    enum transport_access access);
    /* A SEND with invalidate: is the key one that the peer may invalidate? deliver() does it. */
    bool (*may_invalidate)(void *owner, uint32_t key);
    /* The oldest posted receive becomes ours until deliver(); false: there is none. */
    bool (*take)(void *owner, struct transport_recv *recv_out);
    /* Receives posted and not taken; UINT32_MAX: shared with others, grant no credits. */
    uint32_t (*receives)(void *owner);
    void (*deliver)(void *owner, const struct transport_arrival *arrival);
    /* XRC, where it receives: what follows is for this shared receive queue. Else NULL, both. */
    enum transport_aim (*aim)(void *owner, uint32_t xrc_srqn);
    enum transport_far_result (*far)(void *owner, struct transport_far *what);
    /* BIND and LOCAL_INV, in their turn. */
    enum transport_status (*execute)(void *owner, const struct transport_wr *wr);
    /* The oldest request is over. Each one gets this, signalled or not, in order. */
    void (*complete)(void *owner, const struct transport_wr *wr, enum transport_status status,
                     uint32_t byte_len);
    /*
     * The queue pair can't go on. The failed request or receive has been completed; what is left of
     * either queue is the owner's to flush: transport_flush().
     */
    void (*fail)(void *owner, enum transport_failure failure);
};

/* Changed by transport_modify() at any time, except the first group. */
struct transport_config {
    enum transport_type type;
    uint32_t max_wr, max_sge, max_inline; /* of the send queue; a power of two is best */
    uint8_t max_dest_rd_atomic;           /* reads and atomics of the peer that we remember */

    uint32_t dest_qpn;
    uint16_t pkey;
    uint32_t mtu;    /* bytes: 256 .. 4096 */
    uint8_t timeout; /* 4.096 us << timeout, at least 10 ms; 0: wait for ever */
    uint8_t retry_count, rnr_retry, min_rnr_timer;
    uint8_t max_rd_atomic; /* ours that the peer can remember */
    unsigned access;       /* enum transport_access: what the peer may ask for */
    uint32_t window;       /* packets in flight that the path holds; 0: a good default */
};

struct transport_stats {
    uint64_t sent, received;             /* packets */
    uint64_t resent;                     /* requests sent again */
    uint64_t go_backs, probes, timeouts; /* after a NAK; before and at the ACK timeout */
    uint64_t naks_sent, naks_received, rnrs_sent, rnrs_received;
    uint64_t duplicates, ahead, dropped; /* requests of the past; after a gap; senseless */
    uint64_t cnps_sent, cnps_received;
};

struct transport;

/* NULL: no memory. */
struct transport *transport_new(const struct transport_config *config,
                                const struct transport_calls *calls, void *owner);
void transport_free(struct transport *t);

/* ---- states: the owner's state machine says when ---- */
/* Receive from now on (RTR), the first packet having this PSN. */
void transport_start_receiving(struct transport *t, uint32_t psn);
/* Send from now on (RTS). */
void transport_start_sending(struct transport *t, uint32_t psn);
/* SQD: finish what has begun, begin nothing; or go on. */
void transport_hold(struct transport *t, bool hold);
/* Held, and nothing is under way any more. */
bool transport_is_drained(const struct transport *t);
/*
 * No request goes out or is taken in any more; an ACK or NAK that is due, and what must precede
 * it, still goes out. A receive that was begun completes as flushed. fail() has done this before it
 * is called, except for FAILED_SENDING of a UC, which goes on receiving.
 */
void transport_stop(struct transport *t);
/* Complete every request that is left as flushed. */
void transport_flush(struct transport *t);
void transport_modify(struct transport *t, const struct transport_config *config);
const struct transport_config *transport_config_of(const struct transport *t);

/* ---- work ---- */
/* Copies wr and its elements. False: max_wr requests are not over yet. */
bool transport_post(struct transport *t, const struct transport_wr *wr);
/*
 * What was just posted is small, and so much is in flight that an acknowledgement must come soon:
 * the owner may leave it to that moment, and so send several in one go.
 */
bool transport_may_wait(const struct transport *t);
/* Many send the same way: no more packets than this in flight from now on, but one always. */
void transport_set_share(struct transport *t, uint32_t packets);
/* Packets are in flight, or wait for room. */
bool transport_is_sending(const struct transport *t);
/* Packet: parsed, its ICRC good, its destination this queue pair. ce: IP says congestion. */
void transport_receive(struct transport *t, uint64_t now_ns, const struct wire_packet *packet,
                       bool ce);

/* A packet to send: headers, and where its payload lies. */
struct transport_packet {
    struct wire_packet headers; /* payload_length is set, payload is not */
    unsigned part_count;
    /*
     * The program may be writing to it (a READ's answer, or a send queue the program abuses): take
     * checksums of what is sent, not of what was looked at before.
     */
    struct iovec parts[TRANSPORT_SGE_MAX];
};

/* The next packet, if there is one to be sent now. It counts as sent. */
bool transport_next(struct transport *t, uint64_t now_ns, struct transport_packet *packet_out);
/* Would transport_next() give one? */
bool transport_has_next(struct transport *t, uint64_t now_ns);

/*
 * Is something to be sent that the peer, or what is posted, waits for? An ACK alone can wait a
 * moment, for more to acknowledge or a request to go with.
 */
bool transport_is_urgent(struct transport *t, uint64_t now_ns);

/* When transport_expire() must be called; TRANSPORT_NEVER: only packets and posts matter. */
uint64_t transport_deadline(const struct transport *t);
void transport_expire(struct transport *t, uint64_t now_ns);

/* Is a request with this PSN sent, and not acknowledged; or a question of transport_ask()? */
bool transport_is_in_flight(const struct transport *t, uint32_t psn);
/*
 * The peer's host says that nobody is there for what is in flight. It is tried again as often as
 * ever, in case that was a mistake, but without waiting long: who has died is heard of at once.
 */
void transport_refused(struct transport *t, uint64_t now_ns);
/* What was said so still stands: no packet has come since. */
bool transport_is_refused(const struct transport *t);

/*
 * Watch the peer while nothing is in flight. transport_ask() asks it for a sign of life, by a
 * packet that changes nothing; false: there is no need to. No answer means nothing; but if that, or
 * anything else that goes there, is refused and a few more questions are not answered within 0.1 s,
 * the peer is gone: fail(FAILED_PEER).
 */
void transport_watch(struct transport *t, bool on);
bool transport_ask(struct transport *t);

void transport_get_stats(const struct transport *t, struct transport_stats *stats_out);
/* Send queue position of the oldest request that is not over, of the next to be posted. */
uint32_t transport_head(const struct transport *t);
uint32_t transport_tail(const struct transport *t);

#endif
