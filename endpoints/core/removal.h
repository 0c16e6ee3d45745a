/* SPDX-License-Identifier: MIT */
/*
 * NICs that are taken out of the system while programs run (viaduct remove, viaduct add), as an
 * adapter is that is unplugged. One is out as long as there is a file for it in the runtime folder:
 *
 *   RUNTIME_DIR/removed-via0
 *
 * Every process looks when it first opens something, when it lists devices, and when it is told to
 * (SHM_REMOVED). What it has open of the NIC then is dead for good, also if the NIC comes again,
 * but for the contexts that librdmacm opens for itself (uapi/symbols.c).
 */
#ifndef VIADUCT_CORE_REMOVAL_H
#define VIADUCT_CORE_REMOVAL_H

#include <stdbool.h>

#include "core/config.h"

/* Is there such a file now? A system call. Any thread. */
bool removal_is_marked(const char *runtime_dir, const char *name);
/* Make the file or remove it. 0 or negative errno. */
int removal_mark(const char *runtime_dir, const char *name, bool out);

/*
 * core_lock held, these. removal_look(): see which NICs are out, and end what is open of those
 * that were not before: queue pairs fail and flush, contexts get IBV_EVENT_DEVICE_FATAL and have
 * `removed` set, the handler hears of the NIC.
 */
void removal_look(void);
/* As it was when this process last looked. */
bool removal_is_out(const struct nic *nic);
/* Whom to tell besides: the connection manager's identifiers belong to programs. */
void removal_set_handler(void (*handler)(const struct nic *nic));

#endif
