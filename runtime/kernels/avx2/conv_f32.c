/* Convolution with real weights. */
#include "../x86/conv_f32.inc"
