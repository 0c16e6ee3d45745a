/* SPDX-License-Identifier: MIT */
/* One side's half of a measurement. */
#include "rig.h"

#include "channel.h"
#include "cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RD_ATOMIC_WANTED 16

static unsigned min_unsigned(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* What the device allows of reads and atomics in flight, at most what we want. */
static uint8_t rd_atomic(int limit)
{
    return (uint8_t)min_unsigned(RD_ATOMIC_WANTED, limit > 0 ? (unsigned)limit : 1);
}

static int fail(const struct rig *rig, const char *what)
{
    complain("%s failed on %s: %s", what, ibv_get_device_name(rig->device.context->device),
             strerror(errno));
    return CMD_FAILED;
}

static int check_limits(const struct rig *rig)
{
    const struct rig_config *c = &rig->config;
    const struct ibv_device_attr *attr = &rig->device.attr;

    if (c->qps > (unsigned)attr->max_qp) {
        complain("--qps: %u is more than the %d queue pairs of the device", c->qps, attr->max_qp);
        return CMD_USAGE;
    }
    if (c->depth > (unsigned)attr->max_qp_wr || c->recv_depth > (unsigned)attr->max_qp_wr) {
        complain("--depth: %u needs a queue of %u, and the device allows %d", c->depth,
                 c->depth > c->recv_depth ? c->depth : c->recv_depth, attr->max_qp_wr);
        return CMD_USAGE;
    }
    if ((uint64_t)c->qps * c->recv_depth > (unsigned)attr->max_cqe) {
        complain("--qps: %u times %u receives need a longer completion queue than the device's "
                 "%d; lower --qps or --depth",
                 c->qps, c->recv_depth, attr->max_cqe);
        return CMD_USAGE;
    }
    return CMD_OK;
}

static int create_memory(struct rig *rig)
{
    size_t part = (rig->config.message_bytes + 4095) / 4096 * 4096;
    int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                 IBV_ACCESS_REMOTE_ATOMIC;
    char *buffer = aligned_alloc(4096, 2 * part);

    if (buffer == NULL) {
        complain("no memory for two buffers of %zu bytes; use a smaller --size", part);
        return CMD_FAILED;
    }
    memset(buffer, 0, 2 * part);
    rig->send_part = buffer;
    rig->recv_part = buffer + part;
    rig->mr = ibv_reg_mr(rig->pd, buffer, 2 * part, (unsigned)access);
    return rig->mr != NULL ? CMD_OK : fail(rig, "ibv_reg_mr");
}

static int create_queues(struct rig *rig)
{
    const struct rig_config *c = &rig->config;
    struct ibv_context *context = rig->device.context;

    if (c->events) {
        rig->comp_channel = ibv_create_comp_channel(context);
        if (rig->comp_channel == NULL)
            return fail(rig, "ibv_create_comp_channel");
    }
    rig->send_cq = ibv_create_cq(context, (int)(c->qps * c->depth), NULL, rig->comp_channel, 0);
    rig->recv_cq =
        ibv_create_cq(context, (int)(c->qps * c->recv_depth), NULL, rig->comp_channel, 0);
    if (rig->send_cq == NULL || rig->recv_cq == NULL)
        return fail(rig, "ibv_create_cq");
    return CMD_OK;
}

/* Devices refuse more inline data than they have: then do without. */
static struct ibv_qp *create_qp(struct rig *rig)
{
    struct ibv_qp_init_attr init = {
        .send_cq = rig->send_cq,
        .recv_cq = rig->recv_cq,
        .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = rig->config.depth,
                .max_recv_wr = rig->config.recv_depth,
                .max_send_sge = 1,
                .max_recv_sge = 1,
                .max_inline_data = rig->config.inline_bytes},
    };
    struct ibv_qp *qp = ibv_create_qp(rig->pd, &init);

    if (qp == NULL && init.cap.max_inline_data > 0) {
        init.cap.max_inline_data = 0;
        qp = ibv_create_qp(rig->pd, &init);
    }
    if (qp != NULL)
        rig->max_inline = min_unsigned(init.cap.max_inline_data, rig->config.inline_bytes);
    return qp;
}

static int create_qps(struct rig *rig)
{
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_INIT,
        .port_num = DEVICE_PORT,
        .qp_access_flags =
            IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC,
    };
    int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;

    rig->qps = calloc(rig->config.qps, sizeof(struct ibv_qp *));
    if (rig->qps == NULL)
        return fail(rig, "calloc");
    for (unsigned i = 0; i < rig->config.qps; i++) {
        rig->qps[i] = create_qp(rig);
        if (rig->qps[i] == NULL)
            return fail(rig, "ibv_create_qp");
        errno = ibv_modify_qp(rig->qps[i], &attr, mask);
        if (errno != 0)
            return fail(rig, "ibv_modify_qp to INIT");
    }
    return CMD_OK;
}

int rig_open(const struct rig_config *config, struct rig *rig_out)
{
    struct rig rig = {.config = *config, .channel = -1};
    int code = device_open(config->device, config->gid_index, &rig.device);

    if (code != CMD_OK)
        return code;
    code = check_limits(&rig);
    if (code == CMD_OK) {
        rig.pd = ibv_alloc_pd(rig.device.context);
        code = rig.pd != NULL ? CMD_OK : fail(&rig, "ibv_alloc_pd");
    }
    if (code == CMD_OK)
        code = create_memory(&rig);
    if (code == CMD_OK)
        code = create_queues(&rig);
    if (code == CMD_OK)
        code = create_qps(&rig);
    if (code == CMD_OK)
        *rig_out = rig;
    else
        rig_close(&rig);
    return code;
}

/* --- connecting --- */

/* What one side tells the other about a queue pair, as a line of hexadecimal numbers. */
struct address {
    uint32_t qpn;
    uint32_t psn;
    uint32_t mtu;
    uint32_t lid;
    uint32_t rd_atomic;
    union ibv_gid gid;
    uint64_t addr;
    uint32_t rkey;
};

#define ADDRESS_LINE 128

static void address_format(const struct address *a, char *line)
{
    int n = snprintf(line, ADDRESS_LINE, "%08x %08x %08x %08x %08x %016" PRIx64 " %08x ", a->qpn,
                     a->psn, a->mtu, a->lid, a->rd_atomic, a->addr, a->rkey);

    for (unsigned i = 0; i < sizeof(a->gid.raw); i++)
        n += snprintf(line + n, ADDRESS_LINE - (size_t)n, "%02x", a->gid.raw[i]);
}

static int address_parse(const char *line, struct address *a_out)
{
    struct address a;
    int at = 0;

    if (sscanf(line,
               "%8" SCNx32 " %8" SCNx32 " %8" SCNx32 " %8" SCNx32 " %8" SCNx32 " %16" SCNx64
               " %8" SCNx32 " %n",
               &a.qpn, &a.psn, &a.mtu, &a.lid, &a.rd_atomic, &a.addr, &a.rkey, &at) != 7 ||
        at == 0)
        return -EPROTO;
    for (unsigned i = 0; i < sizeof(a.gid.raw); i++, at += 2) {
        if (sscanf(line + at, "%2" SCNx8, &a.gid.raw[i]) != 1)
            return -EPROTO;
    }
    *a_out = a;
    return 0;
}

static struct address local_address(const struct rig *rig, unsigned index)
{
    return (struct address){
        .qpn = rig->qps[index]->qp_num,
        .psn = (uint32_t)random() & 0xffffff,
        .mtu = rig->device.port.active_mtu,
        .lid = rig->device.port.lid,
        .rd_atomic = rd_atomic(rig->device.attr.max_qp_rd_atom),
        .gid = rig->device.gid,
        .addr = (uintptr_t)rig->recv_part,
        .rkey = rig->mr->rkey,
    };
}

static int qp_to_rtr(const struct rig *rig, struct ibv_qp *qp, const struct address *remote)
{
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_RTR,
        .path_mtu = min_unsigned(rig->device.port.active_mtu, remote->mtu),
        .dest_qp_num = remote->qpn,
        .rq_psn = remote->psn,
        .max_dest_rd_atomic = rd_atomic(rig->device.attr.max_qp_rd_atom),
        .min_rnr_timer = 1,
        .ah_attr = {.is_global = 1,
                    .dlid = (uint16_t)remote->lid,
                    .port_num = DEVICE_PORT,
                    .grh = {.dgid = remote->gid,
                            .sgid_index = (uint8_t)rig->device.gid_index,
                            .hop_limit = 64}},
    };

    return ibv_modify_qp(qp, &attr,
                         IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                             IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
}

static int qp_to_rts(const struct rig *rig, struct ibv_qp *qp, const struct address *local,
                     const struct address *remote)
{
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_RTS,
        .sq_psn = local->psn,
        .timeout = 14,
        .retry_cnt = 7,
        .rnr_retry = 7,
        .max_rd_atomic = (uint8_t)min_unsigned(rd_atomic(rig->device.attr.max_qp_init_rd_atom),
                                               remote->rd_atomic),
    };

    return ibv_modify_qp(qp, &attr,
                         IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                             IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC);
}

static int exchange(struct rig *rig, const struct address *local, struct address *remote_out)
{
    char line[ADDRESS_LINE] = "";
    size_t length = 0;
    int error;

    address_format(local, line);
    error = channel_put(rig->channel, line, sizeof(line));
    if (error == 0)
        error = channel_get(rig->channel, line, sizeof(line), &length);
    line[sizeof(line) - 1] = '\0';
    return error != 0 ? error : address_parse(line, remote_out);
}

int rig_connect(struct rig *rig, int channel)
{
    rig->channel = channel;
    for (unsigned i = 0; i < rig->config.qps; i++) {
        struct address local = local_address(rig, i);
        struct address remote;
        int error = exchange(rig, &local, &remote);

        if (error != 0) {
            complain("the other side is gone or speaks another language: %s", strerror(-error));
            return CMD_FAILED;
        }
        rig->remote_addr = remote.addr;
        rig->remote_rkey = remote.rkey;
        errno = qp_to_rtr(rig, rig->qps[i], &remote);
        if (errno != 0)
            return fail(rig, "ibv_modify_qp to RTR");
        errno = qp_to_rts(rig, rig->qps[i], &local, &remote);
        if (errno != 0)
            return fail(rig, "ibv_modify_qp to RTS");
    }
    return CMD_OK;
}

void rig_close(struct rig *rig)
{
    for (unsigned i = 0; rig->qps != NULL && i < rig->config.qps; i++) {
        if (rig->qps[i] != NULL)
            ibv_destroy_qp(rig->qps[i]);
    }
    free(rig->qps);
    if (rig->recv_cq != NULL)
        ibv_destroy_cq(rig->recv_cq);
    if (rig->send_cq != NULL)
        ibv_destroy_cq(rig->send_cq);
    if (rig->comp_channel != NULL)
        ibv_destroy_comp_channel(rig->comp_channel);
    if (rig->mr != NULL)
        ibv_dereg_mr(rig->mr);
    free(rig->send_part);
    if (rig->pd != NULL)
        ibv_dealloc_pd(rig->pd);
    if (rig->device.context != NULL)
        device_close(&rig->device);
}
