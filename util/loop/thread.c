/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A loop on a thread of its own. The thread binds the loop, tells the creator how that went, runs
 * turns until the posts are closed, and takes the loop down. The creator owns the memory and frees
 * it after joining. */
#include <errno.h>
#include <stdlib.h>
#include "util/assert.h"
#include "util/engine/os.h"
#include "util/error.h"
#include "util/loop/private.h"

struct ash_loop_thread {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool started; /* lock */
    int result;   /* lock; of the bind */
};

static void tell_started(struct ash_loop_thread *thread, int result)
{
    pthread_mutex_lock(&thread->lock);
    thread->started = true;
    thread->result = result;
    pthread_cond_signal(&thread->changed);
    pthread_mutex_unlock(&thread->lock);
}

static int wait_started(struct ash_loop_thread *thread)
{
    pthread_mutex_lock(&thread->lock);
    while (!thread->started) {
        pthread_cond_wait(&thread->changed, &thread->lock);
    }
    int result = thread->result;
    pthread_mutex_unlock(&thread->lock);
    return result;
}

static void *thread_main(void *opaque)
{
    struct ash_loop *loop = opaque;
    struct ash_loop_private *private = ash_loop_private(loop);
    int result = ash_loop_become_owner(loop);
    tell_started(private->thread, result);
    if (result < 0) {
        return NULL;
    }
    while (!atomic_load_explicit(&private->posts.stop, memory_order_acquire)) {
        result = ash_loop_run_once(loop, -1, 0);
        if (result < 0) {
            ash_loop_pause_after_error(loop, result);
        }
    }
    ash_loop_teardown(loop);
    return NULL;
}

static void free_thread(struct ash_loop *loop)
{
    struct ash_loop_thread *thread = ash_loop_private(loop)->thread;
    pthread_cond_destroy(&thread->changed);
    pthread_mutex_destroy(&thread->lock);
    free(thread);
    ash_loop_private(loop)->thread = NULL;
}

int ash_loop_thread_start(struct ash_loop *loop, struct ash_error *error)
{
    struct ash_loop_thread *thread = calloc(1, sizeof(*thread));
    if (thread == NULL) {
        return ash_error_set(error, -ENOMEM, "no memory for a loop's thread");
    }
    pthread_mutex_init(&thread->lock, NULL);
    pthread_cond_init(&thread->changed, NULL);
    ash_loop_private(loop)->thread = thread;
    int result = ash_thread_start(&thread->thread, "ashlar-loop", &loop->hooks, thread_main, loop);
    if (result < 0) {
        free_thread(loop);
        return ash_error_errno(error, result, "cannot start a loop's thread");
    }
    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    result = wait_started(thread);
    if (result < 0) {
        pthread_join(thread->thread, NULL);
        free_thread(loop);
        ash_error_errno(error, result, "cannot enable the %s engine on a loop's thread",
                        ash_loop_engine(loop));
    }
    pthread_setcancelstate(cancel_state, NULL);
    return result;
}

void ash_loop_thread_join(struct ash_loop *loop)
{
    int result = pthread_join(ash_loop_private(loop)->thread->thread, NULL);
    ash_assert(result == 0);
    free_thread(loop);
}
