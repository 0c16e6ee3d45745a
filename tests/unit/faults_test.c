/* SPDX-License-Identifier: MIT */
/* VIADUCT_FAULTS: each option, and for each wrong value a line that says which, why, what instead.
 */
#include "core/config_faults.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "t.h"

static struct config_faults faults;
static char err[CONFIG_ERR_MAX];

static int parse(const char *text)
{
    memset(&faults, 0, sizeof(faults));
    err[0] = '\0';
    return config_parse_faults(text, &faults, err, sizeof(err));
}

/* A rate as parts of 2^32. */
static uint32_t part(double rate)
{
    return (uint32_t)(rate * 4294967296.0);
}

T_TEST(faults, each_rate)
{
    static const struct {
        const char *text;
        double rate;
    } rates[] = {{"0", 0},    {"0%", 0},        {"1%", 0.01},  {"0.01", 0.01},
                 {".5", 0.5}, {"12.5%", 0.125}, {"99%", 0.99}, {"1e-3", 0.001}};
    static const char *const names[] = {"loss", "dup", "reorder", "corrupt"};
    const uint32_t *const fields[] = {&faults.loss, &faults.duplicate, &faults.reorder,
                                      &faults.corrupt};
    char text[64];

    for (unsigned n = 0; n < 4; n++) {
        for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
            snprintf(text, sizeof(text), "%s=%s", names[n], rates[i].text);
            T_EQ(parse(text), 0);
            for (unsigned k = 0; k < 4; k++)
                T_EQ(*fields[k], k == n ? part(rates[i].rate) : 0);
            T_EQ(faults.any, rates[i].rate > 0);
        }
    }
}

T_TEST(faults, always)
{
    /* 100 % is each packet, though 2^32 has no place in 32 bits. */
    T_EQ(parse("loss=100%"), 0);
    T_EQ(faults.loss, UINT32_MAX);
    T_EQ(parse("loss=1"), 0);
    T_EQ(faults.loss, UINT32_MAX);
}

T_TEST(faults, delay)
{
    static const struct {
        const char *text;
        uint64_t ns;
    } times[] = {{"0s", 0},          {"7ns", 7},         {"50us", 50000},
                 {"1.5ms", 1500000}, {"2s", 2000000000}, {"60s", 60000000000}};
    char text[64];

    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        snprintf(text, sizeof(text), "delay=%s", times[i].text);
        T_EQ(parse(text), 0);
        T_EQ(faults.delay_ns, times[i].ns);
        T_EQ(faults.any, times[i].ns > 0);
    }
}

T_TEST(faults, seed)
{
    T_EQ(parse("seed=7"), 0);
    T_EQ(faults.seed, 7);
    T_ASSERT(!faults.any); /* a seed alone spoils nothing */
    T_EQ(parse("seed=0x10"), 0);
    T_EQ(faults.seed, 16);
    T_EQ(parse("seed=18446744073709551615"), 0);
    T_EQ(faults.seed, UINT64_MAX);
}

T_TEST(faults, all_of_them)
{
    T_EQ(parse("loss=1%,dup=0.1%,reorder=2%,corrupt=3%,delay=50us,seed=7"), 0);
    T_ASSERT(faults.any);
    T_EQ(faults.loss, part(0.01));
    T_EQ(faults.duplicate, part(0.001));
    T_EQ(faults.reorder, part(0.02));
    T_EQ(faults.corrupt, part(0.03));
    T_EQ(faults.delay_ns, 50000);
    T_EQ(faults.seed, 7);
    T_EQ(parse("seed=7,loss=1%"), 0); /* in any order */
    T_EQ(faults.loss, part(0.01));
}

/* ---- what is refused ---- */

struct bad {
    const char *text;
    const char *word; /* that is wrong, as the line quotes it */
    const char *why, *instead;
};

static const char rates[] = "a rate from 0% to 100%, or from 0 to 1, such as ";
static const char time_text[] =
    "a time up to 60s with its unit: ns, us, ms or s, such as delay=50us";
static const char seeds[] = "a whole number below 2^64, such as seed=7";
static const char names[] = "one of loss, dup, reorder, corrupt, delay, seed";
static const char cant[] = "has a value that can't be";

static void refused(const struct bad *bad)
{
    char quoted[64];

    T_EQ(parse(bad->text), -EINVAL);
    T_ASSERT(strncmp(err, "VIADUCT_FAULTS=\"", 16) == 0, "%s: %s", bad->text, err);
    snprintf(quoted, sizeof(quoted), ": \"%s\" %s; write ", bad->word, bad->why);
    T_ASSERT(strstr(err, quoted), "%s: %s", bad->text, err);
    const char *write = strstr(err, "; write ");
    T_ASSERT(write && strstr(write, bad->instead), "%s: %s", bad->text, err);
    T_ASSERT(!strchr(err, '\n'), "%s", err);
}

T_TEST(faults_refused, names)
{
    static const struct bad bad[] = {
        {"lost=1%", "lost=1%", "is no fault", names},
        {"LOSS=1%", "LOSS=1%", "is no fault", names},
        {" loss=1%", " loss=1%", "is no fault", names},
        {"los=1%", "los=1%", "is no fault", names},
        {"losses=1%", "losses=1%", "is no fault", names},
        {"=1%", "=1%", "is no fault", names},
        {"loss=1%;dup=1%", "loss=1%;dup=1%", cant, rates},
        {"loss=1%,,dup=1%", "", "between two commas is no fault", names},
        {"loss=1%,", "", "between two commas is no fault", names},
        {"loss=1%,what", "what", "is no fault", names},
        {"loss", "loss", "has no value", rates},
        {"dup=1%,delay", "delay", "has no value", time_text},
        {"seed", "seed", "has no value", seeds},
        {"loss=1%,dup=1%,loss=2%", "loss=2%", "stands for the second time", "it once"},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        refused(&bad[i]);
}

T_TEST(faults_refused, rates)
{
    static const char *const options[][2] = {{"loss", "loss=1%"},
                                             {"dup", "dup=0.1%"},
                                             {"reorder", "reorder=1%"},
                                             {"corrupt", "corrupt=0.1%"}};
    static const char *const values[] = {"",    "x",   "-1%",  "101%", "1.5", "1%%",
                                         "1 %", "1us", "nan",  "inf",  "%",   "+1%",
                                         " 1%", "1%x", "1e9%", "0.5.5"};
    char text[64], instead[128];

    for (size_t n = 0; n < sizeof(options) / sizeof(options[0]); n++) {
        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
            snprintf(text, sizeof(text), "%s=%s", options[n][0], values[i]);
            snprintf(instead, sizeof(instead), "%s%s", rates, options[n][1]);
            refused(&(struct bad){text, text, cant, instead});
        }
    }
}

T_TEST(faults_refused, times_and_seeds)
{
    static const char *const times[] = {"",   "50",  "us",   "-1us",  "50 us", "50us ",
                                        "1m", "61s", "nans", "1e99s", "50US",  "1%"};
    static const char *const numbers[] = {"",   "x",  "-1", "7x", "1.5",
                                          "+7", " 7", "7 ", "0x", "18446744073709551616"};
    char text[64];

    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        snprintf(text, sizeof(text), "delay=%s", times[i]);
        refused(&(struct bad){text, text, cant, time_text});
    }
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        snprintf(text, sizeof(text), "seed=%s", numbers[i]);
        refused(&(struct bad){text, text, cant, seeds});
    }
}

T_TEST(faults_refused, endless_text)
{
    /* The line stays a line, whatever the text. */
    char text[2000];

    memset(text, 'a', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    T_EQ(parse(text), -EINVAL);
    T_ASSERT(strlen(err) < 300 && strstr(err, names), "%s", err);
    memcpy(text, "loss=", 5);
    T_EQ(parse(text), -EINVAL);
    T_ASSERT(strlen(err) < 300 && strstr(err, rates), "%s", err);
}
