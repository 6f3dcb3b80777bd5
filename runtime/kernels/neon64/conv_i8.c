/* Convolution with 8-bit weights on AArch64 by SMLAL: taps and weights as 16 bits, four products an instruction, up to eight
 * pixels at once. Windows of in_pairs by SMULL, SMLAL and SADALP of bytes: 16 products in three instructions. */
#include "../neon/conv_i8.h"

#define AT_ONCE 8u /* pixels */

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

/* The same of 32. */
BD_INLINE void take_more(int16_t *to, const uint8_t *from, uint32_t dtype, int32_t zero) {
    int16x8_t x[4];
    if (dtype == BD_I16) {
        for (uint32_t i = 0; i < 4u; i++) {
            x[i] = vld1q_s16((const int16_t *)(const void *)from + 8u * i);
        }
    } else {
        const uint8x16_t bytes[2] = {vld1q_u8(from), vld1q_u8(from + 16)};
        uint8x16_t less = vdupq_n_u8((uint8_t)zero);
        __asm__(
            ""
            : "+w"(less)); /* a whole vector: else the compiler turns halves instead of using the high ones */
        for (uint32_t i = 0; i < 2u; i++) {
            const int8x16_t s = vreinterpretq_s8_u8(bytes[i]), less_s = vreinterpretq_s8_u8(less);
            if (dtype == BD_I8) {
                x[2u * i] = vsubl_s8(vget_low_s8(s), vget_low_s8(less_s));
                x[2u * i + 1u] = vsubl_high_s8(s, less_s);
            } else {
                x[2u * i] = vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(bytes[i]), vget_low_u8(less)));
                x[2u * i + 1u] = vreinterpretq_s16_u16(vsubl_high_u8(bytes[i], less));
            }
        }
    }
    for (uint32_t i = 0; i < 4u; i++) {
        vst1q_s16(to + 8u * i, x[i]);
    }
}

/* The last eight elements again rather than some by themselves. */
BD_INLINE void take_typed(int16_t *to, const uint8_t *from, uint32_t n, uint32_t dtype, int32_t zero) {
    const uint32_t size = dtype == BD_I16 ? 2u : 1u;
    if (n >= 8u) {
        uint32_t i = 0;
        for (; i + 32u <= n; i += 32u) {
            take_more(to + i, from + i * size, dtype, zero);
        }
        for (; i + 8u < n; i += 8u) {
            take_eight(to + i, from + i * size, dtype, zero);
        }
        if (i < n) {
            take_eight(to + n - 8u, from + (n - 8u) * size, dtype, zero);
        }
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

/* [tap][output]; or, where `pairs`, bytes [tap / 2][output][tap % 2]. */
typedef struct panel {
    int16_t w[TAPS][8];
    uint32_t pairs, unused[3];
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

#define PIXELS_OF_PAIRS 5u
#define ROWS_OF_PAIRS   12u /* of taps, for little stack */

/* Windows of which bytes are multiplied in pairs: rows of 4 at steps of 2 elements, of bytes that need no zero point. */
static int in_pairs(const job *j) {
    return j->row_elements == 4u && j->step->stride_w * j->in->channels == 2u && j->in->dtype == BD_I8 &&
           j->step->zero_point == 0 && (j->step->pad_value == 0 || j->step->pad_value == BD_PAD_REPLICATE) &&
           j->step->kernel_h <= ROWS_OF_PAIRS && j->outputs % 8u == 0 && j->border == NULL;
}

/* Four pairs of eight outputs. */
BD_INLINE int8x8_t turn_four_pairs(int8_t (*to)[8][2], const int8_t *const rows[8], uint32_t t,
                                   int8x8_t least) {
    int32x4_t two[4];
    for (uint32_t i = 0; i < 4u; i++) {
        const int8x8_t a = vld1_s8(rows[2u * i] + t), b = vld1_s8(rows[2u * i + 1u] + t);
        least = vmin_s8(vmin_s8(least, a), b);
        two[i] = vreinterpretq_s32_s16(
            vzip1q_s16(vreinterpretq_s16_s8(vcombine_s8(a, a)), vreinterpretq_s16_s8(vcombine_s8(b, b))));
    }
    const int64x2_t first = vreinterpretq_s64_s32(vzip1q_s32(two[0], two[1]));
    const int64x2_t second = vreinterpretq_s64_s32(vzip2q_s32(two[0], two[1]));
    const int64x2_t third = vreinterpretq_s64_s32(vzip1q_s32(two[2], two[3]));
    const int64x2_t fourth = vreinterpretq_s64_s32(vzip2q_s32(two[2], two[3]));
    vst1q_s8(to[0][0], vreinterpretq_s8_s64(vzip1q_s64(first, third)));
    vst1q_s8(to[1][0], vreinterpretq_s8_s64(vzip2q_s64(first, third)));
    vst1q_s8(to[2][0], vreinterpretq_s8_s64(vzip1q_s64(second, fourth)));
    vst1q_s8(to[3][0], vreinterpretq_s8_s64(vzip2q_s64(second, fourth)));
    return least;
}

/* Pairs of eight outputs. Says whether no weight is -128: two products of others and of bytes fit 16 bits. */
static uint32_t turn_pairs(panel *to, const int8_t *const rows[8], uint32_t taps) {
    int8_t (*pairs)[8][2] = (void *)to->w;
    int8x8_t least = vdup_n_s8(0);
    uint32_t t = 0;
    for (; t + 8u <= taps; t += 8u) {
        least = turn_four_pairs(pairs + t / 2u, rows, t, least);
    }
    if (t < taps) {
        least = turn_four_pairs(pairs + taps / 2u - 4u, rows, taps - 8u, least);
    }
    return vminv_s8(least) != INT8_MIN;
}

static void turn(panel *to, const job *j, uint32_t o, uint32_t t, uint32_t taps) {
    const int8_t *rows[8];
    for (uint32_t i = 0; i < 8u; i++) {
        rows[i] = j->weights + (size_t)(o + i < j->outputs ? o + i : j->outputs - 1u) * j->taps + t;
    }
    to->pairs = in_pairs(j) && taps >= 8u && turn_pairs(to, rows, taps);
    if (to->pairs) {
        return;
    }
    uint32_t k = 0;
    for (; k + 8u <= taps; k += 8u) {
        turn_eight(to->w + k, rows, k);
    }
    if (k < taps && taps >= 8u) {
        turn_eight(to->w + (taps - 8u), rows, taps - 8u);
        k = taps;
    }
    for (; k < taps; k++) {
        for (uint32_t i = 0; i < 8u; i++) {
            to->w[k][i] = rows[i][k];
        }
    }
}

/* Tap i of n windows and eight outputs. */
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

/* `run` adjacent taps of n windows, `offsets` elements from the first; up to three elements behind the last tap are read. */
BD_INLINE void multiply_run(int32x4_t (*sum)[2], const int16_t *from, const size_t *offsets, uint32_t n,
                            const int16_t (*w)[8], uint32_t run) {
    uint32_t t = 0;
    for (; t + 8u <= run; t += 8u, w += 8) {
        int16x8_t taps[AT_ONCE];
        for (uint32_t p = 0; p < n; p++) {
            taps[p] = vld1q_s16(from + offsets[p] + t);
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
    for (uint32_t k; t < run; t += k, w += k) {
        int16x4_t taps[AT_ONCE];
        for (uint32_t p = 0; p < n; p++) {
            taps[p] = vld1_s16(from + offsets[p] + t);
        }
        k = run - t < 4u ? run - t : 4u;
        OF_FOUR(0);
        if (k > 1u) {
            OF_FOUR(1);
        }
        if (k > 2u) {
            OF_FOUR(2);
        }
        if (k > 3u) {
            OF_FOUR(3);
        }
    }
}

/* A row of 9 taps at steps of 6 elements, three channels with stride 2: the last tap lies in the vector of the next pixel. */
BD_INLINE void multiply_9_by_6(int32x4_t (*sum)[2], const int16_t *from, uint32_t n, const int16_t (*w)[8]) {
    int16x8_t taps[AT_ONCE + 1u];
    for (uint32_t p = 0; p <= n; p++) {
        taps[p] = vld1q_s16(from + 6u * p);
    }
    OF_EIGHT(0);
    OF_EIGHT(1);
    OF_EIGHT(2);
    OF_EIGHT(3);
    OF_EIGHT(4);
    OF_EIGHT(5);
    OF_EIGHT(6);
    OF_EIGHT(7);
    const int16x8_t last = vld1q_s16(w[8]);
    for (uint32_t p = 0; p < n; p++) {
        sum[p][0] = vmlal_laneq_s16(sum[p][0], vget_low_s16(last), taps[p + 1u], 2);
        sum[p][1] = vmlal_high_laneq_s16(sum[p][1], last, taps[p + 1u], 2);
    }
}

/* [row of a window][pair of adjacent elements], each in all lanes. */
typedef int8x16_t pairs_of_rows[ROWS_OF_PAIRS][PIXELS_OF_PAIRS + 1u];

static BD_APART void spread(const job *j, pairs_of_rows x, size_t begin) {
    for (uint32_t ky = 0; ky < j->step->kernel_h; ky++) {
        const int16_t *from = (const int16_t *)j->lines[ky] + begin;
        const int16x8_t bytes =
            vreinterpretq_s16_s8(vcombine_s8(vmovn_s16(vld1q_s16(from)), vmovn_s16(vld1q_s16(from + 8))));
        x[ky][0] = vreinterpretq_s8_s16(vdupq_laneq_s16(bytes, 0));
        x[ky][1] = vreinterpretq_s8_s16(vdupq_laneq_s16(bytes, 1));
        x[ky][2] = vreinterpretq_s8_s16(vdupq_laneq_s16(bytes, 2));
        x[ky][3] = vreinterpretq_s8_s16(vdupq_laneq_s16(bytes, 3));
        x[ky][4] = vreinterpretq_s8_s16(vdupq_laneq_s16(bytes, 4));
        x[ky][5] = vreinterpretq_s8_s16(vdupq_laneq_s16(bytes, 5));
    }
}

/* A row of the windows of five pixels and the outputs of one or two panels: two pairs of products are added as 16 bits, and those
 * to the sums, unless it is the `first` row. */
BD_INLINE void add_pairs(int32x4_t (*sum)[4], const int8_t (*w)[16], uint32_t panels, const int8x16_t *x,
                         int first) {
    for (uint32_t i = 0; i < panels; i++, w += sizeof(panel) / 16u) {
        const int8x16_t one = vld1q_s8(w[0]), two = vld1q_s8(w[1]);
        for (uint32_t p = 0; p < PIXELS_OF_PAIRS; p++) {
            const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(one), vget_low_s8(x[p])), vget_low_s8(two),
                                           vget_low_s8(x[p + 1u]));
            const int16x8_t high = vmlal_high_s8(vmull_high_s8(one, x[p]), two, x[p + 1u]);
            int32x4_t *to = sum[p] + 2u * i;
            to[0] = first ? vpaddlq_s16(low) : vpadalq_s16(to[0], low);
            to[1] = first ? vpaddlq_s16(high) : vpadalq_s16(to[1], high);
        }
    }
}

/* The outputs of one or two panels, of five pixels. */
BD_INLINE void multiply_pairs(const panel *of, uint32_t panels, int32_t *to, size_t stride,
                              const pairs_of_rows x, uint32_t rows) {
    const int8_t (*w)[16] = (const void *)of->w;
    int32x4_t sum[PIXELS_OF_PAIRS][4];
    add_pairs(sum, w, panels, x[0], 1);
    for (uint32_t ky = 1; ky < rows; ky++) {
        add_pairs(sum, w + 2u * ky, panels, x[ky], 0);
    }
    for (uint32_t p = 0; p < PIXELS_OF_PAIRS; p++) {
        for (uint32_t i = 0; i < 2u * panels; i++) {
            vst1q_s32(to + p * stride + 4u * i, sum[p][i]);
        }
    }
}

/* Windows the compiler knows: rows of 9 taps, and three of those at steps of 6 elements. */
enum { ANY = 0, ROWS_OF_9 = 9, THREE_OF_9_BY_6 = 27 };

/* What n pixels are multiplied with: taps t to t + taps of `outputs` outputs; `add`: to the sums that are there. */
typedef struct part {
    const panel *panels;
    uint32_t outputs, t, taps;
    int add;
} part;

/* Eight outputs of n pixels. */
BD_INLINE void multiply_eight(const job *j, const part *a, const panel *of, int32_t *to, size_t stride,
                              size_t begin, const size_t *offsets, uint32_t n, int add, uint32_t shape) {
    const int16_t (*w)[8] = of->w;
    int32x4_t sum[AT_ONCE][2];
    for (uint32_t p = 0; p < n; p++) {
        sum[p][0] = add ? vld1q_s32(to + p * stride) : vdupq_n_s32(0);
        sum[p][1] = add ? vld1q_s32(to + p * stride + 4) : vdupq_n_s32(0);
    }
    if (shape == THREE_OF_9_BY_6) {
        multiply_9_by_6(sum, (const int16_t *)j->lines[0] + begin, n, w);
        multiply_9_by_6(sum, (const int16_t *)j->lines[1] + begin, n, w + 9);
        multiply_9_by_6(sum, (const int16_t *)j->lines[2] + begin, n, w + 18);
    } else if (shape != ANY) {
        const uint32_t rows = j->step->kernel_h;
        for (uint32_t ky = 0; ky < rows; ky++, w += shape) {
            multiply_run(sum, (const int16_t *)j->lines[ky] + begin, offsets, n, w, shape);
        }
    } else {
        const void *const *line = j->lines + a->t / j->row_elements;
        uint32_t e = a->t % j->row_elements;
        for (uint32_t left = a->taps, run; left != 0; left -= run, w += run, e = 0, line++) {
            run = j->row_elements - e < left ? j->row_elements - e : left;
            multiply_run(sum, (const int16_t *)*line + begin + e, offsets, n, w, run);
        }
    }
    for (uint32_t p = 0; p < n; p++) {
        vst1q_s32(to + p * stride, sum[p][0]);
        vst1q_s32(to + p * stride + 4, sum[p][1]);
    }
}

BD_INLINE void copy_sums(int32_t *to, size_t to_stride, const int32_t *from, size_t from_stride, uint32_t n,
                         uint32_t width) {
    for (uint32_t p = 0; p < n; p++) {
        for (uint32_t i = 0; i < width; i++) {
            to[p * to_stride + i] = from[p * from_stride + i];
        }
    }
}

/* `times` times n pixels. */
BD_INLINE void multiply_all(const job *j, const part *a, int32_t *to, size_t begin, uint32_t times,
                            uint32_t n, int add, uint32_t shape) {
    const size_t step = (size_t)j->step->stride_w * j->in->channels, stride = j->outputs;
    size_t offsets[AT_ONCE];
    for (uint32_t p = 0; p < n; p++) {
        offsets[p] = p * step;
    }
    for (; times != 0; times--, begin += n * step, to += n * stride) {
        const panel *of = a->panels;
        uint32_t i = 0;
        for (; i + 8u <= a->outputs; i += 8u, of++) {
            multiply_eight(j, a, of, to + i, stride, begin, offsets, n, add, shape);
        }
        if (shape == ANY && i < a->outputs) {
            int32_t sums[AT_ONCE * 8u] = {0};
            if (add) {
                copy_sums(sums, 8, to + i, stride, n, a->outputs - i);
            }
            multiply_eight(j, a, of, sums, 8, begin, offsets, n, 1, ANY);
            copy_sums(to + i, stride, sums, 8, n, a->outputs - i);
        }
    }
}

#define PIXELS(n)                                                                                            \
    static BD_APART void multiply_##n(const job *j, const part *a, int32_t *to, size_t begin) {              \
        multiply_all(j, a, to, begin, 1, n, a->add, ANY);                                                    \
    }
PIXELS(1)
PIXELS(2)
PIXELS(3)
PIXELS(4)
PIXELS(5)
PIXELS(6)
PIXELS(7)

static BD_APART void multiply_eights(const job *j, const part *a, int32_t *to, size_t begin, uint32_t times) {
    if (a->taps != j->taps || a->add || a->outputs % 8u != 0 || j->row_elements != 9u) {
        multiply_all(j, a, to, begin, times, 8, a->add, ANY);
    } else if (j->step->kernel_h == 3 && j->step->stride_w * j->in->channels == 6u) {
        multiply_all(j, a, to, begin, times, 8, 0, THREE_OF_9_BY_6);
    } else {
        multiply_all(j, a, to, begin, times, 8, 0, ROWS_OF_9);
    }
}

#define CASE(n)                                                                                              \
    case n:                                                                                                  \
        multiply_##n(j, a, to, begin);                                                                       \
        break

static void multiply_each(const job *j, const part *a, int32_t *to, size_t begin, uint32_t n) {
    const uint32_t whole = n / AT_ONCE * AT_ONCE;
    if (whole != 0) {
        multiply_eights(j, a, to, begin, whole / AT_ONCE);
        to += (size_t)whole * j->outputs, begin += (size_t)whole * j->step->stride_w * j->in->channels;
    }
    switch (n - whole) {
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
        CASE(5);
        CASE(6);
        CASE(7);
    default:
        break;
    }
}

/* n pixels of which bytes are multiplied in pairs, where the weights of eight outputs are that. */
static BD_APART void multiply_by_pairs(const job *j, const part *a, int32_t *to, size_t begin, uint32_t n) {
    const size_t stride = j->outputs;
    for (uint32_t p = 0; p < n; p += PIXELS_OF_PAIRS, to += PIXELS_OF_PAIRS * stride) {
        const uint32_t count = n - p < PIXELS_OF_PAIRS ? n - p : PIXELS_OF_PAIRS;
        pairs_of_rows x;
        spread(j, x, begin + 2u * p);
        for (uint32_t i = 0; i < a->outputs; i += 8u) {
            const panel *of = a->panels + i / 8u;
            if (count == PIXELS_OF_PAIRS && i + 16u <= a->outputs && of[0].pairs && of[1].pairs) {
                multiply_pairs(of, 2, to + i, stride, x, j->step->kernel_h);
                i += 8u;
            } else if (!of->pairs) {
                const part eight = {of, 8, 0, a->taps, 0};
                multiply_each(j, &eight, to + i, begin + 2u * p, count);
            } else if (count == PIXELS_OF_PAIRS) {
                multiply_pairs(of, 1, to + i, stride, x, j->step->kernel_h);
            } else {
                int32_t sums[PIXELS_OF_PAIRS * 8u];
                multiply_pairs(of, 1, sums, 8, x, j->step->kernel_h);
                copy_sums(to + i, stride, sums, 8, count, 8);
            }
        }
    }
}

static void multiply_pixels(const job *j, const panel *panels, int32_t *to, size_t begin, uint32_t n,
                            uint32_t outputs, uint32_t t, uint32_t taps, int add) {
    const part a = {panels, outputs, t, taps, add};
    if (in_pairs(j)) {
        multiply_by_pairs(j, &a, to, begin, n);
    } else {
        multiply_each(j, &a, to, begin, n);
    }
}

BD_INLINE uint32_t at_once(uint32_t left) {
    return left;
}

#define IN_PLACE
#include "../neon/conv_i8.inc"

BD_DEFINE_VARIANT(bd_conv_uq_i32, neon64, conv)
BD_DEFINE_VARIANT(bd_conv_qq_i32, neon64, conv)
BD_DEFINE_VARIANT(bd_conv_hq_i32, neon64, conv)
BD_DEFINE_VARIANT(bd_conv_uq_i32__border, neon64, conv_border)
