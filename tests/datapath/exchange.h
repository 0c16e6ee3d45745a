/* SPDX-License-Identifier: MIT */
/*
 * An exchange: every data path call once, between two processes. Both ends run the same code; each
 * operation ends with a message that the other end waits for, so they take turns:
 *
 *      first:   do(op)  wait(op)  do(op+1) ...
 *      second:          wait(op)  do(op)   wait(op+1) ...
 */
#ifndef DATAPATH_EXCHANGE_H
#define DATAPATH_EXCHANGE_H

#include "ends.h"

/* The queue pairs an end has, each on a side of its own. */
enum link_kind { LINK_RC, LINK_SRQ, LINK_UC, LINK_UD, LINKS };

struct exchange {
    struct side *side[LINKS];
    struct side_info to[LINKS];
    bool first;
    int failed_line; /* of exchange.c, 0: none */
    int status;      /* of a completion that failed, or what a call returned */
};

extern const struct side_opt link_options[LINKS];

enum { OPERATIONS = 10 };

/* Posts the first receives of every queue. */
bool exchange_begin(struct exchange *x);
/* Every operation once, both ways. False: x says what went wrong. No system call, no allocation. */
bool exchange_round(struct exchange *x);
/* Data path calls that one round makes at one end. */
unsigned exchange_calls(void);

#endif
