/* SPDX-License-Identifier: MIT */
/* What the files of the connection identifiers share. */
#ifndef VIADUCT_CORE_CMA_IMPL_H
#define VIADUCT_CORE_CMA_IMPL_H

#include "core/cma.h"
#include "core/conn.h"
#include "engine/cm.h"

enum {
    CMA_ACK_TIMEOUT = 16, /* 0.27 s: of a queue pair that waits for an answer */
    CMA_HOP_LIMIT = 64,
};

/* ---- cma_conn.c ---- */
struct cm *cma_machine(void); /* NULL: no memory */
void cma_wake(void);          /* the machine's next deadline may have come nearer */
struct cma_id *cma_listeners(void);
void cma_set_listening(struct cma_id *id, bool listening);
bool cma_hand_over(struct cma_id *listener, struct cma_id *fresh, const struct cma_event *event);
void cma_watch(const struct cma_id *id, bool on);
uint8_t cma_ack_timeout_of(const struct cma_id *id);
/* The NIC is known now: no more than it carries. */
void cma_limit_mtu(struct cma_id *id);

/* ---- cma_request.c ---- */
void cma_on_request(struct cm_conn *conn, const struct cm_mad *mad, bool datagram);

/* ---- cma.c ---- */
struct cma_id *cma_new(uint16_t space, enum ibv_qp_type qp_type, void *owner);

#endif
