/* Fixed-point epilogues on Armv8.1-M vectors: 8 channels at once.
 *
 * Of factors k * 65536 + m the products with m take 32 bits in even and odd lanes, their sums' upper halves make 16 bits
 * again, and k, 0 or 1, is a saturating addition. The parameters of 32 channels are brought into that form once for all rows
 * of a call. A step with other parameters or operands is the generic kernel's; that depends on constants only. */
#include "bd_epilogue.h"
#include "bd_kernels.h"
#include "bd_mve.h"

typedef int16x8_t vec;

/* Parameters of 32 channels; addends of 8 channels first even, then odd ones. */
typedef struct block {
    int16_t mul[32], residual_mul[32], residual_one[32];                /* one: k */
    int16_t negative[32], negative_k[32], positive[32], positive_k[32]; /* slopes k * 65536 + m */
    int16_t low[32], high[32];
    int32_t add[32];
    int8_t low_bytes[32], high_bytes[32]; /* thresholds, where all fit */
} block;

typedef struct row_of {
    const uint8_t *acc, *residual;
    uint8_t *trunk;
    uint32_t *a, *b;                             /* the planes of the packed output */
    uint32_t width, step;                        /* elements from pixel to pixel */
    uint32_t residual_step;                      /* the same of a residual whose channels repeat */
    uint32_t packed_step;                        /* words */
    uint32_t groups;                             /* of 8 channels */
    int shift, wide_shift;                       /* to the left */
    uint32_t wide;                               /* whether accumulators have 32 bits */
    uint32_t small, small_residual, small_trunk; /* whether these are bytes */
} row_of;

enum { NONE, ANY, ONE }; /* residual: absent, factor 1 exactly */
enum {
    LEVELS,
    PLAIN,
    SLOPES,
    STEEP
}; /* only compared; affine; and a negative slope with k = 0; and any slopes */

BD_INLINE vec load_vec(const uint8_t *from, uint32_t at, uint32_t small) {
    return small ? vldrbq_s16((const int8_t *)from + at)
                 : vld1q_s16((const int16_t *)(const void *)from + at);
}

BD_INLINE vec upper_halves(int32x4_t even, int32x4_t odd) {
    return vshrntq_n_s32(vshrnbq_n_s32(vuninitializedq_s16(), even, 16), odd, 16);
}

BD_INLINE vec to_bytes(vec v) {
    return vminq_s16(vmaxq_s16(v, vdupq_n_s16(INT8_MIN)), vdupq_n_s16(INT8_MAX));
}

/* y of 8 channels. */
BD_INLINE vec value(const block *k, uint32_t at, vec acc, vec residual, int32x4_t shift, int form, int stages,
                    int produced_i8) {
    const vec m = vld1q_s16(k->mul + at);
    int32x4_t even = vaddq_s32(vshlq_s32(vmullbq_int_s16(acc, m), shift), vld1q_s32(k->add + at));
    int32x4_t odd = vaddq_s32(vshlq_s32(vmulltq_int_s16(acc, m), shift), vld1q_s32(k->add + at + 4));
    if (form == ANY) {
        const vec n = vld1q_s16(k->residual_mul + at);
        even = vaddq_s32(even, vmullbq_int_s16(residual, n));
        odd = vaddq_s32(odd, vmulltq_int_s16(residual, n));
    }
    vec v = upper_halves(even, odd);
    if (form == ANY) {
        v = vqaddq_s16(v, vmulq_s16(residual, vld1q_s16(k->residual_one + at)));
    } else if (form == ONE) {
        v = vqaddq_s16(v, residual);
    }
    v = produced_i8 ? to_bytes(v) : v;
    if (stages == SLOPES) {
        const vec n = vld1q_s16(k->negative + at);
        const vec t = upper_halves(vmullbq_int_s16(v, n), vmulltq_int_s16(v, n));
        v = vpselq_s16(t, v, vcmpltq_n_s16(v, 0));
        v = produced_i8 ? to_bytes(v) : v;
    }
    if (stages == STEEP) {
        const mve_pred16_t below_zero = vcmpltq_n_s16(v, 0);
        const vec low = vpselq_s16(vld1q_s16(k->negative + at), vld1q_s16(k->positive + at), below_zero);
        const vec n = vpselq_s16(vld1q_s16(k->negative_k + at), vld1q_s16(k->positive_k + at), below_zero);
        const int32x4_t e = vaddq_s32(vshrq_n_s32(vmullbq_int_s16(v, low), 16), vmullbq_int_s16(v, n));
        const int32x4_t o = vaddq_s32(vshrq_n_s32(vmulltq_int_s16(v, low), 16), vmulltq_int_s16(v, n));
        v = vqmovntq_s32(vqmovnbq_s32(vuninitializedq_s16(), e), o);
        v = produced_i8 ? to_bytes(v) : v;
    }
    return v;
}

/* A word of bits of 32 channels, which are 1 where y is below its threshold. */
BD_INLINE uint32_t below(const vec y[4], const int16_t *threshold, uint32_t groups) {
    static const uint16_t place_of[16] = {1 << 0,  1 << 1,  1 << 2,  1 << 3, 1 << 4,  1 << 5,
                                          1 << 6,  1 << 7,  1 << 8,  1 << 9, 1 << 10, 1 << 11,
                                          1 << 12, 1 << 13, 1 << 14, 1 << 15};
    const uint16x8_t place = vld1q_u16(place_of), upper = vld1q_u16(place_of + 8);
    uint32_t low = vaddvq_p_u16(place, vcmpltq_s16(y[0], vld1q_s16(threshold))), high = 0;
    if (groups > 1u) {
        low = vaddvaq_p_u16(low, upper, vcmpltq_s16(y[1], vld1q_s16(threshold + 8)));
    }
    if (groups > 2u) {
        high = vaddvq_p_u16(place, vcmpltq_s16(y[2], vld1q_s16(threshold + 16)));
    }
    if (groups > 3u) {
        high = vaddvaq_p_u16(high, upper, vcmpltq_s16(y[3], vld1q_s16(threshold + 24)));
    }
    return low | high << 16;
}

/* One row of a block of channels. */
BD_INLINE void row(const row_of *r, const block *k, uint32_t groups, int form, int stages, int produced_i8) {
    const uint8_t *acc = r->acc, *residual = r->residual;
    uint8_t *trunk = r->trunk;
    uint32_t *a = r->a, *b = r->b;
    const uint32_t small = r->small, small_residual = r->small_residual, small_trunk = r->small_trunk;
    const uint32_t step = r->step, packed_step = r->packed_step, residual_step = r->residual_step;
    const int32x4_t shift = vdupq_n_s32(r->shift);
    for (uint32_t left = r->width; left != 0; left--) {
        vec y[4];
        if (small) {
#pragma GCC unroll 4
            for (uint32_t g = 0; g < groups; g++) {
                y[g] = load_vec(acc, 8u * g, 1);
            }
            acc += step;
        } else if (r->wide) { /* shifted to the right and saturated */
#pragma GCC unroll 4
            for (uint32_t g = 0; g < groups; g++) {
                const int32x4x2_t v = vld2q_s32((const int32_t *)(const void *)acc + 8u * g);
                const int32x4_t even = vshlq_r_s32(v.val[0], r->wide_shift);
                const int32x4_t odd = vshlq_r_s32(v.val[1], r->wide_shift);
                y[g] = vqmovntq_s32(vqmovnbq_s32(vuninitializedq_s16(), even), odd);
            }
            acc += 4u * step;
        } else {
#pragma GCC unroll 4
            for (uint32_t g = 0; g < groups; g++) {
                y[g] = load_vec(acc, 8u * g, 0);
            }
            acc += 2u * step;
        }
        if (stages != LEVELS) {
#pragma GCC unroll 4
            for (uint32_t g = 0; g < groups; g++) {
                const vec other = form != NONE ? load_vec(residual, 8u * g, small_residual) : y[g];
                y[g] = value(k, 8u * g, y[g], other, shift, form, stages, produced_i8);
            }
            residual += small_residual ? residual_step : 2u * residual_step;
        }
        if (trunk != NULL && small_trunk) {
#pragma GCC unroll 4
            for (uint32_t g = 0; g < groups; g++) {
                vstrbq_s16((int8_t *)trunk + 8u * g, y[g]);
            }
            trunk += step;
        } else if (trunk != NULL) {
#pragma GCC unroll 4
            for (uint32_t g = 0; g < groups; g++) {
                vst1q_s16((int16_t *)(void *)trunk + 8u * g, y[g]);
            }
            trunk += 2u * step;
        }
        if (a != NULL) {
            *a = below(y, k->low, groups);
            a += packed_step;
        }
        if (b != NULL) {
            *b = below(y, k->high, groups);
            b += packed_step;
        }
    }
}

/* Bits of 32 accumulators of 8 bits: a comparison of 16 lanes is 16 bits. */
static BD_APART void byte_levels(const row_of *r, const block *k) {
    const int8_t *acc = (const int8_t *)r->acc;
    const int8x16_t low0 = vld1q_s8(k->low_bytes), low1 = vld1q_s8(k->low_bytes + 16);
    const int8x16_t high0 = vld1q_s8(k->high_bytes), high1 = vld1q_s8(k->high_bytes + 16);
    uint32_t *a = r->a, *b = r->b;
    const uint32_t step = r->step, packed_step = r->packed_step;
    for (uint32_t left = r->width; left != 0; left--) {
        const int8x16_t y = vld1q_s8(acc), z = vld1q_s8(acc + 16);
        *a = (uint32_t)vcmpltq_s8(y, low0) | (uint32_t)vcmpltq_s8(z, low1) << 16;
        if (b != NULL) {
            *b = (uint32_t)vcmpltq_s8(y, high0) | (uint32_t)vcmpltq_s8(z, high1) << 16;
            b += packed_step;
        }
        acc += step;
        a += packed_step;
    }
}

/* Of four groups, to int16, as quick as can be; the others share one body. */
#define ROW(name, form, stages)                                                                              \
    static BD_APART void name(const row_of *r, const block *k) {                                             \
        row(r, k, 4, form, stages, 0);                                                                       \
    }

ROW(levels, NONE, LEVELS)
ROW(plain_none, NONE, PLAIN)
ROW(plain_any, ANY, PLAIN)
ROW(plain_one, ONE, PLAIN)
ROW(slopes_none, NONE, SLOPES)
ROW(slopes_any, ANY, SLOPES)
ROW(slopes_one, ONE, SLOPES)
ROW(steep_none, NONE, STEEP)
ROW(steep_any, ANY, STEEP)
ROW(steep_one, ONE, STEEP)

typedef void (*row_fn)(const row_of *r, const block *k);
static const row_fn ROWS[3][3] = {{plain_none, plain_any, plain_one},
                                  {slopes_none, slopes_any, slopes_one},
                                  {steep_none, steep_any, steep_one}};

static BD_APART void any_row(const row_of *r, const block *k, int form, int stages, int produced_i8) {
    row(r, k, r->groups, form, stages, produced_i8);
}

/* n 32-bit parameters as 16 bits; whether all fit. */
static int narrow(int16_t *to, const int32_t *from, uint32_t n) {
    int32x4_t wrong = vdupq_n_s32(0);
    for (uint32_t i = 0; i < n; i += 4u) {
        const int32x4_t v = vld1q_s32(from + i);
        vstrhq_s32(to + i, v);
        wrong = vorrq_s32(wrong, veorq_s32(v, vldrhq_s32(to + i)));
    }
    return vmaxvq_u32(0, vreinterpretq_u32_s32(wrong)) == 0;
}

static int all_equal(const int32_t *from, uint32_t n, int32_t value) {
    int32x4_t wrong = vdupq_n_s32(0);
    for (uint32_t i = 0; i < n; i += 4u) {
        wrong = vorrq_s32(wrong, veorq_s32(vld1q_s32(from + i), vdupq_n_s32(value)));
    }
    return vmaxvq_u32(0, vreinterpretq_u32_s32(wrong)) == 0;
}

/* Factors k * 65536 + m; whether k is 0 or 1 everywhere. */
static int split(int16_t *m, int16_t *k, const int32_t *from, uint32_t n) {
    int32x4_t most = vdupq_n_s32(0);
    for (uint32_t i = 0; i < n; i += 4u) {
        const int32x4_t v = vld1q_s32(from + i);
        const int32x4_t high = vshrq_n_s32(vaddq_n_s32(v, 0x8000), 16);
        vstrhq_s32(m + i, v);
        vstrhq_s32(k + i, high);
        most = vorrq_s32(most, high);
    }
    return vmaxvq_u32(0, vreinterpretq_u32_s32(most)) <= 1u;
}

/* The parameters of n channels from c on. Returns the residual's form, or -1 where they are of another kind. */
static int prepare(block *k, const bd_epilogue *e, const uint8_t *constants, uint32_t c, uint32_t n,
                   int *stages) {
    int form = NONE;
    if (e->mul != BD_ABSENT) {
        const int32_t *add = bd_parameters(constants, e->add, c);
        if (!narrow(k->mul, bd_parameters(constants, e->mul, c), n)) {
            return -1;
        }
        for (uint32_t i = 0; i < n; i += 8u) {
            const int32x4x2_t both = vld2q_s32(add + i);
            vst1q_s32(k->add + i, both.val[0]);
            vst1q_s32(k->add + i + 4u, both.val[1]);
        }
    }
    if (e->residual_mul != BD_ABSENT) {
        const int32_t *mul = bd_parameters(constants, e->residual_mul, c);
        form = all_equal(mul, n, 65536) ? ONE : ANY;
        if (!split(k->residual_mul, k->residual_one, mul, n)) {
            return -1;
        }
    }
    *stages = e->mul == BD_ABSENT ? LEVELS : PLAIN;
    if (e->positive != BD_ABSENT) {
        const int32_t *positive = bd_parameters(constants, e->positive, c);
        const int32_t *negative = bd_parameters(constants, e->negative, c);
        *stages = all_equal(positive, n, 65536) && narrow(k->negative, negative, n) ? SLOPES : STEEP;
        if (*stages == STEEP) {
            split(k->positive, k->positive_k, positive, n);
            split(k->negative, k->negative_k, negative, n);
        }
    }
    if ((e->low != BD_ABSENT && !narrow(k->low, bd_parameters(constants, e->low, c), n)) ||
        (e->high != BD_ABSENT && !narrow(k->high, bd_parameters(constants, e->high, c), n))) {
        return -1;
    }
    return form;
}

BD_INLINE uint32_t is_small(const bd_view *view) {
    return view->dtype == BD_I8 ? 1u : 0u;
}

BD_INLINE int is_number(const bd_view *view) {
    return view->dtype == BD_I8 || view->dtype == BD_I16;
}

static int takes(const bd_step *step, const bd_epilogue *e, const bd_view in[], const bd_view out[]) {
    const int affine = e->mul != BD_ABSENT, residual = e->residual_mul != BD_ABSENT;
    const int wide = affine && in[0].dtype == BD_I32;
    const int fits =
        !affine || ((wide ? e->shift <= 0 : e->shift >= 0) &&
                    (!residual || (e->residual_shift == 0 && is_number(&in[1]) &&
                                   (in[1].channels == step->out_channels || in[1].channels % 32u == 0) &&
                                   in[1].width == step->out_width)));
    return fits && (wide || is_number(&in[0])) && e->repeats == 0 && step->out_channels % 8u == 0 &&
           (affine || e->positive == BD_ABSENT) && (affine || out[0].rows_held == 0) && in[0].order == 0 &&
           in[0].channels == step->out_channels && (out[0].rows_held == 0 || is_number(&out[0])) &&
           (!residual || in[1].base != out[0].base || /* in place */
            (in[1].dtype == out[0].dtype && in[1].channels == out[0].channels));
}

/* 32 thresholds as bytes; whether all fit. */
static int to_8_bits(int8_t *to, const int16_t *from) {
    int16x8_t wrong = vdupq_n_s16(0);
    for (uint32_t i = 0; i < 32u; i += 8u) {
        const vec v = vld1q_s16(from + i);
        vstrbq_s16(to + i, v);
        wrong = vorrq_s16(wrong, veorq_s16(v, vldrbq_s16(to + i)));
    }
    return vmaxvq_u16(0, vreinterpretq_u16_s16(wrong)) == 0;
}

/* All rows of a block of 32 channels; 0 where its parameters are of another kind. */
static int block_rows(const bd_step *step, const bd_epilogue *e, const uint8_t *constants, const bd_view in[],
                      const bd_view out[], uint32_t y0, uint32_t rows, uint32_t c) {
    const uint32_t channels = step->out_channels, n = channels - c < 32u ? channels - c : 32u;
    const int i8 = e->dtype == BD_I8;
    block k;
    int stages;
    const int form = prepare(&k, e, constants, c, n, &stages);
    if (form < 0) {
        return 0;
    }
    row_fn run = stages == LEVELS ? levels : ROWS[stages - PLAIN][form];
    if (stages == LEVELS && n == 32u && is_small(&in[0]) && e->low != BD_ABSENT && out[1].rows_held != 0 &&
        to_8_bits(k.low_bytes, k.low) && (e->high == BD_ABSENT || to_8_bits(k.high_bytes, k.high))) {
        run = byte_levels;
    }
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const bd_epilogue_rows from = bd_rows_of(in, out, y);
        row_of r;
        r.width = step->out_width;
        r.step = channels;
        r.residual_step = form != NONE ? in[1].channels : 0u;
        r.groups = n / 8u;
        r.wide = in[0].dtype == BD_I32 ? 1u : 0u;
        r.shift = r.wide ? 0 : e->shift;
        r.wide_shift = e->shift;
        r.small = is_small(&in[0]);
        r.small_residual = is_small(&in[1]);
        r.small_trunk = is_small(&out[0]);
        r.acc = from.acc + c * (r.small ? 1u : r.wide ? 4u : 2u);
        r.residual =
            form != NONE ? from.residual + (c % in[1].channels) * (r.small_residual ? 1u : 2u) : from.acc;
        r.trunk = from.trunk != NULL ? from.trunk + (r.small_trunk ? c : 2u * c) : NULL;
        r.a = r.b = NULL;
        r.packed_step = bd_words(channels);
        if (from.packed != NULL) {
            r.a = bd_packed_at(&out[1], from.packed, 0, c, &r.b);
        }
        if (n == 32u && !i8) {
            run(&r, &k);
        } else {
            any_row(&r, &k, form, stages, i8);
        }
    }
    return 1;
}

BD_INLINE bd_status epilogue(const bd_step *step, const uint8_t *constants, const bd_view in[],
                             const bd_view out[], uint32_t y0, uint32_t rows, void *scratch,
                             const bd_kernel *generic) {
    const bd_epilogue *e = (const void *)(constants + step->epilogue_at);
    block k;
    int usual = takes(step, e, in, out), stages;
    /* All blocks or none: the trunk may lie where the residual did. */
    for (uint32_t c = 32; usual && c < step->out_channels; c += 32u) {
        const uint32_t left = step->out_channels - c;
        usual = prepare(&k, e, constants, c, left < 32u ? left : 32u, &stages) >= 0;
    }
    if (!usual || !block_rows(step, e, constants, in, out, y0, rows, 0)) {
        return generic->run(step, constants, in, out, y0, rows, scratch);
    }
    for (uint32_t c = 32; c < step->out_channels; c += 32u) {
        block_rows(step, e, constants, in, out, y0, rows, c);
    }
    return BD_OK;
}

#define EPILOGUE(name)                                                                                       \
    static bd_status run_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],           \
                                const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {            \
        return epilogue(step, constants, in, out, y0, rows, scratch, &bd_epilogue_##name);                   \
    }                                                                                                        \
    BD_DEFINE_VARIANT(bd_epilogue_##name, mve, run_##name)

EPILOGUE(i32)
EPILOGUE(i16)
EPILOGUE(i8)
