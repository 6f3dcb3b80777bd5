/* Point-wise convolution of 8, 16 or 32 bits on 32-bit Arm with NEON: a body for the variant in conv_tile16.c. */
#ifndef BD_NEON32_CONV_NARROW_H
#define BD_NEON32_CONV_NARROW_H

#include "bd_bits.h"
#include "neon32.h"

/* Pixels that lie x_step bytes apart. */
typedef struct bd_conv_narrow {
    const uint8_t *x, *weights; /* weights: [outputs][channels / 8] */
    const int16_t *low;         /* thresholds of the outputs: bits are stored; NULL: int16 accumulators */
    uint8_t *to;
    uint32_t channels, outputs, count, x_step, to_step;
} bd_conv_narrow;

/* Sums of neighbouring bytes, of a and behind them of b. */
BD_INLINE uint8x16_t bd_pairs(uint8x16_t a, uint8x16_t b) {
    return vcombine_u8(vpadd_u8(vget_low_u8(a), vget_high_u8(a)), vpadd_u8(vget_low_u8(b), vget_high_u8(b)));
}

/* Mismatches of a pixel with 16 outputs, whose weights are `vectors` vectors. */
BD_INLINE uint8x16_t bd_narrow_counts(const uint8_t *x, const uint8x16_t w[4], uint32_t vectors) {
    const uint8x16_t v = vectors == 1u   ? vld1q_dup_u8(x)
                         : vectors == 2u ? vreinterpretq_u8_u16(vld1q_dup_u16((const void *)x))
                                         : vreinterpretq_u8_u32(vld1q_dup_u32((const void *)x));
    const uint8x16_t a = vcntq_u8(veorq_u8(v, w[0]));
    if (vectors == 1u) {
        return a;
    }
    const uint8x16_t b = bd_pairs(a, vcntq_u8(veorq_u8(v, w[1])));
    return vectors == 2u ? b
                         : bd_pairs(b, bd_pairs(vcntq_u8(veorq_u8(v, w[2])), vcntq_u8(veorq_u8(v, w[3]))));
}

/* The smallest count that is enough for a bit: counts end at 32. */
BD_INLINE uint8x8_t bd_narrow_limits(const int16_t *low, uint32_t channels) {
    const int16x8_t most = vhsubq_s16(vdupq_n_s16((int16_t)channels), vld1q_s16(low));
    return vqmovun_s16(vqaddq_s16(most, vdupq_n_s16(1)));
}

BD_INLINE void bd_narrow_pixels(const bd_conv_narrow *p, uint32_t vectors) {
    static const uint8_t of[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t places = vld1q_u8(of);
    const int8x16_t half = vdupq_n_s8((int8_t)(p->channels / 2u));
    const uint32_t step = p->x_step, to_step = p->to_step;
    for (uint32_t o = 0; o < p->outputs; o += 16u) {
        const uint8_t *x = p->x, *from = p->weights + o * vectors;
        uint8_t *to = p->to + (p->low != NULL ? o / 8u : 2u * o);
        uint8x16_t w[4];
        UNROLLED
        for (uint32_t k = 0; k < 4u; k++) {
            w[k] = vld1q_u8(from + 16u * (k < vectors ? k : 0u));
        }
        if (p->low != NULL) {
            const uint8x16_t limits = vcombine_u8(bd_narrow_limits(p->low + o, p->channels),
                                                  bd_narrow_limits(p->low + o + 8, p->channels));
            for (uint32_t left = p->count; left != 0; left--, x += step, to += to_step) {
                const uint8x16_t bits = vandq_u8(vcgeq_u8(bd_narrow_counts(x, w, vectors), limits), places);
                uint8x8_t v = vpadd_u8(vget_low_u8(bits), vget_high_u8(bits));
                v = vpadd_u8(v, v);
                vst1_lane_u16((void *)to, vreinterpret_u16_u8(vpadd_u8(v, v)), 0);
            }
            continue;
        }
        for (uint32_t left = p->count; left != 0; left--, x += step, to += to_step) {
            const uint8x16_t c = bd_narrow_counts(x, w, vectors);
            const int8x16_t d = vsubq_s8(half, vreinterpretq_s8_u8(c));
            vst1q_s16((void *)to, vshll_n_s8(vget_low_s8(d), 1));
            vst1q_s16((void *)(to + 16), vshll_n_s8(vget_high_s8(d), 1));
        }
    }
}

static inline void bd_conv_narrow_pixels(const bd_conv_narrow *p) {
    if (p->channels == 8u) {
        bd_narrow_pixels(p, 1);
    } else if (p->channels == 16u) {
        bd_narrow_pixels(p, 2);
    } else {
        bd_narrow_pixels(p, 4);
    }
}

#endif
