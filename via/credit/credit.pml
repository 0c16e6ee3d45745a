/* SPDX-License-Identifier: MIT */
/*
 * The protocol of credit.h, for the model checker spin.
 *
 * Two ends with DATA receives for messages and RESERVE for updates each. End 0 always has
 * something more to send; end 1 may at any time fall silent for ever. Receives are posted again
 * in any order and as late as the user likes. All counters go round, as early as their differences
 * allow, so the model is finite, goes on for ever, and every state in which nothing can happen is
 * a deadlock.
 *
 * What is checked:
 *   deadlock     spin's invalid end states
 *   overrun      a message needs a posted receive at the moment it leaves (the wire may be fast)
 *   over-send    nobody sends beyond what the other side remembers to have announced
 *   lost credit  with empty wires, each side knows exactly what the other has announced
 *   livelock     updates never chase each other: between two messages with data there are finitely
 *                many other steps (non-progress cycles, with -DLIVELOCK)
 *
 * MISTAKE=1..4 builds variants that must fail; see below what each does.
 */
#ifndef DATA
#define DATA 2
#endif
#ifndef RESERVE
#define RESERVE 1
#endif
#ifndef MISTAKE
#define MISTAKE 0
#endif
#define MODULUS(kind) ((kind) * RESERVE + (1 - (kind)) * DATA + 2)
#define MINUS(a, b) ((a - b + MODULUS(0)) % MODULUS(0))
#define INC(a, kind) a = (a + 1) % MODULUS(kind)

typedef Count {
    byte sent, limit, arrived, granted, announced
};

typedef End {
    Count count[2]; /* of data, of updates */
    byte missing;   /* what the reserve lacks */
    byte held       /* receives that were taken and not posted again */
};

End end[2];
bool talks[2] = true;

/* Towards end i: kind, data limit, update limit. One longer than what may ever be there. */
chan wire[2] = [DATA + RESERVE + 1] of { bit, byte, byte };

#define OWED MINUS(end[me].count[0].granted, end[me].count[0].announced)
#define KNOWN MINUS(end[me].count[0].announced, end[me].count[0].arrived)
#define DUE (OWED > 0 && OWED >= KNOWN)
#define HAS(kind) (end[me].count[kind].sent != end[me].count[kind].limit)

#define ROOM (len(wire[1 - me]) < DATA + RESERVE - end[1 - me].held)

#if MISTAKE == 1 /* updates have no reserve of their own: they overrun the receives */
#define MAY_UPDATE DUE
#elif MISTAKE == 3
#define MAY_UPDATE (DUE && HAS(1) && ROOM)
#else
#define MAY_UPDATE (DUE && HAS(1))
#endif
#if MISTAKE == 2 /* words leave that can't say that the reserve is free: both wait for ever */
#define MAY_SEND HAS(0)
#elif MISTAKE == 3 /* a sender who does not look at his credits, and helps himself to the reserve */
#define MAY_SEND (end[me].missing == 0 && ROOM)
#else
#define MAY_SEND (HAS(0) && end[me].missing == 0)
#endif

#ifdef LIVELOCK
#define PROGRESS ; progress: skip
#else
#define PROGRESS
#endif

inline announce()
{
    end[me].count[0].announced = end[me].count[0].granted;
    end[me].count[1].announced = end[me].count[1].granted
}

inline send(kind)
{
    assert(ROOM); /* no overrun */
    wire[1 - me]!kind, end[me].count[0].granted, end[me].count[1].granted;
    INC(end[me].count[kind].sent, kind);
    announce()
}

inline arrive()
{
    wire[me]?kind, data_limit, update_limit;
    assert(end[me].count[kind].arrived != end[me].count[kind].announced); /* no over-send */
    INC(end[me].count[kind].arrived, kind);
    end[me].count[0].limit = data_limit;
    end[me].count[1].limit = update_limit;
    end[me].missing = end[me].missing + kind;
    end[me].held++
}

inline post_again()
{
    end[me].held--;
    if
    :: end[me].missing > 0 ->
        end[me].missing--;
        INC(end[me].count[1].granted, 1)
    :: else -> INC(end[me].count[0].granted, 0)
    fi
}

proctype side(byte me)
{
    bit kind;
    byte data_limit, update_limit;

    do
    :: atomic { talks[me] && MAY_SEND -> send(0) } PROGRESS
    :: atomic { MAY_UPDATE -> send(1) }
    :: atomic { nempty(wire[me]) -> arrive() }
    :: atomic { end[me].held > 0 -> post_again() }
    :: me == 1 && talks[1] -> talks[1] = false
#if MISTAKE == 4 /* a return counts as announced although its update could not leave */
    :: atomic { DUE && !HAS(1) -> announce() }
#endif
    od
}

#define AGREE(i, k) (end[i].count[k].limit == end[1 - i].count[k].announced)
#define AGREED (AGREE(0, 0) && AGREE(0, 1) && AGREE(1, 0) && AGREE(1, 1))

/* Asks at any moment. */
active proctype observer()
{
    end_observer: do
    :: atomic { empty(wire[0]) && empty(wire[1]) && !AGREED -> assert(false) } /* a lost credit */
    od
}

init
{
    byte i;

    atomic {
        for (i : 0 .. 1) {
            end[i].count[0].limit = DATA;
            end[i].count[0].granted = DATA;
            end[i].count[0].announced = DATA;
            end[i].count[1].limit = RESERVE;
            end[i].count[1].granted = RESERVE;
            end[i].count[1].announced = RESERVE
        }
        run side(0);
        run side(1)
    }
}
