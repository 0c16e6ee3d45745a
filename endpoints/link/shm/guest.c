/* SPDX-License-Identifier: MIT */
/* Guests: processes that send to us. They call at our socket; the engine thread serves them. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/removal.h"
#include "core/arena.h"
#include "core/cq_impl.h"
#include "core/process.h"
#include "core/sys.h"
#include "link/shm/shm.h"

struct guest {
    struct watch watch;
    uint32_t slot;
    char *arena; /* NULL before HELLO */
    uint64_t arena_size;
    struct outbox outbox;
    struct guest *next;
};

static struct watch listener = {.fd = -1};
static struct guest *guests;

/* ---- quiescence ---- */

enum { QUIESCE_NS_MAX = 1000000000, LOOK_EVERY = 4096 };

#define SHARE_AROUND (1ull << 20) /* shared at a time, aligned, as far as the region reaches */

/* One call's patience with one process. */
struct patience {
    uint64_t until_ns;
    int fd; /* its connection; -1: our own process */
    bool over;
};

static bool hung_up(int fd)
{
    struct pollfd connection = {.fd = fd, .events = POLLRDHUP};

    return fd >= 0 && poll(&connection, 1, 0) > 0 && connection.revents;
}

/* Until the word was free once. False: its process is stopped; a dead one is busy no more. */
static bool wait_free(const _Atomic uint32_t *busy, struct patience *patience)
{
    for (unsigned tries = 1; atomic_load_explicit(busy, memory_order_acquire); tries++) {
        if (patience->over)
            return false;
        cpu_relax();
        if (tries % 64 == 0)
            sched_yield();
        if (tries % LOOK_EVERY)
            continue;
        if (hung_up(patience->fd))
            return true;
        patience->over = now_ns() > patience->until_ns;
    }
    return true;
}

static bool wait_arena(const char *arena, struct patience *patience)
{
    const struct pub_header *header = (const void *)arena;
    const struct pub_qp *qps = (const void *)(arena + PUB_QPS_OFFSET);
    uint32_t high = atomic_load(&header->qp_high);
    bool all = true;

    for (uint32_t i = 1; i < high && i < LIMIT_QP; i++)
        all = wait_free(&qps[i].busy, patience) && all;
    return all;
}

static struct patience patience_with(const struct guest *guest)
{
    return (struct patience){.until_ns = now_ns() + QUIESCE_NS_MAX,
                             .fd = guest ? guest->watch.fd : -1};
}

static bool wait_guest(const struct guest *guest, uint32_t qpn)
{
    struct patience patience = patience_with(guest);
    const char *arena = guest ? guest->arena : arena_base;
    uint32_t slot = guest ? guest->slot : process_slot();
    const struct pub_qp *qps = (const void *)(arena + PUB_QPS_OFFSET);

    if (!qpn)
        return wait_arena(arena, &patience);
    if (slot != qpn >> LIMIT_QP_BITS)
        return true;
    return wait_free(&qps[qpn & (LIMIT_QP - 1)].busy, &patience);
}

bool guest_quiesce(uint32_t qpn)
{
    bool all = true;

    /* Pairs with the exchange that takes busy: who takes it from now on sees what we changed. */
    fence(memory_order_seq_cst);
    for (const struct guest *guest = guests; guest; guest = guest->next) {
        if (guest->arena)
            all = wait_guest(guest, qpn) && all;
    }
    return wait_guest(NULL, qpn) && all;
}

static void each_of(const char *arena, void (*visit)(const struct pub_qp *qp))
{
    const struct pub_header *header = (const void *)arena;
    const struct pub_qp *qps = (const void *)(arena + PUB_QPS_OFFSET);
    uint32_t high = atomic_load(&header->qp_high);

    for (uint32_t i = 1; i < high && i < LIMIT_QP; i++)
        visit(&qps[i]);
}

void guest_each_initiator(void (*visit)(const struct pub_qp *qp))
{
    for (const struct guest *guest = guests; guest; guest = guest->next) {
        if (guest->arena)
            each_of(guest->arena, visit);
    }
    each_of(arena_base, visit);
}

/* ---- what guests ask ---- */

static int open_lane(struct guest *guest, const struct shm_msg *ask, struct shm_msg *answer)
{
    struct cq *cq = cq_get(ask->index);
    uint64_t entries = ask->length;

    if (!cq || atomic_load(&cq->pub->gen) != ask->gen)
        return -ENOENT;
    if (cq_has_lane(cq, guest)) /* one is enough: who asks again wants our memory */
        return -EEXIST;
    if (entries < LANE_ENTRIES_MIN || entries > LANE_ENTRIES_MAX || (entries & (entries - 1)) ||
        ask->offset % 64 || ask->offset > guest->arena_size - entries * sizeof(struct cqe))
        return -EINVAL;
    if (ask->value[0] % 64 || ask->value[0] > guest->arena_size - sizeof(struct lane_tail))
        return -EINVAL;
    const struct cqe *ring = (const void *)(guest->arena + ask->offset);
    struct lane_in *lane = lane_in_new(ring, (uint32_t)entries - 1, guest);
    if (!lane)
        return -ENOMEM;
    lane->tail = (const void *)(guest->arena + ask->value[0]);
    int error = cq_add_lane(cq, lane);
    if (error) {
        lane_in_free(lane);
        return error;
    }
    answer->offset = arena_offset(lane->pub);
    return 0;
}

/* Best effort: who does not get it asks again. */
static void send_channel(const struct guest *guest, const struct cq *cq)
{
    struct shm_msg msg = {.type = SHM_CHANNEL, .index = cq->handle, .gen = cq->own.cq_gen};

    if (cq->channel)
        msg_send(guest->watch.fd, &msg, NULL, 0, &cq->channel->ours, 1);
}

static void on_event(const struct guest *guest, const struct shm_msg *msg)
{
    struct cq *cq = cq_get(msg->index);

    if (!cq || cq->own.cq_gen != msg->gen)
        return;
    if (msg->op == SHM_EVENT_TOLD)
        cq_notify(cq, cq_arming(msg->key));
    else
        cq_owe(cq);
    if (msg->op == SHM_EVENT_FIRST)
        send_channel(guest, cq);
}

static void on_drain(const struct guest *guest, const struct shm_msg *msg)
{
    struct cq *cq = cq_get(msg->index);

    if (cq)
        cq_make_room_for(cq, guest, (uint32_t)msg->id);
}

static bool is_event(int event)
{
    return event == 0 || event == IBV_EVENT_QP_FATAL + 1 || event == IBV_EVENT_QP_REQ_ERR + 1 ||
           event == IBV_EVENT_QP_ACCESS_ERR + 1;
}

/* Only the process that it is connected to may say so. */
static void on_qp_error(const struct guest *guest, const struct shm_msg *msg)
{
    struct qp *qp = qp_at(msg->index & (LIMIT_QP - 1));

    if (qp && qp->pub->cookie == msg->gen && qp_is_connected_type(qp) && is_event(msg->status) &&
        qp->attr.dest_qp_num >> LIMIT_QP_BITS == guest->slot && qp_state(qp) != IBV_QPS_RESET &&
        qp_state(qp) != IBV_QPS_ERR)
        qp_fail(qp, msg->status);
}

static void on_first(const struct guest *guest, const struct shm_msg *msg)
{
    struct qp *qp = qp_at(msg->index & (LIMIT_QP - 1));

    if (qp && qp->pub->cookie == msg->gen && qp_is_connected_type(qp) &&
        qp->attr.dest_qp_num >> LIMIT_QP_BITS == guest->slot && qp_state(qp) == IBV_QPS_RTR)
        qp_established(qp);
}

static const struct mr *covering(const struct shm_msg *msg)
{
    const struct mr *mr = mr_get(msg->key >> 8);
    bool covers = mr && mr->key == msg->key && msg->length && msg->offset >= mr->addr &&
                  msg->length <= mr->length && msg->offset - mr->addr <= mr->length - msg->length;

    return covers ? mr : NULL;
}

/*
 * What lies around in the region is reached next: a pool of small receives would otherwise be
 * asked for page by page, and each page become a mapping.
 */
static void share_around(const struct mr *mr, uint64_t addr, uint64_t length)
{
    uint64_t start = addr & ~(SHARE_AROUND - 1), end = mr->addr + mr->length;
    uint64_t stop = ((addr + length - 1) | (SHARE_AROUND - 1)) + 1;

    if (start < mr->addr)
        start = mr->addr;
    if (stop < end)
        end = stop;
    int64_t reached = share_range(start, end - start);
    if (reached < 0 || start + (uint64_t)reached < addr + length)
        share_range(addr, length);
}

/* Who may be copying into these pages by process_vm_writev() has to be done first. */
static void on_share(const struct shm_msg *msg)
{
    const struct mr *mr = covering(msg);

    if (!mr)
        return;
    share_announce(true);
    if (guest_quiesce(0))
        share_around(mr, msg->offset, msg->length);
    share_announce(false);
}

/* One that asks and asks and never listens is sent away. */
static void answer_guest(struct guest *guest, const struct shm_msg *answer, const void *payload,
                         size_t length)
{
    if (!outbox_send(&guest->outbox, guest->watch.fd, answer, payload, length))
        shutdown(guest->watch.fd, SHUT_RDWR);
}

void guest_flush(void)
{
    for (struct guest *guest = guests; guest; guest = guest->next)
        outbox_flush(&guest->outbox, guest->watch.fd);
}

static void answer_execute(struct guest *guest, const struct shm_msg *msg, const char *payload,
                           size_t length)
{
    static char reply[SHM_PAYLOAD_MAX];
    struct shm_msg answer = {.type = SHM_EXECUTED, .index = msg->index, .id = msg->id};
    size_t reply_length = 0;

    const struct pub_qp *qps = (const void *)(guest->arena + PUB_QPS_OFFSET);
    uint32_t index = msg->index & (LIMIT_QP - 1);

    if (msg->op == SHM_OP_WRITE && length != msg->length)
        answer.status = -EINVAL;
    else
        execute_here(&qps[index], guest->slot << LIMIT_QP_BITS | index, msg, payload, &answer,
                     reply, &reply_length);
    answer_guest(guest, &answer, reply, reply_length);
}

static int on_hello(struct guest *guest, const int fds[2])
{
    struct shm_msg answer = {.type = SHM_HELLO, .index = process_slot()};
    int ours[2] = {arena_fd(), share_mem_fd()};

    if (guest->arena || map_arena_of(fds[0], &guest->arena, &guest->arena_size))
        return -EPROTO;
    guest->slot = ((const struct pub_header *)(void *)guest->arena)->slot % LIMIT_SLOTS;
    return msg_send(guest->watch.fd, &answer, NULL, 0, ours, 2);
}

/* From one that will send nothing here. */
static int on_look(struct guest *guest)
{
    struct shm_msg answer = {.type = SHM_LOOK, .index = process_slot()};
    int ours[1] = {arena_fd()};

    return msg_send(guest->watch.fd, &answer, NULL, 0, ours, 1);
}

/* The same: it reads the answer, and no more. */
static int on_removed(struct guest *guest)
{
    struct shm_msg answer = {.type = SHM_REMOVED, .index = process_slot()};

    removal_look();
    return msg_send(guest->watch.fd, &answer, NULL, 0, NULL, 0);
}

static void on_lane_open(struct guest *guest, const struct shm_msg *msg)
{
    struct shm_msg answer = {.type = SHM_LANE_READY, .index = msg->index, .gen = msg->gen};

    answer.status = open_lane(guest, msg, &answer);
    answer_guest(guest, &answer, NULL, 0);
}

static void serve(struct guest *guest, const struct shm_msg *msg, const char *payload,
                  size_t length)
{
    switch (msg->type) {
    case SHM_LANE_OPEN:
        on_lane_open(guest, msg);
        break;
    case SHM_EVENT:
        on_event(guest, msg);
        break;
    case SHM_DRAIN:
        on_drain(guest, msg);
        break;
    case SHM_QP_ERROR:
        on_qp_error(guest, msg);
        break;
    case SHM_FIRST:
        on_first(guest, msg);
        break;
    case SHM_SHARE:
        on_share(msg);
        break;
    case SHM_EXECUTE:
        answer_execute(guest, msg, payload, length);
        break;
    case SHM_RECLAIM:
        shm_reclaim();
        break;
    case SHM_MAD:
        mad_receive(guest->arena, payload, length);
        break;
    default: /* SHM_SRQ_LIMIT: the engine looks at every SRQ when it has been woken */
        break;
    }
}

int guest_socket(uint64_t name)
{
    for (const struct guest *guest = guests; guest; guest = guest->next) {
        if (guest->arena && mad_name_of(guest->arena) == name)
            return guest->watch.fd;
    }
    return -ESRCH;
}

static void guest_died(struct guest *guest)
{
    struct guest **at = &guests;

    while (*at != guest)
        at = &(*at)->next;
    *at = guest->next;
    thread_unwatch(&guest->watch);
    sys_close(guest->watch.fd);
    if (guest->arena) {
        cq_drop_guest(guest);
        shm_reclaim();
        shm_process_died(guest->slot, guest->arena, NULL);
        munmap(guest->arena, guest->arena_size);
    }
    outbox_free(&guest->outbox);
    free(guest);
}

/* False: the guest is gone. */
static bool serve_next(struct guest *guest)
{
    static char payload[SHM_PAYLOAD_MAX];
    struct shm_msg msg;
    int fds[2];
    ssize_t length = msg_receive(guest->watch.fd, &msg, payload, sizeof(payload), fds);

    if (length < 0)
        return length == -EAGAIN;
    int error = 0;
    if (msg.type == SHM_HELLO)
        error = on_hello(guest, fds);
    else if (msg.type == SHM_LOOK)
        error = on_look(guest);
    else if (msg.type == SHM_REMOVED)
        error = on_removed(guest);
    else if (guest->arena)
        serve(guest, &msg, payload, (size_t)length);
    close_fds(fds);
    return error == 0;
}

/* One message an event: the loop comes back as long as there are more, and serves others between.
 */
static void on_guest(struct watch *watch)
{
    struct guest *guest = (struct guest *)watch; /* its first member */

    if (!serve_next(guest))
        guest_died(guest);
}

static bool same_user(int fd)
{
    struct ucred who;
    socklen_t size = sizeof(who);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && who.uid == geteuid();
}

static void on_call(struct watch *watch)
{
    int fd = own_fd(accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));

    if (fd < 0)
        return;
    struct guest *guest = same_user(fd) ? calloc(1, sizeof(*guest)) : NULL;
    if (!guest) {
        sys_close(fd);
        return;
    }
    guest->watch.fd = fd;
    guest->watch.ready = on_guest;
    guest->next = guests;
    guests = guest;
    if (thread_watch(&guest->watch))
        guest_died(guest);
}

/* We hold the slot's lock: a socket that lies there is left over from a process that died. */
int guest_open(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    listener.fd = own_fd(sys_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (listener.fd < 0)
        return -errno;
    process_socket_path(process_slot(), address.sun_path, sizeof(address.sun_path));
    unlink(address.sun_path);
    if (bind(listener.fd, (struct sockaddr *)&address, sizeof(address)) ||
        chmod(address.sun_path, 0600) || listen(listener.fd, LIMIT_SLOTS))
        return -errno;
    listener.ready = on_call;
    return thread_watch(&listener);
}

void guest_after_fork(void)
{
    if (listener.fd >= 0)
        sys_close(listener.fd);
    listener.fd = -1;
    for (struct guest *guest = guests; guest; guest = guest->next)
        sys_close(guest->watch.fd);
    guests = NULL;
}
