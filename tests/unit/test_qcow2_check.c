/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checking and repairing qcow2 images: what is found, what is left alone, and in which order things
 * are mended. */
#include "tests/unit/qcow2_disk.h"
#include "block/driver.h"
#include "block/qcow2/check.h"
#include "util/range.h"

enum { CLUSTER = 4 * KIB };

static struct ash_check check;

/* Opens, checks, repairs what `fix` says, closes. */
ASH_CO_FN static int check_image(uint32_t fix)
{
    check = (struct ash_check){.fix = fix};
    uint32_t flags = ASH_NODE_CHECK | (fix ? ASH_NODE_WRITE : 0);
    int ret = rig_open(&rig, "image", flags, &disk, &error);
    if (ret == 0) {
        struct ash_node *node = ash_disk_node(disk);
        ret = node->driver->check(node, &check, &error);
        int closed = ash_co_disk_close(disk, &error);
        ret = ret < 0 ? ret : closed;
    }
    return ret;
}

static uint64_t l2_table(void)
{
    return peek64(peek64(40)) & QCOW2_ENTRY_OFFSET;
}

static uint64_t refblock(void)
{
    return peek64(peek64(48));
}

static void poke_refcount(uint64_t cluster, uint16_t value)
{
    value = htobe16(value);
    assert_int_equal(ash_sim_file_write(rig.world, "image", refblock() + cluster * 2, &value, 2),
                     0);
}

/* An image of clusters of 4 KiB with 16 clusters of data. */
ASH_CO_FN static void small_image(void)
{
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, 16 * CLUSTER, 1), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
}

QCOW2_TEST(a_check_without_repairs_writes_nothing)
{
    small_image();
    uint64_t entry = peek64(l2_table());
    poke64(l2_table(), entry & ~QCOW2_ENTRY_COPIED);
    poke_refcount((entry & QCOW2_ENTRY_OFFSET) / CLUSTER + 1, 3);
    uint64_t before = ash_sim_mutations(rig.world);
    assert_int_equal(check_image(0), 0);
    assert_int_equal(check.corruptions, 2); /* the next one has the flag, and a refcount of 3 */
    assert_int_equal(check.leaks, 1);
    assert_int_equal(ash_sim_mutations(rig.world), before);
    assert_int_equal(check_image(ASH_CHECK_FIX_LEAKS), 0);
    assert_int_equal(check.corruptions, 1);
    assert_int_equal(check.leaks_fixed, 1);
    assert_int_equal(peek64(l2_table()), entry & ~QCOW2_ENTRY_COPIED);
    assert_int_equal(check_image(ASH_CHECK_FIX_ERRORS), 0);
    assert_int_equal(check.corruptions_fixed, 1);
    assert_int_equal(peek64(l2_table()), entry);
    expect_sound(0);
}

QCOW2_TEST(what_leads_outside_or_is_not_aligned_is_told_and_not_followed)
{
    small_image();
    uint64_t l1 = peek64(40);
    uint64_t l2 = l2_table();
    uint64_t good = peek64(l2);
    assert_int_equal(check_image(0), 0);
    assert_int_equal(check.corruptions + check.leaks + check.check_errors, 0);
    assert_int_equal(check.allocated_clusters, 16);
    poke64(l2, (UINT64_C(1) << 40) | QCOW2_ENTRY_COPIED);
    assert_int_equal(check_image(0), 0);
    assert_int_equal(check.corruptions, 1);
    assert_int_equal(check.leaks, 1);
    assert_true(check.image_end_offset <= (uint64_t)ash_sim_file_bytes(rig.world, "image"));
    poke64(l2, good);
    /* Half of a table's way into the next cluster, whose bytes would be taken for entries. */
    poke64(l1, (l2 + 512) | QCOW2_ENTRY_COPIED);
    assert_int_equal(check_image(0), 0);
    assert_int_equal(check.corruptions, 1);
    assert_int_equal(check.leaks, 17);
    assert_int_equal(check.allocated_clusters, 0);
}

/* An image that says it has one snapshot, in the last cluster of its data, with an L1 table there
 * too. */
ASH_CO_FN static void image_with_a_snapshot(uint64_t table, uint32_t entries)
{
    small_image();
    uint64_t last = peek64(l2_table() + 15 * 8) & QCOW2_ENTRY_OFFSET;
    uint32_t one = htobe32(1);
    assert_int_equal(ash_sim_file_write(rig.world, "image", 60, &one, 4), 0);
    poke64(64, last);
    for (uint64_t at = 0; at < CLUSTER; at += 8) {
        poke64(last + at, 0);
    }
    poke64(last, table);
    poke64(last + 8, (uint64_t)entries << 32);
}

QCOW2_TEST(snapshots_that_cannot_be_read_are_errors_of_the_check)
{
    static const struct {
        uint64_t table;
        uint32_t entries;
    } cases[] = {
        {CLUSTER, QCOW2_L1_BYTES_MAX / 8 + 1}, /* more than memory is taken for */
        {UINT64_MAX - CLUSTER, 1024},
    };
    for (size_t i = 0; i < ASH_ARRAY_SIZE(cases); i++) {
        image_with_a_snapshot(cases[i].table, cases[i].entries);
        assert_int_equal(check_image(0), 0);
        assert_int_equal(check.check_errors, 1);
    }
}

/* --- what snapshots and bitmaps refer to --- */

/* A cluster behind all others, of zeroes, with one reference. */
static uint64_t append_cluster(void)
{
    static const uint8_t zeroes[CLUSTER];
    uint64_t at = ash_align_up((uint64_t)ash_sim_file_bytes(rig.world, "image"), CLUSTER);
    assert_int_equal(ash_sim_file_write(rig.world, "image", at, zeroes, CLUSTER), 0);
    poke_refcount(at / CLUSTER, 1);
    return at;
}

/* All that the L1 table refers to has two references. */
static void share_data(void)
{
    uint64_t l2 = l2_table();
    poke64(peek64(40), l2);
    poke_refcount(l2 / CLUSTER, 2);
    for (unsigned i = 0; i < 16; i++) {
        uint64_t place = peek64(l2 + i * 8) & QCOW2_ENTRY_OFFSET;
        poke64(l2 + i * 8, place);
        poke_refcount(place / CLUSTER, 2);
    }
}

/* As qemu-img snapshot -c makes it. Returns where its L1 table lies. */
ASH_CO_FN static uint64_t image_with_a_sound_snapshot(void)
{
    small_image();
    uint32_t one = htobe32(1);
    uint64_t l1 = append_cluster();
    uint64_t table = append_cluster();
    share_data();
    poke64(l1, l2_table());
    assert_int_equal(ash_sim_file_write(rig.world, "image", 60, &one, 4), 0);
    poke64(64, table);
    poke64(table, l1);
    poke64(table + 8, UINT64_C(1) << 32 | 1 << 16 | 1); /* an id and a name of one byte */
    poke64(table + 40, UINT64_C(0x3161) << 48);
    return l1;
}

QCOW2_TEST(what_a_snapshot_refers_to_is_counted)
{
    uint64_t l1 = image_with_a_sound_snapshot();
    assert_int_equal(check_image(0), 0);
    assert_int_equal(check.corruptions + check.leaks + check.check_errors, 0);
    poke64(l1,
           0); /* it refers to nothing: then the other references are leaks, and two flags wrong */
    assert_int_equal(check_image(0), 0);
    assert_int_equal(check.leaks, 17);
    assert_int_equal(check.check_errors, 0);
    poke64(l1, l2_table());
    poke_refcount(l1 / CLUSTER, 0);
    assert_int_equal(check_image(0), 0);
    assert_int_equal(check.corruptions, 1);
}

/* Where things lie in an image with one persistent bitmap. */
struct bitmap_places {
    uint64_t extension;
    uint64_t directory;
    uint64_t table;
    uint64_t data;
};

/* As qemu-img bitmap --add makes it, in place of the names of features. */
ASH_CO_FN static struct bitmap_places image_with_a_bitmap(void)
{
    uint32_t header_bytes;
    small_image();
    assert_int_equal(ash_sim_file_read(rig.world, "image", 100, &header_bytes, 4), 0);
    struct bitmap_places places = {.extension = be32toh(header_bytes),
                                   .directory = append_cluster(),
                                   .table = append_cluster(),
                                   .data = append_cluster()};
    poke64(places.extension, UINT64_C(0x2385287500000018));
    poke64(places.extension + 8, UINT64_C(1) << 32); /* one bitmap */
    poke64(places.extension + 16, 32);
    poke64(places.extension + 24, places.directory);
    poke64(places.extension + 32, 0);
    poke64(places.directory, places.table);
    poke64(places.directory + 8, UINT64_C(2) << 32);             /* two entries in its table */
    poke64(places.directory + 16, UINT64_C(0x0110000100000000)); /* 64 KiB; a name of one byte */
    poke64(places.directory + 24, UINT64_C(0x62) << 56);
    poke64(places.table, places.data);
    poke64(places.table + 8, 1); /* all ones: no place */
    return places;
}

QCOW2_TEST(what_a_bitmap_refers_to_is_counted)
{
    struct bitmap_places places = image_with_a_bitmap();
    const uint64_t counted[] = {places.directory, places.table, places.data};
    assert_int_equal(check_image(0), 0);
    assert_int_equal(check.corruptions + check.leaks + check.check_errors, 0);
    for (size_t i = 0; i < ASH_ARRAY_SIZE(counted); i++) {
        poke_refcount(counted[i] / CLUSTER, 0);
        assert_int_equal(check_image(0), 0);
        assert_int_equal(check.corruptions, 1);
        assert_int_equal(check.check_errors, 0);
        poke_refcount(counted[i] / CLUSTER, 1);
    }
    poke64(places.table, 0); /* all zeroes: no place */
    assert_int_equal(check_image(0), 0);
    assert_int_equal(check.leaks, 1);
}

QCOW2_TEST(bitmaps_that_cannot_be_read_are_errors_of_the_check)
{
    static const struct {
        uint64_t directory; /* 0: at is one of the extension */
        uint64_t at;
        uint64_t value;
    } cases[] = {
        {0, 0, UINT64_C(0x2385287500000010)},    /* too short an extension */
        {0, 8, UINT64_C(65536) << 32},           /* too many */
        {0, 16, 64 * UINT64_C(1024) * 1024 + 1}, /* more than memory is taken for */
        {0, 16, 24},                             /* no room for the name */
        {0, 16, 16},                             /* no room for an entry */
        {0, 24, UINT64_MAX - CLUSTER},           /* beyond all files */
        {1, 0, UINT64_MAX - CLUSTER},            /* the same, of a table */
        {1, 8, UINT64_C(0x00100001) << 32},      /* a table larger than memory is taken for */
        {1, 16, UINT64_C(0x011000010000ffff)},   /* more beside the name than there is */
    };
    for (size_t i = 0; i < ASH_ARRAY_SIZE(cases); i++) {
        struct bitmap_places places = image_with_a_bitmap();
        uint64_t base = cases[i].directory ? places.directory : places.extension;
        uint64_t good = peek64(base + cases[i].at);
        poke64(base + cases[i].at, cases[i].value);
        if (cases[i].directory == 0 && cases[i].at == 0) {
            poke64(base + 24, 0); /* the end of the extensions comes earlier */
        }
        assert_int_equal(check_image(0), 0);
        if (check.check_errors != 1) {
            fail_msg("case %zu: %" PRIu64 " check errors", i, check.check_errors);
        }
        poke64(base + cases[i].at, good);
    }
}

QCOW2_TEST(a_compressed_cluster_counts_in_each_host_cluster_that_it_reaches_into)
{
    struct ash_prng prng;
    ash_prng_seed(&prng, 1);
    open_image("cluster_size=4k", MIB);
    memset(buffer, 0, 3 * CLUSTER);
    for (uint64_t i = 0; i < 3; i++) {
        ash_prng_fill(&prng, buffer + i * CLUSTER, 3000);
    }
    struct iovec vec = {buffer, 3 * CLUSTER};
    struct ash_io io = {.op = ASH_WRITE,
                        .flags = ASH_IO_COMPRESS,
                        .bytes = vec.iov_len,
                        .iov = ash_iov_of(&vec, 1)};
    assert_int_equal(ash_disk_io(disk, &io), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
    assert_int_equal(check_image(0), 0);
    assert_int_equal(check.compressed_clusters, 3);
    assert_int_equal(check.corruptions + check.leaks, 0);
}

/* One read of the L2 table fails in the check, and only that. */

static int checked;

static void check_body(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    checked = check_image(ASH_CHECK_FIX_LEAKS | ASH_CHECK_FIX_ERRORS);
}

static void end_of_failure(void *opaque, const struct ash_sim_event *event)
{
    (void)opaque;
    if (event->phase == ASH_SIM_COMPLETED && event->aio->op == ASH_AIO_READ) {
        config.read_error_per_mille = 0;
        ash_sim_world_configure(rig.world, &config);
    }
}

/* Has the nth read of the L2 table fail while `body` runs, and waits until it sets `checked`. */
ASH_CO_FN static void fail_one_read(ash_co_fn *body, unsigned nth)
{
    uint64_t offset = l2_table();
    ash_sim_hold(rig.world, "image", ASH_AIO_READ, offset, CLUSTER);
    checked = 1;
    assert_int_equal(ash_co_spawn(&rig.loop->sched, body, NULL), 0);
    for (unsigned i = 0; i < nth; i++) {
        if (i > 0) {
            ash_sim_release_all(rig.world);
            ash_sim_hold(rig.world, "image", ASH_AIO_READ, offset, CLUSTER);
        }
        while (ash_sim_held(rig.world) == 0) {
            assert_int_equal(checked, 1);
            ash_co_sleep(1 * MS);
        }
    }
    config.read_error_per_mille = 1000;
    ash_sim_world_configure(rig.world, &config);
    ash_sim_observe(rig.world, end_of_failure, NULL);
    ash_sim_release_all(rig.world);
    while (checked == 1) {
        ash_co_sleep(1 * MS);
    }
    ash_sim_observe(rig.world, NULL, NULL);
}

QCOW2_TEST(nothing_is_repaired_while_something_cannot_be_read)
{
    small_image();
    poke_refcount(40, 1);
    uint64_t bytes = (uint64_t)ash_sim_file_bytes(rig.world, "image");
    uint8_t *before = g_malloc(bytes);
    assert_int_equal(ash_sim_file_read(rig.world, "image", 0, before, bytes), 0);
    fail_one_read(check_body, 1);
    assert_true(check.check_errors > 0);
    assert_int_equal(check.corruptions, 0);
    assert_int_equal(check.leaks_fixed, 0);
    assert_int_equal(check.corruptions_fixed, 0);
    assert_int_equal(ash_sim_file_bytes(rig.world, "image"), bytes);
    assert_int_equal(ash_sim_file_read(rig.world, "image", 0, buffer, bytes), 0);
    assert_memory_equal(buffer, before, bytes);
    g_free(before);
    assert_int_equal(check_image(0), 0);
    assert_int_equal(check.leaks, 1);
    assert_int_equal(check.corruptions, 0);
}

/* The references were counted; the second look, at the flags, fails. */
QCOW2_TEST(flags_that_cannot_be_read_leave_the_image_marked)
{
    small_image();
    poke64(72, peek64(72) | QCOW2_INCOMPATIBLE_CORRUPT);
    fail_one_read(check_body, 2);
    assert_int_equal(checked, 0);
    assert_int_equal(check.check_errors, 1);
    assert_int_equal(check.io_error, -EIO);
    assert_true((peek64(72) & QCOW2_INCOMPATIBLE_CORRUPT) != 0);
    assert_int_equal(check_image(ASH_CHECK_FIX_ERRORS), 0);
    assert_int_equal(check.check_errors, 0);
    assert_true((peek64(72) & QCOW2_INCOMPATIBLE_CORRUPT) == 0);
    expect_sound(0);
}

static void open_body(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    checked = rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error);
}

QCOW2_TEST(a_dirty_image_that_cannot_be_read_now_says_so_and_opens_later)
{
    open_image("cluster_size=4k,lazy_refcounts=on", MIB);
    assert_int_equal(write_bytes(0, 16 * CLUSTER, 1), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    poke64(72, peek64(72) | QCOW2_INCOMPATIBLE_DIRTY);
    fail_one_read(open_body, 1);
    assert_int_equal(checked, -EIO);
    assert_non_null(strstr(error.message, "a part of it cannot be read"));
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

/* An image in use: what is dirty is written first, and writing goes on afterwards. */
QCOW2_TEST(repairs_of_an_image_in_use_take_nothing_from_it)
{
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, 16 * CLUSTER, 1), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    poke_refcount(60, 1); /* a leak */
    assert_int_equal(write_bytes(16 * CLUSTER, 16 * CLUSTER, 2), 0);
    assert_int_equal(ash_disk_discard(disk, 0, 8 * CLUSTER), 0);
    struct ash_node *node = ash_disk_node(disk);
    check = (struct ash_check){.fix = ASH_CHECK_FIX_LEAKS | ASH_CHECK_FIX_ERRORS};
    assert_int_equal(node->driver->check(node, &check, &error), 0);
    assert_int_equal(check.corruptions + check.leaks, 0);
    expect_sound(0);
    assert_int_equal(write_bytes(64 * CLUSTER, 32 * CLUSTER, 3), 0);
    expect_bytes(0, 8 * CLUSTER, 0);
    expect_bytes(8 * CLUSTER, 8 * CLUSTER, 1);
    expect_bytes(16 * CLUSTER, 16 * CLUSTER, 2);
    expect_bytes(64 * CLUSTER, 32 * CLUSTER, 3);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

/* An entry leads to a cluster behind the end of allocation: once that is counted, it is taken. */
QCOW2_TEST(what_a_repair_counts_is_not_handed_out_afterwards)
{
    uint64_t stray = 60 * CLUSTER;
    small_image();
    memset(buffer, 0x77, CLUSTER);
    assert_int_equal(ash_sim_file_write(rig.world, "image", stray, buffer, CLUSTER), 0);
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error), 0);
    assert_int_equal(write_bytes(0, CLUSTER, 1), 0);
    poke64(l2_table() + 20 * 8, stray | QCOW2_ENTRY_COPIED);
    struct ash_node *node = ash_disk_node(disk);
    check = (struct ash_check){.fix = ASH_CHECK_FIX_LEAKS | ASH_CHECK_FIX_ERRORS};
    assert_int_equal(node->driver->check(node, &check, &error), 0);
    assert_int_equal(check.corruptions_fixed, 1);
    assert_int_equal(write_bytes(64 * CLUSTER, 128 * CLUSTER, 3), 0);
    expect_bytes(20 * CLUSTER, CLUSTER, 0x77);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

/* discard; flush starts giving back, in the background; the check comes at once. */
QCOW2_TEST(what_is_being_given_back_is_no_leak)
{
    open_image("cluster_size=4k", MIB);
    assert_int_equal(write_bytes(0, MIB, 1), 0);
    for (uint64_t i = 0; i < 256; i += 2) {
        assert_int_equal(ash_disk_discard(disk, i * CLUSTER, CLUSTER), 0);
    }
    assert_int_equal(ash_disk_flush(disk), 0);
    ash_co_sleep(3 * MS);
    struct ash_node *node = ash_disk_node(disk);
    assert_true(state_of()->reclaiming);
    check = (struct ash_check){0};
    assert_int_equal(node->driver->check(node, &check, &error), 0);
    assert_int_equal(check.leaks + check.corruptions, 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

/* An entry leads to the refcount block; who writes a coded unit does not read what it replaces. */
QCOW2_TEST(a_compressed_write_gives_back_no_table)
{
    small_image();
    poke64(l2_table() + 20 * 8, refblock() | QCOW2_ENTRY_COPIED);
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error), 0);
    memset(buffer, 3, CLUSTER);
    struct iovec vec = {buffer, CLUSTER};
    struct ash_io io = {.op = ASH_WRITE,
                        .flags = ASH_IO_COMPRESS,
                        .offset = 20 * CLUSTER,
                        .bytes = CLUSTER,
                        .iov = ash_iov_of(&vec, 1)};
    assert_int_equal(ash_disk_io(disk, &io), -EIO);
    assert_true(state_of()->corrupt);
    (void)!ash_co_disk_close(disk, NULL);
}

/* Two bytes count the references to a cluster: more of them are refused, and not forgotten. */
static void a_counter_of_references_that_is_full_stays_full(void **state)
{
    struct qcow2_refs refs;
    (void)state;
    ash_qcow2_refs_init(&refs);
    for (unsigned i = 0; i < UINT16_MAX; i++) {
        assert_int_equal(ash_qcow2_refs_add(&refs, 7), 0);
    }
    assert_int_equal(ash_qcow2_refs_add(&refs, 7), -EFBIG);
    assert_int_equal(ash_qcow2_refs_get(&refs, 7), UINT16_MAX);
    ash_qcow2_refs_clear(&refs);
}

/* Tables that point everywhere at once: what was counted stays, and what it would take more memory
 * for is refused. */
static void references_are_counted_in_bounded_memory(void **state)
{
    struct qcow2_refs refs;
    (void)state;
    ash_qcow2_refs_init(&refs);
    assert_int_equal(refs.chunks_max, QCOW2_REFS_CHUNKS_MAX);
    refs.chunks_max = 3;
    for (uint64_t i = 0; i < 100; i++) {
        int ret = ash_qcow2_refs_add(&refs, (i * 7 + 1) * QCOW2_REFS_CHUNK);
        assert_int_equal(ret, i < 3 ? 0 : -EFBIG);
    }
    for (uint64_t i = 0; i < 100; i++) {
        assert_int_equal(ash_qcow2_refs_get(&refs, (i * 7 + 1) * QCOW2_REFS_CHUNK), i < 3);
    }
    /* There is room where a chunk is. */
    assert_int_equal(ash_qcow2_refs_add(&refs, 2 * QCOW2_REFS_CHUNK - 1), 0);
    assert_int_equal(g_hash_table_size(refs.chunks), 3);
    ash_qcow2_refs_clear(&refs);
}

/* --- a cut at every write of a repair --- */

static void (*damage)(void);

static int damage_body(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    small_image();
    damage();
    return 0;
}

static int repair_body(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    return check_image(ASH_CHECK_FIX_LEAKS | ASH_CHECK_FIX_ERRORS);
}

/* Calls look() with what a cut at each write leaves, and at last with what the repair leaves. */
static void cut_repairs(void (*look)(const struct audit *a, bool ended))
{
    bool ended = false;
    for (uint64_t nth = 1; !ended; nth++) {
        for (uint64_t seed = 1; seed <= 8; seed++) {
            struct audit a;
            config = (struct ash_sim_config){.seed = seed, .latency_ns_max = 1000};
            error = (struct ash_error)ASH_ERROR_INIT;
            rig_world(&rig, &config);
            rig_boot(&rig);
            assert_int_equal(ash_loop_run_sync(rig.loop, damage_body, NULL), 0);
            ash_sim_power_cut_at(rig.world, nth, ASH_SIM_CUT_RANDOM);
            ended = ash_loop_run_sync(rig.loop, repair_body, NULL) == 0;
            rig_halt(&rig);
            ash_sim_power_restore(rig.world);
            audit_image(&rig, "image", true, &a);
            look(&a, ended);
            rig_end(&rig);
        }
    }
}

/* One cluster's refcount too low, the next one's too high. */
static void one_too_high_one_too_low(void)
{
    uint64_t cluster = (peek64(l2_table()) & QCOW2_ENTRY_OFFSET) / CLUSTER;
    poke_refcount(cluster, 0);
    poke_refcount(cluster + 1, 2);
}

static void expect_raised_first(const struct audit *a, bool ended)
{
    assert_true(a->leaks == 1 || a->corruptions == 0);
    assert_true(!ended || a->leaks + a->corruptions == 0);
}

static void a_repair_raises_before_it_lowers(void **state)
{
    (void)state;
    damage = one_too_high_one_too_low;
    cut_repairs(expect_raised_first);
}

/* No refcount block at all: a new structure is made, and the header switched to it. */
static uint64_t old_table;

static void no_block(void)
{
    old_table = peek64(48);
    poke64(old_table, 0);
}

static void expect_old_or_new(const struct audit *a, bool ended)
{
    bool switched = peek64(48) != old_table;
    assert_true(switched ? a->corruptions == 0 : a->corruptions > 0);
    assert_true(!ended || (switched && a->leaks == 0));
}

static void a_new_refcount_structure_is_there_before_the_header_names_it(void **state)
{
    (void)state;
    damage = no_block;
    cut_repairs(expect_old_or_new);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(a_check_without_repairs_writes_nothing),
        RUN(what_leads_outside_or_is_not_aligned_is_told_and_not_followed),
        RUN(snapshots_that_cannot_be_read_are_errors_of_the_check),
        RUN(what_a_snapshot_refers_to_is_counted),
        RUN(what_a_bitmap_refers_to_is_counted),
        RUN(bitmaps_that_cannot_be_read_are_errors_of_the_check),
        RUN(a_compressed_cluster_counts_in_each_host_cluster_that_it_reaches_into),
        RUN(nothing_is_repaired_while_something_cannot_be_read),
        RUN(a_compressed_write_gives_back_no_table),
        cmocka_unit_test(a_counter_of_references_that_is_full_stays_full),
        cmocka_unit_test(references_are_counted_in_bounded_memory),
        RUN(flags_that_cannot_be_read_leave_the_image_marked),
        RUN(a_dirty_image_that_cannot_be_read_now_says_so_and_opens_later),
        RUN(repairs_of_an_image_in_use_take_nothing_from_it),
        RUN(what_a_repair_counts_is_not_handed_out_afterwards),
        RUN(what_is_being_given_back_is_no_leak),
        cmocka_unit_test(a_repair_raises_before_it_lowers),
        cmocka_unit_test(a_new_refcount_structure_is_there_before_the_header_names_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
