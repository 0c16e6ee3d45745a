/* SPDX-License-Identifier: MIT */
/* What the timed loops share with measure.c. */
#ifndef VIADUCT_PASS_H
#define VIADUCT_PASS_H

#include "measure.h"

/* Counts of one queue pair. */
struct pass_queue {
    uint64_t posted; /* in this pass */
    uint64_t done;
    uint64_t quota;
    unsigned unsignalled; /* posted since the last signalled one */
    unsigned recvs_owed;  /* consumed and not posted again */
};

struct pass {
    struct rig *rig;
    struct measure_case which;
    struct hist *hist;         /* NULL: do not record */
    uint64_t sequence;         /* messages since the case began: equal at both sides */
    struct pass_queue *queues; /* one each queue pair */
    struct virig *virig;       /* cases over VIPL only; rig is then nothing but the channel */
};

/* Run `iters` messages. Enum cmd_exit. */
int pass_nothing(struct pass *pass, uint64_t iters);
int pass_lat_client(struct pass *pass, uint64_t iters);
int pass_lat_server(struct pass *pass, uint64_t iters);
int pass_lat_one_sided(struct pass *pass, uint64_t iters);
int pass_flow_client(struct pass *pass, uint64_t iters);
int pass_flow_server(struct pass *pass, uint64_t iters);

/* The work request of the case's operation: one segment in the send part, all of the message. */
void pass_request(const struct pass *pass, struct ibv_sge *sge, struct ibv_send_wr *wr);

/* Enum cmd_exit, after a line. */
int pass_post(struct ibv_qp *qp, struct ibv_send_wr *wr);
int pass_post_recvs(const struct pass *pass, unsigned index, unsigned count);

#endif
