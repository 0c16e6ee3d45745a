/* SPDX-License-Identifier: MIT */
/* What the files of the connection manager share. */
#ifndef VIADUCT_ENGINE_CM_IMPL_H
#define VIADUCT_ENGINE_CM_IMPL_H

#include "engine/cm.h"

enum {
    CM_INDEX_BITS = 16, /* of a communication id; above it the index's lives, then the mark */
    CM_CONNS_MAX = 1 << CM_INDEX_BITS,
    CM_BUCKETS = 4096,
    CM_PATIENCE = 16, /* 0.27 s: so long an MRA is believed before the peer is asked again */
    CM_PLEAS = 1200,  /* MRAs that are heeded in full: a quarter of an hour */
};

#define CM_NEVER UINT64_MAX

struct cm_conn {
    struct cm *cm;
    void *user;
    enum cm_state state;
    bool passive;
    bool datagram; /* a SIDR exchange */
    bool orphan;   /* its owner has destroyed it */
    bool quits;
    struct cm_route route;
    uint32_t local_id, remote_id;
    uint64_t remote_guid, ca_guid, tid;
    uint32_t remote_qpn, remote_psn;
    uint8_t ack_timeout;
    uint8_t answer_timeout; /* how long the peer may take */
    unsigned tries_left, pleas;
    unsigned refusals;    /* of the request that is being made */
    uint64_t deadline_ns; /* CM_NEVER: none */
    size_t heap_at;       /* 0: not in the heap */
    struct cm_conn *next; /* in its bucket, by the peer's id */
    bool hashed;
    uint8_t last[CM_MAD_SIZE]; /* what is sent again */
};

/* Conversations by index, by the peer's id, and by deadline (a binary heap from [1] on). */
struct cm {
    const struct cm_owner *calls;
    void *owner;
    uint64_t random;
    uint32_t mark;
    struct cm_stats stats;
    struct cm_conn **conns;
    uint32_t *lives;
    uint32_t size, high, count;
    uint32_t *freed;
    uint32_t freed_count;
    struct cm_conn **heap;
    size_t heap_count, heap_room;
    struct cm_conn *buckets[CM_BUCKETS];
};

/* ---- cm.c ---- */
struct cm_conn *cm_conn_new(struct cm *cm, const struct cm_route *route, void *user);
struct cm_conn *cm_by_local(struct cm *cm, uint32_t local_id, uint64_t via);
struct cm_conn *cm_by_remote(struct cm *cm, uint32_t remote_id, uint64_t guid, uint64_t via);
void cm_set_remote(struct cm_conn *conn, uint32_t remote_id, uint64_t guid);
/* Its peer's id is not its own any more. */
void cm_unhash(struct cm_conn *conn);
/* Never fails: a new conversation has its place in the heap reserved. */
void cm_arm(struct cm_conn *conn, uint64_t deadline_ns);

/* ---- cm_send.c ---- */
void cm_send(struct cm_conn *conn, const struct cm_mad *mad);
/* Send, and again until it is answered. */
void cm_ask(struct cm_conn *conn, uint64_t now_ns, struct cm_mad *mad);
void cm_resend(struct cm_conn *conn);
void cm_send_mra(struct cm_conn *conn, enum cm_about about);
void cm_send_rej(struct cm_conn *conn, enum cm_reason reason, const void *data, uint8_t len);
void cm_send_plain(struct cm_conn *conn, enum cm_attribute attribute);
void cm_enter_timewait(struct cm_conn *conn, uint64_t now_ns);

/* The last that is done with a conversation in its turn: who has no owner any more goes. */
static inline void cm_tell(struct cm_conn *conn, enum cm_event event, const struct cm_mad *mad)
{
    if (conn->orphan) {
        cm_forget(conn);
        return;
    }
    conn->cm->calls->event(conn->cm->owner, conn, event, mad);
}

#endif
