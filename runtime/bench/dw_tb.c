/* Ternary depth-wise 3x3 convolution with binary weights, bit-sliced: 32 channels a word, 9 taps through a
 * tree of full adders.
 *
 * A ternary input is two planes of bits a <= b with the value 1 - a - b, so a product is 1 minus the two bits
 * a ^ w and b ^ w, and the sum of 9 is 9 - n with n the number of ones among 18. Padding with zeros is (a, b)
 * = (0, 1).
 *
 * Linear forms: with u = y0 ^ y1, v = y0 ^ y2, s = y0 ^ y1 ^ y2 of three vertical neighbours, carry = (u | v)
 * ^ s: and as y = x ^ w, each form is a form of the inputs xor one of the weights. Those of the inputs serve
 * three outputs.
 *
 * Weights: [words][column][3] words, the forms of the three weights of a column. Channels of an output pixel:
 * byte 4q + j of every 32 is bit 8j + q of the word (the view's order holds for both). */
#include "bd_kernel.h"

#if defined(__ARM_FEATURE_SIMD32)
#    include <arm_acle.h>
#endif

typedef struct column {
    uint32_t au, av, as, bu, bv, bs; /* forms of the planes */
} column;

typedef struct pair {
    uint32_t sum, carry;
} pair;

static inline pair full_add(uint32_t x, uint32_t y, uint32_t z) {
    const uint32_t u = x ^ y;
    const pair result = {u ^ z, (x & y) | (u & z)};
    return result;
}

static inline pair half_add(uint32_t x, uint32_t y) {
    const pair result = {x ^ y, x & y};
    return result;
}

/* Sum of three vertical neighbours times their weights. */
static inline pair add_forms(uint32_t u, uint32_t v, uint32_t s, const uint32_t w[3]) {
    const uint32_t sum = s ^ w[2];
    const pair result = {sum, ((u ^ w[0]) | (v ^ w[1])) ^ sum};
    return result;
}

static inline void swap_bits(uint32_t *x, uint32_t *y, uint32_t shift, uint32_t mask) {
    const uint32_t t = ((*x >> shift) ^ *y) & mask;
    *y ^= t;
    *x ^= t << shift;
}

/* Byte 4q + j: 9 - n, or n itself. */
static inline uint32_t finish(uint32_t n, int raw) {
    if (raw) {
        return n;
    }
#if defined(__ARM_FEATURE_SIMD32)
    return (uint32_t)__ssub8(0x09090909, (int8x4_t)n);
#else
    return (0x89898989u - n) ^ 0x80808080u; /* no borrow leaves a byte */
#endif
}

/* From five planes of bits to 32 bytes: a transposition of 8x8 bits in every byte lane, of which three planes
 * are 0. */
static inline void store_bytes(uint32_t *out, uint32_t n0, uint32_t n1, uint32_t n2, uint32_t n3, uint32_t n4,
                               int raw) {
    uint32_t n[4] = {n0, n1, n2, n3};
    swap_bits(&n[0], &n[1], 1, 0x55555555u);
    swap_bits(&n[2], &n[3], 1, 0x55555555u);
    swap_bits(&n[0], &n[2], 2, 0x33333333u);
    swap_bits(&n[1], &n[3], 2, 0x33333333u);
    for (uint32_t q = 0; q < 4; q++) {
        uint32_t top = (n4 >> q) & 0x11111111u;
        swap_bits(&n[q], &top, 4, 0x0f0f0f0fu);
        out[q] = finish(n[q], raw);
        out[q + 4] = finish(top, raw);
    }
}

/* Forms of one row of outputs for one word of channels, with a column of padding at each side. */
static inline void make_forms(column *to, const uint32_t *top, const uint32_t *middle, const uint32_t *bottom,
                              uint32_t width, uint32_t words) {
    const column padding = {0, 0, 0, 0, 0, ~0u};
    const uint32_t plane = width * words;
    const uint32_t *const end = middle + plane;
    *to++ = padding;
    do {
        column made;
        uint32_t x0 = top[0], x2 = bottom[0];
        made.au = x0 ^ middle[0];
        made.av = x0 ^ x2;
        made.as = made.au ^ x2;
        x0 = top[plane];
        x2 = bottom[plane];
        made.bu = x0 ^ middle[plane];
        made.bv = x0 ^ x2;
        made.bs = made.bu ^ x2;
        *to++ = made;
        top += words;
        middle += words;
        bottom += words;
    } while (middle != end);
    *to = padding;
}

static inline __attribute__((always_inline)) void
count_row(uint32_t *out, const column *x, const uint32_t *forms, uint32_t width, uint32_t stride, int raw) {
    const column *const end = x + width;
    do {
        const pair a0 = add_forms(x[0].au, x[0].av, x[0].as, forms);
        const pair a1 = add_forms(x[1].au, x[1].av, x[1].as, forms + 3);
        const pair a2 = add_forms(x[2].au, x[2].av, x[2].as, forms + 6);
        const pair as = full_add(a0.sum, a1.sum, a2.sum);
        const pair ac = full_add(a0.carry, a1.carry, a2.carry);
        const pair b0 = add_forms(x[0].bu, x[0].bv, x[0].bs, forms);
        const pair b1 = add_forms(x[1].bu, x[1].bv, x[1].bs, forms + 3);
        const pair b2 = add_forms(x[2].bu, x[2].bv, x[2].bs, forms + 6);
        const pair bs = full_add(b0.sum, b1.sum, b2.sum);
        const pair bc = full_add(b0.carry, b1.carry, b2.carry);
        const pair ones = half_add(as.sum, bs.sum);
        const pair twos = full_add(as.carry, bs.carry, ones.carry);
        const pair twos2 = full_add(twos.sum, ac.sum, bc.sum);
        const pair fours = full_add(ac.carry, bc.carry, twos.carry);
        const pair fours2 = half_add(fours.sum, twos2.carry);
        const pair eights = half_add(fours.carry, fours2.carry);
        store_bytes(out, ones.sum, twos2.sum, fours2.sum, eights.sum, eights.carry, raw);
        out += stride;
        x++;
    } while (x != end);
}

static inline __attribute__((always_inline)) void run_rows(const bd_step *step, const uint8_t *constants,
                                                           const bd_view in[], const bd_view out[],
                                                           uint32_t y0, uint32_t rows, void *scratch,
                                                           int raw) {
    const uint32_t width = in[0].width, height = in[0].height, channels = in[0].channels,
                   words = bd_words(channels);
    column *const columns = scratch;
    uint32_t *const padding = (uint32_t *)scratch + (width + 2u) * (sizeof(column) / 4u);
    if (y0 == 0 || y0 + rows == height) {
        for (uint32_t i = 0; i < width * words; i++) {
            padding[i] = 0;
            padding[width * words + i] = ~0u;
        }
    }
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const uint32_t *forms = (const uint32_t *)(const void *)(constants + step->weights);
        const uint32_t *middle = (const uint32_t *)(const void *)bd_row(&in[0], y);
        const uint32_t *top = y > 0 ? (const uint32_t *)(const void *)bd_row(&in[0], y - 1) : padding;
        const uint32_t *bottom =
            y + 1 < height ? (const uint32_t *)(const void *)bd_row(&in[0], y + 1) : padding;
        uint32_t *to = (uint32_t *)(void *)bd_row(&out[0], y);
        for (uint32_t k = 0; k < words; k++) {
            make_forms(columns, top + k, middle + k, bottom + k, width, words);
            count_row(to, columns, forms, width, channels / 4u, raw);
            forms += 9;
            to += 8;
        }
    }
}

static bd_status run_i8(const bd_step *step, const uint8_t *constants, const bd_view in[],
                        const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    run_rows(step, constants, in, out, y0, rows, scratch, 0);
    return BD_OK;
}

static bd_status run_u8(const bd_step *step, const uint8_t *constants, const bd_view in[],
                        const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    run_rows(step, constants, in, out, y0, rows, scratch, 1);
    return BD_OK;
}

static bd_status check(const bd_step *step, uint32_t constants_size, const bd_view in[], const bd_view out[],
                       uint32_t *scratch_bytes) {
    const uint32_t words = bd_words(in[0].channels), size = words * 36u;
    *scratch_bytes = (in[0].width + 2u) * (uint32_t)sizeof(column) + in[0].width * words * 8u;
    if (in[0].dtype != BD_TRIT || in[0].channels == 0 || in[0].channels % 32u != 0 || in[0].width == 0 ||
        in[0].width != out[0].width || in[0].height != out[0].height || in[0].channels != out[0].channels ||
        in[0].order != out[0].order) {
        return BD_ERROR_STEP;
    }
    if (step->kernel_h != 3 || step->kernel_w != 3 || step->stride_h != 1 || step->stride_w != 1 ||
        step->dilation_h != 1 || step->dilation_w != 1 || step->pad_top != 1 || step->pad_left != 1 ||
        step->pad_value != 0 || step->groups != in[0].channels || step->weights % 4u != 0 ||
        step->weights > constants_size || size > constants_size - step->weights ||
        size > step->weights_size) {
        return BD_ERROR_STEP;
    }
    return in[0].rows_held >= 3 || in[0].rows_held == in[0].height ? BD_OK : BD_ERROR_STEP;
}

static bd_status check_i8(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                          const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {
    (void)constants;
    return out[0].dtype == BD_I8 ? check(step, constants_size, in, out, scratch_bytes) : BD_ERROR_STEP;
}

static bd_status check_u8(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                          const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {
    (void)constants;
    return out[0].dtype == BD_U8 ? check(step, constants_size, in, out, scratch_bytes) : BD_ERROR_STEP;
}

const bd_kernel bd_dw_tb_i8__forms3 = {"bd_dw_tb_i8__forms3", run_i8, check_i8};
const bd_kernel bd_dw_tb_u8__forms3 = {"bd_dw_tb_u8__forms3", run_u8, check_u8};
