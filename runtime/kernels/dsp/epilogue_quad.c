/* Packed epilogue (bd_records.h) by packed SIMD, Armv7E-M: int16 residuals and trunk.
 *
 * A loop takes 8 channels of a pixel, two at a time: products of 32 bits, the upper halves packed into a word, and all else in
 * both halves at once. In assembly, since compilers spill where all 14 registers are in use: r0 records, r1 accumulators,
 * r2 residual, r3 trunk, r4 bits, lr packed output, the others for one pair. The sign bits of a pair are shifted in at 15 and
 * 31 (of the second threshold at 14 and 30), two places a pair, so that 8 pairs leave even channels in the lower half and odd
 * ones in the upper one; the loop ends where a bit that was in r4 at the start falls out.
 *
 * One call of a loop is a row where its operands allow it: of a residual that repeats every 16 channels or a multiple, a call
 * for each repeat; of one of 8 channels added twice, a call for the pixels whose copies fit a buffer. The rest goes pixel by
 * pixel. */
#include "bd_kernels.h"
#include "bd_records.h"

#include <arm_acle.h>

#if defined(__GNUC__)
#    pragma GCC diagnostic ignored "-Woverlength-strings" /* a loop is one string */
#endif

/* Two accumulators to r10 and r11. Of order 1, the channels of 8 are 4 bytes apart and the next 8 begin one byte on. */
#define ACC_WIDE_0                                                                                           \
    "ldrsh r10, [r1], #2\n\t"                                                                                \
    "ldrsh r11, [r1], #2\n\t"
#define ACC_WIDE_1 ACC_WIDE_0
#define ACC_WIDE_2 ACC_WIDE_0
#define ACC_WIDE_3 ACC_WIDE_0
#define ACC_BYTES_0                                                                                          \
    "ldrsb r10, [r1], #1\n\t"                                                                                \
    "ldrsb r11, [r1], #1\n\t"
#define ACC_BYTES_1 ACC_BYTES_0
#define ACC_BYTES_2 ACC_BYTES_0
#define ACC_BYTES_3 ACC_BYTES_0
/* Of 32 bits, shifted by r12, which forms without residual leave alone. */
#define ACC_LONG_0                                                                                           \
    "ldrd r10, r11, [r1], #8\n\t"                                                                            \
    "asr r10, r10, r12\n\t"                                                                                  \
    "asr r11, r11, r12\n\t"                                                                                  \
    "ssat r10, #16, r10\n\t"                                                                                 \
    "ssat r11, #16, r11\n\t"
#define ACC_LONG_1 ACC_LONG_0
#define ACC_LONG_2 ACC_LONG_0
#define ACC_LONG_3 ACC_LONG_0
#define ACC_PLANES_0                                                                                         \
    "ldrsb r10, [r1]\n\t"                                                                                    \
    "ldrsb r11, [r1, #4]\n\t"
#define ACC_PLANES_1                                                                                         \
    "ldrsb r10, [r1, #8]\n\t"                                                                                \
    "ldrsb r11, [r1, #12]\n\t"
#define ACC_PLANES_2                                                                                         \
    "ldrsb r10, [r1, #16]\n\t"                                                                               \
    "ldrsb r11, [r1, #20]\n\t"
#define ACC_PLANES_3                                                                                         \
    "ldrsb r11, [r1, #28]\n\t"                                                                               \
    "ldrsb r10, [r1, #24]\n\t"                                                                               \
    "adds r1, r1, #1\n\t"

/* The first words of a record, and v in r7. */
#define PRODUCTS                                                                                             \
    "mla r7, r10, r5, r7\n\t"                                                                                \
    "mla r8, r11, r6, r8\n\t"
#define FIRST    "ldm r0!, {r5, r6, r7, r8}\n\t"
#define FIRST_M  "ldm r0!, {r5, r6, r7, r8, r9}\n\t"
#define RESIDUAL "ldr r12, [r2], #4\n\t"
#define RESIDUAL_PRODUCTS                                                                                    \
    "smlabb r7, r12, r9, r7\n\t"                                                                             \
    "smlatt r8, r12, r9, r8\n\t"
#define UPPER "pkhtb r7, r8, r7, asr #16\n\t"

/* slope, slope, [keep], low, [high] */
#define SECOND_NO         SECOND_BITS
#define SECOND_BITS       "ldm r0!, {r5, r6, r10}\n\t"
#define SECOND_TRITS      "ldm r0!, {r5, r6, r10, r11}\n\t"
#define SECOND_KEEP_NO    SECOND_KEEP_BITS
#define SECOND_KEEP_BITS  "ldm r0!, {r5, r6, r9, r10}\n\t"
#define SECOND_KEEP_TRITS "ldm r0!, {r5, r6, r9, r10, r11}\n\t"

/* Everything up to v, whose signs are in the GE flags. */
#define SIGNS_OF_V        "sadd16 r8, r7, r7\n\t"
#define V_NONE(acc, bits) FIRST acc PRODUCTS UPPER SECOND_##bits SIGNS_OF_V
#define V_ONE(acc, bits)  FIRST acc PRODUCTS RESIDUAL UPPER SECOND_##bits "qadd16 r7, r7, r12\n\t" SIGNS_OF_V
#define V_ONE_FITS(acc, bits) FIRST acc PRODUCTS RESIDUAL UPPER SECOND_##bits "sadd16 r7, r7, r12\n\t"
#define V_LOW(acc, bits)      FIRST_M acc PRODUCTS RESIDUAL RESIDUAL_PRODUCTS UPPER SECOND_##bits SIGNS_OF_V
#define V_ALL(acc, bits)                                                                                     \
    FIRST_M acc PRODUCTS RESIDUAL RESIDUAL_PRODUCTS UPPER SECOND_##bits "qadd16 r7, r7, r12\n\t" SIGNS_OF_V
#define V_ALL_FITS(acc, bits)                                                                                \
    FIRST_M acc PRODUCTS RESIDUAL RESIDUAL_PRODUCTS UPPER SECOND_##bits "sadd16 r7, r7, r12\n\t"
#define V_NONE_STEEP(acc, bits)  V_NONE(acc, bits)
#define V_MIXED_STEEP(acc, bits) V_MIXED(acc, bits)
#define V_MIXED(acc, bits)                                                                                   \
    FIRST_M acc PRODUCTS RESIDUAL RESIDUAL_PRODUCTS UPPER SECOND_KEEP_##bits                                 \
        "and r12, r12, r9\n\t"                                                                               \
        "qadd16 r7, r7, r12\n\t" SIGNS_OF_V

/* y in r7, stored; its differences from the thresholds, of which the signs are kept. */
#define Y_FLAT                                                                                               \
    "smulwb r5, r5, r7\n\t"                                                                                  \
    "smulwt r6, r6, r7\n\t"                                                                                  \
    "pkhbt r5, r5, r6, lsl #16\n\t"                                                                          \
    "sel r7, r7, r5\n\t"                                                                                     \
    "str r7, [r3], #4\n\t"
#define Y_STEEP                                                                                              \
    "smulwb r5, r5, r7\n\t"                                                                                  \
    "smulwt r6, r6, r7\n\t"                                                                                  \
    "ssat r5, #16, r5\n\t"                                                                                   \
    "ssat r6, #16, r6\n\t"                                                                                   \
    "pkhbt r5, r5, r6, lsl #16\n\t"                                                                          \
    "sel r7, r7, r5\n\t"                                                                                     \
    "str r7, [r3], #4\n\t"
#define Y_NONE        Y_FLAT
#define Y_ONE         Y_FLAT
#define Y_ONE_FITS    Y_FLAT
#define Y_LOW         Y_FLAT
#define Y_ALL         Y_FLAT
#define Y_ALL_FITS    Y_FLAT
#define Y_MIXED       Y_FLAT
#define Y_NONE_STEEP  Y_STEEP
#define Y_MIXED_STEEP Y_STEEP
#define COMPARE_NO
#define COMPARE_BITS                                                                                         \
    "qsub16 r10, r7, r10\n\t"                                                                                \
    "and r10, r10, #0x80008000\n\t"
#define COMPARE_TRITS                                                                                        \
    COMPARE_BITS                                                                                             \
    "qsub16 r11, r7, r11\n\t"                                                                                \
    "and r11, r11, #0x80008000\n\t"                                                                          \
    "orr r10, r10, r11, lsr #1\n\t"
#define SHIFT_NO
#define SHIFT_BITS  "orr r4, r10, r4, lsr #2\n\t"
#define SHIFT_TRITS SHIFT_BITS
#define LAST_NO     "lsrs r4, r4, #8\n\t"
#define LAST_BITS                                                                                            \
    "lsrs r4, r4, #2\n\t"                                                                                    \
    "orr r4, r4, r10\n\t"
#define LAST_TRITS LAST_BITS

/* The bits of 16 channels in natural order, stored. */
#define STORE_NO "add lr, lr, #2\n\t"
#define STORE_BITS                                                                                           \
    "uxth r5, r4\n\t"                                                                                        \
    "lsr r4, r4, #16\n\t"                                                                                    \
    "orr r4, r4, r5, lsr #1\n\t"                                                                             \
    "strh r4, [lr], #2\n\t"
/* One exchange of bits leaves the first threshold's in the upper half and the second's in the lower one. */
#define STORE_TRITS                                                                                          \
    "eor r5, r4, r4, lsr #15\n\t"                                                                            \
    "and r5, r5, #0xaaaaaaaa\n\t"                                                                            \
    "uxth r5, r5\n\t"                                                                                        \
    "ldr r9, [sp, #20]\n\t"                                                                                  \
    "eor r4, r4, r5\n\t"                                                                                     \
    "eor r4, r4, r5, lsl #15\n\t"                                                                            \
    "strh r4, [lr, r9]\n\t"                                                                                  \
    "lsr r4, r4, #16\n\t"                                                                                    \
    "strh r4, [lr], #2\n\t"
/* In front of 16 channels. */
#define BEGIN_WIDE
#define BEGIN_BYTES
#define BEGIN_PLANES
#define BEGIN_LONG "ldr r12, [sp, #28]\n\t"
/* Behind the last 16 of 32 channels in order 1. */
#define NEXT_WIDE
#define NEXT_BYTES
#define NEXT_LONG
#define NEXT_PLANES                                                                                          \
    "tst lr, #2\n\t"                                                                                         \
    "it eq\n\t"                                                                                              \
    "addeq r1, r1, #28\n\t"

#define PAIR(v, acc, bits) V_##v(ACC_##acc, bits) Y_##v COMPARE_##bits
#define FOUR(v, acc, bits, first)                                                                            \
    PAIR(v, acc##_0, bits)                                                                                   \
    first PAIR(v, acc##_1, bits) SHIFT_##bits PAIR(v, acc##_2, bits) SHIFT_##bits PAIR(v, acc##_3, bits)
/* Behind 16 channels, then behind a pixel, from where all goes on at `pixel`. */
#define NEXT(acc, pixel)                                                                                     \
    NEXT_##acc "ldr r5, [sp, #16]\n\t"                                                                       \
               "cmp r0, r5\n\t"                                                                              \
               "bne 1b\n\t"                                                                                  \
               "ldm sp, {r0, r5, r6, r7}\n\t"                                                                \
               "add lr, lr, r6\n\t"                                                                          \
               "add r1, r1, r7\n\t"                                                                          \
               "add r3, r3, r7\n\t"                                                                          \
               "subs r5, r5, #1\n\t"                                                                         \
               "str r5, [sp, #4]\n\t"                                                                        \
               "bne " pixel "\n\t"
#define PIXELS(v, acc, bits)                                                                                 \
    "1:\n\t"                                                                                                 \
    "ldr r4, [sp, #24]\n\t" BEGIN_##acc "2:\n\t" FOUR(v, acc, bits, SHIFT_##bits) LAST_##bits                \
        "bcc 2b\n\t" STORE_##bits                                                                            \
        NEXT(acc, "1b")
/* The same without a loop in the 16, where 8 at a time begin in the middle. */
#define PIXELS_UNROLLED(v, acc, bits)                                                                        \
    "0:\n\t"                                                                                                 \
    "ldr r4, [sp, #24]\n\t"                                                                                  \
    "lsrs r4, r4, #8\n\t"                                                                                    \
    "bcs 2f\n\t"                                                                                             \
    "1:\n\t" FOUR(v, acc, bits, "mov r4, r10\n\t") SHIFT_##bits "2:\n\t" FOUR(v, acc, bits, SHIFT_##bits)    \
        SHIFT_##bits STORE_##bits                                                                            \
        NEXT(acc, "0b")

/* Channels of one pixel, or the same ones of several. The assembly knows the offsets; what it reads seldom it copies to the
 * stack, as no register is left to point there. */
typedef struct job {
    const uint32_t *first; /* record */
    uint32_t pixels;       /* at least 1 */
    uint32_t skip;         /* bytes of packed output behind the channels of a pixel */
    uint32_t skip_wide;    /* the same of the accumulators and of the trunk */
    const uint32_t *end;   /* of the records */
    uint32_t plane;        /* bytes from a packed word to the one of the second plane */
    uint32_t last;         /* the bit that ends the loop: 0x8000 for 16 channels at a time, 0x80 for 8 */
    uint32_t shift;        /* of accumulators of 32 bits */
    const uint8_t *acc;
    const uint8_t *residual;
    uint8_t *trunk, *packed;
} job;

#define FORM_OF(v, acc, bits, pixels)                                                                        \
    static BD_APART void v##_##acc##_##bits(const job *j) {                                                  \
        register const job *at __asm__("r0") = j;                                                            \
        __asm__ volatile("sub sp, sp, #32\n\t"                                                               \
                         "ldm r0!, {r4, r5, r6, r7, r8, r9, r10, r11}\n\t"                                   \
                         "stm sp, {r4, r5, r6, r7, r8, r9, r10, r11}\n\t"                                    \
                         "ldm r0, {r1, r2, r3, lr}\n\t"                                                      \
                         "mov r0, r4\n\t" pixels(v, acc, bits) "add sp, sp, #32"                             \
                         : "+r"(at)                                                                          \
                         :                                                                                   \
                         : "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "lr",  \
                           "cc", "memory");                                                                  \
    }

#define FORM(v, acc, bits)     FORM_OF(v, acc, bits, PIXELS)
#define UNROLLED(v, acc, bits) FORM_OF(v, acc, bits, PIXELS_UNROLLED)

/* Those of which networks of an int16 trunk of proved range consist are unrolled. */
#define FORMS(acc_kind, bits_kind, form)                                                                     \
    FORM(NONE, acc_kind, bits_kind)                                                                          \
    form(ONE, acc_kind, bits_kind) form(ONE_FITS, acc_kind, bits_kind) FORM(LOW, acc_kind, bits_kind)        \
        form(ALL, acc_kind, bits_kind) form(ALL_FITS, acc_kind, bits_kind) FORM(MIXED, acc_kind, bits_kind)  \
            FORM(NONE_STEEP, acc_kind, bits_kind) FORM(MIXED_STEEP, acc_kind, bits_kind)

FORMS(WIDE, NO, FORM)
FORMS(WIDE, BITS, UNROLLED)
FORMS(WIDE, TRITS, UNROLLED)
FORMS(PLANES, BITS, UNROLLED)
FORMS(PLANES, TRITS, FORM)
FORMS(BYTES, BITS, FORM)
FORM(NONE, LONG, NO)
FORM(NONE, LONG, BITS)
FORM(NONE, LONG, TRITS)

typedef void (*form_fn)(const job *j);

enum {
    SUM_NONE,
    SUM_ONE,
    SUM_LOW,
    SUM_ALL,
    SUM_MIXED,
    SUM_ONE_FITS,
    SUM_ALL_FITS,
    SUM_NONE_STEEP,
    SUM_MIXED_STEEP
};
#define ROW(acc, bits)                                                                                       \
    {NONE_##acc##_##bits,     ONE_##acc##_##bits,        LOW_##acc##_##bits,                                 \
     ALL_##acc##_##bits,      MIXED_##acc##_##bits,      ONE_FITS_##acc##_##bits,                            \
     ALL_FITS_##acc##_##bits, NONE_STEEP_##acc##_##bits, MIXED_STEEP_##acc##_##bits}
/* [operands][sum]; the name tells the analysis of the stack what is called. */
static const form_fn bd_loops_quad[6][9] = {ROW(WIDE, NO),     ROW(WIDE, BITS),    ROW(WIDE, TRITS),
                                            ROW(PLANES, BITS), ROW(PLANES, TRITS), ROW(BYTES, BITS)};
/* Accumulators of 32 bits. */
static const form_fn bd_loops_quad_long[3] = {NONE_LONG_NO, NONE_LONG_BITS, NONE_LONG_TRITS};

static uint32_t sum_of(uint32_t form) {
    const uint32_t residual = form & BD_RES;
    if ((form & BD_FORM_STEEP) != 0) {
        return residual == BD_RES_NONE ? SUM_NONE_STEEP : SUM_MIXED_STEEP;
    }
    if ((form & BD_FORM_FITS) != 0 && (residual == BD_RES_ONE || residual == BD_RES_ALL)) {
        return residual == BD_RES_ONE ? SUM_ONE_FITS : SUM_ALL_FITS;
    }
    return residual; /* in the order of BD_RES_* */
}

/* n <= 16 accumulators of pixel x from channel c. */
static BD_APART void widen(int16_t *to, const bd_record_row *r, uint32_t x, uint32_t c, uint32_t n) {
    const size_t at = (size_t)x * r->channels + c;
    const void *acc = r->at.acc;
    const int shift = -r->shift;
    if (r->in[0].order == 1) {
        for (uint32_t i = 0; i < n; i++) {
            to[i] = (int16_t)bd_record_acc(r, x, c + i);
        }
    } else if (r->in[0].dtype == BD_U8) {
        for (uint32_t i = 0; i < n; i++) {
            to[i] = ((const uint8_t *)acc)[at + i];
        }
    } else if (r->in[0].dtype == BD_I8) {
        for (uint32_t i = 0; i < n; i++) {
            to[i] = ((const int8_t *)acc)[at + i];
        }
    } else {
        for (uint32_t i = 0; i < n; i++) {
            to[i] = (int16_t)__ssat(((const int32_t *)acc)[at + i] >> shift, 16);
        }
    }
}

/* One pixel, 16 channels at a time. */
static BD_APART void one_pixel(const bd_record_row *r, form_fn form, uint32_t x) {
    const int widened = r->in[0].dtype != BD_I16;
    const uint32_t eights = r->channels & ~7u;
    int16_t acc[16], unread[16], other[16];
    uint32_t *b = NULL, *a = NULL, none = 0;
    job j;
    j.plane = 0;
    j.skip = 0;
    j.skip_wide = 0;
    j.shift = 0;
    j.residual = NULL;
    if (r->at.packed != NULL) {
        a = bd_packed_at(&r->out[1], r->at.packed, x, 0, &b);
        j.plane = b != NULL ? (uint32_t)((uint8_t *)b - (uint8_t *)a) : 0;
    }
    for (uint32_t c = 0; c < eights; c += 16) {
        const uint32_t n = eights - c < 16u ? 8u : 16u;
        const size_t at = (size_t)x * r->channels + c;
        j.first = r->records + c / 2u * r->words;
        j.end = j.first + n / 2u * r->words;
        j.acc = r->at.acc + 2u * at;
        if (widened) {
            widen(acc, r, x, c, n);
            j.acc = (const uint8_t *)acc;
        }
        if (r->at.residual != NULL) {
            const uint32_t own = r->in[1].channels, begin = c % own;
            const int16_t *from =
                (const int16_t *)(const void *)r->at.residual + (r->in[1].width == 1u ? 0 : x) * own;
            j.residual = (const uint8_t *)(from + begin);
            if (begin + n > own) { /* repeated within the 16 */
                for (uint32_t i = 0, k = begin; i < n; i++) {
                    other[i] = from[k];
                    k = k + 1u == own ? 0 : k + 1u;
                }
                j.residual = (const uint8_t *)other;
            }
        }
        j.trunk = r->at.trunk != NULL ? r->at.trunk + 2u * at : (uint8_t *)unread;
        j.packed = a != NULL ? (uint8_t *)a + c / 8u : (uint8_t *)&none;
        j.last = n == 16u ? 0x8000u : 0x80u;
        j.pixels = 1;
        if (c % 32u == 0 && a != NULL) {
            a[c / 32u] = 0;
            a[c / 32u + j.plane / 4u] = 0;
        }
        form(&j);
        if (n == 8u && a != NULL) { /* they lie in the upper byte of the half */
            uint16_t *half = (uint16_t *)(void *)j.packed, *second = (uint16_t *)(void *)(j.packed + j.plane);
            *half = (uint16_t)(*half >> 8);
            if (second != half) {
                *second = (uint16_t)(*second >> 8);
            }
        }
    }
    if (eights != r->channels) {
        bd_quad_channels(r, x, eights);
    }
}

/* Copies 8 residuals of each pixel, each pixel twice. */
static BD_APART void repeat_twice(uint32_t *to, const uint32_t *from, uint32_t pixels) {
    for (; pixels != 0; pixels--, from += 4, to += 8) {
        const uint32_t a = from[0], b = from[1], c = from[2], d = from[3];
        to[0] = a;
        to[1] = b;
        to[2] = c;
        to[3] = d;
        to[4] = a;
        to[5] = b;
        to[6] = c;
        to[7] = d;
    }
}

/* Words of which the loop stores only the lower halves. */
static BD_APART void clear_words(uint32_t *words, uint32_t n) {
    for (; n >= 4u; n -= 4u, words += 4) {
        words[0] = words[1] = words[2] = words[3] = 0;
    }
    for (; n != 0; n--) {
        *words++ = 0;
    }
}

/* Of words that got the bits of 8 channels in bits 8 .. 15, those in their place and 0 elsewhere. */
static BD_APART void settle_eights(uint32_t *words, uint32_t n) {
    for (; n >= 2u; n -= 2u, words += 2) {
        words[0] = (words[0] >> 8) & 0xffu;
        words[1] = (words[1] >> 8) & 0xffu;
    }
    if (n != 0) {
        words[0] = (words[0] >> 8) & 0xffu;
    }
}

#define COPIES 128u /* residuals */

static bd_status epilogue(const bd_step *step, const uint8_t *constants, const bd_view in[],
                          const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    bd_record_row r = bd_quad_row(step, constants, in, out);
    const uint32_t channels = r.channels, width = step->out_width, words = bd_words(channels);
    const uint32_t order = in[0].order, last = channels % 32u; /* of a word: all, half or 8 of it */
    const uint32_t bits = out[1].rows_held == 0 ? 0 : (r.form & BD_FORM_TRITS) != 0 ? 2 : 1;
    /* Channels that the residual has; of a call; pixels of a call. */
    const uint32_t own = in[1].rows_held != 0 ? in[1].channels : channels;
    uint32_t once = channels, most = width, acc_bytes = 1;
    const form_fn *forms = &bd_loops_quad[bits][sum_of(r.form)];
    form_fn form = *forms;
    int whole = 0;
    if (last == 0 || ((last == 16u || channels == 8u) && order == 0)) {
        if (in[0].dtype == BD_I16) {
            acc_bytes = 2;
            whole = 1;
        } else if (in[0].dtype == BD_I32) {
            acc_bytes = 4;
            whole = (r.form & (BD_RES | BD_FORM_STEEP)) == BD_RES_NONE;
            form = whole ? bd_loops_quad_long[bits] : form;
        } else if (in[0].dtype == BD_I8 && (order == 1 ? bits != 0 : bits == 1u)) {
            whole = 1;
            form = order == 1 ? forms[2 * 9] : forms[4 * 9];
        }
    }
    if (own != channels) {
        if (own == 8u && channels == 16u) {
            most = COPIES / 16u;
        } else if (own % 16u == 0 && channels % own == 0) {
            once = own;
        } else {
            whole = 0;
        }
        whole = whole && acc_bytes == 2u;
    }
    if (out[0].rows_held == 0 || (in[1].rows_held != 0 && in[1].width != width)) {
        whole = 0;
    }
    if (!whole) {
        form = *forms;
        for (uint32_t y = y0; y < y0 + rows; y++) {
            r.at = bd_rows_of(in, out, y);
            for (uint32_t x = 0; x < width; x++) {
                one_pixel(&r, form, x);
            }
        }
        return BD_OK;
    }
    (void)scratch;
    uint32_t copies[COPIES / 2u];
    job j;
    j.skip = 4u * words - (once > 8u ? once / 8u : 2u);
    j.skip_wide = 2u * (channels - once);
    j.plane = 4u * width * words;
    j.last = channels == 8u ? 0x80u : 0x8000u;
    j.shift = (uint32_t)-r.shift;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const bd_epilogue_rows at = bd_rows_of(in, out, y);
        uint32_t left = width;
        if (last == 16u && bits != 0) {
            clear_words((uint32_t *)(void *)at.packed, width * words * bits);
        }
        j.acc = at.acc;
        j.residual = at.residual;
        j.trunk = at.trunk;
        j.packed = at.packed;
        j.end = r.records;
        do { /* pixels, or channels of all pixels */
            const uint8_t *residual = j.residual;
            j.pixels = left < most ? left : most;
            j.first = j.end;
            j.end = j.first + once / 2u * r.words;
            if (own == channels) {
                form(&j);
                break;
            }
            if (once == channels) {
                repeat_twice(copies, (const uint32_t *)(const void *)residual, j.pixels);
                j.residual = (const uint8_t *)copies;
                form(&j);
                left -= j.pixels;
                j.residual = residual + 16u * j.pixels;
                j.acc += 32u * j.pixels;
                j.trunk += 32u * j.pixels;
                j.packed = bits != 0 ? j.packed + 4u * j.pixels : j.packed;
                j.end = r.records;
            } else {
                form(&j);
                j.acc += 2u * once;
                j.trunk += 2u * once;
                j.packed = bits != 0 ? j.packed + once / 8u : j.packed;
                left = j.trunk != at.trunk + 2u * channels ? width : 0;
            }
        } while (left != 0);
        if (channels == 8u && bits != 0) {
            settle_eights((uint32_t *)(void *)at.packed, width * bits);
        }
    }
    return BD_OK;
}

BD_DEFINE_VARIANT(bd_epilogue_i16__quad, dsp, epilogue)
