/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When it pays to spin: the policy alone, fed with gaps. */
#include "tests/unit/unit.h"
#include "util/engine/spin.h"

#define US 1000ull

struct spin_case {
    struct ash_spin spin;
    uint64_t spun_ns;
    uint32_t sleeps;
};

static struct spin_case new_case(uint64_t busy_poll_ns)
{
    struct spin_case result = {.spun_ns = 0};

    ash_spin_init(&result.spin, busy_poll_ns);
    ash_spin_begin(&result.spin, &(struct ash_aio){.op = ASH_AIO_READ});
    return result;
}

/* `count` waits whose completion comes after `gap_ns` if spun for, `slept_ns` if slept for. */
static void feed(struct spin_case *test, uint32_t count, uint64_t gap_ns, uint64_t slept_ns)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t budget_ns = ash_spin_budget(&test->spin);
        assert_true(budget_ns <= test->spin.bound_ns);
        test->spun_ns += ASH_MIN(budget_ns, gap_ns);
        test->sleeps += budget_ns < gap_ns;
        ash_spin_learn(&test->spin, budget_ns < gap_ns ? budget_ns + slept_ns : gap_ns);
    }
}

static void fast_disk_is_spun_for(void **state)
{
    struct spin_case test = new_case(UINT64_MAX);

    (void)state;
    feed(&test, 1000, 5 * US, 60 * US);
    assert_true(test.sleeps < 10);
}

static void slow_disk_is_slept_for(void **state)
{
    struct spin_case test = new_case(UINT64_MAX);

    (void)state;
    feed(&test, 1000, 90 * US, 100 * US);
    assert_true(test.sleeps == 1000);
    assert_true(test.spun_ns / 1000 < 50 * US / 16);
}

static void disk_that_becomes_fast_is_noticed_though_waking_is_slow(void **state)
{
    struct spin_case test = new_case(UINT64_MAX);

    (void)state;
    feed(&test, 1000, 90 * US, 100 * US);
    test.sleeps = 0;
    feed(&test, 1000, 4 * US, 100 * US);
    assert_true(test.sleeps < 60);
}

static void bound_of_the_user_is_kept(void **state)
{
    struct spin_case never = new_case(0), always = new_case(7 * US);

    (void)state;
    feed(&never, 100, 5 * US, 60 * US);
    assert_int_equal(never.spun_ns, 0);
    feed(&always, 100, 500 * US, 600 * US);
    assert_int_equal(always.spun_ns, 100 * 7 * US);
}

static void nothing_is_spun_for_without_transfers(void **state)
{
    struct spin_case test = new_case(UINT64_MAX);

    (void)state;
    ash_spin_end(&test.spin, &(struct ash_aio){.op = ASH_AIO_READ});
    ash_spin_begin(&test.spin, &(struct ash_aio){.op = ASH_AIO_FLUSH});
    assert_int_equal(ash_spin_budget(&test.spin), 0);
}

/* What a wait learns from is told by `finished`. */
static void only_reads_and_writes_teach(void **state)
{
    struct spin_case test = new_case(UINT64_MAX);
    static const enum ash_aio_op others[] = {ASH_AIO_POLL, ASH_AIO_FLUSH, ASH_AIO_WORK};

    (void)state;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(others); i++) {
        struct ash_aio aio = {.op = (uint8_t)others[i]};
        ash_spin_begin(&test.spin, &aio);
        ash_spin_end(&test.spin, &aio);
        assert_int_equal(test.spin.finished, 0);
        assert_int_equal(test.spin.transfers, 1);
    }
    ash_spin_end(&test.spin, &(struct ash_aio){.op = ASH_AIO_WRITE});
    assert_int_equal(test.spin.finished, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fast_disk_is_spun_for),
        cmocka_unit_test(slow_disk_is_slept_for),
        cmocka_unit_test(disk_that_becomes_fast_is_noticed_though_waking_is_slow),
        cmocka_unit_test(bound_of_the_user_is_kept),
        cmocka_unit_test(nothing_is_spun_for_without_transfers),
        cmocka_unit_test(only_reads_and_writes_teach),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
