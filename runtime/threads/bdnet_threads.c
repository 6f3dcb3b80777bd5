/* Inference by several threads: for each step, workers take chunks of rows until none is left. */
#include "bdnet_threads.h"

#include "bd_internal.h"

/* Rows are taken in about this many chunks a thread, so that a slow core holds nobody up for long. */
#define CHUNKS 4u

static void take_rows(bd_threads *t, uint32_t index) {
    uint8_t *scratch = t->context->scratch + (size_t)index * t->context->model.header->scratch_bytes;
    for (;;) {
        const uint32_t y = __atomic_fetch_add(&t->next_row, t->chunk, __ATOMIC_RELAXED);
        if (y >= t->rows) {
            return;
        }
        const uint32_t end = t->rows - y < t->chunk ? t->rows : y + t->chunk;
        const bd_status status = bd_run_rows(t->context, t->step, y, end, scratch);
        if (status != BD_OK) {
            __atomic_store_n(&t->status, status, __ATOMIC_RELAXED);
        }
    }
}

static void *worker_main(void *argument) {
    bd_worker *worker = argument;
    bd_threads *t = worker->threads;
    uint32_t seen = 0;
    pthread_mutex_lock(&t->lock);
    while (!t->stopping) {
        if (t->generation == seen) {
            pthread_cond_wait(&t->work, &t->lock);
            continue;
        }
        seen = t->generation;
        pthread_mutex_unlock(&t->lock);
        take_rows(t, worker->index);
        pthread_mutex_lock(&t->lock);
        if (--t->busy == 0) {
            pthread_cond_signal(&t->done);
        }
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

uint32_t bd_threads_bytes(void) {
    return (uint32_t)sizeof(bd_threads);
}

bd_status bd_threads_start(bd_threads *t, uint32_t count) {
    if (t == NULL || count == 0 || count > BD_MAX_THREADS) {
        return BD_ERROR_ARGUMENT;
    }
    t->count = count;
    t->started = 1;
    t->generation = t->busy = t->stopping = 0;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->done, NULL);
    for (; t->started < count; t->started++) {
        bd_worker *worker = &t->workers[t->started];
        worker->threads = t;
        worker->index = t->started;
        if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0) {
            bd_threads_stop(t);
            return BD_ERROR_ARGUMENT;
        }
    }
    return BD_OK;
}

void bd_threads_stop(bd_threads *t) {
    pthread_mutex_lock(&t->lock);
    t->stopping = 1;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    for (uint32_t i = 1; i < t->started; i++) {
        pthread_join(t->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&t->done);
    pthread_cond_destroy(&t->work);
    pthread_mutex_destroy(&t->lock);
}

/* One step by all threads, over its whole map. */
static bd_status share(bd_threads *t, const bd_context *context, uint32_t index) {
    const bd_step *step = &context->model.steps[index];
    const uint32_t each = step->out_height / (t->count * CHUNKS), call = step->rows_per_call;
    t->context = context;
    t->step = index;
    t->rows = step->out_height;
    t->chunk = each <= call ? call : each / call * call; /* whole calls: they know of no end but the map's */
    t->next_row = 0;
    t->status = BD_OK;
    pthread_mutex_lock(&t->lock);
    t->busy = t->count - 1u;
    t->generation++;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    take_rows(t, 0);
    pthread_mutex_lock(&t->lock);
    while (t->busy != 0) {
        pthread_cond_wait(&t->done, &t->lock);
    }
    pthread_mutex_unlock(&t->lock);
    return t->status;
}

static int is_shared(const bd_threads *t, const bd_context *context) {
    const bd_step *step = &context->model.steps[context->at];
    return t->count > 1 && step->segment == 0 && step->kind == BD_STEP_WINDOW &&
           step->out_height > step->rows_per_call;
}

bd_status bd_threads_run(bd_threads *t, bd_context *context, const void *const inputs[], uint32_t n_inputs,
                         void *const outputs[], uint32_t n_outputs) {
    if (t == NULL || context == NULL || inputs == NULL || n_inputs == 0 || inputs[0] == NULL) {
        return BD_ERROR_ARGUMENT;
    }
    const size_t room = (size_t)(context->arena_end - context->scratch);
    if (room / t->count < context->model.header->scratch_bytes) {
        return BD_ERROR_ARENA;
    }
    bd_status status = bd_begin(context, inputs, n_inputs, outputs, n_outputs);
    if (status != BD_OK) {
        return status;
    }
    bd_progress progress = BD_MORE;
    while (status == BD_OK && progress == BD_MORE) {
        if (context->at < context->model.step_count && is_shared(t, context)) {
            status = share(t, context, context->at++);
            context->next = context->at;
        } else {
            status = bd_advance(context, &progress);
        }
    }
    return bd_end_with(context, status);
}
