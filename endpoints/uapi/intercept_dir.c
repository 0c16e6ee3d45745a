/* SPDX-License-Identifier: MIT */
/* Directories and streams: libc opens these inside, where no interposed open() is called. */
#include "uapi/intercept.h"

#include <string.h>

static DIR *opendir_any(const char *path)
{
    static const char list[] = "/sys/class/infiniband_verbs";
    char out[SYSFS_PATH_MAX];
    const char *where = route(path, out);

    /* This is how libibverbs makes its device list: the moment to say if it will be in vain. */
    if (where != path) {
        size_t len = strlen(where);
        if (len >= sizeof list && strcmp(where + len - (sizeof list - 1), list) == 0)
            provider_check();
        sysfs_refresh(where);
    }
    return real.opendir(where);
}

EXPORTED(DIR *, opendir, (const char *path));
DIR *via_opendir(const char *path)
{
    return opendir_any(path);
}

EXPORTED(int, scandir,
         (const char *path, struct dirent ***list, real_filter *filter, real_order *order));
int via_scandir(const char *path, struct dirent ***list, real_filter *filter, real_order *order)
{
    char out[SYSFS_PATH_MAX];

    return real.scandir(route(path, out), list, filter, order);
}
EXPORTED_ALIAS(int, scandir64,
               (const char *path, struct dirent ***list, real_filter *filter, real_order *order),
               scandir);

EXPORTED(int, scandirat,
         (int dirfd, const char *path, struct dirent ***list, real_filter *filter,
          real_order *order));
int via_scandirat(int dirfd, const char *path, struct dirent ***list, real_filter *filter,
                  real_order *order)
{
    char out[SYSFS_PATH_MAX];

    return real.scandirat(dirfd, route_at(dirfd, path, out), list, filter, order);
}
EXPORTED_ALIAS(int, scandirat64,
               (int dirfd, const char *path, struct dirent ***list, real_filter *filter,
                real_order *order),
               scandirat);

/* ---- glob: it takes functions to look with, so it gets ours ---- */

static void *glob_opendir(const char *path)
{
    return opendir_any(path);
}

static struct dirent *glob_readdir(void *dir)
{
    return readdir(dir);
}

static void glob_closedir(void *dir)
{
    closedir(dir);
}

/* Not declared here: these are exported from intercept_stat.c, under libc's names. */
static int glob_stat(const char *path, struct stat *st)
{
    return stat(path, st);
}

static int glob_lstat(const char *path, struct stat *st)
{
    return lstat(path, st);
}

EXPORTED(int, glob,
         (const char *pattern, int flags, int (*failed)(const char *, int), glob_t *out));
int via_glob(const char *pattern, int flags, int (*failed)(const char *, int), glob_t *out)
{
    if ((flags & GLOB_ALTDIRFUNC) ||
        (strncmp(pattern, "/sys/", 5) != 0 && strncmp(pattern, "/dev/", 5) != 0 &&
         !sysfs_may_be_ours(pattern)))
        return real.glob(pattern, flags, failed, out);
    out->gl_opendir = glob_opendir;
    out->gl_readdir = glob_readdir;
    out->gl_closedir = glob_closedir;
    out->gl_stat = glob_stat;
    out->gl_lstat = glob_lstat;
    int result = real.glob(pattern, flags | GLOB_ALTDIRFUNC, failed, out);
    out->gl_flags &= ~GLOB_ALTDIRFUNC;
    return result;
}
EXPORTED_ALIAS(int, glob64,
               (const char *pattern, int flags, int (*failed)(const char *, int), glob_t *out),
               glob);

/* ---- streams ---- */

EXPORTED(FILE *, fopen, (const char *path, const char *mode));
FILE *via_fopen(const char *path, const char *mode)
{
    char out[SYSFS_PATH_MAX];
    const char *where = route(path, out);

    if (where != path)
        sysfs_refresh(where);
    return real.fopen(where, mode);
}
EXPORTED_ALIAS(FILE *, fopen64, (const char *path, const char *mode), fopen);

EXPORTED(FILE *, freopen, (const char *path, const char *mode, FILE *file));
FILE *via_freopen(const char *path, const char *mode, FILE *file)
{
    char out[SYSFS_PATH_MAX];

    return real.freopen(route(path, out), mode, file);
}
EXPORTED_ALIAS(FILE *, freopen64, (const char *path, const char *mode, FILE *file), freopen);

EXPORTED(int, fclose, (FILE * file));
int via_fclose(FILE *file)
{
    int fd = fileno(file);

    if (__builtin_expect(fdtab_has(fd), 0) && fdtab_is_owner())
        fdtab_clear(fd);
    return real.fclose(file);
}
