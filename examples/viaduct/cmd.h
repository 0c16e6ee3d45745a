/* SPDX-License-Identifier: MIT */
/*
 * The viaduct command: one function a subcommand, in a file of its name, and one table in main.c.
 *
 * Data goes to stdout, everything else to stderr. Every command ends with one of these codes.
 */
#ifndef VIADUCT_CMD_H
#define VIADUCT_CMD_H

enum cmd_exit {
    CMD_OK = 0,
    CMD_FAILED = 1,       /* it ran, and something was wrong */
    CMD_USAGE = 2,        /* a bad argument; nothing was done */
    CMD_UNAVAILABLE = 77, /* there is no such device here */
};

/* argv[0] is the subcommand's own name. */
int devices_main(int argc, char **argv);
int run_main(int argc, char **argv);
int pingpong_main(int argc, char **argv);
int bench_main(int argc, char **argv);
int vibe_main(int argc, char **argv);
int doctor_main(int argc, char **argv);
int top_main(int argc, char **argv);
int remove_main(int argc, char **argv);
int add_main(int argc, char **argv);

/* Print one line to stderr, "viaduct SUBCOMMAND: " before it. The newline is added. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The subcommand that runs, for complain() and help: "viaduct bench". */
extern const char *cmd_name;

#endif
