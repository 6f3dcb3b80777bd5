/* Operators along the channels of each pixel: means of adjacent ones, and repetition of all. */
#include "bd_check.h"
#include "bd_kernels.h"
#include "bd_mean.h"

/* y[c] = mean x[c * size .. (c + 1) * size], summed in ascending order. */
#define GROUP_MEAN(name, TYPE, SUM, FACTOR, factor_of, MEAN)                                                 \
    static bd_status group_mean_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],    \
                                       const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {     \
        const uint32_t size = in->channels / (uint32_t)out->channels;                                        \
        const uint32_t count = (uint32_t)out->width * out->channels;                                         \
        const FACTOR factor = factor_of(size);                                                               \
        (void)step, (void)constants, (void)scratch;                                                          \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            const TYPE *from = (const void *)bd_row(in, y);                                                  \
            TYPE *to = (void *)bd_row(out, y);                                                               \
            for (uint32_t i = 0; i < count; i++, from += size) {                                             \
                SUM sum = 0;                                                                                 \
                for (uint32_t j = 0; j < size; j++) {                                                        \
                    sum += from[j];                                                                          \
                }                                                                                            \
                to[i] = (TYPE)MEAN(sum, factor);                                                             \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

GROUP_MEAN(f32, float, float, float, bd_float_reciprocal, MEAN_F32)
GROUP_MEAN(i16, int16_t, int32_t, uint32_t, bd_reciprocal, MEAN_I16)
GROUP_MEAN(i8, int8_t, int32_t, uint32_t, bd_reciprocal, MEAN_I8)

/* y[r * C + c] = x[c]; elements move as integers of their size. */
#define REPEAT(name, TYPE)                                                                                   \
    static bd_status repeat_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],        \
                                   const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {         \
        const uint32_t channels = in->channels, times = out->channels / channels;                            \
        (void)step, (void)constants, (void)scratch;                                                          \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            const TYPE *from = (const void *)bd_row(in, y);                                                  \
            TYPE *to = (void *)bd_row(out, y);                                                               \
            for (uint32_t x = 0; x < out->width; x++, from += channels) {                                    \
                for (uint32_t r = 0; r < times; r++, to += channels) {                                       \
                    for (uint32_t c = 0; c < channels; c++) {                                                \
                        to[c] = from[c];                                                                     \
                    }                                                                                        \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

REPEAT(4, uint32_t)
REPEAT(2, uint16_t)
REPEAT(1, uint8_t)

/* One map to another of the same size and dtype; `from` and `to` are its channels. */
static bd_status check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t dtype,
                       int widens) {
    const uint32_t more = widens ? out->channels : in->channels;
    const uint32_t fewer = widens ? in->channels : out->channels;
    const int fits = step->kind != BD_STEP_ACCUMULATE && bd_is(in, dtype) && bd_is_absent(&in[1]) &&
                     bd_is(out, dtype) && bd_is_output(step, out) && out->height == in->height &&
                     out->width == in->width && more % fewer == 0;
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define KERNEL(name, run, dtype, widens)                                                                     \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants, (void)constants_size, (void)scratch_bytes;                                          \
        return check(step, in, out, dtype, widens);                                                          \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_##name, run, check_##name)

KERNEL(group_mean_f32, group_mean_f32, BD_F32, 0)
KERNEL(group_mean_i16, group_mean_i16, BD_I16, 0)
KERNEL(group_mean_i8, group_mean_i8, BD_I8, 0)
KERNEL(repeat_f32, repeat_4, BD_F32, 1)
KERNEL(repeat_i32, repeat_4, BD_I32, 1)
KERNEL(repeat_i16, repeat_2, BD_I16, 1)
KERNEL(repeat_i8, repeat_1, BD_I8, 1)
