/* What the kernels for Armv8.1-M vectors share. */
#ifndef BD_MVE_H
#define BD_MVE_H

#include <arm_mve.h>

#include "bd_bits.h"

typedef uint8x16_t bytes;

/* Ones of every byte: there is no such instruction, but a table that a gathering load reads. */
extern const uint8_t bd_mve_ones[256];

BD_INLINE bytes bd_ones(bytes v) {
    return vldrbq_gather_offset_u8(bd_mve_ones, v);
}

/* As many bytes as are left, then zeros. */
BD_INLINE bytes bd_bytes_at(const uint8_t *from, uint32_t left) {
    return vldrbq_z_u8(from, vctp8q(left));
}

#endif
