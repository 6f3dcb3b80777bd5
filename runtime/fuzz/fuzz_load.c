/* libFuzzer target: whatever bd_inspect accepts must load and run without touching foreign memory.
 *
 *     cd runtime && clang -g -O1 -DBD_NO_CRC -fsanitize=fuzzer,address,undefined -Iinclude -Isrc -Ikernels \
 *         fuzz/fuzz_load.c $(find src kernels/generic -name '*.c') -o fuzz_load && ./fuzz_load seeds
 *
 * BD_NO_CRC leaves the checksum out, so that mutations get past it. Exact allocations let the sanitizer see
 * one byte too far. */
#define _POSIX_C_SOURCE 200112L /* posix_memalign */

#include <stdlib.h>
#include <string.h>

#include "bd_internal.h"

#define MAX_BYTES (8u << 20) /* of the arena, and of all inputs and outputs together */
#define MAX_WORK  (1u << 21) /* of the products that a model states */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Aligned to BD_ALIGN and of exactly this size for the sanitizer. */
static void *exact(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, BD_ALIGN, bytes) != 0) {
        abort();
    }
    return memory;
}

static void fill(uint8_t *bytes, size_t size) {
    uint32_t state = 0x9e3779b9u;
    for (size_t i = 0; i < size; i++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes[i] = (uint8_t)(state >> 24);
    }
}

/* Steps are bounded by memory but not by time: a small file can state an hour of convolutions. */
static int is_quick(const bd_context *context) {
    uint64_t work = 0;
    for (uint32_t i = 0; i < context->model.step_count; i++) {
        const bd_step *s = &context->model.steps[i];
        const bd_tensor *in = &context->model.tensors[s->in[0]];
        const uint64_t taps = (uint64_t)s->kernel_h * s->kernel_w * in->channels;
        work += (uint64_t)in->height * in->width * in->channels;
        work += (uint64_t)s->out_height * s->out_width * (s->out_channels + taps + (uint64_t)s->weights_size);
        if (work > MAX_WORK) {
            return 0;
        }
    }
    return 1;
}

/* Every row by itself, in slices. */
static void push(bd_context *context, void *inputs[], void *outputs[]) {
    const bd_header *header = context->model.header;
    const uint8_t *row = inputs[0];
    bd_progress progress = BD_MORE;
    bd_shape shape;
    inputs[0] = NULL;
    bd_status status =
        bd_begin(context, (const void *const *)inputs, header->inputs, outputs, header->outputs);
    if (status != BD_OK || bd_input_shape(context, 0, &shape) != BD_OK) {
        abort();
    }
    const size_t row_bytes = (size_t)bd_row_bytes(shape.width, shape.channels, shape.dtype);
    for (const uint8_t *at = row; status == BD_OK && progress != BD_DONE;) {
        status = bd_advance(context, &progress);
        if (status == BD_OK && progress == BD_ROWS) {
            status = bd_push_row(context, at);
            at += row_bytes;
        }
    }
    if (status != BD_OK) {
        abort();
    }
    inputs[0] = (void *)(uintptr_t)row;
}

static void run(bd_context *context) {
    void *buffers[2][BD_MAX_IO] = {{NULL}};
    uint64_t total = 0;
    for (uint32_t i = 0; i < context->model.tensor_count; i++) {
        const bd_tensor *t = &context->model.tensors[i];
        total += t->place == BD_PLACE_ARENA ? 0 : (uint64_t)t->row_stride * t->height;
    }
    if (total > MAX_BYTES || !is_quick(context)) {
        return;
    }
    for (uint32_t i = 0; i < context->model.tensor_count; i++) {
        const bd_tensor *t = &context->model.tensors[i];
        if (t->place != BD_PLACE_ARENA) {
            const size_t bytes = (size_t)t->row_stride * t->height;
            buffers[t->place == BD_PLACE_OUTPUT][t->offset] = exact(bytes);
            fill(buffers[t->place == BD_PLACE_OUTPUT][t->offset], bytes);
        }
    }
    const bd_header *header = context->model.header;
    const bd_status status =
        bd_run(context, (const void *const *)buffers[0], header->inputs, buffers[1], header->outputs);
    int passed = 0;
    if (status != BD_OK) {
        abort(); /* what the loader accepts, runs */
    }
    if (context->model.test != NULL &&
        bd_self_test(context, buffers[0][0], buffers[1][0], &passed) != BD_OK) {
        abort();
    }
    if (bd_input_is_pushed(context)) {
        push(context, buffers[0], buffers[1]);
    }
    for (uint32_t i = 0; i < BD_MAX_IO; i++) {
        free(buffers[0][i]);
        free(buffers[1][i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bd_model_info info;
    bd_context *context;
    if (size == 0 || size > MAX_BYTES) {
        return 0;
    }
    uint8_t *model = exact(size);
    memcpy(model, data, size);
    if (bd_inspect(model, (uint32_t)size, &bd_kernels_all, &info) == BD_OK && info.arena_bytes < MAX_BYTES) {
        uint8_t *arena = exact(info.arena_bytes);
        memset(arena, 0xa5, info.arena_bytes);
        if (bd_load(arena, info.arena_bytes, model, (uint32_t)size, &bd_kernels_all, &context) != BD_OK) {
            abort();
        }
        run(context);
        free(arena);
    }
    free(model);
    return 0;
}
