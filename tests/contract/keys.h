/* SPDX-License-Identifier: MIT */
/* Further memory regions and windows at an end, in numbered slots; the side frees what is left. */
#ifndef CONTRACT_KEYS_H
#define CONTRACT_KEYS_H

#include "ends.h"

/* A region over part of the side's own buffer. */
struct reg {
    int slot;
    uint64_t off;
    size_t len;
    int access;
    bool other_pd; /* in a protection domain that no queue pair uses */
    bool has_iova;
    uint64_t iova;
    /* Out: */
    uint32_t lkey, rkey;
    int err;
};

/* Registers; the test fails if that fails. e_try_reg() gives errno instead. */
void e_reg(struct end *e, struct reg *reg);
int e_try_reg(struct end *e, struct reg *reg);
/* The result of ibv_dereg_mr; on success the slot is free. */
int e_dereg(struct end *e, int slot);

enum { MAIN_MR = -1 };

struct bind {
    int q;
    uint64_t id;
    int mw; /* slot of the window */
    int mr; /* slot of the region, or MAIN_MR */
    uint64_t off, len;
    int access;
    unsigned flags;
    uint32_t rkey; /* type 2: the new key. Out: the key that holds after the bind */
    int rc;        /* out: the result of the call */
};

/* Allocates a window; gives its key. */
uint32_t e_mw(struct end *e, int slot, enum ibv_mw_type type);
int e_mw_dealloc(struct end *e, int slot);
/* Posts a bind: ibv_bind_mw for a window of type 1, IBV_WR_BIND_MW for one of type 2. */
void e_try_bind(struct end *e, struct bind *bind);
/* Binds, waits for the completion, and gives the new key. */
uint32_t e_bind(struct end *e, struct bind bind);

#endif
