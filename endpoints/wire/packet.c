/* SPDX-License-Identifier: MIT */
/* Opcodes and headers of RoCEv2 packets. */
#include "wire/packet.h"

#include <string.h>

enum {
    FIRST = WIRE_IS_FIRST | WIRE_HAS_PAYLOAD | WIRE_IS_VALID,
    MIDDLE = WIRE_IS_MIDDLE | WIRE_HAS_PAYLOAD | WIRE_IS_VALID,
    LAST = WIRE_IS_LAST | WIRE_HAS_PAYLOAD | WIRE_IS_VALID,
    ONLY = FIRST | LAST,
    ALONE = WIRE_IS_FIRST | WIRE_IS_LAST | WIRE_IS_VALID, /* one packet, no payload */
    SENT = WIRE_IS_SEND,
    WRITTEN = WIRE_IS_WRITE,
    ANSWER = WIRE_IS_RESPONSE,
};

struct operation {
    const char *name;
    unsigned traits;
};

/* IBTA table 38, for the reliable connection; the other services have some of these. */
static const struct operation operations[32] = {
    [WIRE_SEND_FIRST] = {"SEND First", FIRST | SENT},
    [WIRE_SEND_MIDDLE] = {"SEND Middle", MIDDLE | SENT},
    [WIRE_SEND_LAST] = {"SEND Last", LAST | SENT},
    [WIRE_SEND_LAST_IMM] = {"SEND Last Immediate", LAST | SENT | WIRE_HAS_IMM},
    [WIRE_SEND_ONLY] = {"SEND Only", ONLY | SENT},
    [WIRE_SEND_ONLY_IMM] = {"SEND Only Immediate", ONLY | SENT | WIRE_HAS_IMM},
    [WIRE_WRITE_FIRST] = {"RDMA WRITE First", FIRST | WRITTEN | WIRE_HAS_RETH},
    [WIRE_WRITE_MIDDLE] = {"RDMA WRITE Middle", MIDDLE | WRITTEN},
    [WIRE_WRITE_LAST] = {"RDMA WRITE Last", LAST | WRITTEN},
    [WIRE_WRITE_LAST_IMM] = {"RDMA WRITE Last Immediate", LAST | WRITTEN | WIRE_HAS_IMM},
    [WIRE_WRITE_ONLY] = {"RDMA WRITE Only", ONLY | WRITTEN | WIRE_HAS_RETH},
    [WIRE_WRITE_ONLY_IMM] = {"RDMA WRITE Only Immediate",
                             ONLY | WRITTEN | WIRE_HAS_RETH | WIRE_HAS_IMM},
    [WIRE_READ_REQUEST] = {"RDMA READ Request", ALONE | WIRE_HAS_RETH},
    [WIRE_READ_FIRST] = {"RDMA READ Response First", FIRST | ANSWER | WIRE_HAS_AETH},
    [WIRE_READ_MIDDLE] = {"RDMA READ Response Middle", MIDDLE | ANSWER},
    [WIRE_READ_LAST] = {"RDMA READ Response Last", LAST | ANSWER | WIRE_HAS_AETH},
    [WIRE_READ_ONLY] = {"RDMA READ Response Only", ONLY | ANSWER | WIRE_HAS_AETH},
    [WIRE_ACK] = {"Acknowledge", ALONE | ANSWER | WIRE_HAS_AETH},
    [WIRE_ATOMIC_ACK] = {"ATOMIC Acknowledge",
                         ALONE | ANSWER | WIRE_HAS_AETH | WIRE_HAS_ATOMIC_ACK},
    [WIRE_COMPARE_SWAP] = {"CmpSwap", ALONE | WIRE_HAS_ATOMIC},
    [WIRE_FETCH_ADD] = {"FetchAdd", ALONE | WIRE_HAS_ATOMIC},
    [WIRE_SEND_LAST_INV] = {"SEND Last Invalidate", LAST | SENT | WIRE_HAS_IETH},
    [WIRE_SEND_ONLY_INV] = {"SEND Only Invalidate", ONLY | SENT | WIRE_HAS_IETH},
};

/* What follows the BTH, in this order: no opcode has two headers in another one. */
static const struct extension {
    unsigned trait;
    uint8_t size;
} extensions[] = {
    {WIRE_HAS_XRCETH, 4}, {WIRE_HAS_DETH, 8},       {WIRE_HAS_RETH, 16}, {WIRE_HAS_ATOMIC, 28},
    {WIRE_HAS_AETH, 4},   {WIRE_HAS_ATOMIC_ACK, 8}, {WIRE_HAS_IMM, 4},   {WIRE_HAS_IETH, 4},
};

#define EXTENSIONS (sizeof(extensions) / sizeof(extensions[0]))

/* Those extensions of an opcode that stand from the i-th on. Most packets have none or one. */
static unsigned next_extension(unsigned traits, unsigned i)
{
    enum {
        ALL = WIRE_HAS_XRCETH | WIRE_HAS_DETH | WIRE_HAS_RETH | WIRE_HAS_ATOMIC | WIRE_HAS_AETH |
              WIRE_HAS_ATOMIC_ACK | WIRE_HAS_IMM | WIRE_HAS_IETH,
    };

    if (!(traits & ALL))
        return EXTENSIONS;
    while (i < EXTENSIONS && !(traits & extensions[i].trait))
        i++;
    return i;
}

/* XRC requests name the shared receive queue; its responses are those of RC. */
static unsigned xrc_traits(unsigned traits)
{
    return traits && !(traits & ANSWER) ? traits | WIRE_HAS_XRCETH : traits;
}

unsigned wire_traits(uint8_t opcode)
{
    unsigned operation = opcode & ~WIRE_SERVICE_MASK;
    unsigned traits = operations[operation].traits;

    if (opcode == WIRE_CNP)
        return WIRE_IS_VALID;
    switch (opcode & WIRE_SERVICE_MASK) {
    case WIRE_RC:
        return traits;
    case WIRE_UC:
        return operation <= WIRE_WRITE_ONLY_IMM ? traits : 0;
    case WIRE_UD:
        return operation == WIRE_SEND_ONLY || operation == WIRE_SEND_ONLY_IMM
                   ? traits | WIRE_HAS_DETH
                   : 0;
    case WIRE_XRC:
        return xrc_traits(traits);
    default:
        return 0;
    }
}

uint8_t wire_message_operation(enum wire_message message, bool first, bool last)
{
    static const struct {
        uint8_t first, middle, last, only;
    } places[] = {
        [WIRE_MESSAGE_SEND] = {WIRE_SEND_FIRST, WIRE_SEND_MIDDLE, WIRE_SEND_LAST, WIRE_SEND_ONLY},
        [WIRE_MESSAGE_SEND_IMM] = {WIRE_SEND_FIRST, WIRE_SEND_MIDDLE, WIRE_SEND_LAST_IMM,
                                   WIRE_SEND_ONLY_IMM},
        [WIRE_MESSAGE_SEND_INV] = {WIRE_SEND_FIRST, WIRE_SEND_MIDDLE, WIRE_SEND_LAST_INV,
                                   WIRE_SEND_ONLY_INV},
        [WIRE_MESSAGE_WRITE] = {WIRE_WRITE_FIRST, WIRE_WRITE_MIDDLE, WIRE_WRITE_LAST,
                                WIRE_WRITE_ONLY},
        [WIRE_MESSAGE_WRITE_IMM] = {WIRE_WRITE_FIRST, WIRE_WRITE_MIDDLE, WIRE_WRITE_LAST_IMM,
                                    WIRE_WRITE_ONLY_IMM},
        [WIRE_MESSAGE_READ_ANSWER] = {WIRE_READ_FIRST, WIRE_READ_MIDDLE, WIRE_READ_LAST,
                                      WIRE_READ_ONLY},
    };

    if (first)
        return last ? places[message].only : places[message].first;
    return last ? places[message].last : places[message].middle;
}

const char *wire_opcode_name(uint8_t opcode)
{
    if (!wire_traits(opcode))
        return "none";
    return opcode == WIRE_CNP ? "CNP" : operations[opcode & ~WIRE_SERVICE_MASK].name;
}

static size_t headers_size(unsigned traits)
{
    size_t size = WIRE_BTH_SIZE;

    for (unsigned i = 0; (i = next_extension(traits, i)) < EXTENSIONS; i++)
        size += extensions[i].size;
    return size;
}

size_t wire_headers_size(uint8_t opcode)
{
    unsigned traits = wire_traits(opcode);

    return traits ? headers_size(traits) : 0;
}

/* ---- big-endian fields ---- */

static uint32_t get24(const uint8_t *at)
{
    return (uint32_t)at[0] << 16 | (uint32_t)at[1] << 8 | at[2];
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | get24(at + 1);
}

static uint64_t get64(const uint8_t *at)
{
    return (uint64_t)get32(at) << 32 | get32(at + 4);
}

static void put24(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 16);
    at[1] = (uint8_t)(value >> 8);
    at[2] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    put24(at + 1, value);
}

static void put64(uint8_t *at, uint64_t value)
{
    put32(at, (uint32_t)(value >> 32));
    put32(at + 4, (uint32_t)value);
}

/* ---- parse ---- */

static void parse_bth(const uint8_t *at, struct wire_packet *out)
{
    out->opcode = at[0];
    out->solicited = at[1] & 0x80;
    out->migrated = at[1] & 0x40;
    out->pkey = (uint16_t)(at[2] << 8 | at[3]);
    out->fecn = at[4] & 0x80;
    out->becn = at[4] & 0x40;
    out->dest_qpn = get24(at + 5);
    out->ack_request = at[8] & 0x80;
    out->psn = get24(at + 9);
}

static void parse_reth(const uint8_t *at, struct wire_packet *out)
{
    out->va = get64(at);
    out->rkey = get32(at + 8);
    out->dma_length = get32(at + 12);
}

static void parse_atomic(const uint8_t *at, struct wire_packet *out)
{
    out->va = get64(at);
    out->rkey = get32(at + 8);
    out->swap_add = get64(at + 12);
    out->compare = get64(at + 20);
}

static void parse_extension(unsigned trait, const uint8_t *at, struct wire_packet *out)
{
    switch (trait) {
    case WIRE_HAS_XRCETH:
        out->xrc_srqn = get24(at + 1);
        break;
    case WIRE_HAS_DETH:
        out->qkey = get32(at);
        out->src_qpn = get24(at + 5);
        break;
    case WIRE_HAS_RETH:
        parse_reth(at, out);
        break;
    case WIRE_HAS_ATOMIC:
        parse_atomic(at, out);
        break;
    case WIRE_HAS_AETH:
        out->syndrome = at[0];
        out->msn = get24(at + 1);
        break;
    case WIRE_HAS_ATOMIC_ACK:
        out->original = get64(at);
        break;
    case WIRE_HAS_IMM:
        memcpy(&out->imm, at, sizeof(out->imm));
        break;
    default:
        out->invalidate_rkey = get32(at);
        break;
    }
}

/* A CNP's reserved bytes are no payload of anybody's. */
static bool parse_payload(const uint8_t *at, size_t len, unsigned traits, unsigned pad,
                          struct wire_packet *out)
{
    if (out->opcode == WIRE_CNP)
        return len == WIRE_CNP_RESERVED && pad == 0;
    if (len < pad || len - pad > WIRE_PAYLOAD_MAX || len % 4)
        return false;
    out->payload = at;
    out->payload_length = (uint32_t)(len - pad);
    return (traits & WIRE_HAS_PAYLOAD) || len == 0;
}

bool wire_parse(const void *bytes, size_t len, struct wire_packet *out)
{
    const uint8_t *at = bytes;

    wire_clear(out);
    if (len < WIRE_BTH_SIZE + WIRE_ICRC_SIZE || at[1] & 0x0f)
        return false;
    parse_bth(at, out);
    unsigned traits = wire_traits(out->opcode), pad = at[1] >> 4 & 3;
    size_t headers = headers_size(traits);
    if (!traits || len < headers + WIRE_ICRC_SIZE)
        return false;
    const uint8_t *next = at + WIRE_BTH_SIZE;
    for (unsigned i = 0; (i = next_extension(traits, i)) < EXTENSIONS; i++) {
        parse_extension(extensions[i].trait, next, out);
        next += extensions[i].size;
    }
    return parse_payload(next, len - headers - WIRE_ICRC_SIZE, traits, pad, out);
}

/* ---- emit ---- */

static void emit_bth(const struct wire_packet *packet, uint8_t *at)
{
    at[0] = packet->opcode;
    at[1] = (uint8_t)((packet->solicited ? 0x80 : 0) | (packet->migrated ? 0x40 : 0) |
                      wire_pad(packet->payload_length) << 4);
    at[2] = (uint8_t)(packet->pkey >> 8);
    at[3] = (uint8_t)packet->pkey;
    at[4] = (uint8_t)((packet->fecn ? 0x80 : 0) | (packet->becn ? 0x40 : 0));
    put24(at + 5, packet->dest_qpn);
    at[8] = packet->ack_request ? 0x80 : 0;
    put24(at + 9, packet->psn);
}

static void emit_reth(const struct wire_packet *packet, uint8_t *at)
{
    put64(at, packet->va);
    put32(at + 8, packet->rkey);
    put32(at + 12, packet->dma_length);
}

static void emit_atomic(const struct wire_packet *packet, uint8_t *at)
{
    put64(at, packet->va);
    put32(at + 8, packet->rkey);
    put64(at + 12, packet->swap_add);
    put64(at + 20, packet->compare);
}

static void emit_extension(unsigned trait, const struct wire_packet *packet, uint8_t *at)
{
    switch (trait) {
    case WIRE_HAS_XRCETH:
        put32(at, packet->xrc_srqn & 0xffffff);
        break;
    case WIRE_HAS_DETH:
        put32(at, packet->qkey);
        put32(at + 4, packet->src_qpn & 0xffffff);
        break;
    case WIRE_HAS_RETH:
        emit_reth(packet, at);
        break;
    case WIRE_HAS_ATOMIC:
        emit_atomic(packet, at);
        break;
    case WIRE_HAS_AETH:
        put32(at, (uint32_t)packet->syndrome << 24 | (packet->msn & 0xffffff));
        break;
    case WIRE_HAS_ATOMIC_ACK:
        put64(at, packet->original);
        break;
    case WIRE_HAS_IMM:
        memcpy(at, &packet->imm, sizeof(packet->imm));
        break;
    default:
        put32(at, packet->invalidate_rkey);
        break;
    }
}

size_t wire_emit(const struct wire_packet *packet, uint8_t out[WIRE_HEADERS_MAX])
{
    unsigned traits = wire_traits(packet->opcode);
    uint8_t *next = out + WIRE_BTH_SIZE;

    if (!traits)
        return 0;
    emit_bth(packet, out);
    for (unsigned i = 0; (i = next_extension(traits, i)) < EXTENSIONS; i++) {
        emit_extension(extensions[i].trait, packet, next);
        next += extensions[i].size;
    }
    return (size_t)(next - out);
}

/* ---- credits ---- */

uint32_t aeth_credits(uint8_t code)
{
    if (code < 4)
        return code;
    return (code & 1 ? 3u : 2u) << (code / 2 - 1);
}

/* From 4 on codes 2k and 2k + 1 stand for 2^k and one and a half of it. */
uint8_t aeth_credit_code(uint32_t receives)
{
    if (receives < 4)
        return (uint8_t)receives;
    unsigned log = 31u - (unsigned)__builtin_clz(receives),
             code = 2 * log + (receives >> (log - 1) & 1);
    return (uint8_t)(code < AETH_CREDIT_NONE ? code : AETH_CREDIT_NONE - 1);
}
