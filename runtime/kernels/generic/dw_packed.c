/* Depth-wise convolution of bits and trits, bit-sliced: 32 channels a word.
 *
 *     weights: uint32 [kh][kw][plane][words(C)]
 *
 * Bit p of channel c's count n stands in bit c of plane p of a counter; a tap is added by a ripple of half
 * adders, so 32 channels cost as much as one. The accumulator is (taps seen) - n with n as in conv_packed.c.
 */
#include "bd_bits.h"
#include "bd_check.h"
#include "bd_kernels.h"
#include "bd_window.h"

#define MAX_PLANES 8 /* n <= 2 * 127 */

/* counter += 2**from where ones has a 1. */
BD_INLINE void add(uint32_t counter[MAX_PLANES], uint32_t planes, uint32_t from, uint32_t ones) {
    for (uint32_t p = from; p < planes; p++) {
        const uint32_t carry = counter[p] & ones;
        counter[p] ^= ones;
        ones = carry;
    }
}

/* counter = n of one word of channels over the window. */
BD_INLINE void count(const bd_step *step, const uint32_t *weights, const bd_view *in, const bd_window *window,
                     uint32_t k, uint32_t counter[MAX_PLANES], uint32_t planes, uint32_t x_planes,
                     uint32_t w_planes) {
    const uint32_t words = bd_words(in->channels);
    const uint32_t pad = step->pad_value < 0 ? 0xffffffffu : 0;
    for (uint32_t p = 0; p < planes; p++) {
        counter[p] = 0;
    }
    for (uint32_t ky = window->rows.first; ky < window->rows.end; ky++) {
        const int32_t y = bd_at(step, window->y + (int32_t)(ky * step->dilation_h), in->height);
        const int inside = y >= 0 && y < in->height;
        const uint32_t *row = inside ? (const void *)bd_row(in, (uint32_t)y) : NULL;
        for (uint32_t kx = window->columns.first; kx < window->columns.end; kx++) {
            const int32_t x = bd_at(step, window->x + (int32_t)(kx * step->dilation_w), in->width);
            const uint32_t *w = weights + (size_t)(ky * step->kernel_w + kx) * w_planes * words + k;
            uint32_t xa = pad, xb = pad;
            if (inside && x >= 0 && x < in->width) {
                const uint32_t *pixel = row + (size_t)(uint32_t)x * words + k;
                xa = pixel[0];
                xb = pixel[(size_t)(x_planes - 1u) * in->width * words];
            }
            const uint32_t wa = w[0], wb = w[(w_planes - 1u) * words];
            if (x_planes == 1 && w_planes == 1) {
                add(counter, planes, 1, xa ^ wa);
            } else if (x_planes == 2 && w_planes == 2) {
                const uint32_t zero = (xa ^ xb) | (wa ^ wb);
                add(counter, planes, 0, zero);
                add(counter, planes, 1, (xa ^ wa) & ~zero);
            } else {
                add(counter, planes, 0, xa ^ wa);
                add(counter, planes, 0, xb ^ wb);
            }
        }
    }
}

/* to[c] = seen - n for the first `channels` of a word's channels. */
static void expand(int8_t *to, const uint32_t counter[MAX_PLANES], uint32_t planes, int32_t seen,
                   uint32_t channels) {
    for (uint32_t q = 0; q < 8; q++) {
        uint32_t lanes = 0; /* byte i: n of channel 8 * i + q */
        for (uint32_t p = 0; p < planes; p++) {
            lanes |= ((counter[p] >> q) & 0x01010101u) << p;
        }
        for (uint32_t c = q; c < channels; c += 8) {
            to[c] = (int8_t)(seen - (int32_t)(lanes & 0xffu));
            lanes >>= 8;
        }
    }
}

BD_INLINE bd_status dw(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                       uint32_t y0, uint32_t rows, uint32_t x_planes, uint32_t w_planes) {
    const uint32_t *weights = (const void *)(constants + step->weights);
    const uint32_t largest = 2u * step->kernel_h * step->kernel_w; /* of n */
    uint32_t planes = 0;
    while (largest >> planes != 0) {
        planes++;
    }
    for (uint32_t y = y0; y < y0 + rows; y++) {
        int8_t *to = (void *)bd_row(out, y);
        for (uint32_t x = 0; x < out->width; x++, to += out->channels) {
            const bd_window window = bd_window_at(step, in, y, x);
            const uint32_t taps =
                (window.rows.end - window.rows.first) * (window.columns.end - window.columns.first);
            for (uint32_t c = 0; c < out->channels; c += 32) {
                uint32_t counter[MAX_PLANES];
                const uint32_t left = out->channels - c;
                count(step, weights, in, &window, c / 32u, counter, planes, x_planes, w_planes);
                expand(to + c, counter, planes, (int32_t)taps, left < 32u ? left : 32u);
            }
        }
    }
    return BD_OK;
}

static bd_status check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t x_planes,
                       uint32_t w_planes) {
    const uint32_t taps = (uint32_t)step->kernel_h * step->kernel_w;
    const int fits = bd_is(in, x_planes == 2 ? BD_TRIT : BD_BIT) && bd_is(out, BD_I8) &&
                     bd_is_conv(step, in, out) && step->groups == in->channels &&
                     out->channels == in->channels && taps <= 127u && step->weight_planes == w_planes &&
                     bd_has_weights(step, 1, bd_words(in->channels) * w_planes, 4);
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define DW(types, x_planes, w_planes)                                                                        \
    static bd_status dw_##types(const bd_step *step, const uint8_t *constants, const bd_view in[],           \
                                const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {            \
        (void)scratch;                                                                                       \
        return dw(step, constants, in, out, y0, rows, x_planes, w_planes);                                   \
    }                                                                                                        \
    static bd_status check_##types(const bd_step *step, const uint8_t *constants, uint32_t constants_size,   \
                                   const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {       \
        (void)constants, (void)constants_size, (void)scratch_bytes;                                          \
        return check(step, in, out, x_planes, w_planes);                                                     \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_dw_##types##_i8, dw_##types, check_##types)

DW(bb, 1, 1)
DW(tb, 2, 1)
DW(bt, 1, 2)
DW(tt, 2, 2)
