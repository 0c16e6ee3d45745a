/* SPDX-License-Identifier: MIT */
/*
 * How much gets through: a table of operations, message sizes and losses, over a wire of 10 Gb/s
 * and 20 us that holds 64 packets. Virtual time makes it exact, so goodput.txt is what it must be;
 * after a change that is meant, VIADUCT_UPDATE=1 writes the file anew.
 */
#include <stdio.h>
#include <stdlib.h>

#include "sim.h"
#include "t.h"

enum { TOTAL = 8 << 20, DEPTH = 16, SEED = 42 };

static const uint32_t losses[] = {0, 1000, 10000, 20000, 50000, 100000};
static const uint32_t sizes[] = {256, 4096, 65536, 1 << 20};

static const struct {
    const char *name;
    enum transport_op op;
} ops[] = {{"send", TRANSPORT_SEND}, {"write", TRANSPORT_WRITE}, {"read", TRANSPORT_READ}};

enum { LOSSES = sizeof(losses) / sizeof(losses[0]), SIZES = sizeof(sizes) / sizeof(sizes[0]) };

struct flow {
    uint32_t done;
    bool failed;
};

static void on_entry(struct sim_node *node, const struct sim_entry *entry)
{
    struct flow *flow = node->user;

    node->logged = 0;
    if (node->index == 1) {
        sim_recv(node, 0, 0, SIM_MEMORY);
        return;
    }
    flow->done++;
    flow->failed = flow->failed || entry->kind == LOG_FAIL || entry->status;
}

static struct sim *wire(uint32_t loss, struct flow *flow)
{
    struct sim *sim = sim_new(SEED, TRANSPORT_RC);

    sim->faults.loss = loss;
    sim->ns_per_kib = 819;
    sim->queue_max = 64;
    for (unsigned i = 0; i < 2; i++) {
        sim->nodes[i].config.mtu = 4096;
        sim->nodes[i].on_entry = on_entry;
        sim->nodes[i].user = flow;
    }
    for (unsigned i = 0; i < 2 * DEPTH; i++)
        sim_recv(&sim->nodes[1], 0, 0, SIM_MEMORY);
    sim_start(sim);
    return sim;
}

/* MB/s */
static unsigned goodput(enum transport_op op, uint32_t size, uint32_t loss)
{
    struct flow flow = {0};
    struct sim *sim = wire(loss, &flow);
    uint32_t count = (uint32_t)TOTAL / (size < 65536 ? 16 : 1) / size, posted = 0;

    while (flow.done < count && !flow.failed) {
        for (; posted < count && posted - flow.done < DEPTH; posted++) {
            struct transport_wr wr = sim_wr(op, posted, 0, size, 0);

            wr.flags |= TRANSPORT_SIGNALED;
            T_ASSERT(sim_post(&sim->nodes[0], &wr));
        }
        T_ASSERT(sim_step(sim));
    }
    T_ASSERT(!flow.failed, "a request failed at loss %u", loss);
    unsigned rate = (unsigned)((uint64_t)count * size * 1000 / sim->now_ns);
    sim_free(sim);
    return rate;
}

static size_t row(char *to, size_t room, unsigned op, uint32_t size, unsigned rates_out[LOSSES])
{
    int len = snprintf(to, room, "%-6s %8u", ops[op].name, size);

    for (unsigned i = 0; i < LOSSES; i++) {
        rates_out[i] = goodput(ops[op].op, size, losses[i]);
        len += snprintf(to + len, room - (size_t)len, " %7u", rates_out[i]);
    }
    len += snprintf(to + len, room - (size_t)len, "\n");
    return (size_t)len;
}

static size_t head(char *to, size_t room)
{
    int len = snprintf(to, room, "# MB/s, by loss\n# op   %8s", "bytes");

    for (unsigned i = 0; i < LOSSES; i++)
        len += snprintf(to + len, room - (size_t)len, " %6.1f%%", losses[i] / 10000.0);
    len += snprintf(to + len, room - (size_t)len, "\n");
    return (size_t)len;
}

static void compare(const char *table, size_t len)
{
    char expected[8192];
    FILE *file = fopen(SIM_GOODPUT, "r");

    T_ASSERT(file, "no " SIM_GOODPUT);
    size_t got = fread(expected, 1, sizeof(expected), file);
    fclose(file);
    bool same = got == len && !memcmp(expected, table, len);
    if (!same)
        fputs(table, stderr);
    T_ASSERT(same, "the table above differs from goodput.txt");
}

static void update(const char *table, size_t len)
{
    FILE *file = fopen(SIM_GOODPUT, "w");

    T_ASSERT(file && fwrite(table, 1, len, file) == len);
    fclose(file);
}

T_TEST(sim, goodput)
{
    /*
     * Shows that loss costs what the table says: of large messages at most half at one percent,
     * two thirds at five, four fifths at ten.
     */
    char table[8192];
    size_t len = head(table, sizeof(table));

    for (unsigned op = 0; op < sizeof(ops) / sizeof(ops[0]); op++) {
        for (unsigned i = 0; i < SIZES; i++) {
            unsigned rates[LOSSES];

            len += row(table + len, sizeof(table) - len, op, sizes[i], rates);
            if (sizes[i] >= 65536)
                T_CHECK(2 * rates[2] >= rates[0] && 3 * rates[4] >= rates[0] &&
                            5 * rates[5] >= rates[0],
                        "%s of %u", ops[op].name, sizes[i]);
        }
    }
    if (getenv("VIADUCT_UPDATE"))
        update(table, len);
    else
        compare(table, len);
}
