/* Average pooling on AArch64, vectors of channels at once: generic/pool.c. Over windows of 2x2, and sums of whole maps.
 *
 * 1 / 4 is exact, so that a mean is (sum + 2) >> 2, a rounding shift, and always in range. The last channels of a pixel are made
 * with some that are done; a pixel of less than a vector and other windows are the plain kernel's. */
#include <arm_neon.h>

#include "bd_bits.h"
#include "bd_kernels.h"

BD_INLINE int16x8_t four_i16(int16x8_t a, int16x8_t b, int16x8_t c, int16x8_t d) {
    const int32x4_t low =
        vaddw_s16(vaddw_s16(vaddl_s16(vget_low_s16(a), vget_low_s16(b)), vget_low_s16(c)), vget_low_s16(d));
    const int32x4_t high = vaddw_high_s16(vaddw_high_s16(vaddl_high_s16(a, b), c), d);
    return vrshrn_high_n_s32(vrshrn_n_s32(low, 2), high, 2);
}

BD_INLINE int8x16_t four_i8(int8x16_t a, int8x16_t b, int8x16_t c, int8x16_t d) {
    const int16x8_t low =
        vaddw_s8(vaddw_s8(vaddl_s8(vget_low_s8(a), vget_low_s8(b)), vget_low_s8(c)), vget_low_s8(d));
    const int16x8_t high = vaddw_high_s8(vaddw_high_s8(vaddl_high_s8(a, b), c), d);
    return vrshrn_high_n_s16(vrshrn_n_s16(low, 2), high, 2);
}

/* A vector of means, and two. */
#define MEANS(name, LOAD, STORE, TYPE, LANES)                                                                \
    BD_INLINE void mean_##name(TYPE *to, const TYPE *a, const TYPE *b, const TYPE *c, const TYPE *d) {       \
        STORE(to, four_##name(LOAD(a), LOAD(b), LOAD(c), LOAD(d)));                                          \
    }                                                                                                        \
    BD_INLINE void two_##name(TYPE *to, const TYPE *a, const TYPE *b, const TYPE *c, const TYPE *d) {        \
        const TYPE##_vector first = four_##name(LOAD(a), LOAD(b), LOAD(c), LOAD(d));                         \
        const TYPE##_vector second =                                                                         \
            four_##name(LOAD(a + LANES), LOAD(b + LANES), LOAD(c + LANES), LOAD(d + LANES));                 \
        STORE(to, first);                                                                                    \
        STORE(to + LANES, second);                                                                           \
    }
typedef int16x8_t int16_t_vector;
typedef int8x16_t int8_t_vector;
MEANS(i16, vld1q_s16, vst1q_s16, int16_t, 8)
MEANS(i8, vld1q_s8, vst1q_s8, int8_t, 16)

#define POOL(name, TYPE, LANES)                                                                              \
    BD_INLINE void row_##name(TYPE *to, const TYPE *top, const TYPE *bottom, uint32_t width, size_t n,       \
                              size_t jump) {                                                                 \
        for (uint32_t x = 0; x < width; x++, to += n, top += jump, bottom += jump) {                         \
            size_t c = 0;                                                                                    \
            for (; c + 2u * LANES <= n; c += 2u * LANES) {                                                   \
                two_##name(to + c, top + c, top + n + c, bottom + c, bottom + n + c);                        \
            }                                                                                                \
            if (c + LANES <= n) {                                                                            \
                mean_##name(to + c, top + c, top + n + c, bottom + c, bottom + n + c);                       \
            }                                                                                                \
            if (n % LANES != 0) {                                                                            \
                c = n - LANES;                                                                               \
                mean_##name(to + c, top + c, top + n + c, bottom + c, bottom + n + c);                       \
            }                                                                                                \
        }                                                                                                    \
    }                                                                                                        \
    static bd_status avgpool_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],       \
                                    const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {        \
        const size_t n = in->channels, jump = (size_t)step->stride_w * n;                                    \
        if (step->kernel_h != 2 || step->kernel_w != 2 || n < LANES) {                                       \
            return bd_avgpool_##name.run(step, constants, in, out, y0, rows, scratch);                       \
        }                                                                                                    \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            TYPE *to = (void *)bd_row(out, y);                                                               \
            const TYPE *top = (const void *)bd_row(in, y * step->stride_h);                                  \
            const TYPE *bottom = (const void *)bd_row(in, y * step->stride_h + 1u);                          \
            if (n == 2u * LANES) {                                                                           \
                row_##name(to, top, bottom, out->width, 2u * LANES, jump);                                   \
            } else if (n == 4u * LANES) {                                                                    \
                row_##name(to, top, bottom, out->width, 4u * LANES, jump);                                   \
            } else {                                                                                         \
                row_##name(to, top, bottom, out->width, n, jump);                                            \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }                                                                                                        \
    BD_DEFINE_VARIANT(bd_avgpool_##name, neon64, avgpool_##name)

POOL(i16, int16_t, 8u)
POOL(i8, int8_t, 16u)

/* Adds n pixels to `vectors` vectors of sums. They wrap. */
BD_INLINE void sum_pixels(int32_t *to, const int16_t *from, uint32_t n, size_t channels, uint32_t vectors) {
    int32x4_t sum[8];
    for (uint32_t i = 0; i < 2u * vectors; i++) {
        sum[i] = vld1q_s32(to + 4u * i);
    }
    for (uint32_t x = 0; x < n; x++, from += channels) {
        for (uint32_t i = 0; i < vectors; i++) {
            const int16x8_t values = vld1q_s16(from + 8u * i);
            sum[2u * i] = vaddw_s16(sum[2u * i], vget_low_s16(values));
            sum[2u * i + 1u] = vaddw_high_s16(sum[2u * i + 1u], values);
        }
    }
    for (uint32_t i = 0; i < 2u * vectors; i++) {
        vst1q_s32(to + 4u * i, sum[i]);
    }
}

static bd_status gap_h(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                       uint32_t y0, uint32_t rows, void *scratch) {
    const size_t channels = in->channels;
    int32_t *sum = (void *)out->base;
    if (channels % 8u != 0) {
        return bd_gap_h_i32.run(step, constants, in, out, y0, rows, scratch);
    }
    for (size_t c = 0; y0 == 0 && c < channels; c += 4u) {
        vst1q_s32(sum + c, vdupq_n_s32(0));
    }
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const int16_t *from = (const void *)bd_row(in, y);
        size_t c = 0;
        for (; c + 32u <= channels; c += 32u) {
            sum_pixels(sum + c, from + c, in->width, channels, 4);
        }
        for (; c < channels; c += 8u) {
            sum_pixels(sum + c, from + c, in->width, channels, 1);
        }
    }
    return BD_OK;
}

BD_DEFINE_VARIANT(bd_gap_h_i32, neon64, gap_h)
