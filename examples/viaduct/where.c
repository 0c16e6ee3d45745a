/* SPDX-License-Identifier: MIT */
/* Where things are: the library beside this command, and programs on the PATH. */
#include "where.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *where_library(const char **tried_out)
{
    /* A build tree, or an installation's own idea of a library directory. */
    static const char *const places[] = {"../lib", "../" VIADUCT_LIBDIR};
    static char found[PATH_MAX], tried[2 * PATH_MAX];
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    if (length <= 0)
        return NULL;
    self[length] = '\0';
    slash = strrchr(self, '/');
    slash[slash == self] = '\0';
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        char path[sizeof(tried)];

        snprintf(path, sizeof(path), "%s/%s/libviaduct.so", self, places[i]);
        if (i == 0 && tried_out != NULL) {
            memcpy(tried, path, sizeof(tried));
            *tried_out = tried;
        }
        if (realpath(path, found) != NULL)
            return found;
    }
    return NULL;
}

static int look_at(const char *path, char *path_out, size_t size)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return -ENOENT;
    if ((size_t)snprintf(path_out, size, "%s", path) >= size)
        return -ENAMETOOLONG;
    return S_ISREG(st.st_mode) && access(path, X_OK) == 0 ? 0 : -EACCES;
}

int where_program(const char *name, char *path_out, size_t size)
{
    const char *path = getenv("PATH");
    char candidate[PATH_MAX];
    int best = -ENOENT;

    if (strchr(name, '/') != NULL)
        return look_at(name, path_out, size);
    if (*name == '\0')
        return -ENOENT;
    if (path == NULL)
        path = "/bin:/usr/bin";
    for (;;) {
        size_t length = strcspn(path, ":");
        int error;

        snprintf(candidate, sizeof(candidate), "%.*s%s%s", (int)length, path,
                 length > 0 ? "/" : "./", name);
        error = look_at(candidate, path_out, size);
        if (error == 0)
            return 0;
        best = error == -EACCES ? error : best;
        if (path[length] == '\0')
            return best;
        path += length + 1;
    }
}
