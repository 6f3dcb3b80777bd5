/* The fixed-point epilogue to int16 on AArch64: 16 channels of two pixels at once, their parameters in registers for a row.
 *
 * With factors k * 65536 + m: the sum of products with m takes 32 bits, `addhn` adds and keeps the upper half, and k * x is
 * a saturating addition where k is 0 or 1 (-1 for slopes). A step with other parameters or operands is the generic
 * kernel's; that depends on constants only. */
#include <arm_neon.h>

#include "bd_epilogue.h"
#include "bd_kernels.h"

typedef int16x8_t vec;

/* The compiler knows nothing about this sum: else it adds the constants first, and needs copies of them. */
#define HIDE(value) __asm__("" : "+w"(value))

/* a where mask is all ones, else b: one instruction, where the compiler finds three. */
BD_INLINE vec select(vec mask, vec a, vec b) {
    __asm__("bit %0.16b, %1.16b, %2.16b" : "+w"(b) : "w"(a), "w"(mask));
    return b;
}

/* Parameters of 16 channels. */
typedef struct block {
    vec mul[2], residual_mul[2], residual_one[2]; /* one: all ones where k is 1 */
    vec slope[2], slope_plus[2], slope_minus[2];
    vec low[2], high[2];
    int32x4_t add[4];
} block;

typedef struct row_of {
    const uint8_t *acc, *residual;
    uint8_t *trunk, *a, *b;                      /* a, b: the planes of the packed output */
    uint32_t width, acc_step, step, packed_step; /* bytes from pixel to pixel */
    int small;                                   /* accumulators of 8 bits */
    int shift;
} row_of;

enum { NONE, ANY, ONE }; /* residual: absent, factor 1 exactly */
enum {
    MIXED,
    WIDE,
    SMALL
}; /* operands: any; trunk and packed outputs from accumulators of 16 bits; of 8 bits */
enum { FLAT, SLOPES, STEEP }; /* two-slope: absent, negative slopes with k = 0, with k of -1 to 1 */

BD_INLINE vec upper_half(int32x4_t low, int32x4_t high) {
    return vuzp2q_s16(vreinterpretq_s16_s32(low), vreinterpretq_s16_s32(high));
}

BD_INLINE vec below_zero(vec v) {
    return vreinterpretq_s16_u16(vcltzq_s16(v));
}

/* y of 8 channels. */
BD_INLINE vec value(const block *k, uint32_t h, vec acc, vec residual, int form, int slopes,
                    int32x4_t shift) {
    int32x4_t low = vshlq_s32(vmull_s16(vget_low_s16(acc), vget_low_s16(k->mul[h])), shift);
    int32x4_t high = vshlq_s32(vmull_high_s16(acc, k->mul[h]), shift); /* (acc << shift) * m, modulo 2**32 */
    if (form == ANY) {
        low = vmlal_s16(low, vget_low_s16(residual), vget_low_s16(k->residual_mul[h]));
        high = vmlal_high_s16(high, residual, k->residual_mul[h]);
    }
    HIDE(low);
    HIDE(high);
    vec v = vaddhn_high_s32(vaddhn_s32(low, k->add[2u * h]), high, k->add[2u * h + 1u]);
    if (form != NONE) {
        v = vqaddq_s16(v, form == ONE ? residual : vandq_s16(residual, k->residual_one[h]));
    }
    if (slopes != FLAT) {
        vec t =
            upper_half(vmull_s16(vget_low_s16(v), vget_low_s16(k->slope[h])), vmull_high_s16(v, k->slope[h]));
        if (slopes == STEEP) {
            t = vqsubq_s16(vqaddq_s16(t, vandq_s16(v, k->slope_plus[h])), vandq_s16(v, k->slope_minus[h]));
        }
        v = select(below_zero(v), t, v);
    }
    return v;
}

/* Bytes of all ones where y is below its threshold. */
BD_INLINE uint8x16_t below(const vec y[2], const vec threshold[2]) {
    return vuzp1q_u8(vreinterpretq_u8_u16(vcltq_s16(y[0], threshold[0])),
                     vreinterpretq_u8_u16(vcltq_s16(y[1], threshold[1])));
}

/* 16 bits of each pixel. */
BD_INLINE uint8_t *pack(uint8_t *to, uint32_t step, uint8x16_t first, uint8x16_t second, uint32_t pixels,
                        uint8x16_t place) {
    uint8x16_t v = vpaddq_u8(vandq_u8(first, place), vandq_u8(second, place));
    v = vpaddq_u8(v, v);
    v = vpaddq_u8(v, v);
    vst1q_lane_u16((void *)to, vreinterpretq_u16_u8(v), 0);
    if (pixels == 2u) {
        vst1q_lane_u16((void *)(to + step), vreinterpretq_u16_u8(v), 1);
    }
    return to + pixels * step;
}

/* One or two pixels; moves the row's pointers on. */
BD_INLINE void some_pixels(row_of *r, const block *k, uint32_t pixels, int form, int slopes, int trits,
                           int operands, uint8x16_t place, int32x4_t shift) {
    uint8x16_t a[2], b[2];
    for (uint32_t i = 0; i < pixels; i++) {
        vec first, second, y[2];
        if (operands == SMALL || (operands == MIXED && r->small)) {
            const int8x16_t both = vld1q_s8((const void *)r->acc);
            first = vmovl_s8(vget_low_s8(both));
            second = vmovl_high_s8(both);
        } else {
            first = vld1q_s16((const void *)r->acc);
            second = vld1q_s16((const void *)(r->acc + 16));
        }
        r->acc += r->acc_step;
        vec residual[2] = {first, second};
        if (form != NONE) {
            residual[0] = vld1q_s16((const void *)r->residual);
            residual[1] = vld1q_s16((const void *)(r->residual + 16));
            r->residual += r->step;
        }
        y[0] = value(k, 0, first, residual[0], form, slopes, shift);
        y[1] = value(k, 1, second, residual[1], form, slopes, shift);
        if (operands != MIXED || r->trunk != NULL) {
            vst1q_s16((void *)r->trunk, y[0]);
            vst1q_s16((void *)(r->trunk + 16), y[1]);
            r->trunk += r->step;
        }
        a[i] = below(y, k->low);
        b[i] = trits ? below(y, k->high) : a[i];
    }
    if (operands != MIXED || r->a != NULL) {
        r->a = pack(r->a, r->packed_step, a[0], a[pixels - 1u], pixels, place);
        if (trits) {
            r->b = pack(r->b, r->packed_step, b[0], b[pixels - 1u], pixels, place);
        }
    }
}

BD_INLINE void pixels_of(const row_of *r, const block *k, int form, int slopes, int trits, int operands) {
    static const uint8_t places[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t place = vld1q_u8(places);
    const int32x4_t shift = vdupq_n_s32(r->shift);
    const block c = *k;
    row_of o = *r;
    for (uint32_t left = o.width / 2u; left != 0; left--) {
        some_pixels(&o, &c, 2, form, slopes, trits, operands, place, shift);
    }
    if (o.width % 2u != 0) {
        some_pixels(&o, &c, 1, form, slopes, trits, operands, place, shift);
    }
}

#define FORM(form, slopes, operands)                                                                         \
    static BD_APART void bits_##form##_##slopes##_##operands(const row_of *r, const block *k) {              \
        pixels_of(r, k, form, slopes, 0, operands);                                                          \
    }                                                                                                        \
    static BD_APART void trits_##form##_##slopes##_##operands(const row_of *r, const block *k) {             \
        pixels_of(r, k, form, slopes, 1, operands);                                                          \
    }

#define FORMS(form)                                                                                          \
    FORM(form, FLAT, MIXED)                                                                                  \
    FORM(form, FLAT, WIDE)                                                                                   \
    FORM(form, FLAT, SMALL)                                                                                  \
    FORM(form, SLOPES, MIXED)                                                                                \
    FORM(form, SLOPES, WIDE)                                                                                 \
    FORM(form, SLOPES, SMALL)                                                                                \
    FORM(form, STEEP, MIXED)                                                                                 \
    FORM(form, STEEP, WIDE)                                                                                  \
    FORM(form, STEEP, SMALL)

FORMS(NONE)
FORMS(ANY)
FORMS(ONE)

typedef void (*form_fn)(const row_of *r, const block *k);

#define BY_OPERANDS(form, slopes) {form##_##slopes##_MIXED, form##_##slopes##_WIDE, form##_##slopes##_SMALL}
#define BY_SLOPES(form) {BY_OPERANDS(form, FLAT), BY_OPERANDS(form, SLOPES), BY_OPERANDS(form, STEEP)}

static form_fn const forms[2][3][3][3] = {
    {BY_SLOPES(bits_NONE), BY_SLOPES(bits_ANY), BY_SLOPES(bits_ONE)},
    {BY_SLOPES(trits_NONE), BY_SLOPES(trits_ANY), BY_SLOPES(trits_ONE)}};

/* The m parts of 16 factors, and their k parts. */
BD_INLINE void split(const uint8_t *constants, uint32_t offset, uint32_t c, vec m[2], vec k[2]) {
    const int32_t *from = bd_parameters(constants, offset, c);
    for (uint32_t h = 0; h < 2u; h++) {
        const int32x4_t a = vld1q_s32(from + 8u * h), b = vld1q_s32(from + 8u * h + 4u);
        m[h] = vmovn_high_s32(vmovn_s32(a), b);
        k[h] = vrshrn_high_n_s32(vrshrn_n_s32(a, 16), b, 16);
    }
}

static uint32_t any(uint16x8_t a, uint16x8_t b) {
    return vmaxvq_u16(vorrq_u16(a, b));
}

/* 16 thresholds; 0 where one is above all values. */
BD_INLINE int thresholds(const uint8_t *constants, uint32_t offset, uint32_t c, vec to[2]) {
    const int32_t *from = bd_parameters(constants, offset, c);
    int32x4_t most = vdupq_n_s32(INT32_MIN);
    for (uint32_t h = 0; h < 2u; h++) {
        const int32x4_t a = vld1q_s32(from + 8u * h), b = vld1q_s32(from + 8u * h + 4u);
        most = vmaxq_s32(most, vmaxq_s32(a, b));
        to[h] = vqmovn_high_s32(vqmovn_s32(a), b);
    }
    return vmaxvq_s32(most) <= INT16_MAX;
}

/* Loads 16 channels. Returns 0 where the plain kernel has to do it. */
static int load_block(block *b, const bd_epilogue *e, const uint8_t *constants, uint32_t c, int *form,
                      int *slopes) {
    const vec one = vdupq_n_s16(1);
    vec k[2], m[2];
    split(constants, e->mul, c, b->mul, k);
    int fits = any(vtstq_s16(k[0], k[0]), vtstq_s16(k[1], k[1])) == 0;
    const int32_t *add = bd_parameters(constants, e->add, c);
    for (uint32_t i = 0; i < 4u; i++) {
        b->add[i] = vld1q_s32(add + 4u * i);
    }
    *form = NONE;
    if (e->residual_mul != BD_ABSENT) {
        split(constants, e->residual_mul, c, b->residual_mul, k);
        for (uint32_t h = 0; h < 2u; h++) {
            b->residual_one[h] = vnegq_s16(k[h]);
        }
        fits = fits && any(vcgtq_u16(vreinterpretq_u16_s16(k[0]), vdupq_n_u16(1)),
                           vcgtq_u16(vreinterpretq_u16_s16(k[1]), vdupq_n_u16(1))) == 0;
        const uint32_t other =
            any(vceqzq_s16(k[0]), vceqzq_s16(k[1])) | any(vtstq_s16(b->residual_mul[0], b->residual_mul[0]),
                                                          vtstq_s16(b->residual_mul[1], b->residual_mul[1]));
        *form = other == 0 ? ONE : ANY;
    }
    *slopes = FLAT;
    if (e->positive != BD_ABSENT) {
        split(constants, e->positive, c, m, k);
        fits = fits && any(vtstq_s16(m[0], m[0]), vtstq_s16(m[1], m[1])) == 0 &&
               any(vmvnq_u16(vceqq_s16(k[0], one)), vmvnq_u16(vceqq_s16(k[1], one))) == 0;
        split(constants, e->negative, c, b->slope, k);
        for (uint32_t h = 0; h < 2u; h++) {
            b->slope_plus[h] = vreinterpretq_s16_u16(vcgtzq_s16(k[h]));
            b->slope_minus[h] = below_zero(k[h]);
        }
        fits = fits && any(vcgtq_s16(vqabsq_s16(k[0]), one), vcgtq_s16(vqabsq_s16(k[1]), one)) == 0;
        *slopes = any(vtstq_s16(k[0], k[0]), vtstq_s16(k[1], k[1])) == 0 ? SLOPES : STEEP;
    }
    for (uint32_t h = 0; h < 2u; h++) {
        b->low[h] = b->high[h] = one;
    }
    fits = fits && (e->low == BD_ABSENT || thresholds(constants, e->low, c, b->low));
    return fits && (e->high == BD_ABSENT || thresholds(constants, e->high, c, b->high));
}

static int is_for_blocks(const bd_epilogue *e, const bd_view in[], const bd_view out[]) {
    const int residual = e->residual_mul != BD_ABSENT;
    return in->channels % 32u == 0 && e->repeats == 0 && (in->dtype == BD_I8 || in->dtype == BD_I16) &&
           e->mul != BD_ABSENT && e->shift >= 0 &&
           (!residual ||
            (in[1].dtype == BD_I16 && in[1].width == in->width && in[1].channels == in->channels &&
             in[1].height == in->height && e->residual_shift == 0)) &&
           (out[1].rows_held == 0 || out[1].dtype != BD_UBIT || e->high == BD_ABSENT);
}

static bd_status epilogue(const bd_step *step, const uint8_t *constants, const bd_view in[],
                          const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    const bd_epilogue *e = (const void *)(constants + step->epilogue_at);
    const uint32_t channels = in->channels;
    if (!is_for_blocks(e, in, out)) {
        return bd_epilogue_i16.run(step, constants, in, out, y0, rows, scratch);
    }
    block b;
    int form, slopes;
    for (uint32_t c = 0; c < channels; c += 16u) {
        if (!load_block(&b, e, constants, c, &form, &slopes)) {
            return bd_epilogue_i16.run(step, constants, in, out, y0, rows, scratch);
        }
    }
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const bd_epilogue_rows at = bd_rows_of(in, out, y);
        row_of r;
        r.acc = at.acc;
        r.residual = at.residual;
        r.trunk = at.trunk;
        r.a = at.packed;
        r.b = e->high != BD_ABSENT ? at.packed + (size_t)in->width * (channels / 8u) : NULL;
        r.width = in->width;
        r.small = in->dtype == BD_I8;
        r.acc_step = channels * (r.small ? 1u : 2u);
        r.step = channels * 2u;
        r.packed_step = channels / 8u;
        r.shift = e->shift;
        const int operands = r.trunk == NULL || r.a == NULL ? MIXED : r.small ? SMALL : WIDE;
        for (uint32_t c = 0; c < channels; c += 16u) {
            (void)load_block(&b, e, constants, c, &form, &slopes);
            forms[e->high != BD_ABSENT][form][slopes][operands](&r, &b);
            r.acc += r.small ? 16 : 32;
            r.residual = r.residual != NULL ? r.residual + 32 : NULL;
            r.trunk = r.trunk != NULL ? r.trunk + 32 : NULL;
            r.a = r.a != NULL ? r.a + 2 : NULL;
            r.b = r.b != NULL ? r.b + 2 : NULL;
        }
    }
    return BD_OK;
}

BD_DEFINE_VARIANT(bd_epilogue_i16, neon64, epilogue)
