/* Average pooling over windows without padding, and global average pooling row by row. */
#include "bd_check.h"
#include "bd_kernels.h"
#include "bd_mean.h"

/* Windows. TYPE elements, SUM sums, MEAN(sum, factor) from the sum to the element. */
#define AVGPOOL(name, TYPE, SUM, FACTOR, factor_of, MEAN)                                                    \
    static bd_status avgpool_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],       \
                                    const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {        \
        const uint32_t channels = in->channels;                                                              \
        const FACTOR factor = factor_of((uint32_t)step->kernel_h * step->kernel_w);                          \
        (void)constants, (void)scratch;                                                                      \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            TYPE *to = (void *)bd_row(out, y);                                                               \
            for (uint32_t x = 0; x < out->width; x++) {                                                      \
                for (uint32_t c = 0; c < channels; c++) {                                                    \
                    SUM sum = 0;                                                                             \
                    for (uint32_t ky = 0; ky < step->kernel_h; ky++) {                                       \
                        const TYPE *row = (const void *)bd_row(in, y * step->stride_h + ky);                 \
                        row += (size_t)x * step->stride_w * channels + c;                                    \
                        for (uint32_t kx = 0; kx < step->kernel_w; kx++) {                                   \
                            sum += row[(size_t)kx * channels];                                               \
                        }                                                                                    \
                    }                                                                                        \
                    *to++ = (TYPE)MEAN(sum, factor);                                                         \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

AVGPOOL(f32, float, float, float, bd_float_reciprocal, MEAN_F32)
AVGPOOL(i16, int16_t, int32_t, uint32_t, bd_reciprocal, MEAN_I16)
AVGPOOL(i8, int8_t, int32_t, uint32_t, bd_reciprocal, MEAN_I8)

static bd_status check_avgpool(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t dtype) {
    /* Windows lie in the map as a whole: 255 * 255 terms of 16 bits fit 32. */
    const uint32_t bottom = (step->out_height - 1u) * step->stride_h + step->kernel_h;
    const uint32_t right = (step->out_width - 1u) * step->stride_w + step->kernel_w;
    const int fits = bd_is(in, dtype) && bd_is_absent(&in[1]) && bd_is(out, dtype) &&
                     bd_is_window(step, out) && out->channels == in->channels && step->pad_top == 0 &&
                     step->pad_left == 0 && step->dilation_h == 1 && step->dilation_w == 1 &&
                     bottom <= in->height && right <= in->width;
    return fits ? BD_OK : BD_ERROR_STEP;
}

/* Sums lie in a tensor between the calls, where a hostile model's other steps may write, too: they wrap. */
#define ADD_FLOAT(sum, value)   ((sum) + (value))
#define ADD_INTEGER(sum, value) ((int32_t)((uint32_t)(sum) + (uint32_t)(int32_t)(value)))

/* Whole maps: out[0] row 0 is the accumulator over the calls. ADD(sum, value) goes on, LAST ends it. */
#define GAP(name, TYPE, SUM, ADD, LAST)                                                                      \
    static bd_status gap_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],           \
                                const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {            \
        const uint32_t channels = in->channels;                                                              \
        SUM *sum = (void *)out->base;                                                                        \
        (void)step, (void)constants, (void)scratch;                                                          \
        if (y0 == 0) {                                                                                       \
            for (uint32_t c = 0; c < channels; c++) {                                                        \
                sum[c] = 0;                                                                                  \
            }                                                                                                \
        }                                                                                                    \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            const TYPE *from = (const void *)bd_row(in, y);                                                  \
            for (uint32_t x = 0; x < in->width; x++, from += channels) {                                     \
                for (uint32_t c = 0; c < channels; c++) {                                                    \
                    sum[c] = ADD(sum[c], from[c]);                                                           \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
        if (y0 + rows == in->height) {                                                                       \
            LAST;                                                                                            \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

static void scale(float *sum, uint32_t channels, uint32_t count) {
    const float factor = bd_float_reciprocal(count);
    for (uint32_t c = 0; c < channels; c++) {
        sum[c] *= factor;
    }
}

GAP(f, float, float, ADD_FLOAT, scale(sum, channels, (uint32_t)in->height * in->width))
GAP(h, int16_t, int32_t, ADD_INTEGER, (void)0)
GAP(q, int8_t, int32_t, ADD_INTEGER, (void)0)
GAP(u, uint8_t, int32_t, ADD_INTEGER, (void)0)

/* `pixels`: the most that an exact sum (or count) takes. */
static bd_status check_gap(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t from,
                           uint32_t to, uint32_t pixels) {
    const int fits = step->kind == BD_STEP_ACCUMULATE && bd_is(in, from) && bd_is_absent(&in[1]) &&
                     bd_is(out, to) && bd_is_output(step, out) && out->height == 1 && out->width == 1 &&
                     out->channels == in->channels && (uint64_t)in->height * in->width <= pixels;
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define CHECK(name, call)                                                                                    \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants, (void)constants_size, (void)scratch_bytes;                                          \
        return call;                                                                                         \
    }

CHECK(avgpool_f32, check_avgpool(step, in, out, BD_F32))
CHECK(avgpool_i16, check_avgpool(step, in, out, BD_I16))
CHECK(avgpool_i8, check_avgpool(step, in, out, BD_I8))
CHECK(gap_f, check_gap(step, in, out, BD_F32, BD_F32, 1u << 24))
CHECK(gap_h, check_gap(step, in, out, BD_I16, BD_I32, 1u << 16))
CHECK(gap_q, check_gap(step, in, out, BD_I8, BD_I32, 1u << 23))
CHECK(gap_u, check_gap(step, in, out, BD_U8, BD_I32, 1u << 23))

BD_DEFINE_KERNEL(bd_avgpool_f32, avgpool_f32, check_avgpool_f32)
BD_DEFINE_KERNEL(bd_avgpool_i16, avgpool_i16, check_avgpool_i16)
BD_DEFINE_KERNEL(bd_avgpool_i8, avgpool_i8, check_avgpool_i8)
BD_DEFINE_KERNEL(bd_gap_f_f32, gap_f, check_gap_f)
BD_DEFINE_KERNEL(bd_gap_h_i32, gap_h, check_gap_h)
BD_DEFINE_KERNEL(bd_gap_q_i32, gap_q, check_gap_q)
BD_DEFINE_KERNEL(bd_gap_u_i32, gap_u, check_gap_u)
