/* Elements of every type as 32-bit lanes: loads, stores, and the arithmetic of fixed point. */
#ifndef BD_X86_ELEMENTS_H
#define BD_X86_ELEMENTS_H

#include "lanes.h"

#ifdef __AVX512F__
#    define MULTIPLY    _mm512_mullo_epi32
#    define LARGER      _mm512_max_epi32
#    define SMALLER     _mm512_min_epi32
#    define LEFT(v, n)  _mm512_sll_epi32(v, _mm_cvtsi32_si128(n))
#    define RIGHT(v, n) _mm512_sra_epi32(v, _mm_cvtsi32_si128(n))
#else
#    define MULTIPLY    _mm256_mullo_epi32
#    define LARGER      _mm256_max_epi32
#    define SMALLER     _mm256_min_epi32
#    define LEFT(v, n)  _mm256_sll_epi32(v, _mm_cvtsi32_si128(n))
#    define RIGHT(v, n) _mm256_sra_epi32(v, _mm_cvtsi32_si128(n))
#endif

/* bd_clamp, with the same wrapping differences. */
BD_INLINE bd_lanes bd_lanes_clamp(bd_lanes v, bd_lanes least, bd_lanes largest) {
    const bd_lanes raised = bd_lanes_add(least, LARGER(bd_lanes_sub(v, least), bd_lanes_zero()));
    return bd_lanes_add(largest, SMALLER(bd_lanes_sub(raised, largest), bd_lanes_zero()));
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

#endif
