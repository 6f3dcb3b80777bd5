/* Products of two maps of bits, trits or {0,1}: out[y][m][n] = sum over k of in[0][y][m][k] * in[1][y][n][k].
 *
 * The arithmetic is that of conv_packed.c: a sum is (channels) - n, tail bits, 0 in both operands, count for nothing, and
 * {0,1} is a trit that is never -1: its plane a is 0 and not stored. */
#include "bd_bits.h"
#include "bd_check.h"
#include "bd_kernels.h"

/* n of one pair of pixels; the second plane of a trit lies `x_plane` (`w_plane`) words behind the first. */
BD_INLINE uint32_t mismatches(const uint32_t *x, const uint32_t *w, uint32_t words, size_t x_plane,
                              size_t w_plane, uint32_t x_dtype, uint32_t w_dtype) {
    uint32_t n = 0;
    for (uint32_t k = 0; k < words; k++) {
        const uint32_t xa = x_dtype == BD_UBIT ? 0 : x[k], xb = x_dtype == BD_TRIT ? x[k + x_plane] : x[k];
        const uint32_t wa = w_dtype == BD_UBIT ? 0 : w[k], wb = w_dtype == BD_TRIT ? w[k + w_plane] : w[k];
        if (x_dtype == BD_BIT && w_dtype == BD_BIT) {
            n += 2u * bd_popcount(xa ^ wa);
        } else if (x_dtype != BD_BIT && w_dtype != BD_BIT) {
            const uint32_t zero = (xa ^ xb) | (wa ^ wb);
            const uint32_t differ = (xa ^ wa) & ~zero;
            n += bd_nibble_sum(bd_nibble_counts(zero) + 2u * bd_nibble_counts(differ));
        } else {
            n += bd_popcount2(xa ^ wa, xb ^ wb);
        }
    }
    return n;
}

BD_INLINE bd_status matmul(const bd_view in[], const bd_view out[], uint32_t y0, uint32_t rows,
                           uint32_t x_dtype, uint32_t w_dtype) {
    const uint32_t words = bd_words(in[0].channels);
    const size_t x_plane = (size_t)in[0].width * words, w_plane = (size_t)in[1].width * words;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const uint32_t *x = (const void *)bd_row(&in[0], y);
        uint8_t *to = bd_row(out, y);
        for (uint32_t m = 0; m < in[0].width; m++, x += words) {
            const uint32_t *w = (const void *)bd_row(&in[1], y);
            for (uint32_t n = 0; n < in[1].width; n++, w += words) {
                const uint32_t misses = mismatches(x, w, words, x_plane, w_plane, x_dtype, w_dtype);
                const int32_t sum = (int32_t)(in[0].channels - misses);
                const size_t at = (size_t)m * in[1].width + n;
                if (out->dtype == BD_I16) {
                    ((int16_t *)(void *)to)[at] = (int16_t)sum;
                } else {
                    ((int32_t *)(void *)to)[at] = sum;
                }
            }
        }
    }
    return BD_OK;
}

static bd_status check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t x, uint32_t w,
                       uint32_t acc) {
    const int fits = bd_is(&in[0], x) && bd_is(&in[1], w) && bd_is(out, acc) && bd_is_matmul(step, in, out) &&
                     (acc == BD_I32 || in[0].channels <= INT16_MAX);
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define KERNEL(name, x, w, acc)                                                                              \
    static bd_status name##_##acc(const bd_step *step, const uint8_t *constants, const bd_view in[],         \
                                  const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {          \
        (void)step, (void)constants, (void)scratch;                                                          \
        return matmul(in, out, y0, rows, x, w);                                                              \
    }                                                                                                        \
    static bd_status check_##name##_##acc(const bd_step *step, const uint8_t *constants,                     \
                                          uint32_t constants_size, const bd_view in[], const bd_view out[],  \
                                          uint32_t *scratch_bytes) {                                         \
        (void)constants, (void)constants_size, (void)scratch_bytes;                                          \
        return check(step, in, out, x, w, ACC_##acc);                                                        \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_matmul_##name##_##acc, name##_##acc, check_##name##_##acc)

#define ACC_i16 BD_I16
#define ACC_i32 BD_I32
#define KERNELS(name, x, w)                                                                                  \
    KERNEL(name, x, w, i16)                                                                                  \
    KERNEL(name, x, w, i32)

KERNELS(bb, BD_BIT, BD_BIT)
KERNELS(bt, BD_BIT, BD_TRIT)
KERNELS(bz, BD_BIT, BD_UBIT)
KERNELS(tb, BD_TRIT, BD_BIT)
KERNELS(tt, BD_TRIT, BD_TRIT)
KERNELS(tz, BD_TRIT, BD_UBIT)
KERNELS(zb, BD_UBIT, BD_BIT)
KERNELS(zt, BD_UBIT, BD_TRIT)
KERNELS(zz, BD_UBIT, BD_UBIT)
