/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The pool of tasks. */
#include "tests/unit/unit.h"

#include <errno.h>
#include <glib.h>
#include <signal.h>
#include "tests/unit/dies.h"
#include "util/co/co.h"

static struct ash_co_sched sched;

/* A task that takes some switches and returns `ret`. It frees itself, as its contract allows. */
struct job {
    struct ash_task task;
    unsigned switches;
    int ret;
};

static unsigned running, running_max, finished;

ASH_CO_FN static int run_job(struct ash_task *task)
{
    struct job *job = ash_container_of(task, struct job, task);
    int ret = job->ret;

    running++;
    running_max = ASH_MAX(running_max, running);
    for (unsigned i = 0; i < job->switches; i++) {
        ash_co_reschedule();
    }
    running--;
    finished++;
    g_free(job);
    return ret;
}

static struct ash_task *new_job(unsigned switches, int ret)
{
    struct job *job = g_new(struct job, 1);

    *job = (struct job){.task.run = run_job, .switches = switches, .ret = ret};
    return &job->task;
}

/* What the owner of a pool does in these tests: starts `count` jobs and waits for them. */
struct owner {
    uint32_t max;
    unsigned count;
    unsigned (*switches)(unsigned index);
    int (*ret)(unsigned index);
    int result;
    bool done;
};

ASH_CO_FN static void own_pool(void *opaque)
{
    struct owner *owner = opaque;
    struct ash_task_pool pool;

    ash_task_pool_init(&pool, &sched, owner->max);
    for (unsigned i = 0; i < owner->count; i++) {
        ash_task_pool_start(&pool, new_job(owner->switches(i), owner->ret(i)));
        assert_true(pool.active <= owner->max);
    }
    owner->result = ash_task_pool_finish(&pool);
    assert_int_equal(pool.active, 0);
    owner->done = true;
}

static int setup(void **state)
{
    (void)state;
    running = running_max = finished = 0;
    ash_co_sched_init(&sched, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ash_co_sched_destroy(&sched);
    return 0;
}

static void run_owner(struct owner *owner)
{
    assert_int_equal(ash_co_spawn(&sched, own_pool, owner), 0);
    while (ash_co_sched_run(&sched, 0) > 0) {
    }
    assert_true(owner->done);
    assert_int_equal(finished, owner->count);
}

static unsigned two_switches(unsigned index)
{
    (void)index;
    return 2;
}

static unsigned no_switch(unsigned index)
{
    (void)index;
    return 0;
}

static unsigned falling_switches(unsigned index)
{
    return 20 - index;
}

static int success(unsigned index)
{
    (void)index;
    return 0;
}

static int index_as_error(unsigned index)
{
    return -(int)index - 1;
}

static int only_the_third_fails(unsigned index)
{
    return index == 2 ? -EIO : 0;
}

static void tasks_run_at_once_up_to_the_bound_and_no_further(void **state)
{
    struct owner owner = {.max = 4, .count = 40, .switches = two_switches, .ret = success};

    (void)state;
    run_owner(&owner);
    assert_int_equal(owner.result, 0);
    assert_int_equal(running_max, 4);
}

static void a_bound_of_one_runs_tasks_one_by_one(void **state)
{
    struct owner owner = {.max = 1, .count = 10, .switches = two_switches, .ret = success};

    (void)state;
    run_owner(&owner);
    assert_int_equal(running_max, 1);
}

static void an_error_of_one_task_is_returned_and_the_others_still_run(void **state)
{
    struct owner owner = {
        .max = 4, .count = 10, .switches = two_switches, .ret = only_the_third_fails};

    (void)state;
    run_owner(&owner);
    assert_int_equal(owner.result, -EIO);
}

static void the_first_error_is_that_of_the_task_that_ended_first(void **state)
{
    struct owner owner = {
        .max = 8, .count = 8, .switches = falling_switches, .ret = index_as_error};

    (void)state;
    run_owner(&owner);
    assert_int_equal(owner.result, index_as_error(7));
}

static void a_pool_without_tasks_finishes_at_once(void **state)
{
    struct owner owner = {.max = 3, .count = 0, .switches = no_switch, .ret = success};

    (void)state;
    run_owner(&owner);
    assert_int_equal(owner.result, 0);
}

/* Timeline: the owner starts 16 tasks and finishes; each task ends in a turn of its own; the owner
 * must be switched to once. */
static void the_owner_is_woken_once_when_all_have_ended(void **state)
{
    struct owner owner = {.max = 16, .count = 16, .switches = falling_switches, .ret = success};
    uint32_t switches = 0, turn;

    (void)state;
    assert_int_equal(ash_co_spawn(&sched, own_pool, &owner), 0);
    while ((turn = ash_co_sched_run(&sched, 0)) > 0) {
        switches += turn;
    }
    for (unsigned i = 0; i < 16; i++) {
        switches -= falling_switches(i) + 1;
    }
    assert_true(owner.done);
    assert_int_equal(switches, 2);
}

static void tasks_run_inline_when_no_coroutine_can_be_had(void **state)
{
    struct ash_co_config config = {.count_max = 1};
    struct owner owner = {
        .max = 4, .count = 10, .switches = two_switches, .ret = only_the_third_fails};

    (void)state;
    ash_co_sched_init(&sched, &config);
    run_owner(&owner);
    assert_int_equal(running_max, 1);
    assert_int_equal(owner.result, -EIO);
}

static void start_waits_for_a_task_when_coroutines_run_short(void **state)
{
    (void)state;
    for (uint32_t count_max = 2; count_max <= 4; count_max++) {
        struct ash_co_config config = {.count_max = count_max};
        struct owner owner = {.max = 8, .count = 20, .switches = two_switches, .ret = success};
        running_max = finished = 0;
        ash_co_sched_init(&sched, &config);
        run_owner(&owner);
        assert_int_equal(running_max, count_max - 1);
        ash_co_sched_destroy(&sched);
    }
}

static void makes_a_pool_of_none(void)
{
    struct ash_task_pool pool;

    ash_task_pool_init(&pool, &sched, 0);
}

static void a_pool_that_admits_no_task_aborts(void **state)
{
    (void)state;
    assert_asserts(makes_a_pool_of_none, "max >= 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(tasks_run_at_once_up_to_the_bound_and_no_further),
        TEST(a_bound_of_one_runs_tasks_one_by_one),
        TEST(an_error_of_one_task_is_returned_and_the_others_still_run),
        TEST(the_first_error_is_that_of_the_task_that_ended_first),
        TEST(a_pool_without_tasks_finishes_at_once),
        TEST(the_owner_is_woken_once_when_all_have_ended),
        TEST(tasks_run_inline_when_no_coroutine_can_be_had),
        TEST(start_waits_for_a_task_when_coroutines_run_short),
        TEST(a_pool_that_admits_no_task_aborts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
