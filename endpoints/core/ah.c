/* SPDX-License-Identifier: MIT */
/* Address handles: where a datagram goes (IBTA 11.2.2). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/state.h"
#include "core/table.h"

TABLE(ahs, LIMIT_AH);

struct ah *ah_get(uint32_t handle)
{
    return table_get(&ahs, handle);
}

static void fill(struct ah *ah, const struct ibv_ah_attr *attr)
{
    memcpy(ah->dgid, attr->grh.dgid.raw, sizeof(ah->dgid));
    ah->sgid_index = attr->grh.sgid_index;
    ah->traffic_class = attr->grh.traffic_class;
    ah->hop_limit = attr->grh.hop_limit;
    ah->flow_label = attr->grh.flow_label;
    ah->sl = attr->sl;
}

int ah_create(struct pd *pd, const struct ibv_ah_attr *attr, struct ah **ah_out)
{
    if (attr->port_num != 1 || !attr->is_global ||
        attr->grh.sgid_index >= pd->context->nic->gid_count)
        return -EINVAL;
    struct ah *ah = calloc(1, sizeof(*ah));
    if (!ah)
        return -ENOMEM;
    ah->handle = table_take(&ahs);
    if (!ah->handle) {
        free(ah);
        return -ENOMEM;
    }
    fill(ah, attr);
    ah->context = pd->context;
    ah->pd = pd;
    pd->users++;
    table_set(&ahs, ah->handle, ah);
    *ah_out = ah;
    return 0;
}

int ah_destroy(struct ah *ah)
{
    ah->pd->users--;
    table_release(&ahs, ah->handle);
    free(ah);
    return 0;
}

void ah_close_all(struct context *context)
{
    for (uint32_t i = 1; i < ahs.high; i++) {
        struct ah *ah = table_get(&ahs, i);

        if (ah && ah->context == context)
            ah_destroy(ah);
    }
}

void ah_after_fork(void)
{
    table_clear(&ahs);
}
