/* SPDX-License-Identifier: MIT */
/* Queue pairs of one process that talk to each other on the first of our devices. */
#ifndef LOOP_H
#define LOOP_H

#include "own_library.h"
#include "t.h"

/* The library in use. */
static struct own_library lib;

static inline struct ibv_context *open_via(void)
{
    struct ibv_context *context = NULL;
    struct ibv_device **list = lib.get_device_list(NULL);

    T_ASSERT(list);
    for (int i = 0; list[i] && !context; i++) {
        if (strncmp(lib.get_device_name(list[i]), "via", 3) == 0)
            context = lib.open_device(list[i]);
    }
    lib.free_device_list(list);
    T_ASSERT(context, "no via device");
    return context;
}

static inline void move(struct ibv_qp *qp, struct ibv_qp_attr attr, int mask)
{
    int error = lib.modify_qp(qp, &attr, mask | IBV_QP_STATE);

    T_ASSERT(!error, "to state %d: %s", attr.qp_state, strerror(error));
}

/* Reset to ready to send, connected to the queue pair with that number on this NIC. */
static inline void connect_qp(struct ibv_qp *qp, uint32_t dest_qp_num)
{
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_INIT,
        .qp_access_flags = IBV_ACCESS_REMOTE_WRITE,
        .port_num = 1,
        .path_mtu = IBV_MTU_1024,
        .dest_qp_num = dest_qp_num,
        .max_rd_atomic = 1,
        .max_dest_rd_atomic = 1,
        .min_rnr_timer = 12,
        .timeout = 14,
        .retry_cnt = 7,
        .rnr_retry = 7,
        .ah_attr = {.is_global = 1, .port_num = 1, .grh = {.hop_limit = 1}},
    };

    T_EQ(lib.query_gid(qp->context, 1, 0, &attr.ah_attr.grh.dgid), 0);
    move(qp, attr, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    attr.qp_state = IBV_QPS_RTR;
    move(qp, attr,
         IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
             IBV_QP_MIN_RNR_TIMER);
    attr.qp_state = IBV_QPS_RTS;
    move(qp, attr,
         IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
             IBV_QP_MAX_QP_RD_ATOMIC);
}

#endif
