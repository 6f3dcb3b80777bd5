/* Tables of the levels, and what the processor says of itself. */
#include "bdnet_host.h"

#include "bd_kernels.h"

#if defined(BD_WITH_AVX2) || defined(BD_WITH_AVX512)
#    include <cpuid.h>
#endif
#if (defined(BD_WITH_DOTPROD) || defined(BD_WITH_NEON32)) && defined(__linux__)
#    include <sys/auxv.h>
#endif

/* A row of each variant that is in this build, and 1 for counting it. */
#ifdef BD_WITH_AVX512
#    define ROW_avx512(kernel) &kernel##_on_avx512,
#    define IN_avx512          1
#else
#    define ROW_avx512(kernel)
#    define IN_avx512 0
#endif
#ifdef BD_WITH_AVX2
#    define ROW_avx2(kernel) &kernel##_on_avx2,
#    define IN_avx2          1
#else
#    define ROW_avx2(kernel)
#    define IN_avx2 0
#endif
#ifdef BD_WITH_DOTPROD
#    define ROW_dotprod(kernel) &kernel##_on_dotprod,
#    define IN_dotprod          1
#else
#    define ROW_dotprod(kernel)
#    define IN_dotprod 0
#endif
#ifdef BD_WITH_NEON64
#    define ROW_neon64(kernel) &kernel##_on_neon64,
#    define IN_neon64          1
#else
#    define ROW_neon64(kernel)
#    define IN_neon64 0
#endif
#ifdef BD_WITH_NEON32
#    define ROW_neon32(kernel) &kernel##_on_neon32,
#    define IN_neon32          1
#else
#    define ROW_neon32(kernel)
#    define IN_neon32 0
#endif
/* Not chosen at run time: sets of microcontrollers. */
#define ROW_mve(kernel)
#define ROW_dsp(kernel)
#define ROW_v7m(kernel)
#define ROW_v6m(kernel)

enum { SET_avx512, SET_avx2, SET_dotprod, SET_neon64, SET_neon32, SET_mve, SET_dsp, SET_v7m, SET_v6m };

/* The first kernel of a name is taken, and variants.def has better sets first: a level is the end of this array. */
static const bd_kernel *const rows[] = {
#define BD_VARIANT(kernel, set) ROW_##set(kernel)
#include "variants.def"
#define BD_KERNEL(name) &name,
#include "kernels.def"
};

enum {
    ALL = sizeof(rows) / sizeof(rows[0]),
    AVX512 = 0
#define BD_VARIANT(kernel, set) +(IN_avx512 && SET_##set == SET_avx512)
#include "variants.def"
    ,
    AVX2 = 0
#define BD_VARIANT(kernel, set) +(IN_avx2 && SET_##set == SET_avx2)
#include "variants.def"
    ,
    DOTPROD = 0
#define BD_VARIANT(kernel, set) +(IN_dotprod && SET_##set == SET_dotprod)
#include "variants.def"
    ,
    NEON64 = 0
#define BD_VARIANT(kernel, set) +(IN_neon64 && SET_##set == SET_neon64)
#include "variants.def"
    ,
    NEON32 = 0
#define BD_VARIANT(kernel, set) +(IN_neon32 && SET_##set == SET_neon32)
#include "variants.def"
};

typedef struct level {
    const char *name;
    bd_kernel_table table;
} level;

#define FROM(skipped) {rows + (skipped), (uint32_t)(ALL - (skipped))}

static const level levels[] = {
    {"generic", FROM(AVX512 + AVX2 + DOTPROD + NEON64 + NEON32)},
#ifdef BD_WITH_AVX2
    {"avx2", FROM(AVX512)},
#endif
#ifdef BD_WITH_AVX512
    {"avx512", FROM(0)},
#endif
#ifdef BD_WITH_NEON64
    {"neon64", FROM(DOTPROD)},
#endif
#ifdef BD_WITH_DOTPROD
    {"dotprod", FROM(0)},
#endif
#ifdef BD_WITH_NEON32
    {"neon32", FROM(0)},
#endif
};

#if defined(BD_WITH_AVX2) || defined(BD_WITH_AVX512)
/* Which vector registers the system saves: bits of XCR0. */
static uint32_t saved_registers(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static uint32_t runs(void) {
    const uint32_t osxsave = 1u << 27, popcnt = 1u << 23;
    uint32_t a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & osxsave) == 0 || (c & popcnt) == 0) {
        return 1;
    }
    const uint32_t saved = saved_registers();
    if ((saved & 0x06u) != 0x06u || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (b & bit_AVX2) == 0) {
        return 1;
    }
    const uint32_t all = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
    const int avx512 = (saved & 0xe6u) == 0xe6u && (b & all) == all && (c & bit_AVX512VPOPCNTDQ) != 0;
    return avx512 ? 3 : 2;
}
#elif defined(BD_WITH_DOTPROD) && defined(__linux__)
static uint32_t runs(void) {
    return (getauxval(AT_HWCAP) >> 20 & 1u) != 0 ? 3 : 2; /* HWCAP_ASIMDDP */
}
#elif defined(BD_WITH_DOTPROD) && defined(__APPLE__)
static uint32_t runs(void) {
    return 3; /* every Apple processor for computers */
}
#elif defined(BD_WITH_NEON64)
static uint32_t runs(void) {
    return 2;
}
#elif defined(BD_WITH_NEON32) && defined(__linux__)
static uint32_t runs(void) {
    return (getauxval(AT_HWCAP) >> 12 & 1u) != 0 ? 2 : 1; /* HWCAP_NEON */
}
#else
static uint32_t runs(void) {
    return 1;
}
#endif

uint32_t bd_host_levels(void) {
    const uint32_t here = runs(), built = (uint32_t)(sizeof(levels) / sizeof(levels[0]));
    return here < built ? here : built;
}

const char *bd_host_level_name(uint32_t index) {
    return index < bd_host_levels() ? levels[index].name : NULL;
}

const struct bd_kernel_table *bd_host_level_kernels(uint32_t index) {
    return index < bd_host_levels() ? &levels[index].table : NULL;
}
