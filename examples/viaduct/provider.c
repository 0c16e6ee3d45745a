/* SPDX-License-Identifier: MIT */
/* The stock rxe provider of libibverbs, without which via0 does not appear. */
#include "provider.h"

#include "host.h"

#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CONFIG_DIR "/etc/libibverbs.d"

static bool environment_names_driver(void)
{
    const char *drivers = getenv("RDMAV_DRIVERS");

    if (drivers == NULL)
        drivers = getenv("IBV_DRIVERS");
    return drivers != NULL && strstr(drivers, "rxe") != NULL;
}

/* A file in the configuration folder with the words "driver rxe". */
static bool config_names_driver(void)
{
    glob_t files;
    bool found = false;

    if (glob(CONFIG_DIR "/*", 0, NULL, &files) != 0)
        return false;
    for (size_t i = 0; i < files.gl_pathc && !found; i++) {
        FILE *file = fopen(files.gl_pathv[i], "re");
        char line[256], name[200];

        while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL) {
            if (sscanf(line, " driver %199s", name) == 1)
                found = strcmp(name, "rxe") == 0 || strstr(name, "librxe") != NULL;
        }
        if (file != NULL)
            fclose(file);
    }
    globfree(&files);
    return found;
}

enum provider_state provider_find(char *path_out, size_t size)
{
    char pattern[PATH_MAX + 64];
    const char *libibverbs = host_libibverbs();
    const char *slash = strrchr(libibverbs, '/');
    glob_t files;

    snprintf(pattern, sizeof(pattern), "%.*s/libibverbs/librxe-rdmav*.so",
             slash != NULL ? (int)(slash - libibverbs) : 0, libibverbs);
    snprintf(path_out, size, "%s", pattern);
    if (glob(pattern, 0, NULL, &files) != 0)
        return PROVIDER_NO_LIBRARY;
    snprintf(path_out, size, "%s", files.gl_pathv[0]);
    globfree(&files);
    return config_names_driver() || environment_names_driver() ? PROVIDER_OK : PROVIDER_NO_CONFIG;
}

const char *provider_why_no_via(char *text, size_t size)
{
    char path[PATH_MAX + 64];

    switch (provider_find(path, sizeof(path))) {
    case PROVIDER_NO_LIBRARY:
        snprintf(text, size,
                 "the rxe provider of libibverbs is missing (%.300s); install the "
                 "Debian package ibverbs-providers",
                 path);
        break;
    case PROVIDER_NO_CONFIG:
        snprintf(text, size,
                 "no file in " CONFIG_DIR " says 'driver rxe'; install the Debian "
                 "package ibverbs-providers anew");
        break;
    default:
        snprintf(text, size, "libviaduct.so shows none; 'viaduct doctor' looks for the reason");
        break;
    }
    return text;
}

bool provider_kernel_has_rdma(void)
{
    return syscall(SYS_faccessat, AT_FDCWD, "/dev/infiniband", F_OK) == 0;
}
