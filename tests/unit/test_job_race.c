/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs that meet what else changes a disk at the same moment: its length, its flags, a guest's
 * write while the job begins. One race at a time, brought about by requests that are held back. */
#include "tests/unit/qcow2_disk.h"
#include <jansson.h>
#include "block/io/mark.h"
#include "job/job.h"

static struct ash_job *job;

ASH_CO_FN static int start_job(const char *options)
{
    json_t *description = json_loads(options, 0, NULL);
    assert_non_null(description);
    json_object_set_new(description, "job-id", json_string("job"));
    json_object_set_new(description, "device", json_string(ash_disk_node(disk)->name));
    json_object_set_new(description, "auto-dismiss", json_false());
    int ret = ash_co_job_start(rig.loop, description, NULL, NULL, &job, &error);
    json_decref(description);
    return ret;
}

/* Mirrors to an empty file. `more`: further members. */
ASH_CO_FN static int start_mirror(const char *more)
{
    char *target =
        g_strdup_printf("{\"type\": \"mirror\", \"target\": "
                        "\"json:{\\\"driver\\\":\\\"raw\\\",\\\"file\\\":{\\\"driver\\\":"
                        "\\\"file\\\",\\\"filename\\\":\\\"target\\\"}}\"%s}",
                        more);
    int ret = start_job(target);
    g_free(target);
    return ret;
}

static int started;

static void mirror_body(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    started = start_mirror("");
}

ASH_CO_FN static void wait_for(enum ash_job_state state)
{
    for (unsigned i = 0; ash_job_state(job) != state; i++) {
        assert_true(i < 30000);
        ash_co_sleep(1 * MS);
    }
    assert_int_equal(ash_job_state(job), state);
}

/* Ends it, and lets go of it. */
ASH_CO_FN static int end_job(enum ash_job_verb verb)
{
    if (verb != ASH_JOB_DISMISS) {
        assert_int_equal(ash_co_job_control(job, verb, 0, &error), 0);
    }
    wait_for(ASH_JOB_CONCLUDED);
    int ret = job->ret;
    assert_int_equal(ash_co_job_control(job, ASH_JOB_DISMISS, 0, &error), 0);
    ash_job_unref(job);
    return ret;
}

static void make_target(uint64_t bytes)
{
    assert_int_equal(ash_sim_file_write(rig.world, "target", bytes - 1, "", 1), 0);
}

static void expect_target(uint64_t offset, uint8_t value)
{
    uint8_t byte;
    assert_int_equal(ash_sim_file_read(rig.world, "target", offset, &byte, 1), 0);
    assert_int_equal(byte, value);
}

ASH_CO_FN static int resize(uint64_t bytes)
{
    return ash_co_disk_resize(disk, bytes, ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF, &error);
}

static uint64_t resize_bytes;
static int resized;

static void resize_body(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    resized = resize(resize_bytes);
}

/* --- lengths --- */

QCOW2_TEST(a_copy_of_a_disk_that_shrank_is_as_short_as_it)
{
    make_target(512);
    open_image("cluster_size=64k", MIB);
    assert_int_equal(write_bytes(0, MIB, 1), 0);
    assert_int_equal(start_mirror(""), 0);
    wait_for(ASH_JOB_READY);
    assert_int_equal(ash_sim_file_bytes(rig.world, "target"), MIB);
    assert_int_equal(resize(MIB / 2), 0);
    assert_int_equal(end_job(ASH_JOB_CANCEL), 0);
    assert_int_equal(ash_sim_file_bytes(rig.world, "target"), MIB / 2);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* mirror: writes to the target, held ................ must not write beyond its end
 * guest:                              grows and writes                              */
QCOW2_TEST(a_disk_may_grow_while_it_is_copied)
{
    make_target(512);
    open_image("cluster_size=64k", MIB);
    assert_int_equal(write_bytes(0, MIB, 1), 0);
    ash_sim_hold(rig.world, "target", ASH_AIO_WRITE, 0, INT64_MAX);
    assert_int_equal(start_mirror(""), 0);
    while (ash_sim_held(rig.world) == 0) {
        ash_co_sleep(1 * MS);
    }
    assert_int_equal(resize(2 * MIB), 0);
    assert_int_equal(write_bytes(MIB, MIB, 2), 0);
    ash_sim_release_all(rig.world);
    wait_for(ASH_JOB_READY);
    assert_int_equal(end_job(ASH_JOB_CANCEL), 0);
    expect_target(MIB - 1, 1);
    expect_target(2 * MIB - 1, 2);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* resize: writes the header, held ........................... ends
 * mirror:                         opens its filter, waits ........ puts it in */
QCOW2_TEST(a_filter_that_waited_for_a_resize_has_the_new_length)
{
    make_target(512);
    open_image("cluster_size=64k", MIB);
    ash_sim_hold(rig.world, "image", ASH_AIO_WRITE, 0, 512);
    resize_bytes = MIB / 2;
    resized = 1;
    assert_int_equal(ash_co_spawn(&rig.loop->sched, resize_body, NULL), 0);
    while (ash_sim_held(rig.world) == 0) {
        ash_co_sleep(1 * MS);
    }
    started = 1;
    assert_int_equal(ash_co_spawn(&rig.loop->sched, mirror_body, NULL), 0);
    ash_co_sleep(200 * MS);
    assert_int_equal(started, 1);
    ash_sim_release_all(rig.world);
    while (started == 1) {
        ash_co_sleep(1 * MS);
    }
    assert_int_equal(started, 0);
    assert_int_equal(resized, 0);
    assert_int_equal(ash_disk_bytes(disk), MIB / 2);
    expect_bytes(MIB / 2 - 512, 512, 0);
    end_job(ASH_JOB_FORCE_CANCEL);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* --- a write while the job begins --- */

/* mirror: puts its filter in ..... marks what it will copy, makes the target longer, held ........
 * guest:                     writes a part ............................. is told */
ASH_CO_FN static void write_early(const char *sync, uint64_t target_bytes, uint64_t wait_ns)
{
    make_target(target_bytes);
    open_image("cluster_size=64k", MIB);
    assert_int_equal(write_bytes(0, MIB, 1), 0);
    ash_sim_hold(rig.world, "target", ASH_AIO_TRUNCATE, 0, INT64_MAX);
    assert_int_equal(start_mirror(sync), 0);
    assert_int_equal(ash_job_state(job), ASH_JOB_CREATED); /* it has not run yet */
    if (wait_ns > 0) {
        ash_co_sleep(wait_ns);
    }
    assert_int_equal(write_bytes(MIB / 2, 512, 2), 0);
    assert_int_equal(ash_sim_held(rig.world), 1);
    ash_sim_release_all(rig.world);
    wait_for(ASH_JOB_READY);
    assert_int_equal(end_job(ASH_JOB_CANCEL), 0);
    expect_target(MIB / 2, 2);
    expect_target(MIB / 2 + 512, 1);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(a_write_before_a_blocking_mirror_has_marked_all_is_copied_with_its_cluster)
{
    write_early(", \"copy-mode\": \"write-blocking\"", MIB - 64 * KIB, 0);
}

QCOW2_TEST(a_write_beyond_the_end_of_a_mirrors_target_is_copied_later)
{
    write_early(", \"copy-mode\": \"write-blocking\", \"sync\": \"none\"", 512, 20 * MS);
}

/* --- flags --- */

static int reopened;

static void reopen_body(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    reopened = ash_disk_reopen(disk, 0, false, &error);
}

/* guest:  writes, held ................................... ends
 * reopen:              waits for it ........................... reopens
 * mirror:                           waits for it ......... puts its filter in */
QCOW2_TEST(a_filter_put_in_while_a_disk_is_reopened_is_reopened_with_it)
{
    struct side side = {.write = true, .bytes = 65536, .data = buffer};
    make_target(512);
    open_image("cluster_size=64k", MIB);
    assert_int_equal(write_bytes(0, MIB, 1), 0);
    ash_sim_hold(rig.world, "image", ASH_AIO_WRITE, 0, INT64_MAX);
    side_start(&side);
    reopened = started = 1;
    assert_int_equal(ash_co_spawn(&rig.loop->sched, reopen_body, NULL), 0);
    assert_int_equal(ash_co_spawn(&rig.loop->sched, mirror_body, NULL), 0);
    ash_co_sleep(20 * MS);
    ash_sim_release_all(rig.world);
    assert_int_equal(side_wait(&side), 0);
    while (reopened == 1 || started == 1) {
        ash_co_sleep(1 * MS);
    }
    assert_int_equal(reopened, 0);
    assert_int_equal(started, 0);
    assert_string_equal(ash_disk_node(disk)->driver->name, "mirror-top");
    assert_false(ash_node_writable(ash_disk_node(disk)));
    assert_int_equal(ash_disk_reopen(disk, ASH_NODE_WRITE, false, &error), 0);
    assert_int_equal(write_bytes(0, 65536, 3), 0);
    wait_for(ASH_JOB_READY);
    assert_int_equal(end_job(ASH_JOB_CANCEL), 0);
    expect_target(0, 3);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(a_disk_that_a_job_streams_into_cannot_become_read_only)
{
    assert_int_equal(rig_create(&rig, "base", MIB, "cluster_size=64k"), 0);
    open_image("cluster_size=64k,backing_file=base,backing_fmt=qcow2", MIB);
    assert_int_equal(start_job("{\"type\": \"stream\", \"speed\": 1}"), 0);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_PAUSE, 0, &error), 0);
    assert_int_equal(ash_disk_reopen(disk, 0, false, &error), -EACCES);
    assert_non_null(strstr(error.message, "cannot become read-only: a job writes to it"));
    assert_int_equal(ash_co_job_control(job, ASH_JOB_RESUME, 0, &error), 0);
    end_job(ASH_JOB_FORCE_CANCEL);
    assert_int_equal(ash_disk_reopen(disk, 0, false, &error), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* mirror: completes, holds the disk paused ........... leads it to the target
 * reopen:                                   waits for it ..................... reopens that */
QCOW2_TEST(a_disk_that_is_led_to_another_image_while_it_is_reopened_is_reopened_there)
{
    make_target(MIB);
    open_image("cluster_size=64k", MIB);
    assert_int_equal(write_bytes(0, MIB, 1), 0);
    assert_int_equal(start_mirror(", \"auto-finalize\": false"), 0);
    wait_for(ASH_JOB_READY);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_COMPLETE, 0, &error), 0);
    wait_for(ASH_JOB_PENDING);
    reopened = 1;
    assert_int_equal(ash_co_spawn(&rig.loop->sched, reopen_body, NULL), 0);
    ash_co_sleep(20 * MS);
    assert_int_equal(reopened, 1);
    assert_int_equal(end_job(ASH_JOB_FINALIZE), 0);
    while (reopened == 1) {
        ash_co_sleep(1 * MS);
    }
    assert_int_equal(reopened, 0);
    assert_string_equal(ash_disk_node(disk)->driver->name, "raw");
    assert_false(ash_node_writable(ash_disk_node(disk)));
    assert_int_equal(ash_disk_reopen(disk, ASH_NODE_WRITE, false, &error), 0);
    assert_int_equal(write_bytes(0, 512, 3), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_target(0, 3);
    expect_target(512, 1);
}

static void stream_body(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    started = start_job("{\"type\": \"stream\", \"state-file\": \"state\", \"speed\": 1}");
}

/* stream: marks the image, held ..................... ends
 * reopen:                       waits for it ............. is refused, as a job writes to it */
QCOW2_TEST(who_reopens_a_disk_waits_until_its_image_is_marked)
{
    assert_int_equal(rig_create(&rig, "base", MIB, "cluster_size=64k"), 0);
    open_image("cluster_size=64k,backing_file=base,backing_fmt=qcow2", MIB);
    ash_sim_hold(rig.world, "image", ASH_AIO_WRITE, 0, 512);
    reopened = started = 1;
    assert_int_equal(ash_co_spawn(&rig.loop->sched, stream_body, NULL), 0);
    while (ash_sim_held(rig.world) == 0) {
        ash_co_sleep(1 * MS);
    }
    assert_int_equal(ash_co_spawn(&rig.loop->sched, reopen_body, NULL), 0);
    ash_co_sleep(20 * MS);
    assert_int_equal(started, 1);
    assert_int_equal(reopened, 1);
    ash_sim_release_all(rig.world);
    while (reopened == 1 || started == 1) {
        ash_co_sleep(1 * MS);
    }
    assert_int_equal(reopened, -EACCES);
    assert_int_equal(started, 0);
    end_job(ASH_JOB_FORCE_CANCEL);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(a_disk_that_is_read_only_is_not_marked_and_can_be_written_later)
{
    make_target(512);
    open_image("cluster_size=64k", MIB);
    assert_int_equal(ash_disk_reopen(disk, 0, false, &error), 0);
    assert_int_equal(start_mirror(", \"state-file\": \"state\", \"state-unmarked\": true"),
                     -EACCES);
    assert_non_null(strstr(error.message, "'image' is not open for writing"));
    assert_int_equal(ash_disk_reopen(disk, ASH_NODE_WRITE, false, &error), 0);
    assert_int_equal(write_bytes(0, 512, 1), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* --- marks --- */

static uint64_t late_ns[4];
static unsigned late;

static void write_late(void *opaque)
{
    uint64_t *sleep_ns = opaque;
    uint8_t sector[512] = {1};
    ash_co_assert_inside();
    ash_co_sleep(*sleep_ns);
    assert_int_equal(ash_disk_write(disk, 0, sector, sizeof(sector), 0), 0);
    late--;
}

/* Guests take away the mark of an earlier job at any moment while the next one sets its own. */
QCOW2_TEST(guests_who_take_an_old_mark_away_leave_a_new_one)
{
    static const uint8_t ids[2][ASH_MARK_BYTES] = {{1}, {2}};
    struct ash_prng prng;
    open_image("cluster_size=64k", MIB);
    struct ash_node *node = ash_disk_node(disk);
    ash_prng_seed(&prng, 1);
    for (unsigned i = 0; i < 200; i++) {
        uint8_t autoclear;
        assert_int_equal(ash_mark_set(node, ids[0], &error), 0);
        ash_mark_release(node);
        for (late = 0; late < 4; late++) {
            late_ns[late] = ash_prng_below(&prng, 20 * MS);
            assert_int_equal(ash_co_spawn(&rig.loop->sched, write_late, &late_ns[late]), 0);
        }
        ash_co_sleep(ash_prng_below(&prng, 10 * MS));
        assert_int_equal(ash_mark_set(node, ids[1], &error), 0);
        while (late > 0) {
            ash_co_sleep(1 * MS);
        }
        assert_non_null(node->driver->marked(node));
        assert_memory_equal(node->driver->marked(node), ids[1], ASH_MARK_BYTES);
        assert_int_equal(ash_sim_file_read(rig.world, "image", 88, &autoclear, 1), 0);
        assert_int_equal(autoclear, 0x80); /* the topmost of 64 bits, big endian */
        ash_mark_release(node);
    }
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* --- errors --- */

/* Without power a request fails at once, so nothing but the job would ever run. */
QCOW2_TEST(what_fails_at_once_and_is_ignored_leaves_time_for_others)
{
    make_target(MIB);
    open_image("cluster_size=64k", MIB);
    assert_int_equal(write_bytes(0, MIB, 1), 0);
    assert_int_equal(start_mirror(", \"on-source-error\": \"ignore\", "
                                  "\"on-target-error\": \"ignore\""),
                     0);
    ash_sim_power_cut(rig.world, ASH_SIM_CUT_KEEP);
    ash_co_sleep(1000 * MS);
    assert_int_equal(end_job(ASH_JOB_FORCE_CANCEL), -ECANCELED);
    assert_true(ash_co_disk_close(disk, NULL) < 0);
}

/* --- what a job promises --- */

ASH_CO_FN static void begin_mirror(const char *more)
{
    make_target(MIB);
    open_image("cluster_size=64k", MIB);
    assert_int_equal(write_bytes(0, MIB, 1), 0);
    assert_int_equal(start_mirror(more), 0);
}

QCOW2_TEST(a_mirror_whose_last_flush_fails_fails_and_the_disk_stays)
{
    begin_mirror("");
    wait_for(ASH_JOB_READY);
    config.flush_error_per_mille = 1000;
    ash_sim_world_configure(rig.world, &config);
    assert_int_equal(write_bytes(0, 65536, 2), 0); /* so that there is something to flush */
    assert_int_equal(end_job(ASH_JOB_COMPLETE), -EIO);
    config.flush_error_per_mille = 0;
    ash_sim_world_configure(rig.world, &config);
    assert_string_equal(ash_disk_node(disk)->driver->name, "qcow2");
    (void)!ash_co_disk_close(disk, NULL);
}

QCOW2_TEST(what_is_dirty_when_a_mirror_ends_is_copied)
{
    begin_mirror("");
    wait_for(ASH_JOB_READY);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_PAUSE, 0, &error), 0);
    wait_for(ASH_JOB_STANDBY);
    assert_int_equal(write_bytes(0, 65536, 2), 0);
    expect_target(0, 1);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_CANCEL, 0, &error), 0);
    (void)!ash_co_job_control(job, ASH_JOB_RESUME, 0, NULL);
    wait_for(ASH_JOB_CONCLUDED);
    assert_int_equal(end_job(ASH_JOB_DISMISS), 0);
    expect_target(0, 2);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* guest: writes to both: to the source, held ... changes its buffer ... to the target */
QCOW2_TEST(a_blocking_mirror_gives_both_the_same_bytes)
{
    uint8_t *data = g_malloc(65536);
    struct side side = {.write = true, .bytes = 65536, .data = data};
    begin_mirror(", \"copy-mode\": \"write-blocking\"");
    wait_for(ASH_JOB_READY);
    ash_sim_hold(rig.world, "image", ASH_AIO_WRITE, 0, INT64_MAX);
    memset(data, 2, 65536);
    side_start(&side);
    assert_int_equal(ash_sim_held(rig.world), 1);
    expect_target(0, 1); /* the source comes first */
    memset(data, 3, 65536);
    ash_sim_release_all(rig.world);
    assert_int_equal(side_wait(&side), 0);
    assert_int_equal(end_job(ASH_JOB_CANCEL), 0);
    expect_bytes(0, 65536, 2);
    expect_target(0, 2);
    g_free(data);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(a_job_keeps_to_its_speed)
{
    make_target(16 * MIB);
    open_image("cluster_size=64k", 16 * MIB);
    for (uint64_t at = 0; at < 16 * MIB; at += MIB) {
        assert_int_equal(write_bytes(at, MIB, 1), 0);
    }
    uint64_t begin = ash_loop_now(rig.loop);
    assert_int_equal(start_mirror(", \"speed\": 2097152"), 0);
    wait_for(ASH_JOB_READY);
    assert_true(ash_loop_now(rig.loop) - begin > UINT64_C(5000) * MS);
    assert_int_equal(end_job(ASH_JOB_CANCEL), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(what_failed_and_stopped_a_job_is_done_when_it_goes_on)
{
    assert_int_equal(rig_create(&rig, "base", MIB, "cluster_size=64k"), 0);
    assert_int_equal(rig_open(&rig, "base", ASH_NODE_WRITE, &disk, &error), 0);
    assert_int_equal(write_bytes(0, MIB, 1), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    open_image("cluster_size=64k,backing_file=base,backing_fmt=qcow2", MIB);
    expect_bytes(0, MIB, 1); /* the tables are in memory */
    config.read_error_per_mille = 1000;
    ash_sim_world_configure(rig.world, &config);
    assert_int_equal(start_job("{\"type\": \"stream\", \"on-error\": \"stop\"}"), 0);
    wait_for(ASH_JOB_PAUSED);
    config.read_error_per_mille = 0;
    ash_sim_world_configure(rig.world, &config);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_RESUME, 0, &error), 0);
    wait_for(ASH_JOB_CONCLUDED);
    assert_int_equal(end_job(ASH_JOB_DISMISS), 0);
    assert_null(ash_disk_node(disk)->backing);
    expect_bytes(0, MIB, 1);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(a_job_reads_its_source_and_not_its_own_filter)
{
    unsigned jobs = 0;
    begin_mirror("");
    struct ash_node *filter = ash_disk_node(disk);
    assert_string_equal(filter->driver->name, "mirror-top");
    ash_list_for_each (edge, &filter->parents, struct ash_edge, child_link) {
        assert_int_not_equal(edge->role, ASH_ROLE_JOB);
    }
    ash_list_for_each (edge, &filter->file->child->parents, struct ash_edge, child_link) {
        jobs += edge->role == ASH_ROLE_JOB;
    }
    assert_int_equal(jobs, 1);
    wait_for(ASH_JOB_READY);
    assert_int_equal(end_job(ASH_JOB_CANCEL), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* --- the mailing lists' cases, and targets that never answer --- */

/* A target that answers none of these: the job ends, and the guest goes on. */
ASH_CO_FN static void force_end(const char *more, const char *held, int op)
{
    make_target(MIB);
    open_image("cluster_size=64k", MIB);
    assert_int_equal(write_bytes(0, MIB, 1), 0);
    ash_sim_hold(rig.world, held, op, 0, INT64_MAX);
    assert_int_equal(start_mirror(more), 0);
    for (unsigned i = 0; ash_sim_held(rig.world) == 0; i++) {
        assert_true(i < 30000);
        ash_co_sleep(1 * MS);
    }
    uint64_t begin_ns = ash_loop_now(rig.loop);
    assert_int_equal(end_job(ASH_JOB_FORCE_CANCEL), -ECANCELED);
    assert_true(ash_loop_now(rig.loop) - begin_ns < 100 * MS); /* without the grace of what reads */
    assert_int_equal(write_bytes(0, 65536, 2), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    assert_true(ash_sim_held(rig.world) > 0);
    ash_sim_release_all(rig.world); /* the loop outlives what is on its way */
    ash_co_sleep(100 * MS);
}

QCOW2_TEST(force_ends_a_mirror_whose_target_never_answers)
{
    force_end("", "target", ASH_AIO_WRITE);
}

/* The kernel copies, and so has the source in its hands. */
QCOW2_TEST(force_ends_a_mirror_whose_target_never_answers_the_kernel)
{
    force_end(", \"use-copy-range\": true", "image", ASH_AIO_COPY);
}

/* below:  its filter stands between the image and base ............... goes
 * mirror:        the kernel copies from the image, held; force: waits ...... ends */
QCOW2_TEST(a_forced_mirror_waits_for_the_kernel_where_another_jobs_filter_is_below)
{
    assert_int_equal(rig_create(&rig, "base", MIB, "cluster_size=64k"), 0);
    make_target(MIB);
    open_image("cluster_size=64k,backing_file=base,backing_fmt=qcow2", MIB);
    assert_int_equal(write_bytes(0, MIB, 1), 0);
    const char *name = ash_disk_node(disk)->backing->child->name;
    assert_int_equal(ash_sim_file_write(rig.world, "other", MIB - 1, "", 1), 0);
    json_t *description =
        json_pack("{s:s, s:s, s:s, s:b, s:s, s:s}", "type", "mirror", "job-id", "below", "device",
                  name, "auto-dismiss", 0, "target", "other", "format", "raw");
    struct ash_job *below;
    assert_int_equal(ash_co_job_start(rig.loop, description, NULL, NULL, &below, &error), 0);
    json_decref(description);
    while (ash_job_state(below) != ASH_JOB_READY) {
        ash_co_sleep(1 * MS);
    }
    ash_sim_hold(rig.world, "image", ASH_AIO_COPY, 0, INT64_MAX);
    assert_int_equal(start_mirror(", \"use-copy-range\": true"), 0);
    for (unsigned i = 0; ash_sim_held(rig.world) == 0; i++) {
        assert_true(i < 3000);
        ash_co_sleep(1 * MS);
    }
    assert_int_equal(ash_co_job_control(job, ASH_JOB_FORCE_CANCEL, 0, &error), 0);
    ash_co_sleep(1000 * MS);
    assert_int_not_equal(ash_job_state(job), ASH_JOB_CONCLUDED); /* the filter could not go */
    assert_int_equal(ash_co_job_control(below, ASH_JOB_CANCEL, 0, &error), 0);
    ash_co_sleep(100 * MS);
    ash_sim_release_all(rig.world);
    assert_int_equal(end_job(ASH_JOB_DISMISS), -ECANCELED);
    while (ash_job_state(below) != ASH_JOB_CONCLUDED) {
        ash_co_sleep(1 * MS);
    }
    assert_int_equal(below->ret, 0);
    assert_int_equal(ash_co_job_control(below, ASH_JOB_DISMISS, 0, &error), 0);
    ash_job_unref(below);
    expect_bytes(0, MIB, 1);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

static bool guest_stops;
static unsigned guest_writes;

static void endless_body(void *opaque)
{
    static uint8_t data[65536];
    (void)opaque;
    ash_co_assert_inside();
    while (!guest_stops) {
        memset(data, 7, sizeof(data));
        uint64_t offset = guest_writes++ % 16 * sizeof(data);
        assert_int_equal(ash_disk_write(disk, offset, data, sizeof(data), 0), 0);
    }
    guest_stops = false;
}

/* guest:  writes, writes, writes .......................... finds the disk as it was
 * mirror: ready ............ is cancelled, ends well while they come */
QCOW2_TEST(a_ready_mirror_is_cancelled_under_endless_writes)
{
    begin_mirror("");
    guest_stops = false;
    guest_writes = 0;
    wait_for(ASH_JOB_READY);
    assert_int_equal(ash_co_spawn(&rig.loop->sched, endless_body, NULL), 0);
    ash_co_sleep(50 * MS);
    assert_int_equal(end_job(ASH_JOB_CANCEL), 0);
    unsigned before = guest_writes;
    ash_co_sleep(50 * MS);
    assert_true(guest_writes > before);
    guest_stops = true;
    while (guest_stops) {
        ash_co_sleep(1 * MS);
    }
    expect_target(0, 7);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

static void dismiss_at_the_end(void *opaque, struct ash_job *ended, enum ash_job_event event)
{
    bool *dismissed = opaque;
    (void)event;
    if (ash_job_state(ended) == ASH_JOB_CONCLUDED && !*dismissed) {
        assert_int_equal(ash_job_control(ended, ASH_JOB_DISMISS, 0, NULL, NULL), 0);
        *dismissed = true;
    }
}

QCOW2_TEST(a_job_is_dismissed_in_its_own_event)
{
    bool dismissed = false;
    open_image("cluster_size=64k", MIB);
    json_t *description = json_pack("{s:s, s:s, s:s, s:b}", "type", "stream", "job-id", "job",
                                    "device", ash_disk_node(disk)->name, "auto-dismiss", 0);
    int ret = ash_co_job_start(rig.loop, description, dismiss_at_the_end, &dismissed, &job, &error);
    json_decref(description);
    assert_int_equal(ret, 0);
    wait_for(ASH_JOB_NULL);
    assert_true(dismissed);
    assert_null(ash_job_find(rig.loop, "job"));
    ash_job_unref(job);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(a_copy_of_a_disk_that_shrank_is_as_short_as_it),
        RUN(a_disk_may_grow_while_it_is_copied),
        RUN(a_filter_that_waited_for_a_resize_has_the_new_length),
        RUN(a_write_before_a_blocking_mirror_has_marked_all_is_copied_with_its_cluster),
        RUN(a_write_beyond_the_end_of_a_mirrors_target_is_copied_later),
        RUN(a_filter_put_in_while_a_disk_is_reopened_is_reopened_with_it),
        RUN(a_disk_that_a_job_streams_into_cannot_become_read_only),
        RUN(a_disk_that_is_led_to_another_image_while_it_is_reopened_is_reopened_there),
        RUN(who_reopens_a_disk_waits_until_its_image_is_marked),
        RUN(a_disk_that_is_read_only_is_not_marked_and_can_be_written_later),
        RUN(guests_who_take_an_old_mark_away_leave_a_new_one),
        RUN(what_fails_at_once_and_is_ignored_leaves_time_for_others),
        RUN(a_mirror_whose_last_flush_fails_fails_and_the_disk_stays),
        RUN(what_is_dirty_when_a_mirror_ends_is_copied),
        RUN(a_blocking_mirror_gives_both_the_same_bytes),
        RUN(a_job_keeps_to_its_speed),
        RUN(what_failed_and_stopped_a_job_is_done_when_it_goes_on),
        RUN(a_job_reads_its_source_and_not_its_own_filter),
        RUN(force_ends_a_mirror_whose_target_never_answers),
        RUN(force_ends_a_mirror_whose_target_never_answers_the_kernel),
        RUN(a_forced_mirror_waits_for_the_kernel_where_another_jobs_filter_is_below),
        RUN(a_ready_mirror_is_cancelled_under_endless_writes),
        RUN(a_job_is_dismissed_in_its_own_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
