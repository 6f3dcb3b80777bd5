/* Point-wise convolution of 8, 16 or 32 bits on AArch64: bodies for the variant in conv_tile16.c. */
#ifndef BD_NEON64_CONV_NARROW_H
#define BD_NEON64_CONV_NARROW_H

#include "bd_bits.h"

/* Pixels that lie x_step bytes apart. */
typedef struct bd_conv_narrow {
    const uint8_t *x, *weights; /* weights: [outputs][channels / 8] */
    const int16_t *low;         /* thresholds of the outputs: bits are stored; NULL: int16 accumulators */
    uint8_t *to;
    uint32_t channels, outputs, count, x_step, to_step;
} bd_conv_narrow;

void bd_conv_narrow_pixels(const bd_conv_narrow *pixels);

#endif
