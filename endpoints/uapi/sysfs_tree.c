/* SPDX-License-Identifier: MIT */
/*
 * Making a tree, or finding it made. It is built under another name and renamed when it is
 * complete: whoever sees it sees all of it, and of several processes that build at once one wins.
 * Trees that nobody has attached to for a week are removed by whoever builds a new one; a process
 * that still used such a tree builds it again.
 */
#include "uapi/sysfs.h"

#include "core/digest.h"
#include "core/removal.h"
#include "core/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { STALE_SECONDS = 7 * 24 * 3600, FAILED_SECONDS = 3600, DEPTH_MAX = 16 };

/* opendir() is one of the calls we interpose. */
static DIR *directory_open(int at, const char *path)
{
    int fd = sys_openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

    if (fd >= 0 && !dir)
        sys_close(fd);
    return dir;
}

static DIR *host_directory(const char *host_root, const struct sysfs_directory *directory)
{
    char path[SYSFS_PATH_MAX];

    if (!directory->merged)
        return NULL;
    snprintf(path, sizeof path, "%s%s", host_root, directory->path);
    return directory_open(AT_FDCWD, path);
}

static const char *next_name(DIR *dir)
{
    struct dirent *entry;

    do {
        entry = readdir(dir);
    } while (entry && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0));
    return entry ? entry->d_name : NULL;
}

uint64_t sysfs_host_digest(const char *host_root)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < SYSFS_DIRECTORIES; i++) {
        DIR *dir = host_directory(host_root, &sysfs_directories[i]);

        if (!dir)
            continue;
        /* The order of a listing means nothing, so the names' digests are added up. */
        for (const char *name; (name = next_name(dir));)
            sum += digest_text(digest_bytes(DIGEST_INIT, &i, sizeof i), name);
        closedir(dir);
    }
    return sum;
}

/* ---- numbers: uverbsN that the host does not have ---- */
static bool number_is_taken(const char *host_root, unsigned number)
{
    static const char *const places[] = {"/sys/class/infiniband_verbs", "/dev/infiniband"};
    char path[SYSFS_PATH_MAX];

    for (unsigned i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s%s/uverbs%u", host_root, places[i], number);
        int fd = sys_open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
        if (fd >= 0) {
            sys_close(fd);
            return true;
        }
    }
    return false;
}

static void choose_numbers(const char *host_root, const struct sysfs_view *before,
                           struct sysfs_view *view)
{
    unsigned number = 0;

    /* A device keeps its number while the process lives: the program may have it open. */
    if (before) {
        memcpy(view->numbers, before->numbers, sizeof view->numbers);
        return;
    }
    for (unsigned i = 0; i < view->config->nic_count; i++, number++) {
        while (number_is_taken(host_root, number))
            number++;
        view->numbers[i] = number;
    }
}

/* ---- the host's own entries: links to where they are ---- */
static int merge_directory(int root_fd, const char *host_root, const struct sysfs_view *view,
                           const struct sysfs_directory *directory)
{
    DIR *dir = host_directory(host_root, directory);
    int error = 0;

    if (!dir)
        return 0;
    for (const char *name; !error && (name = next_name(dir));) {
        char path[SYSFS_PATH_MAX];
        char target[SYSFS_PATH_MAX];
        int len = snprintf(target, sizeof target, "%s%s/%s", host_root, directory->path, name);

        if ((size_t)len >= sizeof target || sysfs_is_our_name(view, directory, name, strlen(name)))
            continue;
        snprintf(path, sizeof path, "%s/%s", directory->path + 1, name);
        error = sysfs_make_parents(root_fd, path);
        if (!error && symlinkat(target, root_fd, path) != 0)
            error = -errno;
    }
    closedir(dir);
    return error;
}

static int tree_write(const char *path, const struct sysfs_view *view, const char *host_root)
{
    int root_fd = sys_open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    int error = 0;

    if (root_fd < 0)
        return -errno;
    for (unsigned i = 0; !error && i < SYSFS_DIRECTORIES; i++)
        error = merge_directory(root_fd, host_root, view, &sysfs_directories[i]);
    if (!error)
        error = sysfs_files_write(root_fd, view, host_root);
    sys_close(root_fd);
    return error;
}

/* ---- removal ---- */
static void remove_tree(int at, const char *path, int depth)
{
    DIR *dir = unlinkat(at, path, 0) != 0 && depth < DEPTH_MAX ? directory_open(at, path) : NULL;

    if (!dir)
        return;
    for (const char *name; (name = next_name(dir));)
        remove_tree(dirfd(dir), name, depth + 1);
    closedir(dir);
    unlinkat(at, path, AT_REMOVEDIR);
}

static void remove_stale(const char *runtime_dir, const char *own)
{
    DIR *dir = directory_open(AT_FDCWD, runtime_dir);

    if (!dir)
        return;
    for (const char *name; (name = next_name(dir));) {
        bool failed = strncmp(name, "sysfs-new-", 10) == 0;
        struct stat st;

        if (strncmp(name, "sysfs-", 6) != 0 || strcmp(name, own) == 0)
            continue;
        int fd = sys_openat(dirfd(dir), name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
        if (fd >= 0 && sys_fstat(fd, &st) == 0 &&
            time(NULL) - st.st_mtime > (failed ? FAILED_SECONDS : STALE_SECONDS))
            remove_tree(dirfd(dir), name, 0);
        if (fd >= 0)
            sys_close(fd);
    }
    closedir(dir);
}

/* ---- a view ---- */

/* Build it beside its place and move it there. Another process may be faster: then it is there. */
static int tree_build(const char *runtime_dir, const char *name, const struct sysfs_view *view,
                      const char *host_root)
{
    char scratch[SYSFS_PATH_MAX];
    char place[SYSFS_PATH_MAX];
    int error;

    snprintf(scratch, sizeof scratch, "%s/sysfs-new-XXXXXX", runtime_dir);
    snprintf(place, sizeof place, "%s/%s", runtime_dir, name);
    if (!mkdtemp(scratch))
        return -errno;
    error = tree_write(scratch, view, host_root);
    if (!error && rename(scratch, place) == 0) {
        remove_stale(runtime_dir, name);
        return 0;
    }
    if (!error && errno != EEXIST && errno != ENOTEMPTY)
        error = -errno;
    remove_tree(AT_FDCWD, scratch, 0);
    return error;
}

static void tree_remove(const char *runtime_dir, const char *name)
{
    char place[SYSFS_PATH_MAX];

    snprintf(place, sizeof place, "%s/%s", runtime_dir, name);
    remove_tree(AT_FDCWD, place, 0);
}

static bool node_stat(int root_fd, const char *path, struct stat *st_out)
{
    int node = sys_openat(root_fd, path, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);

    memset(st_out, 0, sizeof(*st_out));
    if (node < 0)
        return false;
    bool good = sys_fstat(node, st_out) == 0;
    sys_close(node);
    return good;
}

/* Fill in what depends on the files themselves. False if the tree is not (or no longer) there. */
static bool view_attach(const char *runtime_dir, const char *name, struct sysfs_view *view)
{
    char path[SYSFS_PATH_MAX];
    char link[40];
    struct stat st;

    snprintf(path, sizeof path, "%s/%s", runtime_dir, name);
    int fd = sys_open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (fd < 0)
        return false;
    /* The kernel answers with canonical paths, and those are what is compared. */
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = sys_readlink(link, view->root, sizeof view->root - 1);
    if (len <= 0)
        len = snprintf(view->root, sizeof view->root, "%s", path);
    view->root[len] = '\0';
    view->root_len = (size_t)len;
    view->stem_len = view->root_len - strlen(name) + strlen("sysfs-");

    bool good = futimens(fd, NULL) == 0; /* in use: see remove_stale() */
    for (unsigned i = 0; good && i < view->config->nic_count; i++) {
        if (view->out[i])
            continue;
        snprintf(path, sizeof path, "dev/infiniband/uverbs%u", view->numbers[i]);
        good = node_stat(fd, path, &st);
        view->nodes[i] = st.st_ino;
    }
    good = good && node_stat(fd, "dev/infiniband/" SYSFS_CM_NAME, &st);
    view->cm_node = st.st_ino;
    view->dev = st.st_dev;
    sys_close(fd);
    return good;
}

int sysfs_view_make(const struct config *config, const char *host_root,
                    const struct sysfs_view *before, struct sysfs_view *out)
{
    char name[40];
    int error = 0;

    memset(out, 0, sizeof *out);
    out->config = config;
    out->host = sysfs_host_digest(host_root);
    choose_numbers(host_root, before, out);
    for (unsigned i = 0; i < config->nic_count; i++)
        out->out[i] = removal_is_marked(config->runtime_dir, config->nics[i].name);
    uint64_t digest =
        digest_bytes(sysfs_files_digest(out, host_root), &out->host, sizeof out->host);
    digest = digest_text(digest, host_root);
    snprintf(name, sizeof name, "sysfs-%016llx", (unsigned long long)digest);

    /* A tree that is there but lacks something was damaged by hand: the second round replaces it.
     */
    for (int round = 0; !error && !view_attach(config->runtime_dir, name, out); round++) {
        if (round == 2)
            return -ENOENT;
        if (round == 1)
            tree_remove(config->runtime_dir, name);
        error = tree_build(config->runtime_dir, name, out, host_root);
    }
    return error;
}
