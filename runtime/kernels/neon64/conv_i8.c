/* Convolution with 8-bit weights on AArch64 by SMLAL: taps and weights as 16 bits, four products an instruction. */
#include "../neon/conv_i8.h"

typedef int16_t element;

/* Zero points as bytes can hold them. */
static int takes(const bd_step *step, const bd_view *in) {
    const int32_t zero = step->zero_point;
    return in->dtype == BD_I16  ? zero == 0
           : in->dtype == BD_I8 ? zero >= INT8_MIN && zero <= INT8_MAX
                                : zero >= 0 && zero <= UINT8_MAX;
}

BD_INLINE int16_t padding(const job *j) {
    return j->step->pad_value;
}

/* Eight elements from `from` on, without the zero point. */
BD_INLINE void take_eight(int16_t *to, const uint8_t *from, uint32_t dtype, int32_t zero) {
    if (dtype == BD_I8) {
        vst1q_s16(to, vsubl_s8(vld1_s8((const int8_t *)(const void *)from), vdup_n_s8((int8_t)zero)));
    } else if (dtype == BD_U8) {
        vst1q_s16(to, vreinterpretq_s16_u16(vsubl_u8(vld1_u8(from), vdup_n_u8((uint8_t)zero))));
    } else {
        vst1q_s16(to, vld1q_s16((const int16_t *)(const void *)from));
    }
}

/* The last eight elements again rather than some by themselves. */
BD_INLINE void take_typed(int16_t *to, const uint8_t *from, uint32_t n, uint32_t dtype, int32_t zero) {
    const uint32_t size = dtype == BD_I16 ? 2u : 1u;
    if (n >= 8u) {
        for (uint32_t i = 0; i + 8u < n; i += 8u) {
            take_eight(to + i, from + i * size, dtype, zero);
        }
        take_eight(to + n - 8u, from + (n - 8u) * size, dtype, zero);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        to[i] = dtype == BD_I16  ? ((const int16_t *)(const void *)from)[i]
                : dtype == BD_I8 ? (int16_t)(((const int8_t *)(const void *)from)[i] - zero)
                                 : (int16_t)(from[i] - zero);
        __asm__("" : "+r"(i)); /* fewer than eight: no vectors */
    }
}

static BD_APART void take(const job *j, int16_t *to, const uint8_t *row, size_t at, uint32_t n) {
    const int32_t zero = j->step->zero_point;
    if (j->in->dtype == BD_I16) {
        take_typed(to, row + 2u * at, n, BD_I16, zero);
    } else if (j->in->dtype == BD_I8) {
        take_typed(to, row + at, n, BD_I8, zero);
    } else {
        take_typed(to, row + at, n, BD_U8, zero);
    }
}

BD_INLINE void take_windows_of(const job *j, int16_t (*to)[TAPS + 16u], size_t at, uint32_t dtype) {
    const uint32_t n = j->row_elements, size = dtype == BD_I16 ? 2u : 1u;
    const uint32_t step = (uint32_t)j->step->stride_w * j->in->channels * size;
    const int32_t zero = j->step->zero_point;
    for (uint32_t ky = 0; ky < j->step->kernel_h; ky++) {
        const uint8_t *from = j->rows[ky] + at * size;
        for (uint32_t p = 0; p < 4u; p++, from += step) {
            take_eight(to[p] + ky * n, from, dtype, zero);
            take_eight(to[p] + ky * n + n - 8u, from + (n - 8u) * size, dtype, zero);
        }
    }
}

/* Four whole windows with rows of 8 to 16 elements, inside of the map. */
static BD_APART void take_windows(const job *j, int16_t (*to)[TAPS + 16u], size_t at) {
    if (j->in->dtype == BD_I16) {
        take_windows_of(j, to, at, BD_I16);
    } else if (j->in->dtype == BD_I8) {
        take_windows_of(j, to, at, BD_I8);
    } else {
        take_windows_of(j, to, at, BD_U8);
    }
}

/* [tap][output] */
typedef struct panel {
    int16_t w[TAPS][8];
} panel;

/* Eight taps of eight outputs: zips of bytes, of pairs and of fours. */
BD_INLINE void turn_eight(int16_t (*to)[8], const int8_t *const rows[8], uint32_t t) {
    int16x8_t pair[4];
    for (uint32_t i = 0; i < 4u; i++) {
        const int8x8x2_t zipped = vzip_s8(vld1_s8(rows[2u * i] + t), vld1_s8(rows[2u * i + 1u] + t));
        pair[i] = vreinterpretq_s16_s8(vcombine_s8(zipped.val[0], zipped.val[1]));
    }
    const int16x8x2_t low = vzipq_s16(pair[0], pair[1]), high = vzipq_s16(pair[2], pair[3]);
    for (uint32_t i = 0; i < 2u; i++) {
        const int32x4x2_t all =
            vzipq_s32(vreinterpretq_s32_s16(low.val[i]), vreinterpretq_s32_s16(high.val[i]));
        for (uint32_t k = 0; k < 2u; k++) {
            const int8x16_t two = vreinterpretq_s8_s32(all.val[k]);
            vst1q_s16(to[4u * i + 2u * k], vmovl_s8(vget_low_s8(two)));
            vst1q_s16(to[4u * i + 2u * k + 1u], vmovl_high_s8(two));
        }
    }
}

static void turn(panel *to, const job *j, uint32_t o, uint32_t t, uint32_t taps) {
    const int8_t *rows[8];
    for (uint32_t i = 0; i < 8u; i++) {
        rows[i] = j->weights + (size_t)(o + i < j->outputs ? o + i : j->outputs - 1u) * j->taps + t;
    }
    uint32_t k = 0;
    for (; k + 8u <= taps; k += 8u) {
        turn_eight(to->w + k, rows, k);
    }
    if (k < taps && taps >= 8u) {
        turn_eight(to->w + taps - 8u, rows, taps - 8u);
        k = taps;
    }
    for (; k < taps; k++) {
        for (uint32_t i = 0; i < 8u; i++) {
            to->w[k][i] = rows[i][k];
        }
    }
    for (; k % 4u != 0; k++) {
        vst1q_s16(to->w[k], vdupq_n_s16(0));
    }
}

#define TAP(i, LANE, HIGH_LANE)                                                                              \
    do {                                                                                                     \
        const int16x8_t weights = vld1q_s16(w[i]);                                                           \
        for (uint32_t p = 0; p < n; p++) {                                                                   \
            sum[p][0] = LANE(sum[p][0], vget_low_s16(weights), taps[p], i);                                  \
            sum[p][1] = HIGH_LANE(sum[p][1], weights, taps[p], i);                                           \
        }                                                                                                    \
    } while (0)
#define OF_EIGHT(i) TAP(i, vmlal_laneq_s16, vmlal_high_laneq_s16)
#define OF_FOUR(i)  TAP(i, vmlal_lane_s16, vmlal_high_lane_s16)

BD_INLINE void multiply(int32_t *to, size_t stride, int16_t (*x)[TAPS + 16u], uint32_t n,
                        const panel *weights_of, uint32_t count, int add, uint32_t width) {
    const int16_t (*w)[8] = weights_of->w;
    int32x4_t sum[4][2];
    for (uint32_t p = 0; p < n; p++) {
        sum[p][0] = sum[p][1] = vdupq_n_s32(0);
        if (add) {
            load_sums(sum[p], to + p * stride, width);
        }
    }
    uint32_t t = 0;
    for (; t + 8u <= count; t += 8u, w += 8) {
        int16x8_t taps[4];
        for (uint32_t p = 0; p < n; p++) {
            taps[p] = vld1q_s16(x[p] + t);
        }
        OF_EIGHT(0);
        OF_EIGHT(1);
        OF_EIGHT(2);
        OF_EIGHT(3);
        OF_EIGHT(4);
        OF_EIGHT(5);
        OF_EIGHT(6);
        OF_EIGHT(7);
    }
    for (; t < count; t += 4u, w += 4) {
        int16x4_t taps[4];
        for (uint32_t p = 0; p < n; p++) {
            taps[p] = vld1_s16(x[p] + t);
        }
        OF_FOUR(0);
        OF_FOUR(1);
        OF_FOUR(2);
        OF_FOUR(3);
    }
    for (uint32_t p = 0; p < n; p++) {
        store_sums(to + p * stride, sum[p][0], sum[p][1], width);
    }
}

#include "../neon/conv_i8.inc"

BD_DEFINE_VARIANT(bd_conv_uq_i32, neon64, conv)
BD_DEFINE_VARIANT(bd_conv_qq_i32, neon64, conv)
BD_DEFINE_VARIANT(bd_conv_hq_i32, neon64, conv)
BD_DEFINE_VARIANT(bd_conv_uq_i32__border, neon64, conv_border)
