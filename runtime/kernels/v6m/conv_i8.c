/* Convolution with 8-bit weights on Armv6-M. */
#include <stdint.h>

#define TAPS 40u

/* One tap: a weight, four values of pixels, four products; sums lie in high registers. */
#define TAP                                                                                                  \
    "ldmia %[x]!, {r0, r1, r2, r3}\n"                                                                        \
    "ldrsb r4, [%[w], %[i]]\n"                                                                               \
    "muls r0, r4, r0\n"                                                                                      \
    "muls r1, r4, r1\n"                                                                                      \
    "muls r2, r4, r2\n"                                                                                      \
    "muls r3, r4, r3\n"                                                                                      \
    "add %[s0], r0\n"                                                                                        \
    "add %[s1], r1\n"                                                                                        \
    "add %[s2], r2\n"                                                                                        \
    "add %[s3], r3\n"                                                                                        \
    "adds %[i], #1\n"

#define SUMS_OF_TAPS [s0] "+h"(s0), [s1] "+h"(s1), [s2] "+h"(s2), [s3] "+h"(s3), [x] "+l"(x), [i] "+l"(i)

static inline __attribute__((always_inline)) void multiply_four(int32_t sum[4], const int32_t (*pixels)[4],
                                                                const int8_t *w, uint32_t taps) {
    int32_t s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3];
    const int32_t *x = &pixels[0][0];
    int32_t i = -(int32_t)(taps & 3u);
    w += taps & 3u;
    if (i != 0) {
        __asm__ volatile("1:\n" TAP "bne 1b\n"
                         : SUMS_OF_TAPS
                         : [w] "l"(w)
                         : "r0", "r1", "r2", "r3", "r4", "cc", "memory");
    }
    i = -(int32_t)(taps & ~3u);
    w -= i;
    if (i != 0) {
        __asm__ volatile("1:\n" TAP TAP TAP TAP "bne 1b\n"
                         : SUMS_OF_TAPS
                         : [w] "l"(w)
                         : "r0", "r1", "r2", "r3", "r4", "cc", "memory");
    }
    sum[0] = s0, sum[1] = s1, sum[2] = s2, sum[3] = s3;
}

#define CONV_VARIANT(kernel, run) BD_DEFINE_VARIANT(kernel, v6m, run)
#include "../thumb/conv_i8.inc"
