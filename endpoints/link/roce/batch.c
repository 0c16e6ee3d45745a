/* SPDX-License-Identifier: MIT */
/*
 * Packets on their way out. A batch is a buffer of whole packets; neighbours of one path and size
 * become one datagram that the kernel cuts into packets again (UDP segmentation), and all datagrams
 * go with one system call. The payload is copied first and its ICRC made of the copy: what is sent
 * is what was summed up, even if the program writes to its buffer meanwhile.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/copy.h"
#include "core/spin.h"
#include "link/roce/roce_impl.h"
#include "trace/pcapng.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum {
    BATCHES = 4,
    BATCH_BYTES = 192 * 1024,
    BATCH_DATAGRAMS = 64,
    DATAGRAM_BYTES_MAX = 65000, /* an IP packet's length has 16 bits */
    REFUSALS_MAX = 3,
    SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL,
    FULL_MS = 2, /* how long a full socket is waited for before packets are lost */
};

struct outgoing {
    const struct roce_path *path;
    size_t at, length;
    unsigned segments;
    uint16_t segment; /* size of all but the last */
    uint16_t id;      /* of the first: the kernel numbers the packets that it cuts it into */
    bool closed;      /* the last was smaller: no more can follow */
    bool connected;   /* by the path's outlet */
};

struct roce_batch {
    struct spin lock;
    unsigned count;
    size_t used;
    struct roce_outlet *outlet; /* taken */
    struct outgoing datagrams[BATCH_DATAGRAMS];
    uint8_t bytes[BATCH_BYTES];
};

static struct roce_batch batches[BATCHES];

struct roce_batch *batch_take(void)
{
    for (unsigned i = 0; i < BATCHES; i++)
        if (spin_try(&batches[i].lock))
            return &batches[i];
    spin_lock(&batches[0].lock);
    return &batches[0];
}

/* ---- filling ---- */

static bool joins(const struct outgoing *last, const struct roce_path *path, size_t size)
{
    return last->path == path && !last->closed && size <= last->segment &&
           last->segments < ROCE_SEGMENTS_MAX && last->length + size <= DATAGRAM_BYTES_MAX &&
           !path->port->no_segmentation;
}

/* One outlet a batch: its packets are those of one queue pair. */
static bool has_outlet(struct roce_batch *batch, const struct roce_path *path)
{
    if (!batch->outlet && path->outlet && outlet_take(path->outlet))
        batch->outlet = path->outlet;
    return batch->outlet && batch->outlet == path->outlet;
}

static struct outgoing *place_for(struct roce_batch *batch, const struct roce_path *path,
                                  size_t size)
{
    struct outgoing *last = batch->count ? &batch->datagrams[batch->count - 1] : NULL;

    if (last && joins(last, path, size)) {
        last->closed = size < last->segment;
        return last;
    }
    last = &batch->datagrams[batch->count++];
    *last = (struct outgoing){.path = path, .at = batch->used, .segment = (uint16_t)size};
    last->connected = has_outlet(batch, path);
    if (last->connected)
        last->id = batch->outlet->next_id++;
    return last;
}

static void put_payload(const struct transport_packet *packet, uint8_t *to)
{
    for (unsigned i = 0; i < packet->part_count; i++) {
        copy_any((char *)to, packet->parts[i].iov_base, packet->parts[i].iov_len);
        to += packet->parts[i].iov_len;
    }
}

static void send_all(struct roce_batch *batch);

void batch_add(struct roce_batch *batch, const struct roce_path *path,
               const struct transport_packet *packet)
{
    size_t payload = packet->headers.payload_length, pad = wire_pad((uint32_t)payload);
    size_t headers = wire_headers_size(packet->headers.opcode);
    size_t size = headers + payload + pad + WIRE_ICRC_SIZE;

    if (batch->used + size > BATCH_BYTES || batch->count == BATCH_DATAGRAMS)
        send_all(batch);
    uint8_t *at = batch->bytes + batch->used;
    struct outgoing *datagram = place_for(batch, path, size);
    wire_emit(&packet->headers, at);
    put_payload(packet, at + headers);
    memset(at + headers + payload, 0, pad);
    const struct icrc_path *icrc = datagram->connected ? &batch->outlet->icrc : &path->icrc;
    uint16_t id = (uint16_t)(datagram->id + datagram->segments);
    icrc_put(at + size - WIRE_ICRC_SIZE, icrc_of(icrc, id, at, size));
    if (__builtin_expect(pcapng_is_open(), 0))
        pcapng_write(PCAPNG_SENT, icrc, path->traffic_class, path->hop_limit, id, at, size);
    datagram->segments++;
    datagram->length += size;
    batch->used += size;
}

/* ---- sending ---- */

union control {
    struct cmsghdr header;
    char room[3 * CMSG_SPACE(sizeof(int))];
};

static void put_control(struct msghdr *message, union control *control, int level, int type,
                        const void *value, size_t size)
{
    struct cmsghdr *at = (struct cmsghdr *)(void *)(control->room + message->msg_controllen);

    at->cmsg_level = level;
    at->cmsg_type = type;
    at->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(at), value, size);
    message->msg_control = control->room;
    message->msg_controllen += CMSG_SPACE(size);
}

static void put_controls(const struct outgoing *datagram, struct msghdr *message,
                         union control *control)
{
    const struct roce_path *path = datagram->path;
    int class = path->traffic_class, hops = path->hop_limit;
    int level = path->port->v4 ? IPPROTO_IP : IPPROTO_IPV6;

    memset(control, 0, sizeof(*control));
    if (datagram->segments > 1)
        put_control(message, control, IPPROTO_UDP, UDP_SEGMENT, &datagram->segment,
                    sizeof(datagram->segment));
    if (class)
        put_control(message, control, level, path->port->v4 ? IP_TOS : IPV6_TCLASS, &class,
                    sizeof(class));
    if (hops && hops != 64)
        put_control(message, control, level, path->port->v4 ? IP_TTL : IPV6_HOPLIMIT, &hops,
                    sizeof(hops));
}

static void prepare(struct roce_batch *batch, struct mmsghdr *headers, struct iovec *parts,
                    union control *controls)
{
    for (unsigned i = 0; i < batch->count; i++) {
        struct outgoing *datagram = &batch->datagrams[i];

        parts[i] = (struct iovec){batch->bytes + datagram->at, datagram->length};
        headers[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
        if (!datagram->connected) {
            headers[i].msg_hdr.msg_name = (void *)(uintptr_t)&datagram->path->to.any;
            headers[i].msg_hdr.msg_namelen = datagram->path->to.size;
        }
        put_controls(datagram, &headers[i].msg_hdr, &controls[i]);
    }
}

static int socket_of(const struct outgoing *datagram)
{
    const struct roce_path *path = datagram->path;

    if (datagram->connected)
        return path->outlet->fd;
    return atomic_load_explicit(&path->port->senders[path->sender], memory_order_relaxed) - 1;
}

/* True: there is room again. */
static bool wait_for_room(int fd)
{
    struct pollfd room = {.fd = fd, .events = POLLOUT};

    return poll(&room, 1, FULL_MS) > 0;
}

#ifdef __SANITIZE_THREAD__
void socket_orders(void)
{
    fence(memory_order_seq_cst);
}
#endif

/*
 * Of one datagram, most often, by the shorter call. How many were sent, or -1. libc's functions are
 * cancellation points, which a program's thread must not meet in here.
 */
static int send_some(int fd, struct mmsghdr *headers, unsigned count)
{
    const struct msghdr *one = &headers->msg_hdr;
    ssize_t sent;

    socket_orders();
    if (count > 1)
        return (int)syscall(SYS_sendmmsg, fd, headers, count, SEND_FLAGS);
    if (!one->msg_name && !one->msg_controllen)
        sent = syscall(SYS_sendto, fd, one->msg_iov->iov_base, one->msg_iov->iov_len, SEND_FLAGS,
                       NULL, 0);
    else
        sent = syscall(SYS_sendmsg, fd, one, SEND_FLAGS);
    return sent < 0 ? -1 : 1;
}

/*
 * The datagram can't be sent now, for errno: true if it is to be tried again. A connected socket
 * tells of a refusal in place of sending. Its other errors may have used up a number or not.
 */
static bool try_again(int fd, const struct outgoing *datagram, unsigned *refusals)
{
    if (errno == ECONNREFUSED && datagram->connected)
        refusal_note(datagram->path->outlet);
    if (errno == EINTR || (errno == ECONNREFUSED && ++*refusals <= REFUSALS_MAX) ||
        ((errno == EAGAIN || errno == ENOBUFS) && wait_for_room(fd)))
        return true;
    if (errno == EIO || (errno == EINVAL && datagram->segments > 1))
        datagram->path->port->no_segmentation = true;
    if (datagram->connected)
        outlet_doubt(datagram->path->outlet);
    return false;
}

/* A run of datagrams that leave by the same socket. What the network refuses is lost. */
static void send_run(const struct outgoing *datagrams, struct mmsghdr *headers, unsigned count)
{
    int fd = socket_of(datagrams);
    unsigned sent = 0, refusals = 0;

    while (sent < count) {
        int done = send_some(fd, headers + sent, count - sent);

        if (done > 0)
            sent += (unsigned)done;
        else if (!try_again(fd, &datagrams[sent], &refusals))
            sent++;
        /* What stopped it is not told: room, most often, but perhaps an error with a number. */
        if (done > 0 && sent < count && datagrams->connected)
            outlet_doubt(datagrams->path->outlet);
    }
}

static void send_all(struct roce_batch *batch)
{
    struct mmsghdr headers[BATCH_DATAGRAMS];
    struct iovec parts[BATCH_DATAGRAMS];
    union control controls[BATCH_DATAGRAMS];
    unsigned from = 0;

    prepare(batch, headers, parts, controls);
    while (from < batch->count) {
        unsigned to = from + 1;

        while (to < batch->count &&
               socket_of(&batch->datagrams[to]) == socket_of(&batch->datagrams[from]))
            to++;
        send_run(&batch->datagrams[from], headers + from, to - from);
        from = to;
    }
    batch->count = 0;
    batch->used = 0;
}

void batch_send(struct roce_batch *batch)
{
    if (batch->count)
        send_all(batch);
    if (batch->outlet)
        outlet_give(batch->outlet);
    batch->outlet = NULL;
    spin_unlock(&batch->lock);
}
