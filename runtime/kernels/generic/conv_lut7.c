/* Binary convolution with weights in the packing of bd_lut7.h: the plain version, and the check of all versions. */
#include "bd_kernels.h"
#include "bd_lut7.h"
#include "bd_window.h"

/* Bits first .. first + count of a pixel's channels; what lies behind the last word is 0. */
static uint32_t bits_at(const uint32_t *x, uint32_t words, uint32_t first, uint32_t count) {
    const uint32_t k = first / 32u, shift = first % 32u;
    const uint32_t low = k < words ? x[k] >> shift : 0;
    const uint32_t high = shift != 0 && k + 1u < words ? x[k + 1u] << (32u - shift) : 0;
    return (low | high) & ((1u << count) - 1u);
}

static uint32_t mismatches(const uint32_t *x, uint32_t channels, const uint8_t *weights, uint32_t outputs,
                           uint32_t o) {
    const uint32_t words = bd_words(channels);
    uint32_t n = 0;
    for (uint32_t at = 0; at < channels;) {
        const uint32_t slab = bd_lut7_slab(channels - at), indices = bd_lut7_indices(slab);
        const uint8_t *index = weights + o * indices;
        uint32_t c = at;
        for (uint32_t i = 0; i < indices; i++) {
            const uint32_t group = bd_lut7_group(slab, i);
            n += bd_popcount(bits_at(x, words, c, group) ^ (index[i] - bd_lut7_start(slab, i)));
            c += group;
        }
        weights += outputs * indices;
        at += slab;
    }
    return n;
}

void bd_lut7_gather(uint32_t *to, const bd_step *step, const bd_view *in, uint32_t y, uint32_t x) {
    const uint32_t words = bd_words(in->channels), tap = bd_lut7_tap(in->channels);
    const int32_t top = (int32_t)(y * step->stride_h) - step->pad_top;
    const int32_t left = (int32_t)(x * step->stride_w) - step->pad_left;
    const uint32_t fill = step->pad_value == -1 ? 0xffffffffu : 0;
    const uint32_t last = in->channels % 32u != 0 ? fill & ((1u << in->channels % 32u) - 1u) : fill;
    uint32_t word = 0, bits = 0; /* taps that share a word */
    for (uint32_t ky = 0; ky < step->kernel_h; ky++) {
        const int32_t at = bd_at(step, top + (int32_t)(ky * step->dilation_h), in->height);
        const int inside = at >= 0 && at < in->height;
        const uint32_t *row = inside ? (const void *)bd_row(in, (uint32_t)at) : NULL;
        for (uint32_t kx = 0; kx < step->kernel_w; kx++) {
            const int32_t column = bd_at(step, left + (int32_t)(kx * step->dilation_w), in->width);
            const int seen = inside && column >= 0 && column < in->width;
            const uint32_t *from = seen ? row + (uint32_t)column * words : &last;
            if (tap < 32u) {
                word |= *from << bits;
                bits += tap;
                if (bits == 32u) {
                    *to++ = word;
                    word = bits = 0;
                }
                continue;
            }
            for (uint32_t k = 1; k < words; k++) {
                *to++ = seen ? *from++ : fill;
            }
            *to++ = *from;
        }
    }
    if (bits != 0) {
        *to = word;
    }
}

void bd_lut7_add_borders(uint32_t *counts, const uint32_t *borders, const bd_step *step, const bd_view *in,
                         uint32_t y, uint32_t x) {
    if (step->pad_value != 0) {
        return;
    }
    const bd_window w = bd_window_at(step, in, y, x);
    if (w.rows.end - w.rows.first == step->kernel_h && w.columns.end - w.columns.first == step->kernel_w) {
        return;
    }
    const uint32_t words = step->out_channels / 2u;
    for (uint32_t ky = 0; ky < step->kernel_h; ky++) {
        for (uint32_t kx = 0; kx < step->kernel_w; kx++, borders += words) {
            if (ky < w.rows.first || ky >= w.rows.end || kx < w.columns.first || kx >= w.columns.end) {
                for (uint32_t o = 0; o < words; o++) {
                    counts[o] += borders[o];
                }
            }
        }
    }
}

/* Two outputs are a word of counts, as in all versions. */
static bd_status conv(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                      uint32_t y0, uint32_t rows, void *scratch) {
    const uint32_t channels = bd_lut7_channels(step, in->channels), outputs = step->out_channels;
    const uint8_t *weights = constants + step->weights;
    const uint32_t *borders = (const void *)(weights + outputs * bd_lut7_bytes(channels));
    const uint32_t taps = bd_lut7_taps(step);
    const uint32_t *biases = borders + (taps == 1u ? 0 : taps * outputs / 2u);
    uint32_t *const window = (void *)((uint8_t *)scratch + bd_lut7_tables(channels) + bd_lut7_counts(out));
    for (uint32_t y = y0; y < y0 + rows; y++) {
        uint32_t *to = (void *)bd_row(out, y);
        for (uint32_t x = 0; x < step->out_width; x++) {
            const uint32_t *from = window;
            uint32_t *const counts = out->dtype == BD_BIT ? scratch : to;
            if (taps == 1u) {
                from = (const void *)bd_row(in, y * step->stride_h);
                from += (size_t)x * step->stride_w * bd_words(channels);
            } else {
                bd_lut7_gather(window, step, in, y, x);
            }
            for (uint32_t o = 0; o < outputs / 2u; o++) {
                counts[o] = mismatches(from, channels, weights, outputs, 2u * o) |
                            mismatches(from, channels, weights, outputs, 2u * o + 1u) << 16;
            }
            if (taps != 1u) {
                bd_lut7_add_borders(counts, borders, step, in, y, x);
            }
            for (uint32_t o = 0; o < outputs / 2u && out->dtype == BD_BIT; o++) {
                const uint32_t reached = counts[o] + biases[o], k = o / 16u, at = o % 16u * 2u;
                to[k] = at == 0 ? 0 : to[k];
                to[k] |= (reached >> 15 & 1u) << at | (reached >> 31) << (at + 1u);
            }
            to += out->dtype == BD_BIT ? outputs / 32u : outputs / 2u;
        }
    }
    return BD_OK;
}

/* Every index lies in the table of its group. */
static int indices_fit(const uint8_t *weights, uint32_t channels, uint32_t outputs) {
    uint32_t outside = 0;
    for (uint32_t at = 0; at < channels;) {
        const uint32_t slab = bd_lut7_slab(channels - at), indices = bd_lut7_indices(slab);
        for (uint32_t i = 0; i < indices; i++) {
            const uint32_t start = bd_lut7_start(slab, i), group = bd_lut7_group(slab, i);
            const uint8_t *index = weights + i;
            for (uint32_t o = 0; o < outputs; o++, index += indices) {
                outside |= (*index - start) >> group;
            }
        }
        weights += outputs * indices;
        at += slab;
    }
    return outside == 0;
}

/* No sum of a count and a bias has more than 16 bits. */
static int biases_fit(const uint16_t *biases, uint32_t outputs) {
    uint32_t largest = 0;
    for (uint32_t o = 0; o < outputs; o++) {
        largest = biases[o] > largest ? biases[o] : largest;
    }
    return largest <= 0x8000u;
}

bd_status bd_lut7_check(const bd_step *step, const uint8_t *constants, const bd_view in[],
                        const bd_view out[], uint32_t dtype, uint32_t *scratch_bytes) {
    if (!bd_is(in, BD_BIT) || !bd_is(out, dtype) || !bd_is_conv(step, in, out) || step->groups != 1) {
        return BD_ERROR_STEP;
    }
    const uint32_t outputs = step->out_channels, taps = bd_lut7_taps(step);
    const int packed = dtype == BD_BIT;
    if (in->channels == 0 || taps * in->channels > 0x7ffeu || outputs == 0 ||
        outputs % (packed ? 32u : 2u) != 0 || step->weight_planes != 1 || step->weights == BD_ABSENT) {
        return BD_ERROR_STEP;
    }
    if (taps == 1u && (step->pad_top != 0 || step->pad_left != 0 ||
                       ((uint32_t)step->out_height - 1u) * step->stride_h >= in->height ||
                       ((uint32_t)step->out_width - 1u) * step->stride_w >= in->width)) {
        return BD_ERROR_STEP;
    }
    const uint32_t channels = bd_lut7_channels(step, in->channels);
    const uint64_t indices = (uint64_t)outputs * bd_lut7_bytes(channels);
    const uint64_t borders = taps == 1u ? 0 : (uint64_t)2u * taps * outputs;
    const uint8_t *const weights = constants + step->weights;
    if (indices + borders + (packed ? 2u * outputs : 0u) != step->weights_size ||
        (taps != 1u && indices % 4u != 0) || !indices_fit(weights, channels, outputs) ||
        (packed && !biases_fit((const void *)(weights + indices + borders), outputs))) {
        return BD_ERROR_STEP;
    }
    *scratch_bytes = bd_lut7_tables(channels) + bd_lut7_counts(out) + bd_lut7_windows(step, in->channels);
    return BD_OK;
}

#define CONV(name, dtype)                                                                                    \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants_size;                                                                                \
        return bd_lut7_check(step, constants, in, out, dtype, scratch_bytes);                                \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_conv_bb_##name##__lut7, conv, check_##name)

CONV(i16, BD_I16)
CONV(bit, BD_BIT)
