/* SPDX-License-Identifier: MIT */
/* What the machine itself can do. */
#include "floor.h"

#include "clock.h"
#include "cmd.h"
#include "cores.h"
#include "hist.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define WARM_UP 10000u
#define ROUNDS 200000u
#define MEMCPY_NS UINT64_C(100000000)

/* The numbers of the last ball hit, on a line each; two lines apart, against prefetching. */
struct court {
    _Alignas(128) atomic_uint there;
    _Alignas(128) atomic_uint back;
    _Alignas(128) atomic_uint ended;
};

/* Spin until the ball is there; false when the other side has ended. */
static inline bool await(struct court *court, atomic_uint *ball, unsigned number)
{
    while (atomic_load_explicit(ball, memory_order_acquire) != number) {
        if (atomic_load_explicit(&court->ended, memory_order_relaxed))
            return false;
    }
    return true;
}

static void return_balls(void *arg)
{
    struct court *court = arg;

    for (unsigned i = 1; i <= WARM_UP + ROUNDS && await(court, &court->there, i); i++)
        atomic_store_explicit(&court->back, i, memory_order_release);
}

static void serve_balls(struct court *court, struct hist *hist)
{
    uint64_t last = clock_ticks(), now;

    for (unsigned i = 1; i <= WARM_UP + ROUNDS; i++) {
        atomic_store_explicit(&court->there, i, memory_order_release);
        if (!await(court, &court->back, i))
            return;
        now = clock_ticks();
        if (i > WARM_UP)
            hist_add(hist, now - last);
        last = now;
    }
}

static int play(struct court *court, int cpu, int other_cpu, struct hist *hist)
{
    pid_t other = cores_start(other_cpu, return_balls, court);

    if (other < 0)
        return CMD_FAILED;
    cores_pin(cpu);
    serve_balls(court, hist);
    atomic_store(&court->ended, 1);
    waitpid(other, NULL, 0);
    return CMD_OK;
}

int floor_cache_line(int cpu, int other_cpu, double *one_way_ns_out)
{
    struct hist *hist = malloc(sizeof(*hist));
    struct court *court =
        mmap(NULL, sizeof(*court), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int code = CMD_FAILED;

    if (hist != NULL && court != MAP_FAILED) {
        hist_reset(hist);
        code = play(court, cpu, other_cpu, hist);
        *one_way_ns_out = hist_middle(hist) * clock_ns_per_tick() / 2;
    }
    if (court != MAP_FAILED)
        munmap(court, sizeof(*court));
    free(hist);
    return code;
}

int floor_memcpy(size_t size, double *bytes_per_s_out)
{
    size_t rounded = (size + 4095) / 4096 * 4096;
    char *from = aligned_alloc(4096, rounded);
    char *to = aligned_alloc(4096, rounded);
    uint64_t copies = 0, began, ns;
    unsigned chunk = size < 65536 ? 1000 : 1;

    if (from == NULL || to == NULL) {
        complain("no memory for two buffers of %zu bytes", size);
        free(from);
        free(to);
        return CMD_FAILED;
    }
    memset(from, 1, rounded);
    memset(to, 2, rounded);
    began = clock_ns();
    do {
        for (unsigned i = 0; i < chunk; i++) {
            memcpy(to, from, size);
            __asm__ volatile("" : : "r"(to), "r"(from) : "memory"); /* it must really happen */
        }
        copies += chunk;
        ns = clock_ns() - began;
    } while (ns < MEMCPY_NS);
    *bytes_per_s_out = (double)copies * (double)size * 1e9 / (double)ns;
    free(from);
    free(to);
    return CMD_OK;
}
