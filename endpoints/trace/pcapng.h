/* SPDX-License-Identifier: MIT */
/*
 * Packet captures in the pcapng format, of raw IP packets with times in nanoseconds: what Wireshark
 * and tshark open. A process writes one file, with two interfaces: what it sends, what it receives.
 */
#ifndef VIADUCT_TRACE_PCAPNG_H
#define VIADUCT_TRACE_PCAPNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/icrc.h"

enum pcapng_direction { PCAPNG_SENT, PCAPNG_RECEIVED };

/*
 * Begin the file, overwriting one that nobody is writing; else ".PID" is put behind its name. 0 or
 * negative errno.
 */
int pcapng_open(const char *path);
bool pcapng_is_open(void);
/*
 * A UDP payload, with the headers it had or will have. Any thread; a packet is one write. What does
 * not fit on the disk is missing from the file.
 */
void pcapng_write(enum pcapng_direction direction, const struct icrc_path *path,
                  uint8_t traffic_class, uint8_t hop_limit, uint16_t id, const uint8_t *payload,
                  size_t size);
/* The child of a fork writes none. */
void pcapng_after_fork(void);

#endif
