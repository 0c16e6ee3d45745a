/* SPDX-License-Identifier: MIT */
/*
 * One side's half of a measurement: a device, a buffer, completion queues, and RC queue pairs
 * that are connected to the other side's.
 *
 *     buffer:   | send part, half the bytes | receive part, the other half |
 *
 * The send part is where messages start (and where reads and atomics bring theirs), the
 * receive part is where the other side's messages, writes, reads and atomics land.
 */
#ifndef VIADUCT_RIG_H
#define VIADUCT_RIG_H

#include "device.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rig_config {
    const char *device; /* NULL: default */
    int gid_index;      /* < 0: default */
    unsigned qps;
    unsigned depth;       /* sends outstanding on a queue pair */
    unsigned recv_depth;  /* receives posted on a queue pair */
    size_t message_bytes; /* the longest */
    unsigned inline_bytes;
    bool events; /* completions are waited for in the kernel instead of polled for */
};

struct rig {
    struct rig_config config;
    struct device device;
    struct ibv_pd *pd;
    struct ibv_comp_channel *comp_channel;
    struct ibv_cq *send_cq;
    struct ibv_cq *recv_cq;
    struct ibv_mr *mr;
    struct ibv_qp **qps;
    unsigned max_inline;
    char *send_part;
    char *recv_part;
    uint64_t remote_addr; /* the other side's receive part */
    uint32_t remote_rkey;
    int channel; /* to the other side */
};

/* Open the device and create everything but the connections. Returns enum cmd_exit. */
int rig_open(const struct rig_config *config, struct rig *rig_out);

/* Exchange addresses over channel and connect every queue pair. Returns enum cmd_exit. */
int rig_connect(struct rig *rig, int channel);

void rig_close(struct rig *rig);

#endif
