/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A loop among others: polled by its host, inside a GLib main context, reached from other threads,
 * and on a thread of its own. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <glib.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "tests/unit/dies.h"
#include "util/loop/glib.h"
#include "util/loop/private.h"

enum {
    MS = 1000000,
    THREADS = 4,
    POSTS = 20000,
    ROUNDS = 5000,
    HANG_MS = 20000, /* nothing takes this long but a lost wake-up */
};

static struct ash_loop *loop;

static int set_up(void **state)
{
    (void)state;
    int result = ash_loop_new(NULL, &loop, NULL);
    return result < 0 ? result : ash_loop_bind(loop);
}

static int set_up_own_thread(void **state)
{
    (void)state;
    struct ash_loop_config config = ASH_LOOP_CONFIG_INIT;
    config.flags = ASH_LOOP_OWN_THREAD;
    return ash_loop_new(&config, &loop, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    ash_loop_free(loop);
    return 0;
}

static bool readable(int timeout_ms)
{
    struct pollfd host = {.fd = ash_loop_fd(loop), .events = POLLIN};
    assert_true(host.fd >= 0);
    int count;
    do {
        count = poll(&host, 1, timeout_ms);
    } while (count < 0 && errno == EINTR); /* the kernel starting an io_uring worker */
    assert_true(count >= 0);
    return count == 1;
}

/* Runs turns that do not sleep until the descriptor says that there is nothing to do. */
static void run_until_quiet(void)
{
    for (int turns = 0; readable(0); turns++) {
        assert_true(turns < 1000);
        assert_true(ash_loop_run_once(loop, 0, 1) >= 0);
    }
}

static void count_post(void *opaque)
{
    (*(int *)opaque)++;
}

/* ---- the descriptor ---- */

static void descriptor_is_quiet_when_there_is_nothing_to_do(void **state)
{
    (void)state;
    run_until_quiet();
    assert_false(readable(5));
    assert_int_equal(ash_loop_run_once(loop, 0, 0), 0);
    assert_false(readable(0));
}

static void set_in_flag(struct ash_timer *timer)
{
    timer->deadline_ns = 0;
}

static void timer_set_outside_of_a_turn_makes_the_descriptor_readable_when_due(void **state)
{
    (void)state;
    struct ash_timer timer;
    ash_timer_init(&timer, set_in_flag);
    run_until_quiet();
    ash_timer_set(loop, &timer, ash_loop_now(loop) + 20 * MS);
    assert_false(readable(0));
    assert_true(readable(HANG_MS));
    assert_true(ash_loop_now(loop) >= timer.deadline_ns);
    assert_int_equal(ash_loop_run_once(loop, 0, 0), 1);
    assert_int_equal(timer.deadline_ns, 0);
    assert_false(readable(0));
}

static void timers_one_after_the_other_keep_the_descriptor_right(void **state)
{
    (void)state;
    struct ash_timer timers[3];
    uint64_t start_ns = ash_loop_now(loop);
    run_until_quiet();
    for (int i = 0; i < 3; i++) {
        ash_timer_init(&timers[i], set_in_flag);
        ash_timer_set(loop, &timers[i], start_ns + (uint64_t)(3 - i) * 2 * MS);
    }
    for (int i = 2; i >= 0; i--) {
        while (timers[i].deadline_ns != 0) {
            assert_true(readable(HANG_MS));
            assert_true(ash_loop_run_once(loop, 0, 0) >= 0);
        }
    }
    ash_timer_set(loop, &timers[0], 1);
    assert_true(readable(0));
    ash_timer_cancel(loop, &timers[0]);
    run_until_quiet();
}

ASH_CO_FN static void count_steps(void *opaque)
{
    for (int i = 0; i < 20; i++) {
        (*(int *)opaque)++;
        ash_co_reschedule();
    }
}

static void descriptor_stays_readable_while_the_budget_left_coroutines_ready(void **state)
{
    (void)state;
    int steps = 0;
    run_until_quiet();
    assert_int_equal(ash_co_spawn(&loop->sched, count_steps, &steps), 0);
    assert_int_equal(ash_co_spawn(&loop->sched, count_steps, &steps), 0);
    ash_loop_kick(loop);
    while (loop->sched.count > 0) {
        assert_true(readable(HANG_MS));
        assert_int_equal(ash_loop_run_once(loop, 0, 1), 1);
    }
    assert_int_equal(steps, 40);
    assert_false(readable(0));
}

struct counting_hook {
    struct ash_turn_hook hook;
    int left;
};

static void run_again(struct ash_turn_hook *turn_hook)
{
    struct counting_hook *hook = ash_container_of(turn_hook, struct counting_hook, hook);
    if (--hook->left > 0) {
        ash_loop_at_turn_end(loop, &hook->hook);
    }
}

static void descriptor_stays_readable_while_a_hook_is_scheduled(void **state)
{
    (void)state;
    struct counting_hook hook = {.left = 5};
    ash_turn_hook_init(&hook.hook, run_again);
    run_until_quiet();
    ash_loop_at_turn_end(loop, &hook.hook);
    while (hook.left > 0) {
        assert_true(readable(HANG_MS));
        ash_loop_run_once(loop, 0, 0);
    }
    run_until_quiet();
}

static void post_by_the_owner_makes_the_descriptor_readable(void **state)
{
    (void)state;
    int posts = 0;
    run_until_quiet();
    assert_int_equal(ash_loop_post(loop, count_post, &posts), 0);
    assert_true(readable(0));
    assert_true(ash_loop_run_once(loop, 0, 0) >= 1);
    assert_int_equal(posts, 1);
    run_until_quiet();
}

static int slow_answer(void *opaque)
{
    (void)opaque;
    usleep(1000);
    return 42;
}

static void note_done(struct ash_aio *aio)
{
    assert_null(ash_co_self());
    aio->mode = 1;
}

static void io_queued_outside_of_a_turn_is_done_by_a_host_that_polls(void **state)
{
    (void)state;
    struct ash_aio aio = {.op = ASH_AIO_WORK, .work = slow_answer, .done = note_done};
    run_until_quiet();
    ash_engine_submit(loop->engine, &aio);
    ash_loop_kick(loop);
    while (aio.mode == 0) {
        assert_true(readable(HANG_MS));
        assert_true(ash_loop_run_once(loop, 0, 0) >= 0);
    }
    assert_int_equal(aio.result, 42);
    run_until_quiet();
}

static void descriptor_that_the_loop_polls_wakes_a_host_that_polls_the_loop(void **state)
{
    (void)state;
    int event = eventfd(0, EFD_NONBLOCK);
    struct ash_aio aio = {.op = ASH_AIO_POLL, .poll_fd = event, .mode = POLLIN, .done = note_done};
    ash_engine_submit(loop->engine, &aio);
    ash_loop_kick(loop);
    run_until_quiet();
    assert_false(readable(5));
    assert_int_equal(eventfd_write(event, 1), 0);
    assert_true(readable(HANG_MS));
    while (!(aio.result & POLLIN)) {
        assert_true(readable(HANG_MS));
        assert_true(ash_loop_run_once(loop, 0, 0) >= 0);
    }
    run_until_quiet();
    close(event);
}

static void *post_later(void *opaque)
{
    usleep(2000);
    assert_int_equal(ash_loop_post(loop, count_post, opaque), 0);
    return NULL;
}

static void loop_nests_in_the_epoll_set_of_its_host(void **state)
{
    (void)state;
    int outer = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 7};
    assert_int_equal(epoll_ctl(outer, EPOLL_CTL_ADD, ash_loop_fd(loop), &event), 0);
    run_until_quiet();
    for (int i = 0; i < 20; i++) {
        int posts = 0;
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, post_later, &posts), 0);
        while (posts == 0) {
            int count = epoll_wait(outer, &event, 1, HANG_MS);
            assert_true(count == 1 || errno == EINTR);
            assert_true(count < 0 || event.data.u32 == 7);
            assert_true(ash_loop_run_once(loop, 0, 0) >= 0);
        }
        pthread_join(thread, NULL);
        run_until_quiet();
    }
    close(outer);
}

/* ---- posts from many threads ---- */

struct poster {
    pthread_t thread;
    int number;
    int sent;
    int taken;
};

struct letter {
    struct poster *from;
    int sequence;
};

static struct letter letters[THREADS][POSTS];
static int letters_taken;

static void take_letter(void *opaque)
{
    struct letter *letter = opaque;
    assert_null(ash_co_self());
    assert_true(ash_loop_in_turn(loop));
    assert_int_equal(letter->sequence, letter->from->taken);
    letter->from->taken++;
    letters_taken++;
}

static void *post_many(void *opaque)
{
    struct poster *poster = opaque;
    assert_false(ash_loop_in_turn(loop));
    for (int i = 0; i < POSTS; i++) {
        letters[poster->number][i] = (struct letter){poster, i};
        assert_int_equal(ash_loop_post(loop, take_letter, &letters[poster->number][i]), 0);
        if (i % 100 == 0) {
            usleep(50); /* so that the loop goes to sleep in between */
        }
    }
    return NULL;
}

static void start_posters(struct poster *posters)
{
    letters_taken = 0;
    for (int i = 0; i < THREADS; i++) {
        posters[i] = (struct poster){.number = i};
        assert_int_equal(pthread_create(&posters[i].thread, NULL, post_many, &posters[i]), 0);
    }
}

static void posts_of_many_threads_arrive_once_and_in_order(void **state)
{
    (void)state;
    struct poster posters[THREADS];
    start_posters(posters);
    while (letters_taken < THREADS * POSTS) {
        assert_true(ash_loop_run_once(loop, -1, 0) >= 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(posters[i].thread, NULL);
        assert_int_equal(posters[i].taken, POSTS);
    }
    assert_int_equal(ash_loop_run_once(loop, 0, 0), 0);
}

static void posts_of_many_threads_reach_a_host_that_polls(void **state)
{
    (void)state;
    struct poster posters[THREADS];
    run_until_quiet();
    start_posters(posters);
    while (letters_taken < THREADS * POSTS) {
        assert_true(readable(HANG_MS));
        assert_true(ash_loop_run_once(loop, 0, 0) >= 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(posters[i].thread, NULL);
        assert_int_equal(posters[i].taken, POSTS);
    }
    run_until_quiet();
}

/* One post at a time, the next only when the last has arrived: each meets the loop at another
 * moment of going to sleep, and one that is lost hangs.
 *
 *   poster: post ........ waits for the echo, post ........
 *   loop:   ..... runs it, goes to sleep ...... runs it */
static atomic_int echoes;

static void echo(void *opaque)
{
    (void)opaque;
    atomic_fetch_add(&echoes, 1);
}

static void *post_one_at_a_time(void *opaque)
{
    atomic_bool *finished = opaque;
    for (int i = 1; i <= ROUNDS; i++) {
        assert_int_equal(ash_loop_post(loop, echo, NULL), 0);
        while (atomic_load(&echoes) < i) {
            sched_yield();
        }
        for (volatile int pause = 0; pause < i % 1000; pause++) {
        }
    }
    atomic_store(finished, true);
    assert_int_equal(ash_loop_post(loop, echo, NULL), 0);
    return NULL;
}

static void no_post_is_lost_while_the_loop_goes_to_sleep(void **state)
{
    (void)state;
    atomic_bool finished = false;
    pthread_t thread;
    atomic_store(&echoes, 0);
    assert_int_equal(pthread_create(&thread, NULL, post_one_at_a_time, &finished), 0);
    while (atomic_load(&echoes) < ROUNDS + 1) {
        uint64_t start_ns = ash_loop_now(loop);
        assert_true(ash_loop_run_once(loop, (int64_t)HANG_MS * MS, 0) >= 0);
        assert_true(ash_loop_now(loop) - start_ns < (uint64_t)HANG_MS * MS);
    }
    pthread_join(thread, NULL);
    assert_true(atomic_load(&finished));
}

/* ---- a main context ---- */

static gboolean quit_main_loop(gpointer opaque)
{
    g_main_loop_quit(opaque);
    return G_SOURCE_REMOVE;
}

static void note_work_and_quit(struct ash_aio *aio)
{
    note_done(aio);
    g_main_loop_quit(aio->work_opaque);
}

static void loop_runs_inside_a_main_context(void **state)
{
    (void)state;
    GMainContext *context = g_main_context_new();
    GMainLoop *main_loop = g_main_loop_new(context, FALSE);
    GSource *source = ash_loop_glib_source(loop);
    assert_non_null(source);
    g_source_attach(source, context);

    GSource *guard = g_timeout_source_new(HANG_MS);
    g_source_set_callback(guard, quit_main_loop, main_loop, NULL);
    g_source_attach(guard, context);

    int steps = 0;
    int posts = 0;
    pthread_t thread;
    struct ash_timer timer;
    assert_int_equal(ash_co_spawn(&loop->sched, count_steps, &steps), 0);
    ash_loop_kick(loop);
    ash_timer_init(&timer, set_in_flag);
    ash_timer_set(loop, &timer, ash_loop_now(loop) + 3 * MS);
    assert_int_equal(pthread_create(&thread, NULL, post_later, &posts), 0);
    while (posts == 0 || timer.deadline_ns != 0 || steps < 20) {
        g_main_context_iteration(context, TRUE);
    }
    pthread_join(thread, NULL);

    struct ash_aio aio = {.op = ASH_AIO_WORK, .work = slow_answer, .done = note_work_and_quit};
    aio.work_opaque = main_loop;
    ash_engine_submit(loop->engine, &aio);
    ash_loop_kick(loop);
    g_main_loop_run(main_loop);
    assert_int_equal(aio.result, 42);

    g_source_destroy(guard);
    g_source_unref(guard);
    g_source_destroy(source);
    g_source_unref(source);
    g_main_loop_unref(main_loop);
    g_main_context_unref(context);
}

/* ---- a thread of its own ---- */

static void loop_with_a_thread_starts_and_ends(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(set_up_own_thread(NULL), 0);
        assert_int_equal(ash_loop_bind(loop), -EBUSY);
        assert_false(ash_loop_is_owner(loop));
        ash_loop_free(loop);
    }
}

static void posts_before_the_end_of_a_loop_with_a_thread_are_run(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        int posts = 0;
        assert_int_equal(set_up_own_thread(NULL), 0);
        for (int post = 0; post < 10; post++) {
            assert_int_equal(ash_loop_post(loop, count_post, &posts), 0);
        }
        ash_loop_free(loop);
        assert_int_equal(posts, 10);
    }
}

static void note_thread(void *opaque, const char *name)
{
    if (strcmp(name, "ashlar-loop") == 0) {
        (*(int *)opaque)++;
    }
}

static void host_is_told_of_the_thread(void **state)
{
    (void)state;
    int started = 0;
    struct ash_hooks hooks = {
        .size = sizeof(hooks), .opaque = &started, .thread_started = note_thread};
    struct ash_loop_config config = ASH_LOOP_CONFIG_INIT;
    config.flags = ASH_LOOP_OWN_THREAD;
    config.hooks = &hooks;
    assert_int_equal(ash_loop_new(&config, &loop, NULL), 0);
    ash_loop_free(loop);
    assert_int_equal(started, 1);
}

ASH_CO_FN static int answer(void *opaque)
{
    assert_non_null(ash_co_self());
    assert_true(ash_loop_in_turn(loop));
    ash_co_sleep(1000);
    assert_int_equal(ash_loop_run_sync(loop, answer, opaque), -EDEADLK);
    return *(int *)opaque;
}

static void run_sync_from_another_thread_waits_for_the_result(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        int value = -i;
        assert_int_equal(ash_loop_run_sync(loop, answer, &value), -i);
    }
}

static void *wait_for_answers(void *opaque)
{
    for (int i = 0; i < 50; i++) {
        int value = *(int *)opaque + i;
        assert_int_equal(ash_loop_run_sync(loop, answer, &value), value);
    }
    return NULL;
}

static void many_threads_wait_side_by_side(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    int values[THREADS];
    for (int i = 0; i < THREADS; i++) {
        values[i] = i * 1000;
        assert_int_equal(pthread_create(&threads[i], NULL, wait_for_answers, &values[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void keep_posting_until_the_end(void *opaque)
{
    int *posts = opaque;
    (*posts)++;
    int result = ash_loop_post(loop, keep_posting_until_the_end, opaque);
    assert_true(result == 0 || result == -ESHUTDOWN);
}

static void loop_with_a_thread_that_is_busy_ends(void **state)
{
    (void)state;
    int posts = 0;
    assert_int_equal(set_up_own_thread(NULL), 0);
    assert_int_equal(ash_loop_post(loop, keep_posting_until_the_end, &posts), 0);
    usleep(1000);
    ash_loop_free(loop);
    assert_true(posts > 0);
}

struct waiter {
    int value;
    int posts;
};

static void *wait_for_the_host(void *opaque)
{
    struct waiter *waiter = opaque;
    wait_for_answers(&waiter->value);
    ash_loop_post(loop, count_post, &waiter->posts);
    return NULL;
}

static void run_sync_from_another_thread_is_served_by_a_host_that_runs_turns(void **state)
{
    (void)state;
    struct waiter waiter = {.value = 5};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_for_the_host, &waiter), 0);
    while (waiter.posts == 0) {
        assert_true(ash_loop_run_once(loop, -1, 0) >= 0);
    }
    pthread_join(thread, NULL);
}

static void run_sync_on_a_loop_without_an_owner(void)
{
    if (ash_loop_new(NULL, &loop, NULL) < 0) {
        _exit(2);
    }
    pthread_t thread;
    int value = 0;
    pthread_create(&thread, NULL, wait_for_answers, &value);
    pthread_join(thread, NULL);
}

static void run_sync_from_a_thread_that_nobody_serves_is_asserted_against(void **state)
{
    (void)state;
    assert_dies(run_sync_on_a_loop_without_an_owner, SIGABRT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TEST_OWN_THREAD(name) cmocka_unit_test_setup_teardown(name, set_up_own_thread, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_sync_from_a_thread_that_nobody_serves_is_asserted_against),
        TEST(descriptor_is_quiet_when_there_is_nothing_to_do),
        TEST(timer_set_outside_of_a_turn_makes_the_descriptor_readable_when_due),
        TEST(timers_one_after_the_other_keep_the_descriptor_right),
        TEST(descriptor_stays_readable_while_the_budget_left_coroutines_ready),
        TEST(descriptor_stays_readable_while_a_hook_is_scheduled),
        TEST(post_by_the_owner_makes_the_descriptor_readable),
        TEST(io_queued_outside_of_a_turn_is_done_by_a_host_that_polls),
        TEST(descriptor_that_the_loop_polls_wakes_a_host_that_polls_the_loop),
        TEST(loop_nests_in_the_epoll_set_of_its_host),
        TEST(posts_of_many_threads_arrive_once_and_in_order),
        TEST(posts_of_many_threads_reach_a_host_that_polls),
        TEST(no_post_is_lost_while_the_loop_goes_to_sleep),
        TEST(loop_runs_inside_a_main_context),
        cmocka_unit_test(loop_with_a_thread_starts_and_ends),
        cmocka_unit_test(posts_before_the_end_of_a_loop_with_a_thread_are_run),
        cmocka_unit_test(host_is_told_of_the_thread),
        TEST(run_sync_from_another_thread_is_served_by_a_host_that_runs_turns),
        TEST_OWN_THREAD(run_sync_from_another_thread_waits_for_the_result),
        TEST_OWN_THREAD(many_threads_wait_side_by_side),
        cmocka_unit_test(loop_with_a_thread_that_is_busy_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
