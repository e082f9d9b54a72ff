/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Waiting: sleeping, waking, polling, and threads that change. What works is in test_workers.c. */
#include "tests/unit/unit.h"
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <ashlar/loop.h>
#include "tests/unit/engine_fixture.h"
#include "util/engine/os.h"
#include "util/engine/waker.h"

#define MS 1000000ull

static void nap(uint64_t duration_ns)
{
    struct timespec duration = {.tv_sec = (time_t)(duration_ns / 1000000000),
                                .tv_nsec = (long)(duration_ns % 1000000000)};

    nanosleep(&duration, NULL);
}

static int wait_until(struct ash_engine *engine, uint64_t deadline_ns)
{
    int count = engine->ops->wait(engine, deadline_ns);

    assert_true(count >= 0);
    return count;
}

/* Waits without sleeping until nothing is left to be told. */
static void settle(struct ash_engine *engine)
{
    for (int i = 0; i < 10; i++) {
        wait_until(engine, 0);
    }
}

static void wait_without_deadline_time_returns_at_once(void **state)
{
    struct fixture *fixture = *state;

    settle(fixture->engine);
    assert_int_equal(wait_until(fixture->engine, 0), 0);
}

static void wait_sleeps_until_its_deadline(void **state)
{
    struct fixture *fixture = *state;
    struct ash_engine *engine = fixture->engine;

    settle(engine);
    for (int i = 0; i < 5; i++) {
        uint64_t deadline_ns = engine->ops->now(engine) + (uint64_t)i * 3 * MS;
        while (engine->ops->now(engine) < deadline_ns) {
            assert_int_equal(wait_until(engine, deadline_ns), 0);
        }
        /* Generous above: the machine may be busy. */
        assert_in_range(engine->ops->now(engine), deadline_ns, deadline_ns + 500 * MS);
    }
}

static uint64_t cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void sleeping_takes_no_processor_time(void **state)
{
    struct fixture *fixture = *state;
    uint64_t before_ns = cpu_ns();
    uint64_t deadline_ns = fixture->engine->ops->now(fixture->engine) + 100 * MS;

    while (fixture->engine->ops->now(fixture->engine) < deadline_ns) {
        wait_until(fixture->engine, deadline_ns);
    }
    assert_true(cpu_ns() - before_ns < 50 * MS);
}

/* Timeline: the owner sleeps without a deadline; 20 ms later another thread wakes it. */
static void *wake_after_a_nap(void *opaque)
{
    struct ash_engine *engine = opaque;

    nap(20 * MS);
    engine->ops->wake(engine);
    return NULL;
}

static void wake_ends_a_sleep(void **state)
{
    struct fixture *fixture = *state;
    pthread_t thread;

    settle(fixture->engine);
    uint64_t start_ns = ash_os_now_ns();
    assert_int_equal(pthread_create(&thread, NULL, wake_after_a_nap, fixture->engine), 0);
    assert_int_equal(wait_until(fixture->engine, UINT64_MAX), 0);
    assert_true(ash_os_now_ns() - start_ns >= 15 * MS);
    pthread_join(thread, NULL);
}

static void wake_before_the_wait_is_remembered(void **state)
{
    struct fixture *fixture = *state;

    settle(fixture->engine);
    fixture->engine->ops->wake(fixture->engine);
    assert_int_equal(wait_until(fixture->engine, UINT64_MAX), 0);
}

/* Timeline, 20000 times: the owner sleeps without a deadline until a message is there; the other
 * thread puts one and wakes, at a moment that drifts over the owner's falling asleep. A wake that
 * is lost leaves the test hanging until its time-out. */
struct messages {
    struct ash_engine *engine;
    atomic_uint put;
    atomic_uint taken;
};

#define MESSAGES 20000u

static void *put_messages(void *opaque)
{
    struct messages *messages = opaque;

    for (uint32_t i = 1; i <= MESSAGES; i++) {
        for (uint32_t pause = i % 97 * 8; pause; pause--) {
            atomic_signal_fence(memory_order_seq_cst);
        }
        atomic_store(&messages->put, i);
        messages->engine->ops->wake(messages->engine);
        while (atomic_load(&messages->taken) < i) {
            sched_yield();
        }
    }
    return NULL;
}

static bool readable(int epoll_fd, int timeout_ms)
{
    struct epoll_event event;
    int count;

    do {
        count = epoll_wait(epoll_fd, &event, 1, timeout_ms);
    } while (count < 0 && errno == EINTR); /* see ash_engine_ops.fd */
    return count == 1;
}

/* epoll_fd: where the owner sleeps; -1: in wait(). */
static void take_messages(struct ash_engine *engine, int epoll_fd)
{
    struct messages messages = {.engine = engine};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, put_messages, &messages), 0);
    while (atomic_load(&messages.taken) < MESSAGES) {
        atomic_store(&messages.taken, atomic_load(&messages.put));
        if (atomic_load(&messages.taken) == MESSAGES) {
            break;
        }
        if (epoll_fd >= 0) {
            assert_true(readable(epoll_fd, 10000));
        }
        wait_until(engine, epoll_fd >= 0 ? 0 : UINT64_MAX);
    }
    pthread_join(thread, NULL);
}

static void no_wake_is_lost_in_a_wait(void **state)
{
    struct fixture *fixture = *state;

    take_messages(fixture->engine, -1);
}

static int outer_epoll(struct ash_engine *engine)
{
    struct epoll_event event = {.events = EPOLLIN};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

    assert_int_equal(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, engine->ops->fd(engine), &event), 0);
    return epoll_fd;
}

static void no_wake_is_lost_in_the_poll_of_the_host(void **state)
{
    struct fixture *fixture = *state;
    int epoll_fd = outer_epoll(fixture->engine);

    take_messages(fixture->engine, epoll_fd);
    close(epoll_fd);
}

/* Polls. */

/* take .......... prepare: does not sleep
 *       wake                                */
static void wake_just_before_the_sleep_keeps_the_owner_awake(void **state)
{
    struct ash_waker waker;

    (void)state;
    assert_int_equal(ash_waker_init(&waker), 0);
    assert_false(ash_waker_take(&waker));
    ash_waker_wake(&waker);
    assert_false(ash_waker_prepare(&waker));
    assert_true(ash_waker_take(&waker));
    assert_true(ash_waker_prepare(&waker));
    ash_waker_wake(&waker);
    assert_int_equal(read(waker.fd, &(uint64_t){0}, 8), 8);
    ash_waker_awake(&waker);
    ash_waker_destroy(&waker);
}

static void poll_submit(struct ash_engine *engine, struct call *call, int fd, int events)
{
    call->aio = (struct ash_aio){.op = ASH_AIO_POLL, .poll_fd = fd, .mode = events};
    call_submit(engine, call);
}

static int make_eventfd(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    assert_true(fd >= 0);
    return fd;
}

static void signal_eventfd(int fd)
{
    assert_int_equal(write(fd, &(uint64_t){1}, 8), 8);
}

static void poll_completes_when_the_descriptor_is_ready(void **state)
{
    struct fixture *fixture = *state;
    int fd = make_eventfd();
    struct call call;

    poll_submit(fixture->engine, &call, fd, POLLIN);
    settle(fixture->engine);
    assert_int_equal(call.completions, 0);
    assert_int_equal(fixture->engine->in_flight, 0); /* polls do not count */
    signal_eventfd(fd);
    assert_int_equal(call_wait(fixture->engine, &call), POLLIN);
    close(fd);
}

static void poll_is_told_of_hang_up(void **state)
{
    struct fixture *fixture = *state;
    struct call call;
    int pipes[2];

    assert_int_equal(pipe(pipes), 0);
    poll_submit(fixture->engine, &call, pipes[0], POLLIN);
    settle(fixture->engine);
    close(pipes[1]);
    assert_true(call_wait(fixture->engine, &call) & POLLHUP);
    close(pipes[0]);
}

static void polls_of_one_descriptor_are_independent(void **state)
{
    struct fixture *fixture = *state;
    int fd = make_eventfd();
    struct call in[2], out;

    poll_submit(fixture->engine, &in[0], fd, POLLIN);
    poll_submit(fixture->engine, &out, fd, POLLOUT);
    poll_submit(fixture->engine, &in[1], fd, POLLIN);
    assert_int_equal(call_wait(fixture->engine, &out), POLLOUT);
    settle(fixture->engine);
    assert_int_equal(in[0].completions + in[1].completions, 0);
    fixture->engine->ops->cancel_poll(fixture->engine, &in[0].aio);
    assert_int_equal(call_wait(fixture->engine, &in[0]), -ECANCELED);
    signal_eventfd(fd);
    assert_int_equal(call_wait(fixture->engine, &in[1]), POLLIN);
    close(fd);
}

static void regular_file_is_always_ready(void **state)
{
    struct fixture *fixture = *state;
    struct ash_file *file = open_scratch(fixture, 0);
    struct call call;

    poll_submit(fixture->engine, &call, file->fd, POLLIN);
    assert_int_equal(call_wait(fixture->engine, &call), POLLIN);
    close_file(file);
}

static void poll_of_a_bad_descriptor_fails(void **state)
{
    struct fixture *fixture = *state;
    struct call call;

    poll_submit(fixture->engine, &call, 9999, POLLIN);
    assert_int_equal(call_wait(fixture->engine, &call), -EBADF);
}

/* Before it was submitted, while it waits, and as it becomes ready. */
static void cancelled_poll_completes_once(void **state)
{
    struct fixture *fixture = *state;
    struct ash_engine *engine = fixture->engine;

    for (int when = 0; when < 4; when++) {
        int fd = make_eventfd();
        struct call call;
        poll_submit(engine, &call, fd, POLLIN);
        if (when > 0) {
            settle(engine);
        }
        if (when > 1) {
            signal_eventfd(fd);
        }
        engine->ops->cancel_poll(engine, &call.aio);
        if (when > 2) {
            engine->ops->cancel_poll(engine, &call.aio);
        }
        int64_t ret = call_wait(engine, &call);
        assert_true(ret == -ECANCELED || (when > 1 && ret == POLLIN));
        settle(engine);
        assert_int_equal(call.completions, 1);
        close(fd);
    }
}

/* More than the ring holds: armed, half of them fired, the others cancelled. */
static void thousands_of_polls_are_armed_fired_and_cancelled(void **state)
{
    enum { COUNT = 4000 };
    struct fixture *fixture = *state;
    struct ash_engine *engine = fixture->engine;
    struct call *calls = calloc(COUNT, sizeof(*calls));
    int *fds = calloc(COUNT, sizeof(*fds));
    uint32_t left = COUNT;

    for (int i = 0; i < COUNT; i++) {
        fds[i] = make_eventfd();
        poll_submit(engine, &calls[i], fds[i], POLLIN);
    }
    settle(engine);
    for (int i = 0; i < COUNT; i += 2) {
        signal_eventfd(fds[i]);
    }
    for (int i = 1; i < COUNT; i += 2) {
        engine->ops->cancel_poll(engine, &calls[i].aio);
    }
    while (left) {
        left -= (uint32_t)wait_until(engine, UINT64_MAX);
    }
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(calls[i].completions, 1);
        assert_int_equal(calls[i].aio.result, i % 2 ? -ECANCELED : POLLIN);
        close(fds[i]);
    }
    free(calls);
    free(fds);
}

/* The other requests of a busy engine do not starve a descriptor. */
static void poll_completes_while_the_disk_is_busy(void **state)
{
    struct fixture *fixture = *state;
    struct ash_file *file = open_scratch(fixture, 0);
    int fd = make_eventfd();
    struct call poll, read;
    char memory[512];
    struct iovec vec = {memory, sizeof(memory)};

    poll_submit(fixture->engine, &poll, fd, POLLIN);
    settle(fixture->engine);
    signal_eventfd(fd);
    for (int i = 0; i < 1000 && !poll.completions; i++) {
        read.aio = (struct ash_aio){
            .op = ASH_AIO_READ, .file = file, .iov = ash_iov_of(&vec, 1), .bytes = 512};
        call_submit(fixture->engine, &read);
        call_wait(fixture->engine, &read);
    }
    assert_int_equal(poll.completions, 1);
    close(fd);
    close_file(file);
}

/* The descriptor for the host's own loop. */

/* As a host that sleeps only in its own epoll would. */
static void drive(struct ash_engine *engine, int epoll_fd, const struct call *call)
{
    for (int turns = 0; !call->completions; turns++) {
        assert_true(turns < 1000); /* readiness without an end is a busy loop */
        if (wait_until(engine, 0) == 0) {
            assert_true(readable(epoll_fd, 10000));
        }
    }
}

static void descriptor_is_readable_for_completions_of_any_kind(void **state)
{
    struct fixture *fixture = *state;
    struct ash_engine *engine = fixture->engine;
    int epoll_fd = outer_epoll(engine);

    for (uint32_t flags = 0; flags <= ASH_FILE_DIRECT; flags += ASH_FILE_DIRECT) {
        struct ash_file *file = open_scratch(fixture, flags);
        void *memory = aligned_alloc(4096, 4096);
        struct iovec vec = {memset(memory, 1, 4096), 4096};
        static const uint8_t ops[] = {ASH_AIO_WRITE, ASH_AIO_READ, ASH_AIO_FLUSH, ASH_AIO_TRUNCATE};
        for (size_t i = 0; i < 4 * ASH_ARRAY_SIZE(ops); i++) {
            struct call call = {.aio = {.op = ops[i % ASH_ARRAY_SIZE(ops)],
                                        .file = file,
                                        .iov = ash_iov_of(&vec, 1),
                                        .bytes = i < 12 ? 4096 : 0}};
            call_submit(engine, &call);
            drive(engine, epoll_fd, &call);
            assert_true(call.aio.result >= 0);
        }
        free(memory);
        close_file(file);
    }
    close(epoll_fd);
}

static void descriptor_is_readable_for_polls_and_cancels(void **state)
{
    struct fixture *fixture = *state;
    int epoll_fd = outer_epoll(fixture->engine);
    int fd = make_eventfd();
    struct call call;

    poll_submit(fixture->engine, &call, fd, POLLIN);
    settle(fixture->engine);
    assert_false(readable(epoll_fd, 10));
    signal_eventfd(fd);
    drive(fixture->engine, epoll_fd, &call);
    assert_int_equal(read(fd, &(uint64_t){0}, 8), 8);
    poll_submit(fixture->engine, &call, fd, POLLIN);
    settle(fixture->engine);
    fixture->engine->ops->cancel_poll(fixture->engine, &call.aio);
    drive(fixture->engine, epoll_fd, &call);
    close(fd);
    close(epoll_fd);
}

static void descriptor_is_readable_for_a_wake_and_then_no_more(void **state)
{
    struct fixture *fixture = *state;
    int epoll_fd = outer_epoll(fixture->engine);

    settle(fixture->engine);
    assert_false(readable(epoll_fd, 10));
    for (int i = 0; i < 100; i++) {
        fixture->engine->ops->wake(fixture->engine);
        fixture->engine->ops->wake(fixture->engine);
        assert_true(readable(epoll_fd, 10000));
        settle(fixture->engine);
        assert_false(readable(epoll_fd, 0));
    }
    close(epoll_fd);
}

static void wake_before_the_descriptor_is_asked_for_shows(void **state)
{
    struct fixture *fixture = *state;

    settle(fixture->engine);
    fixture->engine->ops->wake(fixture->engine);
    int epoll_fd = outer_epoll(fixture->engine);
    /* For io_uring it shows from the first wait on. */
    assert_true(readable(epoll_fd, 0) || wait_until(fixture->engine, UINT64_MAX) == 0);
    close(epoll_fd);
}

static int spend(void *opaque)
{
    for (uint32_t i = *(uint32_t *)opaque; i; i--) {
        atomic_signal_fence(memory_order_seq_cst);
    }
    return 0;
}

/* Timeline, 20000 times: a worker is done at a moment that drifts over the owner's wait(), which
 * takes the event and must take the completion too. */
static void no_completion_is_lost_in_the_poll_of_the_host(void **state)
{
    struct fixture *fixture = *state;
    int epoll_fd = outer_epoll(fixture->engine);

    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t turns = i * 13 % 3000;
        struct call call = {.aio = {.op = ASH_AIO_WORK, .work = spend, .work_opaque = &turns}};
        call_submit(fixture->engine, &call);
        for (uint32_t waits = i % 61; waits && !call.completions; waits--) {
            wait_until(fixture->engine, 0);
        }
        drive(fixture->engine, epoll_fd, &call);
    }
    close(epoll_fd);
}

/* More requests than the depth, driven by the descriptor alone. */
static void descriptor_drives_more_requests_than_the_depth(void **state)
{
    enum { COUNT = 20 * DEPTH };
    struct fixture *fixture = *state;
    struct ash_engine *engine = fixture->engine;
    struct ash_file *file = open_scratch(fixture, ASH_FILE_DIRECT);
    struct call *calls = calloc(COUNT, sizeof(*calls));
    uint8_t *memory = aligned_alloc(4096, 4096);
    struct iovec vec = {memset(memory, 1, 4096), 4096};
    int epoll_fd = outer_epoll(engine);

    for (uint32_t i = 0; i < COUNT; i++) {
        calls[i].aio = (struct ash_aio){.op = ASH_AIO_WRITE,
                                        .file = file,
                                        .iov = ash_iov_of(&vec, 1),
                                        .bytes = 4096,
                                        .offset = 4096 * i};
        call_submit(engine, &calls[i]);
    }
    wait_until(engine, 0);
    while (engine->in_flight) {
        assert_true(readable(epoll_fd, 10000));
        wait_until(engine, 0);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(calls[i].completions, 1);
    }
    free(calls);
    free(memory);
    close(epoll_fd);
    close_file(file);
}

/* Threads that change. */

static void *use_on_another_thread(void *opaque)
{
    struct fixture *fixture = opaque;

    if (fixture->engine->ops->bind && fixture->engine->ops->bind(fixture->engine) < 0) {
        return NULL;
    }
    struct ash_file *file = open_scratch(fixture, 0);
    char memory[512] = "";
    assert_int_equal(transfer(file, ASH_AIO_WRITE, memory, 512, 0), 512);
    close_file(file);
    return fixture;
}

static void engine_is_made_here_used_there_and_destroyed_here(void **state)
{
    pthread_t thread;
    void *result;

    assert_int_equal(pthread_create(&thread, NULL, use_on_another_thread, *state), 0);
    pthread_join(thread, &result);
    assert_non_null(result);
}

static int descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 1000; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static int nothing(void *opaque)
{
    (void)opaque;
    return 0;
}

static void engine_leaves_no_descriptor_behind(void **state)
{
    int before = descriptors();

    (void)state;
    for (int i = 0; i < 20; i++) {
        struct ash_engine *engine = make_engine(i % 2 ? UINT64_MAX : 0);
        if (i % 3) {
            run(engine, (struct ash_aio){.op = ASH_AIO_WORK, .work = nothing});
        }
        engine->ops->destroy(engine);
    }
    assert_int_equal(descriptors(), before);
}

static void engine_that_cannot_be_made_says_why(void **state)
{
    struct ash_engine_config config = {.depth = 4, .workers = 1};
    struct ash_error error = ASH_ERROR_INIT;
    struct rlimit before, none;
    struct ash_engine *engine = NULL;
    const char *name = getenv("ASHLAR_ENGINE");

    (void)state;
    getrlimit(RLIMIT_NOFILE, &before);
    none = (struct rlimit){0, before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
    int ret = ash_engine_new(NULL, &config, &engine, &error);
    setrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(ret, -EMFILE);
    assert_non_null(strstr(error.message, name ? name : "No engine"));
    assert_non_null(strstr(error.message, "Too many open files"));
}

static void spinning_reads_as_sleeping_does(void **state)
{
    struct fixture *fixture = *state;
    static const uint64_t bounds_ns[] = {0, 1000, 50 * MS, UINT64_MAX};

    for (size_t i = 0; i < ASH_ARRAY_SIZE(bounds_ns); i++) {
        struct ash_engine *engine = make_engine(bounds_ns[i]);
        struct ash_file *file =
            open_at(engine, fixture->path, ASH_FILE_WRITE | ASH_FILE_CREATE | ASH_FILE_DIRECT);
        uint8_t *memory = aligned_alloc(4096, 4096);
        memset(memory, 3, 4096);
        assert_int_equal(transfer(file, ASH_AIO_WRITE, memory, 4096, 0), 4096);
        for (int round = 0; round < 100; round++) {
            memory[0] = 0;
            assert_int_equal(transfer(file, ASH_AIO_READ, memory, 4096, 0), 4096);
            assert_int_equal(memory[0], 3);
        }
        free(memory);
        close_file(file);
        engine->ops->destroy(engine);
    }
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(wait_without_deadline_time_returns_at_once),
        T(wait_sleeps_until_its_deadline),
        T(sleeping_takes_no_processor_time),
        T(wake_ends_a_sleep),
        T(wake_before_the_wait_is_remembered),
        cmocka_unit_test(wake_just_before_the_sleep_keeps_the_owner_awake),
        T(no_wake_is_lost_in_a_wait),
        T(no_wake_is_lost_in_the_poll_of_the_host),
        T(poll_completes_when_the_descriptor_is_ready),
        T(poll_is_told_of_hang_up),
        T(polls_of_one_descriptor_are_independent),
        T(regular_file_is_always_ready),
        T(poll_of_a_bad_descriptor_fails),
        T(cancelled_poll_completes_once),
        T(thousands_of_polls_are_armed_fired_and_cancelled),
        T(poll_completes_while_the_disk_is_busy),
        T(descriptor_is_readable_for_completions_of_any_kind),
        T(descriptor_is_readable_for_polls_and_cancels),
        T(descriptor_is_readable_for_a_wake_and_then_no_more),
        T(wake_before_the_descriptor_is_asked_for_shows),
        T(no_completion_is_lost_in_the_poll_of_the_host),
        T(descriptor_drives_more_requests_than_the_depth),
        T(engine_is_made_here_used_there_and_destroyed_here),
        T(engine_leaves_no_descriptor_behind),
        T(engine_that_cannot_be_made_says_why),
        T(spinning_reads_as_sleeping_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
