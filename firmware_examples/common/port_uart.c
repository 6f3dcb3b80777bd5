/* Bytes through a board's UART: board.c knows the registers. */
#include "board.h"
#include "port.h"

void port_init(void) {
    board_init();
}

int32_t port_read(void *buf, uint32_t n) {
    uint8_t *to = buf;
    if (n == 0) {
        return 0;
    }
    *to = board_getc(); /* one byte: waiting for more could wait for ever */
    return 1;
}

void port_write(const void *buf, uint32_t n) {
    const uint8_t *from = buf;
    for (uint32_t i = 0; i < n; i++) {
        board_putc(from[i]);
    }
}

__attribute__((noreturn)) void port_exit(int32_t code) {
    (void)code; /* there is no host to tell */
    for (;;) {
        __asm__ volatile("wfi");
    }
}
