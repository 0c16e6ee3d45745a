/* SPDX-License-Identifier: MIT */
/* Network addresses, and what connection messages say about them. All numbers in network order. */
#include <arpa/inet.h>
#include <netinet/in.h>

#include "vip.h"

enum {
    MAGIC = 0x56,
    VERSION = 1,
    PORT_FIRST = 0x5600, /* below the ports that are given out by chance */
    PORT_COUNT = 0x2000,
    FIXED_BYTES = 24,
};

bool address_take(const VIP_NET_ADDRESS *from, struct address *to_out)
{
    struct address to = {0};

    if (!from || (from->HostAddressLen != 4 && from->HostAddressLen != 16) ||
        from->DiscriminatorLen > DISCRIMINATOR_MAX)
        return false;
    to.host_len = from->HostAddressLen;
    to.name_len = from->DiscriminatorLen;
    memcpy(to.host, from->HostAddress, to.host_len);
    memcpy(to.name, (const uint8_t *)from + offsetof(VIP_NET_ADDRESS, HostAddress) + to.host_len,
           to.name_len);
    *to_out = to;
    return true;
}

void address_give(const struct address *from, VIP_NET_ADDRESS *to)
{
    uint8_t *bytes = (uint8_t *)to + offsetof(VIP_NET_ADDRESS, HostAddress);

    to->HostAddressLen = from->host_len;
    to->DiscriminatorLen = from->name_len;
    memcpy(bytes, from->host, from->host_len);
    memcpy(bytes + from->host_len, from->name, from->name_len);
}

int address_compare(const struct address *a, const struct address *b)
{
    /* No padding, and zeros behind what is used: the whole of it is comparable. */
    return memcmp(a, b, sizeof(*a));
}

bool address_equal(const struct address *a, const struct address *b)
{
    return !address_compare(a, b);
}

bool address_same_host(const struct address *a, const struct address *b)
{
    return a->host_len == b->host_len && !memcmp(a->host, b->host, a->host_len);
}

bool address_is_loopback(const struct address *address)
{
    return address->host_len == 4 ? address->host[0] == 127
                                  : IN6_IS_ADDR_LOOPBACK((const struct in6_addr *)address->host);
}

/* FNV-1a over the discriminator; neighbours are tried if a port is taken. */
uint16_t address_port(const struct address *address, int probe)
{
    uint32_t hash = 2166136261u;

    for (unsigned i = 0; i < address->name_len; i++)
        hash = (hash ^ address->name[i]) * 16777619u;
    return (uint16_t)(PORT_FIRST + (hash % PORT_COUNT + (unsigned)probe) % PORT_COUNT);
}

void address_socket(const struct address *from, uint16_t port, struct sockaddr_storage *to)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)to;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;

    memset(to, 0, sizeof(*to));
    if (from->host_len == 4) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        memcpy(&v4->sin_addr, from->host, 4);
    } else {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        memcpy(&v6->sin6_addr, from->host, 16);
    }
}

void address_host(const struct sockaddr *from, struct address *to)
{
    memset(to->host, 0, sizeof(to->host));
    if (from->sa_family == AF_INET) {
        to->host_len = 4;
        memcpy(to->host, &((const struct sockaddr_in *)from)->sin_addr, 4);
    } else {
        to->host_len = 16;
        memcpy(to->host, &((const struct sockaddr_in6 *)from)->sin6_addr, 16);
    }
}

/* ---- messages ---- */

static void put16(uint8_t *to, uint16_t value)
{
    value = htons(value);
    memcpy(to, &value, 2);
}

static void put32(uint8_t *to, uint32_t value)
{
    value = htonl(value);
    memcpy(to, &value, 4);
}

static uint16_t get16(const uint8_t *from)
{
    return (uint16_t)(from[0] << 8 | from[1]);
}

static uint32_t get32(const uint8_t *from)
{
    return (uint32_t)get16(from) << 16 | get16(from + 2);
}

/*
 *   0 magic   1 version, type   2 level   3 rights, reads   4 transfer size   8 port of reports
 *   10 length of `from`, 11 of `to`, or a code   12 word to be read: address, 20 key   24 from, to
 */
size_t message_put(const struct message *message, uint8_t *to)
{
    size_t from_len = message->from.name_len, to_len = message->to.name_len;

    memset(to, 0, MESSAGE_MAX);
    to[0] = MAGIC;
    to[1] = (uint8_t)(VERSION << 4 | message->type);
    to[2] = (uint8_t)message->level;
    to[3] = (uint8_t)(message->write | message->read << 1 | message->reads << 2);
    put32(to + 4, message->max_transfer);
    put16(to + 8, message->report_port);
    to[10] = (uint8_t)from_len;
    to[11] = message->code ? message->code : (uint8_t)to_len;
    put32(to + 12, (uint32_t)(message->confirm_address >> 32));
    put32(to + 16, (uint32_t)message->confirm_address);
    put32(to + 20, message->confirm_rkey);
    memcpy(to + FIXED_BYTES, message->from.name, from_len);
    memcpy(to + FIXED_BYTES + from_len, message->to.name, to_len);
    return FIXED_BYTES + from_len + to_len;
}

static bool has_names(enum message_type type)
{
    return type == MESSAGE_CLIENT || type == MESSAGE_PEER;
}

bool message_get(const uint8_t *from, size_t len, struct message *message_out)
{
    struct message message = {0};

    if (len < FIXED_BYTES || from[0] != MAGIC || from[1] >> 4 != VERSION)
        return false;
    message.type = from[1] & 15;
    message.level = from[2];
    message.write = from[3] & 1;
    message.read = from[3] >> 1 & 1;
    message.reads = from[3] >> 2;
    message.max_transfer = get32(from + 4);
    message.report_port = get16(from + 8);
    message.confirm_address = (uint64_t)get32(from + 12) << 32 | get32(from + 16);
    message.confirm_rkey = get32(from + 20);
    if (!has_names(message.type)) {
        message.code = from[11];
        *message_out = message;
        return message.type <= MESSAGE_REFUSAL;
    }
    message.from.name_len = from[10];
    message.to.name_len = from[11];
    if (message.from.name_len > DISCRIMINATOR_MAX || message.to.name_len > DISCRIMINATOR_MAX ||
        len < (size_t)FIXED_BYTES + message.from.name_len + message.to.name_len)
        return false;
    memcpy(message.from.name, from + FIXED_BYTES, message.from.name_len);
    memcpy(message.to.name, from + FIXED_BYTES + message.from.name_len, message.to.name_len);
    *message_out = message;
    return true;
}
