/* Fixed-point epilogues with parameters in the packing of bd_lanes16.h on AArch64: for 16 channels after 16, a row of pixels
 * with the parameters in registers.
 *
 * What the form saves: a sum that ends at 32 bits (`sqdmlsl`) needs only its upper halves, `uzp2`, and `sqdmulh` is a product
 * of two slopes' bits and its upper half in one. Sums begin at `add` in memory where they are accumulated, since a copy of a
 * register would cost as many instructions as it saves. Bits of four pixels are added up together. */
#include <arm_neon.h>

#include "bd_kernels.h"
#include "bd_lanes16.h"

typedef int16x8_t vec;

/* The compiler knows nothing about this sum: else it adds the constants first, and needs copies of them. */
#define HIDE(value) __asm__("" : "+w"(value))
/* And nothing about this address: else it keeps in registers, and copies, what lies there. */
#define ANEW(pointer) __asm__("" : "+r"(pointer))

/* Channels of rows of pixels, from the first of a block on. Bytes from pixel to pixel are a step, from row to row a stride. */
typedef struct row_of {
    const uint8_t *acc, *residual;
    uint8_t *trunk, *a, *b; /* a, b: the planes of the packed output */
    size_t acc_step, residual_step, trunk_step, packed_step;
    size_t acc_stride, residual_stride, trunk_stride, packed_stride;
    uint32_t pixels, rows;
    int shift;
} row_of;

enum { I8, I16, I32 }; /* accumulators */
enum {
    NONE,
    ONE,
    TWICE,
    BOTH,
    EIGHT
}; /* residual; EIGHT: the same 8 channels for all, as BOTH;
                                              of 32-bit accumulators NONE */
enum { FLAT, EVEN, HALF, ODD, ANY }; /* two-slope */

typedef struct block {
    vec mul[2], twice[2], once[2], slope[2], low[2], high[2];
    int32x4_t add[4];
} block;

BD_INLINE vec upper_halves(int32x4_t low, int32x4_t high) {
    return vuzp2q_s16(vreinterpretq_s16_s32(low), vreinterpretq_s16_s32(high));
}

BD_INLINE void load_acc(row_of *r, int acc, vec shift, vec t[2]) {
    if (acc == I8) { /* the byte is the upper half of a number that is 8 bits to the left */
        const int8x16_t both = vshlq_s8(vld1q_s8((const void *)r->acc), vreinterpretq_s8_s16(shift));
        const int8x16_t zero = vdupq_n_s8(0);
        t[0] = vreinterpretq_s16_s8(vzip1q_s8(zero, both));
        t[1] = vreinterpretq_s16_s8(vzip2q_s8(zero, both));
    } else if (acc == I16) {
        const int16x8x2_t both = vld1q_s16_x2((const void *)r->acc);
        t[0] = vshlq_s16(both.val[0], shift);
        t[1] = vshlq_s16(both.val[1], shift);
    } else {
        const int32x4_t wide = vmovl_s16(vget_low_s16(shift));
        const int32x4x4_t all = vld1q_s32_x4((const void *)r->acc);
        for (uint32_t h = 0; h < 2u; h++) {
            t[h] = vqmovn_high_s32(vqmovn_s32(vshlq_s32(all.val[2u * h], wide)),
                                   vshlq_s32(all.val[2u * h + 1u], wide));
        }
    }
    r->acc += r->acc_step;
}

BD_INLINE void load_residual(row_of *r, int form, vec to[2]) {
    if (form == NONE) {
        return;
    }
    if (form == EIGHT) {
        to[0] = to[1] = vld1q_s16((const void *)r->residual);
    } else {
        const int16x8x2_t both = vld1q_s16_x2((const void *)r->residual);
        to[0] = both.val[0];
        to[1] = both.val[1];
    }
    r->residual += r->residual_step;
}

/* vqdmlsl_high_s16: for constant factors the compiler takes two instructions. */
BD_INLINE int32x4_t double_high(int32x4_t sum, vec a, vec b) {
    __asm__("sqdmlsl2 %0.4s, %1.8h, %2.8h" : "+w"(sum) : "w"(a), "w"(b));
    return sum;
}

/* v of 8 channels; `sums` begin at add where the residual is accumulated. */
BD_INLINE vec affine(const block *k, uint32_t h, int form, vec t, vec r, int32x4_t first, int32x4_t second) {
    if (form == NONE || form == ONE) {
        int32x4_t low = vmull_s16(vget_low_s16(t), vget_low_s16(k->mul[h]));
        int32x4_t high = vmull_high_s16(t, k->mul[h]);
        HIDE(low);
        HIDE(high);
        const vec v = vaddhn_high_s32(vaddhn_s32(low, k->add[2u * h]), high, k->add[2u * h + 1u]);
        return form == ONE ? vqaddq_s16(v, r) : v;
    }
    first = vmlal_s16(first, vget_low_s16(t), vget_low_s16(k->mul[h]));
    second = vmlal_high_s16(second, t, k->mul[h]);
    if (form != TWICE) {
        first = vmlal_s16(first, vget_low_s16(r), vget_low_s16(k->once[h]));
        second = vmlal_high_s16(second, r, k->once[h]);
    }
    first = vqdmlsl_s16(first, vget_low_s16(r), vget_low_s16(k->twice[h]));
    second = double_high(second, r, k->twice[h]);
    return upper_halves(first, second);
}

BD_INLINE vec two_slope(const block *k, const bd_lanes16_block *b, uint32_t h, int slopes, vec v) {
    if (slopes == FLAT) {
        return v;
    }
    const vec p = vqdmulhq_s16(v, k->slope[h]);
    if (slopes == EVEN) {
        return vmaxq_s16(v, p);
    }
    if (slopes == HALF) {
        return vmaxq_s16(v, vshrq_n_s16(p, 1));
    }
    if (slopes == ODD) {
        return vmaxq_s16(v, vhaddq_s16(v, p));
    }
    const vec whole = vqrshlq_s16(v, vld1q_s16(b->grow + 8u * h)); /* rounded by 16 bits to the right: 0 */
    const vec fraction = vhaddq_s16(vandq_s16(v, vld1q_s16(b->keep + 8u * h)), p);
    return vmaxq_s16(vqshlq_s16(v, vld1q_s16(b->up + 8u * h)), vqaddq_s16(fraction, whole));
}

/* Bytes of all ones where y is below its threshold, each but the bit of its place. */
BD_INLINE uint8x16_t below(const vec y[2], const vec threshold[2], uint8x16_t place) {
    return vandq_u8(place, vuzp1q_u8(vreinterpretq_u8_u16(vcltq_s16(y[0], threshold[0])),
                                     vreinterpretq_u8_u16(vcltq_s16(y[1], threshold[1]))));
}

/* 16 bits; the compiler would take them out of the vector, store and count in three instructions. */
#define STORE_LANE(to, step, bits, lane)                                                                     \
    __asm__ volatile("st1 {%1.h}[" #lane "], [%0], %2" : "+r"(to) : "w"(bits), "r"(step) : "memory")

/* 16 bits of each of four pixels. */
BD_INLINE uint8_t *pack4(uint8_t *to, size_t step, const uint8x16_t bits[4]) {
    uint8x16_t v = vpaddq_u8(vpaddq_u8(bits[0], bits[1]), vpaddq_u8(bits[2], bits[3]));
    v = vpaddq_u8(v, v);
    STORE_LANE(to, step, v, 0);
    STORE_LANE(to, step, v, 1);
    STORE_LANE(to, step, v, 2);
    STORE_LANE(to, step, v, 3);
    return to;
}

BD_INLINE uint8_t *pack8(uint8_t *to, size_t step, const uint8x16_t bits[8]) {
    const uint8x16_t low = vpaddq_u8(vpaddq_u8(bits[0], bits[1]), vpaddq_u8(bits[2], bits[3]));
    const uint8x16_t high = vpaddq_u8(vpaddq_u8(bits[4], bits[5]), vpaddq_u8(bits[6], bits[7]));
    const uint8x16_t v = vpaddq_u8(low, high);
    STORE_LANE(to, step, v, 0);
    STORE_LANE(to, step, v, 1);
    STORE_LANE(to, step, v, 2);
    STORE_LANE(to, step, v, 3);
    STORE_LANE(to, step, v, 4);
    STORE_LANE(to, step, v, 5);
    STORE_LANE(to, step, v, 6);
    STORE_LANE(to, step, v, 7);
    return to;
}

BD_INLINE uint8_t *pack1(uint8_t *to, size_t step, uint8x16_t bits) {
    uint8x16_t v = vpaddq_u8(bits, bits);
    v = vpaddq_u8(v, v);
    v = vpaddq_u8(v, v);
    STORE_LANE(to, step, v, 0);
    return to;
}

/* A pixel; returns the bits of its first plane and sets those of its second. */
BD_INLINE uint8x16_t pixel(row_of *r, const block *k, const bd_lanes16_block *at, int acc, int form,
                           int slopes, int trits, uint8x16_t place, vec shift, uint8x16_t *second) {
    vec t[2], residual[2] = {vdupq_n_s16(0), vdupq_n_s16(0)}, y[2];
    ANEW(at);
    load_acc(r, acc, shift, t);
    load_residual(r, form, residual);
    int32x4x4_t add = {{k->add[0], k->add[1], k->add[2], k->add[3]}};
    if (form >= TWICE) {
        add = vld1q_s32_x4(at->add);
    }
    for (uint32_t h = 0; h < 2u; h++) {
        const vec v = affine(k, h, form, t[h], residual[h], add.val[2u * h], add.val[2u * h + 1u]);
        y[h] = two_slope(k, at, h, slopes, v);
    }
    const int16x8x2_t both = {{y[0], y[1]}};
    vst1q_s16_x2((void *)r->trunk, both);
    r->trunk += r->trunk_step;
    if (trits) {
        *second = below(y, k->high, place);
    }
    return below(y, k->low, place);
}

BD_INLINE void load_pair(vec to[2], const int16_t *from) {
    to[0] = vld1q_s16(from);
    to[1] = vld1q_s16(from + 8);
}

/* `count` blocks of 16 channels of all pixels. */
BD_INLINE void blocks_of(const row_of *row, const bd_lanes16_block *b, uint32_t count, int acc, int form,
                         int slopes, int trits) {
    static const uint8_t places[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t place = vld1q_u8(places);
    row_of from = *row;
    const size_t acc_block = acc == I8 ? 16 : acc == I16 ? 32 : 64;
    const size_t trunk_block = from.trunk_step != 0 ? 32 : 0, packed_block = from.packed_step != 0 ? 2 : 0;
    const vec shift = acc == I8 ? vreinterpretq_s16_s8(vdupq_n_s8((int8_t)(from.shift - 8)))
                                : vdupq_n_s16((int16_t)from.shift);
    for (; count != 0; count--, b++) {
        block k;
        load_pair(k.mul, b->mul);
        load_pair(k.twice, b->twice);
        load_pair(k.once, b->once);
        load_pair(k.slope, b->slope);
        load_pair(k.low, b->low);
        load_pair(k.high, b->high);
        for (uint32_t i = 0; i < 4u; i++) {
            k.add[i] = vld1q_s32(b->add + 4u * i);
        }
        row_of next = from;
        for (uint32_t rows = from.rows; rows != 0; rows--) {
            row_of r = next;
            uint8x16_t first[8], second[8];
#define PIXEL(i) first[i] = pixel(&r, &k, b, acc, form, slopes, trits, place, shift, &second[i])
            uint32_t pixels = r.pixels;
            if (!trits && slopes <= EVEN) { /* registers for the bits of eight pixels */
                for (; pixels >= 8u; pixels -= 8u) {
                    PIXEL(0);
                    PIXEL(1);
                    PIXEL(2);
                    PIXEL(3);
                    PIXEL(4);
                    PIXEL(5);
                    PIXEL(6);
                    PIXEL(7);
                    r.a = pack8(r.a, r.packed_step, first);
                }
            }
            for (; pixels >= 4u; pixels -= 4u) {
                PIXEL(0);
                PIXEL(1);
                PIXEL(2);
                PIXEL(3);
                r.a = pack4(r.a, r.packed_step, first);
                if (trits) {
                    r.b = pack4(r.b, r.packed_step, second);
                }
            }
            for (; pixels != 0; pixels--) {
                PIXEL(0);
                r.a = pack1(r.a, r.packed_step, first[0]);
                if (trits) {
                    r.b = pack1(r.b, r.packed_step, second[0]);
                }
            }
#undef PIXEL
            next.acc += next.acc_stride;
            next.residual += next.residual_stride;
            next.trunk += next.trunk_stride;
            next.a += next.packed_stride;
            next.b += next.packed_stride;
        }
        from.acc += acc_block;
        from.residual += form == NONE || form == EIGHT ? 0 : 32;
        from.trunk += trunk_block;
        from.a += packed_block;
        from.b += packed_block;
    }
}

#define FORM(acc, form, slopes)                                                                              \
    static BD_APART void bits_##acc##_##form##_##slopes(const row_of *r, const bd_lanes16_block *b,          \
                                                        uint32_t count) {                                    \
        blocks_of(r, b, count, acc, form, slopes, 0);                                                        \
    }                                                                                                        \
    static BD_APART void trits_##acc##_##form##_##slopes(const row_of *r, const bd_lanes16_block *b,         \
                                                         uint32_t count) {                                   \
        blocks_of(r, b, count, acc, form, slopes, 1);                                                        \
    }

#define FORMS(acc, form)                                                                                     \
    FORM(acc, form, FLAT)                                                                                    \
    FORM(acc, form, EVEN)                                                                                    \
    FORM(acc, form, HALF) FORM(acc, form, ODD) FORM(acc, form, ANY)

#define BY_FORM(acc) FORMS(acc, NONE) FORMS(acc, ONE) FORMS(acc, TWICE) FORMS(acc, BOTH) FORMS(acc, EIGHT)

BY_FORM(I8)
BY_FORM(I16)
FORMS(I32, NONE)

typedef void (*form_fn)(const row_of *r, const bd_lanes16_block *b, uint32_t count);

#define BY_PLANES(acc, form, slopes) {bits_##acc##_##form##_##slopes, trits_##acc##_##form##_##slopes}
#define BY_SLOPES(acc, form)                                                                                 \
    {BY_PLANES(acc, form, FLAT), BY_PLANES(acc, form, EVEN), BY_PLANES(acc, form, HALF),                     \
     BY_PLANES(acc, form, ODD), BY_PLANES(acc, form, ANY)}
#define BY_RESIDUAL(acc)                                                                                     \
    {BY_SLOPES(acc, NONE), BY_SLOPES(acc, ONE), BY_SLOPES(acc, TWICE), BY_SLOPES(acc, BOTH),                 \
     BY_SLOPES(acc, EIGHT)}

static form_fn const forms[3][5][5][2] = {BY_RESIDUAL(I8), BY_RESIDUAL(I16), {BY_SLOPES(I32, NONE)}};

/* What a call has for all of its rows. */
typedef struct whole {
    const bd_lanes16_block *blocks;
    form_fn run;
    uint32_t channels;
    uint32_t run_channels; /* of one call: after so many the residual begins again */
    uint32_t acc_size;     /* bytes of an accumulator */
    int trits;             /* a second plane */
    row_of steps;          /* without its addresses */
} whole;

BD_INLINE void copy(uint8_t *to, const uint8_t *from, uint32_t bytes) {
    for (; bytes >= 8u; bytes -= 8u, to += 8, from += 8) {
        vst1_u8(to, vld1_u8(from));
    }
    for (uint32_t i = 0; i < bytes; i++) {
        to[i] = from[i];
    }
}

/* The last channels of one row, fewer than 16: pixel by pixel through memory of whole blocks. */
static BD_APART void tail(const whole *w, const row_of *row, const bd_lanes16_block *b, uint32_t n) {
    uint8_t acc[64] = {0}, residual[32] = {0}, trunk[32], bits[2][2];
    row_of one = {acc, residual, trunk, bits[0], bits[1], 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, row->shift};
    row_of r = *row;
    for (uint32_t left = r.pixels; left != 0; left--) {
        copy(acc, r.acc, n * w->acc_size);
        if (r.residual != NULL) {
            copy(residual, r.residual, 2u * n);
            r.residual += r.residual_step;
        }
        w->run(&one, b, 1);
        copy(r.trunk, trunk, r.trunk_step != 0 ? 2u * n : 0);
        copy(r.a, bits[0], (n + 7u) / 8u);
        if (w->trits) {
            copy(r.b, bits[1], (n + 7u) / 8u);
        }
        r.acc += r.acc_step;
        r.trunk += r.trunk_step;
        r.a += r.packed_step;
        r.b += r.packed_step;
    }
}

/* All channels of a row: blocks as long as the residual's channels do not begin again, then the last ones. */
static void channels_of(const whole *w, row_of r) {
    const uint8_t *residual = r.residual;
    const bd_lanes16_block *b = w->blocks;
    uint32_t left = w->channels;
    for (uint32_t n; left >= 16u; left -= 16u * n, b += n) {
        n = left < w->run_channels ? left / 16u : w->run_channels / 16u;
        r.residual = residual;
        w->run(&r, b, n);
        r.acc += (size_t)n * 16u * w->acc_size;
        r.trunk += r.trunk_step != 0 ? n * 32u : 0;
        r.a += r.packed_step != 0 ? n * 2u : 0;
        r.b += r.packed_step != 0 ? n * 2u : 0;
    }
    if (left != 0) {
        r.residual = residual == NULL ? NULL : residual + 2u * (size_t)(w->channels - left);
        tail(w, &r, b, left);
    }
}

/* Bytes to words. */
static void spread(uint8_t *to, const uint8_t *from, uint32_t n) {
    uint32_t *words = (void *)to;
    for (; n >= 8u; n -= 8u, from += 8, words += 8) {
        const uint16x8_t v = vmovl_u8(vld1_u8(from));
        vst1q_u32(words, vmovl_u16(vget_low_u16(v)));
        vst1q_u32(words + 4, vmovl_high_u16(v));
    }
    for (uint32_t i = 0; i < n; i++) {
        words[i] = from[i];
    }
}

static void clear(uint8_t *row, size_t bytes) {
    for (; bytes >= 16u; bytes -= 16u, row += 16) {
        vst1q_u8(row, vdupq_n_u8(0));
    }
    for (size_t i = 0; i < bytes; i++) {
        row[i] = 0;
    }
}

#define PAIRS 32u /* at once */

/* A row of 8 channels: two pixels make 16. */
static void pairs_of(const whole *w, row_of r) {
    uint8_t bits[2][2u * PAIRS];
    const row_of row = r;
    const size_t planes = row.packed_step != 0 ? 1u : 0u;
    r.acc_step *= 2u;
    r.residual_step *= 2u;
    r.trunk_step *= 2u;
    r.packed_step = 2u;
    for (uint32_t left = row.pixels / 2u; left != 0;) {
        const uint32_t n = left < PAIRS ? left : PAIRS;
        r.pixels = n;
        r.a = bits[0];
        r.b = bits[1];
        w->run(&r, w->blocks, 1);
        r.acc += n * r.acc_step;
        r.residual = r.residual == NULL ? NULL : r.residual + n * r.residual_step;
        r.trunk += n * r.trunk_step;
        left -= n;
        if (planes != 0) {
            const size_t done = 8u * (row.pixels / 2u - left - n);
            spread(row.a + done, bits[0], 2u * n);
            if (w->trits) {
                spread(row.b + done, bits[1], 2u * n);
            }
        }
    }
    if (row.pixels % 2u != 0) {
        const size_t last = row.pixels - 1u;
        row_of one = row;
        one.acc = r.acc;
        one.residual = r.residual;
        one.trunk = r.trunk;
        one.a += last * row.packed_step;
        one.b += last * row.packed_step;
        one.pixels = 1;
        clear(one.a, row.packed_step);
        if (w->trits) {
            clear(one.b, row.packed_step);
        }
        tail(w, &one, w->blocks, 8);
    }
}

static void row_by_row(const whole *w, row_of r, void (*each)(const whole *w, row_of r)) {
    const uint32_t rows = r.rows;
    r.rows = 1;
    for (uint32_t i = 0; i < rows; i++) {
        each(w, r);
        r.acc += r.acc_stride;
        r.residual += r.residual_stride;
        r.trunk += r.trunk_stride;
        r.a += r.packed_stride;
        r.b += r.packed_stride;
    }
}

/* How many of `rows` rows from y on follow one another in memory. */
static uint32_t before_end(const bd_view *view, uint32_t y, uint32_t rows) {
    if (view->rows_held == 0 || view->rows_held >= view->height) {
        return rows;
    }
    const uint32_t left = view->rows_held - y % view->rows_held;
    return left < rows ? left : rows;
}

static bd_status epilogue(const bd_step *step, const uint8_t *constants, const bd_view in[],
                          const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    const bd_epilogue *e = (const void *)(constants + step->epilogue_at);
    const bd_lanes16 *head = bd_lanes16_of(constants, e);
    const uint32_t channels = in->channels, words = bd_words(channels);
    const int residual = head->residual != BD_LANES16_NONE, packed = out[1].rows_held != 0;
    const int trunk = out[0].rows_held != 0, trits = packed && out[1].dtype == BD_TRIT;
    const int pairs = channels == 8u && in->width > 1u, vector = in[1].height == 1u && in[1].width == 1u;
    if (pairs && residual && vector) {
        return bd_epilogue_i16__lanes16.run(step, constants, in, out, y0, rows, scratch);
    }
    const int acc = in->dtype == BD_I8 ? I8 : in->dtype == BD_I16 ? I16 : I32;
    const int form = residual && in[1].channels == 8u && channels != 8u ? EIGHT : head->residual;
    whole w;
    w.blocks = bd_lanes16_blocks(head);
    w.run = forms[acc][form][head->slopes][trits];
    w.channels = channels;
    w.run_channels = residual && form != EIGHT && in[1].channels >= 16u ? in[1].channels : 0x10000u;
    w.trits = trits;
    w.acc_size = acc == I8 ? 1u : acc == I16 ? 2u : 4u;
    uint8_t nowhere[48];
    row_of r;
    r.acc_step = (size_t)channels * w.acc_size;
    r.residual_step = vector ? 0 : 2u * (size_t)in[1].channels;
    r.trunk_step = trunk ? 2u * (size_t)channels : 0;
    r.packed_step = packed ? 4u * (size_t)words : 0;
    r.acc_stride = in[0].row_stride;
    r.residual_stride = residual && !vector ? in[1].row_stride : 0;
    r.trunk_stride = trunk ? out[0].row_stride : 0;
    r.packed_stride = packed ? out[1].row_stride : 0;
    r.shift = e->shift;
    const size_t width = in->width, plane = width * r.packed_step;
    const int dense = r.acc_stride == width * r.acc_step && r.residual_stride == width * r.residual_step &&
                      r.trunk_stride == width * r.trunk_step && r.packed_stride == plane;
    for (uint32_t y = y0; y < y0 + rows; y += r.rows) {
        const bd_epilogue_rows at = bd_rows_of(in, out, y);
        r.acc = at.acc;
        r.residual = at.residual;
        r.trunk = trunk ? at.trunk : nowhere;
        r.a = packed ? at.packed : nowhere + 32;
        r.b = trits ? at.packed + plane : r.a; /* not written without trits */
        r.rows = y0 + rows - y;
        for (uint32_t i = 0; i < 2u; i++) {
            r.rows = before_end(&in[i], y, r.rows);
            r.rows = before_end(&out[i], y, r.rows);
        }
        r.pixels = in->width;
        const uint32_t done = r.rows;
        if (packed && !pairs && channels % 32u - 1u < 24u) {
            for (uint32_t i = 0; i < done; i++) { /* of the last word not all bytes are written */
                clear(r.a + i * r.packed_stride, trits ? 2u * plane : plane);
            }
        }
        if (dense) {
            r.pixels *= r.rows;
            r.rows = 1;
        }
        if (pairs || channels % 16u != 0) {
            row_by_row(&w, r, pairs ? pairs_of : channels_of);
        } else {
            channels_of(&w, r);
        }
        r.rows = done;
    }
    return BD_OK;
}

BD_DEFINE_VARIANT(bd_epilogue_i16__lanes16, neon64, epilogue)
