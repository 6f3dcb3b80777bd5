/* Convolution with 8-bit weights on Armv7-M. */
#include <stdint.h>

#define TAPS 40u

/* One tap: a weight, four values of pixels, four products. */
#define TAP                                                                                                  \
    "ldrsb.w %[b], [%[w]], #1\n"                                                                             \
    "ldmia.w %[x]!, {r0, r1, r2, r3}\n"                                                                      \
    "mla %[s0], r0, %[b], %[s0]\n"                                                                           \
    "mla %[s1], r1, %[b], %[s1]\n"                                                                           \
    "mla %[s2], r2, %[b], %[s2]\n"                                                                           \
    "mla %[s3], r3, %[b], %[s3]\n"

static inline __attribute__((always_inline)) void multiply_four(int32_t sum[4], const int32_t (*pixels)[4],
                                                                const int8_t *w, uint32_t taps) {
    int32_t s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3], b;
    const int32_t *x = &pixels[0][0];
    uint32_t n = taps >> 2;
    __asm__ volatile("cbz %[n], 2f\n"
                     "1:\n" TAP TAP TAP TAP "subs %[n], %[n], #1\n"
                     "bne 1b\n"
                     "2:\n"
                     "ands %[n], %[taps], #3\n"
                     "beq 4f\n"
                     "3:\n" TAP "subs %[n], %[n], #1\n"
                     "bne 3b\n"
                     "4:\n"
                     : [s0] "+r"(s0), [s1] "+r"(s1), [s2] "+r"(s2), [s3] "+r"(s3), [x] "+r"(x), [w] "+r"(w),
                       [b] "=&r"(b), [n] "+l"(n)
                     : [taps] "r"(taps)
                     : "r0", "r1", "r2", "r3", "cc", "memory");
    sum[0] = s0, sum[1] = s1, sum[2] = s2, sum[3] = s3;
}

#define CONV_VARIANT(kernel, run) BD_DEFINE_VARIANT(kernel, v7m, run)
#include "../thumb/conv_i8.inc"
