/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A loop on the caller's thread: timers, posts, turn hooks, waiting for a coroutine. What needs no
 * other thread runs on the simulator too. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <pthread.h>
#include "tests/unit/dies.h"
#include "util/engine/sim.h"
#include "util/loop/private.h"
#include "util/prng.h"

enum { MS = 1000000 };

static struct ash_loop *loop;

static int set_up(void **state)
{
    (void)state;
    int result = ash_loop_new(NULL, &loop, NULL);
    return result < 0 ? result : ash_loop_bind(loop);
}

static int tear_down(void **state)
{
    (void)state;
    ash_loop_free(loop);
    return 0;
}

static struct ash_sim_world *world;

static int set_up_simulated(void **state)
{
    (void)state;
    const struct ash_engine_config engine_config = {.depth = 16, .workers = 1};
    const struct ash_sim_config sim_config = {.seed = 1};
    struct ash_engine *engine;
    world = ash_sim_world_new(&sim_config);
    int result = ash_engine_sim_new(world, &engine_config, &engine, NULL);
    if (result == 0) {
        result = ash_loop_new_with_engine(engine, NULL, &loop, NULL);
    }
    return result < 0 ? result : ash_loop_bind(loop);
}

static int tear_down_simulated(void **state)
{
    tear_down(state);
    ash_sim_world_free(world);
    return 0;
}

/* ---- timers ---- */

struct entry {
    struct ash_timer timer;
    uint64_t deadline_ns;
    int number;
};

static struct entry *fired[1024];
static int fired_count;

static void note_fired(struct ash_timer *timer)
{
    assert_null(ash_co_self());
    fired[fired_count++] = ash_container_of(timer, struct entry, timer);
}

static void arm(struct entry *entry, int number, uint64_t deadline_ns)
{
    entry->number = number;
    entry->deadline_ns = deadline_ns;
    ash_timer_init(&entry->timer, note_fired);
    ash_timer_set(loop, &entry->timer, deadline_ns);
}

static void run_until_fired(int count)
{
    while (fired_count < count) {
        assert_true(ash_loop_run_once(loop, -1, 0) >= 0);
    }
}

static void timers_fire_by_deadline_and_equal_ones_in_the_order_of_arming(void **state)
{
    (void)state;
    static struct entry entries[1000];
    struct ash_prng prng;
    ash_prng_seed(&prng, 1);
    fired_count = 0;
    uint64_t start_ns = ash_loop_now(loop);
    for (int i = 0; i < 1000; i++) {
        arm(&entries[i], i, start_ns + ash_prng_below(&prng, 50) * 20000);
    }
    run_until_fired(1000);
    for (int i = 1; i < 1000; i++) {
        assert_true(fired[i - 1]->deadline_ns <= fired[i]->deadline_ns);
        if (fired[i - 1]->deadline_ns == fired[i]->deadline_ns) {
            assert_true(fired[i - 1]->number < fired[i]->number);
        }
    }
}

static void timer_never_fires_early(void **state)
{
    (void)state;
    struct entry entry;
    fired_count = 0;
    arm(&entry, 0, ash_loop_now(loop) + 3 * MS);
    run_until_fired(1);
    assert_true(ash_loop_now(loop) >= entry.deadline_ns);
}

static void cancelled_timers_do_not_fire_and_the_others_do(void **state)
{
    (void)state;
    static struct entry entries[500];
    struct ash_prng prng;
    ash_prng_seed(&prng, 2);
    fired_count = 0;
    uint64_t start_ns = ash_loop_now(loop);
    for (int i = 0; i < 500; i++) {
        arm(&entries[i], i, start_ns + ash_prng_below(&prng, 500) * 1000);
    }
    for (int i = 0; i < 500; i += 2) {
        ash_timer_cancel(loop, &entries[i].timer);
        ash_timer_cancel(loop, &entries[i].timer);
    }
    run_until_fired(250);
    ash_loop_run_once(loop, 1 * MS, 0);
    assert_int_equal(fired_count, 250);
    for (int i = 0; i < 250; i++) {
        assert_int_equal(fired[i]->number % 2, 1);
        assert_true(i == 0 || fired[i - 1]->deadline_ns <= fired[i]->deadline_ns);
    }
}

static void assert_heap_is_ordered(void)
{
    const struct ash_timers *timers = &ash_loop_private(loop)->timers;
    for (uint32_t i = 1; i <= timers->count; i++) {
        assert_int_equal(timers->heap[i]->heap_index, i);
        assert_true(i == 1 || timers->heap[i / 2]->deadline_ns <= timers->heap[i]->deadline_ns);
    }
}

static void setting_and_cancelling_at_random_keeps_the_order(void **state)
{
    (void)state;
    static struct entry entries[200];
    struct ash_prng prng;
    ash_prng_seed(&prng, 3);
    uint64_t far_ns = ash_loop_now(loop) + 1000000 * (uint64_t)MS;
    for (int i = 0; i < 200; i++) {
        arm(&entries[i], i, far_ns + ash_prng_below(&prng, 1000));
    }
    for (int step = 0; step < 5000; step++) {
        struct ash_timer *timer = &entries[ash_prng_below(&prng, 200)].timer;
        if (ash_prng_chance(&prng, 500)) {
            ash_timer_cancel(loop, timer);
        } else {
            ash_timer_set(loop, timer, far_ns + ash_prng_below(&prng, 1000));
        }
        assert_heap_is_ordered();
    }
    for (int i = 0; i < 200; i++) {
        ash_timer_cancel(loop, &entries[i].timer);
    }
    assert_int_equal(ash_loop_private(loop)->timers.count, 0);
}

static void timer_set_again_moves(void **state)
{
    (void)state;
    struct entry first, second;
    fired_count = 0;
    uint64_t start_ns = ash_loop_now(loop);
    arm(&first, 1, start_ns + 1 * MS);
    arm(&second, 2, start_ns + 2 * MS);
    ash_timer_set(loop, &first.timer, start_ns + 3 * MS);
    run_until_fired(2);
    assert_int_equal(fired[0]->number, 2);
    assert_int_equal(fired[1]->number, 1);
}

static void arm_again_at_once(struct ash_timer *timer)
{
    fired_count++;
    ash_timer_set(loop, timer, 0);
}

static void timer_that_rearms_itself_for_now_does_not_hold_up_the_turn(void **state)
{
    (void)state;
    struct ash_timer timer;
    fired_count = 0;
    ash_timer_init(&timer, arm_again_at_once);
    ash_timer_set(loop, &timer, 0);
    assert_int_equal(ash_loop_run_once(loop, -1, 0), 1);
    assert_int_equal(fired_count, 1);
    ash_timer_cancel(loop, &timer);
}

static struct entry *victim;

static void cancel_the_other(struct ash_timer *timer)
{
    (void)timer;
    fired_count++;
    ash_timer_cancel(loop, &victim->timer);
}

static void timer_can_cancel_another_that_is_due(void **state)
{
    (void)state;
    struct ash_timer canceller;
    struct entry other;
    fired_count = 0;
    ash_timer_init(&canceller, cancel_the_other);
    ash_timer_set(loop, &canceller, 1);
    arm(&other, 1, 2);
    victim = &other;
    ash_loop_run_once(loop, -1, 0);
    ash_loop_run_once(loop, 0, 0);
    assert_int_equal(fired_count, 1);
}

ASH_CO_FN static void sleep_a_little(void *opaque)
{
    uint64_t start_ns = ash_loop_now(loop);
    assert_ptr_equal(ash_co_loop(), loop);
    ash_co_sleep(2 * MS);
    assert_true(ash_loop_now(loop) >= start_ns + 2 * MS);
    ash_co_sleep_until(0);
    (*(int *)opaque)++;
}

static void coroutines_sleep_side_by_side(void **state)
{
    (void)state;
    int woken = 0;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ash_co_spawn(&loop->sched, sleep_a_little, &woken), 0);
    }
    ash_loop_run_once(loop, 0, 0);
    assert_int_equal(ash_loop_private(loop)->timers.count, 100);
    while (woken < 100) {
        ash_loop_run_once(loop, -1, 0);
    }
    assert_int_equal(loop->sched.count, 0);
}

/* ---- posts and hooks ---- */

struct trace {
    char text[64];
    size_t length;
};

static struct trace trace;
static char letters[] = "bcp";

static void note(char letter)
{
    assert_true(trace.length + 1 < sizeof(trace.text));
    trace.text[trace.length++] = letter;
    trace.text[trace.length] = '\0';
}

static void note_post(void *opaque)
{
    assert_null(ash_co_self());
    assert_true(ash_loop_in_turn(loop));
    note(*(const char *)opaque);
}

ASH_CO_FN static void post_from_coroutine(void *opaque)
{
    note('(');
    assert_int_equal(ash_loop_post(loop, note_post, opaque), 0);
    note(')');
}

static void post_from_the_owner_is_never_called_inside_the_call(void **state)
{
    (void)state;
    trace = (struct trace){0};
    assert_int_equal(ash_co_spawn(&loop->sched, post_from_coroutine, letters + 2), 0);
    while (trace.length < 3) {
        ash_loop_run_once(loop, -1, 0);
    }
    assert_string_equal(trace.text, "()p");
}

static void post_twice(void *opaque)
{
    note('a');
    assert_int_equal(ash_loop_post(loop, note_post, opaque), 0);
    assert_int_equal(ash_loop_post(loop, note_post, letters + 1), 0);
    note('-');
}

static void posts_of_a_post_come_in_the_next_turn_in_order(void **state)
{
    (void)state;
    trace = (struct trace){0};
    assert_int_equal(ash_loop_post(loop, post_twice, letters), 0);
    assert_int_equal(ash_loop_run_once(loop, -1, 0), 1);
    assert_string_equal(trace.text, "a-");
    assert_int_equal(ash_loop_run_once(loop, -1, 0), 2);
    assert_string_equal(trace.text, "a-bc");
}

static void run_inside(void *opaque)
{
    (void)opaque;
    assert_int_equal(ash_loop_run_once(loop, 0, 0), -EDEADLK);
    note('x');
}

static void turn_inside_a_turn_is_refused(void **state)
{
    (void)state;
    trace = (struct trace){0};
    assert_int_equal(ash_loop_post(loop, run_inside, NULL), 0);
    ash_loop_run_once(loop, -1, 0);
    assert_int_equal(ash_co_spawn(&loop->sched, run_inside, NULL), 0);
    ash_loop_run_once(loop, -1, 0);
    assert_string_equal(trace.text, "xx");
}

struct noting_hook {
    struct ash_turn_hook hook;
    char letter;
    struct noting_hook *schedules;
    struct noting_hook *cancels;
};

static void note_hook(struct ash_turn_hook *turn_hook)
{
    struct noting_hook *hook = ash_container_of(turn_hook, struct noting_hook, hook);
    assert_null(ash_co_self());
    note(hook->letter);
    if (hook->schedules != NULL) {
        ash_loop_at_turn_end(loop, &hook->schedules->hook);
    }
    if (hook->cancels != NULL) {
        ash_turn_hook_cancel(&hook->cancels->hook);
    }
}

static void hooks_run_once_at_the_end_of_the_turn_in_order(void **state)
{
    (void)state;
    struct noting_hook a = {.letter = 'a'}, b = {.letter = 'b'}, c = {.letter = 'c'};
    ash_turn_hook_init(&a.hook, note_hook);
    ash_turn_hook_init(&b.hook, note_hook);
    ash_turn_hook_init(&c.hook, note_hook);
    trace = (struct trace){0};
    ash_loop_at_turn_end(loop, &a.hook);
    ash_loop_at_turn_end(loop, &b.hook);
    ash_loop_at_turn_end(loop, &a.hook);
    ash_loop_at_turn_end(loop, &c.hook);
    a.cancels = &c;
    b.schedules = &a;
    assert_int_equal(ash_loop_post(loop, note_post, letters + 2), 0);
    ash_loop_run_once(loop, -1, 0);
    assert_string_equal(trace.text, "pab");
    a.cancels = NULL;
    ash_loop_run_once(loop, -1, 0);
    assert_string_equal(trace.text, "paba");
    assert_int_equal(ash_loop_run_once(loop, 0, 0), 0);
}

ASH_CO_FN static void count_steps(void *opaque)
{
    int *steps = opaque;
    for (int i = 0; i < 10; i++) {
        (*steps)++;
        ash_co_reschedule();
    }
}

static void turn_switches_to_at_most_budget_coroutines(void **state)
{
    (void)state;
    int steps = 0;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(ash_co_spawn(&loop->sched, count_steps, &steps), 0);
    }
    assert_int_equal(ash_loop_run_once(loop, -1, 3), 3);
    assert_int_equal(steps, 3);
    assert_int_equal(ash_loop_run_once(loop, -1, 1), 1);
    assert_int_equal(steps, 4);
    assert_int_equal(ash_loop_run_once(loop, -1, 0), 10);
    assert_int_equal(steps, 14);
    while (steps < 100) {
        ash_loop_run_once(loop, -1, 0);
    }
    while (loop->sched.count > 0) {
        ash_loop_run_once(loop, -1, 0);
    }
}

static void count_post(void *opaque)
{
    (*(int *)opaque)++;
}

ASH_CO_FN static void sleep_and_count(void *opaque)
{
    ash_co_reschedule();
    (*(int *)opaque)++;
}

static struct ash_loop *ending;

static void spawn_and_post_too_late(void *opaque)
{
    assert_int_equal(ash_co_spawn(&ending->sched, sleep_and_count, opaque), 0);
    assert_int_equal(ash_loop_post(ending, count_post, opaque), -ESHUTDOWN);
}

static void loop_runs_what_was_posted_before_it_ends_and_takes_no_more(void **state)
{
    (void)state;
    int count = 0;
    assert_int_equal(ash_loop_new(NULL, &ending, NULL), 0);
    assert_int_equal(ash_loop_post(ending, count_post, &count), 0);
    assert_int_equal(ash_loop_post(ending, spawn_and_post_too_late, &count), 0);
    ash_loop_free(ending);
    assert_int_equal(count, 2);
}

/* ---- waiting for a coroutine ---- */

ASH_CO_FN static int answer(void *opaque)
{
    assert_non_null(ash_co_self());
    ash_co_sleep(1000);
    return *(int *)opaque;
}

static void run_sync_on_the_owner_runs_turns_and_returns_the_result(void **state)
{
    (void)state;
    int value = -ENOSPC;
    assert_int_equal(ash_loop_run_sync(loop, answer, &value), -ENOSPC);
    assert_false(ash_loop_in_turn(loop));
}

static void sync_inside(void *opaque)
{
    *(int *)opaque = ash_loop_run_sync(loop, answer, opaque);
}

static void run_sync_inside_a_turn_is_refused(void **state)
{
    (void)state;
    int result = 0;
    assert_int_equal(ash_loop_post(loop, sync_inside, &result), 0);
    ash_loop_run_once(loop, -1, 0);
    assert_int_equal(result, -EDEADLK);
}

static void *use_from_another_thread(void *opaque)
{
    (void)opaque;
    assert_false(ash_loop_is_owner(loop));
    ash_loop_run_once(loop, 0, 0);
    return NULL;
}

static void run_on_the_wrong_thread(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, use_from_another_thread, NULL);
    pthread_join(thread, NULL);
}

static void turn_on_another_thread_than_the_owner_is_asserted_against(void **state)
{
    (void)state;
    assert_dies(run_on_the_wrong_thread, SIGABRT);
}

ASH_CO_FN static int wait_for_nobody(void *opaque)
{
    *(struct ash_co **)opaque = ash_co_self();
    ash_co_yield();
    return 0;
}

static void simulated_loop_says_when_nothing_can_happen_any_more(void **state)
{
    (void)state;
    struct ash_co *waiter = NULL;
    assert_int_equal(ash_loop_run_once(loop, -1, 0), -EDEADLK);
    assert_int_equal(ash_loop_run_sync(loop, wait_for_nobody, &waiter), -EDEADLK);
    ash_co_wake(waiter);
    ash_loop_run_once(loop, 0, 0);
}

static void simulated_loop_sleeps_in_no_time_to_the_nanosecond(void **state)
{
    (void)state;
    struct entry entry;
    uint64_t day_ns = 86400 * 1000 * (uint64_t)MS;
    uint64_t deadline_ns = ash_loop_now(loop) + day_ns;
    fired_count = 0;
    arm(&entry, 0, deadline_ns);
    run_until_fired(1);
    assert_int_equal(ash_loop_now(loop), deadline_ns);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TEST_SIMULATED(name)                                                                       \
    cmocka_unit_test_setup_teardown(name, set_up_simulated, tear_down_simulated)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(timers_fire_by_deadline_and_equal_ones_in_the_order_of_arming),
        TEST(timer_never_fires_early),
        TEST(cancelled_timers_do_not_fire_and_the_others_do),
        TEST(setting_and_cancelling_at_random_keeps_the_order),
        TEST(timer_set_again_moves),
        TEST(timer_that_rearms_itself_for_now_does_not_hold_up_the_turn),
        TEST(timer_can_cancel_another_that_is_due),
        TEST(coroutines_sleep_side_by_side),
        TEST(post_from_the_owner_is_never_called_inside_the_call),
        TEST(posts_of_a_post_come_in_the_next_turn_in_order),
        TEST(turn_inside_a_turn_is_refused),
        TEST(hooks_run_once_at_the_end_of_the_turn_in_order),
        TEST(turn_switches_to_at_most_budget_coroutines),
        TEST(loop_runs_what_was_posted_before_it_ends_and_takes_no_more),
        TEST(run_sync_on_the_owner_runs_turns_and_returns_the_result),
        TEST(run_sync_inside_a_turn_is_refused),
        TEST(turn_on_another_thread_than_the_owner_is_asserted_against),
    };
    const struct CMUnitTest simulated_tests[] = {
        TEST_SIMULATED(timers_fire_by_deadline_and_equal_ones_in_the_order_of_arming),
        TEST_SIMULATED(timer_never_fires_early),
        TEST_SIMULATED(cancelled_timers_do_not_fire_and_the_others_do),
        TEST_SIMULATED(setting_and_cancelling_at_random_keeps_the_order),
        TEST_SIMULATED(timer_set_again_moves),
        TEST_SIMULATED(timer_that_rearms_itself_for_now_does_not_hold_up_the_turn),
        TEST_SIMULATED(timer_can_cancel_another_that_is_due),
        TEST_SIMULATED(coroutines_sleep_side_by_side),
        TEST_SIMULATED(post_from_the_owner_is_never_called_inside_the_call),
        TEST_SIMULATED(posts_of_a_post_come_in_the_next_turn_in_order),
        TEST_SIMULATED(turn_inside_a_turn_is_refused),
        TEST_SIMULATED(hooks_run_once_at_the_end_of_the_turn_in_order),
        TEST_SIMULATED(turn_switches_to_at_most_budget_coroutines),
        TEST_SIMULATED(run_sync_on_the_owner_runs_turns_and_returns_the_result),
        TEST_SIMULATED(run_sync_inside_a_turn_is_refused),
        TEST_SIMULATED(simulated_loop_says_when_nothing_can_happen_any_more),
        TEST_SIMULATED(simulated_loop_sleeps_in_no_time_to_the_nanosecond),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + cmocka_run_group_tests(simulated_tests, NULL, NULL);
}
