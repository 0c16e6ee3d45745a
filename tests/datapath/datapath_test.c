/* SPDX-License-Identifier: MIT */
/*
 * The data path between two processes: no system call, no allocation, once it is warm. Warm is when
 * connections and lanes are made and pages are shared; that goes on in the background, so both ends
 * exchange until a whole batch was quiet, and then must stay so.
 */
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "exchange.h"
#include "watch.h"

enum { BATCH = 200, BATCHES_WARM = 500, ROUNDS = 4000, SPOILED_ROUND = 2000 };

/* What is done in the middle of the measured rounds to see that it would be found. */
enum spoil { SPOIL_NOT, SPOIL_CALL, SPOIL_ALLOCATION };

struct drive {
    bool first;
    enum spoil spoil; /* at the first end */
    /* results */
    bool unwatched, warm;
    unsigned calls, allocations;
    int number;
    int failed_line, status;
};

struct opening {
    struct side_info info[LINKS];
};

static void open_links(struct side *s, void *arg)
{
    struct opening *opening = arg;
    struct exchange *x = calloc(1, sizeof(*x));

    T_ASSERT(x != NULL);
    s->extra[0] = x;
    for (int i = 0; i < LINKS; i++) {
        x->side[i] = side_open(&link_options[i], s);
        opening->info[i] = x->side[i]->info;
    }
}

static void connect_links(struct side *s, void *arg)
{
    struct exchange *x = s->extra[0];
    struct opening *theirs = arg;

    for (int i = 0; i < LINKS; i++) {
        x->to[i] = theirs->info[i];
        side_connect(x->side[i], 0, &x->to[i], 0);
    }
    T_ASSERT(exchange_begin(x), "line %d: %d", x->failed_line, x->status);
}

static void close_links(struct side *s, void *arg)
{
    struct exchange *x = s->extra[0];

    (void)arg;
    for (int i = 0; i < LINKS; i++)
        side_close(x->side[i], true);
    free(x);
}

/* ---- the watched thread ---- */

struct section {
    struct exchange *x;
    struct drive *drive;
};

/* Both ends must agree that they are warm: the word lies in the buffer, and travels by op_write. */
static bool say(struct exchange *x, bool quiet)
{
    volatile uint8_t *mine = x->side[LINK_RC]->buf + 2100, *theirs = x->side[LINK_RC]->buf + 10192;

    *mine = quiet;
    if (!exchange_round(x))
        return false;
    return *mine && *theirs;
}

static bool warm_up(struct exchange *x, struct watch_counts *counts)
{
    for (int batch = 0; batch < BATCHES_WARM; batch++) {
        unsigned before = atomic_load(&counts->calls) + atomic_load(&counts->allocations);

        for (int i = 0; i < BATCH && !x->failed_line; i++)
            exchange_round(x);
        if (say(x, before == atomic_load(&counts->calls) + atomic_load(&counts->allocations)))
            return true;
        if (x->failed_line)
            return false;
    }
    return false;
}

static void spoil(enum spoil how)
{
    void *volatile memory;

    if (how == SPOIL_CALL)
        syscall(SYS_getpid);
    if (how == SPOIL_ALLOCATION) {
        memory = malloc(10);
        free(memory);
    }
}

static void section(void *arg, struct watch_counts *counts)
{
    struct drive *drive = ((struct section *)arg)->drive;
    struct exchange *x = ((struct section *)arg)->x;

    drive->warm = warm_up(x, counts);
    if (!drive->warm)
        return;
    unsigned calls = atomic_load(&counts->calls);
    unsigned allocations = atomic_load(&counts->allocations);
    for (int i = 0; i < ROUNDS && exchange_round(x); i++) {
        if (i == SPOILED_ROUND && drive->first)
            spoil(drive->spoil);
    }
    drive->calls = atomic_load(&counts->calls) - calls;
    drive->allocations = atomic_load(&counts->allocations) - allocations;
    drive->number =
        atomic_load(&counts->numbers[(atomic_load(&counts->calls) - 1) % WATCH_NUMBERS]);
}

static void drive_end(struct side *s, void *arg)
{
    struct drive *drive = arg;
    struct exchange *x = s->extra[0];
    struct section what = {x, drive};
    struct watch_counts counts = {0};

    x->first = drive->first;
    drive->unwatched = !watch_run(section, &what, &counts);
    drive->failed_line = x->failed_line;
    drive->status = x->status;
}

/* ---- the tests ---- */

static void open_pair(struct pair *p)
{
    struct opening a, b;

    e_run(p->a, open_links, &a, sizeof(a));
    e_run(p->b, open_links, &b, sizeof(b));
    e_run(p->a, connect_links, &b, sizeof(b));
    e_run(p->b, connect_links, &a, sizeof(a));
}

static void run_pair(enum spoil how, struct drive *a, struct drive *b)
{
    struct pair *p = pair_open(TWO_PROCESSES, &(struct side_opt){.qps = ZERO});

    open_pair(p);
    *a = (struct drive){.first = true, .spoil = how};
    *b = (struct drive){.first = false};
    e_begin(p->b, drive_end, b, sizeof(*b));
    e_run(p->a, drive_end, a, sizeof(*a));
    e_finish(p->b);
    if (a->unwatched || b->unwatched)
        T_SKIP("no seccomp notifications here");
    T_EQ(a->failed_line, 0);
    T_EQ(b->failed_line, 0);
    T_ASSERT(a->warm && b->warm, "%d batches, and none was quiet", BATCHES_WARM);
    e_run(p->a, close_links, NULL, 0);
    e_run(p->b, close_links, NULL, 0);
    pair_close(p);
}

T_TEST(datapath, no_system_call_and_no_allocation)
{
    /* Over a hundred thousand calls of every kind, at both ends. */
    struct drive a, b;

    T_ASSERT(exchange_calls() * ROUNDS >= 100000);
    run_pair(SPOIL_NOT, &a, &b);
    T_CHECK(a.calls == 0, "%u system calls, number %d", a.calls, a.number);
    T_CHECK(b.calls == 0, "%u system calls, number %d", b.calls, b.number);
    T_CHECK_EQ(a.allocations, 0);
    T_CHECK_EQ(b.allocations, 0);
}

T_TEST(datapath, a_system_call_is_found)
{
    /* One getpid() in the middle of all this does not escape. */
    struct drive a, b;

    run_pair(SPOIL_CALL, &a, &b);
    T_EQ(a.calls, 1);
    T_EQ(a.number, SYS_getpid);
    T_EQ(b.calls, 0);
}

T_TEST(datapath, an_allocation_is_found)
{
    /* Nor does one malloc() with its free(). */
    struct drive a, b;

    run_pair(SPOIL_ALLOCATION, &a, &b);
    T_EQ(a.allocations, 2);
    T_EQ(b.allocations, 0);
}
