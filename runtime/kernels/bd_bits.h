/* Arithmetic on words of bits without branches, divisions or library calls. */
#ifndef BD_BITS_H
#define BD_BITS_H

#include "bd_kernel.h"

#if defined(__GNUC__)
#    define BD_INLINE static inline __attribute__((always_inline))
#else
#    define BD_INLINE static inline
#endif

/* Rarely called: inside of what calls it, it would cost all others registers and stack. */
#if defined(__GNUC__)
#    define BD_APART __attribute__((noinline))
#else
#    define BD_APART
#endif

/* Counts of ones in each of the eight nibbles. */
BD_INLINE uint32_t bd_nibble_counts(uint32_t v) {
    v -= (v >> 1) & 0x55555555u;
    return (v & 0x33333333u) + ((v >> 2) & 0x33333333u);
}

/* Sum of the nibbles of v, each at most 12. */
BD_INLINE uint32_t bd_nibble_sum(uint32_t v) {
    v = (v & 0x0f0f0f0fu) + ((v >> 4) & 0x0f0f0f0fu);
    return (v * 0x01010101u) >> 24;
}

BD_INLINE uint32_t bd_popcount(uint32_t a) {
    return bd_nibble_sum(bd_nibble_counts(a));
}

/* Ones of two words, cheaper than twice the ones of one. */
BD_INLINE uint32_t bd_popcount2(uint32_t a, uint32_t b) {
    return bd_nibble_sum(bd_nibble_counts(a) + bd_nibble_counts(b));
}

/* All ones where x is negative, else 0. */
BD_INLINE int32_t bd_negative_mask(int32_t x) {
    int32_t mask = -(int32_t)((uint32_t)x >> 31);
#if defined(__thumb__) && !defined(__thumb2__)
    /* ARMv6-M has no conditional instructions: keep the compiler from turning the mask back into a branch. */
    __asm__("" : "+r"(mask));
#endif
    return mask;
}

/* The sign of x as a mask. ARMv6-M has no conditional instructions: without the barrier the compiler sees a comparison
 * in front of bd_negative_mask and makes a branch of it. */
BD_INLINE int32_t bd_sign_mask(int32_t x) {
#if defined(__thumb__) && !defined(__thumb2__)
    __asm__("" : "+r"(x));
#endif
    return bd_negative_mask(x);
}

/* Any x to 16 bits: where the low half alone is another number, all bits below its sign. */
BD_INLINE int32_t bd_saturate16(int32_t x) {
    const int32_t low = (int16_t)(uint16_t)(uint32_t)x;
    const uint32_t differs = (uint32_t)low ^ (uint32_t)x;
    const int32_t mask = bd_sign_mask((int32_t)(differs | (0u - differs)));
    return low ^ ((low ^ (0x7fff ^ bd_sign_mask(x))) & mask);
}

/* x - y, wrapping. */
BD_INLINE int32_t bd_difference(int32_t x, int32_t y) {
    return (int32_t)((uint32_t)x - (uint32_t)y);
}

/* Clamps x, |x| <= 2**30, to low .. high of 16 bits. */
BD_INLINE int32_t bd_clamp(int32_t x, int32_t low, int32_t high) {
    const int32_t above = bd_difference(x, low);
    const int32_t raised = low + (above & ~bd_negative_mask(above));
    const int32_t below = bd_difference(raised, high);
    return bd_difference(below & bd_negative_mask(below), -high);
}

/* Bit 31 is 1 where x < y, for all x and y (Hacker's Delight, 2nd edition, section 2-12). */
BD_INLINE uint32_t bd_less(int32_t x, int32_t y) {
    const uint32_t a = (uint32_t)x, b = (uint32_t)y;
    return (a & ~b) | (~(a ^ b) & (a - b));
}

/* Value of channel c of a packed pixel: words of plane a, and of plane b for a trit (NULL for a bit). */
BD_INLINE int32_t bd_packed_value(const uint32_t *a, const uint32_t *b, uint32_t c) {
    const uint32_t *second = b == NULL ? a : b;
    return 1 - (int32_t)((a[c >> 5] >> (c & 31u)) & 1u) - (int32_t)((second[c >> 5] >> (c & 31u)) & 1u);
}

#endif
