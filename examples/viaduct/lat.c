/* SPDX-License-Identifier: MIT */
/*
 * Latency: one message at a time on queue pair 0.
 *
 * Receives are posted again, and send completions polled, right after a message has been sent:
 * while it is on its way nobody waits for us.
 */
#include "clock.h"
#include "cmd.h"
#include "pass.h"
#include "wait.h"

/* One send in this many asks for a completion, and it is polled half that number later. */
#define SIGNAL_EVERY 32u

struct lat {
    struct pass *pass;
    struct rig *rig;
    struct ibv_qp *qp;
    struct ibv_sge sge;
    struct ibv_send_wr wr;
    struct ibv_recv_wr recv;
    struct ibv_sge recv_sge;
    unsigned plain_flags;
    bool unreaped;
    uint64_t iters;
};

static void lat_init(struct lat *lat, struct pass *pass, uint64_t iters)
{
    struct rig *rig = pass->rig;

    lat->pass = pass;
    lat->rig = rig;
    lat->qp = rig->qps[0];
    lat->unreaped = false;
    lat->iters = iters;
    pass_request(pass, &lat->sge, &lat->wr);
    lat->plain_flags = lat->wr.send_flags;
    lat->recv_sge = (struct ibv_sge){.addr = (uintptr_t)rig->recv_part,
                                     .length = (uint32_t)rig->config.message_bytes,
                                     .lkey = rig->mr->lkey};
    lat->recv = (struct ibv_recv_wr){.sg_list = &lat->recv_sge, .num_sge = 1};
}

static inline int lat_reap(struct lat *lat)
{
    struct ibv_wc wc;

    if (!lat->unreaped)
        return CMD_OK;
    lat->unreaped = false;
    return wait_completions(lat->rig, lat->rig->send_cq, 1, &wc) < 0 ? CMD_FAILED : CMD_OK;
}

/* Send message i of the pass. The last one is signalled, so that nothing stays behind. */
static inline int lat_send(struct lat *lat, uint64_t i)
{
    bool signal = i % SIGNAL_EVERY == SIGNAL_EVERY - 1 || i == lat->iters - 1;

    if (signal && lat_reap(lat) != CMD_OK)
        return CMD_FAILED;
    lat->wr.send_flags = lat->plain_flags | (signal ? IBV_SEND_SIGNALED : 0);
    lat->unreaped |= signal;
    return pass_post(lat->qp, &lat->wr);
}

/* What can be done while message i flies. */
static inline int lat_tidy(struct lat *lat, uint64_t i)
{
    return i % SIGNAL_EVERY == SIGNAL_EVERY / 2 ? lat_reap(lat) : CMD_OK;
}

static inline int lat_repost(struct lat *lat)
{
    struct ibv_recv_wr *bad;

    if (ibv_post_recv(lat->qp, &lat->recv, &bad) == 0)
        return CMD_OK;
    complain("ibv_post_recv failed");
    return CMD_FAILED;
}

static inline int lat_receive(struct lat *lat)
{
    struct ibv_wc wc;

    return wait_completions(lat->rig, lat->rig->recv_cq, 1, &wc) < 0 ? CMD_FAILED : CMD_OK;
}

static inline void lat_record(struct lat *lat, uint64_t *last)
{
    uint64_t now = clock_ticks();

    if (lat->pass->hist != NULL)
        hist_add(lat->pass->hist, now - *last);
    *last = now;
}

/* --- by completions: send, or write with immediate --- */

static int message_client(struct lat *lat)
{
    uint64_t last = clock_ticks();

    for (uint64_t i = 0; i < lat->iters; i++) {
        if (lat_send(lat, i) != CMD_OK || (i > 0 && lat_repost(lat) != CMD_OK) ||
            lat_tidy(lat, i) != CMD_OK || lat_receive(lat) != CMD_OK)
            return CMD_FAILED;
        lat_record(lat, &last);
    }
    return lat_repost(lat) == CMD_OK ? lat_reap(lat) : CMD_FAILED;
}

static int message_server(struct lat *lat)
{
    for (uint64_t i = 0; i < lat->iters; i++) {
        if (lat_receive(lat) != CMD_OK || lat_send(lat, i) != CMD_OK || lat_repost(lat) != CMD_OK ||
            lat_tidy(lat, i) != CMD_OK)
            return CMD_FAILED;
    }
    return lat_reap(lat);
}

/* --- by memory: write --- */

/* The last byte of message number n: never 0, and never that of message n - 1. */
static char mark_of(uint64_t n)
{
    return (char)(n % 255 + 1);
}

static int wait_mark(const struct lat *lat, char mark)
{
    const volatile char *byte = lat->rig->recv_part + lat->pass->which.size - 1;

    for (uint64_t idle = 1; *byte != mark; idle++) {
        if (wait_idle(lat->rig, idle) != 0)
            return CMD_FAILED;
    }
    /* The byte is seen: so is what the other side did before it. */
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return CMD_OK;
}

static inline int write_mark(struct lat *lat, uint64_t i, char mark)
{
    lat->rig->send_part[lat->pass->which.size - 1] = mark;
    return lat_send(lat, i);
}

static int memory_client(struct lat *lat)
{
    uint64_t last = clock_ticks();

    for (uint64_t i = 0; i < lat->iters; i++) {
        char mark = mark_of(lat->pass->sequence++);

        if (write_mark(lat, i, mark) != CMD_OK || lat_tidy(lat, i) != CMD_OK ||
            wait_mark(lat, mark) != CMD_OK)
            return CMD_FAILED;
        lat_record(lat, &last);
    }
    return lat_reap(lat);
}

static int memory_server(struct lat *lat)
{
    for (uint64_t i = 0; i < lat->iters; i++) {
        char mark = mark_of(lat->pass->sequence++);

        if (wait_mark(lat, mark) != CMD_OK || write_mark(lat, i, mark) != CMD_OK ||
            lat_tidy(lat, i) != CMD_OK)
            return CMD_FAILED;
    }
    return lat_reap(lat);
}

static bool by_memory(const struct pass *pass)
{
    return pass->which.op == OP_WRITE && pass->rig->comp_channel == NULL;
}

int pass_lat_client(struct pass *pass, uint64_t iters)
{
    struct lat lat;

    lat_init(&lat, pass, iters);
    return by_memory(pass) ? memory_client(&lat) : message_client(&lat);
}

int pass_lat_server(struct pass *pass, uint64_t iters)
{
    struct lat lat;

    lat_init(&lat, pass, iters);
    return by_memory(pass) ? memory_server(&lat) : message_server(&lat);
}

/* Reads and atomics: the server takes no part. */
int pass_lat_one_sided(struct pass *pass, uint64_t iters)
{
    struct lat lat;
    struct ibv_wc wc;
    uint64_t last;

    lat_init(&lat, pass, iters);
    lat.wr.send_flags = IBV_SEND_SIGNALED;
    last = clock_ticks();
    for (uint64_t i = 0; i < iters; i++) {
        if (pass_post(lat.qp, &lat.wr) != CMD_OK ||
            wait_completions(lat.rig, lat.rig->send_cq, 1, &wc) < 0)
            return CMD_FAILED;
        lat_record(&lat, &last);
    }
    return CMD_OK;
}
