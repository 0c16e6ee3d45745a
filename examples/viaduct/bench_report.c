/* SPDX-License-Identifier: MIT */
/* The results of bench as tables, CSV, JSON and a plot. */
#include "bench.h"
#include "cmd.h"
#include "host.h"
#include "plot.h"
#include "report.h"

#include <stdlib.h>
#include <string.h>

static const char *const units[] = {"ns_one_way", "MB_per_s", "Mmsg_per_s"};

/* Reads and atomics have no one way: theirs is the whole operation. */
static const char *unit_of(const struct measure_case *which)
{
    bool whole = which->op == OP_READ || which->op == OP_ATOMIC;

    return which->test == TEST_LAT && whole ? "ns" : units[which->test];
}

/* In the unit: nanoseconds stay, bytes and messages become millions. */
static double in_unit(const struct measure_case *which, double value)
{
    return which->test == TEST_LAT ? value : value / 1e6;
}

static void print_table(struct table *table, bool csv)
{
    if (table->rows > 0 && csv)
        table_print_csv(table, stdout);
    else if (table->rows > 0)
        table_print(table, stdout);
    table_free(table);
}

static void print_lat(const struct bench_options *opts, const struct bench_results *results)
{
    struct table table;

    report_lat_table(&table);
    for (unsigned i = 0; i < results->count; i++) {
        if (results->entries[i].result.which.test == TEST_LAT)
            report_lat_row(&table, &results->entries[i].result, opts->half);
    }
    print_table(&table, opts->csv);
}

static void print_flow(const struct bench_options *opts, const struct session *session,
                       const struct bench_results *results)
{
    struct table table;

    report_flow_table(&table);
    for (unsigned i = 0; i < results->count; i++) {
        if (results->entries[i].result.which.test != TEST_LAT)
            report_flow_row(&table, &results->entries[i].result, &session->rig.config);
    }
    print_table(&table, opts->csv);
}

/* What stands beside a line: a rival, or verbs beside VIPL. */
struct other {
    const char *name;
    double value;
};

static unsigned others_of(const struct bench_entry *entry, struct other others_out[RIVAL_COUNT + 2])
{
    unsigned count = 0;

    if (entry->verbs > 0)
        others_out[count++] = (struct other){measure_api_names[API_VERBS], entry->verbs};
    if (entry->single > 0)
        others_out[count++] = (struct other){"verbs single", entry->single};
    for (unsigned r = 0; r < RIVAL_COUNT; r++) {
        if (entry->rivals[r] > 0)
            others_out[count++] = (struct other){rival_names[r], entry->rivals[r]};
    }
    return count;
}

static void versus_row(struct table *table, const struct bench_entry *entry,
                       const struct other *other)
{
    const struct measure_case *which = &entry->result.which;

    table_cell(table, "%s", measure_test_names[which->test]);
    table_cell(table, "%s", measure_case_name(which));
    table_cell(table, "%zu", which->size);
    table_cell(table, "%s", unit_of(which));
    table_number(table, in_unit(which, entry->value));
    table_cell(table, "%s", other->name);
    table_number(table, in_unit(which, other->value));
    table_cell(table, "%+.1f", in_unit(which, entry->value - other->value));
    table_cell(table, "%.2f", entry->value / other->value);
    table_cell(table, "%s", which->test == TEST_LAT ? "less" : "more");
}

static void print_versus(const struct bench_options *opts, const struct bench_results *results)
{
    static const char *const heads[] = {"test",  "op",    "size_bytes", "unit",  "viaduct",
                                        "rival", "value", "difference", "ratio", "better"};
    struct other others[RIVAL_COUNT + 2];
    struct table table;

    table_init(&table, heads, sizeof(heads) / sizeof(heads[0]));
    for (unsigned i = 0; i < results->count; i++) {
        unsigned count = others_of(&results->entries[i], others);

        for (unsigned k = 0; k < count; k++)
            versus_row(&table, &results->entries[i], &others[k]);
    }
    if (table.rows > 0)
        printf("# against  medians of %u turns each, alternately; difference and ratio are those\n"
               "#          of viaduct to its rival\n",
               (unsigned)opts->rounds);
    print_table(&table, opts->csv);
}

static void print_text(const struct bench_options *opts, const struct session *session,
                       const struct bench_results *results, int argc, char **argv)
{
    host_print(argc, argv);
    device_print(&session->rig.device);
    session_print(session);
    report_print_times(opts->half);
    print_lat(opts, results);
    print_flow(opts, session, results);
    print_versus(opts, results);
}

/* --- JSON --- */

static const char *value_key(enum measure_test test)
{
    static const char *const keys[] = {"ns", "bytes_per_s", "messages_per_s"};

    return keys[test];
}

static json_t *versus_json(const struct bench_entry *entry, const struct other *other)
{
    const struct measure_case *which = &entry->result.which;
    char own[40], rival[40];

    snprintf(own, sizeof(own), "viaduct_%s", value_key(which->test));
    snprintf(rival, sizeof(rival), "rival_%s", value_key(which->test));
    return json_pack("{s:s, s:s, s:s, s:I, s:s, s:o, s:o, s:f, s:s}", "test",
                     measure_test_names[which->test], "api", measure_api_names[which->api], "op",
                     measure_op_names[which->op], "size_bytes", (json_int_t)which->size, "rival",
                     other->name, own, report_real(entry->value), rival, report_real(other->value),
                     "ratio", entry->value / other->value, "better",
                     which->test == TEST_LAT ? "less" : "more");
}

static int print_json(const struct bench_options *opts, const struct option_set *set,
                      const struct session *session, const struct bench_results *results, int argc,
                      char **argv)
{
    json_t *lines = json_array();
    json_t *versus = json_array();
    struct other others[RIVAL_COUNT + 2];

    for (unsigned i = 0; i < results->count; i++) {
        const struct bench_entry *entry = &results->entries[i];
        unsigned count = others_of(entry, others);

        json_array_append_new(lines, report_json(&entry->result, &session->rig.config, opts->half));
        for (unsigned k = 0; k < count; k++)
            json_array_append_new(versus, versus_json(entry, &others[k]));
    }
    return report_document(
        json_pack("{s:s, s:o, s:o, s:o, s:o, s:I, s:o, s:o}", "schema", "viaduct.bench/1", "host",
                  host_json(argc, argv), "device", device_json(&session->rig.device), "sides",
                  session_json(session), "options", options_json(set, opts), "rounds",
                  (json_int_t)opts->rounds, "results", lines, "against", versus));
}

/* --- the plot --- */

/* Colours are operations, dashes are rivals. The machine's own limits know no operation. */
static void plot_rival(struct plot_panel *panel, const struct bench_entry *entry, enum rival rival,
                       bool first)
{
    const struct measure_case *which = &entry->result.which;
    double value = in_unit(which, entry->rivals[rival]);
    struct plot_style style = {.colour = which->op, .dash = rival + 1u};
    char name[40];

    if (rival == RIVAL_FLOOR || rival == RIVAL_MEMCPY) {
        style.colour = OP_COUNT;
        snprintf(name, sizeof(name), "%s", rival_names[rival]);
        if (!first)
            return;
    } else {
        snprintf(name, sizeof(name), "%s %s", rival_names[rival], measure_op_names[which->op]);
    }
    plot_add(panel, name, style, (double)which->size, value);
}

static void plot_entry(struct plot_panel *panel, const struct bench_entry *entry, bool first)
{
    const struct measure_case *which = &entry->result.which;
    struct plot_style style = {.colour = which->op + OP_COUNT * which->api, .dash = which->single};

    plot_add(panel, measure_case_name(which), style, (double)which->size,
             in_unit(which, entry->value));
    for (unsigned r = 0; r < RIVAL_COUNT; r++) {
        if (entry->rivals[r] > 0)
            plot_rival(panel, entry, (enum rival)r, first);
    }
}

static void plot_test(struct plot_panel *panel, const struct bench_results *results,
                      enum measure_test test)
{
    const struct bench_entry *first = NULL;

    for (unsigned i = 0; i < results->count; i++) {
        const struct bench_entry *entry = &results->entries[i];

        if (entry->result.which.test != test)
            continue;
        if (first == NULL)
            first = entry;
        plot_entry(panel, entry, entry->result.which.op == first->result.which.op);
    }
}

static int draw(const struct bench_options *opts, const struct session *session,
                const struct bench_results *results)
{
    static const char *const titles[] = {"latency", "bandwidth", "message rate"};
    static const char *const labels[] = {"nanoseconds, one way (reads, atomics: whole)",
                                         "megabytes per second", "million messages per second"};
    struct plot *plot = calloc(1, sizeof(*plot));
    char title[100];
    int error;

    if (plot == NULL)
        return CMD_FAILED;
    snprintf(title, sizeof(title), "viaduct bench on %s",
             ibv_get_device_name(session->rig.device.context->device));
    plot->title = title;
    for (unsigned test = 0; test < TEST_COUNT; test++) {
        struct plot_panel *panel = &plot->panels[plot->count];

        if (!(opts->tests & 1u << test))
            continue;
        panel->title = titles[test];
        panel->y_label = labels[test];
        plot_test(panel, results, (enum measure_test)test);
        plot->count += panel->count > 0;
    }
    error = plot_write(plot, opts->plot);
    free(plot);
    if (error == 0)
        return CMD_OK;
    complain("--plot: '%s' could not be written: %s", opts->plot, strerror(-error));
    return CMD_FAILED;
}

int bench_report(const struct bench_options *opts, const struct option_set *set,
                 const struct session *session, const struct bench_results *results, int argc,
                 char **argv)
{
    int code = opts->plot != NULL ? draw(opts, session, results) : CMD_OK;

    if (code != CMD_OK)
        return code;
    if (opts->json)
        return print_json(opts, set, session, results, argc, argv);
    print_text(opts, session, results, argc, argv);
    return CMD_OK;
}
