/* bd_gather_<dtype>: y[h, w, c] = x[rows[h], columns[w], channels[c]], or a fill value. Slices, padding, channel shuffles
 * and lists, nearest up-sampling and flips.
 *
 * step->weights, uint16_t:
 *     fill (low half, high half)   the element's bytes; packed: bit i is its bit in plane i
 *     column runs, channel runs    how many
 *     rows[out_height]             row of in[0], or BD_NONE: fill
 *     column runs: first, count    columns of in[0] from `first` on, or BD_NONE: fill; the counts add up to out_width
 *     channel runs: first, count   likewise of channels
 *
 * A window step's rows lie in its window; any others make a whole step. */
#include "bd_check.h"
#include "bd_kernels.h"
#include "bd_move.h"

#define HEAD 4u

typedef struct tables {
    uint32_t fill, column_runs, channel_runs;
    const uint16_t *rows, *columns, *channels;
} tables;

static tables tables_of(const bd_step *step, const uint8_t *constants) {
    const uint16_t *blob = (const void *)(constants + step->weights);
    tables t;
    t.fill = blob[0] | (uint32_t)blob[1] << 16;
    t.column_runs = blob[2];
    t.channel_runs = blob[3];
    t.rows = blob + HEAD;
    t.columns = t.rows + step->out_height;
    t.channels = t.columns + 2u * t.column_runs;
    return t;
}

/* Whether pixels keep all their channels, in their order. */
static int moves_pixels(const tables *t, const bd_view *in) {
    return t->channel_runs == 1u && t->channels[0] == 0 && t->channels[1] == in->channels;
}

/* Elements of `bytes` bytes. */
BD_INLINE void gather_elements(const bd_step *step, const uint8_t *constants, const bd_view in[],
                               const bd_view out[], uint32_t y0, uint32_t rows, uint32_t bytes) {
    const tables t = tables_of(step, constants);
    const uint32_t channels = out->channels, pixel = in->channels * bytes;
    const int pixels = moves_pixels(&t, in);
    for (uint32_t y = y0; y < y0 + rows; y++) {
        uint8_t *to = bd_row(out, y);
        if (t.rows[y] == BD_NONE) {
            bd_fill_elements(to, t.fill, (uint32_t)out->width * channels, bytes);
            continue;
        }
        const uint8_t *row = bd_row(in, t.rows[y]);
        for (uint32_t i = 0; i < t.column_runs; i++) {
            const uint32_t first = t.columns[2u * i], count = t.columns[2u * i + 1u];
            if (first == BD_NONE) {
                bd_fill_elements(to, t.fill, count * channels, bytes);
                to += (size_t)count * channels * bytes;
                continue;
            }
            const uint8_t *from = row + (size_t)first * pixel;
            if (pixels) {
                bd_move_elements(to, from, count * channels, bytes);
                to += (size_t)count * channels * bytes;
                continue;
            }
            for (uint32_t x = 0; x < count; x++, from += pixel) {
                for (uint32_t k = 0; k < t.channel_runs; k++) {
                    const uint32_t c = t.channels[2u * k], n = t.channels[2u * k + 1u];
                    if (c == BD_NONE) {
                        bd_fill_elements(to, t.fill, n, bytes);
                    } else {
                        bd_move_elements(to, from + (size_t)c * bytes, n, bytes);
                    }
                    to += (size_t)n * bytes;
                }
            }
        }
    }
}

/* One plane of a packed row; `from` is NULL in a row of fill values. `ones`: mask of the fill value's bit. */
static void gather_plane(const tables *t, const bd_view *in, const bd_view *out, const uint32_t *from,
                         uint32_t *to, uint32_t ones, int pixels) {
    const uint32_t channels = out->channels, words = bd_words(channels), pixel = bd_words(in->channels);
    bd_clear_words(to, out->width * words);
    for (uint32_t i = 0; i < t->column_runs; i++) {
        const uint32_t first = t->columns[2u * i], count = t->columns[2u * i + 1u];
        for (uint32_t x = 0; x < count; x++, to += words) {
            if (from == NULL || first == BD_NONE) {
                bd_fill_bits(to, 0, channels, ones);
                continue;
            }
            const uint32_t *source = from + (size_t)(first + x) * pixel;
            if (pixels) {
                for (uint32_t k = 0; k < words; k++) {
                    to[k] = source[k];
                }
                continue;
            }
            for (uint32_t k = 0, at = 0; k < t->channel_runs; k++) {
                const uint32_t c = t->channels[2u * k], n = t->channels[2u * k + 1u];
                if (c == BD_NONE) {
                    bd_fill_bits(to, at, n, ones);
                } else {
                    bd_move_bits(to, at, source, c, n);
                }
                at += n;
            }
        }
    }
}

static bd_status gather_packed(const bd_step *step, const uint8_t *constants, const bd_view in[],
                               const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    const tables t = tables_of(step, constants);
    const int pixels = moves_pixels(&t, in);
    const size_t in_plane = (size_t)in->width * bd_words(in->channels);
    const size_t out_plane = (size_t)out->width * bd_words(out->channels);
    (void)scratch;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        for (uint32_t plane = 0; plane < bd_planes(out->dtype); plane++) {
            const uint32_t *from = NULL;
            uint32_t *to = (void *)bd_row(out, y);
            if (t.rows[y] != BD_NONE) {
                from = (const void *)bd_row(in, t.rows[y]);
                from += plane * in_plane;
            }
            gather_plane(&t, in, out, from, to + plane * out_plane, 0u - (t.fill >> plane & 1u), pixels);
        }
    }
    return BD_OK;
}

#define GATHER(bytes)                                                                                        \
    static bd_status gather_##bytes(const bd_step *step, const uint8_t *constants, const bd_view in[],       \
                                    const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {        \
        (void)scratch;                                                                                       \
        gather_elements(step, constants, in, out, y0, rows, bytes);                                          \
        return BD_OK;                                                                                        \
    }

GATHER(4)
GATHER(2)
GATHER(1)

/* The runs take indices below `size` and make `total` of them. */
static int runs_fit(const uint16_t *runs, uint32_t count, uint32_t size, uint32_t total) {
    uint64_t made = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t first = runs[2u * i], length = runs[2u * i + 1u];
        if (first != BD_NONE && first + length > size) {
            return 0;
        }
        made += length;
    }
    return made == total;
}

/* Rows lie in the map and, unless all of it is there, in the window of the step. */
static int rows_fit(const bd_step *step, const uint16_t *rows, uint32_t height) {
    for (uint32_t y = 0; y < step->out_height; y++) {
        const int64_t first = (int64_t)y * step->stride_h - step->pad_top;
        const int64_t last = first + (int64_t)(step->kernel_h - 1) * step->dilation_h;
        if (rows[y] == BD_NONE) {
            continue;
        }
        if (rows[y] >= height || (step->kind == BD_STEP_WINDOW && (rows[y] < first || rows[y] > last))) {
            return 0;
        }
    }
    return 1;
}

static bd_status check(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                       uint32_t dtype) {
    if (!bd_is(in, dtype) || !bd_is_absent(&in[1]) || !bd_is(out, dtype) || !bd_is_window(step, out) ||
        step->weights == BD_ABSENT || step->weights_size < 2u * (HEAD + (uint32_t)step->out_height)) {
        return BD_ERROR_STEP;
    }
    const tables t = tables_of(step, constants);
    const uint64_t entries = HEAD + (uint64_t)step->out_height + 2u * (t.column_runs + t.channel_runs);
    const int fits = 2u * entries == step->weights_size && rows_fit(step, t.rows, in->height) &&
                     runs_fit(t.columns, t.column_runs, in->width, out->width) &&
                     runs_fit(t.channels, t.channel_runs, in->channels, out->channels);
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define KERNEL(name, run, dtype)                                                                             \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants_size, (void)scratch_bytes;                                                           \
        return check(step, constants, in, out, dtype);                                                       \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_##name, run, check_##name)

KERNEL(gather_f32, gather_4, BD_F32)
KERNEL(gather_i32, gather_4, BD_I32)
KERNEL(gather_i16, gather_2, BD_I16)
KERNEL(gather_i8, gather_1, BD_I8)
KERNEL(gather_u8, gather_1, BD_U8)
KERNEL(gather_bit, gather_packed, BD_BIT)
KERNEL(gather_trit, gather_packed, BD_TRIT)
KERNEL(gather_ubit, gather_packed, BD_UBIT)
