/* SPDX-License-Identifier: MIT */
/*
 * Calls that take paths: each sees our devices where the kernel's would be, leaves everything else
 * alone, and never shows where the files really are.
 */
#include "device.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <limits.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define CLASS "/sys/class/infiniband"
#define GUID CLASS "/via0/node_guid"

/* libc's name for a function, as a program linked long ago or with other flags would find it. */
static void *named(const char *name)
{
    void *symbol = dlsym(RTLD_DEFAULT, name);

    T_ASSERT(symbol, "%s", name);
    return symbol;
}

// NOLINTNEXTLINE(bugprone-macro-parentheses): the parameters bring theirs
#define CALL(name, type, params) ((type(*) params)named(name))

/* A sanitizer looks into the string before we are called. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#endif

static void check_guid(int fd)
{
    char text[32] = "";

    T_ASSERT(fd >= 0, "%s", strerror(errno));
    T_EQ(read(fd, text, sizeof text), 20);
    T_EQ(text[4], ':');
    close(fd);
}

T_TEST(path, open)
{
    /* Shows that every way to open a file reaches the tree, from anywhere. */
    int root = open("/", O_RDONLY | O_DIRECTORY);
    int list = open(CLASS, O_RDONLY | O_DIRECTORY);

    T_ASSERT(root >= 0 && list >= 0);
    check_guid(open(GUID, O_RDONLY));
    check_guid(open64(GUID, O_RDONLY));
    check_guid(openat(AT_FDCWD, GUID, O_RDONLY));
    check_guid(openat64(root, &GUID[1], O_RDONLY));
    check_guid(openat(list, "via0/node_guid", O_RDONLY));
    check_guid(CALL("__open", int, (const char *, int, ...))(GUID, O_RDONLY));
    check_guid(CALL("__open_2", int, (const char *, int))(GUID, O_RDONLY));
    check_guid(CALL("__open64_2", int, (const char *, int))(GUID, O_RDONLY));
    check_guid(CALL("__openat_2", int, (int, const char *, int))(root, &GUID[1], O_RDONLY));
    check_guid(CALL("__openat64_2", int, (int, const char *, int))(list, "via0/node_guid", 0));
    FILE *file = fopen(GUID, "re");
    T_ASSERT(file);
    file = freopen(GUID, "re", file);
    T_ASSERT(file);
    T_EQ(fgetc(file) != EOF, 1);
    fclose(file);
    close(root);
    close(list);
    t_end();
}

T_TEST(path, not_ours)
{
    /* Shows that the answers for other paths are the kernel's, to the error number. */
#ifndef SANITIZED
    struct stat st;
    char buf[1];

    /* Found by name, because the compiler knows that the declared ones take no NULL. */
    T_CHECK(CALL("open", int, (const char *, int, ...))(NULL, O_RDONLY) < 0 && errno == EFAULT);
    T_CHECK(CALL("stat", int, (const char *, struct stat *))(NULL, &st) < 0 && errno == EFAULT);
    T_CHECK(CALL("access", int, (const char *, int))(NULL, F_OK) < 0 && errno == EFAULT);
    T_CHECK(CALL("readlink", ssize_t, (const char *, char *, size_t))(NULL, buf, 1) < 0 &&
            errno == EFAULT);
#endif
    T_CHECK(open("", O_RDONLY) < 0 && errno == ENOENT);
    T_CHECK(open(CLASS "/nosuch0/node_guid", O_RDONLY) < 0 && errno == ENOENT);
    T_CHECK(open("/dev/infiniband/uverbs999", O_RDWR) < 0 && errno == ENOENT);
    T_CHECK(open(CLASS "/via0/nothing", O_RDONLY) < 0 && errno == ENOENT);
    T_CHECK(open(CLASS "/via0/node_guid/x", O_RDONLY) < 0 && errno == ENOTDIR);
    T_CHECK(open(CLASS "/via0", O_WRONLY) < 0 && errno == EISDIR);
    T_CHECK(openat(-7, "infiniband", O_RDONLY) < 0 && errno == EBADF);
    T_CHECK(!opendir(CLASS "/via0/node_guid") && errno == ENOTDIR);
    T_CHECK(open(device_node(), O_RDWR | O_DIRECTORY) < 0 && errno == ENOTDIR);
    T_CHECK(open(device_node(), O_RDWR | O_CREAT | O_EXCL, 0600) < 0 && errno == EEXIST);
    t_end();
}

T_TEST(path, errno_stays)
{
    /* Shows that a call that succeeds leaves errno as it was, also if it had much to do. */
    const char *node = device_node();
    struct stat st;

    errno = 4711;
    T_EQ(stat(CLASS, &st), 0);
    T_EQ(errno, 4711);
    T_EQ(access(node, R_OK | W_OK), 0);
    int fd = open(GUID, O_RDONLY);
    T_EQ(errno, 4711);
    close(fd);
    fd = open(node, O_RDWR);
    T_ASSERT(fd >= 0, "%s", strerror(errno));
    T_EQ(errno, 4711);
    close(fd);
    T_EQ(errno, 4711);
    t_end();
}

/* ---- stat ---- */

static void check_node(const struct stat *st, const char *how)
{
    T_CHECK(S_ISCHR(st->st_mode), "%s: mode %o", how, st->st_mode);
    T_CHECK(major(st->st_rdev) == 231 && minor(st->st_rdev) >= 192, "%s", how);
}

T_TEST(path, stat)
{
    /* Shows that the node is a character device to all forms of stat. */
    struct stat st;
    int list = open("/dev/infiniband", O_RDONLY | O_DIRECTORY);
    const char *name = strrchr(device_node(), '/') + 1;

    T_ASSERT(list >= 0);
#define CHECK_STAT(call)                                                                           \
    do {                                                                                           \
        memset(&st, 0, sizeof st);                                                                 \
        T_CHECK_EQ(call, 0);                                                                       \
        check_node(&st, #call);                                                                    \
    } while (0)
    CHECK_STAT(stat(device_node(), &st));
    CHECK_STAT(lstat(device_node(), &st));
    CHECK_STAT(stat64(device_node(), (struct stat64 *)&st));
    CHECK_STAT(fstatat(AT_FDCWD, device_node(), &st, 0));
    CHECK_STAT(fstatat(list, name, &st, AT_SYMLINK_NOFOLLOW));
    CHECK_STAT(fstatat64(list, name, (struct stat64 *)&st, 0));
    CHECK_STAT(CALL("__xstat", int, (int, const char *, struct stat *))(1, device_node(), &st));
    CHECK_STAT(CALL("__xstat64", int, (int, const char *, struct stat *))(1, device_node(), &st));
    CHECK_STAT(CALL("__lxstat", int, (int, const char *, struct stat *))(1, device_node(), &st));
    CHECK_STAT(CALL("__lxstat64", int, (int, const char *, struct stat *))(1, device_node(), &st));
    CHECK_STAT(CALL("__fxstatat", int, (int, int, const char *, struct stat *, int))(1, list, name,
                                                                                     &st, 0));
    CHECK_STAT(CALL("__fxstatat64", int,
                    (int, int, const char *, struct stat *, int))(1, list, name, &st, 0));
    ino_t inode = st.st_ino;
    int path = open(device_node(), O_PATH);
    CHECK_STAT(fstat(path, &st));
    CHECK_STAT(fstatat(path, "", &st, AT_EMPTY_PATH));
    close(path);
    int fd = open(device_node(), O_RDWR);
    CHECK_STAT(fstat(fd, &st));
    T_EQ(st.st_ino, inode); /* as one who compares the two would expect */
    CHECK_STAT(fstat64(fd, (struct stat64 *)&st));
    CHECK_STAT(fstatat(fd, "", &st, AT_EMPTY_PATH));
    CHECK_STAT(CALL("__fxstat", int, (int, int, struct stat *))(1, fd, &st));
    CHECK_STAT(CALL("__fxstat64", int, (int, int, struct stat *))(1, fd, &st));
    close(fd);
    close(list);
    T_EQ(stat(CLASS "/via0", &st), 0);
    T_CHECK(S_ISDIR(st.st_mode));
    T_EQ(lstat(CLASS "/via0", &st), 0);
    T_CHECK(S_ISLNK(st.st_mode));
    T_EQ(lstat(CLASS "/via0/", &st), 0);
    T_CHECK(S_ISDIR(st.st_mode));
    t_end();
}

T_TEST(path, statx)
{
    /* Shows the same of statx, by path and by descriptor. */
    struct statx stx;

    T_EQ(statx(AT_FDCWD, device_node(), 0, STATX_BASIC_STATS, &stx), 0);
    T_CHECK(S_ISCHR(stx.stx_mode));
    T_EQ(stx.stx_rdev_major, 231);
    int fd = open(device_node(), O_RDWR);
    T_EQ(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx), 0);
    T_CHECK(S_ISCHR(stx.stx_mode));
    T_EQ(stx.stx_rdev_major, 231);
    close(fd);
    t_end();
}

T_TEST(path, access)
{
    /* Shows that programs which only ask are told yes. */
    char value[8];

    T_EQ(access(device_node(), R_OK | W_OK), 0);
    T_EQ(euidaccess(device_node(), R_OK | W_OK), 0);
    T_EQ(eaccess(device_node(), F_OK), 0);
    T_EQ(faccessat(AT_FDCWD, device_node(), R_OK, 0), 0);
    T_EQ(faccessat(AT_FDCWD, CLASS "/via0", X_OK, AT_EACCESS), 0);
    T_CHECK(access(CLASS "/via9", F_OK) < 0 && errno == ENOENT);
    /* There is none, but there is a file. */
    T_CHECK(getxattr(device_node(), "user.x", value, sizeof value) < 0 && errno != ENOENT);
    T_CHECK(lgetxattr(device_node(), "user.x", value, sizeof value) < 0 && errno != ENOENT);
    T_CHECK(listxattr(GUID, value, 0) >= 0 || errno != ENOENT);
    T_CHECK(llistxattr(GUID, value, 0) >= 0 || errno != ENOENT);
    t_end();
}

/* ---- lists ---- */

static int is_via(const struct dirent *entry)
{
    return strncmp(entry->d_name, "via", 3) == 0;
}

T_TEST(path, lists)
{
    /* Shows that both devices are in every kind of list. */
    struct dirent **names;
    glob_t found;
    DIR *dir = opendir(CLASS);
    int count = 0;

    T_ASSERT(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        count += is_via(entry);
    closedir(dir);
    T_EQ(count, 2);

    T_EQ(scandir(CLASS, &names, is_via, alphasort), 2);
    T_STREQ(names[1]->d_name, "via1");
    free(names[0]);
    free(names[1]);
    free(names);
    T_EQ(scandirat(AT_FDCWD, CLASS, &names, is_via, alphasort), 2);
    free(names[0]);
    free(names[1]);
    free(names);

    T_EQ(glob(CLASS "/via*/ports/*/state", 0, NULL, &found), 0);
    T_EQ(found.gl_pathc, 2);
    T_STREQ(found.gl_pathv[1], CLASS "/via1/ports/1/state");
    T_EQ(glob(CLASS "/via?", GLOB_APPEND, NULL, &found), 0);
    T_EQ(found.gl_pathc, 4);
    globfree(&found);
    T_EQ(glob64("/etc/pass*d", 0, NULL, (glob64_t *)&found), 0);
    globfree(&found);
    T_EQ(glob("/sys/no/such*", 0, NULL, &found), GLOB_NOMATCH);
    t_end();
}

/* The type that a listing tells of an entry; programs look no further if there is one. */
static int type_of(const char *directory, const char *name)
{
    DIR *dir = opendir(directory);
    int type = -1;

    T_ASSERT(dir, "%s: %s", directory, strerror(errno));
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, name) == 0)
            type = entry->d_type;
    closedir(dir);
    return type;
}

T_TEST(path, types_in_lists)
{
    /* Shows entries of the types that sysfs and devtmpfs give them. */
    const char *node = strrchr(device_node(), '/') + 1;

    T_EQ(type_of(CLASS, "via0"), DT_LNK);
    T_EQ(type_of(CLASS "/via0/", "device"), DT_LNK);
    T_EQ(type_of(CLASS "/via0/", "subsystem"), DT_LNK);
    T_EQ(type_of(CLASS "/via0/", "ports"), DT_DIR);
    T_EQ(type_of(CLASS "/via0/", "node_guid"), DT_REG);
    T_EQ(type_of("/sys/class/infiniband_verbs", node), DT_LNK);
    T_EQ(type_of("/sys/class/infiniband_verbs", "abi_version"), DT_REG);
    T_EQ(type_of("/dev/infiniband", node), DT_CHR);
    T_EQ(type_of("/dev/infiniband", "rdma_cm"), DT_CHR);
    t_end();
}

/* ---- walks ---- */

static int seen, nodes;
static char seen_guid[PATH_MAX];

static int see_one(const char *path, const struct stat *st, int type)
{
    (void)type;
    seen++;
    nodes += S_ISCHR(st->st_mode) && major(st->st_rdev) == 231;
    T_CHECK(strncmp(path, "/sys/", 5) == 0 || strncmp(path, "/dev/infiniband", 15) == 0, "%s",
            path);
    if (strstr(path, "/node_guid"))
        snprintf(seen_guid, sizeof seen_guid, "%s", path);
    return 0;
}

static int see(const char *path, const struct stat *st, int type, struct FTW *place)
{
    T_CHECK(path[place->base - 1] == '/' && !strchr(path + place->base, '/'), "%s", path);
    return see_one(path, st, type);
}

/* The host's own files stay what they are. */
static int see_host(const char *path, const struct stat *st, int type, struct FTW *place)
{
    (void)place;
    T_CHECK(strcmp(path, "/proc/self/task") == 0 && S_ISDIR(st->st_mode) && type == FTW_D);
    return 1;
}

/* A visitor that walks, too. */
static int see_within(const char *path, const struct stat *st, int type, struct FTW *place)
{
    (void)st;
    (void)type;
    return place->level == 0 ? nftw(CLASS "/via0/ports", see, 8, FTW_PHYS)
                             : see(path, st, type, place);
}

T_TEST(path, walks)
{
    /* Shows that libc's own walks find our files, and tell of them under their names. */
    seen = 0;
    T_EQ(nftw(CLASS "/via1/.", see, 8, 0), 0);
    T_CHECK(seen > 20);
    T_CHECK(strstr(seen_guid, "/via1/"), "%s", seen_guid);
    T_EQ(access(seen_guid, R_OK), 0);
    seen = 0;
    T_EQ(nftw(CLASS, see, 8, FTW_PHYS), 0);
    T_EQ(seen, 3); /* the directory and two links */
    seen = 0;
    T_EQ(nftw64("/dev/infiniband", (__nftw64_func_t)see_within, 8, FTW_PHYS), 0);
    T_CHECK(seen > 20);
    T_EQ(nodes, 2);
    seen = 0;
    T_EQ(ftw(CLASS "/via0/ports/1/gids", see_one, 8), 0);
    T_CHECK(seen > 3);
    T_CHECK(nftw(CLASS "/via9", see, 8, 0) < 0 && errno == ENOENT);
    T_EQ(nftw("/proc/self/task", see_host, 8, FTW_PHYS), 1);
    t_end();
}

T_TEST(path, watches)
{
    /* Shows that what is there may be watched. */
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);

    T_ASSERT(fd >= 0);
    T_CHECK(inotify_add_watch(fd, "/dev/infiniband", IN_CREATE | IN_DELETE) >= 0);
    T_CHECK(inotify_add_watch(fd, CLASS, IN_CREATE | IN_DELETE) >= 0);
    T_CHECK(inotify_add_watch(fd, CLASS "/via0/ports/1/state", IN_MODIFY) >= 0);
    T_CHECK(inotify_add_watch(fd, CLASS "/via9", IN_MODIFY) < 0 && errno == ENOENT);
    T_CHECK(inotify_add_watch(fd, "/tmp", IN_CREATE) >= 0);
    close(fd);
    t_end();
}

/* ---- changes ---- */

T_TEST(path, changes)
{
    /* Shows what may be changed of a device: the owner of a node, and nothing of sysfs. */
    struct statfs fs;
    struct stat st;

    T_EQ(chmod(device_node(), 0666), 0);
    T_EQ(fchmodat(AT_FDCWD, device_node(), 0666, 0), 0);
    T_EQ(chown(device_node(), geteuid(), getegid()), 0);
    T_EQ(lchown(device_node(), geteuid(), getegid()), 0);
    T_EQ(fchownat(AT_FDCWD, device_node(), geteuid(), getegid(), 0), 0);
    T_EQ(utimensat(AT_FDCWD, device_node(), NULL, 0), 0);
    T_CHECK(mkdir("/dev/infiniband", 0755) < 0 && errno == EEXIST);
    T_CHECK(mkdirat(AT_FDCWD, CLASS, 0755) < 0 && errno == EEXIST);
    T_CHECK(mkdir(CLASS "/via0/new", 0755) < 0 && errno == EPERM);
    T_CHECK(open(CLASS "/via0/new", O_WRONLY | O_CREAT, 0644) < 0 && errno == EACCES);
    T_CHECK(open(GUID, O_WRONLY | O_TRUNC) < 0 && errno == EACCES);
    T_EQ(stat(GUID, &st), 0);
    T_EQ(st.st_size, 20);
    T_EQ(statfs(CLASS, &fs), 0);
    T_EQ(fs.f_type, SYSFS_MAGIC);
    t_end();
}

/* ---- paths that come back ---- */

T_TEST(path, names_of_files)
{
    /* Shows that realpath, readlink and getcwd answer as if the files were in /sys and /dev. */
    const char *device = "/sys/devices/virtual/infiniband/via0";
    char buf[PATH_MAX];

    T_STREQ(realpath(CLASS "/via0", buf), device);
    char *allocated = realpath(CLASS "/via0/device/..", NULL);
    T_STREQ(allocated, "/sys/devices/virtual/viaduct");
    free(allocated);
    allocated = canonicalize_file_name(CLASS "/via0/");
    T_STREQ(allocated, device);
    free(allocated);
    T_STREQ(CALL("__realpath_chk", char *, (const char *, char *, size_t))(CLASS "/via0", buf,
                                                                           sizeof buf),
            device);
    T_CHECK(!realpath(CLASS "/via9", buf) && errno == ENOENT);
    T_CHECK(!realpath(CLASS "/via0/device/driver", buf) && errno == ENOENT);
    T_STREQ(buf, "/sys/devices/virtual/viaduct/via0/driver"); /* as far as libc got */

    ssize_t len = readlink(CLASS "/via0", buf, sizeof buf);
    T_ASSERT(len > 0);
    buf[len] = '\0';
    T_STREQ(buf, "../../devices/virtual/infiniband/via0");
    T_EQ(CALL("__readlink_chk", ssize_t, (const char *, char *, size_t, size_t))(CLASS "/via0", buf,
                                                                                 10, sizeof buf),
         10);

    T_EQ(chdir(CLASS), 0);
    T_STREQ(getcwd(buf, sizeof buf), CLASS);
    allocated = get_current_dir_name();
    T_STREQ(allocated, CLASS);
    free(allocated);
    T_EQ(access("via1/node_type", R_OK), 0);
    T_STREQ(realpath("via0", buf), device);
    T_EQ(access("../net", F_OK), 0); /* the host's own */
    T_EQ(chdir("/"), 0);
    t_end();
}

static void check_fd_name(int fd, const char *want)
{
    char link[64];
    char buf[PATH_MAX];

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, buf, sizeof buf - 1);
    T_ASSERT(len > 0);
    buf[len] = '\0';
    T_STREQ(buf, want);
}

T_TEST(path, ways_around)
{
    /* Shows that a path may lead there by "..", "//" and the names of what is open. */
    int classes = open("/sys/class", O_PATH | O_DIRECTORY), list = open(CLASS, O_PATH);
    char name[96];

    check_guid(open("//sys///class/./infiniband//via0//node_guid", O_RDONLY));
    check_guid(open("/sys/class/net/../infiniband/via0/ports/../node_guid", O_RDONLY));
    check_guid(open("/tmp/../sys/class/infiniband/via0/node_guid", O_RDONLY));
    check_guid(open("/proc/self/root" GUID, O_RDONLY));
    check_guid(openat(list, "../infiniband/via0/node_guid", O_RDONLY));
    for (int i = 0; i < 3; i++) {
        static const char *const forms[] = {"/proc/self/fd/%d/infiniband/via0/node_guid",
                                            "/proc/thread-self/fd/%d//infiniband/via0/node_guid",
                                            "/dev/fd/%d/infiniband/via0/node_guid"};

        // NOLINTNEXTLINE(clang-diagnostic-format-nonliteral): of the list above
        snprintf(name, sizeof name, forms[i], classes);
        check_guid(open(name, O_RDONLY));
    }
    snprintf(name, sizeof name, "/proc/%d/fd/%d/via0/node_guid", getpid(), list);
    check_guid(open(name, O_RDONLY));
    T_EQ(fchdir(classes), 0);
    check_guid(open("/proc/self/cwd/infiniband/via0/node_guid", O_RDONLY));
    check_guid(open("infiniband/via0/node_guid", O_RDONLY));
    T_EQ(chdir("/"), 0);
    close(classes);
    close(list);
    t_end();
}

T_TEST(path, node_opened_again)
{
    /* Shows that a descriptor that only names the node can be opened, by its name in /proc. */
    int path = open(device_node(), O_PATH | O_CLOEXEC);
    int list = open("/dev/infiniband", O_RDONLY | O_DIRECTORY);
    char name[64];

    snprintf(name, sizeof name, "/proc/self/fd/%d", path);
    int device = open(name, O_RDWR);
    T_CHECK(is_device(device));
    check_fd_name(device, device_node());
    close(device);
    device = openat(list, "rdma_cm", O_RDWR | O_CLOEXEC);
    T_ASSERT(device >= 0, "%s", strerror(errno));
    check_fd_name(device, "/dev/infiniband/rdma_cm");
    close(device);
    close(path);
    close(list);
    t_end();
}

T_TEST(path, names_of_descriptors)
{
    /* Shows the names under which /proc knows what we opened. */
    int device = open(device_node(), O_RDWR);
    int directory = open(CLASS, O_RDONLY | O_DIRECTORY);
    int other = open("/dev/null", O_RDONLY);

    check_fd_name(device, device_node());
    check_fd_name(directory, CLASS);
    check_fd_name(other, "/dev/null");
    close(device);
    close(directory);
    close(other);
    t_end();
}

/* ---- threads ---- */

static void *look(void *arg)
{
    struct stat st;

    (void)arg;
    for (int i = 0; i < 100; i++)
        if (stat(GUID, &st) != 0 || access(CLASS, R_OK) != 0)
            return (void *)1;
    return NULL;
}

T_TEST(path, threads)
{
    /* Shows that many threads may be the first to look. */
    pthread_t threads[4];

    for (int i = 0; i < 4; i++)
        T_EQ(pthread_create(&threads[i], NULL, look, NULL), 0);
    for (int i = 0; i < 4; i++) {
        void *failed = NULL;

        pthread_join(threads[i], &failed);
        T_CHECK(!failed);
    }
    t_end();
}
