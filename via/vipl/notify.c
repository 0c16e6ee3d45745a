/* SPDX-License-Identifier: MIT */
/*
 * The callback thread: asynchronous errors first, then the completions that handlers are registered
 * for. No lock is held while a handler runs.
 */
#include <stdlib.h>

#include "vip.h"

/* ---- registrations ---- */

/* At the end of the CQ's list; with callback.lock held. */
static bool append(struct vip_nic *nic, struct cq *cq, const struct notice *what)
{
    struct notice **at = &cq->notices, *notice = malloc(sizeof(*notice));

    if (!notice)
        return false;
    *notice = *what;
    notice->next = NULL;
    while (*at)
        at = &(*at)->next;
    *at = notice;
    if (cq->notice_count++ == 0) {
        cq->next_noticed = nic->callback.noticed;
        nic->callback.noticed = cq;
    }
    return true;
}

/* The oldest of the CQ; with callback.lock held. */
static struct notice *remove_first(struct vip_nic *nic, struct cq *cq)
{
    struct notice *notice = cq->notices;

    cq->notices = notice->next;
    if (--cq->notice_count)
        return notice;
    struct cq **at = &nic->callback.noticed;
    while (*at != cq)
        at = &(*at)->next_noticed;
    *at = cq->next_noticed;
    return notice;
}

VIP_RETURN notice_add(struct cq *cq, const struct notice *what)
{
    struct vip_nic *nic = cq->head.nic;

    pthread_mutex_lock(&nic->callback.lock);
    bool added = cq->notice_count < nic->attributes.MaxDescriptorsPerQueue && append(nic, cq, what);
    pthread_mutex_unlock(&nic->callback.lock);
    if (!added)
        return VIP_ERROR_RESOURCE;
    wait_wake(nic);
    return VIP_SUCCESS;
}

void notice_cancel(struct cq *cq)
{
    struct vip_nic *nic = cq->head.nic;

    pthread_mutex_lock(&nic->callback.lock);
    while (cq->notices)
        free(remove_first(nic, cq));
    while (nic->callback.running == cq && !callback_is_me(nic))
        pthread_cond_wait(&nic->callback.changed, &nic->callback.lock);
    pthread_mutex_unlock(&nic->callback.lock);
}

/* ---- serving them ---- */

/* What a registration is served with. */
struct served {
    struct queue *queue;
    VIP_DESCRIPTOR *descriptor;
};

static bool serve(struct cq *cq, struct served *served_out)
{
    served_out->descriptor = NULL;
    lock_take(&cq->lock);
    if (cq->only) {
        served_out->queue = cq->only;
        served_out->descriptor = queue_take(cq->only);
        if (!served_out->descriptor && cq_poll(cq, 1))
            served_out->descriptor = queue_take(cq->only);
    } else {
        served_out->queue = cq_next(cq);
    }
    bool more = cq->only ? queue_has_more(cq->only) : cq->put != cq->got;
    lock_give(&cq->lock);
    if (more)
        wait_share(cq);
    if (cq->only)
        return served_out->descriptor;
    return served_out->queue;
}

/* With callback.lock held, which is let go of for the call. */
static void call(struct vip_nic *nic, struct cq *cq, const struct served *served)
{
    struct notice *notice = remove_first(nic, cq);
    struct vi *vi = served->queue->vi;

    nic->callback.running = cq;
    pthread_mutex_unlock(&nic->callback.lock);
    if (notice->cq_handler)
        notice->cq_handler(notice->context, nic, vi, served->queue->receives);
    else
        notice->vi_handler(notice->context, nic, vi, served->descriptor);
    free(notice);
    pthread_mutex_lock(&nic->callback.lock);
    nic->callback.running = NULL;
    pthread_cond_broadcast(&nic->callback.changed);
}

/* One step; false: there is nothing to do. With callback.lock held. */
static bool step(struct vip_nic *nic)
{
    struct event *event = event_next(nic);
    struct served served;

    if (event) {
        VIP_ERROR_HANDLER handler = nic->callback.handler;
        VIP_PVOID context = nic->callback.context;

        pthread_mutex_unlock(&nic->callback.lock);
        handler(context, &event->what);
        free(event);
        pthread_mutex_lock(&nic->callback.lock);
        return true;
    }
    for (struct cq *cq = nic->callback.noticed; cq; cq = cq->next_noticed) {
        if (serve(cq, &served)) {
            call(nic, cq, &served);
            return true;
        }
    }
    for (struct cq *cq = nic->callback.noticed; cq; cq = cq->next_noticed) {
        if (wait_arm(cq))
            return true;
    }
    return false;
}

static void *run(void *arg)
{
    struct vip_nic *nic = arg;

    pthread_mutex_lock(&nic->callback.lock);
    while (!nic->callback.stop) {
        uint32_t turn = atomic_load(&nic->wait.turn);

        if (step(nic))
            continue;
        pthread_mutex_unlock(&nic->callback.lock);
        wait_turn(nic, turn, INT64_MAX);
        pthread_mutex_lock(&nic->callback.lock);
    }
    pthread_mutex_unlock(&nic->callback.lock);
    return NULL;
}

bool callback_is_me(const struct vip_nic *nic)
{
    return pthread_equal(pthread_self(), nic->callback.thread);
}

int callback_init(struct vip_nic *nic)
{
    pthread_mutex_init(&nic->callback.lock, NULL);
    cond_init(&nic->callback.changed);
    nic->callback.last = &nic->callback.first;
    VipErrorCallback(nic, NULL, NULL);
    return thread_start(&nic->callback.thread, run, nic);
}

void callback_stop(struct vip_nic *nic)
{
    pthread_mutex_lock(&nic->callback.lock);
    nic->callback.stop = true;
    pthread_mutex_unlock(&nic->callback.lock);
    wait_wake(nic);
    pthread_join(nic->callback.thread, NULL);
}

void callback_fini(struct vip_nic *nic)
{
    for (struct event *event = event_next(nic); event; event = event_next(nic))
        free(event);
    pthread_cond_destroy(&nic->callback.changed);
    pthread_mutex_destroy(&nic->callback.lock);
}
