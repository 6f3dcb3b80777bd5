/* Fixed-point epilogue with a pre-BN residual and a ternarizer, word by word (Armv6-M): 8-bit accumulators
 * and an int16 residual to an int16 trunk and two planes of bits.
 *
 *     v = saturate(((acc * mul + residual * residual_mul + add) >> 16) + (residual & keep))
 *     y = v >= 0 ? v : saturate(((v * negative) >> 16) + (v & keep_negative))
 *     a = y < low, b = y < high
 *
 * A multiplication has 32 bits here: the left shift of the accumulator lies in mul, and where the slope s is
 * between 0 and 1 the negative part is v + ((v * (s - 1)) >> 16), a product that is never negative and below
 * 2^32, without whole part and saturation. Records of one channel, then (low, high) of each plus 2^15, from
 * channel 31 of a word down to 0, as bits are shifted in at the low end. Packed words have natural order;
 * byte 4(c % 8) + c / 8 of every 32 accumulators is channel c, as the depth-wise kernels leave them. A sign
 * is shifted in by its carry: y + 2^15 is below low + 2^15 without a sign. */
#include "bd_kernel.h"

/* Pointers that move on, rather than one index and sums with it. */
#define KEEP_POINTERS(x, y, z) __asm__("" : "+r"(x), "+r"(y), "+r"(z))

enum { NONE, ALL, MASK };
typedef struct form {
    int counts;          /* accumulators: counts (uint8), not int8 */
    int residual_factor; /* 0: residual_mul is 0 everywhere */
    int keep;            /* NONE, ALL or MASK */
    int slope_to_one;    /* every slope is from 0 to 1 */
    int saturate;        /* 0: v + residual was proved to fit */
} form;

/* Words of a record: mul [, residual_mul], add [, keep], negative [, keep_negative]. */
static inline uint32_t record_words(form f) {
    return 3u + (f.residual_factor != 0) + (f.keep == MASK) + (f.slope_to_one == 0);
}

/* The next word of p, which moves on: one instruction. */
static inline __attribute__((always_inline)) uint32_t next(const uint32_t **p) {
    uint32_t word;
    __asm__("ldmia %0!, {%1}" : "+l"(*p), "=l"(word) : "m"(**p));
    return word;
}

/* Compilers turn sums with masks into branches, whose time depends on the data; not when they cannot see the
 * mask. */
#define HIDE(x) __asm__("" : "+l"(x))

static inline __attribute__((always_inline)) uint32_t mask_of_sign(uint32_t x) {
    uint32_t mask = (uint32_t)((int32_t)x >> 31);
    HIDE(mask);
    return mask;
}

/* To 16 bits, of a number of 17. */
static inline __attribute__((always_inline)) uint32_t saturate16(uint32_t x) {
    uint32_t sign = mask_of_sign(x);
    uint32_t over = 0u - ((uint32_t)((int32_t)x >> 15) ^ sign); /* bits 15 and 16 differ: all ones, else 0 */
    HIDE(over);
    x &= ~over;
    sign &= over;
    x |= sign ^ (over >> 17);
    HIDE(x);
    return x;
}

static inline __attribute__((always_inline)) uint32_t one_element(const uint32_t **p, uint32_t acc,
                                                                  uint32_t residual, form f) {
    uint32_t v = acc;
    if (f.residual_factor) { /* (acc * mul + residual * residual_mul + add) >> 16 */
        __asm__("ldmia %1!, {r6, r7}\n\tmuls r6, %0, r6\n\tmuls r7, %2, r7\n\tadds r6, r6, r7\n\t"
                "ldmia %1!, {r7}\n\tadds r6, r6, r7\n\tasrs %0, r6, #16"
                : "+l"(v), "+l"(*p)
                : "l"(residual), "m"(*(const uint32_t (*)[3]) * p)
                : "r6", "r7", "cc");
    } else {
        __asm__("ldmia %1!, {r6, r7}\n\tmuls r6, %0, r6\n\tadds r6, r6, r7\n\tasrs %0, r6, #16"
                : "+l"(v), "+l"(*p)
                : "m"(*(const uint32_t (*)[2]) * p)
                : "r6", "r7", "cc");
    }
    if (f.keep != NONE) {
        v += f.keep == ALL ? residual : residual & next(p);
    }
    if (f.saturate) {
        v = saturate16(v);
    }
    const uint32_t below = v & mask_of_sign(v);
    if (f.slope_to_one) {
        return v + ((below * next(p)) >> 16);
    }
    const uint32_t scaled = (uint32_t)((int32_t)(below * next(p)) >> 16);
    return saturate16(v - below + scaled + (below & next(p)));
}

/* bits * 2 + (y >= limit) for the next two limits; together, lest compilers part the comparisons and run out
 * of registers */
static inline __attribute__((always_inline)) void shift_in(uint32_t *not_low, uint32_t *not_high, uint32_t y,
                                                           const uint32_t **limits) {
    __asm__("ldmia %2!, {r6, r7}\n\tcmp %3, r6\n\tadcs %0, %0\n\tcmp %3, r7\n\tadcs %1, %1"
            : "+l"(*not_low), "+l"(*not_high), "+l"(*limits)
            : "l"(y), "m"(*(const uint32_t (*)[2]) * limits)
            : "r6", "r7", "cc");
}

/* 32 channels of a pixel: 8 of a byte lane at a time. Two loops, as one needs more registers than there are.
 */
static inline __attribute__((always_inline)) void
map_block(uint16_t *trunk, const uint8_t *acc, const int16_t *residual, const uint32_t *p, form f) {
    const uint8_t *const end = acc + 4;
#pragma clang loop unroll(disable)
    do {
#pragma clang loop unroll(full)
        for (uint32_t i = 0; i < 8; i++) {
            const int32_t n = f.counts ? acc[4 * i] : ((const int8_t *)acc)[4 * i];
            trunk[i] = (uint16_t)one_element(&p, (uint32_t)n, (uint32_t)(int32_t)residual[i], f);
        }
        acc++;
        residual += 8;
        trunk += 8;
        KEEP_POINTERS(acc, residual, trunk);
    } while (acc != end);
}

static inline __attribute__((always_inline)) void
compare_block(uint32_t *a, uint32_t *b, const uint32_t *trunk, const uint32_t *limits) {
    const uint32_t *pair = trunk + 16;
    uint32_t not_low = 0, not_high = 0;
#pragma clang loop unroll(disable)
    do {
        pair -= 4;
        KEEP_POINTERS(pair, not_low, not_high);
#pragma clang loop unroll(full)
        for (uint32_t i = 4; i-- > 0;) {
            const uint32_t biased = pair[i] ^ 0x80008000u;
            shift_in(&not_low, &not_high, biased >> 16, &limits);
            shift_in(&not_low, &not_high, biased & 0xffffu, &limits);
        }
    } while (pair != trunk);
    *a = ~not_low;
    *b = ~not_high;
}

static inline __attribute__((always_inline)) void run_rows(const bd_step *step, const uint8_t *constants,
                                                           const bd_view in[], const bd_view out[],
                                                           uint32_t y0, uint32_t rows, form f) {
    const bd_epilogue *e = (const bd_epilogue *)(const void *)(constants + step->epilogue_at);
    const uint32_t *const records = (const uint32_t *)(const void *)(constants + e->mul);
    const uint32_t width = out[0].width, words = bd_words(out[0].channels), plane = width * words;
    const uint32_t block = 32u * record_words(f);
    const uint32_t *const limits = records + block * words;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const uint8_t *acc = bd_row(&in[0], y);
        const int16_t *residual = (const int16_t *)(const void *)bd_row(&in[1], y);
        uint16_t *trunk = (uint16_t *)(void *)bd_row(&out[0], y);
        uint32_t *packed = (uint32_t *)(void *)bd_row(&out[1], y);
        for (uint32_t x = 0; x < width; x++) {
            const uint32_t *p = records, *t = limits;
            for (; p != limits; p += block, t += 64) {
                map_block(trunk, acc, residual, p, f);
                compare_block(packed, packed + plane, (const uint32_t *)(const void *)trunk, t);
                acc += 32;
                residual += 32;
                trunk += 32;
                packed++;
            }
        }
    }
}

static bd_status check(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                       const bd_view in[], const bd_view out[], form f) {
    const bd_epilogue *e = (const bd_epilogue *)(const void *)(constants + step->epilogue_at);
    const uint32_t channels = out[0].channels, size = channels * (4u * record_words(f) + 8u);
    if (step->epilogue_at % 4u != 0 || step->epilogue_at > constants_size ||
        sizeof(bd_epilogue) > constants_size - step->epilogue_at) {
        return BD_ERROR_STEP;
    }
    if (e->shift < 0 || e->shift > 15 || e->residual_shift != 0 || e->residual_channels != channels ||
        e->mul % 4u != 0 || e->mul > constants_size || size > constants_size - e->mul || channels == 0 ||
        channels % 32u != 0) {
        return BD_ERROR_STEP;
    }
    if (in[0].dtype != (f.counts ? BD_U8 : BD_I8) || in[0].order != 0 || in[1].dtype != BD_I16 ||
        in[1].order != 0 || out[0].dtype != BD_I16 || out[0].order != 0 || out[1].dtype != BD_TRIT ||
        out[1].order != 0) {
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

KERNEL(word, 0, 1, MASK, 0, 1);
KERNEL(word_k1, 0, 1, ALL, 1, 1);
KERNEL(word_u8, 1, 1, MASK, 0, 1);
KERNEL(word_u8_k1, 1, 1, ALL, 1, 1);
KERNEL(word_u8_k1_fits, 1, 1, ALL, 1, 0);
KERNEL(word_u8_k0, 1, 1, NONE, 1, 0);
KERNEL(word_u8_one, 1, 0, ALL, 1, 1);
KERNEL(word_u8_one_fits, 1, 0, ALL, 1, 0);
