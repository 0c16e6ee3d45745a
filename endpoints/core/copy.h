/* SPDX-License-Identifier: MIT */
/*
 * Copying a few bytes without a call: overlapping loads and stores of fixed sizes, the last byte
 * with the last store.
 */
#ifndef VIADUCT_CORE_COPY_H
#define VIADUCT_CORE_COPY_H

#include <stddef.h>
#include <string.h>

enum { COPY_SMALL_MAX = 32 };

#define COPY_TWO(to, from, size, part)                                                             \
    do {                                                                                           \
        char first_[part], last_[part];                                                            \
                                                                                                   \
        memcpy(first_, (from), (part));                                                            \
        memcpy(last_, (const char *)(from) + (size) - (part), (part));                             \
        memcpy((to), first_, (part));                                                              \
        memcpy((char *)(to) + (size) - (part), last_, (part));                                     \
    } while (0)

/* size <= COPY_SMALL_MAX; the ranges don't overlap. */
static inline void copy_small(void *to, const void *from, size_t size)
{
    if (size == 8) {
        memcpy(to, from, 8);
    } else if (size >= 16) {
        COPY_TWO(to, from, size, 16);
    } else if (size > 8) {
        COPY_TWO(to, from, size, 8);
    } else if (size >= 4) {
        COPY_TWO(to, from, size, 4);
    } else {
        for (size_t i = 0; i < size; i++)
            ((char *)to)[i] = ((const char *)from)[i];
    }
}

static inline void copy_any(void *to, const void *from, size_t size)
{
    if (size <= COPY_SMALL_MAX)
        copy_small(to, from, size);
    else
        memcpy(to, from, size);
}

#endif
