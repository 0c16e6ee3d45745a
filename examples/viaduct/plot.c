/* SPDX-License-Identifier: MIT */
/*
 * A small writer of SVG plots. The x axis is marked at powers of two, where message sizes lie,
 * the y axis at 1, 2 and 5 times powers of ten.
 */
#include "plot.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define PANEL_WIDTH 480.0
#define PANEL_HEIGHT 360.0
#define LEFT 70.0
#define RIGHT 20.0
#define TOP 50.0
#define BOTTOM 50.0
#define LEGEND_LINE 16.0
#define LEGEND_ROWS 6.0 /* for PLOT_SERIES_MAX, three in a row */

static const char *const colours[] = {"#0b6e99", "#d1495b", "#3a7d44", "#edae49",
                                      "#6d4c8f", "#808080", "#00a6a6", "#8c510a"};
#define COLOUR_COUNT (sizeof(colours) / sizeof(colours[0]))
static const char *const dashes[] = {"none", "2 3", "8 3 2 3", "7 4", "12 4"};
#define DASH_COUNT (sizeof(dashes) / sizeof(dashes[0]))

void plot_add(struct plot_panel *panel, const char *name, struct plot_style style, double x,
              double y)
{
    struct plot_series *series = NULL;

    for (unsigned i = 0; i < panel->count && series == NULL; i++) {
        if (strcmp(panel->series[i].name, name) == 0)
            series = &panel->series[i];
    }
    if (series == NULL && panel->count < PLOT_SERIES_MAX) {
        series = &panel->series[panel->count++];
        snprintf(series->name, sizeof(series->name), "%s", name);
        series->style = style;
    }
    if (series == NULL || series->count == PLOT_POINTS_MAX || !(x > 0) || !(y > 0))
        return;
    series->x[series->count] = x;
    series->y[series->count++] = y;
}

/* --- scales --- */

struct scale {
    double low; /* logarithms */
    double high;
    double from; /* where they lie on the page */
    double to;
};

static double place(const struct scale *scale, double value)
{
    double part = (log10(value) - scale->low) / (scale->high - scale->low);

    return scale->from + part * (scale->to - scale->from);
}

static void include(struct scale *scale, double value)
{
    double l = log10(value);

    scale->low = l < scale->low ? l : scale->low;
    scale->high = l > scale->high ? l : scale->high;
}

/* A little air at both ends; a single value stands in the middle. */
static void widen(struct scale *scale)
{
    double air = (scale->high - scale->low) * 0.06;

    air = air > 0.05 ? air : 0.15;
    scale->low -= air;
    scale->high += air;
}

static void fit(const struct plot_panel *panel, double left, struct scale *x, struct scale *y)
{
    *x = (struct scale){INFINITY, -INFINITY, left + LEFT, left + PANEL_WIDTH - RIGHT};
    *y = (struct scale){INFINITY, -INFINITY, PANEL_HEIGHT - BOTTOM, TOP};
    for (unsigned i = 0; i < panel->count; i++) {
        for (unsigned p = 0; p < panel->series[i].count; p++) {
            include(x, panel->series[i].x[p]);
            include(y, panel->series[i].y[p]);
        }
    }
    widen(x);
    widen(y);
}

/* --- drawing --- */

static void draw_text(FILE *file, double x, double y, const char *anchor, const char *text)
{
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, text);
}

static void draw_line(FILE *file, double x1, double y1, double x2, double y2, const char *colour)
{
    fprintf(file, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1,
            x2, y2, colour);
}

static void size_text(char *text, size_t size, double bytes)
{
    if (bytes >= 1 << 20)
        snprintf(text, size, "%.0fM", bytes / (1 << 20));
    else if (bytes >= 1 << 10)
        snprintf(text, size, "%.0fK", bytes / (1 << 10));
    else
        snprintf(text, size, "%.0f", bytes);
}

static void draw_x_axis(FILE *file, const struct scale *x, const struct scale *y)
{
    char label[16];
    int first = (int)ceil(x->low / log10(2)), last = (int)floor(x->high / log10(2));
    int stride = (last - first) / 9 + 1;

    for (int power = first; power <= last; power += stride) {
        double at = place(x, exp2(power));

        size_text(label, sizeof(label), exp2(power));
        draw_line(file, at, y->from, at, y->to, "#e4e4e4");
        draw_text(file, at, y->from + 16, "middle", label);
    }
    draw_line(file, x->from, y->from, x->to, y->from, "#404040");
    draw_text(file, (x->from + x->to) / 2, y->from + 36, "middle", "message size (bytes)");
}

static void draw_y_axis(FILE *file, const struct plot_panel *panel, const struct scale *x,
                        const struct scale *y)
{
    static const double steps[] = {1, 2, 5};
    double middle = (y->from + y->to) / 2;
    char label[24];

    for (int power = (int)floor(y->low); power <= (int)ceil(y->high); power++) {
        for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
            double value = steps[i] * pow(10, power);
            double at = place(y, value);

            if (log10(value) < y->low || log10(value) > y->high)
                continue;
            snprintf(label, sizeof(label), "%g", value);
            draw_line(file, x->from, at, x->to, at, "#e4e4e4");
            draw_text(file, x->from - 6, at + 4, "end", label);
        }
    }
    draw_line(file, x->from, y->from, x->from, y->to, "#404040");
    fprintf(file,
            "<text transform=\"translate(%.1f %.1f) rotate(-90)\" text-anchor=\"middle\">%s"
            "</text>\n",
            x->from - 54, middle, panel->y_label);
}

static const char *colour_of(const struct plot_series *series)
{
    return colours[series->style.colour % COLOUR_COUNT];
}

static const char *dash_of(const struct plot_series *series)
{
    return dashes[series->style.dash % DASH_COUNT];
}

static void draw_series(FILE *file, const struct plot_series *series, const struct scale *x,
                        const struct scale *y)
{
    fprintf(file,
            "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"%s\" stroke-dasharray=\"%s\" "
            "points=\"",
            colour_of(series), dash_of(series));
    for (unsigned p = 0; p < series->count; p++)
        fprintf(file, "%.1f,%.1f ", place(x, series->x[p]), place(y, series->y[p]));
    fprintf(file, "\"/>\n");
    for (unsigned p = 0; p < series->count; p++) {
        fprintf(file,
                "<circle r=\"3\" cx=\"%.1f\" cy=\"%.1f\" fill=\"%s\"><title>%s: %g at %g bytes"
                "</title></circle>\n",
                place(x, series->x[p]), place(y, series->y[p]), colour_of(series), series->name,
                series->y[p], series->x[p]);
    }
}

static void draw_legend(FILE *file, double left, double top, unsigned index,
                        const struct plot_series *series)
{
    unsigned row = index / 3;
    double x = left + LEFT + 135.0 * (index % 3);
    double y = top + LEGEND_LINE * row;

    fprintf(file,
            "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
            "stroke-width=\"2\" stroke-dasharray=\"%s\"/>\n",
            x, y - 4, x + 26, y - 4, colour_of(series), dash_of(series));
    draw_text(file, x + 32, y, "start", series->name);
}

static void draw_panel(FILE *file, const struct plot_panel *panel, double left)
{
    struct scale x, y;

    fit(panel, left, &x, &y);
    draw_text(file, (x.from + x.to) / 2, TOP - 12, "middle", panel->title);
    draw_x_axis(file, &x, &y);
    draw_y_axis(file, panel, &x, &y);
    for (unsigned i = 0; i < panel->count; i++) {
        draw_series(file, &panel->series[i], &x, &y);
        draw_legend(file, left, PANEL_HEIGHT + 12, i, &panel->series[i]);
    }
}

int plot_write(const struct plot *plot, const char *path)
{
    double width = PANEL_WIDTH * plot->count;
    double height = PANEL_HEIGHT + LEGEND_LINE * LEGEND_ROWS;
    FILE *file = fopen(path, "we");
    int failed;

    if (file == NULL)
        return -errno;
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
            "height=\"%.0f\" font-family=\"sans-serif\" font-size=\"12\">\n<title>%s</title>\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
            width, height, width, height, plot->title);
    draw_text(file, width / 2, 20, "middle", plot->title);
    for (unsigned i = 0; i < plot->count; i++)
        draw_panel(file, &plot->panels[i], PANEL_WIDTH * i);
    fprintf(file, "</svg>\n");
    failed = ferror(file);
    return fclose(file) != 0 || failed ? -EIO : 0;
}
