/* bd_permute_<dtype>: all elements of a map in another order. Transposes, reshapes, pixel shuffles.
 *
 * step->weights, uint16_t: how many digits; then per digit its size and the rows, pixels and channels of in[0] from one
 * value of it to the next. The output in row-major order counts through the digits, the last one fastest. No place
 * leaves the map without a carry: rows, pixels and channels stay in their ranges each by itself.
 *
 * One call makes the whole map. */
#include "bd_check.h"
#include "bd_kernels.h"
#include "bd_move.h"

#define MAX_DIGITS 6u

/* Places in both maps, and the counter over the digits. */
typedef struct walk {
    const uint16_t *digits; /* of four numbers each */
    uint32_t count, run;    /* digits that count one by one, elements that lie together in the last one */
    uint32_t at[MAX_DIGITS];
    uint32_t row, pixel, channel; /* in[0] */
    uint32_t y, x, c;             /* out[0] */
} walk;

static walk begin(const bd_step *step, const uint8_t *constants) {
    const uint16_t *blob = (const void *)(constants + step->weights);
    walk w = {0};
    w.digits = blob + 1;
    w.count = blob[0];
    w.run = 1;
    const uint16_t *last = w.digits + (size_t)4u * (w.count - 1u);
    if (last[1] == 0 && last[2] == 0 && last[3] == 1) {
        w.run = last[0];
        w.count--;
    }
    return w;
}

/* To the next run; 0 behind the last one. */
static int next(walk *w) {
    for (uint32_t d = w->count; d-- > 0;) {
        const uint16_t *digit = w->digits + (size_t)4u * d;
        w->row += digit[1];
        w->pixel += digit[2];
        w->channel += digit[3];
        if (++w->at[d] < digit[0]) {
            return 1;
        }
        w->row -= (uint32_t)digit[0] * digit[1];
        w->pixel -= (uint32_t)digit[0] * digit[2];
        w->channel -= (uint32_t)digit[0] * digit[3];
        w->at[d] = 0;
    }
    return 0;
}

/* The next `n` channels of the output's pixel are made. */
static void made(walk *w, const bd_view *out, uint32_t n) {
    w->c += n;
    if (w->c == out->channels) {
        w->c = 0;
        if (++w->x == out->width) {
            w->x = 0;
            w->y++;
        }
    }
}

static uint32_t room(const walk *w, const bd_view *out, uint32_t left) {
    const uint32_t in_pixel = out->channels - w->c;
    return left < in_pixel ? left : in_pixel;
}

BD_INLINE void permute_elements(const bd_step *step, const uint8_t *constants, const bd_view in[],
                                const bd_view out[], uint32_t bytes) {
    walk w = begin(step, constants);
    do {
        const uint8_t *from =
            bd_row(in, w.row) + ((size_t)w.pixel * in->channels + w.channel) * (size_t)bytes;
        for (uint32_t left = w.run; left != 0;) {
            const uint32_t n = room(&w, out, left);
            uint8_t *to = bd_row(out, w.y) + ((size_t)w.x * out->channels + w.c) * (size_t)bytes;
            bd_move_elements(to, from, n, bytes);
            from += (size_t)n * bytes;
            left -= n;
            made(&w, out, n);
        }
    } while (next(&w));
}

static bd_status permute_packed(const bd_step *step, const uint8_t *constants, const bd_view in[],
                                const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    const uint32_t in_words = bd_words(in->channels), out_words = bd_words(out->channels);
    const uint32_t planes = bd_planes(out->dtype);
    (void)scratch;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        bd_clear_words((void *)bd_row(out, y), planes * out->width * out_words);
    }
    walk w = begin(step, constants);
    do {
        for (uint32_t done = 0; done < w.run;) {
            const uint32_t n = room(&w, out, w.run - done);
            const uint32_t *from = (const void *)bd_row(in, w.row);
            uint32_t *to = (void *)bd_row(out, w.y);
            from += (size_t)w.pixel * in_words;
            to += (size_t)w.x * out_words;
            for (uint32_t p = 0; p < planes; p++) {
                bd_move_bits(to, w.c, from, w.channel + done, n);
                from += (size_t)in->width * in_words;
                to += (size_t)out->width * out_words;
            }
            done += n;
            made(&w, out, n);
        }
    } while (next(&w));
    return BD_OK;
}

#define PERMUTE(bytes)                                                                                       \
    static bd_status permute_##bytes(const bd_step *step, const uint8_t *constants, const bd_view in[],      \
                                     const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {       \
        (void)y0, (void)rows, (void)scratch;                                                                 \
        permute_elements(step, constants, in, out, bytes);                                                   \
        return BD_OK;                                                                                        \
    }

PERMUTE(4)
PERMUTE(2)
PERMUTE(1)

/* As many elements as the output has, each from a place in the input. */
static int digits_fit(const uint16_t *digits, uint32_t count, const bd_view *in, const bd_view *out) {
    const uint64_t elements = (uint64_t)out->height * out->width * out->channels; /* below 2**48 */
    uint64_t total = 1, row = 0, pixel = 0, channel = 0;
    for (uint32_t i = 0; i < count; i++, digits += 4) {
        if (digits[0] == 0) {
            return 0;
        }
        total *= digits[0]; /* below 2**64: it was below 2**48 */
        if (total > elements) {
            return 0;
        }
        row += (uint64_t)(digits[0] - 1) * digits[1];
        pixel += (uint64_t)(digits[0] - 1) * digits[2];
        channel += (uint64_t)(digits[0] - 1) * digits[3];
    }
    return total == elements && row < in->height && pixel < in->width && channel < in->channels;
}

static bd_status check(const bd_step *step, const uint8_t *constants, const bd_view in[], const bd_view out[],
                       uint32_t dtype) {
    if (!bd_is(in, dtype) || !bd_is_absent(&in[1]) || !bd_is(out, dtype) || !bd_is_output(step, out) ||
        step->kind != BD_STEP_WHOLE || step->weights == BD_ABSENT || step->weights_size < 2u) {
        return BD_ERROR_STEP;
    }
    const uint16_t *blob = (const void *)(constants + step->weights);
    const int fits = blob[0] != 0 && blob[0] <= MAX_DIGITS && step->weights_size == 2u + 8u * blob[0] &&
                     digits_fit(blob + 1, blob[0], in, out);
    return fits ? BD_OK : BD_ERROR_STEP;
}

#define KERNEL(name, run, dtype)                                                                             \
    static bd_status check_##name(const bd_step *step, const uint8_t *constants, uint32_t constants_size,    \
                                  const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {        \
        (void)constants_size, (void)scratch_bytes;                                                           \
        return check(step, constants, in, out, dtype);                                                       \
    }                                                                                                        \
    BD_DEFINE_KERNEL(bd_##name, run, check_##name)

KERNEL(permute_f32, permute_4, BD_F32)
KERNEL(permute_i32, permute_4, BD_I32)
KERNEL(permute_i16, permute_2, BD_I16)
KERNEL(permute_i8, permute_1, BD_I8)
KERNEL(permute_u8, permute_1, BD_U8)
KERNEL(permute_bit, permute_packed, BD_BIT)
KERNEL(permute_trit, permute_packed, BD_TRIT)
KERNEL(permute_ubit, permute_packed, BD_UBIT)
