/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Waiting, on a plain stack, for a function that runs in a coroutine: what every `_sync` call of
 * the public API is made of.
 *
 * The call lives on the heap and belongs to the waiter, who frees it once it is done. The one who
 * gives up waiting (only under the simulator, where -EDEADLK says that nothing can ever happen)
 * marks it abandoned and leaves it to the coroutine. */
#include <errno.h>
#include <stdlib.h>
#include "util/assert.h"
#include "util/loop/private.h"

struct sync_call {
    struct ash_loop *loop;
    int (*fn)(void *opaque);
    void *opaque;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;      /* lock */
    bool abandoned; /* owner thread */
    int result;     /* lock */
};

static void free_call(struct sync_call *call)
{
    pthread_cond_destroy(&call->changed);
    pthread_mutex_destroy(&call->lock);
    free(call);
}

static void finish(struct sync_call *call, int result)
{
    if (call->abandoned) {
        free_call(call);
        return;
    }
    pthread_mutex_lock(&call->lock);
    call->result = result;
    call->done = true;
    pthread_cond_signal(&call->changed);
    pthread_mutex_unlock(&call->lock);
}

static void run_call(void *opaque)
{
    struct sync_call *call = opaque;
    finish(call, call->fn(call->opaque));
}

static void spawn_call(void *opaque)
{
    struct sync_call *call = opaque;
    int result = ash_co_spawn(&call->loop->sched, run_call, call);
    if (result < 0) {
        finish(call, result);
    }
}

/* Another thread waits for the one that runs the loop. */
static int wait_for_thread(struct sync_call *call)
{
    int result = ash_loop_post(call->loop, spawn_call, call);
    if (result < 0) {
        free_call(call);
        return result;
    }
    pthread_mutex_lock(&call->lock);
    while (!call->done) {
        pthread_cond_wait(&call->changed, &call->lock);
    }
    result = call->result;
    pthread_mutex_unlock(&call->lock);
    free_call(call);
    return result;
}

/* The owner runs the loop itself. */
static int run_turns(struct sync_call *call)
{
    spawn_call(call);
    while (!call->done) {
        int result = ash_loop_run_once(call->loop, -1, 0);
        if (result == -EDEADLK) {
            call->abandoned = true;
            return result;
        }
        if (result < 0) {
            ash_loop_pause_after_error(call->loop, result);
        }
    }
    int result = call->result;
    free_call(call);
    return result;
}

int ash_loop_run_sync(struct ash_loop *loop, int (*fn)(void *opaque), void *opaque)
{
    bool owner = ash_loop_is_owner(loop);
    ash_assert(owner || ash_loop_has_owner(loop));
    if (ash_loop_in_turn(loop)) {
        return -EDEADLK;
    }
    struct sync_call *call = malloc(sizeof(*call));
    if (call == NULL) {
        return -ENOMEM;
    }
    *call = (struct sync_call){.loop = loop, .fn = fn, .opaque = opaque};
    pthread_mutex_init(&call->lock, NULL);
    pthread_cond_init(&call->changed, NULL);

    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    int result = owner ? run_turns(call) : wait_for_thread(call);
    pthread_setcancelstate(cancel_state, NULL);
    return result;
}
