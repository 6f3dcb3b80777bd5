/* From a step's numbers to the views that its kernels see; the loader's proof and every run use the same
 * ones. */
#include "bd_internal.h"

uint32_t bd_element_bytes(uint32_t dtype) {
    switch (dtype) {
    case BD_U8:
    case BD_I8:
        return 1;
    case BD_I16:
        return 2;
    case BD_F32:
    case BD_I32:
        return 4;
    default:
        return 0;
    }
}

uint64_t bd_row_bytes(uint32_t width, uint32_t channels, uint32_t dtype) {
    if (dtype >= BD_BIT && dtype <= BD_UBIT) {
        return (uint64_t)width * bd_words(channels) * (dtype == BD_TRIT ? 8u : 4u);
    }
    return (uint64_t)width * channels * bd_element_bytes(dtype);
}

static bd_view absent(void) {
    const bd_view view = {0};
    return view;
}

static bd_view tensor_view(const bd_model *model, uint16_t index) {
    bd_view view = absent();
    if (index != BD_NONE) {
        const bd_tensor *t = &model->tensors[index];
        view.row_stride = t->row_stride;
        view.rows_held = t->rows_held;
        view.height = t->height;
        view.width = t->width;
        view.channels = t->channels;
        view.dtype = t->dtype;
        view.order = t->order;
    }
    return view;
}

/* Whether in[1] is the epilogue's and not the kernel's own second operand. */
static int has_residual(const bd_model *model, const bd_step *step) {
    if (step->epilogue == BD_NONE || step->kernel == BD_NONE) {
        return step->kernel == BD_NONE;
    }
    const bd_epilogue *epilogue = (const void *)(model->constants + step->epilogue_at);
    return epilogue->residual_mul != BD_ABSENT ||
           epilogue->residual_channels != 0; /* its factors may be packed */
}

int bd_step_operands(const bd_model *model, const bd_step *step, bd_operands *operands) {
    const int accumulate = step->kind == BD_STEP_ACCUMULATE;
    bd_operands o = {0};
    for (int i = 0; i < 2; i++) {
        o.kernel_in[i] = o.epilogue_in[i] = tensor_view(model, step->in[i]);
        o.kernel_out[i] = o.epilogue_out[i] = tensor_view(model, step->out[i]);
    }
    if (has_residual(model, step)) {
        o.kernel_in[1] = absent();
    } else {
        o.epilogue_in[1] = absent();
    }
    o.calls_over = accumulate ? o.kernel_in[0].height : step->out_height;
    if (step->kernel != BD_NONE && step->epilogue != BD_NONE) {
        bd_view acc = absent();
        const uint64_t row =
            (bd_row_bytes(step->out_width, step->out_channels, step->acc_dtype) + 3u) / 4u * 4u;
        acc.rows_held = step->rows_per_call < step->out_height ? step->rows_per_call : step->out_height;
        const uint64_t bytes = (row * acc.rows_held + BD_ALIGN - 1u) / BD_ALIGN * BD_ALIGN;
        if (bytes > 0x7fffffffu) {
            return 0;
        }
        acc.row_stride = (uint32_t)row;
        acc.height = step->out_height;
        acc.width = step->out_width;
        acc.channels = step->out_channels;
        acc.dtype = step->acc_dtype;
        acc.order = step->acc_order;
        o.acc_bytes = (uint32_t)bytes;
        o.kernel_out[0] = o.epilogue_in[0] = acc;
        o.kernel_out[1] = absent();
    }
    *operands = o;
    return 1;
}
