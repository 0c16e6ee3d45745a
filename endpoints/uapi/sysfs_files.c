/* SPDX-License-Identifier: MIT */
/*
 * The files of our devices, with what the kernel's would say (Documentation/ABI/stable/
 * sysfs-class-infiniband lists them). The values are those of a RoCE port that is up; the commands
 * (query_device, query_port) must say the same.
 */
#include "uapi/sysfs.h"

#include "core/digest.h"
#include "core/limits.h"
#include "core/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef VIADUCT_VERSION
#define VIADUCT_VERSION "0.0.0"
#endif

struct attribute {
    const char *name, *value;
};

/* ---- below sys/devices/virtual/infiniband/NAME/, the same for every NIC ---- */
static const struct attribute device_attributes[] = {
    {"node_type", "1: CA"},
    {"fw_ver", VIADUCT_VERSION},
    {"hw_rev", "1"},
    {"hca_type", "viaduct"},
    {"board_id", "viaduct"},
    {"ports/1/state", "4: ACTIVE"},
    {"ports/1/phys_state", "5: LinkUp"},
    {"ports/1/rate", "100 Gb/sec (4X EDR)"},
    {"ports/1/link_layer", "Ethernet"},
    {"ports/1/lid", "0x0"},
    {"ports/1/sm_lid", "0x0"},
    {"ports/1/sm_sl", "0"},
    {"ports/1/lid_mask_count", "0"},
    {"ports/1/cap_mask", "0x04010000"},
    {"ports/1/hw_counters/lifespan", "10"},
};

/* ---- and below sys/devices/virtual/viaduct/NAME/ ---- */
static const struct attribute parent_attributes[] = {
    /* The stock rxe provider finds its devices by name; this is the second place it looks. */
    {"modalias", "rdma_device:Nrxe"},
    {"vendor", "0x0000"},
    {"device", "0x0000"},
    {"subsystem_vendor", "0x0000"},
    {"subsystem_device", "0x0000"},
    {"class", "0x020000"},
    {"numa_node", "-1"},
    {"uevent", "DRIVER=viaduct"},
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- writing, with the first error kept ---- */
struct writer {
    int root_fd;
    int error;      /* 0 or negative errno; everything after it does nothing */
    char path[256]; /* of the file being made, below root_fd */
    char base_path[128];
};

__attribute__((format(printf, 2, 3))) static void writer_enter(struct writer *writer,
                                                               const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(writer->base_path, sizeof writer->base_path, format, args);
    va_end(args);
}

int sysfs_make_parents(int root_fd, char *path)
{
    int error = 0;

    for (char *slash = strchr(path, '/'); slash && !error; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdirat(root_fd, path, 0755) != 0 && errno != EEXIST)
            error = -errno;
        *slash = '/';
    }
    return error;
}

/* Set the path and make the directories above it. */
static void writer_place(struct writer *writer, const char *name)
{
    if (writer->error)
        return;
    int len = snprintf(writer->path, sizeof writer->path, "%s/%s", writer->base_path, name);
    if ((size_t)len >= sizeof writer->path) {
        writer->error = -ENAMETOOLONG;
        return;
    }
    writer->error = sysfs_make_parents(writer->root_fd, writer->path);
}

static void writer_create(struct writer *writer, const char *name, const char *text, mode_t mode)
{
    size_t len = strlen(text);

    writer_place(writer, name);
    if (writer->error)
        return;
    int fd =
        sys_openat(writer->root_fd, writer->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        writer->error = -errno;
        return;
    }
    ssize_t written = sys_write(fd, text, len);
    if (written >= 0 && (size_t)written != len)
        writer->error = -ENOSPC;
    else if (written < 0 || fchmod(fd, mode) != 0)
        writer->error = -errno;
    sys_close(fd);
}

/* Only 0:0 may be made by anybody (since Linux 5.8), and not on every file system. */
static void writer_node(struct writer *writer, const char *name)
{
    writer_place(writer, name);
    if (writer->error)
        return;
    if (mknodat(writer->root_fd, writer->path, S_IFCHR | 0600, 0) != 0)
        writer_create(writer, name, "", 0666);
    else if (fchmodat(writer->root_fd, writer->path, 0666, 0) != 0)
        writer->error = -errno;
}

__attribute__((format(printf, 3, 4))) static void
writer_file(struct writer *writer, const char *name, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    int len = vsnprintf(text, sizeof text - 1, format, args);
    va_end(args);
    if ((size_t)len >= sizeof text - 1)
        len = sizeof text - 2;
    text[len] = '\n';
    text[len + 1] = '\0';
    writer_create(writer, name, text, 0444);
}

__attribute__((format(printf, 3, 4))) static void
writer_link(struct writer *writer, const char *name, const char *format, ...)
{
    char target[SYSFS_PATH_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(target, sizeof target, format, args);
    va_end(args);
    writer_place(writer, name);
    if (!writer->error && symlinkat(target, writer->root_fd, writer->path) != 0)
        writer->error = -errno;
}

/* ---- CPUs: every one is as near as any other ---- */
enum { CPUS_MAX = 1024 };

static void cpus_online(const char *host_root, char out[128])
{
    char path[SYSFS_PATH_MAX];
    ssize_t len = 0;

    snprintf(path, sizeof path, "%s/sys/devices/system/cpu/online", host_root);
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd >= 0) {
        len = read(fd, out, 127);
        sys_close(fd);
    }
    out[len > 0 ? len : 0] = '\0';
    out[strcspn(out, "\n")] = '\0';
    if (!out[0])
        strcpy(out, "0"); // NOLINT(clang-analyzer-security.insecureAPI.strcpy): it has room
}

/* "0-2,5" to "00000027": hexadecimal words of 32 CPUs, the highest first, commas between. */
static void cpus_mask(const char *list, char *out, size_t out_size)
{
    uint32_t words[CPUS_MAX / 32] = {0};
    unsigned top = 0;
    size_t len = 0;

    while (*list) {
        char *end;
        unsigned long first = strtoul(list, &end, 10);
        unsigned long last = *end == '-' ? strtoul(end + 1, &end, 10) : first;

        for (unsigned long cpu = first; cpu <= last && cpu < CPUS_MAX; cpu++) {
            words[cpu / 32] |= 1u << (cpu % 32);
            top = cpu / 32 > top ? (unsigned)(cpu / 32) : top;
        }
        list = *end == ',' ? end + 1 : end + strlen(end);
    }
    for (unsigned word = top + 1; word-- > 0 && len < out_size;)
        len += (size_t)snprintf(out + len, out_size - len, "%08x%s", words[word], word ? "," : "");
}

/* ---- a NIC ---- */
static void write_guid(struct writer *writer, const char *name, uint64_t guid)
{
    writer_file(writer, name, "%04x:%04x:%04x:%04x", (unsigned)(guid >> 48) & 0xffff,
                (unsigned)(guid >> 32) & 0xffff, (unsigned)(guid >> 16) & 0xffff,
                (unsigned)guid & 0xffff);
}

static void write_gid(struct writer *writer, const struct nic_gid *gid, unsigned index)
{
    char name[64];
    char text[40] = "";

    for (size_t i = 0; i < 8; i++)
        snprintf(text + i * 5, sizeof text - i * 5, "%02x%02x%s", gid->raw[2 * i],
                 gid->raw[2 * i + 1], i < 7 ? ":" : "");
    snprintf(name, sizeof name, "ports/1/gids/%u", index);
    writer_file(writer, name, "%s", text);
    snprintf(name, sizeof name, "ports/1/gid_attrs/types/%u", index);
    writer_file(writer, name, "RoCE v2");
    snprintf(name, sizeof name, "ports/1/gid_attrs/ndevs/%u", index);
    writer_file(writer, name, "%s", gid->ndev);
}

static void write_port(struct writer *writer, const struct nic *nic)
{
    char name[64];

    for (unsigned i = 0; i < nic->gid_count; i++)
        write_gid(writer, &nic->gids[i], i);
    for (unsigned i = 0; i < LIMIT_PKEYS; i++) {
        snprintf(name, sizeof name, "ports/1/pkeys/%u", i);
        writer_file(writer, name, "0x%04x", i == 0 ? DEFAULT_PKEY : 0);
    }
    for (unsigned i = 0; sysfs_counter_name(i); i++) {
        snprintf(name, sizeof name, "ports/1/%s", sysfs_counter_name(i));
        writer_file(writer, name, "0");
    }
}

static void write_device(struct writer *writer, const struct nic *nic)
{
    writer_enter(writer, "sys/devices/virtual/infiniband/%s", nic->name);
    for (size_t i = 0; i < COUNT(device_attributes); i++)
        writer_file(writer, device_attributes[i].name, "%s", device_attributes[i].value);
    write_guid(writer, "node_guid", nic->guid);
    write_guid(writer, "sys_image_guid", nic->guid);
    writer_file(writer, "node_desc", "viaduct %s", nic->name);
    writer_file(writer, "uevent", "NAME=%s", nic->name);
    writer_link(writer, "subsystem", "../../../../class/infiniband");
    writer_link(writer, "device", "../../viaduct/%s", nic->name);
    write_port(writer, nic);
}

/* What an adapter's PCI device is to its functions. */
static void write_parent(struct writer *writer, const struct nic *nic, unsigned number,
                         const char *host_root)
{
    char cpus[128];
    char mask[CPUS_MAX / 32 * 9 + 1];
    char name[64];

    writer_enter(writer, "sys/devices/virtual/viaduct/%s", nic->name);
    for (size_t i = 0; i < COUNT(parent_attributes); i++)
        writer_file(writer, parent_attributes[i].name, "%s", parent_attributes[i].value);
    cpus_online(host_root, cpus);
    cpus_mask(cpus, mask, sizeof mask);
    writer_file(writer, "local_cpulist", "%s", cpus);
    writer_file(writer, "local_cpus", "%s", mask);
    snprintf(name, sizeof name, "infiniband/%s", nic->name);
    writer_link(writer, name, "../../../infiniband/%s", nic->name);
    snprintf(name, sizeof name, "infiniband_verbs/uverbs%u", number);
    writer_link(writer, name, "../../../infiniband_verbs/uverbs%u", number);
    snprintf(name, sizeof name, "net/%s", nic->gids[0].ndev);
    writer_link(writer, name, "%s/sys/class/net/%s", host_root, nic->gids[0].ndev);
}

static void write_uverbs(struct writer *writer, const struct nic *nic, unsigned number)
{
    unsigned minor = SYSFS_UVERBS_MINOR + number;

    writer_enter(writer, "sys/devices/virtual/infiniband_verbs/uverbs%u", number);
    writer_file(writer, "ibdev", "%s", nic->name);
    writer_file(writer, "abi_version", "2"); /* of the rxe driver's structs */
    writer_file(writer, "dev", "%u:%u", SYSFS_UVERBS_MAJOR, minor);
    writer_file(writer, "uevent", "MAJOR=%u\nMINOR=%u\nDEVNAME=infiniband/uverbs%u",
                SYSFS_UVERBS_MAJOR, minor, number);
    writer_link(writer, "device", "../../viaduct/%s", nic->name);
    writer_link(writer, "subsystem", "../../../../class/infiniband_verbs");
}

/* The names under which the rest of the system knows the two directories. */
static void write_names(struct writer *writer, const struct nic *nic, unsigned number)
{
    char name[64];

    writer_enter(writer, "sys/class");
    snprintf(name, sizeof name, "infiniband/%s", nic->name);
    writer_link(writer, name, "../../devices/virtual/infiniband/%s", nic->name);
    snprintf(name, sizeof name, "infiniband_verbs/uverbs%u", number);
    writer_link(writer, name, "../../devices/virtual/infiniband_verbs/uverbs%u", number);
    snprintf(name, sizeof name, "%u:%u", SYSFS_UVERBS_MAJOR, SYSFS_UVERBS_MINOR + number);
    writer_enter(writer, "sys/dev/char");
    writer_link(writer, name, "../../devices/virtual/infiniband_verbs/uverbs%u", number);
    writer_enter(writer, "dev/char");
    writer_link(writer, name, "../infiniband/uverbs%u", number);
    snprintf(name, sizeof name, "uverbs%u", number);
    writer_enter(writer, "dev/infiniband");
    writer_node(writer, name);
}

/*
 * libibverbs takes a device whose directory has another time stamp for another device; all trees of
 * a configuration show the same one.
 */
static void set_time(struct writer *writer, const struct nic *nic)
{
    const struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    char path[128];

    snprintf(path, sizeof path, "sys/devices/virtual/infiniband/%s", nic->name);
    if (!writer->error && utimensat(writer->root_fd, path, times, 0) != 0)
        writer->error = -errno;
}

int sysfs_files_write(int root_fd, const struct sysfs_view *view, const char *host_root)
{
    struct writer writer = {.root_fd = root_fd};

    /* tmpfs lists the newest first, and many programs take the first device they find. */
    for (unsigned i = view->config->nic_count; i-- > 0;) {
        const struct nic *nic = &view->config->nics[i];

        if (view->out[i])
            continue;
        write_device(&writer, nic);
        write_parent(&writer, nic, view->numbers[i], host_root);
        write_uverbs(&writer, nic, view->numbers[i]);
        write_names(&writer, nic, view->numbers[i]);
        set_time(&writer, nic);
    }
    /* The directories are there without any device, as where the kernel's modules are loaded. */
    for (unsigned i = 0; i < SYSFS_DIRECTORIES; i++) {
        writer_enter(&writer, "%s", sysfs_directories[i].path + 1);
        writer_place(&writer, "none");
    }
    writer_enter(&writer, "sys/class/infiniband_verbs");
    writer_file(&writer, "abi_version", "6"); /* of the write() commands */
    writer_enter(&writer, "dev/infiniband");
    writer_node(&writer, SYSFS_CM_NAME);
    writer_enter(&writer, "sys/class/misc/" SYSFS_CM_NAME);
    writer_file(&writer, "abi_version", "4"); /* of the connection manager's commands */
    writer_file(&writer, "dev", "%d:%d", SYSFS_MISC_MAJOR, SYSFS_CM_MINOR);
    return writer.error;
}

uint64_t sysfs_files_digest(const struct sysfs_view *view, const char *host_root)
{
    uint64_t digest = digest_text(DIGEST_INIT, VIADUCT_VERSION " layout 5");
    char cpus[128];

    cpus_online(host_root, cpus);
    digest = digest_text(digest, cpus);
    for (unsigned i = 0; i < view->config->nic_count; i++) {
        const struct nic *nic = &view->config->nics[i];

        digest = digest_text(digest, nic->name);
        digest = digest_bytes(digest, &view->out[i], sizeof view->out[i]);
        digest = digest_bytes(digest, &nic->guid, sizeof nic->guid);
        digest = digest_bytes(digest, &view->numbers[i], sizeof view->numbers[i]);
        for (unsigned g = 0; g < nic->gid_count; g++) {
            digest = digest_bytes(digest, nic->gids[g].raw, 16);
            digest = digest_text(digest, nic->gids[g].ndev);
        }
    }
    return digest;
}
