/* SPDX-License-Identifier: MIT */
/*
 * Packets that come in, made worse on purpose (VIADUCT_FAULTS): lost, doubled, out of order, with a
 * bit flipped, late. Between the sockets and roce_dispatch(); under the receive lock.
 */
#include <stdlib.h>
#include <string.h>

#include "core/process.h"
#include "link/roce/roce_impl.h"

enum { HELD_MAX = 8192, REORDER_NS = 100000 };

/* A packet that is late; in the order of their times. */
struct held {
    struct held *next;
    uint64_t due_ns;
    struct roce_from from;
    size_t size;
    uint8_t bytes[];
};

static struct held *first;
static unsigned held_count;
static uint64_t random_state;

/* Repeatable: the same for the n-th packet of a process's life, given its slot. */
static uint32_t random_next(void)
{
    if (!random_state)
        random_state = (config_get()->faults.seed + 1) * 0x9e3779b97f4a7c15ull ^ process_slot();
    random_state += 0x9e3779b97f4a7c15ull;
    uint64_t mixed = (random_state ^ random_state >> 30) * 0xbf58476d1ce4e5b9ull;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebull;
    return (uint32_t)(mixed >> 32);
}

static bool happens(uint32_t rate)
{
    return rate && random_next() <= rate;
}

static void hold(const struct roce_from *from, const uint8_t *bytes, size_t size, uint64_t due)
{
    struct held *held = held_count < HELD_MAX ? malloc(sizeof(*held) + size) : NULL;
    struct held **at = &first;

    if (!held)
        return; /* a queue that overflows loses packets, too */
    held->due_ns = due;
    held->from = *from;
    held->size = size;
    memcpy(held->bytes, bytes, size);
    while (*at && (*at)->due_ns <= due)
        at = &(*at)->next;
    held->next = *at;
    *at = held;
    held_count++;
    roce_due_at(due);
}

static void pass(const struct roce_from *from, const uint8_t *bytes, size_t size)
{
    const struct config_faults *faults = &config_get()->faults;
    uint64_t delay = faults->delay_ns;

    if (happens(faults->reorder))
        delay += REORDER_NS;
    if (delay)
        hold(from, bytes, size, from->now_ns + delay);
    else
        roce_dispatch(from, bytes, size);
}

static void spoil(uint8_t *bytes, size_t size)
{
    uint32_t bit = random_next() % (uint32_t)(size * 8);

    bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
}

/*
 * The kernel has compared the UDP checksum before a real flipped bit comes here, and finds each;
 * an ICRC of which the identification is unknown finds nearly each, and does not cover all bits.
 */
static bool escapes(const struct roce_from *from, const uint8_t *bytes, size_t size)
{
    struct icrc_unshift none = {0};
    uint16_t id = from->id;

    return icrc_judge(&from->icrc, bytes, size, &none, &id);
}

void faults_receive(const struct roce_from *from, uint8_t *bytes, size_t size)
{
    const struct config_faults *faults = &config_get()->faults;

    if (steer_is_probe(from->port, bytes, size) || happens(faults->loss))
        return;
    if (happens(faults->duplicate))
        pass(from, bytes, size);
    if (happens(faults->corrupt)) {
        spoil(bytes, size);
        if (escapes(from, bytes, size))
            return;
    }
    pass(from, bytes, size);
}

uint64_t faults_deliver(uint64_t now_ns)
{
    while (first && first->due_ns <= now_ns) {
        struct held *held = first;

        first = held->next;
        held_count--;
        held->from.now_ns = now_ns;
        roce_dispatch(&held->from, held->bytes, held->size);
        free(held);
    }
    return first ? first->due_ns : TRANSPORT_NEVER;
}

void faults_after_fork(void)
{
    while (first) {
        struct held *next = first->next;

        free(first);
        first = next;
    }
    held_count = 0;
    random_state = 0;
}
