/* Point-wise binary convolution by tables over 7 pixels on Cortex-M0 and M0+. */
#include "bd_lut7.h"

/* Four entries lie in r4 to r7, steps in high registers: `stm` is what C has no words for. */
#define STEP(s)                                                                                              \
    "add r4, r4, " s "\n\tadd r5, r5, " s "\n\tadd r6, r6, " s "\n\tadd r7, r7, " s                          \
    "\n\tstmia r0!, {r4-r7}\n\t"
#define BLOCKS_32 STEP("r8") STEP("r9") STEP("r8") STEP("r10") STEP("r8") STEP("r9") STEP("r8")

/* 64 entries; e are the four before them, to which `step[4]` leads. */
static uint32_t *fill_64(uint32_t *t, uint32_t e[4], const uint32_t step[5]) {
    register uint32_t *r0 __asm__("r0") = t;
    register uint32_t r4 __asm__("r4") = e[0];
    register uint32_t r5 __asm__("r5") = e[1];
    register uint32_t r6 __asm__("r6") = e[2];
    register uint32_t r7 __asm__("r7") = e[3];
    register uint32_t r8 __asm__("r8") = step[0];
    register uint32_t r9 __asm__("r9") = step[1];
    register uint32_t r10 __asm__("r10") = step[2];
    register uint32_t r11 __asm__("r11") = step[3];
    register uint32_t r12 __asm__("r12") = step[4];
    __asm__ volatile(STEP("r12") BLOCKS_32 STEP("r11") BLOCKS_32
                     : "+l"(r0), "+l"(r4), "+l"(r5), "+l"(r6), "+l"(r7)
                     : "h"(r8), "h"(r9), "h"(r10), "h"(r11), "h"(r12)
                     : "memory");
    e[0] = r4, e[1] = r5, e[2] = r6, e[3] = r7;
    return r0;
}

/* The tables of groups of 7 6 6 7 6 6 .. channels. planes: 2 x of each channel, in nibbles.
 *
 * Entry e + 2^k is entry e plus 1 - 2 x of channel k. Entries are written in order, four at once, so that from one four to
 * the next a step leads from the bits that are cleared to the bit that is set. */
static BD_APART void fill_tables(uint32_t *t, const uint32_t *planes, uint32_t groups) {
    for (uint32_t seven = 1; groups != 0; groups--, seven = seven == 1u ? 3u : seven - 1u, planes += 6) {
        const uint32_t one = 0x01111111u;
        uint32_t sum = planes[0] + planes[1] + planes[2] + planes[3] + planes[4] + planes[5];
        const uint32_t d0 = one - planes[0], d1 = one - planes[1], d2 = one - planes[2];
        const uint32_t d3 = one - planes[3], d4 = one - planes[4], d5 = one - planes[5];
        uint32_t step[5] = {d2, d3 - d2, d4 - d3 - d2, d5 - d4 - d3 - d2, 0}, e[4];
        sum += seven == 1u ? planes[6] : 0;
        e[0] = sum >> 1;
        e[1] = e[0] + d0;
        e[2] = e[0] + d1;
        e[3] = e[1] + d1;
        t = fill_64(t, e, step);
        if (seven == 1u) {
            step[4] = one - planes[6] - d5 - d4 - d3 - d2;
            t = fill_64(t, e, step);
            planes++;
        }
    }
}

#include "thumb/lut7.h"

BD_DEFINE_VARIANT(bd_conv_bb_i16__lut7, v6m, conv_counts)
BD_DEFINE_VARIANT(bd_conv_bb_bit__lut7, v6m, conv_bits)
