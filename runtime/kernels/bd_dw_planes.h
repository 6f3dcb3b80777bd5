/* The packing "planes" of depth-wise 3x3 convolutions with bit weights that store packed bits: thresholds in bit planes, next to the
 * weights.
 *
 * An output is negative, a 1, where its n mismatches are at least t. Of bits n counts mismatched taps (n <= 9, the accumulator is
 * taps - 2 n); of trits, as two thermometer planes, mismatched bits of both (n <= 18, taps - n). Added in bit planes,
 * n + (15 - t) + 1 has a carry out of four bits exactly there, and so has n + (31 - t) + 1 out of five. Nothing is expanded.
 *
 *     weights: uint32 [3][3][ceil(C / 32)]
 *     limits:  uint32 [9, 6, 4 taps inside of the map][4 or 5 planes][ceil(C / 32)], bits of 15 - t or 31 - t
 *
 * Zero padding of one pixel at most: a window sees two or three rows, and two or three columns. */
#ifndef BD_DW_PLANES_H
#define BD_DW_PLANES_H

#include "bd_kernel.h"

/* Planes of words in front of the limits for windows that see so many taps. */
static inline uint32_t bd_dw_planes_at(uint32_t taps, uint32_t planes) {
    return 9u + planes * (taps == 9u ? 0u : taps == 6u ? 1u : 2u);
}

#endif
