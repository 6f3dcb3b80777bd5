/* The packing "tile16" of binary convolutions: weights in the order in which 16 outputs are computed at once, by vectors of
 * 128 bits. For windows 1x1 and 3x3 that pad by one pixel at most, channels in multiples of 64 and outputs of 16; and for 1x1
 * of 8, 16 or 32 channels.
 *
 * A window has H = taps * channels / 64 halves of vectors: tap by tap, but with 3x3 taps of 64 channels the last taps of the
 * three rows stand behind all others. Two neighbours make a vector; of an odd number the last is a half, and those of two
 * outputs share a vector. Vectors come in chunks of `vectors`, which lie in one row of the window:
 *
 *     weights:  [outputs / 16][chunk][16 outputs][vectors][16 bytes], and where there is a shared half
 *               [outputs / 16][4]{ [4 outputs][vectors][16 bytes], [4 outputs][8 bytes] }, so that loads come in pairs
 *     ones:     uint16 [9][outputs]: the number of -1 among a tap's weights; 3x3 only
 *     low:      int16 [outputs]: the thresholds; packed outputs only
 *
 * Of 8, 16 or 32 channels the weights are uint8 [outputs][channels / 8]: what a shared half is to two outputs, a vector is to 16,
 * 8 or 4 of them.
 *
 * Padding is stored as +1. Where it stands for 0, a padded tap has mismatched in its ones: with `seen` channels inside of the
 * map and c mismatches in all, the accumulator is (seen + 2 ones of the padded taps) - 2 c = addend - 2 c. A packed output is
 * 1 (negative) where addend - 2 c < low, which is (addend - low) >> 1 < c. */
#ifndef BD_TILE16_H
#define BD_TILE16_H

#include "bd_bits.h"
#include "bd_check.h"

typedef struct bd_tile16 {
    uint32_t halves;  /* of a window */
    uint32_t chunks;  /* chunks of whole vectors */
    uint32_t vectors; /* of a chunk */
    uint32_t shared;  /* 1: a half is left */
    uint32_t half;    /* bytes of a half: 8, or of fewer than 64 channels theirs */
} bd_tile16;

/* Vectors of a chunk, of a row of the window with so many: kernels have bodies for these. */
static inline uint32_t bd_tile16_chunk(uint32_t vectors) {
    return vectors % 3u == 0 ? 3u : vectors % 4u == 0 ? 4u : vectors == 2u ? 2u : 1u;
}

/* vectors = 0 and shared = 0: not for this packing. */
static inline bd_tile16 bd_tile16_of(uint32_t taps, uint32_t channels) {
    bd_tile16 t = {0, 0, 0, 0, 8};
    const uint32_t halves = channels / 64u;
    if (taps == 1u && (channels == 8u || channels == 16u || channels == 32u)) {
        t.halves = t.shared = 1;
        t.half = channels / 8u;
        return t;
    }
    if (channels % 64u != 0 || channels == 0 || (taps != 1u && taps != 9u)) {
        return t;
    }
    t.halves = taps * halves;
    if (t.halves % 2u != 0) { /* one chunk: 1x1 of up to 320 channels, 3x3 of 64 */
        t.shared = t.halves <= 5u || t.halves == 9u;
        t.vectors = t.shared ? t.halves / 2u : 0;
        t.chunks = t.vectors != 0;
        return t;
    }
    t.vectors = bd_tile16_chunk(taps == 9u ? 3u * halves / 2u : halves / 2u);
    t.chunks = t.halves / 2u / t.vectors;
    return t;
}

static inline uint32_t bd_tile16_taps(const bd_step *step) {
    const int one = step->kernel_h == 1 && step->kernel_w == 1;
    const int nine = step->kernel_h == 3 && step->kernel_w == 3;
    return one ? 1u : nine ? 9u : 0u;
}

/* Bytes of the weights of all outputs; ones and thresholds follow. */
static inline uint32_t bd_tile16_bytes(const bd_tile16 *t, uint32_t outputs) {
    return outputs * t->halves * t->half;
}

/* Pixels of a padded row of the input. */
static inline uint32_t bd_tile16_columns(const bd_step *step) {
    return ((uint32_t)step->out_width - 1u) * step->stride_w + step->kernel_w;
}

/* Scratch: three padded rows, 3x3 only; then four arrays of addends, for pixels that miss the left (1) or right (2) taps. */
static inline uint32_t bd_tile16_row_bytes(const bd_step *step, uint32_t channels) {
    return step->kernel_h == 1 ? 0u : (bd_tile16_columns(step) * (channels / 8u) + 15u) / 16u * 16u;
}

static inline uint32_t bd_tile16_scratch(const bd_step *step, uint32_t channels) {
    return 3u * bd_tile16_row_bytes(step, channels) + 8u * step->out_channels;
}

/* Taps that lie in the padding: 1 the first one, 2 the last one of three. */
static inline uint32_t bd_tile16_missing(const bd_step *step, int32_t first, uint32_t size) {
    return step->kernel_h == 1 || step->pad_value != 0
               ? 0u
               : (first < 0 ? 1u : 0u) | (first + 2 >= (int32_t)size ? 2u : 0u);
}

bd_status bd_tile16_check(const bd_step *step, const bd_view in[], const bd_view out[], uint32_t dtype,
                          uint32_t *scratch_bytes);

#endif
