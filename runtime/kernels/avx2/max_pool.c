/* Max pooling of elements. */
#include "../x86/max_pool.inc"
