#include "operators.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void describe(bt_node *node, const char *format, va_list arguments) {
    const int used = snprintf(node->fault, sizeof(node->fault), "%s: ", node->op->name);
    vsnprintf(node->fault + used, sizeof(node->fault) - (size_t)used, format, arguments);
}

TfLiteStatus bt_refuse(bt_node *node, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    describe(node, format, arguments);
    va_end(arguments);
    node->context->ReportError(node->context, "%s", node->fault);
    return kTfLiteError;
}

bt_node *bt_create(const bt_operator *op, TfLiteContext *context, const void *options, size_t length) {
    bt_node *node = calloc(1, sizeof(*node));
    if (node == NULL) {
        return NULL;
    }
    node->op = op;
    node->context = context;
    node->state = calloc(1, op->state_size + 1);
    if (node->state == NULL) {
        free(node);
        return NULL;
    }
    flexmap map;
    if (op->options != NULL) {
        if (!flexmap_open(&map, options, length)) {
            node->broken = bt_refuse(node, "its options are no FlexBuffer map") != kTfLiteOk;
        } else {
            node->broken = op->options(node, &map) != kTfLiteOk;
        }
    }
    return node;
}

void bt_destroy(bt_node *node) {
    if (node != NULL) {
        if (node->op->release != NULL) {
            node->op->release(node->state);
        }
        free(node->state);
        free(node);
    }
}

void bt_bind(bt_node *node, const TfLiteNode *given) {
    node->in_count = given->inputs->size;
    node->out_count = given->outputs->size;
    for (int i = 0; i < BT_INPUTS; i++) {
        node->in[i] = i < node->in_count ? given->inputs->data[i] : -1;
    }
    for (int i = 0; i < BT_OUTPUTS; i++) {
        node->out[i] = i < node->out_count ? given->outputs->data[i] : -1;
    }
}

static int is_constant(const TfLiteTensor *tensor) {
    return tensor != NULL &&
           (tensor->allocation_type == kTfLiteMmapRo || tensor->allocation_type == kTfLitePersistentRo);
}

static bt_node *node_of(TfLiteContext *context, const TfLiteNode *given) {
    bt_node *node = given->user_data;
    if (node != NULL) {
        node->context = context;
        if (!node->delegated) {
            bt_bind(node, given);
        }
    }
    return node;
}

TfLiteStatus bt_prepare(TfLiteContext *context, TfLiteNode *given) {
    bt_node *node = node_of(context, given);
    if (node == NULL) {
        context->ReportError(context, "%s", "bdnet: no memory");
        return kTfLiteError;
    }
    if (node->broken) {
        context->ReportError(context, "%s", node->fault);
        return kTfLiteError;
    }
    if (node->in_count > BT_INPUTS || node->out_count > BT_OUTPUTS) {
        return bt_refuse(node, "%d inputs and %d outputs are too many", node->in_count, node->out_count);
    }
    for (int i = 0; i < BT_OUTPUTS; i++) {
        if (is_constant(bt_output(node, i))) { /* it may lie in the file's read-only mapping */
            return bt_refuse(node, "output %d is a constant", i);
        }
        for (int k = 0; k < BT_INPUTS; k++) {
            if (node->out[i] >= 0 && node->out[i] == node->in[k]) {
                return bt_refuse(node, "input %d is output %d", k, i);
            }
        }
    }
    TfLiteStatus status = node->op->prepare(node);
    for (int i = 0; i < BT_INPUTS && status == kTfLiteOk; i++) {
        const TfLiteTensor *tensor = bt_input(node, i);
        node->in_bytes[i] = tensor == NULL ? 0 : tensor->bytes;
    }
    for (int i = 0; i < BT_OUTPUTS && status == kTfLiteOk; i++) {
        const TfLiteTensor *tensor = bt_output(node, i);
        node->out_bytes[i] = tensor == NULL ? 0 : tensor->bytes;
    }
    return status;
}

TfLiteStatus bt_invoke(TfLiteContext *context, TfLiteNode *given) {
    bt_node *node = node_of(context, given);
    if (node == NULL) {
        return kTfLiteError;
    }
    for (int i = 0; i < BT_INPUTS; i++) {
        const TfLiteTensor *tensor = bt_input(node, i);
        if (tensor != NULL && (tensor->data == NULL || tensor->bytes != node->in_bytes[i])) {
            return bt_refuse(node, "input %d changed after it was prepared", i);
        }
    }
    for (int i = 0; i < BT_OUTPUTS; i++) {
        const TfLiteTensor *tensor = bt_output(node, i);
        if (tensor != NULL && (tensor->data == NULL || tensor->bytes != node->out_bytes[i])) {
            return bt_refuse(node, "output %d changed after it was prepared", i);
        }
    }
    return node->op->invoke(node);
}

static TfLiteTensor *tensor_at(const bt_node *node, int index) {
    return index >= 0 && (size_t)index < node->context->tensors_size ? &node->context->tensors[index] : NULL;
}

TfLiteTensor *bt_input(const bt_node *node, int i) {
    return tensor_at(node, node->in[i]);
}

TfLiteTensor *bt_output(const bt_node *node, int i) {
    return tensor_at(node, node->out[i]);
}

static int bytes_of(TfLiteType type) {
    return type == kTfLiteFloat32 || type == kTfLiteInt32 ? 4 : 1;
}

int bt_is(const TfLiteTensor *tensor, TfLiteType type, int rank) {
    if (tensor == NULL || tensor->type != type || tensor->dims == NULL || tensor->dims->size != rank) {
        return 0;
    }
    int64_t bytes = bytes_of(type);
    for (int i = 0; i < rank; i++) {
        const int size = tensor->dims->data[i];
        if (size < 1 || (bytes *= size) > INT32_MAX) {
            return 0;
        }
    }
    return 1;
}

int bt_is_constant(const TfLiteTensor *tensor, TfLiteType type, int rank) {
    if (!bt_is(tensor, type, rank) || tensor->data == NULL || !is_constant(tensor)) {
        return 0;
    }
    size_t bytes = (size_t)bytes_of(type);
    for (int i = 0; i < rank; i++) {
        bytes *= (size_t)tensor->dims->data[i];
    }
    return tensor->bytes >= bytes;
}

int bt_is_vector(const TfLiteTensor *tensor, TfLiteType type, int count) {
    return bt_is_constant(tensor, type, 1) && tensor->dims->data[0] == count;
}

TfLiteStatus bt_option(bt_node *node, const flexmap *map, const char *key, int32_t low, int32_t high,
                       int32_t *value) {
    const int found = flexmap_int(map, key, value);
    if (found == 0) {
        return bt_refuse(node, "the option %s is missing", key);
    }
    if (found < 0) {
        return bt_refuse(node, "the option %s is no integer", key);
    }
    if (*value < low || *value > high) {
        return bt_refuse(node, "%s is %ld, which is not from %ld to %ld", key, (long)*value, (long)low,
                         (long)high);
    }
    return kTfLiteOk;
}

TfLiteStatus bt_resize(bt_node *node, int i, int rank, const int *shape) {
    TfLiteTensor *tensor = bt_output(node, i);
    int64_t bytes = bytes_of(tensor->type);
    for (int k = 0; k < rank; k++) {
        if (shape[k] < 1 || (bytes *= shape[k]) > INT32_MAX) {
            return bt_refuse(node, "output %d would be empty or too big", i);
        }
    }
    /* The interpreter frees it. (ResizeTensorExplicit, which would copy the shape, is not there everywhere.) */
    TfLiteIntArray *size = malloc(sizeof(TfLiteIntArray) + (size_t)rank * sizeof(int));
    if (size == NULL) {
        return bt_refuse(node, "no memory");
    }
    size->size = rank;
    memcpy(size->data, shape, (size_t)rank * sizeof(int));
    return node->context->ResizeTensor(node->context, tensor, size);
}

void *bt_allocate(size_t count, size_t size) {
    return size != 0 && count > (size_t)INT32_MAX / size ? NULL : calloc(count + 1, size);
}

void bt_free(void *memory) {
    free(memory);
}

int bt_pad(bt_axis *axis, int same) {
    const int64_t reach = (int64_t)(axis->kernel - 1) * axis->dilation + 1;
    const int64_t out = same ? ((int64_t)axis->in + axis->stride - 1) / axis->stride
                             : (axis->in < reach ? 0 : (axis->in - reach) / axis->stride + 1);
    const int64_t total = same ? (out - 1) * axis->stride + reach - axis->in : 0;
    axis->out = (int32_t)out;
    axis->before = total > 0 && reach <= 1 << 30 ? (int32_t)(total / 2) : 0;
    return out > 0 && reach <= 1 << 30;
}
