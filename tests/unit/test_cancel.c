/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Entry points and thread cancellation: a thread that was cancelled gets through each of them, and
 * ends only where the host lets it. If one of them were a cancellation point, the thread would end
 * inside of the library, with whatever it held at the time. */
#include "tests/unit/unit.h"
#include <ashlar/ashlar.h>
#include <pthread.h>
#include "tests/unit/temp_dir.h"

static const char *reached; /* by the thread, after which call */
static unsigned posts;

static void count_post(void *opaque)
{
    (void)opaque;
    posts++;
}

static void opened(void *opaque, int ret, struct ash_disk *disk, const struct ash_error *error)
{
    (void)error;
    *(struct ash_disk **)opaque = ret == 0 ? disk : NULL;
}

#define CALL(expression)                                                                           \
    do {                                                                                           \
        if (!(expression)) {                                                                       \
            return (void *)#expression;                                                            \
        }                                                                                          \
        reached = #expression;                                                                     \
    } while (0)

static void *cancelled(void *opaque)
{
    static char memory[65536] __attribute__((aligned(4096)));
    struct ash_loop *loop;
    struct ash_disk *disk = NULL;
    struct ash_disk *second = NULL;
    struct ash_queue *queue;
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    struct iovec vec = {memory, 4096};
    struct ash_req write = {.op = ASH_WRITE, .bytes = 4096, .iov = &vec, .iov_count = 1};
    struct ash_cqe cqe;
    uint32_t id;
    const char *path = opaque;
    options.flags = ASH_DISK_WRITE;
    options.format = "raw";
    pthread_cancel(pthread_self()); /* pending from now on */
    CALL(ash_loop_new(NULL, &loop, NULL) == 0);
    CALL(ash_loop_bind(loop) == 0);
    CALL(ash_loop_fd(loop) >= 0);
    CALL(ash_loop_post(loop, count_post, NULL) == 0);
    CALL(ash_loop_run_once(loop, 0, 0) >= 0);
    CALL(ash_memory_add(loop, memory, sizeof(memory), 0, &id) == 0);
    CALL(ash_disk_open_sync(loop, path, &options, &disk, NULL) == 0);
    options.flags = ASH_DISK_FORCE_SHARE;
    CALL(ash_disk_open(loop, path, &options, opened, &second) == 0);
    while (second == NULL) {
        CALL(ash_loop_run_once(loop, -1, 0) >= 0);
    }
    CALL(ash_queue_new(disk, 4, &queue, NULL) == 0);
    CALL(ash_queue_eventfd(queue) >= 0);
    CALL(ash_queue_submit(queue, &write, 1) == 1);
    CALL(ash_loop_run_once(loop, 0, 0) >= 0);
    ash_queue_notify(queue, false);
    while (ash_queue_reap(queue, &cqe, 1) == 0) {
        CALL(ash_loop_run_once(loop, -1, 0) >= 0);
    }
    CALL(ash_queue_submit(queue, &write, 1) == 1);
    while (ash_queue_in_flight(queue) == 1 && ash_queue_reap(queue, &cqe, 1) == 0) {
        CALL(ash_loop_run_once(loop, -1, 0) >= 0);
        ash_queue_notify(queue, true);
        reached = "ash_queue_notify";
    }
    CALL(ash_disk_resize_sync(disk, 1 << 20, 0, NULL) == 0);
    ash_queue_free(queue);
    reached = "ash_queue_free";
    CALL(ash_memory_remove(loop, id) == 0);
    CALL(ash_disk_close_sync(second, NULL) == 0);
    CALL(ash_disk_close_sync(disk, NULL) == 0);
    CALL(ash_disk_open_sync(loop, "/no/such/file", NULL, &disk, NULL) < 0);
    ash_loop_free(loop);
    reached = "ash_loop_free";
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    return NULL;
}

static void a_cancelled_thread_gets_through_every_entry_point(void **state)
{
    pthread_t thread;
    void *result;
    (void)state;
    reached = "nothing";
    assert_int_equal(temp_dir_make("."), 0);
    const char *path = temp_file("disk", 65536, 1);
    assert_int_equal(pthread_create(&thread, NULL, cancelled, (void *)path), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    temp_dir_remove();
    if (result == PTHREAD_CANCELED) {
        fail_msg("ended inside the call after %s", reached);
    }
    if (result != NULL) {
        fail_msg("failed: %s", (const char *)result);
    }
    assert_int_equal(posts, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cancelled_thread_gets_through_every_entry_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
