/* Point-wise binary convolution by tables over 7 pixels on Cortex-M with Thumb-2. */
#include "bd_lut7.h"

/* Eight entries lie in r4 to r11, four steps in r2, r3, r12 and lr: `stm` of eight registers is what C has no words for. */
#define STORE "stmia r0!, {r4-r11}\n\t"
#define STEP(s)                                                                                              \
    "add r4, r4, " s "\n\tadd r5, r5, " s "\n\tadd r6, r6, " s "\n\tadd r7, r7, " s "\n\t"                   \
    "add r8, r8, " s "\n\tadd r9, r9, " s "\n\tadd r10, r10, " s "\n\tadd r11, r11, " s "\n\t" STORE
#define BLOCKS_64 STEP("r2") STEP("r3") STEP("r2") STEP("r12") STEP("r2") STEP("r3") STEP("r2")

/* From 2 x of channels 0 .. 5 in r4 .. r9, and the sum of all in r11, to the steps 1 - 2 x of channels 0 .. 2 in r4 .. r6, to
 * the first three steps between eights, and in r9 to the sum of the steps of channels 3 .. 5. */
#define STEPS                                                                                                \
    "lsr r11, r11, #1\n\tmov r12, #0x11111111\n\tbic r12, r12, #0xf0000000\n\t"                              \
    "sub r4, r12, r4\n\tsub r5, r12, r5\n\tsub r6, r12, r6\n\tsub r2, r12, r7\n\t"                           \
    "sub r8, r12, r8\n\tsub r9, r12, r9\n\tsub r3, r8, r2\n\tadd r8, r8, r2\n\t"
/* Entries 0 .. 7 of entry 0 in r11 and the steps of three channels. */
#define ENTRIES                                                                                              \
    "add r9, r11, r4\n\tadd r10, r11, r5\n\tadd r7, r9, r5\n\tmov r4, r11\n\tmov r5, r9\n\t"                 \
    "add r8, r11, r6\n\tadd r9, r9, r6\n\tadd r11, r7, r6\n\tadd r10, r10, r6\n\tsub r6, r10, r6\n\t" STORE
#define SUM                                                                                                  \
    "add r11, r4, r5\n\tadd r11, r11, r6\n\tadd r11, r11, r7\n\tadd r11, r11, r8\n\tadd r11, r11, r9\n\t"

#define SEVEN                                                                                                \
    "ldmia r1!, {r4-r10}\n\t" SUM "add r11, r11, r10\n\t" STEPS                                              \
    "sub r10, r12, r10\n\tsub r12, r9, r8\n\tadd r9, r9, r8\n\tsub lr, r10, r9\n\t" ENTRIES BLOCKS_64 STEP(  \
        "lr") BLOCKS_64
#define SIX "ldmia r1!, {r4-r9}\n\t" SUM STEPS "sub r12, r9, r8\n\t" ENTRIES BLOCKS_64
#define FILL(group)                                                                                          \
    __asm__ volatile(group                                                                                   \
                     : "+r"(r0), "+r"(r1)                                                                    \
                     :                                                                                       \
                     : "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "lr", "memory")

/* The tables of groups of 7 6 6 7 6 6 .. channels. planes: 2 x of each channel, in nibbles.
 *
 * Entry e + 2^k is entry e plus 1 - 2 x of channel k. Entries are written in order, eight at once, so that from one eight to
 * the next a step leads from the bits that are cleared to the bit that is set. */
static BD_APART void fill_tables(uint32_t *t, const uint32_t *planes, uint32_t groups) {
    register uint32_t *r0 __asm__("r0") = t;
    register const uint32_t *r1 __asm__("r1") = planes;
    for (;;) {
        FILL(SEVEN);
        if (--groups == 0) {
            return;
        }
        FILL(SIX);
        if (--groups == 0) {
            return;
        }
        FILL(SIX);
        groups--;
    }
}

#include "thumb/lut7.h"

BD_DEFINE_VARIANT(bd_conv_bb_i16__lut7, v7m, conv_counts)
BD_DEFINE_VARIANT(bd_conv_bb_bit__lut7, v7m, conv_bits)
