/* Binary convolution with weights in the packing of bd_tile16.h on 32-bit Arm with NEON: 16 outputs of a few pixels.
 *
 * There are half as many registers as on AArch64, and pairs are added in halves of them only, so that the sum of a vector
 * for one output costs two instructions. Two ways:
 *   windows of up to 512 channels stay in registers for all outputs; the counts of 16 outputs are added in a tree, in
 *   bytes as long as they fit;
 *   longer ones are read again for every two outputs, whose counts for two pixels stay in registers to the end of the
 *   window: a tree for each chunk would cost as much as the chunk. */
#include "bd_kernels.h"
#include "bd_tile16.h"
#include "neon32.h"

#define MOST 4u /* pixels of a tile */

typedef uint8x16_t bytes;

/* What a tile of pixels reads and writes; pointers per pixel. */
typedef struct tile_of {
    const uint8_t *x[MOST];  /* its first column in the upper row */
    const uint8_t *at[MOST]; /* addends: int16 [outputs], or limits of the counts */
    uint8_t *to[MOST];
} tile_of;

typedef struct row_of {
    const uint8_t *weights;
    uint32_t outputs, rows, chunks_per_row;
    uint32_t at[3]; /* where the rows of the window lie: bytes behind x */
    int16_t k;      /* the addend where nothing is padded */
} row_of;

#define COUNT(x, w) vcntq_u8(veorq_u8(x, w))

/* Sums of neighbours, of a and behind them of b. */
BD_INLINE bytes pairs(bytes a, bytes b) {
    return vcombine_u8(vpadd_u8(vget_low_u8(a), vget_high_u8(a)), vpadd_u8(vget_low_u8(b), vget_high_u8(b)));
}

BD_INLINE uint16x8_t pairs_16(uint16x8_t a, uint16x8_t b) {
    return vcombine_u16(vpadd_u16(vget_low_u16(a), vget_high_u16(a)),
                        vpadd_u16(vget_low_u16(b), vget_high_u16(b)));
}

/* A whole window that is one chunk; 3x3 of 64 channels has its own order. */
BD_INLINE void load_window(bytes x[MOST][5], const uint8_t *const from[MOST], const row_of *r,
                           uint32_t vectors, uint32_t shared, uint32_t pixels, int nine) {
    UNROLLED
    for (uint32_t i = 0; i < pixels; i++) {
        const uint8_t *p = from[i] + r->at[0], *q = from[i] + r->at[1], *s = from[i] + r->at[2];
        if (nine) {
            x[i][0] = vld1q_u8(p);
            x[i][1] = vld1q_u8(q);
            x[i][2] = vld1q_u8(s);
            x[i][3] = vcombine_u8(vld1_u8(p + 16), vld1_u8(q + 16));
            x[i][4] = vcombine_u8(vld1_u8(s + 16), vld1_u8(s + 16));
            continue;
        }
        UNROLLED
        for (uint32_t k = 0; k < vectors; k++) {
            x[i][k] = vld1q_u8(p + 16u * k);
        }
        if (shared) {
            const uint8x8_t half = vld1_u8(p + 16u * vectors);
            x[i][vectors] = vcombine_u8(half, half);
        }
    }
}

/* Counts of one output, in eight bytes. */
BD_INLINE const uint8_t *one(uint8x8_t sum[MOST], bytes x[MOST][5], const uint8_t *w, uint32_t vectors,
                             uint32_t pixels) {
    bytes all[MOST];
    UNROLLED
    for (uint32_t k = 0; k < vectors; k += 2u) {
        const int more = k + 1u < vectors;
        uint8x16x2_t v;
        if (more) {
            v = vld1q_u8_x2(w + 16u * k);
        } else {
            v.val[0] = v.val[1] = vld1q_u8(w + 16u * k);
        }
        UNROLLED
        for (uint32_t i = 0; i < pixels; i++) {
            bytes c = COUNT(x[i][k], v.val[0]);
            c = more ? vaddq_u8(c, COUNT(x[i][k + 1u], v.val[1])) : c;
            all[i] = k == 0 ? c : vaddq_u8(all[i], c);
            if (k + 2u < vectors) {
                IN_ORDER(all[i]);
            } else {
                sum[i] = vadd_u8(vget_low_u8(all[i]), vget_high_u8(all[i]));
                IN_ORDER(sum[i]);
            }
        }
    }
    return w + 16u * vectors;
}

/* Counts of two outputs, eight bytes each. */
BD_INLINE const uint8_t *two(bytes sum[MOST], bytes x[MOST][5], const uint8_t *w, uint32_t vectors,
                             uint32_t shared, uint32_t pixels) {
    uint8x8_t a[MOST], b[MOST];
    if (vectors != 0) {
        w = one(a, x, w, vectors, pixels);
        w = one(b, x, w, vectors, pixels);
        UNROLLED
        for (uint32_t i = 0; i < pixels; i++) {
            sum[i] = vcombine_u8(a[i], b[i]);
        }
    }
    if (shared) {
        const bytes v = vld1q_u8(w);
        UNROLLED
        for (uint32_t i = 0; i < pixels; i++) {
            const bytes c = COUNT(x[i][vectors], v);
            sum[i] = vectors == 0 ? c : vaddq_u8(sum[i], c);
        }
        w += 16;
    }
    UNROLLED
    for (uint32_t i = 0; i < pixels; i++) {
        IN_ORDER(sum[i]);
    }
    return w;
}

BD_INLINE const uint8_t *four(bytes sum[MOST], bytes x[MOST][5], const uint8_t *w, uint32_t vectors,
                              uint32_t shared, uint32_t pixels) {
    bytes a[MOST], b[MOST];
    w = two(a, x, w, vectors, shared, pixels);
    w = two(b, x, w, vectors, shared, pixels);
    UNROLLED
    for (uint32_t i = 0; i < pixels; i++) {
        sum[i] = pairs(a[i], b[i]);
        IN_ORDER(sum[i]);
    }
    return w;
}

BD_INLINE const uint8_t *eight(bytes sum[MOST], bytes x[MOST][5], const uint8_t *w, uint32_t vectors,
                               uint32_t shared, uint32_t pixels) {
    bytes a[MOST], b[MOST];
    w = four(a, x, w, vectors, shared, pixels);
    w = four(b, x, w, vectors, shared, pixels);
    UNROLLED
    for (uint32_t i = 0; i < pixels; i++) {
        sum[i] = pairs(a[i], b[i]);
        IN_ORDER(sum[i]);
    }
    return w;
}

/* Counts of eight outputs in 16 bits, of a window that is one chunk. */
BD_INLINE const uint8_t *eight_16(uint16x8_t sum[MOST], bytes x[MOST][5], const uint8_t *w, uint32_t vectors,
                                  uint32_t shared, uint32_t pixels) {
    bytes a[MOST];
    if (2u * (32u * vectors + 16u * shared) < 256u) { /* the largest byte of eight outputs */
        w = eight(a, x, w, vectors, shared, pixels);
        UNROLLED
        for (uint32_t i = 0; i < pixels; i++) {
            sum[i] = vpaddlq_u8(a[i]);
        }
        return w;
    }
    uint16x8_t b[MOST];
    w = four(a, x, w, vectors, shared, pixels);
    UNROLLED
    for (uint32_t i = 0; i < pixels; i++) {
        b[i] = vpaddlq_u8(a[i]);
    }
    w = four(a, x, w, vectors, shared, pixels);
    UNROLLED
    for (uint32_t i = 0; i < pixels; i++) {
        sum[i] = pairs_16(b[i], vpaddlq_u8(a[i]));
    }
    return w;
}

/* What becomes of 16 counts of one pixel. */
typedef enum { PLAIN, PADDED, BITS } output;

/* Stores 16 values and moves on. */
BD_INLINE uint8_t *store(uint8_t *to, int16x8_t low, int16x8_t high) {
    const int16x8x2_t both = {{low, high}};
    vst1q_s16_x2((void *)to, both);
    return to + 32;
}

/* addend - 2 c */
BD_INLINE int16x8_t value(int16x8_t addend, uint16x8_t count) {
    return vsubq_s16(addend, vreinterpretq_s16_u16(vshlq_n_u16(count, 1)));
}

/* Bytes of all ones where the limit is below the count. */
BD_INLINE bytes below(uint16x8_t low, uint16x8_t high, const uint8_t *at) {
    const int16x8x2_t limits = vld1q_s16_x2((const void *)at);
    return vcombine_u8(vmovn_u16(vcltq_s16(limits.val[0], vreinterpretq_s16_u16(low))),
                       vmovn_u16(vcltq_s16(limits.val[1], vreinterpretq_s16_u16(high))));
}

/* 16 bits of each pixel. */
BD_INLINE void store_bits(uint8_t *to[MOST], const bytes mask[MOST], bytes place, uint32_t pixels) {
    uint8x8_t v[MOST];
    UNROLLED
    for (uint32_t i = 0; i < pixels; i++) {
        const bytes bits = vandq_u8(mask[i], place);
        v[i] = vpadd_u8(vget_low_u8(bits), vget_high_u8(bits));
    }
    UNROLLED
    for (uint32_t i = 0; i < pixels; i += 2u) {
        v[i / 2u] = vpadd_u8(v[i], v[i + 1u < pixels ? i + 1u : i]);
    }
    const uint16x4_t words = vreinterpret_u16_u8(vpadd_u8(v[0], v[pixels > 2u ? 1 : 0]));
    vst1_lane_u16((void *)to[0], words, 0);
    if (pixels > 1u) {
        vst1_lane_u16((void *)to[1], words, 1);
    }
    if (pixels > 2u) {
        vst1_lane_u16((void *)to[2], words, 2);
    }
    if (pixels > 3u) {
        vst1_lane_u16((void *)to[3], words, 3);
    }
    UNROLLED
    for (uint32_t i = 0; i < pixels; i++) {
        to[i] += 2;
    }
}

BD_INLINE bytes places(void) {
    static const uint8_t of[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    return vld1q_u8(of);
}

/* All outputs of a tile of pixels whose windows fit the registers. */
BD_INLINE void tile(const row_of *r, tile_of *t, uint32_t vectors, uint32_t shared, int nine, uint32_t pixels,
                    output kind) {
    const int in_bytes = 128u * vectors + 64u * shared < 256u, alike = !nine; /* pixels */
    const uint8_t *w = r->weights;
    bytes x[MOST][5], a[MOST], b[MOST], mask[MOST];
    uint16x8_t low[MOST], high[MOST];
    load_window(x, t->x, r, vectors, shared, pixels, nine);
    for (uint32_t left = r->outputs / 16u; left != 0; left--) {
        if (in_bytes) {
            w = eight(a, x, w, vectors, shared, pixels);
            w = eight(b, x, w, vectors, shared, pixels);
        } else {
            w = eight_16(low, x, w, vectors, shared, pixels);
            w = eight_16(high, x, w, vectors, shared, pixels);
        }
        UNROLLED
        for (uint32_t i = 0; i < pixels; i++) {
            const uint8_t *at = t->at[alike ? 0 : i];
            const bytes count = in_bytes ? pairs(a[i], b[i]) : vdupq_n_u8(0);
            if (kind == BITS) {
                mask[i] = in_bytes ? vcleq_u8(vld1q_u8(at), count) : below(low[i], high[i], at);
            } else if (in_bytes) { /* 2 (K / 2 - c), where K / 2 - c fits a byte */
                const int8x16_t d = vsubq_s8(vdupq_n_s8((int8_t)(r->k / 2)), vreinterpretq_s8_u8(count));
                t->to[i] = store(t->to[i], vshll_n_s8(vget_low_s8(d), 1), vshll_n_s8(vget_high_s8(d), 1));
            } else if (kind == PLAIN) {
                const int16x8_t k = vdupq_n_s16(r->k);
                t->to[i] = store(t->to[i], value(k, low[i]), value(k, high[i]));
            } else {
                const int16x8x2_t k = vld1q_s16_x2((const void *)at);
                t->to[i] = store(t->to[i], value(k.val[0], low[i]), value(k.val[1], high[i]));
            }
        }
        UNROLLED
        for (uint32_t i = 0; i < (alike ? 1u : pixels) && kind != PLAIN; i++) {
            t->at[i] += in_bytes ? 16 : 32;
        }
        if (kind == BITS) {
            store_bits(t->to, mask, places(), pixels);
        }
    }
}

/* One vector of a pixel and of two outputs: q15 is free, x is lost. */
#define VECTOR(x, w0, w1, sum0, sum1)                                                                        \
    "veor q15, " x ", " w0 "\n veor " x ", " x ", " w1 "\n vcnt.8 q15, q15\n vcnt.8 " x ", " x               \
    "\n vpadal.u8 " sum0 ", q15\n vpadal.u8 " sum1 ", " x "\n"

/* Some vectors of a pixel. */
#define PIXEL_1(p, a, b) "vldmia " p "!, {d24-d25}\n" VECTOR("q12", "q6", "q7", a, b)
#define PIXEL_2(p, a, b)                                                                                     \
    "vldmia " p "!, {d24-d27}\n" VECTOR("q12", "q6", "q8", a, b) VECTOR("q13", "q7", "q9", a, b)
#define PIXEL_3(p, a, b)                                                                                     \
    "vldmia " p "!, {d24-d29}\n" VECTOR("q12", "q6", "q9", a, b) VECTOR("q13", "q7", "q10", a, b)            \
        VECTOR("q14", "q8", "q11", a, b)

/* Four sums of 16 bits of a pixel, two of each output. */
#define SUM(a, b, c, d, to)                                                                                  \
    "vadd.i16 " a ", " a ", " b "\n vadd.i16 " c ", " c ", " d "\n vpadd.i16 " a ", " a ", " c               \
    "\n vst1.16 {" a "}, [" to "]\n"

#define ZERO(q) "vmov.i32 " q ", #0\n"

/* Counts of two outputs for three, two or one pixels over a window of several chunks. Compilers move so much of this ahead
 * that the registers are not enough, and do not load three vectors at once. All sums stay in q0-q5.
 *
 * rows: addresses of the pixels in each row of the window; to: of each pixel; weights: bytes of a step of one output;
 * step: from a chunk's weights to those of the next. */
#define WINDOW(name, load, zero, get, chunk, sum)                                                            \
    BD_INLINE void name(uint16_t *const to[3], const uint8_t *const *rows, uint32_t height, uint32_t chunks, \
                        const uint8_t *w, uint32_t step) {                                                   \
        const uint8_t *a, *b, *c;                                                                            \
        uint32_t left;                                                                                       \
        __asm__ volatile(zero "1:\n" get "mov %[left], %[chunks]\n"                                          \
                              "2:\n" load chunk "subs %[left], %[left], #1\n bne 2b\n"                       \
                              "subs %[height], %[height], #1\n bne 1b\n" sum                                 \
                         : [a] "=&r"(a), [b] "=&r"(b), [c] "=&r"(c), [left] "=&r"(left), [w] "+&r"(w),       \
                           [rows] "+&r"(rows), [height] "+&r"(height)                                        \
                         : [chunks] "r"(chunks), [step] "r"(step), [to] "r"(to)                              \
                         : "cc", "memory", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9",       \
                           "q10", "q11", "q12", "q13", "q14", "q15");                                        \
    }

#define GET_1           "ldr %[a], [%[rows]], #12\n"
#define GET_2           "ldr %[b], [%[rows], #4]\n" GET_1
#define GET_3           "ldr %[c], [%[rows], #8]\n" GET_2
#define ZERO_1          ZERO("q0") ZERO("q1")
#define ZERO_2          ZERO_1 ZERO("q2") ZERO("q3")
#define ZERO_3          ZERO_2 ZERO("q4") ZERO("q5")
#define SUM_1           "ldr %[a], [%[to]]\n" SUM("d0", "d1", "d2", "d3", "%[a]")
#define SUM_2           SUM_1 "ldr %[a], [%[to], #4]\n" SUM("d4", "d5", "d6", "d7", "%[a]")
#define SUM_3           SUM_2 "ldr %[a], [%[to], #8]\n" SUM("d8", "d9", "d10", "d11", "%[a]")
#define PIXELS_1(pixel) pixel("%[a]", "q0", "q1")
#define PIXELS_2(pixel) PIXELS_1(pixel) pixel("%[b]", "q2", "q3")
#define PIXELS_3(pixel) PIXELS_2(pixel) pixel("%[c]", "q4", "q5")

/* Weights of a chunk of one and of three vectors, and of four in two halves. */
#define LOAD_1 "vldmia %[w], {d12-d15}\n add %[w], %[w], %[step]\n"
#define LOAD_3 "vldmia %[w], {d12-d23}\n add %[w], %[w], %[step]\n"
#define LOAD_4                                                                                               \
    "vldmia %[w]!, {d12-d15}\n add %[w], %[w], #32\n vldmia %[w], {d16-d19}\n sub %[w], %[w], #32\n"
#define LOAD_4_NEXT                                                                                          \
    "vldmia %[w], {d12-d15}\n add %[w], %[w], #64\n vldmia %[w], {d16-d19}\n add %[w], %[w], %[step]\n"
#define CHUNK_4(pixels) pixels(PIXEL_2) LOAD_4_NEXT pixels(PIXEL_2)

WINDOW(window_1_1, LOAD_1, ZERO_1, GET_1, PIXELS_1(PIXEL_1), SUM_1)
WINDOW(window_1_2, LOAD_1, ZERO_2, GET_2, PIXELS_2(PIXEL_1), SUM_2)
WINDOW(window_1_3, LOAD_1, ZERO_3, GET_3, PIXELS_3(PIXEL_1), SUM_3)
WINDOW(window_3_1, LOAD_3, ZERO_1, GET_1, PIXELS_1(PIXEL_3), SUM_1)
WINDOW(window_3_2, LOAD_3, ZERO_2, GET_2, PIXELS_2(PIXEL_3), SUM_2)
WINDOW(window_3_3, LOAD_3, ZERO_3, GET_3, PIXELS_3(PIXEL_3), SUM_3)
WINDOW(window_4_1, LOAD_4, ZERO_1, GET_1, CHUNK_4(PIXELS_1), SUM_1)
WINDOW(window_4_2, LOAD_4, ZERO_2, GET_2, CHUNK_4(PIXELS_2), SUM_2)
WINDOW(window_4_3, LOAD_4, ZERO_3, GET_3, CHUNK_4(PIXELS_3), SUM_3)

/* All outputs of up to three pixels whose windows have several chunks. */
BD_INLINE void long_tile(const row_of *r, tile_of *t, uint32_t vectors, uint32_t pixels, output kind) {
    const uint8_t *w = r->weights, *rows[3][3];
    uint16_t counts[3][32], *to[3]; /* two sums of an output */
    const uint32_t chunks = r->rows * r->chunks_per_row, step = 256u * vectors - (vectors == 4u ? 96u : 0u);
    for (uint32_t y = 0; y < r->rows; y++) {
        for (uint32_t i = 0; i < pixels; i++) {
            rows[y][i] = t->x[i] + r->at[y];
        }
    }
    for (uint32_t left = r->outputs / 16u; left != 0; left--) {
        for (uint32_t i = 0; i < pixels; i++) {
            to[i] = counts[i];
        }
        for (uint32_t o = 0; o < 16u; o += 2u, w += 32u * vectors) {
#define CASE(v, p)                                                                                           \
    if (vectors == v && pixels == p) {                                                                       \
        window_##v##_##p(to, rows[0], r->rows, r->chunks_per_row, w, step);                                  \
    }
            CASE(1, 1)
            CASE(1, 2)
            CASE(1, 3)
            CASE(3, 1)
            CASE(3, 2) CASE(3, 3) CASE(4, 1) CASE(4, 2) CASE(4, 3) for (uint32_t i = 0; i < pixels; i++) {
                to[i] += 4;
            }
        }
        w += (size_t)(chunks - 1u) * 256u * vectors;
        bytes mask[MOST];
        UNROLLED
        for (uint32_t i = 0; i < pixels; i++) {
            const uint16x8x2_t a = vld1q_u16_x2(counts[i]), b = vld1q_u16_x2(counts[i] + 16);
            const uint16x8_t low = pairs_16(a.val[0], a.val[1]), high = pairs_16(b.val[0], b.val[1]);
            if (kind == BITS) {
                mask[i] = below(low, high, t->at[i]);
            } else {
                const int16x8x2_t k = vld1q_s16_x2((const void *)t->at[i]);
                t->to[i] = store(t->to[i], value(k.val[0], low), value(k.val[1], high));
            }
            t->at[i] += 32;
        }
        if (kind == BITS) {
            store_bits(t->to, mask, places(), pixels);
        }
    }
}

/* Counts of 16 outputs for three pixels of 256 channels, or two of 512, which stay in registers: x in q0-q7, weights behind
 * them. As C, a fifth of the instructions moves and reloads registers.
 *
 * FOLD: one output of one pixel in eight bytes; SUMS: of four outputs, in four bytes each, the sums in 16 bits. */
#define FOLD_2(x0, x1, w0, w1, to)                                                                           \
    "veor q10, " x0 ", " w0 "\n veor q11, " x1 ", " w1 "\n vcnt.8 q10, q10\n vcnt.8 q11, q11\n"              \
    "vadd.i8 q10, q10, q11\n vadd.i8 " to ", d20, d21\n"
#define PAIR_2(x0, x1, to)                                                                                   \
    FOLD_2(x0, x1, "q6", "q7", to) FOLD_2(x0, x1, "q8", "q9", "d20") "vpadd.i8 " to ", " to ", d20\n"
#define FOLD_4(x0, x1, x2, x3, to)                                                                           \
    "veor q12, " x0 ", q8\n veor q13, " x1 ", q9\n vcnt.8 q12, q12\n vcnt.8 q13, q13\n"                      \
    "vadd.i8 q12, q12, q13\n veor q13, " x2 ", q10\n vcnt.8 q13, q13\n vadd.i8 q12, q12, q13\n"              \
    "veor q13, " x3 ", q11\n vcnt.8 q13, q13\n vadd.i8 q12, q12, q13\n vadd.i8 " to ", d24, d25\n"
#define PAIR_4(a, b)                                                                                         \
    "vldmia %[w]!, {d16-d23}\n" FOLD_4("q0", "q1", "q2", "q3", a)                                            \
        FOLD_4("q4", "q5", "q6", "q7", b) "vldmia %[w]!, {d16-d23}\n" FOLD_4(                                \
            "q0", "q1", "q2", "q3", "d24") "vpadd.i8 " a ", " a                                              \
                                           ", d24\n" FOLD_4("q4", "q5", "q6", "q7", "d24") "vpadd.i8 " b     \
                                                                                           ", " b ", d24\n"
#define SUMS(q, low, high, to)                                                                               \
    "vpaddl.u8 " q ", " q "\n vpadd.i16 " low ", " low ", " high "\n vst1.16 {" low "}, [" to "]!\n"

#define ADD(to, from) "vpadd.i8 " to ", " to ", " from "\n"
#define VALUE(q)      "vpaddl.u8 " q ", " q "\n vshl.i16 " q ", " q ", #1\n vsub.i16 " q ", q10, " q "\n"

/* Eight outputs a turn: counts, or with `value` k - 2 counts, of three pixels. Returns the weights behind. */
BD_INLINE const uint8_t *outputs_of_256(const uint8_t *const x[MOST], uint8_t *to[MOST], const uint8_t *w,
                                        uint32_t turns, uint32_t k, int value) {
#define TURN(finish)                                                                                         \
    __asm__ volatile(                                                                                        \
        "vldmia %[x], {d0-d3}\n vldmia %[y], {d4-d7}\n vldmia %[z], {d8-d11}\n"                              \
        "1:\n vldmia %[w]!, {d12-d19}\n" PAIR_2("q0", "q1", "d24") PAIR_2("q2", "q3", "d26")                 \
            PAIR_2("q4", "q5", "d28") "vldmia %[w]!, {d12-d19}\n" PAIR_2("q0", "q1", "d25")                  \
                PAIR_2("q2", "q3", "d27") PAIR_2("q4", "q5", "d29") ADD("d24", "d25") ADD("d26", "d27")      \
                    ADD("d28", "d29") "vldmia %[w]!, {d12-d19}\n" PAIR_2("q0", "q1", "d25")                  \
                        PAIR_2("q2", "q3", "d27")                                                            \
                            PAIR_2("q4", "q5", "d29") "vldmia %[w]!, {d12-d19}\n" PAIR_2("q0", "q1", "d30")  \
                                PAIR_2("q2", "q3", "d31") PAIR_2("q4", "q5", "d12") ADD("d25", "d30")        \
                                    ADD("d27", "d31") ADD("d29", "d12") finish                               \
        "vst1.16 {d24-d25}, [%[a]]!\n vst1.16 {d26-d27}, [%[b]]!\n vst1.16 {d28-d29}, [%[c]]!\n"             \
        "subs %[turns], %[turns], #1\n bne 1b\n"                                                             \
        : [w] "+&r"(w), [a] "+&r"(to[0]), [b] "+&r"(to[1]), [c] "+&r"(to[2]), [turns] "+&r"(turns)           \
        : [x] "r"(x[0]), [y] "r"(x[1]), [z] "r"(x[2]), [k] "r"(k)                                            \
        : "cc", "memory", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q12",   \
          "q13", "q14", "q15")
    if (value) {
        TURN("vdup.16 q10, %[k]\n" VALUE("q12") VALUE("q13") VALUE("q14"));
    } else {
        TURN("vpaddl.u8 q12, q12\n vpaddl.u8 q13, q13\n vpaddl.u8 q14, q14\n");
    }
#undef TURN
    return w;
}

BD_INLINE const uint8_t *sixteen_of_512(uint16_t counts[3][32], const uint8_t *const x[MOST],
                                        const uint8_t *w) {
    uint16_t *a = counts[0], *b = counts[1];
    uint32_t left;
    __asm__ volatile("vldmia %[x], {d0-d7}\n vldmia %[y], {d8-d15}\n mov %[left], #4\n"
                     "1:\n" PAIR_4("d28", "d30") PAIR_4("d29", "d31") SUMS("q14", "d28", "d29", "%[a]")
                         SUMS("q15", "d30", "d31", "%[b]") "subs %[left], %[left], #1\n bne 1b\n"
                     : [w] "+&r"(w), [a] "+&r"(a), [b] "+&r"(b), [left] "=&r"(left)
                     : [x] "r"(x[0]), [y] "r"(x[1])
                     : "cc", "memory", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10",
                       "q11", "q12", "q13", "q14", "q15");
    return w;
}

/* All outputs of three pixels of 256 channels or two of 512. */
BD_INLINE void held_tile(const row_of *r, tile_of *t, uint32_t vectors, output kind) {
    const uint8_t *w = r->weights;
    const uint32_t pixels = vectors == 2u ? 3u : 2u;
    const int16x8_t k = vdupq_n_s16(r->k);
    uint16_t counts[3][32];
    if (vectors == 2u && kind != BITS) {
        (void)outputs_of_256(t->x, t->to, w, r->outputs / 8u, (uint32_t)r->k, 1);
        return;
    }
    for (uint32_t left = r->outputs / 16u; left != 0; left--) {
        bytes mask[MOST];
        if (vectors == 2u) {
            uint8_t *to[MOST] = {(void *)counts[0], (void *)counts[1], (void *)counts[2]};
            w = outputs_of_256(t->x, to, w, 2, 0, 0);
        } else {
            w = sixteen_of_512(counts, t->x, w);
        }
        UNROLLED
        for (uint32_t i = 0; i < pixels; i++) {
            const uint16x8x2_t c = vld1q_u16_x2(counts[i]);
            if (kind == BITS) {
                mask[i] = below(c.val[0], c.val[1], t->at[0]);
            } else {
                t->to[i] = store(t->to[i], value(k, c.val[0]), value(k, c.val[1]));
            }
        }
        if (kind == BITS) {
            t->at[0] += 32;
            store_bits(t->to, mask, places(), pixels);
        }
    }
}

/* A row of pixels of one shape of window. */
typedef struct pixels_of {
    const uint8_t *x;
    const uint8_t *at[4]; /* by missing columns */
    uint8_t *to;
    uint32_t count, x_step, to_step;
    uint32_t first, last; /* pixels that miss a column: 0 .. first - 1 and last .. count - 1 */
} pixels_of;

/* The next `pixels` of them. */
BD_INLINE uint32_t next(const row_of *r, const pixels_of *p, uint32_t x, const uint8_t **from, uint8_t **to,
                        uint32_t vectors, uint32_t shared, int one_chunk, int nine, uint32_t pixels,
                        output kind) {
    const int inner = x >= p->first && x + pixels <= p->last;
    tile_of t;
    UNROLLED
    for (uint32_t i = 0; i < pixels; i++) {
        t.x[i] = *from;
        t.to[i] = *to;
        t.at[i] = inner ? p->at[0] : p->at[(x + i < p->first ? 1u : 0u) | (x + i >= p->last ? 2u : 0u)];
        *from += p->x_step;
        *to += p->to_step;
    }
    if (one_chunk && shared == 0 && ((vectors == 2u && pixels == 3u) || (vectors == 4u && pixels == 2u))) {
        held_tile(r, &t, vectors, kind);
    } else if (one_chunk) {
        tile(r, &t, vectors, shared, nine, pixels, kind);
    } else {
        long_tile(r, &t, vectors, pixels, kind);
    }
    return x + pixels;
}

BD_INLINE void row_of_pixels(const row_of *r, const pixels_of *p, uint32_t vectors, uint32_t shared,
                             int one_chunk, int nine, uint32_t most, output kind) {
    const uint8_t *from = p->x;
    uint8_t *to = p->to;
    uint32_t x = 0;
    while (x + most <= p->count) {
        x = next(r, p, x, &from, &to, vectors, shared, one_chunk, nine, most, kind);
    }
    if (most > 2u && x + 2u <= p->count) {
        x = next(r, p, x, &from, &to, vectors, shared, one_chunk, nine, 2, kind);
    }
    if (x < p->count) {
        x = next(r, p, x, &from, &to, vectors, shared, one_chunk, nine, 1, kind);
    }
}

/* most: pixels of a tile with int16 outputs; packed: with bits. */
#define SHAPE(name, vectors, shared, one_chunk, nine, most, packed, plain)                                   \
    static BD_APART void name##_i16(const row_of *r, const pixels_of *p) {                                   \
        row_of_pixels(r, p, vectors, shared, one_chunk, nine, most, plain);                                  \
    }                                                                                                        \
    static BD_APART void name##_bit(const row_of *r, const pixels_of *p) {                                   \
        row_of_pixels(r, p, vectors, shared, one_chunk, nine, packed, BITS);                                 \
    }

SHAPE(half_1, 0, 1, 1, 0, 3, 3, PLAIN)
SHAPE(one_0, 1, 0, 1, 0, 3, 3, PLAIN)
SHAPE(one_1, 1, 1, 1, 0, 3, 3, PLAIN)
SHAPE(two_0, 2, 0, 1, 0, 3, 3, PLAIN)
SHAPE(two_1, 2, 1, 1, 0, 2, 2, PLAIN)
SHAPE(three_0, 3, 0, 1, 0, 2, 2, PLAIN)
SHAPE(four_0, 4, 0, 1, 0, 2, 2, PLAIN)
SHAPE(nine_64, 4, 1, 1, 1, 1, 1, PADDED)
SHAPE(by_1, 1, 0, 0, 0, 3, 3, PADDED)
SHAPE(by_3, 3, 0, 0, 0, 3, 3, PADDED)
SHAPE(by_4, 4, 0, 0, 0, 3, 3, PADDED)

typedef void (*shape_fn)(const row_of *r, const pixels_of *p);

static shape_fn shape_of(const bd_tile16 *t, uint32_t taps, int packed) {
    const int one = t->chunks <= 1u && taps == 1u;
    if (t->shared) {
        switch (t->vectors) {
        case 0:
            return packed ? half_1_bit : half_1_i16;
        case 1:
            return packed ? one_1_bit : one_1_i16;
        case 2:
            return packed ? two_1_bit : two_1_i16;
        default:
            return packed ? nine_64_bit : nine_64_i16;
        }
    }
    switch (t->vectors) {
    case 2:
        return packed ? two_0_bit : two_0_i16;
    case 3:
        return one ? (packed ? three_0_bit : three_0_i16) : (packed ? by_3_bit : by_3_i16);
    case 4:
        return one ? (packed ? four_0_bit : four_0_i16) : (packed ? by_4_bit : by_4_i16);
    default:
        return one ? (packed ? one_0_bit : one_0_i16) : (packed ? by_1_bit : by_1_i16);
    }
}

/* Copies row y of the input with its padding. */
static void pad_row(uint8_t *to, const bd_step *step, const bd_view *in, int32_t y) {
    const uint32_t bytes_each = in->channels / 8u, columns = bd_tile16_columns(step), left = step->pad_left;
    const uint8x8_t fill = vdup_n_u8(step->pad_value < 0 ? 0xff : 0);
    const uint32_t room = columns - left, inside = in->width < room ? in->width : room;
    const uint32_t whole = y >= 0 && y < in->height ? inside * bytes_each : 0;
    const uint8_t *from = whole != 0 ? bd_row(in, (uint32_t)y) : to;
    for (uint32_t i = 0; i < left * bytes_each; i += 8u, to += 8) {
        vst1_u8(to, fill);
    }
    uint32_t i = 0;
    for (; i + 32u <= whole; i += 32u) {
        const bytes a = vld1q_u8(from + i), b = vld1q_u8(from + i + 16u);
        vst1q_u8(to + i, a);
        vst1q_u8(to + i + 16u, b);
    }
    for (; i < whole; i += 8u) {
        vst1_u8(to + i, vld1_u8(from + i));
    }
    for (; i < room * bytes_each; i += 8u) {
        vst1_u8(to + i, fill);
    }
}

/* Addends of all outputs for pixels that miss these rows and columns, or what a count must exceed for a packed output. */
static void addends(uint8_t *to, const bd_step *step, const uint16_t *ones, const int16_t *low,
                    uint32_t channels, uint32_t rows, uint32_t columns, int in_bytes) {
    const uint32_t outputs = step->out_channels, side = step->kernel_h;
    const uint32_t y_missing = rows == 0 ? 0u : rows == 3u ? 2u : 1u;
    const uint32_t x_missing = columns == 0 ? 0u : columns == 3u ? 2u : 1u;
    const uint32_t seen = (side - y_missing) * (side - x_missing) * channels;
    for (uint32_t o = 0; o < outputs; o += 16u) {
        uint16x8_t a = vdupq_n_u16((uint16_t)seen), b = a;
        for (uint32_t ky = 0; ky < side && (rows | columns) != 0; ky++) {
            const uint32_t outside = ky == 0 ? rows & 1u : ky == 2u ? rows & 2u : 0u;
            for (uint32_t kx = 0; kx < side; kx++) {
                if ((outside | (kx == 0 ? columns & 1u : kx == 2u ? columns & 2u : 0u)) == 0) {
                    continue;
                }
                const uint16_t *n = ones + (ky * 3u + kx) * (size_t)outputs + o;
                a = vmlaq_n_u16(a, vld1q_u16(n), 2);
                b = vmlaq_n_u16(b, vld1q_u16(n + 8), 2);
            }
        }
        int16x8_t u = vreinterpretq_s16_u16(a), v = vreinterpretq_s16_u16(b);
        if (low != NULL) {
            u = vhsubq_s16(u, vld1q_s16(low + o));
            v = vhsubq_s16(v, vld1q_s16(low + o + 8));
        }
        if (in_bytes) { /* the smallest count that is enough: counts end at 192 */
            vst1q_u8(to + o, vcombine_u8(vqmovun_s16(vqaddq_s16(u, vdupq_n_s16(1))),
                                         vqmovun_s16(vqaddq_s16(v, vdupq_n_s16(1)))));
            continue;
        }
        vst1q_s16((void *)(to + 2u * o), u);
        vst1q_s16((void *)(to + 2u * o + 16u), v);
    }
}

/* Rows y .. y + rows - 1 lie one behind the other. */
static int is_one_row(const bd_view *view, uint32_t bytes_each, uint32_t y, uint32_t rows) {
    return view->row_stride == bytes_each && y % view->rows_held + rows <= view->rows_held;
}

static bd_status conv(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                      uint32_t y0, uint32_t rows, void *scratch) {
    const uint32_t channels = in->channels, outputs = step->out_channels, taps = bd_tile16_taps(step);
    const bd_tile16 t = bd_tile16_of(taps, channels);
    const uint8_t *weights = constants + step->weights;
    const uint16_t *ones = (const void *)(weights + bd_tile16_bytes(&t, outputs));
    const int packed = out->dtype == BD_BIT;
    const int16_t *low = packed ? (const void *)(ones + (taps == 9u ? 9u * (size_t)outputs : 0u)) : NULL;
    const int in_bytes = packed && t.chunks <= 1u && 128u * t.vectors + 64u * t.shared < 256u;
    const shape_fn shape = shape_of(&t, taps, packed);
    const uint32_t padded = bd_tile16_row_bytes(step, channels);
    uint8_t *array = (uint8_t *)scratch + 3u * padded;
    row_of r;
    pixels_of p;
    int32_t next_row = -2; /* the rows above it are in scratch */
    uint32_t known = 4;    /* missing rows of the addends that are there: none yet */
    r.weights = weights;
    r.outputs = outputs;
    r.rows = step->kernel_h;
    r.chunks_per_row = t.chunks / step->kernel_h;
    r.at[0] = r.at[1] = r.at[2] = 0;
    r.k = (int16_t)(taps * channels);
    p.count = step->out_width;
    p.x_step = step->stride_w * (channels / 8u);
    p.to_step = packed ? outputs / 8u : outputs * 2u;
    p.first = 0;
    p.last = p.count;
    for (uint32_t side = 0; side < 4u; side++) {
        p.at[side] = array + 2u * side * outputs;
    }
    if (taps == 9u && step->pad_value == 0) {
        p.first = step->pad_left;
        p.last = (p.count - 1u) * step->stride_w + 2u >= (uint32_t)in->width + step->pad_left ? p.count - 1u
                                                                                              : p.count;
    }
    if (taps == 1u && step->stride_h == 1 && step->stride_w == 1 &&
        is_one_row(in, in->width * (channels / 8u), y0, rows) && step->out_width == in->width &&
        is_one_row(out, p.to_step * p.count, y0, rows)) {
        p.count *= rows;
        p.last = p.count;
        rows = 1;
    }
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const int32_t top = (int32_t)(y * step->stride_h) - step->pad_top;
        const uint32_t missing = bd_tile16_missing(step, top, in->height);
        if (missing != known && (packed || taps == 9u || t.chunks > 1u)) {
            const uint32_t last = p.last < p.count ? 2u : 0u;
            for (uint32_t side = 0; side < 4u; side++) {
                const int used = (side & (p.first != 0 ? 3u : 2u)) == side && (side & (last | 1u)) == side;
                if (used && (side != 3u || p.count == 1u)) {
                    addends(array + 2u * side * outputs, step, ones, low, channels, missing, side, in_bytes);
                }
            }
            known = missing;
        }
        if (taps == 9u) {
            for (int32_t row = top; row < top + 3; row++) {
                r.at[row - top] = (uint32_t)(row + 3) % 3u * padded;
                if (row >= next_row) {
                    pad_row((uint8_t *)scratch + r.at[row - top], step, in, row);
                }
            }
            next_row = top + 3;
            p.x = scratch;
        } else {
            p.x = bd_row(in, y * step->stride_h);
        }
        p.to = bd_row(out, y);
        shape(&r, &p);
    }
    return BD_OK;
}

BD_DEFINE_VARIANT(bd_conv_bb_i16__tile16, neon32, conv)
BD_DEFINE_VARIANT(bd_conv_bb_bit__tile16, neon32, conv)
