/* SPDX-License-Identifier: MIT */
/*
 * Where a path leads: to our tree, or to where it always did. Paths are compared after empty and
 * "." components are dropped. ".." can't be dropped by looking at the text, because what stands
 * before it may be a symbolic link: the kernel is asked what directory it is.
 */
#include "uapi/sysfs.h"

#include "core/sys.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

const struct sysfs_directory sysfs_directories[SYSFS_DIRECTORIES] = {
    {"/sys/class/infiniband", SYSFS_DEVICES, true},
    {"/sys/class/infiniband_verbs", SYSFS_UVERBS, true},
    {"/sys/devices/virtual/infiniband", SYSFS_DEVICES, true},
    {"/sys/devices/virtual/infiniband_verbs", SYSFS_UVERBS, true},
    {"/dev/infiniband", SYSFS_UVERBS, true},
    {"/sys/dev/char", SYSFS_NUMBERS, false},
    {"/dev/char", SYSFS_NUMBERS, false},
    {"/sys/class/misc", SYSFS_CM, false},
    {"/sys/devices/virtual/viaduct", SYSFS_DEVICES, true},
};

void sysfs_name(const struct sysfs_view *view, const struct sysfs_directory *directory, unsigned i,
                char *out, size_t out_size)
{
    unsigned number = view->numbers[i];

    if (directory->names == SYSFS_DEVICES)
        snprintf(out, out_size, "%s", view->config->nics[i].name);
    else if (directory->names == SYSFS_UVERBS)
        snprintf(out, out_size, "uverbs%u", number);
    else
        snprintf(out, out_size, "%u:%u", SYSFS_UVERBS_MAJOR, SYSFS_UVERBS_MINOR + number);
}

size_t sysfs_view_unmap(const struct sysfs_view *view, char *path, size_t len)
{
    const char *end;

    if (len < view->root_len || strncmp(path, view->root, view->stem_len) != 0)
        return len;
    /* Any tree will do: this process may have used another one before. */
    end = memchr(path + view->stem_len, '/', len - view->stem_len);
    if (!end)
        return len;
    size_t left = len - (size_t)(end - path);
    memmove(path, end, left);
    path[left] = '\0';
    return left;
}

/* What the directory open as `fd` is called by the program; the length, or -1. */
static ssize_t path_of_fd(const struct sysfs_view *view, int fd, char out[SYSFS_PATH_MAX])
{
    char link[40];

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = sys_readlink(link, out, SYSFS_PATH_MAX - 1);
    if (len <= 0 || len == SYSFS_PATH_MAX - 1 || out[0] != '/')
        return -1;
    out[len] = '\0';
    return (ssize_t)sysfs_view_unmap(view, out, (size_t)len);
}

static ssize_t path_of_cwd(const struct sysfs_view *view, char out[SYSFS_PATH_MAX])
{
    long len = syscall(SYS_getcwd, out, SYSFS_PATH_MAX); /* counts the final zero */

    if (len <= 1 || out[0] != '/')
        return -1;
    return (ssize_t)sysfs_view_unmap(view, out, (size_t)len - 1);
}

/* The component of `path` after the directory's own path, NULL if it is not below it. */
static const char *below(const char *path, const char *directory)
{
    size_t len = strlen(directory);

    return strncmp(path, directory, len) == 0 && path[len] == '/' ? path + len + 1 : NULL;
}

bool sysfs_is_our_name(const struct sysfs_view *view, const struct sysfs_directory *directory,
                       const char *name, size_t len)
{
    char ours[CONFIG_NAME_MAX];

    /* the one attribute of the class itself; the host's own says the same */
    if (directory == &sysfs_directories[1] && len == 11 && memcmp(name, "abi_version", 11) == 0)
        return true;
    /* one connection manager for all devices, the host's too */
    if ((directory == &sysfs_directories[4] || directory->names == SYSFS_CM) &&
        len == strlen(SYSFS_CM_NAME) && memcmp(name, SYSFS_CM_NAME, len) == 0)
        return true;
    if (directory->names == SYSFS_CM)
        return false;
    for (unsigned i = 0; i < view->config->nic_count; i++) {
        if (view->out[i])
            continue;
        sysfs_name(view, directory, i, ours, sizeof ours);
        if (strlen(ours) == len && memcmp(ours, name, len) == 0)
            return true;
    }
    return false;
}

/* `path` is absolute and clean, but may end in a slash. */
static enum sysfs_match match(const struct sysfs_view *view, const char *path)
{
    for (unsigned i = 0; i < SYSFS_DIRECTORIES; i++) {
        const struct sysfs_directory *directory = &sysfs_directories[i];
        const char *name = below(path, directory->path);

        if (name && *name)
            return sysfs_is_our_name(view, directory, name, strcspn(name, "/")) ? SYSFS_OURS
                                                                                : SYSFS_FOREIGN;
        if (directory->merged && (name || strcmp(path, directory->path) == 0))
            return SYSFS_MERGED;
    }
    return SYSFS_FOREIGN;
}

/* A path being put together: clean, absolute, as the program would call it. */
struct walk {
    const struct sysfs_view *view;
    size_t len;
    bool was_ours; /* some directory on the way was in our tree */
    char path[SYSFS_PATH_MAX];
};

static bool walk_append(struct walk *walk, const char *text, size_t len)
{
    if (walk->len + 1 + len + 1 > sizeof walk->path)
        return false;
    walk->path[walk->len++] = '/';
    memcpy(walk->path + walk->len, text, len);
    walk->len += len;
    walk->path[walk->len] = '\0';
    return true;
}

/* Where the clean path is really found; false if that is too long. */
static bool walk_locate(const struct walk *walk, char out[SYSFS_PATH_MAX])
{
    const char *root = "";

    if (match(walk->view, walk->path) != SYSFS_FOREIGN)
        root = walk->view->root;
    return snprintf(out, SYSFS_PATH_MAX, "%s%s", root, walk->path) < SYSFS_PATH_MAX;
}

/* "..": the parent of the directory that the path so far leads to. */
static bool walk_up(struct walk *walk)
{
    char real[SYSFS_PATH_MAX];

    if (walk->len == 0)
        return true; /* the parent of / is / */
    if (!walk_locate(walk, real))
        return false;
    int fd = sys_openat(AT_FDCWD, real, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return false;
    ssize_t len = path_of_fd(walk->view, fd, walk->path);
    sys_close(fd);
    if (len < 0)
        return false;
    if (match(walk->view, walk->path) != SYSFS_FOREIGN)
        walk->was_ours = true;
    walk->len = (size_t)(strrchr(walk->path, '/') - walk->path);
    walk->path[walk->len] = '\0';
    return true;
}

/* Start where a relative path does. */
static bool walk_start(struct walk *walk, int dirfd, const char *path)
{
    ssize_t len = 0;

    if (path[0] != '/') {
        len = dirfd == AT_FDCWD ? path_of_cwd(walk->view, walk->path)
                                : path_of_fd(walk->view, dirfd, walk->path);
        if (len < 0)
            return false;
        if (match(walk->view, walk->path) != SYSFS_FOREIGN)
            walk->was_ours = true;
    }
    walk->len = len == 1 ? 0 : (size_t)len; /* "/" is the empty path, to be appended to */
    walk->path[walk->len] = '\0';
    return true;
}

static bool walk_path(struct walk *walk, const char *path)
{
    const char *end = path;
    bool slash = false;

    for (const char *start = path; *start; start = end) {
        while (*start == '/')
            start++;
        end = start + strcspn(start, "/");
        size_t len = (size_t)(end - start);
        slash = len == 0 || (len == 1 && start[0] == '.');
        if (slash)
            continue;
        if (len == 2 && start[0] == '.' && start[1] == '.') {
            if (!walk_up(walk))
                return false;
            slash = true;
        } else if (!walk_append(walk, start, len)) {
            return false;
        }
    }
    /* "via0/" is what the link leads to, "via0" may be the link itself. */
    return !slash || walk_append(walk, "", 0);
}

/* What follows the prefix, if the path begins with it. */
static const char *after(const char *path, const char *prefix)
{
    size_t len = strlen(prefix);

    return strncmp(path, prefix, len) == 0 ? path + len : NULL;
}

/* Below /proc, what is about this process. */
static const char *own_proc(const char *path)
{
    char own[32];
    const char *rest = after(path, "/proc/self/");

    if (!rest)
        rest = after(path, "/proc/thread-self/");
    snprintf(own, sizeof own, "/proc/%d/", getpid());
    return rest ? rest : after(path, own);
}

/* The kernel's names for where a process is, and for its descriptors: with something behind. */
static void resolve_proc(int *dirfd, const char **path)
{
    const char *rest = own_proc(*path), *at = NULL;
    const char *number = rest ? after(rest, "fd/") : after(*path, "/dev/fd/");
    int fd = AT_FDCWD;

    if (number) {
        char *end;

        fd = (int)strtol(number, &end, 10);
        at = end > number && *end == '/' ? end : NULL;
    } else if (rest) {
        at = after(rest, "cwd/");
    }
    if (!number && rest && after(rest, "root/"))
        *path = rest + strlen("root");
    if (!at)
        return;
    while (*at == '/')
        at++;
    *dirfd = fd;
    *path = at;
}

enum sysfs_match sysfs_view_redirect(const struct sysfs_view *view, int dirfd, const char *path,
                                     char out[SYSFS_PATH_MAX])
{
    struct walk walk = {.view = view};

    if (path[0] == '/')
        resolve_proc(&dirfd, &path);
    if (!path[0] || !walk_start(&walk, dirfd, path) || !walk_path(&walk, path))
        return SYSFS_FOREIGN;
    enum sysfs_match found = match(view, walk.path);
    if (found == SYSFS_FOREIGN && walk.was_ours)
        found = SYSFS_HOST;
    if (found != SYSFS_FOREIGN && !walk_locate(&walk, out))
        return SYSFS_FOREIGN;
    return found;
}
