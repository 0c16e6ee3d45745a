/* SPDX-License-Identifier: MIT */
/*
 * Latency over VIPL: one message at a time, on the VIs in turn. Receives are posted again, and
 * completed sends taken, right after a message has been sent: while it is on its way nobody
 * waits for us.
 */
#include "clock.h"
#include "cmd.h"
#include "vicase.h"
#include "wait.h"

struct vilat {
    struct pass *pass;
    struct virig *rig;
    struct virig_vi *vi; /* whose turn it is */
    VIP_UINT16 control;
    size_t size;
    VIP_DESCRIPTOR *taken; /* a receive that is to be posted again */
    struct virig_vi *taken_from;
};

/* No division: it would stand between receiving and answering. */
static inline struct virig_vi *next_vi(struct vilat *lat)
{
    struct virig_vi *vi = lat->vi;

    lat->vi = vi + 1 < lat->rig->vis + lat->rig->which.vis ? vi + 1 : lat->rig->vis;
    return vi;
}

/* Memory can't be waited for, so with blocking or a CQ a completion must come. */
static bool by_memory(const struct virig *rig)
{
    return rig->which.which.op == OP_WRITE && rig->which.how == VIHOW_POLL && !rig->which.cq;
}

static void vilat_init(struct vilat *lat, struct pass *pass, bool client)
{
    const struct vicase *which = &pass->virig->which;

    *lat = (struct vilat){.pass = pass, .rig = pass->virig, .vi = pass->virig->vis};
    lat->size = !client && which->reply != 0 ? which->reply : which->which.size;
    if (which->which.op == OP_WRITE)
        lat->control = VIP_CONTROL_OP_RDMAWRITE | (by_memory(lat->rig) ? 0 : VIP_CONTROL_IMMEDIATE);
    else if (which->which.op == OP_READ)
        lat->control = VIP_CONTROL_OP_RDMAREAD;
}

static inline int tidy(struct vilat *lat, struct virig_vi *vi)
{
    VIP_DESCRIPTOR *d = lat->taken;

    lat->taken = NULL;
    if (d != NULL && virig_post_receive(lat->rig, lat->taken_from, d) != CMD_OK)
        return CMD_FAILED;
    return virig_reap(lat->rig, lat->pass->rig, vi, 1);
}

static inline int receive(struct vilat *lat, struct virig_vi *vi)
{
    lat->taken_from = vi;
    return virig_take(lat->rig, lat->pass->rig, vi, true, &lat->taken);
}

static inline int send_on(struct vilat *lat, struct virig_vi *vi)
{
    if (virig_post_send(lat->rig, vi, lat->control, 0, lat->size) != CMD_OK)
        return CMD_FAILED;
    return tidy(lat, vi);
}

static inline void record(struct pass *pass, uint64_t *last)
{
    uint64_t now = clock_ticks();

    if (pass->hist != NULL)
        hist_add(pass->hist, now - *last);
    *last = now;
}

/* --- by completions --- */

static int message_client(struct vilat *lat, uint64_t iters)
{
    uint64_t last = clock_ticks();

    for (uint64_t i = 0; i < iters; i++) {
        struct virig_vi *vi = next_vi(lat);

        if (send_on(lat, vi) != CMD_OK || receive(lat, vi) != CMD_OK)
            return CMD_FAILED;
        record(lat->pass, &last);
    }
    return CMD_OK;
}

static int message_server(struct vilat *lat, uint64_t iters)
{
    for (uint64_t i = 0; i < iters; i++) {
        struct virig_vi *vi = next_vi(lat);

        if (receive(lat, vi) != CMD_OK || send_on(lat, vi) != CMD_OK)
            return CMD_FAILED;
    }
    return CMD_OK;
}

/* --- by memory --- */

/* The last byte of message number n: never 0, and never that of message n - 1. */
static char mark_of(uint64_t n)
{
    return (char)(n % 255 + 1);
}

static int wait_mark(const struct vilat *lat, char mark)
{
    const volatile char *byte = lat->rig->receive_part + lat->size - 1;

    for (uint64_t idle = 1; *byte != mark; idle++) {
        if (wait_idle(lat->pass->rig, idle) != 0)
            return CMD_FAILED;
    }
    /* The byte is seen: so is what the other side did before it. */
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return CMD_OK;
}

static int write_mark(struct vilat *lat, struct virig_vi *vi, char mark)
{
    virig_next_buffer(lat->rig)[lat->size - 1] = mark;
    return send_on(lat, vi);
}

static int memory_pass(struct vilat *lat, uint64_t iters, bool client)
{
    uint64_t last = clock_ticks();

    for (uint64_t i = 0; i < iters; i++) {
        struct virig_vi *vi = next_vi(lat);
        char mark = mark_of(lat->pass->sequence++);

        if (!client && wait_mark(lat, mark) != CMD_OK)
            return CMD_FAILED;
        if (write_mark(lat, vi, mark) != CMD_OK)
            return CMD_FAILED;
        if (client && wait_mark(lat, mark) != CMD_OK)
            return CMD_FAILED;
        record(lat->pass, &last);
    }
    return CMD_OK;
}

/* --- passes --- */

static int end_pass(struct vilat *lat, int code)
{
    for (unsigned i = 0; code == CMD_OK && i < lat->rig->which.vis; i++) {
        code = tidy(lat, &lat->rig->vis[i]);
        if (code == CMD_OK)
            code = virig_reap(lat->rig, lat->pass->rig, &lat->rig->vis[i], 0);
    }
    return code;
}

int vilat_client(struct pass *pass, uint64_t iters)
{
    struct vilat lat;

    vilat_init(&lat, pass, true);
    return end_pass(&lat, by_memory(lat.rig) ? memory_pass(&lat, iters, true)
                                             : message_client(&lat, iters));
}

int vilat_server(struct pass *pass, uint64_t iters)
{
    struct vilat lat;

    vilat_init(&lat, pass, false);
    return end_pass(&lat, by_memory(lat.rig) ? memory_pass(&lat, iters, false)
                                             : message_server(&lat, iters));
}

/* Reads: the server takes no part. */
int vilat_one_sided(struct pass *pass, uint64_t iters)
{
    struct vilat lat;
    uint64_t last;

    vilat_init(&lat, pass, true);
    last = clock_ticks();
    for (uint64_t i = 0; i < iters; i++) {
        struct virig_vi *vi = next_vi(&lat);

        if (virig_post_send(lat.rig, vi, lat.control, 0, lat.size) != CMD_OK ||
            virig_reap(lat.rig, pass->rig, vi, 0) != CMD_OK)
            return CMD_FAILED;
        record(pass, &last);
    }
    return CMD_OK;
}
