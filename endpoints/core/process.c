/* SPDX-License-Identifier: MIT */
/*
 * Slots: runtime_dir/slot-NNNN.lock is locked as long as its process lives (the kernel lets go of
 * it on death), slot-NNNN.sock is where peers call. Whoever starts next removes what the dead left.
 */
#define _GNU_SOURCE
#include "core/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/counters.h"
#include "core/removal.h"
#include "core/state.h"
#include "core/sys.h"
#include "core/requester.h"
#include "core/thread.h"
#include "link/link.h"
#include "link/shm/share.h"

enum { SLOTS_IN_TURN = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool opened;
bool process_must_fence;
static uint32_t slot;
static int lock_fd = -1, runtime_fd = -1;

void core_lock(void)
{
    pthread_mutex_lock(&lock);
}

bool core_try_lock(void)
{
    return pthread_mutex_trylock(&lock) == 0;
}

void core_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

bool process_is_open(void)
{
    return opened;
}

uint32_t process_slot(void)
{
    return slot;
}

int process_runtime_dirfd(void)
{
    return runtime_fd;
}

void process_socket_path(uint32_t number, char *out, size_t size)
{
    snprintf(out, size, "/proc/self/fd/%d/slot-%04u.sock", runtime_fd, number);
}

/* The lock of one slot, or -EAGAIN if a living process has it. */
static int lock_slot(uint32_t number)
{
    char name[32];
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    snprintf(name, sizeof(name), "slot-%04u.lock", number);
    int fd = own_fd(sys_openat(runtime_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (fd < 0)
        return -errno;
    if (fcntl(fd, F_SETLK, &whole) == 0)
        return fd;
    sys_close(fd);
    return -EAGAIN;
}

/* The first that is free, beginning behind `last`, among the first few if possible. */
static int take_slot_after(uint32_t last)
{
    for (uint32_t i = 0; i < LIMIT_SLOTS - 1; i++) {
        uint32_t number = i < SLOTS_IN_TURN ? (last + i) % SLOTS_IN_TURN + 1 : i + 1;
        int fd = lock_slot(number);

        if (fd >= 0) {
            lock_fd = fd;
            slot = number;
            return 0;
        }
        if (fd != -EAGAIN)
            return fd;
    }
    return -EAGAIN;
}

/*
 * Slots are given out in turn: who still sends to one that died must not find somebody else under
 * the same number. Two who start at once may read the same, and then lock one after the other.
 */
static int take_slot(void)
{
    uint32_t last = 0;
    int fd = sys_openat(runtime_fd, "last-slot", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd >= 0)
        (void)!sys_pread(fd, &last, sizeof(last), 0);
    int error = take_slot_after(last);
    if (fd >= 0) {
        (void)!sys_pwrite(fd, &slot, sizeof(slot), 0);
        sys_close(fd);
    }
    return error;
}

/* The lock is free: its process is gone, and what it left goes, too. */
static void clean_slot(uint32_t number)
{
    char name[32];
    int fd = lock_slot(number);

    if (fd < 0)
        return;
    snprintf(name, sizeof(name), "slot-%04u.sock", number);
    unlinkat(runtime_fd, name, 0);
    snprintf(name, sizeof(name), "roce-%04u.sock", number);
    unlinkat(runtime_fd, name, 0);
    sys_close(fd);
}

/* Not our own: closing its file a second time would unlock it. */
static void clean_dead_slots(void)
{
    char path[32];
    unsigned number;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", runtime_fd);
    DIR *dir = opendir(path);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (sscanf(entry->d_name, "slot-%4u.sock", &number) == 1 && number != slot && number > 0 &&
            number < LIMIT_SLOTS)
            clean_slot(number);
    }
    closedir(dir);
}

static void publish_nics(struct pub_header *header, const struct config *config)
{
    header->nic_count = config->nic_count;
    for (unsigned i = 0; i < config->nic_count; i++) {
        const struct nic *nic = &config->nics[i];

        memcpy(header->nics[i].name, nic->name, sizeof(header->nics[i].name));
        header->nics[i].gid_count = nic->gid_count;
        for (unsigned gid = 0; gid < nic->gid_count; gid++)
            memcpy(header->nics[i].gids[gid].raw, nic->gids[gid].raw, 16);
    }
}

static void publish(const struct config *config)
{
    struct pub_header *header = arena_header();

    header->version = PUB_VERSION;
    header->slot = slot;
    header->pid = (uint32_t)getpid();
    if (getrandom(&header->generation, sizeof(header->generation), 0) < 0)
        header->generation = now_ns();
    publish_nics(header, config);
    /* The lock file tells those who find our slot's number somewhere which life of it they mean. */
    (void)!ftruncate(lock_fd, 0);
    (void)!sys_pwrite(lock_fd, &header->generation, sizeof(header->generation), 0);
    prctl(PR_GET_NAME, header->comm);
    header->magic = PUB_MAGIC;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        sys_close(*fd);
    *fd = -1;
}

static void fork_prepare(void)
{
    core_lock();
    if (opened)
        share_fork_prepare();
}

static void fork_parent(void)
{
    if (opened)
        share_fork_parent();
    core_unlock();
}

/* The child has no engine thread, no slot and no queue pairs; its parent's go on without it. */
static void leave_parent(void)
{
    share_fork_child();
    requester_after_fork();
    link_after_fork();
    thread_after_fork();
    core_after_fork();
    close_fd(&lock_fd);
    close_fd(&runtime_fd);
    opened = false;
    slot = 0;
}

/* The thread that forked has the lock, and is the one that there is here. */
static void fork_child(void)
{
    if (opened)
        leave_parent();
    core_unlock();
}

/* Early: children's handlers run in the order of registration, and others may touch shared pages.
 */
__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(fork_prepare, fork_parent, fork_child);
}

uint64_t process_name(void)
{
    return process_name_of(slot, arena_header()->generation);
}

/* Our own lock file must not be opened here: closing it would let go of the lock. */
bool process_is_alive(uint64_t name)
{
    uint32_t number = process_name_slot(name);
    struct flock lock_of = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    uint64_t generation;
    char file[32];

    if (number == 0 || number == slot)
        return number && name == process_name();
    snprintf(file, sizeof(file), "slot-%04u.lock", number);
    int fd = sys_openat(runtime_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0)
        return false;
    bool alive = fcntl(fd, F_GETLK, &lock_of) == 0 && lock_of.l_type != F_UNLCK &&
                 sys_pread(fd, &generation, sizeof(generation), 0) == sizeof(generation) &&
                 process_name_of(number, generation) == name;
    sys_close(fd);
    return alive;
}

bool process_slot_is_taken(uint32_t number)
{
    struct flock lock_of = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char file[32];

    if (number == 0 || number == slot)
        return number == slot;
    snprintf(file, sizeof(file), "slot-%04u.lock", number);
    int fd = sys_openat(runtime_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0)
        return false;
    bool taken = fcntl(fd, F_GETLK, &lock_of) == 0 && lock_of.l_type != F_UNLCK;
    sys_close(fd);
    return taken;
}

/* Behind the generation: a byte for each queue pair. */
static off_t mark_offset(uint32_t index)
{
    return (off_t)(sizeof(uint64_t) + index);
}

void process_mark_qp(uint32_t index, bool receives)
{
    char mark = receives;

    (void)!sys_pwrite(lock_fd, &mark, 1, mark_offset(index));
}

bool process_left_qp(uint32_t qpn)
{
    uint32_t number = qpn >> LIMIT_QP_BITS;
    char file[32], mark = 0;

    if (number == slot)
        return false; /* nor may our own lock file be opened */
    snprintf(file, sizeof(file), "slot-%04u.lock", number);
    int fd = sys_openat(runtime_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0)
        return false;
    bool left = sys_pread(fd, &mark, 1, mark_offset(qpn & (LIMIT_QP - 1))) == 1 && mark;
    sys_close(fd);
    return left;
}

/* What open_parts() has got so far, the last first. */
static void close_parts(void)
{
    link_after_fork();
    thread_after_fork();
    share_close();
    arena_close();
    close_fd(&lock_fd);
    close_fd(&runtime_fd);
    slot = 0;
}

/* The engine's thread comes last: it can't be stopped any more. */
static int open_parts(const struct config *config)
{
    runtime_fd = own_fd(sys_open(config->runtime_dir, O_PATH | O_DIRECTORY | O_CLOEXEC, 0));
    int error = runtime_fd < 0 ? -errno : take_slot();

    if (!error)
        error = arena_open();
    if (error)
        return error;
    publish(config);
    error = share_init(arena_share());
    if (!error)
        error = thread_prepare();
    if (!error)
        error = link_open();
    if (!error)
        clean_dead_slots();
    return error ? error : thread_start();
}

static void complain(int error)
{
    static bool said;

    if (!said)
        fprintf(stderr, "viaduct: the NIC can't start: %s%s\n", strerror(-error),
                error == -ENOMEM  ? " (is there a limit on address space? ulimit -v)"
                : error == -EFBIG ? " (is there a limit on file sizes? ulimit -f)"
                                  : "");
    said = true;
}

int process_open(void)
{
    const struct config *config = config_get();
    int error;

    if (opened)
        return 0;
    if (!config)
        return -EINVAL;
    error = open_parts(config);
    if (error) {
        close_parts();
        complain(error);
        return error;
    }
    /* Completions are published without a fence: cq_arm() has the kernel fence us instead. */
    process_must_fence =
        syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) != 0;
    /* Debian's default lets same-user processes reach our memory; where Yama does not, allow it. */
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    opened = true;
    removal_look();
    counters_open(config);
    return 0;
}
