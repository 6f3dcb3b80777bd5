/* Depth-wise convolution of bits and trits. */
#include "../x86/dw_packed.inc"
