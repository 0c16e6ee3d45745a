/* SPDX-License-Identifier: MIT */
/*
 * The requester: the send queue of a queue pair (IBTA 9.7.3, 10.8). Posting runs a WQE at once if
 * it can be finished without waiting; else it is stored, the queue pair stalls, and whoever comes
 * first (the next post or poll of the program, or the engine thread at its time) tries again.
 */
#ifndef VIADUCT_CORE_REQUESTER_H
#define VIADUCT_CORE_REQUESTER_H

#include "core/state.h"

/* core_lock held: run what was posted before the queue pair came to a state that sends. */
void requester_start(struct qp *qp);
/* Engine thread: every stalled queue pair. Who still waits has asked to be woken at its time. */
void requester_progress_all(void);
/* Data path: what a poller can move on; one load if nothing stalls. */
void requester_poll(void);

/* core_lock held: the peer is gone for good. What waits fails now (RC: retry exceeded). */
void requester_give_up(struct qp *qp);

/* pub->busy held: complete everything in the send queue as flushed. */
void requester_flush(struct qp *qp);
/* pub->busy held: forget the send queue (reset, destroy). */
void requester_reset(struct qp *qp);
/* core_lock held, busy not, after requester_reset(): the list of the stalled lets go of it. */
void requester_leave_list(struct qp *qp);
/* pub->busy held: take no notice of what the target's engine may answer. */
void requester_drop_remote(struct qp *qp);
/* ---- for a queue pair whose send queue its link keeps; pub->busy held ---- */
/* A request ended with an error that is its own, not flushed: count it. */
void requester_count_error(const struct qp *qp, enum ibv_wc_status status);
/* The request that was posted at `position` is over, and the program is told. */
void requester_push(struct qp *qp, uint64_t wr_id, enum ibv_wr_opcode opcode, uint32_t byte_len,
                    uint32_t position, enum ibv_wc_status status);
/* A request failed: to ERR or SQE, and what is left is flushed. */
void requester_fail(struct qp *qp);
/* core_lock held, busy not: if a queue pair in SQD has nothing under way any more, say so. */
void requester_drained(struct qp *qp);

/* The child of a fork. */
void requester_after_fork(void);

#endif
