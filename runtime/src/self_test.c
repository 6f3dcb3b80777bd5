/* The model's own test vector: does this build on this machine give the recorded bytes? */
#include "bd_internal.h"

static void generate(const bd_tensor *tensor, const bd_test_vector *test, void *input) {
    uint32_t state = test->seed;
    if (tensor->dtype == BD_F32) {
        float *elements = input;
        for (uint32_t i = 0; i < test->input_bytes / 4u; i++) {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            elements[i] = (float)(int8_t)(uint8_t)(state >> 24) * 0.015625f;
        }
        return;
    }
    uint8_t *bytes = input;
    for (uint32_t i = 0; i < test->input_bytes; i++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes[i] = (uint8_t)(state >> 24);
    }
}

static const bd_tensor *first_input(const bd_model *model) {
    const bd_tensor *tensor = model->tensors;
    while (tensor->place != BD_PLACE_INPUT) {
        tensor++; /* the loader has found one */
    }
    return tensor;
}

bd_status bd_self_test(bd_context *context, void *input, void *output, int *passed) {
    if (context == NULL || input == NULL || output == NULL || passed == NULL) {
        return BD_ERROR_ARGUMENT;
    }
    *passed = 0;
    const bd_test_vector *test = context->model.test;
    if (test == NULL) {
        return BD_ERROR_RECORD;
    }
    const uint8_t *literal = (const uint8_t *)test + sizeof(bd_test_vector);
    if (test->kind == 0) {
        for (uint32_t i = 0; i < test->input_bytes; i++) {
            ((uint8_t *)input)[i] = literal[i];
        }
    } else {
        generate(first_input(&context->model), test, input);
    }
    const void *inputs[1];
    void *outputs[1];
    inputs[0] = input;
    outputs[0] = output;
    const bd_status status = bd_run(context, inputs, 1, outputs, 1);
    if (status != BD_OK) {
        return status;
    }
    int same = 1;
    if (test->kind == 0) {
        for (uint32_t i = 0; i < test->output_bytes; i++) {
            same &= ((const uint8_t *)output)[i] == literal[test->input_bytes + i];
        }
    } else {
        same = bd_crc32(output, test->output_bytes) == test->output_crc32;
    }
    *passed = same;
    return BD_OK;
}
