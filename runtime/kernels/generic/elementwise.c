/* Limits per channel, and products of two maps or of a map and a gate (a vector for all pixels).
 *
 *     weights of a clamp: low[C], then high[C], elements of the map's type */
#include "bd_check.h"
#include "bd_kernels.h"
#include "bd_select.h"

#define CLAMP(name, TYPE, limited)                                                                           \
    static bd_status clamp_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],         \
                                  const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {          \
        const uint32_t channels = in->channels;                                                              \
        const TYPE *low = (const void *)(constants + step->weights), *high = low + channels;                 \
        (void)scratch;                                                                                       \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            const TYPE *from = (const void *)bd_row(in, y);                                                  \
            TYPE *to = (void *)bd_row(out, y);                                                               \
            for (uint32_t x = 0; x < out->width; x++, from += channels, to += channels) {                    \
                for (uint32_t c = 0; c < channels; c++) {                                                    \
                    to[c] = (TYPE)limited(from[c], low[c], high[c]);                                         \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

/* NaN passes: it is neither below nor above a limit. */
BD_INLINE float limited_float(float x, float low, float high) {
    const float raised = x < low ? low : x;
    return raised > high ? high : raised;
}

BD_INLINE int32_t limited16(int32_t x, int32_t low, int32_t high) {
    return bd_smaller16(bd_larger16(x, low), high);
}

CLAMP(f32, float, limited_float)
CLAMP(i16, int16_t, limited16)
CLAMP(i8, int8_t, limited16)

/* A gate is one row of one pixel: it lies in every row's slot, and its pixel does not move on. */
#define MUL(name, A, B, PRODUCT)                                                                             \
    static bd_status mul_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],           \
                                const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {            \
        const uint32_t channels = in->channels;                                                              \
        const uint32_t next = in[1].width == 1 ? 0 : channels;                                               \
        (void)step, (void)constants, (void)scratch;                                                          \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            const A *a = (const void *)bd_row(&in[0], y);                                                    \
            const B *b = (const void *)bd_row(&in[1], y);                                                    \
            PRODUCT *to = (void *)bd_row(out, y);                                                            \
            for (uint32_t x = 0; x < out->width; x++, a += channels, b += next, to += channels) {            \
                for (uint32_t c = 0; c < channels; c++) {                                                    \
                    to[c] = (PRODUCT)a[c] * (PRODUCT)b[c];                                                   \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

MUL(ff, float, float, float)
MUL(hh, int16_t, int16_t, int32_t)
MUL(hq, int16_t, int8_t, int32_t)
MUL(qh, int8_t, int16_t, int32_t)
MUL(qq, int8_t, int8_t, int32_t)

static int same_size(const bd_view *a, const bd_view *b) {
    return a->height == b->height && a->width == b->width && a->channels == b->channels;
}

static bd_status check_clamp(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t dtype,
                             uint32_t bytes) {
    const int fits = step->kind != BD_STEP_ACCUMULATE && bd_is(in, dtype) && bd_is_absent(&in[1]) &&
                     bd_is(out, dtype) && bd_is_output(step, out) && same_size(in, out) &&
                     step->weights != BD_ABSENT && step->weights_size == 2u * bytes * in->channels;
    return fits ? BD_OK : BD_ERROR_STEP;
}

static bd_status check_mul(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t a,
                           uint32_t b, uint32_t product) {
    const int gate = in[1].height == 1 && in[1].width == 1 && in[1].channels == in[0].channels;
    const int fits = step->kind != BD_STEP_ACCUMULATE && bd_is(&in[0], a) && bd_is(&in[1], b) &&
                     bd_is(out, product) && bd_is_output(step, out) && same_size(&in[0], out) &&
                     (gate || same_size(&in[0], &in[1]));
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define KERNEL(name, run, call)                                                                              \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants, (void)constants_size, (void)scratch_bytes;                                          \
        return call;                                                                                         \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_##name, run, check_##name)

KERNEL(clamp_f32, clamp_f32, check_clamp(step, in, out, BD_F32, 4))
KERNEL(clamp_i16, clamp_i16, check_clamp(step, in, out, BD_I16, 2))
KERNEL(clamp_i8, clamp_i8, check_clamp(step, in, out, BD_I8, 1))
KERNEL(mul_ff_f32, mul_ff, check_mul(step, in, out, BD_F32, BD_F32, BD_F32))
KERNEL(mul_hh_i32, mul_hh, check_mul(step, in, out, BD_I16, BD_I16, BD_I32))
KERNEL(mul_hq_i32, mul_hq, check_mul(step, in, out, BD_I16, BD_I8, BD_I32))
KERNEL(mul_qh_i32, mul_qh, check_mul(step, in, out, BD_I8, BD_I16, BD_I32))
KERNEL(mul_qq_i32, mul_qq, check_mul(step, in, out, BD_I8, BD_I8, BD_I32))
