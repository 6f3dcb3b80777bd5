/* LceBMaxPool2d: the maximum of packed bits is their AND; padding never wins. */
#include "operators.h"

typedef struct pool {
    int32_t same;
    bt_axis y, x;
} pool;

static TfLiteStatus options(bt_node *node, const flexmap *map) {
    pool *p = node->state;
    const int32_t most = 1 << 20;
    if (bt_option(node, map, "filter_height", 1, most, &p->y.kernel) != kTfLiteOk ||
        bt_option(node, map, "filter_width", 1, most, &p->x.kernel) != kTfLiteOk ||
        bt_option(node, map, "stride_height", 1, most, &p->y.stride) != kTfLiteOk ||
        bt_option(node, map, "stride_width", 1, most, &p->x.stride) != kTfLiteOk ||
        bt_option(node, map, "padding", 0, 1, &p->same) != kTfLiteOk) {
        return kTfLiteError;
    }
    p->same = p->same == 0;
    p->y.dilation = p->x.dilation = 1;
    return kTfLiteOk;
}

static TfLiteStatus prepare(bt_node *node) {
    pool *p = node->state;
    const TfLiteTensor *in = bt_input(node, 0), *out = bt_output(node, 0);
    if (node->in_count != 1 || node->out_count != 1 || !bt_is(in, kTfLiteInt32, 4) || out == NULL ||
        out->type != kTfLiteInt32) {
        return bt_refuse(node, "it takes one int32 tensor of four axes and gives one");
    }
    const int *size = in->dims->data;
    p->y.in = size[1];
    p->x.in = size[2];
    if (!bt_pad(&p->y, p->same) || !bt_pad(&p->x, p->same)) {
        return bt_refuse(node, "its window is bigger than the map of %d x %d", size[1], size[2]);
    }
    const int shape[4] = {size[0], p->y.out, p->x.out, size[3]};
    return bt_resize(node, 0, 4, shape);
}

static TfLiteStatus invoke(bt_node *node) {
    const pool *p = node->state;
    const TfLiteTensor *in = bt_input(node, 0);
    const int words = in->dims->data[3];
    uint32_t *to = bt_output(node, 0)->data;
    for (int n = 0; n < in->dims->data[0]; n++) {
        const uint32_t *map =
            (const uint32_t *)in->data + (size_t)n * (size_t)p->y.in * (size_t)p->x.in * (size_t)words;
        for (int y = 0; y < p->y.out; y++) {
            const int top = y * p->y.stride - p->y.before;
            const int y0 = top < 0 ? 0 : top;
            const int y1 = p->y.in - top < p->y.kernel ? p->y.in : top + p->y.kernel;
            for (int x = 0; x < p->x.out; x++, to += words) {
                const int left = x * p->x.stride - p->x.before;
                const int x0 = left < 0 ? 0 : left;
                const int x1 = p->x.in - left < p->x.kernel ? p->x.in : left + p->x.kernel;
                for (int w = 0; w < words; w++) {
                    to[w] = UINT32_MAX;
                }
                for (int i = y0; i < y1; i++) {
                    for (int j = x0; j < x1; j++) {
                        const uint32_t *from =
                            map + ((size_t)i * (size_t)p->x.in + (size_t)j) * (size_t)words;
                        for (int w = 0; w < words; w++) {
                            to[w] &= from[w];
                        }
                    }
                }
            }
        }
    }
    return kTfLiteOk;
}

const bt_operator bt_bmaxpool2d = {"LceBMaxPool2d", sizeof(pool), options, prepare, invoke, NULL};
