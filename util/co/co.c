/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Coroutines and their scheduler.
 *
 *              spawn                 sched_run               fn returns
 *     idle ------------> ready -------------------> running ------------> ended --> idle, or
 * unmapped ^                           | |  wake                     | yield
 *                          +-------- suspended <-------+
 *
 * Unmapped, or kept for another scheduler (stack.c).
 *
 * A scheduler owns its coroutines, the running ones and the cached stacks. Everything happens on
 * the scheduler's thread.
 *
 * 1. Only ash_co_sched_run() switches into a coroutine, and a coroutine only switches back to it.
 *    So wake-ups do not nest, and at most one coroutine of a thread runs.
 * 2. A coroutine is in one list at most: ready, idle, or a queue that it waits in.
 * 3. `count` is the number of coroutines that are not idle; `ready_count` the length of `ready`.
 * 4. A coroutine that ended is freed or cached by the scheduler, not by itself: it still stands on
 *    its stack.
 * 5. A coroutine that switches reads thread-local variables only before the switch: it may come
 * back on another thread. */
#include "util/co/co.h"

#include <errno.h>
#include "util/assert.h"
#include "util/co/checkers.h"
#include "util/co/private.h"

/* Read at every switch: in the shared library too, without a call. */
static __thread __attribute__((tls_model("initial-exec"))) struct ash_co *current;

static const struct ash_co_config default_config = {
    .stack_bytes = ASH_CO_STACK_BYTES_DEFAULT,
    .cached_max = 128,
    .count_max = 16384,
};

void ash_co_sched_init(struct ash_co_sched *sched, const struct ash_co_config *config)
{
    *sched = (struct ash_co_sched){.config = default_config};
    ash_list_init(&sched->ready);
    ash_list_init(&sched->idle);
    if (config != NULL && config->stack_bytes != 0) {
        sched->config.stack_bytes = config->stack_bytes;
    }
    if (config != NULL && config->cached_max != 0) {
        sched->config.cached_max = config->cached_max;
    }
    if (config != NULL && config->count_max != 0) {
        sched->config.count_max = config->count_max;
    }
}

void ash_co_sched_destroy(struct ash_co_sched *sched)
{
    ash_assert(sched->count == 0);
    ash_list_for_each_safe(co, &sched->idle, struct ash_co, link)
    {
        ash_list_remove(&co->link);
        ash_co_stack_free(co);
        sched->idle_count--;
    }
    ash_assert(sched->idle_count == 0);
}

static void make_ready(struct ash_co *co)
{
    co->state = ASH_CO_READY;
    ash_list_push_back(&co->sched->ready, &co->link);
    co->sched->ready_count++;
}

/* The scheduler's next coroutine: the first, or one drawn from the first `among`. */
static struct ash_co *take_ready(struct ash_co_sched *sched, uint32_t among)
{
    struct ash_list *link = sched->ready.next;

    if (sched->shuffle != NULL) {
        for (uint64_t skip = ash_prng_below(sched->shuffle, among); skip > 0; skip--) {
            link = link->next;
        }
    }
    ash_list_remove(link);
    sched->ready_count--;
    return ash_list_entry(link, struct ash_co, link);
}

/* Switches from a coroutine to its scheduler; returns when it is resumed, unless it is ending. */
static inline __attribute__((always_inline)) void leave(struct ash_co *self, bool ending)
{
    void *fake_stack = check_before_leave(self, ending);

    ash_co_context_switch(&self->context, &self->runner->context);
    check_after_leave(self, fake_stack);
}

/* The first frame of every coroutine. It is not instrumented, because it never returns. */
ASH_CO_UNCHECKED static void entry(void)
{
    struct ash_co *self = current;

    check_after_leave(self, NULL);
    self->fn(self->opaque);
    self->state = ASH_CO_ENDED;
    leave(self, true);
    __builtin_unreachable();
}

int ash_co_spawn(struct ash_co_sched *sched, ash_co_fn *fn, void *opaque)
{
    struct ash_co *co;

    if (sched->count >= sched->config.count_max) {
        return -EAGAIN;
    }
    if (!ash_list_empty(&sched->idle)) {
        /* The one that ended last: its stack is still in the processor's cache. */
        co = ash_list_first(&sched->idle, struct ash_co, link);
        ash_list_remove(&co->link);
        sched->idle_count--;
    } else {
        co = ash_co_stack_new(sched->config.stack_bytes, sched->count);
        if (co == NULL) {
            return -ENOMEM;
        }
        co->sched = sched;
        ash_list_init(&co->link);
    }
    co->fn = fn;
    co->opaque = opaque;
    check_begin(co);
    ash_co_context_make(&co->context, co->stack, co->stack_bytes, entry);
    sched->count++;
    make_ready(co);
    return 0;
}

/* Caches the stack of a coroutine that ended, or frees it. */
static void retire(struct ash_co *co)
{
    struct ash_co_sched *sched = co->sched;

    check_end(co);
    sched->count--;
    if (sched->idle_count < sched->config.cached_max) {
        co->state = ASH_CO_IDLE;
        ash_list_push_front(&sched->idle, &co->link);
        sched->idle_count++;
    } else {
        ash_co_stack_free(co);
    }
}

uint32_t ash_co_sched_run(struct ash_co_sched *sched, uint32_t budget)
{
    struct ash_co_runner runner;
    uint32_t limit = budget != 0 ? budget : sched->ready_count;
    uint32_t switches = 0;

    ash_assert(current == NULL);
    while (switches < limit && !ash_list_empty(&sched->ready)) {
        /* What becomes ready meanwhile is at the end of the list: the first limit - switches are
         * those that a budget of 0 means. */
        struct ash_co *co = take_ready(sched, ASH_MIN(limit - switches, sched->ready_count));
        co->state = ASH_CO_RUNNING;
        co->runner = &runner;
        current = co;
        void *fake_stack = check_before_enter(&runner, co);
        ash_co_context_switch(&runner.context, &co->context);
        check_after_enter(fake_stack);
        current = NULL;
        switches++;
        if (co->state == ASH_CO_ENDED) {
            retire(co);
        }
    }
    return switches;
}

/* Not inlined into functions that switch, not even by link-time optimisation: invariant 5. */
__attribute__((noinline)) struct ash_co *ash_co_self(void)
{
    return current;
}

struct ash_co_sched *ash_co_sched_of(struct ash_co *co)
{
    return co->sched;
}

ASH_CO_FN void ash_co_yield(void)
{
    struct ash_co *self = current;

    ash_assert(self != NULL);
    self->state = ASH_CO_SUSPENDED;
    leave(self, false);
}

ASH_CO_FN void ash_co_reschedule(void)
{
    struct ash_co *self = current;

    ash_assert(self != NULL);
    make_ready(self);
    leave(self, false);
}

void ash_co_wake(struct ash_co *co)
{
    ash_assert(co->state == ASH_CO_SUSPENDED);
    ash_assert(ash_list_empty(&co->link)); /* who waits in a queue is woken through it */
    make_ready(co);
}

ASH_CO_ASSERT void ash_co_assert_inside(void)
{
    ash_assert(ash_co_self() != NULL);
}

#define PAINT 0xa5

/* Left alone above what is painted: the frames of the painting itself. */
#define PAINT_MARGIN_BYTES 512

ASH_CO_UNCHECKED void ash_co_paint(void)
{
    struct ash_co *self = current;

    ash_assert(self != NULL);
    char *end = (char *)__builtin_frame_address(0) - PAINT_MARGIN_BYTES;
    check_pause();
    for (volatile char *at = self->stack; at < end; at++) {
        *at = (char)PAINT;
    }
    check_resume();
}

ASH_CO_UNCHECKED size_t ash_co_untouched_bytes(void)
{
    struct ash_co *self = current;
    size_t bytes = 0;

    ash_assert(self != NULL);
    check_pause();
    while (bytes < self->stack_bytes && ((volatile char *)self->stack)[bytes] == (char)PAINT) {
        bytes++;
    }
    check_resume();
    return bytes;
}
