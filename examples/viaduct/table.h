/* SPDX-License-Identifier: MIT */
/* A framed table of text cells, for people; the same cells as CSV, for programs. */
#ifndef VIADUCT_TABLE_H
#define VIADUCT_TABLE_H

#include <stdio.h>

#define TABLE_COLUMNS_MAX 16
#define TABLE_CELL_MAX 32

struct table {
    const char *heads[TABLE_COLUMNS_MAX];
    unsigned columns;
    unsigned rows;
    unsigned used; /* cells filled in the row that is being made */
    char (*cells)[TABLE_CELL_MAX];
};

/* The heads must outlive the table. Columns whose cells are numbers are right-aligned. */
void table_init(struct table *table, const char *const *heads, unsigned columns);

/* The next cell, from left to right, row by row. */
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A number with about four significant digits and no unit. */
void table_number(struct table *table, double value);

void table_print(const struct table *table, FILE *file);
void table_print_csv(const struct table *table, FILE *file);
void table_free(struct table *table);

#endif
