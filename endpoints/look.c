/* SPDX-License-Identifier: MIT */
/* viaduct_look(): what processes publish, in the words of viaduct.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdlib.h>
#include <string.h>

#include "core/config.h"
#include "core/state.h"
#include "link/shm/look.h"
#include "viaduct.h"

/* ---- words ---- */

static const char *type_name(uint8_t type)
{
    switch (type) {
    case IBV_QPT_RC:
        return "RC";
    case IBV_QPT_UC:
        return "UC";
    case IBV_QPT_UD:
        return "UD";
    case IBV_QPT_XRC_SEND:
        return "XRC_SEND";
    case IBV_QPT_XRC_RECV:
        return "XRC_RECV";
    default:
        return NULL; /* none, or what stands for an XRC SRQ */
    }
}

static const char *state_name(uint8_t state)
{
    static const char *const names[] = {"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"};

    return state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

/* In the arena it need not end with a zero. */
static const char *nic_name(const struct look *look, uint8_t nic)
{
    const struct pub_header *header = look_header(look);
    const char *name = nic < CONFIG_NICS_MAX ? header->nics[nic].name : "";

    return memchr(name, 0, CONFIG_NAME_MAX) ? name : "";
}

/* ---- queue pairs ---- */

static bool is_connected(const struct pub_qp *qp)
{
    return qp->type != IBV_QPT_UD &&
           (qp->state == IBV_QPS_RTR || qp->state == IBV_QPS_RTS || qp->state == IBV_QPS_SQD);
}

static const struct look *look_of_slot(const struct look_list *list, uint32_t slot)
{
    for (unsigned i = 0; i < list->count; i++) {
        if (list->looks[i].slot == slot && list->looks[i].arena)
            return &list->looks[i];
    }
    return NULL;
}

static void add_peer(const struct look_list *list, const struct look *look,
                     const struct pub_qp *from, struct viaduct_qp *qp)
{
    const struct look *there = look_of_slot(list, from->dest_qpn >> LIMIT_QP_BITS);
    uint32_t index = from->dest_qpn & (LIMIT_QP - 1);

    qp->peer = from->dest_qpn;
    if (!there)
        return;
    qp->peer_pid = there->pid;
    const struct pub_qp *peer = look_qp(there, index);
    if (index >= look_qps(there) || peer->dest_qpn != qp->number)
        return;
    qp->peer_messages = peer->messages;
    qp->peer_bytes = peer->tx_bytes + peer->read_bytes;
    qp->receives_waiting = look_posted(look, from, peer->rq_head);
}

static void fill_qp(const struct look_list *list, const struct look *look, uint32_t index,
                    struct viaduct_qp *qp_out)
{
    const struct pub_qp *from = look_qp(look, index);

    *qp_out = (struct viaduct_qp){
        .number = look->slot << LIMIT_QP_BITS | index,
        .nic = nic_name(look, from->nic),
        .type = type_name(from->type),
        .state = state_name(from->state),
        .messages = from->messages,
        .bytes_out = from->tx_bytes,
        .bytes_in = from->read_bytes,
        .rnr_waits = from->rnr_waits,
        .retries = from->retries,
        .sends_waiting = from->waiting,
    };
    if (is_connected(from))
        add_peer(list, look, from, qp_out);
}

/* ---- processes ---- */

static void count_regions(const struct look *look, struct viaduct_process *process)
{
    const struct pub_mr *mrs = (const void *)(look->arena + PUB_MRS_OFFSET);
    uint32_t high = atomic_load(&look_header(look)->mr_high);

    for (uint32_t i = 1; i < high && i < LIMIT_MR; i++) {
        if (!atomic_load(&mrs[i].key) || mrs[i].window)
            continue;
        process->regions++;
        process->region_bytes += mrs[i].length;
    }
}

static unsigned count_qps(const struct look *look)
{
    unsigned count = 0;

    for (uint32_t i = 1; i < look_qps(look); i++)
        count += type_name(look_qp(look, i)->type) != NULL;
    return count;
}

static struct viaduct_qp *gather_qps(const struct look_list *list, const struct look *look,
                                     struct viaduct_process *process)
{
    unsigned room = count_qps(look);
    struct viaduct_qp *qps = calloc(room + 1, sizeof(*qps));

    for (uint32_t i = 1; qps && i < look_qps(look) && process->qp_count < room; i++) {
        struct viaduct_qp *qp = &qps[process->qp_count];

        fill_qp(list, look, i, qp);
        process->qp_count += qp->type != NULL;
        process->connections += qp->type && qp->peer;
    }
    return qps;
}

typedef int show_fn(void *, const struct viaduct_process *, const struct viaduct_qp *);

static int show_one(const struct look_list *list, const struct look *look, show_fn *show,
                    void *argument)
{
    struct viaduct_process process = {.command = "", .pid = look->pid};
    char command[sizeof(look_header(look)->comm) + 1] = "";
    struct viaduct_qp *qps = NULL;

    if (look->arena) {
        process.answers = 1;
        memcpy(command, look_header(look)->comm, sizeof(look_header(look)->comm));
        process.command = command;
        count_regions(look, &process);
        qps = gather_qps(list, look, &process);
        if (!qps)
            return -ENOMEM;
    }
    int result = show(argument, &process, qps);
    free(qps);
    return result;
}

__attribute__((visibility("default"))) int viaduct_look(show_fn *show, void *argument)
{
    const struct config *config = config_get();
    struct look_list *list = config ? look_all(config->runtime_dir) : NULL;
    int result = list ? 0 : config ? -errno : -EINVAL;

    for (unsigned i = 0; list && !result && i < list->count; i++)
        result = show_one(list, &list->looks[i], show, argument);
    look_free(list);
    return result;
}
