/* Depth-wise 3x3 convolution with 8, 16, 32 or 64 channels on AArch64: a vector holds the channels of 16, 8, 4 or 2 pixels.
 *
 * Maps hold 32 channels a word: of 8 or 16 channels only the used bytes are taken, by loads that take vectors apart. A block of
 * pixels of a vector counts the mismatches of its left, middle and right columns from loads of their own. Where the first or last
 * pixel has no such column, the counts move by a pixel and a zero comes in: then nothing mismatches there, and the values
 * of that pixel, made for all taps, are put right at the end of the row. The last block overlaps the one before. */
#include "dw_narrow.h"
#include "dw_planes.h"

/* The used bytes of the pixels of a vector. each: bytes of a pixel without its unused ones. */
BD_INLINE bytes load(const uint8_t *x, uint32_t each) {
    if (each == 1u) {
        return vld4q_u8(x).val[0];
    }
    return each == 2u ? vreinterpretq_u8_u16(vld2q_u16((const void *)x).val[0]) : vld1q_u8(x);
}

/* Every other pixel of two vectors, from the first or second one on. */
BD_INLINE bytes every_other(bytes a, bytes b, uint32_t each, uint32_t second) {
    const uint16x8_t a2 = vreinterpretq_u16_u8(a), b2 = vreinterpretq_u16_u8(b);
    const uint32x4_t a4 = vreinterpretq_u32_u8(a), b4 = vreinterpretq_u32_u8(b);
    const uint64x2_t a8 = vreinterpretq_u64_u8(a), b8 = vreinterpretq_u64_u8(b);
    switch (each) {
    case 1:
        return second ? vuzp2q_u8(a, b) : vuzp1q_u8(a, b);
    case 2:
        return vreinterpretq_u8_u16(second ? vuzp2q_u16(a2, b2) : vuzp1q_u16(a2, b2));
    case 4:
        return vreinterpretq_u8_u32(second ? vuzp2q_u32(a4, b4) : vuzp1q_u32(a4, b4));
    default:
        return vreinterpretq_u8_u64(second ? vuzp2q_u64(a8, b8) : vuzp1q_u64(a8, b8));
    }
}

BD_INLINE column forms(const bytes x[3], uint32_t height) {
    column f = {x[0], x[1], x[1]};
    if (height == 3u) {
        f.u = veorq_u8(x[0], x[1]);
        f.v = veorq_u8(x[0], x[2]);
        f.s = veorq_u8(f.u, x[2]);
    }
    return f;
}

/* A tap's weights in every pixel of a vector. */
BD_INLINE bytes weights_of(const uint8_t *w, uint32_t each) {
    switch (each) {
    case 1:
        return vld1q_dup_u8(w);
    case 2:
        return vreinterpretq_u8_u16(vld1q_dup_u16((const void *)w));
    case 4:
        return vreinterpretq_u8_u32(vld1q_dup_u32((const void *)w));
    default:
        return vreinterpretq_u8_u64(vld1q_dup_u64((const void *)w));
    }
}

/* Where a block reads: bytes behind the start of a row, and by which lanes its left and right columns move. */
typedef struct place {
    size_t left, middle, right;
    bytes move_left, move_right;
} place;

/* Counts of the left, middle and right columns of one plane. */
BD_INLINE void columns_of(pair c[3], const uint8_t *const rows[3], const column w[3], const place *p,
                          uint32_t each, uint32_t stride, uint32_t height) {
    const uint32_t next = each == 1u   ? 64u
                          : each == 2u ? 32u
                                       : 16u; /* bytes of a vector's pixels in the map */
    bytes left[3], middle[3], right[3];
    for (uint32_t i = 0; i < height; i++) {
        const uint8_t *x = rows[i];
        left[i] = load(x + p->left, each);
        middle[i] = load(x + p->middle, each);
        if (stride == 1u) {
            right[i] = load(x + p->right, each);
        } else {
            const bytes more = load(x + p->middle + next, each);
            left[i] = every_other(left[i], load(x + p->left + next, each), each, 1);
            right[i] = every_other(middle[i], more, each, 1);
            middle[i] = every_other(middle[i], more, each, 0);
        }
    }
    const column l = forms(left, height), m = forms(middle, height), r = forms(right, height);
    c[0] = count_column(&l, &w[0], height);
    c[1] = count_column(&m, &w[1], height);
    c[2] = count_column(&r, &w[2], height);
    c[0].s = vqtbl1q_u8(c[0].s, p->move_left);
    c[0].c = vqtbl1q_u8(c[0].c, p->move_left);
    if (stride == 1u) {
        c[2].s = vqtbl1q_u8(c[2].s, p->move_right);
        c[2].c = vqtbl1q_u8(c[2].c, p->move_right);
    }
}

/* A pixel lacks a column of taps: its values go down by that number. */
BD_INLINE void lower(int8_t *to, uint32_t channels, uint32_t taps) {
    for (uint32_t c = 0; c < channels; c += 8u) {
        vst1_s8(to + c, vsub_s8(vld1_s8(to + c), vdup_n_s8((int8_t)taps)));
    }
}

BD_INLINE void narrow(const bd_dw_narrow *o, uint32_t each, uint32_t stride, uint32_t height,
                      uint32_t trits) {
    static const uint8_t lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const uint32_t used = each < 4u ? each : o->channels / 8u; /* bytes of a pixel */
    const uint32_t pixel = used < 4u ? 4u : used, pixels = 16u / used, last = o->width - pixels;
    const uint8x16x2_t table = table_of(3u * height, trits);
    const bytes all = vld1q_u8(lanes);
    const bytes up = vsubq_u8(all, vdupq_n_u8((uint8_t)used)),
                down = vaddq_u8(all, vdupq_n_u8((uint8_t)used));
    const uint8_t *other[3] = {o->x[0] + o->plane, o->x[1] + o->plane, o->x[2] + o->plane};
    const uint8_t *rows[3] = {o->x[0], o->x[1], o->x[2]};
    constants_of k = {vdupq_n_u8(0x55), vdupq_n_u8(0x33), vdupq_n_u8(15), vdupq_n_u8(16)};
    column w[3];
    HIDE(k.ones);
    HIDE(k.twos);
    HIDE(k.nibble);
    for (uint32_t kx = 0; kx < 3u; kx++) {
        bytes v[3];
        for (uint32_t i = 0; i < height; i++) {
            const uint8_t *at = o->w[i] + kx * pixel;
            v[i] = used == 8u ? weights_of(at, 8) : weights_of(at, each);
        }
        w[kx] = forms(v, height);
    }
    place p = {0, 0, 0, up, all};
    for (uint32_t x = 0;;) {
        pair c[3];
        sums a, b;
        planes n;
        p.middle = (size_t)x * stride * pixel;
        p.right = p.middle + pixel;
        if (x == last && stride == 1u) {
            p.right = p.middle;
            p.move_right = down;
        }
        columns_of(c, rows, w, &p, each, stride, height);
        a = add_columns(c, 3);
        if (trits) {
            columns_of(c, other, w, &p, each, stride, height);
            b = add_columns(c, 3);
            n = count_trits(&a, &b);
        } else {
            n = count_bits(&a);
        }
        expand(o->to + x * o->channels, &n, trits, &k, &table);
        if (x == last) {
            break;
        }
        x = x + pixels < last ? x + pixels : last;
        p.left = ((size_t)x * stride - stride) * pixel;
        p.move_left = all;
    }
    lower(o->to, o->channels, height);
    if (stride == 1u) {
        lower(o->to + (size_t)(o->width - 1u) * o->channels, o->channels, height);
    }
}

#define ROW(each, stride, height, trits)                                                                     \
    static BD_APART void row_##each##_##stride##_##height##_##trits(const bd_dw_narrow *o) {                 \
        narrow(o, each, stride, height, trits);                                                              \
    }
#define ROWS(each, stride)                                                                                   \
    ROW(each, stride, 2, 0) ROW(each, stride, 2, 1) ROW(each, stride, 3, 0) ROW(each, stride, 3, 1)
#define NAMES(each, stride)                                                                                  \
    {                                                                                                        \
        {row_##each##_##stride##_2_0, row_##each##_##stride##_2_1}, {                                        \
            row_##each##_##stride##_3_0, row_##each##_##stride##_3_1                                         \
        }                                                                                                    \
    }

ROWS(1, 1)
ROWS(2, 1)
ROWS(4, 1)
ROWS(1, 2)
ROWS(2, 2)
ROWS(4, 2)
ROWS(8, 2)

static void (*const bodies[2][4][2][2])(const bd_dw_narrow *) = {
    {NAMES(1, 1), NAMES(2, 1), NAMES(4, 1), NAMES(4, 1)},
    {NAMES(1, 2), NAMES(2, 2), NAMES(4, 2), NAMES(8, 2)},
};

int bd_dw_narrow_takes(uint32_t channels, uint32_t stride, uint32_t in_width, uint32_t width) {
    const int fits = channels == 8u || channels == 16u || channels == 32u || channels == 64u;
    return fits && width >= 128u / channels &&
           (stride == 1u ? width == in_width : stride == 2u && 2u * width == in_width);
}

void bd_dw_narrow_row(const bd_dw_narrow *o) {
    const uint32_t size = o->channels == 8u ? 0u : o->channels == 16u ? 1u : o->channels == 32u ? 2u : 3u;
    bodies[o->stride - 1u][size][o->height - 2u][o->trits](o);
}
