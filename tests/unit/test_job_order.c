/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What jobs do to files, and in which order: what a cut of the power would find at the moment at
 * which a header names another backing file, what is read and written at all, and who is kept away
 * from a chain meanwhile. */
#include "tests/unit/qcow2_disk.h"
#include <jansson.h>
#include "job/job.h"

static struct ash_job *job;

ASH_CO_FN static int start_on(const char *device, const char *options, struct ash_job **result)
{
    json_t *description = json_loads(options, 0, NULL);
    assert_non_null(description);
    json_object_set_new(description, "job-id", json_string(device));
    json_object_set_new(description, "device", json_string(device));
    json_object_set_new(description, "auto-dismiss", json_false());
    int ret = ash_co_job_start(rig.loop, description, NULL, NULL, result, &error);
    json_decref(description);
    return ret;
}

ASH_CO_FN static void start(const char *options)
{
    int ret = start_on(ash_disk_node(disk)->name, options, &job);
    if (ret < 0) {
        fail_msg("%s", error.message);
    }
}

ASH_CO_FN static void wait_for(enum ash_job_state state)
{
    for (unsigned i = 0; ash_job_state(job) != state; i++) {
        assert_true(i < 30000);
        ash_co_sleep(1 * MS);
    }
}

ASH_CO_FN static int end(void)
{
    wait_for(ASH_JOB_CONCLUDED);
    int ret = job->ret;
    assert_int_equal(ash_co_job_control(job, ASH_JOB_DISMISS, 0, &error), 0);
    ash_job_unref(job);
    return ret;
}

/* A closed image that holds `value` in its first `filled` bytes. */
ASH_CO_FN static void make_layer(const char *name, const char *options, uint64_t bytes,
                                 uint64_t filled, uint8_t value)
{
    assert_int_equal(rig_create(&rig, name, bytes, options), 0);
    assert_int_equal(rig_open(&rig, name, ASH_NODE_WRITE, &disk, &error), 0);
    if (filled > 0) {
        assert_int_equal(write_bytes(0, filled, value), 0);
    }
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

#define ON(name) "cluster_size=64k,backing_fmt=qcow2,backing_file=" name

/* --- what a cut would find --- */

/* The first sector of `image` until its header changes, and then all files as they were: what has
 * not been written by then would be lost. */
static struct {
    uint8_t header[512];
    bool taken;
} cut;

static void copy_file(const char *from, const char *to)
{
    uint64_t bytes = (uint64_t)ash_sim_file_bytes(rig.world, from);
    uint8_t *data = g_malloc(bytes);
    assert_int_equal(ash_sim_file_read(rig.world, from, 0, data, bytes), 0);
    assert_int_equal(ash_sim_file_write(rig.world, to, 0, data, bytes), 0);
    g_free(data);
}

static void watch_header(void *opaque, const struct ash_sim_event *event)
{
    uint8_t now[sizeof(cut.header)];
    (void)opaque;
    if (cut.taken || event->phase != ASH_SIM_CARRIED_OUT || event->aio->op != ASH_AIO_WRITE ||
        event->path == NULL || strcmp(event->path, "image") != 0) {
        return;
    }
    assert_int_equal(ash_sim_file_read(rig.world, "image", 0, now, sizeof(now)), 0);
    if (memcmp(now, cut.header, sizeof(now)) != 0) {
        cut.taken = true;
        copy_file("image", "cut-image");
        copy_file("base", "cut-base");
    }
}

static void arm_cut(void)
{
    cut.taken = false;
    assert_int_equal(ash_sim_file_read(rig.world, "image", 0, cut.header, sizeof(cut.header)), 0);
    ash_sim_observe(rig.world, watch_header, NULL);
}

/* Opens what the cut left; the chain as the header says it, but of copies. */
ASH_CO_FN static void open_cut(bool on_base)
{
    ash_sim_observe(rig.world, NULL, NULL);
    assert_true(cut.taken);
    json_t *description = json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver",
                                    "file", "filename", "cut-image");
    if (on_base) {
        json_object_set_new(description, "backing",
                            json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver",
                                      "file", "filename", "cut-base"));
    }
    assert_int_equal(ash_co_disk_open(rig.loop, description, 0, &disk, &error), 0);
    json_decref(description);
}

QCOW2_TEST(a_stream_links_what_it_copied_before_the_header_gives_up_the_base)
{
    make_layer("base", "cluster_size=64k", MIB, MIB, 1);
    open_image(ON("base"), MIB);
    expect_bytes(0, MIB, 1);
    arm_cut();
    start("{\"type\": \"stream\"}");
    assert_int_equal(end(), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    open_cut(false);
    assert_null(ash_disk_node(disk)->backing);
    expect_bytes(0, MIB, 1);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(a_commit_is_stable_in_base_before_the_header_names_it)
{
    make_layer("base", "cluster_size=64k", MIB, MIB / 2, 1);
    make_layer("mid", ON("base"), MIB, MIB, 2);
    open_image(ON("mid"), MIB);
    arm_cut();
    start("{\"type\": \"commit\", \"top\": \"mid\", \"base\": \"base\"}");
    assert_int_equal(end(), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    open_cut(true);
    expect_bytes(0, MIB, 2);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* --- a stream and the length of its disk --- */

/* Where mid ends the disk reads zeroes; base has data there. The stream has passed it, then the
 * disk gets shorter and longer again, and lacks the zeroes once more. */
QCOW2_TEST(what_a_disk_lacks_when_it_grew_again_is_streamed_at_the_end)
{
    make_layer("base", "cluster_size=64k", MIB, MIB, 1);
    make_layer("mid", ON("base"), MIB / 2, MIB / 2, 2);
    open_image(ON("mid"), MIB);
    start("{\"type\": \"stream\", \"base\": \"base\", \"auto-finalize\": false}");
    wait_for(ASH_JOB_PENDING);
    assert_int_equal(ash_co_disk_resize(disk, MIB / 2, ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF, &error),
                     0);
    assert_int_equal(ash_co_disk_resize(disk, MIB, 0, ASH_PREALLOC_OFF, &error), 0);
    expect_bytes(MIB / 2, MIB / 2, 0);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_FINALIZE, 0, &error), 0);
    assert_int_equal(end(), 0);
    assert_string_equal(ash_disk_node(disk)->backing->child->filename, "base");
    expect_bytes(0, MIB / 2, 2);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    assert_int_equal(rig_open(&rig, "image", 0, &disk, &error), 0); /* nothing is remembered */
    expect_bytes(0, MIB / 2, 2);
    expect_bytes(MIB / 2, MIB / 2, 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* --- what is read and written --- */

static uint64_t bytes_read;
static uint64_t bytes_written;

/* Of data: what is longer than a table. */
static void count_transfers(void *opaque, const struct ash_sim_event *event)
{
    (void)opaque;
    if (event->phase != ASH_SIM_CARRIED_OUT || event->path == NULL) {
        return;
    }
    bytes_read += event->aio->op == ASH_AIO_READ ? event->aio->bytes : 0;
    bytes_written += event->aio->op == ASH_AIO_WRITE ? event->aio->bytes : 0;
}

ASH_CO_FN static void mirror(uint64_t bytes)
{
    assert_int_equal(ash_sim_file_write(rig.world, "target", bytes - 1, "", 1), 0);
    bytes_read = bytes_written = 0;
    ash_sim_observe(rig.world, count_transfers, NULL);
    start("{\"type\": \"mirror\", \"target\": \"json:{\\\"driver\\\":\\\"raw\\\",\\\"file\\\":"
          "{\\\"driver\\\":\\\"file\\\",\\\"filename\\\":\\\"target\\\"}}\"}");
    wait_for(ASH_JOB_READY);
    ash_sim_observe(rig.world, NULL, NULL);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_CANCEL, 0, &error), 0);
    assert_int_equal(end(), 0);
}

QCOW2_TEST(what_is_copied_is_read_once)
{
    open_image("cluster_size=64k", MIB);
    assert_int_equal(write_bytes(0, MIB, 1), 0);
    mirror(MIB);
    if (bytes_read < MIB || bytes_read >= MIB + MIB / 2) {
        fail_msg("%" PRIu64 " bytes were read", bytes_read);
    }
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* A raw file with a hole: what is not known of it would be read. */
QCOW2_TEST(what_is_known_to_be_zero_is_neither_read_nor_written_as_data)
{
    assert_int_equal(ash_sim_file_write(rig.world, "hole", MIB - 1, "", 1), 0);
    json_t *description = json_pack("{s:s, s:{s:s, s:s}}", "driver", "raw", "file", "driver",
                                    "file", "filename", "hole");
    assert_int_equal(ash_co_disk_open(rig.loop, description, ASH_NODE_WRITE, &disk, &error), 0);
    json_decref(description);
    mirror(MIB);
    assert_true(bytes_read < MIB / 2);
    assert_true(bytes_written < MIB / 2);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* A part of a cluster is zero in base. */
QCOW2_TEST(a_stream_of_a_whole_chain_writes_no_zeroes)
{
    make_layer("base", "cluster_size=4k", MIB, 0, 0);
    assert_int_equal(rig_open(&rig, "base", ASH_NODE_WRITE, &disk, &error), 0);
    assert_int_equal(write_bytes(4096, 4096, 1), 0);
    assert_int_equal(ash_disk_zero(disk, 4096, 4096, 0), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    open_image(ON("base"), MIB);
    start("{\"type\": \"stream\"}");
    assert_int_equal(end(), 0);
    expect_bytes(0, MIB, 0);
    struct ash_status status;
    struct ash_node *node = ash_disk_node(disk);
    assert_int_equal(ash_chain_status(node, NULL, 0, MIB, 0, &status), 0);
    assert_int_equal(status.flags & ASH_STATUS_ALLOCATED, 0);
    assert_int_equal(status.bytes, MIB);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(an_overlay_names_the_image_that_it_was_put_on)
{
    open_image("cluster_size=64k", MIB);
    assert_int_equal(write_bytes(0, MIB, 1), 0);
    start("{\"type\": \"snapshot\", \"snapshot-file\": \"over\"}");
    assert_int_equal(end(), 0);
    assert_int_equal(write_bytes(0, 65536, 2), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    assert_int_equal(rig_open(&rig, "over", 0, &disk, &error), 0);
    expect_bytes(0, 65536, 2);
    expect_bytes(65536, MIB - 65536, 1);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* --- backups and guests --- */

/* Of a full image, paused before it has copied anything. */
ASH_CO_FN static void paused_backup(const char *more)
{
    assert_int_equal(ash_sim_file_write(rig.world, "target", MIB - 1, "", 1), 0);
    open_image("cluster_size=64k", MIB);
    assert_int_equal(write_bytes(0, MIB, 1), 0);
    char *text = g_strdup_printf("{\"type\": \"backup\", \"target\": \"target\", "
                                 "\"format\": \"raw\"%s}",
                                 more);
    start(text);
    g_free(text);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_PAUSE, 0, &error), 0);
    wait_for(ASH_JOB_PAUSED);
}

static void expect_target(uint64_t offset, uint8_t value)
{
    uint8_t byte;
    assert_int_equal(ash_sim_file_read(rig.world, "target", offset, &byte, 1), 0);
    assert_int_equal(byte, value);
}

/* guest: has its cluster copied, held ............................ is told
 * job:                                goes on, copies the rest, waits, ends */
QCOW2_TEST(a_backup_waits_for_what_a_guest_copies)
{
    struct side side = {.write = true, .bytes = 65536, .data = g_malloc(65536)};
    memset(side.data, 2, 65536);
    paused_backup("");
    ash_sim_hold(rig.world, "target", ASH_AIO_WRITE, 0, 65536);
    side_start(&side);
    assert_int_equal(ash_sim_held(rig.world), 1);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_RESUME, 0, &error), 0);
    ash_co_sleep(500 * MS);
    assert_int_equal(ash_job_state(job), ASH_JOB_RUNNING);
    expect_target(MIB - 1, 1);
    ash_sim_release_all(rig.world);
    assert_int_equal(side_wait(&side), 0);
    assert_int_equal(end(), 0);
    expect_target(0, 1);
    g_free(side.data);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(what_guests_had_copied_to_the_fleecing_image_gets_to_the_target)
{
    assert_int_equal(rig_create(&rig, "fleece", MIB, "cluster_size=64k"), 0);
    paused_backup(", \"fleecing\": \"json:{\\\"driver\\\":\\\"qcow2\\\",\\\"file\\\":{"
                  "\\\"driver\\\":\\\"file\\\",\\\"filename\\\":\\\"fleece\\\"}}\"");
    assert_int_equal(write_bytes(0, 65536, 2), 0);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_RESUME, 0, &error), 0);
    assert_int_equal(end(), 0);
    expect_target(0, 1);
    expect_target(MIB - 1, 1);
    expect_bytes(0, 65536, 2);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* guest: has its cluster copied, held .... gives up, is told
 * job:                                           fails, is gone
 * copy:                          held ............................ ends by itself */
QCOW2_TEST(a_copy_that_was_given_up_ends_when_its_backup_is_gone)
{
    struct side side = {.write = true, .bytes = 65536, .data = g_malloc(65536)};
    memset(side.data, 2, 65536);
    paused_backup(", \"cbw-timeout\": 1");
    ash_sim_hold(rig.world, "target", ASH_AIO_WRITE, 0, 65536);
    side_start(&side);
    assert_int_equal(ash_sim_held(rig.world), 1);
    assert_int_equal(side_wait(&side), 0);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_FORCE_CANCEL, 0, &error), 0);
    assert_true(end() < 0);
    ash_sim_release_all(rig.world);
    ash_co_sleep(100 * MS);
    expect_bytes(0, 65536, 2);
    g_free(side.data);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* --- who is kept away --- */

QCOW2_TEST(a_chain_that_a_job_works_on_is_not_given_to_another)
{
    struct ash_job *other;
    make_layer("base", "cluster_size=64k", MIB, MIB, 1);
    make_layer("mid", ON("base"), MIB, MIB / 2, 2);
    open_image(ON("mid"), MIB);
    start("{\"type\": \"stream\", \"speed\": 1}");
    const char *mid = ash_disk_node(disk)->backing->child->name;
    assert_int_equal(start_on(mid, "{\"type\": \"stream\"}", &other), -EBUSY);
    assert_non_null(strstr(error.message, "another job works on"));
    assert_int_equal(ash_co_job_control(job, ASH_JOB_FORCE_CANCEL, 0, &error), 0);
    assert_int_equal(end(), -ECANCELED);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* A commit that is refused takes nothing from the one that runs. */
QCOW2_TEST(a_refused_commit_leaves_the_running_one_its_base)
{
    struct ash_job *other;
    make_layer("base", "cluster_size=64k", MIB, MIB, 1);
    open_image(ON("base"), MIB);
    assert_int_equal(write_bytes(0, 65536, 2), 0);
    const char *name = ash_disk_node(disk)->name;
    start("{\"type\": \"commit\", \"speed\": 1}");
    json_t *description =
        json_pack("{s:s, s:s, s:s}", "type", "commit", "job-id", "second", "device", name);
    assert_int_equal(ash_co_job_start(rig.loop, description, NULL, NULL, &other, &error), -EBUSY);
    json_decref(description);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_SET_SPEED, 0, &error), 0);
    wait_for(ASH_JOB_READY);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_CANCEL, 0, &error), 0);
    assert_int_equal(end(), 0);
    expect_bytes(0, 65536, 2);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

static void open_other(struct ash_disk **other, const char *base)
{
    ash_co_assert_inside();
    json_t *description = json_pack("{s:s, s:{s:s, s:s}, s:s}", "driver", "qcow2", "file", "driver",
                                    "file", "filename", "other", "backing", base);
    assert_int_equal(ash_co_disk_open(rig.loop, description, 0, other, &error), 0);
    json_decref(description);
}

QCOW2_TEST(nothing_is_committed_into_a_base_that_others_see)
{
    struct ash_disk *other;
    make_layer("base", "cluster_size=64k", MIB, MIB, 1);
    make_layer("mid", ON("base"), MIB, MIB / 2, 2);
    make_layer("other", "cluster_size=64k", MIB, 0, 0);
    open_image(ON("mid"), MIB);
    const char *name = ash_disk_node(disk)->name;
    open_other(&other, ash_disk_node(disk)->backing->child->backing->child->name);
    assert_int_equal(start_on(name, "{\"type\": \"commit\"}", &job), -EBUSY);
    assert_int_equal(start_on(name, "{\"type\": \"commit\", \"top\": \"mid\"}", &job), -EBUSY);
    assert_non_null(strstr(error.message, "is used by others than the chain"));
    assert_int_equal(ash_co_disk_close(other, &error), 0);
    start("{\"type\": \"commit\", \"top\": \"mid\"}");
    assert_int_equal(end(), 0);
    expect_bytes(0, MIB / 2, 2);
    expect_bytes(MIB / 2, MIB / 2, 1);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(a_stream_links_what_it_copied_before_the_header_gives_up_the_base),
        RUN(a_commit_is_stable_in_base_before_the_header_names_it),
        RUN(what_a_disk_lacks_when_it_grew_again_is_streamed_at_the_end),
        RUN(what_is_copied_is_read_once),
        RUN(what_is_known_to_be_zero_is_neither_read_nor_written_as_data),
        RUN(a_stream_of_a_whole_chain_writes_no_zeroes),
        RUN(an_overlay_names_the_image_that_it_was_put_on),
        RUN(a_backup_waits_for_what_a_guest_copies),
        RUN(what_guests_had_copied_to_the_fleecing_image_gets_to_the_target),
        RUN(a_copy_that_was_given_up_ends_when_its_backup_is_gone),
        RUN(a_chain_that_a_job_works_on_is_not_given_to_another),
        RUN(a_refused_commit_leaves_the_running_one_its_base),
        RUN(nothing_is_committed_into_a_base_that_others_see),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
