/* SPDX-License-Identifier: MIT */
/* The harness's own tests. What must fail is run by subject.c, in a process of its own. */
#include "t.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct numbers {
    int a, b, sum;
};

static void add(void **state, void *arg)
{
    struct numbers *n = arg;

    *state = (char *)*state + 1;
    n->sum = n->a + n->b + (int)(intptr_t)*state;
}

static void peer_adds(enum t_peer_kind kind)
{
    struct t_peer *peer = t_peer_start(kind);
    struct numbers n = {.a = 1, .b = 2};

    t_peer_call(peer, add, &n, sizeof(n));
    T_EQ(n.sum, 4);
    t_peer_begin(peer, add, &n, sizeof(n));
    t_peer_finish(peer);
    T_EQ(n.sum, 5);
    t_peer_stop(peer);
    t_end();
}

T_TEST(harness_peer, inline_adds)
{
    /* A peer of this thread gets arguments, keeps state, and gives results. */
    peer_adds(T_INLINE);
}

T_TEST(harness_peer, thread_adds)
{
    /* The same in a thread. */
    peer_adds(T_THREAD);
}

T_TEST(harness_peer, process_adds)
{
    /* The same in a process. */
    peer_adds(T_PROCESS);
}

static void tell_ids(void **state, void *arg)
{
    long *ids = arg;

    (void)state;
    ids[0] = (long)getpid();
    ids[1] = (long)pthread_self();
}

T_TEST(harness_peer, kinds_run_where_they_say)
{
    /* A process peer has its own process, a thread peer only its own thread. */
    struct t_peer *process = t_peer_start(T_PROCESS);
    struct t_peer *thread = t_peer_start(T_THREAD);
    long ids[2];

    t_peer_call(process, tell_ids, ids, sizeof(ids));
    T_ASSERT(ids[0] != (long)getpid());
    t_peer_call(thread, tell_ids, ids, sizeof(ids));
    T_EQ(ids[0], (long)getpid());
    T_ASSERT(ids[1] != (long)pthread_self());
    t_peer_stop(thread);
    t_peer_stop(process);
    t_end();
}

T_TEST(harness_peer, kill_is_not_a_failure)
{
    /* A test may kill its peer, and goes on. */
    struct t_peer *peer = t_peer_start(T_PROCESS);

    t_peer_kill(peer);
    t_end();
}

T_TEST(harness, pattern_differs_by_seed_and_is_found_wrong)
{
    /* t_compare finds a single wrong byte, at any place, also in the last partial word. */
    uint8_t buf[43];

    t_fill(buf, 0, sizeof(buf), 7);
    T_EQ(t_compare(buf + 13, 13, 22, 7), -1);
    T_EQ(t_compare(buf, 0, sizeof(buf), 7), -1);
    T_ASSERT(t_compare(buf, 0, sizeof(buf), 8) >= 0);
    for (size_t i = 0; i < sizeof(buf); i++) {
        buf[i] ^= 1;
        T_EQ(t_compare(buf, 0, sizeof(buf), 7), (long long)i);
        buf[i] ^= 1;
    }
}

T_TEST(harness, deadline_passes)
{
    /* A deadline is not over at once, and is over some time later. */
    int64_t deadline = t_deadline(20);

    T_ASSERT(!t_expired(deadline) && t_remaining_ms(deadline) > 0);
    T_UNTIL(t_expired(deadline), 5000);
    T_EQ(t_remaining_ms(deadline), 0);
}

T_TEST(harness, readable_sees_data)
{
    /* t_readable tells an empty pipe from one with a byte in it. */
    int fds[2];

    T_EQ(pipe(fds), 0);
    T_ASSERT(!t_readable(fds[0], 1));
    T_EQ(write(fds[1], "x", 1), 1);
    T_ASSERT(t_readable(fds[0], 5000));
    close(fds[0]);
    close(fds[1]);
}

/* Runs the subject with some arguments, and gives its exit status and all of its output. */
static int run_subject(const char *args, char *out, size_t size)
{
    const char *subject = getenv("T_SUBJECT");
    char command[512];
    FILE *pipe;
    size_t used = 0, got;

    if (!subject) {
        T_SKIP("T_SUBJECT does not name the subject program");
    }
    snprintf(command, sizeof(command), "'%s' %s 2>&1", subject, args);
    pipe = popen(command, "r");
    T_ASSERT(pipe != NULL);
    while ((got = fread(out + used, 1, size - 1 - used, pipe)) > 0) {
        used += got;
    }
    out[used] = '\0';
    return pclose(pipe) / 256;
}

static void subject_fails_with(const char *test, const char *text)
{
    char out[8192];

    T_EQ(run_subject(test, out, sizeof(out)), 1);
    T_ASSERT(strstr(out, text) != NULL, "\"%s\" is not in: %s", text, out);
    T_ASSERT(strstr(out, "0 passed, 1 failed") != NULL, "%s", out);
    T_ASSERT(strstr(out, "VIADUCT_TEST_SEED=") != NULL, "%s", out);
}

T_TEST(harness_fails, assert_stops)
{
    /* A failed T_ASSERT fails the test with its text, and nothing after it is run. */
    subject_fails_with("subject/assert_stops", "1 + 1 == 3: numbers 42");
}

T_TEST(harness_fails, check_goes_on)
{
    /* Failed T_CHECKs are all reported. */
    subject_fails_with("subject/check_goes_on", "first");
    subject_fails_with("subject/check_goes_on", "second");
}

T_TEST(harness_fails, in_peer_process)
{
    /* A check that fails in a peer process fails the test, with the peer's message. */
    subject_fails_with("subject/in_peer_process", "[peer process] subject.c");
}

T_TEST(harness_fails, in_peer_thread)
{
    /* The same in a thread. */
    subject_fails_with("subject/in_peer_thread", "[peer thread] subject.c");
}

T_TEST(harness_fails, dead_peer)
{
    /* A peer that crashes is named as such. */
    subject_fails_with("subject/dead_peer", "died of signal");
}

T_TEST(harness_fails, something_left)
{
    /* t_end() fails when a peer was not stopped. */
    subject_fails_with("subject/something_left", "1 of kind 'peer' left");
}

T_TEST(harness_fails, deadline_over)
{
    /* T_UNTIL gives up. */
    subject_fails_with("subject/deadline_over", "in time: false");
}

T_TEST(harness_fails, none_run)
{
    /* A filter that matches nothing is an error, not a success. */
    char out[8192];

    T_EQ(run_subject("no_such_test", out, sizeof(out)), 1);
    T_ASSERT(strstr(out, "0 passed, 0 failed") != NULL, "%s", out);
}

T_TEST(harness_fails, seed_repeats)
{
    /* The same seed gives the same numbers. */
    char one[8192], two[8192];

    T_EQ(run_subject("subject/shows_random", one, sizeof(one)), 1);
    setenv("VIADUCT_TEST_SEED", "99", 1);
    T_EQ(run_subject("subject/shows_random", one, sizeof(one)), 1);
    T_EQ(run_subject("subject/shows_random", two, sizeof(two)), 1);
    T_STREQ(one, two);
    unsetenv("VIADUCT_TEST_SEED");
}

static void remove_file(void *arg)
{
    unlink(arg);
}

T_TEST(harness_fails, as_known)
{
    /* What is listed as known must fail, and may do so by dying or by waiting too long. */
    static char path[] = "/tmp/t_known.XXXXXX";
    char args[256], out[8192];
    int fd = mkstemp(path);

    T_ASSERT(fd >= 0);
    t_defer(remove_file, path);
    dprintf(
        fd,
        "# a comment\n\n*/assert_stops  sums are\tdifferent here # and more\nsubject/passes no");
    close(fd);
    snprintf(args, sizeof(args), "--known %s --isolate subject/assert_stops", path);
    T_EQ(run_subject(args, out, sizeof(out)), 0);
    T_ASSERT(strstr(out, "known subject/assert_stops: sums are\tdifferent here") != NULL, "%s",
             out);
    snprintf(args, sizeof(args), "--known %s subject/passes", path);
    T_EQ(run_subject(args, out, sizeof(out)), 1);
    T_ASSERT(strstr(out, "FAIL subject/passes: passes, and is known to fail: no\n"), "%s", out);
    snprintf(args, sizeof(args), "--known %s --isolate subject/check_goes_on", path);
    T_EQ(run_subject(args, out, sizeof(out)), 1);
}
