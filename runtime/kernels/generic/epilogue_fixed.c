/* Fixed-point epilogues: from integer accumulators to the int16 or int8 trunk and the next layer's bits or
 * trits.
 *
 *     v = saturate((shift(acc) * mul + shift(residual) * residual_mul + add) >> 16)
 *     y = saturate((v * slope) >> 16), slope = positive where v >= 0, else negative
 *
 * All in 32 bits: a factor is k * 65536 + m with m its low 16 bits taken as signed, and k * term is added
 * behind the shift. Blocks of 32 channels pass one stage after the other, so that any stage may be absent
 * without a copy of the loop. Every shift, comparison and saturation is straight-line code: each input costs
 * the same instructions. */
#include "bd_check.h"
#include "bd_epilogue.h"
#include "bd_kernels.h"

typedef struct fixed_terms {
    int32_t values[BD_BLOCK], residual[BD_BLOCK];
} fixed_terms;

BD_LOAD_LEVELS(int32_t)

/* n elements of a pixel from channel c; the channels repeat with the view's own number. Returns the next
 * channel. */
static uint32_t load(int32_t *to, const bd_view *view, const uint8_t *row, uint32_t x, uint32_t c,
                     uint32_t n) {
    const uint32_t channels = view->channels;
    const size_t pixel = (size_t)x * channels;
    for (uint32_t i = 0; i < n;) {
        uint32_t end = i + (channels - c); /* up to the last channel, then again from the first */
        end = end < n ? end : n;
        const uint32_t length = end - i;
        const size_t at = pixel + c;
        switch (view->dtype) {
        case BD_U8:
            for (uint32_t j = 0; j < length; j++) {
                to[i + j] = row[at + j];
            }
            break;
        case BD_I8:
            for (uint32_t j = 0; j < length; j++) {
                to[i + j] = ((const int8_t *)(const void *)row)[at + j];
            }
            break;
        case BD_I16:
            for (uint32_t j = 0; j < length; j++) {
                to[i + j] = ((const int16_t *)(const void *)row)[at + j];
            }
            break;
        default:
            for (uint32_t j = 0; j < length; j++) {
                to[i + j] = ((const int32_t *)(const void *)row)[at + j];
            }
            break;
        }
        i = end;
        c = c + length == channels ? 0 : c + length;
    }
    return c;
}

static void store(const bd_view *view, uint8_t *row, uint32_t x, uint32_t c, const int32_t *from,
                  uint32_t n) {
    const size_t at = (size_t)x * view->channels + c;
    switch (view->dtype) {
    case BD_U8:
    case BD_I8:
        for (uint32_t i = 0; i < n; i++) {
            row[at + i] = (uint8_t)from[i];
        }
        break;
    case BD_I16:
        for (uint32_t i = 0; i < n; i++) {
            ((int16_t *)(void *)row)[at + i] = (int16_t)from[i];
        }
        break;
    default:
        for (uint32_t i = 0; i < n; i++) {
            ((int32_t *)(void *)row)[at + i] = from[i];
        }
        break;
    }
}

/* values <<= shift, or >>= where negative, saturated to 16 bits. Only 32-bit values that are not shifted to
 * the left can need that: the exporter proves it of the others. */
static void shift_terms(int32_t *values, uint32_t n, int shift, const bd_view *view) {
    if (shift > 0) {
        for (uint32_t i = 0; i < n; i++) {
            values[i] = (int32_t)((uint32_t)values[i] << shift);
        }
    } else if (view->dtype == BD_I32) {
        for (uint32_t i = 0; i < n; i++) {
            values[i] = bd_saturate16(values[i] >> -shift);
        }
    } else if (shift < 0) {
        for (uint32_t i = 0; i < n; i++) {
            values[i] >>= -shift;
        }
    }
}

/* The two parts of a factor; unsigned, since only a damaged model overflows and that must stay defined. */
BD_INLINE uint32_t low_part(int32_t factor) {
    return (uint32_t)(int32_t)(int16_t)(uint16_t)(uint32_t)factor;
}

BD_INLINE uint32_t high_part(int32_t factor) {
    return (uint32_t)((int32_t)((uint32_t)factor + 0x8000u) >> 16);
}

BD_INLINE int32_t finish(uint32_t low_sum, uint32_t high_sum, int32_t least, int32_t largest) {
    const uint32_t v = (uint32_t)((int32_t)low_sum >> 16) + high_sum;
    return bd_clamp((int32_t)v, least, largest);
}

static void affine(fixed_terms *t, uint32_t n, const int32_t *mul, const int32_t *residual_mul,
                   const int32_t *add, int32_t least, int32_t largest) {
    if (residual_mul == NULL) {
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t v = (uint32_t)t->values[i];
            const uint32_t low = v * low_part(mul[i]) + (uint32_t)add[i];
            t->values[i] = finish(low, v * high_part(mul[i]), least, largest);
        }
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t v = (uint32_t)t->values[i], r = (uint32_t)t->residual[i];
        const uint32_t low = v * low_part(mul[i]) + r * low_part(residual_mul[i]) + (uint32_t)add[i];
        t->values[i] = finish(low, v * high_part(mul[i]) + r * high_part(residual_mul[i]), least, largest);
    }
}

static void two_slope(int32_t *values, uint32_t n, const int32_t *positive, const int32_t *negative,
                      int32_t least, int32_t largest) {
    for (uint32_t i = 0; i < n; i++) {
        const int32_t slope = positive[i] ^ ((positive[i] ^ negative[i]) & bd_negative_mask(values[i]));
        const uint32_t v = (uint32_t)values[i];
        values[i] = finish(v * low_part(slope), v * high_part(slope), least, largest);
    }
}

/* Bit i is 1 where values[i] < threshold[i]. */
static uint32_t below(const int32_t *values, uint32_t n, const int32_t *threshold) {
    uint32_t word = 0;
    for (uint32_t i = 0; i < n; i++) {
        word = (word >> 1) | (bd_less(values[i], threshold[i]) & 0x80000000u);
    }
    return word >> (32u - n);
}

static void block(const bd_epilogue *e, const uint8_t *constants, const bd_view in[], const bd_view out[],
                  const bd_epilogue_rows *rows, uint32_t x, uint32_t c, uint32_t n, fixed_terms *t) {
    const int32_t least = e->dtype == BD_I8 ? INT8_MIN : INT16_MIN;
    const int32_t largest = e->dtype == BD_I8 ? INT8_MAX : INT16_MAX;
    if (e->mul != BD_ABSENT) {
        const int32_t *residual_mul = NULL;
        shift_terms(t->values, n, e->shift, &in[0]);
        if (e->residual_mul != BD_ABSENT) {
            residual_mul = bd_parameters(constants, e->residual_mul, c);
            shift_terms(t->residual, n, e->residual_shift, &in[1]);
        }
        affine(t, n, bd_parameters(constants, e->mul, c), residual_mul, bd_parameters(constants, e->add, c),
               least, largest);
    }
    if (e->positive != BD_ABSENT) {
        two_slope(t->values, n, bd_parameters(constants, e->positive, c),
                  bd_parameters(constants, e->negative, c), least, largest);
    }
    if (rows->trunk != NULL) {
        store(&out[0], rows->trunk, x, c, t->values, n);
    }
    if (rows->packed != NULL) {
        uint32_t *b, *a = bd_packed_at(&out[1], rows->packed, x, c, &b);
        *a = below(t->values, n, bd_parameters(constants, e->low, c));
        if (b != NULL) {
            *b = below(t->values, n, bd_parameters(constants, e->high, c));
        }
    }
}

static bd_status epilogue_fixed(const bd_step *step, const uint8_t *constants, const bd_view in[],
                                const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    const bd_epilogue *e = (const void *)(constants + step->epilogue_at);
    const uint32_t channels = bd_epilogue_channels(step, e);
    fixed_terms terms;
    (void)scratch;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const bd_epilogue_rows row = bd_rows_of(in, out, y);
        for (uint32_t x = 0; x < step->out_width; x++) {
            uint32_t a = 0, r = 0; /* channels of the accumulators and the residual, which may be narrower */
            for (uint32_t c = 0; c < channels; c += BD_BLOCK) {
                const uint32_t n = channels - c < BD_BLOCK ? channels - c : BD_BLOCK;
                a = in[0].dtype < BD_BIT ? load(terms.values, &in[0], row.acc, x, a, n)
                                         : load_levels(terms.values, &in[0], row.acc, x, a, n);
                if (e->residual_mul != BD_ABSENT) {
                    const uint32_t at = in[1].width == 1 ? 0 : x;
                    r = in[1].dtype < BD_BIT ? load(terms.residual, &in[1], row.residual, at, r, n)
                                             : load_levels(terms.residual, &in[1], row.residual, at, r, n);
                }
                block(e, constants, in, out, &row, x, c, n, &terms);
            }
        }
    }
    return BD_OK;
}

#define INTEGERS ((1u << BD_U8) | (1u << BD_I8) | (1u << BD_I16) | (1u << BD_I32) | BD_LEVELS)

/* The body reads its range from bd_epilogue.dtype; the checks hold each name to its own. */
#define EPILOGUE(name, produced)                                                                             \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)scratch_bytes;                                                                                 \
        return bd_check_epilogue(step, constants, constants_size, in, out, INTEGERS, INTEGERS, produced);    \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_epilogue_##name, epilogue_fixed, check_##name)

EPILOGUE(i32, BD_NONE)
EPILOGUE(i16, BD_I16)
EPILOGUE(i8, BD_I8)
