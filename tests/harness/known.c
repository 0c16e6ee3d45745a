/* SPDX-License-Identifier: MIT */
/* The list of tests that are known to fail. */
#include "t_internal.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>

struct line {
    char *pattern, *reason;
    struct line *next;
};

static struct line *lines;

/* "pattern  reason" into its parts; false: there is nothing on it. */
static bool split(char *text, struct line *line_out)
{
    size_t len;

    text[strcspn(text, "#\n")] = '\0';
    text += strspn(text, " \t");
    len = strcspn(text, " \t");
    *line_out = (struct line){text, text + len, lines};
    if (*line_out->reason) {
        *line_out->reason++ = '\0';
        line_out->reason += strspn(line_out->reason, " \t");
    }
    return len > 0;
}

void t_known_read(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = NULL;
    size_t size = 0;

    if (!file) {
        perror(path);
        exit(2);
    }
    while (getline(&text, &size, file) >= 0) {
        struct line line, *kept;

        if (!split(text, &line)) {
            continue;
        }
        kept = malloc(sizeof(*kept));
        if (!kept) {
            exit(2);
        }
        *kept = line;
        lines = kept;
        text = NULL; /* the line's from now on */
        size = 0;
    }
    free(text);
    fclose(file);
}

const char *t_known(const char *name)
{
    for (const struct line *line = lines; line; line = line->next) {
        if (fnmatch(line->pattern, name, 0) == 0) {
            return line->reason;
        }
    }
    return NULL;
}
