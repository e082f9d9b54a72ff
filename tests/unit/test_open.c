/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening graphs from descriptions: what may stand where, header strings, loops, depth, and that
 * nothing stays open after an error, wherever it strikes. */
#include "tests/unit/unit.h"
#include <sys/resource.h>
#include "tests/unit/chain_rig.h"

#define UNIT 4096

/* Takes the description over. */
ASH_CO_FN static int try_open(struct core *core, json_t *description, uint32_t flags,
                              struct ash_disk **disk, struct ash_error *error)
{
    *error = (struct ash_error)ASH_ERROR_INIT;
    int ret = ash_co_disk_open(core->loop, description, flags, disk, error);
    json_decref(description);
    assert_int_equal(ret < 0 ? error->code : 0, ret);
    return ret;
}

ASH_CO_FN static void must_fail(struct core *core, json_t *description, int code,
                                const char *message)
{
    struct ash_disk *disk;
    struct ash_error error;
    assert_non_null(description);
    int ret = try_open(core, description, ASH_NODE_WRITE, &disk, &error);
    if (ret != code || strstr(error.message, message) == NULL) {
        print_message("%d: %s\n", ret, error.message);
    }
    assert_int_equal(ret, code);
    assert_non_null(strstr(error.message, message));
    assert_null(ash_node_find(core->loop, "left"));
}

ASH_CO_FN static struct ash_disk *must_open(struct core *core, json_t *description, uint32_t flags)
{
    struct ash_disk *disk = NULL;
    struct ash_error error;
    assert_non_null(description);
    int ret = try_open(core, description, flags, &disk, &error);
    if (ret < 0) {
        print_message("%s\n", error.message);
    }
    assert_int_equal(ret, 0);
    return disk;
}

static json_t *map_on(struct core *core, const char *file)
{
    return json_pack("{s:s, s:{s:s, s:s}}", "driver", "test-map", "file", "driver", "file",
                     "filename", core_file(core, file, -1));
}

CORE_TEST(what_is_wrong_in_a_description_is_named)
{
    (void)opaque;
    core_file(core, "raw", 65536);
    must_fail(core, json_pack("{s:s}", "driver", "nosuch"), -EINVAL, "Unknown driver 'nosuch'");
    must_fail(core, json_pack("{s:s}", "driver", "raw"), -EINVAL, "\"file\"");
    must_fail(core, json_pack("{s:i, s:s}", "driver", 5, "file", "x"), -EINVAL, "'driver'");
    must_fail(core, json_pack("{s:s, s:i}", "driver", "raw", "file", 5), -EINVAL, "'file'");
    must_fail(core, json_pack("{s:s, s:s}", "driver", "raw", "file", "nosuch"), -ENODEV, "nosuch");
    must_fail(core, json_pack("{s:s, s:i}", "driver", "test-mem", "colour", 5), -EINVAL, "colour");
    must_fail(core, json_pack("{s:s, s:s}", "driver", "test-mem", "read-only", "maybe"), -EINVAL,
              "read-only");
    must_fail(core,
              json_pack("{s:s, s:{s:s, s:s}}", "driver", "raw", "file", "driver", "file",
                        "filename", "/nowhere/at/all"),
              -ENOENT, "/nowhere/at/all");
    must_fail(core,
              json_pack("{s:s, s:s, s:{s:s, s:s, s:i}}", "driver", "raw", "node-name", "left",
                        "file", "driver", "test-mem", "node-name", "left", "size", 512),
              -EEXIST, "left");
    must_fail(core,
              json_pack("{s:s, s:{s:s}, s:{s:s}}", "driver", "raw", "file", "driver", "test-mem",
                        "backing", "driver", "test-mem"),
              -EINVAL, "backing"); /* raw has none */
    must_fail(
        core,
        json_pack("{s:s, s:s, s:b}", "driver", "test-mem", "detect-zeroes", "unmap", "discard", 1),
        -EINVAL, "discard");
}

CORE_TEST(nodes_are_referred_to_by_name)
{
    (void)opaque;
    struct ash_disk *low =
        must_open(core, json_pack("{s:s, s:s}", "driver", "test-mem", "node-name", "base"), 0);
    chain_image(core, "top", 16 * UNIT, UNIT, "never-opened", NULL);
    memset(mem_protocol_of(ash_disk_node(low))->data, 0x42, 65536);
    json_t *description = map_on(core, "top");
    json_object_set_new(description, "backing", json_string("base"));
    struct ash_disk *disk = must_open(core, description, ASH_NODE_WRITE);
    uint8_t byte = 0;
    assert_ptr_equal(ash_disk_node(disk)->backing->child, ash_disk_node(low));
    assert_int_equal(ash_disk_read(disk, 77, &byte, 1), 0);
    assert_int_equal(byte, 0x42);
    assert_int_equal(ash_co_disk_close(low, NULL), 0); /* the overlay keeps the node */
    assert_int_equal(ash_disk_read(disk, 5000, &byte, 1), 0);
    assert_int_equal(byte, 0x42);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    assert_null(ash_node_find(core->loop, "base"));
}

CORE_TEST(the_backing_file_is_what_the_description_says_else_the_header)
{
    (void)opaque;
    chain_image(core, "base", 16 * UNIT, UNIT, NULL, NULL);
    chain_image(core, "top", 16 * UNIT, UNIT, "base", "test-map");
    struct ash_disk *disk = must_open(core, map_on(core, "top"), ASH_NODE_WRITE);
    struct ash_node *backing = ash_disk_node(disk)->backing->child;
    assert_string_equal(backing->driver->name, "test-map");
    assert_string_equal(backing->filename, core_file(core, "base", -1));
    assert_false(ash_node_writable(backing));
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);

    json_t *description = map_on(core, "top");
    json_object_set_new(description, "backing", json_null());
    disk = must_open(core, description, ASH_NODE_WRITE);
    assert_null(ash_disk_node(disk)->backing);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);

    description = map_on(core, "top");
    json_object_set_new(description, "backing", json_string(""));
    disk = must_open(core, description, ASH_NODE_WRITE);
    assert_null(ash_disk_node(disk)->backing);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);

    description = map_on(core, "top");
    json_object_set_new(description, "backing",
                        json_pack("{s:s, s:i}", "driver", "test-mem", "size", 512));
    disk = must_open(core, description, ASH_NODE_WRITE);
    assert_string_equal(ash_disk_node(disk)->backing->child->driver->name, "test-mem");
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);

    disk = must_open(core, map_on(core, "top"), ASH_NODE_WRITE | ASH_NODE_NO_BACKING);
    assert_null(ash_disk_node(disk)->backing);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);

    description = map_on(core, "top");
    json_object_set_new(description, "backing", json_integer(3));
    must_fail(core, description, -EINVAL, "backing");
}

CORE_TEST(a_header_names_paths_only_unless_the_caller_allows_more)
{
    (void)opaque;
    static const char *const refused[] = {
        "json:{\"driver\": \"test-mem\", \"size\": 4096}",
        "nbd://example.org/disk",
        "http://example.org/disk",
    };
    for (size_t i = 0; i < ASH_ARRAY_SIZE(refused); i++) {
        chain_image(core, "top", 16 * UNIT, UNIT, refused[i], NULL);
        must_fail(core, map_on(core, "top"), -EPERM, refused[i]);
    }
    chain_image(core, "top", 16 * UNIT, UNIT, refused[0], NULL);
    struct ash_disk *disk =
        must_open(core, map_on(core, "top"), ASH_NODE_WRITE | ASH_NODE_HEADER_URLS);
    assert_string_equal(ash_disk_node(disk)->backing->child->driver->name, "test-mem");
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    chain_image(core, "top", 16 * UNIT, UNIT, "base", "nosuch");
    must_fail(core, map_on(core, "top"), -EINVAL, "nosuch");
    chain_image(core, "top", 16 * UNIT, UNIT, "missing", "raw");
    must_fail(core, map_on(core, "top"), -ENOENT, "Could not open backing file");
}

CORE_TEST(a_chain_that_leads_to_itself_is_refused)
{
    (void)opaque;
    chain_image(core, "self", 16 * UNIT, UNIT, "self", "test-map");
    must_fail(core, map_on(core, "self"), -ELOOP, "infinite loop");
    chain_image(core, "a", 16 * UNIT, UNIT, "b", "test-map");
    chain_image(core, "b", 16 * UNIT, UNIT, "c", "test-map");
    chain_image(core, "c", 16 * UNIT, UNIT, "./b", "test-map");
    if (core->world != NULL) { /* whose names are opaque */
        chain_image(core, "c", 16 * UNIT, UNIT, "b", "test-map");
    }
    must_fail(core, map_on(core, "a"), -ELOOP, "infinite loop");
}

CORE_TEST(too_many_layers_through_file_are_refused)
{
    (void)opaque;
    json_t *description = json_pack("{s:s}", "driver", "test-mem");
    for (int i = 0; i < 40; i++) {
        description = json_pack("{s:s, s:o}", "driver", "raw", "file", description);
    }
    must_fail(core, description, -E2BIG, "");
}

/* Data in every tenth layer; each read goes to a layer of its own. */
static void long_chain(struct core *core, void *opaque)
{
    unsigned depth = *(unsigned *)opaque;
    char name[16] = "";
    char above[16];
    ash_co_assert_inside();
    for (unsigned layer = depth; layer-- > 0;) {
        snprintf(above, sizeof(above), "l%u", layer);
        chain_image(core, above, 16 * UNIT, UNIT, name[0] != '\0' ? name : NULL, "test-map");
        snprintf(name, sizeof(name), "%s", above);
        if (layer % (depth / 10) == 0) {
            struct ash_disk *disk =
                must_open(core, map_on(core, name), ASH_NODE_WRITE | ASH_NODE_NO_BACKING);
            uint64_t unit = layer / (depth / 10);
            uint8_t value = (uint8_t)(unit + 1);
            assert_int_equal(ash_disk_write(disk, unit * UNIT + 5, &value, 1, 0), 0);
            assert_int_equal(ash_co_disk_close(disk, NULL), 0);
        }
    }
    struct ash_disk *disk = must_open(core, map_on(core, "l0"), ASH_NODE_WRITE);
    for (int round = 0; round < 2; round++) {
        for (uint8_t unit = 0; unit < 10; unit++) {
            uint8_t value = 0;
            assert_int_equal(ash_disk_read(disk, unit * UNIT + 5, &value, 1), 0);
            assert_int_equal(value, unit + 1);
        }
    }
    uint8_t *whole = g_malloc(16 * UNIT);
    ash_co_paint();
    assert_int_equal(ash_disk_write(disk, 9 * UNIT + 100, "x", 1, ASH_REQ_FUA), 0);
    assert_int_equal(ash_disk_read(disk, 0, whole, 16 * UNIT), 0);
    assert_true(ash_co_untouched_bytes() > 16 * KiB);
    assert_int_equal(whole[9 * UNIT + 5], 10);
    assert_int_equal(whole[9 * UNIT + 100], 'x');
    g_free(whole);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

static void a_chain_of_a_thousand_fits_in_1024_descriptors(void **state)
{
    struct rlimit limit;
    struct rlimit usual;
    unsigned depth = 980;
    struct core core;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    usual = limit;
    usual.rlim_cur = 1024;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &usual), 0);
    core_up(&core, 1);
    core_run(&core, long_chain, &depth);
    core_down(&core);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* Disks that fail now and then: whatever comes of it, nothing stays open, and memory is freed. */
ASH_CO_FN static void open_and_close(struct core *core, void *opaque)
{
    unsigned *opened = opaque;
    struct ash_disk *disk;
    struct ash_error error;
    if (try_open(core, map_on(core, "top"), ASH_NODE_WRITE, &disk, &error) == 0) {
        (*opened)++;
        (void)ash_co_disk_close(disk, NULL);
    }
}

static void errors_at_any_point_leave_nothing_behind(void **state)
{
    (void)state;
    unsigned opened = 0;
    if (core_is_real()) {
        skip();
    }
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(300); seed++) {
        struct core core;
        core_up(&core, seed);
        chain_image(&core, "base", 16 * UNIT, UNIT, NULL, NULL);
        chain_image(&core, "middle", 16 * UNIT, UNIT, "base", NULL);
        chain_image(&core, "top", 16 * UNIT, UNIT, "middle", NULL);
        struct ash_sim_config faults = {.seed = seed,
                                        .latency_ns_max = 2000,
                                        .read_error_per_mille = 150,
                                        .write_error_per_mille = 150,
                                        .flush_error_per_mille = 150};
        ash_sim_world_configure(core.world, &faults);
        core_run(&core, open_and_close, &opened);
        core_down(&core); /* asserts that there are no nodes and no open files */
    }
    assert_true(getenv("SEED") != NULL || (opened >= 10 && opened <= 290));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_wrong_in_a_description_is_named),
        cmocka_unit_test(nodes_are_referred_to_by_name),
        cmocka_unit_test(the_backing_file_is_what_the_description_says_else_the_header),
        cmocka_unit_test(a_header_names_paths_only_unless_the_caller_allows_more),
        cmocka_unit_test(a_chain_that_leads_to_itself_is_refused),
        cmocka_unit_test(too_many_layers_through_file_are_refused),
        cmocka_unit_test(a_chain_of_a_thousand_fits_in_1024_descriptors),
        cmocka_unit_test(errors_at_any_point_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
