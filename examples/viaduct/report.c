/* SPDX-License-Identifier: MIT */
/* Results as table rows and as JSON. */
#include "report.h"

#include "cmd.h"

#include <math.h>
#include <stdio.h>

static const char *const lat_heads[] = {"op",     "size_bytes", "count",    "min_ns", "p50_ns",
                                        "p90_ns", "p99_ns",     "p99.9_ns", "max_ns"};
static const char *const flow_heads[] = {"test",  "op",      "size_bytes", "qps",       "batch",
                                         "count", "seconds", "MB_per_s",   "Mmsg_per_s"};

void report_lat_table(struct table *table)
{
    table_init(table, lat_heads, sizeof(lat_heads) / sizeof(lat_heads[0]));
}

void report_flow_table(struct table *table)
{
    table_init(table, flow_heads, sizeof(flow_heads) / sizeof(flow_heads[0]));
}

static bool has_two_ways(const struct measure_result *result)
{
    return result->which.op == OP_SEND || result->which.op == OP_WRITE;
}

static double scale_of(const struct measure_result *result, bool half)
{
    return half && has_two_ways(result) ? 0.5 : 1.0;
}

void report_lat_row(struct table *table, const struct measure_result *r, bool half)
{
    double scale = scale_of(r, half);
    const double values[] = {r->min_ns, r->p50_ns, r->p90_ns, r->p99_ns, r->p999_ns, r->max_ns};

    table_cell(table, "%s", measure_case_name(&r->which));
    table_cell(table, "%zu", r->which.size);
    table_cell(table, "%llu", (unsigned long long)r->count);
    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        table_cell(table, "%.0f", values[i] * scale);
}

void report_flow_row(struct table *table, const struct measure_result *r,
                     const struct rig_config *config)
{
    table_cell(table, "%s", measure_test_names[r->which.test]);
    table_cell(table, "%s", measure_case_name(&r->which));
    table_cell(table, "%zu", r->which.size);
    table_cell(table, "%u", config->qps);
    table_cell(table, "%u", r->which.batch);
    table_cell(table, "%llu", (unsigned long long)r->count);
    table_cell(table, "%.3f", r->seconds);
    table_number(table, r->bytes_per_s / 1e6);
    table_number(table, r->messages_per_s / 1e6);
}

void report_print_times(bool half)
{
    if (half)
        printf("# times    one way: half a round trip (send, write); reads and atomics whole\n");
    else
        printf("# times    round trips: there and back; --half divides by two\n");
}

json_t *report_real(double value)
{
    return json_real(round(value * 10) / 10);
}

static void add_lat(json_t *object, const struct measure_result *r, bool half)
{
    const char *prefix = has_two_ways(r) ? half ? "one_way" : "rtt" : "op";
    const struct {
        const char *name;
        double value;
    } times[] = {{"middle", r->middle_ns}, {"min", r->min_ns}, {"p50", r->p50_ns},
                 {"p90", r->p90_ns},       {"p99", r->p99_ns}, {"p99_9", r->p999_ns},
                 {"max", r->max_ns}};
    char key[32];

    for (unsigned i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        snprintf(key, sizeof(key), "%s_%s_ns", prefix, times[i].name);
        json_object_set_new(object, key, report_real(times[i].value * scale_of(r, half)));
    }
}

json_t *report_json(const struct measure_result *r, const struct rig_config *config, bool half)
{
    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:f}", "test", measure_test_names[r->which.test], "api",
        measure_api_names[r->which.api], "op", measure_op_names[r->which.op], "size_bytes",
        (json_int_t)r->which.size, "count", (json_int_t)r->count, "seconds", r->seconds);

    if (r->which.test == TEST_LAT) {
        add_lat(object, r, half);
        return object;
    }
    json_object_set_new(object, "qps", json_integer(config->qps));
    json_object_set_new(object, "depth", json_integer(config->depth));
    json_object_set_new(object, "batch", json_integer(r->which.batch));
    json_object_set_new(object, "single", json_boolean(r->which.single));
    json_object_set_new(object, "bytes_per_s", report_real(r->bytes_per_s));
    json_object_set_new(object, "messages_per_s", report_real(r->messages_per_s));
    return object;
}

int report_document(json_t *document)
{
    int failed = document == NULL || json_dumpf(document, stdout, JSON_INDENT(2)) != 0;

    json_decref(document);
    if (failed) {
        complain("the JSON document could not be written");
        return CMD_FAILED;
    }
    putchar('\n');
    return CMD_OK;
}
