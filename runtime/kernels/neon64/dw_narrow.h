/* Depth-wise 3x3 convolution with 8, 16, 32 or 64 channels on AArch64: bodies for the variant in dw_packed.c. */
#ifndef BD_NEON64_DW_NARROW_H
#define BD_NEON64_DW_NARROW_H

#include "bd_kernel.h"

/* A row of the output. */
typedef struct bd_dw_narrow {
    const uint8_t
        *x[3]; /* the two or three rows of the window inside of the map; with two, x[2] is not read */
    const uint8_t *w[3]; /* the same rows' weights */
    size_t plane;        /* bytes from a trit's plane to its other one */
    uint32_t in_width, width, channels;
    uint32_t stride, height, trits; /* stride: 1 or 2; height: 2 or 3 rows */
    int8_t *to;
} bd_dw_narrow;

/* Whether rows of these widths have a body: one column of padding to the left, and to the right for stride 1. */
int bd_dw_narrow_takes(uint32_t channels, uint32_t stride, uint32_t in_width, uint32_t width);

void bd_dw_narrow_row(const bd_dw_narrow *row);

#endif
