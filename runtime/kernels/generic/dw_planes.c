/* Depth-wise 3x3 convolution of bits and trits to packed bits, in the packing of bd_dw_planes.h: the plain version, 32 channels a
 * word, and the check of all versions. */
#include "bd_check.h"
#include "bd_dw_planes.h"
#include "bd_kernels.h"
#include "bd_window.h"

#define MAX_PLANES 5u

/* counter += ones, and 1 more where carry has a 1; what does not fit. */
static uint32_t add(uint32_t counter[MAX_PLANES], uint32_t planes, uint32_t carry) {
    for (uint32_t p = 0; p < planes; p++) {
        const uint32_t both = counter[p] & carry;
        counter[p] ^= carry;
        carry = both;
    }
    return carry;
}

/* Carries of counter + limit + 1. */
static uint32_t exceeds(const uint32_t counter[MAX_PLANES], const uint32_t *limit, uint32_t words,
                        uint32_t planes) {
    uint32_t carry = 0xffffffffu;
    for (uint32_t p = 0; p < planes; p++) {
        const uint32_t a = counter[p], b = limit[(size_t)p * words];
        carry = (a & b) | ((a ^ b) & carry);
    }
    return carry;
}

/* The outputs' bits of 32 channels of one pixel. */
static uint32_t bits_of(const bd_step *step, const uint32_t *weights, const bd_view *in,
                        const bd_window *window, uint32_t k, uint32_t x_planes) {
    const uint32_t words = bd_words(in->channels), planes = x_planes + 3u;
    const uint32_t rows = window->rows.end - window->rows.first;
    const uint32_t taps = rows * (window->columns.end - window->columns.first);
    uint32_t counter[MAX_PLANES] = {0, 0, 0, 0, 0};
    for (uint32_t ky = window->rows.first; ky < window->rows.end; ky++) {
        const uint32_t *row = (const void *)bd_row(in, (uint32_t)(window->y + (int32_t)ky));
        for (uint32_t kx = window->columns.first; kx < window->columns.end; kx++) {
            const uint32_t *x = row + (size_t)(uint32_t)(window->x + (int32_t)kx) * words + k;
            const uint32_t w = weights[(ky * step->kernel_w + kx) * words + k];
            (void)add(counter, planes, x[0] ^ w);
            if (x_planes == 2u) {
                (void)add(counter, planes, x[(size_t)in->width * words] ^ w);
            }
        }
    }
    return exceeds(counter, weights + bd_dw_planes_at(taps, planes) * (size_t)words + k, words, planes);
}

static bd_status dw(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                    uint32_t y0, uint32_t rows, uint32_t x_planes) {
    const uint32_t *weights = (const void *)(constants + step->weights);
    const uint32_t words = bd_words(in->channels), tail = in->channels % 32u;
    const uint32_t last = tail != 0 ? (1u << tail) - 1u : 0xffffffffu;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        uint32_t *to = (void *)bd_row(out, y);
        for (uint32_t x = 0; x < out->width; x++) {
            const bd_window window = bd_window_at(step, in, y, x);
            for (uint32_t k = 0; k < words; k++) {
                *to++ = bits_of(step, weights, in, &window, k, x_planes) & (k + 1u == words ? last : ~0u);
            }
        }
    }
    return BD_OK;
}

/* A window of two or three taps inside of the map, wherever it lies. */
static int window_fits(uint32_t out, uint32_t in, uint32_t stride, uint32_t pad) {
    return in >= 2u && pad <= 1u && (uint64_t)(out - 1u) * stride + 2u <= (uint64_t)in + pad;
}

static bd_status check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t x_planes) {
    const uint64_t words = bd_words(in->channels);
    const int fits = bd_is(in, x_planes == 2 ? BD_TRIT : BD_BIT) && bd_is(out, BD_BIT) &&
                     bd_is_conv(step, in, out) && step->groups == in->channels &&
                     out->channels == in->channels && step->kernel_h == 3 && step->kernel_w == 3 &&
                     step->dilation_h == 1 && step->dilation_w == 1 && step->pad_value == 0 &&
                     step->weight_planes == 1 && step->weights != BD_ABSENT &&
                     step->weights_size == 4u * words * (9u + 3u * (x_planes + 3u)) &&
                     window_fits(out->height, in->height, step->stride_h, step->pad_top) &&
                     window_fits(out->width, in->width, step->stride_w, step->pad_left);
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define DW(types, x_planes)                                                                                  \
    static bd_status dw_##types(const bd_step *step, const uint8_t *constants, const bd_view in[],           \
                                const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {            \
        (void)scratch;                                                                                       \
        return dw(step, constants, in, out, y0, rows, x_planes);                                             \
    }                                                                                                        \
    static bd_status check_##types(const bd_step *step, const uint8_t *constants, uint32_t constants_size,   \
                                   const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {       \
        (void)constants, (void)constants_size, (void)scratch_bytes;                                          \
        return check(step, in, out, x_planes);                                                               \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_dw_##types##_bit__planes, dw_##types, check_##types)

DW(bb, 1)
DW(tb, 2)
