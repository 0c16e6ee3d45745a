/* SPDX-License-Identifier: MIT */
/* What doctor looks at, one function a question. */
#ifndef VIADUCT_PROBE_H
#define VIADUCT_PROBE_H

#include <stdint.h>

enum probe_level {
    PROBE_OK,
    PROBE_NOTE, /* nothing wrong, worth knowing */
    PROBE_WARN, /* works, but slower or not for everything */
    PROBE_FAIL, /* via0 can't be used */
};

struct finding {
    enum probe_level level;
    char text[512];
    char mend[512]; /* empty: nothing to do */
};

struct probe {
    const char *name;
    void (*run)(struct finding *finding);
};

/* In the order in which they should be asked; name NULL at the end. */
extern const struct probe probes[];

/* Whether via0 gets under this program, and the programs that its scripts start. */
void probe_program(const char *name, struct finding *finding);

/* Whether via0 is under this running process; if not, why. */
void probe_process(uint64_t pid, struct finding *finding);

/* For those who look: what they found, and what to do about it. */
__attribute__((format(printf, 3, 4))) void
finding_set(struct finding *finding, enum probe_level level, const char *format, ...);
__attribute__((format(printf, 2, 3))) void finding_mend(struct finding *finding, const char *format,
                                                        ...);

#endif
