/* SPDX-License-Identifier: MIT */
/*
 * Many of everything: the cases of many_stress, and two processes that meet over a socket. Each
 * case runs in a fresh process, prints what it measured, and ends by a failed CHECK or by
 * returning.
 */
#ifndef STRESS_MANY_H
#define STRESS_MANY_H

#include "rig.h"

/* This process and its partner, a fork of it. Neither has opened the device yet. */
struct duo {
    int fd;
    bool second;
};

void duo_start(struct duo *duo);
/* Sends ours and waits for theirs. */
void duo_exchange(const struct duo *duo, const void *ours, void *theirs, size_t size);
void duo_meet(const struct duo *duo);
/* The second one ends here; the first one sees that it ended well. */
void duo_end(struct duo *duo);

/* One completion, waited for by polling. */
struct ibv_wc rig_wait(struct ibv_cq *cq);
void rig_wait_good(struct ibv_cq *cq, unsigned count);
void rig_post_receive(struct ibv_qp *qp, const struct ibv_mr *mr, uint64_t at, uint32_t length);
void rig_post_send(struct ibv_qp *qp, const struct ibv_mr *mr, uint64_t at, uint32_t length);
/* A one-sided operation on byte `there` of the other's memory. */
void rig_post_write(struct ibv_qp *qp, const struct ibv_mr *mr, uint32_t length,
                    const struct rig_address *to, uint64_t there);

void many_qps(void);
void many_processes(void);
void many_threads(void);
void many_connections(void);
void many_regions(void);
void many_blocked(void);
void many_idle(void);
void many_unpolled(void);
void many_overrun(void);
void many_fair(void);

#endif
