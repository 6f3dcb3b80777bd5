/* The fixed-point epilogue to int16 on 32-bit Arm with NEON: 8 channels of four pixels at once, their parameters in registers
 * for a row.
 *
 * With factors k * 65536 + m: the sum of products with m takes 32 bits, `vaddhn` adds and keeps the upper half, and k * x is
 * a saturating addition where k is 0 or 1; slopes may have any. A step with other parameters or operands is the generic
 * kernel's; that depends on constants only. */
#include "bd_epilogue.h"
#include "bd_kernels.h"
#include "neon32.h"

typedef int16x8_t vec;

/* The compiler knows nothing about this sum: else it adds the constants first, and needs copies of them. */
#define HIDE(value) __asm__("" : "+w"(value))

/* a where mask is all ones, else b: one instruction, where the compiler finds three. */
BD_INLINE vec select(vec mask, vec a, vec b) {
    __asm__("vbit %q0, %q1, %q2" : "+w"(b) : "w"(a), "w"(mask));
    return b;
}

/* Parameters of 8 channels. */
typedef struct block {
    vec mul, residual_mul, residual_one; /* one: all ones where k is 1 */
    vec slope, slope_k, positive, positive_k;
    vec low, high;
    int32x4_t add[2];
} block;

typedef struct row_of {
    const uint8_t *acc, *residual;
    uint8_t *trunk, *a, *b;                                /* a, b: the planes of the packed output */
    uint32_t width, channels, acc_step, step, packed_step; /* bytes from pixel to pixel */
    int small;                                             /* accumulators of 8 bits */
    int shift;
} row_of;

enum { NONE, ANY, ONE }; /* residual: absent, factor 1 exactly */
enum {
    MIXED,
    WIDE,
    SMALL
}; /* operands: any; trunk and packed outputs from accumulators of 16 bits; of 8 bits */
enum { FLAT, SLOPES, STEEP }; /* two-slope: absent, 1 above and k = 0 below zero, any */

BD_INLINE vec upper_half(int32x4_t low, int32x4_t high) {
    return vuzpq_s16(vreinterpretq_s16_s32(low), vreinterpretq_s16_s32(high)).val[1];
}

BD_INLINE int32x4_t low_product(vec a, vec b) {
    return vmull_s16(vget_low_s16(a), vget_low_s16(b));
}

BD_INLINE int32x4_t high_product(vec a, vec b) {
    return vmull_s16(vget_high_s16(a), vget_high_s16(b));
}

/* y of 8 channels. */
BD_INLINE vec value(const block *k, vec acc, vec residual, int form, int slopes, int32x4_t shift) {
    int32x4_t low = vshlq_s32(low_product(acc, k->mul), shift);
    int32x4_t high = vshlq_s32(high_product(acc, k->mul), shift); /* (acc << shift) * m, modulo 2**32 */
    if (form == ANY) {
        low = vmlal_s16(low, vget_low_s16(residual), vget_low_s16(k->residual_mul));
        high = vmlal_s16(high, vget_high_s16(residual), vget_high_s16(k->residual_mul));
    }
    HIDE(low);
    HIDE(high);
    vec v = vcombine_s16(vaddhn_s32(low, k->add[0]), vaddhn_s32(high, k->add[1]));
    if (form != NONE) {
        v = vqaddq_s16(v, form == ONE ? residual : vandq_s16(residual, k->residual_one));
    }
    if (slopes == SLOPES) {
        const vec t = upper_half(low_product(v, k->slope), high_product(v, k->slope));
        v = select(vshrq_n_s16(v, 15), t, v);
    } else if (slopes == STEEP) { /* the factor of this sign */
        const vec negative = vshrq_n_s16(v, 15), m = select(negative, k->slope, k->positive);
        const vec n = select(negative, k->slope_k, k->positive_k);
        low = vshrq_n_s32(low_product(v, m), 16);
        high = vshrq_n_s32(high_product(v, m), 16);
        low = vmlal_s16(low, vget_low_s16(v), vget_low_s16(n));
        high = vmlal_s16(high, vget_high_s16(v), vget_high_s16(n));
        v = vcombine_s16(vqmovn_s32(low), vqmovn_s32(high));
    }
    return v;
}

/* Bytes of all ones where y is below its threshold. */
BD_INLINE uint8x8_t below(vec y, vec threshold) {
    return vmovn_u16(vcltq_s16(y, threshold));
}

/* 8 bits of each pixel. */
BD_INLINE uint8_t *pack(uint8_t *to, uint32_t step, const uint8x8_t mask[4], uint32_t pixels,
                        uint8x16_t place) {
    const uint8x16_t a = vandq_u8(vcombine_u8(mask[0], mask[1]), place);
    uint8x8_t v = vpadd_u8(vget_low_u8(a), vget_high_u8(a));
    if (pixels == 4u) {
        const uint8x16_t b = vandq_u8(vcombine_u8(mask[2], mask[3]), place);
        v = vpadd_u8(v, vpadd_u8(vget_low_u8(b), vget_high_u8(b)));
    } else {
        v = vpadd_u8(v, v);
    }
    v = vpadd_u8(v, v);
    vst1_lane_u8(to, v, 0);
    if (pixels == 4u) {
        vst1_lane_u8(to + step, v, 1);
        vst1_lane_u8(to + 2u * step, v, 2);
        vst1_lane_u8(to + 3u * step, v, 3);
    }
    return to + pixels * step;
}

/* One or four pixels; moves the row's pointers on. */
BD_INLINE void some_pixels(row_of *r, const block *k, uint32_t pixels, int form, int slopes, int trits,
                           int operands, uint8x16_t place, int32x4_t shift) {
    uint8x8_t a[4], b[4];
    UNROLLED
    for (uint32_t i = 0; i < pixels; i++) {
        vec acc;
        if (operands == SMALL || (operands == MIXED && r->small)) {
            acc = vmovl_s8(vld1_s8((const void *)r->acc));
        } else {
            acc = vld1q_s16((const void *)r->acc);
        }
        r->acc += r->acc_step;
        vec residual = acc;
        if (form != NONE) {
            residual = vld1q_s16((const void *)r->residual);
            r->residual += r->step;
        }
        const vec y = value(k, acc, residual, form, slopes, shift);
        if (operands != MIXED || r->trunk != NULL) {
            vst1q_s16((void *)r->trunk, y);
            r->trunk += r->step;
        }
        a[i] = below(y, k->low);
        b[i] = trits ? below(y, k->high) : a[i];
        IN_ORDER(a[i]);
        IN_ORDER(b[i]);
    }
    if (pixels == 1u) {
        a[1] = a[0];
        b[1] = b[0];
    }
    if (operands != MIXED || r->a != NULL) {
        r->a = pack(r->a, r->packed_step, a, pixels, place);
        if (trits) {
            r->b = pack(r->b, r->packed_step, b, pixels, place);
        }
    }
}

/* The m parts of 8 factors, and where asked for their k parts. */
BD_INLINE void split(const uint8_t *constants, uint32_t offset, uint32_t c, vec *m, vec *k) {
    const int32_t *from = bd_parameters(constants, offset, c);
    const int32x4_t a = vld1q_s32(from), b = vld1q_s32(from + 4);
    *m = vcombine_s16(vmovn_s32(a), vmovn_s32(b));
    if (k != NULL) {
        *k = vcombine_s16(vrshrn_n_s32(a, 16), vrshrn_n_s32(b, 16));
    }
}

BD_INLINE vec thresholds(const uint8_t *constants, uint32_t offset, uint32_t c) {
    const int32_t *from = bd_parameters(constants, offset, c);
    return vcombine_s16(vqmovn_s32(vld1q_s32(from)), vqmovn_s32(vld1q_s32(from + 4)));
}

BD_INLINE block load_block(const bd_epilogue *e, const uint8_t *constants, uint32_t c, int form, int slopes,
                           int trits) {
    const vec zero = vdupq_n_s16(0);
    const int32_t *add = bd_parameters(constants, e->add, c);
    block b = {zero, zero, zero, zero, zero, zero, zero, zero, zero, {vld1q_s32(add), vld1q_s32(add + 4)}};
    vec k;
    split(constants, e->mul, c, &b.mul, NULL);
    if (form == ANY) {
        split(constants, e->residual_mul, c, &b.residual_mul, &k);
        b.residual_one = vnegq_s16(k);
    }
    if (slopes == SLOPES) {
        split(constants, e->negative, c, &b.slope, NULL);
    } else if (slopes == STEEP) {
        split(constants, e->positive, c, &b.positive, &b.positive_k);
        split(constants, e->negative, c, &b.slope, &b.slope_k);
    }
    if (e->low != BD_ABSENT) {
        b.low = thresholds(constants, e->low, c);
    }
    b.high = trits ? thresholds(constants, e->high, c) : b.low;
    return b;
}

/* All channels of a row, 8 at once. */
BD_INLINE void pixels_of(const row_of *r, const bd_epilogue *e, const uint8_t *constants, int form,
                         int slopes, int trits, int operands) {
    static const uint8_t places[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t place = vld1q_u8(places);
    const int32x4_t shift = vdupq_n_s32(r->shift);
    for (uint32_t c = 0; c < r->channels; c += 8u) {
        const block b = load_block(e, constants, c, form, slopes, trits);
        row_of o = *r;
        o.acc += r->small ? c : 2u * c;
        o.residual = form != NONE ? o.residual + 2u * c : NULL;
        o.trunk = o.trunk != NULL ? o.trunk + 2u * c : NULL;
        o.a = o.a != NULL ? o.a + c / 8u : NULL;
        o.b = trits ? o.b + c / 8u : NULL;
        for (uint32_t left = o.width / 4u; left != 0; left--) {
            some_pixels(&o, &b, 4, form, slopes, trits, operands, place, shift);
        }
        for (uint32_t left = o.width % 4u; left != 0; left--) {
            some_pixels(&o, &b, 1, form, slopes, trits, operands, place, shift);
        }
    }
}

#define FORM(form, slopes, operands)                                                                         \
    static BD_APART void bits_##form##_##slopes##_##operands(const row_of *r, const bd_epilogue *e,          \
                                                             const uint8_t *constants) {                     \
        pixels_of(r, e, constants, form, slopes, 0, operands);                                               \
    }                                                                                                        \
    static BD_APART void trits_##form##_##slopes##_##operands(const row_of *r, const bd_epilogue *e,         \
                                                              const uint8_t *constants) {                    \
        pixels_of(r, e, constants, form, slopes, 1, operands);                                               \
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

typedef void (*form_fn)(const row_of *r, const bd_epilogue *e, const uint8_t *constants);

#define BY_OPERANDS(form, slopes) {form##_##slopes##_MIXED, form##_##slopes##_WIDE, form##_##slopes##_SMALL}
#define BY_SLOPES(form) {BY_OPERANDS(form, FLAT), BY_OPERANDS(form, SLOPES), BY_OPERANDS(form, STEEP)}

static form_fn const forms[2][3][3][3] = {
    {BY_SLOPES(bits_NONE), BY_SLOPES(bits_ANY), BY_SLOPES(bits_ONE)},
    {BY_SLOPES(trits_NONE), BY_SLOPES(trits_ANY), BY_SLOPES(trits_ONE)}};

/* Whether a bit of v is 1. */
static int any(int32x4_t v) {
    const int32x2_t half = vorr_s32(vget_low_s32(v), vget_high_s32(v));
    return (vget_lane_s32(half, 0) | vget_lane_s32(half, 1)) != 0;
}

/* All ones where v is not in low .. high. */
BD_INLINE int32x4_t outside(int32x4_t v, int32_t low, int32_t high) {
    return vreinterpretq_s32_u32(vorrq_u32(vcltq_s32(v, vdupq_n_s32(low)), vcgtq_s32(v, vdupq_n_s32(high))));
}

/* Form and slopes that do for all channels; 0 where the plain kernel has to do it. */
static int forms_of(const bd_epilogue *e, const uint8_t *constants, uint32_t channels, int *form,
                    int *slopes) {
    const int32x4_t zero = vdupq_n_s32(0), one = vdupq_n_s32(0x10000);
    const int32_t *mul = bd_parameters(constants, e->mul, 0);
    int32x4_t bad = zero, other = zero, steep = zero;
    for (uint32_t c = 0; c < channels; c += 4u) {
        bad = vorrq_s32(bad, outside(vld1q_s32(mul + c), -0x8000, 0x7fff));
    }
    if (e->residual_mul != BD_ABSENT) {
        const int32_t *from = bd_parameters(constants, e->residual_mul, 0);
        for (uint32_t c = 0; c < channels; c += 4u) {
            const int32x4_t v = vld1q_s32(from + c);
            bad = vorrq_s32(bad, outside(v, -0x8000, 0x17fff));
            other = vorrq_s32(other, veorq_s32(v, one));
        }
    }
    if (e->positive != BD_ABSENT) {
        const int32_t *from = bd_parameters(constants, e->positive, 0);
        const int32_t *negative = bd_parameters(constants, e->negative, 0);
        for (uint32_t c = 0; c < channels; c += 4u) {
            const int32x4_t above = vld1q_s32(from + c), below_zero = vld1q_s32(negative + c);
            steep = vorrq_s32(steep, vorrq_s32(veorq_s32(above, one), outside(below_zero, -0x8000, 0x7fff)));
            bad = vorrq_s32(bad, outside(vmaxq_s32(above, below_zero), INT32_MIN, 0x7fff7fff)); /* k fits */
        }
    }
    for (uint32_t i = 0; i < 2u; i++) {
        const uint32_t offset = i == 0 ? e->low : e->high;
        const int32_t *from = offset != BD_ABSENT ? bd_parameters(constants, offset, 0) : NULL;
        for (uint32_t c = 0; c < channels && from != NULL; c += 4u) {
            bad = vorrq_s32(bad, outside(vld1q_s32(from + c), INT32_MIN, INT16_MAX)); /* above all values */
        }
    }
    *form = e->residual_mul == BD_ABSENT ? NONE : any(other) ? ANY : ONE;
    *slopes = e->positive == BD_ABSENT ? FLAT : any(steep) ? STEEP : SLOPES;
    return !any(bad);
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
    int form, slopes;
    if (!forms_of(e, constants, channels, &form, &slopes)) {
        return bd_epilogue_i16.run(step, constants, in, out, y0, rows, scratch);
    }
    row_of r;
    r.width = in->width;
    r.channels = channels;
    r.small = in->dtype == BD_I8;
    r.acc_step = channels * (r.small ? 1u : 2u);
    r.step = channels * 2u;
    r.packed_step = channels / 8u;
    r.shift = e->shift;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const bd_epilogue_rows at = bd_rows_of(in, out, y);
        r.acc = at.acc;
        r.residual = at.residual;
        r.trunk = at.trunk;
        r.a = at.packed;
        r.b = e->high != BD_ABSENT ? at.packed + (size_t)in->width * (channels / 8u) : NULL;
        const int operands = r.trunk == NULL || r.a == NULL ? MIXED : r.small ? SMALL : WIDE;
        forms[e->high != BD_ABSENT][form][slopes][operands](&r, e, constants);
    }
    return BD_OK;
}

BD_DEFINE_VARIANT(bd_epilogue_i16, neon32, epilogue)
