/* SPDX-License-Identifier: MIT */
/* Packets of the wire: which opcodes there are, and that parse and emit undo each other. */
#include "wire/packet.h"

#include "t.h"
#include "wire/psn.h"

T_TEST(packet, sizes)
{
    /* Shows the headers of each opcode by their size (IBTA table 38 and A17). */
    static const struct {
        uint8_t opcode;
        size_t size;
    } known[] = {
        {WIRE_RC | WIRE_SEND_FIRST, 12},
        {WIRE_RC | WIRE_SEND_ONLY_IMM, 16},
        {WIRE_RC | WIRE_WRITE_ONLY, 28},
        {WIRE_RC | WIRE_WRITE_ONLY_IMM, 32},
        {WIRE_RC | WIRE_WRITE_LAST_IMM, 16},
        {WIRE_RC | WIRE_READ_REQUEST, 28},
        {WIRE_RC | WIRE_READ_FIRST, 16},
        {WIRE_RC | WIRE_READ_MIDDLE, 12},
        {WIRE_RC | WIRE_ACK, 16},
        {WIRE_RC | WIRE_ATOMIC_ACK, 24},
        {WIRE_RC | WIRE_FETCH_ADD, 40},
        {WIRE_RC | WIRE_SEND_ONLY_INV, 16},
        {WIRE_UC | WIRE_SEND_ONLY, 12},
        {WIRE_UC | WIRE_WRITE_ONLY_IMM, 32},
        {WIRE_UC | WIRE_READ_REQUEST, 0},
        {WIRE_UC | WIRE_ACK, 0},
        {WIRE_UC | WIRE_SEND_ONLY_INV, 0},
        {WIRE_UD | WIRE_SEND_ONLY, 20},
        {WIRE_UD | WIRE_SEND_ONLY_IMM, 24},
        {WIRE_UD | WIRE_SEND_FIRST, 0},
        {WIRE_UD | WIRE_WRITE_ONLY, 0},
        {WIRE_XRC | WIRE_SEND_ONLY, 16},
        {WIRE_XRC | WIRE_FETCH_ADD, 44},
        {WIRE_XRC | WIRE_ACK, 16},
        {WIRE_CNP, 12},
        {0x80, 0},
        {0x15, 0},
        {0x40, 0},
        {0xe0, 0},
        {0x1f, 0},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        T_CHECK(wire_headers_size(known[i].opcode) == known[i].size, "opcode %02x: %zu",
                known[i].opcode, wire_headers_size(known[i].opcode));
    T_STREQ(wire_opcode_name(WIRE_UC | WIRE_WRITE_ONLY), "RDMA WRITE Only");
    T_STREQ(wire_opcode_name(WIRE_CNP), "CNP");
    T_STREQ(wire_opcode_name(0x15), "none");
}

T_TEST(packet, captured_bytes)
{
    /* Shows a captured packet taken apart: UC SEND only with 18 bytes and two of pad. */
    static const uint8_t bytes[] = {
        0x24, 0x60, 0xff, 0xff, 0x00, 0x00, 0x00, 0xd3, 0x00, 0xcf, 0x17, 0x10,
        0x46, 0x30, 0x81, 0x8b, 0xe2, 0x89, 0x35, 0xd9, 0x0e, 0x9a, 0x95, 0x50,
        0x54, 0x01, 0xbe, 0x88, 0x5e, 0x50, 0x00, 0x00, 0x78, 0xf3, 0x53, 0xf3,
    };
    struct wire_packet packet;

    T_ASSERT(wire_parse(bytes, sizeof(bytes), &packet));
    T_EQ(packet.opcode, WIRE_UC | WIRE_SEND_ONLY);
    T_ASSERT(packet.migrated && !packet.solicited && !packet.ack_request);
    T_EQ(packet.pkey, 0xffff);
    T_EQ(packet.dest_qpn, 0xd3);
    T_EQ(packet.psn, 0xcf1710);
    T_EQ(packet.payload_length, 18);
    T_ASSERT(packet.payload == bytes + 12);
}

/* Every field that an opcode has, at random; the others 0. */
static struct wire_packet random_packet(uint8_t opcode, const uint8_t *payload)
{
    unsigned traits = wire_traits(opcode);
    struct wire_packet packet = {
        .opcode = opcode,
        .solicited = t_rand() & 1,
        .migrated = t_rand() & 1,
        .ack_request = t_rand() & 1,
        .fecn = t_rand() & 1,
        .becn = t_rand() & 1,
        .pkey = (uint16_t)t_rand(),
        .dest_qpn = (uint32_t)t_rand() & 0xffffff,
        .psn = (uint32_t)t_rand() & 0xffffff,
        .payload = opcode == WIRE_CNP ? NULL : payload,
        .payload_length =
            traits & WIRE_HAS_PAYLOAD ? (uint32_t)t_rand_below(WIRE_PAYLOAD_MAX + 1) : 0,
    };
    if (traits & (WIRE_HAS_RETH | WIRE_HAS_ATOMIC)) {
        packet.va = t_rand();
        packet.rkey = (uint32_t)t_rand();
    }
    if (traits & WIRE_HAS_RETH)
        packet.dma_length = (uint32_t)t_rand();
    if (traits & WIRE_HAS_ATOMIC) {
        packet.swap_add = t_rand();
        packet.compare = t_rand();
    }
    packet.original = traits & WIRE_HAS_ATOMIC_ACK ? t_rand() : 0;
    packet.syndrome = traits & WIRE_HAS_AETH ? (uint8_t)t_rand() : 0;
    packet.msn = traits & WIRE_HAS_AETH ? (uint32_t)t_rand() & 0xffffff : 0;
    packet.imm = traits & WIRE_HAS_IMM ? (uint32_t)t_rand() : 0;
    packet.invalidate_rkey = traits & WIRE_HAS_IETH ? (uint32_t)t_rand() : 0;
    packet.qkey = traits & WIRE_HAS_DETH ? (uint32_t)t_rand() : 0;
    packet.src_qpn = traits & WIRE_HAS_DETH ? (uint32_t)t_rand() & 0xffffff : 0;
    packet.xrc_srqn = traits & WIRE_HAS_XRCETH ? (uint32_t)t_rand() & 0xffffff : 0;
    return packet;
}

static bool same_packet(const struct wire_packet *a, const struct wire_packet *b)
{
    return a->opcode == b->opcode && a->solicited == b->solicited && a->migrated == b->migrated &&
           a->ack_request == b->ack_request && a->fecn == b->fecn && a->becn == b->becn &&
           a->pkey == b->pkey && a->dest_qpn == b->dest_qpn && a->psn == b->psn && a->va == b->va &&
           a->rkey == b->rkey && a->dma_length == b->dma_length && a->swap_add == b->swap_add &&
           a->compare == b->compare && a->original == b->original && a->syndrome == b->syndrome &&
           a->msn == b->msn && a->imm == b->imm && a->invalidate_rkey == b->invalidate_rkey &&
           a->qkey == b->qkey && a->src_qpn == b->src_qpn && a->xrc_srqn == b->xrc_srqn &&
           a->payload == b->payload && a->payload_length == b->payload_length;
}

T_TEST(packet, there_and_back)
{
    /* Shows, for every opcode, that what was emitted parses to the same, and one byte less not. */
    uint8_t bytes[WIRE_PACKET_MAX + 4] = {0};
    unsigned seen = 0;

    for (unsigned round = 0; round < 256 * 20; round++) {
        uint8_t opcode = (uint8_t)round;
        size_t headers = wire_headers_size(opcode);
        struct wire_packet sent = random_packet(opcode, bytes + headers), got;

        T_EQ(wire_emit(&sent, bytes), headers);
        if (!headers)
            continue;
        size_t rest = opcode == WIRE_CNP ? (size_t)WIRE_CNP_RESERVED
                                         : sent.payload_length + wire_pad(sent.payload_length);
        size_t size = headers + rest + WIRE_ICRC_SIZE;
        T_ASSERT(wire_parse(bytes, size, &got), "opcode %02x", opcode);
        T_ASSERT(same_packet(&sent, &got), "opcode %02x", opcode);
        T_ASSERT(!wire_parse(bytes, size - 1, &got), "opcode %02x", opcode);
        seen++;
    }
    T_EQ(seen, 20 * (23 + 12 + 2 + 23 + 1));
}

T_TEST(packet, refuses)
{
    /* Shows what is no packet: a version, a pad or a payload that can't be. */
    uint8_t bytes[WIRE_PACKET_MAX + 4] = {[0] = WIRE_RC | WIRE_SEND_ONLY, [1] = 0x30};
    struct wire_packet packet;

    T_ASSERT(!wire_parse(bytes, 16, &packet)); /* pad, but nothing to be padded */
    T_ASSERT(wire_parse(bytes, 20, &packet));
    T_EQ(packet.payload_length, 1);
    bytes[1] = 0x01;
    T_ASSERT(!wire_parse(bytes, 20, &packet)); /* transport version 1 */
    bytes[1] = 0;
    T_ASSERT(!wire_parse(bytes, 18, &packet)); /* no multiple of four */
    T_ASSERT(wire_parse(bytes, 12 + 4096 + 4, &packet));
    T_ASSERT(!wire_parse(bytes, 12 + 4100 + 4, &packet));
    bytes[0] = WIRE_RC | WIRE_ACK;
    T_ASSERT(!wire_parse(bytes, 24, &packet)); /* an acknowledgement carries nothing */
}

T_TEST(packet, credits)
{
    /* Shows the credit codes of IBTA table 46, and that encoding rounds down. */
    T_EQ(aeth_credits(0), 0);
    T_EQ(aeth_credits(5), 6);
    T_EQ(aeth_credits(0x0b), 48);
    T_EQ(aeth_credits(0x1e), 32768);
    T_EQ(aeth_credit_code(0), 0);
    T_EQ(aeth_credit_code(5), 4);
    T_EQ(aeth_credit_code(1000000), 0x1e);
    for (uint8_t code = 0; code < AETH_CREDIT_NONE; code++)
        T_EQ(aeth_credit_code(aeth_credits(code)), code);
}

T_TEST(packet, sequence_numbers)
{
    /* Shows 24-bit arithmetic over the wrap. */
    T_EQ(psn_add(0xffffff, 2), 1);
    T_EQ(psn_diff(1, 0xffffff), 2);
    T_EQ(psn_diff(0xffffff, 1), -2);
    T_EQ(psn_diff(0x800000, 0), -0x800000);
    T_ASSERT(psn_before(0xfffff0, 3) && !psn_before(3, 0xfffff0) && !psn_before(3, 3));
}
