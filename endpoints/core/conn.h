/* SPDX-License-Identifier: MIT */
/*
 * Where the connection manager's machine (engine/cm.h) meets the link and the clock. core_lock is
 * held in all of these.
 */
#ifndef VIADUCT_CORE_CONN_H
#define VIADUCT_CORE_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The link: a datagram came from the process so named (core/process.h). */
void conn_receive(uint64_t from, const void *bytes, size_t len);
/* The wire: from an address, which stands for `via`, to one of ours. */
void conn_receive_wire(uint64_t via, const uint8_t own[16], const uint8_t peer[16],
                       const void *bytes, size_t len);
/* Which of the processes behind an address such a datagram is for: its slot. */
uint32_t conn_slot_of(const void *bytes, size_t len, const uint8_t own[16]);
/* The link: that process is gone. */
void conn_lost(uint64_t name);
/* The wire: nobody is there for this datagram, which we sent. */
void conn_refused(uint64_t via, const void *bytes, size_t len);
/* The wire: the peer that has this queue pair is gone. */
void conn_lost_peer(uint64_t via, uint32_t qpn);
/* Connections may be asked for here, or be under way. */
bool conn_is_used(void);
/* The engine thread: what fell due. */
void conn_progress(void);
void conn_after_fork(void);

#endif
