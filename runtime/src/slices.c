/* Inference: which kernel call comes next.
 *
 * Steps run one after the other, each over its whole map; adjacent steps of one segment run together and pass rows on
 * through rings. In every sweep over a segment each step makes one call if its rows are there, so that no step runs ahead
 * of the ones behind it by more than the rings hold; the exporter sizes them by the same sweeps. */
#include "bd_internal.h"

static uint32_t segment_end(const bd_model *model, uint32_t first) {
    uint32_t end = first + 1u;
    while (model->steps[first].segment != 0 && end < model->step_count &&
           model->steps[end].segment == model->steps[first].segment) {
        end++;
    }
    return end;
}

/* Rows over which the calls of a step go: of its output, or of its input where it accumulates. */
static uint32_t rows_over(const bd_model *model, const bd_step *step) {
    return step->kind == BD_STEP_ACCUMULATE ? model->tensors[step->in[0]].height : step->out_height;
}

/* The row behind the next call of a step. */
static uint32_t call_end(const bd_context *context, uint32_t index) {
    const bd_step *step = &context->model.steps[index];
    const uint32_t end = (uint32_t)context->rows_made[index] + step->rows_per_call;
    const uint32_t over = rows_over(&context->model, step);
    return end < over ? end : over;
}

/* How many rows of in[i] are there. */
static uint32_t rows_there(const bd_context *context, uint32_t index, int i) {
    const bd_model *model = &context->model;
    const bd_step *step = &model->steps[index];
    const bd_tensor *tensor = &model->tensors[step->in[i]];
    if (step->source[i] == 0) {
        const int pushed = tensor->place == BD_PLACE_INPUT && tensor->rows_held < tensor->height;
        return pushed ? context->rows_pushed : tensor->height;
    }
    const uint32_t source = index - step->source[i];
    const uint32_t made = context->rows_made[source];
    if (model->steps[source].kind == BD_STEP_ACCUMULATE) {
        return made == rows_over(model, &model->steps[source]) ? tensor->height : 0;
    }
    return made;
}

/* How many rows of in[i] the calls up to row `end` read: all below that. */
static uint32_t rows_needed(const bd_model *model, const bd_step *step, int i, uint32_t end) {
    const uint32_t height = model->tensors[step->in[i]].height;
    if (step->kind == BD_STEP_WHOLE) {
        return height;
    }
    if (i == 1 || step->kernel == BD_NONE || step->kind == BD_STEP_ACCUMULATE) {
        return end < height ? end : height; /* a vector for all pixels has one row */
    }
    const uint32_t reach = (end - 1u) * step->stride_h + (step->kernel_h - 1u) * step->dilation_h + 1u;
    const uint32_t below = reach > step->pad_top ? reach - step->pad_top : 1u; /* replicated, even above */
    return below < height ? below : height;
}

/* Whether a step has rows left to make, and the next call has all rows that it reads. */
static int is_ready(const bd_context *context, uint32_t index) {
    const bd_model *model = &context->model;
    const bd_step *step = &model->steps[index];
    const uint32_t end = call_end(context, index);
    if (context->rows_made[index] == end) {
        return 0;
    }
    for (int i = 0; i < 2; i++) {
        if (step->in[i] != BD_NONE && rows_there(context, index, i) < rows_needed(model, step, i, end)) {
            return 0;
        }
    }
    return 1;
}

static bd_status call(bd_context *context, uint32_t index) {
    const uint32_t end = call_end(context, index);
    const bd_status status = bd_run_rows(context, index, context->rows_made[index], end, context->scratch);
    context->rows_made[index] = (uint16_t)end;
    return status;
}

static int is_finished(const bd_context *context, uint32_t first, uint32_t end) {
    for (uint32_t i = first; i < end; i++) {
        if (context->rows_made[i] != rows_over(&context->model, &context->model.steps[i])) {
            return 0;
        }
    }
    return 1;
}

static const bd_tensor *pushed_input(const bd_model *model) {
    for (uint32_t i = 0; i < model->tensor_count; i++) {
        const bd_tensor *t = &model->tensors[i];
        if (t->place == BD_PLACE_INPUT && t->offset == 0 && t->rows_held < t->height) {
            return t;
        }
    }
    return NULL;
}

int bd_input_is_pushed(const bd_context *context) {
    return context != NULL && pushed_input(&context->model) != NULL;
}

uint8_t *bd_next_row(bd_context *context) {
    const bd_tensor *input = pushed_input(&context->model);
    return context->tensors + input->ring +
           (size_t)(context->rows_pushed % input->rows_held) * input->row_stride;
}

void bd_row_is_there(bd_context *context) {
    context->rows_pushed++;
    context->wants_row = 0;
    context->next = context->at; /* a new sweep, as the exporter counts them */
}

static void copy_row(bd_context *context, const bd_tensor *input, const uint8_t *row) {
    uint8_t *to = bd_next_row(context);
    for (uint32_t i = 0; i < input->row_stride; i++) {
        to[i] = row[i];
    }
    bd_row_is_there(context);
}

bd_status bd_push_row(bd_context *context, const void *row) {
    if (context == NULL || row == NULL || context->outputs == NULL || !context->wants_row) {
        return BD_ERROR_ARGUMENT;
    }
    copy_row(context, pushed_input(&context->model), row); /* rows are asked for only where there is one */
    return BD_OK;
}

void *bd_tensor_area(bd_context *context) {
    return context->tensors;
}

bd_status bd_end_with(bd_context *context, bd_status status) {
    context->inputs = NULL;
    context->outputs = NULL;
    return status;
}

static bd_status check_buffers(const void *const buffers[], uint32_t n, int first_may_be_null) {
    uintptr_t low_bits = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (buffers[i] == NULL && !(i == 0 && first_may_be_null)) {
            return BD_ERROR_ARGUMENT;
        }
        low_bits |= (uintptr_t)buffers[i];
    }
    return (low_bits & 3u) != 0 ? BD_ERROR_ALIGNMENT : BD_OK;
}

bd_status bd_begin(bd_context *context, const void *const inputs[], uint32_t n_inputs, void *const outputs[],
                   uint32_t n_outputs) {
    if (context == NULL || inputs == NULL || outputs == NULL) {
        return BD_ERROR_ARGUMENT;
    }
    if (n_inputs != context->model.header->inputs || n_outputs != context->model.header->outputs) {
        return BD_ERROR_ARGUMENT;
    }
    bd_status status = check_buffers(inputs, n_inputs, bd_input_is_pushed(context));
    if (status == BD_OK) {
        status = check_buffers((const void *const *)outputs, n_outputs, 0);
    }
    if (status != BD_OK) {
        return status;
    }
    context->inputs = inputs;
    context->outputs = outputs;
    context->at = context->next = context->rows_pushed = context->wants_row = 0;
    for (uint32_t i = 0; i < context->model.step_count; i++) {
        context->rows_made[i] = 0;
    }
    return BD_OK;
}

bd_status bd_run_step(bd_context *context, uint32_t index) {
    if (context == NULL || context->inputs == NULL || context->inputs[0] == NULL ||
        index >= context->model.step_count) {
        return BD_ERROR_ARGUMENT;
    }
    return bd_run_rows(context, index, 0, rows_over(&context->model, &context->model.steps[index]),
                       context->scratch);
}

/* In a segment: the next ready step of the sweep makes a call. */
static bd_status step_segment(bd_context *context, uint32_t first, uint32_t end, bd_progress *progress) {
    for (uint32_t looked = first; looked < end; looked++) {
        const uint32_t index = context->next;
        context->next = index + 1u < end ? index + 1u : first;
        if (is_ready(context, index)) {
            return call(context, index);
        }
    }
    if (is_finished(context, first, end)) {
        context->at = context->next = end;
        return BD_OK;
    }
    const bd_tensor *input = pushed_input(&context->model);
    if (input == NULL || context->rows_pushed == input->height) {
        return BD_ERROR_STEP; /* nothing can move: not in a model that the loader took */
    }
    if (context->inputs[0] != NULL) { /* the whole input is there after all */
        const uint8_t *rows = context->inputs[0];
        copy_row(context, input, rows + (size_t)context->rows_pushed * input->row_stride);
        return BD_OK;
    }
    context->wants_row = 1;
    *progress = BD_ROWS;
    return BD_OK;
}

bd_status bd_advance(bd_context *context, bd_progress *progress) {
    if (context == NULL || progress == NULL || context->outputs == NULL) {
        return BD_ERROR_ARGUMENT;
    }
    const uint32_t steps = context->model.step_count;
    bd_status status = BD_OK;
    *progress = BD_MORE;
    if (context->at < steps) {
        const uint32_t first = context->at, end = segment_end(&context->model, first);
        if (context->model.steps[first].segment != 0) {
            status = step_segment(context, first, end, progress);
        } else {
            status = call(context, first);
            if (is_finished(context, first, end)) {
                context->at = context->next = end;
            }
        }
    }
    if (status != BD_OK || context->at == steps) {
        *progress = BD_DONE;
        return bd_end_with(context, status);
    }
    return status;
}

bd_status bd_run(bd_context *context, const void *const inputs[], uint32_t n_inputs, void *const outputs[],
                 uint32_t n_outputs) {
    bd_status status = bd_begin(context, inputs, n_inputs, outputs, n_outputs);
    bd_progress progress = BD_MORE;
    if (status != BD_OK) {
        return status;
    }
    if (inputs[0] == NULL) { /* rows cannot be pushed in here */
        return bd_end_with(context, BD_ERROR_ARGUMENT);
    }
    while (status == BD_OK && progress == BD_MORE) {
        if (context->at < context->model.step_count && context->model.steps[context->at].segment == 0) {
            /* the whole map: its views are made once */
            status = bd_run_step(context, context->at++);
            context->next = context->at;
            continue;
        }
        status = bd_advance(context, &progress);
    }
    return bd_end_with(context, status);
}
