/* Packing __border of a convolution with 8-bit weights adds a number to each accumulator, by the class of its row, the class
 * of its column and its output:
 *     uint16 row_classes, column_classes
 *     int32 border[row_classes][column_classes][O]
 *     uint8 class_of_row[out_height], class_of_column[out_width]
 *     int8 weights[O][kh][kw][C / groups] */
#ifndef BD_BORDER_H
#define BD_BORDER_H

#include "bd_kernel.h"

typedef struct bd_border {
    const int32_t *values;
    const uint8_t *rows, *columns;
    const int8_t *weights;
    uint32_t row_classes, column_classes;
} bd_border;

/* Arithmetic on integers, since the loader asks before it knows that the blob is as large as it says. */
static inline uint32_t bd_border_at(const bd_step *step, const uint8_t *constants, bd_border *border) {
    const uint8_t *blob = constants + step->weights;
    const uint16_t *classes = (const void *)blob;
    const uint64_t values = (uint64_t)classes[0] * classes[1] * step->out_channels;
    const uint64_t bytes = 4u + 4u * values + step->out_height + step->out_width;
    if (values == 0 || bytes > step->weights_size) {
        return 0;
    }
    border->row_classes = classes[0];
    border->column_classes = classes[1];
    border->values = (const void *)(blob + 4);
    border->rows = blob + 4u + 4u * (size_t)values;
    border->columns = border->rows + step->out_height;
    border->weights = (const void *)(border->columns + step->out_width);
    return (uint32_t)bytes;
}

/* The numbers of one pixel, for all outputs. */
static inline const int32_t *bd_border_values(const bd_border *border, uint32_t y, uint32_t x,
                                              uint32_t outputs) {
    const uint32_t class_of = border->rows[y] * border->column_classes + border->columns[x];
    return border->values + (size_t)class_of * outputs;
}

#endif
