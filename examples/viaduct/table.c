/* SPDX-License-Identifier: MIT */
/* A framed table of text cells. */
#include "table.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void table_init(struct table *table, const char *const *heads, unsigned columns)
{
    memset(table, 0, sizeof(*table));
    table->columns = columns;
    memcpy(table->heads, heads, columns * sizeof(heads[0]));
}

static void row_begin(struct table *table)
{
    size_t bytes = (size_t)(table->rows + 1) * table->columns * TABLE_CELL_MAX;
    void *cells = realloc(table->cells, bytes);

    if (cells == NULL)
        abort();
    table->cells = cells;
    table->rows++;
    table->used = 0;
}

void table_cell(struct table *table, const char *format, ...)
{
    va_list args;
    size_t index;

    if (table->rows == 0 || table->used == table->columns)
        row_begin(table);
    index = (size_t)(table->rows - 1) * table->columns + table->used++;
    va_start(args, format);
    vsnprintf(table->cells[index], TABLE_CELL_MAX, format, args);
    va_end(args);
}

void table_number(struct table *table, double value)
{
    double size = fabs(value);
    int decimals = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 4;

    table_cell(table, "%.*f", decimals, value);
}

static const char *cell(const struct table *table, unsigned row, unsigned column)
{
    return table->cells[(size_t)row * table->columns + column];
}

static int width_of(const struct table *table, unsigned column)
{
    size_t width = strlen(table->heads[column]);

    for (unsigned row = 0; row < table->rows; row++) {
        size_t length = strlen(cell(table, row, column));

        width = length > width ? length : width;
    }
    return (int)width;
}

static bool is_number(const struct table *table, unsigned column)
{
    return table->rows > 0 && isdigit((unsigned char)cell(table, 0, column)[0]);
}

static void print_rule(const struct table *table, FILE *file)
{
    for (unsigned column = 0; column < table->columns; column++) {
        fputc('+', file);
        for (int i = width_of(table, column) + 2; i > 0; i--)
            fputc('-', file);
    }
    fputs("+\n", file);
}

static void print_cell(const struct table *table, unsigned column, const char *text, FILE *file)
{
    int width = width_of(table, column);

    fprintf(file, "| %*s ", is_number(table, column) ? width : -width, text);
}

void table_print(const struct table *table, FILE *file)
{
    print_rule(table, file);
    for (unsigned column = 0; column < table->columns; column++)
        print_cell(table, column, table->heads[column], file);
    fputs("|\n", file);
    print_rule(table, file);
    for (unsigned row = 0; row < table->rows; row++) {
        for (unsigned column = 0; column < table->columns; column++)
            print_cell(table, column, cell(table, row, column), file);
        fputs("|\n", file);
    }
    print_rule(table, file);
}

void table_print_csv(const struct table *table, FILE *file)
{
    for (unsigned column = 0; column < table->columns; column++)
        fprintf(file, "%s%s", column > 0 ? "," : "", table->heads[column]);
    fputc('\n', file);
    for (unsigned row = 0; row < table->rows; row++) {
        for (unsigned column = 0; column < table->columns; column++)
            fprintf(file, "%s%s", column > 0 ? "," : "", cell(table, row, column));
        fputc('\n', file);
    }
}

void table_free(struct table *table)
{
    free(table->cells);
}
