/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk that is opened together with a job: the job goes on from its state file before anybody
 * else has the disk, and when it is refused nothing is open. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <glib.h>
#include <ashlar/ashlar.h>
#include <ashlar/job.h>
#include "block/image/image.h"
#include "tests/unit/temp_dir.h"
#include "util/co/co.h"
#include "util/loop/loop.h"
#include "util/range.h"

#define DISK_BYTES (4 * MiB)
#define AT (3 * MiB)
#define BYTES (4 * KiB)

static struct ash_loop *loop;

static int make(void *opaque)
{
    ash_co_assert_inside();
    return ash_image_create(loop, temp_path(opaque), "qcow2", DISK_BYTES, NULL, NULL);
}

static int set_up(void **state)
{
    (void)state;
    if (temp_dir_make("/tmp") < 0 || ash_loop_new(NULL, &loop, NULL) < 0 ||
        ash_loop_bind(loop) < 0 || ash_loop_run_sync(loop, make, (void *)"source") < 0 ||
        ash_loop_run_sync(loop, make, (void *)"target") < 0) {
        return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    ash_loop_free(loop);
    temp_dir_remove();
    return 0;
}

/* The job; `more` are members of it. */
static char *job_text(const char *type, const char *more)
{
    return g_strdup_printf("{\"type\": \"%s\", \"job-id\": \"job\", \"target\": \"%s\", "
                           "\"format\": \"qcow2\", \"state-file\": \"%s\", \"auto-dismiss\": "
                           "false%s}",
                           type, temp_path("target"), temp_path("state"), more);
}

static struct ash_disk_options writable(void)
{
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    options.flags = ASH_DISK_WRITE;
    return options;
}

static int open_with(const char *more, struct ash_disk **disk, struct ash_job **job,
                     struct ash_error *error)
{
    struct ash_disk_options options = writable();
    char *text = job_text("mirror", more);
    int ret = ash_disk_open_with_job_sync(loop, temp_path("source"), &options, text, NULL, NULL,
                                          disk, job, error);
    g_free(text);
    return ret;
}

static struct ash_disk *open_plain(const char *name)
{
    struct ash_disk_options options = writable();
    struct ash_disk *disk = NULL;
    assert_int_equal(ash_disk_open_sync(loop, temp_path(name), &options, &disk, NULL), 0);
    return disk;
}

static void turn(int64_t timeout_ns)
{
    assert_true(ash_loop_run_once(loop, timeout_ns, 0) >= 0);
}

static void request(struct ash_disk *disk, enum ash_op op, uint64_t offset, void *bytes,
                    uint64_t count)
{
    struct ash_queue *queue;
    struct iovec vec = {bytes, count};
    struct ash_req req = {
        .op = (uint8_t)op, .offset = offset, .bytes = count, .iov = &vec, .iov_count = 1};
    struct ash_cqe cqe;
    assert_int_equal(ash_queue_new(disk, 1, &queue, NULL), 0);
    assert_int_equal(ash_queue_submit(queue, &req, 1), 1);
    while (ash_queue_reap(queue, &cqe, 1) == 0) {
        turn(-1);
    }
    assert_int_equal(cqe.result, 0);
    ash_queue_free(queue);
}

static void expect_bytes(struct ash_disk *disk, uint64_t offset, uint8_t value)
{
    uint8_t bytes[BYTES];
    request(disk, ASH_READ, offset, bytes, sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        assert_int_equal(bytes[i], value);
    }
}

static void wait_for(struct ash_job *job, enum ash_job_state state)
{
    struct ash_job_info info = {.size = sizeof(info)};
    do {
        turn(1000000);
        assert_int_equal(ash_job_info(job, &info), 0);
    } while (info.state != (uint32_t)state);
}

static void end(struct ash_job *job, enum ash_job_verb verb)
{
    assert_int_equal(ash_job_control_sync(job, verb, 0, NULL), 0);
    wait_for(job, ASH_JOB_CONCLUDED);
    assert_int_equal(ash_job_control_sync(job, ASH_JOB_DISMISS, 0, NULL), 0);
    ash_job_unref(job);
}

/* The state file's bit of the part at AT. */
static bool is_marked(void)
{
    uint8_t bits = 0;
    int fd = open(temp_path("state"), O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &bits, 1, 4096), 1);
    close(fd);
    return (bits >> (AT / MiB) & 1) != 0;
}

/* Ends a job by force and closes its disk. What the job has on its way, as a flush, ends after it,
 * and keeps the state file open until then. */
static void leave(struct ash_job *job, struct ash_disk *disk, unsigned descriptors_before)
{
    end(job, ASH_JOB_FORCE_CANCEL);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
    while (descriptors() > descriptors_before) {
        turn(1000000);
    }
}

/* A mirror that got equal to its source, noted it, and died with its process as far as it can tell.
 */
static void live_and_die(void)
{
    struct ash_disk *disk = NULL;
    struct ash_job *job = NULL;
    uint8_t bytes[BYTES];
    unsigned before = descriptors();
    assert_int_equal(open_with("", &disk, &job, NULL), 0);
    wait_for(job, ASH_JOB_READY);
    for (unsigned i = 0; is_marked(); i++) { /* noted about once a second, with the next change */
        memset(bytes, (int)i, sizeof(bytes));
        request(disk, ASH_WRITE, 0, bytes, sizeof(bytes));
        turn(20000000);
    }
    leave(job, disk, before);
}

struct opened {
    bool done;
    int ret;
    struct ash_disk *disk;
    struct ash_job *job;
    struct ash_queue *queue;
    uint8_t bytes[BYTES];
    struct iovec vec;
    bool written;
    bool marked; /* when the write completed */
    char message[256];
};

static void on_complete(void *opaque, const struct ash_cqe *cqe, uint32_t count)
{
    struct opened *opened = opaque;
    assert_int_equal(count, 1);
    assert_int_equal(cqe->result, 0);
    opened->written = true;
    opened->marked = is_marked();
}

/* The guest writes as soon as there is a disk. */
static void on_opened(void *opaque, int ret, struct ash_disk *disk, struct ash_job *job,
                      const struct ash_error *error)
{
    struct opened *opened = opaque;
    assert_false(opened->done);
    assert_false(ash_co_self() != NULL);
    opened->done = true;
    opened->ret = ret;
    opened->disk = disk;
    opened->job = job;
    g_strlcpy(opened->message, error->message, sizeof(opened->message));
    if (ret < 0) {
        return;
    }
    memset(opened->bytes, 0x5a, sizeof(opened->bytes));
    opened->vec = (struct iovec){opened->bytes, sizeof(opened->bytes)};
    struct ash_req req = {.op = ASH_WRITE,
                          .offset = AT,
                          .bytes = sizeof(opened->bytes),
                          .iov = &opened->vec,
                          .iov_count = 1};
    assert_int_equal(ash_queue_new(disk, 1, &opened->queue, NULL), 0);
    ash_queue_on_complete(opened->queue, on_complete, opened);
    assert_int_equal(ash_queue_submit(opened->queue, &req, 1), 1);
}

static void open_and_write(struct opened *opened)
{
    struct ash_disk_options options = writable();
    char *text = job_text("mirror", "");
    *opened = (struct opened){0};
    assert_int_equal(ash_disk_open_with_job(loop, temp_path("source"), &options, text, NULL, NULL,
                                            on_opened, opened),
                     0);
    g_free(text);
    assert_false(opened->done);
    while (!opened->done || (opened->ret == 0 && !opened->written)) {
        turn(-1);
    }
}

/* The first write after the open is in the file, and who goes on once more copies it. */
static void the_first_write_after_opening_is_recorded(void **state)
{
    (void)state;
    struct opened opened;
    struct ash_disk *disk = NULL;
    struct ash_job *job = NULL;
    live_and_die();
    assert_false(is_marked());
    unsigned before = descriptors();
    open_and_write(&opened);
    assert_int_equal(opened.ret, 0);
    assert_true(opened.marked);
    ash_queue_free(opened.queue);
    leave(opened.job, opened.disk, before);
    assert_int_equal(open_with("", &disk, &job, NULL), 0);
    wait_for(job, ASH_JOB_READY);
    end(job, ASH_JOB_CANCEL);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
    disk = open_plain("target");
    expect_bytes(disk, AT, 0x5a);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

/* Opening for a look is no change; the same job, and not another one, is gone on with. */
static void a_job_is_resumed_by_opening(void **state)
{
    (void)state;
    uint8_t id[2][16];
    struct ash_disk *disk = NULL;
    struct ash_job *job = NULL;
    live_and_die();
    assert_int_equal(ash_disk_close_sync(open_plain("source"), NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        int fd = open(temp_path("state"), O_RDONLY);
        assert_int_equal(pread(fd, id[i], sizeof(id[i]), 40), sizeof(id[i]));
        close(fd);
        if (i == 0) {
            assert_int_equal(open_with("", &disk, &job, NULL), 0);
        }
    }
    assert_memory_equal(id[0], id[1], sizeof(id[0]));
    struct ash_job_info info = {.size = sizeof(info)};
    wait_for(job, ASH_JOB_READY);
    assert_int_equal(ash_job_info(job, &info), 0);
    assert_true(info.total_bytes < DISK_BYTES); /* what was copied is not copied again */
    end(job, ASH_JOB_CANCEL);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
}

static void expect_refused(int ret, const char *says, const char *more)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk *disk = NULL;
    struct ash_job *job = NULL;
    unsigned before = descriptors();
    assert_int_equal(open_with(more, &disk, &job, &error), ret);
    if (strstr(error.message, says) == NULL) {
        fail_msg("'%s' does not say '%s'", error.message, says);
    }
    assert_null(disk);
    assert_null(job);
    assert_int_equal(descriptors(), before);
    assert_int_equal(ash_disk_close_sync(open_plain("source"), NULL),
                     0); /* nobody holds its lock */
}

static void a_job_that_is_refused_leaves_no_disk_open(void **state)
{
    (void)state;
    uint8_t bytes[BYTES] = {1};
    struct opened opened;
    expect_refused(-EINVAL, "nosuch", ", \"nosuch\": 1");
    live_and_die();
    struct ash_disk *disk = open_plain("source");
    request(disk, ASH_WRITE, 0, bytes, sizeof(bytes));
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
    expect_refused(-ESTALE, temp_path("source"), "");
    expect_refused(-ESTALE, temp_path("state"), "");
    open_and_write(&opened);
    assert_int_equal(opened.ret, -ESTALE);
    assert_null(opened.disk);
    assert_null(opened.job);
    assert_non_null(strstr(opened.message, temp_path("source")));
}

static void what_cannot_be_opened_starts_no_job(void **state)
{
    (void)state;
    struct ash_disk_options options = writable();
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk *disk = NULL;
    struct ash_job *job = NULL;
    char *text = job_text("mirror", "");
    assert_int_equal(ash_disk_open_with_job_sync(loop, temp_path("nowhere"), &options, text, NULL,
                                                 NULL, &disk, &job, &error),
                     -ENOENT);
    g_free(text);
    assert_int_equal(ash_disk_open_with_job_sync(loop, temp_path("source"), &options, "{", NULL,
                                                 NULL, &disk, &job, &error),
                     -EINVAL);
    assert_int_equal(ash_disk_open_with_job_sync(loop, temp_path("source"), &options, "[]", NULL,
                                                 NULL, &disk, &job, &error),
                     -EINVAL);
    assert_null(disk);
    assert_null(job);
    assert_int_equal(temp_bytes(temp_path("state")), -1);
}

static int make_small(void *opaque)
{
    json_t *options = json_pack("{s:s}", "cluster_size", "512");
    ash_co_assert_inside();
    int ret = ash_image_create(loop, temp_path(opaque), "qcow2", DISK_BYTES, options, NULL);
    json_decref(options);
    return ret;
}

/* Whoever vouches for it cannot help: it might have had a mark that was taken away. */
static void a_header_without_room_for_a_mark_is_refused(void **state)
{
    static const char *const more[] = {"", ", \"state-unmarked\": true"};
    (void)state;
    assert_int_equal(ash_loop_run_sync(loop, make_small, (void *)"source"), 0);
    for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++) {
        struct ash_error error = ASH_ERROR_INIT;
        struct ash_disk *disk;
        struct ash_job *job;
        assert_int_equal(open_with(more[i], &disk, &job, &error), -ENOSPC);
        assert_non_null(strstr(error.message, "does not fit into a cluster of 512 bytes"));
        assert_int_equal(ash_disk_close_sync(open_plain("source"), NULL), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_first_write_after_opening_is_recorded, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_job_is_resumed_by_opening, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_job_that_is_refused_leaves_no_disk_open, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_opened_starts_no_job, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_header_without_room_for_a_mark_is_refused, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
