/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Queues of the public API where they are used hard: inside callbacks, many at once, without
 * coroutines to be had, with vectors beyond what the kernel takes, and beside other threads. */
#include "tests/unit/unit.h"
#include <ashlar/ashlar.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include "tests/unit/temp_dir.h"
#include "util/loop/loop.h"

static int set_up(void **state)
{
    struct ash_loop *loop;
    if (ash_loop_new(NULL, &loop, NULL) < 0 || ash_loop_bind(loop) < 0) {
        return -1;
    }
    *state = loop;
    return 0;
}

static int tear_down(void **state)
{
    ash_loop_free(*state);
    return 0;
}

static struct ash_disk *open_disk(struct ash_loop *loop, const char *description,
                                  const char *format, const char *cache)
{
    struct ash_disk *disk = NULL;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    options.flags = ASH_DISK_WRITE;
    options.format = format;
    options.cache = cache;
    int ret = ash_disk_open_sync(loop, description, &options, &disk, &error);
    if (ret < 0) {
        print_message("%s\n", error.message);
    }
    assert_int_equal(ret, 0);
    return disk;
}

#define SLOW_NULL "json:{\"driver\": \"null-aio\", \"latency-ns\": 20000}"

static struct ash_queue *new_queue(struct ash_disk *disk, uint32_t depth)
{
    struct ash_queue *queue = NULL;
    assert_int_equal(ash_queue_new(disk, depth, &queue, NULL), 0);
    return queue;
}

static void run_until(struct ash_loop *loop, const unsigned *count, unsigned wanted)
{
    while (*count < wanted) {
        assert_true(ash_loop_run_once(loop, -1, 0) >= 0);
    }
    assert_int_equal(*count, wanted);
}

/* Callbacks. */

struct chain {
    struct ash_queue *queue;
    unsigned done;
    unsigned left; /* to be submitted from the callback */
    bool inside;
    int result;
};

static void submit_more(void *opaque, const struct ash_cqe *cqe, uint32_t count)
{
    struct chain *chain = opaque;
    assert_false(chain->inside);
    chain->inside = true;
    for (uint32_t i = 0; i < count; i++) {
        chain->done++;
        chain->result = cqe[i].result;
        struct ash_req req = {.op = ASH_FLUSH};
        if (chain->left > 0) {
            chain->left--;
            assert_int_equal(ash_queue_submit(chain->queue, &req, 1), 1);
        }
    }
    chain->inside = false;
}

static void a_callback_may_submit_to_its_own_full_queue(void **state)
{
    for (uint32_t depth = 1; depth <= 64; depth *= 4) {
        struct ash_disk *disk = open_disk(*state, "null-co://", "null-co", NULL);
        struct chain chain = {.queue = new_queue(disk, depth), .left = 1000};
        struct ash_req reqs[64];
        for (uint32_t i = 0; i < depth; i++) {
            reqs[i] = (struct ash_req){.op = ASH_FLUSH};
        }
        ash_queue_on_complete(chain.queue, submit_more, &chain);
        assert_int_equal(ash_queue_submit(chain.queue, reqs, depth), depth);
        run_until(*state, &chain.done, 1000 + depth);
        assert_int_equal(ash_queue_in_flight(chain.queue), 0);
        ash_queue_free(chain.queue);
        assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
    }
}

struct pair {
    struct ash_queue *other;
    unsigned done;
};

static void free_the_other(void *opaque, const struct ash_cqe *cqe, uint32_t count)
{
    struct pair *pair = opaque;
    (void)cqe;
    pair->done += count;
    if (pair->other != NULL && ash_queue_in_flight(pair->other) > 0) {
        /* Its requests completed in this very turn, and have not been told yet. */
        ash_queue_free(pair->other);
        pair->other = NULL;
    }
}

static void a_callback_may_free_another_queue_that_is_due(void **state)
{
    struct ash_disk *disk = open_disk(*state, "null-co://", "null-co", NULL);
    struct ash_queue *first = new_queue(disk, 4);
    struct ash_queue *second = new_queue(disk, 4);
    struct pair pair = {.other = second};
    struct pair never = {.other = NULL};
    struct ash_req req = {.op = ASH_FLUSH};
    ash_queue_on_complete(first, free_the_other, &pair);
    ash_queue_on_complete(second, free_the_other, &never);
    assert_int_equal(ash_queue_submit(first, &req, 1), 1);
    assert_int_equal(ash_queue_submit(second, &req, 1), 1);
    run_until(*state, &pair.done, 1);
    assert_null(pair.other);
    assert_int_equal(never.done, 0);
    ash_queue_free(first);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

static void stop_calling(void *opaque, const struct ash_cqe *cqe, uint32_t count)
{
    struct chain *chain = opaque;
    (void)cqe;
    chain->done += count;
    ash_queue_on_complete(chain->queue, NULL, NULL);
}

static void who_takes_the_callback_back_reaps_the_rest(void **state)
{
    struct ash_disk *disk = open_disk(*state, "null-co://", "null-co", NULL);
    struct chain chain = {.queue = new_queue(disk, 100)};
    struct ash_req reqs[100];
    struct ash_cqe cqes[100];
    for (unsigned i = 0; i < 100; i++) {
        reqs[i] = (struct ash_req){.op = ASH_FLUSH, .user_data = i};
    }
    ash_queue_on_complete(chain.queue, stop_calling, &chain);
    assert_int_equal(ash_queue_submit(chain.queue, reqs, 100), 100);
    while (chain.done == 0) {
        assert_true(ash_loop_run_once(*state, -1, 0) >= 0);
    }
    for (int i = 0; i < 5; i++) {
        assert_true(ash_loop_run_once(*state, 0, 0) >= 0);
    }
    int reaped = ash_queue_reap(chain.queue, cqes, 100);
    assert_int_equal((unsigned)reaped + chain.done, 100);
    assert_int_equal(cqes[reaped - 1].user_data, 99);
    ash_queue_free(chain.queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

/* Many queues over one file, each with its own part. */

#define QUEUES 40
#define PART 16384

struct part {
    struct ash_queue *queue;
    uint8_t data[PART];
    struct iovec vec;
};

static unsigned reap_all(struct part *parts)
{
    unsigned reaped = 0;
    struct ash_cqe cqe;
    for (unsigned i = 0; i < QUEUES; i++) {
        while (ash_queue_reap(parts[i].queue, &cqe, 1) == 1) {
            assert_int_equal(cqe.result, 0);
            assert_int_equal(cqe.user_data, i);
            reaped++;
        }
    }
    return reaped;
}

static void many_queues_share_a_disk(void **state)
{
    const char *path = temp_file("many", QUEUES * PART, -1);
    struct ash_disk *disk = open_disk(*state, path, "raw", NULL);
    struct part *parts = calloc(QUEUES, sizeof(*parts));
    assert_non_null(parts);
    for (unsigned i = 0; i < QUEUES; i++) {
        parts[i].queue = new_queue(disk, 8);
        memset(parts[i].data, (int)i + 1, PART);
    }
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 0; i < QUEUES; i++) {
            parts[i].vec = (struct iovec){parts[i].data, PART};
            struct ash_req req = {.op = round == 0 ? ASH_WRITE : ASH_READ,
                                  .offset = i * PART,
                                  .bytes = PART,
                                  .iov = &parts[i].vec,
                                  .iov_count = 1,
                                  .user_data = i};
            assert_int_equal(ash_queue_submit(parts[i].queue, &req, 1), 1);
        }
        for (unsigned done = 0; done < QUEUES; done += reap_all(parts)) {
            assert_true(ash_loop_run_once(*state, -1, 0) >= 0);
        }
        for (unsigned i = 0; i < QUEUES; i++) {
            assert_int_equal(parts[i].data[0], i + 1);
            assert_int_equal(parts[i].data[PART - 1], i + 1);
            memset(parts[i].data, round == 0 ? 0 : (int)i + 1, PART);
        }
    }
    for (unsigned i = 0; i < QUEUES; i++) {
        ash_queue_free(parts[i].queue);
    }
    free(parts);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

/* Without coroutines. */

static unsigned complete_all(struct ash_loop *loop, struct ash_queue *queue, unsigned count,
                             int result)
{
    struct ash_cqe cqe;
    unsigned matching = 0;
    for (unsigned done = 0; done < count;) {
        assert_true(ash_loop_run_once(loop, -1, 0) >= 0);
        while (ash_queue_reap(queue, &cqe, 1) == 1) {
            matching += cqe.result == result;
            done++;
        }
    }
    return matching;
}

static void few_coroutines_serve_many_requests(void **state)
{
    struct ash_loop *loop = *state;
    struct ash_disk *disk = open_disk(loop, SLOW_NULL, NULL, NULL);
    struct ash_queue *queue = new_queue(disk, 200);
    struct ash_req reqs[200];
    uint32_t usual = loop->sched.config.count_max;
    for (unsigned i = 0; i < 200; i++) {
        reqs[i] = (struct ash_req){.op = ASH_FLUSH};
    }
    loop->sched.config.count_max = 3;
    assert_int_equal(ash_queue_submit(queue, reqs, 200), 200);
    assert_int_equal(complete_all(loop, queue, 200, 0), 200);
    ash_queue_free(queue);
    queue = new_queue(disk, 200);
    while (loop->sched.count > 0) {
        assert_true(ash_loop_run_once(loop, 0, 0) >= 0);
    }
    loop->sched.config.count_max = 0; /* not one: they fail, and say so */
    assert_int_equal(ash_queue_submit(queue, reqs, 50), 50);
    assert_int_equal(complete_all(loop, queue, 50, -ENOMEM), 50);
    loop->sched.config.count_max = usual;
    assert_int_equal(ash_queue_submit(queue, reqs, 50), 50);
    assert_int_equal(complete_all(loop, queue, 50, 0), 50);
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

/* Requests are in flight until they are reaped: the ring has no room for more completions. */
static void requests_that_are_not_reaped_count(void **state)
{
    struct ash_loop *loop = *state;
    struct ash_disk *disk = open_disk(loop, "null-co://", "null-co", NULL);
    struct ash_queue *queue = new_queue(disk, 4);
    struct ash_req reqs[4] = {
        {.op = ASH_FLUSH}, {.op = ASH_FLUSH}, {.op = ASH_FLUSH}, {.op = ASH_FLUSH}};
    struct ash_cqe cqes[4];
    assert_int_equal(ash_queue_submit(queue, reqs, 4), 4);
    assert_int_equal(ash_queue_submit(queue, reqs, 1), 0);
    for (int i = 0; i < 10; i++) {
        assert_true(ash_loop_run_once(loop, 0, 0) >= 0);
    }
    assert_int_equal(ash_queue_in_flight(queue), 4);
    assert_int_equal(ash_queue_submit(queue, reqs, 1), 0);
    assert_int_equal(ash_queue_reap(queue, cqes, 3), 3);
    assert_int_equal(ash_queue_submit(queue, reqs, 4), 3);
    assert_int_equal(complete_all(loop, queue, 4, 0), 4);
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

/* Vectors. */

static void vectors_of_thousands_reach_a_direct_file(void **state)
{
    enum { PIECES = 3000, PIECE = 512, SMALL = 100 };
    const char *path = temp_file("direct", PIECES * PIECE + 8192, -1);
    struct ash_disk *disk = open_disk(*state, path, "raw", "none");
    struct ash_queue *queue = new_queue(disk, 4);
    struct iovec *vec = calloc(PIECES, sizeof(*vec));
    uint8_t *out = aligned_alloc(4096, PIECES * PIECE);
    uint8_t *back = aligned_alloc(4096, PIECES * PIECE);
    assert_true(vec != NULL && out != NULL && back != NULL);
    for (size_t i = 0; i < PIECES * PIECE; i++) {
        out[i] = (uint8_t)(i * 7 + i / 509);
    }
    static const struct {
        size_t piece;
        uint64_t offset;
    } shapes[] = {{PIECE, 0}, {PIECE, 4096}, {SMALL, 1}, {SMALL, 8000}};
    for (size_t shape = 0; shape < 4; shape++) {
        for (int writes = 1; writes >= 0; writes--) {
            size_t piece = shapes[shape].piece;
            for (unsigned i = 0; i < PIECES; i++) { /* in memory from the end to the beginning */
                uint8_t *base = writes ? out : back;
                vec[i] = (struct iovec){base + (PIECES - 1 - i) * piece, piece};
            }
            struct ash_req req = {.op = writes ? ASH_WRITE : ASH_READ,
                                  .offset = shapes[shape].offset,
                                  .bytes = PIECES * piece,
                                  .iov = vec,
                                  .iov_count = PIECES};
            assert_int_equal(ash_queue_submit(queue, &req, 1), 1);
            memset(vec, 0, PIECES * sizeof(*vec)); /* the vector was copied */
            assert_int_equal(complete_all(*state, queue, 1, 0), 1);
        }
        assert_memory_equal(out, back, PIECES * shapes[shape].piece);
        memset(back, 0, PIECES * PIECE);
    }
    free(vec);
    free(out);
    free(back);
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

static void empty_requests_and_vectors_do_no_harm(void **state)
{
    const char *path = temp_file("empty", 8192, 3);
    struct ash_disk *disk = open_disk(*state, path, "raw", NULL);
    struct ash_queue *queue = new_queue(disk, 8);
    uint8_t byte = 0;
    struct iovec vec[3] = {{NULL, 0}, {&byte, 1}, {NULL, 0}};
    struct ash_req reqs[5] = {
        {.op = ASH_READ},
        {.op = ASH_WRITE, .offset = 8192},
        {.op = ASH_READ, .offset = 77, .bytes = 1, .iov = vec, .iov_count = 3},
        {.op = ASH_ZERO, .offset = 5},
        {.op = ASH_DISCARD, .offset = 5},
    };
    assert_int_equal(ash_queue_submit(queue, reqs, 5), 5);
    assert_int_equal(complete_all(*state, queue, 5, 0), 5);
    assert_int_equal(byte, 3);
    struct ash_req wrong[3] = {
        {.op = ASH_READ, .bytes = 2, .iov = vec, .iov_count = 3}, /* longer than its vector */
        {.op = ASH_FLUSH, .flags = 1u << 16},                     /* a flag of the inside */
        {.op = 200},
    };
    assert_int_equal(ash_queue_submit(queue, wrong, 3), 3);
    assert_int_equal(complete_all(*state, queue, 3, -EINVAL), 3);
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

/* Switched on again with completions waiting, the descriptor is raised at once. */
static void no_completion_is_missed_when_notifications_come_back(void **state)
{
    struct ash_disk *disk = open_disk(*state, "null-co://", "null-co", NULL);
    struct ash_queue *queue = new_queue(disk, 8);
    struct pollfd poll_fd = {.fd = ash_queue_eventfd(queue), .events = POLLIN};
    struct ash_req req = {.op = ASH_FLUSH};
    struct ash_cqe cqe;
    eventfd_t value;
    ash_queue_notify(queue, false);
    assert_int_equal(ash_queue_submit(queue, &req, 1), 1);
    for (int i = 0; i < 5; i++) {
        assert_true(ash_loop_run_once(*state, 0, 0) >= 0);
    }
    assert_int_equal(poll(&poll_fd, 1, 0), 0);
    ash_queue_notify(queue, true);
    assert_int_equal(poll(&poll_fd, 1, 0), 1);
    assert_int_equal(eventfd_read(poll_fd.fd, &value), 0);
    assert_int_equal(ash_queue_reap(queue, &cqe, 1), 1);
    ash_queue_notify(queue, false);
    ash_queue_notify(queue, true);
    assert_int_equal(poll(&poll_fd, 1, 0), 0);
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

/* A loop with a thread of its own, and others that make control calls. */

struct caller {
    pthread_t thread;
    struct ash_loop *loop;
    char path[128];
    struct ash_disk *shared;
};

static void *call_often(void *opaque)
{
    struct caller *caller = opaque;
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    options.flags = ASH_DISK_WRITE;
    options.format = "raw";
    for (unsigned i = 1; i <= 15; i++) {
        struct ash_disk *disk;
        struct ash_disk_info info = {.size = sizeof(info)};
        struct ash_disk_stats stats = {.size = sizeof(stats)};
        struct ash_error error = ASH_ERROR_INIT;
        assert_int_equal(ash_disk_open_sync(caller->loop, caller->path, &options, &disk, &error),
                         0);
        assert_int_equal(ash_disk_resize_sync(disk, i * 4096, ASH_RESIZE_SHRINK, &error), 0);
        assert_int_equal(ash_disk_info(disk, &info), 0);
        assert_int_equal(info.bytes, i * 4096);
        assert_int_equal(ash_disk_info(caller->shared, &info), 0);
        assert_int_equal(ash_disk_stats(caller->shared, &stats), 0);
        assert_int_equal(ash_disk_close_sync(disk, &error), 0);
        assert_int_equal(
            ash_disk_open_sync(caller->loop, "/nowhere/at/all", &options, &disk, &error), -ENOENT);
    }
    return NULL;
}

struct owner {
    struct ash_disk *disk;
    struct chain chain;
    int done_fd;
};

static void owner_done(void *opaque, const struct ash_cqe *cqe, uint32_t count)
{
    struct owner *owner = opaque;
    submit_more(&owner->chain, cqe, count);
    if (ash_queue_in_flight(owner->chain.queue) == 0) {
        eventfd_write(owner->done_fd, 1);
    }
}

static void owner_start(void *opaque)
{
    struct owner *owner = opaque;
    struct ash_req reqs[8];
    owner->chain = (struct chain){.queue = new_queue(owner->disk, 8), .left = 20000};
    for (int i = 0; i < 8; i++) {
        reqs[i] = (struct ash_req){.op = ASH_FLUSH};
    }
    ash_queue_on_complete(owner->chain.queue, owner_done, owner);
    assert_int_equal(ash_queue_submit(owner->chain.queue, reqs, 8), 8);
}

static void owner_end(void *opaque)
{
    struct owner *owner = opaque;
    ash_queue_free(owner->chain.queue);
    eventfd_write(owner->done_fd, 1);
}

static void threads_make_control_calls_while_the_loop_works(void **state)
{
    enum { CALLERS = 4 };
    struct ash_loop_config config = ASH_LOOP_CONFIG_INIT;
    struct ash_loop *loop;
    struct caller callers[CALLERS];
    struct owner owner = {.done_fd = eventfd(0, 0)};
    eventfd_t value;
    (void)state;
    config.flags = ASH_LOOP_OWN_THREAD;
    assert_int_equal(ash_loop_new(&config, &loop, NULL), 0);
    owner.disk = open_disk(loop, "null-co://", "null-co", NULL);
    assert_int_equal(ash_loop_post(loop, owner_start, &owner), 0);
    for (int i = 0; i < CALLERS; i++) {
        char name[16];
        snprintf(name, sizeof(name), "thread%d", i);
        callers[i] = (struct caller){.loop = loop, .shared = owner.disk};
        snprintf(callers[i].path, sizeof(callers[i].path), "%s", temp_file(name, 4096, 0));
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_often, &callers[i]), 0);
    }
    for (int i = 0; i < CALLERS; i++) {
        assert_int_equal(pthread_join(callers[i].thread, NULL), 0);
    }
    assert_int_equal(eventfd_read(owner.done_fd, &value), 0);
    assert_int_equal(ash_loop_post(loop, owner_end, &owner), 0);
    assert_int_equal(eventfd_read(owner.done_fd, &value), 0);
    assert_int_equal(owner.chain.done, 20008);
    struct ash_disk_stats stats = {.size = sizeof(stats)};
    assert_int_equal(ash_disk_stats(owner.disk, &stats), 0);
    assert_int_equal(stats.op[ASH_FLUSH].count, 20008);
    assert_int_equal(ash_disk_close_sync(owner.disk, NULL), 0);
    ash_loop_free(loop);
    close(owner.done_fd);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_callback_may_submit_to_its_own_full_queue),
        TEST(a_callback_may_free_another_queue_that_is_due),
        TEST(who_takes_the_callback_back_reaps_the_rest),
        TEST(many_queues_share_a_disk),
        TEST(few_coroutines_serve_many_requests),
        TEST(requests_that_are_not_reaped_count),
        TEST(vectors_of_thousands_reach_a_direct_file),
        TEST(empty_requests_and_vectors_do_no_harm),
        TEST(no_completion_is_missed_when_notifications_come_back),
        cmocka_unit_test(threads_make_control_calls_while_the_loop_works),
    };
    return cmocka_run_group_tests(tests, temp_dir_set_up, temp_dir_tear_down);
}
