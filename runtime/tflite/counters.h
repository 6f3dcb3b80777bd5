/* Bit-sliced counters: plane k holds bit k of one counter for each channel, 32 channels a word.
 *
 * A product of a bit or trit is 1 - a - b, with its two planes a and b (for a bit a = b), so a sum of products is
 * their number minus the ones in their planes. Those ones are what is counted: a few logical operations add a tap to 32
 * channels at once. */
#ifndef BDNET_TFLITE_COUNTERS_H
#define BDNET_TFLITE_COUNTERS_H

#include <stddef.h>
#include <stdint.h>

#define BT_PLANES 8   /* counters up to 255 */
#define BT_TAPS   127 /* so that both planes of all taps fit */

/* Runs of words of one tap: planes of the map and of the weights. b == a for bits. */
typedef struct bt_tap {
    const uint32_t *a, *b, *wa, *wb;
} bt_tap;

/* counters[planes][words] = start + the ones of all taps. */
typedef struct bt_count {
    uint32_t *counters;
    size_t words;
    const bt_tap *taps;
    int tap_count, start;
    int planes; /* 5, 6 or 8 */
    int kind;   /* 0: bits times bits, 1: trits times bits, 2: weights are trits */
} bt_count;

/* `level` is bt_cpu_level(). */
void bt_count_ones(const bt_count *count, int level);

/* What is made of a run of `pixels` pixels: acc = taps - counter for each of `channels` channels. */
typedef struct bt_finish {
    const uint32_t *counters;
    size_t words; /* of the whole run: the distance of two planes */
    int planes, pixels, channels, taps;
    const float *multiplier, *bias;  /* [channels] */
    const uint32_t *limits, *always; /* [planes][words of a pixel], [words of a pixel] */
} bt_finish;

void bt_finish_f32(const bt_finish *finish, float *to, int level);
void bt_finish_i32(const bt_finish *finish, int32_t *to, int level);
/* multiplier NULL: the accumulators, saturated. */
void bt_finish_i8(const bt_finish *finish, int8_t *to, int level);
/* Bit 1 where the counter is above its limit. */
void bt_finish_bits(const bt_finish *finish, uint32_t *to);

#endif
