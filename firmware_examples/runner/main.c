/* Runs models for a program at the other end of the port: the image that verify, evaluate and profile emulate.
 *
 * With BD_LINKED_MODEL the model is compiled in (model.h); without, every kernel is, and models arrive over the port.
 * A request is a word, then its data; the answer is a bd_status word, then the output if it is BD_OK.
 *     'L' size model    loads a model (not when one is linked in)
 *     'R' input         one inference; the output follows the status
 *                       (with BD_RUNNER_SLICES: made in slices, between calls that an emulator can see)
 *     'T'               the model's self-test; a word follows the status: 1 passed, 0 failed
 * It ends when the input does. */
#include "bd_internal.h"
#include "port.h"

#ifdef BD_LINKED_MODEL
#    include "model.h"
static uint8_t arena[BD_MODEL_ARENA_BYTES] __attribute__((aligned(16)));
#else
#    ifndef BD_RUNNER_MODEL_BYTES
#        define BD_RUNNER_MODEL_BYTES (512 * 1024)
#    endif
#    ifndef BD_RUNNER_ARENA_BYTES
#        define BD_RUNNER_ARENA_BYTES (1024 * 1024)
#    endif
static uint8_t model_buffer[BD_RUNNER_MODEL_BYTES] __attribute__((aligned(16)));
static uint8_t arena[BD_RUNNER_ARENA_BYTES] __attribute__((aligned(16)));
#endif

#ifndef BD_RUNNER_INPUT_BYTES
#    define BD_RUNNER_INPUT_BYTES (256 * 1024)
#endif
#ifndef BD_RUNNER_OUTPUT_BYTES
#    define BD_RUNNER_OUTPUT_BYTES (128 * 1024)
#endif
static uint8_t input[BD_RUNNER_INPUT_BYTES] __attribute__((aligned(16)));
static uint8_t output[BD_RUNNER_OUTPUT_BYTES] __attribute__((aligned(16)));
static bd_context *context;

static int read_all(void *buffer, uint32_t size) {
    uint8_t *at = buffer;
    while (size > 0) {
        const int32_t got = port_read(at, size);
        if (got <= 0) {
            return 0;
        }
        at += got;
        size -= (uint32_t)got;
    }
    return 1;
}

static uint32_t bytes_of(const bd_shape *shape) {
    return (uint32_t)shape->height * shape->width * shape->channels * bd_element_bytes(shape->dtype);
}

/* Bytes of the first input (or output) of the loaded model, 0 if they do not fit `room`. */
static uint32_t io_bytes(bd_status (*shape_of)(const bd_context *, uint32_t, bd_shape *), uint32_t room) {
    bd_shape shape;
    if (context == NULL || shape_of(context, 0, &shape) != BD_OK) {
        return 0;
    }
    const uint32_t bytes = bytes_of(&shape);
    return bytes <= room ? bytes : 0;
}

static void answer(bd_status status, const void *data, uint32_t size) {
    const uint32_t word = (uint32_t)status;
    port_write(&word, sizeof word);
    if (status == BD_OK && size > 0) {
        port_write(data, size);
    }
}

static bd_status load(void) {
#ifdef BD_LINKED_MODEL
    return bd_load(arena, sizeof arena, BD_MODEL_DATA, BD_MODEL_BYTES, &BD_MODEL_KERNELS, &context);
#else
    uint32_t size = 0;
    context = NULL;
    if (!read_all(&size, sizeof size) || size > sizeof model_buffer || !read_all(model_buffer, size)) {
        return BD_ERROR_TRUNCATED;
    }
    return bd_load(arena, sizeof arena, model_buffer, size, &bd_kernels_all, &context);
#endif
}

#ifdef BD_RUNNER_SLICES
/* Called around every slice and empty: places for an emulator's breakpoints. */
void runner_slice_enter(uint32_t index);
void runner_slice_leave(void);

__attribute__((noinline)) void runner_slice_enter(uint32_t index) {
    __asm__ volatile("" : : "r"(index) : "memory");
}

__attribute__((noinline)) void runner_slice_leave(void) {
    __asm__ volatile("" : : : "memory");
}
#else
#    define runner_slice_enter(index) ((void)(index))
#    define runner_slice_leave()      ((void)0)
#endif

/* An inference in slices. Where the model takes its input row by row, inputs[0] is NULL and the buffer holds a row. */
static bd_status infer_slices(const void *const inputs[], void *const outputs[]) {
    bd_shape shape;
    bd_status status = bd_input_shape(context, 0, &shape);
    const uint32_t row_bytes = bytes_of(&shape) / shape.height;
    bd_progress progress = BD_MORE;
    if (status != BD_OK || row_bytes > sizeof input) {
        return BD_ERROR_ARGUMENT;
    }
    status = bd_begin(context, inputs, 1, outputs, 1);
    for (uint32_t slice = 0; status == BD_OK && progress != BD_DONE; slice++) {
        runner_slice_enter(slice);
        status = bd_advance(context, &progress);
        runner_slice_leave();
        if (status == BD_OK && progress == BD_ROWS) {
            status = read_all(input, row_bytes) ? bd_push_row(context, input) : BD_ERROR_TRUNCATED;
        }
    }
    return status;
}

static void infer(void) {
    const uint32_t in_bytes = io_bytes(bd_input_shape, sizeof input);
    const uint32_t out_bytes = io_bytes(bd_output_shape, sizeof output);
    void *const outputs[] = {output};
    if (out_bytes > 0 && bd_input_is_pushed(context)) {
        const void *const nowhere[] = {NULL};
        answer(infer_slices(nowhere, outputs), output, out_bytes);
        return;
    }
    if (in_bytes == 0 || out_bytes == 0 || !read_all(input, in_bytes)) {
        answer(BD_ERROR_ARGUMENT, NULL, 0);
        return;
    }
    const void *const inputs[] = {input};
#ifdef BD_RUNNER_SLICES
    answer(infer_slices(inputs, outputs), output, out_bytes);
#else
    answer(bd_run(context, inputs, 1, outputs, 1), output, out_bytes);
#endif
}

static void self_test(void) {
    int passed = 0;
    void *const whole = bd_input_is_pushed(context) ? NULL : input;
    const int fits = (whole == NULL || io_bytes(bd_input_shape, sizeof input) > 0) &&
                     io_bytes(bd_output_shape, sizeof output) > 0;
    const bd_status status = fits ? bd_self_test(context, whole, output, &passed) : BD_ERROR_ARGUMENT;
    const uint32_t word = (uint32_t)passed;
    answer(status, &word, sizeof word);
}

int main(void) {
    uint32_t request;
#ifdef BD_LINKED_MODEL
    if (load() != BD_OK) {
        return 1;
    }
#endif
    while (read_all(&request, sizeof request)) {
        if (request == 'R') {
            infer();
        } else if (request == 'T') {
            self_test();
        } else if (request == 'L') {
            answer(load(), NULL, 0);
        } else {
            return 2;
        }
    }
    return 0;
}
