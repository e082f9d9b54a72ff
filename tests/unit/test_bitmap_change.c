/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps as a whole: freezing, merging, clearing, and taking it back. */
#include "tests/unit/unit.h"
#include "block/bitmap/bitmap.h"
#include "tests/unit/core_rig.h"

#define NODE_BYTES 262144
#define SECTORS (NODE_BYTES / 512)

static struct ash_bitmap *bitmap_of(struct ash_edge *edge, const char *name, uint64_t granularity)
{
    struct ash_bitmap *bitmap = NULL;
    assert_int_equal(ash_bitmap_new(edge->child, name, granularity, &bitmap, NULL), 0);
    return bitmap;
}

ASH_CO_FN static struct ash_edge *node_of(struct core *core)
{
    return core_mem(core, json_pack("{s:i}", "size", NODE_BYTES));
}

ASH_CO_FN static void touch(struct ash_edge *edge, uint64_t offset)
{
    assert_int_equal(ash_edge_write(edge, offset, "x", 1, 0), 0);
}

/* Freezing: touch A -> freeze -> touch B; the job resets A. */
struct frozen {
    struct ash_edge *edge;
    struct ash_bitmap *bitmap;
};

ASH_CO_FN static struct frozen freeze(struct core *core, bool enabled)
{
    struct frozen frozen = {.edge = node_of(core)};
    frozen.bitmap = bitmap_of(frozen.edge, "b", 4096);
    touch(frozen.edge, 0);
    touch(frozen.edge, 8192);
    if (!enabled) {
        ash_bitmap_disable(frozen.bitmap);
    }
    ash_bitmap_set_busy(frozen.bitmap, true);
    assert_int_equal(ash_bitmap_freeze(frozen.bitmap), 0);
    touch(frozen.edge, 8192);
    touch(frozen.edge, 16384);
    assert_int_equal(ash_bitmap_dirty_bytes(frozen.bitmap), 8192); /* as at the freeze */
    ash_bitmap_reset(frozen.bitmap, 0, 4096);                      /* the job's */
    return frozen;
}

CORE_TEST(a_join_leaves_what_the_job_has_not_done_and_what_is_new)
{
    (void)opaque;
    struct frozen frozen = freeze(core, true);
    ash_bitmap_join(frozen.bitmap);
    ash_bitmap_set_busy(frozen.bitmap, false);
    assert_false(ash_bitmap_get(frozen.bitmap, 0));
    assert_true(ash_bitmap_get(frozen.bitmap, 8192));
    assert_true(ash_bitmap_get(frozen.bitmap, 16384));
    touch(frozen.edge, 0);
    assert_true(ash_bitmap_get(frozen.bitmap, 0));
    core_let_go(core, frozen.edge);
}

CORE_TEST(an_abdication_leaves_what_is_new)
{
    (void)opaque;
    struct frozen frozen = freeze(core, true);
    ash_bitmap_set(frozen.bitmap, 32768, 1);
    ash_bitmap_abdicate(frozen.bitmap);
    ash_bitmap_set_busy(frozen.bitmap, false);
    assert_int_equal(ash_bitmap_dirty_bytes(frozen.bitmap), 8192);
    assert_true(ash_bitmap_get(frozen.bitmap, 8192));
    assert_true(ash_bitmap_get(frozen.bitmap, 16384));
    touch(frozen.edge, 0);
    assert_true(ash_bitmap_get(frozen.bitmap, 0));
    assert_ptr_equal(ash_bitmap_find(frozen.edge->child, "b"), frozen.bitmap);
    core_let_go(core, frozen.edge);
}

CORE_TEST(the_successor_of_a_disabled_bitmap_does_not_record)
{
    (void)opaque;
    struct frozen frozen = freeze(core, false);
    ash_bitmap_join(frozen.bitmap);
    ash_bitmap_set_busy(frozen.bitmap, false);
    assert_int_equal(ash_bitmap_dirty_bytes(frozen.bitmap), 4096);
    assert_true(ash_bitmap_get(frozen.bitmap, 8192));
    core_let_go(core, frozen.edge);
}

CORE_TEST(a_frozen_bitmap_follows_a_shrink)
{
    (void)opaque;
    struct frozen frozen = freeze(core, true);
    assert_int_equal(ash_edge_resize(frozen.edge, 12288, ASH_RESIZE_SHRINK, 0, NULL), 0);
    ash_bitmap_join(frozen.bitmap);
    ash_bitmap_set_busy(frozen.bitmap, false);
    assert_int_equal(ash_bitmap_dirty_bytes(frozen.bitmap), 4096);
    core_let_go(core, frozen.edge);
}

/* Merging, against sectors in an array. */

static void draw(struct core *core, struct ash_bitmap *bitmap, bool *set)
{
    for (unsigned i = 0; i < 6; i++) {
        uint64_t offset = ash_prng_below(&core->prng, NODE_BYTES);
        uint64_t bytes = ash_prng_below(&core->prng, 40000) + 1;
        ash_bitmap_set(bitmap, offset, bytes);
    }
    for (uint64_t i = 0; i < SECTORS; i++) {
        set[i] = ash_bitmap_get(bitmap, i * 512);
    }
}

/* What `to` should say of a sector: its granule was dirty, or touches a dirty sector. */
static bool expected(const bool *to, const bool *from, uint64_t sector, uint64_t granularity)
{
    uint64_t first = sector * 512 / granularity * granularity / 512;
    bool dirty = to[sector];
    for (uint64_t i = first; i < first + granularity / 512 && i < SECTORS; i++) {
        dirty |= from[i];
    }
    return dirty;
}

ASH_CO_FN static void merge_body(struct core *core, void *opaque)
{
    (void)opaque;
    bool *to_set = g_new(bool, SECTORS);
    bool *from_set = g_new(bool, SECTORS);
    struct ash_edge *edge = node_of(core);
    struct ash_edge *other = node_of(core);
    for (unsigned to_shift = 9; to_shift <= 17; to_shift += 2) {
        for (unsigned from_shift = 9; from_shift <= 17; from_shift += 2) {
            struct ash_bitmap *to = bitmap_of(edge, "to", UINT64_C(1) << to_shift);
            struct ash_bitmap *from = bitmap_of(other, "from", UINT64_C(1) << from_shift);
            draw(core, to, to_set);
            draw(core, from, from_set);
            assert_int_equal(ash_bitmap_merge(to, from, NULL, NULL), 0);
            for (uint64_t i = 0; i < SECTORS; i++) {
                assert_int_equal(ash_bitmap_get(to, i * 512),
                                 expected(to_set, from_set, i, UINT64_C(1) << to_shift));
                assert_int_equal(ash_bitmap_get(from, i * 512), from_set[i]);
            }
            ash_bitmap_free(to);
            ash_bitmap_free(from);
        }
    }
    g_free(to_set);
    g_free(from_set);
    core_let_go(core, edge);
    core_let_go(core, other);
}

static void a_merge_takes_over_every_dirty_byte_and_whole_granules_only(void **state)
{
    (void)state;
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(10); seed++) {
        struct core core;
        core_up(&core, seed);
        core_run(&core, merge_body, NULL);
        core_down(&core);
    }
}

CORE_TEST(bitmaps_of_other_lengths_are_not_merged)
{
    (void)opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_edge *edge = node_of(core);
    struct ash_edge *other = core_mem(core, json_object());
    struct ash_bitmap *to = bitmap_of(edge, "to", 4096);
    struct ash_bitmap *from = bitmap_of(other, "from", 4096);
    ash_bitmap_set(from, 0, 1);
    assert_int_equal(ash_bitmap_merge(to, from, NULL, &error), -EINVAL);
    assert_true(ash_bitmap_is_clean(to));
    core_let_go(core, edge);
    core_let_go(core, other);
}

CORE_TEST(a_merge_takes_what_is_frozen_and_its_successor)
{
    (void)opaque;
    struct frozen frozen = freeze(core, true);
    struct ash_bitmap *to = bitmap_of(frozen.edge, "to", 4096);
    assert_int_equal(ash_bitmap_merge(to, frozen.bitmap, NULL, NULL), 0);
    assert_int_equal(ash_bitmap_dirty_bytes(to), 8192);
    assert_true(ash_bitmap_get(to, 16384));
    ash_bitmap_join(frozen.bitmap);
    ash_bitmap_set_busy(frozen.bitmap, false);
    core_let_go(core, frozen.edge);
}

/* Undo: twins get the same writes, and one of them also changes that are all taken back. */

ASH_CO_FN static void touch_at_random(struct core *core, struct ash_edge *edge)
{
    for (unsigned i = 0; i < 5; i++) {
        touch(edge, ash_prng_below(&core->prng, NODE_BYTES / 2));
    }
}

ASH_CO_FN static void undo_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct ash_edge *edge = node_of(core);
    struct ash_bitmap *changed = bitmap_of(edge, "changed", 1024);
    struct ash_bitmap *twin = bitmap_of(edge, "twin", 1024);
    struct ash_bitmap *third = bitmap_of(edge, "third", 512);
    struct ash_bitmap_undo undos[6];
    ash_bitmap_disable(third);
    ash_bitmap_set(third, 20000, 30000);
    touch_at_random(core, edge);
    for (unsigned i = 0; i < 6; i++) {
        if (ash_prng_chance(&core->prng, 500)) {
            assert_int_equal(ash_bitmap_clear(changed, &undos[i]), 0);
            assert_true(ash_bitmap_is_clean(changed));
        } else {
            assert_int_equal(ash_bitmap_merge(changed, third, &undos[i], NULL), 0);
            assert_int_equal(ash_bitmap_dirty_bytes_in(changed, 20480, 20480), 20480);
        }
        touch_at_random(core, edge);
    }
    assert_int_equal(ash_edge_resize(edge, NODE_BYTES - 3000, ASH_RESIZE_SHRINK, 0, NULL), 0);
    assert_int_equal(ash_edge_resize(edge, NODE_BYTES - 1000, 0, 0, NULL), 0);
    for (unsigned i = 6; i-- > 0;) {
        ash_bitmap_undo_restore(&undos[i]);
        touch_at_random(core, edge);
    }
    assert_true(ash_list_empty(&changed->undos));
    for (uint64_t at = 0; at < NODE_BYTES; at += 1024) {
        assert_int_equal(ash_bitmap_get(changed, at), ash_bitmap_get(twin, at));
    }
    assert_int_equal(ash_bitmap_dirty_bytes(changed), ash_bitmap_dirty_bytes(twin));
    core_let_go(core, edge);
}

static void changes_taken_back_leave_the_guests_marks_and_nothing_else(void **state)
{
    (void)state;
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(20); seed++) {
        struct core core;
        core_up(&core, seed);
        core_run(&core, undo_body, NULL);
        core_down(&core);
    }
}

CORE_TEST(an_undo_that_is_dropped_lets_the_change_be)
{
    (void)opaque;
    struct ash_edge *edge = node_of(core);
    struct ash_bitmap *bitmap = bitmap_of(edge, "b", 1024);
    struct ash_bitmap_undo undo;
    touch(edge, 0);
    assert_int_equal(ash_bitmap_clear(bitmap, &undo), 0);
    touch(edge, 4096);
    ash_bitmap_undo_drop(&undo);
    assert_int_equal(ash_bitmap_dirty_bytes(bitmap), 1024);
    assert_true(ash_bitmap_get(bitmap, 4096));
    core_let_go(core, edge);
}

/* clear -> freeze -> a write -> the job fails and joins -> the clear is taken back */
CORE_TEST(a_clear_can_be_taken_back_after_a_job_had_the_bitmap)
{
    (void)opaque;
    struct ash_edge *edge = node_of(core);
    struct ash_bitmap *bitmap = bitmap_of(edge, "b", 1024);
    struct ash_bitmap_undo undo;
    touch(edge, 0);
    assert_int_equal(ash_bitmap_clear(bitmap, &undo), 0);
    ash_bitmap_set_busy(bitmap, true);
    assert_int_equal(ash_bitmap_freeze(bitmap), 0);
    touch(edge, 4096);
    ash_bitmap_join(bitmap);
    ash_bitmap_set_busy(bitmap, false);
    ash_bitmap_undo_restore(&undo);
    assert_int_equal(ash_bitmap_dirty_bytes(bitmap), 2048);
    assert_true(ash_bitmap_get(bitmap, 0));
    assert_true(ash_bitmap_get(bitmap, 4096));
    core_let_go(core, edge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_join_leaves_what_the_job_has_not_done_and_what_is_new),
        cmocka_unit_test(an_abdication_leaves_what_is_new),
        cmocka_unit_test(the_successor_of_a_disabled_bitmap_does_not_record),
        cmocka_unit_test(a_frozen_bitmap_follows_a_shrink),
        cmocka_unit_test(a_merge_takes_over_every_dirty_byte_and_whole_granules_only),
        cmocka_unit_test(bitmaps_of_other_lengths_are_not_merged),
        cmocka_unit_test(a_merge_takes_what_is_frozen_and_its_successor),
        cmocka_unit_test(changes_taken_back_leave_the_guests_marks_and_nothing_else),
        cmocka_unit_test(an_undo_that_is_dropped_lets_the_change_be),
        cmocka_unit_test(a_clear_can_be_taken_back_after_a_job_had_the_bitmap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
