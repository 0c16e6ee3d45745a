/* SPDX-License-Identifier: MIT */
/* What every result must say about the machine it was measured on. */
#include "host.h"

#include "cmd.h"
#include "cores.h"
#include "viaduct.h"

#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

static const char *cpu_model(void)
{
    static char model[128];
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");

    if (file == NULL)
        return "unknown CPU";
    while (model[0] == '\0' && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "model name", 10) == 0)
            sscanf(strchr(line, ':') != NULL ? strchr(line, ':') : "", ": %127[^\n]", model);
    }
    fclose(file);
    return model[0] != '\0' ? model : "unknown CPU";
}

const char *host_libibverbs(void)
{
    static char path[4096];
    Dl_info info;

    if (path[0] != '\0')
        return path;
    if (dladdr((const void *)(uintptr_t)ibv_wc_status_str, &info) == 0 ||
        realpath(info.dli_fname, path) == NULL)
        snprintf(path, sizeof(path), "unknown");
    return path;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

static char *command_line(int argc, char **argv, char *buffer, size_t size)
{
    size_t used = (size_t)snprintf(buffer, size, "viaduct");

    for (int i = 0; i < argc && used < size; i++)
        used += (size_t)snprintf(buffer + used, size - used, " %s", argv[i]);
    /* Whatever was typed, this stays one line of valid UTF-8. */
    for (char *p = buffer; *p != '\0'; p++) {
        if (*p < ' ' || *p > '~')
            *p = '?';
    }
    return buffer;
}

void host_print(int argc, char **argv)
{
    char command[1024];
    struct utsname uts;

    uname(&uts);
    printf("# viaduct  %s, %s\n", viaduct_version(), base_name(host_libibverbs()));
    printf("# host     %s, %u CPU%s, %s %s %s\n", cpu_model(), cores_allowed(),
           cores_allowed() == 1 ? "" : "s", uts.sysname, uts.release, uts.machine);
    printf("# command  %s\n", command_line(argc, argv, command, sizeof(command)));
}

json_t *host_json(int argc, char **argv)
{
    char command[1024];
    struct utsname uts;

    uname(&uts);
    return json_pack("{s:s, s:s, s:s, s:i, s:s, s:s, s:s}", "viaduct_version", viaduct_version(),
                     "libibverbs", base_name(host_libibverbs()), "cpu_model", cpu_model(),
                     "cpus_allowed", (int)cores_allowed(), "kernel", uts.release, "machine",
                     uts.machine, "command", command_line(argc, argv, command, sizeof(command)));
}
