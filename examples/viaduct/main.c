/* SPDX-License-Identifier: MIT */
/* The table of subcommands, and nothing else. */
#include "cmd.h"
#include "viaduct.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct subcommand {
    const char *name;
    const char *full_name;
    int (*main)(int argc, char **argv);
    const char *summary;
} subcommands[] = {
    {"devices", "viaduct devices", devices_main, "what can be opened here, and why not the rest"},
    {"run", "viaduct run", run_main, "run a program with via0 under it"},
    {"pingpong", "viaduct pingpong", pingpong_main, "messages to and fro, checked and timed"},
    {"bench", "viaduct bench", bench_main, "latency, bandwidth and message rate"},
    {"vibe", "viaduct vibe", vibe_main, "the VIA micro-benchmarks, over VIPL"},
    {"doctor", "viaduct doctor", doctor_main,
     "check this machine or a program, and how to mend it"},
    {"top", "viaduct top", top_main, "what the processes on the NIC are doing, live"},
    {"remove", "viaduct remove", remove_main, "unplug a NIC under running programs"},
    {"add", "viaduct add", add_main, "plug it in again"},
};
#define SUBCOMMAND_COUNT (sizeof(subcommands) / sizeof(subcommands[0]))

const char *cmd_name = "viaduct";

void complain(const char *format, ...)
{
    va_list args;

    fflush(stdout);
    fprintf(stderr, "%s: ", cmd_name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

static void print_help(void)
{
    printf("usage: viaduct COMMAND [OPTIONS]\n\n"
           "A software RDMA NIC in user space, under the stock verbs libraries.\n\n");
    for (unsigned i = 0; i < SUBCOMMAND_COUNT; i++)
        printf("  %-10s %s\n", subcommands[i].name, subcommands[i].summary);
    printf("\n'viaduct COMMAND --help' shows the options of a command.\n"
           "First steps: 'viaduct pingpong', then 'viaduct run -- ibv_devinfo'.\n");
}

static const struct subcommand *subcommand_find(const char *name)
{
    for (unsigned i = 0; i < SUBCOMMAND_COUNT; i++) {
        if (strcmp(subcommands[i].name, name) == 0)
            return &subcommands[i];
    }
    return NULL;
}

static int subcommand_run(const struct subcommand *sub, int argc, char **argv)
{
    int code;

    cmd_name = sub->full_name;
    code = sub->main(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        complain("writing the result failed: %m");
        return CMD_FAILED;
    }
    return code;
}

int main(int argc, char **argv)
{
    static char help_option[] = "--help";
    const struct subcommand *sub;

    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help();
        return CMD_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("viaduct %s\n", viaduct_version());
        return CMD_OK;
    }
    if (strcmp(argv[1], "help") == 0) {
        if (argc == 2) {
            print_help();
            return CMD_OK;
        }
        argv[1] = argv[2];
        argv[2] = help_option;
        argc = 3;
    }
    sub = subcommand_find(argv[1]);
    if (sub == NULL) {
        complain("no command is called '%s'; 'viaduct --help' names them", argv[1]);
        return CMD_USAGE;
    }
    return subcommand_run(sub, argc - 1, argv + 1);
}
