/* What a board's board.c provides. */
#ifndef BD_BOARD_H
#define BD_BOARD_H

#include <stdint.h>

/* Clocks, pins and UART, from the state after reset. */
void board_init(void);

/* Sends one byte; waits until the UART takes it. */
void board_putc(uint8_t byte);

/* Waits for one byte. */
uint8_t board_getc(void);

#endif
