/* SPDX-License-Identifier: MIT */
/*
 * The arena: this process's shared memory (core/pub.h), and a small allocator for its heap.
 * All of it is called with core_lock() held; pointers stay good until the process ends.
 */
#ifndef VIADUCT_CORE_ARENA_H
#define VIADUCT_CORE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "core/pub.h"

struct share_map;

extern char *arena_base;    /* NULL before arena_open() */
extern uint64_t arena_size; /* PUB_ARENA_MAX, or less where the program's limits are narrow */

/* Creates and maps the memfd. -ENOMEM, -EFBIG: a limit on address space or file size is too low. */
int arena_open(void);
void arena_close(void);
int arena_fd(void); /* for peers: it can be mapped read-only, never writable */
/*
 * The child of a fork: the arena is its parent's, and not mapped here. Zeroes take its place, so
 * that a stray look by the program finds nothing instead of faulting; the next arena_open() starts
 * anew.
 */
void arena_after_fork(void);

/* Zeroed memory, aligned to its size rounded up to a power of two (at most a page). NULL: full. */
void *arena_alloc(size_t size);
void arena_free(void *memory, size_t size);

static inline uint64_t arena_offset(const void *pointer)
{
    return (uint64_t)((const char *)pointer - arena_base);
}

static inline struct pub_header *arena_header(void)
{
    return (struct pub_header *)(void *)arena_base;
}

static inline struct pub_qp *arena_qp(uint32_t index)
{
    return (struct pub_qp *)(void *)(arena_base + PUB_QPS_OFFSET) + index;
}

static inline struct pub_cq *arena_cq(uint32_t index)
{
    return (struct pub_cq *)(void *)(arena_base + PUB_CQS_OFFSET) + index;
}

static inline struct pub_mr *arena_mr(uint32_t index)
{
    return (struct pub_mr *)(void *)(arena_base + PUB_MRS_OFFSET) + index;
}

static inline struct pub_mcast *arena_mcast(void)
{
    return (struct pub_mcast *)(void *)(arena_base + PUB_MCAST_OFFSET);
}

static inline struct share_map *arena_share(void)
{
    return (struct share_map *)(void *)(arena_base + PUB_SHARE_OFFSET);
}

#endif
