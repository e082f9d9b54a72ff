/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rebasing and emptying. Rebased images read the same before and after, whatever the old chain and
 * the new one hold and however long they are; and after a cut of the power at any time on the way,
 * whether what was not flushed is kept or lost. The writes are recorded by a log-writes filter in
 * the image's file. */
#include "tests/unit/unit.h"
#include <endian.h>
#include "block/image/image.h"
#include "block/image/rebase.h"
#include "tests/unit/core_rig.h"

#define BYTES_MAX 70000
#define WRITING (ASH_NODE_WRITE | ASH_NODE_DISCARD)
#define LOG_FLUSH 1

/* On the chain that its header names. */
ASH_CO_FN static struct ash_disk *open_image(struct core *core, const char *name, uint32_t flags)
{
    return core_open_disk(core,
                          json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver",
                                    "file", "filename", core_file(core, name, -1)),
                          flags);
}

ASH_CO_FN static struct ash_disk *open_file(struct core *core, const char *name, uint32_t flags)
{
    return core_open_disk(
        core, json_pack("{s:s, s:s}", "driver", "file", "filename", core_file(core, name, -1)),
        flags);
}

/* An image of random length and clusters, in which random ranges hold data or zeroes. */
ASH_CO_FN static void make(struct core *core, const char *name, const char *backing)
{
    uint64_t bytes = ash_prng_between(&core->prng, 10000, BYTES_MAX) / 512 * 512;
    uint64_t cluster = UINT64_C(1024) << ash_prng_below(&core->prng, 4);
    json_t *options = json_pack("{s:I, s:s}", "cluster_size", (json_int_t)cluster, "compat",
                                ash_prng_chance(&core->prng, 200) ? "0.10" : "1.1");
    if (backing != NULL) {
        json_object_set_new(options, "backing_file", json_string(core_file(core, backing, -1)));
        json_object_set_new(options, "backing_fmt", json_string("qcow2"));
    }
    assert_int_equal(
        ash_image_create(core->loop, core_file(core, name, -1), "qcow2", bytes, options, NULL), 0);
    json_decref(options);
    struct ash_disk *disk = open_image(core, name, WRITING);
    uint8_t *buffer = g_malloc(bytes);
    for (unsigned i = 0; i < 6; i++) {
        uint64_t offset = ash_prng_below(&core->prng, bytes);
        uint64_t length = ash_prng_between(&core->prng, 1, ASH_MIN(bytes - offset, UINT64_C(9000)));
        memset(buffer, 1 + (int)ash_prng_below(&core->prng, 4), length);
        int ret = ash_prng_chance(&core->prng, 300)
                      ? ash_disk_zero(disk, offset, length, ASH_REQ_UNMAP)
                      : ash_disk_write(disk, offset, buffer, length, 0);
        assert_int_equal(ret, 0);
    }
    g_free(buffer);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

ASH_CO_FN static uint8_t *read_all(struct ash_disk *disk, uint64_t *bytes)
{
    *bytes = ash_disk_bytes(disk);
    uint8_t *all = g_malloc(*bytes);
    assert_int_equal(ash_disk_read(disk, 0, all, *bytes), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    return all;
}

ASH_CO_FN static void expect(struct core *core, const char *name, const uint8_t *all,
                             uint64_t bytes)
{
    uint64_t found_bytes;
    uint8_t *found = read_all(open_image(core, name, 0), &found_bytes);
    assert_int_equal(found_bytes, bytes);
    for (uint64_t i = 0; i < bytes; i++) {
        if (found[i] != all[i]) {
            print_message("seed %lu: byte %lu of '%s' is %u and was %u\n",
                          (unsigned long)core->seed, (unsigned long)i, name, found[i], all[i]);
        }
        assert_int_equal(found[i], all[i]);
    }
    g_free(found);
}

ASH_CO_FN static void rebase(struct core *core, struct ash_disk *overlay, const char *backing)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_rebase work = {.overlay = overlay};
    if (backing != NULL) {
        work.backing = open_image(core, backing, 0);
    }
    assert_int_equal(ash_image_rebase(&work, &error), 0);
    if (backing != NULL) {
        assert_int_equal(ash_co_disk_close(work.backing, NULL), 0);
    }
    const char *file = backing != NULL ? core_file(core, backing, -1) : NULL;
    assert_int_equal(ash_image_set_backing(overlay, file, backing != NULL ? "qcow2" : NULL, &error),
                     0);
}

struct entry {
    uint64_t offset;
    uint64_t bytes;
    bool flush;
    const uint8_t *data;
};

static uint64_t number(const uint8_t *bytes)
{
    uint64_t le;
    memcpy(&le, bytes, sizeof(le));
    return le64toh(le);
}

static GArray *parse_log(const uint8_t *log)
{
    GArray *entries = g_array_new(FALSE, FALSE, sizeof(struct entry));
    uint64_t at = 512;
    for (uint64_t left = number(log + 16); left > 0; left--) {
        const uint8_t *head = log + at;
        struct entry entry = {number(head) * 512, number(head + 24),
                              (number(head + 16) & LOG_FLUSH) != 0, head + 512};
        g_array_append_val(entries, entry);
        at += 512 + entry.bytes;
    }
    return entries;
}

ASH_CO_FN static void put(struct ash_disk *disk, const struct entry *entry)
{
    if (entry->bytes > 0) {
        assert_int_equal(ash_disk_write(disk, entry->offset, entry->data, entry->bytes, 0), 0);
    }
}

/* What is on disk when the power goes after the entry `last`: all, or what the latest flush
 * covered and that one. */
ASH_CO_FN static void cut(struct core *core, const uint8_t *before, uint64_t before_bytes,
                          uint64_t bytes, const GArray *entries, guint last, bool lost)
{
    core_file(core, "cut", 0);
    struct ash_disk *disk = open_file(core, "cut", WRITING);
    assert_int_equal(ash_co_disk_resize(disk, 0, ASH_RESIZE_SHRINK, 0, NULL), 0);
    assert_int_equal(ash_co_disk_resize(disk, bytes, 0, 0, NULL), 0);
    assert_int_equal(ash_disk_write(disk, 0, before, before_bytes, 0), 0);
    guint stable = 0;
    for (guint i = 0; i <= last; i++) {
        stable = g_array_index(entries, struct entry, i).flush ? i : stable;
    }
    for (guint i = 0; i <= last; i++) {
        if (!lost || i <= stable || i == last) {
            put(disk, &g_array_index(entries, struct entry, i));
        }
    }
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

static unsigned cuts;

ASH_CO_FN static void body(struct core *core, void *opaque)
{
    (void)opaque;
    uint64_t bytes;
    uint64_t before_bytes;
    uint64_t after_bytes;
    uint64_t log_bytes;
    const char *olds[] = {NULL, "old", "mid"};
    const char *news[] = {NULL, "new", "old", "newer"};
    const char *old = olds[ash_prng_below(&core->prng, 3)];
    const char *new = news[ash_prng_below(&core->prng, 4)];
    make(core, "old", NULL);
    make(core, "mid", "old");
    make(core, "new", NULL);
    make(core, "newer", "new");
    make(core, "top", old);
    uint8_t *all = read_all(open_image(core, "top", 0), &bytes);
    uint8_t *before = read_all(open_file(core, "top", 0), &before_bytes);
    core_file(core, "log", 0);
    struct ash_disk *disk = core_open_disk(
        core,
        json_pack("{s:s, s:{s:s, s:{s:s, s:s}, s:{s:s, s:s}}}", "driver", "qcow2", "file", "driver",
                  "log-writes", "file", "driver", "file", "filename", core_file(core, "top", -1),
                  "log", "driver", "file", "filename", core_file(core, "log", -1)),
        ASH_NODE_WRITE); /* no discards: what they leave is not said */
    rebase(core, disk, new);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    expect(core, "top", all, bytes);
    uint8_t *log = read_all(open_file(core, "log", 0), &log_bytes);
    g_free(read_all(open_file(core, "top", 0), &after_bytes));
    GArray *entries = parse_log(log);
    for (guint i = 0; i < entries->len; i++) {
        for (unsigned lost = 0; lost < 2; lost++) {
            cut(core, before, before_bytes, ASH_MAX(before_bytes, after_bytes), entries, i,
                lost == 1);
            expect(core, "cut", all, bytes);
            cuts++;
        }
    }
    g_array_free(entries, TRUE);
    g_free(log);
    g_free(before);
    g_free(all);
}

static void a_rebased_image_reads_the_same_whenever_the_power_goes(void **state)
{
    (void)state;
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(200); seed++) {
        struct core core;
        core_up(&core, seed);
        core_run(&core, body, NULL);
        core_down(&core);
    }
    assert_true(getenv("SEED") != NULL || cuts > 100);
}

/* What is below shows, and the places that the image had are free again. */
ASH_CO_FN static void empty_body(struct core *core, void *opaque)
{
    (void)opaque;
    uint64_t below_bytes;
    uint64_t bytes;
    struct ash_error error = ASH_ERROR_INIT;
    make(core, "old", NULL);
    make(core, "top", ash_prng_chance(&core->prng, 700) ? "old" : NULL);
    struct ash_disk *disk = open_image(core, "top", WRITING);
    bool stands = ash_disk_node(disk)->backing != NULL;
    assert_int_equal(ash_image_empty(disk, &error), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    disk = open_image(core, "top", ASH_NODE_CHECK);
    struct ash_check check = {0};
    assert_int_equal(ash_disk_node(disk)->driver->check(ash_disk_node(disk), &check, NULL), 0);
    assert_int_equal(check.corruptions + check.leaks + check.check_errors, 0);
    assert_int_equal(check.allocated_clusters, 0);
    uint8_t *all = read_all(disk, &bytes);
    uint8_t *below = read_all(open_image(core, "old", 0), &below_bytes);
    for (uint64_t i = 0; i < bytes; i++) {
        assert_int_equal(all[i], stands && i < below_bytes ? below[i] : 0);
    }
    g_free(below);
    g_free(all);
}

static void an_emptied_image_shows_what_is_below_it(void **state)
{
    (void)state;
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(50); seed++) {
        struct core core;
        core_up(&core, seed);
        core_run(&core, empty_body, NULL);
        core_down(&core);
    }
}

CORE_TEST(a_format_that_cannot_be_emptied_says_so)
{
    (void)opaque;
    struct ash_error error = ASH_ERROR_INIT;
    core_file(core, "raw", 4096);
    struct ash_disk *disk =
        core_open_disk(core,
                       json_pack("{s:s, s:{s:s, s:s}}", "driver", "raw", "file", "driver", "file",
                                 "filename", core_file(core, "raw", -1)),
                       WRITING);
    assert_int_equal(ash_image_empty(disk, &error), -ENOTSUP);
    assert_non_null(strstr(error.message, "Could not empty"));
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

static bool stop_at_once(struct ash_rebase *rebase, uint64_t done_bytes, uint64_t total_bytes)
{
    (void)rebase;
    (void)done_bytes;
    (void)total_bytes;
    return false;
}

CORE_TEST(who_watches_the_progress_can_stop_it)
{
    (void)opaque;
    make(core, "old", NULL);
    make(core, "top", "old");
    struct ash_rebase work = {.overlay = open_image(core, "top", WRITING),
                              .progress = stop_at_once};
    assert_int_equal(ash_image_rebase(&work, NULL), -EINTR);
    assert_int_equal(ash_co_disk_close(work.overlay, NULL), 0);
}

CORE_TEST(a_backing_file_without_a_format_is_refused)
{
    (void)opaque;
    struct ash_error error = ASH_ERROR_INIT;
    make(core, "top", NULL);
    struct ash_disk *disk = open_image(core, "top", WRITING);
    assert_int_equal(ash_image_set_backing(disk, "old", NULL, &error), -EINVAL);
    assert_non_null(strstr(error.message, "format"));
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rebased_image_reads_the_same_whenever_the_power_goes),
        cmocka_unit_test(an_emptied_image_shows_what_is_below_it),
        cmocka_unit_test(a_format_that_cannot_be_emptied_says_so),
        cmocka_unit_test(who_watches_the_progress_can_stop_it),
        cmocka_unit_test(a_backing_file_without_a_format_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
