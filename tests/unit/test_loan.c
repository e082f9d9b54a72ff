/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Disks on loan: jobs of one loop that copy to a disk of another, through the public API. The first
 * loop is this thread's, the second has a thread of its own. */
#include "tests/unit/unit.h"
#include "tests/unit/temp_dir.h"
#include <errno.h>
#include <glib.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <ashlar/ashlar.h>
#include "block/disk/disk.h"
#include "block/graph/graft.h"
#include "block/image/image.h"
#include "tests/unit/dies.h"
#include "util/co/co.h"
#include "util/compiler.h"
#include "util/loop/loop.h"

#define DISK_BYTES (4 * MiB)

static char directory[64];
static struct ash_loop *near_loop, *far_loop;
static struct ash_disk *near_disk, *far_disk;
static struct ash_queue *queue;
static struct ash_loan *loan;
static struct ash_error error;

static char *path_of(const char *name)
{
    return g_strdup_printf("%s/%s", directory, name);
}

static void make_file(const char *name, uint64_t bytes, int seed)
{
    char *path = path_of(name);
    GRand *random = g_rand_new_with_seed((guint32)seed);
    uint8_t *data = g_malloc0(bytes);
    for (uint64_t at = 0; seed != 0 && at < bytes; at++) {
        data[at] = (uint8_t)g_rand_int_range(random, 0, 256);
    }
    assert_true(g_file_set_contents(path, (const char *)data, (gssize)bytes, NULL));
    g_free(data);
    g_rand_free(random);
    g_free(path);
}

static char *contents(const char *name, uint64_t bytes)
{
    char *data, *path = path_of(name);
    gsize got;
    assert_true(g_file_get_contents(path, &data, &got, NULL));
    assert_int_equal(got, bytes);
    g_free(path);
    return data;
}

static struct ash_disk *open_disk(struct ash_loop *loop, const char *name, const char *above,
                                  uint32_t flags)
{
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    struct ash_disk *disk = NULL;
    options.flags = flags;
    char *description = g_strdup_printf(
        "json:{\"driver\": \"raw\", \"node-name\": \"%s\", \"file\": {%s\"driver\": "
        "\"file\", \"filename\": \"%s/%s\"}%s}",
        name, above, directory, name, *above != '\0' ? "}" : "");
    int ret = ash_disk_open_sync(loop, description, &options, &disk, &error);
    assert_string_equal(error.message, "");
    assert_int_equal(ret, 0);
    g_free(description);
    return disk;
}

static int set_up_files(void **state)
{
    (void)state;
    error = (struct ash_error)ASH_ERROR_INIT;
    snprintf(directory, sizeof(directory), "%s", "/tmp/ashlar-loan-XXXXXX");
    if (mkdtemp(directory) == NULL) {
        return -1;
    }
    make_file("near", DISK_BYTES, 1);
    return 0;
}

static int set_up(void **state)
{
    struct ash_loop_config own = {.size = sizeof(own), .flags = ASH_LOOP_OWN_THREAD};
    if (set_up_files(state) < 0 || ash_loop_new(NULL, &near_loop, NULL) < 0 ||
        ash_loop_bind(near_loop) < 0 || ash_loop_new(&own, &far_loop, NULL) < 0) {
        return -1;
    }
    near_disk = open_disk(near_loop, "near", "", ASH_DISK_WRITE);
    return ash_queue_new(near_disk, 16, &queue, NULL);
}

static int tear_down_files(void **state)
{
    (void)state;
    return directory_remove(directory);
}

static int tear_down(void **state)
{
    ash_loop_free(near_loop);
    ash_loop_free(far_loop);
    return tear_down_files(state);
}

static void lend(void)
{
    assert_int_equal(ash_disk_lend_sync(far_disk, near_loop, "lent", &loan, &error), 0);
}

static void close_near(void)
{
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(near_disk, NULL), 0);
}

static void close_far(void)
{
    assert_int_equal(ash_loan_end_sync(loan, NULL), 0);
    assert_int_equal(ash_disk_close_sync(far_disk, NULL), 0);
}

/* A guest of the near disk overwrites a sector. */
static void write_sector(uint64_t offset, uint8_t value)
{
    uint8_t sector[512];
    struct iovec vec = {sector, sizeof(sector)};
    struct ash_req req = {
        .op = ASH_WRITE, .offset = offset, .bytes = sizeof(sector), .iov = &vec, .iov_count = 1};
    struct ash_cqe cqe;
    memset(sector, value, sizeof(sector));
    assert_int_equal(ash_queue_submit(queue, &req, 1), 1);
    while (ash_queue_reap(queue, &cqe, 1) == 0) {
        assert_true(ash_loop_run_once(near_loop, -1, 0) >= 0);
    }
    assert_int_equal(cqe.result, 0);
}

static struct ash_job *start(const char *members)
{
    struct ash_job *job = NULL;
    char *description = g_strdup_printf("{\"device\": \"near\", \"target\": \"lent\", \"sync\": "
                                        "\"full\", \"auto-dismiss\": false, %s}",
                                        members);
    int ret = ash_job_start_sync(near_loop, description, NULL, NULL, &job, &error);
    assert_string_equal(error.message, "");
    assert_int_equal(ret, 0);
    g_free(description);
    return job;
}

static struct ash_job_info wait_for(struct ash_job *job, uint32_t state)
{
    struct ash_job_info info = {.size = sizeof(info)};
    assert_int_equal(ash_job_info(job, &info), 0);
    while (info.state != state && info.state != ASH_JOB_CONCLUDED) {
        assert_true(ash_loop_run_once(near_loop, -1, 0) >= 0);
        assert_int_equal(ash_job_info(job, &info), 0);
    }
    return info;
}

static struct ash_job_info finish(struct ash_job *job)
{
    struct ash_job_info info = wait_for(job, ASH_JOB_CONCLUDED);
    assert_int_equal(ash_job_control_sync(job, ASH_JOB_DISMISS, 0, NULL), 0);
    ash_job_unref(job);
    return info;
}

static void a_backup_goes_to_a_disk_of_another_loop(void **state)
{
    (void)state;
    make_file("far", DISK_BYTES, 2);
    far_disk = open_disk(far_loop, "far", "", ASH_DISK_WRITE);
    lend();
    char *before = contents("near", DISK_BYTES);
    struct ash_job *job = start("\"type\": \"backup\"");
    for (unsigned i = 0; i < 64; i++) {
        write_sector(DISK_BYTES / 64 * (63 - i), (uint8_t)i);
    }
    assert_int_equal(finish(job).result, 0);
    close_near();
    close_far();
    char *copy = contents("far", DISK_BYTES);
    assert_memory_equal(copy, before, DISK_BYTES);
    g_free(copy);
    g_free(before);
}

/* The disk stands on the other loop's disk from then on, which is made as long. */
static void a_mirror_pivots_to_a_disk_of_another_loop(void **state)
{
    (void)state;
    make_file("far", DISK_BYTES / 2, 0);
    far_disk = open_disk(far_loop, "far", "", ASH_DISK_WRITE);
    lend();
    struct ash_job *job = start("\"type\": \"mirror\"");
    for (unsigned i = 0; i < 64; i++) {
        write_sector(DISK_BYTES / 64 * i + 512, (uint8_t)i);
    }
    assert_int_equal(wait_for(job, ASH_JOB_READY).state, ASH_JOB_READY);
    assert_int_equal(ash_job_control_sync(job, ASH_JOB_COMPLETE, 0, NULL), 0);
    assert_int_equal(finish(job).result, 0);
    char *copy = contents("near", DISK_BYTES);
    write_sector(4096, 0xab);
    memset(copy + 4096, 0xab, 512);
    assert_int_equal(ash_loan_end_sync(loan, &error), -EBUSY);
    assert_non_null(strstr(error.message, "'lent' is in use"));
    close_near();
    close_far();
    char *now = contents("far", DISK_BYTES);
    assert_memory_equal(now, copy, DISK_BYTES);
    g_free(now);
    g_free(copy);
}

static void an_error_of_the_other_loops_disk_is_the_jobs(void **state)
{
    (void)state;
    make_file("far", DISK_BYTES, 0);
    far_disk = open_disk(far_loop, "far",
                         "\"driver\": \"fault\", \"inject-error\": [{\"iotype\": \"write\", "
                         "\"errno\": 28, \"once\": false}], \"file\": {",
                         ASH_DISK_WRITE);
    lend();
    assert_int_equal(finish(start("\"type\": \"backup\"")).result, -ENOSPC);
    close_near();
    close_far();
}

static void a_disk_that_may_not_be_written_is_no_target(void **state)
{
    (void)state;
    make_file("far", DISK_BYTES, 0);
    far_disk = open_disk(far_loop, "far", "", 0);
    lend();
    struct ash_job *job = NULL;
    assert_int_not_equal(ash_job_start_sync(near_loop,
                                            "{\"type\": \"backup\", \"device\": \"near\", "
                                            "\"target\": \"lent\", \"sync\": \"full\"}",
                                            NULL, NULL, &job, &error),
                         0);
    assert_non_null(strstr(error.message, "read-only"));
    close_near();
    close_far();
}

static void what_cannot_be_lent_is_refused(void **state)
{
    (void)state;
    struct ash_loan *other;
    make_file("far", DISK_BYTES, 0);
    far_disk = open_disk(far_loop, "far", "", ASH_DISK_WRITE);
    assert_int_equal(ash_disk_lend_sync(far_disk, far_loop, "lent", &other, &error), -EINVAL);
    assert_int_equal(ash_disk_lend_sync(far_disk, near_loop, "near", &other, &error), -EEXIST);
    lend();
    assert_int_equal(ash_disk_lend_sync(far_disk, near_loop, "lent", &other, &error), -EEXIST);
    assert_int_equal(ash_disk_lend_sync(far_disk, near_loop, "again", &other, &error), 0);
    assert_int_equal(ash_loan_end_sync(other, NULL), 0);
    close_near();
    close_far();
}

static void note_loan(void *opaque, int ret, struct ash_loan *lent, const struct ash_error *reason)
{
    (void)reason;
    assert_int_equal(ret, 0);
    *(struct ash_loan **)opaque = lent;
}

static void note_end(void *opaque, int ret, const struct ash_error *reason)
{
    (void)reason;
    assert_int_equal(ret, 0);
    *(bool *)opaque = true;
}

static void lending_need_not_be_waited_for(void **state)
{
    (void)state;
    bool ended = false;
    make_file("far", DISK_BYTES, 0);
    far_disk = open_disk(far_loop, "far", "", ASH_DISK_WRITE);
    loan = NULL;
    assert_int_equal(ash_disk_lend(far_disk, near_loop, "lent", note_loan, &loan), 0);
    assert_null(loan);
    while (loan == NULL) {
        assert_true(ash_loop_run_once(near_loop, -1, 0) >= 0);
    }
    assert_int_equal(ash_loan_end(loan, note_end, &ended), 0);
    while (!ended) {
        assert_true(ash_loop_run_once(near_loop, -1, 0) >= 0);
    }
    close_near();
    assert_int_equal(ash_disk_close_sync(far_disk, NULL), 0);
}

struct answer {
    atomic_bool given; /* by the far loop's thread */
    int ret;
    struct ash_loan *loan;
};

static void take_loan(void *opaque, int ret, struct ash_loan *lent, const struct ash_error *reason)
{
    struct answer *answer = opaque;
    (void)reason;
    answer->ret = ret;
    answer->loan = lent;
    atomic_store(&answer->given, true);
}

static void take_end(void *opaque, int ret, const struct ash_error *reason)
{
    take_loan(opaque, ret, NULL, reason);
}

static void serve_until_answered(struct answer *answer)
{
    while (!atomic_load(&answer->given)) {
        assert_true(ash_loop_run_once(near_loop, 1000000, 0) >= 0);
    }
    assert_int_equal(answer->ret, 0);
}

/* This thread runs the loop that the other one asks. */
static void who_runs_the_disks_loop_cannot_wait_for_it(void **state)
{
    (void)state;
    struct answer lent = {.given = false}, ended = {.given = false};
    struct ash_loan *other;
    assert_int_equal(ash_disk_lend_sync(near_disk, far_loop, "lent", &other, &error), -EDEADLK);
    assert_int_equal(ash_disk_lend(near_disk, far_loop, "lent", take_loan, &lent), 0);
    serve_until_answered(&lent);
    assert_int_equal(ash_loan_end_sync(lent.loan, &error), -EDEADLK);
    assert_int_equal(ash_loan_end(lent.loan, take_end, &ended), 0);
    serve_until_answered(&ended);
    close_near();
}

/* Both loops are this thread's, as a child of fork() has no other. */
static void close_a_lent_disk(void)
{
    struct ash_loop_config config = ASH_LOOP_CONFIG_INIT;
    struct answer lent = {.given = false};
    config.hooks = dies_hooks;
    assert_int_equal(ash_loop_new(&config, &near_loop, NULL), 0);
    assert_int_equal(ash_loop_new(&config, &far_loop, NULL), 0);
    assert_int_equal(ash_loop_bind(near_loop), 0);
    assert_int_equal(ash_loop_bind(far_loop), 0);
    far_disk = open_disk(far_loop, "near", "", ASH_DISK_WRITE);
    assert_int_equal(ash_disk_lend(far_disk, near_loop, "lent", take_loan, &lent), 0);
    while (!atomic_load(&lent.given)) {
        assert_true(ash_loop_run_once(near_loop, 0, 0) >= 0);
        assert_true(ash_loop_run_once(far_loop, 0, 0) >= 0);
    }
    assert_int_equal(lent.ret, 0);
    ash_disk_close_sync(far_disk, NULL);
}

static void a_disk_is_not_closed_while_it_is_lent(void **state)
{
    (void)state;
    assert_asserts(close_a_lent_disk, "disk->queues == 0");
}

/* --- what the node says that a range is --- */

#define CLUSTER (64 * KiB)

static int make_far_image(void *opaque)
{
    char *path = path_of(opaque);
    ash_co_assert_inside();
    int ret = ash_image_create(far_loop, path, "qcow2", DISK_BYTES, NULL, &error);
    g_free(path);
    return ret;
}

/* A cluster of data and a coded one, from 1 MiB on. */
static int fill_far_disk(void *opaque)
{
    uint8_t *data = g_malloc(CLUSTER);
    struct iovec vec = {data, CLUSTER};
    struct ash_io io = {.op = ASH_WRITE,
                        .flags = ASH_IO_COMPRESS,
                        .offset = MiB + CLUSTER,
                        .bytes = CLUSTER,
                        .iov = ash_iov_of(&vec, 1)};
    ash_co_assert_inside();
    memset(data, 1, CLUSTER);
    int ret = ash_disk_write(opaque, MiB, data, CLUSTER, 0);
    ret = ret < 0 ? ret : ash_disk_io(opaque, &io);
    g_free(data);
    return ret;
}

struct question {
    uint64_t offset;
    struct ash_status status;
};

static int ask_far(void *opaque)
{
    struct question *question = opaque;
    ash_co_assert_inside();
    struct ash_io io = {.op = ASH_STATUS,
                        .offset = question->offset,
                        .bytes = DISK_BYTES - question->offset,
                        .status = &question->status};
    return ash_disk_io(far_disk, &io);
}

/* As a job does. */
static int ask_lent(void *opaque)
{
    struct question *question = opaque;
    struct ash_node *node = ash_node_find(near_loop, "lent");
    struct ash_user user;
    struct ash_edge *edge;
    ash_co_assert_inside();
    struct ash_io io = {.op = ASH_STATUS,
                        .offset = question->offset,
                        .bytes = DISK_BYTES - question->offset,
                        .status = &question->status};
    ash_user_init(&user, near_loop);
    int ret = ash_graft_attach(node, ASH_RIGHT_READ, ASH_RIGHT_ALL, &user, &edge, NULL);
    if (ret == 0) {
        ash_user_enter(&user);
        ret = ash_edge_io(edge, &io);
        ash_user_leave(&user);
        assert_ptr_equal(question->status.node, node);
        assert_ptr_equal(question->status.host, node);
        ash_graft_detach(edge);
    }
    ash_user_destroy(&user);
    return ret;
}

/* What reads as zeroes, and how far, is told. Places are the far loop's, and nothing is below a
 * leaf. */
static void a_range_is_what_it_is_without_its_place(void **state)
{
    static const struct {
        uint64_t offset;
        uint64_t bytes;
        uint32_t far_flags;
        uint32_t lent_flags;
    } ranges[] = {
        {0, MiB, ASH_STATUS_ZERO, ASH_STATUS_ZERO | ASH_STATUS_ALLOCATED},
        {MiB, CLUSTER, ASH_STATUS_DATA | ASH_STATUS_ALLOCATED | ASH_STATUS_OFFSET,
         ASH_STATUS_DATA | ASH_STATUS_ALLOCATED},
        {MiB + CLUSTER, CLUSTER, ASH_STATUS_DATA | ASH_STATUS_ALLOCATED | ASH_STATUS_COMPRESSED,
         ASH_STATUS_DATA | ASH_STATUS_ALLOCATED},
        {MiB + 2 * CLUSTER, DISK_BYTES - MiB - 2 * CLUSTER, ASH_STATUS_ZERO | ASH_STATUS_EOF,
         ASH_STATUS_ZERO | ASH_STATUS_ALLOCATED | ASH_STATUS_EOF},
    };
    (void)state;
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    options.flags = ASH_DISK_WRITE;
    assert_int_equal(ash_loop_run_sync(far_loop, make_far_image, (void *)"far"), 0);
    char *path = path_of("far");
    assert_int_equal(ash_disk_open_sync(far_loop, path, &options, &far_disk, &error), 0);
    g_free(path);
    assert_int_equal(ash_loop_run_sync(far_loop, fill_far_disk, far_disk), 0);
    lend();
    for (size_t i = 0; i < ASH_ARRAY_SIZE(ranges); i++) {
        struct question far = {.offset = ranges[i].offset}, lent = far;
        assert_int_equal(ash_loop_run_sync(far_loop, ask_far, &far), 0);
        assert_int_equal(ash_loop_run_sync(near_loop, ask_lent, &lent), 0);
        assert_int_equal(far.status.flags, ranges[i].far_flags);
        assert_int_equal(lent.status.flags, ranges[i].lent_flags);
        assert_int_equal(far.status.bytes, ranges[i].bytes);
        assert_int_equal(lent.status.bytes, ranges[i].bytes);
        assert_int_equal(lent.status.depth, 0);
    }
    close_near();
    close_far();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        /* First, while there is no other thread. */
        cmocka_unit_test_setup_teardown(a_disk_is_not_closed_while_it_is_lent, set_up_files,
                                        tear_down_files),
        TEST(a_range_is_what_it_is_without_its_place),
        TEST(a_backup_goes_to_a_disk_of_another_loop),
        TEST(a_mirror_pivots_to_a_disk_of_another_loop),
        TEST(an_error_of_the_other_loops_disk_is_the_jobs),
        TEST(a_disk_that_may_not_be_written_is_no_target),
        TEST(what_cannot_be_lent_is_refused),
        TEST(lending_need_not_be_waited_for),
        TEST(who_runs_the_disks_loop_cannot_wait_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
