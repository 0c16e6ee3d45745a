/* SPDX-License-Identifier: MIT */
/*
 * Several processes of a user behind one address: each has its own socket on (address, 4791), and a
 * filter tells the kernel which of them a packet is for, by the slot in its queue pair number.
 *
 *   packet --> filter: slot of the destination QPN --> place among the sockets --> process
 *
 * The kernel numbers the sockets as it likes: in the order they came, but when one goes the last
 * one takes its place. So nobody keeps count. A probe (no packet of RoCE) names a place, and
 * whoever receives it writes itself into a file that all share. That is done when a process comes,
 * and again when a packet reaches the wrong one, which hands it over meanwhile.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/process.h"
#include "core/sys.h"
#include "engine/cm.h"
#include "link/roce/roce_impl.h"

enum {
    PROBE_OPCODE = 0xff, /* manufacturer's own; nothing of RoCE begins with it */
    PROBE_WAIT_MS = 20,
    REMOTE_ID_AT = 48, /* BTH, DETH, the MAD's header, the sender's id */
    REPAIR_EVERY_NS = 100000000,
    REPAIR_AFTER_NS = 5000000,
    LEAVE_WAIT_NS = 100000000,
};

/* The file of an address, by which its processes find each other. */
struct roce_roster {
    _Atomic uint64_t members[LIMIT_SLOTS]; /* process_name() of who has a socket, by slot */
    _Atomic uint32_t places[LIMIT_SLOTS];  /* the slot of who received the probe of a place */
};

struct probe {
    uint8_t opcode, pad;
    uint8_t place[2]; /* big-endian, as the filter loads it */
    uint8_t rest[12];
};

/* A packet for another process. */
struct letter {
    uint8_t target[16], source[16];
    uint16_t source_port;
    uint8_t traffic_class, hop_limit;
    uint32_t final; /* who gets it keeps it */
    uint8_t bytes[WIRE_PACKET_MAX];
};

static struct watch mailbox = {.fd = -1};

/* ---- the roster ---- */

static void roster_name(const uint8_t gid[16], char name[48])
{
    int at = snprintf(name, 48, "roce-");

    for (unsigned i = 0; i < 16; i++)
        at += snprintf(name + at, 48 - (size_t)at, "%02x", gid[i]);
}

static int roster_open(struct roce_port *port)
{
    char name[48];

    roster_name(port->gid, name);
    port->roster_fd = own_fd(
        sys_openat(process_runtime_dirfd(), name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (port->roster_fd < 0)
        return -errno;
    if (ftruncate(port->roster_fd, sizeof(struct roce_roster)))
        return -errno;
    void *memory = sys_mmap(NULL, sizeof(struct roce_roster), PROT_READ | PROT_WRITE, MAP_SHARED,
                            port->roster_fd, 0);
    if (memory == MAP_FAILED)
        return -errno;
    port->roster = memory;
    return 0;
}

/* How many live, those who died struck off. */
static unsigned roster_count(struct roce_roster *roster)
{
    unsigned count = 0;

    for (uint32_t slot = 1; slot < LIMIT_SLOTS; slot++) {
        uint64_t name = atomic_load(&roster->members[slot]);

        if (!name)
            continue;
        if (process_name_slot(name) == slot && process_is_alive(name))
            count++;
        else
            atomic_store(&roster->members[slot], 0);
    }
    return count;
}

/* ---- the filter ---- */

enum { FILTER_HEAD = 11, FILTER_MAX = FILTER_HEAD + 2 * LIMIT_SLOTS + 1 };

/*
 * Connection management goes to whose conversation it names, where it names one: a request has zero
 * there. A place that no socket has makes the kernel choose by itself.
 */
static void filter_attach(const struct roce_port *port, unsigned count)
{
    static struct sock_filter code[FILTER_MAX];
    struct sock_fprog program = {.filter = code};
    struct sock_filter head[FILTER_HEAD] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PROBE_OPCODE, 0, 2),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(struct probe, place)),
        BPF_STMT(BPF_RET | BPF_A, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 4), /* the BTH's reserved byte and queue pair */
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xffffff),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, WIRE_QPN_GSI, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, REMOTE_ID_AT),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 32 - CM_MARK_BITS),
        BPF_STMT(BPF_JMP | BPF_JA, 1),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, LIMIT_QP_BITS),
    };
    unsigned length = FILTER_HEAD;

    memcpy(code, head, sizeof(head));
    for (unsigned place = 0; place < count; place++) {
        uint32_t slot = atomic_load(&port->roster->places[place]);

        if (!slot)
            continue;
        code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, slot, 0, 1);
        code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, place);
    }
    code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, UINT32_MAX);
    program.len = (unsigned short)length;
    setsockopt(port->watch.fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program));
}

/* ---- probing ---- */

static void probe_send(const struct roce_port *port, unsigned count)
{
    struct probe probe = {.opcode = PROBE_OPCODE};
    struct roce_sockaddr to;

    udp_address(port, port->gid, WIRE_UDP_PORT, &to);
    for (unsigned place = 0; place < count; place++) {
        atomic_store(&port->roster->places[place], 0);
        probe.place[0] = (uint8_t)(place >> 8);
        probe.place[1] = (uint8_t)place;
        (void)!sendto(port->watch.fd, &probe, sizeof(probe), MSG_DONTWAIT, &to.any, to.size);
    }
}

bool steer_is_probe(const struct roce_port *port, const uint8_t *bytes, size_t size)
{
    if (size != sizeof(struct probe) || bytes[0] != PROBE_OPCODE)
        return false;
    unsigned place = (unsigned)(bytes[2] << 8 | bytes[3]);
    if (port->roster && place < LIMIT_SLOTS)
        atomic_store(&port->roster->places[place], process_slot());
    return true;
}

static bool probes_answered(const struct roce_port *port, unsigned count)
{
    for (unsigned place = 0; place < count; place++)
        if (!atomic_load(&port->roster->places[place]))
            return false;
    return true;
}

/* For a millisecond. What comes beside probes is for others, and handed over. */
static void probe_serve(struct roce_port *port)
{
    struct pollfd readable = {.fd = port->watch.fd, .events = POLLIN};

    if (poll(&readable, 1, 1) <= 0)
        return;
    roce_lock();
    udp_receive(port, &(uint64_t){0});
    roce_unlock();
}

static void probe_wait(struct roce_port *port, unsigned count)
{
    uint64_t end = now_ns() + PROBE_WAIT_MS * 1000000ull;

    while (!probes_answered(port, count) && now_ns() < end)
        probe_serve(port);
}

/* ---- coming ---- */

/* The roster is locked: nobody else comes meanwhile. */
static int join(struct roce_port *port, steer_bind *bind_socket)
{
    uint32_t slot = process_slot();

    atomic_store(&port->roster->members[slot], process_name());
    unsigned count = roster_count(port->roster);
    int error = bind_socket(port, count == 1);
    if (error) {
        atomic_store(&port->roster->members[slot], 0);
        return error;
    }
    if (count == 1) {
        atomic_store(&port->roster->places[0], slot);
    } else {
        probe_send(port, count); /* whoever came before has attached a filter that knows probes */
        probe_wait(port, count);
    }
    filter_attach(port, count);
    return 0;
}

int steer_join(struct roce_port *port, steer_bind *bind_socket)
{
    int error = port->roster ? 0 : roster_open(port);

    if (error)
        return error;
    while (flock(port->roster_fd, LOCK_EX) && errno == EINTR)
        ;
    error = join(port, bind_socket);
    flock(port->roster_fd, LOCK_UN);
    return error;
}

/* ---- going ---- */

/* Who has the lock may wait for our answer to its probe. */
static bool roster_lock(struct roce_port *port)
{
    uint64_t end = now_ns() + LEAVE_WAIT_NS;

    while (flock(port->roster_fd, LOCK_EX | LOCK_NB)) {
        if (now_ns() > end)
            return false;
        probe_serve(port);
    }
    return true;
}

/*
 * Our place will be the last one's. Its packets come to us from here on, to be handed over, and to
 * itself as soon as our socket is closed. Where it can't be told that is left to be mended.
 */
static void make_way(struct roce_port *port)
{
    struct roce_roster *roster = port->roster;
    uint32_t slot = process_slot();
    unsigned place = 0;

    atomic_store(&roster->members[slot], 0);
    unsigned left = roster_count(roster);
    while (place < left && atomic_load(&roster->places[place]) != slot)
        place++;
    if (!left || (place == left && atomic_load(&roster->places[left]) != slot))
        return;
    atomic_store(&roster->places[place], atomic_load(&roster->places[left]));
    atomic_store(&roster->places[left], 0);
    filter_attach(port, left);
}

void steer_leave(struct roce_port *port, void (*close_socket)(struct roce_port *port))
{
    bool locked = roster_lock(port);

    port->steering = STEER_GOOD;
    if (locked)
        make_way(port);
    close_socket(port);
    flock(port->roster_fd, LOCK_UN);
}

void steer_close(struct roce_port *port)
{
    if (port->roster)
        sys_munmap(port->roster, sizeof(*port->roster));
    if (port->roster_fd >= 0)
        sys_close(port->roster_fd);
    port->roster = NULL;
    port->roster_fd = -1;
}

/* ---- mending ---- */

/* Send probes; when they have been answered, the filter is made anew. */
static void repair_begin(struct roce_port *port, uint64_t now)
{
    if (now - port->repaired_ns < REPAIR_EVERY_NS || flock(port->roster_fd, LOCK_EX | LOCK_NB)) {
        thread_wake_at(now + REPAIR_EVERY_NS);
        return;
    }
    port->repaired_ns = now;
    port->members = roster_count(port->roster);
    probe_send(port, port->members);
    port->steering = STEER_PROBING;
    thread_wake_at(now + REPAIR_AFTER_NS);
}

static void repair_end(struct roce_port *port, uint64_t now)
{
    if (!probes_answered(port, port->members) && now - port->repaired_ns < REPAIR_EVERY_NS) {
        thread_wake_at(now + REPAIR_AFTER_NS);
        return;
    }
    filter_attach(port, port->members);
    flock(port->roster_fd, LOCK_UN);
    port->steering = STEER_GOOD;
}

void steer_progress(uint64_t now)
{
    for (struct roce_port *port = udp_ports(); port; port = port->next) {
        if (port->watch.fd < 0)
            continue;
        if (port->steering == STEER_WRONG)
            repair_begin(port, now);
        else if (port->steering == STEER_PROBING)
            repair_end(port, now);
    }
}

/* ---- handing over ---- */

static void mailbox_address(uint32_t slot, struct sockaddr_un *out)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(out->sun_path, sizeof(out->sun_path), "/proc/self/fd/%d/roce-%04u.sock",
             process_runtime_dirfd(), slot);
}

static void letter_deliver(const struct letter *letter, size_t size)
{
    struct roce_from from = {.port = udp_port_find(letter->target), .now_ns = now_ns()};

    if (!from.port)
        return;
    memcpy(from.icrc.source, letter->source, 16);
    memcpy(from.icrc.target, letter->target, 16);
    from.icrc.source_port = letter->source_port;
    from.icrc.target_port = WIRE_UDP_PORT;
    from.traffic_class = letter->traffic_class;
    from.hop_limit = letter->hop_limit;
    from.final = letter->final;
    roce_lock();
    roce_dispatch(&from, letter->bytes, size);
    roce_qp_answer(now_ns());
    roce_unlock();
}

static void on_letter(struct watch *watch)
{
    static struct letter letter;

    for (int i = 0; i < 64; i++) {
        ssize_t size = recv(watch->fd, &letter, sizeof(letter), MSG_DONTWAIT);

        if (size <= (ssize_t)offsetof(struct letter, bytes))
            return;
        letter_deliver(&letter, (size_t)size - offsetof(struct letter, bytes));
    }
}

int steer_open(void)
{
    struct sockaddr_un address;

    if (mailbox.fd >= 0)
        return 0;
    int fd = own_fd(sys_socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd < 0)
        return -errno;
    mailbox_address(process_slot(), &address);
    unlink(address.sun_path);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address))) {
        int error = -errno;

        sys_close(fd);
        return error;
    }
    mailbox.fd = fd;
    mailbox.ready = on_letter;
    return thread_watch(&mailbox);
}

bool steer_hand_over(const struct roce_from *from, uint32_t slot, bool final, const uint8_t *bytes,
                     size_t size)
{
    struct sockaddr_un address;
    struct letter letter;

    if (from->final || slot == process_slot() || slot == 0 || slot >= LIMIT_SLOTS ||
        size > sizeof(letter.bytes))
        return false;
    memcpy(letter.target, from->icrc.target, 16);
    memcpy(letter.source, from->icrc.source, 16);
    letter.source_port = from->icrc.source_port;
    letter.traffic_class = from->traffic_class;
    letter.hop_limit = from->hop_limit;
    letter.final = final;
    memcpy(letter.bytes, bytes, size);
    mailbox_address(slot, &address);
    return sendto(mailbox.fd, &letter, offsetof(struct letter, bytes) + size,
                  MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof(address)) > 0;
}

/* The receive lock held: it is for a process that the kernel should have given it to. */
bool steer_went_wrong(const struct roce_from *from, uint32_t slot, const uint8_t *bytes,
                      size_t size)
{
    struct roce_port *port = from->port;

    if (!steer_hand_over(from, slot, true, bytes, size))
        return false;
    if (port->steering == STEER_GOOD) {
        port->steering = STEER_WRONG;
        thread_wake();
    }
    return true;
}

void steer_after_fork(void)
{
    if (mailbox.fd >= 0)
        sys_close(mailbox.fd);
    mailbox.fd = -1;
}
