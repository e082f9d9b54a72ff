/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Work on worker threads, on the engine that ASHLAR_ENGINE names. */
#include "tests/unit/unit.h"
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <ashlar/loop.h>
#include "tests/unit/engine_fixture.h"

static int count_up(void *opaque)
{
    atomic_uint *counter = opaque;

    return (int)atomic_fetch_add(counter, 1) + 1;
}

static void work_runs_once_each_and_returns_its_value(void **state)
{
    enum { COUNT = 2000 };
    struct fixture *fixture = *state;
    struct call *calls = calloc(COUNT, sizeof(*calls));
    atomic_uint counter = 0;
    uint64_t sum = 0;

    for (int i = 0; i < COUNT; i++) {
        calls[i].aio =
            (struct ash_aio){.op = ASH_AIO_WORK, .work = count_up, .work_opaque = &counter};
        call_submit(fixture->engine, &calls[i]);
    }
    for (int i = 0; i < COUNT; i++) {
        call_wait(fixture->engine, &calls[i]);
    }
    for (int i = 0; i < COUNT; i++) {
        sum += (uint64_t)calls[i].aio.result;
    }
    assert_int_equal(sum, COUNT * (COUNT + 1) / 2);
    free(calls);
}

static int meet(void *opaque)
{
    return pthread_barrier_wait(opaque) > 0;
}

/* Two works that wait for one another must run at the same time. */
static void works_run_in_parallel(void **state)
{
    struct fixture *fixture = *state;
    pthread_barrier_t barrier;
    struct call calls[2];

    pthread_barrier_init(&barrier, NULL, 2);
    for (int i = 0; i < 2; i++) {
        calls[i].aio = (struct ash_aio){.op = ASH_AIO_WORK, .work = meet, .work_opaque = &barrier};
        call_submit(fixture->engine, &calls[i]);
    }
    call_wait(fixture->engine, &calls[0]);
    call_wait(fixture->engine, &calls[1]);
    pthread_barrier_destroy(&barrier);
}

static int wait_for_flag(void *opaque)
{
    while (!atomic_load((atomic_bool *)opaque)) {
        sched_yield();
    }
    return 0;
}

static void note_thread(void *opaque, const char *name)
{
    if (!strcmp(name, "ashlar-worker")) {
        atomic_fetch_add((atomic_uint *)opaque, 1);
    }
}

/* Six works that all wait: the threads that were started by then are all that there will be. */
static void no_more_threads_are_started_than_was_asked_for(void **state)
{
    atomic_uint started = 0;
    atomic_bool go = false;
    struct ash_hooks hooks = {
        .size = sizeof(hooks), .opaque = &started, .thread_started = note_thread};
    struct ash_engine_config config = {.depth = 8, .workers = 2, .hooks = &hooks};
    struct ash_engine *engine;
    struct call calls[6];

    (void)state;
    assert_int_equal(ash_engine_new(NULL, &config, &engine, NULL), 0);
    for (int i = 0; i < 6; i++) {
        calls[i].aio =
            (struct ash_aio){.op = ASH_AIO_WORK, .work = wait_for_flag, .work_opaque = &go};
        call_submit(engine, &calls[i]);
    }
    atomic_store(&go, true);
    for (int i = 0; i < 6; i++) {
        call_wait(engine, &calls[i]);
    }
    engine->ops->destroy(engine);
    assert_true(atomic_load(&started) >= 1);
    assert_true(atomic_load(&started) <= 2);
}

static void works_one_after_the_other_have_one_thread(void **state)
{
    atomic_uint started = 0, counter = 0;
    struct ash_hooks hooks = {
        .size = sizeof(hooks), .opaque = &started, .thread_started = note_thread};
    struct ash_engine_config config = {.depth = 4, .workers = 8, .hooks = &hooks};
    struct ash_engine *engine;

    (void)state;
    assert_int_equal(ash_engine_new(NULL, &config, &engine, NULL), 0);
    for (int i = 1; i <= 1000; i++) {
        assert_int_equal(
            run(engine,
                (struct ash_aio){.op = ASH_AIO_WORK, .work = count_up, .work_opaque = &counter}),
            i);
    }
    engine->ops->destroy(engine);
    assert_int_equal(atomic_load(&started), 1);
}

struct turnstile {
    atomic_uint entered;
    atomic_uint open; /* so many may leave */
};

static int pass(void *opaque)
{
    struct turnstile *turnstile = opaque;
    unsigned number = atomic_fetch_add(&turnstile->entered, 1);

    while (atomic_load(&turnstile->open) <= number) {
        sched_yield();
    }
    return 0;
}

static void work_submit(struct ash_engine *engine, struct call *call, struct turnstile *turnstile)
{
    call->aio = (struct ash_aio){.op = ASH_AIO_WORK, .work = pass, .work_opaque = turnstile};
    call_submit(engine, call);
}

/* One worker, that has begun the next work: the last one is done, and the wait finds it. */
static void poll_completes_though_each_wait_finds_a_completion(void **state)
{
    struct ash_engine_config config = {.depth = 8, .workers = 1};
    struct turnstile turnstile = {0};
    struct ash_engine *engine;
    struct call poll, works[2];
    int fd = eventfd(1, EFD_CLOEXEC);
    unsigned i = 0;

    (void)state;
    assert_int_equal(ash_engine_new(NULL, &config, &engine, NULL), 0);
    poll.aio = (struct ash_aio){.op = ASH_AIO_POLL, .poll_fd = fd, .mode = POLLIN};
    call_submit(engine, &poll);
    work_submit(engine, &works[0], &turnstile);
    for (; i < 32 && !poll.completions; i++) {
        work_submit(engine, &works[(i + 1) % 2], &turnstile);
        atomic_store(&turnstile.open, i + 1);
        while (atomic_load(&turnstile.entered) < i + 2) {
            sched_yield();
        }
        assert_true(engine->ops->wait(engine, UINT64_MAX) >= 1);
        assert_int_equal(works[i % 2].completions, 1);
    }
    assert_int_equal(poll.completions, 1);
    assert_true(i <= 16);
    atomic_store(&turnstile.open, UINT_MAX);
    call_wait(engine, &works[i % 2]);
    engine->ops->destroy(engine);
    close(fd);
}

static int thread_signals_blocked(void *opaque)
{
    sigset_t blocked;

    (void)opaque;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    return sigismember(&blocked, SIGINT) && sigismember(&blocked, SIGTERM);
}

static void worker_calls_the_hook_and_blocks_signals(void **state)
{
    atomic_uint started = 0;
    struct ash_hooks hooks = {
        .size = sizeof(hooks), .opaque = &started, .thread_started = note_thread};
    struct ash_engine_config config = {.depth = 4, .workers = 2, .hooks = &hooks};
    struct ash_engine *engine;

    (void)state;
    assert_int_equal(ash_engine_new(NULL, &config, &engine, NULL), 0);
    assert_int_equal(
        run(engine, (struct ash_aio){.op = ASH_AIO_WORK, .work = thread_signals_blocked}), 1);
    assert_int_equal(atomic_load(&started), 1);
    engine->ops->destroy(engine);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(work_runs_once_each_and_returns_its_value),
        T(works_run_in_parallel),
        cmocka_unit_test(no_more_threads_are_started_than_was_asked_for),
        cmocka_unit_test(works_one_after_the_other_have_one_thread),
        cmocka_unit_test(poll_completes_though_each_wait_finds_a_completion),
        cmocka_unit_test(worker_calls_the_hook_and_blocks_signals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
