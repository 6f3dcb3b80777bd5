/* Unary functions of integers by a table.
 *
 *     weights: i8 inputs:  256 elements of the output, of -128 first
 *              i16 inputs: 257 or 513 int16 knots over equal steps; exact linear interpolation between them */
#include "bd_check.h"
#include "bd_kernels.h"

#define LUT8(name, TYPE)                                                                                     \
    static bd_status lut_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],           \
                                const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {            \
        const uint32_t count = (uint32_t)out->width * out->channels;                                         \
        const TYPE *table = (const void *)(constants + step->weights);                                       \
        (void)scratch;                                                                                       \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            const uint8_t *from = bd_row(in, y);                                                             \
            TYPE *to = (void *)bd_row(out, y);                                                               \
            for (uint32_t i = 0; i < count; i++) {                                                           \
                to[i] = table[from[i] ^ 0x80u];                                                              \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

LUT8(q_i8, int8_t)
LUT8(q_i16, int16_t)

static bd_status lut_h_i16(const bd_step *step, const uint8_t *constants, const bd_view in[],
                           const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    const uint32_t count = (uint32_t)out->width * out->channels;
    const int16_t *knots = (const void *)(constants + step->weights);
    const uint32_t shift = step->weights_size == 257u * 2u ? 8u : 7u;
    const int32_t half = (int32_t)(1u << (shift - 1u));
    (void)scratch;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const uint16_t *from = (const void *)bd_row(in, y);
        int16_t *to = (void *)bd_row(out, y);
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t position = from[i] ^ 0x8000u;
            const int16_t *knot = knots + (position >> shift);
            const int32_t fraction = (int32_t)(position & ((1u << shift) - 1u));
            to[i] = (int16_t)(knot[0] + (((knot[1] - knot[0]) * fraction + half) >> shift));
        }
    }
    return BD_OK;
}

static bd_status check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t from,
                       uint32_t to, uint32_t bytes) {
    const int fits = step->kind != BD_STEP_ACCUMULATE && bd_is(in, from) && bd_is(out, to) &&
                     bd_is_absent(&in[1]) && bd_is_output(step, out) && out->height == in->height &&
                     out->width == in->width && out->channels == in->channels && step->weights != BD_ABSENT &&
                     (step->weights_size == bytes || (from == BD_I16 && step->weights_size == 513u * 2u));
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define KERNEL(name, from, to, bytes)                                                                        \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants, (void)constants_size, (void)scratch_bytes;                                          \
        return check(step, in, out, from, to, bytes);                                                        \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_##name, name, check_##name)

KERNEL(lut_q_i8, BD_I8, BD_I8, 256u)
KERNEL(lut_q_i16, BD_I8, BD_I16, 512u)
KERNEL(lut_h_i16, BD_I16, BD_I16, 257u * 2u)
