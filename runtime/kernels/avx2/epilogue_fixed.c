/* Fixed-point epilogues. */
#include "../x86/epilogue_fixed.inc"
