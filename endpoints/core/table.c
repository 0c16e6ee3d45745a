/* SPDX-License-Identifier: MIT */
/* Index allocation for tables: first-in first-out reuse, so that stale handles stay stale long. */
#include "core/table.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

enum { REUSE_DELAY = 64 };

static uint32_t reuse(struct table *table)
{
    uint32_t index = table->freed[table->freed_head];

    table->freed_head = (table->freed_head + 1) % table->freed_room;
    table->freed_count--;
    return index;
}

uint32_t table_take(struct table *table)
{
    if (table->freed_count > REUSE_DELAY)
        return reuse(table);
    if (table->high < table->size)
        return table->high++;
    return table->freed_count ? reuse(table) : 0;
}

static bool grow_freed(struct table *table)
{
    uint32_t room = table->freed_room ? 2 * table->freed_room : 256;
    uint32_t *freed = malloc(room * sizeof(*freed));

    if (!freed)
        return false;
    for (uint32_t i = 0; i < table->freed_count; i++)
        freed[i] = table->freed[(table->freed_head + i) % table->freed_room];
    free(table->freed);
    table->freed = freed;
    table->freed_head = 0;
    table->freed_room = room;
    return true;
}

void table_release(struct table *table, uint32_t index)
{
    assert(index > 0 && index < table->high);
    table_set(table, index, NULL);
    /* Out of memory costs the index for the rest of the process's life, nothing else. */
    if (table->freed_count == table->freed_room && !grow_freed(table))
        return;
    table->freed[(table->freed_head + table->freed_count) % table->freed_room] = index;
    table->freed_count++;
}

void table_clear(struct table *table)
{
    for (uint32_t i = 0; i < table->high; i++)
        table_set(table, i, NULL);
}
