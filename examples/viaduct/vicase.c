/* SPDX-License-Identifier: MIT */
/* A measurement over VIPL: what to do, told over the channel, and the order of doing it. */
#include "vicase.h"

#include "channel.h"
#include "clock.h"
#include "cmd.h"

#include <string.h>
#include <sys/resource.h>

#define LINE_BYTES 256
#define SIZE_MAX_BYTES (1u << 30)

/* --- the line --- */

static int put_case(int channel, const struct vicase *c)
{
    char line[LINE_BYTES];
    int length =
        snprintf(line, sizeof(line), "vipl/1 %u %u %zu %u %u %u %u %u %u %u %u %u",
                 (unsigned)c->which.test, (unsigned)c->which.op, c->which.size, c->level, c->vis,
                 c->segments, c->depth, c->reuse, c->reply, c->how, (unsigned)c->cq, c->check);

    if (channel_put(channel, line, (size_t)length + 1) == 0)
        return CMD_OK;
    complain("the other side is gone");
    return CMD_FAILED;
}

static bool sane(const struct vicase *c, unsigned test, unsigned op)
{
    return test < TEST_COUNT && op <= OP_READ && c->which.size >= 1 &&
           c->which.size <= SIZE_MAX_BYTES && c->reply <= SIZE_MAX_BYTES && c->vis >= 1 &&
           c->vis <= VIRIG_VIS_MAX && c->segments >= 1 && c->segments <= VIRIG_SEGMENTS_MAX &&
           c->depth >= 1 && c->depth <= VIRIG_DEPTH_MAX && c->reuse <= 100 &&
           c->how < VIHOW_COUNT &&
           (c->level == VIP_SERVICE_UNRELIABLE || c->level == VIP_SERVICE_RELIABLE_DELIVERY ||
            c->level == VIP_SERVICE_RELIABLE_RECEPTION);
}

static int get_case(int channel, struct vicase *case_out)
{
    char line[LINE_BYTES] = "";
    struct vicase c = {0};
    unsigned test = 0, op = 0, cq = 0;
    size_t length;
    int error = channel_get(channel, line, sizeof(line) - 1, &length);

    if (error != 0 ||
        sscanf(line, "vipl/1 %u %u %zu %u %u %u %u %u %u %u %u %u", &test, &op, &c.which.size,
               &c.level, &c.vis, &c.segments, &c.depth, &c.reuse, &c.reply, &c.how, &cq,
               &c.check) != 12 ||
        !sane(&c, test, op)) {
        complain("the client is gone, or asks for something that makes no sense");
        return CMD_FAILED;
    }
    c.which.test = (enum measure_test)test;
    c.which.op = (enum measure_op)op;
    c.cq = cq != 0;
    *case_out = c;
    return CMD_OK;
}

/* --- comparing --- */

static char pattern(uint64_t n, size_t i)
{
    return (char)(n * 131 + i * 7 + (i >> 8));
}

static int compare(const struct virig *rig, const char *at, size_t size, uint64_t n)
{
    for (size_t i = 0; i < size; i++) {
        if (at[i] != pattern(n, i)) {
            complain("wrong data: vipl %s of %zu bytes, message %u, byte %zu",
                     measure_op_names[rig->which.which.op], size, (unsigned)n, i);
            return CMD_FAILED;
        }
    }
    return CMD_OK;
}

static size_t size_of(const struct virig *rig, bool from_client)
{
    return !from_client && rig->which.reply != 0 ? rig->which.reply : rig->which.which.size;
}

/* Reads are checked by reading what was written. */
static int say(struct virig *rig, const struct rig *watch, struct virig_vi *vi, bool client,
               uint64_t n)
{
    bool send = rig->which.which.op == OP_SEND;
    VIP_UINT16 control = send ? 0 : VIP_CONTROL_OP_RDMAWRITE | VIP_CONTROL_IMMEDIATE;
    size_t size = size_of(rig, client);
    char *buffer = virig_next_buffer(rig);

    for (size_t i = 0; i < size; i++)
        buffer[i] = pattern(n, i);
    if (virig_post_send(rig, vi, control, 0, size) != CMD_OK)
        return CMD_FAILED;
    return virig_reap(rig, watch, vi, 0);
}

static int hear(struct virig *rig, const struct rig *watch, struct virig_vi *vi, bool client,
                uint64_t n)
{
    VIP_DESCRIPTOR *d;

    if (virig_take(rig, watch, vi, true, &d) != CMD_OK ||
        compare(rig, rig->receive_part, size_of(rig, !client), n) != CMD_OK)
        return CMD_FAILED;
    return virig_post_receive(rig, vi, d);
}

static int read_back(struct virig *rig, const struct rig *watch, struct virig_vi *vi, uint64_t n)
{
    char *buffer = virig_next_buffer(rig);
    size_t size = rig->which.which.size;

    memset(buffer, 0, size);
    if (virig_post_send(rig, vi, VIP_CONTROL_OP_RDMAREAD, 0, size) != CMD_OK ||
        virig_reap(rig, watch, vi, 0) != CMD_OK)
        return CMD_FAILED;
    return compare(rig, buffer, size, n);
}

/* The VIs take turns, and each has two turns at least: the first message of a VI costs more. */
int vicheck_run(struct virig *rig, const struct rig *watch, bool client)
{
    unsigned rounds = rig->which.check, each = 2 * rig->which.vis;
    int code = CMD_OK;

    for (uint64_t n = 0; code == CMD_OK && n < (rounds > each ? rounds : each); n++) {
        struct virig_vi *vi = &rig->vis[n % rig->which.vis];

        code = client ? say(rig, watch, vi, client, n) : hear(rig, watch, vi, client, n);
        if (code == CMD_OK)
            code = client ? hear(rig, watch, vi, client, ~n) : say(rig, watch, vi, client, ~n);
        if (code == CMD_OK && client && rig->which.which.op == OP_READ)
            code = read_back(rig, watch, vi, n);
    }
    return code;
}

/* --- both sides --- */

static pass_fn *pass_of(const struct measure_case *which, bool client)
{
    if (which->test == TEST_LAT && which->op == OP_READ)
        return client ? vilat_one_sided : pass_nothing;
    if (which->test == TEST_LAT)
        return client ? vilat_client : vilat_server;
    if (client)
        return viflow_client;
    return which->op == OP_SEND ? viflow_server : pass_nothing;
}

/* Between the two meetings nobody looks at what has been received, so that it can be cleared. */
static int begin(struct virig *rig, const struct rig *watch, bool client)
{
    int code = vicheck_run(rig, watch, client);
    int error = code == CMD_OK ? channel_sync(watch->channel) : 0;

    memset(rig->receive_part, 0, rig->part_bytes);
    if (code == CMD_OK && error == 0)
        error = channel_sync(watch->channel);
    if (error == 0)
        return code;
    complain("the other side is gone");
    return CMD_FAILED;
}

static int open_both(struct virig *rig, const char *device, const struct vicase *which,
                     const struct rig *watch, bool client)
{
    int code = virig_open(rig, device, which);

    if (code != CMD_OK)
        return code;
    code = virig_connect(rig, watch->channel, client);
    if (code == CMD_OK)
        code = begin(rig, watch, client);
    if (code != CMD_OK)
        virig_close(rig);
    return code;
}

/* Who closes breaks the connections: not before the other side has taken all that came. */
static int end(struct virig *rig, int channel, int code)
{
    if (code == CMD_OK && channel_sync(channel) != 0) {
        complain("the other side is gone");
        code = CMD_FAILED;
    }
    virig_close(rig);
    return code;
}

static double cpu_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

int vicase_client(int channel, const char *device, const struct vicase *which,
                  struct measure_result *result_out, double *cpu_out)
{
    struct rig watch = {.channel = channel};
    struct virig rig;
    struct pass pass = {.rig = &watch, .which = which->which, .virig = &rig};
    double cpu;
    uint64_t began;
    int code = put_case(channel, which);

    if (code == CMD_OK)
        code = open_both(&rig, device, which, &watch, true);
    if (code != CMD_OK)
        return code;
    cpu = cpu_seconds();
    began = clock_ns();
    code = measure_passes_client(&pass, pass_of(&which->which, true), result_out);
    *cpu_out = (cpu_seconds() - cpu) / ((double)(clock_ns() - began) / 1e9);
    return end(&rig, channel, code);
}

int vicase_server(int channel, const char *device)
{
    struct rig watch = {.channel = channel};
    struct virig rig;
    struct vicase which;
    struct pass pass = {.rig = &watch, .virig = &rig};
    int code = get_case(channel, &which);

    if (code == CMD_OK)
        code = open_both(&rig, device, &which, &watch, false);
    if (code != CMD_OK)
        return code;
    pass.which = which.which;
    code = measure_passes_server(&pass, pass_of(&which.which, false));
    return end(&rig, channel, code);
}
