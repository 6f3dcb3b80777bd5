/* Normalization by mean and standard deviation: of the channels of each pixel (layer_norm), or of the whole map by groups
 * of channels (group_norm, one call for all rows).
 *
 *     weights: f32: epsilon. Fixed: uint32 fraction, then the two words of bias, low word first.
 *
 * A set of elements is walked as lines of `length` elements: of one pixel for layer_norm, of every pixel for group_norm.
 * bdnet_deploy/graph/ops/normalization.py has the formulas and their bounds. */
#include "bd_check.h"
#include "bd_fixed.h"
#include "bd_kernels.h"
#include "bd_math.h"

/* Which elements share their statistics. */
typedef struct bd_set {
    uint32_t y, rows;          /* of the map */
    uint32_t first, per_row;   /* element of a row where its first line begins; lines in a row */
    uint32_t length, distance; /* elements of a line, and from line to line */
} bd_set;

/* For every line of the set: BODY, with `from` and `to` at its first elements. */
#define EACH_LINE(TYPE, OUT, BODY)                                                                           \
    for (uint32_t y = set->y; y < set->y + set->rows; y++) {                                                 \
        const TYPE *from = (const TYPE *)(const void *)bd_row(in, y) + set->first;                           \
        OUT *to = (OUT *)(void *)bd_row(out, y) + set->first;                                                \
        for (uint32_t i = 0; i < set->per_row; i++, from += set->distance, to += set->distance) {            \
            for (uint32_t c = 0; c < set->length; c++) {                                                     \
                BODY;                                                                                        \
            }                                                                                                \
        }                                                                                                    \
    }

static void normalize_f32(const bd_set *set, const uint8_t *parameters, const bd_view *in, const bd_view *out,
                          uint32_t count) {
    const float factor = 1.0f / (float)count, epsilon = *(const float *)(const void *)parameters;
    float sum = 0.0f, squares = 0.0f;
    EACH_LINE(float, float, sum += from[c])
    const float mean = sum * factor;
    EACH_LINE(float, float, (to[c] = from[c] - mean, squares += to[c] * to[c]))
    const float reciprocal = 1.0f / bd_sqrt(squares * factor + epsilon);
    EACH_LINE(float, float, to[c] *= reciprocal)
}

/* What the elements of a set are multiplied with. */
typedef struct bd_deviation {
    uint32_t power, reciprocal; /* 2**k, and 2**54 / root */
    uint32_t shift;
    uint64_t half;
} bd_deviation;

static bd_deviation deviation_of(const uint32_t *parameters, uint32_t count, int32_t sum, uint64_t squares) {
    bd_deviation d;
    const uint64_t bias = ((uint64_t)parameters[2] << 32) | parameters[1];
    uint64_t n = squares * count - (uint64_t)((int64_t)sum * sum) + bias;
    d.power = 1u << bd_normalize(&n);
    d.reciprocal = bd_quotient(1u << 29, bd_root(n) >> 1, 25);
    d.shift = 39u - parameters[0];
    d.half = (uint64_t)1 << (38u - parameters[0]);
    return d;
}

/* Arithmetic without sign, as two's complement: nothing can overflow. */
static inline int16_t deviate(const bd_deviation *d, uint32_t count, int32_t sum, int32_t x) {
    const uint64_t deviation = (uint64_t)((int64_t)x * count) - (uint64_t)(int64_t)sum;
    const int64_t t = (int64_t)(deviation * d->power) >> 16;
    const int64_t y = (int64_t)((uint64_t)t * d->reciprocal + d->half) >> d->shift;
    return (int16_t)bd_clamp((int32_t)y, INT16_MIN, INT16_MAX);
}

#define NORMALIZE(name, TYPE)                                                                                \
    static void normalize_##name(const bd_set *set, const uint8_t *parameters, const bd_view *in,            \
                                 const bd_view *out, uint32_t count) {                                       \
        int32_t sum = 0;                                                                                     \
        uint64_t squares = 0;                                                                                \
        EACH_LINE(TYPE, int16_t, (sum += from[c], squares += (uint32_t)(from[c] * from[c]), (void)to))       \
        const bd_deviation d = deviation_of((const void *)parameters, count, sum, squares);                  \
        EACH_LINE(TYPE, int16_t, to[c] = deviate(&d, count, sum, from[c]))                                   \
    }

NORMALIZE(h, int16_t)
NORMALIZE(q, int8_t)

#define RUN(name, normalize)                                                                                 \
    static bd_status layer_norm_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],    \
                                       const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {     \
        bd_set set = {y0, 1, 0, 1, in->channels, 0};                                                         \
        (void)scratch;                                                                                       \
        for (; set.y < y0 + rows; set.y++) {                                                                 \
            set.first = 0;                                                                                   \
            for (uint32_t x = 0; x < in->width; x++, set.first += in->channels) {                            \
                normalize(&set, constants + step->weights, in, out, set.length);                             \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }                                                                                                        \
    static bd_status group_norm_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],    \
                                       const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {     \
        bd_set set = {y0, rows, 0, in->width, in->channels / (uint32_t)step->groups, in->channels};          \
        (void)scratch;                                                                                       \
        for (; set.first < in->channels; set.first += set.length) {                                          \
            normalize(&set, constants + step->weights, in, out, set.length * set.per_row * rows);            \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

RUN(f32, normalize_f32)
RUN(h_i16, normalize_h)
RUN(q_i16, normalize_q)

/* `whole`: statistics over the map; `most`: elements that exact (or, in f32, rounded) statistics take. */
static bd_status check(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                       uint32_t from, uint32_t to, uint32_t most, int whole) {
    const uint32_t groups = step->groups;
    int fits = bd_is(in, from) && bd_is(out, to) && bd_is_absent(&in[1]) && bd_is_output(step, out) &&
               out->height == in->height && out->width == in->width && out->channels == in->channels &&
               step->weights != BD_ABSENT && step->kind == (whole ? BD_STEP_WHOLE : BD_STEP_WINDOW) &&
               groups != 0 && in->channels % groups == 0 && step->weights_size == (from == BD_F32 ? 4u : 12u);
    const uint64_t pixels = whole ? (uint64_t)in->height * in->width : 1u;
    fits = fits && pixels * in->channels / groups <= most;
    if (fits && from != BD_F32) {
        const uint32_t *parameters = (const void *)(constants + step->weights);
        const uint64_t bias = ((uint64_t)parameters[2] << 32) | parameters[1];
        fits = parameters[0] <= 15u && bias != 0 && bias <= (uint64_t)1 << 62;
    }
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define KERNEL(name, from, to, most, whole)                                                                  \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants_size, (void)scratch_bytes;                                                           \
        return check(step, constants, in, out, from, to, most, whole);                                       \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_##name, name, check_##name)

KERNEL(layer_norm_f32, BD_F32, BD_F32, 1u << 24, 0)
KERNEL(layer_norm_h_i16, BD_I16, BD_I16, 65535u, 0)
KERNEL(layer_norm_q_i16, BD_I8, BD_I16, 1u << 20, 0)
KERNEL(group_norm_f32, BD_F32, BD_F32, 1u << 24, 1)
KERNEL(group_norm_h_i16, BD_I16, BD_I16, 65535u, 1)
KERNEL(group_norm_q_i16, BD_I8, BD_I16, 1u << 20, 1)
