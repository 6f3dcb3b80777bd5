/* Means: one reciprocal a call instead of a division an element. */
#ifndef BD_MEAN_H
#define BD_MEAN_H

#include "bd_bits.h"

/* 1 / count with 16 fractional bits, rounded to nearest. */
BD_INLINE uint32_t bd_reciprocal(uint32_t count) {
    return (2u * 65536u + count) / (2u * count);
}

/* saturate((sum * reciprocal + 2**15) >> 16); the product by halves, since it may need 48 bits. */
BD_INLINE int32_t bd_mean(int32_t sum, uint32_t reciprocal, int32_t low, int32_t high) {
    const uint32_t high_part = (uint32_t)(sum >> 16) * reciprocal;
    const uint32_t low_part = (((uint32_t)sum & 0xffffu) * reciprocal + 0x8000u) >> 16;
    return bd_clamp((int32_t)(high_part + low_part), low, high);
}

/* 1 / count rounded once: the count is exact in float (the checks see to that). */
BD_INLINE float bd_float_reciprocal(uint32_t count) {
    return 1.0f / (float)count;
}

/* From a sum and its reciprocal to the element, by the element's type. */
#define MEAN_F32(sum, factor) ((sum) * (factor))
#define MEAN_I16(sum, factor) bd_mean(sum, factor, INT16_MIN, INT16_MAX)
#define MEAN_I8(sum, factor)  bd_mean(sum, factor, INT8_MIN, INT8_MAX)

#endif
