#include "cpu.h"

#if BT_LEVELS == 4
#    include <cpuid.h>

/* The state that the operating system saves, register XCR0. */
static unsigned saved_state(void) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* Bits: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, instruction CPUID. */
int bt_cpu_level(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c >> 23 & 1u) == 0) {
        return 0;
    }
    const int saves = (c >> 27 & 1u) != 0;
    if (!saves || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (saved_state() & 6u) != 6u ||
        (b >> 5 & 1u) == 0) {
        return 1;
    }
    const unsigned needed = 1u << 16 | 1u << 30 | 1u << 31; /* F, BW, VL */
    return (b & needed) == needed && (c >> 14 & 1u) != 0 && (saved_state() & 0xe0u) == 0xe0u ? 3 : 2;
}
#else
int bt_cpu_level(void) {
    return 0;
}
#endif
