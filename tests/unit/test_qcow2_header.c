/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The qcow2 header: what is put together parses back, and what is malformed is refused by a
 * sentence that names it. Refcounts and the set of metadata clusters, which need no image either.
 */
#include "tests/unit/unit.h"
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "block/qcow2/create.h"
#include "block/qcow2/qcow2.h"
#include "util/options.h"
#include "util/prng.h"

enum { CLUSTER = 65536 };

static struct ash_qcow2_header header;
static struct ash_error error;
static uint8_t cluster[CLUSTER];

/* A good version 3 header of a disk of 1 GiB. */
static void make(void)
{
    struct ash_qcow2_create_options options;
    error = (struct ash_error)ASH_ERROR_INIT;
    ash_options_init(ash_qcow2_create_options, &options);
    assert_int_equal(ash_qcow2_create_header(&options, 1 * GiB, &header, &error), 0);
    header.fields.reftable_offset = CLUSTER;
    header.fields.reftable_clusters = 1;
    header.fields.l1_entries = 2;
    header.fields.l1_offset = 3 * CLUSTER;
    ash_qcow2_header_name_features(&header);
}

static int parse(size_t count)
{
    ash_qcow2_header_clear(&header);
    return ash_qcow2_header_parse(&header, cluster, count, "image", &error);
}

static int set_up(void **state)
{
    (void)state;
    make();
    return ash_qcow2_header_serialise(&header, cluster, CLUSTER);
}

static int tear_down(void **state)
{
    (void)state;
    ash_qcow2_header_clear(&header);
    return 0;
}

static void put32(size_t at, uint32_t value)
{
    value = htobe32(value);
    memcpy(cluster + at, &value, 4);
}

static void put64(size_t at, uint64_t value)
{
    value = htobe64(value);
    memcpy(cluster + at, &value, 8);
}

static void expect_refused(const char *part)
{
    assert_true(parse(CLUSTER) < 0);
    if (!strstr(error.message, part)) {
        fail_msg("'%s' does not say '%s'", error.message, part);
    }
}

static void what_was_put_together_parses_back(void **state)
{
    (void)state;
    assert_int_equal(parse(CLUSTER), 0);
    assert_int_equal(header.fields.disk_bytes, 1 * GiB);
    assert_int_equal(header.fields.version, 3);
    assert_int_equal(header.fields.refcount_order, 4);
    assert_non_null(ash_qcow2_header_find(&header, QCOW2_EXTENSION_FEATURES));
    assert_null(header.backing_file);
    assert_int_equal(ash_qcow2_features_check(&header, true, "image", &error), 0);
}

static void serialising_what_was_parsed_changes_no_byte(void **state)
{
    static uint8_t again[CLUSTER];
    (void)state;
    ash_qcow2_header_add(&header, 0x12345678, "abcdefghij", 10);
    assert_int_equal(ash_qcow2_header_set_backing(&header, "base.img", "raw"), 0);
    assert_int_equal(ash_qcow2_header_serialise(&header, cluster, CLUSTER), 0);
    assert_int_equal(parse(CLUSTER), 0);
    assert_string_equal(header.backing_file, "base.img");
    assert_string_equal(header.backing_format, "raw");
    assert_int_equal(ash_qcow2_header_serialise(&header, again, CLUSTER), 0);
    assert_memory_equal(cluster, again, CLUSTER);
}

static void unknown_extensions_and_fields_are_kept(void **state)
{
    (void)state;
    ash_qcow2_header_add(&header, 0x12345678, "abcdefghij", 10);
    header.unknown = g_memdup2("\1\2\3\4\5\6\7\10", 8);
    header.unknown_bytes = 8;
    assert_int_equal(ash_qcow2_header_serialise(&header, cluster, CLUSTER), 0);
    assert_int_equal(parse(CLUSTER), 0);
    const struct qcow2_extension *kept = ash_qcow2_header_find(&header, 0x12345678);
    assert_non_null(kept);
    assert_int_equal(kept->bytes, 10);
    assert_memory_equal(kept->data, "abcdefghij", 10);
    assert_int_equal(header.unknown_bytes, 8);
    assert_memory_equal(header.unknown, "\1\2\3\4\5\6\7\10", 8);
}

static void removing_the_backing_file_removes_its_format(void **state)
{
    (void)state;
    assert_int_equal(ash_qcow2_header_set_backing(&header, "base.img", "raw"), 0);
    assert_int_equal(ash_qcow2_header_set_backing(&header, NULL, NULL), 0);
    assert_int_equal(ash_qcow2_header_serialise(&header, cluster, CLUSTER), 0);
    assert_int_equal(parse(CLUSTER), 0);
    assert_null(header.backing_file);
    assert_null(header.backing_format);
}

static void each_malformed_field_is_refused_by_name(void **state)
{
    static const struct {
        size_t at;
        unsigned bytes;
        uint64_t value;
        const char *says;
    } cases[] = {
        {0, 4, 0x514649fc, "not in qcow2 format"},
        {4, 4, 1, "version 1"},
        {4, 4, 4, "version 4"},
        {8, 8, CLUSTER + 1, "backing file name"},
        {8, 8, 8, "backing file name"},
        {8, 8, UINT64_MAX, "backing file name"},
        {20, 4, 8, "cluster size"},
        {20, 4, 22, "cluster size"},
        {20, 4, 0xffffffff, "cluster size"},
        {24, 8, UINT64_MAX, "disk size"},
        {24, 8, INT64_MAX, "disk size"},
        {24, 8, 2 * GiB, "too small"},
        {36, 4, 1, "too small"},
        {36, 4, QCOW2_L1_BYTES_MAX / 8 + 1, "too large"},
        {36, 4, 0xffffffff, "too large"},
        {40, 8, 0, "L1 table"},
        {40, 8, 3 * CLUSTER + 512, "L1 table"},
        {40, 8, UINT64_C(1) << 56, "L1 table"},
        {40, 8, CLUSTER, "overlap"},
        {48, 8, 0, "reference count table"},
        {48, 8, CLUSTER / 2, "reference count table"},
        {48, 8, UINT64_MAX - CLUSTER + 1, "reference count table"},
        {56, 4, 129, "too large"},
        {56, 4, 0xffffffff, "too large"},
        {60, 4, 65537, "snapshots"},
        {60, 4, 1, "snapshot table"},
        {96, 4, 7, "wider"},
        {100, 4, 96, "header length"},
        {100, 4, 105, "header length"},
        {100, 4, CLUSTER + 8, "header length"},
        {100, 4, 0xfffffff8, "header length"},
    };
    (void)state;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(cases); i++) {
        uint8_t old[8];
        memcpy(old, cluster + cases[i].at, 8);
        if (cases[i].bytes == 4) {
            put32(cases[i].at, cases[i].value);
        } else {
            put64(cases[i].at, cases[i].value);
        }
        expect_refused(cases[i].says);
        memcpy(cluster + cases[i].at, old, 8);
    }
    assert_int_equal(parse(CLUSTER), 0);
}

static void backing_names_beyond_the_limit_are_refused(void **state)
{
    (void)state;
    put64(8, 4096);
    put32(16, 1024);
    expect_refused("backing file name");
    put32(16, 1023);
    assert_int_equal(parse(CLUSTER), 0);
    put64(8, CLUSTER - 10);
    put32(16, 11);
    expect_refused("backing file name");
}

static void an_extension_that_reaches_beyond_its_area_is_refused(void **state)
{
    (void)state;
    put32(116, 0xffffffff);
    expect_refused("header extension");
    put32(116, CLUSTER - 112 - 8 + 1);
    expect_refused("header extension");
}

static void too_many_extensions_are_refused(void **state)
{
    (void)state;
    for (int i = 0; i < QCOW2_EXTENSIONS_MAX; i++) {
        put32(112 + 8 * (size_t)i, 77);
        put32(116 + 8 * (size_t)i, 0);
    }
    put32(112 + 8 * QCOW2_EXTENSIONS_MAX, 0);
    assert_int_equal(parse(CLUSTER), 0);
    put32(112 + 8 * QCOW2_EXTENSIONS_MAX, 77);
    put32(116 + 8 * QCOW2_EXTENSIONS_MAX, 0);
    expect_refused("more than 64");
}

static void a_header_cut_short_anywhere_is_refused_or_parses(void **state)
{
    (void)state;
    for (size_t count = 0; count < 600; count++) {
        uint8_t *exact = g_memdup2(cluster, count ? count : 1);
        struct ash_qcow2_header cut;
        if (ash_qcow2_header_parse(&cut, exact, count, "image", &error) == 0) {
            ash_qcow2_header_clear(&cut);
        }
        g_free(exact);
    }
}

static void random_damage_never_does_harm(void **state)
{
    struct ash_prng prng;
    (void)state;
    for (uint64_t seed = 1; seed < 20000; seed++) {
        uint8_t damaged[4096];
        struct ash_qcow2_header parsed;
        ash_prng_seed(&prng, seed);
        memcpy(damaged, cluster, sizeof(damaged));
        for (uint64_t n = ash_prng_below(&prng, 6) + 1; n > 0; n--) {
            damaged[ash_prng_below(&prng, 600)] = ash_prng_next(&prng);
        }
        if (ash_qcow2_header_parse(&parsed, damaged, sizeof(damaged), "image", &error) == 0) {
            ash_qcow2_features_check(&parsed, true, "image", &error);
            ash_qcow2_header_clear(&parsed);
        }
    }
}

static void an_unknown_incompatible_feature_is_refused_by_the_name_in_the_image(void **state)
{
    struct qcow2_feature_name name = {0, 13, "time travel"};
    (void)state;
    ash_qcow2_header_remove(&header, QCOW2_EXTENSION_FEATURES);
    ash_qcow2_header_add(&header, QCOW2_EXTENSION_FEATURES, &name, sizeof(name));
    header.fields.incompatible = UINT64_C(1) << 13 | UINT64_C(1) << 63;
    assert_int_equal(ash_qcow2_features_check(&header, false, "image", &error), -ENOTSUP);
    assert_non_null(strstr(error.message, "time travel, incompatible feature 63"));
    for (unsigned bit = 5; bit < 64; bit++) {
        header.fields.incompatible = UINT64_C(1) << bit;
        assert_int_equal(ash_qcow2_features_check(&header, false, "image", &error), -ENOTSUP);
    }
}

static void what_is_not_supported_yet_is_refused_where_it_matters(void **state)
{
    (void)state;
    header.fields.incompatible = QCOW2_INCOMPATIBLE_EXTENDED_L2;
    assert_int_equal(ash_qcow2_features_check(&header, false, "image", &error), -ENOTSUP);
    assert_non_null(strstr(error.message, "extended L2"));
    header.fields.incompatible = QCOW2_INCOMPATIBLE_DATA_FILE;
    assert_int_equal(ash_qcow2_features_check(&header, false, "image", &error), -ENOTSUP);
    assert_non_null(strstr(error.message, "data file"));
    header.fields.incompatible = 0;
    header.fields.crypt_method = 1;
    assert_int_equal(ash_qcow2_features_check(&header, false, "image", &error), -ENOTSUP);
    assert_non_null(strstr(error.message, "encryption"));
    header.fields.crypt_method = 0;
    header.fields.snapshots = 1;
    assert_int_equal(ash_qcow2_features_check(&header, false, "image", &error), 0);
    assert_int_equal(ash_qcow2_features_check(&header, true, "image", &error), -ENOTSUP);
    assert_non_null(strstr(error.message, "snapshot"));
    header.fields.snapshots = 0;
    header.fields.autoclear = QCOW2_AUTOCLEAR_BITMAPS;
    assert_int_equal(ash_qcow2_features_check(&header, false, "image", &error), 0);
    assert_int_equal(ash_qcow2_features_check(&header, true, "image", &error), -ENOTSUP);
    assert_non_null(strstr(error.message, "bitmaps"));
    header.fields.autoclear = 0; /* by the extension alone too: its clusters are in use */
    ash_qcow2_header_add(&header, QCOW2_EXTENSION_BITMAPS, "0123456789abcdef01234567", 24);
    assert_int_equal(ash_qcow2_features_check(&header, false, "image", &error), 0);
    assert_int_equal(ash_qcow2_features_check(&header, true, "image", &error), -ENOTSUP);
    assert_non_null(strstr(error.message, "bitmaps"));
}

/* Every byte of every field differs from its neighbours. */
static void fields_lie_big_endian_where_the_specification_says(void **state)
{
    uint8_t wanted[QCOW2_HEADER_BYTES];
    uint8_t found[QCOW2_HEADER_BYTES];
    (void)state;
    for (size_t i = 0; i < sizeof(wanted); i++) {
        wanted[i] = (uint8_t)(i + 1);
    }
    memcpy(wanted + 100, "\0\0\0\x70", 4); /* the length of the header */
#define BE32(at) (be32toh(*(const uint32_t *)(wanted + (at))))
#define BE64(at) (be64toh(*(const uint64_t *)(wanted + (at))))
    struct qcow2_fields fields = {
        .magic = BE32(0),
        .version = BE32(4),
        .backing_offset = BE64(8),
        .backing_bytes = BE32(16),
        .cluster_bits = BE32(20),
        .disk_bytes = BE64(24),
        .crypt_method = BE32(32),
        .l1_entries = BE32(36),
        .l1_offset = BE64(40),
        .reftable_offset = BE64(48),
        .reftable_clusters = BE32(56),
        .snapshots = BE32(60),
        .snapshots_offset = BE64(64),
        .incompatible = BE64(72),
        .compatible = BE64(80),
        .autoclear = BE64(88),
        .refcount_order = BE32(96),
        .header_bytes = BE32(100),
        .compression = wanted[104],
    };
    memcpy(fields.padding, wanted + 105, 7);
    ash_qcow2_fields_to_disk(&fields, found);
    assert_memory_equal(found, wanted, sizeof(wanted));
}

/* --- refcounts and the metadata set --- */

static void refcounts_of_every_width_stay_apart(void **state)
{
    (void)state;
    for (uint32_t order = 0; order <= 6; order++) {
        uint64_t block[64];
        uint64_t max = order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << order)) - 1;
        uint64_t count = sizeof(block) * 8 >> order;
        memset(block, 0, sizeof(block));
        for (uint64_t i = 0; i < count; i++) {
            ash_qcow2_refcount_write(block, order, i, (i * 2654435761u) & max);
        }
        for (uint64_t i = 0; i < count; i++) {
            assert_int_equal(ash_qcow2_refcount_read(block, order, i), (i * 2654435761u) & max);
        }
        ash_qcow2_refcount_write(block, order, 1, 0);
        assert_int_equal(ash_qcow2_refcount_read(block, order, 1), 0);
        assert_int_equal(ash_qcow2_refcount_read(block, order, 2),
                         (UINT64_C(2) * 2654435761u) & max);
    }
}

/* Bit 0 of a byte is the first of the refcounts that share it; wider ones are big-endian. */
static void refcounts_lie_where_the_specification_says(void **state)
{
    uint8_t block[16] = {0};
    (void)state;
    ash_qcow2_refcount_write(block, 0, 9, 1);
    assert_int_equal(block[1], 2);
    ash_qcow2_refcount_write(block, 2, 0, 5);
    assert_int_equal(block[0], 5);
    ash_qcow2_refcount_write(block, 4, 3, 0x1234);
    assert_int_equal(block[6], 0x12);
    assert_int_equal(block[7], 0x34);
}

static void the_metadata_set_keeps_what_was_added(void **state)
{
    struct qcow2_metadata set = {0};
    (void)state;
    for (uint64_t i = 0; i < 5000; i++) {
        assert_true(ash_qcow2_metadata_add(&set, i * 7, 1 + i % 5));
        assert_false(ash_qcow2_metadata_add(&set, i * 7, 1));
        if (i % 3 == 0) {
            ash_qcow2_metadata_remove(&set, i * 7, 1);
        }
    }
    for (uint64_t i = 0; i < 5000; i++) {
        assert_int_equal(ash_qcow2_metadata_kind(&set, i * 7), i % 3 ? 1 + i % 5 : 0);
        assert_int_equal(ash_qcow2_metadata_kind(&set, i * 7 + 1), 0);
    }
    assert_false(ash_qcow2_metadata_add_range(&set, 0, 10, 1));
    assert_int_equal(ash_qcow2_metadata_kind(&set, 0), 0);
    ash_qcow2_metadata_clear(&set);
}

static void layouts_count_themselves(void **state)
{
    (void)state;
    for (uint32_t bits = 9; bits <= 21; bits++) {
        for (uint32_t order = 0; order <= 6; order++) {
            for (uint64_t data = 0; data < 300000; data = data * 3 + 1) {
                struct qcow2_layout l;
                if (ash_qcow2_layout(bits, order, 8, data << bits, data, true, &l) < 0) {
                    continue;
                }
                uint64_t sum =
                    1 + l.l1_clusters + l.l2_tables + l.refblocks + l.reftable_clusters + data;
                assert_int_equal(l.total_clusters, sum);
                assert_true(l.refblocks << (bits + 3 - order) >= sum);
                assert_true(l.reftable_clusters << (bits - 3) >= l.refblocks);
            }
        }
    }
}

int main(void)
{
#define HEADER_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        HEADER_TEST(what_was_put_together_parses_back),
        HEADER_TEST(serialising_what_was_parsed_changes_no_byte),
        HEADER_TEST(unknown_extensions_and_fields_are_kept),
        HEADER_TEST(removing_the_backing_file_removes_its_format),
        HEADER_TEST(each_malformed_field_is_refused_by_name),
        HEADER_TEST(backing_names_beyond_the_limit_are_refused),
        HEADER_TEST(an_extension_that_reaches_beyond_its_area_is_refused),
        HEADER_TEST(too_many_extensions_are_refused),
        HEADER_TEST(a_header_cut_short_anywhere_is_refused_or_parses),
        HEADER_TEST(random_damage_never_does_harm),
        HEADER_TEST(an_unknown_incompatible_feature_is_refused_by_the_name_in_the_image),
        HEADER_TEST(what_is_not_supported_yet_is_refused_where_it_matters),
        cmocka_unit_test(fields_lie_big_endian_where_the_specification_says),
        cmocka_unit_test(refcounts_of_every_width_stay_apart),
        cmocka_unit_test(refcounts_lie_where_the_specification_says),
        cmocka_unit_test(the_metadata_set_keeps_what_was_added),
        cmocka_unit_test(layouts_count_themselves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
