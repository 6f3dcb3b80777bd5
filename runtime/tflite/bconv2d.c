/* LceBconv2d: binary convolutions of packed bits, with the results of Larq Compute Engine 0.16.0.
 *
 * A pixel's window is copied to a row of words, one for each group of channels, and compared with each filter: the
 * number of products that are -1 is the popcount of their XOR. Doubled, it is what the output rules start from:
 *
 *     float32  clamp(2 * negative) * multiplier + bias    with the constants that prepare computes in double
 *     int8     the same, rounded (ties away from zero) and saturated
 *     int32    packed bits: -1 where negative > threshold
 *
 * With pad_values 0 a product outside of the map counts as half a -1. Larq's optimized kernels are wrong there for
 * filters bigger than the map and refuse all but float32 without activation; its reference kernel rounds half counts
 * of odd channels. Here 2 * negative is an exact integer in each case. */
#include "cpu.h"
#include "operators.h"

#include <string.h>

#define PIXELS 4 /* computed together, so that a filter is read once for them */

typedef struct bconv {
    int32_t channels_in, same, pad_value, activation;
    bt_axis y, x;
    int groups, words, channels_out; /* words: of one group and tap */
    int row;                         /* 64-bit words of a group's window */
    int level;
    int zero_padded;
    int32_t clamp_low, clamp_high;
    uint64_t *filters; /* [channels_out][row] */
    uint64_t *windows; /* [PIXELS][groups][row] */
    int32_t *doubled;  /* [PIXELS][channels_out]: 2 * negative */
    int32_t *ones;     /* [taps][channels_out]: -1 in each tap of a filter; with zero padding */
    float *multiplier, *bias;
} bconv;

static void drop(bconv *b) {
    bt_free(b->filters);
    bt_free(b->windows);
    bt_free(b->doubled);
    bt_free(b->ones);
    bt_free(b->multiplier);
    bt_free(b->bias);
    b->filters = b->windows = NULL;
    b->doubled = b->ones = NULL;
    b->multiplier = b->bias = NULL;
}

static void release(void *state) {
    drop(state);
}

static TfLiteStatus options(bt_node *node, const flexmap *map) {
    bconv *b = node->state;
    const int32_t most = 1 << 20;
    const struct {
        const char *key;
        int32_t low, high, *value;
    } all[] = {
        {"stride_height", 1, most, &b->y.stride},
        {"stride_width", 1, most, &b->x.stride},
        {"dilation_height_factor", 1, most, &b->y.dilation},
        {"dilation_width_factor", 1, most, &b->x.dilation},
        {"padding", 0, 1, &b->same},
        {"pad_values", 0, 1, &b->pad_value},
        {"channels_in", 1, INT32_MAX - BT_WORD, &b->channels_in},
        {"fused_activation_function", 0, 3, &b->activation},
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (bt_option(node, map, all[i].key, all[i].low, all[i].high, all[i].value) != kTfLiteOk) {
            return kTfLiteError;
        }
    }
    b->same = b->same == 0;
    return kTfLiteOk;
}

/* Groups follow from the words of a filter; they are right only if no word holds channels of two. */
static TfLiteStatus find_groups(bt_node *node, const int *filter) {
    bconv *b = node->state;
    const int words = bt_words(b->channels_in);
    b->groups = 1;
    if (filter[3] != words) {
        b->groups = words % filter[3] == 0 ? words / filter[3] : 0;
        if (b->groups == 0 || b->channels_in % b->groups != 0 || b->channels_in / b->groups % BT_WORD != 0) {
            return bt_refuse(node, "filters of %d words do not make groups of %ld channels", filter[3],
                             (long)b->channels_in);
        }
    }
    if (filter[0] % b->groups != 0) {
        return bt_refuse(node, "%d filters are not the same number for each of %d groups", filter[0],
                         b->groups);
    }
    b->channels_out = filter[0];
    b->words = filter[3];
    return kTfLiteOk;
}

/* Multiplier, bias and limits of `clamp(2 * negative) * multiplier + bias`, as Larq rounds them. */
static TfLiteStatus transform(bt_node *node, const TfLiteTensor *out, int32_t products) {
    bconv *b = node->state;
    const TfLiteTensor *multiplier = bt_input(node, 2), *bias = bt_input(node, 3);
    if (!bt_is_vector(multiplier, kTfLiteFloat32, b->channels_out) ||
        !bt_is_vector(bias, kTfLiteFloat32, b->channels_out)) {
        return bt_refuse(node, "it needs a constant multiplier and bias for each of %d channels",
                         b->channels_out);
    }
    const int is_int8 = out->type == kTfLiteInt8;
    if (is_int8 && !(out->params.scale > 0.0f)) {
        return bt_refuse(node, "its int8 output has no scale");
    }
    const double scale = is_int8 ? (double)out->params.scale : 1.0;
    const double zero = is_int8 ? (double)out->params.zero_point : 0.0;
    b->multiplier = bt_allocate((size_t)b->channels_out, sizeof(float));
    b->bias = bt_allocate((size_t)b->channels_out, sizeof(float));
    if (b->multiplier == NULL || b->bias == NULL) {
        return bt_refuse(node, "no memory");
    }
    for (int o = 0; o < b->channels_out; o++) {
        const double m = ((const float *)multiplier->data)[o], a = ((const float *)bias->data)[o];
        b->multiplier[o] = (float)(-1 * m / scale);
        b->bias[o] = (float)((a + (double)products * m) / scale + zero);
    }
    static const int32_t limits[4][2] = {{INT32_MIN, INT32_MAX}, {0, INT32_MAX}, {-1, 1}, {0, 6}};
    const int32_t low = limits[b->activation][0], high = limits[b->activation][1];
    b->clamp_low = products - (high < products ? high : products);
    b->clamp_high = products - (low > -products ? low : -products);
    return kTfLiteOk;
}

static TfLiteStatus repack(bt_node *node, const uint32_t *filters) {
    bconv *b = node->state;
    const size_t taps = (size_t)b->y.kernel * (size_t)b->x.kernel, words = (size_t)b->words;
    const size_t length = taps * words, row = (length + 1) / 2, outputs = (size_t)b->channels_out;
    b->row = (int)row;
    b->filters = bt_allocate(outputs * row, sizeof(uint64_t));
    b->windows = bt_allocate(PIXELS * (size_t)b->groups * row, sizeof(uint64_t));
    b->doubled = bt_allocate(PIXELS * outputs, sizeof(int32_t));
    b->ones = b->zero_padded ? bt_allocate(taps * outputs, sizeof(int32_t)) : NULL;
    if (b->filters == NULL || b->windows == NULL || b->doubled == NULL ||
        (b->zero_padded && b->ones == NULL)) {
        return bt_refuse(node, "no memory");
    }
    /* Bits behind the last channel are 0 in maps and must not count. */
    const int rest = b->channels_in / b->groups % BT_WORD;
    const uint32_t valid = rest == 0 ? UINT32_MAX : ((uint32_t)1 << rest) - 1u;
    for (size_t o = 0; o < outputs; o++) {
        uint8_t *to = (uint8_t *)(b->filters + o * row);
        for (size_t i = 0; i < length; i++) {
            const uint32_t word = filters[o * length + i] & (i % words == words - 1 ? valid : UINT32_MAX);
            memcpy(to + 4 * i, &word, 4);
            for (uint32_t left = b->zero_padded ? word : 0; left != 0; left &= left - 1) {
                b->ones[i / words * outputs + o]++;
            }
        }
    }
    return kTfLiteOk;
}

static TfLiteStatus prepare(bt_node *node) {
    bconv *b = node->state;
    const TfLiteTensor *in = bt_input(node, 0), *filter = bt_input(node, 1), *out = bt_output(node, 0);
    drop(b);
    if (node->in_count != 5 || node->out_count != 1) {
        return bt_refuse(node, "it has five inputs and one output");
    }
    if (!bt_is(in, kTfLiteInt32, 4) || !bt_is_constant(filter, kTfLiteInt32, 4)) {
        return bt_refuse(node, "it takes int32 words and constant int32 filters, of four axes each");
    }
    if (out == NULL ||
        (out->type != kTfLiteFloat32 && out->type != kTfLiteInt8 && out->type != kTfLiteInt32)) {
        return bt_refuse(node, "its output is float32, int8 or packed int32");
    }
    const int *size = in->dims->data, *filters = filter->dims->data;
    if (size[3] != bt_words(b->channels_in)) {
        return bt_refuse(node, "%ld channels are not %d words", (long)b->channels_in, size[3]);
    }
    if (find_groups(node, filters) != kTfLiteOk) {
        return kTfLiteError;
    }
    const int64_t products = (int64_t)filters[1] * filters[2] * (b->channels_in / b->groups);
    if (products > 1 << 29) {
        return bt_refuse(node, "sums of %lld products are too long", (long long)products);
    }
    b->y.in = size[1];
    b->x.in = size[2];
    b->y.kernel = filters[1];
    b->x.kernel = filters[2];
    if (!bt_pad(&b->y, b->same) || !bt_pad(&b->x, b->same)) {
        return bt_refuse(node, "its window is bigger than the map of %d x %d", size[1], size[2]);
    }
    b->zero_padded = b->same && b->pad_value == 0;
    b->level = bt_cpu_level();
    if (out->type == kTfLiteInt32) {
        if (!bt_is_vector(bt_input(node, 4), kTfLiteInt32, b->channels_out)) {
            return bt_refuse(node, "it needs a constant threshold for each of %d channels", b->channels_out);
        }
    } else if (transform(node, out, (int32_t)products) != kTfLiteOk) {
        return kTfLiteError;
    }
    if (repack(node, filter->data) != kTfLiteOk) {
        return kTfLiteError;
    }
    const int packed = out->type == kTfLiteInt32;
    const int shape[4] = {size[0], b->y.out, b->x.out, packed ? bt_words(b->channels_out) : b->channels_out};
    return bt_resize(node, 0, 4, shape);
}

/* The windows of one pixel, [groups][row]; taps outside of the map are +1, or nothing for now. */
static void copy_window(const bconv *b, const uint32_t *map, int y, int x, uint64_t *windows) {
    const size_t words = (size_t)b->words, pitch = words * (size_t)b->groups;
    const int top = y * b->y.stride - b->y.before, left = x * b->x.stride - b->x.before;
    uint8_t *to = (uint8_t *)windows;
    for (int ky = 0; ky < b->y.kernel; ky++) {
        const int iy = top + ky * b->y.dilation;
        for (int kx = 0; kx < b->x.kernel; kx++, to += 4 * words) {
            const int ix = left + kx * b->x.dilation;
            const int inside = iy >= 0 && iy < b->y.in && ix >= 0 && ix < b->x.in;
            const uint32_t *from = inside ? map + ((size_t)iy * (size_t)b->x.in + (size_t)ix) * pitch : NULL;
            for (int g = 0; g < b->groups; g++) {
                uint8_t *group = to + (size_t)g * (size_t)b->row * 8;
                if (inside) {
                    memcpy(group, from + (size_t)g * words, 4 * words);
                } else {
                    memset(group, 0, 4 * words);
                }
            }
        }
    }
}

/* What the taps outside of the map add to 2 * negative, instead of what was counted for them. */
static void correct_zeros(const bconv *b, int y, int x, int32_t *doubled) {
    const int top = y * b->y.stride - b->y.before, left = x * b->x.stride - b->x.before;
    const int32_t *ones = b->ones, half = b->channels_in / b->groups;
    for (int ky = 0; ky < b->y.kernel; ky++) {
        const int iy = top + ky * b->y.dilation;
        for (int kx = 0; kx < b->x.kernel; kx++, ones += b->channels_out) {
            const int ix = left + kx * b->x.dilation;
            if (iy < 0 || iy >= b->y.in || ix < 0 || ix >= b->x.in) {
                for (int o = 0; o < b->channels_out; o++) {
                    doubled[o] += half - 2 * ones[o];
                }
            }
        }
    }
}

/* 2 * negative of PIXELS windows and all filters. */
BT_INLINE void count(const bconv *b) {
    const int row = b->row, pitch = row * b->groups, per_group = b->channels_out / b->groups;
    const int outputs = b->channels_out;
    for (int g = 0; g < b->groups; g++) {
        const uint64_t *window = b->windows + (size_t)g * (size_t)row;
        for (int o = g * per_group; o < (g + 1) * per_group; o++) {
            const uint64_t *filter = b->filters + (size_t)o * (size_t)row;
            uint64_t n0 = 0, n1 = 0, n2 = 0, n3 = 0;
            for (int i = 0; i < row; i++) {
                const uint64_t f = filter[i];
                n0 += (uint64_t)__builtin_popcountll(f ^ window[i]);
                n1 += (uint64_t)__builtin_popcountll(f ^ window[pitch + i]);
                n2 += (uint64_t)__builtin_popcountll(f ^ window[2 * pitch + i]);
                n3 += (uint64_t)__builtin_popcountll(f ^ window[3 * pitch + i]);
            }
            b->doubled[o] = (int32_t)(2 * n0);
            b->doubled[outputs + o] = (int32_t)(2 * n1);
            b->doubled[2 * outputs + o] = (int32_t)(2 * n2);
            b->doubled[3 * outputs + o] = (int32_t)(2 * n3);
        }
    }
}
BT_VARIANTS(count, (const bconv *b), (b))

static float scaled(const bconv *b, int32_t doubled, int o) {
    const int32_t below = doubled < b->clamp_high ? doubled : b->clamp_high;
    const int32_t x = below > b->clamp_low ? below : b->clamp_low;
    return (float)x * b->multiplier[o] + b->bias[o];
}

/* Writes one pixel; returns the next. */
static void *write_pixel(const bconv *b, TfLiteType type, const int32_t *thresholds, const int32_t *doubled,
                         void *to) {
    const int outputs = b->channels_out;
    if (type == kTfLiteFloat32) {
        float *out = to;
        for (int o = 0; o < outputs; o++) {
            out[o] = scaled(b, doubled[o], o);
        }
        return out + outputs;
    }
    if (type == kTfLiteInt8) {
        int8_t *out = to;
        for (int o = 0; o < outputs; o++) {
            out[o] = bt_round_int8(scaled(b, doubled[o], o));
        }
        return out + outputs;
    }
    uint32_t *out = to;
    for (int o = 0; o < outputs; o += BT_WORD) {
        const int bits = outputs - o < BT_WORD ? outputs - o : BT_WORD;
        uint32_t word = 0;
        for (int i = 0; i < bits; i++) { /* doubled > 2 * threshold, without its overflow */
            word |= (uint32_t)((doubled[o + i] + 1) >> 1 > thresholds[o + i]) << i;
        }
        *out++ = word;
    }
    return out;
}

static TfLiteStatus invoke(bt_node *node) {
    const bconv *b = node->state;
    const TfLiteTensor *in = bt_input(node, 0), *out = bt_output(node, 0), *limits = bt_input(node, 4);
    const int32_t *thresholds = limits == NULL ? NULL : limits->data;
    const size_t map_words = (size_t)b->y.in * (size_t)b->x.in * (size_t)in->dims->data[3];
    const size_t window = (size_t)b->row * (size_t)b->groups;
    void *to = out->data;
    for (int n = 0; n < in->dims->data[0]; n++) {
        const uint32_t *map = (const uint32_t *)in->data + (size_t)n * map_words;
        const int64_t pixels = (int64_t)b->y.out * b->x.out;
        for (int64_t first = 0; first < pixels; first += PIXELS) {
            const int some = pixels - first < PIXELS ? (int)(pixels - first) : PIXELS;
            for (int p = 0; p < some; p++) {
                const int y = (int)((first + p) / b->x.out), x = (int)((first + p) % b->x.out);
                copy_window(b, map, y, x, b->windows + (size_t)p * window);
            }
            count_all[b->level](b);
            for (int p = 0; p < some; p++) {
                int32_t *doubled = b->doubled + (size_t)p * (size_t)b->channels_out;
                if (b->zero_padded) {
                    const int y = (int)((first + p) / b->x.out), x = (int)((first + p) % b->x.out);
                    correct_zeros(b, y, x, doubled);
                }
                to = write_pixel(b, out->type, thresholds, doubled, to);
            }
        }
    }
    return kTfLiteOk;
}

const bt_operator bt_bconv2d = {"LceBconv2d", sizeof(bconv), options, prepare, invoke, release};
