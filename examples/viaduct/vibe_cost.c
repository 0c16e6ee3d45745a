/* SPDX-License-Identifier: MIT */
/* VIBe's first part: operations that move no data, each timed alone. */
#include "channel.h"
#include "clock.h"
#include "cmd.h"
#include "vibe.h"

#include <stdlib.h>
#include <string.h>

#define REPEAT_MAX 10000
#define REGION_MIN 4096
#define REGION_MAX (16u << 20)

/* The case of a rig that is only there to be connected. */
static const struct vicase bare = {.which = {.test = TEST_LAT, .op = OP_SEND, .size = 64},
                                   .level = VIP_SERVICE_RELIABLE_DELIVERY,
                                   .vis = 1,
                                   .segments = 1,
                                   .depth = 2,
                                   .reuse = 100};

/* The times of one operation, and of its reverse. */
struct times {
    double ns[2][REPEAT_MAX];
    unsigned count;
};

static int by_ns(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void note(struct vibe_results *results, const char *what, size_t size, double *ns,
                 unsigned count)
{
    struct vibe_cost *cost = &results->costs[results->cost_count];

    if (count == 0 || results->cost_count == VIBE_COSTS_MAX)
        return;
    results->cost_count++;
    qsort(ns, count, sizeof(*ns), by_ns);
    *cost = (struct vibe_cost){what, size, ns[count / 2], ns[0]};
}

static void note_both(struct vibe_results *results, const char *there, const char *back,
                      size_t size, struct times *times)
{
    note(results, there, size, times->ns[0], times->count);
    note(results, back, size, times->ns[1], times->count);
    times->count = 0;
}

/* What is made, and unmade, and what both need. */
struct subject {
    struct virig rig;
    VIP_NIC_HANDLE nic;
    VIP_PROTECTION_HANDLE tag;
    VIP_CQ_HANDLE cq;
    VIP_VI_HANDLE vi;
    VIP_MEM_HANDLE handle;
    char *memory, *buffer;
    size_t size;
    const char *device;
};

typedef VIP_RETURN operation(struct subject *s);

static VIP_RETURN open_nic(struct subject *s)
{
    return VipOpenNic(s->device != NULL ? s->device : device_default(), &s->nic);
}

static VIP_RETURN close_nic(struct subject *s)
{
    return VipCloseNic(s->nic);
}

static VIP_RETURN create_tag(struct subject *s)
{
    return VipCreatePtag(s->rig.nic, &s->tag);
}

static VIP_RETURN destroy_tag(struct subject *s)
{
    return VipDestroyPtag(s->rig.nic, s->tag);
}

static VIP_RETURN create_cq(struct subject *s)
{
    return VipCreateCQ(s->rig.nic, 256, &s->cq);
}

static VIP_RETURN destroy_cq(struct subject *s)
{
    return VipDestroyCQ(s->cq);
}

static VIP_RETURN create_vi(struct subject *s)
{
    VIP_VI_ATTRIBUTES attributes = {.ReliabilityLevel = VIP_SERVICE_RELIABLE_DELIVERY,
                                    .MaxTransferSize = 65536,
                                    .Ptag = s->rig.tag};

    return VipCreateVi(s->rig.nic, &attributes, NULL, NULL, &s->vi);
}

static VIP_RETURN destroy_vi(struct subject *s)
{
    return VipDestroyVi(s->vi);
}

static VIP_RETURN register_memory(struct subject *s)
{
    VIP_MEM_ATTRIBUTES attributes = {.Ptag = s->rig.tag, .EnableRdmaWrite = VIP_TRUE};

    return VipRegisterMem(s->rig.nic, s->memory, s->size, &attributes, &s->handle);
}

static VIP_RETURN deregister_memory(struct subject *s)
{
    return VipDeregisterMem(s->rig.nic, s->memory, s->handle);
}

/* What a program does that does not register: it copies into memory that is. */
static VIP_RETURN copy_in(struct subject *s)
{
    memcpy(s->buffer, s->memory, s->size);
    return VIP_SUCCESS;
}

static VIP_RETURN copy_out(struct subject *s)
{
    memcpy(s->memory, s->buffer, s->size);
    return VIP_SUCCESS;
}

static VIP_RETURN timed(operation *run, struct subject *s, double *ns_out)
{
    uint64_t began = clock_ns();
    VIP_RETURN result = run(s);

    *ns_out = (double)(clock_ns() - began);
    return result;
}

static int repeat(struct subject *s, operation *there, operation *back, uint64_t times_wanted,
                  struct times *times)
{
    for (times->count = 0; times->count < times_wanted; times->count++) {
        VIP_RETURN result = timed(there, s, &times->ns[0][times->count]);

        if (result == VIP_SUCCESS)
            result = timed(back, s, &times->ns[1][times->count]);
        if (result != VIP_SUCCESS)
            return virig_failed("an operation without data", result);
    }
    return CMD_OK;
}

static const struct pair {
    const char *there_name, *back_name;
    operation *there, *back;
} pairs[] = {
    {"open NIC", "close NIC", open_nic, close_nic},
    {"create tag", "destroy tag", create_tag, destroy_tag},
    {"create CQ", "destroy CQ", create_cq, destroy_cq},
    {"create VI", "destroy VI", create_vi, destroy_vi},
};

static int time_objects(const struct vibe_options *opts, struct subject *s, struct times *times,
                        struct vibe_results *results)
{
    int code = CMD_OK;

    for (unsigned i = 0; code == CMD_OK && i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        code = repeat(s, pairs[i].there, pairs[i].back, opts->repeat, times);
        note_both(results, pairs[i].there_name, pairs[i].back_name, 0, times);
    }
    return code;
}

static int time_sizes(const struct vibe_options *opts, struct subject *s, struct times *times,
                      struct vibe_results *results)
{
    int code = CMD_OK;

    for (s->size = REGION_MIN; code == CMD_OK && s->size <= REGION_MAX; s->size *= 4) {
        code = repeat(s, register_memory, deregister_memory, opts->repeat, times);
        note_both(results, "register", "deregister", s->size, times);
        if (code == CMD_OK)
            code = repeat(s, copy_in, copy_out, opts->repeat, times);
        note_both(results, "copy in", "copy out", s->size, times);
    }
    return code;
}

/* The memory is touched before, so that no page is counted that has yet to be found. */
static int time_regions(const struct vibe_options *opts, struct subject *s, struct times *times,
                        struct vibe_results *results)
{
    int code;

    s->memory = aligned_alloc(4096, REGION_MAX);
    s->buffer = aligned_alloc(4096, REGION_MAX);
    if (s->memory != NULL && s->buffer != NULL) {
        memset(s->memory, 1, REGION_MAX);
        memset(s->buffer, 1, REGION_MAX);
        code = time_sizes(opts, s, times, results);
    } else {
        code = virig_failed("aligned_alloc", VIP_ERROR_RESOURCE);
    }
    free(s->memory);
    free(s->buffer);
    return code;
}

/* --- connecting, with the server's help --- */

/* Everything that was posted comes back flushed, and is posted again for the next connection. */
static int renew(struct virig *rig)
{
    VIP_DESCRIPTOR *d;
    int code = CMD_OK;

    do {
        VipRecvDone(rig->vis->vi, &d);
    } while (d != NULL);
    for (unsigned i = 0; code == CMD_OK && i < rig->which.depth + VIRIG_RESERVE; i++)
        code = virig_post_receive(rig, rig->vis, virig_slot(rig, rig->vis->receives, i));
    return code;
}

static int connect_once(struct virig *rig, int channel, double ns_out[2])
{
    uint64_t began;
    VIP_RETURN result;

    if (virig_connect(rig, channel, true) != CMD_OK)
        return CMD_FAILED;
    ns_out[0] = (double)rig->connect_ns;
    began = clock_ns();
    result = VipDisconnect(rig->vis->vi);
    ns_out[1] = (double)(clock_ns() - began);
    if (result != VIP_SUCCESS)
        return virig_failed("VipDisconnect", result);
    return renew(rig);
}

static int time_connections(const struct vibe_options *opts, struct subject *s, int channel,
                            struct times *times, struct vibe_results *results)
{
    int error = channel_put_number(channel, VIBE_CONNECT);
    double ns[2];

    if (error == 0)
        error = channel_put_number(channel, opts->repeat);
    if (error != 0) {
        complain("the other side is gone");
        return CMD_FAILED;
    }
    for (times->count = 0; times->count < opts->repeat; times->count++) {
        if (connect_once(&s->rig, channel, ns) != CMD_OK)
            return CMD_FAILED;
        times->ns[0][times->count] = ns[0];
        times->ns[1][times->count] = ns[1];
    }
    note_both(results, "connect", "disconnect", 0, times);
    return CMD_OK;
}

/* The server: accept, wait until the client has gone, get ready for the next. */
static int accept_once(struct virig *rig, int channel)
{
    VIP_DESCRIPTOR *d;

    if (virig_connect(rig, channel, false) != CMD_OK)
        return CMD_FAILED;
    VipRecvWait(rig->vis->vi, VIP_INFINITE, &d);
    VipDisconnect(rig->vis->vi);
    return renew(rig);
}

int vibe_serve_connect(int channel, const char *device)
{
    struct virig rig;
    uint64_t count = 0;
    int code = channel_get_number(channel, &count) == 0 ? CMD_OK : CMD_FAILED;

    if (code == CMD_OK)
        code = virig_open(&rig, device, &bare);
    if (code != CMD_OK)
        return code;
    for (uint64_t i = 0; code == CMD_OK && i < count && i < REPEAT_MAX; i++)
        code = accept_once(&rig, channel);
    virig_close(&rig);
    return code;
}

int vibe_costs(const struct vibe_options *opts, int channel, struct vibe_results *results)
{
    struct subject s = {.device = opts->session.device};
    struct times *times = calloc(1, sizeof(*times));
    int code = times != NULL ? virig_open(&s.rig, s.device, &bare) : CMD_FAILED;

    if (code == CMD_OK) {
        code = time_objects(opts, &s, times, results);
        if (code == CMD_OK)
            code = time_connections(opts, &s, channel, times, results);
        if (code == CMD_OK)
            code = time_regions(opts, &s, times, results);
        virig_close(&s.rig);
    }
    free(times);
    return code;
}
