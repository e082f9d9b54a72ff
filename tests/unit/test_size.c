/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes as people write and read them; what is expected here is what qemu-img 7.2 does. */
#include "tests/unit/unit.h"

#include <errno.h>
#include "util/compiler.h"
#include "util/size.h"

static void assert_size(const char *text, uint64_t expected)
{
    uint64_t bytes = 1234567;
    int ret = ash_size_parse(text, 1, &bytes);

    if (ret != 0 || bytes != expected) {
        print_error("'%s': %d, %llu\n", text, ret, (unsigned long long)bytes);
    }
    assert_int_equal(ret, 0);
    assert_true(bytes == expected);
}

static void assert_not_size(const char *text, int error)
{
    uint64_t bytes = 1234567;
    int ret = ash_size_parse(text, 1, &bytes);

    if (ret != error) {
        print_error("'%s': %d, %llu\n", text, ret, (unsigned long long)bytes);
    }
    assert_int_equal(ret, error);
    assert_true(bytes == 1234567);
}

static void plain_numbers_are_bytes(void **state)
{
    (void)state;
    assert_size("0", 0);
    assert_size("4096", 4096);
    assert_size("010", 10);
    assert_size(" 7", 7);
    assert_size("+7", 7);
}

static void suffixes_are_powers_of_1024_in_either_case(void **state)
{
    const char *const upper = "BKMGTPE", *const lower = "bkmgtpe";

    (void)state;
    for (unsigned i = 0; i < 7; i++) {
        char text[] = {'3', upper[i], '\0'};
        assert_size(text, UINT64_C(3) << (10 * i));
        text[1] = lower[i];
        assert_size(text, UINT64_C(3) << (10 * i));
    }
}

static void fractions_are_rounded_to_the_nearest_byte(void **state)
{
    (void)state;
    assert_size("1.5G", 3 * GiB / 2);
    assert_size("1.1M", 1153434);
    assert_size("1.0009765625k", 1025);
    assert_size("1.0001k", 1024);
    assert_size("0.00048828124k", 0);
    assert_size("0.00048828125k", 1);
    assert_size("1.k", 1024);
    assert_size("1.0", 1);
    assert_size("1.0000000000000000000000000000000000000000k", 1024);
}

static void a_fraction_of_bytes_is_refused(void **state)
{
    (void)state;
    assert_not_size("1.5", -EINVAL);
    assert_not_size("1.5b", -EINVAL);
    assert_not_size("0.001", -EINVAL);
}

static void hexadecimal_numbers_are_accepted(void **state)
{
    (void)state;
    assert_size("0x1000", 4096);
    assert_size("0XfF", 255);
    assert_size("0x1e", 30);
    assert_size("0x1b", 27);
    assert_size("0x1M", MiB);
}

static void what_is_not_a_size_is_refused(void **state)
{
    static const char *const texts[] = {"",      "k",  " ",   "-1",     "1kb", "1KiB", "1e3",
                                        ".5G",   "0x", "x10", "0x1.8k", "1k ", "1 k",  "1,5k",
                                        "1..5k", "+",  "+-1", "--1",    "inf", "nan",  "99z"};

    (void)state;
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(texts); i++) {
        assert_not_size(texts[i], -EINVAL);
    }
}

static void sizes_end_at_63_bits(void **state)
{
    (void)state;
    assert_size("9223372036854775807", INT64_MAX);
    assert_size("0x7fffffffffffffff", INT64_MAX);
    assert_size("7E", UINT64_C(7) << 60);
    assert_not_size("9223372036854775808", -ERANGE);
    assert_not_size("18446744073709551616", -ERANGE);
    assert_not_size("99999999999999999999999999", -ERANGE);
    assert_not_size("0x10000000000000000", -ERANGE);
    assert_not_size("8E", -ERANGE);
    assert_not_size("18446744073709551615E", -ERANGE);
}

static void the_default_unit_counts_only_without_a_suffix(void **state)
{
    uint64_t bytes;

    (void)state;
    assert_int_equal(ash_size_parse("2", MiB, &bytes), 0);
    assert_int_equal(bytes, 2 * MiB);
    assert_int_equal(ash_size_parse("1.5", MiB, &bytes), 0);
    assert_int_equal(bytes, 3 * MiB / 2);
    assert_int_equal(ash_size_parse("2b", MiB, &bytes), 0);
    assert_int_equal(bytes, 2);
    assert_int_equal(ash_size_parse("2k", MiB, &bytes), 0);
    assert_int_equal(bytes, 2048);
}

static void sizes_are_shown_with_three_digits(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},
        {512, "512 B"},
        {999, "999 B"},
        {1000, "0.977 KiB"},
        {1024, "1 KiB"},
        {1000448, "977 KiB"},
        {1022976, "999 KiB"},
        {1024000, "0.977 MiB"},
        {1536000, "1.46 MiB"},
        {196 * 1024, "196 KiB"},
        {3 * GiB / 2, "1.5 GiB"},
        {UINT64_C(123456789504), "115 GiB"},
        {TiB, "1 TiB"},
        {UINT64_C(5000000000000), "4.55 TiB"},
        {INT64_MAX, "8 EiB"},
        {UINT64_MAX, "16 EiB"},
    };
    char text[32];

    (void)state;
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(cases); i++) {
        ash_size_human(cases[i].bytes, text, sizeof(text));
        assert_string_equal(text, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_numbers_are_bytes),
        cmocka_unit_test(suffixes_are_powers_of_1024_in_either_case),
        cmocka_unit_test(fractions_are_rounded_to_the_nearest_byte),
        cmocka_unit_test(a_fraction_of_bytes_is_refused),
        cmocka_unit_test(hexadecimal_numbers_are_accepted),
        cmocka_unit_test(what_is_not_a_size_is_refused),
        cmocka_unit_test(sizes_end_at_63_bits),
        cmocka_unit_test(the_default_unit_counts_only_without_a_suffix),
        cmocka_unit_test(sizes_are_shown_with_three_digits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
