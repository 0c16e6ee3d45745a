/* SPDX-License-Identifier: MIT */
/*
 * All data exactly once and in order, however bad the wire: random requests of every kind in both
 * directions, thousands of seeds. A failure names its seed; VIADUCT_SIM_SEED runs that one alone.
 */
#include <stdlib.h>

#include "model.h"
#include "t.h"

enum { REQUESTS = 60, SEEDS = 400 };

#define LIMIT_NS 60000000000ull

struct wire {
    const char *name;
    struct sim_faults faults;
};

static const struct wire wires[] = {
    {"clean", {0}},
    {"every other lost", {.lose_each = 2}},
    {"every third lost", {.lose_each = 3}},
    {"one in a hundred lost", {.loss = 10000}},
    {"one in ten lost", {.loss = 100000}},
    {"three in ten lost", {.loss = 300000}},
    {"bursts", {.loss = 10000, .burst = 20}},
    {"dark for 20 ms", {.dark_from_ns = 300000, .dark_until_ns = 20300000}},
    {"doubled", {.dup = 200000}},
    {"reordered", {.reorder = 100000}},
    {"corrupt", {.corrupt = 100000}},
    {"congested", {.mark = 100000}},
    {"all at once",
     {.loss = 50000, .dup = 50000, .reorder = 50000, .corrupt = 50000, .mark = 10000}},
};

static void vary(struct sim *sim)
{
    static const uint32_t mtus[] = {256, 512, 1024, 2048, 4096};
    uint32_t mtu = mtus[sim_below(sim, 5)];
    uint8_t atomics = (uint8_t)(1 + sim_below(sim, 16));

    sim->delay_ns = 1000 + sim_below(sim, 100000);
    sim->ns_per_kib = (uint32_t)sim_below(sim, 2000);
    for (unsigned i = 0; i < 2; i++) {
        struct sim_node *node = &sim->nodes[i];

        if (sim_below(sim, 2))
            node->psn = 0xffffff - (uint32_t)sim_below(sim, 64);
        node->config.mtu = mtu;
        node->config.max_rd_atomic = (uint8_t)(1 + sim_below(sim, atomics));
        node->config.max_dest_rd_atomic = atomics;
        node->config.window = (uint32_t)sim_below(sim, 64);
        node->config.timeout = 19; /* two seconds: the tests of it are elsewhere */
        node->config.min_rnr_timer = (uint8_t)(1 + sim_below(sim, 12));
        node->shared_receives = sim_below(sim, 2);
    }
}

static void one_seed(const struct wire *wire, uint64_t seed)
{
    bool xrc = seed / 1000 % 8 == 0; /* the same under another name */
    struct sim *sim = sim_new(seed, xrc ? TRANSPORT_XRC : TRANSPORT_RC);

    vary(sim);
    sim->unreached_ppm = xrc && seed % 2 ? 20000 : 0;
    sim->faults = wire->faults;
    sim_start(sim);
    const char *error = model_run(sim, REQUESTS, LIMIT_NS);
    T_ASSERT(!error, "%s, seed %llu: %s", wire->name, (unsigned long long)seed, error);
    sim_free(sim);
}

static void many(unsigned index)
{
    const char *only = getenv("VIADUCT_SIM_SEED");
    uint64_t first = only ? strtoull(only, NULL, 0) : 1;

    for (uint64_t seed = first; seed < first + (only ? 1 : SEEDS); seed++)
        one_seed(&wires[index], seed * 1000 + index);
}

#define MODEL_TEST(name, index)                                                                    \
    T_TEST(sim, name)                                                                              \
    {                                                                                              \
        many(index);                                                                               \
    }

MODEL_TEST(clean, 0)
MODEL_TEST(every_other_lost, 1)
MODEL_TEST(every_third_lost, 2)
MODEL_TEST(one_percent_lost, 3)
MODEL_TEST(ten_percent_lost, 4)
MODEL_TEST(thirty_percent_lost, 5)
MODEL_TEST(bursts, 6)
MODEL_TEST(blackout, 7)
MODEL_TEST(doubled, 8)
MODEL_TEST(reordered, 9)
MODEL_TEST(corrupt, 10)
MODEL_TEST(congested, 11)
MODEL_TEST(everything, 12)
