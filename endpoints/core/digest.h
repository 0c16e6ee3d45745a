/* SPDX-License-Identifier: MIT */
/* FNV-1a, 64 bits: tells a handful of names and addresses apart; no defence against an enemy. */
#ifndef VIADUCT_CORE_DIGEST_H
#define VIADUCT_CORE_DIGEST_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DIGEST_INIT 0xcbf29ce484222325u

static inline uint64_t digest_bytes(uint64_t digest, const void *data, size_t len)
{
    const uint8_t *bytes = data;

    for (size_t i = 0; i < len; i++)
        digest = (digest ^ bytes[i]) * 0x100000001b3u;
    return digest;
}

/* With its final zero, so that "ab" "c" and "a" "bc" differ. */
static inline uint64_t digest_text(uint64_t digest, const char *text)
{
    return digest_bytes(digest, text, strlen(text) + 1);
}

#endif
