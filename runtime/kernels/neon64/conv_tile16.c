/* Binary convolution with weights in the packing of bd_tile16.h on AArch64: 16 outputs of a few pixels at once.
 *
 * The byte counts of `cnt` are never summed for one output alone. `addp` of two outputs' counts is a vector of both, and so on
 * up to 16 outputs, which costs 15 / 16 instructions an output and replaces additions. Counts stay in bytes as long as
 * they fit; the levels at which they widen follow from the number of vectors. */
#include <arm_neon.h>

#include "bd_kernels.h"
#include "bd_tile16.h"

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
    uint32_t outputs, rows, chunks_per_row, row_bytes; /* rows of a window, and bytes from one to the next */
    int16_t k; /* the addend where nothing is padded */
} row_of;

#define COUNT(x, w) vcntq_u8(veorq_u8(x, w))

/* x[i][k] for one chunk. */
BD_INLINE void load_chunk(bytes x[MOST][6], const uint8_t *const from[MOST], uint32_t offset, uint32_t vectors,
                          uint32_t pixels) {
    for (uint32_t i = 0; i < pixels; i++) {
        for (uint32_t k = 0; k < vectors; k++) {
            x[i][k] = vld1q_u8(from[i] + offset + 16u * k);
        }
    }
}

/* A whole window that is one chunk; 3x3 of 64 channels has its own order. */
BD_INLINE void load_window(bytes x[MOST][6], const uint8_t *const from[MOST], const row_of *r, uint32_t vectors,
                           uint32_t shared, uint32_t pixels, int nine) {
    for (uint32_t i = 0; i < pixels; i++) {
        const uint8_t *p = from[i], *q = p + r->row_bytes, *s = q + r->row_bytes;
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

/* Counts of two outputs, eight bytes each. */
BD_INLINE const uint8_t *two(bytes sum[MOST], bytes x[MOST][6], const uint8_t *w, uint32_t vectors, uint32_t shared,
                             uint32_t pixels) {
    bytes first[MOST], second[MOST];
    for (uint32_t k = 0; k < vectors; k++) {
        const bytes v = vld1q_u8(w + 16u * k), u = vld1q_u8(w + 16u * (vectors + k));
        for (uint32_t i = 0; i < pixels; i++) {
            const bytes a = COUNT(x[i][k], v), b = COUNT(x[i][k], u);
            first[i] = k == 0 ? a : vaddq_u8(first[i], a);
            second[i] = k == 0 ? b : vaddq_u8(second[i], b);
        }
    }
    w += 32u * vectors;
    for (uint32_t i = 0; i < pixels && vectors != 0; i++) {
        sum[i] = vpaddq_u8(first[i], second[i]);
    }
    if (shared) {
        const bytes v = vld1q_u8(w);
        for (uint32_t i = 0; i < pixels; i++) {
            const bytes a = COUNT(x[i][vectors], v);
            sum[i] = vectors == 0 ? a : vaddq_u8(sum[i], a);
        }
        w += 16;
    }
    return w;
}

BD_INLINE const uint8_t *four(bytes sum[MOST], bytes x[MOST][6], const uint8_t *w, uint32_t vectors, uint32_t shared,
                              uint32_t pixels) {
    bytes a[MOST], b[MOST];
    w = two(a, x, w, vectors, shared, pixels);
    w = two(b, x, w, vectors, shared, pixels);
    for (uint32_t i = 0; i < pixels; i++) {
        sum[i] = vpaddq_u8(a[i], b[i]);
    }
    return w;
}

BD_INLINE const uint8_t *eight(bytes sum[MOST], bytes x[MOST][6], const uint8_t *w, uint32_t vectors, uint32_t shared,
                               uint32_t pixels) {
    bytes a[MOST], b[MOST];
    w = four(a, x, w, vectors, shared, pixels);
    w = four(b, x, w, vectors, shared, pixels);
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

/* What becomes of 16 counts of one pixel. */
typedef enum { PLAIN, PADDED, BITS } output;

BD_INLINE void store(uint8_t *to, uint16x8_t low, uint16x8_t high, const uint8_t *at, int16x8_t k, output kind) {
    const int16x8_t u = vreinterpretq_s16_u16(low), v = vreinterpretq_s16_u16(high);
    const int16x8_t a = kind == PADDED ? vld1q_s16((const void *)at) : k;
    const int16x8_t b = kind == PADDED ? vld1q_s16((const void *)(at + 16)) : k;
    vst1q_s16((void *)to, vsubq_s16(a, vaddq_s16(u, u)));
    vst1q_s16((void *)(to + 16), vsubq_s16(b, vaddq_s16(v, v)));
}

BD_INLINE void store_bits(uint8_t *to, bytes first, bytes second) {
    static const uint8_t places[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const bytes place = vld1q_u8(places);
    bytes v = vpaddq_u8(vandq_u8(first, place), vandq_u8(second, place));
    v = vpaddq_u8(v, v);
    v = vpaddq_u8(v, v);
    vst1q_lane_u32((void *)to, vreinterpretq_u32_u8(v), 0);
}

/* Counts of 16 outputs: in bytes (small) or in two vectors of 16 bits. */
BD_INLINE const uint8_t *sixteen(bytes small[MOST], uint16x8_t low[MOST], uint16x8_t high[MOST], bytes x[MOST][6],
                                 const tile_of *t, const row_of *r, const uint8_t *w, uint32_t vectors,
                                 uint32_t shared, int one_chunk, uint32_t pixels) {
    const uint32_t quad = 32u * vectors + 16u * shared; /* the largest byte of four outputs */
    if (one_chunk && 4u * quad < 256u) {
        bytes a[MOST], b[MOST];
        w = eight(a, x, w, vectors, shared, pixels);
        w = eight(b, x, w, vectors, shared, pixels);
        for (uint32_t i = 0; i < pixels; i++) {
            small[i] = vpaddq_u8(a[i], b[i]);
        }
        return w;
    }
    uint16x8_t sum[4][MOST];
    const int by_eight = 2u * quad < 256u;
    const uint32_t parts = by_eight ? 2u : 4u, rows = one_chunk ? 1u : r->rows;
    for (uint32_t q = 0; q < parts && !one_chunk; q++) {
        for (uint32_t i = 0; i < pixels; i++) {
            sum[q][i] = vdupq_n_u16(0);
        }
    }
    for (uint32_t row = 0; row < rows; row++) {
        uint32_t offset = row * r->row_bytes;
        for (uint32_t c = 0; c < (one_chunk ? 1u : r->chunks_per_row); c++, offset += 16u * vectors) {
            if (!one_chunk) {
                load_chunk(x, t->x, offset, vectors, pixels);
            }
            for (uint32_t q = 0; q < parts; q++) {
                bytes a[MOST];
                w = by_eight ? eight(a, x, w, vectors, shared, pixels) : four(a, x, w, vectors, shared, pixels);
                for (uint32_t i = 0; i < pixels; i++) {
                    sum[q][i] = one_chunk ? vpaddlq_u8(a[i]) : vpadalq_u8(sum[q][i], a[i]);
                }
            }
        }
    }
    for (uint32_t i = 0; i < pixels; i++) {
        low[i] = by_eight ? sum[0][i] : vpaddq_u16(sum[0][i], sum[1][i]);
        high[i] = by_eight ? sum[1][i] : vpaddq_u16(sum[2][i], sum[3][i]);
    }
    return w;
}

/* All outputs of a tile of pixels. */
BD_INLINE void tile(const row_of *r, tile_of *t, uint32_t vectors, uint32_t shared, int one_chunk, int nine,
                    uint32_t pixels, output kind) {
    const int in_bytes = one_chunk && 128u * vectors + 64u * shared < 256u;
    const uint8_t *w = r->weights;
    const int16x8_t k = vdupq_n_s16(r->k);
    const int8x16_t half = vdupq_n_s8((int8_t)(r->k / 2)); /* of up to 192 channels */
    bytes x[MOST][6], small[MOST], mask[MOST];
    uint16x8_t low[MOST], high[MOST];
    if (one_chunk) {
        load_window(x, t->x, r, vectors, shared, pixels, nine);
    }
    for (uint32_t o = 0; o < r->outputs; o += kind == BITS ? 32u : 16u) {
        w = sixteen(small, low, high, x, t, r, w, vectors, shared, one_chunk, pixels);
        if (kind == BITS) {
            for (uint32_t i = 0; i < pixels; i++) {
                if (in_bytes) {
                    mask[i] = vcleq_u8(vld1q_u8(t->at[i]), small[i]);
                } else {
                    mask[i] = below(low[i], high[i], t->at[i]);
                }
            }
            w = sixteen(small, low, high, x, t, r, w, vectors, shared, one_chunk, pixels);
            for (uint32_t i = 0; i < pixels; i++) {
                const bytes second = in_bytes ? vcleq_u8(vld1q_u8(t->at[i] + 16), small[i])
                                              : below(low[i], high[i], t->at[i] + 32);
                store_bits(t->to[i], mask[i], second);
                t->to[i] += 4;
                t->at[i] += in_bytes ? 32 : 64;
            }
            continue;
        }
        for (uint32_t i = 0; i < pixels; i++) {
            if (in_bytes) { /* 2 (K / 2 - c), where K / 2 - c fits a byte */
                const int8x16_t d = vsubq_s8(half, vreinterpretq_s8_u8(small[i]));
                vst1q_s16((void *)t->to[i], vshll_n_s8(vget_low_s8(d), 1));
                vst1q_s16((void *)(t->to[i] + 16), vshll_high_n_s8(d, 1));
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

BD_INLINE void row_of_pixels(const row_of *r, const pixels_of *p, uint32_t vectors, uint32_t shared, int one_chunk,
                             int nine, uint32_t most, output kind) {
    tile_of t;
    uint32_t x = 0;
    for (; x + most <= p->count; x += most) {
        for (uint32_t i = 0; i < most; i++) {
            t.x[i] = p->x + (size_t)(x + i) * p->x_step;
            t.to[i] = p->to + (size_t)(x + i) * p->to_step;
            t.at[i] = p->at[(x + i < p->first ? 1u : 0u) | (x + i >= p->last ? 2u : 0u)];
        }
        tile(r, &t, vectors, shared, one_chunk, nine, most, kind);
    }
    for (; x < p->count; x++) {
        t.x[0] = p->x + (size_t)x * p->x_step;
        t.to[0] = p->to + (size_t)x * p->to_step;
        t.at[0] = p->at[(x < p->first ? 1u : 0u) | (x >= p->last ? 2u : 0u)];
        tile(r, &t, vectors, shared, one_chunk, nine, 1, kind);
    }
}

#define SHAPE(name, vectors, shared, one_chunk, nine, most, plain)                                           \
    static BD_APART void name##_i16(const row_of *r, const pixels_of *p) {                                   \
        row_of_pixels(r, p, vectors, shared, one_chunk, nine, most, plain);                                  \
    }                                                                                                        \
    static BD_APART void name##_bit(const row_of *r, const pixels_of *p) {                                   \
        row_of_pixels(r, p, vectors, shared, one_chunk, nine, most, BITS);                                   \
    }

SHAPE(half_1, 0, 1, 1, 0, 4, PLAIN)
SHAPE(one_0, 1, 0, 1, 0, 4, PLAIN)
SHAPE(one_1, 1, 1, 1, 0, 4, PLAIN)
SHAPE(two_0, 2, 0, 1, 0, 4, PLAIN)
SHAPE(two_1, 2, 1, 1, 0, 2, PLAIN)
SHAPE(three_0, 3, 0, 1, 0, 2, PLAIN)
SHAPE(four_0, 4, 0, 1, 0, 2, PLAIN)
SHAPE(nine_64, 4, 1, 1, 1, 2, PADDED)
SHAPE(by_1, 1, 0, 0, 0, 4, PADDED)
SHAPE(by_3, 3, 0, 0, 0, 2, PADDED)
SHAPE(by_4, 4, 0, 0, 0, 2, PADDED)
SHAPE(by_6, 6, 0, 0, 0, 2, PADDED)

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
    case 1:
        return one ? (packed ? one_0_bit : one_0_i16) : (packed ? by_1_bit : by_1_i16);
    case 2:
        return packed ? two_0_bit : two_0_i16;
    case 3:
        return one ? (packed ? three_0_bit : three_0_i16) : (packed ? by_3_bit : by_3_i16);
    case 4:
        return one ? (packed ? four_0_bit : four_0_i16) : (packed ? by_4_bit : by_4_i16);
    default:
        return packed ? by_6_bit : by_6_i16;
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
static void addends(uint8_t *to, const bd_step *step, const uint16_t *ones, const int16_t *low, uint32_t channels,
                    uint32_t rows, uint32_t columns, int in_bytes) {
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
    uint32_t known = 4; /* missing rows of the addends that are there: none yet */
    r.weights = weights;
    r.outputs = outputs;
    r.rows = step->kernel_h;
    r.chunks_per_row = t.chunks / step->kernel_h;
    r.row_bytes = padded;
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
        p.last = (p.count - 1u) * step->stride_w + 2u >= (uint32_t)in->width + step->pad_left ? p.count - 1u : p.count;
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
            for (uint32_t ky = 0; ky < 3u; ky++) {
                pad_row((uint8_t *)scratch + ky * padded, step, in, top + (int32_t)ky);
            }
            p.x = scratch;
        } else {
            p.x = bd_row(in, y * step->stride_h);
        }
        p.to = bd_row(out, y);
        shape(&r, &p);
    }
    return BD_OK;
}

BD_DEFINE_VARIANT(bd_conv_bb_i16__tile16, neon64, conv)
BD_DEFINE_VARIANT(bd_conv_bb_bit__tile16, neon64, conv)
