/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The worker pool: a queue in, a list out.
 *
 *  1. A thread is started when a request is queued that no idle thread will take, up to `max`; it
 *     stays until the pool is freed. A thread is idle from the moment that others can see what it
 *     did: so requests that come one after the other have one thread, however fast they come.
 *  2. A request is on `todo`, or with one worker, or on `done`: workers never complete it
 *     themselves.
 *  3. The engine is woken when `done` becomes non-empty, and each wake is followed by a reap: so
 *     what is put on a list that is not empty needs no wake of its own.
 *  4. If the host has no thread left to give, the owner carries the request out itself: slow, but
 *     no request fails for it. */
#include "util/engine/workers.h"

#include <pthread.h>
#include <stdlib.h>
#include "util/assert.h"
#include "util/engine/blocking.h"
#include "util/engine/os.h"

struct ash_workers {
    struct ash_engine *engine;
    struct ash_spin *spin; /* owner */
    uint32_t max;
    uint32_t started; /* owner */
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct ash_list todo; /* lock */
    struct ash_list done; /* lock */
    uint32_t todo_count;  /* lock */
    uint32_t idle;        /* lock: threads that wait for work, or look for it next */
    bool stopping;        /* lock */
    pthread_t threads[];  /* owner */
};

struct ash_workers *ash_workers_new(struct ash_engine *engine, uint32_t max, struct ash_spin *spin)
{
    struct ash_workers *workers;

    ash_assert(max > 0);
    workers = calloc(1, sizeof(*workers) + max * sizeof(workers->threads[0]));
    if (!workers) {
        return NULL;
    }
    workers->engine = engine;
    workers->spin = spin;
    workers->max = max;
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->work, NULL);
    ash_list_init(&workers->todo);
    ash_list_init(&workers->done);
    return workers;
}

/* Runs one request; called and left with the lock held, by a thread that counts as idle. */
static void run_one(struct ash_workers *workers)
{
    struct ash_aio *aio = ash_list_first(&workers->todo, struct ash_aio, link);
    bool first;

    ash_list_remove(&aio->link);
    workers->todo_count--;
    workers->idle--;
    pthread_mutex_unlock(&workers->lock);

    aio->result = ash_blocking_run(workers->engine, aio);

    pthread_mutex_lock(&workers->lock);
    workers->idle++;
    first = ash_list_empty(&workers->done);
    ash_list_push_back(&workers->done, &aio->link);
    if (first) {
        /* Not under the lock, which the owner wants as soon as it wakes. */
        pthread_mutex_unlock(&workers->lock);
        workers->engine->ops->wake(workers->engine);
        pthread_mutex_lock(&workers->lock);
    }
}

static void *worker_main(void *opaque)
{
    struct ash_workers *workers = opaque;

    pthread_mutex_lock(&workers->lock);
    workers->idle++;
    while (!workers->stopping) {
        if (ash_list_empty(&workers->todo)) {
            pthread_cond_wait(&workers->work, &workers->lock);
        } else {
            run_one(workers);
        }
    }
    workers->idle--;
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

static void start_thread(struct ash_workers *workers)
{
    const struct ash_hooks *hooks = workers->engine->config.hooks;

    if (ash_thread_start(&workers->threads[workers->started], "ashlar-worker", hooks, worker_main,
                         workers) == 0) {
        workers->started++;
    }
}

void ash_workers_submit(struct ash_workers *workers, struct ash_aio *aio)
{
    bool more;

    ash_spin_begin(workers->spin, aio);
    pthread_mutex_lock(&workers->lock);
    ash_list_push_back(&workers->todo, &aio->link);
    workers->todo_count++;
    more = workers->todo_count > workers->idle && workers->started < workers->max;
    pthread_mutex_unlock(&workers->lock);

    if (more) {
        start_thread(workers);
    } else {
        /* Not under the lock, which the thread wants as soon as it wakes. */
        pthread_cond_signal(&workers->work);
    }
    if (!workers->started) {
        pthread_mutex_lock(&workers->lock);
        workers->idle++; /* the owner, for this one */
        run_one(workers);
        workers->idle--;
        pthread_mutex_unlock(&workers->lock);
    }
}

int ash_workers_reap(struct ash_workers *workers)
{
    struct ash_list done;
    int count = 0;

    ash_list_init(&done);
    pthread_mutex_lock(&workers->lock);
    if (!ash_list_empty(&workers->done)) {
        ash_list_insert_after(&workers->done, &done);
        ash_list_remove(&workers->done);
    }
    pthread_mutex_unlock(&workers->lock);

    while (!ash_list_empty(&done)) {
        struct ash_aio *aio = ash_list_first(&done, struct ash_aio, link);
        ash_list_remove(&aio->link);
        ash_spin_end(workers->spin, aio);
        ash_aio_complete(workers->engine, aio, aio->result);
        count++;
    }
    return count;
}

void ash_workers_free(struct ash_workers *workers)
{
    if (!workers) {
        return;
    }
    pthread_mutex_lock(&workers->lock);
    ash_assert(ash_list_empty(&workers->todo));
    ash_assert(ash_list_empty(&workers->done));
    workers->stopping = true;
    pthread_cond_broadcast(&workers->work);
    pthread_mutex_unlock(&workers->lock);
    for (uint32_t i = 0; i < workers->started; i++) {
        pthread_join(workers->threads[i], NULL);
    }
    pthread_cond_destroy(&workers->work);
    pthread_mutex_destroy(&workers->lock);
    free(workers);
}
