/* Convolution of bits and trits. */
#include "../x86/conv_packed.inc"
