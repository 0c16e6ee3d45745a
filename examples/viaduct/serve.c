/* SPDX-License-Identifier: MIT */
/* The server's half of a session: it opens what the client asks for and obeys orders. */
#include "serve.h"

#include "channel.h"
#include "cmd.h"
#include "cores.h"
#include "vicase.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define ORDER_BYTES_MAX 4096
#define HELLO_PATIENCE_S 10
#define MESSAGE_BYTES_MAX (1 << 30)

/* NULL when the client is gone or sends something else. */
static json_t *receive_json(int channel, int *error_out)
{
    char text[ORDER_BYTES_MAX];
    size_t length = 0;
    json_t *message = NULL;

    *error_out = channel_get(channel, text, sizeof(text), &length);
    if (*error_out == 0) {
        message = json_loadb(text, length, 0, NULL);
        *error_out = message != NULL ? 0 : -EPROTO;
    }
    return message;
}

static int refuse(const char *what)
{
    complain("the client sent %s: refused", what);
    return CMD_FAILED;
}

static bool within(json_int_t value, json_int_t low, json_int_t high)
{
    return value >= low && value <= high;
}

static int read_hello(const json_t *hello, const struct session_options *local,
                      struct rig_config *config_out)
{
    json_int_t message_bytes, qps, depth, recv_depth, inline_bytes;
    const char *protocol = "";
    int events;

    if (json_unpack((json_t *)hello, "{s:s, s:I, s:I, s:I, s:I, s:I, s:b}", "protocol", &protocol,
                    "message_bytes", &message_bytes, "qps", &qps, "depth", &depth, "recv_depth",
                    &recv_depth, "inline_bytes", &inline_bytes, "events", &events) != 0 ||
        strcmp(protocol, SERVE_PROTOCOL) != 0)
        return refuse("no hello of " SERVE_PROTOCOL " (is it of another version?)");
    if (!within(message_bytes, 8, MESSAGE_BYTES_MAX) || !within(qps, 1, 65535) ||
        !within(depth, 1, 65535) || !within(recv_depth, 1, 65535) ||
        !within(inline_bytes, 0, 65535))
        return refuse("a hello with numbers out of range");
    *config_out = (struct rig_config){
        .device = local->device,
        .gid_index = local->gid == UINT64_MAX ? -1 : (int)local->gid,
        .message_bytes = (size_t)message_bytes,
        .qps = (unsigned)qps,
        .depth = (unsigned)depth,
        .recv_depth = (unsigned)recv_depth,
        .inline_bytes = (unsigned)inline_bytes,
        .events = events != 0,
    };
    return CMD_OK;
}

static int find_word(const char *const *words, const char *word)
{
    for (int i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], word) == 0)
            return i;
    }
    return -1;
}

static int obey_measure(struct rig *rig, const json_t *order)
{
    const char *test_name = "", *op_name = "";
    json_int_t size = 0, batch = 0;
    struct measure_case which = {0};
    int single = 0;
    int bad = json_unpack((json_t *)order, "{s:s, s:s, s:I, s:I, s:b}", "test", &test_name, "op",
                          &op_name, "size_bytes", &size, "batch", &batch, "single", &single);
    int test = find_word(measure_test_names, test_name);
    int op = find_word(measure_op_names, op_name);

    if (bad != 0 || test < 0 || op < 0 || !within(batch, 1, MEASURE_BATCH_MAX) ||
        !within(size, 1, (json_int_t)rig->config.message_bytes))
        return refuse("an order to measure that makes no sense");
    which.test = (enum measure_test)test;
    which.op = (enum measure_op)op;
    which.size = (size_t)size;
    which.batch = (unsigned)batch;
    which.single = single != 0;
    return measure_server(rig, &which);
}

static int obey_check(struct rig *rig, const json_t *order)
{
    const char *op_name = "";
    json_int_t size = 0, rounds = 0;
    int bad = json_unpack((json_t *)order, "{s:s, s:I, s:I}", "op", &op_name, "size_bytes", &size,
                          "rounds", &rounds);
    int op = find_word(measure_op_names, op_name);

    if (bad != 0 || op < 0 || !within(rounds, 0, INT32_MAX) ||
        !within(size, 1, (json_int_t)rig->config.message_bytes))
        return refuse("an order to check that makes no sense");
    return check_run(rig, false, (enum measure_op)op, (size_t)size, (unsigned)rounds);
}

static int obey(struct rig *rig, const json_t *order, bool *end_out)
{
    const char *what = json_string_value(json_object_get(order, "do"));

    if (what != NULL && strcmp(what, "measure") == 0)
        return obey_measure(rig, order);
    if (what != NULL && strcmp(what, "check") == 0)
        return obey_check(rig, order);
    if (what != NULL && strcmp(what, "vipl") == 0)
        return vicase_server(rig->channel, rig->config.device);
    if (what == NULL || strcmp(what, "end") != 0)
        return refuse("an unknown order");
    *end_out = true;
    return CMD_OK;
}

static int serve_orders(struct rig *rig)
{
    bool end = false;
    int code = CMD_OK;
    int error;

    while (code == CMD_OK && !end) {
        json_t *order = receive_json(rig->channel, &error);

        if (order == NULL) {
            complain("the client is gone: %s", strerror(-error));
            return CMD_FAILED;
        }
        code = obey(rig, order, &end);
        json_decref(order);
    }
    return code;
}

int serve_client(int channel, const void *options, int cpu)
{
    const struct session_options *local = options;
    struct rig_config config;
    struct rig rig;
    int error, code;
    json_t *hello;

    channel_patience(channel, HELLO_PATIENCE_S);
    hello = receive_json(channel, &error);
    channel_patience(channel, 0);
    if (hello == NULL)
        return CMD_FAILED; /* it looked, and left; or it has nothing to say to us */
    cores_unpin();         /* the device's threads may run anywhere, also at the second client */
    code = read_hello(hello, local, &config);
    json_decref(hello);
    if (code == CMD_OK)
        code = rig_open(&config, &rig);
    if (code != CMD_OK)
        return code;
    code = session_pin(cpu);
    if (code == CMD_OK)
        code = rig_connect(&rig, channel);
    if (code == CMD_OK)
        code = measure_prepare(&rig);
    if (code == CMD_OK)
        code = serve_orders(&rig);
    rig_close(&rig);
    return code;
}

int session_serve(const struct session_options *options)
{
    int cpus[2];
    int code = session_cpus(options, cpus);

    return code != CMD_OK ? code
                          : side_listen((uint16_t)options->port, options->once, serve_client,
                                        options, cpus[1]);
}
