/* Integer division and square root with a fixed number of steps, whatever the operands. */
#ifndef BD_FIXED_H
#define BD_FIXED_H

#include "bd_select.h"

/* All ones where x < y, as numbers without sign (Hacker's Delight, 2nd edition, section 2-12). */
BD_INLINE uint32_t bd_below(uint32_t x, uint32_t y) {
    return (uint32_t)bd_negative_mask((int32_t)((~x & y) | ((~x | y) & (x - y))));
}

BD_INLINE uint32_t bd_smaller(uint32_t x, uint32_t y) {
    const uint32_t mask = bd_below(x, y);
    return (x & mask) | (y & ~mask);
}

/* floor(rest * 2**bits / divisor) for rest < divisor < 2**31, below 2**32. */
static inline uint32_t bd_quotient(uint32_t rest, uint32_t divisor, uint32_t bits) {
    uint32_t quotient = 0;
    for (uint32_t i = 0; i < bits; i++) {
        const uint32_t less = (rest << 1) - divisor;
        const uint32_t mask = (uint32_t)bd_negative_mask((int32_t)less);
        rest = less + (divisor & mask);
        quotient = (quotient << 1) + 1u + mask;
    }
    return quotient;
}

/* The largest k with n * 4**k below 2**64, for n > 0; *n is multiplied by that. */
static inline uint32_t bd_normalize(uint64_t *n) {
    uint32_t k = 0;
    uint32_t high = (uint32_t)(*n >> 32), low = (uint32_t)*n;
    uint32_t mask = bd_below(high, 1u); /* 16 steps of two bits are a whole word */
    high = (high & ~mask) | (low & mask);
    low &= ~mask;
    k += 16u & mask;
    for (uint32_t step = 8; step != 0; step >>= 1) {
        const uint32_t bits = 2u * step;
        mask = bd_below(high, 1u << (32u - bits));
        high = (((high << bits) | (low >> (32u - bits))) & mask) | (high & ~mask);
        low = ((low << bits) & mask) | (low & ~mask);
        k += step & mask;
    }
    *n = ((uint64_t)high << 32) | low;
    return k;
}

/* floor(sqrt(n)) */
static inline uint32_t bd_root(uint64_t n) {
    uint32_t high = (uint32_t)(n >> 32), low = (uint32_t)n, root = 0;
    uint64_t rest = 0;
    for (uint32_t i = 0; i < 32u; i++) {
        const uint64_t trial = ((uint64_t)root << 2) | 1u;
        rest = ((rest << 2) | (high >> 30)) - trial;
        high = (high << 2) | (low >> 30);
        low <<= 2;
        const uint32_t mask = (uint32_t)bd_negative_mask((int32_t)(uint32_t)(rest >> 32));
        rest += trial & (((uint64_t)mask << 32) | mask);
        root = (root << 1) + 1u + mask;
    }
    return root;
}

#endif
