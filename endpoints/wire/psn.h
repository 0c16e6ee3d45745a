/* SPDX-License-Identifier: MIT */
/* Packet sequence numbers: 24 bits that wrap (IBTA 9.7.2). Never compared by <. */
#ifndef VIADUCT_WIRE_PSN_H
#define VIADUCT_WIRE_PSN_H

#include <stdbool.h>
#include <stdint.h>

#define PSN_MASK 0xffffffu

static inline uint32_t psn_add(uint32_t psn, uint32_t count)
{
    return (psn + count) & PSN_MASK;
}

/* How far a lies ahead of b: -2^23 .. 2^23 - 1. */
static inline int32_t psn_diff(uint32_t a, uint32_t b)
{
    return (int32_t)((a - b) << 8) >> 8;
}

static inline bool psn_before(uint32_t a, uint32_t b)
{
    return psn_diff(a, b) < 0;
}

#endif
