/* Which taps of a window lie inside the map. */
#ifndef BD_WINDOW_H
#define BD_WINDOW_H

#include "bd_kernel.h"

typedef struct bd_taps {
    uint32_t first, end;
} bd_taps;

/* Taps t of k with 0 <= start + t * dilation < size. */
static inline bd_taps bd_inside(int32_t start, uint32_t k, uint32_t dilation, uint32_t size) {
    bd_taps taps = {0, k};
    while (taps.first < k && start + (int32_t)(taps.first * dilation) < 0) {
        taps.first++;
    }
    while (taps.end > taps.first && start + (int32_t)((taps.end - 1u) * dilation) >= (int32_t)size) {
        taps.end--;
    }
    return taps;
}

/* A coordinate of a map, or the nearest one where the padding replicates. */
static inline int32_t bd_at(const bd_step *step, int32_t at, uint32_t size) {
    if (step->pad_value == BD_PAD_REPLICATE) {
        at = at < 0 ? 0 : at;
        at = at >= (int32_t)size ? (int32_t)size - 1 : at;
    }
    return at;
}

/* One position of a window over in[0]. Padded taps of value 0 add nothing and are left out of rows and
 * columns; with padding of another value all taps are taken. */
typedef struct bd_window {
    int32_t y, x; /* of tap (0, 0) */
    bd_taps rows, columns;
} bd_window;

static inline bd_window bd_window_at(const bd_step *step, const bd_view *in, uint32_t y, uint32_t x) {
    bd_window w;
    w.y = (int32_t)(y * step->stride_h) - step->pad_top;
    w.x = (int32_t)(x * step->stride_w) - step->pad_left;
    w.rows.first = w.columns.first = 0;
    w.rows.end = step->kernel_h;
    w.columns.end = step->kernel_w;
    if (step->pad_value == 0) {
        w.rows = bd_inside(w.y, step->kernel_h, step->dilation_h, in->height);
        w.columns = bd_inside(w.x, step->kernel_w, step->dilation_w, in->width);
    }
    return w;
}

/* The weights of a window's taps as runs of adjacent taps: a run per row, or one run when no column is left
 * out. */
typedef struct bd_runs {
    uint32_t count, taps; /* runs, and taps in each */
    uint32_t first, step; /* tap index of the first run, and from run to run */
} bd_runs;

static inline bd_runs bd_runs_of(const bd_step *step, const bd_window *w) {
    bd_runs runs;
    runs.count = w->rows.end - w->rows.first;
    runs.taps = w->columns.end - w->columns.first;
    runs.first = w->rows.first * step->kernel_w + w->columns.first;
    runs.step = step->kernel_w;
    if (runs.taps == step->kernel_w) {
        runs.taps *= runs.count;
        runs.count = runs.count != 0;
    }
    return runs;
}

#endif
