/* The model's own test vector: does this build on this machine give the recorded bytes? */
#include "bd_internal.h"

static uint32_t next_state(uint32_t state) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

/* The bits of the float (int8_t)byte / 64, by integer operations only: float code in here would be linked into every
 * fixed-point image. */
static uint32_t float_of_64ths(uint32_t byte) {
    const uint32_t sign = byte >> 7;
    uint32_t mantissa = sign != 0 ? 256u - byte : byte;
    uint32_t exponent = 127u - 6u + 23u; /* of mantissa / 64 with the binary point behind bit 23 */
    if (mantissa == 0) {
        return 0;
    }
    while (mantissa < 0x800000u) {
        mantissa <<= 1;
        exponent--;
    }
    return sign << 31 | exponent << 23 | (mantissa & 0x7fffffu);
}

/* The next `bytes` of the input of a test vector, and where its source stands behind them: in the literal, or in the
 * generator's state. */
typedef struct source {
    const uint8_t *literal; /* NULL: generated */
    uint32_t state;
    int is_float;
} source;

static void produce(source *from, uint8_t *to, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i++) {
        if (from->literal != NULL) {
            to[i] = *from->literal++;
        } else if (!from->is_float) {
            from->state = next_state(from->state);
            to[i] = (uint8_t)(from->state >> 24);
        } else if (i % 4u == 0) { /* whole elements: rows and inputs are */
            from->state = next_state(from->state);
            const uint32_t bits = float_of_64ths(from->state >> 24);
            for (uint32_t j = 0; j < 4u; j++) {
                to[i + j] = (uint8_t)(bits >> 8u * j);
            }
        }
    }
}

static const bd_tensor *first_input(const bd_model *model) {
    const bd_tensor *tensor = model->tensors;
    while (tensor->place != BD_PLACE_INPUT) {
        tensor++; /* the loader has found one */
    }
    return tensor;
}

/* Every row goes straight into the ring. */
static bd_status run_rows(bd_context *context, source *from, uint32_t row_bytes, void *outputs[]) {
    const void *const inputs[] = {NULL};
    bd_progress progress = BD_MORE;
    bd_status status = bd_begin(context, inputs, 1, outputs, 1);
    while (status == BD_OK && progress != BD_DONE) {
        status = bd_advance(context, &progress);
        if (status == BD_OK && progress == BD_ROWS) {
            produce(from, bd_next_row(context), row_bytes);
            bd_row_is_there(context);
        }
    }
    return status;
}

bd_status bd_self_test(bd_context *context, void *input, void *output, int *passed) {
    if (context == NULL || output == NULL || passed == NULL ||
        (input == NULL && !bd_input_is_pushed(context))) {
        return BD_ERROR_ARGUMENT;
    }
    *passed = 0;
    const bd_test_vector *test = context->model.test;
    if (test == NULL) {
        return BD_ERROR_RECORD;
    }
    const uint8_t *literal = (const uint8_t *)test + sizeof(bd_test_vector);
    const bd_tensor *tensor = first_input(&context->model);
    source from = {test->kind == 0 ? literal : NULL, test->seed, tensor->dtype == BD_F32};
    const void *inputs[1];
    void *outputs[1];
    inputs[0] = input;
    outputs[0] = output;
    bd_status status;
    if (input == NULL) {
        status = run_rows(context, &from, tensor->row_stride, outputs);
    } else {
        produce(&from, input, test->input_bytes);
        status = bd_run(context, inputs, 1, outputs, 1);
    }
    if (status != BD_OK) {
        return status;
    }
    int same = 1;
    if (test->kind == 0) {
        for (uint32_t i = 0; i < test->output_bytes; i++) {
            same &= ((const uint8_t *)output)[i] == literal[test->input_bytes + i];
        }
    } else {
        same = bd_crc32(0, output, test->output_bytes) == test->output_crc32;
    }
    *passed = same;
    return BD_OK;
}
