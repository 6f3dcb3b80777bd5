/* Depth-wise 3x3 convolution of bits and trits with bit weights on AArch64: the variants, and channels in multiples of 128.
 *
 * dw_planes.h says how counts are made. For one column of padding with zeros on either side, strides of 1 and 2 to the right,
 * and channels of 8, 16, 32, 64 (dw_narrow.c) or in multiples of 128; anything else is the plain kernel's.
 * Straight to packed bits (bd_dw_planes.h): channels in multiples of 128 only. */
#include "bd_dw_planes.h"
#include "bd_kernels.h"
#include "dw_narrow.h"
#include "dw_planes.h"

/* A row of one block of 128 channels. */
typedef struct row_of {
    const uint8_t *x[3];                      /* rows of the window inside of the map */
    const uint8_t *w[3];                      /* their weights' first tap */
    size_t plane;                             /* bytes from a trit's plane to its other one */
    uint32_t in_width, width, pixel, outputs; /* bytes of a pixel, and channels */
    uint32_t count; /* rows with the same rows of the window, and bytes from one to the next */
    size_t x_down, to_down;
    const uint8_t *limits
        [2]; /* packed outputs: planes of the pixels that see two columns, and of those that see three */
    int8_t *to;
} row_of;

typedef enum { VALUES, PACKED } output;

/* Constants of a row. */
typedef struct outputs_of {
    constants_of k;
    uint8x16x2_t table[2]; /* of the pixels that see two columns, and of those that see three */
    bytes limits[2][5];
} outputs_of;

BD_INLINE outputs_of prepare(const row_of *o, uint32_t height, uint32_t trits, output kind) {
    outputs_of r;
    if (kind == PACKED) {
        for (uint32_t i = 0; i < 4u + trits; i++) {
            r.limits[0][i] = vld1q_u8(o->limits[0] + (size_t)i * o->pixel);
            r.limits[1][i] = vld1q_u8(o->limits[1] + (size_t)i * o->pixel);
        }
        /* cppcheck-suppress uninitvar ; the rest is for sums */
        return r;
    }
    r.table[0] = table_of(2u * height, trits);
    r.table[1] = table_of(3u * height, trits);
    r.k.ones = vdupq_n_u8(0x55);
    r.k.twos = vdupq_n_u8(0x33);
    r.k.nibble = vdupq_n_u8(15);
    r.k.sixteen = vdupq_n_u8(16);
    HIDE(r.k.ones);
    HIDE(r.k.twos);
    HIDE(r.k.nibble);
    return r;
}

BD_INLINE void pixel(int8_t *to, const column *x[3], const column *z[3], const column w[3], uint32_t first,
                     uint32_t columns, uint32_t height, uint32_t trits, output kind, const outputs_of *r) {
    const uint32_t three = columns - 2u;
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
    }
    if (kind == PACKED) {
        const bytes below =
            trits ? carry_of_trits(&a, &b, r->limits[three]) : carry_of_bits(&a, r->limits[three]);
        vst1q_u8((void *)to, below);
        return;
    }
    n = trits ? count_trits(&a, &b) : count_bits(&a);
    expand(to, &n, trits, &r->k, &r->table[three]);
}

#define PIXEL(l, m, r, first, columns)                                                                       \
    do {                                                                                                     \
        const column *xs[3] = {&x[l], &x[m], &x[r]}, *zs[3] = {&z[l], &z[m], &z[r]};                         \
        pixel(to, xs, zs, w, first, columns, height, trits, kind, &constants);                               \
        to += outputs;                                                                                       \
    } while (0)

#define NEXT(r)                                                                                              \
    do {                                                                                                     \
        x[r] = load_column(rows, at, height);                                                                \
        z[r] = trits ? load_column(other, at, height) : x[r];                                                \
        at += each;                                                                                          \
    } while (0)

BD_INLINE void row(const row_of *o, uint32_t height, uint32_t trits, output kind) {
    const uint8_t *rows[3] = {o->x[0], o->x[1], o->x[2]};
    const uint8_t *other[3] = {rows[0] + o->plane, rows[1] + o->plane, rows[2] + o->plane};
    const uint32_t each = o->pixel, outputs = o->outputs;
    const outputs_of constants = prepare(o, height, trits, kind);
    const uint32_t width = o->width, count = o->count;
    column x[3], z[3], w[3];
    for (uint32_t kx = 0; kx < 3u; kx++) {
        w[kx] = load_column(o->w, (size_t)kx * o->pixel, height);
    }
    for (uint32_t y = 0; y < count; y++) {
        int8_t *to = o->to + y * o->to_down;
        size_t at = 0;
        NEXT(1);
        NEXT(2);
        PIXEL(0, 1, 2, 1, 2);
        uint32_t left = width - 2u;
        for (; left >= 3u; left -= 3u) {
            NEXT(0);
            PIXEL(1, 2, 0, 0, 3);
            NEXT(1);
            PIXEL(2, 0, 1, 0, 3);
            NEXT(2);
            PIXEL(0, 1, 2, 0, 3);
        }
        for (; left != 0; left--) {
            NEXT(0);
            PIXEL(1, 2, 0, 0, 3);
            x[1] = x[2];
            x[2] = x[0];
            z[1] = z[2];
            z[2] = z[0];
        }
        PIXEL(1, 2, 0, 0, 2);
        for (uint32_t i = 0; i < 3u; i++) {
            rows[i] += o->x_down;
            other[i] += o->x_down;
        }
    }
}

/* The same with every other column: a pixel shares one column with the next. */
BD_INLINE void row_of_2(const row_of *o, uint32_t height, uint32_t trits, output kind) {
    const uint8_t *rows[3] = {o->x[0], o->x[1], o->x[2]};
    const uint8_t *other[3] = {rows[0] + o->plane, rows[1] + o->plane, rows[2] + o->plane};
    const uint32_t each = o->pixel, outputs = o->outputs;
    const outputs_of constants = prepare(o, height, trits, kind);
    column x[3], z[3], w[3];
    for (uint32_t kx = 0; kx < 3u; kx++) {
        w[kx] = load_column(o->w, (size_t)kx * o->pixel, height);
    }
    for (uint32_t y = 0; y < o->count; y++) {
        int8_t *to = o->to + y * o->to_down;
        size_t at = 0;
        NEXT(1);
        NEXT(2);
        PIXEL(0, 1, 2, 1, 2);
        for (uint32_t left = o->in_width / 2u - 1u; left != 0; left--) {
            x[0] = x[2];
            z[0] = z[2];
            NEXT(1);
            NEXT(2);
            PIXEL(0, 1, 2, 0, 3);
        }
        if (o->in_width % 2u != 0) {
            x[0] = x[2];
            z[0] = z[2];
            NEXT(1);
            PIXEL(0, 1, 1, 0, 2);
        }
        for (uint32_t i = 0; i < 3u; i++) {
            rows[i] += o->x_down;
            other[i] += o->x_down;
        }
    }
}

#define ROW(name, body, height, trits)                                                                       \
    static BD_APART void name(const row_of *o) {                                                             \
        body(o, height, trits, VALUES);                                                                      \
    }                                                                                                        \
    static BD_APART void name##_packed(const row_of *o) {                                                    \
        body(o, height, trits, PACKED);                                                                      \
    }

ROW(bits_3, row, 3, 0)
ROW(bits_2, row, 2, 0)
ROW(trits_3, row, 3, 1)
ROW(trits_2, row, 2, 1)
ROW(bits_3_by_2, row_of_2, 3, 0)
ROW(bits_2_by_2, row_of_2, 2, 0)
ROW(trits_3_by_2, row_of_2, 3, 1)
ROW(trits_2_by_2, row_of_2, 2, 1)

/* By output, stride, rows of the window and input. */
static void (*const bodies[2][2][2][2])(const row_of *) = {
    {{{bits_2, trits_2}, {bits_3, trits_3}}, {{bits_2_by_2, trits_2_by_2}, {bits_3_by_2, trits_3_by_2}}},
    {{{bits_2_packed, trits_2_packed}, {bits_3_packed, trits_3_packed}},
     {{bits_2_by_2_packed, trits_2_by_2_packed}, {bits_3_by_2_packed, trits_3_by_2_packed}}},
};

/* Whether windows leave the map by one row or column at most. */
static int is_for_rows(const bd_step *step, const bd_view *in, const bd_view *out) {
    const uint32_t stride = step->stride_w, width = in->width;
    const int wide =
        in->channels % 128u == 0 && width >= 2 &&
        (stride == 1u ? out->width == width : stride == 2u && (uint32_t)out->width == (width + 1u) / 2u);
    return step->kernel_h == 3 && step->kernel_w == 3 && step->dilation_h == 1 && step->dilation_w == 1 &&
           step->pad_left == 1 && step->pad_top <= 1 && step->pad_value == 0 && in->height >= 2 &&
           (wide || bd_dw_narrow_takes(in->channels, stride, width, out->width)) &&
           (uint32_t)(out->height - 1) * step->stride_h + 2u <= (uint32_t)in->height + step->pad_top;
}

/* Rows from y on, before `end`, of which no window leaves the map, that lie one behind the other. */
static uint32_t inner_rows(const bd_step *step, const bd_view *in, const bd_view *out, uint32_t y,
                           uint32_t end) {
    const uint32_t inside = ((uint32_t)in->height + step->pad_top - 3u) / step->stride_h + 1u;
    const uint32_t slot = y < out->rows_held ? y : y % out->rows_held;
    const uint32_t straight = y + out->rows_held - slot, most = inside < straight ? inside : straight;
    return in->rows_held == in->height ? (most < end ? most : end) - y : 1u;
}

/* Rows of 8 to 64 channels. */
static void narrow_rows(const bd_step *step, const bd_view *in, const bd_view *out, const row_of *o,
                        uint32_t height, uint32_t trits) {
    bd_dw_narrow row;
    for (uint32_t i = 0; i < 3u; i++) {
        row.x[i] = o->x[i];
        row.w[i] = o->w[i];
    }
    row.plane = o->plane;
    row.in_width = in->width;
    row.width = out->width;
    row.channels = in->channels;
    row.stride = step->stride_w;
    row.height = height;
    row.trits = trits;
    row.to = o->to;
    row.count = o->count;
    row.x_down = o->x_down;
    row.to_down = o->to_down;
    bd_dw_narrow_rows(&row);
}

BD_INLINE bd_status dw(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                       uint32_t y0, uint32_t rows, uint32_t trits, output kind) {
    const uint32_t bytes_each = bd_words(in->channels) * 4u;
    uint32_t count = 1;
    for (uint32_t y = y0; y < y0 + rows; y += count) {
        const int32_t top = (int32_t)(y * step->stride_h) - step->pad_top;
        const uint32_t first = top<0 ? 1u : 0u, end = top + 3>(int32_t) in->height ? 2u : 3u;
        const uint32_t height = end - first;
        row_of o;
        for (uint32_t ky = first, i = 0; i < 3u; i++, ky += ky + 1u < end ? 1u : 0u) {
            o.x[i] = bd_row(in, (uint32_t)(top + (int32_t)ky));
            o.w[i] = constants + step->weights + 3u * ky * (size_t)bytes_each;
        }
        o.plane = (size_t)in->width * bytes_each;
        o.to = (void *)bd_row(out, y);
        count = height == 3u ? inner_rows(step, in, out, y, y0 + rows) : 1u;
        o.count = count;
        o.x_down = (size_t)step->stride_h * in->row_stride;
        o.to_down = out->row_stride;
        if (in->channels < 128u) {
            narrow_rows(step, in, out, &o, height, trits);
            continue;
        }
        o.width = out->width;
        o.in_width = in->width;
        o.pixel = bytes_each;
        o.outputs = kind == PACKED ? bytes_each : out->channels;
        o.limits[0] = constants + step->weights + bd_dw_planes_at(2u * height, 4u + trits) * bytes_each;
        o.limits[1] = constants + step->weights + bd_dw_planes_at(3u * height, 4u + trits) * bytes_each;
        for (uint32_t c = 0; c < in->channels; c += 128u) {
            bodies[kind][step->stride_w - 1][height - 2u][trits](&o);
            for (uint32_t i = 0; i < 3u; i++) {
                o.x[i] += 16;
                o.w[i] += 16;
            }
            o.limits[0] += 16;
            o.limits[1] += 16;
            o.to += kind == PACKED ? 16 : 128;
        }
    }
    return BD_OK;
}

static bd_status dw_bits(const bd_step *step, const uint8_t *constants, const bd_view in[],
                         const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    return is_for_rows(step, in, out) ? dw(step, constants, in, out, y0, rows, 0, VALUES)
                                      : bd_dw_bb_i8.run(step, constants, in, out, y0, rows, scratch);
}

static bd_status dw_trits(const bd_step *step, const uint8_t *constants, const bd_view in[],
                          const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    return is_for_rows(step, in, out) ? dw(step, constants, in, out, y0, rows, 1, VALUES)
                                      : bd_dw_tb_i8.run(step, constants, in, out, y0, rows, scratch);
}

static bd_status packed_bits(const bd_step *step, const uint8_t *constants, const bd_view in[],
                             const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    return in->channels % 128u == 0 && is_for_rows(step, in, out)
               ? dw(step, constants, in, out, y0, rows, 0, PACKED)
               : bd_dw_bb_bit__planes.run(step, constants, in, out, y0, rows, scratch);
}

static bd_status packed_trits(const bd_step *step, const uint8_t *constants, const bd_view in[],
                              const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    return in->channels % 128u == 0 && is_for_rows(step, in, out)
               ? dw(step, constants, in, out, y0, rows, 1, PACKED)
               : bd_dw_tb_bit__planes.run(step, constants, in, out, y0, rows, scratch);
}

BD_DEFINE_VARIANT(bd_dw_bb_i8, neon64, dw_bits)
BD_DEFINE_VARIANT(bd_dw_tb_i8, neon64, dw_trits)
BD_DEFINE_VARIANT(bd_dw_bb_bit__planes, neon64, packed_bits)
BD_DEFINE_VARIANT(bd_dw_tb_bit__planes, neon64, packed_trits)
