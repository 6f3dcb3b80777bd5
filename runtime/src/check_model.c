/* The checks of a model before anything of it runs. A file is data from outside: nothing in it is believed.
 *
 * Every sum and product of numbers of the file is taken in 64 bits. Time is linear in the file's size (for a
 * given kernel table): no loop runs over a dimension that the file merely states. */
#include "bd_internal.h"

/* Container: header and records. */

typedef struct bd_payload {
    const uint8_t *data; /* NULL: absent */
    uint32_t size;
} bd_payload;

static bd_status check_header(const uint8_t *data, uint32_t size) {
    const bd_header *header = (const void *)data;
    if (((uintptr_t)data & (BD_ALIGN - 1u)) != 0) {
        return BD_ERROR_ALIGNMENT;
    }
    if (size < sizeof(bd_header)) {
        return BD_ERROR_TRUNCATED;
    }
    if (header->magic != BD_MAGIC) {
        return BD_ERROR_MAGIC;
    }
    if (header->format_version == 0 || header->oldest_reader > BD_FORMAT_VERSION) {
        return BD_ERROR_VERSION;
    }
    if (header->file_size > size || header->file_size < sizeof(bd_header) ||
        header->file_size % BD_ALIGN != 0) {
        return BD_ERROR_TRUNCATED;
    }
#ifndef BD_NO_CRC
    if (bd_crc32(0, data + 8, header->file_size - 8u) != header->crc32) {
        return BD_ERROR_CRC;
    }
#endif
    if (header->tensor_bytes % BD_ALIGN != 0) {
        return BD_ERROR_TENSOR;
    }
    return header->scratch_bytes % BD_ALIGN != 0 ? BD_ERROR_STEP : BD_OK;
}

/* Types ascend strictly, so a record occurs once and required ones have a fixed order. */
static bd_status find_records(const uint8_t *data, bd_payload payloads[BD_RECORD_MAP + 1]) {
    const uint32_t end = ((const bd_header *)(const void *)data)->file_size;
    uint32_t at = sizeof(bd_header), previous = 0;
    while (at < end) { /* both are multiples of 16, so a record's header fits */
        const bd_record *record = (const void *)(data + at);
        at += (uint32_t)sizeof(bd_record);
        const uint64_t padded = ((uint64_t)record->size + BD_ALIGN - 1u) / BD_ALIGN * BD_ALIGN;
        if (padded > end - at || record->type <= previous) {
            return BD_ERROR_RECORD;
        }
        if (record->type <= BD_RECORD_MAP) {
            payloads[record->type].data = data + at;
            payloads[record->type].size = record->size;
        } else if ((record->flags & BD_RECORD_OPTIONAL) == 0) {
            return BD_ERROR_RECORD;
        }
        previous = record->type;
        at += (uint32_t)padded;
    }
    return BD_OK;
}

static int is_array(const bd_payload *payload, uint32_t element_bytes, uint32_t least) {
    const uint32_t count = payload->size / element_bytes;
    return payload->data != NULL && payload->size % element_bytes == 0 && count >= least && count < BD_NONE;
}

static bd_status open_records(const uint8_t *data, bd_model *model) {
    bd_payload payloads[BD_RECORD_MAP + 1] = {{NULL, 0}};
    const bd_status status = find_records(data, payloads);
    if (status != BD_OK) {
        return status;
    }
    const bd_payload *kernels = &payloads[BD_RECORD_KERNELS], *tensors = &payloads[BD_RECORD_TENSORS];
    const bd_payload *steps = &payloads[BD_RECORD_STEPS], *constants = &payloads[BD_RECORD_CONSTANTS];
    if (!is_array(kernels, BD_NAME_BYTES, 1) || !is_array(tensors, sizeof(bd_tensor), 1) ||
        !is_array(steps, sizeof(bd_step), 1) || constants->data == NULL) {
        return BD_ERROR_RECORD;
    }
    model->header = (const void *)data;
    model->names = (const void *)kernels->data;
    model->kernel_count = kernels->size / BD_NAME_BYTES;
    model->tensors = (const void *)tensors->data;
    model->tensor_count = tensors->size / (uint32_t)sizeof(bd_tensor);
    model->steps = (const void *)steps->data;
    model->step_count = steps->size / (uint32_t)sizeof(bd_step);
    model->constants = constants->data;
    model->constants_size = constants->size;
    model->test = NULL;
    const bd_payload *test = &payloads[BD_RECORD_TEST];
    if (test->data != NULL) {
        if (test->size < sizeof(bd_test_vector)) {
            return BD_ERROR_RECORD;
        }
        model->test = (const void *)test->data;
        const uint64_t literal = (uint64_t)model->test->input_bytes + model->test->output_bytes;
        const uint64_t behind = model->test->kind == 0 ? literal : 0;
        if (model->test->kind > 1 || test->size != sizeof(bd_test_vector) + behind) {
            return BD_ERROR_RECORD;
        }
    }
    return BD_OK;
}

/* Kernels. */

static int same_name(const char *a, const char *b) {
    uint32_t i = 0;
    while (a[i] == b[i] && a[i] != '\0') {
        i++;
    }
    return a[i] == b[i];
}

const bd_kernel *bd_find_kernel(const bd_kernel_table *kernels, const char *name) {
    for (uint32_t i = 0; i < kernels->count; i++) {
        if (same_name(kernels->kernels[i]->name, name)) {
            return kernels->kernels[i];
        }
    }
    return NULL;
}

static bd_status check_kernels(const bd_model *model, const bd_kernel_table *kernels, const char **missing) {
    for (uint32_t i = 0; i < model->kernel_count; i++) {
        const char *name = model->names + (size_t)i * BD_NAME_BYTES;
        if (name[0] == '\0' || name[BD_NAME_BYTES - 1u] != '\0') {
            return BD_ERROR_RECORD;
        }
    }
    for (uint32_t i = 0; i < model->kernel_count; i++) {
        const char *name = model->names + (size_t)i * BD_NAME_BYTES;
        if (bd_find_kernel(kernels, name) == NULL) {
            *missing = name;
            return BD_ERROR_KERNEL;
        }
    }
    return BD_OK;
}

/* Tensors. */

static uint64_t dense_bytes(const bd_tensor *t) {
    return bd_row_bytes(t->width, t->channels, t->dtype) * t->height;
}

static int tensor_is_sound(const bd_model *model, const bd_tensor *t) {
    const uint64_t row = bd_row_bytes(t->width, t->channels, t->dtype);
    if (row == 0 || t->height == 0 || t->dtype > BD_UBIT || t->row_stride < row) {
        return 0;
    }
    if (t->rows_held == 0 || t->rows_held > t->height) {
        return 0;
    }
    if (t->place == BD_PLACE_INPUT && t->rows_held < t->height) { /* pushed row by row into a ring */
        const uint64_t bytes = (uint64_t)t->row_stride * t->rows_held;
        return t->offset == 0 && t->row_stride == row && t->ring % BD_ALIGN == 0 &&
               t->ring + bytes <= model->header->tensor_bytes && dense_bytes(t) <= 0x7fffffffu;
    }
    if (t->place != BD_PLACE_ARENA) {
        return t->rows_held == t->height && t->row_stride == row && dense_bytes(t) <= 0x7fffffffu;
    }
    const uint64_t bytes = (uint64_t)t->row_stride * t->rows_held;
    return t->row_stride % 4u == 0 && t->offset % BD_ALIGN == 0 &&
           t->offset + bytes <= model->header->tensor_bytes;
}

/* Notes input or output `index`; false when there is no such one or it was seen before. */
static int take(uint32_t *seen, uint32_t index, uint32_t count) {
    if (index >= count || (*seen >> index & 1u) != 0) {
        return 0;
    }
    *seen |= 1u << index;
    return 1;
}

static bd_status check_tensors(const bd_model *model) {
    const uint32_t inputs = model->header->inputs, outputs = model->header->outputs;
    const bd_tensor *input = NULL, *output = NULL;
    uint32_t seen_inputs = 0, seen_outputs = 0;
    if (inputs == 0 || outputs == 0 || inputs > BD_MAX_IO || outputs > BD_MAX_IO) {
        return BD_ERROR_TENSOR;
    }
    for (uint32_t i = 0; i < model->tensor_count; i++) {
        const bd_tensor *t = &model->tensors[i];
        int sound = t->place <= BD_PLACE_OUTPUT && tensor_is_sound(model, t);
        if (t->place == BD_PLACE_INPUT) {
            sound = sound && take(&seen_inputs, t->offset, inputs);
            input = t;
        } else if (t->place == BD_PLACE_OUTPUT) {
            sound = sound && take(&seen_outputs, t->offset, outputs);
            output = t;
        }
        if (!sound) {
            return BD_ERROR_TENSOR;
        }
    }
    /* 32 - n zeros above n ones, for n of 1 to 32. */
    if (seen_inputs != 0xffffffffu >> (32u - inputs) || seen_outputs != 0xffffffffu >> (32u - outputs)) {
        return BD_ERROR_TENSOR;
    }
    const bd_test_vector *test = model->test;
    if (test != NULL && (inputs != 1 || outputs != 1 || test->input_bytes != dense_bytes(input) ||
                         test->output_bytes != dense_bytes(output))) {
        return BD_ERROR_RECORD;
    }
    return BD_OK;
}

/* Steps. */

static int is_index(uint16_t index, uint32_t count) {
    return index == BD_NONE || index < count;
}

static int lies_in(uint32_t offset, uint32_t size, uint32_t whole) {
    return offset % BD_ALIGN == 0 && (uint64_t)offset + size <= whole;
}

/* Sources lie in the same segment and make the operand. A ring that is read too late holds newer rows: wrong values, but
 * never another place. */
static int sources_are_sound(const bd_model *model, const bd_step *s) {
    const uint32_t index = (uint32_t)(s - model->steps);
    for (int i = 0; i < 2; i++) {
        if (s->source[i] == 0) {
            continue;
        }
        if (s->segment == 0 || s->source[i] > index || s->in[i] == BD_NONE) {
            return 0;
        }
        const bd_step *source = s - s->source[i];
        if (source->segment != s->segment || (source->out[0] != s->in[i] && source->out[1] != s->in[i])) {
            return 0;
        }
    }
    return 1;
}

/* Rings serve steps of segments only. */
static int is_whole(const bd_model *model, uint16_t index) {
    return index == BD_NONE || model->tensors[index].rows_held == model->tensors[index].height;
}

static int step_is_sound(const bd_model *model, const bd_step *s) {
    int sound = sources_are_sound(model, s) && is_index(s->kernel, model->kernel_count) &&
                is_index(s->epilogue, model->kernel_count);
    sound = sound && (s->kernel != BD_NONE || s->epilogue != BD_NONE);
    for (int i = 0; i < 2; i++) {
        sound = sound && is_index(s->in[i], model->tensor_count) && is_index(s->out[i], model->tensor_count);
        sound = sound && (s->out[i] == BD_NONE || model->tensors[s->out[i]].place != BD_PLACE_INPUT);
        sound = sound && (s->segment != 0 || (is_whole(model, s->in[i]) && is_whole(model, s->out[i])));
    }
    sound = sound && s->in[0] != BD_NONE && (s->out[0] != BD_NONE || s->out[1] != BD_NONE);
    sound = sound && s->out_height != 0 && s->out_width != 0 && s->out_channels != 0 && s->rows_per_call != 0;
    sound = sound && s->kind <= BD_STEP_WHOLE && bd_element_bytes(s->acc_dtype) != 0;
    if (s->kind == BD_STEP_ACCUMULATE) {
        sound = sound && s->kernel != BD_NONE && s->out_height == 1;
        /* The sums lie in scratch from call to call, where other steps of a segment would work in between. */
        sound = sound && (s->epilogue == BD_NONE || s->segment == 0);
    }
    if (s->kind == BD_STEP_WHOLE) {
        sound = sound && s->rows_per_call >= s->out_height;
    }
    if (s->weights == BD_ABSENT) {
        sound = sound && s->weights_size == 0;
    } else {
        sound = sound && lies_in(s->weights, s->weights_size, model->constants_size);
    }
    if (s->epilogue == BD_NONE) { /* kernels make out[0] only: nobody may wait for another output */
        return sound && s->epilogue_at == BD_ABSENT && s->out[1] == BD_NONE;
    }
    return sound && lies_in(s->epilogue_at, sizeof(bd_epilogue), model->constants_size);
}

static bd_status check_step(const bd_model *model, const bd_step *step, const bd_kernel_table *kernels) {
    bd_operands o;
    if (!step_is_sound(model, step) || !bd_step_operands(model, step, &o)) {
        return BD_ERROR_STEP;
    }
    uint32_t largest = 0;
    for (int part = 0; part < 2; part++) {
        const uint16_t index = part == 0 ? step->kernel : step->epilogue;
        if (index == BD_NONE) {
            continue;
        }
        const bd_kernel *kernel = bd_find_kernel(kernels, model->names + (size_t)index * BD_NAME_BYTES);
        uint32_t scratch = 0;
        const bd_status status = kernel->check(step, model->constants, model->constants_size,
                                               part == 0 ? o.kernel_in : o.epilogue_in,
                                               part == 0 ? o.kernel_out : o.epilogue_out, &scratch);
        if (status != BD_OK) {
            return status;
        }
        largest = scratch > largest ? scratch : largest;
    }
    if ((uint64_t)o.acc_bytes + largest > step->scratch || step->scratch > model->header->scratch_bytes) {
        return BD_ERROR_STEP;
    }
    return BD_OK;
}

bd_status bd_check_model(const void *data, uint32_t size, const bd_kernel_table *kernels, bd_model *model,
                         const char **missing) {
    bd_status status = check_header(data, size);
    if (status == BD_OK) {
        status = open_records(data, model);
    }
    if (status == BD_OK) {
        status = check_kernels(model, kernels, missing);
    }
    if (status == BD_OK) {
        status = check_tensors(model);
    }
    for (uint32_t i = 0; status == BD_OK && i < model->step_count; i++) {
        status = check_step(model, &model->steps[i], kernels);
    }
    return status;
}
