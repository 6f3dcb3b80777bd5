/* bd_inspect and bd_load. */
#include "bd_internal.h"

static bd_status inspect(const void *data, uint32_t size, const bd_kernel_table *kernels, bd_model *model,
                         bd_model_info *info) {
    const bd_model_info none = {0};
    *info = none;
    const bd_status status = bd_check_model(data, size, kernels, model, &info->missing_kernel);
    if (status != BD_OK) {
        return status;
    }
    const bd_header *header = model->header;
    const uint64_t fixed = BD_ARENA_BYTES((uint64_t)model->kernel_count, (uint64_t)model->step_count, 0u, 0u);
    const uint64_t arena = fixed + header->tensor_bytes + header->scratch_bytes;
    if (arena > UINT32_MAX) {
        return BD_ERROR_TENSOR;
    }
    info->arena_bytes = (uint32_t)arena;
    info->scratch_bytes = header->scratch_bytes;
    info->model_version = header->model_version;
    info->inputs = header->inputs;
    info->outputs = header->outputs;
    info->steps = (uint16_t)model->step_count;
    return BD_OK;
}

bd_status bd_inspect(const void *data, uint32_t size, const bd_kernel_table *kernels, bd_model_info *info) {
    bd_model model;
    if (data == NULL || kernels == NULL || info == NULL) {
        return BD_ERROR_ARGUMENT;
    }
    return inspect(data, size, kernels, &model, info);
}

bd_status bd_load(void *arena, uint32_t arena_size, const void *data, uint32_t size,
                  const bd_kernel_table *kernels, bd_context **context) {
    bd_model model;
    bd_model_info info;
    if (context == NULL) {
        return BD_ERROR_ARGUMENT;
    }
    *context = NULL;
    if (arena == NULL || data == NULL || kernels == NULL) {
        return BD_ERROR_ARGUMENT;
    }
    const bd_status status = inspect(data, size, kernels, &model, &info);
    if (status != BD_OK) {
        return status;
    }
    if (((uintptr_t)arena & (BD_ALIGN - 1u)) != 0 || arena_size < info.arena_bytes) {
        return BD_ERROR_ARENA;
    }
    uint8_t *bytes = arena;
    bd_context *c = arena;
    c->model = model;
    c->kernels = (const bd_kernel **)(void *)(bytes + BD_CONTEXT_BYTES);
    c->rows_made = (uint16_t *)(void *)(c->kernels + model.kernel_count);
    c->tensors = bytes + BD_ARENA_BYTES(model.kernel_count, model.step_count, 0u, 0u);
    c->scratch = c->tensors + model.header->tensor_bytes;
    c->arena_end = bytes + arena_size;
    c->inputs = NULL;
    c->outputs = NULL;
    for (uint32_t i = 0; i < model.kernel_count; i++) {
        c->kernels[i] = bd_find_kernel(kernels, model.names + (size_t)i * BD_NAME_BYTES);
    }
    *context = c;
    return BD_OK;
}

static bd_status shape_of(const bd_context *context, uint32_t place, uint32_t index, bd_shape *shape) {
    if (context == NULL || shape == NULL) {
        return BD_ERROR_ARGUMENT;
    }
    for (uint32_t i = 0; i < context->model.tensor_count; i++) {
        const bd_tensor *t = &context->model.tensors[i];
        if (t->place == place && t->offset == index) {
            shape->height = t->height;
            shape->width = t->width;
            shape->channels = t->channels;
            shape->dtype = t->dtype;
            return BD_OK;
        }
    }
    return BD_ERROR_ARGUMENT;
}

bd_status bd_input_shape(const bd_context *context, uint32_t index, bd_shape *shape) {
    return shape_of(context, BD_PLACE_INPUT, index, shape);
}

bd_status bd_output_shape(const bd_context *context, uint32_t index, bd_shape *shape) {
    return shape_of(context, BD_PLACE_OUTPUT, index, shape);
}
