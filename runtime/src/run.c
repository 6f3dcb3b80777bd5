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

/* The views of a step, with their addresses. */
static int bind(const bd_context *context, const bd_step *step, bd_operands *o) {
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
        o->kernel_out[0].base = o->epilogue_in[0].base = context->scratch;
        o->kernel_out[1].base = NULL;
    }
    return 1;
}

/* One call: the tile of rows from y on, of the output or, for an accumulating step, of the input. */
static bd_status run_call(const bd_context *context, const bd_step *step, const bd_operands *o, uint32_t y) {
    const uint8_t *constants = context->model.constants;
    const bd_kernel *kernel = step->kernel == BD_NONE ? NULL : context->kernels[step->kernel];
    const bd_kernel *epilogue = step->epilogue == BD_NONE ? NULL : context->kernels[step->epilogue];
    const int accumulate = step->kind == BD_STEP_ACCUMULATE;
    void *scratch = context->scratch + o->acc_bytes;
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

bd_status bd_run_step(bd_context *context, uint32_t index) {
    if (context == NULL || context->inputs == NULL || index >= context->model.step_count) {
        return BD_ERROR_ARGUMENT;
    }
    const bd_step *step = &context->model.steps[index];
    bd_operands o;
    bd_status status = BD_OK;
    if (!bind(context, step, &o)) {
        return BD_ERROR_STEP;
    }
    bd_step_enter(index);
    for (uint32_t y = 0; y < o.calls_over && status == BD_OK; y += step->rows_per_call) {
        status = run_call(context, step, &o, y);
    }
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

/* Segments: steps that pass rows on through rings. In every sweep each step makes one call if its rows are there, so that
 * no step runs ahead of the ones behind it by more than the rings hold; the exporter sizes them by the same sweeps. */

static uint32_t segment_end(const bd_model *model, uint32_t first) {
    uint32_t end = first + 1u;
    while (model->steps[first].segment != 0 && end < model->step_count &&
           model->steps[end].segment == model->steps[first].segment) {
        end++;
    }
    return end;
}

/* Rows over which the calls of a step go: of its output, or of its input when it accumulates. */
static uint32_t rows_over(const bd_model *model, const bd_step *step) {
    return step->kind == BD_STEP_ACCUMULATE ? model->tensors[step->in[0]].height : step->out_height;
}

/* How many rows of in[i] are there. */
static uint32_t rows_there(const bd_context *context, uint32_t index, int i) {
    const bd_model *model = &context->model;
    const bd_step *step = &model->steps[index];
    const uint32_t height = model->tensors[step->in[i]].height;
    if (step->source[i] == 0) {
        return height;
    }
    const uint32_t source = index - step->source[i];
    const uint32_t made = context->rows_made[source];
    if (model->steps[source].kind == BD_STEP_ACCUMULATE) {
        return made == rows_over(model, &model->steps[source]) ? height : 0;
    }
    return made;
}

/* Whether the next call of a step has all rows that it reads. */
static int is_ready(const bd_context *context, uint32_t index) {
    const bd_model *model = &context->model;
    const bd_step *step = &model->steps[index];
    const uint32_t over = rows_over(model, step), made = context->rows_made[index];
    uint32_t last = made + step->rows_per_call < over ? made + step->rows_per_call : over;
    if (made == over || (step->in[1] != BD_NONE && rows_there(context, index, 1) < last)) {
        return 0;
    }
    if (step->kernel != BD_NONE && step->kind != BD_STEP_ACCUMULATE) {
        const uint32_t height = model->tensors[step->in[0]].height;
        const int32_t below = (int32_t)((last - 1u) * step->stride_h + (step->kernel_h - 1u) * step->dilation_h) -
                              (int32_t)step->pad_top + 1;
        last = below < 0 ? 0u : (uint32_t)below < height ? (uint32_t)below : height;
    }
    return rows_there(context, index, 0) >= last;
}

static bd_status run_segment(bd_context *context, uint32_t first, uint32_t end) {
    const bd_step *steps = context->model.steps;
    uint32_t unfinished = end - first, moved = 1;
    for (uint32_t i = first; i < end; i++) {
        context->rows_made[i] = 0;
    }
    while (unfinished != 0 && moved != 0) {
        moved = 0;
        for (uint32_t i = first; i < end; i++) {
            bd_operands o;
            if (!is_ready(context, i)) {
                continue;
            }
            if (!bind(context, &steps[i], &o)) {
                return BD_ERROR_STEP;
            }
            bd_step_enter(i);
            const uint32_t made = context->rows_made[i];
            const bd_status status = run_call(context, &steps[i], &o, made);
            bd_step_leave();
            if (status != BD_OK) {
                return status;
            }
            const uint32_t now = made + steps[i].rows_per_call;
            context->rows_made[i] = (uint16_t)(now < o.calls_over ? now : o.calls_over);
            unfinished -= now >= o.calls_over;
            moved = 1;
        }
    }
    return unfinished == 0 ? BD_OK : BD_ERROR_STEP;
}

bd_status bd_run(bd_context *context, const void *const inputs[], uint32_t n_inputs, void *const outputs[],
                 uint32_t n_outputs) {
    bd_status status = bd_begin(context, inputs, n_inputs, outputs, n_outputs);
    if (status != BD_OK) {
        return status;
    }
    for (uint32_t i = 0; i < context->model.step_count && status == BD_OK;) {
        const uint32_t end = segment_end(&context->model, i);
        status = end == i + 1u ? bd_run_step(context, i) : run_segment(context, i, end);
        i = end;
    }
    context->inputs = NULL;
    context->outputs = NULL;
    return status;
}
