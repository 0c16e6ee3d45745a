/* SPDX-License-Identifier: MIT */
/*
 * The table of ports: a sparse file, mapped by everybody, PORTS_PER_NUMBER entries for each number.
 * Changes are made under flock(), which the kernel lets go of when a process dies; an entry counts
 * from the moment its owner word is written, which is last.
 */
#define _GNU_SOURCE
#include "core/ports.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "core/own_fd.h"
#include "core/process.h"
#include "core/sys.h"
#include "core/thread.h"

enum { NUMBERS = 1 << 16, PATIENCE_NS = 1000000000, PAUSE_NS = 50000 };

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

static struct port_table *table;
static int table_fd = -1;

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

/* ---- the file ---- */

static int open_table(void)
{
    if (table)
        return 0;
    int fd = sys_openat(process_runtime_dirfd(), "ports", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    void *map =
        ftruncate(fd, sizeof(struct port_table))
            ? MAP_FAILED
            : mmap(NULL, sizeof(struct port_table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        int error = -errno;

        sys_close(fd);
        return error;
    }
    table = map;
    table_fd = own_fd(fd);
    return 0;
}

/* Held for microseconds, unless its holder is stopped: nobody waits for that for ever. */
static int lock_table(void)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    uint64_t until = now_ns() + PATIENCE_NS;
    int error = open_table();

    if (error)
        return error;
    while (flock(table_fd, LOCK_EX | LOCK_NB)) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        if (now_ns() > until)
            return -EAGAIN;
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
    return 0;
}

static void unlock_table(void)
{
    flock(table_fd, LOCK_UN);
}

void ports_after_fork(void)
{
    if (!table)
        return;
    munmap(table, sizeof(*table));
    sys_close(table_fd);
    table = NULL;
    table_fd = -1;
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
        struct port_entry *entry = &table->entries[port][i];

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
    int error = lock_table();

    if (error)
        return error;
    struct port_entry *place = port ? find_place(wish, port) : find_ephemeral(wish, &port);
    if (place)
        fill(place, wish);
    unlock_table();
    if (!place)
        return -EADDRINUSE;
    binding_out->entry = (uint32_t)(port * PORTS_PER_NUMBER + (place - table->entries[port])) + 1;
    *port_out = port;
    return 0;
}

static struct port_entry *entry_of(const struct port_binding *binding)
{
    uint32_t index = binding->entry - 1;

    return &table->entries[index / PORTS_PER_NUMBER][index % PORTS_PER_NUMBER];
}

int port_listen(struct port_binding *binding)
{
    struct port_entry *own = entry_of(binding);
    struct port_entry *number = table->entries[(binding->entry - 1) / PORTS_PER_NUMBER];
    struct port_wish wish = {.space = own->space, .v6_only = own->flags & PORT_V6_ONLY};
    int error = lock_table();

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
    unlock_table();
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

    if (lock_table())
        return 0;
    for (unsigned i = 0; i < PORTS_PER_NUMBER && !exact; i++) {
        struct port_entry *entry = &table->entries[port][i];

        if (entry->space != space || !(entry->flags & PORT_LISTENS) ||
            !address_serves(entry->address, entry->flags & PORT_V6_ONLY, address) ||
            !is_taken(entry))
            continue;
        exact = !address_is_any(entry->address);
        if (exact || !found)
            found = atomic_load(&entry->owner);
    }
    unlock_table();
    return found;
}
