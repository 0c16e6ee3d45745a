/* SPDX-License-Identifier: MIT */
/*
 * Of packets that nobody is there for. Who sent them would wait for all of its ACK timeouts; but
 * the host knows:
 *
 *   no process is left at the address   its kernel says "port unreachable" (ICMP)
 *   others are, this one died           one of them gets the packet, and sends a notice
 *
 * Both come to the socket that the packet was sent from, with the packet's head. They are believed
 * if that packet is in flight. A notice is no packet of RoCE; who does not know it drops it.
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
    udp_address(from->port, from->icrc.source, &to);
    if (to.any.sa_family == AF_INET)
        to.v4.sin_port = htons(from->icrc.source_port);
    else
        to.v6.sin6_port = htons(from->icrc.source_port);
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

/* The kernel has compared addresses and ports of what was refused, and keeps no more of it. */
static void tell(struct roce_outlet *outlet)
{
    if (!atomic_exchange(&outlet->refused, false))
        return;
    roce_lock();
    roce_qp_unreachable(outlet->back.port, outlet->icrc.target, 0, REFUSED_BY_HOST);
    roce_unlock();
}

void refusal_progress(void)
{
    for (struct roce_port *port = udp_ports(); port; port = port->next)
        for (struct roce_outlet *outlet = port->outlets; outlet; outlet = outlet->next)
            tell(outlet);
}

/* What was looped back is for who holds the lock; what is left there would wake us for ever. */
static void drop_looped(struct roce_outlet *outlet)
{
    uint8_t byte;

    if (!spin_try(&outlet->lock))
        return;
    while (recv(outlet->fd, &byte, 1, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0)
        continue;
    spin_unlock(&outlet->lock);
}

static void on_refusal(struct watch *watch)
{
    const struct roce_sender *sender = (const void *)watch;
    socklen_t size = sizeof(int);
    int error = 0;

    for (int i = 0; !sender->outlet && i < AT_ONCE && take_error(sender->port, watch->fd); i++)
        continue;
    /* An error without a message in the queue would wake us again and again. */
    getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    for (int i = 0; i < AT_ONCE && take_notice(sender->port, watch->fd); i++)
        continue;
    if (!sender->outlet)
        return;
    if (error == ECONNREFUSED)
        atomic_store(&sender->outlet->refused, true);
    tell(sender->outlet);
    drop_looped(sender->outlet);
}

void refusal_watch(struct roce_sender *at, struct roce_port *port, struct roce_outlet *outlet,
                   int fd)
{
    int on = 1;

    if (!outlet)
        setsockopt(fd, port->v4 ? IPPROTO_IP : IPPROTO_IPV6, port->v4 ? IP_RECVERR : IPV6_RECVERR,
                   &on, sizeof(on));
    *at = (struct roce_sender){{.fd = fd, .ready = on_refusal}, port, outlet};
    thread_watch(&at->watch); /* without it ACK timeouts must do */
}
