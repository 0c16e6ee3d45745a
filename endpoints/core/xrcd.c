/* SPDX-License-Identifier: MIT */
/* XRC domains (xrcd.h): objects of this process, and the table where all processes' meet. */
#define _GNU_SOURCE
#include "core/xrcd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "core/limits.h"
#include "core/process.h"
#include "core/shared_table.h"
#include "core/sys.h"
#include "core/table.h"

enum { ENTRIES = 4096 };

/* One that is open somewhere. Entries of one domain have its number. */
struct entry {
    uint64_t owner; /* process_name(), 0: free */
    uint64_t device, inode, guid;
    uint32_t number;
    uint32_t named; /* by a file: others may open it */
};

struct entries {
    uint32_t last_number;
    struct entry entries[ENTRIES];
};

TABLE(xrcds, LIMIT_XRCD);
static struct shared_table file = SHARED_TABLE("xrcds", struct entries);

struct xrcd *xrcd_get(uint32_t handle)
{
    return table_get(&xrcds, handle);
}

/* ---- the table of all processes ---- */

static bool is_taken(struct entry *entry)
{
    if (entry->owner && !process_is_alive(entry->owner))
        entry->owner = 0;
    return entry->owner;
}

static bool is_same(const struct entry *a, const struct entry *b)
{
    return a->named && b->named && a->device == b->device && a->inode == b->inode &&
           a->guid == b->guid;
}

static uint32_t new_number(struct entries *all)
{
    all->last_number += all->last_number == UINT32_MAX ? 2 : 1;
    return all->last_number;
}

/* The table is locked. The entry's index, or negative errno. */
static int enter(struct entries *all, struct entry *wish, int oflags)
{
    int place = -ENOMEM;

    for (int i = 0; i < ENTRIES; i++) {
        struct entry *entry = &all->entries[i];

        if (!is_taken(entry))
            place = place < 0 ? i : place;
        else if (is_same(entry, wish))
            wish->number = entry->number;
    }
    if (wish->named && !wish->number && !(oflags & O_CREAT))
        return -EAGAIN;
    if (wish->number && (oflags & O_EXCL))
        return -EINVAL;
    if (place < 0)
        return place;
    if (!wish->number)
        wish->number = new_number(all);
    all->entries[place] = *wish;
    return place;
}

static int name_by_file(struct entry *wish, int fd)
{
    struct stat stat;

    if (fd == -1)
        return 0;
    if (sys_fstat(fd, &stat))
        return -errno;
    wish->device = stat.st_dev;
    wish->inode = stat.st_ino;
    wish->named = 1;
    return 0;
}

static int join(struct xrcd *xrcd, int fd, int oflags)
{
    struct entry wish = {.owner = process_name(), .guid = xrcd->context->nic->guid};
    int error = name_by_file(&wish, fd);

    if (!error)
        error = shared_table_lock(&file);
    if (error)
        return error;
    int place = enter(file.map, &wish, oflags);
    shared_table_unlock(&file);
    if (place < 0)
        return place;
    xrcd->entry = (uint32_t)place;
    xrcd->number = wish.number;
    return 0;
}

/* A table that can't be locked keeps the entry until this process ends. */
static void leave(const struct xrcd *xrcd)
{
    if (shared_table_lock(&file))
        return;
    ((struct entries *)file.map)->entries[xrcd->entry].owner = 0;
    shared_table_unlock(&file);
}

/* ---- objects ---- */

int xrcd_open(struct context *context, int fd, int oflags, struct xrcd **xrcd_out)
{
    struct xrcd *xrcd = calloc(1, sizeof(*xrcd));

    if (!xrcd)
        return -ENOMEM;
    xrcd->context = context;
    xrcd->handle = table_take(&xrcds);
    int error = xrcd->handle ? join(xrcd, fd, oflags) : -ENOMEM;
    if (error) {
        if (xrcd->handle)
            table_release(&xrcds, xrcd->handle);
        free(xrcd);
        return error;
    }
    table_set(&xrcds, xrcd->handle, xrcd);
    *xrcd_out = xrcd;
    return 0;
}

int xrcd_close(struct xrcd *xrcd)
{
    if (xrcd->users)
        return -EBUSY;
    leave(xrcd);
    table_release(&xrcds, xrcd->handle);
    free(xrcd);
    return 0;
}

void xrcd_close_all(struct context *context)
{
    for (uint32_t i = 1; i < xrcds.high; i++) {
        struct xrcd *xrcd = xrcd_get(i);

        if (xrcd && xrcd->context == context)
            xrcd_close(xrcd);
    }
}

void xrcd_after_fork(void)
{
    table_clear(&xrcds);
    shared_table_after_fork(&file);
}
