/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Alignment, splitting and fallbacks against a flat model: whatever a driver's limits are, the
 * bytes are the same, the driver sees only what keeps them, and neighbours in one block do not lose
 * what they wrote. */
#include "tests/unit/unit.h"
#include "tests/unit/core_rig.h"

#define PIECES_MAX 40

struct limits {
    unsigned request;
    unsigned memory;
    unsigned iov_max;
    unsigned transfer_max;
    unsigned zero;
    unsigned zero_max;
    unsigned discard;
    unsigned discard_max;
    unsigned size;
    bool no_zero;
};

static const struct limits limits_tried[] = {
    {1, 1, 0, 0, 0, 0, 0, 0, 10000, false},
    {512, 1, 0, 0, 0, 0, 0, 0, 20480, false},
    {512, 512, 4, 2048, 0, 0, 0, 0, 20480, false},
    {4096, 4096, 2, 8192, 0, 0, 0, 0, 65536, true},
    {1, 512, 3, 1536, 1024, 3072, 2048, 4096, 33333, false},
    {512, 16, 1, 0, 4096, 12288, 4096, 8192, 40960, false},
    {4096, 1, 0, 4096, 0, 4096, 0, 0, 50000, false},
    {512, 1, 0, 512, 512, 1536, 512, 512, 10241, true},
    {4096, 4096, 7, 1 << 20, 0, 0, 0, 0, 600000, false}, /* long enough to be cut in three */
};

struct bench {
    struct ash_edge *edge;
    struct limits limits;
    uint8_t *model;
};

static json_t *describe(const struct limits *limits, uint64_t seed, unsigned delay_ns)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:b}", "size",
                     limits->size, "request-alignment", limits->request, "memory-alignment",
                     limits->memory, "iov-max", limits->iov_max, "transfer-max",
                     limits->transfer_max, "zero-alignment", limits->zero, "zero-max",
                     limits->zero_max, "discard-alignment", limits->discard, "discard-max",
                     limits->discard_max, "delay-ns", delay_ns, "seed", (json_int_t)seed, "no-zero",
                     limits->no_zero);
}

/* Cuts a buffer into pieces at random, empty ones too. */
static uint32_t cut(struct core *core, uint8_t *buffer, uint64_t bytes, struct iovec *vec)
{
    uint32_t count = 0;
    while (bytes > 0 && count < PIECES_MAX - 1) {
        uint64_t piece = ash_prng_below(&core->prng, bytes + 1);
        if (ash_prng_chance(&core->prng, 300)) {
            piece = bytes;
        }
        vec[count++] = (struct iovec){buffer, piece};
        buffer += piece;
        bytes -= piece;
    }
    if (bytes > 0) {
        vec[count++] = (struct iovec){buffer, bytes};
    }
    return count;
}

ASH_CO_FN static int transfer(struct core *core, struct ash_edge *edge, uint8_t op, uint64_t offset,
                              uint8_t *buffer, uint64_t bytes, uint32_t flags)
{
    struct iovec vec[PIECES_MAX];
    uint32_t count = cut(core, buffer, bytes, vec);
    struct ash_io io = {.op = op, .flags = flags, .offset = offset, .bytes = bytes};
    io.iov = ash_iov_of(vec, count);
    return ash_edge_io(edge, &io);
}

/* A range within [low, high). */
static void draw(struct core *core, uint64_t low, uint64_t high, uint64_t *offset, uint64_t *bytes)
{
    *offset = ash_prng_between(&core->prng, low, high - 1);
    *bytes = ash_prng_between(&core->prng, 1, high - *offset);
    if (ash_prng_chance(&core->prng, 500)) {
        *bytes = ASH_MIN(*bytes, 700);
    }
}

/* One operation within the caller's part of the disk, and the same on the model. */
ASH_CO_FN static void one_operation(struct core *core, struct bench *bench, uint64_t low,
                                    uint64_t high)
{
    uint64_t offset;
    uint64_t bytes;
    draw(core, low, high, &offset, &bytes);
    uint8_t *memory = g_malloc(bytes + 64);
    uint8_t *buffer = memory + ash_prng_below(&core->prng, 64);
    uint64_t what = ash_prng_below(&core->prng, 10);
    int ret;
    if (what < 4) {
        ash_prng_fill(&core->prng, buffer, bytes);
        memcpy(bench->model + offset, buffer, bytes);
        ret = transfer(core, bench->edge, ASH_WRITE, offset, buffer, bytes, 0);
    } else if (what < 7) {
        memset(bench->model + offset, 0, bytes);
        ret = ash_edge_zero(bench->edge, offset, bytes, 0);
    } else if (what < 8) {
        ret = ash_edge_discard(bench->edge, offset, bytes);
        assert_int_equal(ret, 0);
        ret = transfer(core, bench->edge, ASH_READ, offset, bench->model + offset, bytes, 0);
    } else {
        ret = transfer(core, bench->edge, ASH_READ, offset, buffer, bytes, 0);
        assert_memory_equal(buffer, bench->model + offset, bytes);
    }
    assert_int_equal(ret, 0);
    g_free(memory);
}

ASH_CO_FN static void bench_up(struct core *core, struct bench *bench, const struct limits *limits,
                               unsigned delay_ns)
{
    bench->limits = *limits;
    bench->edge = core_mem(core, describe(limits, core->seed, delay_ns));
    bench->model = g_malloc0(limits->size);
}

/* What the driver holds is the model, and nobody went beyond its limits. */
ASH_CO_FN static void bench_down(struct core *core, struct bench *bench)
{
    struct mem_protocol *state = mem_protocol_of(bench->edge->child);
    if (memcmp(state->data, bench->model, bench->limits.size) != 0 || state->violations > 0) {
        print_message("seed %lu, limits %u %u\n", (unsigned long)core->seed, bench->limits.request,
                      bench->limits.memory);
    }
    assert_memory_equal(state->data, bench->model, bench->limits.size);
    assert_int_equal(state->violations, 0);
    core_let_go(core, bench->edge);
    g_free(bench->model);
}

ASH_CO_FN static void alone_body(struct core *core, void *opaque)
{
    struct bench bench;
    bench_up(core, &bench, opaque, 0);
    for (unsigned i = 0; i < 150; i++) {
        one_operation(core, &bench, 0, bench.limits.size);
    }
    bench_down(core, &bench);
}

struct guest {
    struct bench *bench;
    uint64_t low;
    uint64_t high;
};

ASH_CO_FN static void guest(struct core *core, void *opaque)
{
    struct guest *guest = opaque;
    for (unsigned i = 0; i < 25; i++) {
        one_operation(core, guest->bench, guest->low, guest->high);
    }
}

/* Each guest has its own bytes, but they share blocks. */
ASH_CO_FN static void together_body(struct core *core, void *opaque)
{
    struct bench bench;
    struct guest guests[6];
    bench_up(core, &bench, opaque, 3000);
    uint64_t low = 0;
    for (unsigned i = 0; i < 6; i++) {
        uint64_t high = i == 5 ? bench.limits.size : low + bench.limits.size / 6 + i * 7;
        guests[i] = (struct guest){&bench, low, high};
        core_spawn(core, guest, &guests[i]);
        low = high;
    }
    core_join(core);
    bench_down(core, &bench);
}

static void for_all_limits(void (*body)(struct core *core, void *opaque), unsigned seeds)
{
    for (size_t i = 0; i < ASH_ARRAY_SIZE(limits_tried); i++) {
        for (uint64_t seed = core_first_seed(); seed < core_end_seed(seeds); seed++) {
            struct core core;
            struct limits limits = limits_tried[i];
            core_up(&core, seed);
            core_run(&core, body, &limits);
            core_down(&core);
        }
    }
}

static void one_guest_finds_what_it_wrote_whatever_the_limits(void **state)
{
    (void)state;
    for_all_limits(alone_body, 10);
}

static void neighbours_in_one_block_lose_nothing(void **state)
{
    (void)state;
    for_all_limits(together_body, 20);
}

CORE_TEST(a_read_beyond_the_end_is_an_error_for_a_disk)
{
    (void)opaque;
    uint8_t buffer[1024];
    struct ash_edge *edge =
        core_mem(core, json_pack("{s:i, s:i}", "size", 1000, "request-alignment", 512));
    assert_int_equal(ash_edge_read(edge, 500, buffer, 500), 0);
    assert_int_equal(ash_edge_read(edge, 500, buffer, 501), -EIO);
    assert_int_equal(ash_edge_write(edge, 1000, buffer, 1, 0), -EIO);
    assert_int_equal(ash_edge_read(edge, 1000, buffer, 0), 0);
    assert_int_equal(ash_edge_read(edge, INT64_MAX, buffer, 1), -EIO);
    assert_int_equal(ash_edge_read(edge, UINT64_MAX, buffer, 2), -EIO);
    assert_int_equal(ash_edge_zero(edge, UINT64_MAX - 5, 20, 0), -EIO);
    assert_int_equal(ash_edge_discard(edge, 0, UINT64_MAX), -EIO);
    core_let_go(core, edge);
}

CORE_TEST(without_fallback_no_zeroes_are_written_as_data)
{
    (void)opaque;
    struct ash_edge *edge =
        core_mem(core, json_pack("{s:i, s:i, s:i}", "size", 65536, "request-alignment", 512,
                                 "zero-alignment", 4096));
    struct mem_protocol *state = mem_protocol_of(edge->child);
    memset(state->data, 1, 65536);
    assert_int_equal(ash_edge_zero(edge, 4096, 8192, ASH_REQ_NO_FALLBACK), 0);
    assert_int_equal(state->count[ASH_WRITE], 0);
    assert_int_equal(ash_edge_zero(edge, 5000, 8192, ASH_REQ_NO_FALLBACK), -ENOTSUP);
    assert_int_equal(ash_edge_zero(edge, 4096, 5000, ASH_REQ_NO_FALLBACK), -ENOTSUP);
    state->no_zero = true;
    assert_int_equal(ash_edge_zero(edge, 4096, 8192, ASH_REQ_NO_FALLBACK), -ENOTSUP);
    assert_int_equal(state->count[ASH_WRITE], 0);
    assert_int_equal(ash_edge_zero(edge, 20480, 4096, 0), 0);
    assert_int_equal(state->count[ASH_WRITE], 1);
    core_let_go(core, edge);
}

CORE_TEST(a_failure_in_a_read_modify_write_is_the_requests)
{
    (void)opaque;
    uint8_t buffer[100] = {0};
    struct ash_edge *edge =
        core_mem(core, json_pack("{s:i, s:i}", "size", 65536, "request-alignment", 4096));
    mem_protocol_of(edge->child)->fail = -EROFS;
    assert_int_equal(ash_edge_write(edge, 10, buffer, 100, 0), -EROFS);
    assert_int_equal(mem_protocol_of(edge->child)->count[ASH_WRITE], 0);
    assert_int_equal(ash_edge_write(edge, 10, buffer, 100, 0), 0);
    core_let_go(core, edge);
}

CORE_TEST(fua_of_zeroes_is_a_flush_after_them)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_object());
    assert_int_equal(ash_edge_zero(edge, 0, 4096, ASH_REQ_FUA), 0);
    assert_int_equal(mem_protocol_of(edge->child)->count[ASH_FLUSH], 1);
    core_let_go(core, edge);
}

CORE_TEST(a_discard_that_is_not_wanted_does_nothing)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_pack("{s:s}", "discard", "ignore"));
    assert_int_equal(ash_edge_discard(edge, 0, 4096), 0);
    assert_int_equal(mem_protocol_of(edge->child)->count[ASH_DISCARD], 0);
    core_let_go(core, edge);
}

CORE_TEST(zeroes_are_detected_where_that_is_asked_for)
{
    (void)opaque;
    uint8_t buffer[4096] = {0};
    struct ash_edge *edge = core_mem(core, json_pack("{s:s}", "detect-zeroes", "on"));
    struct mem_protocol *state = mem_protocol_of(edge->child);
    assert_int_equal(ash_edge_write(edge, 0, buffer, sizeof(buffer), ASH_REQ_FUA), 0);
    assert_int_equal(state->count[ASH_ZERO], 1);
    assert_int_equal(state->count[ASH_FLUSH], 1);
    buffer[4095] = 1;
    assert_int_equal(ash_edge_write(edge, 0, buffer, sizeof(buffer), 0), 0);
    assert_int_equal(state->count[ASH_ZERO], 1);
    assert_int_equal(state->count[ASH_WRITE], 1);
    core_let_go(core, edge);
}

/* The node below a window is larger than it, and its blocks reach across the window's end. */
CORE_TEST(a_window_of_raw_leaves_alone_what_lies_around_it)
{
    (void)opaque;
    struct ash_disk *disk;
    json_t *description =
        json_pack("{s:s, s:i, s:i, s:{s:s, s:i}}", "driver", "raw", "offset", 4096, "size", 1024,
                  "file", "driver", "test-mem", "request-alignment", 4096);
    uint32_t flags = ASH_NODE_WRITE | ASH_NODE_DISCARD;
    assert_int_equal(ash_co_disk_open(core->loop, description, flags, &disk, NULL), 0);
    json_decref(description);
    uint8_t *data = mem_protocol_of(ash_disk_node(disk)->file->child)->data;
    memset(data, 0x77, 65536);
    assert_int_equal(ash_disk_write(disk, 400, "ashlar", 6, 0), 0);
    assert_int_equal(ash_disk_zero(disk, 1014, 10, 0), 0);
    assert_memory_equal(data + 4496, "ashlar", 6);
    for (unsigned i = 0; i < 65536; i++) {
        if ((i < 4496 || i >= 4502) && (i < 5110 || i >= 5120)) {
            assert_int_equal(data[i], 0x77);
        }
    }
    assert_int_equal(data[5119], 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* A write that is padded at one end only, and one to the rest of that block. */

struct side {
    struct ash_edge *edge;
    uint64_t offset;
    uint64_t bytes;
    uint8_t value;
};

static void side_write(struct core *core, void *opaque)
{
    struct side *side = opaque;
    uint8_t buffer[512];
    ash_co_assert_inside();
    (void)core;
    memset(buffer, side->value, side->bytes);
    assert_int_equal(ash_edge_write(side->edge, side->offset, buffer, side->bytes, 0), 0);
}

CORE_TEST(writes_padded_at_one_end_lose_nothing_of_each_other)
{
    (void)opaque;
    struct ash_edge *edge =
        core_mem(core, json_pack("{s:i, s:i}", "request-alignment", 512, "delay-ns", 1000));
    const uint8_t *data = mem_protocol_of(edge->child)->data;
    for (uint8_t round = 1; round < 30; round++) {
        struct side sides[] = {{edge, 100, 412, round}, {edge, 0, 100, (uint8_t)(round + 100)}};
        core_spawn(core, side_write, &sides[0]);
        core_spawn(core, side_write, &sides[1]);
        core_join(core);
        for (unsigned i = 0; i < 512; i++) {
            assert_int_equal(data[i], i < 100 ? round + 100 : round);
        }
    }
    core_let_go(core, edge);
}

CORE_TEST(a_vector_of_one_piece_too_many_is_bounced)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_pack("{s:i}", "iov-max", 2));
    struct mem_protocol *mem = mem_protocol_of(edge->child);
    struct iovec vec[] = {{(void *)"one", 3}, {(void *)"two", 3}, {(void *)"three", 5}};
    struct ash_io io = {.op = ASH_WRITE, .offset = 7, .bytes = 11, .iov = ash_iov_of(vec, 3)};
    assert_int_equal(ash_edge_io(edge, &io), 0);
    assert_int_equal(mem->violations, 0);
    assert_memory_equal(mem->data + 7, "onetwothree", 11);
    core_let_go(core, edge);
}

CORE_TEST(a_discard_that_a_driver_cannot_do_is_no_failure)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_object());
    struct mem_protocol *mem = mem_protocol_of(edge->child);
    mem->fail = -ENOTSUP;
    assert_int_equal(ash_edge_discard(edge, 0, 4096), 0);
    assert_int_equal(mem->fail, 0);
    mem->fail = -EIO;
    assert_int_equal(ash_edge_discard(edge, 0, 4096), -EIO);
    core_let_go(core, edge);
}

/* An edge without a parent is a disk's. */
CORE_TEST(a_disk_makes_no_node_longer_and_writes_none_that_is_read_only)
{
    (void)opaque;
    struct ash_edge *edge = core_mem(core, json_object());
    struct ash_node *node = edge->child;
    node->flags |= ASH_NODE_GROWS;
    assert_int_equal(ash_edge_write(edge, node->size_bytes, "x", 1, 0), -EIO);
    assert_int_equal(ash_edge_zero(edge, node->size_bytes - 1, 2, 0), -EIO);
    node->flags &= ~ASH_NODE_GROWS;
    node->flags &= ~ASH_NODE_WRITE;
    assert_int_equal(ash_edge_write(edge, 0, "x", 1, 0), -EPERM);
    assert_int_equal(ash_edge_zero(edge, 0, 1, 0), -EPERM);
    assert_int_equal(ash_edge_discard(edge, 0, 1), -EPERM);
    assert_int_equal(mem_protocol_of(node)->count[ASH_WRITE], 0);
    node->flags |= ASH_NODE_WRITE;
    core_let_go(core, edge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_guest_finds_what_it_wrote_whatever_the_limits),
        cmocka_unit_test(neighbours_in_one_block_lose_nothing),
        cmocka_unit_test(a_read_beyond_the_end_is_an_error_for_a_disk),
        cmocka_unit_test(without_fallback_no_zeroes_are_written_as_data),
        cmocka_unit_test(a_failure_in_a_read_modify_write_is_the_requests),
        cmocka_unit_test(fua_of_zeroes_is_a_flush_after_them),
        cmocka_unit_test(a_discard_that_is_not_wanted_does_nothing),
        cmocka_unit_test(zeroes_are_detected_where_that_is_asked_for),
        cmocka_unit_test(writes_padded_at_one_end_lose_nothing_of_each_other),
        cmocka_unit_test(a_vector_of_one_piece_too_many_is_bounced),
        cmocka_unit_test(a_discard_that_a_driver_cannot_do_is_no_failure),
        cmocka_unit_test(a_disk_makes_no_node_longer_and_writes_none_that_is_read_only),
        cmocka_unit_test(a_window_of_raw_leaves_alone_what_lies_around_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
