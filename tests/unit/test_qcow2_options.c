/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: what the options of an open image do. */
#include "tests/unit/qcow2_disk.h"
#include "util/json.h"

enum { CLUSTER = 64 * KIB, SECTION = 512 * KIB /* 4096 bytes of L2 table map 32 MiB of these */ };

static const uint64_t slice_bytes_guest = UINT64_C(4096) / 8 * CLUSTER;

static json_t *described(const char *options)
{
    json_t *description = ash_json_from_keyval(options, NULL, NULL);
    json_object_set_new(description, "driver", json_string("qcow2"));
    json_object_set_new(description, "file",
                        json_pack("{s:s, s:s}", "driver", "file", "filename", "image"));
    return description;
}

ASH_CO_FN static int open_with(const char *options, uint32_t flags)
{
    json_t *description = described(options);
    error = (struct ash_error)ASH_ERROR_INIT;
    int ret = ash_co_disk_open(rig.loop, description, flags, &disk, &error);
    json_decref(description);
    return ret;
}

ASH_CO_FN static void open_well(const char *options, uint32_t flags)
{
    if (open_with(options, flags) < 0) {
        fail_msg("%s: %s", options, error.message);
    }
}

ASH_CO_FN static int reopen_with(const char *options, uint32_t flags)
{
    json_t *changed = ash_json_from_keyval(options, NULL, NULL);
    error = (struct ash_error)ASH_ERROR_INIT;
    int ret = ash_disk_reopen_with(disk, flags, false, changed, &error);
    json_decref(changed);
    return ret;
}

ASH_CO_FN static void close_well(void)
{
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    expect_sound(0);
}

static bool dirty_on_disk(void)
{
    uint8_t byte = 0;
    assert_int_equal(ash_sim_file_read(rig.world, "image", 79, &byte, 1), 0);
    return byte & 1;
}

static int64_t host_bytes(void)
{
    return ash_sim_file_allocated_bytes(rig.world, "image");
}

static const uint32_t WRITING = ASH_NODE_WRITE | ASH_NODE_DISCARD;

/* --- lazy refcounts --- */

QCOW2_TEST(lazy_refcounts_are_as_the_option_says_and_else_as_the_header)
{
    static const struct {
        const char *created, *option;
        bool lazy;
    } cases[] = {{"lazy_refcounts=off", "", false},
                 {"lazy_refcounts=on", "", true},
                 {"lazy_refcounts=off", "lazy-refcounts=on", true},
                 {"lazy_refcounts=on", "lazy-refcounts=off", false}};
    for (size_t i = 0; i < ASH_ARRAY_SIZE(cases); i++) {
        assert_int_equal(rig_create(&rig, "image", MIB, cases[i].created), 0);
        open_well(cases[i].option, WRITING);
        assert_int_equal(write_bytes(0, CLUSTER, 1), 0);
        assert_int_equal(ash_disk_flush(disk), 0);
        assert_int_equal(dirty_on_disk(), cases[i].lazy);
        close_well();
        assert_false(dirty_on_disk());
    }
}

QCOW2_TEST(version_2_has_no_lazy_refcounts)
{
    assert_int_equal(rig_create(&rig, "image", MIB, "compat=0.10"), 0);
    assert_int_equal(open_with("lazy-refcounts=on", WRITING), -EINVAL);
    assert_non_null(strstr(error.message, "Lazy refcounts require a qcow2 image with at least"));
    open_well("lazy-refcounts=off", WRITING);
    assert_int_equal(reopen_with("lazy-refcounts=on", WRITING), -EINVAL);
    assert_int_equal(write_bytes(0, CLUSTER, 1), 0);
    close_well();
}

QCOW2_TEST(reopening_turns_lazy_refcounts_on_and_off)
{
    assert_int_equal(rig_create(&rig, "image", MIB, ""), 0);
    open_well("", WRITING);
    assert_int_equal(write_bytes(0, CLUSTER, 1), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_false(dirty_on_disk());
    assert_int_equal(reopen_with("lazy-refcounts=on", WRITING), 0);
    assert_int_equal(write_bytes(CLUSTER, CLUSTER, 2), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_true(dirty_on_disk());
    /* A later change of something else leaves it on. */
    assert_int_equal(reopen_with("cache-clean-interval=0", WRITING), 0);
    assert_int_equal(write_bytes(2 * CLUSTER, CLUSTER, 3), 0);
    assert_true(dirty_on_disk());
    assert_int_equal(reopen_with("lazy-refcounts=off", WRITING), 0);
    assert_false(dirty_on_disk());
    expect_sound(0);
    assert_int_equal(write_bytes(3 * CLUSTER, CLUSTER, 4), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_false(dirty_on_disk());
    for (uint8_t i = 0; i < 4; i++) {
        expect_bytes(i * (uint64_t)CLUSTER, CLUSTER, i + 1);
    }
    close_well();
}

/* --- caches --- */

QCOW2_TEST(the_l2_cache_stays_within_its_size)
{
    enum { SLICES = 40 };
    open_image("", SLICES * slice_bytes_guest);
    for (uint64_t i = 0; i < SLICES; i++) {
        assert_int_equal(write_bytes(i * slice_bytes_guest, 512, i + 1), 0);
    }
    close_well();
    open_well("l2-cache-size=20k", 0);
    for (uint64_t i = 0; i < SLICES; i++) {
        expect_bytes(i * slice_bytes_guest, 512, i + 1);
        assert_in_range(state_of()->l2_cache.count, 1, 5);
    }
    assert_int_equal(reopen_with("l2-cache-size=1M", 0), 0);
    for (uint64_t i = 0; i < SLICES; i++) {
        assert_int_equal(ash_disk_read(disk, i * slice_bytes_guest + CLUSTER, buffer, 512), 0);
    }
    assert_int_equal(state_of()->l2_cache.count, SLICES);
    close_well();
}

/* Of what has to be written too, as soon as it is. */
QCOW2_TEST(small_caches_hold_what_is_written_until_it_is_on_disk)
{
    enum { SLICES = 100 };
    assert_int_equal(rig_create(&rig, "image", SLICES * slice_bytes_guest, ""), 0);
    open_well("cache-size=1", WRITING);
    for (uint64_t i = 0; i < SLICES; i++) {
        assert_int_equal(write_bytes(i * slice_bytes_guest, CLUSTER, i + 1), 0);
        /* Allocation waits above dirty_hard, and a new table comes on top of it. */
        const struct ash_qcow2_state *s = state_of();
        uint64_t most = (s->dirty_hard + s->cluster_bytes) / s->slice_bytes + 1;
        assert_in_range(most, 20, 21);
        assert_in_range(s->l2_cache.dirty_count, 0, most);
    }
    assert_int_equal(ash_disk_flush(disk), 0);
    for (uint64_t i = 0; i < SLICES; i++) {
        expect_bytes(i * slice_bytes_guest, CLUSTER, i + 1);
    }
    assert_in_range(state_of()->l2_cache.count, 1, 2);
    assert_in_range(state_of()->refcount_cache.count, 0, 2);
    close_well();
}

QCOW2_TEST(cache_size_is_shared_out_between_the_caches)
{
    static const struct {
        const char *options;
        uint64_t l2, refcounts; /* 0: no bound of its own */
    } cases[] = {{"", 0, 0},
                 {"cache-size=1M", 768 * KIB, 256 * KIB},
                 {"cache-size=1M,l2-cache-size=900k", 900 * KIB, 124 * KIB},
                 {"cache-size=1M,refcount-cache-size=900k", 124 * KIB, 900 * KIB},
                 {"l2-cache-size=1M", MIB, 0},
                 {"refcount-cache-size=1M", 0, MIB}};
    assert_int_equal(rig_create(&rig, "image", MIB, ""), 0);
    for (size_t i = 0; i < ASH_ARRAY_SIZE(cases); i++) {
        open_well(cases[i].options, WRITING);
        assert_int_equal(state_of()->l2_cache.own.bytes_max, cases[i].l2);
        assert_int_equal(state_of()->refcount_cache.own.bytes_max, cases[i].refcounts);
        close_well();
    }
}

QCOW2_TEST(parts_of_l2_tables_are_as_large_as_the_option_says)
{
    static const char *const sizes[] = {"512", "4096", "65536"};
    open_image("", 4 * slice_bytes_guest);
    close_well();
    for (uint8_t i = 0; i < ASH_ARRAY_SIZE(sizes); i++) {
        g_autofree char *options = g_strdup_printf("l2-cache-entry-size=%s", sizes[i]);
        open_well(options, WRITING);
        assert_int_equal(state_of()->l2_cache.slice_bytes, atoi(sizes[i]));
        for (uint64_t at = 0; at < 4; at++) {
            assert_int_equal(write_bytes(at * slice_bytes_guest + i * CLUSTER, CLUSTER, i + 1), 0);
            assert_int_equal(reopen_with("l2-cache-entry-size=1024", WRITING), 0);
            assert_int_equal(state_of()->l2_cache.slice_bytes, 1024);
            expect_bytes(at * slice_bytes_guest, CLUSTER, 1);
            expect_bytes(at * slice_bytes_guest + i * CLUSTER, CLUSTER, i + 1);
            assert_int_equal(reopen_with(options, WRITING), 0);
        }
        close_well();
    }
}

/*   0 s       the slices of 0 and of the next section are read
 *   2 s       ... nobody asked for either since: marked
 *   2 s ...   0 is read every half second
 *   5 s       only the slice of 0 is there */
QCOW2_TEST(tables_that_nobody_uses_leave_memory)
{
    enum { SECOND = 1000 * MS };
    open_image("", 4 * slice_bytes_guest);
    assert_int_equal(write_bytes(0, CLUSTER, 1), 0);
    assert_int_equal(write_bytes(slice_bytes_guest, CLUSTER, 2), 0);
    close_well();
    open_well("cache-clean-interval=2", 0);
    expect_bytes(slice_bytes_guest, CLUSTER, 2);
    expect_bytes(0, CLUSTER, 1);
    assert_int_equal(state_of()->l2_cache.count, 2);
    for (int i = 0; i < 10; i++) {
        ash_co_sleep(SECOND / 2);
        uint64_t other = CLUSTER * (1 + (uint64_t)i); /* what was read last is remembered */
        assert_int_equal(ash_disk_read(disk, other, buffer, 512), 0);
    }
    assert_int_equal(state_of()->l2_cache.count, 1);
    ash_co_sleep((uint64_t)5 * SECOND);
    assert_int_equal(state_of()->l2_cache.count, 0);
    expect_bytes(slice_bytes_guest, CLUSTER, 2);
    expect_bytes(0, CLUSTER, 1);
    assert_int_equal(reopen_with("cache-clean-interval=0", 0), 0);
    assert_int_equal(ash_disk_read(disk, 30 * CLUSTER, buffer, 512), 0);
    ash_co_sleep((uint64_t)9 * SECOND);
    assert_int_equal(state_of()->l2_cache.count, 1);
    close_well();
}

/* --- discards --- */

ASH_CO_FN static int64_t host_bytes_after_discard(const char *options, uint32_t flags)
{
    assert_int_equal(rig_create(&rig, "image", MIB, ""), 0);
    open_well(options, flags);
    assert_int_equal(write_bytes(0, MIB, 1), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    int64_t before = host_bytes();
    assert_int_equal(ash_disk_discard(disk, 0, SECTION), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    ash_co_sleep(50 * MS);
    assert_int_equal(ash_disk_flush(disk), 0);
    expect_bytes(SECTION, CLUSTER, 1);
    int64_t given = before - host_bytes();
    close_well();
    return given;
}

QCOW2_TEST(what_guests_discard_goes_to_the_host_as_the_option_says)
{
    assert_int_equal(host_bytes_after_discard("", WRITING), SECTION);
    assert_int_equal(host_bytes_after_discard("pass-discard-request=on", WRITING), SECTION);
    assert_int_equal(host_bytes_after_discard("pass-discard-request=off", WRITING), 0);
    assert_int_equal(host_bytes_after_discard("pass-discard-snapshot=off", WRITING), SECTION);
}

/* The old place of an L1 table that moved. */
ASH_CO_FN static int64_t host_bytes_after_growth(const char *options)
{
    uint64_t bytes = (uint64_t)64 * slice_bytes_guest;
    assert_int_equal(rig_create(&rig, "image", bytes, ""), 0);
    open_well(options, WRITING);
    uint64_t old = state_of()->l1.offset;
    assert_int_equal(write_bytes(0, CLUSTER, 1), 0); /* or there is nothing in it */
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_int_equal(ash_co_disk_resize(disk, bytes * 1024, 0, ASH_PREALLOC_OFF, &error), 0);
    ash_co_sleep(50 * MS);
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_int_not_equal(state_of()->l1.offset, old);
    int64_t after = host_bytes();
    close_well();
    return after;
}

QCOW2_TEST(what_is_freed_otherwise_goes_to_the_host_only_if_it_is_asked_for)
{
    int64_t kept = host_bytes_after_growth("");
    assert_int_equal(host_bytes_after_growth("pass-discard-other=off"), kept);
    assert_true(host_bytes_after_growth("pass-discard-other=on") < kept);
}

/* --- overlap checks --- */

/* A write of metadata upon the refcount table, which a mistake of ours would be. */
ASH_CO_FN static int write_upon_reftable(const char *options)
{
    uint8_t junk[512] = {0};
    assert_int_equal(rig_create(&rig, "image", MIB, ""), 0);
    open_well(options, WRITING);
    uint64_t at = state_of()->reftable.offset + CLUSTER - sizeof(junk); /* where it is empty */
    int ret = ash_qcow2_write(ash_disk_node(disk), QCOW2_KIND_L2, at, junk, sizeof(junk));
    ash_co_disk_close(disk, NULL);
    return ret;
}

QCOW2_TEST(metadata_is_protected_as_the_option_says)
{
    static const struct {
        const char *options;
        int ret;
    } cases[] = {
        {"", -EIO},
        {"overlap-check=cached", -EIO},
        {"overlap-check=all", -EIO},
        {"overlap-check=constant", -EIO},
        {"overlap-check=none", 0},
        {"overlap-check.template=none", 0},
        {"overlap-check.template=none,overlap-check.refcount-table=on", -EIO},
        {"overlap-check.template=none,overlap-check.active-l1=on", 0},
        {"overlap-check.refcount-table=off", 0},
        {"overlap-check.refcount-block=off,overlap-check.active-l2=off", -EIO},
        {"overlap-check.snapshot-table=off,overlap-check.bitmap-directory=on", -EIO},
    };
    for (size_t i = 0; i < ASH_ARRAY_SIZE(cases); i++) {
        int ret = write_upon_reftable(cases[i].options);
        if (ret != cases[i].ret) {
            fail_msg("%s: %d", cases[i].options, ret);
        }
    }
}

QCOW2_TEST(reopening_lays_overlap_checks_over_those_there_were)
{
    assert_int_equal(rig_create(&rig, "image", MIB, ""), 0);
    open_well("overlap-check=none", WRITING);
    assert_int_equal(state_of()->set.overlap, 0);
    assert_int_equal(reopen_with("overlap-check.active-l1=on", WRITING), 0);
    assert_int_equal(state_of()->set.overlap, 1 << QCOW2_KIND_L1);
    assert_int_equal(reopen_with("overlap-check.bogus=on", WRITING), -EINVAL);
    assert_int_equal(state_of()->set.overlap, 1 << QCOW2_KIND_L1);
    close_well();
}

/* --- what is refused --- */

QCOW2_TEST(values_that_make_no_sense_are_refused_and_change_nothing)
{
    static const struct {
        const char *options, *sentence;
    } cases[] = {
        {"lazy-refcounts=x", "Parameter 'lazy-refcounts' expects 'on' or 'off'"},
        {"pass-discard-request=1", "Parameter 'pass-discard-request' expects 'on' or 'off'"},
        {"pass-discard-snapshot=1", "Parameter 'pass-discard-snapshot' expects 'on' or 'off'"},
        {"pass-discard-other=1", "Parameter 'pass-discard-other' expects 'on' or 'off'"},
        {"l2-cache-size=x", "Parameter 'l2-cache-size' expects a size"},
        {"cache-clean-interval=1k", "Parameter 'cache-clean-interval' expects a number"},
        {"cache-clean-interval=4294967296", "Cache clean interval too big"},
        {"l2-cache-entry-size=511", "power of two between 512 and the cluster size (65536)"},
        {"l2-cache-entry-size=256", "power of two between 512 and the cluster size (65536)"},
        {"l2-cache-entry-size=3k", "power of two between 512 and the cluster size (65536)"},
        {"l2-cache-entry-size=128k", "power of two between 512 and the cluster size (65536)"},
        {"cache-size=1M,l2-cache-size=2M", "l2-cache-size may not exceed cache-size"},
        {"cache-size=1M,refcount-cache-size=2M", "refcount-cache-size may not exceed cache-size"},
        {"cache-size=1M,l2-cache-size=1k,refcount-cache-size=1k",
         "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time"},
        {"refcount-cache-size=1P", "Refcount cache size too big"},
        {"overlap-check=x", "Unsupported value 'x' for qcow2 option 'overlap-check'"},
        {"overlap-check.template=x", "Unsupported value 'x' for qcow2 option 'overlap-check'"},
        {"overlap-check.active-l1=x", "Parameter 'active-l1' expects 'on' or 'off'"},
        {"overlap-check.x=on", "does not support the option 'overlap-check.x'"},
    };
    assert_int_equal(rig_create(&rig, "image", MIB, ""), 0);
    open_well("", WRITING);
    struct qcow2_settings before = state_of()->set;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(cases); i++) {
        assert_int_equal(reopen_with(cases[i].options, WRITING), -EINVAL);
        if (strstr(error.message, cases[i].sentence) == NULL) {
            fail_msg("reopen %s: %s", cases[i].options, error.message);
        }
        assert_memory_equal(&state_of()->set, &before, sizeof(before));
    }
    assert_int_equal(reopen_with("bogus=1", WRITING), -EINVAL);
    assert_string_equal(error.message, "Cannot change the option 'bogus'");
    assert_int_equal(write_bytes(0, CLUSTER, 1), 0);
    close_well();
    for (size_t i = 0; i < ASH_ARRAY_SIZE(cases); i++) {
        assert_int_equal(open_with(cases[i].options, WRITING), -EINVAL);
        if (strstr(error.message, cases[i].sentence) == NULL) {
            fail_msg("open %s: %s", cases[i].options, error.message);
        }
    }
}

/* The dirty bit cannot be cleared: neither the flags nor the options change. */
QCOW2_TEST(options_that_cannot_be_changed_stay_as_they_were)
{
    struct ash_sim_config broken = config;
    broken.write_error_per_mille = 1000;
    assert_int_equal(rig_create(&rig, "image", MIB, ""), 0);
    open_well("lazy-refcounts=on", WRITING);
    assert_int_equal(write_bytes(0, CLUSTER, 1), 0);
    ash_sim_world_configure(rig.world, &broken);
    assert_int_equal(reopen_with("lazy-refcounts=off,l2-cache-entry-size=512", WRITING), -EIO);
    ash_sim_world_configure(rig.world, &config);
    assert_true(state_of()->set.lazy);
    assert_int_equal(state_of()->l2_cache.slice_bytes, 4096);
    assert_int_equal(write_bytes(CLUSTER, CLUSTER, 2), 0);
    expect_bytes(0, CLUSTER, 1);
    ash_co_disk_close(disk, NULL);
    expect_sound(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(lazy_refcounts_are_as_the_option_says_and_else_as_the_header),
        RUN(version_2_has_no_lazy_refcounts),
        RUN(reopening_turns_lazy_refcounts_on_and_off),
        RUN(the_l2_cache_stays_within_its_size),
        RUN(small_caches_hold_what_is_written_until_it_is_on_disk),
        RUN(cache_size_is_shared_out_between_the_caches),
        RUN(parts_of_l2_tables_are_as_large_as_the_option_says),
        RUN(tables_that_nobody_uses_leave_memory),
        RUN(what_guests_discard_goes_to_the_host_as_the_option_says),
        RUN(what_is_freed_otherwise_goes_to_the_host_only_if_it_is_asked_for),
        RUN(metadata_is_protected_as_the_option_says),
        RUN(reopening_lays_overlap_checks_over_those_there_were),
        RUN(values_that_make_no_sense_are_refused_and_change_nothing),
        RUN(options_that_cannot_be_changed_stay_as_they_were),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
