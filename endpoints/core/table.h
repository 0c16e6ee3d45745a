/* SPDX-License-Identifier: MIT */
/*
 * A table of objects by index: the handle of every verbs object is its index here. A look-up is one
 * load and may run beside changes (data path); changes run under core_lock().
 * Freed indices are reused oldest first and not soon, so that a stale handle meets nothing.
 */
#ifndef VIADUCT_CORE_TABLE_H
#define VIADUCT_CORE_TABLE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct table {
    _Atomic(void *) *slots;
    uint32_t size;   /* indices 1 .. size - 1 */
    uint32_t high;   /* first index never used */
    uint32_t *freed; /* ring of freed indices */
    uint32_t freed_head, freed_count, freed_room;
};

#define TABLE(name, count)                                                                         \
    static _Atomic(void *) name##_slots[count];                                                    \
    static struct table name = {.slots = name##_slots, .size = (count), .high = 1}

/* The new index, or 0 if the table is full (or memory is out). The slot stays empty. */
uint32_t table_take(struct table *table);
void table_release(struct table *table, uint32_t index);

static inline void table_set(struct table *table, uint32_t index, void *object)
{
    atomic_store_explicit(&table->slots[index], object, memory_order_release);
}

static inline void *table_get(const struct table *table, uint32_t index)
{
    if (index >= table->size)
        return NULL;
    return atomic_load_explicit(&table->slots[index], memory_order_acquire);
}

/* Forget every object (the child of a fork). */
void table_clear(struct table *table);

#endif
