/* bdnet runtime: runs .bdn models of binary and 1.58-bit networks. C99, freestanding, no malloc, no globals.
 *
 * One call sequence:
 *
 *     bd_model_info info;
 *     bd_inspect(model, model_size, &bd_kernels_all, &info);         checks the file, tells the arena's size
 *     bd_load(arena, info.arena_bytes, model, model_size, &bd_kernels_all, &context);
 *     bd_run(context, inputs, 1, outputs, 1);
 *
 * The model stays where it is (flash, a mapped file), must stay there and must not change: it is read in every
 * inference and checked by bd_inspect and bd_load only. The arena and the model must be aligned to BD_ALIGN bytes. Every
 * function is re-entrant; a context is used by one thread at a time.
 */
#ifndef BDNET_H
#define BDNET_H

#include <stddef.h>
#include <stdint.h>

/* Switches. You usually do not need to change anything. Define them for the whole build (compiler option -D), not in
 * a source file: the runtime's files and yours must agree.
 *
 * BD_NO_CRC: default not defined. Defined, bd_inspect and bd_load do not compute the model's checksum, which is most
 *     of their time; every other check stays. A model that was damaged may then load and give wrong outputs, but no
 *     inference leaves its memory. For firmware whose boot loader has checked a signature over the model, or which
 *     checks the sum itself in slices (bd_crc32). */

/* BD_WITH_<SET>, for instance BD_WITH_DSP: not defined. Defined, a generated table takes the kernels of kernels/<set>, whose
 *     files are then part of the build; the processor must have these instructions. The sets: kernels/variants.def. */

/* BD_API: default nothing. What stands in front of every declaration below, e.g. visibility in a shared library that is
 *     compiled with -fvisibility=hidden: -DBD_API='__attribute__((visibility("default")))'. */
#ifndef BD_API
#    define BD_API
#endif

/* BD_MODEL_ATTRIBUTE: default the alignment to BD_ALIGN for compilers that define __GNUC__, else nothing. What stands in
 *     front of the model's array in a generated C file: the alignment as another compiler writes it, a section for an
 *     external flash (BD_MODEL_ATTRIBUTE='__attribute__((aligned(16), section(".extflash")))'). */
#ifndef BD_MODEL_ATTRIBUTE
#    ifdef __GNUC__
#        define BD_MODEL_ATTRIBUTE __attribute__((aligned(16)))
#    else
#        define BD_MODEL_ATTRIBUTE
#    endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define BD_API_VERSION 1
#define BD_ALIGN       16u

/* What bd_load needs, as a constant expression for the size of a static arena: kernels and steps are the
 * sizes of the model's records, the others stand in its header. bd_inspect reports the same number. */
#define BD_CONTEXT_BYTES (16u * sizeof(void *) + 32u)
#define BD_ARENA_BYTES(kernels, steps, tensor_bytes, scratch_bytes)                                          \
    (BD_CONTEXT_BYTES +                                                                                      \
     (((kernels) * sizeof(void *) + (steps) * 2u + BD_ALIGN - 1u) / BD_ALIGN) * BD_ALIGN + (tensor_bytes) +  \
     (scratch_bytes))

typedef enum bd_status {
    BD_OK = 0,
    BD_ERROR_TRUNCATED = 1, /* the file is shorter than it says, or than a header */
    BD_ERROR_MAGIC = 2,     /* not a .bdn file */
    BD_ERROR_VERSION = 3,   /* a format that this runtime does not read */
    BD_ERROR_CRC = 4,       /* damaged: the checksum differs */
    BD_ERROR_RECORD = 5,    /* a record is missing, repeated, misplaced or of an impossible size */
    BD_ERROR_TENSOR = 6,    /* a tensor's shape, type or place is impossible */
    BD_ERROR_STEP = 7,      /* a step's operands, geometry or constants do not fit its kernel */
    BD_ERROR_KERNEL =
        8,              /* a kernel that this build does not contain; bd_model_info.missing_kernel names it */
    BD_ERROR_ARENA = 9, /* the arena is too small or misaligned */
    BD_ERROR_ALIGNMENT = 10, /* the model or an input or output buffer is misaligned */
    BD_ERROR_ARGUMENT = 11   /* a null pointer, a wrong number of inputs or outputs, or a call out of turn */
} bd_status;

typedef enum bd_dtype {
    BD_F32 = 0,
    BD_U8 = 1,
    BD_I8 = 2,
    BD_I16 = 3,
    BD_I32 = 4,
    BD_BIT = 5,  /* one plane: bit 1 is -1, LSB first, 32 channels a word, tail bits 0 */
    BD_TRIT = 6, /* two planes a, b with a <= b: +1 is (0,0), 0 is (0,1), -1 is (1,1); tail bits 0 */
    BD_UBIT = 7  /* 0 or 1 in one plane, a trit's plane b: bit 1 is 0, bit 0 is 1; tail bits 0 */
} bd_dtype;

typedef struct bd_shape {
    uint16_t height, width, channels;
    uint16_t dtype; /* bd_dtype */
} bd_shape;

typedef struct bd_model_info {
    uint32_t arena_bytes;   /* what bd_load needs, exactly */
    uint32_t scratch_bytes; /* of them: what each further thread needs (bdnet_threads.h) */
    uint32_t model_version;
    uint16_t inputs, outputs, steps;
    const char *missing_kernel; /* inside the model, or NULL */
} bd_model_info;

struct bd_kernel_table; /* see bd_kernel.h; generated per model, or one of those below */
typedef struct bd_context bd_context;

/* Every kernel of this build. Naming it links them all: firmware uses a generated table instead. */
BD_API extern const struct bd_kernel_table bd_kernels_all;

/* Checks a model completely, in time linear in its size, without running or writing anything but *info. */
BD_API bd_status bd_inspect(const void *model, uint32_t model_size, const struct bd_kernel_table *kernels,
                            bd_model_info *info);

/* Checks the model and sets up a context inside the arena, which need not be cleared. On failure the
 * arena is as it was, and *context is NULL. */
BD_API bd_status bd_load(void *arena, uint32_t arena_size, const void *model, uint32_t model_size,
                         const struct bd_kernel_table *kernels, bd_context **context);

/* Shape of an input or output. Buffers are dense NHWC, aligned to 4 bytes; their sizes are the caller's promise.
 * BD_ERROR_ARGUMENT: there is no such input or output. */
BD_API bd_status bd_input_shape(const bd_context *context, uint32_t index, bd_shape *shape);
BD_API bd_status bd_output_shape(const bd_context *context, uint32_t index, bd_shape *shape);

/* One inference. Inputs are not written; an output may overlap no input and no other output. An inference that is under way
 * in slices is given up. */
BD_API bd_status bd_run(bd_context *context, const void *const inputs[], uint32_t n_inputs,
                        void *const outputs[], uint32_t n_outputs);

/* The same in slices. bd_begin binds the buffers; the arrays of pointers must live until the inference is over. bd_advance
 * makes one kernel call, a bounded amount of work, and says what comes next. Between slices the caller may do anything
 * but touch the arena and the buffers. Beginning again gives the inference up; arguments that bd_begin refuses leave it as
 * it is. bd_advance without an inference under way, or after BD_DONE, is BD_ERROR_ARGUMENT. */
typedef enum bd_progress {
    BD_DONE = 0, /* the outputs are there */
    BD_MORE = 1, /* call bd_advance again */
    BD_ROWS = 2  /* push the next row first */
} bd_progress;

BD_API bd_status bd_begin(bd_context *context, const void *const inputs[], uint32_t n_inputs,
                          void *const outputs[], uint32_t n_outputs);
BD_API bd_status bd_advance(bd_context *context, bd_progress *progress);

/* The next row of the first input, for models that were exported to take their input row by row: bd_input_is_pushed says
 * so. The row (width * channels elements, at any address) is copied. inputs[0] of bd_begin is then NULL; given to bd_run,
 * a whole input works too. Call bd_advance until it asks for BD_ROWS, push, and so on.
 * BD_ERROR_ARGUMENT: not such a model, no inference under way, or a row when none was asked for. */
BD_API int bd_input_is_pushed(const bd_context *context);
BD_API bd_status bd_push_row(bd_context *context, const void *row);

/* Runs the model's own test vector in the given buffers; *passed is 1 when the output is the recorded one.
 * input and output must hold the model's whole first input and output; where the input is pushed, NULL does for it. Models
 * with one of each have a vector. An inference under way is given up. BD_ERROR_RECORD: the model has no vector. */
BD_API bd_status bd_self_test(bd_context *context, void *input, void *output, int *passed);

/* CRC-32 of IEEE 802.3 (zlib's) of data that follows what `crc` is the sum of; 0 at the start. In slices, for a watchdog, of a
 * model in a build with BD_NO_CRC: the sum of its bytes from 8 to the size that its third word says is its second word. */
BD_API uint32_t bd_crc32(uint32_t crc, const void *data, uint32_t size);

/* A constant string for a status, for logs. */
BD_API const char *bd_status_name(bd_status status);

#ifdef __cplusplus
}
#endif
#endif
