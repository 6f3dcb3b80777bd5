/* LceQuantize and LceDequantize: numbers to packed bits and back. A bit is 1 for -1. */
#include "operators.h"

#include <string.h>

static TfLiteStatus same_rank(bt_node *node, const TfLiteTensor *in, const TfLiteTensor *out) {
    if (node->in_count != 1 || node->out_count != 1 || in == NULL || out == NULL || in->dims == NULL ||
        in->dims->size < 1 || in->dims->size > 8) {
        return bt_refuse(node, "it takes one tensor of 1 to 8 axes and gives one");
    }
    return kTfLiteOk;
}

static int64_t rows_of(const TfLiteTensor *tensor) {
    int64_t rows = 1;
    for (int i = 0; i + 1 < tensor->dims->size; i++) {
        rows *= tensor->dims->data[i];
    }
    return rows;
}

static int last(const TfLiteTensor *tensor) {
    return tensor->dims->data[tensor->dims->size - 1];
}

static TfLiteStatus quantize_prepare(bt_node *node) {
    const TfLiteTensor *in = bt_input(node, 0), *out = bt_output(node, 0);
    if (same_rank(node, in, out) != kTfLiteOk) {
        return kTfLiteError;
    }
    const int rank = in->dims->size;
    if (!bt_is(in, kTfLiteFloat32, rank) && !bt_is(in, kTfLiteInt8, rank) && !bt_is(in, kTfLiteBool, rank)) {
        return bt_refuse(node, "it takes float32, int8 or bool");
    }
    if (out->type != kTfLiteInt32) {
        return bt_refuse(node, "its output is words of int32");
    }
    int shape[8];
    memcpy(shape, in->dims->data, (size_t)rank * sizeof(int));
    shape[rank - 1] = bt_words(shape[rank - 1]);
    return bt_resize(node, 0, rank, shape);
}

/* Packs rows of channels; IS_NEGATIVE(v) is the bit of an element. */
#define PACK(TYPE, IS_NEGATIVE)                                                                              \
    for (int64_t row = 0; row < rows; row++) {                                                               \
        for (int c = 0; c < channels; c += BT_WORD) {                                                        \
            const TYPE *from = (const TYPE *)in->data + row * channels + c;                                  \
            const int count = channels - c < BT_WORD ? channels - c : BT_WORD;                               \
            uint32_t word = 0;                                                                               \
            if (count == BT_WORD) {                                                                          \
                for (int i = 0; i < BT_WORD; i++) {                                                          \
                    const TYPE v = from[i];                                                                  \
                    word |= (uint32_t)(IS_NEGATIVE) << i;                                                    \
                }                                                                                            \
            } else {                                                                                         \
                for (int i = 0; i < count; i++) {                                                            \
                    const TYPE v = from[i];                                                                  \
                    word |= (uint32_t)(IS_NEGATIVE) << i;                                                    \
                }                                                                                            \
            }                                                                                                \
            *to++ = word;                                                                                    \
        }                                                                                                    \
    }

static TfLiteStatus quantize_invoke(bt_node *node) {
    const TfLiteTensor *in = bt_input(node, 0);
    uint32_t *to = bt_output(node, 0)->data;
    const int64_t rows = rows_of(in);
    const int channels = last(in);
    if (in->type == kTfLiteFloat32) {
        PACK(float, v < 0.0f)
    } else if (in->type == kTfLiteInt8) {
        const int zero = in->params.zero_point;
        PACK(int8_t, v < zero)
    } else {
        PACK(uint8_t, v == 0)
    }
    return kTfLiteOk;
}

static TfLiteStatus dequantize_prepare(bt_node *node) {
    const TfLiteTensor *in = bt_input(node, 0), *out = bt_output(node, 0);
    if (same_rank(node, in, out) != kTfLiteOk) {
        return kTfLiteError;
    }
    const int rank = in->dims->size;
    if (!bt_is(in, kTfLiteInt32, rank) ||
        (!bt_is(out, kTfLiteFloat32, rank) && !bt_is(out, kTfLiteInt8, rank) &&
         !bt_is(out, kTfLiteBool, rank))) {
        return bt_refuse(node, "it takes words of int32 and gives float32, int8 or bool of as many axes");
    }
    for (int i = 0; i + 1 < rank; i++) {
        if (in->dims->data[i] != out->dims->data[i]) {
            return bt_refuse(node, "size %d is %d in its input and %d in its output", i, in->dims->data[i],
                             out->dims->data[i]);
        }
    }
    if (last(in) != bt_words(last(out))) {
        return bt_refuse(node, "%d words do not hold %d channels", last(in), last(out));
    }
    if (out->type == kTfLiteInt8 && !(out->params.scale > 0.0f)) {
        return bt_refuse(node, "its int8 output has no scale");
    }
    return kTfLiteOk;
}

#define UNPACK(TYPE, POSITIVE, NEGATIVE)                                                                     \
    {                                                                                                        \
        const TYPE values[2] = {(POSITIVE), (NEGATIVE)};                                                     \
        TYPE *to = out->data;                                                                                \
        for (int64_t row = 0; row < rows; row++) {                                                           \
            for (int c = 0; c < channels; c += BT_WORD) {                                                    \
                uint32_t word = *from++;                                                                     \
                const int count = channels - c < BT_WORD ? channels - c : BT_WORD;                           \
                for (int i = 0; i < count; i++) {                                                            \
                    to[i] = values[word >> i & 1u];                                                          \
                }                                                                                            \
                to += count;                                                                                 \
            }                                                                                                \
        }                                                                                                    \
    }

/* 1 / scale as the distance of -1 and +1 from the zero point, in int8. */
static int8_t level(const TfLiteTensor *out, int sign) {
    const float steps = 1.0f / out->params.scale;
    const int offset = steps >= 512.0f ? 512 : (int)(steps + 0.5f);
    const int64_t value = (int64_t)out->params.zero_point + sign * offset;
    return (int8_t)(value > 127 ? 127 : value < -128 ? -128 : value);
}

static TfLiteStatus dequantize_invoke(bt_node *node) {
    const uint32_t *from = bt_input(node, 0)->data;
    const TfLiteTensor *out = bt_output(node, 0);
    const int64_t rows = rows_of(out);
    const int channels = last(out);
    if (out->type == kTfLiteFloat32) {
        UNPACK(float, 1.0f, -1.0f)
    } else if (out->type == kTfLiteInt8) {
        UNPACK(int8_t, level(out, 1), level(out, -1))
    } else {
        UNPACK(uint8_t, 1, 0)
    }
    return kTfLiteOk;
}

const bt_operator bt_quantize = {"LceQuantize", 0, NULL, quantize_prepare, quantize_invoke, NULL};
const bt_operator bt_dequantize = {"LceDequantize", 0, NULL, dequantize_prepare, dequantize_invoke, NULL};
