/* BdDepthwiseConv2d: depth-wise convolution of packed bits or trits with binary or ternary weights.
 *
 * inputs   0  map, int32 (N, H, W, words): bits, or the plane of the lower threshold of trits
 *          1  plane of the higher threshold of trits, or absent
 *          2  weights, int32 (kernel height, kernel width, words of channels_out): bits, or a plane of trits
 *          3  the other plane of ternary weights, or absent
 *          4  multiplier, float32 (channels_out), or absent: 1
 *          5  bias, float32 (channels_out), or absent: 0
 *          6  threshold, int32 (channels_out), or absent
 *          7  a second, higher threshold, or absent
 * outputs  0  float32 acc * multiplier + bias, or int8 of the same, or int32 acc; with a threshold the packed bits of
 *             acc < threshold, or with two the planes of a trit
 *          1  with two thresholds: the plane of the higher one
 * options  channels_in, channels_out (a multiple), stride_height, stride_width, dilation_height, dilation_width,
 *          pad_top, pad_bottom, pad_left, pad_right, pad_value (-1, 0 or 1)
 *
 * Bits and planes as everywhere: 1 is -1, 32 channels a word from the lowest bit on; of a trit both planes are 1 for -1
 * and both 0 for +1, and 0 is (0, 1). At most 127 taps. */
#include "counters.h"
#include "cpu.h"
#include "operators.h"

#include <string.h>

typedef struct depthwise {
    int32_t channels_in, channels_out, pad_bottom, pad_right, pad_value;
    bt_axis y, x;
    int words, taps, planes, kind, level;
    int inner_from, inner_to; /* columns whose windows lie inside of the map */
    int run;                  /* pixels of the longest run: all inner columns at once, or one */
    uint32_t *weights[2];     /* [taps][run * words] */
    uint32_t *constant[2];    /* [run * words] of +1 or -1 outside of the map */
    uint32_t *counters;       /* [planes][run * words] */
    uint32_t *limits[2], *always[2];
    uint32_t *expanded[2]; /* the map with each channel repeated, where there are more outputs than inputs */
    float *multiplier, *bias;
} depthwise;

static void drop(depthwise *d) {
    bt_free(d->counters);
    bt_free(d->multiplier);
    bt_free(d->bias);
    d->counters = NULL;
    d->multiplier = d->bias = NULL;
    for (int i = 0; i < 2; i++) {
        uint32_t **all[] = {&d->weights[i], &d->constant[i], &d->limits[i], &d->always[i], &d->expanded[i]};
        for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++) {
            bt_free(*all[k]);
            *all[k] = NULL;
        }
    }
}

static void release(void *state) {
    drop(state);
}

static TfLiteStatus options(bt_node *node, const flexmap *map) {
    depthwise *d = node->state;
    const int32_t most = 1 << 20;
    const struct {
        const char *key;
        int32_t low, high, *value;
    } all[] = {
        {"channels_in", 1, INT32_MAX - BT_WORD, &d->channels_in},
        {"channels_out", 1, INT32_MAX - BT_WORD, &d->channels_out},
        {"stride_height", 1, most, &d->y.stride},
        {"stride_width", 1, most, &d->x.stride},
        {"dilation_height", 1, most, &d->y.dilation},
        {"dilation_width", 1, most, &d->x.dilation},
        {"pad_top", 0, most, &d->y.before},
        {"pad_bottom", 0, most, &d->pad_bottom},
        {"pad_left", 0, most, &d->x.before},
        {"pad_right", 0, most, &d->pad_right},
        {"pad_value", -1, 1, &d->pad_value},
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (bt_option(node, map, all[i].key, all[i].low, all[i].high, all[i].value) != kTfLiteOk) {
            return kTfLiteError;
        }
    }
    return kTfLiteOk;
}

static int out_size(bt_axis *axis, int32_t after) {
    const int64_t padded = (int64_t)axis->in + axis->before + after;
    const int64_t reach = (int64_t)(axis->kernel - 1) * axis->dilation + 1;
    axis->out = padded < reach ? 0 : (int32_t)((padded - reach) / axis->stride + 1);
    return axis->out > 0;
}

static TfLiteStatus check_maps(bt_node *node) {
    depthwise *d = node->state;
    const TfLiteTensor *in = bt_input(node, 0), *second = bt_input(node, 1);
    const TfLiteTensor *weights = bt_input(node, 2), *others = bt_input(node, 3);
    if (!bt_is(in, kTfLiteInt32, 4) || in->dims->data[3] != bt_words(d->channels_in)) {
        return bt_refuse(node, "its map is not int32 words of %ld channels", (long)d->channels_in);
    }
    const int *size = in->dims->data;
    if (second != NULL &&
        (!bt_is(second, kTfLiteInt32, 4) || memcmp(second->dims->data, size, 4 * sizeof(int)))) {
        return bt_refuse(node, "the two planes of its map differ in shape");
    }
    if (d->channels_out % d->channels_in != 0) {
        return bt_refuse(node, "%ld outputs are no multiple of %ld channels", (long)d->channels_out,
                         (long)d->channels_in);
    }
    d->words = bt_words(d->channels_out);
    if (!bt_is_constant(weights, kTfLiteInt32, 3) || weights->dims->data[2] != d->words) {
        return bt_refuse(node, "its weights are not constant int32 words of %ld channels",
                         (long)d->channels_out);
    }
    const int *kernel = weights->dims->data;
    if (others != NULL &&
        (!bt_is_constant(others, kTfLiteInt32, 3) || memcmp(others->dims->data, kernel, 3 * sizeof(int)))) {
        return bt_refuse(node, "the two planes of its weights differ in shape");
    }
    if ((int64_t)kernel[0] * kernel[1] > BT_TAPS) {
        return bt_refuse(node, "%d x %d taps are more than %d", kernel[0], kernel[1], BT_TAPS);
    }
    d->taps = kernel[0] * kernel[1];
    d->planes = 2 * d->taps < 32 ? 5 : 2 * d->taps < 64 ? 6 : BT_PLANES;
    /* Zeros around a map of bits need no second plane: they are where the counters start. */
    d->kind = others != NULL ? 2 : second != NULL;
    d->y.in = size[1];
    d->x.in = size[2];
    d->y.kernel = kernel[0];
    d->x.kernel = kernel[1];
    if (!out_size(&d->y, d->pad_bottom) || !out_size(&d->x, d->pad_right)) {
        return bt_refuse(node, "its window is bigger than the padded map of %d x %d", size[1], size[2]);
    }
    return kTfLiteOk;
}

/* Limits of counters for acc < threshold, which is counter > taps - threshold, as bit planes. */
static int make_limits(depthwise *d, int which, const int32_t *thresholds) {
    const size_t words = (size_t)d->words;
    uint32_t *limits = d->limits[which] = bt_allocate((size_t)d->planes * words, sizeof(uint32_t));
    uint32_t *always = d->always[which] = bt_allocate(words, sizeof(uint32_t));
    if (limits == NULL || always == NULL) {
        return 0;
    }
    const int64_t never = (1 << d->planes) - 1;
    for (int c = 0; c < d->channels_out; c++) {
        const int64_t limit = (int64_t)d->taps - thresholds[c];
        const uint32_t bit = (uint32_t)1 << (c % BT_WORD);
        const int64_t value = limit < 0 ? 0 : limit < never ? limit : never;
        always[c / BT_WORD] |= limit < 0 ? bit : 0;
        for (int k = 0; k < d->planes; k++) {
            limits[(size_t)k * words + (size_t)c / BT_WORD] |= value >> k & 1 ? bit : 0;
        }
    }
    return 1;
}

static TfLiteStatus check_outputs(bt_node *node) {
    depthwise *d = node->state;
    const TfLiteTensor *out = bt_output(node, 0), *second = bt_output(node, 1);
    const TfLiteTensor *multiplier = bt_input(node, 4), *bias = bt_input(node, 5);
    const int thresholds = (bt_input(node, 6) != NULL) + (bt_input(node, 7) != NULL);
    if (bt_input(node, 6) == NULL && thresholds != 0) {
        return bt_refuse(node, "it has a second threshold and no first");
    }
    if ((second != NULL) != (thresholds == 2) || node->out_count > 1 + (thresholds == 2)) {
        return bt_refuse(node, "two outputs go with two thresholds");
    }
    for (int i = 0; i < thresholds; i++) {
        const TfLiteTensor *limits = bt_input(node, 6 + i), *plane = bt_output(node, i);
        if (!bt_is_vector(limits, kTfLiteInt32, d->channels_out) || plane == NULL ||
            plane->type != kTfLiteInt32) {
            return bt_refuse(node, "threshold %d is no constant of %ld channels, or its output is not int32",
                             i, (long)d->channels_out);
        }
        if (!make_limits(d, i, limits->data)) {
            return bt_refuse(node, "no memory");
        }
    }
    if (out == NULL ||
        (out->type != kTfLiteFloat32 && out->type != kTfLiteInt8 && out->type != kTfLiteInt32)) {
        return bt_refuse(node, "its output is float32, int8 or int32");
    }
    if ((multiplier != NULL && !bt_is_vector(multiplier, kTfLiteFloat32, d->channels_out)) ||
        (bias != NULL && !bt_is_vector(bias, kTfLiteFloat32, d->channels_out)) ||
        ((multiplier != NULL || bias != NULL) && out->type == kTfLiteInt32)) {
        return bt_refuse(node, "multiplier and bias are constants of %ld channels, for float32 and int8",
                         (long)d->channels_out);
    }
    const int is_int8 = out->type == kTfLiteInt8;
    if (is_int8 && !(out->params.scale > 0.0f)) {
        return bt_refuse(node, "its int8 output has no scale");
    }
    const double scale = is_int8 ? (double)out->params.scale : 1.0;
    const double zero = is_int8 ? (double)out->params.zero_point : 0.0;
    const float *m = multiplier == NULL ? NULL : multiplier->data, *a = bias == NULL ? NULL : bias->data;
    if (out->type == kTfLiteInt32 || (is_int8 && m == NULL && a == NULL && !(scale < 1.0) && !(scale > 1.0) &&
                                      !(zero < 0.0) && !(zero > 0.0))) {
        return kTfLiteOk;
    }
    d->multiplier = bt_allocate((size_t)d->channels_out, sizeof(float));
    d->bias = bt_allocate((size_t)d->channels_out, sizeof(float));
    if (d->multiplier == NULL || d->bias == NULL) {
        return bt_refuse(node, "no memory");
    }
    for (int c = 0; c < d->channels_out; c++) {
        d->multiplier[c] = (float)((m == NULL ? 1.0 : (double)m[c]) / scale);
        d->bias[c] = (float)((a == NULL ? 0.0 : (double)a[c]) / scale + zero);
    }
    return kTfLiteOk;
}

/* Columns from the first to behind the last whose windows lie inside; runs of them; weights beside each of their words. */
static TfLiteStatus lay_out(bt_node *node) {
    depthwise *d = node->state;
    const bt_axis *x = &d->x;
    const int64_t reach = (int64_t)(x->kernel - 1) * x->dilation + 1;
    const int64_t last = (int64_t)x->in + x->before - reach;
    const int64_t from = ((int64_t)x->before + x->stride - 1) / x->stride,
                  to = last < 0 ? 0 : last / x->stride + 1;
    d->inner_from = from < x->out ? (int)from : x->out;
    d->inner_to = to < d->inner_from ? d->inner_from : to < x->out ? (int)to : x->out;
    d->run = x->stride == 1 && d->inner_to > d->inner_from ? d->inner_to - d->inner_from : 1;
    const size_t words = (size_t)d->words, taps = (size_t)d->taps;
    if ((int64_t)d->run * d->words > INT32_MAX / 4) {
        return bt_refuse(node, "a row of its output is too long");
    }
    const size_t run = (size_t)d->run * words;
    /* A size_t may have 32 bits, so that only bt_allocate multiplies. */
    d->counters = bt_allocate(run, (size_t)d->planes * sizeof(uint32_t));
    const TfLiteTensor *in = bt_input(node, 0);
    for (int i = 0; i < 2; i++) {
        const TfLiteTensor *weights = bt_input(node, 2 + (i != 0 && bt_input(node, 3) != NULL));
        d->weights[i] = bt_allocate(run, taps * sizeof(uint32_t));
        d->constant[i] = bt_allocate(run, sizeof(uint32_t));
        const int repeats = d->channels_out != d->channels_in && bt_input(node, i) != NULL;
        d->expanded[i] =
            repeats ? bt_allocate((size_t)in->dims->data[1] * (size_t)in->dims->data[2], 4 * words) : NULL;
        if (d->counters == NULL || d->weights[i] == NULL || d->constant[i] == NULL ||
            (repeats && d->expanded[i] == NULL)) {
            return bt_refuse(node, "no memory");
        }
        for (size_t t = 0; t < taps; t++) {
            for (size_t p = 0; p < run; p += words) {
                memcpy(d->weights[i] + t * run + p, (const uint32_t *)weights->data + t * words, 4 * words);
            }
        }
        memset(d->constant[i], d->pad_value < 0 ? 255 : 0, 4 * run);
    }
    d->level = bt_cpu_level();
    return kTfLiteOk;
}

static TfLiteStatus prepare(bt_node *node) {
    depthwise *d = node->state;
    drop(d);
    if (node->in_count < 3 || node->in_count > 8 || node->out_count < 1) {
        return bt_refuse(node, "it has three to eight inputs and one or two outputs");
    }
    if (check_maps(node) != kTfLiteOk || check_outputs(node) != kTfLiteOk || lay_out(node) != kTfLiteOk) {
        return kTfLiteError;
    }
    const int packed = d->limits[0] != NULL;
    const int shape[4] = {bt_input(node, 0)->dims->data[0], d->y.out, d->x.out,
                          packed ? d->words : d->channels_out};
    for (int i = 0; i < 1 + (d->limits[1] != NULL); i++) {
        if (bt_resize(node, i, 4, shape) != kTfLiteOk) {
            return kTfLiteError;
        }
    }
    return kTfLiteOk;
}

/* `pixels` outputs of a row from column x on; their windows lie inside of the map or `pixels` is 1. */
static void count_run(const depthwise *d, const uint32_t *a, const uint32_t *b, int y, int x, int pixels) {
    bt_tap taps[BT_TAPS];
    const size_t words = (size_t)d->words, run = (size_t)d->run * words;
    const int top = y * d->y.stride - d->y.before, left = x * d->x.stride - d->x.before;
    bt_count count = {d->counters, (size_t)pixels * words, taps, 0, 0, d->planes, d->kind};
    int t = 0;
    for (int ky = 0; ky < d->y.kernel; ky++) {
        const int iy = top + ky * d->y.dilation;
        for (int kx = 0; kx < d->x.kernel; kx++, t++) {
            const int ix = left + kx * d->x.dilation;
            const int inside = iy >= 0 && iy < d->y.in && ix >= 0 && ix < d->x.in;
            if (!inside && d->pad_value == 0) {
                count.start++; /* a product of 0 is one 1 in its planes */
                continue;
            }
            const size_t at = inside ? ((size_t)iy * (size_t)d->x.in + (size_t)ix) * words : 0;
            taps[count.tap_count++] =
                (bt_tap){inside ? a + at : d->constant[0], inside ? b + at : d->constant[1],
                         d->weights[0] + (size_t)t * run, d->weights[1] + (size_t)t * run};
        }
    }
    bt_count_ones(&count, d->level);
}

/* Writes the pixels that were counted behind the `done` ones before. */
static void write_run(const bt_node *node, size_t done, int pixels) {
    const depthwise *d = node->state;
    const TfLiteTensor *out = bt_output(node, 0);
    const size_t channels = (size_t)d->channels_out, words = (size_t)d->words;
    bt_finish f = {d->counters, (size_t)pixels * words, d->planes, pixels,       d->channels_out,
                   d->taps,     d->multiplier,          d->bias,   d->limits[0], d->always[0]};
    if (d->limits[0] != NULL) {
        for (int i = 0; i < 1 + (d->limits[1] != NULL); i++) {
            f.limits = d->limits[i];
            f.always = d->always[i];
            bt_finish_bits(&f, (uint32_t *)bt_output(node, i)->data + done * words);
        }
    } else if (out->type == kTfLiteFloat32) {
        bt_finish_f32(&f, (float *)out->data + done * channels, d->level);
    } else if (out->type == kTfLiteInt8) {
        bt_finish_i8(&f, (int8_t *)out->data + done * channels, d->level);
    } else {
        bt_finish_i32(&f, (int32_t *)out->data + done * channels, d->level);
    }
}

/* Repeats each channel of a map. */
static const uint32_t *expand(const depthwise *d, const uint32_t *map, uint32_t *to) {
    const size_t pixels = (size_t)d->y.in * (size_t)d->x.in, from = (size_t)bt_words(d->channels_in);
    const int times = d->channels_out / d->channels_in;
    memset(to, 0, pixels * (size_t)d->words * 4);
    for (size_t p = 0; p < pixels; p++) {
        for (int c = 0; c < d->channels_out; c++) {
            const int source = c / times;
            const uint32_t bit = map[p * from + (size_t)source / BT_WORD] >> (source % BT_WORD) & 1u;
            to[p * (size_t)d->words + (size_t)c / BT_WORD] |= bit << (c % BT_WORD);
        }
    }
    return to;
}

static TfLiteStatus invoke(bt_node *node) {
    const depthwise *d = node->state;
    const TfLiteTensor *in = bt_input(node, 0), *second = bt_input(node, 1);
    const size_t map = (size_t)d->y.in * (size_t)d->x.in * (size_t)in->dims->data[3];
    size_t done = 0;
    for (int n = 0; n < in->dims->data[0]; n++) {
        const uint32_t *a = (const uint32_t *)in->data + (size_t)n * map;
        const uint32_t *b = second == NULL ? a : (const uint32_t *)second->data + (size_t)n * map;
        if (d->expanded[0] != NULL) {
            const uint32_t *wide = expand(d, a, d->expanded[0]);
            b = second == NULL ? wide : expand(d, b, d->expanded[1]);
            a = wide;
        }
        for (int y = 0; y < d->y.out; y++) {
            for (int x = 0; x < d->x.out;) {
                const int pixels = x == d->inner_from && d->inner_to > x ? d->run : 1;
                count_run(d, a, b, y, x, pixels);
                write_run(node, done, pixels);
                done += (size_t)pixels;
                x += pixels;
            }
        }
    }
    return kTfLiteOk;
}

const bt_operator bt_depthwise = {"BdDepthwiseConv2d", sizeof(depthwise), options, prepare, invoke, release};
