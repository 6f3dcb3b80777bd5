/* What the operators of this folder share: how they see a node, and their checks. */
#ifndef BDNET_TFLITE_OPERATORS_H
#define BDNET_TFLITE_OPERATORS_H

#include "flexmap.h"
#include "tflite_abi.h"

#define BT_INPUTS  8
#define BT_OUTPUTS 2
#define BT_WORD    32

typedef struct bt_node bt_node;

/* An operator. `options` reads the custom options, `prepare` checks everything, sizes the outputs and allocates,
 * `invoke` trusts what prepare checked, `release` frees. `state` is `state_size` bytes, zero at first. */
typedef struct bt_operator {
    const char *name;
    size_t state_size;
    TfLiteStatus (*options)(bt_node *node, const flexmap *map); /* NULL: none are read */
    TfLiteStatus (*prepare)(bt_node *node);
    TfLiteStatus (*invoke)(bt_node *node);
    void (*release)(void *state); /* NULL: nothing to free */
} bt_operator;

/* One node of a graph. */
struct bt_node {
    const bt_operator *op;
    TfLiteContext *context; /* of the call that runs */
    void *state;
    int in_count, out_count;
    int in[BT_INPUTS], out[BT_OUTPUTS];                /* tensor indices, -1 for none */
    size_t in_bytes[BT_INPUTS], out_bytes[BT_OUTPUTS]; /* what invoke reads and writes at least */
    int delegated; /* the indices are those of the node that was replaced */
    int broken;    /* init failed, for what `fault` says */
    char fault[160];
};

extern const bt_operator bt_quantize, bt_dequantize, bt_bconv2d, bt_bmaxpool2d, bt_depthwise;

/* The operator of that name, or NULL. */
const bt_operator *bt_find(const char *name);
/* Takes over the tensors of an interpreter's node. */
void bt_bind(bt_node *node, const TfLiteNode *given);
/* Makes a node of an operator from its custom options; NULL: no memory. */
bt_node *bt_create(const bt_operator *op, TfLiteContext *context, const void *options, size_t length);
void bt_destroy(bt_node *node);
TfLiteStatus bt_prepare(TfLiteContext *context, TfLiteNode *node);
TfLiteStatus bt_invoke(TfLiteContext *context, TfLiteNode *node);

/* Reports "<operator>: <message>" and returns kTfLiteError. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
TfLiteStatus bt_refuse(bt_node *node, const char *format, ...);

/* Input or output i, NULL where the node has none. */
TfLiteTensor *bt_input(const bt_node *node, int i);
TfLiteTensor *bt_output(const bt_node *node, int i);
/* 1: the tensor has that type, `rank` sizes from 1 on, and fewer than 2**31 bytes. */
int bt_is(const TfLiteTensor *tensor, TfLiteType type, int rank);
/* 1: the same for a constant, whose bytes are there. */
int bt_is_constant(const TfLiteTensor *tensor, TfLiteType type, int rank);
/* 1: a constant vector of `count` elements. */
int bt_is_vector(const TfLiteTensor *tensor, TfLiteType type, int count);
/* The required option `key` from low to high. */
TfLiteStatus bt_option(bt_node *node, const flexmap *map, const char *key, int32_t low, int32_t high,
                       int32_t *value);
/* Gives output i its shape of four sizes. */
TfLiteStatus bt_resize(bt_node *node, int i, int rank, const int *shape);
/* `count` elements of `size` zero bytes; NULL: too many. */
void *bt_allocate(size_t count, size_t size);
void bt_free(void *memory);

static inline int bt_words(int channels) {
    return (int)(((unsigned)channels + BT_WORD - 1u) / BT_WORD);
}

/* A window over one axis. */
typedef struct bt_axis {
    int32_t in, out, kernel, stride, dilation, before; /* before: padding in front */
} bt_axis;

/* Output size and front padding as TensorFlow computes them; 0: the output would be empty. */
int bt_pad(bt_axis *axis, int same);

/* Nearest integer, ties away from zero as std::round, in int8. */
static inline int8_t bt_round_int8(float y) {
    if (!(y > -128.0f)) { /* NaN too */
        return -128;
    }
    if (y >= 127.0f) {
        return 127;
    }
    const int whole = (int)y;
    const float rest = y - (float)whole;
    return (int8_t)(whole + (rest >= 0.5f) - (rest <= -0.5f));
}

#endif
