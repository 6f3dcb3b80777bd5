/* Binary convolution on Armv8.1-M vectors, weights in the canonical packing (generic/conv_packed.c).
 *
 * Bytes of x ^ w look up their ones; up to 31 vectors of such counts add up in bytes before the sum across lanes. Point-wise
 * layers keep their pixels in registers: two pixels of 128 or 256 channels share the weights' loads, and of 64 or 32
 * channels one vector holds two or four outputs. Other windows are gathered into scratch once for a pixel, and four outputs share the
 * loads of it. */
#include "bd_kernels.h"
#include "bd_mve.h"
#include "bd_window.h"

#define LONGEST 30u /* vectors whose counts, at most 8, add up in bytes, with one more */

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

/* Point-wise outputs of one or two pixels of 32 channels: four outputs a vector, in lanes of 32 bits. */
BD_INLINE void pixels_of_32(uint8_t *const to[2], const uint8_t *const x[2], const uint8_t *w,
                            uint32_t outputs, uint32_t pixels, uint32_t element) {
    const int32x4_t minus = vdupq_n_s32(-2);
    for (uint32_t left = outputs, o = 0; left != 0; w += 16, o += 4u) {
        const uint32_t many = left < 4u ? left : 4u;
        const mve_pred16_t some = vctp32q(many);
        const bytes f = bd_bytes_at(w, 4u * many);
        left -= many;
#pragma GCC unroll 2
        for (uint32_t p = 0; p < pixels; p++) {
            uint32_t word;
            __builtin_memcpy(&word, x[p], sizeof(word));
            const bytes ones = bd_ones(veorq_u8(f, vreinterpretq_u8_u32(vdupq_n_u32(word))));
            const uint32x4_t n = vshrq_n_u32(vmulq_n_u32(vreinterpretq_u32_u8(ones), 0x01010101u), 24);
            const int32x4_t value = vmlasq_n_s32(vreinterpretq_s32_u32(n), minus, 32);
            if (element == 2u) {
                vstrhq_p_s32((int16_t *)(void *)to[p] + o, value, some);
            } else {
                vstrwq_p_s32((int32_t *)(void *)to[p] + o, value, some);
            }
        }
    }
}

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
    store(to, 0, 64, n & 127u, element);
    store(to, 1, 64, n >> 7, element);
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

/* What a run of taps reads: `size` bytes of x and of each filter, which lie `step` bytes apart. */
typedef struct run_of {
    const uint8_t *x, *w;
    uint32_t size, step;
    uint8_t *to;
    uint32_t outputs, k;
} run_of;

/* k - 2 n of four outputs at a time, of at least 16 bytes; these share the loads of x. What is left of whole vectors comes
 * first, as the last bytes of a vector that lies before the end. */
BD_INLINE void fours(const run_of *r, uint32_t element) {
    const uint32_t rest = r->size % 16u, vectors = r->size / 16u, step = r->step, k = r->k;
    const bytes mask = vpselq_u8(vdupq_n_u8(0), vdupq_n_u8(0xff), vctp8q(16u - rest));
    const uint8_t *const x = r->x, *w = r->w;
    uint8_t *to = r->to;
    for (uint32_t left = r->outputs / 4u; left != 0; left--) {
        const uint8_t *a = w, *b = a + step, *c = b + step, *d = c + step, *at = x;
        bytes p, q, s, t;
        if (rest != 0) {
            const bytes v = vld1q_u8(x + r->size - 16u);
            const size_t end = r->size - 16u;
            p = vandq_u8(bd_ones(veorq_u8(v, vld1q_u8(a + end))), mask);
            q = vandq_u8(bd_ones(veorq_u8(v, vld1q_u8(b + end))), mask);
            s = vandq_u8(bd_ones(veorq_u8(v, vld1q_u8(c + end))), mask);
            t = vandq_u8(bd_ones(veorq_u8(v, vld1q_u8(d + end))), mask);
        } else {
            p = q = s = t = vdupq_n_u8(0);
        }
        for (uint32_t i = vectors; i != 0; i--) {
            const bytes v = vld1q_u8(at);
            at += 16;
            p = vaddq_u8(p, bd_ones(veorq_u8(v, vld1q_u8(a))));
            a += 16;
            q = vaddq_u8(q, bd_ones(veorq_u8(v, vld1q_u8(b))));
            b += 16;
            s = vaddq_u8(s, bd_ones(veorq_u8(v, vld1q_u8(c))));
            c += 16;
            t = vaddq_u8(t, bd_ones(veorq_u8(v, vld1q_u8(d))));
            d += 16;
        }
        store(to, 0, k, vaddvq_u8(p), element);
        store(to, 1, k, vaddvq_u8(q), element);
        store(to, 2, k, vaddvq_u8(s), element);
        store(to, 3, k, vaddvq_u8(t), element);
        to += 4u * element;
        w += 4u * step;
    }
}

static BD_APART void fours_i16(const run_of *r) {
    fours(r, 2);
}

static BD_APART void fours_i32(const run_of *r) {
    fours(r, 4);
}

/* Ones of x ^ w. */
static BD_APART uint32_t differing(const uint8_t *x, const uint8_t *w, uint32_t size) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < size; i += 16u) {
        n = vaddvaq_u8(n, bd_ones(veorq_u8(bd_bytes_at(x + i, size - i), bd_bytes_at(w + i, size - i))));
    }
    return n;
}

/* All outputs of a window in scratch. */
BD_INLINE void window_of(uint8_t *to, const uint8_t *x, const uint8_t *weights, const bd_runs *runs,
                         uint32_t tap, uint32_t filter, uint32_t outputs, uint32_t element) {
    const uint32_t size = runs->taps * tap, k = runs->count * size * 8u;
    uint32_t o = 0;
    if (runs->count == 1 && size >= 16u && size < 16u * LONGEST) {
        const run_of r = {x, weights + runs->first * tap, size, filter, to, outputs, k};
        if (element == 2u) {
            fours_i16(&r);
        } else {
            fours_i32(&r);
        }
        o = outputs / 4u * 4u;
    }
    for (; o < outputs; o++) {
        uint32_t n = 0;
        for (uint32_t r = 0; r < runs->count; r++) {
            const size_t at = (size_t)o * filter + (runs->first + r * runs->step) * tap;
            n += differing(x + r * size, weights + at, size);
        }
        store(to, o, k, n, element);
    }
}

BD_INLINE void copy(uint8_t *to, const uint8_t *from, uint32_t size) {
    for (; size >= 16u; size -= 16u, to += 16, from += 16) {
        vst1q_u8(to, vld1q_u8(from));
    }
    if (size != 0) {
        vstrbq_p_u8(to, bd_bytes_at(from, size), vctp8q(size));
    }
}

/* The words of a window that leaves the map, tap by tap; padded taps of a value too. */
static BD_APART bd_runs gather(uint8_t *to, const bd_step *step, const bd_view *in, uint32_t y, uint32_t x,
                               uint32_t tap) {
    const bd_window w = bd_window_at(step, in, y, x);
    for (uint32_t ky = w.rows.first; ky < w.rows.end; ky++) {
        const int32_t from_y = bd_at(step, w.y + (int32_t)(ky * step->dilation_h), in->height);
        const int inside = from_y >= 0 && from_y < in->height;
        const uint8_t *row = inside ? bd_row(in, (uint32_t)from_y) : NULL;
        for (uint32_t kx = w.columns.first; kx < w.columns.end; kx++, to += tap) {
            const int32_t from_x = bd_at(step, w.x + (int32_t)(kx * step->dilation_w), in->width);
            if (inside && from_x >= 0 && from_x < in->width) {
                copy(to, row + (uint32_t)from_x * tap, tap);
            } else {
                for (uint32_t i = 0; i < tap; i += 4u) {
                    *(uint32_t *)(void *)(to + i) = step->pad_value < 0 ? 0xffffffffu : 0u;
                }
            }
        }
    }
    return bd_runs_of(step, &w);
}

/* A row whose windows lie in the map or leave it at the sides. */
BD_INLINE void windows(uint8_t *to, const bd_step *step, const bd_view *in, const bd_view *out,
                       const uint8_t *weights, uint32_t y, uint8_t *scratch, uint32_t tap, uint32_t element) {
    const uint32_t filter = tap * step->kernel_h * step->kernel_w, row = out->channels * element;
    const int32_t top = (int32_t)(y * step->stride_h) - step->pad_top;
    const bd_taps inner = bd_inner_columns(step, in, out);
    const int whole = top >= 0 && top + (step->kernel_h - 1) * step->dilation_h < in->height;
    const bd_runs all = {1, (uint32_t)step->kernel_h * step->kernel_w, 0, step->kernel_w};
    for (uint32_t x = 0; x < out->width; x++, to += row) {
        if (!whole || x < inner.first || x >= inner.end) {
            const bd_runs runs = gather(scratch, step, in, y, x, tap);
            window_of(to, scratch, weights, &runs, tap, filter, out->channels, element);
            continue;
        }
        const uint32_t left = (x * step->stride_w - step->pad_left) * tap, next = step->dilation_w * tap;
        uint8_t *at = scratch;
        for (uint32_t ky = 0; ky < step->kernel_h; ky++) {
            const uint8_t *from = bd_row(in, (uint32_t)top + ky * step->dilation_h) + left;
            const uint32_t runs = step->dilation_w == 1 ? 1u : step->kernel_w;
            const uint32_t size = step->dilation_w == 1 ? step->kernel_w * tap : tap;
            for (uint32_t i = 0; i < runs; i++, at += size, from += next) {
                copy(at, from, size);
            }
        }
        window_of(to, scratch, weights, &all, tap, filter, out->channels, element);
    }
}

BD_INLINE void points(uint8_t *to, const uint8_t *x, const uint8_t *w, const bd_step *step, uint32_t tap,
                      uint32_t width, uint32_t element) {
    const uint32_t outputs = step->out_channels, next = step->stride_w * tap, row = outputs * element;
    for (uint32_t left = width; left != 0;) {
        const int two = left >= 2u && tap <= 32u;
        const uint8_t *const xs[2] = {x, x + (two ? next : 0u)};
        uint8_t *const tos[2] = {to, to + (two ? row : 0u)};
        if (tap == 4u) {
            if (two) {
                pixels_of_32(tos, xs, w, outputs, 2, element);
            } else {
                pixels_of_32(tos, xs, w, outputs, 1, element);
            }
        } else if (tap == 8u) {
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
           (c == 32 || c == 64 || c == 128 || c == 256 || c == 512);
}

BD_INLINE bd_status conv(const bd_step *step, const uint8_t *constants, const bd_view in[],
                         const bd_view out[], uint32_t y0, uint32_t rows, void *scratch, uint32_t element) {
    const uint32_t tap = 4u * bd_words(in->channels);
    const uint8_t *weights = constants + step->weights;
    const int direct = is_for_points(step, in, out);
    for (uint32_t y = y0; y < y0 + rows; y++) {
        uint8_t *to = bd_row(out, y);
        if (direct) {
            points(to, bd_row(in, y * step->stride_h), weights, step, tap, out->width, element);
        } else {
            windows(to, step, in, out, weights, y, scratch, tap, element);
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
