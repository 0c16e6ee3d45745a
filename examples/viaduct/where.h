/* SPDX-License-Identifier: MIT */
/* Where things are: the library beside this command, and programs on the PATH. */
#ifndef VIADUCT_WHERE_H
#define VIADUCT_WHERE_H

#include <stddef.h>

/*
 * The libviaduct.so of the build or installation this command belongs to: the absolute path,
 * in a static buffer; NULL if there is none. tried_out, if not NULL, is the path that was
 * looked for first.
 */
const char *where_library(const char **tried_out);

/*
 * The file that execvp() would run for name. 0, or -ENOENT, or -EACCES when there is a file
 * that can't be executed; path_out is then that file.
 */
int where_program(const char *name, char *path_out, size_t size);

#endif
