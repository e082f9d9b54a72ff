/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of util/co share: the coroutine itself and its stack. */
#ifndef ASH_UTIL_CO_PRIVATE_H
#define ASH_UTIL_CO_PRIVATE_H

#include <stddef.h>
#include "util/co/co.h"
#include "util/co/context.h"
#include "util/list.h"

enum ash_co_state {
    ASH_CO_IDLE,      /* a cached stack without a coroutine; `link` is in sched->idle */
    ASH_CO_READY,     /* `link` is in sched->ready */
    ASH_CO_RUNNING,   /* `link` is empty */
    ASH_CO_SUSPENDED, /* `link` is empty, or in an ash_co_queue */
    ASH_CO_ENDED,     /* the body returned; only until the scheduler has taken notice */
};

/* Where the scheduler stands while a coroutine runs; on the stack of ash_co_sched_run(). */
struct ash_co_runner {
    struct ash_co_context context;
    const void *stack; /* known under ASan only */
    size_t stack_bytes;
    void *tsan_fiber;
};

/* It lies at the top of its own stack, so that starting a coroutine on a cached stack touches no
 * other memory than the coroutine needs anyway. */
struct ash_co {
    struct ash_co_context context;
    struct ash_co_runner *runner; /* valid while running */
    struct ash_list link;
    struct ash_co_sched *sched;
    struct ash_co *next_spare; /* of a stack without a scheduler: stack.c */
    ash_co_fn *fn;
    void *opaque;
    enum ash_co_state state;
    unsigned valgrind_id;
    void *tsan_fiber;
    char *stack; /* the lowest usable byte; the guard page lies below */
    size_t stack_bytes;
    void *mapping;
    size_t mapping_bytes;
};

/* Maps a stack and makes the coroutine at its top, all fields about the stack set and the rest
 * zero. `colour` spreads the tops of stacks over the sets of the processor's cache. NULL: no
 * memory. */
struct ash_co *ash_co_stack_new(size_t stack_bytes, unsigned colour);

/* Gives the stack up, and the coroutine with it: it is unmapped, or kept for any scheduler. */
void ash_co_stack_free(struct ash_co *co);

#endif
