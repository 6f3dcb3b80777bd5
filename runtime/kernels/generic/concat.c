/* bd_concat_<dtype>: the channels of in[0], then those of in[1], pixel by pixel. Operands may be narrower integers than
 * the output (accumulators of different kernels), and bits or ubits where the output is trits. */
#include "bd_check.h"
#include "bd_kernels.h"
#include "bd_move.h"

/* `count` integers of a dtype at `from`, widened to `bytes` bytes. */
BD_INLINE void widen(uint8_t *to, const uint8_t *from, uint32_t dtype, uint32_t count, uint32_t bytes) {
    int16_t *halves = (void *)to;
    int32_t *words = (void *)to;
    const int8_t *octets = (const void *)from;
    const int16_t *shorts = (const void *)from;
    for (uint32_t i = 0; i < count; i++) {
        const int32_t value = dtype == BD_I8 ? octets[i] : shorts[i];
        if (bytes == 2u) {
            halves[i] = (int16_t)value;
        } else {
            words[i] = value;
        }
    }
}

BD_INLINE void concat_elements(const bd_view in[], const bd_view out[], uint32_t y0, uint32_t rows,
                               uint32_t bytes) {
    for (uint32_t y = y0; y < y0 + rows; y++) {
        for (uint32_t k = 0; k < 2; k++) {
            const bd_view *part = &in[k];
            const uint32_t n = part->channels;
            const uint32_t step = n * (part->dtype == out->dtype ? bytes : part->dtype == BD_I8 ? 1u : 2u);
            const uint8_t *from = bd_row(part, y);
            uint8_t *to = bd_row(out, y) + (k == 0 ? 0u : (size_t)in[0].channels * bytes);
            for (uint32_t x = 0; x < out->width; x++) {
                if (part->dtype == out->dtype) {
                    bd_move_elements(to, from, n, bytes);
                } else {
                    widen(to, from, part->dtype, n, bytes);
                }
                from += step;
                to += (size_t)out->channels * bytes;
            }
        }
    }
}

static bd_status concat_packed(const bd_step *step, const uint8_t *constants, const bd_view in[],
                               const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    const uint32_t words = bd_words(out->channels), plane_words = out->width * words;
    (void)step, (void)constants, (void)scratch;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        for (uint32_t plane = 0; plane < bd_planes(out->dtype); plane++) {
            uint32_t *row = (void *)bd_row(out, y);
            row += (size_t)plane * plane_words;
            bd_clear_words(row, plane_words);
            for (uint32_t k = 0; k < 2; k++) {
                const bd_view *part = &in[k];
                const uint32_t part_words = bd_words(part->channels);
                const uint32_t at = k == 0 ? 0u : in[0].channels;
                const uint32_t *from = (const void *)bd_row(part, y);
                if (part->dtype == BD_UBIT && out->dtype == BD_TRIT && plane == 0) {
                    continue; /* never -1 */
                }
                /* Both planes of a bit among trits are its own, and so is plane b of a ubit. */
                from += part->dtype == BD_TRIT ? (size_t)plane * part->width * part_words : 0u;
                for (uint32_t x = 0; x < out->width; x++) {
                    bd_move_bits(row + (size_t)x * words, at, from + (size_t)x * part_words, 0,
                                 part->channels);
                }
            }
        }
    }
    return BD_OK;
}

#define CONCAT(bytes)                                                                                        \
    static bd_status concat_##bytes(const bd_step *step, const uint8_t *constants, const bd_view in[],       \
                                    const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {        \
        (void)step, (void)constants, (void)scratch;                                                          \
        concat_elements(in, out, y0, rows, bytes);                                                           \
        return BD_OK;                                                                                        \
    }

CONCAT(4)
CONCAT(2)
CONCAT(1)

/* `narrower`: set (1 << bd_dtype) of other dtypes that an operand may have. */
static bd_status check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t dtype,
                       uint32_t narrower) {
    int fits = bd_is(out, dtype) && bd_is_window(step, out) && step->kernel_h == 1 && step->stride_h == 1 &&
               step->pad_top == 0;
    for (int k = 0; k < 2; k++) {
        const int taken = in[k].dtype <= BD_UBIT && ((narrower | 1u << dtype) >> in[k].dtype & 1u) != 0;
        fits = fits && taken && bd_is(&in[k], in[k].dtype) && in[k].height == out->height &&
               in[k].width == out->width;
    }
    return fits && (uint32_t)in[0].channels + in[1].channels == out->channels ? BD_OK : BD_ERROR_STEP;
}

#define KERNEL(name, run, dtype, narrower)                                                                   \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants, (void)constants_size, (void)scratch_bytes;                                          \
        return check(step, in, out, dtype, narrower);                                                        \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_##name, run, check_##name)

KERNEL(concat_f32, concat_4, BD_F32, 0u)
KERNEL(concat_i32, concat_4, BD_I32, 1u << BD_I8 | 1u << BD_I16)
KERNEL(concat_i16, concat_2, BD_I16, 1u << BD_I8)
KERNEL(concat_i8, concat_1, BD_I8, 0u)
KERNEL(concat_u8, concat_1, BD_U8, 0u)
KERNEL(concat_bit, concat_packed, BD_BIT, 0u)
KERNEL(concat_trit, concat_packed, BD_TRIT, 1u << BD_BIT | 1u << BD_UBIT)
KERNEL(concat_ubit, concat_packed, BD_UBIT, 0u)
