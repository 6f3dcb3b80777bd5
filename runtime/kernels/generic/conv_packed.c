/* Convolution of bits and trits: XNOR-popcount, exact integers.
 *
 *     weights: uint32 [O][kh][kw][plane][words(C / groups)], LSB first inside the group's channels, tail bits
 * 0
 *
 * With values as 1 - a - b (planes a <= b of a trit; a = b for a bit), one channel adds
 *     bit x bit    1 - 2 (x ^ w)
 *     trit x bit   1 - (xa ^ w) - (xb ^ w), and the same with x and w exchanged
 *     trit x trit  1 - z - 2 m, where z = a factor is 0, m = no factor is 0 and the signs differ
 * and {0,1} is a trit that is never -1: its plane a is 0 and not stored.
 * so that an accumulator is (channels seen) - n, and tail bits, 0 in x and w, count for nothing.
 *
 * For every output pixel the window's words are gathered once into scratch, group by group, as
 * [tap][plane][words]; then every output is a straight run over them. */
#include "bd_bits.h"
#include "bd_check.h"
#include "bd_kernels.h"
#include "bd_window.h"

BD_INLINE uint32_t planes_of(uint32_t dtype) {
    return dtype == BD_TRIT ? 2 : 1;
}

/* Words of one plane of one group at one pixel: bits offset .. offset + channels of its `all` channels. */
static void gather_words(uint32_t *to, const uint32_t *pixel, uint32_t all, uint32_t offset,
                         uint32_t channels) {
    const uint32_t shift = offset & 31u;
    const uint32_t *from = pixel + (offset >> 5);
    const uint32_t count = bd_words(channels);
    if (shift == 0 && (channels % 32u == 0 || offset + channels == all)) { /* its tail is 0 already */
        for (uint32_t k = 0; k < count; k++) {
            to[k] = from[k];
        }
        return;
    }
    const uint32_t *last = pixel + bd_words(all) - 1u;
    for (uint32_t k = 0; k < count; k++) {
        const uint32_t low = from[k] >> shift;
        const uint32_t high = shift != 0 && from + k < last ? from[k + 1u] << (32u - shift) : 0;
        to[k] = low | high;
    }
    if (channels % 32u != 0) {
        to[count - 1u] &= (1u << (channels % 32u)) - 1u;
    }
}

/* The same for a padded pixel of value -1 or +1. */
static void fill_words(uint32_t *to, int32_t value, uint32_t channels) {
    const uint32_t fill = value < 0 ? 0xffffffffu : 0;
    const uint32_t count = bd_words(channels);
    for (uint32_t k = 0; k < count; k++) {
        to[k] = fill;
    }
    if (channels % 32u != 0) {
        to[count - 1u] &= (1u << (channels % 32u)) - 1u;
    }
}

static void gather(uint32_t *to, const bd_step *step, const bd_view *in, const bd_window *w, uint32_t group,
                   uint32_t planes) {
    const uint32_t channels = in->channels / (uint32_t)step->groups;
    const uint32_t words = bd_words(in->channels), count = bd_words(channels);
    for (uint32_t ky = w->rows.first; ky < w->rows.end; ky++) {
        const int32_t y = bd_at(step, w->y + (int32_t)(ky * step->dilation_h), in->height);
        const int inside = y >= 0 && y < in->height;
        const uint32_t *row = inside ? (const void *)bd_row(in, (uint32_t)y) : NULL;
        for (uint32_t kx = w->columns.first; kx < w->columns.end; kx++) {
            const int32_t x = bd_at(step, w->x + (int32_t)(kx * step->dilation_w), in->width);
            for (uint32_t plane = 0; plane < planes; plane++) {
                if (inside && x >= 0 && x < in->width) {
                    const uint32_t pixel = plane * in->width + (uint32_t)x;
                    gather_words(to, row + (size_t)pixel * words, in->channels, group * channels, channels);
                } else {
                    fill_words(to, step->pad_value, channels);
                }
                to += count;
            }
        }
    }
}

/* n of the formula above for `taps` taps. */
BD_INLINE uint32_t mismatches(const uint32_t *x, const uint32_t *w, uint32_t taps, uint32_t words,
                              uint32_t x_dtype, uint32_t w_planes) {
    const uint32_t x_planes = planes_of(x_dtype);
    uint32_t n = 0;
    if (x_dtype == BD_BIT && w_planes == 1) {
        uint32_t left = taps * words;
        for (; left >= 2; left -= 2, x += 2, w += 2) {
            n += bd_popcount2(x[0] ^ w[0], x[1] ^ w[1]);
        }
        if (left != 0) {
            n += bd_popcount(x[0] ^ w[0]);
        }
        return 2u * n;
    }
    for (uint32_t tap = 0; tap < taps; tap++, x += x_planes * words, w += w_planes * words) {
        for (uint32_t k = 0; k < words; k++) {
            const uint32_t xa = x_dtype == BD_UBIT ? 0 : x[k], xb = x[k + (x_planes - 1u) * words];
            const uint32_t wa = w[k], wb = w[k + (w_planes - 1u) * words];
            if (x_dtype != BD_BIT && w_planes == 2) {
                const uint32_t zero = (xa ^ xb) | (wa ^ wb);
                const uint32_t differ = (xa ^ wa) & ~zero;
                n += bd_nibble_sum(bd_nibble_counts(zero) + 2u * bd_nibble_counts(differ));
            } else {
                n += bd_popcount2(xa ^ wa, xb ^ wb);
            }
        }
    }
    return n;
}

/* All outputs of one pixel and group. */
BD_INLINE void outputs(const bd_step *step, const uint32_t *x, const uint32_t *weights, uint8_t *to,
                       uint8_t dtype, const bd_runs *runs, uint32_t channels, uint32_t count,
                       uint32_t x_dtype, uint32_t w_planes) {
    const uint32_t words = bd_words(channels);
    const size_t w_tap = (size_t)words * w_planes, x_run = (size_t)runs->taps * words * planes_of(x_dtype);
    const size_t w_output = w_tap * step->kernel_h * step->kernel_w;
    const uint32_t seen = runs->count * runs->taps * channels;
    for (uint32_t o = 0; o < count; o++, weights += w_output) {
        uint32_t n = 0;
        for (uint32_t r = 0; r < runs->count; r++) {
            const uint32_t *w = weights + (runs->first + r * runs->step) * w_tap;
            n += mismatches(x + r * x_run, w, runs->taps, words, x_dtype, w_planes);
        }
        const int32_t sum = (int32_t)(seen - n);
        if (dtype == BD_I16) {
            ((int16_t *)(void *)to)[o] = (int16_t)sum;
        } else {
            ((int32_t *)(void *)to)[o] = sum;
        }
    }
}

BD_INLINE bd_status conv(const bd_step *step, const uint8_t *constants, const bd_view in[],
                         const bd_view out[], uint32_t y0, uint32_t rows, void *scratch, uint32_t x_dtype,
                         uint32_t w_planes) {
    const uint32_t groups = step->groups;
    const uint32_t channels = in->channels / groups, count = out->channels / groups;
    const uint32_t element = out->dtype == BD_I16 ? 2 : 4;
    const size_t w_group = (size_t)count * step->kernel_h * step->kernel_w * w_planes * bd_words(channels);
    for (uint32_t y = y0; y < y0 + rows; y++) {
        uint8_t *to = bd_row(out, y);
        for (uint32_t x = 0; x < out->width; x++) {
            const bd_window window = bd_window_at(step, in, y, x);
            const bd_runs runs = bd_runs_of(step, &window);
            const uint32_t *weights = (const void *)(constants + step->weights);
            for (uint32_t g = 0; g < groups; g++, weights += w_group, to += count * element) {
                gather(scratch, step, in, &window, g, planes_of(x_dtype));
                outputs(step, scratch, weights, to, out->dtype, &runs, channels, count, x_dtype, w_planes);
            }
        }
    }
    return BD_OK;
}

static bd_status check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t *scratch_bytes,
                       uint32_t x_dtype, uint32_t w_planes, uint32_t dtype) {
    if (!bd_is(in, x_dtype) || !bd_is(out, dtype) || !bd_is_conv(step, in, out)) {
        return BD_ERROR_STEP;
    }
    const uint32_t channels = in->channels / (uint32_t)step->groups;
    const uint32_t taps = (uint32_t)step->kernel_h * step->kernel_w;
    const uint64_t largest = (uint64_t)taps * channels; /* of an accumulator */
    if (step->weight_planes != w_planes || (x_dtype == BD_UBIT && step->pad_value < 0) ||
        largest > (dtype == BD_I16 ? 0x7fffu : 0x3fffffffu) ||
        !bd_has_weights(step, out->channels, bd_words(channels) * w_planes, 4)) {
        return BD_ERROR_STEP;
    }
    *scratch_bytes = taps * planes_of(x_dtype) * bd_words(channels) * 4u;
    return BD_OK;
}

#define CHECK(name, x_dtype, w_planes, dtype)                                                                \
    static bd_status name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,            \
                          const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {                \
        (void)constants, (void)constants_size;                                                               \
        return check(step, in, out, scratch_bytes, x_dtype, w_planes, dtype);                                \
    }

/* Both accumulator widths share one body. */
#define CONV(types, x_dtype, w_planes)                                                                       \
    static bd_status conv_##types(const bd_step *step, const uint8_t *constants, const bd_view in[],         \
                                  const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {          \
        return conv(step, constants, in, out, y0, rows, scratch, x_dtype, w_planes);                         \
    }                                                                                                        \
    CHECK(check_##types##_i16, x_dtype, w_planes, BD_I16)                                                    \
    CHECK(check_##types##_i32, x_dtype, w_planes, BD_I32)                                                    \
    BD_DEFINE_KERNEL(bd_conv_##types##_i16, conv_##types, check_##types##_i16)                               \
    BD_DEFINE_KERNEL(bd_conv_##types##_i32, conv_##types, check_##types##_i32)

CONV(bb, BD_BIT, 1)
CONV(tb, BD_TRIT, 1)
CONV(zb, BD_UBIT, 1)
CONV(bt, BD_BIT, 2)
CONV(tt, BD_TRIT, 2)
CONV(zt, BD_UBIT, 2)
