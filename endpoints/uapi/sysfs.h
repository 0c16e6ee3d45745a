/* SPDX-License-Identifier: MIT */
/*
 * Inside of the sysfs model: one view is one tree of files, and how paths map to it.
 *
 *   RUNTIME_DIR/sysfs-DIGEST/                         root: what is below it has the kernel's names
 *     sys/class/infiniband/                           merged: ours and links to the host's own
 *       via0 -> ../../devices/virtual/infiniband/via0
 *       mlx5_0 -> /sys/class/infiniband/mlx5_0
 *     sys/class/infiniband_verbs/                     merged: abi_version, uverbs0 -> ...
 *     sys/devices/virtual/infiniband/via0/            node_type, ports/1/..., device -> ...
 *     sys/devices/virtual/infiniband_verbs/uverbs0/   ibdev, dev, device -> ...
 *     sys/devices/virtual/viaduct/via0/               what both are part of: modalias, net/...
 *     sys/class/misc/rdma_cm/                         abi_version, dev
 *     dev/infiniband/uverbs0                          a file that stands for the device node: a
 *                                                     node 0:0, which no driver has and anybody may
 *                                                     make, or an empty file where that is refused
 *     dev/infiniband/rdma_cm                          the same for the connection manager
 *
 * The digest covers all that the tree is made from, so processes with one configuration share one
 * tree, and a tree never changes but for the values of counters: a view of it is constant, and may
 * be used without locks.
 */
#ifndef VIADUCT_UAPI_SYSFS_H
#define VIADUCT_UAPI_SYSFS_H

#include "core/config.h"
#include "uapi/uapi.h"

struct sysfs_view {
    const struct config *config;
    const struct sysfs_view *before;   /* older ones are kept: somebody may be reading them */
    uint64_t host;                     /* digest of the host's own names when it was made */
    unsigned numbers[CONFIG_NICS_MAX]; /* N of uverbsN, one a NIC */
    bool out[CONFIG_NICS_MAX];         /* taken away (core/removal.h), and not in the tree */
    char root[SYSFS_PATH_MAX];         /* canonical */
    size_t root_len;
    size_t stem_len; /* of "RUNTIME_DIR/sysfs-" at the start of root */
    dev_t dev;       /* of the tree's files */
    ino_t nodes[CONFIG_NICS_MAX];
    ino_t cm_node;
};

/* A misc device; the minor number is of those that the kernel gives out as it likes. */
enum { SYSFS_MISC_MAJOR = 10, SYSFS_CM_MINOR = 122 };
#define SYSFS_CM_NAME "rdma_cm"

/* Directories in which our names stand beside the host's. */
enum sysfs_names { SYSFS_DEVICES, SYSFS_UVERBS, SYSFS_NUMBERS, SYSFS_CM };

struct sysfs_directory {
    const char *path;
    enum sysfs_names names;
    bool merged; /* it can be listed, and shows both */
};

enum { SYSFS_DIRECTORIES = 9 };
extern const struct sysfs_directory sysfs_directories[SYSFS_DIRECTORIES];

/* Write our i-th name in the directory: "via0", "uverbs0", "231:192". */
void sysfs_name(const struct sysfs_view *view, const struct sysfs_directory *directory, unsigned i,
                char *out, size_t out_size);

/* Is the entry of the directory ours (and not the host's)? */
bool sysfs_is_our_name(const struct sysfs_view *view, const struct sysfs_directory *directory,
                       const char *name, size_t len);

/*
 * sysfs_tree.c. Make the view: find free numbers (or keep those of `before`), build the tree or
 * find it built. `host_root` is "" but for tests. Returns 0 or negative errno. Blocks (files).
 */
int sysfs_view_make(const struct config *config, const char *host_root,
                    const struct sysfs_view *before, struct sysfs_view *out);
/* The host's own names in all merged directories. */
uint64_t sysfs_host_digest(const char *host_root);

/* sysfs_files.c. The files of our devices, written below the directory `root_fd`. */
int sysfs_files_write(int root_fd, const struct sysfs_view *view, const char *host_root);
/* Make the directories above the last component of path, as far as they are missing. */
int sysfs_make_parents(int root_fd, char *path);
/* Everything the files are made from besides the host's names. */
uint64_t sysfs_files_digest(const struct sysfs_view *view, const char *host_root);

/* sysfs_counters.c. Names below ports/1/, NULL behind the last. */
const char *sysfs_counter_name(unsigned i);

/* sysfs_path.c. Where a path leads. */
enum sysfs_match {
    SYSFS_FOREIGN, /* not ours: leave the call alone */
    SYSFS_MERGED,  /* a directory that shows ours and the host's */
    SYSFS_OURS,    /* something of our devices */
    SYSFS_HOST,    /* the host's, but reached through ours by "..": use the path in out */
};
enum sysfs_match sysfs_view_redirect(const struct sysfs_view *view, int dirfd, const char *path,
                                     char out[SYSFS_PATH_MAX]);
size_t sysfs_view_unmap(const struct sysfs_view *view, char *path, size_t len);

#endif
