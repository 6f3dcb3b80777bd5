/* Point-wise binary convolution with weights in the packing of bd_lut7.h: the plain version, and the check of all versions. */
#include "bd_kernels.h"
#include "bd_lut7.h"

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

static bd_status conv(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                      uint32_t y0, uint32_t rows, void *scratch) {
    const uint32_t channels = in->channels, outputs = step->out_channels;
    const uint8_t *weights = constants + step->weights;
    const uint16_t *biases = (const void *)(weights + outputs * bd_lut7_bytes(channels));
    (void)scratch;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        uint16_t *counts = (void *)bd_row(out, y);
        uint32_t *bits = (void *)bd_row(out, y);
        for (uint32_t x = 0; x < step->out_width; x++) {
            const uint32_t *from = (const void *)bd_row(in, y * step->stride_h);
            uint32_t word = 0;
            from += (size_t)x * step->stride_w * bd_words(channels);
            for (uint32_t o = 0; o < outputs; o++) {
                const uint32_t n = mismatches(from, channels, weights, outputs, o);
                if (out->dtype == BD_I16) {
                    *counts++ = (uint16_t)n;
                    continue;
                }
                word |= ((n + biases[o]) >> 15 & 1u) << (o % 32u);
                if (o % 32u == 31u || o == outputs - 1u) {
                    *bits++ = word;
                    word = 0;
                }
            }
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
    const uint32_t channels = in->channels, outputs = step->out_channels;
    const int packed = dtype == BD_BIT;
    if (channels == 0 || channels > 0x7ffeu || outputs == 0 || outputs % (packed ? 32u : 2u) != 0 ||
        step->kernel_h != 1 || step->kernel_w != 1 || step->pad_top != 0 || step->pad_left != 0 ||
        step->weight_planes != 1 || step->weights == BD_ABSENT ||
        ((uint32_t)step->out_height - 1u) * step->stride_h >= in->height ||
        ((uint32_t)step->out_width - 1u) * step->stride_w >= in->width) {
        return BD_ERROR_STEP;
    }
    const uint64_t indices = (uint64_t)outputs * bd_lut7_bytes(channels);
    const uint8_t *const weights = constants + step->weights;
    if (indices + (packed ? 2u * outputs : 0u) != step->weights_size ||
        !indices_fit(weights, channels, outputs) ||
        (packed && !biases_fit((const void *)(weights + indices), outputs))) {
        return BD_ERROR_STEP;
    }
    *scratch_bytes = bd_lut7_tables(channels) + (packed ? 2u * BD_LUT7_PIXELS * outputs : 0u);
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
