/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The length of a qcow2 disk changes while guests write and write-back runs. Both write the header:
 * one where the tables are, which move because they grow, the other how long the disk is. With
 * clusters of 512 bytes and refcounts of 64 bits, 2 MiB of file fill a cluster of the refcount
 * table, and 2 MiB of disk one of the L1 table.
 *
 * A failing run prints its seed; ASH_TEST_SEED=n runs that one only. */
#include "tests/unit/qcow2_rig.h"
#include <stdlib.h>
#include "block/qcow2/qcow2.h"

enum {
    KIB = 1024,
    MIB = 1024 * KIB,
    MS = 1000000,
    SLOT = 4096,
    KEPT = 3 * MIB, /* what guests write to; the disk is never shorter */
    SLOTS = KEPT / SLOT,
    WRITERS = 3,
    SEEDS = 20,
};

static struct rig rig;
static struct ash_disk *disk;
static struct ash_prng prng;
static uint64_t seed;
static uint32_t writers; /* at work */
static uint64_t length;  /* of the disk, as it was changed last */
static uint32_t changes;
static struct ash_error error;

static uint8_t value_of(uint64_t slot)
{
    return slot % 251 + 1;
}

ASH_CO_FN static void write_slots(uint64_t first)
{
    uint8_t data[SLOT];
    for (uint64_t slot = first; slot < SLOTS; slot += WRITERS) {
        memset(data, value_of(slot), sizeof(data));
        assert_int_equal(ash_disk_write(disk, slot * SLOT, data, sizeof(data), 0), 0);
        if (ash_prng_chance(&prng, 100)) {
            assert_int_equal(ash_disk_flush(disk), 0);
        }
    }
    writers--;
}

static void writer(void *first)
{
    ash_co_assert_inside();
    write_slots(*(uint64_t *)first);
}

/* To and fro, by more than a table holds and by less. */
ASH_CO_FN static void change_length(void)
{
    while (writers > 0) {
        uint64_t bytes = KEPT + ash_prng_below(&prng, 8 * MIB / 512) * 512;
        assert_int_equal(
            ash_co_disk_resize(disk, bytes, ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF, &error), 0);
        length = bytes;
        changes++;
        ash_co_sleep(ash_prng_below(&prng, 10) * MS);
    }
}

ASH_CO_FN static void expect_slots(void)
{
    uint8_t data[SLOT];
    for (uint64_t slot = 0; slot < SLOTS; slot++) {
        assert_int_equal(ash_disk_read(disk, slot * SLOT, data, sizeof(data)), 0);
        for (size_t i = 0; i < sizeof(data); i++) {
            if (data[i] != value_of(slot)) {
                fail_msg("slot %" PRIu64 " holds %u", slot, data[i]);
            }
        }
    }
}

static void expect_sound(void)
{
    struct audit a;
    audit_image(&rig, "image", true, &a);
    if (a.corruptions) {
        fail_msg("%" PRIu64 " corruptions, first: %s", a.corruptions, a.first);
    }
    assert_int_equal(a.leaks, 0);
}

static int live(void *opaque)
{
    static uint64_t first[WRITERS];
    (void)opaque;
    ash_co_assert_inside();
    assert_int_equal(rig_create(&rig, "image", KEPT, "cluster_size=512,refcount_bits=64"), 0);
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error), 0);
    writers = WRITERS;
    changes = 0;
    for (uint64_t i = 0; i < WRITERS; i++) {
        first[i] = i;
        assert_int_equal(ash_co_spawn(&rig.loop->sched, writer, &first[i]), 0);
    }
    change_length();
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    assert_true(changes > 5);
    expect_sound();
    assert_int_equal(rig_open(&rig, "image", 0, &disk, &error), 0);
    assert_int_equal(ash_disk_node(disk)->size_bytes, length);
    expect_slots();
    return ash_co_disk_close(disk, &error);
}

static void run(uint64_t number, uint64_t metadata_bytes_max)
{
    struct ash_sim_config config = {
        .seed = number, .latency_ns_min = MS / 10, .latency_ns_max = 2 * MS};
    seed = number;
    error = (struct ash_error)ASH_ERROR_INIT;
    ash_prng_seed(&prng, number);
    rig_world(&rig, &config);
    rig.metadata_bytes_max = metadata_bytes_max;
    rig_boot(&rig);
    assert_int_equal(ash_loop_run_sync(rig.loop, live, NULL), 0);
    rig_end(&rig);
}

static void run_all(uint64_t metadata_bytes_max)
{
    const char *chosen = getenv("ASH_TEST_SEED");
    for (uint64_t number = 1; !chosen && number <= SEEDS; number++) {
        run(number, metadata_bytes_max);
    }
    if (chosen) {
        run(strtoull(chosen, NULL, 10), metadata_bytes_max);
    }
}

static void the_length_changes_while_tables_grow(void **state)
{
    (void)state;
    run_all(0);
}

/* Batches run in the background. */
static void the_length_changes_while_tables_grow_with_little_memory(void **state)
{
    (void)state;
    run_all(8192);
}

/* --- preallocation --- */

static int resized;

static void preallocate(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    resized = ash_co_disk_resize(disk, 4 * MIB, 0, ASH_PREALLOC_METADATA, NULL);
}

/* resize:  takes places ... makes the file longer, held .................. power cut
 * tables:                                         must not be on disk yet            */
static int lose_length(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    assert_int_equal(rig_create(&rig, "image", 65536, "preallocation=metadata"), 0);
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error), 0);
    ash_sim_hold(rig.world, "image", ASH_AIO_TRUNCATE, 0, INT64_MAX);
    resized = 1;
    assert_int_equal(ash_co_spawn(&rig.loop->sched, preallocate, NULL), 0);
    ash_co_sleep(1000 * MS);
    assert_true(ash_sim_held(rig.world) > 0);
    ash_sim_power_cut(rig.world, ASH_SIM_CUT_KEEP);
    while (resized == 1) {
        ash_co_sleep(MS);
    }
    assert_int_equal(resized, -EIO);
    assert_true(ash_co_disk_close(disk, NULL) < 0);
    return 0;
}

static void a_cut_leaves_no_link_to_where_the_file_does_not_reach(void **state)
{
    struct ash_sim_config config = {.seed = 1, .latency_ns_min = MS / 10, .latency_ns_max = 2 * MS};
    struct audit a;
    (void)state;
    error = (struct ash_error)ASH_ERROR_INIT;
    rig_world(&rig, &config);
    rig_boot(&rig);
    assert_int_equal(ash_loop_run_sync(rig.loop, lose_length, NULL), 0);
    audit_image(&rig, "image", true, &a);
    if (a.corruptions) {
        fail_msg("%" PRIu64 " corruptions, first: %s", a.corruptions, a.first);
    }
    rig_end(&rig);
}

static int tear_down(void **state)
{
    (void)state;
    if (rig.loop) { /* it failed */
        print_message("ASH_TEST_SEED=%" PRIu64 " repeats it\n", seed);
        rig_end(&rig);
        rig.loop = NULL;
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_length_changes_while_tables_grow, tear_down),
        cmocka_unit_test_teardown(the_length_changes_while_tables_grow_with_little_memory,
                                  tear_down),
        cmocka_unit_test_teardown(a_cut_leaves_no_link_to_where_the_file_does_not_reach, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
