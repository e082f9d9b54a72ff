/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hostile images: metadata of a good image is damaged at random, and whatever is then done to it
 * ends, with an error or without, in bounded time and memory. Most of the worth is in the sanitized
 * build. */
#include "tests/unit/qcow2_rig.h"
#include <stdlib.h>
#include "block/driver.h"

enum { DISK_BYTES = 4 * 1024 * 1024, BUFFER_BYTES = 256 * 1024 };

static struct rig rig;
static struct ash_disk *disk;
static struct ash_prng prng;
static uint64_t seed;
static uint8_t *good;
static size_t good_bytes;
static const char *options;

static int make_body(void *opaque)
{
    ash_co_assert_inside();
    (void)opaque;
    struct ash_error error = ASH_ERROR_INIT;
    uint8_t *buffer = g_malloc(BUFFER_BYTES);
    memset(buffer, 5, BUFFER_BYTES);
    assert_int_equal(rig_create(&rig, "image", DISK_BYTES, options), 0);
    assert_int_equal(rig_open(&rig, "image", ASH_NODE_WRITE, &disk, &error), 0);
    assert_int_equal(ash_disk_write(disk, 0, buffer, BUFFER_BYTES, 0), 0);
    struct iovec vec = {buffer, 128 * 1024};
    struct ash_io io = {.op = ASH_WRITE,
                        .flags = ASH_IO_COMPRESS,
                        .offset = 1024 * 1024,
                        .bytes = vec.iov_len,
                        .iov = ash_iov_of(&vec, 1)};
    assert_int_equal(ash_disk_io(disk, &io), 0);
    assert_int_equal(ash_disk_zero(disk, 65536, 65536, 0), 0);
    assert_int_equal(ash_disk_write(disk, 3 * 1024 * 1024, buffer, BUFFER_BYTES, 0), 0);
    g_free(buffer);
    return ash_co_disk_close(disk, &error);
}

static uint64_t field(size_t at)
{
    uint64_t value;
    memcpy(&value, good + at, 8);
    return be64toh(value);
}

/* Somewhere in the header, or in a table of some kind. */
static uint64_t place(void)
{
    uint64_t l1 = field(40);
    uint64_t reftable = field(48);
    uint64_t entry;
    switch (ash_prng_below(&prng, 6)) {
    case 0:
        return ash_prng_below(&prng, 120);
    case 1:
        return l1 + 8 * ash_prng_below(&prng, 8);
    case 2:
        return reftable + 8 * ash_prng_below(&prng, 4);
    case 3:
        entry = field(reftable);
        return (entry & ~UINT64_C(511)) + ash_prng_below(&prng, 256);
    default:
        entry = field(l1 + 8 * ash_prng_below(&prng, 2)) & UINT64_C(0xfffffffffffe00);
        return entry + 8 * ash_prng_below(&prng, 64);
    }
}

static uint64_t value(uint64_t old)
{
    static const uint64_t interesting[] = {
        0,
        1,
        511,
        512,
        65536,
        UINT64_MAX,
        UINT64_C(1) << 63,
        UINT64_C(1) << 62,
        INT64_MAX,
        UINT64_C(0x00fffffffffffe00),
        UINT64_C(0x7fffffffffffffff),
        UINT64_C(0xffffffff00000000),
    };
    switch (ash_prng_below(&prng, 5)) {
    case 0:
        return interesting[ash_prng_below(&prng, ASH_ARRAY_SIZE(interesting))];
    case 1:
        return old ^ UINT64_C(1) << ash_prng_below(&prng, 64);
    case 2:
        return old + (ash_prng_below(&prng, 2) ? 512 : 65536);
    case 3:
        return field(place() & ~UINT64_C(7));
    default:
        return ash_prng_next(&prng);
    }
}

static void damage(void)
{
    for (uint64_t n = 1 + ash_prng_below(&prng, 3); n > 0; n--) {
        uint64_t at = place();
        uint64_t old, new;
        if (at + 8 > good_bytes) {
            continue;
        }
        memcpy(&old, good + at, 8);
        new = htobe64(value(be64toh(old)));
        ash_sim_file_write(rig.world, "image", at, &new, 1 + ash_prng_below(&prng, 8));
    }
}

static int check_body(void *opaque)
{
    ash_co_assert_inside();
    (void)opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_check check = {
        .fix = ash_prng_below(&prng, 2) ? ASH_CHECK_FIX_LEAKS | ASH_CHECK_FIX_ERRORS : 0};
    uint32_t flags = ASH_NODE_CHECK | (check.fix ? ASH_NODE_WRITE : 0);
    if (rig_open(&rig, "image", flags, &disk, &error) == 0) {
        struct ash_node *node = ash_disk_node(disk);
        node->driver->check(node, &check, &error);
        ash_co_disk_close(disk, &error);
    }
    return 0;
}

static int use_body(void *opaque)
{
    ash_co_assert_inside();
    (void)opaque;
    struct ash_error error = ASH_ERROR_INIT;
    uint8_t *buffer = g_malloc0(BUFFER_BYTES);
    uint32_t flags = ash_prng_below(&prng, 3) ? ASH_NODE_WRITE | ASH_NODE_DISCARD : 0;
    if (rig_open(&rig, "image", flags, &disk, &error) == 0) {
        uint64_t size = ASH_MIN(ash_disk_bytes(disk), DISK_BYTES);
        for (int i = 0; i < 24 && size >= 2 * BUFFER_BYTES; i++) {
            uint64_t bytes = 512 * (1 + ash_prng_below(&prng, BUFFER_BYTES / 512));
            uint64_t offset = ash_prng_below(&prng, (size - bytes) / 512) * 512;
            switch (ash_prng_below(&prng, flags ? 6 : 1)) {
            case 0:
            case 1:
                ash_disk_read(disk, offset, buffer, bytes);
                break;
            case 2:
            case 3:
                ash_disk_write(disk, offset, buffer, bytes, 0);
                break;
            case 4:
                ash_disk_discard(disk, offset, bytes);
                break;
            default:
                ash_disk_zero(disk, offset, bytes, ASH_REQ_UNMAP);
                break;
            }
        }
        ash_co_disk_close(disk, &error);
    }
    g_free(buffer);
    return 0;
}

static void run_one(uint64_t number)
{
    static const char *const kinds[] = {
        "cluster_size=512",
        "cluster_size=4k,refcount_bits=1",
        "cluster_size=64k",
        "compat=0.10",
        "cluster_size=4k,lazy_refcounts=on,compression_type=zstd",
    };
    struct ash_sim_config config = {.seed = number, .latency_ns_min = 1000, .latency_ns_max = 2000};
    seed = number;
    ash_prng_seed(&prng, seed);
    options = kinds[ash_prng_below(&prng, ASH_ARRAY_SIZE(kinds))];
    rig_world(&rig, &config);
    rig_boot(&rig);
    assert_int_equal(ash_loop_run_sync(rig.loop, make_body, NULL), 0);
    good_bytes = ash_sim_file_bytes(rig.world, "image");
    good = g_malloc(good_bytes);
    assert_int_equal(ash_sim_file_read(rig.world, "image", 0, good, good_bytes), 0);
    damage();
    bool check_first = ash_prng_below(&prng, 3) == 0;
    if (check_first) {
        ash_loop_run_sync(rig.loop, check_body, NULL);
    }
    ash_loop_run_sync(rig.loop, use_body, NULL);
    rig_end(&rig);
    g_free(good);
}

static void whatever_is_damaged_ends_in_an_error_at_worst(void **state)
{
    const char *chosen = getenv("ASH_TEST_SEED");
    const char *runs = getenv("ASH_TEST_RUNS");
    uint64_t count = runs ? strtoull(runs, NULL, 10) : fewer_if_sanitized(400);
    (void)state;
    if (chosen) {
        run_one(strtoull(chosen, NULL, 10));
        return;
    }
    for (uint64_t i = 1; i <= count; i++) {
        run_one(i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_is_damaged_ends_in_an_error_at_worst),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
