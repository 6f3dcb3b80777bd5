/* Max pooling. Padding never wins: taps outside the map are left out, and a window without a tap (which no
 * exporter writes) gives the smallest value.
 *
 * A plane's 1 says "below a threshold", so the largest bit or trit is the AND of each plane. */
#include "bd_check.h"
#include "bd_kernels.h"
#include "bd_select.h"
#include "bd_window.h"

/* TYPE elements; LEAST never wins. */
#define MAX_POOL(name, TYPE, LEAST, larger)                                                                  \
    static bd_status max_pool_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],      \
                                     const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {       \
        const uint32_t channels = in->channels;                                                              \
        (void)constants, (void)scratch;                                                                      \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            TYPE *to = (void *)bd_row(out, y);                                                               \
            for (uint32_t x = 0; x < out->width; x++, to += channels) {                                      \
                const bd_window w = bd_window_at(step, in, y, x);                                            \
                for (uint32_t c = 0; c < channels; c++) {                                                    \
                    to[c] = LEAST;                                                                           \
                }                                                                                            \
                for (uint32_t ky = w.rows.first; ky < w.rows.end; ky++) {                                    \
                    const int32_t at_y = w.y + (int32_t)(ky * step->dilation_h);                             \
                    const TYPE *row = (const void *)bd_row(in, (uint32_t)at_y);                              \
                    for (uint32_t kx = w.columns.first; kx < w.columns.end; kx++) {                          \
                        const int32_t at_x = w.x + (int32_t)(kx * step->dilation_w);                         \
                        const TYPE *from = row + (size_t)(uint32_t)at_x * channels;                          \
                        for (uint32_t c = 0; c < channels; c++) {                                            \
                            to[c] = (TYPE)larger(to[c], from[c]);                                            \
                        }                                                                                    \
                    }                                                                                        \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

MAX_POOL(f32, float, BD_LEAST_FLOAT, bd_larger_float)
MAX_POOL(i32, int32_t, INT32_MIN, bd_larger)
MAX_POOL(i16, int16_t, INT16_MIN, bd_larger16)
MAX_POOL(i8, int8_t, INT8_MIN, bd_larger16)
MAX_POOL(u8, uint8_t, 0, bd_larger16)

/* The words of one plane of one output pixel; `plane` leads to the input's first pixel of that plane, in
 * words of its row. */
static void pool_words(uint32_t *to, const bd_step *step, const bd_view *in, const bd_window *w,
                       size_t plane) {
    const uint32_t words = bd_words(in->channels);
    for (uint32_t k = 0; k < words; k++) {
        to[k] = 0xffffffffu;
    }
    to[words - 1u] >>= words * 32u - in->channels; /* the tail bits stay 0 */
    for (uint32_t ky = w->rows.first; ky < w->rows.end; ky++) {
        const int32_t at_y = w->y + (int32_t)(ky * step->dilation_h);
        const uint32_t *row = (const uint32_t *)(const void *)bd_row(in, (uint32_t)at_y) + plane;
        for (uint32_t kx = w->columns.first; kx < w->columns.end; kx++) {
            const int32_t at_x = w->x + (int32_t)(kx * step->dilation_w);
            const uint32_t *from = row + (size_t)(uint32_t)at_x * words;
            for (uint32_t k = 0; k < words; k++) {
                to[k] &= from[k];
            }
        }
    }
}

static bd_status max_pool_packed(const bd_step *step, const uint8_t *constants, const bd_view in[],
                                 const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    const uint32_t words = bd_words(in->channels), planes = in->dtype == BD_TRIT ? 2u : 1u;
    (void)constants, (void)scratch;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        uint32_t *to = (void *)bd_row(out, y);
        for (uint32_t x = 0; x < out->width; x++) {
            const bd_window w = bd_window_at(step, in, y, x);
            for (uint32_t p = 0; p < planes; p++) {
                pool_words(to + ((size_t)p * out->width + x) * words, step, in, &w,
                           (size_t)p * in->width * words);
            }
        }
    }
    return BD_OK;
}

/* Padding of value 0 keeps bd_window_at inside the map. */
static bd_status check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t dtype) {
    const int fits = bd_is(in, dtype) && bd_is_absent(&in[1]) && bd_is(out, dtype) &&
                     bd_is_window(step, out) && out->channels == in->channels && step->pad_value == 0;
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define KERNEL(name, run, dtype)                                                                             \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants, (void)constants_size, (void)scratch_bytes;                                          \
        return check(step, in, out, dtype);                                                                  \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_max_pool_##name, run, check_##name)

KERNEL(f32, max_pool_f32, BD_F32)
KERNEL(i32, max_pool_i32, BD_I32)
KERNEL(i16, max_pool_i16, BD_I16)
KERNEL(i8, max_pool_i8, BD_I8)
KERNEL(u8, max_pool_u8, BD_U8)
KERNEL(bit, max_pool_packed, BD_BIT)
KERNEL(trit, max_pool_packed, BD_TRIT)
KERNEL(ubit, max_pool_packed, BD_UBIT)
