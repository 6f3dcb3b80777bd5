/* Every kernel of this build. */
#include "bd_kernels.h"

static const bd_kernel *const all[] = {
#define BD_KERNEL(name) &name,
#include "kernels.def"
};

const bd_kernel_table bd_kernels_all = {all, (uint32_t)(sizeof(all) / sizeof(all[0]))};
