/* Functions in f32 without a math library: the operations of bdnet_deploy/graph/float_functions.py, in the same order,
 * so that the bytes are the same. That file says where the numbers come from, and which quotients are never taken. */
#ifndef BD_MATH_H
#define BD_MATH_H

#include "bd_bits.h"

#define BD_LOG2E     1.44269504f
#define BD_LN2_HIGH  0.693359375f
#define BD_LN2_LOW   (-2.12194440e-4f)
#define BD_ROUNDER   12582912.0f
#define BD_ROOT_HALF 0.70710678f

BD_INLINE uint32_t bd_float_bits(float x) {
    union {
        float value;
        uint32_t bits;
    } u;
    u.value = x;
    return u.bits;
}

BD_INLINE float bd_float_of(uint32_t bits) {
    union {
        uint32_t bits;
        float value;
    } u;
    u.bits = bits;
    return u.value;
}

/* Ascending coefficients. */
static inline float bd_horner(float x, const float *c, uint32_t count) {
    float y = c[count - 1u];
    for (uint32_t i = count - 1u; i-- > 0;) {
        y = y * x + c[i];
    }
    return y;
}

#define BD_POLYNOMIAL(x, coefficients)                                                                       \
    bd_horner(x, coefficients, (uint32_t)(sizeof(coefficients) / sizeof((coefficients)[0])))

/* 2**k for -126 <= k <= 127. */
BD_INLINE float bd_power_of_two(int32_t k) {
    return bd_float_of((uint32_t)(k + 127) << 23);
}

BD_INLINE float bd_magnitude(float x) {
    return x < 0.0f ? -x : x;
}

/* exp(x + low) for a small low. */
static inline float bd_exp_sum(float x, float low) {
    static const float p[] = {0.49999994f, 0.16666515f, 0.041668456f, 0.008369419f, 0.0013813145f};
    if (x != x) {
        return x;
    }
    float clamped = x < -104.0f ? -104.0f : x;
    clamped = clamped > 89.0f ? 89.0f : clamped;
    const float n = (clamped * BD_LOG2E + BD_ROUNDER) - BD_ROUNDER;
    const float r = ((clamped - n * BD_LN2_HIGH) - n * BD_LN2_LOW) + low;
    const float y = (BD_POLYNOMIAL(r, p) * (r * r) + r) + 1.0f;
    const int32_t k = (int32_t)n, half = k >> 1;
    return (y * bd_power_of_two(half)) * bd_power_of_two(k - half);
}

static inline float bd_exp(float x) {
    return bd_exp_sum(x, 0.0f);
}

static inline float bd_sigmoid(float x) {
    const float e = bd_exp(-bd_magnitude(x));
    const float p = 1.0f / (1.0f + e);
    return x < 0.0f ? e * p : p;
}

static inline float bd_tanh(float x) {
    static const float p[] = {-0.3333328f, 0.13331442f, -0.053739715f, 0.020639086f, -0.0057049864f};
    const float z = bd_magnitude(x);
    if (z < 0.625f) {
        const float u = x * x;
        return BD_POLYNOMIAL(u, p) * (u * x) + x;
    }
    const float big = 1.0f - 2.0f / (bd_exp(z + z) + 1.0f);
    return x < 0.0f ? -big : big;
}

/* 2 atanh(s), |s| <= 1/3, without its first term 2 s. */
static inline float bd_atanh_rest(float s) {
    static const float p[] = {0.6666641f, 0.400217f, 0.27999142f, 0.2802446f};
    const float u = s * s;
    return BD_POLYNOMIAL(u, p) * (u * s);
}

/* log(1 + exp(x)) */
static inline float bd_softplus(float x) {
    const float positive = x < 0.0f ? 0.0f : x;
    const float e = bd_exp(-bd_magnitude(x));
    const float s = e * (1.0f / (2.0f + e));
    return positive + (bd_atanh_rest(s) + (s + s));
}

static inline float bd_log(float x) {
    const int subnormal = x < bd_power_of_two(-126);
    if (!(x >= 0.0f)) {
        return bd_float_of(0x7fc00000u);
    }
    if (x == 0.0f) {
        return -bd_float_of(0x7f800000u);
    }
    if (x == bd_float_of(0x7f800000u)) {
        return x;
    }
    const uint32_t bits = bd_float_bits(subnormal ? x * 16777216.0f : x);
    const int32_t k = (int32_t)(bits >> 23) - 127 - (subnormal ? 24 : 0);
    float m = bd_float_of((bits & 0x007fffffu) | 0x3f800000u);
    const int large = m > 1.41421356f;
    m = large ? m * 0.5f : m;
    const float n = (float)(k + large);
    const float f = m - 1.0f;
    const float s = f * (1.0f / (2.0f + f));
    return n * BD_LN2_HIGH + ((bd_atanh_rest(s) + n * BD_LN2_LOW) + (s + s));
}

/* erfc(z) for 0 <= z <= 11, of which -z**2 = square + low. */
static inline float bd_erfc(float z, float square, float low) {
    static const float p[] = {0.28208503f, 0.2823998f,   0.24292558f, 0.20339169f, -0.028290538f,
                              0.28048205f, -0.48930883f, 0.28559247f, -0.0592773f};
    const float t = 1.0f / (z * 0.5f + 1.0f);
    return bd_exp_sum(square, low) * (BD_POLYNOMIAL(t, p) * t);
}

/* The upper 12 bits of the significand: their square is exact. */
BD_INLINE float bd_split(float z) {
    return bd_float_of(bd_float_bits(z) & 0xfffff000u);
}

static inline float bd_erf(float x) {
    static const float p[] = {0.12837917f,   -0.37612626f,    0.112835854f, -0.026853813f,
                              0.0051883277f, -0.00080101937f, 7.853861e-05f};
    float z = bd_magnitude(x);
    if (z < 1.0f) {
        return BD_POLYNOMIAL(x * x, p) * x + x;
    }
    z = z > 10.0f ? 10.0f : z;
    const float high = bd_split(z);
    const float big = 1.0f - bd_erfc(z, -(high * high), -((z - high) * (z + high)));
    return x < 0.0f ? -big : big;
}

/* x times the normal distribution function. */
static inline float bd_gelu(float x) {
    float z = bd_magnitude(x);
    z = z > 15.0f ? 15.0f : z;
    const float high = bd_split(z);
    const float square = high * high * -0.5f, low = (z - high) * (z + high) * -0.5f;
    const float tail = 0.5f * bd_erfc(z * BD_ROOT_HALF, square, low);
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

static inline float bd_gelu_tanh(float x) {
    return x * bd_sigmoid(1.5957691f * (x + 0.044715f * (x * x * x)));
}

static inline float bd_silu(float x) {
    return x * bd_sigmoid(x);
}

static inline float bd_mish(float x) {
    const float e = bd_exp(x > 20.0f ? 20.0f : x);
    const float w = e * (e + 2.0f);
    return x * (w * (1.0f / (w + 2.0f)));
}

static inline float bd_hard_sigmoid(float x) {
    float y = x + 3.0f;
    y = y < 0.0f ? 0.0f : y;
    y = y > 6.0f ? 6.0f : y;
    return y * 0.16666667f;
}

static inline float bd_hard_swish(float x) {
    return x * bd_hard_sigmoid(x);
}

static inline float bd_square(float x) {
    return x * x;
}

static inline float bd_abs(float x) {
    return bd_float_of(bd_float_bits(x) & 0x7fffffffu);
}

/* Correctly rounded: the root of the significand bit by bit, one bit more than it keeps. */
static inline float bd_sqrt(float x) {
    if (!(x > 0.0f)) { /* -0 and +0 stay; below, and NaN */
        return x == 0.0f ? x : bd_float_of(0x7fc00000u);
    }
    if (x == bd_float_of(0x7f800000u)) {
        return x;
    }
    const int subnormal = x < bd_power_of_two(-126);
    const uint32_t bits = bd_float_bits(subnormal ? x * 16777216.0f : x);
    const int32_t exponent = (int32_t)(bits >> 23) - 127 - (subnormal ? 24 : 0);
    /* x = m * 2**(e - 24) with e even and m of 25 or 26 bits; root of m * 2**24, 25 bits: 24 and one to round. */
    const uint32_t odd = (uint32_t)exponent & 1u;
    uint32_t left = ((bits & 0x007fffffu) | 0x00800000u) << (1u + odd);
    uint32_t root = 0, rest = 0;
    left <<= 6; /* 26 bits at the top */
    for (uint32_t i = 0; i < 25u; i++) {
        rest = (rest << 2) | (left >> 30);
        left <<= 2;
        root <<= 1;
        const uint32_t trial = (root << 1) | 1u;
        if (rest >= trial) {
            rest -= trial;
            root |= 1u;
        }
    }
    root = (root + 1u) >> 1; /* never half way between two floats: the square of an odd root would be odd */
    const int32_t half = (exponent - (int32_t)odd) / 2;
    return bd_float_of(((uint32_t)(half + 126) << 23) + root);
}

static inline float bd_rsqrt(float x) {
    return 1.0f / bd_sqrt(x);
}

#endif
