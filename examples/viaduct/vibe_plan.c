/* SPDX-License-Identifier: MIT */
/* VIBe's second and third part: which variants there are, and measuring them. */
#include "channel.h"
#include "cmd.h"
#include "vibe.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEPTH 64
#define QUESTION_BYTES 16
#define CHECKED 20

const char *const vibe_test_names[] = {"cost", "base",  "segments", "cq",     "reuse", "vis",
                                       "rdma", "level", "pipeline", "server", NULL};

/* What a variant changes: the members of a case that are not 0 here. */
struct variant {
    enum vibe_test test;
    const char *name;
    enum measure_op op;
    unsigned level, vis, segments, depth;
    unsigned misses; /* messages of a hundred that start elsewhere */
    enum vihow how;
    bool cq;
};

static const struct variant variants[] = {
    {.test = VIBE_BASE, .name = "polling"},
    {.test = VIBE_BASE, .name = "blocking", .how = VIHOW_WAIT},
    {.test = VIBE_BASE, .name = "handler", .how = VIHOW_NOTIFY},
    {.test = VIBE_SEGMENTS, .name = "1 segment"},
    {.test = VIBE_SEGMENTS, .name = "4 segments", .segments = 4},
    {.test = VIBE_SEGMENTS, .name = "16 segments", .segments = 16},
    {.test = VIBE_CQ, .name = "no CQ"},
    {.test = VIBE_CQ, .name = "CQ", .cq = true},
    {.test = VIBE_CQ, .name = "CQ, blocking", .cq = true, .how = VIHOW_WAIT},
    {.test = VIBE_REUSE, .name = "100 %"},
    {.test = VIBE_REUSE, .name = "75 %", .misses = 25},
    {.test = VIBE_REUSE, .name = "50 %", .misses = 50},
    {.test = VIBE_REUSE, .name = "25 %", .misses = 75},
    {.test = VIBE_REUSE, .name = "0 %", .misses = 100},
    {.test = VIBE_VIS, .name = "1 VI"},
    {.test = VIBE_VIS, .name = "4 VIs", .vis = 4},
    {.test = VIBE_VIS, .name = "16 VIs", .vis = 16},
    {.test = VIBE_VIS, .name = "64 VIs", .vis = 64},
    {.test = VIBE_RDMA, .name = "send", .op = OP_SEND},
    {.test = VIBE_RDMA, .name = "write", .op = OP_WRITE},
    {.test = VIBE_RDMA, .name = "read", .op = OP_READ},
    {.test = VIBE_LEVEL, .name = "unreliable", .level = VIP_SERVICE_UNRELIABLE},
    {.test = VIBE_LEVEL, .name = "delivery", .level = VIP_SERVICE_RELIABLE_DELIVERY},
    {.test = VIBE_LEVEL, .name = "reception", .level = VIP_SERVICE_RELIABLE_RECEPTION},
    {.test = VIBE_PIPELINE, .name = "1 under way", .depth = 1},
    {.test = VIBE_PIPELINE, .name = "2 under way", .depth = 2},
    {.test = VIBE_PIPELINE, .name = "4 under way", .depth = 4},
    {.test = VIBE_PIPELINE, .name = "16 under way", .depth = 16},
    {.test = VIBE_PIPELINE, .name = "64 under way", .depth = 64},
    {.test = VIBE_SERVER, .name = "polling"},
    {.test = VIBE_SERVER, .name = "blocking", .how = VIHOW_WAIT},
};

static struct vicase case_of(const struct vibe_options *opts, const struct variant *v, size_t size)
{
    struct vicase c = {
        .which = {.op = v->op, .size = size, .iters = opts->iters, .seconds = opts->seconds},
        .level = v->level != 0 ? v->level : VIP_SERVICE_RELIABLE_DELIVERY,
        .vis = v->vis != 0 ? v->vis : 1,
        .segments = v->segments != 0 ? v->segments : 1,
        .depth = v->depth != 0 ? v->depth : DEPTH,
        .reuse = 100 - v->misses,
        .how = v->how,
        .cq = v->cq,
        .check = CHECKED,
    };

    if (v->test == VIBE_SERVER) {
        c.which.size = QUESTION_BYTES;
        c.reply = (unsigned)size;
    }
    return c;
}

static int measure(const struct vibe_options *opts, int channel, const struct vicase *which,
                   struct measure_result *result_out, double *cpu_out)
{
    if (channel_put_number(channel, VIBE_CASE) != 0) {
        complain("the other side is gone");
        return CMD_FAILED;
    }
    return vicase_client(channel, opts->session.device, which, result_out, cpu_out);
}

static int measure_line(const struct vibe_options *opts, int channel, const struct variant *v,
                        struct vibe_line *line)
{
    struct vicase c = case_of(opts, v, line->size);
    unsigned depth = c.depth;
    struct measure_result result;

    /* One message at a time needs few descriptors, and few stay in the nearest cache. */
    c.depth = depth < VIRIG_DEPTH_LAT ? depth : VIRIG_DEPTH_LAT;
    int code = measure(opts, channel, &c, &result, &line->lat_cpu);

    if (code != CMD_OK)
        return code;
    line->one_way_ns = v->op == OP_READ ? result.middle_ns : result.middle_ns / 2;
    if (v->test == VIBE_SERVER) {
        line->per_s = 1e9 / result.middle_ns;
        line->one_way_ns = 0;
        return CMD_OK;
    }
    c.which.test = TEST_BW;
    c.depth = depth;
    c.check = 0;
    code = measure(opts, channel, &c, &result, &line->flow_cpu);
    line->bytes_per_s = code == CMD_OK ? result.bytes_per_s : 0;
    return code;
}

static int measure_variant(const struct vibe_options *opts, int channel, const struct variant *v,
                           struct vibe_results *results)
{
    int code = CMD_OK;

    if (!opts->quiet && isatty(STDERR_FILENO))
        fprintf(stderr, "\r%s: %s%20s\r", vibe_test_names[v->test], v->name, "");
    for (uint64_t size = opts->sizes.from; size != 0 && code == CMD_OK;
         size = sizes_next(&opts->sizes, size)) {
        struct vibe_line *line = &results->lines[results->line_count];

        if (results->line_count == VIBE_LINES_MAX)
            break;
        *line = (struct vibe_line){.test = v->test, .size = (size_t)size};
        snprintf(line->variant, sizeof(line->variant), "%s", v->name);
        code = measure_line(opts, channel, v, line);
        results->line_count++;
    }
    return code;
}

int vibe_transfers(const struct vibe_options *opts, int channel, struct vibe_results *results)
{
    int code = CMD_OK;

    for (unsigned i = 0; code == CMD_OK && i < sizeof(variants) / sizeof(variants[0]); i++) {
        if (opts->tests & 1u << variants[i].test)
            code = measure_variant(opts, channel, &variants[i], results);
    }
    return code;
}
