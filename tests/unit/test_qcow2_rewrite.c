/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* New backing strings in qcow2 headers: the power is cut at every write, with what was not flushed
 * dropped, kept, or kept in part and torn. The header is the old one or the new one. */
#include "tests/unit/qcow2_rig.h"
#include "block/driver.h"
#include "block/qcow2/qcow2.h"

#define UNKNOWN_TYPE UINT32_C(0x12345678)

struct strings {
    const char *file;
    const char *format;
};

struct variant {
    const char *options;
    struct strings from;
    struct strings to;
    uint32_t unknown_bytes; /* of an extension that nobody knows; 0: none */
};

#define LONG_NAME                                                                                  \
    "a-name-of-a-backing-file-that-is-long-enough-to-fill-the-rest-of-the-first-sector-and-some"   \
    "-of-the-second-one-as-well-so-that-it-lies-in-two-sectors-wherever-it-begins-in-the-first"    \
    "-one-which-most-headers-leave-no-room-in-for-a-name-of-this-length-if-at-all-there-is-any"

static const struct variant variants[] = {
    {"cluster_size=4k", {"base", "raw"}, {"other-base", "raw"}, 0},
    {"cluster_size=4k", {"base", "raw"}, {"base", NULL}, 0},
    {"cluster_size=4k", {"base", NULL}, {"other", "qcow2"}, 0},
    {"cluster_size=4k", {NULL, NULL}, {LONG_NAME, "raw"}, 0},
    {"cluster_size=4k", {LONG_NAME, "raw"}, {NULL, NULL}, 0},
    {"cluster_size=4k", {LONG_NAME, "qcow2"}, {LONG_NAME "x", "vmdk-long"}, 0},
    {"cluster_size=4k", {"base", "raw"}, {LONG_NAME, "a-longer-fmt"}, 40},
    {"cluster_size=4k", {LONG_NAME, NULL}, {"base", "raw"}, 200},
    {"cluster_size=64k", {"base", NULL}, {"other", "raw"}, 300},
    {"cluster_size=2M", {LONG_NAME, NULL}, {LONG_NAME "y", "raw"}, 0},
    {"cluster_size=512", {"base", "raw"}, {"b", NULL}, 0},
    {"cluster_size=1k", {"base", NULL}, {"other", "raw"}, 0},
    {"cluster_size=4k,compat=0.10", {"base", "raw"}, {LONG_NAME, NULL}, 0},
};

static struct rig rig;
static const struct variant *variant;
static struct ash_error error;
static bool named; /* the image has names of features */
static int rewrite_ret;

static void read_header(struct ash_qcow2_header *header, const char *when)
{
    uint8_t *cluster = g_malloc0(2 * MiB);
    uint64_t size = (uint64_t)ash_sim_file_bytes(rig.world, "image");
    uint64_t bytes = ASH_MIN(size, 2 * MiB);
    struct ash_error own = ASH_ERROR_INIT;
    assert_int_equal(ash_sim_file_read(rig.world, "image", 0, cluster, bytes), 0);
    if (ash_qcow2_header_parse(header, cluster, bytes, when, &own) < 0) {
        fail_msg("%s", own.message);
    }
    g_free(cluster);
}

static int make_image(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    assert_int_equal(rig_create(&rig, "image", 1 * MiB, variant->options), 0);
    return 0;
}

/* As others may have left it: with the unknown extension, and all of it as we lay it out. */
static void give_strings(void)
{
    struct ash_qcow2_header header;
    read_header(&header, "new image");
    uint32_t cluster_bytes = 1u << header.fields.cluster_bits;
    uint8_t *cluster = g_malloc0(cluster_bytes);
    assert_int_equal(
        ash_qcow2_header_set_backing(&header, variant->from.file, variant->from.format), 0);
    if (variant->unknown_bytes > 0) {
        uint8_t *data = g_malloc(variant->unknown_bytes);
        memset(data, 0x5a, variant->unknown_bytes);
        ash_qcow2_header_add(&header, UNKNOWN_TYPE, data, variant->unknown_bytes);
        g_free(data);
    }
    if (ash_qcow2_header_serialise(&header, cluster, cluster_bytes) < 0) {
        ash_qcow2_header_remove(&header, QCOW2_EXTENSION_FEATURES);
        assert_int_equal(ash_qcow2_header_serialise(&header, cluster, cluster_bytes), 0);
    }
    named = ash_qcow2_header_find(&header, QCOW2_EXTENSION_FEATURES) != NULL;
    assert_int_equal(ash_sim_file_write(rig.world, "image", 0, cluster, cluster_bytes), 0);
    g_free(cluster);
    ash_qcow2_header_clear(&header);
}

static int change_strings(void *opaque)
{
    const struct strings *to = opaque;
    struct ash_disk *disk;
    ash_co_assert_inside();
    int ret = rig_open(&rig, "image", ASH_NODE_WRITE | ASH_NODE_NO_BACKING, &disk, &error);
    assert_int_equal(ret, 0);
    struct ash_node *node = ash_disk_node(disk);
    rewrite_ret = node->driver->set_backing(node, to->file, to->format, &error);
    (void)ash_co_disk_close(disk, NULL);
    return 0;
}

static bool has(const struct ash_qcow2_header *header, const struct strings *strings)
{
    return g_strcmp0(header->backing_file, strings->file) == 0 &&
           g_strcmp0(header->backing_format, strings->format) == 0;
}

static void expect_header(bool done)
{
    struct ash_qcow2_header header;
    read_header(&header, "after the cut");
    assert_true(has(&header, &variant->to) || (!done && has(&header, &variant->from)));
    struct qcow2_extension *unknown = ash_qcow2_header_find(&header, UNKNOWN_TYPE);
    assert_int_equal(unknown != NULL ? unknown->bytes : 0, variant->unknown_bytes);
    for (uint32_t i = 0; i < variant->unknown_bytes; i++) {
        assert_int_equal(unknown->data[i], 0x5a);
    }
    if (done) {
        assert_int_equal(ash_qcow2_header_find(&header, QCOW2_EXTENSION_FEATURES) != NULL, named);
    }
    ash_qcow2_header_clear(&header);
}

/* One change of the strings with a cut at the n-th write from its start. Whether there was one. */
static bool run_cut(uint64_t nth, enum ash_sim_cut mode, uint64_t seed, uint32_t sector_bytes)
{
    struct ash_sim_config config = {.seed = seed, .sector_bytes = sector_bytes};
    error = (struct ash_error)ASH_ERROR_INIT;
    rig_world(&rig, &config);
    rig_boot(&rig);
    assert_int_equal(ash_loop_run_sync(rig.loop, make_image, NULL), 0);
    give_strings();
    ash_sim_power_cut_at(rig.world, nth, mode);
    struct strings to = variant->to;
    assert_int_equal(ash_loop_run_sync(rig.loop, change_strings, &to), 0);
    bool cut = ash_sim_power_is_cut(rig.world);
    ash_sim_power_cut_at(rig.world, 0, mode);
    rig_halt(&rig);
    ash_sim_power_restore(rig.world);
    if (!cut) {
        assert_int_equal(rewrite_ret, 0);
    }
    expect_header(!cut);
    rig_end(&rig);
    return cut;
}

static void a_cut_leaves_the_old_strings_or_the_new(void **state)
{
    static const enum ash_sim_cut modes[] = {ASH_SIM_CUT_DROP,   ASH_SIM_CUT_KEEP,
                                             ASH_SIM_CUT_RANDOM, ASH_SIM_CUT_RANDOM,
                                             ASH_SIM_CUT_RANDOM, ASH_SIM_CUT_RANDOM};
    (void)state;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(variants); i++) {
        variant = &variants[i];
        for (size_t mode = 0; mode < ASH_ARRAY_SIZE(modes); mode++) {
            uint32_t sector_bytes = mode % 2 == 0 ? 512 : 4096;
            uint64_t nth = 1;
            while (run_cut(nth, modes[mode], i * 1000 + mode * 100 + nth, sector_bytes)) {
                nth += is_sanitized() ? 3 : 1;
            }
            assert_in_range(nth, 4, 40);
        }
    }
}

/* What does not fit, or could not be changed without a moment in which a cut would ruin it: nothing
 * has changed, and what is written later does not change it. */
static void strings_without_room_leave_the_header_alone(void **state)
{
    static const struct variant refused[] = {
        {"cluster_size=512", {"base", NULL}, {LONG_NAME LONG_NAME, "raw"}, 0},
        {"cluster_size=4k", {"base", NULL}, {"other", "raw"}, 600},
    };
    (void)state;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(refused); i++) {
        struct ash_sim_config config = {.seed = 1};
        struct ash_qcow2_header header;
        variant = &refused[i];
        error = (struct ash_error)ASH_ERROR_INIT;
        rig_world(&rig, &config);
        rig_boot(&rig);
        assert_int_equal(ash_loop_run_sync(rig.loop, make_image, NULL), 0);
        give_strings();
        struct strings to = variant->to;
        assert_int_equal(ash_loop_run_sync(rig.loop, change_strings, &to), 0);
        assert_int_equal(rewrite_ret, i == 0 ? -ENOSPC : -ENOTSUP);
        assert_non_null(strstr(error.message, "qcow2 image 'image'"));
        read_header(&header, "refused");
        assert_true(has(&header, &variant->from));
        ash_qcow2_header_clear(&header);
        /* Without a shift nothing is in the way. */
        to.format = variant->from.format;
        to.file = "b";
        assert_int_equal(ash_loop_run_sync(rig.loop, change_strings, &to), 0);
        assert_int_equal(rewrite_ret, 0);
        read_header(&header, "changed");
        assert_true(has(&header, &to));
        ash_qcow2_header_clear(&header);
        rig_end(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cut_leaves_the_old_strings_or_the_new),
        cmocka_unit_test(strings_without_room_leave_the_header_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
