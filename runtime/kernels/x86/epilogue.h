/* What the float and the fixed epilogue for x86-64 share: which steps they take, and loads and stores of lanes.
 *
 * Some pixels at a time, lane by lane of their channels, so that parameters are loaded once for these pixels. */
#ifndef BD_X86_EPILOGUE_H
#define BD_X86_EPILOGUE_H

#include "bd_epilogue.h"
#include "elements.h"

#define TOGETHER 4u /* pixels */

/* Copies of everything, since stores to the outputs could change what a pointer leads to. */
typedef struct bd_epilogue_job {
    bd_epilogue e;
    const uint8_t *constants;
    bd_epilogue_rows rows;
    uint32_t acc_dtype, residual_dtype, trunk_dtype;
    uint32_t acc_channels, residual_channels, channels; /* the last: of the outputs */
    uint32_t residual_step;                             /* 0: one pixel for all */
    uint32_t words, second; /* of a packed pixel; to a trit's second plane, else 0 */
} bd_epilogue_job;

/* Whether lanes of a block lie together in an operand that repeats its channels. */
BD_INLINE int bd_repeats_blocks(uint32_t own, uint32_t channels) {
    return own == channels || own % BD_LANES == 0;
}

/* Elements, not levels; anything else is left to the generic kernel. */
static inline int bd_takes(const bd_step *step, const bd_epilogue *e, const bd_view in[]) {
    const uint32_t channels = bd_epilogue_channels(step, e);
    return in[0].dtype < BD_BIT && bd_repeats_blocks(in[0].channels, channels) &&
           (e->residual_mul == BD_ABSENT ||
            (in[1].dtype < BD_BIT && bd_repeats_blocks(in[1].channels, channels)));
}

/* Bits of n channels from c on, of a plane whose words of this pixel begin at `words`. A word's first block clears it. */
BD_INLINE void bd_store_bits(uint32_t *words, uint32_t c, uint32_t n, uint32_t bits) {
    uint32_t *word = words + c / 32u;
    const uint32_t own = (n == BD_LANES ? bits : bits & ((1u << n) - 1u)) << (c % 32u);
    *word = c % 32u == 0 ? own : *word | own;
}

BD_INLINE bd_lanes bd_parameter_block(const bd_epilogue_job *j, uint32_t offset, uint32_t c, uint32_t n) {
    return bd_load_block(j->constants + offset, c, BD_I32, n);
}

BD_INLINE bd_epilogue_job bd_job_of(const bd_step *step, const uint8_t *constants, const bd_view in[],
                                    const bd_view out[]) {
    bd_epilogue_job j = {0};
    j.e = *(const bd_epilogue *)(const void *)(constants + step->epilogue_at);
    j.constants = constants;
    j.acc_dtype = in[0].dtype;
    j.residual_dtype = in[1].dtype;
    j.trunk_dtype = out[0].dtype;
    j.acc_channels = in[0].channels;
    j.residual_channels = in[1].channels;
    j.channels = bd_epilogue_channels(step, &j.e);
    j.residual_step = in[1].width == 1 ? 0 : 1;
    j.words = bd_words(out[1].channels);
    j.second = out[1].dtype == BD_TRIT ? out[1].width * j.words : 0;
    return j;
}

/* All rows: PIXELS(job, x, how many of TOGETHER or 1, type of the accumulators), that type a constant where it is common. */
#define BD_EPILOGUE_ROWS(PIXELS, j, acc_dtype)                                                               \
    for (uint32_t y = y0; y < y0 + rows; y++) {                                                              \
        uint32_t x = 0;                                                                                      \
        (j).rows = bd_rows_of(in, out, y);                                                                   \
        for (; x + TOGETHER <= step->out_width; x += TOGETHER) {                                             \
            PIXELS(&(j), x, TOGETHER, acc_dtype);                                                            \
        }                                                                                                    \
        for (; x < step->out_width; x++) {                                                                   \
            PIXELS(&(j), x, 1, acc_dtype);                                                                   \
        }                                                                                                    \
    }

#endif
