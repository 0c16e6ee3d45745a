/* SPDX-License-Identifier: MIT */
/*
 * Connection management (IBTA 12) as a machine without a clock and without I/O: messages go in with
 * the time they came, messages and events come out by two functions the owner gives, and
 * cm_deadline() says when to call again. One machine a process; not locked.
 *
 *        active                                   passive
 *   cm_connect   REQ_SENT ------REQ-----> REQ_RCVD    event REQ
 *                REP_RCVD <-----REP------ REP_SENT    cm_accept
 *   event REP; cm_confirm ------RTU-----> ESTABLISHED event RTU
 *   cm_disconnect DREQ_SENT ----DREQ----> DREQ_RCVD   event DREQ
 *   event DREP   TIMEWAIT  <----DREP----- TIMEWAIT    cm_disconnect
 *
 * A message that asks for an answer is sent again until it comes (or an MRA asks for patience). Who
 * asks twice gets the answer twice. Whatever does not fit the state, or is no message at all, is
 * counted and dropped.
 */
#ifndef VIADUCT_ENGINE_CM_H
#define VIADUCT_ENGINE_CM_H

#include "engine/cm_mad.h"

enum {
    CM_MARK_BITS = 10,
    CM_RESPONSE_TIMEOUT = 17, /* 4.096 us << 17: 0.54 s */
    CM_RETRIES = 15,
    CM_QUIT_TIMEOUT = 12,    /* 17 ms */
    CM_QUIT_NS = 300000000,  /* with all retries */
    CM_SERVICE_TIMEOUT = 24, /* what an MRA asks for: 69 s */
};

static inline uint64_t cm_timeout_ns(unsigned exponent)
{
    return 4096ull << exponent;
}

/* Where a message goes, or came from. The machine compares `via` and copies the rest. */
struct cm_route {
    uint64_t via; /* the link's own address */
    uint8_t sgid[16], dgid[16];
};

enum cm_state {
    CM_IDLE,
    CM_REQ_SENT,
    CM_REQ_RCVD,
    CM_REP_SENT,
    CM_REP_RCVD,
    CM_ESTABLISHED,
    CM_DREQ_SENT,
    CM_DREQ_RCVD,
    CM_TIMEWAIT,
    CM_SIDR_REQ_SENT,
    CM_SIDR_REQ_RCVD,
    CM_STATES,
};

enum cm_event {
    CM_EVENT_REQ,         /* mad; the conversation is new: cm_set_user() */
    CM_EVENT_REP,         /* mad */
    CM_EVENT_RTU,         /* mad, or NULL: the peer's RTU is as good as here */
    CM_EVENT_REJ,         /* mad, or NULL: the peer's process is gone */
    CM_EVENT_DREQ,        /* mad, or NULL: the same */
    CM_EVENT_DREP,        /* mad, or NULL: nobody answered, or both asked */
    CM_EVENT_UNREACHABLE, /* no answer to a REQ, REP or SIDR_REQ */
    CM_EVENT_TIMEWAIT_EXIT,
    CM_EVENT_SIDR_REQ, /* as REQ */
    CM_EVENT_SIDR_REP, /* mad */
};

/* One conversation: a connection from its first message on, or one SIDR exchange. */
struct cm_conn;
struct cm;

/* The functions may call any function below, and destroy the conversation an event is about. */
struct cm_owner {
    void (*send)(void *owner, const struct cm_route *route, const uint8_t mad[CM_MAD_SIZE]);
    void (*event)(void *owner, struct cm_conn *conn, enum cm_event event, const struct cm_mad *mad);
};

struct cm_stats {
    uint64_t received, sent, resent, malformed, unexpected, duplicates;
};

/* `seed`: anything that differs from process to process. NULL: no memory. */
struct cm *cm_new(const struct cm_owner *calls, void *owner, uint64_t seed);
/*
 * The owner's mark in every communication id from now on, for who must find the machine that one
 * belongs to: below 1 << CM_MARK_BITS.
 */
void cm_set_mark(struct cm *cm, uint32_t mark);
static inline uint32_t cm_mark_of(uint32_t id)
{
    return id >> (32 - CM_MARK_BITS);
}
void cm_free(struct cm *cm); /* silently, with all conversations */

/* ---- time and messages ---- */
void cm_receive(struct cm *cm, uint64_t now_ns, const struct cm_route *from, const uint8_t *bytes,
                size_t len);
uint64_t cm_deadline(const struct cm *cm); /* UINT64_MAX: none */
void cm_expire(struct cm *cm, uint64_t now_ns);
/* Whoever is reached by `via` is gone: its conversations end as if it had said so. */
void cm_lost(struct cm *cm, uint64_t now_ns, uint64_t via);
/* The same for those that connect with this queue pair of its. */
void cm_lost_peer(struct cm *cm, uint64_t now_ns, uint64_t via, uint32_t qpn);
/*
 * A message that was sent to `via` found nobody there: these are its bytes. Who was heard of before
 * is gone; one who never was may come yet, and is asked on.
 */
void cm_refused(struct cm *cm, uint64_t now_ns, uint64_t via, const uint8_t *bytes, size_t len);
/*
 * The process ends: so do its conversations with those that `leads_out` says can't see that. How
 * many have yet to be answered, within CM_QUIT_NS of the first call: call again.
 */
unsigned cm_quit(struct cm *cm, uint64_t now_ns, bool (*leads_out)(uint64_t via));
void cm_get_stats(const struct cm *cm, struct cm_stats *stats_out);

/* ---- the owner's calls; -EINVAL: not in this state ---- */
/*
 * Ask for a connection: mad holds all of the REQ but ids, timeouts and retries. 0 and the
 * conversation, or -ENOMEM. `user` is what cm_user() returns.
 */
int cm_connect(struct cm *cm, uint64_t now_ns, const struct cm_route *route,
               const struct cm_mad *req, void *user, struct cm_conn **conn_out);
int cm_sidr_connect(struct cm *cm, uint64_t now_ns, const struct cm_route *route,
                    const struct cm_mad *req, void *user, struct cm_conn **conn_out);
int cm_accept(struct cm_conn *conn, uint64_t now_ns, const struct cm_mad *rep);
int cm_confirm(struct cm_conn *conn, uint64_t now_ns);     /* RTU */
int cm_established(struct cm_conn *conn, uint64_t now_ns); /* data came before the RTU */
int cm_sidr_reply(struct cm_conn *conn, const struct cm_mad *rep);
int cm_reject(struct cm_conn *conn, uint64_t now_ns, enum cm_reason reason, const void *data,
              uint8_t len);
/* DREQ, or DREP if the peer was first. */
int cm_disconnect(struct cm_conn *conn, uint64_t now_ns);
/*
 * End it as the state asks for (REJ, DREQ, DREP): no event tells of it any more. A DREQ is sent
 * again until it is answered; only then the conversation is forgotten.
 */
void cm_destroy(struct cm_conn *conn, uint64_t now_ns);
/* Forget it without a word: the peer will ask again. */
void cm_forget(struct cm_conn *conn);

/* ---- what is known ---- */
void *cm_user(const struct cm_conn *conn);
void cm_set_user(struct cm_conn *conn, void *user);
enum cm_state cm_state_of(const struct cm_conn *conn);
const struct cm_route *cm_route_of(const struct cm_conn *conn);

#endif
