/* Variants of a function for x86 processors: popcount is one instruction on most, but not on the one that a portable
 * build is for. A BT_KERNEL's body is compiled once for each level, and the level is looked up at prepare. */
#ifndef BDNET_TFLITE_CPU_H
#define BDNET_TFLITE_CPU_H

#if defined(__x86_64__) && defined(__GNUC__)
#    define BT_LEVELS          4
#    define BT_TARGET_POPCOUNT __attribute__((target("popcnt")))
#    define BT_TARGET_AVX2     __attribute__((target("popcnt,avx2")))
#    define BT_TARGET_AVX512 __attribute__((target("popcnt,avx2,avx512f,avx512bw,avx512vl,avx512vpopcntdq")))
#else
#    define BT_LEVELS 1
#endif

#if defined(__GNUC__)
#    define BT_INLINE static inline __attribute__((always_inline))
#else
#    define BT_INLINE static inline
#endif

/* 0: portable; on x86 1: popcnt, 2: AVX2 too, 3: AVX-512 with VPOPCNTDQ too. */
int bt_cpu_level(void);

/* Defines `name_all[BT_LEVELS]`, variants of the always-inlined `name`. */
#if BT_LEVELS == 4
#    define BT_VARIANTS(name, parameters, arguments)                                                         \
        static void name##_0 parameters {                                                                    \
            name arguments;                                                                                  \
        }                                                                                                    \
        BT_TARGET_POPCOUNT static void name##_1 parameters {                                                 \
            name arguments;                                                                                  \
        }                                                                                                    \
        BT_TARGET_AVX2 static void name##_2 parameters {                                                     \
            name arguments;                                                                                  \
        }                                                                                                    \
        BT_TARGET_AVX512 static void name##_3 parameters {                                                   \
            name arguments;                                                                                  \
        }                                                                                                    \
        static void(*const name##_all[BT_LEVELS]) parameters = {name##_0, name##_1, name##_2, name##_3};
#else
#    define BT_VARIANTS(name, parameters, arguments)                                                         \
        static void name##_0 parameters {                                                                    \
            name arguments;                                                                                  \
        }                                                                                                    \
        static void(*const name##_all[BT_LEVELS]) parameters = {name##_0};
#endif

#endif
