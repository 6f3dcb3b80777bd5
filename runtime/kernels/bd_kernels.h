/* One constant bd_kernel per name of kernels.def, and one per line of variants.def. A generated table names only those that
 * its model uses, and the linker drops the rest. */
#ifndef BD_KERNELS_H
#define BD_KERNELS_H

#include "bd_kernel.h"

/* A kernel, and its check as a function: that is all of it that a variant shares. */
#define BD_KERNEL(name)                                                                                      \
    extern const bd_kernel name;                                                                             \
    bd_status name##_check(const bd_step *step, const uint8_t *constants, uint32_t constants_size,           \
                           const bd_view in[], const bd_view out[], uint32_t *scratch_bytes);
#include "kernels.def"

#define BD_VARIANT(kernel, set) extern const bd_kernel kernel##_on_##set;
#include "variants.def"

/* Definition of a kernel in its family's file. */
#define BD_DEFINE_KERNEL(name, run, check)                                                                   \
    const bd_kernel name = {#name, run, check};                                                              \
    bd_status name##_check(const bd_step *step, const uint8_t *constants, uint32_t constants_size,           \
                           const bd_view in[], const bd_view out[], uint32_t *scratch_bytes) {               \
        return check(step, constants, constants_size, in, out, scratch_bytes);                               \
    }

/* Definition of a variant in its set's folder. It may call the generic kernel's run where it has nothing better. */
#define BD_DEFINE_VARIANT(kernel, set, run)                                                                  \
    const bd_kernel kernel##_on_##set = {#kernel, run, kernel##_check};

#endif
