/* SPDX-License-Identifier: MIT */
/* Tests that fail on purpose: harness_test.c runs them and looks at what is said. Always built
 * T_PLAIN.
 */
#include "t.h"

#include <signal.h>

T_TEST(subject, assert_stops)
{
    /* Fails once, although two checks are wrong. */
    T_ASSERT(1 + 1 == 3, "numbers %d", 42);
    T_FAIL("not reached");
}

T_TEST(subject, check_goes_on)
{
    /* Fails twice. */
    T_CHECK(false, "first");
    T_CHECK(false, "second");
}

static void wrong(void **state, void *arg)
{
    (void)state;
    (void)arg;
    T_ASSERT(false, "over there");
}

static void crash(void **state, void *arg)
{
    (void)state;
    (void)arg;
    raise(SIGKILL);
}

T_TEST(subject, in_peer_process)
{
    /* Fails over there. */
    int nothing = 0;

    t_peer_call(t_peer_start(T_PROCESS), wrong, &nothing, sizeof(nothing));
}

T_TEST(subject, in_peer_thread)
{
    /* Fails over there. */
    int nothing = 0;

    t_peer_call(t_peer_start(T_THREAD), wrong, &nothing, sizeof(nothing));
}

T_TEST(subject, dead_peer)
{
    /* The peer dies in the middle of a call. */
    int nothing = 0;

    t_peer_call(t_peer_start(T_PROCESS), crash, &nothing, sizeof(nothing));
}

T_TEST(subject, something_left)
{
    /* Leaves a peer behind. */
    t_peer_start(T_PROCESS);
    t_end();
}

T_TEST(subject, deadline_over)
{
    /* Waits for what never comes. */
    T_UNTIL(false, 10);
}

T_TEST(subject, shows_random)
{
    /* Shows a random number. */
    T_FAIL("%llu", (unsigned long long)t_rand());
}

T_TEST(subject, passes)
{
    /* Has nothing to complain of. */
    T_ASSERT(true);
}
