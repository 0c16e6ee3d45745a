/* SPDX-License-Identifier: MIT */
/*
 * The global routing header a datagram's receiver finds in front of its data (IBTA 8.3; RoCEv2
 * annex A17.4.5.2): an IPv6 header, or for IPv4 addresses 20 unused bytes and an IPv4 header.
 */
#include "link/shm/grh.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <string.h>

enum { UDP_BYTES = 8, BTH_DETH_BYTES = 20, ICRC_BYTES = 4 };

bool gid_is_ipv4(const uint8_t gid[16])
{
    static const uint8_t prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    return !memcmp(gid, prefix, sizeof(prefix));
}

static uint16_t checksum(const void *header, size_t size)
{
    const uint8_t *bytes = header;
    uint32_t sum = 0;

    for (size_t i = 0; i < size; i += 2)
        sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

static void build_ipv4(uint8_t out[GRH_BYTES], const struct ah *ah, const uint8_t sgid[16],
                       uint32_t payload)
{
    struct iphdr header = {
        .ihl = 5,
        .version = 4,
        .tos = ah->traffic_class,
        .tot_len = htons((uint16_t)(sizeof(struct iphdr) + payload)),
        .frag_off = htons(IP_DF),
        .ttl = ah->hop_limit,
        .protocol = IPPROTO_UDP,
    };

    memcpy(&header.saddr, sgid + 12, 4);
    memcpy(&header.daddr, ah->dgid + 12, 4);
    header.check = checksum(&header, sizeof(header));
    memset(out, 0, GRH_BYTES - sizeof(header));
    memcpy(out + GRH_BYTES - sizeof(header), &header, sizeof(header));
}

static void build_ipv6(uint8_t out[GRH_BYTES], const struct ah *ah, const uint8_t sgid[16],
                       uint32_t payload)
{
    uint32_t flow =
        htonl(6u << 28 | (uint32_t)ah->traffic_class << 20 | (ah->flow_label & 0xfffff));
    uint16_t length = htons((uint16_t)payload);

    memcpy(out, &flow, 4);
    memcpy(out + 4, &length, 2);
    out[6] = IPPROTO_UDP;
    out[7] = ah->hop_limit;
    memcpy(out + 8, sgid, 16);
    memcpy(out + 24, ah->dgid, 16);
}

void grh_build(uint8_t out[GRH_BYTES], const struct ah *ah, const uint8_t sgid[16],
               uint32_t data_bytes)
{
    uint32_t padded = (data_bytes + 3) & ~3u;
    uint32_t payload = UDP_BYTES + BTH_DETH_BYTES + padded + ICRC_BYTES;

    if (gid_is_ipv4(ah->dgid))
        build_ipv4(out, ah, sgid, payload);
    else
        build_ipv6(out, ah, sgid, payload);
}
