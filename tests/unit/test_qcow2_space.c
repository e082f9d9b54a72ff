/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where qcow2 takes space, when it gives it back, and what failures in between leave behind. */
#include "tests/unit/qcow2_disk.h"
#include <zstd.h>
#include "block/driver.h"

enum { CLUSTER = 4 * KIB };

static void fail_writes(bool on)
{
    config.write_error_per_mille = on ? 1000 : 0;
    ash_sim_world_configure(rig.world, &config);
}

ASH_CO_FN static int discard_cluster(uint64_t guest)
{
    return ash_disk_discard(disk, guest, CLUSTER);
}

/* discard of cluster 0 -> a flush that fails: on disk cluster 0 still leads to its place -> the
 * place is nobody's until a flush succeeds. */
QCOW2_TEST(a_place_whose_drop_could_not_be_written_is_not_handed_out)
{
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, 2 * CLUSTER, 1), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    uint64_t place = place_of(0);
    assert_int_equal(discard_cluster(0), 0);
    fail_writes(true);
    assert_true(ash_disk_flush(disk) < 0);
    fail_writes(false);
    ash_co_sleep(20 * MS);
    for (uint64_t i = 8; i < 24; i++) {
        assert_int_equal(write_bytes(i * CLUSTER, CLUSTER, 2), 0);
        assert_int_not_equal(place_of(i * CLUSTER), place);
    }
    assert_int_equal(ash_disk_flush(disk), 0);
    ash_co_sleep(20 * MS);
    assert_int_equal(write_bytes(32 * CLUSTER, CLUSTER, 3), 0);
    assert_int_equal(place_of(32 * CLUSTER), place);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

/* Behind the last cluster lies what somebody else left there. */
QCOW2_TEST(what_lies_behind_the_last_cluster_is_used_cleared_and_never_cut_off)
{
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, CLUSTER, 1), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    uint64_t end = (uint64_t)ash_sim_file_bytes(rig.world, "image");
    memset(buffer, 0xee, MIB);
    assert_int_equal(ash_sim_file_write(rig.world, "image", end, buffer, MIB), 0);
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error), 0);
    assert_int_equal(write_bytes(CLUSTER + 100, 100, 2), 0);
    assert_int_equal(place_of(CLUSTER), end);
    expect_bytes(CLUSTER, 100, 0);
    expect_bytes(CLUSTER + 100, 100, 2);
    expect_bytes(CLUSTER + 200, CLUSTER - 200, 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    assert_true((uint64_t)ash_sim_file_bytes(rig.world, "image") >= end + MIB);
    expect_sound(0);
}

/* A zero cluster that has a place keeps it when a write to it fails. */
QCOW2_TEST(a_failed_write_to_a_placed_zero_cluster_leaves_it_its_place)
{
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, CLUSTER, 1), 0);
    uint64_t place = place_of(0);
    assert_int_equal(ash_disk_zero(disk, 0, CLUSTER, 0), 0);
    assert_int_equal(place_of(0), place);
    assert_int_equal(ash_disk_flush(disk), 0);
    fail_writes(true);
    assert_true(write_bytes(100, 100, 2) < 0);
    fail_writes(false);
    ash_co_sleep(20 * MS);
    for (uint64_t i = 8; i < 24; i++) {
        assert_int_equal(write_bytes(i * CLUSTER, CLUSTER, 3), 0);
        assert_int_not_equal(place_of(i * CLUSTER), place);
    }
    assert_int_equal(write_bytes(100, 100, 2), 0);
    assert_int_equal(place_of(0), place);
    expect_bytes(0, 100, 0);
    expect_bytes(100, 100, 2);
    expect_bytes(200, CLUSTER - 200, 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

QCOW2_TEST(refcounts_that_cannot_all_be_raised_are_left_as_they_were)
{
    uint64_t value;
    open_image("cluster_size=4k,refcount_bits=1", MIB);
    assert_int_equal(write_bytes(0, 3 * CLUSTER, 1), 0);
    assert_int_equal(write_bytes(8 * CLUSTER, CLUSTER, 1), 0);
    assert_int_equal(discard_cluster(0), 0);
    assert_int_equal(discard_cluster(CLUSTER), 0);
    uint64_t third = place_of(2 * CLUSTER) / CLUSTER;
    assert_int_equal(ash_disk_flush(disk), 0);
    ash_co_sleep(20 * MS);
    struct ash_node *node = ash_disk_node(disk);
    assert_int_equal(ash_qcow2_refcount_raise(node, third - 2, 3), -ERANGE);
    for (uint64_t cluster = third - 2; cluster <= third; cluster++) {
        assert_int_equal(ash_qcow2_refcount_get(node, cluster, &value), 0);
        assert_int_equal(value, cluster == third);
    }
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

QCOW2_TEST(a_place_that_was_used_before_is_cleared_around_what_is_written)
{
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, 8 * CLUSTER, 1), 0);
    uint64_t place = place_of(0);
    assert_int_equal(ash_disk_discard(disk, 0, 8 * CLUSTER), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    ash_co_sleep(20 * MS);
    memset(buffer, 0xee, 8 * CLUSTER); /* a host that does not take the space */
    assert_int_equal(ash_sim_file_write(rig.world, "image", place, buffer, 8 * CLUSTER), 0);
    assert_int_equal(write_bytes(16 * CLUSTER + 100, 100, 2), 0);
    assert_int_equal(place_of(16 * CLUSTER), place);
    expect_bytes(16 * CLUSTER, 100, 0);
    expect_bytes(16 * CLUSTER + 200, CLUSTER - 200, 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

QCOW2_TEST(prepare_takes_no_place_for_a_cluster_that_has_one)
{
    struct ash_placement placement = {0};
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(2 * CLUSTER, CLUSTER, 1), 0);
    struct ash_node *node = ash_disk_node(disk);
    assert_int_equal(ash_qcow2_map_ops.prepare(node, 100, 4 * CLUSTER, &placement), 0);
    assert_int_equal(placement.offset, 0);
    assert_int_equal(placement.bytes, 2 * CLUSTER);
    ash_qcow2_map_ops.abort(node, &placement);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

static void poke_refcount(uint64_t cluster, uint16_t value)
{
    value = htobe16(value);
    uint64_t at = peek64(peek64(48)) + cluster * 2;
    assert_int_equal(ash_sim_file_write(rig.world, "image", at, &value, 2), 0);
}

/* Opens the image and discards the first cluster; the second, which leads to the same place, stays
 * what it was. */
ASH_CO_FN static void discard_the_first_of_two(void)
{
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE | ASH_NODE_DISCARD, &disk, &error), 0);
    assert_int_equal(discard_cluster(0), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    ash_co_sleep(20 * MS);
    expect_bytes(0, CLUSTER, 0);
    expect_bytes(CLUSTER, CLUSTER, 1);
}

/* As internal snapshots make it: what is dropped here is in use there. */
QCOW2_TEST(the_space_of_a_cluster_that_others_refer_to_is_not_given_back)
{
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, CLUSTER, 1), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    uint64_t l2 = peek64(peek64(40)) & QCOW2_ENTRY_OFFSET;
    uint64_t place = peek64(l2) & QCOW2_ENTRY_OFFSET;
    poke64(l2, place);
    poke64(l2 + 8, place);
    poke_refcount(place / CLUSTER, 2);
    discard_the_first_of_two();
    assert_int_equal(ash_disk_zero(disk, CLUSTER, CLUSTER, 0), 0); /* and keeps no shared place */
    assert_int_equal(place_of(CLUSTER), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

/* The entry says that nobody else refers to the cluster; the refcount knows better. */
QCOW2_TEST(the_space_of_a_cluster_is_not_given_back_because_an_entry_says_so)
{
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, CLUSTER, 1), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    uint64_t l2 = peek64(peek64(40)) & QCOW2_ENTRY_OFFSET;
    poke64(l2 + 8, peek64(l2));
    poke_refcount((peek64(l2) & QCOW2_ENTRY_OFFSET) / CLUSTER, 2);
    discard_the_first_of_two();
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

/* A refcount of 1 alone, which is wrong here, is not enough either. */
QCOW2_TEST(the_space_of_a_cluster_is_not_given_back_against_what_its_entry_says)
{
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, CLUSTER, 1), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    uint64_t l2 = peek64(peek64(40)) & QCOW2_ENTRY_OFFSET;
    uint64_t place = peek64(l2) & QCOW2_ENTRY_OFFSET;
    poke64(l2, place);
    poke64(l2 + 8, place);
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE | ASH_NODE_DISCARD, &disk, &error), 0);
    assert_int_equal(discard_cluster(0), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    ash_co_sleep(20 * MS);
    expect_bytes(CLUSTER, CLUSTER, 1);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* Clusters 0 and 4 are discarded at once; entries 2 and 6 lead to the same places. The refcount of
 * the first place is 0, which tells that the image is corrupt: so the second, whose refcount of 1
 * is as wrong, is not given back either. */
QCOW2_TEST(the_space_of_an_image_that_is_known_to_be_corrupt_is_not_given_back)
{
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, 8 * CLUSTER, 1), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    uint64_t l2 = peek64(peek64(40)) & QCOW2_ENTRY_OFFSET;
    poke64(l2 + 2 * 8, peek64(l2));
    poke64(l2 + 6 * 8, peek64(l2 + 4 * 8));
    poke_refcount((peek64(l2) & QCOW2_ENTRY_OFFSET) / CLUSTER, 0);
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE | ASH_NODE_DISCARD, &disk, &error), 0);
    assert_int_equal(discard_cluster(0), 0);
    assert_int_equal(discard_cluster(4 * CLUSTER), 0);
    ash_disk_flush(disk);
    ash_co_sleep(20 * MS);
    assert_true(peek64(72) & QCOW2_INCOMPATIBLE_CORRUPT);
    expect_bytes(2 * CLUSTER, CLUSTER, 1);
    expect_bytes(6 * CLUSTER, CLUSTER, 1);
    assert_true(ash_co_disk_close(disk, &error) < 0);
}

QCOW2_TEST(a_cluster_that_nobody_counted_is_not_given_back)
{
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, CLUSTER, 1), 0);
    assert_int_equal(write_bytes(CLUSTER, CLUSTER, 2), 0);
    uint64_t place = place_of(0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    poke_refcount(place / CLUSTER, 0);
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE | ASH_NODE_DISCARD, &disk, &error), 0);
    assert_int_equal(discard_cluster(0), 0);
    ash_disk_flush(disk);
    ash_co_sleep(20 * MS);
    assert_true(peek64(72) & QCOW2_INCOMPATIBLE_CORRUPT);
    expect_bytes(CLUSTER, CLUSTER, 2);
    assert_true(ash_co_disk_close(disk, &error) < 0);
}

/* What stands between a mistake of ours and the guest's data. */
QCOW2_TEST(metadata_is_not_written_upon_anything_else)
{
    uint8_t junk[512] = {1, 2, 3};
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, CLUSTER, 1), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    struct ash_node *node = ash_disk_node(disk);
    uint64_t place = place_of(0);
    assert_int_equal(ash_qcow2_write(node, QCOW2_KIND_L1, place, junk, sizeof(junk)), -EIO);
    expect_bytes(0, CLUSTER, 1);
    assert_true(peek64(72) & QCOW2_INCOMPATIBLE_CORRUPT);
    assert_true(ash_co_disk_close(disk, &error) < 0);
}

/* --- compressed clusters --- */

/* Compresses to about `dense` bytes, which nothing makes smaller. */
static void fill_cluster(uint8_t *cluster, uint64_t dense, uint64_t seed)
{
    struct ash_prng prng;
    ash_prng_seed(&prng, seed);
    memset(cluster, 0, CLUSTER);
    ash_prng_fill(&prng, cluster, dense);
}

ASH_CO_FN static void write_coded(uint64_t index, uint64_t dense)
{
    struct iovec vec = {buffer, CLUSTER};
    struct ash_io io = {.op = ASH_WRITE,
                        .flags = ASH_IO_COMPRESS,
                        .offset = index * CLUSTER,
                        .bytes = CLUSTER,
                        .iov = ash_iov_of(&vec, 1)};
    fill_cluster(buffer, dense, index);
    assert_int_equal(ash_disk_io(disk, &io), 0);
}

ASH_CO_FN static void expect_coded(uint64_t index, uint64_t dense)
{
    uint8_t wanted[CLUSTER];
    fill_cluster(wanted, dense, index);
    assert_int_equal(ash_disk_read(disk, index * CLUSTER, buffer, CLUSTER), 0);
    assert_memory_equal(buffer, wanted, CLUSTER);
}

static uint64_t dense_bytes(uint64_t index)
{
    return index * 97 % (CLUSTER - 300);
}

/* Of every length, so that many reach into a second host cluster; every third one goes again. */
static void coded_clusters(const char *options)
{
    ash_co_assert_inside();
    open_image(options, MIB);
    for (uint64_t i = 0; i < 120; i++) {
        write_coded(i, dense_bytes(i));
    }
    for (uint64_t i = 0; i < 120; i += 3) {
        assert_int_equal(
            i % 2 ? discard_cluster(i * CLUSTER) : ash_disk_zero(disk, i * CLUSTER, CLUSTER, 0), 0);
    }
    assert_int_equal(ash_disk_flush(disk), 0);
    ash_co_sleep(20 * MS);
    for (uint64_t i = 150; i < 200; i++) {
        assert_int_equal(write_bytes(i * CLUSTER, CLUSTER, 7), 0);
    }
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
    assert_int_equal(rig_open(&rig, "image", 0, &disk, &error), 0);
    for (uint64_t i = 0; i < 120; i++) {
        if (i % 3) {
            expect_coded(i, dense_bytes(i));
        } else {
            expect_bytes(i * CLUSTER, CLUSTER, 0);
        }
    }
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(compressed_clusters_of_every_length_stay_when_their_neighbours_go)
{
    coded_clusters("cluster_size=4k");
    coded_clusters("cluster_size=4k,compression_type=zstd");
    coded_clusters("cluster_size=4k,compat=0.10");
}

static int tail_coded = 1;
static int tail_grown = 1;

static void code_tail(void *opaque)
{
    struct iovec vec = {opaque, 2 * KIB};
    struct ash_io io = {.op = ASH_WRITE,
                        .flags = ASH_IO_COMPRESS,
                        .offset = 4 * CLUSTER,
                        .bytes = 2 * KIB,
                        .iov = ash_iov_of(&vec, 1)};
    ash_co_assert_inside();
    tail_coded = ash_disk_io(disk, &io);
}

static void grow(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    tail_grown = ash_co_disk_resize(disk, 8 * CLUSTER, 0, ASH_PREALLOC_OFF, &error);
}

/* coded write: half of the last cluster, the disk ends there; held ... replaces the cluster
 * resize:                                                        waits                     grows */
QCOW2_TEST(a_disk_does_not_get_longer_beside_a_coded_write_of_its_last_cluster)
{
    uint8_t data[2 * KIB];
    memset(data, 5, sizeof(data));
    open_image("cluster_size=4k", 4 * CLUSTER + 2 * KIB);
    ash_sim_hold(rig.world, "image", ASH_AIO_WRITE, 4 * CLUSTER, INT64_MAX);
    assert_int_equal(ash_co_spawn(&rig.loop->sched, code_tail, data), 0);
    while (ash_sim_held(rig.world) == 0) {
        ash_co_sleep(1 * MS);
    }
    assert_int_equal(ash_co_spawn(&rig.loop->sched, grow, NULL), 0);
    ash_co_sleep(200 * MS);
    assert_int_equal(tail_grown, 1);
    assert_int_equal(tail_coded, 1);
    ash_sim_release_all(rig.world);
    while (tail_grown == 1) {
        ash_co_sleep(1 * MS);
    }
    assert_int_equal(tail_coded, 0);
    assert_int_equal(tail_grown, 0);
    assert_int_equal(write_bytes(4 * CLUSTER + 2 * KIB, 512, 6), 0);
    expect_bytes(4 * CLUSTER, 2 * KIB, 5);
    expect_bytes(4 * CLUSTER + 2 * KIB, 512, 6);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

/* A decoder that stopped in the middle of a stream is used for the next one. */
static void decode_after_failures(const char *options, uint64_t kind)
{
    uint8_t plain[CLUSTER], coded[CLUSTER], out[CLUSTER];
    ash_co_assert_inside();
    open_image(options, MIB);
    const struct ash_node *node = ash_disk_node(disk);
    struct ash_extent extent = {.kind = ASH_EXTENT_CODED};
    fill_cluster(plain, CLUSTER / 2, kind);
    int whole = ash_qcow2_encode(node, plain, CLUSTER, coded, CLUSTER);
    assert_true(whole > 0);
    for (int cut = whole - 200; cut > 8; cut -= 61) {
        assert_int_equal(ash_qcow2_decode(node, &extent, coded, (size_t)cut, out, CLUSTER), -EIO);
        assert_int_equal(ash_qcow2_decode(node, &extent, coded, (size_t)whole, out, CLUSTER), 0);
        assert_memory_equal(out, plain, CLUSTER);
    }
    /* A stream that is sound and too short. */
    int half = ash_qcow2_encode(node, plain, CLUSTER / 2 + 512, coded, CLUSTER);
    assert_true(half > 0);
    assert_int_equal(ash_qcow2_decode(node, &extent, coded, (size_t)half, out, CLUSTER), -EIO);
    /* What follows a whole stream belongs to a neighbour. */
    whole = ash_qcow2_encode(node, plain, CLUSTER, coded, CLUSTER);
    memset(coded + whole, 0xff, (size_t)(CLUSTER - whole));
    assert_int_equal(ash_qcow2_decode(node, &extent, coded, CLUSTER, out, CLUSTER), 0);
    assert_memory_equal(out, plain, CLUSTER);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(a_stream_that_lies_fails_and_harms_no_later_one)
{
    decode_after_failures("cluster_size=4k", 1);
    decode_after_failures("cluster_size=4k,compression_type=zstd", 2);
}

/* A frame that has the decoder remember 128 MiB, for a cluster of 4 KiB. */
QCOW2_TEST(a_frame_that_wants_much_memory_is_refused)
{
    uint8_t coded[CLUSTER], out[CLUSTER];
    struct ash_extent extent = {.kind = ASH_EXTENT_CODED};
    open_image("cluster_size=4k,compression_type=zstd", MIB);
    fill_cluster(buffer, 100, 3);
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, 27);
    ZSTD_inBuffer in = {buffer, CLUSTER, 0};
    ZSTD_outBuffer to = {coded, CLUSTER, 0};
    assert_int_equal(ZSTD_compressStream2(context, &to, &in, ZSTD_e_flush), 0);
    assert_int_equal(ZSTD_compressStream2(context, &to, &in, ZSTD_e_end), 0);
    ZSTD_freeCCtx(context);
    const struct ash_node *node = ash_disk_node(disk);
    assert_int_equal(ash_qcow2_decode(node, &extent, coded, to.pos, out, CLUSTER), -EIO);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

/* --- the memory of walks --- */

static void discard_body(void *opaque)
{
    ash_co_assert_inside();
    *(int *)opaque = ash_disk_discard(disk, 0, 64 * KIB);
}

/* discard of two tables' clusters:  the first table changed, the second one's load held
 * flush; 64 writes elsewhere take the places that were let go
 * read of the first cluster:  from memory it would be one of those */
QCOW2_TEST(what_a_discard_under_way_let_go_is_not_found_in_memory)
{
    int ret = 1;
    assert_int_equal(rig_create(&rig, "base", MIB, ""), 0);
    open_image("cluster_size=512,backing_file=base,backing_fmt=qcow2", MIB);
    assert_int_equal(write_bytes(0, 64 * KIB, 1), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    uint64_t second = peek64(peek64(40) + 8) & QCOW2_ENTRY_OFFSET;
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE | ASH_NODE_DISCARD, &disk, &error), 0);
    expect_bytes(0, 512, 1);
    uint64_t first = place_of(0);
    ash_sim_hold(rig.world, "image", ASH_AIO_READ, second, 512);
    assert_int_equal(ash_co_spawn(&rig.loop->sched, discard_body, &ret), 0);
    while (ash_sim_held(rig.world) == 0) {
        ash_co_sleep(1 * MS);
    }
    assert_int_equal(ash_disk_flush(disk), 0);
    bool taken = false;
    for (uint64_t i = 1024; i < 1152; i++) {
        assert_int_equal(write_bytes(i * 512, 512, 2), 0);
        ash_co_sleep(1 * MS); /* free clusters are looked for in the background */
        taken |= place_of(i * 512) == first;
    }
    assert_true(taken);
    expect_bytes(0, 512, 0);
    ash_sim_release_all(rig.world);
    while (ret == 1) {
        ash_co_sleep(1 * MS);
    }
    assert_int_equal(ret, 0);
    expect_bytes(0, 64 * KIB, 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

/* --- the header --- */

static int resize_ret;

static void resize_body(void *opaque)
{
    ash_co_assert_inside();
    (void)opaque;
    resize_ret = ash_qcow2_header_set_length(ash_disk_node(disk), 2 * MIB - 16 * KIB);
}

static void flush_body(void *opaque)
{
    ash_co_assert_inside();
    *(int *)opaque = ash_disk_flush(disk);
}

/* flush:  moves the refcount table, header write held ....... released
 * length:                        waits for the header ....... writes it */
QCOW2_TEST(a_new_length_does_not_take_back_the_move_of_a_table)
{
    int flushed = 1;
    open_image("cluster_size=512,refcount_bits=64", 2 * MIB - 16 * KIB);
    uint64_t before = peek64(48);
    assert_int_equal(write_bytes(0, 2 * MIB - 16 * KIB, 1), 0);
    assert_true(state_of()->reftable.moved);
    ash_sim_hold(rig.world, "image", ASH_AIO_WRITE, 0, 512);
    assert_int_equal(ash_co_spawn(&rig.loop->sched, flush_body, &flushed), 0);
    while (ash_sim_held(rig.world) == 0) {
        ash_co_sleep(1 * MS);
    }
    resize_ret = 1;
    assert_int_equal(ash_co_spawn(&rig.loop->sched, resize_body, NULL), 0);
    ash_co_sleep(50 * MS);
    assert_int_equal(resize_ret, 1);
    ash_sim_release_all(rig.world);
    while (flushed == 1 || resize_ret == 1) {
        ash_co_sleep(1 * MS);
    }
    assert_int_equal(flushed, 0);
    assert_int_equal(resize_ret, 0);
    assert_int_equal(peek64(24), 2 * MIB - 16 * KIB);
    assert_int_not_equal(peek64(48), before);
    assert_int_equal(peek64(48), state_of()->reftable.offset);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

QCOW2_TEST(a_disk_that_cannot_grow_keeps_its_length)
{
    open_image("cluster_size=4k", MIB);
    fail_writes(true);
    assert_true(ash_co_disk_resize(disk, 2 * MIB, 0, ASH_PREALLOC_OFF, &error) < 0);
    fail_writes(false);
    assert_int_equal(ash_disk_bytes(disk), MIB);
    assert_int_equal(ash_disk_read(disk, MIB, buffer, CLUSTER), -EIO);
    ash_co_disk_close(disk, &error);
    assert_int_equal(peek64(24), MIB);
}

/* --- a cut at every write of a change of the header --- */

/* A world of its own, with a base of 128 KiB, for each cut; true when the run came to its end. */
static bool cut_run(int (*create)(void *opaque), int (*body)(void *opaque), uint64_t nth,
                    uint64_t seed)
{
    config = (struct ash_sim_config){.seed = seed, .latency_ns_min = 1, .latency_ns_max = 1000};
    error = (struct ash_error)ASH_ERROR_INIT;
    rig_world(&rig, &config);
    memset(buffer, 9, 128 * KIB);
    assert_int_equal(ash_sim_file_write(rig.world, "base", 0, buffer, 128 * KIB), 0);
    rig_boot(&rig);
    assert_int_equal(ash_loop_run_sync(rig.loop, create, NULL), 0);
    ash_sim_power_cut_at(rig.world, nth, ASH_SIM_CUT_RANDOM);
    bool ended = ash_loop_run_sync(rig.loop, body, NULL) == 0;
    rig_halt(&rig);
    ash_sim_power_restore(rig.world);
    ash_sim_power_cut_at(rig.world, 0, ASH_SIM_CUT_DROP);
    return ended;
}

static int grow_create(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    return rig_create(&rig, "image", 64 * KIB, "cluster_size=4k,backing_file=base,backing_fmt=raw");
}

static int grow_body(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    int ret = rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error);
    if (ret == 0) {
        ret = ash_co_disk_resize(disk, 128 * KIB, 0, ASH_PREALLOC_OFF, &error);
        int closed = ash_co_disk_close(disk, &error);
        ret = ret < 0 ? ret : closed;
    }
    return ret;
}

/* What lies beyond 64 KiB, if the disk has that, or when it grows again. */
static int expect_nothing_beyond(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error), 0);
    if (ash_disk_bytes(disk) == 64 * KIB) {
        assert_int_equal(ash_co_disk_resize(disk, 128 * KIB, 0, ASH_PREALLOC_OFF, &error), 0);
    }
    expect_bytes(64 * KIB, 64 * KIB, 0);
    return ash_co_disk_close(disk, &error);
}

static void a_disk_that_grew_in_a_cut_shows_nothing_of_a_longer_backing_file(void **state)
{
    (void)state;
    bool ended = false;
    for (uint64_t nth = 1; !ended; nth++) {
        for (uint64_t seed = 1; seed <= 6; seed++) {
            ended = cut_run(grow_create, grow_body, nth, seed);
            rig_boot(&rig);
            assert_int_equal(ash_loop_run_sync(rig.loop, expect_nothing_beyond, NULL), 0);
            rig_end(&rig);
        }
    }
}

static int shrink_create(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    open_image("cluster_size=4k", 128 * KIB);
    assert_int_equal(write_bytes(0, 128 * KIB, 1), 0);
    return ash_co_disk_close(disk, &error);
}

static int shrink_body(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    int ret = rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error);
    if (ret == 0) {
        ret = ash_co_disk_resize(disk, 64 * KIB, ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF, &error);
        int closed = ash_co_disk_close(disk, &error);
        ret = ret < 0 ? ret : closed;
    }
    return ret;
}

static void a_disk_that_shrank_in_a_cut_shows_nothing_when_it_grows_again(void **state)
{
    (void)state;
    bool ended = false;
    for (uint64_t nth = 1; !ended; nth++) {
        for (uint64_t seed = 1; seed <= 6; seed++) {
            ended = cut_run(shrink_create, shrink_body, nth, seed);
            if (peek64(24) == 64 * KIB) {
                rig_boot(&rig);
                assert_int_equal(ash_loop_run_sync(rig.loop, expect_nothing_beyond, NULL), 0);
            }
            rig_end(&rig);
        }
    }
}

static int lazy_create(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    return rig_create(&rig, "image", MIB, "cluster_size=4k,lazy_refcounts=on");
}

static int lazy_body(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    int ret = rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error);
    if (ret == 0) {
        ret = write_bytes(0, 64 * KIB, 1);
        int closed = ash_co_disk_close(disk, &error);
        ret = ret < 0 ? ret : closed;
    }
    return ret;
}

static void refcounts_of_an_image_that_is_not_marked_dirty_are_right(void **state)
{
    (void)state;
    bool ended = false;
    for (uint64_t nth = 1; !ended; nth++) {
        for (uint64_t seed = 1; seed <= 6; seed++) {
            struct audit a;
            ended = cut_run(lazy_create, lazy_body, nth, seed);
            bool marked = peek64(72) & QCOW2_INCOMPATIBLE_DIRTY;
            audit_image(&rig, "image", !marked, &a);
            assert_int_equal(a.corruptions, 0);
            assert_true(!ended || !marked);
            rig_end(&rig);
        }
    }
}

/* The L1 table moves; then data goes to where it was, and the power fails before any flush. */

static int move_create(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    open_image("cluster_size=512", 64 * KIB);
    assert_int_equal(write_bytes(0, 33 * KIB, 1), 0);
    uint64_t old = state_of()->l1.offset;
    assert_int_equal(ash_qcow2_l1_grow(ash_disk_node(disk), 2048, &error), 0);
    ash_co_sleep(20 * MS);
    bool taken = false;
    for (uint64_t i = 66; i < 128 && !taken; i++) {
        assert_int_equal(write_bytes(i * 512, 512, 0xff), 0);
        ash_co_sleep(1 * MS);
        taken = place_of(i * 512) == old;
    }
    assert_true(taken);
    ash_sim_power_cut(rig.world, ASH_SIM_CUT_RANDOM);
    ash_co_disk_close(disk, &error);
    return 0;
}

static int nothing(void *opaque)
{
    (void)opaque;
    return 0;
}

static void a_table_that_moved_is_not_needed_where_it_was(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 16; seed++) {
        struct audit a;
        cut_run(move_create, nothing, 1, seed);
        audit_image(&rig, "image", true, &a);
        assert_int_equal(a.corruptions, 0);
        rig_end(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(a_place_whose_drop_could_not_be_written_is_not_handed_out),
        RUN(what_lies_behind_the_last_cluster_is_used_cleared_and_never_cut_off),
        RUN(a_failed_write_to_a_placed_zero_cluster_leaves_it_its_place),
        RUN(refcounts_that_cannot_all_be_raised_are_left_as_they_were),
        RUN(a_place_that_was_used_before_is_cleared_around_what_is_written),
        RUN(prepare_takes_no_place_for_a_cluster_that_has_one),
        RUN(the_space_of_a_cluster_that_others_refer_to_is_not_given_back),
        RUN(the_space_of_a_cluster_is_not_given_back_because_an_entry_says_so),
        RUN(the_space_of_a_cluster_is_not_given_back_against_what_its_entry_says),
        RUN(the_space_of_an_image_that_is_known_to_be_corrupt_is_not_given_back),
        RUN(a_cluster_that_nobody_counted_is_not_given_back),
        RUN(metadata_is_not_written_upon_anything_else),
        RUN(compressed_clusters_of_every_length_stay_when_their_neighbours_go),
        RUN(a_disk_does_not_get_longer_beside_a_coded_write_of_its_last_cluster),
        RUN(a_stream_that_lies_fails_and_harms_no_later_one),
        RUN(a_frame_that_wants_much_memory_is_refused),
        RUN(what_a_discard_under_way_let_go_is_not_found_in_memory),
        RUN(a_new_length_does_not_take_back_the_move_of_a_table),
        RUN(a_disk_that_cannot_grow_keeps_its_length),
        cmocka_unit_test(refcounts_of_an_image_that_is_not_marked_dirty_are_right),
        cmocka_unit_test(a_table_that_moved_is_not_needed_where_it_was),
        cmocka_unit_test(a_disk_that_grew_in_a_cut_shows_nothing_of_a_longer_backing_file),
        cmocka_unit_test(a_disk_that_shrank_in_a_cut_shows_nothing_when_it_grows_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
