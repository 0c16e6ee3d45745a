/* SPDX-License-Identifier: MIT */
/* /dev/infiniband/rdma_cm: opening it, and the way of a command from write() to its handler. */
#include "uapi/ucma.h"

#include <errno.h>
#include <rdma/ib_user_verbs.h>
#include <stdlib.h>
#include <string.h>

#include "core/objects.h"
#include "core/removal.h"
#include "core/sys.h"
#include "uapi/cmd.h"

enum { NO_RESPONSE = 0xff, UNLOCKED = 1 };

struct ucma_method {
    int (*run)(struct ucma_call *call); /* NULL: -ENOSYS */
    uint16_t in_size, in_min;           /* the request as we know it; what must come */
    uint16_t out_min;
    uint8_t response_at; /* where in the request the response's address is */
    uint8_t flags;
};

#define REQUEST(type) sizeof(struct type), sizeof(struct type)
#define GROWING(type, field) sizeof(struct type), offsetof(struct type, field)
#define ANSWER(type, min) (min), offsetof(struct type, response)
#define NO_ANSWER 0, NO_RESPONSE

static const struct ucma_method methods[] = {
    [RDMA_USER_CM_CMD_CREATE_ID] = {ucma_create_id, REQUEST(rdma_ucm_create_id),
                                    ANSWER(rdma_ucm_create_id, 4), 0},
    [RDMA_USER_CM_CMD_DESTROY_ID] = {ucma_destroy_id, REQUEST(rdma_ucm_destroy_id),
                                     ANSWER(rdma_ucm_destroy_id, 4), 0},
    [RDMA_USER_CM_CMD_BIND_IP] = {ucma_bind_ip, REQUEST(rdma_ucm_bind_ip), NO_ANSWER, 0},
    [RDMA_USER_CM_CMD_RESOLVE_IP] = {ucma_resolve_ip, REQUEST(rdma_ucm_resolve_ip), NO_ANSWER, 0},
    [RDMA_USER_CM_CMD_RESOLVE_ROUTE] = {ucma_resolve_route, REQUEST(rdma_ucm_resolve_route),
                                        NO_ANSWER, 0},
    [RDMA_USER_CM_CMD_QUERY_ROUTE] =
        {ucma_query_route, REQUEST(rdma_ucm_query),
         ANSWER(rdma_ucm_query, offsetof(struct rdma_ucm_query_route_resp, ibdev_index)), 0},
    [RDMA_USER_CM_CMD_CONNECT] = {ucma_connect, GROWING(rdma_ucm_connect, ece), NO_ANSWER, 0},
    [RDMA_USER_CM_CMD_LISTEN] = {ucma_listen, REQUEST(rdma_ucm_listen), NO_ANSWER, 0},
    [RDMA_USER_CM_CMD_ACCEPT] = {ucma_accept, GROWING(rdma_ucm_accept, ece), NO_ANSWER, 0},
    [RDMA_USER_CM_CMD_REJECT] = {ucma_reject, REQUEST(rdma_ucm_reject), NO_ANSWER, 0},
    [RDMA_USER_CM_CMD_DISCONNECT] = {ucma_disconnect, REQUEST(rdma_ucm_disconnect), NO_ANSWER, 0},
    [RDMA_USER_CM_CMD_INIT_QP_ATTR] = {ucma_init_qp_attr, REQUEST(rdma_ucm_init_qp_attr),
                                       ANSWER(rdma_ucm_init_qp_attr,
                                              sizeof(struct ib_uverbs_qp_attr)),
                                       0},
    [RDMA_USER_CM_CMD_GET_EVENT] = {ucma_get_event, REQUEST(rdma_ucm_get_event),
                                    ANSWER(rdma_ucm_get_event,
                                           offsetof(struct rdma_ucm_event_resp, reserved)),
                                    UNLOCKED},
    [RDMA_USER_CM_CMD_SET_OPTION] = {ucma_set_option, REQUEST(rdma_ucm_set_option), NO_ANSWER, 0},
    [RDMA_USER_CM_CMD_NOTIFY] = {ucma_notify, REQUEST(rdma_ucm_notify), NO_ANSWER, 0},
    [RDMA_USER_CM_CMD_JOIN_IP_MCAST] = {ucma_join_ip_mcast,
                                        GROWING(rdma_ucm_join_ip_mcast, id) + sizeof(uint32_t),
                                        ANSWER(rdma_ucm_join_ip_mcast, 4), 0},
    [RDMA_USER_CM_CMD_LEAVE_MCAST] = {ucma_leave_mcast, REQUEST(rdma_ucm_destroy_id),
                                      ANSWER(rdma_ucm_destroy_id, 4), 0},
    [RDMA_USER_CM_CMD_MIGRATE_ID] = {ucma_migrate_id, REQUEST(rdma_ucm_migrate_id),
                                     ANSWER(rdma_ucm_migrate_id, 4), 0},
    [RDMA_USER_CM_CMD_QUERY] = {ucma_query, REQUEST(rdma_ucm_query), ANSWER(rdma_ucm_query, 0), 0},
    [RDMA_USER_CM_CMD_BIND] = {ucma_bind, REQUEST(rdma_ucm_bind), NO_ANSWER, 0},
    [RDMA_USER_CM_CMD_RESOLVE_ADDR] = {ucma_resolve_addr, REQUEST(rdma_ucm_resolve_addr), NO_ANSWER,
                                       0},
    [RDMA_USER_CM_CMD_JOIN_MCAST] = {ucma_join_mcast, REQUEST(rdma_ucm_join_mcast),
                                     ANSWER(rdma_ucm_join_mcast, 4), 0},
    [UCMA_WRITE_EVENT] = {ucma_write_event, REQUEST(ucma_write_event), NO_ANSWER, 0},
};

enum { METHODS = sizeof(methods) / sizeof(methods[0]) };

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- the way in ---- */

static int run(struct ucma_call *call, const struct ucma_method *method)
{
    uint64_t to = 0;
    int error;

    if (method->response_at != NO_RESPONSE) {
        memcpy(&to, (const char *)call->req + method->response_at, sizeof(to));
        /* A response that can't be delivered must not leave an object nobody knows of. */
        error = user_probe_write(to, smaller(call->out_len, method->out_min));
        if (error)
            return error;
    }
    if (!(method->flags & UNLOCKED))
        core_lock();
    error = method->run(call);
    if (!(method->flags & UNLOCKED))
        core_unlock();
    if (error || !to)
        return error;
    return user_write(to, call->resp, smaller(call->out_len, call->resp_len));
}

static int dispatch(struct ucma_file *file, const void *buf, size_t len)
{
    struct ucma_call call = {.file = file};
    struct rdma_ucm_cmd_hdr hdr;
    int error = user_read(&hdr, (uintptr_t)buf, sizeof(hdr));

    if (error)
        return error;
    if (hdr.in + sizeof(hdr) > len || hdr.cmd >= METHODS)
        return -EINVAL;
    const struct ucma_method *method = &methods[hdr.cmd];
    if (!method->run)
        return -ENOSYS;
    if (hdr.in < method->in_min)
        return -EINVAL;
    if (hdr.out < method->out_min)
        return -ENOSPC;
    call.out_len = hdr.out;
    error = user_read(call.req, (uintptr_t)buf + sizeof(hdr), smaller(hdr.in, method->in_size));
    return error ? error : run(&call, method);
}

static ssize_t ucma_write(struct uapi_file *base, const void *buf, size_t len)
{
    if (base->dead)
        return -EIO;
    if (len < sizeof(struct rdma_ucm_cmd_hdr))
        return -EINVAL;
    int error = dispatch((struct ucma_file *)base, buf, len);
    return error ? error : (ssize_t)len;
}

/* ---- opening and closing ---- */

static void ucma_release(struct uapi_file *base)
{
    struct ucma_file *file = (struct ucma_file *)base;

    core_lock();
    ucma_close_all(file);
    ucma_channel_close(file);
    core_unlock();
    free(file);
}

static const struct uapi_file_ops ucma_ops = {ucma_write, ucma_release};

int ucma_open(int flags, int *fd_out)
{
    struct ucma_file *file = calloc(1, sizeof(*file));
    int fd;

    if (!file)
        return -ENOMEM;
    file->file.ops = &ucma_ops;
    core_lock();
    cma_set_handler(ucma_on_event);
    removal_set_handler(ucma_nic_removed);
    core_unlock();
    int error = ucma_channel_open(file, flags, &fd);
    if (error) {
        free(file);
        return error;
    }
    error = fdtab_set(fd, &file->file);
    if (error) {
        ucma_channel_close(file);
        sys_close(fd);
        free(file);
        return error;
    }
    *fd_out = fd;
    return 0;
}

struct ucma_file *ucma_file_hold(int fd)
{
    struct uapi_file *file = fdtab_hold(fd);

    if (!file || (file->ops == &ucma_ops && !file->dead))
        return (struct ucma_file *)file;
    fdtab_put(file);
    return NULL;
}

void ucma_after_fork(void)
{
    ucma_ids_after_fork();
}
