/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The public API over the smallest graphs: opening, queues, completions, information. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <ashlar/ashlar.h>
#include "util/co/co.h"

static char directory[64];

static int set_up_group(void **state)
{
    (void)state;
    snprintf(directory, sizeof(directory), "%s", "/tmp/ashlar-disk-XXXXXX");
    return mkdtemp(directory) == NULL ? -1 : 0;
}

static int tear_down_group(void **state)
{
    (void)state;
    char path[96];
    snprintf(path, sizeof(path), "%s/raw", directory);
    unlink(path);
    return rmdir(directory);
}

static int set_up(void **state)
{
    struct ash_loop *loop;
    struct ash_error error = ASH_ERROR_INIT;
    if (ash_loop_new(NULL, &loop, &error) < 0) {
        print_message("%s\n", error.message);
        return -1;
    }
    if (ash_loop_bind(loop) < 0) {
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

static struct ash_disk *open_disk(struct ash_loop *loop, const char *description, uint32_t flags,
                                  const char *format)
{
    struct ash_disk *disk = NULL;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    options.flags = flags;
    options.format = format;
    int ret = ash_disk_open_sync(loop, description, &options, &disk, &error);
    if (ret < 0) {
        print_message("open: %s\n", error.message);
    }
    assert_int_equal(ret, 0);
    return disk;
}

static const char *raw_file(off_t bytes)
{
    static char path[96];
    snprintf(path, sizeof(path), "%s/raw", directory);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(ftruncate(fileno(file), bytes), 0);
    fclose(file);
    return path;
}

/* Submits one request and runs the loop until it completed. */
static struct ash_cqe one(struct ash_loop *loop, struct ash_queue *queue, struct ash_req req)
{
    struct ash_cqe cqe;
    assert_int_equal(ash_queue_submit(queue, &req, 1), 1);
    assert_int_equal(ash_queue_reap(queue, &cqe, 1), 0); /* never inside the submission */
    while (ash_queue_reap(queue, &cqe, 1) == 0) {
        assert_true(ash_loop_run_once(loop, -1, 0) >= 0);
    }
    return cqe;
}

static void a_null_disk_completes_what_is_submitted(void **state)
{
    struct ash_disk *disk = open_disk(*state, "null-co://", ASH_DISK_WRITE, "null-co");
    struct ash_queue *queue;
    assert_int_equal(ash_queue_new(disk, 8, &queue, NULL), 0);
    char buffer[4096];
    struct iovec vec = {buffer, sizeof(buffer)};
    struct ash_req req = {.op = ASH_WRITE,
                          .offset = 8192,
                          .bytes = 4096,
                          .iov = &vec,
                          .iov_count = 1,
                          .user_data = 42};
    struct ash_cqe cqe = one(*state, queue, req);
    assert_int_equal(cqe.result, 0);
    assert_int_equal(cqe.user_data, 42);
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

static void a_full_queue_takes_no_more(void **state)
{
    struct ash_disk *disk = open_disk(*state, "null-co://", ASH_DISK_WRITE, "null-co");
    struct ash_queue *queue;
    assert_int_equal(ash_queue_new(disk, 4, &queue, NULL), 0);
    struct ash_req reqs[8];
    for (unsigned i = 0; i < 8; i++) {
        reqs[i] = (struct ash_req){.op = ASH_FLUSH, .user_data = i};
    }
    assert_int_equal(ash_queue_submit(queue, reqs, 8), 4);
    assert_int_equal(ash_queue_submit(queue, reqs + 4, 4), 0);
    assert_int_equal(ash_queue_in_flight(queue), 4);
    struct ash_cqe cqe[8];
    while (ash_loop_run_once(*state, 0, 0) > 0) {
    }
    assert_int_equal(ash_queue_reap(queue, cqe, 8), 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(cqe[i].user_data, i);
    }
    assert_int_equal(ash_queue_submit(queue, reqs + 4, 4), 4);
    while (ash_loop_run_once(*state, 0, 0) > 0) {
    }
    assert_int_equal(ash_queue_reap(queue, cqe, 8), 4);
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

static void what_is_written_is_read_back(void **state)
{
    struct ash_disk *disk = open_disk(*state, raw_file(1 << 20), ASH_DISK_WRITE, "raw");
    struct ash_queue *queue;
    assert_int_equal(ash_queue_new(disk, 8, &queue, NULL), 0);
    char out[5000];
    char in[5000] = {0};
    for (size_t i = 0; i < sizeof(out); i++) {
        out[i] = (char)(i * 7);
    }
    struct iovec pieces[7];
    for (int i = 0; i < 7; i++) {
        pieces[i] = (struct iovec){out + i * 700, 700};
    }
    struct iovec back = {in, sizeof(in)};
    struct ash_req write = {.op = ASH_WRITE,
                            .flags = ASH_REQ_FUA,
                            .offset = 333,
                            .bytes = 4900,
                            .iov = pieces,
                            .iov_count = 7};
    struct ash_req read = {
        .op = ASH_READ, .offset = 333, .bytes = 4900, .iov = &back, .iov_count = 1};
    assert_int_equal(one(*state, queue, write).result, 0);
    assert_int_equal(one(*state, queue, read).result, 0);
    assert_memory_equal(in, out, 4900);
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

static void wrong_requests_complete_with_their_error(void **state)
{
    struct ash_disk *disk = open_disk(*state, raw_file(65536), 0, "raw");
    struct ash_queue *queue;
    assert_int_equal(ash_queue_new(disk, 8, &queue, NULL), 0);
    char buffer[4096];
    struct iovec vec = {buffer, sizeof(buffer)};
    const struct {
        struct ash_req req;
        int result;
    } cases[] = {
        {{.op = ASH_WRITE, .bytes = 512, .iov = &vec, .iov_count = 1}, -EPERM},
        {{.op = ASH_ZERO, .bytes = 512}, -EPERM},
        {{.op = ASH_DISCARD, .bytes = 512}, -EPERM},
        {{.op = 99}, -EINVAL},
        {{.op = ASH_READ, .flags = 1u << 31, .bytes = 512, .iov = &vec, .iov_count = 1}, -EINVAL},
        {{.op = ASH_READ, .bytes = 8192, .iov = &vec, .iov_count = 1}, -EINVAL},
        {{.op = ASH_READ, .offset = 65536, .bytes = 512, .iov = &vec, .iov_count = 1}, -EIO},
        {{.op = ASH_READ, .offset = 65024, .bytes = 1024, .iov = &vec, .iov_count = 1}, -EIO},
        {{.op = ASH_READ, .offset = UINT64_MAX - 10, .bytes = 512, .iov = &vec, .iov_count = 1},
         -EIO},
        {{.op = ASH_READ, .offset = INT64_MAX, .bytes = 512, .iov = &vec, .iov_count = 1}, -EIO},
        {{.op = ASH_FLUSH, .reserved0 = 1}, -EINVAL},
        {{.op = ASH_FLUSH, .reserved1 = 1}, -EINVAL},
        {{.op = ASH_FLUSH, .reserved2 = 1}, -EINVAL},
        {{.op = ASH_READ, .offset = 512, .bytes = 0, .iov = NULL, .iov_count = 0}, 0},
        {{.op = ASH_READ, .offset = 65536, .bytes = 0, .iov = NULL, .iov_count = 0}, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(one(*state, queue, cases[i].req).result, cases[i].result);
    }
    struct ash_disk_stats stats = {.size = sizeof(stats)};
    assert_int_equal(ash_disk_stats(disk, &stats), 0);
    assert_int_equal(stats.op[ASH_READ].count, 8); /* those wrong in themselves too */
    assert_int_equal(stats.op[ASH_READ].errors, 6);
    assert_int_equal(stats.op[ASH_FLUSH].errors, 3);
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

struct seen {
    unsigned count[64];
    unsigned total;
    bool on_coroutine;
};

static void count_completions(void *opaque, const struct ash_cqe *cqe, uint32_t count)
{
    struct seen *seen = opaque;
    seen->on_coroutine |= ash_co_self() != NULL;
    for (uint32_t i = 0; i < count; i++) {
        seen->count[cqe[i].user_data]++;
        seen->total++;
    }
}

static void each_request_completes_once_on_the_plain_stack(void **state)
{
    struct ash_disk *disk = open_disk(*state, raw_file(1 << 20), ASH_DISK_WRITE, "raw");
    struct ash_queue *queue;
    struct seen seen = {0};
    assert_int_equal(ash_queue_new(disk, 64, &queue, NULL), 0);
    ash_queue_on_complete(queue, count_completions, &seen);
    static char buffer[64][4096];
    struct iovec vec[64];
    for (unsigned i = 0; i < 64; i++) {
        vec[i] = (struct iovec){buffer[i], 4096};
        struct ash_req req = {.op = i % 3 == 0 ? ASH_WRITE : ASH_READ,
                              .offset = i * 4096u,
                              .bytes = 4096,
                              .iov = &vec[i],
                              .iov_count = 1,
                              .user_data = i};
        assert_int_equal(ash_queue_submit(queue, &req, 1), 1);
        assert_int_equal(seen.total, 0);
    }
    while (seen.total < 64) {
        assert_true(ash_loop_run_once(*state, -1, 0) >= 0);
    }
    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(seen.count[i], 1);
    }
    assert_false(seen.on_coroutine);
    struct ash_disk_stats stats = {.size = sizeof(stats)};
    assert_int_equal(ash_disk_stats(disk, &stats), 0);
    assert_int_equal(stats.op[ASH_WRITE].count, 22);
    assert_int_equal(stats.op[ASH_READ].count, 42);
    assert_int_equal(stats.op[ASH_READ].bytes, 42 * 4096);
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

static void the_eventfd_tells_of_completions_and_misses_none(void **state)
{
    struct ash_disk *disk = open_disk(*state, "null-co://", ASH_DISK_WRITE, "null-co");
    struct ash_queue *queue;
    assert_int_equal(ash_queue_new(disk, 8, &queue, NULL), 0);
    struct pollfd fd = {.fd = ash_queue_eventfd(queue), .events = POLLIN};
    assert_true(fd.fd >= 0);
    struct ash_req req = {.op = ASH_FLUSH};
    ash_queue_notify(queue, false);
    assert_int_equal(ash_queue_submit(queue, &req, 1), 1);
    assert_true(ash_loop_run_once(*state, 0, 0) >= 0);
    assert_int_equal(poll(&fd, 1, 0), 0);
    ash_queue_notify(queue, true);
    assert_int_equal(poll(&fd, 1, 0), 1);
    uint64_t counter;
    assert_int_equal(read(fd.fd, &counter, 8), 8);
    assert_int_equal(ash_queue_submit(queue, &req, 1), 1);
    assert_true(ash_loop_run_once(*state, 0, 0) >= 0);
    assert_int_equal(poll(&fd, 1, 0), 1);
    struct ash_cqe cqe[8];
    assert_int_equal(ash_queue_reap(queue, cqe, 8), 2);
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

static void an_eventfd_that_comes_late_tells_of_what_waits(void **state)
{
    struct ash_disk *disk = open_disk(*state, "null-co://", ASH_DISK_WRITE, "null-co");
    struct ash_queue *queue;
    assert_int_equal(ash_queue_new(disk, 8, &queue, NULL), 0);
    struct ash_req req = {.op = ASH_FLUSH};
    assert_int_equal(ash_queue_submit(queue, &req, 1), 1);
    assert_true(ash_loop_run_once(*state, 0, 0) >= 0);
    struct pollfd fd = {.fd = ash_queue_eventfd(queue), .events = POLLIN};
    assert_int_equal(poll(&fd, 1, 0), 1);
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

struct opened {
    int calls;
    int ret;
    struct ash_disk *disk;
    bool on_coroutine;
    char message[1016];
};

static void on_opened(void *opaque, int ret, struct ash_disk *disk, const struct ash_error *error)
{
    struct opened *opened = opaque;
    opened->calls++;
    opened->ret = ret;
    opened->disk = disk;
    opened->on_coroutine = ash_co_self() != NULL;
    snprintf(opened->message, sizeof(opened->message), "%s", error->message);
}

static void on_done(void *opaque, int ret, const struct ash_error *error)
{
    (void)error;
    *(int *)opaque = ret;
}

static void control_calls_complete_later_and_once(void **state)
{
    struct opened opened = {0};
    assert_int_equal(ash_disk_open(*state, "null-co://", NULL, on_opened, &opened), 0);
    assert_int_equal(opened.calls, 0);
    for (int i = 0; i < 10; i++) {
        ash_loop_run_once(*state, 0, 0);
    }
    assert_int_equal(opened.calls, 1);
    assert_int_equal(opened.ret, 0);
    assert_false(opened.on_coroutine);
    int closed = 1;
    assert_int_equal(ash_disk_close(opened.disk, on_done, &closed), 0);
    assert_int_equal(closed, 1);
    while (closed == 1) {
        ash_loop_run_once(*state, 0, 0);
    }
    assert_int_equal(closed, 0);
}

static void expect_done(struct ash_loop *loop, int ret, const int *done, int wanted)
{
    assert_int_equal(ret, 0);
    assert_int_equal(*done, 1);
    while (*done == 1) {
        ash_loop_run_once(loop, 0, 0);
    }
    assert_int_equal(*done, wanted);
}

static void a_disk_is_resized_and_filtered_by_calls_with_a_callback(void **state)
{
    struct ash_disk_info info = {.size = sizeof(info)};
    const char *filter = "{\"driver\": \"throttle\", \"node-name\": \"f\", \"file\": \"d\"}";
    struct ash_disk *disk = open_disk(
        *state, "json:{\"driver\": \"null-co\", \"node-name\": \"d\"}", ASH_DISK_WRITE, NULL);
    int done = 1;
    expect_done(*state, ash_disk_insert_filter(disk, filter, on_done, &done), &done, 0);
    done = 1;
    expect_done(*state, ash_disk_remove_filter(disk, "f", on_done, &done), &done, 0);
    done = 1;
    expect_done(*state, ash_disk_remove_filter(disk, "f", on_done, &done), &done, -EINVAL);
    assert_int_equal(ash_disk_remove_filter_sync(disk, NULL, NULL), -EINVAL);
    ash_job_unref(NULL);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
    disk = open_disk(*state, raw_file(1 << 20), ASH_DISK_WRITE, "raw");
    done = 1;
    expect_done(*state, ash_disk_resize(disk, 512, 0, on_done, &done), &done, -EINVAL);
    done = 1;
    expect_done(*state, ash_disk_resize(disk, 512, ASH_RESIZE_SHRINK, on_done, &done), &done, 0);
    assert_int_equal(ash_disk_info(disk, &info), 0);
    assert_int_equal(info.bytes, 512);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

static void a_missing_file_is_named_in_the_error(void **state)
{
    struct ash_disk *disk;
    struct ash_error error = ASH_ERROR_INIT;
    assert_int_equal(ash_disk_open_sync(*state, "/nowhere/at/all", NULL, &disk, &error), -ENOENT);
    assert_non_null(strstr(error.message, "/nowhere/at/all"));
    assert_int_equal(error.code, -ENOENT);
}

/* The error of a binding that was built against a header whose messages were shorter. */
static void no_error_is_longer_than_its_callers_struct(void **state)
{
    enum { OLDER = 64 };
    union {
        struct ash_error error;
        char bytes[sizeof(struct ash_error)];
    } older;
    struct ash_disk *disk;
    struct ash_job *job;
    const char *long_name = "/nowhere/in/a/directory/of/a/name/that/goes/on/and/on/and/on/and/on";
    memset(older.bytes, 'x', sizeof(older.bytes));
    older.error.size = OLDER;
    assert_int_equal(ash_disk_open_sync(*state, long_name, NULL, &disk, &older.error), -ENOENT);
    assert_int_equal(older.error.code, -ENOENT);
    assert_int_equal(older.error.size, OLDER);
    assert_non_null(memchr(older.bytes, '\0', OLDER));
    assert_int_equal(older.bytes[OLDER], 'x');
    const char *no_type =
        "{\"type\": \"a type of which nobody ever has heard, as it is too long\"}";
    assert_int_equal(ash_job_start_sync(*state, no_type, NULL, NULL, &job, &older.error), -EINVAL);
    assert_non_null(memchr(older.bytes, '\0', OLDER));
    assert_int_equal(older.bytes[OLDER], 'x');
}

static void expect_open_refused(struct ash_loop *loop, const char *description,
                                const struct ash_disk_options *options, const char *says)
{
    struct ash_disk *disk;
    struct opened opened = {0};
    struct ash_error error = ASH_ERROR_INIT;
    assert_int_equal(ash_disk_open_sync(loop, description, options, &disk, &error), -EINVAL);
    assert_non_null(strstr(error.message, says));
    assert_int_equal(ash_disk_open(loop, description, options, on_opened, &opened), 0);
    while (opened.calls == 0) {
        ash_loop_run_once(loop, 0, 0);
    }
    assert_int_equal(opened.ret, -EINVAL);
    assert_non_null(strstr(opened.message, says));
}

static void options_that_are_not_understood_are_refused(void **state)
{
    struct {
        struct ash_disk_options known;
        uint64_t field;
    } newer = {.known = {.size = sizeof(newer)}, .field = 1};
    struct ash_disk_options options = {.size = 0};
    expect_open_refused(*state, "null-co://", &options, "disk options: size is 0");
    expect_open_refused(*state, "null-co://", &newer.known, "a field is set that this version");
    newer.field = 0;
    struct ash_disk *disk;
    assert_int_equal(ash_disk_open_sync(*state, "null-co://", &newer.known, &disk, NULL), 0);
    struct ash_bitmap_options bitmap = {.size = 1, .name = "b"};
    assert_int_equal(ash_disk_bitmap_create_sync(disk, &bitmap, NULL), -EINVAL);
    assert_int_equal(ash_disk_resize_sync(disk, 4096, 2, NULL), -EINVAL);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
    options.size = sizeof(options);
    options.flags = 1u << 31;
    expect_open_refused(*state, "null-co://", &options, "Unknown disk flags");
    expect_open_refused(*state, NULL, NULL, "There is no description");
}

static void on_jobs_started(void *opaque, int ret, const struct ash_error *error)
{
    struct opened *opened = opaque;
    opened->calls++;
    opened->ret = ret;
    opened->on_coroutine = ash_co_self() != NULL;
    snprintf(opened->message, sizeof(opened->message), "%s", error->message);
}

static void start_all(struct ash_loop *loop, const char *descriptions, struct ash_job **jobs,
                      uint32_t count, struct opened *opened)
{
    *opened = (struct opened){0};
    assert_int_equal(
        ash_job_start_all(loop, descriptions, NULL, NULL, jobs, count, on_jobs_started, opened), 0);
    assert_int_equal(opened->calls, 0);
    for (int i = 0; i < 10; i++) {
        ash_loop_run_once(loop, 0, 0);
    }
    assert_int_equal(opened->calls, 1);
    assert_false(opened->on_coroutine);
}

static void jobs_are_started_together_without_waiting(void **state)
{
    struct ash_disk *disk = open_disk(
        *state, "json:{\"driver\": \"null-co\", \"node-name\": \"d\"}", ASH_DISK_WRITE, NULL);
    struct ash_job *jobs[2] = {NULL};
    struct opened opened;
    start_all(*state,
              "[{\"type\": \"bitmap-add\", \"device\": \"d\", \"bitmap\": \"a\"},"
              " {\"type\": \"bitmap-add\", \"device\": \"d\", \"bitmap\": \"b\"}]",
              jobs, 2, &opened);
    assert_string_equal(opened.message, "");
    assert_int_equal(opened.ret, 0);
    ash_job_unref(jobs[0]);
    ash_job_unref(jobs[1]);
    start_all(*state, "[]", jobs, 0, &opened);
    assert_int_equal(opened.ret, -EINVAL);
    start_all(*state, NULL, jobs, 1, &opened);
    assert_int_equal(opened.ret, -EINVAL);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

static void resizing_shows_in_the_information(void **state)
{
    struct ash_disk *disk = open_disk(*state, raw_file(1 << 20), ASH_DISK_WRITE, "raw");
    struct ash_disk_info info = {.size = sizeof(info)};
    assert_int_equal(ash_disk_info(disk, &info), 0);
    assert_int_equal(info.bytes, 1 << 20);
    assert_int_equal(info.flags & ASH_DISK_INFO_READ_ONLY, 0);
    assert_int_equal(ash_disk_resize_sync(disk, 2 << 20, 0, NULL), 0);
    assert_int_equal(ash_disk_info(disk, &info), 0);
    assert_int_equal(info.bytes, 2 << 20);
    assert_int_equal(ash_disk_resize_sync(disk, 1 << 20, 0, NULL), -EINVAL);
    assert_int_equal(ash_disk_resize_sync(disk, 1 << 20, ASH_RESIZE_SHRINK, NULL), 0);
    info.size = 4;
    assert_int_equal(ash_disk_info(disk, &info), -EINVAL);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

static void a_snapshot_shows_in_the_information(void **state)
{
    char description[256];
    char overlay[96];
    snprintf(overlay, sizeof(overlay), "%s/overlay", directory);
    snprintf(description, sizeof(description),
             "json:{\"driver\": \"raw\", \"node-name\": \"d\", \"file\":"
             " {\"driver\": \"file\", \"filename\": \"%s\"}}",
             raw_file(1 << 20));
    struct ash_disk *disk = open_disk(*state, description, ASH_DISK_WRITE, NULL);
    struct ash_disk_info info = {.size = sizeof(info)};
    assert_int_equal(ash_disk_info(disk, &info), 0);
    assert_int_equal(info.cluster_bytes, 0);
    snprintf(description, sizeof(description),
             "{\"type\": \"snapshot\", \"device\": \"d\", \"snapshot-file\": \"%s\","
             " \"format\": \"qcow2\"}",
             overlay);
    struct ash_job *job;
    struct ash_error error = ASH_ERROR_INIT;
    int ret = ash_job_start_sync(*state, description, NULL, NULL, &job, &error);
    assert_string_equal(error.message, "");
    assert_int_equal(ret, 0);
    ash_job_unref(job);
    assert_int_equal(ash_disk_info(disk, &info), 0);
    assert_int_equal(info.cluster_bytes, 65536);
    assert_int_equal(info.bytes, 1 << 20);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
    unlink(overlay);
}

static void a_host_that_polls_learns_of_what_it_submitted_itself(void **state)
{
    struct ash_loop *loop = *state;
    struct ash_disk *disk = open_disk(loop, raw_file(65536), ASH_DISK_WRITE, "raw");
    struct ash_queue *queue;
    assert_int_equal(ash_queue_new(disk, 8, &queue, NULL), 0);
    char buffer[4096];
    struct iovec vec = {buffer, sizeof(buffer)};
    struct ash_req req = {.op = ASH_READ, .bytes = 4096, .iov = &vec, .iov_count = 1};
    struct pollfd host = {.fd = ash_loop_fd(loop), .events = POLLIN};
    struct ash_cqe cqe;
    for (int i = 0; i < 20; i++) {
        while (poll(&host, 1, 0) == 1) {
            assert_true(ash_loop_run_once(loop, 0, 0) >= 0);
        }
        assert_int_equal(ash_queue_submit(queue, &req, 1), 1);
        while (ash_queue_reap(queue, &cqe, 1) == 0) {
            int count = poll(&host, 1, 20000);
            assert_true(count == 1 || (count < 0 && errno == EINTR));
            assert_true(ash_loop_run_once(loop, 0, 0) >= 0);
        }
        assert_int_equal(cqe.result, 0);
    }
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

static void a_guessed_raw_image_keeps_its_first_sector_plain(void **state)
{
    struct ash_disk *disk = open_disk(*state, raw_file(1 << 20), ASH_DISK_WRITE, NULL);
    struct ash_queue *queue;
    assert_int_equal(ash_queue_new(disk, 8, &queue, NULL), 0);
    char header[1024] = {'Q', 'F', 'I', (char)0xfb, 0, 0, 0, 3};
    char plain[1024] = {'h', 'i'};
    struct iovec bad = {header, sizeof(header)};
    struct iovec good = {plain, sizeof(plain)};
    struct ash_req write = {.op = ASH_WRITE, .bytes = 1024, .iov = &bad, .iov_count = 1};
    struct ash_req part = {.op = ASH_WRITE, .bytes = 8, .iov = &bad, .iov_count = 1};
    struct ash_req other = {.op = ASH_WRITE, .bytes = 1024, .iov = &good, .iov_count = 1};
    assert_int_equal(one(*state, queue, write).result, -EPERM);
    assert_int_equal(one(*state, queue, part).result, -EPERM);
    assert_int_equal(one(*state, queue, other).result, 0);
    write.offset = 512;
    write.bytes = 512;
    assert_int_equal(one(*state, queue, write).result, 0);
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_null_disk_completes_what_is_submitted),
        TEST(a_full_queue_takes_no_more),
        TEST(what_is_written_is_read_back),
        TEST(wrong_requests_complete_with_their_error),
        TEST(each_request_completes_once_on_the_plain_stack),
        TEST(the_eventfd_tells_of_completions_and_misses_none),
        TEST(an_eventfd_that_comes_late_tells_of_what_waits),
        TEST(a_host_that_polls_learns_of_what_it_submitted_itself),
        TEST(control_calls_complete_later_and_once),
        TEST(a_disk_is_resized_and_filtered_by_calls_with_a_callback),
        TEST(a_missing_file_is_named_in_the_error),
        TEST(no_error_is_longer_than_its_callers_struct),
        TEST(options_that_are_not_understood_are_refused),
        TEST(jobs_are_started_together_without_waiting),
        TEST(resizing_shows_in_the_information),
        TEST(a_snapshot_shows_in_the_information),
        TEST(a_guessed_raw_image_keeps_its_first_sector_plain),
    };
    return cmocka_run_group_tests(tests, set_up_group, tear_down_group);
}
