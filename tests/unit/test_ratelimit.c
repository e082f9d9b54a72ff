/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Limits on bytes and operations a second, as arithmetic on times. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "util/prng.h"
#include "util/ratelimit.h"

#define SECOND UINT64_C(1000000000)

static struct ash_ratelimit_config config_of(int kind, uint64_t average, uint64_t max,
                                             uint64_t length)
{
    struct ash_ratelimit_config config = {.iops_size_bytes = 0};
    for (int i = 0; i < ASH_RATELIMIT_KINDS; i++) {
        config.limit[i].length = 1;
    }
    config.limit[kind].average = average;
    config.limit[kind].max = max;
    config.limit[kind].length = length;
    return config;
}

/* Sends requests as soon as they may start, until `end_ns`; what passed, in bytes. */
static uint64_t greedy(struct ash_ratelimit *limit, bool write, uint64_t bytes, uint64_t begin_ns,
                       uint64_t end_ns)
{
    uint64_t passed = 0;
    uint64_t now_ns = begin_ns;
    for (;;) {
        uint64_t due_ns = ash_ratelimit_due_ns(limit, write);
        now_ns = due_ns > now_ns ? due_ns : now_ns;
        if (now_ns >= end_ns) {
            return passed;
        }
        ash_ratelimit_charge(limit, write, bytes, now_ns);
        passed += bytes;
    }
}

static void a_greedy_load_gets_the_average(void **state)
{
    (void)state;
    static const uint64_t rates[] = {1, 7, 1000, 333333, 123456789, 10000000000};
    for (size_t i = 0; i < ASH_ARRAY_SIZE(rates); i++) {
        struct ash_ratelimit_config config = config_of(ASH_RATELIMIT_BPS_TOTAL, rates[i], 0, 1);
        struct ash_ratelimit limit;
        assert_int_equal(ash_ratelimit_check(&config, NULL), 0);
        ash_ratelimit_init(&limit, &config);
        uint64_t bytes = rates[i] < 100 ? 1 : rates[i] / 97;
        uint64_t passed = greedy(&limit, true, bytes, 5 * SECOND, 1005 * SECOND);
        uint64_t most = rates[i] * 1000 + rates[i] / 10 + bytes;
        assert_true(passed <= most);
        assert_true(passed + 2 * bytes >= rates[i] * 1000);
    }
}

/* Over any time: the brim, the average, and one request. */
static void no_stretch_of_time_lets_more_pass(void **state)
{
    (void)state;
    const char *only = getenv("SEED");
    uint64_t begin = only != NULL ? strtoull(only, NULL, 10) : 0;
    for (uint64_t seed = begin; seed < (only != NULL ? begin + 1 : 50); seed++) {
        struct ash_prng prng;
        ash_prng_seed(&prng, seed);
        uint64_t average = ash_prng_between(&prng, 1000, 1000000);
        uint64_t max = ash_prng_chance(&prng, 500) ? average * ash_prng_between(&prng, 1, 20) : 0;
        uint64_t length = max != 0 ? ash_prng_between(&prng, 1, 5) : 1;
        struct ash_ratelimit_config config =
            config_of(ASH_RATELIMIT_BPS_TOTAL, average, max, length);
        struct ash_ratelimit limit;
        ash_ratelimit_init(&limit, &config);
        uint64_t brim = max != 0 ? max * length : average / 10 + 1;
        uint64_t times[400];
        uint64_t sizes[400];
        uint64_t now_ns = SECOND;
        for (unsigned i = 0; i < 400; i++) {
            now_ns += ash_prng_chance(&prng, 700) ? 0 : ash_prng_below(&prng, SECOND);
            bool write = ash_prng_chance(&prng, 500);
            uint64_t due_ns = ash_ratelimit_due_ns(&limit, write);
            now_ns = due_ns > now_ns ? due_ns : now_ns;
            times[i] = now_ns;
            sizes[i] = ash_prng_between(&prng, 1, average);
            ash_ratelimit_charge(&limit, write, sizes[i], now_ns);
        }
        for (unsigned first = 0; first < 400; first++) {
            uint64_t passed = 0;
            for (unsigned last = first; last < 400; last++) {
                double seconds = (double)(times[last] - times[first]) / 1e9;
                double most = (double)brim + (double)average * seconds + 1;
                if ((double)passed > most) { /* the last request not counted */
                    print_message("SEED=%lu before the command repeats it\n", (unsigned long)seed);
                }
                assert_true((double)passed <= most);
                passed += sizes[last];
            }
        }
    }
}

static void a_burst_has_its_height_and_its_length(void **state)
{
    (void)state;
    struct ash_ratelimit_config config = config_of(ASH_RATELIMIT_IOPS_TOTAL, 100, 2000, 3);
    struct ash_ratelimit limit;
    assert_int_equal(ash_ratelimit_check(&config, NULL), 0);
    ash_ratelimit_init(&limit, &config);
    uint64_t first = greedy(&limit, false, 1, 100 * SECOND, 101 * SECOND);
    assert_true(first >= 2000 && first <= 2201); /* the height, and its own tenth of a second */
    uint64_t second = greedy(&limit, false, 1, 101 * SECOND, 103 * SECOND);
    assert_true(second >= 3900 && second <= 4001);
    greedy(&limit, false, 1, 103 * SECOND, 110 * SECOND); /* what was left of it */
    uint64_t later = greedy(&limit, false, 1, 110 * SECOND, 120 * SECOND);
    assert_true(later >= 999 && later <= 1001);
    uint64_t rested = greedy(&limit, false, 1, 1000 * SECOND, 1001 * SECOND);
    assert_true(rested >= 2000 && rested <= 2201);
}

static void a_maximum_without_length_passes_at_once(void **state)
{
    (void)state;
    struct ash_ratelimit_config config = config_of(ASH_RATELIMIT_IOPS_TOTAL, 10, 500, 1);
    struct ash_ratelimit limit;
    ash_ratelimit_init(&limit, &config);
    assert_int_equal(greedy(&limit, false, 1, 9 * SECOND, 9 * SECOND + 1), 501);
    assert_int_equal(greedy(&limit, false, 1, 9 * SECOND + 1, 19 * SECOND + 1), 100);
}

static void reads_and_writes_have_limits_of_their_own(void **state)
{
    (void)state;
    struct ash_ratelimit_config config = config_of(ASH_RATELIMIT_BPS_READ, 1000, 0, 1);
    struct ash_ratelimit limit;
    config.limit[ASH_RATELIMIT_IOPS_WRITE].average = 5;
    assert_int_equal(ash_ratelimit_check(&config, NULL), 0);
    ash_ratelimit_init(&limit, &config);
    uint64_t reads = greedy(&limit, false, 10, SECOND, 101 * SECOND);
    uint64_t writes = greedy(&limit, true, 1000000, SECOND, 101 * SECOND);
    assert_true(reads >= 100000 && reads <= 100120);
    assert_true(writes >= 500 * UINT64_C(1000000) && writes <= 502 * UINT64_C(1000000));
}

static void a_long_request_can_count_as_several(void **state)
{
    (void)state;
    struct ash_ratelimit_config config = config_of(ASH_RATELIMIT_IOPS_TOTAL, 100, 0, 1);
    struct ash_ratelimit limit;
    config.iops_size_bytes = 4096;
    ash_ratelimit_init(&limit, &config);
    uint64_t passed = greedy(&limit, true, 10000, SECOND, 301 * SECOND) / 10000;
    assert_true(passed >= 10000 && passed <= 10005);
}

static void limits_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_ratelimit_config config = config_of(ASH_RATELIMIT_BPS_TOTAL, 100, 50, 1);
    assert_int_equal(ash_ratelimit_check(&config, &error), -EINVAL);
    assert_non_null(strstr(error.message, "'bps-total-max'"));
    config = config_of(ASH_RATELIMIT_BPS_TOTAL, 0, 50, 1);
    assert_int_equal(ash_ratelimit_check(&config, NULL), -EINVAL);
    config = config_of(ASH_RATELIMIT_BPS_TOTAL, 100, 0, 2);
    assert_int_equal(ash_ratelimit_check(&config, NULL), -EINVAL);
    config = config_of(ASH_RATELIMIT_BPS_TOTAL, 100, 200, 0);
    assert_int_equal(ash_ratelimit_check(&config, NULL), -EINVAL);
    config = config_of(ASH_RATELIMIT_BPS_TOTAL, 100, 200, UINT64_MAX / 100);
    assert_int_equal(ash_ratelimit_check(&config, NULL), -EINVAL);
    config = config_of(ASH_RATELIMIT_BPS_TOTAL, UINT64_MAX, 0, 1);
    assert_int_equal(ash_ratelimit_check(&config, NULL), -EINVAL);
    config = config_of(ASH_RATELIMIT_BPS_TOTAL, 100, 200, 1);
    assert_int_equal(ash_ratelimit_check(&config, NULL), 0);
    config.limit[ASH_RATELIMIT_BPS_WRITE].average = 10;
    assert_int_equal(ash_ratelimit_check(&config, &error), -EINVAL);
    assert_non_null(strstr(error.message, "'bps-write'"));
}

static void what_has_no_limit_never_waits(void **state)
{
    (void)state;
    struct ash_ratelimit_config config = config_of(ASH_RATELIMIT_BPS_TOTAL, 0, 0, 1);
    struct ash_ratelimit limit;
    ash_ratelimit_init(&limit, &config);
    assert_false(ash_ratelimit_active(&limit));
    for (unsigned i = 0; i < 1000; i++) {
        ash_ratelimit_charge(&limit, true, UINT64_C(1) << 40, SECOND);
        assert_int_equal(ash_ratelimit_due_ns(&limit, true), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_greedy_load_gets_the_average),
        cmocka_unit_test(no_stretch_of_time_lets_more_pass),
        cmocka_unit_test(a_burst_has_its_height_and_its_length),
        cmocka_unit_test(a_maximum_without_length_passes_at_once),
        cmocka_unit_test(reads_and_writes_have_limits_of_their_own),
        cmocka_unit_test(a_long_request_can_count_as_several),
        cmocka_unit_test(limits_that_make_no_sense_are_refused),
        cmocka_unit_test(what_has_no_limit_never_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
