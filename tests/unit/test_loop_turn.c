/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The turn of a loop on an engine that only counts: when the loop asks it, with which deadline, and
 * that nothing is lost between the loop's last look and its sleep. Time is what the test says. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "util/loop/private.h"

enum { UNASKED_TURNS_MAX = 16, IDLE_TIMERS = 10000 };

struct probe {
    struct ash_engine engine;
    uint64_t now_ns;
    uint64_t deadline_ns; /* of the last wait */
    uint32_t waits;
    uint32_t wakes;
    int fails_with;
    struct ash_list queued;
    void (*about_to_sleep)(void *opaque); /* called in the middle of a wait that sleeps */
    void *about_opaque;
};

static struct probe *probe_of(struct ash_engine *engine)
{
    return ash_container_of(engine, struct probe, engine);
}

static void probe_submit(struct ash_engine *engine, struct ash_aio *aio)
{
    ash_list_push_back(&probe_of(engine)->queued, &aio->link);
}

static int probe_wait(struct ash_engine *engine, uint64_t deadline_ns)
{
    struct probe *probe = probe_of(engine);
    probe->waits++;
    probe->deadline_ns = deadline_ns;
    if (probe->fails_with < 0) {
        return probe->fails_with;
    }
    int count = 0;
    struct ash_list due = ASH_LIST_INIT(due);
    while (!ash_list_empty(&probe->queued)) {
        struct ash_aio *aio = ash_list_first(&probe->queued, struct ash_aio, link);
        ash_list_remove(&aio->link);
        ash_list_push_back(&due, &aio->link);
    }
    while (!ash_list_empty(&due)) {
        struct ash_aio *aio = ash_list_first(&due, struct ash_aio, link);
        ash_list_remove(&aio->link);
        ash_aio_complete(engine, aio, 0);
        count++;
    }
    if (count == 0 && deadline_ns > probe->now_ns && probe->about_to_sleep != NULL) {
        probe->about_to_sleep(probe->about_opaque);
    }
    if (count == 0 && deadline_ns != UINT64_MAX && deadline_ns > probe->now_ns) {
        probe->now_ns = deadline_ns;
    }
    return count;
}

static void probe_wake(struct ash_engine *engine)
{
    __atomic_add_fetch(&probe_of(engine)->wakes, 1, __ATOMIC_SEQ_CST);
}

static uint64_t probe_now(struct ash_engine *engine)
{
    return probe_of(engine)->now_ns;
}

static int probe_fd(struct ash_engine *engine)
{
    (void)engine;
    return -1;
}

static void probe_destroy(struct ash_engine *engine)
{
    assert_int_equal(engine->in_flight, 0);
    free(probe_of(engine));
}

static const struct ash_engine_ops probe_ops = {
    .name = "probe",
    .submit = probe_submit,
    .wait = probe_wait,
    .wake = probe_wake,
    .now = probe_now,
    .fd = probe_fd,
    .destroy = probe_destroy,
};

static struct probe *probe;
static struct ash_loop *loop;

static int set_up(void **state)
{
    (void)state;
    probe = calloc(1, sizeof(*probe));
    probe->engine.ops = &probe_ops;
    probe->now_ns = 1000;
    ash_list_init(&probe->queued);
    int result = ash_loop_new_with_engine(&probe->engine, NULL, &loop, NULL);
    return result < 0 ? result : ash_loop_bind(loop);
}

static int tear_down(void **state)
{
    (void)state;
    ash_loop_free(loop);
    return 0;
}

/* ---- what a turn costs ---- */

ASH_CO_FN static void reschedule_often(void *opaque)
{
    for (int *left = opaque; *left > 0; (*left)--) {
        ash_co_reschedule();
    }
}

static void turn_with_ready_coroutines_and_no_io_asks_the_engine_nothing(void **state)
{
    (void)state;
    int left = UNASKED_TURNS_MAX - 1;
    assert_int_equal(ash_co_spawn(&loop->sched, reschedule_often, &left), 0);
    for (int i = 0; i < UNASKED_TURNS_MAX - 1; i++) {
        assert_int_equal(ash_loop_run_once(loop, -1, 0), 1);
        assert_int_equal(probe->waits, 0);
    }
    ash_loop_run_once(loop, 0, 0);
}

static void busy_loop_asks_the_engine_within_a_bounded_number_of_turns(void **state)
{
    (void)state;
    int left = 10 * UNASKED_TURNS_MAX;
    assert_int_equal(ash_co_spawn(&loop->sched, reschedule_often, &left), 0);
    while (left > 0) {
        ash_loop_run_once(loop, -1, 0);
    }
    assert_int_equal(probe->waits, 10);
    ash_loop_run_once(loop, 0, 0);
}

struct io_work {
    int left;
    int done;
};

ASH_CO_FN static void do_io(void *opaque)
{
    struct io_work *work = opaque;
    for (; work->left > 0; work->left--) {
        struct ash_aio aio = {.op = ASH_AIO_FLUSH, .waiter = ash_co_self()};
        ash_engine_submit(&probe->engine, &aio);
        ash_co_yield();
        work->done++;
    }
}

static void busy_turn_with_io_asks_the_engine_once(void **state)
{
    (void)state;
    struct io_work work = {.left = 100};
    assert_int_equal(ash_co_spawn(&loop->sched, do_io, &work), 0);
    uint32_t turns = 0;
    while (work.left > 0) {
        ash_loop_run_once(loop, -1, 0);
        turns++;
        assert_true(probe->waits <= turns);
    }
    assert_int_equal(work.done, 100);
}

static void what_was_queued_is_submitted_before_the_turn_returns(void **state)
{
    (void)state;
    struct io_work work = {.left = 1};
    assert_int_equal(ash_co_spawn(&loop->sched, do_io, &work), 0);
    ash_loop_run_once(loop, 0, 0);
    assert_true(ash_list_empty(&probe->queued));
    assert_false(probe->engine.unsent);
    ash_loop_run_once(loop, 0, 0);
    assert_int_equal(work.done, 1);
}

static void never_fires(struct ash_timer *timer)
{
    (void)timer;
    fail();
}

static void ten_thousand_idle_timers_cost_nothing_per_turn(void **state)
{
    (void)state;
    static struct ash_timer timers[IDLE_TIMERS];
    for (int i = 0; i < IDLE_TIMERS; i++) {
        ash_timer_init(&timers[i], never_fires);
        ash_timer_set(loop, &timers[i], 1000000 + (uint64_t)((i * 7919) % IDLE_TIMERS));
    }
    uint64_t steps = ash_loop_private(loop)->timers.steps;
    for (int turn = 0; turn < 100; turn++) {
        assert_int_equal(ash_loop_run_once(loop, 0, 0), 0);
    }
    assert_int_equal(ash_loop_private(loop)->timers.steps, steps);
    assert_int_equal(probe->waits, 100);
    for (int i = 0; i < IDLE_TIMERS; i++) {
        ash_timer_cancel(loop, &timers[i]);
    }
}

/* ---- how long it sleeps ---- */

static void fires_quietly(struct ash_timer *timer)
{
    (void)timer;
}

static void runs_quietly(struct ash_turn_hook *hook)
{
    (void)hook;
}

static void count_post(void *opaque)
{
    (*(int *)opaque)++;
}

static void loop_sleeps_until_the_next_timer_or_the_timeout_whichever_is_first(void **state)
{
    (void)state;
    ash_loop_run_once(loop, -1, 0);
    assert_true(probe->deadline_ns == UINT64_MAX);
    probe->now_ns = 1000;
    ash_loop_run_once(loop, 500, 0);
    assert_int_equal(probe->deadline_ns, 1500);

    struct ash_timer timer;
    ash_timer_init(&timer, fires_quietly);
    ash_timer_set(loop, &timer, 2000);
    ash_loop_run_once(loop, 100, 0);
    assert_int_equal(probe->deadline_ns, 1600);
    assert_int_equal(ash_loop_run_once(loop, 10000, 0), 1);
    assert_int_equal(probe->deadline_ns, 2000);
    ash_loop_run_once(loop, 0, 0);
    assert_int_equal(probe->deadline_ns, 0);
}

static void loop_does_not_sleep_while_a_post_is_pending(void **state)
{
    (void)state;
    int posts = 0;
    assert_int_equal(ash_loop_post(loop, count_post, &posts), 0);
    assert_int_equal(ash_loop_run_once(loop, -1, 0), 1);
    assert_int_equal(probe->waits, 0);
}

static void loop_does_not_sleep_while_a_hook_is_scheduled(void **state)
{
    (void)state;
    struct ash_turn_hook hook;
    ash_turn_hook_init(&hook, runs_quietly);
    ash_loop_at_turn_end(loop, &hook);
    assert_int_equal(ash_loop_run_once(loop, -1, 0), 1);
    assert_int_equal(probe->waits, 0);
}

static void *post_from_thread(void *opaque)
{
    assert_int_equal(ash_loop_post(loop, count_post, opaque), 0);
    return NULL;
}

static void post_while_going_to_sleep(void *opaque)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, post_from_thread, opaque), 0);
    pthread_join(thread, NULL);
}

/* loop: looks at the posts, none -> engine wait ........................ returns
 * other thread:                                  post -> wake                      */
static void post_between_the_last_look_and_the_sleep_wakes_the_engine(void **state)
{
    (void)state;
    int posts = 0;
    probe->about_to_sleep = post_while_going_to_sleep;
    probe->about_opaque = &posts;
    ash_loop_run_once(loop, -1, 0);
    assert_int_equal(probe->wakes, 1);
    assert_int_equal(posts, 1);
    probe->about_to_sleep = NULL;
}

static void second_post_does_not_wake_again(void **state)
{
    (void)state;
    int posts = 0;
    post_while_going_to_sleep(&posts);
    post_while_going_to_sleep(&posts);
    assert_int_equal(probe->wakes, 1);
    ash_loop_run_once(loop, -1, 0);
    assert_int_equal(posts, 2);
    post_while_going_to_sleep(&posts);
    assert_int_equal(probe->wakes, 2);
    ash_loop_run_once(loop, -1, 0);
}

/* ---- errors ---- */

static void error_of_the_engine_is_returned_and_nothing_is_lost(void **state)
{
    (void)state;
    probe->fails_with = -EDEADLK;
    assert_int_equal(ash_loop_run_once(loop, -1, 0), -EDEADLK);
    int posts = 0;
    assert_int_equal(ash_loop_post(loop, count_post, &posts), 0);
    probe->fails_with = 0;
    assert_int_equal(ash_loop_run_once(loop, -1, 0), 1);
    assert_int_equal(posts, 1);
}

ASH_CO_FN static int wait_for_nobody(void *opaque)
{
    *(struct ash_co **)opaque = ash_co_self();
    ash_co_yield();
    return 0;
}

static void run_sync_under_a_simulator_that_is_stuck_returns(void **state)
{
    (void)state;
    struct ash_co *stuck = NULL;
    probe->fails_with = -EDEADLK;
    assert_int_equal(ash_loop_run_sync(loop, wait_for_nobody, &stuck), -EDEADLK);
    probe->fails_with = 0;
    ash_co_wake(stuck);
    ash_loop_run_once(loop, 0, 0);
    assert_int_equal(loop->sched.count, 0);
}

static void engine_without_a_descriptor_has_no_loop_descriptor(void **state)
{
    (void)state;
    assert_int_equal(ash_loop_fd(loop), -ENOTSUP);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(turn_with_ready_coroutines_and_no_io_asks_the_engine_nothing),
        TEST(busy_loop_asks_the_engine_within_a_bounded_number_of_turns),
        TEST(busy_turn_with_io_asks_the_engine_once),
        TEST(what_was_queued_is_submitted_before_the_turn_returns),
        TEST(ten_thousand_idle_timers_cost_nothing_per_turn),
        TEST(loop_sleeps_until_the_next_timer_or_the_timeout_whichever_is_first),
        TEST(loop_does_not_sleep_while_a_post_is_pending),
        TEST(loop_does_not_sleep_while_a_hook_is_scheduled),
        TEST(post_between_the_last_look_and_the_sleep_wakes_the_engine),
        TEST(second_post_does_not_wake_again),
        TEST(error_of_the_engine_is_returned_and_nothing_is_lost),
        TEST(run_sync_under_a_simulator_that_is_stuck_returns),
        TEST(engine_without_a_descriptor_has_no_loop_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
