/* SPDX-License-Identifier: MIT */
/*
 * Killing processes of the NIC at random moments: who takes part.
 *
 *   parent --forks, one a round--> victim   talks to both survivors until a timer kills it
 *      |                              ||
 *      `--forks, once--> survivor 0, 1 ||   talk to it and to each other; account for every
 * request,
 *                            `========'     and must be as good as new after each round
 *
 * They meet on the board, a page they all share. The parent never opens the device.
 */
#ifndef STRESS_KILL_H
#define STRESS_KILL_H

#include <stdatomic.h>

#include "rig.h"

enum { SURVIVORS = 2, SRQ_RECEIVES = 64, UD_RECEIVES = 64, MESSAGE_MAX = 4096, BIG = 1 << 20 };

/* What the victim is doing when it dies. */
enum kill_mode {
    KILL_STARTING, /* opening, creating, connecting */
    KILL_MIXED,    /* everything */
    KILL_SRQ,      /* sends to shared receive queues */
    KILL_UD,       /* datagrams */
    KILL_CONTROL,  /* registering, creating, destroying, while others write to it */
    KILL_IDLE,     /* nothing, others send to it */
    KILL_MODES,
};

/* The connections between a survivor and the victim. */
enum { CONN_PLAIN, CONN_SRQ, CONNS };

/* Each has an area of its own in every memory, as in programs that mean to know what is where. */
enum { CONN_AREA = BIG / CONNS };

struct kill_end {
    struct rig_address conn[CONNS];
    struct rig_address ud;
};

struct kill_board {
    /* parent */
    _Atomic unsigned round; /* counts from 1; 0: not begun; UINT32_MAX: the end */
    _Atomic unsigned mode;
    uint64_t seed;
    _Atomic unsigned reaped; /* the round whose victim is dead and gone */
    int done_pipe[2];
    /* survivors */
    _Atomic unsigned survivor_ready[SURVIVORS], survivor_done[SURVIVORS];
    struct kill_end survivor[SURVIVORS];
    struct rig_address neighbour[SURVIVORS];
    _Atomic unsigned neighbour_ready[SURVIVORS];
    _Atomic uint64_t slowest_ns; /* kill to the last account settled */
    _Atomic unsigned failed;     /* own connections of survivors that the kill broke */
    _Atomic unsigned errors[4];  /* completions: success, flushed, retries exceeded, other */
    /* victim */
    _Atomic unsigned victim_ready, victim_connected;
    struct kill_end victim[SURVIVORS];
    _Atomic uint64_t kill_ns;
};

_Noreturn void kill_survivor(struct kill_board *board, unsigned self);
_Noreturn void kill_victim(struct kill_board *board);

#endif
