/* The packing "lut7" of binary convolutions: weights as indices into tables over 7 pixels (the "method of four
 * Russians", with the pixels in parallel).
 *
 * A table word has one nibble for each of 7 pixels. The table of a group of g input channels has 2^g words, entry e the number
 * of these channels in which the pixel differs from pattern e. So a weight is an index for every g channels, and a look-up
 * counts the mismatches of 7 g products.
 *
 * Channels are divided into slabs, whose tables are in memory together, and a slab into groups:
 *
 *     slab of 64   7 6 6 | 7 6 6 | 7 6 6 | 7    blocks of at most 256 words of tables, 896 in all
 *     slab of 32   7 6 6 | 7 6                  448 words
 *     slab of 16   4 4 4 4                      64 words
 *     slab of 8    4 4                          32 words
 *
 * A window of more taps than one is gathered for each of the 7 pixels, and its channels are divided like those of one pixel: a
 * tap takes 8 or 16 channels, or a multiple of 32.
 *
 * While more than 48 channels are left the next slab has 64, while more than 16 are left 32, then 16 or 8; channels beyond the
 * last are 0 in weights and maps. An index is a byte and counts words from the start of its block.
 *
 *     weights: uint8 [slab][outputs][indices of the slab]
 *     borders: uint32 [taps][outputs / 2], windows only: see below
 *     biases:  uint16 [outputs], 0 .. 0x8000, packed outputs only: a bit is bit 15 of mismatches + bias
 *
 * Accumulators are the numbers of mismatches n; the sum of products is taps * channels - 2 n. A padded tap stands in the window
 * as +1. Where it shall count as 0, half of its channels have to mismatch: a border is channels / 2 less the mismatches of the
 * tap's weights with +1, of two outputs as one number, first + 65536 * second, modulo 2^32. */
#ifndef BD_LUT7_H
#define BD_LUT7_H

#include "bd_bits.h"
#include "bd_check.h"

#define BD_LUT7_PIXELS 7u
#define BD_LUT7_MOST   10u /* indices of a slab */

static inline uint32_t bd_lut7_taps(const bd_step *step) {
    return (uint32_t)step->kernel_h * step->kernel_w;
}

/* Channels that a tap takes in a window. */
static inline uint32_t bd_lut7_tap(uint32_t channels) {
    return channels <= 8u ? 8u : channels <= 16u ? 16u : 32u * bd_words(channels);
}

/* Channels of the whole window; of one tap only those that the map has. */
static inline uint32_t bd_lut7_channels(const bd_step *step, uint32_t channels) {
    const uint32_t taps = bd_lut7_taps(step);
    return taps == 1u ? channels : taps * bd_lut7_tap(channels);
}

/* Channels of the next slab. */
static inline uint32_t bd_lut7_slab(uint32_t left) {
    return left > 48u ? 64u : left > 16u ? 32u : left > 8u ? 16u : 8u;
}

/* Indices of a slab, for each output. */
static inline uint32_t bd_lut7_indices(uint32_t slab) {
    return slab == 64u ? 10u : slab == 32u ? 5u : slab / 4u;
}

/* Words of a slab's tables. */
static inline uint32_t bd_lut7_words(uint32_t slab) {
    return slab >= 32u ? 14u * slab : 4u * slab;
}

/* Channels of group i. */
static inline uint32_t bd_lut7_group(uint32_t slab, uint32_t i) {
    return slab < 32u ? 4u : i % 3u == 0 ? 7u : 6u;
}

/* What an index of group i counts from: words behind the start of its block. */
static inline uint32_t bd_lut7_start(uint32_t slab, uint32_t i) {
    return slab < 32u ? 16u * i : i % 3u == 0 ? 0 : 64u + 64u * (i % 3u);
}

/* Indices of an output in all slabs. */
static inline uint32_t bd_lut7_bytes(uint32_t channels) {
    uint32_t bytes = 0;
    for (uint32_t at = 0; at < channels;) {
        const uint32_t slab = bd_lut7_slab(channels - at);
        bytes += bd_lut7_indices(slab);
        at += slab;
    }
    return bytes;
}

/* Scratch: the tables of a slab, and a word for each of its channels; then, for packed outputs, counts of 7 pixels; then, for
 * windows, those of 7 pixels. The first slab is the largest. */
static inline uint32_t bd_lut7_tables(uint32_t channels) {
    const uint32_t slab = bd_lut7_slab(channels);
    return 4u * (bd_lut7_words(slab) + slab);
}

static inline uint32_t bd_lut7_counts(const bd_view *out) {
    return out->dtype == BD_BIT ? 2u * BD_LUT7_PIXELS * out->channels : 0;
}

static inline uint32_t bd_lut7_windows(const bd_step *step, uint32_t channels) {
    const uint32_t all = bd_lut7_channels(step, channels);
    return bd_lut7_taps(step) == 1u ? 0 : 4u * BD_LUT7_PIXELS * bd_words(all);
}

/* The window of output (y, x) as words. */
void bd_lut7_gather(uint32_t *to, const bd_step *step, const bd_view *in, uint32_t y, uint32_t x);

/* Adds the borders of the taps of output (y, x) that lie outside of the map to the counts of its outputs, two a word. */
void bd_lut7_add_borders(uint32_t *counts, const uint32_t *borders, const bd_step *step, const bd_view *in,
                         uint32_t y, uint32_t x);

bd_status bd_lut7_check(const bd_step *step, const uint8_t *constants, const bd_view in[],
                        const bd_view out[], uint32_t dtype, uint32_t *scratch_bytes);

#endif
