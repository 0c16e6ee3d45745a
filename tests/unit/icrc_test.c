/* SPDX-License-Identifier: MIT */
/* The invariant CRC: published vectors, and the identification that a receiver can't see. */
#include "wire/icrc.h"

#include "t.h"
#include "wire/packet.h"

/* Two captured packets whose ICRC is known; their first bytes are the BTH. */
static const uint8_t send_only[] = {
    0x24, 0x60, 0xff, 0xff, 0x00, 0x00, 0x00, 0xd3, 0x00, 0xcf, 0x17, 0x10,
    0x46, 0x30, 0x81, 0x8b, 0xe2, 0x89, 0x35, 0xd9, 0x0e, 0x9a, 0x95, 0x50,
    0x54, 0x01, 0xbe, 0x88, 0x5e, 0x50, 0x00, 0x00, 0x78, 0xf3, 0x53, 0xf3,
};
static const struct icrc_path send_only_path = {
    .source = {[10] = 0xff, 0xff, 192, 168, 0, 7},
    .target = {[10] = 0xff, 0xff, 192, 168, 0, 7},
    .source_port = 49152,
    .target_port = WIRE_UDP_PORT,
};

static const uint8_t cnp[] = {
    0x81, 0x00, 0xff, 0xff, 0x40, 0x00, 0x01, 0x18, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x82, 0xfd, 0x00, 0x2a,
};
static const struct icrc_path cnp_path = {
    .source = {[10] = 0xff, 0xff, 0x0a, 0x00, 0x11, 0x01},
    .target = {[10] = 0xff, 0xff, 0x0a, 0x00, 0x12, 0x01},
    .source_port = 0,
    .target_port = WIRE_UDP_PORT,
};

T_TEST(icrc, published_vectors)
{
    /* Shows that known packets get the ICRC they were sent with, of which the id is a part. */
    T_EQ(icrc_of(&send_only_path, 1144, send_only, sizeof(send_only)),
         icrc_get(send_only + sizeof(send_only) - WIRE_ICRC_SIZE));
    T_EQ(icrc_of(&cnp_path, 0x718c, cnp, sizeof(cnp)),
         icrc_get(cnp + sizeof(cnp) - WIRE_ICRC_SIZE));
}

T_TEST(icrc, finds_the_identification)
{
    /* Shows that a receiver who does not know the id finds the one that was on the wire. */
    struct icrc_unshift unshift = {0};
    uint16_t id = 0;

    T_ASSERT(icrc_judge(&send_only_path, send_only, sizeof(send_only), &unshift, &id));
    T_EQ(id, 1144);
    T_ASSERT(icrc_judge(&cnp_path, cnp, sizeof(cnp), &unshift, &id));
    T_EQ(id, 0x718c);
}

T_TEST(icrc, in_steps)
{
    /* Shows that headers, payload and pad may be added in pieces. */
    uint32_t crc = icrc_begin(&send_only_path, sizeof(send_only), 1144);

    crc = icrc_add_headers(crc, send_only, WIRE_BTH_SIZE);
    crc = icrc_add(crc, send_only + 12, 7);
    crc = icrc_add(crc, send_only + 19, 13);
    T_EQ(crc, 0xf353f378u);
}

/* A packet of random length, addresses and bytes, with its ICRC for this id. */
static size_t make_packet(struct icrc_path *path, bool v4, uint16_t id, uint8_t *bytes)
{
    size_t size = 16 + t_rand_below(WIRE_PAYLOAD_MAX + 40) / 4 * 4;

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)t_rand();
    for (unsigned i = 0; i < 16; i++) {
        path->source[i] = v4 && i < 12 ? (i < 10 ? 0 : 0xff) : (uint8_t)t_rand();
        path->target[i] = v4 && i < 12 ? (i < 10 ? 0 : 0xff) : (uint8_t)t_rand();
    }
    path->source_port = (uint16_t)t_rand();
    path->target_port = WIRE_UDP_PORT;
    icrc_put(bytes + size - WIRE_ICRC_SIZE, icrc_of(path, id, bytes, size));
    return size;
}

T_TEST(icrc, any_packet)
{
    /*
     * Shows, on random packets, that every id is found, that a flipped bit is refused where nothing
     * is hidden, and all but always where the id is: one in 2^15 wrong packets has an id that
     * explains it.
     */
    struct icrc_unshift unshift = {0};
    unsigned mistaken = 0;

    for (int round = 0; round < 2000; round++) {
        uint8_t bytes[WIRE_PACKET_MAX];
        struct icrc_path path;
        uint16_t id = (uint16_t)t_rand(), found = 0;
        bool v4 = round % 4;
        size_t size = make_packet(&path, v4, id, bytes);

        T_ASSERT(icrc_judge(&path, bytes, size, &unshift, &found));
        T_EQ(found, v4 ? id : 0);
        size_t bit = t_rand_below(size * 8);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        bool right = icrc_judge(&path, bytes, size, &unshift, NULL);
        T_ASSERT(right == (bit / 8 == 4) || (right && v4));
        mistaken += right != (bit / 8 == 4);
    }
    T_ASSERT(mistaken <= 4, "%u", mistaken);
}

T_TEST(icrc, without_df)
{
    /* Shows that a sender may leave DF clear, and that no other flag explains a wrong ICRC. */
    uint8_t bytes[64] = {0};
    struct icrc_path path = send_only_path;
    struct icrc_unshift unshift = {0};
    uint8_t header[] = {
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x45, 0xff, 0,    92,
        0x12, 0x34, 0,    0,    0xff, 17,   0xff, 0xff, 192,  168,  0,    7,
        192,  168,  0,    7,    0xc0, 0,    0x12, 0xb7, 0,    72,   0xff, 0xff,
    };

    for (unsigned high = 0; high < 256; high++) {
        uint16_t id = 0;

        header[14] = (uint8_t)high;
        uint32_t crc = icrc_add(0, header, sizeof(header));
        crc = icrc_add_headers(crc, bytes, sizeof(bytes) - WIRE_ICRC_SIZE);
        icrc_put(bytes + sizeof(bytes) - WIRE_ICRC_SIZE, crc);
        T_EQ(icrc_judge(&path, bytes, sizeof(bytes), &unshift, &id), (high & ~0x40u) == 0);
        T_CHECK_EQ((high & ~0x40u) == 0 ? id : 0x1234, 0x1234);
    }
}

T_TEST(icrc, too_short)
{
    /* Shows that what has no room for a BTH and an ICRC is refused unread. */
    struct icrc_unshift unshift = {0};

    for (size_t size = 0; size < 16; size++)
        T_ASSERT(!icrc_judge(&cnp_path, cnp, size, &unshift, NULL));
}
