/* Average pooling over windows of 2x2. */
#define POOL_VARIANT(kernel, run) BD_DEFINE_VARIANT(kernel, v7m, run)
#include "../thumb/pool.inc"
