/* Binary convolution by tables over 7 pixels (bd_lut7.h) on Cortex-M: what all of its cores share. A core's file
 * defines `fill_tables` before it includes this one.
 *
 * Two or three look-ups add up to 13 at most, so that their nibbles do not carry. The sum is collected as a whole, carries and
 * all, and for the even nibbles in bytes: the difference is the odd nibbles. That is why there are 7 pixels and not 8. */
#ifndef BD_THUMB_LUT7_H
#define BD_THUMB_LUT7_H

#include "bd_kernels.h"
#include "bd_lut7.h"

#define EVEN 0x0f0f0f0fu
#define TWOS 0x02222222u

/* What becomes of the counts of a slab. Counts of up to 255 are kept as bytes: those of two outputs lie in the places of four of
 * their seven words. */
enum { SET, ADD, FIRST, MIDDLE, LAST };

BD_INLINE void swap_bits(uint32_t *x, uint32_t *y, uint32_t shift, uint32_t mask) {
    const uint32_t t = ((*x >> shift) ^ *y) & mask;
    *y ^= t;
    *x ^= t << shift;
}

/* The tables' steps of `nibbles` times 4 channels: for each channel a word of +1 or -1 in 7 nibbles, 1 - 2 x, but as
 * 2 x here. x: a word of each of 7 pixels. */
static void planes_of(uint32_t *to, const uint32_t *x, uint32_t stride, uint32_t nibbles) {
    uint32_t a[8];
    for (uint32_t i = 0; i < BD_LUT7_PIXELS; i++) {
        a[i] = *x;
        x += stride;
    }
    a[7] = 0;
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
    for (uint32_t i = 0; i < 8 && i < nibbles; i++, to += 4) {
        to[0] = (a[i] << 1) & TWOS;
        to[1] = a[i] & TWOS;
        to[2] = (a[i] >> 1) & TWOS;
        to[3] = (a[i] >> 2) & TWOS;
    }
}

/* Tables of four channels each. */
static void fill_small(uint32_t *t, const uint32_t *planes, uint32_t groups) {
    for (; groups != 0; groups--, planes += 4, t += 16) {
        const uint32_t one = TWOS >> 1;
        const uint32_t d0 = one - planes[0], d1 = one - planes[1], d2 = one - planes[2], d3 = one - planes[3];
        uint32_t e = (planes[0] + planes[1] + planes[2] + planes[3]) >> 1;
        t[0] = e;
        t[1] = e += d0;
        t[3] = e += d1;
        t[2] = e -= d0;
        t[6] = e += d2;
        t[7] = e += d0;
        t[5] = e -= d1;
        t[4] = e -= d0;
        t[12] = e += d3;
        t[13] = e += d0;
        t[15] = e += d1;
        t[14] = e -= d0;
        t[10] = e -= d2;
        t[11] = e += d0;
        t[9] = e -= d1;
        t[8] = e - d0;
    }
}

static void build(uint32_t *t, const uint32_t *x, uint32_t stride, uint32_t slab) {
    uint32_t *const planes = t + bd_lut7_words(slab);
    if (slab < 32u) {
        planes_of(planes, x, stride, slab / 4u);
        fill_small(t, planes, slab / 4u);
        return;
    }
    planes_of(planes, x, stride, 8);
    if (slab == 64u) {
        planes_of(planes + 32, x + 1, stride, 8);
    }
    fill_tables(t, planes, bd_lut7_indices(slab));
}

typedef struct sums {
    uint32_t even; /* bytes: pixels 0 2 4 6 */
    uint32_t all;  /* even + 16 times the bytes of pixels 1 3 5 */
} sums;

BD_INLINE uint32_t odd(sums s) {
    return (s.all - s.even) >> 4;
}

/* The next block of the tables. Compilers must not turn the sum into an offset: there is none beside an index. */
BD_INLINE const uint32_t *next_block(const uint32_t *t) {
    t += 256;
    __asm__("" : "+r"(t));
    return t;
}

#define PAIR(u, v)                                                                                           \
    do {                                                                                                     \
        const uint32_t pair = (u) + (v);                                                                     \
        all += pair;                                                                                         \
        even += pair & EVEN;                                                                                 \
    } while (0)

BD_INLINE sums look_up(const uint32_t *t, const uint8_t *index, uint32_t slab) {
    uint32_t even = 0, all = 0;
    if (slab == 64u) {
        PAIR(t[index[0]], t[index[1]]);
        const uint32_t third = t[index[2]];
        t = next_block(t);
        PAIR(third, t[index[3]]);
        PAIR(t[index[4]], t[index[5]]);
        t = next_block(t);
        PAIR(t[index[6]], t[index[7]]);
        const uint32_t ninth = t[index[8]];
        t = next_block(t);
        PAIR(ninth, t[index[9]]);
    } else if (slab == 32u) {
        PAIR(t[index[0]], t[index[1]]);
        const uint32_t third = t[index[2]];
        t = next_block(t);
        PAIR(third, t[index[3]]);
        PAIR(t[index[4]], 0);
    } else if (slab == 16u) {
        PAIR(t[index[0]] + t[index[1]], t[index[2]]);
        PAIR(t[index[3]], 0);
    } else {
        PAIR(t[index[0]], t[index[1]]);
    }
    const sums result = {even, all};
    return result;
}

/* Two outputs of a pixel make a word of int16. */
BD_INLINE uint32_t low_halves(uint32_t x, uint32_t y) {
    return (x & 0x0000ffffu) | (y << 16);
}

BD_INLINE uint32_t high_halves(uint32_t x, uint32_t y) {
    return (x >> 16) | (y & 0xffff0000u);
}

BD_INLINE uint32_t bytes02(uint32_t x) {
    return x & 0x00ff00ffu;
}

BD_INLINE uint32_t bytes13(uint32_t x) {
    return (x >> 8) & 0x00ff00ffu;
}

/* All outputs of a slab: to[i * words] takes the word of pixel i. */
BD_INLINE void outputs_of(const uint32_t *t, const uint8_t *index, uint32_t *to, uint32_t words,
                          uint32_t slab, int mode) {
    const uint32_t *const end = to + words;
    const uint32_t indices = bd_lut7_indices(slab);
#if defined(__clang__) /* a second copy of the body would cost flash and gain next to nothing */
#    pragma clang loop unroll(disable)
#endif
    do {
        sums x = look_up(t, index, slab), y = look_up(t, index + indices, slab);
        index += 2u * indices;
        if (mode == MIDDLE) {
            x.even += to[0];
            x.all += to[words];
            y.even += to[2u * words];
            y.all += to[3u * words];
        }
        if (mode == FIRST || mode == MIDDLE) {
            to[0] = x.even;
            to[words] = x.all;
            to[2u * words] = y.even;
            to[3u * words] = y.all;
            to++;
            continue;
        }
        uint32_t x04 = bytes02(x.even), y04 = bytes02(y.even), x26 = bytes13(x.even), y26 = bytes13(y.even);
        uint32_t x15 = bytes02(odd(x)), y15 = bytes02(odd(y)), x3 = bytes13(odd(x)), y3 = bytes13(odd(y));
        if (mode == LAST) {
            x.even = to[0];
            x.all = to[words];
            y.even = to[2u * words];
            y.all = to[3u * words];
            x04 += bytes02(x.even), y04 += bytes02(y.even), x26 += bytes13(x.even), y26 += bytes13(y.even);
            x15 += bytes02(odd(x)), y15 += bytes02(odd(y)), x3 += bytes13(odd(x)), y3 += bytes13(odd(y));
        }
        const uint32_t counts[BD_LUT7_PIXELS] = {
            low_halves(x04, y04),  low_halves(x15, y15),  low_halves(x26, y26), low_halves(x3, y3),
            high_halves(x04, y04), high_halves(x15, y15), high_halves(x26, y26)};
        uint32_t *at = to++;
        for (uint32_t i = 0; i < BD_LUT7_PIXELS; i++) {
            *at = mode == ADD ? *at + counts[i] : counts[i];
            at += words;
        }
    } while (to != end);
}

#define OUTPUTS(name, slab, mode)                                                                            \
    static BD_APART void name(const uint32_t *t, const uint8_t *index, uint32_t *to, uint32_t words) {       \
        outputs_of(t, index, to, words, slab, mode);                                                         \
    }

OUTPUTS(set_64, 64, SET)
OUTPUTS(add_64, 64, ADD)
OUTPUTS(first_64, 64, FIRST)
OUTPUTS(middle_64, 64, MIDDLE)
OUTPUTS(last_64, 64, LAST)
OUTPUTS(set_32, 32, SET)
OUTPUTS(add_32, 32, ADD)
OUTPUTS(set_16, 16, SET)
OUTPUTS(add_16, 16, ADD)
OUTPUTS(set_8, 8, SET)
OUTPUTS(add_8, 8, ADD)

/* Slab number `number` of the `count` with 64 channels. The first four of them stay below 256 before the last is added. */
static void slab_of_64(const uint32_t *t, const uint8_t *index, uint32_t *to, uint32_t words, uint32_t number,
                       uint32_t count) {
    if (count == 1u) {
        set_64(t, index, to, words);
    } else if (number == 0) {
        first_64(t, index, to, words);
    } else if (number > 3u) {
        add_64(t, index, to, words);
    } else if (number == 3u || number == count - 1u) {
        last_64(t, index, to, words);
    } else {
        middle_64(t, index, to, words);
    }
}

/* Seven pixels; x and to are the first one's, x_step words between two pixels. */
static void seven_pixels(uint32_t *t, const uint8_t *index, const uint32_t *x, uint32_t x_step, uint32_t *to,
                         uint32_t outputs, uint32_t channels) {
    const uint32_t words = outputs / 2u, many = (channels + 15u) / 64u;
    for (uint32_t at = 0; at < channels;) {
        const uint32_t slab = bd_lut7_slab(channels - at);
        build(t, x + at / 32u, x_step, slab);
        if (slab == 64u) {
            slab_of_64(t, index, to, words, at / 64u, many);
        } else if (slab == 32u) {
            if (at == 0) { /* direct calls: the depth of the stack is known */
                set_32(t, index, to, words);
            } else {
                add_32(t, index, to, words);
            }
        } else if (slab == 16u) {
            if (at == 0) {
                set_16(t, index, to, words);
            } else {
                add_16(t, index, to, words);
            }
        } else if (at == 0) {
            set_8(t, index, to, words);
        } else {
            add_8(t, index, to, words);
        }
        index += outputs * bd_lut7_indices(slab);
        at += slab;
    }
}

/* Fewer pixels than seven: of words that are not there, the last pixel's are read, and nothing is written for them. */
static void few_pixels(uint32_t *t, const uint8_t *index, const uint32_t *x, uint32_t x_step, uint32_t *to,
                       uint32_t outputs, uint32_t channels, uint32_t pixels) {
    const uint32_t words = outputs / 2u;
    uint32_t here[2u * BD_LUT7_PIXELS];
    for (uint32_t at = 0; at < channels;) {
        const uint32_t slab = bd_lut7_slab(channels - at), indices = bd_lut7_indices(slab);
        for (uint32_t i = 0; i < BD_LUT7_PIXELS; i++) {
            const uint32_t *from = x + (i < pixels ? i : pixels - 1u) * x_step + at / 32u;
            here[2u * i] = from[0];
            here[2u * i + 1u] = slab == 64u ? from[1] : 0;
        }
        build(t, here, 2, slab);
        for (uint32_t o = 0; o < words; o++, index += 2u * indices) {
            uint32_t counts[8];
            if (slab == 64u) {
                set_64(t, index, counts, 1);
            } else if (slab == 32u) {
                set_32(t, index, counts, 1);
            } else if (slab == 16u) {
                set_16(t, index, counts, 1);
            } else {
                set_8(t, index, counts, 1);
            }
            for (uint32_t i = 0; i < pixels; i++) {
                to[i * words + o] = at == 0 ? counts[i] : to[i * words + o] + counts[i];
            }
        }
        at += slab;
    }
}

/* Bits of even channels in the low half, of odd ones in the high half, to their places (Hacker's Delight, 2nd edition, section 7-2). */
BD_INLINE uint32_t interleaved(uint32_t v) {
    v = (v & 0xff0000ffu) | (v << 8 & 0x00ff0000u) | (v >> 8 & 0x0000ff00u);
    v = (v & 0xf00ff00fu) | (v << 4 & 0x0f000f00u) | (v >> 4 & 0x00f000f0u);
    v = (v & 0xc3c3c3c3u) | (v << 2 & 0x30303030u) | (v >> 2 & 0x0c0c0c0cu);
    return (v & 0x99999999u) | (v << 1 & 0x44444444u) | (v >> 1 & 0x22222222u);
}

/* Bits of the outputs of some pixels. */
static void pack_counts(uint32_t *to, const uint32_t *counts, const uint32_t *biases, uint32_t outputs,
                        uint32_t pixels) {
    for (uint32_t i = 0; i < pixels; i++) {
        const uint32_t *bias = biases, *const end = biases + outputs / 2u;
        while (bias != end) {
            uint32_t word = 0;
            for (uint32_t k = 0; k < 16; k++) {
                word = word >> 1 | ((*counts++ + *bias++) & 0x80008000u);
            }
            *to++ = interleaved(word);
        }
    }
}

/* The windows of `pixels` pixels from number `first` on of the rows from y0 on. */
static BD_APART void gather(uint32_t *to, const bd_step *step, const bd_view *in, uint32_t y0, uint32_t first,
                            uint32_t pixels, uint32_t words) {
    uint32_t y = y0 + first / step->out_width, x = first % step->out_width;
    for (; pixels != 0; pixels--, to += words) {
        bd_lut7_gather(to, step, in, y, x);
        x++;
        y += x == step->out_width;
        x = x == step->out_width ? 0 : x;
    }
}

static BD_APART void add_borders(uint32_t *counts, const uint32_t *borders, const bd_step *step,
                                 const bd_view *in, uint32_t y0, uint32_t first, uint32_t pixels) {
    uint32_t y = y0 + first / step->out_width, x = first % step->out_width;
    for (; pixels != 0; pixels--, counts += step->out_channels / 2u) {
        bd_lut7_add_borders(counts, borders, step, in, y, x);
        x++;
        y += x == step->out_width;
        x = x == step->out_width ? 0 : x;
    }
}

/* Both kinds of outputs; of bits the counts of 7 pixels wait behind the tables. */
BD_INLINE bd_status conv_lut7(const bd_step *step, const uint8_t *constants, const bd_view in[],
                              const bd_view out[], uint32_t y0, uint32_t rows, void *scratch, int packed) {
    const uint8_t *const index = constants + step->weights;
    const uint32_t taps = bd_lut7_taps(step), channels = bd_lut7_channels(step, in->channels);
    const uint32_t outputs = step->out_channels;
    const uint32_t *const borders = (const void *)(index + outputs * bd_lut7_bytes(channels));
    const uint32_t *const biases = borders + (taps == 1u ? 0 : taps * outputs / 2u);
    uint32_t *const counts = (void *)((uint8_t *)scratch + bd_lut7_tables(channels));
    uint32_t *const windows = counts + (packed ? BD_LUT7_PIXELS * outputs / 2u : 0);
    const uint32_t words = bd_words(channels), x_step = taps == 1u ? words * step->stride_w : words;
    const uint32_t to_step = packed ? outputs / 32u : outputs / 2u;
    uint32_t pixels = step->out_width;
    /* Rows that lie one behind the other are one: in the output, and where no windows are gathered in the input. */
    if ((taps != 1u ||
         (step->stride_h == 1 && step->stride_w == 1 && pixels == in->width &&
          in->row_stride == pixels * words * 4u && bd_row(in, y0) <= bd_row(in, y0 + rows - 1u))) &&
        out->row_stride == pixels * to_step * 4u && bd_row(out, y0) <= bd_row(out, y0 + rows - 1u)) {
        pixels *= rows;
        rows = 1;
    }
    const uint32_t each = pixels < BD_LUT7_PIXELS ? pixels : BD_LUT7_PIXELS;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const uint32_t *const x = taps == 1u ? (const void *)bd_row(in, y * step->stride_h) : windows;
        uint32_t *const to = (void *)bd_row(out, y);
        for (uint32_t at = 0; at < pixels; at += each) { /* the last may overlap those before it */
            const uint32_t first = at < pixels - each ? at : pixels - each;
            const uint32_t *const from = taps == 1u ? x + first * x_step : windows;
            uint32_t *const here = packed ? counts : to + first * to_step;
            if (taps != 1u) {
                gather(windows, step, in, y, first, each, words);
            }
            if (each < BD_LUT7_PIXELS) {
                few_pixels(scratch, index, from, x_step, here, outputs, channels, each);
            } else {
                seven_pixels(scratch, index, from, x_step, here, outputs, channels);
            }
            if (taps != 1u) {
                add_borders(here, borders, step, in, y, first, each);
            }
            if (packed) {
                pack_counts(to + first * to_step, counts, biases, outputs, each);
            }
        }
    }
    return BD_OK;
}

static bd_status conv_counts(const bd_step *step, const uint8_t *constants, const bd_view in[],
                             const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    return conv_lut7(step, constants, in, out, y0, rows, scratch, 0);
}

static bd_status conv_bits(const bd_step *step, const uint8_t *constants, const bd_view in[],
                           const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    return conv_lut7(step, constants, in, out, y0, rows, scratch, 1);
}

#endif
