/* What the 8-bit convolutions of the sets neon64 and dotprod share in front of their arithmetic. */
#ifndef BD_NEON_CONV_I8_H
#define BD_NEON_CONV_I8_H

#include <arm_neon.h>

#include "bd_bits.h"
#include "bd_border.h"
#include "bd_kernels.h"
#include "bd_window.h"

#define ROWS    16u    /* of taps */
#define TAPS    256u   /* of one pass; a multiple of 16 */
#define OUTPUTS 64u    /* of one pass; a multiple of 8 */
#define ROOM    16384u /* elements of decoded rows */

typedef struct job {
    const bd_step *step;
    const bd_view *in;
    const int8_t *weights;
    const bd_border *border; /* NULL: nothing is added */
    uint32_t outputs, taps;
    uint32_t row_elements;    /* of one row of a window */
    uint32_t together, pitch; /* pixels of which rows are decoded at once; elements of such a row */
    const void *lines[ROWS];  /* rows of taps of the present output row, decoded */
} job;

/* Eight sums to `width` outputs of a pixel, all eight in most calls. */
BD_INLINE void store_sums(int32_t *to, int32x4_t low, int32x4_t high, uint32_t width) {
    if (width == 8u) {
        vst1q_s32(to, low);
        vst1q_s32(to + 4, high);
    } else {
        int32_t sums[8];
        vst1q_s32(sums, low);
        vst1q_s32(sums + 4, high);
        for (uint32_t i = 0; i < width; i++) {
            to[i] = sums[i];
        }
    }
}

/* The sums that are there. */
BD_INLINE void load_sums(int32x4_t sum[2], const int32_t *from, uint32_t width) {
    int32_t sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (width == 8u) {
        sum[0] = vld1q_s32(from);
        sum[1] = vld1q_s32(from + 4);
    } else {
        for (uint32_t i = 0; i < width; i++) {
            sums[i] = from[i];
        }
        sum[0] = vld1q_s32(sums);
        sum[1] = vld1q_s32(sums + 4);
    }
}

#endif
