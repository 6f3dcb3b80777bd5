/* What the float and the fixed epilogue for x86-64 share: which steps they take, and loads and stores of lanes.
 *
 * Some pixels at a time, lane by lane of their channels, so that parameters are loaded once for these pixels. Lanes behind
 * the last channel are copied to and from zeros. */
#ifndef BD_X86_EPILOGUE_H
#define BD_X86_EPILOGUE_H

#include "bd_epilogue.h"
#include "lanes.h"

#define TOGETHER 4u /* pixels */

typedef struct bd_epilogue_job {
    const bd_epilogue *e;
    const uint8_t *constants;
    const bd_view *in, *out;
    bd_epilogue_rows rows;
    uint32_t channels; /* of the outputs */
} bd_epilogue_job;

/* Whether lanes of a block lie together in an operand that repeats its channels. */
BD_INLINE int bd_repeats_blocks(uint32_t own, uint32_t channels) {
    return own == channels || own % BD_LANES == 0;
}

/* Elements, not levels; anything else is left to the generic kernel. */
static inline int bd_takes(const bd_step *step, const bd_epilogue *e, const bd_view in[]) {
    const uint32_t channels = bd_epilogue_channels(step, e);
    return in[0].dtype < BD_BIT && bd_repeats_blocks(in[0].channels, channels) &&
           (e->residual_mul == BD_ABSENT ||
            (in[1].dtype < BD_BIT && bd_repeats_blocks(in[1].channels, channels)));
}

/* n elements of up to 4 bytes, with zeros behind them. */
BD_INLINE const uint8_t *bd_copied(uint8_t to[4u * BD_LANES], const uint8_t *from, uint32_t bytes) {
    for (uint32_t i = 0; i < 4u * BD_LANES; i++) {
        to[i] = i < bytes ? from[i] : 0;
    }
    return to;
}

BD_INLINE uint32_t bd_bytes_of(uint32_t dtype) {
    return dtype == BD_I16 ? 2u : dtype == BD_U8 || dtype == BD_I8 ? 1u : 4u;
}

#ifdef __AVX512F__
BD_INLINE bd_lanes bd_widened(const uint8_t *p, uint32_t dtype) {
    if (dtype == BD_I16) {
        return _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    }
    if (dtype == BD_I8) {
        return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    }
    if (dtype == BD_U8) {
        return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    }
    return bd_lanes_load(p);
}

BD_INLINE void bd_narrowed(uint8_t *p, bd_lanes v, uint32_t dtype) {
    if (dtype == BD_I16) {
        _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(v));
    } else if (dtype == BD_I8 || dtype == BD_U8) {
        _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(v));
    } else {
        bd_lanes_store(p, v);
    }
}
#else
BD_INLINE bd_lanes bd_widened(const uint8_t *p, uint32_t dtype) {
    if (dtype == BD_I16) {
        return _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    }
    if (dtype == BD_I8) {
        return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    }
    if (dtype == BD_U8) {
        return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    }
    return bd_lanes_load(p);
}

BD_INLINE void bd_narrowed(uint8_t *p, bd_lanes v, uint32_t dtype) {
    if (dtype == BD_I16) {
        const __m256i low = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1, 0, 1,
                                             4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
        const __m256i halves = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(v, low), 0x08);
        _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(halves));
    } else if (dtype == BD_I8 || dtype == BD_U8) {
        const __m256i low = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0,
                                             4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
        const __m256i bytes = _mm256_shuffle_epi8(v, low);
        const __m128i both =
            _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
        _mm_storel_epi64((__m128i *)(void *)p, both);
    } else {
        bd_lanes_store(p, v);
    }
}
#endif

/* n elements of that type from element `at` on, as 32 bits (a float's as they are). n is BD_LANES but for the last. */
BD_INLINE bd_lanes bd_load_block(const uint8_t *row, size_t at, uint32_t dtype, uint32_t n) {
    uint8_t copy[4u * BD_LANES];
    const uint32_t bytes = bd_bytes_of(dtype);
    const uint8_t *p = row + at * bytes;
    return bd_widened(n == BD_LANES ? p : bd_copied(copy, p, n * bytes), dtype);
}

BD_INLINE void bd_store_block(uint8_t *row, size_t at, uint32_t dtype, uint32_t n, bd_lanes v) {
    const uint32_t bytes = bd_bytes_of(dtype);
    uint8_t *p = row + at * bytes;
    if (n == BD_LANES) {
        bd_narrowed(p, v, dtype);
        return;
    }
    uint8_t copy[4u * BD_LANES];
    bd_narrowed(copy, v, dtype);
    for (uint32_t i = 0; i < n * bytes; i++) {
        p[i] = copy[i];
    }
}

/* Bits of n channels from c on, of a plane whose words of this pixel begin at `words`. A word's first block clears it. */
BD_INLINE void bd_store_bits(uint32_t *words, uint32_t c, uint32_t n, uint32_t bits) {
    uint32_t *word = words + c / 32u;
    const uint32_t own = (n == BD_LANES ? bits : bits & ((1u << n) - 1u)) << (c % 32u);
    *word = c % 32u == 0 ? own : *word | own;
}

BD_INLINE bd_lanes bd_parameter_block(const bd_epilogue_job *j, uint32_t offset, uint32_t c, uint32_t n) {
    return bd_load_block(j->constants + offset, c, BD_I32, n);
}

#endif
