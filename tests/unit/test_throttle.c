/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The throttle filter, on the simulator's clock: rates, sharing, and that nobody who pauses waits
 * for it. */
#include "tests/unit/unit.h"
#include "tests/unit/core_rig.h"

#define SECOND UINT64_C(1000000000)

ASH_CO_FN static struct ash_disk *open_disk(struct core *core, const char *text)
{
    return core_open_text(core, text, ASH_NODE_WRITE | ASH_NODE_DISCARD);
}

static int open_error(struct core *core, const char *text, const char *part)
{
    struct ash_disk *disk;
    struct ash_error error = ASH_ERROR_INIT;
    json_t *description = json_loads(text, 0, NULL);
    ash_co_assert_inside();
    assert_non_null(description);
    int ret = ash_co_disk_open(core->loop, description, ASH_NODE_WRITE, &disk, &error);
    json_decref(description);
    assert_non_null(strstr(error.message, part));
    return ret;
}

#define MEM "\"file\":{\"driver\":\"test-mem\"}"

/* A guest that sends requests one after another until the clock says so. */
struct guest {
    struct ash_disk *disk;
    uint64_t bytes;
    bool write;
    uint64_t end_ns;
    uint64_t done;
};

ASH_CO_FN static void guest(struct core *core, void *opaque)
{
    struct guest *guest = opaque;
    static uint8_t buffer[65536]; /* as large as a coroutine's stack */
    while (ash_loop_now(core->loop) < guest->end_ns) {
        int ret = guest->write ? ash_disk_write(guest->disk, 0, buffer, guest->bytes, 0)
                               : ash_disk_read(guest->disk, 0, buffer, guest->bytes);
        assert_int_equal(ret, 0);
        guest->done++;
    }
}

CORE_TEST(a_limit_on_bytes_is_kept)
{
    (void)opaque;
    struct ash_disk *disk =
        open_disk(core, "{\"driver\":\"throttle\",\"limits.bps-total\":1000000," MEM "}");
    struct guest load = {disk, 10000, true, ash_loop_now(core->loop) + 20 * SECOND, 0};
    guest(core, &load);
    assert_in_range(load.done, 2000, 2011);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(reads_are_not_held_to_the_limit_of_writes)
{
    (void)opaque;
    uint8_t buffer[512];
    struct ash_disk *disk =
        open_disk(core, "{\"driver\":\"throttle\",\"limits\":{\"iops-write\":1}," MEM "}");
    uint64_t begin_ns = ash_loop_now(core->loop);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(ash_disk_read(disk, 0, buffer, 512), 0);
        assert_int_equal(ash_disk_flush(disk), 0);
    }
    assert_true(ash_loop_now(core->loop) - begin_ns < SECOND);
    assert_int_equal(ash_disk_write(disk, 0, buffer, 512, 0), 0);
    assert_int_equal(ash_disk_zero(disk, 0, 512, 0), 0);
    assert_int_equal(ash_disk_discard(disk, 0, 512), 0);
    uint64_t took_ns = ash_loop_now(core->loop) - begin_ns;
    assert_in_range(took_ns, SECOND + 9 * SECOND / 10, 2 * SECOND);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

#define GROUP(limits) "{\"driver\":\"throttle\",\"throttle-group\":\"g\"" limits "," MEM "}"

/* One member has 16 guests, the other one: each gets half, and so do reads and writes. */
CORE_TEST(members_of_a_group_share_fairly)
{
    (void)opaque;
    struct ash_disk *busy = open_disk(core, GROUP(",\"limits.iops-total\":100"));
    struct ash_disk *quiet = open_disk(core, GROUP(""));
    uint64_t end_ns = ash_loop_now(core->loop) + 20 * SECOND;
    struct guest crowd[16];
    struct guest alone = {quiet, 512, true, end_ns, 0};
    for (unsigned i = 0; i < 16; i++) {
        crowd[i] = (struct guest){busy, 512, true, end_ns, 0};
        core_spawn(core, guest, &crowd[i]);
    }
    core_spawn(core, guest, &alone);
    core_join(core);
    uint64_t together = 0;
    for (unsigned i = 0; i < 16; i++) {
        together += crowd[i].done;
        /* None of them starves; who comes first has the burst, of 11. */
        assert_in_range(crowd[i].done, 60, 77);
    }
    assert_in_range(together + alone.done, 2000, 2030);
    assert_in_range(alone.done, 985, 1015);
    assert_int_equal(ash_co_disk_close(busy, NULL), 0);
    assert_int_equal(ash_co_disk_close(quiet, NULL), 0);
}

CORE_TEST(reads_take_turns_with_writes)
{
    (void)opaque;
    struct ash_disk *disk =
        open_disk(core, "{\"driver\":\"throttle\",\"limits.iops-total\":100," MEM "}");
    uint64_t end_ns = ash_loop_now(core->loop) + 20 * SECOND;
    struct guest writers[8];
    struct guest reader = {disk, 512, false, end_ns, 0};
    for (unsigned i = 0; i < 8; i++) {
        writers[i] = (struct guest){disk, 512, true, end_ns, 0};
        core_spawn(core, guest, &writers[i]);
    }
    core_spawn(core, guest, &reader);
    core_join(core);
    assert_in_range(reader.done, 985, 1015);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(other_groups_do_not_share)
{
    (void)opaque;
    struct ash_disk *one = open_disk(core, "{\"driver\":\"throttle\",\"throttle-group\":\"a\","
                                           "\"limits.iops-total\":100," MEM "}");
    struct ash_disk *two = open_disk(core, "{\"driver\":\"throttle\",\"throttle-group\":\"b\","
                                           "\"limits.iops-total\":100," MEM "}");
    uint64_t end_ns = ash_loop_now(core->loop) + 10 * SECOND;
    struct guest first = {one, 512, true, end_ns, 0};
    struct guest second = {two, 512, true, end_ns, 0};
    core_spawn(core, guest, &first);
    core_spawn(core, guest, &second);
    core_join(core);
    assert_in_range(first.done, 1000, 1012);
    assert_in_range(second.done, 1000, 1012);
    assert_int_equal(ash_co_disk_close(one, NULL), 0);
    assert_int_equal(ash_co_disk_close(two, NULL), 0);
}

/* Pauses. One write an hour: the second one waits. */

struct one_write {
    struct ash_disk *disk;
    bool done;
};

ASH_CO_FN static void write_once(struct core *core, void *opaque)
{
    struct one_write *write = opaque;
    (void)core;
    assert_int_equal(ash_disk_write(write->disk, 0, "x", 1, 0), 0);
    write->done = true;
}

#define HOURLY ",\"limits.bps-total\":1"

ASH_CO_FN static void fill_up(struct ash_disk *disk)
{
    uint8_t buffer[3600] = {0};
    assert_int_equal(ash_disk_write(disk, 0, buffer, sizeof(buffer), 0), 0);
}

CORE_TEST(a_pause_does_not_wait_for_a_limit)
{
    (void)opaque;
    struct ash_disk *disk = open_disk(core, GROUP(HOURLY));
    struct ash_disk *other = open_disk(core, GROUP(""));
    struct one_write mine = {disk, false};
    struct one_write others = {other, false};
    fill_up(disk);
    core_spawn(core, write_once, &mine);
    core_spawn(core, write_once, &others);
    ash_co_sleep(SECOND);
    assert_false(mine.done);
    assert_false(others.done);
    assert_int_equal(ash_disk_pause(disk, ash_loop_now(core->loop) + SECOND), 0);
    assert_true(mine.done);
    ash_disk_resume(disk);
    ash_co_sleep(SECOND);
    assert_false(others.done); /* nobody paused it */
    assert_int_equal(ash_disk_pause(other, ash_loop_now(core->loop) + SECOND), 0);
    assert_true(others.done);
    ash_disk_resume(other);
    assert_int_equal(ash_co_disk_close(other, NULL), 0);
    /* What was let go is paid for. */
    uint64_t begin_ns = ash_loop_now(core->loop);
    write_once(core, &mine);
    assert_true(ash_loop_now(core->loop) - begin_ns > 3500 * SECOND);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(closing_a_disk_does_not_wait_for_a_limit)
{
    (void)opaque;
    struct ash_disk *disk = open_disk(core, GROUP(HOURLY));
    struct one_write write = {disk, false};
    uint64_t begin_ns = ash_loop_now(core->loop);
    fill_up(disk);
    core_spawn(core, write_once, &write);
    ash_co_sleep(1000);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    assert_true(ash_loop_now(core->loop) - begin_ns < SECOND);
    core_join(core);
    assert_true(write.done);
}

/* A request under way sends several requests to the filter below it, while somebody pauses. */
CORE_TEST(a_pause_above_a_format_does_not_wait_for_limits_below_it)
{
    (void)opaque;
    struct ash_disk *disk =
        open_disk(core, "{\"driver\":\"raw\",\"file\":" GROUP(",\"limits.bps-total\":1") "}");
    struct one_write write = {disk, false};
    fill_up(disk);
    core_spawn(core, write_once, &write);
    ash_co_sleep(SECOND);
    assert_false(write.done);
    assert_int_equal(ash_disk_pause(disk, ash_loop_now(core->loop) + SECOND), 0);
    assert_true(write.done);
    ash_disk_resume(disk);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* Options. */

CORE_TEST(limits_are_those_of_the_first_that_names_a_group)
{
    (void)opaque;
    struct ash_disk *first = open_disk(core, GROUP(",\"limits.iops-total\":100"));
    struct ash_disk *same = open_disk(core, GROUP(",\"limits.iops-total\":100"));
    assert_int_equal(open_error(core, GROUP(",\"limits.iops-total\":200"), "'g'"), -EINVAL);
    assert_int_equal(open_error(core, GROUP(",\"limits.iops-total-max\":200"), "'iops-total"),
                     -EINVAL);
    assert_int_equal(open_error(core, GROUP(",\"limits.iops\":1"), "'limits"), -EINVAL);
    assert_int_equal(open_error(core, GROUP(",\"limits\":7"), "'limits'"), -EINVAL);
    assert_int_equal(ash_co_disk_close(first, NULL), 0);
    assert_int_equal(ash_co_disk_close(same, NULL), 0);
    struct ash_disk *anew = open_disk(core, GROUP(",\"limits.iops-total\":200"));
    assert_int_equal(ash_co_disk_close(anew, NULL), 0);
}

/* What passes is what was sent: a model of the bytes, lengths that do not fit blocks, growth. */
CORE_TEST(data_and_lengths_pass_unchanged)
{
    (void)opaque;
    static uint8_t model[80000];
    static uint8_t found[80000];
    struct ash_disk *disk =
        open_disk(core, "{\"driver\":\"throttle\",\"limits.iops-total\":1000000,"
                        "\"file\":{\"driver\":\"test-mem\",\"size\":70000,"
                        "\"request-alignment\":512,\"node-name\":\"mem\"}}");
    memset(model, 0, sizeof(model));
    assert_int_equal(ash_disk_bytes(disk), 70000);
    for (unsigned i = 0; i < 300; i++) {
        uint64_t offset = ash_prng_below(&core->prng, 70000);
        uint64_t bytes = ash_prng_below(&core->prng, 70000 - offset + 1) % 5000;
        uint8_t buffer[5000];
        ash_prng_fill(&core->prng, buffer, bytes);
        if (ash_prng_chance(&core->prng, 300)) {
            memset(buffer, 0, bytes);
            assert_int_equal(ash_disk_zero(disk, offset, bytes, 0), 0);
        } else {
            assert_int_equal(ash_disk_write(disk, offset, buffer, bytes, 0), 0);
        }
        memcpy(model + offset, buffer, bytes);
    }
    assert_int_equal(ash_co_disk_resize(disk, 80000, 0, 0, NULL), 0);
    assert_int_equal(ash_disk_write(disk, 79990, "0123456789", 10, 0), 0);
    memcpy(model + 79990, "0123456789", 10);
    assert_int_equal(ash_disk_bytes(disk), 80000);
    assert_int_equal(ash_node_find(core->loop, "mem")->size_bytes, 80000);
    assert_int_equal(ash_disk_read(disk, 0, found, 80000), 0);
    assert_memory_equal(found, model, 80000);
    assert_int_equal(mem_protocol_of(ash_node_find(core->loop, "mem"))->violations, 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_limit_on_bytes_is_kept),
        cmocka_unit_test(reads_are_not_held_to_the_limit_of_writes),
        cmocka_unit_test(members_of_a_group_share_fairly),
        cmocka_unit_test(reads_take_turns_with_writes),
        cmocka_unit_test(other_groups_do_not_share),
        cmocka_unit_test(a_pause_does_not_wait_for_a_limit),
        cmocka_unit_test(closing_a_disk_does_not_wait_for_a_limit),
        cmocka_unit_test(a_pause_above_a_format_does_not_wait_for_limits_below_it),
        cmocka_unit_test(limits_are_those_of_the_first_that_names_a_group),
        cmocka_unit_test(data_and_lengths_pass_unchanged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
