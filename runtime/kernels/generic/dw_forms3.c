/* Depth-wise 3x3 convolution with weights in the packing of bd_forms3.h: the plain version, and the check of all versions. */
#include "bd_forms3.h"
#include "bd_kernels.h"

/* Bit c of the weight of row ky, from the forms of its column. */
static uint32_t weight(const uint32_t forms[3], uint32_t ky, uint32_t c) {
    const uint32_t u = forms[0] >> c, v = forms[1] >> c, s = forms[2] >> c;
    return (ky == 0 ? s ^ u ^ v : ky == 1 ? s ^ v : s ^ u) & 1u;
}

/* n of channel 32 k + c of one pixel, and in *inside the taps that lie inside of the map. */
static uint32_t count(const bd_step *step, const uint32_t *forms, const bd_view *in, uint32_t y, uint32_t x,
                      uint32_t k, uint32_t c, uint32_t *inside) {
    const uint32_t words = bd_words(in->channels);
    const uint32_t other = in->dtype == BD_TRIT ? in->width * words : 0;
    uint32_t n = 0;
    *inside = 0;
    for (uint32_t tap = 0; tap < 9u; tap++) {
        const uint32_t row = y * step->stride_h + tap / 3u - step->pad_top;
        const uint32_t column = x * step->stride_w + tap % 3u - step->pad_left;
        const uint32_t w = weight(forms + 9u * k + 3u * (tap % 3u), tap / 3u, c);
        uint32_t a = step->pad_value < 0 ? 1u : 0, b = step->pad_value > 0 ? 0 : 1u;
        if (row < in->height && column < in->width) { /* coordinates before the map are large numbers */
            const uint32_t *pixel = (const uint32_t *)(const void *)bd_row(in, row) + column * words + k;
            a = pixel[0] >> c & 1u;
            b = pixel[other] >> c & 1u;
            ++*inside;
        }
        n += (a ^ w) + (b ^ w);
    }
    return n;
}

/* Whether the accumulator is below the threshold: the addition's carry. */
static uint32_t is_below(const uint32_t *limits, uint32_t planes, uint32_t n, uint32_t c) {
    uint32_t limit = limits[0] >> c & 1u;
    for (uint32_t p = 1; p < planes; p++) {
        limit |= (limits[p + 1u] >> c & 1u) << p;
    }
    return (limits[1] >> c & 1u) | ((n + limit) >> planes);
}

static bd_status dw(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                    uint32_t y0, uint32_t rows, void *scratch) {
    const uint32_t words = bd_words(in->channels), planes = in->dtype == BD_TRIT ? 5u : 4u;
    const uint32_t classes = bd_forms3_classes(step, in, out);
    const uint32_t *forms = (const void *)(constants + step->weights), *limits = forms + 9u * words;
    (void)scratch;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        uint8_t *bytes = bd_row(out, y);
        uint32_t *bits = (void *)bytes;
        for (uint32_t x = 0; x < out->width; x++, bytes += out->channels) {
            for (uint32_t k = 0; k < words; k++) {
                const uint32_t left = out->channels - 32u * k;
                uint32_t word = 0;
                for (uint32_t c = 0; c < (left < 32u ? left : 32u); c++) {
                    uint32_t inside;
                    const uint32_t n = count(step, forms, in, y, x, k, c, &inside);
                    const uint32_t at = 32u * k + (out->order == 0 ? c : 4u * (c % 8u) + c / 8u);
                    if (classes == 0) {
                        bytes[at] = (uint8_t)(out->dtype == BD_U8 ? n : 9u - n);
                    } else if (classes == 1u) {
                        word |= is_below(limits + (planes + 1u) * k, planes, planes == 5u ? n : n / 2u, c)
                                << c;
                    } else {
                        const uint32_t class = inside == 9u ? 0 : inside == 6u ? 1u : 2u;
                        const uint32_t mismatches = (n - (9u - inside)) / 2u;
                        word |= is_below(limits + 5u * (3u * k + class), 4, mismatches, c) << c;
                    }
                }
                if (classes != 0) {
                    *bits++ = word;
                }
            }
        }
    }
    return BD_OK;
}

/* Padding of one at most, on either side, and two pixels of the map in every window. */
static int side_fits(uint32_t in, uint32_t out, uint32_t stride, uint32_t pad) {
    return in >= 2u && stride <= 2u && pad <= 1u && (out - 1u) * stride + 3u <= in + pad + 1u;
}

static bd_status check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t input,
                       uint32_t dtype, uint32_t order, uint32_t *scratch_bytes) {
    const uint32_t words = bd_words(in->channels);
    const uint32_t limits = (input == BD_TRIT ? 6u : 5u) * bd_forms3_classes(step, in, out);
    const int ordered = out->rows_held != 0 && out->dtype == dtype && out->order == order;
    if (!bd_is(in, input) || !ordered || !bd_is_conv(step, in, out) || step->groups != in->channels ||
        out->channels != in->channels || (order != 0 && in->channels % 32u != 0) || step->kernel_h != 3 ||
        step->kernel_w != 3 || step->dilation_h != 1 || step->dilation_w != 1 || step->pad_value > 1 ||
        step->weight_planes != 1 || step->weights == BD_ABSENT ||
        step->weights_size != 4u * words * (9u + limits) ||
        !side_fits(in->height, step->out_height, step->stride_h, step->pad_top) ||
        !side_fits(in->width, step->out_width, step->stride_w, step->pad_left)) {
        return BD_ERROR_STEP;
    }
    *scratch_bytes = bd_forms3_scratch(step);
    return BD_OK;
}

#define DW(name, input, dtype, order)                                                                        \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants, (void)constants_size;                                                               \
        return check(step, in, out, input, dtype, order, scratch_bytes);                                     \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_dw_##name, dw, check_##name)

DW(bb_i8__forms3, BD_BIT, BD_I8, BD_FORMS3_ORDER)
DW(bb_u8__forms3, BD_BIT, BD_U8, BD_FORMS3_ORDER)
DW(bb_i8__forms3n, BD_BIT, BD_I8, 0)
DW(bb_bit__forms3, BD_BIT, BD_BIT, 0)
DW(tb_i8__forms3, BD_TRIT, BD_I8, BD_FORMS3_ORDER)
DW(tb_u8__forms3, BD_TRIT, BD_U8, BD_FORMS3_ORDER)
DW(tb_i8__forms3n, BD_TRIT, BD_I8, 0)
DW(tb_bit__forms3, BD_TRIT, BD_BIT, 0)
