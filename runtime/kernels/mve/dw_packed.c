/* Depth-wise 3x3 of bits and trits on Armv8.1-M vectors: 128 channels at once, bit-sliced as in generic/dw_packed.c.
 *
 * A padded tap of value 0 must count nothing: its weights are what is read in its place, so that they never differ. Lane i of a plane
 * holds channels 8 i .. 8 i + 7, and bit q of all lanes becomes 16 accumulators, which one scattering store brings into the
 * natural order. Pixels of 32 or 64 channels lie side by side in a vector, with the weights repeated. */
#include "bd_kernels.h"
#include "bd_mve.h"

/* Ends the work on a value here: interleaved, the columns of a window take more registers than there are. */
#define IN_ORDER(value) __asm__ volatile("" : "+w"(value))
/* The compiler would make three operations of a multiplication by a number that it knows. */
#define HIDE(value) __asm__("" : "+w"(value))

/* The weights of 16 bytes of channels, tap by tap. */
typedef struct weights {
    uint8_t w[3][3][16];
} weights;

/* Blocks of up to 16 bytes of channels, one after the other. */
typedef struct span {
    const uint8_t *x[3];   /* of the left column of the window */
    const weights *w, *z;  /* for the first plane and the second */
    uint32_t down[3];      /* bytes from block to block */
    uint32_t plane[3];     /* bytes to the other plane of trits */
    uint32_t column;       /* bytes from column to column */
    int8_t *to;            /* the first block's accumulators */
    uint32_t to_step;      /* bytes from block to block */
    uint32_t count, lanes; /* blocks; bytes of channels in each */
    uint32_t taps;         /* inside of the map */
} span;

typedef struct sums {
    bytes s, c; /* ones and twos */
} sums;

typedef struct planes {
    bytes p[4];
} planes;

BD_INLINE bytes load(const uint8_t *from, mve_pred16_t some, uint32_t whole) {
    return whole ? vld1q_u8(from) : vldrbq_z_u8(from, some);
}

BD_INLINE bytes load_weights(const uint8_t *from) {
    return vreinterpretq_u8_u32(vldrwq_u32((const void *)from));
}

BD_INLINE sums add(bytes a, bytes b, bytes c) {
    const bytes t = veorq_u8(a, b);
    const sums r = {veorq_u8(t, c), veorq_u8(a, vandq_u8(t, veorq_u8(a, c)))};
    return r;
}

/* Where x and w are equal, over one column of the window: weights are inverted. */
BD_INLINE sums column_of(const uint8_t *a, const uint8_t *b, const uint8_t *c, const weights *w, uint32_t kx,
                         mve_pred16_t some, uint32_t whole) {
    sums r = add(veorq_u8(load(a, some, whole), load_weights(w->w[0][kx])),
                 veorq_u8(load(b, some, whole), load_weights(w->w[1][kx])),
                 veorq_u8(load(c, some, whole), load_weights(w->w[2][kx])));
    IN_ORDER(r.s);
    IN_ORDER(r.c);
    return r;
}

/* The count of three columns, or of two. */
BD_INLINE planes nine(const uint8_t *x, const uint8_t *y, const uint8_t *z, const weights *w, uint32_t column,
                      uint32_t columns, mve_pred16_t some, uint32_t whole) {
    const sums a = column_of(x, y, z, w, 0, some, whole),
               b = column_of(x + column, y + column, z + column, w, 1, some, whole);
    sums ones, twos;
    if (columns == 3u) {
        const sums c = column_of(x + 2u * column, y + 2u * column, z + 2u * column, w, 2, some, whole);
        ones = add(a.s, b.s, c.s);
        twos = add(a.c, b.c, c.c);
    } else {
        ones.s = veorq_u8(a.s, b.s);
        ones.c = vandq_u8(a.s, b.s);
        twos.s = veorq_u8(a.c, b.c);
        twos.c = vandq_u8(a.c, b.c);
    }
    const bytes carry = vandq_u8(twos.s, ones.c);
    const planes n = {{ones.s, veorq_u8(twos.s, ones.c), veorq_u8(twos.c, carry), vandq_u8(twos.c, carry)}};
    return n;
}

/* Exchanges the upper bits of pairs of fields in a with the lower ones in b. */
#define SWAP(a, b, shift, mask)                                                                              \
    do {                                                                                                     \
        const bytes t_ = vandq_u8(veorq_u8(vshrq_n_u8(a, shift), b), mask);                                  \
        b = veorq_u8(b, t_);                                                                                 \
        a = veorq_u8(a, vshlq_n_u8(t_, shift));                                                              \
    } while (0)

/* Byte j of the result: counts of bits j and j + 4. */
BD_INLINE planes nibbles(planes n) {
    const bytes ones = vdupq_n_u8(0x55), twos = vdupq_n_u8(0x33);
    SWAP(n.p[0], n.p[1], 1, ones);
    SWAP(n.p[2], n.p[3], 1, ones);
    SWAP(n.p[0], n.p[2], 2, twos);
    SWAP(n.p[1], n.p[3], 2, twos);
    return n;
}

BD_INLINE void scatter(int8_t *to, bytes places, bytes v, mve_pred16_t some, uint32_t whole) {
    if (whole) {
        vstrbq_scatter_offset_s8(to, places, vreinterpretq_s8_u8(v));
    } else {
        vstrbq_scatter_offset_p_s8(to, places, vreinterpretq_s8_u8(v), some);
    }
}

BD_INLINE void row(const span *o, uint32_t trits, uint32_t column, uint32_t columns, uint32_t whole) {
    const bytes places = vshlq_n_u8(vidupq_n_u8(0, 1), 3);
    bytes two = vdupq_n_u8(2), nibble = vdupq_n_u8(15);
    const mve_pred16_t some = vctp8q(o->lanes);
    const uint8_t *a = o->x[0], *b = o->x[1], *c = o->x[2];
    const weights *const w = o->w, *const z = o->z;
    const uint8_t less = (uint8_t)(0u - o->taps);
    int8_t *to = o->to;
    HIDE(two);
    HIDE(nibble);
    for (uint32_t left = o->count; left != 0; left--) {
        planes n = nibbles(nine(a, b, c, w, column, columns, some, whole)), m = n;
        if (trits) {
            const uint8_t *const d = a + o->plane[0], *const e = b + o->plane[1], *const f = c + o->plane[2];
            IN_ORDER(n.p[0]);
            IN_ORDER(n.p[1]);
            IN_ORDER(n.p[2]);
            IN_ORDER(n.p[3]);
            m = nibbles(nine(d, e, f, z, column, columns, some, whole));
        }
#pragma GCC unroll 4
        for (uint32_t j = 0; j < 4u; j++) {
            bytes low = vandq_u8(n.p[j], nibble), high = vshrq_n_u8(n.p[j], 4);
            if (trits) {
                low = vaddq_n_u8(vaddq_u8(low, vandq_u8(m.p[j], nibble)), less);
                high = vaddq_n_u8(vaddq_u8(high, vshrq_n_u8(m.p[j], 4)), less);
            } else {
                low = vmlasq_n_u8(low, two, less);
                high = vmlasq_n_u8(high, two, less);
            }
            scatter(to + j, places, low, some, whole);
            scatter(to + j + 4, places, high, some, whole);
        }
        a += o->down[0];
        b += o->down[1];
        c += o->down[2];
        to += o->to_step;
    }
}

#define ROW(name, trits, column, columns, whole)                                                             \
    static BD_APART void name(const span *o) {                                                               \
        row(o, trits, column, columns, whole);                                                               \
    }

ROW(bits_128, 0, 16, 3, 1)
ROW(bits, 0, o->column, 3, 1)
ROW(some_bits, 0, o->column, 3, 0)
ROW(two_bits, 0, o->column, 2, 0)
ROW(trits_128, 1, 16, 3, 1)
ROW(trits, 1, o->column, 3, 1)
ROW(some_trits, 1, o->column, 3, 0)
ROW(two_trits, 1, o->column, 2, 0)

static void run(const span *o, uint32_t is_trits, uint32_t columns) {
    if (o->count == 0) {
        return;
    }
    if (columns == 2u) {
        (is_trits ? two_trits : two_bits)(o);
    } else if (o->lanes != 16u) {
        (is_trits ? some_trits : some_bits)(o);
    } else if (o->column == 16u) {
        (is_trits ? trits_128 : bits_128)(o);
    } else {
        (is_trits ? trits : bits)(o);
    }
}

#define MOST 128u /* bytes of a pixel's channels */

/* What is read where a row is missing: weights are zeros there, too. */
static const uint8_t zeros[2u * MOST + 16u] = {0};

/* A row of the output and a block of channels: rows of the input, zeros where they are missing. */
typedef struct row_of {
    const uint8_t *x[3];
    uint32_t down[3], plane[3];     /* bytes from pixel to pixel of the output, and to the other plane */
    const uint8_t *w;               /* [kh][kw][each] */
    weights inverted;               /* of the block, zeros for rows that are missing */
    uint32_t there;                 /* a bit for each row */
    uint32_t each, lanes;           /* bytes of a pixel; of the block */
    uint32_t channels, trits, rows; /* rows: how many are there */
} row_of;

/* Inverted weights. A window begins in column `left`, and columns from `from` on are read: where that is none of the window,
 * the inverse of what is read there counts nothing. */
static BD_APART void weights_of(weights *to, const row_of *r, int32_t left, int32_t from, uint32_t second) {
    for (uint32_t ky = 0; ky < 3u; ky++) {
        for (uint32_t i = 0; i < 3u; i++) {
            const int32_t kx = from + (int32_t)i - left;
            const int other = kx < 0 || kx >= 3;
            const uint8_t *w = r->w + (3u * ky + (other ? 0u : (uint32_t)kx)) * r->each;
            bytes v = vdupq_n_u8(0);
            if ((r->there >> ky & 1u) != 0 && other) {
                v = bd_bytes_at(r->x[ky] + ((uint32_t)from + i) * r->each + (second ? r->plane[ky] : 0u),
                                r->lanes);
            } else if ((r->there >> ky & 1u) != 0) {
                v = vmvnq_u8(bd_bytes_at(w, r->lanes));
            }
            vst1q_u8(to->w[ky][i], v);
        }
    }
}

/* The weights of 4 or 8 bytes of channels, again and again. */
static BD_APART void repeat(weights *w, uint32_t each) {
    for (uint32_t tap = 0; tap < 9u; tap++) {
        uint32_t *const to = (void *)w->w[tap / 3u][tap % 3u];
        to[1] = to[each / 4u - 1u];
        to[2] = to[0];
        to[3] = to[1];
    }
}

static void start(span *o, const row_of *r, int32_t from, int8_t *to) {
    for (uint32_t i = 0; i < 3u; i++) {
        o->x[i] = r->x[i] + ((r->there >> i & 1u) != 0 ? (uint32_t)from * r->each : 0u);
        o->plane[i] = r->plane[i];
        o->down[i] = r->down[i];
    }
    o->w = o->z = &r->inverted;
    o->column = r->each;
    o->to = to;
    o->to_step = r->channels;
    o->count = 1;
    o->lanes = r->lanes;
}

/* `count` pixels whose columns are all there. */
static BD_APART void inner_pixels(const row_of *r, int32_t left, int8_t *to, uint32_t count, uint32_t dense) {
    span o;
    start(&o, r, left, to);
    o.taps = 3u * r->rows;
    o.count = count;
    if (dense) {
        o.to_step = 128;
        o.count = count * r->each / 16u;
        o.lanes = 16;
        for (uint32_t i = 0; i < 3u; i++) {
            o.down[i] = (r->there >> i & 1u) != 0 ? 16u : 0u;
        }
        run(&o, r->trits, 3);
        for (uint32_t i = 0; i < 3u; i++) {
            o.x[i] += o.count * o.down[i];
        }
        o.to += 128u * o.count;
        o.lanes = count * r->each % 16u;
        o.count = o.lanes != 0;
    }
    run(&o, r->trits, 3);
}

/* A pixel of which columns are missing; mostly one. */
static BD_APART void outer_pixel(const row_of *r, int32_t left, int32_t width, int8_t *to) {
    weights w, z;
    span o;
    const int one = left == -1 || left == width - 2;
    const int32_t last = one ? width - 2 : width - 3, from = left < 0 ? 0 : left > last ? last : left;
    start(&o, r, from, to);
    o.taps = 0;
    for (int32_t kx = left; kx < left + 3; kx++) {
        o.taps += kx >= 0 && kx < width ? r->rows : 0u;
    }
    if (one) {
        o.w = o.z = (const void *)r->inverted.w[0][left < 0 ? 1 : 0];
        run(&o, r->trits, 2);
        return;
    }
    weights_of(&w, r, left, from, 0);
    weights_of(&z, r, left, from, 1);
    o.w = &w;
    o.z = &z;
    run(&o, r->trits, 3);
}

/* Row y of a block of channels, whose first byte is c. */
static void block_row(row_of *r, const bd_step *step, const bd_view *in, const bd_view *out, uint32_t y,
                      uint32_t c, const bd_taps *inner, uint32_t dense) {
    int8_t *to = (int8_t *)(void *)bd_row(out, y) + 8u * c;
    uint32_t there = 0;
    r->rows = 0;
    for (uint32_t ky = 0; ky < 3u; ky++) {
        const int32_t from = (int32_t)(y * step->stride_h + ky) - step->pad_top;
        const int inside = from >= 0 && from < in->height;
        r->x[ky] = inside ? bd_row(in, (uint32_t)from) + c : zeros;
        r->plane[ky] = inside && r->trits ? (uint32_t)in->width * r->each : 0u;
        r->down[ky] = inside ? step->stride_w * r->each : 0u;
        r->rows += inside ? 1u : 0u;
        there |= inside ? 1u << ky : 0u;
    }
    if (there != r->there) {
        r->there = there;
        weights_of(&r->inverted, r, 0, 0, 0);
        if (dense) {
            repeat(&r->inverted, r->each);
        }
    }
    for (uint32_t x = 0; x < out->width;) {
        const int32_t left = (int32_t)(x * step->stride_w) - step->pad_left;
        if (x >= inner->first && x < inner->end) {
            inner_pixels(r, left, to + x * r->channels, inner->end - x, dense);
            x = inner->end;
        } else {
            outer_pixel(r, left, in->width, to + x * r->channels);
            x++;
        }
    }
}

static int is_for_rows(const bd_step *step, const bd_view *in) {
    return step->kernel_h == 3 && step->kernel_w == 3 && step->dilation_h == 1 && step->dilation_w == 1 &&
           step->pad_value == 0 && in->channels % 8u == 0 && in->channels <= 8u * MOST && in->width >= 3;
}

static bd_status dw(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                    uint32_t y0, uint32_t rows, uint32_t is_trits) {
    const bd_taps inner = bd_inner_columns(step, in, out);
    const uint32_t dense = step->stride_w == 1 && (in->channels == 32u || in->channels == 64u);
    const uint32_t count = in->channels / 8u; /* bytes */
    row_of r;
    r.channels = in->channels;
    r.each = 4u * bd_words(in->channels);
    r.trits = is_trits;
    for (uint32_t c = 0; c < count; c += 16u) {
        r.w = constants + step->weights + c;
        r.lanes = count - c < 16u ? count - c : 16u;
        r.there = 8; /* no weights yet */
        for (uint32_t y = y0; y < y0 + rows; y++) {
            block_row(&r, step, in, out, y, c, &inner, dense);
        }
    }
    return BD_OK;
}

static bd_status dw_bits(const bd_step *step, const uint8_t *constants, const bd_view in[],
                         const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    return is_for_rows(step, in) ? dw(step, constants, in, out, y0, rows, 0)
                                 : bd_dw_bb_i8.run(step, constants, in, out, y0, rows, scratch);
}

static bd_status dw_trits(const bd_step *step, const uint8_t *constants, const bd_view in[],
                          const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    return is_for_rows(step, in) ? dw(step, constants, in, out, y0, rows, 1)
                                 : bd_dw_tb_i8.run(step, constants, in, out, y0, rows, scratch);
}

BD_DEFINE_VARIANT(bd_dw_bb_i8, mve, dw_bits)
BD_DEFINE_VARIANT(bd_dw_tb_i8, mve, dw_trits)
