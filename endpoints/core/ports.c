/* SPDX-License-Identifier: MIT */
/*
 * The table of ports, PORTS_PER_NUMBER entries for each number. An entry counts from the moment its
 * owner word is written, which is last.
 */
#define _GNU_SOURCE
#include "core/ports.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>

#include "core/process.h"
#include "core/shared_table.h"

enum { NUMBERS = 1 << 16 };

enum port_flags { PORT_REUSE = 1, PORT_LISTENS = 2, PORT_V6_ONLY = 4 };

struct port_entry {
    _Atomic uint64_t owner; /* process_name(), 0: free */
    uint8_t address[16];
    uint16_t space;
    uint8_t flags; /* enum port_flags */
    uint8_t pad[5];
};
_Static_assert(sizeof(struct port_entry) == 32, "the layout is shared by all processes");

struct port_table {
    struct port_entry entries[NUMBERS][PORTS_PER_NUMBER];
};

static struct shared_table file = SHARED_TABLE("ports", struct port_table);

/* Good once it was locked. */
static struct port_table *table(void)
{
    return file.map;
}

/* ---- addresses ---- */

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool address_is_mapped(const uint8_t address[16])
{
    return memcmp(address, mapped, sizeof(mapped)) == 0;
}

bool address_is_any(const uint8_t address[16])
{
    static const uint8_t zeroes[16];
    unsigned from = address_is_mapped(address) ? 12 : 0;

    return memcmp(address + from, zeroes, 16 - from) == 0;
}

bool address_serves(const uint8_t bound[16], bool v6_only, const uint8_t address[16])
{
    if (!address_is_any(bound))
        return memcmp(bound, address, 16) == 0;
    bool v4 = address_is_mapped(address);
    return address_is_mapped(bound) ? v4 : !(v4 && v6_only);
}

void ports_after_fork(void)
{
    shared_table_after_fork(&file);
}

/* ---- binding ---- */

static bool is_taken(struct port_entry *entry)
{
    uint64_t owner = atomic_load(&entry->owner);

    if (!owner || process_is_alive(owner))
        return owner;
    atomic_store(&entry->owner, 0);
    return false;
}

/* Could one request be meant for both? */
static bool overlaps(const struct port_entry *entry, const struct port_wish *wish)
{
    return entry->space == wish->space &&
           (address_serves(entry->address, entry->flags & PORT_V6_ONLY, wish->address) ||
            address_serves(wish->address, wish->v6_only, entry->address));
}

static bool conflicts(const struct port_entry *entry, const struct port_wish *wish)
{
    bool both_reuse = wish->reuse && (entry->flags & PORT_REUSE);

    return overlaps(entry, wish) && (!both_reuse || (entry->flags & PORT_LISTENS));
}

/* A free entry of the number if the wish can be granted there. */
static struct port_entry *find_place(const struct port_wish *wish, uint16_t port)
{
    struct port_entry *place = NULL;

    for (unsigned i = 0; i < PORTS_PER_NUMBER; i++) {
        struct port_entry *entry = &table()->entries[port][i];

        if (!is_taken(entry))
            place = place ? place : entry;
        else if (conflicts(entry, wish))
            return NULL;
    }
    return place;
}

static struct port_entry *find_ephemeral(const struct port_wish *wish, uint16_t *port_out)
{
    enum { COUNT = PORTS_EPHEMERAL_LAST - PORTS_EPHEMERAL_FIRST + 1 };
    uint32_t start = 0;

    (void)!getrandom(&start, sizeof(start), 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint16_t port = (uint16_t)(PORTS_EPHEMERAL_FIRST + (start % COUNT + i) % COUNT);
        struct port_entry *place = find_place(wish, port);

        if (place) {
            *port_out = port;
            return place;
        }
    }
    return NULL;
}

static void fill(struct port_entry *entry, const struct port_wish *wish)
{
    memcpy(entry->address, wish->address, 16);
    entry->space = wish->space;
    entry->flags = (uint8_t)((wish->reuse ? PORT_REUSE : 0) | (wish->v6_only ? PORT_V6_ONLY : 0));
    atomic_store(&entry->owner, process_name());
}

int port_bind(const struct port_wish *wish, struct port_binding *binding_out, uint16_t *port_out)
{
    uint16_t port = wish->port;
    int error = shared_table_lock(&file);

    if (error)
        return error;
    struct port_entry *place = port ? find_place(wish, port) : find_ephemeral(wish, &port);
    if (place)
        fill(place, wish);
    shared_table_unlock(&file);
    if (!place)
        return -EADDRINUSE;
    binding_out->entry = (uint32_t)(port * PORTS_PER_NUMBER + (place - table()->entries[port])) + 1;
    *port_out = port;
    return 0;
}

static struct port_entry *entry_of(const struct port_binding *binding)
{
    uint32_t index = binding->entry - 1;

    return &table()->entries[index / PORTS_PER_NUMBER][index % PORTS_PER_NUMBER];
}

int port_listen(struct port_binding *binding)
{
    struct port_entry *own = entry_of(binding);
    struct port_entry *number = table()->entries[(binding->entry - 1) / PORTS_PER_NUMBER];
    struct port_wish wish = {.space = own->space, .v6_only = own->flags & PORT_V6_ONLY};
    int error = shared_table_lock(&file);

    if (error)
        return error;
    memcpy(wish.address, own->address, 16);
    for (unsigned i = 0; i < PORTS_PER_NUMBER && !error; i++) {
        struct port_entry *entry = &number[i];

        if (entry != own && (entry->flags & PORT_LISTENS) && is_taken(entry) &&
            overlaps(entry, &wish))
            error = -EADDRINUSE;
    }
    if (!error)
        own->flags |= PORT_LISTENS;
    shared_table_unlock(&file);
    return error;
}

void port_release(struct port_binding *binding)
{
    if (binding->entry)
        atomic_store(&entry_of(binding)->owner, 0);
    binding->entry = 0;
}

/* ---- finding ---- */

uint64_t port_find(uint16_t space, uint16_t port, const uint8_t address[16])
{
    uint64_t found = 0;
    bool exact = false;

    if (shared_table_lock(&file))
        return 0;
    for (unsigned i = 0; i < PORTS_PER_NUMBER && !exact; i++) {
        struct port_entry *entry = &table()->entries[port][i];

        if (entry->space != space || !(entry->flags & PORT_LISTENS) ||
            !address_serves(entry->address, entry->flags & PORT_V6_ONLY, address) ||
            !is_taken(entry))
            continue;
        exact = !address_is_any(entry->address);
        if (exact || !found)
            found = atomic_load(&entry->owner);
    }
    shared_table_unlock(&file);
    return found;
}
