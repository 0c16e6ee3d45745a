/* SPDX-License-Identifier: MIT */
/*
 * A client and a server that measure together. The client decides everything and tells the
 * server, in JSON messages over the channel: first a hello with what to open, then one message
 * for each case. Nothing is typed twice, and any server serves any client.
 */
#ifndef VIADUCT_SESSION_H
#define VIADUCT_SESSION_H

#include "measure.h"
#include "options.h"

#include <sys/types.h>

#define SESSION_PORT 18515

/* What pingpong, bench and vibe have in common; rows.h has it for their option tables. */
struct session_options {
    const char *device;
    uint64_t gid; /* UINT64_MAX: choose */
    uint64_t port;
    const char *cpus; /* "C,S": NULL: choose */
    bool events;
    bool once;
};

#define SESSION_DEFAULTS                                                                           \
    {                                                                                              \
        .gid = UINT64_MAX, .port = SESSION_PORT                                                    \
    }

enum session_role { ROLE_BOTH, ROLE_SERVER, ROLE_CLIENT };

/* Operands behind the options: none, "server" or "client HOST". CMD_USAGE after a line. */
int session_role(int argc, char **argv, int first, enum session_role *role_out,
                 const char **host_out);

struct session {
    struct rig rig;
    int channel;
    pid_t server; /* 0: on another host, or started by somebody else */
    int client_cpu;
    int server_cpu; /* -1: not ours to know */
};

/*
 * Start a client: with host NULL a server process of its own, on another CPU. config says what
 * both sides open; device and gid are this side's. All return enum cmd_exit, after one line.
 */
int session_open(const struct session_options *options, const struct rig_config *config,
                 const char *host, struct session *session_out);
int session_measure(struct session *session, const struct measure_case *which,
                    struct measure_result *result_out);

/* How many messages of this size to compare: not more than 32 MiB, and one at least. */
unsigned session_check_rounds(uint64_t wanted, size_t size);
int session_check(struct session *session, enum measure_api api, enum measure_op op, size_t size,
                  unsigned rounds);

/* code is how the client fared so far; the result takes the server's end into account. */
int session_close(struct session *session, int code);

/* "# sides ..." and the same as a JSON object. */
void session_print(const struct session *session);
json_t *session_json(const struct session *session);

/* Be the server, for one client after the other. Returns only on failure, or with once. */
int session_serve(const struct session_options *options);

#endif
