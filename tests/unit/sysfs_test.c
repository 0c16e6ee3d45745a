/* SPDX-License-Identifier: MIT */
/* The sysfs model: what the tree says, where paths lead, and that the host's devices stay. */
#include "uapi/sysfs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "scratch.h"

static struct config config;
static struct sysfs_view view;
static const char *host; /* stands for the host's / */

static void add_nic(const char *name, uint8_t last)
{
    struct nic *nic = &config.nics[config.nic_count];

    nic->index = config.nic_count++;
    nic->guid = 0x0011223344556600u + last;
    nic->gid_count = 2;
    snprintf(nic->name, sizeof nic->name, "%s", name);
    for (unsigned i = 0; i < 2; i++) {
        snprintf(nic->gids[i].ndev, sizeof nic->gids[i].ndev, "lo");
        nic->gids[i].raw[15] = (uint8_t)(last + i);
    }
    nic->gids[0].raw[10] = nic->gids[0].raw[11] = 0xff;
    nic->gids[0].raw[12] = 192;
}

static int make_view(void)
{
    return sysfs_view_make(&config, host, NULL, &view);
}

static void begin(void)
{
    memset(&config, 0, sizeof config);
    snprintf(config.runtime_dir, sizeof config.runtime_dir, "%s", scratch());
    host = scratch();
    add_nic("via0", 7);
    add_nic("via1", 9);
}

/* The content of a file of the tree, without its last newline. */
static const char *content(const char *path)
{
    static char text[512];
    int fd = open(pathf("%s%s", view.root, path), O_RDONLY);

    T_ASSERT(fd >= 0, "%s: %s", path, strerror(errno));
    ssize_t len = read(fd, text, sizeof text - 1);
    close(fd);
    T_ASSERT(len > 0 && text[len - 1] == '\n');
    text[len - 1] = '\0';
    return text;
}

T_TEST(sysfs, content)
{
    /* Shows the files that libibverbs and other readers look for, by both of their names. */
    begin();
    T_EQ(make_view(), 0);
    T_STREQ(content("/sys/class/infiniband_verbs/abi_version"), "6");
    T_STREQ(content("/sys/class/misc/rdma_cm/abi_version"), "4");
    T_STREQ(content("/sys/class/infiniband_verbs/uverbs1/ibdev"), "via1");
    T_STREQ(content("/sys/class/infiniband_verbs/uverbs1/dev"), "231:193");
    T_STREQ(content("/sys/class/infiniband_verbs/uverbs0/abi_version"), "2");
    T_STREQ(content("/sys/class/infiniband_verbs/uverbs0/device/modalias"), "rdma_device:Nrxe");
    T_STREQ(content("/sys/class/infiniband/via0/device/modalias"), "rdma_device:Nrxe");
    T_STREQ(content("/sys/class/infiniband/via0/device/infiniband/via0/node_type"), "1: CA");
    T_STREQ(content("/sys/class/infiniband/via0/device/infiniband_verbs/uverbs0/ibdev"), "via0");
    T_STREQ(content("/sys/class/infiniband/via1/node_guid"), "0011:2233:4455:6609");
    T_STREQ(content("/sys/class/infiniband/via0/ports/1/state"), "4: ACTIVE");
    T_STREQ(content("/sys/class/infiniband/via0/ports/1/gids/0"),
            "0000:0000:0000:0000:0000:ffff:c000:0007");
    T_STREQ(content("/sys/class/infiniband/via0/ports/1/gid_attrs/types/1"), "RoCE v2");
    T_STREQ(content("/sys/class/infiniband/via0/ports/1/gid_attrs/ndevs/1"), "lo");
    T_STREQ(content("/sys/class/infiniband/via0/ports/1/pkeys/0"), "0xffff");
    T_STREQ(content("/sys/dev/char/231:192/ibdev"), "via0");
    T_CHECK(access(pathf("%s/sys/class/infiniband/via0/ports/1/gids/2", view.root), F_OK) != 0);
    t_end();
}

T_TEST(sysfs, cpus)
{
    /* Shows the mask of a host with many CPUs: 32-bit words, the highest first. */
    begin();
    scratch_file(pathf("%s/sys/devices/system/cpu/online", host), "0-1,33,64-67\n");
    T_EQ(make_view(), 0);
    T_STREQ(content("/sys/class/infiniband/via0/device/local_cpulist"), "0-1,33,64-67");
    T_STREQ(content("/sys/class/infiniband/via0/device/local_cpus"), "0000000f,00000002,00000003");
    t_end();
}

T_TEST(sysfs, shared_and_stable)
{
    /* Shows that one configuration is one tree, and that another one is another. */
    begin();
    T_EQ(make_view(), 0);
    struct sysfs_view first = view;
    T_EQ(make_view(), 0);
    T_STREQ(view.root, first.root);
    T_EQ(view.nodes[1], first.nodes[1]);
    config.nics[1].gids[1].raw[0] = 1;
    T_EQ(make_view(), 0);
    T_CHECK(strcmp(view.root, first.root) != 0);
    t_end();
}

/* ---- where paths lead ---- */

static void check_redirect(const char *path, const char *where)
{
    char out[SYSFS_PATH_MAX];

    T_CHECK(sysfs_may_be_ours(path), "%s", path);
    T_CHECK(sysfs_view_redirect(&view, AT_FDCWD, path, out) >= SYSFS_MERGED, "%s", path);
    T_STREQ(out, pathf("%s%s", view.root, where));
}

static void check_foreign(const char *path)
{
    char out[SYSFS_PATH_MAX];

    T_CHECK(!sysfs_may_be_ours(path) ||
                sysfs_view_redirect(&view, AT_FDCWD, path, out) == SYSFS_FOREIGN,
            "%s", path ? path : "NULL");
}

T_TEST(sysfs, redirect)
{
    /* Shows which paths are ours, however they are written, and which are left alone. */
    begin();
    T_EQ(make_view(), 0);
    check_redirect("/sys/class/infiniband", "/sys/class/infiniband");
    check_redirect("/sys/class/infiniband/", "/sys/class/infiniband/");
    check_redirect("/sys/class/infiniband/.", "/sys/class/infiniband/");
    check_redirect("//sys///class/./infiniband//via0", "/sys/class/infiniband/via0");
    check_redirect("/./sys/class/infiniband/via1/", "/sys/class/infiniband/via1/");
    check_redirect("/sys/class/infiniband/via0/nothing", "/sys/class/infiniband/via0/nothing");
    check_redirect("/sys/class/infiniband_verbs/uverbs1", "/sys/class/infiniband_verbs/uverbs1");
    check_redirect("/sys/class/infiniband_verbs/abi_version",
                   "/sys/class/infiniband_verbs/abi_version");
    check_redirect("/dev/infiniband/uverbs0", "/dev/infiniband/uverbs0");
    check_redirect("/dev/char/231:193", "/dev/char/231:193");

    check_foreign(NULL);
    check_foreign("");
    check_foreign("/");
    check_foreign("/sys/class");
    check_foreign("/sys/class/infiniband_mad/umad0");
    check_foreign("/sys/class/infiniband/mlx5_0/node_type");
    check_foreign("/sys/class/infiniband/via00");
    check_foreign("/sys/class/infiniband/via");
    check_foreign("/dev/infiniband/uverbs2");
    check_foreign("/dev/infiniband/uverbs00");
    check_redirect("/dev/infiniband/rdma_cm", "/dev/infiniband/rdma_cm");
    check_foreign("/dev/char/231:194");
    check_foreign("/dev/char");
    check_foreign("/opt/sys/class/infiniband/via0");
    check_foreign("/system/class/infiniband/via0");
    char long_path[4096];
    memset(long_path, 'x', sizeof long_path);
    memcpy(long_path, "/sys/class/infiniband/via0/", 27);
    long_path[sizeof long_path - 1] = '\0';
    check_foreign(long_path);
    t_end();
}

T_TEST(sysfs, dotdot)
{
    /* Shows that ".." goes up from where a link led to, as the kernel goes. */
    char out[SYSFS_PATH_MAX];

    begin();
    T_EQ(make_view(), 0);
    check_redirect("/sys/class/infiniband/via0/../via1", "/sys/devices/virtual/infiniband/via1");
    check_redirect("/sys/class/infiniband/../infiniband/via1", "/sys/class/infiniband/via1");
    check_redirect("/sys/class/infiniband/via0/ports/1/../..",
                   "/sys/devices/virtual/infiniband/via0/");
    check_redirect("/sys/class/infiniband_verbs/uverbs0/device/../via1",
                   "/sys/devices/virtual/viaduct/via1");
    /* Out of our tree: the host's own, by its right name. */
    T_EQ(sysfs_view_redirect(&view, AT_FDCWD, "/sys/class/infiniband/via0/../../../../class/net",
                             out),
         SYSFS_HOST);
    T_STREQ(out, "/sys/class/net");
    check_foreign("/sys/class/infiniband/nothing/../via0"); /* the kernel says ENOENT */
    t_end();
}

T_TEST(sysfs, relative)
{
    /* Shows that a relative path is understood from where it starts. */
    char out[SYSFS_PATH_MAX];

    begin();
    T_EQ(make_view(), 0);
    int root = open("/", O_RDONLY | O_DIRECTORY);
    int tree = open(pathf("%s/dev/infiniband", view.root), O_RDONLY | O_DIRECTORY);
    T_ASSERT(root >= 0 && tree >= 0);
    T_CHECK(sysfs_may_be_ours("sys/class/infiniband/via0"));
    T_EQ(sysfs_view_redirect(&view, root, "sys/class/infiniband/via0", out), SYSFS_OURS);
    T_STREQ(out, pathf("%s/sys/class/infiniband/via0", view.root));
    T_EQ(sysfs_view_redirect(&view, tree, "uverbs1", out), SYSFS_OURS);
    T_STREQ(out, pathf("%s/dev/infiniband/uverbs1", view.root));
    T_EQ(sysfs_view_redirect(&view, tree, "../null", out), SYSFS_HOST);
    T_STREQ(out, "/dev/null");
    T_EQ(sysfs_view_redirect(&view, root, "dev/infiniband_x", out), SYSFS_FOREIGN);
    T_EQ(sysfs_view_redirect(&view, 999999, "uverbs1", out), SYSFS_FOREIGN);
    close(root);
    close(tree);
    t_end();
}

T_TEST(sysfs, unmap)
{
    /* Shows that paths the kernel gives out are translated, and only those of a tree. */
    char text[SYSFS_PATH_MAX];

    begin();
    T_EQ(make_view(), 0);
    size_t len = (size_t)snprintf(text, sizeof text, "%s/sys/class/infiniband", view.root);
    T_EQ(sysfs_view_unmap(&view, text, len), strlen("/sys/class/infiniband"));
    T_STREQ(text, "/sys/class/infiniband");
    T_EQ(sysfs_view_unmap(&view, text, strlen(text)), strlen(text));
    len = (size_t)snprintf(text, sizeof text, "%s/slots/sys", config.runtime_dir);
    T_EQ(sysfs_view_unmap(&view, text, len), len);
    t_end();
}

/* ---- the host's own devices ---- */

static void plug_in(const char *name, unsigned number)
{
    scratch_file(pathf("%s/sys/class/infiniband/%s/node_type", host, name), "1: CA\n");
    scratch_file(pathf("%s/sys/class/infiniband_verbs/uverbs%u/ibdev", host, number), name);
    scratch_file(pathf("%s/sys/class/infiniband_verbs/abi_version", host), "6\n");
    scratch_file(pathf("%s/dev/infiniband/uverbs%u", host, number), "");
}

static unsigned entries(const char *path)
{
    DIR *dir = opendir(pathf("%s%s", view.root, path));
    unsigned count = 0;

    T_ASSERT(dir, "%s", path);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 2;
}

T_TEST(sysfs, merged)
{
    /* Shows that real devices stay in every list, and that our numbers avoid theirs. */
    begin();
    plug_in("mlx5_0", 0);
    plug_in("mlx5_1", 2);
    T_EQ(make_view(), 0);
    T_EQ(view.numbers[0], 1);
    T_EQ(view.numbers[1], 3);
    T_EQ(entries("/sys/class/infiniband"), 4);
    T_EQ(entries("/sys/class/infiniband_verbs"), 5);
    T_EQ(entries("/dev/infiniband"), 5);
    T_STREQ(content("/sys/class/infiniband/mlx5_1/node_type"), "1: CA");
    T_STREQ(content("/sys/class/infiniband_verbs/uverbs3/ibdev"), "via1");
    check_foreign("/dev/infiniband/uverbs0");
    check_redirect("/dev/infiniband/uverbs1", "/dev/infiniband/uverbs1");
    t_end();
}

T_TEST(sysfs, plugged_in_later)
{
    /* Shows that a change is noticed, and that our devices keep their numbers through it. */
    begin();
    T_EQ(make_view(), 0);
    T_EQ(view.host, sysfs_host_digest(host));
    struct sysfs_view before = view;
    struct stat old;
    struct stat now;
    T_EQ(stat(pathf("%s/sys/class/infiniband/via0", view.root), &old), 0);
    plug_in("mlx5_0", 5);
    T_CHECK(before.host != sysfs_host_digest(host));
    T_EQ(sysfs_view_make(&config, host, &before, &view), 0);
    T_CHECK(strcmp(view.root, before.root) != 0);
    T_EQ(view.numbers[1], before.numbers[1]);
    T_EQ(entries("/sys/class/infiniband"), 3);
    /* libibverbs knows a device again by this time stamp. */
    T_EQ(stat(pathf("%s/sys/class/infiniband/via0", view.root), &now), 0);
    T_EQ(now.st_mtim.tv_sec, old.st_mtim.tv_sec);
    T_EQ(now.st_mtim.tv_nsec, old.st_mtim.tv_nsec);
    /* A path of the older tree still has its meaning. */
    char text[SYSFS_PATH_MAX];
    size_t len = (size_t)snprintf(text, sizeof text, "%s/dev/infiniband", before.root);
    sysfs_view_unmap(&view, text, len);
    T_STREQ(text, "/dev/infiniband");
    t_end();
}

/* ---- trees come and go ---- */

static unsigned trees(void)
{
    DIR *dir = opendir(config.runtime_dir);
    unsigned count = 0;

    T_ASSERT(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        count += strncmp(entry->d_name, "sysfs-", 6) == 0;
    closedir(dir);
    return count;
}

static void make_old(const char *path, int hours)
{
    struct timespec then = {.tv_sec = time(NULL) - hours * 3600L};
    struct timespec times[2] = {then, then};

    T_EQ(utimensat(AT_FDCWD, path, times, 0), 0);
}

T_TEST(sysfs, stale_trees)
{
    /* Shows that old trees and broken attempts are removed, but nothing else. */
    begin();
    T_EQ(make_view(), 0);
    make_old(view.root, 8 * 24);
    scratch_file(pathf("%s/sysfs-new-abcdef/sys/file", config.runtime_dir), "");
    make_old(pathf("%s/sysfs-new-abcdef", config.runtime_dir), 2);
    scratch_file(pathf("%s/sysfs-new-young/file", config.runtime_dir), "");
    scratch_file(pathf("%s/other/file", config.runtime_dir), "");
    make_old(pathf("%s/other", config.runtime_dir), 8 * 24);
    T_EQ(trees(), 3);
    config.nics[0].guid++;
    T_EQ(make_view(), 0);
    T_EQ(trees(), 2);
    T_EQ(access(pathf("%s/other/file", config.runtime_dir), F_OK), 0);
    t_end();
}

T_TEST(sysfs, damaged_tree)
{
    /* Shows that a tree that lacks a node is replaced. */
    begin();
    T_EQ(make_view(), 0);
    T_EQ(unlink(pathf("%s/dev/infiniband/uverbs1", view.root)), 0);
    T_EQ(make_view(), 0);
    T_EQ(access(pathf("%s/dev/infiniband/uverbs1", view.root), F_OK), 0);
    T_EQ(trees(), 1);
    t_end();
}

T_TEST(sysfs, no_room)
{
    /* Shows that a directory that can't be written is an error, not a crash. */
    begin();
    snprintf(config.runtime_dir, sizeof config.runtime_dir, "%s/gone", host);
    T_EQ(make_view(), -ENOENT);
    t_end();
}

T_TEST(sysfs, built_at_once)
{
    /* Shows that of many processes that build the same tree, all succeed and one tree is left. */
    enum { BUILDERS = 8 };
    pid_t builders[BUILDERS];

    begin();
    for (int i = 0; i < BUILDERS; i++) {
        builders[i] = fork();
        if (builders[i] == 0)
            _exit(make_view() == 0 ? 0 : 1);
    }
    for (int i = 0; i < BUILDERS; i++) {
        int status = -1;

        T_EQ(waitpid(builders[i], &status, 0), builders[i]);
        T_CHECK_EQ(status, 0);
    }
    T_EQ(make_view(), 0);
    T_EQ(trees(), 1);
    t_end();
}
