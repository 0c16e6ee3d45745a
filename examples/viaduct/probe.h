/* SPDX-License-Identifier: MIT */
/* What doctor looks at, one function a question. */
#ifndef VIADUCT_PROBE_H
#define VIADUCT_PROBE_H

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

#endif
