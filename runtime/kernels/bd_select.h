/* The larger and the smaller of two values. Of integers without branches; of floats by comparisons that say what
 * becomes of NaN. */
#ifndef BD_SELECT_H
#define BD_SELECT_H

#include "bd_bits.h"

/* b where the mask is all ones, a where it is 0. */
BD_INLINE int32_t bd_select(int32_t a, int32_t b, int32_t mask) {
    return a ^ ((a ^ b) & mask);
}

/* Of any two integers. */
BD_INLINE int32_t bd_larger(int32_t a, int32_t b) {
    return bd_select(a, b, bd_sign_mask((int32_t)bd_less(a, b)));
}

/* Of two integers of at most 16 bits, whose difference cannot wrap: fewer instructions. */
BD_INLINE int32_t bd_larger16(int32_t a, int32_t b) {
    return bd_select(a, b, bd_sign_mask(bd_difference(a, b)));
}

BD_INLINE int32_t bd_smaller16(int32_t a, int32_t b) {
    return bd_select(b, a, bd_sign_mask(bd_difference(a, b)));
}

/* NaN wins over every number; of equal values (+0, -0) a stays. */
BD_INLINE float bd_larger_float(float a, float b) {
    return b > a || b != b ? b : a;
}

/* The smallest float: minus infinity, without <math.h>. */
#define BD_LEAST_FLOAT (-1.0f / 0.0f)

#endif
