/* Softmax over the channels of each pixel.
 *
 *     weights of the fixed kernels: bd_softmax_scale, then 257 int16: powers of two over one octave, and a
 *     padding of 2 bytes
 *
 * Own scratch of the fixed kernels: the exponentials of one pixel, 16 bits each, rounded up to 4 bytes. */
#include "bd_check.h"
#include "bd_fixed.h"
#include "bd_kernels.h"
#include "bd_math.h"

typedef struct bd_softmax_scale {
    uint32_t drop, limit, mul,
        shift; /* octaves with 16 fractional bits: (min(d >> drop, limit) * mul) >> shift */
} bd_softmax_scale;

#define TABLE_BYTES 516u

static bd_status softmax_f32(const bd_step *step, const uint8_t *constants, const bd_view in[],
                             const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    const uint32_t channels = in->channels;
    (void)step, (void)constants, (void)scratch;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const float *from = (const void *)bd_row(in, y);
        float *to = (void *)bd_row(out, y);
        for (uint32_t x = 0; x < in->width; x++, from += channels, to += channels) {
            float largest = from[0], sum = 0.0f;
            for (uint32_t c = 1; c < channels; c++) {
                largest = from[c] > largest ? from[c] : largest;
            }
            for (uint32_t c = 0; c < channels; c++) {
                to[c] = bd_exp(from[c] - largest);
                sum += to[c];
            }
            const float factor = 1.0f / sum;
            for (uint32_t c = 0; c < channels; c++) {
                to[c] *= factor;
            }
        }
    }
    return BD_OK;
}

/* 32767 * exp(-d * scale), rounded. */
BD_INLINE uint32_t exponential(const bd_softmax_scale *scale, const int16_t *table, uint32_t d) {
    const uint64_t product = (uint64_t)bd_smaller(d >> scale->drop, scale->limit) * scale->mul;
    const uint32_t z = (uint32_t)(product >> scale->shift);
    const uint32_t octaves = bd_smaller(z >> 16, 31u);
    const int16_t *entry = table + ((z >> 8) & 255u);
    const uint32_t fall = (uint32_t)(entry[0] - entry[1]) * (z & 255u);
    return (((((uint32_t)entry[0] << 8) - fall) >> octaves) + 128u) >> 8;
}

/* (e * reciprocal) >> 16, e of 15 bits: without the product's 48 bits. */
BD_INLINE uint32_t scaled(uint32_t e, uint32_t reciprocal) {
    return e * (reciprocal >> 16) + ((e * (reciprocal & 0xffffu)) >> 16);
}

#define SOFTMAX(name, TYPE, OUT, END)                                                                        \
    static bd_status softmax_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],       \
                                    const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {        \
        const uint32_t channels = in->channels;                                                              \
        const bd_softmax_scale *scale = (const void *)(constants + step->weights);                           \
        const int16_t *table = (const void *)(scale + 1);                                                    \
        uint16_t *e = scratch;                                                                               \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            const TYPE *from = (const void *)bd_row(in, y);                                                  \
            OUT *to = (void *)bd_row(out, y);                                                                \
            for (uint32_t x = 0; x < in->width; x++, from += channels, to += channels) {                     \
                int32_t largest = from[0];                                                                   \
                for (uint32_t c = 1; c < channels; c++) {                                                    \
                    largest = bd_larger(largest, from[c]);                                                   \
                }                                                                                            \
                uint32_t sum = 0;                                                                            \
                for (uint32_t c = 0; c < channels; c++) {                                                    \
                    e[c] = (uint16_t)exponential(scale, table, (uint32_t)largest - (uint32_t)from[c]);       \
                    sum += e[c];                                                                             \
                }                                                                                            \
                const uint32_t reciprocal = bd_quotient(1u << 14, sum, 32); /* 2**46 / sum */                \
                for (uint32_t c = 0; c < channels; c++) {                                                    \
                    to[c] = (OUT)END(scaled(e[c], reciprocal));                                              \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

#define Q15(y) bd_clamp((int32_t)(((y) + (1u << 14)) >> 15), 0, INT16_MAX)
#define Q8(y)  bd_clamp((int32_t)(((y) + (1u << 21)) >> 22) - 128, INT8_MIN, INT8_MAX)

SOFTMAX(q_i16, int8_t, int16_t, Q15)
SOFTMAX(h_i16, int16_t, int16_t, Q15)
SOFTMAX(i_i16, int32_t, int16_t, Q15)
SOFTMAX(q_i8, int8_t, int8_t, Q8)
SOFTMAX(h_i8, int16_t, int8_t, Q8)
SOFTMAX(i_i8, int32_t, int8_t, Q8)

static bd_status check(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                       uint32_t from, uint32_t to, uint32_t *scratch_bytes) {
    int fits = step->kind != BD_STEP_ACCUMULATE && bd_is(in, from) && bd_is(out, to) &&
               bd_is_absent(&in[1]) && bd_is_output(step, out) && out->height == in->height &&
               out->width == in->width && out->channels == in->channels;
    if (fits && from != BD_F32) {
        fits = step->weights != BD_ABSENT && step->weights_size == sizeof(bd_softmax_scale) + TABLE_BYTES;
    }
    if (fits && from != BD_F32) {
        const bd_softmax_scale *scale = (const void *)(constants + step->weights);
        fits = scale->drop <= 31u && scale->shift <= 31u &&
               ((uint64_t)scale->limit * scale->mul) >> scale->shift <= 0xffffffffu;
        *scratch_bytes = (2u * (uint32_t)in->channels + 3u) / 4u * 4u;
    }
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define KERNEL(name, from, to)                                                                               \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants_size;                                                                                \
        return check(step, constants, in, out, from, to, scratch_bytes);                                     \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_##name, name, check_##name)

KERNEL(softmax_f32, BD_F32, BD_F32)
KERNEL(softmax_q_i16, BD_I8, BD_I16)
KERNEL(softmax_h_i16, BD_I16, BD_I16)
KERNEL(softmax_i_i16, BD_I32, BD_I16)
KERNEL(softmax_q_i8, BD_I8, BD_I8)
KERNEL(softmax_h_i8, BD_I16, BD_I8)
KERNEL(softmax_i_i8, BD_I32, BD_I8)
