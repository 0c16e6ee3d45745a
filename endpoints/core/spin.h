/* SPDX-License-Identifier: MIT */
/*
 * A spin lock for critical sections of some tens of nanoseconds, in one process. Uncontended it is
 * one atomic exchange and one store. A waiter spins a little, then yields: the holder may have been
 * preempted, and there are as few as two cores.
 */
#ifndef VIADUCT_CORE_SPIN_H
#define VIADUCT_CORE_SPIN_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct spin {
    _Atomic uint32_t held;
};

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* ThreadSanitizer knows no fences: it sees a counter that everybody passes by instead. */
static inline void fence(memory_order order)
{
#if defined(__SANITIZE_THREAD__)
    static _Atomic uint32_t turnstile;

    (void)order;
    atomic_fetch_add(&turnstile, 1);
#else
    atomic_thread_fence(order);
#endif
}

static inline bool spin_try_word(_Atomic uint32_t *word)
{
    return atomic_exchange_explicit(word, 1, memory_order_seq_cst) == 0;
}

static inline void spin_lock_word(_Atomic uint32_t *word)
{
    for (unsigned tries = 1; !spin_try_word(word); tries++) {
        while (atomic_load_explicit(word, memory_order_relaxed)) {
            cpu_relax();
            if (++tries % 128 == 0)
                sched_yield();
        }
    }
}

static inline void spin_unlock_word(_Atomic uint32_t *word)
{
    atomic_store_explicit(word, 0, memory_order_release);
}

static inline void spin_lock(struct spin *lock)
{
    spin_lock_word(&lock->held);
}

static inline bool spin_try(struct spin *lock)
{
    return spin_try_word(&lock->held);
}

static inline void spin_unlock(struct spin *lock)
{
    spin_unlock_word(&lock->held);
}

#endif
