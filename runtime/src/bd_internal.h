/* What the parts of the runtime share: the checked model, the context, and single steps.
 *
 * Emulators and the host binding use bd_run_step and bd_tensor_area too; applications use bdnet.h
 * only. */
#ifndef BD_INTERNAL_H
#define BD_INTERNAL_H

#include "bd_kernel.h"

#if defined(__BYTE_ORDER__) && defined(__ORDER_BIG_ENDIAN__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#    error ".bdn files are read in place: bdnet needs a little-endian machine"
#endif

#if defined(__GNUC__)
#    define BD_NOINLINE __attribute__((noinline))
#else
#    define BD_NOINLINE
#endif

/* The records of a model that passed every check. Pointers lead into the model. */
typedef struct bd_model {
    const bd_header *header;
    const char *names; /* kernel_count times BD_NAME_BYTES */
    const bd_tensor *tensors;
    const bd_step *steps;
    const uint8_t *constants;
    const bd_test_vector *test; /* NULL when there is none */
    uint32_t kernel_count, tensor_count, step_count, constants_size;
} bd_model;

#define BD_NAME_BYTES 32u

/* At the start of the arena; the resolved kernels, the tensors and the scratch follow. */
struct bd_context {
    bd_model model;
    const bd_kernel **kernels; /* kernel_count */
    uint16_t *rows_made;       /* per step: calls' rows done, of steps that run in segments */
    uint8_t *tensors;
    uint8_t *scratch;
    const uint8_t *arena_end;  /* behind the scratch: room for that of other threads */
    const void *const *inputs; /* the caller's, between bd_begin and the last step */
    void *const *outputs;
    uint32_t at; /* the step that runs, or the first of the segment that runs; step_count when all are done */
    uint32_t next; /* in a segment: the step that the sweep looks at next */
    uint32_t rows_pushed;
    uint32_t wants_row; /* bd_advance has asked for a row */
};
BD_STATIC_ASSERT(context, sizeof(struct bd_context) <= BD_CONTEXT_BYTES);

/* The operands of one step. Absent views are all zeros. Bases are NULL until bd_run_step sets them. */
typedef struct bd_operands {
    bd_view kernel_in[2], kernel_out[2];
    bd_view epilogue_in[2], epilogue_out[2];
    uint32_t calls_over; /* rows over which the calls of the kernel go */
    uint32_t acc_bytes;  /* accumulators at the start of the scratch, a multiple of BD_ALIGN */
} bd_operands;

/* Bytes of one dense row of such a feature map; 0 for an unknown dtype. */
uint64_t bd_row_bytes(uint32_t width, uint32_t channels, uint32_t dtype);

/* Bytes of one element; 0 when elements are packed. */
uint32_t bd_element_bytes(uint32_t dtype);

/* The kernel of that name, or NULL. */
const bd_kernel *bd_find_kernel(const bd_kernel_table *kernels, const char *name);

/* Views of a step whose tensor indices are valid; false when its accumulators exceed 2 GiB. */
int bd_step_operands(const bd_model *model, const bd_step *step, bd_operands *operands);

/* Finds and checks everything in a model. *missing is set with BD_ERROR_KERNEL. */
bd_status bd_check_model(const void *data, uint32_t size, const bd_kernel_table *kernels, bd_model *model,
                         const char **missing);

/* Kernel calls of a step for rows y .. end - 1, of its output or, where it accumulates, of its input, with a scratch
 * of its own for each thread. */
bd_status bd_run_rows(const bd_context *context, uint32_t index, uint32_t y, uint32_t end, uint8_t *scratch);

/* The inference is over, or was not begun: nothing may go on with it. Returns the status. */
bd_status bd_end_with(bd_context *context, bd_status status);

/* Of a model whose input is pushed, when bd_advance asks for a row: where it goes, and that it is there. */
uint8_t *bd_next_row(bd_context *context);
void bd_row_is_there(bd_context *context);

/* One step by itself, between bd_begin and the end of the inference. */
bd_status bd_run_step(bd_context *context, uint32_t index);

/* Where tensor offsets count from. */
void *bd_tensor_area(bd_context *context);

/* Called around every step and empty: a place for an emulator's or a debugger's breakpoint. */
void bd_step_enter(uint32_t index);
void bd_step_leave(void);

#endif
