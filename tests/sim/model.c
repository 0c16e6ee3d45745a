/* SPDX-License-Identifier: MIT */
/* Random work against a reference: see model.h. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SOURCE = 0,
    TARGET = 64 << 10,
    AREA = 64 << 10,
    RECV = 128 << 10,
    SINK = 640 << 10,
    SLOT = 8 << 10,
    RECV_SLOTS = 64,
    SINK_SLOTS = 40,
    DEPTH = 32, /* requests under way */
    WRITE_MAX = 24 << 10,
};

/* A request, as the reference sees it. */
struct expected {
    enum transport_op op;
    uint32_t source, length, imm;
    uint32_t target; /* in the peer's target area */
    uint32_t sink;
    bool arrives;
    uint8_t result[SLOT]; /* what a READ or atomic must bring */
};

/* One direction: what the node of the same number asks of the other. */
struct direction {
    struct sim_node *node, *peer;
    uint8_t target[AREA]; /* what the peer's target area holds when all is done */
    struct expected expected[DEPTH];
    uint32_t posted, completed, count;
    uint32_t arrivals[DEPTH]; /* requests that arrive, by order; a ring */
    uint32_t arrival_tail, arrival_head;
    uint32_t recvs_posted, recvs_done; /* the node's own receives */
    uint32_t sinks;
    char error[200];
    struct direction *other;
};

static void wrong(struct direction *d, const char *what, uint64_t cookie, unsigned value)
{
    if (!d->error[0])
        snprintf(d->error, sizeof(d->error), "node %u, request %llu: %s (%u)", d->node->index,
                 (unsigned long long)cookie, what, value);
}

static struct expected *expected_at(struct direction *d, uint64_t cookie)
{
    return &d->expected[cookie % DEPTH];
}

/* ---- what happens is compared ---- */

static void on_complete(struct direction *d, const struct sim_entry *entry)
{
    const struct expected *e = expected_at(d, entry->cookie);
    const uint8_t *sink = d->node->memory + SINK + e->sink;

    if (entry->cookie != d->completed)
        wrong(d, "completed out of order", entry->cookie, d->completed);
    if (entry->status)
        wrong(d, "failed", entry->cookie, entry->status);
    if (e->op == TRANSPORT_READ || e->op == TRANSPORT_FETCH_ADD ||
        e->op == TRANSPORT_COMPARE_SWAP) {
        if (entry->byte_len != e->length)
            wrong(d, "wrong length of answer", entry->cookie, entry->byte_len);
        if (memcmp(sink, e->result, e->length))
            wrong(d, "wrong answer", entry->cookie, e->op);
    }
    d->completed++;
}

/* What arrived at this node was asked by the other one. */
static void on_arrival(struct direction *own, const struct sim_entry *entry)
{
    struct direction *d = own->other;
    uint32_t request = d->arrivals[d->arrival_head % DEPTH];
    const struct expected *e = expected_at(d, request);

    own->recvs_done++;
    if (d->arrival_head++ == d->arrival_tail) {
        wrong(d, "arrived, but was not sent", entry->cookie, entry->byte_len);
        return;
    }
    if (entry->status || entry->byte_len != e->length)
        wrong(d, "arrived with another length", request, entry->byte_len);
    bool immediate = e->op == TRANSPORT_SEND_IMM || e->op == TRANSPORT_WRITE_IMM;
    if (immediate != !!(entry->flags & ARRIVAL_IMM) || (immediate && entry->imm != e->imm))
        wrong(d, "wrong immediate", request, entry->imm);
    bool write = e->op == TRANSPORT_WRITE_IMM;
    if (write != !!(entry->flags & ARRIVAL_WRITE))
        wrong(d, "wrong kind", request, entry->flags);
    if (!write && memcmp(own->node->memory + RECV + entry->cookie * SLOT,
                         d->node->memory + SOURCE + e->source, e->length))
        wrong(d, "wrong data", request, e->length);
}

static void on_entry(struct sim_node *node, const struct sim_entry *entry)
{
    struct direction *d = node->user;

    node->logged = 0;
    if (entry->kind == LOG_FAIL)
        wrong(d, "queue pair failed", 0, entry->failure);
    else if (entry->kind == LOG_SEND)
        on_complete(d, entry);
    else
        on_arrival(d, entry);
}

/* ---- random requests ---- */

static uint32_t random_length(struct sim *sim, uint32_t most)
{
    switch (sim_below(sim, 4)) {
    case 0:
        return (uint32_t)sim_below(sim, 64);
    case 1:
        return (uint32_t)sim_below(sim, most / 256 + 1) * 256;
    default:
        return (uint32_t)sim_below(sim, most + 1);
    }
}

/* A READ that is not over must not see what is posted after it. */
static bool touches_read(struct direction *d, uint32_t at, uint32_t length)
{
    for (uint32_t i = d->completed; i != d->posted; i++) {
        const struct expected *e = expected_at(d, i);

        if (e->op == TRANSPORT_READ && at < e->target + e->length && e->target < at + length)
            return true;
    }
    return false;
}

static void model_atomic(struct direction *d, struct expected *e, struct transport_wr *wr)
{
    uint64_t value;

    memcpy(&value, d->target + e->target, sizeof(value));
    memcpy(e->result, &value, sizeof(value));
    if (e->op == TRANSPORT_FETCH_ADD)
        value += wr->swap_add;
    else if (value == wr->compare)
        value = wr->swap_add;
    memcpy(d->target + e->target, &value, sizeof(value));
}

static void choose_fetch(struct direction *d, struct expected *e, struct transport_wr *wr)
{
    struct sim *sim = d->node->sim;

    e->sink = d->sinks++ % SINK_SLOTS * SLOT;
    if (e->op == TRANSPORT_READ) {
        e->length = random_length(sim, SLOT);
        e->target = (uint32_t)sim_below(sim, AREA - e->length);
        memcpy(e->result, d->target + e->target, e->length);
        return;
    }
    e->length = sizeof(uint64_t);
    e->target = (uint32_t)sim_below(sim, 64) * 8;
    wr->swap_add = sim_random(sim);
    memcpy(&wr->compare, d->target + e->target, sizeof(wr->compare));
    wr->compare += sim_below(sim, 2);
    if (touches_read(d, e->target, e->length))
        wr->flags |= TRANSPORT_FENCE;
    model_atomic(d, e, wr);
}

static void choose_message(struct direction *d, struct expected *e, struct transport_wr *wr)
{
    struct sim *sim = d->node->sim;
    bool write = e->op == TRANSPORT_WRITE || e->op == TRANSPORT_WRITE_IMM;

    e->length = random_length(sim, write ? WRITE_MAX : SLOT);
    e->source = (uint32_t)sim_below(sim, AREA - e->length);
    e->imm = (uint32_t)sim_random(sim);
    e->arrives = e->op != TRANSPORT_WRITE;
    wr->imm = e->imm;
    if (!write)
        return;
    e->target = (uint32_t)sim_below(sim, AREA - e->length);
    if (touches_read(d, e->target, e->length))
        wr->flags |= TRANSPORT_FENCE;
    memcpy(d->target + e->target, d->node->memory + SOURCE + e->source, e->length);
}

/* One to four elements of [at, at + length). */
static uint32_t split(struct sim *sim, uint32_t at, uint32_t length, struct transport_sge *sges)
{
    uint32_t count = 0;

    while (count < 3 && sim_below(sim, 3)) {
        uint32_t part = (uint32_t)sim_below(sim, length + 1);

        sges[count++] = (struct transport_sge){at, part, SIM_KEY_LOCAL};
        at += part;
        length -= part;
    }
    sges[count++] = (struct transport_sge){at, length, SIM_KEY_LOCAL};
    return count;
}

static void make_inline(struct direction *d, const struct expected *e, struct transport_wr *wr,
                        struct transport_sge *sges)
{
    if (e->length > d->node->config.max_inline || sim_below(d->node->sim, 2))
        return;
    wr->flags |= TRANSPORT_INLINE;
    for (uint32_t i = 0; i < wr->sge_count; i++)
        sges[i].addr += (uintptr_t)d->node->memory;
}

static void post_one(struct direction *d)
{
    static const enum transport_op ops[] = {
        TRANSPORT_SEND,         TRANSPORT_SEND,      TRANSPORT_SEND_IMM, TRANSPORT_WRITE,
        TRANSPORT_WRITE,        TRANSPORT_WRITE_IMM, TRANSPORT_READ,     TRANSPORT_READ,
        TRANSPORT_COMPARE_SWAP, TRANSPORT_FETCH_ADD,
    };
    struct sim *sim = d->node->sim;
    struct expected *e = expected_at(d, d->posted);
    struct transport_sge sges[4];
    struct transport_wr wr = {
        .cookie = d->posted, .rkey = SIM_KEY_REMOTE, .xrc_srqn = SIM_XRC_SRQN, .sges = sges};

    *e = (struct expected){.op = ops[sim_below(sim, sizeof(ops) / sizeof(ops[0]))]};
    wr.op = e->op;
    wr.flags = sim_below(sim, 16) ? 0 : TRANSPORT_FENCE;
    bool fetch = e->op >= TRANSPORT_READ;
    if (fetch)
        choose_fetch(d, e, &wr);
    else
        choose_message(d, e, &wr);
    wr.remote_addr = TARGET + e->target;
    wr.sge_count = split(sim, fetch ? SINK + e->sink : SOURCE + e->source, e->length, sges);
    if (!fetch)
        make_inline(d, e, &wr, sges);
    if (e->arrives)
        d->arrivals[d->arrival_tail++ % DEPTH] = d->posted;
    if (!sim_post(d->node, &wr))
        wrong(d, "not taken", d->posted, 0);
    d->posted++;
}

/* ---- the run ---- */

static void post_some(struct direction *d)
{
    struct sim *sim = d->node->sim;

    for (uint64_t n = sim_below(sim, 5); n && d->posted < d->count; n--) {
        if (d->posted - d->completed >= DEPTH || d->arrival_tail - d->arrival_head >= DEPTH)
            return;
        post_one(d);
    }
}

/* Receives are posted late and in fits, so that senders run out of credits and into RNR. */
static void post_receives(struct direction *d)
{
    struct sim *sim = d->node->sim;

    if (sim_below(sim, 4))
        return;
    for (uint64_t n = sim_below(sim, 6); n; n--) {
        if (d->recvs_posted - d->recvs_done >= RECV_SLOTS - 1)
            return;
        uint32_t slot = d->recvs_posted++ % RECV_SLOTS;

        sim_recv(d->node, slot, RECV + slot * SLOT, SLOT);
    }
}

static void prepare(struct sim *sim, struct direction *d, struct direction *other, unsigned index,
                    unsigned count)
{
    d->node = &sim->nodes[index];
    d->peer = &sim->nodes[!index];
    d->other = other;
    d->count = count;
    d->node->user = d;
    d->node->on_entry = on_entry;
    for (uint32_t i = 0; i < AREA; i += 8) {
        uint64_t value = sim_random(sim);

        memcpy(d->node->memory + SOURCE + i, &value, sizeof(value));
        memcpy(d->peer->memory + TARGET + i, &value, sizeof(value));
        memcpy(d->target + i, &value, sizeof(value));
    }
}

static bool is_done(const struct direction *d)
{
    return d->completed == d->count || d->error[0];
}

static void run(struct sim *sim, struct direction *both, uint64_t limit_ns)
{
    uint64_t until = sim->now_ns + limit_ns;

    while (sim->now_ns < until && !(is_done(&both[0]) && is_done(&both[1]))) {
        for (unsigned i = 0; i < 2; i++) {
            post_some(&both[i]);
            post_receives(&both[i]);
        }
        if (!sim_step(sim))
            sim->now_ns += 1000;
    }
    sim_run(sim, limit_ns); /* what is still on its way must change nothing */
}

static const char *verdict(struct direction *d)
{
    static char text[300];

    if (!d->error[0] && d->completed != d->count)
        wrong(d, "not over in time", d->completed, d->count);
    if (!d->error[0] && d->arrival_head != d->arrival_tail)
        wrong(d, "never arrived", d->arrival_head, d->arrival_tail);
    if (!d->error[0] && memcmp(d->target, d->peer->memory + TARGET, AREA))
        wrong(d, "memory differs at the end", 0, 0);
    if (!d->error[0])
        return NULL;
    snprintf(text, sizeof(text), "%s", d->error);
    return text;
}

const char *model_run(struct sim *sim, unsigned count, uint64_t limit_ns)
{
    struct direction *both = calloc(2, sizeof(*both));

    if (!both)
        abort();
    prepare(sim, &both[0], &both[1], 0, count);
    prepare(sim, &both[1], &both[0], 1, count);
    run(sim, both, limit_ns);
    const char *first = verdict(&both[0]);
    const char *result = first ? first : verdict(&both[1]);
    free(both);
    return result;
}
