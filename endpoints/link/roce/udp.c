/* SPDX-License-Identifier: MIT */
/*
 * Sockets: for each local address one that receives on port 4791, and a few that send, whose source
 * ports spread connections over the paths of a network. No rights are needed. None is connected,
 * and DF is set, so that the kernel sends identification 0, counting up within a datagram that it
 * cuts into packets: the ICRC covers it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "core/config_host.h"
#include "core/sys.h"
#include "link/roce/roce_impl.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef UDP_NO_CHECK6_RX
#define UDP_NO_CHECK6_RX 102
#endif
#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62
#endif

enum {
    RECEIVE_BUFFER = 8 << 20,
    SOURCE_PORT_FIRST = 0xc000, /* IBTA A17.4.5.1 */
    SOURCE_PORTS = 0x4000,
    BIND_TRIES = 64,
    LEAVING_MS = 20, /* the sockets of a process that has just ended may take so long to go */
    ROOM_LEAST = 32, /* packets in flight from a port */
    ROOM_MOST = 512,
    DRAIN_MOST = 100000,
};

static _Atomic(struct roce_port *) ports;
static unsigned port_count;
static struct roce_port *left_groups; /* core_lock */

struct roce_port *udp_ports(void)
{
    return ports;
}

unsigned udp_path_mtu(unsigned mtu)
{
    enum { OVERHEAD = 80 }; /* IPv6, UDP, the largest headers, ICRC */
    unsigned path = 4096;

    while (path > 256 && path + OVERHEAD > mtu)
        path /= 2;
    return path;
}

/* ---- opening ---- */

static void set(int fd, int level, int name, int value)
{
    setsockopt(fd, level, name, &value, sizeof(value));
}

/* The kernel grants what it wants to; a program with the right to may have more. */
static void set_buffers(int fd)
{
    set(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER);
    set(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER);
    set(fd, SOL_SOCKET, SO_SNDBUF, RECEIVE_BUFFER);
    set(fd, SOL_SOCKET, SO_SNDBUFFORCE, RECEIVE_BUFFER);
}

void udp_tell_class(int fd, bool v4, bool on)
{
    set(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_RECVTOS : IPV6_RECVTCLASS, on);
}

void udp_tell_hops(int fd, bool v4, bool on)
{
    set(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_RECVTTL : IPV6_RECVHOPLIMIT, on);
}

static void set_family(int fd, bool v4)
{
    udp_tell_class(fd, v4, true);
    udp_tell_hops(fd, v4, true);
    if (v4) {
        set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
        return;
    }
    set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO);
    set(fd, IPPROTO_UDP, UDP_NO_CHECK6_RX, 1); /* as soft-RoCE and hardware send */
}

static int socket_open(bool v4)
{
    int fd =
        own_fd(sys_socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));

    if (fd < 0)
        return -errno;
    set_buffers(fd);
    set_family(fd, v4);
    return fd;
}

/* An interface belongs to such an address. */
static bool is_scoped(const uint8_t gid[16])
{
    return address_is_link_local(gid) || (gid[0] == 0xff && (gid[1] & 0xf) == 2);
}

static void fill_address(const uint8_t gid[16], uint16_t port, uint32_t scope,
                         struct roce_sockaddr *out)
{
    memset(out, 0, sizeof(*out));
    if (address_is_v4(gid)) {
        out->size = sizeof(out->v4);
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = htons(port);
        memcpy(&out->v4.sin_addr, gid + 12, 4);
        return;
    }
    out->size = sizeof(out->v6);
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons(port);
    out->v6.sin6_scope_id = is_scoped(gid) ? scope : 0;
    memcpy(&out->v6.sin6_addr, gid, 16);
}

void udp_take_address(const struct roce_sockaddr *address, uint8_t gid[16])
{
    memset(gid, 0, 16);
    if (address->any.sa_family == AF_INET) {
        gid[10] = gid[11] = 0xff;
        memcpy(gid + 12, &address->v4.sin_addr, 4);
    } else {
        memcpy(gid, &address->v6.sin6_addr, 16);
    }
}

void udp_address(const struct roce_port *port, const uint8_t gid[16], uint16_t number,
                 struct roce_sockaddr *out)
{
    fill_address(gid, number, port->interface, out);
}

static int bind_to(int fd, const struct roce_port *port, uint16_t number)
{
    struct roce_sockaddr address;

    fill_address(port->gid, number, port->interface, &address);
    return bind(fd, &address.any, address.size) ? -errno : 0;
}

/* Without sharing it: EADDRINUSE if anybody has it. */
static int try_alone(const struct roce_port *port)
{
    int fd = socket_open(port->v4);
    int error = fd < 0 ? fd : bind_to(fd, port, WIRE_UDP_PORT);

    if (fd >= 0)
        sys_close(fd);
    return error;
}

static void tell_taken(const struct roce_port *port)
{
    char text[INET6_ADDRSTRLEN];
    const void *address = port->v4 ? port->gid + 12 : port->gid;

    if (config_get()->link != CONFIG_LINK_ROCE)
        return; /* there is shared memory, and perhaps nobody needs more */
    inet_ntop(port->v4 ? AF_INET : AF_INET6, address, text, sizeof(text));
    dprintf(STDERR_FILENO,
            "viaduct: UDP port %d of %s is taken, by another program, user or "
            "VIADUCT_RUNTIME_DIR: use the same directory, or another address (VIADUCT_NICS)\n",
            WIRE_UDP_PORT, text);
}

/*
 * Nobody else of this runtime directory is here: then nobody at all may be. The kernel would let
 * any process of this user share the port, and give each a part of what is the other's.
 */
static int claim(const struct roce_port *port)
{
    static int patience = LEAVING_MS;
    int error;

    while ((error = try_alone(port)) == -EADDRINUSE && patience-- > 0)
        (void)poll(NULL, 0, 1);
    return error;
}

static int open_receiver(struct roce_port *port, bool first)
{
    int error = first ? claim(port) : 0;
    int fd = error ? error : socket_open(port->v4);

    if (fd < 0)
        return fd;
    set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    set(fd, IPPROTO_UDP, UDP_GRO, 1);
    error = bind_to(fd, port, WIRE_UDP_PORT);
    if (error) {
        sys_close(fd);
        return error;
    }
    roce_lock();
    port->watch.fd = fd;
    port->sparse = port->marks = port->crowded = false;
    port->lone = 0;
    roce_unlock();
    return 0;
}

/* Groups are reached by the interface of the address that it is sent from. */
static void set_group_sender(const struct roce_port *port, int fd)
{
    int loop = config_get()->link == CONFIG_LINK_ROCE; /* else who is here hears of it by shm */
    struct ip_mreqn way = {.imr_ifindex = (int)port->interface};

    if (port->v4) {
        memcpy(&way.imr_address, port->gid + 12, 4);
        setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &way, sizeof(way));
        set(fd, IPPROTO_IP, IP_MULTICAST_LOOP, loop);
        return;
    }
    set(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)port->interface);
    set(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, loop);
}

/* Any free source port will do; who is near in time gets another one. */
int udp_open_source(const struct roce_port *port, unsigned salt, uint16_t *number_out)
{
    int fd = socket_open(port->v4);
    uint64_t random = now_ns() / 1000 + salt * 2654435761u + (unsigned)getpid() * 40503u;

    for (int i = 0; fd >= 0 && i < BIND_TRIES; i++, random += 7919) {
        *number_out = (uint16_t)(SOURCE_PORT_FIRST + random % SOURCE_PORTS);
        if (bind_to(fd, port, *number_out) == 0)
            return fd;
    }
    if (fd >= 0)
        sys_close(fd);
    return fd < 0 ? fd : -EADDRINUSE;
}

static int open_sender(struct roce_port *port, unsigned sender)
{
    int fd = udp_open_source(port, sender, &port->sender_ports[sender]);

    if (fd >= 0)
        set_group_sender(port, fd);
    return fd;
}

static const char *interface_of(const struct nic *nic, const uint8_t gid[16])
{
    for (unsigned i = 0; i < nic->gid_count; i++)
        if (memcmp(nic->gids[i].raw, gid, 16) == 0)
            return nic->gids[i].ndev;
    return "lo";
}

static unsigned interface_mtu(int fd, const char *name)
{
    struct ifreq request = {0};

    strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
    return sys_ioctl(fd, SIOCGIFMTU, &request) == 0 ? (unsigned)request.ifr_mtu : 1500;
}

unsigned roce_path_mtu(const struct nic *nic)
{
    if (config_get()->link == CONFIG_LINK_SHM)
        return LIMIT_MTU;
    int fd = sys_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return LIMIT_MTU;
    unsigned mtu = udp_path_mtu(interface_mtu(fd, nic->gids[0].ndev));
    sys_close(fd);
    return mtu;
}

struct roce_port *udp_port_find(const uint8_t gid[16])
{
    for (struct roce_port *port = ports; port; port = port->next)
        if (memcmp(port->gid, gid, 16) == 0)
            return port;
    return NULL;
}

/* What the kernel has granted, told in bytes of its own, which a packet takes up to twice of. */
static unsigned packets_held(int fd)
{
    int bytes = 0;
    socklen_t size = sizeof(bytes);

    getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, &size);
    unsigned packets = (unsigned)bytes / (2 * WIRE_PAYLOAD_MAX);
    return packets < ROOM_LEAST ? ROOM_LEAST : packets > ROOM_MOST ? ROOM_MOST : packets;
}

static int port_new(const struct nic *nic, const uint8_t gid[16], struct roce_port **port_out)
{
    const char *name = interface_of(nic, gid);
    struct roce_port *port = calloc(1, sizeof(*port));

    if (!port)
        return -ENOMEM;
    memcpy(port->gid, gid, 16);
    port->nic = (unsigned)(nic - config_get()->nics);
    port->v4 = address_is_v4(gid);
    port->interface = if_nametoindex(name);
    port->roster_fd = -1;
    int error = steer_open();
    if (!error)
        error = steer_join(port, open_receiver);
    if (error) {
        if (error == -EADDRINUSE)
            tell_taken(port);
        steer_close(port);
        free(port);
        return error;
    }
    port->mtu = interface_mtu(port->watch.fd, name);
    port->room = packets_held(port->watch.fd);
    *port_out = port;
    return 0;
}

static void port_add(struct roce_port *port)
{
    roce_lock();
    port->next = ports;
    ports = port;
    port_count++;
    roce_unlock();
    roce_port_opened();
}

/* Who is just looking at it goes on from there. */
static void port_remove(struct roce_port *port)
{
    struct roce_port *before = ports;

    if (before == port) {
        ports = port->next;
    } else {
        while (before->next != port)
            before = before->next;
        before->next = port->next;
    }
    port_count--;
}

static int port_reopen(struct roce_port *port)
{
    int error = steer_join(port, open_receiver);

    if (!error)
        roce_port_opened();
    return error;
}

void udp_unwatch(struct roce_port *port)
{
    if (port->watched)
        thread_unwatch(&port->watch);
    port->watched = false;
}

/* What is still to come may be for others: the last of it is taken out just before. */
static void close_receiver(struct roce_port *port)
{
    uint64_t now = now_ns();

    roce_lock();
    udp_unwatch(port);
    for (int i = 0; i < DRAIN_MOST && udp_receive(port, &now); i++)
        continue;
    sys_close(port->watch.fd);
    port->watch.fd = -1;
    roce_unlock();
}

void udp_port_rest(struct roce_port *port)
{
    steer_leave(port, close_receiver);
}

int udp_port_open(const struct nic *nic, const uint8_t gid[16], struct roce_port **port_out)
{
    struct roce_port *port = udp_port_find(gid);

    if (port) {
        *port_out = port;
        return port->watch.fd >= 0 ? 0 : port_reopen(port);
    }
    int error = port_count < ROCE_PORTS_MAX ? port_new(nic, gid, &port) : -ENOSPC;
    if (error)
        return error;
    port_add(port);
    *port_out = port;
    return 0;
}

/* Connecting sends nothing: it looks for a route. */
bool roce_source_for(const uint8_t dgid[16], uint8_t source_out[16])
{
    struct roce_sockaddr address;
    int fd = sys_socket(address_is_v4(dgid) ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    fill_address(dgid, WIRE_UDP_PORT, 0, &address);
    bool found = fd >= 0 && connect(fd, &address.any, address.size) == 0 &&
                 getsockname(fd, &address.any, &address.size) == 0;
    if (fd >= 0)
        sys_close(fd);
    if (found)
        udp_take_address(&address, source_out);
    return found;
}

/* ---- groups ---- */

struct roce_port *udp_group_port(const struct nic *nic, const uint8_t sgid[16],
                                 const uint8_t mgid[16])
{
    bool v4 = address_is_v4(mgid);
    struct roce_port *port = address_is_v4(sgid) == v4 ? udp_port_find(sgid) : NULL;

    for (unsigned i = 0; !port && i < nic->gid_count; i++)
        if (address_is_v4(nic->gids[i].raw) == v4)
            port = udp_port_find(nic->gids[i].raw);
    return port;
}

static int join_interface(int fd, const struct roce_port *port, const uint8_t mgid[16])
{
    struct ip_mreqn v4 = {.imr_ifindex = (int)port->interface};
    struct ipv6_mreq v6 = {.ipv6mr_interface = port->interface};

    memcpy(&v4.imr_multiaddr, mgid + 12, 4);
    memcpy(&v6.ipv6mr_multiaddr, mgid, 16);
    int failed = port->v4 ? setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &v4, sizeof(v4))
                          : setsockopt(fd, IPPROTO_IPV6, IPV6_JOIN_GROUP, &v6, sizeof(v6));
    return failed && errno != EADDRINUSE ? -errno : 0;
}

static struct roce_port *group_find(const uint8_t mgid[16], uint32_t interface)
{
    struct roce_port *port = ports;

    while (port && !(port->group && port->interface == interface && !memcmp(port->gid, mgid, 16)))
        port = port->next;
    return port;
}

/* One that was left before will do. */
static struct roce_port *group_take(void)
{
    struct roce_port *port = left_groups;

    if (!port)
        return calloc(1, sizeof(*port));
    left_groups = port->left;
    return port;
}

static void group_put(struct roce_port *port)
{
    port->left = left_groups;
    left_groups = port;
}

/* Only what this socket itself has joined: the host may be in the group by other interfaces. */
static int group_open(const struct roce_port *port)
{
    int fd = socket_open(port->v4);

    if (fd < 0)
        return fd;
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (port->v4)
        set(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0);
    else
        set(fd, SOL_SOCKET, SO_BINDTOIFINDEX, (int)port->interface);
    int error = bind_to(fd, port, WIRE_UDP_PORT);
    error = error ? error : join_interface(fd, port, port->gid);
    if (error)
        sys_close(fd);
    return error ? error : fd;
}

static int group_new(const struct roce_port *way, const uint8_t mgid[16])
{
    struct roce_port *port = group_take();

    if (!port)
        return -ENOMEM;
    memcpy(port->gid, mgid, 16);
    port->nic = way->nic;
    port->v4 = way->v4;
    port->group = true;
    port->interface = way->interface;
    port->roster_fd = -1;
    int fd = group_open(port);
    if (fd < 0) {
        group_put(port);
        return fd;
    }
    port->watch.fd = fd;
    port_add(port);
    return 0;
}

int udp_group_join(const struct nic *nic, const uint8_t mgid[16])
{
    const struct roce_port *way = udp_group_port(nic, nic->gids[0].raw, mgid);

    if (!way)
        return -EADDRNOTAVAIL;
    return group_find(mgid, way->interface) ? 0 : group_new(way, mgid);
}

/* The engine thread may be about to look at it: it finds no socket. */
void udp_group_leave(uint32_t interface, const uint8_t mgid[16])
{
    struct roce_port *port = group_find(mgid, interface);

    if (!port)
        return;
    roce_lock();
    port_remove(port);
    udp_unwatch(port);
    int fd = port->watch.fd;
    port->watch.fd = -1;
    roce_unlock();
    sys_close(fd);
    group_put(port);
}

/* Two threads may both open it; one of the two sockets is closed again. */
static int need_sender(struct roce_port *port, unsigned sender)
{
    static struct spin opening;
    int fd = 0;

    if (atomic_load_explicit(&port->senders[sender], memory_order_acquire))
        return 0;
    spin_lock(&opening);
    if (!atomic_load(&port->senders[sender]))
        fd = open_sender(port, sender);
    if (fd > 0) {
        refusal_watch(&port->sender_watches[sender], port, fd);
        atomic_store_explicit(&port->senders[sender], fd + 1, memory_order_release);
    }
    spin_unlock(&opening);
    return fd < 0 ? fd : 0;
}

int udp_path(struct roce_port *port, const uint8_t dgid[16], uint32_t entropy,
             struct roce_path *path_out)
{
    unsigned sender = (entropy ^ entropy >> 14) % ROCE_SENDERS;

    if (address_is_v4(dgid) != port->v4)
        return -EAFNOSUPPORT;
    int error = need_sender(port, sender);
    if (error)
        return error;
    memset(path_out, 0, sizeof(*path_out));
    path_out->port = port;
    path_out->sender = sender;
    path_out->hop_limit = 64;
    memcpy(path_out->icrc.source, port->gid, 16);
    memcpy(path_out->icrc.target, dgid, 16);
    path_out->icrc.source_port = port->sender_ports[sender];
    path_out->icrc.target_port = WIRE_UDP_PORT;
    fill_address(dgid, WIRE_UDP_PORT, port->interface, &path_out->to);
    return 0;
}

void udp_after_fork(void)
{
    for (struct roce_port *port = ports, *next; port; port = next) {
        next = port->next;
        sys_close(port->watch.fd);
        steer_close(port);
        outlets_close(port);
        for (unsigned i = 0; i < ROCE_SENDERS; i++)
            if (atomic_load(&port->senders[i]))
                sys_close(atomic_load(&port->senders[i]) - 1);
        free(port);
    }
    for (struct roce_port *port = left_groups, *next; port; port = next) {
        next = port->left;
        free(port);
    }
    ports = left_groups = NULL;
    port_count = 0;
}
