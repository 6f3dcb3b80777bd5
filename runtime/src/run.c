/* Kernel calls: from a step and a row to views with addresses. */
#include "bd_internal.h"

static void set_base(const bd_context *context, uint16_t index, bd_view *view) {
    if (index == BD_NONE) {
        return;
    }
    const bd_tensor *t = &context->model.tensors[index];
    if (t->place == BD_PLACE_INPUT && t->rows_held < t->height) {
        view->base = context->tensors + t->ring;
    } else if (t->place == BD_PLACE_INPUT) {
        /* The loader has refused every step that would write to an input. */
        view->base = (uint8_t *)(uintptr_t)context->inputs[t->offset];
    } else if (t->place == BD_PLACE_OUTPUT) {
        view->base = context->outputs[t->offset];
    } else {
        view->base = context->tensors + t->offset;
    }
}

/* The views of a step, with their addresses. */
static int bind(const bd_context *context, const bd_step *step, bd_operands *o, uint8_t *scratch) {
    if (!bd_step_operands(&context->model, step, o)) {
        return 0;
    }
    for (int i = 0; i < 2; i++) {
        set_base(context, step->in[i], &o->kernel_in[i]);
        set_base(context, step->in[i], &o->epilogue_in[i]);
        set_base(context, step->out[i], &o->kernel_out[i]);
        set_base(context, step->out[i], &o->epilogue_out[i]);
    }
    if (o->acc_bytes != 0) {
        o->kernel_out[0].base = o->epilogue_in[0].base = scratch;
        o->kernel_out[1].base = NULL;
    }
    return 1;
}

/* One call: the tile of rows from y on, of the output or, for an accumulating step, of the input. */
static bd_status run_call(const bd_context *context, const bd_step *step, const bd_operands *o, uint32_t y,
                          void *scratch) {
    const uint8_t *constants = context->model.constants;
    const bd_kernel *kernel = step->kernel == BD_NONE ? NULL : context->kernels[step->kernel];
    const bd_kernel *epilogue = step->epilogue == BD_NONE ? NULL : context->kernels[step->epilogue];
    const int accumulate = step->kind == BD_STEP_ACCUMULATE;
    const uint32_t left = o->calls_over - y;
    const uint32_t rows = left < step->rows_per_call ? left : step->rows_per_call;
    bd_status status = BD_OK;
    if (kernel != NULL) {
        status = kernel->run(step, constants, o->kernel_in, o->kernel_out, y, rows, scratch);
    }
    if (status != BD_OK || epilogue == NULL || (accumulate && rows < left)) {
        return status;
    }
    if (accumulate) {
        return epilogue->run(step, constants, o->epilogue_in, o->epilogue_out, 0, step->out_height, scratch);
    }
    return epilogue->run(step, constants, o->epilogue_in, o->epilogue_out, y, rows, scratch);
}

bd_status bd_run_rows(const bd_context *context, uint32_t index, uint32_t y, uint32_t end, uint8_t *scratch) {
    const bd_step *step = &context->model.steps[index];
    bd_operands o;
    bd_status status = BD_OK;
    if (!bind(context, step, &o, scratch)) {
        return BD_ERROR_STEP;
    }
    bd_step_enter(index);
    for (; y < end && status == BD_OK; y += step->rows_per_call) {
        status = run_call(context, step, &o, y, scratch + o.acc_bytes);
    }
    bd_step_leave();
    return status;
}
