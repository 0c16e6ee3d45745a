/* SPDX-License-Identifier: MIT */
/* The event channel: a queue, the eventfd that counts it, and who waits for it. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "core/objects.h"
#include "core/own_fd.h"
#include "core/sys.h"
#include "uapi/ucma.h"

/* ---- the descriptor ---- */

int ucma_channel_open(struct ucma_file *file, int flags, int *fd_out)
{
    int fd = eventfd(0, EFD_SEMAPHORE | (flags & O_CLOEXEC ? EFD_CLOEXEC : 0) |
                            (flags & O_NONBLOCK ? EFD_NONBLOCK : 0));

    if (fd < 0)
        return -errno;
    file->fd = own_fd((int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 0));
    if (file->fd < 0) {
        int error = -errno;

        sys_close(fd);
        return error;
    }
    file->last = &file->first;
    *fd_out = fd;
    return 0;
}

void ucma_channel_close(struct ucma_file *file)
{
    sys_close(file->fd);
}

static void count_up(struct ucma_file *file)
{
    uint64_t one = 1;

    (void)!sys_write(file->fd, &one, sizeof(one));
    atomic_fetch_add(&file->queued, 1);
    syscall(SYS_futex, &file->queued, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}

/* Looks first: a program that reads the descriptor itself must not make us wait. */
static void count_down(struct ucma_file *file)
{
    struct pollfd readable = {.fd = file->fd, .events = POLLIN};
    uint64_t one;

    atomic_fetch_sub(&file->queued, 1);
    if (poll(&readable, 1, 0) == 1)
        (void)!sys_read(file->fd, &one, sizeof(one));
}

/* ---- waiting ---- */

static void put_file(void *file)
{
    fdtab_put(file);
}

/*
 * A thread that waits here may be cancelled, as in write(); the reference that the call holds must
 * not go with it. A futex without a time limit is begun again after a signal exactly if the
 * program's handler asked for that.
 */
static int sleep_until_queued(struct ucma_file *file)
{
    int before, error;

    pthread_cleanup_push(put_file, &file->file);
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &before);
    error = syscall(SYS_futex, &file->queued, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, NULL, NULL, 0) < 0
                ? errno
                : 0;
    pthread_setcanceltype(before, NULL);
    pthread_cleanup_pop(0);
    return error == EINTR ? -EINTR : 0;
}

static bool is_nonblocking(const struct ucma_file *file)
{
    return syscall(SYS_fcntl, file->fd, F_GETFL) & O_NONBLOCK;
}

int ucma_channel_wait(struct ucma_file *file)
{
    core_lock();
    while (!file->first) {
        core_unlock();
        int error = is_nonblocking(file) ? -EAGAIN : sleep_until_queued(file);
        if (error)
            return error;
        core_lock();
    }
    return 0;
}

/* ---- the queue ---- */

static void append(struct ucma_file *file, struct ucma_event *event)
{
    event->next = NULL;
    *file->last = event;
    file->last = &event->next;
    count_up(file);
}

/* Take out the event behind *at. */
static struct ucma_event *cut(struct ucma_file *file, struct ucma_event **at)
{
    struct ucma_event *event = *at;

    *at = event->next;
    if (!event->next)
        file->last = at;
    count_down(file);
    return event;
}

struct ucma_event *ucma_take(struct ucma_file *file)
{
    return cut(file, &file->first);
}

void ucma_withdraw(struct ucma_id *id, const struct ucma_mcast *mcast)
{
    struct ucma_file *file = id->file;

    for (struct ucma_event **at = &file->first; *at;) {
        if ((*at)->id != id || (mcast && (*at)->mcast != mcast)) {
            at = &(*at)->next;
            continue;
        }
        struct ucma_event *event = cut(file, at);
        if (event->fresh)
            ucma_id_free(event->fresh);
        free(event);
    }
}

void ucma_move_events(struct ucma_id *id, struct ucma_file *to)
{
    struct ucma_file *from = id->file;

    for (struct ucma_event **at = &from->first; *at;) {
        if ((*at)->id == id)
            append(to, cut(from, at));
        else
            at = &(*at)->next;
    }
}

/* ---- from the core ---- */

static void fill_connected(struct rdma_ucm_conn_param *out, const struct cma_params *params)
{
    out->qp_num = params->qpn;
    out->srq = params->srq;
    out->responder_resources = params->responder_resources;
    out->initiator_depth = params->initiator_depth;
    out->flow_control = params->flow_control;
    out->retry_count = params->retry_count;
    out->rnr_retry_count = params->rnr_retry;
    out->private_data_len = params->private_len;
    memcpy(out->private_data, params->private_data, params->private_len);
}

static void fill_datagram(struct rdma_ucm_ud_param *out, const struct cma_event *event)
{
    out->qp_num = event->params.qpn;
    out->qkey = event->params.qkey;
    memcpy(out->ah_attr.grh.dgid, event->ah.grh.dgid.raw, 16);
    out->ah_attr.grh.sgid_index = event->ah.grh.sgid_index;
    out->ah_attr.grh.hop_limit = event->ah.grh.hop_limit;
    out->ah_attr.grh.traffic_class = event->ah.grh.traffic_class;
    out->ah_attr.is_global = event->ah.is_global;
    out->ah_attr.port_num = event->ah.port_num;
    out->private_data_len = event->params.private_len;
    memcpy(out->private_data, event->params.private_data, event->params.private_len);
}

bool ucma_post(struct ucma_id *id, struct ucma_mcast *mcast, struct ucma_id *fresh,
               const struct cma_event *event)
{
    struct ucma_event *queued = calloc(1, sizeof(*queued));

    if (!queued)
        return false;
    queued->id = id;
    queued->mcast = mcast;
    queued->fresh = fresh;
    queued->resp.uid = mcast ? mcast->uid : id->uid;
    queued->resp.id = fresh ? fresh->handle : mcast ? mcast->handle : id->handle;
    queued->resp.event = event->type;
    queued->resp.status = (uint32_t)event->status;
    if (event->datagram)
        fill_datagram(&queued->resp.param.ud, event);
    else
        fill_connected(&queued->resp.param.conn, &event->params);
    append(id->file, queued);
    return true;
}

int ucma_write_event(struct ucma_call *call)
{
    const struct ucma_write_event *req = (const void *)call->req;
    struct ucma_id *id;
    int error = ucma_find(call->file, req->id, &id);

    if (req->event != UCMA_EVENT_USER && req->event != UCMA_EVENT_INTERNAL)
        return -EINVAL;
    if (error)
        return error;
    struct ucma_event *queued = calloc(1, sizeof(*queued));
    if (!queued)
        return -ENOMEM;
    queued->id = id;
    queued->resp.uid = id->uid;
    queued->resp.id = id->handle;
    queued->resp.event = req->event;
    queued->resp.status = req->status;
    memcpy(&queued->resp.param, req->param.arg32, sizeof(req->param.arg32));
    append(id->file, queued);
    return 0;
}

static bool post_request(struct ucma_id *listener, struct cma_id *fresh,
                         const struct cma_event *event)
{
    struct ucma_id *id = ucma_id_new(listener->file, 0);

    if (!id)
        return false;
    if (!ucma_post(listener, NULL, id, event)) {
        ucma_id_free(id);
        return false;
    }
    id->cma = fresh;
    fresh->owner = id;
    listener->cma->pending++;
    return true;
}

/* What happens to a request before the program has accepted it shows in its accept failing. */
bool ucma_on_event(struct cma_id *cma, struct cma_id *fresh, const struct cma_event *event)
{
    struct ucma_id *id = cma->owner;

    if (fresh)
        return post_request(id, fresh, event);
    return id->uid ? ucma_post(id, NULL, NULL, event) : true;
}
