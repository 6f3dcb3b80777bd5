/* The four functions that a C compiler may call on its own in freestanding code (C99 has none; GCC and clang
 * document these).
 *
 * Word copies when both pointers are aligned alike; ARMv6-M faults on unaligned word accesses, so the head
 * and tail go by bytes. */
#include <stddef.h>
#include <stdint.h>

void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int value, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* May alias any type, as memcpy must. */
typedef uint32_t __attribute__((may_alias)) word;

void *memcpy(void *restrict to, const void *restrict from, size_t n) {
    uint8_t *d = to;
    const uint8_t *s = from;
    if ((((uintptr_t)d ^ (uintptr_t)s) & 3u) == 0) {
        while (n != 0 && ((uintptr_t)d & 3u) != 0) {
            *d++ = *s++;
            n--;
        }
        word *dw = (word *)(void *)d;
        const word *sw = (const word *)(const void *)s;
        for (; n >= 16; n -= 16, dw += 4, sw += 4) {
            word a = sw[0], b = sw[1], c = sw[2], e = sw[3];
            dw[0] = a;
            dw[1] = b;
            dw[2] = c;
            dw[3] = e;
        }
        for (; n >= 4; n -= 4) {
            *dw++ = *sw++;
        }
        d = (uint8_t *)dw;
        s = (const uint8_t *)sw;
    }
    while (n-- != 0) {
        *d++ = *s++;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t n) {
    uint8_t *d = to;
    const uint8_t *s = from;
    if ((uintptr_t)d - (uintptr_t)s >= n) {
        /* An ascending copy never overwrites a byte that is still to be read. */
        while (n-- != 0) {
            *d++ = *s++;
        }
    } else {
        while (n-- != 0) {
            d[n] = s[n];
        }
    }
    return to;
}

void *memset(void *to, int value, size_t n) {
    uint8_t *d = to;
    uint8_t byte = (uint8_t)value;
    while (n != 0 && ((uintptr_t)d & 3u) != 0) {
        *d++ = byte;
        n--;
    }
    word *dw = (word *)(void *)d;
    word fill = (word)byte * 0x01010101u;
    for (; n >= 16; n -= 16, dw += 4) {
        dw[0] = fill;
        dw[1] = fill;
        dw[2] = fill;
        dw[3] = fill;
    }
    for (; n >= 4; n -= 4) {
        *dw++ = fill;
    }
    d = (uint8_t *)dw;
    while (n-- != 0) {
        *d++ = byte;
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t n) {
    const uint8_t *x = a;
    const uint8_t *y = b;
    for (; n != 0; n--, x++, y++) {
        if (*x != *y) {
            return *x < *y ? -1 : 1;
        }
    }
    return 0;
}
