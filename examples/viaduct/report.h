/* SPDX-License-Identifier: MIT */
/* Results as table rows and as JSON: pingpong's and bench's look the same. */
#ifndef VIADUCT_REPORT_H
#define VIADUCT_REPORT_H

#include "measure.h"
#include "table.h"

#include <jansson.h>

/* A table of latencies, and one of bandwidths and rates. */
void report_lat_table(struct table *table);
void report_flow_table(struct table *table);

/* half: times of send and write are halved, to be one way. */
void report_lat_row(struct table *table, const struct measure_result *result, bool half);
void report_flow_row(struct table *table, const struct measure_result *result,
                     const struct rig_config *config);

/* "# times ..." */
void report_print_times(bool half);

json_t *report_json(const struct measure_result *result, const struct rig_config *config,
                    bool half);

/* Print one JSON document to stdout, and free it. Enum cmd_exit. */
int report_document(json_t *document);

/* Numbers in a document are rounded: a tenth of a nanosecond is more than the clock knows. */
json_t *report_real(double value);

#endif
