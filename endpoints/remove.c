/* SPDX-License-Identifier: MIT */
/* viaduct_remove() and viaduct_add(): a NIC goes, or comes again, for all processes of the user. */
#include <errno.h>
#include <string.h>

#include "core/config.h"
#include "core/removal.h"
#include "link/shm/look.h"
#include "viaduct.h"

static bool is_configured(const struct config *config, const char *nic)
{
    for (unsigned i = 0; i < config->nic_count; i++)
        if (strcmp(config->nics[i].name, nic) == 0)
            return true;
    return false;
}

static int change(const char *nic, bool out)
{
    const struct config *config = config_get();

    if (!config)
        return -EINVAL;
    if (!is_configured(config, nic))
        return -ENODEV;
    if (removal_is_marked(config->runtime_dir, nic) == out)
        return out ? -ENODEV : -EEXIST;
    int error = removal_mark(config->runtime_dir, nic, out);
    return error ? error : look_tell_all(config->runtime_dir);
}

__attribute__((visibility("default"))) int viaduct_remove(const char *nic)
{
    return change(nic, true);
}

__attribute__((visibility("default"))) int viaduct_add(const char *nic)
{
    return change(nic, false);
}
