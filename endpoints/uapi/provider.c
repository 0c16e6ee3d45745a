/* SPDX-License-Identifier: MIT */
/*
 * libibverbs drives our devices with the stock rxe provider, a plug-in that is often packaged
 * apart. Without it the device list is empty and nobody says why; so we do.
 */
#include "uapi/uapi.h"

#include "core/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct provider_search {
    bool library_seen; /* libibverbs is loaded as a shared library: it loads plug-ins */
    bool found;
};

static bool directory_has_provider(const char *path)
{
    int fd = sys_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    bool found = false;

    for (struct dirent *entry; dir && !found && (entry = readdir(dir));)
        found = fnmatch("librxe-rdmav*.so", entry->d_name, 0) == 0; /* there is an archive, too */
    if (dir)
        closedir(dir);
    else if (fd >= 0)
        sys_close(fd);
    return found;
}

/* Plug-ins lie beside the library or in a folder of its name. */
static int look_at_object(struct dl_phdr_info *info, size_t size __attribute__((unused)), void *arg)
{
    struct provider_search *search = arg;
    const char *base = strrchr(info->dlpi_name, '/');
    char path[512];

    if (!base)
        return 0;
    if (strncmp(base, "/librxe-rdmav", 13) == 0)
        search->found = true;
    if (strncmp(base, "/libibverbs.so", 14) != 0)
        return 0;
    search->library_seen = true;
    snprintf(path, sizeof path, "%.*s", (int)(base - info->dlpi_name), info->dlpi_name);
    search->found = search->found || directory_has_provider(path);
    snprintf(path, sizeof path, "%.*s/libibverbs", (int)(base - info->dlpi_name), info->dlpi_name);
    search->found = search->found || directory_has_provider(path);
    return 0;
}

static bool usual_places_have_provider(void)
{
    static const char *const places[] = {"/usr/lib/libibverbs",
                                         "/usr/lib64/libibverbs",
                                         "/usr/lib/x86_64-linux-gnu/libibverbs",
                                         "/usr/lib/aarch64-linux-gnu/libibverbs",
                                         "/usr/local/lib/libibverbs",
                                         "/usr/local/lib64/libibverbs"};
    const char *search_path = getenv("LD_LIBRARY_PATH");
    char path[512];

    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (directory_has_provider(places[i]))
            return true;
    while (search_path && *search_path) {
        size_t len = strcspn(search_path, ":;");

        snprintf(path, sizeof path, "%.*s", (int)len, search_path);
        if (directory_has_provider(path))
            return true;
        search_path += len + (search_path[len] != '\0');
    }
    return false;
}

void provider_check(void)
{
    static atomic_flag done = ATOMIC_FLAG_INIT;
    struct provider_search search = {0};
    int saved = errno;

    if (atomic_flag_test_and_set(&done) || getenv("RDMAV_DRIVERS") || getenv("IBV_DRIVERS"))
        return;
    dl_iterate_phdr(look_at_object, &search);
    if (search.library_seen && !search.found && !usual_places_have_provider()) {
        dprintf(STDERR_FILENO,
                "viaduct: libibverbs has no rxe provider (librxe-rdmav*.so), so no device can be "
                "opened; install it (Debian and Ubuntu: apt install ibverbs-providers)\n");
    }
    errno = saved;
}
