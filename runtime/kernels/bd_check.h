/* Questions that the checks of several kernels ask. All return 1 for yes. */
#ifndef BD_CHECK_H
#define BD_CHECK_H

#include "bd_kernel.h"

/* A present view of that dtype; packed words in canonical order. */
static inline int bd_is(const bd_view *view, uint32_t dtype) {
    return view->rows_held != 0 && view->dtype == dtype && view->order == 0;
}

static inline int bd_is_absent(const bd_view *view) {
    return view->rows_held == 0;
}

/* The view has the step's output size. */
static inline int bd_is_output(const bd_step *step, const bd_view *view) {
    return view->height == step->out_height && view->width == step->out_width &&
           view->channels == step->out_channels;
}

/* The view has the output's size of a step whose epilogue may repeat the channels. */
static inline int bd_is_map(const bd_step *step, const bd_view *view, uint32_t channels) {
    return view->height == step->out_height && view->width == step->out_width && view->channels == channels;
}

/* An array of `count` four-byte parameters lies in the constants. */
static inline int bd_holds_words(uint32_t constants_size, uint32_t offset, uint32_t count) {
    return offset % 4u == 0 && (uint64_t)offset + 4u * (uint64_t)count <= constants_size;
}

/* A window over in[0]. Where it lies does not matter: taps outside the map are padding, which kernels
 * recognise by their coordinates, and (2**16 - 1) * 255 + 254 * 255 fits 32 bits. */
static inline int bd_is_window(const bd_step *step, const bd_view *out) {
    return step->kind != BD_STEP_ACCUMULATE && bd_is_output(step, out) && step->kernel_h != 0 &&
           step->kernel_w != 0 && step->stride_h != 0 && step->stride_w != 0 && step->dilation_h != 0 &&
           step->dilation_w != 0 && step->pad_value >= -1 && step->pad_value <= BD_PAD_REPLICATE;
}

/* A convolution whose groups divide its channels. */
static inline int bd_is_conv(const bd_step *step, const bd_view in[], const bd_view out[]) {
    return bd_is_window(step, out) && bd_is_absent(&in[1]) && step->groups != 0 &&
           in->channels % step->groups == 0 && out->channels % step->groups == 0;
}

/* in[0] rows times the rows of in[1], both with their channels last. */
static inline int bd_is_matmul(const bd_step *step, const bd_view in[], const bd_view *out) {
    return step->kind != BD_STEP_ACCUMULATE && bd_is_output(step, out) && in[0].channels == in[1].channels &&
           in[0].height == in[1].height && out->height == in[0].height && out->width == in[0].width &&
           out->channels == in[1].width;
}

/* The step's blob is `before` bytes, then weights: `count` elements of `bytes` bytes for each output channel and tap. */
static inline int bd_has_weights_behind(const bd_step *step, uint32_t before, uint32_t outputs,
                                        uint32_t count, uint32_t bytes) {
    const uint64_t taps = (uint64_t)step->kernel_h * step->kernel_w;
    const uint64_t per_output = taps * count * bytes; /* below 2**16 * 2**16 * 2**3 */
    return step->weights != BD_ABSENT && before + per_output * outputs == step->weights_size;
}

static inline int bd_has_weights(const bd_step *step, uint32_t outputs, uint32_t count, uint32_t bytes) {
    return bd_has_weights_behind(step, 0, outputs, count, bytes);
}

#endif
