/* SPDX-License-Identifier: MIT */
/*
 * The test harness: one source, two runners.
 *
 *   T_TEST(ring, wraps)                 one test, "ring/wraps"
 *   {
 *       // Shows that ...                  its first comment says what it shows
 *       T_ASSERT(x > 0);                stops the test
 *       T_CHECK(y == 1, "y is %d", y);  notes the failure and goes on
 *       T_EQ(a, b);                     stops, and prints both values
 *   }
 *
 * By default a test is a Criterion test, in a process of its own. The tests of a program are also
 * a list, registered by constructors, which the plain runner goes through in one process: that is
 * what ThreadSanitizer and valgrind need (-DT_PLAIN), and an emulated machine (--plain). Both call
 * t_case_run(), so a failure, its message and its clean-up are the same in both.
 *
 * A check may be made in the test's own thread or in a peer (a forked process or a thread, see
 * below): a peer's failure travels to the test that called it. Other threads must not check.
 */
#ifndef T_H
#define T_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
#error "the harness is for C"
#endif

/* --- checks ------------------------------------------------------------------------------- */

/*
 * The message after the condition is optional, as in printf; the condition is always shown.
 * (The blank before it keeps compilers from complaining of an empty format; it is not printed.)
 */
#define T_ASSERT(cond, ...)                                                                        \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            t_fail(__FILE__, __LINE__, #cond, " " __VA_ARGS__);                                    \
        }                                                                                          \
    } while (0)

#define T_CHECK(cond, ...)                                                                         \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            t_note(__FILE__, __LINE__, #cond, " " __VA_ARGS__);                                    \
        }                                                                                          \
    } while (0)

#define T_FAIL(...) t_fail(__FILE__, __LINE__, NULL, " " __VA_ARGS__)
#define T_SKIP(...) t_skip(" " __VA_ARGS__)

/* Integers of any type; the values are printed in decimal and in hex. */
#define T_EQ(a, b) t_eq(__FILE__, __LINE__, true, #a " == " #b, (long long)(a), (long long)(b))
#define T_CHECK_EQ(a, b)                                                                           \
    t_eq(__FILE__, __LINE__, false, #a " == " #b, (long long)(a), (long long)(b))
/* The integer is one of those listed: where a specification leaves a choice. */
#define T_IN(x, ...)                                                                               \
    t_in(__FILE__, __LINE__, #x, (long long)(x), (const long long[]){__VA_ARGS__},                 \
         sizeof((const long long[]){__VA_ARGS__}) / sizeof(long long))
#define T_STREQ(a, b) t_streq(__FILE__, __LINE__, #a " == " #b, (a), (b))
#define T_MEMEQ(a, b, len) t_memeq(__FILE__, __LINE__, #a " == " #b, (a), (b), (len))

_Noreturn void t_fail(const char *file, int line, const char *what, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void t_note(const char *file, int line, const char *what, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
_Noreturn void t_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
void t_eq(const char *file, int line, bool fatal, const char *what, long long a, long long b);
void t_in(const char *file, int line, const char *what, long long x, const long long *set,
          size_t count);
void t_streq(const char *file, int line, const char *what, const char *a, const char *b);
void t_memeq(const char *file, int line, const char *what, const void *a, const void *b,
             size_t len);

/* How many checks have failed so far in the running test, peers included. */
int t_failures(void);

/* --- a test's clean-up and its end ---------------------------------------------------------- */

/* Has fn(arg) called when the test is over, passed or failed; the last one first. */
void t_defer(void (*fn)(void *), void *arg);

/*
 * Counts things that a test must give back: t_hold(+1, "pair") when one is made, t_hold(-1, ...)
 * when it is gone. t_end() fails if anything is held, or a peer still lives: call it last in the
 * body, because a failure in a later clean-up fails nothing.
 */
void t_hold(int change, const char *kind);
void t_end(void);

/* Open file descriptors of this process. */
int t_fd_count(void);

/* --- time: never sleep, wait for a condition and give up at a deadline ------------------------ */

int64_t t_now_ns(void);

/* A moment `ms` from now; VIADUCT_TEST_SLOW (a factor) stretches it on slow machines. */
int64_t t_deadline(int ms);
bool t_expired(int64_t deadline_ns);
int t_remaining_ms(int64_t deadline_ns);

/* Spins politely until the condition holds; fails the test after `ms`. */
#define T_UNTIL(cond, ms)                                                                          \
    do {                                                                                           \
        int64_t t_until_ = t_deadline(ms);                                                         \
        while (!(cond)) {                                                                          \
            if (t_expired(t_until_)) {                                                             \
                t_fail(__FILE__, __LINE__, "in time: " #cond, "waited %d ms", (ms));               \
            }                                                                                      \
            t_relax();                                                                             \
        }                                                                                          \
    } while (0)

/* Lets others run for a moment, between two looks at a condition. */
void t_relax(void);

/* True if fd can be read within `ms`. */
bool t_readable(int fd, int ms);

/* --- random numbers ------------------------------------------------------------------------- */

/* The seed is VIADUCT_TEST_SEED or a fresh one, and is printed with every failure. */
uint64_t t_seed(void);
uint64_t t_rand(void);
uint64_t t_rand_below(uint64_t bound);

/*
 * Fills or compares `len` bytes of a pattern that depends on seed and position only; the first
 * byte has the position `at`. t_compare gives the index of the first wrong byte, or -1.
 */
void t_fill(void *buf, size_t at, size_t len, uint64_t seed);
int64_t t_compare(const void *buf, size_t at, size_t len, uint64_t seed);

/* --- peers ---------------------------------------------------------------------------------- */

/*
 * A peer runs functions for the test: in the same thread (T_INLINE), in a thread of its own, or
 * in a forked process. Calls travel over a socket pair, with up to T_ARG_MAX bytes of arguments
 * that come back as the function left them. The functions are the same ones in every kind, so a
 * test is one straight script that moves two parties.
 *
 * Start process peers before any device is opened. `state` belongs to the peer: it begins as
 * NULL, and the functions keep what they opened there.
 */
enum t_peer_kind { T_INLINE, T_THREAD, T_PROCESS };

enum { T_ARG_MAX = 32768 };

struct t_peer;

struct t_peer *t_peer_start(enum t_peer_kind kind);

typedef void t_peer_fn(void **state, void *arg);

/* Runs fn in the peer and waits. A check that fails there fails here. */
void t_peer_call(struct t_peer *peer, t_peer_fn *fn, void *arg, size_t size);

/* The two halves of a call, to have several peers busy at once. T_INLINE peers run in begin. */
void t_peer_begin(struct t_peer *peer, t_peer_fn *fn, void *arg, size_t size);
void t_peer_finish(struct t_peer *peer);

/* For T_INLINE and T_THREAD peers: the state itself. NULL for processes. */
void *t_peer_state(struct t_peer *peer);
enum t_peer_kind t_peer_kind(const struct t_peer *peer);

/* SIGKILLs a process peer and reaps it. */
void t_peer_kill(struct t_peer *peer);

/* Ends the peer; fails if a process did not exit cleanly. */
void t_peer_stop(struct t_peer *peer);

/* --- the runners ------------------------------------------------------------------------------ */

enum t_result { T_PASSED, T_FAILED, T_SKIPPED };

struct t_case {
    const char *suite, *name;
    void (*run)(void);
    struct t_case *next;
};

void t_register(struct t_case *c);
enum t_result t_case_run(const char *suite, const char *name, void (*run)(void));

/* What went wrong in the last test, or why it was skipped. */
const char *t_message(void);

/* "suite/name" of the running test. */
const char *t_case_name(void);

enum { T_TIMEOUT_S = 120 };

#define T_REGISTERED(suite_, name_)                                                                \
    static void t_run_##suite_##_##name_(void);                                                    \
    __attribute__((constructor)) static void t_add_##suite_##_##name_(void)                        \
    {                                                                                              \
        static struct t_case c = {#suite_, #name_, t_run_##suite_##_##name_, NULL};                \
        t_register(&c);                                                                            \
    }

#ifdef T_PLAIN

#define T_TEST(suite_, name_)                                                                      \
    T_REGISTERED(suite_, name_)                                                                    \
    static void t_run_##suite_##_##name_(void)

#else

#include <criterion/criterion.h>

#define T_TEST(suite_, name_)                                                                      \
    T_REGISTERED(suite_, name_)                                                                    \
    Test(suite_, name_, .timeout = T_TIMEOUT_S)                                                    \
    {                                                                                              \
        enum t_result result = t_case_run(#suite_, #name_, t_run_##suite_##_##name_);              \
        if (result == T_SKIPPED) {                                                                 \
            cr_skip_test("%s", t_message());                                                       \
        }                                                                                          \
        cr_assert(result == T_PASSED, "%s", t_message());                                          \
    }                                                                                              \
    static void t_run_##suite_##_##name_(void)

#endif

#endif
