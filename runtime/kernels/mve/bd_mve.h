/* What the kernels for Armv8.1-M vectors share. */
#ifndef BD_MVE_H
#define BD_MVE_H

#include <arm_mve.h>

#include "bd_bits.h"
#include "bd_window.h"

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

/* Columns of the output whose windows lie in the map. */
static inline bd_taps bd_inner_columns(const bd_step *step, const bd_view *in, const bd_view *out) {
    const uint32_t reach = (step->kernel_w - 1u) * step->dilation_w, pad = step->pad_left, s = step->stride_w;
    bd_taps taps = {(pad + s - 1u) / s, 0};
    if (in->width + pad > reach) {
        taps.end = (in->width + pad - reach - 1u) / s + 1u;
    }
    taps.end = taps.end < out->width ? taps.end : out->width;
    return taps;
}

#endif
