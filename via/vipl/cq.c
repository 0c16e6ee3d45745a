/* SPDX-License-Identifier: MIT */
/* Completion queues: the program's, and those that work queues have of their own. */
#include <stdlib.h>

#include "vip.h"

static uint32_t power_of_two(uint32_t at_least)
{
    uint32_t power = 1;

    while (power < at_least)
        power *= 2;
    return power;
}

static int cq_make_ring(struct cq *cq, uint32_t entries)
{
    uint32_t size = power_of_two(entries);
    struct queue **waiting = calloc(size, sizeof(struct queue *));

    if (!waiting)
        return -ENOMEM;
    for (uint32_t at = cq->got; at != cq->put; at++)
        waiting[at & (size - 1)] = cq->waiting[at & cq->mask];
    free(cq->waiting);
    cq->waiting = waiting;
    cq->mask = size - 1;
    cq->entries = entries;
    return 0;
}

int cq_init(struct cq *cq, struct vip_nic *nic, struct queue *only, uint32_t entries)
{
    int error = 0;

    cq->head.nic = nic;
    cq->only = only;
    if (!only)
        error = cq_make_ring(cq, entries);
    if (!error) {
        cq->verbs = ibv_create_cq(nic->verbs, (int)entries, cq, nic->channel, 0);
        error = cq->verbs ? 0 : -errno;
    }
    if (error)
        free(cq->waiting);
    return error;
}

/* The handlers' thread may be about to look at it, and the waiting one about to read its event. */
void cq_fini(struct cq *cq)
{
    if (!cq->verbs)
        return;
    notice_cancel(cq);
    ibv_destroy_cq(cq->verbs);
    free(cq->waiting);
    cq->verbs = NULL;
    cq->waiting = NULL;
}

struct cq *cq_of(VIP_CQ_HANDLE handle)
{
    return handle_of(handle, KIND_CQ);
}

VIP_RETURN VipCreateCQ(VIP_NIC_HANDLE NicHandle, VIP_ULONG EntryCount, VIP_CQ_HANDLE *CQHandle)
{
    struct vip_nic *nic = nic_of(NicHandle);
    struct cq *cq = NULL;

    if (!nic || !EntryCount || !CQHandle)
        return VIP_INVALID_PARAMETER;
    if (EntryCount > nic->attributes.MaxCQEntries)
        return VIP_ERROR_RESOURCE;
    pthread_mutex_lock(&nic->lock);
    if (nic->cq_count < nic->attributes.MaxCQ)
        cq = pool_take(KIND_CQ, nic);
    if (cq && cq_init(cq, nic, NULL, (uint32_t)EntryCount)) {
        pool_give(cq);
        cq = NULL;
    }
    if (cq) {
        nic->cq_count++;
        list_add(&nic->cqs, &cq->head);
    }
    pthread_mutex_unlock(&nic->lock);
    if (!cq)
        return VIP_ERROR_RESOURCE;
    *CQHandle = cq;
    return VIP_SUCCESS;
}

VIP_RETURN VipDestroyCQ(VIP_CQ_HANDLE CQHandle)
{
    struct cq *cq = cq_of(CQHandle);

    if (!cq)
        return VIP_INVALID_PARAMETER;
    struct vip_nic *nic = cq->head.nic;
    pthread_mutex_lock(&nic->lock);
    bool used = cq->users;
    if (!used) {
        nic->cq_count--;
        list_remove(&nic->cqs, &cq->head);
    }
    pthread_mutex_unlock(&nic->lock);
    if (used)
        return VIP_ERROR_RESOURCE;
    cq_fini(cq);
    pool_give(cq);
    return VIP_SUCCESS;
}

VIP_RETURN VipResizeCQ(VIP_CQ_HANDLE CQHandle, VIP_ULONG EntryCount)
{
    struct cq *cq = cq_of(CQHandle);

    if (!cq || !EntryCount)
        return VIP_INVALID_PARAMETER;
    if (EntryCount > cq->head.nic->attributes.MaxCQEntries)
        return VIP_ERROR_RESOURCE;
    lock_take(&cq->lock);
    int error = EntryCount < cq->put - cq->got ? -EBUSY : 0;
    if (!error)
        error = ibv_resize_cq(cq->verbs, (int)EntryCount);
    if (!error)
        error = cq_make_ring(cq, (uint32_t)EntryCount);
    lock_give(&cq->lock);
    return error ? VIP_ERROR_RESOURCE : VIP_SUCCESS;
}

/* ---- a vendor's extension that verbs have no means for ---- */

VIP_RETURN VipAddTagCQ(VIP_CQ_HANDLE CQHandle, VIP_EVENT_HANDLE *Event, VIP_ULONG Tag,
                       VIP_ULONG Priority)
{
    (void)Tag;
    (void)Priority;
    return cq_of(CQHandle) && Event ? VIP_ERROR_NOT_SUPPORTED : VIP_INVALID_PARAMETER;
}

VIP_RETURN VipRemoveTagCQ(VIP_CQ_HANDLE CQHandle, VIP_EVENT_HANDLE Event, VIP_ULONG Tag)
{
    (void)Event;
    (void)Tag;
    return cq_of(CQHandle) ? VIP_ERROR_NOT_SUPPORTED : VIP_INVALID_PARAMETER;
}
