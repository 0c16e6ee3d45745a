/* SPDX-License-Identifier: MIT */
/*
 * Calls that take a path and need no more than to be led to the right place, and calls that give
 * out a path, which must not be the one of our tree.
 */
#include "uapi/intercept.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

EXPORTED(int, access, (const char *path, int mode));
int via_access(const char *path, int mode)
{
    char out[SYSFS_PATH_MAX];

    return real.access(route(path, out), mode);
}

EXPORTED(int, faccessat, (int dirfd, const char *path, int mode, int flags));
int via_faccessat(int dirfd, const char *path, int mode, int flags)
{
    char out[SYSFS_PATH_MAX];

    return real.faccessat(dirfd, route_at(dirfd, path, out), mode, flags);
}

EXPORTED(int, euidaccess, (const char *path, int mode));
int via_euidaccess(const char *path, int mode)
{
    char out[SYSFS_PATH_MAX];

    return real.euidaccess(route(path, out), mode);
}
EXPORTED_ALIAS(int, eaccess, (const char *path, int mode), euidaccess);

EXPORTED(int, chdir, (const char *path));
int via_chdir(const char *path)
{
    char out[SYSFS_PATH_MAX];

    return real.chdir(route(path, out));
}

/* ls -l asks for these of every file, and complains where they fail with ENOENT. */
EXPORTED(ssize_t, getxattr, (const char *path, const char *name, void *value, size_t size));
ssize_t via_getxattr(const char *path, const char *name, void *value, size_t size)
{
    char out[SYSFS_PATH_MAX];

    return real.getxattr(route(path, out), name, value, size);
}

EXPORTED(ssize_t, lgetxattr, (const char *path, const char *name, void *value, size_t size));
ssize_t via_lgetxattr(const char *path, const char *name, void *value, size_t size)
{
    char out[SYSFS_PATH_MAX];

    return real.lgetxattr(route(path, out), name, value, size);
}

EXPORTED(ssize_t, listxattr, (const char *path, char *list, size_t size));
ssize_t via_listxattr(const char *path, char *list, size_t size)
{
    char out[SYSFS_PATH_MAX];

    return real.listxattr(route(path, out), list, size);
}

EXPORTED(ssize_t, llistxattr, (const char *path, char *list, size_t size));
ssize_t via_llistxattr(const char *path, char *list, size_t size)
{
    char out[SYSFS_PATH_MAX];

    return real.llistxattr(route(path, out), list, size);
}

/* ---- paths that come back ---- */

/* "/proc/self/fd/N" of an open device of ours: its name in `buf`; false if it is not that. */
static bool readlink_fd(const char *path, char *buf, size_t size, ssize_t *len_out)
{
    char prefix[40];
    char *end;

    snprintf(prefix, sizeof prefix, "/proc/%d/fd/", getpid());
    if (strncmp(path, "/proc/self/fd/", 14) == 0)
        path += 14;
    else if (strncmp(path, prefix, strlen(prefix)) == 0)
        path += strlen(prefix);
    else
        return false;
    unsigned long fd = strtoul(path, &end, 10);
    struct uapi_file *file = end != path && !*end && fd < FDTAB_SIZE ? fdtab_hold((int)fd) : NULL;
    if (!file)
        return false;
    size_t len = strlen(file->path);
    bool known = len > 0;
    *len_out = (ssize_t)(len < size ? len : size);
    memcpy(buf, file->path, (size_t)*len_out);
    fdtab_put(file);
    return known;
}

static ssize_t readlink_any(int dirfd, const char *path, char *buf, size_t size)
{
    char out[SYSFS_PATH_MAX];
    const char *where = route_at(dirfd, path, out);
    bool magic = path && strncmp(path, "/proc/", 6) == 0; /* a link whose text is a path's */
    ssize_t len = real.readlinkat(dirfd, where, buf, size);

    if (len <= 0 || (where == path && !magic))
        return len;
    if (magic && readlink_fd(path, buf, size, &len))
        return len;
    /* A full buffer may hold a part only, and a part of a path can't be translated. */
    return (size_t)len < size ? (ssize_t)sysfs_unmap(buf, (size_t)len) : len;
}

EXPORTED(ssize_t, readlink, (const char *path, char *buf, size_t size));
ssize_t via_readlink(const char *path, char *buf, size_t size)
{
    return readlink_any(AT_FDCWD, path, buf, size);
}

EXPORTED(ssize_t, readlinkat, (int dirfd, const char *path, char *buf, size_t size));
ssize_t via_readlinkat(int dirfd, const char *path, char *buf, size_t size)
{
    return readlink_any(dirfd, path, buf, size);
}

/* Those of -D_FORTIFY_SOURCE also know how big the buffer is. */
EXPORTED(ssize_t, __readlink_chk, (const char *path, char *buf, size_t size, size_t room));
ssize_t via___readlink_chk(const char *path, char *buf, size_t size, size_t room)
{
    if (size > room)
        abort();
    return readlink_any(AT_FDCWD, path, buf, size);
}

EXPORTED(ssize_t, __readlinkat_chk,
         (int dirfd, const char *path, char *buf, size_t size, size_t room));
ssize_t via___readlinkat_chk(int dirfd, const char *path, char *buf, size_t size, size_t room)
{
    if (size > room)
        abort();
    return readlink_any(dirfd, path, buf, size);
}

static char *realpath_any(const char *path, char *resolved)
{
    char out[SYSFS_PATH_MAX];
    char *result = real.realpath(route(path, out), resolved);

    /* libc leaves there how far it got, if it was not all the way. */
    const char *left = result ? result : resolved;
    if (left && (result || errno == ENOENT || errno == EACCES))
        sysfs_unmap(result ? result : resolved, strnlen(left, PATH_MAX));
    return result;
}

EXPORTED(char *, realpath, (const char *path, char *resolved));
char *via_realpath(const char *path, char *resolved)
{
    return realpath_any(path, resolved);
}

EXPORTED(char *, __realpath_chk, (const char *path, char *resolved, size_t room));
char *via___realpath_chk(const char *path, char *resolved, size_t room)
{
    if (resolved && room < PATH_MAX)
        abort();
    return realpath_any(path, resolved);
}

EXPORTED(char *, canonicalize_file_name, (const char *path));
char *via_canonicalize_file_name(const char *path)
{
    return realpath_any(path, NULL);
}

static char *getcwd_any(char *buf, size_t size)
{
    char *result = real.getcwd(buf, size);

    if (result)
        sysfs_unmap(result, strlen(result));
    return result;
}

EXPORTED(char *, getcwd, (char *buf, size_t size));
char *via_getcwd(char *buf, size_t size)
{
    return getcwd_any(buf, size);
}

EXPORTED(char *, get_current_dir_name, (void));
char *via_get_current_dir_name(void)
{
    return getcwd_any(NULL, 0);
}

EXPORTED(char *, __getcwd_chk, (char *buf, size_t size, size_t room));
char *via___getcwd_chk(char *buf, size_t size, size_t room)
{
    if (size > room)
        abort();
    return getcwd_any(buf, size);
}
