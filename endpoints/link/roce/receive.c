/* SPDX-License-Identifier: MIT */
/* What comes in at a socket: taken by few calls, and handed on packet by packet. */
#define _GNU_SOURCE
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/sys.h"
#include "link/roce/roce_impl.h"
#include "trace/pcapng.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    DATAGRAMS = 16,     /* received at a time */
    CROWD = 4,          /* calls that found one, without a pause: there are more */
    LONE = 64,          /* packets that came one by one, or a request with an ACK: more follow */
    MARKS_EVERY = 1024, /* calls: packets that come one by one are looked at for marks this often */
    LARGE = 8192,
    DATAGRAM_BYTES = 65536,
    CONTROL_BYTES = 128,
};

/* What calls receive into, made ready once; those of a call that were used are made so again. */
static struct {
    bool ready;
    struct mmsghdr headers[DATAGRAMS];
    struct iovec parts[DATAGRAMS];
    struct roce_sockaddr sources[DATAGRAMS];
    char controls[DATAGRAMS][CONTROL_BYTES];
    uint8_t bytes[DATAGRAMS][DATAGRAM_BYTES]; /* pages never used are never touched */
} arrivals;                                   /* the receive lock */

static void rearm(unsigned i)
{
    struct msghdr *header = &arrivals.headers[i].msg_hdr;

    header->msg_namelen = sizeof(arrivals.sources[i].v6);
    header->msg_controllen = CONTROL_BYTES;
}

static void prepare(void)
{
    for (unsigned i = 0; i < DATAGRAMS; i++) {
        arrivals.parts[i] = (struct iovec){arrivals.bytes[i], DATAGRAM_BYTES};
        arrivals.headers[i].msg_hdr = (struct msghdr){
            .msg_name = &arrivals.sources[i].any,
            .msg_iov = &arrivals.parts[i],
            .msg_iovlen = 1,
            .msg_control = arrivals.controls[i],
        };
        rearm(i);
    }
    arrivals.ready = true;
}

static void take_source(const struct roce_sockaddr *source, struct roce_from *from)
{
    udp_take_address(source, from->icrc.source);
    from->icrc.source_port =
        ntohs(source->any.sa_family == AF_INET ? source->v4.sin_port : source->v6.sin6_port);
}

static int control_value(const struct cmsghdr *control)
{
    int value = 0;

    /* IP_TOS comes as a byte, the others as an int. */
    if (control->cmsg_len >= CMSG_LEN(sizeof(value)))
        memcpy(&value, CMSG_DATA(control), sizeof(value));
    else
        value = *CMSG_DATA(control);
    return value;
}

/* What the kernel says beside; `segment` is 0 unless it has put packets together. */
static void take_controls(struct msghdr *header, struct roce_from *from, size_t *segment)
{
    for (struct cmsghdr *at = CMSG_FIRSTHDR(header); at; at = CMSG_NXTHDR(header, at)) {
        int value = control_value(at);

        if (at->cmsg_level == IPPROTO_UDP && at->cmsg_type == UDP_GRO)
            *segment = (size_t)value;
        else if ((at->cmsg_level == IPPROTO_IP && at->cmsg_type == IP_TOS) ||
                 (at->cmsg_level == IPPROTO_IPV6 && at->cmsg_type == IPV6_TCLASS))
            from->traffic_class = (uint8_t)value;
        else if ((at->cmsg_level == IPPROTO_IP && at->cmsg_type == IP_TTL) ||
                 (at->cmsg_level == IPPROTO_IPV6 && at->cmsg_type == IPV6_HOPLIMIT))
            from->hop_limit = (uint8_t)value;
    }
}

static uint16_t dispatch(const struct roce_from *from, uint8_t *bytes, size_t size)
{
    if (__builtin_expect(!config_get()->faults.any, 1))
        return roce_dispatch(from, bytes, size);
    faults_receive(from, bytes, size);
    return from->id;
}

/* Identifications count up within what the kernel has put together, and from call to call. */
static void take_datagram(unsigned i, struct roce_from *from)
{
    struct mmsghdr *message = &arrivals.headers[i];
    uint8_t *bytes = arrivals.bytes[i];
    size_t left = message->msg_len, segment = 0;

    if (message->msg_hdr.msg_flags & MSG_TRUNC)
        return;
    take_source(&arrivals.sources[i], from);
    take_controls(&message->msg_hdr, from, &segment);
    from->port->lone = segment && left > 2 * segment ? 0 : from->port->lone + 1;
    uint16_t *next_id = &from->port->ids[from->icrc.source_port % ROCE_IDS];
    from->id = *next_id;
    for (bool begins = true; left; begins = false) {
        size_t size = segment && segment < left ? segment : left;

        from->id = (uint16_t)(dispatch(from, bytes, size) + 1);
        if (begins)
            *next_id = from->id;
        bytes += size;
        left -= size;
    }
}

/* ---- few or many ---- */

/*
 * While packets come one by one, the kernel puts none together and tells of nothing beside: then
 * the shortest call will do, and only now and then a packet's marks of congestion are asked for.
 * Who wants to know of each packet more than its bytes, and captures, keep from that.
 */
static bool may_be_sparse(const struct roce_port *port)
{
    return !port->group && !roce_uses_datagrams() && !pcapng_is_open();
}

static void set_sparse(struct roce_port *port, bool sparse)
{
    int together = !sparse;

    setsockopt(port->watch.fd, IPPROTO_UDP, UDP_GRO, &together, sizeof(together));
    udp_tell_class(port->watch.fd, port->v4, !sparse);
    udp_tell_hops(port->watch.fd, port->v4, !sparse);
    port->sparse = sparse;
    port->marks = false;
    port->lone = 0;
}

static void set_marks(struct roce_port *port, bool marks)
{
    udp_tell_class(port->watch.fd, port->v4, marks);
    port->marks = marks;
}

static void nothing_came(struct roce_port *port)
{
    port->running = 0;
    if (!port->sparse && port->lone >= LONE && may_be_sparse(port))
        set_sparse(port, true);
}

static void one_came(struct roce_port *port, size_t size)
{
    if (port->marks)
        set_marks(port, false);
    if (++port->running < CROWD)
        return;
    port->crowded = size < LARGE;
    if (port->sparse)
        set_sparse(port, false);
}

/* None of these calls is a cancellation point, which a program's thread must not meet in here. */
static long receive_first(struct roce_port *port)
{
    struct roce_sockaddr *source = &arrivals.sources[0];

    if (port->sparse && ++port->calls % MARKS_EVERY == 0)
        set_marks(port, true);
    if (!port->sparse || port->marks)
        return syscall(SYS_recvmsg, port->watch.fd, &arrivals.headers[0].msg_hdr, MSG_DONTWAIT);
    source->size = sizeof(source->v6);
    arrivals.headers[0].msg_hdr.msg_controllen = 0;
    arrivals.headers[0].msg_hdr.msg_flags = 0;
    return syscall(SYS_recvfrom, port->watch.fd, arrivals.bytes[0], DATAGRAM_BYTES, MSG_DONTWAIT,
                   &source->any, &source->size);
}

/*
 * One at a time while they are few: the call for many costs more. Large ones too: they are still in
 * the cache when they are looked at.
 */
static unsigned receive_some(struct roce_port *port)
{
    if (port->crowded) {
        long count =
            syscall(SYS_recvmmsg, port->watch.fd, arrivals.headers, DATAGRAMS, MSG_DONTWAIT, NULL);
        port->crowded = count > 1 && arrivals.headers[0].msg_len < LARGE;
        port->running = 0;
        return count > 0 ? (unsigned)count : 0;
    }
    long size = receive_first(port);
    if (size < 0) {
        nothing_came(port);
        return 0;
    }
    arrivals.headers[0].msg_len = (unsigned)size;
    one_came(port, (size_t)size);
    return 1;
}

unsigned udp_receive(struct roce_port *port, uint64_t *now_ns_inout)
{
    struct roce_from from = {.port = port};

    if (port->watch.fd < 0)
        return 0;
    if (__builtin_expect(!arrivals.ready, 0))
        prepare();
    unsigned count = receive_some(port);
    if (!count)
        return 0;
    socket_orders();
    from.now_ns = *now_ns_inout ? *now_ns_inout : now_ns();
    *now_ns_inout = from.now_ns;
    memcpy(from.icrc.target, port->gid, 16);
    from.icrc.target_port = WIRE_UDP_PORT;
    for (unsigned i = 0; i < count; i++) {
        take_datagram(i, &from);
        rearm(i);
    }
    return count;
}
