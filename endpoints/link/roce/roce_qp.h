/* SPDX-License-Identifier: MIT */
/* What the files of connected queue pairs on the wire share. */
#ifndef VIADUCT_LINK_ROCE_ROCE_QP_H
#define VIADUCT_LINK_ROCE_ROCE_QP_H

#include "link/roce/roce_impl.h"

struct roce_peer;

struct roce_qp {
    struct qp *qp;
    struct transport *transport;
    struct roce_path path;
    bool sending;                           /* counted in its port's */
    struct roce_xrc *xrc;                   /* XRC_RECV */
    uint32_t rq_head;                       /* receives of an exclusive ring taken so far */
    _Atomic uint64_t deadline_ns;           /* TRANSPORT_NEVER: none */
    uint64_t counted_rnrs, counted_retries; /* of the transport's, in the queue pair's counters */
    uint64_t counted_timeouts, counted_silences, counted_dropped;
    bool touched;                  /* the receive lock: on the list of those to be answered */
    struct roce_qp *touched_next;  /* the receive lock */
    struct roce_qp *next, **place; /* the receive lock: all of the process */
    /* peer.c, the receive lock */
    struct roce_peer *peer; /* NULL: its end is not watched for */
    uint64_t heard;         /* packets at the last look */
    bool asked;             /* since then: an answer is no news */
    uint64_t asked_ns;
    _Atomic bool lost; /* the peer is gone; to be told */
};

/* ---- qp.c ---- */
struct roce_qp *roce_qp_all(void);
/* Its busy word held: send what there is to be sent. */
void roce_qp_push(struct roce_qp *wire, uint64_t now_ns);
void roce_qp_after_fork(void);

/* ---- peer.c ---- */
/* Busy held: the other end is gone. */
void peer_lost(struct roce_qp *wire);
/* The receive lock held: its end is of no interest any more. */
void peer_forget(struct roce_qp *wire);

#endif
