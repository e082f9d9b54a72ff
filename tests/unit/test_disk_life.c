/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of a disk: pauses and their deadlines, closing, reopening, accounting. */
#include "tests/unit/unit.h"
#include "tests/unit/core_rig.h"

#define MS UINT64_C(1000000)

ASH_CO_FN static struct ash_disk *open_mem_disk(struct core *core, unsigned delay_ns)
{
    struct ash_disk *disk;
    json_t *description =
        json_pack("{s:s, s:i, s:s}", "driver", "test-mem", "delay-ns", delay_ns, "node-name", "m");
    assert_int_equal(ash_co_disk_open(core->loop, description, ASH_NODE_WRITE, &disk, NULL), 0);
    json_decref(description);
    return disk;
}

/* A request that a test holds up: it waits behind a serialising one. */
struct held {
    struct ash_disk *disk;
    struct ash_request blocker;
    bool done;
    int ret;
};

static void held_write(struct core *core, void *opaque)
{
    struct held *held = opaque;
    (void)core;
    ash_co_assert_inside();
    held->ret = ash_disk_write(held->disk, 0, "held", 4, 0);
    held->done = true;
}

ASH_CO_FN static void hold(struct core *core, struct held *held, struct ash_disk *disk)
{
    *held = (struct held){.disk = disk};
    ash_track_begin(&held->blocker, ash_disk_node(disk), ASH_WRITE, 0, 512, true);
    core_spawn(core, held_write, held);
    while (disk->user.in_flight == 0) {
        ash_co_sleep(100);
    }
}

ASH_CO_FN static void release(struct core *core, struct held *held)
{
    ash_track_end(&held->blocker);
    core_join(core);
    assert_true(held->done);
    assert_int_equal(held->ret, 0);
}

struct other {
    struct ash_disk *disk;
    bool done;
};

static void other_write(struct core *core, void *opaque)
{
    struct other *other = opaque;
    (void)core;
    ash_co_assert_inside();
    assert_int_equal(ash_disk_write(other->disk, 4096, "other", 5, 0), 0);
    other->done = true;
}

CORE_TEST(a_pause_waits_for_what_is_in_flight_and_holds_up_what_comes)
{
    (void)opaque;
    struct ash_disk *disk = open_mem_disk(core, 50000);
    struct other before = {disk, false};
    struct other after = {disk, false};
    core_spawn(core, other_write, &before);
    while (disk->user.in_flight == 0) {
        ash_co_sleep(100);
    }
    assert_int_equal(ash_disk_pause(disk, UINT64_MAX), 0);
    assert_true(before.done);
    core_spawn(core, other_write, &after);
    ash_co_sleep(10 * MS);
    assert_false(after.done);
    assert_int_equal(disk->user.in_flight, 0);
    assert_int_equal(ash_disk_pause(disk, 0), 0); /* nests, and needs no time */
    ash_disk_resume(disk);
    ash_co_sleep(10 * MS);
    assert_false(after.done);
    ash_disk_resume(disk);
    core_join(core);
    assert_true(after.done);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* A request never completes: the pause ends by its deadline and the disk goes on. */
CORE_TEST(a_pause_that_expires_leaves_the_gate_open)
{
    (void)opaque;
    struct ash_disk *disk = open_mem_disk(core, 0);
    struct held held;
    struct other other = {disk, false};
    hold(core, &held, disk);
    uint64_t deadline_ns = ash_loop_now(core->loop) + 20 * MS;
    assert_int_equal(ash_disk_pause(disk, deadline_ns), -ETIMEDOUT);
    uint64_t late_ns = ash_loop_now(core->loop) - deadline_ns;
    assert_true(ash_loop_now(core->loop) >= deadline_ns);
    assert_true(late_ns < 10 * MS || core_is_real());
    assert_int_equal(disk->user.pauses, 0);
    assert_int_equal(ash_disk_pause(disk, 1), -ETIMEDOUT); /* a deadline that has passed */
    other_write(core, &other);
    assert_true(other.done);
    release(core, &held);
    assert_int_equal(ash_disk_pause(disk, ash_loop_now(core->loop) + MS), 0);
    ash_disk_resume(disk);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

struct pauser {
    struct ash_disk *disk;
    uint64_t deadline_ns;
    int ret;
};

static void pause_disk(struct core *core, void *opaque)
{
    struct pauser *pauser = opaque;
    (void)core;
    ash_co_assert_inside();
    pauser->ret = ash_disk_pause(pauser->disk, pauser->deadline_ns);
}

CORE_TEST(pausers_with_other_deadlines_do_not_disturb_one_another)
{
    (void)opaque;
    struct ash_disk *disk = open_mem_disk(core, 0);
    struct held held;
    struct other other = {disk, false};
    hold(core, &held, disk);
    uint64_t now_ns = ash_loop_now(core->loop);
    struct pauser pausers[3] = {
        {disk, now_ns + 5 * MS, 1}, {disk, UINT64_MAX, 1}, {disk, now_ns + 10 * MS, 1}};
    for (int i = 0; i < 3; i++) {
        core_spawn(core, pause_disk, &pausers[i]);
    }
    ash_co_sleep(20 * MS);
    assert_int_equal(pausers[0].ret, -ETIMEDOUT);
    assert_int_equal(pausers[1].ret, 1);
    assert_int_equal(pausers[2].ret, -ETIMEDOUT);
    core_spawn(core, other_write, &other);
    ash_track_end(&held.blocker);
    while (pausers[1].ret == 1) {
        ash_co_sleep(1000);
    }
    assert_int_equal(pausers[1].ret, 0);
    assert_false(other.done);
    ash_disk_resume(disk);
    core_join(core);
    assert_true(other.done);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

static void resize_disk(struct core *core, void *opaque)
{
    struct other *other = opaque;
    (void)core;
    ash_co_assert_inside();
    assert_int_equal(ash_co_disk_resize(other->disk, 128 * KiB, 0, 0, NULL), 0);
    other->done = true;
}

CORE_TEST(closing_waits_for_a_resize_under_way)
{
    (void)opaque;
    struct ash_disk *disk = open_mem_disk(core, 50000);
    struct other resize = {disk, false};
    core_spawn(core, resize_disk, &resize);
    while (disk->user.in_flight == 0) {
        ash_co_sleep(100);
    }
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    assert_true(resize.done);
    core_join(core);
}

CORE_TEST(reopening_waits_for_what_is_in_flight_and_changes_what_is_allowed)
{
    (void)opaque;
    struct ash_disk *disk = open_mem_disk(core, 20000);
    struct other write = {disk, false};
    core_spawn(core, other_write, &write);
    while (disk->user.in_flight == 0) {
        ash_co_sleep(100);
    }
    assert_int_equal(ash_disk_reopen(disk, 0, false, NULL), 0);
    assert_true(write.done);
    assert_int_equal(ash_disk_write(disk, 0, "x", 1, 0), -EPERM);
    struct ash_disk_info info = {.size = sizeof(info)};
    assert_int_equal(ash_disk_info(disk, &info), 0);
    assert_true((info.flags & ASH_DISK_INFO_READ_ONLY) != 0);
    mem_protocol_of(ash_disk_node(disk))->fail_reopen = true;
    assert_int_equal(ash_disk_reopen(disk, ASH_NODE_WRITE, false, NULL), -EROFS);
    assert_int_equal(ash_disk_write(disk, 0, "x", 1, 0), -EPERM);
    mem_protocol_of(ash_disk_node(disk))->fail_reopen = false;
    assert_int_equal(ash_disk_reopen(disk, ASH_NODE_WRITE, true, NULL), 0);
    assert_int_equal(ash_disk_write(disk, 0, "x", 1, 0), 0);
    assert_int_equal(ash_disk_info(disk, &info), 0);
    assert_int_equal(info.flags & (ASH_DISK_INFO_READ_ONLY | ASH_DISK_INFO_WRITE_CACHE), 0);
    core_join(core);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

struct late {
    struct ash_disk *disk;
    bool resizes;
    int ret;
};

static void late_change(struct core *core, void *opaque)
{
    struct late *late = opaque;
    (void)core;
    ash_co_assert_inside();
    late->ret = late->resizes ? ash_co_disk_resize(late->disk, 8192, 0, ASH_PREALLOC_OFF, NULL)
                              : ash_disk_write(late->disk, 0, "late", 4, 0);
}

CORE_TEST(who_waits_while_the_disk_is_reopened_read_only_is_refused)
{
    (void)opaque;
    struct ash_disk *disk = open_mem_disk(core, 0);
    struct ash_error error = ASH_ERROR_INIT;
    struct late write = {.disk = disk};
    struct late resize = {.disk = disk, .resizes = true};
    assert_int_equal(ash_disk_pause(disk, UINT64_MAX), 0);
    core_spawn(core, late_change, &write);
    core_spawn(core, late_change, &resize);
    ash_co_sleep(1000);
    assert_int_equal(ash_disk_reopen(disk, 0, false, &error), 0);
    ash_disk_resume(disk);
    core_join(core);
    assert_int_equal(write.ret, -EPERM);
    assert_int_equal(resize.ret, -EPERM);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(a_failed_flush_is_the_result_of_closing)
{
    (void)opaque;
    struct ash_disk *disk = open_mem_disk(core, 0);
    struct ash_error error = ASH_ERROR_INIT;
    mem_protocol_of(ash_disk_node(disk))->fail = -EIO;
    assert_int_equal(ash_co_disk_close(disk, &error), -EIO);
    assert_non_null(strstr(error.message, "mem:m"));
    assert_null(ash_node_find(core->loop, "m"));
}

CORE_TEST(requests_are_counted_with_their_errors)
{
    (void)opaque;
    struct ash_disk *disk = open_mem_disk(core, 1000);
    char buffer[100];
    for (int i = 0; i < 5; i++) {
        assert_int_equal(ash_disk_write(disk, 0, buffer, 100, 0), 0);
    }
    assert_int_equal(ash_disk_read(disk, 65530, buffer, 100), -EIO);
    assert_int_equal(ash_disk_flush(disk), 0);
    struct ash_disk_stats stats = {.size = sizeof(stats)};
    assert_int_equal(ash_disk_stats(disk, &stats), 0);
    assert_int_equal(stats.op[ASH_WRITE].count, 5);
    assert_int_equal(stats.op[ASH_WRITE].bytes, 500);
    assert_int_equal(stats.op[ASH_WRITE].errors, 0);
    assert_true(stats.op[ASH_WRITE].latency_ns_max > 0);
    assert_true(stats.op[ASH_WRITE].latency_ns_sum >= stats.op[ASH_WRITE].latency_ns_max);
    assert_int_equal(stats.op[ASH_READ].count, 1);
    assert_int_equal(stats.op[ASH_READ].errors, 1);
    assert_int_equal(stats.op[ASH_READ].bytes, 0);
    assert_int_equal(stats.op[ASH_FLUSH].count, 1);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pause_waits_for_what_is_in_flight_and_holds_up_what_comes),
        cmocka_unit_test(a_pause_that_expires_leaves_the_gate_open),
        cmocka_unit_test(pausers_with_other_deadlines_do_not_disturb_one_another),
        cmocka_unit_test(closing_waits_for_a_resize_under_way),
        cmocka_unit_test(reopening_waits_for_what_is_in_flight_and_changes_what_is_allowed),
        cmocka_unit_test(who_waits_while_the_disk_is_reopened_read_only_is_refused),
        cmocka_unit_test(a_failed_flush_is_the_result_of_closing),
        cmocka_unit_test(requests_are_counted_with_their_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
