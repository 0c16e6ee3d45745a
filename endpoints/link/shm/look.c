/* SPDX-License-Identifier: MIT */
/* Looking at processes from outside (look.h): the asker's side. The other one is in guest.c. */
#define _GNU_SOURCE
#include "link/shm/look.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/objects.h"
#include "core/process.h"
#include "core/removal.h"
#include "core/sys.h"
#include "link/shm/shm.h"

enum { PATIENCE_MS = 500 };

/* ---- asking ---- */

static int ask(int dir_fd, uint32_t slot, enum shm_type what)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct shm_msg msg = {.type = what};
    int fd = sys_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/slot-%04u.sock", dir_fd,
             slot);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
        msg_send(fd, &msg, NULL, 0, NULL, 0) == 0)
        return fd;
    sys_close(fd);
    return -1;
}

/* Is it our own arena's? Two processes may have slots of that number in different directories. */
static bool is_own(int dir_fd, uint32_t slot)
{
    struct stat theirs, ours;

    return process_is_open() && slot == process_slot() && !sys_fstat(dir_fd, &theirs) &&
           !sys_fstat(process_runtime_dirfd(), &ours) && theirs.st_dev == ours.st_dev &&
           theirs.st_ino == ours.st_ino;
}

static int pid_of(int fd)
{
    struct ucred who;
    socklen_t size = sizeof(who);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 ? who.pid : 0;
}

static void begin(struct look_list *list, int dir_fd, uint32_t slot, enum shm_type what)
{
    struct look *look = &list->looks[list->count];

    *look = (struct look){.slot = slot, .fd = -1, .own = is_own(dir_fd, slot)};
    if (look->own) {
        look->pid = getpid();
        look->arena = arena_base;
        look->size = arena_size;
    } else {
        look->fd = ask(dir_fd, slot, what);
        if (look->fd < 0)
            return; /* nobody: what is there was left by a dead one */
        look->pid = pid_of(look->fd);
    }
    list->count++;
}

static void ask_everybody(struct look_list *list, DIR *dir, enum shm_type what)
{
    for (struct dirent *entry; (entry = readdir(dir));) {
        unsigned slot;
        int end = 0;

        if (sscanf(entry->d_name, "slot-%4u.sock%n", &slot, &end) == 1 && end && slot > 0 &&
            slot < LIMIT_SLOTS && !entry->d_name[end] && list->count < LIMIT_SLOTS)
            begin(list, dirfd(dir), slot, what);
    }
}

/* ---- answers ---- */

static void take_answer(struct look *look)
{
    struct shm_msg msg;
    char nothing[8];
    int fds[2];

    if (msg_receive(look->fd, &msg, nothing, sizeof(nothing), fds) >= 0) {
        char *arena;

        look->answered = true;
        if (msg.type == SHM_LOOK && map_arena_of(fds[0], &arena, &look->size) == 0)
            look->arena = arena;
        close_fds(fds);
    }
}

static void await_answer(struct look *look, uint64_t until_ns)
{
    struct pollfd answer = {.fd = look->fd, .events = POLLIN};
    uint64_t now = now_ns();

    if (look->fd < 0)
        return;
    if (poll(&answer, 1, now < until_ns ? (int)((until_ns - now) / 1000000) : 0) > 0)
        take_answer(look);
    sys_close(look->fd);
    look->fd = -1;
}

static struct look_list *ask_all(const char *runtime_dir, enum shm_type what)
{
    struct look_list *list = calloc(1, sizeof(*list));
    int fd = sys_open(runtime_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *dir = fd >= 0 && list ? fdopendir(fd) : NULL;

    if (!dir) {
        if (fd >= 0)
            sys_close(fd);
        free(list);
        return NULL;
    }
    ask_everybody(list, dir, what);
    closedir(dir);
    uint64_t until_ns = now_ns() + PATIENCE_MS * 1000000ull;
    for (unsigned i = 0; i < list->count; i++)
        await_answer(&list->looks[i], until_ns);
    return list;
}

struct look_list *look_all(const char *runtime_dir)
{
    return ask_all(runtime_dir, SHM_LOOK);
}

int look_tell_all(const char *runtime_dir)
{
    struct look_list *list = ask_all(runtime_dir, SHM_REMOVED);
    int told = list ? 0 : -errno;

    for (unsigned i = 0; list && i < list->count; i++) {
        if (list->looks[i].own) {
            core_lock();
            removal_look();
            core_unlock();
        }
        told += list->looks[i].own || list->looks[i].answered;
    }
    look_free(list);
    return told;
}

void look_free(struct look_list *list)
{
    for (unsigned i = 0; list && i < list->count; i++) {
        struct look *look = &list->looks[i];

        if (look->arena && !look->own)
            sys_munmap((void *)look->arena, look->size);
    }
    free(list);
}

/* ---- reading ---- */

uint32_t look_qps(const struct look *look)
{
    uint32_t high = look->arena ? atomic_load(&look_header(look)->qp_high) : 0;

    return high < LIMIT_QP ? high : LIMIT_QP;
}

uint32_t look_posted(const struct look *look, const struct pub_qp *qp, uint32_t taken)
{
    uint64_t offset = PUB_READ(qp->rq_ring);
    const struct pub_rq *rq = (const void *)(look->arena + offset);

    if (!offset || offset % _Alignof(struct pub_rq) || offset > look->size - sizeof(*rq) ||
        rq->claim)
        return 0;
    uint32_t posted = atomic_load(&rq->tail) - taken;
    return posted <= PUB_READ(rq->mask) + 1 ? posted : 0;
}
