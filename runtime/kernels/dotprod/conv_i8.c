/* Convolution with 8-bit weights on AArch64 by SDOT: four taps of four outputs an instruction, sixteen products.
 *
 * Taps stay bytes with sign: those of u8 less 128. What the zero point adds to every sum is taken off by one sum of the weights
 * for each output; padding is the zero point. Inputs of 16 bits are the set neon64's. */
#include "../neon/conv_i8.h"

typedef int8_t element;

/* Zero points as bytes can hold them, for padding is one, and no other padding. */
static int takes(const bd_step *step, const bd_view *in) {
    const int32_t zero = step->zero_point;
    return (in->dtype == BD_I8 ? zero >= INT8_MIN && zero <= INT8_MAX
                               : in->dtype == BD_U8 && zero >= 0 && zero <= UINT8_MAX) &&
           (step->pad_value == 0 || step->pad_value == BD_PAD_REPLICATE);
}

/* The zero point of the bytes with sign. */
BD_INLINE int8_t padding(const job *j) {
    return (int8_t)(j->step->zero_point - (j->in->dtype == BD_U8 ? 128 : 0));
}

/* What turns bytes into those with sign. */
BD_INLINE uint8x16_t flip_of(const job *j) {
    return vdupq_n_u8(j->in->dtype == BD_U8 ? 128 : 0);
}

BD_INLINE void take_eight(int8_t *to, const uint8_t *from, uint8x16_t flip) {
    vst1_s8(to, vreinterpret_s8_u8(veor_u8(vld1_u8(from), vget_low_u8(flip))));
}

/* The last elements again rather than some by themselves. */
static BD_APART void take(const job *j, int8_t *to, const uint8_t *row, size_t at, uint32_t n) {
    const uint8x16_t flip = flip_of(j);
    const uint8_t *from = row + at;
    if (n >= 16u) {
        uint32_t i = 0;
        for (; i + 16u <= n; i += 16u) {
            vst1q_s8(to + i, vreinterpretq_s8_u8(veorq_u8(vld1q_u8(from + i), flip)));
        }
        vst1q_s8(to + n - 16u, vreinterpretq_s8_u8(veorq_u8(vld1q_u8(from + n - 16u), flip)));
    } else if (n >= 8u) {
        take_eight(to, from, flip);
        take_eight(to + n - 8u, from + n - 8u, flip);
    } else {
        for (uint32_t i = 0; i < n; i++) {
            to[i] = (int8_t)(from[i] ^ vgetq_lane_u8(flip, 0));
            __asm__("" : "+r"(i)); /* fewer than eight: no vectors */
        }
    }
}

/* Four whole windows with rows of 8 to 16 elements, inside of the map. */
static BD_APART void take_windows(const job *j, int8_t (*to)[TAPS + 16u], size_t at) {
    const uint32_t n = j->row_elements, step = (uint32_t)j->step->stride_w * j->in->channels;
    const uint8x16_t flip = flip_of(j);
    for (uint32_t ky = 0; ky < j->step->kernel_h; ky++) {
        const uint8_t *from = j->rows[ky] + at;
        for (uint32_t p = 0; p < 4u; p++, from += step) {
            take_eight(to[p] + ky * n, from, flip);
            take_eight(to[p] + ky * n + n - 8u, from + n - 8u, flip);
        }
    }
}

/* [tap / 4][output][tap % 4], and what is added to the sums of each output. */
typedef struct panel {
    int8_t w[TAPS / 4u][8][4];
    int32_t less[8];
} panel;

/* Sixteen taps of four outputs. */
BD_INLINE int32x4_t turn_sixteen(int8_t (*to)[8][4], const int8_t *const rows[4], uint32_t t,
                                 int32x4_t sums) {
    int32x4_t row[4];
    for (uint32_t i = 0; i < 4u; i++) {
        row[i] = vreinterpretq_s32_s8(vld1q_s8(rows[i] + t));
    }
    const int32x4_t a = vzip1q_s32(row[0], row[2]), b = vzip2q_s32(row[0], row[2]);
    const int32x4_t c = vzip1q_s32(row[1], row[3]), d = vzip2q_s32(row[1], row[3]);
    const int32x4_t turned[4] = {vzip1q_s32(a, c), vzip2q_s32(a, c), vzip1q_s32(b, d), vzip2q_s32(b, d)};
    for (uint32_t i = 0; i < 4u; i++) {
        vst1q_s8(to[i][0], vreinterpretq_s8_s32(turned[i]));
        sums = vdotq_s32(sums, vreinterpretq_s8_s32(turned[i]), vdupq_n_s8(1));
    }
    return sums;
}

static void turn(panel *to, const job *j, uint32_t o, uint32_t t, uint32_t taps) {
    for (uint32_t half = 0; half < 2u; half++) {
        const int8_t *rows[4];
        int32x4_t sums = vdupq_n_s32(0);
        for (uint32_t i = 0; i < 4u; i++) {
            const uint32_t at = o + 4u * half + i;
            rows[i] = j->weights + (size_t)(at < j->outputs ? at : j->outputs - 1u) * j->taps + t;
        }
        int8_t (*const first)[8][4] = (void *)to->w[0][4u * half];
        uint32_t k = 0;
        for (; k + 16u <= taps; k += 16u) {
            sums = turn_sixteen(first + k / 4u, rows, k, sums);
        }
        if (k < taps) {
            int8_t rest[4][16];
            const int8_t *const last[4] = {rest[0], rest[1], rest[2], rest[3]};
            for (uint32_t i = 0; i < 4u; i++) {
                vst1q_s8(rest[i], vdupq_n_s8(0));
                for (uint32_t e = k; e < taps; e++) {
                    rest[i][e - k] = rows[i][e];
                }
            }
            sums = turn_sixteen(first + k / 4u, last, 0, sums);
        }
        vst1q_s32(to->less + 4u * half, vmulq_n_s32(sums, -padding(j)));
    }
}

/* Four taps of n pixels and eight outputs. */
#define FOUR(i, lane)                                                                                        \
    do {                                                                                                     \
        const int8x16_t low = vld1q_s8(w[i][0]), high = vld1q_s8(w[i][4]);                                   \
        for (uint32_t p = 0; p < n; p++) {                                                                   \
            sum[p][0] = vdotq_laneq_s32(sum[p][0], low, taps[p], lane);                                      \
            sum[p][1] = vdotq_laneq_s32(sum[p][1], high, taps[p], lane);                                     \
        }                                                                                                    \
    } while (0)

BD_INLINE void multiply(int32_t *to, size_t stride, int8_t (*x)[TAPS + 16u], uint32_t n,
                        const panel *weights_of, uint32_t count, int add, uint32_t width) {
    const int8_t (*w)[8][4] = weights_of->w;
    const int32x4_t less[2] = {vld1q_s32(weights_of->less), vld1q_s32(weights_of->less + 4)};
    int32x4_t sum[4][2];
    for (uint32_t p = 0; p < n; p++) {
        sum[p][0] = less[0], sum[p][1] = less[1];
        if (add) {
            int32x4_t there[2];
            load_sums(there, to + p * stride, width);
            sum[p][0] = vaddq_s32(less[0], there[0]);
            sum[p][1] = vaddq_s32(less[1], there[1]);
        }
    }
    uint32_t t = 0;
    for (; t + 16u <= count; t += 16u, w += 4) {
        int8x16_t taps[4];
        for (uint32_t p = 0; p < n; p++) {
            taps[p] = vld1q_s8(x[p] + t);
        }
        FOUR(0, 0);
        FOUR(1, 1);
        FOUR(2, 2);
        FOUR(3, 3);
    }
    for (; t < count; t += 4u, w++) {
        int8x16_t taps[4];
        for (uint32_t p = 0; p < n; p++) {
            int32_t word;
            __builtin_memcpy(&word, x[p] + t, 4);
            taps[p] = vreinterpretq_s8_s32(vdupq_n_s32(word));
        }
        FOUR(0, 0);
    }
    for (uint32_t p = 0; p < n; p++) {
        store_sums(to + p * stride, sum[p][0], sum[p][1], width);
    }
}

#include "../neon/conv_i8.inc"

BD_DEFINE_VARIANT(bd_conv_uq_i32, dotprod, conv)
BD_DEFINE_VARIANT(bd_conv_qq_i32, dotprod, conv)
BD_DEFINE_VARIANT(bd_conv_uq_i32__border, dotprod, conv_border)
