/* SPDX-License-Identifier: MIT */
/*
 * An attacker who is not on the way: it sends what it likes, from its own address or in the peer's
 * name, and even knows a connection's numbers, but never all that fits at that moment. Nothing
 * changes: not the memory, not the queue pairs, not what is sent next. And it is counted.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ends.h"
#include "wire/icrc.h"
#include "wire/packet.h"

enum { ID = 0x1234, SOURCE_FIRST = 0xc000, SOURCES = 0x4000, LENGTH = 64, OWN_PORT = 0xd001 };

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
static const uint8_t target[4] = {127, 0, 0, 1}; /* both ends of the connection */
static const uint8_t own[4] = {127, 0, 0, 9};

/* ---- what it sends ---- */

struct attack {
    int raw;
    struct pair *p;
    uint8_t bytes[64 + WIRE_PACKET_MAX];
    size_t size;
};

static struct attack begin(enum topology topology)
{
    struct attack attack = {.p = pair_open(topology, NULL)};

    attack.raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    T_ASSERT(attack.raw >= 0, "%s", strerror(errno));
    pair_works(attack.p, 0);
    return attack;
}

static void end(struct attack *attack)
{
    close(attack->raw);
    pair_works(attack->p, 0);
    T_EQ(e_state(attack->p->a, 0), IBV_QPS_RTS);
    T_EQ(e_state(attack->p->b, 0), IBV_QPS_RTS);
    pair_close(attack->p);
}

static void put_ip(struct attack *attack, const uint8_t source[4], uint8_t protocol, size_t payload)
{
    struct iphdr ip = {.version = 4,
                       .ihl = 5,
                       .ttl = 64,
                       .id = htons(ID),
                       .frag_off = htons(IP_DF),
                       .protocol = protocol,
                       .tot_len = htons((uint16_t)(sizeof(ip) + payload))};

    memcpy(&ip.saddr, source, 4);
    memcpy(&ip.daddr, target, 4);
    memcpy(attack->bytes, &ip, sizeof(ip));
    attack->size = sizeof(ip) + payload;
}

static struct udphdr *udp_of(struct attack *attack)
{
    return (struct udphdr *)(void *)(attack->bytes + sizeof(struct iphdr));
}

static uint8_t *put_udp(struct attack *attack, const uint8_t source[4], uint16_t from, uint16_t to,
                        size_t payload)
{
    put_ip(attack, source, IPPROTO_UDP, sizeof(struct udphdr) + payload);
    *udp_of(attack) =
        (struct udphdr){.uh_sport = htons(from),
                        .uh_dport = htons(to),
                        .uh_ulen = htons((uint16_t)(sizeof(struct udphdr) + payload))};
    return (uint8_t *)(udp_of(attack) + 1);
}

static void fire(const struct attack *attack)
{
    struct sockaddr_in to = {.sin_family = AF_INET};

    memcpy(&to.sin_addr, target, 4);
    ssize_t sent =
        sendto(attack->raw, attack->bytes, attack->size, 0, (struct sockaddr *)&to, sizeof(to));
    T_EQ(sent, (ssize_t)attack->size);
}

/* A packet whose ICRC is right, as far as its sender is who it says. */
static void put_packet(struct attack *attack, const uint8_t source[4], struct wire_packet packet)
{
    size_t headers = wire_headers_size(packet.opcode);
    size_t size = headers + packet.payload_length + WIRE_ICRC_SIZE;
    uint8_t *at = put_udp(attack, source, OWN_PORT, WIRE_UDP_PORT, size);
    struct icrc_path path = {.source_port = OWN_PORT, .target_port = WIRE_UDP_PORT};

    memcpy(path.source, mapped, 12);
    memcpy(path.source + 12, source, 4);
    memcpy(path.target, mapped, 12);
    memcpy(path.target + 12, target, 4);
    wire_emit(&packet, at);
    memset(at + headers, 0xee, packet.payload_length);
    icrc_put(at + size - WIRE_ICRC_SIZE, icrc_of(&path, ID, at, size));
}

/* The next request that b would take from a: a write over its receive buffer. */
static struct wire_packet forged(const struct attack *attack)
{
    const struct side_info *a = &attack->p->a->info, *b = &attack->p->b->info;

    return (struct wire_packet){.opcode = WIRE_RC | WIRE_WRITE_ONLY,
                                .migrated = true,
                                .ack_request = true,
                                .pkey = 0xffff,
                                .dest_qpn = b->qpn[0],
                                .psn = (a->psn[0] + 1) & 0xffffff, /* one was sent */
                                .va = b->addr,
                                .rkey = b->rkey,
                                .dma_length = LENGTH,
                                .payload_length = LENGTH};
}

static void fire_packet(struct attack *attack, const uint8_t source[4], struct wire_packet packet)
{
    put_packet(attack, source, packet);
    fire(attack);
}

/* ---- what is counted ---- */

static unsigned long dropped(void)
{
    char text[32] = "", path[96];

    snprintf(path, sizeof(path), "/sys/class/infiniband/%s/ports/1/counters/port_rcv_errors",
             device_name());
    int fd = open(path, O_RDONLY);
    T_ASSERT(fd >= 0);
    T_ASSERT(read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    return strtoul(text, NULL, 10);
}

static void expect_dropped(const struct attack *attack, unsigned long before, unsigned long count)
{
    T_UNTIL(dropped() >= before + count, WAIT_MS);
    e_untouched(attack->p->b, 0, LENGTH);
    e_none(attack->p->a, SEND_CQ);
    e_none(attack->p->b, RECV_CQ);
}

/* ---- attacks ---- */

T_TEST(attack, by_who_knows_all)
{
    /* Shows that the packet the others are made of would do, by who has all of it right. */
    struct attack attack = begin(ONE_PROCESS);
    uint8_t byte = 0;

    fire_packet(&attack, target, forged(&attack));
    for (int64_t deadline = t_deadline(WAIT_MS); byte != 0xee;) {
        T_ASSERT(!t_expired(deadline));
        e_none(attack.p->b, RECV_CQ); /* polls */
        e_peek(attack.p->b, LENGTH - 1, &byte, 1);
    }
    close(attack.raw);
    pair_close_loose(attack.p);
}

static void from_its_own_address(enum topology topology)
{
    struct attack attack = begin(topology);
    unsigned long before = dropped();

    for (int i = 0; i < 100; i++)
        fire_packet(&attack, own, forged(&attack));
    expect_dropped(&attack, before, 100);
    end(&attack);
}

T_TEST(attack, from_its_own_address)
{
    /* Shows that only the peer's address is taken packets from, were they right in all else. */
    from_its_own_address(ONE_PROCESS);
}

T_TEST(attack, from_its_own_address_two_processes)
{
    /* Shows the same of a connection between processes. */
    from_its_own_address(TWO_PROCESSES);
}

T_TEST(attack, wrong_number)
{
    /* Shows what becomes of packets for queue pairs and processes there are not. */
    struct attack attack = begin(TWO_PROCESSES);
    unsigned long before = dropped();

    for (uint32_t i = 0; i < 100; i++) {
        struct wire_packet packet = forged(&attack);

        packet.dest_qpn = i % 2 ? packet.dest_qpn + 1000 + i : (900 + i) << 14 | 1;
        fire_packet(&attack, target, packet);
    }
    expect_dropped(&attack, before, 100);
    end(&attack);
}

T_TEST(attack, wrong_sequence)
{
    /* Shows that the peer's address and the right number are no use without the next PSN. */
    struct attack attack = begin(TWO_PROCESSES);

    for (uint32_t i = 1; i <= 100; i++) {
        struct wire_packet packet = forged(&attack);

        packet.psn = (packet.psn + i * 0x28000) & 0xffffff;
        fire_packet(&attack, target, packet);
        packet.opcode = WIRE_RC | (i % 2 ? WIRE_FETCH_ADD : WIRE_READ_REQUEST);
        packet.payload_length = 0;
        fire_packet(&attack, target, packet);
    }
    pair_works(attack.p, 0);
    e_untouched(attack.p->b, 0, LENGTH);
    end(&attack);
}

T_TEST(attack, wrong_checksum)
{
    /* Shows that a single bit of the ICRC is enough. */
    struct attack attack = begin(ONE_PROCESS);
    unsigned long before = dropped();

    for (unsigned bit = 0; bit < 32; bit++) {
        put_packet(&attack, target, forged(&attack));
        attack.bytes[attack.size - WIRE_ICRC_SIZE + bit / 8] ^= (uint8_t)(1u << bit % 8);
        fire(&attack);
    }
    expect_dropped(&attack, before, 32);
    end(&attack);
}

T_TEST(attack, wrong_kind)
{
    /* Shows that other services, partitions, versions and lengths are nothing to a connection. */
    static const uint8_t services[] = {WIRE_UC, WIRE_UD, WIRE_XRC};
    struct attack attack = begin(ONE_PROCESS);
    unsigned long before = dropped();

    for (unsigned i = 0; i < 3; i++) {
        struct wire_packet packet = forged(&attack);

        packet.opcode = services[i] | WIRE_SEND_ONLY;
        packet.qkey = 0x11111111;
        fire_packet(&attack, target, packet);
    }
    struct wire_packet packet = forged(&attack);
    packet.pkey = 0x1234;
    fire_packet(&attack, target, packet);
    for (size_t size = 0; size < 30; size++) {
        memset(put_udp(&attack, target, OWN_PORT, WIRE_UDP_PORT, size), (int)size, size);
        fire(&attack);
    }
    expect_dropped(&attack, before, 30);
    end(&attack);
}

T_TEST(attack, answers_to_nothing)
{
    /* Shows that an ACK or NAK of what is not under way is dropped. */
    struct attack attack = begin(TWO_PROCESSES);

    for (uint32_t i = 0; i < 100; i++) {
        struct wire_packet packet = {.opcode = WIRE_RC | WIRE_ACK,
                                     .pkey = 0xffff,
                                     .dest_qpn = attack.p->a->info.qpn[0],
                                     .psn = (attack.p->a->info.psn[0] + 1 + i) & 0xffffff,
                                     .syndrome = (uint8_t)(0x60 | i % 5)};

        fire_packet(&attack, target, packet);
    }
    e_none(attack.p->a, SEND_CQ);
    end(&attack);
}

/* ---- that somebody is gone ---- */

/* To each socket that a program may send from, in the name of the host that it sends to. */
static void fire_notices(struct attack *attack, uint8_t who)
{
    const struct side_info *a = &attack->p->a->info, *b = &attack->p->b->info;
    uint32_t psn = a->psn[0] + 1;

    for (unsigned i = 0; i < SOURCES; i++) {
        uint8_t *at = put_udp(attack, target, WIRE_UDP_PORT, (uint16_t)(SOURCE_FIRST + i), 16);

        memset(at, 0, 16);
        at[0] = 0xfe;
        at[1] = who;
        at[4 + 5] = (uint8_t)(b->qpn[0] >> 16);
        at[4 + 6] = (uint8_t)(b->qpn[0] >> 8);
        at[4 + 7] = (uint8_t)b->qpn[0];
        at[4 + 9] = (uint8_t)(psn >> 16);
        at[4 + 10] = (uint8_t)(psn >> 8);
        at[4 + 11] = (uint8_t)psn;
        fire(attack);
    }
}

T_TEST(attack, notices)
{
    /* Shows that to be told of a death by who has not seen the packet means nothing. */
    struct attack attack = begin(TWO_PROCESSES);

    for (uint8_t who = 0; who < 3; who++)
        fire_notices(&attack, who);
    pair_works(attack.p, 0);
    end(&attack);
}

static uint16_t sum(const void *bytes, size_t size)
{
    const uint16_t *words = bytes;
    uint32_t total = 0;

    for (size_t i = 0; i < size / 2; i++)
        total += words[i];
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return (uint16_t)~total;
}

/* "Port unreachable", about a packet that such a socket sent. */
static void fire_icmp(struct attack *attack, uint16_t source_port)
{
    struct {
        struct icmphdr head;
        struct iphdr ip;
        struct udphdr udp;
        uint8_t bth[12];
    } message = {.head = {.type = ICMP_DEST_UNREACH, .code = ICMP_PORT_UNREACH},
                 .ip = {.version = 4,
                        .ihl = 5,
                        .ttl = 64,
                        .protocol = IPPROTO_UDP,
                        .tot_len = htons(20 + 8 + 64)},
                 .udp = {.uh_sport = htons(source_port),
                         .uh_dport = htons(WIRE_UDP_PORT),
                         .uh_ulen = htons(8 + 64)}};

    memcpy(&message.ip.saddr, target, 4);
    memcpy(&message.ip.daddr, target, 4);
    message.head.checksum = sum(&message, sizeof(message));
    put_ip(attack, target, IPPROTO_ICMP, sizeof(message));
    memcpy(attack->bytes + sizeof(struct iphdr), &message, sizeof(message));
    fire(attack);
}

T_TEST(attack, unreachable)
{
    /* Shows that a forged ICMP error, which nobody can tell from a true one, is asked about. */
    struct attack attack = begin(TWO_PROCESSES);
    struct pair *p = attack.p;

    for (unsigned i = 0; i < SOURCES; i++) {
        if (i % 1024 == 0)
            pair_works(p, 0);
        fire_icmp(&attack, (uint16_t)(SOURCE_FIRST + i));
    }
    end(&attack);
}
