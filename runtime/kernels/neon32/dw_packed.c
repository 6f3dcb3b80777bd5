/* Depth-wise 3x3 convolution of bits and trits with bit weights on 32-bit Arm with NEON: 128 channels at once, in bit planes.
 *
 * Of three bits x0 x1 x2 of a column and weights w0 w1 w2, the mismatches x ^ w have the sum s + 2 c with
 *     s = x012 ^ w012,  c = ((x01 ^ w01) | (x02 ^ w02)) ^ s
 * where x01 = x0 ^ x1 and so on. A column is read once and counted with the weights of all three of its places: it ends the
 * pixel to its left, is the middle of its own and begins the one to its right. So only two unfinished pixels stay in
 * registers, in six vectors; the forms of three columns would take nine. Columns outside of the map count nothing.
 *
 * Planes become bytes by two rounds of exchanged bits; channel 8 i + q of byte i of the planes then lies in byte i of
 * vector q, and one round of zips with vst4 puts channels in order.
 *
 * Of fewer than 128 channels, the upper half of a vector is the other plane of trits. For channels in multiples of 32 and
 * padding with zeros of one pixel at most; anything else is the plain kernel's. With a stride to the right all pixels are
 * counted, and some expanded. */
#include "bd_bits.h"
#include "bd_kernels.h"
#include "neon32.h"

/* The compiler knows nothing about what lies there. */
#define HIDE(pointer) __asm__ volatile("" : "+r"(pointer) : : "memory")

typedef uint8x16_t bytes;

/* Bits of a where mask is 1, else of b. Written as vbslq_u8, it becomes two ands and an or where the compiler knows too much
 * of the mask. */
BD_INLINE bytes select(bytes mask, bytes a, bytes b) {
    __asm__("vbit %q0, %q1, %q2" : "+w"(b) : "w"(a), "w"(mask));
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

/* Two numbers: a, and a ^ b. */
typedef struct both {
    bytes a, differ;
} both;

/* Mismatches of a pixel's first column, of its first two, and of all: ones, two numbers of twos, and fours. */
typedef struct open {
    pair first;
    both s, c;
} open;

typedef struct sums {
    bytes one, two, also_two, four;
} sums;

/* `channels` bits; of fewer than 128, those at b in the upper half. */
BD_INLINE bytes load(const uint8_t *a, const uint8_t *b, uint32_t channels) {
    if (channels == 128u) {
        return vld1q_u8(a);
    }
    if (channels == 64u) {
        return vcombine_u8(vld1_u8(a), vld1_u8(b));
    }
    return vcombine_u8(vreinterpret_u8_u32(vld1_dup_u32((const void *)a)),
                       vreinterpret_u8_u32(vld1_dup_u32((const void *)b)));
}

BD_INLINE column load_column(const uint8_t *const rows[3], size_t at, size_t plane, uint32_t height,
                             uint32_t channels) {
    const bytes x0 = load(rows[0] + at, rows[0] + at + plane, channels);
    const bytes x1 = load(rows[1] + at, rows[1] + at + plane, channels);
    column f = {x0, x1, x1};
    if (height == 3u) {
        const bytes x2 = load(rows[2] + at, rows[2] + at + plane, channels);
        f.u = veorq_u8(x0, x1);
        f.v = veorq_u8(x0, x2);
        f.s = veorq_u8(f.u, x2);
    }
    return f;
}

/* Mismatches with the weights of one place, three or two vectors in a row; w moves on. */
BD_INLINE pair count_column(const column *x, const uint8_t **w, uint32_t height) {
    const uint8x16x2_t uv = vld1q_u8_x2(*w);
    const bytes u = veorq_u8(x->u, uv.val[0]), v = veorq_u8(x->v, uv.val[1]);
    pair sum;
    *w += 32;
    if (height == 3u) {
        sum.s = veorq_u8(x->s, vld1q_u8(*w));
        sum.c = veorq_u8(vorrq_u8(u, v), sum.s);
        *w += 16;
    } else {
        sum.s = veorq_u8(u, v);
        sum.c = vandq_u8(u, v);
    }
    return sum;
}

BD_INLINE pair add3(both ab, bytes c) {
    const pair sum = {veorq_u8(ab.differ, c), select(ab.differ, c, ab.a)};
    return sum;
}

BD_INLINE both both_of(bytes a, bytes b) {
    const both ab = {a, veorq_u8(a, b)};
    return ab;
}

BD_INLINE pair add2(bytes a, bytes b) {
    const pair sum = {veorq_u8(a, b), vandq_u8(a, b)};
    return sum;
}

/* The pixel to the left of the column, which ends there; with no column to its right. */
BD_INLINE sums end(const open *o, pair last) {
    const pair s = add3(o->s, last.s), c = add3(o->c, last.c);
    const sums r = {s.s, s.c, c.s, c.c};
    return r;
}

/* Planes of weights that the next stage knows; their sum is n. */
typedef struct planes {
    bytes p[5];
} planes;

/* 1 2 2 4: n up to 9. */
BD_INLINE planes count_bits(const sums *a) {
    const planes n = {{a->one, a->two, a->also_two, a->four, a->four}};
    return n;
}

/* 1 2 4 8 16: n up to 18. */
BD_INLINE planes count_trits(const sums *a, const sums *b) {
    const pair one = add2(a->one, b->one);
    const pair two = add3(both_of(a->two, b->two), one.c);
    const pair more = add3(both_of(two.s, a->also_two), b->also_two);
    const pair four = add3(both_of(a->four, b->four), two.c);
    const pair fours = add2(four.s, more.c), eight = add2(four.c, fours.c);
    const planes n = {{one.s, more.s, fours.s, eight.s, eight.c}};
    return n;
}

/* 2 n, by the bits of planes of weights 1 2 2 4. */
static const uint8_t twice[16] = {0, 2, 4, 6, 4, 6, 8, 10, 8, 10, 12, 14, 12, 14, 16, 18};

BD_INLINE bytes look_up(uint8x8x2_t table, bytes at) {
    return vcombine_u8(vtbl2_u8(table, vget_low_u8(at)), vtbl2_u8(table, vget_high_u8(at)));
}

/* Values of the channels. */
BD_INLINE void expand(int8_t *to, const planes *n, uint32_t taps, uint32_t trits, uint32_t channels) {
    const bytes ones = vdupq_n_u8(0x55), twos = vdupq_n_u8(0x33);
    const bytes a = n->p[0], b = n->p[1], c = n->p[2], d = n->p[3];
    const bytes e0 = select(ones, a, vshlq_n_u8(b, 1)), e1 = select(ones, vshrq_n_u8(a, 1), b);
    const bytes f0 = select(ones, c, vshlq_n_u8(d, 1)), f1 = select(ones, vshrq_n_u8(c, 1), d);
    bytes g[4] = {
        select(twos, e0, vshlq_n_u8(f0, 2)),
        select(twos, e1, vshlq_n_u8(f1, 2)),
        select(twos, vshrq_n_u8(e0, 2), f0),
        select(twos, vshrq_n_u8(e1, 2), f1),
    };
    bytes v[8];
    const bytes nibble = vdupq_n_u8(15);
    UNROLLED
    for (uint32_t j = 0; j < 4u; j++) {
        IN_ORDER(g[j]);
    }
    UNROLLED
    for (uint32_t j = 0; j < 4u; j++) {
        v[j] = vandq_u8(g[j], nibble);
        v[j + 4u] = vshrq_n_u8(g[j], 4);
        IN_ORDER(v[j]);
        IN_ORDER(v[j + 4u]);
    }
    if (trits) {
        const bytes e = n->p[4], sixteen = vdupq_n_u8(16), all = vdupq_n_u8((uint8_t)taps);
        v[0] = vsubq_u8(all, select(sixteen, vshlq_n_u8(e, 4), v[0]));
        v[1] = vsubq_u8(all, select(sixteen, vshlq_n_u8(e, 3), v[1]));
        v[2] = vsubq_u8(all, select(sixteen, vshlq_n_u8(e, 2), v[2]));
        v[3] = vsubq_u8(all, select(sixteen, vshlq_n_u8(e, 1), v[3]));
        v[4] = vsubq_u8(all, select(sixteen, e, v[4]));
        v[5] = vsubq_u8(all, select(sixteen, vshrq_n_u8(e, 1), v[5]));
        v[6] = vsubq_u8(all, select(sixteen, vshrq_n_u8(e, 2), v[6]));
        v[7] = vsubq_u8(all, select(sixteen, vshrq_n_u8(e, 3), v[7]));
    } else {
        const bytes row = vsubq_u8(vdupq_n_u8((uint8_t)taps), vld1q_u8(twice));
        const uint8x8x2_t table = {{vget_low_u8(row), vget_high_u8(row)}};
        UNROLLED
        for (uint32_t q = 0; q < 8u; q++) {
            v[q] = look_up(table, v[q]);
            IN_ORDER(v[q]);
        }
    }
    uint8x16x4_t low, high;
    UNROLLED
    for (uint32_t j = 0; j < 4u; j++) {
        const uint8x16x2_t z = vzipq_u8(v[j], v[j + 4u]);
        low.val[j] = z.val[0];
        high.val[j] = z.val[1];
    }
    if (channels == 32u) {
        const uint8x8x4_t first = {{vget_low_u8(low.val[0]), vget_low_u8(low.val[1]), vget_low_u8(low.val[2]),
                                    vget_low_u8(low.val[3])}};
        vst4_u8((uint8_t *)to, first);
        return;
    }
    vst4q_u8((uint8_t *)to, low);
    if (channels == 128u) {
        vst4q_u8((uint8_t *)to + 64, high);
    }
}

/* A row of one block of channels. */
typedef struct row_of {
    const uint8_t *x[3];            /* rows of the window inside of the map */
    const uint8_t *w[3];            /* their weights' first tap */
    size_t plane;                   /* bytes from a trit's plane to its other one */
    uint32_t width, pixel, outputs; /* bytes of a pixel, and channels */
    uint32_t first, stride, pixels; /* the middle column of the first output; outputs of a row */
    uint32_t count; /* rows with the same rows of the window, and bytes from one to the next */
    size_t x_down, to_down;
    int8_t *to;
} row_of;

/* Counts a column with the weights of its three places; what it ends is returned. */
BD_INLINE sums next_column(open *o, column x, const uint8_t *w, uint32_t height) {
    HIDE(w);
    sums done = end(o, count_column(&x, &w, height));
    IN_ORDER(done.one);
    IN_ORDER(done.two);
    IN_ORDER(done.also_two);
    IN_ORDER(done.four);
    HIDE(w);
    const pair middle = count_column(&x, &w, height);
    o->s = both_of(o->first.s, middle.s);
    o->c = both_of(o->first.c, middle.c);
    IN_ORDER(o->s.differ);
    IN_ORDER(o->c.differ);
    HIDE(w);
    o->first = count_column(&x, &w, height);
    IN_ORDER(o->first.s);
    IN_ORDER(o->first.c);
    return done;
}

BD_INLINE bytes upper(bytes v) {
    return vcombine_u8(vget_high_u8(v), vget_high_u8(v));
}

/* b: of the second plane of 128 trits; of fewer, they are the upper half of a. */
BD_INLINE void store_pixel(int8_t *to, const sums *a, const sums *b, uint32_t taps, uint32_t trits,
                           uint32_t channels) {
    planes n;
    if (!trits) {
        n = count_bits(a);
    } else if (channels == 128u) {
        n = count_trits(a, b);
    } else {
        const sums second = {upper(a->one), upper(a->two), upper(a->also_two), upper(a->four)};
        n = count_trits(a, &second);
    }
    expand(to, &n, taps, trits, channels);
}

/* dense: every column is the middle of an output. */
BD_INLINE void row(const row_of *o, uint32_t height, uint32_t trits, uint32_t channels, int dense) {
    const uint8_t *rows[3] = {o->x[0], o->x[1], o->x[2]}, *other[3];
    const uint32_t width = o->width, each = o->pixel, outputs = o->outputs;
    const uint32_t second = trits && channels == 128u; /* a plane of its own */
    const size_t plane = trits ? o->plane : 0;
    uint8_t forms[9 * 16], *form = forms;
    const bytes zero = vdupq_n_u8(0);
    const pair none = {zero, zero};
    const open closed = {none, {zero, zero}, {zero, zero}};
    for (uint32_t kx = 3; kx-- != 0;) { /* in the order in which a column meets them */
        const column w = load_column(o->w, kx * each, 0, height, channels);
        vst1q_u8(form, w.u);
        vst1q_u8(form + 16, w.v);
        vst1q_u8(form + 32, w.s);
        form += height == 3u ? 48 : 32;
    }
    for (uint32_t y = 0; y < o->count; y++) {
        int8_t *to = o->to + y * o->to_down;
        open p = closed, q = closed;
        sums a, b;
        uint32_t at = 0, taps = 2u * height, next = o->first, left = o->pixels;
        for (uint32_t i = 0; i < 3u; i++) {
            other[i] = rows[i] + o->plane;
        }
        a = next_column(&p, load_column(rows, at, plane, height, channels), forms, height);
        b = second ? next_column(&q, load_column(other, at, 0, height, channels), forms, height) : a;
        for (uint32_t x = 1; x < width; x++) {
            at += each;
            a = next_column(&p, load_column(rows, at, plane, height, channels), forms, height);
            b = second ? next_column(&q, load_column(other, at, 0, height, channels), forms, height) : a;
            if (dense || (next == x - 1u && left != 0)) {
                store_pixel(to, &a, &b, taps, trits, channels);
                to += outputs;
                next += o->stride;
                left--;
            }
            taps = 3u * height;
        }
        if (dense || (next == width - 1u && left != 0)) {
            a = end(&p, none);
            b = second ? end(&q, none) : a;
            store_pixel(to, &a, &b, 2u * height, trits, channels);
        }
        for (uint32_t i = 0; i < 3u; i++) {
            rows[i] += o->x_down;
        }
    }
}

#define ROW(name, channels, dense)                                                                           \
    static BD_APART void bits_3_##name(const row_of *o) {                                                    \
        row(o, 3, 0, channels, dense);                                                                       \
    }                                                                                                        \
    static BD_APART void bits_2_##name(const row_of *o) {                                                    \
        row(o, 2, 0, channels, dense);                                                                       \
    }                                                                                                        \
    static BD_APART void trits_3_##name(const row_of *o) {                                                   \
        row(o, 3, 1, channels, dense);                                                                       \
    }                                                                                                        \
    static BD_APART void trits_2_##name(const row_of *o) {                                                   \
        row(o, 2, 1, channels, dense);                                                                       \
    }

ROW(dense, 128, 1)
ROW(128, 128, 0)
ROW(64, 64, 0)
ROW(32, 32, 0)

typedef void (*row_fn)(const row_of *o);

#define KINDS(name)                                                                                          \
    {                                                                                                        \
        {bits_2_##name, bits_3_##name}, {                                                                    \
            trits_2_##name, trits_3_##name                                                                   \
        }                                                                                                    \
    }

/* By channels, trits, and rows of the window. */
static row_fn const kinds[4][2][2] = {KINDS(dense), KINDS(128), KINDS(64), KINDS(32)};

/* Windows whose middle lies in the map, and no more than one tap to any side of it. */
static int is_for_rows(const bd_step *step, const bd_view *in, const bd_view *out) {
    return step->kernel_h == 3 && step->kernel_w == 3 && step->dilation_h == 1 && step->dilation_w == 1 &&
           step->pad_left <= 1 && step->pad_top <= 1 && step->pad_value == 0 && in->channels % 32u == 0 &&
           in->width >= 2 && in->height >= 2 &&
           (uint32_t)(out->width - 1) * step->stride_w + 2u <= (uint32_t)in->width + step->pad_left &&
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

static bd_status dw(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                    uint32_t y0, uint32_t rows, uint32_t trits) {
    const uint32_t bytes_each = in->channels / 8u;
    const int dense = step->stride_w == 1 && step->pad_left == 1 && out->width == in->width;
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
        o.first = 1u - step->pad_left;
        o.stride = step->stride_w;
        o.pixels = out->width;
        o.to = (void *)bd_row(out, y);
        count = end - first == 3u && is_whole(in) && is_whole(out) ? inner_rows(step, in, y, y0 + rows) : 1u;
        o.count = count;
        o.x_down = (size_t)step->stride_h * in->row_stride;
        o.to_down = out->row_stride;
        for (uint32_t left = in->channels; left != 0;) {
            const uint32_t channels = left >= 128u ? 128u : left >= 64u ? 64u : 32u;
            const uint32_t kind = channels == 128u ? (dense ? 0u : 1u) : channels == 64u ? 2u : 3u;
            kinds[kind][trits][end - first == 3u](&o);
            for (uint32_t i = 0; i < 3u; i++) {
                o.x[i] += channels / 8u;
                o.w[i] += channels / 8u;
            }
            o.to += channels;
            left -= channels;
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

BD_DEFINE_VARIANT(bd_dw_bb_i8, neon32, dw_bits)
BD_DEFINE_VARIANT(bd_dw_tb_i8, neon32, dw_trits)
