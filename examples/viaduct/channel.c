/* SPDX-License-Identifier: MIT */
/* The channel beside the RDMA connection. */
#include "channel.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* One socket that takes IPv6 and IPv4, or IPv4 alone where there is no IPv6. */
static int listen_socket(uint16_t port)
{
    struct sockaddr_in6 any6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, off = 0;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr *address = (const struct sockaddr *)&any6;
    socklen_t length = sizeof(any6);

    if (fd < 0) {
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        address = (const struct sockaddr *)&any4;
        length = sizeof(any4);
    } else {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    }
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, address, length) != 0 || listen(fd, 16) != 0) {
        int error = -errno;

        close(fd);
        return error;
    }
    return fd;
}

int channel_listen(uint16_t port, int *fd_out, uint16_t *port_out)
{
    union {
        struct sockaddr any;
        struct sockaddr_in6 in6;
        struct sockaddr_in in4;
    } address = {.in6 = {.sin6_family = AF_UNSPEC}};
    socklen_t length = sizeof(address);
    int fd = listen_socket(port);

    if (fd < 0)
        return fd;
    if (getsockname(fd, &address.any, &length) != 0) {
        int error = -errno;

        close(fd);
        return error;
    }
    /* sin_port and sin6_port lie at the same place. */
    *port_out = ntohs(address.in4.sin_port);
    *fd_out = fd;
    return 0;
}

static void no_delay(int fd)
{
    int on = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

int channel_accept(int listen_fd, int *fd_out)
{
    int fd;

    do {
        fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0)
        return -errno;
    no_delay(fd);
    *fd_out = fd;
    return 0;
}

static int connect_one(const struct addrinfo *info)
{
    int fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC, info->ai_protocol);
    int error;

    if (fd < 0)
        return -errno;
    if (connect(fd, info->ai_addr, info->ai_addrlen) == 0)
        return fd;
    error = -errno;
    close(fd);
    return error;
}

int channel_connect(const char *host, uint16_t port, int *fd_out)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list;
    char service[8];
    int fd = -EHOSTUNREACH;

    snprintf(service, sizeof(service), "%u", port);
    if (getaddrinfo(host, service, &hints, &list) != 0)
        return -EHOSTUNREACH;
    for (const struct addrinfo *info = list; info != NULL && fd < 0; info = info->ai_next)
        fd = connect_one(info);
    freeaddrinfo(list);
    if (fd < 0)
        return fd;
    no_delay(fd);
    *fd_out = fd;
    return 0;
}

static int write_all(int fd, const void *data, size_t length)
{
    const char *p = data;

    while (length > 0) {
        ssize_t n = send(fd, p, length, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EPIPE ? -ECONNRESET : -errno;
        p += n;
        length -= (size_t)n;
    }
    return 0;
}

static int read_all(int fd, void *data, size_t length)
{
    char *p = data;

    while (length > 0) {
        ssize_t n = recv(fd, p, length, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0 ? -ECONNRESET : -errno;
        p += n;
        length -= (size_t)n;
    }
    return 0;
}

int channel_put(int fd, const void *data, size_t length)
{
    uint32_t length_be = htonl((uint32_t)length);
    int error = write_all(fd, &length_be, sizeof(length_be));

    return error != 0 ? error : write_all(fd, data, length);
}

int channel_get(int fd, void *data, size_t size, size_t *length_out)
{
    uint32_t length_be;
    size_t length;
    int error = read_all(fd, &length_be, sizeof(length_be));

    if (error != 0)
        return error;
    length = ntohl(length_be);
    if (length > size)
        return -EMSGSIZE;
    error = read_all(fd, data, length);
    if (error == 0)
        *length_out = length;
    return error;
}

int channel_put_number(int fd, uint64_t number)
{
    uint64_t number_be = htobe64(number);

    return channel_put(fd, &number_be, sizeof(number_be));
}

int channel_get_number(int fd, uint64_t *number_out)
{
    uint64_t number_be;
    size_t length;
    int error = channel_get(fd, &number_be, sizeof(number_be), &length);

    if (error != 0)
        return error;
    if (length != sizeof(number_be))
        return -EPROTO;
    *number_out = be64toh(number_be);
    return 0;
}

int channel_sync(int fd)
{
    uint64_t number;
    int error = channel_put_number(fd, 0);

    return error != 0 ? error : channel_get_number(fd, &number);
}

void channel_patience(int fd, unsigned seconds)
{
    struct timeval limit = {.tv_sec = (time_t)seconds};

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

bool channel_alive(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR));
}
