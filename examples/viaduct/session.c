/* SPDX-License-Identifier: MIT */
/* The client's half of a session, and what both halves share. The server's is in serve.c. */
#include "session.h"

#include "channel.h"
#include "cmd.h"
#include "cores.h"
#include "serve.h"
#include "sides.h"
#include "vicase.h"
#include "wait.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int session_role(int argc, char **argv, int first, enum session_role *role_out,
                 const char **host_out)
{
    int words = argc - first;

    *host_out = NULL;
    if (words == 0) {
        *role_out = ROLE_BOTH;
    } else if (strcmp(argv[first], "server") == 0 && words == 1) {
        *role_out = ROLE_SERVER;
    } else if (strcmp(argv[first], "client") == 0 && words == 2) {
        *role_out = ROLE_CLIENT;
        *host_out = argv[first + 1];
    } else if (strcmp(argv[first], "client") == 0 && words == 1) {
        complain("'client' needs the server's host; with no operand both sides start here");
        return CMD_USAGE;
    } else {
        bool known = strcmp(argv[first], "server") == 0 || strcmp(argv[first], "client") == 0;

        complain("'%s' is unexpected; write nothing, 'server' or 'client HOST'",
                 argv[known ? argc - 1 : first]);
        return CMD_USAGE;
    }
    return CMD_OK;
}

static int parse_cpus(const char *text, int cpus[2])
{
    char rest;

    if (sscanf(text, "%d,%d%c", &cpus[0], &cpus[1], &rest) != 2) {
        complain("--cpus: '%s' is not two CPU numbers; write it like 0,1", text);
        return CMD_USAGE;
    }
    for (int i = 0; i < 2; i++) {
        if (!cores_may_use(cpus[i])) {
            complain("--cpus: '%s': CPU %d can't be used here", text, cpus[i]);
            return CMD_USAGE;
        }
    }
    return CMD_OK;
}

/* "C,S", or the best two. */
int session_cpus(const struct session_options *options, int cpus_out[2])
{
    int code = CMD_OK;

    cpus_out[0] = cores_pick(0);
    cpus_out[1] = cores_pick(1);
    if (options->cpus != NULL)
        code = parse_cpus(options->cpus, cpus_out);
    wait_yields = cpus_out[0] == cpus_out[1];
    return code;
}

int session_pin(int cpu)
{
    int error = cores_pin(cpu);

    if (error == 0)
        return CMD_OK;
    complain("CPU %d can't be used: %s", cpu, strerror(-error));
    return CMD_FAILED;
}

static int send_json(int channel, json_t *message)
{
    char *text = json_dumps(message, JSON_COMPACT);
    int error = text != NULL ? channel_put(channel, text, strlen(text)) : -ENOMEM;

    free(text);
    json_decref(message);
    if (error == 0)
        return CMD_OK;
    complain("the other side is gone: %s", strerror(-error));
    return CMD_FAILED;
}

static int greet(struct session *session, const struct rig_config *c)
{
    json_t *hello = json_pack("{s:s, s:I, s:i, s:i, s:i, s:i, s:b}", "protocol", SERVE_PROTOCOL,
                              "message_bytes", (json_int_t)c->message_bytes, "qps", (int)c->qps,
                              "depth", (int)c->depth, "recv_depth", (int)c->recv_depth,
                              "inline_bytes", (int)c->inline_bytes, "events", (int)c->events);

    return send_json(session->channel, hello);
}

static int open_rig(struct session *session, const struct rig_config *config)
{
    int code = rig_open(config, &session->rig);

    if (code != CMD_OK)
        return code;
    /* Threads that the device has started may run anywhere; this one measures. */
    code = session_pin(session->client_cpu);
    if (code == CMD_OK)
        code = greet(session, config);
    if (code == CMD_OK)
        code = rig_connect(&session->rig, session->channel);
    if (code == CMD_OK)
        code = measure_prepare(&session->rig);
    if (code != CMD_OK)
        rig_close(&session->rig);
    return code;
}

static int get_server(struct session *session, const struct session_options *options,
                      const char *host)
{
    if (host == NULL)
        return side_start(serve_client, options, session->server_cpu, &session->channel,
                          &session->server);
    session->server_cpu = -1;
    return side_reach(host, (uint16_t)options->port, &session->channel);
}

int session_open(const struct session_options *options, const struct rig_config *config,
                 const char *host, struct session *session_out)
{
    struct session session = {.channel = -1};
    int cpus[2];
    int code = session_cpus(options, cpus);

    if (code != CMD_OK)
        return code;
    session.client_cpu = cpus[0];
    session.server_cpu = cpus[1];
    code = get_server(&session, options, host);
    if (code != CMD_OK)
        return code;
    code = open_rig(&session, config);
    if (code != CMD_OK) {
        side_end(session.server, code);
        close(session.channel);
        return code;
    }
    *session_out = session;
    return CMD_OK;
}

/* One message at a time needs few descriptors, and few stay in the nearest cache. */
static unsigned vipl_depth(const struct rig_config *config, enum measure_test test)
{
    unsigned most = test == TEST_LAT ? VIRIG_DEPTH_LAT : VIRIG_DEPTH_MAX;

    return config->depth < most ? config->depth : most;
}

/* Over VIPL a case makes its own connections, for checking as for measuring. */
static int vipl_case(struct session *session, const struct measure_case *which, unsigned check,
                     struct measure_result *result_out)
{
    const struct rig_config *config = &session->rig.config;
    struct vicase c = {
        .which = *which,
        .level = VIP_SERVICE_RELIABLE_DELIVERY,
        .vis = which->test == TEST_LAT ? 1 : config->qps,
        .segments = 1,
        .depth = vipl_depth(config, which->test),
        .reuse = 100,
        .how = config->events ? VIHOW_WAIT : VIHOW_POLL,
        .check = check,
    };
    double cpu;
    int code;

    if (c.vis > VIRIG_VIS_MAX) {
        complain("--qps: at most %d with --api vipl", VIRIG_VIS_MAX);
        return CMD_USAGE;
    }
    code = send_json(session->channel, json_pack("{s:s}", "do", "vipl"));
    if (code != CMD_OK)
        return code;
    return vicase_client(session->channel, config->device, &c, result_out, &cpu);
}

int session_measure(struct session *session, const struct measure_case *which,
                    struct measure_result *result_out)
{
    if (which->api == API_VIPL)
        return vipl_case(session, which, 0, result_out);

    json_t *order = json_pack("{s:s, s:s, s:s, s:I, s:i, s:b}", "do", "measure", "test",
                              measure_test_names[which->test], "op", measure_op_names[which->op],
                              "size_bytes", (json_int_t)which->size, "batch", (int)which->batch,
                              "single", (int)which->single);
    int code = send_json(session->channel, order);

    return code != CMD_OK ? code : measure_client(&session->rig, which, result_out);
}

unsigned session_check_rounds(uint64_t wanted, size_t size)
{
    uint64_t most = (UINT64_C(32) << 20) / size + 1;

    return (unsigned)(wanted < most ? wanted : most);
}

int session_check(struct session *session, enum measure_api api, enum measure_op op, size_t size,
                  unsigned rounds)
{
    struct measure_case which = {.op = op, .api = api, .size = size, .iters = 1};
    struct measure_result result;

    if (api == API_VIPL)
        return vipl_case(session, &which, rounds, &result);

    json_t *order = json_pack("{s:s, s:s, s:I, s:i}", "do", "check", "op", measure_op_names[op],
                              "size_bytes", (json_int_t)size, "rounds", (int)rounds);
    int code = send_json(session->channel, order);

    return code != CMD_OK ? code : check_run(&session->rig, true, op, size, rounds);
}

int session_close(struct session *session, int code)
{
    if (code == CMD_OK)
        code = send_json(session->channel, json_pack("{s:s}", "do", "end"));
    code = side_end(session->server, code);
    rig_close(&session->rig);
    close(session->channel);
    return code;
}

void session_print(const struct session *session)
{
    const char *how = session->rig.config.events ? "sleeping until completions come"
                      : wait_yields              ? "polling and yielding (one CPU for both)"
                                                 : "polling";

    printf("# sides    client: process %d on CPU %d; ", (int)getpid(), session->client_cpu);
    if (session->server == 0)
        printf("server elsewhere; %s\n", how);
    else
        printf("server: process %d on CPU %d; both %s\n", (int)session->server, session->server_cpu,
               how);
}

json_t *session_json(const struct session *session)
{
    return json_pack("{s:i, s:i, s:b, s:b}", "client_cpu", session->client_cpu, "server_cpu",
                     session->server_cpu, "events", (int)session->rig.config.events, "yields",
                     (int)wait_yields);
}
