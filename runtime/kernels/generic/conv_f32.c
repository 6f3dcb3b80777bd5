/* Convolution with real weights: float [O][kh][kw][C / groups]; inputs float, bits or trits.
 *
 * One accumulator per output, terms in ascending (ky, kx, ci), each product and each sum rounded to float;
 * four outputs at a time hide the latency of the additions without changing any of them. Compile without
 * contraction to fused multiply-add. The window of one pixel and group is gathered once into scratch as
 * floats. */
#include "bd_bits.h"
#include "bd_check.h"
#include "bd_kernels.h"
#include "bd_window.h"

/* Channels c0 .. c0 + n of pixel x. */
static void decode(float *to, const bd_view *in, const uint8_t *row, uint32_t x, uint32_t c0, uint32_t n) {
    if (in->dtype == BD_F32) {
        const float *from = (const float *)(const void *)row + (size_t)x * in->channels + c0;
        for (uint32_t i = 0; i < n; i++) {
            to[i] = from[i];
        }
        return;
    }
    const uint32_t words = bd_words(in->channels);
    const uint32_t *a = (const uint32_t *)(const void *)row + (size_t)x * words;
    const uint32_t *b = in->dtype == BD_TRIT ? a + (size_t)in->width * words : NULL;
    for (uint32_t i = 0; i < n; i++) {
        const int32_t value = bd_packed_value(a, b, c0 + i);
        to[i] = (float)(in->dtype == BD_UBIT ? (value + 1) / 2 : value);
    }
}

static void gather(float *to, const bd_step *step, const bd_view *in, const bd_window *w, uint32_t c0,
                   uint32_t n) {
    for (uint32_t ky = w->rows.first; ky < w->rows.end; ky++) {
        const int32_t y = bd_at(step, w->y + (int32_t)(ky * step->dilation_h), in->height);
        const int inside = y >= 0 && y < in->height;
        const uint8_t *row = inside ? bd_row(in, (uint32_t)y) : NULL;
        for (uint32_t kx = w->columns.first; kx < w->columns.end; kx++, to += n) {
            const int32_t x = bd_at(step, w->x + (int32_t)(kx * step->dilation_w), in->width);
            if (inside && x >= 0 && x < in->width) {
                decode(to, in, row, (uint32_t)x, c0, n);
            } else {
                for (uint32_t i = 0; i < n; i++) {
                    to[i] = step->pad_value;
                }
            }
        }
    }
}

/* `lanes` outputs whose weights lie `stride` elements apart; lanes is a constant of each call. */
BD_INLINE void dot(float *to, const float *x, const float *weights, size_t stride, const bd_runs *runs,
                   uint32_t n, uint32_t lanes) {
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    const uint32_t length = runs->taps * n;
    for (uint32_t r = 0; r < runs->count; r++, x += length) {
        const float *w = weights + (size_t)(runs->first + r * runs->step) * n;
        for (uint32_t i = 0; i < length; i++) {
            for (uint32_t lane = 0; lane < lanes; lane++) {
                const float product = x[i] * w[lane * stride + i];
                sum[lane] += product;
            }
        }
    }
    for (uint32_t lane = 0; lane < lanes; lane++) {
        to[lane] = sum[lane];
    }
}

static bd_status conv(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                      uint32_t y0, uint32_t rows, void *scratch) {
    const uint32_t groups = step->groups, n = in->channels / groups, count = out->channels / groups;
    const size_t stride = (size_t)step->kernel_h * step->kernel_w * n;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        float *to = (void *)bd_row(out, y);
        for (uint32_t x = 0; x < out->width; x++) {
            const bd_window window = bd_window_at(step, in, y, x);
            const bd_runs runs = bd_runs_of(step, &window);
            const float *weights = (const void *)(constants + step->weights);
            for (uint32_t g = 0; g < groups; g++) {
                gather(scratch, step, in, &window, g * n, n);
                uint32_t o = 0;
                for (; o + 4u <= count; o += 4, to += 4, weights += 4u * stride) {
                    dot(to, scratch, weights, stride, &runs, n, 4);
                }
                for (; o < count; o++, to++, weights += stride) {
                    dot(to, scratch, weights, stride, &runs, n, 1);
                }
            }
        }
    }
    return BD_OK;
}

static bd_status check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t *scratch_bytes,
                       uint32_t dtype) {
    if (!bd_is(in, dtype) || !bd_is(out, BD_F32) || !bd_is_conv(step, in, out) ||
        (dtype == BD_UBIT && step->pad_value < 0)) {
        return BD_ERROR_STEP;
    }
    const uint32_t n = in->channels / (uint32_t)step->groups;
    const uint64_t window = (uint64_t)step->kernel_h * step->kernel_w * n * 4u;
    if (window > 0x7fffffffu || !bd_has_weights(step, out->channels, n, 4)) {
        return BD_ERROR_STEP;
    }
    *scratch_bytes = (uint32_t)window;
    return BD_OK;
}

#define CONV(types, dtype)                                                                                   \
    static bd_status check_##types(const bd_step *step, const uint8_t *constants, uint32_t constants_size,   \
                                   const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {       \
        (void)constants, (void)constants_size;                                                               \
        return check(step, in, out, scratch_bytes, dtype);                                                   \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_conv_##types##_f32, conv, check_##types)

CONV(ff, BD_F32)
CONV(bf, BD_BIT)
CONV(tf, BD_TRIT)
CONV(zf, BD_UBIT)
