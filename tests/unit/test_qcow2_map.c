/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The map contract of qcow2 on simulated disks: stalls, failures, full disks, damage, and a power
 * cut at every single write of a fixed workload. */
#include "tests/unit/qcow2_disk.h"

/* --- pins --- */

/* read of cluster 0:  held ................................. released, returns the old bytes
 * discard, flush, 64 allocating writes:  none takes its place
 * afterwards: the place is free */
QCOW2_TEST(a_place_that_a_stalled_read_uses_is_not_handed_out)
{
    uint8_t data[4096];
    struct side side = {.offset = 0, .bytes = sizeof(data), .data = data};
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, 8192, 1), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    uint64_t place = place_of(0);
    ash_sim_hold(rig.world, "image", ASH_AIO_READ, place, 4096);
    side_start(&side);
    assert_int_equal(ash_sim_held(rig.world), 1);
    assert_int_equal(ash_disk_discard(disk, 0, 8192), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    ash_co_sleep(20 * MS);
    for (uint64_t i = 0; i < 64; i++) {
        assert_int_equal(write_bytes(65536 + i * 4096, 4096, 2), 0);
        assert_int_not_equal(place_of(65536 + i * 4096), place);
    }
    ash_sim_release_all(rig.world);
    assert_int_equal(side_wait(&side), 0);
    for (size_t i = 0; i < sizeof(data); i++) {
        assert_int_equal(data[i], 1);
    }
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

/* Likewise for a write in place: it must not land in what others got. */
QCOW2_TEST(a_place_that_a_stalled_write_uses_is_not_handed_out)
{
    uint8_t data[4096];
    struct side side = {.write = true, .offset = 0, .bytes = sizeof(data), .data = data};
    memset(data, 9, sizeof(data));
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, 4096, 1), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    uint64_t place = place_of(0);
    ash_sim_hold(rig.world, "image", ASH_AIO_WRITE, place, 4096);
    side_start(&side);
    assert_int_equal(ash_sim_held(rig.world), 1);
    struct ash_io io = {.op = ASH_DISCARD, .offset = 0, .bytes = 4096};
    assert_int_equal(ash_map_io(ash_disk_node(disk), &io), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    ash_co_sleep(20 * MS);
    for (uint64_t i = 0; i < 32; i++) {
        assert_int_equal(write_bytes(65536 + i * 4096, 4096, 2), 0);
    }
    ash_sim_release_all(rig.world);
    assert_int_equal(side_wait(&side), 0);
    for (uint64_t i = 0; i < 32; i++) {
        expect_bytes(65536 + i * 4096, 4096, 2);
    }
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

/* A zero cluster that kept its place must not take it again while a write from before it was made
 * zero is on its way there: it would land upon the fill. */
QCOW2_TEST(a_zero_cluster_takes_no_place_that_a_stalled_write_uses)
{
    uint8_t data[512];
    struct side side = {.write = true, .offset = 0, .bytes = sizeof(data), .data = data};
    memset(data, 9, sizeof(data));
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, 4096, 1), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    uint64_t place = place_of(0);
    ash_sim_hold(rig.world, "image", ASH_AIO_WRITE, place, 512);
    side_start(&side);
    assert_int_equal(ash_sim_held(rig.world), 1);
    struct ash_io io = {.op = ASH_ZERO, .offset = 0, .bytes = 4096};
    assert_int_equal(ash_map_io(ash_disk_node(disk), &io), 0);
    expect_bytes(0, 4096, 0);
    struct ash_io part = {.op = ASH_WRITE, .offset = 2048, .bytes = 512};
    uint8_t other[512];
    memset(other, 7, sizeof(other));
    struct iovec vec = {other, sizeof(other)};
    part.iov = ash_iov_of(&vec, 1);
    assert_int_equal(ash_map_io(ash_disk_node(disk), &part), 0);
    assert_int_not_equal(place_of(0), place);
    ash_sim_release_all(rig.world);
    assert_int_equal(side_wait(&side), 0);
    expect_bytes(0, 2048, 0); /* it was seen to be zero */
    expect_bytes(2048, 512, 7);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

/* read of cluster 0:  loads a slice of the table, held ........... released, looks at the other
 * table the L1 entry:       leads to another table */
QCOW2_TEST(a_slice_counts_only_if_the_l1_entry_still_leads_to_it)
{
    uint8_t data[4096];
    struct side side = {.offset = 0, .bytes = sizeof(data), .data = data};
    open_image("cluster_size=4k", 4 * MIB);
    assert_int_equal(write_bytes(0, 4096, 1), 0);
    assert_int_equal(write_bytes(2 * MIB, 4096, 2), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    assert_int_equal(rig_open(&rig, "image", 0, &disk, &error), 0);
    uint64_t *entries = state_of()->l1.entries;
    assert_int_not_equal(entries[0], entries[1]);
    ash_sim_hold(rig.world, "image", ASH_AIO_READ, entries[0] & QCOW2_ENTRY_OFFSET, 4096);
    side_start(&side);
    assert_int_equal(ash_sim_held(rig.world), 1);
    entries[0] = entries[1];
    ash_sim_release_all(rig.world);
    assert_int_equal(side_wait(&side), 0);
    for (size_t i = 0; i < sizeof(data); i++) {
        assert_int_equal(data[i], 2);
    }
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* flush:                 collects; its L2 table is held ............. released; writes the L1 table
 * a write 2 MiB further:         sets another entry of that, whose L2 table is on no disk yet */
QCOW2_TEST(an_entry_set_after_a_batch_was_collected_is_not_written_by_it)
{
    struct side side = {.flush = true};
    open_image("cluster_size=4k", 4 * MIB);
    uint64_t l1 = peek64(40);
    assert_int_equal(write_bytes(0, 4096, 1), 0);
    ash_sim_hold(rig.world, "image", ASH_AIO_WRITE, state_of()->l1.entries[0] & QCOW2_ENTRY_OFFSET,
                 4096);
    side_start(&side);
    assert_int_equal(ash_sim_held(rig.world), 1);
    assert_int_equal(write_bytes(2 * MIB, 4096, 2), 0);
    assert_int_not_equal(state_of()->l1.entries[1], 0);
    ash_sim_release_all(rig.world);
    assert_int_equal(side_wait(&side), 0);
    assert_int_not_equal(peek64(l1), 0);
    assert_int_equal(peek64(l1 + 8), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_int_not_equal(peek64(l1 + 8), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

QCOW2_TEST(discarded_space_is_used_again)
{
    open_image("cluster_size=4k", 64 * (uint64_t)MIB);
    for (int round = 0; round < 30; round++) {
        assert_int_equal(write_bytes(0, MIB, round + 1), 0);
        assert_int_equal(ash_disk_discard(disk, 0, MIB), 0);
        assert_int_equal(ash_disk_flush(disk), 0);
        ash_co_sleep(20 * MS);
    }
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    assert_true(ash_sim_file_bytes(rig.world, "image") < 3 * MIB);
    expect_sound(0);
}

QCOW2_TEST(space_freed_in_an_earlier_session_is_used_again)
{
    open_image("cluster_size=4k", 64 * (uint64_t)MIB);
    assert_int_equal(write_bytes(0, 2 * MIB, 1), 0);
    assert_int_equal(write_bytes(8 * MIB, 4096, 3), 0);
    assert_int_equal(ash_disk_discard(disk, 0, 2 * MIB), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    int64_t before = ash_sim_file_bytes(rig.world, "image");
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error), 0);
    for (uint64_t i = 0; i < 256; i++) {
        assert_int_equal(write_bytes(16 * MIB + i * 4096, 4096, 2), 0);
    }
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    assert_true(ash_sim_file_bytes(rig.world, "image") < before + 256 * KIB);
    expect_sound(0);
}

/* --- order of I/O --- */

QCOW2_TEST(a_flush_with_nothing_to_write_costs_one_flush_of_the_file)
{
    open_image("cluster_size=64k", MIB);
    assert_int_equal(write_bytes(0, 65536, 1), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    ash_co_sleep(100 * MS);
    uint64_t before = ash_sim_mutations(rig.world);
    assert_int_equal(write_bytes(0, 4096, 2), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_int_equal(ash_sim_mutations(rig.world) - before, 2);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(allocating_writes_touch_no_metadata_until_a_flush)
{
    open_image("cluster_size=64k", 64 * (uint64_t)MIB);
    assert_int_equal(write_bytes(0, 65536, 1), 0);
    ash_co_sleep(100 * MS);
    uint64_t before = ash_sim_mutations(rig.world);
    for (uint64_t i = 1; i < 20; i++) {
        assert_int_equal(write_bytes(i * 65536, 65536, 2), 0);
    }
    assert_int_equal(ash_sim_mutations(rig.world) - before, 19);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

QCOW2_TEST(the_file_is_cut_to_size_when_it_is_closed)
{
    open_image("cluster_size=64k", 64 * (uint64_t)MIB);
    assert_int_equal(write_bytes(0, 65536, 1), 0);
    ash_co_sleep(20 * MS);
    assert_true(ash_sim_file_bytes(rig.world, "image") >= 16 * MIB);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    assert_int_equal(ash_sim_file_bytes(rig.world, "image"), 6 * 65536);
}

/* --- failures --- */

QCOW2_TEST(a_failed_flush_is_remembered)
{
    open_image("cluster_size=64k", MIB);
    assert_int_equal(write_bytes(0, 65536, 1), 0);
    config.flush_error_per_mille = 1000;
    ash_sim_world_configure(rig.world, &config);
    assert_true(ash_disk_flush(disk) < 0);
    config.flush_error_per_mille = 0;
    ash_sim_world_configure(rig.world, &config);
    assert_true(ash_disk_flush(disk) < 0);
    assert_true(ash_co_disk_close(disk, &error) < 0);
    expect_sound(SOME);
}

QCOW2_TEST(metadata_that_could_not_be_written_is_written_by_the_next_flush)
{
    open_image("cluster_size=64k", MIB);
    assert_int_equal(write_bytes(0, 65536, 1), 0);
    config.write_error_per_mille = 1000;
    ash_sim_world_configure(rig.world, &config);
    assert_true(ash_disk_flush(disk) < 0);
    config.write_error_per_mille = 0;
    ash_sim_world_configure(rig.world, &config);
    int ret = ash_disk_flush(disk);
    expect_bytes(0, 65536, 1);
    assert_int_equal(ash_co_disk_close(disk, &error) < 0, ret < 0);
    expect_sound(0);
}

QCOW2_TEST(failing_writes_give_their_places_back)
{
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, 4096, 1), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    config.write_error_per_mille = 1000;
    ash_sim_world_configure(rig.world, &config);
    for (uint64_t i = 1; i < 20; i++) {
        assert_true(write_bytes(i * 4096, 4096, 2) < 0);
    }
    config.write_error_per_mille = 0;
    ash_sim_world_configure(rig.world, &config);
    ash_co_sleep(20 * MS);
    expect_bytes(4096, 19 * 4096, 0);
    assert_int_equal(write_bytes(4096, 19 * 4096, 3), 0);
    ash_co_disk_close(disk, &error);
    expect_sound(0);
}

QCOW2_TEST(a_full_disk_fails_writes_and_leaves_the_image_sound)
{
    config.capacity_bytes = 2 * MIB;
    ash_sim_world_configure(rig.world, &config);
    open_image("cluster_size=4k", 64 * (uint64_t)MIB);
    int ret = 0;
    for (uint64_t i = 0; ret == 0 && i < 64; i++) {
        ret = write_bytes(i * MIB, 64 * KIB, 1);
    }
    assert_int_equal(ret, -ENOSPC);
    config.capacity_bytes = 0;
    ash_sim_world_configure(rig.world, &config);
    expect_bytes(0, 64 * KIB, 1);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

/* --- tables that grow --- */

QCOW2_TEST(the_refcount_table_moves_when_it_is_full)
{
    open_image("cluster_size=512,refcount_bits=64", 4 * (uint64_t)MIB);
    uint64_t before = state_of()->reftable.offset;
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(write_bytes(i * MIB, MIB, i + 1), 0);
        assert_int_equal(ash_disk_flush(disk), 0);
    }
    assert_int_not_equal(state_of()->reftable.offset, before);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
    assert_int_equal(rig_open(&rig, "image", 0, &disk, &error), 0);
    for (uint64_t i = 0; i < 4; i++) {
        expect_bytes(i * MIB, MIB, i + 1);
    }
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(the_l1_table_moves_when_it_grows)
{
    open_image("cluster_size=512", 64 * (uint64_t)KIB);
    assert_int_equal(write_bytes(0, 64 * KIB, 1), 0);
    assert_int_equal(ash_co_disk_resize(disk, 64 * (uint64_t)MIB, 0, ASH_PREALLOC_OFF, &error), 0);
    assert_int_equal(write_bytes(63 * (uint64_t)MIB, 64 * KIB, 2), 0);
    expect_bytes(0, 64 * KIB, 1);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
    assert_int_equal(rig_open(&rig, "image", 0, &disk, &error), 0);
    expect_bytes(0, 64 * KIB, 1);
    expect_bytes(63 * (uint64_t)MIB, 64 * KIB, 2);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* Version 2 has no zero clusters to hide a backing file behind; beyond the end nobody looks. */
QCOW2_TEST(a_version_2_image_with_a_backing_file_shrinks_and_grows)
{
    assert_int_equal(rig_create(&rig, "base", 64 * KIB, "cluster_size=512"), 0);
    assert_int_equal(rig_open(&rig, "base", ASH_NODE_WRITE, &disk, &error), 0);
    assert_int_equal(write_bytes(0, 64 * KIB, 1), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    open_image("cluster_size=512,compat=0.10,backing_file=base,backing_fmt=qcow2", 64 * KIB);
    assert_int_equal(write_bytes(16 * KIB, 16 * KIB, 2), 0);
    assert_int_equal(
        ash_co_disk_resize(disk, 20 * KIB, ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF, &error), 0);
    assert_int_equal(ash_co_disk_resize(disk, 64 * KIB, 0, ASH_PREALLOC_OFF, &error), 0);
    expect_bytes(0, 16 * KIB, 1);
    expect_bytes(16 * KIB, 4 * KIB, 2);
    expect_bytes(20 * KIB, 44 * KIB, 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

/* --- damage --- */

QCOW2_TEST(an_entry_that_leads_to_metadata_is_refused_and_marks_the_image)
{
    static const uint64_t bad[] = {
        65536 | QCOW2_ENTRY_COPIED,             /* the refcount table */
        4 * 65536 | QCOW2_ENTRY_COPIED,         /* the L2 table itself, or data */
        (5 * 65536 + 512) | QCOW2_ENTRY_COPIED, /* not aligned */
        QCOW2_ENTRY_COMPRESSED | 100,           /* compressed in the header */
    };
    for (size_t i = 0; i < ASH_ARRAY_SIZE(bad); i++) {
        uint64_t l2 = closed_image("cluster_size=64k");
        uint64_t entry = i == 1 ? l2 | QCOW2_ENTRY_COPIED : bad[i];
        poke64(l2, entry);
        assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error), 0);
        assert_int_equal(write_bytes(0, 4096, 7), -EIO);
        assert_int_equal(write_bytes(65536, 4096, 7), -EIO);
        assert_true(peek64(72) & QCOW2_INCOMPATIBLE_CORRUPT);
        ash_co_disk_close(disk, &error);
        assert_int_equal(peek64(l2), entry);
        assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error), -EACCES);
        assert_int_equal(rig_open(&rig, "image", 0, &disk, &error), 0);
        assert_int_equal(ash_co_disk_close(disk, &error), 0);
    }
}

QCOW2_TEST(two_l1_entries_for_one_table_are_not_opened_for_writing)
{
    uint64_t l2 = closed_image("cluster_size=512");
    uint64_t l1 = peek64(40);
    poke64(l1 + 8, l2 | QCOW2_ENTRY_COPIED);
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error), -EINVAL);
    assert_non_null(strstr(error.message, "L1 table entry 1"));
    assert_int_equal(rig_open(&rig, "image", 0, &disk, &error), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(an_l1_entry_that_is_not_aligned_fails_reads_and_no_more)
{
    closed_image("cluster_size=64k");
    poke64(peek64(40), 4 * 65536 + 512);
    assert_int_equal(rig_open(&rig, "image", 0, &disk, &error), 0);
    assert_int_equal(ash_disk_read(disk, 0, buffer, 512), -EIO);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(an_entry_without_the_copied_flag_is_written_elsewhere)
{
    uint64_t l2 = closed_image("cluster_size=64k");
    uint64_t old = peek64(l2) & QCOW2_ENTRY_OFFSET;
    poke64(l2, old);
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error), 0);
    assert_int_equal(write_bytes(4096, 4096, 7), 0);
    assert_int_not_equal(place_of(0), old);
    expect_bytes(0, 4096, 1);
    expect_bytes(4096, 4096, 7);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

QCOW2_TEST(a_table_without_the_copied_flag_is_copied)
{
    uint64_t l2 = closed_image("cluster_size=64k");
    poke64(peek64(40), l2);
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error), 0);
    assert_int_equal(write_bytes(65536, 65536, 7), 0);
    expect_bytes(0, 65536, 1);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    assert_int_not_equal(peek64(peek64(40)) & QCOW2_ENTRY_OFFSET, l2);
    expect_sound(0);
    assert_int_equal(rig_open(&rig, "image", 0, &disk, &error), 0);
    expect_bytes(0, 65536, 1);
    expect_bytes(65536, 65536, 7);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(refcounts_of_zero_on_tables_in_use_do_not_hand_them_out)
{
    uint64_t l2 = closed_image("cluster_size=64k");
    uint16_t zero = 0;
    for (uint64_t c = 0; c < 6; c++) {
        assert_int_equal(ash_sim_file_write(rig.world, "image", 2 * 65536 + c * 2, &zero, 2), 0);
    }
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error), 0);
    int ret = 0;
    for (uint64_t i = 1; i < 16 && ret == 0; i++) {
        ret = write_bytes(i * 65536, 65536, 7);
        if (ret == 0) {
            assert_true(place_of(i * 65536) > l2);
        }
        ash_co_sleep(20 * MS);
    }
    assert_int_equal(ret, -EIO);
    assert_true(peek64(72) & QCOW2_INCOMPATIBLE_CORRUPT);
    ash_co_disk_close(disk, &error);
}

/* --- a cut at every write --- */

static const char *crash_options;
static uint64_t crash_bytes;
static uint64_t crash_pieces; /* of 768 KiB that a flush has covered */

static int crash_body(void *opaque)
{
    ash_co_assert_inside();
    (void)opaque;
    int ret = rig_open(&rig, "image", ASH_NODE_WRITE | ASH_NODE_DISCARD, &disk, &error);
    if (ret < 0) {
        return ret;
    }
    for (uint64_t i = 0; ret == 0 && i < 6; i++) {
        ret = write_bytes(i * 16 * KIB, 24 * KIB, i + 1);
        if (ret == 0 && i % 2) {
            ret = ash_disk_discard(disk, i * 8 * KIB, 8 * KIB);
        }
        if (ret == 0) {
            ret = ash_disk_flush(disk);
        }
    }
    int close_ret = ash_co_disk_close(disk, &error);
    return ret < 0 ? ret : close_ret;
}

/* The refcount table moves, then the L1 table. */
static int crash_grow_body(void *opaque)
{
    ash_co_assert_inside();
    (void)opaque;
    int ret = rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error);
    if (ret < 0) {
        return ret;
    }
    for (uint64_t i = 0; ret == 0 && i < 3; i++) {
        ret = write_bytes(i * 768 * KIB, 768 * KIB, i + 1);
        if (ret == 0) {
            ret = ash_disk_flush(disk);
        }
        if (ret == 0) {
            crash_pieces = i + 1;
        }
    }
    if (ret == 0) {
        ret = ash_co_disk_resize(disk, 8 * MIB, 0, ASH_PREALLOC_OFF, &error);
    }
    if (ret == 0) {
        ret = write_bytes(7 * MIB, 4 * KIB, 9);
    }
    int close_ret = ash_co_disk_close(disk, &error);
    return ret < 0 ? ret : close_ret;
}

static int crash_verify(void *opaque)
{
    ash_co_assert_inside();
    (void)opaque;
    assert_int_equal(rig_open(&rig, "image", 0, &disk, &error), 0);
    for (uint64_t i = 0; i < crash_pieces; i++) {
        expect_bytes(i * 768 * KIB, 768 * KIB, i + 1);
    }
    return ash_co_disk_close(disk, &error);
}

static int crash_create(void *opaque)
{
    ash_co_assert_inside();
    (void)opaque;
    return rig_create(&rig, "image", crash_bytes, crash_options);
}

/* At each write, for each of `seeds`; in the sanitized build at each third, for two of them. */
static void cut_everywhere(const char *options, uint64_t bytes, int (*body)(void *opaque),
                           uint64_t seeds)
{
    uint64_t step = is_sanitized() ? 3 : 1;
    seeds = is_sanitized() ? 2 : seeds;
    crash_bytes = bytes;
    crash_options = options;
    bool ended = false;
    for (uint64_t nth = 1; !ended; nth += step) {
        for (uint64_t seed = 1; seed <= seeds; seed++) {
            struct audit a;
            config.seed = seed;
            config.latency_ns_min = 1000;
            config.latency_ns_max = 50000;
            rig_world(&rig, &config);
            rig_boot(&rig);
            crash_pieces = 0;
            assert_int_equal(ash_loop_run_sync(rig.loop, crash_create, NULL), 0);
            ash_sim_power_cut_at(rig.world, nth, ASH_SIM_CUT_RANDOM);
            ended = ash_loop_run_sync(rig.loop, body, NULL) == 0;
            rig_halt(&rig);
            ash_sim_power_restore(rig.world);
            audit_image(&rig, "image", true, &a);
            if (a.corruptions) {
                fail_msg("cut at %" PRIu64 ", seed %" PRIu64 " (%s): %s", nth, seed, options,
                         a.first);
            }
            rig_boot(&rig);
            assert_int_equal(ash_loop_run_sync(rig.loop, crash_verify, NULL), 0);
            rig_end(&rig);
        }
    }
}

static void a_cut_at_every_write_leaves_leaks_at_worst(void **state)
{
    (void)state;
    error = (struct ash_error)ASH_ERROR_INIT;
    config = (struct ash_sim_config){.sector_bytes = 512};
    cut_everywhere("cluster_size=512,refcount_bits=64", 256 * KIB, crash_body, 6);
    cut_everywhere("cluster_size=4k", 256 * KIB, crash_body, 4);
    cut_everywhere("cluster_size=64k", 256 * KIB, crash_body, 4);
}

static void a_cut_while_tables_move_leaves_leaks_at_worst(void **state)
{
    (void)state;
    error = (struct ash_error)ASH_ERROR_INIT;
    config = (struct ash_sim_config){.sector_bytes = 512};
    cut_everywhere("cluster_size=512,refcount_bits=64", 3 * MIB, crash_grow_body, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(a_place_that_a_stalled_read_uses_is_not_handed_out),
        RUN(a_place_that_a_stalled_write_uses_is_not_handed_out),
        RUN(a_zero_cluster_takes_no_place_that_a_stalled_write_uses),
        RUN(a_slice_counts_only_if_the_l1_entry_still_leads_to_it),
        RUN(an_entry_set_after_a_batch_was_collected_is_not_written_by_it),
        RUN(discarded_space_is_used_again),
        RUN(space_freed_in_an_earlier_session_is_used_again),
        RUN(a_flush_with_nothing_to_write_costs_one_flush_of_the_file),
        RUN(allocating_writes_touch_no_metadata_until_a_flush),
        RUN(the_file_is_cut_to_size_when_it_is_closed),
        RUN(a_failed_flush_is_remembered),
        RUN(metadata_that_could_not_be_written_is_written_by_the_next_flush),
        RUN(failing_writes_give_their_places_back),
        RUN(a_full_disk_fails_writes_and_leaves_the_image_sound),
        RUN(the_refcount_table_moves_when_it_is_full),
        RUN(the_l1_table_moves_when_it_grows),
        RUN(a_version_2_image_with_a_backing_file_shrinks_and_grows),
        RUN(an_entry_that_leads_to_metadata_is_refused_and_marks_the_image),
        RUN(two_l1_entries_for_one_table_are_not_opened_for_writing),
        RUN(an_l1_entry_that_is_not_aligned_fails_reads_and_no_more),
        RUN(an_entry_without_the_copied_flag_is_written_elsewhere),
        RUN(a_table_without_the_copied_flag_is_copied),
        RUN(refcounts_of_zero_on_tables_in_use_do_not_hand_them_out),
        cmocka_unit_test(a_cut_at_every_write_leaves_leaks_at_worst),
        cmocka_unit_test(a_cut_while_tables_move_leaves_leaks_at_worst),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
