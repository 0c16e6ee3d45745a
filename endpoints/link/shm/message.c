/* SPDX-License-Identifier: MIT */
/* Control messages: fixed records over SOCK_SEQPACKET, with descriptors in the first one. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/sys.h"
#include "link/shm/shm.h"

static void attach_fds(struct msghdr *header, void *control, const int *fds, unsigned count)
{
    header->msg_control = control;
    header->msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *rights = CMSG_FIRSTHDR(header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
}

int msg_send(int fd, const struct shm_msg *msg, const void *payload, size_t length, const int *fds,
             unsigned fd_count)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))];
    struct iovec parts[2] = {{(void *)msg, sizeof(*msg)}, {(void *)payload, length}};
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = length ? 2 : 1};

    if (fd_count)
        attach_fds(&header, control, fds, fd_count);
    /* Not sendmsg(), where a thread can be cancelled: it may hold a send queue. */
    while (syscall(SYS_sendmsg, fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

static void take_fds(struct msghdr *header, int fds_out[2])
{
    struct cmsghdr *rights = CMSG_FIRSTHDR(header);

    fds_out[0] = fds_out[1] = -1;
    if (!rights || rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS)
        return;
    size_t bytes = rights->cmsg_len - CMSG_LEN(0);
    memcpy(fds_out, CMSG_DATA(rights), bytes < 2 * sizeof(int) ? bytes : 2 * sizeof(int));
}

void close_fds(const int fds[2])
{
    for (int i = 0; i < 2; i++) {
        if (fds[i] >= 0)
            sys_close(fds[i]);
    }
}

ssize_t msg_receive(int fd, struct shm_msg *msg, void *payload, size_t room, int fds_out[2])
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))];
    struct iovec parts[2] = {{msg, sizeof(*msg)}, {payload, room}};
    struct msghdr header = {.msg_iov = parts,
                            .msg_iovlen = 2,
                            .msg_control = control,
                            .msg_controllen = sizeof(control)};
    ssize_t got = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? -EAGAIN : -ENOTCONN;
    take_fds(&header, fds_out);
    if (got < (ssize_t)sizeof(*msg)) {
        close_fds(fds_out);
        return -ENOTCONN; /* closed, or not one of us */
    }
    return got - (ssize_t)sizeof(*msg);
}

/* Of a size that we can read at fixed places, and that stays: else it faults under our feet. */
static bool is_arena(int fd, uint64_t *size_out)
{
    struct stat status;
    long seals = syscall(SYS_fcntl, fd, F_GET_SEALS);

    if (fd < 0 || sys_fstat(fd, &status) || seals < 0 || !(seals & F_SEAL_SHRINK))
        return false;
    *size_out = (uint64_t)status.st_size;
    return *size_out >= PUB_ARENA_MIN && *size_out <= PUB_ARENA_MAX && *size_out % SHARE_PAGE == 0;
}

/* Read-only: what lies there is its owner's. */
int map_arena_of(int fd, char **arena_out, uint64_t *size_out)
{
    uint64_t size;

    if (!is_arena(fd, &size))
        return -EPROTO;
    void *arena = sys_mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (arena == MAP_FAILED)
        return -errno;
    sys_madvise(arena, size, MADV_DONTDUMP);
    sys_madvise(arena, size, MADV_DONTFORK);
    const struct pub_header *header = arena;
    if (header->magic != PUB_MAGIC || header->version != PUB_VERSION) {
        sys_munmap(arena, size);
        return -EPROTO;
    }
    *arena_out = arena;
    *size_out = size;
    return 0;
}
