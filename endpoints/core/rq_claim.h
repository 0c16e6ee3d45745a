/* SPDX-License-Identifier: MIT */
/*
 * Taking the next receive of a shared ring (pub_rq.claim), by whoever delivers to it: a process
 * that sends to its owner, or its owner for what came over the wire.
 */
#ifndef VIADUCT_CORE_RQ_CLAIM_H
#define VIADUCT_CORE_RQ_CLAIM_H

#include <string.h>

#include "core/state.h"

/* A ring as who takes from it sees it: what is its owner's to change was checked, and copied. */
struct rq_view {
    const struct pub_rq *pub;
    const struct pub_sge *sges;
    const _Atomic uint32_t *slots;
    _Atomic uint64_t *claim;
    uint32_t mask, max_sge;
};

/*
 * Copy first, then claim: once the head has passed it the owner may post over it. False: there is
 * none. *low_out: fewer are left than the limit asks for.
 */
static inline bool rq_claim(const struct rq_view *ring, struct pub_sge *sges_out,
                            uint32_t *slot_out, bool *low_out)
{
    uint64_t head = atomic_load_explicit(ring->claim, memory_order_acquire);
    uint32_t left;

    do {
        uint32_t place = (uint32_t)head & ring->mask;

        left = atomic_load_explicit(&ring->pub->tail, memory_order_acquire) - (uint32_t)head;
        if (left == 0 || left > ring->mask + 1) /* anybody may write to the head */
            return false;
        memcpy(sges_out, &ring->sges[(size_t)place * ring->max_sge],
               ring->max_sge * sizeof(struct pub_sge));
        *slot_out = atomic_load_explicit(&ring->slots[place], memory_order_relaxed);
    } while (!atomic_compare_exchange_weak(ring->claim, &head, head + 1));
    *low_out = left - 1 < atomic_load_explicit(&ring->pub->limit, memory_order_relaxed);
    return true;
}

/* For the owner, who looks once it has seen the busy word free: see link/shm/reclaim.c. */
static inline void rq_note_claim(struct pub_qp *pub, uint32_t ring, uint32_t slot)
{
    atomic_store_explicit(&pub->claim_slot, slot, memory_order_relaxed);
    atomic_store_explicit(&pub->claim_ring, ring, memory_order_relaxed);
}

#endif
