/* SPDX-License-Identifier: MIT */
/*
 * Hundreds of exchanges of memory that threads, a peer and forks use all the while: no update is
 * lost, no data of anyone else changes.
 */
#include <malloc.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/share_rig.h"

enum { WRITERS = 3, ROUNDS = 300, CELLS = 64, SIZE = 1 << 20 };

/*
 * Cells of a region: each has a plain counter per writer at an odd address, one that all writers
 * and the peer add to, and a page in four nobody touches.
 */
struct arena {
    char *at;
    uint64_t stride;
    uint64_t shift; /* cells do not begin at pages */
};

struct worker {
    _Atomic(struct arena *) *current; /* what to work on; NULL: pause */
    _Atomic unsigned pauses;          /* how often seen that */
    _Atomic uint64_t laps;            /* in this round */
    _Atomic bool stop;
    uint64_t missed; /* times the peer found a cell not shared */
    int number;
    pthread_t thread;
};

static char *cell(const struct arena *arena, int i)
{
    return arena->at + arena->shift + (uint64_t)i * arena->stride;
}

static volatile uint64_t *plain_cell(char *at, int writer)
{
    return (volatile uint64_t *)(void *)(at + 65 + writer * 16);
}

static _Atomic uint64_t *common_cell(char *at)
{
    return (_Atomic uint64_t *)(void *)(at + 40);
}

/* A store as the compiler makes it, at any address. */
__attribute__((no_sanitize("undefined"))) static void bump(volatile uint64_t *counter)
{
    ++*counter;
}

__attribute__((no_sanitize("undefined"))) static uint64_t value(const volatile uint64_t *counter)
{
    return *counter;
}

static void lap(struct worker *worker, const struct arena *arena)
{
    for (int i = 0; i < CELLS; i++) {
        char *at = cell(arena, i);

        if (worker->number < WRITERS) {
            bump(plain_cell(at, worker->number));
            atomic_fetch_add(common_cell(at), 1);
            continue;
        }
        char *other = peer(common_cell(at), 8); /* the peer, on its own mapping */
        if (other)
            atomic_fetch_add((_Atomic uint64_t *)(void *)other, 1);
        else
            worker->missed++;
    }
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    bool paused = false;

    while (!atomic_load(&worker->stop)) {
        struct arena *arena = atomic_load(worker->current);

        if (arena) {
            lap(worker, arena);
            atomic_fetch_add(&worker->laps, 1);
            paused = false;
        } else {
            if (!paused)
                atomic_fetch_add(&worker->pauses, 1);
            paused = true;
            sched_yield();
        }
    }
    return NULL;
}

static void workers_start(struct worker *workers, int count, _Atomic(struct arena *) *current)
{
    for (int i = 0; i < count; i++) {
        workers[i].current = current;
        workers[i].number = i;
        T_EQ(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
        T_UNTIL(atomic_load(&workers[i].pauses) == 1, 20000);
    }
}

static void workers_stop(struct worker *workers, int count)
{
    for (int i = 0; i < count; i++) {
        atomic_store(&workers[i].stop, true);
        pthread_join(workers[i].thread, NULL);
    }
}

/* Memory of several kinds: small pages, transparent huge ones, the heap, over several mappings. */
static void arena_make(struct arena *arena, uint64_t round)
{
    arena->stride = (SIZE - 8192) / CELLS / 64 * 64;
    arena->shift = round % 60 * 64;
    if (round % 4 == 3) {
        arena->at = malloc(SIZE);
        T_ASSERT(arena->at);
        memset(arena->at, 0, SIZE);
        arena->shift += 64 - address(arena->at) % 64;
        return;
    }
    arena->at = pages(SIZE);
    if (round % 4 == 1)
        madvise(arena->at, SIZE, MADV_HUGEPAGE);
    if (round % 4 == 2) /* other flags make other mappings */
        for (int i = 1; i < 8; i += 2)
            T_EQ(madvise(arena->at + i * SIZE / 8, SIZE / 8, MADV_NOHUGEPAGE), 0);
}

static void arena_drop(struct arena *arena, uint64_t round)
{
    forget(arena->at, SIZE);
    if (round % 4 == 3)
        free(arena->at);
    else
        munmap(arena->at, SIZE);
}

/* In some random pieces first, so that exchanged and other pages lie side by side. */
static void share_in_pieces(const struct arena *arena)
{
    for (int i = 0; i < 3; i++) {
        uint64_t from = t_rand_below(SIZE - 1), len = 1 + t_rand_below(SIZE - from);

        T_EQ(share(arena->at + from, len), len);
    }
    T_EQ(share(arena->at, SIZE), SIZE);
}

static void check_counts(const struct arena *arena, struct worker *workers, uint64_t peer_missed)
{
    uint64_t common = 0, laps = 0;

    for (int i = 0; i < CELLS; i++) {
        char *at = cell(arena, i);

        for (int j = 0; j < WRITERS; j++)
            T_ASSERT(value(plain_cell(at, j)) == atomic_load(&workers[j].laps),
                     "writer %d lost an update in cell %d", j, i);
        common += atomic_load(common_cell(at));
    }
    for (int j = 0; j <= WRITERS; j++)
        laps += atomic_load(&workers[j].laps);
    T_EQ(common, laps * CELLS - peer_missed);
}

static void round_of_counters(struct worker *workers, _Atomic(struct arena *) *current,
                              uint64_t round)
{
    struct arena arena;
    unsigned pauses[WRITERS + 1];

    arena_make(&arena, round);
    for (int i = 0; i <= WRITERS; i++) {
        atomic_store(&workers[i].laps, 0);
        pauses[i] = atomic_load(&workers[i].pauses);
    }
    uint64_t missed = workers[WRITERS].missed;
    atomic_store(current, &arena);
    for (int i = 0; i <= WRITERS; i++)
        T_UNTIL(atomic_load(&workers[i].laps) > 0, 20000);
    share_in_pieces(&arena);
    uint64_t before = atomic_load(&workers[WRITERS].laps);
    T_UNTIL(atomic_load(&workers[WRITERS].laps) > before + 1, 20000);
    atomic_store(current, NULL);
    for (int i = 0; i <= WRITERS; i++)
        T_UNTIL(atomic_load(&workers[i].pauses) > pauses[i], 20000);
    check_counts(&arena, workers, workers[WRITERS].missed - missed);
    arena_drop(&arena, round);
    if (round % 16 == 0)
        share_collect();
}

T_TEST(share_stress, counters)
{
    /* Shows that threads and a peer lose no update, however the memory is exchanged under them. */
    static struct worker workers[WRITERS + 1]; /* the last one is the peer */
    _Atomic(struct arena *) current = NULL;
    setup();
    memset(workers, 0, sizeof(workers));
    workers_start(workers, WRITERS + 1, &current);
    for (uint64_t round = 0; round < ROUNDS; round++)
        round_of_counters(workers, &current, round);
    workers_stop(workers, WRITERS + 1);
    t_end();
}

/* ---- forks meanwhile ---- */

struct forker {
    char *constant; /* SIZE bytes of pattern 1 */
    _Atomic bool stop;
    _Atomic int forks, failures;
};

static void *fork_on(void *arg)
{
    struct forker *forker = arg;

    while (!atomic_load(&forker->stop)) {
        int status = -1;
        pid_t child = fork();

        if (child == 0)
            _exit(t_compare(forker->constant, 0, SIZE, 1) == -1 ? 0 : 1);
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
            atomic_fetch_add(&forker->failures, 1);
        atomic_fetch_add(&forker->forks, 1);
    }
    return NULL;
}

T_TEST(share_stress, forks)
{
    /* Shows that children forked in the midst of exchanges see whole data, and do no harm. */
    static struct worker workers[WRITERS + 1];
    static struct forker forker;
    _Atomic(struct arena *) current = NULL;
    pthread_t thread;
    setup();
    memset(workers, 0, sizeof(workers));
    memset(&forker, 0, sizeof(forker));
    forker.constant = pages(SIZE);
    t_fill(forker.constant, 0, SIZE, 1);
    workers_start(workers, WRITERS + 1, &current);
    T_EQ(pthread_create(&thread, NULL, fork_on, &forker), 0);
    for (uint64_t round = 0; round < 40 || atomic_load(&forker.forks) < 20; round++) {
        uint64_t from = t_rand_below(SIZE);

        T_EQ(share(forker.constant + from, SIZE - from), SIZE - from);
        round_of_counters(workers, &current, round);
    }
    atomic_store(&forker.stop, true);
    pthread_join(thread, NULL);
    workers_stop(workers, WRITERS + 1);
    T_EQ(forker.failures, 0);
    T_EQ(t_compare(forker.constant, 0, SIZE, 1), -1);
    drop(forker.constant, SIZE);
    t_end();
}

/* ---- a peer that writes by the kernel ---- */

/* Shared by both processes. */
struct copier {
    _Atomic uint64_t at;   /* where to write, 0: nowhere */
    _Atomic uint32_t busy; /* as the word of a send queue */
    _Atomic bool stop;
    _Atomic uint64_t writes, refused;
    uint64_t last[CELLS];
};

static void copy_one(struct copier *copier, uint64_t at, uint64_t value, int i)
{
    struct iovec here = {&value, sizeof(value)};
    struct iovec there = {(void *)(uintptr_t)(at + (uint64_t)i * (SIZE / CELLS)), sizeof(value)};

    if (process_vm_writev(getppid(), &here, 1, &there, 1, 0) == sizeof(value))
        copier->last[i] = value;
    else
        atomic_fetch_add(&copier->refused, 1);
    atomic_fetch_add(&copier->writes, 1);
}

static void copy_on(struct copier *copier)
{
    for (uint64_t value = 1; !atomic_load(&copier->stop) && getppid() != 1; value++) {
        atomic_store(&copier->busy, 1);
        uint64_t at = atomic_load(&copier->at);
        if (at && !share_is_moving(map))
            copy_one(copier, at, value, (int)(value % CELLS));
        atomic_store(&copier->busy, 0);
    }
}

static void round_of_copies(struct copier *copier)
{
    char *at = pages(SIZE);

    memset(at, 0, SIZE);
    memset(copier->last, 0, sizeof(copier->last));
    uint64_t before = atomic_load(&copier->writes);
    atomic_store(&copier->at, address(at));
    T_UNTIL(atomic_load(&copier->writes) > before + CELLS, 20000);
    for (uint64_t from = 0; from < SIZE; from += SIZE / 4) {
        share_announce(true);
        T_UNTIL(!atomic_load(&copier->busy), 20000);
        T_EQ(share(at + from, SIZE / 4), SIZE / 4);
        share_announce(false);
    }
    before = atomic_load(&copier->writes);
    T_UNTIL(atomic_load(&copier->writes) > before + CELLS, 20000);
    atomic_store(&copier->at, 0);
    T_UNTIL(!atomic_load(&copier->busy), 20000);
    for (int i = 0; i < CELLS; i++)
        T_EQ(*(uint64_t *)(void *)(at + i * (SIZE / CELLS)), copier->last[i]);
    drop(at, SIZE);
}

T_TEST(share_stress, kernel_copies)
{
    /* Shows that a peer that keeps off announced moves loses nothing by process_vm_writev. */
    setup();
    struct copier *copier =
        mmap(NULL, sizeof(*copier), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    T_ASSERT(copier != MAP_FAILED);
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    pid_t child = fork();
    T_ASSERT(child >= 0);
    if (child == 0) {
        copy_on(copier);
        _exit(0);
    }
    for (int round = 0; round < 100; round++)
        round_of_copies(copier);
    atomic_store(&copier->stop, true);
    T_EQ(waitpid(child, NULL, 0), child);
    T_EQ(copier->refused, 0);
    munmap(copier, sizeof(*copier));
    t_end();
}

/* ---- a program's heap ---- */

enum { BLOCKS = 40, STEPS = 6000 };

struct block {
    char *at;
    uint64_t len, seed;
    bool registered;
};

static void block_check(const struct block *block)
{
    T_EQ(t_compare(block->at, 0, block->len, block->seed), -1);
    if (!block->registered)
        return;
    /* A neighbour that went may have taken the bit of a common page along: a peer asks again. */
    T_EQ(share(block->at, block->len), block->len);
    for (uint64_t i = 0; i < block->len; i += block->len / 7 + 1) {
        const char *other = peer(block->at + i, 1);

        T_ASSERT(other && *other == block->at[i]);
    }
}

static void block_register(struct block *block)
{
    T_EQ(share(block->at, block->len), block->len);
    block->registered = true;
}

static void block_deregister(struct block *block)
{
    if (block->registered)
        forget(block->at, block->len);
    block->registered = false;
}

static uint64_t random_len(void)
{
    static const uint64_t bounds[] = {100, 5000, 200000, 2000000};

    return 1 + t_rand_below(bounds[t_rand_below(4)]);
}

static void block_step(struct block *block)
{
    int result;

    block_check(block);
    switch (t_rand_below(4)) {
    case 0:
        block_deregister(block);
        free(block->at);
        block->len = random_len();
        block->at = malloc(block->len);
        break;
    case 1:
        block_deregister(block);
        block->len = random_len();
        block->at = realloc(block->at, block->len);
        break;
    case 2:
        block_register(block);
        return;
    case 3: /* as an allocator does with the pages inside of a free block */
        if (block->len > 3 * PAGE) {
            uint64_t from = (address(block->at) + 2 * PAGE) & ~(PAGE - 1);

            if (!share_madvise((void *)(uintptr_t)from, PAGE, MADV_DONTNEED, &result))
                T_EQ(syscall(SYS_madvise, from, PAGE, MADV_DONTNEED), 0);
            for (uint64_t i = 0; i < PAGE; i++)
                T_ASSERT(((char *)(uintptr_t)from)[i] == 0);
        }
    }
    T_ASSERT(block->at);
    block->seed = t_rand();
    t_fill(block->at, 0, block->len, block->seed);
}

T_TEST(share_stress, heap)
{
    /* Shows that a heap whose blocks come, go, grow and move keeps all of its data. */
    static struct block blocks[BLOCKS];
    setup();
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = (struct block){.len = random_len()};
        blocks[i].at = malloc(blocks[i].len);
        T_ASSERT(blocks[i].at);
        t_fill(blocks[i].at, 0, blocks[i].len, 0);
    }
    for (int step = 0; step < STEPS; step++) {
        block_step(&blocks[t_rand_below(BLOCKS)]);
        if (step % 1000 == 0)
            share_collect();
    }
    for (int i = 0; i < BLOCKS; i++) {
        block_check(&blocks[i]);
        block_deregister(&blocks[i]);
        free(blocks[i].at);
    }
    share_collect();
    t_end();
}
