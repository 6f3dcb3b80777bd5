/* Convolution with 8-bit weights. */
#include "../x86/conv_i8.inc"
