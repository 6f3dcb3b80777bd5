/* The fastest kernels that the processor of this computer runs.
 *
 * A level is a table of every kernel, with the variants of kernels/variants.def in front. Level 0 is "generic", the same
 * as bd_kernels_all; each further one needs instructions that not every processor of this architecture has. All levels
 * give the same bytes. A level is a constant, so that nothing is written and any thread may ask.
 *
 *     const struct bd_kernel_table *kernels = bd_host_level_kernels(bd_host_levels() - 1u);
 *
 * Define BD_WITH_<SET>, for instance BD_WITH_AVX2, for every set whose folder kernels/<set> is in the build. */
#ifndef BDNET_HOST_H
#define BDNET_HOST_H

#include "bdnet.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How many levels this build has and this processor runs: at least 1. */
BD_API uint32_t bd_host_levels(void);

/* "generic", or the name of the last set that the level adds; NULL where there is no such level. */
BD_API const char *bd_host_level_name(uint32_t level);

/* The level's kernels; NULL where there is no such level. */
BD_API const struct bd_kernel_table *bd_host_level_kernels(uint32_t level);

#ifdef __cplusplus
}
#endif
#endif
