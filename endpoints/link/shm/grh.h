/* SPDX-License-Identifier: MIT */
/* The global routing header in front of a received datagram. Pure: no locks, nothing is kept. */
#ifndef VIADUCT_LINK_SHM_GRH_H
#define VIADUCT_LINK_SHM_GRH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/objects.h"

enum { GRH_BYTES = 40 };

bool gid_is_ipv4(const uint8_t gid[16]);
/* What a receiver of data_bytes of UD payload along ah sees as its GRH. */
void grh_build(uint8_t out[GRH_BYTES], const struct ah *ah, const uint8_t sgid[16],
               uint32_t data_bytes);

#endif
