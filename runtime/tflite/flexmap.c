#include "flexmap.h"

#include <string.h>

enum { INT = 1, UINT = 2, MAP = 9, INDIRECT_INT = 6, INDIRECT_UINT = 7, BOOL = 26 };

/* Little-endian number of `width` bytes at `at`; 0: outside. */
static int read_unsigned(const flexmap *map, size_t at, size_t width, uint64_t *value) {
    if (at > map->length || width > map->length - at) {
        return 0;
    }
    *value = 0;
    for (size_t i = width; i-- > 0;) {
        *value = *value << 8 | map->bytes[at + i];
    }
    return 1;
}

/* The place that the offset at `at` points back to. */
static int follow(const flexmap *map, size_t at, size_t width, size_t *target) {
    uint64_t offset;
    if (!read_unsigned(map, at, width, &offset) || offset > at) {
        return 0;
    }
    *target = at - (size_t)offset;
    return 1;
}

static int is_width(uint64_t width) {
    return width == 1 || width == 2 || width == 4 || width == 8;
}

int flexmap_open(flexmap *map, const void *bytes, size_t length) {
    memset(map, 0, sizeof(*map));
    map->bytes = bytes;
    map->length = length;
    if (bytes == NULL || length < 3) {
        return 0;
    }
    const size_t root_width = map->bytes[length - 1];
    const unsigned type = map->bytes[length - 2];
    if (!is_width(root_width) || type >> 2 != MAP || root_width > length - 2) {
        return 0;
    }
    map->value_width = (size_t)1 << (type & 3u);
    uint64_t key_width, count, key_count;
    if (!follow(map, length - 2 - root_width, root_width, &map->values) ||
        map->values < 3 * map->value_width) {
        return 0;
    }
    if (!read_unsigned(map, map->values - map->value_width, map->value_width, &count) ||
        !read_unsigned(map, map->values - 2 * map->value_width, map->value_width, &key_width) ||
        !is_width(key_width) ||
        !follow(map, map->values - 3 * map->value_width, map->value_width, &map->keys)) {
        return 0;
    }
    map->key_width = (size_t)key_width;
    if (map->keys < map->key_width ||
        !read_unsigned(map, map->keys - map->key_width, map->key_width, &key_count) || key_count != count ||
        count > length / (map->value_width + 1)) {
        return 0;
    }
    map->count = (size_t)count;
    /* Types lie behind the values. */
    return map->count * (map->value_width + 1) <= length - map->values &&
           map->count * map->key_width <= length - map->keys;
}

static int is_key(const flexmap *map, size_t i, const char *key) {
    size_t at;
    const size_t size = strlen(key) + 1;
    return follow(map, map->keys + i * map->key_width, map->key_width, &at) && size <= map->length - at &&
           memcmp(map->bytes + at, key, size) == 0;
}

int flexmap_int(const flexmap *map, const char *key, int32_t *value) {
    size_t i = 0;
    while (i < map->count && !is_key(map, i, key)) {
        i++;
    }
    if (i == map->count) {
        return 0;
    }
    const unsigned packed = map->bytes[map->values + map->count * map->value_width + i];
    unsigned type = packed >> 2;
    size_t at = map->values + i * map->value_width, width = map->value_width;
    if (type == INDIRECT_INT || type == INDIRECT_UINT) {
        if (!follow(map, at, width, &at)) {
            return -1;
        }
        width = (size_t)1 << (packed & 3u);
        type = type == INDIRECT_INT ? INT : UINT;
    }
    uint64_t raw;
    if ((type != INT && type != UINT && type != BOOL) || !read_unsigned(map, at, width, &raw)) {
        return -1;
    }
    if (type == INT && width < 8) { /* extend the sign */
        const uint64_t sign = (uint64_t)1 << (8 * width - 1);
        raw = (raw ^ sign) - sign;
    }
    const int negative = type == INT && raw >> 63;
    if (negative ? ~raw > 0x7fffffffu : raw > 0x7fffffffu) {
        return -1;
    }
    *value = negative ? -1 - (int32_t)~raw : (int32_t)raw;
    return 1;
}
