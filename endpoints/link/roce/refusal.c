/* SPDX-License-Identifier: MIT */
/*
 * Of packets that nobody is there for. Who sent them would wait for all of its ACK timeouts; but
 * the host knows:
 *
 *   no process is left at the address   its kernel says "port unreachable" (ICMP)
 *   others are, this one died           one of them gets the packet, and sends a notice
 *
 * Both come to the socket that the packet was sent from, with the packet's head. They are believed
 * if that packet is in flight. A notice is no packet of RoCE; who does not know it drops it. What
 * comes to a connected socket is looked for when an answer is overdue: each packet sent by one that
 * the engine thread watches would ask the kernel whether that thread is to be woken.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <time.h>
#include <linux/errqueue.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <string.h>
#include <sys/socket.h>

#include "link/roce/roce_impl.h"

enum {
    NOTICE_OPCODE = 0xfe, /* manufacturer's own, as that of probes */
    HEAD = 12,            /* the BTH */
    AT_ONCE = 64,
    NOTICE_EVERY_NS = 100000,
};

struct notice {
    uint8_t opcode, who, zero[2]; /* enum refusal */
    uint8_t head[HEAD];
};

/* ---- telling ---- */

void refusal_send(const struct roce_from *from, enum refusal who, const uint8_t *bytes, size_t size)
{
    static uint64_t last_ns;
    struct notice notice = {.opcode = NOTICE_OPCODE, .who = (uint8_t)who};
    struct roce_sockaddr to;

    if (from->port->group || size < HEAD || from->now_ns - last_ns < NOTICE_EVERY_NS)
        return;
    last_ns = from->now_ns;
    memcpy(notice.head, bytes, HEAD);
    udp_address(from->port, from->icrc.source, from->icrc.source_port, &to);
    (void)!sendto(from->port->watch.fd, &notice, sizeof(notice), MSG_DONTWAIT | MSG_NOSIGNAL,
                  &to.any, to.size);
}

/* ---- hearing ---- */

static uint32_t load24(const uint8_t *at)
{
    return (uint32_t)at[0] << 16 | (uint32_t)at[1] << 8 | at[2];
}

static void heard(const struct roce_port *port, const struct roce_sockaddr *peer,
                  const uint8_t head[HEAD], enum refusal who)
{
    uint32_t qpn = load24(head + 5), psn = load24(head + 9);
    uint8_t gid[16];

    udp_take_address(peer, gid);
    if (qpn == WIRE_QPN_GSI) {
        roce_mad_refused(gid, psn);
        return;
    }
    roce_lock();
    roce_qp_refused(port, gid, qpn, psn, who);
    roce_unlock();
}

static bool is_port_unreachable(const struct sock_extended_err *error)
{
    return (error->ee_origin == SO_EE_ORIGIN_ICMP && error->ee_type == ICMP_DEST_UNREACH &&
            error->ee_code == ICMP_PORT_UNREACH) ||
           (error->ee_origin == SO_EE_ORIGIN_ICMP6 && error->ee_type == ICMP6_DST_UNREACH &&
            error->ee_code == ICMP6_DST_UNREACH_NOPORT);
}

static bool says_unreachable(struct msghdr *header)
{
    for (struct cmsghdr *at = CMSG_FIRSTHDR(header); at; at = CMSG_NXTHDR(header, at)) {
        bool v4 = at->cmsg_level == IPPROTO_IP && at->cmsg_type == IP_RECVERR;
        bool v6 = at->cmsg_level == IPPROTO_IPV6 && at->cmsg_type == IPV6_RECVERR;

        if ((v4 || v6) && is_port_unreachable((const void *)CMSG_DATA(at)))
            return true;
    }
    return false;
}

/* The kernel's: the address is whom the packet was for. False: there is no more. */
static bool take_error(const struct roce_port *port, int fd)
{
    _Alignas(struct cmsghdr) char control[256];
    uint8_t head[HEAD];
    struct roce_sockaddr peer = {.size = sizeof(peer.v6)};
    struct iovec part = {head, sizeof(head)};
    struct msghdr header = {.msg_name = &peer.any,
                            .msg_namelen = peer.size,
                            .msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control,
                            .msg_controllen = sizeof(control)};

    ssize_t size = recvmsg(fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT);
    if (size < 0)
        return false;
    if (size == HEAD && says_unreachable(&header))
        heard(port, &peer, head, REFUSED_BY_HOST);
    return true;
}

static bool take_notice(const struct roce_port *port, int fd)
{
    struct notice notice;
    struct roce_sockaddr peer = {.size = sizeof(peer.v6)};
    ssize_t size = recvfrom(fd, &notice, sizeof(notice), MSG_DONTWAIT, &peer.any, &peer.size);

    if (size == sizeof(notice) && notice.opcode == NOTICE_OPCODE && notice.who < REFUSED_BY_HOST)
        heard(port, &peer, notice.head, notice.who);
    return size >= 0;
}

/* ---- sockets that are connected ---- */

void refusal_note(struct roce_outlet *outlet)
{
    atomic_store(&outlet->refused, true);
    thread_wake();
}

void refusal_suspect(struct roce_outlet *outlet)
{
    if (!atomic_exchange(&outlet->suspect, true))
        thread_wake();
}

static int take_socket_error(int fd)
{
    socklen_t size = sizeof(int);
    int error = 0;

    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return error;
}

static void take_notices(const struct roce_port *port, int fd)
{
    for (int i = 0; i < AT_ONCE && take_notice(port, fd); i++)
        continue;
}

/* The kernel has compared addresses and ports of what was refused, and keeps no more of it. */
static void look_at(struct roce_port *port, struct roce_outlet *outlet)
{
    bool refused = atomic_exchange(&outlet->refused, false);

    if (atomic_exchange(&outlet->suspect, false)) {
        refused = take_socket_error(outlet->fd) == ECONNREFUSED || refused;
        take_notices(port, outlet->fd);
    }
    if (!refused)
        return;
    roce_lock();
    roce_qp_unreachable(port, outlet->icrc.target, 0, REFUSED_BY_HOST);
    roce_unlock();
}

void refusal_progress(void)
{
    for (struct roce_port *port = udp_ports(); port; port = port->next)
        for (struct roce_outlet *outlet = port->outlets; outlet; outlet = outlet->next)
            look_at(port, outlet);
}

/* ---- sockets that are not ---- */

static void on_refusal(struct watch *watch)
{
    const struct roce_sender *sender = (const void *)watch;

    for (int i = 0; i < AT_ONCE && take_error(sender->port, watch->fd); i++)
        continue;
    /* An error without a message in the queue would wake us again and again. */
    take_socket_error(watch->fd);
    take_notices(sender->port, watch->fd);
}

void refusal_watch(struct roce_sender *at, struct roce_port *port, int fd)
{
    int on = 1;

    setsockopt(fd, port->v4 ? IPPROTO_IP : IPPROTO_IPV6, port->v4 ? IP_RECVERR : IPV6_RECVERR, &on,
               sizeof(on));
    *at = (struct roce_sender){{.fd = fd, .ready = on_refusal}, port};
    thread_watch(&at->watch); /* without it ACK timeouts must do */
}
