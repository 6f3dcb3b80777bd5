/* Float epilogue. */
#include "../x86/epilogue_f32.inc"
