/* The packing "forms3" of depth-wise 3x3 convolutions of bits or trits with weights of bits, for kernels that count in bit
 * planes: 32 channels a word.
 *
 * Of three vertical neighbours x0 x1 x2 and their weights w0 w1 w2, the mismatches y = x ^ w have the sum s + 2 c with
 *     s = y0 ^ y1 ^ y2,  c = ((y0 ^ y1) | (y0 ^ y2)) ^ s
 * and the three sums of bits in it are linear: a form of the inputs xor the same form of the weights. So
 *
 *     forms:  [words of channels][3 columns]{ w0 ^ w1, w0 ^ w2, w0 ^ w1 ^ w2 }
 *
 * A bit counts as a trit with two equal planes, a padded 0 has the planes 0 and 1, and n is the number of ones among the 18
 * bits x ^ w of both planes: the accumulator is 9 - n. Kernels ...
 *     i8__forms3   store 9 - n, byte 4 q + j of every 32 channels being channel 8 j + q (acc_order 1)
 *     u8__forms3   store n in the same order
 *     i8__forms3n  store 9 - n in natural order
 *     bit__forms3  store the bit "9 - n is below the channel's threshold". Behind the forms stands what makes it the carry
 *                  of an addition:
 *     limits: [words of channels][classes]{ bit 0, always, bits 1 .. P - 1 }
 *                  trits: P = 5, one class; n + limit >= 32.
 *                  bits:  P = 4; m + limit >= 16, m the mismatches of bits inside of the map. With padding by 0 classes 0 1 2
 *                         are for windows with 9, 6 and 4 taps inside of it, otherwise there is one. Where a bit is set in
 *                         `always`, it is set in `bit 0` and in all others too.
 *
 * Maps have two rows and columns at least and are padded by one at most; strides are 1 or 2. */
#ifndef BD_FORMS3_H
#define BD_FORMS3_H

#include "bd_bits.h"
#include "bd_check.h"

#define BD_FORMS3_ORDER 1u /* of the accumulators */

/* Columns that the windows of a row touch, padding included. */
static inline uint32_t bd_forms3_columns(const bd_step *step) {
    return ((uint32_t)step->out_width - 1u) * step->stride_w + 3u;
}

/* Pixels that a kernel may put into one word: those of 8 or 16 channels whose bytes stay in natural order. */
static inline uint32_t bd_forms3_lanes(const bd_step *step, const bd_view out[]) {
    const uint32_t channels = step->out_channels;
    return out->dtype == BD_BIT || out->order != 0 || (channels != 8u && channels != 16u) ? 1u
                                                                                          : 32u / channels;
}

/* Forms of both planes of all columns, sums of one plane of all pixels, a row of one word of channels; of 8 or 16 channels
 * also the forms of words of several pixels. */
static inline uint32_t bd_forms3_scratch(const bd_step *step) {
    const uint32_t channels = step->out_channels;
    const uint32_t lanes = channels == 8u || channels == 16u ? 32u / channels : 0;
    const uint32_t groups = lanes != 0 ? (step->out_width + lanes - 1u) / lanes : 0;
    return 24u * bd_forms3_columns(step) + 48u * step->out_width + 36u * groups;
}

/* Classes of limits; 0 where there are none. */
static inline uint32_t bd_forms3_classes(const bd_step *step, const bd_view in[], const bd_view out[]) {
    return out->dtype != BD_BIT ? 0 : in->dtype == BD_TRIT || step->pad_value != 0 ? 1u : 3u;
}

/* Bit 0: the window starts outside of the map; bit 1: it ends there. */
static inline uint32_t bd_forms3_missing(uint32_t first, uint32_t pad, uint32_t size) {
    return (first < pad ? 1u : 0u) | (first + 3u > size + pad ? 2u : 0u);
}

#endif
