/* SPDX-License-Identifier: MIT */
/* What kind of program a file is: whether a preloaded library can reach it. */
#ifndef VIADUCT_ELF_H
#define VIADUCT_ELF_H

#include <limits.h>
#include <stdbool.h>

enum elf_kind {
    ELF_DYNAMIC, /* the usual: reads LD_PRELOAD */
    ELF_STATIC,
    ELF_OTHER_MACHINE, /* or 32 bits: can't load our library */
    ELF_OTHER_LIBC,    /* a loader that is not glibc's */
    ELF_SCRIPT,        /* "#!": its interpreter counts */
    ELF_UNKNOWN,
};

struct elf_info {
    enum elf_kind kind;
    bool setuid;                /* or setgid */
    bool capabilities;          /* gets rights from the file: LD_PRELOAD is ignored as for setuid */
    char interpreter[PATH_MAX]; /* the loader, or the script's interpreter */
};

/* 0 or a negative errno if the file can't be read. */
int elf_inspect(const char *path, struct elf_info *info_out);

/*
 * One sentence why LD_PRELOAD does not reach this program, and what to do; NULL if it does.
 */
const char *elf_obstacle(const struct elf_info *info);

#endif
