/* SPDX-License-Identifier: MIT */
/*
 * The invariant CRC of RoCEv2 (IBTA 9.8, annex A17): Ethernet's CRC-32 over everything that does
 * not change on the way, the IP and UDP headers included.
 *
 *   8 x ff | IP header, masked | UDP header, masked | BTH, byte 4 masked | the rest, with pad
 *
 * Masked (all ones): IPv4 TOS, TTL, checksum; IPv6 traffic class, flow label, hop limit; the UDP
 * checksum; the BTH's byte 4. All else counts, IPv4's identification and DF bit too. A program
 * without rights can't see those of what it received; icrc_judge() finds out what they must have
 * been. Pure functions, no state.
 */
#ifndef VIADUCT_WIRE_ICRC_H
#define VIADUCT_WIRE_ICRC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What of a packet's IP and UDP headers is covered. IPv4 addresses are mapped: ::ffff:a.b.c.d. */
struct icrc_path {
    uint8_t source[16], target[16];
    uint16_t source_port, target_port;
};

bool icrc_path_is_v4(const struct icrc_path *path);

/*
 * Step by step: begin with the length of the UDP payload (ICRC included) and IPv4's identification
 * (DF set; IPv6 has neither), add the headers (they begin with the BTH), then payload and pad.
 * What the last step returns is the ICRC; on the wire it stands least significant byte first.
 */
uint32_t icrc_begin(const struct icrc_path *path, size_t udp_payload, uint16_t id);
uint32_t icrc_add_headers(uint32_t crc, const uint8_t *headers, size_t size);
uint32_t icrc_add(uint32_t crc, const void *bytes, size_t size);

/* All of it: the ICRC of a UDP payload that ends with room for it. size: 16 or more. */
uint32_t icrc_of(const struct icrc_path *path, uint16_t id, const uint8_t *udp_payload,
                 size_t size);

static inline void icrc_put(uint8_t *at, uint32_t crc)
{
    at[0] = (uint8_t)crc;
    at[1] = (uint8_t)(crc >> 8);
    at[2] = (uint8_t)(crc >> 16);
    at[3] = (uint8_t)(crc >> 24);
}

static inline uint32_t icrc_get(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* A power of the polynomial's x that undoes a shift, kept for the next packet of that length. */
struct icrc_unshift {
    uint32_t bytes, factor;
};

/*
 * Is the ICRC at the end of this UDP payload right? With IPv4 the identification is taken to be
 * whatever makes it right, if anything does: a CRC is linear, so the difference to what a guess
 * gives is the difference of the ids, shifted. `id` (NULL: guess 0) is the guess, and then the id;
 * a good one saves time. `unshift` begins as zeroes.
 */
bool icrc_judge(const struct icrc_path *path, const uint8_t *udp_payload, size_t size,
                struct icrc_unshift *unshift, uint16_t *id);

#endif
