/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Coroutines and their scheduler. Built twice: as the library is, and over ucontext. */
#include "tests/unit/unit.h"

#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include "tests/unit/dies.h"
#include "util/co/co.h"
#include "util/co/checkers.h"
#include "util/co/private.h"

static struct ash_co_sched sched;

/* What ran, one letter a step. */
static char trace[128];

static void note(char letter)
{
    size_t length = strlen(trace);

    assert_true(length + 1 < sizeof(trace));
    trace[length] = letter;
    trace[length + 1] = '\0';
}

static int setup(void **state)
{
    (void)state;
    trace[0] = '\0';
    ash_co_sched_init(&sched, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ash_co_sched_destroy(&sched);
    return 0;
}

static void spawn(ash_co_fn *fn, void *opaque)
{
    assert_int_equal(ash_co_spawn(&sched, fn, opaque), 0);
}

static void run_all(void)
{
    while (ash_co_sched_run(&sched, 0) > 0) {
    }
    assert_int_equal(sched.ready_count, 0);
}

struct walker {
    char letter;
    unsigned steps;
};

ASH_CO_FN static void walk(void *opaque)
{
    struct walker *walker = opaque;

    for (unsigned i = 0; i < walker->steps; i++) {
        note(walker->letter);
        ash_co_reschedule();
    }
}

static void spawned_coroutines_run_in_order_and_take_turns(void **state)
{
    struct walker a = {'a', 3}, b = {'b', 2}, c = {'c', 1};

    (void)state;
    spawn(walk, &a);
    spawn(walk, &b);
    spawn(walk, &c);
    assert_string_equal(trace, "");
    run_all();
    assert_string_equal(trace, "abcaba");
    assert_int_equal(sched.count, 0);
}

static void a_budget_of_zero_runs_only_what_is_ready_now(void **state)
{
    struct walker a = {'a', 2}, b = {'b', 2};

    (void)state;
    spawn(walk, &a);
    spawn(walk, &b);
    assert_int_equal(ash_co_sched_run(&sched, 0), 2);
    assert_string_equal(trace, "ab");
    run_all();
}

static void a_budget_bounds_the_switches(void **state)
{
    struct walker a = {'a', 4};

    (void)state;
    spawn(walk, &a);
    assert_int_equal(ash_co_sched_run(&sched, 3), 3);
    assert_string_equal(trace, "aaa");
    assert_int_equal(ash_co_sched_run(&sched, 100), 2);
    assert_string_equal(trace, "aaaa");
}

static struct ash_co *sleepers[3];

struct sleeper {
    unsigned index;
};

ASH_CO_FN static void sleep_once(void *opaque)
{
    struct sleeper *sleeper = opaque;

    sleepers[sleeper->index] = ash_co_self();
    ash_co_yield();
    note((char)('0' + sleeper->index));
}

static void coroutines_run_in_the_order_in_which_they_are_woken(void **state)
{
    struct sleeper three[3] = {{0}, {1}, {2}};

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        spawn(sleep_once, &three[i]);
    }
    run_all();
    assert_string_equal(trace, "");
    ash_co_wake(sleepers[2]);
    ash_co_wake(sleepers[0]);
    ash_co_wake(sleepers[1]);
    assert_string_equal(trace, "");
    run_all();
    assert_string_equal(trace, "201");
}

static void wake_sleeper_then_note(void *opaque)
{
    (void)opaque;
    ash_co_wake(sleepers[0]);
    note('w');
}

static void a_wake_from_a_coroutine_does_not_switch(void **state)
{
    struct sleeper one = {0};

    (void)state;
    spawn(sleep_once, &one);
    run_all();
    spawn(wake_sleeper_then_note, NULL);
    run_all();
    assert_string_equal(trace, "w0");
}

static void spawn_another_then_note(void *opaque)
{
    struct walker *walker = opaque;

    spawn(walk, walker);
    note('s');
}

static void a_spawn_from_a_coroutine_does_not_switch(void **state)
{
    struct walker a = {'a', 1};

    (void)state;
    spawn(spawn_another_then_note, &a);
    run_all();
    assert_string_equal(trace, "sa");
}

static void look_at_self(void *opaque)
{
    struct ash_co **self = opaque;

    ash_co_assert_inside();
    *self = ash_co_self();
    assert_ptr_equal(ash_co_sched_of(*self), &sched);
}

static void self_is_set_inside_and_null_outside(void **state)
{
    struct ash_co *self = NULL;

    (void)state;
    assert_null(ash_co_self());
    spawn(look_at_self, &self);
    run_all();
    assert_non_null(self);
    assert_null(ash_co_self());
}

static void a_stack_is_used_again(void **state)
{
    struct ash_co *first = NULL, *second = NULL;

    (void)state;
    spawn(look_at_self, &first);
    run_all();
    assert_int_equal(sched.idle_count, 1);
    spawn(look_at_self, &second);
    assert_int_equal(sched.idle_count, 0);
    run_all();
    assert_ptr_equal(first, second);
}

static void idle_stacks_beyond_cached_max_are_freed(void **state)
{
    struct ash_co_config config = {.cached_max = 2};
    struct walker a = {'a', 1};

    (void)state;
    ash_co_sched_init(&sched, &config);
    for (unsigned i = 0; i < 5; i++) {
        spawn(walk, &a);
    }
    run_all();
    assert_int_equal(sched.idle_count, 2);
}

static void stacks_of_a_scheduler_that_is_gone_serve_the_next(void **state)
{
    struct ash_co *first = NULL, *second = NULL;

    (void)state;
    spawn(look_at_self, &first);
    run_all();
    ash_co_sched_destroy(&sched);
    ash_co_sched_init(&sched, NULL);
    assert_int_equal(sched.idle_count, 0);
    spawn(look_at_self, &second);
    run_all();
    assert_ptr_equal(first, second);
}

static void a_spare_stack_of_another_size_is_not_taken(void **state)
{
    struct ash_co_config config = {.stack_bytes = 1 * MiB};
    struct ash_co *small = NULL, *large = NULL;

    (void)state;
    spawn(look_at_self, &small);
    run_all();
    ash_co_sched_destroy(&sched);
    ash_co_sched_init(&sched, &config);
    spawn(look_at_self, &large);
    run_all();
    assert_ptr_not_equal(small, large);
    assert_true(large->stack_bytes >= 1 * MiB);
}

/* The far end of a stack, which nothing else is mapped over, can be written. */
static void write_far_end(void *opaque)
{
    (void)opaque;
    *(volatile char *)ash_co_self()->stack = 1;
}

static void *come_and_go(void *opaque)
{
    (void)opaque;
    for (unsigned i = 0; i < 200; i++) {
        struct ash_co_sched own;
        ash_co_sched_init(&own, NULL);
        for (unsigned j = 0; j < 3; j++) {
            assert_int_equal(ash_co_spawn(&own, write_far_end, NULL), 0);
        }
        assert_int_equal(ash_co_sched_run(&own, 0), 3);
        ash_co_sched_destroy(&own);
    }
    return NULL;
}

static void schedulers_of_several_threads_come_and_go(void **state)
{
    pthread_t threads[4];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, NULL), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

static void spawning_beyond_count_max_is_refused(void **state)
{
    struct ash_co_config config = {.count_max = 2};
    struct walker a = {'a', 1};

    (void)state;
    ash_co_sched_init(&sched, &config);
    spawn(walk, &a);
    spawn(walk, &a);
    assert_int_equal(ash_co_spawn(&sched, walk, &a), -EAGAIN);
    run_all();
    spawn(walk, &a);
    run_all();
}

static void a_stack_that_cannot_be_mapped_is_an_error(void **state)
{
    struct ash_co_config config = {.stack_bytes = (size_t)1 << 60};
    struct walker a = {'a', 1};

    (void)state;
    ash_co_sched_init(&sched, &config);
    assert_int_equal(ash_co_spawn(&sched, walk, &a), -ENOMEM);
    assert_int_equal(sched.count, 0);
}

static void a_shuffled_scheduler_repeats_its_order_from_the_seed(void **state)
{
    struct walker walkers[5] = {{'a', 1}, {'b', 1}, {'c', 1}, {'d', 1}, {'e', 1}};
    char first[sizeof(trace)];
    unsigned differing = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        for (unsigned round = 0; round < 2; round++) {
            struct ash_prng prng;
            ash_prng_seed(&prng, seed);
            sched.shuffle = &prng;
            trace[0] = '\0';
            for (unsigned i = 0; i < 5; i++) {
                spawn(walk, &walkers[i]);
            }
            assert_int_equal(ash_co_sched_run(&sched, 0), 5);
            run_all();
            assert_int_equal(strlen(trace), 5);
            if (round == 0) {
                memcpy(first, trace, sizeof(first));
            }
            assert_string_equal(trace, first);
        }
        differing += strcmp(first, "abcde") != 0;
    }
    assert_true(differing > 10);
}

/* Values in every register that a function preserves must survive a switch. */
struct sums {
    uint64_t seed;
    uint64_t whole;
    double real;
};

ASH_CO_FN __attribute__((noinline)) static void add_up(struct sums *sums)
{
    uint64_t a = sums->seed, b = a + 1, c = a + 2, d = a + 3, e = a + 4, f = a + 5, g = a + 6;
    double x = (double)a, y = x + 0.5, z = x + 0.25, w = x + 0.125;

    for (unsigned i = 0; i < 100; i++) {
        a += b, b += c, c += d, d += e, e += f, f += g, g += i;
        x += y, y += z, z += w, w += 1;
        ash_co_reschedule();
    }
    sums->whole = a ^ b ^ c ^ d ^ e ^ f ^ g;
    sums->real = x + y + z + w;
}

ASH_CO_FN static void add_up_body(void *opaque)
{
    add_up(opaque);
}

static void registers_survive_a_switch(void **state)
{
    struct sums alone = {.seed = 7}, together[3] = {{.seed = 7}, {.seed = 1000}, {.seed = 7}};

    (void)state;
    spawn(add_up_body, &alone);
    run_all();
    for (unsigned i = 0; i < 3; i++) {
        spawn(add_up_body, &together[i]);
    }
    run_all();
    assert_true(alone.whole == together[0].whole);
    assert_true(alone.real == together[0].real);
    assert_true(alone.whole == together[2].whole);
    assert_true(alone.whole != together[1].whole);
}

/* How numbers are rounded: by the control word that fegetround() reads, and by what divides. */
struct rounding {
    int mode;
    bool upward;
};

__attribute__((noinline)) static bool divides_upward(void)
{
    volatile double one = 1, three = 3;

    return one / three > 0x1.5555555555555p-2;
}

ASH_CO_FN static void round_upward(void *opaque)
{
    struct rounding *rounding = opaque;

    assert_int_equal(fesetround(FE_UPWARD), 0);
    ash_co_reschedule();
    *rounding = (struct rounding){fegetround(), divides_upward()};
}

ASH_CO_FN static void look_at_rounding(void *opaque)
{
    struct rounding *rounding = opaque;

    ash_co_reschedule();
    *rounding = (struct rounding){fegetround(), divides_upward()};
}

static void each_coroutine_has_its_own_rounding_mode(void **state)
{
    struct rounding mine = {-1, false}, others = {-1, true};

    (void)state;
    if (under_valgrind()) {
        skip(); /* its processor rounds to nearest, whatever it is told */
    }
    spawn(round_upward, &mine);
    spawn(look_at_rounding, &others);
    run_all();
    assert_int_equal(mine.mode, FE_UPWARD);
    assert_true(mine.upward);
    assert_int_equal(others.mode, FE_TONEAREST);
    assert_false(others.upward);
    assert_int_equal(fegetround(), FE_TONEAREST);
    assert_false(divides_upward());
}

__attribute__((noinline)) static void use_stack(volatile char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bytes[i] = 1;
    }
}

static void measure_stack(void *opaque)
{
    size_t *untouched = opaque;
    volatile char bytes[8192];

    ash_co_paint();
    untouched[0] = ash_co_untouched_bytes();
    use_stack(bytes, sizeof(bytes));
    untouched[1] = ash_co_untouched_bytes();
}

__attribute__((noinline)) static void measure_deeper(size_t *untouched)
{
    volatile char bytes[16384];

    use_stack(bytes, sizeof(bytes));
    untouched[1] = ash_co_untouched_bytes();
}

static void measure_stack_of_callee(void *opaque)
{
    size_t *untouched = opaque;

    ash_co_paint();
    untouched[0] = ash_co_untouched_bytes();
    measure_deeper(untouched);
}

static void paint_tells_how_deep_a_stack_was_used(void **state)
{
    size_t shallow[2], deep[2];

    (void)state;
    spawn(measure_stack, shallow);
    run_all();
    assert_in_range(shallow[0] - shallow[1], 0, 2 * KiB);
    assert_true(shallow[0] > 48 * KiB);
    spawn(measure_stack_of_callee, deep);
    run_all();
#if !defined(ASH_CO_ASAN)
    /* AddressSanitizer may keep such arrays in a stack of its own. */
    assert_true(deep[1] <= deep[0] - 15 * KiB);
#endif
    assert_true(deep[1] >= 32 * KiB);
}

/* What must abort. */

static void wake_running(void *opaque)
{
    (void)opaque;
    ash_co_wake(ash_co_self());
}

static void wakes_a_running_coroutine(void)
{
    spawn(wake_running, NULL);
    run_all();
}

static void waking_a_running_coroutine_aborts(void **state)
{
    (void)state;
    assert_asserts(wakes_a_running_coroutine, "co->state == ASH_CO_SUSPENDED");
}

static void wakes_twice(void)
{
    struct sleeper one = {0};

    spawn(sleep_once, &one);
    run_all();
    ash_co_wake(sleepers[0]);
    ash_co_wake(sleepers[0]);
}

static void waking_a_ready_coroutine_aborts(void **state)
{
    (void)state;
    assert_asserts(wakes_twice, "co->state == ASH_CO_SUSPENDED");
}

static struct ash_co_queue queue;

ASH_CO_FN static void wait_in_queue(void *opaque)
{
    struct sleeper *sleeper = opaque;

    sleepers[sleeper->index] = ash_co_self();
    ash_co_queue_wait(&queue);
    note((char)('0' + sleeper->index));
}

static void wakes_past_the_queue(void)
{
    struct sleeper one = {0};

    ash_co_queue_init(&queue);
    spawn(wait_in_queue, &one);
    run_all();
    ash_co_wake(sleepers[0]);
}

static void waking_a_coroutine_past_its_queue_aborts(void **state)
{
    (void)state;
    assert_asserts(wakes_past_the_queue, "ash_list_empty(&co->link)");
}

static void run_scheduler(void *opaque)
{
    (void)opaque;
    ash_co_sched_run(&sched, 0);
}

static void runs_inside(void)
{
    spawn(run_scheduler, NULL);
    run_all();
}

static void running_the_scheduler_inside_a_coroutine_aborts(void **state)
{
    (void)state;
    assert_asserts(runs_inside, "current == NULL");
}

static void asserts_inside(void)
{
    ash_co_assert_inside();
}

static void asserting_to_be_inside_aborts_outside(void **state)
{
    (void)state;
    assert_asserts(asserts_inside, "ash_co_self() != NULL");
}

static void destroys_with_a_sleeper(void)
{
    struct sleeper one = {0};

    spawn(sleep_once, &one);
    run_all();
    ash_co_sched_destroy(&sched);
}

static void destroying_a_scheduler_with_a_suspended_coroutine_aborts(void **state)
{
    (void)state;
    assert_asserts(destroys_with_a_sleeper, "sched->count == 0");
}

__attribute__((noinline)) static unsigned recurse(unsigned depth)
{
    volatile char bytes[1024];

    bytes[0] = (char)depth;
    return depth == 0 ? 0 : recurse(depth - 1) + (unsigned)bytes[0];
}

static void overflow_the_stack(void *opaque)
{
    unsigned *depth = opaque;

    *depth = recurse(*depth);
}

static void overflows(void)
{
    unsigned depth = 100000;

    spawn(overflow_the_stack, &depth);
    run_all();
}

static void overflowing_a_stack_hits_the_guard_page(void **state)
{
    (void)state;
    assert_dies(overflows, SIGSEGV);
}

static void write_below_the_stack(void *opaque)
{
    (void)opaque;
    *(volatile char *)(ash_co_self()->stack - 1) = 1;
}

static void writes_below_its_stack(void)
{
    spawn(write_below_the_stack, NULL);
    run_all();
}

/* Not only where nothing happens to be mapped below it. */
static void the_byte_below_a_stack_cannot_be_written(void **state)
{
    (void)state;
    assert_dies(writes_below_its_stack, SIGSEGV);
}

static void a_queue_wakes_first_come_first_served(void **state)
{
    struct sleeper three[3] = {{0}, {1}, {2}};

    (void)state;
    ash_co_queue_init(&queue);
    assert_false(ash_co_queue_wake_one(&queue));
    for (unsigned i = 0; i < 3; i++) {
        spawn(wait_in_queue, &three[i]);
    }
    run_all();
    assert_false(ash_co_queue_empty(&queue));
    assert_true(ash_co_queue_wake_one(&queue));
    run_all();
    assert_string_equal(trace, "0");
    ash_co_queue_wake_all(&queue);
    assert_true(ash_co_queue_empty(&queue));
    run_all();
    assert_string_equal(trace, "012");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(spawned_coroutines_run_in_order_and_take_turns),
        TEST(a_budget_of_zero_runs_only_what_is_ready_now),
        TEST(a_budget_bounds_the_switches),
        TEST(coroutines_run_in_the_order_in_which_they_are_woken),
        TEST(a_wake_from_a_coroutine_does_not_switch),
        TEST(a_spawn_from_a_coroutine_does_not_switch),
        TEST(self_is_set_inside_and_null_outside),
        TEST(a_stack_is_used_again),
        TEST(idle_stacks_beyond_cached_max_are_freed),
        TEST(stacks_of_a_scheduler_that_is_gone_serve_the_next),
        TEST(a_spare_stack_of_another_size_is_not_taken),
        TEST(schedulers_of_several_threads_come_and_go),
        TEST(spawning_beyond_count_max_is_refused),
        TEST(a_stack_that_cannot_be_mapped_is_an_error),
        TEST(a_shuffled_scheduler_repeats_its_order_from_the_seed),
        TEST(registers_survive_a_switch),
        TEST(each_coroutine_has_its_own_rounding_mode),
        TEST(paint_tells_how_deep_a_stack_was_used),
        TEST(waking_a_running_coroutine_aborts),
        TEST(waking_a_ready_coroutine_aborts),
        TEST(waking_a_coroutine_past_its_queue_aborts),
        TEST(running_the_scheduler_inside_a_coroutine_aborts),
        TEST(asserting_to_be_inside_aborts_outside),
        TEST(destroying_a_scheduler_with_a_suspended_coroutine_aborts),
        TEST(overflowing_a_stack_hits_the_guard_page),
        TEST(the_byte_below_a_stack_cannot_be_written),
        TEST(a_queue_wakes_first_come_first_served),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
