/* SPDX-License-Identifier: MIT */
/* Parse VIADUCT_FAULTS. */
#define _GNU_SOURCE
#include "core/config_faults.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int refuse(const char *text, const char *word, char *err, size_t err_size)
{
    snprintf(err, err_size,
             "VIADUCT_FAULTS=\"%.160s\": \"%.40s\" is no fault; write "
             "loss=1%%,dup=0.1%%,reorder=1%%,corrupt=0.1%%,delay=50us,seed=7, or some of these",
             text, word);
    return -EINVAL;
}

/* "1%" or "0.01" as a part of 2^32. */
static bool parse_rate(const char *text, uint32_t *out)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text)
        return false;
    if (*end == '%') {
        value /= 100;
        end++;
    }
    if (*end || !(value >= 0 && value <= 1))
        return false;
    *out = value == 1 ? UINT32_MAX : (uint32_t)(value * 4294967296.0);
    return true;
}

static bool parse_time(const char *text, uint64_t *ns_out)
{
    static const struct {
        const char *unit;
        double ns;
    } units[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
    char *end;
    double value = strtod(text, &end);

    if (end == text || !(value >= 0 && value <= 1e9))
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].unit) == 0) {
            *ns_out = (uint64_t)(value * units[i].ns);
            return true;
        }
    }
    return false;
}

static bool parse_number(const char *text, uint64_t *out)
{
    char *end;

    *out = strtoull(text, &end, 0);
    return end != text && !*end && *text != '-';
}

static bool parse_word(const char *name, const char *value, struct config_faults *out)
{
    if (strcmp(name, "loss") == 0)
        return parse_rate(value, &out->loss);
    if (strcmp(name, "dup") == 0)
        return parse_rate(value, &out->duplicate);
    if (strcmp(name, "reorder") == 0)
        return parse_rate(value, &out->reorder);
    if (strcmp(name, "corrupt") == 0)
        return parse_rate(value, &out->corrupt);
    if (strcmp(name, "delay") == 0)
        return parse_time(value, &out->delay_ns);
    return strcmp(name, "seed") == 0 && parse_number(value, &out->seed);
}

int config_parse_faults(const char *text, struct config_faults *out, char *err, size_t err_size)
{
    char *copy = strdup(text);
    int failed = 0;

    if (!copy) {
        snprintf(err, err_size, "VIADUCT_FAULTS: out of memory");
        return -ENOMEM;
    }
    for (char *rest = copy, *word; !failed && (word = strsep(&rest, ","));) {
        char whole[41];

        snprintf(whole, sizeof(whole), "%s", word);
        char *value = strchr(word, '=');
        if (value)
            *value++ = '\0';
        if (!value || !parse_word(word, value, out))
            failed = refuse(text, whole, err, err_size);
    }
    out->any = out->loss || out->duplicate || out->reorder || out->corrupt || out->delay_ns;
    free(copy);
    return failed;
}
