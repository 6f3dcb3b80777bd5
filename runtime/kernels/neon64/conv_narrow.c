/* Point-wise convolution of 8, 16 or 32 bits on AArch64: 16 outputs of one pixel at once, their weights in registers.
 *
 * Every output's bits stand in 1, 2 or 4 bytes of 1, 2 or 4 vectors, and so does the pixel, again and again. The tree of `addp`
 * ends with a byte an output. */
#include "conv_narrow.h"

#include <arm_neon.h>

typedef uint8x16_t bytes;

enum { PIXELS = 4 }; /* whose bits are packed together */

/* The same bytes throughout. */
BD_INLINE bytes repeated(const uint8_t *x, uint32_t each) {
    if (each == 1u) {
        return vld1q_dup_u8(x);
    }
    return each == 2u ? vreinterpretq_u8_u16(vld1q_dup_u16((const void *)x))
                      : vreinterpretq_u8_u32(vld1q_dup_u32((const void *)x));
}

BD_INLINE bytes differ(bytes x, bytes w) {
    return vcntq_u8(veorq_u8(x, w));
}

/* Mismatches of 16 outputs. */
BD_INLINE bytes count(const uint8_t *x, const bytes w[4], uint32_t each) {
    const bytes v = repeated(x, each);
    if (each == 1u) {
        return differ(v, w[0]);
    }
    const bytes low = vpaddq_u8(differ(v, w[0]), differ(v, w[1]));
    return each == 2u ? low : vpaddq_u8(low, vpaddq_u8(differ(v, w[2]), differ(v, w[3])));
}

/* K - 2 n = 2 (K / 2 - n). */
BD_INLINE void store(uint8_t *to, bytes n, int8x16_t half) {
    const int8x16_t d = vsubq_s8(half, vreinterpretq_s8_u8(n));
    const int16x8x2_t both = {{vshll_n_s8(vget_low_s8(d), 1), vshll_high_n_s8(d, 1)}};
    vst1q_s16_x2((void *)to, both);
}

/* The smallest counts that make outputs negative: K - 2 n < low, which is (K - low) >> 1 < n. */
BD_INLINE bytes limits(const int16_t *low, uint32_t channels) {
    const int16x8_t k = vdupq_n_s16((int16_t)channels), one = vdupq_n_s16(1);
    const int16x8_t a = vqaddq_s16(vhsubq_s16(k, vld1q_s16(low)), one);
    const int16x8_t b = vqaddq_s16(vhsubq_s16(k, vld1q_s16(low + 8)), one);
    return vcombine_u8(vqmovun_s16(a), vqmovun_s16(b));
}

/* Bits of 16 outputs of `pixels` pixels. */
BD_INLINE void store_bits(uint8_t *to, uint32_t step, const bytes mask[PIXELS], uint32_t pixels) {
    static const uint8_t places[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const bytes place = vld1q_u8(places);
    bytes v[PIXELS];
    for (uint32_t i = 0; i < PIXELS; i++) {
        v[i] = vandq_u8(mask[i < pixels ? i : 0], place);
    }
    v[0] = vpaddq_u8(vpaddq_u8(v[0], v[1]), vpaddq_u8(v[2], v[3]));
    const uint16x8_t words = vreinterpretq_u16_u8(vpaddq_u8(v[0], v[0]));
    vst1q_lane_u16((void *)to, words, 0);
    if (pixels == PIXELS) {
        vst1q_lane_u16((void *)(to + step), words, 1);
        vst1q_lane_u16((void *)(to + 2u * step), words, 2);
        vst1q_lane_u16((void *)(to + 3u * step), words, 3);
    }
}

BD_INLINE void pixels_of(const bd_conv_narrow *o, const uint8_t *x, uint8_t *to, const bytes w[4],
                         bytes limit, uint32_t each, int packed, uint32_t pixels) {
    bytes mask[PIXELS];
    const int8x16_t half = vdupq_n_s8((int8_t)(4u * each));
    for (uint32_t i = 0; i < pixels; i++) {
        const bytes n = count(x + (size_t)i * o->x_step, w, each);
        if (packed) {
            mask[i] = vcleq_u8(limit, n);
        } else {
            store(to + (size_t)i * o->to_step, n, half);
        }
    }
    if (packed) {
        store_bits(to, o->to_step, mask, pixels);
    }
}

BD_INLINE void outputs_of(const bd_conv_narrow *o, uint32_t each, int packed) {
    for (uint32_t k = 0; k < o->outputs; k += 16u) {
        const bytes limit = packed ? limits(o->low + k, 8u * each) : vdupq_n_u8(0);
        const uint8_t *x = o->x;
        uint8_t *to = o->to + (packed ? k / 8u : 2u * k);
        bytes w[4];
        for (uint32_t i = 0; i < each; i++) {
            w[i] = vld1q_u8(o->weights + each * k + 16u * i);
        }
        uint32_t left = o->count;
        for (; left >= PIXELS; left -= PIXELS) {
            pixels_of(o, x, to, w, limit, each, packed, PIXELS);
            x += (size_t)PIXELS * o->x_step;
            to += (size_t)PIXELS * o->to_step;
        }
        for (; left != 0; left--, x += o->x_step, to += o->to_step) {
            pixels_of(o, x, to, w, limit, each, packed, 1);
        }
    }
}

#define BODY(each)                                                                                           \
    static BD_APART void values_##each(const bd_conv_narrow *o) {                                            \
        outputs_of(o, each, 0);                                                                              \
    }                                                                                                        \
    static BD_APART void bits_##each(const bd_conv_narrow *o) {                                              \
        outputs_of(o, each, 1);                                                                              \
    }

BODY(1)
BODY(2)
BODY(4)

void bd_conv_narrow_pixels(const bd_conv_narrow *o) {
    const int packed = o->low != NULL;
    switch (o->channels) {
    case 8:
        (packed ? bits_1 : values_1)(o);
        break;
    case 16:
        (packed ? bits_2 : values_2)(o);
        break;
    default:
        (packed ? bits_4 : values_4)(o);
    }
}
