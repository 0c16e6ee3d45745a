/* SPDX-License-Identifier: MIT */
/* This process as one function of the NIC: its slot, its lock, its life (docs/architecture.md). */
#ifndef VIADUCT_CORE_PROCESS_H
#define VIADUCT_CORE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The kernel can't fence our threads for other processes (membarrier): they do it themselves. */
extern bool process_must_fence;

/* This process's slot; 0 before process_open(). */
uint32_t process_slot(void);
/* A path of the runtime directory's socket of a slot, short enough for sun_path. */
void process_socket_path(uint32_t slot, char *out, size_t size);
int process_runtime_dirfd(void);

#endif
