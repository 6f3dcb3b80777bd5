/* Depth-wise 3x3 convolution in bit planes with weights in the packing of bd_forms3.h, for Thumb-2: the loops over pixels.
 *
 * They are assembly because they need all of the 14 registers: a compiler keeps forms and sums in memory, and does not load
 * several words by one instruction. The forms of the weights lie at the stack pointer, r0 is the next column, r1 where to store.
 * On cores with the DSP extension bytes are subtracted by one instruction. */
#if defined(__ARM_FEATURE_SIMD32)
#    define FORMS3_TAPS(taps)  (taps)
#    define SUBTRACT(to, k, n) "ssub8 " #to ", " #k ", " #n "\n"
#    define NINE               "0x09090909"
/* Lower halves of a and b -> to, upper ones -> b. */
#    define HALVES(to, a, b)                                                                                 \
        "pkhbt " #to ", " #a ", " #b ", lsl #16\n"                                                           \
        "pkhtb " #b ", " #b ", " #a ", asr #16\n"
#else /* no borrow leaves a byte */
#    define FORMS3_TAPS(taps)  ((taps) | 0x80u)
#    define SUBTRACT(to, k, n) "sub " #to ", " #k ", " #n "\neor " #to ", " #to ", #0x80808080\n"
#    define NINE               "0x89898989"
#    define HALVES(to, a, b)                                                                                 \
        "uxth lr, " #a "\n"                                                                                  \
        "orr " #to ", lr, " #b ", lsl #16\n"                                                                 \
        "lsr lr, " #b ", #16\n"                                                                              \
        "lsl lr, lr, #16\n"                                                                                  \
        "orr " #b ", lr, " #a ", lsr #16\n"
#endif
#include "../thumb/forms3.h"

/* A job's fields lie behind the weights. */
#define ENTER                                                                                                \
    ".syntax unified\n"                                                                                      \
    "push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n"                                                          \
    "sub sp, #76\n"                                                                                          \
    "ldr r1, [r0, #32]\n"                                                                                    \
    "ldm r1, {r4, r5, r6, r7, r8, r9, r10, r11, r12}\n"                                                      \
    "stm sp, {r4, r5, r6, r7, r8, r9, r10, r11, r12}\n"                                                      \
    "ldm r0, {r4, r5, r6, r7, r8, r9, r10, r11}\n"                                                           \
    "add r1, sp, #36\n"                                                                                      \
    "stm r1, {r4, r5, r6, r7, r8, r9, r10, r11}\n"                                                           \
    "mov r0, r4\n"                                                                                           \
    "mov r1, r5\n"                                                                                           \
    "1:\n"
#define STEP_END "44" /* and END behind it */
#define GAP      "52"
#define SUMS     "56"
#define TAPS     "60"
#define LIMITS   "64"
#define LEAVE                                                                                                \
    "add sp, #76\n"                                                                                          \
    "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n"

/* x, y, z -> carry in y, sum in z. */
#define ADD3(x, y, z)                                                                                        \
    "eor " #y ", " #x "\n"                                                                                   \
    "eor " #x ", " #z "\n"                                                                                   \
    "eor " #z ", " #y "\n"                                                                                   \
    "orr " #y ", " #x "\n"                                                                                   \
    "eor " #y ", " #z "\n"

/* a, b -> carry in c, sum in a. */
#define ADD2(c, a, b)                                                                                        \
    "and " #c ", " #a ", " #b "\n"                                                                           \
    "eor " #a ", " #b "\n"

/* Forms of weights u v s -> carry in u, sum in s of the next column. */
#define COLUMN(u, v, s)                                                                                      \
    "ldm r0!, {r11, r12, lr}\n"                                                                              \
    "eor " #u ", r11\n"                                                                                      \
    "eor " #v ", r12\n"                                                                                      \
    "eor " #s ", lr\n"                                                                                       \
    "orr " #u ", " #v "\n"                                                                                   \
    "eor " #u ", " #s "\n"

/* Mismatches of a window: ones r10, twos r7 and r8, fours r5. */
#define COUNT                                                                                                \
    "ldm sp, {r2, r3, r4, r5, r6, r7, r8, r9, r10}\n" COLUMN(r2, r3, r4) COLUMN(r5, r6, r7)                  \
        COLUMN(r8, r9, r10) ADD3(r4, r7, r10) ADD3(r2, r5, r8)

/* Both planes: n in r9 r7 r2 r5 r4. */
#define COUNT_BOTH                                                                                           \
    COUNT "ldr r2, [sp, #" SUMS "]\n"                                                                        \
          "ldm r2!, {r3, r4, r6, r9}\n"                                                                      \
          "str r2, [sp, #" SUMS "]\n" ADD2(r2, r9, r10) ADD3(r4, r2, r7) ADD3(r6, r8, r7) ADD3(r3, r5, r2)   \
              ADD2(r3, r2, r8) ADD2(r4, r5, r3)

/* One plane: m in r10 r7 r5 r3. */
#define COUNT_ONE COUNT ADD2(r2, r7, r8) ADD2(r3, r5, r2)

/* The bits of x at shift .. change places with those of y, where mask is 1. */
#define EXCHANGE(x, y, shift, mask)                                                                          \
    "eor lr, " #y ", " #x ", lsr #" #shift "\n"                                                              \
    "and lr, #" #mask "\n"                                                                                   \
    "eor " #y ", lr\n"                                                                                       \
    "eor " #x ", " #x ", lr, lsl #" #shift "\n"

/* Four planes -> nibbles: channels 8 j + 0 and 8 j + 4 in byte j of the first, and so on. */
#define NIBBLES(p0, p1, p2, p3)                                                                              \
    EXCHANGE(p0, p1, 1, 0x55555555)                                                                          \
    EXCHANGE(p2, p3, 1, 0x55555555)                                                                          \
    EXCHANGE(p0, p2, 2, 0x33333333)                                                                          \
    EXCHANGE(p1, p3, 2, 0x33333333)

#define MAJORITY(y, n, limit)                                                                                \
    "eor " #n ", " #y "\n"                                                                                   \
    "eor " #limit ", " #y "\n"                                                                               \
    "and " #n ", " #limit "\n"                                                                               \
    "eor " #y ", " #n "\n"

#define NEXT                                                                                                 \
    "ldr r4, [sp, #" GAP "]\n"                                                                               \
    "ldrd r2, r3, [sp, #" STEP_END "]\n"                                                                     \
    "add r1, r4\n"                                                                                           \
    "add r0, r2\n"                                                                                           \
    "cmp r0, r3\n"                                                                                           \
    "bne 1b\n"

static NAKED void sum(UNUSED const forms3_job *job) {
    __asm__(ENTER COUNT "stm r1!, {r5, r7, r8, r10}\n"
                        "ldrd r2, r3, [sp, #" STEP_END "]\n"
                        "add r0, r2\n"
                        "cmp r0, r3\n"
                        "bne 1b\n" LEAVE);
}

/* 9 - n of 32 channels: the bytes c, c + 8, c + 16, c + 24 in r4 r7 r9 r11 r3 r6 r8 r10. */
#define TRIT_BYTES                                                                                           \
    COUNT_BOTH NIBBLES(r9, r7, r2, r5) "mov r12, #0x11111111\n"                                              \
                                       "and r3, r12, r4\n"                                                   \
                                       "and r6, r12, r4, lsr #1\n"                                           \
                                       "and r8, r12, r4, lsr #2\n"                                           \
                                       "and r10, r12, r4, lsr #3\n"                                          \
                                       "mov r12, #" NINE "\n" EXCHANGE(r9, r3, 4, 0x0f0f0f0f)                \
                                           EXCHANGE(r7, r6, 4, 0x0f0f0f0f) EXCHANGE(r2, r8, 4, 0x0f0f0f0f)   \
                                               EXCHANGE(r5, r10, 4, 0x0f0f0f0f) SUBTRACT(r4, r12, r9)        \
                                                   SUBTRACT(r7, r12, r7) SUBTRACT(r9, r12, r2)               \
                                                       SUBTRACT(r11, r12, r5) SUBTRACT(r3, r12, r3)          \
                                                           SUBTRACT(r6, r12, r6) SUBTRACT(r8, r12, r8)       \
                                                               SUBTRACT(r10, r12, r10)

/* The same bytes in the order of the channels, from r4 r7 r9 r11 `first` r6 r8 r10; 32 bytes at r1. */
#define STORE_IN_ORDER(first, t)                                                                             \
    HALVES(t, r4, r9)                                                                                        \
    HALVES(r5, r7, r11)                                                                                      \
    EXCHANGE(t, r5, 8, 0x00ff00ff)                                                                           \
    EXCHANGE(r9, r11, 8, 0x00ff00ff)                                                                         \
    HALVES(r4, first, r8)                                                                                    \
    HALVES(r7, r6, r10)                                                                                      \
    EXCHANGE(r4, r7, 8, 0x00ff00ff)                                                                          \
    EXCHANGE(r8, r10, 8, 0x00ff00ff)                                                                         \
    "strd " #t ", r4, [r1], #8\n"                                                                            \
    "strd r5, r7, [r1], #8\n"                                                                                \
    "strd r9, r8, [r1], #8\n"                                                                                \
    "strd r11, r10, [r1], #8\n"

static NAKED void trits_to_bytes(UNUSED const forms3_job *job) {
    __asm__(ENTER TRIT_BYTES "stm r1!, {r4, r7, r9, r11}\n"
                             "stm r1!, {r3, r6, r8, r10}\n" NEXT LEAVE);
}

static NAKED void trits_in_order(UNUSED const forms3_job *job) {
    __asm__(ENTER TRIT_BYTES STORE_IN_ORDER(r3, r2) NEXT LEAVE);
}

static NAKED void trits_to_bits(UNUSED const forms3_job *job) {
    __asm__(ENTER COUNT_BOTH "ldr lr, [sp, #" LIMITS "]\n"
                             "ldm lr, {r3, r6, r8, r10, r11, r12}\n"
                             "and r9, r3\n"
                             "orr r9, r6\n" MAJORITY(r9, r7, r8) MAJORITY(r9, r2, r10) MAJORITY(r9, r5, r11)
                                 MAJORITY(r9, r4, r12) "str r9, [r1]\n" NEXT LEAVE);
}

/* taps - 2 m in r4 r7 r9 r11 r2 r6 r8 r10. */
#define EVEN(to, n, how) "and " #to ", r12, " #n ", " how "\n" SUBTRACT(to, lr, to)
#define BIT_BYTES                                                                                            \
    COUNT_ONE NIBBLES(r10, r7, r5, r3) "mov r12, #0x1e1e1e1e\n"                                              \
                                       "ldr lr, [sp, #" TAPS "]\n" EVEN(r4, r10, "lsl #1")                   \
                                           EVEN(r9, r5, "lsl #1") EVEN(r11, r3, "lsl #1")                    \
                                               EVEN(r6, r7, "lsr #3") EVEN(r7, r7, "lsl #1")                 \
                                                   EVEN(r8, r5, "lsr #3") EVEN(r2, r10, "lsr #3")            \
                                                       EVEN(r10, r3, "lsr #3")

static NAKED void bits_to_bytes(UNUSED const forms3_job *job) {
    __asm__(ENTER BIT_BYTES "stm r1!, {r4, r7, r9, r11}\n"
                            "stm r1!, {r2, r6, r8, r10}\n" NEXT LEAVE);
}

static NAKED void bits_in_order(UNUSED const forms3_job *job) {
    __asm__(ENTER BIT_BYTES STORE_IN_ORDER(r2, r3) NEXT LEAVE);
}

static NAKED void bits_to_bits(UNUSED const forms3_job *job) {
    __asm__(ENTER COUNT_ONE "ldr lr, [sp, #" LIMITS "]\n"
                            "ldm lr, {r2, r4, r6, r8, r9}\n"
                            "and r10, r2\n"
                            "orr r10, r4\n" MAJORITY(r10, r7, r6) MAJORITY(r10, r5, r8)
                                MAJORITY(r10, r3, r9) "str r10, [r1]\n" NEXT LEAVE);
}

FORMS3_KERNEL(bb_i8__forms3, v7m, NULL, bits_to_bytes, 32, NULL)
FORMS3_KERNEL(bb_i8__forms3n, v7m, NULL, bits_in_order, 32, NULL)
FORMS3_KERNEL(bb_bit__forms3, v7m, NULL, bits_to_bits, 0, NULL)
FORMS3_KERNEL(tb_i8__forms3, v7m, sum, trits_to_bytes, 32, NULL)
FORMS3_KERNEL(tb_i8__forms3n, v7m, sum, trits_in_order, 32, NULL)
FORMS3_KERNEL(tb_bit__forms3, v7m, sum, trits_to_bits, 0, NULL)
