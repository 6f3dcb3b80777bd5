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

/* Checks a step's epilogue. `terms` is the set (1 << bd_dtype) of accumulators and residuals that the kernel
 * reads; `produced` is the dtype of y when an affine or slopes make it, or BD_NONE when the kernel has
 * neither. */
bd_status bd_check_epilogue(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                            const bd_view in[], const bd_view out[], uint32_t accumulators,
                            uint32_t residuals, uint32_t produced);

#endif
