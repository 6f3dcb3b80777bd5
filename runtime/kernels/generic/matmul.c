/* Products of two maps of which one at least holds elements: out[y][m][n] = sum over ascending k of
 * in[0][y][m][k] * in[1][y][n][k], integers exact, f32 rounded at every operation.
 *
 * Own scratch: the channels of one pixel of in[0], 4 bytes each, with their zero point taken off. */
#include "bd_bits.h"
#include "bd_check.h"
#include "bd_kernels.h"

/* Packed value k of the pixel that begins at `at`; the second plane lies `plane` words behind. */
BD_INLINE int32_t packed_value(uint32_t dtype, const uint8_t *at, size_t plane, uint32_t k) {
    const uint32_t *a = (const void *)at;
    if (dtype == BD_UBIT) {
        return 1 - (int32_t)((a[k >> 5] >> (k & 31u)) & 1u);
    }
    return bd_packed_value(a, dtype == BD_TRIT ? a + plane : NULL, k);
}

/* Its value k, of any dtype that the kernels of a kind take. */
BD_INLINE float value_float(uint32_t dtype, const uint8_t *at, size_t plane, uint32_t k) {
    return dtype == BD_F32 ? ((const float *)(const void *)at)[k] : (float)packed_value(dtype, at, plane, k);
}

BD_INLINE int32_t value_int32_t(uint32_t dtype, const uint8_t *at, size_t plane, uint32_t k) {
    return dtype == BD_I16  ? ((const int16_t *)(const void *)at)[k]
           : dtype == BD_I8 ? ((const int8_t *)(const void *)at)[k]
                            : packed_value(dtype, at, plane, k);
}

/* Bytes of a pixel of one plane. */
BD_INLINE size_t pixel_bytes(uint32_t dtype, uint32_t channels) {
    return dtype >= BD_BIT && dtype <= BD_UBIT ? (size_t)bd_words(channels) * 4u
           : dtype == BD_F32                   ? (size_t)channels * 4u
           : dtype == BD_I16                   ? (size_t)channels * 2u
                                               : channels;
}

/* Largest factor of a dtype, its zero point taken off. */
static uint64_t largest(uint32_t dtype, int32_t zero_point) {
    const int32_t high = dtype == BD_I16 ? INT16_MAX : dtype == BD_I8 ? INT8_MAX : 1;
    const int32_t low = dtype == BD_I16 ? INT16_MIN : dtype == BD_I8 ? INT8_MIN : -1;
    const int32_t above = high - zero_point, below = zero_point - low;
    return (uint64_t)(above > below ? above : below);
}

static bd_status check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t x, uint32_t w,
                       uint32_t acc) {
    int fits = bd_is(&in[0], x) && bd_is(&in[1], w) && bd_is(out, acc) && bd_is_matmul(step, in, out);
    if (fits && acc == BD_I32) {
        fits = largest(x, step->zero_point) * largest(w, 0) * in[0].channels <= INT32_MAX;
    } else {
        fits = fits && step->zero_point == 0;
    }
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define MATMUL(name, TYPE, x_dtype, w_dtype, acc_dtype)                                                      \
    static bd_status name(const bd_step *step, const uint8_t *constants, const bd_view in[],                 \
                          const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {                  \
        const uint32_t channels = in[0].channels;                                                            \
        const size_t x_bytes = pixel_bytes(x_dtype, channels), w_bytes = pixel_bytes(w_dtype, channels);     \
        const size_t x_plane = (size_t)in[0].width * bd_words(channels);                                     \
        const size_t w_plane = (size_t)in[1].width * bd_words(channels);                                     \
        TYPE *factors = scratch;                                                                             \
        (void)constants, (void)x_plane, (void)w_plane;                                                       \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            const uint8_t *x = bd_row(&in[0], y);                                                            \
            TYPE *to = (void *)bd_row(out, y);                                                               \
            for (uint32_t m = 0; m < in[0].width; m++, x += x_bytes) {                                       \
                for (uint32_t k = 0; k < channels; k++) {                                                    \
                    factors[k] = value_##TYPE(x_dtype, x, x_plane, k) - (TYPE)step->zero_point;              \
                }                                                                                            \
                const uint8_t *w = bd_row(&in[1], y);                                                        \
                for (uint32_t n = 0; n < in[1].width; n++, w += w_bytes) {                                   \
                    TYPE sum = 0;                                                                            \
                    for (uint32_t k = 0; k < channels; k++) {                                                \
                        sum += factors[k] * value_##TYPE(w_dtype, w, w_plane, k);                            \
                    }                                                                                        \
                    *to++ = sum;                                                                             \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }                                                                                                        \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants, (void)constants_size;                                                               \
        *scratch_bytes = 4u * (uint32_t)in[0].channels;                                                      \
        return check(step, in, out, x_dtype, w_dtype, acc_dtype);                                            \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_matmul_##name, name, check_##name)

#define FLOAT(name, x, w) MATMUL(name##_f32, float, x, w, BD_F32)
#define FIXED(name, x, w) MATMUL(name##_i32, int32_t, x, w, BD_I32)

FLOAT(ff, BD_F32, BD_F32)
FLOAT(fb, BD_F32, BD_BIT)
FLOAT(ft, BD_F32, BD_TRIT)
FLOAT(fz, BD_F32, BD_UBIT)
FLOAT(bf, BD_BIT, BD_F32)
FLOAT(tf, BD_TRIT, BD_F32)
FLOAT(zf, BD_UBIT, BD_F32)
FIXED(qq, BD_I8, BD_I8)
FIXED(hq, BD_I16, BD_I8)
FIXED(qh, BD_I8, BD_I16)
FIXED(qb, BD_I8, BD_BIT)
FIXED(qt, BD_I8, BD_TRIT)
FIXED(qz, BD_I8, BD_UBIT)
FIXED(hb, BD_I16, BD_BIT)
FIXED(ht, BD_I16, BD_TRIT)
FIXED(hz, BD_I16, BD_UBIT)
FIXED(bq, BD_BIT, BD_I8)
FIXED(tq, BD_TRIT, BD_I8)
FIXED(zq, BD_UBIT, BD_I8)
FIXED(bh, BD_BIT, BD_I16)
FIXED(th, BD_TRIT, BD_I16)
FIXED(zh, BD_UBIT, BD_I16)
