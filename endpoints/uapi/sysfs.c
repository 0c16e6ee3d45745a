/* SPDX-License-Identifier: MIT */
/*
 * The sysfs model of this process: the view in use, made when a program first looks for RDMA
 * devices, and made anew when the host's own devices have changed or the tree was removed.
 *
 * Views are constant and never freed (one is 1 KiB, and changes are rare), so readers need no lock.
 */
#include "uapi/sysfs.h"

#include "core/removal.h"
#include "core/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const struct sysfs_view *_Atomic current;
static atomic_flag renewing = ATOMIC_FLAG_INIT;
static atomic_flag complained = ATOMIC_FLAG_INIT;
static pthread_once_t once = PTHREAD_ONCE_INIT;
/* This thread is making a view: what it opens on the way is not for us (an allocator may open). */
static _Thread_local bool making __attribute__((tls_model("initial-exec")));

static int view_make(const struct config *config, const struct sysfs_view *before)
{
    struct sysfs_view *view = malloc(sizeof *view);
    int error = -ENOMEM;

    if (view)
        error = sysfs_view_make(config, "", before, view);
    if (!error) {
        view->before = before;
        atomic_store(&current, view);
        return 0;
    }
    free(view);
    if (!atomic_flag_test_and_set(&complained))
        dprintf(STDERR_FILENO, "viaduct: can't build the device files in %s: %s\n",
                config->runtime_dir, strerror(-error));
    return error;
}

static void view_make_first(void)
{
    const struct config *config = config_get();

    if (config)
        view_make(config, NULL);
}

/* The view in use, made if this is the first time; NULL if there are no devices. */
static const struct sysfs_view *view_get(void)
{
    const struct sysfs_view *view = atomic_load(&current);

    if (view || making)
        return view;
    making = true;
    pthread_once(&once, view_make_first);
    making = false;
    return atomic_load(&current);
}

/* Was a NIC taken away, or did one come again? */
static bool is_outdated(const struct sysfs_view *view)
{
    for (unsigned i = 0; i < view->config->nic_count; i++)
        if (removal_is_marked(view->config->runtime_dir, view->config->nics[i].name) !=
            view->out[i])
            return true;
    return false;
}

static bool lacks_some(const struct sysfs_view *view)
{
    for (unsigned i = 0; i < view->config->nic_count; i++)
        if (view->out[i])
            return true;
    return false;
}

/* A view that is right now: a listing must show a device that was plugged in since. */
static const struct sysfs_view *view_renew(const struct sysfs_view *view, bool listing)
{
    if (making)
        return view;
    int fd = sys_open(view->root, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd >= 0)
        sys_close(fd);
    making = true;
    if (fd < 0 || (listing && sysfs_host_digest("") != view->host) || is_outdated(view)) {
        if (!atomic_flag_test_and_set(&renewing)) {
            view_make(view->config, view);
            atomic_flag_clear(&renewing);
        }
    }
    making = false;
    return atomic_load(&current);
}

int sysfs_build(const struct config *config)
{
    int saved = errno;
    bool good = config && config == config_get() && view_get();

    errno = saved;
    return good ? 0 : -ENODEV;
}

bool sysfs_redirect(int dirfd, const char *path, char *out)
{
    int saved = errno;
    const struct sysfs_view *view = view_get();
    enum sysfs_match found = SYSFS_FOREIGN;

    if (view)
        found = sysfs_view_redirect(view, dirfd, path, out);
    /* What is not ours now may have come again. */
    if (found == SYSFS_OURS || found == SYSFS_MERGED || (view && lacks_some(view))) {
        const struct sysfs_view *now = view_renew(view, found == SYSFS_MERGED);

        if (now != view)
            found = sysfs_view_redirect(now, dirfd, path, out);
    }
    errno = saved;
    return found != SYSFS_FOREIGN;
}

size_t sysfs_unmap(char *path, size_t len)
{
    const struct sysfs_view *view = atomic_load(&current);

    return view ? sysfs_view_unmap(view, path, len) : len;
}

bool sysfs_is_in_tree(const char *path)
{
    const struct sysfs_view *view = atomic_load(&current);

    return view && strncmp(path, view->root, view->stem_len) == 0;
}

static int node_index(const struct sysfs_view *view, dev_t dev, ino_t ino)
{
    if (!view || dev != view->dev)
        return -1;
    for (unsigned i = 0; i < view->config->nic_count; i++)
        if (view->nodes[i] == ino && !view->out[i])
            return (int)i;
    return -1;
}

const struct nic *sysfs_node(dev_t dev, ino_t ino)
{
    const struct sysfs_view *view = atomic_load_explicit(&current, memory_order_acquire);
    int index = node_index(view, dev, ino);

    return index < 0 ? NULL : &view->config->nics[index];
}

bool sysfs_is_cm_node(dev_t dev, ino_t ino)
{
    const struct sysfs_view *view = atomic_load_explicit(&current, memory_order_acquire);

    return view && dev == view->dev && ino == view->cm_node;
}

dev_t sysfs_cm_rdev(void)
{
    return makedev(SYSFS_MISC_MAJOR, SYSFS_CM_MINOR);
}

dev_t sysfs_rdev(const struct nic *nic)
{
    const struct sysfs_view *view = view_get();

    return view ? makedev(SYSFS_UVERBS_MAJOR, SYSFS_UVERBS_MINOR + view->numbers[nic->index]) : 0;
}

void sysfs_node_path(const struct nic *nic, char *out, size_t out_size)
{
    const struct sysfs_view *view = view_get();

    snprintf(out, out_size, "/dev/infiniband/uverbs%u", view ? view->numbers[nic->index] : 0);
}

void sysfs_fill_node(dev_t rdev, struct stat *st)
{
    const struct sysfs_view *view = atomic_load(&current);

    for (unsigned i = 0; view && i < view->config->nic_count; i++) {
        if (rdev == makedev(SYSFS_UVERBS_MAJOR, SYSFS_UVERBS_MINOR + view->numbers[i])) {
            st->st_dev = view->dev;
            st->st_ino = view->nodes[i];
        }
    }
    if (view && rdev == sysfs_cm_rdev()) {
        st->st_dev = view->dev;
        st->st_ino = view->cm_node;
    }
    st->st_mode = S_IFCHR | 0666;
    st->st_nlink = 1;
    st->st_rdev = rdev;
    st->st_size = 0;
    st->st_blocks = 0;
}

void sysfs_after_fork(void)
{
    /* Whoever was renewing is not in this process. */
    atomic_flag_clear(&renewing);
    making = false;
}
