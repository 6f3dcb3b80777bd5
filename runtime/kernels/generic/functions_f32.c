/* Unary functions of every element, in f32. */
#include "bd_check.h"
#include "bd_kernels.h"
#include "bd_math.h"

static bd_status check(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                       const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {
    (void)constants, (void)constants_size, (void)scratch_bytes;
    const int fits = step->kind != BD_STEP_ACCUMULATE && bd_is(in, BD_F32) && bd_is(out, BD_F32) &&
                     bd_is_absent(&in[1]) && bd_is_output(step, out) && out->height == in->height &&
                     out->width == in->width && out->channels == in->channels;
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define FUNCTION(name)                                                                                       \
    static bd_status run_##name(const bd_step *step, const uint8_t *constants, const bd_view in[],           \
                                const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {            \
        const uint32_t count = (uint32_t)out->width * out->channels;                                         \
        (void)step, (void)constants, (void)scratch;                                                          \
        for (uint32_t y = y0; y < y0 + rows; y++) {                                                          \
            const float *from = (const void *)bd_row(in, y);                                                 \
            float *to = (void *)bd_row(out, y);                                                              \
            for (uint32_t i = 0; i < count; i++) {                                                           \
                to[i] = bd_##name(from[i]);                                                                  \
            }                                                                                                \
        }                                                                                                    \
        return BD_OK;                                                                                        \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_##name##_f32, run_##name, check)

FUNCTION(abs)
FUNCTION(erf)
FUNCTION(exp)
FUNCTION(gelu)
FUNCTION(gelu_tanh)
FUNCTION(hard_sigmoid)
FUNCTION(hard_swish)
FUNCTION(log)
FUNCTION(mish)
FUNCTION(rsqrt)
FUNCTION(sigmoid)
FUNCTION(silu)
FUNCTION(softplus)
FUNCTION(sqrt)
FUNCTION(square)
FUNCTION(tanh)
