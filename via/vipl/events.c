/* SPDX-License-Identifier: MIT */
/* Asynchronous errors, and the thread that calls the program's handlers. */
#include <stdio.h>
#include <stdlib.h>

#include "vip.h"

static const char *name_of(VIP_ERROR_CODE code)
{
    static const char *const names[] = {
        "descriptor can't be used", "connection lost",      "no receive was posted",
        "too many descriptors",     "RDMA write refused",   "RDMA write damaged",
        "RDMA write broke off",     "RDMA read refused",    "descriptor's memory is gone",
        "transport failed",         "the device has failed"};

    return (unsigned)code < sizeof(names) / sizeof(names[0]) ? names[code] : "unknown error";
}

static void log_error(VIP_PVOID context, VIP_ERROR_DESCRIPTOR *what)
{
    (void)context;
    fprintf(stderr, "vipl: %s: %s (VI %p, CQ %p, descriptor %p)\n",
            ((struct vip_nic *)what->NicHandle)->attributes.Name, name_of(what->ErrorCode),
            what->ViHandle, what->CQHandle, (void *)what->DescriptorPtr);
}

static VIP_RESOURCE_CODE resource_of(const struct vi *vi, const struct cq *cq,
                                     const VIP_DESCRIPTOR *descriptor)
{
    if (descriptor)
        return VIP_RESOURCE_DESCRIPTOR;
    if (cq)
        return VIP_RESOURCE_CQ;
    return vi ? VIP_RESOURCE_VI : VIP_RESOURCE_NIC;
}

void raise_error(struct vip_nic *nic, VIP_ERROR_CODE code, struct vi *vi, struct cq *cq,
                 VIP_DESCRIPTOR *descriptor, uint32_t operation)
{
    struct event *event = malloc(sizeof(*event));

    if (!event)
        return;
    *event = (struct event){.what = {.NicHandle = nic,
                                     .ViHandle = vi,
                                     .CQHandle = cq,
                                     .DescriptorPtr = descriptor,
                                     .OpCode = operation & VIP_STATUS_OP_MASK,
                                     .ResourceCode = resource_of(vi, cq, descriptor),
                                     .ErrorCode = code}};
    spin_lock(&nic->callback.events_lock);
    *nic->callback.last = event;
    nic->callback.last = &event->next;
    spin_unlock(&nic->callback.events_lock);
    wait_wake(nic);
}

struct event *event_next(struct vip_nic *nic)
{
    spin_lock(&nic->callback.events_lock);
    struct event *event = nic->callback.first;
    if (event)
        nic->callback.first = event->next;
    if (event && !event->next)
        nic->callback.last = &nic->callback.first;
    spin_unlock(&nic->callback.events_lock);
    return event;
}

VIP_RETURN VipErrorCallback(VIP_NIC_HANDLE NicHandle, VIP_PVOID Context, VIP_ERROR_HANDLER Handler)
{
    struct vip_nic *nic = nic_of(NicHandle);

    if (!nic)
        return VIP_INVALID_PARAMETER;
    pthread_mutex_lock(&nic->callback.lock);
    nic->callback.handler = Handler ? Handler : log_error;
    nic->callback.context = Handler ? Context : NULL;
    pthread_mutex_unlock(&nic->callback.lock);
    return VIP_SUCCESS;
}
