/* SPDX-License-Identifier: MIT */
/* What doctor looks at: every probe tries the thing itself instead of reading about it. */
#include "probe.h"

#include "cores.h"
#include "device.h"
#include "host.h"
#include "provider.h"
#include "where.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

void finding_set(struct finding *finding, enum probe_level level, const char *format, ...)
{
    va_list args;

    finding->level = level;
    va_start(args, format);
    vsnprintf(finding->text, sizeof(finding->text), format, args);
    va_end(args);
}

void finding_mend(struct finding *finding, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(finding->mend, sizeof(finding->mend), format, args);
    va_end(args);
}

static void probe_library(struct finding *finding)
{
    const char *tried = "../lib/libviaduct.so";
    const char *library = where_library(&tried);

    if (library != NULL) {
        finding_set(finding, PROBE_OK, "%s", library);
        return;
    }
    finding_set(finding, PROBE_FAIL, "no libviaduct.so at %s", tried);
    finding_mend(finding, "build or install all of Viaduct; 'viaduct run' preloads this file");
}

static void probe_provider(struct finding *finding)
{
    char path[400];

    switch (provider_find(path, sizeof(path))) {
    case PROVIDER_OK:
        finding_set(finding, PROBE_OK, "%s, for %s", path, host_libibverbs());
        break;
    case PROVIDER_NO_LIBRARY:
        finding_set(finding, PROBE_FAIL, "libibverbs has no rxe provider (%s)", path);
        finding_mend(finding, "install the Debian package ibverbs-providers");
        break;
    case PROVIDER_NO_CONFIG:
        finding_set(finding, PROBE_FAIL, "no file in /etc/libibverbs.d says 'driver rxe'");
        finding_mend(finding,
                     "reinstall the Debian package ibverbs-providers, or set IBV_DRIVERS=rxe");
        break;
    }
}

static void probe_cores(struct finding *finding)
{
    unsigned cores = cores_allowed();

    if (cores >= 2) {
        finding_set(finding, PROBE_OK, "%u CPUs may be used", cores);
        return;
    }
    finding_set(finding, PROBE_WARN,
                "one CPU: two pollers take turns, so latency is the scheduler's");
    finding_mend(finding, "give the machine or container a second CPU, or measure with --events");
}

/* --- the runtime directory, by the rules of viaduct.h --- */

static bool is_own_directory(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
           access(path, W_OK | X_OK) == 0;
}

static void runtime_directory(char *path, size_t size)
{
    const char *wanted = getenv("VIADUCT_RUNTIME_DIR");
    const char *xdg = getenv("XDG_RUNTIME_DIR");

    if (wanted != NULL && *wanted != '\0')
        snprintf(path, size, "%s", wanted);
    else if (xdg != NULL && is_own_directory(xdg))
        snprintf(path, size, "%s/viaduct", xdg);
    else
        snprintf(path, size, "%s/viaduct-%u",
                 access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : "/tmp", (unsigned)geteuid());
}

static void probe_runtime_dir(struct finding *finding)
{
    char path[400];
    struct stat st;

    runtime_directory(path, sizeof(path));
    if (path[0] != '/') {
        finding_set(finding, PROBE_FAIL, "VIADUCT_RUNTIME_DIR is not an absolute path: %s", path);
        finding_mend(finding, "write it with a leading '/'");
    } else if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        finding_set(finding, PROBE_FAIL, "%s can't be made: %s", path, strerror(errno));
        finding_mend(finding, "set VIADUCT_RUNTIME_DIR to a folder of your own, mode 0700");
    } else if (lstat(path, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
               (st.st_mode & 0777) != 0700) {
        finding_set(finding, PROBE_FAIL, "%s is not a folder of yours with mode 0700", path);
        finding_mend(finding, "chmod 700 it, or set VIADUCT_RUNTIME_DIR to another folder");
    } else {
        finding_set(finding, PROBE_OK, "%s", path);
    }
}

/* --- how one process reaches another's memory --- */

static void probe_memfd(struct finding *finding)
{
    int fd = memfd_create("viaduct-doctor", MFD_CLOEXEC);

    if (fd >= 0) {
        finding_set(finding, PROBE_OK, "memory can be shared between processes");
        close(fd);
        return;
    }
    finding_set(finding, PROBE_FAIL, "memfd_create is refused: %s", strerror(errno));
    finding_mend(finding, "allow memfd_create in the sandbox's seccomp profile");
}

/* Read one word of a process that is no child of the reader: what a peer is. 0 or an errno. */
static int peer_memory_error(void)
{
    static volatile unsigned long word = 42;
    int ends[2], status = -1;
    pid_t target, reader;
    char byte;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    target = fork();
    if (target == 0) {
        close(ends[1]);
        (void)!read(ends[0], &byte, 1); /* until the parent has closed its end */
        _exit(0);
    }
    close(ends[0]);
    reader = fork();
    if (reader == 0) {
        unsigned long copy;
        struct iovec local = {&copy, sizeof(copy)};
        struct iovec remote = {(void *)(uintptr_t)&word, sizeof(word)};

        close(ends[1]);
        _exit(process_vm_readv(target, &local, 1, &remote, 1, 0) == sizeof(copy) ? 0 : errno);
    }
    if (reader > 0)
        waitpid(reader, &status, 0);
    close(ends[1]);
    if (target > 0)
        waitpid(target, NULL, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : EAGAIN;
}

static void probe_process_vm(struct finding *finding)
{
    int error = peer_memory_error();

    if (error == 0) {
        finding_set(finding, PROBE_OK, "processes of one user can copy each other's memory");
        return;
    }
    finding_set(finding, PROBE_WARN, "process_vm_readv on another process is refused: %s",
                strerror(error));
    finding_mend(finding,
                 error == EPERM || error == EACCES
                     ? "sysctl kernel.yama.ptrace_scope=0, or give the container SYS_PTRACE; "
                       "without it large messages take a slower way"
                     : "allow process_vm_readv and process_vm_writev in the seccomp profile; "
                       "without them large messages take a slower way");
}

static void probe_userfaultfd(struct finding *finding)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

    if (fd >= 0) {
        finding_set(finding, PROBE_OK,
                    "registered memory can be made shared while the program runs");
        close(fd);
        return;
    }
    finding_set(finding, PROBE_WARN, "userfaultfd is refused: %s", strerror(errno));
    finding_mend(finding, errno == ENOSYS
                              ? "the kernel is built without it; small one-sided messages "
                                "into ordinary memory cost a system call"
                              : "allow userfaultfd in the container's seccomp profile; without "
                                "it small one-sided messages cost a system call");
}

static void probe_membarrier(struct finding *finding)
{
    long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);

    if (commands >= 0 && (commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED)) {
        finding_set(finding, PROBE_OK, "expedited barriers are there");
        return;
    }
    finding_set(finding, PROBE_WARN, "membarrier is refused: %s",
                commands < 0 ? strerror(errno) : "no expedited command");
    finding_mend(finding,
                 "allow membarrier in the sandbox's seccomp profile (kernel 4.14 or later)");
}

static void probe_memlock(struct finding *finding)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        finding_set(finding, PROBE_OK, "no limit on locked memory");
        return;
    }
    finding_set(
        finding, PROBE_NOTE,
        "%llu KiB of memory may be locked; via0 locks none, a real adapter locks all that is "
        "registered",
        (unsigned long long)limit.rlim_cur >> 10);
}

static void probe_hardware(struct finding *finding)
{
    if (provider_kernel_has_rdma()) {
        finding_set(finding, PROBE_OK, "the kernel has RDMA devices; via0 stands beside them");
        return;
    }
    finding_set(finding, PROBE_NOTE,
                "no RDMA in the kernel (/dev/infiniband is missing); via0 does not need it");
}

/* Last, because it tries everything at once. */
static void probe_via0(struct finding *finding)
{
    struct device device;

    if (device_open(device_default(), -1, &device) != 0) {
        finding_set(finding, PROBE_FAIL, "%s can't be opened", device_default());
        finding_mend(finding, "see the line on stderr above, and what failed here before");
        return;
    }
    finding_set(finding, PROBE_OK, "%s opens, GID %d is %s",
                ibv_get_device_name(device.context->device), device.gid_index,
                device_gid_text(&device.gid));
    device_close(&device);
}

const struct probe probes[] = {
    {"library", probe_library},
    {"provider", probe_provider},
    {"cpus", probe_cores},
    {"runtime-dir", probe_runtime_dir},
    {"memfd", probe_memfd},
    {"process-vm", probe_process_vm},
    {"userfaultfd", probe_userfaultfd},
    {"membarrier", probe_membarrier},
    {"memlock", probe_memlock},
    {"hardware", probe_hardware},
    {"device", probe_via0},
    {NULL, NULL},
};
