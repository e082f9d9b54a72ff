/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of a qcow2 image: making it, opening it with features of all kinds, reopening it, giving
 * it another backing file. */
#include "tests/unit/qcow2_rig.h"
#include "block/driver.h"
#include "block/qcow2/qcow2.h"
#include "tests/unit/co_test.h"

enum { MIB = 1024 * 1024, MS = 1000000 };

static struct rig rig;
static struct ash_disk *disk;
static struct ash_error error;
static uint8_t buffer[65536];

static int set_up(void **state)
{
    struct ash_sim_config config = {.seed = 1, .latency_ns_min = MS, .latency_ns_max = 2 * MS};
    (void)state;
    error = (struct ash_error)ASH_ERROR_INIT;
    rig_world(&rig, &config);
    rig_boot(&rig);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rig_end(&rig);
    return 0;
}

#define LIFE_TEST(name) CO_TEST_ON(rig.loop, name)

ASH_CO_FN static int open_disk(uint32_t flags)
{
    return rig_open(&rig, "image", flags, &disk, &error);
}

ASH_CO_FN static int close_disk(void)
{
    return ash_co_disk_close(disk, &error);
}

ASH_CO_FN static int write_bytes(uint64_t offset, uint8_t value)
{
    memset(buffer, value, sizeof(buffer));
    return ash_disk_write(disk, offset, buffer, sizeof(buffer), 0);
}

ASH_CO_FN static void expect_bytes(uint64_t offset, uint8_t value)
{
    assert_int_equal(ash_disk_read(disk, offset, buffer, sizeof(buffer)), 0);
    for (size_t i = 0; i < sizeof(buffer); i++) {
        assert_int_equal(buffer[i], value);
    }
}

static void poke64(uint64_t at, uint64_t value)
{
    value = htobe64(value);
    assert_int_equal(ash_sim_file_write(rig.world, "image", at, &value, 8), 0);
}

static uint64_t peek64(uint64_t at)
{
    uint64_t value;
    assert_int_equal(ash_sim_file_read(rig.world, "image", at, &value, 8), 0);
    return be64toh(value);
}

static void expect_sound(void)
{
    struct audit a;
    audit_image(&rig, "image", true, &a);
    if (a.corruptions) {
        fail_msg("%s", a.first);
    }
    assert_int_equal(a.leaks, 0);
}

/* --- making --- */

LIFE_TEST(impossible_options_are_refused_with_a_reason)
{
    static const char *const bad[] = {
        "cluster_size=256",
        "cluster_size=4M",
        "cluster_size=70000",
        "refcount_bits=3",
        "refcount_bits=128",
        "refcount_bits=0",
        "compat=0.10,refcount_bits=8",
        "compat=0.10,lazy_refcounts=on",
        "compat=v2,compression_type=zstd",
        "compat=2.0",
        "backing_fmt=raw",
        "encryption=on",
        "encrypt.format=luks",
        "data_file=x",
        "extended_l2=on",
    };
    for (size_t i = 0; i < ASH_ARRAY_SIZE(bad); i++) {
        json_t *options = rig_options(bad[i]);
        error = (struct ash_error)ASH_ERROR_INIT;
        assert_true(ash_image_create(rig.loop, "image", "qcow2", MIB, options, &error) < 0);
        assert_true(error.message[0] != '\0');
        assert_true(ash_sim_file_bytes(rig.world, "image") < 0);
        json_decref(options);
    }
}

LIFE_TEST(images_of_every_kind_are_sound_when_new_and_when_written)
{
    static const char *const kinds[] = {
        "",
        "compat=0.10",
        "cluster_size=512",
        "cluster_size=2M",
        "refcount_bits=1",
        "refcount_bits=64",
        "lazy_refcounts=on",
        "compression_type=zstd",
        "preallocation=metadata",
        "preallocation=falloc,cluster_size=512",
        "preallocation=full,cluster_size=4k,refcount_bits=64",
    };
    for (size_t i = 0; i < ASH_ARRAY_SIZE(kinds); i++) {
        assert_int_equal(rig_create(&rig, "image", 4 * MIB, kinds[i]), 0);
        expect_sound();
        assert_int_equal(open_disk(ASH_NODE_WRITE), 0);
        expect_bytes(0, 0);
        expect_bytes(3 * MIB, 0);
        assert_int_equal(write_bytes(MIB, 7), 0);
        expect_bytes(MIB, 7);
        expect_bytes(2 * MIB, 0);
        assert_int_equal(close_disk(), 0);
        expect_sound();
    }
}

/* --- features --- */

LIFE_TEST(an_image_that_was_not_closed_with_lazy_refcounts_is_repaired)
{
    assert_int_equal(rig_create(&rig, "image", MIB, "lazy_refcounts=on"), 0);
    assert_int_equal(open_disk(ASH_NODE_WRITE), 0);
    assert_int_equal(write_bytes(0, 1), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_true(peek64(72) & QCOW2_INCOMPATIBLE_DIRTY);
    uint8_t *crashed = g_malloc(512 * 1024);
    assert_int_equal(ash_sim_file_read(rig.world, "image", 0, crashed, 512 * 1024), 0);
    assert_int_equal(close_disk(), 0);
    assert_false(peek64(72) & QCOW2_INCOMPATIBLE_DIRTY);
    assert_int_equal(ash_sim_file_write(rig.world, "image", 0, crashed, 512 * 1024), 0);
    g_free(crashed);
    uint64_t before = ash_sim_mutations(rig.world);
    assert_int_equal(open_disk(0), 0); /* reading does not repair */
    expect_bytes(0, 1);
    assert_int_equal(close_disk(), 0);
    assert_int_equal(ash_sim_mutations(rig.world), before);
    assert_int_equal(open_disk(ASH_NODE_WRITE), 0);
    assert_int_equal(write_bytes(65536, 2), 0);
    expect_bytes(0, 1);
    assert_int_equal(close_disk(), 0);
    assert_false(peek64(72) & QCOW2_INCOMPATIBLE_DIRTY);
    expect_sound();
}

LIFE_TEST(unknown_autoclear_features_are_cleared_by_writing_and_kept_by_reading)
{
    assert_int_equal(rig_create(&rig, "image", MIB, ""), 0);
    poke64(88, UINT64_C(1) << 40);
    assert_int_equal(open_disk(0), 0);
    assert_int_equal(close_disk(), 0);
    assert_int_equal(peek64(88), UINT64_C(1) << 40);
    assert_int_equal(open_disk(ASH_NODE_WRITE), 0);
    assert_int_equal(close_disk(), 0);
    assert_int_equal(peek64(88), 0);
}

LIFE_TEST(images_with_bitmaps_or_snapshots_are_read_and_never_written)
{
    assert_int_equal(rig_create(&rig, "image", MIB, ""), 0);
    poke64(88, QCOW2_AUTOCLEAR_BITMAPS);
    assert_int_equal(open_disk(ASH_NODE_WRITE), -ENOTSUP);
    assert_non_null(strstr(error.message, "bitmaps"));
    assert_int_equal(open_disk(0), 0);
    expect_bytes(0, 0);
    assert_int_equal(close_disk(), 0);
    assert_int_equal(peek64(88), QCOW2_AUTOCLEAR_BITMAPS);
}

LIFE_TEST(reading_an_image_changes_no_byte)
{
    assert_int_equal(rig_create(&rig, "image", MIB, "lazy_refcounts=on"), 0);
    uint64_t before = ash_sim_mutations(rig.world);
    assert_int_equal(open_disk(0), 0);
    expect_bytes(0, 0);
    assert_int_equal(close_disk(), 0);
    assert_int_equal(ash_sim_mutations(rig.world), before);
}

/* --- reopening, rebasing --- */

LIFE_TEST(an_image_reopened_read_only_and_back_keeps_its_data)
{
    assert_int_equal(rig_create(&rig, "image", MIB, "cluster_size=4k"), 0);
    assert_int_equal(open_disk(ASH_NODE_WRITE), 0);
    assert_int_equal(write_bytes(0, 1), 0);
    int ret = ash_disk_reopen(disk, 0, false, &error);
    if (ret < 0) {
        fail_msg("%s", error.message);
    }
    expect_sound();
    expect_bytes(0, 1);
    ret = ash_disk_reopen(disk, ASH_NODE_WRITE, false, &error);
    if (ret < 0) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(write_bytes(65536, 2), 0);
    assert_int_equal(write_bytes(0, 3), 0);
    expect_bytes(0, 3);
    assert_int_equal(close_disk(), 0);
    expect_sound();
    assert_int_equal(open_disk(0), 0);
    expect_bytes(0, 3);
    expect_bytes(65536, 2);
    assert_int_equal(close_disk(), 0);
}

/* The refcounts, which are written late, cannot be written; nor can the dirty bit be cleared. */
LIFE_TEST(an_image_that_cannot_be_reopened_read_only_can_be_written_as_before)
{
    struct ash_sim_config fine = {.latency_ns_min = MS, .latency_ns_max = 2 * MS};
    struct ash_sim_config broken = fine;
    broken.write_error_per_mille = 1000;
    assert_int_equal(rig_create(&rig, "image", MIB, "cluster_size=4k,lazy_refcounts=on"), 0);
    assert_int_equal(open_disk(ASH_NODE_WRITE), 0);
    assert_int_equal(write_bytes(0, 1), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    ash_sim_world_configure(rig.world, &broken);
    assert_int_equal(ash_disk_reopen(disk, 0, false, &error), -EIO);
    ash_sim_world_configure(rig.world, &fine);
    assert_int_equal(write_bytes(65536, 2), 0);
    assert_int_equal(ash_disk_discard(disk, 0, 4096), 0);
    expect_bytes(65536, 2);
    assert_int_equal(close_disk(), 0);
    expect_sound();
    assert_int_equal(open_disk(0), 0);
    expect_bytes(65536, 2);
    assert_int_equal(close_disk(), 0);
}

/* The refcounts of the new L1 table are not written yet, and its place is. */
LIFE_TEST(a_longer_l1_table_with_lazy_refcounts_makes_the_image_dirty)
{
    uint8_t head[80] = {0};
    assert_int_equal(rig_create(&rig, "image", 65536, "cluster_size=512,lazy_refcounts=on"), 0);
    assert_int_equal(open_disk(ASH_NODE_WRITE), 0);
    assert_int_equal(ash_co_disk_resize(disk, 131072, 0, ASH_PREALLOC_OFF, &error), 0);
    assert_int_equal(ash_sim_file_read(rig.world, "image", 0, head, sizeof(head)), 0);
    assert_int_equal(head[79] & 1, 1);
    assert_int_equal(close_disk(), 0);
    expect_sound();
}

/* With clusters of 512 bytes, 32 MiB of L1 table are for 128 GiB. */
LIFE_TEST(an_l1_table_that_cannot_be_made_longer_names_the_image)
{
    struct ash_sim_config fine = {.latency_ns_min = MS, .latency_ns_max = 2 * MS};
    struct ash_sim_config broken = fine;
    broken.write_error_per_mille = 1000;
    assert_int_equal(rig_create(&rig, "image", 65536, "cluster_size=512"), 0);
    assert_int_equal(open_disk(ASH_NODE_WRITE), 0);
    int ret =
        ash_co_disk_resize(disk, (uint64_t)128 * 1024 * MIB + 512, 0, ASH_PREALLOC_OFF, &error);
    assert_int_equal(ret, -EFBIG);
    assert_non_null(strstr(error.message, "'image'"));
    assert_non_null(
        strstr(error.message, "cannot become 137438953984 bytes long with clusters of 512"));
    ash_sim_world_configure(rig.world, &broken);
    assert_int_equal(ash_co_disk_resize(disk, 4 * MIB, 0, ASH_PREALLOC_OFF, &error), -EIO);
    assert_non_null(strstr(error.message, "L1 table of 'image' cannot be made longer"));
    ash_sim_world_configure(rig.world, &fine);
    assert_int_equal(ash_co_disk_resize(disk, 4 * MIB, 0, ASH_PREALLOC_OFF, &error), 0);
    assert_int_equal(close_disk(), 0);
    expect_sound();
}

/* One of the first accesses of opening is the L1 table's. */
LIFE_TEST(an_l1_table_that_cannot_be_read_is_named_with_its_image)
{
    unsigned named = 0;
    int ret = -EIO;
    assert_int_equal(rig_create(&rig, "image", MIB, "cluster_size=512"), 0);
    for (uint64_t skip = 0; ret < 0; skip++) {
        ash_sim_aim(rig.world, "image", skip, 1, -EIO);
        ret = open_disk(0);
        named += ret < 0 && strstr(error.message, "cannot read the L1 table") != NULL &&
                 strstr(error.message, "image") != NULL;
    }
    ash_sim_aim(rig.world, "image", 0, 0, 0);
    assert_int_equal(named, 1);
    assert_int_equal(close_disk(), 0);
}

/* The length is on disk before places are given to the new range, which fails. Takes the
 * description of a filter, but for what it stands on. */
ASH_CO_FN static void fail_to_grow(json_t *description)
{
    struct ash_sim_config full = {.latency_ns_min = MS, .latency_ns_max = 2 * MS};
    assert_int_equal(rig_create(&rig, "image", MIB, "cluster_size=64k"), 0);
    json_object_set_new(description, "file",
                        json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver",
                                  "file", "filename", "image"));
    assert_int_equal(ash_co_disk_open(rig.loop, description, ASH_NODE_WRITE, &disk, &error), 0);
    json_decref(description);
    full.capacity_bytes = (uint64_t)ash_sim_file_allocated_bytes(rig.world, "image") + 65536;
    ash_sim_world_configure(rig.world, &full);
    assert_int_equal(ash_co_disk_resize(disk, 4 * MIB, 0, ASH_PREALLOC_FULL, &error), -ENOSPC);
    assert_int_equal(ash_disk_bytes(disk), ash_disk_node(disk)->file->child->size_bytes);
    full.capacity_bytes = 0;
    ash_sim_world_configure(rig.world, &full);
    assert_int_equal(close_disk(), 0);
}

LIFE_TEST(a_filter_has_the_length_that_a_failed_resize_left)
{
    fail_to_grow(json_pack("{s:s}", "driver", "fault"));
}

LIFE_TEST(a_filter_that_logs_has_the_length_that_a_failed_resize_left)
{
    assert_int_equal(ash_sim_file_write(rig.world, "log", MIB, "", 1), 0);
    fail_to_grow(json_pack("{s:s, s:{s:s, s:s}}", "driver", "log-writes", "log", "driver", "file",
                           "filename", "log"));
}

LIFE_TEST(new_backing_strings_are_found_after_reopening)
{
    uint8_t base[512] = {0};
    assert_int_equal(ash_sim_file_write(rig.world, "a-long-name-of-a-base", 0, base, 512), 0);
    assert_int_equal(ash_sim_file_write(rig.world, "base", 0, base, 512), 0);
    assert_int_equal(rig_create(&rig, "image", MIB, "backing_file=base,backing_fmt=raw"), 0);
    assert_int_equal(open_disk(ASH_NODE_WRITE), 0);
    struct ash_node *node = ash_disk_node(disk);
    assert_int_equal(write_bytes(0, 1), 0);
    assert_int_equal(node->driver->set_backing(node, "a-long-name-of-a-base", "qcow2", &error), 0);
    assert_string_equal(node->backing_file, "a-long-name-of-a-base");
    assert_int_equal(node->driver->set_backing(node, "a-long-name-of-a-base", "raw", &error), 0);
    char *long_name = g_strnfill(1024, 'x');
    assert_int_equal(node->driver->set_backing(node, long_name, "raw", &error), -EINVAL);
    assert_non_null(strstr(error.message, "qcow2 image 'image'"));
    g_free(long_name);
    assert_int_equal(close_disk(), 0);
    expect_sound();
    assert_int_equal(open_disk(0), 0);
    assert_string_equal(ash_disk_node(disk)->backing_file, "a-long-name-of-a-base");
    assert_string_equal(ash_disk_node(disk)->backing_format, "raw");
    expect_bytes(0, 1);
    node = ash_disk_node(disk);
    assert_int_equal(node->driver->set_backing(node, NULL, NULL, &error), -EACCES);
    assert_int_equal(close_disk(), 0);
    assert_int_equal(open_disk(ASH_NODE_WRITE), 0);
    node = ash_disk_node(disk);
    assert_int_equal(node->driver->set_backing(node, NULL, NULL, &error), 0);
    assert_int_equal(close_disk(), 0);
    assert_int_equal(open_disk(0), 0);
    assert_null(ash_disk_node(disk)->backing_file);
    assert_int_equal(close_disk(), 0);
}

int main(void)
{
#define RUN(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        RUN(impossible_options_are_refused_with_a_reason),
        RUN(images_of_every_kind_are_sound_when_new_and_when_written),
        RUN(an_image_that_was_not_closed_with_lazy_refcounts_is_repaired),
        RUN(unknown_autoclear_features_are_cleared_by_writing_and_kept_by_reading),
        RUN(images_with_bitmaps_or_snapshots_are_read_and_never_written),
        RUN(reading_an_image_changes_no_byte),
        RUN(an_image_reopened_read_only_and_back_keeps_its_data),
        RUN(an_image_that_cannot_be_reopened_read_only_can_be_written_as_before),
        RUN(a_filter_has_the_length_that_a_failed_resize_left),
        RUN(a_filter_that_logs_has_the_length_that_a_failed_resize_left),
        RUN(a_longer_l1_table_with_lazy_refcounts_makes_the_image_dirty),
        RUN(an_l1_table_that_cannot_be_made_longer_names_the_image),
        RUN(an_l1_table_that_cannot_be_read_is_named_with_its_image),
        RUN(new_backing_strings_are_found_after_reopening),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
