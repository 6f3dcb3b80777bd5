/* Start-up code for every Cortex-M: vector table, .data and .bss, FPU, main().
 *
 * The linker script defines the bounds; all of them are word-aligned. Sections .arena and .noinit are not
 * cleared. */
#include <stdint.h>

#include "port.h"

extern uint32_t bd_stack_top[], bd_data_load[], bd_data_start[], bd_data_end[], bd_bss_start[], bd_bss_end[];

int main(void);
__attribute__((noreturn)) void bd_reset(void);
__attribute__((noreturn)) void bd_fault(void);

/* CPACR, Armv7-M Architecture Reference Manual (DDI 0403) B3.2.20: CP10 and CP11 full access switches the FPU
 * on, and the vectors of Armv8.1-M. */
#define CPACR (*(volatile uint32_t *)0xE000ED88u)

__attribute__((noreturn)) void bd_reset(void) {
/* First, since a compiler may copy with vectors. */
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    CPACR |= 0xFu << 20;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
    const uint32_t *from = bd_data_load;
    for (uint32_t *to = bd_data_start; to < bd_data_end; to++) {
        *to = *from++;
    }
    for (uint32_t *to = bd_bss_start; to < bd_bss_end; to++) {
        *to = 0;
    }
    port_init();
    port_exit(main());
}

__attribute__((noreturn)) void bd_fault(void) {
    port_exit(PORT_EXIT_FAULT);
}

typedef void (*handler)(void);

/* The initial stack pointer and the fifteen system exceptions; no interrupt is ever enabled. */
struct vectors {
    uint32_t *stack_top;
    handler exception[15];
};

extern const struct vectors bd_vectors;
__attribute__((section(".vectors"), used)) const struct vectors bd_vectors = {
    bd_stack_top,
    {
        bd_reset, /* 1 reset */
        bd_fault, /* 2 NMI */
        bd_fault, /* 3 HardFault */
        bd_fault, /* 4 MemManage */
        bd_fault, /* 5 BusFault */
        bd_fault, /* 6 UsageFault */
        bd_fault, /* 7 SecureFault (Armv8-M) */
        0,
        0,
        0,
        bd_fault, /* 11 SVCall */
        bd_fault, /* 12 DebugMonitor */
        0,
        bd_fault, /* 14 PendSV */
        bd_fault, /* 15 SysTick */
    },
};
