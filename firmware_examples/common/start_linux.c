/* Start-up code for a static AArch64 Linux program without a C library.
 *
 * The kernel enters _start with a 16-byte aligned stack and everything else set up by the program headers. */
#include "port.h"

int main(void);
__attribute__((noreturn)) void bd_start(void);

__asm__(".text\n"
        ".globl _start\n"
        ".type _start, %function\n"
        "_start:\n"
        "    mov x29, #0\n" /* end of the frame chain */
        "    mov x30, #0\n"
        "    bl bd_start\n"
        ".size _start, . - _start\n");

__attribute__((noreturn)) void bd_start(void) {
    port_init();
    port_exit(main());
}
