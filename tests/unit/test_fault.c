/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The fault filter: which requests fail, wait or stop, by what its description says. */
#include "tests/unit/unit.h"
#include "block/filter/fault.h"
#include "block/image/image.h"
#include "tests/unit/core_rig.h"

#define SECOND UINT64_C(1000000000)

ASH_CO_FN static struct ash_disk *open_text(struct core *core, const char *text)
{
    return core_open_text(core, text, ASH_NODE_WRITE | ASH_NODE_DISCARD);
}

/* A fault filter over memory, with these rules. */
#define FAULT(rules)                                                                               \
    "{\"driver\":\"fault\",\"node-name\":\"f\"," rules                                             \
    ",\"file\":{\"driver\":\"test-mem\",\"node-name\":\"mem\"}}"

ASH_CO_FN static int write_at(struct ash_disk *disk, uint64_t offset)
{
    return ash_disk_write(disk, offset, "0123456789abcdef", 16, 0);
}

ASH_CO_FN static int read_at(struct ash_disk *disk, uint64_t offset)
{
    uint8_t buffer[16];
    return ash_disk_read(disk, offset, buffer, sizeof(buffer));
}

CORE_TEST(an_error_meets_its_kind_of_request_and_no_other)
{
    (void)opaque;
    struct ash_disk *disk =
        open_text(core, FAULT("\"inject-error\":[{\"iotype\":\"write\",\"errno\":28}]"));
    assert_int_equal(write_at(disk, 0), -ENOSPC);
    assert_int_equal(write_at(disk, 0), -ENOSPC);
    assert_int_equal(read_at(disk, 0), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_int_equal(ash_disk_zero(disk, 0, 512, 0), 0);
    assert_int_equal(ash_disk_discard(disk, 0, 512), 0);
    assert_int_equal(mem_protocol_of(ash_node_find(core->loop, "mem"))->count[ASH_WRITE], 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(an_error_without_a_kind_meets_all_but_questions)
{
    (void)opaque;
    struct ash_status status;
    struct ash_disk *disk = open_text(core, FAULT("\"inject-error\":[{\"count\":5}]"));
    struct ash_io question = {.op = ASH_STATUS, .bytes = 512, .status = &status};
    assert_int_equal(ash_disk_io(disk, &question), 0);
    assert_int_equal(write_at(disk, 0), -EIO);
    assert_int_equal(read_at(disk, 0), -EIO);
    assert_int_equal(ash_disk_flush(disk), -EIO);
    assert_int_equal(ash_disk_zero(disk, 0, 512, 0), -EIO);
    assert_int_equal(ash_disk_discard(disk, 0, 512), -EIO);
    assert_int_equal(write_at(disk, 0), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(an_error_has_its_place)
{
    (void)opaque;
    struct ash_disk *disk = open_text(
        core, FAULT("\"inject-error\":[{\"sector\":2},{\"offset\":4096,\"length\":4096}]"));
    assert_int_equal(write_at(disk, 1023), -EIO);
    assert_int_equal(write_at(disk, 1008), 0);
    assert_int_equal(write_at(disk, 1535), -EIO);
    assert_int_equal(write_at(disk, 1536), 0);
    assert_int_equal(read_at(disk, 4080), 0);
    assert_int_equal(read_at(disk, 4081), -EIO);
    assert_int_equal(read_at(disk, 8191), -EIO);
    assert_int_equal(read_at(disk, 8192), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(an_error_is_counted_and_passes_over_some)
{
    (void)opaque;
    struct ash_disk *disk =
        open_text(core, FAULT("\"inject-error\":[{\"iotype\":\"read\",\"skip\":2,\"count\":2},"
                              "{\"iotype\":\"write\",\"once\":true,\"immediately\":true}]"));
    static const int reads[] = {0, 0, -EIO, -EIO, 0, 0};
    for (size_t i = 0; i < ASH_ARRAY_SIZE(reads); i++) {
        assert_int_equal(read_at(disk, 0), reads[i]);
    }
    assert_int_equal(write_at(disk, 0), -EIO);
    assert_int_equal(write_at(disk, 0), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(an_error_after_the_request_leaves_its_data)
{
    (void)opaque;
    char found[16];
    struct ash_disk *disk = open_text(
        core, FAULT("\"inject-error\":[{\"iotype\":\"write\",\"after\":true,\"once\":true}]"));
    assert_int_equal(write_at(disk, 0), -EIO);
    assert_int_equal(ash_disk_read(disk, 0, found, 16), 0);
    assert_memory_equal(found, "0123456789abcdef", 16);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

ASH_CO_FN static unsigned errors_of(struct core *core, const char *text)
{
    unsigned errors = 0;
    struct ash_disk *disk = open_text(core, text);
    for (unsigned i = 0; i < 2000; i++) {
        errors += read_at(disk, 0) < 0;
    }
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    return errors;
}

CORE_TEST(a_chance_is_kept_and_the_same_seed_repeats_it)
{
    (void)opaque;
    unsigned first = errors_of(core, FAULT("\"seed\":1,\"inject-error\":[{\"per-mille\":100}]"));
    unsigned again = errors_of(core, FAULT("\"seed\":1,\"inject-error\":[{\"per-mille\":100}]"));
    assert_in_range(first, 150, 250);
    assert_int_equal(first, again);
    assert_int_equal(errors_of(core, FAULT("\"inject-error\":[{\"per-mille\":0}]")), 0);
}

CORE_TEST(delays_add_up)
{
    (void)opaque;
    struct ash_disk *disk =
        open_text(core, FAULT("\"inject-delay\":[{\"delay-ns\":1000000000,\"iotype\":\"read\"},"
                              "{\"delay-ns\":2000000000,\"once\":true}]"));
    uint64_t begin_ns = ash_loop_now(core->loop);
    assert_int_equal(read_at(disk, 0), 0);
    uint64_t middle_ns = ash_loop_now(core->loop);
    assert_in_range(middle_ns - begin_ns, 3 * SECOND, 3 * SECOND + 1000000);
    assert_int_equal(read_at(disk, 0), 0);
    assert_in_range(ash_loop_now(core->loop) - middle_ns, SECOND, SECOND + 1000000);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* State 1 -flush-> state 2, where writes fail, -flush-> state 3. */
CORE_TEST(states_follow_events)
{
    (void)opaque;
    struct ash_disk *disk = open_text(
        core, FAULT("\"set-state\":[{\"event\":\"flush_to_disk\",\"state\":1,\"new_state\":2},"
                    "{\"event\":\"flush_to_disk\",\"state\":2,\"new_state\":3}],"
                    "\"inject-error\":[{\"state\":2,\"iotype\":\"write\"}]"));
    assert_int_equal(write_at(disk, 0), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_int_equal(write_at(disk, 0), -EIO);
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_int_equal(write_at(disk, 0), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_int_equal(write_at(disk, 0), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(a_rule_with_an_event_is_active_from_it_on)
{
    (void)opaque;
    struct ash_disk *disk =
        open_text(core, FAULT("\"inject-error\":[{\"event\":\"flush_to_disk\",\"iotype\":\"read\"},"
                              "{\"event\":\"pwritev_zero\",\"iotype\":\"write\"}]"));
    assert_int_equal(read_at(disk, 0), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_int_equal(read_at(disk, 0), -EIO);
    assert_int_equal(write_at(disk, 0), 0);
    assert_int_equal(ash_disk_zero(disk, 0, 512, 0), 0); /* makes the other one active */
    assert_int_equal(read_at(disk, 0), 0);
    assert_int_equal(write_at(disk, 0), -EIO);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* Suspension. */

struct writing {
    struct ash_disk *disk;
    uint64_t offset;
    bool done;
};

ASH_CO_FN static void write_one(struct core *core, void *opaque)
{
    struct writing *writing = opaque;
    (void)core;
    assert_int_equal(write_at(writing->disk, writing->offset), 0);
    writing->done = true;
}

CORE_TEST(who_stops_at_a_break_goes_on_when_told)
{
    (void)opaque;
    struct ash_disk *disk = open_text(core, FAULT("\"seed\":0"));
    struct ash_node *fault = ash_node_find(core->loop, "f");
    assert_int_equal(ash_fault_break(fault, "write_aio", "A"), 0);
    struct writing first = {disk, 0, false};
    struct writing second = {disk, 4096, false};
    assert_true(ash_node_is_fault(fault));
    assert_false(ash_fault_is_suspended(fault, "A"));
    core_spawn(core, write_one, &first);
    ash_co_sleep(SECOND);
    assert_false(first.done);
    assert_true(ash_fault_is_suspended(fault, "A"));
    assert_false(ash_fault_is_suspended(fault, "B"));
    core_spawn(core, write_one, &second); /* the break is used up */
    ash_co_sleep(SECOND);
    assert_true(second.done);
    assert_int_equal(ash_fault_resume(fault, "B"), -ENOENT);
    assert_int_equal(ash_fault_resume(fault, "A"), 0);
    core_join(core);
    assert_true(first.done);
    assert_int_equal(ash_fault_resume(fault, "A"), -ENOENT);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(a_pause_waits_for_who_stopped_until_its_deadline)
{
    (void)opaque;
    struct ash_disk *disk = open_text(core, FAULT("\"seed\":0"));
    struct ash_node *fault = ash_node_find(core->loop, "f");
    struct writing writing = {disk, 0, false};
    assert_int_equal(ash_fault_break(fault, "no such event", "A"), -EINVAL);
    assert_int_equal(ash_fault_break(fault, "write_aio", "A"), 0);
    core_spawn(core, write_one, &writing);
    ash_co_sleep(1000000);
    assert_int_equal(ash_disk_pause(disk, ash_loop_now(core->loop) + SECOND), -ETIMEDOUT);
    assert_int_equal(ash_fault_remove_break(fault, "A"), 0);
    core_join(core);
    assert_true(writing.done);
    assert_int_equal(ash_fault_break(fault, "write_aio", "B"), 0);
    assert_int_equal(ash_fault_remove_break(fault, "B"), 0);
    assert_int_equal(ash_fault_remove_break(fault, "B"), -ENOENT);
    assert_int_equal(write_at(disk, 0), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* Formats tell of events. */

ASH_CO_FN static void make_qcow2(struct core *core, const char *name)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *options = json_pack("{s:s}", "cluster_size", "4096");
    int ret =
        ash_image_create(core->loop, core_file(core, name, 0), "qcow2", 1 << 20, options, &error);
    if (ret < 0) {
        print_message("%s\n", error.message);
    }
    json_decref(options);
    assert_int_equal(ret, 0);
}

#define QCOW2(rules)                                                                               \
    "{\"driver\":\"qcow2\",\"file\":{\"driver\":\"fault\",\"node-name\":\"f\"," rules              \
    ",\"file\":{\"driver\":\"file\",\"filename\":\"image\"}}}"

CORE_TEST(a_table_that_cannot_be_written_fails_the_flush)
{
    (void)opaque;
    make_qcow2(core, "image");
    struct ash_disk *disk =
        open_text(core, QCOW2("\"inject-error\":[{\"event\":\"l2_update\",\"iotype\":\"write\","
                              "\"once\":true,\"errno\":28}]"));
    assert_int_equal(write_at(disk, 0), 0);
    assert_int_equal(ash_disk_flush(disk), -ENOSPC);
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

ASH_CO_FN static void flush_one(struct core *core, void *opaque)
{
    struct writing *writing = opaque;
    (void)core;
    assert_int_equal(ash_disk_flush(writing->disk), 0);
}

CORE_TEST(a_format_can_be_stopped_between_its_writes)
{
    (void)opaque;
    static const char *const events[] = {"refblock_update", "l2_update"};
    make_qcow2(core, "image");
    struct ash_disk *disk = open_text(core, QCOW2("\"seed\":0"));
    struct ash_node *fault = ash_node_find(core->loop, "f");
    struct writing writing = {disk, 0, false};
    for (size_t i = 0; i < ASH_ARRAY_SIZE(events); i++) {
        assert_int_equal(ash_fault_break(fault, events[i], events[i]), 0);
    }
    core_spawn(core, write_one, &writing);
    core_join(core);
    core_spawn(core, flush_one, &writing);
    for (size_t i = 0; i < ASH_ARRAY_SIZE(events); i++) {
        ash_co_sleep(SECOND);
        assert_true(ash_fault_is_suspended(fault, events[i]));
        assert_int_equal(ash_fault_resume(fault, events[i]), 0);
    }
    core_join(core);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* Options. */

CORE_TEST(rules_are_checked)
{
    static const struct {
        const char *text;
        const char *part;
    } wrong[] = {
        {FAULT("\"inject-error\":{}"), "'inject-error'"},
        {FAULT("\"inject-error\":[1]"), "'inject-error'"},
        {FAULT("\"inject-error\":[{\"event\":\"nothing\"}]"), "'event'"},
        {FAULT("\"inject-error\":[{\"iotype\":\"seek\"}]"), "'iotype'"},
        {FAULT("\"inject-error\":[{\"errno\":0}]"), "'errno'"},
        {FAULT("\"inject-error\":[{\"other\":1}]"), "'other'"},
        {FAULT("\"inject-delay\":[{\"errno\":5}]"), "'errno'"},
        {FAULT("\"set-state\":[{\"new_state\":2}]"), "'event'"},
        {FAULT("\"suspend\":[{\"event\":\"read_aio\"}]"), "'suspend'"},
        {FAULT("\"inject-delay\":[{\"delay-ns\":3600000000001}]"), "'delay-ns'"},
        {FAULT("\"inject\":[]"), "'inject'"},
    };
    (void)opaque;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(wrong); i++) {
        struct ash_disk *disk;
        struct ash_error error = ASH_ERROR_INIT;
        json_t *description = json_loads(wrong[i].text, 0, NULL);
        assert_non_null(description);
        assert_int_equal(ash_co_disk_open(core->loop, description, 0, &disk, &error), -EINVAL);
        assert_non_null(strstr(error.message, wrong[i].part));
        json_decref(description);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_meets_its_kind_of_request_and_no_other),
        cmocka_unit_test(an_error_without_a_kind_meets_all_but_questions),
        cmocka_unit_test(an_error_has_its_place),
        cmocka_unit_test(an_error_is_counted_and_passes_over_some),
        cmocka_unit_test(an_error_after_the_request_leaves_its_data),
        cmocka_unit_test(a_chance_is_kept_and_the_same_seed_repeats_it),
        cmocka_unit_test(delays_add_up),
        cmocka_unit_test(states_follow_events),
        cmocka_unit_test(a_rule_with_an_event_is_active_from_it_on),
        cmocka_unit_test(who_stops_at_a_break_goes_on_when_told),
        cmocka_unit_test(a_pause_waits_for_who_stopped_until_its_deadline),
        cmocka_unit_test(a_table_that_cannot_be_written_fails_the_flush),
        cmocka_unit_test(a_format_can_be_stopped_between_its_writes),
        cmocka_unit_test(rules_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
