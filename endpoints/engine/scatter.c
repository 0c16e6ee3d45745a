/* SPDX-License-Identifier: MIT */
/* Placing bytes in scatter/gather elements. */
#include "engine/scatter.h"

#include <string.h>

bool scatter(const struct transport_calls *calls, void *owner, const struct transport_sge *sges,
             uint32_t count, uint32_t offset, const uint8_t *from, uint32_t length)
{
    for (uint32_t i = 0; i < count && length; i++) {
        const struct transport_sge *sge = &sges[i];

        if (offset >= sge->length) {
            offset -= sge->length;
            continue;
        }
        uint32_t part = sge->length - offset < length ? sge->length - offset : length;
        void *to = calls->local(owner, sge->key, sge->addr + offset, part, true);
        if (!to)
            return false;
        memcpy(to, from, part);
        from += part;
        length -= part;
        offset = 0;
    }
    return true;
}

uint32_t receive_capacity(const struct transport_recv *recv)
{
    uint64_t length = 0;

    for (uint32_t i = 0; i < recv->sge_count; i++)
        length += recv->sges[i].length;
    return length < UINT32_MAX ? (uint32_t)length : UINT32_MAX;
}
