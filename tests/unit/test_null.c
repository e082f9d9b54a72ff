/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/unit.h"
#include "tests/unit/bare_node.h"

static struct ash_loop *loop;
static const char *const drivers[] = {"null-co", "null-aio"};

static int set_up(void **state)
{
    (void)state;
    int ret = ash_loop_new(NULL, &loop, NULL);
    return ret < 0 ? ret : ash_loop_bind(loop);
}

static int tear_down(void **state)
{
    (void)state;
    ash_loop_free(loop);
    return 0;
}

CO_TEST(size_is_one_gib_unless_told)
{
    for (size_t i = 0; i < ASH_ARRAY_SIZE(drivers); i++) {
        struct bare bare;
        assert_int_equal(bare_open(&bare, loop, drivers[i], json_object(), ASH_NODE_WRITE), 0);
        assert_int_equal(bare.node.size_bytes, 1 * GiB);
        bare_close(&bare);
        json_t *options = json_pack("{s:s}", "size", "64k");
        assert_int_equal(bare_open(&bare, loop, drivers[i], options, 0), 0);
        assert_int_equal(bare.node.size_bytes, 64 * KiB);
        bare_close(&bare);
    }
}

CO_TEST(reads_leave_the_buffer_alone)
{
    for (size_t i = 0; i < ASH_ARRAY_SIZE(drivers); i++) {
        struct bare bare;
        uint8_t buffer[512];
        memset(buffer, 0x5a, sizeof(buffer));
        assert_int_equal(bare_open(&bare, loop, drivers[i], json_object(), 0), 0);
        assert_int_equal(bare_io(&bare, ASH_READ, 0, buffer, sizeof(buffer), 0), 0);
        assert_int_equal(buffer[0], 0x5a);
        assert_int_equal(buffer[511], 0x5a);
        assert_int_equal(bare_status(&bare, 0, 512, ASH_IO_STATUS_ZEROES).flags & 3,
                         ASH_STATUS_DATA);
        bare_close(&bare);
    }
}

CO_TEST(read_zeroes_fills_the_buffer)
{
    for (size_t i = 0; i < ASH_ARRAY_SIZE(drivers); i++) {
        struct bare bare;
        uint8_t buffer[512];
        memset(buffer, 0x5a, sizeof(buffer));
        json_t *options = json_pack("{s:b}", "read-zeroes", 1);
        assert_int_equal(bare_open(&bare, loop, drivers[i], options, 0), 0);
        assert_int_equal(bare_io(&bare, ASH_READ, 0, buffer, sizeof(buffer), 0), 0);
        assert_true(ash_buffer_is_zero(buffer, sizeof(buffer)));
        assert_int_equal(bare_status(&bare, 0, 512, 0).flags & 3, ASH_STATUS_ZERO);
        bare_close(&bare);
    }
}

CO_TEST(everything_but_reading_succeeds_and_does_nothing)
{
    for (size_t i = 0; i < ASH_ARRAY_SIZE(drivers); i++) {
        struct bare bare;
        uint8_t buffer[512] = {0};
        assert_int_equal(bare_open(&bare, loop, drivers[i], json_object(), ASH_NODE_WRITE), 0);
        assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, sizeof(buffer), ASH_REQ_FUA), 0);
        assert_int_equal(bare_io(&bare, ASH_ZERO, 0, NULL, 4096, 0), 0);
        assert_int_equal(bare_io(&bare, ASH_DISCARD, 0, NULL, 4096, 0), 0);
        assert_int_equal(bare_io(&bare, ASH_FLUSH, 0, NULL, 0, 0), 0);
        assert_int_equal(bare.node.driver->allocated_bytes(&bare.node), 0);
        bare_close(&bare);
    }
}

static unsigned turns;

static void count_turn(void *opaque)
{
    (void)opaque;
    turns++;
}

CO_TEST(null_co_answers_at_once_and_null_aio_by_way_of_the_loop)
{
    for (size_t i = 0; i < ASH_ARRAY_SIZE(drivers); i++) {
        struct bare bare;
        uint8_t buffer[512];
        turns = 0;
        assert_int_equal(bare_open(&bare, loop, drivers[i], json_object(), 0), 0);
        assert_int_equal(ash_co_spawn(&loop->sched, count_turn, NULL), 0);
        assert_int_equal(bare_io(&bare, ASH_READ, 0, buffer, sizeof(buffer), 0), 0);
        assert_int_equal(turns, i);
        ash_co_reschedule();
        bare_close(&bare);
    }
}

CO_TEST(latency_is_kept)
{
    for (size_t i = 0; i < ASH_ARRAY_SIZE(drivers); i++) {
        struct bare bare;
        uint8_t buffer[512];
        json_t *options = json_pack("{s:i}", "latency-ns", 2000000);
        assert_int_equal(bare_open(&bare, loop, drivers[i], options, ASH_NODE_WRITE), 0);
        uint64_t start = ash_loop_now(loop);
        assert_int_equal(bare_io(&bare, ASH_READ, 0, buffer, sizeof(buffer), 0), 0);
        assert_int_equal(bare_io(&bare, ASH_FLUSH, 0, NULL, 0, 0), 0);
        assert_true(ash_loop_now(loop) - start >= 4000000);
        bare_close(&bare);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(size_is_one_gib_unless_told),
        cmocka_unit_test(reads_leave_the_buffer_alone),
        cmocka_unit_test(read_zeroes_fills_the_buffer),
        cmocka_unit_test(everything_but_reading_succeeds_and_does_nothing),
        cmocka_unit_test(null_co_answers_at_once_and_null_aio_by_way_of_the_loop),
        cmocka_unit_test(latency_is_kept),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
