/* SPDX-License-Identifier: MIT */
/*
 * Rows of option tables that pingpong, bench and vibe have in common. `owner` is the struct that
 * the values go to; its members have the names of the options (ops, apis: sets).
 */
#ifndef VIADUCT_ROWS_H
#define VIADUCT_ROWS_H

#include "measure.h"
#include "options.h"

/* NOLINTBEGIN(bugprone-macro-parentheses): names of types and members take none */
#define ROW_OP(owner, help_)                                                                       \
    {                                                                                              \
        .name = "op", .letter = 'o', .type = OPTION_SET, .offset = offsetof(owner, ops),           \
        .value = "LIST", .words = measure_op_names, .help = (help_)                                \
    }
#define ROW_API(owner)                                                                             \
    {                                                                                              \
        .name = "api", .type = OPTION_SET, .offset = offsetof(owner, apis), .value = "LIST",       \
        .words = measure_api_names, .help = "verbs, vipl or all (verbs)"                           \
    }
#define ROW_SIZES(owner, max_, help_)                                                              \
    {                                                                                              \
        .name = "sizes", .letter = 's', .type = OPTION_SIZES, .offset = offsetof(owner, sizes),    \
        .value = "BYTES", .min = 1, .max = (max_), .help = (help_)                                 \
    }
#define ROW_ITERS(owner, help_)                                                                    \
    {                                                                                              \
        .name = "iters", .letter = 'n', .type = OPTION_COUNT, .offset = offsetof(owner, iters),    \
        .value = "N", .min = 1, .max = UINT64_C(1) << 40, .help = (help_)                          \
    }
#define ROW_SECONDS(owner, help_)                                                                  \
    {                                                                                              \
        .name = "seconds", .letter = 'D', .type = OPTION_SECONDS,                                  \
        .offset = offsetof(owner, seconds), .value = "S", .max = 86400, .help = (help_)            \
    }
#define ROW_CHECK(owner, help_)                                                                    \
    {                                                                                              \
        .name = "check", .type = OPTION_COUNT, .offset = offsetof(owner, check), .value = "N",     \
        .max = 1000000000, .help = (help_)                                                         \
    }
#define ROW_ROUNDS(owner, help_)                                                                   \
    {                                                                                              \
        .name = "rounds", .type = OPTION_COUNT, .offset = offsetof(owner, rounds), .value = "N",   \
        .min = 1, .max = MEASURE_ROUNDS_MAX, .help = (help_)                                       \
    }
#define ROW_HALF(owner)                                                                            \
    {                                                                                              \
        .name = "half", .type = OPTION_FLAG, .offset = offsetof(owner, half),                      \
        .help = "show one way: half the round trip"                                                \
    }
#define ROW_JSON(owner)                                                                            \
    {                                                                                              \
        .name = "json", .type = OPTION_FLAG, .offset = offsetof(owner, json),                      \
        .help = "one JSON document"                                                                \
    }
#define ROW_CSV(owner)                                                                             \
    {                                                                                              \
        .name = "csv", .type = OPTION_FLAG, .offset = offsetof(owner, csv),                        \
        .help = "comma-separated values"                                                           \
    }
#define ROW_PLOT(owner, value_, help_)                                                             \
    {                                                                                              \
        .name = "plot", .type = OPTION_TEXT, .offset = offsetof(owner, plot), .value = (value_),   \
        .help = (help_)                                                                            \
    }
#define ROW_QUIET(owner)                                                                           \
    {                                                                                              \
        .name = "quiet", .type = OPTION_FLAG, .offset = offsetof(owner, quiet),                    \
        .help = "no progress on stderr"                                                            \
    }

/* How the two sides find their device, each other and their processors: session.h's options. */
#define ROW_DEVICE(owner)                                                                          \
    {                                                                                              \
        .name = "device", .letter = 'd', .type = OPTION_TEXT, .value = "NAME",                     \
        .offset = offsetof(owner, session.device), .help = "verbs device (via0)"                   \
    }
#define ROW_GID(owner)                                                                             \
    {                                                                                              \
        .name = "gid", .letter = 'x', .type = OPTION_COUNT, .value = "N", .max = 255,              \
        .offset = offsetof(owner, session.gid), .help = "GID index (the first RoCE v2 IPv4 one)"   \
    }
#define ROW_PORT(owner)                                                                            \
    {                                                                                              \
        .name = "port", .letter = 'p', .type = OPTION_COUNT, .value = "PORT", .max = 65535,        \
        .offset = offsetof(owner, session.port), .help = "TCP port of the server (18515; 0: any)"  \
    }
#define ROW_CPUS(owner)                                                                            \
    {                                                                                              \
        .name = "cpus", .type = OPTION_TEXT, .value = "C,S",                                       \
        .offset = offsetof(owner, session.cpus), .help = "CPU of the client, CPU of the server"    \
    }
#define ROW_EVENTS(owner)                                                                          \
    {                                                                                              \
        .name = "events", .letter = 'e', .type = OPTION_FLAG,                                      \
        .offset = offsetof(owner, session.events), .help = "sleep for completions, don't poll"     \
    }
#define ROW_ONCE(owner)                                                                            \
    {                                                                                              \
        .name = "once", .type = OPTION_FLAG, .offset = offsetof(owner, session.once),              \
        .help = "server: end after one client"                                                     \
    }
/* NOLINTEND(bugprone-macro-parentheses) */

#endif
