/* SPDX-License-Identifier: MIT */
/* viaduct vibe: the VIA micro-benchmarks, over VIPL. */
#include "vibe.h"

#include "channel.h"
#include "cmd.h"
#include "cores.h"
#include "serve.h"
#include "sides.h"

#include <stdlib.h>
#include <unistd.h>

#define FIELD(member) offsetof(struct vibe_options, member)

static const struct option_def defs[] = {
    {.name = "test",
     .letter = 't',
     .type = OPTION_SET,
     .offset = FIELD(tests),
     .value = "LIST",
     .words = vibe_test_names,
     .help = "cost,base,segments,cq,reuse,vis,rdma,level,server (all)"},
    {.name = "sizes",
     .letter = 's',
     .type = OPTION_SIZES,
     .offset = FIELD(sizes),
     .value = "BYTES",
     .min = 1,
     .max = 1 << 26,
     .help = "64 or 8:1M:*2 (16:64K:*16)"},
    {.name = "iters",
     .letter = 'n',
     .type = OPTION_COUNT,
     .offset = FIELD(iters),
     .value = "N",
     .min = 1,
     .max = 1000000000,
     .help = "messages of each line, instead of a time"},
    {.name = "seconds",
     .letter = 'D',
     .type = OPTION_SECONDS,
     .offset = FIELD(seconds),
     .value = "S",
     .max = 3600,
     .help = "time for each line (0.05)"},
    {.name = "repeat",
     .type = OPTION_COUNT,
     .offset = FIELD(repeat),
     .value = "N",
     .min = 1,
     .max = 10000,
     .help = "of operations without data (50)"},
    {.name = "device",
     .letter = 'd',
     .type = OPTION_TEXT,
     .value = "NAME",
     .offset = FIELD(session.device),
     .help = "NIC, by the name of its verbs device (via0)"},
    {.name = "port",
     .letter = 'p',
     .type = OPTION_COUNT,
     .value = "PORT",
     .max = 65535,
     .offset = FIELD(session.port),
     .help = "TCP port of the server (18515; 0: any)"},
    {.name = "cpus",
     .type = OPTION_TEXT,
     .value = "C,S",
     .offset = FIELD(session.cpus),
     .help = "CPU of the client, CPU of the server"},
    {.name = "once",
     .type = OPTION_FLAG,
     .offset = FIELD(session.once),
     .help = "server: end after one client"},
    {.name = "json", .type = OPTION_FLAG, .offset = FIELD(json), .help = "one JSON document"},
    {.name = "csv", .type = OPTION_FLAG, .offset = FIELD(csv), .help = "comma-separated values"},
    {.name = "plot",
     .type = OPTION_TEXT,
     .offset = FIELD(plot),
     .value = "FOLDER",
     .help = "draw each test there, as vibe-TEST.svg"},
    {.name = "quiet", .type = OPTION_FLAG, .offset = FIELD(quiet), .help = "no progress on stderr"},
    {0},
};

static const struct option_set set = {
    .usage = "[OPTIONS] [server | client HOST]",
    .intro = "VIBe: what VIA operations cost, over VIPL. Without an operand both sides start\n"
             "here, as two processes on two CPUs; the client tells the server what to do.",
    .defs = defs,
    .more = "Example: viaduct vibe -t base,cq -s 4:64K:*4 --plot .",
};

/* --- the server --- */

static int serve(int channel, const void *options, int cpu)
{
    const struct vibe_options *opts = options;
    uint64_t order = VIBE_END;
    int code = session_pin(cpu);

    while (code == CMD_OK) {
        if (channel_get_number(channel, &order) != 0) {
            complain("the client is gone");
            return CMD_FAILED;
        }
        if (order == VIBE_END)
            return CMD_OK;
        code = order == VIBE_CONNECT ? vibe_serve_connect(channel, opts->session.device)
                                     : vicase_server(channel, opts->session.device);
    }
    return code;
}

/* --- the client --- */

static int end_server(pid_t server, int channel, int code)
{
    if (code == CMD_OK && channel_put_number(channel, VIBE_END) != 0)
        code = CMD_FAILED;
    code = side_end(server, code);
    close(channel);
    return code;
}

static int client(const struct vibe_options *opts, const char *host, const int cpus[2], int argc,
                  char **argv)
{
    struct vibe_results *results = calloc(1, sizeof(*results));
    int channel = -1, code;
    pid_t server = 0;

    if (results == NULL)
        return CMD_FAILED;
    code = host == NULL ? side_start(serve, opts, cpus[1], &channel, &server)
                        : side_reach(host, (uint16_t)opts->session.port, &channel);
    if (code == CMD_OK) {
        code = session_pin(cpus[0]);
        if (code == CMD_OK && (opts->tests & 1u << VIBE_COST))
            code = vibe_costs(opts, channel, results);
        if (code == CMD_OK)
            code = vibe_transfers(opts, channel, results);
        code = end_server(server, channel, code);
    }
    if (code == CMD_OK)
        code = vibe_report(opts, &set, results, argc, argv);
    free(results);
    return code;
}

int vibe_main(int argc, char **argv)
{
    struct vibe_options opts = {
        .session = SESSION_DEFAULTS,
        .tests = (1u << VIBE_COUNT) - 1,
        .sizes = {.from = 16, .to = 64 << 10, .factor = 16},
        .seconds = 0.05,
        .repeat = 50,
    };
    enum session_role role;
    const char *host;
    int first = 0, cpus[2];
    enum options_result parsed = options_parse(&set, argc, argv, &opts, &first);
    int code;

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? CMD_OK : CMD_USAGE;
    if (opts.json && opts.csv) {
        complain("--csv: not together with --json; choose one");
        return CMD_USAGE;
    }
    if (opts.plot != NULL && access(opts.plot, W_OK) != 0) {
        complain("--plot: '%s' is no folder that can be written to: %m", opts.plot);
        return CMD_USAGE;
    }
    code = session_role(argc, argv, first, &role, &host);
    if (code == CMD_OK)
        code = session_cpus(&opts.session, cpus);
    if (code != CMD_OK)
        return code;
    if (role == ROLE_SERVER)
        return side_listen((uint16_t)opts.session.port, opts.session.once, serve, &opts, cpus[1]);
    return client(&opts, host, cpus, argc, argv);
}
