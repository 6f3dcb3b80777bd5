/* Binary point-wise convolution by lookup tables over pixels: mismatch counts n (value = channels - 2n),
 * int16 NHWC.
 *
 * A table word has one nibble for each of 7 pixels. The table of g input channels has 2^g words, entry e the
 * number of these channels in which the pixel differs from pattern e, and so a weight is an index byte for
 * every 6 or 7 channels: the "method of four Russians", with pixels in parallel. Two entries add up to 13 at
 * most; their sum is collected as a whole (all nibbles, carries and all) and for the even nibbles in bytes:
 * the difference is the odd nibbles.
 *
 * Weights: [channels / 64][outputs][10] index bytes; an index counts from the start of its table block. */
#include "bd_kernel.h"

#if defined(__ARM_FEATURE_SIMD32)
#    include <arm_acle.h>
#endif

#define PIXELS  7u
#define SLAB    64u /* channels of one set of tables */
#define INDICES 10u /* index bytes for them */
#define TABLE_WORDS                                                                                          \
    896u /* blocks of 256, 256, 256 and 128 words: groups of 7 6 6, 7 6 6, 7 6 6 and 7 channels */
#define SEVENS 0x249u /* bit i: group i has 7 channels, not 6 */
#define ONES   0x01111111u
#define EVEN   0x0f0f0f0fu

static inline void swap_bits(uint32_t *x, uint32_t *y, uint32_t shift, uint32_t mask) {
    const uint32_t t = ((*x >> shift) ^ *y) & mask;
    *y ^= t;
    *x ^= t << shift;
}

/* Rows are pixels and nibbles are channels; afterwards the other way round. */
static inline void transpose_nibbles(uint32_t a[8]) {
    for (uint32_t i = 0; i < 8; i += 2) {
        swap_bits(&a[i], &a[i + 1], 4, 0x0f0f0f0fu);
    }
    for (uint32_t i = 0; i < 8; i += 4) {
        swap_bits(&a[i], &a[i + 2], 8, 0x00ff00ffu);
        swap_bits(&a[i + 1], &a[i + 3], 8, 0x00ff00ffu);
    }
    for (uint32_t i = 0; i < 4; i++) {
        swap_bits(&a[i], &a[i + 4], 16, 0x0000ffffu);
    }
}

static inline __attribute__((always_inline)) void next8(uint32_t *restrict t, uint32_t *restrict e,
                                                        uint32_t step) {
    for (uint32_t i = 0; i < 8; i++) {
        e[i] += step;
        t[i] = e[i];
    }
}

/* 64 entries; e holds the eight before them, to which `first` leads; step[i] leads on where bit i of the
 * block is set. */
static inline __attribute__((always_inline)) void next64(uint32_t *restrict t, uint32_t *restrict e,
                                                         uint32_t first, const uint32_t *restrict step) {
    next8(t, e, first);
    next8(t + 8, e, step[0]);
    next8(t + 16, e, step[1]);
    next8(t + 24, e, step[0]);
    next8(t + 32, e, step[2]);
    next8(t + 40, e, step[0]);
    next8(t + 48, e, step[1]);
    next8(t + 56, e, step[0]);
}

/* x: 7 pixels of 64 channels, `stride` words apart; planes: room for 64 words. */
static void build(uint32_t *t, uint32_t *planes, const uint32_t *x, uint32_t stride) {
    for (uint32_t half = 0; half < 2; half++) {
        uint32_t a[8];
        for (uint32_t i = 0; i < PIXELS; i++) {
            a[i] = x[i * stride + half];
        }
        a[7] = 0;
        transpose_nibbles(a);
        uint32_t *to = planes + 32 * half;
        for (uint32_t i = 0; i < 8; i++) {
            to[4 * i] = a[i] & ONES;
            to[4 * i + 1] = (a[i] >> 1) & ONES;
            to[4 * i + 2] = (a[i] >> 2) & ONES;
            to[4 * i + 3] = (a[i] >> 3) & ONES;
        }
    }
    for (uint32_t group = 0; group < INDICES; group++) {
        /* delta of a bit of e: + 1 - 2x in every pixel */
        const uint32_t seven = (SEVENS >> group) & 1u;
        const uint32_t d0 = ONES - 2 * planes[0], d1 = ONES - 2 * planes[1], d2 = ONES - 2 * planes[2];
        const uint32_t d3 = ONES - 2 * planes[3], d4 = ONES - 2 * planes[4], d5 = ONES - 2 * planes[5];
        uint32_t base = planes[0] + planes[1] + planes[2] + planes[3] + planes[4] + planes[5];
        uint32_t step[3], e[8];
        step[0] = d3;
        step[1] = d4 - d3;
        step[2] = d5 - d4 - d3;
        if (seven) {
            base += planes[6];
        }
        e[0] = base;
        e[1] = base + d0;
        e[2] = base + d1;
        e[3] = e[1] + d1;
        for (uint32_t i = 0; i < 4; i++) {
            e[4 + i] = e[i] + d2;
        }
        next64(t, e, 0, step);
        t += 64;
        if (seven) {
            next64(t, e, ONES - 2 * planes[6] - d5 - d4 - d3, step);
            t += 64;
        }
        planes += seven ? 7 : 6;
    }
}

typedef struct sums {
    uint32_t even, odd; /* bytes: pixels 0 2 4 6, and 1 3 5 */
} sums;

/* The next block of the table. Compilers must not turn the sum into an offset: there is none beside an index.
 */
static inline const uint32_t *next_block(const uint32_t *t) {
    t += 256;
    __asm__("" : "+r"(t));
    return t;
}

static inline __attribute__((always_inline)) sums look_up(const uint32_t *t, const uint8_t *index) {
    uint32_t pair = t[index[0]] + t[index[1]];
    uint32_t all = pair, even = pair & EVEN;
    pair = t[index[2]];
    t = next_block(t);
    pair += t[index[3]];
    all += pair;
    even += pair & EVEN;
    pair = t[index[4]] + t[index[5]];
    all += pair;
    even += pair & EVEN;
    t = next_block(t);
    pair = t[index[6]] + t[index[7]];
    all += pair;
    even += pair & EVEN;
    pair = t[index[8]];
    t = next_block(t);
    pair += t[index[9]];
    all += pair;
    even += pair & EVEN;
    const sums result = {even, (all - even) >> 4};
    return result;
}

/* Two outputs of a pixel make a word of int16. */
static inline uint32_t low_halves(uint32_t x, uint32_t y) {
    return (x & 0x0000ffffu) | (y << 16);
}

static inline uint32_t high_halves(uint32_t x, uint32_t y) {
    return (x >> 16) | (y & 0xffff0000u);
}

static inline uint32_t bytes02(uint32_t x) {
#if defined(__ARM_FEATURE_SIMD32)
    return (uint32_t)__uxtb16((int8x4_t)x);
#else
    return x & 0x00ff00ffu;
#endif
}

static inline uint32_t bytes13(uint32_t x) {
#if defined(__ARM_FEATURE_SIMD32)
    return (uint32_t)__uxtb16((int8x4_t)__ror(x, 8));
#else
    return (x >> 8) & 0x00ff00ffu;
#endif
}

static inline __attribute__((always_inline)) void look_up_all(const uint32_t *t, const uint8_t *index,
                                                              uint32_t *out, uint32_t words, int more) {
    const uint32_t *const end = out + words;
    do {
        const sums x = look_up(t, index), y = look_up(t, index + INDICES);
        index += 2 * INDICES;
        const uint32_t x04 = bytes02(x.even), y04 = bytes02(y.even), x26 = bytes13(x.even),
                       y26 = bytes13(y.even);
        const uint32_t x15 = bytes02(x.odd), y15 = bytes02(y.odd), x3 = bytes13(x.odd), y3 = bytes13(y.odd);
        const uint32_t counts[PIXELS] = {low_halves(x04, y04), low_halves(x15, y15),  low_halves(x26, y26),
                                         low_halves(x3, y3),   high_halves(x04, y04), high_halves(x15, y15),
                                         high_halves(x26, y26)};
        uint32_t *to = out++;
        for (uint32_t i = 0; i < PIXELS; i++) {
            *to = more ? *to + counts[i] : counts[i];
            to += words;
        }
    } while (out != end);
}

static __attribute__((noinline)) void set_counts(const uint32_t *t, const uint8_t *index, uint32_t *out,
                                                 uint32_t words) {
    look_up_all(t, index, out, words, 0);
}

static __attribute__((noinline)) void add_counts(const uint32_t *t, const uint8_t *index, uint32_t *out,
                                                 uint32_t words) {
    look_up_all(t, index, out, words, 1);
}

static bd_status run(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                     uint32_t y0, uint32_t rows, void *scratch) {
    uint32_t *const table = scratch;
    const uint8_t *const weights = constants + step->weights;
    const uint32_t width = in[0].width, channels = in[0].channels, outputs = out[0].channels;
    const uint32_t words = channels / 32u, out_words = outputs / 2u;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const uint32_t *x = (const uint32_t *)(const void *)bd_row(&in[0], y);
        uint32_t *to = (uint32_t *)(void *)bd_row(&out[0], y);
        for (uint32_t left = 0; left < width; left += PIXELS) {
            const uint8_t *index = weights;
            for (uint32_t slab = 0; slab < channels; slab += SLAB) {
                build(table, table + TABLE_WORDS, x + slab / 32u, words);
                if (slab == 0) {
                    set_counts(table, index, to, out_words);
                } else {
                    add_counts(table, index, to, out_words);
                }
                index += outputs * INDICES;
            }
            x += PIXELS * words;
            to += PIXELS * out_words;
        }
    }
    return BD_OK;
}

static bd_status check(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                       const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {
    const uint32_t size = in[0].channels / SLAB * INDICES * out[0].channels;
    (void)constants;
    *scratch_bytes = (TABLE_WORDS + SLAB) * 4u;
    if (in[0].dtype != BD_BIT || out[0].dtype != BD_I16 || in[0].width != out[0].width ||
        in[0].height != out[0].height || in[0].width == 0 || in[0].width % PIXELS != 0 ||
        in[0].channels == 0 || in[0].channels % SLAB != 0 || out[0].channels == 0 ||
        out[0].channels % 2u != 0) {
        return BD_ERROR_STEP;
    }
    if (step->groups != 1 || step->kernel_h != 1 || step->kernel_w != 1 || step->stride_h != 1 ||
        step->stride_w != 1 || step->weights > constants_size || size > constants_size - step->weights ||
        size > step->weights_size) {
        return BD_ERROR_STEP;
    }
    return BD_OK;
}

const bd_kernel bd_conv_bb_i16__lut7 = {"bd_conv_bb_i16__lut7", run, check};
