#include "port.h"

void port_print(const char *text) {
    uint32_t n = 0;
    while (text[n] != '\0') {
        n++;
    }
    port_write(text, n);
}
