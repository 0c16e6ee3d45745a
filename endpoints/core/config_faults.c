/* SPDX-License-Identifier: MIT */
/* Parse VIADUCT_FAULTS. */
#define _GNU_SOURCE
#include "core/config_faults.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One option: what it is called, what its value looks like, and where that goes. */
struct option {
    const char *name, *example, *value;
    bool (*parse)(const char *text, void *out);
    size_t offset;
};

static bool begins_number(const char *text)
{
    return isdigit((unsigned char)*text) || *text == '.';
}

/* "1%" or "0.01" as a part of 2^32. */
static bool parse_rate(const char *text, void *out)
{
    char *end;
    double value = strtod(text, &end);

    if (!begins_number(text) || end == text)
        return false;
    if (*end == '%') {
        value /= 100;
        end++;
    }
    if (*end || !(value >= 0 && value <= 1))
        return false;
    *(uint32_t *)out = value == 1 ? UINT32_MAX : (uint32_t)(value * 4294967296.0);
    return true;
}

static bool parse_time(const char *text, void *out)
{
    static const struct {
        const char *unit;
        double ns;
    } units[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
    char *end;
    double value = strtod(text, &end);

    if (!begins_number(text) || end == text)
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].unit) == 0 && value * units[i].ns <= 60e9) {
            *(uint64_t *)out = (uint64_t)(value * units[i].ns);
            return true;
        }
    }
    return false;
}

static bool parse_number(const char *text, void *out)
{
    char *end;

    errno = 0;
    *(uint64_t *)out = strtoull(text, &end, 0);
    return begins_number(text) && end != text && !*end && !errno;
}

#define FAULT(field) offsetof(struct config_faults, field)
#define RATE "a rate from 0% to 100%, or from 0 to 1"

static const struct option options[] = {
    {"loss", "loss=1%", RATE, parse_rate, FAULT(loss)},
    {"dup", "dup=0.1%", RATE, parse_rate, FAULT(duplicate)},
    {"reorder", "reorder=1%", RATE, parse_rate, FAULT(reorder)},
    {"corrupt", "corrupt=0.1%", RATE, parse_rate, FAULT(corrupt)},
    {"delay", "delay=50us", "a time up to 60s with its unit: ns, us, ms or s", parse_time,
     FAULT(delay_ns)},
    {"seed", "seed=7", "a whole number below 2^64", parse_number, FAULT(seed)},
};

enum { OPTIONS = sizeof(options) / sizeof(options[0]) };

struct parse {
    const char *text; /* all of it, for the message */
    struct config_faults *out;
    char *err;
    size_t err_size;
    unsigned seen; /* options, as bits */
};

/* What is wrong with which word, and what to write instead. */
static int refuse(const struct parse *parse, const char *word, const char *why, const char *wanted,
                  const char *example)
{
    snprintf(parse->err, parse->err_size, "VIADUCT_FAULTS=\"%.100s\": \"%.40s\" %s; write %s%s%s",
             parse->text, word, why, wanted, *example ? ", such as " : "", example);
    return -EINVAL;
}

static const struct option *find(const char *name, size_t length)
{
    for (unsigned i = 0; i < OPTIONS; i++)
        if (strlen(options[i].name) == length && memcmp(options[i].name, name, length) == 0)
            return &options[i];
    return NULL;
}

static int parse_word(struct parse *parse, const char *word)
{
    size_t length = strcspn(word, "=");
    const struct option *option = find(word, length);
    unsigned bit = option ? 1u << (option - options) : 0;

    if (!option)
        return refuse(parse, word, *word ? "is no fault" : "between two commas is no fault",
                      "one of loss, dup, reorder, corrupt, delay, seed", "loss=1%,seed=7");
    if (!word[length])
        return refuse(parse, word, "has no value", option->value, option->example);
    if (parse->seen & bit)
        return refuse(parse, word, "stands for the second time", "it once", "");
    parse->seen |= bit;
    if (!option->parse(word + length + 1, (char *)parse->out + option->offset))
        return refuse(parse, word, "has a value that can't be", option->value, option->example);
    return 0;
}

int config_parse_faults(const char *text, struct config_faults *out, char *err, size_t err_size)
{
    struct parse parse = {text, out, err, err_size, 0};
    char *copy = strdup(text);
    int failed = 0;

    if (!copy) {
        snprintf(err, err_size, "VIADUCT_FAULTS: out of memory");
        return -ENOMEM;
    }
    for (char *rest = copy, *word; !failed && (word = strsep(&rest, ","));)
        failed = parse_word(&parse, word);
    out->any = out->loss || out->duplicate || out->reorder || out->corrupt || out->delay_ns;
    free(copy);
    return failed;
}
