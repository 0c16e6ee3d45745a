/* SPDX-License-Identifier: MIT */
/* A directory of a test's own, gone when the test is over. */
#ifndef TESTS_UNIT_SCRATCH_H
#define TESTS_UNIT_SCRATCH_H

#include "t.h"

#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int scratch_remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static void scratch_remove(void *path)
{
    nftw(path, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(path);
}

/* Its path, without symbolic links; mode 0700. */
static inline const char *scratch(void)
{
    char made[] = "/tmp/viaduct-test-XXXXXX";

    T_ASSERT(mkdtemp(made));
    char *path = realpath(made, NULL);
    T_ASSERT(path);
    t_defer(scratch_remove, path);
    return path;
}

/* A path below it, in a buffer that the next four calls leave alone. */
__attribute__((format(printf, 1, 2))) static inline const char *pathf(const char *format, ...)
{
    static char buffers[5][PATH_MAX];
    static unsigned next;
    char *buffer = buffers[next++ % 5];
    va_list args;

    va_start(args, format);
    vsnprintf(buffer, PATH_MAX, format, args);
    va_end(args);
    return buffer;
}

/* Write a file, and the directories above it. */
static inline void scratch_file(const char *path, const char *text)
{
    char copy[PATH_MAX];

    snprintf(copy, sizeof copy, "%s", path);
    for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(copy, 0755);
        *slash = '/';
    }
    FILE *file = fopen(path, "we");
    T_ASSERT(file, "%s: %s", path, strerror(errno));
    fputs(text, file);
    T_EQ(fclose(file), 0);
}

#endif
