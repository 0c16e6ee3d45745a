/* SPDX-License-Identifier: MIT */
/* viaduct pingpong: messages to and fro between two processes, checked and timed. */
#include "cmd.h"
#include "host.h"
#include "report.h"
#include "session.h"

#include <stdlib.h>

struct pingpong {
    struct session_options session;
    unsigned ops;
    unsigned apis;
    struct sizes sizes;
    uint64_t iters;
    uint64_t check;
    bool half;
    bool json;
};

#define FIELD(member) offsetof(struct pingpong, member)

static const struct option_def defs[] = {
    {.name = "op",
     .letter = 'o',
     .type = OPTION_SET,
     .offset = FIELD(ops),
     .value = "LIST",
     .words = measure_op_names,
     .help = "send, write, read, atomic or all (send,write,read)"},
    {.name = "api",
     .type = OPTION_SET,
     .offset = FIELD(apis),
     .value = "LIST",
     .words = measure_api_names,
     .help = "verbs, vipl or all (verbs)"},
    {.name = "sizes",
     .letter = 's',
     .type = OPTION_SIZES,
     .offset = FIELD(sizes),
     .value = "BYTES",
     .min = 1,
     .max = 1 << 30,
     .help = "64 or 8:1M:*2 (8:32K:*64)"},
    {.name = "iters",
     .letter = 'n',
     .type = OPTION_COUNT,
     .offset = FIELD(iters),
     .value = "N",
     .min = 1,
     .max = 1000000000,
     .help = "round trips of each line (20000)"},
    {.name = "check",
     .type = OPTION_COUNT,
     .offset = FIELD(check),
     .value = "N",
     .max = 1000000000,
     .help = "messages of each line to compare byte by byte (1000)"},
    SESSION_OPTIONS(struct pingpong, session),
    {.name = "half",
     .type = OPTION_FLAG,
     .offset = FIELD(half),
     .help = "show one way: half the round trip"},
    {.name = "json", .type = OPTION_FLAG, .offset = FIELD(json), .help = "one JSON document"},
    {0},
};

static const struct option_set set = {
    .usage = "[OPTIONS] [server | client HOST]",
    .intro = "Send messages to and fro, compare every byte, then time the round trips.\n"
             "Without an operand both sides start here, as two processes on two CPUs.",
    .defs = defs,
    .more = "The server needs no options but its own --device, --gid, --port and --cpus.",
};

struct results {
    struct table table;
    json_t *array;
    uint64_t compared;
};

static int one_line(const struct pingpong *opts, struct session *session, enum measure_op op,
                    enum measure_api api, size_t size, struct results *results)
{
    struct measure_case which = {
        .test = TEST_LAT, .op = op, .api = api, .size = size, .batch = 1, .iters = opts->iters};
    struct measure_result result;
    unsigned rounds = session_check_rounds(opts->check, size);
    int code = session_check(session, api, op, size, rounds);

    if (code == CMD_OK)
        code = session_measure(session, &which, &result);
    if (code != CMD_OK)
        return code;
    results->compared += (uint64_t)rounds * (op == OP_SEND || op == OP_WRITE ? 2 : 1);
    report_lat_row(&results->table, &result, opts->half);
    json_array_append_new(results->array, report_json(&result, &session->rig.config, opts->half));
    return CMD_OK;
}

/* One for each interface that has the operation, so that they stand beside each other. */
static int both_lines(const struct pingpong *opts, struct session *session, enum measure_op op,
                      size_t size, struct results *results)
{
    int code = CMD_OK;

    for (unsigned api = 0; api < API_COUNT && code == CMD_OK; api++) {
        if ((opts->apis & 1u << api) && measure_api_has((enum measure_api)api, op))
            code = one_line(opts, session, op, (enum measure_api)api, size, results);
    }
    return code;
}

static int all_lines(const struct pingpong *opts, struct session *session, struct results *results)
{
    int code = CMD_OK;

    for (unsigned op = 0; op < OP_COUNT; op++) {
        uint64_t size = op == OP_ATOMIC ? sizeof(uint64_t) : opts->sizes.from;

        if (!(opts->ops & 1u << op))
            continue;
        for (; size != 0 && code == CMD_OK; size = sizes_next(&opts->sizes, size)) {
            code = both_lines(opts, session, (enum measure_op)op, size, results);
            if (op == OP_ATOMIC)
                break;
        }
    }
    return code;
}

static void print_text(const struct session *session, const struct pingpong *opts,
                       const struct results *results, int argc, char **argv)
{
    host_print(argc, argv);
    device_print(&session->rig.device);
    session_print(session);
    report_print_times(opts->half);
    printf("# check    %llu messages compared byte by byte: all right\n",
           (unsigned long long)results->compared);
    table_print(&results->table, stdout);
}

static int print_json(const struct session *session, const struct pingpong *opts,
                      const struct results *results, int argc, char **argv)
{
    return report_document(
        json_pack("{s:s, s:o, s:o, s:o, s:o, s:I, s:O}", "schema", "viaduct.pingpong/1", "host",
                  host_json(argc, argv), "device", device_json(&session->rig.device), "sides",
                  session_json(session), "options", options_json(&set, opts), "messages_compared",
                  (json_int_t)results->compared, "results", results->array));
}

static int client(const struct pingpong *opts, const char *host, int argc, char **argv)
{
    struct rig_config config = {
        .device = opts->session.device,
        .gid_index = opts->session.gid == UINT64_MAX ? -1 : (int)opts->session.gid,
        .qps = 1,
        .depth = 128,
        .recv_depth = 128,
        .message_bytes = opts->sizes.to < 8 ? 8 : opts->sizes.to,
        .inline_bytes = 64,
        .events = opts->session.events,
    };
    struct results results = {.array = json_array()};
    struct session session;
    int code = session_open(&opts->session, &config, host, &session);

    report_lat_table(&results.table);
    if (code == CMD_OK) {
        code = all_lines(opts, &session, &results);
        if (code == CMD_OK && opts->json)
            code = print_json(&session, opts, &results, argc, argv);
        else if (code == CMD_OK)
            print_text(&session, opts, &results, argc, argv);
        code = session_close(&session, code);
    }
    table_free(&results.table);
    json_decref(results.array);
    return code;
}

int pingpong_main(int argc, char **argv)
{
    struct pingpong opts = {
        .session = SESSION_DEFAULTS,
        .ops = 1u << OP_SEND | 1u << OP_WRITE | 1u << OP_READ,
        .apis = 1u << API_VERBS,
        .sizes = {.from = 8, .to = 32 << 10, .factor = 64},
        .iters = 20000,
        .check = 1000,
    };
    enum session_role role;
    const char *host;
    int first = 0;
    enum options_result parsed = options_parse(&set, argc, argv, &opts, &first);
    int code;

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? CMD_OK : CMD_USAGE;
    code = session_role(argc, argv, first, &role, &host);
    if (code != CMD_OK)
        return code;
    return role == ROLE_SERVER ? session_serve(&opts.session) : client(&opts, host, argc, argv);
}
