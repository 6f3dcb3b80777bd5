/* The contract between steps and kernels.
 *
 * A kernel makes output rows y0 .. y0 + rows - 1 of one step. It sees its operands as views and so does not
 * know whether rows lie in a whole tensor, in a ring or in scratch. It keeps no state between calls, reads
 * nothing but its views, the step and the constants, and its control flow depends on none of the data.
 *
 * A step with an epilogue runs, for each tile of rows: kernel(in -> accumulator view in scratch), then
 * epilogue(accumulator view, residual -> outputs). Both have this same type. */
#ifndef BD_KERNEL_H
#define BD_KERNEL_H

#include "bd_format.h"
#include "bdnet.h"

typedef struct bd_view {
    uint8_t *base;       /* slot 0 */
    uint32_t row_stride; /* bytes from slot to slot */
    uint16_t rows_held;  /* slots: row y lies in slot y % rows_held */
    uint16_t height, width, channels;
    uint8_t dtype; /* bd_dtype */
    uint8_t order;
} bd_view;

typedef struct bd_run_context bd_run_context;

/* constants: payload of the constants record. scratch: the step's own scratch behind the accumulators. */
typedef bd_status (*bd_kernel_fn)(const bd_step *step, const uint8_t *constants, const bd_view in[],
                                  const bd_view out[], uint32_t y0, uint32_t rows, void *scratch);

/* What the loader must know to prove a step safe before it runs: in[], out[] are the views that the kernel
 * will get (bases unset), constants_size bounds every offset. Returns BD_OK only if no call can leave its
 * operands. For an accumulator kernel *scratch_bytes is set to the private scratch that it needs behind the
 * accumulators. */
typedef bd_status (*bd_check_fn)(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                                 const bd_view in[], const bd_view out[], uint32_t *scratch_bytes);

typedef struct bd_kernel {
    const char *name; /* bd_<op>_<in><weight>_<out>[__<packing>], at most 31 characters */
    bd_kernel_fn run;
    bd_check_fn check;
} bd_kernel;

typedef struct bd_kernel_table {
    const bd_kernel *const *kernels;
    uint32_t count;
} bd_kernel_table;

/* Address of row y. */
static inline uint8_t *bd_row(const bd_view *view, uint32_t y) {
    const uint32_t slot = y < view->rows_held ? y : y % view->rows_held;
    return view->base + (size_t)slot * view->row_stride;
}

/* Words of one pixel of one plane. */
static inline uint32_t bd_words(uint32_t channels) {
    return (channels + 31u) / 32u;
}

#endif
