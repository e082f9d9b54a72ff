/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tracking: what serialises waits and is waited for, in order of arrival, by range, without
 * deadlock; and what changes a node's length meanwhile is noticed by who waited. */
#include "tests/unit/unit.h"
#include "tests/unit/core_rig.h"

#define BYTES 4096

struct visit {
    struct ash_node *node;
    uint64_t offset;
    uint64_t bytes;
    bool serialising;
    uint64_t stay_ns;
    unsigned *log; /* of the numbers of visits, in the order in which they got in */
    unsigned *log_count;
    unsigned number;
};

ASH_CO_FN static void visit(struct core *core, void *opaque)
{
    struct visit *visit = opaque;
    struct ash_request request;
    (void)core;
    ash_track_begin(&request, visit->node, ASH_WRITE, visit->offset, visit->bytes,
                    visit->serialising);
    visit->log[(*visit->log_count)++] = visit->number;
    ash_co_sleep(visit->stay_ns);
    ash_track_end(&request);
}

CORE_TEST(who_overlaps_a_serialising_request_waits_in_order_of_arrival)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_object());
    unsigned log[4];
    unsigned count = 0;
    struct visit visits[4] = {
        {.offset = 0, .bytes = 512, .stay_ns = 1000},
        {.offset = 0, .bytes = 1024, .stay_ns = 10, .serialising = true},
        {.offset = 512, .bytes = 512, .stay_ns = 10},   /* behind the second, not the first */
        {.offset = 4096, .bytes = 4096, .stay_ns = 10}, /* overlaps nobody */
    };
    core->loop->sched.shuffle = NULL;
    for (unsigned i = 0; i < 4; i++) {
        visits[i].node = edge->child;
        visits[i].log = log;
        visits[i].log_count = &count;
        visits[i].number = i;
        core_spawn(core, visit, &visits[i]);
    }
    core_join(core);
    assert_int_equal(count, 4);
    assert_int_equal(log[0], 0);
    assert_int_equal(log[1], 3);
    assert_int_equal(log[2], 1);
    assert_int_equal(log[3], 2);
    core_let_go(core, edge);
    (void)opaque;
}

CORE_TEST(overlapping_requests_that_do_not_serialise_run_together)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_object());
    unsigned log[2];
    unsigned count = 0;
    struct visit visits[2];
    for (unsigned i = 0; i < 2; i++) {
        visits[i] = (struct visit){edge->child, 0, 512, false, 100000, log, &count, i};
        core_spawn(core, visit, &visits[i]);
    }
    ash_co_sleep(1000);
    assert_int_equal(count, 2);
    core_join(core);
    core_let_go(core, edge);
}

CORE_TEST(a_flush_waits_for_nobody)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_object());
    unsigned log[1];
    unsigned count = 0;
    struct visit everything = {edge->child, 0, INT64_MAX, true, 1000000, log, &count, 0};
    core_spawn(core, visit, &everything);
    ash_co_sleep(1000);
    uint64_t before_ns = ash_loop_now(core->loop);
    assert_int_equal(ash_edge_flush(edge), 0);
    assert_true(ash_loop_now(core->loop) - before_ns < 1000000 || core_is_real());
    core_join(core);
    core_let_go(core, edge);
}

struct storm {
    struct ash_node *node;
    uint8_t *in_driver;  /* per byte: requests inside */
    uint8_t *serialised; /* per byte: serialising ones inside */
    unsigned conflicts;
};

ASH_CO_FN static void storm_guest(struct core *core, void *opaque)
{
    struct storm *storm = opaque;
    for (unsigned i = 0; i < 40; i++) {
        struct ash_request request;
        uint64_t offset = ash_prng_below(&core->prng, BYTES);
        uint64_t bytes = ash_prng_below(&core->prng, BYTES - offset + 1);
        bool serialising = ash_prng_chance(&core->prng, 400);
        ash_track_begin(&request, storm->node, ASH_WRITE, offset, bytes, serialising);
        for (uint64_t at = offset; at < offset + bytes; at++) {
            storm->conflicts += serialising ? storm->in_driver[at] > 0 : storm->serialised[at] > 0;
            storm->in_driver[at]++;
            storm->serialised[at] += serialising;
        }
        ash_co_sleep(ash_prng_below(&core->prng, 500));
        for (uint64_t at = offset; at < offset + bytes; at++) {
            storm->in_driver[at]--;
            storm->serialised[at] -= serialising;
        }
        ash_track_end(&request);
    }
}

ASH_CO_FN static void storm_body(struct core *core, void *opaque)
{
    struct ash_edge *edge = core_mem(core, json_object());
    struct storm storm = {.node = edge->child};
    (void)opaque;
    storm.in_driver = g_malloc0(BYTES);
    storm.serialised = g_malloc0(BYTES);
    for (unsigned i = 0; i < 10; i++) {
        core_spawn(core, storm_guest, &storm);
    }
    core_join(core);
    if (storm.conflicts > 0) {
        print_message("seed %lu\n", (unsigned long)core->seed);
    }
    assert_int_equal(storm.conflicts, 0);
    assert_int_equal(edge->child->track.count, 0);
    assert_int_equal(edge->child->track.serialising, 0);
    g_free(storm.in_driver);
    g_free(storm.serialised);
    core_let_go(core, edge);
}

static void a_storm_of_requests_ends_and_none_meets_a_serialising_one(void **state)
{
    (void)state;
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(20); seed++) {
        struct core core;
        core_up(&core, seed);
        core_run(&core, storm_body, NULL);
        core_down(&core);
    }
}

ASH_CO_FN static void drain_then_count(struct core *core, void *opaque)
{
    struct visit *waiting = opaque;
    (void)core;
    ash_track_drain(waiting->node);
    waiting->log[(*waiting->log_count)++] = waiting->number;
}

CORE_TEST(a_drain_waits_for_all_that_is_in_flight)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_object());
    unsigned log[3];
    unsigned count = 0;
    struct visit first = {edge->child, 0, 512, false, 50000, log, &count, 0};
    struct visit second = {edge->child, 0, 512, true, 50000, log, &count, 1};
    struct visit drain = {.node = edge->child, .log = log, .log_count = &count, .number = 2};
    core->loop->sched.shuffle = NULL;
    core_spawn(core, visit, &first);
    core_spawn(core, visit, &second);
    core_spawn(core, drain_then_count, &drain);
    core_join(core);
    assert_int_equal(log[2], 2);
    core_let_go(core, edge);
}

/* Requests against a node that changes its length. */

struct resizing {
    struct ash_edge *edge;
    uint64_t bytes;
    uint32_t flags;
    int ret;
};

ASH_CO_FN static void resize(struct core *core, void *opaque)
{
    struct resizing *resizing = opaque;
    (void)core;
    resizing->ret = ash_edge_resize(resizing->edge, resizing->bytes, resizing->flags, 0, NULL);
}

ASH_CO_FN static void write_at_the_end(struct core *core, void *opaque)
{
    struct resizing *resizing = opaque;
    uint8_t buffer[512];
    (void)core;
    memset(buffer, 1, sizeof(buffer));
    resizing->ret =
        ash_edge_write(resizing->edge, resizing->bytes - sizeof(buffer), buffer, sizeof(buffer), 0);
}

ASH_CO_FN static void read_at_the_end(struct core *core, void *opaque)
{
    struct resizing *resizing = opaque;
    uint8_t buffer[512];
    (void)core;
    resizing->ret =
        ash_edge_read(resizing->edge, resizing->bytes - sizeof(buffer), buffer, sizeof(buffer));
}

/* shrink starts -> write and read at the old end wait for it -> shrink ends -> they look again */
CORE_TEST(what_waited_for_a_shrink_looks_again_where_the_end_is)
{
    (void)opaque;
    struct ash_edge *edge =
        core_mem(core, json_pack("{s:i, s:i}", "size", 65536, "delay-ns", 5000));
    struct resizing shrink = {edge, 4096, ASH_RESIZE_SHRINK, 1};
    struct resizing write = {edge, 65536, 0, 1};
    struct resizing read = {edge, 65536, 0, 1};
    core->loop->sched.shuffle = NULL;
    core_spawn(core, resize, &shrink);
    core_spawn(core, write_at_the_end, &write);
    core_spawn(core, read_at_the_end, &read);
    core_join(core);
    assert_int_equal(shrink.ret, 0);
    assert_int_equal(write.ret, -EIO);
    assert_int_equal(read.ret, -EIO);
    assert_int_equal(mem_protocol_of(edge->child)->violations, 0);
    core_let_go(core, edge);
}

/* 64K -> 128K and 64K -> 96K at once: the second one finds 128K, and would shrink. */
CORE_TEST(a_resize_that_waited_for_another_does_not_shrink_unasked)
{
    (void)opaque;
    struct ash_edge *edge =
        core_mem(core, json_pack("{s:i, s:i}", "size", 65536, "delay-ns", 5000));
    struct resizing first = {edge, 131072, 0, 1};
    struct resizing second = {edge, 98304, 0, 1};
    core->loop->sched.shuffle = NULL;
    core_spawn(core, resize, &first);
    core_spawn(core, resize, &second);
    core_join(core);
    assert_int_equal(first.ret, 0);
    assert_int_equal(second.ret, -EINVAL);
    assert_int_equal(edge->child->size_bytes, 131072);
    core_let_go(core, edge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_overlaps_a_serialising_request_waits_in_order_of_arrival),
        cmocka_unit_test(overlapping_requests_that_do_not_serialise_run_together),
        cmocka_unit_test(a_flush_waits_for_nobody),
        cmocka_unit_test(a_storm_of_requests_ends_and_none_meets_a_serialising_one),
        cmocka_unit_test(a_drain_waits_for_all_that_is_in_flight),
        cmocka_unit_test(what_waited_for_a_shrink_looks_again_where_the_end_is),
        cmocka_unit_test(a_resize_that_waited_for_another_does_not_shrink_unasked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
