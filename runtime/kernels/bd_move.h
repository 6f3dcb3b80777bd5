/* Runs of elements, and of bits of packed pixels, from map to map. */
#ifndef BD_MOVE_H
#define BD_MOVE_H

#include "bd_bits.h"

#if defined(__GNUC__)
/* A word over elements of any type. */
typedef uint32_t __attribute__((may_alias)) bd_any_word;
#endif

/* Bytes, by words where both sides are aligned alike. */
static inline void bd_move_bytes(uint8_t *restrict to, const uint8_t *restrict from, uint32_t count) {
#if defined(__GNUC__)
    if ((((uintptr_t)to | (uintptr_t)from) & 3u) == 0) {
        bd_any_word *words = (bd_any_word *)(void *)to;
        const bd_any_word *source = (const bd_any_word *)(const void *)from;
        for (uint32_t i = 0; i < count / 4u; i++) {
            words[i] = source[i];
        }
        to += count & ~3u;
        from += count & ~3u;
        count &= 3u;
    }
#endif
    for (uint32_t i = 0; i < count; i++) {
        to[i] = from[i];
    }
}

/* Elements of 1, 2 or 4 bytes. Operands do not overlap. */
BD_INLINE void bd_move_elements(uint8_t *to, const uint8_t *from, uint32_t count, uint32_t bytes) {
    if (bytes == 1u) {
        bd_move_bytes(to, from, count);
    } else if (bytes == 2u) {
        uint16_t *t = (void *)to;
        const uint16_t *f = (const void *)from;
        for (uint32_t i = 0; i < count; i++) {
            t[i] = f[i];
        }
    } else {
        uint32_t *t = (void *)to;
        const uint32_t *f = (const void *)from;
        for (uint32_t i = 0; i < count; i++) {
            t[i] = f[i];
        }
    }
}

/* `count` elements whose bytes are the low ones of `value`. */
BD_INLINE void bd_fill_elements(uint8_t *to, uint32_t value, uint32_t count, uint32_t bytes) {
    uint16_t *halves = (void *)to;
    uint32_t *words = (void *)to;
    for (uint32_t i = 0; i < count; i++) {
        if (bytes == 1u) {
            to[i] = (uint8_t)value;
        } else if (bytes == 2u) {
            halves[i] = (uint16_t)value;
        } else {
            words[i] = value;
        }
    }
}

static inline void bd_clear_words(uint32_t *to, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        to[i] = 0;
    }
}

/* The lowest n bits, n from 1 to 32. */
BD_INLINE uint32_t bd_low_ones(uint32_t n) {
    return 0xffffffffu >> ((0u - n) & 31u);
}

/* Bits start .. start + count - 1 of one pixel to bits at .. of another, which are 0 before. */
static inline void bd_move_bits(uint32_t *to, uint32_t at, const uint32_t *from, uint32_t start,
                                uint32_t count) {
    while (count != 0) {
        const uint32_t bit = at & 31u, shift = start & 31u;
        const uint32_t room = 32u - bit, n = count < room ? count : room;
        uint32_t word = from[start >> 5] >> shift;
        if (shift + n > 32u) { /* so shift is not 0, and the next word is the pixel's, too */
            word |= from[(start >> 5) + 1u] << (32u - shift);
        }
        to[at >> 5] |= (word & bd_low_ones(n)) << bit;
        at += n;
        start += n;
        count -= n;
    }
}

/* The same of one bit repeated; `ones` is its mask, all ones or 0. */
static inline void bd_fill_bits(uint32_t *to, uint32_t at, uint32_t count, uint32_t ones) {
    while (count != 0) {
        const uint32_t bit = at & 31u, room = 32u - bit, n = count < room ? count : room;
        to[at >> 5] |= (ones & bd_low_ones(n)) << bit;
        at += n;
        count -= n;
    }
}

/* Bit planes of a packed dtype. */
BD_INLINE uint32_t bd_planes(uint32_t dtype) {
    return dtype == BD_TRIT ? 2u : 1u;
}

#endif
