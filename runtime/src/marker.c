/* In a file of their own, so that no compiler sees at the call that they do nothing. */
#include "bd_internal.h"

#if defined(__GNUC__)
#    define BD_KEEP(value) __asm__ volatile("" : : "r"(value) : "memory")
#else
#    define BD_KEEP(value) ((void)(value))
#endif

BD_NOINLINE void bd_step_enter(uint32_t index) {
    BD_KEEP(index);
}

BD_NOINLINE void bd_step_leave(void) {
    BD_KEEP(0);
}
