/* SPDX-License-Identifier: MIT */
/* Options from one table. getopt_long splits the words; the table knows the rest. */
#include "options.h"

#include "cmd.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OPTIONS_MAX 40
#define LONG_ONLY 256 /* getopt's value of table row i is its letter, or LONG_ONLY + i */

static void *field(const struct option_def *def, void *values)
{
    return (char *)values + def->offset;
}

static const void *field_read(const struct option_def *def, const void *values)
{
    return (const char *)values + def->offset;
}

/* --- values from text. Each returns false for what it can't read. --- */

static uint64_t suffix_factor(char suffix)
{
    switch (toupper((unsigned char)suffix)) {
    case 'K':
        return UINT64_C(1) << 10;
    case 'M':
        return UINT64_C(1) << 20;
    case 'G':
        return UINT64_C(1) << 30;
    default:
        return 0;
    }
}

/* Reads digits and, if bytes, one suffix. Moves *text behind what it read. */
static bool read_number(const char **text, bool bytes, uint64_t *value_out)
{
    uint64_t value = 0;
    const char *p = *text;
    uint64_t factor;

    if (!isdigit((unsigned char)*p))
        return false;
    for (; isdigit((unsigned char)*p); p++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            return false;
    }
    factor = bytes ? suffix_factor(*p) : 0;
    if (factor != 0) {
        p++;
        if (__builtin_mul_overflow(value, factor, &value))
            return false;
    }
    *text = p;
    *value_out = value;
    return true;
}

static bool read_whole_number(const char *text, bool bytes, uint64_t *value_out)
{
    uint64_t value;

    if (!read_number(&text, bytes, &value) || *text != '\0')
        return false;
    *value_out = value;
    return true;
}

/* FROM, FROM:TO (doubling), FROM:TO:*N or FROM:TO:+N. */
static bool read_sizes(const char *text, struct sizes *sizes_out)
{
    struct sizes s = {.factor = 2};
    char op;

    if (!read_number(&text, true, &s.from))
        return false;
    s.to = s.from;
    if (*text == ':') {
        text++;
        if (!read_number(&text, true, &s.to))
            return false;
    }
    if (*text == ':') {
        op = text[1];
        text += 2;
        if ((op != '*' && op != '+') || !read_number(&text, true, op == '*' ? &s.factor : &s.step))
            return false;
        s.factor = op == '*' ? s.factor : 1;
        if (op == '*' ? s.factor < 2 : s.step < 1)
            return false;
    }
    if (*text != '\0' || s.from > s.to)
        return false;
    *sizes_out = s;
    return true;
}

static bool read_seconds(const char *text, double *seconds_out)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !isfinite(value))
        return false;
    *seconds_out = value;
    return true;
}

static bool read_set(const char *text, const char *const *words, unsigned *bits_out)
{
    unsigned bits = 0, all = 0;

    for (unsigned i = 0; words[i] != NULL; i++)
        all |= 1u << i;
    while (*text != '\0') {
        size_t length = strcspn(text, ",");
        unsigned found = strncmp(text, "all", length) == 0 && length == 3 ? all : 0;

        for (unsigned i = 0; words[i] != NULL; i++) {
            if (strlen(words[i]) == length && strncmp(text, words[i], length) == 0)
                found = 1u << i;
        }
        if (found == 0)
            return false;
        bits |= found;
        text += length;
        text += *text == ',';
    }
    *bits_out = bits;
    return bits != 0;
}

/* --- one option --- */

static bool in_range(const struct option_def *def, uint64_t low, uint64_t high)
{
    return low >= def->min && high <= def->max;
}

static void print_words(char *buffer, size_t size, const char *const *words)
{
    size_t used = 0;

    buffer[0] = '\0';
    for (unsigned i = 0; words[i] != NULL && used < size; i++)
        used += (size_t)snprintf(buffer + used, size - used, "%s, ", words[i]);
    if (used < size)
        snprintf(buffer + used, size - used, "all");
}

/* The one line about a bad value: what was given, and what would do. */
static void complain_value(const struct option_def *def, const char *text)
{
    char words[200];

    switch (def->type) {
    case OPTION_COUNT:
        complain("--%s: '%s' is not a number from %llu to %llu", def->name, text,
                 (unsigned long long)def->min, (unsigned long long)def->max);
        break;
    case OPTION_BYTES:
        complain("--%s: '%s' is not a size from %llu to %llu bytes; write it like 64, 4K or 1M",
                 def->name, text, (unsigned long long)def->min, (unsigned long long)def->max);
        break;
    case OPTION_SIZES:
        complain("--%s: '%s' is not sizes from %llu to %llu bytes; write them like 64, 8:1M:*2 "
                 "or 64:256:+64",
                 def->name, text, (unsigned long long)def->min, (unsigned long long)def->max);
        break;
    case OPTION_SECONDS:
        complain("--%s: '%s' is not a time over %llu and up to %llu seconds; write it like 2 or "
                 "0.5",
                 def->name, text, (unsigned long long)def->min, (unsigned long long)def->max);
        break;
    case OPTION_SET:
        print_words(words, sizeof(words), def->words);
        complain("--%s: '%s' is not a list made of %s", def->name, text, words);
        break;
    default:
        complain("--%s: '%s' does not fit: it is empty, or the option came more than %zu times",
                 def->name, text, sizeof(((struct text_list *)0)->items) / sizeof(char *));
        break;
    }
}

static bool list_add(struct text_list *list, const char *text)
{
    if (*text == '\0' || list->count == sizeof(list->items) / sizeof(list->items[0]))
        return false;
    list->items[list->count++] = text;
    return true;
}

static bool store(const struct option_def *def, const char *text, void *target)
{
    struct sizes sizes;
    uint64_t number;
    double seconds;

    switch (def->type) {
    case OPTION_FLAG:
        *(bool *)target = true;
        return true;
    case OPTION_COUNT:
    case OPTION_BYTES:
        if (!read_whole_number(text, def->type == OPTION_BYTES, &number) ||
            !in_range(def, number, number))
            return false;
        *(uint64_t *)target = number;
        return true;
    case OPTION_SIZES:
        if (!read_sizes(text, &sizes) || !in_range(def, sizes.from, sizes.to))
            return false;
        *(struct sizes *)target = sizes;
        return true;
    case OPTION_SECONDS:
        if (!read_seconds(text, &seconds) || seconds <= (double)def->min ||
            seconds > (double)def->max)
            return false;
        *(double *)target = seconds;
        return true;
    case OPTION_TEXT:
        *(const char **)target = text;
        return *text != '\0';
    case OPTION_LIST:
        return list_add(target, text);
    case OPTION_SET:
        return read_set(text, def->words, target);
    }
    return false;
}

/* --- the whole command line --- */

struct parser {
    const struct option_set *set;
    struct option longs[OPTIONS_MAX + 2];
    char shorts[2 * OPTIONS_MAX + 4];
};

static int getopt_value(const struct option_def *def, unsigned row)
{
    return def->letter != 0 ? def->letter : LONG_ONLY + (int)row;
}

static void parser_init(struct parser *parser, const struct option_set *set)
{
    size_t used = 0;
    unsigned row;

    memset(parser, 0, sizeof(*parser));
    parser->set = set;
    if (set->program_follows)
        parser->shorts[used++] = '+'; /* stop at the first operand */
    parser->shorts[used++] = ':';     /* tell a missing value from an unknown option */
    parser->shorts[used++] = 'h';
    for (row = 0; set->defs[row].name != NULL && row < OPTIONS_MAX; row++) {
        const struct option_def *def = &set->defs[row];
        int has_value = def->type == OPTION_FLAG ? no_argument : required_argument;

        parser->longs[row] = (struct option){def->name, has_value, NULL, getopt_value(def, row)};
        if (def->letter != 0) {
            parser->shorts[used++] = def->letter;
            if (has_value)
                parser->shorts[used++] = ':';
        }
    }
    parser->longs[row] = (struct option){"help", no_argument, NULL, 'h'};
}

static const struct option_def *parser_find(const struct parser *parser, int value)
{
    for (unsigned row = 0; parser->set->defs[row].name != NULL; row++) {
        if (getopt_value(&parser->set->defs[row], row) == value)
            return &parser->set->defs[row];
    }
    return NULL;
}

static void print_help(const struct option_set *set)
{
    char left[64];

    printf("usage: %s %s\n\n%s\n\n", cmd_name, set->usage, set->intro);
    for (const struct option_def *def = set->defs; def->name != NULL; def++) {
        int n =
            snprintf(left, sizeof(left), "%c%c%s --%s", def->letter != 0 ? '-' : ' ',
                     def->letter != 0 ? def->letter : ' ', def->letter != 0 ? "," : " ", def->name);
        if (def->value != NULL && n > 0 && (size_t)n < sizeof(left))
            snprintf(left + n, sizeof(left) - (size_t)n, " %s", def->value);
        printf("  %-26s %s\n", left, def->help);
    }
    printf("  %-26s %s\n", "-h, --help", "this text");
    if (set->more != NULL)
        printf("\n%s\n", set->more);
}

static void complain_option(int kind, const struct parser *parser, const char *word)
{
    const struct option_def *def = optopt != 0 ? parser_find(parser, optopt) : NULL;

    if (kind == ':' && def != NULL)
        complain("--%s needs a value (%s); see '%s --help'", def->name, def->value, cmd_name);
    else if (def != NULL)
        complain("--%s takes no value ('%s'); see '%s --help'", def->name, word, cmd_name);
    else if (strncmp(word, "--", 2) == 0)
        complain("unknown or ambiguous option '%s'; see '%s --help'", word, cmd_name);
    else
        complain("unknown option '-%c'; see '%s --help'", optopt, cmd_name);
}

enum options_result options_parse(const struct option_set *set, int argc, char **argv, void *values,
                                  int *first_out)
{
    struct parser parser;
    int kind;

    parser_init(&parser, set);
    opterr = 0;
    optind = 0; /* glibc: start anew */
    while ((kind = getopt_long(argc, argv, parser.shorts, parser.longs, NULL)) != -1) {
        const struct option_def *def = parser_find(&parser, kind);

        if (kind == 'h') {
            print_help(set);
            return OPTIONS_HELP;
        }
        if (def == NULL) {
            complain_option(kind, &parser, argv[optind - 1]);
            return OPTIONS_BAD;
        }
        if (!store(def, optarg, field(def, values))) {
            complain_value(def, optarg);
            return OPTIONS_BAD;
        }
    }
    *first_out = optind;
    return OPTIONS_OK;
}

/* --- JSON --- */

static json_t *words_json(const struct option_def *def, unsigned bits)
{
    json_t *array = json_array();

    for (unsigned i = 0; def->words[i] != NULL; i++) {
        if (bits & 1u << i)
            json_array_append_new(array, json_string(def->words[i]));
    }
    return array;
}

static json_t *list_json(const struct text_list *list)
{
    json_t *array = json_array();

    for (unsigned i = 0; i < list->count; i++)
        json_array_append_new(array, json_string(list->items[i]));
    return array;
}

static json_t *sizes_json(const struct sizes *sizes)
{
    json_t *array = json_array();

    for (uint64_t size = sizes->from; size != 0; size = sizes_next(sizes, size))
        json_array_append_new(array, json_integer((json_int_t)size));
    return array;
}

static json_t *value_json(const struct option_def *def, const void *value)
{
    const char *text;

    switch (def->type) {
    case OPTION_FLAG:
        return json_boolean(*(const bool *)value);
    case OPTION_COUNT:
    case OPTION_BYTES:
        return json_integer((json_int_t) * (const uint64_t *)value);
    case OPTION_SIZES:
        return sizes_json(value);
    case OPTION_SECONDS:
        return json_real(*(const double *)value);
    case OPTION_TEXT:
        text = *(const char *const *)value;
        return text != NULL ? json_string(text) : json_null();
    case OPTION_LIST:
        return list_json(value);
    case OPTION_SET:
        return words_json(def, *(const unsigned *)value);
    }
    return json_null();
}

/* Keys carry their unit: --size is size_bytes, --seconds says it already. */
json_t *options_json(const struct option_set *set, const void *values)
{
    json_t *object = json_object();
    char key[64];

    for (const struct option_def *def = set->defs; def->name != NULL; def++) {
        bool bytes = def->type == OPTION_BYTES || def->type == OPTION_SIZES;

        snprintf(key, sizeof(key), "%s%s", def->name, bytes ? "_bytes" : "");
        for (char *p = key; *p != '\0'; p++) {
            if (*p == '-')
                *p = '_';
        }
        json_object_set_new(object, key, value_json(def, field_read(def, values)));
    }
    return object;
}

uint64_t sizes_next(const struct sizes *sizes, uint64_t size)
{
    uint64_t next;

    if (sizes->factor > 1 ? __builtin_mul_overflow(size, sizes->factor, &next)
                          : __builtin_add_overflow(size, sizes->step, &next))
        return 0;
    return next > sizes->to || sizes->from == sizes->to ? 0 : next;
}

unsigned sizes_count(const struct sizes *sizes)
{
    unsigned count = 0;

    for (uint64_t size = sizes->from; size != 0; size = sizes_next(sizes, size))
        count++;
    return count;
}
