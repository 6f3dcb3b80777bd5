/* Float epilogue: v = (acc * mul [+ residual * residual_mul]) + add; y = v * slope + bias; bits or trits of
 * y.
 *
 * Every operation is rounded to float in this order; compile without contraction to fused multiply-add. */
#include "bd_check.h"
#include "bd_epilogue.h"
#include "bd_kernels.h"

BD_LOAD_LEVELS(float)

/* n elements of a pixel from channel c; the channels repeat with the view's own number. Returns the next
 * channel. */
static uint32_t load(float *to, const bd_view *view, const uint8_t *row, uint32_t x, uint32_t c, uint32_t n) {
    const uint32_t channels = view->channels;
    const size_t pixel = (size_t)x * channels;
    for (uint32_t i = 0; i < n;) {
        uint32_t end = i + (channels - c); /* up to the last channel, then again from the first */
        end = end < n ? end : n;
        const uint32_t length = end - i;
        const size_t at = pixel + c;
        switch (view->dtype) {
        case BD_I8:
            for (uint32_t j = 0; j < length; j++) {
                to[i + j] = (float)((const int8_t *)(const void *)row)[at + j];
            }
            break;
        case BD_I16:
            for (uint32_t j = 0; j < length; j++) {
                to[i + j] = (float)((const int16_t *)(const void *)row)[at + j];
            }
            break;
        case BD_I32:
            for (uint32_t j = 0; j < length; j++) {
                to[i + j] = (float)((const int32_t *)(const void *)row)[at + j];
            }
            break;
        default:
            for (uint32_t j = 0; j < length; j++) {
                to[i + j] = ((const float *)(const void *)row)[at + j];
            }
            break;
        }
        i = end;
        c = c + length == channels ? 0 : c + length;
    }
    return c;
}

static void affine(float *values, const float *residual, uint32_t n, const float *mul,
                   const float *residual_mul, const float *add) {
    if (residual_mul == NULL) {
        for (uint32_t i = 0; i < n; i++) {
            const float v = values[i] * mul[i];
            values[i] = v + add[i];
        }
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        const float v = values[i] * mul[i], r = residual[i] * residual_mul[i];
        const float sum = v + r;
        values[i] = sum + add[i];
    }
}

/* NaN takes the negative slope: it is not at least 0. */
static void two_slope(float *values, uint32_t n, const float *positive, const float *negative,
                      const float *bias) {
    for (uint32_t i = 0; i < n; i++) {
        values[i] *= values[i] >= 0.0f ? positive[i] : negative[i];
    }
    if (bias != NULL) {
        for (uint32_t i = 0; i < n; i++) {
            values[i] += bias[i];
        }
    }
}

/* Bit i is 1 where values[i] < threshold[i]; NaN gives 0, which stands for +1. */
static uint32_t below(const float *values, uint32_t n, const float *threshold) {
    uint32_t word = 0;
    for (uint32_t i = 0; i < n; i++) {
        word |= (uint32_t)(values[i] < threshold[i]) << i;
    }
    return word;
}

static void block(const bd_epilogue *e, const uint8_t *constants, const bd_view out[],
                  const bd_epilogue_rows *rows, uint32_t x, uint32_t c, uint32_t n, float *values,
                  const float *residual) {
    if (e->mul != BD_ABSENT) {
        affine(values, residual, n, bd_parameters(constants, e->mul, c),
               e->residual_mul != BD_ABSENT ? bd_parameters(constants, e->residual_mul, c) : NULL,
               bd_parameters(constants, e->add, c));
    }
    if (e->positive != BD_ABSENT) {
        two_slope(values, n, bd_parameters(constants, e->positive, c),
                  bd_parameters(constants, e->negative, c),
                  e->bias != BD_ABSENT ? bd_parameters(constants, e->bias, c) : NULL);
    }
    if (rows->trunk != NULL) {
        float *to = (float *)(void *)rows->trunk + (size_t)x * out[0].channels + c;
        for (uint32_t i = 0; i < n; i++) {
            to[i] = values[i];
        }
    }
    if (rows->packed != NULL) {
        uint32_t *b, *a = bd_packed_at(&out[1], rows->packed, x, c, &b);
        *a = below(values, n, bd_parameters(constants, e->low, c));
        if (b != NULL) {
            *b = below(values, n, bd_parameters(constants, e->high, c));
        }
    }
}

static bd_status epilogue_f32(const bd_step *step, const uint8_t *constants, const bd_view in[],
                              const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    const bd_epilogue *e = (const void *)(constants + step->epilogue_at);
    const uint32_t channels = bd_epilogue_channels(step, e);
    float values[BD_BLOCK], residual[BD_BLOCK];
    (void)scratch;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const bd_epilogue_rows row = bd_rows_of(in, out, y);
        for (uint32_t x = 0; x < step->out_width; x++) {
            uint32_t a = 0, r = 0; /* channels of the accumulators and the residual, which may be narrower */
            for (uint32_t c = 0; c < channels; c += BD_BLOCK) {
                const uint32_t n = channels - c < BD_BLOCK ? channels - c : BD_BLOCK;
                a = in[0].dtype < BD_BIT ? load(values, &in[0], row.acc, x, a, n)
                                         : load_levels(values, &in[0], row.acc, x, a, n);
                if (e->residual_mul != BD_ABSENT) {
                    const uint32_t at = in[1].width == 1 ? 0 : x;
                    r = in[1].dtype < BD_BIT ? load(residual, &in[1], row.residual, at, r, n)
                                             : load_levels(residual, &in[1], row.residual, at, r, n);
                }
                block(e, constants, out, &row, x, c, n, values, residual);
            }
        }
    }
    return BD_OK;
}

static bd_status check(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                       const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {
    const uint32_t terms = (1u << BD_F32) | (1u << BD_I8) | (1u << BD_I16) | (1u << BD_I32) | BD_LEVELS;
    (void)scratch_bytes;
    return bd_check_epilogue(step, constants, constants_size, in, out, terms, terms, BD_F32);
}

BD_DEFINE_KERNEL(bd_epilogue_f32, epilogue_f32, check)
