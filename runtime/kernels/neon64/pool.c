/* Average pooling over windows of 2x2 on AArch64, a vector of channels at once: generic/pool.c.
 *
 * 1 / 4 is exact, so that a mean is (sum + 2) >> 2, a rounding shift, and always in range. The last channels of a pixel are made
 * with some that are done; a pixel of less than a vector and other windows are the plain kernel's. */
#include <arm_neon.h>

#include "bd_bits.h"
#include "bd_kernels.h"

BD_INLINE void mean_i16(int16_t *to, const int16_t *a, const int16_t *b, const int16_t *c, const int16_t *d) {
    const int16x8_t top_left = vld1q_s16(a), top_right = vld1q_s16(b);
    const int16x8_t left = vld1q_s16(c), right = vld1q_s16(d);
    const int32x4_t low = vaddq_s32(vaddl_s16(vget_low_s16(top_left), vget_low_s16(top_right)),
                                    vaddl_s16(vget_low_s16(left), vget_low_s16(right)));
    const int32x4_t high = vaddq_s32(vaddl_high_s16(top_left, top_right), vaddl_high_s16(left, right));
    vst1q_s16(to, vrshrn_high_n_s32(vrshrn_n_s32(low, 2), high, 2));
}

BD_INLINE void mean_i8(int8_t *to, const int8_t *a, const int8_t *b, const int8_t *c, const int8_t *d) {
    const int8x16_t top_left = vld1q_s8(a), top_right = vld1q_s8(b), left = vld1q_s8(c), right = vld1q_s8(d);
    const int16x8_t low = vaddq_s16(vaddl_s8(vget_low_s8(top_left), vget_low_s8(top_right)),
                                    vaddl_s8(vget_low_s8(left), vget_low_s8(right)));
    const int16x8_t high = vaddq_s16(vaddl_high_s8(top_left, top_right), vaddl_high_s8(left, right));
    vst1q_s8(to, vrshrn_high_n_s16(vrshrn_n_s16(low, 2), high, 2));
}

#define POOL(name, TYPE, LANES)                                                                              \
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
            for (uint32_t x = 0; x < out->width; x++, to += n, top += jump, bottom += jump) {                \
                for (size_t c = 0; c + LANES <= n; c += LANES) {                                             \
                    mean_##name(to + c, top + c, top + n + c, bottom + c, bottom + n + c);                   \
                }                                                                                            \
                if (n % LANES != 0) {                                                                        \
                    const size_t c = n - LANES;                                                              \
                    mean_##name(to + c, top + c, top + n + c, bottom + c, bottom + n + c);                   \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }                                                                                                        \
    BD_DEFINE_VARIANT(bd_avgpool_##name, neon64, avgpool_##name)

POOL(i16, int16_t, 8u)
POOL(i8, int8_t, 16u)
