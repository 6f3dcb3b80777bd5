/* The few things that firmware needs from the outside world: bytes in, bytes out, an end.
 *
 * One port_*.c (or a board's UART through port_uart.c) implements them; start_*.c calls main() and then
 * port_exit(). */
#ifndef BD_PORT_H
#define BD_PORT_H

#include <stdint.h>

/* Waits for input, then reads at most n bytes into buf. Returns the number read, 0 at the end of the input.
 */
int32_t port_read(void *buf, uint32_t n);

/* Writes n bytes; returns when the port has taken all of them. */
void port_write(const void *buf, uint32_t n);

/* Ends the program: exit code to the host where there is one, an endless sleep on a board. */
__attribute__((noreturn)) void port_exit(int32_t code);

/* Writes a zero-terminated text. */
void port_print(const char *text);

/* Called once by the start-up code before main(): opens handles, sets up clocks and the UART. */
void port_init(void);

/* Called by the start-up code for every exception that has no handler. */
#define PORT_EXIT_FAULT 99

#endif
