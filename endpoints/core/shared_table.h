/* SPDX-License-Identifier: MIT */
/*
 * A table in the runtime directory that all processes of the user map and change: a sparse file,
 * zero at first. Changes are made under flock(), which the kernel lets go of when a process dies.
 * All functions are called with core_lock() held, after process_open().
 */
#ifndef VIADUCT_CORE_SHARED_TABLE_H
#define VIADUCT_CORE_SHARED_TABLE_H

#include <stddef.h>

struct shared_table {
    const char *name;
    size_t size;
    void *map; /* NULL until the first lock */
    int fd;
};

#define SHARED_TABLE(file_name, type)                                                              \
    {                                                                                              \
        .name = (file_name), .size = sizeof(type), .fd = -1                                        \
    }

/*
 * Mapped, and ours alone. -EAGAIN: it was locked for a second, its holder must be stopped; or what
 * opening the file says.
 */
int shared_table_lock(struct shared_table *table);
void shared_table_unlock(struct shared_table *table);
/* The child of a fork lets go of it. */
void shared_table_after_fork(struct shared_table *table);

#endif
