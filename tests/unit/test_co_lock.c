/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mutex and readers-writer lock between coroutines. */
#include "tests/unit/unit.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "tests/unit/dies.h"
#include "util/co/co.h"

static struct ash_co_sched sched;
static struct ash_co_mutex mutex;
static struct ash_co_rwlock rwlock;

/* What happened, one letter a step. */
static char trace[256];

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
    ash_co_mutex_init(&mutex);
    ash_co_rwlock_init(&rwlock);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ash_co_mutex_destroy(&mutex);
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
}

/* Locks `rounds` times and holds the mutex over a switch: in with a letter, out with its capital.
 */
struct locker {
    char letter;
    unsigned rounds;
};

ASH_CO_FN static void lock_and_hold(void *opaque)
{
    struct locker *locker = opaque;

    for (unsigned i = 0; i < locker->rounds; i++) {
        ash_co_mutex_lock(&mutex);
        note(locker->letter);
        ash_co_reschedule();
        note((char)(locker->letter - 'a' + 'A'));
        ash_co_mutex_unlock(&mutex);
    }
}

static void a_mutex_is_held_by_one_and_handed_over_in_order(void **state)
{
    struct locker a = {'a', 2}, b = {'b', 2}, c = {'c', 2};

    (void)state;
    spawn(lock_and_hold, &a);
    spawn(lock_and_hold, &b);
    spawn(lock_and_hold, &c);
    run_all();
    /* a locks again at once, but b and c came first. */
    assert_string_equal(trace, "aAbBcCaAbBcC");
}

static void try_and_note(void *opaque)
{
    (void)opaque;
    if (ash_co_mutex_try_lock(&mutex)) {
        note('y');
        ash_co_mutex_unlock(&mutex);
    } else {
        note('n');
    }
}

static void try_lock_fails_while_the_mutex_is_held(void **state)
{
    struct locker a = {'a', 1};

    (void)state;
    spawn(lock_and_hold, &a);
    spawn(try_and_note, NULL);
    run_all();
    spawn(try_and_note, NULL);
    run_all();
    assert_string_equal(trace, "anAy");
}

/* Timeline: a holds; b waits; a unlocks, which hands over to b before b runs; then a tries. */
ASH_CO_FN static void unlock_then_try(void *opaque)
{
    (void)opaque;
    ash_co_mutex_lock(&mutex);
    ash_co_reschedule();
    ash_co_mutex_unlock(&mutex);
    note(ash_co_mutex_try_lock(&mutex) ? 'y' : 'n');
}

static void nobody_slips_in_between_unlock_and_the_waiter(void **state)
{
    struct locker b = {'b', 1};

    (void)state;
    spawn(unlock_then_try, NULL);
    spawn(lock_and_hold, &b);
    run_all();
    assert_string_equal(trace, "nbB");
}

ASH_CO_FN static void lock_twice(void *opaque)
{
    (void)opaque;
    ash_co_mutex_lock(&mutex);
    ash_co_mutex_lock(&mutex);
}

static void locks_twice(void)
{
    spawn(lock_twice, NULL);
    run_all();
}

static void locking_a_mutex_that_one_holds_aborts(void **state)
{
    (void)state;
    assert_asserts(locks_twice, "mutex->owner != self");
}

static void unlock_foreign(void *opaque)
{
    (void)opaque;
    ash_co_mutex_unlock(&mutex);
}

static void unlocks_foreign(void)
{
    struct locker a = {'a', 1};

    spawn(lock_and_hold, &a);
    spawn(unlock_foreign, NULL);
    run_all();
}

static void unlocking_a_mutex_of_another_aborts(void **state)
{
    (void)state;
    assert_asserts(unlocks_foreign, "mutex->owner == ash_co_self()");
}

ASH_CO_FN static void leave_locked(void *opaque)
{
    (void)opaque;
    ash_co_mutex_lock(&mutex);
}

static void destroys_locked(void)
{
    spawn(leave_locked, NULL);
    run_all();
    ash_co_mutex_destroy(&mutex);
}

static void destroying_a_locked_mutex_aborts(void **state)
{
    (void)state;
    assert_asserts(destroys_locked, "mutex->owner == NULL");
}

/* Holds the readers-writer lock over some switches: in with a letter, out with its capital. */
struct holder {
    char letter;
    bool writes;
    unsigned switches;
};

ASH_CO_FN static void hold(void *opaque)
{
    struct holder *holder = opaque;

    if (holder->writes) {
        ash_co_rwlock_write(&rwlock);
    } else {
        ash_co_rwlock_read(&rwlock);
    }
    note(holder->letter);
    for (unsigned i = 0; i < holder->switches; i++) {
        ash_co_reschedule();
    }
    note((char)(holder->letter - 'a' + 'A'));
    ash_co_rwlock_unlock(&rwlock);
}

static void readers_hold_the_lock_together(void **state)
{
    struct holder r = {'r', false, 1}, s = {'s', false, 1};

    (void)state;
    spawn(hold, &r);
    spawn(hold, &s);
    run_all();
    assert_string_equal(trace, "rsRS");
}

static void writers_hold_the_lock_alone(void **state)
{
    struct holder w = {'w', true, 1}, x = {'x', true, 1}, r = {'r', false, 1};

    (void)state;
    spawn(hold, &w);
    spawn(hold, &x);
    spawn(hold, &r);
    run_all();
    assert_string_equal(trace, "wWxXrR");
}

/* Timeline: r reads; w waits to write; s comes to read: it may not overtake w. */
static void a_later_reader_does_not_overtake_a_waiting_writer(void **state)
{
    struct holder r = {'r', false, 3}, w = {'w', true, 1}, s = {'s', false, 1}, t = {'t', false, 1};

    (void)state;
    spawn(hold, &r);
    spawn(hold, &w);
    spawn(hold, &s);
    spawn(hold, &t);
    run_all();
    assert_string_equal(trace, "rRwWstST");
}

static void unlocks_free_rwlock(void)
{
    ash_co_rwlock_unlock(&rwlock);
}

static void unlocking_a_free_rwlock_aborts(void **state)
{
    (void)state;
    assert_asserts(unlocks_free_rwlock, "lock->readers > 0");
}

static unsigned reading, writing;
static struct ash_prng prng;

ASH_CO_FN static void hold_at_random(void *opaque)
{
    (void)opaque;
    for (unsigned i = 0; i < 50; i++) {
        bool writes = ash_prng_chance(&prng, 300);
        unsigned *holders = writes ? &writing : &reading;
        if (writes) {
            ash_co_rwlock_write(&rwlock);
        } else {
            ash_co_rwlock_read(&rwlock);
        }
        ++*holders;
        for (uint64_t switches = ash_prng_below(&prng, 4); switches > 0; switches--) {
            assert_true(writing <= 1);
            assert_true(writing == 0 || reading == 0);
            ash_co_reschedule();
        }
        --*holders;
        ash_co_rwlock_unlock(&rwlock);
    }
}

static void random_holders_never_break_the_rule_of_the_lock(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        printf("seed %" PRIu64 "\n", seed);
        ash_prng_seed(&prng, seed);
        sched.shuffle = &prng;
        for (unsigned i = 0; i < 10; i++) {
            spawn(hold_at_random, NULL);
        }
        run_all();
        assert_int_equal(sched.count, 0);
        assert_int_equal(rwlock.readers, 0);
        assert_false(rwlock.writing);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(a_mutex_is_held_by_one_and_handed_over_in_order),
        TEST(try_lock_fails_while_the_mutex_is_held),
        TEST(nobody_slips_in_between_unlock_and_the_waiter),
        TEST(locking_a_mutex_that_one_holds_aborts),
        TEST(unlocking_a_mutex_of_another_aborts),
        TEST(destroying_a_locked_mutex_aborts),
        TEST(readers_hold_the_lock_together),
        TEST(writers_hold_the_lock_alone),
        TEST(a_later_reader_does_not_overtake_a_waiting_writer),
        TEST(unlocking_a_free_rwlock_aborts),
        TEST(random_holders_never_break_the_rule_of_the_lock),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
