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
    uint32_t taps;          /* in every byte, FORMS3_TAPS: what 2 m is taken from or added to */
    const uint32_t *limits; /* of this word of channels */
    const uint32_t *w;      /* forms of its weights */
} forms3_job;

typedef void (*forms3_loop)(const forms3_job *job);

/* From counts in the planes' order to values in natural order: 32 bytes each, `each` bytes apart at `to`. */
typedef void (*forms3_place)(const uint32_t *from, void *to, uint32_t each, const uint32_t *end);

/* The loops of a kernel. */
typedef struct forms3_loops {
    forms3_loop sum;    /* of plane a, for trits */
    forms3_loop last;   /* stores bytes or bits */
    uint32_t stored;    /* bytes by which `last` moves its pointer by itself */
    forms3_place place; /* behind `last`, where the order is natural and `last` does not leave it so */
} forms3_loops;

#define UNUSED __attribute__((unused))
#define NAKED  __attribute__((naked, noinline))

#define FORM                                                                                                 \
    "ldr r5, [r1]\n"                                                                                         \
    "ldr r4, [r1, r2]\n"                                                                                     \
    "ldr r6, [r1, r3]\n"                                                                                     \
    "eors r4, r5\n"                                                                                          \
    "eors r5, r6\n"                                                                                          \
    "eors r6, r4\n"                                                                                          \
    "stm r0!, {r4, r5, r6}\n"                                                                                \
    "add r1, r12\n"

/* Forms of columns that lie in the map with all three rows: `first` is a row, the others lie d1 and d2 bytes from it. */
static NAKED void make_forms(UNUSED uint32_t *to, UNUSED const uint32_t *first, UNUSED uint32_t d1,
                             UNUSED uint32_t d2, UNUSED uint32_t pixel_bytes, UNUSED const uint32_t *end) {
    __asm__(".syntax unified\n"
            "push {r4, r5, r6, r7, lr}\n"
            "ldr r4, [sp, #20]\n"
            "ldr r7, [sp, #24]\n"
            "mov r12, r4\n"
            "subs r4, r7, r0\n" /* an odd number of columns, 12 bytes each: begin with the second half */
            "lsrs r4, r4, #3\n"
            "bcs 2f\n"
            "1:\n" FORM "2:\n" FORM "cmp r0, r7\n"
            "bne 1b\n"
            "pop {r4, r5, r6, r7, pc}\n");
}

/* The same where a row may lie outside of the map: NULL, of `fill`. */
static BD_APART void make_edge_forms(uint32_t *to, const uint32_t *const rows[3], uint32_t words,
                                     uint32_t fill, const uint32_t *end) {
    for (uint32_t at = 0; to != end; at += words, to += 3) {
        const uint32_t x0 = rows[0] != NULL ? rows[0][at] : fill, x1 = rows[1][at],
                       x2 = rows[2] != NULL ? rows[2][at] : fill;
        to[0] = x0 ^ x1;
        to[1] = x0 ^ x2;
        to[2] = x0 ^ x1 ^ x2;
    }
}

/* A call: what all of its rows and words of channels share. */
typedef struct forms3_call {
    const bd_step *step;
    const forms3_loops *loops;
    uint32_t words, columns, left, right; /* of a pixel; of a row; columns of padding on either side */
    uint32_t lanes, groups; /* pixels that share a word, where channels are few; such words of a row */
    uint32_t advance;       /* bytes from the forms of a group to those of the next */
    uint32_t each;          /* bytes from what is stored for a group to the next one's */
    uint32_t leaves_out;    /* padding by 0 of bits */
    uint32_t limits;        /* words of a class of limits */
    uint32_t *merged;
} forms3_call;

/* Forms of one plane of all columns of a row, of the word of channels at which the rows point. Columns outside of the map
 * have `fill`, or the forms of the weights that they meet. */
static void fill_columns(const forms3_call *call, uint32_t *to, const uint32_t *const rows[3], uint32_t fill,
                         const uint32_t *w) {
    uint32_t *const start = to + 3u * call->left, *const end = to + 3u * (call->columns - call->right);
    if (rows[0] != NULL && rows[2] != NULL) {
        const uint8_t *first = (const void *)rows[0], *second = (const void *)rows[1],
                      *third = (const void *)rows[2];
        make_forms(start, rows[0], (uint32_t)(second - first), (uint32_t)(third - first), 4u * call->words,
                   end);
    } else {
        make_edge_forms(start, rows, call->words, fill, end);
    }
    if (call->left != 0) {
        to[0] = w != NULL ? w[0] : 0;
        to[1] = w != NULL ? w[1] : 0;
        to[2] = w != NULL ? w[2] : fill;
    }
    if (call->right != 0) {
        end[0] = w != NULL ? w[6] : 0;
        end[1] = w != NULL ? w[7] : 0;
        end[2] = w != NULL ? w[8] : fill;
    }
}

/* Nine forms of 4 pixels of 8 channels, or of 2 of 16, from those of their columns, `next` words from pixel to pixel. Above
 * the channels all bits are 0. */
BD_INLINE void merge(uint32_t to[9], const uint32_t *from, uint32_t lanes, uint32_t next) {
    for (uint32_t i = 0; i < 9u; i++) {
        to[i] = lanes == 2u ? from[i] | (from[i + next] << 16)
                            : from[i] | (from[i + next] << 8) | (from[i + 2u * next] << 16) |
                                  (from[i + 3u * next] << 24);
    }
}

/* The same for all groups of a row: the three columns of one behind those of another. Pixels behind the last one are 0. */
static BD_APART void merge_columns(const forms3_call *call, uint32_t *to, const uint32_t *from) {
    const uint32_t lanes = call->lanes, next = 3u * call->step->stride_w,
                   rest = call->step->out_width % lanes;
    const uint32_t *const end = to + 9u * (call->groups - (rest != 0 ? 1u : 0u));
    for (; to != end; to += 9, from += lanes * next) {
        if (lanes == 4u && next == 3u) {
            merge(to, from, 4, 3);
        } else if (lanes == 4u) {
            merge(to, from, 4, 6);
        } else if (next == 3u) {
            merge(to, from, 2, 3);
        } else {
            merge(to, from, 2, 6);
        }
    }
    for (uint32_t i = 0; i < 9u && rest != 0; i++) {
        uint32_t word = 0;
        for (uint32_t lane = 0; lane < rest; lane++) {
            word |= from[i + lane * next] << (lane * (32u / lanes));
        }
        to[i] = word;
    }
}

/* Forms of the weights of three columns, of which the first row (1) or the last (2) does not count. */
static BD_APART void leave_row_out(uint32_t to[9], const uint32_t forms[9], uint32_t missing) {
    for (uint32_t j = 0; j < 9u; j += 3u) {
        const uint32_t u = forms[j], v = forms[j + 1u], s = forms[j + 2u];
        to[j] = (missing & 1u) != 0 ? s ^ v : u;
        to[j + 1u] = (missing & 1u) != 0 ? s ^ u : s ^ u ^ v;
        to[j + 2u] = (missing & 1u) != 0 ? u ^ v : u;
    }
}

/* Groups first .. end of a row, all with the same taps inside of the map. */
static void run_groups(const forms3_call *call, forms3_job *job, const uint32_t *x, uint8_t *to,
                       uint32_t first, uint32_t end) {
    if (first < end) {
        job->x = (const void *)((const uint8_t *)x + first * call->advance);
        job->end = (const void *)((const uint8_t *)x + end * call->advance);
        job->to = to + first * call->each;
        call->loops->last(job);
    }
}

/* Of all pixels of a group: 3 columns a row inside of the map, fewer at the sides. */
static uint32_t taps_of_group(const forms3_call *call, uint32_t group, uint32_t rows) {
    const uint32_t bits = 32u / call->lanes;
    uint32_t word = 0;
    if (call->lanes == 1u) { /* two pixels at least are in the map */
        return FORMS3_TAPS(2u * rows) * 0x01010101u;
    }
    for (uint32_t i = 0; i < call->lanes; i++) {
        const uint32_t pixel = group * call->lanes + i;
        const uint32_t columns =
            3u - (pixel < call->left ? 1u : 0u) - (pixel + call->right >= call->step->out_width ? 1u : 0u);
        word |= FORMS3_TAPS(rows * columns) << (i * bits);
    }
    return word * (0x01010101u & (0xffffffffu >> (32u - bits)));
}

/* A row of bits without its padding: the groups at its sides have fewer taps. */
static void run_sides(const forms3_call *call, forms3_job *job, const uint32_t *x, uint8_t *to,
                      uint32_t rows) {
    const uint32_t left = call->left, right = call->groups - call->right;
    const uint32_t *const inner = job->limits + (rows == 3u ? 0 : call->limits);
    job->limits = inner + call->limits;
    if (left != 0) {
        job->taps = taps_of_group(call, 0, rows);
        run_groups(call, job, x, to, 0, left);
    }
    if (call->right != 0 && right >= left) {
        job->taps = taps_of_group(call, right, rows);
        run_groups(call, job, x, to, right, right + 1u);
    }
    job->limits = inner;
    job->taps = FORMS3_TAPS(3u * rows) * 0x01010101u;
    run_groups(call, job, x, to, left, right);
}

/* The first bytes of every 32. */
static BD_APART void copy_parts(uint8_t *to, uint32_t each, const uint8_t *from, uint32_t bytes,
                                uint32_t count) {
    for (uint32_t i = 0; i < count; i++, to += each, from += 32) {
        for (uint32_t c = 0; c < bytes; c++) {
            to[c] = from[c];
        }
    }
}

static bd_status run_forms3(const bd_step *step, const uint8_t *constants, const bd_view in[],
                            const bd_view out[], uint32_t y0, uint32_t rows, void *scratch,
                            const forms3_loops *loops) {
    const uint32_t trits = in->dtype == BD_TRIT ? 1u : 0u, classes = bd_forms3_classes(step, in, out);
    const uint32_t ones = in->channels < 32u ? (1u << in->channels) - 1u : ~0u; /* no others in tails */
    const uint32_t fill = step->pad_value < 0 ? ones : 0u, second_fill = step->pad_value > 0 ? 0u : ones;
    const uint32_t plane = in->width * bd_words(in->channels), pad = step->pad_top;
    const uint32_t *const forms = (const void *)(constants + step->weights);
    uint32_t *const x = scratch, *const z = x + 3u * bd_forms3_columns(step);
    uint32_t *const sums = z + 3u * bd_forms3_columns(step), *const tile = sums + 4u * step->out_width;
    uint32_t *const merged = tile + 8u * step->out_width;
    forms3_call call;
    forms3_job job;
    call.step = step;
    call.loops = loops;
    call.words = bd_words(in->channels);
    call.columns = bd_forms3_columns(step);
    call.left = step->pad_left;
    call.right = call.columns > in->width + call.left ? 1u : 0u;
    call.lanes = bd_forms3_lanes(step, out);
    call.groups = (step->out_width + call.lanes - 1u) / call.lanes;
    call.advance = call.lanes > 1u ? 36u : 12u * step->stride_w;
    call.leaves_out = trits == 0 && step->pad_value == 0 ? 1u : 0u;
    call.limits = trits != 0 ? 6u : 5u;
    job.step = call.advance - 36u;
    job.sums = sums;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const uint32_t top = y * step->stride_h, missing = bd_forms3_missing(top, pad, in->height);
        const uint32_t *const middle = (const void *)bd_row(in, top + 1u - pad);
        const uint32_t *from[3] = {(missing & 1u) != 0 ? NULL : (const void *)bd_row(in, top - pad), middle,
                                   (missing & 2u) != 0 ? NULL : (const void *)bd_row(in, top + 2u - pad)};
        uint8_t *to = bd_row(out, y);
        for (uint32_t k = 0; k < call.words; k++) {
            const uint32_t rest = out->channels - 32u * k;
            const int is_whole =
                call.lanes > 1u ? step->out_width % call.lanes == 0 : rest >= 32u && out->channels % 4u == 0;
            const int aside = classes == 0 && (!is_whole || loops->place != NULL);
            const uint32_t between = call.lanes > 1u ? 32u : out->channels; /* bytes from group to group */
            uint8_t *const bytes = aside ? (void *)tile : to;
            const uint32_t *columns = x;
            uint32_t own[9];
            job.w = forms + 9u * k;
            if (call.leaves_out != 0 && missing != 0) {
                leave_row_out(own, job.w, missing);
                job.w = own;
            }
            fill_columns(&call, x, from, fill, call.leaves_out != 0 ? job.w : NULL);
            call.each = aside ? 32u : classes != 0 ? 4u * call.words : between;
            job.gap = call.each - loops->stored;
            job.limits = forms + 9u * call.words + call.limits * classes * k;
            if (call.lanes > 1u) {
                merge_columns(&call, merged, x);
                columns = merged;
                for (uint32_t i = 0; i < 9u; i++) {
                    own[i] = job.w[i] * (call.lanes == 2u ? 0x00010001u : 0x01010101u);
                }
                job.w = own;
            }
            if (trits != 0) {
                for (uint32_t i = 0; i < 3u; i++) {
                    from[i] = from[i] != NULL ? from[i] + plane : NULL;
                }
                fill_columns(&call, z, from, second_fill, NULL);
                for (uint32_t i = 0; i < 3u; i++) {
                    from[i] = from[i] != NULL ? from[i] - plane : NULL;
                }
                job.x = columns;
                job.end = (const void *)((const uint8_t *)columns + call.groups * call.advance);
                job.to = sums;
                loops->sum(&job);
                if (call.lanes > 1u) {
                    merge_columns(&call, merged, z);
                } else {
                    columns = z;
                }
            }
            if (call.leaves_out != 0) {
                run_sides(&call, &job, columns, bytes, missing != 0 ? 2u : 3u);
            } else {
                job.taps = FORMS3_TAPS(9u) * 0x01010101u;
                run_groups(&call, &job, columns, bytes, 0, call.groups);
            }
            if (aside && loops->place != NULL) {
                loops->place(tile, is_whole ? (void *)to : x, is_whole ? between : 32u,
                             tile + 8u * call.groups);
            }
            if (aside && !is_whole) { /* the forms are no longer needed */
                const uint8_t *const all = loops->place != NULL ? (void *)x : bytes;
                const uint32_t row = (uint32_t)step->out_width * out->channels;
                const uint32_t part = rest < 32u ? rest : 32u;
                copy_parts(to, between, all, call.lanes > 1u ? row : part,
                           call.lanes > 1u ? 1u : step->out_width);
            }
            to += classes != 0 ? 4 : 32;
            from[0] = from[0] != NULL ? from[0] + 1 : NULL;
            from[1]++;
            from[2] = from[2] != NULL ? from[2] + 1 : NULL;
        }
    }
    return BD_OK;
}

#define FORMS3_KERNEL(name, set, sum_loop, last_loop, stored, place)                                         \
    static bd_status name(const bd_step *step, const uint8_t *constants, const bd_view in[],                 \
                          const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {                  \
        static const forms3_loops loops = {sum_loop, last_loop, stored, place};                              \
        return run_forms3(step, constants, in, out, y0, rows, scratch, &loops);                              \
    }                                                                                                        \
    BD_DEFINE_VARIANT(bd_dw_##name, set, name)

#endif
