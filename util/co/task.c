/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A pool that bounds how many tasks run at once.
 *
 * It owns no memory: the pool is its owner's, a task owns itself.
 *
 * 1. active <= max. `active` counts tasks that were started and have not returned.
 * 2. Only the owner waits, in start or in finish, and it is woken only when what it waits for is
 *    true: not once for every task that ends.
 * 3. A task is not looked at after its run() was called: it may be gone. The pool is not looked at
 *    after the last task was counted out and the owner woken: it may be on the owner's stack. */
#include "util/assert.h"
#include "util/co/co.h"

void ash_task_pool_init(struct ash_task_pool *pool, struct ash_co_sched *sched, uint32_t max)
{
    ash_assert(max >= 1);
    *pool = (struct ash_task_pool){.sched = sched, .max = max};
}

static void note_result(struct ash_task_pool *pool, int ret)
{
    if (ret < 0 && pool->first_error == 0) {
        pool->first_error = ret;
    }
}

static void run_task(void *opaque)
{
    struct ash_task *task = opaque;
    struct ash_task_pool *pool = task->pool;

    note_result(pool, task->run(task));
    pool->active--;
    if (pool->waiter != NULL && pool->active <= pool->wake_at) {
        struct ash_co *waiter = pool->waiter;
        pool->waiter = NULL;
        ash_co_wake(waiter);
    }
}

/* Waits until at most `count` tasks are active. */
ASH_CO_FN static void wait_for_active(struct ash_task_pool *pool, uint32_t count)
{
    if (pool->active <= count) {
        return;
    }
    ash_assert(pool->waiter == NULL);
    pool->waiter = ash_co_self();
    pool->wake_at = count;
    ash_co_yield();
    ash_assert(pool->active <= count);
}

ASH_CO_FN void ash_task_pool_start(struct ash_task_pool *pool, struct ash_task *task)
{
    task->pool = pool;
    wait_for_active(pool, pool->max - 1);
    while (ash_co_spawn(pool->sched, run_task, task) < 0) {
        if (pool->active == 0) {
            note_result(pool, task->run(task));
            return;
        }
        wait_for_active(pool, pool->active - 1);
    }
    pool->active++;
}

ASH_CO_FN int ash_task_pool_finish(struct ash_task_pool *pool)
{
    wait_for_active(pool, 0);
    return pool->first_error;
}
