/* SPDX-License-Identifier: MIT */
/*
 * Options from one table: it drives the parser, --help, and the "options" object in JSON.
 *
 *     struct option_def defs[] = {
 *         { "size", 's', OPTION_BYTES, offsetof(struct my, size), "BYTES", "message size", ... },
 *         { 0 } };
 *     code = options_parse(&set, argc, argv, &values, &first);
 *
 * The values are set to their defaults by the caller before parsing.
 */
#ifndef VIADUCT_OPTIONS_H
#define VIADUCT_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum option_type {
    OPTION_FLAG,    /* bool */
    OPTION_COUNT,   /* uint64_t: decimal */
    OPTION_BYTES,   /* uint64_t: decimal with K, M or G (1024, 1024^2, 1024^3) */
    OPTION_SIZES,   /* struct sizes: 64, 4K or 8:1M:*2 or 64:256:+64 */
    OPTION_SECONDS, /* double */
    OPTION_TEXT,    /* const char * */
    OPTION_LIST,    /* struct text_list: the option may come again */
    OPTION_SET,     /* unsigned: a bit for each of the words, comma separated, or "all" */
};

struct sizes {
    uint64_t from;
    uint64_t to;
    uint64_t factor; /* 1: use step instead */
    uint64_t step;
};

struct text_list {
    const char *items[16];
    unsigned count;
};

struct option_def {
    const char *name;
    char letter; /* 0: none */
    enum option_type type;
    size_t offset;
    const char *value; /* how help names the value, NULL for a flag */
    const char *help;
    uint64_t min; /* COUNT, BYTES, SIZES, SECONDS */
    uint64_t max;
    const char *const *words; /* SET, NULL at the end */
};

struct option_set {
    const char *usage; /* behind the command's name: "[OPTIONS] [client HOST]" */
    const char *intro;
    const struct option_def *defs; /* name NULL at the end */
    const char *more;              /* printed last by help, may be NULL */
    bool program_follows;          /* what stands behind the first operand is not ours */
};

/* What options_parse found. */
enum options_result {
    OPTIONS_OK,
    OPTIONS_HELP, /* help was printed: end with success */
    OPTIONS_BAD,  /* one line was printed: end with CMD_USAGE */
};

/*
 * Parse the options. argv is put in order: operands stand last, from first_out on. Prints help or
 * the one line that names the bad argument. values is partly written when it fails.
 */
enum options_result options_parse(const struct option_set *set, int argc, char **argv, void *values,
                                  int *first_out);

/* All options with their values, as a new JSON object. */
json_t *options_json(const struct option_set *set, const void *values);

/* The size after `size`, or 0 at the end. Begin with sizes->from. */
uint64_t sizes_next(const struct sizes *sizes, uint64_t size);
unsigned sizes_count(const struct sizes *sizes);

#endif
