/* SPDX-License-Identifier: MIT */
/* What every result must say about the machine it was measured on. */
#ifndef VIADUCT_HOST_H
#define VIADUCT_HOST_H

#include <jansson.h>

/* "# key  value" lines: host, kernel, libibverbs, and the command line. */
void host_print(int argc, char **argv);

/* The same as a new JSON object. */
json_t *host_json(int argc, char **argv);

/* The file of libibverbs that is in use; its name ends with the rdma-core version. */
const char *host_libibverbs(void);

#endif
