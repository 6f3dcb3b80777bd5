/* Convolution with 8-bit weights: int8 [O][kh][kw][C / groups]; inputs u8, i8, i16, bits or trits.
 *
 * A quantized input enters as q - zero_point, so that padding of 0 is left out like anywhere else. The window
 * of one pixel and group is gathered once into scratch as int32.
 *
 * Packing __border adds a number to each accumulator: bd_border.h. */
#include "bd_bits.h"
#include "bd_border.h"
#include "bd_check.h"
#include "bd_kernels.h"
#include "bd_window.h"

/* Channels c0 .. c0 + n of pixel x, without the zero point. */
static void decode(int32_t *to, const bd_view *in, const uint8_t *row, uint32_t x, uint32_t c0, uint32_t n,
                   int32_t zero_point) {
    const size_t at = (size_t)x * in->channels + c0;
    if (in->dtype == BD_U8) {
        for (uint32_t i = 0; i < n; i++) {
            to[i] = row[at + i] - zero_point;
        }
    } else if (in->dtype == BD_I8) {
        for (uint32_t i = 0; i < n; i++) {
            to[i] = ((const int8_t *)(const void *)row)[at + i] - zero_point;
        }
    } else if (in->dtype == BD_I16) {
        for (uint32_t i = 0; i < n; i++) {
            to[i] = ((const int16_t *)(const void *)row)[at + i] - zero_point;
        }
    } else {
        const uint32_t words = bd_words(in->channels);
        const uint32_t *a = (const uint32_t *)(const void *)row + (size_t)x * words;
        const uint32_t *b = in->dtype == BD_TRIT ? a + (size_t)in->width * words : NULL;
        for (uint32_t i = 0; i < n; i++) {
            const int32_t value = bd_packed_value(a, b, c0 + i);
            to[i] = in->dtype == BD_UBIT ? (value + 1) / 2 : value;
        }
    }
}

static void gather(int32_t *to, const bd_step *step, const bd_view *in, const bd_window *w, uint32_t c0,
                   uint32_t n) {
    for (uint32_t ky = w->rows.first; ky < w->rows.end; ky++) {
        const int32_t y = bd_at(step, w->y + (int32_t)(ky * step->dilation_h), in->height);
        const int inside = y >= 0 && y < in->height;
        const uint8_t *row = inside ? bd_row(in, (uint32_t)y) : NULL;
        for (uint32_t kx = w->columns.first; kx < w->columns.end; kx++, to += n) {
            const int32_t x = bd_at(step, w->x + (int32_t)(kx * step->dilation_w), in->width);
            if (inside && x >= 0 && x < in->width) {
                decode(to, in, row, (uint32_t)x, c0, n, step->zero_point);
            } else {
                for (uint32_t i = 0; i < n; i++) {
                    to[i] = step->pad_value;
                }
            }
        }
    }
}

/* Sums wrap: only a model that no exporter writes overflows, and that must stay defined. */
static int32_t dot(const int32_t *x, const int8_t *weights, const bd_runs *runs, uint32_t n) {
    uint32_t sum = 0;
    const uint32_t length = runs->taps * n;
    for (uint32_t r = 0; r < runs->count; r++, x += length) {
        const int8_t *w = weights + (size_t)(runs->first + r * runs->step) * n;
        for (uint32_t i = 0; i < length; i++) {
            sum += (uint32_t)x[i] * (uint32_t)(int32_t)w[i];
        }
    }
    return (int32_t)sum;
}

BD_INLINE void conv_rows(const bd_step *step, const int8_t *all_weights, const bd_border *border,
                         const bd_view in[], const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    const uint32_t groups = step->groups, n = in->channels / groups, count = out->channels / groups;
    const size_t stride = (size_t)step->kernel_h * step->kernel_w * n;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        int32_t *to = (void *)bd_row(out, y);
        for (uint32_t x = 0; x < out->width; x++) {
            const bd_window window = bd_window_at(step, in, y, x);
            const bd_runs runs = bd_runs_of(step, &window);
            const int8_t *weights = all_weights;
            const int32_t *add = NULL;
            if (border != NULL) {
                add = bd_border_values(border, y, x, out->channels);
            }
            for (uint32_t g = 0; g < groups; g++) {
                gather(scratch, step, in, &window, g * n, n);
                for (uint32_t o = 0; o < count; o++, weights += stride) {
                    const int32_t sum = dot(scratch, weights, &runs, n);
                    *to++ = border == NULL ? sum : (int32_t)((uint32_t)sum + (uint32_t)*add++);
                }
            }
        }
    }
}

static bd_status conv(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                      uint32_t y0, uint32_t rows, void *scratch) {
    conv_rows(step, (const void *)(constants + step->weights), NULL, in, out, y0, rows, scratch);
    return BD_OK;
}

static bd_status conv_border(const bd_step *step, const uint8_t *constants, const bd_view in[],
                             const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    bd_border border;
    if (bd_border_at(step, constants, &border) == 0) {
        return BD_ERROR_STEP; /* the loader has refused it */
    }
    conv_rows(step, border.weights, &border, in, out, y0, rows, scratch);
    return BD_OK;
}

/* `before`: bytes of the blob in front of the weights. */
static bd_status check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t *scratch_bytes,
                       uint32_t dtype, uint32_t before) {
    if (!bd_is(in, dtype) || !bd_is(out, BD_I32) || !bd_is_conv(step, in, out) ||
        (dtype == BD_UBIT && step->pad_value < 0)) {
        return BD_ERROR_STEP;
    }
    const uint32_t n = in->channels / (uint32_t)step->groups;
    const uint64_t window = (uint64_t)step->kernel_h * step->kernel_w * n * 4u;
    if (window > 0x7fffffffu || !bd_has_weights_behind(step, before, out->channels, n, 1)) {
        return BD_ERROR_STEP;
    }
    *scratch_bytes = (uint32_t)window;
    return BD_OK;
}

#define CONV(types, dtype)                                                                                   \
    static bd_status check_##types(const bd_step *step, const uint8_t *constants, uint32_t constants_size,   \
                                   const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {       \
        (void)constants, (void)constants_size;                                                               \
        return check(step, in, out, scratch_bytes, dtype, 0);                                                \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_conv_##types##_i32, conv, check_##types)

CONV(uq, BD_U8)
CONV(qq, BD_I8)
CONV(hq, BD_I16)
CONV(bq, BD_BIT)
CONV(tq, BD_TRIT)
CONV(zq, BD_UBIT)

static int all_below(const uint8_t *classes, uint32_t n, uint32_t limit) {
    uint32_t i = 0;
    while (i < n && classes[i] < limit) {
        i++;
    }
    return i == n;
}

static bd_status check_border(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                              const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {
    bd_border border;
    (void)constants_size; /* the loader has found the blob inside */
    if (step->weights == BD_ABSENT || step->weights_size < 4u || step->pad_value != 0) {
        return BD_ERROR_STEP;
    }
    const uint32_t before = bd_border_at(step, constants, &border);
    if (before == 0 || !all_below(border.rows, step->out_height, border.row_classes) ||
        !all_below(border.columns, step->out_width, border.column_classes)) {
        return BD_ERROR_STEP;
    }
    return check(step, in, out, scratch_bytes, BD_U8, before);
}

BD_DEFINE_KERNEL(bd_conv_uq_i32__border, conv_border, check_border)
