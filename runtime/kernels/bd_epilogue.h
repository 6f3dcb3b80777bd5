/* What the float and the fixed epilogues share: access to parameters, blocks of channels, packing, and the
 * check. */
#ifndef BD_EPILOGUE_H
#define BD_EPILOGUE_H

#include "bd_bits.h"

/* Channels that go through the stages together: a packed word's. */
#define BD_BLOCK 32u

BD_INLINE const void *bd_parameters(const uint8_t *constants, uint32_t offset, uint32_t channel) {
    return constants + offset + 4u * (size_t)channel;
}

/* One row of each operand; NULL where absent. Looked up once a row: rings take a division. */
typedef struct bd_epilogue_rows {
    const uint8_t *acc, *residual;
    uint8_t *trunk, *packed;
} bd_epilogue_rows;

static inline bd_epilogue_rows bd_rows_of(const bd_view in[], const bd_view out[], uint32_t y) {
    bd_epilogue_rows rows;
    rows.acc = bd_row(&in[0], y);
    rows.residual = in[1].rows_held != 0 ? bd_row(&in[1], y) : NULL;
    rows.trunk = out[0].rows_held != 0 ? bd_row(&out[0], y) : NULL;
    rows.packed = out[1].rows_held != 0 ? bd_row(&out[1], y) : NULL;
    return rows;
}

/* Channels of the outputs: the accumulators' and their repeats. */
BD_INLINE uint32_t bd_epilogue_channels(const bd_step *step, const bd_epilogue *e) {
    return (uint32_t)step->out_channels * (e->repeats + 1u);
}

/* The packed words of a block at pixel x; b is the second plane of a trit, else NULL. */
BD_INLINE uint32_t *bd_packed_at(const bd_view *packed, uint8_t *row, uint32_t x, uint32_t channel,
                                 uint32_t **b) {
    const uint32_t words = bd_words(packed->channels);
    uint32_t *a = (uint32_t *)(void *)row + (size_t)x * words + channel / BD_BLOCK;
    *b = packed->dtype == BD_TRIT ? a + (size_t)packed->width * words : NULL;
    return a;
}

/* load_levels: n levels of the packed pixel x from channel c on, as numbers; the channels repeat with the view's own
 * number. Returns the next channel. Both planes of a bit are its own; a ubit's first is 0. */
#define BD_LOAD_LEVELS(TYPE)                                                                                 \
    BD_APART static uint32_t load_levels(TYPE *to, const bd_view *view, const uint8_t *row, uint32_t x,      \
                                         uint32_t c, uint32_t n) {                                           \
        const uint32_t channels = view->channels, words = bd_words(channels);                                \
        const uint32_t *a = (const uint32_t *)(const void *)row + (size_t)x * words;                         \
        const uint32_t *b = view->dtype == BD_TRIT ? a + (size_t)view->width * words : a;                    \
        const uint32_t mask = view->dtype == BD_UBIT ? 0u : 1u;                                              \
        for (uint32_t i = 0; i < n;) { /* up to the end of the word, of the pixel or of the block */         \
            const uint32_t bit = c & 31u, room = 32u - bit, left = channels - c;                             \
            const uint32_t most = room < left ? room : left, count = most < n - i ? most : n - i;            \
            uint32_t first = a[c >> 5] >> bit, second = b[c >> 5] >> bit;                                    \
            for (uint32_t j = 0; j < count; j++, first >>= 1, second >>= 1) {                                \
                to[i + j] = (TYPE)(1 - (int32_t)(first & mask) - (int32_t)(second & 1u));                    \
            }                                                                                                \
            i += count;                                                                                      \
            c = c + count == channels ? 0 : c + count;                                                       \
        }                                                                                                    \
        return c;                                                                                            \
    }

/* Packed operands: their levels are numbers. */
#define BD_LEVELS ((1u << BD_BIT) | (1u << BD_TRIT) | (1u << BD_UBIT))

/* Checks a step's epilogue. `terms` is the set (1 << bd_dtype) of accumulators and residuals that the kernel
 * reads; `produced` is the dtype of y when an affine or slopes make it, or BD_NONE when the kernel has
 * neither. */
bd_status bd_check_epilogue(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                            const bd_view in[], const bd_view out[], uint32_t accumulators,
                            uint32_t residuals, uint32_t produced);

/* The same of an epilogue whose name has a packing: `bytes` of records lie at bd_epilogue.mul, all else is BD_ABSENT; the
 * accumulators have this order. Which outputs and residuals a kernel takes at all is left to its own check. */
bd_status bd_check_packed_epilogue(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                                   const bd_view in[], const bd_view out[], uint32_t accumulators,
                                   uint32_t order, uint32_t residuals, uint32_t produced, uint64_t bytes);

#endif
