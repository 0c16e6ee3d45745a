/* SPDX-License-Identifier: MIT */
/*
 * VIADUCT_PCAP for what goes over shared memory. Called for queue pairs with DETOUR_CAPTURE only,
 * with pub->busy held, so that the request's memory is good still.
 */
#ifndef VIADUCT_LINK_SHM_CAPTURE_H
#define VIADUCT_LINK_SHM_CAPTURE_H

#include "link/shm/shm.h"

/* A request of a connected queue pair is over: its packets, and those of its answer. */
void capture_request(struct qp *qp, const struct ibv_send_wr *wr, enum ibv_wc_status status);
/* It found no receive, and will be sent again. */
void capture_not_ready(struct qp *qp, const struct ibv_send_wr *wr);
/* A datagram went out. */
void capture_datagram(struct qp *qp, const struct ibv_send_wr *wr, const struct ah *ah);

#endif
