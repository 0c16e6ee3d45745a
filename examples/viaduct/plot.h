/* SPDX-License-Identifier: MIT */
/* A small writer of SVG plots: one panel a test, one line a series, both axes logarithmic. */
#ifndef VIADUCT_PLOT_H
#define VIADUCT_PLOT_H

#define PLOT_PANELS_MAX 3
#define PLOT_SERIES_MAX 16
#define PLOT_POINTS_MAX 64

/* How a line looks: colours and dashes go by number, dash 0 is a whole line. */
struct plot_style {
    unsigned colour;
    unsigned dash;
};

struct plot_series {
    char name[40];
    struct plot_style style;
    unsigned count;
    double x[PLOT_POINTS_MAX];
    double y[PLOT_POINTS_MAX];
};

struct plot_panel {
    const char *title;
    const char *y_label;
    unsigned count;
    struct plot_series series[PLOT_SERIES_MAX];
};

struct plot {
    const char *title;
    unsigned count;
    struct plot_panel panels[PLOT_PANELS_MAX];
};

/* Points must be over 0. A series is made when its name is new; what does not fit is dropped. */
void plot_add(struct plot_panel *panel, const char *series, struct plot_style style, double x,
              double y);

/* Write the file. 0 or a negative errno. */
int plot_write(const struct plot *plot, const char *path);

#endif
