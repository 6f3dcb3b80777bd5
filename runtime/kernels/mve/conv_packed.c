/* Binary convolution on Armv8.1-M vectors, weights in the canonical packing (generic/conv_packed.c).
 *
 * Bytes of x ^ w look up their ones; up to 31 vectors of such counts add up in bytes before the one sum across lanes. Point-wise
 * layers keep their pixels in registers: two pixels of 128 or 256 channels share the weights' loads, and of 64 channels
 * one vector holds two outputs. Other windows are gathered into scratch once for a pixel, and four outputs share the
 * loads of it. */
#include "bd_kernels.h"
#include "bd_mve.h"
#include "bd_window.h"

#define LONGEST 31u /* vectors whose counts, at most 8, add up in bytes */

#define T4(n)  n, n + 1, n + 1, n + 2
#define T16(n) T4(n), T4(n + 1), T4(n + 1), T4(n + 2)
#define T64(n) T16(n), T16(n + 1), T16(n + 1), T16(n + 2)
const uint8_t bd_mve_ones[256] = {T64(0), T64(1), T64(1), T64(2)};

/* to[o] = k - 2 n */
BD_INLINE void store(uint8_t *to, uint32_t o, uint32_t k, uint32_t n, uint32_t element) {
    if (element == 2u) {
        ((int16_t *)(void *)to)[o] = (int16_t)(k - 2u * n);
    } else {
        ((int32_t *)(void *)to)[o] = (int32_t)(k - 2u * n);
    }
}

/* Keeps the compiler from merging what made this with what follows: it finds longer ways. */
#define HIDE(value) __asm__("" : "+r"(value))

/* Point-wise outputs of one or two pixels of `vectors` * 128 channels. */
BD_INLINE void pixels_of(uint8_t *const to[2], const uint8_t *const x[2], const uint8_t *w, uint32_t outputs,
                         uint32_t vectors, uint32_t pixels, uint32_t element) {
    bytes v[2][4];
    uint8_t *t = to[0], *u = to[1];
    const uint32_t k = 128u * vectors;
    for (uint32_t p = 0; p < pixels; p++) {
        for (uint32_t i = 0; i < vectors; i++) {
            v[p][i] = vld1q_u8(x[p] + 16u * i);
        }
    }
    for (uint32_t o = 0; o < outputs; o++, w += 16u * vectors) {
        bytes sum[2];
#pragma GCC unroll 4
        for (uint32_t i = 0; i < vectors; i++) {
            const bytes f = vld1q_u8(w + 16u * i);
#pragma GCC unroll 2
            for (uint32_t p = 0; p < pixels; p++) {
                const bytes ones = bd_ones(veorq_u8(v[p][i], f));
                sum[p] = i == 0 ? ones : vaddq_u8(sum[p], ones);
            }
        }
        store(t, 0, k, vaddvq_u8(sum[0]), element);
        t += element;
        if (pixels == 2u) {
            store(u, 0, k, vaddvq_u8(sum[1]), element);
            u += element;
        }
    }
}

/* Counts of two outputs, from one sum. */
BD_INLINE void store_two(uint8_t *to, uint32_t n, uint32_t element) {
    uint32_t first = n & 127u, second = n >> 7;
    HIDE(first);
    HIDE(second);
    store(to, 0, 64, first, element);
    store(to, 1, 64, second, element);
}

/* The same of 64 channels: two outputs a vector, whose counts, at most 64, one weighted sum keeps apart. */
BD_INLINE void pixels_of_64(uint8_t *const to[2], const uint8_t *const x[2], const uint8_t *w,
                            uint32_t outputs, uint32_t pixels, uint32_t element) {
    static const uint8_t apart[16] = {1, 1, 1, 1, 1, 1, 1, 1, 128, 128, 128, 128, 128, 128, 128, 128};
    const bytes factors = vld1q_u8(apart);
    bytes v[2];
    uint8_t *t = to[0], *u = to[1];
    for (uint32_t p = 0; p < pixels; p++) {
        uint64_t both;
        __builtin_memcpy(&both, x[p], sizeof(both));
        v[p] = vreinterpretq_u8_u32(vdupq_n_u32((uint32_t)both));
        v[p] = vreinterpretq_u8_u32(vsetq_lane_u32((uint32_t)(both >> 32), vreinterpretq_u32_u8(v[p]), 1));
        v[p] = vreinterpretq_u8_u32(vsetq_lane_u32((uint32_t)(both >> 32), vreinterpretq_u32_u8(v[p]), 3));
    }
    for (uint32_t o = 0; o + 2u <= outputs; o += 2, w += 16) {
        const bytes f = vld1q_u8(w);
        store_two(t, vmladavq_u8(bd_ones(veorq_u8(v[0], f)), factors), element);
        t += 2u * element;
        if (pixels == 2u) {
            store_two(u, vmladavq_u8(bd_ones(veorq_u8(v[1], f)), factors), element);
            u += 2u * element;
        }
    }
    if (outputs % 2u != 0) {
        const bytes f = bd_bytes_at(w, 8);
        store(t, 0, 64, vmladavq_u8(bd_ones(veorq_u8(v[0], f)), factors) & 127u, element);
        if (pixels == 2u) {
            store(u, 0, 64, vmladavq_u8(bd_ones(veorq_u8(v[1], f)), factors) & 127u, element);
        }
    }
}

/* Adds the counts of `size` bytes of `outputs` (1 or 4) filters, which lie `step` bytes apart. */
BD_INLINE void run_of(uint32_t n[4], const uint8_t *x, const uint8_t *w, uint32_t size, uint32_t step,
                      uint32_t outputs) {
    while (size != 0) {
        const uint32_t part = size < 16u * LONGEST ? size : 16u * LONGEST;
        bytes sum[4];
        for (uint32_t o = 0; o < outputs; o++) {
            sum[o] = vdupq_n_u8(0);
        }
        uint32_t left = part;
        for (; left >= 16u; left -= 16u, x += 16, w += 16) {
            const bytes v = vld1q_u8(x);
            for (uint32_t o = 0; o < outputs; o++) {
                sum[o] = vaddq_u8(sum[o], bd_ones(veorq_u8(v, vld1q_u8(w + o * step))));
            }
        }
        if (left != 0) {
            const bytes v = bd_bytes_at(x, left);
            for (uint32_t o = 0; o < outputs; o++) {
                sum[o] = vaddq_u8(sum[o], bd_ones(veorq_u8(v, bd_bytes_at(w + o * step, left))));
            }
            x += left;
            w += left;
        }
        for (uint32_t o = 0; o < outputs; o++) {
            n[o] = vaddvaq_u8(n[o], sum[o]);
        }
        size -= part;
    }
}

/* All outputs of a window in scratch. */
BD_INLINE void window_of(uint8_t *to, const uint8_t *x, const uint8_t *weights, const bd_runs *runs,
                         uint32_t tap, uint32_t filter, uint32_t outputs, uint32_t element) {
    const uint32_t k = runs->count * runs->taps * tap * 8u, size = runs->taps * tap;
    for (uint32_t o = 0; o < outputs;) {
        const uint32_t many = outputs - o >= 4u ? 4u : 1u;
        uint32_t n[4] = {0, 0, 0, 0};
        for (uint32_t r = 0; r < runs->count; r++) {
            const uint8_t *w = weights + (runs->first + r * runs->step) * tap;
            if (many == 4u) {
                run_of(n, x + r * size, w, size, filter, 4);
            } else {
                run_of(n, x + r * size, w, size, filter, 1);
            }
        }
        for (uint32_t i = 0; i < many; i++) {
            store(to, o + i, k, n[i], element);
        }
        o += many;
        weights += many * filter;
    }
}

/* The window's words, row by row; padded taps of a value too. */
static void gather(uint8_t *to, const bd_step *step, const bd_view *in, const bd_window *w, uint32_t tap) {
    for (uint32_t ky = w->rows.first; ky < w->rows.end; ky++) {
        const int32_t y = bd_at(step, w->y + (int32_t)(ky * step->dilation_h), in->height);
        const int inside = y >= 0 && y < in->height;
        const uint8_t *row = inside ? bd_row(in, (uint32_t)y) : NULL;
        for (uint32_t kx = w->columns.first; kx < w->columns.end; kx++, to += tap) {
            const int32_t x = bd_at(step, w->x + (int32_t)(kx * step->dilation_w), in->width);
            const int there = inside && x >= 0 && x < in->width;
            const uint8_t *from = there ? row + (uint32_t)x * tap : to;
            for (uint32_t i = 0; i < tap; i += 16u) {
                const mve_pred16_t some = vctp8q(tap - i);
                const bytes fill = vdupq_n_u8(step->pad_value < 0 ? 0xff : 0);
                vstrbq_p_u8(to + i, there ? vldrbq_z_u8(from + i, some) : fill, some);
            }
        }
    }
}

BD_INLINE void points(uint8_t *to, const uint8_t *x, const uint8_t *w, const bd_step *step, uint32_t tap,
                      uint32_t width, uint32_t element) {
    const uint32_t outputs = step->out_channels, next = step->stride_w * tap, row = outputs * element;
    for (uint32_t left = width; left != 0;) {
        const int two = left >= 2u && tap <= 32u;
        const uint8_t *const xs[2] = {x, x + (two ? next : 0u)};
        uint8_t *const tos[2] = {to, to + (two ? row : 0u)};
        if (tap == 8u) {
            if (two) {
                pixels_of_64(tos, xs, w, outputs, 2, element);
            } else {
                pixels_of_64(tos, xs, w, outputs, 1, element);
            }
        } else if (tap == 16u) {
            if (two) {
                pixels_of(tos, xs, w, outputs, 1, 2, element);
            } else {
                pixels_of(tos, xs, w, outputs, 1, 1, element);
            }
        } else if (tap == 32u) {
            if (two) {
                pixels_of(tos, xs, w, outputs, 2, 2, element);
            } else {
                pixels_of(tos, xs, w, outputs, 2, 1, element);
            }
        } else {
            pixels_of(tos, xs, w, outputs, 4, 1, element);
        }
        x += two ? 2u * next : next;
        to += two ? 2u * row : row;
        left -= two ? 2u : 1u;
    }
}

/* A point-wise layer whose pixels lie in the map. */
static int is_for_points(const bd_step *step, const bd_view *in, const bd_view *out) {
    const uint32_t c = in->channels;
    return step->kernel_h == 1 && step->kernel_w == 1 && step->pad_top == 0 && step->pad_left == 0 &&
           (uint32_t)(out->width - 1) * step->stride_w < in->width &&
           (uint32_t)(out->height - 1) * step->stride_h < in->height &&
           (c == 64 || c == 128 || c == 256 || c == 512);
}

BD_INLINE bd_status conv(const bd_step *step, const uint8_t *constants, const bd_view in[],
                         const bd_view out[], uint32_t y0, uint32_t rows, void *scratch, uint32_t element) {
    const uint32_t tap = 4u * bd_words(in->channels), filter = tap * step->kernel_h * step->kernel_w;
    const uint8_t *weights = constants + step->weights;
    const int direct = is_for_points(step, in, out);
    for (uint32_t y = y0; y < y0 + rows; y++) {
        uint8_t *to = bd_row(out, y);
        if (direct) {
            points(to, bd_row(in, y * step->stride_h), weights, step, tap, out->width, element);
            continue;
        }
        for (uint32_t x = 0; x < out->width; x++, to += out->channels * element) {
            const bd_window window = bd_window_at(step, in, y, x);
            const bd_runs runs = bd_runs_of(step, &window);
            gather(scratch, step, in, &window, tap);
            window_of(to, scratch, weights, &runs, tap, filter, out->channels, element);
        }
    }
    return BD_OK;
}

static bd_status conv_i16(const bd_step *step, const uint8_t *constants, const bd_view in[],
                          const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    return step->groups == 1 && in->channels % 32u == 0
               ? conv(step, constants, in, out, y0, rows, scratch, 2)
               : bd_conv_bb_i16.run(step, constants, in, out, y0, rows, scratch);
}

static bd_status conv_i32(const bd_step *step, const uint8_t *constants, const bd_view in[],
                          const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    return step->groups == 1 && in->channels % 32u == 0
               ? conv(step, constants, in, out, y0, rows, scratch, 4)
               : bd_conv_bb_i32.run(step, constants, in, out, y0, rows, scratch);
}

BD_DEFINE_VARIANT(bd_conv_bb_i16, mve, conv_i16)
BD_DEFINE_VARIANT(bd_conv_bb_i32, mve, conv_i32)
