/* SPDX-License-Identifier: MIT */
/* Asynchronous events and completion channels: records in pipes that the program reads. */
#define _GNU_SOURCE
#include <errno.h>
#include <rdma/ib_user_verbs.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/pipe.h"
#include "core/state.h"
#include "core/sys.h"

static struct channel *channels;

int channel_create(struct context *context, struct channel **channel_out)
{
    struct channel *channel = calloc(1, sizeof(*channel));

    if (!channel)
        return -ENOMEM;
    int error = pipe_open(&channel->fd, &channel->ours);
    if (error) {
        free(channel);
        return error;
    }
    channel->context = context;
    channel->next = channels;
    channels = channel;
    *channel_out = channel;
    return 0;
}

static void channel_free(struct channel *channel)
{
    struct channel **at = &channels;

    while (*at && *at != channel)
        at = &(*at)->next;
    if (*at)
        *at = channel->next;
    sys_close(channel->ours);
    free(channel);
}

void channel_destroy(struct channel *channel)
{
    cq_detach_channel(channel);
    channel_free(channel);
}

void channel_close_all(struct context *context)
{
    for (struct channel *channel = channels, *next; channel; channel = next) {
        next = channel->next;
        if (channel->context == context)
            channel->context = NULL; /* its descriptor is still open: freed when that closes */
    }
}

void event_async(struct context *context, enum ibv_event_type type, uint64_t element,
                 struct event_counts *counts)
{
    struct ib_uverbs_async_event_desc record = {.element = element, .event_type = type};

    if (pipe_write(context->async_ours, &record, sizeof(record)) && counts)
        counts->reported++;
}

static bool is_async_of(const void *record, uint64_t element)
{
    return ((const struct ib_uverbs_async_event_desc *)record)->element == element;
}

void event_withdraw(struct context *context, uint64_t element, struct event_counts *counts)
{
    counts->reported -= pipe_withdraw(
        context->async_ours, sizeof(struct ib_uverbs_async_event_desc), is_async_of, element);
}

bool channel_write(struct channel *channel, uint64_t cq_handle, struct event_counts *counts)
{
    struct ib_uverbs_comp_event_desc record = {.cq_handle = cq_handle};

    if (!pipe_write(channel->ours, &record, sizeof(record)))
        return false;
    counts->reported++;
    return true;
}

static bool is_completion_of(const void *record, uint64_t element)
{
    return ((const struct ib_uverbs_comp_event_desc *)record)->cq_handle == element;
}

void channel_withdraw(struct channel *channel, uint64_t cq_handle, struct event_counts *counts)
{
    counts->reported -= pipe_withdraw(channel->ours, sizeof(struct ib_uverbs_comp_event_desc),
                                      is_completion_of, cq_handle);
}
