/* Second-stage boot of the RP2040: makes the flash readable at 0x10000000 with the plain serial read command 03h, which every
 * serial flash knows, and starts the image whose vector table lies behind it.
 *
 * The boot ROM copies these 252 bytes and their checksum to SRAM and enters at the first one (datasheet 2.8.1.3), so the code is
 * position-independent: literals are read relative to the program counter. lr is 0 when the ROM calls; other callers, who want the
 * flash readable again, get control back.
 *
 * Registers: RP2040 datasheet 4.10.13 (SSI), 2.4.8 (VTOR). */
    .syntax unified
    .cpu cortex-m0plus
    .thumb

    .equ SSI, 0x18000000
    .equ SSI_CTRLR0, 0x00
    .equ SSI_CTRLR1, 0x04
    .equ SSI_ENABLE, 0x08
    .equ SSI_BAUDR, 0x14
    .equ SSI_SPI_CTRLR0, 0xF4

    /* 32 clocks a frame, standard one-bit SPI, EEPROM read: send instruction and address, then receive */
    .equ CTRLR0_VALUE, (31 << 16) | (0 << 21) | (3 << 8)
    /* command 03h, 8 instruction bits (2), 24 address bits in units of four (6), both serial */
    .equ SPI_CTRLR0_VALUE, (0x03 << 24) | (2 << 8) | (6 << 2) | 0

    .equ VECTORS, 0x10000100
    .equ VTOR, 0xE000ED08

    .section .text.boot2, "ax", %progbits
    .global boot2
    .type boot2, %function
    .thumb_func
boot2:
    ldr     r0, =SSI
    movs    r1, #0
    str     r1, [r0, #SSI_ENABLE]       /* registers change only while disabled */
    movs    r2, #2                      /* the smallest divider: at most 6 MHz from a clock of at most 12 MHz */
    str     r2, [r0, #SSI_BAUDR]
    ldr     r2, =CTRLR0_VALUE
    str     r2, [r0, #SSI_CTRLR0]
    str     r1, [r0, #SSI_CTRLR1]       /* one frame per read */
    ldr     r2, =SPI_CTRLR0_VALUE
    movs    r3, #SSI_SPI_CTRLR0
    str     r2, [r0, r3]
    movs    r1, #1
    str     r1, [r0, #SSI_ENABLE]

    mov     r1, lr
    cmp     r1, #0
    bne     return
    ldr     r0, =VECTORS
    ldr     r1, =VTOR
    str     r0, [r1]
    ldr     r1, [r0]
    msr     msp, r1
    ldr     r1, [r0, #4]
    bx      r1
return:
    bx      lr
    .pool
    .size boot2, . - boot2
