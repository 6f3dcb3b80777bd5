/* Inference by several threads, for Linux and other systems with POSIX threads. The rest of the runtime knows nothing
 * of it.
 *
 *     static bd_threads threads;
 *     bd_threads_start(&threads, 4);
 *     bd_load(arena, arena_bytes, ...);     arena_bytes = BD_THREADS_ARENA_BYTES(info, 4)
 *     bd_threads_run(&threads, context, inputs, 1, outputs, 1);
 *     bd_threads_stop(&threads);
 *
 * The rows of each map are shared out, so the bytes are those of bd_run. Steps that run row by row, that accumulate, or that
 * take a map as a whole run on the calling thread. One bd_threads serves any number of models, one inference at a time. */
#ifndef BDNET_THREADS_H
#define BDNET_THREADS_H

#include <pthread.h>

#include "bdnet.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BD_MAX_THREADS 64u

/* The arena for so many threads: each needs a scratch of its own. `info` is bd_inspect's. */
#define BD_THREADS_ARENA_BYTES(info, threads) ((info).arena_bytes + ((threads) - 1u) * (info).scratch_bytes)

typedef struct bd_threads bd_threads;

typedef struct bd_worker {
    bd_threads *threads;
    uint32_t index; /* of its scratch; the caller's is 0 */
    pthread_t thread;
} bd_worker;

/* The caller's memory; its members are not for use. */
struct bd_threads {
    bd_worker workers[BD_MAX_THREADS];
    uint32_t count, started;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    uint32_t generation, busy, stopping;
    const bd_context *context; /* the job: rows of one step */
    uint32_t step, rows, chunk, next_row;
    bd_status status;
};

/* Starts count - 1 threads beside the caller's, 1 <= count <= BD_MAX_THREADS. BD_ERROR_ARGUMENT: another count, or the
 * system refuses a thread. */
bd_status bd_threads_start(bd_threads *threads, uint32_t count);

/* As bd_run. BD_ERROR_ARENA: the arena given to bd_load was too small for so many threads. */
bd_status bd_threads_run(bd_threads *threads, bd_context *context, const void *const inputs[],
                         uint32_t n_inputs, void *const outputs[], uint32_t n_outputs);

/* sizeof(bd_threads), for bindings. */
uint32_t bd_threads_bytes(void);

/* Ends the threads. */
void bd_threads_stop(bd_threads *threads);

#ifdef __cplusplus
}
#endif
#endif
