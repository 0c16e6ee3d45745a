/* SPDX-License-Identifier: MIT */
/* The invariant CRC; its arithmetic is ISA-L's, which uses the machine's vector instructions. */
#include "wire/icrc.h"

#include <isa-l/crc.h>
#include <string.h>

#include "wire/packet.h"

enum {
    IP4_SIZE = 20,
    IP6_SIZE = 40,
    UDP_SIZE = 8,
    LRH_SIZE = 8,
    UDP_PROTOCOL = 17,
    BEFORE_BTH_MAX = LRH_SIZE + IP6_SIZE + UDP_SIZE,
    MASKED_IN_BTH = 4,
    AT_ONCE = 40, /* bytes from the BTH on that are summed up with what stands before it */
    IP4_AFTER_ID = IP4_SIZE - 4 + UDP_SIZE, /* from the identification on, to the BTH */
};

#define DF_HIGH 0x40u
/* Reflected: bit 31 is the coefficient of x^0. */
#define POLYNOMIAL 0xedb88320u
#define X0 0x80000000u

bool icrc_path_is_v4(const struct icrc_path *path)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

    return memcmp(path->target, mapped, sizeof(mapped)) == 0;
}

static void put16(uint8_t *at, size_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static size_t mask_ip4(const struct icrc_path *path, size_t length, uint16_t id, uint8_t *at)
{
    at[0] = 0x45;
    at[1] = 0xff; /* TOS */
    put16(at + 2, IP4_SIZE + length);
    put16(at + 4, id);
    at[6] = DF_HIGH;
    at[7] = 0;
    at[8] = 0xff; /* TTL */
    at[9] = UDP_PROTOCOL;
    at[10] = at[11] = 0xff; /* checksum */
    memcpy(at + 12, path->source + 12, 4);
    memcpy(at + 16, path->target + 12, 4);
    return IP4_SIZE;
}

static size_t mask_ip6(const struct icrc_path *path, size_t length, uint8_t *at)
{
    at[0] = 0x6f; /* version; traffic class and flow label */
    at[1] = at[2] = at[3] = 0xff;
    put16(at + 4, length);
    at[6] = UDP_PROTOCOL;
    at[7] = 0xff; /* hop limit */
    memcpy(at + 8, path->source, 16);
    memcpy(at + 24, path->target, 16);
    return IP6_SIZE;
}

/* What stands before the BTH, masked. */
static size_t mask_path(const struct icrc_path *path, size_t udp_payload, uint16_t id,
                        uint8_t bytes[BEFORE_BTH_MAX])
{
    uint8_t *at = bytes + LRH_SIZE;
    size_t length = UDP_SIZE + udp_payload;

    memset(bytes, 0xff, LRH_SIZE);
    at += icrc_path_is_v4(path) ? mask_ip4(path, length, id, at) : mask_ip6(path, length, at);
    put16(at, path->source_port);
    put16(at + 2, path->target_port);
    put16(at + 4, length);
    at[6] = at[7] = 0xff; /* checksum */
    return (size_t)(at + UDP_SIZE - bytes);
}

uint32_t icrc_begin(const struct icrc_path *path, size_t udp_payload, uint16_t id)
{
    uint8_t bytes[BEFORE_BTH_MAX];

    return icrc_add(0, bytes, mask_path(path, udp_payload, id, bytes));
}

uint32_t icrc_of(const struct icrc_path *path, uint16_t id, const uint8_t *udp_payload, size_t size)
{
    uint8_t bytes[BEFORE_BTH_MAX + AT_ONCE];
    size_t before = mask_path(path, size, id, bytes), covered = size - WIRE_ICRC_SIZE;
    size_t first = covered < AT_ONCE ? covered : AT_ONCE;

    memcpy(bytes + before, udp_payload, first);
    bytes[before + MASKED_IN_BTH] = 0xff;
    uint32_t crc = icrc_add(0, bytes, before + first);
    return covered > first ? icrc_add(crc, udp_payload + first, covered - first) : crc;
}

uint32_t icrc_add(uint32_t crc, const void *bytes, size_t size)
{
    /* ISA-L's prototype misses the const that its function keeps. */
    return crc32_gzip_refl(crc, (unsigned char *)(uintptr_t)bytes, size);
}

uint32_t icrc_add_headers(uint32_t crc, const uint8_t *headers, size_t size)
{
    uint8_t bth[WIRE_BTH_SIZE];

    memcpy(bth, headers, sizeof(bth));
    bth[MASKED_IN_BTH] = 0xff;
    crc = icrc_add(crc, bth, sizeof(bth));
    return size > sizeof(bth) ? icrc_add(crc, headers + sizeof(bth), size - sizeof(bth)) : crc;
}

/* ---- the arithmetic of polynomials modulo the CRC's ---- */

/* a * b, without a branch on either's bits. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;

    for (int i = 0; i < 32; i++) {
        product ^= b & -(a >> 31);
        a <<= 1;
        b = (b >> 1) ^ (POLYNOMIAL & -(b & 1));
    }
    return product;
}

/*
 * x^(-8 * bytes). The polynomial P has the term 1, so x is a unit: x * ((P - 1) / x) = P - 1 = 1
 * modulo P, and P's remaining terms, one place down and with x^31 for x^32, are the inverse of x.
 */
static uint32_t shift_back(uint32_t bytes)
{
    uint32_t power = (POLYNOMIAL << 1) | 1, factor = X0;

    for (int i = 0; i < 3; i++)
        power = multiply(power, power);
    for (; bytes; bytes >>= 1) {
        if (bytes & 1)
            factor = multiply(factor, power);
        power = multiply(power, power);
    }
    return factor;
}

/*
 * The four bytes identification and flags, which the difference of two CRCs says differ: shifted
 * back over all that followed them, themselves included, it is their difference, byte for byte.
 * `id` was a guess, and is put right.
 */
static bool explain(uint32_t difference, size_t bth_on, struct icrc_unshift *unshift, uint16_t *id)
{
    uint32_t bytes = (uint32_t)(IP4_AFTER_ID + bth_on);

    if (unshift->bytes != bytes) {
        unshift->bytes = bytes;
        unshift->factor = shift_back(bytes);
    }
    uint32_t fields = multiply(unshift->factor, difference);
    *id ^= (uint16_t)((fields & 0xff) << 8 | (fields >> 8 & 0xff));
    /* A sender need not set DF; no other flag and no fragment offset can be. */
    return (fields >> 16 & ~DF_HIGH) == 0;
}

bool icrc_judge(const struct icrc_path *path, const uint8_t *udp_payload, size_t size,
                struct icrc_unshift *unshift, uint16_t *id)
{
    uint16_t guess = id ? *id : 0;

    if (size < WIRE_BTH_SIZE + WIRE_ICRC_SIZE)
        return false;
    size_t covered = size - WIRE_ICRC_SIZE;
    uint32_t difference = icrc_of(path, guess, udp_payload, size) ^ icrc_get(udp_payload + covered);
    if (difference == 0)
        return true;
    bool right = icrc_path_is_v4(path) && explain(difference, covered, unshift, &guess);
    if (right && id)
        *id = guess;
    return right;
}
