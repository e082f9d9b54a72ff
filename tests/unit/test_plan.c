/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Plans: rights, shape, all or nothing, locks; and several at once. */
#include "tests/unit/unit.h"
#include "tests/unit/core_rig.h"

/* Two names for what everybody may do at most, and what one keeps for itself. */
#define READ_ONLY ASH_RIGHT_READ
#define READ_WRITE (ASH_RIGHT_READ | ASH_RIGHT_WRITE)
#define SHARES_READ (ASH_RIGHT_READ | ASH_RIGHT_REWRITE)

ASH_CO_FN static struct ash_node *open_node(struct core *core, json_t *description, uint32_t flags)
{
    struct ash_node *node = NULL;
    struct ash_error error = ASH_ERROR_INIT;
    int ret = ash_node_open(core->loop, description, flags, &node, &error);
    json_decref(description);
    if (ret < 0) {
        print_message("%s\n", error.message);
    }
    assert_int_equal(ret, 0);
    return node;
}

ASH_CO_FN static struct ash_node *open_mem(struct core *core, const char *name)
{
    json_t *description =
        json_pack("{s:s, s:s, s:i}", "driver", "test-mem", "node-name", name, "delay-ns", 2000);
    return open_node(core, description, ASH_NODE_WRITE);
}

ASH_CO_FN static struct ash_node *open_filter(struct core *core, const char *name,
                                              const char *below)
{
    json_t *description =
        json_pack("{s:s, s:s, s:s}", "driver", "test-filter", "node-name", name, "file", below);
    return open_node(core, description, ASH_NODE_WRITE);
}

ASH_CO_FN static int attach(struct core *core, struct ash_node *node, uint32_t needs,
                            uint32_t allows, struct ash_edge **edge, struct ash_error *error)
{
    struct ash_plan *plan = ash_plan_new(core->loop);
    ash_plan_attach(plan, NULL, node, "root", ASH_ROLE_DISK, needs, allows, NULL, edge);
    int ret = ash_plan_run(plan, error);
    ash_plan_free(plan);
    return ret;
}

static unsigned parents_of(const struct ash_node *node)
{
    unsigned count = 0;
    ash_list_for_each (edge, &node->parents, struct ash_edge, child_link) {
        count++;
    }
    return count;
}

CORE_TEST(rights_that_conflict_are_refused_and_nothing_changes)
{
    (void)opaque;
    struct ash_node *mem = open_mem(core, "m");
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_edge *writer;
    struct ash_edge *other = NULL;
    assert_int_equal(attach(core, mem, READ_WRITE, SHARES_READ, &writer, NULL), 0);
    unsigned locks = mem_protocol_of(mem)->lock_count;
    /* Needs what the first does not allow; then, does not allow what the first needs. */
    assert_int_equal(attach(core, mem, READ_WRITE, ASH_RIGHT_ALL, &other, &error), -EPERM);
    assert_non_null(strstr(error.message, "mem:m"));
    assert_int_equal(attach(core, mem, READ_ONLY, SHARES_READ, &other, &error), -EPERM);
    assert_null(other);
    assert_int_equal(parents_of(mem), 1);
    assert_int_equal(mem->refs, 2);
    assert_int_equal(mem_protocol_of(mem)->lock_count, locks); /* solved before anything is done */
    assert_int_equal(attach(core, mem, READ_ONLY, ASH_RIGHT_ALL, &other, NULL), 0);
    core_let_go(core, other);
    core_let_go(core, writer);
    assert_int_equal(ash_node_unref(mem), 0);
}

CORE_TEST(a_node_that_is_open_for_reading_cannot_be_written)
{
    (void)opaque;
    struct ash_node *mem = open_node(core, json_pack("{s:s}", "driver", "test-mem"), 0);
    struct ash_edge *edge;
    assert_int_equal(attach(core, mem, READ_WRITE, ASH_RIGHT_ALL, &edge, NULL), -EACCES);
    assert_int_equal(attach(core, mem, READ_ONLY, ASH_RIGHT_ALL, &edge, NULL), 0);
    assert_int_equal(ash_edge_write(edge, 0, "x", 1, 0), -EPERM);
    core_let_go(core, edge);
    assert_int_equal(ash_node_unref(mem), 0);
}

/* filter -> filter -> mem: what the disk needs arrives at the bottom. */
CORE_TEST(rights_pass_through_filters_and_are_given_back)
{
    (void)opaque;
    struct ash_node *mem = open_mem(core, "m");
    struct ash_node *low = open_filter(core, "low", "m");
    struct ash_node *high = open_filter(core, "high", "low");
    uint32_t needs;
    uint32_t allows;
    struct ash_edge *edge;
    ash_node_rights(mem, &needs, &allows);
    assert_int_equal(needs, 0);
    assert_int_equal(attach(core, high, READ_WRITE, SHARES_READ, &edge, NULL), 0);
    ash_node_rights(mem, &needs, &allows);
    assert_int_equal(needs, READ_WRITE);
    assert_int_equal(allows, SHARES_READ);
    struct ash_edge *second = NULL;
    assert_int_equal(attach(core, mem, READ_WRITE, ASH_RIGHT_ALL, &second, NULL), -EPERM);
    core_let_go(core, edge);
    ash_node_rights(mem, &needs, &allows);
    assert_int_equal(needs, 0);
    assert_int_equal(allows, ASH_RIGHT_ALL);
    assert_int_equal(ash_node_unref(high), 0);
    assert_int_equal(ash_node_unref(low), 0);
    assert_int_equal(ash_node_unref(mem), 0);
}

CORE_TEST(an_edge_that_would_close_a_loop_is_refused)
{
    (void)opaque;
    struct ash_node *mem = open_mem(core, "m");
    struct ash_node *low = open_filter(core, "low", "m");
    struct ash_node *high = open_filter(core, "high", "low");
    struct ash_plan *plan = ash_plan_new(core->loop);
    ash_plan_replace(plan, low->file, high);
    assert_int_equal(ash_plan_run(plan, NULL), -ELOOP);
    ash_plan_free(plan);
    plan = ash_plan_new(core->loop);
    ash_plan_replace(plan, low->file, low);
    assert_int_equal(ash_plan_run(plan, NULL), -ELOOP);
    ash_plan_free(plan);
    assert_ptr_equal(low->file->child, mem);
    assert_int_equal(ash_node_unref(high), 0);
    assert_int_equal(ash_node_unref(low), 0);
    assert_int_equal(ash_node_unref(mem), 0);
}

CORE_TEST(replacing_a_child_moves_rights_and_references)
{
    (void)opaque;
    struct ash_node *one = open_mem(core, "one");
    struct ash_node *two = open_mem(core, "two");
    struct ash_node *filter = open_filter(core, "f", "one");
    struct ash_edge *edge;
    uint32_t needs;
    uint32_t allows;
    assert_int_equal(attach(core, filter, READ_WRITE, SHARES_READ, &edge, NULL), 0);
    struct ash_plan *plan = ash_plan_new(core->loop);
    ash_plan_replace(plan, filter->file, two);
    assert_int_equal(ash_plan_run(plan, NULL), 0);
    ash_plan_free(plan);
    assert_int_equal(one->refs, 1);
    assert_int_equal(two->refs, 2);
    ash_node_rights(one, &needs, &allows);
    assert_int_equal(needs, 0);
    ash_node_rights(two, &needs, &allows);
    assert_int_equal(needs, READ_WRITE);
    assert_int_equal(ash_edge_write(edge, 0, "two", 3, 0), 0);
    assert_memory_equal(mem_protocol_of(two)->data, "two", 3);
    core_let_go(core, edge);
    assert_int_equal(ash_node_unref(filter), 0);
    assert_int_equal(ash_node_unref(one), 0);
    assert_int_equal(ash_node_unref(two), 0);
}

CORE_TEST(filters_nest_only_so_deep)
{
    (void)opaque;
    struct ash_node *nodes[ASH_NESTING_MAX];
    struct ash_error error = ASH_ERROR_INIT;
    char name[16];
    char below[16] = "m";
    nodes[0] = open_mem(core, "m");
    for (int i = 1; i < ASH_NESTING_MAX; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        nodes[i] = open_filter(core, name, below);
        snprintf(below, sizeof(below), "%s", name);
    }
    struct ash_node *node;
    json_t *description = json_pack("{s:s, s:s}", "driver", "test-filter", "file", below);
    assert_int_equal(ash_node_open(core->loop, description, 0, &node, &error), -E2BIG);
    json_decref(description);
    uint8_t byte;
    struct ash_edge *edge;
    assert_int_equal(
        attach(core, nodes[ASH_NESTING_MAX - 1], READ_ONLY, ASH_RIGHT_ALL, &edge, NULL), 0);
    assert_int_equal(ash_edge_read(edge, 0, &byte, 1), 0);
    core_let_go(core, edge);
    for (int i = ASH_NESTING_MAX; i-- > 0;) {
        assert_int_equal(ash_node_unref(nodes[i]), 0);
    }
}

CORE_TEST(locks_are_taken_for_old_and_new_rights_and_then_let_go)
{
    (void)opaque;
    struct ash_node *mem = open_mem(core, "m");
    struct mem_protocol *state = mem_protocol_of(mem);
    struct ash_edge *edge;
    assert_int_equal(attach(core, mem, READ_WRITE, ASH_RIGHT_ALL, &edge, NULL), 0);
    state->lock_count = 0;
    struct ash_plan *plan = ash_plan_new(core->loop);
    ash_plan_rights(plan, edge, ASH_RIGHT_READ | ASH_RIGHT_RESIZE, SHARES_READ);
    assert_int_equal(ash_plan_run(plan, NULL), 0);
    ash_plan_free(plan);
    assert_int_equal(state->lock_count, 2);
    assert_int_equal(state->locks[0].needs, READ_WRITE | ASH_RIGHT_RESIZE);
    assert_int_equal(state->locks[0].allows, SHARES_READ);
    assert_int_equal(state->locks[1].needs, ASH_RIGHT_READ | ASH_RIGHT_RESIZE);
    assert_int_equal(state->locks[1].allows, SHARES_READ);
    state->lock_count = 0;
    core_let_go(core, edge);
    assert_int_equal(state->locks[state->lock_count - 1].needs, 0);
    assert_int_equal(state->locks[state->lock_count - 1].allows, ASH_RIGHT_ALL);
    assert_int_equal(ash_node_unref(mem), 0);
}

CORE_TEST(when_a_lock_cannot_be_had_all_is_as_before)
{
    (void)opaque;
    struct ash_node *one = open_mem(core, "one");
    struct ash_node *two = open_mem(core, "two");
    struct ash_node *filter = open_filter(core, "f", "one");
    struct ash_edge *edge;
    assert_int_equal(attach(core, filter, READ_WRITE, SHARES_READ, &edge, NULL), 0);
    mem_protocol_of(two)->fail_lock = true;
    mem_protocol_of(one)->lock_count = 0;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_plan *plan = ash_plan_new(core->loop);
    ash_plan_replace(plan, filter->file, two);
    assert_int_equal(ash_plan_run(plan, &error), -EAGAIN);
    ash_plan_free(plan);
    assert_string_equal(error.message, "'mem:two' is locked by a test");
    assert_ptr_equal(filter->file->child, one);
    assert_int_equal(filter->file->needs, READ_WRITE);
    struct mem_protocol *state = mem_protocol_of(one);
    assert_int_equal(state->locks[state->lock_count - 1].needs, READ_WRITE);
    state = mem_protocol_of(two);
    assert_int_equal(state->locks[state->lock_count - 1].needs, 0);
    core_let_go(core, edge);
    assert_int_equal(ash_node_unref(filter), 0);
    assert_int_equal(ash_node_unref(one), 0);
    assert_int_equal(ash_node_unref(two), 0);
}

CORE_TEST(reopening_several_nodes_is_all_or_nothing)
{
    (void)opaque;
    struct ash_node *one = open_mem(core, "one");
    struct ash_node *two = open_mem(core, "two");
    mem_protocol_of(two)->fail_reopen = true;
    for (int round = 0; round < 2; round++) {
        struct ash_plan *plan = ash_plan_new(core->loop);
        ash_plan_reopen(plan, one, one->flags & ~ASH_NODE_WRITE);
        ash_plan_reopen(plan, two, two->flags & ~ASH_NODE_WRITE);
        assert_int_equal(ash_plan_run(plan, NULL), round == 0 ? -EROFS : 0);
        ash_plan_free(plan);
        assert_int_equal((one->flags & ASH_NODE_WRITE) != 0, round == 0);
        assert_int_equal((two->flags & ASH_NODE_WRITE) != 0, round == 0);
        mem_protocol_of(two)->fail_reopen = false;
    }
    assert_int_equal(mem_protocol_of(one)->prepared, 2);
    assert_int_equal(mem_protocol_of(one)->aborted, 1);
    assert_int_equal(mem_protocol_of(one)->committed, 1);
    assert_int_equal(mem_protocol_of(two)->aborted, 0);
    assert_int_equal(mem_protocol_of(two)->committed, 1);
    assert_int_equal(ash_node_unref(one), 0);
    assert_int_equal(ash_node_unref(two), 0);
}

CORE_TEST(reopening_for_reading_fails_while_somebody_writes)
{
    (void)opaque;
    struct ash_node *mem = open_mem(core, "m");
    struct ash_edge *edge;
    assert_int_equal(attach(core, mem, READ_WRITE, SHARES_READ, &edge, NULL), 0);
    struct ash_plan *plan = ash_plan_new(core->loop);
    ash_plan_reopen(plan, mem, mem->flags & ~ASH_NODE_WRITE);
    assert_int_equal(ash_plan_run(plan, NULL), -EACCES);
    ash_plan_free(plan);
    assert_int_equal(mem_protocol_of(mem)->prepared, 0);
    core_let_go(core, edge);
    assert_int_equal(ash_node_unref(mem), 0);
}

/* Several at once. */

struct attempt {
    json_t *description;
    struct ash_disk *disk;
    int ret;
};

static void open_disk(struct core *core, void *opaque)
{
    struct attempt *attempt = opaque;
    ash_co_assert_inside();
    attempt->ret =
        ash_co_disk_open(core->loop, attempt->description, ASH_NODE_WRITE, &attempt->disk, NULL);
}

/* One solves its plan, then waits for a lock; the other's plan must not pass it meanwhile. */
CORE_TEST(of_two_writers_that_come_at_once_one_is_refused)
{
    (void)opaque;
    for (int round = 0; round < 20; round++) {
        struct ash_node *mem = open_mem(core, "m");
        struct attempt attempts[2] = {{0}};
        for (int i = 0; i < 2; i++) {
            attempts[i].description = json_pack("{s:s, s:s}", "driver", "raw", "file", "m");
            core_spawn(core, open_disk, &attempts[i]);
        }
        core_join(core);
        assert_int_equal((attempts[0].ret == 0) + (attempts[1].ret == 0), 1);
        for (int i = 0; i < 2; i++) {
            assert_true(attempts[i].ret == 0 || attempts[i].ret == -EPERM);
            if (attempts[i].ret == 0) {
                assert_int_equal(ash_co_disk_close(attempts[i].disk, NULL), 0);
            }
            json_decref(attempts[i].description);
        }
        assert_int_equal(mem->refs, 1);
        assert_int_equal(ash_node_unref(mem), 0);
    }
}

CORE_TEST(of_two_nodes_of_one_name_that_open_at_once_one_is_refused)
{
    (void)opaque;
    for (int round = 0; round < 20; round++) {
        struct attempt attempts[2] = {{0}};
        for (int i = 0; i < 2; i++) {
            /* Opening a file takes time, and the name is asked for before and after. */
            attempts[i].description =
                json_pack("{s:s, s:s, s:{s:s, s:s}}", "driver", "raw", "node-name", "same", "file",
                          "driver", "file", "filename", core_file(core, i ? "a" : "b", 65536));
            core_spawn(core, open_disk, &attempts[i]);
        }
        core_join(core);
        assert_int_equal((attempts[0].ret == 0) + (attempts[1].ret == 0), 1);
        for (int i = 0; i < 2; i++) {
            assert_true(attempts[i].ret == 0 || attempts[i].ret == -EEXIST);
            if (attempts[i].ret == 0) {
                assert_int_equal(ash_co_disk_close(attempts[i].disk, NULL), 0);
            }
            json_decref(attempts[i].description);
        }
    }
}

/* A node is named while it opens, or while it closes: it is not there, or it is whole. */
CORE_TEST(a_node_is_found_only_while_it_is_open)
{
    (void)opaque;
    unsigned found = 0;
    for (int round = 0; round < 100; round++) {
        struct attempt whole = {0};
        struct attempt above = {0};
        whole.description =
            json_pack("{s:s, s:s, s:{s:s, s:i, s:s}}", "driver", "raw", "node-name", "low", "file",
                      "driver", "test-mem", "delay-ns", 2000, "discard", "unmap");
        above.description =
            json_pack("{s:s, s:s, s:b}", "driver", "test-filter", "file", "low", "read-only", 1);
        core_spawn(core, open_disk, &whole);
        ash_co_sleep(ash_prng_below(&core->prng, 8000));
        core_spawn(core, open_disk, &above);
        if (round % 2 == 0) {
            core_join(core);
        } else {
            while (whole.disk == NULL) {
                ash_co_sleep(100);
            }
        }
        assert_int_equal(whole.ret, 0);
        assert_int_equal(ash_co_disk_close(whole.disk, NULL), 0);
        core_join(core);
        assert_true(above.ret == 0 || above.ret == -ENODEV || above.ret == -EPERM);
        found += above.ret != -ENODEV;
        if (above.ret == 0) {
            assert_int_equal(ash_co_disk_close(above.disk, NULL), 0);
        }
        json_decref(whole.description);
        json_decref(above.description);
    }
    assert_in_range(found, 1, 99);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rights_that_conflict_are_refused_and_nothing_changes),
        cmocka_unit_test(a_node_that_is_open_for_reading_cannot_be_written),
        cmocka_unit_test(rights_pass_through_filters_and_are_given_back),
        cmocka_unit_test(an_edge_that_would_close_a_loop_is_refused),
        cmocka_unit_test(replacing_a_child_moves_rights_and_references),
        cmocka_unit_test(filters_nest_only_so_deep),
        cmocka_unit_test(locks_are_taken_for_old_and_new_rights_and_then_let_go),
        cmocka_unit_test(when_a_lock_cannot_be_had_all_is_as_before),
        cmocka_unit_test(reopening_several_nodes_is_all_or_nothing),
        cmocka_unit_test(reopening_for_reading_fails_while_somebody_writes),
        cmocka_unit_test(of_two_writers_that_come_at_once_one_is_refused),
        cmocka_unit_test(of_two_nodes_of_one_name_that_open_at_once_one_is_refused),
        cmocka_unit_test(a_node_is_found_only_while_it_is_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
