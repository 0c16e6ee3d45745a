/* SPDX-License-Identifier: MIT */
/* Whether a preloaded library reaches a program, or has reached a process. */
#include "elf.h"
#include "probe.h"
#include "where.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libviaduct.so"

void probe_program(const char *name, struct finding *finding)
{
    char path[400], script[420] = "";
    struct elf_info info = {.kind = ELF_SCRIPT};
    const char *obstacle;

    /* A script's interpreter may be a script itself, but not for ever. */
    for (unsigned depth = 0; depth < 4 && info.kind == ELF_SCRIPT; depth++) {
        int error = where_program(depth == 0 ? name : info.interpreter, path, sizeof(path));

        if (error == 0)
            error = elf_inspect(path, &info);
        if (error != 0) {
            finding_set(finding, PROBE_FAIL, "%s: %s", depth == 0 ? name : info.interpreter,
                        strerror(-error));
            finding_mend(finding, "give a program's path, or its name if it is on the PATH");
            return;
        }
        if (depth == 0 && info.kind == ELF_SCRIPT)
            snprintf(script, sizeof(script), "%s, run by ", path);
    }
    obstacle = elf_obstacle(&info);
    if (obstacle == NULL && info.kind == ELF_UNKNOWN)
        finding_set(finding, PROBE_WARN, "%s%s is no ELF program: can't tell", script, path);
    else if (obstacle == NULL)
        finding_set(finding, PROBE_OK, "%s%s takes the preload", script, path);
    else
        finding_set(finding, PROBE_FAIL, "%s%s will not see via0", script, path);
    if (obstacle != NULL)
        finding_mend(finding, "%s", obstacle);
}

/* --- a running process --- */

enum answer { NO, YES, UNKNOWN };

/* Does a file of /proc/PID hold the text? Its lines may end with a zero. */
static enum answer proc_says(uint64_t pid, const char *file, const char *text)
{
    char path[64], *line = NULL;
    size_t size = 0;
    enum answer answer = NO;
    FILE *stream;

    snprintf(path, sizeof(path), "/proc/%" PRIu64 "/%s", pid, file);
    stream = fopen(path, "re");
    if (stream == NULL)
        return UNKNOWN;
    errno = 0;
    while (answer == NO && getdelim(&line, &size, file[0] == 'e' ? '\0' : '\n', stream) >= 0) {
        if (strstr(line, text) != NULL && (file[0] != 'e' || strncmp(line, "LD_PRELOAD=", 11) == 0))
            answer = YES;
    }
    if (answer == NO && errno != 0)
        answer = UNKNOWN;
    free(line);
    fclose(stream);
    return answer;
}

static void explain_environment(uint64_t pid, const char *name, struct finding *finding)
{
    switch (proc_says(pid, "environ", LIBRARY)) {
    case YES:
        finding_set(finding, PROBE_FAIL, "%s has LD_PRELOAD, but not the library", name);
        finding_mend(finding, "the loader could not open the file: look for 'cannot be preloaded' "
                              "in its output; in a container it needs the library's path there");
        return;
    case NO:
        finding_set(finding, PROBE_FAIL, "%s was started without LD_PRELOAD", name);
        finding_mend(finding,
                     "sudo, su, env -i, ssh, cron and service managers clear the environment: "
                     "write 'viaduct run --' behind them, directly before the program");
        return;
    case UNKNOWN:
        finding_set(finding, PROBE_FAIL, "%s does not have the library, and may not be asked why",
                    name);
        finding_mend(finding, "run doctor as the user of the process");
        return;
    }
}

void probe_process(uint64_t pid, struct finding *finding)
{
    char exe[64], name[80];
    struct elf_info info;
    const char *obstacle;
    int error;

    snprintf(name, sizeof(name), "process %" PRIu64, pid);
    snprintf(exe, sizeof(exe), "/proc/%" PRIu64 "/exe", pid);
    if (proc_says(pid, "maps", LIBRARY) == YES) {
        finding_set(finding, PROBE_OK, "%s has via0 under it", name);
        return;
    }
    error = elf_inspect(exe, &info);
    if (error != 0) {
        finding_set(finding, PROBE_FAIL, "%s: %s", name, strerror(-error));
        finding_mend(finding, "it has ended, or is another user's: run doctor as that user");
        return;
    }
    obstacle = elf_obstacle(&info);
    if (obstacle == NULL) {
        explain_environment(pid, name, finding);
        return;
    }
    finding_set(finding, PROBE_FAIL, "%s does not see via0", name);
    finding_mend(finding, "%s", obstacle);
}
