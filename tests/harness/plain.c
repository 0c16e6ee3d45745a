/* SPDX-License-Identifier: MIT */
/*
 * The plain runner: the registered tests, one after the other, in one process (-DT_PLAIN).
 *
 *   PROGRAM [--list] [--isolate] [--not PATTERN]... [PATTERN]...
 *
 * A pattern is matched against "suite/name", as a glob or as a part of it. --isolate gives each
 * test a process of its own. Exit: 0 all passed, 1 some failed or none ran, 2 bad usage.
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
        if (strcmp(*argv, "--list") == 0) {
            list_only = true;
        } else if (strcmp(*argv, "--isolate") == 0) {
            isolate = true;
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

/* A test that hangs would take all others with it: say which one it was. */
static void on_alarm(int signal_number)
{
    static const char text[] = "\nFAIL: timed out: ";

    (void)signal_number;
    if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0 ||
        write(STDOUT_FILENO, t_case_name(), strlen(t_case_name())) < 0 ||
        write(STDOUT_FILENO, "\n", 1) < 0) {
        _exit(3);
    }
    _exit(1);
}

static enum t_result run_here(const struct t_case *c)
{
    enum t_result result;

    alarm((unsigned)(T_TIMEOUT_S * t_slow()));
    result = t_case_run(c->suite, c->name, c->run);
    alarm(0);
    if (result == T_FAILED) {
        printf("FAIL %s/%s: %s\n", c->suite, c->name, t_message());
    } else if (result == T_SKIPPED) {
        printf("skip %s/%s: %s\n", c->suite, c->name, t_message());
    } else {
        printf("ok   %s/%s\n", c->suite, c->name);
    }
    fflush(stdout);
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
        printf("FAIL %s/%s: died of signal %d (%s)\n", c->suite, c->name, WTERMSIG(status),
               strsignal(WTERMSIG(status)));
        fflush(stdout);
        return T_FAILED;
    }
    return WEXITSTATUS(status) == T_SKIPPED  ? T_SKIPPED
           : WEXITSTATUS(status) == T_PASSED ? T_PASSED
                                             : T_FAILED;
}

int main(int argc, char **argv)
{
    int counts[3] = {0, 0, 0};

    (void)argc;
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
        counts[isolate ? run_isolated(c) : run_here(c)]++;
    }
    if (!list_only) {
        printf("%d passed, %d failed, %d skipped\n", counts[T_PASSED], counts[T_FAILED],
               counts[T_SKIPPED]);
    }
    return counts[T_FAILED] > 0 || counts[T_PASSED] == 0 ? 1 : 0;
}
