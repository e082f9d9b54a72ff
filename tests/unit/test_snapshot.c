/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Live snapshots: of several disks at one moment, with what happens to bitmaps at the same, and all
 * or nothing of it. */
#include "tests/unit/unit.h"
#include <errno.h>
#include "block/bitmap/bitmap.h"
#include "block/graph/block.h"
#include "block/image/image.h"
#include "tests/unit/job_rig.h"

#define BYTES (256 * KiB)

static const char *const images[] = {"i0", "i1"};
static const char *const overlays[] = {"o0", "o1"};

ASH_CO_FN static struct ash_disk *open_image(struct core *core, const char *name, uint32_t flags)
{
    json_t *description = json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver",
                                    "file", "filename", core_file(core, name, -1));
    if ((flags & ASH_NODE_WRITE) != 0) {
        json_object_set_new(description, "node-name", json_string(name));
    }
    return core_open_disk(core, description, flags);
}

ASH_CO_FN static struct ash_disk *new_disk(struct core *core, const char *name)
{
    assert_int_equal(
        ash_image_create(core->loop, core_file(core, name, -1), "qcow2", BYTES, NULL, NULL), 0);
    return open_image(core, name, ASH_NODE_WRITE | ASH_NODE_DISCARD);
}

ASH_CO_FN static uint64_t counted(struct core *core, const char *name)
{
    return job_counted(open_image(core, name, 0));
}

static json_t *describe(struct core *core, unsigned i)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:b}", "type", "snapshot", "device", images[i],
                     "snapshot-file", core_file(core, overlays[i], -1), "snapshot-node-name",
                     overlays[i], "auto-dismiss", 0);
}

ASH_CO_FN static int start(struct core *core, json_t *all, struct ash_job **jobs,
                           struct ash_error *error)
{
    int ret = ash_co_job_start_all(core->loop, all, NULL, NULL, jobs, error);
    json_decref(all);
    return ret;
}

ASH_CO_FN static void both_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct job_counter counter = {{new_disk(core, images[0]), new_disk(core, images[1])}, 1, false};
    struct ash_job *jobs[4];
    struct ash_bitmap *bitmap;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_node *first = ash_disk_node(counter.disk[0]);
    core_spawn(core, job_count_on, &counter);
    ash_co_sleep(ash_prng_below(&core->prng, 100000));
    assert_int_equal(ash_bitmap_new(first, "b", 4096, &bitmap, NULL), 0);
    ash_bitmap_set(bitmap, 0, BYTES);

    /* The last of them cannot begin: nothing has happened. */
    int ret = start(core,
                    json_pack("[o, o, {s:s, s:s, s:s}, {s:s, s:s, s:s}]", describe(core, 0),
                              describe(core, 1), "type", "bitmap-clear", "device", "i0", "bitmap",
                              "b", "type", "bitmap-enable", "device", "i1", "bitmap", "nothing"),
                    jobs, &error);
    if (ret != -ENOENT) {
        print_message("%s\n", error.message);
    }
    assert_int_equal(ret, -ENOENT);
    assert_ptr_equal(ash_disk_node(counter.disk[0]), first);
    assert_null(ash_node_find(core->loop, overlays[0]));
    assert_int_equal(ash_bitmap_dirty_bytes(bitmap), BYTES);

    ret = start(core,
                json_pack("[o, o, {s:s, s:s, s:s}, {s:s, s:s, s:s, s:i, s:b}]", describe(core, 0),
                          describe(core, 1), "type", "bitmap-clear", "device", "i0", "bitmap", "b",
                          "type", "bitmap-add", "device", "i1", "bitmap", "n", "granularity", 512,
                          "disabled", 1),
                jobs, &error);
    if (ret < 0) {
        print_message("%s\n", error.message);
    }
    assert_int_equal(ret, 0);
    uint64_t at = counter.value;
    assert_int_equal(job_finish(core, jobs[0]), 0);
    assert_int_equal(job_finish(core, jobs[1]), 0);
    ash_job_unref(jobs[2]);
    ash_job_unref(jobs[3]);
    ash_co_sleep(100000);
    counter.stop = true;
    core_join(core);
    assert_true(counter.value > at);
    assert_string_equal(ash_disk_node(counter.disk[0])->name, overlays[0]);
    assert_false(ash_node_writable(first));
    assert_int_equal(ash_bitmap_dirty_bytes(bitmap), 0);
    assert_non_null(ash_bitmap_find(ash_node_find(core->loop, "i1"), "n"));
    assert_int_equal(ash_co_disk_close(counter.disk[0], NULL), 0);
    assert_int_equal(ash_co_disk_close(counter.disk[1], NULL), 0);

    uint64_t kept[2] = {counted(core, images[0]), counted(core, images[1])};
    assert_true(kept[1] <= kept[0] && kept[0] - kept[1] <= 1);
    assert_true(kept[0] <= at);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(counted(core, overlays[i]), counter.value - 1);
    }
}

static void snapshots_of_a_transaction_are_of_one_moment(void **state)
{
    (void)state;
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(core_is_real() ? 5 : 60); seed++) {
        struct core core;
        core_up(&core, seed);
        core_run(&core, both_body, NULL);
        core_down(&core);
    }
}

ASH_CO_FN static void bad_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct ash_disk *disk = new_disk(core, images[0]);
    struct ash_disk *other = new_disk(core, images[1]);
    struct ash_job *job;
    struct ash_error error = ASH_ERROR_INIT;
    json_t *description = json_pack("{s:s, s:s}", "type", "snapshot", "device", images[0]);
    assert_int_equal(ash_co_job_start(core->loop, description, NULL, NULL, &job, &error), -EINVAL);
    assert_non_null(strstr(error.message, "'snapshot-file'"));
    json_object_set_new(description, "overlay", json_string(images[1]));
    assert_int_equal(ash_co_job_start(core->loop, description, NULL, NULL, &job, &error), -EBUSY);
    json_decref(description);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    assert_int_equal(ash_co_disk_close(other, NULL), 0);
}

static void an_overlay_that_is_in_use_is_refused(void **state)
{
    struct core core;
    (void)state;
    core_up(&core, core_first_seed());
    core_run(&core, bad_body, NULL);
    core_down(&core);
}

/* The guests' flushes will reach the overlay, and no longer the image. */
ASH_CO_FN static void unstable_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct ash_disk *disk = new_disk(core, images[0]);
    struct ash_job *job;
    uint8_t sector[512] = {1};
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    json_t *description = json_pack("{s:s, s:s, s:{s:s, s:[{s:s, s:i}], s:{s:s, s:s}}}", "driver",
                                    "qcow2", "node-name", images[0], "file", "driver", "fault",
                                    "inject-error", "iotype", "flush", "errno", EIO, "file",
                                    "driver", "file", "filename", core_file(core, images[0], -1));
    assert_int_equal(ash_co_disk_open(core->loop, description, ASH_NODE_WRITE, &disk, NULL), 0);
    json_decref(description);
    assert_int_equal(ash_disk_write(disk, 0, sector, sizeof(sector), 0), 0);
    description = describe(core, 0);
    assert_int_equal(ash_co_job_start(core->loop, description, NULL, NULL, &job, NULL), -EIO);
    json_decref(description);
    assert_string_equal(ash_disk_node(disk)->name, images[0]);
    assert_int_equal(ash_co_disk_close(disk, NULL), -EIO);
}

static void an_image_that_cannot_be_flushed_gets_no_overlay(void **state)
{
    struct core core;
    (void)state;
    core_up(&core, core_first_seed());
    core_run(&core, unstable_body, NULL);
    core_down(&core);
}

/* The power is cut when the second of two images is flushed, and the first is led back without it.
 */
ASH_CO_FN static void cut_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct ash_disk *disk[2];
    struct ash_disk *overlay[2];
    struct ash_job *jobs[2];
    json_t *all = json_array();
    uint8_t sector[512] = {1};
    for (unsigned i = 0; i < 2; i++) {
        disk[i] = new_disk(core, images[i]);
        overlay[i] = new_disk(core, overlays[i]);
        json_array_append_new(all, json_pack("{s:s, s:s, s:s}", "type", "snapshot", "device",
                                             images[i], "overlay", overlays[i]));
        ash_node_ref(ash_disk_node(overlay[i]));
    }
    assert_int_equal(ash_disk_write(disk[1], 0, sector, sizeof(sector), 0), 0);
    struct ash_node *nodes[2] = {ash_disk_node(overlay[0]), ash_disk_node(overlay[1])};
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(ash_co_disk_close(overlay[i], NULL), 0);
    }
    ash_sim_power_cut_at(core->world, 1, ASH_SIM_CUT_DROP);
    assert_int_equal(start(core, all, jobs, NULL), -EIO);
    assert_true(ash_sim_power_is_cut(core->world));
    for (unsigned i = 0; i < 2; i++) {
        (void)!ash_co_disk_close(disk[i], NULL);
        ash_node_unref(nodes[i]);
    }
}

static void snapshots_of_a_machine_without_power_are_given_up(void **state)
{
    struct core core;
    (void)state;
    if (core_is_real()) {
        skip();
    }
    core_up(&core, core_first_seed());
    core_run(&core, cut_body, NULL);
    core_down(&core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshots_of_a_transaction_are_of_one_moment),
        cmocka_unit_test(an_overlay_that_is_in_use_is_refused),
        cmocka_unit_test(an_image_that_cannot_be_flushed_gets_no_overlay),
        cmocka_unit_test(snapshots_of_a_machine_without_power_are_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
