/* Fixed-point epilogue with a pre-BN residual and a ternarizer, word by word (Armv6-M): 8-bit accumulators and an int16
 * residual to an int16 trunk and two planes of bits.
 *
 *     v = saturate(((acc * mul + residual * residual_mul + add) >> 16) + (residual & keep))
 *     y = v >= 0 ? v : saturate(((v * negative) >> 16) + (v & keep_negative))
 *     a = y < low, b = y < high
 *
 * A multiplication has 32 bits here: the left shift of the accumulator lies in mul, and where the slope s is between 0
 * and 1 the negative part is v + ((v * (s - 1)) >> 16), a product that is never negative and below 2^32, without whole
 * part and saturation. Records of one channel; channels run down, as bits are shifted in at the low end.
 * Packed words have natural order; byte 4(c % 8) + c / 8 of every 32 accumulators is channel c, as the depth-wise
 * kernels leave them. A sign is shifted in by its carry: y + 2^15 is below low + 2^15 without a sign. */
#include "bd_kernel.h"

typedef struct record {
    int32_t mul, residual_mul, add;
    int32_t negative; /* slope * 65536, minus 65536 in forms with a slope from 0 to 1 */
    uint32_t low, high; /* plus 2^15 */
    uint32_t keep, keep_negative;
} record;

enum { NONE, ALL, MASK };
typedef struct form {
    int is_signed; /* accumulators: int8, or counts */
    int keep;
    int slope_to_one; /* every slope is from 0 to 1 */
    int residual_factor;
    int saturate;
} form;

/* To 16 bits, in constant time, for |x| < 2^30. */
static inline int32_t saturate16(int32_t x)
{
    const int32_t over = x - 32767;
    const int32_t lowered = (over & (over >> 31)) + 65535;
    return (lowered & ~(lowered >> 31)) - 32768;
}

static inline __attribute__((always_inline)) int32_t one_element(const record *p, int32_t acc, int32_t residual, form f)
{
    uint32_t sum = (uint32_t)acc * (uint32_t)p->mul + (uint32_t)p->add;
    if (f.residual_factor) {
        sum += (uint32_t)residual * (uint32_t)p->residual_mul;
    }
    int32_t v = (int32_t)sum >> 16;
    if (f.keep != NONE) {
        v += f.keep == ALL ? residual : (int32_t)((uint32_t)residual & p->keep);
    }
    if (f.saturate) {
        v = saturate16(v);
    }
    const int32_t below = v & (v >> 31);
    if (f.slope_to_one) {
        return v + (int32_t)(((uint32_t)below * (uint32_t)p->negative) >> 16);
    }
    return saturate16(v - below + ((below * p->negative) >> 16) + (int32_t)((uint32_t)below & p->keep_negative));
}

/* bits * 2 + (y >= threshold) */
static inline __attribute__((always_inline)) uint32_t shift_in(uint32_t bits, uint32_t y, uint32_t threshold)
{
#if defined(__thumb__)
    __asm__("cmp %1, %2\n\tadcs %0, %0" : "+l"(bits) : "l"(y), "l"(threshold) : "cc");
    return bits;
#else
    return 2u * bits + (y >= threshold);
#endif
}

static inline __attribute__((always_inline)) void run_rows(const bd_step *step, const uint8_t *constants,
                                                           const bd_view in[], const bd_view out[], uint32_t y0,
                                                           uint32_t rows, form f)
{
    const bd_epilogue *e = (const bd_epilogue *)(const void *)(constants + step->epilogue_at);
    const record *const records = (const record *)(const void *)(constants + e->mul);
    const uint32_t width = out[0].width, words = bd_words(out[0].channels), plane = width * words;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const uint8_t *acc = bd_row(&in[0], y);
        const int16_t *residual = (const int16_t *)(const void *)bd_row(&in[1], y);
        int16_t *trunk = (int16_t *)(void *)bd_row(&out[0], y);
        uint32_t *packed = (uint32_t *)(void *)bd_row(&out[1], y);
        for (uint32_t x = 0; x < width; x++) {
            const record *p = records;
            for (uint32_t k = 0; k < words; k++) {
                uint32_t a = 0, b = 0;
                for (uint32_t lane = 4; lane-- > 0;) {
                    const uint8_t *from = acc + lane;
                    const int16_t *add = residual + 8 * lane;
                    int16_t *to = trunk + 8 * lane;
                    for (uint32_t i = 8; i-- > 0;) {
                        const int32_t n = f.is_signed ? ((const int8_t *)from)[4 * i] : from[4 * i];
                        const int32_t value = one_element(p, n, add[i], f);
                        const uint32_t biased = (uint32_t)value + 32768u;
                        to[i] = (int16_t)value;
                        a = shift_in(a, biased, p->low);
                        b = shift_in(b, biased, p->high);
                        p++;
                    }
                }
                acc += 32;
                residual += 32;
                trunk += 32;
                packed[0] = ~a;
                packed[plane] = ~b;
                packed++;
            }
        }
    }
}

static bd_status check(const bd_step *step, const uint8_t *constants, uint32_t constants_size, const bd_view in[],
                       const bd_view out[], uint32_t *scratch_bytes)
{
    const bd_epilogue *e = (const bd_epilogue *)(const void *)(constants + step->epilogue_at);
    const uint32_t channels = out[0].channels, size = channels * (uint32_t)sizeof(record);
    *scratch_bytes = 0;
    if (step->epilogue_at % 4u != 0 || step->epilogue_at > constants_size ||
        sizeof(bd_epilogue) > constants_size - step->epilogue_at) {
        return BD_ERROR_STEP;
    }
    if (e->shift < 0 || e->shift > 15 || e->residual_shift != 0 || e->residual_channels != channels ||
        e->mul % 4u != 0 || e->mul > constants_size || size > constants_size - e->mul || channels == 0 ||
        channels % 32u != 0) {
        return BD_ERROR_STEP;
    }
    if ((in[0].dtype != BD_I8 && in[0].dtype != BD_U8) || in[0].order != 0 || in[1].dtype != BD_I16 ||
        in[1].order != 0 || out[0].dtype != BD_I16 || out[0].order != 0 || out[1].dtype != BD_TRIT ||
        out[1].order != 0) {
        return BD_ERROR_STEP;
    }
    for (uint32_t i = 0; i < 2; i++) {
        if (in[i].channels != channels || out[i].channels != channels || in[i].width != out[0].width ||
            out[i].width != out[0].width || out[0].width == 0) {
            return BD_ERROR_STEP;
        }
    }
    return BD_OK;
}

#define KERNEL(suffix, keep, slope_to_one, residual_factor, saturate)                                        \
    static bd_status run_##suffix(const bd_step *step, const uint8_t *constants, const bd_view in[],         \
                                  const bd_view out[], uint32_t y0, uint32_t rows, void *scratch)            \
    {                                                                                                        \
        const form f = {in[0].dtype == BD_I8, keep, slope_to_one, residual_factor, saturate};                \
        const form counts = {0, keep, slope_to_one, residual_factor, saturate};                \
        (void)scratch;                                                                                       \
        if (f.is_signed) { run_rows(step, constants, in, out, y0, rows, f); } else { run_rows(step, constants, in, out, y0, rows, counts); }                                                     \
        return BD_OK;                                                                                        \
    }                                                                                                        \
    const bd_kernel bd_epilogue_i16__##suffix = {"bd_epilogue_i16__" #suffix, run_##suffix, check};

KERNEL(word, MASK, 0, 1, 1)
KERNEL(word_k1, ALL, 1, 1, 1)
KERNEL(word_k1_fits, ALL, 1, 1, 0)
KERNEL(word_k0, NONE, 1, 1, 0)
KERNEL(word_one, ALL, 1, 0, 1)
KERNEL(word_one_fits, ALL, 1, 0, 0)
