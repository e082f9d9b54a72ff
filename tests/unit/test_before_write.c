/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-before-write and snapshot-access: what a disk was stays readable, and who writes to it waits
 * no longer than he has to. */
#include "tests/unit/unit.h"
#include <ashlar/disk.h>
#include "block/bitmap/bitmap.h"
#include "block/filter/fault.h"
#include "block/graph/graft.h"
#include "tests/unit/job_rig.h"

#define CLUSTER (64 * KiB)
#define DISK_BYTES (5 * CLUSTER + 5120)
#define SECOND_NS UINT64_C(1000000000)

struct rig {
    struct ash_node *target; /* a fault filter */
    struct ash_disk *disk;
    struct ash_disk *snapshot;
};

/* A disk of bytes of id 1 below the filter, with these options; `faults` are the target's. */
ASH_CO_FN static void rig_up(struct core *core, struct rig *rig, json_t *options, json_t *faults)
{
    const uint32_t writable = ASH_NODE_WRITE | ASH_NODE_DISCARD;
    (void)core_file(core, "disk", DISK_BYTES);
    (void)core_file(core, "target", DISK_BYTES);
    struct ash_disk *disk = core_open_disk(core, job_describe_raw(core, "disk", -1), writable);
    uint8_t *buffer = g_malloc(DISK_BYTES);
    guest_fill(1, 0, buffer, DISK_BYTES);
    assert_int_equal(ash_disk_write(disk, 0, buffer, DISK_BYTES, 0), 0);
    g_free(buffer);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    json_object_update_new(faults, json_pack("{s:s, s:s, s:o}", "driver", "fault", "node-name", "t",
                                             "file", job_describe_raw(core, "target", -1)));
    assert_int_equal(ash_node_open(core->loop, faults, writable, &rig->target, NULL), 0);
    json_decref(faults);
    json_object_update_new(options, json_pack("{s:s, s:s, s:s, s:o}", "driver", "copy-before-write",
                                              "node-name", "cbw", "target", "t", "file",
                                              job_describe_raw(core, "disk", -1)));
    rig->disk = core_open_disk(core, options, writable);
    rig->snapshot = core_open_disk(
        core, json_pack("{s:s, s:s}", "driver", "snapshot-access", "file", "cbw"), writable);
}

ASH_CO_FN static void rig_down(struct core *core, struct rig *rig)
{
    (void)core;
    assert_int_equal(ash_co_disk_close(rig->snapshot, NULL), 0);
    assert_int_equal(ash_co_disk_close(rig->disk, NULL), 0);
    assert_int_equal(ash_node_unref(rig->target), 0);
}

/* What is read is as it was in the beginning; or the error. */
ASH_CO_FN static int read_snapshot(struct rig *rig, uint64_t offset, uint64_t bytes)
{
    uint8_t *got = g_malloc(bytes);
    uint8_t *wanted = g_malloc(bytes);
    guest_fill(1, offset, wanted, bytes);
    int ret = ash_disk_read(rig->snapshot, offset, got, bytes);
    if (ret == 0) {
        assert_memory_equal(got, wanted, bytes);
    }
    g_free(got);
    g_free(wanted);
    return ret;
}

ASH_CO_FN static int write_disk(struct rig *rig, unsigned id, uint64_t offset, uint64_t bytes)
{
    uint8_t *buffer = g_malloc(bytes);
    guest_fill(id, offset, buffer, bytes);
    int ret = ash_disk_write(rig->disk, offset, buffer, bytes, 0);
    g_free(buffer);
    return ret;
}

ASH_CO_FN static void assert_disk_holds(struct rig *rig, unsigned id, uint64_t offset,
                                        uint64_t bytes)
{
    uint8_t *got = g_malloc(bytes);
    uint8_t *wanted = g_malloc(bytes);
    guest_fill(id, offset, wanted, bytes);
    assert_int_equal(ash_disk_read(rig->disk, offset, got, bytes), 0);
    assert_memory_equal(got, wanted, bytes);
    g_free(got);
    g_free(wanted);
}

static void run(void (*body)(struct core *core, void *opaque))
{
    struct core core;
    core_up(&core, core_first_seed());
    core_run(&core, body, NULL);
    core_down(&core);
}

/* --- under guests --- */

static void write_at_random(struct core *core, void *opaque)
{
    struct rig *rig = opaque;
    ash_co_assert_inside();
    for (unsigned i = 0; i < 30; i++) {
        uint64_t offset = ash_prng_below(&core->prng, DISK_BYTES);
        uint64_t bytes =
            ash_prng_between(&core->prng, 1, ASH_MIN(DISK_BYTES - offset, 3 * CLUSTER));
        unsigned what = (unsigned)ash_prng_below(&core->prng, 4);
        int ret = what == 0   ? ash_disk_zero(rig->disk, offset, bytes, ASH_REQ_UNMAP)
                  : what == 1 ? ash_disk_discard(rig->disk, offset, bytes)
                              : write_disk(rig, 2 + what, offset, bytes);
        assert_int_equal(ret, 0);
    }
}

static void read_at_random(struct core *core, void *opaque)
{
    struct rig *rig = opaque;
    ash_co_assert_inside();
    for (unsigned i = 0; i < 30; i++) {
        struct ash_status status;
        uint64_t offset = ash_prng_below(&core->prng, DISK_BYTES);
        uint64_t bytes =
            ash_prng_between(&core->prng, 1, ASH_MIN(DISK_BYTES - offset, 3 * CLUSTER));
        assert_int_equal(read_snapshot(rig, offset, bytes), 0);
        struct ash_io io = {.op = ASH_STATUS, .offset = offset, .bytes = bytes, .status = &status};
        assert_int_equal(ash_disk_io(rig->snapshot, &io), 0);
        assert_true(status.bytes > 0 && status.bytes <= bytes);
        assert_int_equal(status.flags & ASH_STATUS_ZERO, 0);
    }
}

ASH_CO_FN static void stay_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct rig rig;
    rig_up(core, &rig, json_object(), json_object());
    for (unsigned i = 0; i < 4; i++) {
        core_spawn(core, write_at_random, &rig);
        core_spawn(core, read_at_random, &rig);
    }
    core_join(core);
    assert_int_equal(read_snapshot(&rig, 0, DISK_BYTES), 0);
    rig_down(core, &rig);
}

static void a_snapshot_stays_as_it_was(void **state)
{
    (void)state;
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(core_is_real() ? 20 : 100);
         seed++) {
        struct core core;
        core_up(&core, seed);
        core_run(&core, stay_body, NULL);
        core_down(&core);
    }
}

/* --- a target that does not answer --- */

struct late_write {
    struct rig *rig;
    uint64_t offset;
    int ret;
    bool done;
};

static void write_late(struct core *core, void *opaque)
{
    struct late_write *late = opaque;
    (void)core;
    ash_co_assert_inside();
    late->ret = write_disk(late->rig, 2, late->offset, 512);
    late->done = true;
}

/* A guest's write whose copy hangs in the target. */
ASH_CO_FN static void hang(struct core *core, struct rig *rig, struct late_write *late)
{
    *late = (struct late_write){.rig = rig, .offset = 512};
    assert_int_equal(ash_fault_break(rig->target, "write_aio", "hang"), 0);
    core_spawn(core, write_late, late);
    while (!ash_fault_is_suspended(rig->target, "hang")) {
        ash_co_sleep(1000);
    }
}

ASH_CO_FN static void others_body(struct core *core, void *opaque)
{
    struct rig rig;
    struct late_write late;
    (void)opaque;
    rig_up(core, &rig, json_object(), json_object());
    hang(core, &rig, &late);
    assert_int_equal(read_snapshot(&rig, CLUSTER, 4 * CLUSTER), 0);
    assert_int_equal(write_disk(&rig, 3, 2 * CLUSTER, CLUSTER), 0);
    assert_int_equal(read_snapshot(&rig, 2 * CLUSTER, CLUSTER), 0);
    assert_false(late.done);
    assert_int_equal(ash_fault_resume(rig.target, "hang"), 0);
    core_join(core);
    assert_int_equal(late.ret, 0);
    assert_int_equal(read_snapshot(&rig, 0, DISK_BYTES), 0);
    rig_down(core, &rig);
}

static void a_copy_holds_up_nobody_else(void **state)
{
    (void)state;
    run(others_body);
}

ASH_CO_FN static void broken_body(struct core *core, void *opaque)
{
    struct rig rig;
    struct late_write late;
    (void)opaque;
    rig_up(core, &rig, json_pack("{s:i, s:s}", "cbw-timeout", 1, "on-cbw-error", "break-snapshot"),
           json_object());
    uint64_t start_ns = ash_loop_now(core->loop);
    hang(core, &rig, &late);
    core_join(core);
    assert_true(ash_loop_now(core->loop) - start_ns < 2 * SECOND_NS);
    assert_int_equal(late.ret, 0);
    assert_disk_holds(&rig, 2, 512, 512);
    assert_int_equal(read_snapshot(&rig, 4 * CLUSTER, 512), -EACCES);
    assert_int_equal(write_disk(&rig, 3, 0, DISK_BYTES), 0);
    assert_int_equal(ash_fault_resume(rig.target, "hang"), 0);
    assert_int_equal(read_snapshot(&rig, 4 * CLUSTER, 512), -EACCES);
    rig_down(core, &rig);
}

static void a_guest_gives_up_the_snapshot_when_its_time_is_over(void **state)
{
    (void)state;
    run(broken_body);
}

ASH_CO_FN static void refused_body(struct core *core, void *opaque)
{
    struct rig rig;
    struct late_write late;
    (void)opaque;
    rig_up(core, &rig, json_pack("{s:i}", "cbw-timeout", 1), json_object());
    hang(core, &rig, &late);
    core_join(core);
    assert_int_equal(late.ret, -ETIMEDOUT);
    assert_disk_holds(&rig, 1, 0, CLUSTER);
    assert_int_equal(ash_fault_resume(rig.target, "hang"), 0);
    assert_int_equal(write_disk(&rig, 2, 512, 512), 0);
    assert_disk_holds(&rig, 2, 512, 512);
    assert_int_equal(read_snapshot(&rig, 0, DISK_BYTES), 0);
    rig_down(core, &rig);
}

static void or_its_write_fails_and_nothing_is_lost(void **state)
{
    (void)state;
    run(refused_body);
}

ASH_CO_FN static void error_body(struct core *core, void *opaque)
{
    struct rig rig;
    (void)opaque;
    rig_up(core, &rig, json_object(),
           json_pack("{s:[{s:s, s:i, s:b}]}", "inject-error", "iotype", "write", "errno", ENOSPC,
                     "once", 1));
    assert_int_equal(write_disk(&rig, 2, 512, 512), -ENOSPC);
    assert_disk_holds(&rig, 1, 0, CLUSTER);
    assert_int_equal(read_snapshot(&rig, 0, DISK_BYTES), 0);
    assert_int_equal(write_disk(&rig, 2, 512, 512), 0);
    assert_int_equal(read_snapshot(&rig, 0, DISK_BYTES), 0);
    rig_down(core, &rig);
}

static void a_copy_that_fails_fails_the_write_or_breaks_the_snapshot(void **state)
{
    (void)state;
    run(error_body);
}

/* --- what belongs to the snapshot --- */

ASH_CO_FN static void parts_body(struct core *core, void *opaque)
{
    struct rig rig;
    struct ash_bitmap *bitmap;
    (void)opaque;
    (void)core_file(core, "disk", DISK_BYTES);
    json_t *description = job_describe_raw(core, "disk", -1);
    json_object_set_new(description, "node-name", json_string("n"));
    (void)core_file(core, "other", DISK_BYTES);
    json_object_set_new(json_object_get(description, "file"), "filename",
                        json_string(core_file(core, "other", -1)));
    struct ash_disk *other = core_open_disk(core, description, ASH_NODE_WRITE);
    assert_int_equal(ash_bitmap_new(ash_disk_node(other), "b", 512, &bitmap, NULL), 0);
    ash_bitmap_set(bitmap, CLUSTER, 512);
    ash_bitmap_set(bitmap, 3 * CLUSTER, CLUSTER);
    rig_up(core, &rig, json_pack("{s:{s:s, s:s}}", "bitmap", "node", "n", "name", "b"),
           json_object());
    assert_int_equal(read_snapshot(&rig, CLUSTER, CLUSTER), 0);
    assert_int_equal(read_snapshot(&rig, 0, 512), -EACCES);
    assert_int_equal(read_snapshot(&rig, CLUSTER, CLUSTER + 1), -EACCES);
    /* Outside of it nothing is copied. */
    assert_int_equal(ash_fault_break(rig.target, "write_aio", "hang"), 0);
    assert_int_equal(write_disk(&rig, 2, 0, CLUSTER), 0);
    assert_int_equal(ash_fault_remove_break(rig.target, "hang"), 0);
    assert_int_equal(write_disk(&rig, 2, 0, DISK_BYTES), 0);
    assert_int_equal(read_snapshot(&rig, 3 * CLUSTER, CLUSTER), 0);
    rig_down(core, &rig);
    assert_int_equal(ash_co_disk_close(other, NULL), 0);
}

static void a_bitmap_says_what_is_kept(void **state)
{
    (void)state;
    run(parts_body);
}

ASH_CO_FN static void discard_body(struct core *core, void *opaque)
{
    struct rig rig;
    (void)opaque;
    rig_up(core, &rig, json_object(), json_object());
    assert_int_equal(ash_disk_discard(rig.snapshot, CLUSTER, 2 * CLUSTER), 0);
    assert_int_equal(read_snapshot(&rig, CLUSTER, 512), -EACCES);
    assert_int_equal(read_snapshot(&rig, 0, CLUSTER), 0);
    assert_int_equal(ash_fault_break(rig.target, "write_aio", "hang"), 0);
    assert_int_equal(write_disk(&rig, 2, CLUSTER, 2 * CLUSTER), 0);
    assert_int_equal(ash_fault_remove_break(rig.target, "hang"), 0);
    assert_int_equal(ash_disk_write(rig.snapshot, 0, "", 1, 0), -EACCES);
    rig_down(core, &rig);
}

static void what_is_discarded_is_copied_no_more(void **state)
{
    (void)state;
    run(discard_body);
}

ASH_CO_FN static void shrink_body(struct core *core, void *opaque)
{
    struct rig rig;
    (void)opaque;
    rig_up(core, &rig, json_object(), json_object());
    assert_int_equal(
        ash_co_disk_resize(rig.disk, CLUSTER + 512, ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF, NULL), 0);
    assert_int_equal(ash_co_disk_resize(rig.disk, DISK_BYTES, 0, ASH_PREALLOC_OFF, NULL), 0);
    assert_int_equal(write_disk(&rig, 2, 0, DISK_BYTES), 0);
    assert_int_equal(read_snapshot(&rig, 0, DISK_BYTES), 0);
    rig_down(core, &rig);
}

static void what_a_shrink_takes_away_is_copied_first(void **state)
{
    (void)state;
    run(shrink_body);
}

/* --- put in the way of guests, and taken out --- */

struct live {
    struct rig rig;
    struct ash_disk *disk;
    bool stop;
    uint64_t value;
};

/* Counts in the first sector. */
static void count_on(struct core *core, void *opaque)
{
    struct live *live = opaque;
    (void)core;
    ash_co_assert_inside();
    for (; !live->stop; live->value++) {
        uint64_t sector[64] = {live->value};
        assert_int_equal(ash_disk_write(live->disk, 0, sector, sizeof(sector), 0), 0);
    }
}

ASH_CO_FN static void live_body(struct core *core, void *opaque)
{
    struct live live = {.value = 1};
    struct ash_error error = ASH_ERROR_INIT;
    uint64_t sector[64];
    (void)opaque;
    (void)core_file(core, "disk", DISK_BYTES);
    (void)core_file(core, "target", DISK_BYTES);
    json_t *description = job_describe_raw(core, "disk", -1);
    json_object_set_new(description, "node-name", json_string("d"));
    live.disk = core_open_disk(core, description, ASH_NODE_WRITE);
    description = job_describe_raw(core, "target", -1);
    json_object_set_new(description, "node-name", json_string("t"));
    struct ash_disk *target = core_open_disk(core, description, ASH_NODE_WRITE);
    core_spawn(core, count_on, &live);
    ash_co_sleep(ash_prng_below(&core->prng, 100000));
    json_t *filter = json_pack("{s:s, s:s, s:s, s:s}", "driver", "copy-before-write", "node-name",
                               "cbw", "file", "d", "target", "t");
    /* The target is a disk's, which may write to it. */
    assert_true(ash_graft_insert_filter(core->loop, filter, &error) < 0);
    assert_int_equal(ash_co_disk_close(target, NULL), 0);
    description = job_describe_raw(core, "target", -1);
    json_object_set_new(description, "node-name", json_string("t"));
    struct ash_node *node;
    assert_int_equal(ash_node_open(core->loop, description, ASH_NODE_WRITE, &node, NULL), 0);
    json_decref(description);
    uint64_t before = live.value;
    assert_int_equal(ash_graft_insert_filter(core->loop, filter, &error), 0);
    uint64_t after = live.value;
    assert_string_equal(ash_disk_node(live.disk)->name, "cbw");
    struct ash_disk *snapshot = core_open_disk(
        core, json_pack("{s:s, s:s}", "driver", "snapshot-access", "file", "cbw"), 0);
    for (unsigned i = 0; i < 3; i++) {
        ash_co_sleep(20000);
        assert_int_equal(ash_disk_read(snapshot, 0, sector, sizeof(sector)), 0);
        assert_true(sector[0] + 1 >= before && sector[0] <= after);
    }
    assert_int_equal(ash_graft_remove_filter(core->loop, "cbw", &error), 0);
    assert_string_equal(ash_disk_node(live.disk)->name, "d");
    /* Nothing guards the source any more. */
    assert_int_equal(ash_disk_read(snapshot, 0, sector, sizeof(sector)), -EACCES);
    assert_int_equal(ash_graft_remove_filter(core->loop, "cbw", &error), -EINVAL);
    json_object_set_new(filter, "file", json_string("nobody"));
    assert_int_equal(ash_graft_insert_filter(core->loop, filter, &error), -EINVAL);
    json_decref(filter);
    live.stop = true;
    core_join(core);
    assert_int_equal(ash_co_disk_close(snapshot, NULL), 0);
    assert_int_equal(ash_co_disk_close(live.disk, NULL), 0);
    assert_int_equal(ash_node_unref(node), 0);
}

static void a_filter_is_put_in_the_way_of_a_guest_and_taken_out(void **state)
{
    (void)state;
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(core_is_real() ? 5 : 50); seed++) {
        struct core core;
        core_up(&core, seed);
        core_run(&core, live_body, NULL);
        core_down(&core);
    }
}

/* From outside, through the public API. */
static void the_public_calls_do_the_same(void **state)
{
    (void)state;
    struct core core;
    struct ash_disk *disk;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    core_up(&core, core_first_seed());
    (void)core_file(&core, "disk", DISK_BYTES);
    json_t *description = job_describe_raw(&core, "disk", -1);
    json_object_set_new(description, "node-name", json_string("d"));
    char *text = json_dumps(description, JSON_COMPACT);
    char *name = g_strconcat("json:", text, NULL);
    assert_int_equal(ash_disk_open_sync(core.loop, name, &options, &disk, NULL), 0);
    g_free(name);
    free(text);
    json_decref(description);
    const char *filter = "{\"driver\": \"throttle\", \"node-name\": \"f\", \"file\": \"d\"}";
    assert_int_equal(ash_disk_insert_filter_sync(disk, filter, &error), 0);
    assert_string_equal(ash_disk_node(disk)->name, "f");
    assert_int_equal(ash_disk_insert_filter_sync(disk, "[", &error), -EINVAL);
    assert_int_equal(ash_disk_remove_filter_sync(disk, "d", &error), -EINVAL);
    assert_int_equal(ash_disk_remove_filter_sync(disk, "f", &error), 0);
    assert_string_equal(ash_disk_node(disk)->name, "d");
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
    core_down(&core);
}

ASH_CO_FN static void bad_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct ash_disk *disk;
    struct ash_error error = ASH_ERROR_INIT;
    (void)core_file(core, "disk", DISK_BYTES);
    json_t *description = json_pack("{s:s, s:o}", "driver", "snapshot-access", "file",
                                    job_describe_raw(core, "disk", -1));
    assert_int_equal(ash_co_disk_open(core->loop, description, 0, &disk, &error), -EINVAL);
    assert_non_null(strstr(error.message, "copy-before-write"));
    json_object_set_new(description, "driver", json_string("copy-before-write"));
    assert_int_equal(ash_co_disk_open(core->loop, description, 0, &disk, &error), -EINVAL);
    assert_non_null(strstr(error.message, "'target' is missing"));
    json_object_set_new(description, "target", json_string("nobody"));
    assert_int_equal(ash_co_disk_open(core->loop, description, 0, &disk, &error), -ENODEV);
    (void)core_file(core, "target", DISK_BYTES - 512);
    json_t *target = job_describe_raw(core, "target", -1);
    json_object_set_new(target, "node-name", json_string("nobody"));
    struct ash_disk *target_disk = core_open_disk(core, target, 0);
    assert_int_equal(ash_co_disk_open(core->loop, description, 0, &disk, &error), -ENOSPC);
    json_object_set_new(description, "min-cluster-size", json_integer(1000));
    assert_int_equal(ash_co_disk_open(core->loop, description, 0, &disk, &error), -EINVAL);
    json_decref(description);
    assert_int_equal(ash_co_disk_close(target_disk, NULL), 0);
}

static void descriptions_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    run(bad_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_snapshot_stays_as_it_was),
        cmocka_unit_test(a_copy_holds_up_nobody_else),
        cmocka_unit_test(a_guest_gives_up_the_snapshot_when_its_time_is_over),
        cmocka_unit_test(or_its_write_fails_and_nothing_is_lost),
        cmocka_unit_test(a_copy_that_fails_fails_the_write_or_breaks_the_snapshot),
        cmocka_unit_test(a_bitmap_says_what_is_kept),
        cmocka_unit_test(what_is_discarded_is_copied_no_more),
        cmocka_unit_test(what_a_shrink_takes_away_is_copied_first),
        cmocka_unit_test(a_filter_is_put_in_the_way_of_a_guest_and_taken_out),
        cmocka_unit_test(the_public_calls_do_the_same),
        cmocka_unit_test(descriptions_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
