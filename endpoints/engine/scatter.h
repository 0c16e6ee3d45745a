/* SPDX-License-Identifier: MIT */
/* What arrives, into the program's memory: receives, and the elements of READs and atomics. */
#ifndef VIADUCT_ENGINE_SCATTER_H
#define VIADUCT_ENGINE_SCATTER_H

#include "engine/transport.h"

/* From byte `offset` of all elements together on. False: a local key is bad, or has gone. */
bool scatter(const struct transport_calls *calls, void *owner, const struct transport_sge *sges,
             uint32_t count, uint32_t offset, const uint8_t *from, uint32_t length);

/* What a receive has room for; no message is longer than the result can say. */
uint32_t receive_capacity(const struct transport_recv *recv);

#endif
