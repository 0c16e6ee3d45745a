/* SPDX-License-Identifier: MIT */
/* This process as one function of the NIC: its slot, its lock, its life (docs/architecture.md). */
#ifndef VIADUCT_CORE_PROCESS_H
#define VIADUCT_CORE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/limits.h"

/* The kernel can't fence our threads for other processes (membarrier): they do it themselves. */
extern bool process_must_fence;

/* This process's slot; 0 before process_open(). */
uint32_t process_slot(void);
/* A path of the runtime directory's socket of a slot, short enough for sun_path. */
void process_socket_path(uint32_t slot, char *out, size_t size);
int process_runtime_dirfd(void);

/* This life of this process among all of the host; never 0. */
uint64_t process_name(void);
/* The slot of a process so named. */
static inline uint32_t process_name_slot(uint64_t name)
{
    return (uint32_t)name & (LIMIT_SLOTS - 1);
}
/* The name of the process whose arena's header says this. */
static inline uint64_t process_name_of(uint32_t slot, uint64_t generation)
{
    return generation << LIMIT_SLOT_BITS | slot;
}
/* Does the process live? Asks the kernel (files), but for our own. */
bool process_is_alive(uint64_t name);
/* Note, where it outlives us, whether a queue pair of ours is connected and may receive. */
void process_mark_qp(uint32_t index, bool receives);
/* Did the process of its slot, which is gone, die with that queue pair so marked? Asks the kernel.
 */
bool process_left_qp(uint32_t qpn);

/* Does a living process of this host have the slot? Asks the kernel (files), but for our own. */
bool process_slot_is_taken(uint32_t number);

#endif
