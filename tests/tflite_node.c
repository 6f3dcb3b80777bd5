/* Runs nodes of TensorFlow Lite operators from stdin, for processors that are emulated. All numbers are int32:
 *
 *     operator, options size, options, tensors, then of each: type, constant, scale and zero point, rank, shape, data size, data,
 *     inputs, their tensors or -1, outputs, their tensors
 *
 * Writes the size and the bytes of each output, or -1 where prepare or invoke refuse. */
#include "bdnet_tflite.h"
#include "tflite_abi.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int number(void) {
    int value;
    if (fread(&value, sizeof(value), 1, stdin) != 1) {
        exit(0);
    }
    return value;
}

static void *bytes(size_t size) {
    void *data = malloc(size + 1);
    if (data == NULL || fread(data, 1, size, stdin) != size) {
        exit(3);
    }
    return data;
}

static TfLiteIntArray *array(void) {
    const int size = number();
    TfLiteIntArray *a = malloc(sizeof(*a) + (size_t)size * sizeof(int));
    a->size = size;
    for (int i = 0; i < size; i++) {
        a->data[i] = number();
    }
    return a;
}

static void report(TfLiteContext *context, const char *format, ...) {
    va_list arguments;
    (void)context;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

static TfLiteStatus resize(TfLiteContext *context, TfLiteTensor *tensor, TfLiteIntArray *size) {
    (void)context;
    free(tensor->dims);
    free(tensor->data);
    tensor->dims = size;
    tensor->bytes = tensor->type == kTfLiteFloat32 || tensor->type == kTfLiteInt32 ? 4 : 1;
    for (int i = 0; i < size->size; i++) {
        tensor->bytes *= (size_t)size->data[i];
    }
    tensor->data = malloc(tensor->bytes);
    return kTfLiteOk;
}

int main(void) {
    for (;;) {
        const TfLiteRegistration *op = bdnet_tflite_registration(number());
        const size_t length = (size_t)number();
        char *options = bytes(length);
        const int count = number();
        TfLiteTensor *tensors = calloc((size_t)count, sizeof(*tensors));
        for (int i = 0; i < count; i++) {
            tensors[i].type = (TfLiteType)number();
            tensors[i].allocation_type = number() ? kTfLiteMmapRo : (TfLiteAllocationType)2;
            fread(&tensors[i].params, sizeof(tensors[i].params), 1, stdin);
            tensors[i].dims = array();
            tensors[i].bytes = (size_t)number();
            tensors[i].data = bytes(tensors[i].bytes);
        }
        TfLiteContext context = {0};
        context.tensors = tensors;
        context.tensors_size = (size_t)count;
        context.ReportError = report;
        context.ResizeTensor = resize;
        TfLiteNode node = {0};
        node.inputs = array();
        node.outputs = array();
        node.user_data = op->init(&context, options, length);
        const int ok = op->prepare(&context, &node) == kTfLiteOk && op->invoke(&context, &node) == kTfLiteOk;
        op->free(&context, node.user_data);
        for (int i = 0; i < node.outputs->size; i++) {
            const TfLiteTensor *out = &tensors[node.outputs->data[i]];
            const int size = ok ? (int)out->bytes : -1;
            fwrite(&size, sizeof(size), 1, stdout);
            fwrite(out->data, 1, ok ? out->bytes : 0, stdout);
        }
    }
}
