/* SPDX-License-Identifier: MIT */
/* viaduct top: the processes that use the NIC and their queue pairs, seen from outside. */
#include "cmd.h"
#include "options.h"
#include "report.h"
#include "table.h"
#include "viaduct.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct top {
    bool once;
    bool json;
    double seconds;
};

static const struct option_def defs[] = {
    {.name = "once",
     .letter = '1',
     .type = OPTION_FLAG,
     .offset = offsetof(struct top, once),
     .help = "one picture, as when stdout is no terminal"},
    {.name = "seconds",
     .letter = 's',
     .type = OPTION_SECONDS,
     .value = "S",
     .offset = offsetof(struct top, seconds),
     .help = "between two pictures (1)"},
    {.name = "json",
     .type = OPTION_FLAG,
     .offset = offsetof(struct top, json),
     .help = "one JSON document"},
    {0},
};

static const struct option_set set = {
    .usage = "[OPTIONS]",
    .intro = "Show the processes of this user that have the NIC open, and what their queue\n"
             "pairs have done and wait for. They notice nothing of it.",
    .defs = defs,
    .more = "sq, rq: requests that wait to be finished, receives that wait to be taken.\n"
            "End with Ctrl-C.",
};

/* ---- a picture, as JSON ---- */

static json_t *qp_json(const struct viaduct_qp *qp)
{
    return json_pack(
        "{s:i, s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i}", "number",
        (int)qp->number, "nic", qp->nic, "type", qp->type, "state", qp->state, "peer",
        (int)qp->peer, "peer_pid", (json_int_t)qp->peer_pid, "messages", (json_int_t)qp->messages,
        "out_bytes", (json_int_t)qp->bytes_out, "in_bytes", (json_int_t)qp->bytes_in,
        "peer_messages", (json_int_t)qp->peer_messages, "peer_bytes", (json_int_t)qp->peer_bytes,
        "rnr_waits", (json_int_t)qp->rnr_waits, "retries", (json_int_t)qp->retries, "sends_waiting",
        (int)qp->sends_waiting, "receives_waiting", (int)qp->receives_waiting);
}

static int add_process(void *argument, const struct viaduct_process *process,
                       const struct viaduct_qp *qps)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < process->qp_count; i++)
        json_array_append_new(list, qp_json(&qps[i]));
    json_array_append_new(
        argument,
        json_pack("{s:I, s:s, s:b, s:i, s:i, s:I, s:o}", "pid", (json_int_t)process->pid, "command",
                  process->command, "answers", process->answers, "connections",
                  (int)process->connections, "regions", (int)process->regions, "region_bytes",
                  (json_int_t)process->region_bytes, "queue_pairs", list));
    return 0;
}

/* NULL, and one line said, if there is no looking here. Nobody at all is a picture, too. */
static json_t *take_picture(void)
{
    json_t *processes = json_array();
    int error = viaduct_look(add_process, processes);

    if (error == 0 || error == -ENOENT)
        return processes;
    if (error != -EINVAL) /* the environment is wrong: the library has said so */
        complain("the runtime folder can't be read: %s", strerror(-error));
    json_decref(processes);
    return NULL;
}

/* ---- as text ---- */

static json_int_t number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "?"; /* a name that is no UTF-8 */
}

/* "1234", "56.7k": five characters at most. */
static void cell_of_count(struct table *table, double value)
{
    static const char units[] = " kMGTPE";
    unsigned unit = 0;

    for (; value >= 9999.5 && units[unit + 1]; unit++)
        value /= 1000;
    if (unit == 0)
        table_cell(table, "%.0f", value);
    else
        table_cell(table, "%.*f%c", value < 99.95 ? 1 : 0, value, units[unit]);
}

static const json_t *find(const json_t *array, const char *key, json_int_t value)
{
    size_t index;
    json_t *item;

    json_array_foreach((json_t *)array, index, item)
    {
        if (number_of(item, key) == value)
            return item;
    }
    return NULL;
}

/* The same queue pair in the picture before, or NULL. */
static const json_t *qp_before(const json_t *before, const json_t *process, const json_t *qp)
{
    const json_t *then = before ? find(before, "pid", number_of(process, "pid")) : NULL;

    return then ? find(json_object_get(then, "queue_pairs"), "number", number_of(qp, "number"))
                : NULL;
}

static json_int_t bytes_of(const json_t *qp)
{
    return number_of(qp, "out_bytes") + number_of(qp, "in_bytes");
}

static void cell_of_rate(struct table *table, json_int_t now, json_int_t then, double seconds)
{
    if (seconds > 0 && now >= then)
        cell_of_count(table, (double)(now - then) / seconds);
    else
        table_cell(table, "-");
}

static void qp_row(struct table *table, const json_t *process, const json_t *qp,
                   const json_t *before, double seconds)
{
    const json_t *then = qp_before(before, process, qp);

    table_cell(table, "%lld", (long long)number_of(process, "pid"));
    table_cell(table, "%s", text_of(process, "command"));
    table_cell(table, "%lld", (long long)number_of(qp, "number"));
    table_cell(table, "%s", text_of(qp, "type"));
    table_cell(table, "%s", text_of(qp, "state"));
    if (number_of(qp, "peer") == 0)
        table_cell(table, "-");
    else
        table_cell(table, "%lld of %lld", (long long)number_of(qp, "peer"),
                   (long long)number_of(qp, "peer_pid"));
    cell_of_count(table, (double)number_of(qp, "messages"));
    cell_of_rate(table, number_of(qp, "messages"), number_of(then, "messages"), then ? seconds : 0);
    cell_of_count(table, (double)bytes_of(qp));
    cell_of_rate(table, bytes_of(qp), bytes_of(then), then ? seconds : 0);
    cell_of_count(table, (double)number_of(qp, "rnr_waits"));
    cell_of_count(table, (double)number_of(qp, "retries"));
    table_cell(table, "%lld", (long long)number_of(qp, "sends_waiting"));
    table_cell(table, "%lld", (long long)number_of(qp, "receives_waiting"));
}

static void print_qps(const json_t *processes, const json_t *before, double seconds)
{
    static const char *const heads[] = {"pid",  "command", "qp",    "type",  "state",
                                        "peer", "msg",     "msg/s", "bytes", "bytes/s",
                                        "rnr",  "retries", "sq",    "rq"};
    size_t index, inner;
    json_t *process, *qp;
    struct table table;

    table_init(&table, heads, sizeof(heads) / sizeof(heads[0]));
    json_array_foreach((json_t *)processes, index, process)
    {
        json_array_foreach(json_object_get(process, "queue_pairs"), inner, qp)
            qp_row(&table, process, qp, before, seconds);
    }
    if (table.rows > 0)
        table_print(&table, stdout);
    table_free(&table);
}

static void print_processes(const json_t *processes)
{
    static const char *const heads[] = {"pid",         "command", "queue pairs",
                                        "connections", "regions", "bytes in regions"};
    struct table table;
    json_t *process;
    size_t index;

    table_init(&table, heads, sizeof(heads) / sizeof(heads[0]));
    json_array_foreach((json_t *)processes, index, process)
    {
        bool answers = json_is_true(json_object_get(process, "answers"));

        table_cell(&table, "%lld", (long long)number_of(process, "pid"));
        table_cell(&table, "%s", answers ? text_of(process, "command") : "does not answer");
        table_cell(&table, "%zu", json_array_size(json_object_get(process, "queue_pairs")));
        table_cell(&table, "%lld", (long long)number_of(process, "connections"));
        table_cell(&table, "%lld", (long long)number_of(process, "regions"));
        cell_of_count(&table, (double)number_of(process, "region_bytes"));
    }
    table_print(&table, stdout);
    table_free(&table);
}

static void print_picture(const json_t *processes, const json_t *before, double seconds)
{
    if (json_array_size(processes) == 0) {
        printf("# nobody has the NIC open\n");
        return;
    }
    print_processes(processes);
    print_qps(processes, before, seconds);
}

/* ---- again and again ---- */

static void wait_for(double seconds)
{
    struct timespec pause = {.tv_sec = (time_t)seconds};

    pause.tv_nsec = (long)((seconds - (double)pause.tv_sec) * 1e9);
    clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
}

static double now_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int watch(const struct top *opts)
{
    json_t *before = NULL, *picture;
    double then = 0;

    while ((picture = take_picture()) != NULL) {
        double now = now_seconds();

        printf("\033[H\033[J"); /* to the corner, and nothing behind it */
        print_picture(picture, before, before ? now - then : 0);
        if (fflush(stdout) != 0) {
            json_decref(picture);
            break;
        }
        json_decref(before);
        before = picture;
        then = now;
        wait_for(opts->seconds);
    }
    json_decref(before);
    return CMD_UNAVAILABLE;
}

static int show_once(const struct top *opts)
{
    json_t *picture = take_picture();

    if (picture == NULL)
        return CMD_UNAVAILABLE;
    if (opts->json)
        return report_document(
            json_pack("{s:s, s:o}", "schema", "viaduct.top/1", "processes", picture));
    print_picture(picture, NULL, 0);
    json_decref(picture);
    return CMD_OK;
}

int top_main(int argc, char **argv)
{
    struct top opts = {.seconds = 1};
    int first = 0;
    enum options_result parsed = options_parse(&set, argc, argv, &opts, &first);

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? CMD_OK : CMD_USAGE;
    if (first < argc) {
        complain("'%s' is unexpected: there are only options", argv[first]);
        return CMD_USAGE;
    }
    return opts.once || opts.json || !isatty(STDOUT_FILENO) ? show_once(&opts) : watch(&opts);
}
