/* One constant bd_kernel per name of kernels.def. A generated table names only those that its model uses, and
 * the linker drops the rest. */
#ifndef BD_KERNELS_H
#define BD_KERNELS_H

#include "bd_kernel.h"

#define BD_KERNEL(name) extern const bd_kernel name;
#include "kernels.def"

/* Definition of a kernel in its family's file. */
#define BD_DEFINE_KERNEL(name, run, check) const bd_kernel name = {#name, run, check};

#endif
