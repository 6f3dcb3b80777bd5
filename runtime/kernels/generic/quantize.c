/* bd_quantize_f_<dtype>: q = saturate(round(x / scale) + zero_point), halves to even, NaN to the zero point.
 *     step->weights: float scale, int32_t zero point.
 * bd_dequantize_<dtype>_f32: y = ((float)q - zero_point) * scale.
 *     step->weights: float scales[channels], float zero points[channels]. */
#include "bd_check.h"
#include "bd_kernels.h"

/* Halves to even, |x| < 2**22: the sum has no fractional bits left. */
static int32_t round_even(float x) {
    const float big = 12582912.0f; /* 1.5 * 2**23 */
    return (int32_t)((x + big) - big);
}

/* Clamped before it is rounded, to whole limits: the same, and nothing is out of range for the conversion. */
static int32_t quantized(float x, float scale, float low, float high) {
    float ratio = x / scale;
    if (!(ratio == ratio)) {
        ratio = 0.0f;
    }
    ratio = ratio < low ? low : ratio;
    ratio = ratio > high ? high : ratio;
    return round_even(ratio);
}

#define QUANTIZE(name, TYPE, LOW, HIGH)                                                                      \
    static bd_status quantize_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],      \
                                     const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {       \
        const float scale = *(const float *)(const void *)(constants + step->weights);                       \
        const int32_t zero = *(const int32_t *)(const void *)(constants + step->weights + 4u);               \
        const float low = (float)((LOW) - zero), high = (float)((HIGH) - zero);                              \
        const uint32_t count = (uint32_t)in->width * in->channels;                                           \
        (void)scratch;                                                                                       \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            const float *from = (const void *)bd_row(in, y);                                                 \
            TYPE *to = (void *)bd_row(out, y);                                                               \
            for (uint32_t i = 0; i < count; i++) {                                                           \
                to[i] = (TYPE)(quantized(from[i], scale, low, high) + zero);                                 \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

QUANTIZE(u8, uint8_t, 0, UINT8_MAX)
QUANTIZE(i8, int8_t, INT8_MIN, INT8_MAX)
QUANTIZE(i16, int16_t, INT16_MIN, INT16_MAX)

#define DEQUANTIZE(name, TYPE)                                                                               \
    static bd_status dequantize_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],    \
                                       const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {     \
        const uint32_t channels = in->channels;                                                              \
        const float *scale = (const void *)(constants + step->weights), *zero = scale + channels;            \
        (void)scratch;                                                                                       \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            const TYPE *from = (const void *)bd_row(in, y);                                                  \
            float *to = (void *)bd_row(out, y);                                                              \
            for (uint32_t x = 0; x < in->width; x++) {                                                       \
                for (uint32_t c = 0; c < channels; c++) {                                                    \
                    *to++ = ((float)*from++ - zero[c]) * scale[c];                                           \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

DEQUANTIZE(u, uint8_t)
DEQUANTIZE(q, int8_t)
DEQUANTIZE(h, int16_t)
DEQUANTIZE(i, int32_t)

/* One map to another of the same size, with `parameters` words. */
static bd_status check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t from,
                       uint32_t to, uint32_t parameters) {
    const int fits = bd_is(in, from) && bd_is_absent(&in[1]) && bd_is(out, to) && bd_is_window(step, out) &&
                     step->kernel_h == 1 && step->stride_h == 1 && step->pad_top == 0 &&
                     out->height == in->height && out->width == in->width && out->channels == in->channels &&
                     step->weights != BD_ABSENT && step->weights_size == 4u * parameters;
    return fits ? BD_OK : BD_ERROR_STEP;
}

/* The zero point is one of the output's numbers. */
static bd_status check_quantize(const bd_step *step, const uint8_t *constants, const bd_view in[],
                                const bd_view out[], uint32_t dtype, int32_t low, int32_t high) {
    const bd_status status = check(step, in, out, BD_F32, dtype, 2);
    if (status != BD_OK) {
        return status;
    }
    const int32_t zero = *(const int32_t *)(const void *)(constants + step->weights + 4u);
    return zero >= low && zero <= high ? BD_OK : BD_ERROR_STEP;
}

#define KERNEL(name, run, call)                                                                              \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants, (void)constants_size, (void)scratch_bytes;                                          \
        return call;                                                                                         \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_##name, run, check_##name)

KERNEL(quantize_f_u8, quantize_u8, check_quantize(step, constants, in, out, BD_U8, 0, UINT8_MAX))
KERNEL(quantize_f_i8, quantize_i8, check_quantize(step, constants, in, out, BD_I8, INT8_MIN, INT8_MAX))
KERNEL(quantize_f_i16, quantize_i16, check_quantize(step, constants, in, out, BD_I16, INT16_MIN, INT16_MAX))
KERNEL(dequantize_u_f32, dequantize_u, check(step, in, out, BD_U8, BD_F32, 2u * in->channels))
KERNEL(dequantize_q_f32, dequantize_q, check(step, in, out, BD_I8, BD_F32, 2u * in->channels))
KERNEL(dequantize_h_f32, dequantize_h, check(step, in, out, BD_I16, BD_F32, 2u * in->channels))
KERNEL(dequantize_i_f32, dequantize_i, check(step, in, out, BD_I32, BD_F32, 2u * in->channels))
