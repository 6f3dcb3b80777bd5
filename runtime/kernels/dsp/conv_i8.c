/* Convolution with 8-bit weights on Armv7E-M, four pixels at once: generic/conv_i8.c.
 *
 * Four adjacent taps of a pixel are two words of pairs, (0, 2) and (1, 3): SXTB16 makes the same of a word of weights, and
 * SMLAD multiplies two pairs. The windows of four pixels, up to TAPS taps of each, lie on the stack, four taps of four pixels
 * together; each word of weights is loaded and widened for all four.
 *
 * The last word of weights ends with the last tap; where the taps are no multiple of four, it begins with taps of the word
 * before, for which the pixels have zeros. Sums wrap, so any order gives the same.
 *
 * For one group, padding of 0 or the nearest pixel, at most ROWS rows of taps, at least four taps, and zero points with which
 * inputs fit 16 bits; anything else is the plain kernel's. */
#include <arm_acle.h>

#include "bd_bits.h"
#include "bd_border.h"
#include "bd_kernels.h"
#include "bd_window.h"

#define TAPS 40u
#define ROWS 16u

/* Pixel p's taps 4 i .. 4 i + 3 are quad[i][p]. */
typedef struct tile {
    uint32_t quad[TAPS / 4u][4][2];
} tile;

/* Where one output row's windows lie. */
typedef struct source {
    const uint8_t *rows[ROWS]; /* NULL: padding */
    uint32_t row_elements;     /* of one row of a window */
    uint32_t element_bytes;
    uint32_t minus_zero; /* the negative zero point in either half */
    uint8_t zero;        /* the byte that padding is */
} source;

/* Bytes of one pixel's taps from tap e of row ky on, `n` elements, which lie in one row of the window. */
static void copy_row(uint8_t *to, const bd_step *step, const bd_view *in, const source *s, uint32_t ky,
                     uint32_t x, uint32_t e, uint32_t n) {
    const uint32_t size = s->element_bytes, pixel = in->channels * size;
    const uint8_t *row = s->rows[ky];
    const int32_t left = (int32_t)(x * step->stride_w) - step->pad_left;
    uint32_t bytes = n * size, at = e * size;
    if (row != NULL && left >= 0 && left + step->kernel_w <= in->width && step->dilation_w == 1) {
        const uint8_t *from = row + (size_t)(uint32_t)left * pixel + at;
        for (; bytes >= 4u; bytes -= 4u, from += 4, to += 4) {
            __builtin_memcpy(to, from, 4);
        }
        for (; bytes != 0; bytes--) {
            *to++ = *from++;
        }
        return;
    }
    uint32_t kx = 0;
    while (at >= pixel) {
        at -= pixel, kx++;
    }
    while (bytes != 0) {
        const uint32_t run = bytes < pixel - at ? bytes : pixel - at;
        const int32_t column = bd_at(step, left + (int32_t)(kx * step->dilation_w), in->width);
        const int inside = row != NULL && column >= 0 && column < in->width;
        const uint8_t *from = inside ? row + (size_t)(uint32_t)column * pixel + at : NULL;
        for (uint32_t i = 0; i < run; i++) {
            *to++ = inside ? from[i] : s->zero;
        }
        bytes -= run, at = 0, kx++;
    }
}

BD_INLINE uint32_t load_word(const uint8_t *from) {
    uint32_t word;
    __builtin_memcpy(&word, from, 4);
    return word;
}

/* Four bytes as pairs (0, 2) and (1, 3), and the same added to either half. */
BD_INLINE void widen(uint32_t to[2], uint32_t word, uint32_t dtype, uint32_t add) {
    const int16x2_t pair = (int16x2_t)add;
    const int8x4_t turned = (int8x4_t)__ror(word, 8);
    if (dtype == BD_I8) {
        to[0] = (uint32_t)__sxtab16(pair, (int8x4_t)word);
        to[1] = (uint32_t)__sxtab16(pair, turned);
    } else {
        to[0] = (uint32_t)__uxtab16(pair, (int8x4_t)word);
        to[1] = (uint32_t)__uxtab16(pair, turned);
    }
}

/* Four elements, bytes or halves. */
BD_INLINE void widen_any(uint32_t to[2], const uint8_t *from, uint32_t dtype, uint32_t add) {
    const uint32_t a = load_word(from);
    if (dtype == BD_I16) {
        const uint32_t b = load_word(from + 4);
        to[0] = (a & 0xffffu) | (b << 16);
        to[1] = (a >> 16) | (b & 0xffff0000u);
    } else {
        widen(to, a, dtype, add);
    }
}

/* `taps` taps from tap t of the window of pixel x into the tile's pixel p; at least four. */
static void gather(uint32_t (*to)[4][2], uint32_t p, const bd_step *step, const bd_view *in, const source *s,
                   uint32_t x, uint32_t t, uint32_t taps) {
    uint8_t window[2u * TAPS];
    uint32_t ky = 0, e = t;
    while (e >= s->row_elements) {
        e -= s->row_elements, ky++;
    }
    for (uint32_t i = 0; i < taps;) {
        const uint32_t left = s->row_elements - e, n = left < taps - i ? left : taps - i;
        copy_row(window + i * s->element_bytes, step, in, s, ky, x, e, n);
        i += n, e = 0, ky++;
    }
    const uint32_t quads = taps / 4u, rest = taps % 4u, dtype = in->dtype;
    for (uint32_t i = 0; i < quads; i++) {
        widen_any(to[i][p], window + 4u * i * s->element_bytes, dtype, s->minus_zero);
    }
    if (rest != 0) {
        uint32_t *last = to[quads][p];
        widen_any(last, window + (taps - 4u) * s->element_bytes, dtype, s->minus_zero);
        last[0] &= rest == 1u ? 0u : 0xffff0000u;
        last[1] &= rest == 3u ? 0xffffffffu : 0xffff0000u;
    }
}

/* Four windows of 3x3x3 bytes inside of the map, `step` bytes apart: words are loaded where they lie. */
BD_INLINE void gather_27(uint32_t (*to)[4][2], const source *s, size_t at, uint32_t step, uint32_t dtype) {
    const uint8_t *r0 = s->rows[0] + at, *r1 = s->rows[1] + at, *r2 = s->rows[2] + at;
    const uint32_t add = s->minus_zero;
    for (uint32_t p = 0; p < 4u; p++, to = (void *)to[0][1], r0 += step, r1 += step, r2 += step) {
        uint16_t ends;
        __builtin_memcpy(&ends, r1 + 7, 2);
        widen(to[0][0], load_word(r0), dtype, add);
        widen(to[1][0], load_word(r0 + 4), dtype, add);
        widen(to[2][0], r0[8] | (load_word(r1) << 8), dtype, add);
        widen(to[3][0], load_word(r1 + 3), dtype, add);
        widen(to[4][0], ends | (load_word(r2) << 16), dtype, add);
        widen(to[5][0], load_word(r2 + 2), dtype, add);
        widen(to[6][0], load_word(r2 + 5), dtype, add);
        to[6][0][0] &= 0xffff0000u;
    }
}

static BD_APART void gather_27_i8(uint32_t (*to)[4][2], const source *s, size_t at, uint32_t step) {
    gather_27(to, s, at, step, BD_I8);
}

static BD_APART void gather_27_u8(uint32_t (*to)[4][2], const source *s, size_t at, uint32_t step) {
    gather_27(to, s, at, step, BD_U8);
}

/* One word of weights at w and four taps of four pixels at x; both go on. */
#define QUAD                                                                                                 \
    "ldr.w %[b], [%[w]], #4\n"                                                                               \
    "ldmia.w %[x]!, {r0, r1, r2, r3}\n"                                                                      \
    "sxtb16 %[a], %[b]\n"                                                                                    \
    "sxtb16 %[b], %[b], ror #8\n"                                                                            \
    "smlad %[s0], r0, %[a], %[s0]\n"                                                                         \
    "smlad %[s1], r2, %[a], %[s1]\n"                                                                         \
    "smlad %[s0], r1, %[b], %[s0]\n"                                                                         \
    "smlad %[s1], r3, %[b], %[s1]\n"                                                                         \
    "ldmia.w %[x]!, {r0, r1, r2, r3}\n"                                                                      \
    "smlad %[s2], r0, %[a], %[s2]\n"                                                                         \
    "smlad %[s3], r2, %[a], %[s3]\n"                                                                         \
    "smlad %[s2], r1, %[b], %[s2]\n"                                                                         \
    "smlad %[s3], r3, %[b], %[s3]\n"

/* Sums of four pixels, for all outputs; `add`: to those that are there. `next` from the end of an output's weights to the
 * next one's. */
static BD_APART void multiply(const tile *pixels, const int8_t *w, uint32_t taps, uint32_t next, int32_t *to,
                              uint32_t outputs, uint32_t add) {
    int32_t *const end = to + outputs;
    do {
        const tile *x = pixels;
        int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, a, b, n;
        if (add) {
            s0 = to[0], s1 = to[outputs], s2 = to[2u * outputs], s3 = to[3u * outputs];
        }
        __asm__ volatile(
            "ldr %[n], %[taps]\n"
            "lsrs %[n], %[n], #3\n"
            "beq 2f\n"
            "1:\n" QUAD QUAD "subs %[n], %[n], #1\n"
            "bne 1b\n"
            "2:\n"
            "ldr %[n], %[taps]\n"
            "lsls %[n], %[n], #30\n" /* carry: a word more; not zero: another that ends with the last tap */
            "bcc 3f\n" QUAD "3:\n"
            "beq 4f\n"
            "add %[w], %[w], %[n], lsr #30\n"
            "sub.w %[w], %[w], #4\n" QUAD "4:\n"
            : [s0] "+r"(s0), [s1] "+r"(s1), [s2] "+r"(s2), [s3] "+r"(s3), [x] "+r"(x), [w] "+r"(w),
              [a] "=&r"(a), [b] "=&r"(b), [n] "=&r"(n)
            : [taps] "m"(taps)
            : "r0", "r1", "r2", "r3", "cc", "memory");
        w += next;
        to[0] = s0, to[outputs] = s1, to[2u * outputs] = s2, to[3u * outputs] = s3;
    } while (++to != end);
}

/* Sums of the tile's pixel 0, which lies alone: quad[i] of two words. */
BD_INLINE int32_t multiply_one(int32_t sum, const uint32_t (*x)[4][2], const int8_t *w, uint32_t taps) {
    const uint32_t quads = (taps + 3u) / 4u;
    for (uint32_t i = 0; i < quads; i++) {
        uint32_t word;
        if (i == taps / 4u) {
            w -= 4u - (taps & 3u);
        }
        __builtin_memcpy(&word, w, 4);
        w += 4;
        sum = __smlad(__sxtb16((int8x4_t)word), (int16x2_t)x[i][0][0], sum);
        sum = __smlad(__sxtb16((int8x4_t)__ror(word, 8)), (int16x2_t)x[i][0][1], sum);
    }
    return sum;
}

/* The taps of one pass: the last pass has at least four. */
BD_INLINE uint32_t taps_of(uint32_t left) {
    return left <= TAPS ? left : left < TAPS + 4u ? TAPS - 4u : TAPS;
}

typedef struct job {
    const bd_step *step;
    const bd_view *in;
    const int8_t *weights;
    const bd_border *border; /* NULL: nothing is added */
    uint32_t outputs, taps;
    int fast; /* windows of 3x3x3 bytes */
} job;

static int is_inside(const job *j, const source *s, int32_t left) {
    return left >= 0 && left + 3 * j->step->stride_w + 3 <= j->in->width && s->rows[0] != NULL &&
           s->rows[1] != NULL && s->rows[2] != NULL;
}

static BD_APART void four(const job *j, const source *s, uint32_t y, uint32_t x, int32_t *to) {
    const uint32_t outputs = j->outputs;
    const bd_step *step = j->step;
    tile pixels;
    if (j->border != NULL) {
        for (uint32_t p = 0; p < 4u; p++) {
            const int32_t *values = bd_border_values(j->border, y, x + p, outputs);
            for (uint32_t o = 0; o < outputs; o++) {
                to[p * outputs + o] = values[o];
            }
        }
    }
    for (uint32_t t = 0; t < j->taps;) {
        const uint32_t taps = taps_of(j->taps - t);
        const int32_t left = (int32_t)(x * step->stride_w) - step->pad_left;
        if (j->fast && is_inside(j, s, left)) {
            const uint32_t at = 3u * (uint32_t)left, next = 3u * step->stride_w;
            if (j->in->dtype == BD_I8) {
                gather_27_i8(pixels.quad, s, at, next);
            } else {
                gather_27_u8(pixels.quad, s, at, next);
            }
        } else {
            for (uint32_t p = 0; p < 4u; p++) {
                gather(pixels.quad, p, step, j->in, s, x + p, t, taps);
            }
        }
        multiply(&pixels, j->weights + t, taps, j->taps - taps, to, outputs, t != 0 || j->border != NULL);
        t += taps;
    }
}

static BD_APART void one(const job *j, const source *s, uint32_t y, uint32_t x, int32_t *to) {
    const int32_t *add = j->border == NULL ? NULL : bd_border_values(j->border, y, x, j->outputs);
    tile pixel;
    for (uint32_t t = 0; t < j->taps;) {
        const uint32_t taps = taps_of(j->taps - t);
        gather(pixel.quad, 0, j->step, j->in, s, x, t, taps);
        const int8_t *w = j->weights + t;
        for (uint32_t o = 0; o < j->outputs; o++, w += j->taps) {
            const int32_t sum = t != 0 ? to[o] : add != NULL ? add[o] : 0;
            to[o] = multiply_one(sum, pixel.quad, w, taps);
        }
        t += taps;
    }
}

/* Whether this variant takes the step. */
static int takes(const bd_step *step, const bd_view *in) {
    const int32_t zero = step->zero_point;
    const int zero_fits = in->dtype == BD_I16  ? zero == 0
                          : in->dtype == BD_I8 ? zero >= INT8_MIN && zero <= INT8_MAX
                                               : zero >= 0 && zero <= UINT8_MAX;
    return zero_fits && step->groups == 1 && step->kernel_h <= ROWS &&
           (step->pad_value == 0 || step->pad_value == BD_PAD_REPLICATE) &&
           (uint32_t)step->kernel_h * step->kernel_w * in->channels >= 4u;
}

static void conv_rows(job *j, const bd_view out[], uint32_t y0, uint32_t rows) {
    const bd_step *step = j->step;
    const bd_view *in = j->in;
    source s;
    s.row_elements = (uint32_t)step->kernel_w * in->channels;
    s.element_bytes = in->dtype == BD_I16 ? 2u : 1u;
    s.minus_zero = (uint32_t)(uint16_t)(-step->zero_point) * 0x10001u;
    s.zero = (uint8_t)step->zero_point;
    j->outputs = out->channels;
    j->taps = step->kernel_h * s.row_elements;
    j->fast = step->kernel_h == 3 && s.row_elements == 9u && in->channels == 3 && step->dilation_w == 1 &&
              in->dtype != BD_I16;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        int32_t *to = (void *)bd_row(out, y);
        for (uint32_t ky = 0; ky < step->kernel_h; ky++) {
            const int32_t top = (int32_t)(y * step->stride_h) - step->pad_top;
            const int32_t row = bd_at(step, top + (int32_t)(ky * step->dilation_h), in->height);
            s.rows[ky] = row >= 0 && row < in->height ? bd_row(in, (uint32_t)row) : NULL;
        }
        const uint32_t width = out->width, rest = width % 4u;
        uint32_t x = 0;
        for (; x + 4u <= width; x += 4) {
            four(j, &s, y, x, to + (size_t)x * j->outputs);
        }
        if (rest > 1u && width > 4u) { /* some pixels again rather than one by one */
            four(j, &s, y, width - 4u, to + (size_t)(width - 4u) * j->outputs);
            x = width;
        }
        for (; x < width; x++) {
            one(j, &s, y, x, to + (size_t)x * j->outputs);
        }
    }
}

static bd_status conv(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                      uint32_t y0, uint32_t rows, void *scratch) {
    if (!takes(step, in)) {
        return bd_conv_qq_i32.run(step, constants, in, out, y0, rows, scratch); /* of any 8-bit convolution */
    }
    job j = {step, in, (const void *)(constants + step->weights), NULL, 0, 0, 0};
    conv_rows(&j, out, y0, rows);
    return BD_OK;
}

static bd_status conv_border(const bd_step *step, const uint8_t *constants, const bd_view in[],
                             const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    bd_border border;
    if (!takes(step, in) || bd_border_at(step, constants, &border) == 0) {
        return bd_conv_uq_i32__border.run(step, constants, in, out, y0, rows, scratch);
    }
    job j = {step, in, border.weights, &border, 0, 0, 0};
    conv_rows(&j, out, y0, rows);
    return BD_OK;
}

BD_DEFINE_VARIANT(bd_conv_uq_i32, dsp, conv)
BD_DEFINE_VARIANT(bd_conv_qq_i32, dsp, conv)
BD_DEFINE_VARIANT(bd_conv_hq_i32, dsp, conv)
BD_DEFINE_VARIANT(bd_conv_uq_i32__border, dsp, conv_border)
