/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What jobs do with targets that are not as the source is: shorter, on a backing image, beside a
 * fleecing image that would keep all. */
#include "tests/unit/unit.h"
#include "block/image/image.h"
#include "tests/unit/job_rig.h"

#define CLUSTER (64 * KiB)
#define BYTES (8 * CLUSTER)

static json_t *describe(struct core *core, const char *name, json_t *backing)
{
    return json_pack("{s:s, s:s, s:o, s:{s:s, s:s}}", "driver", "qcow2", "node-name", name,
                     "backing", backing, "file", "driver", "file", "filename",
                     core_file(core, name, -1));
}

ASH_CO_FN static void create(struct core *core, const char *name, uint64_t bytes)
{
    assert_int_equal(
        ash_image_create(core->loop, core_file(core, name, -1), "qcow2", bytes, NULL, NULL), 0);
}

ASH_CO_FN static void fill(struct ash_disk *disk, uint64_t offset, uint64_t bytes, uint8_t value)
{
    uint8_t *data = g_malloc(bytes);
    memset(data, value, bytes);
    assert_int_equal(ash_disk_write(disk, offset, data, bytes, 0), 0);
    g_free(data);
}

/* A disk of twos in the first and in the fifth cluster, on a base of ones; and a target on the same
 * base, of `target_bytes`, opened as a node. */
struct rig {
    struct ash_disk *disk;
    struct ash_node *target;
};

ASH_CO_FN static void rig_up(struct core *core, struct rig *rig, uint64_t target_bytes)
{
    create(core, "base", BYTES);
    create(core, "disk", BYTES);
    create(core, "target", target_bytes);
    struct ash_disk *base = core_open_disk(core, describe(core, "base", json_null()),
                                           ASH_NODE_WRITE | ASH_NODE_DISCARD);
    fill(base, 0, BYTES, 1);
    assert_int_equal(ash_co_disk_close(base, NULL), 0);
    rig->disk = core_open_disk(core, describe(core, "disk", describe(core, "base", json_null())),
                               ASH_NODE_WRITE | ASH_NODE_DISCARD);
    fill(rig->disk, 0, CLUSTER, 2);
    fill(rig->disk, 4 * CLUSTER, CLUSTER, 2);
    json_t *description = describe(core, "target", json_string("base"));
    assert_int_equal(ash_node_open(core->loop, description, ASH_NODE_WRITE | ASH_NODE_DISCARD,
                                   &rig->target, NULL),
                     0);
    json_decref(description);
}

/* The target reads as the disk does. */
ASH_CO_FN static void rig_down(struct core *core, struct rig *rig, bool equal)
{
    assert_int_equal(ash_co_disk_close(rig->disk, NULL), 0);
    assert_int_equal(ash_node_unref(rig->target), 0);
    struct ash_disk *target =
        core_open_disk(core, describe(core, "target", describe(core, "base", json_null())), 0);
    for (unsigned i = 0; equal && i < BYTES / CLUSTER; i++) {
        static uint8_t data[CLUSTER];
        assert_int_equal(ash_disk_read(target, i * CLUSTER, data, CLUSTER), 0);
        assert_int_equal(data[0], i % 4 == 0 ? 2 : 1);
        assert_int_equal(data[CLUSTER - 1], i % 4 == 0 ? 2 : 1);
    }
    assert_int_equal(ash_co_disk_close(target, NULL), 0);
}

static json_t *job(const char *type, const char *sync)
{
    return json_pack("{s:s, s:s, s:s, s:s}", "type", type, "device", "disk", "target", "target",
                     "sync", sync);
}

ASH_CO_FN static void copy_to_shorter(struct core *core, const char *type, uint64_t target_bytes)
{
    struct rig rig;
    rig_up(core, &rig, target_bytes);
    struct ash_job *started = job_start(core, job(type, "top"));
    if (strcmp(type, "mirror") == 0) {
        job_wait_for(started, ASH_JOB_READY);
        assert_int_equal(ash_co_job_control(started, ASH_JOB_CANCEL, 0, NULL), 0);
    }
    assert_int_equal(job_finish(core, started), 0);
    rig_down(core, &rig, true);
}

CORE_TEST(a_backup_of_the_top_to_a_shorter_overlay_does_not_hide_its_base)
{
    (void)opaque;
    copy_to_shorter(core, "backup", 2 * CLUSTER);
    copy_to_shorter(core, "backup", 2 * CLUSTER + 512);
    copy_to_shorter(core, "backup", BYTES);
}

CORE_TEST(a_mirror_of_the_top_to_a_shorter_overlay_does_not_hide_its_base)
{
    (void)opaque;
    copy_to_shorter(core, "mirror", 2 * CLUSTER);
    copy_to_shorter(core, "mirror", 2 * CLUSTER + 512);
    copy_to_shorter(core, "mirror", BYTES);
}

ASH_CO_FN static void expect_refused(struct core *core, json_t *description, const char *why)
{
    struct ash_job *started;
    struct ash_error error = ASH_ERROR_INIT;
    int ret = ash_co_job_start(core->loop, description, NULL, NULL, &started, &error);
    json_decref(description);
    assert_int_equal(ret, -EINVAL);
    assert_non_null(strstr(error.message, why));
}

CORE_TEST(a_backup_for_guests_alone_to_a_shorter_overlay_is_refused)
{
    struct rig rig;
    (void)opaque;
    rig_up(core, &rig, 2 * CLUSTER);
    expect_refused(core, job("backup", "none"), "'target' must be as long as");
    assert_int_equal(rig.target->size_bytes, 2 * CLUSTER);
    rig_down(core, &rig, false);
}

CORE_TEST(a_backup_for_guests_alone_takes_no_fleecing_image)
{
    struct rig rig;
    (void)opaque;
    rig_up(core, &rig, BYTES);
    create(core, "fleece", BYTES);
    json_t *description = job("backup", "none");
    json_object_set_new(description, "fleecing", json_string(core_file(core, "fleece", -1)));
    expect_refused(core, description, "sync=none takes no fleecing image");
    rig_down(core, &rig, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_backup_of_the_top_to_a_shorter_overlay_does_not_hide_its_base),
        cmocka_unit_test(a_mirror_of_the_top_to_a_shorter_overlay_does_not_hide_its_base),
        cmocka_unit_test(a_backup_for_guests_alone_to_a_shorter_overlay_is_refused),
        cmocka_unit_test(a_backup_for_guests_alone_takes_no_fleecing_image),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
