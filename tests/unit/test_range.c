/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Byte ranges and alignment, against the plain definition on small numbers and at the far end. */
#include "tests/unit/unit.h"

#include "util/range.h"

#define SMALL 9

static bool has(uint64_t offset, uint64_t bytes, uint64_t byte)
{
    return byte >= offset && byte < offset + bytes;
}

static void a_range_is_valid_up_to_63_bits(void **state)
{
    (void)state;
    assert_true(ash_range_valid(0, 0));
    assert_true(ash_range_valid(0, INT64_MAX));
    assert_true(ash_range_valid(INT64_MAX, 0));
    assert_true(ash_range_valid(INT64_MAX - 1, 1));
    assert_false(ash_range_valid(INT64_MAX, 1));
    assert_false(ash_range_valid(0, (uint64_t)INT64_MAX + 1));
    assert_false(ash_range_valid((uint64_t)INT64_MAX + 1, 0));
    assert_false(ash_range_valid(UINT64_MAX, 1));
    assert_false(ash_range_valid(1, UINT64_MAX));
    assert_false(ash_range_valid(UINT64_MAX, UINT64_MAX));
}

static void ranges_overlap_when_they_share_a_byte(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < (uint64_t)SMALL * SMALL * SMALL * SMALL; i++) {
        uint64_t a = i % SMALL, a_bytes = i / SMALL % SMALL;
        uint64_t b = i / SMALL / SMALL % SMALL, b_bytes = i / SMALL / SMALL / SMALL;
        bool shared = false, inside = true;
        for (uint64_t byte = 0; byte < 2 * SMALL; byte++) {
            shared |= has(a, a_bytes, byte) && has(b, b_bytes, byte);
            inside &= !has(a, a_bytes, byte) || has(b, b_bytes, byte);
        }
        assert_int_equal(ash_range_overlap(a, a_bytes, b, b_bytes), shared);
        /* An empty range is inside where its place is, the end included. */
        inside = a_bytes > 0 ? inside : a >= b && a <= b + b_bytes;
        assert_int_equal(ash_range_inside(a, a_bytes, b, b_bytes), inside);
    }
}

static void inside_does_not_overflow_on_untrusted_numbers(void **state)
{
    (void)state;
    assert_false(ash_range_inside(1, UINT64_MAX, 0, 10));
    assert_false(ash_range_inside(UINT64_MAX, 1, 0, 10));
    assert_false(ash_range_inside(5, UINT64_MAX - 2, 0, 10));
    assert_true(ash_range_inside(0, INT64_MAX, 0, INT64_MAX));
}

static void ranges_at_the_far_end_overlap_correctly(void **state)
{
    (void)state;
    assert_true(ash_range_overlap(INT64_MAX - 1, 1, 0, INT64_MAX));
    assert_false(ash_range_overlap(INT64_MAX - 1, 1, 0, INT64_MAX - 1));
}

static void alignment_is_as_division_says(void **state)
{
    (void)state;
    for (uint64_t x = 0; x < 100; x++) {
        for (uint64_t unit = 1; unit <= 64; unit *= 2) {
            assert_int_equal(ash_align_down(x, unit), x / unit * unit);
            assert_int_equal(ash_align_up(x, unit), (x + unit - 1) / unit * unit);
            assert_int_equal(ash_is_aligned(x, unit), x % unit == 0);
        }
        for (uint64_t unit = 1; unit < 20; unit++) {
            assert_int_equal(ash_div_round_up(x, unit), (x + unit - 1) / unit);
        }
    }
    assert_true(ash_div_round_up(UINT64_MAX, 2) == UINT64_C(1) << 63);
    assert_true(ash_align_up((uint64_t)INT64_MAX, 4096) == UINT64_C(1) << 63);
    assert_true(ash_align_down(UINT64_MAX, UINT64_C(1) << 63) == UINT64_C(1) << 63);
}

static void powers_of_2_are_known_with_their_exponents(void **state)
{
    (void)state;
    assert_false(ash_is_power_of_2(0));
    assert_false(ash_is_power_of_2(UINT64_MAX));
    for (unsigned i = 0; i < 64; i++) {
        assert_true(ash_is_power_of_2(UINT64_C(1) << i));
        assert_int_equal(ash_log2(UINT64_C(1) << i), i);
        assert_int_equal(ash_is_power_of_2((UINT64_C(1) << i) + 1), i == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_range_is_valid_up_to_63_bits),
        cmocka_unit_test(ranges_overlap_when_they_share_a_byte),
        cmocka_unit_test(inside_does_not_overflow_on_untrusted_numbers),
        cmocka_unit_test(ranges_at_the_far_end_overlap_correctly),
        cmocka_unit_test(alignment_is_as_division_says),
        cmocka_unit_test(powers_of_2_are_known_with_their_exponents),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
