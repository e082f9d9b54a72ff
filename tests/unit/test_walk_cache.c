/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The memory of walks against a flat array: what it knows is right, it knows what it was told while
 * there is room, and it never takes more than its budget. */
#include "tests/unit/unit.h"
#include "block/graph/block.h"
#include "block/map/walk_cache.h"
#include "tests/unit/core_rig.h"

#define STEP 512
#define STEPS 65536 /* 32 MiB: four windows */

struct told {
    bool known;
    uint8_t kind;
    uint32_t depth;
    uint64_t host_offset;
};

struct fixture {
    struct ash_walk_cache *cache;
    struct told told[STEPS];
};

static struct ash_node owners[3];
static struct ash_edge edges[3];

static struct fixture *fixture_new(struct core *core)
{
    struct fixture *fixture = g_new0(struct fixture, 1);
    struct ash_node node = {.loop = core->loop};
    fixture->cache = ash_walk_cache_new(&node);
    return fixture;
}

static void fixture_free(struct core *core, struct fixture *fixture)
{
    ash_walk_cache_free(fixture->cache);
    assert_int_equal(ash_block_of(core->loop)->budget.bytes, 0);
    g_free(fixture);
}

static struct ash_walk_find find_of(uint8_t kind, uint32_t depth, uint64_t host_offset,
                                    uint64_t bytes)
{
    return (struct ash_walk_find){
        .extent = {.kind = kind,
                   .bytes = bytes,
                   .edge = kind == ASH_EXTENT_DATA ? &edges[depth] : NULL,
                   .host_offset = kind == ASH_EXTENT_DATA ? host_offset : 0},
        .owner = &owners[depth],
        .depth = depth,
    };
}

/* A walk that nothing disturbs. */
static void tell(struct fixture *fixture, uint64_t step, uint64_t steps,
                 const struct ash_walk_find *find)
{
    struct ash_walk walk;
    ash_walk_begin(fixture->cache, &walk, step * STEP, steps * STEP);
    ash_walk_end(fixture->cache, &walk, find);
    for (uint64_t i = 0; i < steps; i++) {
        bool data = find->extent.kind == ASH_EXTENT_DATA;
        fixture->told[step + i] = (struct told){true, find->extent.kind, find->depth,
                                                data ? find->extent.host_offset + i * STEP : 0};
    }
}

static void forget(struct fixture *fixture, uint64_t step, uint64_t steps)
{
    ash_walk_cache_forget(fixture->cache, step * STEP, steps * STEP);
    memset(&fixture->told[step], 0, steps * sizeof(struct told));
}

/* What a look-up says of each step is what was told of it. Returns whether it said anything. */
static bool look(struct fixture *fixture, uint64_t step, uint64_t steps)
{
    struct ash_walk_find find;
    if (!ash_walk_cache_lookup(fixture->cache, step * STEP, steps * STEP, &find)) {
        return false;
    }
    assert_true(find.extent.bytes >= STEP && find.extent.bytes <= steps * STEP);
    assert_int_equal(find.extent.bytes % STEP, 0);
    assert_ptr_equal(find.owner, &owners[find.depth]);
    for (uint64_t i = 0; i < find.extent.bytes / STEP; i++) {
        const struct told *told = &fixture->told[step + i];
        assert_true(told->known);
        assert_int_equal(find.extent.kind, told->kind);
        assert_int_equal(find.depth, told->depth);
        if (told->kind == ASH_EXTENT_DATA) {
            assert_int_equal(find.extent.host_offset + i * STEP, told->host_offset);
            assert_ptr_equal(find.extent.edge, &edges[told->depth]);
        }
    }
    return true;
}

static uint64_t draw(struct core *core, uint64_t *steps)
{
    uint64_t step = ash_prng_below(&core->prng, STEPS);
    uint64_t longest = ash_prng_chance(&core->prng, 100) ? STEPS : 64;
    *steps = ash_prng_between(&core->prng, 1, ASH_MIN(longest, STEPS - step));
    return step;
}

static unsigned random_run(uint64_t seed, uint64_t budget)
{
    struct core core;
    struct ash_sim_config sim_config = {.seed = seed};
    struct ash_loop_config loop_config = ASH_LOOP_CONFIG_INIT;
    unsigned unknown = 0;
    loop_config.metadata_bytes_max = budget;
    core_up_with(&core, seed, &sim_config, &loop_config);
    struct fixture *fixture = fixture_new(&core);
    for (unsigned i = 0; i < 4000; i++) {
        uint64_t steps;
        uint64_t step = draw(&core, &steps);
        uint64_t what = ash_prng_below(&core.prng, 10);
        if (what < 4) {
            uint8_t kind = ash_prng_chance(&core.prng, 700) ? ASH_EXTENT_DATA : ASH_EXTENT_ZERO;
            uint32_t depth = (uint32_t)ash_prng_below(&core.prng, 3);
            /* Sometimes as a format would lay it out, so that neighbours continue one another. */
            uint64_t host = ash_prng_chance(&core.prng, 500) ? step * STEP : step * STEP * 3;
            struct ash_walk_find find = find_of(kind, depth, host, steps * STEP);
            tell(fixture, step, steps, &find);
        } else if (what < 6) {
            forget(fixture, step, steps);
        } else if (!look(fixture, step, steps)) {
            unknown += fixture->told[step].known;
        }
        assert_true(ash_block_of(core.loop)->budget.bytes <= ASH_MAX(budget, 64 * KiB));
    }
    fixture_free(&core, fixture);
    core_down(&core);
    return unknown;
}

static void what_it_knows_is_what_it_was_told(void **state)
{
    (void)state;
    unsigned unknown = 0;
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(20); seed++) {
        unknown += random_run(seed, 32 * MiB);
    }
    /* Only where forgetting had no room to split an entry. */
    assert_in_range(unknown, 0, 20 * 4000 / 100);
}

static void a_small_budget_is_kept_and_what_is_left_is_right(void **state)
{
    (void)state;
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(10); seed++) {
        random_run(seed, 1 * KiB);
        random_run(seed, 80 * KiB);
    }
}

CORE_TEST(neighbours_that_continue_one_another_become_one)
{
    (void)opaque;
    struct fixture *fixture = fixture_new(core);
    for (uint64_t step = 1000; step-- > 0;) {
        struct ash_walk_find find = find_of(ASH_EXTENT_DATA, 1, 7 * MiB + step * STEP, STEP);
        tell(fixture, step, 1, &find);
    }
    struct ash_walk_find find;
    assert_true(ash_walk_cache_lookup(fixture->cache, 0, GiB, &find));
    assert_int_equal(find.extent.bytes, 1000 * STEP);
    assert_int_equal(find.extent.host_offset, 7 * MiB);
    fixture_free(core, fixture);
}

/* begin -> forget of a part -> end: not remembered. Forgetting beside it does no harm. */
CORE_TEST(a_walk_whose_range_changed_meanwhile_is_not_remembered)
{
    (void)opaque;
    struct fixture *fixture = fixture_new(core);
    struct ash_walk walk;
    struct ash_walk other;
    struct ash_walk_find find = find_of(ASH_EXTENT_DATA, 0, 4096, 8192);
    ash_walk_begin(fixture->cache, &walk, 8192, 8192);
    ash_walk_begin(fixture->cache, &other, 65536, 8192);
    ash_walk_cache_forget(fixture->cache, 16383, 1);
    ash_walk_cache_forget(fixture->cache, 16384, 49152);
    ash_walk_cache_forget(fixture->cache, 0, 8192);
    ash_walk_end(fixture->cache, &walk, &find);
    ash_walk_end(fixture->cache, &other, &find);
    struct ash_walk_find got;
    assert_false(ash_walk_cache_lookup(fixture->cache, 8192, 8192, &got));
    assert_true(ash_walk_cache_lookup(fixture->cache, 65536, 8192, &got));
    fixture_free(core, fixture);
}

CORE_TEST(an_extent_over_several_windows_is_remembered_in_all)
{
    (void)opaque;
    struct fixture *fixture = fixture_new(core);
    struct ash_walk_find find = find_of(ASH_EXTENT_DATA, 2, 12345 * STEP, 24 * MiB);
    tell(fixture, 8192, 24 * MiB / STEP, &find);
    for (uint64_t step = 8192; step < 8192 + 24 * MiB / STEP; step += 4096) {
        assert_true(look(fixture, step, 1));
    }
    forget(fixture, 0, STEPS);
    assert_false(look(fixture, 20000, 1));
    fixture_free(core, fixture);
}

CORE_TEST(forgetting_everything_costs_what_there_is)
{
    (void)opaque;
    struct fixture *fixture = fixture_new(core);
    struct ash_walk_find find = find_of(ASH_EXTENT_ZERO, 0, 0, 4096);
    tell(fixture, 0, 8, &find);
    ash_walk_cache_forget(fixture->cache, 0, INT64_MAX);
    memset(fixture->told, 0, sizeof(fixture->told));
    assert_false(look(fixture, 0, 1));
    ash_walk_cache_forget(fixture->cache, INT64_MAX - 5, 5);
    fixture_free(core, fixture);
}

/* Formats hold pointers to slices of tables when they forget: nothing may be evicted then. */
CORE_TEST(forgetting_takes_no_memory)
{
    (void)opaque;
    struct fixture *fixture = fixture_new(core);
    for (uint64_t i = 0; i < 4000; i++) {
        uint64_t steps;
        uint64_t step = draw(core, &steps);
        struct ash_walk_find find = find_of(ASH_EXTENT_DATA, 1, i * MiB, steps * STEP);
        tell(fixture, step, steps, &find);
        uint64_t before = ash_block_of(core->loop)->budget.bytes;
        step = draw(core, &steps);
        forget(fixture, step, steps);
        assert_int_equal(ash_block_of(core->loop)->budget.bytes, before);
    }
    fixture_free(core, fixture);
}

/* More extents in one window than it takes: what it takes of memory stays bounded. */
CORE_TEST(a_window_of_many_extents_takes_bounded_memory)
{
    (void)opaque;
    struct fixture *fixture = fixture_new(core);
    for (uint64_t step = 0; step < 8 * MiB / STEP; step += 2) {
        struct ash_walk_find find = find_of(ASH_EXTENT_DATA, 1, step * 3 * STEP, STEP);
        tell(fixture, step, 1, &find);
        assert_true(look(fixture, step, 1));
        assert_true(ash_block_of(core->loop)->budget.bytes <= 200 * KiB);
    }
    fixture_free(core, fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_knows_is_what_it_was_told),
        cmocka_unit_test(a_small_budget_is_kept_and_what_is_left_is_right),
        cmocka_unit_test(neighbours_that_continue_one_another_become_one),
        cmocka_unit_test(a_walk_whose_range_changed_meanwhile_is_not_remembered),
        cmocka_unit_test(an_extent_over_several_windows_is_remembered_in_all),
        cmocka_unit_test(forgetting_everything_costs_what_there_is),
        cmocka_unit_test(forgetting_takes_no_memory),
        cmocka_unit_test(a_window_of_many_extents_takes_bounded_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
