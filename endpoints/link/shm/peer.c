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
static _Atomic uint64_t absent_ns[LIMIT_SLOTS]; /* when nobody answered last */
static _Atomic uint64_t wanted[LIMIT_SLOTS / 64];
static _Atomic bool some_wanted, lanes_wanted, everybody_wanted;
static uint64_t reaching;         /* joins that the connecting under way will have covered */
static _Atomic uint64_t reached;  /* joins that all connected peers cover */

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
    atomic_fetch_or(&wanted[slot / 64], 1ull << slot % 64);
    atomic_store(&some_wanted, true);
    thread_wake();
    return NULL;
}

static struct shm_lane *find_lane(struct peer *peer, uint32_t cq, uint32_t gen)
{
    struct shm_lane *lane = atomic_load_explicit(&peer->lanes, memory_order_acquire);

    while (lane && (lane->out.cq_index != cq || lane->out.cq_gen != gen))
        lane = atomic_load_explicit(&lane->next, memory_order_acquire);
    return lane;
}

static struct shm_lane *want_lane(struct peer *peer, uint32_t cq, uint32_t gen)
{
    struct shm_lane *lane = calloc(1, sizeof(*lane));

    if (!lane)
        return NULL;
    lane->peer = peer;
    lane->out.cq_index = cq;
    lane->out.cq_gen = gen;
    struct shm_lane *first = atomic_load(&peer->lanes);
    do {
        atomic_store(&lane->next, first);
    } while (!atomic_compare_exchange_weak(&peer->lanes, &first, lane));
    atomic_store(&lanes_wanted, true);
    thread_wake();
    return lane;
}

struct shm_lane *peer_lane(struct peer *peer, uint32_t cq, uint32_t gen)
{
    struct shm_lane *lane = find_lane(peer, cq, gen);

    if (!lane)
        lane = want_lane(peer, cq, gen);
    if (lane && atomic_load_explicit(&lane->state, memory_order_acquire) == LANE_READY)
        return lane;
    return NULL;
}

bool peer_send(struct peer *peer, const struct shm_msg *msg, const void *payload, size_t length)
{
    return msg_send(peer->watch.fd, msg, payload, length, NULL, 0, !thread_is_current()) == 0;
}

/* ---- the engine thread: lanes ---- */

static int prepare_lane(struct shm_lane *lane)
{
    const struct pub_cq *cq = peer_ptr(lane->peer, PUB_CQS_OFFSET, sizeof(*cq) * LIMIT_CQ);
    struct lane_out *out = &lane->out;

    out->cq = &cq[out->cq_index];
    return lane_out_init(out, atomic_load(&out->cq->cqe));
}

static void collect_lanes(struct peer *peer);

static void ask_lane(struct shm_lane *lane)
{
    struct shm_msg msg = {.type = SHM_LANE_OPEN, .index = lane->out.cq_index,
                          .gen = lane->out.cq_gen};

    if (prepare_lane(lane)) {
        atomic_store(&lane->state, LANE_REFUSED);
        return;
    }
    msg.offset = arena_offset(lane->out.ring);
    msg.length = lane->out.mask + 1;
    msg.id = (uintptr_t)lane;
    atomic_store(&lane->state, LANE_ASKED);
    if (!peer_send(lane->peer, &msg, NULL, 0)) {
        lane_out_fini(&lane->out);
        atomic_store(&lane->state, LANE_WANTED);
    }
}

static void ask_lanes(struct peer *peer)
{
    if (!peer || atomic_load(&peer->dead))
        return;
    collect_lanes(peer);
    for (struct shm_lane *lane = atomic_load(&peer->lanes); lane; lane = atomic_load(&lane->next)) {
        if (atomic_load(&lane->state) == LANE_WANTED)
            ask_lane(lane);
    }
}

static void on_lane_ready(struct peer *peer, const struct shm_msg *msg)
{
    struct shm_lane *lane = find_lane(peer, msg->index, msg->gen);

    if (!lane || atomic_load(&lane->state) != LANE_ASKED)
        return;
    lane->out.head = peer_ptr(peer, msg->offset, sizeof(struct lane_head));
    if (msg->status || !lane->out.head) {
        lane_out_fini(&lane->out);
        atomic_store(&lane->state, LANE_REFUSED);
        return;
    }
    atomic_store_explicit(&lane->state, LANE_READY, memory_order_release);
}

/* ---- the engine thread: executed requests ---- */

static void on_executed(const struct shm_msg *msg, const void *payload, size_t length)
{
    struct qp *qp = qp_at(msg->index & (LIMIT_QP - 1));

    if (!qp)
        return;
    spin_lock_word(&qp->pub->busy);
    if (qp->remote_op && qp->remote_op == msg->id && qp->remote_status == -EINPROGRESS) {
        if (length && length == qp->remote_length)
            memcpy(qp->remote_buffer, payload, length);
        qp->remote_value = msg->value[0];
        qp->remote_status = msg->status;
        qp->retry_at_ns = 0;
    }
    spin_unlock_word(&qp->pub->busy);
}

/* ---- the engine thread: connections ---- */

static void peer_close(struct peer *peer)
{
    thread_unwatch(&peer->watch);
    sys_close(peer->watch.fd);
    peer->watch.fd = -1;
}

static void free_lane(struct shm_lane *lane)
{
    if (lane->out.ring)
        lane_out_fini(&lane->out);
    free(lane);
}

/* Lanes to CQs that are gone: no target leads to them any more, see target_reach(). */
static void collect_lanes(struct peer *peer)
{
    struct shm_lane *gone = NULL;

    for (_Atomic(struct shm_lane *) *at = &peer->lanes; atomic_load(at);) {
        struct shm_lane *lane = atomic_load(at);
        int state = atomic_load(&lane->state);

        if (state == LANE_WANTED || state == LANE_ASKED ||
            atomic_load(&lane->out.cq->gen) == lane->out.cq_gen) {
            at = &lane->next;
            continue;
        }
        struct shm_lane *expected = lane;
        if (!atomic_compare_exchange_strong(at, &expected, atomic_load(&lane->next)))
            return; /* a new one was pushed: next time */
        atomic_store(&lane->gone_next, gone);
        gone = lane;
    }
    if (gone)
        guest_quiesce_own();
    while (gone) {
        struct shm_lane *next = atomic_load(&gone->gone_next);

        free_lane(gone);
        gone = next;
    }
}

/* Queue pairs let go of it under their busy words, so that afterwards nobody holds it. */
static void peer_died(struct peer *peer)
{
    peer_close(peer);
    if (connecting[peer->slot] == peer) {
        connecting[peer->slot] = NULL;
        free(peer);
        return;
    }
    atomic_store(&peer->dead, true);
    atomic_store(&peers[peer->slot], NULL);
    shm_process_died(peer->slot, peer->arena, peer);
    share_view_close(&peer->view);
    munmap(peer->arena, PUB_ARENA_SIZE);
    for (struct shm_lane *lane = atomic_load(&peer->lanes), *next; lane; lane = next) {
        next = atomic_load(&lane->next);
        free_lane(lane);
    }
    free(peer);
}

static int peer_adopt(struct peer *peer, const int fds[2])
{
    struct ucred who;
    socklen_t size = sizeof(who);
    int error = map_arena_of(fds[0], &peer->arena);

    if (error)
        return error;
    if (getsockopt(peer->watch.fd, SOL_SOCKET, SO_PEERCRED, &who, &size) || who.uid != geteuid()) {
        munmap(peer->arena, PUB_ARENA_SIZE);
        return -EPERM;
    }
    peer->pid = who.pid;
    const void *map = peer->arena + PUB_SHARE_OFFSET;
    return share_view_open(&peer->view, map, fds[1]);
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
            on_lane_ready(peer, &msg);
        else if (msg.type == SHM_EXECUTED)
            on_executed(&msg, payload, (size_t)length);
        else if (msg.type == SHM_MAD && atomic_load(&peer->ready))
            mad_receive(peer->arena, payload, (size_t)length);
        if (msg.type == SHM_HELLO) {
            fds[1] = -1; /* the view has it */
            close_fds(fds);
            return; /* the peer may be gone; more comes with the next event */
        }
        close_fds(fds);
    }
    if (length == -ENOTCONN)
        peer_died(peer);
}

static int connect_to(uint32_t slot)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

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

    return msg_send(peer->watch.fd, &msg, NULL, 0, fds, 2, true);
}

static void start(uint32_t slot)
{
    if (connecting[slot] || atomic_load(&peers[slot]))
        return;
    int fd = connect_to(slot);
    if (fd < 0) {
        atomic_store(&absent_ns[slot], now_ns()); /* whoever wants it asks again */
        return;
    }
    struct peer *peer = calloc(1, sizeof(*peer));
    if (!peer) {
        sys_close(fd);
        return;
    }
    peer->watch.fd = fd;
    peer->watch.ready = on_peer;
    peer->slot = slot;
    connecting[slot] = peer;
    if (thread_watch(&peer->watch) || say_hello(peer))
        peer_died(peer);
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

static void reach_everybody(void)
{
    if (atomic_exchange(&everybody_wanted, false)) {
        reaching = joins_now();
        start_all();
    }
    if (reaching != atomic_load(&reached) && !some_connecting())
        atomic_store(&reached, reaching);
}

bool peer_each(void (*visit)(struct peer *peer, void *argument), void *argument)
{
    if (atomic_load(&reached) != joins_now()) {
        atomic_store(&everybody_wanted, true);
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

void peer_progress(void)
{
    if (atomic_exchange(&some_wanted, false)) {
        for (uint32_t word = 0; word < LIMIT_SLOTS / 64; word++) {
            for (uint64_t bits = atomic_exchange(&wanted[word], 0); bits; bits &= bits - 1)
                start(word * 64 + (uint32_t)__builtin_ctzll(bits));
        }
    }
    reach_everybody();
    if (atomic_exchange(&lanes_wanted, false)) {
        for (uint32_t slot = 1; slot < LIMIT_SLOTS; slot++)
            ask_lanes(atomic_load(&peers[slot]));
    }
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
    self->pid = getpid();
    atomic_store(&self->ready, true);
    atomic_store(&peers[self->slot], self);
    return 0;
}

void peer_after_fork(void)
{
    for (uint32_t slot = 1; slot < LIMIT_SLOTS; slot++) {
        struct peer *peer = atomic_load(&peers[slot]);

        if (peer)
            sys_close(peer->watch.fd);
        if (connecting[slot])
            sys_close(connecting[slot]->watch.fd);
        atomic_store(&peers[slot], NULL);
        connecting[slot] = NULL;
        atomic_store(&absent_ns[slot], 0);
    }
    atomic_store(&reached, 0); /* nobody is connected to from here */
}
