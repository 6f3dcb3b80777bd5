/* Binary convolution with weights in the packing of bd_tile16.h: the plain version, and the check of all versions. */
#include "bd_kernels.h"
#include "bd_tile16.h"

/* Where half `u` (in the order of the packing) of the window at `pixel` of the padded rows lies: bytes behind the start of
 * the first row. */
static uint32_t half_at(const bd_step *step, uint32_t channels, uint32_t pixel, uint32_t u) {
    const uint32_t halves = channels / 64u, row = bd_tile16_row_bytes(step, channels);
    if (step->kernel_h == 1) {
        return u * 8u;
    }
    uint32_t ky = u / (3u * halves), at = u % (3u * halves);
    if (halves == 1) { /* 0 1 | 0 1 | 0 1 | 2 2 2 */
        ky = u < 6u ? u / 2u : u - 6u;
        at = u < 6u ? u % 2u : 2u;
    }
    return ky * row + pixel * halves * 8u + at * 8u;
}

/* The weights' words of half u of output o. */
static const uint32_t *weights_at(const uint8_t *weights, const bd_tile16 *t, uint32_t o, uint32_t u) {
    const uint32_t whole = t->chunks * t->vectors;
    const uint8_t *tile = weights + (size_t)(o / 16u) * t->halves * 128u;
    if (t->shared) {
        tile += o % 16u / 4u * (4u * whole + 2u) * 16u;
        tile += u < 2u * whole ? o % 4u * whole * 16u + u * 8u : 4u * whole * 16u + o % 4u * 8u;
        return (const void *)tile;
    }
    const uint32_t chunk = u / 2u / t->vectors, in_chunk = u - chunk * t->vectors * 2u;
    return (const void *)(tile + ((chunk * 16u + o % 16u) * t->vectors * 2u + in_chunk) * 8u);
}

/* Row y + ky of the input with its padding. */
static void pad_row(uint32_t *to, const bd_step *step, const bd_view *in, int32_t y) {
    const uint32_t words = bd_words(in->channels), columns = bd_tile16_columns(step);
    const uint32_t fill = step->pad_value < 0 ? 0xffffffffu : 0;
    const int inside = y >= 0 && y < in->height;
    const uint32_t *row = inside ? (const void *)bd_row(in, (uint32_t)y) : NULL;
    for (uint32_t i = 0; i < columns; i++) {
        const int32_t x = (int32_t)i - step->pad_left;
        for (uint32_t k = 0; k < words; k++) {
            *to++ = inside && x >= 0 && x < in->width ? row[(uint32_t)x * words + k] : fill;
        }
    }
}

/* seen + 2 ones of the padded taps of output o. */
static int16_t addend(const bd_step *step, const uint16_t *ones, uint32_t channels, uint32_t rows,
                      uint32_t columns, uint32_t o) {
    const uint32_t side = step->kernel_h;
    uint32_t sum = 0;
    for (uint32_t tap = 0; tap < side * side; tap++) {
        const uint32_t ky = tap / side, kx = tap % side;
        const int missing = (ky == 0 && (rows & 1u) != 0) || (ky == 2 && (rows & 2u) != 0) ||
                            (kx == 0 && (columns & 1u) != 0) || (kx == 2 && (columns & 2u) != 0);
        sum += missing ? 2u * ones[(size_t)tap * step->out_channels + o] : channels;
    }
    return (int16_t)(uint16_t)sum;
}

/* Of 8, 16 or 32 channels: the same of the bits that there are, which are a word's first. */
static uint32_t few_mismatches(const uint8_t *x, const uint8_t *w, uint32_t count) {
    uint32_t word = 0;
    for (uint32_t i = 0; i < count; i++) {
        word |= (uint32_t)(x[i] ^ w[i]) << (8u * i);
    }
    return bd_popcount(word);
}

static uint32_t mismatches(const uint8_t *x, const bd_step *step, const bd_tile16 *t, const uint8_t *weights,
                           uint32_t channels, uint32_t pixel, uint32_t o) {
    uint32_t n = 0;
    if (t->half != 8u) {
        return few_mismatches(x, weights + (size_t)o * t->half, t->half);
    }
    for (uint32_t u = 0; u < t->halves; u++) {
        const uint32_t *a = (const void *)(x + half_at(step, channels, pixel, u));
        const uint32_t *w = weights_at(weights, t, o, u);
        n += bd_popcount2(a[0] ^ w[0], a[1] ^ w[1]);
    }
    return n;
}

static bd_status conv(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                      uint32_t y0, uint32_t rows, void *scratch) {
    const uint32_t channels = in->channels, outputs = step->out_channels, taps = bd_tile16_taps(step);
    const bd_tile16 t = bd_tile16_of(taps, channels);
    const uint8_t *weights = constants + step->weights;
    const uint16_t *ones = (const void *)(weights + bd_tile16_bytes(&t, outputs));
    const int16_t *low = (const void *)(ones + (taps == 9u ? 9u * (size_t)outputs : 0u));
    const uint32_t row_bytes = bd_tile16_row_bytes(step, channels);
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const int32_t top = (int32_t)(y * step->stride_h) - step->pad_top;
        const uint32_t missing_rows = bd_tile16_missing(step, top, in->height);
        int16_t *values = (void *)bd_row(out, y);
        uint32_t *bits = (void *)bd_row(out, y);
        for (uint32_t ky = 0; ky < 3u && taps == 9u; ky++) {
            pad_row((void *)((uint8_t *)scratch + ky * row_bytes), step, in, top + (int32_t)ky);
        }
        for (uint32_t x = 0; x < step->out_width; x++) {
            const uint32_t pixel = x * step->stride_w;
            const uint32_t missing = bd_tile16_missing(step, (int32_t)pixel - step->pad_left, in->width);
            const uint8_t *from =
                taps == 9u ? scratch
                           : bd_row(in, y * step->stride_h) + (size_t)pixel * (4u * bd_words(channels));
            uint32_t word = 0;
            for (uint32_t o = 0; o < outputs; o++) {
                const uint32_t c = mismatches(from, step, &t, weights, channels, pixel, o);
                const int16_t a = addend(step, ones, channels, missing_rows, missing, o);
                if (out->dtype == BD_I16) {
                    *values++ = (int16_t)(uint16_t)((uint32_t)a - 2u * c);
                    continue;
                }
                word |= (bd_less((a - low[o]) >> 1, (int32_t)c) >> 31) << (o % 32u);
                if (o % 32u == 31u) {
                    *bits++ = word;
                    word = 0;
                }
            }
        }
    }
    return BD_OK;
}

/* Padding of one pixel at most, and the middle tap inside of the map. */
static int window_fits(const bd_step *step, uint32_t out, uint32_t in, uint32_t stride, uint32_t pad) {
    const uint64_t reach = (uint64_t)(out - 1u) * stride;
    if (step->kernel_h == 1) {
        return pad == 0 && reach < in;
    }
    return pad <= 1u && reach + 3u <= (uint64_t)in + pad + 1u;
}

bd_status bd_tile16_check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t dtype,
                          uint32_t *scratch_bytes) {
    if (!bd_is(in, BD_BIT) || !bd_is(out, dtype) || !bd_is_conv(step, in, out) || step->groups != 1) {
        return BD_ERROR_STEP;
    }
    const uint32_t taps = bd_tile16_taps(step), outputs = step->out_channels, channels = in->channels;
    const bd_tile16 t = bd_tile16_of(taps, channels);
    const int packed = dtype == BD_BIT;
    const uint64_t blob =
        (uint64_t)outputs * (t.halves * t.half + (taps == 9u ? 18u : 0u) + (packed ? 2u : 0u));
    const uint64_t padded = ((uint64_t)(step->out_width - 1u) * step->stride_w + 3u) * (channels / 8u);
    if (t.vectors + t.shared == 0 || outputs % (packed ? 32u : 16u) != 0 || taps * channels > 0x7fffu ||
        step->weight_planes != 1 || step->weights == BD_ABSENT || blob != step->weights_size ||
        padded > 0x0fffffffu || step->dilation_h != 1 || step->dilation_w != 1 || step->pad_value > 1 ||
        !window_fits(step, step->out_height, in->height, step->stride_h, step->pad_top) ||
        !window_fits(step, step->out_width, in->width, step->stride_w, step->pad_left)) {
        return BD_ERROR_STEP;
    }
    *scratch_bytes = bd_tile16_scratch(step, channels);
    return BD_OK;
}

#define CONV(name, dtype)                                                                                    \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants, (void)constants_size;                                                               \
        return bd_tile16_check(step, in, out, dtype, scratch_bytes);                                         \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_conv_bb_##name##__tile16, conv, check_##name)

CONV(i16, BD_I16)
CONV(bit, BD_BIT)
