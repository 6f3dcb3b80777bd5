/* The .bdn file, version 1: little-endian, every structure below lies in the file as it stands here.
 *
 *     bd_header
 *     records: bd_record, then `size` payload bytes, padded with zeros to a multiple of 16
 *
 * Records follow one another up to file_size. A required record occurs once. A record of unknown type is
 * skipped when BD_RECORD_OPTIONAL is set in its flags and refused otherwise. Types ascend. */
#ifndef BD_FORMAT_H
#define BD_FORMAT_H

#include <stdint.h>

#define BD_MAGIC          0x314e4442u /* "BDN1" */
#define BD_FORMAT_VERSION 1u
#define BD_NONE           0xffffu     /* no tensor, no kernel */
#define BD_MAX_IO         32u         /* inputs, or outputs, of a model */
#define BD_ABSENT         0xffffffffu /* no constant */

#define BD_STATIC_ASSERT(name, condition) typedef char bd_static_assert_##name[(condition) ? 1 : -1]

typedef struct bd_header {
    uint32_t magic;
    uint32_t crc32;     /* CRC-32 (IEEE 802.3, as zlib's) of bytes 8 .. file_size */
    uint32_t file_size; /* a multiple of 16 */
    uint16_t format_version;
    uint16_t oldest_reader; /* the smallest BD_FORMAT_VERSION that may run this file */
    uint32_t model_version; /* the user's */
    uint32_t tensor_bytes;  /* tensors that live in the arena: offsets 0 .. tensor_bytes; a multiple of 16 */
    uint32_t scratch_bytes; /* the largest step's scratch, behind the tensors; a multiple of 16 */
    uint16_t inputs, outputs;
    uint32_t numerics; /* 0 float, 1 fixed16, 2 fixed8: information, steps name their kernels */
    uint32_t reserved[7];
} bd_header;
BD_STATIC_ASSERT(header, sizeof(bd_header) == 64);

enum {
    BD_RECORD_KERNELS = 1,   /* char[32] names, NUL padded; steps refer to them by index */
    BD_RECORD_TENSORS = 2,   /* bd_tensor[] */
    BD_RECORD_STEPS = 3,     /* bd_step[], in order of execution */
    BD_RECORD_CONSTANTS = 4, /* weights and parameters; offsets count from its payload */
    BD_RECORD_TEST = 5,      /* optional: bd_test_vector and the literal bytes */
    BD_RECORD_IO = 6,        /* optional: I/O description, JSON */
    BD_RECORD_META = 7,      /* optional: what made this file, JSON */
    BD_RECORD_MAP = 8        /* optional: which graph value lies in which tensor, JSON */
};
#define BD_RECORD_OPTIONAL 1u

typedef struct bd_record {
    uint32_t type;
    uint32_t size; /* payload bytes without padding */
    uint32_t flags;
    uint32_t reserved;
} bd_record;
BD_STATIC_ASSERT(record, sizeof(bd_record) == 16);

enum { BD_PLACE_ARENA = 0, BD_PLACE_INPUT = 1, BD_PLACE_OUTPUT = 2 };

/* Feature map of one row or more. A row is width pixels of channels elements, dense; a packed row is one
 * plane of width * ceil(channels / 32) words, and a trit's second plane follows the first within the row. */
typedef struct bd_tensor {
    uint32_t offset;     /* bytes into the tensor area (a multiple of 16); input or output index otherwise */
    uint32_t row_stride; /* bytes; at least the row, a multiple of 4 in the arena */
    uint16_t height, width, channels;
    uint16_t rows_held; /* height, or fewer in a ring: row y lies in slot y % rows_held */
    uint8_t dtype;      /* bd_dtype */
    uint8_t place;
    uint8_t order; /* of the channels within 32, as bits of a word or as accumulators: 0 is natural */
    uint8_t reserved0;
    uint32_t ring; /* of an input that is pushed row by row: its ring in the tensor area */
    uint32_t reserved[2];
} bd_tensor;
BD_STATIC_ASSERT(tensor, sizeof(bd_tensor) == 32);

#define BD_PAD_REPLICATE 2

enum { BD_STEP_WINDOW = 0, BD_STEP_ACCUMULATE = 1, BD_STEP_WHOLE = 2 };

/* One step: `kernel` computes rows of in[0] into accumulators in scratch, and `epilogue` turns those (with
 * the residual in[1]) into the outputs. Either may be BD_NONE: a kernel without epilogue writes out[0]
 * itself, an epilogue without kernel reads in[0] as its accumulators. */
typedef struct bd_step {
    uint16_t kernel, epilogue; /* indices into the kernel record, or BD_NONE */
    uint16_t in[2];            /* input, residual; BD_NONE where absent */
    uint16_t out[2];           /* trunk (elements), packed (bit or trit); BD_NONE where absent */
    uint16_t out_height, out_width, out_channels; /* of the accumulators */
    uint16_t groups;
    uint8_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int8_t pad_value;      /* -1, 0 or +1, or BD_PAD_REPLICATE: the nearest pixel of the map */
    uint8_t acc_dtype;     /* of the accumulators in scratch */
    uint8_t weight_planes; /* 1 for bit weights, 2 for trit weights, 0 where weights are not packed */
    uint8_t kind;
    uint16_t rows_per_call; /* rows that one call of the kernel makes, at least 1 */
    int16_t zero_point;     /* of a quantized in[0] */
    uint32_t weights,
        weights_size;     /* in the constants: offset (a multiple of 16) and bytes, or BD_ABSENT and 0 */
    uint32_t epilogue_at; /* bd_epilogue in the constants (a multiple of 16), or BD_ABSENT */
    uint32_t scratch;     /* bytes that the step needs: accumulators (rows_per_call rows, each a multiple of 4
                             bytes, together one of 16), then the kernel's own */
    uint8_t acc_order;    /* of the accumulators, as bd_tensor.order */
    uint8_t segment;      /* 0: runs by itself; adjacent steps of one number run together */
    uint8_t source[2];    /* in a segment: how many steps before this one makes in[i]; else 0 */
} bd_step;
BD_STATIC_ASSERT(step, sizeof(bd_step) == 56);

/* Parameters of an epilogue: offsets of per-channel arrays in the constants (multiples of 4), or BD_ABSENT. Factors,
 * slopes, biases and thresholds are float for a float epilogue, int32_t for a fixed one.
 *
 *     v = affine(acc [, residual])    absent mul: v = acc
 *     y = two_slope(v)                absent positive: y = v
 *     out[0] = y, out[1] = y compared with thresholds (absent low: no packed output)
 *
 * Fixed: v = saturate((shift(acc) * mul + shift(residual) * residual_mul + add) >> 16), y = saturate((v * slope) >> 16),
 * floor. A shift is to the left where positive, arithmetic to the right where negative, its result saturated to 16 bits.
 * Factors are k * 65536 + m with m in 16 bits, and without the k parts every sum fits 32 bits, so that
 * ((terms * m + add) >> 16) + k * term is the same number in 32-bit arithmetic.
 *
 * An epilogue with a packing suffix in its name has one array of records of its own at `mul`; all else is BD_ABSENT.
 * out[0] may be the rows of in[1]; nothing else overlaps. */
typedef struct bd_epilogue {
    uint32_t mul, add;
    uint32_t residual_mul;             /* absent: no residual; in[1] may be one pixel, for all */
    uint32_t positive, negative, bias; /* bias: float only */
    uint32_t low, high;                /* thresholds; high only for trits */
    int8_t shift, residual_shift; /* fixed: left shifts of the terms (negative: arithmetic right shifts) */
    uint8_t dtype; /* of y: BD_F32, BD_I16, BD_I8, or the accumulators' when nothing changes them */
    uint8_t reserved0;
    uint16_t residual_channels; /* of in[1]: channel c reads c % residual_channels (broadcast residual) */
    uint16_t repeats; /* accumulators' channels are read repeats + 1 times, for so many times their outputs */
} bd_epilogue;
BD_STATIC_ASSERT(epilogue, sizeof(bd_epilogue) == 40);

/* Test vector. kind 0: input bytes, then output bytes follow literally. kind 1: the input is made by the
 * generator below from `seed`; the output is checked by its CRC-32 only. Generator: state = seed; for every
 * byte: state ^= state << 13; state ^= state >> 17; state ^= state << 5; the byte is state >> 24 (f32 inputs:
 * every element is (int8_t)(state >> 24) / 64). */
typedef struct bd_test_vector {
    uint32_t kind;
    uint32_t input_bytes, output_bytes;
    uint32_t seed;
    uint32_t output_crc32;
    uint32_t reserved[3];
} bd_test_vector;
BD_STATIC_ASSERT(test_vector, sizeof(bd_test_vector) == 32);

#endif
