/* Packed epilogues of Cortex-M: one array of records, in the order in which a loop reads them.
 *
 *     v = saturate(((acc * mul + residual * m + add) >> 16) + (residual & keep))
 *     y = v where v >= 0, else (v * slope) >> 16
 *     out[0] = y, out[1] = y compared with thresholds
 *
 * `mul` has the left shift of bd_epilogue.shift in it; accumulators of 32 bits are first shifted to the right and saturated,
 * as bd_epilogue says. The exporter packs epilogues whose positive slopes are 1, others above -1 and up to 1, and whose
 * `mul` has no k part. Slopes of a steep form may be any (word: between -2 and 2).
 *
 * Array: a word of BD_RES_* and BD_FORM_* bits, three words of 0, then records of words, with those in brackets where the
 * form has them:
 *
 * quad, records of channels c and c + 1 in ascending order; halves: c in the lower one. An odd channel has a whole record.
 *     mul(c), mul(c + 1), add(c), add(c + 1), [m halves], slope(c), slope(c + 1), [keep halves], low halves, [high halves]
 * word, records of one channel, from the last of every 32 (or of the rest of a pixel) down to the first:
 *     mul, [m], slope - 65536 (steep: its m part), add, [keep], [steep: the slope's k part], low, [high] */
#ifndef BD_RECORDS_H
#define BD_RECORDS_H

#include "bd_epilogue.h"

enum {
    BD_RES_NONE = 0, /* no residual */
    BD_RES_ONE = 1,  /* its factor is 1: m is 0, keep all ones */
    BD_RES_LOW = 2,  /* quad: from -1/2 to 1/2, keep is 0 */
    BD_RES_ALL = 3,  /* quad: keep is all ones */
    BD_RES_MIXED = 4,
    BD_RES_WIDE = 5, /* word: m is the whole factor, keep is 0; v was proved to fit */
    BD_RES = 7,
    BD_FORM_FITS = 8,   /* v was proved to fit: it is not saturated */
    BD_FORM_TRITS = 16, /* a second threshold */
    BD_FORM_STEEP = 32  /* slopes beyond that, with a saturation: no residual, or BD_RES_MIXED */
};

#define BD_RECORD_HEAD 4u /* words in front of the records */

/* An epilogue at work on one row. */
typedef struct bd_record_row {
    const bd_view *in, *out;
    bd_epilogue_rows at;
    const uint32_t *records;
    uint32_t form, channels, words; /* words: of a record */
    int shift;                      /* of accumulators of 32 bits */
    int narrow;                     /* y has 8 bits */
} bd_record_row;

/* Everything but the rows themselves. */
bd_record_row bd_quad_row(const bd_step *step, const uint8_t *constants, const bd_view in[],
                          const bd_view out[]);
bd_record_row bd_word_row(const bd_step *step, const uint8_t *constants, const bd_view in[],
                          const bd_view out[]);

/* Channels first .. channels - 1 of pixel x, one by one. Packed words that begin below `first`, a multiple of 8, have the bits
 * up to it and 0 above. */
void bd_quad_channels(const bd_record_row *row, uint32_t x, uint32_t first);
void bd_word_channels(const bd_record_row *row, uint32_t x, uint32_t first);

/* Accumulator c of a pixel as a number of 16 bits. */
int32_t bd_record_acc(const bd_record_row *row, uint32_t x, uint32_t c);

#endif
