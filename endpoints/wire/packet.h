/* SPDX-License-Identifier: MIT */
/*
 * What a RoCEv2 packet is: opcodes, headers, parse and emit (IBTA 9.2 to 9.5, annex A17).
 *
 *   UDP payload:  BTH 12 | extended headers, as the opcode says | payload | pad 0..3 | ICRC 4
 *
 * Pure functions: no I/O, no clock, no allocation, nothing remembered. Parsing trusts nothing; what
 * only a queue pair can judge (order of opcodes, lengths against the path MTU) is the engine's.
 * The ICRC is a matter of its own, because it covers the IP and UDP headers too (icrc.h).
 */
#ifndef VIADUCT_WIRE_PACKET_H
#define VIADUCT_WIRE_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WIRE_UDP_PORT 4791

enum {
    WIRE_BTH_SIZE = 12,
    WIRE_ICRC_SIZE = 4,
    WIRE_HEADERS_MAX = 52,   /* BTH, XRCETH, DETH ... : no opcode has more */
    WIRE_PAYLOAD_MAX = 4096, /* the largest path MTU */
    WIRE_PACKET_MAX = WIRE_HEADERS_MAX + WIRE_PAYLOAD_MAX + WIRE_ICRC_SIZE,
    WIRE_CNP_RESERVED = 16, /* bytes behind a CNP's BTH */
};

#define WIRE_QPN_GSI 1u
#define WIRE_QPN_MULTICAST 0xffffffu
#define WIRE_QKEY_GSI 0x80010000u

/* The service in an opcode's upper three bits. A CNP's opcode is a whole one. */
enum wire_service {
    WIRE_RC = 0x00,
    WIRE_UC = 0x20,
    WIRE_UD = 0x60,
    WIRE_XRC = 0xa0,
    WIRE_CNP = 0x81,
};

#define WIRE_SERVICE_MASK 0xe0u

/* The operation in the lower five. */
enum wire_operation {
    WIRE_SEND_FIRST = 0x00,
    WIRE_SEND_MIDDLE = 0x01,
    WIRE_SEND_LAST = 0x02,
    WIRE_SEND_LAST_IMM = 0x03,
    WIRE_SEND_ONLY = 0x04,
    WIRE_SEND_ONLY_IMM = 0x05,
    WIRE_WRITE_FIRST = 0x06,
    WIRE_WRITE_MIDDLE = 0x07,
    WIRE_WRITE_LAST = 0x08,
    WIRE_WRITE_LAST_IMM = 0x09,
    WIRE_WRITE_ONLY = 0x0a,
    WIRE_WRITE_ONLY_IMM = 0x0b,
    WIRE_READ_REQUEST = 0x0c,
    WIRE_READ_FIRST = 0x0d, /* response */
    WIRE_READ_MIDDLE = 0x0e,
    WIRE_READ_LAST = 0x0f,
    WIRE_READ_ONLY = 0x10,
    WIRE_ACK = 0x11,
    WIRE_ATOMIC_ACK = 0x12,
    WIRE_COMPARE_SWAP = 0x13,
    WIRE_FETCH_ADD = 0x14,
    WIRE_SEND_LAST_INV = 0x16,
    WIRE_SEND_ONLY_INV = 0x17,
};

/* Messages of one packet or several. */
enum wire_message {
    WIRE_MESSAGE_SEND,
    WIRE_MESSAGE_SEND_IMM,
    WIRE_MESSAGE_SEND_INV,
    WIRE_MESSAGE_WRITE,
    WIRE_MESSAGE_WRITE_IMM,
    WIRE_MESSAGE_READ_ANSWER,
};

/* The operation of a message's packet, by its place in it. */
uint8_t wire_message_operation(enum wire_message message, bool first, bool last);

/* What an opcode has and is. */
enum wire_traits {
    WIRE_HAS_RETH = 1 << 0,
    WIRE_HAS_AETH = 1 << 1,
    WIRE_HAS_ATOMIC = 1 << 2,
    WIRE_HAS_ATOMIC_ACK = 1 << 3,
    WIRE_HAS_IMM = 1 << 4,
    WIRE_HAS_IETH = 1 << 5,
    WIRE_HAS_DETH = 1 << 6,
    WIRE_HAS_XRCETH = 1 << 7,
    WIRE_HAS_PAYLOAD = 1 << 8,
    WIRE_IS_FIRST = 1 << 9, /* begins a message or a response; an only is first and last */
    WIRE_IS_LAST = 1 << 10,
    WIRE_IS_MIDDLE = 1 << 11,
    WIRE_IS_SEND = 1 << 12,
    WIRE_IS_WRITE = 1 << 13,
    WIRE_IS_RESPONSE = 1 << 14, /* goes to the requester */
    WIRE_IS_VALID = 1 << 15,    /* every opcode there is */
};

/* 0: no such opcode. */
unsigned wire_traits(uint8_t opcode);
const char *wire_opcode_name(uint8_t opcode);
/* BTH and extended headers, in bytes; 0: no such opcode. */
size_t wire_headers_size(uint8_t opcode);

/*
 * A packet's headers, in host byte order; `imm` is as the program gave it (struct ibv_wc.imm_data).
 * Fields of headers that the opcode does not have are 0 after parsing, and ignored in emitting.
 */
struct wire_packet {
    uint8_t opcode;
    bool solicited, migrated, ack_request, fecn, becn;
    uint16_t pkey;
    uint32_t dest_qpn, psn;
    uint64_t va; /* RETH, AtomicETH */
    uint32_t rkey;
    uint32_t dma_length;        /* RETH */
    uint64_t swap_add, compare; /* AtomicETH */
    uint64_t original;          /* AtomicAckETH */
    uint8_t syndrome;           /* AETH */
    uint32_t msn;               /* AETH */
    uint32_t imm;               /* ImmDt, network order */
    uint32_t invalidate_rkey;   /* IETH */
    uint32_t qkey, src_qpn;     /* DETH */
    uint32_t xrc_srqn;          /* XRCETH */
    const uint8_t *payload;     /* in the bytes that were parsed */
    uint32_t payload_length;    /* without pad */
};

/* All zero. In two goes: for the whole compilers take an instruction that is slow to begin. */
static inline void wire_clear(struct wire_packet *packet)
{
    enum { HALF = sizeof(struct wire_packet) / 2 };
    uint8_t *at = (uint8_t *)packet;

    memset(at, 0, HALF);
    memset(at + HALF, 0, sizeof(*packet) - HALF);
}

/*
 * Take a UDP payload apart, the ICRC's four bytes at its end included. False: it is no packet: too
 * short for what its opcode says, an opcode or transport version there is not, a payload where none
 * belongs or one over 4096 bytes.
 */
bool wire_parse(const void *bytes, size_t len, struct wire_packet *out);

/*
 * Write BTH and extended headers; the pad count is made from payload_length. Returns their size,
 * 0 if there is no such opcode. Payload, pad and ICRC follow by whoever sends.
 */
size_t wire_emit(const struct wire_packet *packet, uint8_t out[WIRE_HEADERS_MAX]);

static inline uint32_t wire_pad(uint32_t payload_length)
{
    return -payload_length & 3u;
}

/* ---- the AETH's syndrome (IBTA 9.7.5.1, tables 45 and 46) ---- */
enum {
    AETH_ACK = 0x00, /* | credit code */
    AETH_RNR = 0x20, /* | timer code */
    AETH_NAK = 0x60, /* | enum aeth_nak */
    AETH_TYPE_MASK = 0xe0,
    AETH_VALUE_MASK = 0x1f,
    AETH_CREDIT_NONE = 0x1f, /* no end-to-end flow control */
};

enum aeth_nak {
    NAK_SEQUENCE,
    NAK_INVALID_REQUEST,
    NAK_REMOTE_ACCESS,
    NAK_REMOTE_OPERATIONAL,
    NAK_INVALID_RD,
};

/* Receives that a credit code stands for: 0, 1, 2, 3, 4, 6, 8, 12 ... 32768. Code below 0x1f. */
uint32_t aeth_credits(uint8_t code);
/* The largest code that grants no more than there are. */
uint8_t aeth_credit_code(uint32_t receives);

/* IBTA 10.9.1.1: the same partition, and not two limited members. */
static inline bool wire_pkey_matches(uint16_t a, uint16_t b)
{
    return ((a ^ b) & 0x7fff) == 0 && ((a | b) & 0x8000);
}

#endif
