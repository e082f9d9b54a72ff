/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file driver on simulated disks: what fails, what stalls, and what happens at the same time.
 */
#include "tests/unit/unit.h"
#include <errno.h>
#include <linux/falloc.h>
#include "block/file/file.h"
#include "block/image/image.h"
#include "tests/unit/bare_node.h"
#include "util/engine/sim.h"
#include "util/range.h"

enum { MS = 1000000, STEP_BYTES = 64 * 1024 };

static struct ash_sim_world *world;
static struct ash_sim_config config;
static struct ash_loop *loop;
static struct bare bare;
static uint8_t buffer[STEP_BYTES] __attribute__((aligned(4096)));

static int start(uint64_t seed)
{
    struct ash_engine_config engine_config = {.depth = 64};
    struct ash_engine *engine;
    config =
        (struct ash_sim_config){.seed = seed, .latency_ns_min = 1 * MS, .latency_ns_max = 2 * MS};
    world = ash_sim_world_new(&config);
    if (ash_engine_sim_new(world, &engine_config, &engine, NULL) < 0 ||
        ash_loop_new_with_engine(engine, NULL, &loop, NULL) < 0) {
        return -1;
    }
    memset(buffer, 7, sizeof(buffer));
    return ash_loop_bind(loop);
}

static int set_up(void **state)
{
    (void)state;
    return start(1);
}

static int tear_down(void **state)
{
    (void)state;
    ash_loop_free(loop);
    ash_sim_world_free(world);
    return 0;
}

/* A file "a" of `bytes` ones, and the node on it. */
ASH_CO_FN static void open_file(size_t bytes, uint32_t flags)
{
    uint8_t *ones = g_malloc(bytes + 1);
    memset(ones, 1, bytes + 1);
    assert_int_equal(ash_sim_file_write(world, "a", 0, ones, bytes), 0);
    g_free(ones);
    assert_int_equal(bare_open(&bare, loop, "file", json_pack("{s:s}", "filename", "a"), flags), 0);
}

static void expect_bytes(uint64_t offset, size_t bytes, uint8_t value)
{
    uint8_t *found = g_malloc(bytes);
    assert_int_equal(ash_sim_file_read(world, "a", offset, found, bytes), 0);
    for (size_t i = 0; i < bytes; i++) {
        assert_int_equal(found[i], value);
    }
    g_free(found);
}

/* A request in a coroutine of its own. */
struct side {
    enum ash_op op;
    uint64_t offset;
    uint64_t bytes;
    uint32_t flags;
    int ret; /* 1 until it ends */
};

ASH_CO_FN static void side_body(void *opaque)
{
    struct side *side = opaque;
    if (side->op == ASH_STATUS) {
        bare_status(&bare, side->offset, side->bytes, side->flags);
        side->ret = 0;
        return;
    }
    side->ret = bare_io(&bare, side->op, side->offset, buffer, side->bytes, side->flags);
}

ASH_CO_FN static void side_start(struct side *side)
{
    side->ret = 1;
    assert_int_equal(ash_co_spawn(&loop->sched, side_body, side), 0);
    ash_co_reschedule();
}

ASH_CO_FN static int side_wait(struct side *side)
{
    while (side->ret == 1) {
        ash_co_sleep(1 * MS);
    }
    return side->ret;
}

ASH_CO_FN static int flush(void)
{
    return bare_io(&bare, ASH_FLUSH, 0, NULL, 0, 0);
}

/* Discards of a simulated device leave what it held, as they may. */
CO_TEST(zeroes_of_a_device_do_not_stand_on_a_discard)
{
    config.devices = true;
    ash_sim_world_configure(world, &config);
    open_file(STEP_BYTES, ASH_NODE_WRITE | ASH_NODE_DISCARD);
    assert_int_equal(bare_io(&bare, ASH_DISCARD, 0, NULL, 4096, 0), 0);
    expect_bytes(0, 4096, 1);
    assert_int_equal(bare_io(&bare, ASH_ZERO, 4096, NULL, 4096, ASH_REQ_UNMAP), 0);
    expect_bytes(4096, 4096, 0);
    assert_int_equal(bare_io(&bare, ASH_ZERO, 12288, NULL, 4096, 0), 0);
    expect_bytes(12288, 4096, 0);
    bare_close(&bare);
}

/* ---- flushing ---- */

CO_TEST(failed_flush_is_not_forgotten_by_the_next)
{
    open_file(8192, ASH_NODE_WRITE);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, 4096, 0), 0);
    config.flush_error_per_mille = 1000;
    ash_sim_world_configure(world, &config);
    assert_int_equal(flush(), -EIO);
    config.flush_error_per_mille = 0;
    ash_sim_world_configure(world, &config);
    assert_int_equal(flush(), -EIO);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, 4096, 0), 0);
    assert_int_equal(flush(), -EIO);
    assert_int_equal(bare_close(&bare), -EIO);
    open_file(8192, ASH_NODE_WRITE);
    assert_int_equal(flush(), 0);
    assert_int_equal(bare_close(&bare), 0);
}

/* flush: submitted ............................ completes
 * write with FUA:      submitted .. fails                    */
CO_TEST(loss_that_another_request_heard_of_fails_a_flush_beside_it)
{
    struct side side = {.op = ASH_FLUSH};
    open_file(8192, ASH_NODE_WRITE);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, 4096, 0), 0);
    ash_sim_hold(world, "a", ASH_AIO_FLUSH, 0, 0);
    side_start(&side);
    config.write_error_per_mille = 1000;
    ash_sim_world_configure(world, &config);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 4096, buffer, 4096, ASH_REQ_FUA), -EIO);
    config.write_error_per_mille = 0;
    ash_sim_world_configure(world, &config);
    ash_sim_release_all(world);
    assert_int_equal(side_wait(&side), -EIO);
    assert_int_equal(flush(), -EIO);
    bare_close(&bare);
}

CO_TEST(write_that_fails_without_fua_spoils_no_flush)
{
    open_file(8192, ASH_NODE_WRITE);
    config.write_error_per_mille = 1000;
    ash_sim_world_configure(world, &config);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 4096, buffer, 4096, 0), -EIO);
    config.write_error_per_mille = 0;
    ash_sim_world_configure(world, &config);
    assert_int_equal(flush(), 0);
    assert_int_equal(bare_close(&bare), 0);
}

CO_TEST(flush_reaches_the_disk_only_when_something_is_new)
{
    open_file(8192, ASH_NODE_WRITE);
    uint64_t before = ash_sim_mutations(world);
    assert_int_equal(flush(), 0); /* what an earlier process wrote */
    assert_int_equal(ash_sim_mutations(world), before + 1);
    assert_int_equal(flush(), 0);
    assert_int_equal(ash_sim_mutations(world), before + 1);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, 4096, 0), 0);
    assert_int_equal(flush(), 0);
    assert_int_equal(ash_sim_mutations(world), before + 3);
    bare_io(&bare, ASH_DISCARD, 0, NULL, 4096, 0);
    assert_int_equal(flush(), 0);
    assert_int_equal(ash_sim_mutations(world), before + 5);
    assert_int_equal(bare_io(&bare, ASH_ZERO, 4096, NULL, 4096, 0), 0);
    assert_int_equal(flush(), 0);
    assert_int_equal(ash_sim_mutations(world), before + 7);
    assert_int_equal(bare.node.driver->resize(&bare.node, 4096, ASH_PREALLOC_OFF, NULL), 0);
    assert_int_equal(flush(), 0);
    assert_int_equal(ash_sim_mutations(world), before + 9);
    bare_close(&bare);
}

CO_TEST(write_that_ends_while_a_flush_runs_is_left_to_the_next)
{
    struct side side = {.op = ASH_FLUSH};
    open_file(8192, ASH_NODE_WRITE);
    ash_sim_hold(world, "a", ASH_AIO_FLUSH, 0, 0);
    side_start(&side);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, 4096, 0), 0);
    ash_sim_release_all(world);
    assert_int_equal(side_wait(&side), 0);
    uint64_t before = ash_sim_mutations(world);
    assert_int_equal(flush(), 0);
    assert_int_equal(ash_sim_mutations(world), before + 1);
    bare_close(&bare);
}

CO_TEST(no_flush_makes_no_flush)
{
    open_file(8192, ASH_NODE_WRITE | ASH_NODE_NO_FLUSH);
    config.flush_error_per_mille = 1000;
    ash_sim_world_configure(world, &config);
    uint64_t before = ash_sim_mutations(world);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, 4096, ASH_REQ_FUA), 0);
    assert_int_equal(flush(), 0);
    assert_int_equal(ash_sim_mutations(world), before + 1);
    bare_close(&bare);
}

CO_TEST(fua_survives_a_power_cut_and_plain_writes_need_a_flush)
{
    open_file(16384, ASH_NODE_WRITE);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 4096, buffer, 4096, 0), 0);
    assert_int_equal(flush(), 0);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 8192, buffer, 4096, 0), 0);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, 4096, ASH_REQ_FUA), 0);
    ash_sim_power_cut(world, ASH_SIM_CUT_DROP);
    assert_int_equal(flush(), -EIO);
    bare_close(&bare);
    expect_bytes(0, 8192, 7);
    expect_bytes(8192, 8192, 1);
}

CO_TEST(flush_after_reopening_reaches_the_new_descriptor)
{
    open_file(8192, ASH_NODE_WRITE);
    assert_int_equal(flush(), 0);
    const struct ash_driver *driver = bare.node.driver;
    uint32_t flags = ASH_NODE_WRITE | ASH_NODE_DIRECT;
    assert_int_equal(driver->reopen_prepare(&bare.node, flags, NULL), 0);
    driver->reopen_commit(&bare.node, flags);
    uint64_t before = ash_sim_mutations(world);
    assert_int_equal(flush(), 0);
    assert_int_equal(ash_sim_mutations(world), before + 1);
    assert_int_equal(ash_sim_open_files(world), 1);
    bare_close(&bare);
}

/* ---- locks ---- */

struct locker {
    struct bare bare;
    int ret; /* 1 until it ends */
};

ASH_CO_FN static void locker_body(void *opaque)
{
    struct locker *locker = opaque;
    struct ash_node *node = &locker->bare.node;
    locker->ret = node->driver->lock(node, ASH_RIGHT_WRITE, ASH_RIGHT_READ, NULL);
}

/* Whoever comes second sees the first, however their steps meet. */
CO_TEST(of_two_who_lock_at_once_never_both_get_the_lock)
{
    assert_int_equal(ash_sim_file_write(world, "a", 0, buffer, 512), 0);
    for (unsigned round = 0; round < 30; round++) {
        struct locker *lockers = g_new0(struct locker, 2);
        for (int i = 0; i < 2; i++) {
            json_t *options = json_pack("{s:s}", "filename", "a");
            assert_int_equal(bare_open(&lockers[i].bare, loop, "file", options, ASH_NODE_WRITE), 0);
            lockers[i].ret = 1;
        }
        for (int i = 0; i < 2; i++) {
            assert_int_equal(ash_co_spawn(&loop->sched, locker_body, &lockers[i]), 0);
        }
        while (lockers[0].ret == 1 || lockers[1].ret == 1) {
            ash_co_sleep(1 * MS);
        }
        assert_true(lockers[0].ret == -EAGAIN || lockers[1].ret == -EAGAIN);
        bare_close(&lockers[0].bare);
        bare_close(&lockers[1].bare);
        g_free(lockers);
    }
}

/* ---- devices ---- */

static int allocate_mode;

static void note_mode(void *opaque, const struct ash_sim_event *event)
{
    (void)opaque;
    if (event->phase == ASH_SIM_SUBMITTED && event->aio->op == ASH_AIO_ALLOCATE) {
        allocate_mode |= event->aio->mode;
    }
}

/* What was discarded need not read as zeroes. */
CO_TEST(a_device_is_not_discarded_where_zeroes_are_asked_for)
{
    open_file(8192, ASH_NODE_WRITE);
    ash_file_node(&bare.node)->about.block_device = true;
    ash_sim_observe(world, note_mode, NULL);
    allocate_mode = 0;
    bare_io(&bare, ASH_ZERO, 0, NULL, 4096, ASH_REQ_UNMAP);
    bare_io(&bare, ASH_ZERO, 0, NULL, 4096, 0);
    assert_true(allocate_mode != 0);
    assert_int_equal(allocate_mode & FALLOC_FL_NO_HIDE_STALE, 0);
    bare_io(&bare, ASH_DISCARD, 0, NULL, 4096, 0);
    assert_true((allocate_mode & FALLOC_FL_NO_HIDE_STALE) != 0);
    ash_sim_observe(world, NULL, NULL);
    bare_close(&bare);
}

/* ---- making images ---- */

CO_TEST(an_image_that_could_not_be_made_stable_is_not_made)
{
    config.flush_error_per_mille = 1000;
    ash_sim_world_configure(world, &config);
    assert_int_equal(ash_image_create(loop, "new", "raw", MiB, NULL, NULL), -EIO);
    assert_true(ash_sim_file_bytes(world, "new") < 0);
    config.flush_error_per_mille = 0;
    ash_sim_world_configure(world, &config);
    assert_int_equal(ash_image_create(loop, "new", "raw", MiB, NULL, NULL), 0);
    assert_int_equal(ash_sim_file_bytes(world, "new"), MiB);
}

/* ---- the length ---- */

/* write at 1 MiB: submitted ............ completes
 * zero at 256 KiB:          submitted .............. truncates, if it must */
CO_TEST(growing_zero_waits_for_a_growing_write)
{
    struct side write = {.op = ASH_WRITE, .offset = 1 * MiB, .bytes = 4096};
    struct side zero = {.op = ASH_ZERO, .offset = 256 * KiB, .bytes = 4096, .flags = ASH_REQ_UNMAP};
    open_file(8192, ASH_NODE_WRITE);
    ash_sim_hold(world, "a", ASH_AIO_WRITE, 1 * MiB, 4096);
    side_start(&write);
    side_start(&zero);
    ash_co_sleep(1000 * MS);
    assert_int_equal(zero.ret, 1);
    assert_int_equal(ash_sim_file_bytes(world, "a"), 8192);
    ash_sim_release_all(world);
    assert_int_equal(side_wait(&write), 0);
    assert_int_equal(side_wait(&zero), 0);
    assert_int_equal(bare.node.size_bytes, 1 * MiB + 4096);
    assert_int_equal(ash_sim_file_bytes(world, "a"), 1 * MiB + 4096);
    expect_bytes(1 * MiB, 4096, 7);
    bare_close(&bare);
}

CO_TEST(growing_writes_do_not_wait_for_one_another)
{
    struct side first = {.op = ASH_WRITE, .offset = 1 * MiB, .bytes = 4096};
    open_file(8192, ASH_NODE_WRITE);
    ash_sim_hold(world, "a", ASH_AIO_WRITE, 1 * MiB, 4096);
    side_start(&first);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 2 * MiB, buffer, 4096, 0), 0);
    assert_int_equal(first.ret, 1);
    assert_int_equal(bare.node.size_bytes, 2 * MiB + 4096);
    ash_sim_release_all(world);
    assert_int_equal(side_wait(&first), 0);
    assert_int_equal(bare.node.size_bytes, 2 * MiB + 4096);
    bare_close(&bare);
}

CO_TEST(length_is_exact_after_growing_requests_that_fail)
{
    static const enum ash_op ops[] = {ASH_WRITE, ASH_ZERO, ASH_ZERO};
    open_file(8192, ASH_NODE_WRITE);
    for (unsigned i = 0; i < 60; i++) {
        uint64_t end = bare.node.size_bytes;
        config.write_error_per_mille = 1000;
        ash_sim_world_configure(world, &config);
        int ret =
            bare_io(&bare, ops[i % 3], end - 100, buffer, 10000, i % 3 == 2 ? ASH_REQ_UNMAP : 0);
        assert_int_equal(ret, -EIO);
        assert_int_equal(bare.node.size_bytes, ash_sim_file_bytes(world, "a"));
        config.write_error_per_mille = 0;
        ash_sim_world_configure(world, &config);
    }
    bare_close(&bare);
}

/* Each second error comes when the file has got its new length already; it is given the old one
 * again, unless that fails, too. */
CO_TEST(length_is_exact_after_resizing_that_fails)
{
    enum { TRIES = 400 };
    unsigned failed = 0, off = 0;
    open_file(8192, ASH_NODE_WRITE);
    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t wanted = i % 2 == 0 ? 4000 : 12000;
        config.write_error_per_mille = 500;
        ash_sim_world_configure(world, &config);
        int ret = bare.node.driver->resize(&bare.node, wanted, ASH_PREALLOC_OFF, NULL);
        config.write_error_per_mille = 0;
        ash_sim_world_configure(world, &config);
        assert_int_equal(bare.node.size_bytes, ret < 0 ? 8192 : wanted);
        failed += ret < 0;
        off += (int64_t)bare.node.size_bytes != ash_sim_file_bytes(world, "a");
        assert_int_equal(bare.node.driver->resize(&bare.node, 8192, ASH_PREALLOC_OFF, NULL), 0);
        assert_int_equal(ash_sim_file_bytes(world, "a"), 8192);
    }
    assert_in_range(failed, TRIES / 3, TRIES * 2 / 3);
    /* A quarter of all fail though they are done, and a quarter of these cannot be undone. */
    assert_in_range(off, 0, TRIES / 10);
    bare_close(&bare);
}

CO_TEST(length_is_exact_whether_or_not_the_last_block_can_be_cut_again)
{
    unsigned failed = 0;
    open_file(5000, ASH_NODE_WRITE | ASH_NODE_DIRECT);
    for (unsigned i = 0; i < 100; i++) {
        uint64_t wanted = bare.node.size_bytes;
        uint64_t start = ash_align_down(wanted, 512);
        uint64_t end = ash_align_up(wanted + 1, 512);
        struct iovec vec = {buffer, end - start};
        struct ash_io io = {.op = ASH_WRITE,
                            .offset = start,
                            .bytes = end - start,
                            .iov = ash_iov_of(&vec, 1),
                            .padding_bytes = (uint32_t)(end - wanted)};
        config.write_error_per_mille = 400;
        ash_sim_world_configure(world, &config);
        int ret = bare.node.driver->io[ASH_WRITE](&bare.node, &io);
        assert_int_equal(bare.node.size_bytes, ash_sim_file_bytes(world, "a"));
        assert_true(ret < 0 || bare.node.size_bytes == wanted);
        failed += bare.node.size_bytes != wanted;
        config.write_error_per_mille = 0;
        ash_sim_world_configure(world, &config);
        assert_int_equal(bare.node.driver->resize(&bare.node, 5000, ASH_PREALLOC_OFF, NULL), 0);
    }
    assert_in_range(failed, 1, 99);
    bare_close(&bare);
}

CO_TEST(preallocation_without_room_leaves_the_length)
{
    static const enum ash_prealloc modes[] = {ASH_PREALLOC_FALLOC, ASH_PREALLOC_FULL};
    open_file(8192, ASH_NODE_WRITE);
    config.capacity_bytes = 1 * MiB;
    ash_sim_world_configure(world, &config);
    for (unsigned i = 0; i < 2; i++) {
        int ret = bare.node.driver->resize(&bare.node, 4 * MiB, modes[i], &bare.error);
        assert_int_equal(ret, -ENOSPC);
        assert_non_null(strstr(bare.error.message, "'a'"));
        assert_int_equal(bare.node.size_bytes, 8192);
        assert_int_equal(ash_sim_file_bytes(world, "a"), 8192);
        expect_bytes(0, 8192, 1);
    }
    bare_close(&bare);
}

/* ---- what a file system lacks ---- */

static unsigned requests_seen;

static void count_requests(void *opaque, const struct ash_sim_event *event)
{
    (void)opaque;
    requests_seen += event->phase == ASH_SIM_SUBMITTED;
}

CO_TEST(what_cannot_be_done_is_tried_once)
{
    static const struct side asks[] = {
        {.op = ASH_ZERO, .bytes = 4096},
        {.op = ASH_ZERO, .bytes = 4096, .flags = ASH_REQ_UNMAP},
        {.op = ASH_DISCARD, .bytes = 4096},
        {.op = ASH_ZERO, .offset = 8192, .bytes = 4096},
    };
    open_file(8192, ASH_NODE_WRITE);
    config.unsupported = ASH_SIM_NO_PUNCH_HOLE | ASH_SIM_NO_ZERO_RANGE | ASH_SIM_NO_ALLOCATE;
    ash_sim_world_configure(world, &config);
    for (unsigned round = 0; round < 2; round++) {
        ash_sim_observe(world, count_requests, NULL);
        requests_seen = 0;
        for (size_t i = 0; i < ASH_ARRAY_SIZE(asks); i++) {
            const struct side *ask = &asks[i];
            assert_int_equal(bare_io(&bare, ask->op, ask->offset, NULL, ask->bytes, ask->flags),
                             -ENOTSUP);
        }
        if (round == 0) {
            assert_true(requests_seen > 0);
        } else {
            assert_int_equal(requests_seen, 0);
        }
    }
    ash_sim_observe(world, NULL, NULL);
    expect_bytes(0, 8192, 1);
    assert_int_equal(ash_sim_file_bytes(world, "a"), 8192);
    bare_close(&bare);
}

CO_TEST(one_way_to_zero_stands_in_for_the_other)
{
    open_file(8192, ASH_NODE_WRITE);
    config.unsupported = ASH_SIM_NO_PUNCH_HOLE;
    ash_sim_world_configure(world, &config);
    assert_int_equal(bare_io(&bare, ASH_ZERO, 0, NULL, 4096, ASH_REQ_UNMAP), 0);
    expect_bytes(0, 4096, 0);
    bare_close(&bare);

    open_file(8192, ASH_NODE_WRITE);
    config.unsupported = ASH_SIM_NO_ZERO_RANGE | ASH_SIM_NO_ALLOCATE;
    ash_sim_world_configure(world, &config);
    /* Without UNMAP the space has to stay. */
    assert_int_equal(bare_io(&bare, ASH_ZERO, 0, NULL, 4096, 0), -ENOTSUP);
    bare_close(&bare);

    open_file(8192, ASH_NODE_WRITE);
    config.unsupported = ASH_SIM_NO_ZERO_RANGE;
    ash_sim_world_configure(world, &config);
    int64_t allocated = ash_sim_file_allocated_bytes(world, "a");
    assert_int_equal(bare_io(&bare, ASH_ZERO, 0, NULL, 4096, 0), 0);
    expect_bytes(0, 4096, 0);
    assert_int_equal(ash_sim_file_allocated_bytes(world, "a"), allocated);
    assert_int_equal(bare_io(&bare, ASH_ZERO, 8192, NULL, 4096, 0), 0);
    assert_int_equal(bare.node.size_bytes, 12288);
    expect_bytes(8192, 4096, 0);
    bare_close(&bare);
}

/* The read that is tried first fails, as a bad sector does; the others would not. */
CO_TEST(a_read_that_fails_says_nothing_of_alignment)
{
    uint32_t unit = 0, memory = 0;
    open_file(65536, ASH_NODE_DIRECT);
    struct ash_file_node *state = ash_file_node(&bare.node);
    struct ash_file_status about = {.bytes = 65536, .block_bytes = 4096, .regular = true};
    ash_sim_aim(world, "a", 1, 1, -EIO); /* behind the look for data */
    assert_int_equal(ash_file_probe_alignment(loop, state->file, &about, &unit, &memory), 0);
    assert_int_equal(unit, 4096);
    assert_int_equal(memory, 4096);
    bare_close(&bare);
}

CO_TEST(host_that_cannot_seek_has_data_everywhere)
{
    open_file(8192, ASH_NODE_WRITE);
    config.unsupported = ASH_SIM_NO_SEEK;
    ash_sim_world_configure(world, &config);
    for (unsigned i = 0; i < 2; i++) {
        struct ash_status status = bare_status(&bare, 0, 8192, ASH_IO_STATUS_ZEROES);
        assert_int_equal(status.flags & 3, ASH_STATUS_DATA);
        assert_int_equal(status.bytes, 8192);
    }
    bare_close(&bare);
}

CO_TEST(file_that_may_not_be_written_opens_read_only_if_that_is_allowed)
{
    assert_int_equal(ash_sim_file_write(world, "a", 0, buffer, 4096), 0);
    assert_int_equal(ash_sim_file_set_read_only(world, "a", true), 0);
    json_t *options = json_pack("{s:s}", "filename", "a");
    json_incref(options);
    assert_int_equal(bare_open(&bare, loop, "file", options, ASH_NODE_WRITE), -EACCES);
    assert_string_equal(bare.error.message, "Could not open 'a': Permission denied");
    uint32_t flags = ASH_NODE_WRITE | ASH_NODE_AUTO_READ_ONLY;
    assert_int_equal(bare_open(&bare, loop, "file", options, flags), 0);
    assert_false(bare.node.flags & ASH_NODE_WRITE);
    bare_close(&bare);
}

/* ---- at the same time ---- */

/* seek:  submitted ... looks ............ completes
 * write:        submitted ....... completes            */
CO_TEST(answer_that_a_write_overtook_is_not_remembered)
{
    for (unsigned i = 0; i < 100; i++) {
        struct side status = {.op = ASH_STATUS, .bytes = 1 * MiB, .flags = ASH_IO_STATUS_ZEROES};
        assert_int_equal(ash_sim_file_write(world, "a", 0, buffer, 0), 0);
        assert_int_equal(
            bare_open(&bare, loop, "file", json_pack("{s:s}", "filename", "a"), ASH_NODE_WRITE), 0);
        assert_int_equal(bare.node.driver->resize(&bare.node, 0, ASH_PREALLOC_OFF, NULL), 0);
        assert_int_equal(bare.node.driver->resize(&bare.node, 1 * MiB, ASH_PREALLOC_OFF, NULL), 0);
        assert_int_equal(bare.node.driver->lock(&bare.node, ASH_RIGHT_READ, 0, NULL), 0);
        config.latency_ns_max = 20 * MS;
        ash_sim_world_configure(world, &config);
        side_start(&status);
        config.latency_ns_max = 1 * MS;
        ash_sim_world_configure(world, &config);
        assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, 4096, 0), 0);
        side_wait(&status);
        struct ash_status now = bare_status(&bare, 0, 4096, ASH_IO_STATUS_ZEROES);
        assert_int_equal(now.flags & 3, ASH_STATUS_DATA);
        bare_close(&bare);
    }
}

enum { REGIONS = 12, ROUNDS = 6 };

/* Writes and zeroes its own stretch of the file, which lies beyond the end at first. */
struct owner {
    uint64_t offset;
    struct ash_prng prng;
    uint8_t model[STEP_BYTES];
    bool done;
};

ASH_CO_FN static void owner_body(void *opaque)
{
    struct owner *owner = opaque;
    uint8_t *data = g_malloc(STEP_BYTES);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t at = ash_prng_below(&owner->prng, STEP_BYTES);
        uint64_t bytes = ash_prng_between(&owner->prng, 1, STEP_BYTES - at);
        bool zero = ash_prng_chance(&owner->prng, 500);
        uint32_t flags = zero ? (ash_prng_chance(&owner->prng, 500) ? ASH_REQ_UNMAP : 0) : 0;
        ash_prng_fill(&owner->prng, data, bytes);
        int ret =
            bare_io(&bare, zero ? ASH_ZERO : ASH_WRITE, owner->offset + at, data, bytes, flags);
        assert_int_equal(ret, 0);
        if (zero) {
            memset(owner->model + at, 0, bytes);
        } else {
            memcpy(owner->model + at, data, bytes);
        }
    }
    g_free(data);
    owner->done = true;
}

ASH_CO_FN static void run_owners(uint64_t seed)
{
    struct owner *owners = g_new0(struct owner, REGIONS);
    uint8_t *found = g_malloc(STEP_BYTES);
    config.short_per_mille = 200;
    ash_sim_world_configure(world, &config);
    open_file(100, ASH_NODE_WRITE);
    for (unsigned i = 0; i < REGIONS; i++) {
        owners[i].offset = 100 + (uint64_t)i * STEP_BYTES;
        ash_prng_seed(&owners[i].prng, seed * 1000 + i);
        assert_int_equal(ash_co_spawn(&loop->sched, owner_body, &owners[i]), 0);
    }
    for (unsigned i = 0; i < REGIONS; i++) {
        while (!owners[i].done) {
            ash_co_sleep(1 * MS);
        }
    }
    assert_int_equal(bare.node.size_bytes, ash_sim_file_bytes(world, "a"));
    for (unsigned i = 0; i < REGIONS; i++) {
        memset(found, 0xee, STEP_BYTES);
        assert_int_equal(bare_io(&bare, ASH_READ, owners[i].offset, found, STEP_BYTES, 0), 0);
        assert_memory_equal(found, owners[i].model, STEP_BYTES);
    }
    bare_close(&bare);
    g_free(found);
    g_free(owners);
}

ASH_CO_FN static int owners_main(void *opaque)
{
    run_owners(*(uint64_t *)opaque);
    return 0;
}

static void growing_requests_at_the_same_time_lose_nothing(void **state)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        print_message("seed %u\n", (unsigned)seed);
        assert_int_equal(start(seed), 0);
        assert_int_equal(ash_loop_run_sync(loop, owners_main, &seed), 0);
        tear_down(state);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(zeroes_of_a_device_do_not_stand_on_a_discard),
        TEST(failed_flush_is_not_forgotten_by_the_next),
        TEST(loss_that_another_request_heard_of_fails_a_flush_beside_it),
        TEST(write_that_fails_without_fua_spoils_no_flush),
        TEST(flush_reaches_the_disk_only_when_something_is_new),
        TEST(write_that_ends_while_a_flush_runs_is_left_to_the_next),
        TEST(no_flush_makes_no_flush),
        TEST(fua_survives_a_power_cut_and_plain_writes_need_a_flush),
        TEST(flush_after_reopening_reaches_the_new_descriptor),
        TEST(of_two_who_lock_at_once_never_both_get_the_lock),
        TEST(a_device_is_not_discarded_where_zeroes_are_asked_for),
        TEST(an_image_that_could_not_be_made_stable_is_not_made),
        TEST(growing_zero_waits_for_a_growing_write),
        TEST(growing_writes_do_not_wait_for_one_another),
        TEST(length_is_exact_after_growing_requests_that_fail),
        TEST(length_is_exact_after_resizing_that_fails),
        TEST(length_is_exact_whether_or_not_the_last_block_can_be_cut_again),
        TEST(preallocation_without_room_leaves_the_length),
        TEST(what_cannot_be_done_is_tried_once),
        TEST(one_way_to_zero_stands_in_for_the_other),
        TEST(a_read_that_fails_says_nothing_of_alignment),
        TEST(host_that_cannot_seek_has_data_everywhere),
        TEST(file_that_may_not_be_written_opens_read_only_if_that_is_allowed),
        TEST(answer_that_a_write_overtook_is_not_remembered),
        cmocka_unit_test(growing_requests_at_the_same_time_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
