/* Sums and products with a constant map.
 *
 *     weights: float or int16_t [height][width][channels]
 *
 * bd_add_map_{u,q}_i32: y = x * 16 + m; bd_add_map_h_i32: y = x + m; bd_mul_map_*: y = x * m. */
#include "bd_check.h"
#include "bd_kernels.h"

#define ADD(x, m)       ((x) + (m))
#define ADD_FINER(x, m) ((x) * 16 + (m))
#define MUL(x, m)       ((x) * (m))

/* Operands are widened first: no result of 8 or 16 bits leaves 32. */
#define MAP(name, X, M, Y, combine)                                                                          \
    static bd_status map_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],           \
                                const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {            \
        const uint32_t count = (uint32_t)in->width * in->channels;                                           \
        const M *map = (const M *)(const void *)(constants + step->weights) + (size_t)y0 * count;            \
        (void)scratch;                                                                                       \
        for (uint32_t y = y0; y < y0 + rows; y++, map += count) {                                            \
            const X *from = (const void *)bd_row(in, y);                                                     \
            Y *to = (void *)bd_row(out, y);                                                                  \
            for (uint32_t i = 0; i < count; i++) {                                                           \
                to[i] = combine((Y)from[i], (Y)map[i]);                                                      \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }

MAP(add_f, float, float, float, ADD)
MAP(add_u, uint8_t, int16_t, int32_t, ADD_FINER)
MAP(add_q, int8_t, int16_t, int32_t, ADD_FINER)
MAP(add_h, int16_t, int16_t, int32_t, ADD)
MAP(mul_f, float, float, float, MUL)
MAP(mul_q, int8_t, int16_t, int32_t, MUL)
MAP(mul_h, int16_t, int16_t, int32_t, MUL)

static bd_status check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t from,
                       uint32_t to) {
    const uint64_t elements = (uint64_t)in->height * in->width * in->channels;
    const uint64_t bytes = elements * (from == BD_F32 ? 4u : 2u);
    const int fits = step->kind != BD_STEP_ACCUMULATE && bd_is(in, from) && bd_is_absent(&in[1]) &&
                     bd_is(out, to) && bd_is_output(step, out) && in->height == out->height &&
                     in->width == out->width && in->channels == out->channels && step->weights != BD_ABSENT &&
                     step->weights_size == bytes;
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define KERNEL(name, run, from, to)                                                                          \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants, (void)constants_size, (void)scratch_bytes;                                          \
        return check(step, in, out, from, to);                                                               \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_##name, run, check_##name)

KERNEL(add_map_f_f32, map_add_f, BD_F32, BD_F32)
KERNEL(add_map_u_i32, map_add_u, BD_U8, BD_I32)
KERNEL(add_map_q_i32, map_add_q, BD_I8, BD_I32)
KERNEL(add_map_h_i32, map_add_h, BD_I16, BD_I32)
KERNEL(mul_map_f_f32, map_mul_f, BD_F32, BD_F32)
KERNEL(mul_map_q_i32, map_mul_q, BD_I8, BD_I32)
KERNEL(mul_map_h_i32, map_mul_h, BD_I16, BD_I32)
