/* SPDX-License-Identifier: MIT */
/*
 * Looking at processes from outside: whoever is of the same user may ask each for its arena, which
 * it can then read (core/pub.h). The asker needs no slot and no device. As with any peer's arena,
 * every index and offset is to be checked.
 */
#ifndef VIADUCT_LINK_SHM_LOOK_H
#define VIADUCT_LINK_SHM_LOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/pub.h"

struct look {
    uint32_t slot;
    int pid;
    int fd;            /* its connection while it has not answered, else -1 */
    bool own;          /* this process itself */
    bool answered;
    const char *arena; /* NULL: it lives and does not answer: it may be stopped */
    uint64_t size;
};

struct look_list {
    unsigned count;
    struct look looks[LIMIT_SLOTS];
};

/*
 * Everybody who lives. NULL: no memory, or the directory can't be read (errno). Half a second at
 * most.
 */
struct look_list *look_all(const char *runtime_dir);
void look_free(struct look_list *list);

/*
 * Tell everybody who lives that NICs went or came (core/removal.h). Returns how many have seen to
 * it, or negative errno. Half a second at most.
 */
int look_tell_all(const char *runtime_dir);

static inline const struct pub_header *look_header(const struct look *look)
{
    return (const void *)look->arena;
}

/* Queue pairs are numbered 1 .. look_qps() - 1; a type of 0 means that there is none. */
uint32_t look_qps(const struct look *look);
static inline const struct pub_qp *look_qp(const struct look *look, uint32_t index)
{
    return (const struct pub_qp *)(const void *)(look->arena + PUB_QPS_OFFSET) + index;
}

/* What is posted to its receive queue and not taken; taken: by the one initiator. 0: not known. */
uint32_t look_posted(const struct look *look, const struct pub_qp *qp, uint32_t taken);

#endif
