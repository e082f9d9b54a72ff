/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pausing a part of a graph, and plans that assert that what they edit is paused. */
#include "tests/unit/unit.h"
#include "block/graph/pause.h"
#include "tests/unit/chain_rig.h"
#include "tests/unit/core_rig.h"
#include "tests/unit/dies.h"

#define MS UINT64_C(1000000)

ASH_CO_FN static struct ash_disk *open_disk(struct core *core, json_t *description, uint32_t flags)
{
    struct ash_disk *disk = NULL;
    struct ash_error error = ASH_ERROR_INIT;
    int ret = ash_co_disk_open(core->loop, description, flags, &disk, &error);
    json_decref(description);
    if (ret < 0) {
        print_message("%s\n", error.message);
    }
    assert_int_equal(ret, 0);
    return disk;
}

/* A reader through a node of its own above the node "m". */
static json_t *above_m(void)
{
    return json_pack("{s:s, s:s}", "driver", "raw", "file", "m");
}

ASH_CO_FN static struct ash_node *open_mem(struct core *core)
{
    struct ash_node *node = NULL;
    json_t *description =
        json_pack("{s:s, s:s, s:i}", "driver", "test-mem", "node-name", "m", "delay-ns", 20000);
    assert_int_equal(ash_node_open(core->loop, description, ASH_NODE_WRITE, &node, NULL), 0);
    json_decref(description);
    return node;
}

/* What must not be done: each with a fresh graph, in a child process. */

static void in_core(void (*fn)(struct core *core, void *opaque))
{
    struct core core;
    struct ash_loop_config loop_config = ASH_LOOP_CONFIG_INIT;
    struct ash_sim_config sim_config = {.seed = 1, .latency_ns_max = 2000};
    loop_config.hooks = dies_hooks;
    core_up_with(&core, 1, &sim_config, &loop_config);
    core_run(&core, fn, NULL);
}

static void reopen_unpaused(struct core *core, void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    struct ash_node *mem = open_mem(core);
    open_disk(core, above_m(), 0);
    struct ash_plan *plan = ash_plan_new(core->loop);
    ash_plan_reopen(plan, mem, mem->flags | ASH_NODE_NO_FLUSH);
    (void)ash_plan_run(plan, NULL);
}

static void reopens_unpaused(void)
{
    in_core(reopen_unpaused);
}

static void replace_unpaused(struct core *core, void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    struct ash_node *mem = open_mem(core);
    struct ash_disk *disk = open_disk(core, above_m(), 0);
    struct ash_plan *plan = ash_plan_new(core->loop);
    ash_plan_replace(plan, disk->root, mem);
    (void)ash_plan_run(plan, NULL);
}

static void replaces_unpaused(void)
{
    in_core(replace_unpaused);
}

static void reopen_under_a_request(struct core *core, void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    struct ash_node *mem = open_mem(core);
    struct ash_request request;
    ash_track_begin(&request, mem, ASH_READ, 0, 512, false);
    struct ash_plan *plan = ash_plan_new(core->loop);
    ash_plan_reopen(plan, mem, mem->flags | ASH_NODE_NO_FLUSH);
    (void)ash_plan_run(plan, NULL);
}

static void reopens_under_a_request(void)
{
    in_core(reopen_under_a_request);
}

static void resume_too_early(struct core *core, void *opaque)
{
    struct ash_pause *pause = opaque;
    (void)core;
    ash_co_assert_inside();
    ash_pause_end(pause);
}

/* The pause ends while the plan, which is all right at its start, prepares. */
static void end_pause_in_plan(struct core *core, void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    struct ash_node *mem = open_mem(core);
    struct ash_pause pause;
    open_disk(core, above_m(), 0);
    assert_int_equal(ash_pause_begin(&pause, core->loop, &mem, 1, UINT64_MAX), 0);
    struct ash_plan *plan = ash_plan_new(core->loop);
    ash_plan_reopen(plan, mem, mem->flags | ASH_NODE_NO_FLUSH);
    core_spawn(core, resume_too_early, &pause);
    (void)ash_plan_run(plan, NULL);
}

static void ends_pause_in_plan(void)
{
    in_core(end_pause_in_plan);
}

static void a_plan_asserts_that_what_it_edits_is_quiet(void **state)
{
    (void)state;
    assert_asserts(reopens_unpaused, "of_node || user->pauses > 0");
    assert_asserts(replaces_unpaused, "edit->edge->user->pauses > 0");
    assert_asserts(reopens_under_a_request, "node->track.count == 0");
    assert_asserts(ends_pause_in_plan, "of_node || user->pauses > 0");
}

/* What a pause does. */

struct reader {
    struct ash_disk *disk; /* NULL: opens one, and closes it */
    bool opened;
    bool done;
};

static void read_once(struct core *core, void *opaque)
{
    struct reader *reader = opaque;
    char byte;
    ash_co_assert_inside();
    struct ash_disk *disk = reader->disk != NULL ? reader->disk : open_disk(core, above_m(), 0);
    reader->opened = true;
    assert_int_equal(ash_disk_read(disk, 0, &byte, 1), 0);
    reader->done = true;
    if (reader->disk == NULL) {
        assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    }
}

CORE_TEST(a_pause_covers_all_users_above_and_those_that_come_later)
{
    (void)opaque;
    struct ash_node *mem = open_mem(core);
    struct ash_pause pause;
    struct reader readers[3] = {{0}};
    struct reader before = {0};
    for (int i = 0; i < 2; i++) {
        readers[i].disk = open_disk(core, above_m(), 0);
    }
    before.disk = readers[1].disk;
    core_spawn(core, read_once, &before);
    while (before.disk->user.in_flight == 0) {
        ash_co_sleep(100);
    }
    assert_int_equal(ash_pause_begin(&pause, core->loop, &mem, 1, UINT64_MAX), 0);
    assert_true(before.done);
    for (int i = 0; i < 3; i++) {
        core_spawn(core, read_once, &readers[i]);
    }
    ash_co_sleep(10 * MS);
    assert_int_equal(mem->track.count, 0);
    for (int i = 0; i < 3; i++) {
        assert_false(readers[i].done);
    }
    ash_node_assert_quiet(mem);
    ash_pause_end(&pause);
    core_join(core);
    for (int i = 0; i < 3; i++) {
        assert_true(readers[i].done);
    }
    assert_int_equal(ash_co_disk_close(readers[0].disk, NULL), 0);
    assert_int_equal(ash_co_disk_close(readers[1].disk, NULL), 0);
    assert_int_equal(ash_node_unref(mem), 0);
}

/* A disk whose edge is made by a plan under the pause: it has nothing to open, and comes paused. */
CORE_TEST(an_edge_made_under_a_pause_brings_its_user_into_it)
{
    (void)opaque;
    struct ash_node *mem = open_mem(core);
    struct ash_pause pause;
    assert_int_equal(ash_pause_begin(&pause, core->loop, &mem, 1, UINT64_MAX), 0);
    struct ash_user user;
    struct ash_edge *edge;
    ash_user_init(&user, core->loop);
    struct ash_plan *plan = ash_plan_new(core->loop);
    ash_plan_attach(plan, NULL, mem, "root", ASH_ROLE_DISK, ASH_RIGHT_READ, ASH_RIGHT_ALL, &user,
                    &edge);
    assert_int_equal(ash_plan_run(plan, NULL), 0);
    ash_plan_free(plan);
    assert_int_equal(user.pauses, 1);
    core_let_go(core, edge);
    ash_user_destroy(&user); /* the pause forgets it */
    ash_pause_end(&pause);
    assert_int_equal(ash_node_unref(mem), 0);
}

CORE_TEST(a_pause_of_a_node_that_expires_opens_all_gates)
{
    (void)opaque;
    struct ash_node *mem = open_mem(core);
    struct ash_pause pause;
    struct ash_disk *disks[2];
    for (int i = 0; i < 2; i++) {
        disks[i] = open_disk(core, above_m(), 0);
    }
    ash_user_begin(&disks[1]->user); /* a request that never ends */
    uint64_t deadline_ns = ash_loop_now(core->loop) + 5 * MS;
    assert_int_equal(ash_pause_begin(&pause, core->loop, &mem, 1, deadline_ns), -ETIMEDOUT);
    assert_true(ash_loop_now(core->loop) >= deadline_ns);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(disks[i]->user.pauses, 0);
    }
    assert_int_equal(mem->own.pauses, 0);
    ash_user_leave(&disks[1]->user);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ash_co_disk_close(disks[i], NULL), 0);
    }
    assert_int_equal(ash_node_unref(mem), 0);
}

CORE_TEST(pauses_that_cover_one_user_follow_one_another)
{
    (void)opaque;
    struct ash_node *mem = open_mem(core);
    struct ash_pause first;
    struct ash_pause second;
    struct ash_disk *disk = open_disk(core, above_m(), 0);
    struct ash_node *above = ash_disk_node(disk);
    assert_int_equal(ash_pause_begin(&first, core->loop, &mem, 1, UINT64_MAX), 0);
    uint64_t soon_ns = ash_loop_now(core->loop) + MS;
    assert_int_equal(ash_pause_begin(&second, core->loop, &above, 1, soon_ns), -ETIMEDOUT);
    assert_int_equal(disk->user.pauses, 1);
    core_spawn(core, resume_too_early, &first);
    assert_int_equal(ash_pause_begin(&second, core->loop, &above, 1, UINT64_MAX), 0);
    assert_int_equal(disk->user.pauses, 1);
    ash_pause_end(&second);
    core_join(core);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    assert_int_equal(ash_node_unref(mem), 0);
}

static void give_up_soon(struct core *core, void *opaque)
{
    (void)core;
    ash_co_assert_inside();
    ash_co_sleep(MS);
    ash_pause_give_up(opaque);
}

/* Behind another pause, and behind a request that never ends. */
CORE_TEST(a_pause_that_is_given_up_opens_all_gates)
{
    (void)opaque;
    struct ash_node *mem = open_mem(core);
    struct ash_pause first;
    struct ash_pause second;
    struct ash_disk *disk = open_disk(core, above_m(), 0);
    struct ash_node *above = ash_disk_node(disk);
    assert_int_equal(ash_pause_begin(&first, core->loop, &mem, 1, UINT64_MAX), 0);
    core_spawn(core, give_up_soon, &second);
    assert_int_equal(ash_pause_begin(&second, core->loop, &above, 1, UINT64_MAX), -ECANCELED);
    assert_int_equal(disk->user.pauses, 1);
    ash_pause_end(&first);
    ash_user_begin(&disk->user); /* a request that never ends */
    core_spawn(core, give_up_soon, &second);
    assert_int_equal(ash_pause_begin(&second, core->loop, &mem, 1, UINT64_MAX), -ECANCELED);
    assert_int_equal(disk->user.pauses, 0);
    assert_int_equal(mem->own.pauses, 0);
    ash_user_leave(&disk->user);
    assert_int_equal(ash_pause_begin(&second, core->loop, &mem, 1, UINT64_MAX), 0);
    ash_pause_end(&second);
    core_join(core);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    assert_int_equal(ash_node_unref(mem), 0);
}

static void enter_once(struct core *core, void *opaque)
{
    struct ash_user *user = opaque;
    (void)core;
    ash_co_assert_inside();
    ash_user_enter(user);
}

/* One pause of the user alone and one of a node below, in either order of their ends. */
CORE_TEST(a_gate_opens_when_the_last_pause_ends)
{
    (void)opaque;
    struct ash_node *mem = open_mem(core);
    struct ash_disk *disk = open_disk(core, above_m(), 0);
    struct ash_pause pause;
    for (int node_first = 0; node_first < 2; node_first++) {
        assert_int_equal(ash_user_pause(&disk->user, UINT64_MAX), 0);
        assert_int_equal(ash_pause_begin(&pause, core->loop, &mem, 1, UINT64_MAX), 0);
        core_spawn(core, enter_once, &disk->user);
        ash_co_sleep(MS);
        node_first ? ash_pause_end(&pause) : ash_user_resume(&disk->user);
        ash_co_sleep(MS);
        assert_int_equal(disk->user.pauses, 1);
        assert_int_equal(disk->user.in_flight, 0);
        node_first ? ash_user_resume(&disk->user) : ash_pause_end(&pause);
        core_join(core);
        assert_int_equal(disk->user.in_flight, 1);
        ash_user_leave(&disk->user);
    }
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    assert_int_equal(ash_node_unref(mem), 0);
}

/* It is opened and closed again before who waits there goes on. */
CORE_TEST(who_waits_at_a_gate_looks_again)
{
    (void)opaque;
    struct ash_user user;
    ash_user_init(&user, core->loop);
    ash_user_close_gate(&user);
    core_spawn(core, enter_once, &user);
    ash_co_sleep(MS);
    ash_user_resume(&user);
    ash_user_close_gate(&user);
    ash_co_sleep(MS);
    assert_int_equal(user.in_flight, 0);
    ash_user_resume(&user);
    core_join(core);
    ash_user_leave(&user);
    ash_user_destroy(&user);
}

CORE_TEST(a_pause_of_a_user_that_expires_opens_its_gate)
{
    (void)opaque;
    struct ash_user user;
    ash_user_init(&user, core->loop);
    ash_user_begin(&user);
    uint64_t deadline_ns = ash_loop_now(core->loop) + MS;
    assert_int_equal(ash_user_pause(&user, deadline_ns), -ETIMEDOUT);
    assert_int_equal(user.pauses, 0);
    ash_user_leave(&user);
    ash_user_destroy(&user);
}

static void close_disk(struct core *core, void *opaque)
{
    struct reader *reader = opaque;
    (void)core;
    ash_co_assert_inside();
    assert_int_equal(ash_co_disk_close(reader->disk, NULL), 0);
    reader->done = true;
}

CORE_TEST(closing_waits_for_a_pause_and_a_pause_for_closing)
{
    (void)opaque;
    unsigned meetings = 0;
    for (unsigned round = 0; round < 60; round++) {
        struct ash_node *mem = open_mem(core);
        struct ash_pause pause;
        json_t *description = above_m();
        json_object_set_new(description, "node-name", json_string("r"));
        struct reader reader = {.disk = open_disk(core, description, ASH_NODE_WRITE)};
        if (round % 2 == 0) {
            assert_int_equal(ash_disk_write(reader.disk, 0, "x", 1, 0), 0); /* to be flushed */
        }
        core_spawn(core, close_disk, &reader);
        ash_co_sleep(ash_prng_below(&core->prng, 60000));
        bool half_closed = !reader.done && reader.disk->user.pauses > 0;
        assert_int_equal(ash_pause_begin(&pause, core->loop, &mem, 1, UINT64_MAX), 0);
        /* All of it is done, or nothing of it has begun and the gate is closed. */
        bool gone = ash_list_empty(&mem->parents);
        assert_true(gone || ash_node_find(core->loop, "r") != NULL);
        meetings += half_closed && gone;
        for (unsigned i = 0; i < 20; i++) {
            ash_node_assert_quiet(mem);
            ash_co_sleep(5000);
        }
        assert_int_equal(ash_list_empty(&mem->parents), gone);
        ash_pause_end(&pause);
        core_join(core);
        assert_int_equal(ash_node_unref(mem), 0);
    }
    assert_true(meetings > 0);
}

struct reopener {
    struct ash_disk *disk;
    uint32_t flags;
    unsigned times;
};

static void reopen_often(struct core *core, void *opaque)
{
    struct reopener *reopener = opaque;
    (void)core;
    ash_co_assert_inside();
    for (unsigned i = 0; i < reopener->times; i++) {
        uint32_t flags = reopener->flags ^ (i % 2 != 0 ? ASH_NODE_NO_FLUSH : 0);
        assert_int_equal(ash_disk_reopen(reopener->disk, flags, false, NULL), 0);
    }
}

static void write_often(struct core *core, void *opaque)
{
    struct reopener *writer = opaque;
    ash_co_assert_inside();
    char block[4096] = {1};
    for (unsigned i = 0; i < 40; i++) {
        uint64_t at = ash_prng_below(&core->prng, 60) * 64 * KiB;
        assert_int_equal(ash_disk_write(writer->disk, at, block, sizeof(block), 0), 0);
        if (i % 3 == 0) {
            assert_int_equal(ash_disk_discard(writer->disk, at, 64 * KiB), 0);
        }
        if (i % 16 == 15) {
            assert_int_equal(ash_disk_flush(writer->disk), 0);
        }
    }
}

static void reopen_among_writes(struct core *core, void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    struct chain chain = {.depth = 1, .qcow2 = true};
    chain.bytes[0] = 4 * MiB;
    chain.unit[0] = 64 * KiB;
    chain_create(core, &chain, 0);
    json_t *description = json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver",
                                    "file", "filename", core_file(core, chain_name(0), -1));
    struct ash_disk *disk = open_disk(core, description, ASH_NODE_WRITE | ASH_NODE_DISCARD);
    struct reopener users[4];
    for (unsigned i = 0; i < 4; i++) {
        users[i] = (struct reopener){disk, ASH_NODE_WRITE | ASH_NODE_DISCARD, 5};
        core_spawn(core, i < 2 ? reopen_often : write_often, &users[i]);
    }
    core_join(core);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* qcow2 works in the background: batches, growing, giving back. Each plan finds all of it quiet. */
static void reopening_at_once_and_among_writes_finds_the_nodes_quiet(void **state)
{
    (void)state;
    uint64_t end = core_end_seed(20);
    for (uint64_t seed = core_first_seed(); seed < end; seed++) {
        struct core core;
        core_up(&core, seed);
        core_run(&core, reopen_among_writes, NULL);
        core_down(&core);
    }
}

struct opener {
    json_t *description;
    struct ash_disk *disk;
};

static void open_top(struct core *core, void *opaque)
{
    struct opener *opener = opaque;
    ash_co_assert_inside();
    opener->disk = open_disk(core, json_incref(opener->description), 0);
}

/* Before its backing file is there, whoever found the top would read zeroes instead of it. */
CORE_TEST(a_chain_is_found_by_name_only_when_it_is_whole)
{
    (void)opaque;
    chain_image(core, "top", 1 * MiB, 64 * KiB, NULL, NULL);
    struct opener opener = {
        .description = json_pack("{s:s, s:s, s:{s:s, s:s}, s:{s:s, s:s, s:i}}", "driver",
                                 "test-map", "node-name", "top", "file", "driver", "file",
                                 "filename", core_file(core, "top", -1), "backing", "driver",
                                 "test-mem", "node-name", "base", "delay-ns", 20000)};
    core_spawn(core, open_top, &opener);
    unsigned looked = 0;
    struct ash_node *top = NULL;
    while (top == NULL) {
        top = ash_node_find(core->loop, "top");
        looked += ash_node_name_taken(core->loop, "base");
        assert_true(top != NULL || ash_node_find(core->loop, "base") == NULL);
        ash_co_sleep(100);
    }
    assert_true(looked > 3 || core_is_real());
    assert_non_null(top->backing);
    core_join(core);
    json_decref(opener.description);
    assert_int_equal(ash_co_disk_close(opener.disk, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_asserts_that_what_it_edits_is_quiet),
        cmocka_unit_test(a_pause_covers_all_users_above_and_those_that_come_later),
        cmocka_unit_test(an_edge_made_under_a_pause_brings_its_user_into_it),
        cmocka_unit_test(a_pause_of_a_node_that_expires_opens_all_gates),
        cmocka_unit_test(pauses_that_cover_one_user_follow_one_another),
        cmocka_unit_test(a_pause_that_is_given_up_opens_all_gates),
        cmocka_unit_test(a_gate_opens_when_the_last_pause_ends),
        cmocka_unit_test(who_waits_at_a_gate_looks_again),
        cmocka_unit_test(a_pause_of_a_user_that_expires_opens_its_gate),
        cmocka_unit_test(closing_waits_for_a_pause_and_a_pause_for_closing),
        cmocka_unit_test(reopening_at_once_and_among_writes_finds_the_nodes_quiet),
        cmocka_unit_test(a_chain_is_found_by_name_only_when_it_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
