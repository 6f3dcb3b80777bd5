/* Start-up code for a static Linux program without a C library, on AArch64 or 32-bit Arm.
 *
 * The kernel enters _start with an aligned stack and everything else set up by the program headers. */
#include "port.h"

int main(void);
__attribute__((noreturn)) void bd_start(void);

__asm__(".text\n"
        ".globl _start\n"
        ".type _start, %function\n"
        "_start:\n"
#if defined(__aarch64__)
        "    mov x29, #0\n" /* end of the frame chain */
        "    mov x30, #0\n"
#else
        "    mov r11, #0\n"
        "    mov lr, #0\n"
#endif
        "    bl bd_start\n"
        ".size _start, . - _start\n");

__attribute__((noreturn)) void bd_start(void) {
    port_init();
    port_exit(main());
}
