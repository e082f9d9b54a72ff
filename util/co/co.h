/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Coroutines: stackful, cooperative, bound to one scheduler (and so to one thread at a time).
 *
 * Only the scheduler switches into a coroutine; waking one puts it at the end of the ready queue and
 * never switches inline, so wake-ups cannot recurse. A coroutine runs until it yields or returns.
 *
 * A function that may yield is marked ASH_CO_FN, on its declaration and its definition. Under clang
 * the mark is a capability, and calling such a function from one that lacks the mark is an error
 * (-Wthread-safety). Function pointers in vtables are not covered by it: dispatch them only from
 * marked functions. */
#ifndef ASH_UTIL_CO_CO_H
#define ASH_UTIL_CO_CO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "util/compiler.h"
#include "util/list.h"
#include "util/prng.h"

#if defined(__clang__)
struct __attribute__((capability("coroutine"))) ash_co_capability {
    char unused;
};
extern struct ash_co_capability ash_in_coroutine;
#define ASH_CO_FN __attribute__((requires_capability(ash_in_coroutine)))
/* For a function that finds out at run time that it is inside a coroutine. */
#define ASH_CO_ASSERT __attribute__((assert_capability(ash_in_coroutine)))
#else
#define ASH_CO_FN
#define ASH_CO_ASSERT
#endif

/* On a function pointer: what it points to may yield. Documentation; see above. */
#define ASH_CO_PTR

struct ash_co;
typedef void ash_co_fn(void *opaque); /* the body; may yield although the type cannot say so */

struct ash_co_config {
    size_t stack_bytes;    /* usable bytes; 0: 64 KiB (more under ASan). A guard page lies below */
    uint32_t cached_max;   /* idle stacks kept; 0: 128 */
    uint32_t count_max;    /* coroutines at once; 0: 16384. The kernel allows some 32,000 mappings
                              with guards in a process */
};

/* The ready queue and the pool of stacks of one thread's coroutines. */
struct ash_co_sched {
    struct ash_list ready; /* of struct ash_co; owner thread */
    struct ash_list idle;  /* cached stacks */
    struct ash_co_config config;
    uint32_t count;        /* live coroutines */
    uint32_t idle_count;
    uint32_t ready_count;
    struct ash_prng *shuffle; /* not NULL: the next to run is drawn from it (simulation) */
};

void ash_co_sched_init(struct ash_co_sched *sched, const struct ash_co_config *config);

/* All coroutines have ended (asserted). Gives the cached stacks up: to other schedulers, or to the
 * kernel. */
void ash_co_sched_destroy(struct ash_co_sched *sched);

/* Makes a coroutine and queues it as ready. -EAGAIN: count_max reached; -ENOMEM: no stack. From
 * inside or outside a coroutine, on the scheduler's thread. */
int ash_co_spawn(struct ash_co_sched *sched, ash_co_fn *fn, void *opaque) ASH_USE_RESULT;

/* Runs ready coroutines, at most `budget` switches (0: those that are ready now, not those that
 * become ready meanwhile). Not from inside a coroutine (asserted). Returns how many it switched to. */
uint32_t ash_co_sched_run(struct ash_co_sched *sched, uint32_t budget);

/* The running coroutine of this thread; NULL outside of any. */
struct ash_co *ash_co_self(void);

struct ash_co_sched *ash_co_sched_of(struct ash_co *co);

/* Suspends until somebody wakes this coroutine. Wake-ups are not counted and not remembered: who
 * waits stores ash_co_self() where the waker finds it, in the same turn. */
ASH_CO_FN void ash_co_yield(void);

/* Suspends and becomes ready at once, behind all that are ready. */
ASH_CO_FN void ash_co_reschedule(void);

/* Makes a suspended coroutine ready. Asserts that it is suspended and not yet ready. On the
 * scheduler's thread, from inside or outside a coroutine. */
void ash_co_wake(struct ash_co *co);

/* Asserts that this is a coroutine, for clang's analysis too. */
ASH_CO_ASSERT void ash_co_assert_inside(void);

/* Unused bytes at the far end of the running coroutine's stack that were never written since the
 * stack was painted by ash_co_paint(); for the test of stack depth. */
void ash_co_paint(void);
size_t ash_co_untouched_bytes(void);

/* A FIFO of waiting coroutines. */
struct ash_co_queue {
    struct ash_list waiting;
};

void ash_co_queue_init(struct ash_co_queue *queue);
ASH_CO_FN void ash_co_queue_wait(struct ash_co_queue *queue);
/* Wakes the first; false if none waited. */
bool ash_co_queue_wake_one(struct ash_co_queue *queue);
void ash_co_queue_wake_all(struct ash_co_queue *queue);
bool ash_co_queue_empty(const struct ash_co_queue *queue);

/* A fair mutex between coroutines of one scheduler; handed over to the first that waits. */
struct ash_co_mutex {
    struct ash_co *owner;
    struct ash_co_queue waiting;
};

void ash_co_mutex_init(struct ash_co_mutex *mutex);
void ash_co_mutex_destroy(struct ash_co_mutex *mutex); /* unlocked (asserted) */
ASH_CO_FN void ash_co_mutex_lock(struct ash_co_mutex *mutex);
bool ash_co_mutex_try_lock(struct ash_co_mutex *mutex);
void ash_co_mutex_unlock(struct ash_co_mutex *mutex); /* by the owner (asserted) */

/* Many readers or one writer, fair: who comes later does not overtake a waiting writer. */
struct ash_co_rwlock {
    uint32_t readers;
    bool writing;
    struct ash_list waiting;
};

void ash_co_rwlock_init(struct ash_co_rwlock *lock);
ASH_CO_FN void ash_co_rwlock_read(struct ash_co_rwlock *lock);
ASH_CO_FN void ash_co_rwlock_write(struct ash_co_rwlock *lock);
void ash_co_rwlock_unlock(struct ash_co_rwlock *lock);

/* A pool of tasks that bounds how many run at once: fan-out of one request, parallel copying. It may
 * live on the stack of the coroutine that owns it. */
struct ash_task_pool {
    struct ash_co_sched *sched;
    uint32_t max;           /* tasks at once; >= 1 */
    uint32_t active;
    int first_error;        /* of the first task that failed, in order of completion */
    struct ash_co *waiter;  /* the owner, in start or in finish */
    uint32_t wake_at;       /* the waiter is woken when `active` has fallen to this */
};

struct ash_task {
    int (*run)(struct ash_task *task); /* in a coroutine of its own. It owns the task and may free it */
    struct ash_task_pool *pool;        /* set by start */
};

void ash_task_pool_init(struct ash_task_pool *pool, struct ash_co_sched *sched, uint32_t max);

/* Waits until fewer than `max` tasks run, then starts this one. If no coroutine can be had while
 * others run, it waits for one of them to end; if none runs, it runs the task inline. So it cannot
 * fail. Only the owner calls this. */
ASH_CO_FN void ash_task_pool_start(struct ash_task_pool *pool, struct ash_task *task);

/* Waits for all tasks. Returns first_error. */
ASH_CO_FN int ash_task_pool_finish(struct ash_task_pool *pool);

#endif
