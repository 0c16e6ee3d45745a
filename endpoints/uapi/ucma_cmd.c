/* SPDX-License-Identifier: MIT */
/* The commands of an identifier's life: made, bound, resolved, moved, destroyed; and its events. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/objects.h"
#include "uapi/cmd.h"
#include "uapi/ucma.h"

/* ---- life ---- */

int ucma_create_id(struct ucma_call *call)
{
    const struct rdma_ucm_create_id *req = (const void *)call->req;
    struct rdma_ucm_create_id_resp *resp = (void *)call->resp;
    enum ibv_qp_type qp_type = req->qp_type;
    struct ucma_id *id = ucma_id_new(call->file, req->uid);

    if (!id)
        return -ENOMEM;
    /* The oldest libraries leave the type to the port space. */
    if (!req->qp_type)
        qp_type = req->ps == RDMA_PS_UDP || req->ps == RDMA_PS_IPOIB ? IBV_QPT_UD : IBV_QPT_RC;
    int error = cma_create(req->ps, qp_type, id, &id->cma);
    if (error) {
        ucma_id_free(id);
        return error;
    }
    resp->id = id->handle;
    call->resp_len = sizeof(*resp);
    return 0;
}

int ucma_destroy_id(struct ucma_call *call)
{
    const struct rdma_ucm_destroy_id *req = (const void *)call->req;
    struct rdma_ucm_destroy_id_resp *resp = (void *)call->resp;
    struct ucma_id *id;
    int error = ucma_find_any(call->file, req->id, &id);

    if (error)
        return error;
    resp->events_reported = id->events_reported;
    call->resp_len = sizeof(*resp);
    ucma_id_free(id);
    return 0;
}

/* To this file, from the one that is named by its descriptor. */
int ucma_migrate_id(struct ucma_call *call)
{
    const struct rdma_ucm_migrate_id *req = (const void *)call->req;
    struct rdma_ucm_migrate_resp *resp = (void *)call->resp;
    struct ucma_file *from = ucma_file_hold((int)req->fd);
    struct ucma_id *id;

    if (!from)
        return -EINVAL;
    int error = ucma_find(from, req->id, &id);
    if (!error) {
        if (from != call->file)
            ucma_move_events(id, call->file);
        id->file = call->file;
        resp->events_reported = id->events_reported;
        call->resp_len = sizeof(*resp);
    }
    core_unlock(); /* the last reference would close it, which takes the lock */
    fdtab_put(&from->file);
    core_lock();
    return error;
}

/* ---- addresses ---- */

static int bind_to(struct ucma_call *call, uint32_t handle, const void *sockaddr, size_t room)
{
    struct cma_addr addr;
    struct ucma_id *id;
    int error = ucma_addr_in(sockaddr, room, &addr);

    if (!error)
        error = ucma_find(call->file, handle, &id);
    return error ? error : cma_bind(id->cma, &addr);
}

int ucma_bind_ip(struct ucma_call *call)
{
    const struct rdma_ucm_bind_ip *req = (const void *)call->req;

    return bind_to(call, req->id, &req->addr, sizeof(req->addr));
}

int ucma_bind(struct ucma_call *call)
{
    const struct rdma_ucm_bind *req = (const void *)call->req;

    if (req->reserved || !req->addr_size || req->addr_size > sizeof(req->addr))
        return -EINVAL;
    return bind_to(call, req->id, &req->addr, req->addr_size);
}

struct endpoints {
    const void *src, *dst;
    size_t src_room, dst_room;
};

static bool is_given(const void *sockaddr, size_t room)
{
    uint16_t family = 0;

    if (room >= sizeof(family))
        memcpy(&family, sockaddr, sizeof(family));
    return family != 0;
}

static int resolve(struct ucma_call *call, uint32_t handle, const struct endpoints *ends)
{
    struct cma_addr src = {0}, dst;
    struct ucma_id *id;
    int error = ucma_addr_in(ends->dst, ends->dst_room, &dst);

    if (!error && is_given(ends->src, ends->src_room))
        error = ucma_addr_in(ends->src, ends->src_room, &src);
    if (!error)
        error = ucma_find(call->file, handle, &id);
    return error ? error : cma_resolve_addr(id->cma, src.family ? &src : NULL, &dst);
}

int ucma_resolve_ip(struct ucma_call *call)
{
    const struct rdma_ucm_resolve_ip *req = (const void *)call->req;

    return resolve(call, req->id,
                   &(struct endpoints){&req->src_addr, &req->dst_addr, sizeof(req->src_addr),
                                       sizeof(req->dst_addr)});
}

int ucma_resolve_addr(struct ucma_call *call)
{
    const struct rdma_ucm_resolve_addr *req = (const void *)call->req;

    if (req->reserved || req->src_size > sizeof(req->src_addr) || !req->dst_size ||
        req->dst_size > sizeof(req->dst_addr))
        return -EINVAL;
    return resolve(
        call, req->id,
        &(struct endpoints){&req->src_addr, &req->dst_addr, req->src_size, req->dst_size});
}

int ucma_resolve_route(struct ucma_call *call)
{
    const struct rdma_ucm_resolve_route *req = (const void *)call->req;
    struct ucma_id *id;
    int error = ucma_find(call->file, req->id, &id);

    return error ? error : cma_resolve_route(id->cma);
}

/* ---- options ---- */

static int set_flag(struct cma_id *cma, uint32_t name, const void *value)
{
    int on;

    memcpy(&on, value, sizeof(on));
    if (name == RDMA_OPTION_ID_REUSEADDR) {
        if (cma->state != CMA_IDLE && (!on || cma->state == CMA_LISTEN))
            return -EINVAL;
        cma->reuse = on != 0;
        return 0;
    }
    if (cma->state != CMA_IDLE && cma->state != CMA_BOUND)
        return -EINVAL;
    cma->v6_only = on != 0;
    return 0;
}

static int set_byte(struct cma_id *cma, uint32_t name, uint8_t value)
{
    if (name == RDMA_OPTION_ID_TOS) {
        cma->tos = value;
        return 0;
    }
    if (value > 31 || (cma->qp_type != IBV_QPT_RC && cma->qp_type != IBV_QPT_XRC_SEND))
        return -EINVAL;
    cma->ack_timeout = value;
    cma->has_ack_timeout = true;
    return 0;
}

static int set_id_option(struct cma_id *cma, const struct rdma_ucm_set_option *req)
{
    bool flag = req->optname == RDMA_OPTION_ID_REUSEADDR || req->optname == RDMA_OPTION_ID_AFONLY;
    uint8_t value[sizeof(int)] = {0};

    if (req->optname > RDMA_OPTION_ID_ACK_TIMEOUT)
        return -ENOSYS;
    if (req->optlen != (flag ? sizeof(int) : 1))
        return -EINVAL;
    int error = user_read(value, req->optval, req->optlen);
    if (error)
        return error;
    return flag ? set_flag(cma, req->optname, value) : set_byte(cma, req->optname, value[0]);
}

/* Paths have no choices here: one that could be used at all stands for the one there is. */
static int set_path(struct cma_id *cma, const struct rdma_ucm_set_option *req)
{
    const uint32_t needed = IB_PATH_GMP | IB_PATH_PRIMARY | IB_PATH_BIDIRECTIONAL;
    struct ib_path_rec_data path;

    if (req->optname != RDMA_OPTION_IB_PATH)
        return -ENOSYS;
    if (!req->optlen || req->optlen % sizeof(path) || req->optlen > UCMA_OTHER_MAX)
        return -EINVAL;
    for (uint32_t at = 0; at < req->optlen; at += (uint32_t)sizeof(path)) {
        int error = user_read(&path, req->optval + at, sizeof(path));

        if (error)
            return error;
        if ((path.flags & needed) == needed)
            return cma_resolve_route(cma);
    }
    return -EINVAL;
}

int ucma_set_option(struct ucma_call *call)
{
    const struct rdma_ucm_set_option *req = (const void *)call->req;
    struct ucma_id *id;
    int error = ucma_find(call->file, req->id, &id);

    if (error)
        return error;
    if (req->level == RDMA_OPTION_ID)
        return set_id_option(id->cma, req);
    return req->level == RDMA_OPTION_IB ? set_path(id->cma, req) : -ENOSYS;
}

/* ---- events ---- */

/* The first command that sees an event is the one that counts it. */
int ucma_get_event(struct ucma_call *call)
{
    int error = ucma_channel_wait(call->file);

    if (error)
        return error;
    struct ucma_event *event = ucma_take(call->file);
    event->id->events_reported++;
    if (event->mcast)
        event->mcast->events_reported++;
    if (event->fresh && event->id->cma)
        event->id->cma->pending--;
    memcpy(call->resp, &event->resp, sizeof(event->resp));
    call->resp_len = sizeof(event->resp);
    core_unlock();
    free(event);
    return 0;
}
