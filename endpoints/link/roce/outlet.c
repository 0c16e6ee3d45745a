/* SPDX-License-Identifier: MIT */
/*
 * Outlets: sockets connected to one destination, for queue pairs that are. The kernel keeps their
 * route, so a packet leaves sooner; but it numbers their IPv4 packets, and the ICRC covers the
 * number. The first is random. A program may have a packet that it sends looped back to it, headers
 * included, with the time at which it was sent: so an empty datagram tells the number, and from
 * there it counts up by one with each call. Whoever sends holds the outlet from the number to the
 * call. When it may be out of step it is asked for again; meanwhile packets go without it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/net_tstamp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/config_host.h"
#include "core/sys.h"
#include "link/roce/roce_impl.h"

enum {
    OUTLETS_MAX = 128,
    LEARN_AGAIN_NS = 10000000,
    LINK_HEADER_MAX = 64,
    IP4_SIZE = 20,
    UDP_SIZE = 8,
};

static unsigned outlet_count;

static void set_stamping(int fd, int flags)
{
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof(flags));
}

/* What was sent last and looped back; the headers of an empty datagram end with it. */
static bool read_looped(int fd, uint16_t *id_out)
{
    uint8_t frame[LINK_HEADER_MAX + IP4_SIZE + UDP_SIZE], control[256];
    struct iovec part = {frame, sizeof(frame)};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control,
                            .msg_controllen = sizeof(control)};
    bool found = false;

    for (ssize_t size; (size = recvmsg(fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT)) >= 0;) {
        const uint8_t *ip = frame + size - IP4_SIZE - UDP_SIZE;

        found = size >= IP4_SIZE + UDP_SIZE && ip[0] == 0x45;
        if (found)
            *id_out = (uint16_t)(ip[4] << 8 | ip[5]);
        header.msg_controllen = sizeof(control);
    }
    return found;
}

/* A refusal of what was sent before is told at the next call, which then sends nothing. */
static bool send_empty(int fd)
{
    for (int i = 0; i < 3; i++) {
        if (send(fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL) == 0)
            return true;
        if (errno != ECONNREFUSED)
            return false;
    }
    return false;
}

static bool learn(struct roce_outlet *outlet)
{
    uint16_t id;

    read_looped(outlet->fd, &id); /* what came too late the last time */
    set_stamping(outlet->fd, SOF_TIMESTAMPING_TX_SCHED);
    bool sent = send_empty(outlet->fd);
    set_stamping(outlet->fd, 0);
    if (!read_looped(outlet->fd, &id) || !sent)
        return false;
    outlet->next_id = (uint16_t)(id + 1);
    return true;
}

static bool is_in_step(struct roce_outlet *outlet)
{
    uint64_t now;

    if (__builtin_expect(atomic_load_explicit(&outlet->in_step, memory_order_relaxed), 1))
        return true;
    if ((now = now_ns()) < outlet->learn_at_ns)
        return false;
    outlet->learn_at_ns = now + LEARN_AGAIN_NS;
    atomic_store(&outlet->in_step, true); /* who doubts from here on is heard */
    if (learn(outlet))
        return true;
    atomic_store(&outlet->in_step, false);
    return false;
}

bool outlet_take(struct roce_outlet *outlet)
{
    if (!spin_try(&outlet->lock))
        return false;
    if (is_in_step(outlet))
        return true;
    spin_unlock(&outlet->lock);
    return false;
}

void outlet_give(struct roce_outlet *outlet)
{
    spin_unlock(&outlet->lock);
}

void outlet_doubt(struct roce_outlet *outlet)
{
    if (!outlet->counted)
        return;
    atomic_store_explicit(&outlet->in_step, false, memory_order_relaxed);
}

static int outlet_open(struct roce_port *port, struct roce_outlet *outlet)
{
    struct roce_sockaddr to;
    uint16_t number;
    int fd = udp_open_source(port, outlet->sender, &number);

    if (fd < 0)
        return fd;
    udp_address(port, outlet->icrc.target, WIRE_UDP_PORT, &to);
    if (connect(fd, &to.any, to.size)) {
        int error = -errno;

        sys_close(fd);
        return error;
    }
    outlet->fd = fd;
    outlet->icrc.source_port = number;
    return 0;
}

static struct roce_outlet *outlet_new(struct roce_port *port, const uint8_t dgid[16],
                                      unsigned sender)
{
    struct roce_outlet *outlet = calloc(1, sizeof(*outlet));

    if (!outlet)
        return NULL;
    memcpy(outlet->icrc.source, port->gid, 16);
    memcpy(outlet->icrc.target, dgid, 16);
    outlet->icrc.target_port = WIRE_UDP_PORT;
    outlet->sender = sender;
    outlet->counted = port->v4;
    atomic_store(&outlet->in_step, !outlet->counted);
    if (outlet_open(port, outlet)) {
        free(outlet);
        return NULL;
    }
    outlet->next = port->outlets;
    port->outlets = outlet;
    outlet_count++;
    return outlet;
}

struct roce_outlet *outlet_find(struct roce_port *port, const uint8_t dgid[16], unsigned sender)
{
    for (struct roce_outlet *outlet = port->outlets; outlet; outlet = outlet->next)
        if (outlet->sender == sender && !memcmp(outlet->icrc.target, dgid, 16))
            return outlet;
    return outlet_count < OUTLETS_MAX ? outlet_new(port, dgid, sender) : NULL;
}

void outlets_close(struct roce_port *port)
{
    for (struct roce_outlet *outlet = port->outlets, *next; outlet; outlet = next) {
        next = outlet->next;
        sys_close(outlet->fd);
        free(outlet);
        outlet_count--;
    }
    port->outlets = NULL;
}
