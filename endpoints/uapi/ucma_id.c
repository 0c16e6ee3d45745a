/* SPDX-License-Identifier: MIT */
/* Identifiers and multicast memberships of programs, by handle. */
#include <errno.h>
#include <stdlib.h>

#include "core/table.h"
#include "uapi/ucma.h"

/* The stock library keeps its own table of this size. */
enum { HANDLES = 1 << 16 };

TABLE(ids, HANDLES);
TABLE(mcasts, HANDLES);

int ucma_find_any(const struct ucma_file *file, uint32_t handle, struct ucma_id **id_out)
{
    struct ucma_id *id = table_get(&ids, handle);

    if (!id || !(id->cma || id->removed))
        return -ENOENT;
    if (id->file != file)
        return -EINVAL;
    *id_out = id;
    return 0;
}

int ucma_find(const struct ucma_file *file, uint32_t handle, struct ucma_id **id_out)
{
    struct ucma_id *id;
    int error = ucma_find_any(file, handle, &id);

    if (!error && id->removed)
        error = -ENXIO;
    if (!error)
        *id_out = id;
    return error;
}

/* As the kernel's ucma does: the event, then all but the identifier's number and its events. */
void ucma_nic_removed(const struct nic *nic)
{
    static const struct cma_event event = {.type = CMA_DEVICE_REMOVAL};

    for (uint32_t handle = 1; handle < ids.high; handle++) {
        struct ucma_id *id = table_get(&ids, handle);

        if (!id || !id->cma || id->cma->nic != nic)
            continue;
        if (id->uid)
            ucma_post(id, NULL, NULL, &event);
        cma_destroy(id->cma);
        id->cma = NULL;
        id->removed = true;
    }
}

struct ucma_id *ucma_id_new(struct ucma_file *file, uint64_t uid)
{
    struct ucma_id *id = calloc(1, sizeof(*id));

    if (!id)
        return NULL;
    id->handle = table_take(&ids);
    if (!id->handle) {
        free(id);
        return NULL;
    }
    id->file = file;
    id->uid = uid;
    table_set(&ids, id->handle, id);
    return id;
}

void ucma_id_free(struct ucma_id *id)
{
    ucma_withdraw(id, NULL);
    while (id->mcasts)
        ucma_mcast_free(id->mcasts);
    if (id->cma)
        cma_destroy(id->cma);
    table_release(&ids, id->handle);
    free(id);
}

void ucma_close_all(struct ucma_file *file)
{
    for (uint32_t handle = 1; handle < ids.high; handle++) {
        struct ucma_id *id = table_get(&ids, handle);

        if (id && id->file == file)
            ucma_id_free(id);
    }
}

void ucma_ids_after_fork(void)
{
    table_clear(&ids);
    table_clear(&mcasts);
}

/* ---- multicast ---- */

struct ucma_mcast *ucma_mcast_new(struct ucma_id *id, uint64_t uid)
{
    struct ucma_mcast *mcast = calloc(1, sizeof(*mcast));

    if (!mcast)
        return NULL;
    mcast->handle = table_take(&mcasts);
    if (!mcast->handle) {
        free(mcast);
        return NULL;
    }
    mcast->id = id;
    mcast->uid = uid;
    mcast->next = id->mcasts;
    id->mcasts = mcast;
    table_set(&mcasts, mcast->handle, mcast);
    return mcast;
}

int ucma_mcast_find(const struct ucma_file *file, uint32_t handle, struct ucma_mcast **mcast_out)
{
    struct ucma_mcast *mcast = table_get(&mcasts, handle);

    if (!mcast)
        return -ENOENT;
    if (mcast->id->file != file)
        return -EINVAL;
    *mcast_out = mcast;
    return 0;
}

void ucma_mcast_free(struct ucma_mcast *mcast)
{
    struct ucma_mcast **at = &mcast->id->mcasts;

    ucma_withdraw(mcast->id, mcast);
    while (*at != mcast)
        at = &(*at)->next;
    *at = mcast->next;
    table_release(&mcasts, mcast->handle);
    free(mcast);
}
