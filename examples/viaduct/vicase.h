/* SPDX-License-Identifier: MIT */
/*
 * A measurement over VIPL, both sides of it. The client says what, as one line over the channel;
 * both open what the case needs, connect, compare some messages, measure, and close.
 */
#ifndef VIADUCT_VICASE_H
#define VIADUCT_VICASE_H

#include "pass.h"
#include "virig.h"

/* cpu_out: processor time over time, of this process; 1 is one whole CPU. Enum cmd_exit. */
int vicase_client(int channel, const char *device, const struct vicase *which,
                  struct measure_result *result_out, double *cpu_out);
int vicase_server(int channel, const char *device);

/* Move and compare as many messages as the case says, in its own way. */
int vicheck_run(struct virig *rig, const struct rig *watch, bool client);

pass_fn vilat_client, vilat_server, vilat_one_sided;
pass_fn viflow_client, viflow_server;

#endif
