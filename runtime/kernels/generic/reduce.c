/* Maxima over the map and over channels, and the sums that global average pooling (pool.c) does not have. */
#include "bd_check.h"
#include "bd_kernels.h"
#include "bd_select.h"

#define ADD(sum, value) ((sum) + (value))

/* Over the map, row by row: out[0] row 0 is the accumulator over the calls. */
#define OVER_MAP(name, TYPE, FIRST, combine)                                                                 \
    static bd_status map_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],           \
                                const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {            \
        const uint32_t channels = in->channels;                                                              \
        TYPE *to = (void *)out->base;                                                                        \
        (void)step, (void)constants, (void)scratch;                                                          \
        if (y0 == 0) {                                                                                       \
            for (uint32_t c = 0; c < channels; c++) {                                                        \
                to[c] = FIRST;                                                                               \
            }                                                                                                \
        }                                                                                                    \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            const TYPE *from = (const void *)bd_row(in, y);                                                  \
            for (uint32_t x = 0; x < in->width; x++, from += channels) {                                     \
                for (uint32_t c = 0; c < channels; c++) {                                                    \
                    to[c] = (TYPE)combine(to[c], from[c]);                                                   \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

OVER_MAP(max_f32, float, BD_LEAST_FLOAT, bd_larger_float)
OVER_MAP(max_i16, int16_t, INT16_MIN, bd_larger16)
OVER_MAP(max_i8, int8_t, INT8_MIN, bd_larger16)
OVER_MAP(max_u8, uint8_t, 0, bd_larger16)
OVER_MAP(sum_f, float, 0, ADD)

/* Over the channels of each pixel. At most 65535 of 16 bits: a sum fits 32. */
#define OVER_CHANNELS(name, TYPE, RESULT, ACC, FIRST, combine)                                               \
    static bd_status channel_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],       \
                                    const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {        \
        const uint32_t channels = in->channels;                                                              \
        (void)step, (void)constants, (void)scratch;                                                          \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            const TYPE *from = (const void *)bd_row(in, y);                                                  \
            RESULT *to = (void *)bd_row(out, y);                                                             \
            for (uint32_t x = 0; x < in->width; x++, from += channels) {                                     \
                ACC value = FIRST;                                                                           \
                for (uint32_t c = 0; c < channels; c++) {                                                    \
                    value = combine(value, from[c]);                                                         \
                }                                                                                            \
                to[x] = (RESULT)value;                                                                       \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

OVER_CHANNELS(max_f32, float, float, float, BD_LEAST_FLOAT, bd_larger_float)
OVER_CHANNELS(max_i16, int16_t, int16_t, int32_t, INT16_MIN, bd_larger16)
OVER_CHANNELS(max_i8, int8_t, int8_t, int32_t, INT8_MIN, bd_larger16)
OVER_CHANNELS(max_u8, uint8_t, uint8_t, int32_t, 0, bd_larger16)
OVER_CHANNELS(sum_f, float, float, float, 0, ADD)
OVER_CHANNELS(sum_h, int16_t, int32_t, int32_t, 0, ADD)
OVER_CHANNELS(sum_q, int8_t, int32_t, int32_t, 0, ADD)
OVER_CHANNELS(sum_u, uint8_t, int32_t, int32_t, 0, ADD)

static bd_status check_map(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t from,
                           uint32_t to) {
    const int fits = step->kind == BD_STEP_ACCUMULATE && bd_is(in, from) && bd_is_absent(&in[1]) &&
                     bd_is(out, to) && bd_is_output(step, out) && out->height == 1 && out->width == 1 &&
                     out->channels == in->channels;
    return fits ? BD_OK : BD_ERROR_STEP;
}

static bd_status check_channel(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t from,
                               uint32_t to) {
    const int fits = step->kind != BD_STEP_ACCUMULATE && bd_is(in, from) && bd_is_absent(&in[1]) &&
                     bd_is(out, to) && bd_is_output(step, out) && out->height == in->height &&
                     out->width == in->width && out->channels == 1;
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define KERNEL(name, run, check, from, to)                                                                   \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants, (void)constants_size, (void)scratch_bytes;                                          \
        return check(step, in, out, from, to);                                                               \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_##name, run, check_##name)

KERNEL(map_max_f32, map_max_f32, check_map, BD_F32, BD_F32)
KERNEL(map_max_i16, map_max_i16, check_map, BD_I16, BD_I16)
KERNEL(map_max_i8, map_max_i8, check_map, BD_I8, BD_I8)
KERNEL(map_max_u8, map_max_u8, check_map, BD_U8, BD_U8)
KERNEL(map_sum_f_f32, map_sum_f, check_map, BD_F32, BD_F32)
KERNEL(channel_max_f32, channel_max_f32, check_channel, BD_F32, BD_F32)
KERNEL(channel_max_i16, channel_max_i16, check_channel, BD_I16, BD_I16)
KERNEL(channel_max_i8, channel_max_i8, check_channel, BD_I8, BD_I8)
KERNEL(channel_max_u8, channel_max_u8, check_channel, BD_U8, BD_U8)
KERNEL(channel_sum_f_f32, channel_sum_f, check_channel, BD_F32, BD_F32)
KERNEL(channel_sum_h_i32, channel_sum_h, check_channel, BD_I16, BD_I32)
KERNEL(channel_sum_q_i32, channel_sum_q, check_channel, BD_I8, BD_I32)
KERNEL(channel_sum_u_i32, channel_sum_u, check_channel, BD_U8, BD_I32)
