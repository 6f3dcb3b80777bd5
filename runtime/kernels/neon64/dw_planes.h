/* Depth-wise 3x3 convolution of bits and trits with bit weights on AArch64: 128 bits at once, in bit planes. What all bodies share.
 *
 * Of three bits x0 x1 x2 of a column and weights w0 w1 w2, the mismatches x ^ w have the sum s + 2 c with
 *     s = x012 ^ w012,  c = ((x01 ^ w01) | (x02 ^ w02)) ^ s
 * where x01 = x0 ^ x1 and so on. These forms of a column are made once and serve three pixels, as those of the weights serve
 * the row: a full adder of three products costs five instructions. Rows and columns outside of the map are left out.
 *
 * A count in four planes becomes bytes by two rounds of exchanged bits; channel 8 i + q of byte i of the planes then lies
 * in byte i of vector q, and one round of zips with st4 puts channels in order. */
#ifndef BD_NEON64_DW_PLANES_H
#define BD_NEON64_DW_PLANES_H

#include <arm_neon.h>

#include "bd_bits.h"

/* The compiler knows nothing about this value. */
#define HIDE(value) __asm__("" : "+w"(value))

typedef uint8x16_t bytes;

/* Bits of a where mask is 1, else of b. Written as vbslq_u8, it becomes two ands and an or where the compiler knows too much
 * of the mask, or moves its complement out of the loop. */
BD_INLINE bytes select(bytes mask, bytes a, bytes b) {
    __asm__("bit %0.16b, %1.16b, %2.16b" : "+w"(b) : "w"(a), "w"(mask));
    return b;
}

/* Bits of a column of three rows: x0 ^ x1, x0 ^ x2, x0 ^ x1 ^ x2; of two rows: x0, x1. */
typedef struct column {
    bytes u, v, s;
} column;

/* s + 2 c */
typedef struct pair {
    bytes s, c;
} pair;

BD_INLINE column load_column(const uint8_t *const rows[3], size_t at, uint32_t height) {
    const bytes x0 = vld1q_u8(rows[0] + at), x1 = vld1q_u8(rows[1] + at);
    column f = {x0, x1, x1};
    if (height == 3u) {
        const bytes x2 = vld1q_u8(rows[2] + at);
        f.u = veorq_u8(x0, x1);
        f.v = veorq_u8(x0, x2);
        f.s = veorq_u8(f.u, x2);
    }
    return f;
}

BD_INLINE pair count_column(const column *x, const column *w, uint32_t height) {
    const bytes u = veorq_u8(x->u, w->u), v = veorq_u8(x->v, w->v);
    pair sum;
    if (height == 3u) {
        sum.s = veorq_u8(x->s, w->s);
        sum.c = veorq_u8(vorrq_u8(u, v), sum.s);
    } else {
        sum.s = veorq_u8(u, v);
        sum.c = vandq_u8(u, v);
    }
    return sum;
}

BD_INLINE pair add3(bytes a, bytes b, bytes c) {
    const bytes differ = veorq_u8(a, b);
    const pair sum = {veorq_u8(differ, c), select(differ, c, a)};
    return sum;
}

BD_INLINE pair add2(bytes a, bytes b) {
    const pair sum = {veorq_u8(a, b), vandq_u8(a, b)};
    return sum;
}

/* Mismatches of two or three columns: ones, two numbers of twos, and fours. */
typedef struct sums {
    bytes one, two, also_two, four;
} sums;

BD_INLINE sums add_columns(const pair c[3], uint32_t columns) {
    const pair s = columns == 3u ? add3(c[0].s, c[1].s, c[2].s) : add2(c[0].s, c[1].s);
    const pair t = columns == 3u ? add3(c[0].c, c[1].c, c[2].c) : add2(c[0].c, c[1].c);
    const sums r = {s.s, s.c, t.s, t.c};
    return r;
}

/* Planes of weights that a table knows; their sum is n. They need not be the binary digits of it. */
typedef struct planes {
    bytes p[5];
} planes;

/* 1 2 2 4: n up to 9. */
BD_INLINE planes count_bits(const sums *a) {
    const planes n = {{a->one, a->two, a->also_two, a->four, a->four}};
    return n;
}

/* 1 2 4 4 8: n up to 18. */
BD_INLINE planes count_trits(const sums *a, const sums *b) {
    const pair one = add2(a->one, b->one);
    const pair two = add3(a->two, b->two, one.c), more = add3(two.s, a->also_two, b->also_two);
    const pair four = add3(a->four, b->four, two.c);
    const planes n = {{one.s, more.s, four.s, more.c, four.c}};
    return n;
}

/* 1 where any two of three are. */
BD_INLINE bytes carry3(bytes a, bytes b, bytes c) {
    return select(veorq_u8(a, b), c, a);
}

/* Ones where n + limit + 1 takes a bit more than the limit has. */
BD_INLINE bytes carry_of_bits(const sums *a, const bytes limit[5]) {
    const bytes by_two = vorrq_u8(a->one, limit[0]);
    const pair two = add3(a->two, a->also_two, limit[1]);
    const pair four = add3(a->four, limit[2], two.c);
    return carry3(limit[3], four.c, vandq_u8(four.s, vandq_u8(two.s, by_two)));
}

BD_INLINE bytes carry_of_trits(const sums *a, const sums *b, const bytes limit[5]) {
    const pair one = add3(a->one, b->one, limit[0]); /* with the 1, its sum and its carry are twos */
    const pair t = add3(a->two, a->also_two, one.s), u = add3(b->two, b->also_two, one.c);
    const bytes by_four = carry3(t.s, u.s, limit[1]);
    const pair f = add3(a->four, t.c, limit[2]), g = add3(b->four, u.c, by_four);
    const pair eight = add3(f.c, g.c, limit[3]);
    return carry3(limit[4], eight.c, vandq_u8(eight.s, vandq_u8(f.s, g.s)));
}

/* What the planes are worth: taps - 2 n of bits, taps - n of trits; by their bits in ascending order. */
BD_INLINE uint8x16x2_t table_of(uint32_t taps, uint32_t trits) {
    static const uint8_t bits[16] = {0, 2, 4, 6, 4, 6, 8, 10, 8, 10, 12, 14, 12, 14, 16, 18};
    static const uint8_t levels[16] = {0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7, 8, 9, 10, 11};
    const bytes all = vdupq_n_u8((uint8_t)taps), low = vsubq_u8(all, vld1q_u8(trits ? levels : bits));
    const uint8x16x2_t table = {{low, vsubq_u8(low, vdupq_n_u8(8))}};
    return table;
}

/* 64 channels from the lower or upper halves of vectors with channel 8 i + q in byte i of e[q]. */
BD_INLINE void store_interleaved(int8_t *to, const bytes e[8]) {
    uint8x16x4_t low, high;
    for (uint32_t j = 0; j < 4; j++) {
        low.val[j] = vzip1q_u8(e[j], e[j + 4u]);
        high.val[j] = vzip2q_u8(e[j], e[j + 4u]);
    }
    vst4q_u8((uint8_t *)to, low);
    vst4q_u8((uint8_t *)to + 64, high);
}

/* Constants that stay in registers. */
typedef struct constants {
    bytes ones, twos, nibble, sixteen;
} constants_of;

/* Values of 128 channels. */
BD_INLINE void expand(int8_t *to, const planes *n, uint32_t trits, const constants_of *k,
                      const uint8x16x2_t *table) {
    const bytes ones = k->ones, twos = k->twos, nibble = k->nibble, sixteen = k->sixteen;
    const bytes a = n->p[0], b = n->p[1], c = n->p[2], d = n->p[3];
    const bytes e0 = select(ones, a, vshlq_n_u8(b, 1)), e1 = select(ones, vshrq_n_u8(a, 1), b);
    const bytes f0 = select(ones, c, vshlq_n_u8(d, 1)), f1 = select(ones, vshrq_n_u8(c, 1), d);
    const bytes g[4] = {
        select(twos, e0, vshlq_n_u8(f0, 2)),
        select(twos, e1, vshlq_n_u8(f1, 2)),
        select(twos, vshrq_n_u8(e0, 2), f0),
        select(twos, vshrq_n_u8(e1, 2), f1),
    };
    bytes v[8];
    for (uint32_t j = 0; j < 4; j++) {
        v[j] = vandq_u8(g[j], nibble);
        v[j + 4u] = vshrq_n_u8(g[j], 4);
    }
    if (trits) {
        const bytes e = n->p[4];
        v[0] = select(sixteen, vshlq_n_u8(e, 4), v[0]);
        v[1] = select(sixteen, vshlq_n_u8(e, 3), v[1]);
        v[2] = select(sixteen, vshlq_n_u8(e, 2), v[2]);
        v[3] = select(sixteen, vshlq_n_u8(e, 1), v[3]);
        v[4] = select(sixteen, e, v[4]);
        v[5] = select(sixteen, vshrq_n_u8(e, 1), v[5]);
        v[6] = select(sixteen, vshrq_n_u8(e, 2), v[6]);
        v[7] = select(sixteen, vshrq_n_u8(e, 3), v[7]);
        for (uint32_t q = 0; q < 8; q++) {
            v[q] = vqtbl2q_u8(*table, v[q]);
        }
    } else {
        for (uint32_t q = 0; q < 8; q++) {
            v[q] = vqtbl1q_u8(table->val[0], v[q]);
        }
    }
    store_interleaved(to, v);
}

#endif
