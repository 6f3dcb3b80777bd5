/* Depth-wise 3x3 convolution of bits and trits with bit weights on AArch64: 128 channels at once, in bit planes.
 *
 * Of three bits x0 x1 x2 of a column and weights w0 w1 w2, the mismatches x ^ w have the sum s + 2 c with
 *     s = x012 ^ w012,  c = ((x01 ^ w01) | (x02 ^ w02)) ^ s
 * where x01 = x0 ^ x1 and so on. These forms of a column are made once and serve three pixels, as those of the weights serve
 * the row: a full adder of three products costs five instructions. Rows and columns outside of the map are left out.
 *
 * A count in four planes becomes bytes by two rounds of exchanged bits; channel 8 i + q of byte i of the planes then lies
 * in byte i of vector q, and one round of zips with st4 puts channels in order.
 *
 * For strides of 1 to the right, one column of padding with zeros on either side, and channels in multiples of 128; anything
 * else is the plain kernel's. */
#include <arm_neon.h>

#include "bd_bits.h"
#include "bd_kernels.h"

/* The compiler knows nothing about this value. */
#define HIDE(value) __asm__("" : "+w"(value))

typedef uint8x16_t bytes;

/* Bits of a where mask is 1, else of b. Written as vbslq_u8, it becomes two ands and an or where the compiler knows too much
 * of the mask, or moves its complement out of the loop. */
BD_INLINE bytes select(bytes mask, bytes a, bytes b) {
    __asm__("bit %0.16b, %1.16b, %2.16b" : "+w"(b) : "w"(a), "w"(mask));
    return b;
}

/* Bits of a column of three rows: x0 ^ x1, x0 ^ x2, x0 ^ x1 ^ x2; of two rows: x0, x1. */
typedef struct column {
    bytes u, v, s;
} column;

/* s + 2 c */
typedef struct pair {
    bytes s, c;
} pair;

BD_INLINE column load_column(const uint8_t *const rows[3], size_t at, uint32_t height) {
    const bytes x0 = vld1q_u8(rows[0] + at), x1 = vld1q_u8(rows[1] + at);
    column f = {x0, x1, x1};
    if (height == 3u) {
        const bytes x2 = vld1q_u8(rows[2] + at);
        f.u = veorq_u8(x0, x1);
        f.v = veorq_u8(x0, x2);
        f.s = veorq_u8(f.u, x2);
    }
    return f;
}

BD_INLINE pair count_column(const column *x, const column *w, uint32_t height) {
    const bytes u = veorq_u8(x->u, w->u), v = veorq_u8(x->v, w->v);
    pair sum;
    if (height == 3u) {
        sum.s = veorq_u8(x->s, w->s);
        sum.c = veorq_u8(vorrq_u8(u, v), sum.s);
    } else {
        sum.s = veorq_u8(u, v);
        sum.c = vandq_u8(u, v);
    }
    return sum;
}

BD_INLINE pair add3(bytes a, bytes b, bytes c) {
    const bytes differ = veorq_u8(a, b);
    const pair sum = {veorq_u8(differ, c), select(differ, c, a)};
    return sum;
}

BD_INLINE pair add2(bytes a, bytes b) {
    const pair sum = {veorq_u8(a, b), vandq_u8(a, b)};
    return sum;
}

/* Mismatches of two or three columns: ones, two numbers of twos, and fours. */
typedef struct sums {
    bytes one, two, also_two, four;
} sums;

BD_INLINE sums add_columns(const pair c[3], uint32_t columns) {
    const pair s = columns == 3u ? add3(c[0].s, c[1].s, c[2].s) : add2(c[0].s, c[1].s);
    const pair t = columns == 3u ? add3(c[0].c, c[1].c, c[2].c) : add2(c[0].c, c[1].c);
    const sums r = {s.s, s.c, t.s, t.c};
    return r;
}

/* Planes of weights that a table knows; their sum is n. They need not be the binary digits of it. */
typedef struct planes {
    bytes p[5];
} planes;

/* 1 2 2 4: n up to 9. */
BD_INLINE planes count_bits(const sums *a) {
    const planes n = {{a->one, a->two, a->also_two, a->four, a->four}};
    return n;
}

/* 1 2 4 4 8: n up to 18. */
BD_INLINE planes count_trits(const sums *a, const sums *b) {
    const pair one = add2(a->one, b->one);
    const pair two = add3(a->two, b->two, one.c), more = add3(two.s, a->also_two, b->also_two);
    const pair four = add3(a->four, b->four, two.c);
    const planes n = {{one.s, more.s, four.s, more.c, four.c}};
    return n;
}

/* What the planes are worth: taps - 2 n of bits, taps - n of trits; by their bits in ascending order. */
BD_INLINE uint8x16x2_t table_of(uint32_t taps, uint32_t trits) {
    static const uint8_t bits[16] = {0, 2, 4, 6, 4, 6, 8, 10, 8, 10, 12, 14, 12, 14, 16, 18};
    static const uint8_t levels[16] = {0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7, 8, 9, 10, 11};
    const bytes all = vdupq_n_u8((uint8_t)taps), low = vsubq_u8(all, vld1q_u8(trits ? levels : bits));
    const uint8x16x2_t table = {{low, vsubq_u8(low, vdupq_n_u8(8))}};
    return table;
}

/* 64 channels from the lower or upper halves of vectors with channel 8 i + q in byte i of e[q]. */
BD_INLINE void store_interleaved(int8_t *to, const bytes e[8]) {
    uint8x16x4_t low, high;
    for (uint32_t j = 0; j < 4; j++) {
        low.val[j] = vzip1q_u8(e[j], e[j + 4u]);
        high.val[j] = vzip2q_u8(e[j], e[j + 4u]);
    }
    vst4q_u8((uint8_t *)to, low);
    vst4q_u8((uint8_t *)to + 64, high);
}

/* Constants that stay in registers. */
typedef struct constants {
    bytes ones, twos, nibble, sixteen;
} constants_of;

/* Values of 128 channels. */
BD_INLINE void expand(int8_t *to, const planes *n, uint32_t trits, const constants_of *k,
                      const uint8x16x2_t *table) {
    const bytes ones = k->ones, twos = k->twos, nibble = k->nibble, sixteen = k->sixteen;
    const bytes a = n->p[0], b = n->p[1], c = n->p[2], d = n->p[3];
    const bytes e0 = select(ones, a, vshlq_n_u8(b, 1)), e1 = select(ones, vshrq_n_u8(a, 1), b);
    const bytes f0 = select(ones, c, vshlq_n_u8(d, 1)), f1 = select(ones, vshrq_n_u8(c, 1), d);
    const bytes g[4] = {
        select(twos, e0, vshlq_n_u8(f0, 2)),
        select(twos, e1, vshlq_n_u8(f1, 2)),
        select(twos, vshrq_n_u8(e0, 2), f0),
        select(twos, vshrq_n_u8(e1, 2), f1),
    };
    bytes v[8];
    for (uint32_t j = 0; j < 4; j++) {
        v[j] = vandq_u8(g[j], nibble);
        v[j + 4u] = vshrq_n_u8(g[j], 4);
    }
    if (trits) {
        const bytes e = n->p[4];
        v[0] = select(sixteen, vshlq_n_u8(e, 4), v[0]);
        v[1] = select(sixteen, vshlq_n_u8(e, 3), v[1]);
        v[2] = select(sixteen, vshlq_n_u8(e, 2), v[2]);
        v[3] = select(sixteen, vshlq_n_u8(e, 1), v[3]);
        v[4] = select(sixteen, e, v[4]);
        v[5] = select(sixteen, vshrq_n_u8(e, 1), v[5]);
        v[6] = select(sixteen, vshrq_n_u8(e, 2), v[6]);
        v[7] = select(sixteen, vshrq_n_u8(e, 3), v[7]);
        for (uint32_t q = 0; q < 8; q++) {
            v[q] = vqtbl2q_u8(*table, v[q]);
        }
    } else {
        for (uint32_t q = 0; q < 8; q++) {
            v[q] = vqtbl1q_u8(table->val[0], v[q]);
        }
    }
    store_interleaved(to, v);
}

/* A row of one block of 128 channels. */
typedef struct row_of {
    const uint8_t *x[3];            /* rows of the window inside of the map */
    const uint8_t *w[3];            /* their weights' first tap */
    size_t plane;                   /* bytes from a trit's plane to its other one */
    uint32_t width, pixel, outputs; /* bytes of a pixel, and channels */
    uint32_t count; /* rows with the same rows of the window, and bytes from one to the next */
    size_t x_down, to_down;
    int8_t *to;
} row_of;

BD_INLINE void pixel(int8_t *to, const column *x[3], const column *z[3], const column w[3], uint32_t first,
                     uint32_t columns, uint32_t height, uint32_t trits, const constants_of *k,
                     const uint8x16x2_t *table) {
    pair c[3];
    sums a, b;
    planes n;
    for (uint32_t i = 0; i < columns; i++) {
        c[i] = count_column(x[first + i], &w[first + i], height);
    }
    a = add_columns(c, columns);
    if (trits) {
        for (uint32_t i = 0; i < columns; i++) {
            c[i] = count_column(z[first + i], &w[first + i], height);
        }
        b = add_columns(c, columns);
        n = count_trits(&a, &b);
    } else {
        n = count_bits(&a);
    }
    expand(to, &n, trits, k, table);
}

#define PIXEL(l, m, r, first, columns, table)                                                                \
    do {                                                                                                     \
        const column *xs[3] = {&x[l], &x[m], &x[r]}, *zs[3] = {&z[l], &z[m], &z[r]};                         \
        pixel(to, xs, zs, w, first, columns, height, trits, &k, &table);                                     \
        to += outputs;                                                                                       \
    } while (0)

#define NEXT(r)                                                                                              \
    do {                                                                                                     \
        x[r] = load_column(rows, at, height);                                                                \
        z[r] = trits ? load_column(other, at, height) : x[r];                                                \
        at += each;                                                                                          \
    } while (0)

BD_INLINE void row(const row_of *o, uint32_t height, uint32_t trits) {
    const uint8_t *rows[3] = {o->x[0], o->x[1], o->x[2]};
    const uint8_t *other[3] = {rows[0] + o->plane, rows[1] + o->plane, rows[2] + o->plane};
    const uint32_t each = o->pixel, outputs = o->outputs;
    const uint8x16x2_t inner = table_of(3u * height, trits), outer = table_of(2u * height, trits);
    constants_of k = {vdupq_n_u8(0x55), vdupq_n_u8(0x33), vdupq_n_u8(15), vdupq_n_u8(16)};
    const uint32_t width = o->width, count = o->count;
    column x[3], z[3], w[3];
    HIDE(k.ones);
    HIDE(k.twos);
    HIDE(k.nibble);
    for (uint32_t kx = 0; kx < 3u; kx++) {
        w[kx] = load_column(o->w, (size_t)kx * o->pixel, height);
    }
    for (uint32_t y = 0; y < count; y++) {
        int8_t *to = o->to + y * o->to_down;
        size_t at = 0;
        NEXT(1);
        NEXT(2);
        PIXEL(0, 1, 2, 1, 2, outer);
        uint32_t left = width - 2u;
        for (; left >= 3u; left -= 3u) {
            NEXT(0);
            PIXEL(1, 2, 0, 0, 3, inner);
            NEXT(1);
            PIXEL(2, 0, 1, 0, 3, inner);
            NEXT(2);
            PIXEL(0, 1, 2, 0, 3, inner);
        }
        for (; left != 0; left--) {
            NEXT(0);
            PIXEL(1, 2, 0, 0, 3, inner);
            x[1] = x[2];
            x[2] = x[0];
            z[1] = z[2];
            z[2] = z[0];
        }
        PIXEL(1, 2, 0, 0, 2, outer);
        for (uint32_t i = 0; i < 3u; i++) {
            rows[i] += o->x_down;
            other[i] += o->x_down;
        }
    }
}

static BD_APART void row_bits_3(const row_of *o) {
    row(o, 3, 0);
}

static BD_APART void row_bits_2(const row_of *o) {
    row(o, 2, 0);
}

static BD_APART void row_trits_3(const row_of *o) {
    row(o, 3, 1);
}

static BD_APART void row_trits_2(const row_of *o) {
    row(o, 2, 1);
}

static int is_for_rows(const bd_step *step, const bd_view *in, const bd_view *out) {
    return step->kernel_h == 3 && step->kernel_w == 3 && step->stride_w == 1 && step->dilation_h == 1 &&
           step->dilation_w == 1 && step->pad_left == 1 && step->pad_top <= 1 && step->pad_value == 0 &&
           in->channels % 128u == 0 && in->width >= 2 && out->width == in->width && in->height >= 2 &&
           (uint32_t)(out->height - 1) * step->stride_h + 2u <= (uint32_t)in->height + step->pad_top;
}

static int is_whole(const bd_view *view) {
    return view->rows_held == view->height;
}

/* Rows from y on, before `end`, of which no window leaves the map. */
static uint32_t inner_rows(const bd_step *step, const bd_view *in, uint32_t y, uint32_t end) {
    uint32_t n = 1;
    while (y + n < end && (y + n) * step->stride_h + 3u <= (uint32_t)in->height + step->pad_top) {
        n++;
    }
    return n;
}

BD_INLINE bd_status dw(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                       uint32_t y0, uint32_t rows, uint32_t trits) {
    const uint32_t bytes_each = in->channels / 8u;
    uint32_t count = 1;
    for (uint32_t y = y0; y < y0 + rows; y += count) {
        const int32_t top = (int32_t)(y * step->stride_h) - step->pad_top;
        const uint32_t first = top<0 ? 1u : 0u, end = top + 3>(int32_t) in->height ? 2u : 3u;
        row_of o;
        for (uint32_t ky = first, i = 0; i < 3u; i++, ky += ky + 1u < end ? 1u : 0u) {
            o.x[i] = bd_row(in, (uint32_t)(top + (int32_t)ky));
            o.w[i] = constants + step->weights + 3u * ky * (size_t)bytes_each;
        }
        o.plane = (size_t)in->width * bytes_each;
        o.width = in->width;
        o.pixel = bytes_each;
        o.outputs = out->channels;
        o.to = (void *)bd_row(out, y);
        count = end - first == 3u && is_whole(in) && is_whole(out) ? inner_rows(step, in, y, y0 + rows) : 1u;
        o.count = count;
        o.x_down = (size_t)step->stride_h * in->row_stride;
        o.to_down = out->row_stride;
        for (uint32_t c = 0; c < in->channels; c += 128u) {
            if (end - first == 3u) {
                (trits ? row_trits_3 : row_bits_3)(&o);
            } else {
                (trits ? row_trits_2 : row_bits_2)(&o);
            }
            for (uint32_t i = 0; i < 3u; i++) {
                o.x[i] += 16;
                o.w[i] += 16;
            }
            o.to += 128;
        }
    }
    return BD_OK;
}

static bd_status dw_bits(const bd_step *step, const uint8_t *constants, const bd_view in[],
                         const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    return is_for_rows(step, in, out) ? dw(step, constants, in, out, y0, rows, 0)
                                      : bd_dw_bb_i8.run(step, constants, in, out, y0, rows, scratch);
}

static bd_status dw_trits(const bd_step *step, const uint8_t *constants, const bd_view in[],
                          const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    return is_for_rows(step, in, out) ? dw(step, constants, in, out, y0, rows, 1)
                                      : bd_dw_tb_i8.run(step, constants, in, out, y0, rows, scratch);
}

BD_DEFINE_VARIANT(bd_dw_bb_i8, neon64, dw_bits)
BD_DEFINE_VARIANT(bd_dw_tb_i8, neon64, dw_trits)
