/* Binary convolution with weights in the packing of bd_tile16.h on AArch64: 16 outputs of a few pixels at once.
 *
 * The byte counts of `cnt` are never summed for one output alone. `addp` of two outputs' counts is a vector of both, and so on
 * up to 16 outputs, which costs 15 / 16 instructions an output and replaces additions. Counts stay in bytes as long as
 * they fit; the levels at which they widen follow from the number of vectors. */
#include <arm_neon.h>

#include "bd_kernels.h"
#include "bd_tile16.h"
#include "conv_narrow.h"

#define MOST 4u /* pixels of a tile */

/* Offsets of pairs of loads end at 1008 bytes: from here on they count from a pointer of its own. */
#define FROM_HERE(pointer) __asm__("" : "+r"(pointer))

/* Ends the work on `value` here: interleaved, the sums of 16 outputs may take more registers than there are. */
#define IN_ORDER(value) __asm__ volatile("" : "+w"(value))

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

/* x[i][k] for one chunk. */
BD_INLINE void load_chunk(bytes x[MOST][5], const uint8_t *const from[MOST], size_t offset, uint32_t vectors,
                          uint32_t pixels) {
    for (uint32_t i = 0; i < pixels; i++) {
        for (uint32_t k = 0; k < vectors; k++) {
            x[i][k] = vld1q_u8(from[i] + offset + 16u * k);
        }
    }
}

/* A whole window that is one chunk; 3x3 of 64 channels has its own order. */
BD_INLINE void load_window(bytes x[MOST][5], const uint8_t *const from[MOST], const row_of *r,
                           uint32_t vectors, uint32_t shared, uint32_t pixels, int nine) {
    for (uint32_t i = 0; i < pixels; i++) {
        const uint8_t *p = from[i] + r->at[0], *q = from[i] + r->at[1], *s = from[i] + r->at[2];
        if (nine) {
            x[i][0] = vld1q_u8(p);
            x[i][1] = vld1q_u8(q);
            x[i][2] = vld1q_u8(s);
            x[i][3] = vcombine_u8(vld1_u8(p + 16), vld1_u8(q + 16));
            x[i][4] = vreinterpretq_u8_u64(vld1q_dup_u64((const void *)(s + 16)));
            continue;
        }
        for (uint32_t k = 0; k < vectors; k++) {
            x[i][k] = vld1q_u8(p + 16u * k);
        }
        if (shared) {
            x[i][vectors] = vreinterpretq_u8_u64(vld1q_dup_u64((const void *)(p + 16u * vectors)));
        }
    }
}

/* Counts of the whole vectors of two outputs, eight bytes each. */
BD_INLINE const uint8_t *two(bytes sum[MOST], bytes x[MOST][5], const uint8_t *w, uint32_t vectors,
                             uint32_t pixels, int tie) {
    bytes first[MOST], second[MOST];
    for (uint32_t k = 0; k < vectors; k++) {
        const bytes v = vld1q_u8(w + 16u * k), u = vld1q_u8(w + 16u * (vectors + k));
        for (uint32_t i = 0; i < pixels; i++) {
            const bytes a = COUNT(x[i][k], v), b = COUNT(x[i][k], u);
            first[i] = k == 0 ? a : vaddq_u8(first[i], a);
            second[i] = k == 0 ? b : vaddq_u8(second[i], b);
        }
    }
    for (uint32_t i = 0; i < pixels; i++) {
        sum[i] = vpaddq_u8(first[i], second[i]);
        if (tie) {
            IN_ORDER(sum[i]);
        }
    }
    return w + 32u * vectors;
}

/* Counts of four outputs, four bytes each: those of the halves are added where there are eight. */
BD_INLINE const uint8_t *four(bytes sum[MOST], bytes x[MOST][5], const uint8_t *w, uint32_t vectors,
                              uint32_t shared, uint32_t pixels, int tie) {
    bytes a[MOST], b[MOST];
    if (vectors != 0) {
        w = two(a, x, w, vectors, pixels, tie);
        w = two(b, x, w, vectors, pixels, tie);
    }
    if (shared) {
        const bytes v = vld1q_u8(w), u = vld1q_u8(w + 16);
        for (uint32_t i = 0; i < pixels; i++) {
            const bytes c = COUNT(x[i][vectors], v), d = COUNT(x[i][vectors], u);
            a[i] = vectors == 0 ? c : vaddq_u8(a[i], c);
            b[i] = vectors == 0 ? d : vaddq_u8(b[i], d);
        }
        w += 32;
    }
    for (uint32_t i = 0; i < pixels; i++) {
        sum[i] = vpaddq_u8(a[i], b[i]);
        if (tie && shared) {
            IN_ORDER(sum[i]);
        }
    }
    return w;
}

BD_INLINE const uint8_t *eight(bytes sum[MOST], bytes x[MOST][5], const uint8_t *w, uint32_t vectors,
                               uint32_t shared, uint32_t pixels, int tie) {
    bytes a[MOST], b[MOST];
    w = four(a, x, w, vectors, shared, pixels, tie);
    w = four(b, x, w, vectors, shared, pixels, tie);
    for (uint32_t i = 0; i < pixels; i++) {
        sum[i] = vpaddq_u8(a[i], b[i]);
    }
    return w;
}

/* Bits of 16 outputs as bytes of all ones or zeros, where the output is below its threshold. */
BD_INLINE bytes below(uint16x8_t low, uint16x8_t high, const uint8_t *at) {
    const int16x8_t a = vld1q_s16((const void *)at), b = vld1q_s16((const void *)(at + 16));
    return vuzp1q_u8(vreinterpretq_u8_u16(vcltq_s16(a, vreinterpretq_s16_u16(low))),
                     vreinterpretq_u8_u16(vcltq_s16(b, vreinterpretq_s16_u16(high))));
}

/* One instruction that moves its pointer on, too. */
BD_INLINE void store_16(uint8_t *to, int16x8_t low, int16x8_t high) {
    const int16x8x2_t both = {{low, high}};
    vst1q_s16_x2((void *)to, both);
}

/* What becomes of 16 counts of one pixel. */
typedef enum { PLAIN, PADDED, BITS } output;

BD_INLINE void store(uint8_t *to, uint16x8_t low, uint16x8_t high, const uint8_t *at, int16x8_t k,
                     output kind) {
    const int16x8_t u = vreinterpretq_s16_u16(low), v = vreinterpretq_s16_u16(high);
    const int16x8_t a = kind == PADDED ? vld1q_s16((const void *)at) : k;
    const int16x8_t b = kind == PADDED ? vld1q_s16((const void *)(at + 16)) : k;
    vst1q_s16((void *)to, vsubq_s16(a, vaddq_s16(u, u)));
    vst1q_s16((void *)(to + 16), vsubq_s16(b, vaddq_s16(v, v)));
}

/* 16 bits of each pixel. */
BD_INLINE void store_bits(uint8_t *to[MOST], const bytes mask[MOST], bytes place, uint32_t pixels) {
    bytes v[MOST];
    IN_ORDER(place); /* where it lies on the stack, it is loaded once */
    for (uint32_t i = 0; i < pixels; i++) {
        v[i] = vandq_u8(mask[i], place);
    }
    for (uint32_t i = 0; i < pixels; i += 2) {
        v[i / 2u] = vpaddq_u8(v[i], v[i + 1u < pixels ? i + 1u : i]);
    }
    v[0] = vpaddq_u8(v[0], v[pixels > 2u ? 1 : 0]);
    v[0] = vpaddq_u8(v[0], v[0]);
    const uint16x8_t words = vreinterpretq_u16_u8(v[0]);
    vst1q_lane_u16((void *)to[0], words, 0);
    if (pixels > 1u) {
        vst1q_lane_u16((void *)to[1], words, 1);
    }
    if (pixels > 2u) {
        vst1q_lane_u16((void *)to[2], words, 2);
    }
    if (pixels > 3u) {
        vst1q_lane_u16((void *)to[3], words, 3);
    }
    for (uint32_t i = 0; i < pixels; i++) {
        to[i] += 2;
    }
}

/* Counts of four or eight outputs, widened; added to what is there where the window has several chunks. */
BD_INLINE const uint8_t *part(uint16x8_t sum[MOST], bytes x[MOST][5], const uint8_t *w, uint32_t vectors,
                              uint32_t shared, int one_chunk, uint32_t pixels, int tie, uint32_t outputs) {
    bytes a[MOST];
    w = outputs == 8u ? eight(a, x, w, vectors, shared, pixels, tie)
                      : four(a, x, w, vectors, shared, pixels, tie);
    for (uint32_t i = 0; i < pixels; i++) {
        sum[i] = one_chunk ? vpaddlq_u8(a[i]) : vpadalq_u8(sum[i], a[i]);
    }
    return w;
}

/* Counts of 16 outputs: in bytes (small) or in two vectors of 16 bits. */
BD_INLINE const uint8_t *sixteen(bytes small[MOST], uint16x8_t low[MOST], uint16x8_t high[MOST],
                                 bytes x[MOST][5], const tile_of *t, const row_of *r, const uint8_t *w,
                                 uint32_t vectors, uint32_t shared, int one_chunk, uint32_t pixels, int tie) {
    const uint32_t quad = 32u * vectors + 16u * shared; /* the largest byte of four outputs */
    if (one_chunk && 4u * quad < 256u) {
        bytes a[MOST], b[MOST];
        w = eight(a, x, w, vectors, shared, pixels, tie);
        w = eight(b, x, w, vectors, shared, pixels, tie);
        for (uint32_t i = 0; i < pixels; i++) {
            small[i] = vpaddq_u8(a[i], b[i]);
        }
        return w;
    }
    const int by_eight = 2u * quad < 256u;
    const uint32_t rows = one_chunk ? 1u : r->rows, chunks = one_chunk ? 1u : r->chunks_per_row;
    uint16x8_t a[MOST], b[MOST], c[MOST], d[MOST];
    for (uint32_t i = 0; i < pixels && !one_chunk; i++) {
        a[i] = b[i] = c[i] = d[i] = vdupq_n_u16(0);
    }
    for (uint32_t row = 0; row < rows; row++) {
        size_t offset = one_chunk ? 0u : r->at[row];
        for (uint32_t k = 0; k < chunks; k++, offset += 16u * vectors) {
            if (!one_chunk) {
                load_chunk(x, t->x, offset, vectors, pixels);
            }
            if (by_eight) {
                w = part(a, x, w, vectors, shared, one_chunk, pixels, tie, 8);
                w = part(c, x, w, vectors, shared, one_chunk, pixels, tie, 8);
            } else {
                w = part(a, x, w, vectors, shared, one_chunk, pixels, tie, 4);
                w = part(b, x, w, vectors, shared, one_chunk, pixels, tie, 4);
                if (quad > 128u) {
                    FROM_HERE(w);
                }
                w = part(c, x, w, vectors, shared, one_chunk, pixels, tie, 4);
                w = part(d, x, w, vectors, shared, one_chunk, pixels, tie, 4);
            }
        }
    }
    for (uint32_t i = 0; i < pixels; i++) {
        low[i] = by_eight ? a[i] : vpaddq_u16(a[i], b[i]);
        high[i] = by_eight ? c[i] : vpaddq_u16(c[i], d[i]);
    }
    return w;
}

/* All outputs of a tile of pixels. */
BD_INLINE void tile(const row_of *r, tile_of *t, uint32_t vectors, uint32_t shared, int one_chunk, int nine,
                    uint32_t pixels, output kind) {
    const int tie = one_chunk && !(vectors >= 4u && shared == 0 && kind != BITS);
    const int in_bytes = one_chunk && 128u * vectors + 64u * shared < 256u,
              alike = one_chunk && !nine; /* pixels */
    static const uint8_t places[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const bytes place = vld1q_u8(places);
    const uint8_t *w = r->weights;
    const int16x8_t k = vdupq_n_s16(r->k);
    const int8x16_t half = vdupq_n_s8((int8_t)(r->k / 2)); /* of up to 192 channels */
    bytes x[MOST][5], small[MOST], mask[MOST];
    uint16x8_t low[MOST], high[MOST];
    if (one_chunk) {
        load_window(x, t->x, r, vectors, shared, pixels, nine);
    }
    for (uint32_t left = r->outputs / 16u; left != 0; left--) {
        w = sixteen(small, low, high, x, t, r, w, vectors, shared, one_chunk, pixels, tie);
        if (kind == BITS) {
            for (uint32_t i = 0; i < pixels; i++) {
                const uint8_t *at = t->at[alike ? 0 : i];
                mask[i] = in_bytes ? vcleq_u8(vld1q_u8(at), small[i]) : below(low[i], high[i], at);
            }
            for (uint32_t i = 0; i < (alike ? 1u : pixels); i++) {
                t->at[i] += in_bytes ? 16 : 32;
            }
            store_bits(t->to, mask, place, pixels);
            continue;
        }
        for (uint32_t i = 0; i < pixels; i++) {
            if (in_bytes) { /* 2 (K / 2 - c), where K / 2 - c fits a byte */
                const int8x16_t d = vsubq_s8(half, vreinterpretq_s8_u8(small[i]));
                store_16(t->to[i], vshll_n_s8(vget_low_s8(d), 1), vshll_high_n_s8(d, 1));
            } else {
                store(t->to[i], low[i], high[i], t->at[i], k, kind);
            }
            t->to[i] += 32;
            if (kind == PADDED) {
                t->at[i] += 32;
            }
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
    for (uint32_t i = 0; i < pixels; i++) {
        t.x[i] = *from;
        t.to[i] = *to;
        t.at[i] = inner ? p->at[0] : p->at[(x + i < p->first ? 1u : 0u) | (x + i >= p->last ? 2u : 0u)];
        *from += p->x_step;
        *to += p->to_step;
    }
    tile(r, &t, vectors, shared, one_chunk, nine, pixels, kind);
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

SHAPE(half_1, 0, 1, 1, 0, 4, 4, PLAIN)
SHAPE(one_0, 1, 0, 1, 0, 4, 4, PLAIN)
SHAPE(one_1, 1, 1, 1, 0, 4, 4, PLAIN)
SHAPE(two_0, 2, 0, 1, 0, 4, 4, PLAIN)
SHAPE(two_1, 2, 1, 1, 0, 2, 2, PLAIN)
SHAPE(three_0, 3, 0, 1, 0, 3, 3, PLAIN)
SHAPE(four_0, 4, 0, 1, 0, 3, 2, PLAIN)
SHAPE(nine_64, 4, 1, 1, 1, 2, 2, PADDED)
SHAPE(by_1, 1, 0, 0, 0, 4, 4, PADDED)
SHAPE(by_3, 3, 0, 0, 0, 4, 4, PADDED)
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
    const uint16_t *padded[9];
    uint32_t count = 0;
    for (uint32_t ky = 0; ky < side && (rows | columns) != 0; ky++) {
        const uint32_t outside = ky == 0 ? rows & 1u : ky == 2u ? rows & 2u : 0u;
        for (uint32_t kx = 0; kx < side; kx++) {
            if ((outside | (kx == 0 ? columns & 1u : kx == 2u ? columns & 2u : 0u)) != 0) {
                padded[count++] = ones + (ky * 3u + kx) * (size_t)outputs;
            }
        }
    }
    for (uint32_t o = 0; o < outputs; o += 16u) {
        uint16x8_t a = vdupq_n_u16((uint16_t)seen), b = a;
        for (uint32_t i = 0; i < count; i++) {
            const uint16_t *n = padded[i] + o;
            a = vmlaq_n_u16(a, vld1q_u16(n), 2);
            b = vmlaq_n_u16(b, vld1q_u16(n + 8), 2);
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
    p.x_step = step->stride_w * 4u * bd_words(channels);
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
        is_one_row(in, in->width * 4u * bd_words(channels), y0, rows) && step->out_width == in->width &&
        is_one_row(out, p.to_step * p.count, y0, rows)) {
        p.count *= rows;
        p.last = p.count;
        rows = 1;
    }
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const int32_t top = (int32_t)(y * step->stride_h) - step->pad_top;
        const uint32_t missing = bd_tile16_missing(step, top, in->height);
        if (missing != known && t.half == 8u && (packed || taps == 9u || t.chunks > 1u)) {
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
        if (t.half != 8u) {
            const bd_conv_narrow few = {p.x,     weights, low,      p.to,     channels,
                                        outputs, p.count, p.x_step, p.to_step};
            bd_conv_narrow_pixels(&few);
            continue;
        }
        shape(&r, &p);
    }
    return BD_OK;
}

BD_DEFINE_VARIANT(bd_conv_bb_i16__tile16, neon64, conv)
BD_DEFINE_VARIANT(bd_conv_bb_bit__tile16, neon64, conv)
