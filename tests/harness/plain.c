/* SPDX-License-Identifier: MIT */
/*
 * The plain runner: the registered tests, one after the other, in one process. With -DT_PLAIN it is
 * the program's only one, else PROGRAM --plain chooses it.
 *
 *   PROGRAM [--plain] [--list] [--isolate] [--seconds N] [--known FILE]
 *           [--not PATTERN]... [PATTERN]...
 *
 * A pattern is matched against "suite/name", as a glob or as a part of it. --isolate gives each
 * test a process of its own, --seconds another time limit. Exit: 0 all passed, 1 some failed or
 * none ran, 2 bad usage.
 */
#include "t.h"
#include "t_internal.h"

#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATTERNS_MAX = 32 };

struct patterns {
    const char *list[PATTERNS_MAX];
    int count;
};

static struct t_case *first, **last = &first;
static struct patterns wanted, unwanted;
static bool list_only, isolate;
static unsigned seconds = T_TIMEOUT_S;
static const char *known; /* why the running test fails; NULL: it should not */

void t_register(struct t_case *c)
{
    *last = c;
    last = &c->next;
}

static bool matches(const struct patterns *patterns, const char *name)
{
    for (int i = 0; i < patterns->count; i++) {
        if (fnmatch(patterns->list[i], name, 0) == 0 || strstr(name, patterns->list[i])) {
            return true;
        }
    }
    return false;
}

static void add(struct patterns *patterns, const char *pattern)
{
    if (!pattern || patterns->count == PATTERNS_MAX) {
        fprintf(stderr, "a pattern is missing, or there are too many\n");
        exit(2);
    }
    patterns->list[patterns->count++] = pattern;
}

static void parse(char **argv)
{
    while (*++argv) {
        if (strcmp(*argv, "--plain") == 0) {
            continue;
        } else if (strcmp(*argv, "--list") == 0) {
            list_only = true;
        } else if (strcmp(*argv, "--isolate") == 0) {
            isolate = true;
        } else if (strcmp(*argv, "--seconds") == 0 && argv[1]) {
            seconds = (unsigned)atoi(*++argv);
        } else if (strcmp(*argv, "--known") == 0 && argv[1]) {
            t_known_read(*++argv);
        } else if (strcmp(*argv, "--not") == 0) {
            add(&unwanted, *++argv);
            argv -= !*argv;
        } else if (strcmp(*argv, "--filter") == 0) {
            add(&wanted, *++argv);
        } else if (**argv == '-') {
            fprintf(stderr, "unknown option %s\n", *argv);
            exit(2);
        } else {
            add(&wanted, *argv);
        }
    }
}

static void say(const struct t_case *c, enum t_result result, const char *message)
{
    static const char *const words[] = {"ok   ", "FAIL ", "skip "};

    if (known && result == T_FAILED) {
        printf("known %s/%s: %s\n", c->suite, c->name, known);
    } else if (known && result == T_PASSED) {
        printf("FAIL %s/%s: passes, and is known to fail: %s\n", c->suite, c->name, known);
    } else {
        printf("%s%s/%s%s%s\n", words[result], c->suite, c->name, result ? ": " : "",
               result ? message : "");
    }
    fflush(stdout);
}

/* A test that hangs would take all others with it: say which one it was. */
static void on_alarm(int signal_number)
{
    static const char why[] = ": timed out\n";
    const char *text = known ? "\nknown " : "\nFAIL ";

    (void)signal_number;
    if (write(STDOUT_FILENO, text, strlen(text)) < 0 ||
        write(STDOUT_FILENO, t_case_name(), strlen(t_case_name())) < 0 ||
        write(STDOUT_FILENO, why, sizeof(why) - 1) < 0) {
        _exit(3);
    }
    _exit(1);
}

static enum t_result run_here(const struct t_case *c)
{
    enum t_result result;

    alarm((unsigned)(seconds * t_slow()) + 1);
    result = t_case_run(c->suite, c->name, c->run);
    alarm(0);
    say(c, result, t_message());
    return result;
}

static enum t_result run_isolated(const struct t_case *c)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        _exit((int)run_here(c));
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        return T_FAILED;
    }
    if (WIFSIGNALED(status)) {
        say(c, T_FAILED, strsignal(WTERMSIG(status)));
        return T_FAILED;
    }
    return WEXITSTATUS(status) == T_SKIPPED  ? T_SKIPPED
           : WEXITSTATUS(status) == T_PASSED ? T_PASSED
                                             : T_FAILED;
}

/* What is known to fail mostly does so by waiting in vain: deadlines are shorter then. */
static enum t_result run_known(const struct t_case *c, const char *reason)
{
    const char *slow = getenv("VIADUCT_TEST_SLOW");
    enum t_result result;

    known = reason;
    setenv("VIADUCT_TEST_SLOW", "0.2", 1);
    result = isolate ? run_isolated(c) : run_here(c);
    known = NULL;
    if (slow) {
        setenv("VIADUCT_TEST_SLOW", slow, 1);
    } else {
        unsetenv("VIADUCT_TEST_SLOW");
    }
    return result == T_SKIPPED ? T_SKIPPED : result == T_FAILED ? T_PASSED : T_FAILED;
}

static enum t_result run_one(const struct t_case *c, const char *name)
{
    const char *reason = t_known(name);

    if (reason) {
        return run_known(c, reason);
    }
    return isolate ? run_isolated(c) : run_here(c);
}

int t_plain_main(char **argv)
{
    int counts[3] = {0, 0, 0};

    parse(argv);
    signal(SIGALRM, on_alarm);
    for (struct t_case *c = first; c; c = c->next) {
        char name[256];

        snprintf(name, sizeof(name), "%s/%s", c->suite, c->name);
        if ((wanted.count > 0 && !matches(&wanted, name)) || matches(&unwanted, name)) {
            continue;
        }
        if (list_only) {
            puts(name);
            counts[T_PASSED]++;
            continue;
        }
        counts[run_one(c, name)]++;
    }
    if (!list_only) {
        printf("%d passed, %d failed, %d skipped\n", counts[T_PASSED], counts[T_FAILED],
               counts[T_SKIPPED]);
    }
    return counts[T_FAILED] > 0 || counts[T_PASSED] == 0 ? 1 : 0;
}
