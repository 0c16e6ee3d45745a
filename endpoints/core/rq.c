/* SPDX-License-Identifier: MIT */
/*
 * Receive rings (core/pub.h, struct pub_rq). An exclusive ring's slots are its ring places; a
 * shared one hands out slots from a stack, because its completions are polled in any order.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/copy.h"
#include "core/state.h"
#include "link/shm/share.h"

/* Claim words: one a cache line, in the memory that peers may write. */
enum { SHARED_RING_MIN = 256, SHARED_RING_GROWTH = 4 };
enum { CLAIM_STRIDE = 64 / sizeof(uint64_t), CLAIMS = SHARE_HEADS_SIZE / 64 };

static uint8_t claim_used[CLAIMS];

static int take_claim(struct rq *rq)
{
    for (uint32_t i = 0; i < CLAIMS; i++) {
        if (claim_used[i])
            continue;
        claim_used[i] = 1;
        rq->claim_index = i * CLAIM_STRIDE;
        rq->claim = (_Atomic uint64_t *)share_words() + rq->claim_index;
        atomic_store(rq->claim, 0);
        return 0;
    }
    return -ENOMEM;
}

void rq_after_fork(void)
{
    memset(claim_used, 0, sizeof(claim_used));
}

static uint32_t round_up_pow2(uint32_t n)
{
    uint32_t size = 1;

    while (size < n)
        size *= 2;
    return size;
}

static int alloc_shared(struct rq *rq, uint32_t ring)
{
    rq->slots_size = ring * sizeof(uint32_t);
    rq->slot_ring = arena_alloc(rq->slots_size);
    rq->free_slots = malloc(ring * sizeof(uint32_t));
    rq->slot_sges = malloc(rq->ring_size);
    rq->slot_states = malloc(ring);
    rq->posted_at = malloc(ring * sizeof(uint32_t));
    if (!rq->slot_ring || !rq->free_slots || !rq->slot_sges || !rq->slot_states || !rq->posted_at)
        return -ENOMEM;
    return take_claim(rq);
}

static void publish(struct rq *rq, uint32_t pd)
{
    rq->pub->mask = rq->mask;
    rq->pub->max_sge = rq->max_sge;
    rq->pub->pd = pd;
    rq->pub->sges = arena_offset(rq->sges);
    rq->pub->slots = rq->slot_ring ? arena_offset(rq->slot_ring) : 0;
    rq->pub->claim = rq->claim ? rq->claim_index + 1 : 0;
}

int rq_init(struct rq *rq, uint32_t max_wr, uint32_t max_sge, uint32_t pd, bool shared)
{
    uint32_t ring = round_up_pow2(max_wr ? max_wr : 1);

    /* An SRQ can be resized: leave room to grow in place. */
    if (shared)
        ring = ring < SHARED_RING_MIN / SHARED_RING_GROWTH ? SHARED_RING_MIN
                                                           : ring * SHARED_RING_GROWTH;

    rq->max_wr = max_wr;
    rq->max_sge = max_sge ? max_sge : 1;
    rq->mask = ring - 1;
    rq->ring_size = (size_t)ring * rq->max_sge * sizeof(struct pub_sge);
    rq->pub = arena_alloc(sizeof(*rq->pub));
    rq->sges = arena_alloc(rq->ring_size);
    rq->wr_ids = malloc(ring * sizeof(uint64_t));
    rq->used = malloc(ring);
    int error = rq->pub && rq->sges && rq->wr_ids && rq->used ? 0 : -ENOMEM;
    if (!error && shared)
        error = alloc_shared(rq, ring);
    if (error) {
        rq_fini(rq);
        return error;
    }
    memset(rq->used, (int)rq->max_sge, ring); /* whatever lies there */
    publish(rq, pd);
    rq_reset(rq);
    return 0;
}

void rq_fini(struct rq *rq)
{
    if (rq->claim)
        claim_used[rq->claim_index / CLAIM_STRIDE] = 0;
    arena_free(rq->pub, sizeof(*rq->pub));
    arena_free(rq->sges, rq->ring_size);
    arena_free(rq->slot_ring, rq->slots_size);
    free(rq->wr_ids);
    free(rq->used);
    free(rq->free_slots);
    free(rq->slot_sges);
    free(rq->slot_states);
    free(rq->posted_at);
    memset(rq, 0, sizeof(*rq));
}

static void reset_shared(struct rq *rq)
{
    atomic_store(rq->claim, 0);
    memset(rq->slot_states, SLOT_FREE, rq->mask + 1);
    rq->free_count = rq->mask + 1;
    for (uint32_t i = 0; i <= rq->mask; i++)
        rq->free_slots[i] = rq->mask - i;
}

/* Nobody reaches the ring (state RESET, or not yet created). */
void rq_reset(struct rq *rq)
{
    spin_lock(&rq->lock);
    rq->tail = 0;
    atomic_store(&rq->done, 0);
    atomic_store(&rq->held, 0);
    atomic_store(&rq->pub->tail, 0);
    if (rq->claim)
        reset_shared(rq);
    spin_unlock(&rq->lock);
}

/* The slot for the next WQE, or false if max_wr are outstanding. */
static bool take_slot(struct rq *rq, uint32_t *slot_out)
{
    if (!rq->claim) {
        /*
         * In this order, and the other in complete_exclusive(): one that the engine thread moves
         * to a spill meanwhile is missed, never counted twice. Twice would refuse a program that
         * posts one for each it has polled.
         */
        uint32_t held = atomic_load_explicit(&rq->held, memory_order_acquire);
        uint32_t used = rq->tail - atomic_load_explicit(&rq->done, memory_order_acquire);

        *slot_out = rq->tail & rq->mask;
        return used + held < rq->max_wr;
    }
    if (rq_outstanding(rq) >= rq->max_wr)
        return false;
    *slot_out = rq->free_slots[--rq->free_count];
    return true;
}

static void write_sges(struct rq *rq, const struct ibv_recv_wr *wr)
{
    struct pub_sge *sges = rq->sges + (size_t)(rq->tail & rq->mask) * rq->max_sge;
    uint8_t *used = &rq->used[rq->tail & rq->mask];
    uint32_t count = (uint32_t)wr->num_sge;

    for (uint32_t i = 0; i < count; i++) {
        sges[i].addr = wr->sg_list[i].addr;
        sges[i].length = wr->sg_list[i].length;
        sges[i].lkey = wr->sg_list[i].lkey;
    }
    /* Only what the place had before: a long WQE is many cache lines, that somebody else reads. */
    for (uint32_t i = count; i < *used; i++)
        sges[i] = (struct pub_sge){0};
    *used = (uint8_t)count;
}

/* Pairs with the initiator's acquire of tail: the WQE must be there before it counts. */
static void push_tail(struct rq *rq)
{
    atomic_store_explicit(&rq->pub->tail, ++rq->tail, memory_order_release);
}

static void push_slot(struct rq *rq, uint32_t slot)
{
    rq->slot_states[slot] = SLOT_POSTED;
    rq->posted_at[slot] = rq->tail;
    atomic_store_explicit(&rq->slot_ring[rq->tail & rq->mask], slot, memory_order_relaxed);
    push_tail(rq);
}

/* rq->lock held. Positive errno. */
int rq_post(struct rq *rq, const struct ibv_recv_wr *wr)
{
    uint32_t slot;

    if (wr->num_sge < 0 || (uint32_t)wr->num_sge > rq->max_sge || !rq->max_wr)
        return EINVAL;
    if (!take_slot(rq, &slot))
        return ENOMEM;
    write_sges(rq, wr);
    rq->wr_ids[slot] = wr->wr_id;
    if (rq->slot_ring) {
        memcpy(rq->slot_sges + (size_t)slot * rq->max_sge,
               rq->sges + (size_t)(rq->tail & rq->mask) * rq->max_sge,
               rq->max_sge * sizeof(struct pub_sge));
        push_slot(rq, slot);
    } else {
        push_tail(rq);
    }
    return 0;
}

static bool complete_exclusive(struct rq *rq, uint32_t slot, bool hold, uint64_t *wr_id_out)
{
    uint32_t done = atomic_load_explicit(&rq->done, memory_order_relaxed);

    if (slot != (done & rq->mask) || done == atomic_load(&rq->pub->tail))
        return false;
    *wr_id_out = rq->wr_ids[slot];
    atomic_store_explicit(&rq->done, done + 1, memory_order_release);
    if (hold)
        atomic_fetch_add(&rq->held, 1);
    return true;
}

/* rq->lock held. Once only, whatever an initiator says. */
static bool free_slot(struct rq *rq, uint32_t slot)
{
    if (rq->slot_states[slot] == SLOT_FREE)
        return false;
    rq->slot_states[slot] = SLOT_FREE;
    rq->free_slots[rq->free_count++] = slot;
    return true;
}

static bool hold_slot(struct rq *rq, uint32_t slot)
{
    if (rq->slot_states[slot] == SLOT_FREE || rq->slot_states[slot] == SLOT_HELD)
        return false;
    rq->slot_states[slot] = SLOT_HELD;
    return true;
}

bool rq_complete(struct rq *rq, uint32_t slot, bool hold, uint64_t *wr_id_out)
{
    if (!rq->claim)
        return complete_exclusive(rq, slot, hold, wr_id_out);
    slot &= rq->mask;
    spin_lock(&rq->lock);
    *wr_id_out = rq->wr_ids[slot];
    bool good = hold ? hold_slot(rq, slot) : free_slot(rq, slot);
    spin_unlock(&rq->lock);
    return good;
}

void rq_release(struct rq *rq, uint32_t slot)
{
    if (!rq->claim) {
        atomic_fetch_sub(&rq->held, 1);
        return;
    }
    spin_lock(&rq->lock);
    free_slot(rq, slot & rq->mask);
    spin_unlock(&rq->lock);
}

/* A shared ring's place is posted anew as soon as it is claimed: there the slot has a copy. */
bool rq_place(struct rq *rq, uint32_t slot, const void *data, uint32_t length)
{
    const struct pub_sge *sges =
        (rq->claim ? rq->slot_sges : rq->sges) + (size_t)(slot & rq->mask) * rq->max_sge;
    const char *from = data;

    for (uint32_t i = 0; i < rq->max_sge && length; i++) {
        uint32_t part = sges[i].length < length ? sges[i].length : length;
        char *to = mr_local(rq->pub->pd, sges[i].lkey, sges[i].addr, part, IBV_ACCESS_LOCAL_WRITE);

        if (!to && part)
            return false;
        copy_any(to, from, part);
        from += part;
        length -= part;
    }
    return length == 0;
}

/* False: nothing is posted; also if a peer has spoilt the head word. */
static bool take_shared(struct rq *rq, uint64_t *wr_id_out)
{
    uint64_t head = atomic_load(rq->claim);
    uint32_t slot;

    do {
        uint32_t left = atomic_load(&rq->pub->tail) - (uint32_t)head;

        if (left == 0 || left > rq->mask + 1)
            return false;
        slot = atomic_load(&rq->slot_ring[(uint32_t)head & rq->mask]);
    } while (!atomic_compare_exchange_strong(rq->claim, &head, head + 1));
    return rq_complete(rq, slot, false, wr_id_out);
}

bool rq_take_next(struct rq *rq, uint64_t *wr_id_out)
{
    if (rq->claim)
        return take_shared(rq, wr_id_out);
    return rq_complete(rq, atomic_load(&rq->done) & rq->mask, false, wr_id_out);
}

/* ---- receives that a dead initiator had claimed ---- */

bool rq_suspect(struct rq *rq)
{
    bool any = false;

    spin_lock(&rq->lock);
    uint32_t head = (uint32_t)atomic_load(rq->claim);
    for (uint32_t slot = 0; slot <= rq->mask; slot++) {
        if (rq->slot_states[slot] != SLOT_POSTED || (int32_t)(head - rq->posted_at[slot]) <= 0)
            continue;
        rq->slot_states[slot] = SLOT_SUSPECT;
        any = true;
    }
    spin_unlock(&rq->lock);
    return any;
}

void rq_acquit(struct rq *rq, uint32_t slot)
{
    slot &= rq->mask;
    spin_lock(&rq->lock);
    if (rq->slot_states[slot] == SLOT_SUSPECT)
        rq->slot_states[slot] = SLOT_POSTED;
    spin_unlock(&rq->lock);
}

/* Not `sure`: somebody could not be asked, and nothing is taken from anyone. */
bool rq_reclaim(struct rq *rq, bool sure)
{
    bool any = false;

    spin_lock(&rq->lock);
    for (uint32_t slot = 0; slot <= rq->mask; slot++) {
        if (rq->slot_states[slot] != SLOT_SUSPECT)
            continue;
        any = true;
        rq->slot_states[slot] = SLOT_POSTED;
        if (!sure)
            continue;
        memcpy(rq->sges + (size_t)(rq->tail & rq->mask) * rq->max_sge,
               rq->slot_sges + (size_t)slot * rq->max_sge, rq->max_sge * sizeof(struct pub_sge));
        push_slot(rq, slot);
    }
    spin_unlock(&rq->lock);
    return any;
}
