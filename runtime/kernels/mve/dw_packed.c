/* Depth-wise 3x3 of bits and trits on Armv8.1-M vectors: 128 channels at once, bit-sliced as in generic/dw_packed.c.
 *
 * A padded tap of value 0 must count nothing: its x is read where its weights lie, so that they never differ. Lane i of a plane
 * holds channels 8 i .. 8 i + 7, and bit q of all lanes becomes 16 accumulators, which one scattering store brings into the
 * natural order. Pixels of 32 or 64 channels lie side by side in a vector, with the weights repeated. */
#include "bd_kernels.h"
#include "bd_mve.h"

/* Blocks of up to 16 bytes of channels, one after the other. */
typedef struct span {
    const uint8_t *x[3];      /* of the upper left tap, per row of the window */
    uint32_t down[3], column; /* bytes from block to block in these rows; from tap to tap */
    uint32_t plane[3];        /* bytes to the other plane of trits */
    const uint8_t *w[3];      /* weights, per row of the window */
    uint32_t w_column;        /* bytes from tap to tap */
    int8_t *to;               /* the first block's accumulators */
    uint32_t to_step;         /* bytes from block to block */
    uint32_t count, lanes;    /* blocks; bytes of channels in each */
    int32_t taps;             /* inside of the map */
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

BD_INLINE sums add(bytes a, bytes b, bytes c) {
    const bytes t = veorq_u8(a, b);
    const sums r = {veorq_u8(t, c), veorq_u8(a, vandq_u8(t, veorq_u8(a, c)))};
    return r;
}

/* Where x and w differ, over one column of the window. */
BD_INLINE sums column_of(const uint8_t *const x[3], const uint8_t *const w[3], uint32_t at, uint32_t w_at,
                         mve_pred16_t some, uint32_t whole) {
    bytes d[3];
#pragma GCC unroll 3
    for (uint32_t i = 0; i < 3u; i++) {
        d[i] = veorq_u8(load(x[i] + at, some, whole), load(w[i] + w_at, some, whole));
    }
    return add(d[0], d[1], d[2]);
}

/* The count of nine. */
BD_INLINE planes nine(const uint8_t *const x[3], const span *o, mve_pred16_t some, uint32_t whole) {
    const sums a = column_of(x, o->w, 0, 0, some, whole),
               b = column_of(x, o->w, o->column, o->w_column, some, whole),
               c = column_of(x, o->w, 2u * o->column, 2u * o->w_column, some, whole);
    const sums ones = add(a.s, b.s, c.s), twos = add(a.c, b.c, c.c);
    const bytes carry = vandq_u8(twos.s, ones.c);
    const planes n = {{ones.s, veorq_u8(twos.s, ones.c), veorq_u8(twos.c, carry), vandq_u8(twos.c, carry)}};
    return n;
}

/* Exchanges the upper bits of pairs of fields in a with the lower ones in b. */
#define SWAP(a, b, shift, mask)                                                                              \
    do {                                                                                                     \
        const bytes t_ = vandq_u8(veorq_u8(vshrq_n_u8(a, shift), b), vdupq_n_u8(mask));                      \
        b = veorq_u8(b, t_);                                                                                 \
        a = veorq_u8(a, vshlq_n_u8(t_, shift));                                                              \
    } while (0)

/* Byte j of the result: counts of bits j and j + 4. */
BD_INLINE planes nibbles(planes n) {
    SWAP(n.p[0], n.p[1], 1, 0x55);
    SWAP(n.p[2], n.p[3], 1, 0x55);
    SWAP(n.p[0], n.p[2], 2, 0x33);
    SWAP(n.p[1], n.p[3], 2, 0x33);
    return n;
}

BD_INLINE void scatter(int8_t *to, bytes places, bytes v, mve_pred16_t some, uint32_t whole) {
    if (whole) {
        vstrbq_scatter_offset_s8(to, places, vreinterpretq_s8_u8(v));
    } else {
        vstrbq_scatter_offset_p_s8(to, places, vreinterpretq_s8_u8(v), some);
    }
}

BD_INLINE void row(const span *o, uint32_t trits, uint32_t whole) {
    const bytes places = vshlq_n_u8(vidupq_n_u8(0, 1), 3);
    const mve_pred16_t some = vctp8q(o->lanes);
    const uint8_t *x[3] = {o->x[0], o->x[1], o->x[2]};
    const uint8_t taps = (uint8_t)o->taps;
    int8_t *to = o->to;
    for (uint32_t left = o->count; left != 0; left--, to += o->to_step) {
        planes n = nibbles(nine(x, o, some, whole)), m = n;
        if (trits) {
            const uint8_t *const z[3] = {x[0] + o->plane[0], x[1] + o->plane[1], x[2] + o->plane[2]};
            m = nibbles(nine(z, o, some, whole));
        }
#pragma GCC unroll 4
        for (uint32_t j = 0; j < 4u; j++) {
            static const uint8_t place[4] = {0, 1, 2, 3};
            bytes low = vandq_u8(n.p[j], vdupq_n_u8(15)), high = vshrq_n_u8(n.p[j], 4);
            if (trits) {
                low = vaddq_u8(low, vandq_u8(m.p[j], vdupq_n_u8(15)));
                high = vaddq_u8(high, vshrq_n_u8(m.p[j], 4));
            }
            low = vmlasq_n_u8(low, vdupq_n_u8(trits ? 0xff : 0xfe), taps);
            high = vmlasq_n_u8(high, vdupq_n_u8(trits ? 0xff : 0xfe), taps);
            scatter(to + place[j], places, low, some, whole);
            scatter(to + place[j] + 4, places, high, some, whole);
        }
        for (uint32_t i = 0; i < 3u; i++) {
            x[i] += o->down[i];
        }
    }
}

static BD_APART void bits(const span *o) {
    row(o, 0, 1);
}

static BD_APART void some_bits(const span *o) {
    row(o, 0, 0);
}

static BD_APART void trits(const span *o) {
    row(o, 1, 1);
}

static BD_APART void some_trits(const span *o) {
    row(o, 1, 0);
}

/* A row of the output: rows of the input, and where they are missing NULL. */
typedef struct row_of {
    const uint8_t *x[3];
    const uint8_t *w; /* [kh][kw][each] */
    int8_t *to;
    uint32_t channels, each, plane; /* bytes of a pixel, and to the other plane of trits, or 0 */
    uint32_t step, rows;            /* bytes from pixel to pixel of the output; rows that are there */
} row_of;

static BD_APART void run(const span *o, uint32_t other) {
    if (o->count == 0) {
        return;
    }
    if (o->lanes == 16u) {
        (other != 0 ? trits : bits)(o);
    } else {
        (other != 0 ? some_trits : some_bits)(o);
    }
}

/* `count` pixels whose columns are all there, the first of which begins `at` bytes from the start of the rows. */
static BD_APART void inner_pixels(const row_of *r, uint32_t at, int8_t *to, uint32_t count) {
    span o;
    o.count = count;
    o.column = o.w_column = r->each;
    o.to_step = r->channels;
    o.taps = (int32_t)(3u * r->rows);
    for (uint32_t c = 0; c < r->channels; c += 128u) {
        const uint32_t left = (r->channels - c) / 8u;
        o.lanes = left < 16u ? left : 16u;
        o.to = to + c;
        for (uint32_t i = 0; i < 3u; i++) {
            const uint8_t *const x = r->x[i];
            o.w[i] = r->w + 3u * i * r->each + c / 8u;
            o.x[i] = x != NULL ? x + at + c / 8u : o.w[i];
            o.plane[i] = x != NULL ? r->plane : 0u;
            o.down[i] = x != NULL ? r->step : 0u;
        }
        run(&o, r->plane);
    }
}

/* The same of 32 or 64 channels without a stride. */
static BD_APART void dense_pixels(const row_of *r, uint32_t at, int8_t *to, uint32_t count) {
    static const uint8_t zeros[48] = {0};
    uint32_t w[3][3][4];
    span o;
    for (uint32_t tap = 0; tap < 9u; tap++) {
        const uint32_t *const from = (const void *)(r->w + tap * r->each);
        const uint32_t first = r->x[tap / 3u] != NULL ? from[0] : 0u;
        const uint32_t second = r->x[tap / 3u] != NULL ? from[r->each / 4u - 1u] : 0u;
        for (uint32_t i = 0; i < 4u; i++) {
            w[tap / 3u][tap % 3u][i] = i % 2u == 0 ? first : second;
        }
    }
    for (uint32_t i = 0; i < 3u; i++) {
        const uint8_t *const x = r->x[i];
        o.x[i] = x != NULL ? x + at : zeros;
        o.w[i] = (const void *)w[i][0];
        o.plane[i] = x != NULL ? r->plane : 0u;
        o.down[i] = x != NULL ? 16u : 0u;
    }
    o.column = r->each;
    o.w_column = 16;
    o.to = to;
    o.to_step = 128;
    o.taps = (int32_t)(3u * r->rows);
    o.count = count * r->each / 16u;
    o.lanes = 16;
    run(&o, r->plane);
    for (uint32_t i = 0; i < 3u; i++) {
        o.x[i] += o.count * o.down[i];
    }
    o.to += 128u * o.count;
    o.lanes = count * r->each % 16u;
    o.count = o.lanes != 0;
    run(&o, r->plane);
}

/* A pixel of which columns are missing: tap (0, 0) lies at column x of the input. */
static BD_APART void outer_pixel(const row_of *r, int32_t x, int32_t width, int8_t *to) {
    uint8_t copy[2][3][3][16];
    span o;
    o.count = 1;
    o.column = 16;
    o.w_column = r->each;
    o.to_step = 0;
    o.taps = 0;
    for (uint32_t kx = 0; kx < 3u; kx++) {
        const int32_t from = x + (int32_t)kx;
        o.taps += from >= 0 && from < width ? (int32_t)r->rows : 0;
    }
    for (uint32_t c = 0; c < r->channels; c += 128u) {
        const uint32_t left = (r->channels - c) / 8u;
        o.lanes = left < 16u ? left : 16u;
        o.to = to + c;
        for (uint32_t i = 0; i < 3u; i++) {
            o.w[i] = r->w + 3u * i * r->each + c / 8u;
            for (uint32_t kx = 0; kx < 3u; kx++) {
                const int32_t from = x + (int32_t)kx;
                const int there = r->x[i] != NULL && from >= 0 && from < width;
                const uint8_t *a =
                    there ? r->x[i] + (uint32_t)from * r->each + c / 8u : o.w[i] + kx * r->each;
                vst1q_u8(copy[0][i][kx], bd_bytes_at(a, o.lanes));
                vst1q_u8(copy[1][i][kx], bd_bytes_at(there ? a + r->plane : a, o.lanes));
            }
            o.x[i] = copy[0][i][0];
            o.plane[i] = sizeof(copy[0]);
            o.down[i] = 0;
        }
        run(&o, r->plane);
    }
}

static int is_for_rows(const bd_step *step, const bd_view *in) {
    return step->kernel_h == 3 && step->kernel_w == 3 && step->dilation_h == 1 && step->dilation_w == 1 &&
           step->pad_value == 0 && in->channels % 8u == 0;
}

static bd_status dw(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                    uint32_t y0, uint32_t rows, uint32_t is_trits) {
    const bd_taps inner = bd_inner_columns(step, in, out);
    row_of r;
    r.w = constants + step->weights;
    r.channels = in->channels;
    r.each = 4u * bd_words(in->channels);
    r.plane = is_trits ? (uint32_t)in->width * r.each : 0u;
    r.step = step->stride_w * r.each;
    const int dense = step->stride_w == 1 && (in->channels == 32u || in->channels == 64u);
    for (uint32_t y = y0; y < y0 + rows; y++) {
        int8_t *to = (void *)bd_row(out, y);
        r.rows = 0;
        for (uint32_t ky = 0; ky < 3u; ky++) {
            const int32_t from = (int32_t)(y * step->stride_h + ky) - step->pad_top;
            const int there = from >= 0 && from < in->height;
            r.x[ky] = there ? bd_row(in, (uint32_t)from) : NULL;
            r.rows += there ? 1u : 0u;
        }
        for (uint32_t x = 0; x < out->width;) {
            const int32_t left = (int32_t)(x * step->stride_w) - step->pad_left;
            if (x < inner.first || x >= inner.end) {
                outer_pixel(&r, left, in->width, to + x * r.channels);
                x++;
                continue;
            }
            (dense ? dense_pixels : inner_pixels)(&r, (uint32_t)left * r.each, to + x * r.channels,
                                                  inner.end - x);
            x = inner.end;
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
