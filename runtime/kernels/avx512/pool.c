/* Average pooling. */
#include "../x86/pool.inc"
