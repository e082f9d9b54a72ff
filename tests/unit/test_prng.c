/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The seeded generator. */
#include "tests/unit/unit.h"

#include <signal.h>
#include <string.h>
#include "tests/unit/dies.h"
#include "util/prng.h"

/* The published sequence of xoshiro256** from the state 1, 2, 3, 4. */
static void the_sequence_is_that_of_xoshiro256(void **state)
{
    static const uint64_t expected[] = {
        UINT64_C(11520),
        UINT64_C(0),
        UINT64_C(1509978240),
        UINT64_C(1215971899390074240),
        UINT64_C(1216172134540287360),
        UINT64_C(607988272756665600),
    };
    struct ash_prng prng = {{1, 2, 3, 4}};

    (void)state;
    for (unsigned i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        assert_true(ash_prng_next(&prng) == expected[i]);
    }
}

/* The first output of splitmix64 from 0 is published too. */
static void seeding_goes_through_splitmix64(void **state)
{
    struct ash_prng prng;

    (void)state;
    ash_prng_seed(&prng, 0);
    assert_true(prng.state[0] == UINT64_C(0xe220a8397b1dcdaf));
    assert_true(prng.state[1] == UINT64_C(0x6e789e6aa1b965f4));
}

static void one_seed_gives_one_sequence_and_others_give_others(void **state)
{
    struct ash_prng a, b, c;
    unsigned equal = 0;

    (void)state;
    ash_prng_seed(&a, 5);
    ash_prng_seed(&b, 5);
    ash_prng_seed(&c, 6);
    for (unsigned i = 0; i < 100; i++) {
        uint64_t value = ash_prng_next(&a);
        assert_true(value == ash_prng_next(&b));
        equal += value == ash_prng_next(&c);
    }
    assert_int_equal(equal, 0);
}

static void below_reaches_every_value_evenly_and_none_beyond(void **state)
{
    struct ash_prng prng;
    unsigned counts[7] = {0};

    (void)state;
    ash_prng_seed(&prng, 1);
    for (unsigned i = 0; i < 70000; i++) {
        uint64_t value = ash_prng_below(&prng, 7);
        assert_true(value < 7);
        counts[value]++;
    }
    for (unsigned i = 0; i < 7; i++) {
        assert_in_range(counts[i], 9500, 10500);
    }
    assert_int_equal(ash_prng_below(&prng, 1), 0);
}

/* A bound of three quarters of 2^64: without rejection, the first third came twice as often. */
static void below_is_even_for_huge_bounds(void **state)
{
    struct ash_prng prng;
    const uint64_t bound = UINT64_C(3) << 62;
    unsigned low = 0;

    (void)state;
    ash_prng_seed(&prng, 2);
    for (unsigned i = 0; i < 30000; i++) {
        low += ash_prng_below(&prng, bound) < bound / 3;
    }
    assert_in_range(low, 9500, 10500);
}

static void between_includes_both_ends(void **state)
{
    struct ash_prng prng;
    bool low = false, high = false;

    (void)state;
    ash_prng_seed(&prng, 3);
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t value = ash_prng_between(&prng, 10, 13);
        assert_in_range(value, 10, 13);
        low |= value == 10;
        high |= value == 13;
    }
    assert_true(low);
    assert_true(high);
    assert_int_equal(ash_prng_between(&prng, 4, 4), 4);
    ash_prng_between(&prng, 0, UINT64_MAX);
}

static void chance_is_in_per_mille(void **state)
{
    struct ash_prng prng;
    unsigned hits = 0;

    (void)state;
    ash_prng_seed(&prng, 4);
    for (unsigned i = 0; i < 10000; i++) {
        assert_false(ash_prng_chance(&prng, 0));
        assert_true(ash_prng_chance(&prng, 1000));
        hits += ash_prng_chance(&prng, 250);
    }
    assert_in_range(hits, 2300, 2700);
}

static void fill_writes_all_bytes_and_none_beyond(void **state)
{
    (void)state;
    for (unsigned bytes = 0; bytes < 40; bytes++) {
        struct ash_prng prng;
        unsigned char buffer[48], again[48], changed[48] = {0};
        for (uint64_t seed = 0; seed < 20; seed++) {
            memset(buffer, 0, sizeof(buffer));
            ash_prng_seed(&prng, seed);
            ash_prng_fill(&prng, buffer, bytes);
            for (unsigned i = 0; i < sizeof(buffer); i++) {
                changed[i] |= buffer[i];
            }
        }
        for (unsigned i = 0; i < sizeof(buffer); i++) {
            assert_int_equal(changed[i] != 0, i < bytes);
        }
        ash_prng_seed(&prng, 19);
        ash_prng_fill(&prng, again, bytes);
        assert_memory_equal(again, buffer, bytes);
    }
}

static void draws_below_nothing(void)
{
    struct ash_prng prng = {{1, 2, 3, 4}};

    ash_prng_below(&prng, 0);
}

static void drawing_below_zero_aborts(void **state)
{
    (void)state;
    assert_asserts(draws_below_nothing, "bound > 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sequence_is_that_of_xoshiro256),
        cmocka_unit_test(seeding_goes_through_splitmix64),
        cmocka_unit_test(one_seed_gives_one_sequence_and_others_give_others),
        cmocka_unit_test(below_reaches_every_value_evenly_and_none_beyond),
        cmocka_unit_test(below_is_even_for_huge_bounds),
        cmocka_unit_test(between_includes_both_ends),
        cmocka_unit_test(chance_is_in_per_mille),
        cmocka_unit_test(fill_writes_all_bytes_and_none_beyond),
        cmocka_unit_test(drawing_below_zero_aborts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
