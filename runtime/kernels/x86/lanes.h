/* A vector of 32-bit lanes, of the set that a file is compiled for: what the x86-64 variants have in common. */
#ifndef BD_X86_LANES_H
#define BD_X86_LANES_H

#include <immintrin.h>

#include "bd_bits.h"

/* A loop of a few turns, a constant of the call, to be unrolled so that its vectors stay in registers. */
#ifdef __clang__
#    define BD_UNROLL _Pragma("unroll")
#else
#    define BD_UNROLL _Pragma("GCC unroll 16")
#endif
#define BD_EACH(i, count) BD_UNROLL for (uint32_t i = 0; i < (count); i++)

#ifdef __AVX512F__
#    define BD_LANES 16u
#    define BD_SET   avx512
typedef __m512i bd_lanes;
#    define bd_lanes_load(p)     _mm512_loadu_si512(p)
#    define bd_lanes_store(p, v) _mm512_storeu_si512(p, v)
#    define bd_lanes_zero()      _mm512_setzero_si512()
#    define bd_lanes_all(x)      _mm512_set1_epi32((int)(x))
#    define bd_lanes_xor         _mm512_xor_si512
#    define bd_lanes_or          _mm512_or_si512
#    define bd_lanes_and         _mm512_and_si512
#    define bd_lanes_and_not     _mm512_andnot_si512 /* ~a & b */
#    define bd_lanes_add         _mm512_add_epi32
#    define bd_lanes_sub         _mm512_sub_epi32
#else
#    define BD_LANES             8u
#    define BD_SET               avx2
typedef __m256i bd_lanes;
#    define bd_lanes_load(p)     _mm256_loadu_si256((const __m256i *)(const void *)(p))
#    define bd_lanes_store(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), v)
#    define bd_lanes_zero()      _mm256_setzero_si256()
#    define bd_lanes_all(x)      _mm256_set1_epi32((int)(x))
#    define bd_lanes_xor         _mm256_xor_si256
#    define bd_lanes_or          _mm256_or_si256
#    define bd_lanes_and         _mm256_and_si256
#    define bd_lanes_and_not     _mm256_andnot_si256 /* ~a & b */
#    define bd_lanes_add         _mm256_add_epi32
#    define bd_lanes_sub         _mm256_sub_epi32
#endif

/* The two bits of a + b + c, bit by bit. */
#ifdef __AVX512F__
#    define bd_lanes_odd(a, b, c)      _mm512_ternarylogic_epi32(a, b, c, 0x96)
#    define bd_lanes_majority(a, b, c) _mm512_ternarylogic_epi32(a, b, c, 0xe8)
#else
#    define bd_lanes_odd(a, b, c) _mm256_xor_si256(_mm256_xor_si256(a, b), c)
#    define bd_lanes_majority(a, b, c)                                                                       \
        _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(_mm256_xor_si256(a, b), c))
#endif

/* A variant of the set that this file is compiled for. */
#define BD_VARIANT_OF_SET_(kernel, set, run) BD_DEFINE_VARIANT(kernel, set, run)
#define BD_VARIANT_HERE(kernel, run)         BD_VARIANT_OF_SET_(kernel, BD_SET, run)

/* Counts of ones, to be summed by bd_ones_add and taken as 32-bit lanes by bd_ones_sum. AVX2 counts the nibbles of each byte
 * by a table; a byte holds the counts of 31 words. */
#ifdef __AVX512VPOPCNTDQ__
#    define BD_ONES_ROOM 0x7fffffffu
BD_INLINE bd_lanes bd_ones(bd_lanes v) {
    return _mm512_popcnt_epi32(v);
}

BD_INLINE bd_lanes bd_ones_add(bd_lanes a, bd_lanes b) {
    return _mm512_add_epi32(a, b);
}

BD_INLINE bd_lanes bd_ones_sum(bd_lanes v) {
    return v;
}
#else
#    define BD_ONES_ROOM 31u
BD_INLINE bd_lanes bd_ones(bd_lanes v) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2,
                                           2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i first = _mm256_shuffle_epi8(table, _mm256_and_si256(v, low));
    const __m256i second = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(v, 4), low));
    return _mm256_add_epi8(first, second);
}

BD_INLINE bd_lanes bd_ones_add(bd_lanes a, bd_lanes b) {
    return _mm256_add_epi8(a, b);
}

BD_INLINE bd_lanes bd_ones_sum(bd_lanes v) {
    const __m256i pairs = _mm256_maddubs_epi16(v, _mm256_set1_epi8(1));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#endif

/* A word of whatever lies there: floats, or pairs of int16. */
typedef uint32_t bd_any_word __attribute__((may_alias));

/* to[k * BD_LANES + o] = from[o * stride + k] for o < outputs, 0 for the other lanes. */
static inline void bd_to_lanes(void *lanes, const void *words, size_t stride, uint32_t outputs,
                               uint32_t count) {
    bd_any_word *to = lanes;
    const bd_any_word *from = words;
    uint32_t o = 0;
    for (; o + 8u <= outputs; o += 8u) {
        const bd_any_word *w = from + o * stride;
        uint32_t k = 0;
        for (; k + 8u <= count; k += 8u) {
            __m256i r[8], t[8];
            BD_EACH(i, 8u) {
                r[i] = _mm256_loadu_si256((const __m256i *)(const void *)(w + i * stride + k));
            }
            BD_UNROLL for (uint32_t i = 0; i < 8u; i += 2u) {
                t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1u]);
                t[i + 1u] = _mm256_unpackhi_epi32(r[i], r[i + 1u]);
            }
            BD_UNROLL for (uint32_t i = 0; i < 8u; i += 4u) {
                r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2u]);
                r[i + 1u] = _mm256_unpackhi_epi64(t[i], t[i + 2u]);
                r[i + 2u] = _mm256_unpacklo_epi64(t[i + 1u], t[i + 3u]);
                r[i + 3u] = _mm256_unpackhi_epi64(t[i + 1u], t[i + 3u]);
            }
            BD_EACH(i, 4u) {
                bd_any_word *at = to + (size_t)(k + i) * BD_LANES + o;
                _mm256_storeu_si256((__m256i *)(void *)at, _mm256_permute2x128_si256(r[i], r[i + 4u], 0x20));
                at += 4u * BD_LANES;
                _mm256_storeu_si256((__m256i *)(void *)at, _mm256_permute2x128_si256(r[i], r[i + 4u], 0x31));
            }
        }
        for (; k < count; k++) {
            BD_EACH(i, 8u) {
                to[(size_t)k * BD_LANES + o + i] = w[i * stride + k];
            }
        }
    }
    for (; o < BD_LANES; o++) {
        for (uint32_t k = 0; k < count; k++) {
            /* cppcheck-suppress uninitvar */ /* the words of all outputs are there */
            to[(size_t)k * BD_LANES + o] = o < outputs ? from[o * stride + k] : 0;
        }
    }
}

#endif
