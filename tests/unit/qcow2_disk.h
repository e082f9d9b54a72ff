/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One qcow2 image on a simulated disk, open, in tests whose bodies are coroutines. */
#ifndef ASH_TESTS_UNIT_QCOW2_DISK_H
#define ASH_TESTS_UNIT_QCOW2_DISK_H

#include "tests/unit/qcow2_rig.h"
#include "block/map/map.h"
#include "block/qcow2/qcow2.h"
#include "tests/unit/co_test.h"

enum { KIB = 1024, MIB = 1024 * 1024, MS = 1000000, SOME = 1000 };

static struct rig rig;
static struct ash_sim_config config;
static struct ash_disk *disk;
static struct ash_error error;
static uint8_t buffer[2 * MIB];

static inline int set_up(void **state)
{
    (void)state;
    config = (struct ash_sim_config){.seed = 1, .latency_ns_min = 1 * MS, .latency_ns_max = 2 * MS};
    error = (struct ash_error)ASH_ERROR_INIT;
    rig_world(&rig, &config);
    rig_boot(&rig);
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    rig_end(&rig);
    return 0;
}

#define QCOW2_TEST(name) CO_TEST_ON(rig.loop, name)

#define RUN(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

ASH_CO_FN static inline void open_image(const char *options, uint64_t bytes)
{
    assert_int_equal(rig_create(&rig, "image", bytes, options), 0);
    int ret = rig_open(&rig, "image", ASH_NODE_WRITE | ASH_NODE_DISCARD, &disk, &error);
    if (ret < 0) {
        fail_msg("%s", error.message);
    }
}

static inline struct ash_qcow2_state *state_of(void)
{
    return qcow2_state(ash_disk_node(disk));
}

ASH_CO_FN static inline int write_bytes(uint64_t offset, uint64_t bytes, uint8_t value)
{
    memset(buffer, value, bytes);
    return ash_disk_write(disk, offset, buffer, bytes, 0);
}

ASH_CO_FN static inline void expect_bytes(uint64_t offset, uint64_t bytes, uint8_t value)
{
    memset(buffer, ~value, bytes);
    assert_int_equal(ash_disk_read(disk, offset, buffer, bytes), 0);
    for (uint64_t i = 0; i < bytes; i++) {
        if (buffer[i] != value) {
            fail_msg("offset %" PRIu64 ": %u, not %u", offset + i, buffer[i], value);
        }
    }
}

static inline void expect_sound(uint64_t leaks)
{
    struct audit a;
    audit_image(&rig, "image", true, &a);
    if (a.corruptions) {
        fail_msg("%" PRIu64 " corruptions, first: %s", a.corruptions, a.first);
    }
    if (leaks != SOME) {
        assert_int_equal(a.leaks, leaks);
    }
}

/* A request in a coroutine of its own. */
struct side {
    bool write;
    bool flush;
    uint64_t offset;
    uint64_t bytes;
    uint8_t *data;
    int ret; /* 1 until it ends */
};

static inline void side_body(void *opaque)
{
    ash_co_assert_inside();
    struct side *side = opaque;
    if (side->flush) {
        side->ret = ash_disk_flush(disk);
        return;
    }
    side->ret = side->write ? ash_disk_write(disk, side->offset, side->data, side->bytes, 0)
                            : ash_disk_read(disk, side->offset, side->data, side->bytes);
}

ASH_CO_FN static inline void side_start(struct side *side)
{
    side->ret = 1;
    assert_int_equal(ash_co_spawn(&rig.loop->sched, side_body, side), 0);
    ash_co_sleep(5 * MS);
}

ASH_CO_FN static inline int side_wait(struct side *side)
{
    while (side->ret == 1) {
        ash_co_sleep(1 * MS);
    }
    return side->ret;
}

static inline uint64_t place_of(uint64_t guest)
{
    struct ash_table_slice *slice;
    uint32_t index;
    assert_int_equal(ash_qcow2_l2_peek(ash_disk_node(disk), guest, &slice, &index), 0);
    assert_non_null(slice);
    return qcow2_slice_entry(slice, index) & QCOW2_ENTRY_OFFSET;
}

static inline void poke64(uint64_t at, uint64_t value)
{
    value = htobe64(value);
    assert_int_equal(ash_sim_file_write(rig.world, "image", at, &value, 8), 0);
}

static inline uint64_t peek64(uint64_t at)
{
    uint64_t value;
    assert_int_equal(ash_sim_file_read(rig.world, "image", at, &value, 8), 0);
    return be64toh(value);
}

/* An image with one cluster of data, closed; returns where its L2 table lies. */
ASH_CO_FN static inline uint64_t closed_image(const char *options)
{
    open_image(options, MIB);
    assert_int_equal(write_bytes(0, 65536, 1), 0);
    assert_int_equal(ash_co_disk_close(disk, &error), 0);
    return peek64(peek64(40)) & QCOW2_ENTRY_OFFSET;
}

#endif
