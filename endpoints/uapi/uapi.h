/* SPDX-License-Identifier: MIT */
/*
 * The kernel's face: what the intercepted libc calls are routed to. The intercept files and fdtab.c
 * call downwards into these; uverbs.c implements the uverbs ones.
 *
 *   intercept_path.c --path--> sysfs.c (redirect)       fdtab.c: fd -> struct uapi_file
 *   intercept_fd.c   --------- write/close on our fds --> uverbs.c ... cmd_*.c --> core/
 */
#ifndef VIADUCT_UAPI_UAPI_H
#define VIADUCT_UAPI_UAPI_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct config;
struct nic;
struct uapi_file;

/*
 * An open device file of ours. The last close of all its duplicates releases it. `ops` is how the
 * interception hands over; all return as the system call would: >= 0 or negative errno.
 */
struct uapi_file_ops {
    ssize_t (*write)(struct uapi_file *file, const void *buf, size_t len); /* NULL: the real one */
    void (*release)(struct uapi_file *file);
};

struct uapi_file {
    const struct uapi_file_ops *ops;
    dev_t rdev;       /* fstat reports this character device; 0: what the descriptor really is */
    atomic_int refs;  /* descriptors that name it and calls that use it; fdtab.c alone counts */
    atomic_bool dead; /* inherited through fork: every write answers -EIO, never released */
    char path[64];    /* "/dev/infiniband/uverbs0" */
};

/* ---- fdtab.c: which descriptors are ours. A look costs one byte-table load, no lock. ---- */
enum { FDTAB_SIZE = 1 << 16 };

/* 1 for each descriptor of ours. Only to be read through fdtab_has(). */
extern _Atomic uint8_t fdtab_ours[FDTAB_SIZE];

static inline bool fdtab_has(int fd)
{
    return (unsigned)fd < FDTAB_SIZE &&
           atomic_load_explicit(&fdtab_ours[fd], memory_order_relaxed) != 0;
}

int fdtab_set(int fd, struct uapi_file *file); /* takes one reference; -EMFILE: fd is too high */
struct uapi_file *fdtab_get(int fd);           /* NULL if fd is not ours; good until fd is closed */
struct uapi_file *fdtab_hold(int fd);          /* the same with a reference of the caller's own */
void fdtab_put(struct uapi_file *file);        /* gives it back; the last one releases */
void fdtab_dup(int old_fd, int new_fd);        /* after dup*: new_fd names what old_fd names */
void fdtab_clear(int fd);                      /* before close; releases at the last reference */
void fdtab_clear_range(unsigned first, unsigned last);
void fdtab_after_fork(void); /* in the child: every file is dead */
/* False in a child made by vfork or a bare clone: its closes are not the parent's. */
bool fdtab_is_owner(void);

/*
 * ---- sysfs.c: a private tree in the runtime directory that mirrors the kernel's names. ----
 * The device node of a NIC is /dev/infiniband/uverbsN, 231:(192 + N); N is the first number that
 * the host does not use. All of these are safe to call from any thread, and keep errno.
 */
enum { SYSFS_PATH_MAX = 512, SYSFS_UVERBS_MAJOR = 231, SYSFS_UVERBS_MINOR = 192 };

/* Build the tree for all NICs of the process; idempotent; safe against other processes. */
int sysfs_build(const struct config *config);

/* A first, cheap look: false if the path can't be ours, however it is written. NULL is allowed. */
bool sysfs_may_be_ours(const char *path);
/*
 * Where `path` (as the program gave it, relative to dirfd) should be looked up instead: true and
 * the real path in out (SYSFS_PATH_MAX bytes) if it belongs to one of our devices, or is a
 * directory that must show them merged with the host's own; false if the call should go through
 * untouched. Never allocates, but for the first call of the process, which builds the tree.
 */
bool sysfs_redirect(int dirfd, const char *path, char *out);
/* A path that sysfs_redirect() gave is about to be opened: if it is a counter, that is up to date.
 */
void sysfs_refresh(const char *path);
/* A path the kernel gave out ("TREE/sys/class/..."): in place to what the program knows. */
size_t sysfs_unmap(char *path, size_t len);

/* Is a path that sysfs_redirect() gave in the tree (and not the host's, reached through it)? */
bool sysfs_is_in_tree(const char *path);

/* The NIC whose device node the file is that a real stat call has described; NULL if none. */
const struct nic *sysfs_node(dev_t dev, ino_t ino);
dev_t sysfs_rdev(const struct nic *nic);
/* The same of the connection manager's node, /dev/infiniband/rdma_cm. */
bool sysfs_is_cm_node(dev_t dev, ino_t ino);
dev_t sysfs_cm_rdev(void);
/* Make of a stat result what the kernel would have said of the device file. */
void sysfs_fill_node(dev_t rdev, struct stat *st);
/* "/dev/infiniband/uverbsN" */
void sysfs_node_path(const struct nic *nic, char *out, size_t out_size);
void sysfs_after_fork(void);

/* One line on stderr, once, if a device list is made without a provider for our devices. */
void provider_check(void);

/* ---- uverbs.c: /dev/infiniband/uverbsN. ---- */
/*
 * Open a context on nic: 0 and a new descriptor (close-on-exec, already in fdtab) in fd_out, or
 * negative errno. The interception fills in rdev and path of the file.
 */
int uverbs_open(const struct nic *nic, int flags, int *fd_out);
/* In a forked child, after every file was marked dead. */
void uverbs_after_fork(void);

/* ---- ucma.c: /dev/infiniband/rdma_cm. ---- */
/* Open an event channel, as uverbs_open() opens a context. */
int ucma_open(int flags, int *fd_out);
void ucma_after_fork(void);

#endif
