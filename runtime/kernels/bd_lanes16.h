/* The packing "lanes16" of fixed-point epilogues: parameters of 16 bits, of 16 channels together. At bd_epilogue.mul lie a
 * bd_lanes16 and a bd_lanes16_block for every 16 channels begun; of 8 channels each stands twice, other lanes without a
 * channel are zeros. With wrap16 and wrap32
 * modulo 2**16 and 2**32, sat16 and sat32 saturating, and >> to minus infinity:
 *
 *     t = wrap16(acc << shift), or sat16(acc >> -shift) of 32-bit accumulators
 *     s = wrap32(t * mul + add)
 *     v = s >> 16                                                           no residual
 *         sat16((s >> 16) + r)                                              ONE
 *         sat32(s - sat32(2 * r * twice)) >> 16                             TWICE: minus half of the factor
 *         sat32(wrap32(s + r * once) - sat32(2 * r * twice)) >> 16          BOTH
 *     p = sat16(2 * v * slope >> 16)
 *     y = v                                                                 no slopes
 *         max(v, p)                                                         EVEN: slope is half of the factor
 *         max(v, p >> 1)                                                    HALF: slope is the factor
 *         max(v, (v + p) >> 1)                                              ODD: slope is the factor - 32768
 *         max(up(v), sat16((((v & keep) + p) >> 1) + grow(v)))              ANY
 *     out[1]: y < low, y < high
 *
 * up and grow shift to the left, saturating; a `grow` of -16 is 0. The exporter takes the cheapest form that is the same number
 * as the general epilogue for everything that the accumulators and the residual can be. All arrays are there in every form. */
#ifndef BD_LANES16_H
#define BD_LANES16_H

#include "bd_epilogue.h"

enum { BD_LANES16_NONE, BD_LANES16_ONE, BD_LANES16_TWICE, BD_LANES16_BOTH };
enum { BD_LANES16_FLAT, BD_LANES16_EVEN, BD_LANES16_HALF, BD_LANES16_ODD, BD_LANES16_ANY };

typedef struct bd_lanes16 {
    uint8_t residual; /* BD_LANES16_NONE to BOTH */
    uint8_t slopes;   /* BD_LANES16_FLAT to ANY */
    uint8_t reserved[14];
} bd_lanes16;
BD_STATIC_ASSERT(lanes16, sizeof(bd_lanes16) == 16);

typedef struct bd_lanes16_block {
    int32_t add[16];
    int16_t mul[16], twice[16], once[16];
    int16_t slope[16], keep[16], grow[16], up[16]; /* keep is 0 or -1, grow -16 or 0 to 7, up 0 to 7 */
    int16_t low[16], high[16];                     /* -32768 where there is no such threshold */
} bd_lanes16_block;
BD_STATIC_ASSERT(lanes16_block, sizeof(bd_lanes16_block) == 352);

BD_INLINE const bd_lanes16 *bd_lanes16_of(const uint8_t *constants, const bd_epilogue *e) {
    return (const void *)(constants + e->mul);
}

BD_INLINE const bd_lanes16_block *bd_lanes16_blocks(const bd_lanes16 *head) {
    return (const void *)(head + 1);
}

#endif
