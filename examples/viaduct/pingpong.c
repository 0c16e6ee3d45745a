/* SPDX-License-Identifier: MIT */
/* viaduct pingpong: messages to and fro between two processes, checked and timed. */
#include "cmd.h"
#include "host.h"
#include "report.h"
#include "rows.h"
#include "session.h"

#include <stdlib.h>

struct pingpong {
    struct session_options session;
    unsigned ops;
    unsigned apis;
    struct sizes sizes;
    uint64_t iters;
    uint64_t check;
    uint64_t rounds;
    bool half;
    bool json;
};

static const struct option_def defs[] = {
    ROW_OP(struct pingpong, "send, write, read, atomic or all (send,write,read)"),
    ROW_API(struct pingpong),
    ROW_SIZES(struct pingpong, 1 << 30, "64 or 8:1M:*2 (8:32K:*64)"),
    ROW_ITERS(struct pingpong, "round trips of each line (20000)"),
    ROW_CHECK(struct pingpong, "messages of each line to compare byte by byte (1000)"),
    ROW_ROUNDS(struct pingpong, "verbs and VIPL take turns so often, show medians (5)"),
    ROW_DEVICE(struct pingpong),
    ROW_GID(struct pingpong),
    ROW_PORT(struct pingpong),
    ROW_CPUS(struct pingpong),
    ROW_EVENTS(struct pingpong),
    ROW_ONCE(struct pingpong),
    ROW_HALF(struct pingpong),
    ROW_JSON(struct pingpong),
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
    struct table over; /* what VIPL costs over verbs */
    json_t *array;
    uint64_t compared;
};

static double middle_of(const struct measure_result *result)
{
    bool whole = result->which.op == OP_READ || result->which.op == OP_ATOMIC;

    return whole ? result->middle_ns : result->middle_ns / 2;
}

static int by_middle(const void *a, const void *b)
{
    double x = middle_of(a), y = middle_of(b);

    return (x > y) - (x < y);
}

static int compare(const struct pingpong *opts, struct session *session,
                   const struct measure_case *which, struct results *results)
{
    unsigned rounds = session_check_rounds(opts->check, which->size);

    results->compared += (uint64_t)rounds * (which->op == OP_SEND || which->op == OP_WRITE ? 2 : 1);
    return session_check(session, which->api, which->op, which->size, rounds);
}

static void report(const struct pingpong *opts, const struct session *session,
                   const struct measure_result *verbs, const struct measure_result *result,
                   struct results *results)
{
    json_t *line = report_json(result, &session->rig.config, opts->half);

    report_lat_row(&results->table, result, opts->half);
    if (verbs != NULL) {
        double more = middle_of(result) - middle_of(verbs);

        json_object_set_new(line, "over_verbs_ns", report_real(more));
        table_cell(&results->over, "%s", measure_op_names[result->which.op]);
        table_cell(&results->over, "%zu", result->which.size);
        table_cell(&results->over, "%.1f", middle_of(verbs));
        table_cell(&results->over, "%.1f", middle_of(result));
        table_cell(&results->over, "%+.1f", more);
        table_cell(&results->over, "%.2f", middle_of(result) / middle_of(verbs));
    }
    json_array_append_new(results->array, line);
}

/*
 * One line for each interface that has the operation. Where there are two they take turns, so that
 * what else the machine does meets both alike, and the turn in the middle is shown.
 */
static int one_size(const struct pingpong *opts, struct session *session, enum measure_op op,
                    size_t size, struct results *results)
{
    struct measure_result turns[API_COUNT][MEASURE_ROUNDS_MAX];
    bool beside = opts->apis == MEASURE_ALL_APIS && op != OP_ATOMIC;
    unsigned rounds = beside ? (unsigned)opts->rounds : 1;
    int code = CMD_OK;

    for (unsigned turn = 0; turn < rounds * API_COUNT && code == CMD_OK; turn++) {
        unsigned api = turn % API_COUNT, round = turn / API_COUNT;
        struct measure_case which = {.test = TEST_LAT,
                                     .op = op,
                                     .api = (enum measure_api)api,
                                     .size = size,
                                     .batch = 1,
                                     .iters = opts->iters};

        if (!(opts->apis & 1u << api) || !measure_api_has(which.api, op))
            continue;
        if (round == 0)
            code = compare(opts, session, &which, results);
        if (code == CMD_OK)
            code = session_measure(session, &which, &turns[api][round]);
    }
    for (unsigned api = 0; api < API_COUNT && code == CMD_OK; api++) {
        if (!(opts->apis & 1u << api) || !measure_api_has((enum measure_api)api, op))
            continue;
        qsort(turns[api], rounds, sizeof(turns[api][0]), by_middle);
        report(opts, session, beside && api != API_VERBS ? &turns[API_VERBS][rounds / 2] : NULL,
               &turns[api][rounds / 2], results);
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
            code = one_size(opts, session, (enum measure_op)op, size, results);
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
    if (results->over.rows == 0)
        return;
    printf("# over     what VIPL adds to verbs: the median of %u turns each, alternately\n",
           (unsigned)opts->rounds);
    table_print(&results->over, stdout);
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

static const char *const over_heads[] = {"op",      "size_bytes", "verbs_ns",
                                         "vipl_ns", "more_ns",    "ratio"};

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
    table_init(&results.over, over_heads, sizeof(over_heads) / sizeof(over_heads[0]));
    if (code == CMD_OK) {
        code = all_lines(opts, &session, &results);
        if (code == CMD_OK && opts->json)
            code = print_json(&session, opts, &results, argc, argv);
        else if (code == CMD_OK)
            print_text(&session, opts, &results, argc, argv);
        code = session_close(&session, code);
    }
    table_free(&results.over);
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
        .rounds = 5,
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
