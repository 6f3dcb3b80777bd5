/* Arm MPS2 with FPGA image AN386: CMSDK UART0 at 115200 baud from the 25 MHz system clock.
 *
 * Sources: base addresses and clock in Arm DAI 0386; registers in Arm DDI 0479, section 4.3, table 4-7. */
#include "board.h"

#define UART0   0x40004000u
#define DATA    (*(volatile uint32_t *)(UART0 + 0x00u))
#define STATE   (*(volatile uint32_t *)(UART0 + 0x04u))
#define CTRL    (*(volatile uint32_t *)(UART0 + 0x08u))
#define BAUDDIV (*(volatile uint32_t *)(UART0 + 0x10u))

enum { STATE_TX_FULL = 1u << 0, STATE_RX_FULL = 1u << 1 };
enum { CTRL_TX_ENABLE = 1u << 0, CTRL_RX_ENABLE = 1u << 1 };

void board_init(void) {
    BAUDDIV = 25000000u / 115200u; /* 217; at least 16 */
    CTRL = CTRL_TX_ENABLE | CTRL_RX_ENABLE;
}

void board_putc(uint8_t byte) {
    while ((STATE & STATE_TX_FULL) != 0) {
    }
    DATA = byte;
}

uint8_t board_getc(void) {
    while ((STATE & STATE_RX_FULL) == 0) {
    }
    return (uint8_t)DATA;
}
