/* Fixed-point epilogue with a pre-BN residual and a ternarizer, packed SIMD (Armv7E-M): int8 accumulators and
 * an int16 residual to an int16 trunk and two planes of bits.
 *
 *     v = saturate((((acc << shift) * mul + residual * residual_mul + add) >> 16) + (residual & keep))
 *     y = v >= 0 ? v : saturate(((v * negative) >> 16) + (v & keep_negative))
 *     a = y < low, b = y < high
 *
 * Records of two channels, two channels a word, then thresholds of four; `keep` is 0 or -1 in each half, the
 * whole part of a factor. Bytes 0 2 1 3 of an accumulator word are channels 4q .. 4q + 3 (order 1), and so
 * two masks make it int16 pairs that are shifted to the left by 8 already; bit 8j + q of a packed word
 * belongs to byte j of word q, as in the depth-wise kernels. The trunk is in natural order. */
#include "bd_kernel.h"
#include <arm_acle.h>

#define SIGNS 0x80008000u
/* Pointers that move on, rather than one index and sums with it. */
#define KEEP_POINTERS(x, y, z) __asm__("" : "+r"(x), "+r"(y), "+r"(z))

/* The next words of p, which moves on: one instruction. The variables are r0, r1, r2 and r3. */
#define LOAD3(p, a, b, c)                                                                                    \
    __asm__("ldmia %0!, {r0, r1, r2}" : "+r"(p), "=r"(a), "=r"(b), "=r"(c) : "m"(*(const uint32_t (*)[3])p))
#define LOAD4(p, a, b, c, d)                                                                                 \
    __asm__("ldmia %0!, {r0, r1, r2, r3}"                                                                    \
            : "+r"(p), "=r"(a), "=r"(b), "=r"(c), "=r"(d)                                                    \
            : "m"(*(const uint32_t (*)[4])p))

/* What is the same in all channels of a layer. */
enum { NONE, ALL, MASK };
typedef struct form {
    uint32_t shift;          /* 8 to 15 */
    int residual_factor;     /* 0: residual_mul is 0 everywhere */
    int keep, keep_negative; /* NONE, ALL or MASK */
    int saturate;            /* 0: v + residual was proved to fit */
} form;

/* Words of a record of two channels: mul, add, add [, residual_mul], negative [, keep] [, keep_negative]. */
static inline uint32_t record_words(form f) {
    return 4u + (f.residual_factor != 0) + (f.keep == MASK) + (f.keep_negative == MASK);
}

static inline __attribute__((always_inline)) uint32_t upper_halves(int32_t low, int32_t high) {
    return ((uint32_t)high & 0xffff0000u) | ((uint32_t)low >> 16); /* pkhtb */
}

static inline __attribute__((always_inline)) uint32_t add_pair(uint32_t x, uint32_t y, int saturate) {
    return (uint32_t)(saturate ? __qadd16((int16x2_t)x, (int16x2_t)y) : __sadd16((int16x2_t)x, (int16x2_t)y));
}

/* Two elements, and the record behind theirs. Records are read by ldm, which takes registers in ascending
 * order. */
static inline __attribute__((always_inline)) uint32_t two_elements(const uint32_t **records, uint32_t acc,
                                                                   uint32_t residual, form f) {
    const uint32_t *p = *records;
    uint32_t v, factor = 0;
    {
        register uint32_t mul __asm__("r0"), low __asm__("r1"), high __asm__("r2"), other __asm__("r3");
        if (f.residual_factor) {
            LOAD4(p, mul, low, high, other);
            factor = other;
        } else {
            LOAD3(p, mul, low, high);
        }
        int32_t v0 = __smlabb((int32_t)acc, (int32_t)mul, (int32_t)low);
        int32_t v1 = __smlatt((int32_t)acc, (int32_t)mul, (int32_t)high);
        if (f.residual_factor) {
            v0 = __smlabb((int32_t)residual, (int32_t)factor, v0);
            v1 = __smlatt((int32_t)residual, (int32_t)factor, v1);
        }
        v = upper_halves(v0, v1);
    }
    const uint32_t negative = *p++;
    if (f.keep != NONE) {
        v = add_pair(v, f.keep == ALL ? residual : residual & *p++, f.saturate);
    }
    uint32_t y =
        upper_halves(__smulbb((int32_t)v, (int32_t)negative), __smultt((int32_t)v, (int32_t)negative));
    if (f.keep_negative != NONE) {
        y = add_pair(y, f.keep_negative == ALL ? v : v & *p++, 1);
    }
    *records = p;
    (void)__sadd16((int16x2_t)v, (int16x2_t)v); /* flags of the signs */
    return __sel(v, y);
}

/* bits >> 1 with the signs of four differences in front of every byte */
static inline __attribute__((always_inline)) uint32_t shift_in(uint32_t bits, uint32_t y01, uint32_t y23,
                                                               uint32_t t01, uint32_t t23) {
    const uint32_t d01 = (uint32_t)__qsub16((int16x2_t)y01, (int16x2_t)t01) & SIGNS;
    const uint32_t d23 = (uint32_t)__qsub16((int16x2_t)y23, (int16x2_t)t23) & SIGNS;
    return (bits >> 1) | d23 | (d01 >> 8);
}

/* 32 channels of a pixel. Two loops, as one needs more registers than there are. */
static inline __attribute__((always_inline)) void
map_block(uint32_t *trunk, const uint32_t *acc, const uint32_t *residual, const uint32_t *p, form f) {
    const uint32_t *const end = acc + 8;
    const uint32_t lanes = ((0xff00u << (f.shift - 8u)) & 0xff00u) * 0x00010001u;
#pragma clang loop unroll(disable)
    do {
        const uint32_t four = *acc++, r01 = residual[0], r23 = residual[1];
        const uint32_t y01 = two_elements(&p, (four << f.shift) & lanes, r01, f);
        const uint32_t y23 = two_elements(&p, (four << (f.shift - 8u)) & lanes, r23, f);
        trunk[0] = y01;
        trunk[1] = y23;
        residual += 2;
        trunk += 2;
        KEEP_POINTERS(acc, residual, trunk);
    } while (acc != end);
}

static inline __attribute__((always_inline)) void
compare_block(uint32_t *a, uint32_t *b, const uint32_t *trunk, const uint32_t *limits) {
    const uint32_t *const end = trunk + 16;
    uint32_t below_low = 0, below_high = 0;
#pragma clang loop unroll(disable)
    do {
        register uint32_t low01 __asm__("r0"), low23 __asm__("r1"), high01 __asm__("r2"),
            high23 __asm__("r3");
        LOAD4(limits, low01, low23, high01, high23);
        const uint32_t y01 = trunk[0], y23 = trunk[1];
        below_low = shift_in(below_low, y01, y23, low01, low23);
        below_high = shift_in(below_high, y01, y23, high01, high23);
        trunk += 2;
        KEEP_POINTERS(trunk, below_low, below_high);
    } while (trunk != end);
    *a = below_low;
    *b = below_high;
}

static inline __attribute__((always_inline)) void run_rows(const bd_step *step, const uint8_t *constants,
                                                           const bd_view in[], const bd_view out[],
                                                           uint32_t y0, uint32_t rows, form f) {
    const bd_epilogue *e = (const bd_epilogue *)(const void *)(constants + step->epilogue_at);
    const uint32_t *const records = (const uint32_t *)(const void *)(constants + e->mul);
    const uint32_t width = out[0].width, words = bd_words(out[0].channels), plane = width * words;
    const uint32_t *const limits = records + 16u * words * record_words(f);
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const uint32_t *acc = (const uint32_t *)(const void *)bd_row(&in[0], y);
        const uint32_t *residual = (const uint32_t *)(const void *)bd_row(&in[1], y);
        uint32_t *trunk = (uint32_t *)(void *)bd_row(&out[0], y);
        uint32_t *packed = (uint32_t *)(void *)bd_row(&out[1], y);
        for (uint32_t x = 0; x < width; x++) {
            for (uint32_t k = 0; k < words; k++) {
                map_block(trunk, acc, residual, records + 16u * record_words(f) * k, f);
                compare_block(packed, packed + plane, trunk, limits + 32u * k);
                acc += 8;
                residual += 16;
                trunk += 16;
                packed++;
            }
        }
    }
}

static bd_status check(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                       const bd_view in[], const bd_view out[], form f) {
    const bd_epilogue *e = (const bd_epilogue *)(const void *)(constants + step->epilogue_at);
    const uint32_t channels = out[0].channels, size = channels * (2u * record_words(f) + 4u);
    if (step->epilogue_at % 4u != 0 || step->epilogue_at > constants_size ||
        sizeof(bd_epilogue) > constants_size - step->epilogue_at) {
        return BD_ERROR_STEP;
    }
    if ((uint32_t)e->shift != f.shift || e->residual_shift != 0 || e->residual_channels != channels ||
        e->mul % 4u != 0 || e->mul > constants_size || size > constants_size - e->mul || channels == 0 ||
        channels % 32u != 0) {
        return BD_ERROR_STEP;
    }
    if (in[0].dtype != BD_I8 || in[0].order != 1 || in[1].dtype != BD_I16 || in[1].order != 0 ||
        out[0].dtype != BD_I16 || out[0].order != 0 || out[1].dtype != BD_TRIT || out[1].order != 1) {
        return BD_ERROR_STEP;
    }
    for (uint32_t i = 0; i < 2; i++) {
        if (in[i].channels != channels || out[i].channels != channels || in[i].width != out[0].width ||
            out[i].width != out[0].width || out[0].width == 0) {
            return BD_ERROR_STEP;
        }
    }
    return BD_OK;
}

#define KERNEL(suffix, ...)                                                                                  \
    static const form form_##suffix = {__VA_ARGS__};                                                         \
    static bd_status run_##suffix(const bd_step *step, const uint8_t *constants, const bd_view in[],         \
                                  const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {          \
        (void)scratch;                                                                                       \
        run_rows(step, constants, in, out, y0, rows, form_##suffix);                                         \
        return BD_OK;                                                                                        \
    }                                                                                                        \
    static bd_status check_##suffix(const bd_step *step, const uint8_t *constants, uint32_t constants_size,  \
                                    const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {      \
        *scratch_bytes = 0;                                                                                  \
        return check(step, constants, constants_size, in, out, form_##suffix);                               \
    }                                                                                                        \
    const bd_kernel bd_epilogue_i16__##suffix = {"bd_epilogue_i16__" #suffix, run_##suffix, check_##suffix}

KERNEL(quad, 11, 1, MASK, MASK, 1);
KERNEL(quad_k1, 11, 1, ALL, NONE, 1);
KERNEL(quad_k0, 11, 1, NONE, NONE, 0);
KERNEL(quad_one, 11, 0, ALL, NONE, 1);
