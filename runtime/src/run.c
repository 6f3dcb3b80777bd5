/* Inference: one step after the other, each in tiles of rows. */
#include "bd_internal.h"

static void set_base(const bd_context *context, uint16_t index, bd_view *view) {
    if (index == BD_NONE) {
        return;
    }
    const bd_tensor *t = &context->model.tensors[index];
    if (t->place == BD_PLACE_INPUT) {
        /* The loader has refused every step that would write to an input. */
        view->base = (uint8_t *)(uintptr_t)context->inputs[t->offset];
    } else if (t->place == BD_PLACE_OUTPUT) {
        view->base = context->outputs[t->offset];
    } else {
        view->base = context->tensors + t->offset;
    }
}

static bd_status run_tiles(const bd_context *context, const bd_step *step, const bd_operands *o) {
    const uint8_t *constants = context->model.constants;
    const bd_kernel *kernel = step->kernel == BD_NONE ? NULL : context->kernels[step->kernel];
    const bd_kernel *epilogue = step->epilogue == BD_NONE ? NULL : context->kernels[step->epilogue];
    const int accumulate = step->kind == BD_STEP_ACCUMULATE;
    void *scratch = context->scratch + o->acc_bytes;
    for (uint32_t y = 0; y < o->calls_over; y += step->rows_per_call) {
        const uint32_t left = o->calls_over - y;
        const uint32_t rows = left < step->rows_per_call ? left : step->rows_per_call;
        bd_status status = BD_OK;
        if (kernel != NULL) {
            status = kernel->run(step, constants, o->kernel_in, o->kernel_out, y, rows, scratch);
        }
        if (status == BD_OK && epilogue != NULL && !accumulate) {
            status = epilogue->run(step, constants, o->epilogue_in, o->epilogue_out, y, rows, scratch);
        }
        if (status != BD_OK) {
            return status;
        }
    }
    if (epilogue != NULL && accumulate) {
        return epilogue->run(step, constants, o->epilogue_in, o->epilogue_out, 0, step->out_height, scratch);
    }
    return BD_OK;
}

bd_status bd_run_step(bd_context *context, uint32_t index) {
    if (context == NULL || context->inputs == NULL || index >= context->model.step_count) {
        return BD_ERROR_ARGUMENT;
    }
    const bd_step *step = &context->model.steps[index];
    bd_operands o;
    if (!bd_step_operands(&context->model, step, &o)) {
        return BD_ERROR_STEP;
    }
    for (int i = 0; i < 2; i++) {
        set_base(context, step->in[i], &o.kernel_in[i]);
        set_base(context, step->in[i], &o.epilogue_in[i]);
        set_base(context, step->out[i], &o.kernel_out[i]);
        set_base(context, step->out[i], &o.epilogue_out[i]);
    }
    if (o.acc_bytes != 0) {
        o.kernel_out[0].base = o.epilogue_in[0].base = context->scratch;
        o.kernel_out[1].base = NULL;
    }
    bd_step_enter(index);
    const bd_status status = run_tiles(context, step, &o);
    bd_step_leave();
    return status;
}

void *bd_tensor_area(bd_context *context) {
    return context->tensors;
}

bd_status bd_begin(bd_context *context, const void *const inputs[], uint32_t n_inputs, void *const outputs[],
                   uint32_t n_outputs) {
    if (context == NULL || inputs == NULL || outputs == NULL) {
        return BD_ERROR_ARGUMENT;
    }
    if (n_inputs != context->model.header->inputs || n_outputs != context->model.header->outputs) {
        return BD_ERROR_ARGUMENT;
    }
    uintptr_t low_bits = 0;
    for (uint32_t i = 0; i < n_inputs; i++) {
        if (inputs[i] == NULL) {
            return BD_ERROR_ARGUMENT;
        }
        low_bits |= (uintptr_t)inputs[i];
    }
    for (uint32_t i = 0; i < n_outputs; i++) {
        if (outputs[i] == NULL) {
            return BD_ERROR_ARGUMENT;
        }
        low_bits |= (uintptr_t)outputs[i];
    }
    if ((low_bits & 3u) != 0) {
        return BD_ERROR_ALIGNMENT;
    }
    context->inputs = inputs;
    context->outputs = outputs;
    return BD_OK;
}

bd_status bd_run(bd_context *context, const void *const inputs[], uint32_t n_inputs, void *const outputs[],
                 uint32_t n_outputs) {
    bd_status status = bd_begin(context, inputs, n_inputs, outputs, n_outputs);
    if (status != BD_OK) {
        return status;
    }
    for (uint32_t i = 0; i < context->model.step_count && status == BD_OK; i++) {
        status = bd_run_step(context, i);
    }
    context->inputs = NULL;
    context->outputs = NULL;
    return status;
}
