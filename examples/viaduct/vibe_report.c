/* SPDX-License-Identifier: MIT */
/* VIBe's results as tables, CSV, JSON and plots. */
#include "cmd.h"
#include "host.h"
#include "plot.h"
#include "report.h"
#include "vibe.h"

#include <stdlib.h>
#include <string.h>

static void print_table(const struct vibe_options *opts, struct table *table)
{
    if (table->rows > 0 && opts->csv)
        table_print_csv(table, stdout);
    else if (table->rows > 0)
        table_print(table, stdout);
    table_free(table);
}

static void print_costs(const struct vibe_options *opts, const struct vibe_results *results)
{
    static const char *const heads[] = {"operation", "size_bytes", "median_ns", "min_ns"};
    struct table table;

    table_init(&table, heads, 4);
    for (unsigned i = 0; i < results->cost_count; i++) {
        const struct vibe_cost *cost = &results->costs[i];

        table_cell(&table, "%s", cost->what);
        table_cell(&table, "%zu", cost->size);
        table_cell(&table, "%.0f", cost->median_ns);
        table_cell(&table, "%.0f", cost->min_ns);
    }
    print_table(opts, &table);
}

static void print_lines(const struct vibe_options *opts, const struct vibe_results *results)
{
    static const char *const heads[] = {"test",    "variant",  "size_bytes", "ns",
                                        "lat_cpu", "MB_per_s", "flow_cpu",   "per_s"};
    struct table table;

    table_init(&table, heads, sizeof(heads) / sizeof(heads[0]));
    for (unsigned i = 0; i < results->line_count; i++) {
        const struct vibe_line *line = &results->lines[i];

        table_cell(&table, "%s", vibe_test_names[line->test]);
        table_cell(&table, "%s", line->variant);
        table_cell(&table, "%zu", line->size);
        table_cell(&table, "%.0f", line->one_way_ns);
        table_cell(&table, "%.2f", line->lat_cpu);
        table_number(&table, line->bytes_per_s / 1e6);
        table_cell(&table, "%.2f", line->flow_cpu);
        table_cell(&table, "%.0f", line->per_s);
    }
    print_table(opts, &table);
}

static void print_text(const struct vibe_options *opts, const struct vibe_results *results,
                       int argc, char **argv)
{
    host_print(argc, argv);
    printf("# values   ns: one way (reads: whole); cpu: processors used by the client;\n"
           "#          per_s: questions of 16 bytes answered with so many; 0: not measured\n");
    print_costs(opts, results);
    print_lines(opts, results);
}

/* --- JSON --- */

static json_t *cost_json(const struct vibe_cost *cost)
{
    return json_pack("{s:s, s:I, s:o, s:o}", "operation", cost->what, "size_bytes",
                     (json_int_t)cost->size, "median_ns", report_real(cost->median_ns), "min_ns",
                     report_real(cost->min_ns));
}

static json_t *line_json(const struct vibe_line *line)
{
    json_t *object =
        json_pack("{s:s, s:s, s:I, s:f}", "test", vibe_test_names[line->test], "variant",
                  line->variant, "size_bytes", (json_int_t)line->size, "lat_cpu", line->lat_cpu);

    if (line->test == VIBE_SERVER) {
        json_object_set_new(object, "answers_per_s", report_real(line->per_s));
        return object;
    }
    json_object_set_new(object, "one_way_ns", report_real(line->one_way_ns));
    json_object_set_new(object, "bytes_per_s", report_real(line->bytes_per_s));
    json_object_set_new(object, "flow_cpu", json_real(line->flow_cpu));
    return object;
}

static int print_json(const struct vibe_options *opts, const struct option_set *set,
                      const struct vibe_results *results, int argc, char **argv)
{
    json_t *costs = json_array(), *lines = json_array();

    for (unsigned i = 0; i < results->cost_count; i++)
        json_array_append_new(costs, cost_json(&results->costs[i]));
    for (unsigned i = 0; i < results->line_count; i++)
        json_array_append_new(lines, line_json(&results->lines[i]));
    return report_document(json_pack("{s:s, s:o, s:o, s:o, s:o}", "schema", "viaduct.vibe/1",
                                     "host", host_json(argc, argv), "options",
                                     options_json(set, opts), "costs", costs, "transfers", lines));
}

/* --- plots: one file a test --- */

static void add_points(struct plot *plot, const struct vibe_results *results, enum vibe_test test)
{
    const char *last = "";
    unsigned colour = 0;

    for (unsigned i = 0; i < results->line_count; i++) {
        const struct vibe_line *line = &results->lines[i];
        double x = (double)line->size;

        if (line->test != test)
            continue;
        colour += strcmp(last, line->variant) != 0 && *last != '\0';
        last = line->variant;
        if (test == VIBE_SERVER) {
            plot_add(&plot->panels[0], last, (struct plot_style){colour, 0}, x, line->per_s);
            continue;
        }
        plot_add(&plot->panels[0], last, (struct plot_style){colour, 0}, x, line->one_way_ns);
        plot_add(&plot->panels[1], last, (struct plot_style){colour, 0}, x,
                 line->bytes_per_s / 1e6);
    }
}

static void add_costs(struct plot *plot, const struct vibe_results *results)
{
    for (unsigned i = 0; i < results->cost_count; i++) {
        const struct vibe_cost *cost = &results->costs[i];
        static const char *const order[] = {"register", "deregister", "copy in", "copy out"};
        struct plot_style style = {0};

        while (style.colour < 3 && strcmp(cost->what, order[style.colour]) != 0)
            style.colour++;
        if (cost->size > 0)
            plot_add(&plot->panels[0], cost->what, style, (double)cost->size, cost->median_ns);
    }
}

static int draw_test(const struct vibe_options *opts, const struct vibe_results *results,
                     enum vibe_test test)
{
    struct plot *plot = calloc(1, sizeof(*plot));
    char title[64], path[4096];
    int error;

    if (plot == NULL)
        return CMD_FAILED;
    snprintf(title, sizeof(title), "VIBe: %s", vibe_test_names[test]);
    snprintf(path, sizeof(path), "%s/vibe-%s.svg", opts->plot, vibe_test_names[test]);
    plot->title = title;
    plot->count = test == VIBE_COST || test == VIBE_SERVER ? 1 : 2;
    plot->panels[0].title = test == VIBE_COST     ? "registration"
                            : test == VIBE_SERVER ? "client and server"
                                                  : "latency";
    plot->panels[0].y_label = test == VIBE_COST     ? "nanoseconds"
                              : test == VIBE_SERVER ? "answers per second"
                                                    : "nanoseconds, one way (reads: whole)";
    plot->panels[1].title = "bandwidth";
    plot->panels[1].y_label = "megabytes per second";
    if (test == VIBE_COST)
        add_costs(plot, results);
    else
        add_points(plot, results, test);
    error = plot_write(plot, path);
    free(plot);
    if (error == 0)
        return CMD_OK;
    complain("--plot: '%s' could not be written: %s", path, strerror(-error));
    return CMD_FAILED;
}

int vibe_report(const struct vibe_options *opts, const struct option_set *set,
                const struct vibe_results *results, int argc, char **argv)
{
    int code = CMD_OK;

    for (unsigned test = 0; opts->plot != NULL && code == CMD_OK && test < VIBE_COUNT; test++) {
        if (opts->tests & 1u << test)
            code = draw_test(opts, results, (enum vibe_test)test);
    }
    if (code != CMD_OK)
        return code;
    if (opts->json)
        return print_json(opts, set, results, argc, argv);
    print_text(opts, results, argc, argv);
    return CMD_OK;
}
