/* Packed epilogue (bd_records.h) channel by channel, Armv6-M: int16 residuals and trunk.
 *
 * Channels descend, so that bits shifted in from below end in natural order; 8 of them are one round of a loop in assembly, as
 * compilers spill and branch on data here. r0 records, r8 their end, r1 bits of the first threshold, r11 those of the second,
 * r2 accumulators of 8 and 32 bits, r7 trunk, r2 and r4 how far accumulators of 16 bits and residuals are from the trunk. A
 * sign of the first threshold is shifted in by way of the carry, and the loop ends where the bit that r1 began with falls out.
 *
 * One call of a loop is a row where its operands allow it: of a residual of 8 or 16 channels that is added twice, the pixels
 * whose copies fit a buffer; of one that repeats every 32 or a multiple, one repeat. The rest goes pixel by pixel. */
#include "bd_kernels.h"
#include "bd_records.h"

#if defined(__GNUC__)
#    pragma GCC diagnostic ignored "-Woverlength-strings" /* a loop is one string */
#endif

/* Accumulators in order 1 are the counts of the depth-wise kernels of Armv6-M, elsewhere their values. */
#ifndef BD_EPILOGUE_WORD_SET
#    define BD_EPILOGUE_WORD_SET    v6m
#    define BD_EPILOGUE_WORD_COUNTS 1
#endif

/* The accumulator of channel i of 8 to r3. */
#define ACC_WIDE(i) "ldrsh r3, [r2, r7]\n\t"
#if BD_EPILOGUE_WORD_COUNTS
#    define PLANES_DTYPE BD_U8
#    define EXTENDED
#else
#    define PLANES_DTYPE BD_I8
#    define EXTENDED     "sxtb r3, r3\n\t"
#endif
#define ACC_PLANES(i) "ldrb r3, [r2, #(4 * " #i ")]\n\t" EXTENDED
#define ACC_BYTES(i)                                                                                         \
    "ldrb r3, [r2, #(" #i ")]\n\t"                                                                           \
    "sxtb r3, r3\n\t"
/* Of 32 bits, shifted by r4, which forms without residual leave alone, and saturated. */
#define ACC_LONG(i)                                                                                          \
    "ldr r5, [r2, #(4 * " #i ")]\n\t"                                                                        \
    "asrs r5, r4\n\t"                                                                                        \
    "asrs r6, r5, #31\n\t"                                                                                   \
    "eors r5, r6\n\t"                                                                                        \
    "lsrs r3, r5, #15\n\t"                                                                                   \
    "rsbs r3, r3, #0\n\t"                                                                                    \
    "asrs r3, r3, #31\n\t"                                                                                   \
    "orrs r5, r3\n\t"                                                                                        \
    "lsls r5, r5, #17\n\t"                                                                                   \
    "lsrs r3, r5, #17\n\t"                                                                                   \
    "eors r3, r6\n\t"
/* At the begin: r2 is the address of accumulators, and r3 how far from the trunk they are. */
#define ENTER_WIDE "mov r2, r3\n\t"
#define ENTER_PLANES
#define ENTER_BYTES
#define ENTER_LONG
/* At the begin of 8 channels. */
#define EIGHT_WIDE
#define EIGHT_BYTES  "subs r2, #8\n\t"
#define EIGHT_LONG   "subs r2, #32\n\t"
#define EIGHT_PLANES "subs r2, #1\n\t"
/* A residual. */
#define OTHER(r) "ldrsh " #r ", [r4, r7]\n\t"

/* To 16 bits, of a number of 17 in r5; r3 and r6 are lost. Without its sign, one beyond 15 bits becomes 15 ones. */
#define SATURATE                                                                                             \
    "asrs r3, r5, #31\n\t"                                                                                   \
    "eors r5, r3\n\t"                                                                                        \
    "lsls r6, r5, #16\n\t"                                                                                   \
    "asrs r6, r6, #31\n\t"                                                                                   \
    "orrs r5, r6\n\t"                                                                                        \
    "lsls r5, r5, #17\n\t"                                                                                   \
    "lsrs r5, r5, #17\n\t"                                                                                   \
    "eors r5, r3\n\t"

/* v in r5, slope - 65536 in r3. */
#define PRODUCT                                                                                              \
    "ldmia r0!, {r5}\n\t"                                                                                    \
    "muls r5, r3, r5\n\t"                                                                                    \
    "ldmia r0!, {r3, r6}\n\t"                                                                                \
    "adds r5, r5, r6\n\t"                                                                                    \
    "asrs r5, r5, #16\n\t"
#define V_NONE     PRODUCT
#define V_ONE_FITS PRODUCT OTHER(r6) "adds r5, r5, r6\n\t"
#define V_ONE                                                                                                \
    "ldmia r0!, {r5}\n\t"                                                                                    \
    "muls r5, r3, r5\n\t"                                                                                    \
    "ldr r6, [r0, #4]\n\t"                                                                                   \
    "adds r5, r5, r6\n\t"                                                                                    \
    "asrs r5, r5, #16\n\t" OTHER(r6) "adds r5, r5, r6\n\t" SATURATE "ldmia r0!, {r3, r6}\n\t"
#define V_WIDE                                                                                               \
    "ldmia r0!, {r5, r6}\n\t"                                                                                \
    "muls r5, r3, r5\n\t" OTHER(r3) "muls r6, r3, r6\n\t"                                                    \
                                    "adds r5, r5, r6\n\t"                                                    \
                                    "ldmia r0!, {r3, r6}\n\t"                                                \
                                    "adds r5, r5, r6\n\t"                                                    \
                                    "asrs r5, r5, #16\n\t"
#define V_MIXED_STEEP                                                                                        \
    "ldmia r0!, {r5, r6}\n\t"                                                                                \
    "muls r5, r3, r5\n\t" OTHER(r3) "muls r6, r3, r6\n\t"                                                    \
                                    "adds r5, r5, r6\n\t"                                                    \
                                    "ldr r6, [r0, #4]\n\t"                                                   \
                                    "adds r5, r5, r6\n\t"                                                    \
                                    "asrs r5, r5, #16\n\t"                                                   \
                                    "ldr r6, [r0, #8]\n\t"                                                   \
                                    "ands r6, r3\n\t"                                                        \
                                    "adds r5, r5, r6\n\t" SATURATE
#define V_MIXED V_MIXED_STEEP "ldmia r0!, {r3, r6}\n\tadds r0, #4\n\t"
#define V_NONE_STEEP                                                                                         \
    "ldmia r0!, {r5}\n\t"                                                                                    \
    "muls r5, r3, r5\n\t"                                                                                    \
    "ldr r6, [r0, #4]\n\t"                                                                                   \
    "adds r5, r5, r6\n\t"                                                                                    \
    "asrs r5, r5, #16\n\t"

/* y in r5, stored, then compared. */
#define Y_FLAT                                                                                               \
    "asrs r6, r5, #31\n\t"                                                                                   \
    "ands r6, r5\n\t"                                                                                        \
    "muls r6, r3, r6\n\t"                                                                                    \
    "lsrs r6, r6, #16\n\t"                                                                                   \
    "adds r5, r5, r6\n\t"
/* From r0 on: m of the slope, add, [keep], k of the slope at `k`, and then the thresholds. */
#define Y_STEEP_AT(k)                                                                                        \
    "asrs r6, r5, #31\n\t"                                                                                   \
    "ands r6, r5\n\t"                                                                                        \
    "subs r5, r5, r6\n\t"                                                                                    \
    "ldr r3, [r0]\n\t"                                                                                       \
    "muls r3, r6, r3\n\t"                                                                                    \
    "asrs r3, r3, #16\n\t"                                                                                   \
    "adds r5, r5, r3\n\t"                                                                                    \
    "ldr r3, [r0, #" #k "]\n\t"                                                                              \
    "muls r6, r3, r6\n\t"                                                                                    \
    "adds r5, r5, r6\n\t" SATURATE "adds r0, #(4 + " #k ")\n\t"
#define Y_NONE        Y_FLAT
#define Y_ONE         Y_FLAT
#define Y_ONE_FITS    Y_FLAT
#define Y_WIDE        Y_FLAT
#define Y_MIXED       Y_FLAT
#define Y_NONE_STEEP  Y_STEEP_AT(8)
#define Y_MIXED_STEEP Y_STEEP_AT(12)
#define COMPARE_NO    "adds r0, #4\n\t"
#define COMPARE_BITS                                                                                         \
    "ldmia r0!, {r6}\n\t"                                                                                    \
    "subs r5, r5, r6\n\t"                                                                                    \
    "lsls r5, r5, #1\n\t"                                                                                    \
    "adcs r1, r1\n\t"
#define COMPARE_TRITS                                                                                        \
    "ldmia r0!, {r3, r6}\n\t"                                                                                \
    "subs r6, r5, r6\n\t"                                                                                    \
    "lsrs r6, r6, #31\n\t"                                                                                   \
    "add r11, r11\n\t"                                                                                       \
    "add r11, r6\n\t"                                                                                        \
    "subs r5, r5, r3\n\t"                                                                                    \
    "lsls r5, r5, #1\n\t"                                                                                    \
    "adcs r1, r1\n\t"

#define ELEMENT(v, acc, bits, i) "subs r7, #2\n\t" ACC_##acc(i) V_##v Y_##v "strh r5, [r7]\n\t" COMPARE_##bits
#define EIGHT(v, acc, bits)                                                                                  \
    EIGHT_##acc ELEMENT(v, acc, bits, 7) ELEMENT(v, acc, bits, 6) ELEMENT(v, acc, bits, 5)                   \
        ELEMENT(v, acc, bits, 4) ELEMENT(v, acc, bits, 3) ELEMENT(v, acc, bits, 2) ELEMENT(v, acc, bits, 1)  \
            ELEMENT(v, acc, bits, 0)
#define LAST_NO "lsls r1, r1, #8\n\t"
#define LAST_BITS
#define LAST_TRITS
#define BEGIN_NO   "ldr r1, [sp, #8]\n\t"
#define BEGIN_BITS BEGIN_NO
#define BEGIN_TRITS                                                                                          \
    BEGIN_NO "ldr r3, [sp, #12]\n\t"                                                                         \
             "mov r11, r3\n\t"
#define END_NO
#define END_BITS                                                                                             \
    "ldr r3, [sp, #20]\n\t"                                                                                  \
    "stmia r3!, {r1}\n\t"                                                                                    \
    "str r3, [sp, #20]\n\t"
#define END_TRITS                                                                                            \
    "ldr r3, [sp, #20]\n\t"                                                                                  \
    "ldr r5, [sp, #16]\n\t"                                                                                  \
    "mov r6, r11\n\t"                                                                                        \
    "str r6, [r3, r5]\n\t"                                                                                   \
    "stmia r3!, {r1}\n\t"                                                                                    \
    "str r3, [sp, #20]\n\t"
/* Behind a word; r9: twice the bytes of its trunk. */
#define NEXT_WIDE
#define NEXT_PLANES "adds r2, #36\n\t"
#define NEXT_BYTES                                                                                           \
    "mov r3, r9\n\t"                                                                                         \
    "lsrs r3, r3, #1\n\t"                                                                                    \
    "adds r2, r2, r3\n\t"
#define NEXT_LONG                                                                                            \
    "add r2, r9\n\t"                                                                                         \
    "add r2, r9\n\t"

/* Words of a pixel, pixels of a row. */
#define PIXELS(v, acc, bits)                                                                                 \
    "1:\n\t" BEGIN_##bits "2:\n\t" EIGHT(v, acc, bits) LAST_##bits "bcs 3f\n\t"                              \
                                                                   "b 2b\n\t"                                \
                                                                   "3:\n\t" END_##bits                       \
        "add r7, r9\n\t" NEXT_##acc "cmp r0, r8\n\t"                                                         \
                                    "beq 4f\n\t"                                                             \
                                    "b 1b\n\t"                                                               \
                                    "4:\n\t"                                                                 \
                                    "ldr r0, [sp]\n\t"                                                       \
                                    "ldr r3, [sp, #24]\n\t"                                                  \
                                    "subs r3, #1\n\t"                                                        \
                                    "str r3, [sp, #24]\n\t"                                                  \
                                    "beq 5f\n\t"                                                             \
                                    "b 1b\n\t"                                                               \
                                    "5:\n\t"

/* Up to 32 channels of one pixel, a multiple of 8, or all of several pixels whose operands lie behind one another, up to 32 of
 * them or a multiple. The assembly knows the offsets. */
typedef struct job {
    const uint32_t *first, *end; /* records */
    uint32_t begin;              /* bits of higher channels of the word, and a bit 2**(32 - channels) */
    uint32_t begin_high;         /* of the second plane, bits of higher channels of the word */
    uint32_t plane;              /* bytes from a packed word to the one of the second plane */
    uint32_t *packed;
    uint32_t pixels;    /* at least 1 */
    const uint8_t *acc; /* like the trunk; order 1: behind the first byte of each eight; 16 bits: not read */
    uint32_t to_acc;    /* from the trunk, bytes */
    uint32_t to_other;  /* the same of the residual; for accumulators of 32 bits their shift */
    uint32_t step;      /* from a word's first channel in the trunk to behind the next word's, bytes */
    uint8_t *trunk;     /* behind the channels of the first word */
} job;

#define FORM(v, acc, bits)                                                                                   \
    static BD_APART void v##_##acc##_##bits(const job *j) {                                                  \
        register const job *at __asm__("r0") = j;                                                            \
        __asm__ volatile("sub sp, #32\n\t"                                                                   \
                         "ldmia r0!, {r1, r2, r3, r4, r5, r6, r7}\n\t"                                       \
                         "str r1, [sp]\n\t"                                                                  \
                         "mov r8, r2\n\t"                                                                    \
                         "str r3, [sp, #8]\n\t"                                                              \
                         "str r4, [sp, #12]\n\t"                                                             \
                         "str r5, [sp, #16]\n\t"                                                             \
                         "str r6, [sp, #20]\n\t"                                                             \
                         "str r7, [sp, #24]\n\t"                                                             \
                         "ldmia r0!, {r2, r3, r4, r5, r7}\n\t"                                               \
                         "mov r9, r5\n\t" ENTER_##acc "mov r0, r1\n\t" PIXELS(v, acc, bits) "add sp, #32"    \
                         : "+r"(at)                                                                          \
                         :                                                                                   \
                         : "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r11", "cc", "memory");     \
    }

#define FORMS(acc_kind, bits_kind)                                                                           \
    FORM(NONE, acc_kind, bits_kind)                                                                          \
    FORM(ONE, acc_kind, bits_kind)                                                                           \
    FORM(ONE_FITS, acc_kind, bits_kind)                                                                      \
    FORM(MIXED, acc_kind, bits_kind)                                                                         \
    FORM(WIDE, acc_kind, bits_kind)                                                                          \
    FORM(NONE_STEEP, acc_kind, bits_kind)                                                                    \
    FORM(MIXED_STEEP, acc_kind, bits_kind)

FORMS(WIDE, NO)
FORMS(WIDE, BITS)
FORMS(WIDE, TRITS)
FORMS(PLANES, BITS)
FORMS(PLANES, TRITS)
FORMS(BYTES, BITS)
FORM(NONE, LONG, NO)
FORM(NONE, LONG, BITS)
FORM(NONE, LONG, TRITS)

typedef void (*form_fn)(const job *j);

enum { SUM_NONE, SUM_ONE, SUM_ONE_FITS, SUM_MIXED, SUM_WIDE, SUM_NONE_STEEP, SUM_MIXED_STEEP };
#define ROW(acc, bits)                                                                                       \
    {NONE_##acc##_##bits, ONE_##acc##_##bits,        ONE_FITS_##acc##_##bits,   MIXED_##acc##_##bits,        \
     WIDE_##acc##_##bits, NONE_STEEP_##acc##_##bits, MIXED_STEEP_##acc##_##bits}
/* [operands][sum] */
static const form_fn bd_loops_word[6][7] = {ROW(WIDE, NO),     ROW(WIDE, BITS),    ROW(WIDE, TRITS),
                                            ROW(PLANES, BITS), ROW(PLANES, TRITS), ROW(BYTES, BITS)};
/* Accumulators of 32 bits. */
static const form_fn bd_loops_word_long[3] = {NONE_LONG_NO, NONE_LONG_BITS, NONE_LONG_TRITS};

static uint32_t sum_of(uint32_t form) {
    if ((form & BD_FORM_STEEP) != 0) {
        return (form & BD_RES) == BD_RES_NONE ? SUM_NONE_STEEP : SUM_MIXED_STEEP;
    }
    switch (form & BD_RES) {
    case BD_RES_NONE:
        return SUM_NONE;
    case BD_RES_ONE:
        return (form & BD_FORM_FITS) != 0 ? SUM_ONE_FITS : SUM_ONE;
    case BD_RES_MIXED:
        return SUM_MIXED;
    default:
        return SUM_WIDE;
    }
}

static uint32_t distance(const void *to, const void *from) {
    return (uint32_t)(uintptr_t)to - (uint32_t)(uintptr_t)from;
}

/* n <= 32 accumulators of pixel x from channel c. */
static BD_APART void widen(int16_t *to, const bd_record_row *r, uint32_t x, uint32_t c, uint32_t n) {
    const size_t at = (size_t)x * r->channels + c;
    const int shift = -r->shift;
    if (r->in[0].order == 1 || r->in[0].dtype == BD_U8) {
        for (uint32_t i = 0; i < n; i++) {
            to[i] = (int16_t)bd_record_acc(r, x, c + i);
        }
    } else if (r->in[0].dtype == BD_I8) {
        const int8_t *acc = (const int8_t *)(const void *)r->at.acc + at;
        for (uint32_t i = 0; i < n; i++) {
            to[i] = acc[i];
        }
    } else {
        const int32_t *acc = (const int32_t *)(const void *)r->at.acc + at;
        for (uint32_t i = 0; i < n; i++) {
            to[i] = (int16_t)bd_saturate16(acc[i] >> shift);
        }
    }
}

/* One pixel, word by word. */
static BD_APART void one_pixel(const bd_record_row *r, form_fn form, uint32_t x) {
    const int widened = r->in[0].dtype != BD_I16;
    const uint32_t channels = r->channels;
    uint32_t acc[16], unread[16], other[16], none = 0;
    uint32_t *b = NULL, *a = NULL;
    job j;
    j.plane = 0;
    j.acc = NULL;
    j.to_other = 0;
    j.step = 0;
    if (r->at.packed != NULL) {
        a = bd_packed_at(&r->out[1], r->at.packed, x, 0, &b);
        j.plane = b != NULL ? distance(b, a) : 0;
    }
    if (channels % 8u != 0) { /* the last channels, whose bits go in front of those below them */
        if (a != NULL) {
            a[channels / 32u] = 0;
            a[channels / 32u + j.plane / 4u] = 0;
        }
        bd_word_channels(r, x, channels & ~7u);
    }
    const uint32_t *records = r->records;
    for (uint32_t c = 0; c < channels; c += 32u) {
        const uint32_t left = channels - c, all = left < 32u ? left : 32u, n = all & ~7u;
        const size_t at = (size_t)x * channels + c;
        const uint32_t word = c / 32u;
        j.first = records + (all - n) * r->words;
        records += all * r->words;
        j.end = records;
        if (n == 0) {
            break;
        }
        uint8_t *trunk = r->at.trunk != NULL ? r->at.trunk + 2u * at : (uint8_t *)unread;
        j.begin = 1u << (32u - n);
        j.begin_high = 0;
        j.packed = a != NULL ? a + word : &none;
        if (a != NULL && n != all) {
            j.begin |= a[word] >> n;
            j.begin_high = b != NULL ? b[word] >> n : 0;
        }
        j.pixels = 1;
        j.trunk = trunk + 2u * n;
        if (r->at.residual != NULL) {
            const uint32_t own = r->in[1].channels, begin = c % own;
            const int16_t *from =
                (const int16_t *)(const void *)r->at.residual + (r->in[1].width == 1u ? 0 : x) * own;
            const void *residual = from + begin;
            if (begin + n > own || own % 2u != 0) { /* repeated within the word, or not aligned */
                for (uint32_t i = 0, k = begin; i < n; i++) {
                    ((int16_t *)(void *)other)[i] = from[k];
                    k = k + 1u == own ? 0 : k + 1u;
                }
                residual = other;
            }
            j.to_other = distance(residual, trunk);
        }
        j.to_acc = distance(r->at.acc + 2u * at, trunk);
        if (widened) {
            widen((int16_t *)(void *)acc, r, x, c, n);
            j.to_acc = distance(acc, trunk);
        }
        form(&j);
    }
}

/* Copies own residuals (8 or 16) of each pixel, each pixel twice. */
static BD_APART void repeat_twice(void *copies, const void *residual, uint32_t pixels, uint32_t own) {
    if (own == 8u) {
        __asm__ volatile("1:\n\t"
                         "ldmia %1!, {r4, r5, r6, r7}\n\t"
                         "stmia %0!, {r4, r5, r6, r7}\n\t"
                         "stmia %0!, {r4, r5, r6, r7}\n\t"
                         "subs %2, %2, #1\n\t"
                         "bne 1b"
                         : "+l"(copies), "+l"(residual), "+l"(pixels)
                         :
                         : "r4", "r5", "r6", "r7", "cc", "memory");
    } else {
        __asm__ volatile("1:\n\t"
                         "ldmia %1!, {r4, r5, r6, r7}\n\t"
                         "stmia %0!, {r4, r5, r6, r7}\n\t"
                         "adds %0, %0, #16\n\t"
                         "stmia %0!, {r4, r5, r6, r7}\n\t"
                         "subs %0, %0, #32\n\t"
                         "ldmia %1!, {r4, r5, r6, r7}\n\t"
                         "stmia %0!, {r4, r5, r6, r7}\n\t"
                         "adds %0, %0, #16\n\t"
                         "stmia %0!, {r4, r5, r6, r7}\n\t"
                         "subs %2, %2, #1\n\t"
                         "bne 1b"
                         : "+l"(copies), "+l"(residual), "+l"(pixels)
                         :
                         : "r4", "r5", "r6", "r7", "cc", "memory");
    }
}

#define COPIES 128u /* residuals */

/* Whether a whole has an integer number of parts. (Without a division.) */
static int divides(uint32_t part, uint32_t whole) {
    uint32_t sum = part;
    while (sum < whole) {
        sum += part;
    }
    return sum == whole;
}

static bd_status epilogue(const bd_step *step, const uint8_t *constants, const bd_view in[],
                          const bd_view out[], uint32_t y0, uint32_t rows, void *scratch) {
    bd_record_row r = bd_word_row(step, constants, in, out);
    const uint32_t channels = r.channels, width = step->out_width, words = bd_words(channels);
    const uint32_t order = in[0].order, of_word = channels < 32u ? channels : 32u;
    const uint32_t bits = out[1].rows_held == 0 ? 0 : (r.form & BD_FORM_TRITS) != 0 ? 2 : 1;
    /* Channels that the residual has; of a call; pixels of a call; bytes of an accumulator. */
    const uint32_t own = in[1].rows_held != 0 ? in[1].channels : channels;
    uint32_t once = channels, most = width, acc_bytes = 1, acc_begin = of_word;
    const form_fn *forms = &bd_loops_word[bits][sum_of(r.form)];
    form_fn form = *forms;
    int whole = 0;
    if (channels % 2u != 0) { /* pairs would not be aligned */
        return bd_epilogue_i16__word.run(step, constants, in, out, y0, rows, scratch);
    }
    if (channels % 32u == 0 || (channels % 8u == 0 && channels < 32u)) {
        if (in[0].dtype == BD_I16) {
            acc_bytes = 2;
            whole = 1;
        } else if (in[0].dtype == BD_I32) {
            acc_begin = 4u * of_word;
            whole = (r.form & (BD_RES | BD_FORM_STEEP)) == BD_RES_NONE;
            form = whole ? bd_loops_word_long[bits] : form;
        } else if (order == 1) {
            acc_begin = 4;
            whole = in[0].dtype == PLANES_DTYPE && bits != 0;
            form = whole ? forms[2 * 7] : form;
        } else {
            whole = in[0].dtype == BD_I8 && bits == 1u;
            form = whole ? forms[4 * 7] : form;
        }
    }
    if (own != channels) {
        if (2u * own == channels && (own == 8u || own == 16u)) {
            most = own == 8u ? COPIES / 16u : COPIES / 32u;
        } else if (own % 32u == 0 && divides(own, channels)) {
            once = own;
            most = 1;
        } else {
            whole = 0;
        }
        whole = whole && acc_bytes == 2u;
    }
    if (out[0].rows_held == 0 || (in[1].rows_held != 0 && in[1].width != width)) {
        whole = 0;
    }
    if (!whole) {
        for (uint32_t y = y0; y < y0 + rows; y++) {
            r.at = bd_rows_of(in, out, y);
            for (uint32_t x = 0; x < width; x++) {
                one_pixel(&r, *forms, x);
            }
        }
        return BD_OK;
    }
    uint32_t copies[COPIES / 2u], none = 0;
    job j;
    j.begin = 1u << (32u - of_word);
    j.begin_high = 0;
    j.plane = 4u * width * words;
    j.step = 4u * of_word;
    for (uint32_t y = y0; y < y0 + rows; y++) {
        const bd_epilogue_rows at = bd_rows_of(in, out, y);
        const uint8_t *residual = at.residual;
        uint32_t left = width;
        j.acc = at.acc + acc_begin;
        j.trunk = at.trunk + 2u * of_word;
        j.to_acc = distance(at.acc, at.trunk);
        j.to_other =
            own != channels || at.residual != NULL ? distance(at.residual, at.trunk) : (uint32_t)-r.shift;
        j.packed = bits != 0 ? (uint32_t *)(void *)at.packed : &none;
        j.end = r.records;
        do { /* pixels, or channels of one */
            j.pixels = left < most ? left : most;
            j.first = j.end;
            j.end = j.first + once * r.words;
            if (own == channels) {
                form(&j);
                break;
            }
            const uint32_t step_of_trunk = 2u * j.pixels * once,
                           packed_words = j.pixels * ((once + 31u) / 32u);
            const uint32_t pixels = j.pixels;
            if (once == channels) {
                repeat_twice(copies, residual, pixels, own);
                j.to_other = distance(copies, j.trunk - 2u * of_word);
                residual += 2u * pixels * own;
                left -= pixels;
                form(&j);
                j.end = r.records;
            } else {
                j.to_other = distance(residual, j.trunk - 2u * of_word);
                form(&j);
                if (j.end == r.records + channels * r.words) {
                    j.end = r.records;
                    residual += 2u * own;
                    left--;
                }
            }
            j.trunk += step_of_trunk;
            j.packed = bits != 0 ? j.packed + packed_words : j.packed;
        } while (left != 0);
    }
    return BD_OK;
}

#define DEFINE(kernel, set) BD_DEFINE_VARIANT(kernel, set, epilogue)
DEFINE(bd_epilogue_i16__word, BD_EPILOGUE_WORD_SET)
