/* SPDX-License-Identifier: MIT */
/* viaduct vibe: the VIA micro-benchmarks, over VIPL. */
#include "vibe.h"

#include "channel.h"
#include "cmd.h"
#include "cores.h"
#include "rows.h"
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
     .help = "parts of the suite, see below (all)"},
    ROW_SIZES(struct vibe_options, 1 << 26, "64 or 8:1M:*2 (16:64K:*16)"),
    ROW_ITERS(struct vibe_options, "messages of each line, instead of a time"),
    ROW_SECONDS(struct vibe_options, "time for each line (0.05)"),
    {.name = "repeat",
     .type = OPTION_COUNT,
     .offset = FIELD(repeat),
     .value = "N",
     .min = 1,
     .max = 10000,
     .help = "of operations without data (50)"},
    ROW_DEVICE(struct vibe_options),
    ROW_PORT(struct vibe_options),
    ROW_CPUS(struct vibe_options),
    ROW_ONCE(struct vibe_options),
    ROW_JSON(struct vibe_options),
    ROW_CSV(struct vibe_options),
    ROW_PLOT(struct vibe_options, "FOLDER", "draw each test there, as vibe-TEST.svg"),
    ROW_QUIET(struct vibe_options),
    {0},
};

static const struct option_set set = {
    .usage = "[OPTIONS] [server | client HOST]",
    .intro = "VIBe: what VIA operations cost, over VIPL. Without an operand both sides start\n"
             "here, as two processes on two CPUs; the client tells the server what to do.",
    .defs = defs,
    .more = "Parts: cost      open, tag, CQ, VI, connect, register, and the reverse of each\n"
            "       base      polling, blocking, handlers: latency, bandwidth, processor\n"
            "       segments  1, 4 and 16 in a descriptor\n"
            "       cq        receives found by way of a completion queue\n"
            "       reuse     100 to 0 % of the messages from the same buffer\n"
            "       vis       1 to 64 VIs, used in turn\n"
            "       rdma      write and read beside send\n"
            "       level     unreliable, reliable delivery, reliable reception\n"
            "       pipeline  1 to 64 messages under way\n"
            "       server    a short question, answers of all sizes\n\n"
            "Example: viaduct vibe -t base,cq -s 4:64K:*4 --plot .",
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
