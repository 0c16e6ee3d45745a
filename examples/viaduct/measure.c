/* SPDX-License-Identifier: MIT */
/* How a case is run: passes, warm-up, time and results. The loops are in lat.c and flow.c. */
#include "measure.h"

#include "channel.h"
#include "clock.h"
#include "cmd.h"
#include "pass.h"

#include <stdlib.h>
#include <string.h>

/* A pass by time lasts about this long, so that its ends do not count. */
#define PASS_NS 1e8
#define PASS_ITERS_MIN 16
#define PASS_ITERS_MAX (UINT64_C(1) << 26)

const char *const measure_test_names[] = {"lat", "bw", "rate", NULL};
const char *const measure_op_names[] = {"send", "write", "read", "atomic", NULL};
const char *const measure_api_names[] = {"verbs", "vipl", NULL};

const char *measure_case_name(const struct measure_case *which)
{
    static const char *const vipl_names[] = {"vipl send", "vipl write", "vipl read", "none"};
    static const char *const single_names[] = {"single send", "single write", "single read",
                                               "single atomic"};

    if (which->api == API_VIPL)
        return vipl_names[which->op];
    return which->single ? single_names[which->op] : measure_op_names[which->op];
}

bool measure_api_has(enum measure_api api, enum measure_op op)
{
    return api == API_VERBS || op != OP_ATOMIC;
}

static int gone(int error)
{
    complain("the other side is gone: %s", strerror(-error));
    return CMD_FAILED;
}

int measure_prepare(struct rig *rig)
{
    struct pass pass = {.rig = rig};
    int code = CMD_OK;

    for (unsigned i = 0; i < rig->config.qps && code == CMD_OK; i++)
        code = pass_post_recvs(&pass, i, rig->config.recv_depth);
    return code;
}

/* Which loop belongs to a case. Reads and atomics leave the server nothing to do. */
static pass_fn *pass_of(const struct measure_case *which, bool client)
{
    bool one_sided = which->op == OP_READ || which->op == OP_ATOMIC;

    if (which->test == TEST_LAT) {
        if (one_sided)
            return client ? pass_lat_one_sided : pass_nothing;
        return client ? pass_lat_client : pass_lat_server;
    }
    if (client)
        return pass_flow_client;
    return which->op == OP_SEND ? pass_flow_server : pass_nothing;
}

int pass_nothing(struct pass *pass, uint64_t iters)
{
    (void)pass;
    (void)iters;
    return CMD_OK;
}

static int pass_begin(struct pass *pass, struct rig *rig, const struct measure_case *which)
{
    int error;

    memset(pass, 0, sizeof(*pass));
    pass->rig = rig;
    pass->which = *which;
    memset(rig->recv_part, 0, which->size);
    pass->queues = calloc(rig->config.qps, sizeof(*pass->queues));
    if (pass->queues == NULL) {
        complain("no memory for %u queue pairs", rig->config.qps);
        return CMD_FAILED;
    }
    error = channel_sync(rig->channel);
    return error == 0 ? CMD_OK : gone(error);
}

int measure_passes_server(struct pass *pass, pass_fn *run)
{
    int channel = pass->rig->channel;
    int code = CMD_OK;
    uint64_t iters;
    int error;

    while (code == CMD_OK) {
        error = channel_get_number(channel, &iters);
        if (error != 0)
            return gone(error);
        if (iters == 0)
            break;
        error = channel_put_number(channel, iters);
        code = error == 0 ? run(pass, iters) : gone(error);
    }
    return code;
}

int measure_server(struct rig *rig, const struct measure_case *which)
{
    struct pass pass;
    int code = pass_begin(&pass, rig, which);

    if (code == CMD_OK)
        code = measure_passes_server(&pass, pass_of(which, false));
    free(pass.queues);
    return code;
}

/* One pass at the client, timed from the server's answer on. */
static int client_pass(struct pass *pass, pass_fn *run, uint64_t iters, struct hist *hist,
                       double *ns_out)
{
    uint64_t answer, began;
    int code;
    int error = channel_put_number(pass->rig->channel, iters);

    if (error == 0)
        error = channel_get_number(pass->rig->channel, &answer);
    if (error != 0)
        return gone(error);
    pass->hist = hist;
    began = clock_ns();
    code = run(pass, iters);
    *ns_out = (double)(clock_ns() - began);
    return code;
}

/*
 * Untimed passes, growing until one shows how many messages make a pass by time, or has as many as
 * are asked for.
 */
static int warm_up(struct pass *pass, pass_fn *run, uint64_t *pass_iters_out)
{
    uint64_t iters = PASS_ITERS_MIN;
    double ns = 0, again = 0;
    int code;

    for (;;) {
        code = client_pass(pass, run, iters, NULL, &ns);
        /* Was it long because of the messages, or because somebody else had the processor? */
        if (code == CMD_OK && ns > PASS_NS / 10)
            code = client_pass(pass, run, iters, NULL, &again);
        if (code != CMD_OK)
            return code;
        ns = ns > PASS_NS / 10 && again < ns ? again : ns;
        if (ns > PASS_NS / 10 || iters >= PASS_ITERS_MAX ||
            (pass->which.iters != 0 && iters >= pass->which.iters))
            break;
        iters *= 4;
    }
    iters = (uint64_t)((double)iters * PASS_NS / ns);
    iters = iters < PASS_ITERS_MIN ? PASS_ITERS_MIN : iters;
    *pass_iters_out = iters > PASS_ITERS_MAX ? PASS_ITERS_MAX : iters;
    return CMD_OK;
}

static int timed(struct pass *pass, pass_fn *run, uint64_t pass_iters, struct hist *hist,
                 struct measure_result *result)
{
    uint64_t iters = pass->which.iters != 0 ? pass->which.iters : pass_iters;
    double ns = 0;
    int code;

    do {
        code = client_pass(pass, run, iters, hist, &ns);
        if (code != CMD_OK)
            return code;
        result->count += iters;
        result->seconds += ns / 1e9;
    } while (pass->which.iters == 0 && result->seconds < pass->which.seconds);
    return CMD_OK;
}

static void summarize(const struct hist *hist, struct measure_result *result)
{
    double tick = clock_ns_per_tick();

    result->messages_per_s = (double)result->count / result->seconds;
    result->bytes_per_s = result->messages_per_s * (double)result->which.size;
    if (hist->count == 0)
        return;
    result->min_ns = (double)hist->min * tick;
    result->middle_ns = hist_middle(hist) * tick;
    result->p50_ns = (double)hist_quantile(hist, 0.5) * tick;
    result->p90_ns = (double)hist_quantile(hist, 0.9) * tick;
    result->p99_ns = (double)hist_quantile(hist, 0.99) * tick;
    result->p999_ns = (double)hist_quantile(hist, 0.999) * tick;
    result->max_ns = (double)hist->max * tick;
}

static int client_case(struct pass *pass, pass_fn *run, struct hist *hist,
                       struct measure_result *result)
{
    uint64_t pass_iters;
    int code = warm_up(pass, run, &pass_iters);

    if (code == CMD_OK)
        code = timed(pass, run, pass_iters, hist, result);
    if (code == CMD_OK) {
        int error = channel_put_number(pass->rig->channel, 0);

        code = error == 0 ? CMD_OK : gone(error);
    }
    if (code == CMD_OK)
        summarize(hist, result);
    return code;
}

int measure_passes_client(struct pass *pass, pass_fn *run, struct measure_result *result_out)
{
    struct measure_result result = {.which = pass->which};
    struct hist *hist = malloc(sizeof(*hist));
    int code;

    if (hist == NULL) {
        complain("no memory for a histogram");
        return CMD_FAILED;
    }
    hist_reset(hist);
    clock_ns_per_tick(); /* now, not between two passes */
    code = client_case(pass, run, hist, &result);
    free(hist);
    if (code == CMD_OK)
        *result_out = result;
    return code;
}

int measure_client(struct rig *rig, const struct measure_case *which,
                   struct measure_result *result_out)
{
    struct pass pass;
    int code = pass_begin(&pass, rig, which);

    if (code == CMD_OK)
        code = measure_passes_client(&pass, pass_of(which, true), result_out);
    free(pass.queues);
    return code;
}
