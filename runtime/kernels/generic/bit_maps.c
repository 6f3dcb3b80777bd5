/* Logic of two bit maps, and sums of bits or trits over windows.
 *
 *     weights of a logic: one uint32, the truth table: its bit 2 a + b is what the words' bits a and b give
 *
 * A word's 1 stands for the smaller value, which counts as false. */
#include "bd_bits.h"
#include "bd_check.h"
#include "bd_kernels.h"
#include "bd_window.h"

/* All ones where bit i of the table is set. */
BD_INLINE uint32_t minterm(uint32_t table, uint32_t i) {
    return 0u - ((table >> i) & 1u);
}

static bd_status logic(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                       uint32_t y0, uint32_t rows, void *scratch) {
    const uint32_t table = *(const uint32_t *)(const void *)(constants + step->weights);
    const uint32_t m0 = minterm(table, 0), m1 = minterm(table, 1);
    const uint32_t m2 = minterm(table, 2), m3 = minterm(table, 3);
    const uint32_t words = bd_words(in->channels);
    const uint32_t tail = 0xffffffffu >> (words * 32u - in->channels);
    (void)scratch;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const uint32_t *a = (const void *)bd_row(&in[0], y), *b = (const void *)bd_row(&in[1], y);
        uint32_t *to = (void *)bd_row(out, y);
        for (uint32_t x = 0; x < out->width; x++, a += words, b += words, to += words) {
            for (uint32_t k = 0; k < words; k++) {
                to[k] = (~a[k] & ((~b[k] & m0) | (b[k] & m1))) | (a[k] & ((~b[k] & m2) | (b[k] & m3)));
            }
            to[words - 1u] &= tail;
        }
    }
    return BD_OK;
}

static bd_status check_logic(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t dtype) {
    int fits = step->kind != BD_STEP_ACCUMULATE && bd_is(out, dtype) && bd_is_output(step, out);
    for (int i = 0; i < 2; i++) {
        fits = fits && bd_is(&in[i], dtype) && in[i].height == out->height && in[i].width == out->width &&
               in[i].channels == out->channels;
    }
    return fits && step->weights != BD_ABSENT && step->weights_size == 4 ? BD_OK : BD_ERROR_STEP;
}

/* Ones among bits first .. end - 1, first < end. */
BD_INLINE uint32_t ones_between(const uint32_t *words, uint32_t first, uint32_t end) {
    const uint32_t last = (end - 1u) >> 5;
    uint32_t n = 0, mask = 0xffffffffu << (first & 31u);
    for (uint32_t k = first >> 5; k < last; k++) {
        n += bd_popcount(words[k] & mask);
        mask = 0xffffffffu;
    }
    return n + bd_popcount(words[last] & mask & (0xffffffffu >> (31u - ((end - 1u) & 31u))));
}

/* One output pixel: sum = taps seen - n, as in conv_packed.c with filters of ones. `pixel` is NULL where the tap is
 * padding that counts. */
#define BOX_SUM(name, SUM)                                                                                   \
    BD_INLINE void take_##name(SUM *sum, const uint32_t *pixel, const bd_view *in, const bd_step *step) {    \
        const uint32_t per_group = in->channels / (uint32_t)step->groups;                                    \
        const uint32_t *second = pixel;                                                                      \
        if (in->dtype == BD_TRIT && pixel != NULL) {                                                         \
            second += (size_t)in->width * bd_words(in->channels);                                            \
        }                                                                                                    \
        for (uint32_t g = 0; g < step->groups; g++) {                                                        \
            const uint32_t first = g * per_group, end = first + per_group;                                   \
            uint32_t n = step->pad_value < 0 ? 2u * per_group : 0;                                           \
            if (pixel != NULL) {                                                                             \
                n = ones_between(pixel, first, end);                                                         \
                if (in->dtype == BD_TRIT) {                                                                  \
                    n += ones_between(second, first, end);                                                   \
                } else if (in->dtype == BD_BIT) {                                                            \
                    n *= 2u;                                                                                 \
                }                                                                                            \
            }                                                                                                \
            sum[g] = (SUM)(sum[g] + (int32_t)per_group - (int32_t)n);                                        \
        }                                                                                                    \
    }                                                                                                        \
                                                                                                             \
    static bd_status box_sum_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],       \
                                    const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {        \
        const uint32_t words = bd_words(in->channels);                                                       \
        (void)constants, (void)scratch;                                                                      \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            SUM *sum = (void *)bd_row(out, y);                                                               \
            for (uint32_t x = 0; x < out->width; x++, sum += step->groups) {                                 \
                const bd_window w = bd_window_at(step, in, y, x);                                            \
                for (uint32_t g = 0; g < step->groups; g++) {                                                \
                    sum[g] = 0;                                                                              \
                }                                                                                            \
                for (uint32_t ky = w.rows.first; ky < w.rows.end; ky++) {                                    \
                    const int32_t at_y = bd_at(step, w.y + (int32_t)(ky * step->dilation_h), in->height);    \
                    const int inside = at_y >= 0 && at_y < in->height;                                       \
                    const uint32_t *row = inside ? (const void *)bd_row(in, (uint32_t)at_y) : NULL;          \
                    for (uint32_t kx = w.columns.first; kx < w.columns.end; kx++) {                          \
                        const int32_t at_x = bd_at(step, w.x + (int32_t)(kx * step->dilation_w), in->width); \
                        const int there = inside && at_x >= 0 && at_x < in->width;                           \
                        take_##name(sum, there ? row + (size_t)(uint32_t)at_x * words : NULL, in, step);     \
                    }                                                                                        \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

BOX_SUM(i16, int16_t)
BOX_SUM(i32, int32_t)

static bd_status check_box_sum(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t from,
                               uint32_t to) {
    if (!bd_is(in, from) || !bd_is(out, to) || !bd_is_conv(step, in, out) || out->channels != step->groups) {
        return BD_ERROR_STEP;
    }
    const uint32_t taps = (uint32_t)step->kernel_h * step->kernel_w;
    const uint64_t largest = (uint64_t)taps * (in->channels / (uint32_t)step->groups);
    return largest <= (to == BD_I16 ? 0x7fffu : 0x3fffffffu) ? BD_OK : BD_ERROR_STEP;
}

#define KERNEL(name, run, call)                                                                              \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants, (void)constants_size, (void)scratch_bytes;                                          \
        return call;                                                                                         \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_##name, run, check_##name)

KERNEL(logic_bit, logic, check_logic(step, in, out, BD_BIT))
KERNEL(logic_ubit, logic, check_logic(step, in, out, BD_UBIT))
KERNEL(box_sum_b_i16, box_sum_i16, check_box_sum(step, in, out, BD_BIT, BD_I16))
KERNEL(box_sum_b_i32, box_sum_i32, check_box_sum(step, in, out, BD_BIT, BD_I32))
KERNEL(box_sum_t_i16, box_sum_i16, check_box_sum(step, in, out, BD_TRIT, BD_I16))
KERNEL(box_sum_t_i32, box_sum_i32, check_box_sum(step, in, out, BD_TRIT, BD_I32))
KERNEL(box_sum_z_i16, box_sum_i16, check_box_sum(step, in, out, BD_UBIT, BD_I16))
KERNEL(box_sum_z_i32, box_sum_i32, check_box_sum(step, in, out, BD_UBIT, BD_I32))
