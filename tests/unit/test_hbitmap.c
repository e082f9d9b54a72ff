/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The hierarchical set of bits, against an array of booleans. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "util/hbitmap.h"
#include "util/prng.h"

/* Three levels of summaries: 64^3 bits need two. */
#define BITS_MAX 300000

struct model {
    struct ash_prng prng;
    struct ash_hbitmap map;
    bool *set;
    uint64_t bits;
};

static uint64_t naive_next(const struct model *model, bool want, uint64_t from, uint64_t end)
{
    for (uint64_t bit = from; bit < end && bit < model->bits; bit++) {
        if (model->set[bit] == want) {
            return bit;
        }
    }
    return ASH_HBITMAP_NONE;
}

static uint64_t naive_count(const struct model *model, uint64_t first, uint64_t count)
{
    uint64_t set = 0;
    for (uint64_t bit = first; bit < first + count; bit++) {
        set += model->set[bit];
    }
    return set;
}

/* A range: mostly short, sometimes any, sometimes on the borders of words. */
static void draw_range(struct model *model, uint64_t *first, uint64_t *count)
{
    *first = ash_prng_below(&model->prng, model->bits + 1);
    uint64_t left = model->bits - *first;
    if (ash_prng_chance(&model->prng, 200)) {
        *count = ash_prng_below(&model->prng, left + 1);
    } else {
        *count = ash_prng_below(&model->prng, (left < 300 ? left : 300) + 1);
    }
    if (ash_prng_chance(&model->prng, 300)) {
        *first &= ~UINT64_C(63);
        *count = *count < model->bits - *first ? *count & ~UINT64_C(63) : *count;
    }
}

/* Every level of the pyramids says of the one below what it should. */
static void check_pyramids(const struct ash_hbitmap *map)
{
    const uint64_t *below = map->words;
    uint64_t words = map->capacity / 64;
    for (uint32_t level = 0; level < map->levels; level++) {
        const uint64_t *full_below = level == 0 ? map->words : map->full[level - 1];
        for (uint64_t i = 0; i < words; i++) {
            bool any = (map->any[level][i / 64] >> (i % 64) & 1) != 0;
            bool full = (map->full[level][i / 64] >> (i % 64) & 1) != 0;
            assert_int_equal(any, below[i] != 0);
            assert_int_equal(full, full_below[i] == UINT64_MAX);
        }
        below = map->any[level];
        words = map->level_words[level];
    }
    assert_int_equal(words, 1);
}

static void check_all(const struct model *model)
{
    assert_int_equal(model->map.count, naive_count(model, 0, model->bits));
    for (uint64_t bit = 0; bit < model->bits; bit++) {
        assert_int_equal(ash_hbitmap_test(&model->map, bit), model->set[bit]);
    }
    check_pyramids(&model->map);
}

static void change(struct model *model)
{
    uint64_t first;
    uint64_t count;
    draw_range(model, &first, &count);
    bool set = ash_prng_chance(&model->prng, 550);
    if (set) {
        ash_hbitmap_set(&model->map, first, count);
    } else {
        ash_hbitmap_reset(&model->map, first, count);
    }
    for (uint64_t bit = first; bit < first + count; bit++) {
        model->set[bit] = set;
    }
}

static void resize(struct model *model)
{
    uint64_t bits = ash_prng_below(&model->prng, BITS_MAX);
    assert_int_equal(ash_hbitmap_reserve(&model->map, bits), 0);
    ash_hbitmap_resize(&model->map, bits);
    for (uint64_t bit = model->bits; bit < bits; bit++) {
        model->set[bit] = false;
    }
    model->bits = bits;
}

static void ask(struct model *model)
{
    uint64_t first;
    uint64_t count;
    draw_range(model, &first, &count);
    uint64_t end = first + count + (ash_prng_chance(&model->prng, 100) ? 1000000 : 0);
    assert_int_equal(ash_hbitmap_next_set(&model->map, first, end),
                     naive_next(model, true, first, end));
    assert_int_equal(ash_hbitmap_next_clear(&model->map, first, end),
                     naive_next(model, false, first, end));
    assert_int_equal(ash_hbitmap_count(&model->map, first, count),
                     naive_count(model, first, count));
    if (count > 0) {
        uint64_t last = first + (count - 1) % (64 - first % 64);
        assert_int_equal(ash_hbitmap_covered(&model->map, first, last),
                         naive_next(model, false, first, last + 1) == ASH_HBITMAP_NONE);
    }
}

static void random_changes_agree_with_an_array(void **state)
{
    (void)state;
    const char *only = getenv("SEED");
    uint64_t begin = only != NULL ? strtoull(only, NULL, 10) : 0;
    for (uint64_t seed = begin; seed < (only != NULL ? begin + 1 : 12); seed++) {
        struct model model = {.bits = seed % 3 == 0 ? 130 : BITS_MAX / (seed + 1)};
        ash_prng_seed(&model.prng, seed);
        model.set = calloc(BITS_MAX, sizeof(bool));
        assert_non_null(model.set);
        assert_int_equal(ash_hbitmap_init(&model.map, model.bits), 0);
        fprintf(stderr, "seed %lu: SEED=%lu before the command repeats it\n", (unsigned long)seed,
                (unsigned long)seed);
        for (unsigned step = 0; step < 2000; step++) {
            uint64_t die = ash_prng_below(&model.prng, 100);
            if (die == 0) {
                resize(&model);
            } else if (die < 50) {
                change(&model);
            } else {
                ask(&model);
            }
            if (step % 200 == 0) {
                check_all(&model);
            }
        }
        check_all(&model);
        ash_hbitmap_destroy(&model.map);
        free(model.set);
    }
}

static void a_copy_and_a_merge_hold_what_they_should(void **state)
{
    (void)state;
    struct model a = {.bits = 5000};
    struct model b = {.bits = 5000};
    ash_prng_seed(&a.prng, 1);
    ash_prng_seed(&b.prng, 2);
    a.set = calloc(BITS_MAX, sizeof(bool));
    b.set = calloc(BITS_MAX, sizeof(bool));
    assert_int_equal(ash_hbitmap_init(&a.map, a.bits), 0);
    assert_int_equal(ash_hbitmap_init(&b.map, b.bits), 0);
    for (unsigned i = 0; i < 20; i++) {
        change(&a);
        change(&b);
    }
    struct ash_hbitmap copy;
    assert_int_equal(ash_hbitmap_copy(&copy, &a.map), 0);
    ash_hbitmap_merge(&a.map, &b.map);
    for (uint64_t bit = 0; bit < 5000; bit++) {
        assert_int_equal(ash_hbitmap_test(&copy, bit), a.set[bit]);
        assert_int_equal(ash_hbitmap_test(&a.map, bit), a.set[bit] || b.set[bit]);
        a.set[bit] = a.set[bit] || b.set[bit];
    }
    check_all(&a);
    check_pyramids(&copy);
    ash_hbitmap_reset_all(&a.map);
    assert_int_equal(a.map.count, 0);
    check_pyramids(&a.map);
    ash_hbitmap_destroy(&copy);
    ash_hbitmap_destroy(&a.map);
    ash_hbitmap_destroy(&b.map);
    free(a.set);
    free(b.set);
}

static void bits_set_and_reset_during_a_walk_do_no_harm(void **state)
{
    (void)state;
    struct ash_hbitmap map;
    assert_int_equal(ash_hbitmap_init(&map, 100000), 0);
    ash_hbitmap_set(&map, 10, 1);
    ash_hbitmap_set(&map, 70000, 5);
    uint64_t bit = ash_hbitmap_next_set(&map, 0, UINT64_MAX);
    assert_int_equal(bit, 10);
    ash_hbitmap_reset(&map, 10, 1);  /* behind the walk's back */
    ash_hbitmap_set(&map, 3, 1);     /* behind it, too late for this walk */
    ash_hbitmap_set(&map, 40000, 1); /* ahead of it */
    ash_hbitmap_reset(&map, 70000, 3);
    assert_int_equal(ash_hbitmap_next_set(&map, bit + 1, UINT64_MAX), 40000);
    assert_int_equal(ash_hbitmap_next_set(&map, 40001, UINT64_MAX), 70003);
    assert_int_equal(ash_hbitmap_next_set(&map, 70005, UINT64_MAX), ASH_HBITMAP_NONE);
    ash_hbitmap_destroy(&map);
}

static void no_bits_and_one_bit(void **state)
{
    (void)state;
    struct ash_hbitmap map;
    assert_int_equal(ash_hbitmap_init(&map, 0), 0);
    assert_int_equal(ash_hbitmap_next_set(&map, 0, UINT64_MAX), ASH_HBITMAP_NONE);
    assert_int_equal(ash_hbitmap_next_clear(&map, 0, UINT64_MAX), ASH_HBITMAP_NONE);
    ash_hbitmap_set(&map, 0, 0);
    assert_int_equal(ash_hbitmap_count(&map, 0, 0), 0);
    assert_int_equal(ash_hbitmap_reserve(&map, 1), 0);
    ash_hbitmap_resize(&map, 1);
    ash_hbitmap_set(&map, 0, 1);
    assert_int_equal(ash_hbitmap_next_set(&map, 0, UINT64_MAX), 0);
    assert_int_equal(ash_hbitmap_next_clear(&map, 0, UINT64_MAX), ASH_HBITMAP_NONE);
    ash_hbitmap_destroy(&map);
}

/* 64 * 64 * 64 bits, all set but the last: the full pyramid leads there. */
static void the_only_clear_bit_is_found(void **state)
{
    (void)state;
    const uint64_t bits = 64 * 64 * 64 + 17;
    struct ash_hbitmap map;
    assert_int_equal(ash_hbitmap_init(&map, bits), 0);
    ash_hbitmap_set(&map, 0, bits);
    assert_int_equal(ash_hbitmap_next_clear(&map, 0, UINT64_MAX), ASH_HBITMAP_NONE);
    ash_hbitmap_reset(&map, bits - 1, 1);
    assert_int_equal(ash_hbitmap_next_clear(&map, 0, UINT64_MAX), bits - 1);
    assert_int_equal(ash_hbitmap_next_clear(&map, 0, bits - 1), ASH_HBITMAP_NONE);
    ash_hbitmap_reset(&map, 1000, 1);
    assert_int_equal(ash_hbitmap_next_clear(&map, 0, UINT64_MAX), 1000);
    assert_int_equal(ash_hbitmap_next_clear(&map, 1001, UINT64_MAX), bits - 1);
    ash_hbitmap_destroy(&map);
}

static void more_than_there_is_memory_for_is_refused(void **state)
{
    (void)state;
    struct ash_hbitmap map;
    assert_int_equal(ash_hbitmap_init(&map, ASH_HBITMAP_BITS_MAX + 1), -ENOMEM);
    assert_int_equal(ash_hbitmap_init(&map, UINT64_MAX), -ENOMEM);
    assert_int_equal(ash_hbitmap_init(&map, 100), 0);
    ash_hbitmap_set(&map, 7, 2);
    assert_int_equal(ash_hbitmap_reserve(&map, ASH_HBITMAP_BITS_MAX + 1), -ENOMEM);
    assert_int_equal(map.bits, 100);
    assert_int_equal(map.count, 2);
    assert_int_equal(ash_hbitmap_next_set(&map, 0, UINT64_MAX), 7);
    ash_hbitmap_destroy(&map);
}

static void growing_in_small_steps_copies_seldom(void **state)
{
    (void)state;
    struct ash_hbitmap map;
    unsigned moved = 0;
    assert_int_equal(ash_hbitmap_init(&map, 1), 0);
    for (uint64_t bits = 2; bits <= 100000; bits++) {
        const uint64_t *before = map.words;
        uint64_t capacity = map.capacity;
        assert_int_equal(ash_hbitmap_reserve(&map, bits), 0);
        moved += map.words != before || map.capacity != capacity;
        ash_hbitmap_resize(&map, bits);
        ash_hbitmap_set(&map, bits - 1, 1);
    }
    assert_int_equal(map.count, 99999);
    assert_true(moved < 40);
    ash_hbitmap_destroy(&map);
}

static void a_disk_of_16_tib_at_64_kib_takes_less_than_40_mib(void **state)
{
    (void)state;
    struct ash_hbitmap map;
    assert_int_equal(ash_hbitmap_init(&map, UINT64_C(1) << 28), 0);
    assert_true(ash_hbitmap_memory_bytes(&map) < UINT64_C(40) << 20);
    ash_hbitmap_set(&map, (UINT64_C(1) << 28) - 1, 1);
    assert_int_equal(ash_hbitmap_next_set(&map, 0, UINT64_MAX), (UINT64_C(1) << 28) - 1);
    ash_hbitmap_destroy(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_changes_agree_with_an_array),
        cmocka_unit_test(a_copy_and_a_merge_hold_what_they_should),
        cmocka_unit_test(bits_set_and_reset_during_a_walk_do_no_harm),
        cmocka_unit_test(no_bits_and_one_bit),
        cmocka_unit_test(the_only_clear_bit_is_found),
        cmocka_unit_test(more_than_there_is_memory_for_is_refused),
        cmocka_unit_test(growing_in_small_steps_copies_seldom),
        cmocka_unit_test(a_disk_of_16_tib_at_64_kib_takes_less_than_40_mib),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
