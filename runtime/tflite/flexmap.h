/* Reads integers from a FlexBuffer map, the form of a custom operator's options. The bytes are not trusted.
 * Format: flatbuffers' flexbuffers.h and the page "FlexBuffers" of its documentation. */
#ifndef BDNET_FLEXMAP_H
#define BDNET_FLEXMAP_H

#include <stddef.h>
#include <stdint.h>

typedef struct flexmap {
    const uint8_t *bytes;
    size_t length;
    size_t values, value_width; /* where the first value lies, and bytes of each */
    size_t keys, key_width;     /* the same of the offsets to the keys */
    size_t count;
} flexmap;

/* 1: the bytes are a map. */
int flexmap_open(flexmap *map, const void *bytes, size_t length);
/* 1: *value is that of `key`; 0: there is none; -1: it is no integer of 32 bits, or lies outside of the bytes. */
int flexmap_int(const flexmap *map, const char *key, int32_t *value);

#endif
