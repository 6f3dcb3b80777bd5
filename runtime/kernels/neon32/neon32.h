/* What the kernels for 32-bit Arm with NEON share. */
#ifndef BD_NEON32_H
#define BD_NEON32_H

#include <arm_neon.h>

/* In front of short loops of known length: their arrays are registers. For small processors compilers leave them as loops. */
#if defined(__clang__)
#    define UNROLLED _Pragma("clang loop unroll(full)")
#else
#    define UNROLLED _Pragma("GCC unroll 16")
#endif

/* Ends the work on `value` here: interleaved, intermediate results may take more registers than there are. */
#define IN_ORDER(value) __asm__ volatile("" : "+w"(value))

#endif
