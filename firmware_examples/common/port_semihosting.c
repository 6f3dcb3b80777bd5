/* Bytes through a debugger or emulator: Arm semihosting (Arm IHI "Semihosting for AArch32 and AArch64",
 * release 2.0). */
#include "port.h"

enum { SYS_OPEN = 0x01, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT_EXTENDED = 0x20 };
enum { OPEN_READ = 0, OPEN_WRITE = 4 };
#define ADP_STOPPED_APPLICATION_EXIT 0x20026u

static uint32_t input, output;

static uint32_t call(uint32_t operation, const uint32_t *block) {
    register uint32_t r0 __asm__("r0") = operation;
    register const uint32_t *r1 __asm__("r1") = block;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static uint32_t open_console(uint32_t mode) {
    static const char name[] = ":tt";
    uint32_t block[3] = {(uint32_t)(uintptr_t)name, mode, 3};
    return call(SYS_OPEN, block);
}

void port_init(void) {
    input = open_console(OPEN_READ);
    output = open_console(OPEN_WRITE);
}

int32_t port_read(void *buf, uint32_t n) {
    uint32_t block[3] = {input, (uint32_t)(uintptr_t)buf, n};
    uint32_t missing = call(SYS_READ, block);
    return missing > n ? 0 : (int32_t)(n - missing);
}

void port_write(const void *buf, uint32_t n) {
    const uint8_t *from = buf;
    while (n != 0) {
        uint32_t block[3] = {output, (uint32_t)(uintptr_t)from, n};
        uint32_t missing = call(SYS_WRITE, block);
        if (missing > n) {
            return; /* the host refuses: nothing to report it to */
        }
        from += n - missing;
        n = missing;
    }
}

__attribute__((noreturn)) void port_exit(int32_t code) {
    uint32_t block[2] = {ADP_STOPPED_APPLICATION_EXIT, (uint32_t)code};
    call(SYS_EXIT_EXTENDED, block);
    for (;;) {
    }
}
