/* Packed epilogues of Cortex-M (bd_records.h), channel by channel: the reference of the fast loops, and the rest of a pixel
 * that they leave. The arithmetic wraps where theirs does, so that any record gives the same bytes. */
#include "bd_records.h"

#include "bd_check.h"
#include "bd_kernels.h"
#include "bd_select.h"

#define ACCUMULATORS ((1u << BD_U8) | (1u << BD_I8) | (1u << BD_I16) | (1u << BD_I32))
#define RESIDUALS    ((1u << BD_I8) | (1u << BD_I16))

/* The parameters of one channel. */
typedef struct values {
    uint32_t mul, add, m, keep, slope, slope_k; /* slope_k: word, steep */
    int32_t low, high;
} values;

static uint32_t has_m(uint32_t form) {
    return (form & BD_RES) >= BD_RES_LOW;
}

static uint32_t has_keep(uint32_t form) {
    return (form & BD_RES) == BD_RES_MIXED;
}

/* Words of a record of `pair` channels: 2 in quad, 1 in word. */
static uint32_t record_words(uint32_t form, uint32_t pair) {
    const uint32_t steep = pair == 1u && (form & BD_FORM_STEEP) != 0;
    return (pair == 1u ? 4u : 7u) + has_m(form) + has_keep(form) + ((form & BD_FORM_TRITS) != 0) + steep;
}

static uint32_t half(uint32_t word, uint32_t c) {
    return (uint32_t)(int32_t)(int16_t)(uint16_t)(word >> (16u * (c & 1u)));
}

static uint32_t whole_keep(uint32_t form) {
    const uint32_t residual = form & BD_RES;
    return residual == BD_RES_ONE || residual == BD_RES_ALL ? 0xffffffffu : 0u;
}

static void quad_values(const bd_record_row *r, uint32_t c, values *to) {
    const uint32_t *at = r->records + (size_t)(c / 2u) * r->words, odd = c & 1u;
    to->mul = at[odd];
    to->add = at[2u + odd];
    at += 4;
    to->m = has_m(r->form) ? half(*at++, c) : 0;
    to->slope = at[odd];
    at += 2;
    to->keep = has_keep(r->form) ? half(*at++, c) : whole_keep(r->form);
    to->low = to->high = (int32_t)half(*at++, c);
    if ((r->form & BD_FORM_TRITS) != 0) {
        to->high = (int32_t)half(*at, c);
    }
}

static void word_values(const bd_record_row *r, uint32_t c, values *to) {
    const uint32_t first = c & ~31u, left = r->channels - first, n = left < 32u ? left : 32u;
    const uint32_t *at = r->records + (size_t)(first + n - 1u - (c - first)) * r->words;
    to->mul = *at++;
    to->m = has_m(r->form) ? *at++ : 0;
    to->slope = *at++;
    to->add = *at++;
    to->keep = has_keep(r->form) ? *at++ : whole_keep(r->form);
    to->slope_k = (r->form & BD_FORM_STEEP) != 0 ? *at++ : 0;
    to->low = to->high = (int32_t)*at++;
    if ((r->form & BD_FORM_TRITS) != 0) {
        to->high = (int32_t)*at;
    }
}

int32_t bd_record_acc(const bd_record_row *row, uint32_t x, uint32_t c) {
    const bd_view *view = &row->in[0];
    const uint32_t planes = (c & ~31u) + 4u * (c & 7u) + ((c & 31u) >> 3);
    const size_t at = (size_t)x * view->channels + (view->order == 1 ? planes : c);
    const void *acc = row->at.acc;
    switch (view->dtype) {
    case BD_U8:
        return ((const uint8_t *)acc)[at];
    case BD_I8:
        return ((const int8_t *)acc)[at];
    case BD_I16:
        return ((const int16_t *)acc)[at];
    default:
        return bd_saturate16(((const int32_t *)acc)[at] >> -row->shift);
    }
}

static int32_t residual_of(const bd_record_row *row, uint32_t x, uint32_t c) {
    const bd_view *view = &row->in[1];
    if (row->at.residual == NULL) {
        return 0;
    }
    const size_t at = (size_t)(view->width == 1 ? 0 : x) * view->channels + c % view->channels;
    const void *residual = row->at.residual;
    return view->dtype == BD_I8 ? ((const int8_t *)residual)[at] : ((const int16_t *)residual)[at];
}

/* (sum >> 16) + what is kept of the residual. */
static int32_t sum_of(const values *v, int32_t acc, int32_t residual) {
    const uint32_t low = (uint32_t)acc * v->mul + (uint32_t)residual * v->m + v->add;
    return (int32_t)((uint32_t)((int32_t)low >> 16) + ((uint32_t)residual & v->keep));
}

static int32_t saturate(const bd_record_row *row, int32_t sum) {
    return row->narrow ? bd_clamp(sum, INT8_MIN, INT8_MAX) : bd_saturate16(sum);
}

/* v * (k * 65536 + m) >> 16, saturated. */
static int32_t sloped(const bd_record_row *row, uint32_t v, uint32_t m, uint32_t k) {
    return saturate(row, (int32_t)((uint32_t)((int32_t)(v * m) >> 16) + v * k));
}

/* In lanes of 16 bits. */
static int32_t quad_value(const bd_record_row *row, const values *v, int32_t acc, int32_t residual) {
    const int fits = (row->form & BD_FORM_FITS) != 0;
    const int32_t sum = sum_of(v, acc, residual);
    const int32_t value = fits ? (int32_t)half((uint32_t)sum, 0) : saturate(row, sum);
    int32_t other = (int32_t)half(((uint32_t)value * v->slope) >> 16, 0);
    if ((row->form & BD_FORM_STEEP) != 0) {
        const uint32_t k = (uint32_t)((int32_t)(v->slope + 0x8000u) >> 16);
        other = sloped(row, (uint32_t)value, half(v->slope, 0), k);
    }
    return bd_select(value, other, bd_negative_mask(fits ? sum : value));
}

/* In 32 bits. */
static int32_t word_value(const bd_record_row *row, const values *v, int32_t acc, int32_t residual) {
    const int32_t sum = sum_of(v, acc, residual);
    const int32_t value = (row->form & BD_FORM_FITS) != 0 ? sum : saturate(row, sum);
    const uint32_t below = (uint32_t)(value & bd_negative_mask(value));
    if ((row->form & BD_FORM_STEEP) != 0) {
        return value - (int32_t)below + sloped(row, below, v->slope, v->slope_k);
    }
    return (int32_t)((uint32_t)value + ((below * v->slope) >> 16));
}

/* Stores y of channel c, and appends its bits. */
static void put(const bd_record_row *row, uint32_t x, uint32_t c, int32_t y, const values *v) {
    const size_t at = (size_t)x * row->channels + c;
    if (row->at.trunk != NULL && row->narrow) {
        row->at.trunk[at] = (uint8_t)y;
    } else if (row->at.trunk != NULL) {
        ((int16_t *)(void *)row->at.trunk)[at] = (int16_t)(uint16_t)(uint32_t)y;
    }
    if (row->at.packed != NULL) {
        uint32_t *b, *a = bd_packed_at(&row->out[1], row->at.packed, x, c, &b);
        const uint32_t bit = c & 31u, kept = bit != 0 ? 0xffffffffu : 0u;
        *a = (*a & kept) | ((((uint32_t)y - (uint32_t)v->low) >> 31) << bit);
        if (b != NULL) {
            *b = (*b & kept) | ((((uint32_t)y - (uint32_t)v->high) >> 31) << bit);
        }
    }
}

void bd_quad_channels(const bd_record_row *row, uint32_t x, uint32_t first) {
    values v;
    for (uint32_t c = first; c < row->channels; c++) {
        quad_values(row, c, &v);
        put(row, x, c, quad_value(row, &v, bd_record_acc(row, x, c), residual_of(row, x, c)), &v);
    }
}

void bd_word_channels(const bd_record_row *row, uint32_t x, uint32_t first) {
    values v;
    for (uint32_t c = first; c < row->channels; c++) {
        word_values(row, c, &v);
        put(row, x, c, word_value(row, &v, bd_record_acc(row, x, c), residual_of(row, x, c)), &v);
    }
}

static bd_record_row row_of(const bd_step *step, const uint8_t *constants, const bd_view in[],
                            const bd_view out[], uint32_t pair) {
    const bd_epilogue *e = (const void *)(constants + step->epilogue_at);
    const uint32_t *array = (const void *)(constants + e->mul);
    bd_record_row row = {0};
    row.in = in;
    row.out = out;
    row.records = array + BD_RECORD_HEAD;
    row.form = array[0];
    row.words = record_words(row.form, pair);
    row.channels = step->out_channels;
    row.shift = e->shift < 0 ? e->shift : 0;
    row.narrow = e->dtype == BD_I8;
    return row;
}

bd_record_row bd_quad_row(const bd_step *step, const uint8_t *constants, const bd_view in[],
                          const bd_view out[]) {
    return row_of(step, constants, in, out, 2);
}

bd_record_row bd_word_row(const bd_step *step, const uint8_t *constants, const bd_view in[],
                          const bd_view out[]) {
    return row_of(step, constants, in, out, 1);
}

static bd_status quad(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                      uint32_t y0, uint32_t rows, void *scratch) {
    bd_record_row row = bd_quad_row(step, constants, in, out);
    (void)scratch;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        row.at = bd_rows_of(in, out, y);
        for (uint32_t x = 0; x < step->out_width; x++) {
            bd_quad_channels(&row, x, 0);
        }
    }
    return BD_OK;
}

static bd_status word(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                      uint32_t y0, uint32_t rows, void *scratch) {
    bd_record_row row = bd_word_row(step, constants, in, out);
    (void)scratch;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        row.at = bd_rows_of(in, out, y);
        for (uint32_t x = 0; x < step->out_width; x++) {
            bd_word_channels(&row, x, 0);
        }
    }
    return BD_OK;
}

/* `forms`: a set of BD_RES_*; `pair`: channels of a record. */
static bd_status check(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                       const bd_view in[], const bd_view out[], uint32_t produced, uint32_t forms,
                       uint32_t pair) {
    const bd_view *acc = &in[0], *residual = &in[1], *packed = &out[1];
    const uint32_t head = 4u * BD_RECORD_HEAD;
    if (bd_check_packed_epilogue(step, constants, constants_size, in, out, ACCUMULATORS, acc->order,
                                 RESIDUALS, produced, head) != BD_OK) {
        return BD_ERROR_STEP;
    }
    const bd_epilogue *e = (const void *)(constants + step->epilogue_at);
    const uint32_t form = *(const uint32_t *)(const void *)(constants + e->mul),
                   channels = step->out_channels;
    const uint64_t bytes = head + 4u * (uint64_t)((channels + pair - 1u) / pair) * record_words(form, pair);
    const int bytewise = acc->dtype == BD_U8 || acc->dtype == BD_I8;
    int fits = form <= (BD_RES | BD_FORM_FITS | BD_FORM_TRITS | BD_FORM_STEEP) &&
               ((forms >> (form & BD_RES)) & 1u) != 0;
    fits = fits && (uint64_t)e->mul + bytes <= constants_size && e->repeats == 0;
    fits = fits && (acc->order == 0 || (acc->order == 1 && bytewise && channels % 32u == 0));
    fits = fits && (acc->dtype != BD_I32 || e->shift <= 0);
    fits = fits && bd_is_absent(residual) == ((form & BD_RES) == BD_RES_NONE);
    if ((form & BD_FORM_STEEP) != 0) {
        fits = fits && ((form & BD_RES) == BD_RES_NONE || (form & BD_RES) == BD_RES_MIXED);
    }
    if (!bd_is_absent(residual)) {
        fits = fits && residual->dtype == produced && e->residual_shift == 0;
    }
    if (!bd_is_absent(packed)) {
        fits = fits && (packed->dtype == BD_TRIT) == ((form & BD_FORM_TRITS) != 0);
    }
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define QUAD                                                                                                 \
    ((1u << BD_RES_NONE) | (1u << BD_RES_ONE) | (1u << BD_RES_LOW) | (1u << BD_RES_ALL) |                    \
     (1u << BD_RES_MIXED))
#define WORD ((1u << BD_RES_NONE) | (1u << BD_RES_ONE) | (1u << BD_RES_MIXED) | (1u << BD_RES_WIDE))

#define EPILOGUE(name, run, forms, pair, produced)                                                           \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)scratch_bytes;                                                                                 \
        return check(step, constants, constants_size, in, out, produced, forms, pair);                       \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_epilogue_##name, run, check_##name)

EPILOGUE(i16__quad, quad, QUAD, 2u, BD_I16)
EPILOGUE(i8__quad, quad, QUAD, 2u, BD_I8)
EPILOGUE(i16__word, word, WORD, 1u, BD_I16)
EPILOGUE(i8__word, word, WORD, 1u, BD_I8)
