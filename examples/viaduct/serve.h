/* SPDX-License-Identifier: MIT */
/* The server's half of a session. */
#ifndef VIADUCT_SERVE_H
#define VIADUCT_SERVE_H

#include "session.h"
#include "sides.h"

/* Told in the hello; a server refuses a client that says another one. */
#define SERVE_PROTOCOL "viaduct-session/1"

/* options: struct session_options. */
serve_fn serve_client;

/* Shared with the client's half. */
int session_cpus(const struct session_options *options, int cpus_out[2]);
int session_pin(int cpu);

#endif
