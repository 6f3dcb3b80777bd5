/* Raspberry Pi Pico: RP2040 with a 12 MHz crystal; UART0 (Arm PL011) on GP0 (TX, pin 1) and GP1 (RX, pin 2),
 * 115200 baud.
 *
 * The ring oscillator that runs the chip after reset is too inexact for a UART (1.8 to 12 MHz,
 * datasheet 2.17), so processor and UART are switched to the crystal; no PLL is used.
 *
 * Sources: RP2040 datasheet, sections named below; checked against pico-sdk src/rp2040/hardware_regs. */
#include "board.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

/* 2.14 resets */
#define RESETS_RESET      REGISTER(0x4000C000u)
#define RESETS_RESET_DONE REGISTER(0x4000C008u)
#define RESET_IO_BANK0    (1u << 5)
#define RESET_PADS_BANK0  (1u << 8)
#define RESET_UART0       (1u << 22)

/* 2.16 crystal oscillator */
#define XOSC_CTRL          REGISTER(0x40024000u)
#define XOSC_STATUS        REGISTER(0x40024004u)
#define XOSC_STARTUP       REGISTER(0x4002400Cu)
#define XOSC_ENABLE        (0xFABu << 12)
#define XOSC_RANGE_1_15MHZ 0xAA0u
#define XOSC_STABLE        (1u << 31)
#define XOSC_STARTUP_1MS   47u /* multiples of 256 crystal periods */

/* 2.15 clocks */
#define CLK_REF_CTRL       REGISTER(0x40008030u)
#define CLK_REF_SELECTED   REGISTER(0x40008038u)
#define CLK_PERI_CTRL      REGISTER(0x40008048u)
#define CLK_REF_FROM_XOSC  2u
#define CLK_PERI_ENABLE    (1u << 11)
#define CLK_PERI_FROM_XOSC (4u << 5)

/* 2.19 GPIO: function 2 of GP0 and GP1 is UART0 */
#define GPIO0_CTRL    REGISTER(0x40014004u)
#define GPIO1_CTRL    REGISTER(0x4001400Cu)
#define FUNCTION_UART 2u

/* 4.2 UART */
#define UART0        0x40034000u
#define UART_DR      REGISTER(UART0 + 0x00u)
#define UART_FR      REGISTER(UART0 + 0x18u)
#define UART_IBRD    REGISTER(UART0 + 0x24u)
#define UART_FBRD    REGISTER(UART0 + 0x28u)
#define UART_LCR_H   REGISTER(UART0 + 0x2Cu)
#define UART_CR      REGISTER(UART0 + 0x30u)
#define FR_RX_EMPTY  (1u << 4)
#define FR_TX_FULL   (1u << 5)
#define LCR_H_8_BITS (3u << 5)
#define LCR_H_FIFO   (1u << 4)
#define CR_ENABLE    (1u << 0)
#define CR_TX_ENABLE (1u << 8)
#define CR_RX_ENABLE (1u << 9)

void board_init(void) {
    XOSC_CTRL = XOSC_RANGE_1_15MHZ;
    XOSC_STARTUP = XOSC_STARTUP_1MS;
    XOSC_CTRL = XOSC_ENABLE | XOSC_RANGE_1_15MHZ;
    while ((XOSC_STATUS & XOSC_STABLE) == 0) {
    }
    CLK_REF_CTRL = CLK_REF_FROM_XOSC; /* the processor's clock follows it after reset */
    while ((CLK_REF_SELECTED & (1u << CLK_REF_FROM_XOSC)) == 0) {
    }
    CLK_PERI_CTRL = CLK_PERI_ENABLE | CLK_PERI_FROM_XOSC;

    const uint32_t needed = RESET_IO_BANK0 | RESET_PADS_BANK0 | RESET_UART0;
    RESETS_RESET &= ~needed;
    while ((RESETS_RESET_DONE & needed) != needed) {
    }
    GPIO0_CTRL = FUNCTION_UART;
    GPIO1_CTRL = FUNCTION_UART;

    /* 12 MHz / (16 * 115200) = 6.5104: 6 and 33/64; the division is latched by writing LCR_H */
    UART_IBRD = 6u;
    UART_FBRD = 33u;
    UART_LCR_H = LCR_H_8_BITS | LCR_H_FIFO;
    UART_CR = CR_ENABLE | CR_TX_ENABLE | CR_RX_ENABLE;
}

void board_putc(uint8_t byte) {
    while ((UART_FR & FR_TX_FULL) != 0) {
    }
    UART_DR = byte;
}

uint8_t board_getc(void) {
    while ((UART_FR & FR_RX_EMPTY) != 0) {
    }
    return (uint8_t)UART_DR;
}
