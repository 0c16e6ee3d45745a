/* SPDX-License-Identifier: MIT */
/* The heart of the harness: checks, clean-up, time and random numbers. Peers are in t_peer.c. */
#include "t.h"
#include "t_internal.h"

#include <dirent.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { DEFER_MAX = 256, HOLD_KINDS = 16 };

struct deferred {
    void (*fn)(void *);
    void *arg;
};

struct hold {
    const char *kind;
    int count;
};

/* Where a failed check of this thread goes: the test's own frame, or a peer's call. */
static _Thread_local struct t_catch *t_catch;

static struct deferred deferred[DEFER_MAX];
static int deferred_count;
static struct hold holds[HOLD_KINDS];
static char case_name[256];
static char last_message[T_MESSAGE_MAX];
static uint64_t seed;
static uint64_t random_state;

struct t_catch *t_catch_set(struct t_catch *c)
{
    struct t_catch *old = t_catch;

    t_catch = c;
    return old;
}

/* Appends to the running call's message; a very long report is cut, its first lines matter. */
static void append(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void append(const char *format, ...)
{
    size_t used = strlen(t_catch->message);
    va_list args;

    va_start(args, format);
    vsnprintf(t_catch->message + used, sizeof(t_catch->message) - used, format, args);
    va_end(args);
}

static const char *base_name(const char *file)
{
    const char *slash = strrchr(file, '/');

    return slash ? slash + 1 : file;
}

static void report(const char *file, int line, const char *what, const char *format, va_list args)
{
    char text[1024];

    if (!t_catch) {
        fprintf(stderr, "%s:%d: a check outside a test or peer: %s\n", file, line, what);
        abort();
    }
    vsnprintf(text, sizeof(text), format[0] == ' ' ? format + 1 : format, args);
    append("%s%s:%d: %s%s%s", t_catch->message[0] ? "\n    " : "", base_name(file), line,
           what ? what : "", what && text[0] ? ": " : "", text);
    t_catch->failures++;
}

void t_fail(const char *file, int line, const char *what, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    report(file, line, what, format, args);
    va_end(args);
    siglongjmp(t_catch->env, 1);
}

void t_note(const char *file, int line, const char *what, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    report(file, line, what, format, args);
    va_end(args);
}

void t_skip(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(t_catch->message, sizeof(t_catch->message), format[0] == ' ' ? format + 1 : format,
              args);
    va_end(args);
    t_catch->skipped = true;
    siglongjmp(t_catch->env, 1);
}

void t_take_over(const struct t_report *theirs, const char *who)
{
    if (theirs->skipped) {
        t_skip("%s", theirs->message);
    }
    if (theirs->failures > 0) {
        append("%s[%s] %s", t_catch->message[0] ? "\n    " : "", who, theirs->message);
        t_catch->failures += theirs->failures;
    }
    if (theirs->thrown) {
        siglongjmp(t_catch->env, 1);
    }
}

int t_failures(void)
{
    return t_catch ? t_catch->failures : 0;
}

void t_eq(const char *file, int line, bool fatal, const char *what, long long a, long long b)
{
    if (a == b) {
        return;
    }
    if (fatal) {
        t_fail(file, line, what, "%lld (0x%llx) is not %lld (0x%llx)", a, a, b, b);
    }
    t_note(file, line, what, "%lld (0x%llx) is not %lld (0x%llx)", a, a, b, b);
}

void t_in(const char *file, int line, const char *what, long long x, const long long *set,
          size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (x == set[i]) {
            return;
        }
    }
    t_fail(file, line, what, "%lld (0x%llx) is none of the %zu values allowed, first %lld", x, x,
           count, set[0]);
}

void t_streq(const char *file, int line, const char *what, const char *a, const char *b)
{
    if (!a || !b || strcmp(a, b) != 0) {
        t_fail(file, line, what, "\"%s\" is not \"%s\"", a ? a : "(null)", b ? b : "(null)");
    }
}

void t_memeq(const char *file, int line, const char *what, const void *a, const void *b, size_t len)
{
    const uint8_t *x = a, *y = b;

    for (size_t i = 0; i < len; i++) {
        if (x[i] != y[i]) {
            t_fail(file, line, what, "byte %zu of %zu: 0x%02x is not 0x%02x", i, len, x[i], y[i]);
        }
    }
}

/* --- a test's life -------------------------------------------------------------------------- */

void t_defer(void (*fn)(void *), void *arg)
{
    T_ASSERT(deferred_count < DEFER_MAX, "too many clean-ups");
    deferred[deferred_count++] = (struct deferred){fn, arg};
}

static void run_deferred(void)
{
    while (deferred_count > 0) {
        struct deferred *d = &deferred[--deferred_count];
        struct t_catch ignore = {.failures = 0};
        struct t_catch *old = t_catch_set(&ignore);

        /* After a failed test half of the clean-up may be impossible: do what can be done. */
        if (sigsetjmp(ignore.env, 0) == 0) {
            d->fn(d->arg);
        }
        t_catch_set(old);
    }
}

void t_hold(int change, const char *kind)
{
    for (int i = 0; i < HOLD_KINDS; i++) {
        if (!holds[i].kind) {
            holds[i].kind = kind;
        }
        if (strcmp(holds[i].kind, kind) == 0) {
            holds[i].count += change;
            return;
        }
    }
    T_FAIL("too many kinds of things held");
}

void t_end(void)
{
    for (int i = 0; i < HOLD_KINDS && holds[i].kind; i++) {
        T_CHECK(holds[i].count == 0, "%d of kind '%s' left", holds[i].count, holds[i].kind);
    }
}

static void seed_start(void)
{
    const char *env = getenv("VIADUCT_TEST_SEED");
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    seed = env ? strtoull(env, NULL, 0)
               : (uint64_t)now.tv_nsec ^ ((uint64_t)getpid() << 32) ^ (uint64_t)now.tv_sec;
    random_state = seed;
}

enum t_result t_case_run(const char *suite, const char *name, void (*run)(void))
{
    struct t_catch frame = {.failures = 0};
    struct t_catch *old = t_catch_set(&frame);

    snprintf(case_name, sizeof(case_name), "%s/%s", suite, name);
    memset(holds, 0, sizeof(holds));
    seed_start();
    if (sigsetjmp(frame.env, 0) == 0) {
        run();
    }
    run_deferred();
    if (frame.failures > 0) {
        append("\n    (VIADUCT_TEST_SEED=%llu)", (unsigned long long)seed);
    }
    memcpy(last_message, frame.message, sizeof(last_message));
    t_catch_set(old);
    if (frame.skipped && frame.failures == 0) {
        return T_SKIPPED;
    }
    return frame.failures > 0 ? T_FAILED : T_PASSED;
}

const char *t_message(void)
{
    return last_message;
}

const char *t_case_name(void)
{
    return case_name;
}

int t_fd_count(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = -3; /* ".", ".." and the directory's own descriptor */

    T_ASSERT(dir != NULL, "/proc/self/fd: %s", strerror(errno));
    while (readdir(dir)) {
        count++;
    }
    closedir(dir);
    return count;
}

/* --- time ------------------------------------------------------------------------------------- */

int64_t t_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

double t_slow(void)
{
    const char *env = getenv("VIADUCT_TEST_SLOW");
    double factor = env ? strtod(env, NULL) : 1;

    return factor > 0 ? factor : 1;
}

int64_t t_deadline(int ms)
{
    return t_now_ns() + (int64_t)(ms * 1e6 * t_slow());
}

bool t_expired(int64_t deadline_ns)
{
    return t_now_ns() >= deadline_ns;
}

int t_remaining_ms(int64_t deadline_ns)
{
    int64_t left = deadline_ns - t_now_ns();

    return left > 0 ? (int)(left / 1000000) + 1 : 0;
}

void t_relax(void)
{
    sched_yield();
}

bool t_readable(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int64_t deadline = t_deadline(ms);
    int rc;

    do {
        rc = poll(&p, 1, t_remaining_ms(deadline));
    } while (rc < 0 && errno == EINTR);
    T_ASSERT(rc >= 0, "poll: %s", strerror(errno));
    return rc > 0 && (p.revents & POLLIN);
}

/* --- random numbers -----------------------------------------------------------------------------
 */

/* The output step of SplitMix64 (Steele, Lea, Flood 2014): good spread from any state. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t t_seed(void)
{
    return seed;
}

void t_rand_split(uint64_t stream)
{
    random_state = mix(seed + stream);
}

uint64_t t_rand(void)
{
    random_state += UINT64_C(0x9e3779b97f4a7c15);
    return mix(random_state);
}

uint64_t t_rand_below(uint64_t bound)
{
    return t_rand() % bound;
}

/* The eight pattern bytes of word `index`, in memory order. */
static uint64_t pattern(uint64_t pattern_seed, size_t index)
{
    return mix(pattern_seed ^ ((uint64_t)index << 20));
}

void t_fill(void *buf, size_t at, size_t len, uint64_t pattern_seed)
{
    for (size_t i = 0; i < len;) {
        uint64_t word = pattern(pattern_seed, (at + i) / 8);
        size_t from = (at + i) % 8;
        size_t n = 8 - from < len - i ? 8 - from : len - i;

        memcpy((char *)buf + i, (char *)&word + from, n);
        i += n;
    }
}

int64_t t_compare(const void *buf, size_t at, size_t len, uint64_t pattern_seed)
{
    const uint8_t *bytes = buf;

    for (size_t i = 0; i < len;) {
        uint64_t word = pattern(pattern_seed, (at + i) / 8);
        const uint8_t *want = (const uint8_t *)&word;

        for (size_t k = (at + i) % 8; k < 8 && i < len; k++, i++) {
            if (bytes[i] != want[k]) {
                return (int64_t)i;
            }
        }
    }
    return -1;
}
