/* What the depth-wise kernels of Cortex-M share: the rows around their loops, which are assembly and lie in v7m/ and v6m/.
 *
 * For every row and word of channels: the forms of all columns are made once (they serve three pixels), then a loop adds up
 * windows. With trits the plane a is added up first and its sums are kept, then plane b's are added to them.
 *
 * Bits that are padded by 0: a column outside of the map gets the forms of the weights that it meets, so nothing of it
 * differs; a row outside of it is 0 and so are its weights. */
#ifndef FORMS3_H
#define FORMS3_H

#include "bd_forms3.h"
#include "bd_kernels.h"

/* What a loop reads. */
typedef struct forms3_job {
    const uint32_t *x;      /* forms of the first pixel's columns, 3 words each */
    void *to;               /* sums, bytes or words of the first pixel */
    uint32_t step;          /* from the end of a pixel's columns to the next pixel's, bytes */
    const uint32_t *end;    /* `x` behind the last pixel */
    uint32_t gap;           /* bytes from what is stored for a pixel to the next one's */
    const uint32_t *sums;   /* of plane a: 4 words a pixel */
    uint32_t taps;          /* in every byte: what 2 m is taken from or added to */
    const uint32_t *limits; /* of this word of channels */
    uint32_t w[9];          /* forms of the weights */
} forms3_job;

typedef void (*forms3_loop)(const forms3_job *job);

#define UNUSED __attribute__((unused))
#define NAKED  __attribute__((naked, noinline))

/* Forms of columns that lie in the map with all three rows: `first` is a row, the others lie d1 and d2 bytes from it. */
static NAKED void make_forms(UNUSED uint32_t *to, UNUSED const uint32_t *first, UNUSED uint32_t d1,
                             UNUSED uint32_t d2, UNUSED uint32_t pixel_bytes, UNUSED const uint32_t *end) {
    __asm__(".syntax unified\n"
            "push {r4, r5, r6, r7, lr}\n"
            "ldr r4, [sp, #20]\n"
            "ldr r7, [sp, #24]\n"
            "mov r12, r4\n"
            "1:\n"
            "ldr r5, [r1]\n"
            "ldr r4, [r1, r2]\n"
            "ldr r6, [r1, r3]\n"
            "eors r4, r5\n"
            "eors r5, r6\n"
            "eors r6, r4\n"
            "stm r0!, {r4, r5, r6}\n"
            "add r1, r12\n"
            "cmp r0, r7\n"
            "bne 1b\n"
            "pop {r4, r5, r6, r7, pc}\n");
}

/* The same where a row may lie outside of the map: NULL, of `fill`. */
static BD_APART void make_edge_forms(uint32_t *to, const uint32_t *const rows[3], uint32_t words,
                                     uint32_t fill, uint32_t count) {
    for (uint32_t i = 0, at = 0; i < count; i++, at += words, to += 3) {
        const uint32_t x0 = rows[0] != NULL ? rows[0][at] : fill, x1 = rows[1][at],
                       x2 = rows[2] != NULL ? rows[2][at] : fill;
        to[0] = x0 ^ x1;
        to[1] = x0 ^ x2;
        to[2] = x0 ^ x1 ^ x2;
    }
}

/* Forms of one plane of all columns of a row, of the word of channels at which the rows point. */
static void fill_columns(uint32_t *to, const bd_step *step, const bd_view *in, const uint32_t *const rows[3],
                         uint32_t fill) {
    const uint32_t words = bd_words(in->channels), columns = bd_forms3_columns(step), left = step->pad_left;
    const uint32_t right = columns > in->width + left ? 1u : 0u, count = columns - left - right;
    uint32_t *const start = to + 3u * left, *const end = start + 3u * count;
    if (rows[0] != NULL && rows[2] != NULL) {
        const uint8_t *first = (const void *)rows[0], *second = (const void *)rows[1],
                      *third = (const void *)rows[2];
        make_forms(start, rows[0], (uint32_t)(second - first), (uint32_t)(third - first), 4u * words, end);
    } else {
        make_edge_forms(start, rows, words, fill, count);
    }
    if (left != 0) {
        to[0] = to[1] = 0;
        to[2] = fill;
    }
    if (right != 0) {
        end[0] = end[1] = 0;
        end[2] = fill;
    }
}

/* Forms of the weights of three columns, of which the first row (1) or the last (2) does not count. */
static void copy_weights(uint32_t to[9], const uint32_t forms[9], uint32_t missing) {
    for (uint32_t j = 0; j < 9u; j += 3u) {
        const uint32_t u = forms[j], v = forms[j + 1u], s = forms[j + 2u];
        to[j] = (missing & 1u) != 0 ? s ^ v : u;
        to[j + 1u] = (missing & 1u) != 0 ? s ^ u : (missing & 2u) != 0 ? s ^ u ^ v : v;
        to[j + 2u] = (missing & 1u) != 0 ? u ^ v : (missing & 2u) != 0 ? u : s;
    }
}

/* Exchanges the bits of x at shift .. with those of y, where mask is 1. */
BD_INLINE void exchange(uint32_t *x, uint32_t *y, uint32_t shift, uint32_t mask) {
    const uint32_t t = ((*x >> shift) ^ *y) & mask;
    *y ^= t;
    *x ^= t << shift;
}

/* Bytes from planes' order to natural order, 9 - n of n where they are counts; `channels` of every 32. */
static void place_bytes(uint8_t *to, const uint32_t *from, const bd_view *out, uint32_t channels,
                        int are_counts) {
    for (uint32_t x = 0; x < out->width; x++, from += 8, to += out->channels) {
        uint32_t n[8];
        for (uint32_t q = 0; q < 8u; q++) {
            n[q] = are_counts ? (0x89898989u - from[q]) ^ 0x80808080u : from[q];
        }
        for (uint32_t q = 0; q < 8u; q += 4u) {
            exchange(&n[q], &n[q + 2u], 16, 0xffffu);
            exchange(&n[q + 1u], &n[q + 3u], 16, 0xffffu);
            exchange(&n[q], &n[q + 1u], 8, 0x00ff00ffu);
            exchange(&n[q + 2u], &n[q + 3u], 8, 0x00ff00ffu);
        }
        if (channels == 32u && out->channels % 4u == 0) {
            uint32_t *words = (void *)to;
            for (uint32_t j = 0; j < 4u; j++) {
                words[2u * j] = n[j];
                words[2u * j + 1u] = n[j + 4u];
            }
            continue;
        }
        for (uint32_t c = 0; c < channels; c++) {
            to[c] = (uint8_t)(n[c / 8u + (c & 4u)] >> (8u * (c % 4u)));
        }
    }
}

/* The loops of a kernel. */
typedef struct forms3_loops {
    forms3_loop sum;  /* of plane a, for trits */
    forms3_loop last; /* stores bytes or bits */
    uint32_t stored;  /* bytes by which `last` moves its pointer by itself */
    uint32_t counts;  /* it stores n, not 9 - n */
} forms3_loops;

/* Pixels first .. end of a row, all with `taps` taps inside of the map. */
static void run_pixels(const forms3_job *row, forms3_loop loop, uint32_t first, uint32_t end, uint32_t taps,
                       uint32_t counts, uint32_t each) {
    const uint32_t advance = row->step + 36u;
    forms3_job job = *row;
    if (first < end) {
        job.x = (const void *)((const uint8_t *)row->x + first * advance);
        job.end = (const void *)((const uint8_t *)row->x + end * advance);
        job.to = (uint8_t *)row->to + first * each;
        job.taps = (counts ? 9u - taps : FORMS3_TAPS(taps)) * 0x01010101u;
        loop(&job);
    }
}

/* One row of one word of channels, of which `x` is the first pixel's forms. */
static void run_row(forms3_job *job, const bd_step *step, uint32_t seen_rows, uint32_t right, uint32_t each,
                    uint32_t limits, const forms3_loops *loops) {
    const uint32_t width = step->out_width, left = step->pad_left, rows = seen_rows == 3u ? 0 : 1u;
    const uint32_t *const inner = job->limits + rows * limits, *const outer = inner + limits;
    job->gap = each - loops->stored;
    job->limits = outer;
    run_pixels(job, loops->last, 0, left, 2u * seen_rows, loops->counts, each);
    run_pixels(job, loops->last, width - right, width, 2u * seen_rows, loops->counts, each);
    job->limits = inner;
    run_pixels(job, loops->last, left, width - right, 3u * seen_rows, loops->counts, each);
}

static bd_status run_forms3(const bd_step *step, const uint8_t *constants, const bd_view in[],
                            const bd_view out[], uint32_t y0, uint32_t rows, void *scratch,
                            const forms3_loops *loops) {
    const uint32_t words = bd_words(in->channels), trits = in->dtype == BD_TRIT ? 1u : 0u;
    const uint32_t columns = bd_forms3_columns(step), width = step->out_width, left = step->pad_left;
    const uint32_t right = columns > in->width + left ? 1u : 0u;
    const uint32_t leaves_out = trits == 0 && step->pad_value == 0 ? 1u : 0u; /* padding */
    const uint32_t classes = bd_forms3_classes(step, in, out), limits = trits != 0 ? 6u : 5u;
    const uint32_t fill = step->pad_value < 0 ? ~0u : 0u, second_fill = step->pad_value > 0 ? 0u : ~0u;
    const int aside = classes == 0 && out->order == 0;
    const uint32_t each = aside ? 32u : classes != 0 ? 4u * words : out->channels;
    const uint32_t *const forms = (const void *)(constants + step->weights);
    uint32_t *const x = scratch, *const z = x + 3u * columns, *const sums = z + 3u * columns;
    uint32_t *const tile = sums + 4u * width;
    forms3_job job;
    job.step = 12u * step->stride_w - 36u;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const uint32_t top = y * step->stride_h, pad = step->pad_top;
        const uint32_t missing = bd_forms3_missing(top, pad, in->height);
        uint8_t *const to = bd_row(out, y);
        for (uint32_t k = 0; k < words; k++) {
            const uint32_t *from[3], *other[3];
            for (uint32_t i = 0; i < 3u; i++) {
                const int there = (i != 0 || (missing & 1u) == 0) && (i != 2u || (missing & 2u) == 0);
                from[i] = there ? (const uint32_t *)(const void *)bd_row(in, top + i - pad) + k : NULL;
                other[i] = there ? from[i] + (size_t)in->width * words : NULL;
            }
            copy_weights(job.w, forms + 9u * k, leaves_out != 0 ? missing : 0);
            fill_columns(x, step, in, from, fill);
            job.x = x;
            if (trits != 0) {
                fill_columns(z, step, in, other, second_fill);
                job.to = sums;
                run_pixels(&job, loops->sum, 0, width, 9, 0, 0);
                job.x = z;
            } else if (leaves_out != 0) {
                for (uint32_t i = 0; i < 3u; i++) {
                    x[i] = left != 0 ? job.w[i] : x[i];
                    x[3u * columns - 3u + i] = right != 0 ? job.w[6u + i] : x[3u * columns - 3u + i];
                }
            }
            job.to = aside ? (void *)tile : to + k * (classes != 0 ? 4u : 32u);
            job.sums = sums;
            job.limits = forms + 9u * words + limits * classes * k;
            if (leaves_out != 0) {
                run_row(&job, step, missing != 0 ? 2u : 3u, right, each, limits, loops);
            } else {
                job.gap = each - loops->stored;
                run_pixels(&job, loops->last, 0, width, 9, loops->counts, each);
            }
            if (aside) {
                const uint32_t rest = out->channels - 32u * k;
                place_bytes(to + 32u * k, tile, out, rest < 32u ? rest : 32u, loops->counts != 0);
            }
        }
    }
    return BD_OK;
}

#define FORMS3_KERNEL(name, set, sum_loop, last_loop, stored, counts)                                        \
    static bd_status name(const bd_step *step, const uint8_t *constants, const bd_view in[],                 \
                          const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {                  \
        static const forms3_loops loops = {sum_loop, last_loop, stored, counts};                             \
        return run_forms3(step, constants, in, out, y0, rows, scratch, &loops);                              \
    }                                                                                                        \
    BD_DEFINE_VARIANT(bd_dw_##name, set, name)

#endif
