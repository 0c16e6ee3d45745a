/* SPDX-License-Identifier: MIT */
/* viaduct bench: latency, bandwidth and message rate, beside what others reach. */
#include "bench.h"

#include "clock.h"
#include "cmd.h"
#include "rows.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIELD(member) offsetof(struct bench_options, member)

static const struct option_def defs[] = {
    {.name = "test",
     .letter = 't',
     .type = OPTION_SET,
     .offset = FIELD(tests),
     .value = "LIST",
     .words = measure_test_names,
     .help = "lat, bw, rate or all (all)"},
    ROW_OP(struct bench_options, "send, write, read, atomic or all (all)"),
    ROW_API(struct bench_options),
    ROW_SIZES(struct bench_options, 1 << 30, "64 or 8:1M:*2 (bw: 1M; others: 8)"),
    ROW_ITERS(struct bench_options, "messages of each line, instead of a time"),
    ROW_SECONDS(struct bench_options, "time for each line (0.3)"),
    {.name = "qps",
     .letter = 'q',
     .type = OPTION_COUNT,
     .offset = FIELD(qps),
     .value = "N",
     .min = 1,
     .max = 65535,
     .help = "queue pairs to share bw and rate (1)"},
    {.name = "depth",
     .type = OPTION_COUNT,
     .offset = FIELD(depth),
     .value = "N",
     .min = 64,
     .max = 32768,
     .help = "messages in flight on a queue pair (128)"},
    {.name = "batch",
     .letter = 'l',
     .type = OPTION_COUNT,
     .offset = FIELD(batch),
     .value = "N",
     .min = 1,
     .max = MEASURE_BATCH_MAX,
     .help = "requests in one post (bw: 1, rate: 16)"},
    {.name = "inline",
     .letter = 'I',
     .type = OPTION_BYTES,
     .offset = FIELD(inline_bytes),
     .value = "BYTES",
     .max = 4096,
     .help = "send up to this size inline (64)"},
    ROW_CHECK(struct bench_options, "messages of each size to compare first (16)"),
    {.name = "against",
     .letter = 'a',
     .type = OPTION_SET,
     .offset = FIELD(against),
     .value = "LIST",
     .words = rival_names,
     .help = "floor, memcpy, ucx, libfabric, udp, iperf3 or all"},
    ROW_ROUNDS(struct bench_options, "take turns so often, show medians (1; beside others: 5)"),
    ROW_DEVICE(struct bench_options),
    ROW_GID(struct bench_options),
    ROW_PORT(struct bench_options),
    ROW_CPUS(struct bench_options),
    ROW_EVENTS(struct bench_options),
    ROW_ONCE(struct bench_options),
    ROW_HALF(struct bench_options),
    ROW_JSON(struct bench_options),
    ROW_CSV(struct bench_options),
    ROW_PLOT(struct bench_options, "FILE.svg", "draw it there, too"),
    ROW_QUIET(struct bench_options),
    {0},
};

static const struct option_set set = {
    .usage = "[OPTIONS] [server | client HOST]",
    .intro = "Measure latency (lat), bandwidth (bw) and message rate (rate). Without an operand\n"
             "both sides start here, as two processes on two CPUs; the client tells the server.",
    .defs = defs,
    .more = "Example: viaduct bench -t lat -o send,write -s 8:4K:*2 -a floor,ucx --plot lat.svg",
};

/* --- the plan --- */

static struct sizes sizes_of(const struct bench_options *opts, enum measure_test test,
                             enum measure_op op)
{
    if (op == OP_ATOMIC)
        return (struct sizes){.from = 8, .to = 8, .factor = 2};
    if (opts->sizes.from != 0)
        return opts->sizes;
    return test == TEST_BW ? (struct sizes){.from = 1 << 20, .to = 1 << 20, .factor = 2}
                           : (struct sizes){.from = 8, .to = 8, .factor = 2};
}

static bool wanted(const struct bench_options *opts, enum measure_test test, enum measure_op op)
{
    return (opts->tests & 1u << test) && (opts->ops & 1u << op) &&
           !(op == OP_ATOMIC && test == TEST_BW);
}

static struct measure_case *add_case(const struct bench_options *opts, enum measure_test test,
                                     enum measure_op op, enum measure_api api, uint64_t size,
                                     struct bench_results *plan)
{
    struct bench_entry *entry = &plan->entries[plan->count++];

    memset(entry, 0, sizeof(*entry));
    entry->result.which = (struct measure_case){
        .test = test,
        .op = op,
        .api = api,
        .size = size,
        .batch = api == API_VIPL     ? 1
                 : opts->batch != 0  ? (unsigned)opts->batch
                 : test == TEST_RATE ? 16
                                     : 1,
        .iters = opts->iters,
        .seconds = opts->seconds,
    };
    return &entry->result.which;
}

/*
 * One for each interface that has the operation, so that they stand beside each other. Beside VIPL
 * the rate of verbs is measured in two ways, for VIPL has no chains, and a completion for each
 * message.
 */
static void add_cases(const struct bench_options *opts, enum measure_test test, enum measure_op op,
                      uint64_t size, struct bench_results *plan)
{
    for (unsigned api = 0; api < API_COUNT; api++) {
        if ((opts->apis & 1u << api) && measure_api_has((enum measure_api)api, op))
            add_case(opts, test, op, (enum measure_api)api, size, plan);
        if (api == API_VERBS && opts->apis == MEASURE_ALL_APIS && test == TEST_RATE &&
            measure_api_has(API_VIPL, op)) {
            struct measure_case *which = add_case(opts, test, op, API_VERBS, size, plan);

            which->batch = 1;
            which->single = true;
        }
    }
}

static unsigned plan_most(const struct bench_options *opts)
{
    unsigned sizes = opts->sizes.from != 0 ? sizes_count(&opts->sizes) : 1;

    return TEST_COUNT * OP_COUNT * (API_COUNT + 1) * sizes;
}

/* One entry for each line of the result, in its order. */
static int make_plan(const struct bench_options *opts, struct bench_results *plan)
{
    plan->count = 0;
    plan->entries = calloc(plan_most(opts), sizeof(*plan->entries));
    for (unsigned i = 0; plan->entries != NULL && i < TEST_COUNT * OP_COUNT; i++) {
        enum measure_test test = i / OP_COUNT;
        enum measure_op op = i % OP_COUNT;
        struct sizes sizes = sizes_of(opts, test, op);

        if (!wanted(opts, test, op))
            continue;
        for (uint64_t size = sizes.from; size != 0; size = sizes_next(&sizes, size))
            add_cases(opts, test, op, size, plan);
    }
    if (plan->count > 0)
        return CMD_OK;
    if (opts->apis == 1u << API_VIPL)
        complain("nothing to do: VIA has no atomics");
    else
        complain("nothing to do: bandwidth of atomics is their rate; use --test rate");
    return CMD_USAGE;
}

static size_t longest(const struct bench_results *plan)
{
    size_t bytes = 8;

    for (unsigned i = 0; i < plan->count; i++) {
        if (plan->entries[i].result.which.size > bytes)
            bytes = plan->entries[i].result.which.size;
    }
    return bytes;
}

/* --- progress on stderr, for runs that last --- */

struct progress {
    bool enabled;
    bool terminal;
    uint64_t began_ns;
    uint64_t shown_ns;
    bool used;
};

static void progress_show(struct progress *progress, const struct bench_results *plan,
                          unsigned index, unsigned round, const char *who)
{
    const struct measure_case *which = &plan->entries[index].result.which;
    uint64_t now = clock_ns();

    /* A terminal's line is rewritten after the first second; a file gets one in ten seconds. */
    if (!progress->enabled || now - progress->began_ns < UINT64_C(1000000000) ||
        (!progress->terminal && now - progress->shown_ns < UINT64_C(10000000000)))
        return;
    progress->used = true;
    progress->shown_ns = now;
    fprintf(stderr, "%s[%u/%u] %s %s %zu bytes, round %u, %s%s", progress->terminal ? "\r" : "",
            index + 1, plan->count, measure_test_names[which->test], measure_case_name(which),
            which->size, round + 1, who, progress->terminal ? "          " : "\n");
    fflush(stderr);
}

static void progress_end(const struct progress *progress)
{
    if (progress->terminal && progress->used)
        fprintf(stderr, "\r%70s\r", "");
}

/* --- measuring --- */

double bench_value(const struct measure_result *r)
{
    bool two_ways = r->which.op == OP_SEND || r->which.op == OP_WRITE;

    if (r->which.test == TEST_LAT)
        return two_ways ? r->middle_ns / 2 : r->middle_ns;
    return r->which.test == TEST_BW ? r->bytes_per_s : r->messages_per_s;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, unsigned count)
{
    if (count == 0)
        return 0;
    qsort(values, count, sizeof(*values), by_value);
    return values[count / 2];
}

static int by_bench_value(const void *a, const void *b)
{
    double x = bench_value(a), y = bench_value(b);

    return (x > y) - (x < y);
}

struct turns {
    struct measure_result own[MEASURE_ROUNDS_MAX];
    double rivals[RIVAL_COUNT][MEASURE_ROUNDS_MAX];
    unsigned rival_count[RIVAL_COUNT]; /* rounds in which it came to its end */
};

/* A rival that fails leaves its place empty; that is no failure of ours. */
static void rival_round(const struct session *session, enum rival rival,
                        const struct measure_case *which, struct turns *turns)
{
    double value;

    if (rival_measure(rival, which, session->client_cpu, session->server_cpu, &value) == CMD_OK)
        turns->rivals[rival][turns->rival_count[rival]++] = value;
    else
        complain("--against: %s is left out of this round of %s %s, %zu bytes", rival_names[rival],
                 measure_test_names[which->test], measure_op_names[which->op], which->size);
}

static int one_round(struct session *session, const struct bench_options *opts,
                     struct bench_results *plan, unsigned index, unsigned round,
                     struct turns *turns, struct progress *progress)
{
    const struct measure_case *which = &plan->entries[index].result.which;
    int code;

    progress_show(progress, plan, index, round, "viaduct");
    code = session_measure(session, which, &turns->own[round]);
    for (unsigned r = 0; r < RIVAL_COUNT && code == CMD_OK; r++) {
        if (!(opts->against & 1u << r) || which->api != API_VERBS || which->single ||
            !rival_plays((enum rival)r, which))
            continue;
        progress_show(progress, plan, index, round, rival_names[r]);
        rival_round(session, (enum rival)r, which, turns);
    }
    return code;
}

static void summarize(struct bench_entry *entry, struct turns *turns, unsigned rounds)
{
    qsort(turns->own, rounds, sizeof(turns->own[0]), by_bench_value);
    entry->result = turns->own[rounds / 2];
    entry->value = bench_value(&entry->result);
    for (unsigned r = 0; r < RIVAL_COUNT; r++)
        entry->rivals[r] = median(turns->rivals[r], turns->rival_count[r]);
}

/* The interfaces' lines of one test, operation and size stand one behind the other, verbs first. */
static unsigned group_size(const struct bench_results *plan, unsigned first)
{
    const struct measure_case *which = &plan->entries[first].result.which;
    unsigned count = 1;

    for (; first + count < plan->count; count++) {
        const struct measure_case *next = &plan->entries[first + count].result.which;

        if ((next->api == API_VERBS && !next->single) || next->test != which->test ||
            next->op != which->op || next->size != which->size)
            break;
    }
    return count;
}

/* Of a group VIPL is the last. */
static void compare(const struct bench_results *plan, unsigned first, unsigned count,
                    struct bench_entry *vipl)
{
    for (unsigned i = first; i < first + count; i++) {
        const struct bench_entry *verbs = &plan->entries[i];

        *(verbs->result.which.single ? &vipl->single : &vipl->verbs) = verbs->value;
    }
}

/* All take turns, so that what else the machine does meets all alike. */
static int measure_group(struct session *session, const struct bench_options *opts,
                         struct bench_results *plan, unsigned first, unsigned count,
                         struct progress *progress)
{
    struct turns *turns = calloc(count, sizeof(*turns));
    unsigned rounds = (unsigned)opts->rounds;
    int code = turns != NULL ? CMD_OK : CMD_FAILED;

    for (unsigned turn = 0; code == CMD_OK && turn < rounds * count; turn++) {
        unsigned i = turn % count;

        code = one_round(session, opts, plan, first + i, turn / count, &turns[i], progress);
    }
    for (unsigned i = 0; code == CMD_OK && i < count; i++) {
        struct bench_entry *entry = &plan->entries[first + i];

        summarize(entry, &turns[i], rounds);
        if (entry->result.which.api == API_VIPL)
            compare(plan, first, i, entry);
    }
    free(turns);
    return code;
}

/* A line's payload is compared the first time its operation meets its size. */
static int check_entry(struct session *session, const struct bench_options *opts,
                       const struct bench_results *plan, unsigned index)
{
    const struct measure_case *which = &plan->entries[index].result.which;

    for (unsigned i = 0; i < index; i++) {
        const struct measure_case *before = &plan->entries[i].result.which;

        if (before->op == which->op && before->api == which->api && before->size == which->size)
            return CMD_OK;
    }
    return session_check(session, which->api, which->op, which->size,
                         session_check_rounds(opts->check, which->size));
}

static int measure_all(struct session *session, const struct bench_options *opts,
                       struct bench_results *plan)
{
    struct progress progress = {
        .enabled = !opts->quiet, .terminal = isatty(STDERR_FILENO), .began_ns = clock_ns()};
    progress.shown_ns = progress.began_ns;
    int code = CMD_OK;

    for (unsigned i = 0, count; i < plan->count && code == CMD_OK; i += count) {
        count = group_size(plan, i);
        for (unsigned k = 0; k < count && code == CMD_OK; k++)
            code = check_entry(session, opts, plan, i + k);
        if (code == CMD_OK)
            code = measure_group(session, opts, plan, i, count, &progress);
    }
    progress_end(&progress);
    return code;
}

/* --- the command --- */

static void drop_missing_rivals(struct bench_options *opts, const char *host)
{
    for (unsigned r = 0; r < RIVAL_COUNT; r++) {
        const char *why = rival_missing((enum rival)r);

        if (!(opts->against & 1u << r) || (why == NULL && host == NULL))
            continue;
        complain("--against: %s does not take part: %s", rival_names[r],
                 why != NULL ? why : "the server is elsewhere");
        opts->against &= ~(1u << r);
    }
}

static struct rig_config config_of(const struct bench_options *opts, size_t message_bytes)
{
    uint64_t recv_depth = 512 / opts->qps;

    return (struct rig_config){
        .device = opts->session.device,
        .gid_index = opts->session.gid == UINT64_MAX ? -1 : (int)opts->session.gid,
        .qps = (unsigned)opts->qps,
        .depth = (unsigned)opts->depth,
        /* Room for the sender to be ahead, or it would be told to wait all the time. */
        .recv_depth = (unsigned)(recv_depth > 2 * opts->depth ? recv_depth : 2 * opts->depth),
        .message_bytes = message_bytes,
        .inline_bytes = (unsigned)opts->inline_bytes,
        .events = opts->session.events,
    };
}

static int client(struct bench_options *opts, const char *host, int argc, char **argv)
{
    struct bench_results plan;
    struct session session;
    int code = make_plan(opts, &plan);

    if (code == CMD_OK) {
        struct rig_config config = config_of(opts, longest(&plan));

        drop_missing_rivals(opts, host);
        code = session_open(&opts->session, &config, host, &session);
    }
    if (code == CMD_OK) {
        code = measure_all(&session, opts, &plan);
        if (code == CMD_OK)
            code = bench_report(opts, &set, &session, &plan, argc, argv);
        code = session_close(&session, code);
    }
    free(plan.entries);
    return code;
}

/* A plot that can't be written is told before minutes are spent. */
static int check_options(const struct bench_options *opts)
{
    const char *end = opts->plot != NULL ? strrchr(opts->plot, '.') : NULL;
    FILE *file;

    if (opts->json && opts->csv) {
        complain("--csv: not together with --json; choose one");
        return CMD_USAGE;
    }
    if (opts->plot == NULL)
        return CMD_OK;
    if (end == NULL || strcmp(end, ".svg") != 0) {
        complain("--plot: '%s' does not end with .svg, and that is what is drawn", opts->plot);
        return CMD_USAGE;
    }
    file = fopen(opts->plot, "ae");
    if (file == NULL) {
        complain("--plot: '%s' can't be written: %m", opts->plot);
        return CMD_USAGE;
    }
    fclose(file);
    return CMD_OK;
}

int bench_main(int argc, char **argv)
{
    struct bench_options opts = {
        .session = SESSION_DEFAULTS,
        .tests = (1u << TEST_COUNT) - 1,
        .ops = (1u << OP_COUNT) - 1,
        .apis = 1u << API_VERBS,
        .seconds = 0.3,
        .qps = 1,
        .depth = 128,
        .inline_bytes = 64,
        .check = 16,
    };
    enum session_role role;
    const char *host;
    int first = 0;
    enum options_result parsed = options_parse(&set, argc, argv, &opts, &first);
    int code;

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? CMD_OK : CMD_USAGE;
    code = session_role(argc, argv, first, &role, &host);
    if (code == CMD_OK)
        code = check_options(&opts);
    if (code != CMD_OK)
        return code;
    if (opts.rounds == 0)
        opts.rounds = opts.against != 0 || opts.apis == MEASURE_ALL_APIS ? 5 : 1;
    return role == ROLE_SERVER ? session_serve(&opts.session) : client(&opts, host, argc, argv);
}
