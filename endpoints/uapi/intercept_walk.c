/* SPDX-License-Identifier: MIT */
/*
 * ftw() and nftw(): libc looks by itself there, where no interposed function is called. It walks
 * our tree, and what it finds is told to the program under the names that the program knows.
 */
#include "uapi/intercept.h"

#include <ftw.h>
#include <limits.h>
#include <string.h>

/* Whom to tell. A visitor may start a walk of its own. */
struct walk_call {
    real_nftw_visit *nftw;
    real_ftw_visit *ftw;
};

static _Thread_local struct walk_call current __attribute__((tls_model("initial-exec")));

/* libc gives no longer names than this to a visitor. */
static const char *name_known(const char *path, char out[PATH_MAX])
{
    size_t len = strlen(path);

    if (len >= PATH_MAX)
        return path;
    memcpy(out, path, len + 1);
    sysfs_unmap(out, len);
    return out;
}

static int visit_nftw(const char *path, const struct stat *st, int type, struct FTW *place)
{
    char out[PATH_MAX];
    const char *name = name_known(path, out), *slash = strrchr(name, '/');
    struct FTW known = {.base = slash ? (int)(slash + 1 - name) : 0, .level = place->level};
    struct stat fixed = *st;

    node_fix(&fixed);
    return current.nftw(name, &fixed, type, &known);
}

static int visit_ftw(const char *path, const struct stat *st, int type)
{
    char out[PATH_MAX];
    struct stat fixed = *st;

    node_fix(&fixed);
    return current.ftw(name_known(path, out), &fixed, type);
}

EXPORTED(int, nftw, (const char *path, real_nftw_visit *visit, int descriptors, int flags));
int via_nftw(const char *path, real_nftw_visit *visit, int descriptors, int flags)
{
    char out[SYSFS_PATH_MAX];
    const char *where = route(path, out);
    struct walk_call before = current;

    if (where == path)
        return real.nftw(path, visit, descriptors, flags);
    current.nftw = visit;
    int result = real.nftw(where, visit_nftw, descriptors, flags);
    current = before;
    return result;
}
EXPORTED_ALIAS(int, nftw64, (const char *path, real_nftw_visit *visit, int descriptors, int flags),
               nftw);

EXPORTED(int, ftw, (const char *path, real_ftw_visit *visit, int descriptors));
int via_ftw(const char *path, real_ftw_visit *visit, int descriptors)
{
    char out[SYSFS_PATH_MAX];
    const char *where = route(path, out);
    struct walk_call before = current;

    if (where == path)
        return real.ftw(path, visit, descriptors);
    current.ftw = visit;
    int result = real.ftw(where, visit_ftw, descriptors);
    current = before;
    return result;
}
EXPORTED_ALIAS(int, ftw64, (const char *path, real_ftw_visit *visit, int descriptors), ftw);
