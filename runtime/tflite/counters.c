#include "counters.h"

#include "cpu.h"
#include "operators.h"

#include <string.h>

#if defined(__GNUC__)
#    define BT_BLOCK 8 /* words of a vector */
typedef uint32_t block __attribute__((vector_size(4 * BT_BLOCK)));
#endif

/* A tap's planes are added to counters c, then carried upwards. */
#define ADD_TAP(TYPE, KIND, PLANES)                                                                          \
    TYPE a, b, wa, wb, carry;                                                                                \
    memcpy(&a, tap->a + i, sizeof(a));                                                                       \
    memcpy(&wa, tap->wa + i, sizeof(wa));                                                                    \
    a ^= wa;                                                                                                 \
    int first = 1;                                                                                           \
    if ((KIND) == 0) {                                                                                       \
        carry = a;                                                                                           \
    } else {                                                                                                 \
        memcpy(&b, tap->b + i, sizeof(b));                                                                   \
        b ^= wa;                                                                                             \
        if ((KIND) == 2) { /* a weight of 0 has planes 0 and 1 */                                            \
            memcpy(&wb, tap->wb + i, sizeof(wb));                                                            \
            const TYPE zero = wa ^ wb;                                                                       \
            a &= ~zero;                                                                                      \
            b |= zero;                                                                                       \
        }                                                                                                    \
        const TYPE one = a ^ b;                                                                              \
        carry = (a & b) | (c[0] & one);                                                                      \
        c[0] ^= one;                                                                                         \
    }                                                                                                        \
    for (; first < (PLANES); first++) {                                                                      \
        const TYPE next = c[first] & carry;                                                                  \
        c[first] ^= carry;                                                                                   \
        carry = next;                                                                                        \
    }

#define COUNT_BLOCKS(TYPE, STEP, KIND, PLANES)                                                               \
    for (; i + (STEP) <= words; i += (STEP)) {                                                               \
        TYPE c[PLANES];                                                                                      \
        for (int k = 0; k < (PLANES); k++) {                                                                 \
            c[k] = (TYPE){0} - (uint32_t)(start >> k & 1);                                                   \
        }                                                                                                    \
        for (const bt_tap *tap = taps; tap < end; tap++) {                                                   \
            ADD_TAP(TYPE, KIND, PLANES)                                                                      \
        }                                                                                                    \
        for (int k = 0; k < (PLANES); k++) {                                                                 \
            memcpy(counters + (size_t)k * words + i, &c[k], sizeof(TYPE));                                   \
        }                                                                                                    \
    }

#if defined(BT_BLOCK)
#    define COUNT_ALL(KIND, PLANES)                                                                          \
        COUNT_BLOCKS(block, BT_BLOCK, KIND, PLANES) COUNT_BLOCKS(uint32_t, 1, KIND, PLANES)
#else
#    define COUNT_ALL(KIND, PLANES) COUNT_BLOCKS(uint32_t, 1, KIND, PLANES)
#endif

#define COUNT_KINDS(PLANES)                                                                                  \
    if (count->kind == 0) {                                                                                  \
        COUNT_ALL(0, PLANES)                                                                                 \
    } else if (count->kind == 1) {                                                                           \
        COUNT_ALL(1, PLANES)                                                                                 \
    } else {                                                                                                 \
        COUNT_ALL(2, PLANES)                                                                                 \
    }

BT_INLINE void ones(const bt_count *count) {
    const bt_tap *const taps = count->taps, *const end = taps + count->tap_count;
    uint32_t *const counters = count->counters;
    const size_t words = count->words;
    const int start = count->start;
    size_t i = 0;
    if (count->planes == 5) {
        COUNT_KINDS(5)
    } else if (count->planes == 6) {
        COUNT_KINDS(6)
    } else {
        COUNT_KINDS(8)
    }
}
BT_VARIANTS(ones, (const bt_count *count), (count))

void bt_count_ones(const bt_count *count, int level) {
    ones_all[level](count);
}

#if defined(__has_builtin)
#    if __has_builtin(__builtin_shufflevector)
#        define BT_SHUFFLES
#    endif
#endif

/* Counters of the 32 channels of word i, as bytes. */
#if defined(BT_SHUFFLES) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
typedef uint8_t bytes16 __attribute__((vector_size(16)));

BT_INLINE void gather(const bt_finish *f, size_t i, uint8_t *to) {
    const bytes16 bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    bytes16 low = {0}, high = {0};
    for (int k = f->planes; k-- > 0;) { /* each plane's bits beside those of the planes above */
        bytes16 word = {0};
        memcpy(&word, f->counters + (size_t)k * f->words + i, 4);
        const bytes16 first =
            __builtin_shufflevector(word, word, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
        const bytes16 second =
            __builtin_shufflevector(word, word, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
        low = low + low - (bytes16)((first & bit) != 0);
        high = high + high - (bytes16)((second & bit) != 0);
    }
    memcpy(to, &low, 16);
    memcpy(to + 16, &high, 16);
}
#else
BT_INLINE void gather(const bt_finish *f, size_t i, uint8_t *to) {
    memset(to, 0, BT_WORD);
    for (int k = 0; k < f->planes; k++) {
        const uint32_t word = f->counters[(size_t)k * f->words + i];
        for (int j = 0; j < BT_WORD; j++) {
            to[j] = (uint8_t)(to[j] | (word >> j & 1u) << k);
        }
    }
}
#endif

#define FINISH(STORE)                                                                                        \
    size_t i = 0;                                                                                            \
    for (int p = 0; p < f->pixels; p++) {                                                                    \
        for (int c = 0; c < f->channels; c += BT_WORD, i++) {                                                \
            const int count = f->channels - c < BT_WORD ? f->channels - c : BT_WORD;                         \
            uint8_t n[BT_WORD];                                                                              \
            gather(f, i, n);                                                                                 \
            if (count == BT_WORD) {                                                                          \
                for (int j = 0; j < BT_WORD; j++) {                                                          \
                    const int acc = f->taps - n[j];                                                          \
                    STORE;                                                                                   \
                }                                                                                            \
            } else {                                                                                         \
                for (int j = 0; j < count; j++) {                                                            \
                    const int acc = f->taps - n[j];                                                          \
                    STORE;                                                                                   \
                }                                                                                            \
            }                                                                                                \
            to += count;                                                                                     \
        }                                                                                                    \
    }

BT_INLINE void finish_f32(const bt_finish *f, float *to){
    FINISH(to[j] = (float)acc * f -> multiplier[c + j] +
                   f->bias[c + j])} BT_VARIANTS(finish_f32, (const bt_finish *f, float *to), (f, to))

    BT_INLINE void finish_i32(const bt_finish *f, int32_t *to){
        FINISH(to[j] = acc)} BT_VARIANTS(finish_i32, (const bt_finish *f, int32_t *to), (f, to))

        BT_INLINE void finish_i8(const bt_finish *f, int8_t *to) {
    if (f->multiplier == NULL) {
        FINISH(to[j] = (int8_t)acc) /* at most BT_TAPS */
    } else {
        FINISH(to[j] = bt_round_int8((float)acc * f->multiplier[c + j] + f->bias[c + j]))
    }
}
BT_VARIANTS(finish_i8, (const bt_finish *f, int8_t *to), (f, to))

void bt_finish_f32(const bt_finish *finish, float *to, int level) {
    finish_f32_all[level](finish, to);
}

void bt_finish_i32(const bt_finish *finish, int32_t *to, int level) {
    finish_i32_all[level](finish, to);
}

void bt_finish_i8(const bt_finish *finish, int8_t *to, int level) {
    finish_i8_all[level](finish, to);
}

void bt_finish_bits(const bt_finish *f, uint32_t *to) {
    const size_t words = (size_t)bt_words(f->channels);
    const int rest = f->channels % BT_WORD;
    const uint32_t valid = rest == 0 ? UINT32_MAX : ((uint32_t)1 << rest) - 1u;
    for (size_t i = 0; i < f->words; i++) {
        const size_t w = i % words;
        uint32_t above = 0;
        for (int k = 0; k < f->planes;
             k++) { /* from the lowest bit, so that the highest that differs decides */
            const uint32_t n = f->counters[(size_t)k * f->words + i],
                           limit = f->limits[(size_t)k * words + w];
            above = (n & ~limit) | (~(n ^ limit) & above);
        }
        to[i] = (above | f->always[w]) & (w == words - 1 ? valid : UINT32_MAX);
    }
}
