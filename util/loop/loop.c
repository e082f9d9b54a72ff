/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The loop: one thread's turns. It owns its engine, its coroutine scheduler, the armed timers'
 * heap, the posts and the host's descriptor; not the timers, hooks and coroutines themselves.
 *
 * A turn, and when it costs a system call:
 *
 *   nothing ready -> engine wait: submits, sleeps until the deadline    one
 *   due timers -> posts -> ready coroutines, up to the budget -> turn-end hooks
 *   something was queued -> engine wait(0): submits, takes completions  one
 *   the host polls -> timerfd and eventfd brought up to date            only on a change
 *
 * A turn that begins with ready work asks the engine for completions first, unless the turn before
 * ended by asking. When no I/O is in flight it asks only every UNASKED_TURNS_MAX turns: descriptors
 * that are polled for, and nothing else, may wait for that long. So a busy loop makes one system
 * call a turn, and one with ready coroutines and no I/O makes none.
 *
 * Invariants:
 *  1. Only the owner thread runs turns, and a turn never runs inside a turn.
 *  2. Callbacks of the layers above and of the host run on the stack that called run_once, outside
 *     of any coroutine, never inside the call that asked for them.
 *  3. The loop sleeps only when no coroutine is ready, no hook is scheduled and no post is pending;
 *     a post after that look wakes the engine (post.c).
 *  4. When run_once returns, everything that was queued is submitted. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "util/assert.h"
#include "util/error.h"
#include "util/loop/private.h"

enum { UNASKED_TURNS_MAX = 16 };

/* ---- who owns the loop ---- */

bool ash_loop_is_owner(const struct ash_loop *loop)
{
    pthread_t owner = atomic_load_explicit(&ash_loop_private(loop)->owner, memory_order_acquire);
    return owner == pthread_self();
}

bool ash_loop_has_owner(const struct ash_loop *loop)
{
    return atomic_load_explicit(&ash_loop_private(loop)->owner, memory_order_acquire) != 0;
}

void ash_loop_assert_owner(const struct ash_loop *loop)
{
    ash_assert(ash_loop_is_owner(loop));
}

bool ash_loop_in_turn(const struct ash_loop *loop)
{
    return ash_loop_is_owner(loop) && ash_loop_private(loop)->in_turn;
}

int ash_loop_become_owner(struct ash_loop *loop)
{
    struct ash_loop_private *private = ash_loop_private(loop);
    pthread_t nobody = 0;
    if (!atomic_compare_exchange_strong(&private->owner, &nobody, pthread_self())) {
        return -EBUSY;
    }
    ash_assert_set_hooks(&loop->hooks);
    if (loop->engine->ops->bind != NULL) {
        int result = loop->engine->ops->bind(loop->engine);
        if (result < 0) {
            ash_assert_set_hooks(NULL);
            atomic_store(&private->owner, 0);
            return result;
        }
    }
    return 0;
}

ASH_PUBLIC int ash_loop_bind(struct ash_loop *loop)
{
    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    int result = ash_loop_become_owner(loop);
    pthread_setcancelstate(cancel_state, NULL);
    return result;
}

/* ---- small questions ---- */

ASH_PUBLIC const char *ash_loop_engine(const struct ash_loop *loop)
{
    return loop->engine->ops->name;
}

uint64_t ash_loop_now(struct ash_loop *loop)
{
    return loop->engine->ops->now(loop->engine);
}

uint64_t ash_loop_turn_ns(struct ash_loop *loop)
{
    struct ash_loop_private *private = ash_loop_private(loop);
    if (!private->in_turn) {
        return ash_loop_now(loop);
    }
    if (private->turn_ns == 0) {
        private->turn_ns = ash_loop_now(loop);
    }
    return private->turn_ns;
}

struct ash_loop *ash_co_loop(void)
{
    return ash_container_of(ash_co_sched_of(ash_co_self()), struct ash_loop, sched);
}

/* ---- turn-end hooks ---- */

void ash_turn_hook_init(struct ash_turn_hook *hook, void (*run)(struct ash_turn_hook *hook))
{
    hook->run = run;
    ash_list_init(&hook->link);
}

void ash_loop_at_turn_end(struct ash_loop *loop, struct ash_turn_hook *hook)
{
    ash_loop_assert_owner(loop);
    if (ash_list_empty(&hook->link)) {
        ash_list_push_back(&ash_loop_private(loop)->hooks, &hook->link);
        ash_loop_kick(loop);
    }
}

void ash_turn_hook_cancel(struct ash_turn_hook *hook)
{
    ash_list_remove(&hook->link);
}

/* Runs the hooks that are scheduled now. Those that they schedule wait for the next turn. */
static uint32_t run_hooks(struct ash_loop_private *private)
{
    if (ash_list_empty(&private->hooks)) {
        return 0;
    }
    struct ash_list due = private->hooks;
    due.next->prev = &due;
    due.prev->next = &due;
    ash_list_init(&private->hooks);

    uint32_t count = 0;
    while (!ash_list_empty(&due)) {
        struct ash_turn_hook *hook = ash_list_first(&due, struct ash_turn_hook, link);
        ash_list_remove(&hook->link);
        hook->run(hook);
        count++;
    }
    return count;
}

/* ---- the turn ---- */

static bool work_ready(struct ash_loop_private *private)
{
    return private->loop.sched.ready_count > 0 || !ash_list_empty(&private->hooks) ||
           ash_posts_pending(&private->posts);
}

bool ash_loop_work_left(const struct ash_loop *loop)
{
    return work_ready(ash_loop_private(loop)) || loop->engine->unsent;
}

static int ask_engine(struct ash_loop_private *private, uint64_t deadline_ns)
{
    struct ash_engine *engine = private->loop.engine;
    engine->unsent = false;
    private->turns_unasked = 0;
    return engine->ops->wait(engine, deadline_ns);
}

static uint64_t sleep_deadline(struct ash_loop_private *private, int64_t timeout_ns)
{
    if (timeout_ns == 0) {
        return 0;
    }
    uint64_t timer_ns = ash_timers_next(&private->timers);
    if (timeout_ns < 0) {
        return timer_ns;
    }
    uint64_t limit_ns = ash_loop_now(&private->loop) + (uint64_t)timeout_ns;
    return ASH_MIN(timer_ns, limit_ns);
}

static int begin_turn(struct ash_loop_private *private, int64_t timeout_ns)
{
    if (!work_ready(private)) {
        return ask_engine(private, sleep_deadline(private, timeout_ns));
    }
    if (private->engine_waited) {
        return 0;
    }
    private->turns_unasked++;
    if (private->loop.engine->in_flight == 0 && private->turns_unasked < UNASKED_TURNS_MAX) {
        return 0;
    }
    return ask_engine(private, 0);
}

static int end_turn(struct ash_loop_private *private)
{
    private->engine_waited = private->loop.engine->unsent;
    return private->engine_waited ? ask_engine(private, 0) : 0;
}

static int run_turn(struct ash_loop_private *private, int64_t timeout_ns, uint32_t budget)
{
    struct ash_loop *loop = &private->loop;
    int completions = begin_turn(private, timeout_ns);
    if (completions < 0) {
        return completions;
    }
    private->turn_ns = 0;
    uint64_t events = (uint64_t)completions;
    events += ash_timers_run(loop);
    events += ash_posts_run(loop);
    events += ash_co_sched_run(&loop->sched, budget);
    events += run_hooks(private);
    completions = end_turn(private);
    if (completions < 0) {
        return completions;
    }
    events += (uint64_t)completions;
    return (int)ASH_MIN(events, (uint64_t)INT_MAX);
}

ASH_PUBLIC int ash_loop_run_once(struct ash_loop *loop, int64_t timeout_ns, uint32_t budget)
{
    struct ash_loop_private *private = ash_loop_private(loop);
    ash_loop_assert_owner(loop);
    if (private->in_turn) {
        return -EDEADLK;
    }
    /* A thread that is cancelled in the middle of a turn would leave it half done. */
    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    ash_assert_set_hooks(&loop->hooks);
    private->in_turn = true;
    int result = run_turn(private, timeout_ns, budget);
    private->in_turn = false;
    ash_host_fd_update(loop);
    pthread_setcancelstate(cancel_state, NULL);
    return result;
}

void ash_loop_pause_after_error(struct ash_loop *loop, int result)
{
    ash_log(loop, ASH_LOG_ERROR, "the %s engine failed and is asked again: %s",
            ash_loop_engine(loop), strerror(-result));
    const struct timespec pause = {.tv_nsec = 10000000};
    nanosleep(&pause, NULL);
}

/* ---- life ---- */

/* The engine is the loop's from here on; on failure both are destroyed. */
static int start(struct ash_loop_private *private, struct ash_engine *engine,
                 const struct ash_loop_settings *settings, struct ash_error *error)
{
    struct ash_loop *loop = &private->loop;
    loop->private = private;
    loop->engine = engine;
    loop->metadata_bytes_max = settings->metadata_bytes_max;
    private->own_thread = (settings->flags & ASH_LOOP_OWN_THREAD) != 0;
    ash_list_init(&private->hooks);
    ash_list_init(&private->memory);
    private->host_fd = (struct ash_host_fd){.epoll = -1, .timer = -1, .event = -1};
    ash_co_sched_init(&loop->sched, &(struct ash_co_config){0});

    int result = ash_posts_init(&private->posts);
    if (result < 0) {
        ash_error_errno(error, result, "cannot make a loop");
        goto fail_posts;
    }
    result =
        private->own_thread ? ash_loop_thread_start(loop, error) : ash_host_fd_open(loop, error);
    if (result < 0) {
        goto fail;
    }
    return 0;

fail:
    pthread_mutex_destroy(&private->posts.lock);
fail_posts:
    ash_co_sched_destroy(&loop->sched);
    engine->ops->destroy(engine);
    free(private);
    return result;
}

static int make_loop(const struct ash_loop_config *config, struct ash_loop **loop,
                     struct ash_error *error)
{
    struct ash_loop_private *private = calloc(1, sizeof(*private));
    if (private == NULL) {
        return ash_error_set(error, -ENOMEM, "no memory for a loop");
    }
    struct ash_loop_settings settings;
    int result = ash_loop_settings_read(config, &settings, &private->loop.hooks, error);
    if (result < 0) {
        free(private);
        return result;
    }
    settings.engine_config.hooks = &private->loop.hooks;
    struct ash_engine *engine;
    result = ash_engine_new(settings.engine, &settings.engine_config, &engine, error);
    if (result < 0) {
        free(private);
        return result;
    }
    result = start(private, engine, &settings, error);
    if (result == 0) {
        *loop = &private->loop;
    }
    return result;
}

ASH_PUBLIC int ash_loop_new(const struct ash_loop_config *config, struct ash_loop **loop,
                            struct ash_error *error)
{
    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    int result = make_loop(config, loop, error);
    pthread_setcancelstate(cancel_state, NULL);
    return result;
}

int ash_loop_new_with_engine(struct ash_engine *engine, const struct ash_loop_config *config,
                             struct ash_loop **loop, struct ash_error *error)
{
    struct ash_loop_private *private = calloc(1, sizeof(*private));
    struct ash_loop_settings settings;
    int result = private == NULL
                     ? ash_error_set(error, -ENOMEM, "no memory for a loop")
                     : ash_loop_settings_read(config, &settings, &private->loop.hooks, error);
    if (result < 0) {
        engine->ops->destroy(engine);
        free(private);
        return result;
    }
    result = start(private, engine, &settings, error);
    if (result == 0) {
        *loop = &private->loop;
    }
    return result;
}

/* Runs turns until nothing is ready and nothing is in flight. */
static void settle(struct ash_loop *loop)
{
    while (ash_loop_work_left(loop) || loop->engine->in_flight > 0) {
        int result = ash_loop_run_once(loop, loop->engine->in_flight > 0 ? -1 : 0, 0);
        if (result == -EDEADLK) {
            break; /* The simulator holds back what is in flight: the engine says so below. */
        }
        if (result < 0) {
            ash_loop_pause_after_error(loop, result);
        }
    }
}

void ash_loop_teardown(struct ash_loop *loop)
{
    struct ash_loop_private *private = ash_loop_private(loop);
    settle(loop);
    if (loop->block_free != NULL) {
        loop->block_free(loop);
        settle(loop);
    }
    ash_assert(private->timers.count == 0);
    free(private->timers.heap);
    ash_memory_forget_all(loop);
    ash_host_fd_close(&private->host_fd);
    ash_posts_destroy(&private->posts);
    ash_co_sched_destroy(&loop->sched);
    loop->engine->ops->destroy(loop->engine);
    ash_assert_set_hooks(NULL);
}

ASH_PUBLIC void ash_loop_free(struct ash_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    struct ash_loop_private *private = ash_loop_private(loop);
    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    if (private->own_thread) {
        ash_assert(!ash_loop_is_owner(loop));
        ash_posts_close(loop);
        ash_loop_thread_join(loop);
    } else {
        /* A loop that was never bound ends on the thread that frees it. Should the engine not be
         * had there, its own calls will say so: nothing can be in flight on it. */
        if (atomic_load(&private->owner) == 0) {
            (void)ash_loop_become_owner(loop);
            atomic_store(&private->owner, pthread_self());
        }
        ash_loop_assert_owner(loop);
        ash_assert(!private->in_turn);
        ash_posts_close(loop);
        ash_loop_teardown(loop);
    }
    free(private);
    pthread_setcancelstate(cancel_state, NULL);
}
