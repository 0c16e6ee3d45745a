/* SPDX-License-Identifier: MIT */
/* Contexts, protection domains, and what the device says of itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/conn.h"
#include "core/counters.h"
#include "core/pipe.h"
#include "core/process.h"
#include "core/removal.h"
#include "core/state.h"
#include "core/sys.h"
#include "core/table.h"
#include "core/xrcd.h"
#include "link/link.h"

/* No vendor: what soft-RoCE reports, and what programs know not to look up. */
enum { VENDOR_ID = 0xffffff };

TABLE(pds, LIMIT_PD);

static struct context *contexts;

int context_open(const struct nic *nic, struct context **context_out)
{
    struct context *context;
    int error = process_open();

    if (!error && removal_is_out(nic))
        error = -ENODEV;
    if (error)
        return error;
    context = calloc(1, sizeof(*context));
    if (!context)
        return -ENOMEM;
    context->nic = nic;
    context->path_mtu = link_path_mtu(nic);
    error = pipe_open(&context->async_fd, &context->async_ours);
    if (error) {
        free(context);
        return error;
    }
    context->next = contexts;
    contexts = context;
    *context_out = context;
    return 0;
}

static void unlink_context(struct context *context)
{
    struct context **at = &contexts;

    while (*at && *at != context)
        at = &(*at)->next;
    if (*at)
        *at = context->next;
}

static void close_pds(struct context *context, bool parents)
{
    for (uint32_t i = 1; i < pds.high; i++) {
        struct pd *pd = table_get(&pds, i);

        if (pd && pd->context == context && parents == (pd->real != NULL))
            pd_dealloc(pd);
    }
}

void context_close(struct context *context)
{
    qp_close_all(context);
    srq_close_all(context);
    xrcd_close_all(context);
    cq_close_all(context);
    ah_close_all(context);
    mr_close_all(context);
    close_pds(context, true);
    close_pds(context, false);
    channel_close_all(context);
    sys_close(context->async_ours);
    unlink_context(context);
    free(context);
    if (!contexts && !conn_is_used())
        link_rest();
}

/* Forget every object; what lay in the arena is the parent's. */
void core_after_fork(void)
{
    arena_after_fork();
    counters_after_fork();
    rq_after_fork();
    table_clear(&pds);
    qp_after_fork();
    cq_after_fork();
    srq_after_fork();
    xrcd_after_fork();
    mr_after_fork();
    ah_after_fork();
    conn_after_fork();
    contexts = NULL;
}

/* ---- removal ---- */

static bool out[CONFIG_NICS_MAX];
static void (*removal_handler)(const struct nic *nic);

void removal_set_handler(void (*handler)(const struct nic *nic))
{
    removal_handler = handler;
}

bool removal_is_out(const struct nic *nic)
{
    return out[nic->index];
}

static void end_contexts(const struct nic *nic)
{
    for (struct context *context = contexts; context; context = context->next) {
        if (context->nic != nic || atomic_exchange(&context->removed, true))
            continue;
        qp_fail_all(context);
        event_async(context, IBV_EVENT_DEVICE_FATAL, 0, NULL);
    }
}

static void revive_contexts(const struct nic *nic)
{
    for (struct context *context = contexts; context; context = context->next)
        if (context->nic == nic && context->lives_again)
            atomic_store(&context->removed, false);
}

void removal_look(void)
{
    const struct config *config = config_get();

    for (unsigned i = 0; config && i < config->nic_count; i++) {
        const struct nic *nic = &config->nics[i];
        bool was = out[i];

        out[i] = removal_is_marked(config->runtime_dir, nic->name);
        if (was && !out[i])
            revive_contexts(nic);
        if (was || !out[i])
            continue;
        end_contexts(nic);
        if (removal_handler)
            removal_handler(nic);
    }
}

int pd_alloc(struct context *context, struct pd **pd_out)
{
    struct pd *pd = calloc(1, sizeof(*pd));

    if (!pd)
        return -ENOMEM;
    pd->handle = table_take(&pds);
    if (!pd->handle) {
        free(pd);
        return -ENOMEM;
    }
    pd->context = context;
    table_set(&pds, pd->handle, pd);
    *pd_out = pd;
    return 0;
}

int pd_alloc_parent(struct pd *pd, struct td *td, struct pd **pd_out)
{
    struct pd *parent;
    int error = pd_alloc(pd->context, &parent);

    if (error)
        return error;
    parent->real = pd->real ? pd->real : pd;
    parent->real->users++;
    parent->td = td;
    if (td)
        td->users++;
    *pd_out = parent;
    return 0;
}

int pd_dealloc(struct pd *pd)
{
    if (pd->users)
        return -EBUSY;
    if (pd->real)
        pd->real->users--;
    if (pd->td)
        pd->td->users--;
    table_release(&pds, pd->handle);
    free(pd);
    return 0;
}

struct pd *pd_get(uint32_t handle)
{
    return table_get(&pds, handle);
}

static void limits_of_queues(struct ibv_device_attr *attr)
{
    attr->max_qp = LIMIT_QP - 1;
    attr->max_qp_wr = LIMIT_QP_WR;
    attr->max_sge = LIMIT_SGE;
    attr->max_sge_rd = LIMIT_SGE;
    attr->max_cq = LIMIT_CQ - 1;
    attr->max_cqe = LIMIT_CQE;
    attr->max_qp_rd_atom = LIMIT_RD_ATOMIC;
    attr->max_qp_init_rd_atom = LIMIT_RD_ATOMIC;
    attr->max_res_rd_atom = LIMIT_RD_ATOMIC * (LIMIT_QP - 1);
    /* Ours are even the processor's; but what adapters answer is what programs look for. */
    attr->atomic_cap = IBV_ATOMIC_HCA;
    attr->max_srq = LIMIT_SRQ - 1;
    attr->max_srq_wr = LIMIT_SRQ_WR;
    attr->max_srq_sge = LIMIT_SGE;
    attr->max_ah = LIMIT_AH - 1;
}

void device_query(const struct nic *nic, struct ibv_device_attr *attr_out)
{
    struct ibv_device_attr *attr = attr_out;

    memset(attr, 0, sizeof(*attr));
    attr->node_guid = htobe64(nic->guid);
    attr->sys_image_guid = attr->node_guid;
    attr->max_mr_size = LIMIT_MR_BYTES;
    attr->page_size_cap = 0xfffff000;
    snprintf(attr->fw_ver, sizeof(attr->fw_ver), "%s", VIADUCT_VERSION);
    attr->vendor_id = VENDOR_ID;
    attr->hw_ver = 1;
    attr->device_cap_flags =
        IBV_DEVICE_CURR_QP_STATE_MOD | IBV_DEVICE_RC_RNR_NAK_GEN | IBV_DEVICE_SRQ_RESIZE |
        IBV_DEVICE_MEM_WINDOW | IBV_DEVICE_MEM_WINDOW_TYPE_2B | IBV_DEVICE_MEM_MGT_EXTENSIONS |
        IBV_DEVICE_BAD_PKEY_CNTR | IBV_DEVICE_BAD_QKEY_CNTR | IBV_DEVICE_SYS_IMAGE_GUID |
        IBV_DEVICE_PORT_ACTIVE_EVENT | IBV_DEVICE_XRC;
    limits_of_queues(attr);
    attr->max_mr = LIMIT_MR - 1;
    attr->max_mw = LIMIT_MR - 1;
    attr->max_pd = LIMIT_PD - 1;
    attr->max_mcast_grp = LIMIT_MCAST_GROUPS;
    attr->max_mcast_qp_attach = LIMIT_MCAST_QPS;
    attr->max_total_mcast_qp_attach = PUB_MCAST_COUNT;
    attr->max_pkeys = LIMIT_PKEYS;
    attr->phys_port_cnt = 1;
}

int port_query(const struct nic *nic, unsigned port, struct ibv_port_attr *attr_out)
{
    if (port != 1)
        return -EINVAL;
    memset(attr_out, 0, sizeof(*attr_out));
    attr_out->state = IBV_PORT_ACTIVE;
    attr_out->max_mtu = IBV_MTU_4096;
    attr_out->active_mtu = (enum ibv_mtu)(__builtin_ctz(link_path_mtu(nic)) - 7);
    attr_out->gid_tbl_len = (int)nic->gid_count;
    attr_out->port_cap_flags = IBV_PORT_CM_SUP | IBV_PORT_IP_BASED_GIDS;
    attr_out->max_msg_sz = LIMIT_MSG_BYTES;
    attr_out->pkey_tbl_len = LIMIT_PKEYS;
    attr_out->active_width = 2;  /* 4X */
    attr_out->active_speed = 32; /* EDR, 25 Gb/s a lane */
    attr_out->phys_state = 5;    /* LinkUp */
    attr_out->link_layer = IBV_LINK_LAYER_ETHERNET;
    attr_out->flags = IBV_QPF_GRH_REQUIRED;
    return 0;
}
