/* Fixed-point epilogues with parameters in the packing of bd_lanes16.h: the plain version, and the check of all versions. */
#include "bd_check.h"
#include "bd_fixed.h"
#include "bd_kernels.h"
#include "bd_lanes16.h"

BD_INLINE int32_t wrap16(uint32_t x) {
    return (int32_t)(x << 16) >> 16;
}

BD_INLINE int32_t saturated_sum(int32_t a, int32_t b) {
    const int64_t sum = (int64_t)a + b;
    const int32_t low = (int32_t)(uint32_t)(uint64_t)sum;
    /* the sum wrapped where both have one sign and the result another */
    const int32_t wrapped = bd_sign_mask((a ^ low) & (b ^ low));
    return bd_select(low, (int32_t)(0x7fffffffu + ((uint32_t)a >> 31)), wrapped);
}

/* 2 * a * b of 16-bit numbers; only -32768 twice does not fit. */
BD_INLINE int32_t doubled_product(int32_t a, int32_t b) {
    const uint32_t product = (uint32_t)(a * b) << 1;
    return (int32_t)(product - ((product & (0u - product)) >> 31));
}

BD_INLINE int32_t up(int32_t v, int32_t shift) {
    return bd_saturate16((int32_t)((uint32_t)v << (shift & 7)));
}

static int32_t two_slope(const bd_lanes16_block *b, uint32_t i, uint32_t form, int32_t v) {
    const int32_t p = bd_saturate16(doubled_product(v, b->slope[i]) >> 16);
    switch (form) {
    case BD_LANES16_FLAT:
        return v;
    case BD_LANES16_EVEN:
        return bd_larger16(v, p);
    case BD_LANES16_HALF:
        return bd_larger16(v, p >> 1);
    case BD_LANES16_ODD:
        return bd_larger16(v, (v + p) >> 1);
    default: {
        const int32_t whole = b->grow[i] < 0 ? 0 : up(v, b->grow[i]);
        return bd_larger16(up(v, b->up[i]), bd_saturate16((((v & b->keep[i]) + p) >> 1) + whole));
    }
    }
}

static int32_t term(const bd_view *view, const uint8_t *row, size_t at, int shift) {
    int32_t x;
    switch (view->dtype) {
    case BD_I8:
        x = ((const int8_t *)(const void *)row)[at];
        break;
    case BD_I16:
        x = ((const int16_t *)(const void *)row)[at];
        break;
    default:
        return bd_saturate16(((const int32_t *)(const void *)row)[at] >> -shift);
    }
    return shift < 0 ? x >> -shift : wrap16((uint32_t)x << shift);
}

static int32_t value(const bd_lanes16 *head, const bd_lanes16_block *b, uint32_t i, int32_t t, int32_t r) {
    int32_t s = (int32_t)((uint32_t)(t * b->mul[i]) + (uint32_t)b->add[i]);
    switch (head->residual) {
    case BD_LANES16_NONE:
        return s >> 16;
    case BD_LANES16_ONE:
        return bd_saturate16((s >> 16) + r);
    case BD_LANES16_BOTH:
        s = (int32_t)((uint32_t)s + (uint32_t)(r * b->once[i]));
        break;
    default:
        break;
    }
    return saturated_sum(s, -doubled_product(r, b->twice[i])) >> 16; /* never -(-2**31) */
}

static bd_status epilogue(const bd_step *step, const uint8_t *constants, const bd_view in[],
                          const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    const bd_epilogue *e = (const void *)(constants + step->epilogue_at);
    const bd_lanes16 *head = bd_lanes16_of(constants, e);
    const bd_lanes16_block *blocks = bd_lanes16_blocks(head);
    const uint32_t channels = step->out_channels;
    (void)scratch;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const bd_epilogue_rows row = bd_rows_of(in, out, y);
        for (uint32_t x = 0; x < step->out_width; x++) {
            const uint32_t at = in[1].width == 1 ? 0 : x;
            uint32_t low = 0, high = 0;
            for (uint32_t c = 0; c < channels; c++) {
                const bd_lanes16_block *b = &blocks[c / 16u];
                const uint32_t i = c % 16u;
                const int32_t r = row.residual == NULL
                                      ? 0
                                      : ((const int16_t *)(const void *)
                                             row.residual)[(size_t)at * in[1].channels + c % in[1].channels];
                const int32_t v =
                    value(head, b, i, term(&in[0], row.acc, (size_t)x * channels + c, e->shift), r);
                const int32_t result = two_slope(b, i, head->slopes, v);
                if (row.trunk != NULL) {
                    ((int16_t *)(void *)row.trunk)[(size_t)x * channels + c] = (int16_t)result;
                }
                low |= (uint32_t)(bd_less(result, b->low[i]) & 0x80000000u) >> (31u - c % 32u);
                high |= (uint32_t)(bd_less(result, b->high[i]) & 0x80000000u) >> (31u - c % 32u);
                if (row.packed != NULL && (c % 32u == 31u || c == channels - 1u)) {
                    uint32_t *second, *first = bd_packed_at(&out[1], row.packed, x, c, &second);
                    *first = low;
                    if (second != NULL) {
                        *second = high;
                    }
                    low = high = 0;
                }
            }
        }
    }
    return BD_OK;
}

static bd_status check(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                       const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {
    const uint32_t terms = (1u << BD_I8) | (1u << BD_I16) | (1u << BD_I32);
    const uint64_t bytes =
        sizeof(bd_lanes16) + (step->out_channels + 15u) / 16u * (uint64_t)sizeof(bd_lanes16_block);
    (void)scratch_bytes;
    if (bd_check_packed_epilogue(step, constants, constants_size, in, out, terms, 0, 1u << BD_I16, BD_I16,
                                 bytes) != BD_OK) {
        return BD_ERROR_STEP;
    }
    const bd_epilogue *e = (const void *)(constants + step->epilogue_at);
    const bd_lanes16 *head = bd_lanes16_of(constants, e);
    const uint32_t channels = step->out_channels, repeated = in[1].channels;
    int fits = e->repeats == 0 && e->residual_shift == 0 && head->slopes <= BD_LANES16_ANY &&
               head->residual <= BD_LANES16_BOTH;
    fits = fits && (head->residual != BD_LANES16_NONE) == !bd_is_absent(&in[1]) &&
           (in->dtype != BD_I32 || bd_is_absent(&in[1]));
    /* Blocks of 16 channels begin where the residual's do, or all of them take the same 8 channels. */
    fits = fits && (bd_is_absent(&in[1]) || repeated == channels ||
                    (repeated % 16u == 0 && channels % repeated == 0) ||
                    (repeated == 8u && channels % 16u == 0 && head->residual == BD_LANES16_BOTH));
    fits = fits && (in->dtype == BD_I32   ? e->shift <= 0
                    : in->dtype == BD_I16 ? e->shift >= -15
                                          : e->shift >= 8);
    return fits ? BD_OK : BD_ERROR_STEP;
}

BD_DEFINE_KERNEL(bd_epilogue_i16__lanes16, epilogue, check)
