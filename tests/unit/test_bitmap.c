/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps on nodes: what marks them and when, how they follow the length, their states. */
#include "tests/unit/unit.h"
#include "block/bitmap/bitmap.h"
#include "tests/unit/core_rig.h"

static struct ash_bitmap *bitmap_of(struct ash_edge *edge, const char *name, uint64_t granularity)
{
    struct ash_bitmap *bitmap = NULL;
    assert_int_equal(ash_bitmap_new(edge->child, name, granularity, &bitmap, NULL), 0);
    return bitmap;
}

/* The dirty ranges as a text: "0+4096 8192+512". */
static const char *dirty(const struct ash_bitmap *bitmap)
{
    static char text[4][512];
    static unsigned next;
    char *to = text[next++ % 4];
    uint64_t at = 0;
    uint64_t offset;
    uint64_t bytes;
    size_t used = 0;
    to[0] = '\0';
    while (ash_bitmap_next_dirty(bitmap, at, UINT64_MAX, UINT64_MAX, &offset, &bytes)) {
        used += (size_t)snprintf(to + used, sizeof(text[0]) - used, "%s%lu+%lu", at > 0 ? " " : "",
                                 (unsigned long)offset, (unsigned long)bytes);
        assert_true(used < sizeof(text[0]));
        at = offset + bytes;
    }
    return to;
}

ASH_CO_FN static int fill(struct ash_edge *edge, uint64_t offset, uint64_t bytes)
{
    uint8_t buffer[16384];
    memset(buffer, 7, sizeof(buffer));
    assert_true(bytes <= sizeof(buffer));
    return ash_edge_write(edge, offset, buffer, bytes, 0);
}

/* What marks. */

CORE_TEST(a_change_marks_every_granule_it_touches)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_object());
    struct ash_bitmap *fine = bitmap_of(edge, "fine", 512);
    struct ash_bitmap *coarse = bitmap_of(edge, NULL, 4096);
    assert_int_equal(fill(edge, 511, 2), 0);
    assert_int_equal(ash_edge_zero(edge, 8192, 1, 0), 0);
    assert_int_equal(ash_edge_discard(edge, 20480, 512), 0);
    assert_string_equal(dirty(fine), "0+1024 8192+512 20480+512");
    assert_string_equal(dirty(coarse), "0+4096 8192+4096 20480+4096");
    assert_int_equal(ash_bitmap_dirty_bytes(fine), 2048);
    core_let_go(core, edge);
}

CORE_TEST(what_changes_nothing_marks_nothing)
{
    (void)opaque;
    uint8_t buffer[512];
    struct ash_edge *edge = core_mem(core, json_object());
    struct ash_bitmap *bitmap = bitmap_of(edge, "b", 512);
    assert_int_equal(ash_edge_read(edge, 0, buffer, sizeof(buffer)), 0);
    assert_int_equal(ash_edge_flush(edge), 0);
    assert_int_equal(ash_edge_write(edge, 4096, buffer, 0, 0), 0);
    assert_int_equal(fill(edge, 65536, 512), -EIO); /* beyond the end: never got to the driver */
    edge->child->flags &= ~ASH_NODE_DISCARD;
    assert_int_equal(ash_edge_discard(edge, 0, 4096), 0);
    assert_string_equal(dirty(bitmap), "");
    core_let_go(core, edge);
}

CORE_TEST(a_change_that_fails_marks_all_the_same)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_object());
    struct ash_bitmap *bitmap = bitmap_of(edge, "b", 512);
    struct mem_protocol *mem = mem_protocol_of(edge->child);
    mem->fail = -EIO;
    assert_int_equal(fill(edge, 0, 512), -EIO);
    mem->fail = -ENOSPC;
    assert_int_equal(ash_edge_zero(edge, 1024, 512, 0), -ENOSPC);
    mem->fail = -EIO;
    assert_int_equal(ash_edge_discard(edge, 2048, 512), -EIO);
    assert_string_equal(dirty(bitmap), "0+512 1024+512 2048+512");
    core_let_go(core, edge);
}

CORE_TEST(a_padded_write_marks_the_whole_block)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_pack("{s:i}", "request-alignment", 4096));
    struct ash_bitmap *bitmap = bitmap_of(edge, "b", 512);
    assert_int_equal(fill(edge, 5000, 10), 0);
    assert_string_equal(dirty(bitmap), "4096+4096");
    core_let_go(core, edge);
}

CORE_TEST(the_short_last_granule_counts_as_long_as_it_is)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_pack("{s:i}", "size", 70000));
    struct ash_bitmap *bitmap = bitmap_of(edge, "b", 65536);
    assert_int_equal(fill(edge, 69999, 1), 0);
    assert_string_equal(dirty(bitmap), "65536+4464");
    assert_int_equal(ash_bitmap_dirty_bytes(bitmap), 4464);
    assert_int_equal(ash_bitmap_dirty_bytes_in(bitmap, 65540, 10), 10);
    ash_bitmap_reset(bitmap, 65537, 4463); /* the granule is not in it whole */
    assert_false(ash_bitmap_is_clean(bitmap));
    ash_bitmap_reset(bitmap, 65536, 4463);
    assert_false(ash_bitmap_is_clean(bitmap));
    ash_bitmap_reset(bitmap, 65536, 4464);
    assert_true(ash_bitmap_is_clean(bitmap));
    core_let_go(core, edge);
}

CORE_TEST(ranges_are_cut_to_what_was_asked)
{
    (void)opaque;
    uint64_t offset;
    uint64_t bytes;
    struct ash_edge *edge = core_mem(core, json_object());
    struct ash_bitmap *bitmap = bitmap_of(edge, "b", 4096);
    ash_bitmap_set(bitmap, 8192, 16384);
    assert_true(ash_bitmap_next_dirty(bitmap, 9000, 20000, UINT64_MAX, &offset, &bytes));
    assert_int_equal(offset, 9000);
    assert_int_equal(bytes, 11000);
    assert_true(ash_bitmap_next_dirty(bitmap, 0, UINT64_MAX, 5000, &offset, &bytes));
    assert_int_equal(offset, 8192);
    assert_int_equal(bytes, 5000);
    assert_false(ash_bitmap_next_dirty(bitmap, 0, 8192, UINT64_MAX, &offset, &bytes));
    assert_false(ash_bitmap_next_dirty(bitmap, 24576, UINT64_MAX, 1, &offset, &bytes));
    assert_true(ash_bitmap_next_clean(bitmap, 10000, UINT64_MAX, UINT64_MAX, &offset, &bytes));
    assert_int_equal(offset, 24576);
    assert_int_equal(bytes, 65536 - 24576);
    assert_true(ash_bitmap_get(bitmap, 8192));
    assert_false(ash_bitmap_get(bitmap, 8191));
    core_let_go(core, edge);
}

/* When it marks. */

struct writing {
    struct ash_edge *edge;
    uint64_t offset;
    bool done;
};

ASH_CO_FN static void write_one(struct core *core, void *opaque)
{
    struct writing *writing = opaque;
    (void)core;
    assert_int_equal(fill(writing->edge, writing->offset, 512), 0);
    writing->done = true;
}

/* write begins -> the bit is reset while it is in flight -> write ends -> the bit is set again */
CORE_TEST(a_bit_that_is_reset_under_a_write_in_flight_comes_back)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_pack("{s:i}", "delay-ns", 1000000));
    struct ash_bitmap *bitmap = bitmap_of(edge, "b", 512);
    struct writing writing = {edge, 512, false};
    ash_bitmap_set(bitmap, 512, 512);
    core_spawn(core, write_one, &writing);
    while (mem_protocol_of(edge->child)->running == 0) {
        ash_co_reschedule();
    }
    assert_true(ash_track_changing(edge->child, 0, 1024));
    assert_false(ash_track_changing(edge->child, 1024, 1024));
    ash_bitmap_reset(bitmap, 0, 65536);
    core_join(core);
    assert_false(ash_track_changing(edge->child, 0, INT64_MAX));
    assert_string_equal(dirty(bitmap), "512+512");
    core_let_go(core, edge);
}

/* write begins -> a serialising request on its range waits -> the write ends -> who waited sees it
 */
CORE_TEST(who_serialises_with_a_write_finds_it_marked)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_pack("{s:i}", "delay-ns", 1000000));
    struct ash_bitmap *bitmap = bitmap_of(edge, "b", 512);
    struct writing writing = {edge, 512, false};
    core_spawn(core, write_one, &writing);
    while (mem_protocol_of(edge->child)->running == 0) {
        ash_co_reschedule();
    }
    struct ash_request request;
    ash_track_begin(&request, edge->child, ASH_READ, 0, 4096, true);
    assert_string_equal(dirty(bitmap), "512+512");
    ash_track_end(&request);
    core_join(core);
    core_let_go(core, edge);
}

struct waiter {
    struct ash_bitmap *bitmap;
    unsigned woken;
};

ASH_CO_FN static void wait_dirtied(struct core *core, void *opaque)
{
    struct waiter *waiter = opaque;
    (void)core;
    ash_co_queue_wait(&waiter->bitmap->dirtied);
    waiter->woken++;
}

CORE_TEST(who_waits_for_a_clean_bitmap_is_woken_by_its_first_mark)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_object());
    struct waiter waiter = {bitmap_of(edge, "b", 512), 0};
    core_spawn(core, wait_dirtied, &waiter);
    ash_co_sleep(1000);
    assert_int_equal(waiter.woken, 0);
    assert_int_equal(fill(edge, 0, 1), 0);
    core_join(core);
    assert_int_equal(waiter.woken, 1);
    core_let_go(core, edge);
}

/* A mirror in small: guests write at random, with failures, while a copier empties the bitmap
 * without waiting for them. When nothing is dirty and nothing in flight, the copy is equal. */

#define STORM_BYTES 32768

struct storm {
    struct ash_edge *edge;
    struct ash_bitmap *bitmap;
    uint8_t *copy;
    unsigned guests; /* still running */
};

ASH_CO_FN static void storm_guest(struct core *core, void *opaque)
{
    struct storm *storm = opaque;
    struct mem_protocol *mem = mem_protocol_of(storm->edge->child);
    for (unsigned i = 0; i < 60; i++) {
        uint8_t buffer[3000];
        uint64_t bytes = ash_prng_between(&core->prng, 1, sizeof(buffer));
        uint64_t offset = ash_prng_below(&core->prng, STORM_BYTES - bytes + 1);
        if (ash_prng_chance(&core->prng, 100)) {
            mem->fail = -EIO;
        }
        switch (ash_prng_below(&core->prng, 4)) {
        case 0:
            ash_edge_zero(storm->edge, offset, bytes, 0);
            break;
        case 1:
            ash_edge_discard(storm->edge, offset, bytes);
            break;
        default:
            ash_prng_fill(&core->prng, buffer, bytes);
            ash_edge_write(storm->edge, offset, buffer, bytes, 0);
            break;
        }
        ash_co_sleep(ash_prng_below(&core->prng, 3000));
    }
    storm->guests--;
}

ASH_CO_FN static void copy_one(struct core *core, struct storm *storm)
{
    uint64_t offset;
    uint64_t bytes;
    uint64_t from = ash_prng_below(&core->prng, STORM_BYTES);
    if (!ash_bitmap_next_dirty(storm->bitmap, from, UINT64_MAX, 4096, &offset, &bytes) &&
        !ash_bitmap_next_dirty(storm->bitmap, 0, UINT64_MAX, 4096, &offset, &bytes)) {
        return;
    }
    uint64_t unit = ash_bitmap_granularity(storm->bitmap);
    uint64_t end = (offset + bytes + unit - 1) / unit * unit;
    offset = offset / unit * unit;
    ash_bitmap_reset(storm->bitmap, offset, end - offset);
    if (ash_edge_read(storm->edge, offset, storm->copy + offset, end - offset) < 0) {
        ash_bitmap_set(storm->bitmap, offset, end - offset);
    }
}

ASH_CO_FN static void storm_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct ash_edge *edge =
        core_mem(core, json_pack("{s:i, s:i, s:i, s:i}", "size", STORM_BYTES, "delay-ns", 2000,
                                 "request-alignment", core->seed % 2 == 0 ? 1 : 512, "seed",
                                 (int)core->seed));
    struct storm storm = {.edge = edge, .guests = 4};
    storm.bitmap = bitmap_of(edge, "b", UINT64_C(512) << core->seed % 4);
    storm.copy = g_malloc0(STORM_BYTES);
    for (unsigned i = 0; i < 4; i++) {
        core_spawn(core, storm_guest, &storm);
    }
    while (storm.guests > 0 || !ash_bitmap_is_clean(storm.bitmap) ||
           ash_track_changing(edge->child, 0, INT64_MAX)) {
        copy_one(core, &storm);
        ash_co_sleep(ash_prng_below(&core->prng, 1000));
    }
    core_join(core);
    assert_memory_equal(storm.copy, mem_protocol_of(edge->child)->data, STORM_BYTES);
    g_free(storm.copy);
    core_let_go(core, edge);
}

static void a_copier_that_resets_and_reads_misses_no_change(void **state)
{
    (void)state;
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(40); seed++) {
        struct core core;
        core_up(&core, seed);
        core_run(&core, storm_body, NULL);
        core_down(&core);
    }
}

/* Length. */

CORE_TEST(what_appears_when_a_node_grows_is_dirty)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_pack("{s:i}", "size", 70000));
    struct ash_bitmap *records = bitmap_of(edge, "records", 4096);
    struct ash_bitmap *rests = bitmap_of(edge, "rests", 4096);
    struct ash_bitmap *frozen = bitmap_of(edge, "frozen", 4096);
    ash_bitmap_disable(rests);
    ash_bitmap_set_busy(frozen, true);
    assert_int_equal(ash_bitmap_freeze(frozen), 0);
    assert_int_equal(ash_edge_resize(edge, 80000, 0, 0, NULL), 0);
    assert_string_equal(dirty(records), "69632+10368");
    assert_string_equal(dirty(rests), "");
    assert_string_equal(dirty(frozen), ""); /* the job's set; the successor has it */
    ash_bitmap_join(frozen);
    ash_bitmap_set_busy(frozen, false);
    assert_string_equal(dirty(frozen), "69632+10368");
    core_let_go(core, edge);
}

CORE_TEST(what_goes_when_a_node_shrinks_is_forgotten)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_object());
    struct ash_bitmap *bitmap = bitmap_of(edge, "b", 4096);
    struct ash_bitmap *rests = bitmap_of(edge, "rests", 4096);
    ash_bitmap_set(bitmap, 0, 65536);
    ash_bitmap_set(rests, 0, 65536);
    ash_bitmap_disable(rests);
    assert_int_equal(ash_edge_resize(edge, 10000, ASH_RESIZE_SHRINK, 0, NULL), 0);
    assert_int_equal(ash_bitmap_dirty_bytes(bitmap), 10000);
    ash_bitmap_clear(bitmap, NULL);
    assert_int_equal(ash_edge_resize(edge, 20000, 0, 0, NULL), 0);
    assert_string_equal(dirty(bitmap), "8192+11808");
    assert_string_equal(dirty(rests), "0+12288");
    core_let_go(core, edge);
}

/* A file that qcow2 makes longer with every allocating write. */
CORE_TEST(a_bitmap_follows_a_file_that_its_format_lengthens)
{
    (void)opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_node *file;
    struct ash_edge *edge;
    json_t *options =
        json_pack("{s:s, s:s}", "driver", "file", "filename", core_file(core, "grows", 0));
    assert_int_equal(ash_node_open(core->loop, options, ASH_NODE_WRITE, &file, &error), 0);
    json_decref(options);
    struct ash_plan *plan = ash_plan_new(core->loop);
    ash_plan_attach(plan, NULL, file, "root", ASH_ROLE_DISK, ASH_RIGHT_ALL, ASH_RIGHT_ALL, NULL,
                    &edge);
    assert_int_equal(ash_plan_run(plan, &error), 0);
    ash_plan_free(plan);
    assert_int_equal(ash_node_unref(file), 0);
    struct ash_bitmap *bitmap = bitmap_of(edge, "b", 512);
    struct ash_node parent = {0};
    edge->parent = &parent; /* as below a format: it may lengthen the file */
    uint64_t at = 0;
    for (unsigned i = 0; i < 200; i++) {
        at += ash_prng_below(&core->prng, 5000);
        uint64_t bytes = ash_prng_between(&core->prng, 1, 4096);
        assert_int_equal(fill(edge, at, bytes), 0);
        at += bytes;
        assert_true(file->size_bytes >= at);
    }
    edge->parent = NULL;
    assert_int_equal(ash_bitmap_dirty_bytes(bitmap), file->size_bytes);
    assert_false(bitmap->inconsistent);
    core_let_go(core, edge);
}

CORE_TEST(a_shrink_that_fails_marks_what_it_may_have_lost)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_object());
    struct ash_bitmap *bitmap = bitmap_of(edge, "b", 4096);
    mem_protocol_of(edge->child)->fail_resize = true;
    assert_int_equal(ash_edge_resize(edge, 10000, ASH_RESIZE_SHRINK, 0, NULL), -EIO);
    assert_int_equal(edge->child->size_bytes, 65536);
    assert_string_equal(dirty(bitmap), "8192+57344");
    core_let_go(core, edge);
}

/* States. */

CORE_TEST(a_bitmap_records_only_while_it_is_enabled)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_object());
    struct ash_bitmap *bitmap = bitmap_of(edge, "b", 4096);
    ash_bitmap_disable(bitmap);
    assert_int_equal(fill(edge, 0, 512), 0);
    assert_true(ash_bitmap_is_clean(bitmap));
    ash_bitmap_enable(bitmap);
    assert_int_equal(fill(edge, 4096, 512), 0);
    assert_string_equal(dirty(bitmap), "4096+4096");
    core_let_go(core, edge);
}

CORE_TEST(a_read_only_bitmap_that_misses_a_change_is_inconsistent)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_object());
    struct ash_bitmap *bitmap = bitmap_of(edge, "b", 4096);
    struct ash_bitmap *rests = bitmap_of(edge, "rests", 4096);
    ash_bitmap_set_read_only(bitmap, true);
    ash_bitmap_disable(rests);
    ash_bitmap_set_read_only(rests, true);
    assert_int_equal(fill(edge, 0, 512), 0);
    assert_true(bitmap->inconsistent);
    assert_false(rests->inconsistent); /* it misses nothing: it does not record */
    ash_bitmap_set_read_only(bitmap, false);
    assert_int_equal(fill(edge, 0, 512), 0);
    assert_true(ash_bitmap_is_clean(bitmap));
    core_let_go(core, edge);
}

CORE_TEST(each_state_bears_what_the_table_says)
{
    (void)opaque;
    static const struct {
        bool busy;
        bool read_only;
        bool inconsistent;
        int change;
        int read;
        int remove;
    } table[] = {
        {false, false, false, 0, 0, 0},
        {true, false, false, -EBUSY, -EBUSY, -EBUSY},
        {false, true, false, -EPERM, 0, -EPERM},
        {false, false, true, -EINVAL, -EINVAL, 0},
        {true, true, true, -EBUSY, -EBUSY, -EBUSY},
        {false, true, true, -EPERM, -EINVAL, -EPERM},
    };
    struct ash_edge *edge = core_mem(core, json_object());
    for (size_t i = 0; i < ASH_ARRAY_SIZE(table); i++) {
        struct ash_bitmap *bitmap = bitmap_of(edge, "b", 4096);
        struct ash_error error = ASH_ERROR_INIT;
        ash_bitmap_set_busy(bitmap, table[i].busy);
        ash_bitmap_set_read_only(bitmap, table[i].read_only);
        if (table[i].inconsistent) {
            ash_bitmap_set_inconsistent(bitmap);
        }
        assert_int_equal(ash_bitmap_check(bitmap, ASH_BITMAP_TO_CHANGE, &error), table[i].change);
        assert_int_equal(ash_bitmap_check(bitmap, ASH_BITMAP_TO_READ, NULL), table[i].read);
        assert_int_equal(ash_bitmap_check(bitmap, ASH_BITMAP_TO_DELETE, NULL), table[i].remove);
        assert_int_equal(strstr(error.message, "'b'") != NULL, table[i].change != 0);
        ash_bitmap_set_busy(bitmap, false);
        ash_bitmap_free(bitmap);
    }
    core_let_go(core, edge);
}

CORE_TEST(names_and_granularities_are_checked)
{
    (void)opaque;
    struct ash_bitmap *bitmap;
    char name[1026];
    struct ash_edge *edge = core_mem(core, json_object());
    struct ash_node *node = edge->child;
    memset(name, 'n', sizeof(name));
    name[1024] = '\0';
    assert_int_equal(ash_bitmap_new(node, name, 512, &bitmap, NULL), -EINVAL);
    name[1023] = '\0';
    assert_int_equal(ash_bitmap_new(node, name, 512, &bitmap, NULL), 0);
    assert_ptr_equal(ash_bitmap_find(node, name), bitmap);
    assert_int_equal(ash_bitmap_new(node, name, 1024, &bitmap, NULL), -EEXIST);
    assert_int_equal(ash_bitmap_new(node, "", 512, &bitmap, NULL), -EINVAL);
    assert_int_equal(ash_bitmap_new(node, "a", 256, &bitmap, NULL), -EINVAL);
    assert_int_equal(ash_bitmap_new(node, "a", 1000, &bitmap, NULL), -EINVAL);
    assert_int_equal(ash_bitmap_new(node, "a", 4 * GiB, &bitmap, NULL), -EINVAL);
    assert_int_equal(ash_bitmap_new(node, "a", 2 * GiB, &bitmap, NULL), 0);
    assert_int_equal(ash_bitmap_new(node, NULL, 512, &bitmap, NULL), 0);
    assert_int_equal(ash_bitmap_new(node, NULL, 512, &bitmap, NULL), 0);
    assert_null(ash_bitmap_find(node, "b"));
    core_let_go(core, edge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_marks_every_granule_it_touches),
        cmocka_unit_test(what_changes_nothing_marks_nothing),
        cmocka_unit_test(a_change_that_fails_marks_all_the_same),
        cmocka_unit_test(a_padded_write_marks_the_whole_block),
        cmocka_unit_test(the_short_last_granule_counts_as_long_as_it_is),
        cmocka_unit_test(ranges_are_cut_to_what_was_asked),
        cmocka_unit_test(a_bit_that_is_reset_under_a_write_in_flight_comes_back),
        cmocka_unit_test(who_serialises_with_a_write_finds_it_marked),
        cmocka_unit_test(who_waits_for_a_clean_bitmap_is_woken_by_its_first_mark),
        cmocka_unit_test(a_copier_that_resets_and_reads_misses_no_change),
        cmocka_unit_test(what_appears_when_a_node_grows_is_dirty),
        cmocka_unit_test(what_goes_when_a_node_shrinks_is_forgotten),
        cmocka_unit_test(a_bitmap_follows_a_file_that_its_format_lengthens),
        cmocka_unit_test(a_shrink_that_fails_marks_what_it_may_have_lost),
        cmocka_unit_test(a_bitmap_records_only_while_it_is_enabled),
        cmocka_unit_test(a_read_only_bitmap_that_misses_a_change_is_inconsistent),
        cmocka_unit_test(each_state_bears_what_the_table_says),
        cmocka_unit_test(names_and_granularities_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
