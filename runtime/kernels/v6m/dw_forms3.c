/* Depth-wise 3x3 convolution in bit planes with weights in the packing of bd_forms3.h, for Armv6-M: the loops over pixels.
 *
 * They are assembly because they need all registers, and ldm. r0 is the next column, r8 and r9 keep a column's sums, r10 the
 * pointer to the columns, r11 where to store, r12 the forms of the weights, lr the sums of plane a. */
#define FORMS3_TAPS(taps) (9u - (taps))
#include "../thumb/forms3.h"

#define ENTER                                                                                                \
    ".syntax unified\n"                                                                                      \
    "push {r4, r5, r6, r7, lr}\n"                                                                            \
    "mov r4, r8\n"                                                                                           \
    "mov r5, r9\n"                                                                                           \
    "mov r6, r10\n"                                                                                          \
    "mov r7, r11\n"                                                                                          \
    "push {r4, r5, r6, r7}\n"                                                                                \
    "sub sp, #20\n"                                                                                          \
    "ldm r0!, {r1, r2, r3, r4, r5, r6, r7}\n"                                                                \
    "str r3, [sp, #0]\n"                                                                                     \
    "str r4, [sp, #4]\n"                                                                                     \
    "str r5, [sp, #8]\n"                                                                                     \
    "str r7, [sp, #12]\n"                                                                                    \
    "ldr r3, [r0]\n"                                                                                         \
    "str r3, [sp, #16]\n"                                                                                    \
    "ldr r3, [r0, #4]\n"                                                                                     \
    "mov r12, r3\n"                                                                                          \
    "mov r11, r2\n"                                                                                          \
    "mov lr, r6\n"                                                                                           \
    "mov r0, r1\n"                                                                                           \
    "1:\n"
#define STEP   "0"
#define END    "4"
#define GAP    "8"
#define TAPS   "12"
#define LIMITS "16"
#define LEAVE                                                                                                \
    "add sp, #20\n"                                                                                          \
    "pop {r4, r5, r6, r7}\n"                                                                                 \
    "mov r8, r4\n"                                                                                           \
    "mov r9, r5\n"                                                                                           \
    "mov r10, r6\n"                                                                                          \
    "mov r11, r7\n"                                                                                          \
    "pop {r4, r5, r6, r7, pc}\n"                                                                             \
    ".pool\n"

/* x, y, z -> carry in x, sum in y. */
#define ADD3(x, y, z)                                                                                        \
    "eors " #x ", " #y "\n"                                                                                  \
    "eors " #z ", " #y "\n"                                                                                  \
    "eors " #y ", " #x "\n"                                                                                  \
    "eors " #y ", " #z "\n"                                                                                  \
    "orrs " #x ", " #z "\n"                                                                                  \
    "eors " #x ", " #y "\n"

/* a, b -> carry in c, sum in a. */
#define ADD2(c, a, b)                                                                                        \
    "movs " #c ", " #a "\n"                                                                                  \
    "ands " #c ", " #b "\n"                                                                                  \
    "eors " #a ", " #b "\n"

/* The next column: carry in r2, sum in r4. */
#define COLUMN                                                                                               \
    "ldm r0!, {r2, r3, r4}\n"                                                                                \
    "ldm r1!, {r5, r6, r7}\n"                                                                                \
    "eors r2, r5\n"                                                                                          \
    "eors r3, r6\n"                                                                                          \
    "eors r4, r7\n"                                                                                          \
    "orrs r2, r3\n"                                                                                          \
    "eors r2, r4\n"

/* Mismatches of a window: ones r4, twos r2 and r5, fours r7. */
#define COUNT                                                                                                \
    "mov r1, r12\n" COLUMN "mov r8, r2\n"                                                                    \
    "mov r9, r4\n" COLUMN "ldm r0!, {r3, r5, r6}\n"                                                          \
    "ldr r7, [r1]\n"                                                                                         \
    "eors r3, r7\n"                                                                                          \
    "ldr r7, [r1, #4]\n"                                                                                     \
    "eors r5, r7\n"                                                                                          \
    "ldr r7, [r1, #8]\n"                                                                                     \
    "eors r6, r7\n"                                                                                          \
    "orrs r3, r5\n"                                                                                          \
    "eors r3, r6\n"                                                                                          \
    "mov r5, r9\n" ADD3(r5, r4, r6) "mov r7, r8\n" ADD3(r7, r2, r3)

#define TURN                                                                                                 \
    "ldr r3, [sp, #" STEP "]\n"                                                                              \
    "add r0, r3\n"

/* Both planes: n in r6 r5 r7 r4 r2. */
#define COUNT_BOTH                                                                                           \
    COUNT TURN "mov r10, r0\n"                                                                               \
               "mov r1, lr\n"                                                                                \
               "ldm r1!, {r3, r6}\n" ADD2(r0, r6, r4) ADD3(r0, r5, r3) "ldm r1!, {r3, r4}\n"                 \
                                                                       "mov lr, r1\n" ADD3(r3, r5, r2)       \
                                                                           ADD3(r4, r7, r0) ADD2(r0, r7, r3) \
                                                                               ADD2(r2, r4, r0)

/* One plane: m in r4 r5 r7 r6. */
#define COUNT_ONE COUNT TURN "mov r10, r0\n" ADD2(r3, r5, r2) ADD2(r6, r7, r3)

/* The bits of x at shift .. change places with those of y, where mask is 1. */
#define EXCHANGE(x, y, shift, mask, t)                                                                       \
    "lsrs " #t ", " #x ", #" #shift "\n"                                                                     \
    "eors " #t ", " #y "\n"                                                                                  \
    "ands " #t ", " #mask "\n"                                                                               \
    "eors " #y ", " #t "\n"                                                                                  \
    "lsls " #t ", " #t ", #" #shift "\n"                                                                     \
    "eors " #x ", " #t "\n"

/* Four planes -> nibbles: channels 8 j + 0 and 8 j + 4 in byte j of the first, and so on. */
#define NIBBLES(p0, p1, p2, p3)                                                                              \
    "ldr r0, =0x55555555\n" EXCHANGE(p0, p1, 1, r0, r1)                                                      \
        EXCHANGE(p2, p3, 1, r0, r1) "ldr r0, =0x33333333\n" EXCHANGE(p0, p2, 2, r0, r1)                      \
            EXCHANGE(p1, p3, 2, r0, r1)

#define MAJORITY(y, n, limit)                                                                                \
    "eors " #n ", " #y "\n"                                                                                  \
    "eors " #limit ", " #y "\n"                                                                              \
    "ands " #n ", " #limit "\n"                                                                              \
    "eors " #y ", " #n "\n"

#define NEXT                                                                                                 \
    "ldr r3, [sp, #" GAP "]\n"                                                                               \
    "add r11, r3\n"                                                                                          \
    "mov r0, r10\n"                                                                                          \
    "ldr r3, [sp, #" END "]\n"                                                                               \
    "cmp r0, r3\n"                                                                                           \
    "beq 2f\n"                                                                                               \
    "b 1b\n"                                                                                                 \
    "2:\n"

static NAKED void sum(UNUSED const forms3_job *job) {
    __asm__(ENTER COUNT TURN "mov r3, r11\n"
                             "stm r3!, {r2, r4, r5, r7}\n"
                             "mov r11, r3\n"
                             "ldr r3, [sp, #" END "]\n"
                             "cmp r0, r3\n"
                             "bne 1b\n" LEAVE);
}

static NAKED void trits_to_bytes(UNUSED const forms3_job *job) {
    __asm__(ENTER COUNT_BOTH NIBBLES(
        r6, r5, r7, r4) "ldr r0, =0x11111111\n"
                        "movs r3, r2\n"
                        "ands r3, r0\n"
                        "ldr r0, =0x0f0f0f0f\n" EXCHANGE(
                            r6, r3, 4, r0, r1) "mov r1, r11\n"
                                               "str r6, [r1]\n"
                                               "str r3, [r1, #16]\n"
                                               "ldr r3, =0x11111111\n"
                                               "lsrs r6, r2, #1\n"
                                               "ands r6, r3\n" EXCHANGE(
                                                   r5, r6, 4, r0,
                                                   r3) "str r5, [r1, #4]\n"
                                                       "str r6, [r1, #20]\n"
                                                       "ldr r5, =0x11111111\n"
                                                       "lsrs r6, r2, #2\n"
                                                       "ands r6, r5\n" EXCHANGE(
                                                           r7, r6, 4, r0,
                                                           r3) "str r7, [r1, #8]\n"
                                                               "str r6, [r1, #24]\n"
                                                               "lsrs r6, r2, #3\n"
                                                               "ands r6, r5\n" EXCHANGE(
                                                                   r4, r6, 4, r0,
                                                                   r3) "str r4, [r1, #12]\n"
                                                                       "str r6, [r1, #28]\n" NEXT LEAVE);
}

static NAKED void trits_to_bits(UNUSED const forms3_job *job) {
    __asm__(ENTER COUNT_BOTH "ldr r1, [sp, #" LIMITS "]\n"
                             "ldm r1!, {r0, r3}\n"
                             "ands r6, r0\n"
                             "orrs r6, r3\n"
                             "ldm r1!, {r0, r3}\n" MAJORITY(r6, r5, r0)
                                 MAJORITY(r6, r7, r3) "ldm r1!, {r0, r3}\n" MAJORITY(r6, r4, r0)
                                     MAJORITY(r6, r2, r3) "mov r1, r11\n"
                                                          "str r6, [r1]\n" NEXT LEAVE);
}

#define STORE_EVEN(how, at)                                                                                  \
    how "\n"                                                                                                 \
        "ands r1, r0\n"                                                                                      \
        "adds r1, r2\n"                                                                                      \
        "str r1, [r3, #" #at "]\n"

static NAKED void bits_to_bytes(UNUSED const forms3_job *job) {
    __asm__(ENTER COUNT_ONE NIBBLES(
        r4, r5, r7, r6) "ldr r0, =0x1e1e1e1e\n"
                        "ldr r2, [sp, #" TAPS "]\n"
                        "mov r3, r11\n" STORE_EVEN("lsls r1, r4, #1", 0) STORE_EVEN("lsls r1, r5, #1", 4)
                            STORE_EVEN("lsls r1, r7, #1", 8) STORE_EVEN("lsls r1, r6, #1", 12)
                                STORE_EVEN("lsrs r1, r4, #3", 16) STORE_EVEN("lsrs r1, r5, #3", 20)
                                    STORE_EVEN("lsrs r1, r7, #3", 24) STORE_EVEN("lsrs r1, r6, #3", 28)
                                        NEXT LEAVE);
}

static NAKED void bits_to_bits(UNUSED const forms3_job *job) {
    __asm__(ENTER COUNT_ONE "ldr r1, [sp, #" LIMITS "]\n"
                            "ldm r1!, {r0, r3}\n"
                            "ands r4, r0\n"
                            "orrs r4, r3\n"
                            "ldm r1!, {r0, r2, r3}\n" MAJORITY(r4, r5, r0) MAJORITY(r4, r7, r2)
                                MAJORITY(r4, r6, r3) "mov r1, r11\n"
                                                     "str r4, [r1]\n" NEXT LEAVE);
}

/* To natural order, as values. */
#define EXCHANGE_HALVES(x, y, t)                                                                             \
    "lsrs " #t ", " #x ", #16\n"                                                                             \
    "eors " #t ", " #y "\n"                                                                                  \
    "uxth " #t ", " #t "\n"                                                                                  \
    "eors " #y ", " #t "\n"                                                                                  \
    "lsls " #t ", " #t ", #16\n"                                                                             \
    "eors " #x ", " #t "\n"
#define PLACE_FOUR(at0, at1, at2, at3)                                                                       \
    "ldm r0!, {r4, r5, r6, r7}\n"                                                                            \
    "ldr r3, =0x89898989\n"                                                                                  \
    "subs r4, r3, r4\n"                                                                                      \
    "subs r5, r3, r5\n"                                                                                      \
    "subs r6, r3, r6\n"                                                                                      \
    "subs r7, r3, r7\n"                                                                                      \
    "ldr r3, =0x80808080\n"                                                                                  \
    "eors r4, r3\n"                                                                                          \
    "eors r5, r3\n"                                                                                          \
    "eors r6, r3\n"                                                                                          \
    "eors r7, r3\n" EXCHANGE_HALVES(r4, r6, r3) EXCHANGE_HALVES(r5, r7, r3) EXCHANGE(r4, r5, 8, r2, r3)      \
        EXCHANGE(r6, r7, 8, r2, r3) "str r4, [r1, #" #at0 "]\n"                                              \
                                    "str r5, [r1, #" #at1 "]\n"                                              \
                                    "str r6, [r1, #" #at2 "]\n"                                              \
                                    "str r7, [r1, #" #at3 "]\n"

static NAKED void place(UNUSED const uint32_t *from, UNUSED void *to, UNUSED uint32_t each,
                        UNUSED const uint32_t *end) {
    __asm__(".syntax unified\n"
            "push {r4, r5, r6, r7, lr}\n"
            "mov r12, r3\n"
            "mov lr, r2\n"
            "ldr r2, =0x00ff00ff\n"
            "1:\n" PLACE_FOUR(0, 8, 16, 24) PLACE_FOUR(4, 12, 20, 28) "add r1, lr\n"
                                                                      "cmp r0, r12\n"
                                                                      "bne 1b\n"
                                                                      "pop {r4, r5, r6, r7, pc}\n"
                                                                      ".pool\n");
}

FORMS3_KERNEL(bb_u8__forms3, v6m, NULL, bits_to_bytes, 0, NULL)
FORMS3_KERNEL(bb_i8__forms3n, v6m, NULL, bits_to_bytes, 0, place)
FORMS3_KERNEL(bb_bit__forms3, v6m, NULL, bits_to_bits, 0, NULL)
FORMS3_KERNEL(tb_u8__forms3, v6m, sum, trits_to_bytes, 0, NULL)
FORMS3_KERNEL(tb_i8__forms3n, v6m, sum, trits_to_bytes, 0, place)
FORMS3_KERNEL(tb_bit__forms3, v6m, sum, trits_to_bits, 0, NULL)
