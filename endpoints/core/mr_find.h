/* SPDX-License-Identifier: MIT */
/* What a key opens (IBTA 10.6.3): the rule for every link, in whoever's key table. Data path. */
#ifndef VIADUCT_CORE_MR_FIND_H
#define VIADUCT_CORE_MR_FIND_H

#include "core/pub.h"
#include "core/spin.h"

/* Who asks for what: a queue pair and its protection domain, in the table's process. */
struct mr_ask {
    uint32_t pd, qpn, key;
    unsigned access;
    uint64_t addr, length;
};

/* The owner's virtual address of the range, or 0: the key does not open it. */
static inline uint64_t mr_find(const struct pub_mr *table, const struct mr_ask *ask)
{
    uint32_t index = ask->key >> 8;

    if (index >= LIMIT_MR)
        return 0;
    const struct pub_mr *mr = &table[index];
    if (!ask->key || atomic_load_explicit(&mr->key, memory_order_acquire) != ask->key ||
        mr->pd != ask->pd || (mr->access & ask->access) != ask->access)
        return 0;
    if (mr->qpn && mr->qpn != ask->qpn)
        return 0;
    uint64_t offset = ask->addr - mr->iova;
    if (ask->addr < mr->iova || ask->length > mr->length || offset > mr->length - ask->length)
        return 0;
    uint64_t there = mr->addr + offset;
    /* A window may have been bound anew meanwhile, and what we read be of both. */
    fence(memory_order_acquire);
    return atomic_load_explicit(&mr->key, memory_order_relaxed) == ask->key ? there : 0;
}

#endif
