/* SPDX-License-Identifier: MIT */
/*
 * Multicast membership (IBTA 10.5): a table in the arena, one entry a member. Senders read the
 * tables of all processes; there is no group object.
 */
#include <errno.h>
#include <string.h>

#include "core/arena.h"
#include "core/state.h"
#include "link/link.h"

static bool is_group(const uint8_t gid[16])
{
    static const uint8_t v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    /* an IPv6 multicast address, or an IPv4 one, mapped */
    return gid[0] == 0xff || (!memcmp(gid, v4_prefix, 12) && (gid[12] & 0xf0) == 0xe0);
}

static struct pub_mcast *find(const struct qp *qp, const uint8_t mgid[16])
{
    struct pub_mcast *table = arena_mcast();

    for (uint32_t i = 0; i < PUB_MCAST_COUNT; i++) {
        if (atomic_load(&table[i].used) == qp->qpn && !memcmp(table[i].mgid, mgid, 16))
            return &table[i];
    }
    return NULL;
}

static struct pub_mcast *find_free(const uint8_t mgid[16], uint32_t *members_out)
{
    struct pub_mcast *table = arena_mcast(), *free_entry = NULL;

    *members_out = 0;
    for (uint32_t i = 0; i < PUB_MCAST_COUNT; i++) {
        if (!atomic_load(&table[i].used))
            free_entry = free_entry ? free_entry : &table[i];
        else if (!memcmp(table[i].mgid, mgid, 16))
            ++*members_out;
    }
    return free_entry;
}

int mcast_attach(struct qp *qp, const uint8_t mgid[16])
{
    uint32_t members;

    if (qp->type != IBV_QPT_UD || !is_group(mgid))
        return -EINVAL;
    if (find(qp, mgid))
        return 0;
    struct pub_mcast *entry = find_free(mgid, &members);
    if (!entry || members >= LIMIT_MCAST_QPS)
        return -ENOMEM;
    uint32_t high = (uint32_t)(entry - arena_mcast()) + 1;
    if (atomic_load(&arena_header()->mcast_high) < high)
        atomic_store(&arena_header()->mcast_high, high);
    entry->nic = qp->context->nic->index;
    memcpy(entry->mgid, mgid, 16);
    atomic_store_explicit(&entry->used, qp->qpn, memory_order_release);
    qp->mcast_count++;
    link_join(qp->context->nic, mgid);
    return 0;
}

static void entry_leave(struct qp *qp, struct pub_mcast *entry)
{
    atomic_store(&entry->used, 0);
    qp->mcast_count--;
    link_leave(qp->context->nic, entry->mgid);
}

int mcast_detach(struct qp *qp, const uint8_t mgid[16])
{
    struct pub_mcast *entry = find(qp, mgid);

    if (!entry)
        return -EINVAL;
    entry_leave(qp, entry);
    return 0;
}

void mcast_detach_all(struct qp *qp)
{
    struct pub_mcast *table = arena_mcast();

    for (uint32_t i = 0; qp->mcast_count && i < PUB_MCAST_COUNT; i++) {
        if (atomic_load(&table[i].used) != qp->qpn)
            continue;
        entry_leave(qp, &table[i]);
    }
}
