/* SPDX-License-Identifier: MIT */
/*
 * Peers: processes we send to.
 *
 *   absent --wanted--> connecting --HELLO--> ready --hang-up--> dead (freed when nobody looks)
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/cq_impl.h"
#include "core/process.h"
#include "core/requester.h"
#include "core/sys.h"
#include "link/link.h"
#include "link/shm/shm.h"

static _Atomic(struct peer *) peers[LIMIT_SLOTS]; /* ready ones, and our own */
static struct peer *connecting[LIMIT_SLOTS];
static _Atomic uint64_t absent_ns[LIMIT_SLOTS];   /* when nobody answered last */
static _Atomic uint64_t wanted[LIMIT_SLOTS / 64]; /* a bit stays until it is known how it ended */
static _Atomic bool some_wanted, everybody_wanted;
static uint64_t reaching;        /* joins that the connecting under way will have covered */
static _Atomic uint64_t reached; /* joins that all connected peers cover */

enum { ABSENT_NS = 10000000 };

/* ---- data path ---- */

bool peer_is_absent(uint32_t slot)
{
    uint64_t since = atomic_load(&absent_ns[slot]);

    return since && now_ns() - since < ABSENT_NS;
}

struct peer *peer_get(uint32_t slot)
{
    struct peer *peer = atomic_load_explicit(&peers[slot], memory_order_acquire);

    if (__builtin_expect(peer != NULL, 1))
        return atomic_load_explicit(&peer->dead, memory_order_relaxed) ? NULL : peer;
    if (peer_is_absent(slot))
        return NULL;
    uint64_t bit = 1ull << slot % 64;
    if (!(atomic_fetch_or(&wanted[slot / 64], bit) & bit)) {
        atomic_store(&some_wanted, true);
        thread_wake();
    }
    return NULL;
}

bool peer_send(struct peer *peer, const struct shm_msg *msg, const void *payload, size_t length)
{
    return msg_send(peer->watch.fd, msg, payload, length, NULL, 0) == 0;
}

/* ---- the engine thread: executed requests ---- */

/* What was read; NULL with a failure in *status. */
static void *copy_reply(const struct qp *qp, const void *payload, size_t length, int *status)
{
    if (*status || !qp->remote_length)
        return NULL;
    void *reply = length == qp->remote_length ? malloc(length) : NULL;
    if (!reply) {
        *status = -ENOMEM;
        return NULL;
    }
    return memcpy(reply, payload, length);
}

static void on_executed(const struct peer *peer, const struct shm_msg *msg, const void *payload,
                        size_t length)
{
    struct qp *qp = qp_at(msg->index & (LIMIT_QP - 1));
    int status = msg->status == -EINPROGRESS ? -EPROTO : msg->status;

    if (!qp)
        return;
    spin_lock_word(&qp->pub->busy);
    if (qp->remote_op && qp->remote_op == msg->id && qp->remote_peer == peer &&
        qp->remote_status == -EINPROGRESS) {
        qp->remote_reply = copy_reply(qp, payload, length, &status);
        qp->remote_value = msg->value[0];
        qp->remote_status = status;
        qp->retry_at_ns = 0;
    }
    spin_unlock_word(&qp->pub->busy);
}

/* ---- the engine thread: connections ---- */

/* The attempt to reach a slot's process is over; who wants it from now on asks anew. */
static void settle(uint32_t slot, bool there)
{
    atomic_store(&absent_ns[slot], there ? 0 : now_ns());
    atomic_fetch_and(&wanted[slot / 64], ~(1ull << slot % 64));
}

/* Queue pairs let go of it under their busy words, so that afterwards nobody holds it. */
static void peer_died(struct peer *peer)
{
    thread_unwatch(&peer->watch);
    if (connecting[peer->slot] == peer) {
        connecting[peer->slot] = NULL;
        settle(peer->slot, false);
        sys_close(peer->watch.fd);
        free(peer);
        return;
    }
    atomic_store(&peer->dead, true);
    atomic_store(&peers[peer->slot], NULL);
    shm_process_died(peer->slot, peer->arena, peer);
    sys_close(peer->watch.fd); /* not before: who sends to it may have read the number */
    share_view_close(&peer->view);
    sys_close(peer->view.mem_fd);
    munmap(peer->arena, peer->arena_size);
    lanes_free(peer);
    outbox_free(&peer->outbox);
    free(peer);
}

static int peer_adopt(struct peer *peer, const int fds[2])
{
    struct ucred who;
    socklen_t size = sizeof(who);

    if (getsockopt(peer->watch.fd, SOL_SOCKET, SO_PEERCRED, &who, &size) || who.uid != geteuid())
        return -EPERM;
    peer->pid = who.pid;
    int error = map_arena_of(fds[0], &peer->arena, &peer->arena_size);
    if (error)
        return error;
    const void *map = peer->arena + PUB_SHARE_OFFSET;
    error = share_view_open(&peer->view, map, own_fd(fds[1]));
    if (error)
        munmap(peer->arena, peer->arena_size);
    return error;
}

static void on_hello(struct peer *peer, int fds[2])
{
    if (connecting[peer->slot] != peer || peer_adopt(peer, fds)) {
        sys_close(fds[1]);
        peer_died(peer);
        return;
    }
    connecting[peer->slot] = NULL;
    atomic_store(&peer->ready, true);
    atomic_store_explicit(&peers[peer->slot], peer, memory_order_release);
    settle(peer->slot, true);
    shm_peer_came(peer->slot);
}

static void on_peer(struct watch *watch)
{
    static char payload[SHM_PAYLOAD_MAX];
    struct peer *peer = (struct peer *)watch; /* its first member */
    struct shm_msg msg;
    int fds[2];
    ssize_t length;

    while ((length = msg_receive(watch->fd, &msg, payload, sizeof(payload), fds)) >= 0) {
        if (msg.type == SHM_HELLO)
            on_hello(peer, fds);
        else if (msg.type == SHM_LANE_READY)
            lane_on_ready(peer, &msg);
        else if (msg.type == SHM_EXECUTED)
            on_executed(peer, &msg, payload, (size_t)length);
        else if (msg.type == SHM_CHANNEL)
            lane_on_channel(peer, &msg, fds[0]);
        else if (msg.type == SHM_MAD && atomic_load(&peer->ready))
            mad_receive(peer->arena, payload, (size_t)length);
        if (msg.type == SHM_HELLO) {
            fds[1] = -1; /* the view has it */
            close_fds(fds);
            return; /* the peer may be gone; more comes with the next event */
        }
        close_fds(fds);
    }
    if (length == -ENOTCONN) {
        if (connecting[peer->slot] == peer)
            shm_process_vanished(peer->slot);
        peer_died(peer);
    }
}

static int connect_to(uint32_t slot)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    /* Not blocking: who does not accept any more must not hold up our engine. */
    int fd = own_fd(sys_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));

    if (fd < 0)
        return -errno;
    process_socket_path(slot, address.sun_path, sizeof(address.sun_path));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    sys_close(fd);
    return -errno;
}

static int say_hello(struct peer *peer)
{
    struct shm_msg msg = {.type = SHM_HELLO, .index = process_slot()};
    int fds[2] = {arena_fd(), share_mem_fd()};

    return msg_send(peer->watch.fd, &msg, NULL, 0, fds, 2);
}

static void start(uint32_t slot)
{
    if (connecting[slot])
        return;
    if (atomic_load(&peers[slot])) {
        settle(slot, true);
        return;
    }
    int fd = connect_to(slot);
    struct peer *peer = fd < 0 ? NULL : calloc(1, sizeof(*peer));
    if (!peer) {
        if (fd >= 0)
            sys_close(fd);
        settle(slot, false);
        return;
    }
    peer->watch.fd = fd;
    peer->watch.ready = on_peer;
    peer->slot = slot;
    connecting[slot] = peer;
    if (thread_watch(&peer->watch))
        peer_died(peer);
    else if (say_hello(peer))
        shutdown(fd, SHUT_RDWR); /* the engine may have seen its event already, and ends it */
}

void peer_reach(uint32_t slot)
{
    if (slot < LIMIT_SLOTS)
        start(slot);
}

int peer_socket(uint64_t name, bool connect)
{
    uint32_t slot = process_name_slot(name);

    if (connect && !atomic_load(&peers[slot]))
        start(slot);
    struct peer *peer = atomic_load(&peers[slot]);
    if (!peer)
        return connecting[slot] || !connect ? -EAGAIN : -ESRCH;
    return mad_name_of(peer->arena) == name ? peer->watch.fd : -ESRCH;
}

/* Every slot that has a socket in the runtime directory. */
static void start_all(void)
{
    char path[32];
    unsigned slot;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", process_runtime_dirfd());
    DIR *dir = opendir(path);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (sscanf(entry->d_name, "slot-%4u.sock", &slot) == 1 && slot < LIMIT_SLOTS)
            start(slot);
    }
    closedir(dir);
}

static bool some_connecting(void)
{
    for (uint32_t slot = 1; slot < LIMIT_SLOTS; slot++) {
        if (connecting[slot])
            return true;
    }
    return false;
}

/* ---- multicast needs everybody ---- */

/*
 * A word all processes share, in the runtime directory: it moves whenever somebody joins a group. A
 * sender that sees it moved connects to every process that is there before it sends.
 */
static _Atomic uint64_t *open_joins(void)
{
    static _Atomic(_Atomic uint64_t *) joins;
    _Atomic uint64_t *word = atomic_load(&joins);

    if (word)
        return word;
    int fd = sys_openat(process_runtime_dirfd(), "multicast", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return NULL;
    void *page = ftruncate(fd, (off_t)SHARE_PAGE)
                     ? MAP_FAILED
                     : mmap(NULL, SHARE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    sys_close(fd);
    if (page == MAP_FAILED)
        return NULL;
    atomic_store(&joins, page);
    return page;
}

static uint64_t joins_now(void)
{
    _Atomic uint64_t *joins = open_joins();

    return joins ? atomic_load(joins) + 1 : 1;
}

void peer_announce_member(void)
{
    _Atomic uint64_t *joins = open_joins();

    if (joins)
        atomic_fetch_add(joins, 1);
}

/* Each end of an attempt wakes the engine, so it looks here again. */
static void reach_everybody(void)
{
    if (!atomic_load(&everybody_wanted))
        return;
    uint64_t joins = joins_now();
    if (reaching != joins) {
        reaching = joins;
        start_all();
    }
    if (some_connecting())
        return;
    atomic_store(&reached, reaching);
    atomic_store(&everybody_wanted, false);
}

bool peer_each(void (*visit)(struct peer *peer, void *argument), void *argument)
{
    if (atomic_load(&reached) != joins_now()) {
        if (!atomic_exchange(&everybody_wanted, true))
            thread_wake();
        return false;
    }
    for (uint32_t slot = 1; slot < LIMIT_SLOTS; slot++) {
        struct peer *peer = atomic_load_explicit(&peers[slot], memory_order_acquire);

        if (peer && !atomic_load(&peer->dead))
            visit(peer, argument);
    }
    return true;
}

static void each_peer(void (*act)(struct peer *peer))
{
    for (uint32_t slot = 1; slot < LIMIT_SLOTS; slot++) {
        struct peer *peer = atomic_load(&peers[slot]);

        if (peer && !atomic_load(&peer->dead))
            act(peer);
    }
}

static void flush(struct peer *peer)
{
    outbox_flush(&peer->outbox, peer->watch.fd);
}

void peer_flush(void)
{
    each_peer(flush);
}

void peer_progress(void)
{
    if (atomic_exchange(&some_wanted, false)) {
        for (uint32_t word = 0; word < LIMIT_SLOTS / 64; word++) {
            for (uint64_t bits = atomic_load(&wanted[word]); bits; bits &= bits - 1)
                start(word * 64 + (uint32_t)__builtin_ctzll(bits));
        }
    }
    reach_everybody();
    if (lanes_due())
        each_peer(lanes_ask);
}

/* ---- opening, and the child of a fork ---- */

int peer_open(void)
{
    struct peer *self = calloc(1, sizeof(*self));

    if (!self)
        return -ENOMEM;
    self->self = true;
    self->watch.fd = -1;
    self->slot = process_slot();
    self->arena = arena_base;
    self->arena_size = arena_size;
    self->pid = getpid();
    atomic_store(&self->ready, true);
    atomic_store(&peers[self->slot], self);
    return 0;
}

void peer_after_fork(void)
{
    for (uint32_t slot = 1; slot < LIMIT_SLOTS; slot++) {
        struct peer *peer = atomic_load(&peers[slot]);

        if (peer && peer->self) {
            free(peer);
        } else if (peer) {
            sys_close(peer->watch.fd);
            lanes_after_fork(peer);
        }
        if (connecting[slot])
            sys_close(connecting[slot]->watch.fd);
        atomic_store(&peers[slot], NULL);
        connecting[slot] = NULL;
        atomic_store(&absent_ns[slot], 0);
    }
    /* Nobody is connected to from here. */
    memset(wanted, 0, sizeof(wanted));
    atomic_store(&everybody_wanted, false);
    reaching = 0;
    atomic_store(&reached, 0);
}
